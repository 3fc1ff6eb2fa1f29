package tasks

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// ErrLost says that this process no longer owns the task: another one does, or
// the task has been ended. Everything known of it must be dropped.
var ErrLost = errors.New("the task is owned elsewhere")

// Lease is this process's right to bring one task forward. It is safe for
// concurrent use; its transactions run one after another, and what is committed
// by several goroutines at the same time shares one.
type Lease struct {
	*Task
	s *Service

	// Canceled is closed when the task has been asked to end.
	Canceled <-chan struct{}
	cancel   func()
	ctx      context.Context // ends with the process's right to run anything
	stop     context.CancelFunc

	queue   chan *commit
	turn    sync.Mutex // held by who commits for all in queue
	mu      sync.Mutex
	next    int64 // of the journal's next fact
	lines   int64 // of the log, committed
	bytes   int64
	ended   bool
}

// Batch is what one transaction of a lease writes, all or nothing.
type Batch struct {
	// Facts are appended to the journal, as JSON.
	Facts []any
	// Lines are appended to the log; their texts are masked already.
	Lines []Line
	// Cursors say how far logs of scripts were read, in step with Lines.
	Cursors []Cursor
	// Tickets to open, complete or cancel.
	Tickets []Ticket
	// Unlock releases the machine locks of these units.
	Unlock []string
	// Interruptions to raise.
	Interruptions []Interruption
	// Artifacts to list.
	Artifacts []Artifact
	// Warnings marks the task as having warnings or errors.
	Warnings bool
	// Also runs in the same transaction, after the rest. It may run twice.
	Also func(ctx context.Context, tx *db.Tx) error
}

// Cursor is how far the log of a unit's script was read.
type Cursor struct {
	Unit   string
	Seq    int64           // the last entry wholly in the log
	Parser json.RawMessage // what its parser had in hand
}

type commit struct {
	batch Batch
	after func(ctx context.Context, tx *db.Tx) error
	done  chan error
}

func newLease(ctx context.Context, s *Service, t *Task) *Lease {
	l := &Lease{Task: t, s: s, queue: make(chan *commit, 64), lines: t.LogLines, bytes: t.LogBytes}
	l.ctx, l.stop = context.WithCancel(ctx)
	canceled := make(chan struct{})
	l.Canceled, l.cancel = canceled, sync.OnceFunc(func() { close(canceled) })
	return l
}

// Service is the queue this lease belongs to.
func (l *Lease) Service() *Service { return l.s }

// Epoch counts the task's owners.
func (l *Lease) Epoch() int64 { return l.epoch }

// Facts reads the journal, and with it where the next fact goes. It is called
// once, before the first Commit.
func (l *Lease) Facts(ctx context.Context) ([]Fact, error) {
	var facts []Fact
	err := l.s.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
		facts, err = Journal(ctx, tx, l.ID)
		return err
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = int64(len(facts)) + 1
	return facts, err
}

// Cursor returns how far a unit's log was read, zero when it never was.
func (l *Lease) Cursor(ctx context.Context, unit string) (Cursor, error) {
	c := Cursor{Unit: unit}
	err := l.s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		var parser string
		err := tx.QueryRow(ctx, `SELECT u.cursor, u.parser FROM unit_cursor u WHERE u.task = ? AND u.unit = ?`, l.ID, unit).Scan(&c.Seq, &parser)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		c.Parser = json.RawMessage(parser)
		return err
	})
	return c, err
}

// Commit writes b. On any error nothing is written; ErrLost ends the lease.
func (l *Lease) Commit(ctx context.Context, b Batch) error {
	return l.commit(ctx, &commit{batch: b, done: make(chan error, 1)})
}

// commit queues c, and commits for everybody in the queue when it is its turn.
func (l *Lease) commit(ctx context.Context, c *commit) error {
	select {
	case l.queue <- c:
	case <-ctx.Done():
		return ctx.Err()
	}
	l.turn.Lock()
	defer l.turn.Unlock()
	select {
	case err := <-c.done: // somebody else's turn has taken it along
		return err
	default:
	}
	var group []*commit
	for len(l.queue) > 0 {
		group = append(group, <-l.queue)
	}
	err := l.write(ctx, group)
	if err != nil && len(group) > 1 && !errors.Is(err, ErrLost) {
		// One of them spoils it for all: let each succeed or fail alone.
		for _, one := range group {
			one.done <- l.write(ctx, []*commit{one})
		}
		return <-c.done
	}
	for _, one := range group {
		one.done <- err
	}
	return <-c.done
}

