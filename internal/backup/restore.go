package backup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/tasks"
)

// RestoreOptions of Restore.
type RestoreOptions struct {
	// Data is the data directory, Database the URL of the database. What is there
	// is kept beside.
	Data, Database string
	// RunDir has the locks of the servers of this host.
	RunDir string
	// ManagedKey says that the master key is a file of the data directory.
	ManagedKey bool
	Keys       Keys
	Log        *slog.Logger
	Progress   func(Progress)
}

// Restored says what Restore did.
type Restored struct {
	Manifest
	// Replaced says that there was a database, which is kept as Kept; Newer counts
	// the deployments in it that the backup has not.
	Replaced bool
	Kept     string
	Newer    int64
	// Unreadable says that the replaced database could not be read for that.
	Unreadable bool
	// KeptKey is where a former master.key is now, "" for none.
	KeptKey string
	// Missing counts the blobs that the backup never had.
	Missing int
	// Queued and UnderWay count the tasks that wait to be released.
	Queued, UnderWay int64
}

// pendingFile marks a data directory in which a restore is half done.
const pendingFile = "restore.pending"

// What a restore has not put in its place yet: a database of SQLite beside the one that it
// replaces, and a directory in that of the data.
const (
	stagedSuffix = ".restoring"
	workName     = "restore"
)

// Suffix of what a restore replaced.
const beforeSuffix = ".before-restore"

// pending is what pendingFile says.
type pending struct {
	Backup     string
	Newer      int64
	Unreadable bool
}

// Pending reports the backup whose restore into a data directory was cut short, ""
// for none. No server may start there.
func Pending(data string) (string, error) {
	p, err := readPending(data)
	return p.Backup, err
}

func readPending(data string) (p pending, err error) {
	text, err := os.ReadFile(filepath.Join(data, pendingFile))
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return p, err
	}
	if err := json.Unmarshal(text, &p); err != nil {
		return p, fmt.Errorf("%s is damaged: %w", pendingFile, err)
	}
	return p, nil
}

// Restore puts a backup in the place of a server's database, and what it refers to
// beside. Everything is decrypted and checked before anything is replaced. Cut
// short, the same call brings it to its end. The servers must be stopped.
func (s *Store) Restore(ctx context.Context, id string, opt RestoreOptions) (r Restored, err error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	err = s.using(id, "restore", func(dir string) error {
		r, err = s.restore(ctx, dir, &opt)
		return err
	})
	return r, err
}

func (s *Store) restore(ctx context.Context, dir string, opt *RestoreOptions) (r Restored, err error) {
	if r.Manifest, err = readRestorable(dir); err != nil {
		return r, err
	}
	m := &r.Manifest
	r.Missing = len(m.Missing)
	if err := os.MkdirAll(opt.Data, 0o700); err != nil {
		return r, err
	}
	if running, err := tasks.Running(opt.RunDir); err != nil {
		return r, err
	} else if running {
		return r, fault.New(fault.Conflict, "A server runs on %s; stop it first.", opt.Data)
	}
	if half, err := Pending(opt.Data); err != nil {
		return r, err
	} else if half != "" && half != m.ID {
		return r, fault.New(fault.Conflict, "The restore of backup %s into %s was cut short; end that first: tako backup restore %s", half, opt.Data, half)
	}
	master, err := opt.Keys.master(m)
	if err != nil {
		return r, err
	}
	if err := makeRoom(opt, m); err != nil {
		return r, err
	}
	if m.Dialect == db.Postgres.String() {
		err = s.restorePostgres(ctx, dir, opt, &r, master)
	} else {
		err = s.restoreSQLite(ctx, dir, opt, &r, master)
	}
	if err != nil {
		return r, err
	}
	r.countHeld(ctx, opt)
	return r, nil
}

// makeRoom refuses a restore for which there is no room, without what a former one left. One
// that was only to be ended has all that it needs.
func makeRoom(opt *RestoreOptions, m *Manifest) error {
	if half, err := Pending(opt.Data); err != nil || half != "" {
		return err
	}
	if path, ok := sqlitePath(opt.Database); ok {
		if err := removeDatabase(path + stagedSuffix); err != nil {
			return err
		}
	}
	if err := os.RemoveAll(filepath.Join(opt.Data, workName)); err != nil {
		return err
	}
	needed := m.Database.Size
	if !exists(filepath.Join(opt.Data, "blobs")) {
		needed += m.BlobBytes
	}
	return checkSpace(min(stayFree, m.Database.Size), need{opt.Data, needed})
}

// readRestorable reads the manifest of a backup that this version can restore.
func readRestorable(dir string) (Manifest, error) {
	m, err := readManifest(dir)
	if fault.Is(err, fault.Unsupported) {
		return m, err
	}
	if err != nil {
		return m, &DamagedError{ID: filepath.Base(dir), Problems: []string{err.Error()}}
	}
	if _, ok := m.Rows["task_hold"]; !ok {
		return m, fault.New(fault.Unsupported, "The backup is from before the first release, and its schema is not this version's; restore it with version %s.", m.Version)
	}
	if own := db.BinaryLevels(); own.Level < m.MinReaderLevel {
		return m, fault.New(fault.Unsupported, "The backup's data is of level %d, and this version of Tako knows level %d; restore with version %s or later.", m.MinReaderLevel, own.Level, m.Version)
	}
	return m, nil
}

