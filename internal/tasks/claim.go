package tasks

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

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

// look takes every task that this node may run now, and sees to those in flight
// that nobody else sees to. A look that finds nothing to do only reads.
func (s *Service) look(ctx context.Context) ([]*Lease, error) {
	if !s.Alive() {
		return nil, nil // what we would take could be taken from us at once
	}
	held := s.held() // before the reading: what is claimed later is missing in it
	var flying []*Task
	var clock int64
	due, open := false, false
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
		if flying, err = inFlight(ctx, tx); err != nil {
			return err
		}
		g, err := s.gates(ctx, tx)
		if err != nil {
			return err
		}
		clock, due = g.clock, g.expired
		some, err := s.candidates(ctx, tx, g.free > 0, g.draining, 1)
		open = len(some) > 0
		return err
	})
	if err != nil {
		return nil, err
	}
	var errs []error
	s.hear(held, flying)
	errs = append(errs, s.endOverdue(ctx, flying, clock), s.settle(ctx, held))
	if due {
		errs = append(errs, s.expireDue(ctx))
	}
	leases, err := s.takeOver(ctx, flying)
	errs = append(errs, err)
	if open {
		more, err := s.claim(ctx)
		leases, errs = append(leases, s.begin(ctx, more)...), append(errs, err)
	}
	return leases, errors.Join(errs...)
}

// inFlight are the tasks that some process runs, or has let go of in the middle,
// and those that are to end. There are hardly more of them than nodes have slots.
func inFlight(ctx context.Context, tx *db.Tx) ([]*Task, error) {
	rows, err := tx.Query(ctx, `SELECT `+taskColumns+` FROM task t WHERE t.state IN ('Executing', 'Cancelling') AND t.waiting = 0
		AND (t.runnable = 0 OR t.state = 'Cancelling') ORDER BY t.seq`)
	if err != nil {
		return nil, fmt.Errorf("read running tasks: %w", err)
	}
	defer rows.Close()
	var all []*Task
	for rows.Next() {
		t, err := scanTask(rows.Scan)
		if err != nil {
			return nil, err
		}
		all = append(all, t)
	}
	return all, rows.Err()
}

// hear tells the leases of this process what others did to their tasks: asked
// them to end, or took them away.
func (s *Service) hear(held map[string]*Lease, flying []*Task) {
	rows := make(map[string]*Task, len(flying))
	for _, t := range flying {
		rows[t.ID] = t
	}
	for id, l := range held {
		t := rows[id]
		switch {
		case t == nil || t.owner != s.incarnation || t.epoch != l.epoch:
			l.lose()
		case t.State == octopus.TaskCancelling:
			l.cancel()
		}
	}
}

// settle forgives tasks that were taken over for their earlier owners' ends, once
// they have run for a while.
func (s *Service) settle(ctx context.Context, held map[string]*Lease) error {
	var errs []error
	for id, l := range held {
		if l.resumes == 0 || l.settled || time.Since(l.since) < s.cfg.Timing.Steady {
			continue
		}
		l.settled = true // read and written by the claim loop alone
		errs = append(errs, s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
			_, err := tx.Exec(ctx, `UPDATE task SET resumes = 0 WHERE id = ? AND epoch = ? AND owner = ?`, id, l.epoch, s.incarnation)
			return err
		}))
	}
	return errors.Join(errs...)
}

