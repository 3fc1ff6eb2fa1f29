package schedule

import (
	"context"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/tasks"
)

// queue queues a task of the server's own.
func (s *Scheduler) queue(ctx context.Context, r *row, n tasks.New) error {
	return s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		t, err := s.cfg.Queue.Create(ctx, tx, n)
		if err != nil {
			return err
		}
		r.tasks = []string{t.ID}
		return s.finishIn(ctx, tx, r, func(context.Context, *db.Tx) error { return nil })
	})
}
