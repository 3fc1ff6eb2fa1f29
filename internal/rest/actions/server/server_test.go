package server_test

import (
	"context"
	"encoding/csv"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/internal/rest/actions/server"
	"github.com/takodeploy/tako/octopus"
)

func routes(w *actiontest.World) []rest.Route {
	return server.Routes(server.Config{DB: w.DB, Store: w.Store, Version: "2026.4.0", Node: "here", BuiltinWorker: true, Started: time.Now().Add(-90 * time.Second), Thumbprint: func(context.Context) (string, error) { return thumbprint, nil }})
}

// thumbprint is that of the server's certificate.
const thumbprint = "6B2D41E7A5C0F3981D64EB0A97F25C8830D1B4AE"

const project = `{"Name":"Web","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`

func TestStatus(t *testing.T) {
	t.Parallel()
	actiontest.Each(t, routes, func(t *testing.T, w *actiontest.World) {
		w.Create("/api/projects", project)
		for path, says := range map[string]string{
			"/api/serverstatus":                                  `"IsInMaintenanceMode":false`,
			"/api/serverstatus/health":                           `"IsOperatingNormally":true`,
			"/api/serverstatus/counts":                           `"Projects":1,"Environments":0`,
			"/api/serverstatus/system-info":                      `"Uptime":"00:01:3`,
			"/api/serverstatus/extensions":                       `[]`,
			"/api/serverstatus/timezones":                        `{"Id":"Europe/Berlin","Name":"(UTC+01:00) Europe/Berlin","IsLocal":false,"SupportsDaylightSavingTime":true}`,
			"/api/licenses":                                      `"TotalResults":1`,
			"/api/licenses/licenses-current":                     `"Id":"licenses-current"`,
			"/api/licenses/licenses-current-status":              `"IsCompliant":true`,
			"/api/serverconfiguration/settings":                  `"Key":"node","Value":"here"`,
			"/api/dynamic-extensions":                            `[]`,
			"/api/dynamic-extensions/features/metadata":          `[]`,
			"/api/dynamic-extensions/features/values":            `[]`,
			"/api/dynamic-extensions/scripts":                    `[]`,
			"/api/externalsecuritygroupproviders":                `[]`,
			"/api/issuetrackers":                                 `"Items":[]`,
			"/api/smtpconfiguration/isconfigured":                `"IsConfigured":false`,
			"/api/configuration/certificates/certificate-global": `"Thumbprint":"` + thumbprint + `","SignatureAlgorithm":"sha256RSA"`,
			"/api/events/agents":                                 `"Id":"Browser"`,
			"/api/events/categories?appliesTo=machine":           `{"Id":"MachineHealthy","Name":"Machine healthy","Links":{}}`,
			"/api/events/groups":                                 `"Id":"MachineCritical"`,
			"/api/events/documenttypes":                          `{"Id":"Projects","Name":"Project","Links":{}}`,
			"/api/Spaces-1/events/documenttypes":                 `{"Id":"MachinePolicies","Name":"Machine policy","Links":{}}`,
		} {
			if body := string(w.Get(path).Body); !strings.Contains(body, says) {
				t.Errorf("%s: %s", path, body)
			}
		}
		var license octopus.LicenseStatus
		w.Get("/api/licenses/licenses-current-status").Into(&license)
		if license.DaysToEffectiveExpiryDate < 365*5000 { // more than a Duration holds
			t.Errorf("expires in %d days", license.DaysToEffectiveExpiryDate)
		}
		for _, l := range license.Limits {
			if !l.IsUnlimited || l.Name == "Projects" && l.CurrentUsage != 1 {
				t.Errorf("%+v", l)
			}
		}
		w.Must(http.StatusNotFound, http.MethodGet, "/api/configuration/certificates/certificate-other", "")
		for query, total := range map[string]string{"": "1", "?ids=certificate-global": "1", "?ids=other": "0", "?partialName=SERVER": "1", "?partialName=web": "0", "?skip=1": "1"} {
			page := w.Get("/api/configuration/certificates" + query)
			has := total == "1" && query != "?skip=1"
			if !strings.Contains(string(page.Body), `"TotalResults":`+total) || strings.Contains(string(page.Body), thumbprint) != has {
				t.Errorf("certificates%s: %s", query, page.Body)
			}
		}
	})
}

