package server

import (
	"context"
	_ "embed" // for the names of time zones
	"fmt"
	"math"
	"net/http"
	"reflect"
	"runtime"
	"runtime/pprof"
	"strings"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/version"
	"github.com/takodeploy/tako/octopus"
)

// counts are how many there are of things.
type counts struct {
	Spaces, Projects, Environments, Machines, Workers, Tenants, Users int64
	Releases, Deployments, Tasks, QueuedTasks, ExecutingTasks         int64
}

func (a *api) statusRoutes() []rest.Route {
	get := func(pattern, permission string, h rest.Handler, response reflect.Type, summary string) rest.Route {
		return rest.Route{Method: http.MethodGet, Pattern: pattern, Permission: permission, Handler: h, Response: response, Summary: summary}
	}
	return []rest.Route{
		get("/serverstatus", rest.SignedIn, a.status, reflect.TypeFor[octopus.ServerStatus](), "Tells how the server fares."),
		get("/serverstatus/health", rest.SignedIn, a.health, reflect.TypeFor[octopus.ServerHealth](), "Tells whether the server takes new tasks."),
		get("/serverstatus/counts", administer, a.counts, reflect.TypeFor[counts](), "Counts what the server has."),
		get("/serverstatus/system-info", administer, a.system, reflect.TypeFor[octopus.SystemInfo](), "Tells what the process uses."),
		get("/serverstatus/timezones", rest.SignedIn, a.timezones, reflect.TypeFor[[]octopus.Timezone](), "Lists the time zones that schedules can be in."),
		get("/licenses", rest.SignedIn, a.licenses, reflect.TypeFor[octopus.Page[octopus.License]](), "Lists licences; the server needs none."),
		get("/licenses/licenses-current", rest.SignedIn, a.license, reflect.TypeFor[octopus.License](), "Reads the licence; the server needs none."),
		get("/licenses/licenses-current-status", rest.SignedIn, a.licenseStatus, reflect.TypeFor[octopus.LicenseStatus](), "Tells that nothing is limited."),
		get("/serverconfiguration/settings", configure, a.settings, reflect.TypeFor[[]settingSet](), "Lists how the server was started."),
	}
}

func (a *api) status(r *rest.Request) (any, error) {
	out := octopus.ServerStatus{Links: octopus.Links{
		"Self": r.Href("/api/serverstatus"), "Health": r.Href("/api/serverstatus/health"), "SystemInfo": r.Href("/api/serverstatus/system-info"),
		"Extensions": r.Href("/api/serverstatus/extensions"), "Timezones": r.Href("/api/serverstatus/timezones"),
	}}
	if m := a.Instance; m != nil {
		out.TestInstance = &octopus.TestInstance{
			IsInQuarantine: m.Quarantined(), ParentInstallationID: m.Parent, BackupID: m.Backup, BackupTime: octopus.NewTime(m.Instant), Created: octopus.NewTime(m.Created),
		}
	}
	err := a.DB.Read(r.Context(), func(tx *db.Tx) (err error) {
		if out.IsInMaintenanceMode, err = InMaintenance(r.Context(), tx, a.Store); err != nil {
			return err
		}
		return a.newer(r.Context(), tx, &out)
	})
	return out, err
}

// newer tells of a newer version, as far as somebody wants to hear of it.
func (a *api) newer(ctx context.Context, tx *db.Tx, out *octopus.ServerStatus) error {
	if a.Newest == nil {
		return nil
	}
	newest := a.Newest()
	if newest == "" {
		return nil
	}
	c, err := upgradeConfiguration(ctx, tx, a.Store)
	if err != nil {
		return err
	}
	mode := octopus.UpgradeAlwaysShow
	if c != nil && c.NotificationMode != "" {
		mode = c.NotificationMode
	}
	here, errHere := version.Parse(version.SemVer, a.Version)
	there, errThere := version.Parse(version.SemVer, newest)
	major := errHere == nil && errThere == nil && (here.Major != there.Major || here.Minor != there.Minor)
	if mode == octopus.UpgradeNeverShow || mode == octopus.UpgradeShowMajorOnly && !major {
		return nil
	}
	out.IsUpgradeAvailable, out.IsMajorMinorUpgrade = true, major
	// No licence limits what one may upgrade to.
	out.MaximumAvailableVersion, out.MaximumAvailableVersionCoveredByLicense = octopus.NullString(newest), octopus.NullString(newest)
	return nil
}

