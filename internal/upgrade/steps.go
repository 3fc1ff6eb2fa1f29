package upgrade

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/supervisor/control"
	"github.com/takodeploy/tako/internal/upgrade/preflight"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
	"github.com/takodeploy/tako/internal/upgrade/stage"
	"github.com/takodeploy/tako/internal/verify"
)

// work does what brings a state about. Each step may have been done before, in part or
// whole. What touches the server's data is a command of the version whose business that
// is, in a process of its own.
func (c *Coordinator) work(ctx context.Context, t *Txn, do Do) (any, error) {
	switch do.State {
	case Staged:
		return c.stage(ctx, t)
	case Preflight:
		return c.preflight(ctx, t)
	case BackedUp:
		return c.backUp(ctx, t)
	case Rehearsed:
		return c.rehearse(ctx, t)
	case Expanded:
		return c.expand(ctx, t)
	case Switched:
		if t.Plan.Image {
			return nil, nil //nolint:nilnil // it does already
		}
		err := c.serve(ctx, t, t.Plan.To)
		if err == nil && t.Plan.Restore {
			// The supervisor must not go back by itself either.
			_, err = c.ask(ctx, supervisor.Order{Do: "keep", Version: t.Plan.To})
		}
		return nil, err
	case Probation:
		return nil, c.watch(ctx, t)
	case Finalized:
		result, err := c.json(ctx, t.Plan.To, "database", "finalize")
		if err == nil {
			c.prune(ctx)
		}
		return result, err
	case RolledBack:
		return nil, c.rollBack(ctx, t, do.Because)
	case Committed:
		// What it did the last time does not count any more. That this cannot be noted is no
		// reason to leave a version that is well.
		if err := c.cfg.Store.Forgive(t.Plan.To); err != nil {
			fmt.Fprintf(c.cfg.Log, "it could not be noted that version %s is good: %v\n", t.Plan.To, err)
		}
		if t.Plan.Image {
			c.discard(t.Plan.To)
		}
	case Aborted:
		c.forgetFacts()
		c.letGo(ctx, t, t.ID)
	case Planned, NeedsOperator:
	}
	return nil, nil //nolint:nilnil // to write it down is all there is to do
}

func (c *Coordinator) stage(ctx context.Context, t *Txn) (any, error) {
	last := time.Now()
	offer, err := c.cfg.Store.Stage(ctx, stage.Request{
		Source: stage.Source{Feed: t.Plan.Feed, Bundle: t.Plan.Bundle}, Channel: t.Plan.Channel,
		Version: t.Plan.From, Wanted: t.Plan.To, Now: time.Now(),
	}, func(done, total int64) {
		if now := time.Now(); now.Sub(last) > 5*time.Second || done == total {
			last = now
			fmt.Fprintf(c.cfg.Log, "fetching the program: %d of %d bytes (%d %%)\n", done, total, 100*done/total)
		}
	})
	if err != nil {
		return nil, err
	}
	if offer.Rollback == releasefeed.RollbackRestore && !t.Plan.Restore {
		return nil, fmt.Errorf("the feed says by now that only a restore of the backup leads back from version %s; whoever asked for the upgrade was told that nothing would be lost: ask for it again", t.Plan.To)
	}
	return map[string]string{"sha256": offer.Artifact.SHA256}, nil
}

func (c *Coordinator) preflight(ctx context.Context, t *Txn) (any, error) {
	if err := c.withoutDucks(ctx); err != nil {
		return nil, err
	}
	report, err := c.inspect(ctx, t, "")
	if err != nil {
		return nil, err
	}
	if err := errors.Join(report.WriteText(c.cfg.Log), report.Err()); err != nil {
		return nil, err
	}
	var warnings []string
	mend := false
	for _, w := range report.Of(preflight.Warn) {
		if mend = mend || w.Mendable; !w.Mendable {
			warnings = append(warnings, w.Name+": "+w.Seen)
		}
	}
	found := looked{Warnings: warnings}
	if mend {
		if found.Mended, err = c.mend(ctx, t); err != nil {
			return nil, err
		}
	}
	found.Answered = c.answered(ctx)
	return found, nil
}

// mend has the version that runs make the indexes again that are missing: a migration of
// the new one may count on them, also on the copy on which it is tried.
func (c *Coordinator) mend(ctx context.Context, t *Txn) ([]string, error) {
	out, err := c.run(ctx, t.Plan.From, "database", "mend")
	if err != nil {
		return nil, err
	}
	var made struct{ Mended []string }
	if err := json.Unmarshal(out, &made); err != nil {
		return nil, fmt.Errorf("read the answer of database mend: %w", err)
	}
	return made.Mended, nil
}

// looked is what the step to PREFLIGHT has found out, and done.
type looked struct {
	Warnings []string `json:"warnings"`
	// Mended are the indexes that were missing and that it has made again.
	Mended   []string `json:"mended,omitempty"`
	Answered answered `json:"answered"`
}

