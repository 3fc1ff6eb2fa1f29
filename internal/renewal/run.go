package renewal

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/health"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/targets/program"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Within is how long a new program has to answer unless a Config says otherwise.
const Within = 2 * time.Minute

// Config of a Task.
type Config struct {
	DB    *db.DB
	Store *docstore.Store
	// Agents finds the agents of machines by the ids of these, and Programs what they
	// are upgraded to: the program of this server's version for their platforms.
	Agents   targets.Finder
	Programs *program.Finder
	Log      *slog.Logger  // nil discards
	Within   time.Duration // 0 is the constant
}

// Task runs the tasks named Upgrade.
type Task struct {
	cfg Config
	log *slog.Logger
}

var _ tasks.Runner = (*Task)(nil)

// New makes the runner.
func New(cfg Config) *Task {
	if cfg.Within == 0 {
		cfg.Within = Within
	}
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
	l   *tasks.Lease
	job Job
	// began is when this owner began.
	began time.Time

	// turns are taken by what is done with machines at the same time; who waits for a
	// machine's lock takes none.
	turns chan struct{}

	mu sync.Mutex
	p  progress
}

// Run is tasks.Runner.
func (t *Task) Run(ctx context.Context, l *tasks.Lease) error {
	r := &run{Task: t, l: l, began: time.Now(), turns: make(chan struct{}, targets.ChecksAtOnce)}
	facts, err := l.Facts(ctx)
	if err != nil {
		return err
	}
	if r.p, err = fold(facts); err != nil {
		return l.Finish(ctx, octopus.TaskFailed, "The journal of the task is damaged.", tasks.Batch{Warnings: true})
	}
	err = t.cfg.DB.Read(ctx, func(tx *db.Tx) error { return tasks.Plan(ctx, tx, l.ID, &r.job) })
	if err != nil {
		return err
	}
	if err := r.all(ctx); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return r.end(ctx)
}

// all takes the machines that are not over, until all are or the task is canceled.
// What has begun then comes to its end, which is near.
func (r *run) all(ctx context.Context) error {
	g, working := errgroup.WithContext(ctx)
	done := maps.Clone(r.p.over)
	for _, m := range r.job.Machines {
		if _, over := done[m.ID]; over {
			continue
		}
		if !r.turn(working) {
			break
		}
		g.Go(func() error { return r.machine(working, m) })
	}
	return g.Wait()
}

// turn waits for a turn; it reports whether there is still anything to do with one.
func (r *run) turn(ctx context.Context) bool {
	if r.canceled() || ctx.Err() != nil {
		return false
	}
	select {
	case r.turns <- struct{}{}:
		return true
	case <-r.l.Canceled:
		return false
	case <-ctx.Done():
		return false
	}
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

// say adds a line to the log of a machine.
func (r *run) say(ctx context.Context, m health.Machine, category octopus.LogCategory, format string, args ...any) error {
	return r.l.Commit(ctx, tasks.Batch{Lines: []tasks.Line{r.line(health.Activity(r.l.ID, m.ID), category, format, args...)}})
}

// unit is what waits for a machine's lock, and has it.
func unit(m health.Machine) string { return "upgrade-" + m.ID }

// machine does what is to be done with a machine; its caller has taken a turn for it.
func (r *run) machine(ctx context.Context, m health.Machine) error {
	turn := true
	defer func() {
		if turn {
			<-r.turns
		}
	}()
	why, err := r.unfit(ctx, m)
	if err != nil {
		return err
	}
	if why != "" {
		return r.over(ctx, m, result{skipped, why})
	}
	if err := r.begin(ctx, m); err != nil {
		return err
	}
	held, err := r.l.Lock(ctx, m.ID, unit(m), false)
	if err == nil && !held {
		<-r.turns
		turn = false
		if held, err = r.await(ctx, m); err == nil && held {
			turn = r.turn(ctx)
			held = turn
		}
	}
	if err != nil {
		return err
	}
	if !held {
		return r.l.Commit(ctx, tasks.Batch{Unlock: []string{unit(m)}})
	}
	if err := failpoint.Hit("upgrade-locked"); err != nil {
		return err
	}
	res, err := r.renew(ctx, m)
	if err != nil {
		return err
	}
	return r.over(ctx, m, res)
}

// await waits for the machine's lock, and says who is in the way. It is false when the
// task was canceled.
func (r *run) await(ctx context.Context, m health.Machine) (bool, error) {
	told := ""
	return r.l.AwaitLock(ctx, m.ID, unit(m), false, func(ctx context.Context, ahead []tasks.Holder) (bool, error) {
		if r.canceled() {
			return false, nil
		}
		var who []string
		for _, h := range ahead {
			who = append(who, h.Task)
		}
		text := strings.Join(who, ", ")
		if text == "" || text == told {
			return true, nil
		}
		told = text
		return true, r.say(ctx, m, octopus.LogWait, "Waiting for %s, which is held by %s.", m.Name, text)
	})
}

// unfit says why there is nothing to upgrade on a machine, as far as its document tells.
func (r *run) unfit(ctx context.Context, m health.Machine) (string, error) {
	var now octopus.MachineBase
	err := r.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		now = octopus.MachineBase{}
		return r.cfg.Store.Load(ctx, tx, m.Kind, m.ID, &now)
	})
	if fault.Is(err, fault.NotFound) {
		return "was deleted.", nil
	}
	if err != nil {
		return "", err
	}
	switch style := now.Endpoint.CommunicationStyle; style {
	case octopus.StyleListening, octopus.StylePolling:
	case octopus.StyleSSH:
		return "is reached by SSH: it gets the server's program when it is used, and is always current.", nil
	case octopus.StyleNone, octopus.StyleOfflineDrop:
		return "has no agent.", nil
	default:
		return fmt.Sprintf("is of the kind %s, on which this server upgrades nothing.", style), nil
	}
	d := now.Endpoint.TentacleVersionDetails
	switch {
	case now.IsDisabled:
		return "is disabled.", nil
	case d != nil && d.UpgradeLocked:
		return "is not upgraded: its agent's version is locked (UpgradeLocked).", nil
	}
	return "", nil
}

