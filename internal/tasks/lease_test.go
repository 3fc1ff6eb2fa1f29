package tasks_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// claim starts a node, queues a task and returns its lease.
func (w *world) claim(change ...func(*tasks.Config)) (*node, *tasks.Lease) {
	w.t.Helper()
	claimed := make(leases, 10)
	n := w.node("a", claimed.run, change...)
	w.create(n.Service, tasks.New{Tag: "tag"})
	return n, claimed.next(w.t)
}

func TestFence(t *testing.T) {
	t.Parallel()
	for name, steal := range map[string]string{
		"another owner":    `UPDATE task SET owner = 'someone', epoch = epoch + 1`,
		"a later epoch":    `UPDATE task SET epoch = epoch + 1`,
		"no owner":         `UPDATE task SET owner = ''`,
		"another database": `UPDATE task SET db_incarnation = 'restored'`,
		"the task is gone": `DELETE FROM task`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, w *world) {
				// No look, so that nobody notices before the commit does.
				n, l := w.claim(func(c *tasks.Config) { c.Timing.Look = time.Hour })
				if err := l.Commit(t.Context(), tasks.Batch{Facts: []any{"mine"}}); err != nil {
					t.Fatal(err)
				}
				w.exec(steal)
				if err := l.Commit(t.Context(), tasks.Batch{Facts: []any{"late"}, Lines: []tasks.Line{{Text: "late"}}}); !errors.Is(err, tasks.ErrLost) {
					t.Errorf("a commit after that: %v", err)
				}
				if err := l.Commit(t.Context(), tasks.Batch{}); !errors.Is(err, tasks.ErrLost) {
					t.Errorf("a second one: %v", err)
				}
				if err := l.Finish(t.Context(), octopus.TaskSuccess, "", tasks.Batch{}); !errors.Is(err, tasks.ErrLost) {
					t.Errorf("Finish: %v", err)
				}
				if diff := cmp.Diff([]string{"mine"}, w.journal(l.ID)); diff != "" {
					t.Error(diff)
				}
				if lines := w.log(n.Service, l.ID, 1); len(lines) != 0 {
					t.Errorf("lines %q", lines)
				}
			})
		})
	}
}

// Two who append at the same number: the key of the journal keeps one of them out,
// whatever the epochs say.
func TestJournalNumbers(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		_, l := w.claim()
		w.exec(`INSERT INTO journal (task, seq, epoch, fact) VALUES (?, 1, 0, '"theirs"')`, l.ID)
		if err := l.Commit(t.Context(), tasks.Batch{Facts: []any{"mine"}}); !errors.Is(err, tasks.ErrLost) {
			t.Errorf("the same number again: %v", err)
		}
		if diff := cmp.Diff([]string{"theirs"}, w.journal(l.ID)); diff != "" {
			t.Error(diff)
		}
	})
}

// A lease that was taken away is noticed by a runner that commits nothing.
func TestLossIsHeard(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		ended := make(chan struct{})
		claimed := make(leases, 10)
		n := w.node("a", func(ctx context.Context, l *tasks.Lease) error {
			err := claimed.run(ctx, l)
			close(ended)
			return err
		})
		task := w.create(n.Service, tasks.New{})
		claimed.next(t)
		w.exec(`UPDATE task SET state = 'Canceled', owner = '', epoch = epoch + 1, completed_time = 1 WHERE id = ?`, task.ID)
		<-ended
	})
}

// Commits that come at the same time share a transaction, one that fails does not
// spoil the others, and each fact has its own number.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		n, l := w.claim()
		gate, inside := make(chan struct{}), make(chan struct{})
		errs := make(chan error, 40)
		go func() {
			errs <- l.Commit(t.Context(), tasks.Batch{Facts: []any{"first"}, Also: func(context.Context, *db.Tx) error {
				close(inside)
				<-gate
				return nil
			}})
		}()
		<-inside
		const good = 30
		var mu sync.Mutex
		txs := map[*db.Tx]bool{}
		also := func(_ context.Context, tx *db.Tx) error {
			mu.Lock()
			defer mu.Unlock()
			txs[tx] = true
			return nil
		}
		for i := range good {
			go func() {
				errs <- l.Commit(t.Context(), tasks.Batch{Facts: []any{fmt.Sprint("fact ", i)}, Lines: []tasks.Line{{Text: fmt.Sprint("line ", i)}}, Also: also})
			}()
		}
		await(t, "all of them are queued", func() bool { return l.Queued() == good })
		close(gate)
		for range good + 1 {
			if err := <-errs; err != nil {
				t.Error(err)
			}
		}
		if len(txs) != 1 {
			t.Errorf("%d commits took %d transactions", good, len(txs))
		}
		facts := w.journal(l.ID)
		slices.Sort(facts)
		if len(slices.Compact(facts)) != good+1 {
			t.Errorf("facts %q", facts)
		}
		if lines := w.log(n.Service, l.ID, 1); len(lines) != good {
			t.Errorf("%d lines", len(lines))
		}
	})
}

