package retention

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/durable"
)

const (
	// holdEvery is how often a hold on PostgreSQL shows that it lives, and holdDead how
	// long after the last sign of life nobody reckons with it any more. Nothing is lost
	// by waiting: a sweep comes every few hours.
	holdEvery = 15 * time.Second
	holdDead  = 5 * time.Minute
)

// Holding keeps every blob from being deleted until Release. It ends with its process:
// on SQLite by a file lock, on PostgreSQL by a heartbeat of the database's clock.
type Holding struct {
	d    *db.DB
	id   string
	lock *os.File // SQLite
	stop func()
	beat sync.WaitGroup
	lost atomic.Bool // for a time nobody may have known of it
}

// Hold keeps every blob from being deleted, by whatever process. A blob whose last row
// went before Hold returned may still go; one that the database names afterwards stays.
// runDir is where the processes of this host have their locks.
func Hold(ctx context.Context, d *db.DB, runDir string, log *slog.Logger) (*Holding, error) {
	h := &Holding{d: d, id: strings.ToLower(rand.Text()), stop: func() {}}
	if d.Dialect() == db.SQLite {
		if err := os.MkdirAll(runDir, 0o700); err != nil {
			return nil, fmt.Errorf("hold blobs: %w", err)
		}
		// Locked before the row is there: a row without its lock is that of the dead.
		f, err := os.OpenFile(holdPath(runDir, h.id), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
		if err != nil {
			return nil, fmt.Errorf("hold blobs: %w", err)
		}
		h.lock = f
		if err := durable.TryFlock(f, durable.Exclusive, 0); err != nil {
			return nil, errors.Join(fmt.Errorf("hold blobs: %w", err), h.unlock())
		}
	}
	err := d.WriteEngine(ctx, func(tx *db.Tx) error {
		now, err := clock(ctx, tx)
		if err != nil {
			return err
		}
		_, err = tx.Exec(ctx, `INSERT INTO blob_hold (id, started, beat) VALUES (?, ?, ?)`, h.id, now, now)
		return err
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("hold blobs: %w", err), h.unlock())
	}
	if d.Dialect() == db.Postgres {
		beating, stop := context.WithCancel(ctx)
		h.stop = stop
		h.beat.Go(func() { h.keep(beating, log) })
	}
	return h, nil
}

// keep shows signs of life.
func (h *Holding) keep(ctx context.Context, log *slog.Logger) {
	last := time.Now()
	tick := time.NewTicker(holdEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		started := time.Now()
		var n int64
		err := h.d.WriteEngine(ctx, func(tx *db.Tx) error {
			now, err := clock(ctx, tx)
			if err == nil {
				n, err = tx.Exec(ctx, `UPDATE blob_hold SET beat = ? WHERE id = ?`, now, h.id)
			}
			return err
		})
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			log.Warn("keep what a backup has listed", "err", err)
		case n == 0 || started.Sub(last) > holdDead:
			h.lost.Store(true)
			return
		default:
			last = started
		}
		if time.Since(last) > holdDead {
			h.lost.Store(true)
		}
	}
}

// Kept reports whether nobody can have taken this hold for that of the dead until now.
func (h *Holding) Kept() bool { return !h.lost.Load() }

// Release lets blobs be deleted again.
func (h *Holding) Release(ctx context.Context) error {
	h.stop()
	h.beat.Wait()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
	defer cancel()
	err := h.d.WriteEngine(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, `DELETE FROM blob_hold WHERE id = ?`, h.id)
		return err
	})
	if err != nil {
		err = fmt.Errorf("release blobs: %w", err) // the row is that of the dead from now on
	}
	return errors.Join(err, h.unlock())
}

func (h *Holding) unlock() error {
	if h.lock == nil {
		return nil
	}
	err := errors.Join(os.Remove(h.lock.Name()), durable.Release(h.lock))
	h.lock = nil
	return err
}

func holdPath(runDir, id string) string { return filepath.Join(runDir, "hold-"+id+".lock") }

// held reports whether somebody alive holds the blobs, and removes the rows of the dead.
func held(ctx context.Context, tx *db.Tx, runDir string) (bool, error) {
	now, err := clock(ctx, tx)
	if err != nil {
		return false, err
	}
	rows, err := tx.Query(ctx, `SELECT b.id, b.beat FROM blob_hold b`)
	if err != nil {
		return false, fmt.Errorf("look who holds blobs: %w", err)
	}
	defer rows.Close()
	var dead []string
	for rows.Next() {
		var id string
		var beat int64
		if err := rows.Scan(&id, &beat); err != nil {
			return false, err
		}
		alive := now-beat <= holdDead.Microseconds()
		if tx.Dialect() == db.SQLite {
			if alive, err = durable.Held(holdPath(runDir, id)); err != nil {
				return false, err
			}
		}
		if alive {
			return true, nil
		}
		dead = append(dead, id)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return false, err
	}
	for _, id := range dead {
		if _, err := tx.Exec(ctx, `DELETE FROM blob_hold WHERE id = ?`, id); err != nil {
			return false, err
		}
		if err := os.Remove(holdPath(runDir, id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

// clock is the time by which holds are measured, in microseconds.
func clock(ctx context.Context, tx *db.Tx) (micros int64, err error) {
	if tx.Dialect() == db.SQLite {
		return db.Micros(tx.Now()), nil
	}
	err = tx.QueryRow(ctx, `SELECT (extract(epoch from clock_timestamp()) * 1000000)::bigint`).Scan(&micros)
	return micros, err
}