// write is one fenced transaction.
func (l *Lease) write(ctx context.Context, group []*commit) error {
	l.mu.Lock()
	next, lines, size, ended := l.next, l.lines, l.bytes, l.ended
	l.mu.Unlock()
	if ended {
		return ErrLost
	}
	if next == 0 {
		return errors.New("tasks: Commit before Facts")
	}
	var w writer
	err := l.s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		w = writer{l: l, tx: tx, next: next, line: lines, bytes: size}
		if err := l.fence(ctx, tx); err != nil {
			return err
		}
		for _, c := range group {
			if err := w.batch(ctx, c.batch); err != nil {
				return err
			}
		}
		if err := w.flushLog(ctx); err != nil {
			return err
		}
		for _, c := range group {
			if c.after != nil {
				if err := c.after(ctx, tx); err != nil {
					return err
				}
			}
		}
		return w.touch(ctx)
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.next, l.lines, l.bytes = w.next, w.line, w.bytes
	l.mu.Unlock()
	if w.line > lines {
		l.s.tails.moved(l.ID)
	}
	return failpoint.Hit("log-committed")
}

// fence locks the task's row if this lease still owns it.
func (l *Lease) fence(ctx context.Context, tx *db.Tx) error {
	var epoch int64
	err := tx.QueryRow(ctx, `SELECT t.epoch FROM task t WHERE t.id = ? AND t.epoch = ? AND t.owner = ? AND t.db_incarnation = ?`+tx.ForUpdate(),
		l.ID, l.epoch, l.s.incarnation, l.s.dbInc).Scan(&epoch)
	if errors.Is(err, sql.ErrNoRows) {
		return ErrLost
	}
	return err
}

// writer is a transaction of a lease in the making.
type writer struct {
	l       *Lease
	tx      *db.Tx
	next    int64
	line    int64
	bytes   int64
	pending []Line
	facts   int
	warn    bool
}

func (w *writer) batch(ctx context.Context, b Batch) error {
	for _, f := range b.Facts {
		body, err := json.Marshal(f)
		if err != nil {
			return fmt.Errorf("encode fact: %w", err)
		}
		_, err = w.tx.Exec(ctx, `INSERT INTO journal (task, seq, epoch, fact) VALUES (?, ?, ?, ?)`, w.l.ID, w.next, w.l.epoch, string(body))
		if errors.Is(err, db.ErrUnique) {
			return ErrLost // somebody else appends: read the journal again
		}
		if err != nil {
			return fmt.Errorf("append fact %d of %s: %w", w.next, w.l.ID, err)
		}
		w.next++
		w.facts++
	}
	w.pending = append(w.pending, b.Lines...)
	w.warn = w.warn || b.Warnings
	for _, c := range b.Cursors {
		_, err := w.tx.Exec(ctx, `INSERT INTO unit_cursor (task, unit, cursor, parser) VALUES (?, ?, ?, ?)
			ON CONFLICT (task, unit) DO UPDATE SET cursor = excluded.cursor, parser = excluded.parser`, w.l.ID, c.Unit, c.Seq, string(c.Parser))
		if err != nil {
			return fmt.Errorf("store cursor of %s: %w", c.Unit, err)
		}
	}
	for _, t := range b.Tickets {
		if err := w.ticket(ctx, t); err != nil {
			return err
		}
	}
	for _, unit := range b.Unlock {
		if _, err := w.tx.Exec(ctx, `DELETE FROM machine_lock WHERE task = ? AND unit = ?`, w.l.ID, unit); err != nil {
			return fmt.Errorf("release machine lock of %s: %w", unit, err)
		}
	}
	for _, i := range b.Interruptions {
		if err := insertInterruption(ctx, w.tx, w.l.Task, i); err != nil {
			return err
		}
	}
	for _, a := range b.Artifacts {
		if err := insertArtifact(ctx, w.tx, w.l.Task, a); err != nil {
			return err
		}
	}
	if b.Also != nil {
		return b.Also(ctx, w.tx)
	}
	return nil
}

// touch notes on the task's row what the transaction did to it.
func (w *writer) touch(ctx context.Context) error {
	_, err := w.tx.Exec(ctx, `UPDATE task SET updated_time = ?, log_lines = ?, log_bytes = ?,
		resumes = CASE WHEN ? > 0 THEN 0 ELSE resumes END, has_warnings = CASE WHEN ? > 0 THEN 1 ELSE has_warnings END WHERE id = ?`,
		db.Micros(w.tx.Now()), w.line, w.bytes, int64(w.facts), flag(w.warn), w.l.ID)
	if err != nil {
		return fmt.Errorf("update %s: %w", w.l.ID, err)
	}
	if w.facts > 0 {
		w.tx.Changed("tasks")
	}
	return nil
}

// Finish ends the task together with b.
func (l *Lease) Finish(ctx context.Context, state octopus.TaskState, message string, b Batch) error {
	if !state.Completed() {
		return fmt.Errorf("tasks: Finish with state %s", state)
	}
	if l.unread() {
		if _, err := l.Facts(ctx); err != nil {
			return err
		}
	}
	end := func(ctx context.Context, tx *db.Tx) error {
		now := db.Micros(tx.Now())
		_, err := tx.Exec(ctx, `UPDATE task SET state = ?, error = ?, owner = '', runnable = 0, waiting = 0, completed_time = ? WHERE id = ?`,
			string(state), message, now, l.ID)
		if err != nil {
			return fmt.Errorf("end %s: %w", l.ID, err)
		}
		return l.s.ended(ctx, tx, l.Task, state)
	}
	return l.leave(ctx, b, end)
}

