package backup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/instance"
	"github.com/takodeploy/tako/internal/secret"
)

// CloneOptions of Clone.
type CloneOptions struct {
	// Data is the data directory of the copy, which must be empty or not there, and
	// Database the URL of its database, which must be empty; "" is SQLite in Data.
	Data, Database string
	// Keys open the backup. Their master key is only used to keep the secrets.
	Keys Keys
	// KeepSecrets leaves the sealed values in the copy, and gives it the master key.
	// Else it gets one of its own, and everything sealed is taken out.
	KeepSecrets bool
	// Places are where the database keeps sealed values, Documents its documents.
	Places    func() []secret.Place
	Documents *docstore.Store
	Log       *slog.Logger
	Progress  func(Progress)
}

// Cloned says what Clone did.
type Cloned struct {
	Manifest Manifest
	Instance instance.Marker
	Disarmed Disarmed
	// Blanked are the values that were taken out, and Closed counts the records of what
	// was (answers to prompts, outputs) that nobody can read in the copy.
	Blanked []secret.Ref
	Closed  int
}

// Clone makes a test instance of a backup: a copy that is shut in and does nothing by
// itself, before it can start for the first time. Nothing of it is left when it fails;
// after a crash no server starts there, and the same call makes it anew.
func (s *Store) Clone(ctx context.Context, id string, opt CloneOptions) (c Cloned, err error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Database == "" {
		opt.Database = "sqlite:" + filepath.Join(opt.Data, "tako.db")
	}
	err = s.using(id, "clone", func(dir string) error {
		c, err = s.clone(ctx, dir, &opt)
		return err
	})
	return c, err
}

func (s *Store) clone(ctx context.Context, dir string, opt *CloneOptions) (c Cloned, err error) {
	if c.Manifest, err = readRestorable(dir); err != nil {
		return c, err
	}
	m := &c.Manifest
	_, lite := sqlitePath(opt.Database)
	if wants := m.Dialect == db.SQLite.String(); wants != lite {
		return c, fault.New(fault.Invalid, "The backup is of %s; name a new database of that kind for the copy, SQLite in its data directory or postgres://... with --into-database.", m.Dialect)
	}
	var master secret.MasterKey
	if opt.KeepSecrets {
		master, err = opt.Keys.master(m)
	} else {
		master = secret.NewMasterKey()
	}
	if err != nil {
		return c, err
	}
	former, made, unlock, err := prepareCopy(opt.Data)
	if err != nil {
		return c, err
	}
	defer unlock()
	release := func() {} // gives the database of the copy back, when it is emptied again
	defer func() { release() }()
	var undo func() error // empties the database again, once there is something in it
	defer func() {
		if err == nil {
			return
		}
		if undo != nil {
			err = errors.Join(err, undo())
		}
		// A database that an earlier call filled is known by the marker alone.
		err = errors.Join(err, emptyCopy(opt.Data, former != nil && !lite && undo == nil))
		if made {
			err = errors.Join(err, os.Remove(opt.Data))
		}
	}()
	if err := emptyCopy(opt.Data, true); err != nil {
		return c, err
	}
	if err := checkSpace(min(stayFree, m.Database.Size), need{opt.Data, m.Database.Size + m.BlobBytes}); err != nil {
		return c, err
	}
	number, err := uuid.NewRandom()
	if err != nil {
		return c, err
	}
	id := number.String()
	if former != nil {
		id = former.ID // by which its database is known
	}
	c.Instance = instance.Marker{
		Mode: instance.Quarantine, ID: id, Parent: m.Installation, Backup: m.ID, Instant: m.Created, Created: time.Now().UTC().Truncate(time.Microsecond), Unfinished: true,
	}
	// Before anything else: whatever is there from now on does not start.
	if err := c.Instance.Write(opt.Data); err != nil {
		return c, err
	}
	if err := failpoint.Hit("clone-marked"); err != nil {
		return c, err
	}
	if err := secret.PutMasterKey(opt.Data, master); err != nil {
		return c, err
	}
	if lite {
		err = s.cloneSQLite(ctx, dir, opt, &c)
	} else {
		undo, err = s.clonePostgres(ctx, dir, opt, &c, former, &release)
	}
	if err != nil {
		return c, err
	}
	if err := failpoint.Hit("clone-placed"); err != nil {
		return c, err
	}
	c.Instance.Unfinished = false
	if err := c.Instance.Write(opt.Data); err != nil {
		return c, err
	}
	return c, failpoint.Hit("clone-done")
}

// prepareCopy takes the directory of a copy for this process. former is the marker of a
// copy whose making was cut short there, and made says that the directory is new.
func prepareCopy(data string) (former *instance.Marker, made bool, unlock func(), err error) {
	f, made, err := takeDirectory(data)
	if err != nil {
		return nil, false, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, durable.Release(f))
		}
	}()
	// Nobody else changes it from here on.
	entries, err := os.ReadDir(data)
	if err != nil {
		return nil, false, nil, notOurs(data, err)
	}
	if len(entries) > 0 {
		if former, err = instance.Read(data); err != nil {
			return nil, false, nil, err
		}
		if former == nil || !former.Unfinished {
			return nil, false, nil, fault.New(fault.Conflict, "%s is not empty; name a new directory for the copy.", data)
		}
	}
	return former, made, func() { _ = durable.Release(f) }, nil
}

