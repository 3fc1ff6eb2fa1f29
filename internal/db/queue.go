package db

import (
	"context"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"
)

// queued is a statement that waits for the next one that is answered.
type queued struct {
	query string // as PostgreSQL wants it
	args  []any
}

// maxQueued bounds what a transaction has in hand.
const maxQueued = 64

// Queue is Exec for a statement of which nobody needs to know how many rows it touched,
// and whose error says nothing that the caller would act on. On PostgreSQL it is sent
// together with those that are queued behind it, in their order, before the next
// statement that is not, or before the commit: one round trip for all of them. Its error
// is then that of the later statement, and of Write in any case. On SQLite it is done at
// once.
func (t *Tx) Queue(ctx context.Context, query string, args ...any) error {
	if t.d.dialect != Postgres || !t.write {
		_, err := t.Exec(ctx, query, args...)
		return err
	}
	if t.failed != nil {
		return t.failed
	}
	t.d.told(query)
	t.queued = append(t.queued, queued{t.d.bind(query), slices.Clone(args)})
	if len(t.queued) < maxQueued {
		return nil
	}
	return t.flush(ctx)
}

// flush sends what was queued. After an error it returns that again and again.
func (t *Tx) flush(ctx context.Context) error {
	if t.failed != nil || len(t.queued) == 0 {
		return t.failed
	}
	_, err := t.send(ctx, nil)
	return err
}

// send sends what was queued, and last behind it unless that is nil. It returns how many
// rows last touched.
func (t *Tx) send(ctx context.Context, last *queued) (n int64, err error) {
	if t.failed != nil {
		return 0, t.failed
	}
	var batch pgx.Batch
	for _, q := range t.queued {
		batch.Queue(q.query, q.args...)
	}
	before := batch.Len()
	if last != nil {
		batch.Queue(last.query, last.args...)
	}
	t.queued = nil
	ended := 0
	err = t.conn.Raw(func(c any) error {
		conn, ok := c.(*pgConn)
		if !ok {
			return errors.New("db: not a PostgreSQL connection")
		}
		if conn.open > 0 {
			return errRowsOpen
		}
		results := conn.Conn.Conn().SendBatch(ctx, &batch)
		for ; ended < batch.Len(); ended++ {
			tag, err := results.Exec()
			if err != nil {
				return errors.Join(err, results.Close())
			}
			n = tag.RowsAffected()
		}
		return results.Close()
	})
	if err == nil {
		return n, nil
	}
	err = t.broken(err)
	if ended < before || last == nil {
		t.failed = err
	}
	return 0, err
}
