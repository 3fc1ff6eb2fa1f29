//go:build linux

package orchestrator_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/octopus"
)

// healthStep checks the targets with the tag "web".
func healthStep(name string, change ...func(*octopus.Step)) octopus.Step {
	s := step(name, "", onTargets)
	s.Actions[0].ActionType, s.Actions[0].Properties = octopus.ActionHealthCheck, octopus.Properties{}
	for _, c := range change {
		c(&s)
	}
	return s
}

// target is a listening target with the tag "web", checked by a script.
func target(name, script string) releases.Target {
	t := releases.Target{Policy: resources.HealthPolicy{Script: script}}
	t.ID, t.Name, t.Roles = "Machines-"+name, name, []string{"web"}
	t.Endpoint.CommunicationStyle = octopus.StyleListening
	return t
}

// health is what the source was told last of each target.
func (w *world) health() map[string]string {
	w.t.Helper()
	body, err := os.ReadFile(filepath.Join(w.dir, "health"))
	if err != nil {
		w.t.Fatal(err)
	}
	told := map[string]string{}
	for line := range strings.Lines(string(body)) {
		id, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		told[id] = rest
	}
	return told
}

// lanes are the machines on which a step has run, by name.
func (w *world) lanes(id string, step int) []string {
	w.t.Helper()
	var names []string
	state := w.state(id)
	for unit := range state.Units {
		if unit.Step == step {
			names = append(names, state.MachineName(unit.Lane))
		}
	}
	slices.Sort(names)
	return names
}

// TestPoint13HealthCheck: targets that are not well are left out of what follows, and new
// ones that are take part in it.
func TestPoint13HealthCheck(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.sc.Vars = []plainVariable{{Name: "Password", Value: "hunter22", Sensitive: true}}
		region := target("region", "")
		region.Endpoint.CommunicationStyle = octopus.StyleNone
		other := target("other", "")
		other.Roles = []string{"db"}
		w.sc.Targets = []releases.Target{
			target("well", "echo all is well\n"), target("warns", "write_warning 'disk of hunter22 is nearly full'\n"), target("ill", "echo no\nfail_healthcheck 'the disk is gone'\n"),
			target("exits", "exit 3\n"), target("far", ""), target("new", ""), target("new-ill", "exit 1"), region, other, target("gone", ""),
		}
		w.sc.Near = []string{"Machines-well", "Machines-warns", "Machines-ill", "Machines-exits", "Machines-new", "Machines-new-ill"}
		w.serve("a")
		id := w.queuePlan(deploy.Input{
			Process: []octopus.Step{
				step("Before", w.run("before", w.hold("before")), onTargets),
				healthStep("Check", property(octopus.PropHealthErrors, octopus.HealthErrorsSkip), property(octopus.PropHealthInclude, octopus.HealthMachinesJoin)),
				step("After", `echo "on $(get_octopusvariable Octopus.Machine.Name) $(get_octopusvariable Octopus.Machine.Roles)"
set_octopusvariable X "$(get_octopusvariable Octopus.Machine.Id)"`, onTargets),
				step("Last", `get_octopusvariable 'Octopus.Action[After].Output[new].X'`),
			},
			Machines: machines("well", "warns", "ill", "exits", "far", "gone", "region"),
		})
		await(t, "it has begun", func() bool { return w.ran("before") == 7 })
		w.sc.Targets = w.sc.Targets[:len(w.sc.Targets)-1] // one is disabled
		w.save()
		w.letGo("before")
		if task := w.ends(id, octopus.TaskSuccess); !task.HasWarnings {
			t.Error("no warning is told")
		}
		if diff := cmp.Diff([]string{"exits", "far", "gone", "ill", "region", "warns", "well"}, w.lanes(id, 0)); diff != "" {
			t.Errorf("before:\n%s", diff)
		}
		if diff := cmp.Diff([]string{"new", "region", "warns", "well"}, w.lanes(id, 2)); diff != "" {
			t.Errorf("after:\n%s\n%s", diff, strings.Join(w.log(id), "\n"))
		}
		want := map[string]string{
			"Machines-well": "Healthy The health check succeeded.", "Machines-warns": "HasWarnings disk of ******** is nearly full", "Machines-ill": "Unhealthy the disk is gone",
			"Machines-exits": "Unhealthy The health check's script ended with exit code 3.", "Machines-new": "Healthy The health check succeeded.",
			"Machines-new-ill": "Unhealthy The health check's script ended with exit code 1.", "Machines-region": "Healthy The target has no agent that could be asked.",
			"Machines-far": "Unavailable There is no machine 'Machines-far'.",
		}
		if diff := cmp.Diff(want, w.health()); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
		for _, line := range []string{
			"Verbose well: all is well", "Warning warns is healthy, with warnings: disk of ******** is nearly full", "Error ill is not healthy: the disk is gone",
			"Warning ill is left out of the rest of the deployment.", "Error gone is not available: The target is disabled, or no longer one for this deployment.",
			"Info new takes part in the deployment from here on.", "Warning new-ill is new and does not take part in the deployment.",
			"Info on new web", "Info Machines-new",
		} {
			if !slices.Contains(w.log(id), line) {
				t.Errorf("nothing says %q:\n%s", line, strings.Join(w.log(id), "\n"))
			}
		}
		if raw := w.raw(id); strings.Contains(raw, "hunter22") {
			t.Error("a secret is in the database")
		}
		names := []string{}
		for _, child := range w.state(id).Tree(id, "Deploy", octopus.TaskSuccess, time.Now(), time.Now()).Children[2].Children {
			names = append(names, child.Name+" "+string(child.Status))
		}
		slices.Sort(names)
		if !slices.Contains(names, "After on new Success") || !slices.Contains(names, "After on ill Skipped") {
			t.Errorf("the tree has %q", names)
		}
		await(t, "the agent has forgotten the scripts", func() bool { return w.count(`SELECT count(*) FROM ticket`) == 0 })
	})
}

