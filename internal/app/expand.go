package app

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"time"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/installed"
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
// a level below what they need can no longer write. The backups of upgrades, which were
// kept until now, are kept for another two weeks.
func Finalize(ctx context.Context, cfg config.Config, opt Options) (db.Meta, error) {
	m, err := changeSchema(ctx, cfg, opt, func(d *db.DB) error {
		if err := db.CheckStart(ctx, d, db.BinaryLevels()); err != nil {
			return err
		}
		return db.Finalize(ctx, d)
	})
	if err != nil {
		return m, err
	}
	if err := endUpgrades(cfg.Backups); err != nil && opt.Log != nil {
		// What is kept for too long is no reason to fail.
		opt.Log.Warn("the backups of upgrades stay until somebody unpins them", "err", err)
	}
	return m, nil
}

func endUpgrades(dir string) error {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil // no backup was ever taken here
	}
	s, err := backup.Open(dir)
	if err != nil {
		return err
	}
	return s.EndUpgrades(time.Now().Add(backup.AfterUpgrade))
}

// CheckSchema looks whether this program can work on a server's database as it is now, and
// changes nothing.
func CheckSchema(ctx context.Context, cfg config.Config, opt Options) (db.Meta, error) {
	return changeSchema(ctx, cfg, opt, func(d *db.DB) error { return db.CheckStart(ctx, d, db.BinaryLevels()) })
}

// InstalledVersions reads which versions have served on a server's database, at most limit
// of them with the newest first, and how many there are.
func InstalledVersions(ctx context.Context, cfg config.Config, opt Options, limit int64) (all []installed.Version, total int64, err error) {
	all = []installed.Version{}
	_, err = changeSchema(ctx, cfg, opt, func(d *db.DB) error {
		if err := db.CheckStart(ctx, d, db.BinaryLevels()); err != nil {
			return err
		}
		return d.Read(ctx, func(tx *db.Tx) (err error) {
			all, total, err = installed.List(ctx, tx, 0, limit)
			return err
		})
	})
	return all, total, err
}

// DeploymentsSince counts the deployments of a server's database that are newer than an
// instant: those that a restore of a backup of then would lose. The database may be one that
// this version cannot work on.
func DeploymentsSince(ctx context.Context, cfg config.Config, opt Options, at time.Time) (n int64, err error) {
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d, err := openExisting(ctx, cfg, opt, log)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return backup.DeploymentsSince(ctx, d, at)
}

// changeSchema opens a database, has fn do something, and reads what became of the schema.
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
