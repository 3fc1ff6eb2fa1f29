package db

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/pgconn"
)

// advisoryKey is the number of the lock that migrating processes take on PostgreSQL.
const advisoryKey = 0x74616b6f // "tako"

// MigrateOptions of Migrate.
type MigrateOptions struct {
	// By is the version of the binary, for the record.
	By string
	// Step is called before each migration that is due, may be nil.
	Step func(id string)
	// Alone says that nobody else uses the database, so that there is no pause
	// for others between migrations, or within one that is taken in portions, which
	// are as large as they get.
	Alone bool
}

// runnerTables are the runner's own; every binary of every level reads them, so
// columns are only ever added to them.
func runnerTables() []string {
	return []string{
		`CREATE TABLE IF NOT EXISTS tako_meta (
			id               BIGINT NOT NULL PRIMARY KEY CHECK (id = 1),
			schema_level     BIGINT NOT NULL,
			min_reader_level BIGINT NOT NULL,
			active_level     BIGINT NOT NULL,
			fingerprint      TEXT   NOT NULL,
			expanded_by      TEXT   NOT NULL,
			expanded_at      BIGINT NOT NULL,
			finalized_at     BIGINT NOT NULL,
			installation_id  TEXT   NOT NULL,
			incarnation      TEXT   NOT NULL
		)`,
		`CREATE TABLE IF NOT EXISTS tako_migration (
			id         TEXT   NOT NULL PRIMARY KEY,
			level      BIGINT NOT NULL,
			kind       TEXT   NOT NULL,
			state      TEXT   NOT NULL,
			sha256     TEXT   NOT NULL,
			applied_at BIGINT NOT NULL
		)`,
		`CREATE TABLE IF NOT EXISTS tako_schema (
			object     TEXT NOT NULL PRIMARY KEY,
			definition TEXT NOT NULL
		)`,
	}
}

// Migrate brings the schema to this binary's level. It only ever adds (expand),
// so that older binaries whose level the database still allows go on working
// beside it; the new level's data formats wait for Finalize, except in a
// database that is new. Any number of processes may call it at once, and it can
// be killed anywhere and called again.
func Migrate(ctx context.Context, d *DB, opt MigrateOptions) error {
	all, err := loadMigrations(embedded, "migrations")
	if err != nil {
		return err
	}
	return d.migrate(ctx, all, d.levels, opt)
}

func (d *DB) migrate(ctx context.Context, all []migration, own Levels, opt MigrateOptions) error {
	unlock, err := d.lockMigrations(ctx)
	if err != nil {
		return fmt.Errorf("lock the schema: %w", err)
	}
	defer unlock()
	if made, err := d.create(ctx, all, own, opt, func(*Tx) error { return nil }); err != nil || made {
		return err
	}
	for _, m := range all {
		held, err := d.apply(ctx, m, opt)
		if err == nil && d.dialect == SQLite {
			err = giveWay(ctx, held, opt)
		}
		if err != nil {
			return fmt.Errorf("migration %s: %w", m.id, err)
		}
	}
	return d.writeSchema(ctx, func(t *Tx) error { return t.recordSchema(ctx, own, opt) })
}

// create makes the whole schema of a database that is new in one transaction, since
// nobody else is there to wait for. It does nothing to one that has a schema, or the
// beginning of one. also is done in the same transaction.
func (d *DB) create(ctx context.Context, all []migration, own Levels, opt MigrateOptions, also func(*Tx) error) (made bool, err error) {
	err = d.writeSchema(ctx, func(t *Tx) error {
		made = false
		if begun, err := t.HasTable(ctx, "tako_meta"); err != nil || begun {
			return err
		}
		if err := t.createRunnerTables(ctx, own, opt); err != nil {
			return fmt.Errorf("prepare the schema: %w", err)
		}
		for _, m := range all {
			if opt.Step != nil {
				opt.Step(m.id)
			}
			if err := t.script(ctx, statements(m.sql)); err != nil {
				return fmt.Errorf("migration %s: %w", m.id, err)
			}
			if err := t.markMigration(ctx, m, "done"); err != nil {
				return fmt.Errorf("migration %s: %w", m.id, err)
			}
		}
		made = true
		return errors.Join(t.recordSchema(ctx, own, opt), also(t))
	})
	return made && err == nil, err
}