func TestOneBadBatch(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		_, l := w.claim()
		bad := errors.New("bad")
		for _, c := range []struct {
			name  string
			batch tasks.Batch
		}{
			{"Also fails", tasks.Batch{Facts: []any{"bad"}, Also: func(context.Context, *db.Tx) error { return bad }}},
			{"a statement fails", tasks.Batch{Facts: []any{"bad"}, Also: func(ctx context.Context, tx *db.Tx) error {
				_, err := tx.Exec(ctx, `INSERT INTO slot (task, node) VALUES (?, '')`, l.ID)
				return err
			}}},
			{"a fact that is no JSON", tasks.Batch{Facts: []any{func() {}}}},
		} {
			gate, inside := make(chan struct{}), make(chan struct{})
			first := make(chan error, 1)
			go func() {
				first <- l.Commit(t.Context(), tasks.Batch{Also: func(context.Context, *db.Tx) error {
					close(inside)
					<-gate
					return nil
				}})
			}()
			<-inside
			errs := make(chan error, 5)
			for range 4 {
				go func() { errs <- l.Commit(t.Context(), tasks.Batch{Facts: []any{c.name}}) }()
			}
			spoiled := make(chan error, 1)
			go func() { spoiled <- l.Commit(t.Context(), c.batch) }()
			await(t, "all of them are queued", func() bool { return l.Queued() == 5 })
			close(gate)
			for range 4 {
				if err := <-errs; err != nil {
					t.Errorf("%s: a good batch beside it: %v", c.name, err)
				}
			}
			if err := <-spoiled; err == nil || errors.Is(err, tasks.ErrLost) {
				t.Errorf("%s: %v", c.name, err)
			}
			if err := <-first; err != nil {
				t.Errorf("%s: the one before: %v", c.name, err)
			}
			facts := w.journal(l.ID)
			if n := len(facts); slices.Contains(facts, "bad") || n%4 != 0 || facts[n-1] != c.name {
				t.Errorf("%s: facts %q", c.name, facts)
			}
		}
	})
}

// Somebody who gives up waiting takes nobody along.
func TestContextOfOthers(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		_, l := w.claim()
		ctx, cancel := context.WithCancel(t.Context())
		inside := make(chan struct{})
		errs := make(chan error, 3)
		gate := make(chan struct{})
		go func() {
			errs <- l.Commit(ctx, tasks.Batch{Facts: []any{"one"}, Also: func(context.Context, *db.Tx) error {
				close(inside)
				<-gate
				return nil
			}})
		}()
		<-inside
		go func() { errs <- l.Commit(ctx, tasks.Batch{Facts: []any{"two"}}) }()
		await(t, "it is queued", func() bool { return l.Queued() == 1 })
		go func() { errs <- l.Commit(t.Context(), tasks.Batch{Facts: []any{"three"}}) }()
		await(t, "both are queued", func() bool { return l.Queued() == 2 })
		cancel()
		close(gate)
		for range 3 {
			if err := <-errs; err != nil {
				t.Errorf("what had begun: %v", err)
			}
		}
		if err := l.Commit(ctx, tasks.Batch{Facts: []any{"four"}}); !errors.Is(err, context.Canceled) {
			t.Errorf("what had not: %v", err)
		}
		if facts := w.journal(l.ID); len(facts) != 3 {
			t.Errorf("facts %q", facts)
		}
	})
}

