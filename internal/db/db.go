// Package db opens Tako's database and is the only way to it.
//
// Two databases are held to one behaviour: SQLite inside the process (the
// default) and PostgreSQL. Everything runs inside Read or Write; SQL is written
// once, with `?` for parameters, and the few spots where the dialects differ
// live here. Write carries the audit events of what it changed, so that a
// change and its event are committed together or not at all.
//
// # Migrations
//
// The schema is the sum of the numbered files in migrations/, which are taken in
// order, once each, and only ever add. Each says in its header to which level of
// the schema it belongs ("-- tako: level 1, tx"); a release raises the level.
// Released files are immutable. Until the first release they may be edited, and
// the list of their hashes is recorded anew by
//
//	go test ./internal/db -run TestMigrationIDs -update
//
// They are written in the words that both databases share, and three that the
// runner translates: TEXT, BLOB and IDENTITY (a primary key that counts).
//
// Servers of the level before write while they are taken, and on SQLite wait for
// each of them. So whatever takes longer for a table with more rows is not for one
// migration, once that table is of an earlier level and one that grows: neither an
// index on it nor a copy of its rows. Such a table gets another one beside it, with
// the indexes that it needs, which a migration of the kind "fill" then fills, portion
// by portion:
//
//	-- tako: level 3, fill
//	INSERT INTO event_actor (event_id, user_id) SELECT e.id, e.user_id FROM events e WHERE e.user_id <> '';
//
// What is in the older table when it begins is in the newer one when it ends. What
// older servers write meanwhile and afterwards is for the new version to take along:
// it writes both tables, reads the older one, and once its level is active has
// background work set right what differs, before it reads the newer one.
package db

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/semaphore"
)

// Dialect tells the two databases apart.
type Dialect uint8

// The databases Tako runs on.
const (
	SQLite Dialect = iota
	Postgres
)

// String returns the dialect's name as it stands in a database URL.
func (d Dialect) String() string {
	if d == Postgres {
		return "postgres"
	}
	return "sqlite"
}

// Options of Open.
type Options struct {
	Log *slog.Logger
	// Now is the clock of everything that is no lease: stamps of documents and
	// events. Leases on PostgreSQL use the database's own clock.
	Now func() time.Time
	// Readers bounds the connections that read at the same time, on PostgreSQL
	// all connections of the pool; 0 chooses.
	Readers int
	// MustExist refuses to make a new SQLite file: what should be there and is
	// not was lost, and an empty database in its place would hide that.
	MustExist bool
	// OnStatement is told of every statement before it runs, for tests that count
	// them; it is called by several goroutines at the same time.
	OnStatement func(query string)
	// OnFull is told that a transaction was undone since a disk is full, or that one failed
	// for what may be the same reason. Where it reports that it has made room, a
	// transaction that was undone is tried once more. Migrations do not ask for it: they may need any space.
	OnFull func() (room bool)
	// Levels of the binary, for tests that play an older or newer one; zero
	// means BinaryLevels.
	Levels Levels
}

// DB is an open database. It is safe for concurrent use.
type DB struct {
	dialect Dialect
	url     string // without credentials, for messages
	dsn     string // with credentials, never shown
	path    string // SQLite's file, "" on PostgreSQL
	log     *slog.Logger
	now     func() time.Time
	levels  Levels
	told    func(query string) // never nil
	onFull  func() bool        // never nil

	// On PostgreSQL both are the same pool. On SQLite the writer has one
	// connection, for which writers wait in line in Go and not in busy loops.
	reader, writer *sql.DB
	readers        int                 // SQLite: the size of the reader's pool
	turn           chan struct{}       // SQLite: full while this process writes
	turnstile      *turnstile          // SQLite: where processes wait for each other
	writers        *semaphore.Weighted // PostgreSQL: who writes documents; one may take all of it
	width          width               // how much of it one takes
	pgConfig       *pgx.ConnConfig     // PostgreSQL: for connections outside the pool
	lockAttempts   int                 // PostgreSQL: in place of the constant, in tests; 0 for that

	counters counters
	watch    watch
	bound    bound

	failed    chan struct{} // closed once the process has to exit
	failOnce  sync.Once
	failCause error
}

