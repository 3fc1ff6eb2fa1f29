package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/reserve"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/octopus"
)

// prepareReserve finds the reserve for a full disk. A server that only answers a proof has
// none.
func (a *App) prepareReserve(opt Options) {
	if opt.Proof {
		return
	}
	size := opt.Reserve
	if size == 0 {
		size = reserve.Size
	}
	a.reserve = reserve.New(a.cfg.Data, size, a.log)
}

// makeRoom gives the reserve up.
func (a *App) makeRoom() bool { return a.reserve != nil && a.reserve.Spend() }

// outOfRoom reports whether what is free is for the database and the journal alone.
func (a *App) outOfRoom() bool { return a.reserve != nil && a.reserve.Spent() }

// keepReserve makes the reserve while the server serves, since that takes time on some
// disks, and tells of it when it was needed.
func (a *App) keepReserve(ctx context.Context) error {
	if a.reserve == nil {
		return nil
	}
	if err := a.linkReserve(); err != nil {
		a.log.Warn("the journal of upgrades cannot give up the reserve for a full disk", "err", err)
	}
	return a.reserve.Keep(ctx, func(ctx context.Context) error {
		return a.db.WriteEngine(ctx, func(tx *db.Tx) error {
			tx.Event(db.Event{Category: string(octopus.EventDiskFull), Message: fmt.Sprintf("The disk of %s on node %s is full: the server goes on with what was kept in reserve (%s), and refuses packages and artifacts until somebody frees some space", a.cfg.Data, a.cfg.Node, backup.Size(reserve.Size))})
			return nil
		})
	})
}

// linkReserve has the journal of upgrades know the reserve, whatever process writes to it.
func (a *App) linkReserve() error {
	if a.upgrades.root == "" {
		return nil
	}
	dir := upgrade.Dir(a.upgrades.root)
	target, err := filepath.Abs(reserve.Path(a.cfg.Data))
	if err != nil {
		return err
	}
	link := filepath.Join(dir, reserve.Name)
	if now, err := os.Readlink(link); err == nil && now == target {
		return nil
	}
	if err := errors.Join(os.MkdirAll(dir, 0o700), durable.Symlink(target, link)); err != nil {
		return fmt.Errorf("link the reserve: %w", err)
	}
	return nil
}
