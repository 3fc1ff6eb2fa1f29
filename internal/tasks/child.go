package tasks

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
)

// AddChild notes that an attempt of a unit has started another task, in the
// transaction that makes it. A second one of the attempt is refused by the database.
func (l *Lease) AddChild(ctx context.Context, tx *db.Tx, unit, child string) error {
	if _, err := tx.Exec(ctx, `INSERT INTO task_child (parent, unit, child) VALUES (?, ?, ?)`, l.ID, unit, child); err != nil {
		return fmt.Errorf("note that %s waits for %s: %w", l.ID, child, err)
	}
	return nil
}

// Child is the task that an attempt of a unit has started, "" for none.
func (l *Lease) Child(ctx context.Context, tx *db.Tx, unit string) (child string, err error) {
	err = tx.QueryRow(ctx, `SELECT c.child FROM task_child c WHERE c.parent = ? AND c.unit = ?`, l.ID, unit).Scan(&child)
	if isNoRows(err) {
		return "", nil
	}
	return child, err
}

// WakeParent tells the task that waits for child of its end, in the transaction that
// ends it: the parent runs again, at its old place in the queue, and finds fact among
// its answers. fact is asked for what to say to the unit. A task that has no parent, or
// one that has ended, is passed over.
func WakeParent(ctx context.Context, tx *db.Tx, child string, fact func(unit string) (any, error)) error {
	var parent, unit string
	err := tx.QueryRow(ctx, `SELECT c.parent, c.unit FROM task_child c JOIN task t ON t.id = c.parent WHERE c.child = ? AND t.state = 'Executing'`, child).Scan(&parent, &unit)
	if isNoRows(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up who waits for %s: %w", child, err)
	}
	said, err := fact(unit)
	if err != nil {
		return err
	}
	body, err := json.Marshal(said)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO answer (interruption, task, created, fact) VALUES (?, ?, ?, ?) ON CONFLICT (interruption) DO NOTHING`, child, parent, db.Micros(tx.Now()), string(body))
	if err == nil {
		_, err = tx.Exec(ctx, `UPDATE task SET runnable = CASE WHEN waiting = 1 THEN 1 ELSE runnable END, waiting = 0
			WHERE id = ? AND state = 'Executing' AND NOT EXISTS (SELECT 1 FROM task_hold h WHERE h.task = task.id)`, parent)
	}
	if err != nil {
		return fmt.Errorf("wake %s: %w", parent, err)
	}
	tx.Changed("tasks")
	return nil
}

// openChildren are the tasks that a task waits for.
func openChildren(ctx context.Context, tx *db.Tx, id string) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT c.child FROM task_child c JOIN task t ON t.id = c.child WHERE c.parent = ? AND t.state IN `+unended+` ORDER BY t.seq`, id)
	if err != nil {
		return nil, fmt.Errorf("look up what %s waits for: %w", id, err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var child string
		if err := rows.Scan(&child); err != nil {
			return nil, err
		}
		all = append(all, child)
	}
	return all, rows.Err()
}
