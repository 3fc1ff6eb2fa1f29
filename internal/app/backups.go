package app

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/verify"
)

// tempDir is where a server's data directory has what is not encrypted for a while.
func tempDir(cfg config.Config) string { return filepath.Join(cfg.Data, "tmp") }

// Backups takes, proves and restores the backups of a server, from its own machine
// and beside it.
type Backups struct {
	*backup.Store
	cfg config.Config
	opt Options
}

// OpenBackups opens the configured directory of backups.
func OpenBackups(cfg config.Config, opt Options) (*Backups, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s, err := backup.Open(cfg.Backups)
	return &Backups{s, cfg, opt}, err
}

// HasBackup reports whether a backup is in the configured directory, and can be read.
func HasBackup(cfg config.Config, id string) (bool, error) {
	s, err := backup.Open(cfg.Backups)
	if err != nil {
		return false, err
	}
	all, err := s.List()
	return slices.ContainsFunc(all, func(b backup.Backup) bool { return b.ID == id && b.Problem == "" }), err
}

// ownDirectories are those of the server itself, in which there is no test instance.
func ownDirectories(cfg config.Config) []string { return []string{cfg.Data, cfg.Backups} }

// openBackups opens the directory of backups that the server itself uses.
func (a *App) openBackups() (*backup.Store, error) { return backup.Open(a.cfg.Backups) }

// proven is the instant of the newest backup that was proven, zero if there is none.
func (a *App) proven(context.Context) (time.Time, error) { return newestProven(a.cfg.Backups) }

// backupRunner runs the tasks named Backup.
func (a *App) backupRunner(opt Options, p parts) *backup.Task {
	opt.Log = a.log
	apart := &Backups{cfg: a.cfg, opt: opt}
	return backup.NewRunner(backup.TaskConfig{
		Open: a.openBackups,
		Keys: func(ctx context.Context) (backup.Keys, error) {
			return backup.ServerKeys(ctx, p.keys, keySource(a.cfg), nil)
		},
		Source: backup.Source{DB: a.db, Keys: p.keys, Blobs: p.blobs, RunDir: runDir(a.cfg), Temp: tempDir(a.cfg), Version: opt.Version, Config: a.cfg.Print(), Log: a.log},
		Verify: backup.VerifyOptions{Temp: tempDir(a.cfg), Server: a.db, Places: allPlaces, Boot: apart.boot, Version: opt.Version, Log: a.log},
		Clone:  backup.CloneOptions{Places: allPlaces, Documents: docstore.New(p.store.Kinds(), nil), Log: a.log},
		Own:    ownDirectories(a.cfg),
		Log:    a.log,
	})
}

// Create takes a backup. pin keeps it from being pruned; nil for retention alone.
func (b *Backups) Create(ctx context.Context, pin *backup.Pin, progress func(backup.Progress)) (m backup.Manifest, err error) {
	keys, err := OpenKeys(ctx, b.cfg, b.opt)
	if err != nil {
		return m, err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	return b.create(ctx, keys.db, keys.Box, pin, progress)
}

// create takes a backup of a database that is open.
func (b *Backups) create(ctx context.Context, d *db.DB, keys *secret.Box, pin *backup.Pin, progress func(backup.Progress)) (m backup.Manifest, err error) {
	blobs, err := blob.OpenDir(filepath.Join(b.cfg.Data, "blobs"))
	if err != nil {
		return m, err
	}
	if err := os.MkdirAll(tempDir(b.cfg), 0o700); err != nil {
		return m, err
	}
	return b.Store.Create(ctx, backup.Source{
		DB: d, Keys: keys, Blobs: blobs, RunDir: runDir(b.cfg), Temp: tempDir(b.cfg), Version: b.opt.Version, Config: b.cfg.Print(),
		Pin: pin, Log: b.opt.Log, Progress: progress,
	})
}

// VerifyRequest asks for the proof of a backup.
type VerifyRequest struct {
	Level int // of backup.LevelFiles and those that follow
	// Kit opens the backup where the server's own keys do not; may be nil.
	Kit *secret.RecoveryKey
	// Keep leaves what was restored on a PostgreSQL server for whoever verifies or compares
	// this backup next, until a proof by facts, or Unpin.
	Keep     bool
	Progress func(backup.Progress)
}

// Verify proves a backup, with the server's own keys and those of a recovery kit,
// if there is one.
func (b *Backups) Verify(ctx context.Context, id string, req VerifyRequest) (v backup.Verified, err error) {
	keys, d, done, err := b.keys(ctx, req.Kit)
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, done()) }()
	return b.Store.Verify(ctx, id, backup.VerifyOptions{
		Level: req.Level, Keep: req.Keep,
		Keys: keys, Temp: tempDir(b.cfg), Server: d, Places: allPlaces, Boot: b.boot, Version: b.opt.Version, Log: b.opt.Log, Progress: req.Progress,
	})
}