// withoutDucks waits until no former server has connections left: it may be of a version
// before the one that runs.
func (c *Coordinator) withoutDucks(ctx context.Context) error {
	for {
		r, err := c.ask(ctx, supervisor.Order{Do: "status"})
		if err != nil || len(r.Ducks) == 0 {
			return err
		}
		c.sayOnce(fmt.Sprintf("waiting for the last connections of the former server (version %s, process %d)", r.Ducks[0].Version, r.Ducks[0].PID))
		if err := wait(ctx, c.cfg.Poll); err != nil {
			return err
		}
	}
}

// inspect looks whether anything speaks against the upgrade, and changes nothing. feed is a
// file with the signed feed, "" for the one that the version was fetched by.
func (c *Coordinator) inspect(ctx context.Context, t *Txn, feed string) (*preflight.Report, error) {
	well := preflight.Check{Name: "server", Status: preflight.OK, Seen: "Version " + t.Plan.From + " serves, and is well"}
	if r, err := c.ask(ctx, supervisor.Order{Do: "deep"}); err != nil {
		// What is wrong before cannot tell afterwards whether the new version is.
		well.Status, well.Seen, well.Remedy = preflight.Fail, "The server is not well: "+err.Error(), "Bring it in order first, or wait until it is."
	} else if r.Server == nil || r.Server.Stage != control.Serving || r.Server.Version != t.Plan.From {
		well.Status, well.Seen, well.Remedy = preflight.Fail, "Version "+t.Plan.From+" should serve, and does not", "Wait until it does; its log says why it does not."
	}
	report, err := preflight.Program(ctx, c.run, t.Plan.From, t.Plan.To, c.cfg.Root, t.Plan.Channel, feed)
	if err != nil {
		return nil, err
	}
	report.Checks = append([]preflight.Check{well}, report.Checks...)
	return report, nil
}

// backedUp is what the step to BACKED_UP has found out.
type backedUp struct {
	ID            string
	DatabaseBytes int64
	// Created is the instant of the data that it has, zero of a version that did not tell.
	Created time.Time `json:",omitzero"`
}

func (c *Coordinator) backUp(ctx context.Context, t *Txn) (any, error) {
	// What could not be let go on a full disk: this may be the next one's room.
	if former, err := c.cameToNothing(t); err != nil {
		return nil, err
	} else if len(former) > 0 {
		c.letGo(ctx, t, former...)
	}
	out, err := c.aside(ctx, t.Plan.From, "backup", "create", "--verify", "2", "--for-upgrade", t.ID, "--output", "json")
	if err != nil {
		return nil, err
	}
	var made backedUp
	if err := json.Unmarshal(out, &made); err != nil || made.ID == "" {
		return nil, fmt.Errorf("the backup does not tell its name: %w", err)
	}
	return made, nil
}

// rehearsed is what the step to REHEARSED has found out.
type rehearsed struct {
	TookMS int64 `json:"took_ms"`
	// Compared is how many facts of the data both versions were asked for, 0 if the old one
	// could not say any. Differences are not the same, Harmless ones only the new version has.
	Compared    int `json:"compared"`
	Differences int `json:"differences"`
	Harmless    int `json:"harmless"`
}

// rehearse has both versions restore the backup beside and say what they would do with that
// data, and it has to be the same. The new one brings its copy to its own level, starts on
// it and reads from it before, which proves the backup, too.
func (c *Coordinator) rehearse(ctx context.Context, t *Txn) (any, error) {
	var b backedUp
	if err := json.Unmarshal(t.Results[BackedUp], &b); err != nil {
		return nil, fmt.Errorf("find the backup of this upgrade: %w", err)
	}
	started := time.Now()
	aside := func(ctx context.Context, version string, args ...string) ([]byte, error) {
		said, err := c.aside(ctx, version, args...)
		var ended *exec.ExitError
		if version == t.Plan.To && ctx.Err() == nil && errors.As(err, &ended) && ended.ExitCode() == fault.ExitDidNotWork {
			c.markBad(version, err.Error())
		}
		return said, err
	}
	c.forgetFacts()
	defer c.forgetFacts()
	var out rehearsed
	both, err := verify.Programs(ctx, aside, t.Plan.From, t.Plan.To, b.ID, c.facts())
	switch {
	case fault.Is(err, fault.Unsupported):
		fmt.Fprintln(c.cfg.Log, err)
		if _, err := aside(ctx, t.Plan.To, "backup", "verify", b.ID, "--level", "3"); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	default:
		if err := both.WriteText(c.cfg.Log); err != nil {
			return nil, err
		}
		out.Compared, out.Differences, out.Harmless = both.Facts, both.Count(), both.Harmless()
	}
	if out.Differences > 0 && !t.Plan.AcceptDifferences {
		return nil, fmt.Errorf("version %s does %d things differently with the same data, which the log of the upgrade names; if all of them are wanted, upgrade with --accept-differences", t.Plan.To, out.Differences)
	}
	out.TookMS = time.Since(started).Milliseconds()
	return out, nil
}

