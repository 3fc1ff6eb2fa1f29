package db

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// glance is how old the last look for commits of other processes may be
	// when Generation answers.
	glance = 5 * time.Millisecond
	// pollEvery is how often somebody looks for them while there are subscribers.
	pollEvery = 100 * time.Millisecond
	// gather is how long a commit that changed no cached kind waits for others
	// before they are made known together to other processes on PostgreSQL.
	gather = 20 * time.Millisecond
	// listenCheck is how long a silent listening connection is believed.
	listenCheck = 2 * time.Second

	channel = "tako"
)

var errClosed = errors.New("db: closed")

// watch knows when the database was changed, by this process or another.
type watch struct {
	generation atomic.Uint64
	looked     atomic.Int64 // when others' commits were last looked for, in monotonic nanoseconds

	mu       sync.Mutex
	subs     map[*Subscription]struct{}
	stopped  atomic.Bool        // set with mu held
	cancel   context.CancelFunc // of the goroutine that looks or listens, nil while none runs
	done     sync.WaitGroup
	announce bool // a NOTIFY is on its way

	lookMu  sync.Mutex
	pool    *sql.DB // SQLite: the one connection whose data_version is looked at
	version int64   // SQLite: data_version; PostgreSQL: the sum of all counters
	deaf    atomic.Bool

	kindsMu  sync.Mutex
	kinds    map[string]uint64
	kindsGen uint64

	id    string // this process, in notifications
	start time.Time
}

func (w *watch) init() {
	w.id, w.start = rand.Text(), time.Now()
	w.generation.Store(1)
	w.looked.Store(-int64(time.Hour))
	w.deaf.Store(true)
	w.subs = map[*Subscription]struct{}{}
}

// Generation is a number that moves whenever the database may have changed: at
// once for this process's own commits, within 200 ms for those of another. It
// costs less than a microsecond in most calls, so a cache can ask it at every
// use and look closer, with Changes, only when it moved.
func (d *DB) Generation(ctx context.Context) (uint64, error) {
	w := &d.watch
	if w.stopped.Load() {
		return 0, errClosed
	}
	if d.dialect == Postgres {
		if err := d.listen(); err != nil {
			return 0, err
		}
		if !w.deaf.Load() {
			return w.generation.Load(), nil
		}
	}
	if int64(time.Since(w.start))-w.looked.Load() >= int64(glance) {
		if err := d.look(ctx); err != nil {
			return 0, err
		}
	}
	return w.generation.Load(), nil
}

// Changes is the change counter of a kind: it differs from what it was before
// if a committed transaction named the kind in Tx.Changed since.
func (d *DB) Changes(ctx context.Context, kind string) (uint64, error) {
	gen, err := d.Generation(ctx)
	if err != nil {
		return 0, err
	}
	w := &d.watch
	w.kindsMu.Lock()
	defer w.kindsMu.Unlock()
	if w.kinds != nil && w.kindsGen == gen {
		return w.kinds[kind], nil
	}
	kinds := map[string]uint64{}
	err = d.Read(ctx, func(t *Tx) error {
		rows, err := t.Query(ctx, `SELECT kind, CAST(SUM(counter) AS BIGINT) FROM changes GROUP BY kind`)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // Err below tells
		for rows.Next() {
			var kind string
			var n int64
			if err := rows.Scan(&kind, &n); err != nil {
				return err
			}
			kinds[kind] = uint64(n)
		}
		return rows.Err()
	})
	if err != nil {
		return 0, fmt.Errorf("read change counters: %w", err)
	}
	w.kinds, w.kindsGen = kinds, gen
	return kinds[kind], nil
}

// Subscription wakes its owner after commits.
type Subscription struct {
	// C gets a value after one or more commits, of this process or another
	// (those within 200 ms). What was committed has to be read.
	C <-chan struct{}
	c chan struct{}
	d *DB
}

// Close ends the subscription; C is not closed.
func (s *Subscription) Close() {
	w := &s.d.watch
	w.mu.Lock()
	delete(w.subs, s)
	if len(w.subs) == 0 && w.cancel != nil && s.d.dialect == SQLite {
		w.cancel()
		w.cancel = nil
	}
	w.mu.Unlock()
}

// Subscribe returns a subscription to all commits. Nothing is polled while
// nobody subscribes.
func (d *DB) Subscribe() *Subscription {
	c := make(chan struct{}, 1)
	s := &Subscription{C: c, c: c, d: d}
	w := &d.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	w.subs[s] = struct{}{}
	if w.cancel == nil && !w.stopped.Load() {
		d.goLook()
	}
	return s
}

// Notify wakes this process's subscribers, for what they should look at though
// no commit told them.
func (d *DB) Notify() {
	w := &d.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	for s := range w.subs {
		select {
		case s.c <- struct{}{}:
		default: // it has not yet seen the last one
		}
	}
}

