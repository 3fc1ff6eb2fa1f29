package tasks_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/tasks"
)

// The example of the product's documentation: readers run together, a writer waits
// for all that came before it, and everything that comes later waits for it.
func TestPoint06MachineLock(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		_, l := w.claim()
		lock := func(unit string, shared, want bool) {
			t.Helper()
			held, err := l.Lock(t.Context(), "Machines-1", unit, shared)
			if err != nil || held != want {
				t.Errorf("%s holds it: %t, %v", unit, held, err)
			}
		}
		lock("r1", true, true)
		lock("r2", true, true)
		lock("w1", false, false)
		lock("r3", true, false)
		lock("w1", false, false) // asking again is no second place
		if n := w.count(`SELECT count(*) FROM machine_lock`); n != 4 {
			t.Errorf("%d are in line", n)
		}
		ahead := func(unit string, want ...string) {
			t.Helper()
			w.read(func(ctx context.Context, tx *db.Tx) error {
				found, err := tasks.Ahead(ctx, tx, "Machines-1", l.ID, unit, 10)
				var got []string
				for _, h := range found {
					if h.Task != l.ID || h.Ended {
						t.Errorf("%+v is in the way of %s", h, unit)
					}
					got = append(got, h.Unit)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("in the way of %s: %s", unit, diff)
				}
				return err
			})
		}
		ahead("r2")
		ahead("w1", "r1", "r2")
		ahead("r3", "w1")
		ahead("nobody")
		unlock := func(unit string) {
			t.Helper()
			if err := l.Commit(t.Context(), tasks.Batch{Unlock: []string{unit}}); err != nil {
				t.Fatal(err)
			}
		}
		unlock("r1")
		lock("w1", false, false)
		unlock("r2")
		lock("w1", false, true)
		lock("r3", true, false)
		unlock("w1")
		lock("r3", true, true)
		lock("r4", true, true)
	})
}

// Any order of asking and releasing, against a queue in memory.
func TestMachineLockModel(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Open(t, db.SQLite))
	_, l := w.claim()
	round := 0
	rapid.Check(t, func(t *rapid.T) {
		type place struct {
			unit   string
			shared bool
		}
		round++
		machine := fmt.Sprint("Machines-", round)
		var line []place
		holds := func(i int) bool {
			for _, p := range line[:i] {
				if !p.shared || !line[i].shared {
					return false
				}
			}
			return true
		}
		for n := range rapid.IntRange(1, 12).Draw(t, "steps") {
			if len(line) > 0 && rapid.Bool().Draw(t, "release") {
				i := rapid.IntRange(0, len(line)-1).Draw(t, "who")
				if err := l.Commit(context.Background(), tasks.Batch{Unlock: []string{line[i].unit}}); err != nil {
					t.Fatal(err)
				}
				line = slices.Delete(line, i, i+1)
			} else {
				line = append(line, place{fmt.Sprintf("%d.%d", round, n), rapid.Bool().Draw(t, "shared")})
			}
			for i, p := range line {
				held, err := l.Lock(context.Background(), machine, p.unit, p.shared)
				if err != nil {
					t.Fatal(err)
				}
				if held != holds(i) {
					t.Fatalf("%v: %v holds: %t", line, p, held)
				}
			}
		}
		for _, p := range line {
			if err := l.Commit(context.Background(), tasks.Batch{Unlock: []string{p.unit}}); err != nil {
				t.Fatal(err)
			}
		}
	})
}

// Many tasks ask for several machines at the same time, in any order: an exclusive
// holder is alone, and nobody waits for ever.
func TestMachineLockRace(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		const many = 6
		claimed := make(leases, many)
		n := w.node("a", claimed.run)
		w.exec(`UPDATE node_setting SET capacity = 100`)
		for range many {
			w.create(n.Service, tasks.New{})
		}
		var mu sync.Mutex
		holders := map[string]int{}
		var wg sync.WaitGroup
		for i := range many {
			l := claimed.next(t)
			for k := range 2 {
				machine := fmt.Sprint("Machines-", (i+k)%2)
				wg.Go(func() {
					unit := "u" + machine
					for {
						held, err := l.Lock(t.Context(), machine, unit, false)
						if err != nil {
							t.Error(err)
							return
						}
						if held {
							break
						}
					}
					mu.Lock()
					if holders[machine]++; holders[machine] > 1 {
						t.Errorf("%d hold %s", holders[machine], machine)
					}
					mu.Unlock()
					mu.Lock()
					holders[machine]--
					mu.Unlock()
					if err := l.Commit(t.Context(), tasks.Batch{Unlock: []string{unit}}); err != nil {
						t.Error(err)
					}
				})
			}
		}
		wg.Wait()
	})
}

func TestTickets(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		n, l := w.claim()
		commit := func(b tasks.Batch) {
			t.Helper()
			if err := l.Commit(t.Context(), b); err != nil {
				t.Fatal(err)
			}
		}
		due := func(want ...string) []tasks.Ticket {
			t.Helper()
			found, err := n.DueTickets(t.Context(), 10)
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, k := range found {
				ids = append(ids, k.ID+" "+string(k.State))
			}
			if diff := cmp.Diff(want, ids); diff != "" {
				t.Error(diff)
			}
			return found
		}
		commit(tasks.Batch{Tickets: []tasks.Ticket{{ID: "a", Unit: "u1", Agent: "x", State: tasks.TicketOpen}, {ID: "b", Unit: "u2", Agent: "x", State: tasks.TicketOpen}}})
		due()
		later := w.get(l.ID).QueueTime.AddDate(1, 0, 0).UnixMicro()
		commit(tasks.Batch{Tickets: []tasks.Ticket{{ID: "a", Unit: "u1", Agent: "x", State: tasks.TicketComplete}, {ID: "b", Unit: "u2", Agent: "x", State: tasks.TicketComplete, NotBefore: later}}})
		found := due("a complete")
		if err := n.PostponeTicket(t.Context(), "a", later); err != nil {
			t.Fatal(err)
		}
		due()
		if err := n.PostponeTicket(t.Context(), "a", 5); err != nil {
			t.Fatal(err)
		}
		due("a complete")
		if err := n.CloseTickets(t.Context(), found); err != nil {
			t.Fatal(err)
		}
		due()
		// A task that ends well leaves what is to complete, and cancels the rest.
		commit(tasks.Batch{Tickets: []tasks.Ticket{{ID: "c", Unit: "u3", Agent: "x", State: tasks.TicketOpen}}})
		if err := finish(t.Context(), l); err != nil {
			t.Fatal(err)
		}
		due("c cancel")
		if n := w.count(`SELECT count(*) FROM ticket`); n != 2 {
			t.Errorf("%d tickets", n)
		}
	})
}
