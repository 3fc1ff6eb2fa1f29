package tasks_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

func TestOrder(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		var mu sync.Mutex
		var order []string
		run := func(ctx context.Context, l *tasks.Lease) error {
			mu.Lock()
			order = append(order, l.Description)
			mu.Unlock()
			return finish(ctx, l)
		}
		s := w.open("a", run)
		w.exec(`UPDATE node_setting SET capacity = 1`)
		now := time.Now()
		w.create(s, tasks.New{Description: "future", QueueTime: now.Add(time.Hour), Priority: true})
		w.create(s, tasks.New{Description: "third", QueueTime: now.Add(-2 * time.Second)})
		w.create(s, tasks.New{Description: "fourth", QueueTime: now.Add(-2 * time.Second)})
		w.create(s, tasks.New{Description: "second", QueueTime: now.Add(-time.Minute)})
		w.create(s, tasks.New{Description: "first", QueueTime: now.Add(-time.Second), Priority: true})
		soon := w.create(s, tasks.New{Description: "last", QueueTime: now.Add(300 * time.Millisecond)})
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		n := w.node("a", run)
		w.awaitState(soon.ID, octopus.TaskSuccess)
		n.stop()
		if diff := cmp.Diff([]string{"first", "second", "third", "fourth", "last"}, order); diff != "" {
			t.Error(diff)
		}
	})
}

func TestPoint06Capacity(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		claimed := make(leases, 10)
		n := w.node("a", claimed.run)
		w.exec(`UPDATE node_setting SET capacity = 2`)
		var all []*tasks.Task
		for i := range 5 {
			all = append(all, w.create(n.Service, tasks.New{Description: fmt.Sprint(i)}))
		}
		first, second := claimed.next(t), claimed.next(t)
		w.read(func(ctx context.Context, tx *db.Tx) error {
			reason, ahead, err := n.WaitReason(ctx, tx, all[2], []tasks.Visible{{Space: "Spaces-1"}})
			if !strings.HasPrefix(reason, "Waiting for a free slot") || len(ahead) != 2 {
				t.Errorf("it waits since %q for %v", reason, ahead)
			}
			return err
		})
		if w.count(`SELECT count(*) FROM slot`) != 2 {
			t.Error("other than two slots are taken")
		}
		if err := finish(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		third := claimed.next(t)
		if third.ID != all[2].ID {
			t.Errorf("%s came third", third.ID)
		}
		w.exec(`UPDATE node_setting SET draining = 1`)
		if err := finish(t.Context(), second); err != nil {
			t.Fatal(err)
		}
		w.exec(`UPDATE node_setting SET draining = 0, capacity = 3`)
		claimed.next(t)
		claimed.next(t)
		claimed.none(t)
		if w.count(`SELECT count(*) FROM slot`) != 3 {
			t.Error("other than three slots are taken")
		}
	})
}

