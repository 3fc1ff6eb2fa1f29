package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/takodeploy/tako/internal/failpoint"
)

// isolation is what a writing transaction is for.
type isolation uint8

const (
	levelDocuments isolation = iota
	levelEngine
	levelSchema
)

const minReaderQuery = `SELECT min_reader_level FROM tako_meta WHERE id = 1`

// begin starts a writing transaction on t's connection. It also learns what a
// lost answer to COMMIT must be resolved by, and whether this process may still
// write: both together in one round trip.
func (t *Tx) begin(ctx context.Context, level isolation, attempt int) error {
	var minReader int
	var err error
	if t.d.dialect == Postgres {
		minReader, err = t.beginPostgres(ctx, level, attempt)
	} else {
		minReader, err = t.beginSQLite(ctx, level)
	}
	switch {
	case isNoTable(err), errors.Is(err, sql.ErrNoRows):
		return ErrNoSchema
	case err != nil || level == levelSchema:
		return err
	}
	return t.mayWrite(minReader)
}

func (t *Tx) beginSQLite(ctx context.Context, level isolation) (minReader int, err error) {
	if _, err := t.conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil || level == levelSchema {
		return 0, err
	}
	err = t.conn.QueryRowContext(ctx, minReaderQuery).Scan(&minReader)
	return minReader, err
}

// holdEngine waits for the engine's transactions and keeps new ones out. It comes
// before the snapshot, so that nothing in it can be outrun, and gives up soon: an
// owner that stands still in a transaction is not waited for.
const holdEngine = "SET LOCAL lock_timeout = '1s'; LOCK TABLE task IN EXCLUSIVE MODE; SET LOCAL lock_timeout TO DEFAULT;"

func (t *Tx) beginPostgres(ctx context.Context, level isolation, attempt int) (minReader int, err error) {
	var script string
	hold := level == levelDocuments && attempt > overtaken && (attempt-overtaken)%2 == 1
	switch level {
	case levelDocuments:
		script = "BEGIN ISOLATION LEVEL SERIALIZABLE;"
		if hold {
			script += holdEngine
		}
	case levelEngine:
		// A node that stops must not hold the rows by which another takes over.
		script = "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL idle_in_transaction_session_timeout = '5s'; SET LOCAL statement_timeout = '15s';"
	case levelSchema:
		script = "BEGIN ISOLATION LEVEL READ COMMITTED;"
	}
	script += "SELECT pg_current_xact_id()::text;"
	want := 1
	if level != levelSchema {
		script, want = script+minReaderQuery, 2
	}
	var fields []string
	err = rawPg(t.conn, func(c *pgconn.PgConn) (err error) {
		t.pid = c.PID()
		fields, _, err = simple(ctx, c, script)
		return err
	})
	var pg *pgconn.PgError
	switch {
	case hold && errors.As(err, &pg) && pg.Code == "55P03":
		return 0, fmt.Errorf("%w: %w", errAborted, err)
	case err != nil && !isRefusal(err) && ctx.Err() == nil:
		// After a restart of the server the pool is full of connections that
		// are no more. Nothing was done yet, so it is tried on another.
		return 0, fmt.Errorf("%w: %w", errAborted, err)
	case err != nil:
		return 0, err
	case len(fields) != want:
		return 0, sql.ErrNoRows
	}
	if t.xid, err = strconv.ParseUint(fields[0], 10, 64); err != nil || want == 1 {
		return 0, err
	}
	return strconv.Atoi(fields[1])
}

// commit makes the transaction last, or says for certain that it did not. Only
// when even that cannot be learnt it returns ErrFateUnknown. It does not heed
// ctx's end: half a commit is none.
func (t *Tx) commit(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	if t.d.dialect == SQLite {
		_, err := t.conn.ExecContext(ctx, "COMMIT")
		if err == nil {
			err = failpoint.Hit("commit-ambiguous")
			if err == nil {
				return nil
			}
			return t.d.fail(fmt.Errorf("%w: %w", ErrFateUnknown, err))
		}
		switch {
		case isUnwritten(err):
			return fmt.Errorf("%w: %w", errCommit, err)
		case isIOError(err):
			return t.d.fail(fmt.Errorf("%w: %w", ErrFateUnknown, err))
		}
		return err
	}
	statements := "COMMIT"
	if len(t.changed) > 0 {
		statements = "NOTIFY " + channel + ", '" + t.d.watch.id + "'; COMMIT" // what caches must not miss
	}
	var tag string
	err := rawPg(t.conn, func(c *pgconn.PgConn) (err error) {
		_, tag, err = simple(ctx, c, statements)
		if hit := failpoint.Hit("commit-ambiguous"); hit != nil {
			_ = c.Conn().Close() // as if the network had gone while the answer was under way
			err = hit
		}
		return err
	})
	switch {
	case err == nil && tag == "COMMIT":
		return nil
	case err == nil:
		return errors.New("db: a statement of the transaction failed and the error was not returned, so nothing was committed")
	case isRefusal(err):
		return err
	}
	_ = t.conn.Raw(func(any) error { return driver.ErrBadConn }) // drops the connection
	return t.d.resolve(ctx, t.xid, t.pid, err)
}

