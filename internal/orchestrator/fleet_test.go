//go:build linux

package orchestrator_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/octopus"
)

// fleet are agents of targets: a process and a home for each.
type fleet struct {
	dir, exe string
	log      *slog.Logger

	mu  sync.Mutex
	all map[string]*targets.Targets
}

// downFile is there while the agent of a target does not answer. What it runs goes on.
func downFile(dir, name string) string { return filepath.Join(dir, "down-"+name) }

// deafFile is there while an agent answers, and is sent no script.
func deafFile(dir, name string) string { return filepath.Join(dir, "deaf-"+name) }

func (f *fleet) agent(ctx context.Context, name string, patience time.Duration) (targets.Agent, error) {
	label := strings.TrimPrefix(name, "Machines-")
	if _, err := os.Stat(downFile(f.dir, name)); err == nil {
		return targets.Agent{}, &targets.AwayError{Label: label, Patience: cmp.Or(patience, time.Minute), Err: agent.ErrNotSent}
	}
	f.mu.Lock()
	own := f.all[name]
	if own == nil {
		own = targets.New(targets.Config{Exe: f.exe, Home: filepath.Join(f.dir, "agent-"+name), Log: f.log})
		f.all[name] = own
	}
	f.mu.Unlock()
	a, err := own.ByName(ctx, targets.Builtin)
	if err != nil {
		return a, err
	}
	a.Name, a.Label, a.Patience = name, label, patience
	a.API = wire{a.API, downFile(f.dir, name), deafFile(f.dir, name)}
	return a, nil
}

// wire is the way to an agent, which a test interrupts.
type wire struct {
	agent.API
	file, deaf string
}

func (l wire) up() error {
	if _, err := os.Stat(l.file); err == nil {
		return agent.ErrNotSent
	}
	return nil
}

func called[T any](l wire, call func() (T, error)) (T, error) {
	if err := l.up(); err != nil {
		var none T
		return none, err
	}
	answer, err := call()
	if l.up() != nil {
		var none T
		return none, agent.ErrUnanswered
	}
	return answer, err
}

func (l wire) StartScript(ctx context.Context, r agent.StartRequest) (agent.Status, error) {
	if _, err := os.Stat(l.deaf); err == nil {
		return agent.Status{}, agent.ErrNotSent
	}
	return called(l, func() (agent.Status, error) { return l.API.StartScript(ctx, r) })
}

func (l wire) GetStatus(ctx context.Context, r agent.StatusRequest) (agent.Status, error) {
	r.Wait = min(r.Wait, 100*time.Millisecond) // so that it soon notices that it is interrupted
	return called(l, func() (agent.Status, error) { return l.API.GetStatus(ctx, r) })
}

func (l wire) CancelScript(ctx context.Context, r agent.StatusRequest) (agent.Status, error) {
	return called(l, func() (agent.Status, error) { return l.API.CancelScript(ctx, r) })
}

func (l wire) CompleteScript(ctx context.Context, t agent.Ticket) error {
	_, err := called(l, func() (struct{}, error) { return struct{}{}, l.API.CompleteScript(ctx, t) })
	return err
}

func (l wire) HasPackage(ctx context.Context, sum string) (bool, error) {
	return called(l, func() (bool, error) { return l.API.HasPackage(ctx, sum) })
}

func (l wire) PutPackage(ctx context.Context, sum string, size int64, r io.Reader) error {
	_, err := called(l, func() (struct{}, error) { return struct{}{}, l.API.PutPackage(ctx, sum, size, r) })
	return err
}