// Two nodes on one database: none of two hundred tasks runs twice, those of a tag
// run one after another in the order in which they were queued, and no node runs
// more than it may.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		const total, tags, capacity = 200, 7, 5
		var mu sync.Mutex
		running := map[string]int{} // by tag and by node
		ran := map[string]int{}
		last := map[string]int{}
		problem := func(format string, args ...any) { t.Errorf(format, args...) }
		run := func(node string) func(ctx context.Context, l *tasks.Lease) error {
			return func(ctx context.Context, l *tasks.Lease) error {
				mu.Lock()
				ran[l.ID]++
				running[l.Tag]++
				running[node]++
				if l.Tag != "" {
					if running[l.Tag] > 1 {
						problem("two tasks of tag %s run at the same time", l.Tag)
					}
					var number int
					_, _ = fmt.Sscan(l.Description, &number)
					if number < last[l.Tag] {
						problem("task %d of tag %s comes after task %d", number, l.Tag, last[l.Tag])
					}
					last[l.Tag] = number
				}
				if running[node] > capacity {
					problem("node %s runs %d tasks", node, running[node])
				}
				mu.Unlock()
				if _, err := l.Facts(ctx); err != nil {
					return err
				}
				err := l.Commit(ctx, tasks.Batch{Facts: []any{"ran"}, Lines: []tasks.Line{{Text: "hello"}}})
				mu.Lock()
				running[l.Tag]--
				running[node]--
				mu.Unlock()
				if err != nil {
					return err
				}
				return finish(ctx, l)
			}
		}
		a := w.node("a", run("a"))
		b := w.node("b", run("b"))
		var ids []string
		for i := range total {
			n := tasks.New{Description: fmt.Sprint(i)}
			if i%10 != 0 {
				n.Tag = fmt.Sprint("tag-", i%tags)
			}
			s := a
			if i%2 == 1 {
				s = b
			}
			ids = append(ids, w.create(s.Service, n).ID)
		}
		await(t, "all tasks have ended", func() bool {
			return w.count(`SELECT count(*) FROM task WHERE state = 'Success'`) == total
		})
		a.stop()
		b.stop()
		for _, id := range ids {
			if ran[id] != 1 {
				t.Errorf("%s ran %d times", id, ran[id])
			}
			if got := w.journal(id); len(got) != 1 {
				t.Errorf("%s has facts %q", id, got)
			}
		}
		ends := w.ends()
		slices.Sort(ends)
		if n := len(slices.Compact(ends)); n != total || len(w.ends()) != total {
			t.Errorf("%d ends were told, of %d tasks", len(w.ends()), n)
		}
		if n := w.count(`SELECT (SELECT count(*) FROM slot) + (SELECT count(*) FROM tag_holder)`); n != 0 {
			t.Errorf("%d slots and tags are left", n)
		}
	})
}

func TestPoint06TagWaits(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		claimed := make(leases, 10)
		n := w.node("a", claimed.run)
		first := w.create(n.Service, tasks.New{Tag: "p/e"})
		holder := claimed.next(t)
		second := w.create(n.Service, tasks.New{Tag: "p/e"})
		w.create(n.Service, tasks.New{Tag: "p/f"})
		if l := claimed.next(t); l.Tag != "p/f" {
			t.Errorf("%s of tag %s was claimed", l.ID, l.Tag)
		}
		w.read(func(ctx context.Context, tx *db.Tx) error {
			reason, ahead, err := n.WaitReason(ctx, tx, second, []tasks.Visible{{Space: "Spaces-1"}})
			if reason != "Waiting for "+first.ID+", which works on the same (p/e)." || !slices.Equal(ahead, []string{first.ID}) {
				t.Errorf("it waits since %q for %v", reason, ahead)
			}
			// Who may not see the other one is told no more than that there is one.
			elsewhere := []tasks.Visible{{Space: "Spaces-1", Grants: []resource.Grant{{Projects: []string{"Projects-9"}}}}}
			hidden, none, err2 := n.WaitReason(ctx, tx, second, elsewhere)
			if hidden != "Waiting for another task, which works on the same (p/e)." || len(none) != 0 {
				t.Errorf("it waits since %q for %v", hidden, none)
			}
			return errors.Join(err, err2)
		})
		if err := finish(t.Context(), holder); err != nil {
			t.Fatal(err)
		}
		if l := claimed.next(t); l.ID != second.ID {
			t.Errorf("%s was claimed", l.ID)
		}
	})
}

func TestStoppedSpace(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		claimed := make(leases, 10)
		n := w.node("a", claimed.run)
		w.exec(`INSERT INTO document_index (kind, field, space_id, value, id) VALUES ('spaces', 'TaskQueueStopped', '', 'true', 'Spaces-2')`)
		waits := w.create(n.Service, tasks.New{Space: "Spaces-2"})
		runs := w.create(n.Service, tasks.New{Space: "Spaces-1"})
		if l := claimed.next(t); l.ID != runs.ID {
			t.Errorf("%s was claimed", l.ID)
		}
		w.read(func(ctx context.Context, tx *db.Tx) error {
			reason, _, err := n.WaitReason(ctx, tx, waits, []tasks.Visible{{Space: "Spaces-1"}})
			if reason != "The task queue of the space is stopped." {
				t.Errorf("it waits since %q", reason)
			}
			return err
		})
		claimed.none(t)
		w.exec(`UPDATE document_index SET value = 'false' WHERE field = 'TaskQueueStopped'`)
		if l := claimed.next(t); l.ID != waits.ID {
			t.Errorf("%s was claimed", l.ID)
		}
	})
}

