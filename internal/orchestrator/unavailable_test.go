//go:build linux

package orchestrator_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// A target that cannot be reached is left out with a warning and the deployment goes
// on, where the project says so of its tags, or its machine policy; else it fails.
func TestPoint13UnavailableTargets(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.sc.ReachFor = 200 * time.Millisecond
		fleet := w.withFleet("a", "b")
		offline := slices.Clone(fleet)
		offline[1].MayBeOffline = true
		w.down("b")
		w.serve("a")
		w.sc.Steps = []octopus.Step{step("One", "true", there), step("Two", "true", there), step("Last", "true", when(octopus.StepConditionAlways))}
		const message, left = "The deployment target b could not be reached for 200ms: the agent was not reached.", "b is left out of the rest of the deployment."
		for _, c := range []struct {
			name     string
			machines []deploy.Machine
			targets  deploy.Targets
			state    octopus.TaskState
		}{
			{"skipped", fleet, deploy.Targets{Skip: true}, octopus.TaskSuccess},
			{"skipped by its tag", fleet, deploy.Targets{Skip: true, SkipRoles: []string{"db", "WEB"}}, octopus.TaskSuccess},
			{"may be offline", offline, deploy.Targets{}, octopus.TaskSuccess},
			{"of another tag", fleet, deploy.Targets{Skip: true, SkipRoles: []string{"db"}}, octopus.TaskFailed},
			{"expected", fleet, deploy.Targets{}, octopus.TaskFailed},
			{"the last one", fleet[1:], deploy.Targets{Skip: true}, octopus.TaskFailed},
			{"the last one, and none is allowed", fleet[1:], deploy.Targets{Skip: true, AllowNone: true}, octopus.TaskSuccess},
		} {
			id := w.queueTagged("tag", deploy.Input{Process: w.sc.Steps, Machines: c.machines, Plan: deploy.Plan{Targets: c.targets}})
			task := w.ends(id, c.state)
			state := w.state(id)
			u := state.Unit(deploy.Unit{Lane: "Machines-b"})
			if !task.HasWarnings || len(w.said(id, message)) != 1 {
				t.Errorf("%s: nothing is said:\n%s", c.name, strings.Join(w.log(id), "\n"))
			}
			if c.state == octopus.TaskFailed {
				if u.Outcome != deploy.Failed || len(w.said(id, left)) != 0 {
					t.Errorf("%s: b is %+v", c.name, u)
				}
				continue
			}
			if u.Outcome != deploy.Skipped || !state.Excluded["Machines-b"] || !slices.Contains(w.log(id), "Warning "+left) {
				t.Errorf("%s: b is %+v:\n%s", c.name, u, strings.Join(w.log(id), "\n"))
			}
			reached := strings.Join([]string{"Machines-a"}[:len(c.machines)-1], "")
			if n := w.count(`SELECT count(*) FROM events WHERE category = 'Reached' AND message = ?`, reached); n == 0 {
				t.Errorf("%s: nobody was told that it went to %q", c.name, reached)
			}
			if second := state.Unit(deploy.Unit{Step: 1, Lane: "Machines-b"}); second.Attempt > 0 {
				t.Errorf("%s: b is in a later step: %+v", c.name, second)
			}
			if len(c.machines) == 1 && len(w.said(id, `Step "Two" skipped: no deployment targets match the step.`)) != 1 {
				t.Errorf("%s: nothing is said of the step without targets:\n%s", c.name, strings.Join(w.log(id), "\n"))
			}
		}
		w.up("b")
		w.tidy()
	})
}

