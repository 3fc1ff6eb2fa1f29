// Package schedule does things when they are due: the schedules of triggers, the
// server's own (retention, backups), the health checks of machine policies and of
// machines that are new, warnings of certificates that expire, releases that are made
// because a package came, and deployments to targets that came or changed.
//
// What is due is a row of the database and never a timer in memory. Every server
// looks at the rows; one of them takes a row whose time has come, in a transaction
// that notes the time as pending and moves the row on, and does the work. Each
// part of the work is committed together with a mark on the row that it is done,
// and only if the row still says that it is not: so a due time has its effect
// once, whether two servers look at it, one dies half-way, or a lease runs out
// while its holder sleeps.
//
// Of times that nobody was there for, only the latest has an effect, and only when
// it is not older than an hour; the rest is told of in the audit trail. Health checks
// that were missed are done once, however late. A row
// never goes back: when the clock is set back, nothing happens until it has come
// again to where it was.
//
// While what a trigger queued the last time is not done, its next times are
// skipped. After a restore nothing is due before somebody has released it.
package schedule

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/doctor"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/retention"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/internal/timetable"
	"github.com/takodeploy/tako/octopus"
)

const (
	// Grace is how late a due time may be and still have its effect.
	Grace = time.Hour
	// lease is how long a server may take for the work of a row before another
	// tries it too.
	lease = 2 * time.Minute
	// maxAttempts is how often the work of a due time is tried, where the server
	// itself is at fault.
	maxAttempts = 5
	// batch is how many rows one look takes.
	batch = 100
)

// Kinds of rows.
const (
	kindTrigger     = "trigger"
	kindPush        = "push"
	kindRetention   = "retention"
	kindCertificate = "certificate"
	kindMachines    = resources.MachineChanges
	kindBackup      = resources.BackupDue
	kindBackupAge   = resources.BackupAgeDue
	kindHealth      = resources.HealthDue
	kindFirstCheck  = resources.FirstCheckDue
	kindIntegrity   = "integrity"
)

// RetentionID is the row of the server's retention.
const RetentionID = "retention"

// retentionCron is when retention runs: every four hours.
const retentionCron = "0 0 */4 * * *"

// IntegrityID is the row of the check of the server's data.
const IntegrityID = "integrity"

// integrityCron is when the server's data is checked: on Sundays at 3:15, UTC.
const integrityCron = "0 15 3 * * 0"

// Config of a Scheduler.
type Config struct {
	DB       *db.DB
	Store    *docstore.Store
	Releases *releases.Service
	Queue    releases.Queue
	// Proven is the instant of the newest backup that was proven, zero if there is
	// none; nil looks at none, and warns of none.
	Proven func(ctx context.Context) (time.Time, error)
	Log    *slog.Logger
	// Look is how often Run looks for what is due; 1 s unless set.
	Look time.Duration
}

// Scheduler is this server's part in what is due. It is safe for concurrent use.
type Scheduler struct {
	cfg Config
	log *slog.Logger
}

// New makes a scheduler.
func New(cfg Config) *Scheduler {
	s := &Scheduler{cfg: cfg, log: cfg.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.cfg.Look <= 0 {
		s.cfg.Look = time.Second
	}
	return s
}

// Ensure writes the rows of the server's own schedules, if they are not there.
func (s *Scheduler) Ensure(ctx context.Context) error {
	return s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		for _, own := range []struct{ id, kind, cron string }{
			{RetentionID, kindRetention, retentionCron},
			{IntegrityID, kindIntegrity, integrityCron},
		} {
			table, err := timetable.Cron(own.cron, time.UTC)
			if err != nil {
				return fmt.Errorf("schedule of %s: %w", own.id, err)
			}
			next, _ := table.Next(tx.Now())
			_, err = tx.Exec(ctx, `INSERT INTO due (id, kind, space_id, argument, at, pending, lease, attempts, fired, progress, tasks)
				VALUES (?, ?, '', ?, ?, 0, 0, 0, 0, '', '') ON CONFLICT (id) DO NOTHING`, own.id, own.kind, own.cron, db.Micros(next))
			if err != nil {
				return fmt.Errorf("schedule %s: %w", own.id, err)
			}
		}
		return errors.Join(noteCertificates(ctx, tx), noteHealth(ctx, tx))
	})
}