// takeDirectory makes a directory, if it is not there, and locks it.
func takeDirectory(data string) (f *os.File, made bool, err error) {
	if err := os.MkdirAll(filepath.Dir(data), 0o700); err != nil {
		return nil, false, notOurs(data, err)
	}
	err = os.Mkdir(data, 0o700)
	made = err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, false, notOurs(data, err)
	}
	if f, err = os.Open(data); err != nil {
		return nil, false, notOurs(data, err)
	}
	err = durable.TryFlock(f, durable.Exclusive, durable.Moment)
	if err == nil {
		// Whoever had the lock before may have taken the directory away again.
		var locked, there fs.FileInfo
		if locked, err = f.Stat(); err == nil {
			if there, err = os.Stat(data); errors.Is(err, fs.ErrNotExist) || err == nil && !os.SameFile(locked, there) {
				err = durable.ErrLocked
			}
		}
	}
	if errors.Is(err, durable.ErrLocked) {
		err = fault.New(fault.Conflict, "Another process makes a copy in %s just now.", data)
	}
	if err != nil {
		return nil, false, errors.Join(err, f.Close())
	}
	return f, made, nil
}

// notOurs names a directory that this process cannot have for a copy.
func notOurs(data string, err error) error {
	if full := translate(err); fault.KindOf(full) != fault.Internal {
		return full
	}
	return &fault.Error{Kind: fault.Invalid, Message: fmt.Sprintf("%s cannot be the directory of a copy (%v); name one that the server's user may make.", data, err), Cause: err}
}

