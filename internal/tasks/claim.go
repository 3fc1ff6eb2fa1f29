package tasks

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/octopus"
)

// claimWindow is how many queued tasks are looked at in one go. The first of a
// tag is its head; those behind it are passed over.
const claimWindow = 200

// claimLock serialises the claims of all nodes on PostgreSQL, where counting
// slots and taking one would race otherwise.
const claimLock = 0x74616b6f01

// look takes every task that this node may run now.
func (s *Service) look(ctx context.Context) ([]*Lease, error) {
	work, err := s.anyWork(ctx)
	if err != nil || !work {
		return nil, err
	}
	if err := s.hearCancellations(ctx); err != nil {
		return nil, fmt.Errorf("look for cancellations: %w", err)
	}
	if err := s.endOverdue(ctx); err != nil {
		return nil, fmt.Errorf("end overdue cancellations: %w", err)
	}
	claimed, err := s.takeOver(ctx)
	if err != nil {
		return s.begin(ctx, claimed), fmt.Errorf("take over tasks of dead owners: %w", err)
	}
	more, err := s.claim(ctx)
	return s.begin(ctx, append(claimed, more...)), err
}

// anyWork is the cheap question of an idle node, read without taking the writer.
func (s *Service) anyWork(ctx context.Context) (bool, error) {
	var n int64
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		return tx.QueryRow(ctx, `SELECT (SELECT count(*) FROM (SELECT 1 AS one FROM task t WHERE t.runnable = 1 LIMIT 1) q) +
			(SELECT count(*) FROM (SELECT 1 AS one FROM task t WHERE t.state IN ('Executing', 'Cancelling') AND t.waiting = 0 AND t.owner <> ? LIMIT 1) o) +
			(SELECT count(*) FROM (SELECT 1 AS one FROM task t WHERE t.state = 'Cancelling' LIMIT 1) c)`, s.incarnation).Scan(&n)
	})
	return n > 0, err
}

// hearCancellations tells runners here of cancellations that other processes wrote.
func (s *Service) hearCancellations(ctx context.Context) error {
	return s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		rows, err := tx.Query(ctx, `SELECT t.id FROM task t WHERE t.state = 'Cancelling' AND t.owner = ?`, s.incarnation)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			s.mu.Lock()
			l := s.leases[id]
			s.mu.Unlock()
			if l != nil {
				l.cancel()
			}
		}
		return rows.Err()
	})
}

// begin makes leases of claimed tasks.
func (s *Service) begin(ctx context.Context, claimed []*Task) []*Lease {
	var leases []*Lease
	for _, t := range claimed {
		if err := failpoint.Hit("claim-committed"); err != nil {
			s.log.Error("begin task", "task", t.ID, "err", err)
		}
		l := newLease(ctx, s, t)
		s.remember(l)
		if t.State == octopus.TaskCancelling {
			l.cancel()
		}
		leases = append(leases, l)
	}
	return leases
}