// ask raises an interruption in a batch.
func ask(t testing.TB, l *tasks.Lease) (id string, b tasks.Batch) {
	t.Helper()
	id, err := l.NextInterruption(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id, tasks.Batch{Facts: []any{"ask " + id}, Interruptions: []tasks.Interruption{{ID: id, Kind: octopus.InterruptionManual, Title: "Go on?"}}}
}

func (w *world) answer(s *tasks.Service, id string) error {
	return w.d.WriteEngine(context.WithoutCancel(w.t.Context()), func(tx *db.Tx) error {
		return s.Answer(w.t.Context(), tx, id, "answer "+id)
	})
}

// takeAnswers moves answers to the journal, as a runner does.
func takeAnswers(t testing.TB, l *tasks.Lease) int {
	t.Helper()
	bodies, ids, err := l.Answers(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b := tasks.Batch{Also: func(ctx context.Context, tx *db.Tx) error { return tasks.TakeAnswers(ctx, tx, ids) }}
	for _, body := range bodies {
		b.Facts = append(b.Facts, body)
	}
	if err := l.Commit(t.Context(), b); err != nil {
		t.Fatal(err)
	}
	return len(ids)
}

func TestWaitAndAnswer(t *testing.T) {
	t.Parallel()
	for _, keep := range []bool{false, true} {
		t.Run(fmt.Sprint("keep the tag ", keep), func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, w *world) {
				claimed := make(leases, 10)
				n := w.node("a", claimed.run)
				w.exec(`UPDATE node_setting SET capacity = 1`)
				task := w.create(n.Service, tasks.New{Tag: "tag"})
				l := claimed.next(t)
				id, b := ask(t, l)
				if err := l.Wait(t.Context(), keep, b); err != nil {
					t.Fatal(err)
				}
				if !over(t.Context(), l) {
					t.Error("the lease goes on")
				}
				got := w.get(task.ID)
				if got.State != octopus.TaskExecuting || !got.Waiting {
					t.Errorf("%+v", got)
				}
				w.read(func(ctx context.Context, tx *db.Tx) error {
					reason, _, err := n.WaitReason(ctx, tx, got, []tasks.Visible{{Space: "Spaces-1"}})
					if !strings.Contains(reason, "person") {
						t.Errorf("it waits since %q", reason)
					}
					pending, err2 := tasks.Pending(ctx, tx, []string{task.ID})
					if diff := cmp.Diff(map[string][]octopus.InterruptionType{task.ID: {octopus.InterruptionManual}}, pending); diff != "" {
						t.Error(diff)
					}
					return errors.Join(err, err2)
				})
				held := w.count(`SELECT count(*) FROM tag_holder WHERE task = ?`, task.ID)
				if w.count(`SELECT count(*) FROM slot`) != 0 || held != map[bool]int64{true: 1}[keep] {
					t.Errorf("it waits with %d tags", held)
				}
				// Another one gets the slot; one of the same tag only if the tag is free.
				same := w.create(n.Service, tasks.New{Tag: "tag"})
				other := w.create(n.Service, tasks.New{})
				want := same
				if keep {
					want = other
				}
				running := claimed.next(t)
				if running.ID != want.ID {
					t.Fatalf("%s runs meanwhile", running.ID)
				}
				if err := w.answer(n.Service, id); err != nil {
					t.Fatal(err)
				}
				if err := w.answer(n.Service, id); fault.KindOf(err) != fault.Conflict {
					t.Errorf("a second answer: %v", err)
				}
				if got := w.get(task.ID); got.Waiting || got.State != octopus.TaskExecuting {
					t.Errorf("once it is answered: %+v", got)
				}
				if err := finish(t.Context(), running); err != nil {
					t.Fatal(err)
				}
				// It is back at its old place, before everything that came later.
				l = claimed.next(t)
				if l.ID != task.ID || l.Epoch() != 2 {
					t.Fatalf("%s runs next, epoch %d", l.ID, l.Epoch())
				}
				if n := takeAnswers(t, l); n != 1 {
					t.Errorf("%d answers", n)
				}
				if diff := cmp.Diff([]string{"ask " + id, "answer " + id}, w.journal(task.ID)); diff != "" {
					t.Error(diff)
				}
				if n := takeAnswers(t, l); n != 0 {
					t.Errorf("%d answers after they were taken", n)
				}
				if err := finish(t.Context(), l); err != nil {
					t.Fatal(err)
				}
				if err := w.answer(n.Service, id); fault.KindOf(err) != fault.Conflict {
					t.Errorf("an answer after the end: %v", err)
				}
				if err := w.answer(n.Service, "Interruptions-77"); fault.KindOf(err) != fault.NotFound {
					t.Errorf("an answer to nothing: %v", err)
				}
			})
		})
	}
}

