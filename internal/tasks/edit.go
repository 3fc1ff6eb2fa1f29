package tasks

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// Restate gives a task that has ended another end, since somebody knows better than
// the engine; reason is why. What its runner keeps of the end is for the caller to
// change in the same transaction.
func Restate(ctx context.Context, tx *db.Tx, id string, state octopus.TaskState, reason string) (*Task, error) {
	switch state {
	case octopus.TaskSuccess, octopus.TaskFailed, octopus.TaskCanceled:
	case octopus.TaskQueued, octopus.TaskExecuting, octopus.TaskCancelling, octopus.TaskTimedOut:
		fallthrough
	default:
		return nil, fault.InvalidField("State", "State is '%.40s'; use Success, Failed or Canceled.", state)
	}
	t, err := locked(ctx, tx, id)
	switch {
	case err != nil:
		return nil, err
	case !t.State.Completed():
		return nil, fault.New(fault.Conflict, "The task '%s' has not ended (%s); its state can be changed once it has.", id, t.State)
	case t.State == state:
		return nil, fault.New(fault.Conflict, "The task '%s' is %s already.", id, state)
	}
	message := reason
	if state == octopus.TaskSuccess {
		message = ""
	}
	if _, err := tx.Exec(ctx, `UPDATE task SET state = ?, error = ?, updated_time = ? WHERE id = ?`, string(state), message, db.Micros(tx.Now()), id); err != nil {
		return nil, fmt.Errorf("change the state of %s: %w", id, err)
	}
	tx.Changed("tasks")
	return Get(ctx, tx, id)
}

// Prioritize has a queued task run before all that have no priority.
func (s *Service) Prioritize(ctx context.Context, tx *db.Tx, id string) (*Task, error) {
	t, err := locked(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	if t.State != octopus.TaskQueued {
		return nil, fault.New(fault.Conflict, "The task '%s' is not in the queue (%s); only a queued task can be moved up.", id, t.State)
	}
	if _, err := tx.Exec(ctx, `UPDATE task SET priority = 1, updated_time = ? WHERE id = ?`, db.Micros(tx.Now()), id); err != nil {
		return nil, fmt.Errorf("move %s up: %w", id, err)
	}
	tx.Changed("tasks")
	tx.AfterCommit(s.wake)
	return Get(ctx, tx, id)
}

// locked reads a task and keeps others from changing it.
func locked(ctx context.Context, tx *db.Tx, id string) (*Task, error) {
	t, err := scanTask(tx.QueryRow(ctx, `SELECT `+taskColumns+` FROM task t WHERE t.id = ?`+tx.ForUpdate(), id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.Missing("task", id)
	}
	if err != nil {
		return nil, fmt.Errorf("read task %s: %w", id, err)
	}
	return t, nil
}