// A target that is disabled in the middle is left out of the steps that come after,
// where a worker runs them too, with a warning. What runs there comes to its end; the
// last target stays.
func TestDisabledMidway(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		fleet := w.withFleet("a", "b")
		w.serve("a")
		process := []octopus.Step{
			step("One", w.run("one", w.hold("one")), there), step("Beside", "true", onTargets), step("Two", w.run("two", ""), there), step("Last", "true", there, when(octopus.StepConditionAlways)),
		}
		const left = "Warning b is left out of the rest of the deployment."
		id := w.queuePlan(deploy.Input{Process: process, Machines: fleet})
		await(t, "all run the first step", func() bool { return w.ran("one") == len(fleet) })
		w.disable("b")
		w.letGo("one")
		w.ends(id, octopus.TaskSuccess)
		state := w.state(id)
		if u := state.Unit(deploy.Unit{Lane: "Machines-b"}); u.Outcome != deploy.Succeeded {
			t.Errorf("what ran there is %+v", u)
		}
		if u := state.Unit(deploy.Unit{Step: 1, Lane: "Machines-b"}); u.Outcome != deploy.Skipped || !state.Excluded["Machines-b"] || !slices.Contains(w.log(id), left) || len(w.said(id, "It was disabled.")) != 1 {
			t.Errorf("beside it is %+v:\n%s", u, strings.Join(w.log(id), "\n"))
		}
		for i := 2; i < len(process); i++ {
			if u := state.Unit(deploy.Unit{Step: i, Lane: "Machines-b"}); u.Attempt > 0 {
				t.Errorf("%s ran there: %+v", process[i].Name, u)
			}
			if u := state.Unit(deploy.Unit{Step: i, Lane: "Machines-a"}); u.Outcome != deploy.Succeeded {
				t.Errorf("%s is %+v on the other one", process[i].Name, u)
			}
		}
		if !w.task(id).HasWarnings || w.ran("two") != 1 {
			t.Errorf("two ran %d times:\n%s", w.ran("two"), strings.Join(w.log(id), "\n"))
		}
		id = w.queuePlan(deploy.Input{Process: process[2:3], Machines: fleet[1:]})
		w.ends(id, octopus.TaskFailed)
		if len(w.said(id, "The machine Machines-b is disabled.")) != 1 {
			t.Errorf("of the last one:\n%s", strings.Join(w.log(id), "\n"))
		}
		w.tidy()
	})
}

// Of two targets that are gone at the same time one is not left out: a deployment to
// nobody is none.
func TestAllTargetsUnavailable(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.sc.ReachFor = 200 * time.Millisecond
		fleet := w.withFleet("a", "b", "c")
		w.down("a")
		w.down("b")
		// This one goes away in the last moment.
		if err := os.WriteFile(deafFile(w.dir, "Machines-c"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		w.serve("a")
		id := w.queuePlan(deploy.Input{Process: []octopus.Step{step("One", "true", there)}, Machines: fleet, Plan: deploy.Plan{Targets: deploy.Targets{Skip: true}}})
		w.ends(id, octopus.TaskFailed)
		outcomes := map[deploy.Outcome]int{}
		for _, u := range w.state(id).Units {
			outcomes[u.Outcome]++
		}
		if diff := cmp.Diff(map[deploy.Outcome]int{deploy.Skipped: 2, deploy.Failed: 1}, outcomes); diff != "" {
			t.Error(diff)
		}
	})
}

// As it begins, a deployment leaves out targets that were disabled since it was made, or
// are not as they should be; with none left it does not begin.
func TestTargetsAsItBegins(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		with := func(name string, status octopus.HealthStatus) releases.Target {
			one := target(name, "")
			one.HealthStatus = status
			return one
		}
		w.sc.Targets = []releases.Target{with("well", octopus.Healthy), with("warns", octopus.HealthyWarnings), with("ill", octopus.Unhealthy), with("away", octopus.Unavailable), with("new", octopus.HealthUnknown)}
		w.serve("a")
		process := []octopus.Step{step("One", "true", onTargets), step("Last", "true")}
		all := machines("well", "warns", "ill", "away", "new", "gone")
		for _, c := range []struct {
			name    string
			targets deploy.Targets
			want    []string
		}{
			{"as usual", deploy.Targets{}, []string{"away", "ill", "new", "warns", "well"}},
			{"skips what is not available", deploy.Targets{Skip: true}, []string{"ill", "new", "warns", "well"}},
			{"of another tag", deploy.Targets{Skip: true, SkipRoles: []string{"db"}}, []string{"away", "ill", "new", "warns", "well"}},
			{"without unhealthy ones", deploy.Targets{ExcludeUnhealthy: true}, []string{"new", "warns", "well"}},
		} {
			id := w.queuePlan(deploy.Input{Process: process, Machines: all, Plan: deploy.Plan{Targets: c.targets}})
			task := w.ends(id, octopus.TaskSuccess)
			if diff := cmp.Diff(c.want, w.lanes(id, 0)); diff != "" || !task.HasWarnings {
				t.Errorf("%s: %s", c.name, diff)
			}
			if !slices.Contains(w.log(id), "Warning gone is left out of the deployment: it is disabled, or no longer one for this deployment.") {
				t.Errorf("%s:\n%s", c.name, strings.Join(w.log(id), "\n"))
			}
		}
		id := w.queuePlan(deploy.Input{Process: process, Machines: machines("gone", "away"), Plan: deploy.Plan{Targets: deploy.Targets{Skip: true}}})
		if task := w.ends(id, octopus.TaskFailed); !strings.Contains(task.Error, "None of the deployment targets") || w.state(id).Facts > 0 {
			t.Errorf("%q", task.Error)
		}
		id = w.queuePlan(deploy.Input{Process: process, Machines: machines("gone"), Plan: deploy.Plan{Targets: deploy.Targets{AllowNone: true}}})
		w.ends(id, octopus.TaskSuccess)
		if len(w.said(id, `Step "One" skipped: no deployment targets match the step.`)) != 1 {
			t.Error(strings.Join(w.log(id), "\n"))
		}
	})
}

