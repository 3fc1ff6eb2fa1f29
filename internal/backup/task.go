package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Job is what a task named Backup does.
type Job struct {
	// Verify is the backup to prove; "" takes a new one and proves that.
	Verify string
	// Level is that of the proof.
	Level int
	// Scheduled says that nobody asked for it by hand.
	Scheduled bool
	// Keep is the retention that is applied after the proof; nil removes nothing.
	Keep *Retention
	// Clone makes a test instance instead of a proof, for a task named Clone.
	Clone *CloneJob `json:",omitempty"`
}

// argScheduled is the argument of tasks that the schedule has queued.
const argScheduled = "Scheduled"

// NewTask is the task of a job. All of them have one concurrency tag: they run one
// after the other.
func NewTask(job Job) tasks.New {
	n := tasks.New{Name: octopus.TaskBackup, Description: "Take a backup", Tag: "backup", Plan: job, Arguments: map[string]any{"Level": job.Level}}
	if job.Verify != "" {
		n.Description = "Verify backup " + job.Verify
		n.Arguments["BackupId"] = job.Verify
	}
	if job.Clone != nil {
		n.Name, n.Description, n.Arguments = octopus.TaskClone, "Make a test instance in "+job.Clone.Directory, job.Clone.arguments()
	}
	if job.Scheduled {
		n.Description = "Take the scheduled backup"
		n.Arguments[argScheduled] = "true"
	}
	return n
}

// TaskConfig of a Task.
type TaskConfig struct {
	// Open opens the directory of backups of this node.
	Open func() (*Store, error)
	// Keys are what opens backups.
	Keys func(ctx context.Context) (Keys, error)
	// Source is the server, and Verify how backups are proven; their Progress, and
	// the Level and Keys of Verify, are the task's own.
	Source Source
	Verify VerifyOptions
	// Clone is how test instances are made; what is the task's own is left out.
	Clone CloneOptions
	// Own are the directories of the server, in which no test instance is made.
	Own []string
	Log *slog.Logger
}

// Task runs the tasks named Backup and Clone, on the node that has claimed them.
type Task struct {
	cfg TaskConfig
	log *slog.Logger
}

var _ tasks.Runner = (*Task)(nil)

// NewRunner makes the runner.
func NewRunner(cfg TaskConfig) *Task {
	t := &Task{cfg: cfg, log: cfg.Log}
	if t.log == nil {
		t.log = slog.New(slog.DiscardHandler)
	}
	return t
}

// Ended is tasks.Runner: it warns of a scheduled backup that is none, whoever ended
// the task.
func (*Task) Ended(_ context.Context, tx *db.Tx, t *tasks.Task, state octopus.TaskState) error {
	if t.Argument(argScheduled) == "" || state == octopus.TaskSuccess {
		return nil
	}
	tx.Event(TaskEvent(octopus.EventBackupFailed, t.ID, fmt.Sprintf("The scheduled backup failed: %s is %s, and its log has the reason", t.ID, state)))
	return nil
}

// TaskEvent is an event about a task of backups.
func TaskEvent(category octopus.EventCategory, task, message string) db.Event {
	e := db.Event{Category: string(category), Message: message, DocumentType: "ServerTask"}
	if task != "" {
		e.Related = []string{task}
	}
	return e
}

// made is the fact of a task that its backup is there: who goes on with it only
// proves it.
type made struct{ Made string }

// Run is tasks.Runner.
func (t *Task) Run(ctx context.Context, l *tasks.Lease) error {
	facts, err := l.Facts(ctx)
	if err != nil {
		return err
	}
	var job Job
	if err := t.cfg.Source.DB.Read(ctx, func(tx *db.Tx) error { return tasks.Plan(ctx, tx, l.ID, &job) }); err != nil {
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
	r := &taskLog{ctx: ctx, l: l, stop: stop}
	for _, f := range facts {
		var m made
		if err := json.Unmarshal(f.Body, &m); err != nil {
			return fmt.Errorf("journal of %s: %w", l.ID, err)
		}
		r.made = m.Made
	}
	done, err := t.do(work, r, job)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case r.err != nil:
		return r.err
	case err != nil && canceled(l):
		return l.Finish(ctx, octopus.TaskCanceled, "The task was canceled.", tasks.Batch{})
	case err != nil:
		t.log.Error("backup task failed", "task", l.ID, "err", err)
		why := reason(err)
		return l.Finish(ctx, octopus.TaskFailed, why, tasks.Batch{Lines: []tasks.Line{r.line(octopus.LogError, why)}, Warnings: true})
	}
	return l.Finish(ctx, octopus.TaskSuccess, "", tasks.Batch{Also: func(_ context.Context, tx *db.Tx) error {
		category := octopus.EventBackupSucceeded
		if job.Clone != nil {
			category = octopus.EventCloned
		}
		tx.Event(TaskEvent(category, l.ID, done))
		return nil
	}})
}

func canceled(l *tasks.Lease) bool {
	select {
	case <-l.Canceled:
		return true
	default:
		return false
	}
}

// reason is an error for people. What is neither about a backup nor a fault can
// have anything in it, and stays in the server's log.
func reason(err error) string {
	var damaged *DamagedError
	if errors.As(err, &damaged) {
		return damaged.Error()
	}
	var boot *BootError
	if errors.As(err, &boot) {
		return boot.Error()
	}
	if fault.KindOf(err) != fault.Internal {
		return strings.Join(fault.Messages(err), " ")
	}
	return "The server could not do it. Its log has the reason."
}

