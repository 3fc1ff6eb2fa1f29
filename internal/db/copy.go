package db

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"modernc.org/sqlite"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/fault"
)

// portion is how many pages are copied before they are flushed, of SQLite's usual size. A
// commit waits until the disk has written what it took before; that shall never be the
// whole copy.
const portion = durable.Portion / 4096

// CopyTo writes a copy of a SQLite database, as it is at one moment, to a new
// file, while everybody else goes on. It is whole and on disk when CopyTo
// returns, and has no write-ahead log beside it. PostgreSQL brings its own
// tools, so there it is a fault Unsupported.
func (d *DB) CopyTo(ctx context.Context, path string) error {
	if d.dialect != SQLite {
		return fault.New(fault.Unsupported, "A PostgreSQL database is copied by pg_dump.")
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("copy the database to %s: %w", path, errors.Join(fs.ErrExist, err))
	}
	if err := d.copyTo(ctx, path); err != nil {
		return errors.Join(fmt.Errorf("copy the database to %s: %w", path, d.translate(err)), removeDatabase(path))
	}
	return nil
}

func (d *DB) copyTo(ctx context.Context, path string) (err error) {
	if err := d.alive(); err != nil {
		return err
	}
	conn, err := d.reader.Conn(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }() // back into the pool
	if err := createPrivate(path, false); err != nil {
		return err
	}
	// It is closed after SQLite has closed its own: to close any handle of a file gives back
	// the locks that the process has on it.
	out, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	// Within one transaction all portions are of the same moment: without it, a write between
	// two of them would make the copy start again.
	if _, err := conn.ExecContext(ctx, "BEGIN"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, undo(context.WithoutCancel(ctx), conn)) }()
	var version int64 // the transaction begins when it reads
	if err := conn.QueryRowContext(ctx, "PRAGMA schema_version").Scan(&version); err != nil {
		return err
	}
	return conn.Raw(func(c any) error {
		lite, ok := c.(*liteConn)
		if !ok {
			return errors.New("db: not a SQLite connection")
		}
		source, ok := lite.liteInner.(interface {
			NewBackup(dst string) (*sqlite.Backup, error)
		})
		if !ok {
			return errors.New("the SQLite driver cannot copy")
		}
		b, err := source.NewBackup(sqliteDSN(path, nil))
		if err != nil {
			return err
		}
		for more := true; more && err == nil; {
			if err = ctx.Err(); err != nil {
				break
			}
			if more, err = b.Step(portion); err == nil {
				err = out.Sync()
			}
		}
		return errors.Join(err, b.Finish())
	})
}

// removeDatabase removes a file that is no database yet, with what is beside it.
func removeDatabase(path string) error {
	var all error
	for _, suffix := range []string{"", "-journal", "-wal", "-shm"} {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	return all
}

// Checkpoint moves what is in SQLite's write-ahead log into the database and
// empties the log, if no reader still needs it. It is for the moment after a
// time of long readers or of two processes; otherwise SQLite does it by itself.
// It is not called within Write.
func (d *DB) Checkpoint(ctx context.Context) error {
	if d.dialect != SQLite {
		return nil
	}
	if err := d.alive(); err != nil {
		return err
	}
	leave, err := d.takeTurn(ctx)
	if err != nil {
		return err
	}
	defer leave()
	var busy, log, moved int64
	err = d.writer.QueryRowContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)").Scan(&busy, &log, &moved)
	if err != nil {
		return fmt.Errorf("checkpoint: %w", d.translate(err))
	}
	return nil
}
