package db_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/fstest"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/failpoint"
)

// fillFiles are a level with tables that have grown, and one that fills tables beside them.
// Those have no key, so that a row that is filled in twice would be there twice.
func fillFiles() (fstest.MapFS, error) {
	first, err := fs.ReadFile(db.Embedded(), "migrations/0001_core.sql")
	files := fstest.MapFS{"m/0001_core.sql": {Data: first}}
	for name, sql := range map[string]string{
		"0002_grown": `-- tako: level 1, tx
			CREATE TABLE grown (place TEXT NOT NULL, n BIGINT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (place, n));
			CREATE TABLE numbered (id IDENTITY, name TEXT NOT NULL);
			CREATE INDEX numbered_by_name ON numbered (name);
			CREATE TABLE named (id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL);
			CREATE TABLE bare (id TEXT NOT NULL PRIMARY KEY);`,
		"0003_sides": `-- tako: level 2, tx
			CREATE TABLE grown_side (place TEXT NOT NULL, n BIGINT NOT NULL, name TEXT NOT NULL);
			CREATE INDEX grown_side_by_key ON grown_side (place, n);
			CREATE TABLE numbered_side (id BIGINT NOT NULL, name TEXT NOT NULL);
			CREATE TABLE named_side (id TEXT NOT NULL PRIMARY KEY, name TEXT NOT NULL);
			CREATE TABLE bare_side (id TEXT NOT NULL);`,
		"0004_grown":    "-- tako: level 2, fill\nINSERT INTO grown_side (place, n, name) SELECT place, n, name FROM grown;",
		"0005_numbered": "-- tako: level 2, fill\nINSERT INTO numbered_side (id, name)\nSELECT o.id, (SELECT max(x.name) FROM numbered x WHERE x.id <= o.id AND x.id > o.id - 2) FROM numbered AS o WHERE o.name = 'odd' OR o.id = 2;",
		"0006_named":    "-- tako: level 2, fill\nINSERT INTO named_side (id, name) SELECT substr(o.id, 1, 3), o.name FROM named o;",
		"0007_bare":     "-- tako: level 2, fill\nINSERT INTO bare_side (id) SELECT id FROM bare;",
	} {
		files["m/"+name+".sql"] = &fstest.MapFile{Data: []byte(sql)}
	}
	return files, err
}

// fillLevels are those of a version that makes a level of these.
func fillLevels(level int) db.Levels { return db.Levels{Level: level, Min: 1, MinReader: 1} }

// fillRows is how many rows each of the tables has.
const fillRows = 1500

// aged is a database that a version of level 1 has used, and that version on it.
func aged(t *testing.T, url string) (files fstest.MapFS, old *db.DB) {
	t.Helper()
	files, err := fillFiles()
	if err != nil {
		t.Fatal(err)
	}
	old = empty(t, url, fillLevels(1))
	mustMigrate(t, old, upTo(files, 2), "1.0")
	const numbers = ` WITH RECURSIVE c (i) AS (SELECT 0 UNION ALL SELECT c.i + 1 FROM c WHERE c.i < ?) SELECT `
	write(t, old, func(tx *db.Tx) error {
		return errors.Join(
			execute(t.Context(), tx, `INSERT INTO grown (place, n, name)`+numbers+`CASE c.i % 7 WHEN 0 THEN '' WHEN 1 THEN 'a' WHEN 2 THEN 'a''b' WHEN 3 THEN 'q", 1 of "' WHEN 4 THEN 'Zebra' WHEN 5 THEN 'zz' ELSE '`+"\u00e4\n"+`' END, c.i, CAST(c.i AS VARCHAR(9)) FROM c`, fillRows-1),
			execute(t.Context(), tx, `INSERT INTO numbered (name)`+numbers+`CASE c.i % 2 WHEN 1 THEN 'odd' ELSE 'even' END FROM c ORDER BY c.i`, fillRows-1),
			execute(t.Context(), tx, `INSERT INTO named (id, name)`+numbers+`substr(CAST(1000000 + c.i * 500 AS VARCHAR(9)), 2), CASE c.i % 2 WHEN 1 THEN 'odd' ELSE 'even' END FROM c`, fillRows-1))
	})
	return files, old
}

