package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/doctor"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/tasks"
)

// CopyOptions of CopyDatabase.
type CopyOptions struct {
	// From and To are the URLs of the databases.
	From, To string
	// Data is the data directory to which packages, artifacts, logs and a managed master
	// key are copied too; "" when the servers go on with the one that they have.
	Data string
	// Progress is told the stages, and how far each is; may be nil.
	Progress func(stage string, done, total int64)
}

// CopyDatabase copies the database of stopped servers to another, compares both, and
// examines the copy.
func CopyDatabase(ctx context.Context, cfg config.Config, opt Options, what CopyOptions) (done db.Transferred, err error) {
	log := opt.Log
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	cfg.Database = what.From
	from, err := openExisting(ctx, cfg, opt, log)
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, from.Close()) }()
	if err := stopped(ctx, cfg, from); err != nil {
		return done, err
	}
	target := cfg
	if target.Database = what.To; what.Data != "" {
		target.Data = what.Data
		if err := os.MkdirAll(target.Data, 0o700); err != nil {
			return done, err
		}
	}
	to, err := db.Open(ctx, what.To, db.Options{Log: log, Now: opt.Now})
	if err != nil {
		return done, err
	}
	defer func() { err = errors.Join(err, to.Close()) }()
	if from.String() == to.String() {
		return done, fault.New(fault.Invalid, "Source and target are the same database, %s.", to)
	}
	before, err := examineQuietly(ctx, cfg, from, log, what.Progress)
	if err != nil {
		return done, err
	}
	return db.Transfer(ctx, from, to, db.TransferOptions{By: opt.Version, Progress: what.Progress, Accept: func(ctx context.Context) error {
		if what.Data != "" {
			if err := copyData(ctx, cfg, target, what.Progress); err != nil {
				return err
			}
		}
		after, err := examineQuietly(ctx, target, to, log, what.Progress)
		if err != nil {
			return err
		}
		return worse(before, after)
	}})
}

// stopped refuses a database on which a server runs: what it writes would be lost.
func stopped(ctx context.Context, cfg config.Config, d *db.DB) error {
	if _, err := d.Meta(ctx); err != nil {
		return err
	}
	live, err := tasks.LiveNodes(ctx, d, runDir(cfg))
	if err != nil {
		return err
	}
	if len(live) > 0 {
		return fault.New(fault.Conflict, "%d servers run on %s, or did within the last minute; stop them first: what they write during the copy would be lost.", len(live), d)
	}
	return nil
}

func examineQuietly(ctx context.Context, cfg config.Config, d *db.DB, log *slog.Logger, progress func(string, int64, int64)) (*doctor.Report, error) {
	c, err := examined(cfg, d, log)
	if err != nil {
		return nil, err
	}
	if progress != nil {
		progress("examining "+d.String(), 0, 0)
	}
	return doctor.Run(ctx, c)
}

// worse refuses a copy with errors that the source has not.
func worse(before, after *doctor.Report) error {
	errorsOf := func(r *doctor.Report) map[string]int {
		n := map[string]int{}
		for _, f := range r.Findings {
			if f.Severity != doctor.Error {
				continue
			}
			if n[f.Code] == 0 {
				n[f.Code] = r.More[f.Code]
			}
			n[f.Code]++
		}
		return n
	}
	was, is := errorsOf(before), errorsOf(after)
	var news []string
	for _, f := range after.Findings {
		if f.Severity == doctor.Error && is[f.Code] > was[f.Code] {
			news = append(news, f.String())
		}
	}
	if len(news) > 0 {
		return fmt.Errorf("the copy has errors that the source has not: %s", strings.Join(news[:min(len(news), 5)], "; "))
	}
	return nil
}

// copyData copies what the database refers to, and a master key that the server looks
// after itself.
func copyData(ctx context.Context, from, to config.Config, progress func(string, int64, int64)) error {
	if progress == nil {
		progress = func(string, int64, int64) {}
	}
	if keySource(from).Managed() {
		master, err := keySource(from).Load()
		if err == nil {
			err = secret.PutMasterKey(to.Data, master)
		}
		if err != nil && !errors.Is(err, secret.ErrNoKey) {
			return err
		}
	}
	source, err := blob.OpenDir(filepath.Join(from.Data, "blobs"))
	if err != nil {
		return err
	}
	target, err := blob.OpenDir(filepath.Join(to.Data, "blobs"))
	if err != nil {
		return err
	}
	var total, done int64
	for info, err := range source.List(ctx) {
		if err != nil {
			return err
		}
		total += info.Size
	}
	for info, err := range source.List(ctx) {
		if err != nil {
			return err
		}
		if err := copyBlob(ctx, source, target, info); err != nil {
			return err
		}
		done += info.Size
		progress("copying packages, artifacts and logs", done, total)
		if err := failpoint.Hit("copy-blob"); err != nil {
			return err
		}
	}
	return nil
}

// copyBlob copies a blob that the target has not got; a damaged one it leaves out.
func copyBlob(ctx context.Context, source, target *blob.Dir, info blob.Info) error {
	if there, err := target.Stat(ctx, info.Hash); err == nil && there.Size == info.Size {
		return nil
	}
	r, size, err := source.Open(ctx, info.Hash)
	if err != nil {
		return err
	}
	defer r.Close() // only read
	got, err := target.Put(ctx, r, size)
	if err == nil && got.Hash != info.Hash {
		return fault.New(fault.Conflict, "The content of blob %s is not what its name says; see `tako doctor --full`, and restore it from a backup before the copy.", info.Hash)
	}
	return err
}