// TestHealthCheckFails: unless the step says otherwise, a target that is not well
// fails it, and only those that the deployment has are looked at.
func TestHealthCheckFails(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.sc.Targets = []releases.Target{target("well", "exit 1"), target("ill", "exit 1"), target("new", "exit 1")}
		w.sc.Near = []string{"Machines-well"}
		w.serve("a")
		id := w.queuePlan(deploy.Input{
			Process: []octopus.Step{
				healthStep("Check", property(octopus.PropHealthType, octopus.HealthCheckConnection)), // the script is not run
				step("After", "true", onTargets),
				step("Cleanup", "echo cleaned up", when(octopus.StepConditionFailure)),
			},
			Machines: machines("well", "ill"),
		})
		w.ends(id, octopus.TaskFailed)
		if diff := cmp.Diff(map[string]string{
			"Machines-well": "Healthy The machine answers.",
			"Machines-ill":  "Unavailable There is no machine 'Machines-ill'.",
		}, w.health()); diff != "" {
			t.Error(diff)
		}
		if len(w.lanes(id, 1)) != 0 || len(w.said(id, "cleaned up")) != 1 || len(w.said(id, "1 of 2 deployment targets are not healthy or not available: ill.")) != 1 {
			t.Error(strings.Join(w.log(id), "\n"))
		}

		bad := w.queuePlan(deploy.Input{Process: []octopus.Step{healthStep("Check", property(octopus.PropHealthErrors, "Perhaps"))}, Machines: machines("well")})
		w.ends(bad, octopus.TaskFailed)
		if len(w.said(bad, "use TreatExceptionsAsErrors or TreatExceptionsAsWarnings")) != 1 {
			t.Error(strings.Join(w.log(bad), "\n"))
		}
	})
}

// TestHealthCheckOfChild: as a child of a rolling step it looks at its own target.
func TestHealthCheckOfChild(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.sc.Targets = []releases.Target{target("ill", ""), target("well", "")}
		w.sc.Near = []string{"Machines-well"}
		w.serve("a")
		rolling := step("Rolling", "true", onTargets)
		check := healthStep("Check", property(octopus.PropHealthErrors, octopus.HealthErrorsSkip))
		rolling.Actions = append(octopus.List[octopus.Action]{check.Actions[0]}, rolling.Actions...)
		id := w.queuePlan(deploy.Input{Process: []octopus.Step{rolling, step("After", "true", onTargets)}, Machines: machines("well", "ill")})
		w.ends(id, octopus.TaskSuccess)
		for unit, u := range w.state(id).Units {
			if unit.Action == 1 && unit.Lane == "Machines-ill" {
				t.Errorf("it ran on the target that is left out: %+v", u)
			}
		}
		if diff := cmp.Diff([]string{"well"}, w.lanes(id, 1)); diff != "" {
			t.Error(diff)
		}
	})
}

// TestHealthCheckGoesOn: whoever takes a deployment over finds the scripts of its
// checks, and runs none twice; and a cancellation reaches them.
func TestHealthCheckGoesOn(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.sc.Targets = []releases.Target{target("slow", w.run("checked", w.hold("check")))}
		w.sc.Near = []string{"Machines-slow"}
		stop := w.serve("a")
		queue := func() string {
			return w.queuePlan(deploy.Input{Process: []octopus.Step{healthStep("Check"), step("After", w.run("after", ""), onTargets)}, Machines: machines("slow")})
		}
		id := queue()
		await(t, "the check runs", func() bool { return w.ran("checked") == 1 })
		stop()
		w.serve("b")
		w.letGo("check")
		w.ends(id, octopus.TaskSuccess)
		if w.ran("checked") != 1 || w.ran("after") != 1 {
			t.Errorf("checked %d times, ran %d times", w.ran("checked"), w.ran("after"))
		}

		if err := os.Remove(filepath.Join(w.dir, "go-check")); err != nil {
			t.Fatal(err)
		}
		id = queue()
		await(t, "the check runs", func() bool { return w.ran("checked") == 2 })
		w.cancel(id)
		w.ends(id, octopus.TaskCanceled)
		await(t, "the agent has forgotten the script", func() bool { return w.count(`SELECT count(*) FROM ticket`) == 0 })
	})
}