// An answer that comes before Wait is not lost, even if another question is open.
func TestAnswerBeforeWait(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		claimed := make(leases, 10)
		n := w.node("a", claimed.run)
		task := w.create(n.Service, tasks.New{})
		l := claimed.next(t)
		first, b := ask(t, l)
		if err := l.Commit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		second, b := ask(t, l)
		if err := l.Commit(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if err := w.answer(n.Service, first); err != nil {
			t.Fatal(err)
		}
		if got := w.get(task.ID); got.State != octopus.TaskExecuting || got.Waiting || over(t.Context(), l) {
			t.Errorf("an answer takes the task from its owner: %+v", got)
		}
		if err := l.Wait(t.Context(), false, tasks.Batch{}); err != nil {
			t.Fatal(err)
		}
		l = claimed.next(t) // at once, for the first answer
		if n := takeAnswers(t, l); n != 1 {
			t.Errorf("%d answers", n)
		}
		if err := l.Wait(t.Context(), false, tasks.Batch{}); err != nil {
			t.Fatal(err)
		}
		if got := w.get(task.ID); !got.Waiting {
			t.Error("it does not wait for the second answer")
		}
		if err := w.answer(n.Service, second); err != nil {
			t.Fatal(err)
		}
		if n := takeAnswers(t, claimed.next(t)); n != 1 {
			t.Errorf("%d answers", n)
		}
	})
}

// Answers and Wait at the same time, many times over: no answer is ever lost.
func TestAnswerRacesWait(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		const rounds = 25
		answered := atomic.Int64{}
		asked := make(chan string, 1)
		n := w.node("a", func(ctx context.Context, l *tasks.Lease) error {
			facts, err := l.Facts(ctx)
			if err != nil {
				return err
			}
			bodies, ids, err := l.Answers(ctx)
			if err != nil {
				return err
			}
			answered.Add(int64(len(ids)))
			b := tasks.Batch{Also: func(ctx context.Context, tx *db.Tx) error { return tasks.TakeAnswers(ctx, tx, ids) }}
			for _, body := range bodies {
				b.Facts = append(b.Facts, body)
			}
			if len(facts)+len(bodies) >= 2*rounds {
				return l.Finish(ctx, octopus.TaskSuccess, "", b)
			}
			if len(facts) == 0 || len(bodies) > 0 {
				id, err := l.NextInterruption(ctx)
				if err != nil {
					return err
				}
				b.Facts = append(b.Facts, "ask "+id)
				b.Interruptions = []tasks.Interruption{{ID: id, Kind: octopus.InterruptionManual}}
				if err := l.Commit(ctx, b); err != nil {
					return err
				}
				asked <- id
				b = tasks.Batch{}
			}
			return l.Wait(ctx, false, b)
		})
		task := w.create(n.Service, tasks.New{})
		for range rounds {
			if err := w.answer(n.Service, <-asked); err != nil {
				t.Fatal(err)
			}
		}
		w.awaitState(task.ID, octopus.TaskSuccess)
		if answered.Load() != rounds {
			t.Errorf("%d answers of %d", answered.Load(), rounds)
		}
	})
}

