//go:build linux

package orchestrator_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/octopus"
)

// expression is a step's run condition.
func expression(text string) func(*octopus.Step) {
	return func(s *octopus.Step) {
		s.Condition = octopus.StepConditionVariable
		s.Properties[octopus.PropConditionExpression] = octopus.PropertyValue{Value: text}
	}
}

// TestConditionOfTarget: the condition of a step on targets is looked at for each of
// them, once, at its beginning; one of an action for that action alone.
func TestConditionOfTarget(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		rolling := step("First", `set_octopusvariable Done True`, onTargets, expression(`#{unless Octopus.Action[First].Output.Done}#{if Octopus.Machine.Name != "b"}yes#{/if}#{/unless}`))
		second := step("Second", "echo second").Actions[0]
		second.Condition = octopus.ActionConditionVariable
		second.Properties["Octopus.Action.ConditionVariableExpression"] = octopus.PropertyValue{Value: `#{if Octopus.Machine.Name == "c"}yes#{/if}`}
		rolling.Actions = append(rolling.Actions, second, step("Third", "echo third").Actions[0])
		nowhere := step("Nowhere", "echo nowhere", onTargets, expression("#{Octopus.Machine.Missing}"))
		id := w.queuePlan(deploy.Input{Process: []octopus.Step{rolling, nowhere, step("Last", `echo "then $(get_octopusvariable "Octopus.Step[Nowhere].Status.Code")"`)}, Machines: machines("a", "b", "c")})
		w.ends(id, octopus.TaskSuccess)
		got := map[string]string{}
		for _, node := range w.state(id).Tree(id, "Deploy", octopus.TaskSuccess, time.Now(), time.Now()).Children[0].Children {
			got[node.Name] = string(node.Status)
		}
		want := map[string]string{
			"First on a": "Success", "Second on a": "Skipped", "Third on a": "Success",
			"First on b": "Skipped", "Second on b": "Skipped", "Third on b": "Skipped",
			"First on c": "Success", "Second on c": "Success", "Third on c": "Success",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s\n%s", diff, strings.Join(w.log(id), "\n"))
		}
		if len(w.said(id, "nowhere")) != 0 || len(w.said(id, "then Skipped")) != 1 {
			t.Error(strings.Join(w.log(id), "\n"))
		}
	})
}

// TestPlaces: a variable may name the worker pool, and what is to run on a target that
// has no agent runs on a worker, in that target's pool.
func TestPlaces(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.sc.Vars = []plainVariable{{Name: "Pool", Value: " WorkerPools-1 "}, {Name: "Other pool", Value: "WorkerPools-2"}, {Name: "Empty", Value: "#{Nothing | Trim}"}}
		w.serve("a")
		pool := func(name string) func(*octopus.Step) {
			return func(s *octopus.Step) { s.Actions[0].WorkerPoolVariable = octopus.NullString(name) }
		}
		always := when(octopus.StepConditionAlways)
		onRegion := step("Region", `echo "for $(get_octopusvariable Octopus.Machine.Name)"`, always, onTargets, property(octopus.PropRunOnServer, "False"))
		regions := machines("here", "there")
		regions[0].OnWorker, regions[0].WorkerPoolID = true, "WorkerPools-1"
		regions[1].OnWorker, regions[1].WorkerPoolID = true, "WorkerPools-3"
		id := w.queuePlan(deploy.Input{Process: []octopus.Step{
			step("One", "echo in one", pool("Pool")), step("Two", "echo in two", pool("Other pool"), always), step("Three", "echo in three", pool("Missing"), always), onRegion,
		}, Machines: regions})
		w.ends(id, octopus.TaskFailed)
		for _, want := range []string{
			"Info in one", "Error The worker pool WorkerPools-2 has no workers.", "Error The variable Missing, which names the step's worker pool, has no value here.",
			"Info for here", "Error The worker pool WorkerPools-3 has no workers.",
		} {
			if !slices.Contains(w.log(id), want) {
				t.Errorf("nothing says %q:\n%s", want, strings.Join(w.log(id), "\n"))
			}
		}
	})
}

// TestParallelism: a variable says how many steps and targets run side by side; the
// window of a rolling step goes before it, with a warning where it is smaller.
func TestParallelism(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.sc.Vars = []plainVariable{{Name: octopus.PropMaxParallelism, Value: "3"}, {Name: "Window", Value: "2"}}
		w.serve("a")
		rolling := step("Rolling", "true", onTargets, func(s *octopus.Step) {
			s.Properties[octopus.PropMaxParallelism] = octopus.PropertyValue{Value: "#{Window}"}
		})
		id := w.queuePlan(deploy.Input{Process: []octopus.Step{step("Wide", "true", onTargets), rolling}, Machines: machines("a", "b")})
		w.ends(id, octopus.TaskSuccess)
		steps := w.state(id).Steps
		if steps[0].Window != 3 || steps[0].Beside != 3 || steps[1].Window != 2 {
			t.Errorf("windows are %+v", steps)
		}
		if got := w.said(id, "goes before it"); len(got) != 1 || !strings.HasPrefix(got[0], "Warning ") {
			t.Errorf("warned with %q", got)
		}
	})
}

// TestAcquisition: a deployment that lacks a package fails before it changes anything that
// needs one; what is to run before goes on, and what cleans up runs.
func TestAcquisition(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		uses := func(id string) func(*octopus.Step) {
			return func(s *octopus.Step) {
				s.Actions[0].Packages = []octopus.PackageReference{{Name: id, PackageID: id, FeedID: "feeds-builtin", Version: "1.0"}}
			}
		}
		id := w.queue(false,
			step("Before", w.run("before", "")), step("First", w.run("first", ""), uses("Gone")), step("Second", w.run("second", ""), uses("Lost")), step("Again", w.run("again", ""), uses("Gone")),
			step("Cleanup", w.run("cleanup", `echo "then $(get_octopusvariable "Octopus.Deployment.ErrorDetail")"`), when(octopus.StepConditionFailure)),
		)
		w.ends(id, octopus.TaskFailed)
		for word, want := range map[string]int{"before": 1, "first": 0, "second": 0, "again": 0, "cleanup": 1} {
			if got := w.ran(word); got != want {
				t.Errorf("%s ran %d times, want %d", word, got, want)
			}
		}
		if want := "Info then There is no package Gone 1.0. There is no package Lost 1.0."; !slices.Contains(w.log(id), want) {
			t.Errorf("nothing says %q:\n%s", want, strings.Join(w.log(id), "\n"))
		}
	})
}
