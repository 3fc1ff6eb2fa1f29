package upgrades

import (
	"context"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/supervisor/control"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/journal"
	"github.com/takodeploy/tako/internal/upgrade/lookout"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
	"github.com/takodeploy/tako/octopus"
)

func (a *api) info(r *rest.Request) (any, error) { return a.system(r) }

func (a *api) system(r *rest.Request) (octopus.SystemInformation, error) {
	m, err := a.DB.Meta(r.Context())
	if err != nil {
		return octopus.SystemInformation{}, err
	}
	own := db.BinaryLevels()
	return octopus.SystemInformation{
		Version: a.Version, Commit: a.Commit, CommitDate: a.CommitDate, Platform: runtime.GOOS + "/" + runtime.GOARCH, GoVersion: runtime.Version(),
		Node: a.Node, Database: a.DB.Dialect().String(), InstallationID: m.InstallationID,
		Level: own.Level, MinLevel: own.Min, SchemaLevel: m.SchemaLevel, ActiveLevel: m.ActiveLevel,
		Started: octopus.NewTime(a.Started), IsSupervised: a.Root != "", IsFinalizeDue: m.ActiveLevel < m.SchemaLevel,
		Links: octopus.Links{"Self": r.Href("/api/system/info"), "Upgrade": r.Href("/api/system/upgrade")},
	}, nil
}