func TestCancelWaiting(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		claimed := make(leases, 10)
		n := w.node("a", claimed.run)
		w.exec(`UPDATE node_setting SET capacity = 1`)
		task := w.create(n.Service, tasks.New{Tag: "tag"})
		l := claimed.next(t)
		id, b := ask(t, l)
		if err := l.Wait(t.Context(), true, b); err != nil {
			t.Fatal(err)
		}
		w.create(n.Service, tasks.New{})
		claimed.next(t) // the only slot is taken
		if got := w.cancel(n.Service, task.ID); got.State != octopus.TaskCancelling || got.Waiting {
			t.Errorf("%+v", got)
		}
		if err := w.answer(n.Service, id); fault.KindOf(err) != fault.Conflict {
			t.Errorf("an answer to a canceled task: %v", err)
		}
		l = claimed.next(t) // ending it takes no slot
		select {
		case <-l.Canceled:
		default:
			t.Error("its runner does not know that it is canceled")
		}
		if l.ID != task.ID || w.count(`SELECT count(*) FROM slot`) != 1 {
			t.Errorf("%s, with %d slots taken", l.ID, w.count(`SELECT count(*) FROM slot`))
		}
		if err := l.Finish(t.Context(), octopus.TaskCanceled, "", tasks.Batch{}); err != nil {
			t.Fatal(err)
		}
		if n := w.count(`SELECT (SELECT count(*) FROM interruption WHERE pending = 1) + (SELECT count(*) FROM tag_holder)`); n != 0 {
			t.Errorf("%d questions and tags are left", n)
		}
	})
}

// A task that is canceled while its runner begins to wait does not wait.
func TestWaitWhileCancelling(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		claimed := make(leases, 10)
		n := w.node("a", claimed.run)
		task := w.create(n.Service, tasks.New{})
		l := claimed.next(t)
		_, b := ask(t, l)
		w.cancel(n.Service, task.ID)
		if err := l.Wait(t.Context(), false, b); err != nil {
			t.Fatal(err)
		}
		l = claimed.next(t)
		<-l.Canceled
	})
}

// A node that stops in good order hands its tasks on: with slot and tag, at once,
// and however often that happens.
func TestHandover(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		claimed := make(leases, 10)
		a := w.node("a", claimed.run)
		task := w.create(a.Service, tasks.New{Tag: "tag"})
		l := claimed.next(t)
		if err := l.Commit(t.Context(), tasks.Batch{Facts: []any{"one"}, Lines: []tasks.Line{{Text: "one"}}, Cursors: []tasks.Cursor{{Unit: "u", Seq: 5, Parser: []byte(`{"a":1}`)}}}); err != nil {
			t.Fatal(err)
		}
		for i := range 6 {
			a.stop()
			if n := w.count(`SELECT (SELECT count(*) FROM slot WHERE task = ?) + (SELECT count(*) FROM tag_holder WHERE task = ?)`, task.ID, task.ID); n != 2 {
				t.Fatalf("it is handed on with %d of slot and tag", n)
			}
			if got := w.get(task.ID); got.State != octopus.TaskExecuting {
				t.Fatalf("%+v", got)
			}
			name := fmt.Sprint("node-", i)
			a = w.node(name, claimed.run)
			l = claimed.next(t)
			if l.Epoch() != int64(i)+2 || l.Node != name {
				t.Errorf("epoch %d on node %s", l.Epoch(), l.Node)
			}
		}
		c, err := l.Cursor(t.Context(), "u")
		if err != nil || c.Seq != 5 || string(c.Parser) != `{"a":1}` {
			t.Errorf("%+v, %v", c, err)
		}
		all, err := l.Cursors(t.Context())
		if diff := cmp.Diff([]tasks.Cursor{c}, all); diff != "" || err != nil {
			t.Errorf("%s, %v", diff, err)
		}
		if c, err = l.Cursor(t.Context(), "other"); err != nil || c.Seq != 0 || len(c.Parser) != 0 {
			t.Errorf("%+v, %v", c, err)
		}
		if err := l.Finish(t.Context(), octopus.TaskSuccess, "", tasks.Batch{Facts: []any{"two"}, Lines: []tasks.Line{{Text: "two"}}}); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"one", "two"}, w.journal(task.ID)); diff != "" {
			t.Error(diff)
		}
		if diff := cmp.Diff([]string{"one", "two"}, w.log(a.Service, task.ID, 1)); diff != "" {
			t.Error(diff)
		}
		a.stop()
		if n := w.count(`SELECT count(*) FROM node`); n != 0 {
			t.Errorf("%d nodes are left", n)
		}
	})
}

// kill makes a task's owner a dead one, as if its process had been killed.
func (w *world) kill(id string) {
	w.t.Helper()
	w.exec(`UPDATE task SET owner = 'dead' WHERE id = ?`, id)
}

