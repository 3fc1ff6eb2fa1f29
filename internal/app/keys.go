package app

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/orchestrator"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/targets/network"
	"github.com/takodeploy/tako/internal/tasks"
)

// keySource is where a server's master key is.
func keySource(cfg config.Config) secret.Source {
	return secret.Source{Text: cfg.MasterKey, File: cfg.MasterKeyFile, CredentialsDir: os.Getenv("CREDENTIALS_DIRECTORY"), Dir: cfg.Data}
}

// runDir has the locks by which a server's processes on one host know each other.
func runDir(cfg config.Config) string { return filepath.Join(cfg.Data, "run") }

// secretPlaces are all places where sealed values are kept.
func secretPlaces(store *docstore.Store) []secret.Place {
	places := secret.Places()
	places = append(places, store.SecretPlaces()...)
	places = append(places, releases.SecretPlaces()...)
	places = append(places, network.SecretPlaces()...)
	return append(places, orchestrator.SecretPlaces()...)
}

// Keys looks after the master key and the recovery key from the server's own
// machine. It works beside running servers.
type Keys struct {
	*secret.Box
	db     *db.DB
	cfg    config.Config
	places []secret.Place
}

// OpenKeys opens the keys of a server that has been started before.
func OpenKeys(ctx context.Context, cfg config.Config, opt Options) (*Keys, error) {
	return openKeys(ctx, cfg, opt, func(d *db.DB, _ []secret.Place) (*secret.Box, error) {
		box, err := secret.Open(ctx, d, keySource(cfg))
		if err != nil {
			return nil, err
		}
		return box, box.EnsureRecovery(ctx)
	})
}

func openKeys(ctx context.Context, cfg config.Config, opt Options, open func(*db.DB, []secret.Place) (*secret.Box, error)) (*Keys, error) {
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	d, err := openExisting(ctx, cfg, opt, log)
	if err != nil {
		return nil, err
	}
	k := &Keys{db: d, cfg: cfg}
	err = db.CheckStart(ctx, d, db.BinaryLevels())
	if err == nil {
		var kinds resource.Set
		if kinds, err = resource.NewSet(append(resources.All(), releases.Kinds()...)...); err == nil {
			k.places = secretPlaces(docstore.New(kinds, nil))
			k.Box, err = open(d, k.places)
		}
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return k, nil
}

// Close closes the database.
func (k *Keys) Close() error { return k.db.Close() }

// Master reads the master key from where the server has it.
func (k *Keys) Master() (secret.MasterKey, error) { return keySource(k.cfg).Load() }

// Check opens every sealed value.
func (k *Keys) Check(ctx context.Context) (secret.Health, error) { return k.Box.Check(ctx, k.places) }

// Rotate changes all keys while servers run. next is the new master key, or zero
// to have one made.
func (k *Keys) Rotate(ctx context.Context, next secret.MasterKey, resealed func(n int)) (secret.Rotation, error) {
	return k.Box.Rotate(ctx, secret.RotateOptions{
		Next: next, Places: k.places, Resealed: resealed,
		Live: func(ctx context.Context) ([]string, error) { return tasks.LiveNodes(ctx, k.db, runDir(k.cfg)) },
	})
}

// RecoverMasterKey puts the master key back into the data directory, with a
// recovery key.
func RecoverMasterKey(ctx context.Context, cfg config.Config, opt Options, key secret.RecoveryKey) (master secret.MasterKey, err error) {
	k, err := openKeys(ctx, cfg, opt, func(d *db.DB, _ []secret.Place) (*secret.Box, error) {
		master, err = secret.Recover(ctx, d, cfg.Data, key)
		return nil, err
	})
	if err != nil {
		return master, err
	}
	return master, k.Close()
}

// LoseMasterKey begins anew with another master key, as secret.Lost does, and
// returns how many closed values stay as records.
func LoseMasterKey(ctx context.Context, cfg config.Config, opt Options, entered func(secret.Ref)) (left int, err error) {
	k, err := openKeys(ctx, cfg, opt, func(d *db.DB, places []secret.Place) (box *secret.Box, err error) {
		box, left, err = secret.Lost(ctx, d, keySource(cfg), places, entered)
		return box, err
	})
	if err != nil {
		return left, err
	}
	return left, k.Close()
}