// Open connects to url, which is `sqlite:PATH` or `postgres://...`. It does not
// migrate; see Migrate.
func Open(ctx context.Context, url string, opt Options) (*DB, error) {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Now == nil {
		opt.Now = time.Now
	}
	if opt.Levels == (Levels{}) {
		opt.Levels = BinaryLevels()
	}
	if opt.OnStatement == nil {
		opt.OnStatement = func(string) {}
	}
	if opt.OnFull == nil {
		opt.OnFull = func() bool { return false }
	}
	d := &DB{dsn: url, log: opt.Log, now: opt.Now, levels: opt.Levels, told: opt.OnStatement, onFull: opt.OnFull, failed: make(chan struct{}), writers: semaphore.NewWeighted(everyone)}
	d.watch.init()
	var err error
	switch scheme, rest, _ := strings.Cut(url, ":"); scheme {
	case "sqlite":
		err = d.openSQLite(ctx, strings.TrimPrefix(rest, "//"), opt)
	case "postgres", "postgresql":
		err = d.openPostgres(ctx, url, opt)
	default:
		return nil, fmt.Errorf("database URL has scheme %q; use sqlite:PATH or postgres://USER@HOST/NAME", scheme)
	}
	if err != nil {
		return nil, err
	}
	return d, nil
}

// Dialect tells which database this is.
func (d *DB) Dialect() Dialect { return d.dialect }

// String names the database without any credential.
func (d *DB) String() string { return d.url }

// Failed is closed when the process has to exit because the database's fate is
// unknown to it (ErrFateUnknown); nothing but a new process can go on.
func (d *DB) Failed() <-chan struct{} { return d.failed }

// fail remembers that nothing can be trusted any more and returns err.
func (d *DB) fail(err error) error {
	d.failOnce.Do(func() {
		d.failCause = err
		close(d.failed)
	})
	return err
}

// alive returns why nothing can be done, or nil.
func (d *DB) alive() error {
	select {
	case <-d.failed:
		return d.failCause
	default:
		return nil
	}
}

// Close closes every connection. On SQLite the last one to close also
// checkpoints the write-ahead log.
func (d *DB) Close() error {
	err := errors.Join(d.watch.stop(), d.reader.Close())
	if d.writer != d.reader {
		err = errors.Join(err, d.writer.Close(), d.turnstile.close())
	}
	return err
}

// Tx is a transaction. It is for one goroutine, and only until its function
// returns. One query at a time: its rows are closed before the next statement.
// After an error of the database the only thing to do is to return it, since
// PostgreSQL refuses all that follows.
type Tx struct {
	d       *DB
	conn    *sql.Conn
	now     time.Time
	write   bool
	events  []Event
	changed map[string]struct{}
	after   []func()
	blocks  map[string]*block // ids taken by this transaction, not yet committed

	collided bool // PostgreSQL: a key was taken

	queued []queued // PostgreSQL: what goes with the next statement
	failed error    // of what was queued; nothing else can follow it

	rows *sql.Rows // the last ones given out, to close what was left open
	row  *sql.Row

	xid uint64 // PostgreSQL: the transaction's id, by which its fate is asked for
	pid uint32 // PostgreSQL: the backend that runs it

	announced bool // PostgreSQL: that it writes events, see SettledEvents
}

// Dialect tells which database this transaction runs on.
func (t *Tx) Dialect() Dialect { return t.d.dialect }

// Now is the one time stamp of this transaction, in whole microseconds, UTC.
func (t *Tx) Now() time.Time { return t.now }

// Query runs a query; parameters are `?`. Its errors are translated, see Error.
func (t *Tx) Query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if err := t.flush(ctx); err != nil {
		return nil, err
	}
	t.d.told(query)
	rows, err := t.conn.QueryContext(ctx, t.d.bind(query), args...)
	if err != nil {
		return nil, t.d.translate(err)
	}
	t.rows = rows
	return rows, nil
}

