package db

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	gotoken "go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

var update = flag.Bool("update", false, "record the hashes of the migrations anew")

func embeddedMigrations(t *testing.T) []migration {
	t.Helper()
	all, err := loadMigrations(embedded, "migrations")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestMigrationsOnlyAdd(t *testing.T) {
	t.Parallel()
	for _, found := range lint(embeddedMigrations(t)) {
		t.Error(found)
	}
}

// TestGrowingTablesAreThere wants each table that counts as one that grows to be one.
func TestGrowingTablesAreThere(t *testing.T) {
	t.Parallel()
	made := map[string]bool{}
	for _, m := range embeddedMigrations(t) {
		for _, s := range statements(m.sql) {
			if words := keywords(s); has(words, "create", "table") {
				made[words[2]] = true
			}
		}
	}
	for table := range growing {
		if !made[table] {
			t.Errorf("no migration makes a table %s", table)
		}
	}
}

// TestMigrationIDs holds the migrations to what was recorded of them: once
// released they are immutable, in name and in text, or installations differ.
func TestMigrationIDs(t *testing.T) {
	t.Parallel()
	const list = "migrations/SHA256SUMS"
	var got strings.Builder
	numbers := map[string]string{}
	for _, m := range embeddedMigrations(t) {
		fmt.Fprintf(&got, "%s  %s.sql\n", m.sum, m.id)
		number, _, _ := strings.Cut(m.id, "_")
		if _, err := strconv.Atoi(number); err != nil || len(number) != 4 {
			t.Errorf("%s: the name is four digits, _ and a word", m.id)
		}
		if other := numbers[number]; other != "" {
			t.Errorf("%s and %s have the same number", other, m.id)
		}
		numbers[number] = m.id
	}
	if *update {
		if err := os.WriteFile(list, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(list)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got.String()); diff != "" {
		t.Errorf("migrations were changed; if none of them is released, run the test with -update (-recorded +now):\n%s", diff)
	}
}

// TestSQLNamesItsColumns reads the SQL in the source of the whole repository: a
// statement that leaves the columns to the table means another thing once a
// newer binary has added one.
func TestSQLNamesItsColumns(t *testing.T) {
	t.Parallel()
	seen := 0
	err := filepath.WalkDir("../..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(gotoken.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return nil //nolint:nilerr // the compiler will tell
		}
		ast.Inspect(file, func(n ast.Node) bool {
			if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == gotoken.STRING {
				if text, err := strconv.Unquote(lit.Value); err == nil {
					seen++
					if what := unnamed(text); what != "" {
						t.Errorf("%s: %s, in %q", path, what, text)
					}
				}
			}
			return true
		})
		return nil
	})
	if err != nil || seen == 0 {
		t.Fatalf("%d texts were looked at, %v", seen, err)
	}
}

var (
	star       = regexp.MustCompile(`\b(?i:SELECT)\s+(?:(?i:DISTINCT)\s+)?(?:\w+\.)?\*`)
	positional = regexp.MustCompile(`(?i)\bINSERT\s+INTO\s+\w+\s+(?:VALUES|SELECT|DEFAULT)\b`)
)

func unnamed(sql string) string {
	switch {
	case star.MatchString(sql):
		return "SELECT names its columns"
	case positional.MatchString(sql):
		return "INSERT names its columns"
	}
	return ""
}

func TestUnnamed(t *testing.T) {
	t.Parallel()
	for sql, bad := range map[string]bool{
		"SELECT * FROM a":                   true,
		"select distinct x.* from x":        true,
		"SELECT count(*) FROM a":            false,
		"SELECT a, 2 * 3 FROM a":            false,
		"INSERT INTO a VALUES (1)":          true,
		"INSERT INTO a\n SELECT x FROM b":   true,
		"INSERT INTO a (b) VALUES (1)":      false,
		"INSERT INTO a (b) SELECT x FROM b": false,
	} {
		if got := unnamed(sql); (got != "") != bad {
			t.Errorf("unnamed(%q) = %q, want a complaint: %v", sql, got, bad)
		}
	}
}