// begin makes leases of claimed tasks.
func (s *Service) begin(ctx context.Context, claimed []*Task) []*Lease {
	var leases []*Lease
	for _, t := range claimed {
		if err := failpoint.Hit("claim-committed"); err != nil {
			s.log.Error("begin task", "task", t.ID, "err", err)
			continue // as if the answer to the commit had been lost: a later look finds it
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
	err := s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		claimed = nil
		if tx.Dialect() == db.Postgres {
			if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(?)`, int64(claimLock)); err != nil {
				return err
			}
		}
		g, err := s.gates(ctx, tx)
		if err != nil {
			return err
		}
		free := g.free
		candidates, err := s.candidates(ctx, tx, free > 0, g.draining, claimWindow)
		if err != nil {
			return err
		}
		tags := map[string]bool{}
		for _, t := range candidates {
			gated := t.state != octopus.TaskCancelling // ending one takes no slot
			if gated && t.tag != "" {
				if tags[t.tag] {
					continue // only the head of a tag
				}
				tags[t.tag] = true
			}
			if gated && free <= 0 {
				continue
			}
			taken, err := s.take(ctx, tx, t, gated)
			if err != nil {
				return err
			}
			if taken == nil {
				continue // somebody canceled it in this instant
			}
			if gated {
				free--
			}
			claimed = append(claimed, taken)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("claim tasks: %w", err)
	}
	return claimed, nil
}

// gates is what decides whether a node looks further.
type gates struct {
	clock    int64 // see Service.clock
	expired  bool  // a task has waited for longer than it was to, whatever gate it waits for
	free     int64 // how many more tasks this node may run
	draining bool  // it may only go on with those that it has begun
}

// gates reads them in one statement, since a node does so at every look. A node that
// the database does not know has no slot.
func (s *Service) gates(ctx context.Context, tx *db.Tx) (gates, error) {
	now := db.Micros(tx.Now())
	clock, args := "?", []any{now}
	if tx.Dialect() == db.Postgres {
		clock, args = databaseClock, nil
	}
	var g gates
	var due, drain int64
	err := tx.QueryRow(ctx, `SELECT `+clock+`, (SELECT count(*) FROM (SELECT 1 AS one FROM task t WHERE `+expired+` LIMIT 1) q),
		coalesce((SELECT n.capacity - (SELECT count(*) FROM slot s WHERE s.node = n.name) FROM node_setting n WHERE n.name = ?), 0),
		coalesce((SELECT n.draining FROM node_setting n WHERE n.name = ?), 0)`,
		append(args, now, s.cfg.Node, s.cfg.Node)...).Scan(&g.clock, &due, &g.free, &drain)
	if err != nil {
		return g, fmt.Errorf("read the gates of the queue: %w", err)
	}
	g.expired, g.draining = due != 0, drain != 0
	return g, nil
}

// candidate is a task that may be claimed.
type candidate struct {
	id    string
	epoch int64
	state octopus.TaskState
	tag   string
}

// candidates are at most limit runnable tasks whose tags are free and whose spaces'
// queues run, those that are to end first. Without a free slot they are the only ones.
// A node that is draining goes on with what it has begun: a deployment that had to wait
// for an answer may have no other node to end on.
func (s *Service) candidates(ctx context.Context, tx *db.Tx, free, draining bool, limit int) ([]candidate, error) {
	var parts []string
	var args []any
	part := func(order, where string, values ...any) {
		parts = append(parts, `SELECT p.id, p.epoch, p.state, p.tag, p.part, p.first, p.second FROM (SELECT t.id, t.epoch, t.state, t.tag, `+order+` FROM task t WHERE `+where+` LIMIT ?) p`)
		args = append(append(args, values...), limit)
	}
	part(`0 AS part, t.seq AS first, 0 AS second`, `t.state = 'Cancelling' AND t.runnable <> 0 ORDER BY t.seq`)
	// Its tag is free, or its own: one that goes on after an answer may hold it already.
	const tag = `(t.tag = '' OR t.tag NOT IN (SELECT h.tag FROM tag_holder h) OR t.state <> 'Queued' AND EXISTS (SELECT 1 FROM tag_holder h WHERE h.tag = t.tag AND h.task = t.id))`
	now := db.Micros(tx.Now())
	switch {
	case !free:
	case draining: // by the states: the queue may be long, and is none of its business
		part(`2 - t.priority AS part, t.queue_time AS first, t.seq AS second`, `t.state = 'Executing' AND t.runnable <> 0 AND t.node = ? AND `+tag+`
			ORDER BY t.priority DESC, t.queue_time, t.seq`, s.cfg.Node)
	default:
		// Each priority by itself: so the index gives the tasks in their order, and the
		// reading ends with the last one that is wanted.
		for _, priority := range []int64{1, 0} {
			// A task that goes on after an answer is not stopped with the queue.
			part(`2 - t.priority AS part, t.queue_time AS first, t.seq AS second`, `t.runnable <> 0 AND t.priority = ? AND t.queue_time <= ? AND t.state <> 'Cancelling'
				AND (t.expiry = 0 OR t.expiry > ? OR t.state <> 'Queued')
				AND (t.state <> 'Queued' OR t.space_id = '' OR t.space_id NOT IN (SELECT x.id FROM document_index x
					WHERE x.kind = 'spaces' AND x.field = 'TaskQueueStopped' AND x.value = 'true'))
				AND `+tag+` ORDER BY t.queue_time, t.seq`, priority, now, now)
		}
	}
	rows, err := tx.Query(ctx, `SELECT q.id, q.epoch, q.state, q.tag FROM (`+strings.Join(parts, ` UNION ALL `)+`) q ORDER BY q.part, q.first, q.second LIMIT ?`, append(args, limit)...)
	if err != nil {
		return nil, fmt.Errorf("read the queue: %w", err)
	}
	defer rows.Close()
	var all []candidate
	for rows.Next() {
		var c candidate
		if err := rows.Scan(&c.id, &c.epoch, &c.state, &c.tag); err != nil {
			return nil, fmt.Errorf("read the queue: %w", err)
		}
		all = append(all, c)
	}
	return all, rows.Err()
}

// expired are the queued tasks that have waited for too long. The index has the
// moments; the states are named so that it, and not that of the states, is taken.
const expired = `t.runnable <> 0 AND t.expiry > 0 AND t.expiry <= ? AND t.state NOT IN ('Executing', 'Cancelling')`

// expireDue ends tasks that have waited for too long.
func (s *Service) expireDue(ctx context.Context) error {
	var due []*Task
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		due = nil
		rows, err := tx.Query(ctx, `SELECT `+taskColumns+` FROM task t WHERE `+expired+` ORDER BY t.expiry LIMIT ?`, db.Micros(tx.Now()), claimWindow)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			t, err := scanTask(rows.Scan)
			if err != nil {
				return err
			}
			due = append(due, t)
		}
		return rows.Err()
	})
	if err != nil {
		return fmt.Errorf("read expired tasks: %w", err)
	}
	for _, t := range due {
		err := s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
			now := db.Micros(tx.Now())
			n, err := tx.Exec(ctx, `UPDATE task SET state = 'TimedOut', runnable = 0, completed_time = ?, updated_time = ?,
				error = 'The task was not started before its queue time expired.' WHERE id = ? AND epoch = ? AND state = 'Queued'`, now, now, t.ID, t.epoch)
			if err != nil || n == 0 {
				return err
			}
			return s.ended(ctx, tx, t, octopus.TaskTimedOut)
		})
		if err != nil {
			return fmt.Errorf("expire %s: %w", t.ID, err)
		}
	}
	return nil
}

// take makes this process the owner of a runnable task, with slot and tag if it
// is to run. It returns nil when the task is not what it was.
func (s *Service) take(ctx context.Context, tx *db.Tx, t candidate, gated bool) (*Task, error) {
	now := db.Micros(tx.Now())
	n, err := tx.Exec(ctx, `UPDATE task SET owner = ?, db_incarnation = ?, epoch = epoch + 1, node = ?, runnable = 0, updated_time = ?,
		state = CASE WHEN state = 'Queued' THEN 'Executing' ELSE state END,
		start_time = CASE WHEN start_time = 0 THEN ? ELSE start_time END
		WHERE id = ? AND epoch = ? AND state = ? AND runnable = 1 AND owner = ''`, s.incarnation, s.dbInc, s.cfg.Node, now, now, t.id, t.epoch, string(t.state))
	if err != nil || n == 0 {
		return nil, err
	}
	if gated {
		if err := tx.Queue(ctx, `INSERT INTO slot (task, node) VALUES (?, ?) ON CONFLICT (task) DO UPDATE SET node = excluded.node`, t.id, s.cfg.Node); err != nil {
			return nil, fmt.Errorf("take a slot for %s: %w", t.id, err)
		}
		if t.tag != "" {
			if err := tx.Queue(ctx, `INSERT INTO tag_holder (tag, task) VALUES (?, ?) ON CONFLICT (tag) DO NOTHING`, t.tag, t.id); err != nil {
				return nil, fmt.Errorf("take tag for %s: %w", t.id, err)
			}
		}
	}
	tx.Changed("tasks")
	return Get(ctx, tx, t.id)
}

// takeOver claims tasks in flight whose owners are dead or have released them, and
// those that this process owns without knowing, since it never learnt how its
// last transaction with them ended.
func (s *Service) takeOver(ctx context.Context, flying []*Task) ([]*Lease, error) {
	dead := map[string]func(){}
	defer func() {
		for _, unlock := range dead {
			if unlock != nil {
				unlock()
			}
		}
	}()
	held := s.held()
	var taken []*Lease
	var errs []error
	for _, t := range flying {
		if t.owner == "" && t.runnable {
			continue // it is claimed
		}
		if t.owner == s.incarnation {
			if held[t.ID] != nil {
				continue
			}
			dead[t.owner] = func() {}
		}
		if _, known := dead[t.owner]; !known {
			dead[t.owner] = s.provenDead(ctx, t.owner)
		}
		if dead[t.owner] == nil {
			continue
		}
		fresh, err := s.takeFrom(ctx, t)
		if err != nil {
			errs = append(errs, fmt.Errorf("take over %s: %w", t.ID, err))
		}
		if fresh != nil {
			taken = append(taken, s.begin(ctx, []*Task{fresh})...)
		}
	}
	return taken, errors.Join(errs...)
}

func (s *Service) takeFrom(ctx context.Context, t *Task) (*Task, error) {
	died := flag(t.owner != "" && t.owner != s.incarnation)
	var taken *Task
	err := s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		taken = nil
		if err := impatient(ctx, tx); err != nil {
			return err
		}
		if died == 1 && t.resumes >= maxResumes {
			return s.park(ctx, tx, t)
		}
		n, err := tx.Exec(ctx, `UPDATE task SET owner = ?, db_incarnation = ?, epoch = epoch + 1, resumes = resumes + ?, runnable = 0, node = ?
			WHERE id = ? AND epoch = ? AND owner = ? AND waiting = 0 AND state IN ('Executing', 'Cancelling')`,
			s.incarnation, s.dbInc, died, s.cfg.Node, t.ID, t.epoch, t.owner)
		if err != nil || n == 0 {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE slot SET node = ? WHERE task = ?`, s.cfg.Node, t.ID); err != nil {
			return err
		}
		tx.Changed("tasks")
		taken, err = Get(ctx, tx, t.ID)
		return err
	})
	if err == nil && taken != nil {
		s.log.Info("took over a task", "task", t.ID, "from", t.owner, "epoch", taken.epoch)
	}
	return taken, err
}

