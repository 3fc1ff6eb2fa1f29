package tasks

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
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

// commitLimit bounds a transaction of the engine. It is not bound to whoever asked
// for it: a commit that is broken off is one whose end nobody knows.
const commitLimit = time.Minute

// maxGroup is how many commits share one transaction.
const maxGroup = 64

// Lease is this process's right to bring one task forward. It is safe for
// concurrent use; its transactions run one after another, and what is committed
// by several goroutines at the same time shares one.
type Lease struct {
	*Task // as it was when it was claimed
	s     *Service

	// Canceled is closed when the task has been asked to end.
	Canceled <-chan struct{}
	cancel   func()
	ctx      context.Context // ends with the process's right to run anything
	stop     context.CancelFunc
	since    time.Time // when it was claimed
	settled  bool      // the claim loop's

	turn  sync.Mutex // held by who commits for all in queue
	mu    sync.Mutex
	queue []*commit
	next  int64 // of the journal's next fact; 0 before it was read
	lines int64 // of the log, committed
	bytes int64
	ended bool // nothing can be committed any more
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
	// Unlock releases the machine locks of these units, and their places in line.
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
	l := &Lease{Task: t, s: s, lines: t.LogLines, bytes: t.LogBytes, since: time.Now()}
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
// before the first Commit, and again by a run that begins anew; nothing may be
// committed meanwhile.
func (l *Lease) Facts(ctx context.Context) ([]Fact, error) {
	var facts []Fact
	err := l.s.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
		facts, err = Journal(ctx, tx, l.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.next = int64(len(facts)) + 1
	return facts, nil
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

// Cursors returns how far the logs of all units of the task were read.
func (l *Lease) Cursors(ctx context.Context) ([]Cursor, error) {
	var all []Cursor
	err := l.s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		all = nil
		rows, err := tx.Query(ctx, `SELECT u.unit, u.cursor, u.parser FROM unit_cursor u WHERE u.task = ? ORDER BY u.unit`, l.ID)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var c Cursor
			var parser string
			if err := rows.Scan(&c.Unit, &c.Seq, &parser); err != nil {
				return err
			}
			c.Parser = json.RawMessage(parser)
			all = append(all, c)
		}
		return rows.Err()
	})
	return all, err
}

// Commit writes b. On any error nothing is written; ErrLost ends the lease. Once
// it has begun it comes to its end, whatever becomes of ctx.
func (l *Lease) Commit(ctx context.Context, b Batch) error {
	err := l.commit(ctx, &commit{batch: b, done: make(chan error, 1)})
	if err == nil && len(b.Lines)+len(b.Cursors) > 0 {
		err = failpoint.Hit("log-committed")
	}
	return err
}

// commit queues c, and commits for everybody in the queue when it is its turn.
func (l *Lease) commit(ctx context.Context, c *commit) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	l.queue = append(l.queue, c)
	l.mu.Unlock()
	l.turn.Lock()
	defer l.turn.Unlock()
	for {
		select {
		case err := <-c.done: // in this turn, or in somebody else's
			return err
		default:
		}
		l.mu.Lock()
		n := min(len(l.queue), maxGroup)
		group := l.queue[:n:n]
		l.queue = l.queue[n:]
		l.mu.Unlock()
		l.writeAll(ctx, group)
	}
}

// writeAll writes a group together, or, when one of them spoils it for all, each
// by itself.
func (l *Lease) writeAll(ctx context.Context, group []*commit) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitLimit)
	defer cancel()
	err := l.write(ctx, group)
	// Where the database itself has failed it would fail for each of them.
	if err != nil && len(group) > 1 && !errors.Is(err, ErrLost) && fault.KindOf(err) != fault.Unavailable && ctx.Err() == nil {
		for _, one := range group {
			one.done <- l.write(ctx, []*commit{one})
		}
		return
	}
	for _, one := range group {
		one.done <- err
	}
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
		if err := w.touch(ctx); err != nil {
			return err
		}
		for _, c := range group {
			if c.after != nil {
				if err := c.after(ctx, tx); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if errors.Is(err, db.ErrFateUnknown) {
		// What is stored must be read again, by whoever comes next.
		err = fmt.Errorf("%w: %w", ErrLost, err)
	}
	if errors.Is(err, ErrLost) {
		l.lose()
	}
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.next, l.lines, l.bytes = w.next, w.line, w.bytes
	l.mu.Unlock()
	if w.line > lines {
		l.s.tails.moved(l.ID)
	}
	return nil
}

// lose ends a lease that was taken away.
func (l *Lease) lose() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.stop()
}