func TestWhoMayNotSee(t *testing.T) {
	t.Parallel()
	w := actiontest.New(t, routes)
	key := w.Person()
	for _, tc := range []struct {
		method, path string
		status       int
	}{
		{"GET", "/api/serverstatus", 200},
		{"GET", "/api/maintenanceconfiguration", 200},
		{"GET", "/api/featuresconfiguration", 200},
		{"GET", "/api/serverstatus/counts", 403},
		{"GET", "/api/serverstatus/system-info", 403},
		{"GET", "/api/octopusservernodes", 403},
		{"GET", "/api/octopusservernodes/summary", 403},
		{"PUT", "/api/octopusservernodes/x", 403},
		{"DELETE", "/api/octopusservernodes/x", 403},
		{"PUT", "/api/maintenanceconfiguration", 403},
		{"PUT", "/api/performanceconfiguration", 403},
		{"GET", "/api/serverconfiguration", 403},
		{"GET", "/api/serverconfiguration/settings", 403},
		{"GET", "/api/events", 403},
	} {
		if a := w.Do(tc.method, tc.path, key, "{}"); a.Status != tc.status {
			t.Errorf("%s %s: %d %s; want %d", tc.method, tc.path, a.Status, a.Body, tc.status)
		}
	}
}

// TestNewerVersions: clients hear of a newer version as far as somebody wants that.
func TestNewerVersions(t *testing.T) {
	t.Parallel()
	newest := ""
	w := actiontest.New(t, func(w *actiontest.World) []rest.Route {
		return server.Routes(server.Config{
			DB: w.DB, Store: w.Store, Version: "2026.4.0", Node: "here", Started: time.Now(),
			Newest: func() string { return newest }, ChecksForUpgrades: func() bool { return true },
		})
	})
	may := func() (ok bool) {
		t.Helper()
		err := w.DB.Read(t.Context(), func(tx *db.Tx) (err error) {
			ok, err = server.MayCheckForUpgrades(t.Context(), tx, w.Store)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if w.Get("/api/upgradeconfiguration").JSON()["AllowChecking"] != true || !may() {
		t.Error("a feed that is named is not looked at")
	}
	for _, c := range []struct {
		mode, newest     string
		available, major bool
	}{
		{"", "", false, false},
		{"", "2026.4.1", true, false},
		{"", "2026.5.0", true, true},
		{"ShowOnlyMajorMinor", "2026.4.1", false, false},
		{"ShowOnlyMajorMinor", "2026.5.0", true, true},
		{"ShowOnlyMajorMinor", "2027.4.0", true, true},
		{"NeverShow", "2027.4.0", false, false},
		{"AlwaysShow", "2026.4.1", true, false},
	} {
		newest = c.newest
		if c.mode != "" {
			w.Must(200, http.MethodPut, "/api/upgradeconfiguration", `{"NotificationMode":"`+c.mode+`","AllowChecking":false}`)
		}
		var got octopus.ServerStatus
		w.Get("/api/serverstatus").Into(&got)
		if got.IsUpgradeAvailable != c.available || got.IsMajorMinorUpgrade != c.major || c.available && string(got.MaximumAvailableVersion) != c.newest || !c.available && got.MaximumAvailableVersion != "" {
			t.Errorf("%q, %q: %+v", c.mode, c.newest, got)
		}
	}
	if w.Get("/api/upgradeconfiguration").JSON()["AllowChecking"] != false || may() {
		t.Error("it may be looked though somebody has forbidden it")
	}
}

func TestSettings(t *testing.T) {
	t.Parallel()
	w := actiontest.New(t, routes)
	upgrade := w.Get("/api/upgradeconfiguration")
	if upgrade.Text("NotificationMode") != "AlwaysShow" || upgrade.Text("Id") != "upgrade" || upgrade.JSON()["AllowChecking"] != false {
		t.Errorf("%s", upgrade.Body)
	}
	w.Must(200, http.MethodPut, "/api/upgradeconfiguration", `{"Id":"upgrade","NotificationMode":"NeverShow","Extra":1}`)
	changed := w.Must(200, http.MethodPut, "/api/upgradeconfiguration", `{"NotificationMode":"NeverShow","IncludeStatistics":true,"Extra":1}`)
	again := w.Get("/api/upgradeconfiguration")
	if diff := cmp.Diff(changed.JSON(), again.JSON()); diff != "" || again.JSON()["Extra"] != 1.0 || again.JSON()["IncludeStatistics"] != true {
		t.Errorf("%s (-want +got):\n%s", again.Body, diff)
	}
	if links := again.JSON()["Links"]; !cmp.Equal(links, map[string]any{"Self": "/api/upgradeconfiguration"}) {
		t.Errorf("links %v", links)
	}
	w.Must(http.StatusConflict, http.MethodPut, "/api/upgradeconfiguration", `{}`, "If-Match", `"1"`)

	w.Must(200, http.MethodPut, "/api/featuresconfiguration", `{"IsBuiltInWorkerEnabled":true,"IsHelpSidebarEnabled":true}`)
	if got := w.Get("/api/featuresconfiguration").JSON(); got["IsBuiltInWorkerEnabled"] != true || got["IsHelpSidebarEnabled"] != true {
		t.Errorf("%v", got)
	}
	if a := w.Must(400, http.MethodPut, "/api/featuresconfiguration", `{"IsBuiltInWorkerEnabled":false}`); !strings.Contains(string(a.Body), "builtin_worker") {
		t.Errorf("%s", a.Body)
	}
	w.Must(200, http.MethodPut, "/api/serverconfiguration", `{"ServerUri":"https://deploy.example.com/"}`)
	if got := w.Get("/api/serverconfiguration").Text("ServerUri"); got != "https://deploy.example.com" {
		t.Error(got)
	}
	for _, bad := range []string{"deploy.example.com", "ftp://x", "https://user@x", "https://x/?q", "::"} {
		w.Must(400, http.MethodPut, "/api/serverconfiguration", fmt.Sprintf(`{"ServerUri":%q}`, bad))
	}
	if got := w.Get("/api/performanceconfiguration").Text("DefaultDashboardRenderMode"); got != "VirtualizeColumns" {
		t.Error(got)
	}
}

func TestMaintenance(t *testing.T) {
	t.Parallel()
	w := actiontest.With(t, dbtest.Open(t, db.SQLite), func(w *actiontest.World, cfg *rest.Config) {
		cfg.Routes, cfg.Guard = routes(w), server.Guard(w.DB, w.Store)
	})
	key := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"EnvironmentView", "EnvironmentCreate"}})
	create := func(key, name string) int {
		return w.Do(http.MethodPost, "/api/environments", key, `{"Name":"`+name+`"}`).Status
	}
	if got := create(key, "One"); got != http.StatusCreated {
		t.Fatal(got)
	}
	w.Must(200, http.MethodPut, "/api/maintenanceconfiguration", `{"Id":"maintenance","IsInMaintenanceMode":true}`)
	if w.Get("/api/serverstatus").JSON()["IsInMaintenanceMode"] != true {
		t.Error("the status does not say so")
	}
	if got := create(key, "Two"); got != http.StatusForbidden {
		t.Errorf("a change in maintenance mode: %d", got)
	}
	w.MustAs(key, 200, http.MethodGet, "/api/environments", "")
	if got := create(actiontest.Admin, "Three"); got != http.StatusCreated {
		t.Errorf("an administrator's change: %d", got)
	}
	w.Must(200, http.MethodPut, "/api/maintenanceconfiguration", `{"IsInMaintenanceMode":false}`)
	if got := create(key, "Four"); got != http.StatusCreated {
		t.Errorf("afterwards: %d", got)
	}
}

