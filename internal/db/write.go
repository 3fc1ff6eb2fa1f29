package db

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

// A serialization failure is retried this often, and for this long.
const (
	maxAttempts = 20
	retryFor    = 30 * time.Second
	// together is how often a transaction on PostgreSQL may fail beside others.
	// After that it runs alone, as far as this process can see to that: where
	// many want to change the same things, random pauses let some fail for ever.
	together = 1
	everyone = math.MaxInt32
	// overtaken is how often a transaction on PostgreSQL may fail before every
	// other of its attempts keeps the engine's writers out, of all processes: a
	// task whose owner commits without a pause could not be canceled otherwise.
	overtaken = 3
	// collisions is how often a document transaction on PostgreSQL is tried again
	// because a key was taken. It may have looked before, and somebody else been
	// quicker: the next time it finds what they made.
	collisions = 2
)

// joinWriters waits until a writer may begin, beside the others or alone.
func (d *DB) joinWriters(ctx context.Context, level isolation, attempt int) (leave func(), err error) {
	if d.dialect == SQLite || level != levelDocuments {
		return func() {}, nil // the others do not fail each other
	}
	weight := d.width.weight()
	if attempt > together {
		weight = everyone
	}
	limited, cancel := context.WithTimeoutCause(ctx, retryFor, unavailable("The database is busy; try again.",
		fmt.Errorf("the writers of this process have not ended for %v", retryFor)))
	defer cancel()
	if err := d.writers.Acquire(limited, weight); err != nil {
		return nil, context.Cause(limited)
	}
	return func() { d.writers.Release(weight) }, nil
}

func (d *DB) writeTx(ctx context.Context, level isolation, fn func(*Tx) error) error {
	start := time.Now()
	var asked bool // for room
	for attempt := 1; ; attempt++ {
		t, err := d.attempt(ctx, level, attempt, fn)
		if d.dialect == Postgres && level == levelDocuments && (err == nil || isSerialization(err)) {
			d.width.ended(err != nil)
		}
		if err == nil {
			d.moved()
			if d.dialect == Postgres && len(t.changed) == 0 {
				d.announceLater()
			}
			for _, f := range t.after {
				f()
			}
			return nil
		}
		if !asked && level != levelSchema && (isFull(err) || isIOError(err)) {
			asked = true
			// After another I/O error of SQLite, room is of use to the process that follows.
			if room := d.onFull(); room && (isFull(err) || isUnwritten(err)) && ctx.Err() == nil {
				continue
			}
		}
		if errors.Is(err, errCommit) {
			return d.ended(ctx, d.fail(fmt.Errorf("%w: %w", ErrFateUnknown, err)))
		}
		again := isSerialization(err) || level == levelDocuments && attempt <= collisions && t != nil && t.collided
		if attempt == maxAttempts || time.Since(start) > retryFor || !again || ctx.Err() != nil {
			return d.ended(ctx, err)
		}
		if err := sleep(ctx, time.Duration(rand.Int64N(int64(attempt)*int64(5*time.Millisecond)))); err != nil {
			return err
		}
	}
}

func (d *DB) attempt(ctx context.Context, level isolation, number int, fn func(*Tx) error) (*Tx, error) {
	if err := d.alive(); err != nil {
		return nil, err
	}
	leave, err := d.joinWriters(ctx, level, number)
	if err != nil {
		return nil, err
	}
	defer leave()
	if d.dialect == SQLite {
		leave, err := d.takeTurn(ctx)
		if err != nil {
			return nil, err
		}
		defer leave()
	}
	conn, err := d.writer.Conn(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }() // back into the pool
	t := &Tx{d: d, conn: conn, now: stamp(d.now()), write: true}
	committed := false
	defer func() {
		if !committed {
			t.rollback(ctx)
		}
	}()
	if err := t.begin(ctx, level, number); err != nil {
		return t, err
	}
	err = fn(t)
	if t.failed != nil {
		return t, t.failed // whatever fn has made of it
	}
	if err != nil {
		return t, err
	}
	t.closeRows()
	for _, e := range t.events {
		if err := t.insertEvent(ctx, e); err != nil {
			return t, fmt.Errorf("write audit event: %w", err)
		}
	}
	if err := errors.Join(t.bumpChanges(ctx), t.flush(ctx)); err != nil {
		return t, err
	}
	if err := t.commit(ctx); err != nil {
		return t, err
	}
	committed = true
	return t, nil
}

// bumpChanges counts up the changed kinds. On PostgreSQL each backend has a row
// of its own for a kind (but for chance), since transactions that wrote the same
// row would make each other fail.
func (t *Tx) bumpChanges(ctx context.Context) error {
	if len(t.changed) == 0 {
		return nil
	}
	var args []any
	for _, kind := range slices.Sorted(maps.Keys(t.changed)) {
		args = append(args, kind, int64(t.pid%64))
	}
	err := t.Queue(ctx, `INSERT INTO changes (kind, slot, counter) VALUES `+strings.TrimSuffix(strings.Repeat("(?, ?, 1), ", len(t.changed)), ", ")+`
		ON CONFLICT (kind, slot) DO UPDATE SET counter = changes.counter + 1`, args...)
	if err != nil {
		return fmt.Errorf("bump changes: %w", err)
	}
	return nil
}