// Run does what is due until ctx ends.
func (s *Scheduler) Run(ctx context.Context) error {
	tick := time.NewTicker(s.cfg.Look)
	defer tick.Stop()
	for {
		if err := s.Look(ctx); err != nil && ctx.Err() == nil {
			s.log.Error("look for what is due", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// row is a row of due.
type row struct {
	id, kind, argument string
	space              ident.SpaceID
	at, pending, fired int64
	attempts           int64
	progress           string
	tasks              []string

	trigger *octopus.Trigger
	backups *octopus.BackupConfiguration // of rows about backups
	policy  *octopus.MachinePolicy       // of rows about health
	table   *timetable.Timetable
}

// Look does everything that is due now, once.
func (s *Scheduler) Look(ctx context.Context) error {
	var ids []string
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		ids = nil
		quiet, err := tasks.Quiet(ctx, tx)
		if err != nil || quiet {
			return err
		}
		now := db.Micros(tx.Now())
		rows, err := tx.Query(ctx, `SELECT u.id FROM due u WHERE u.at <= ? UNION SELECT u.id FROM due u WHERE u.pending > 0 AND u.lease < ? LIMIT ?`, now, now, int64(batch))
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // Err tells
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return rows.Err()
	})
	if err != nil {
		return fmt.Errorf("read what is due: %w", err)
	}
	var errs []error
	for _, id := range ids {
		if err := s.one(ctx, id); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", id, err))
		}
	}
	return errors.Join(errs...)
}

// one takes a row, and does its work if there is any for this server.
func (s *Scheduler) one(ctx context.Context, id string) error {
	var r *row
	err := s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) (err error) {
		r, err = s.claim(ctx, tx, id)
		return err
	})
	if err != nil || r == nil {
		return err
	}
	switch r.kind {
	case kindTrigger:
		err = s.fire(ctx, r)
	case kindPush:
		err = s.pushed(ctx, r)
	case kindRetention:
		err = s.queue(ctx, r, tasks.New{Name: octopus.TaskRetention, Description: "Apply retention policies", Tag: retention.Tag})
	case kindIntegrity:
		err = s.queue(ctx, r, doctor.NewTask(doctor.Job{}))
	case kindMachines:
		err = s.machines(ctx, r)
	case kindBackup:
		err = s.backUp(ctx, r)
	case kindBackupAge:
		err = s.backupAge(ctx, r)
	case kindHealth:
		err = s.checkHealth(ctx, r)
	case kindFirstCheck:
		err = s.firstChecks(ctx, r)
	default:
		err = fault.New(fault.Unsupported, "This server knows no schedule of the kind '%s'.", r.kind)
	}
	switch {
	case err == nil, errors.Is(err, errDone):
		return nil
	case fault.KindOf(err) != fault.Internal && fault.KindOf(err) != fault.Unavailable && fault.KindOf(err) != fault.Conflict:
		return s.finish(ctx, r, s.told(r, octopus.EventTriggerFailed, "could not run", fault.Messages(err)...))
	case r.attempts >= maxAttempts:
		s.log.Error("give up what was due", "due", r.id, "err", err)
		return s.finish(ctx, r, s.told(r, octopus.EventTriggerFailed, "could not run", "The server's log has the reason."))
	}
	return err // whoever looks after the lease tries again
}

// read locks and reads a row; nil when it is gone.
func read(ctx context.Context, tx *db.Tx, id string) (*row, error) {
	r := &row{id: id}
	var tasks string
	err := tx.QueryRow(ctx, `SELECT u.kind, u.space_id, u.argument, u.at, u.pending, u.attempts, u.fired, u.progress, u.tasks FROM due u WHERE u.id = ?`+tx.ForUpdate(), id).
		Scan(&r.kind, &r.space, &r.argument, &r.at, &r.pending, &r.attempts, &r.fired, &r.progress, &tasks)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // gone is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("read what is due: %w", err)
	}
	if tasks != "" {
		if err := json.Unmarshal([]byte(tasks), &r.tasks); err != nil {
			return nil, fmt.Errorf("tasks of %s: %w", id, err)
		}
	}
	return r, nil
}

