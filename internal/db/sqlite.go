package db

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"modernc.org/sqlite"
)

const (
	// busyTimeout is how long SQLite itself waits for a lock that another
	// process holds, before the retries of Write begin.
	busyTimeout = 5 * time.Second
	// Page caches, in KiB per connection. They bound what SQLite keeps in
	// memory: the operating system caches the file besides.
	readerCacheKiB = 2048
	writerCacheKiB = 8192
	watchCacheKiB  = 64
)

func (d *DB) openSQLite(ctx context.Context, path string, opt Options) error {
	if path == "" {
		return errors.New("database URL names no file; use sqlite:PATH")
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	d.dialect, d.path, d.url = SQLite, path, "sqlite:"+path

	// Locks of open file descriptions survive when some code of this process
	// opens and closes the database file, and fdatasync is what SQLite's own
	// builds on Linux use. Both are process-wide switches that stay as they
	// are where the platform lacks them.
	if _, err := sqlite.OFDLocking(true); err != nil && !errors.Is(err, sqlite.ErrOFDLockingUnavailable) && !errors.Is(err, sqlite.ErrOFDLockingTooLate) {
		return err
	}
	if _, err := sqlite.Fdatasync(true); err != nil && !errors.Is(err, sqlite.ErrFdatasyncUnavailable) {
		return err
	}
	if err := createPrivate(path, opt.MustExist); err != nil {
		return fmt.Errorf("open %s: %w", d.url, err)
	}

	d.writer, err = sqlitePool(path, 1, writerCacheKiB, false)
	if err != nil {
		return fmt.Errorf("open %s: %w", d.url, err)
	}
	if err := pingSQLite(ctx, d.writer); err != nil {
		return errors.Join(fmt.Errorf("open %s: %w", d.url, d.translate(err)), d.writer.Close())
	}
	d.turn = make(chan struct{}, 1)
	if d.turnstile, err = openTurnstile(path); err != nil {
		return errors.Join(fmt.Errorf("open %s: %w", d.url, err), d.writer.Close())
	}
	readers := opt.Readers
	if readers <= 0 {
		readers = min(max(4, 2*runtime.GOMAXPROCS(0)), 16)
	}
	if d.reader, err = sqlitePool(path, readers, readerCacheKiB, true); err != nil {
		return errors.Join(fmt.Errorf("open %s: %w", d.url, err), d.writer.Close(), d.turnstile.close())
	}
	d.readers = readers
	d.reader.SetConnMaxLifetime(statisticsEvery)
	return nil
}

// takeTurn waits until this goroutine may write: in line with the others of this
// process, then with other processes.
func (d *DB) takeTurn(ctx context.Context) (leave func(), err error) {
	select {
	case d.turn <- struct{}{}:
	default:
		limit := time.NewTimer(retryFor)
		defer limit.Stop()
		select {
		case d.turn <- struct{}{}:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-limit.C:
			return nil, unavailable("The database is busy; try again.",
				fmt.Errorf("another write of this process has not ended for %v; it may have been begun within it", retryFor))
		}
	}
	if err := d.turnstile.enter(ctx); err != nil {
		<-d.turn
		return nil, err
	}
	return func() {
		d.turnstile.leave()
		<-d.turn
	}, nil
}

// createPrivate makes an absent database file with permissions for its owner
// alone; SQLite gives the files beside it the same. An existing file is not
// even opened: closing it would drop the locks that this process may hold on it.
func createPrivate(path string, mustExist bool) error {
	if _, err := os.Lstat(path); err == nil || !errors.Is(err, fs.ErrNotExist) || mustExist {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // another process was faster
	}
	if err != nil {
		return err
	}
	return f.Close()
}

// pingSQLite opens the first connection. Turning on the write-ahead log needs
// the file alone for a moment, and SQLite does not always wait for that itself.
func pingSQLite(ctx context.Context, pool *sql.DB) error {
	for start := time.Now(); ; {
		err := pool.PingContext(ctx)
		if err == nil || !isSerialization(err) || time.Since(start) > busyTimeout {
			return err
		}
		if err := sleep(ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

// sqliteDSN is the driver's name for the file path with the given pragmas.
func sqliteDSN(path string, pragmas []string) string {
	q := url.Values{"_pragma": pragmas}
	q.Set("mode", "rw")
	q.Set("_busy_timeout", strconv.FormatInt(busyTimeout.Milliseconds(), 10)) // the driver sets it first
	q.Set("_dqs", "0")                                                        // "x" is a column, never a text
	q.Set("_error_rc", "1")
	dsn := url.URL{Scheme: "file", OmitHost: true, Path: path, RawQuery: q.Encode()}
	return dsn.String()
}

func sqlitePool(path string, size, cacheKiB int, readOnly bool) (*sql.DB, error) {
	pragmas := []string{
		"synchronous(FULL)", "foreign_keys(1)", fmt.Sprintf("cache_size(-%d)", cacheKiB),
		"temp_store(MEMORY)", "trusted_schema(0)",
	}
	if readOnly {
		pragmas = append(pragmas, "query_only(1)")
	} else {
		pragmas = append([]string{"journal_mode(WAL)"}, pragmas...)
		pragmas = append(pragmas, "journal_size_limit(67108864)")
	}
	inner, err := sqlite.NewConnector(sqliteDSN(path, pragmas))
	if err != nil {
		return nil, err
	}
	pool := sql.OpenDB(liteConnector{inner})
	pool.SetMaxOpenConns(size)
	pool.SetMaxIdleConns(size)
	if readOnly {
		pool.SetConnMaxIdleTime(5 * time.Minute)
	}
	return pool, nil
}

// liteConnector opens connections that keep their prepared statements.
type liteConnector struct{ driver.Connector }

func (c liteConnector) Connect(ctx context.Context) (driver.Conn, error) {
	inner, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	full, ok := inner.(liteInner)
	if !ok {
		return nil, errors.Join(errors.New("the SQLite driver lacks an interface that is needed"), inner.Close())
	}
	return &liteConn{liteInner: full, stmts: newStmtCache(maxStmts)}, nil
}

// liteInner is what the SQLite driver's connections can do.
type liteInner interface {
	driver.Conn
	driver.ConnPrepareContext
	driver.SessionResetter
	driver.Validator
	driver.Pinger
}

// maxStmts bounds the prepared statements that a connection keeps, and
// maxCachedText the text of one: lists of values of every length would
// otherwise push out what is used all the time.
const (
	maxStmts      = 200
	maxCachedText = 8 << 10
)

// liteConn is a connection that prepares each statement once, and allows one
// set of rows at a time, as PostgreSQL's protocol does, so that code which
// works on one database works on the other.
type liteConn struct {
	liteInner
	stmts *stmtCache
	open  int // rows not yet closed
}

func (c *liteConn) Close() error {
	return errors.Join(c.stmts.close(), c.liteInner.Close())
}

// Unwrap gives the driver its own connection.
func (c *liteConn) Unwrap() driver.Conn { return c.liteInner }

// Begin is not used: transactions are begun by statements.
func (c *liteConn) Begin() (driver.Tx, error) {
	return nil, errors.New("db: transactions are begun by Read and Write")
}

func (c *liteConn) stmt(ctx context.Context, query string) (liteStmt, bool, error) {
	if s := c.stmts.get(query); s != nil {
		return s, true, nil
	}
	prepared, err := c.PrepareContext(ctx, query)
	if err != nil {
		return nil, false, err
	}
	s, ok := prepared.(liteStmt)
	if !ok {
		return nil, false, errors.Join(errors.New("the SQLite driver's statement lacks an interface that is needed"), prepared.Close())
	}
	if len(query) > maxCachedText {
		return s, false, nil
	}
	if err := c.stmts.put(query, s); err != nil {
		return nil, false, err
	}
	return s, true, nil
}

type liteStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

func (c *liteConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	if c.open > 0 {
		return nil, errRowsOpen
	}
	s, cached, err := c.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	res, err := s.ExecContext(ctx, args)
	if !cached {
		err = errors.Join(err, s.Close())
	}
	return res, err
}

func (c *liteConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	if c.open > 0 {
		return nil, errRowsOpen
	}
	s, cached, err := c.stmt(ctx, query)
	if err != nil {
		return nil, err
	}
	rows, err := s.QueryContext(ctx, args)
	if err != nil {
		if !cached {
			err = errors.Join(err, s.Close())
		}
		return nil, err
	}
	if cached {
		return countRows(rows, &c.open, nil), nil
	}
	return countRows(rows, &c.open, s), nil
}
