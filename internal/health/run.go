package health

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/targets/program"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Config of a Task.
type Config struct {
	DB    *db.DB
	Store *docstore.Store
	// Agents finds the agents of machines by the ids of these.
	Agents targets.Finder
	// Upgrade queues what upgrades the agents of machines whose policies want that; nil
	// leaves them as they are.
	Upgrade func(ctx context.Context, tx *db.Tx, space ident.SpaceID, machines []Machine) error
	// Settled reports whether the server's version stays: that its last upgrade is not one
	// that may still be taken back. Until then no policy has an agent upgraded, which would
	// be newer than a server that goes back. Nil is yes; that the data of the version before
	// is still written is seen without it.
	Settled func(ctx context.Context) (bool, error)
	// Programs has the programs that agents are upgraded to; a policy upgrades none for
	// whose platform there is none. Nil leaves that to be found out by the upgrade.
	Programs *program.Finder
	Log      *slog.Logger
}

// Task runs the tasks named Health.
type Task struct {
	cfg Config
	log *slog.Logger
}

var _ tasks.Runner = (*Task)(nil)

// New makes the runner.
func New(cfg Config) *Task {
	t := &Task{cfg: cfg, log: cfg.Log}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	return t
}

// Ended is tasks.Runner; nothing is left to do.
func (*Task) Ended(context.Context, *db.Tx, *tasks.Task, octopus.TaskState) error { return nil }

// run is one owner's time with a task.
type run struct {
	*Task
	l        *tasks.Lease
	job      Job
	policies []octopus.MachinePolicy

	mu sync.Mutex
	p  progress
	// What still has to be done with the machines that are not over, by their ids.
	open map[string]tasks.Ticket
}

// errTimeUp ends what is checked when the task's time is up.
var errTimeUp = errors.New("the task's time is up")

// Run is tasks.Runner.
func (t *Task) Run(ctx context.Context, l *tasks.Lease) error {
	r := &run{Task: t, l: l, open: map[string]tasks.Ticket{}}
	facts, err := l.Facts(ctx)
	if err != nil {
		return err
	}
	if r.p, err = fold(facts); err != nil {
		return l.Finish(ctx, octopus.TaskFailed, "The journal of the task is damaged.", tasks.Batch{Warnings: true})
	}
	err = t.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		if err := tasks.Plan(ctx, tx, l.ID, &r.job); err != nil {
			return err
		}
		r.policies, err = docstore.All[octopus.MachinePolicy](ctx, t.cfg.Store, tx, "machinepolicies", docstore.Query{Space: l.Space})
		return err
	})
	if err != nil {
		return err
	}
	for id, f := range r.p.began {
		if _, over := r.p.over[id]; !over && f.Agent != "" {
			r.open[id] = r.unasked(id, f)
		}
	}
	err = r.checkAll(ctx)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case r.canceled():
		return l.Finish(ctx, octopus.TaskCanceled, "The task was canceled.", tasks.Batch{Tickets: r.left()})
	case errors.Is(err, errTimeUp):
		message := fmt.Sprintf("The time of %s was up when %d of %d machines were checked.", r.job.Timeout, len(r.p.over), len(r.job.Machines))
		return l.Finish(ctx, octopus.TaskFailed, message, tasks.Batch{Tickets: r.left(), Warnings: true, Lines: []tasks.Line{r.line(l.ID, octopus.LogError, "%s", message)}})
	case err != nil:
		return err
	}
	return r.end(ctx)
}

func (r *run) canceled() bool {
	select {
	case <-r.l.Canceled:
		return true
	default:
		return false
	}
}

func (*run) line(activity string, category octopus.LogCategory, format string, args ...any) tasks.Line {
	return tasks.Line{Activity: activity, Category: category, At: time.Now().UTC(), Text: fmt.Sprintf(format, args...)}
}

// unasked is what becomes of a script that may have been sent to an agent which has not
// answered this process: one of another make is not told before the start has arrived.
func (r *run) unasked(id string, f fact) tasks.Ticket {
	h := targets.Health{Agent: f.Agent, Contract: f.Contract, Unsure: true}
	t, _ := h.Ticket(r.job.ticket(id), id)
	if f.Contract == "" {
		t.NotBefore = 0 // of a version that did not note it
	}
	return t
}

// left is what becomes of the scripts of machines whose checks nobody waits for.
func (r *run) left() []tasks.Ticket {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []tasks.Ticket
	for _, t := range r.open {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b tasks.Ticket) int { return strings.Compare(a.ID, b.ID) })
	return all
}

// checkAll checks the machines that are not over, until all are, the task is canceled
// or its time is up.
func (r *run) checkAll(ctx context.Context) error {
	work, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if r.job.Timeout > 0 {
		var end context.CancelFunc
		work, end = context.WithDeadlineCause(work, r.l.Started.Add(r.job.Timeout), errTimeUp)
		defer end()
	}
	go func() {
		select {
		case <-r.l.Canceled:
			stop(context.Canceled)
		case <-work.Done():
		}
	}()
	g, checking := errgroup.WithContext(work)
	g.SetLimit(targets.ChecksAtOnce)
	done := maps.Clone(r.p.over)
	for _, m := range r.job.Machines {
		if _, over := done[m.ID]; over {
			continue
		}
		if checking.Err() != nil {
			break
		}
		g.Go(func() error { return r.check(checking, m) })
	}
	err := g.Wait()
	if err != nil && work.Err() != nil && ctx.Err() == nil {
		return context.Cause(work)
	}
	return err
}