// progress grows with everything that is committed to journal and log.
func (l *Lease) progress() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next + l.lines
}

// tell adds a line of the engine's own to the log, if that is possible.
func (l *Lease) tell(ctx context.Context, text string) {
	if l.unread() {
		if _, err := l.Facts(ctx); err != nil {
			return // the run will meet the same trouble
		}
	}
	// Where it does not work the server's log has said more already.
	_ = l.Commit(ctx, Batch{Lines: []Line{{Activity: l.ID, Category: octopus.LogWarning, At: time.Now().UTC(), Text: text}}, Warnings: true})
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
	cursors int
	warn    bool
}

func (w *writer) batch(ctx context.Context, b Batch) error {
	for some := range slices.Chunk(b.Facts, maxFacts) {
		if err := w.append(ctx, some); err != nil {
			return err
		}
	}
	w.pending = append(w.pending, b.Lines...)
	w.cursors += len(b.Cursors)
	w.warn = w.warn || b.Warnings
	for _, c := range b.Cursors {
		err := w.tx.Queue(ctx, `INSERT INTO unit_cursor (task, unit, cursor, parser) VALUES (?, ?, ?, ?)
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
		if err := unlock(ctx, w.tx, w.l.ID, unit); err != nil {
			return err
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

// maxFacts is how many facts one statement appends.
const maxFacts = 100

// append appends facts to the journal, at its expected end: all or none of them.
func (w *writer) append(ctx context.Context, facts []any) error {
	args := make([]any, 0, 4*len(facts))
	for i, f := range facts {
		body, err := json.Marshal(f)
		if err != nil {
			return fmt.Errorf("encode fact: %w", err)
		}
		args = append(args, w.l.ID, w.next+int64(i), w.l.epoch, string(body))
	}
	_, err := w.tx.Exec(ctx, `INSERT INTO journal (task, seq, epoch, fact) VALUES (?, ?, ?, ?)`+strings.Repeat(`, (?, ?, ?, ?)`, len(facts)-1), args...)
	if errors.Is(err, db.ErrUnique) {
		return ErrLost // somebody else appends: read the journal again
	}
	if err != nil {
		return fmt.Errorf("append fact %d of %s: %w", w.next, w.l.ID, err)
	}
	w.next += int64(len(facts))
	w.facts += len(facts)
	return nil
}

// touch notes on the task's row what the transaction did to it.
func (w *writer) touch(ctx context.Context) error {
	err := w.tx.Queue(ctx, `UPDATE task SET updated_time = ?, log_lines = ?, log_bytes = ?,
		resumes = CASE WHEN ? > 0 THEN 0 ELSE resumes END, has_warnings = CASE WHEN ? > 0 THEN 1 ELSE has_warnings END WHERE id = ?`,
		db.Micros(w.tx.Now()), w.line, w.bytes, int64(w.facts+w.cursors), flag(w.warn), w.l.ID)
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
		err := tx.Queue(ctx, `UPDATE task SET state = ?, owner = '', runnable = 0, waiting = 0, completed_time = ? WHERE id = ?`,
			string(state), now, l.ID)
		if err != nil {
			return fmt.Errorf("end %s: %w", l.ID, err)
		}
		return l.s.endWith(ctx, tx, l.Task, state, message)
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
		var answered int64
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM answer a WHERE a.task = ?`, l.ID).Scan(&answered); err != nil {
			return err
		}
		children, err := openChildren(ctx, tx, l.ID)
		if err != nil {
			return err
		}
		held, err := Held(ctx, tx, []string{l.ID})
		if err != nil {
			return err
		}
		// Of several questions one may be answered already: then there is
		// something to do before the others are.
		waiting := flag(pending+int64(len(children)) > 0 && answered == 0 || len(held) > 0)
		_, err = tx.Exec(ctx, `UPDATE task SET owner = '', waiting = CASE WHEN state = 'Executing' THEN ? ELSE 0 END,
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
		tx.Changed("tasks")
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
	l.lose()
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
	// Whoever answers has looked at it: what a restore holds goes on.
	if _, err := unhold(ctx, tx, i.Task); err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `UPDATE task SET runnable = CASE WHEN waiting = 1 THEN 1 ELSE runnable END, waiting = 0 WHERE id = ?`, i.Task)
	tx.Changed("tasks")
	tx.Changed("interruptions")
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