// emptyCopy removes what there is of an unfinished copy, its marker last if at all.
func emptyCopy(data string, keepMarker bool) error {
	entries, err := os.ReadDir(data)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() != instance.FileName {
			if err := os.RemoveAll(filepath.Join(data, e.Name())); err != nil {
				return err
			}
		}
	}
	if keepMarker {
		return nil
	}
	if err := os.Remove(filepath.Join(data, instance.FileName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// unpack decrypts what a copy has, its database into staged.
func (s *Store) unpack(ctx context.Context, dir string, opt *CloneOptions, m *Manifest, staged string) error {
	return s.files(ctx, dir, &RestoreOptions{Data: opt.Data, Keys: opt.Keys, Progress: opt.Progress}, &Restored{Manifest: *m}, staged)
}

func (s *Store) cloneSQLite(ctx context.Context, dir string, opt *CloneOptions, c *Cloned) error {
	path, _ := sqlitePath(opt.Database)
	staged := filepath.Join(opt.Data, "cloning.db")
	if err := s.unpack(ctx, dir, opt, &c.Manifest, staged); err != nil {
		return err
	}
	d, err := db.Open(ctx, "sqlite:"+staged, db.Options{MustExist: true, Log: opt.Log})
	if err != nil {
		return err
	}
	damage, err := d.Integrity(ctx)
	if err == nil && len(damage) > 0 {
		err = fmt.Errorf("the database is damaged: %s", damage[0])
	}
	if err == nil {
		err = c.disarm(ctx, d, opt)
	}
	if err == nil {
		err = d.Checkpoint(ctx)
	}
	if err := errors.Join(err, d.Close()); err != nil {
		return err
	}
	f, err := os.Open(staged)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(staged, path); err != nil {
		return err
	}
	return errors.Join(removeDatabase(staged), durable.SyncDir(opt.Data))
}

// clonePostgres makes the copy in a schema beside the one that a server uses, which gets
// its name when all is done: until then a server finds an empty database. undo empties it
// again, whatever ctx is; nil when nothing was changed. Until release is called, nobody else
// makes a copy there.
func (s *Store) clonePostgres(ctx context.Context, dir string, opt *CloneOptions, c *Cloned, former *instance.Marker, release *func()) (undo func() error, err error) {
	d, err := db.Open(ctx, opt.Database, db.Options{Log: opt.Log})
	if err != nil && fault.KindOf(err) == fault.Internal && ctx.Err() == nil {
		err = &fault.Error{Kind: fault.Unavailable, Message: fmt.Sprintf("The database of the copy does not open (%v); name a new, empty one that the server may use.", err), Cause: err}
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	server, err := d.Server(ctx)
	if err != nil {
		return nil, err
	}
	m := &c.Manifest
	unlock, got, err := d.TryLock(ctx, "clone into "+server.Schema)
	if err == nil && !got {
		err = fault.New(fault.Conflict, "Another process makes a copy in %s just now.", d)
	}
	if err != nil {
		return nil, err
	}
	*release = unlock
	own, staging := quoted(m.Schema), quoted(m.Schema+"_cloning")
	begin := "DROP SCHEMA IF EXISTS " + staging + " CASCADE;\n"
	mine, err := isCopy(ctx, d, former)
	switch {
	case err != nil:
		return nil, err
	case mine: // placed, and not noted in the marker
		begin += fmt.Sprintf("DROP SCHEMA %[1]s CASCADE;\nCREATE SCHEMA %[1]s;\n", own)
	default:
		if err := isEmpty(ctx, d); err != nil {
			return nil, err
		}
	}
	temp, err := workDir(filepath.Join(opt.Data, "tmp"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(filepath.Dir(temp))) }()
	dump := filepath.Join(temp, "database")
	if err := s.unpack(ctx, dir, opt, m, dump); err != nil {
		return nil, err
	}
	tellOf(opt.Progress, "restoring the database", 0)
	err = loadScript(ctx, d, m, dump, begin, "", fmt.Sprintf("ALTER SCHEMA %s RENAME TO %s;\nCREATE SCHEMA %s;\n", own, staging, own))
	if err != nil {
		return nil, err
	}
	undo = func() error {
		return script(context.WithoutCancel(ctx), server, "DROP SCHEMA IF EXISTS "+staging+" CASCADE;\n")
	}
	if err := failpoint.Hit("clone-loaded"); err != nil {
		return undo, err
	}
	at, query, _ := strings.Cut(opt.Database, "?") // several hosts are no URL to net/url
	q, err := url.ParseQuery(query)
	if err != nil {
		return undo, errors.New("the parameters in the URL of the copy's database cannot be read")
	}
	q.Set("search_path", staging)
	copied, err := db.Open(ctx, at+"?"+q.Encode(), db.Options{Log: opt.Log})
	if err != nil {
		return undo, err
	}
	if err := errors.Join(c.disarm(ctx, copied, opt), copied.Close()); err != nil {
		return undo, err
	}
	// Without CASCADE: whatever came meanwhile is somebody else's.
	err = script(ctx, server, fmt.Sprintf("BEGIN;\nDROP SCHEMA %[1]s;\nALTER SCHEMA %[2]s RENAME TO %[1]s;\nCOMMIT;\n", own, staging))
	if err != nil {
		return undo, err
	}
	return func() error {
		return script(context.WithoutCancel(ctx), server, fmt.Sprintf("BEGIN;\nDROP SCHEMA %[1]s CASCADE;\nCREATE SCHEMA %[1]s;\nCOMMIT;\n", own))
	}, nil
}

// isCopy reports whether a database is that of a copy whose making was cut short.
func isCopy(ctx context.Context, d *db.DB, former *instance.Marker) (mine bool, err error) {
	if _, err := d.Meta(ctx); errors.Is(err, db.ErrNoSchema) || former == nil {
		return false, nil
	} else if err != nil {
		return false, err
	}
	err = d.Read(ctx, func(tx *db.Tx) error {
		if has, err := tx.HasTable(ctx, "quarantine"); err != nil || !has {
			return err
		}
		row, err := instance.ReadRow(ctx, tx)
		mine = row != nil && row.Instance == former.ID
		return err
	})
	return mine, err
}

// isEmpty refuses a PostgreSQL database that has something in it.
func isEmpty(ctx context.Context, d *db.DB) error {
	var n int64
	err := d.Read(ctx, func(tx *db.Tx) error {
		return tx.QueryRow(ctx, `SELECT count(*) FROM pg_class WHERE relnamespace = current_schema()::regnamespace`).Scan(&n)
	})
	if err == nil && n > 0 {
		err = fault.New(fault.Conflict, "%s is not empty; name a new database for the copy.", d)
	}
	return err
}

// script runs statements by psql.
func script(ctx context.Context, server db.Server, text string) error {
	bin, err := programs(ctx, server.Major)
	if err != nil {
		return err
	}
	cmd, said := program(ctx, bin, "psql", server, "--no-psqlrc", "--quiet", "--output=/dev/null", "--set=ON_ERROR_STOP=1", "--file=-")
	cmd.Stdin = strings.NewReader(text)
	return failed("psql", cmd.Run(), said)
}

// disarm makes the copied database one that does nothing by itself.
func (c *Cloned) disarm(ctx context.Context, d *db.DB, opt *CloneOptions) error {
	tellOf(opt.Progress, "disarming the copy", 0)
	if err := db.Reincarnate(ctx, d, c.Instance.ID); err != nil {
		return err
	}
	err := d.Write(ctx, func(tx *db.Tx) (err error) {
		c.Disarmed, err = disarm(ctx, tx, opt.Documents, &c.Instance, !opt.KeepSecrets)
		return err
	})
	if err != nil {
		return fmt.Errorf("disarm the copy: %w", err)
	}
	if err := failpoint.Hit("clone-disarmed"); err != nil {
		return err
	}
	if !opt.KeepSecrets {
		tellOf(opt.Progress, "taking out the secrets", 0)
		c.Closed, err = secret.Blank(ctx, d, secret.Source{Dir: opt.Data}, opt.Places(), func(r secret.Ref) { c.Blanked = append(c.Blanked, r) })
		if err != nil {
			return fmt.Errorf("take out the secrets: %w", err)
		}
	}
	return failpoint.Hit("clone-blanked")
}