// machine is a machine as it is now.
type machine struct {
	octopus.MachineBase
	gone bool
}

func (r *run) load(ctx context.Context, m Machine) (now machine, err error) {
	err = r.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		now = machine{}
		return r.cfg.Store.Load(ctx, tx, m.Kind, m.ID, &now.MachineBase)
	})
	if fault.Is(err, fault.NotFound) {
		return machine{gone: true}, nil
	}
	return now, err
}

// check checks one machine.
func (r *run) check(ctx context.Context, m Machine) error {
	now, err := r.load(ctx, m)
	if err != nil {
		return err
	}
	skipped := ""
	switch {
	case now.gone:
		skipped = "was deleted"
	case now.IsDisabled:
		skipped = "is disabled"
	case now.Endpoint.CommunicationStyle == octopus.StyleOfflineDrop:
		skipped = "is a folder, and is reached by nobody"
	}
	node := Activity(r.l.ID, m.ID)
	if skipped != "" {
		f := fact{Machine: m.ID, At: time.Now().UTC(), Skipped: skipped}
		return r.over(ctx, f, nil, r.line(node, octopus.LogInfo, "%s %s, and was not checked.", m.Name, skipped))
	}
	if err := r.begin(ctx, m.ID, "", "", now.Name); err != nil {
		return err
	}
	policy := resources.HealthPolicyOf(r.policies, now.MachinePolicyID)
	ticket := r.job.ticket(m.ID)
	h, err := targets.Examine(ctx, targets.Examination{
		Agents: r.cfg.Agents, Machine: m.ID, Style: now.Endpoint.CommunicationStyle, OnlyConnect: r.job.OnlyConnect || policy.OnlyConnect,
		Script: policy.Script, Ticket: ticket, Timeout: cmp.Or(r.job.MachineTimeout, targets.CheckTimeout), Retry: policy.Retry(now.HealthStatus),
		Begin: func(ctx context.Context, agent string, contract deploy.Contract) error {
			return r.begin(ctx, m.ID, agent, contract, now.Name)
		},
	})
	if err != nil {
		if t, ok := h.Ticket(ticket, m.ID); ok { // what was heard of it counts, where it is broken off
			r.mu.Lock()
			r.open[m.ID] = t
			r.mu.Unlock()
		}
		return err
	}
	found := h.Found(m.Kind, m.ID, r.l.ID, r.l.Service().Version())
	err = r.cfg.DB.Write(ctx, func(tx *db.Tx) error { return resources.KeepCheck(ctx, r.cfg.Store.In(tx), found) })
	if err != nil {
		return err
	}
	if err := failpoint.Hit("health-kept"); err != nil {
		return err
	}
	var lines []tasks.Line
	for _, text := range h.Log {
		lines = append(lines, r.line(node, octopus.LogVerbose, "%s", text))
	}
	server := r.l.Service().Version()
	if text := h.AgentSays(server); text != "" {
		lines = append(lines, r.line(node, octopus.LogInfo, "%s", text))
	}
	category, text := h.Says(m.Name)
	if h.Status == octopus.Unavailable && policy.MayBeAway {
		category = octopus.LogWarning
	}
	f := fact{Machine: m.ID, At: time.Now().UTC(), Status: h.Status, MayBeAway: policy.MayBeAway}
	if policy.Upgrades && h.Upgradable(server) {
		why := r.noProgram(h.Platform())
		if f.Upgrade = why == ""; !f.Upgrade {
			lines = append(lines, r.line(node, octopus.LogWarning, "Its agent is not upgraded, as its machine policy wants. %s", why))
		}
	}
	var t *tasks.Ticket
	if one, ok := h.Ticket(ticket, m.ID); ok {
		t = &one
	}
	return r.over(ctx, f, t, append(lines, r.line(node, category, "%s", text))...)
}

// noProgram is a sentence that says why agents of a platform cannot be upgraded, "" if
// they can, as far as this server knows.
func (r *run) noProgram(platform string) string {
	system, arch, ok := strings.Cut(platform, "/")
	if r.cfg.Programs == nil || !ok {
		return ""
	}
	_, err := r.cfg.Programs.Find(program.Platform{OS: system, Arch: arch})
	if !fault.Is(err, fault.Unsupported) {
		return "" // what else there is, the upgrade tells
	}
	return strings.Join(fault.Messages(err), " ")
}

