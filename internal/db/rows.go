package db

import (
	"database/sql/driver"
	"errors"
)

// errRowsOpen is the same mistake on both databases: PostgreSQL's protocol has
// one query at a time on a connection, so SQLite gets no more.
var errRowsOpen = errors.New("db: close the rows of a query before the next statement")

// countedRows count themselves out when they are closed.
type countedRows struct {
	driver.Rows
	open   *int
	stmt   driver.Stmt // closed with them, may be nil
	closed bool
}

func countRows(rows driver.Rows, open *int, stmt driver.Stmt) driver.Rows {
	*open++
	return &countedRows{Rows: rows, open: open, stmt: stmt}
}

func (r *countedRows) Close() error {
	if r.closed {
		return nil
	}
	r.closed = true
	*r.open--
	err := r.Rows.Close()
	if r.stmt != nil {
		err = errors.Join(err, r.stmt.Close())
	}
	return err
}
