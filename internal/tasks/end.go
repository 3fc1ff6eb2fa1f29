package tasks

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

// endAsIs ends a task without its owner: the owner's epoch is gone, open scripts
// are handed to the janitor, and the locks of their machines stay until they end.
// Where they may still run is told in the log and behind message.
func (s *Service) endAsIs(ctx context.Context, tx *db.Tx, t *Task, state octopus.TaskState, message string) error {
	now := db.Micros(tx.Now())
	n, err := tx.Exec(ctx, `UPDATE task SET state = ?, epoch = epoch + 1, owner = '', runnable = 0, waiting = 0, completed_time = ?, updated_time = ?
		WHERE id = ? AND epoch = ? AND state IN ('Executing', 'Cancelling')`, string(state), now, now, t.ID, t.epoch)
	if err != nil || n == 0 {
		return err
	}
	return s.endWith(ctx, tx, t, state, message)
}

// endWith writes why a task has ended, and where scripts of it may still run.
func (s *Service) endWith(ctx context.Context, tx *db.Tx, t *Task, state octopus.TaskState, message string) error {
	left, err := leftBehind(ctx, tx, t.ID)
	if err != nil {
		return err
	}
	if left != "" {
		message = strings.TrimSpace(message + " Scripts that it started may still run on " + left + ".")
		line := Line{
			Activity: t.ID, Category: octopus.LogWarning, At: tx.Now(),
			Text: "Scripts may still run on " + left + ". They are ended as soon as their agents answer; until then their targets take no other script.",
		}
		if err := s.append(ctx, tx, t, line); err != nil {
			return err
		}
	}
	if err := tx.Queue(ctx, `UPDATE task SET error = ?, has_warnings = CASE WHEN ? > 0 THEN 1 ELSE has_warnings END WHERE id = ?`, message, flag(left != ""), t.ID); err != nil {
		return fmt.Errorf("end %s: %w", t.ID, err)
	}
	return s.ended(ctx, tx, t, state)
}

// maxPlaces is how many places are named where scripts may still run.
const maxPlaces = 20

// leftBehind names where scripts of a task may still run, "" for nowhere.
func leftBehind(ctx context.Context, tx *db.Tx, task string) (string, error) {
	rows, err := tx.Query(ctx, `SELECT DISTINCT CASE WHEN k.place = '' THEN k.agent ELSE k.place END FROM ticket k
		WHERE k.task = ? AND k.state IN ('open', 'cancel') ORDER BY 1`, task)
	if err != nil {
		return "", fmt.Errorf("read the scripts of %s: %w", task, err)
	}
	defer rows.Close()
	var places []string
	more := 0
	for rows.Next() {
		var place string
		if err := rows.Scan(&place); err != nil {
			return "", err
		}
		if len(places) == maxPlaces {
			more++
			continue
		}
		places = append(places, place)
	}
	text := strings.Join(places, ", ")
	if more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text, rows.Err()
}

// append adds lines to the log of a task that this transaction has taken from its owner.
func (s *Service) append(ctx context.Context, tx *db.Tx, t *Task, lines ...Line) error {
	w := writer{l: &Lease{Task: t, s: s, since: time.Now()}, tx: tx, pending: lines}
	err := tx.QueryRow(ctx, `SELECT t.log_lines, t.log_bytes FROM task t WHERE t.id = ?`, t.ID).Scan(&w.line, &w.bytes)
	if err != nil {
		return fmt.Errorf("read log of %s: %w", t.ID, err)
	}
	if err := w.flushLog(ctx); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE task SET log_lines = ?, log_bytes = ? WHERE id = ?`, w.line, w.bytes, t.ID); err != nil {
		return fmt.Errorf("append log of %s: %w", t.ID, err)
	}
	tx.AfterCommit(func() { s.tails.moved(t.ID) })
	return nil
}

// ended releases what a task holds beyond its own row, and tells its runner. What
// agents may still run of it is left to the janitor to cancel, and the locks of
// those machines stay until then.
func (s *Service) ended(ctx context.Context, tx *db.Tx, t *Task, state octopus.TaskState) error {
	for _, statement := range []string{
		`DELETE FROM slot WHERE task = ?`,
		`DELETE FROM tag_holder WHERE task = ?`,
		`DELETE FROM answer WHERE task = ?`,
		`DELETE FROM unit_cursor WHERE task = ?`,
		`DELETE FROM task_hold WHERE task = ?`,
	} {
		if err := tx.Queue(ctx, statement, t.ID); err != nil {
			return fmt.Errorf("end %s: %w", t.ID, err)
		}
	}
	// A start that is not answered may be arriving: agents of other makes are not told then.
	if _, err := tx.Exec(ctx, `UPDATE ticket SET state = 'cancel', not_before = CASE WHEN contract IN ('v1', 'v2') AND answered = 0 THEN CAST(? AS BIGINT) ELSE 0 END
			WHERE task = ? AND state = 'open'`, db.Micros(tx.Now().Add(StartSettles)), t.ID); err != nil {
		return fmt.Errorf("end %s: %w", t.ID, err)
	}
	// A lock that outlives its unit's result has a ticket whose script may still run.
	n, err := tx.Exec(ctx, `DELETE FROM machine_lock WHERE task = ? AND NOT EXISTS (SELECT 1 FROM ticket k WHERE k.task = machine_lock.task AND k.unit = machine_lock.unit)`, t.ID)
	if err != nil {
		return fmt.Errorf("release the machine locks of %s: %w", t.ID, err)
	}
	if n > 0 {
		tx.Changed(lockChanges)
	}
	if n, err = tx.Exec(ctx, `UPDATE interruption SET pending = 0 WHERE task = ? AND pending = 1`, t.ID); err != nil {
		return fmt.Errorf("end %s: %w", t.ID, err)
	}
	if n > 0 {
		tx.Changed("interruptions")
	}
	tx.Changed("tasks")
	tx.AfterCommit(s.wake)
	if r := s.cfg.Runners[t.Name]; r != nil {
		return r.Ended(ctx, tx, t, state)
	}
	return nil
}