// claim decides what becomes of a row whose time has come. It returns the row when
// its work is this server's to do.
func (s *Scheduler) claim(ctx context.Context, tx *db.Tx, id string) (*row, error) {
	now := tx.Now()
	r, err := read(ctx, tx, id)
	if err != nil || r == nil {
		return nil, err
	}
	if r.kind == kindCertificate {
		return nil, s.expiry(ctx, tx, r) // all of its work
	}
	var until int64
	if err := tx.QueryRow(ctx, `SELECT u.lease FROM due u WHERE u.id = ?`, id).Scan(&until); err != nil {
		return nil, err
	}
	if gone, err := s.load(ctx, tx, r); err != nil || gone {
		return nil, err
	}
	isDue := r.at <= db.Micros(now)
	switch {
	case r.pending > 0 && isDue && r.table != nil:
		// The time before is still being worked on.
		if err := s.skip(ctx, tx, r, "the time before is still being worked on"); err != nil {
			return nil, err
		}
	case r.pending == 0 && !isDue:
		return nil, nil //nolint:nilnil // another server was first
	case r.pending == 0:
		return s.begin(ctx, tx, r)
	}
	if until >= db.Micros(now) {
		return nil, nil //nolint:nilnil // somebody works on it
	}
	r.attempts++
	_, err = tx.Exec(ctx, `UPDATE due SET lease = ?, attempts = ? WHERE id = ?`, db.Micros(now.Add(lease)), r.attempts, r.id)
	return r, err
}

// load reads what a row is about. It drops the row of what is gone.
func (s *Scheduler) load(ctx context.Context, tx *db.Tx, r *row) (gone bool, err error) {
	switch r.kind {
	case kindTrigger:
		r.trigger = &octopus.Trigger{}
		err = s.cfg.Store.Load(ctx, tx, resources.TriggerKind, r.id, r.trigger)
		if err == nil {
			r.table, err = timetable.Of(&r.trigger.Filter)
		}
		if fault.Is(err, fault.NotFound) || fault.Is(err, fault.Invalid) {
			s.log.Warn("a schedule that cannot be read is dropped", "due", r.id, "err", err)
			_, err = tx.Exec(ctx, `DELETE FROM due WHERE id = ?`, r.id)
			return true, err
		}
	case kindRetention, kindIntegrity:
		r.table, err = timetable.Cron(r.argument, time.UTC)
	case kindBackup, kindBackupAge:
		var ok bool
		if r.table, ok, err = s.backupTable(ctx, tx, r); err == nil && !ok {
			_, err = tx.Exec(ctx, `DELETE FROM due WHERE id = ?`, r.id)
			return true, err
		}
	case kindHealth:
		var ok bool
		if r.table, ok, err = s.healthTable(ctx, tx, r); err == nil && !ok {
			_, err = tx.Exec(ctx, `DELETE FROM due WHERE id = ?`, r.id)
			return true, err
		}
	}
	return false, err
}

// begin makes the latest due time pending, if it is not too late for it and what
// the last one queued is done.
func (s *Scheduler) begin(ctx context.Context, tx *db.Tx, r *row) (*row, error) {
	now := tx.Now()
	at := db.Time(r.at)
	if r.table != nil {
		busy, err := unfinished(ctx, tx, r.tasks)
		if err != nil {
			return nil, err
		}
		if busy {
			return nil, s.skip(ctx, tx, r, "what it queued the last time is not done yet")
		}
		latest, ok := latestDue(r.table, at, now)
		if !ok && r.kind == kindHealth {
			latest, ok = now, true // what was missed is done once
		}
		if !ok {
			return nil, s.skip(ctx, tx, r, "nobody was there when it was due, at "+at.Format(time.RFC3339))
		}
		at = latest
	}
	r.pending, r.attempts, r.progress = db.Micros(at), 1, ""
	_, err := tx.Exec(ctx, `UPDATE due SET at = ?, pending = ?, lease = ?, attempts = 1, progress = '' WHERE id = ?`, next(r.table, now), r.pending, db.Micros(now.Add(lease)), r.id)
	return r, err
}

// never is the time of rows that have none to come.
const never = 1<<62 - 1

// next is when a row is due after now.
func next(table *timetable.Timetable, now time.Time) int64 {
	if table != nil {
		if at, ok := table.Next(now); ok {
			return db.Micros(at)
		}
	}
	return never
}

