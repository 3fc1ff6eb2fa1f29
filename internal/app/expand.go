package app

import (
	"context"
	"errors"
	"log/slog"

	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/instance"
)

// Expand brings the schema of a server's database to this program's level, beside servers
// that run. It only adds, so that they go on. Step is told of each migration; may be nil.
func Expand(ctx context.Context, cfg config.Config, opt Options, step func(id string)) (db.Meta, error) {
	return changeSchema(ctx, cfg, opt, func(d *db.DB) error {
		err := db.CheckStart(ctx, d, db.BinaryLevels())
		var start *db.StartError
		if err != nil && (!errors.As(err, &start) || !start.NeedsMigrate()) {
			return err
		}
		return db.Migrate(ctx, d, db.MigrateOptions{By: opt.Version, Step: step})
	})
}

// Finalize switches on the data formats of this program's level. From then on programs of
// a level below what they need can no longer write.
func Finalize(ctx context.Context, cfg config.Config, opt Options) (db.Meta, error) {
	return changeSchema(ctx, cfg, opt, func(d *db.DB) error {
		if err := db.CheckStart(ctx, d, db.BinaryLevels()); err != nil {
			return err
		}
		return db.Finalize(ctx, d)
	})
}

// CheckSchema looks whether this program can work on a server's database as it is now, and
// changes nothing.
func CheckSchema(ctx context.Context, cfg config.Config, opt Options) (db.Meta, error) {
	return changeSchema(ctx, cfg, opt, func(d *db.DB) error { return db.CheckStart(ctx, d, db.BinaryLevels()) })
}

func changeSchema(ctx context.Context, cfg config.Config, opt Options, fn func(*db.DB) error) (m db.Meta, err error) {
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d, err := openExisting(ctx, cfg, opt, log)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	marker, err := instance.Read(cfg.Data)
	if err != nil {
		return m, err
	}
	if err := instance.Check(ctx, d, marker); err != nil {
		return m, err
	}
	if err := fn(d); err != nil {
		return m, err
	}
	return d.Meta(ctx)
}