func execute(ctx context.Context, tx *db.Tx, query string, args ...any) error {
	_, err := tx.Exec(ctx, query, args...)
	return err
}

// mustBeFilled wants each row of grown, but for those that were added, exactly once.
func mustBeFilled(t *testing.T, d *db.DB, rows int64) {
	t.Helper()
	if n := number(t, d, `SELECT count(*) FROM grown WHERE name <> 'added'`); n != rows {
		t.Errorf("%d rows are left of those at the beginning, want %d", n, rows)
	}
	if n := number(t, d, `SELECT count(*) FROM grown g WHERE g.name <> 'added'
		AND (SELECT count(*) FROM grown_side s WHERE s.place = g.place AND s.n = g.n AND s.name = g.name) <> 1`); n != 0 {
		t.Errorf("%d of %d rows were not filled in once", n, rows)
	}
	if n := number(t, d, `SELECT count(*) FROM (SELECT s.place FROM grown_side s GROUP BY s.place, s.n HAVING count(*) > 1) x`); n != 0 {
		t.Errorf("%d rows were filled in twice", n)
	}
}

// TestFillBesideWriters fills tables while others add rows and delete some.
func TestFillBesideWriters(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, url string) {
		files, old := aged(t, url)
		d := empty(t, url, fillLevels(2))
		ctx, end := context.WithCancel(t.Context())
		defer end()
		begun, deleted := make(chan struct{}), int64(0)
		var wg sync.WaitGroup
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				err := old.Write(t.Context(), func(tx *db.Tx) error {
					if err := execute(t.Context(), tx, `INSERT INTO grown (place, n, name) VALUES (?, ?, 'added')`, []string{"", "b", "\u00fc"}[i%3], fillRows+i); err != nil || i >= fillRows/10 {
						return err
					}
					return execute(t.Context(), tx, `DELETE FROM grown WHERE n = ?`, i*10+7)
				})
				if err != nil {
					t.Error(err)
					break
				}
				if i < fillRows/10 {
					deleted++
				}
				if i == 0 {
					close(begun)
				}
			}
		})
		<-begun
		taken := mustMigrate(t, d, files, "2.0")
		end()
		wg.Wait()
		if want := []string{"0003_sides", "0004_grown", "0005_numbered", "0006_named", "0007_bare"}; !slices.Equal(taken, want) {
			t.Errorf("taken: %v, want %v", taken, want)
		}
		mustBeFilled(t, d, fillRows-deleted)
		if n := number(t, d, `SELECT count(*) FROM numbered_side s JOIN numbered o ON o.id = s.id WHERE s.name = 'odd' AND (o.name = 'odd' OR o.id = 2)`); n != fillRows/2 {
			t.Errorf("%d rows fulfil the condition, want %d", n, fillRows/2)
		}
		if n := number(t, d, `SELECT count(*) FROM numbered_side`); n != fillRows/2 {
			t.Errorf("%d rows are filled in by number, want %d", n, fillRows/2)
		}
		if n := number(t, d, `SELECT count(*) FROM named_side s WHERE s.name = 'even'`); n != fillRows/2 {
			t.Errorf("of those with the same key %d are the first ones, want %d", n, fillRows/2)
		}
		if n := number(t, d, `SELECT count(*) FROM bare_side`); n != 0 {
			t.Errorf("of an empty table there are %d rows", n)
		}
		if again := mustMigrate(t, d, files, "2.0"); len(again) != 0 {
			t.Errorf("taken again: %v", again)
		}
		fresh := empty(t, dbtest.EmptyURL(t, d.Dialect()), fillLevels(2))
		mustMigrate(t, fresh, files, "2.0")
		if got, want := fingerprint(t, d), fingerprint(t, fresh); got != want || len(drift(t, d)) != 0 {
			t.Errorf("fingerprint %s, that of a new database %s, drift %+v", got, want, drift(t, d))
		}
	})
}

// fillState is what is noted of a migration.
func fillState(t *testing.T, d *db.DB, id string) (state string) {
	t.Helper()
	err := d.Read(t.Context(), func(tx *db.Tx) error {
		return tx.QueryRow(t.Context(), `SELECT COALESCE((SELECT m.state FROM tako_migration m WHERE m.id = ?), '')`, id).Scan(&state)
	})
	if err != nil {
		t.Fatal(err)
	}
	return state
}

