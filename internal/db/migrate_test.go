package db_test

import (
	"errors"
	"io/fs"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
)

// empty opens a database without a schema, for a binary of the given levels.
func empty(t *testing.T, url string, levels db.Levels) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), url, db.Options{Levels: levels, Log: dbtest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

// both runs fn on an empty database of each kind.
func both(t *testing.T, fn func(t *testing.T, url string)) {
	t.Helper()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			fn(t, dbtest.EmptyURL(t, dialect))
		})
	}
}

// core is a schema of three levels in which the tables of db stand.
func core(t *testing.T) fstest.MapFS {
	t.Helper()
	first, err := fs.ReadFile(db.Embedded(), "migrations/0001_core.sql")
	if err != nil {
		t.Fatal(err)
	}
	return fstest.MapFS{
		"m/0001_core.sql":  {Data: first},
		"m/0002_two.sql":   {Data: []byte("-- tako: level 2, tx\nCREATE TABLE two (id IDENTITY, name TEXT NOT NULL, data BLOB);\nALTER TABLE documents ADD COLUMN extra TEXT NOT NULL DEFAULT '';")},
		"m/0003_three.sql": {Data: []byte("-- tako: level 3, notx\nCREATE INDEX documents_by_extra ON documents (extra, id);")},
	}
}

// upTo are the first n migrations.
func upTo(files fstest.MapFS, n int) fstest.MapFS {
	out := fstest.MapFS{}
	for _, name := range slices.Sorted(maps.Keys(files))[:n] {
		out[name] = files[name]
	}
	return out
}

func mustMigrate(t *testing.T, d *db.DB, files fs.FS, by string) (taken []string) {
	t.Helper()
	err := db.MigrateFS(t.Context(), d, files, "m", db.MigrateOptions{By: by, Step: func(id string) { taken = append(taken, id) }})
	if err != nil {
		t.Fatal(err)
	}
	return taken
}

func meta(t *testing.T, d *db.DB) db.Meta {
	t.Helper()
	m, err := d.Meta(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestStepwiseIsFresh upgrades a database release by release and wants the very
// schema that a new one gets.
func TestStepwiseIsFresh(t *testing.T) {
	t.Parallel()
	files := core(t)
	var fresh sync.Map
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			one := empty(t, dbtest.EmptyURL(t, dialect), db.Levels{Level: 3, Min: 3, MinReader: 2})
			if taken := mustMigrate(t, one, files, "3.0"); len(taken) != 3 {
				t.Fatalf("a new database takes %v", taken)
			}
			want := meta(t, one)
			fresh.Store(dialect, want.Fingerprint)
			url := dbtest.EmptyURL(t, dialect)
			var first db.Meta
			for level := 1; level <= 3; level++ {
				d := empty(t, url, db.Levels{Level: level, Min: level, MinReader: max(1, level-1)})
				taken := mustMigrate(t, d, upTo(files, level), string(rune('0'+level))+".0")
				if len(taken) != 1 {
					t.Fatalf("level %d takes %v", level, taken)
				}
				if again := mustMigrate(t, d, upTo(files, level), "again"); len(again) != 0 {
					t.Fatalf("level %d takes %v again", level, again)
				}
				m := meta(t, d)
				if level == 1 {
					first = m
				}
				if m.SchemaLevel != level || m.ActiveLevel != 1 || m.MinReaderLevel != 1 || m.ExpandedBy != string(rune('0'+level))+".0" {
					t.Errorf("after expanding to level %d: %+v", level, m)
				}
				if m.InstallationID != first.InstallationID || m.Incarnation != first.Incarnation || len(m.InstallationID) != 36 {
					t.Errorf("level %d has installation %s, %s, before %s, %s", level, m.InstallationID, m.Incarnation, first.InstallationID, first.Incarnation)
				}
			}
			d := empty(t, url, db.Levels{Level: 3, Min: 3, MinReader: 2})
			if got := meta(t, d); got.Fingerprint != want.Fingerprint || got.Fingerprint == "" {
				t.Errorf("fingerprints %s stepwise and %s fresh", got.Fingerprint, want.Fingerprint)
			}
			if got := drift(t, d); len(got) != 0 {
				t.Errorf("drift: %+v", got)
			}
		})
	}
}

