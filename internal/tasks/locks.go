package tasks

import (
	"context"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
)

// TicketState is what an agent still has to be told about a script.
type TicketState string

// The states.
const (
	// TicketOpen is a script that may run; its unit has no result yet.
	TicketOpen TicketState = "open"
	// TicketCancel is one that must end: the janitor repeats it.
	TicketCancel TicketState = "cancel"
	// TicketComplete is one whose result is stored: the agent may forget it.
	TicketComplete TicketState = "complete"
)

// Ticket is a row of the scripts that agents know of.
type Ticket struct {
	ID        string
	Task      string // set when read
	Unit      string
	Agent     string
	State     TicketState
	NotBefore int64 // microseconds: when the janitor may act
}

func (w *writer) ticket(ctx context.Context, t Ticket) error {
	_, err := w.tx.Exec(ctx, `INSERT INTO ticket (ticket, task, unit, agent, state, not_before) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (ticket) DO UPDATE SET state = excluded.state, not_before = excluded.not_before`,
		t.ID, w.l.ID, t.Unit, t.Agent, string(t.State), t.NotBefore)
	if err != nil {
		return fmt.Errorf("store ticket %s: %w", t.ID, err)
	}
	return nil
}

// DueTickets lists scripts that agents have to be told about now: those to
// cancel and those to complete.
func (s *Service) DueTickets(ctx context.Context, limit int) ([]Ticket, error) {
	var due []Ticket
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		rows, err := tx.Query(ctx, `SELECT k.ticket, k.task, k.unit, k.agent, k.state, k.not_before FROM ticket k
			WHERE k.state IN ('cancel', 'complete') AND k.not_before <= ? ORDER BY k.not_before, k.ticket LIMIT ?`, db.Micros(tx.Now()), limit)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var t Ticket
			if err := rows.Scan(&t.ID, &t.Task, &t.Unit, &t.Agent, &t.State, &t.NotBefore); err != nil {
				return err
			}
			due = append(due, t)
		}
		return rows.Err()
	})
	return due, err
}

// PostponeTicket has the janitor come back to a ticket at a later time.
func (s *Service) PostponeTicket(ctx context.Context, id string, notBefore int64) error {
	return s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE ticket SET not_before = ? WHERE ticket = ?`, notBefore, id)
		return err
	})
}

// CloseTickets forgets tickets whose agents have forgotten them, or that have
// ended after a cancellation; the machine locks of the latter's units are free then.
func (s *Service) CloseTickets(ctx context.Context, closed []Ticket) error {
	return s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		for _, t := range closed {
			if _, err := tx.Exec(ctx, `DELETE FROM ticket WHERE ticket = ?`, t.ID); err != nil {
				return err
			}
			if t.State != TicketCancel {
				continue
			}
			if _, err := tx.Exec(ctx, `DELETE FROM machine_lock WHERE task = ? AND unit = ?`, t.Task, t.Unit); err != nil {
				return err
			}
		}
		return nil
	})
}

// machineLock orders those who ask for machines on PostgreSQL.
const machineLock = claimLock + 1

// Lock queues a unit for a machine, once, and reports whether it holds the lock
// now. Exclusive holders are alone; shared ones may be together. The order of
// asking is the order of holding. Batch.Unlock releases it.
func (l *Lease) Lock(ctx context.Context, machine, unit string, shared bool) (held bool, err error) {
	queued := false
	err = l.s.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
		queued, held, err = holds(ctx, tx, machine, l.ID, unit)
		return err
	})
	if err != nil || queued {
		return held, err
	}
	err = l.Commit(ctx, Batch{Also: func(ctx context.Context, tx *db.Tx) error {
		if tx.Dialect() == db.Postgres {
			// Identities are given out before commit: one asks at a time. One lock
			// for all machines, since a transaction may ask for several.
			if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock(?)`, int64(machineLock)); err != nil {
				return err
			}
		}
		var already bool
		if already, held, err = holds(ctx, tx, machine, l.ID, unit); err != nil || already {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO machine_lock (machine, task, unit, shared) VALUES (?, ?, ?, ?)`, machine, l.ID, unit, flag(shared)); err != nil {
			return fmt.Errorf("queue for machine %s: %w", machine, err)
		}
		_, held, err = holds(ctx, tx, machine, l.ID, unit)
		return err
	}})
	return held, err
}

// holds reports whether a unit is queued for a machine, and whether nothing
// before it is in its way.
func holds(ctx context.Context, tx *db.Tx, machine, task, unit string) (queued, held bool, err error) {
	var id, shared int64
	err = tx.QueryRow(ctx, `SELECT m.id, m.shared FROM machine_lock m WHERE m.machine = ? AND m.task = ? AND m.unit = ?`, machine, task, unit).Scan(&id, &shared)
	if isNoRows(err) {
		return false, false, nil
	}
	if err != nil {
		return false, false, err
	}
	var before int64
	err = tx.QueryRow(ctx, `SELECT count(*) FROM machine_lock m WHERE m.machine = ? AND m.id < ? AND (m.shared = 0 OR ? = 0)`, machine, id, shared).Scan(&before)
	return true, before == 0, err
}

// LockHolder names the task that holds a machine, for the reason why another waits.
func LockHolder(ctx context.Context, tx *db.Tx, machine string) (task string, err error) {
	err = tx.QueryRow(ctx, `SELECT m.task FROM machine_lock m WHERE m.machine = ? ORDER BY m.id LIMIT 1`, machine).Scan(&task)
	if isNoRows(err) {
		return "", nil
	}
	return task, err
}
