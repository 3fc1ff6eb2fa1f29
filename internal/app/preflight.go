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
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/upgrade/preflight"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// Preflight looks whether anything speaks against an upgrade of a server from this version,
// beside the server and without a change. Of in, the caller gives the target, the feed, the
// program, the supervisor and its directory; the rest follows from the settings.
func Preflight(ctx context.Context, cfg config.Config, opt Options, in preflight.Input) (report *preflight.Report, err error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	d, err := openExisting(ctx, cfg, opt, opt.Log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	if err := db.CheckStart(ctx, d, db.BinaryLevels()); err != nil {
		return nil, err
	}
	kinds, err := resource.NewSet(append(resources.All(), releases.Kinds()...)...)
	if err != nil {
		return nil, err
	}
	if in.Proven, err = newestProven(cfg.Backups); err != nil {
		return nil, err
	}
	in.From, in.Platform = opt.Version, stage.Platform()
	in.DB, in.Store, in.Log = d, docstore.New(kinds, nil), opt.Log
	in.Data, in.Backups = cfg.Data, cfg.Backups
	in.Keys = func(ctx context.Context) (*secret.Box, error) { return secret.Open(ctx, d, keySource(cfg)) }
	return preflight.Run(ctx, in)
}

// newestProven is the instant of the newest backup in a directory that was proven, zero if
// there is none.
func newestProven(dir string) (time.Time, error) {
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return time.Time{}, nil // it is made with the first backup
	}
	s, err := backup.Open(dir)
	if err != nil {
		return time.Time{}, err
	}
	all, err := s.List()
	if err != nil {
		return time.Time{}, err
	}
	for _, b := range all {
		if b.Verified != nil && b.Problem == "" {
			return b.Created, nil
		}
	}
	return time.Time{}, nil
}