func (a *api) status(r *rest.Request) (any, error) {
	out := octopus.UpgradeStatus{Reason: octopus.NullString(a.unsupervised())}
	var err error
	if out.System, err = a.system(r); err != nil {
		return nil, err
	}
	if out.Feed, err = a.feed(); err != nil {
		return nil, err
	}
	self := r.Href("/api/system/upgrade")
	out.Links = octopus.Links{"Self": self, "History": self + "/history", "Check": self + "/check"}
	if a.Root == "" {
		return out, nil
	}
	for name, path := range map[string]string{"Events": "/events", "Bundles": "/bundles", "Plan": "/plan", "Start": "/start", "Rollback": "/rollback", "Finalize": "/finalize", "Abort": "/abort", "Hold": "/hold", "Resume": "/resume"} {
		out.Links[name] = self + path
	}
	out.Supervisor = a.supervisor(r.Context())
	// Before the journal is read: what is written in between is told of twice, not never.
	lines := logSize(a.Root)
	j, err := a.journal()
	if err != nil {
		return nil, err
	}
	all := j.Entries()
	out.Cursor = cursor{seq: int64(len(all)), line: lines}.String()
	t, err := upgrade.Last(all)
	if err != nil {
		return nil, err
	}
	if t != nil {
		doc := a.document(all, t, true)
		out.Upgrade = &doc
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.plan != nil {
		plan := *a.plan
		out.Plan = &plan
	}
	return out, nil
}

// patience is how long a supervisor may take to say how it fares: while it hands over it
// listens to nobody.
const patience = 3 * time.Second

func (a *api) supervisor(ctx context.Context) *octopus.UpgradeSupervisor {
	ctx, stop := context.WithTimeout(ctx, patience)
	defer stop()
	r, err := supervisor.Ask(ctx, a.Root, supervisor.Order{Do: "status"})
	if err != nil {
		text := sentence(err.Error())
		if ctx.Err() != nil {
			text = "The supervisor is busy, as while it hands over from one version to another."
		}
		return &octopus.UpgradeSupervisor{Error: octopus.NullString(text)}
	}
	out := &octopus.UpgradeSupervisor{Current: octopus.NullString(r.Current), Previous: octopus.NullString(r.Previous), Crashes: r.Crashes, NeedsOperator: r.NeedsOperator}
	if r.Trouble != "" {
		out.Problem = octopus.NullString(sentence(r.Trouble))
	}
	if r.Server != nil {
		s := process(*r.Server)
		out.Server = &s
	}
	for _, d := range r.Ducks {
		out.FormerServers = append(out.FormerServers, process(d))
	}
	return out
}

func process(s control.Status) octopus.UpgradeServer {
	return octopus.UpgradeServer{ProcessID: s.PID, Version: s.Version, Stage: string(s.Stage)}
}

func (a *api) feed() (octopus.UpgradeFeed, error) {
	out := octopus.UpgradeFeed{Channel: a.Lookout.Channel()}
	address, _, err := a.Lookout.Feed()
	if err != nil {
		return out, err
	}
	if address != "" {
		out.Address = octopus.NullString(lookout.Redacted(address))
	}
	if out.IsCheckedByItself, err = a.Lookout.ByItself(); err != nil {
		return out, err
	}
	f, err := a.Lookout.Last()
	if err != nil || f == nil {
		return out, err
	}
	out.CheckedAt, out.Error, out.FoundAt = octopus.OptionalTime(f.At), octopus.NullString(f.Error), octopus.OptionalTime(f.Found)
	s := f.Survey
	if s == nil {
		return out, nil
	}
	out.Expires, out.Message = octopus.OptionalTime(s.Expires), octopus.NullString(s.Message)
	out.IsExpired = s.Expired || a.Now().After(s.Expires)
	newest, _ := a.Lookout.Newest()
	out.Newest = octopus.NullString(newest)
	trust, err := a.Store.Trust()
	if err != nil {
		return out, err
	}
	for _, o := range s.Options {
		out.Releases = append(out.Releases, octopus.UpgradeRelease{
			Version: o.Release.Version, Published: octopus.OptionalTime(o.Release.Date), Rollback: string(o.Release.Rollback), IsSecurity: o.Release.Security,
			Notes: o.Release.Notes, Level: o.Release.Level, Size: o.Size, IsAllowed: o.Refused == "", Reason: octopus.NullString(o.Refused), Via: octopus.NullString(o.Via),
			FailedHere: octopus.NullString(trust.Bad[o.Release.Version]),
		})
	}
	return out, nil
}

// document is an upgrade as clients see it; last tells that there is none after it.
func (a *api) document(all []journal.Entry, t *upgrade.Txn, last bool) octopus.Upgrade {
	now := a.Now()
	out := octopus.Upgrade{
		Resource: octopus.Resource{ID: t.ID}, FromVersion: t.Plan.From, ToVersion: t.Plan.To, RequestedBy: octopus.NullString(t.Plan.By),
		Begun: octopus.NewTime(t.Begun), State: string(t.State), StateSince: octopus.NewTime(t.At), IsEnded: t.State.Ended(),
		FailedState: octopus.NullString(t.Failed), ErrorMessage: octopus.NullString(t.Error),
	}
	if !out.IsEnded {
		out.Doing, out.DoingSince = octopus.NullString(t.Doing), octopus.OptionalTime(t.DoingSince)
	}
	out.Rollback = rollback(t.Plan.Restore || t.NoReturn())
	if id, at := t.Backup(); id != "" {
		out.BackupID, out.BackupTime = octopus.NullString(id), octopus.OptionalTime(at)
	}
	if t.State == upgrade.Committed && !t.NoReturn() {
		due := t.Due()
		if t.Finalize {
			due = now
		}
		out.FinalizesAt = octopus.OptionalTime(due)
	}
	if t.State == upgrade.Switched {
		out.ProbationEnds = octopus.OptionalTime(t.At.Add(t.Plan.Probation))
	}
	steps := upgrade.Steps(all, t)
	for _, s := range steps {
		out.Steps = append(out.Steps, octopus.UpgradeStep{
			State: string(s.State), Begun: octopus.OptionalTime(s.Begun), Ended: octopus.OptionalTime(s.Ended),
			Milliseconds: s.Took().Milliseconds(), UsualMilliseconds: s.Usual.Milliseconds(),
		})
	}
	if !last {
		return out
	}
	if left, ok := upgrade.Remaining(steps, t, now); ok {
		ms := left.Milliseconds()
		out.RemainingMilliseconds = &ms
	}
	if !out.IsEnded {
		out.ProcessID = upgrade.Attended(a.Root)
		out.IsCarriedOut = out.ProcessID != 0
	}
	for _, w := range []upgrade.Wish{upgrade.WishAbort, upgrade.WishRollback, upgrade.WishFinalize, upgrade.WishHold, upgrade.WishResume} {
		if upgrade.Allowed(t, w) == nil && (w != upgrade.WishResume || !out.IsCarriedOut && !t.Waits()) {
			out.Allowed = append(out.Allowed, strings.ToUpper(string(w[:1]))+string(w[1:]))
		}
	}
	return out
}

// rollback is what going back costs, in a feed's word for it.
func rollback(restore bool) string {
	if restore {
		return string(releasefeed.RollbackRestore)
	}
	return string(releasefeed.RollbackFree)
}

func (a *api) history(r *rest.Request) (any, error) {
	p, err := r.Page()
	if err != nil {
		return nil, err
	}
	j, err := a.journal()
	if err != nil {
		return nil, err
	}
	var entries []journal.Entry
	if j != nil {
		entries = j.Entries()
	}
	all, err := upgrade.Fold(entries)
	if err != nil {
		return nil, err
	}
	total := int64(len(all))
	slices.Reverse(all)
	from := min(p.Skip, total)
	docs := []octopus.Upgrade{}
	for i := from; i < min(from+p.Take, total); i++ {
		docs = append(docs, a.document(entries, &all[i], i == 0))
	}
	return rest.PageOf(r, "Upgrade", p, total, docs), nil
}

func logSize(root string) int64 {
	info, err := os.Stat(upgrade.WorkerLog(root))
	if err != nil {
		return 0 // there is none yet
	}
	return info.Size()
}

// sentence makes one of an error's text.
func sentence(text string) string {
	first, n := utf8.DecodeRuneInString(text)
	text = string(unicode.ToUpper(first)) + text[n:]
	if !strings.HasSuffix(text, ".") {
		text += "."
	}
	return text
}