func (r *run) begin(ctx context.Context, m health.Machine) error {
	r.mu.Lock()
	_, known := r.p.began[m.ID]
	r.mu.Unlock()
	if known {
		return nil
	}
	f := fact{Machine: m.ID, At: time.Now().UTC()}
	if err := r.l.Commit(ctx, tasks.Batch{Facts: []any{f}}); err != nil {
		return err
	}
	r.mu.Lock()
	r.p.began[m.ID] = f
	r.mu.Unlock()
	return nil
}

// result is how it has gone with a machine; text goes on after its name.
type result struct {
	outcome outcome
	text    string
}

// over notes that a machine is done with, and gives its lock back.
func (r *run) over(ctx context.Context, m health.Machine, res result) error {
	f := fact{Machine: m.ID, At: time.Now().UTC(), Outcome: res.outcome}
	category := octopus.LogInfo
	if res.outcome == failed {
		category = octopus.LogError
	}
	err := r.l.Commit(ctx, tasks.Batch{
		Facts: []any{f}, Unlock: []string{unit(m)}, Warnings: res.outcome == failed,
		Lines: []tasks.Line{r.line(health.Activity(r.l.ID, m.ID), category, "%s %s", m.Name, res.text)},
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.p.over[m.ID] = f
	r.mu.Unlock()
	return nil
}

// end says how the task has gone.
func (r *run) end(ctx context.Context) error {
	counts := map[outcome]int{}
	var bad []string
	for _, m := range r.job.Machines {
		f := r.p.over[m.ID]
		counts[f.Outcome]++
		if f.Outcome == failed {
			bad = append(bad, m.Name)
		}
	}
	summary := fmt.Sprintf("Of %d machines, %d were upgraded, %d had nothing to be upgraded, %d were left out, %d failed.",
		len(r.job.Machines), counts[upgraded], counts[nothing], counts[skipped], counts[failed])
	b := tasks.Batch{Lines: []tasks.Line{r.line(r.l.ID, octopus.LogInfo, "%s", summary)}}
	switch {
	case r.canceled() && len(r.p.over) < len(r.job.Machines):
		return r.l.Finish(ctx, octopus.TaskCanceled, "The task was canceled.", b)
	case len(bad) == 0:
		return r.l.Finish(ctx, octopus.TaskSuccess, "", b)
	}
	const named = 20
	more := ""
	if len(bad) > named {
		more = fmt.Sprintf(" and %d more", len(bad)-named)
	}
	message := fmt.Sprintf("%d of %d agents were not upgraded: %s%s.", len(bad), len(r.job.Machines), strings.Join(bad[:min(len(bad), named)], ", "), more)
	b.Lines = append(b.Lines, r.line(r.l.ID, octopus.LogError, "%s", message))
	return r.l.Finish(ctx, octopus.TaskFailed, message, b)
}

// sentence is an error for people.
func sentence(err error) string {
	if m := fault.Messages(err); len(m) > 0 {
		return strings.Join(m, " ")
	}
	var away *targets.AwayError
	if errors.As(err, &away) {
		return fmt.Sprintf("It does not answer: %v.", away.Err)
	}
	return err.Error()
}
