package test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/octopus"
)

// serverEdges are the moments of a deployment at which the server is killed.
var serverEdges = []string{
	"claim-committed", "intent-committed", "start-sent", "start-replied", "ack-committed", "logs-fetched",
	"log-committed", "artifact-stored", "result-committed", "complete-sent", "cleanup-deleted",
	"segment-blob-renamed", "segment-committed",
}

// fate is what may become of a script whose process is killed.
type fate int

const (
	goesOn     fate = iota // as if nothing had happened
	mayBeLost              // a killed runner loses the result: a person is asked
	notStarted             // killed before it became the script: known not to have run
)

// agentEdges are those at which the agent, a runner or a stub is killed.
var agentEdges = map[string]fate{
	"incoming-fsynced": goesOn, "renamed": goesOn, "runner-locked": goesOn, "started-written": notStarted, "before-execve": notStarted,
	"child-exited": mayBeLost, "log-fsynced": mayBeLost, "exit-tmp-fsynced": mayBeLost, "exit-renamed": goesOn,
	"tombstone-written": goesOn, "trashed": goesOn,
}

// TestKillAtEveryEdge kills the process that passes an edge, once, and lets the
// deployment go on: each script runs once, and no line is missing or doubled.
func TestKillAtEveryEdge(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			for _, edge := range serverEdges {
				t.Run(edge, func(t *testing.T) { killAt(t, apptest.NewProcess(t, dialect), edge, true, goesOn) })
			}
			for edge, fate := range agentEdges {
				t.Run(edge, func(t *testing.T) { killAt(t, apptest.NewProcess(t, dialect), edge, false, fate) })
			}
		})
	}
}

func killAt(t *testing.T, p *apptest.Process, edge string, server bool, fate fate) {
	once := apptest.ShortDir(t)
	p.Env = []string{"TAKO_FAILPOINT=" + edge + ":kill", "TAKO_FAILPOINT_ONCE=" + once}
	w := newWalk(t, p, 3)
	last := script("Last", `echo "5 $$" >> "`+w.counter+`"; echo kept > kept.txt; new_octopusartifact kept.txt`)
	slow := script("Slow", "sleep 3; echo awake") // longer than a start waits for its script
	w.process(t, counted(1, w.counter), counted(2, w.counter), beside(slow), last)

	_, version := w.release(t, nil)
	task := w.deploy(t, version, w.Dev)
	deadline := time.Now().Add(time.Minute)
	var done octopus.Task
	for !done.IsCompleted && time.Now().Before(deadline) {
		if server && p.Exited() {
			p.Kill() // collects what is left of it
			p.Start()
			server = false
		}
		done = poll(t, p.Client, task)
		if done.HasPendingInterruptions {
			if fate != mayBeLost {
				t.Fatalf("a person was asked:\n%s", p.Output())
			}
			w.answer(t, task, "MarkSucceeded")
		}
	}
	if !hit(t, once, edge, &server, p) {
		t.Fatalf("nothing passed the edge %s:\n%s", edge, p.Output())
	}
	if done.State != octopus.TaskSuccess && (fate != notStarted || done.State != octopus.TaskFailed) {
		t.Fatalf("%s ended as %s: %s\n%s", task, done.State, done.ErrorMessage, p.Output())
	}
	for _, step := range []int{1, 2, 5} {
		if runs := w.runs(t)[step]; runs > 1 || runs == 0 && fate == goesOn {
			t.Errorf("the script of step %d ran %d times", step, runs)
		}
	}
	w.check(t, task, [parallelSteps + 1]bool{1: fate == goesOn, 2: fate == goesOn})
}

// poll reads a task; a server that is down gives the zero task.
func poll(t *testing.T, c *apptest.Client, task string) octopus.Task {
	t.Helper()
	time.Sleep(30 * time.Millisecond) //nolint:forbidigo // between two questions
	resp, err := c.Do(t.Context(), "GET", "/api/tasks/"+task, nil)
	if err != nil || resp.Status != 200 {
		return octopus.Task{}
	}
	return decode[octopus.Task](t, resp.Body)
}

// hit waits until the edge was passed: what comes after the end of a task (its
// cleaning up, the sealing of its log) takes a moment.
func hit(t *testing.T, once, edge string, server *bool, p *apptest.Process) bool {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); {
		if _, err := os.Stat(filepath.Join(once, edge)); err == nil {
			for *server && !p.Exited() {
				time.Sleep(10 * time.Millisecond) //nolint:forbidigo // it is dying
			}
			if *server {
				p.Kill()
				p.Start()
				*server = false
			}
			return true
		}
		time.Sleep(50 * time.Millisecond) //nolint:forbidigo // between two looks
	}
	return false
}
