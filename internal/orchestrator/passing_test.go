//go:build linux

package orchestrator_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/orchestrator"
	"github.com/takodeploy/tako/octopus"
)

// noDrops is there while the endpoints of offline drops cannot be read.
func noDrops(dir string) string { return filepath.Join(dir, "no-drops") }

// passing has the endpoints of offline drops fail while noDrops is there.
func passing(dir string, o *orchestrator.Offline) *orchestrator.Offline {
	endpoint := o.Endpoint
	o.Endpoint = func(ctx context.Context, machine string) (octopus.Endpoint, error) {
		if _, err := os.Stat(noDrops(dir)); err == nil {
			return octopus.Endpoint{}, fault.New(fault.Unavailable, "The drops are away.")
		}
		return endpoint(ctx, machine)
	}
	return o
}

// TestOfflineDropsGoOn: a failure that passes ends no deployment, neither while a step for
// an offline drop is tried out nor while the bundle is made: it goes on when it has passed.
func TestOfflineDropsGoOn(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		fails := func(now bool) {
			t.Helper()
			var err error
			if now {
				err = os.WriteFile(noDrops(w.dir), nil, 0o600)
			} else {
				err = os.Remove(noDrops(w.dir))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		targets := w.drops(octopus.Endpoint{}, "vault")
		fails(true)
		w.serve("a")
		id := w.queuePlan(deploy.Input{Machines: targets, Process: []octopus.Step{step("There", "echo there", onDrop), step("Here", w.run("here", w.hold("here")))}})
		again := func(times int) {
			t.Helper()
			await(t, "the failure is told", func() bool {
				if task := w.task(id); task.State.Completed() {
					t.Fatalf("it is %s: %s", task.State, task.Error)
				}
				return len(w.said(id, "The engine could not go on with this task and tries again")) == times
			})
		}
		again(1)
		fails(false)
		await(t, "it goes on", func() bool { return w.ran("here") == 1 })
		fails(true)
		w.letGo("here")
		again(2)
		fails(false)
		w.ends(id, octopus.TaskSuccess)
		if n := w.ran("here"); n != 1 || len(w.artifacts(id)) != 1 {
			t.Errorf("a step ran %d times, the bundles are %d", n, len(w.artifacts(id)))
		}
	})
}

// TestOfflineDropDisabledMidway: what was disabled in the middle gets no bundle.
func TestOfflineDropDisabledMidway(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		targets := w.drops(octopus.Endpoint{}, "a", "b")
		w.serve("a")
		id := w.queuePlan(deploy.Input{Machines: targets, Process: []octopus.Step{step("Here", w.run("here", w.hold("here"))), step("There", "echo there", onDrop)}})
		await(t, "it has begun", func() bool { return w.ran("here") == 1 })
		w.disable("b")
		w.letGo("here")
		w.ends(id, octopus.TaskSuccess)
		state := w.state(id)
		if u := state.Unit(deploy.Unit{Step: 1, Lane: "Machines-b"}); u.Outcome != deploy.Skipped || !state.Excluded["Machines-b"] || !slices.Contains(w.log(id), "Warning b is left out of the rest of the deployment.") {
			t.Errorf("b is %+v:\n%s", u, strings.Join(w.log(id), "\n"))
		}
		if u := state.Unit(deploy.Unit{Step: 1, Lane: "Machines-a"}); u.Outcome != deploy.Succeeded {
			t.Errorf("a is %+v", u)
		}
		if all := w.artifacts(id); len(all) != 1 {
			t.Errorf("%d bundles were made", len(all))
		}
	})
}