// Unpin is Store.Unpin, and has what Verify has kept of the backup removed. That it cannot
// be now is no error: whoever verifies a backup an hour later removes it.
func (b *Backups) Unpin(ctx context.Context, id string, until time.Time) error {
	if err := b.Store.Unpin(id, until); err != nil {
		return err
	}
	d, err := db.Open(ctx, b.cfg.Database, db.Options{Readers: 1, Log: b.opt.Log, MustExist: true})
	if err == nil {
		err = errors.Join(b.DropKept(ctx, id, d), d.Close())
	}
	if err != nil {
		b.opt.Log.Debug("what was restored of a backup stays for now", "backup", id, "err", err)
	}
	return nil
}

// keys are those of the server, if it has a database that opens; else those that
// follow from its master key and the kit alone.
func (b *Backups) keys(ctx context.Context, kit *secret.RecoveryKey) (keys backup.Keys, d *db.DB, done func() error, err error) {
	k, err := OpenKeys(ctx, b.cfg, b.opt)
	if err == nil {
		keys, err = backup.ServerKeys(ctx, k.Box, keySource(b.cfg), kit)
		if err != nil {
			return keys, nil, nil, errors.Join(err, k.Close())
		}
		return keys, k.db, k.Close, nil
	}
	b.opt.Log.Debug("the server's database does not open", "err", err)
	keys, err = b.loneKeys(kit)
	if err != nil {
		return keys, nil, nil, err
	}
	if d, err = db.Open(ctx, b.cfg.Database, db.Options{Log: b.opt.Log, MustExist: true}); err != nil {
		return keys, nil, func() error { return nil }, nil
	}
	return keys, d, d.Close, nil
}

func (b *Backups) loneKeys(kit *secret.RecoveryKey) (backup.Keys, error) {
	master, err := keySource(b.cfg).Load()
	if err != nil && !errors.Is(err, secret.ErrNoKey) {
		return backup.Keys{}, err
	}
	return backup.KeysOf(master, kit)
}

// Restore puts a backup in the place of the server's database.
func (b *Backups) Restore(ctx context.Context, id string, kit *secret.RecoveryKey, progress func(backup.Progress)) (backup.Restored, error) {
	// What this server made before its master key was changed opens only by what its
	// database keeps; the database is closed again before it is replaced.
	// One that is half replaced must not be touched at all.
	half, err := backup.Pending(b.cfg.Data)
	if err != nil {
		return backup.Restored{}, err
	}
	keys, err := b.loneKeys(kit)
	if err == nil && half == "" {
		var done func() error
		if keys, _, done, err = b.keys(ctx, kit); err == nil {
			err = done()
		}
	}
	if err != nil {
		return backup.Restored{}, err
	}
	return b.Store.Restore(ctx, id, backup.RestoreOptions{
		Data: b.cfg.Data, Database: b.cfg.Database, RunDir: runDir(b.cfg), ManagedKey: keySource(b.cfg).Managed(), Keys: keys, Log: b.opt.Log, Progress: progress,
	})
}