// HasTable reports whether a table is there.
func (t *Tx) HasTable(ctx context.Context, name string) (bool, error) {
	query := `SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?`
	if t.d.dialect == Postgres {
		query = `SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname = ? AND relnamespace = current_schema()::regnamespace`
	}
	var n int
	err := t.QueryRow(ctx, query, name).Scan(&n)
	return n > 0, err
}

// script runs the statements of a migration: on PostgreSQL all in one message.
func (t *Tx) script(ctx context.Context, all []string) error {
	own := make([]string, len(all))
	for i, s := range all {
		own[i] = inDialect(t.d.dialect, s)
	}
	if t.d.dialect == Postgres {
		return rawPg(t.conn, func(c *pgconn.PgConn) error {
			results, err := c.Exec(ctx, strings.Join(own, ";\n")).ReadAll()
			if err != nil {
				err = fmt.Errorf("%w, in %q", t.d.translate(err), firstLine(all[min(len(results), len(all)-1)]))
			}
			return err
		})
	}
	for i, s := range own {
		if _, err := t.Exec(ctx, s); err != nil {
			return fmt.Errorf("%w, in %q", err, firstLine(all[i]))
		}
	}
	return nil
}

// lockMigrations keeps other migrating processes out on PostgreSQL. SQLite has
// one writer at a time, and each migration looks again within its transaction.
func (d *DB) lockMigrations(ctx context.Context) (unlock func(), err error) {
	if d.dialect == SQLite {
		return func() {}, nil
	}
	conn, err := d.writer.Conn(ctx)
	if err != nil {
		return nil, d.translate(err)
	}
	for {
		var got bool
		if err := conn.QueryRowContext(ctx, `SELECT pg_try_advisory_lock($1)`, int64(advisoryKey)).Scan(&got); err != nil {
			return nil, errors.Join(d.translate(err), conn.Close())
		}
		if got {
			break
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, errors.Join(err, conn.Close())
		}
	}
	return func() {
		// The lock ends with the connection if not by this.
		_, err := conn.ExecContext(context.WithoutCancel(ctx), `SELECT pg_advisory_unlock($1)`, int64(advisoryKey))
		if err != nil {
			d.log.WarnContext(ctx, "the lock of the schema was not given back", "database", d.url, "error", err)
		}
		_ = conn.Close() // back into the pool
	}, nil
}

func (t *Tx) createRunnerTables(ctx context.Context, own Levels, opt MigrateOptions) error {
	id, err := uuid.NewRandom()
	if err != nil {
		return err
	}
	if err := t.script(ctx, runnerTables()); err != nil {
		return err
	}
	// A new database starts with the formats of the binary that made it.
	_, err = t.Exec(ctx, `INSERT INTO tako_meta (id, schema_level, min_reader_level, active_level, fingerprint, expanded_by, expanded_at,
		finalized_at, installation_id, incarnation) VALUES (1, 0, ?, ?, '', ?, ?, ?, ?, ?)`,
		own.MinReader, own.Level, opt.By, Micros(t.now), Micros(t.now), id.String(), rand.Text())
	return err
}

// longestPause is the longest time for which others are let in at once.
const longestPause = time.Second

// giveWay lets others write for as long as something has kept them out. The turnstile
// lets one of a process in, but behind it there may be hundreds that have waited, and
// they would wait for what comes next too.
func giveWay(ctx context.Context, held time.Duration, opt MigrateOptions) error {
	if opt.Alone || held <= 0 {
		return nil
	}
	return sleep(ctx, min(held, longestPause))
}

// holdSchema is writeSchema that tells for how long it kept other writers out.
func (d *DB) holdSchema(ctx context.Context, fn func(*Tx) error) (held time.Duration, err error) {
	var begun time.Time
	err = d.writeSchema(ctx, func(t *Tx) error {
		begun = time.Now()
		return fn(t)
	})
	if begun.IsZero() {
		return 0, err
	}
	return time.Since(begun), err
}