// A task whose owners keep dying before anything new is known is parked, not run
// for ever; any progress counts.
func TestParking(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		claimed := make(leases, 10)
		n := w.node("a", claimed.run)
		task := w.create(n.Service, tasks.New{Tag: "tag"})
		claimed.next(t)
		for i := range 3 {
			w.kill(task.ID)
			if l := claimed.next(t); l.Epoch() != int64(i)+2 {
				t.Fatalf("epoch %d", l.Epoch())
			}
		}
		w.kill(task.ID)
		got := w.awaitState(task.ID, octopus.TaskFailed)
		if !strings.Contains(got.Error, "stopped 4 times") {
			t.Errorf("%q", got.Error)
		}
		await(t, "its end is told", func() bool { return len(w.ends()) > 0 })
		if diff := cmp.Diff([]string{task.ID + " Failed"}, w.ends()); diff != "" {
			t.Error(diff)
		}
		if n := w.count(`SELECT (SELECT count(*) FROM slot) + (SELECT count(*) FROM tag_holder)`); n != 0 {
			t.Errorf("%d slots and tags are left", n)
		}
	})
}

func TestProgressForbidsParking(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		claimed := make(leases, 10)
		n := w.node("a", claimed.run)
		task := w.create(n.Service, tasks.New{})
		claimed.next(t)
		for i := range 10 {
			b := tasks.Batch{Facts: []any{i}}
			if i < 5 {
				b = tasks.Batch{Cursors: []tasks.Cursor{{Unit: "u", Seq: int64(i), Parser: []byte(`{}`)}}}
			}
			w.kill(task.ID)
			if err := claimed.next(t).Commit(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		if got := w.get(task.ID); got.State != octopus.TaskExecuting {
			t.Errorf("%+v", got)
		}
	})
}

// A script that says nothing for hours is no poison: an owner that had the task for
// a while did not die of it.
func TestTimeForbidsParking(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		claimed := make(leases, 10)
		n := w.node("a", claimed.run, func(c *tasks.Config) { c.Timing.Steady = time.Millisecond })
		task := w.create(n.Service, tasks.New{})
		claimed.next(t)
		for range 6 {
			w.kill(task.ID)
			claimed.next(t)
			await(t, "its owner is steady", func() bool { return w.count(`SELECT resumes FROM task WHERE id = ?`, task.ID) == 0 })
		}
		if got := w.get(task.ID); got.State != octopus.TaskExecuting {
			t.Errorf("%+v", got)
		}
	})
}

// A run that ends with an error is tried again by the same owner, and told once;
// nothing is parked for a database that was away, or a store.
func TestRunFails(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		var runs atomic.Int64
		n := w.node("a", func(ctx context.Context, l *tasks.Lease) error {
			if _, err := l.Facts(ctx); err != nil {
				return err
			}
			switch runs.Add(1) {
			case 8:
				return finish(ctx, l)
			case 7:
				return nil // without having ended it
			default:
				return errors.New("the store is away")
			}
		}, func(c *tasks.Config) { c.Timing.Retry = time.Millisecond })
		task := w.create(n.Service, tasks.New{})
		w.awaitState(task.ID, octopus.TaskSuccess)
		lines := w.log(n.Service, task.ID, 1)
		if len(lines) != 1 || !strings.Contains(lines[0], "tries again") {
			t.Errorf("lines %q", lines)
		}
		await(t, "its end is told", func() bool { return len(w.ends()) > 0 })
		if diff := cmp.Diff([]string{task.ID + " Success"}, w.ends()); diff != "" {
			t.Error(diff)
		}
		if got := w.count(`SELECT epoch FROM task`); got != 1 {
			t.Errorf("it had %d owners", got)
		}
	})
}

// A task that this very process owns and does not run, since it never learnt that
// its claim was committed or its release was not.
func TestOwnedUnawares(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		claimed := make(leases, 10)
		n := w.node("a", claimed.run)
		task := w.create(n.Service, tasks.New{QueueTime: time.Now().Add(time.Hour)})
		w.exec(`UPDATE task SET state = 'Executing', runnable = 0, owner = ?, epoch = 4 WHERE id = ?`, n.Incarnation(), task.ID)
		if l := claimed.next(t); l.Epoch() != 5 || over(t.Context(), l) {
			t.Errorf("epoch %d", l.Epoch())
		}
	})
}

