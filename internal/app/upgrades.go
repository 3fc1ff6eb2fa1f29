package app

import (
	"context"
	"path/filepath"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/rest/actions/server"
	upgraderoutes "github.com/takodeploy/tako/internal/rest/actions/upgrades"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/journal"
	"github.com/takodeploy/tako/internal/upgrade/lookout"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// UpgradeOptions are what upgrades need of the program that runs.
type UpgradeOptions struct {
	// Commit and CommitDate are where the program comes from.
	Commit, CommitDate string
	// Root is the signed root of keys that it was built with, Feed the address of its
	// feed; both are empty in a program that somebody has built themselves.
	Root []byte
	Feed string
	// Settings are flags and Environ is the environment by which another process of this
	// program works on the same server.
	Settings, Environ []string
}

// upgrades are the parts of a server that have to do with its upgrades.
type upgrades struct {
	root    string // of the supervisor, "" without one
	store   *stage.Store
	lookout *lookout.Lookout
	worker  upgrade.Worker
	opt     UpgradeOptions
	life    context.Context //nolint:containedctx // ends what is done beside requests
}

// prepareUpgrades finds out where a server is upgraded, and what it trusts. Without a
// supervisor it can only look for newer versions.
func (a *App) prepareUpgrades(life context.Context, opt Options, exe string, store *docstore.Store) upgrades {
	u := upgrades{opt: opt.Upgrades, life: life, worker: upgrade.Worker{Program: exe, Settings: opt.Upgrades.Settings, Environ: opt.Upgrades.Environ}}
	if a.launch != nil {
		u.root = filepath.Dir(filepath.Dir(a.launch.Socket)) // run/server-x.sock
	}
	dir := u.root
	if dir == "" {
		dir = a.cfg.Data
	}
	u.store = stage.Open(dir, opt.Upgrades.Root)
	interval := a.cfg.UpgradeCheckInterval
	if !a.cfg.UpgradeCheck {
		interval = 0
	}
	u.lookout = lookout.New(lookout.Config{
		Store: u.store, File: filepath.Join(upgrade.Dir(dir), "found.json"), Usual: opt.Upgrades.Feed, Channel: a.cfg.UpgradeChannel, Version: opt.Version,
		Interval: interval, Log: a.log,
		Allowed: func(ctx context.Context) (ok bool, err error) {
			err = a.db.Read(ctx, func(tx *db.Tx) error {
				ok, err = server.MayCheckForUpgrades(ctx, tx, store)
				return err
			})
			return ok, err
		},
	})
	if opt.Proof {
		return u
	}
	// No server stays down for what only an upgrade needs.
	if a.cfg.UpgradeKeys != "" {
		if err := lookout.Pin(u.store, a.cfg.UpgradeKeys); err != nil {
			a.log.Error("the keys of upgrade_keys are not trusted", "err", err)
		}
	}
	if a.cfg.UpgradeFeed != "" {
		if err := u.store.UseFeed(a.cfg.UpgradeFeed); err != nil {
			a.log.Error("the feed of upgrade_feed is not used", "err", err)
		}
	}
	return u
}

// settled reports whether the version that serves stays: whether there is no upgrade
// from which its supervisor may still go back. Without a supervisor there is none.
func (u *upgrades) settled() (bool, error) {
	if u.root == "" {
		return true, nil
	}
	j, err := journal.Open(upgrade.Dir(u.root))
	if err != nil {
		return false, err
	}
	t, err := upgrade.Last(j.Entries())
	return err == nil && (t == nil || t.Settled()), err
}

func (u *upgrades) newest() string {
	version, _ := u.lookout.Newest()
	return version
}

// named reports whether a feed is looked at, as long as nobody forbids it.
func (u *upgrades) named() bool {
	on, err := u.lookout.ByItself()
	return err == nil && on
}

func (a *App) upgradeRoutes(version string) upgraderoutes.Config {
	u := &a.upgrades
	return upgraderoutes.Config{
		DB: a.db, Version: version, Commit: u.opt.Commit, CommitDate: u.opt.CommitDate, Node: a.cfg.Node, Started: time.Now(),
		Root: u.root, Data: a.cfg.Data, Store: u.store, Lookout: u.lookout, Worker: u.worker, Life: u.life,
	}
}