// markBad remembers that a version failed here. That this cannot be noted changes nothing
// about what has become of the upgrade.
func (c *Coordinator) markBad(version, reason string) {
	if err := c.cfg.Store.MarkBad(version, brief(reason)); err != nil {
		fmt.Fprintf(c.cfg.Log, "it could not be noted that version %s failed: %v\n", version, err)
	}
}

// facts is where the versions write what they would do with the data.
func (c *Coordinator) facts() string { return filepath.Join(Dir(c.cfg.Root), "facts") }

// forgetFacts removes what a try that was cut short has left there.
func (c *Coordinator) forgetFacts() {
	if err := os.RemoveAll(c.facts()); err != nil {
		fmt.Fprintf(c.cfg.Log, "what was compared could not be removed: %v\n", err)
	}
}

// widened is what the step to EXPANDED has found out.
type widened struct {
	SchemaLevel int      `json:"schema_level"`
	TookMS      int64    `json:"took_ms"`
	Answered    answered `json:"answered"`
}

func (c *Coordinator) expand(ctx context.Context, t *Txn) (any, error) {
	started := time.Now()
	out, err := c.run(ctx, t.Plan.To, "database", "expand")
	if err != nil {
		return nil, err
	}
	var made struct{ SchemaLevel int }
	if err := json.Unmarshal(out, &made); err != nil {
		return nil, fmt.Errorf("read the answer of the expansion: %w", err)
	}
	return widened{made.SchemaLevel, time.Since(started).Milliseconds(), c.answered(ctx)}, nil
}

// serve has a version serve, if it does not yet.
func (c *Coordinator) serve(ctx context.Context, t *Txn, version string) error {
	began, cut := time.Now(), 0
	var back setback
	for {
		r, err := c.ask(ctx, supervisor.Order{Do: "status"})
		if err != nil || serves(r, version) {
			return err
		}
		if r.Current == version && (r.Server == nil || r.Server.Version == version) {
			return c.until(ctx, t, version) // it is just being started
		}
		// Without a server that could hand over there is only the way back.
		ready := r.Server != nil && (r.Server.Stage == control.Serving || r.Server.Stage == control.Released) || r.Server == nil && version == t.Plan.From && r.Previous == version
		if !ready && time.Since(later(began, c.absent)) < c.patience {
			if err := wait(ctx, c.cfg.Poll); err != nil {
				return err
			}
			continue
		}
		r, err = supervisor.Ask(ctx, c.cfg.Root, supervisor.Order{Do: "switch", Version: version})
		if err == nil {
			return c.until(ctx, t, version)
		}
		if cut++; r.Format != 0 && version != t.Plan.From || ctx.Err() != nil || cut == MaxTries {
			if r.Blameless {
				return blameless{err}
			}
			return back.of(err)
		}
		if r.Format == 0 {
			// The supervisor was ended in the middle; the next one tells how far it got.
			c.absent = time.Now()
		} else {
			// A new version that hangs does not hand over, and was killed for that: then there
			// is a way past it. Nor does the old one begin while the database is away.
			if back.passes(ctx, c, t) {
				cut = 0
			}
			c.sayOnce("trying once more to go back: " + back.of(err).Error())
		}
		if err := wait(ctx, c.cfg.Poll); err != nil {
			return err
		}
	}
}

// blameless is why a step did not succeed, where that is nothing of the new version.
type blameless struct{ error }

// Unwrap gives the reason.
func (e blameless) Unwrap() error { return e.error }

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}

func serves(r supervisor.Report, version string) bool {
	return r.Current == version && r.Server != nil && r.Server.Version == version && r.Server.Stage == control.Serving
}

// until waits until a version serves and is well, as long as c.patience, and as long as
// the old version could do nothing either; on the way back to that, as long as its reason
// may pass.
func (c *Coordinator) until(ctx context.Context, t *Txn, version string) error {
	from := time.Now()
	var back setback
	for {
		r, err := c.ask(ctx, supervisor.Order{Do: "deep"})
		if err == nil && serves(r, version) {
			return nil
		}
		if r.Format == 0 {
			return err
		}
		from = later(from, c.absent) // since then it may be starting anew
		if r.Current != "" && r.Current != version {
			return fmt.Errorf("version %s could not stay alive: the supervisor went back to %s", version, r.Current)
		}
		if err == nil {
			err = fmt.Errorf("the current version is %s", r.Current)
		}
		if time.Since(from) > c.patience {
			if waits := back.passes(ctx, c, t); !waits && (back.why == nil || version == t.Plan.From) {
				return fmt.Errorf("version %s does not serve as it should: %w", version, back.of(err))
			}
			c.sayOnce("the server is not well, and version " + t.Plan.From + " would not be either: " + back.of(err).Error())
			from = time.Now()
		}
		if err := wait(ctx, c.cfg.Poll); err != nil {
			return err
		}
	}
}

