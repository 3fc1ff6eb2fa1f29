// Package upgrades serves the upgrades of this node: which versions there are, how an
// upgrade goes, and the commands that start one, take it back and end it. A process of
// its own carries it out, as for `tako upgrade`; what is told here is read from the
// journal on disk, so that the version before and the one after tell the same.
package upgrades

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/journal"
	"github.com/takodeploy/tako/internal/upgrade/lookout"
	"github.com/takodeploy/tako/internal/upgrade/stage"
	"github.com/takodeploy/tako/octopus"
)

const administer = string(octopus.PermAdministerSystem)

// Config is what the routes work on.
type Config struct {
	DB *db.DB
	// Version, Commit and CommitDate are those of the program, Node is this node's name.
	Version, Commit, CommitDate, Node string
	Started                           time.Time
	// Root is the directory of the supervisor that has started the server, "" without
	// one; Data is the server's data directory.
	Root, Data string
	Store      *stage.Store
	Lookout    *lookout.Lookout
	Worker     upgrade.Worker
	// Life ends what is done beside requests.
	Life context.Context //nolint:containedctx // that of the server, which outlives each request
	// Now is the clock; time.Now unless set.
	Now func() time.Time
}

type api struct {
	Config

	mu   sync.Mutex
	plan *octopus.UpgradePlan
}

// Routes are the operations on upgrades.
func Routes(cfg Config) []rest.Route {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	a := &api{Config: cfg}
	page := []rest.Param{{Name: "skip", Type: rest.Number, About: "how many to leave out"}, {Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"}}
	status, one := reflect.TypeFor[octopus.UpgradeStatus](), reflect.TypeFor[octopus.Upgrade]()
	ask, plan, command := reflect.TypeFor[octopus.UpgradeRequest](), reflect.TypeFor[octopus.UpgradePlan](), reflect.TypeFor[octopus.UpgradeCommand]()
	routes := []rest.Route{
		{Method: http.MethodGet, Pattern: "/system/info", Handler: a.info, Response: reflect.TypeFor[octopus.SystemInformation](), Summary: "Tells which program runs on this node, and which levels its database has."},
		{Method: http.MethodGet, Pattern: "/system/upgrade", Handler: a.status, Response: status, Summary: "Tells which versions there are to upgrade this node to, and how the last upgrade goes."},
		{Method: http.MethodGet, Pattern: "/system/upgrade/history", Handler: a.history, Query: page, Response: reflect.TypeFor[octopus.Page[octopus.Upgrade]](), Summary: "Lists the upgrades of this node, the newest first."},
		{Method: http.MethodGet, Pattern: "/system/upgrade/events", Handler: a.events, Streams: true, Query: []rest.Param{{Name: "after", Type: rest.Text, About: "the cursor after which to begin, as the status and each event have it"}}, Summary: "Follows upgrades: each entry of their journal, and the lines that are written on the way."},
		{Method: http.MethodPost, Pattern: "/system/upgrade/check", Handler: a.check, Response: status, Summary: "Looks now what the feed of releases has; nothing but the feed is fetched."},
		{Method: http.MethodGet, Pattern: "/system/upgrade/bundles", Handler: a.bundles, Query: page, Response: reflect.TypeFor[octopus.Page[octopus.UpgradeBundle]](), Summary: "Lists the bundles with releases that were sent to this node, the newest first."},
		{Method: http.MethodPost, Pattern: "/system/upgrade/bundles", Handler: a.receive, Upload: true, Response: reflect.TypeFor[octopus.UpgradeBundle](), Summary: "Takes a bundle with a release, as the body itself or as multipart/form-data, if it can be installed here."},
		{Method: http.MethodPost, Pattern: "/system/upgrade/plan", Handler: a.dryRun, Body: ask, Response: plan, Summary: "Looks whether anything speaks against an upgrade; what is found is in the status."},
		{Method: http.MethodPost, Pattern: "/system/upgrade/start", Handler: a.start, Body: ask, Response: one, Summary: "Starts an upgrade of this node."},
	}
	for _, w := range []struct {
		wish    upgrade.Wish
		summary string
	}{
		{upgrade.WishRollback, "Goes back to the version before, without a loss."},
		{upgrade.WishFinalize, "Switches the new version's data formats on: there is no way back after that."},
		{upgrade.WishAbort, "Gives up an upgrade that has not switched yet."},
		{upgrade.WishHold, "Sets until when an upgrade is not finalized by itself."},
		{upgrade.WishResume, "Goes on with an upgrade that was cut short, or that needs an operator; with Forward the new version stays."},
	} {
		routes = append(routes, rest.Route{Method: http.MethodPost, Pattern: "/system/upgrade/" + string(w.wish), Handler: a.want(w.wish), Body: command, Response: one, Summary: w.summary})
	}
	for i := range routes {
		routes[i].Mount, routes[i].Permission = rest.InSystem, administer
	}
	return routes
}

// unsupervised says why this server cannot upgrade itself, "" if it can.
func (a *api) unsupervised() string {
	switch {
	case a.Root == "":
		return "This server runs without a supervisor, so it cannot upgrade itself: start it by `tako supervise --root DIR` (its data is then in DIR/data), or, in a container, run the image of another version."
	case a.Data != filepath.Join(a.Root, "data"):
		return "This server's data is not in the directory data below that of its supervisor, where an upgrade looks for it: start it without --data."
	}
	return ""
}

// supervised is nil for a server that can be upgraded.
func (a *api) supervised() error {
	if why := a.unsupervised(); why != "" {
		return fault.New(fault.Conflict, "%s", why)
	}
	return nil
}

// journal reads the journal; nil where there is none.
func (a *api) journal() (*journal.Journal, error) {
	if a.Root == "" {
		return nil, nil //nolint:nilnil // none is an answer
	}
	j, err := journal.Open(upgrade.Dir(a.Root))
	return j, said(err)
}

// said makes a fault of an error whose text is for whoever administers the server.
func said(err error) error {
	var damaged *journal.DamagedError
	var busy *upgrade.BusyError
	switch {
	case errors.As(err, &busy):
		return fault.New(fault.Conflict, "%s", sentence(busy.Error()))
	case errors.As(err, &damaged):
		return fault.New(fault.Unavailable, "%s", sentence(damaged.Error()))
	}
	return err
}

// audited writes an event about what somebody did.
func (a *api) audited(ctx context.Context, category octopus.EventCategory, message string) error {
	return a.DB.Write(ctx, func(tx *db.Tx) error {
		tx.Event(db.Event{Category: string(category), Message: message, DocumentType: "Upgrade"})
		return nil
	})
}