// claim takes runnable tasks whose gates are open.
func (s *Service) claim(ctx context.Context) ([]*Task, error) {
	var claimed []*Task
	open := false
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
		open, err = s.anyOpen(ctx, tx)
		return err
	})
	if err != nil || !open {
		return nil, err // the usual end of a look at a full or blocked queue
	}
	err = s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		claimed = nil
		if tx.Dialect() == db.Postgres {
			if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(?)`, int64(claimLock)); err != nil {
				return err
			}
		}
		free, err := s.freeSlots(ctx, tx)
		if err != nil {
			return err
		}
		candidates, err := s.candidates(ctx, tx)
		if err != nil {
			return err
		}
		tags := map[string]bool{}
		for _, c := range candidates {
			if !c.Expiry.IsZero() && c.State == octopus.TaskQueued && !c.Expiry.After(tx.Now()) {
				if err := s.expire(ctx, tx, c.Task); err != nil {
					return err
				}
				continue
			}
			gated := !c.hasSlot && c.State != octopus.TaskCancelling
			if c.Tag != "" && gated {
				if tags[c.Tag] || c.tagHeld {
					continue // only the head of a tag, and only when the tag is free
				}
				tags[c.Tag] = true
			}
			if gated && free <= 0 {
				continue
			}
			if err := s.take(ctx, tx, c); err != nil {
				return err
			}
			if gated {
				free--
			}
			t, err := Get(ctx, tx, c.ID)
			if err != nil {
				return err
			}
			claimed = append(claimed, t)
		}
		return nil
	})
	return claimed, err
}

// anyOpen reports whether a claim would find something to do.
func (s *Service) anyOpen(ctx context.Context, tx *db.Tx) (bool, error) {
	free, err := s.freeSlots(ctx, tx)
	if err != nil {
		return false, err
	}
	candidates, err := s.candidates(ctx, tx)
	for _, c := range candidates {
		expired := !c.Expiry.IsZero() && c.State == octopus.TaskQueued && !c.Expiry.After(tx.Now())
		if expired || free > 0 || c.hasSlot || c.State == octopus.TaskCancelling {
			return true, err
		}
	}
	return false, err
}

// freeSlots is how many more tasks this node may run; draining leaves none.
func (s *Service) freeSlots(ctx context.Context, tx *db.Tx) (int64, error) {
	var free, draining int64
	err := tx.QueryRow(ctx, `SELECT n.capacity - (SELECT count(*) FROM slot s WHERE s.node = n.name), n.draining FROM node_setting n WHERE n.name = ?`,
		s.cfg.Node).Scan(&free, &draining)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	if draining != 0 {
		free = 0
	}
	return free, err
}

type candidate struct {
	*Task
	hasSlot, tagHeld bool
}

func (s *Service) candidates(ctx context.Context, tx *db.Tx) ([]candidate, error) {
	rows, err := tx.Query(ctx, `SELECT `+taskColumns+`,
		(SELECT count(*) FROM slot s WHERE s.task = t.id),
		(SELECT count(*) FROM tag_holder h WHERE h.tag = t.tag AND h.task <> t.id)
		FROM task t WHERE t.runnable = 1 AND t.queue_time <= ?
		AND (t.state = 'Cancelling' OR t.space_id = '' OR NOT EXISTS (SELECT 1 FROM document_index x
			WHERE x.kind = 'spaces' AND x.field = 'TaskQueueStopped' AND x.value = 'true' AND x.id = t.space_id))
		AND (t.tag = '' OR t.state = 'Cancelling' OR NOT EXISTS (SELECT 1 FROM tag_holder h WHERE h.tag = t.tag AND h.task <> t.id))
		ORDER BY t.priority DESC, t.queue_time, t.seq LIMIT ?`, db.Micros(tx.Now()), claimWindow)
	if err != nil {
		return nil, fmt.Errorf("read the queue: %w", err)
	}
	defer rows.Close()
	var all []candidate
	for rows.Next() {
		var slots, holders int64
		t, err := scanTask(rows.Scan, &slots, &holders)
		if err != nil {
			return nil, err
		}
		all = append(all, candidate{t, slots > 0, holders > 0})
	}
	return all, rows.Err()
}

func (s *Service) expire(ctx context.Context, tx *db.Tx, t *Task) error {
	now := db.Micros(tx.Now())
	_, err := tx.Exec(ctx, `UPDATE task SET state = 'TimedOut', runnable = 0, completed_time = ?, updated_time = ?,
		error = 'The task was not started before its queue time expired.' WHERE id = ? AND state = 'Queued'`, now, now, t.ID)
	if err != nil {
		return fmt.Errorf("expire %s: %w", t.ID, err)
	}
	tx.Changed("tasks")
	return s.ended(ctx, tx, t, octopus.TaskTimedOut)
}

// take makes this process the owner of a runnable task, with slot and tag.
func (s *Service) take(ctx context.Context, tx *db.Tx, c candidate) error {
	now := db.Micros(tx.Now())
	n, err := tx.Exec(ctx, `UPDATE task SET owner = ?, db_incarnation = ?, epoch = epoch + 1, node = ?, runnable = 0, updated_time = ?,
		state = CASE WHEN state = 'Queued' THEN 'Executing' ELSE state END,
		start_time = CASE WHEN start_time = 0 THEN ? ELSE start_time END
		WHERE id = ? AND epoch = ? AND runnable = 1`, s.incarnation, s.dbInc, s.cfg.Node, now, now, c.ID, c.epoch)
	if err != nil || n == 0 {
		return err
	}
	if c.State == octopus.TaskCancelling && !c.hasSlot {
		tx.Changed("tasks")
		return nil
	}
	if _, err := tx.Exec(ctx, `INSERT INTO slot (task, node) VALUES (?, ?) ON CONFLICT (task) DO UPDATE SET node = excluded.node`, c.ID, s.cfg.Node); err != nil {
		return fmt.Errorf("take a slot for %s: %w", c.ID, err)
	}
	if c.Tag != "" {
		if _, err := tx.Exec(ctx, `INSERT INTO tag_holder (tag, task) VALUES (?, ?) ON CONFLICT (tag) DO NOTHING`, c.Tag, c.ID); err != nil {
			return fmt.Errorf("take tag for %s: %w", c.ID, err)
		}
	}
	tx.Changed("tasks")
	return nil
}

// takeOver claims the executing tasks of owners that are dead, or that released them.
func (s *Service) takeOver(ctx context.Context) ([]*Task, error) {
	var orphans []*Task
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		rows, err := tx.Query(ctx, `SELECT `+taskColumns+` FROM task t WHERE t.state IN ('Executing', 'Cancelling') AND t.waiting = 0 AND t.runnable = 0 AND t.owner <> ?
			ORDER BY t.seq LIMIT ?`, s.incarnation, claimWindow)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			t, err := scanTask(rows.Scan)
			if err != nil {
				return err
			}
			orphans = append(orphans, t)
		}
		return rows.Err()
	})
	if err != nil || len(orphans) == 0 {
		return nil, err
	}
	dead := map[string]func(){}
	defer func() {
		for _, unlock := range dead {
			if unlock != nil {
				unlock()
			}
		}
	}()
	var taken []*Task
	for _, t := range orphans {
		if _, known := dead[t.owner]; !known {
			dead[t.owner] = s.provenDead(ctx, t.owner)
		}
		if dead[t.owner] == nil {
			continue
		}
		fresh, err := s.takeFrom(ctx, t)
		if err != nil {
			return taken, err
		}
		if fresh != nil {
			taken = append(taken, fresh)
		}
	}
	return taken, nil
}

func (s *Service) takeFrom(ctx context.Context, t *Task) (*Task, error) {
	var taken *Task
	err := s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		taken = nil
		if t.resumes >= maxResumes {
			return s.park(ctx, tx, t)
		}
		n, err := tx.Exec(ctx, `UPDATE task SET owner = ?, db_incarnation = ?, epoch = epoch + 1, resumes = resumes + 1, node = ?
			WHERE id = ? AND epoch = ? AND owner = ? AND waiting = 0 AND state IN ('Executing', 'Cancelling')`,
			s.incarnation, s.dbInc, s.cfg.Node, t.ID, t.epoch, t.owner)
		if err != nil || n == 0 {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE slot SET node = ? WHERE task = ?`, s.cfg.Node, t.ID); err != nil {
			return err
		}
		taken, err = Get(ctx, tx, t.ID)
		return err
	})
	if err == nil && taken != nil {
		s.log.Info("took over a task", "task", t.ID, "from", t.owner, "epoch", taken.epoch)
	}
	return taken, err
}