// upgrades are the machines whose policies want their agents upgraded; why is a sentence
// that says why that is not yet to be.
func (r *run) upgrades(ctx context.Context) (some []Machine, why string) {
	for _, m := range r.job.Machines {
		if r.p.over[m.ID].Upgrade {
			some = append(some, m)
		}
	}
	if len(some) == 0 || r.cfg.Upgrade == nil {
		return nil, ""
	}
	settled, err := r.settled(ctx)
	switch {
	case err != nil:
		r.log.Warn("look whether the server's version stays", "task", r.l.ID, "err", err)
		return nil, fmt.Sprintf("The agents of %d machines are not upgraded yet, as their machine policies want: it cannot be told whether this version of the server stays; the server's log has the reason.", len(some))
	case !settled:
		return nil, fmt.Sprintf("The agents of %d machines are not upgraded yet, as their machine policies want: the upgrade of the server itself is not finalized and may be taken back. The first check after that upgrades them.", len(some))
	}
	return some, ""
}

// settled reports whether the version of this server stays: it is the one whose data is
// written, and no upgrade that brought it may be taken back.
func (r *run) settled(ctx context.Context) (bool, error) {
	m, err := r.cfg.DB.Meta(ctx)
	if err != nil || m.ActiveLevel < db.BinaryLevels().Level {
		return false, err
	}
	if r.cfg.Settled == nil {
		return true, nil
	}
	return r.cfg.Settled(ctx)
}

// begin notes that the check of a machine begins, and before its script is sent that
// it may be. The name is the machine's, for people.
func (r *run) begin(ctx context.Context, id, agent string, contract deploy.Contract, name string) error {
	r.mu.Lock()
	before, known := r.p.began[id]
	r.mu.Unlock()
	if known && before.Agent == agent {
		return nil
	}
	f := fact{Machine: id, At: time.Now().UTC(), Began: true, Agent: agent, Contract: contract}
	if known {
		f.At = before.At
		if agent == "" {
			return nil
		}
	}
	b := tasks.Batch{Facts: []any{f}}
	if agent != "" {
		b.Tickets = []tasks.Ticket{{ID: string(r.job.ticket(id)), Unit: id, Agent: agent, State: tasks.TicketOpen, Place: name, Contract: string(contract)}}
	}
	if err := r.l.Commit(ctx, b); err != nil {
		return err
	}
	r.mu.Lock()
	r.p.began[id] = f
	if agent != "" {
		r.open[id] = r.unasked(id, f)
	}
	r.mu.Unlock()
	if agent == "" {
		return nil
	}
	return failpoint.Hit("health-begun")
}

// over notes that a machine is done with.
func (r *run) over(ctx context.Context, f fact, t *tasks.Ticket, lines ...tasks.Line) error {
	b := tasks.Batch{Facts: []any{f}, Lines: lines, Warnings: f.Status != octopus.Healthy && f.Skipped == ""}
	if t == nil {
		// Of one that was begun, and cannot be asked any more.
		r.mu.Lock()
		if one, ok := r.open[f.Machine]; ok {
			t = &one
		}
		r.mu.Unlock()
	}
	if t != nil {
		b.Tickets = []tasks.Ticket{*t}
	}
	if err := r.l.Commit(ctx, b); err != nil {
		return err
	}
	r.mu.Lock()
	r.p.over[f.Machine] = f
	delete(r.open, f.Machine)
	r.mu.Unlock()
	return nil
}

// end removes the machines that their policies no longer want, and says how the task
// has gone.
func (r *run) end(ctx context.Context) error {
	counts := map[octopus.HealthStatus]int{}
	var missing []string
	checked := 0
	for _, m := range r.job.Machines {
		f := r.p.over[m.ID]
		if f.Skipped != "" {
			continue
		}
		checked++
		counts[f.Status]++
		if f.Status == octopus.Unavailable && !f.MayBeAway {
			missing = append(missing, m.Name)
		}
	}
	lines, err := r.cleanUp(ctx)
	if err != nil {
		return err
	}
	b := tasks.Batch{Lines: append(lines, r.line(r.l.ID, octopus.LogInfo, "Checked %d of %d machines: %d healthy, %d with warnings, %d not healthy, %d not available.",
		checked, len(r.job.Machines), counts[octopus.Healthy], counts[octopus.HealthyWarnings], counts[octopus.Unhealthy], counts[octopus.Unavailable]))}
	some, why := r.upgrades(ctx)
	if why != "" {
		b.Lines = append(b.Lines, r.line(r.l.ID, octopus.LogInfo, "%s", why))
	}
	if len(some) > 0 {
		b.Also = func(ctx context.Context, tx *db.Tx) error { return r.cfg.Upgrade(ctx, tx, r.l.Space, some) }
	}
	if len(missing) == 0 {
		return r.l.Finish(ctx, octopus.TaskSuccess, "", b)
	}
	const named = 20
	more := ""
	if len(missing) > named {
		more = fmt.Sprintf(" and %d more", len(missing)-named)
	}
	message := fmt.Sprintf("%d of %d machines are expected to be online and are not available: %s%s.", len(missing), checked, strings.Join(missing[:min(len(missing), named)], ", "), more)
	b.Lines = append(b.Lines, r.line(r.l.ID, octopus.LogError, "%s", message))
	return r.l.Finish(ctx, octopus.TaskFailed, message, b)
}
