package app

import (
	"context"
	"errors"
	"log/slog"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/instance"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/secret"
)

// CloneRequest asks for a test instance.
type CloneRequest struct {
	// Backup is what it is made from: a name of the list, or "latest".
	Backup string
	// Data is its data directory, Database the URL of its database, "" for SQLite there.
	Data, Database string
	KeepSecrets    bool
	Kit            *secret.RecoveryKey
	Progress       func(backup.Progress)
}

// Clone makes a test instance of a backup.
func (b *Backups) Clone(ctx context.Context, req CloneRequest) (c backup.Cloned, err error) {
	keys, _, done, err := b.keys(ctx, req.Kit)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, done()) }()
	kinds, err := resource.NewSet(append(resources.All(), releases.Kinds()...)...)
	if err != nil {
		return c, err
	}
	return b.Store.Clone(ctx, req.Backup, backup.CloneOptions{
		Data: req.Data, Database: req.Database, Keys: keys, KeepSecrets: req.KeepSecrets,
		Places: allPlaces, Documents: docstore.New(kinds, nil), Log: b.opt.Log, Progress: req.Progress,
	})
}

// Instance reads what the server of a configuration is: nil for one that is no test
// instance.
func Instance(cfg config.Config) (*instance.Marker, error) { return instance.Read(cfg.Data) }

// Arm lets a test instance out of quarantine. parent is the installation id of what it
// is a copy of, as whoever asks has typed it.
func Arm(ctx context.Context, cfg config.Config, opt Options, parent string) (err error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	d, err := openExisting(ctx, cfg, opt, opt.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := db.CheckStart(ctx, d, db.BinaryLevels()); err != nil {
		return err
	}
	of, err := parentOf(ctx, d, cfg)
	if err != nil {
		return err
	}
	if parent != of {
		return fault.New(fault.Invalid, "%q is not the id of the installation that this is a copy of; GET /api of that one tells it as InstallationId. Nothing was changed.", parent)
	}
	return instance.Arm(ctx, d, cfg.Data)
}

// parentOf is the installation id of what a quarantined instance is a copy of.
func parentOf(ctx context.Context, d *db.DB, cfg config.Config) (string, error) {
	m, err := instance.Read(cfg.Data)
	if err != nil {
		return "", err
	}
	if m != nil && m.Unfinished {
		return "", fault.New(fault.Conflict, "The test instance in %s was not made to its end; make it again.", cfg.Data)
	}
	var row *instance.Row
	err = d.Read(ctx, func(tx *db.Tx) (err error) {
		row, err = instance.ReadRow(ctx, tx)
		return err
	})
	switch {
	case err != nil:
		return "", err
	case m.Quarantined():
		if err := instance.Check(ctx, d, m); err != nil {
			return "", err
		}
		return m.Parent, nil
	case row != nil:
		return row.Parent, nil // of a database that lost its data directory
	}
	return "", fault.New(fault.Conflict, "The server in %s is not in quarantine.", cfg.Data)
}
