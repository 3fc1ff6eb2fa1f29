package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/secret"
)

// ExpandError says why a server does not start on the schema of an earlier version.
type ExpandError struct {
	reason string
	cause  error
}

// Error says what to do.
func (e *ExpandError) Error() string { return e.reason }

// Unwrap gives what went wrong, nil if nothing did.
func (e *ExpandError) Unwrap() error { return e.cause }

// ExitCode is that of a configuration error: restarting does not help.
func (e *ExpandError) ExitCode() int { return fault.ExitRefused }

// bringUp brings the schema of a server's database to this program's level. One that is new
// is made; to one of an earlier version nothing is added before there is a proven backup.
// What a supervisor starts besides is left as it is as long as this program can work on it:
// there the upgrade has its own order.
func bringUp(ctx context.Context, cfg config.Config, opt Options, d *db.DB, log *slog.Logger) error {
	own := db.BinaryLevels()
	err := db.CheckStart(ctx, d, own)
	var start *db.StartError
	if err != nil && (!errors.As(err, &start) || !start.NeedsMigrate()) {
		return err
	}
	meta, metaErr := d.Meta(ctx)
	switch {
	case errors.Is(metaErr, db.ErrNoSchema), metaErr == nil && meta.SchemaLevel == 0:
		return db.Migrate(ctx, d, db.MigrateOptions{By: opt.Version})
	case metaErr != nil:
		return metaErr
	case meta.SchemaLevel >= own.Level:
		return nil
	case opt.Proof || handedOver(opt):
		if err == nil {
			return nil
		}
		return db.Migrate(ctx, d, db.MigrateOptions{By: opt.Version})
	case cfg.NoExpand:
		return &ExpandError{reason: fmt.Sprintf(
			"the schema of this database has level %d (made by %s), version %s makes level %d, and no_expand says not to do that at a start; start it without --no-expand, which takes a backup first, or use `tako upgrade`",
			meta.SchemaLevel, meta.ExpandedBy, opt.Version, own.Level)}
	}
	c := &catchUp{cfg: cfg, opt: opt, db: d, log: log, from: meta.SchemaLevel, to: own.Level}
	c.opt.Log = log
	return c.run(ctx)
}

// handedOver reports whether a supervisor has started this server that also carries upgrades
// out. The first process of a container does not: another version comes with another image,
// and it waits as long as it takes.
func handedOver(opt Options) bool {
	return opt.Launch != nil && (opt.Launch.Candidate || opt.Launch.Orphan > 0)
}

// catchUp is the start of a server on the schema of an earlier version.
type catchUp struct {
	cfg      config.Config
	opt      Options
	db       *db.DB
	log      *slog.Logger
	from, to int // levels

	stage string // of the backup
	shown time.Time
}

func (c *catchUp) run(ctx context.Context) (err error) {
	unlock, err := c.alone(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	meta, err := c.db.Meta(ctx)
	if err != nil || meta.SchemaLevel >= c.to {
		return err // another server has done it meanwhile
	}
	c.log.Warn("the schema is of an earlier version; it is backed up and expanded before the server starts", "level", c.from, "made by", meta.ExpandedBy, "to", c.to, "version", c.opt.Version)
	id, err := c.backUp(ctx)
	if err != nil {
		return c.failed(ctx, "the backup before that failed, so nothing was changed", err,
			"Remove the cause, or go on with the former version. If you have a backup of your own, `tako database expand` of this version goes without")
	}
	c.log.Info("the backup is proven; expanding the schema", "backup", id)
	err = db.Migrate(ctx, c.db, db.MigrateOptions{By: c.opt.Version, Step: func(id string) { c.log.Info("migration", "id", id) }})
	if err != nil {
		return c.failed(ctx, "that failed", err, "The former version works on the database as it is; backup "+id+" is of the moment before")
	}
	c.log.Info("the schema is expanded", "level", c.to)
	return nil
}

// failed is why the server does not start. A restart does not help, but where this machine
// or the database's lacks something for now.
func (c *catchUp) failed(ctx context.Context, what string, err error, remedy string) error {
	text := fmt.Sprintf("the schema of this database has level %d and version %s makes level %d; %s: %v. %s", c.from, c.opt.Version, c.to, what, err, remedy)
	if ctx.Err() != nil || fault.Is(err, fault.Unavailable) {
		return &fault.Error{Kind: fault.Unavailable, Message: text, Cause: err}
	}
	return &ExpandError{text, err}
}

// alone waits until no other server, of this host or of this database, does the same.
func (c *catchUp) alone(ctx context.Context) (unlock func() error, err error) {
	if err := os.MkdirAll(runDir(c.cfg), 0o700); err != nil {
		return nil, err
	}
	var file *durable.Lock
	err = c.until(ctx, func() (bool, error) {
		file, err = durable.TryLock(filepath.Join(runDir(c.cfg), "expand.lock"))
		return errors.Is(err, durable.ErrLocked), err
	})
	if err != nil {
		return nil, err
	}
	free, err := c.db.Lock(ctx, "expand")
	if err != nil {
		return nil, errors.Join(err, file.Unlock())
	}
	return func() error {
		free()
		return file.Unlock()
	}, nil
}

// until repeats fn each second for as long as it is busy.
func (c *catchUp) until(ctx context.Context, fn func() (busy bool, err error)) error {
	for told := false; ; told = true {
		busy, err := fn()
		if !busy {
			return err
		}
		if !told {
			c.log.Info("waiting for another process that works on the backups or the schema")
		}
		again := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			again.Stop()
			return ctx.Err()
		case <-again.C:
		}
	}
}

