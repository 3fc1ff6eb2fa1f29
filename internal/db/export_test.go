package db

import (
	"context"
	"io/fs"
)

// What tests outside of the package need of its inside.

// MigrateFS migrates with the files of another folder than the binary's.
func MigrateFS(ctx context.Context, d *DB, fsys fs.FS, dir string, opt MigrateOptions) error {
	all, err := loadMigrations(fsys, dir)
	if err != nil {
		return err
	}
	return d.migrate(ctx, all, d.levels, opt)
}

// Embedded are the binary's own migrations.
func Embedded() fs.FS { return embedded }

// StartRule is the start rule by itself.
func StartRule(binary Levels, m Meta) error { return startRule(binary, m) }

// Identity of a writing transaction on PostgreSQL.
func (t *Tx) Identity() (xid uint64, pid uint32) { return t.xid, t.pid }

// Resolve asks for the fate of a transaction.
func (d *DB) Resolve(ctx context.Context, xid uint64, pid uint32, cause error) error {
	return d.resolve(ctx, xid, pid, cause)
}

// RefreshStatistics refreshes the statistics of a database of at least so many bytes.
func (d *DB) RefreshStatistics(ctx context.Context, from int64) error {
	return d.refreshStatistics(ctx, from)
}

// Impatient has changes of the schema try only so often to get a lock.
func Impatient(d *DB, attempts int) { d.lockAttempts = attempts }

// UndoNothing ends a transaction on a connection that has none, which fails, and tells how
// many connections the pool has open afterwards.
func UndoNothing(ctx context.Context, d *DB) (open int, err error) {
	conn, err := d.reader.Conn(ctx)
	if err != nil {
		return 0, err
	}
	err = undo(ctx, conn)
	_ = conn.Close() // back into the pool, if it still is a connection
	return d.reader.Stats().OpenConnections, err
}