func TestLint(t *testing.T) {
	t.Parallel()
	const base = "-- tako: level 1, tx\nCREATE TABLE a (id TEXT NOT NULL PRIMARY KEY); CREATE UNIQUE INDEX a_u ON a (id); INSERT INTO a (id) VALUES ('x');"
	for sql, want := range map[string]string{
		"CREATE TABLE b (id IDENTITY, x TEXT NOT NULL UNIQUE CHECK (x <> '')); CREATE UNIQUE INDEX b_x ON b (x)": "",
		"ALTER TABLE a ADD COLUMN x TEXT":                                                    "",
		"ALTER TABLE a ADD COLUMN x TEXT NOT NULL DEFAULT ''":                                "",
		"CREATE TABLE b (id TEXT); INSERT INTO b (id) VALUES (';')":                          "",
		"ALTER TABLE a ADD COLUMN x TEXT NOT NULL":                                           "needs a DEFAULT",
		"ALTER TABLE a ADD COLUMN x TEXT UNIQUE":                                             "UNIQUE",
		"ALTER TABLE a ADD COLUMN x TEXT CHECK (x <> '')":                                    "CHECK",
		"ALTER TABLE a ADD COLUMN x TEXT REFERENCES b (id)":                                  "REFERENCES",
		"CREATE TABLE b (a TEXT REFERENCES a (id))":                                          "REFERENCES",
		"CREATE TABLE b (a TEXT); CREATE TABLE c (a TEXT, FOREIGN KEY (a) REFERENCES b (a))": "the code that deletes a row",
		"CREATE TABLE b (id TEXT); INSERT INTO b (id) SELECT id FROM a":                      "",
		"CREATE INDEX a_x ON a (id)":                                                         "migration of its own",
		"CREATE UNIQUE INDEX a_x ON a (id)":                                                  "unique index on a",
		"UPDATE a SET id = 'y'":                                                              "background work",
		"INSERT INTO a (id) VALUES ('y')":                                                    "background work",
		"DELETE FROM a WHERE id = 'x'":                                                       "background work",
		"DROP TABLE a":                                                                       "only CREATE TABLE",
		"ALTER TABLE a DROP COLUMN id":                                                       "only CREATE TABLE",
		"ALTER TABLE a RENAME TO b":                                                          "only CREATE TABLE",
		"ALTER TABLE a ALTER COLUMN id TYPE BIGINT":                                          "only CREATE TABLE",
		"CREATE TRIGGER x AFTER INSERT ON a BEGIN SELECT 1":                                  "only CREATE TABLE",
		"CREATE TABLE a (id TEXT)":                                                           "made twice",
		"CREATE TABLE b (id SERIAL)":                                                         "IDENTITY",
	} {
		found := lint(load(t, map[string]string{"0001_a": base, "0002_b": "-- tako: level 2, tx\n" + sql}))
		if want == "" && len(found) > 0 || want != "" && (len(found) == 0 || !strings.Contains(found[0], want)) {
			t.Errorf("%s: found %q, want %q", sql, found, want)
		}
	}
	const side = "-- tako: level 2, tx\nCREATE TABLE b (id TEXT NOT NULL PRIMARY KEY); CREATE INDEX b_i ON b (id)"
	const grown = "-- tako: level 1, tx\nCREATE TABLE events (id TEXT NOT NULL PRIMARY KEY); CREATE INDEX e_i ON events (id); CREATE TABLE few (id TEXT); INSERT INTO few (id) SELECT id FROM events"
	for _, c := range []struct{ what, first, second, third, want string }{
		{"an index by itself", base, "-- tako: level 2, notx\nCREATE INDEX a_x ON a (id)", "", ""},
		{"an index on a table that grows", grown, "-- tako: level 2, notx\nCREATE INDEX e_x ON events (id)", "", "fill that in portions"},
		{"a fill", grown, side, "-- tako: level 2, fill\nINSERT INTO b (id) SELECT e.id FROM events e", ""},
		{"a fill in one go", grown, side, "-- tako: level 2, tx\nINSERT INTO b (id) SELECT e.id FROM events e", "all rows of the older table events"},
		{"a fill in one go with a join", grown, side, "-- tako: level 2, tx\nINSERT INTO b (id) SELECT f.id FROM few f JOIN events e ON e.id = f.id", "all rows of the older table events"},
		{"an update from a table that grows", grown, side, "-- tako: level 2, tx\nUPDATE b SET id = (SELECT max(e.id) FROM events e)", "all rows of the older table events"},
		{"a fill of an older table", grown, side, "-- tako: level 2, fill\nINSERT INTO few (id) SELECT e.id FROM events e", "background work"},
		{"a fill from a new table", grown, side + "; CREATE TABLE c (id TEXT)", "-- tako: level 2, fill\nINSERT INTO b (id) SELECT id FROM c", "c is none"},
		{"an index after the fill", grown, side, "-- tako: level 2, fill\nINSERT INTO b (id) SELECT e.id FROM events e;|CREATE INDEX b_x ON b (id)", "before the fill"},
		{"a unique index after the fill", grown, side, "-- tako: level 2, fill\nINSERT INTO b (id) SELECT e.id FROM events e;|CREATE UNIQUE INDEX b_x ON b (id)", "before the fill"},
	} {
		files := map[string]string{"0001_a": c.first, "0002_b": c.second}
		if third, fourth, more := strings.Cut(c.third, "|"); third != "" {
			files["0003_c"] = third
			if more {
				files["0004_d"] = "-- tako: level 2, tx\n" + fourth
			}
		}
		found := lint(load(t, files))
		if c.want == "" && len(found) > 0 || c.want != "" && (len(found) != 1 || !strings.Contains(found[0], c.want)) {
			t.Errorf("%s: found %q, want %q", c.what, found, c.want)
		}
	}
	if found := lint(load(t, map[string]string{"0001_a": "CREATE TABLE a (id TEXT)"})); len(found) != 1 {
		t.Errorf("without a header: %q", found)
	}
}

