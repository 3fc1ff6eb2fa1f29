package upgrades

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/lookout"
	"github.com/takodeploy/tako/internal/upgrade/preflight"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
	"github.com/takodeploy/tako/internal/upgrade/stage"
	"github.com/takodeploy/tako/octopus"
)

// lookFor is how long the feed is waited for.
const lookFor = time.Minute

// unreachable makes a fault of what a feed's reader says: what is not believed or not
// possible is a conflict, a feed that cannot be had is one for later.
func unreachable(err error) error {
	var no *releasefeed.NoChoice
	var unbelieved *releasefeed.Error
	var unfit *stage.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, lookout.ErrNoFeed), errors.Is(err, stage.ErrNoRoot), errors.As(err, &no), errors.As(err, &unbelieved), errors.As(err, &unfit):
		return fault.New(fault.Conflict, "%s", sentence(err.Error()))
	}
	return fault.New(fault.Unavailable, "The feed of releases cannot be read: %s", sentence(err.Error()))
}

func (a *api) check(r *rest.Request) (any, error) {
	if err := r.DecodeOptional(&struct{}{}); err != nil {
		return nil, err
	}
	ctx, stop := context.WithTimeout(r.Context(), lookFor)
	defer stop()
	f, err := a.Lookout.Look(ctx, a.Now())
	if f == nil {
		return nil, unreachable(err)
	}
	if err != nil && f.Error == "" { // what the feed has could not be kept
		return nil, err
	}
	// What was wrong with the feed is in the finding.
	if err := a.audited(r.Context(), octopus.EventUpgradeChecked, "The feed of releases "+f.Feed+" was looked at"); err != nil {
		return nil, err
	}
	return a.status(r)
}

// request is a request for an upgrade, with the plan that it comes to and what was offered.
func (a *api) request(r *rest.Request) (p upgrade.Plan, offer *stage.Offer, last string, err error) {
	var in octopus.UpgradeRequest
	if err := r.Decode(&in); err != nil {
		return p, nil, "", err
	}
	hold, err := within("HoldHours", in.HoldHours, 72, 365*24)
	if err != nil {
		return p, nil, "", err
	}
	probation, err := within("ProbationSeconds", in.ProbationSeconds, 600, 24*60*60)
	if err != nil {
		return p, nil, "", err
	}
	if in.Version == "" {
		return p, nil, "", fault.InvalidField("Version", "Version is missing; name the version to upgrade to, one of those that GET /api/system/upgrade lists.")
	}
	if last, err = same(r, "LastUpgradeId", string(in.LastUpgradeID)); err != nil {
		return p, nil, "", err
	}
	if err := a.supervised(); err != nil {
		return p, nil, "", err
	}
	if err := upgrade.Busy(a.Root); err != nil {
		return p, nil, "", said(err)
	}
	if err := a.still(last); err != nil {
		return p, nil, "", err
	}
	p = upgrade.Plan{
		To: in.Version, Hold: time.Duration(hold) * time.Hour, Probation: time.Duration(probation) * time.Second, Channel: a.Lookout.Channel(), By: db.ActorFrom(r.Context()).Username,
		AcceptDifferences: in.AcceptDifferences,
	}
	if in.BundleID != "" {
		if p.Bundle, err = a.bundle(string(in.BundleID), in.Version); err != nil {
			return p, nil, "", err
		}
	}
	offer, err = a.resolve(r.Context(), &p)
	return p, offer, last, err
}

func within(field string, v *int, usual, most int) (int, error) {
	if v == nil {
		return usual, nil
	}
	if *v < 0 || *v > most {
		return 0, fault.InvalidField(field, "%s is %d; use 0 to %d.", field, *v, most)
	}
	return *v, nil
}

// resolve completes a plan by what the supervisor and the feed say.
func (a *api) resolve(ctx context.Context, p *upgrade.Plan) (*stage.Offer, error) {
	ctx, stop := context.WithTimeout(ctx, lookFor)
	defer stop()
	report, err := supervisor.Ask(ctx, a.Root, supervisor.Order{Do: "status"})
	if err != nil {
		return nil, fault.New(fault.Unavailable, "%s", sentence(err.Error()))
	}
	if report.Image != "" {
		return nil, fault.New(fault.Conflict, "This server runs in a container, where another version comes with another image: `tako upgrade --to %s` within the container prepares it and says what to do then.", p.To)
	}
	p.From = report.Current
	if p.Bundle == "" {
		if p.Feed, _, err = a.Lookout.Feed(); err != nil {
			return nil, err
		}
		if p.Feed == "" {
			return nil, unreachable(lookout.ErrNoFeed)
		}
	}
	offer, err := a.Store.Check(ctx, stage.Request{Source: stage.Source{Feed: p.Feed, Bundle: p.Bundle}, Channel: p.Channel, Version: p.From, Wanted: p.To, Now: a.Now()})
	if err != nil {
		return nil, unreachable(err)
	}
	if offer.Stop {
		return nil, fault.New(fault.Conflict, "Version %s must be installed on the way to %s; upgrade to it first.", offer.Release.Version, p.To)
	}
	p.ToLevel, p.Restore = offer.Release.Level, offer.Rollback == releasefeed.RollbackRestore
	return offer, nil
}