// backUp takes a backup, which stays until the new version's data formats are switched on,
// and proves it.
func (c *catchUp) backUp(ctx context.Context) (id string, err error) {
	if c.db.Dialect() == db.Postgres {
		// Not to take one after the other where none can be proven.
		place, err := c.db.Scratch(ctx)
		if err != nil {
			return "", err
		}
		if err := place.Drop(ctx); err != nil {
			return "", err
		}
	}
	keys, err := secret.Open(ctx, c.db, keySource(c.cfg))
	if err == nil {
		err = keys.EnsureRecovery(ctx)
	}
	if err != nil {
		return "", err
	}
	b, err := OpenBackups(c.cfg, c.opt)
	if err != nil {
		return "", err
	}
	pin := &backup.Pin{Reason: fmt.Sprintf("taken before version %s expanded the schema to level %d", c.opt.Version, c.to), Upgrade: fmt.Sprintf("schema-level-%d", c.to)}
	former, err := c.former(ctx, b.Store, pin)
	switch {
	case err != nil:
		return "", err
	case former.ID == "":
	case former.Verified != nil && former.Verified.Level >= backup.LevelDatabase:
		c.log.Info("nothing was added since the backup that an earlier start has taken; no other one is", "backup", former.ID)
		return former.ID, nil
	default: // that start was cut short
		err := c.prove(ctx, b, keys, former.ID)
		var damaged *backup.DamagedError
		if !errors.As(err, &damaged) {
			return former.ID, err
		}
		c.log.Warn("the backup that an earlier start has taken is damaged; another one is taken", "backup", former.ID, "err", err)
	}
	err = c.until(ctx, func() (bool, error) {
		m, err := b.create(ctx, c.db, keys, pin, c.tell)
		id = m.ID
		return isBusy(err), err
	})
	if err != nil {
		return "", err
	}
	return id, c.prove(ctx, b, keys, id)
}

// former is the newest backup that an earlier start of this version has taken for the same
// expansion, without an ID if there is none, or if anything was added since. Whoever starts a
// container again and again that fails would fill its disk otherwise.
func (c *catchUp) former(ctx context.Context, s *backup.Store, pin *backup.Pin) (backup.Backup, error) {
	all, err := s.List()
	if err != nil {
		return backup.Backup{}, err
	}
	for _, b := range all {
		if b.Problem != "" || b.Pin == nil || b.Pin.Upgrade != pin.Upgrade || !b.Pin.Keeps(time.Now()) || b.Version != c.opt.Version || b.SchemaLevel != c.from {
			continue
		}
		same, err := c.unchanged(ctx, &b.Manifest)
		if err != nil || !same {
			return backup.Backup{}, err
		}
		return b, nil
	}
	return backup.Backup{}, nil
}

// unchanged reports whether the database has as many rows as a backup of it, in each of the
// tables that both have. What is changed through the API has rows in the audit trail, and
// what a task does has rows in its log.
func (c *catchUp) unchanged(ctx context.Context, m *backup.Manifest) (same bool, err error) {
	err = c.db.Snapshot(ctx, func(tx *db.Tx) error {
		meta, err := tx.Meta(ctx)
		if err != nil {
			return err
		}
		now, err := tx.CountContent(ctx)
		if err != nil {
			return err
		}
		same = meta.Incarnation == m.Incarnation
		for table, n := range now {
			// Of the new version's own tables some may be there already.
			if was, both := m.Rows[table]; both && was != n {
				same = false
			}
		}
		return nil
	})
	return same, err
}

// prove looks whether a backup can be restored.
func (c *catchUp) prove(ctx context.Context, b *Backups, keys *secret.Box, id string) error {
	opens, err := backup.ServerKeys(ctx, keys, keySource(c.cfg), nil)
	if err != nil {
		return err
	}
	return c.until(ctx, func() (bool, error) {
		_, err := b.Store.Verify(ctx, id, backup.VerifyOptions{
			Level: backup.LevelDatabase, Keys: opens, Temp: tempDir(c.cfg), Server: c.db, Places: allPlaces, Version: c.opt.Version, Log: c.log, Progress: c.tell,
		})
		return isBusy(err), err
	})
}

func isBusy(err error) bool {
	var busy *backup.BusyError
	return errors.As(err, &busy)
}

// tell logs each stage, and now and then how far it is.
func (c *catchUp) tell(p backup.Progress) {
	now := time.Now()
	if p.Stage == c.stage && now.Sub(c.shown) < 10*time.Second {
		return
	}
	c.stage, c.shown = p.Stage, now
	c.log.Info("backup before the schema is expanded", "stage", p.Stage, "done", backup.Size(p.Done), "of", backup.Size(p.Total))
}