func allPlaces() []secret.Place {
	kinds, err := resource.NewSet(append(resources.All(), releases.Kinds()...)...)
	if err != nil {
		return nil // every start of a server would have failed
	}
	return secretPlaces(docstore.New(kinds, nil))
}

// boot starts the API on a restored copy and reads from it what people would look
// at first. Nothing else of the program runs: no task is claimed, no trigger fires and
// no agent is spoken to.
func (b *Backups) boot(ctx context.Context, c backup.Copy) error {
	if err := migrateCopy(ctx, c.Database, b.opt, nil); err != nil {
		return err
	}
	cfg := config.Defaults()
	cfg.Data, cfg.Database, cfg.Backups = c.Data, c.Database, filepath.Join(c.Data, "backups")
	opt := b.opt
	opt.Proof = true
	return onCopy(ctx, cfg, opt, func(a *App, key string) error { return smoke(ctx, a.URL(), key) })
}

// onCopy starts the API on a copy of a server's data, and nothing else of the program, and
// has fn ask it: key is that of an administrator whom the copy alone has.
func onCopy(ctx context.Context, cfg config.Config, opt Options, fn func(a *App, key string) error) (err error) {
	key := "API-" + rand.Text()
	cfg.Listen, cfg.AgentListen, cfg.Node, cfg.BuiltinWorker = "127.0.0.1:0", "", "verify", false
	cfg.TLSCert, cfg.TLSKey, cfg.BasePath = "", "", ""
	cfg.AdminUsername, cfg.AdminPassword, cfg.AdminAPIKey = verify.Probe, "", secret.Text(key)
	a, err := New(ctx, cfg, Options{Log: opt.Log, Version: opt.Version, Exe: opt.Exe, Proof: opt.Proof})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	server := &http.Server{Handler: a.handler, ReadHeaderTimeout: 10 * time.Second}
	var g errgroup.Group
	g.Go(func() error {
		if err := server.Serve(a.listener); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	defer func() { err = errors.Join(err, server.Close(), g.Wait()) }()
	return fn(a, key)
}

// migrateCopy brings the schema of a copy to this program's level, as an upgrade to it
// would. check is asked before; nil is content.
func migrateCopy(ctx context.Context, database string, opt Options, check func(*db.DB) error) error {
	d, err := db.Open(ctx, database, db.Options{Log: opt.Log, MustExist: true})
	if err != nil {
		return err
	}
	if check != nil {
		err = check(d)
	}
	if err == nil {
		// Nobody else writes it, but on PostgreSQL others use the same server.
		err = db.Migrate(ctx, d, db.MigrateOptions{By: opt.Version, Alone: d.Dialect() == db.SQLite})
	}
	return errors.Join(err, d.Close())
}

// smoke reads the lists that every server has, and the logs and artifacts of the last
// tasks.
func smoke(ctx context.Context, url, key string) error {
	client := egress.Client()
	defer client.CloseIdleConnections()
	get := func(path string, into any) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, url+path, nil)
		if err != nil {
			return err
		}
		req.Header.Set("X-Octopus-ApiKey", key)
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("GET %s answers %d", path, resp.StatusCode)
		}
		if into == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		} else {
			err = json.NewDecoder(resp.Body).Decode(into)
		}
		if err != nil {
			return fmt.Errorf("GET %s: %w", path, err)
		}
		return nil
	}
	var errs []error
	for _, path := range []string{"/readyz", "/api", "/api/spaces", "/api/users", "/api/teams", "/api/projects", "/api/environments", "/api/releases", "/api/deployments", "/api/machines", "/api/accounts", "/api/packages", "/api/dashboard", "/api/events"} {
		errs = append(errs, get(path, nil))
	}
	type list struct{ Items []struct{ ID string } }
	for path, content := range map[string]string{"/api/tasks": "/raw", "/api/artifacts": "/content"} {
		var some list
		errs = append(errs, get(path+"?take=20", &some))
		for _, one := range some.Items {
			errs = append(errs, get(path+"/"+one.ID+content, nil))
		}
	}
	return errors.Join(errs...)
}
