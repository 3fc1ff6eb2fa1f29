package app

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/instance"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/internal/verify"
)

// FactsRequest asks for the facts of a copy.
type FactsRequest struct {
	// Seed chooses what is looked at, Key hashes it: the same for both programs.
	Seed   uint64
	Key    []byte
	Limits verify.Limits
	// ReadOnly leaves out what needs the API, so that nothing is written.
	ReadOnly bool
	// Prove has the backup proven at backup.LevelBoot by the same copy, and that noted.
	Prove bool
	// Progress is told the parts as they begin; may be nil.
	Progress func(part string)
}

// Facts computes the facts of a test instance in quarantine, whose schema it brings to
// this program's level first. Of any other server it computes them read-only alone, and
// changes nothing.
func Facts(ctx context.Context, cfg config.Config, opt Options, req FactsRequest) (*verify.Document, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	marker, err := instance.Read(cfg.Data)
	if err != nil {
		return nil, err
	}
	if req.ReadOnly {
		d, err := openExisting(ctx, cfg, opt, opt.Log)
		if err != nil {
			return nil, err
		}
		doc, err := readOnlyFacts(ctx, cfg, d, opt, req)
		return doc, errors.Join(err, d.Close())
	}
	if !marker.Quarantined() {
		return nil, fault.New(fault.Conflict, "The server in %s is no test instance in quarantine: users, packages and releases would be made on it to try things out. Make one (tako instance clone), take a backup (--backup), or look at this one with --read-only.", cfg.Data)
	}
	if marker.Unfinished {
		return nil, fault.New(fault.Conflict, "The test instance in %s was not made to its end; make it again with tako instance clone --into %s.", cfg.Data, cfg.Data)
	}
	return factsOf(ctx, cfg, opt, marker, nil, req)
}

// Facts restores a backup into a scratch place, shuts this process in, brings the copy's
// schema to this program's level, computes the facts of the copy and throws it away.
// Nothing is noted of the backup unless req.Prove: then it fails as Verify does, and what
// keeps the facts from being computed after the proof is no *backup.BootError.
func (b *Backups) Facts(ctx context.Context, id string, kit *secret.RecoveryKey, req FactsRequest, progress func(backup.Progress)) (doc *verify.Document, err error) {
	keys, d, done, err := b.keys(ctx, kit)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	opt := backup.VerifyOptions{
		Keys: keys, Temp: tempDir(b.cfg), Server: d, Places: allPlaces, Version: b.opt.Version, Log: b.opt.Log, Progress: progress,
	}
	work := func(ctx context.Context, c backup.Copy, works func(ctx context.Context, url, key string) error) (err error) {
		cfg := config.Defaults()
		cfg.Data, cfg.Database, cfg.Backups = c.Data, c.Database, filepath.Join(c.Data, "backups")
		marker := &instance.Marker{
			Mode: instance.Quarantine, ID: c.Manifest.Installation, Parent: c.Manifest.Installation,
			Backup: c.Manifest.ID, Instant: c.Manifest.Created, Created: time.Now().UTC(),
		}
		if err := marker.Write(c.Data); err != nil {
			return err
		}
		doc, err = factsOf(ctx, cfg, b.opt, marker, works, req)
		return err
	}
	if !req.Prove {
		err = b.Within(ctx, id, opt, func(ctx context.Context, c backup.Copy) error {
			return work(ctx, c, func(context.Context, string, string) error { return nil })
		})
		return doc, err
	}
	var failed error
	opt.Level, opt.Last = backup.LevelBoot, true
	opt.Boot = func(ctx context.Context, c backup.Copy) error {
		works := false
		err := work(ctx, c, func(ctx context.Context, url, key string) (err error) {
			err = smoke(ctx, url, key)
			works = err == nil
			return err
		})
		if works && err != nil && ctx.Err() == nil {
			failed, err = err, nil
		}
		return err
	}
	_, err = b.Store.Verify(ctx, id, opt)
	return doc, errors.Join(err, failed)
}

// factsOf computes the facts of a copy. A copy that is thrown away has works called with
// where its API answers and the key of an administrator, before anything else asks it, and
// its database is not marked; works is nil for any other.
func factsOf(ctx context.Context, cfg config.Config, opt Options, marker *instance.Marker, works func(ctx context.Context, url, key string) error, req FactsRequest) (doc *verify.Document, err error) {
	thrown := works != nil
	opt.Proof = thrown
	err = migrateCopy(ctx, cfg.Database, opt, func(d *db.DB) error {
		if thrown {
			return nil
		}
		return instance.Check(ctx, d, marker)
	})
	if err != nil {
		return nil, err
	}
	err = onCopy(ctx, cfg, opt, func(a *App, key string) error {
		c, err := factsConfig(cfg, a.db, a.keys, a.auth, opt, req)
		if err != nil {
			return err
		}
		c.API = &verify.API{URL: a.URL(), Key: key}
		if !thrown {
			c.Until = marker.Created
		} else if err := works(ctx, a.URL(), key); err != nil {
			return err
		}
		doc, err = verify.Run(ctx, c)
		return err
	})
	return doc, err
}

// readOnlyFacts computes what can be told without a write.
func readOnlyFacts(ctx context.Context, cfg config.Config, d *db.DB, opt Options, req FactsRequest) (*verify.Document, error) {
	if err := db.CheckStart(ctx, d, db.BinaryLevels()); err != nil {
		return nil, err
	}
	keys, err := secret.Open(ctx, d, keySource(cfg))
	if err != nil {
		return nil, err
	}
	c, err := factsConfig(cfg, d, keys, nil, opt, req)
	if err != nil {
		return nil, err
	}
	return verify.Run(ctx, c)
}

// factsConfig connects what facts are computed by. people may be nil.
func factsConfig(cfg config.Config, d *db.DB, keys *secret.Box, people *auth.Service, opt Options, req FactsRequest) (c verify.Config, err error) {
	kinds, err := resource.NewSet(append(resources.All(), releases.Kinds()...)...)
	if err != nil {
		return c, err
	}
	store := docstore.New(kinds, keys)
	if people == nil {
		if people, err = auth.Open(d, store, auth.Options{Log: opt.Log, Now: opt.Now}); err != nil {
			return c, err
		}
	}
	at := filepath.Join(cfg.Data, "blobs")
	if _, err := os.Stat(at); err != nil { // nothing is made that is not there
		return c, err
	}
	blobs, err := blob.OpenDir(at)
	if err != nil {
		return c, err
	}
	logs, err := tasks.NewLogReader(d, blobs)
	if err != nil {
		return c, err
	}
	return verify.Config{
		DB: d, Store: store, Auth: people, Logs: logs, Blobs: blobs,
		Releases: releases.New(releases.Config{DB: d, Store: store, Sealer: keys, Log: opt.Log, ServerURI: cfg.ServerURI}),
		Version:  opt.Version, Level: db.BinaryLevels().Level, Seed: req.Seed, Key: req.Key, Limits: req.Limits, Progress: req.Progress,
	}, nil
}