// A task expires in time whatever gate it waits for: a slot, a tag, its space.
func TestExpiry(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		claimed := make(leases, 10)
		n := w.node("a", claimed.run)
		w.exec(`UPDATE node_setting SET capacity = 2`)
		w.exec(`INSERT INTO document_index (kind, field, space_id, value, id) VALUES ('spaces', 'TaskQueueStopped', '', 'true', 'Spaces-2')`)
		w.create(n.Service, tasks.New{Tag: "x"})
		claimed.next(t)
		soon := time.Now().Add(200 * time.Millisecond)
		tag := w.create(n.Service, tasks.New{Tag: "x", Expiry: soon})
		space := w.create(n.Service, tasks.New{Space: "Spaces-2", Expiry: soon})
		w.create(n.Service, tasks.New{})
		claimed.next(t)
		slot := w.create(n.Service, tasks.New{Expiry: soon})
		never := w.create(n.Service, tasks.New{Expiry: soon.Add(time.Hour)})
		for _, task := range []*tasks.Task{tag, space, slot} {
			ended := w.awaitState(task.ID, octopus.TaskTimedOut)
			if ended.Completed.IsZero() || !strings.Contains(ended.Error, "expired") || !ended.Started.IsZero() {
				t.Errorf("%+v", ended)
			}
		}
		claimed.none(t)
		if state := w.get(never.ID).State; state != octopus.TaskQueued {
			t.Errorf("a task with time is %s", state)
		}
		await(t, "all ends are told", func() bool { return len(w.ends()) >= 3 })
		ends := w.ends()
		slices.Sort(ends)
		want := []string{tag.ID + " TimedOut", space.ID + " TimedOut", slot.ID + " TimedOut"}
		slices.Sort(want)
		if diff := cmp.Diff(want, ends); diff != "" {
			t.Error(diff)
		}
	})
}