func (a *api) health(r *rest.Request) (any, error) {
	out := octopus.ServerHealth{IsOperatingNormally: true, Description: "The server is operating normally.", Links: octopus.Links{"Self": r.Href("/api/serverstatus/health")}}
	err := a.DB.Read(r.Context(), func(tx *db.Tx) error {
		drained, err := a.drained(r.Context(), tx)
		if err == nil && drained {
			out.IsOperatingNormally, out.IsEntireClusterDrained = false, true
			out.Description = "All nodes are drained: tasks that are running end, and no new ones begin."
		}
		return err
	})
	if err == nil && a.OutOfRoom != nil && a.OutOfRoom() {
		out.IsOperatingNormally = false
		out.Description = "The disk of the data directory is full, or has less room than is to be kept in reserve: packages and artifacts are refused until somebody frees some space on node " + a.Node + "."
	}
	return out, err
}

// count reads how many there are of what, in one query.
func (a *api) count(ctx context.Context) (c counts, err error) {
	err = a.DB.Read(ctx, func(tx *db.Tx) error {
		rows, err := tx.Query(ctx, `SELECT d.kind, count(*) FROM documents d WHERE d.deleted = 0 AND d.kind IN ('spaces', 'projects', 'environments', 'machines', 'workers', 'tenants', 'users') GROUP BY d.kind
			UNION ALL SELECT 'releases', count(*) FROM release
			UNION ALL SELECT 'deployments', count(*) FROM deployment
			UNION ALL SELECT 'tasks', count(*) FROM task
			UNION ALL SELECT 'queued', count(*) FROM task t WHERE t.state = 'Queued'
			UNION ALL SELECT 'executing', count(*) FROM task t WHERE t.state IN ('Executing', 'Cancelling')`)
		if err != nil {
			return fmt.Errorf("count what there is: %w", err)
		}
		defer func() { _ = rows.Close() }() // Err tells
		c = counts{}
		to := map[string]*int64{
			"spaces": &c.Spaces, "projects": &c.Projects, "environments": &c.Environments, "machines": &c.Machines, "workers": &c.Workers,
			"tenants": &c.Tenants, "users": &c.Users, "releases": &c.Releases, "deployments": &c.Deployments,
			"tasks": &c.Tasks, "queued": &c.QueuedTasks, "executing": &c.ExecutingTasks,
		}
		for rows.Next() {
			var what string
			var n int64
			if err := rows.Scan(&what, &n); err != nil {
				return fmt.Errorf("count what there is: %w", err)
			}
			*to[what] = n
		}
		return rows.Err()
	})
	return c, err
}

func (a *api) counts(r *rest.Request) (any, error) { return a.count(r.Context()) }

func (a *api) system(r *rest.Request) (any, error) {
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	threads := 0
	if p := pprof.Lookup("threadcreate"); p != nil {
		threads = p.Count()
	}
	return octopus.SystemInfo{
		Version: a.Version, OSVersion: runtime.GOOS + " " + runtime.GOARCH, ThreadCount: threads,
		Uptime: octopus.TimeSpan(time.Since(a.Started).Truncate(time.Second)).String(), WorkingSetBytes: int64(min(mem.Sys, math.MaxInt64)),
		Links: octopus.Links{"Self": r.Href("/api/serverstatus/system-info")},
	}, nil
}

const licenseID = "licenses-current"

func license(r *rest.Request) octopus.License {
	l := octopus.License{LicenseText: "", SerialNumber: ""}
	l.ID = licenseID
	l.Links = octopus.Links{"Self": r.Href("/api/licenses/licenses-current"), "Status": r.Href("/api/licenses/licenses-current-status")}
	return l
}

func (a *api) licenses(r *rest.Request) (any, error) {
	p, err := r.Page()
	if err != nil {
		return nil, err
	}
	all := []octopus.License{license(r)}
	return rest.PageOf(r, "License", p, 1, all[min(p.Skip, 1):]), nil
}

func (a *api) license(r *rest.Request) (any, error) { return license(r), nil }