// latestDue is the last of a table's times from at to now that is not too late.
func latestDue(table *timetable.Timetable, at, now time.Time) (latest time.Time, ok bool) {
	if from := now.Add(-Grace); at.Before(from) {
		if at, ok = table.Next(from.Add(-time.Nanosecond)); !ok || at.After(now) {
			return time.Time{}, false
		}
	}
	for !at.After(now) {
		latest, ok = at, true
		var more bool
		if at, more = table.Next(at); !more {
			break
		}
	}
	return latest, ok
}

// skip moves a row on without any work.
func (s *Scheduler) skip(ctx context.Context, tx *db.Tx, r *row, why string) error {
	now := tx.Now()
	if _, err := tx.Exec(ctx, `UPDATE due SET at = ? WHERE id = ?`, next(r.table, now), r.id); err != nil {
		return err
	}
	return s.told(r, octopus.EventTriggerSkipped, "was skipped", "Skipped: "+why+".")(ctx, tx)
}

// unfinished reports whether any of some tasks has not ended.
func unfinished(ctx context.Context, tx *db.Tx, ids []string) (bool, error) {
	for _, id := range ids {
		var state octopus.TaskState
		err := tx.QueryRow(ctx, `SELECT t.state FROM task t WHERE t.id = ?`, id).Scan(&state)
		switch {
		case errors.Is(err, sql.ErrNoRows): // deleted
		case err != nil:
			return false, fmt.Errorf("read task %s: %w", id, err)
		case !state.Completed():
			return true, nil
		}
	}
	return false, nil
}

// errDone says that the work of a row was done elsewhere meanwhile.
var errDone = errors.New("done elsewhere")

// mark notes a part of the work as done, in the transaction that does it.
func (r *row) mark(ctx context.Context, tx *db.Tx, progress string) error {
	n, err := tx.Exec(ctx, `UPDATE due SET progress = ? WHERE id = ? AND pending = ? AND progress = ?`, progress, r.id, r.pending, r.progress)
	if err == nil && n == 0 {
		err = errDone
	}
	return err
}

// refused notes a part of the work as done that the rules refuse, and has it told
// why. Whatever else went wrong is returned, to be tried again.
func (s *Scheduler) refused(ctx context.Context, r *row, progress string, err error, tell func(tx *db.Tx, messages []string)) error {
	switch fault.KindOf(err) {
	case fault.Invalid, fault.NotFound, fault.Unsupported, fault.Forbidden:
	default:
		return err
	}
	return s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		tell(tx, fault.Messages(err))
		return r.mark(ctx, tx, progress)
	})
}

// finish ends the work of a row, with what also writes.
func (s *Scheduler) finish(ctx context.Context, r *row, also func(context.Context, *db.Tx) error) error {
	err := s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error { return s.finishIn(ctx, tx, r, also) })
	if errors.Is(err, errDone) {
		return nil
	}
	return err
}

func (s *Scheduler) finishIn(ctx context.Context, tx *db.Tx, r *row, also func(context.Context, *db.Tx) error) error {
	tasks, err := json.Marshal(r.tasks)
	if err != nil {
		return err
	}
	statement, args := `UPDATE due SET fired = ?, pending = 0, lease = 0, progress = '', tasks = ? WHERE id = ? AND pending = ? AND progress = ?`,
		[]any{r.pending, string(tasks), r.id, r.pending, r.progress}
	if r.table == nil {
		statement, args = `DELETE FROM due WHERE id = ? AND pending = ? AND progress = ?`, []any{r.id, r.pending, r.progress}
	}
	n, err := tx.Exec(ctx, statement, args...)
	if err != nil {
		return fmt.Errorf("finish %s: %w", r.id, err)
	}
	if n == 0 {
		return errDone
	}
	return also(ctx, tx)
}

// told writes an event about a row's trigger, or about a scheduled backup that there
// will not be.
func (s *Scheduler) told(r *row, category octopus.EventCategory, did string, details ...string) func(context.Context, *db.Tx) error {
	return func(ctx context.Context, tx *db.Tx) error {
		if r.kind == kindBackup {
			tx.Event(backup.TaskEvent(octopus.EventBackupFailed, "", "The scheduled backup "+did+". "+strings.TrimSuffix(strings.Join(details, " "), ".")))
		}
		if r.trigger == nil {
			return nil
		}
		var project octopus.Project
		if err := s.cfg.Store.Load(ctx, tx, "projects", r.trigger.ProjectID, &project); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		event(tx, category, &project, r.trigger.ID, r.trigger.Name, did, details)
		return nil
	}
}
