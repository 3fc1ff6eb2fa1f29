package tasks

import (
	"context"
	"fmt"
	"time"

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
	// Place is where the script runs, for people: the name of a target or of a worker.
	Place string
	// Contract is that of the agent, a deploy.Contract, and Answered tells that it has
	// answered the start. Once true it stays.
	Contract string
	Answered bool
	// Locked tells that the unit still has a machine's lock; set when read.
	Locked bool
}

// StartSettles is how long the start of a script may still be on its way to an agent, or
// be dealt with there, after nobody waits for its answer any more: a polling agent may
// take two minutes to fetch it, and a connection as long to be found dead. An agent of
// another make that is asked about the script meanwhile, or told to end it, takes it for
// unknown from then on, though it runs.
const StartSettles = 4 * time.Minute

func (w *writer) ticket(ctx context.Context, t Ticket) error {
	answered := 0
	if t.Answered {
		answered = 1
	}
	_, err := w.tx.Exec(ctx, `INSERT INTO ticket (ticket, task, unit, agent, state, not_before, place, contract, answered) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (ticket) DO UPDATE SET state = excluded.state, not_before = excluded.not_before,
			answered = CASE WHEN excluded.answered = 1 THEN 1 ELSE ticket.answered END`,
		t.ID, w.l.ID, t.Unit, t.Agent, string(t.State), t.NotBefore, t.Place, t.Contract, answered)
	if err != nil {
		return fmt.Errorf("store ticket %s: %w", t.ID, err)
	}
	return nil
}

// DueTickets lists scripts that agents have to be told about now: those to
// cancel and those to complete. Those of the agents in busy are left out.
func (s *Service) DueTickets(ctx context.Context, limit int, busy ...string) ([]Ticket, error) {
	var due []Ticket
	others, args := "", []any{}
	if len(busy) > 0 {
		others, args = `AND k.agent NOT IN `+placeholders(len(busy)), anys(busy)
	}
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		due = nil
		rows, err := tx.Query(ctx, `SELECT k.ticket, k.task, k.unit, k.agent, k.state, k.not_before, k.place, k.contract, k.answered,
				(SELECT count(*) FROM machine_lock m WHERE m.task = k.task AND m.unit = k.unit)
			FROM ticket k WHERE k.state IN ('cancel', 'complete') AND k.not_before <= ? `+others+` ORDER BY k.not_before, k.ticket LIMIT ?`,
			append(append([]any{db.Micros(tx.Now())}, args...), limit)...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var t Ticket
			var answered, locks int64
			if err := rows.Scan(&t.ID, &t.Task, &t.Unit, &t.Agent, &t.State, &t.NotBefore, &t.Place, &t.Contract, &answered, &locks); err != nil {
				return err
			}
			t.Answered, t.Locked = answered != 0, locks > 0
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

// CloseTickets forgets tickets whose agents have forgotten them: their scripts have
// ended, and what is still held of machine locks for them is free then.
func (s *Service) CloseTickets(ctx context.Context, closed []Ticket) error {
	return s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		for _, t := range closed {
			if _, err := tx.Exec(ctx, `DELETE FROM ticket WHERE ticket = ?`, t.ID); err != nil {
				return err
			}
			if t.State != TicketCancel && !t.Locked {
				continue
			}
			if err := unlock(ctx, tx, t.Task, t.Unit); err != nil {
				return err
			}
		}
		return nil
	})
}

// machineLock orders those who ask for machines on PostgreSQL.
const machineLock = claimLock + 1

// lockChanges is the kind whose counter moves when somebody leaves the line for a machine.
const lockChanges = "machine_locks"

// unlock takes a unit out of the lines for machines.
func unlock(ctx context.Context, tx *db.Tx, task, unit string) error {
	n, err := tx.Exec(ctx, `DELETE FROM machine_lock WHERE task = ? AND unit = ?`, task, unit)
	if err != nil {
		return fmt.Errorf("release machine lock of %s: %w", unit, err)
	}
	if n > 0 {
		tx.Changed(lockChanges)
	}
	return nil
}

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

// lockWait is how long a unit in line is not looked at, when nothing has happened.
const lockWait = time.Second

// AwaitLock is Lock until the unit holds the machine. Whenever it does not, wait is
// told who is in its way, and may say that the unit no longer wants the machine: then
// AwaitLock returns false, and the unit is in line until Batch.Unlock. wait is asked
// again when somebody has left a line, when the task is canceled, and once a second.
func (l *Lease) AwaitLock(ctx context.Context, machine, unit string, shared bool, wait func(ctx context.Context, ahead []Holder) (goOn bool, err error)) (held bool, err error) {
	changes := l.s.cfg.DB.Subscribe()
	defer changes.Close()
	tick := time.NewTicker(lockWait)
	defer tick.Stop()
	canceled := l.Canceled
	for {
		// Asked before the look, so that what comes meanwhile is looked at again.
		seen, err := l.s.cfg.DB.Changes(ctx, lockChanges)
		if err != nil {
			return false, err
		}
		if held, err := l.Lock(ctx, machine, unit, shared); err != nil || held {
			return held, err
		}
		var ahead []Holder
		err = l.s.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
			ahead, err = Ahead(ctx, tx, machine, l.ID, unit, maxAhead)
			return err
		})
		if err != nil {
			return false, err
		}
		if goOn, err := wait(ctx, ahead); err != nil || !goOn {
			return false, err
		}
		for again := false; !again; {
			select {
			case <-ctx.Done():
				return false, ctx.Err()
			case <-canceled:
				canceled, again = nil, true
			case <-tick.C:
				again = true
			case <-changes.C:
				now, err := l.s.cfg.DB.Changes(ctx, lockChanges)
				again = err != nil || now != seen
			}
		}
	}
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

// maxAhead is how many of those in a unit's way are told of.
const maxAhead = 5

// Holder is a unit in the line for a machine.
type Holder struct {
	Task, Unit string
	// Ended tells that the task has ended, but that a script of the unit may still run.
	Ended bool
}

// Ahead lists who is in the way of a unit that waits for a machine, in the order of
// their places, at most limit of them. It is empty for one that holds the machine.
func Ahead(ctx context.Context, tx *db.Tx, machine, task, unit string, limit int) ([]Holder, error) {
	rows, err := tx.Query(ctx, `SELECT m.task, m.unit, CASE WHEN t.state IN ('Queued', 'Executing', 'Cancelling') THEN 0 ELSE 1 END
		FROM machine_lock own JOIN machine_lock m ON m.machine = own.machine AND m.id < own.id AND (m.shared = 0 OR own.shared = 0)
		LEFT JOIN task t ON t.id = m.task
		WHERE own.machine = ? AND own.task = ? AND own.unit = ? ORDER BY m.id LIMIT ?`, machine, task, unit, limit)
	if err != nil {
		return nil, fmt.Errorf("look who waits for machine %s: %w", machine, err)
	}
	defer rows.Close()
	var all []Holder
	for rows.Next() {
		var h Holder
		var ended int64
		if err := rows.Scan(&h.Task, &h.Unit, &ended); err != nil {
			return nil, err
		}
		h.Ended = ended != 0
		all = append(all, h)
	}
	return all, rows.Err()
}
