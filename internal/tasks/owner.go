package tasks

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"io/fs"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/failpoint"
)

// newIncarnation makes a name for this process as an owner.
func newIncarnation() string { return strings.ToLower(rand.Text()) }

// lockFile creates path and takes its exclusive lock, without waiting.
func lockFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// beat is when the last heartbeat that was committed was started, on this
// process's own monotonic clock.
type beat struct{ started atomic.Pointer[time.Time] }

// beatLoop keeps this owner alive on PostgreSQL. On SQLite the file lock does,
// which no stalled write and no moved clock can expire.
func (s *Service) beatLoop(ctx context.Context) error {
	if s.cfg.DB.Dialect() == db.SQLite {
		return nil
	}
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	for {
		started := time.Now()
		err := s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
			_, err := tx.Exec(ctx, `UPDATE node SET heartbeat = (extract(epoch from clock_timestamp()) * 1000000)::bigint WHERE incarnation = ?`, s.incarnation)
			return err
		})
		if err == nil {
			err = failpoint.Hit("heartbeat-lost")
		}
		if err == nil {
			s.lastBeat.started.Store(&started)
		} else if ctx.Err() == nil {
			s.log.Warn("heartbeat", "err", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Alive reports whether this process may still start something on an agent: its
// ownership cannot have expired yet. Necessary before each call and not
// sufficient; the agent's memory of tickets does the rest.
func (s *Service) Alive() bool {
	if s.cfg.DB.Dialect() == db.SQLite {
		return true
	}
	started := s.lastBeat.started.Load()
	return started == nil || time.Since(*started) < ownerTTL-heartbeatEvery
}

// provenDead returns nil while an owner may live. Otherwise nobody else can be
// it any more, and the returned function ends the proof.
func (s *Service) provenDead(ctx context.Context, owner string) func() {
	if owner == "" {
		return func() {}
	}
	path := s.ownerPath(owner)
	if _, err := os.Stat(path); err == nil {
		lock, err := lockFile(path)
		if err != nil {
			return nil // it holds its lock: it lives on this host
		}
		return func() {
			// The name never comes back, so the file has done its duty.
			if err := errors.Join(os.Remove(path), lock.Close()); err != nil {
				s.log.Warn("remove a dead owner's lock", "err", err)
			}
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if s.cfg.DB.Dialect() == db.SQLite {
		return func() {} // one host: no lock file, no owner
	}
	silent := false
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		var heartbeat, clock int64
		err := tx.QueryRow(ctx, `SELECT n.heartbeat, (extract(epoch from clock_timestamp()) * 1000000)::bigint FROM node n WHERE n.incarnation = ?`, owner).Scan(&heartbeat, &clock)
		if errors.Is(err, sql.ErrNoRows) {
			silent = true
			return nil
		}
		silent = err == nil && clock-heartbeat > ownerTTL.Microseconds()
		return err
	})
	if err != nil || !silent {
		return nil
	}
	return func() {}
}

// clock is the time by which leases and bounds are measured, in microseconds:
// the database's own on PostgreSQL, this host's on SQLite.
func (s *Service) clock(ctx context.Context, tx *db.Tx) (int64, error) {
	if tx.Dialect() == db.SQLite {
		return db.Micros(tx.Now()), nil
	}
	var micros int64
	err := tx.QueryRow(ctx, `SELECT (extract(epoch from clock_timestamp()) * 1000000)::bigint`).Scan(&micros)
	return micros, err
}