func load(t *testing.T, files map[string]string) []migration {
	t.Helper()
	all, err := loadMigrations(mapFS(files), "m")
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func mapFS(files map[string]string) fs.FS {
	out := fstest.MapFS{}
	for name, text := range files {
		out["m/"+name+".sql"] = &fstest.MapFile{Data: []byte(text)}
	}
	return out
}

func TestLoadMigrationsRefuses(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"level 0":           {map[string]string{"0001_a": "-- tako: level 0"}, `level "0"`},
		"unknown word":      {map[string]string{"0001_a": "-- tako: level 1, later"}, `header says "later"`},
		"levels go down":    {map[string]string{"0001_a": "-- tako: level 2", "0002_b": "-- tako: level 1"}, "level 1 comes after level 2"},
		"notx is one index": {map[string]string{"0001_a": "-- tako: level 1, notx\nCREATE INDEX x ON a (b); CREATE INDEX y ON a (c)"}, "notx needs"},
		"notx is no table":  {map[string]string{"0001_a": "-- tako: level 1, notx\nCREATE TABLE a (id TEXT)"}, "notx needs"},
		"notx is not uniq":  {map[string]string{"0001_a": "-- tako: level 1, notx\nCREATE UNIQUE INDEX x ON a (b)"}, "notx needs"},
		"two words":         {map[string]string{"0001_a": "-- tako: level 1, notx, fill\nINSERT INTO b (x) SELECT x FROM a"}, `"notx" and "fill"`},
	} {
		if _, err := loadMigrations(mapFS(c.files), "m"); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	for sql, want := range map[string]string{
		"": "has 0",
		"INSERT INTO b (x) SELECT x FROM a; SELECT 1":                           "has 2",
		"CREATE TABLE b (x TEXT)":                                               "does not begin with",
		"INSERT INTO b SELECT x FROM a":                                         "does not begin with",
		"INSERT INTO b (x) VALUES (1)":                                          "does not begin with",
		"INSERT OR IGNORE INTO b (x) SELECT x FROM a":                           "does not begin with",
		"INSERT INTO b (x) SELECT 1":                                            "no FROM",
		"INSERT INTO b (x) SELECT x FROM (SELECT 1) a":                          "no FROM",
		"INSERT INTO b (x) SELECT x FROM a WHERE":                               `"WHERE" after`,
		"INSERT INTO b (x) SELECT x FROM a, c":                                  `"," after`,
		"INSERT INTO b (x) SELECT x FROM a y z":                                 `"z" after`,
		"INSERT INTO b (x) SELECT x FROM a WHERE x > ?":                         "parameter",
		"INSERT INTO b (x) SELECT x FROM a JOIN c ON c.x = a.x":                 "has JOIN",
		"INSERT INTO b (x) SELECT DISTINCT x FROM a":                            "has DISTINCT",
		"INSERT INTO b (x) SELECT max(x) FROM a":                                "has MAX",
		"INSERT INTO b (x) SELECT x FROM a WHERE x > 1 GROUP BY x":              "has GROUP",
		"INSERT INTO b (x) SELECT x FROM a ORDER BY x":                          "has ORDER",
		"INSERT INTO b (x) SELECT x FROM a UNION SELECT x FROM c":               "has UNION",
		"INSERT INTO b (x) SELECT x FROM a ON CONFLICT (x) DO UPDATE SET x = 1": "has ON",
	} {
		_, err := loadMigrations(mapFS(map[string]string{"0001_a": "-- tako: level 1, fill\n" + sql}), "m")
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "0001_a") {
			t.Errorf("%s: %v, want %q", sql, err, want)
		}
	}
}

