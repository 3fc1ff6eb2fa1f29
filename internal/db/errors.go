package db

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/takodeploy/tako/internal/fault"
)

// Errors that callers branch on.
var (
	// ErrUnique says that a row with that key is there already.
	ErrUnique = errors.New("the database has that key already")
	// ErrForeignKey says that a row refers to one that is not there, or is
	// referred to by one that stays.
	ErrForeignKey = errors.New("the database has rows that refer to each other")
	// ErrFateUnknown says that a commit was sent and that nobody can tell
	// whether it was done. On SQLite it is an I/O error at COMMIT: from then
	// on every call fails with it, and the process has to exit, since only
	// recovery by a new one tells. See Failed.
	ErrFateUnknown = errors.New("the fate of a commit is unknown")

	// errCommit wraps a failed write of a COMMIT on SQLite. Its fate is only certain if it failed
	// for want of room: else the disk is not to be trusted.
	errCommit = errors.New("the commit could not be written")
	// errAborted wraps the loss of a connection when nothing was done, or all
	// of it undone, for certain, so that it may be tried again.
	errAborted = errors.New("nothing was committed")
)

// Error is what the database said, told by its code.
type Error struct {
	// Code is PostgreSQL's five letters, or SQLite's extended result code.
	Code string
	// Constraint and Table name what was violated, where the database tells.
	Constraint, Table string

	kind  error // ErrUnique, ErrForeignKey or nil
	cause error
}

// Error returns the database's own text: it is for the log.
func (e *Error) Error() string { return e.cause.Error() }

// Unwrap gives errors.Is both the sentinel and the driver's error.
func (e *Error) Unwrap() []error {
	if e.kind == nil {
		return []error{e.cause}
	}
	return []error{e.kind, e.cause}
}

// translate gives driver errors their meaning. Others, and those that have it
// already, it returns unchanged.
func (d *DB) translate(err error) error {
	var done *Error
	if err == nil || errors.As(err, &done) || fault.KindOf(err) != fault.Internal {
		return err
	}
	var lite *sqlite.Error
	var pg *pgconn.PgError
	var connect *pgconn.ConnectError
	switch {
	case errors.As(err, &lite):
		return translateSQLite(err, lite.Code())
	case errors.As(err, &pg):
		return translatePostgres(err, pg)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded), errors.Is(err, ErrFateUnknown):
		return err
	case errors.As(err, &connect):
		// Its text names host, user and database, and no password.
		return unavailable("The database cannot be reached.", err)
	case errors.Is(err, driver.ErrBadConn), pgconn.Timeout(err), pgconn.SafeToRetry(err), errors.Is(err, errAborted):
		return unavailable("The connection to the database was lost; try again.", err)
	}
	return err
}

// ended translates the error with which a transaction ended. If its context had
// ended before, that is the reason, whatever the broken-off connection says.
func (d *DB) ended(ctx context.Context, err error) error {
	err = d.translate(err)
	if err == nil || ctx.Err() == nil || errors.Is(err, ctx.Err()) {
		return err
	}
	return fmt.Errorf("%w: %w", ctx.Err(), err)
}

func unavailable(message string, cause error) error {
	return &fault.Error{Kind: fault.Unavailable, Message: message, Cause: cause}
}

func translateSQLite(err error, code int) error {
	e := &Error{Code: fmt.Sprint(code), cause: err}
	switch code {
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_ROWID:
		e.kind = ErrUnique
		return e
	case sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
		e.kind = ErrForeignKey
		return e
	}
	switch code & 0xff {
	case sqlite3.SQLITE_FULL:
		return unavailable("The disk of the database is full; free some space.", e)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return unavailable("The database is busy; try again.", e)
	case sqlite3.SQLITE_IOERR:
		return unavailable("The disk of the database failed.", e)
	case sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN:
		return unavailable("The file of the database cannot be opened for writing.", e)
	}
	return e
}

const diskFull = "53100"

func translatePostgres(err error, pg *pgconn.PgError) error {
	e := &Error{Code: pg.Code, Constraint: pg.ConstraintName, Table: pg.TableName, cause: err}
	switch pg.Code {
	case "23505":
		e.kind = ErrUnique
		return e
	case "23503":
		e.kind = ErrForeignKey
		return e
	case diskFull:
		return unavailable("The disk of the database is full; free some space.", e)
	case "40001", "40P01", "55P03":
		return unavailable("The database is busy; try again.", e)
	case "57014":
		return unavailable("The database took too long.", e)
	case "25006":
		return unavailable("The database is read-only; it may be a standby.", e)
	}
	switch pg.Code[:min(2, len(pg.Code))] {
	case "08", "53", "57", "25":
		return unavailable("The database cannot serve at the moment; try again.", e)
	}
	return e
}

// isSerialization says that the same transaction may succeed when it is run
// again from its start.
func isSerialization(err error) bool {
	if errors.Is(err, errAborted) {
		return true // whatever the server said when it went
	}
	var lite *sqlite.Error
	if errors.As(err, &lite) {
		primary := lite.Code() & 0xff
		return primary == sqlite3.SQLITE_BUSY || primary == sqlite3.SQLITE_LOCKED
	}
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code == "40001" || pg.Code == "40P01"
	}
	return false
}

// isFull says that a transaction was undone since a disk is full.
func isFull(err error) bool {
	var lite *sqlite.Error
	var pg *pgconn.PgError
	return errors.As(err, &lite) && lite.Code()&0xff == sqlite3.SQLITE_FULL || errors.As(err, &pg) && pg.Code == diskFull
}

func isIOError(err error) bool {
	var lite *sqlite.Error
	return errors.As(err, &lite) && lite.Code()&0xff == sqlite3.SQLITE_IOERR
}

// isUnwritten says that SQLite's write to a file failed, as that of a commit does when a quota
// has no more: SQLite knows of full disks only. The last that a commit writes to the log is what
// makes it valid there, and its flush fails otherwise, so after this nothing was committed
// unless the disk does not do what it says.
func isUnwritten(err error) bool {
	var lite *sqlite.Error
	return errors.As(err, &lite) && lite.Code() == sqlite3.SQLITE_IOERR_WRITE
}
