package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/doctor"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/retention"
	"github.com/takodeploy/tako/internal/secret"
)

// doctorConfig is what is examined of a server.
func doctorConfig(cfg config.Config, d *db.DB, store *docstore.Store, blobs *blob.Dir, log *slog.Logger) doctor.Config {
	c := doctor.Config{
		DB: d, Store: store, Blobs: blobs, Places: secretPlaces(store), KeyFile: cfg.MasterKeyFile,
		Data: cfg.Data, RunDir: runDir(cfg), Backups: cfg.Backups, Log: log,
		Keys: func(ctx context.Context) (*secret.Box, error) { return secret.Open(ctx, d, keySource(cfg)) },
	}
	if blobs != nil {
		c.Sweep = retention.New(retention.Config{DB: d, Blobs: blobs, RunDir: runDir(cfg), Log: log}).Sweep
	}
	return c
}

// DoctorOptions of Doctor.
type DoctorOptions struct {
	Full, Fix bool
	Progress  func(stage string, done, total int64)
}

// Doctor examines a server's database, blobs, keys and files from its own machine,
// whether the server runs or not.
func Doctor(ctx context.Context, cfg config.Config, opt Options, what DoctorOptions) (report *doctor.Report, err error) {
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d, err := openExisting(ctx, cfg, opt, log)
	if db.IsDamage(err) {
		return nil, fault.New(fault.Invalid, "The database %s is damaged so much that it does not open; restore the last backup: tako backup restore latest", cfg.Database)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	c, err := examined(cfg, d, log)
	if err != nil {
		return nil, err
	}
	c.Full, c.Fix, c.Progress = what.Full, what.Fix, what.Progress
	return doctor.Run(ctx, c)
}

// MendSchema makes the indexes of a server's database again that are missing or invalid,
// beside the server, and tells which they were. It changes nothing else; told may be nil, and
// is told of each as it is made.
func MendSchema(ctx context.Context, cfg config.Config, opt Options, told func(string)) (mended []string, err error) {
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d, err := openExisting(ctx, cfg, opt, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := db.CheckStart(ctx, d, db.BinaryLevels()); err != nil {
		return nil, err
	}
	in, err := db.Inspect(ctx, d)
	if err != nil {
		return nil, err
	}
	for _, dev := range in.Deviations {
		if !dev.Mendable() {
			continue
		}
		if err := db.Mend(ctx, d, dev); err != nil {
			return nil, fmt.Errorf("%s is missing, and cannot be made again: %w", dev.Object, err)
		}
		mended = append(mended, dev.Object)
		if told != nil {
			told(dev.Object)
		}
	}
	// What was done is what is there, not what was asked for.
	if in, err = db.Inspect(ctx, d); err != nil {
		return nil, err
	}
	for _, dev := range in.Deviations {
		if dev.Mendable() {
			return nil, fault.New(fault.Conflict, "%s was made again, and is missing still: somebody else changes the schema.", dev.Object)
		}
	}
	return mended, nil
}

// examined is doctorConfig for the database of a server that need not run.
func examined(cfg config.Config, d *db.DB, log *slog.Logger) (c doctor.Config, err error) {
	kinds, err := resource.NewSet(append(resources.All(), releases.Kinds()...)...)
	if err != nil {
		return c, err
	}
	var blobs *blob.Dir
	// Nothing is made that is not there.
	if _, err := os.Stat(filepath.Join(cfg.Data, "blobs")); err == nil {
		if blobs, err = blob.OpenDir(filepath.Join(cfg.Data, "blobs")); err != nil {
			return c, err
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return c, err
	}
	return doctorConfig(cfg, d, docstore.New(kinds, nil), blobs, log), nil
}