// countHeld tells what the restored server will not do by itself. It is done when the
// restore is, and no reason for it to fail.
func (r *Restored) countHeld(ctx context.Context, opt *RestoreOptions) {
	d, err := db.Open(ctx, opt.Database, db.Options{MustExist: true, Readers: 1, Log: opt.Log})
	if err == nil {
		err = d.Read(ctx, func(t *db.Tx) error {
			held, err := tasks.ReadRestored(ctx, t)
			r.Queued, r.UnderWay = held.Queued, held.UnderWay
			return err
		})
		err = errors.Join(err, d.Close())
	}
	if err != nil {
		opt.Log.Warn("count the tasks that wait since the restore", "err", err)
	}
}

// files decrypts database, blobs and key to their places, but for the database,
// which is staged.
func (s *Store) files(ctx context.Context, dir string, opt *RestoreOptions, r *Restored, staged string) error {
	m, found := &r.Manifest, &problems{}
	_, err := unsealDatabase(ctx, dir, m, staged, opt.Keys.identities(), tellOf(opt.Progress, "decrypting the database", m.Database.Size), found)
	if err == nil {
		err = found.err(m.ID)
	}
	if err == nil {
		err = syncFile(staged)
	}
	if err == nil {
		err = failpoint.Hit("restore-staged")
	}
	if err != nil {
		return err
	}
	blobs, err := blob.OpenDir(filepath.Join(opt.Data, "blobs"))
	if err != nil {
		return err
	}
	err = s.eachBlob(ctx, dir, m, opt.Keys.identities(), tellOf(opt.Progress, "restoring packages, artifacts and logs", m.BlobBytes), found, func(h blob.Hash, size int64, in io.Reader) error {
		if err := dropDamaged(ctx, blobs, h, size); err != nil {
			return err
		}
		_, err := blobs.Put(ctx, in, size)
		return errors.Join(err, failpoint.Hit("restore-blob"))
	})
	if err == nil {
		err = found.err(m.ID)
	}
	return err
}