func TestParseFill(t *testing.T) {
	t.Parallel()
	for sql, want := range map[string]fill{
		"INSERT INTO b (x) SELECT x FROM a": {"b", "a", "a", "INSERT INTO b (x) SELECT x FROM a", ""},
		"INSERT INTO b (x, y) SELECT z.x, (SELECT max(c.y) FROM c WHERE c.x = z.x)\nFROM a AS z -- all\nWHERE (z.x, 1) > ('?', 0) OR z.y = 'on';": {
			"b", "a", "z", "INSERT INTO b (x, y) SELECT z.x, (SELECT max(c.y) FROM c WHERE c.x = z.x)\nFROM a AS z", "(z.x, 1) > ('?', 0) OR z.y = 'on'",
		},
		"insert into B (x) select x from A q where q.x is null": {"b", "a", "q", "insert into B (x) select x from A q", "q.x is null"},
	} {
		got, err := parseFill(sql)
		if err != nil {
			t.Errorf("%s: %v", sql, err)
			continue
		}
		if diff := cmp.Diff(want, *got, cmp.AllowUnexported(fill{})); diff != "" {
			t.Errorf("%s (-want +got):\n%s", sql, diff)
		}
	}
}

func TestKeyText(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		one := rapid.OneOf(rapid.Map(rapid.Int64(), func(n int64) any { return n }), rapid.Map(rapid.String(), func(s string) any { return s }),
			rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) any { return string(b) }))
		key := rapid.SliceOfN(one, 1, 4).Draw(t, "key")
		rest := rapid.SampledFrom([]string{"", filledOf + "1", filledOf + `"x"`}).Draw(t, "rest")
		got, left, ok := parseKey(keyText(key) + rest)
		if !ok || left != rest || !slices.Equal(got, key) {
			t.Errorf("%q is read as %q, %q, %v", keyText(key)+rest, got, left, ok)
		}
	})
	for _, bad := range []string{"", "x", `"x`, "1,", ",1", "99999999999999999999"} {
		if key, _, ok := parseKey(bad); ok {
			t.Errorf("%q is read as %q", bad, key)
		}
	}
}

func TestPortionAfter(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for _, c := range []struct {
		rows           int
		took, quickest time.Duration
		want           int
	}{
		{200, 1 * ms, 1 * ms, 300},
		{200, 18 * ms, 3 * ms, 200},
		{1000, 40 * ms, 2 * ms, 500},
		{mostRows, 1 * ms, 1 * ms, mostRows},
		{200, 10 * time.Second, 2 * ms, leastRows},
		{200, 30 * ms, 30 * ms, 300},                 // the commit alone takes that long
		{200, time.Second, 300 * ms, 20},             // but there is an end to that
		{leastRows, 10 * time.Second, ms, leastRows}, // some have to be
	} {
		if got := portionAfter(c.rows, c.took, c.quickest); got != c.want {
			t.Errorf("after %d rows in %v, the quickest in %v: %d, want %d", c.rows, c.took, c.quickest, got, c.want)
		}
	}
}

func TestStatements(t *testing.T) {
	t.Parallel()
	got := statements("-- one; two\nCREATE TABLE a (x TEXT DEFAULT ';', \"y;\" BLOB); /* ; */ ;\n\nINSERT INTO a (x) VALUES ('it''s;') -- end")
	want := []string{`CREATE TABLE a (x TEXT DEFAULT ';', "y;" BLOB)`, `INSERT INTO a (x) VALUES ('it''s;')`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("statements (-want +got):\n%s", diff)
	}
	const portable = `CREATE TABLE a (id IDENTITY, identity TEXT NOT NULL DEFAULT 'TEXT', b BLOB, "TEXT" BIGINT)`
	for dialect, want := range map[Dialect]string{
		SQLite:   `CREATE TABLE a (id INTEGER PRIMARY KEY AUTOINCREMENT, identity TEXT NOT NULL DEFAULT 'TEXT', b BLOB, "TEXT" BIGINT)`,
		Postgres: `CREATE TABLE a (id BIGINT GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, identity TEXT COLLATE "C" NOT NULL DEFAULT 'TEXT', b BYTEA, "TEXT" BIGINT)`,
	} {
		if got := inDialect(dialect, portable); got != want {
			t.Errorf("on %s: %s, want %s", dialect, got, want)
		}
	}
}