// apply takes one migration, if it was not taken. It tells for how long its last
// transaction has kept other writers out.
func (d *DB) apply(ctx context.Context, m migration, opt MigrateOptions) (held time.Duration, err error) {
	done, err := d.applied(ctx, m)
	if err != nil || done {
		return 0, err
	}
	if opt.Step != nil {
		opt.Step(m.id)
	}
	switch {
	case m.notx && d.dialect == Postgres:
		return 0, d.buildIndex(ctx, m)
	case m.fill != nil:
		return d.fill(ctx, m, opt)
	}
	return d.holdSchema(ctx, func(t *Tx) error {
		if done, err := t.migrationDone(ctx, m); err != nil || done {
			return err // another process was faster
		}
		if err := t.script(ctx, statements(m.sql)); err != nil {
			return err
		}
		return t.markMigration(ctx, m, "done")
	})
}

func (d *DB) applied(ctx context.Context, m migration) (done bool, err error) {
	err = d.Read(ctx, func(t *Tx) error {
		done, err = t.migrationDone(ctx, m)
		return err
	})
	return done, err
}

var errOtherFile = errors.New("its file is not the one that this database was made with; a development database from before the first release has to be made anew")

func (t *Tx) migrationDone(ctx context.Context, m migration) (bool, error) {
	state, sum, err := t.migrationState(ctx, m)
	if err == nil && state == "done" && sum != m.sum {
		err = errOtherFile
	}
	return state == "done" && err == nil, err
}

// migrationState reads what is noted of a migration, "" for nothing.
func (t *Tx) migrationState(ctx context.Context, m migration) (state, sum string, err error) {
	err = t.QueryRow(ctx, `SELECT state, sha256 FROM tako_migration WHERE id = ?`, m.id).Scan(&state, &sum)
	if errors.Is(err, sql.ErrNoRows) {
		err = nil
	}
	return state, sum, err
}

func (t *Tx) markMigration(ctx context.Context, m migration, state string) error {
	return t.Queue(ctx, `INSERT INTO tako_migration (id, level, kind, state, sha256, applied_at) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET state = excluded.state, sha256 = excluded.sha256, applied_at = excluded.applied_at`,
		m.id, m.level, m.kind(), state, m.sum, Micros(t.now))
}

// buildIndex builds an index on PostgreSQL beside running writers, which it
// does not do in a transaction: an attempt that was cut short leaves an invalid
// index under the name, which IF NOT EXISTS would take for the real one.
func (d *DB) buildIndex(ctx context.Context, m migration) error {
	name, err := m.index()
	if err != nil {
		return err
	}
	if err := d.writeSchema(ctx, func(t *Tx) error { return t.markMigration(ctx, m, "started") }); err != nil {
		return err
	}
	conn, err := d.writer.Conn(ctx)
	if err != nil {
		return d.translate(err)
	}
	defer func() { _ = conn.Close() }() // back into the pool
	run := func(s string) error {
		return rawPg(conn, func(c *pgconn.PgConn) error {
			_, _, err := simple(ctx, c, s)
			return d.translate(err)
		})
	}
	valid, exists, err := indexState(ctx, conn, name)
	if err != nil {
		return d.translate(err)
	}
	if exists && !valid {
		if err := run("DROP INDEX CONCURRENTLY " + name); err != nil {
			return fmt.Errorf("drop what an interrupted attempt left: %w", err)
		}
	}
	if !valid {
		if err := run("SET lock_timeout = 0; SET statement_timeout = 0"); err != nil {
			return err
		}
		statement := statements(m.sql)[0]
		err := run("CREATE INDEX CONCURRENTLY" + inDialect(d.dialect, statement[len("CREATE INDEX"):]))
		if err := errors.Join(err, run("RESET lock_timeout; RESET statement_timeout")); err != nil {
			return err
		}
		if valid, _, err = indexState(ctx, conn, name); err != nil {
			return d.translate(err)
		}
		if !valid {
			return fmt.Errorf("the index %s was built and is not valid", name)
		}
	}
	return d.writeSchema(ctx, func(t *Tx) error { return t.markMigration(ctx, m, "done") })
}