// errGivenUp says that somebody, or the supervisor, does not want to go on.
var errGivenUp = errors.New("the upgrade was given up")

func (c *Coordinator) rollBack(ctx context.Context, t *Txn, because string) error {
	if t.Plan.Image { // it was done by whoever has started the old version's image
		c.letGo(ctx, t, t.ID)
		return nil
	}
	goBack := c.serve
	if t.Plan.Restore {
		goBack = func(ctx context.Context, t *Txn, _ string) error { return c.stillServes(ctx, t, because) }
	}
	if err := goBack(ctx, t, t.Plan.From); err != nil {
		return err
	}
	if !t.Rollback && !t.Abort && !t.Blameless { // else nothing was wrong with it
		c.markBad(t.Plan.To, because)
	}
	c.letGo(ctx, t, t.ID)
	return nil
}

// stillServes waits until the old version is well, if it is the one that serves: it never
// stopped, or somebody has restored its data. Else only a restore leads back to it.
func (c *Coordinator) stillServes(ctx context.Context, t *Txn, because string) error {
	r, err := c.ask(ctx, supervisor.Order{Do: "status"})
	if err != nil {
		return err
	}
	if r.Current == t.Plan.From && (r.Server == nil || r.Server.Version == t.Plan.From) {
		return c.until(ctx, t, t.Plan.From)
	}
	return fmt.Errorf("%s; %w", because, needsRestore(t))
}

// stillKept is how long a backup is kept that was taken for an upgrade which came to nothing.
const stillKept = "14d"

// cameToNothing are the ids of the upgrades before one that were given up, or went back.
func (c *Coordinator) cameToNothing(t *Txn) (ids []string, err error) {
	all, err := Fold(c.journal.Entries())
	for i := range all {
		if s := all[i].State; all[i].ID != t.ID && (s == Aborted || s == RolledBack) {
			ids = append(ids, all[i].ID)
		}
	}
	return ids, err
}

// letGo has the backups that were taken for some upgrades, and are pinned until these are
// final, kept for a while yet and no longer. One that cannot be let go, as on a full disk,
// stays until the next upgrade takes its own or somebody unpins it, which changes nothing
// about what has become of the upgrade.
func (c *Coordinator) letGo(ctx context.Context, t *Txn, ids ...string) {
	ctx, stop := context.WithTimeout(ctx, 2*time.Minute)
	defer stop()
	version := t.Plan.From
	if t.Plan.Image { // there may be no other one
		version = c.cfg.Version
	}
	out, err := c.run(ctx, version, "backup", "list", "--output", "json")
	var all []struct {
		ID  string
		Pin *struct {
			Upgrade string
			Until   time.Time
		}
	}
	if err == nil {
		err = json.Unmarshal(out, &all)
	}
	// A step to BACKED_UP that was cut short has told no name.
	for _, b := range all {
		if b.Pin != nil && b.Pin.Until.IsZero() && slices.Contains(ids, b.Pin.Upgrade) {
			_, bad := c.run(ctx, version, "backup", "unpin", b.ID, "--after", stillKept)
			err = errors.Join(err, bad)
		}
	}
	if err != nil {
		fmt.Fprintf(c.cfg.Log, "the backups of the upgrade stay until the next one, or until somebody unpins them: %v\n", err)
	}
}

// keep takes the way back away. It waits for the end of former servers, which are of the
// old version, and until the new one is well.
func (c *Coordinator) keep(ctx context.Context, t *Txn) error {
	// Not while the database is away: what then fails could not be taken back.
	r, err := c.ask(ctx, supervisor.Order{Do: "deep"})
	if err != nil {
		return err
	}
	if len(r.Ducks) > 0 {
		return fmt.Errorf("a former server (version %s, process %d) has connections left", r.Ducks[0].Version, r.Ducks[0].PID)
	}
	if !serves(r, t.Plan.To) {
		return fmt.Errorf("version %s does not serve", t.Plan.To)
	}
	_, err = c.ask(ctx, supervisor.Order{Do: "keep", Version: t.Plan.To})
	return err
}

// json runs a command that answers in JSON.
func (c *Coordinator) json(ctx context.Context, version string, args ...string) (any, error) {
	out, err := c.run(ctx, version, args...)
	if err != nil {
		return nil, err
	}
	var result map[string]any
	if err := json.Unmarshal(out, &result); err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", strings.Join(args, " "), err)
	}
	return result, nil
}
