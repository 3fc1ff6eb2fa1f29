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

// Delete removes a task that has ended, with its journal, log, interruptions and
// artifacts; one that is not there is passed over. What agents still have to be
// told about its scripts stays until they have been told, and blobs until nobody
// names them any more.
func Delete(ctx context.Context, tx *db.Tx, id string) error {
	var state octopus.TaskState
	err := tx.QueryRow(ctx, `SELECT t.state FROM task t WHERE t.id = ?`+tx.ForUpdate(), id).Scan(&state)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("read task %s: %w", id, err)
	case !state.Completed():
		return fault.New(fault.Conflict, "The task '%s' has not ended (%s); cancel it, or wait for its end, before it is deleted.", id, state)
	}
	for _, statement := range []string{
		`DELETE FROM journal WHERE task = ?`,
		`DELETE FROM task_log WHERE task = ?`,
		`DELETE FROM task_log_segment WHERE task = ?`,
		`DELETE FROM unit_cursor WHERE task = ?`,
		`DELETE FROM interruption WHERE task = ?`,
		`DELETE FROM answer WHERE task = ?`,
		`DELETE FROM task_child WHERE parent = ?`,
		`DELETE FROM artifact WHERE task = ?`,
		`DELETE FROM task_machine WHERE task = ?`,
		`DELETE FROM task WHERE id = ?`,
	} {
		if _, err := tx.Exec(ctx, statement, id); err != nil {
			return fmt.Errorf("delete task %s: %w", id, err)
		}
	}
	tx.Changed("tasks")
	return nil
}