func indexState(ctx context.Context, conn *sql.Conn, name string) (valid, exists bool, err error) {
	err = conn.QueryRowContext(ctx, `SELECT i.indisvalid FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
		WHERE c.relname = $1 AND c.relnamespace = current_schema()::regnamespace`, name).Scan(&valid)
	if errors.Is(err, sql.ErrNoRows) {
		return false, false, nil
	}
	return valid, err == nil, err
}

// A statement that waits for the lock of a table makes all others wait behind
// it, so migrations wait briefly and often: for 45 seconds in all. In some of the
// attempts, and in the last, it is looked whom they wait for.
const (
	lockTimeoutMS = 200
	lockAttempts  = 150
	lookAttempts  = 10
)

// writeSchema is Write for the runner: without the check of levels, without a
// limit of time, and patient with locks.
func (d *DB) writeSchema(ctx context.Context, fn func(*Tx) error) error {
	limits := fmt.Sprintf("SET LOCAL lock_timeout = %d; SET LOCAL statement_timeout = 0; SET LOCAL idle_in_transaction_session_timeout = 0", lockTimeoutMS)
	attempts, said := cmp.Or(d.lockAttempts, lockAttempts), ""
	for attempt := 1; ; attempt++ {
		holders := ""
		err := d.writeTx(ctx, levelSchema, func(t *Tx) error {
			if d.dialect != Postgres {
				return fn(t)
			}
			if err := rawPg(t.conn, func(c *pgconn.PgConn) error { _, _, err := simple(ctx, c, limits); return err }); err != nil {
				return err
			}
			if attempt%lookAttempts == 2 || attempt == attempts {
				stop := d.blockedBy(ctx, t.pid)
				defer func() { holders = stop() }()
			}
			return fn(t)
		})
		var e *Error
		if err == nil || !errors.As(err, &e) || e.Code != "55P03" {
			return err
		}
		if holders != "" && holders != said {
			said = holders
			d.log.WarnContext(ctx, "a change of the schema waits for a lock", "database", d.url, "holders", holders)
		}
		if attempt == attempts {
			if said != "" {
				err = unavailable("The schema cannot be changed, because a table is locked by "+said+". End that, or wait for its end, and try again.", err)
			}
			return err
		}
		if err := sleep(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
}

// recordSchema notes the level and what the schema looks like now.
func (t *Tx) recordSchema(ctx context.Context, own Levels, opt MigrateOptions) error {
	var level int
	if err := t.QueryRow(ctx, `SELECT schema_level FROM tako_meta WHERE id = 1`).Scan(&level); err != nil {
		return err
	}
	if level > own.Level {
		return nil // a newer binary was here; it knows better
	}
	objects, err := t.schema(ctx)
	if err != nil {
		return fmt.Errorf("describe the schema: %w", err)
	}
	if _, err := t.Exec(ctx, `DELETE FROM tako_schema`); err != nil {
		return err
	}
	for some := range slices.Chunk(objects, 200) {
		args := make([]any, 0, 2*len(some))
		for _, o := range some {
			args = append(args, o.name, o.definition)
		}
		if _, err := t.Exec(ctx, `INSERT INTO tako_schema (object, definition) VALUES (?, ?)`+strings.Repeat(", (?, ?)", len(some)-1), args...); err != nil {
			return err
		}
	}
	by, at := `expanded_by`, `expanded_at`
	args := []any{own.Level, fingerprint(objects)}
	if level < own.Level {
		by, at = `?`, `?`
		args = append(args, opt.By, Micros(t.now))
	}
	_, err = t.Exec(ctx, `UPDATE tako_meta SET schema_level = ?, fingerprint = ?, expanded_by = `+by+`, expanded_at = `+at+` WHERE id = 1`, args...)
	return err
}

func firstLine(s string) string {
	for i := range len(s) {
		if s[i] == '\n' || s[i] == '(' {
			return s[:i]
		}
	}
	return s
}
