package tasks_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// place is a unit's place in the line for a machine.
type place struct {
	machine, task, unit string
	shared              bool
	ticket              bool // a script of it may run
	ended               bool // its task has ended
}

// lockModel is what the lines for machines should be, and the owners who stand in them.
type lockModel struct {
	w       *world
	n       *node
	claimed leases
	owners  []*tasks.Lease // of the tasks that run
	lost    []*tasks.Lease // of owners that were killed
	line    []place
	units   int
}

// holds reports whether the unit at i holds its machine.
func (m *lockModel) holds(i int) bool {
	p := m.line[i]
	return !slices.ContainsFunc(m.line[:i], func(q place) bool { return q.machine == p.machine && (!q.shared || !p.shared) })
}

func (m *lockModel) owner(task string) *tasks.Lease {
	i := slices.IndexFunc(m.owners, func(l *tasks.Lease) bool { return l.ID == task })
	if i < 0 {
		return nil
	}
	return m.owners[i]
}

// rows are the lines as the database has them.
func (m *lockModel) rows(t *rapid.T) (all []string) {
	err := m.w.d.Read(context.Background(), func(tx *db.Tx) error {
		all = nil
		rows, err := tx.Query(context.Background(), `SELECT machine, task, unit, shared FROM machine_lock ORDER BY id`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var p place
			var shared int64
			if err := rows.Scan(&p.machine, &p.task, &p.unit, &shared); err != nil {
				return err
			}
			all = append(all, fmt.Sprint(p.machine, p.task, p.unit, shared == 1))
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// check holds the database to the model: who stands where, who holds what, and who is
// in whose way.
func (m *lockModel) check(t *rapid.T) {
	var want []string
	for _, p := range m.line {
		want = append(want, fmt.Sprint(p.machine, p.task, p.unit, p.shared))
	}
	if diff := cmp.Diff(want, m.rows(t)); diff != "" {
		t.Fatalf("the lines: %s", diff)
	}
	alone := map[string]int{}
	for i, p := range m.line {
		if m.holds(i) && !p.shared {
			alone[p.machine]++
		}
		l := m.owner(p.task)
		if l == nil {
			continue
		}
		held, err := l.Lock(context.Background(), p.machine, p.unit, p.shared)
		if err != nil {
			t.Fatal(err)
		}
		if held != m.holds(i) {
			t.Fatalf("%v: %v holds its machine: %t", m.line, p, held)
		}
		err = m.w.d.Read(context.Background(), func(tx *db.Tx) error {
			ahead, err := tasks.Ahead(context.Background(), tx, p.machine, p.task, p.unit, 100)
			if (len(ahead) == 0) != held {
				t.Fatalf("%v: in the way of %v are %v", m.line, p, ahead)
			}
			for _, h := range ahead {
				if h.Ended != (m.owner(h.Task) == nil) {
					t.Fatalf("%+v, though the task runs: %t", h, !h.Ended)
				}
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for machine, n := range alone {
		if n > 1 {
			t.Fatalf("%d hold %s alone: %v", n, machine, m.line)
		}
	}
}

func (m *lockModel) commit(t *rapid.T, p place, b tasks.Batch) {
	if err := m.owner(p.task).Commit(context.Background(), b); err != nil {
		t.Fatal(err)
	}
}

// do does one thing of those that may happen.
func (m *lockModel) do(t *rapid.T) {
	var live, holding, left []int
	for i, p := range m.line {
		switch {
		case p.ended:
			left = append(left, i)
		case m.holds(i) && !p.ticket:
			live, holding = append(live, i), append(holding, i)
		default:
			live = append(live, i)
		}
	}
	kinds := []string{"ask", "ask", "kill"}
	if len(live) > 0 {
		kinds = append(kinds, "release", "release", "end")
	}
	if len(holding) > 0 {
		kinds = append(kinds, "start", "start")
	}
	if len(left) > 0 {
		kinds = append(kinds, "answer", "answer")
	}
	switch rapid.SampledFrom(kinds).Draw(t, "what") {
	case "ask":
		m.units++
		l := rapid.SampledFrom(m.owners).Draw(t, "task")
		p := place{machine: rapid.SampledFrom([]string{"Machines-1", "Machines-2"}).Draw(t, "machine"), task: l.ID, unit: fmt.Sprint("u", m.units), shared: rapid.Bool().Draw(t, "shared")}
		m.line = append(m.line, p)
		held, err := l.Lock(context.Background(), p.machine, p.unit, p.shared)
		if err != nil || held != m.holds(len(m.line)-1) {
			t.Fatalf("%v: %v holds its machine: %t, %v", m.line, p, held, err)
		}
	case "start": // the script of a unit that holds its machine
		i := rapid.SampledFrom(holding).Draw(t, "unit")
		p := m.line[i]
		m.line[i].ticket = true
		m.commit(t, p, tasks.Batch{Tickets: []tasks.Ticket{{ID: "t" + p.unit, Unit: p.unit, Agent: p.machine, State: tasks.TicketOpen}}})
	case "release": // with a result, or since the unit no longer wants the machine
		i := rapid.SampledFrom(live).Draw(t, "unit")
		p := m.line[i]
		b := tasks.Batch{Unlock: []string{p.unit}}
		if p.ticket {
			b.Tickets = []tasks.Ticket{{ID: "t" + p.unit, Unit: p.unit, Agent: p.machine, State: tasks.TicketComplete}}
		}
		m.line = slices.Delete(m.line, i, i+1)
		m.commit(t, p, b)
		m.commit(t, p, tasks.Batch{Unlock: []string{p.unit}}) // a second time it releases nobody
	case "kill":
		i := rapid.IntRange(0, len(m.owners)-1).Draw(t, "owner")
		m.lost = append(m.lost, m.owners[i])
		m.w.exec(`UPDATE task SET owner = '' WHERE id = ?`, m.owners[i].ID)
		m.owners[i] = m.take()
		old := m.lost[len(m.lost)-1]
		for _, p := range m.line {
			if err := old.Commit(context.Background(), tasks.Batch{Unlock: []string{p.unit}}); !errors.Is(err, tasks.ErrLost) {
				t.Fatalf("an owner that was killed: %v", err)
			}
		}
		if _, err := old.Lock(context.Background(), "Machines-1", "late", false); !errors.Is(err, tasks.ErrLost) {
			t.Fatalf("an owner that was killed asks for a machine: %v", err)
		}
	case "end":
		i := rapid.IntRange(0, len(m.owners)-1).Draw(t, "task")
		id := m.owners[i].ID
		if err := m.owners[i].Finish(context.Background(), octopus.TaskCanceled, "", tasks.Batch{}); err != nil {
			t.Fatal(err)
		}
		m.line = slices.DeleteFunc(m.line, func(p place) bool { return p.task == id && !p.ticket })
		for k := range m.line {
			m.line[k].ended = m.line[k].ended || m.line[k].task == id
		}
		m.w.create(m.n.Service, tasks.New{})
		m.owners[i] = m.take()
	case "answer": // an agent that tells that a script has ended, after the task
		i := rapid.SampledFrom(left).Draw(t, "unit")
		due, err := m.n.DueTickets(context.Background(), 1000)
		if err != nil {
			t.Fatal(err)
		}
		due = slices.DeleteFunc(due, func(k tasks.Ticket) bool { return k.Unit != m.line[i].unit })
		if len(due) != 1 || due[0].State != tasks.TicketCancel || !due[0].Locked {
			t.Fatalf("due of %v are %+v", m.line[i], due)
		}
		m.line = slices.Delete(m.line, i, i+1)
		if err := m.n.CloseTickets(context.Background(), due); err != nil {
			t.Fatal(err)
		}
	}
}

// take waits for the next owner of a task.
func (m *lockModel) take() *tasks.Lease {
	l := m.claimed.next(m.w.t)
	if _, err := l.Facts(context.Background()); err != nil {
		m.w.t.Fatal(err)
	}
	return l
}

// clear ends everything, so that the next walk begins with empty lines.
func (m *lockModel) clear(t *rapid.T) {
	for _, p := range m.line {
		if !p.ended {
			m.commit(t, p, tasks.Batch{Unlock: []string{p.unit}})
		}
	}
	m.w.exec(`DELETE FROM ticket`)
	m.w.exec(`DELETE FROM machine_lock`)
	m.line, m.lost = nil, nil
}

// TestMachineLocksOfOwners walks through units of several tasks that want machines,
// whose owners are killed at any moment and whose tasks end with scripts that may
// still run: a machine has one exclusive holder, the order of asking is that of
// holding, and everybody is released once.
func TestMachineLocksOfOwners(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		m := &lockModel{w: w, claimed: make(leases, 10)}
		m.n = w.node("a", m.claimed.run)
		for range 3 {
			w.create(m.n.Service, tasks.New{})
			m.owners = append(m.owners, m.take())
		}
		walks, failed := 0, false
		rapid.Check(t, func(t *rapid.T) {
			// A walk takes longer than most properties do: some are enough.
			if walks++; walks > 12 && !failed {
				return
			}
			defer func() { failed = failed || t.Failed() }()
			defer m.clear(t)
			for range 12 {
				m.do(t)
				m.check(t)
			}
		})
	})
}
