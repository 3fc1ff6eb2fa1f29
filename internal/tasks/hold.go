package tasks

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// Hold is why a task waits for a person: the database was restored from a backup of
// Instant, and what has become of the task since is not known.
type Hold struct {
	Backup  string
	Instant time.Time
}

// Line is what the log of a held task says.
func (h Hold) Line() string {
	return fmt.Sprintf("Restored from backup %s of %s: what this task did after that is not known. It goes on when somebody has released it or answered its question.",
		h.Backup, h.Instant.UTC().Format(time.RFC3339))
}

// Parker is a Runner that brings a task which was under way into a state in which a
// person can decide about it, without doing anything of it. Run is not called
// before the task has been released. Of other runners a task only waits.
type Parker interface {
	// Park ends with Lease.Wait or Lease.Finish, like Run.
	Park(ctx context.Context, l *Lease, h Hold) error
}

// HoldSQL are the statements that hold everything which a restored database would go
// on with, for the transaction that begins its new life. schema is the quoted name of
// where the tables are; backup must be the name of one.
func HoldSQL(schema, backup string, instant, now time.Time) []string {
	var all []string
	for _, statement := range []string{
		`DELETE FROM $.restored`,
		`INSERT INTO $.restored (id, backup, instant, at) VALUES (1, '%[1]s', %[2]d, %[3]d)`,
		`INSERT INTO $.task_hold (task, backup, instant) SELECT t.id, '%[1]s', %[2]d FROM $.task t WHERE t.state IN ('Queued', 'Executing')
			ON CONFLICT (task) DO UPDATE SET backup = excluded.backup, instant = excluded.instant`,
		`UPDATE $.task SET runnable = 0, waiting = 0, owner = '', resumes = 0 WHERE state IN ('Queued', 'Executing')`,
		`DELETE FROM $.slot`,
	} {
		statement = strings.ReplaceAll(statement, "$", schema)
		if strings.Contains(statement, "%") {
			statement = fmt.Sprintf(statement, backup, db.Micros(instant), db.Micros(now))
		}
		all = append(all, statement)
	}
	return all
}

// Restored says that the database was restored, and that nothing has happened by
// itself since.
type Restored struct {
	Hold
	// At is when it was restored; zero when nothing waits because of it any more.
	At time.Time
	// Queued and UnderWay count the tasks that are held.
	Queued, UnderWay int64
}

// Quiet reports whether nothing may happen by itself, since the database was restored
// and nobody has released it.
func Quiet(ctx context.Context, tx *db.Tx) (bool, error) {
	var n int64
	err := tx.QueryRow(ctx, `SELECT count(*) FROM restored`).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("look whether the database was restored: %w", err)
	}
	return n > 0, nil
}

// ReadRestored tells what waits because of a restore.
func ReadRestored(ctx context.Context, tx *db.Tx) (Restored, error) {
	var r Restored
	var instant, at int64
	err := tx.QueryRow(ctx, `SELECT r.backup, r.instant, r.at FROM restored r`).Scan(&r.Backup, &instant, &at)
	if err == nil {
		r.Instant, r.At = db.Time(instant), db.Time(at)
	} else if !errors.Is(err, sql.ErrNoRows) {
		return r, fmt.Errorf("read of what the database was restored: %w", err)
	}
	err = tx.QueryRow(ctx, `SELECT count(CASE WHEN t.state = 'Queued' THEN 1 END), count(CASE WHEN t.state = 'Executing' THEN 1 END) FROM task_hold h JOIN task t ON t.id = h.task`).
		Scan(&r.Queued, &r.UnderWay)
	if err != nil {
		return r, fmt.Errorf("count the held tasks: %w", err)
	}
	return r, nil
}