func drift(t *testing.T, d *db.DB) []db.Difference {
	t.Helper()
	out, err := db.Drift(t.Context(), d)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestDriftNamesWhatWasChanged(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		if got := drift(t, d); len(got) != 0 {
			t.Fatalf("a new database has drift %+v", got)
		}
		write(t, d, func(tx *db.Tx) error {
			for _, s := range []string{
				"DROP INDEX documents_by_slug", "CREATE INDEX mine ON documents (updated)",
				"ALTER TABLE counter ADD COLUMN note TEXT", "CREATE TABLE mine_too (id BIGINT)", "DROP TABLE document_refs",
			} {
				if _, err := tx.Exec(t.Context(), s); err != nil {
					return err
				}
			}
			return nil
		})
		kinds := map[string]string{}
		var remake string
		for _, diff := range drift(t, d) {
			kind := "changed"
			switch {
			case diff.Want == "":
				kind = "extra"
			case diff.Got == "":
				kind = "missing"
			}
			kinds[diff.Object] = kind
			if diff.Object == "index documents_by_slug" {
				remake = diff.Want
			}
		}
		want := map[string]string{
			"index documents_by_slug": "missing", "index mine": "extra", "table counter": "changed",
			"table mine_too": "extra", "table document_refs": "missing", "index document_refs_by_target": "missing",
		}
		if d.Dialect() == db.Postgres {
			want["index document_refs_pkey"] = "missing"
		}
		if diff := cmp.Diff(want, kinds); diff != "" {
			t.Errorf("drift (-want +got):\n%s", diff)
		}
		write(t, d, func(tx *db.Tx) error {
			_, err := tx.Exec(t.Context(), remake)
			return err
		})
		if got := drift(t, d); len(got) != len(want)-1 {
			t.Errorf("after making the index again: %+v", got)
		}
	})
}

// TestMigrationFails wants the failed migration undone, those of earlier versions
// kept, and the rest taken once it is repaired. A new database stays one.
func TestMigrationFails(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, url string) {
		files := core(t)
		good := files["m/0002_two.sql"]
		files["m/0002_two.sql"] = &fstest.MapFile{Data: []byte("-- tako: level 2, tx\nCREATE TABLE half (id BIGINT);\nINSERT INTO half (id, nope) VALUES (1, 2)")}
		d := empty(t, url, db.Levels{Level: 3, Min: 1, MinReader: 1})
		err := db.MigrateFS(t.Context(), d, files, "m", db.MigrateOptions{})
		if err == nil || !strings.Contains(err.Error(), "0002_two") || !strings.Contains(err.Error(), "INSERT INTO half") {
			t.Fatalf("Migrate: %v, want an error that names migration and statement", err)
		}
		if _, err := d.Meta(t.Context()); !errors.Is(err, db.ErrNoSchema) {
			t.Errorf("a new database after a failure: %v, want none", err)
		}
		mustMigrate(t, empty(t, url, db.Levels{Level: 1, Min: 1, MinReader: 1}), upTo(files, 1), "")
		err = db.MigrateFS(t.Context(), d, files, "m", db.MigrateOptions{})
		if err == nil || !strings.Contains(err.Error(), "0002_two") || !strings.Contains(err.Error(), "INSERT INTO half") {
			t.Fatalf("Migrate: %v, want an error that names migration and statement", err)
		}
		if m := meta(t, d); m.SchemaLevel != 1 {
			t.Errorf("the level is %d after a failure", m.SchemaLevel)
		}
		err = d.Read(t.Context(), func(tx *db.Tx) error {
			var n int
			return tx.QueryRow(t.Context(), `SELECT COUNT(*) FROM half`).Scan(&n)
		})
		if err == nil {
			t.Error("the failed migration left its table")
		}
		files["m/0002_two.sql"] = good
		if taken := mustMigrate(t, d, files, ""); len(taken) != 2 {
			t.Errorf("then %v are taken", taken)
		}
	})
}

func TestChangedMigrationIsRefused(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, url string) {
		files := core(t)
		d := empty(t, url, db.Levels{Level: 3, Min: 1, MinReader: 1})
		mustMigrate(t, d, files, "")
		files["m/0002_two.sql"] = &fstest.MapFile{Data: []byte("-- tako: level 2, tx\nCREATE TABLE two (id BIGINT)")}
		err := db.MigrateFS(t.Context(), d, files, "m", db.MigrateOptions{})
		if err == nil || !strings.Contains(err.Error(), "0002_two") {
			t.Errorf("Migrate with a changed file: %v", err)
		}
	})
}