// join adds nodes as processes that start do.
func join(w *actiontest.World, names ...string) {
	w.T.Helper()
	err := w.DB.Write(w.T.Context(), func(tx *db.Tx) error {
		for i, name := range names {
			if _, err := tx.Exec(w.T.Context(), `INSERT INTO node_setting (name, seq, capacity, draining) VALUES (?, ?, 5, 0)`, name, i+1); err != nil {
				return err
			}
			if _, err := tx.Exec(w.T.Context(), `INSERT INTO node (incarnation, name, version, started, heartbeat) VALUES (?, ?, '1', 1, 1)`, name, name); err != nil {
				return err
			}
		}
		_, err := tx.Exec(w.T.Context(), `INSERT INTO slot (task, node) VALUES ('ServerTasks-1', 'here')`)
		return err
	})
	if err != nil {
		w.T.Fatal(err)
	}
}

func TestNodes(t *testing.T) {
	t.Parallel()
	actiontest.Each(t, routes, func(t *testing.T, w *actiontest.World) {
		join(w, "here", "gone")
		var here octopus.ServerNode
		w.Get("/api/octopusservernodes/HERE").Into(&here)
		if here.ID != "OctopusServerNodes-1" || here.MaxConcurrentTasks != 5 || here.IsOffline || here.RunningTaskCount != 1 || here.LastSeen == nil {
			t.Errorf("%+v", here)
		}
		var gone octopus.ServerNode
		w.Get("/api/octopusservernodes/octopusservernodes-2").Into(&gone)
		if gone.Name != "gone" || !gone.IsOffline {
			t.Errorf("%+v", gone)
		}
		for path, want := range map[string][]string{
			"/api/octopusservernodes":                                                 {"OctopusServerNodes-1", "OctopusServerNodes-2"},
			"/api/octopusservernodes/all":                                             {"OctopusServerNodes-1", "OctopusServerNodes-2"},
			"/api/octopusservernodes?skip=1":                                          {"OctopusServerNodes-2"},
			"/api/octopusservernodes?partialName=ER":                                  {"OctopusServerNodes-1"},
			"/api/octopusservernodes?ids=OctopusServerNodes-2,Projects-1":             {"OctopusServerNodes-2"},
			"/api/octopusservernodes?ids=OctopusServerNodes-2&partialName=her&take=5": {},
		} {
			if diff := cmp.Diff(want, w.Get(path).IDs()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
		}
		if a := w.Must(400, http.MethodPut, here.Links["Self"], `{"MaxConcurrentTasks":0}`); !strings.Contains(string(a.Body), "MaxConcurrentTasks") {
			t.Errorf("%s", a.Body)
		}
		var put octopus.ServerNode
		w.Must(200, http.MethodPut, here.Links["Self"], `{"Name":"other","MaxConcurrentTasks":9,"IsInMaintenanceMode":true}`).Into(&put)
		if put.Name != "here" || put.MaxConcurrentTasks != 9 || !put.IsInMaintenanceMode {
			t.Errorf("%+v", put)
		}
		if health := w.Get("/api/serverstatus/health").JSON(); health["IsEntireClusterDrained"] != true || health["IsOperatingNormally"] != false {
			t.Errorf("%v", health)
		}
		var summary octopus.ServerNodesSummary
		w.Get("/api/octopusservernodes/summary").Into(&summary)
		if len(summary.Nodes) != 2 || !summary.Nodes[0].IsInMaintenanceMode {
			t.Errorf("%+v", summary)
		}
		w.Must(http.StatusConflict, http.MethodDelete, here.Links["Self"], "")
		w.Must(http.StatusOK, http.MethodDelete, gone.Links["Self"], "")
		w.Must(http.StatusNotFound, http.MethodGet, gone.Links["Self"], "")
		found := w.Get("/api/events?regarding=octopusservernodes-1&regardingAny=OctopusServerNodes-1")
		if !strings.Contains(string(found.Body), `"Message":"Node here was changed"`) {
			t.Errorf("%s", found.Body)
		}
	})
}

func TestEvents(t *testing.T) {
	t.Parallel()
	actiontest.Each(t, routes, func(t *testing.T, w *actiontest.World) {
		id := w.Create("/api/projects", project)
		w.Must(200, http.MethodPut, "/api/projects/"+id, `{"Name":"<Web>","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`)
		second := w.Create("/api/projects", strings.Replace(project, "Web", "=cmd", 1))
		w.Create("/api/environments", `{"Name":"Dev"}`)
		categories := func(key, query string) (all []string) {
			t.Helper()
			var page octopus.Page[octopus.Event]
			w.MustAs(key, 200, http.MethodGet, query, "").Into(&page)
			for _, e := range page.Items {
				all = append(all, string(e.Category)+" "+e.RelatedDocumentIDs[0])
			}
			if int64(len(all)) != page.TotalResults {
				t.Errorf("%s: %d of %d", query, len(all), page.TotalResults)
			}
			return all
		}
		if diff := cmp.Diff([]string{"Modified ProjectGroups-1", "Created ProjectGroups-1"}, categories(actiontest.Admin, "/api/events?regarding="+id+"&documentTypes=Projects&eventGroups=Document")); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		var page octopus.Page[octopus.Event]
		w.Get("/api/Spaces-1/events?eventCategories=Modified&regarding=" + id).Into(&page)
		e := page.Items[0]
		if want := `Project <a href="/app#/Spaces-1/projects/` + id + `">&lt;Web&gt;</a> was changed`; e.MessageHTML != want {
			t.Errorf("%s, want %s", e.MessageHTML, want)
		}
		if e.Username != actiontest.AdminName || e.IdentityEstablishedWith != "ApiKey" || e.IPAddress == "" || !strings.Contains(string(e.ChangeDetails.Differences), `"path":"/Name"`) {
			t.Errorf("%+v", e)
		}
		var one octopus.Event
		w.Get(e.Links["Self"]).Into(&one)
		if diff := cmp.Diff(e, one); diff != "" {
			t.Errorf("by its link (-want +got):\n%s", diff)
		}

		// Who may see one project's events sees those, wherever they ask.
		key := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"EventView"}, Scope: octopus.ScopedUserRole{ProjectIDs: []string{id}}})
		for _, path := range []string{"/api/events", "/api/Spaces-1/events", "/api/events?spaces=all&includeSystem=true"} {
			for _, got := range categories(key, path+"&take=1000"[:0]) {
				if strings.Contains(got, "Environments") || strings.Contains(got, second) {
					t.Errorf("%s shows %s", path, got)
				}
			}
		}
		if got := categories(key, "/api/events?regarding="+second); got != nil {
			t.Errorf("another project: %v", got)
		}
		var other octopus.Page[octopus.Event]
		w.Get("/api/events?regarding=" + second).Into(&other)
		w.MustAs(key, http.StatusNotFound, http.MethodGet, other.Items[0].Links["Self"], "")

		// Events of the system are asked for in a space.
		if got := categories(actiontest.Admin, "/api/Spaces-1/events?documentTypes=Users"); got != nil {
			t.Errorf("in a space: %v", got)
		}
		if got := categories(actiontest.Admin, "/api/Spaces-1/events?documentTypes=Users&includeSystem=true"); len(got) == 0 {
			t.Error("no users were made")
		}
		if got := categories(actiontest.Admin, "/api/events?documentTypes=Users&includeSystem=false"); got != nil {
			t.Errorf("without the system: %v", got)
		}
		for _, bad := range []string{"from=x", "to=1", "fromAutoId=-1", "skip=x", "includeSystem=perhaps", "asCsv=x"} {
			w.Must(400, http.MethodGet, "/api/events?"+bad, "")
		}
	})
}