// do does a job, and says what was done.
func (t *Task) do(ctx context.Context, r *taskLog, job Job) (string, error) {
	s, err := t.cfg.Open()
	if err != nil {
		return "", err
	}
	if job.Clone != nil {
		return t.clone(ctx, r, s, job.Clone)
	}
	id, done := job.Verify, "Backup %s was proven at level %d"
	if id == "" {
		done = "Backup %s was taken, and proven at level %d"
		if id, err = t.create(ctx, r, s); err != nil {
			return "", err
		}
	}
	keys, err := t.cfg.Keys(ctx)
	if err != nil {
		return "", err
	}
	opt := t.cfg.Verify
	opt.Level, opt.Keys, opt.Progress = job.Level, keys, r.progress
	var v Verified
	err = r.whenFree(ctx, func() (err error) {
		v, err = s.Verify(ctx, id, opt)
		return err
	})
	if err != nil {
		return "", err
	}
	r.say(octopus.LogInfo, "Backup %s is good: proven at level %d in %s.", id, v.Level, v.Took.Round(time.Millisecond))
	if job.Keep != nil {
		t.prune(ctx, r, s, *job.Keep)
	}
	return fmt.Sprintf(done, id, v.Level), r.err
}

// create takes the backup of a task, unless it is there already.
func (t *Task) create(ctx context.Context, r *taskLog, s *Store) (string, error) {
	if r.made != "" {
		r.say(octopus.LogInfo, "Backup %s is there already.", r.made)
		return r.made, r.err
	}
	src := t.cfg.Source
	src.Progress = r.progress
	var m Manifest
	err := r.whenFree(ctx, func() (err error) {
		m, err = s.Create(ctx, src)
		return err
	})
	if err != nil {
		return "", err
	}
	b := tasks.Batch{Facts: []any{made{m.ID}}, Lines: []tasks.Line{
		r.line(octopus.LogInfo, fmt.Sprintf("Backup %s: database %s, %d packages, artifacts and logs (%s).", m.ID, size(m.Database.Size), m.BlobCount, size(m.BlobBytes))),
	}}
	if n := len(m.Missing); n > 0 {
		b.Warnings = true
		b.Lines = append(b.Lines, r.line(octopus.LogWarning, fmt.Sprintf("The server itself has lost %d packages, artifacts or logs, so the backup is without them: %s", n, strings.Join(m.Missing[:min(n, 10)], " "))))
	}
	r.commit(b)
	return m.ID, errors.Join(r.err, failpoint.Hit("backup-noted"))
}

// prune applies retention. A backup that is taken and proven is none the worse for
// what could not be removed, so that is a warning only.
func (t *Task) prune(ctx context.Context, r *taskLog, s *Store, keep Retention) {
	var p Pruned
	err := r.whenFree(ctx, func() (err error) {
		p, err = s.Prune(keep, false)
		return err
	})
	for _, id := range p.Backups {
		r.say(octopus.LogInfo, "Backup %s: retention does not keep it.", id)
	}
	switch {
	case err == nil:
		r.say(octopus.LogInfo, "Removed %d backups, and %d packages, artifacts and logs (%s) that no other backup has.", len(p.Backups), p.Blobs, size(p.Bytes))
	case ctx.Err() == nil:
		t.log.Error("remove old backups", "task", r.l.ID, "err", err)
		r.commit(tasks.Batch{Warnings: true, Lines: []tasks.Line{r.line(octopus.LogWarning, "Not everything that retention does not keep could be removed: run `tako backup prune` on the server's machine to see why.")}})
	}
}

// taskLog is the log of a task. Its err is the first of writing it, after which
// nothing is written.
type taskLog struct {
	ctx  context.Context //nolint:containedctx // of one run; progress comes without one
	l    *tasks.Lease
	made string
	err  error
	stop context.CancelFunc // ends the work, when its log cannot be written

	stage        string
	began, shown time.Time
}

func (*taskLog) now() time.Time { return time.Now().UTC() }

func (r *taskLog) line(category octopus.LogCategory, text string) tasks.Line {
	return tasks.Line{Activity: r.l.ID, Category: category, At: r.now(), Text: text}
}

func (r *taskLog) commit(b tasks.Batch) {
	if r.err == nil {
		if r.err = r.l.Commit(r.ctx, b); r.err != nil {
			r.stop()
		}
	}
}

func (r *taskLog) say(category octopus.LogCategory, format string, args ...any) {
	r.commit(tasks.Batch{Lines: []tasks.Line{r.line(category, fmt.Sprintf(format, args...))}})
}

// progressEvery is how often a long stage tells how far it is.
const progressEvery = 10 * time.Second

// progress logs each stage, and now and then how far it is.
func (r *taskLog) progress(p Progress) {
	now := r.now()
	if p.Stage != r.stage {
		r.stage, r.began, r.shown = p.Stage, now, now
		if p.Total > 0 {
			r.say(octopus.LogInfo, "%s (%s)", p.Stage, size(p.Total))
		} else {
			r.say(octopus.LogInfo, "%s", p.Stage)
		}
		return
	}
	if now.Sub(r.shown) < progressEvery || p.Total <= 0 || p.Done <= 0 {
		return
	}
	r.shown = now
	left := time.Duration(float64(now.Sub(r.began)) * float64(max(p.Total-p.Done, 0)) / float64(p.Done)).Round(time.Second)
	r.say(octopus.LogInfo, "%s: %s of %s (%d %%), about %s left", p.Stage, size(p.Done), size(p.Total), min(100, 100*p.Done/p.Total), left)
}

// whenFree repeats fn while another process works on the same backups.
func (r *taskLog) whenFree(ctx context.Context, fn func() error) error {
	for told := false; ; told = true {
		err := fn()
		var busy *BusyError
		if !errors.As(err, &busy) {
			return err
		}
		if !told {
			r.say(octopus.LogWait, "Another process takes or removes backups just now; waiting for its end.")
		}
		again := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-again.C:
		}
	}
}
