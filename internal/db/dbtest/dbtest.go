// Package dbtest gives tests real databases: a SQLite file, and a database of a
// throw-away PostgreSQL cluster that lives as long as the test binary. Every
// database is migrated, empty, and the test's own.
//
// The cluster is started from installed binaries: those in the folder that
// TAKO_TEST_PG_BIN names, on PATH, or in /usr/lib/postgresql/*/bin. Where there
// are none, tests on PostgreSQL skip, and fail if CI=true.
package dbtest

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/takodeploy/tako/internal/db"
)

// Dialects are the databases to test on: both, but PostgreSQL alone in short mode. That is
// how the race detector runs, under which the pure-Go SQLite is thirty times slower.
func Dialects() []db.Dialect {
	if testing.Short() {
		return []db.Dialect{db.Postgres}
	}
	return []db.Dialect{db.SQLite, db.Postgres}
}

// Run runs fn as a subtest on each of Dialects, side by side.
func Run(t *testing.T, fn func(t *testing.T, d *db.DB)) {
	t.Helper()
	for _, dialect := range Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			fn(t, Open(t, dialect))
		})
	}
}

// Open opens a new database and closes it when the test ends.
func Open(t testing.TB, dialect db.Dialect) *db.DB {
	t.Helper()
	return OpenURL(t, URL(t, dialect))
}

// OpenURL opens another handle to a database that URL gave, as a second process
// would, and closes it when the test ends. A test that wants options of its own
// calls db.Open.
func OpenURL(t testing.TB, url string) *db.DB {
	t.Helper()
	d, err := db.Open(t.Context(), url, db.Options{Log: Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Errorf("close %s: %v", d, err)
		}
	})
	return d
}

// URL makes a new database and returns where it is, for db.Open and for
// processes that a test starts. It is dropped when the test ends.
func URL(t testing.TB, dialect db.Dialect) string {
	t.Helper()
	if dialect == db.Postgres {
		return postgres(t).database(t, true)
	}
	file, err := sqliteTemplate()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "tako.db")
	if err := os.WriteFile(path, file, 0o600); err != nil {
		t.Fatal(err)
	}
	return "sqlite:" + path
}

// EmptyURL is URL without any schema.
func EmptyURL(t testing.TB, dialect db.Dialect) string {
	t.Helper()
	if dialect == db.Postgres {
		return postgres(t).database(t, false)
	}
	return "sqlite:" + filepath.Join(t.TempDir(), "tako.db")
}

// Log is a log that shows warnings when the test fails or is verbose.
func Log(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// sqliteTemplate is a migrated database, made once: copying it is faster than
// migrating for each test.
var sqliteTemplate = sync.OnceValues(func() ([]byte, error) { //nolint:gochecknoglobals // once per test binary is the point
	dir, err := os.MkdirTemp("", "tako-dbtest-")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }() // the system's temporary folder forgets it anyway
	path := filepath.Join(dir, "tako.db")
	if err := migrate(context.Background(), "sqlite:"+path); err != nil {
		return nil, err
	}
	return os.ReadFile(path)
})

// migrate opens a database, makes its schema, and closes it again.
func migrate(ctx context.Context, url string) error {
	d, err := db.Open(ctx, url, db.Options{})
	if err != nil {
		return err
	}
	if err := db.Migrate(ctx, d, db.MigrateOptions{By: "dbtest"}); err != nil {
		_ = d.Close() // the first error tells more
		return fmt.Errorf("migrate the template: %w", err)
	}
	return d.Close()
}