// QueryRow runs a query for one row; Scan must be called on it. Scan's errors
// are translated only where Read or Write returns them.
func (t *Tx) QueryRow(ctx context.Context, query string, args ...any) *sql.Row {
	// A Row cannot carry the error: PostgreSQL refuses the query after it, and attempt
	// returns the cause.
	_ = t.flush(ctx)
	t.d.told(query)
	t.row = t.conn.QueryRowContext(ctx, t.d.bind(query), args...)
	return t.row
}

// Exec runs a statement and returns how many rows it touched. Its errors are
// translated, see Error.
func (t *Tx) Exec(ctx context.Context, query string, args ...any) (int64, error) {
	if !t.write {
		return 0, errors.New("db: Exec in a read transaction")
	}
	t.d.told(query)
	if len(t.queued) > 0 || t.failed != nil {
		return t.send(ctx, &queued{t.d.bind(query), args})
	}
	res, err := t.conn.ExecContext(ctx, t.d.bind(query), args...)
	if err != nil {
		return 0, t.broken(err)
	}
	return res.RowsAffected()
}

// broken translates the error of a statement that writes.
func (t *Tx) broken(err error) error {
	err = t.d.translate(err)
	t.collided = t.collided || t.d.dialect == Postgres && errors.Is(err, ErrUnique)
	return err
}

// ForUpdate is the clause that locks the selected rows against other writers
// until the end of the transaction. SQLite has one writer at a time and needs none.
func (t *Tx) ForUpdate() string {
	if t.d.dialect == Postgres {
		return " FOR NO KEY UPDATE"
	}
	return ""
}

// Event adds an audit event, which is committed with this transaction.
func (t *Tx) Event(e Event) { t.events = append(t.events, e) }

// Changed bumps the change counter of a kind when the transaction commits, so
// that every process drops what it cached of it.
func (t *Tx) Changed(kind string) {
	if t.changed == nil {
		t.changed = map[string]struct{}{}
	}
	t.changed[kind] = struct{}{}
}

// AfterCommit has fn called once the transaction is committed, and not if it
// is rolled back or its fate is unknown.
func (t *Tx) AfterCommit(fn func()) { t.after = append(t.after, fn) }

// NextSeq returns the next number of a counter ("Projects"). Numbers are handed
// to processes in blocks, so gaps are ordinary; they never repeat.
func (t *Tx) NextSeq(ctx context.Context, counter string) (int64, error) {
	return t.d.counters.next(ctx, t, counter)
}

// Read runs fn in a read-only transaction: one consistent view on SQLite,
// statement by statement on PostgreSQL. It should be short: as long as it runs,
// SQLite's write-ahead log cannot shrink.
func (d *DB) Read(ctx context.Context, fn func(*Tx) error) error {
	if err := d.alive(); err != nil {
		return err
	}
	conn, err := d.reader.Conn(ctx)
	if err != nil {
		return d.translate(err)
	}
	defer func() { _ = conn.Close() }() // back into the pool
	t := &Tx{d: d, conn: conn, now: stamp(d.now())}
	if d.dialect == Postgres {
		defer t.closeRows()
		return d.ended(ctx, fn(t))
	}
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		return d.ended(ctx, err)
	}
	defer t.rollback(ctx) // a read has nothing to commit
	return d.ended(ctx, fn(t))
}

// Write runs fn in a transaction and commits it with its events: SERIALIZABLE
// on PostgreSQL, one writer at a time on SQLite. fn may run several times
// (serialization failures are retried, nothing else is), so it has no side
// effects but on the database and on variables it sets anew each time. fn does
// not call Write: SQLite has one writer.
func (d *DB) Write(ctx context.Context, fn func(*Tx) error) error {
	return d.writeTx(ctx, levelDocuments, fn)
}

// WriteEngine is Write at READ COMMITTED, for the task engine, whose own row
// locks, epochs and journal numbers keep order.
func (d *DB) WriteEngine(ctx context.Context, fn func(*Tx) error) error {
	return d.writeTx(ctx, levelEngine, fn)
}

func stamp(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }

// Micros is how times are stored: microseconds since 1970, UTC; the zero time is 0.
func Micros(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

// Time reads what Micros wrote.
func Time(micros int64) time.Time {
	if micros == 0 {
		return time.Time{}
	}
	return time.UnixMicro(micros).UTC()
}