// isRefusal tells the server's word that a COMMIT was not done from a
// connection that broke, or a backend that was shot, in the middle of it.
func isRefusal(err error) bool {
	var pg *pgconn.PgError
	return errors.As(err, &pg) && pg.SeverityUnlocalized == "ERROR"
}

const (
	// resolveFor bounds how long the fate of a commit is asked for.
	resolveFor = 30 * time.Second
	// patience is how long a backend that we lost may go on with its commit
	// before it is shot: then it has an end, one way or the other.
	patience = 500 * time.Millisecond
)

// resolve asks the server, on a connection of its own, what became of a
// transaction whose COMMIT was sent and not answered.
func (d *DB) resolve(ctx context.Context, xid uint64, pid uint32, cause error) error {
	ctx, cancel := context.WithTimeout(ctx, resolveFor)
	defer cancel()
	d.log.WarnContext(ctx, "the answer to a commit was lost, asking for its fate", "database", d.url, "xid", xid, "error", cause)
	start, shot := time.Now(), false
	for {
		status, err := d.xactStatus(ctx, xid)
		switch {
		case err == nil && status == "committed":
			return nil
		case err == nil && status == "aborted":
			return fmt.Errorf("%w: the connection to the database was lost during the commit, which was undone: %w", errAborted, cause)
		case err == nil && status == "in progress" && !shot && time.Since(start) > patience:
			shot = true
			if err := d.terminate(ctx, pid, xid); err != nil {
				d.log.WarnContext(ctx, "the lost backend could not be ended", "database", d.url, "pid", pid, "error", err)
			}
		case err == nil && status != "in progress":
			return fmt.Errorf("%w: the server no longer knows transaction %d: %w", ErrFateUnknown, xid, cause)
		}
		if sleep(ctx, 100*time.Millisecond) != nil {
			return fmt.Errorf("%w: the server did not tell within %v: %w", ErrFateUnknown, resolveFor, errors.Join(cause, err))
		}
	}
}

func (d *DB) xactStatus(ctx context.Context, xid uint64) (string, error) {
	conn, err := pgx.ConnectConfig(ctx, d.pgConfig)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it has served
	var status *string
	if err := conn.QueryRow(ctx, `SELECT pg_xact_status($1::text::xid8)`, strconv.FormatUint(xid, 10)).Scan(&status); err != nil {
		return "", err
	}
	if status == nil {
		return "forgotten", nil
	}
	return *status, nil
}

// terminate ends the backend pid if it still runs transaction xid.
func (d *DB) terminate(ctx context.Context, pid uint32, xid uint64) error {
	conn, err := pgx.ConnectConfig(ctx, d.pgConfig)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it has served
	_, err = conn.Exec(ctx, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND backend_xid = $2::text::xid8::xid`,
		int64(pid), strconv.FormatUint(xid, 10))
	return err
}

// rollback ends a transaction that is not to be committed.
func (t *Tx) rollback(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), busyTimeout)
	defer cancel()
	t.closeRows()
	_ = undo(ctx, t.conn) // the transaction has ended either way
}

// undo ends a connection's transaction. When that does not work the connection is thrown away:
// the next one who got it from the pool would be in a transaction without knowing.
func undo(ctx context.Context, conn *sql.Conn) error {
	_, err := conn.ExecContext(ctx, "ROLLBACK")
	if err != nil {
		_ = conn.Raw(func(any) error { return driver.ErrBadConn }) // drops the connection
	}
	return err
}

// closeRows closes what fn may have left open; a connection with open rows
// could not be given back.
func (t *Tx) closeRows() {
	if t.rows != nil {
		_ = t.rows.Close() // its error belongs to fn, which has returned
		t.rows = nil
	}
	if t.row != nil {
		_ = t.row.Scan() // a Row is closed by its Scan, and only by it
		t.row = nil
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