// same is the id that the header If-Match or the body names, "" for neither.
func same(r *rest.Request, field, body string) (string, error) {
	header := strings.Trim(strings.TrimPrefix(strings.TrimSpace(r.Header.Get("If-Match")), "W/"), `"`)
	if header == "*" {
		header = ""
	}
	switch {
	case header == "" || header == body:
		return body, nil
	case body == "":
		return header, nil
	}
	return "", fault.InvalidField(field, "%s is '%.100s' and If-Match has '%.100s'; name one upgrade.", field, body, header)
}

// still refuses a request that believes another upgrade to be the last; "" believes
// nothing.
func (a *api) still(id string) error {
	if id == "" {
		return nil
	}
	j, err := a.journal()
	if err != nil {
		return err
	}
	t, err := upgrade.Last(j.Entries())
	if err != nil {
		return err
	}
	if t == nil || t.ID != id {
		return other(id, t)
	}
	return nil
}

func other(id string, t *upgrade.Txn) error {
	if t == nil {
		return fault.New(fault.Conflict, "There has been no upgrade '%.100s' here, nor another.", id)
	}
	return fault.New(fault.Conflict, "The last upgrade is %s (to %s, %s), not '%.100s': what you look at is out of date. Read GET /api/system/upgrade again.", t.ID, t.Plan.To, t.State, id)
}

func (a *api) start(r *rest.Request) (any, error) {
	p, _, last, err := a.request(r)
	if err != nil {
		return nil, err
	}
	if err := a.still(last); err != nil { // to ask the feed took its time
		return nil, err
	}
	id, err := upgrade.Begin(a.Root, p, a.Now())
	if err != nil {
		return nil, said(err)
	}
	err = a.audited(r.Context(), octopus.EventUpgradeStarted, fmt.Sprintf("The upgrade %s of node %s from %s to %s was started", id, a.Node, p.From, p.To))
	// What is in the journal is carried out, whatever becomes of its event.
	if err := errors.Join(a.Worker.Start(a.Root), err); err != nil {
		return nil, err
	}
	doc, err := a.named(id)
	if err != nil {
		return nil, err
	}
	return rest.Created{Body: doc, Location: r.Href("/api/system/upgrade")}, nil
}

// named is the last upgrade as a document, if it has that id.
func (a *api) named(id string) (octopus.Upgrade, error) {
	j, err := a.journal()
	if err != nil {
		return octopus.Upgrade{}, err
	}
	all := j.Entries()
	t, err := upgrade.Last(all)
	if err != nil {
		return octopus.Upgrade{}, err
	}
	if t == nil || t.ID != id {
		return octopus.Upgrade{}, other(id, t)
	}
	return a.document(all, t, true), nil
}

// aYear is the longest hold from now.
const aYear = 366 * 24 * time.Hour

// want serves a wish about the last upgrade, which the request must name.
func (a *api) want(w upgrade.Wish) rest.Handler {
	return func(r *rest.Request) (any, error) {
		var in octopus.UpgradeCommand
		if err := r.DecodeOptional(&in); err != nil {
			return nil, err
		}
		ask := upgrade.Ask{Wish: w, By: db.ActorFrom(r.Context()).Username}
		now := a.Now()
		if w == upgrade.WishHold {
			if in.Until == nil || !in.Until.After(now) || in.Until.Sub(now) > aYear {
				return nil, fault.InvalidField("Until", "Until is missing, past, or more than a year away; name the time until which the upgrade is not finalized by itself.")
			}
			ask.Until = in.Until.UTC()
		}
		if in.Forward {
			if w != upgrade.WishResume {
				return nil, fault.InvalidField("Forward", "Forward is for resume alone; leave it out.")
			}
			ask.Wish = upgrade.WishForward
		}
		id, err := same(r, "Id", in.ID)
		if err != nil {
			return nil, err
		}
		if id == "" {
			return nil, fault.InvalidField("Id", "Id is missing; name the upgrade that you mean, here or in the header If-Match: GET /api/system/upgrade has it.")
		}
		if err := a.supervised(); err != nil {
			return nil, err
		}
		if err := a.ask(r.Context(), id, ask, now); err != nil {
			return nil, said(err)
		}
		err = a.audited(r.Context(), octopus.EventUpgradeRequested, fmt.Sprintf("Of the upgrade %s of node %s was requested: %s", id, a.Node, ask.Wish))
		if err := errors.Join(a.Worker.Start(a.Root), err); err != nil {
			return nil, err
		}
		return a.named(id)
	}
}