func (w *world) down(name string) {
	w.t.Helper()
	if err := os.WriteFile(downFile(w.dir, "Machines-"+name), nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// disabledFile is there while a target is disabled.
func disabledFile(dir, name string) string { return filepath.Join(dir, "disabled-"+name) }

func takesWork(dir string) func(context.Context, string) error {
	return func(_ context.Context, machine string) error {
		if _, err := os.Stat(disabledFile(dir, machine)); err == nil {
			return &fault.Error{Kind: fault.Unsupported, Message: "The machine " + machine + " is disabled.", Cause: targets.ErrDisabled}
		}
		return nil
	}
}

func (w *world) disable(name string) {
	w.t.Helper()
	if err := os.WriteFile(disabledFile(w.dir, "Machines-"+name), nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) up(name string) {
	w.t.Helper()
	if err := os.Remove(downFile(w.dir, "Machines-"+name)); err != nil {
		w.t.Fatal(err)
	}
}

// withFleet gives the targets agents of their own.
func (w *world) withFleet(names ...string) []deploy.Machine {
	for _, name := range names {
		w.sc.Fleet = append(w.sc.Fleet, "Machines-"+name)
	}
	w.save()
	return machines(names...)
}

// there has a step run on the targets themselves.
func there(s *octopus.Step) {
	onTargets(s)
	for i := range s.Actions {
		delete(s.Actions[i].Properties, octopus.PropRunOnServer)
	}
}

// alone is a script that notes when another one runs on its target at the same time;
// it notes its beginning as "word-target", and holds until word is let go.
func (w *world) alone(word string) string {
	return fmt.Sprintf(`name=$(get_octopusvariable Octopus.Machine.Name)
mkdir '%[1]s/in-'$name 2>/dev/null || echo overlap >> '%[1]s/ran'
echo "%[2]s-$name" >> '%[1]s/ran'
%[3]srmdir '%[1]s/in-'$name
`, w.dir, word, w.hold(word))
}

// locks are the units in the lines for machines, "task unit", in their order.
func (w *world) locks() (all []string) {
	w.t.Helper()
	w.read(func(ctx context.Context, tx *db.Tx) error {
		all = nil
		rows, err := tx.Query(ctx, `SELECT task, unit FROM machine_lock ORDER BY machine, id`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var task, unit string
			if err := rows.Scan(&task, &unit); err != nil {
				return err
			}
			all = append(all, task+" "+unit)
		}
		return rows.Err()
	})
	return all
}

// tidy checks that nobody is in line, and that no two scripts met on a target.
func (w *world) tidy() {
	w.t.Helper()
	await(w.t, "the agents have forgotten the scripts", func() bool { return w.count(`SELECT count(*) FROM ticket`) == 0 })
	if left := w.locks(); len(left) > 0 {
		w.t.Errorf("in line for machines are still %q", left)
	}
	if n := w.ran("overlap"); n > 0 {
		w.t.Errorf("%d scripts ran beside others on their target", n)
	}
}

// One script runs on a target at a time: of steps beside each other and of other
// deployments. Who waits says for whom.
func TestPoint06DeploymentsTakeMachines(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		fleet := w.withFleet("a", "b")
		w.serve("a")
		w.sc.Steps = []octopus.Step{step("One", w.alone("one"), there), step("Beside", w.alone("beside"), there, beside), step("Two", w.alone("two"), there)}
		w.letGo("beside")
		first := w.queueTagged("x", deploy.Input{Process: w.sc.Steps[:2], Machines: fleet})
		await(t, "both targets run something, and others wait there", func() bool {
			return w.ran("one-a")+w.ran("beside-a") > 0 && w.ran("one-b")+w.ran("beside-b") > 0 && (w.ran("one-a") > 0 || w.ran("one-b") > 0)
		})
		second := w.queueTagged("y", deploy.Input{Process: w.sc.Steps[2:], Machines: fleet})
		w.letGo("two")
		await(t, "the second deployment waits", func() bool { return len(w.said(second, "which is held by "+first)) > 0 })
		w.letGo("one")
		w.ends(first, octopus.TaskSuccess)
		w.ends(second, octopus.TaskSuccess)
		for _, word := range []string{"one-a", "one-b", "beside-a", "beside-b", "two-a", "two-b"} {
			if n := w.ran(word); n != 1 {
				t.Errorf("%s ran %d times", word, n)
			}
		}
		own := slices.Concat(w.said(first, `Wait Waiting for a, which is held by the step "`), w.said(first, `Wait Waiting for b, which is held by the step "`))
		if len(own) == 0 {
			t.Errorf("nothing says that steps wait for each other:\n%s", strings.Join(w.log(first), "\n"))
		}
		w.tidy()
	})
}

// With the variable for it scripts run together on a target; one without it waits for
// all that came before, and those that come later wait for it.
func TestMachinesAreShared(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		fleet := w.withFleet("a")
		w.serve("a")
		// Only one that sees the other begin goes on.
		meet := func(own, other string) string {
			return w.run(own, fmt.Sprintf("until grep -q %s '%s/ran'; do sleep 0.02; done\n", other, w.dir))
		}
		w.sc.Vars = []plainVariable{{Name: "OctopusBypassDeploymentMutex", Value: "True", Scope: octopus.Scope{Action: []string{"a-One", "a-Beside", "a-Later"}}}}
		w.sc.Steps = []octopus.Step{
			step("One", meet("one", "beside")+w.hold("shared"), there), step("Beside", meet("beside", "one"), there, beside),
			step("Alone", w.run("alone", w.hold("alone")), there), step("Later", w.run("later", ""), there),
		}
		first := w.queueTagged("x", deploy.Input{Process: w.sc.Steps[:2], Machines: fleet})
		await(t, "they run together", func() bool { return w.ran("one") == 1 && w.ran("beside") == 1 })
		alone := w.queueTagged("y", deploy.Input{Process: w.sc.Steps[2:3], Machines: fleet})
		await(t, "one waits for them", func() bool { return len(w.said(alone, "Waiting for a, which is held by "+first+".")) == 1 })
		later := w.queueTagged("z", deploy.Input{Process: w.sc.Steps[3:], Machines: fleet})
		await(t, "a later one waits behind it", func() bool { return len(w.said(later, "Waiting for a, which is held by "+alone+".")) == 1 })
		if w.ran("alone")+w.ran("later") > 0 {
			t.Error("somebody did not wait")
		}
		w.letGo("shared")
		await(t, "it has its turn", func() bool { return w.ran("alone") == 1 })
		if w.ran("later") > 0 {
			t.Error("the later one did not wait")
		}
		w.letGo("alone")
		for _, id := range []string{first, alone, later} {
			w.ends(id, octopus.TaskSuccess)
		}
		w.tidy()
	})
}

