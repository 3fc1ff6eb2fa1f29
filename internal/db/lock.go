package db

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/jackc/pgx/v5"
)

// TryLock takes an advisory lock of this database by its name, on PostgreSQL: no other
// process gets it before unlock, or before this one has ended. got says whether it was free.
// It holds a connection outside of the pool. On SQLite, where a file's lock does the same,
// it is always free.
func (d *DB) TryLock(ctx context.Context, name string) (unlock func(), got bool, err error) {
	if d.dialect != Postgres {
		return func() {}, true, nil
	}
	conn, err := pgx.ConnectConfig(ctx, d.pgConfig)
	if err != nil {
		return nil, false, d.translate(err)
	}
	unlock = func() {
		// The lock goes with the connection.
		ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), connectTimeout)
		defer stop()
		_ = conn.Close(ctx)
	}
	sum := sha256.Sum256([]byte("tako " + name))
	key := int64(binary.BigEndian.Uint64(sum[:8])) //nolint:gosec // any number will do
	err = conn.QueryRow(ctx, `SELECT pg_try_advisory_lock($1)`, key).Scan(&got)
	if err != nil || !got {
		unlock()
		return nil, false, d.translate(err)
	}
	return unlock, true, nil
}

// Lock is TryLock that waits, as long as ctx.
func (d *DB) Lock(ctx context.Context, name string) (unlock func(), err error) {
	for {
		unlock, got, err := d.TryLock(ctx, name)
		if err != nil || got {
			return unlock, err
		}
		if err := sleep(ctx, 500*time.Millisecond); err != nil {
			return nil, err
		}
	}
}
