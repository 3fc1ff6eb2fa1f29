package tasks

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
)

// newIncarnation makes a name for this process as an owner.
func newIncarnation() string { return strings.ToLower(rand.Text()) }

// beat is when the last heartbeat that was committed was started, on this
// process's own monotonic clock.
type beat struct{ started atomic.Pointer[time.Time] }

// beatLoop keeps this owner alive on PostgreSQL. On SQLite the file lock does,
// which no stalled write and no moved clock can expire.
func (s *Service) beatLoop(ctx context.Context) {
	if s.cfg.DB.Dialect() == db.SQLite {
		return
	}
	tick := time.NewTicker(s.cfg.Timing.Heartbeat)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		s.beat(ctx)
	}
}

func (s *Service) beat(ctx context.Context) {
	if s.cfg.DB.Dialect() == db.SQLite {
		return
	}
	started := time.Now()
	err := s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error { return s.heartbeat(ctx, tx) })
	if err == nil {
		err = failpoint.Hit("heartbeat-lost")
	}
	if err == nil {
		s.lastBeat.started.Store(&started)
	} else if ctx.Err() == nil {
		s.log.Warn("heartbeat", "err", err)
	}
}

// heartbeat writes that this owner lives. Its row may have been swept away while
// it did nothing.
func (s *Service) heartbeat(ctx context.Context, tx *db.Tx) error {
	clock, err := s.clock(ctx, tx)
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO node (incarnation, name, version, started, heartbeat) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (incarnation) DO UPDATE SET heartbeat = excluded.heartbeat`, s.incarnation, s.cfg.Node, s.cfg.Version, s.started, clock)
	return err
}

// forgetDead removes the rows and locks of owners that are dead and own nothing.
func (s *Service) forgetDead(ctx context.Context) error {
	var dead []string
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		dead = nil
		rows, err := tx.Query(ctx, `SELECT n.incarnation FROM node n WHERE n.incarnation <> ? AND NOT EXISTS (SELECT 1 FROM task t WHERE t.owner = n.incarnation)
			ORDER BY n.started LIMIT 1000`, s.incarnation)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			dead = append(dead, id)
		}
		return rows.Err()
	})
	if err != nil {
		return fmt.Errorf("read nodes: %w", err)
	}
	for _, id := range dead {
		proof := s.provenDead(ctx, id)
		if proof == nil {
			continue
		}
		err := s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
			_, err := tx.Exec(ctx, `DELETE FROM node WHERE incarnation = ?`, id)
			return err
		})
		proof()
		if err != nil {
			return fmt.Errorf("forget node %s: %w", id, err)
		}
	}
	return nil
}

// Alive reports whether this process may still start something on an agent: its
// ownership cannot have expired yet. Necessary before each call and not
// sufficient; the agent's memory of tickets does the rest.
func (s *Service) Alive() bool {
	if s.cfg.DB.Dialect() == db.SQLite {
		return true
	}
	started := s.lastBeat.started.Load()
	return started != nil && time.Since(*started) < s.cfg.Timing.TTL-s.cfg.Timing.Heartbeat
}

// provenDead returns nil while an owner may live. Otherwise nobody else can be
// it any more, and the returned function ends the proof.
func (s *Service) provenDead(ctx context.Context, owner string) func() {
	if owner == "" {
		return func() {}
	}
	path := s.ownerPath(owner)
	if _, err := os.Stat(path); err == nil {
		lock, err := durable.TryLock(path)
		if err == nil {
			return func() {
				// The name never comes back, so the file has done its duty.
				if err := errors.Join(os.Remove(path), lock.Unlock()); err != nil {
					s.log.Warn("remove a dead owner's lock", "err", err)
				}
			}
		}
		if s.cfg.DB.Dialect() == db.SQLite {
			return nil // it holds its lock: it lives
		}
		// It lives on this host, and may stand still: its heartbeat tells.
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
		silent = err == nil && clock-heartbeat > s.cfg.Timing.TTL.Microseconds()
		return err
	})
	if err != nil || !silent {
		return nil
	}
	return func() {}
}

// databaseClock is PostgreSQL's own time in microseconds; it goes on within a transaction.
const databaseClock = `(extract(epoch from clock_timestamp()) * 1000000)::bigint`

// clock is the time by which leases and bounds are measured, in microseconds:
// the database's own on PostgreSQL, this host's on SQLite.
func (s *Service) clock(ctx context.Context, tx *db.Tx) (int64, error) {
	if tx.Dialect() == db.SQLite {
		return db.Micros(tx.Now()), nil
	}
	var micros int64
	err := tx.QueryRow(ctx, `SELECT `+databaseClock).Scan(&micros)
	return micros, err
}

// surelyDead is how long a node on PostgreSQL is silent before nobody reckons with it
// any more who would do it harm otherwise.
const surelyDead = time.Minute

// LiveNodes lists the incarnations of the nodes that run on a database. runDir is
// the RunDir of its servers on this host, where SQLite's show that they live.
func LiveNodes(ctx context.Context, d *db.DB, runDir string) ([]string, error) {
	var all []string
	err := d.Read(ctx, func(tx *db.Tx) error {
		all = nil
		query, args := `SELECT n.incarnation FROM node n ORDER BY n.incarnation LIMIT 10000`, []any(nil)
		if d.Dialect() == db.Postgres {
			query = `SELECT n.incarnation FROM node n WHERE n.heartbeat > (extract(epoch from clock_timestamp()) * 1000000)::bigint - ? ORDER BY n.incarnation LIMIT 10000`
			args = []any{surelyDead.Microseconds()}
		}
		rows, err := tx.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			all = append(all, id)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read nodes: %w", err)
	}
	if d.Dialect() == db.Postgres {
		return all, nil
	}
	var live []string
	for _, id := range all {
		held, err := durable.Held(ownerLock(runDir, id))
		if err != nil {
			return nil, fmt.Errorf("look whether node %s runs: %w", id, err)
		}
		if held {
			live = append(live, id)
		}
	}
	return live, nil
}

// Running reports whether a server of this host holds the locks of runDir.
func Running(runDir string) (bool, error) {
	locks, err := filepath.Glob(filepath.Join(runDir, "owner-*.lock"))
	if err != nil {
		return false, err
	}
	for _, path := range locks {
		if held, err := durable.Held(path); err != nil || held {
			return held, err
		}
	}
	return false, nil
}