// TestFillCutShort breaks a fill off in its third portion: the version before works on what
// is there, and the next try goes on behind the second one.
func TestFillCutShort(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, url string) {
		files, old := aged(t, url)
		ctx, end := context.WithCancel(t.Context())
		defer end()
		portions := 0
		d, err := db.Open(t.Context(), url, db.Options{Levels: fillLevels(2), Log: dbtest.Log(t), OnStatement: func(query string) {
			if strings.HasPrefix(query, "INSERT INTO grown_side") {
				if portions++; portions == 3 {
					end()
				}
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		err = db.MigrateFS(ctx, d, files, "m", db.MigrateOptions{By: "2.0"})
		if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "0004_grown") {
			t.Fatalf("Migrate: %v, want that it was canceled", err)
		}
		half := empty(t, dbtest.EmptyURL(t, d.Dialect()), fillLevels(2))
		mustMigrate(t, half, upTo(files, 3), "")
		if got, want := fingerprint(t, d), fingerprint(t, half); got != want {
			t.Errorf("the fingerprint is %s; that of what came before the fill is %s", got, want)
		}
		if state := fillState(t, d, "0004_grown"); !strings.HasPrefix(state, "filled to ") || meta(t, d).SchemaLevel != 1 {
			t.Errorf("its state is %q, at level %d", state, meta(t, d).SchemaLevel)
		}
		if err := db.CheckStart(t.Context(), old, fillLevels(1)); err != nil {
			t.Errorf("the version before: %v", err)
		}
		if again := mustMigrate(t, old, upTo(files, 2), "1.0"); len(again) != 0 {
			t.Errorf("the version before takes %v", again)
		}
		filled := number(t, d, `SELECT count(*) FROM grown_side`)
		if filled < 20 || filled >= fillRows {
			t.Fatalf("%d rows were filled in", filled)
		}
		// One that was filled in and is missing shows that the portion is not taken again.
		write(t, old, func(tx *db.Tx) error {
			return errors.Join(
				execute(t.Context(), tx, `DELETE FROM grown_side WHERE place = '' AND n = 0`),
				execute(t.Context(), tx, `INSERT INTO grown (place, n, name) VALUES ('', -1, 'added'), ('zy', 0, 'added'), (?, 0, 'added')`, "\u00fc"))
		})
		changed := upTo(files, 4)
		changed["m/0004_grown.sql"] = &fstest.MapFile{Data: append([]byte("-- another\n"), files["m/0004_grown.sql"].Data...)}
		if err := db.MigrateFS(t.Context(), d, changed, "m", db.MigrateOptions{}); err == nil || !strings.Contains(err.Error(), "migration 0004_grown: its file is not the one") {
			t.Errorf("going on with another file: %v", err)
		}
		if taken, want := mustMigrate(t, d, files, "2.0"), []string{"0004_grown", "0005_numbered", "0006_named", "0007_bare"}; !slices.Equal(taken, want) {
			t.Errorf("then %v are taken, want %v", taken, want)
		}
		for key, want := range map[string]int64{"place = '' AND n = 0": 0, "place = '' AND n = -1": 0, "place = 'zy'": 1, "place = '\u00fc'": 0} {
			if n := number(t, d, `SELECT count(*) FROM grown_side WHERE `+key); n != want {
				t.Errorf("rows with %s: %d, want %d", key, n, want)
			}
		}
		write(t, old, func(tx *db.Tx) error {
			return execute(t.Context(), tx, `DELETE FROM grown WHERE place = '' AND n = 0`)
		})
		mustBeFilled(t, d, fillRows-1)
		if state := fillState(t, d, "0004_grown"); state != "done" || meta(t, d).SchemaLevel != 2 {
			t.Errorf("its state is %q in the end, at level %d", state, meta(t, d).SchemaLevel)
		}
	})
}

// TestFillKilled kills processes before and after the commit of a portion.
func TestFillKilled(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, url string) {
		files, old := aged(t, url)
		former := ""
		for _, edge := range []string{"fill-commit", "fill-portion", "fill-commit", "fill-portion"} {
			cmd, out, _ := process(t, "fill", url, failpoint.Env+"="+edge+":kill")
			if out.Scan() {
				t.Fatalf("the process says %q", out.Text())
			}
			if cmd.Wait() == nil {
				t.Fatalf("the process outlived %s", edge)
			}
			state := fillState(t, old, "0004_grown")
			if moved := state != former; moved != (edge == "fill-portion") || moved && !strings.HasPrefix(state, "filled to ") {
				t.Errorf("after %s the state is %q, before %q", edge, state, former)
			}
			former = state
		}
		d := empty(t, url, fillLevels(2))
		mustMigrate(t, d, files, "2.0")
		mustBeFilled(t, d, fillRows)
	})
}