// Wait gives the task up until a person has answered. The slot is free at once,
// and so is the concurrency tag unless keepTag says that others must wait too.
func (l *Lease) Wait(ctx context.Context, keepTag bool, b Batch) error {
	return l.leave(ctx, b, func(ctx context.Context, tx *db.Tx) error {
		// An answer, or a cancellation, may have come first.
		var pending int64
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM interruption i WHERE i.task = ? AND i.pending = 1`, l.ID).Scan(&pending); err != nil {
			return err
		}
		waiting := flag(pending > 0)
		_, err := tx.Exec(ctx, `UPDATE task SET owner = '', waiting = CASE WHEN state = 'Executing' THEN ? ELSE 0 END,
			runnable = CASE WHEN state = 'Executing' AND ? = 1 THEN 0 ELSE 1 END WHERE id = ?`, waiting, waiting, l.ID)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM slot WHERE task = ?`, l.ID); err != nil {
			return err
		}
		if !keepTag {
			if _, err := tx.Exec(ctx, `DELETE FROM tag_holder WHERE task = ?`, l.ID); err != nil {
				return err
			}
		}
		tx.Changed("tasks")
		tx.AfterCommit(l.s.wake)
		return nil
	})
}

// release hands an unfinished task to whoever takes it next, slot and tag included.
func (l *Lease) release(ctx context.Context) error {
	if l.unread() {
		if _, err := l.Facts(ctx); err != nil {
			return err
		}
	}
	err := l.leave(ctx, Batch{}, func(ctx context.Context, tx *db.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE task SET owner = '' WHERE id = ?`, l.ID)
		return err
	})
	return errors.Join(err, failpoint.Hit("lease-released"))
}

func (l *Lease) unread() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next == 0
}

// leave ends the lease with a last transaction.
func (l *Lease) leave(ctx context.Context, b Batch, after func(context.Context, *db.Tx) error) error {
	if err := l.commit(ctx, &commit{batch: b, after: after, done: make(chan error, 1)}); err != nil {
		return err
	}
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.stop()
	return nil
}

func (l *Lease) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ended
}

// Answer records what a person decided about an interruption: fact goes to the
// journal, and the task runs again, at its old place in the queue. It fails when
// somebody else has answered first.
func (s *Service) Answer(ctx context.Context, tx *db.Tx, id string, fact any) error {
	i, err := GetInterruption(ctx, tx, id)
	if err != nil {
		return err
	}
	var seq int64
	err = tx.QueryRow(ctx, `SELECT t.seq FROM task t WHERE t.id = ? AND t.state = 'Executing'`+tx.ForUpdate(), i.Task).Scan(&seq)
	if errors.Is(err, sql.ErrNoRows) {
		return fault.New(fault.Conflict, "The task '%s' no longer waits for an answer.", i.Task)
	}
	if err != nil {
		return err
	}
	body, err := json.Marshal(fact)
	if err != nil {
		return err
	}
	n, err := tx.Exec(ctx, `UPDATE interruption SET pending = 0 WHERE id = ? AND pending = 1`, id)
	if err != nil {
		return err
	}
	if n == 0 {
		return fault.New(fault.Conflict, "The interruption '%s' was answered already.", id)
	}
	_, err = tx.Exec(ctx, `INSERT INTO answer (interruption, task, created, fact) VALUES (?, ?, ?, ?)`, id, i.Task, db.Micros(tx.Now()), string(body))
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE task SET waiting = 0, runnable = CASE WHEN owner = '' THEN 1 ELSE 0 END WHERE id = ?`, i.Task)
	tx.Changed("tasks")
	tx.AfterCommit(s.wake)
	return err
}

// Answers returns the facts of answers that the journal does not have yet, oldest
// first. Commit them together with TakeAnswers.
func (l *Lease) Answers(ctx context.Context) (facts []json.RawMessage, ids []string, err error) {
	err = l.s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		rows, err := tx.Query(ctx, `SELECT a.interruption, a.fact FROM answer a WHERE a.task = ? ORDER BY a.created, a.interruption`, l.ID)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id, fact string
			if err := rows.Scan(&id, &fact); err != nil {
				return err
			}
			facts, ids = append(facts, json.RawMessage(fact)), append(ids, id)
		}
		return rows.Err()
	})
	return facts, ids, err
}

// TakeAnswers removes answers whose facts are committed with the same batch: use it in Batch.Also.
func TakeAnswers(ctx context.Context, tx *db.Tx, ids []string) error {
	for _, id := range ids {
		if _, err := tx.Exec(ctx, `DELETE FROM answer WHERE interruption = ?`, id); err != nil {
			return err
		}
	}
	return nil
}

// Aborted ends when the process must stop running anything for this task.
func (l *Lease) Aborted() <-chan struct{} { return l.ctx.Done() }

// Deadline is when a canceled task will be ended by others at the latest.
func (l *Lease) Deadline() time.Time { return l.CancelAt.Add(CancelBound) }