// park ends a task whose runs keep ending without anything new in its journal.
func (s *Service) park(ctx context.Context, tx *db.Tx, t *Task) error {
	message := fmt.Sprintf("The engine stopped %d times while it ran this task, without getting any further. Scripts that it started may still run.", t.resumes)
	s.log.Error("parked a task", "task", t.ID, "resumes", t.resumes)
	return s.endAsIs(ctx, tx, t, octopus.TaskFailed, message)
}

// endOverdue ends canceled tasks whose bound has passed, whoever owns them. What
// their scripts do is left to the janitor, which keeps cancelling.
func (s *Service) endOverdue(ctx context.Context) error {
	overdue, err := s.overdue(ctx)
	if err != nil || len(overdue) == 0 {
		return err
	}
	return s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		for _, t := range overdue {
			if err := s.endAsIs(ctx, tx, t, octopus.TaskCanceled, "The task was canceled. Scripts that it started may still be running."); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Service) overdue(ctx context.Context) ([]*Task, error) {
	var overdue []*Task
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		clock, err := s.clock(ctx, tx)
		if err != nil {
			return err
		}
		rows, err := tx.Query(ctx, `SELECT `+taskColumns+` FROM task t WHERE t.state = 'Cancelling' AND t.cancel_at > 0 AND t.cancel_at <= ?`,
			clock-CancelBound.Microseconds())
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			t, err := scanTask(rows.Scan)
			if err != nil {
				return err
			}
			overdue = append(overdue, t)
		}
		return rows.Err()
	})
	return overdue, err
}

// endAsIs ends a task without its owner: the owner's epoch is gone, open scripts
// are handed to the janitor, and the locks of their machines stay until they end.
func (s *Service) endAsIs(ctx context.Context, tx *db.Tx, t *Task, state octopus.TaskState, message string) error {
	now := db.Micros(tx.Now())
	n, err := tx.Exec(ctx, `UPDATE task SET state = ?, epoch = epoch + 1, owner = '', runnable = 0, waiting = 0, completed_time = ?, updated_time = ?, error = ?
		WHERE id = ? AND epoch = ? AND state IN ('Executing', 'Cancelling')`, string(state), now, now, message, t.ID, t.epoch)
	if err != nil || n == 0 {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE ticket SET state = 'cancel', not_before = 0 WHERE task = ? AND state = 'open'`, t.ID); err != nil {
		return err
	}
	tx.Changed("tasks")
	return s.ended(ctx, tx, t, state)
}

// ended releases what a task holds beyond its own row, and tells its runner.
func (s *Service) ended(ctx context.Context, tx *db.Tx, t *Task, state octopus.TaskState) error {
	for _, statement := range []string{
		`DELETE FROM slot WHERE task = ?`,
		`DELETE FROM tag_holder WHERE task = ?`,
		`UPDATE interruption SET pending = 0 WHERE task = ?`,
		`DELETE FROM machine_lock WHERE task = ? AND NOT EXISTS (SELECT 1 FROM ticket k WHERE k.task = machine_lock.task AND k.unit = machine_lock.unit AND k.state <> 'complete')`,
	} {
		if _, err := tx.Exec(ctx, statement, t.ID); err != nil {
			return fmt.Errorf("end %s: %w", t.ID, err)
		}
	}
	tx.AfterCommit(s.wake)
	if r := s.cfg.Runners[t.Name]; r != nil {
		return r.Ended(ctx, tx, t, state)
	}
	return nil
}