// Nobody guesses about a script that may have run: a target that goes away in the middle
// of one is asked about, whatever may be skipped and retried.
func TestUnknownIsNeverSkipped(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.sc.ReachFor = 200 * time.Millisecond
		fleet := w.withFleet("a", "b")
		w.serve("a")
		one := step("One", w.alone("one"), there, property(octopus.PropRetryCount, "3"))
		id := w.queuePlan(deploy.Input{Process: []octopus.Step{one}, Machines: fleet, Plan: deploy.Plan{Targets: deploy.Targets{Skip: true}}})
		await(t, "both run", func() bool { return w.ran("one-a") == 1 && w.ran("one-b") == 1 })
		w.down("b")
		question := w.asked(id)
		w.letGo("one")
		await(t, "the script ends, though nobody hears of it", func() bool {
			_, err := os.Stat(filepath.Join(w.dir, "in-b"))
			return errors.Is(err, os.ErrNotExist)
		})
		w.up("b")
		if err := w.answer(question, deploy.RunAgain); err != nil {
			t.Fatal(err)
		}
		w.ends(id, octopus.TaskSuccess)
		if w.ran("one-a") != 1 || w.ran("one-b") != 2 {
			t.Errorf("ran %d and %d times", w.ran("one-a"), w.ran("one-b"))
		}
		w.tidy()
	})
}

// A canceled deployment ends in time though agents are dead. The targets where scripts
// may still run are named, and take no other script until their agents have answered.
func TestPoint19CancelWithDeadAgents(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.sc.CancelIn = time.Second
		fleet := w.withFleet("a", "b", "c")
		w.serve("a")
		w.sc.Steps = []octopus.Step{step("One", w.run("one", w.hold("never")), there), step("Two", `echo "on $(get_octopusvariable Octopus.Machine.Name)"`, there)}
		first := w.queueTagged("x", deploy.Input{Process: w.sc.Steps[:1], Machines: fleet})
		await(t, "all run", func() bool { return w.ran("one") == 3 })
		await(t, "the server knows", func() bool {
			state := w.state(first)
			for _, u := range state.Units {
				if !u.Acked {
					return false
				}
			}
			return len(state.Units) == 3
		})
		w.down("b")
		w.down("c")
		w.cancel(first)
		task := w.ends(first, octopus.TaskCanceled)
		if want := "The task was canceled. Scripts that it started may still run on b, c."; task.Error != want {
			t.Errorf("its error is %q", task.Error)
		}
		if took := task.Completed.Sub(task.CancelAt); took > tasks.CancelBound {
			t.Errorf("it took %v", took)
		}
		if len(w.said(first, "Warning Scripts may still run on b, c.")) != 1 {
			t.Error(strings.Join(w.log(first), "\n"))
		}
		second := w.queueTagged("y", deploy.Input{Process: w.sc.Steps[1:], Machines: fleet})
		await(t, "one target is free", func() bool { return len(w.said(second, "Info on a")) == 1 })
		w.up("b")
		await(t, "the next one is", func() bool { return len(w.said(second, "Info on b")) == 1 })
		if held := w.count(`SELECT count(*) FROM machine_lock WHERE machine = 'Machines-c' AND task = ?`, first); held != 1 {
			t.Errorf("the target that has not answered is held %d times", held)
		}
		w.up("c")
		w.ends(second, octopus.TaskSuccess)
		w.tidy()
	})
}

