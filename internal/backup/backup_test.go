package backup_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/disktest"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/retention"
	"github.com/takodeploy/tako/internal/secret"
)

// world is the part of a server that backups are made of.
type world struct {
	t     *testing.T
	dir   string
	db    *db.DB
	src   secret.Source
	box   *secret.Box
	blobs *blob.Dir
	store *backup.Store
	hash  []blob.Hash
}

func newWorld(t *testing.T, dialect db.Dialect, dir string) *world {
	t.Helper()
	w := &world{t: t, dir: dir, db: dbtest.Open(t, dialect), src: secret.Source{Dir: filepath.Join(dir, "data")}}
	var err error
	if err = os.Mkdir(w.src.Dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if w.box, err = secret.Open(t.Context(), w.db, w.src); err != nil {
		t.Fatal(err)
	}
	if err := w.box.EnsureRecovery(t.Context()); err != nil {
		t.Fatal(err)
	}
	if w.blobs, err = blob.OpenDir(filepath.Join(w.src.Dir, "blobs")); err != nil {
		t.Fatal(err)
	}
	if w.store, err = backup.Open(filepath.Join(dir, "backups")); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		w.artifact(i, bytes.Repeat([]byte(fmt.Sprint("content ", i)), 20_000))
	}
	return w
}

// artifact stores a blob and the row that refers to it.
func (w *world) artifact(n int, content []byte) {
	w.t.Helper()
	info, err := w.blobs.Put(w.t.Context(), bytes.NewReader(content), 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	w.hash = append(w.hash, info.Hash)
	err = w.db.Write(w.t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(w.t.Context(), `INSERT INTO artifact (id, seq, task, space_id, filename, source, correlation, created, size, sha256)
			VALUES (?, ?, 't', 's', 'f', '', '', 0, ?, ?)`, fmt.Sprint("Artifacts-", n), n, info.Size, string(info.Hash))
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) temp() string { return filepath.Join(w.src.Dir, "tmp") }

// run is where the processes of the server have their locks.
func (w *world) run() string { return filepath.Join(w.src.Dir, "run") }

func (w *world) create(progress func(backup.Progress)) (backup.Manifest, error) {
	return w.store.Create(w.t.Context(), backup.Source{DB: w.db, Keys: w.box, Blobs: w.blobs, RunDir: w.run(), Temp: w.temp(), Version: "1", Log: dbtest.Log(w.t), Progress: progress})
}

func (w *world) mustCreate() backup.Manifest {
	w.t.Helper()
	m, err := w.create(nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return m
}

func (w *world) verify(id string, level int, change func(*backup.VerifyOptions)) error {
	w.t.Helper()
	keys, err := backup.ServerKeys(w.t.Context(), w.box, w.src, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	opt := backup.VerifyOptions{Level: level, Keys: keys, Temp: w.temp(), Server: w.db, Places: secret.Places, Log: dbtest.Log(w.t)}
	if change != nil {
		change(&opt)
	}
	_, err = w.store.Verify(w.t.Context(), id, opt)
	return err
}

// tree lists the files below a directory, without those of locks.
func tree(t *testing.T, dir string) (all []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && e.Name() != ".lock" {
			all = append(all, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestDamageIsFoundAndNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, db.SQLite, t.TempDir())
	m := w.mustCreate()
	if err := w.verify(m.ID, backup.LevelDatabase, nil); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(w.store.Dir(), m.ID)
	pool := filepath.Join(w.store.Dir(), "blobs", m.Pool)
	aBlob := filepath.Join(pool, string(w.hash[1][:2]), string(w.hash[1])+".age")
	flip := func(at func(n int) int) func([]byte) []byte {
		return func(b []byte) []byte {
			b[at(len(b))] ^= 1
			return b
		}
	}
	middle := func(n int) int { return n / 2 }
	for name, c := range map[string]struct {
		path   string
		change func([]byte) []byte // nil removes the file
		want   string
	}{
		"a bit of the database":    {filepath.Join(dir, "database.age"), flip(middle), "database.age"},
		"a bit of its header":      {filepath.Join(dir, "database.age"), flip(func(int) int { return 30 }), "database.age"},
		"the database cut short":   {filepath.Join(dir, "database.age"), func(b []byte) []byte { return b[:len(b)-1] }, "database.age has"},
		"no database":              {filepath.Join(dir, "database.age"), nil, "database.age is not there"},
		"a bit of a blob":          {aBlob, flip(middle), "blob " + string(w.hash[1])},
		"a bit of a blob's header": {aBlob, flip(func(int) int { return 30 }), "blob " + string(w.hash[1])},
		"a blob cut short":         {aBlob, func(b []byte) []byte { return b[:len(b)/2] }, "blob " + string(w.hash[1])},
		"a blob cut at a chunk":    {aBlob, func(b []byte) []byte { return b[:len(b)-(len(b)%(64<<10))] }, "blob " + string(w.hash[1])},
		"an empty blob":            {aBlob, func([]byte) []byte { return nil }, "blob " + string(w.hash[1])},
		"no blob":                  {aBlob, nil, "blob " + string(w.hash[1]) + " is not there"},
		"a bit of the list":        {filepath.Join(dir, "blobs.txt"), flip(middle), "blobs.txt is damaged"},
		"a line less in the list":  {filepath.Join(dir, "blobs.txt"), func(b []byte) []byte { return b[bytes.IndexByte(b, '\n')+1:] }, "blobs.txt is damaged"},
		"no list":                  {filepath.Join(dir, "blobs.txt"), nil, "blobs.txt"},
		"a bit of the manifest":    {filepath.Join(dir, "manifest.json"), flip(middle), "manifest.json is damaged"},
		"the manifest cut short":   {filepath.Join(dir, "manifest.json"), func(b []byte) []byte { return b[:len(b)/2] }, "manifest.json is damaged"},
	} {
		was, err := os.ReadFile(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if c.change == nil {
			err = os.Remove(c.path)
		} else {
			err = os.WriteFile(c.path, c.change(slices.Clone(was)), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		err = w.verify(m.ID, backup.LevelFiles, nil)
		var damaged *backup.DamagedError
		if !errors.As(err, &damaged) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want a DamagedError that names %q", name, err, c.want)
		}
		if all, err := w.store.List(); err != nil || len(all) != 1 || all[0].Verified != nil {
			t.Errorf("%s: the list says %+v, %v", name, all, err)
		}
		into := filepath.Join(t.TempDir(), "data")
		if err := w.restore(m.ID, into); !errors.As(err, &damaged) {
			t.Errorf("%s: restore: %v", name, err)
		}
		if _, err := os.Stat(filepath.Join(into, "tako.db")); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: restore left a database: %v", name, err)
		}
		if err := os.WriteFile(c.path, was, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.verify(m.ID, backup.LevelDatabase, nil); err != nil {
		t.Errorf("the backup as it was: %v", err)
	}
}

func (w *world) restore(id, data string) error {
	w.t.Helper()
	return w.restoreTo(id, data, "sqlite:"+filepath.Join(data, "tako.db"))
}

// target is an empty database of the same kind, for a data directory.
func (w *world) target(data string) string {
	w.t.Helper()
	if w.db.Dialect() == db.Postgres {
		return dbtest.EmptyURL(w.t, db.Postgres)
	}
	return "sqlite:" + filepath.Join(data, "tako.db")
}

func (w *world) restoreTo(id, data, database string) error {
	w.t.Helper()
	keys, err := backup.ServerKeys(w.t.Context(), w.box, w.src, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = w.store.Restore(w.t.Context(), id, backup.RestoreOptions{
		Data: data, Database: database, RunDir: filepath.Join(data, "run"), ManagedKey: true, Keys: keys, Log: dbtest.Log(w.t),
	})
	return err
}

func TestTheWrongKeyIsNoDamage(t *testing.T) {
	t.Parallel()
	dbtestRun(t, func(t *testing.T, w *world) {
		m := w.mustCreate()
		other, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		wrong := func(o *backup.VerifyOptions) { o.Keys = backup.Keys{Identities: []age.Identity{other}} }
		err = w.verify(m.ID, backup.LevelFiles, wrong)
		var damaged *backup.DamagedError
		if err == nil || errors.As(err, &damaged) || !strings.Contains(err.Error(), "none of the keys at hand") {
			t.Errorf("verify with another key: %v", err)
		}
		// The kit alone opens everything.
		kit, err := w.box.RevealRecovery(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := w.verify(m.ID, backup.LevelDatabase, func(o *backup.VerifyOptions) { o.Keys = backup.Keys{Recovery: &kit} }); err != nil {
			t.Errorf("verify with the kit: %v", err)
		}
		// After a rotation the files open still, and new ones do not mix with them.
		if _, err := w.box.Rotate(t.Context(), secret.RotateOptions{Places: secret.Places()}); err != nil {
			t.Fatal(err)
		}
		if err := w.verify(m.ID, backup.LevelFiles, nil); err != nil {
			t.Errorf("verify after a rotation: %v", err)
		}
		next := w.mustCreate()
		if next.Pool == m.Pool {
			t.Error("blobs under former keys are taken for those under new ones")
		}
		if err := w.verify(next.ID, backup.LevelDatabase, nil); err != nil {
			t.Errorf("verify a backup under the new key: %v", err)
		}
	})
}

func dbtestRun(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			fn(t, newWorld(t, dialect, t.TempDir()))
		})
	}
}

func TestBlobsThatTheServerLost(t *testing.T) {
	t.Parallel()
	w := newWorld(t, db.SQLite, t.TempDir())
	paths := make([]string, len(w.hash))
	for i, h := range w.hash {
		paths[i] = filepath.Join(w.src.Dir, "blobs", string(h[:2]), string(h))
	}
	if err := os.Remove(paths[0]); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(paths[1], []byte("other"), 0o600); err != nil {
		t.Fatal(err)
	}
	m := w.mustCreate()
	want := []string{string(w.hash[0]), string(w.hash[1])}
	slices.Sort(want)
	if diff := cmp.Diff(want, m.Missing); diff != "" || m.BlobCount != 1 {
		t.Errorf("missing: %s, %d blobs", diff, m.BlobCount)
	}
	if err := w.verify(m.ID, backup.LevelFiles, nil); err != nil {
		t.Error(err)
	}
}

// fill takes all the space of a file system, until release.
func fill(t *testing.T, dir string) (release func()) {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	block := make([]byte, 4096)
	for err == nil {
		_, err = f.Write(block)
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := disktest.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}

// TestFullDisk lets the disk run full at each stage of a backup and a restore.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			disk := disktest.New(t, "size=32m")
			w := newWorld(t, dialect, disk)
			before := tree(t, disk)
			full := func(stage string) func(backup.Progress) {
				return func(p backup.Progress) {
					if p.Stage == stage && p.Done == 0 {
						fill(t, disk)
					}
				}
			}
			for _, stage := range []string{"copying the database", "encrypting the database", "copying packages, artifacts and logs"} {
				_, err := w.create(full(stage))
				if err == nil {
					t.Errorf("%s: a backup on a full disk", stage)
				} else if !fault.Is(err, fault.Unavailable) && !strings.Contains(err.Error(), "No space left") && !strings.Contains(err.Error(), "full") {
					t.Errorf("%s: the error does not say that the disk is full: %v", stage, err)
				}
				if err := disktest.Remove(filepath.Join(disk, "filler")); err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(before, withoutPool(tree(t, disk))); diff != "" {
					t.Errorf("%s: left behind (-before +after):\n%s", stage, diff)
				}
			}
			m := w.mustCreate()
			if err := w.verify(m.ID, backup.LevelDatabase, nil); err != nil {
				t.Fatal(err)
			}
			w.cloneOnFullDisk(m.ID, disk, full)
			into := filepath.Join(disk, "restored")
			target := w.target(into)
			for _, stage := range []string{"decrypting the database", "restoring packages, artifacts and logs"} {
				keys, err := backup.ServerKeys(t.Context(), w.box, w.src, nil)
				if err != nil {
					t.Fatal(err)
				}
				_, err = w.store.Restore(t.Context(), m.ID, backup.RestoreOptions{
					Data: into, Database: target, RunDir: filepath.Join(into, "run"), ManagedKey: true, Keys: keys, Progress: full(stage),
				})
				if !fault.Is(err, fault.Unavailable) {
					t.Errorf("%s: %v, want that the disk is full", stage, err)
				}
				if err := disktest.Remove(filepath.Join(disk, "filler")); err != nil {
					t.Fatal(err)
				}
				for _, path := range tree(t, into) {
					if name := filepath.Base(path); strings.HasPrefix(name, "tako.db") || name == "database" || name == "restore.pending" || name == secret.FileName {
						t.Errorf("%s: left %s", stage, path)
					}
				}
				if dialect == db.Postgres {
					if _, err := dbtest.OpenURL(t, target).Meta(t.Context()); !errors.Is(err, db.ErrNoSchema) {
						t.Errorf("%s: the target has something of it: %v", stage, err)
					}
				}
			}
			if err := w.restoreTo(m.ID, into, target); err != nil {
				t.Errorf("restore with room again: %v", err)
			}
			release := fill(t, disk)
			defer release()
			if _, err := w.create(nil); !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "are free") {
				t.Errorf("the forecast on a full disk: %v", err)
			}
		})
	}
}

// withoutPool leaves out the blobs of the pool: whole ones that the next backup uses.
func withoutPool(all []string) []string {
	return slices.DeleteFunc(all, func(path string) bool {
		return strings.Contains(path, "/backups/blobs/") && strings.HasSuffix(path, ".age")
	})
}

func TestPrune(t *testing.T) {
	t.Parallel()
	w := newWorld(t, db.SQLite, t.TempDir())
	first := w.mustCreate()
	if err := w.verify(first.ID, backup.LevelFiles, nil); err != nil {
		t.Fatal(err)
	}
	lone := w.hash[0]
	err := w.db.Write(t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(t.Context(), `DELETE FROM artifact WHERE sha256 = ?`, string(lone))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	w.mustCreate()
	newest := w.mustCreate().ID
	ids := func() (all []string) {
		list, err := w.store.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range list {
			all = append(all, b.ID)
		}
		slices.Sort(all)
		return all
	}
	sorted := func(all ...string) []string { slices.Sort(all); return all }
	if p, err := w.store.Prune(backup.Retention{}, true); err != nil || len(p.Backups) != 1 || len(ids()) != 3 {
		t.Errorf("a dry run: %+v, %v", p, err)
	}
	// The newest stays, and the newest that was proven.
	p, err := w.store.Prune(backup.Retention{}, false)
	if err != nil || p.Blobs != 0 {
		t.Errorf("prune: %+v, %v", p, err)
	}
	if diff := cmp.Diff(sorted(first.ID, newest), ids()); diff != "" {
		t.Errorf("prune kept (-want +got):\n%s", diff)
	}
	if err := w.verify(newest, backup.LevelFiles, nil); err != nil {
		t.Fatal(err)
	}
	p, err = w.store.Prune(backup.Retention{}, false)
	if err != nil || p.Blobs != 1 || len(ids()) != 1 {
		t.Errorf("prune when a newer one is proven: %+v, %v", p, err)
	}
	if err := w.verify(newest, backup.LevelDatabase, nil); err != nil {
		t.Errorf("what is left: %v", err)
	}
}

func TestRetention(t *testing.T) {
	t.Parallel()
	var all []backup.Backup
	for day := range 60 {
		for _, hour := range []int{20, 8} {
			at := time.Date(2026, 11, 27, hour, 0, 0, 0, time.UTC).AddDate(0, 0, -day)
			all = append(all, backup.Backup{Manifest: backup.Manifest{ID: at.Format("20060102T150405Z-aaaa"), Created: at}})
		}
	}
	all[100].Verified = &backup.Verified{Level: 1}
	all[110].Verified = &backup.Verified{Level: 1}
	all[119].Problem = "damaged"
	now := time.Date(2026, 11, 27, 21, 0, 0, 0, time.UTC)
	all[1].Pin = &backup.Pin{Upgrade: "u"} // that of an upgrade, and a scheduled one later on its day
	all[31].Pin = &backup.Pin{Until: now.Add(time.Second)}
	all[33].Pin = &backup.Pin{Until: now}
	var got []string
	stays := backup.Kept(all, backup.DefaultRetention(), now)
	for _, b := range all {
		if stays[b.ID] {
			got = append(got, b.ID[:11])
		}
	}
	want := []string{
		"20261127T20", "20261127T08", "20261126T20", "20261125T20", "20261124T20", "20261123T20", "20261122T20", "20261121T20", // seven days
		"20261115T20", all[31].ID[:11], "20261108T20", // of the weeks before, the last days
		all[100].ID[:11], all[119].ID[:11],
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
}

func TestTwoAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t, db.SQLite, t.TempDir())
	var second error
	_, err := w.create(func(p backup.Progress) {
		if p.Stage == "copying the database" {
			_, second = w.create(nil)
		}
	})
	var busy *backup.BusyError
	if err != nil || !errors.As(second, &busy) || busy.ExitCode() != 75 {
		t.Errorf("one gives %v, the other %v", err, second)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = w.store.Create(ctx, backup.Source{DB: w.db, Keys: w.box, Blobs: w.blobs, RunDir: w.run(), Temp: w.temp(), Progress: func(p backup.Progress) {
		if strings.HasPrefix(p.Stage, "encrypting") {
			cancel()
		}
	}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled backup: %v", err)
	}
	if all, err := w.store.List(); err != nil || len(all) != 1 {
		t.Errorf("%d backups, %v", len(all), err)
	}
}

// TestStaleLog restores over a database that does not open and has a write-ahead log
// beside it, which SQLite would apply to the restored one.
func TestStaleLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, db.SQLite, t.TempDir())
	err := w.db.Write(t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO counter (kind, next) VALUES ('Tests', 5)`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	m := w.mustCreate()
	data := filepath.Join(t.TempDir(), "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	// The log of another database at the same place, as a killed process leaves it.
	other := dbtest.Open(t, db.SQLite)
	path := strings.TrimPrefix(other.String(), "sqlite:")
	err = other.Write(t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(t.Context(), `DELETE FROM counter`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	stale, err := os.ReadFile(path + "-wal")
	if err != nil || len(stale) == 0 {
		t.Fatalf("there is no log to be stale: %d bytes, %v", len(stale), err)
	}
	kept := map[string][]byte{"tako.db": []byte("this is no database, but somebody may want it"), "tako.db-wal": stale, "tako.db-shm": nil}
	for name, content := range kept {
		if err := os.WriteFile(filepath.Join(data, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	keys, err := backup.ServerKeys(t.Context(), w.box, w.src, nil)
	if err != nil {
		t.Fatal(err)
	}
	target := filepath.Join(data, "tako.db")
	r, err := w.store.Restore(t.Context(), m.ID, backup.RestoreOptions{
		Data: data, Database: "sqlite:" + target, RunDir: filepath.Join(data, "run"), ManagedKey: true, Keys: keys,
	})
	if err != nil || !r.Replaced || !r.Unreadable {
		t.Fatalf("restore: %+v, %v", r, err)
	}
	for _, suffix := range []string{"-wal", "-shm"} {
		if _, err := os.Stat(target + suffix); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("tako.db%s is still there: %v", suffix, err)
		}
	}
	d := dbtest.OpenURL(t, "sqlite:"+target)
	if damage, err := d.Integrity(t.Context()); err != nil || len(damage) > 0 {
		t.Errorf("the restored database: %v, %v", damage, err)
	}
	// Whoever opens the database applies the log, unseen: its pages are whole.
	var counters int64
	err = d.Read(t.Context(), func(tx *db.Tx) error {
		return tx.QueryRow(t.Context(), `SELECT count(*) FROM counter`).Scan(&counters)
	})
	if err != nil || counters == 0 || counters != m.Rows["counter"] {
		t.Errorf("the restored database has %d counters of %d, %v", counters, m.Rows["counter"], err)
	}
	got, err := os.ReadFile(r.Kept)
	if err != nil || !bytes.Equal(got, kept["tako.db"]) {
		t.Errorf("kept %q, %v", got, err)
	}
	if got, err := os.ReadFile(r.Kept + "-wal"); err != nil || !bytes.Equal(got, stale) {
		t.Errorf("kept %d bytes of the log, %v, want %d", len(got), err, len(stale))
	}
}

// TestNothingIsSweptBesideABackup deletes the last row of a blob after a backup has listed
// it, and has it swept as if days had passed.
func TestNothingIsSweptBesideABackup(t *testing.T) {
	t.Parallel()
	dbtestRun(t, func(t *testing.T, w *world) {
		sweeper := retention.New(retention.Config{DB: w.db, Blobs: w.blobs, RunDir: w.run()})
		sweep := func() int {
			n, _, err := sweeper.Sweep(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		path := filepath.Join(w.src.Dir, "blobs", string(w.hash[0][:2]), string(w.hash[0]))
		m, err := w.create(func(p backup.Progress) {
			if !strings.HasPrefix(p.Stage, "copying packages") || p.Done > 0 {
				return
			}
			old := time.Now().Add(-4 * blob.Grace)
			err := w.db.Write(t.Context(), func(tx *db.Tx) error {
				if _, err := tx.Exec(t.Context(), `DELETE FROM artifact WHERE sha256 = ?`, string(w.hash[0])); err != nil {
					return err
				}
				_, err := tx.Exec(t.Context(), `INSERT INTO blob_orphan (sha256, since) VALUES (?, ?)`, string(w.hash[0]), db.Micros(old))
				return err
			})
			if err := errors.Join(err, os.Chtimes(path, old, old)); err != nil {
				t.Error(err)
			}
			if n := sweep(); n != 0 {
				t.Errorf("%d blobs were swept away beside a backup", n)
			}
		})
		if err != nil || len(m.Missing) != 0 || m.BlobCount != 3 {
			t.Errorf("the backup has %d blobs, without %v; %v", m.BlobCount, m.Missing, err)
		}
		if n := sweep(); n != 1 {
			t.Errorf("%d blobs were swept away after it, want 1", n)
		}
	})
}

// TestRotationOnAFullDisk changes the master key where there is no room: nothing is lost,
// and the same call with room brings it to its end.
func TestRotationOnAFullDisk(t *testing.T) {
	t.Parallel()
	disk := disktest.New(t, "size=16m")
	file, err := os.ReadFile(strings.TrimPrefix(dbtest.URL(t, db.SQLite), "sqlite:"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(disk, "tako.db"), file, 0o600); err != nil {
		t.Fatal(err)
	}
	d := dbtest.OpenURL(t, "sqlite:"+filepath.Join(disk, "tako.db"))
	src := secret.Source{Dir: disk}
	box, err := secret.Open(t.Context(), d, src)
	if err != nil {
		t.Fatal(err)
	}
	const many = 2000
	place := secret.Place{Table: "manifest", Keys: []string{"id"}, Column: "body", Refs: func(key []any, body string) ([]secret.Ref, error) {
		return []secret.Ref{{Owner: fmt.Sprint(key[0]), Field: "f", Envelope: body}}, nil
	}}
	places := []secret.Place{place}
	err = d.Write(t.Context(), func(tx *db.Tx) error {
		for i := range many {
			id := fmt.Sprint("m-", i)
			sealed, err := box.Seal(id, "f", bytes.Repeat([]byte("x"), 500))
			if err != nil {
				return err
			}
			if _, err := tx.Exec(t.Context(), `INSERT INTO manifest (id, owner, body) VALUES (?, '', ?)`, id, sealed); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	before := box.MasterID()
	release := fill(t, disk)
	_, err = box.Rotate(t.Context(), secret.RotateOptions{Places: places})
	if err == nil || !fault.Is(err, fault.Unavailable) && !errors.Is(err, unix.ENOSPC) {
		t.Errorf("a rotation on a full disk: %v, want that the disk is full", err)
	}
	// Whoever starts now has a key that opens everything.
	check := func(when string) *secret.Box {
		t.Helper()
		again, err := secret.Open(t.Context(), dbtest.OpenURL(t, d.String()), src)
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		h, err := again.Check(t.Context(), places)
		if err != nil || h.Values != many || h.DeadCount != 0 {
			t.Errorf("%s: of %d values %d do not open, %v", when, h.Values, h.DeadCount, err)
		}
		return again
	}
	again := check("full")
	release()
	if _, err := again.Rotate(t.Context(), secret.RotateOptions{Places: places}); err != nil {
		t.Fatalf("with room again: %v", err)
	}
	if after := check("with room again"); after.MasterID() == before {
		t.Error("the master key is the former one")
	}
}