// ask writes a wish into the journal, if the upgrade is the one that is meant and can
// have it.
func (a *api) ask(ctx context.Context, id string, ask upgrade.Ask, now time.Time) error {
	if err := a.still(id); err != nil {
		return err
	}
	if ask.Wish == upgrade.WishForward {
		if err := a.well(ctx); err != nil {
			return err
		}
	}
	allowed := func(t *upgrade.Txn) error { return upgrade.Allowed(t, ask.Wish) }
	if ask.Wish == upgrade.WishRollback {
		var err error
		asking, stop := context.WithTimeout(ctx, patience)
		ask.Wish, allowed, err = upgrade.Back(asking, a.Root)
		stop()
		if err != nil {
			return err
		}
	}
	var only *upgrade.NeedsRestoreError
	check := func(t *upgrade.Txn) error {
		if t.ID != id {
			return other(id, t)
		}
		if err := allowed(t); errors.As(err, &only) {
			return only
		} else if err != nil {
			return fault.New(fault.Conflict, "%s", sentence(err.Error()))
		}
		if ask.Wish == upgrade.WishResume && t.State != upgrade.NeedsOperator {
			return errOnlyStart
		}
		return nil
	}
	err := upgrade.Want(a.Root, ask, now, check)
	switch {
	case errors.Is(err, errOnlyStart):
		return nil
	case only != nil:
		return a.byRestore(ctx, only)
	}
	return err
}

// byRestore refuses to go back where only a restore leads back, and says what that would
// lose.
func (a *api) byRestore(ctx context.Context, only *upgrade.NeedsRestoreError) error {
	if only.Backup != "" {
		n, err := backup.DeploymentsSince(ctx, a.DB, only.At)
		if err != nil {
			return err
		}
		only.Newer = &n
	}
	return fault.New(fault.Conflict, "%s To restore is for the server's own machine: `tako upgrade rollback` names the commands there.", sentence(only.Error()))
}

// well is nil while the new version of the last upgrade serves and is well.
func (a *api) well(ctx context.Context) error {
	j, err := a.journal()
	if err != nil {
		return err
	}
	t, err := upgrade.Last(j.Entries())
	if err != nil || t == nil || t.State != upgrade.NeedsOperator {
		return err // it is refused for what it is
	}
	ctx, stop := context.WithTimeout(ctx, lookFor)
	defer stop()
	if err := upgrade.Well(ctx, a.Root, t.Plan.To); err != nil {
		return fault.New(fault.Conflict, "The new version can be kept only while it serves and is well: %s", sentence(err.Error()))
	}
	return nil
}

// errOnlyStart says that there is nothing to write: who carries it out has gone.
var errOnlyStart = errors.New("nothing is to be written")

// inspectFor is how long a look may take.
const inspectFor = 30 * time.Minute

// dryRun looks whether anything speaks against an upgrade, beside the request: the
// version that runs examines all of its data.
func (a *api) dryRun(r *rest.Request) (any, error) {
	p, offer, _, err := a.request(r)
	if err != nil {
		return nil, err
	}
	begun := octopus.UpgradePlan{Version: p.To, Rollback: rollback(p.Restore), WayBack: p.WayBack(), Begun: octopus.NewTime(a.Now()), IsRunning: true}
	a.mu.Lock()
	if a.plan != nil && a.plan.IsRunning {
		version := a.plan.Version
		a.mu.Unlock()
		return nil, fault.New(fault.Conflict, "It is being looked already whether anything speaks against version %s; wait for its end.", version)
	}
	plan := begun
	a.plan = &plan
	a.mu.Unlock()
	if err := a.audited(r.Context(), octopus.EventUpgradeChecked, fmt.Sprintf("It was looked whether anything speaks against an upgrade of node %s from %s to %s", a.Node, p.From, p.To)); err != nil {
		a.planned(nil, err)
		return nil, err
	}
	go func() {
		ctx, stop := context.WithTimeout(a.Life, inspectFor)
		defer stop()
		a.planned(upgrade.Inspect(ctx, upgrade.Config{Root: a.Root, Store: a.Store, Data: a.Data, Settings: a.Worker.Settings, Environ: a.Worker.Environ}, p, offer))
	}()
	return rest.Created{Body: begun, Location: r.Href("/api/system/upgrade")}, nil
}

// planned writes down how a look has ended.
func (a *api) planned(report *preflight.Report, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	done := *a.plan
	done.IsRunning, done.Ended = false, octopus.OptionalTime(a.Now())
	if report != nil {
		for _, c := range report.Checks {
			done.Checks = append(done.Checks, octopus.UpgradeCheck{Name: c.Name, Status: string(c.Status), Seen: c.Seen, Remedy: octopus.NullString(c.Remedy)})
		}
		err = errors.Join(err, report.Err())
	}
	done.IsPossible = err == nil
	if err != nil {
		done.Problem = octopus.NullString(sentence(err.Error()))
	}
	a.plan = &done
}