// licenseStatus says to clients that ask before they do something that nothing
// is limited. Numbers are the largest that all of them can hold.
func (a *api) licenseStatus(r *rest.Request) (any, error) {
	c, err := a.count(r.Context())
	if err != nil {
		return nil, err
	}
	limit := func(name string, used int64) octopus.LicenseLimit {
		return octopus.LicenseLimit{
			Name: name, EffectiveLimit: math.MaxInt32, LicensedLimit: math.MaxInt32, IsUnlimited: true, CurrentUsage: used,
			EffectiveLimitDescription: "Unlimited", LicenseLimitDescription: "Unlimited", Disposition: octopus.LicenseInformation,
		}
	}
	never := time.Date(9999, 12, 31, 0, 0, 0, 0, time.UTC)
	return octopus.LicenseStatus{
		IsCompliant: true, HostingEnvironment: "SelfHosted", ComplianceSummary: "Nothing is limited; this server needs no licence.",
		EffectiveExpiryDate: never.Format(time.DateOnly), DaysToEffectiveExpiryDate: int((never.Unix() - time.Now().Unix()) / (24 * 60 * 60)),
		Limits:                 octopus.List[octopus.LicenseLimit]{limit("Projects", c.Projects), limit("Tenants", c.Tenants), limit("Machines", c.Machines), limit("Workers", c.Workers), limit("Users", c.Users), limit("Spaces", c.Spaces)},
		EffectiveNodeTaskLimit: math.MaxInt32, EffectiveClusterTaskLimit: math.MaxInt32, PermissionsMode: "Full",
		Links: octopus.Links{"Self": r.Href("/api/licenses/licenses-current-status")},
	}, nil
}

// settingSet is a group of settings that were given when the server was started.
type settingSet struct {
	ID                  string `json:"Id"`
	Name                string
	Description         string
	ConfigurationSet    string
	ConfigurationValues octopus.List[settingValue]
	Links               octopus.Links
}

// settingValue is one of them.
type settingValue struct {
	Key                 string
	Value               string
	Description         string
	IsSensitive         bool
	ShowInPortalSummary bool
}

func (a *api) settings(r *rest.Request) (any, error) {
	value := func(key, value, about string) settingValue {
		return settingValue{Key: key, Value: value, Description: about, ShowInPortalSummary: true}
	}
	return octopus.List[settingSet]{{
		ID: "server", Name: "Server", Description: "How this node was started; it is set on its host.", ConfigurationSet: "Server",
		ConfigurationValues: octopus.List[settingValue]{
			value("node", a.Node, "the name of this node"),
			value("version", a.Version, "the version that it runs"),
			value("database", a.DB.Dialect().String(), "what keeps its data"),
			value("builtin_worker", fmt.Sprint(a.BuiltinWorker), "whether steps may run on its own host"),
		},
		Links: octopus.Links{"Self": r.Href("/api/serverconfiguration/settings")},
	}}, nil
}

func (a *api) timezones(*rest.Request) (any, error) {
	zones, err := a.zones()
	return octopus.List[octopus.Timezone](zones), err
}

// zoneNames are the names of the IANA database that stand for a place, and UTC.
//
//go:embed timezones.txt
var zoneNames string

// timezones lists, once, the zones that this host knows.
func timezones() func() ([]octopus.Timezone, error) {
	return sync.OnceValues(func() ([]octopus.Timezone, error) {
		year := time.Now().Year()
		var zones []octopus.Timezone
		for _, name := range strings.Fields(zoneNames) {
			at, err := time.LoadLocation(name)
			if err != nil {
				continue // a host with an older database
			}
			_, january := time.Date(year, time.January, 1, 0, 0, 0, 0, at).Zone()
			_, july := time.Date(year, time.July, 1, 0, 0, 0, 0, at).Zone()
			standard := min(january, july)
			sign := '+'
			if standard < 0 {
				sign = '-'
			}
			minutes := max(standard, -standard) / 60
			zones = append(zones, octopus.Timezone{
				ID: name, Name: fmt.Sprintf("(UTC%c%02d:%02d) %s", sign, minutes/60, minutes%60, strings.ReplaceAll(name, "_", " ")),
				IsLocal: name == time.Local.String(), SupportsDaylightSavingTime: january != july,
			})
		}
		return zones, nil
	})
}