// A deployment that waits for a machine ends at once when it is canceled, and leaves
// the line; its place is kept when another server goes on with it.
func TestWaitingForAMachine(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		fleet := w.withFleet("a")
		stop := w.serve("a")
		w.sc.Steps = []octopus.Step{step("One", w.alone("one"), there)}
		var ids []string
		for i := range 4 {
			ids = append(ids, w.queueTagged(fmt.Sprint(i), deploy.Input{Process: w.sc.Steps, Machines: fleet}))
			await(t, "it is in line", func() bool { return len(w.locks()) == i+1 })
		}
		line := w.locks()
		stop()
		if diff := gocmp.Diff(line, w.locks()); diff != "" {
			t.Errorf("the line has changed with the end of a server: %s", diff)
		}
		w.serve("b")
		w.cancel(ids[1])
		w.ends(ids[1], octopus.TaskCanceled)
		if diff := gocmp.Diff([]string{line[0], line[2], line[3]}, w.locks()); diff != "" {
			t.Errorf("the line after a cancellation: %s", diff)
		}
		w.letGo("one")
		for _, i := range []int{0, 2, 3} {
			w.ends(ids[i], octopus.TaskSuccess)
		}
		if n := w.ran("one-a"); n != 3 {
			t.Errorf("it ran %d times", n)
		}
		w.tidy()
	})
}

// Rolling deployments that meet on the same targets, in any order and with several
// children in each lane, do not keep each other from going on.
func TestRollingLanesMeet(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		fleet := w.withFleet("a", "b", "c")
		w.serve("a")
		w.letGo("go")
		rolling := func(name, window string) octopus.Step {
			s := step(name, w.alone("go"))
			second := s.Actions[0]
			second.ID, second.Name = "second-"+name, "Second "+name
			second.Properties = octopus.Properties{}
			for k, v := range s.Actions[0].Properties {
				second.Properties[k] = v
			}
			s.Actions = append(s.Actions, second)
			s.Properties[octopus.PropMaxParallelism] = octopus.Plain(window)
			there(&s)
			return s
		}
		w.sc.Steps = []octopus.Step{rolling("One", "1"), rolling("Two", "2"), rolling("Three", "3")}
		var ids []string
		for i := range 3 {
			ids = append(ids, w.queueTagged(fmt.Sprint(i), deploy.Input{Process: w.sc.Steps[i : i+1], Machines: fleet}))
		}
		for _, id := range ids {
			w.ends(id, octopus.TaskSuccess)
		}
		for _, name := range []string{"a", "b", "c"} {
			if n := w.ran("go-" + name); n != 6 {
				t.Errorf("%d scripts ran on %s", n, name)
			}
		}
		w.tidy()
	})
}