// TestFillTogether has several fill at the same time.
func TestFillTogether(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, url string) {
		files, _ := aged(t, url)
		var all []*db.DB
		for range 3 {
			all = append(all, empty(t, url, fillLevels(2)))
		}
		var wg sync.WaitGroup
		for _, d := range all {
			wg.Go(func() {
				if err := db.MigrateFS(t.Context(), d, files, "m", db.MigrateOptions{By: "2.0"}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		mustBeFilled(t, all[0], fillRows)
		if n := number(t, all[0], `SELECT count(*) FROM numbered_side`); n != fillRows/2 {
			t.Errorf("%d rows are filled in by number, want %d", n, fillRows/2)
		}
	})
}

// TestFillNeedsAKey names the table that cannot be walked through.
func TestFillNeedsAKey(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, url string) {
		files, _ := aged(t, url)
		files = upTo(files, 2)
		files["m/0003_keys.sql"] = &fstest.MapFile{Data: []byte("-- tako: level 1, tx\nCREATE TABLE keyless (id TEXT); CREATE TABLE sealed (id BLOB NOT NULL PRIMARY KEY); CREATE TABLE side (id TEXT)")}
		d := empty(t, url, fillLevels(2))
		for table, want := range map[string]string{"keyless": "keyless cannot be walked through: it is not there, or has no primary key", "sealed": "sealed cannot be walked through: its key's column id"} {
			files["m/0004_fill.sql"] = &fstest.MapFile{Data: []byte("-- tako: level 2, fill\nINSERT INTO side (id) SELECT 'x' FROM " + table)}
			err := db.MigrateFS(t.Context(), d, files, "m", db.MigrateOptions{})
			if err == nil || !strings.Contains(err.Error(), "migration 0004_fill: the table "+want) {
				t.Errorf("%s: %v", table, err)
			}
		}
	})
}

// TestOthersGetTheirTurn wants a pause after a migration that has kept SQLite's only writer,
// for as long as it has.
func TestOthersGetTheirTurn(t *testing.T) {
	t.Parallel()
	files, err := fillFiles()
	if err != nil {
		t.Fatal(err)
	}
	files = upTo(files, 2)
	files["m/0003_long.sql"] = &fstest.MapFile{Data: []byte(`-- tako: level 2, tx
		CREATE TABLE long (n BIGINT NOT NULL);
		INSERT INTO long (n) WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT c.n + 1 FROM c WHERE c.n < 100000) SELECT c.n FROM c;`)}
	files["m/0004_next.sql"] = &fstest.MapFile{Data: []byte("-- tako: level 2, tx\nCREATE TABLE next (n BIGINT NOT NULL)")}
	url := dbtest.EmptyURL(t, db.SQLite)
	mustMigrate(t, empty(t, url, fillLevels(1)), upTo(files, 2), "1.0")
	var began, ended, went time.Time // statements are told before they run
	d, err := db.Open(t.Context(), url, db.Options{Levels: fillLevels(2), Log: dbtest.Log(t), OnStatement: func(query string) {
		switch {
		case strings.HasPrefix(query, "INSERT INTO long"):
			began = time.Now()
		case !began.IsZero() && ended.IsZero():
			ended = time.Now()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	err = db.MigrateFS(t.Context(), d, files, "m", db.MigrateOptions{Step: func(id string) {
		if id == "0004_next" {
			went = time.Now()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if held, pause := ended.Sub(began), went.Sub(ended); held <= 0 || pause < min(held, time.Second) {
		t.Errorf("the writer was kept for %v, and the next migration came %v later", held, pause)
	}
}