// syncFile has the content of a file on the disk.
func syncFile(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// dropDamaged removes a blob whose content is not what its name says, so that a
// good one takes its place.
func dropDamaged(ctx context.Context, blobs *blob.Dir, h blob.Hash, size int64) error {
	r, n, err := blobs.Open(ctx, h)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	sum := newCounted(io.Discard, nil)
	_, err = io.Copy(sum, stopped{ctx, r})
	if err := errors.Join(err, r.Close()); err == nil && n == size && sum.hex() == string(h) {
		return nil
	}
	_, err = blobs.Delete(ctx, h, time.Now().Add(time.Hour))
	return err
}

// putKey makes the backup's master key that of the data directory.
func putKey(opt *RestoreOptions, r *Restored, master secret.MasterKey) error {
	if !opt.ManagedKey {
		return nil // whoever looks after it gave it
	}
	path := filepath.Join(opt.Data, secret.FileName)
	err := secret.PutMasterKey(opt.Data, master)
	if !fault.Is(err, fault.Conflict) {
		return err
	}
	r.KeptKey = path + beforeSuffix
	if err := keep(path, r.KeptKey); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil {
		return err
	}
	return secret.PutMasterKey(opt.Data, master)
}

// keep links a file under another name, in the place of what had that name.
func keep(path, as string) error {
	if err := os.Remove(as); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.Link(path, as); err != nil {
		return err
	}
	return durable.SyncDir(filepath.Dir(as)) // before the first name goes
}

func (s *Store) restoreSQLite(ctx context.Context, dir string, opt *RestoreOptions, r *Restored, master secret.MasterKey) error {
	path, ok := sqlitePath(opt.Database)
	if !ok {
		return fault.New(fault.Invalid, "The backup is of SQLite, and --database is another; leave it out, and move the data afterwards.")
	}
	half, err := readPending(opt.Data)
	if err != nil {
		return err
	}
	staged := path + stagedSuffix
	r.Newer, r.Unreadable = half.Newer, half.Unreadable
	if half.Backup == "" {
		if err := s.files(ctx, dir, opt, r, staged); err != nil {
			return errors.Join(err, removeDatabase(staged))
		}
		if err := r.reincarnate(ctx, staged, opt.Log); err != nil {
			return errors.Join(err, removeDatabase(staged))
		}
		r.countNewer(ctx, opt, path)
		text, err := json.Marshal(pending{r.ID, r.Newer, r.Unreadable})
		if err != nil {
			return err
		}
		if err := writeFile(filepath.Join(opt.Data, pendingFile), text); err != nil {
			return err
		}
	}
	if err := failpoint.Hit("restore-marked"); err != nil {
		return err
	}
	// From here on no server starts before all of it is done.
	if err := putKey(opt, r, master); err != nil {
		return err
	}
	if err := swap(path, staged, r); err != nil {
		return err
	}
	if err := failpoint.Hit("restore-swapped"); err != nil {
		return err
	}
	if err := os.Remove(filepath.Join(opt.Data, pendingFile)); err != nil {
		return err
	}
	return durable.SyncDir(opt.Data)
}

// swap keeps the database at path under another name, with its write-ahead log,
// and puts the staged one in its place. The log must go before: SQLite would apply
// it to whatever database it finds beside it.
func swap(path, staged string, r *Restored) error {
	if _, err := os.Stat(staged); errors.Is(err, fs.ErrNotExist) {
		r.Replaced, r.Kept = exists(path+beforeSuffix), path+beforeSuffix
		return durable.SyncDir(filepath.Dir(path)) // done before
	}
	// "moved" says that the kept one is whole, so that a second call does not keep
	// a database without its log in the place of one with it.
	moved := path + beforeSuffix + ".whole"
	if !exists(moved) && exists(path) {
		for _, suffix := range []string{"-shm", "-wal", ""} {
			from, to := path+suffix, path+beforeSuffix+suffix
			if err := os.Remove(to); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			if suffix == "-shm" {
				continue // SQLite makes it anew
			}
			if err := os.Link(from, to); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if err := writeFile(moved, nil); err != nil {
			return err
		}
	}
	if err := failpoint.Hit("restore-kept"); err != nil {
		return err
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	if err := durable.SyncDir(filepath.Dir(path)); err != nil {
		return err
	}
	if err := failpoint.Hit("restore-unlogged"); err != nil {
		return err
	}
	// "moved" goes once that is durable: without it, what is at path is kept once more.
	if err := durable.Rename(staged, path); err != nil {
		return err
	}
	r.Replaced, r.Kept = exists(path+beforeSuffix), path+beforeSuffix
	if err := os.Remove(moved); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return errors.Join(removeDatabase(staged), durable.SyncDir(filepath.Dir(path)))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// removeDatabase removes a database that nobody uses, with what is beside it.
func removeDatabase(path string) error {
	var all error
	for _, suffix := range []string{"", "-wal", "-shm", "-next", "-turn"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	return all
}

// reincarnate checks the staged database and begins its new life.
func (r *Restored) reincarnate(ctx context.Context, staged string, log *slog.Logger) error {
	d, err := db.Open(ctx, "sqlite:"+staged, db.Options{MustExist: true, Log: log})
	if err != nil {
		return err
	}
	damage, err := d.Integrity(ctx)
	if err == nil && len(damage) > 0 {
		err = fmt.Errorf("the database is damaged: %s", damage[0])
	}
	if err == nil {
		err = db.Reincarnate(ctx, d, "")
	}
	if err == nil {
		err = d.Write(ctx, func(t *db.Tx) error {
			for _, table := range livingTables() {
				if _, err := t.Exec(ctx, `DELETE FROM `+table); err != nil {
					return err
				}
			}
			for _, statement := range tasks.HoldSQL("main", r.ID, r.Created, t.Now()) {
				if _, err := t.Exec(ctx, statement); err != nil {
					return fmt.Errorf("hold what was under way: %w", err)
				}
			}
			return nil
		})
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
	return errors.Join(f.Sync(), f.Close())
}

// countNewer counts what the replaced database has and the backup has not.
func (r *Restored) countNewer(ctx context.Context, opt *RestoreOptions, path string) {
	if path != "" && !exists(path) {
		return
	}
	d, err := db.Open(ctx, opt.Database, db.Options{MustExist: true, Log: opt.Log})
	if err == nil {
		err = r.newer(ctx, d)
		err = errors.Join(err, d.Close())
	}
	if err != nil {
		opt.Log.Warn("the database that is replaced cannot be read, so nobody can tell what it has beyond the backup", "err", err)
		r.Unreadable = true
	}
}

func (r *Restored) newer(ctx context.Context, d *db.DB) (err error) {
	r.Newer, err = DeploymentsSince(ctx, d, r.Created)
	return err
}

// DeploymentsSince counts the deployments of a database that are newer than an instant: what
// a restore of a backup of then would lose of them. The database may be of another version.
func DeploymentsSince(ctx context.Context, d *db.DB, at time.Time) (n int64, err error) {
	err = d.Read(ctx, func(t *db.Tx) error {
		return t.QueryRow(ctx, `SELECT count(*) FROM deployment d WHERE d.created > ?`, db.Micros(at)).Scan(&n)
	})
	return n, err
}

func sqlitePath(url string) (string, bool) {
	const scheme = "sqlite:"
	if len(url) < len(scheme) || url[:len(scheme)] != scheme {
		return "", false
	}
	return url[len(scheme):], true
}
