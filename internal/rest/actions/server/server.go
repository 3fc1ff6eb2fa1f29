// Package server serves what is about the server as a whole: its state and
// settings, its nodes, the licence that it does not need, and the audit trail.
package server

import (
	"context"
	"net/http"
	"reflect"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/events"
	"github.com/takodeploy/tako/internal/instance"
	"github.com/takodeploy/tako/internal/mail"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// Permissions that the routes need.
const (
	administer = string(octopus.PermAdministerSystem)
	configure  = string(octopus.PermConfigureServer)
	eventView  = string(octopus.PermEventView)
)

// Config is what the routes tell of.
type Config struct {
	DB      *db.DB
	Store   *docstore.Store
	Version string
	Node    string // this node's name
	// BuiltinWorker tells that steps may run on the server's own host; it is set
	// where the server is started.
	BuiltinWorker bool
	// Started is when the process was.
	Started time.Time
	// Thumbprint is that of the certificate by which agents know the server; it waits
	// until there is one.
	Thumbprint func(context.Context) (string, error)
	// Instance says what the server is a copy of; nil when it is none.
	Instance *instance.Marker
	// Newest is the version that the feed of releases offers, "" for none;
	// ChecksForUpgrades tells whether one is looked at as long as nobody forbids it. Nil is
	// no feed.
	Newest            func() string
	ChecksForUpgrades func() bool
	// OutOfRoom reports whether the disk of the data directory is full, so that this node
	// lives on what was kept in reserve. Nil is never.
	OutOfRoom func() bool
}

// api serves the routes.
type api struct {
	Config
	trail *events.Trail
	zones func() ([]octopus.Timezone, error)
}

// Routes are the operations on the server as a whole.
func Routes(cfg Config) []rest.Route {
	a := &api{Config: cfg, trail: events.New(cfg.Store.Kinds()), zones: timezones()}
	system := a.statusRoutes()
	system = append(system, a.nodeRoutes()...)
	system = append(system, a.versionRoutes()...)
	system = append(system, a.settingRoutes()...)
	system = append(system, a.emptyRoutes()...)
	system = append(system, a.certificateRoutes()...)
	for i := range system {
		system[i].Mount = rest.InSystem
	}
	return append(system, a.eventRoutes()...)
}

// paged are the parameters of a list.
func paged(more ...rest.Param) []rest.Param {
	return append([]rest.Param{{Name: "skip", Type: rest.Number, About: "how many to leave out"}, {Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"}}, more...)
}

// emptyRoutes are lists of what this server has none of: clients read them to
// find out what they can offer.
func (a *api) emptyRoutes() []rest.Route {
	list := reflect.TypeFor[[]string]()
	none := func(pattern, summary string) rest.Route {
		return rest.Route{Method: http.MethodGet, Pattern: pattern, Permission: rest.SignedIn, Handler: nothing, Response: list, Summary: summary}
	}
	return []rest.Route{
		none("/serverstatus/extensions", "Lists extensions of the server; there are none."),
		none("/dynamic-extensions", "Lists extensions that are loaded while the server runs; there are none."),
		none("/dynamic-extensions/features/metadata", "Describes the settings of extensions; there are none."),
		none("/dynamic-extensions/features/values", "Lists the settings of extensions; there are none."),
		none("/dynamic-extensions/scripts", "Lists the scripts of extensions; there are none."),
		none("/externalsecuritygroupproviders", "Lists where groups of users can come from; there is nothing."),
		{Method: http.MethodGet, Pattern: "/issuetrackers", Permission: rest.SignedIn, Handler: noPage, Response: reflect.TypeFor[octopus.Page[string]](), Query: paged(), Summary: "Lists issue trackers; there are none."},
		{Method: http.MethodGet, Pattern: "/smtpconfiguration/isconfigured", Permission: rest.SignedIn, Handler: a.mail, Response: reflect.TypeFor[octopus.SMTPIsConfigured](), Summary: "Tells whether the server can send mail."},
	}
}

func nothing(*rest.Request) (any, error) { return octopus.List[string]{}, nil }

func noPage(r *rest.Request) (any, error) {
	p, err := r.Page()
	if err != nil {
		return nil, err
	}
	return rest.PageOf[string](r, "IssueTracker", p, 0, nil), nil
}

func (a *api) mail(r *rest.Request) (any, error) {
	out := octopus.SMTPIsConfigured{Links: octopus.Links{"Self": r.Href("/api/smtpconfiguration/isconfigured")}}
	err := a.DB.Read(r.Context(), func(tx *db.Tx) (err error) {
		out.IsConfigured, err = mail.Configured(r.Context(), tx, a.Store)
		return err
	})
	return out, err
}