func TestCancelQueued(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		s := w.open("a", finish)
		task := w.create(s, tasks.New{Tag: "x"})
		got := w.cancel(s, task.ID)
		if got.State != octopus.TaskCanceled || got.Completed.IsZero() {
			t.Errorf("%+v", got)
		}
		if diff := cmp.Diff([]string{task.ID + " Canceled"}, w.ends()); diff != "" {
			t.Error(diff)
		}
		err := w.d.WriteEngine(t.Context(), func(tx *db.Tx) error {
			_, err := s.Cancel(t.Context(), tx, task.ID)
			return err
		})
		if fault.KindOf(err) != fault.Conflict {
			t.Errorf("cancelling it again: %v", err)
		}
		err = w.d.WriteEngine(t.Context(), func(tx *db.Tx) error {
			_, err := s.Cancel(t.Context(), tx, "ServerTasks-99")
			return err
		})
		if fault.KindOf(err) != fault.NotFound {
			t.Errorf("cancelling what is not there: %v", err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
}

// A cancellation that another node writes reaches the runner.
func TestCancelExecuting(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		b := w.open("b", finish)
		w.node("a", func(ctx context.Context, l *tasks.Lease) error {
			select {
			case <-l.Canceled:
				return l.Finish(ctx, octopus.TaskCanceled, "", tasks.Batch{})
			case <-ctx.Done():
				return ctx.Err()
			}
		})
		task := w.create(b, tasks.New{})
		w.awaitState(task.ID, octopus.TaskExecuting)
		if got := w.cancel(b, task.ID); got.State != octopus.TaskCancelling || got.CancelAt.IsZero() {
			t.Errorf("%+v", got)
		}
		w.awaitState(task.ID, octopus.TaskCanceled)
		await(t, "its end is told", func() bool { return len(w.ends()) > 0 })
		if diff := cmp.Diff([]string{task.ID + " Canceled"}, w.ends()); diff != "" {
			t.Error(diff)
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
}

// An owner that does not heed a cancellation loses the task; what it may have
// left running goes to the janitor, and keeps its machine.
func TestCancelBound(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		gone := make(chan error, 1)
		n := w.node("a", func(ctx context.Context, l *tasks.Lease) error {
			if _, err := l.Facts(ctx); err != nil {
				return err
			}
			err := l.Commit(ctx, tasks.Batch{Tickets: []tasks.Ticket{
				{ID: "t1", Unit: "u1", Agent: "Machines-1", State: tasks.TicketOpen, Place: "web-1"}, {ID: "t2", Unit: "u2", Agent: "builtin", State: tasks.TicketComplete},
			}})
			for _, unit := range []string{"u1", "u2", "u3"} {
				_, lockErr := l.Lock(ctx, "Machines-"+unit, unit, false)
				err = errors.Join(err, lockErr)
			}
			<-ctx.Done()
			gone <- errors.Join(err, l.Commit(context.WithoutCancel(ctx), tasks.Batch{Facts: []any{"late"}}))
			return ctx.Err()
		}, func(c *tasks.Config) { c.Timing.Cancel = 300 * time.Millisecond })
		task := w.create(n.Service, tasks.New{Tag: "x"})
		await(t, "it has its locks", func() bool { return w.count(`SELECT count(*) FROM machine_lock`) == 3 })
		w.cancel(n.Service, task.ID)
		got := w.awaitState(task.ID, octopus.TaskCanceled)
		if want := "The task was canceled. Scripts that it started may still run on web-1."; got.Error != want {
			t.Errorf("its error is %q", got.Error)
		}
		if diff := cmp.Diff([]string{"Scripts may still run on web-1. They are ended as soon as their agents answer; until then their targets take no other script."}, w.log(n.Service, task.ID, 1)); diff != "" {
			t.Error(diff)
		}
		if err := <-gone; !errors.Is(err, tasks.ErrLost) {
			t.Errorf("its old owner: %v", err)
		}
		if facts := w.journal(task.ID); len(facts) != 0 {
			t.Errorf("facts %q were written after its end", facts)
		}
		due, err := n.DueTickets(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		want := []tasks.Ticket{
			{ID: "t1", Task: task.ID, Unit: "u1", Agent: "Machines-1", State: tasks.TicketCancel, Place: "web-1", Locked: true},
			{ID: "t2", Task: task.ID, Unit: "u2", Agent: "builtin", State: tasks.TicketComplete, Locked: true},
		}
		if diff := cmp.Diff(want, due); diff != "" {
			t.Error(diff)
		}
		if held := w.count(`SELECT count(*) FROM machine_lock WHERE unit IN ('u1', 'u2')`); held != 2 {
			t.Error("a machine on which a script may run is free")
		}
		if held := w.count(`SELECT count(*) FROM machine_lock WHERE unit = 'u3'`); held != 0 {
			t.Error("a machine on which nothing runs is held")
		}
		if some, err := n.DueTickets(t.Context(), 10, "Machines-1", "other"); err != nil || len(some) != 1 || some[0].ID != "t2" {
			t.Errorf("without those of one agent: %v, %v", some, err)
		}
		if n := w.count(`SELECT (SELECT count(*) FROM slot) + (SELECT count(*) FROM tag_holder)`); n != 0 {
			t.Errorf("%d slots and tags are left", n)
		}
		if err := n.CloseTickets(t.Context(), due); err != nil {
			t.Fatal(err)
		}
		if n := w.count(`SELECT (SELECT count(*) FROM machine_lock) + (SELECT count(*) FROM ticket)`); n != 0 {
			t.Errorf("%d locks and tickets are left once the script has ended", n)
		}
	})
}

// With the usual times a cancellation is over within CancelBound.
func TestUsualTimesKeepTheBound(t *testing.T) {
	t.Parallel()
	got := tasks.UsualTiming()
	if got.Cancel+got.Look > tasks.CancelBound {
		t.Errorf("a task may take %v and %v to end", got.Cancel, got.Look)
	}
	if got.TTL < 2*got.Heartbeat {
		t.Errorf("a heartbeat each %v, and %v to live", got.Heartbeat, got.TTL)
	}
}

func TestUnknownName(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		n := w.node("a", finish)
		task := w.create(n.Service, tasks.New{Name: "Juggle"})
		if got := w.awaitState(task.ID, octopus.TaskFailed); !strings.Contains(got.Error, "Juggle") {
			t.Errorf("%q", got.Error)
		}
	})
}