// Guided failure over many targets: a required step can be neither ignored nor can a
// target be excluded from it, and a retry that is set up comes before anybody is asked.
func TestGuidedFailureOfRequiredSteps(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		fleet := w.withFleet("a", "b")
		w.serve("a")
		fails := step("Fails", `name=$(get_octopusvariable Octopus.Machine.Name)
echo "try-$name" >> '`+w.dir+`/ran'
test -e '`+w.dir+`'/go-$name`, there, property(octopus.PropRetryCount, "1"), property(octopus.PropRetryBackoff, "0"), func(s *octopus.Step) { s.Actions[0].IsRequired = true })
		w.letGo("a")
		id := w.queuePlan(deploy.Input{Process: []octopus.Step{fails}, Machines: fleet, Plan: deploy.Plan{GuidedFailure: true}})
		question := w.asked(id)
		if w.ran("try-b") != 2 {
			t.Errorf("somebody is asked after %d tries", w.ran("try-b"))
		}
		for _, choice := range []deploy.Choice{deploy.Ignore, deploy.Exclude} {
			if err := w.answer(question, choice); err == nil || !strings.Contains(err.Error(), "choose one of Fail, Retry") {
				t.Errorf("%s: %v", choice, err)
			}
		}
		w.letGo("b")
		if err := w.answer(question, deploy.Retry); err != nil {
			t.Fatal(err)
		}
		w.ends(id, octopus.TaskSuccess)
		if w.ran("try-a") != 1 || w.ran("try-b") != 3 {
			t.Errorf("%d and %d tries", w.ran("try-a"), w.ran("try-b"))
		}
		w.read(func(ctx context.Context, tx *db.Tx) error {
			page, _, err := tasks.Interruptions(ctx, tx, tasks.InterruptionQuery{Visible: []tasks.Visible{{Space: "Spaces-1"}}, Regarding: id})
			if len(page) != 1 || page[0].Correlation != deploy.StepActivity(id, 0) || page[0].Title != "Fails on b" {
				t.Errorf("asked was %+v", page)
			}
			return err
		})
		w.tidy()
	})
}

// A health check leaves out targets that may be offline though it minds the others, and
// fails when none is left.
func TestHealthCheckOfOfflineTargets(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.sc.Targets = []releases.Target{target("well", "true"), target("laptop", ""), target("other", "")}
		w.sc.Near = []string{"Machines-well"}
		w.serve("a")
		all := machines("well", "laptop", "other")
		all[1].MayBeOffline = true
		process := []octopus.Step{healthStep("Check"), step("After", "true", onTargets)}
		id := w.queuePlan(deploy.Input{Process: process, Machines: all[:2]})
		w.ends(id, octopus.TaskSuccess)
		if diff := cmp.Diff([]string{"well"}, w.lanes(id, 1)); diff != "" {
			t.Errorf("%s\n%s", diff, strings.Join(w.log(id), "\n"))
		}
		id = w.queuePlan(deploy.Input{Process: process, Machines: all})
		w.ends(id, octopus.TaskFailed)
		if len(w.said(id, "1 of 3 deployment targets are not healthy or not available: other.")) != 1 {
			t.Error(strings.Join(w.log(id), "\n"))
		}
		id = w.queuePlan(deploy.Input{Process: process, Machines: all[1:2]})
		w.ends(id, octopus.TaskFailed)
		if len(w.said(id, "No deployment target is left that is healthy and available.")) != 1 {
			t.Error(strings.Join(w.log(id), "\n"))
		}
		id = w.queuePlan(deploy.Input{Process: process, Machines: all[1:2], Plan: deploy.Plan{Targets: deploy.Targets{AllowNone: true}}})
		w.ends(id, octopus.TaskSuccess)
	})
}
