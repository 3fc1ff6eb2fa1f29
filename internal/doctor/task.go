package doctor

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Job is what a task named SystemIntegrityCheck does.
type Job struct {
	// Full also reads every blob, and every index of a SQLite database.
	Full bool
}

// Tag is the concurrency tag of these tasks: they run one after the other.
const Tag = "integrity"

// NewTask is the task of a job.
func NewTask(job Job) tasks.New {
	n := tasks.New{Name: octopus.TaskSystemIntegrityCheck, Description: "Check the integrity of the server's data", Tag: Tag, Plan: job}
	if job.Full {
		n.Arguments = map[string]any{"Full": true}
	}
	return n
}

// Task runs the tasks named SystemIntegrityCheck, on the node that has claimed them. It
// repairs nothing.
type Task struct {
	cfg Config
	log *slog.Logger
}

var _ tasks.Runner = (*Task)(nil)

// NewRunner makes the runner; Full, Fix, Progress and Found of cfg are its own.
func NewRunner(cfg Config) *Task {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Task{cfg: cfg, log: cfg.Log}
}

// Ended is tasks.Runner; nothing is left to do.
func (*Task) Ended(context.Context, *db.Tx, *tasks.Task, octopus.TaskState) error { return nil }

// progressEvery is how often a long check tells how far it is.
const progressEvery = 10 * time.Second

// Run is tasks.Runner. A task that another node goes on with begins anew.
func (t *Task) Run(ctx context.Context, l *tasks.Lease) error {
	if _, err := l.Facts(ctx); err != nil {
		return err
	}
	var job Job
	if err := t.cfg.DB.Read(ctx, func(tx *db.Tx) error { return tasks.Plan(ctx, tx, l.ID, &job) }); err != nil {
		return err
	}
	work, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-l.Canceled:
			stop()
		case <-work.Done():
		}
	}()
	var lost error // of the lease
	say := func(category octopus.LogCategory, format string, args ...any) {
		if lost != nil {
			return
		}
		line := tasks.Line{Activity: l.ID, Category: category, At: time.Now().UTC(), Text: fmt.Sprintf(format, args...)}
		if lost = l.Commit(ctx, tasks.Batch{Lines: []tasks.Line{line}, Warnings: category == octopus.LogWarning || category == octopus.LogError}); lost != nil {
			stop()
		}
	}
	cfg := t.cfg
	cfg.Full, cfg.Fix = job.Full, false
	shown := time.Now()
	cfg.Progress = func(stage string, done, total int64) {
		if total > 0 && done > 0 && time.Since(shown) >= progressEvery {
			shown = time.Now()
			say(octopus.LogInfo, "%s: %d %%", stage, min(100, 100*done/total))
		}
	}
	cfg.Found = func(f Finding) { say(category(f.Severity), "%s", f) }
	report, err := Run(work, cfg)
	canceled := false
	select {
	case <-l.Canceled:
		canceled = true
	default:
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case lost != nil:
		return lost
	case canceled:
		return l.Finish(ctx, octopus.TaskCanceled, "The task was canceled.", tasks.Batch{})
	case err != nil:
		t.log.Error("check the integrity", "task", l.ID, "err", err)
		return l.Finish(ctx, octopus.TaskFailed, "The server could not look. Its log has the reason.", tasks.Batch{})
	}
	for _, c := range report.Checks {
		say(octopus.LogVerbose, "%s: looked at %d in %s", c.Name, c.Looked, c.Took.Round(time.Millisecond))
	}
	for _, line := range report.Rest() {
		say(octopus.LogWarning, "%s", line)
	}
	if lost != nil {
		return lost
	}
	left := report.Left()
	summary := fmt.Sprintf("%s, %s, %s.", count(int64(left[Error]), "error", "errors"), count(int64(left[Warning]), "warning", "warnings"), count(int64(left[Notice]), "notice", "notices"))
	last := tasks.Batch{Lines: []tasks.Line{{Activity: l.ID, Category: octopus.LogInfo, At: time.Now().UTC(), Text: "Found: " + summary}}, Warnings: !report.Clean()}
	if left[Error] > 0 {
		return l.Finish(ctx, octopus.TaskFailed, "The data of the server is damaged: "+summary+" The log names them; `tako doctor --fix` on the server's machine repairs what can be repaired.", last)
	}
	return l.Finish(ctx, octopus.TaskSuccess, "", last)
}

func category(s Severity) octopus.LogCategory {
	switch s {
	case Error:
		return octopus.LogError
	case Warning:
		return octopus.LogWarning
	default:
		return octopus.LogInfo
	}
}

// String is a finding in one line.
func (f Finding) String() string {
	text := fmt.Sprintf("%s %s: %s. %s", f.Code, f.Where, f.What, f.Remedy)
	switch {
	case f.Fixed != "":
		text = fmt.Sprintf("%s %s: %s. Repaired: %s.", f.Code, f.Where, f.What, f.Fixed)
	case f.Refused != "":
		text += " " + f.Refused
	}
	return text
}

// Rest tells of the findings that are not named one by one.
func (r *Report) Rest() (lines []string) {
	all := map[string]int64{}
	for code, n := range r.More {
		all[code] = int64(n)
	}
	for _, code := range sorted(all) {
		lines = append(lines, fmt.Sprintf("%s: %d more, of which %d were repaired", code, all[code], r.MoreFixed[code]))
	}
	return lines
}