// A lane that waits for its machine has not begun: after a failure elsewhere a rolling
// step does not open it any more, though the machine becomes free.
func TestWaitingLaneIsNotOpened(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		fleet := w.withFleet("a", "b")
		w.serve("a")
		rolling := step("Roll", `test "$(get_octopusvariable Octopus.Machine.Name)" = b && `+w.run("b", "")+"\n"+w.hold("fail")+"false", there)
		rolling.Properties[octopus.PropMaxParallelism] = octopus.Plain("2")
		w.sc.Steps = []octopus.Step{step("Block", w.alone("block"), there), rolling}
		blocking := w.queueTagged("x", deploy.Input{Process: w.sc.Steps[:1], Machines: fleet[1:]})
		await(t, "b is busy", func() bool { return w.ran("block-b") == 1 })
		id := w.queueTagged("y", deploy.Input{Process: w.sc.Steps[1:], Machines: fleet})
		await(t, "it waits for b", func() bool { return len(w.said(id, "Waiting for b")) == 1 })
		w.letGo("fail")
		w.ends(id, octopus.TaskFailed)
		w.letGo("block")
		w.ends(blocking, octopus.TaskSuccess)
		if w.ran("b") != 0 {
			t.Error("the lane was opened after the failure")
		}
		w.tidy()
	})
}

// A machine whose script has an unknown fate stays locked, while a person is asked and
// after: until its agent has told that nothing runs there any more.
func TestUnknownFateKeepsTheMachine(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.sc.ReachFor = 200 * time.Millisecond
		fleet := w.withFleet("a")
		w.serve("a")
		w.sc.Steps = []octopus.Step{step("One", w.alone("one"), there), step("Two", w.alone("two"), there)}
		w.letGo("two")
		first := w.queueTagged("x", deploy.Input{Process: w.sc.Steps[:1], Machines: fleet, Plan: deploy.Plan{Targets: deploy.Targets{Skip: true}}})
		await(t, "it runs", func() bool { return w.ran("one-a") == 1 })
		w.down("a")
		question := w.asked(first) // not skipped: it may have run
		second := w.queueTagged("y", deploy.Input{Process: w.sc.Steps[1:], Machines: fleet})
		w.up("a")
		await(t, "another one waits", func() bool { return len(w.said(second, "which is held by "+first)) == 1 })
		if err := w.answer(question, deploy.MarkFailed); err != nil {
			t.Fatal(err)
		}
		w.ends(first, octopus.TaskFailed)
		await(t, "it is told that the script may still run", func() bool {
			return len(w.said(second, first+", which has ended and whose script may still run there.")) == 1
		})
		if w.ran("two-a") > 0 || len(w.locks()) != 2 {
			t.Errorf("the machine is free: %q", w.locks())
		}
		w.letGo("one")
		w.ends(second, octopus.TaskSuccess)
		w.tidy()
	})
}

// TestMachineEdges has a server die at each edge on the way to a machine and back: the
// next one keeps its places in line, runs nothing twice and nothing beside others.
func TestMachineEdges(t *testing.T) {
	t.Parallel()
	for _, dialect := range dbtest.Dialects() {
		edges := []string{"machine-queued", "machine-locked", "intent-committed", "start-sent", "result-committed"}
		if dialect == db.Postgres || testing.Short() {
			edges = edges[:2]
		}
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			for _, edge := range edges {
				t.Run(edge, func(t *testing.T) {
					w := newWorld(t, dialect)
					fleet := w.withFleet("a", "b")
					queued := edge == "machine-queued"
					if !queued {
						w.letGo("go")
					}
					rolling := step("Roll", w.alone("go"), there, func(s *octopus.Step) { s.Properties[octopus.PropMaxParallelism] = octopus.Plain("1") })
					process := []octopus.Step{step("One", w.alone("go"), there), step("Beside", w.alone("go"), there, beside), rolling}
					id := w.queuePlan(deploy.Input{Process: process, Machines: fleet})
					once := t.TempDir()
					died := w.child(failpoint.Env+"="+edge+":kill", failpoint.EnvOnce+"="+once)
					if state, err := died.Process.Wait(); err != nil || state.Success() {
						t.Fatalf("the server has ended: %v, %v", state, err)
					}
					if queued {
						w.letGo("go")
					}
					w.child()
					w.ends(id, octopus.TaskSuccess)
					for _, word := range []string{"go-a", "go-b"} {
						if n := w.ran(word); n != 3 {
							t.Errorf("%d scripts ran on %s", n, word)
						}
					}
					for unit, u := range w.state(id).Units {
						if u.Attempt != 1 || u.Outcome != deploy.Succeeded || u.Intent.Mutex != unit.Lane {
							t.Errorf("%v is %+v", unit, u)
						}
					}
					w.tidy()
				})
			}
		})
	}
}