// moved is called after each commit that is known of.
func (d *DB) moved() {
	d.watch.generation.Add(1)
	d.Notify()
}

// goLook starts the goroutine that learns of other processes' commits; w.mu is held.
func (d *DB) goLook() {
	w := &d.watch
	ctx, cancel := context.WithCancel(context.Background())
	w.cancel = cancel
	w.done.Go(func() {
		if d.dialect == Postgres {
			d.listenLoop(ctx)
			return
		}
		tick := time.NewTicker(pollEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				if err := d.look(ctx); err != nil && ctx.Err() == nil {
					d.log.WarnContext(ctx, "commits of other processes cannot be seen", "database", d.url, "error", err)
				}
			}
		}
	})
}

// look asks the database whether another process committed.
func (d *DB) look(ctx context.Context) error {
	w := &d.watch
	w.lookMu.Lock()
	defer w.lookMu.Unlock()
	if w.stopped.Load() {
		return errClosed
	}
	if int64(time.Since(w.start))-w.looked.Load() < int64(glance) {
		return nil // somebody looked while we waited
	}
	at := int64(time.Since(w.start))
	var version int64
	var err error
	if d.dialect == Postgres {
		err = d.Read(ctx, func(t *Tx) error {
			return t.QueryRow(ctx, `SELECT CAST(COALESCE(SUM(counter), 0) AS BIGINT) FROM changes`).Scan(&version)
		})
	} else {
		if w.pool == nil {
			if w.pool, err = sqlitePool(d.path, 1, watchCacheKiB, true); err != nil {
				return err
			}
			w.pool.SetConnMaxIdleTime(0) // its data_version compares with itself only
		}
		err = w.pool.QueryRowContext(ctx, "PRAGMA data_version").Scan(&version)
	}
	if err != nil {
		return fmt.Errorf("look for commits: %w", d.translate(err))
	}
	w.looked.Store(at)
	if version != w.version {
		w.version = version
		d.moved()
	}
	return nil
}

// listen makes sure that the goroutine which listens to PostgreSQL runs.
func (d *DB) listen() error {
	w := &d.watch
	if !w.deaf.Load() {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stopped.Load() {
		return errClosed
	}
	if w.cancel == nil {
		d.goLook()
	}
	return nil
}

// listenLoop keeps a connection that LISTENs. While there is none, Generation
// looks for itself and subscribers are woken at intervals.
func (d *DB) listenLoop(ctx context.Context) {
	for {
		err := d.listenOnce(ctx)
		d.watch.deaf.Store(true)
		if ctx.Err() != nil {
			return
		}
		d.log.WarnContext(ctx, "the listening connection was lost", "database", d.url, "error", d.translate(err))
		for range 10 {
			if sleep(ctx, pollEvery) != nil {
				return
			}
			d.moved()
		}
	}
}

func (d *DB) listenOnce(ctx context.Context) error {
	w := &d.watch
	conn, err := pgx.ConnectConfig(ctx, d.pgConfig)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }() // it has served, or is broken
	if _, err := conn.Exec(ctx, "LISTEN "+channel); err != nil {
		return err
	}
	w.deaf.Store(false)
	d.moved() // what came before the LISTEN
	for {
		wait, cancel := context.WithTimeout(ctx, listenCheck)
		note, err := conn.WaitForNotification(wait)
		quiet := wait.Err() != nil
		cancel()
		switch {
		case err == nil:
			if note.Payload != w.id {
				d.moved()
			}
		case ctx.Err() != nil:
			return ctx.Err()
		case quiet && !conn.IsClosed():
			ping, cancel := context.WithTimeout(ctx, listenCheck)
			err := conn.Ping(ping)
			cancel()
			if err != nil {
				return err
			}
			d.moved() // a process that was killed may not have come to its NOTIFY
		default:
			return err
		}
	}
}

// announceLater makes a commit known to other processes on PostgreSQL, together
// with those that follow it within a moment. It is for what only wakes: cached
// kinds are announced by the commit itself.
func (d *DB) announceLater() {
	w := &d.watch
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.announce || w.stopped.Load() {
		return
	}
	w.announce = true
	w.done.Go(func() {
		time.Sleep(gather)
		w.mu.Lock()
		w.announce = false
		w.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), listenCheck)
		defer cancel()
		if _, err := d.writer.ExecContext(ctx, `SELECT pg_notify('`+channel+`', $1)`, w.id); err != nil {
			d.log.DebugContext(ctx, "a commit could not be announced", "database", d.url, "error", d.translate(err))
		}
	})
}

// stop ends everything that watches.
func (w *watch) stop() error {
	w.mu.Lock()
	w.stopped.Store(true)
	if w.cancel != nil {
		w.cancel()
		w.cancel = nil
	}
	w.mu.Unlock()
	w.done.Wait()
	w.lookMu.Lock()
	defer w.lookMu.Unlock()
	if w.pool == nil {
		return nil
	}
	return w.pool.Close()
}
