package retention_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/retention"
)

const home ident.SpaceID = "Spaces-1"

// world is a store of blobs with packages that name some of them.
type world struct {
	t     *testing.T
	db    *db.DB
	dir   string
	blobs *blob.Dir
	feed  *feed.Repository
	task  *retention.Task
}

func onBoth(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		w := &world{t: t, db: d, dir: t.TempDir()}
		var err error
		if w.blobs, err = blob.OpenDir(w.dir); err != nil {
			t.Fatal(err)
		}
		w.feed = feed.New(d, w.blobs)
		w.task = retention.New(retention.Config{DB: d, Packages: w.feed, Blobs: w.blobs, RunDir: w.run()})
		fn(t, w)
	})
}

// run is where processes have their locks.
func (w *world) run() string { return filepath.Join(w.dir, "run") }

func (w *world) put(content string) blob.Hash {
	w.t.Helper()
	info, err := w.blobs.Put(w.t.Context(), strings.NewReader(content), 1<<20)
	if err != nil {
		w.t.Fatal(err)
	}
	return info.Hash
}

func (w *world) push(version, content string) {
	w.t.Helper()
	if _, _, err := w.feed.Push(w.t.Context(), home, "A."+version+".zip", strings.NewReader(content), feed.FailIfExists); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) write(statement string, args ...any) {
	w.t.Helper()
	err := w.db.Write(w.t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(w.t.Context(), statement, args...)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

// pass lets everything be so much older.
func (w *world) pass(by time.Duration) {
	w.t.Helper()
	for info, err := range w.blobs.List(w.t.Context()) {
		if err != nil {
			w.t.Fatal(err)
		}
		at := info.Used.Add(-by)
		if err := os.Chtimes(filepath.Join(w.dir, string(info.Hash[:2]), string(info.Hash)), at, at); err != nil {
			w.t.Fatal(err)
		}
	}
	w.write(`UPDATE blob_orphan SET since = since - ?`, by.Microseconds())
}

func (w *world) sweep() int {
	w.t.Helper()
	n, _, err := w.task.Sweep(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

func (w *world) there(h blob.Hash) bool {
	_, err := w.blobs.Stat(w.t.Context(), h)
	return err == nil
}

func (w *world) orphans() (n int) {
	w.t.Helper()
	err := w.db.Read(w.t.Context(), func(tx *db.Tx) error {
		return tx.QueryRow(w.t.Context(), `SELECT count(*) FROM blob_orphan`).Scan(&n)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// TestSweep takes a blob from being put to being deleted, past all that keeps it.
func TestSweep(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.push("1.0", "package")
		named := w.put("package")
		w.write(`INSERT INTO artifact (id, seq, task, space_id, filename, source, correlation, created, size, sha256) VALUES ('Artifacts-1', 1, '', '', '', '', '', 0, 0, ?)`, string(w.put("artifact")))
		w.write(`INSERT INTO task_log_segment (task, line_from, lines, bytes, sha256) VALUES ('ServerTasks-1', 1, 1, 1, ?)`, string(w.put("log")))
		orphan, used, again := w.put("orphan"), w.put("named in time"), w.put("put again")
		if w.sweep() != 0 || w.orphans() != 0 {
			t.Error("young blobs are swept or noted")
		}
		w.pass(blob.Grace)
		if w.sweep() != 0 || w.orphans() != 3 {
			t.Errorf("%d of 3 orphans are noted", w.orphans())
		}
		w.pass(blob.Grace / 2)
		if n := w.sweep(); n != 0 {
			t.Errorf("%d are deleted before their time", n)
		}
		w.push("2.0", "named in time") // while it is an orphan: it is put again, and so young
		w.put("put again")
		w.pass(blob.Grace / 2)
		if n := w.sweep(); n != 1 || w.there(orphan) || !w.there(used) || !w.there(again) {
			t.Errorf("%d were deleted; there are: orphan %t, used %t, put again %t", n, w.there(orphan), w.there(used), w.there(again))
		}
		w.pass(2 * blob.Grace)
		w.sweep()
		if w.there(again) {
			t.Error("an orphan that was put again stays for ever")
		}
		if n := w.orphans(); n != 0 {
			t.Errorf("%d notes are left", n)
		}
		// The last row goes: the blob stays for who still reads it, or has it in a list.
		w.write(`DELETE FROM package WHERE version = '1.0'`)
		w.sweep()
		if !w.there(named) {
			t.Error("a blob goes in the moment that its row does")
		}
		w.pass(blob.Grace)
		if n := w.sweep(); n != 1 || w.there(named) {
			t.Errorf("%d went, and the package's is there: %t", n, w.there(named))
		}
		left := 0
		for range w.blobs.List(t.Context()) {
			left++
		}
		if left != 3 {
			t.Errorf("%d blobs are left of the 3 that are named", left)
		}
	})
}

// TestHold keeps blobs from a sweep for as long as their holder lives.
func TestHold(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		orphan := w.put("orphan")
		w.pass(blob.Grace)
		w.sweep()
		w.pass(blob.Grace)
		first, err := retention.Hold(t.Context(), w.db, w.run(), dbtest.Log(t))
		if err != nil {
			t.Fatal(err)
		}
		second, err := retention.Hold(t.Context(), w.db, w.run(), dbtest.Log(t))
		if err != nil {
			t.Fatal(err)
		}
		for _, held := range []*retention.Holding{first, second} {
			if n := w.sweep(); n != 0 || !w.there(orphan) || w.orphans() != 1 {
				t.Errorf("a sweep deletes %d although they are held; %d notes are left", n, w.orphans())
			}
			if !held.Kept() {
				t.Error("a hold that was kept says that it was not")
			}
			if err := held.Release(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		// What a killed process leaves: a row, and on SQLite a file that nobody locks.
		w.write(`INSERT INTO blob_hold (id, started, beat) VALUES ('dead', 1, 1)`)
		left := filepath.Join(w.run(), "hold-dead.lock")
		if err := os.MkdirAll(w.run(), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(left, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if n := w.sweep(); n != 1 || w.there(orphan) {
			t.Errorf("%d were deleted once nobody alive holds them", n)
		}
		var rows int
		err = w.db.Read(t.Context(), func(tx *db.Tx) error {
			return tx.QueryRow(t.Context(), `SELECT count(*) FROM blob_hold`).Scan(&rows)
		})
		if _, gone := os.Stat(left); err != nil || rows != 0 || gone == nil {
			t.Errorf("%d rows of holds are left, %v; of the lock's file: %v", rows, err, gone)
		}
	})
}

// TestSweepBesideUploads: two servers sweep while packages are pushed whose contents
// are there already as orphans that are due. Every package that was accepted has its
// content in the end.
func TestSweepBesideUploads(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		const n = 150
		for i := range n {
			w.put(fmt.Sprint("content ", i))
		}
		w.pass(blob.Grace)
		w.sweep()
		w.pass(blob.Grace)
		second := retention.New(retention.Config{DB: w.db, Blobs: reopened(t, w.dir), RunDir: w.run()})
		ctx, cancel := context.WithCancel(t.Context())
		var sweepers, pushers sync.WaitGroup
		for _, task := range []*retention.Task{w.task, second} {
			sweepers.Go(func() {
				for ctx.Err() == nil {
					if _, _, err := task.Sweep(ctx); err != nil && ctx.Err() == nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for part := range 3 {
			pushers.Go(func() {
				for i := part; i < n; i += 3 {
					if _, _, err := w.feed.Push(t.Context(), home, fmt.Sprintf("A.1.0.%d.zip", i), strings.NewReader(fmt.Sprint("content ", i)), feed.FailIfExists); err != nil {
						t.Error(err)
					}
				}
			})
		}
		pushers.Wait()
		cancel()
		sweepers.Wait()
		err := w.db.Read(t.Context(), func(tx *db.Tx) error {
			return w.feed.Versions(t.Context(), tx, home, "A", func(p *feed.Package) bool {
				if !w.there(blob.Hash(p.SHA256)) {
					t.Errorf("the content of %s is gone", p.Version)
				}
				return true
			})
		})
		if err != nil {
			t.Error(err)
		}
	})
}

func reopened(t *testing.T, dir string) *blob.Dir {
	t.Helper()
	d, err := blob.OpenDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestNamersAreAll: a table that names blobs and is unknown to Sweep would lose them.
func TestNamersAreAll(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		// Hashes of the program's own migrations are no blobs'.
		query := `SELECT m.name FROM sqlite_schema m JOIN pragma_table_info(m.name) c WHERE m.type = 'table' AND c.name LIKE '%sha256%'`
		if w.db.Dialect() == db.Postgres {
			query = `SELECT c.table_name::text FROM information_schema.columns c WHERE c.table_schema = current_schema() AND c.column_name LIKE '%sha256%'`
		}
		var found []string
		err := w.db.Read(t.Context(), func(tx *db.Tx) error {
			found = nil
			rows, err := tx.Query(t.Context(), query)
			if err != nil {
				return err
			}
			defer func() { _ = rows.Close() }() // Err tells
			for rows.Next() {
				var name string
				if err := rows.Scan(&name); err != nil {
					return err
				}
				if name != "tako_migration" {
					found = append(found, name)
				}
			}
			return rows.Err()
		})
		if err != nil {
			t.Fatal(err)
		}
		want := append([]string{"blob_orphan"}, retention.BlobTables()...)
		slices.Sort(found)
		slices.Sort(want)
		if !slices.Equal(found, want) {
			t.Errorf("the tables with hashes are %v, and Sweep knows %v; a new one that names blobs belongs to namers", found, want)
		}
	})
}
