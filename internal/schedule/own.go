package schedule

import (
	"context"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/retention"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// retain queues the task of retention.
func (s *Scheduler) retain(ctx context.Context, r *row) error {
	return s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		t, err := s.cfg.Queue.Create(ctx, tx, tasks.New{Name: octopus.TaskRetention, Description: "Apply retention policies", Tag: retention.Tag})
		if err != nil {
			return err
		}
		r.tasks = []string{t.ID}
		return s.finishIn(ctx, tx, r, func(context.Context, *db.Tx) error { return nil })
	})
}
