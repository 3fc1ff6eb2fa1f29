package db

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/takodeploy/tako/internal/fault"
)

// Export runs fn with one view of a PostgreSQL database that does not move while
// others write, for as long as fn takes. snapshot is its name for pg_dump, which
// sees the same. On SQLite, where CopyTo makes a copy, it is a fault Unsupported.
func (d *DB) Export(ctx context.Context, fn func(t *Tx, snapshot string) error) error {
	if d.dialect != Postgres {
		return fault.New(fault.Unsupported, "A SQLite database is copied, not exported.")
	}
	return d.still(ctx, func(t *Tx) error {
		var snapshot string
		if err := t.conn.QueryRowContext(ctx, `SELECT pg_export_snapshot()`).Scan(&snapshot); err != nil {
			return err
		}
		return fn(t, snapshot)
	})
}

// Snapshot is Read with one view that does not move on both databases, for as long as
// fn takes. SQLite's write-ahead log cannot shrink meanwhile, so pieces are better.
func (d *DB) Snapshot(ctx context.Context, fn func(t *Tx) error) error {
	if d.dialect != Postgres {
		return d.Read(ctx, fn)
	}
	return d.still(ctx, fn)
}

// still runs fn in a view of a PostgreSQL database that does not move, without a limit
// of time.
func (d *DB) still(ctx context.Context, fn func(t *Tx) error) error {
	if err := d.alive(); err != nil {
		return err
	}
	conn, err := d.reader.Conn(ctx)
	if err != nil {
		return d.translate(err)
	}
	defer func() { _ = conn.Close() }() // back into the pool
	t := &Tx{d: d, conn: conn, now: stamp(d.now())}
	if _, err := conn.ExecContext(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return d.ended(ctx, err)
	}
	defer t.rollback(ctx) // nothing to commit
	for _, limit := range []string{"statement_timeout", "idle_in_transaction_session_timeout"} {
		if _, err := conn.ExecContext(ctx, "SET LOCAL "+limit+" = 0"); err != nil {
			return d.ended(ctx, err)
		}
	}
	return d.ended(ctx, fn(t))
}

// CountRows counts the rows of every table of the schema, by name.
func (t *Tx) CountRows(ctx context.Context) (map[string]int64, error) {
	names, err := t.tables(ctx)
	if err != nil {
		return nil, err
	}
	counts := make(map[string]int64, len(names))
	for _, name := range names {
		var n int64
		if err := t.QueryRow(ctx, `SELECT count(*) FROM "`+strings.ReplaceAll(name, `"`, `""`)+`"`).Scan(&n); err != nil {
			return nil, fmt.Errorf("count the rows of %s: %w", name, err)
		}
		counts[name] = n
	}
	return counts, nil
}

// CountContent is CountRows without the tables that change while nobody does anything: those
// of the schema itself, and those of running processes.
func (t *Tx) CountContent(ctx context.Context) (map[string]int64, error) {
	counts, err := t.CountRows(ctx)
	for _, name := range kept() {
		delete(counts, name)
	}
	return counts, err
}

// tables names every table of the schema, sorted.
func (t *Tx) tables(ctx context.Context) (names []string, err error) {
	query := `SELECT name, '' FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite\_%' ESCAPE '\' ORDER BY name`
	if t.d.dialect == Postgres {
		query = `SELECT relname::text, '' FROM pg_class WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace ORDER BY relname`
	}
	err = t.each(ctx, query, func(name, _ string) { names = append(names, name) })
	return names, err
}

// Size is how much disk space the database takes, in bytes, indexes and all.
func (d *DB) Size(ctx context.Context) (n int64, err error) {
	query := `SELECT (SELECT page_count FROM pragma_page_count()) * (SELECT page_size FROM pragma_page_size())`
	if d.dialect == Postgres {
		query = `SELECT pg_database_size(current_database())`
	}
	err = d.Read(ctx, func(t *Tx) error { return t.QueryRow(ctx, query).Scan(&n) })
	return n, err
}

// maxDamage bounds how many damages Integrity names.
const maxDamage = 20

// Integrity reads a SQLite database whole and returns what is wrong with it: with
// its pages, its indexes and its foreign keys. PostgreSQL checks its pages when
// they are read, so there it finds nothing.
func (d *DB) Integrity(ctx context.Context) (damage []string, err error) {
	return d.integrity(ctx, "integrity_check")
}

// QuickIntegrity is Integrity without holding the indexes against their tables,
// which takes a fraction of the time.
func (d *DB) QuickIntegrity(ctx context.Context) (damage []string, err error) {
	return d.integrity(ctx, "quick_check")
}

func (d *DB) integrity(ctx context.Context, check string) (damage []string, err error) {
	if d.dialect != SQLite {
		return nil, nil
	}
	err = d.Read(ctx, func(t *Tx) error {
		damage = nil
		return errors.Join(
			t.each(ctx, `SELECT `+check+`, '' FROM pragma_`+check+` LIMIT `+strconv.Itoa(maxDamage), func(a, _ string) {
				if a != "ok" {
					damage = append(damage, a)
				}
			}),
			t.each(ctx, `SELECT "table", parent FROM pragma_foreign_key_check LIMIT `+strconv.Itoa(maxDamage), func(a, b string) {
				damage = append(damage, "a row of "+a+" refers to one of "+b+" that is not there")
			}),
		)
	})
	return damage, err
}

// IsDamage reports whether err says that a database's file is damaged, or no database.
func IsDamage(err error) bool {
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		code := lite.Code() & 0xff
		return code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB
	}
	var pg *pgconn.PgError
	return errors.As(err, &pg) && strings.HasPrefix(pg.Code, "XX00")
}

// Server is what the programs that come with PostgreSQL need to reach a database.
type Server struct {
	// Env are variables of the environment; the password is one of them, since
	// an argument list can be read by everybody.
	Env []string
	// Major is the server's version, Schema where our tables are.
	Major  int
	Schema string
}

// Server describes a PostgreSQL database for programs.
func (d *DB) Server(ctx context.Context) (Server, error) {
	if d.dialect != Postgres {
		return Server{}, fault.New(fault.Unsupported, "SQLite has no server.")
	}
	var s Server
	var version string
	err := d.Read(ctx, func(t *Tx) error {
		return t.QueryRow(ctx, `SELECT current_setting('server_version_num'), current_schema()::text`).Scan(&version, &s.Schema)
	})
	if err != nil {
		return s, err
	}
	n, err := strconv.Atoi(version)
	if err != nil {
		return s, fmt.Errorf("read the server's version %q: %w", version, err)
	}
	s.Major = n / 10000
	c := d.pgConfig
	s.Env = []string{"PGHOST=" + c.Host, "PGPORT=" + strconv.Itoa(int(c.Port)), "PGUSER=" + c.User, "PGDATABASE=" + c.Database, "PGAPPNAME=tako", "PGCONNECT_TIMEOUT=10"}
	if c.Password != "" {
		s.Env = append(s.Env, "PGPASSWORD="+c.Password)
	}
	if u, err := url.Parse(d.dsn); err == nil {
		for option, name := range map[string]string{"sslmode": "PGSSLMODE", "sslrootcert": "PGSSLROOTCERT", "sslcert": "PGSSLCERT", "sslkey": "PGSSLKEY"} {
			if v := u.Query().Get(option); v != "" {
				s.Env = append(s.Env, name+"="+v)
			}
		}
	}
	return s, nil
}