// impatient has a transaction fail soon where a row is locked by an owner that
// stands still in the middle of its own: the next look tries again, and meanwhile
// the other tasks do not wait.
func impatient(ctx context.Context, tx *db.Tx) error {
	if tx.Dialect() != db.Postgres {
		return nil
	}
	_, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '200ms'`)
	return err
}

// park ends a task whose owners keep dying without anything new in its journal
// or its log.
func (s *Service) park(ctx context.Context, tx *db.Tx, t *Task) error {
	state := octopus.TaskFailed
	if t.State == octopus.TaskCancelling {
		state = octopus.TaskCanceled
	}
	s.log.Error("parked a task", "task", t.ID, "resumes", t.resumes)
	return s.endAsIs(ctx, tx, t, state,
		fmt.Sprintf("The engine stopped %d times while it ran this task, without getting any further.", t.resumes+1))
}

// endOverdue ends canceled tasks whose bound has passed, whoever owns them. What
// their scripts do is left to the janitor, which keeps cancelling.
func (s *Service) endOverdue(ctx context.Context, flying []*Task, clock int64) error {
	var errs []error
	for _, t := range flying {
		if t.State != octopus.TaskCancelling || db.Micros(t.CancelAt)+s.cfg.Timing.Cancel.Microseconds() > clock {
			continue
		}
		err := s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
			if err := impatient(ctx, tx); err != nil {
				return err
			}
			return s.endAsIs(ctx, tx, t, octopus.TaskCanceled, "The task was canceled.")
		})
		if err != nil {
			errs = append(errs, fmt.Errorf("end %s, which was canceled: %w", t.ID, err))
			continue
		}
		s.mu.Lock()
		l := s.leases[t.ID]
		s.mu.Unlock()
		if l != nil && l.epoch == t.epoch {
			l.lose()
		}
	}
	return errors.Join(errs...)
}
