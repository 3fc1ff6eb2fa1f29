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
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
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
		"ALTER TABLE a ADD COLUMN x TEXT":                           "",
		"ALTER TABLE a ADD COLUMN x TEXT NOT NULL DEFAULT ''":       "",
		"CREATE TABLE b (id TEXT); INSERT INTO b (id) VALUES (';')": "",
		"ALTER TABLE a ADD COLUMN x TEXT NOT NULL":                  "needs a DEFAULT",
		"ALTER TABLE a ADD COLUMN x TEXT UNIQUE":                    "UNIQUE",
		"ALTER TABLE a ADD COLUMN x TEXT CHECK (x <> '')":           "CHECK",
		"ALTER TABLE a ADD COLUMN x TEXT REFERENCES b (id)":         "REFERENCES",
		"CREATE TABLE b (a TEXT REFERENCES a (id))":                 "foreign key to a",
		"CREATE INDEX a_x ON a (id)":                                "migration of its own",
		"CREATE UNIQUE INDEX a_x ON a (id)":                         "unique index on a",
		"UPDATE a SET id = 'y'":                                     "background work",
		"INSERT INTO a (id) VALUES ('y')":                           "background work",
		"DELETE FROM a WHERE id = 'x'":                              "background work",
		"DROP TABLE a":                                              "only CREATE TABLE",
		"ALTER TABLE a DROP COLUMN id":                              "only CREATE TABLE",
		"ALTER TABLE a RENAME TO b":                                 "only CREATE TABLE",
		"ALTER TABLE a ALTER COLUMN id TYPE BIGINT":                 "only CREATE TABLE",
		"CREATE TRIGGER x AFTER INSERT ON a BEGIN SELECT 1":         "only CREATE TABLE",
		"CREATE TABLE a (id TEXT)":                                  "made twice",
		"CREATE TABLE b (id SERIAL)":                                "IDENTITY",
	} {
		found := lint(load(t, map[string]string{"0001_a": base, "0002_b": "-- tako: level 2, tx\n" + sql}))
		if want == "" && len(found) > 0 || want != "" && (len(found) == 0 || !strings.Contains(found[0], want)) {
			t.Errorf("%s: found %q, want %q", sql, found, want)
		}
	}
	if found := lint(load(t, map[string]string{"0001_a": base, "0002_b": "-- tako: level 2, notx\nCREATE INDEX a_x ON a (id)"})); len(found) > 0 {
		t.Errorf("an index by itself: %q", found)
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
	for name, files := range map[string]map[string]string{
		"level 0":           {"0001_a": "-- tako: level 0"},
		"unknown word":      {"0001_a": "-- tako: level 1, later"},
		"levels go down":    {"0001_a": "-- tako: level 2", "0002_b": "-- tako: level 1"},
		"notx is one index": {"0001_a": "-- tako: level 1, notx\nCREATE INDEX x ON a (b); CREATE INDEX y ON a (c)"},
		"notx is no table":  {"0001_a": "-- tako: level 1, notx\nCREATE TABLE a (id TEXT)"},
		"notx is not uniq":  {"0001_a": "-- tako: level 1, notx\nCREATE UNIQUE INDEX x ON a (b)"},
	} {
		if _, err := loadMigrations(mapFS(files), "m"); err == nil {
			t.Errorf("%s: no error", name)
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