// Held says which of the tasks wait because of a restore.
func Held(ctx context.Context, tx *db.Tx, ids []string) (map[string]Hold, error) {
	held := map[string]Hold{}
	if len(ids) == 0 {
		return held, nil
	}
	rows, err := tx.Query(ctx, `SELECT h.task, h.backup, h.instant FROM task_hold h WHERE h.task IN `+placeholders(len(ids)), anys(ids)...)
	if err != nil {
		return nil, fmt.Errorf("look up held tasks: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var h Hold
		var instant int64
		if err := rows.Scan(&id, &h.Backup, &instant); err != nil {
			return nil, err
		}
		h.Instant = db.Time(instant)
		held[id] = h
	}
	return held, rows.Err()
}

// unhold lets a task go on, and reports whether it was held.
func unhold(ctx context.Context, tx *db.Tx, id string) (bool, error) {
	n, err := tx.Exec(ctx, `DELETE FROM task_hold WHERE task = ?`, id)
	if err != nil {
		return false, fmt.Errorf("release %s: %w", id, err)
	}
	return n > 0, nil
}

// Release lets a task that is held since a restore go on as if nothing had been: one
// that was queued takes its place in the queue again, and one that was under way goes
// on with what was not begun, as far as no question about it is open.
func Release(ctx context.Context, tx *db.Tx, id string) error {
	t, err := locked(ctx, tx, id)
	if err != nil {
		return err
	}
	held, err := unhold(ctx, tx, id)
	if err != nil {
		return err
	}
	if !held {
		return fault.New(fault.Conflict, "The task '%s' is not held; GET /api/system/restored counts those that are.", id)
	}
	if t.State == octopus.TaskQueued {
		_, err = tx.Exec(ctx, `UPDATE task SET runnable = 1 WHERE id = ?`, id)
	} else {
		// While somebody parks it, it has an owner, who finds that it is released.
		_, err = tx.Exec(ctx, `UPDATE task SET runnable = CASE WHEN waiting = 1 THEN 1 ELSE runnable END, waiting = 0 WHERE id = ? AND state = 'Executing'`, id)
	}
	if err != nil {
		return fmt.Errorf("release %s: %w", id, err)
	}
	tx.Changed("tasks")
	return nil
}

// ReleaseAll releases every held task, and lets schedules and subscriptions go on. It
// returns how many tasks it released.
func ReleaseAll(ctx context.Context, tx *db.Tx) (n int64, err error) {
	for _, statement := range []string{
		`UPDATE task SET runnable = 1 WHERE state = 'Queued' AND id IN (SELECT h.task FROM task_hold h)`,
		`UPDATE task SET runnable = CASE WHEN waiting = 1 THEN 1 ELSE runnable END, waiting = 0 WHERE state = 'Executing' AND id IN (SELECT h.task FROM task_hold h)`,
		`DELETE FROM restored`,
	} {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return 0, fmt.Errorf("release all tasks: %w", err)
		}
	}
	if n, err = tx.Exec(ctx, `DELETE FROM task_hold`); err != nil {
		return 0, fmt.Errorf("release all tasks: %w", err)
	}
	tx.Changed("tasks")
	return n, nil
}

// ReleaseHeld releases the tasks with the ids, or with none all of them with schedules
// and subscriptions, and tells the audit trail. It returns how many tasks that were.
func ReleaseHeld(ctx context.Context, tx *db.Tx, ids []string) (n int64, err error) {
	if len(ids) == 0 {
		n, err = ReleaseAll(ctx, tx)
	}
	for _, id := range ids {
		n++
		err = errors.Join(err, Release(ctx, tx, id))
	}
	if err != nil {
		return 0, err
	}
	tx.Event(db.Event{
		Category: string(octopus.EventModified), Message: fmt.Sprintf("%d tasks that waited since a restore were released", n), Related: ids, DocumentType: "ServerTask",
	})
	return n, nil
}

// forward has a task's runner bring it forward or, when it is held, to where a person
// can decide. One that is to end ends, held or not.
func (l *Lease) forward(runner Runner) error {
	if l.State == octopus.TaskCancelling {
		return runner.Run(l.ctx, l)
	}
	var held map[string]Hold
	err := l.s.cfg.DB.Read(l.ctx, func(tx *db.Tx) (err error) {
		held, err = Held(l.ctx, tx, []string{l.ID})
		return err
	})
	if err != nil {
		return err
	}
	h, ok := held[l.ID]
	if !ok {
		return runner.Run(l.ctx, l)
	}
	if p, ok := runner.(Parker); ok {
		return p.Park(l.ctx, l, h)
	}
	return l.ParkAsIs(l.ctx, h)
}

// ParkAsIs has the task wait for its release, and says so in its log.
func (l *Lease) ParkAsIs(ctx context.Context, h Hold) error {
	if l.unread() {
		if _, err := l.Facts(ctx); err != nil {
			return err
		}
	}
	line := Line{Activity: l.ID, Category: octopus.LogWarning, At: time.Now().UTC(), Text: h.Line()}
	return l.Wait(ctx, false, Batch{Lines: []Line{line}, Warnings: true})
}
