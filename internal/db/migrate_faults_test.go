package db_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/fault"
)

// fingerprint is that of a schema as it is, whatever the database has noted.
func fingerprint(t *testing.T, d *db.DB) string {
	t.Helper()
	in, err := db.Inspect(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return in.Fingerprint
}

// TestThirdOfFiveFails has a version bring five migrations, of which the third one fails on
// the data: the first two stay, nothing of the third one does, the version before works,
// and the next try goes on with the third one.
func TestThirdOfFiveFails(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, url string) {
		files := upTo(core(t), 1)
		maps.Copy(files, fstest.MapFS{
			"m/0002_first.sql":  {Data: []byte("-- tako: level 2, tx\nCREATE TABLE next_first (id BIGINT NOT NULL PRIMARY KEY);")},
			"m/0003_second.sql": {Data: []byte("-- tako: level 2, tx\nALTER TABLE documents ADD COLUMN extra TEXT NOT NULL DEFAULT '';")},
			"m/0004_third.sql":  {Data: []byte("-- tako: level 2, tx\nCREATE TABLE next_third (kind TEXT NOT NULL PRIMARY KEY);\nALTER TABLE documents ADD COLUMN third TEXT NOT NULL DEFAULT '';\nINSERT INTO next_third (kind) SELECT d.kind FROM documents d;")},
			"m/0005_fourth.sql": {Data: []byte("-- tako: level 2, notx\nCREATE INDEX documents_by_extra ON documents (extra, id);")},
			"m/0006_fifth.sql":  {Data: []byte("-- tako: level 2, tx\nCREATE TABLE next_fifth (id BIGINT NOT NULL PRIMARY KEY);")},
		})
		levels := db.Levels{Level: 2, Min: 1, MinReader: 1}
		old := empty(t, url, db.Levels{Level: 1, Min: 1, MinReader: 1})
		mustMigrate(t, old, upTo(files, 1), "1.0")
		write(t, old, func(tx *db.Tx) error {
			if err := insertDocument(t.Context(), tx, 1, ""); err != nil {
				return err
			}
			return insertDocument(t.Context(), tx, 2, "")
		})
		d := empty(t, url, levels)
		err := db.MigrateFS(t.Context(), d, files, "m", db.MigrateOptions{By: "2.0"})
		if err == nil || !strings.Contains(err.Error(), "migration 0004_third") || !strings.Contains(err.Error(), "INSERT INTO next_third") {
			t.Fatalf("Migrate: %v, want an error that names migration and statement", err)
		}
		half := empty(t, dbtest.EmptyURL(t, d.Dialect()), levels)
		mustMigrate(t, half, upTo(files, 3), "")
		if got, want := fingerprint(t, d), fingerprint(t, half); got != want {
			t.Errorf("the fingerprint after the failure is %s; that of the first two migrations is %s", got, want)
		}
		if m := meta(t, d); m.SchemaLevel != 1 || m.ExpandedBy != "1.0" {
			t.Errorf("after the failure: %+v", m)
		}
		if err := db.CheckStart(t.Context(), old, db.Levels{Level: 1, Min: 1, MinReader: 1}); err != nil {
			t.Errorf("the version before: %v", err)
		}
		write(t, old, func(tx *db.Tx) error {
			_, err := tx.Exec(t.Context(), `DELETE FROM documents WHERE id = 'Bench-2'`)
			return err
		})
		if taken, want := mustMigrate(t, d, files, "2.0"), []string{"0004_third", "0005_fourth", "0006_fifth"}; !slices.Equal(taken, want) {
			t.Errorf("the next try takes %v, not %v", taken, want)
		}
		whole := empty(t, dbtest.EmptyURL(t, d.Dialect()), levels)
		mustMigrate(t, whole, files, "")
		if got, want := fingerprint(t, d), fingerprint(t, whole); got != want || meta(t, d).SchemaLevel != 2 {
			t.Errorf("the fingerprint in the end is %s, that of a new database %s: %+v", got, want, meta(t, d))
		}
	})
}

// TestLongReader has somebody read a table for longer than a migration waits for it: the
// migration names that process and changes nothing, others write all the time, and when the
// reader has ended the next try goes through.
func TestLongReader(t *testing.T) {
	t.Parallel()
	files := core(t)
	url := dbtest.EmptyURL(t, db.Postgres)
	d, other := empty(t, url, db.Levels{Level: 3, Min: 1, MinReader: 1}), empty(t, url, db.Levels{Level: 1, Min: 1, MinReader: 1})
	mustMigrate(t, other, upTo(files, 1), "")
	before := fingerprint(t, d)
	db.Impatient(d, 4)

	reads, release := make(chan int, 1), make(chan struct{})
	end := sync.OnceFunc(func() { close(release) })
	var wg sync.WaitGroup
	defer wg.Wait()
	defer end()
	wg.Go(func() {
		err := other.Snapshot(t.Context(), func(tx *db.Tx) error {
			var n, pid int
			if err := tx.QueryRow(t.Context(), `SELECT count(*), pg_backend_pid() FROM documents`).Scan(&n, &pid); err != nil {
				return err
			}
			reads <- pid
			<-release
			return nil
		})
		if err != nil {
			t.Error(err)
			close(reads)
		}
	})
	pid, ok := <-reads
	if !ok {
		return
	}
	ended := make(chan error, 1)
	go func() { ended <- db.MigrateFS(t.Context(), d, files, "m", db.MigrateOptions{}) }()
	for i := range 5 {
		write(t, other, func(tx *db.Tx) error { return insertDocument(t.Context(), tx, int64(10+i), "") })
	}
	err := <-ended
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), fmt.Sprintf("locked by process %d (user ", pid)) || !strings.Contains(err.Error(), "migration 0002_two") {
		t.Errorf("Migrate: %v, want an error that names migration and process %d", err, pid)
	}
	if got := fingerprint(t, d); got != before || meta(t, d).SchemaLevel != 1 {
		t.Errorf("the fingerprint is %s after it was %s: %+v", got, before, meta(t, d))
	}
	end()
	wg.Wait()
	if taken := mustMigrate(t, d, files, ""); len(taken) != 2 {
		t.Errorf("then %v are taken", taken)
	}
}
