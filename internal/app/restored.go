package app

import (
	"context"
	"errors"
	"log/slog"

	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/tasks"
)

// ReleaseRestored lets what a restore holds go on: the tasks with the ids, or all of
// them with schedules and subscriptions. It works beside running servers and returns
// how many tasks it released.
func ReleaseRestored(ctx context.Context, cfg config.Config, opt Options, ids []string) (n int64, err error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	d, err := openExisting(ctx, cfg, opt, opt.Log)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := db.CheckStart(ctx, d, db.BinaryLevels()); err != nil {
		return 0, err
	}
	err = d.Write(ctx, func(tx *db.Tx) error {
		n, err = tasks.ReleaseHeld(ctx, tx, ids)
		return err
	})
	return n, err
}