// TestInvalidIndexIsBuiltAgain leaves on PostgreSQL what an interrupted CREATE
// INDEX CONCURRENTLY leaves: an index under the name that is not used.
func TestInvalidIndexIsBuiltAgain(t *testing.T) {
	t.Parallel()
	files := core(t)
	d := empty(t, dbtest.EmptyURL(t, db.Postgres), db.Levels{Level: 3, Min: 1, MinReader: 1})
	mustMigrate(t, d, upTo(files, 2), "")
	write(t, d, func(tx *db.Tx) error {
		for _, s := range []string{
			"CREATE INDEX documents_by_extra ON documents (extra)",
			"UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'documents_by_extra'::regclass",
			"INSERT INTO tako_migration (id, level, kind, state, sha256, applied_at) VALUES ('0003_three', 3, 'notx', 'started', 'x', 0)",
		} {
			if _, err := tx.Exec(t.Context(), s); err != nil {
				return err
			}
		}
		return nil
	})
	mustMigrate(t, d, files, "")
	n := number(t, d, `SELECT COUNT(*) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		WHERE c.relname = 'documents_by_extra' AND i.indisvalid AND i.indnatts = 2`)
	if n != 1 {
		t.Error("the index is not the one of the migration, or not valid")
	}
}

// TestMigrateTogether starts several processes' worth of migrations at once.
func TestMigrateTogether(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, url string) {
		var mu sync.Mutex
		taken := map[string]int{}
		var wg sync.WaitGroup
		var handles []*db.DB
		for range 3 {
			handles = append(handles, empty(t, url, db.Levels{}))
		}
		for _, d := range handles {
			wg.Go(func() {
				err := db.Migrate(t.Context(), d, db.MigrateOptions{By: "test", Step: func(id string) {
					mu.Lock()
					defer mu.Unlock()
					taken[id]++
				}})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if err := db.CheckStart(t.Context(), handles[0], db.BinaryLevels()); err != nil {
			t.Error(err)
		}
		if got := drift(t, handles[1]); len(got) != 0 || len(taken) == 0 {
			t.Errorf("drift %+v after migrations %v", got, taken)
		}
	})
}

// TestPatientWithLocks lets a migration wait for a table that a long
// transaction holds, without making others wait behind it for long.
func TestPatientWithLocks(t *testing.T) {
	t.Parallel()
	files := core(t)
	url := dbtest.EmptyURL(t, db.Postgres)
	d := empty(t, url, db.Levels{Level: 3, Min: 1, MinReader: 1})
	mustMigrate(t, d, upTo(files, 1), "")
	other := empty(t, url, db.Levels{Level: 3, Min: 1, MinReader: 1})
	held, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		err := other.Write(t.Context(), func(tx *db.Tx) error {
			if err := insertDocument(t.Context(), tx, 1, ""); err != nil {
				return err
			}
			close(held)
			<-release
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
	<-held
	wg.Go(func() {
		if err := db.MigrateFS(t.Context(), d, files, "m", db.MigrateOptions{}); err != nil {
			t.Error(err)
		}
	})
	// While the migration waits, writers of the same table get through.
	for i := range 5 {
		write(t, other, func(tx *db.Tx) error { return insertDocument(t.Context(), tx, int64(10+i), "") })
	}
	close(release)
	wg.Wait()
	if m := meta(t, d); m.SchemaLevel != 3 {
		t.Errorf("the level is %d", m.SchemaLevel)
	}
}

func TestStartRule(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name              string
		level, minimum    int
		schema, minReader int
		refused, migrate  bool
	}{
		{"the same", 3, 3, 3, 3, false, false},
		{"new database", 3, 3, 0, 0, true, true},
		{"older schema that it can run on", 4, 3, 3, 3, false, false},
		{"older schema that it cannot run on", 4, 4, 3, 3, true, true},
		{"expanded by a newer one, not finalized", 3, 3, 4, 3, false, false},
		{"expanded twice, readable still", 3, 3, 5, 3, false, false},
		{"finalized by a newer one", 3, 3, 4, 4, true, false},
	} {
		binary := db.Levels{Level: c.level, Min: c.minimum, MinReader: c.level}
		err := db.StartRule(binary, db.Meta{SchemaLevel: c.schema, MinReaderLevel: c.minReader, ActiveLevel: c.minReader, ExpandedBy: "9.9.9"})
		var start *db.StartError
		if errors.As(err, &start) != c.refused {
			t.Errorf("%s: %v, want refused: %v", c.name, err, c.refused)
			continue
		}
		if start == nil {
			continue
		}
		if start.ExitCode() != 78 || start.NeedsMigrate() != c.migrate || !strings.Contains(err.Error(), "9.9.9") || !strings.Contains(err.Error(), "`tako ") {
			t.Errorf("%s: exit code %d, needs migration %v, %q", c.name, start.ExitCode(), start.NeedsMigrate(), err)
		}
	}
	d := empty(t, dbtest.EmptyURL(t, db.SQLite), db.Levels{})
	var start *db.StartError
	if err := db.CheckStart(t.Context(), d, db.BinaryLevels()); !errors.As(err, &start) || !start.NeedsMigrate() {
		t.Errorf("an empty database: %v", err)
	}
	if err := d.Write(t.Context(), func(*db.Tx) error { return nil }); !errors.Is(err, db.ErrNoSchema) {
		t.Errorf("Write to an empty database: %v", err)
	}
}

// TestFinalizeFencesOlderWriters keeps an old process open over the switch of
// the data's format: it may go on reading, and must not write.
func TestFinalizeFencesOlderWriters(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, url string) {
		files := core(t)
		old := empty(t, url, db.Levels{Level: 1, Min: 1, MinReader: 1})
		mustMigrate(t, old, upTo(files, 1), "1.0")
		newer := empty(t, url, db.Levels{Level: 2, Min: 1, MinReader: 2})
		mustMigrate(t, newer, upTo(files, 2), "2.0")
		if again := mustMigrate(t, old, upTo(files, 1), "1.0"); len(again) != 0 || meta(t, old).SchemaLevel != 2 || len(drift(t, old)) != 0 {
			t.Errorf("the older binary migrated %v, to level %d", again, meta(t, old).SchemaLevel)
		}
		noop := func(*db.Tx) error { return nil }
		if err := errors.Join(old.Write(t.Context(), noop), old.WriteEngine(t.Context(), noop)); err != nil {
			t.Fatalf("before it is finalized the older one writes: %v", err)
		}
		if err := db.Finalize(t.Context(), old); err != nil || meta(t, old).ActiveLevel != 1 {
			t.Fatalf("the older binary finalizes its own level again: %v, %+v", err, meta(t, old))
		}
		if err := db.Finalize(t.Context(), newer); err != nil {
			t.Fatal(err)
		}
		for _, w := range []func() error{func() error { return old.Write(t.Context(), noop) }, func() error { return old.WriteEngine(t.Context(), noop) }} {
			var start *db.StartError
			if err := w(); !errors.As(err, &start) {
				t.Errorf("a write of the older binary after that: %v, want a StartError", err)
			}
		}
		if m := meta(t, old); m.ActiveLevel != 2 || m.MinReaderLevel != 2 || m.FinalizedAt.IsZero() {
			t.Errorf("finalized: %+v", m)
		}
		write(t, newer, noop)
		three := empty(t, url, db.Levels{Level: 3, Min: 1, MinReader: 1})
		if err := db.Finalize(t.Context(), three); err == nil {
			t.Error("a level that the schema has not is finalized")
		}
	})
}

func TestReincarnate(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		fill(t, d, 1)
		before := meta(t, d)
		if err := db.Reincarnate(t.Context(), d, ""); err != nil {
			t.Fatal(err)
		}
		restored := meta(t, d)
		if restored.Incarnation == before.Incarnation || restored.InstallationID != before.InstallationID {
			t.Errorf("restored: %+v, before: %+v", restored, before)
		}
		if err := db.Reincarnate(t.Context(), d, "00000000-0000-4000-8000-000000000001"); err != nil {
			t.Fatal(err)
		}
		if cloned := meta(t, d); cloned.Incarnation == restored.Incarnation || cloned.InstallationID == before.InstallationID {
			t.Errorf("cloned: %+v, before: %+v", cloned, restored)
		}
		if n := number(t, d, `SELECT next FROM counter WHERE kind = ?`, "Bench"); n != 2_000_033 {
			t.Errorf("the counter is at %d", n)
		}
	})
}