// Follow wakes readers of one task, and only until they stop.
func TestFollow(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		n, l := w.claim()
		woken, stop := n.Follow(l.ID)
		second, stop2 := n.Follow(l.ID)
		other, stop3 := n.Follow("ServerTasks-99")
		defer stop3()
		say := func() {
			t.Helper()
			if err := l.Commit(t.Context(), tasks.Batch{Lines: []tasks.Line{{Text: "x"}}}); err != nil {
				t.Fatal(err)
			}
		}
		empty := func(c <-chan struct{}) bool {
			select {
			case <-c:
				return false
			default:
				return true
			}
		}
		say()
		say()
		<-woken
		if !empty(woken) {
			t.Error("two commits that nobody looked at woke twice")
		}
		<-second
		stop2()
		if err := l.Commit(t.Context(), tasks.Batch{Facts: []any{"x"}}); err != nil {
			t.Fatal(err)
		}
		if !empty(woken) {
			t.Error("a fact without lines woke a reader of the log")
		}
		say()
		if empty(woken) || !empty(second) || !empty(other) {
			t.Error("the wrong readers were woken")
		}
		stop()
		say()
		if !empty(woken) {
			t.Error("a reader that stopped was woken")
		}
	})
}

// An owner that stands still in the middle of a transaction keeps its own task's row
// locked; the looks of others go on without it.
func TestLockedRow(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Open(t, db.Postgres))
	claimed := make(leases, 10)
	n := w.node("a", claimed.run, func(c *tasks.Config) { c.Log, c.Timing.Cancel = nil, time.Second })
	stuck := w.create(n.Service, tasks.New{})
	claimed.next(t)
	w.cancel(n.Service, stuck.ID)
	locked, release := make(chan struct{}), make(chan struct{})
	held := make(chan error, 1)
	lock := sync.OnceFunc(func() { close(locked) })
	go func() {
		held <- w.d.WriteEngine(t.Context(), func(tx *db.Tx) error {
			_, err := tx.Exec(t.Context(), `UPDATE task SET updated_time = 0 WHERE id = ?`, stuck.ID)
			lock()
			<-release
			return err
		})
	}()
	<-locked
	<-time.After(1500 * time.Millisecond) // it is overdue, and cannot be ended
	w.create(n.Service, tasks.New{})
	claimed.next(t)
	close(release)
	// A holder that is locked out itself had been waited for.
	if err := <-held; err != nil {
		t.Errorf("the next task was claimed only when the lock was broken: %v", err)
	}
	w.awaitState(stuck.ID, octopus.TaskCanceled)
}

// A task that is canceled through a serializable transaction, while its owner writes
// to it without a pause: on PostgreSQL once more between that transaction's snapshot
// and its look at the task, each time that the owner can.
func TestCancelInTheStorm(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		var commits atomic.Int64
		n := w.node("a", func(ctx context.Context, l *tasks.Lease) error {
			if _, err := l.Facts(ctx); err != nil {
				return err
			}
			for {
				select {
				case <-l.Canceled:
					return l.Finish(ctx, octopus.TaskCanceled, "", tasks.Batch{})
				default:
				}
				if err := l.Commit(ctx, tasks.Batch{Lines: []tasks.Line{{Text: "x"}}, Facts: []any{"x"}}); err != nil {
					return err
				}
				commits.Add(1)
			}
		})
		task := w.create(n.Service, tasks.New{})
		await(t, "it writes", func() bool { return commits.Load() > 20 })
		outrun := 0
		err := w.d.Write(t.Context(), func(tx *db.Tx) error {
			if _, err := tasks.Get(t.Context(), tx, task.ID); err != nil {
				return err
			}
			// The second commit from now on began after the snapshot.
			for seen, until := commits.Load(), time.Now().Add(time.Second); time.Now().Before(until); <-time.After(time.Millisecond) {
				if commits.Load() > seen+1 {
					outrun++
					break
				}
			}
			_, err := n.Cancel(t.Context(), tx, task.ID)
			return err
		})
		if err != nil {
			t.Error(err)
		}
		if w.d.Dialect() == db.Postgres && outrun == 0 {
			t.Error("nothing was in its way")
		}
		w.awaitState(task.ID, octopus.TaskCanceled)
	})
}
