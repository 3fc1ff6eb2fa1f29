package app

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"path/filepath"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/secret"
)

// Admin does from the server's own machine what needs no sign-in there. It works
// beside a running server.
type Admin struct {
	db   *db.DB
	auth *auth.Service
}

// OpenAdmin opens the database of a server that has been started before.
func OpenAdmin(ctx context.Context, cfg config.Config, opt Options) (*Admin, error) {
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d, err := openExisting(ctx, cfg, opt, log)
	if err != nil {
		return nil, err
	}
	a, err := openAdmin(ctx, d, cfg, opt, log)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return a, nil
}

// openExisting opens the database of a server that has been started before.
func openExisting(ctx context.Context, cfg config.Config, opt Options, log *slog.Logger) (*db.DB, error) {
	d, err := db.Open(ctx, cfg.Database, db.Options{Log: log, Now: opt.Now, MustExist: true})
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fault.New(fault.NotFound, "There is no server's database at %s; start 'tako server' once, or name its directory with --data.", filepath.Clean(cfg.Data))
	}
	return d, err
}

func openAdmin(ctx context.Context, d *db.DB, cfg config.Config, opt Options, log *slog.Logger) (*Admin, error) {
	if err := db.CheckStart(ctx, d, db.BinaryLevels()); err != nil {
		return nil, err
	}
	keys, err := secret.Open(ctx, d, keySource(cfg))
	if err != nil {
		return nil, err
	}
	kinds, err := resource.NewSet(append(resources.All(), releases.Kinds()...)...)
	if err != nil {
		return nil, err
	}
	meta, err := d.Meta(ctx)
	if err != nil {
		return nil, err
	}
	service, err := auth.Open(d, docstore.New(kinds, keys), auth.Options{Log: log, Now: opt.Now, Installation: meta.InstallationID})
	return &Admin{db: d, auth: service}, err
}

// CreateAPIKey makes a key for a user and returns it.
func (a *Admin) CreateAPIKey(ctx context.Context, user, purpose string) (string, error) {
	return a.auth.IssueAPIKey(ctx, user, purpose)
}

// ResetPassword gives a user a new password and unlocks them.
func (a *Admin) ResetPassword(ctx context.Context, user, password string) error {
	return a.auth.ResetPassword(ctx, user, password)
}

// Close closes the database.
func (a *Admin) Close() error { return a.db.Close() }