func TestEventsAsTable(t *testing.T) {
	t.Parallel()
	w := actiontest.New(t, routes)
	w.Create("/api/projects", strings.Replace(project, "Web", "A, \\\"B\\\"", 1))
	as := db.WithActor(w.T.Context(), db.Actor{Username: "=1+1"})
	err := w.DB.Write(as, func(tx *db.Tx) error {
		for i := range 1500 {
			tx.Event(db.Event{Category: "MachineHealthy", SpaceID: "Spaces-1", Message: fmt.Sprint("Number ", i)})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	a := w.Get("/api/events?asCsv=true")
	rows, err := csv.NewReader(strings.NewReader(string(a.Body))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	var total octopus.Page[octopus.Event]
	w.Get("/api/events?take=1").Into(&total)
	if int64(len(rows)) != total.TotalResults+1 || len(rows) < 1500 {
		t.Errorf("%d rows for %d events", len(rows), total.TotalResults)
	}
	if rows[1][6] != "Number 1499" || rows[1][3] != "'=1+1" {
		t.Errorf("the newest is %q", rows[1])
	}
	if !slices.ContainsFunc(rows, func(row []string) bool { return row[6] == `Project A, "B" was created` }) {
		t.Error("the project is not there")
	}
	if !strings.HasPrefix(a.Header.Get("Content-Type"), "text/csv") || !strings.Contains(a.Header.Get("Content-Disposition"), "events.csv") {
		t.Errorf("%v", a.Header)
	}
}

// TestNewSpace looks at what a space starts with: documents with plain numbers for
// ids, which are found as its defaults.
func TestNewSpace(t *testing.T) {
	t.Parallel()
	actiontest.Each(t, routes, func(t *testing.T, w *actiontest.World) {
		const managed = `"SpaceManagersTeams":["teams-administrators"]`
		furniture := map[string]string{"lifecycles": "Lifecycles", "projectgroups": "ProjectGroups", "machinepolicies": "MachinePolicies", "workerpools": "WorkerPools"}
		second := w.Create("/api/spaces", `{"Name":"Second",`+managed+`}`)
		third := w.Create("/api/spaces", `{"Name":"Third",`+managed+`}`)
		for i, space := range []string{"Spaces-1", second, third} {
			for path, prefix := range furniture {
				if diff := cmp.Diff([]string{fmt.Sprintf("%s-%d", prefix, i+1)}, w.Get("/api/"+space+"/"+path).IDs()); diff != "" {
					t.Errorf("%s of %s: %s", path, space, diff)
				}
			}
			worker := w.Must(http.StatusCreated, http.MethodPost, "/api/"+space+"/workers",
				fmt.Sprintf(`{"Name":"w","WorkerPoolIds":["WorkerPools-%d"],"Endpoint":{"CommunicationStyle":"None"}}`, i+1))
			if got, want := worker.Text("MachinePolicyId"), fmt.Sprintf("MachinePolicies-%d", i+1); got != want {
				t.Errorf("a worker of %s has the policy %q, want %q", space, got, want)
			}
		}
		if id := w.Create("/api/"+second+"/lifecycles", `{"Name":"Mine"}`); id != "Lifecycles-4" {
			t.Errorf("the next lifecycle is %s", id)
		}
	})
}

// TestSharedAccounts has roles of one environment look at accounts: that of none is
// for all environments, so they see it, and may not change it for the others.
func TestSharedAccounts(t *testing.T) {
	t.Parallel()
	actiontest.Each(t, routes, func(t *testing.T, w *actiontest.World) {
		dev, live := w.Create("/api/environments", `{"Name":"Dev"}`), w.Create("/api/environments", `{"Name":"Live"}`)
		account := func(name, in string) (id, body string) {
			body = `{"Name":"` + name + `","AccountType":"Token","EnvironmentIds":[` + in + `]}`
			return w.Create("/api/accounts", body), body
		}
		ofDev, devBody := account("Of Dev", `"`+dev+`"`)
		ofAll, allBody := account("Of all", "")
		ofLive, liveBody := account("Of Live", `"`+live+`"`)
		for _, c := range []struct {
			scope              octopus.ScopedUserRole
			sees               []string
			dev, all, withLive int // what changing each is answered with
		}{
			{octopus.ScopedUserRole{EnvironmentIDs: []string{dev}}, []string{ofAll, ofDev}, 200, 403, 404},
			{octopus.ScopedUserRole{EnvironmentIDs: []string{dev, live}}, []string{ofAll, ofDev, ofLive}, 200, 403, 200},
			{octopus.ScopedUserRole{}, []string{ofAll, ofDev, ofLive}, 200, 200, 200},
		} {
			key := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"AccountView", "AccountEdit", "AccountDelete"}, Scope: c.scope})
			listed := w.MustAs(key, http.StatusOK, http.MethodGet, "/api/accounts", "").IDs()
			slices.Sort(listed)
			want := slices.Sorted(slices.Values(c.sees))
			if diff := cmp.Diff(want, listed); diff != "" {
				t.Errorf("%v sees: %s", c.scope.EnvironmentIDs, diff)
			}
			for _, one := range []struct {
				id, body string
				change   int
			}{{ofDev, devBody, c.dev}, {ofAll, allBody, c.all}, {ofLive, liveBody, c.withLive}} {
				read := http.StatusNotFound
				if slices.Contains(c.sees, one.id) {
					read = http.StatusOK
				}
				if got := w.Do(http.MethodGet, "/api/accounts/"+one.id, key, ""); got.Status != read {
					t.Errorf("%v reads %s: %d, want %d", c.scope.EnvironmentIDs, one.id, got.Status, read)
				}
				if got := w.Do(http.MethodPut, "/api/accounts/"+one.id, key, one.body); got.Status != one.change {
					t.Errorf("%v changes %s: %d, want %d: %s", c.scope.EnvironmentIDs, one.id, got.Status, one.change, got.Body)
				}
			}
			if c.all == http.StatusForbidden {
				if got := w.Do(http.MethodDelete, "/api/accounts/"+ofAll, key, ""); got.Status != http.StatusForbidden {
					t.Errorf("%v deletes %s: %d", c.scope.EnvironmentIDs, ofAll, got.Status)
				}
			}
		}
	})
}
