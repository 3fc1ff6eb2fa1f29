package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

// serverEdges are the moments of a deployment at which something happens to the server.
var serverEdges = []string{
	"claim-committed", "intent-committed", "start-sent", "start-replied", "ack-committed", "logs-fetched",
	"log-committed", "artifact-stored", "result-committed", "complete-sent", "cleanup-deleted",
	"segment-blob-renamed", "segment-committed", "lease-released", heartbeatLost, "commit-ambiguous",
}

const (
	heartbeatLost = "heartbeat-lost" // owners have a heartbeat on PostgreSQL only
	leaseReleased = "lease-released" // passed by a server that is told to end
	cancelWritten = "cancel-written" // passed by an agent that is told to cancel
)

// serverEdgesOn are those that a server with that database passes.
func serverEdgesOn(dialect db.Dialect) []string {
	return slices.DeleteFunc(slices.Clone(serverEdges), func(edge string) bool {
		return edge == heartbeatLost && dialect == db.SQLite
	})
}

// armedLate are edges that a starting server passes too. Nothing happens there
// before the deployment runs.
var armedLate = []string{heartbeatLost, "commit-ambiguous"}

// passedWaiting are edges that are passed while a script runs on, so one has to.
var passedWaiting = []string{"ack-committed", "logs-fetched", heartbeatLost, leaseReleased}

// fate is what may become of a script whose process is killed or fails.
type fate int

const (
	goesOn     fate = iota // as if nothing had happened
	mayBeLost              // a killed runner loses the result: a person is asked
	notStarted             // stopped before it became the script: known not to have run
)

// agentEdges are those at which the agent, a runner or a stub is killed or fails.
var agentEdges = map[string]fate{
	"incoming-fsynced": goesOn, "renamed": goesOn, "runner-locked": goesOn, "started-written": notStarted, "before-execve": notStarted,
	"child-exited": mayBeLost, "log-fsynced": mayBeLost, "exit-tmp-fsynced": mayBeLost, "exit-renamed": goesOn,
	"tombstone-written": goesOn, "trashed": goesOn,
}

// edged is a server whose processes are disturbed at edges, once at each.
type edged struct {
	*walk
	t        *testing.T
	edges    []string
	stall    time.Duration // how long they stand still
	once     string
	armed    bool
	stop     bool // at lease-released the server has to be told to end
	restarts int
}

// newEdged starts a server whose processes do mode at each of the edges, once.
func newEdged(t *testing.T, p *apptest.Process, mode string, edges ...string) *edged {
	t.Helper()
	e := &edged{t: t, edges: edges, once: apptest.ShortDir(t), stop: slices.Contains(edges, leaseReleased)}
	if length, ok := strings.CutPrefix(mode, "stall="); ok {
		var err error
		if e.stall, err = time.ParseDuration(length); err != nil {
			t.Fatal(err)
		}
	}
	for _, edge := range e.late() {
		// As if it had happened already.
		if err := os.WriteFile(e.mark(edge), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.Env = append(p.Env, "TAKO_FAILPOINT="+strings.Join(edges, ":"+mode+",")+":"+mode, "TAKO_FAILPOINT_ONCE="+e.once)
	e.walk = newWalk(t, p, 3)
	return e
}

func (e *edged) mark(edge string) string { return filepath.Join(e.once, edge) }

// late are its edges that are armed late.
func (e *edged) late() []string {
	return slices.DeleteFunc(slices.Clone(e.edges), func(edge string) bool { return !slices.Contains(armedLate, edge) })
}

// arm lets the late edges happen from now on.
func (e *edged) arm() {
	e.armed = true
	for _, edge := range e.late() {
		if err := os.Remove(e.mark(edge)); err != nil {
			e.t.Fatal(err)
		}
	}
}

// missing are the edges that nothing has passed yet.
func (e *edged) missing() (left []string) {
	for _, edge := range e.edges {
		if _, err := os.Stat(e.mark(edge)); err != nil {
			left = append(left, edge)
		}
	}
	return left
}

// restart starts the server again when it has ended.
func (e *edged) restart() {
	if e.Exited() {
		e.Kill() // collects what is left of it
		e.Start()
		e.restarts++
	}
}

// letGo is the file for which the slow script waits until every edge that needs it
// was passed.
func (e *edged) letGo() string { return filepath.Join(e.once, "let-go") }

// steps are two counted scripts, a slow one beside them, and a last one with an artifact.
func (e *edged) steps(slow time.Duration) {
	last := script("Last", `echo "5 $$" >> "`+e.counter+`"; echo kept > kept.txt; new_octopusartifact kept.txt`)
	sleep := script("Slow", fmt.Sprintf("sleep %.1f; for i in $(seq 2000); do [ -e %q ] && break; sleep 0.05; done; echo awake", slow.Seconds(), e.letGo()))
	e.process(e.t, counted(1, e.counter), counted(2, e.counter), beside(sleep), last)
}

// drive deploys and follows the deployment through everything that happens, until it
// has ended and every edge was passed.
func (e *edged) drive(fate fate, limit time.Duration) octopus.Task {
	t := e.t
	t.Helper()
	_, version := e.release(t, nil)
	task := e.deploy(t, version, e.Dev)
	var done octopus.Task
	deadline := time.Now().Add(limit)
	for !done.IsCompleted || len(e.missing()) > 0 {
		if time.Now().After(deadline) {
			t.Fatalf("%s is %s: %s; nothing passed the edges %v:\n%s", task, done.State, done.ErrorMessage, e.missing(), e.Output())
		}
		e.restart()
		if !slices.ContainsFunc(e.missing(), func(edge string) bool { return slices.Contains(passedWaiting, edge) }) {
			if err := os.WriteFile(e.letGo(), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if doc := poll(t, e.Process.Client, task); doc.ID != "" {
			done = doc
		}
		if !e.armed && done.State == octopus.TaskExecuting {
			e.arm()
		}
		if runs := e.runs(t); e.stop && runs[1]+runs[2] == 2 {
			e.stop = false
			e.Stop()
			e.Start()
			e.restarts++
		}
		if done.HasPendingInterruptions {
			if fate != mayBeLost {
				t.Fatalf("a person was asked:\n%s", e.Output())
			}
			e.answer(t, task, "MarkSucceeded")
		}
	}
	return done
}

// goOn waits until whatever stands still at an edge has had time to go on: what it
// does then must change nothing any more.
func (e *edged) goOn() {
	const after = 500 * time.Millisecond
	for _, edge := range e.edges {
		info, err := os.Stat(e.mark(edge))
		if err != nil {
			e.t.Fatal(err)
		}
		if e.stall > 0 {
			time.Sleep(time.Until(info.ModTime().Add(e.stall + after))) //nolint:forbidigo // the stall is one of time
		}
	}
}

// judge holds the end of a deployment against what may become of its scripts.
func (e *edged) judge(done octopus.Task, fate fate) {
	t := e.t
	t.Helper()
	e.goOn()
	if done.State != octopus.TaskSuccess && (fate != notStarted || done.State != octopus.TaskFailed) {
		t.Fatalf("%s ended as %s: %s\n%s", done.ID, done.State, done.ErrorMessage, e.Output())
	}
	for _, step := range []int{1, 2, 5} {
		if runs := e.runs(t)[step]; runs > 1 || runs == 0 && fate == goesOn {
			t.Errorf("the script of step %d ran %d times", step, runs)
		}
	}
	e.check(t, done.ID, [parallelSteps + 1]bool{1: fate == goesOn, 2: fate == goesOn})
}

// TestPoint20KillAtEveryEdge kills the process that passes an edge, once, and lets the
// deployment go on: each script runs once, and no line is missing or doubled.
func TestPoint20KillAtEveryEdge(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			for _, edge := range serverEdgesOn(dialect) {
				t.Run(edge, func(t *testing.T) {
					e := newEdged(t, apptest.NewProcess(t, dialect), "kill", edge)
					e.steps(time.Second)
					done := e.drive(goesOn, 4*time.Minute)
					for start := time.Now(); e.restarts == 0; e.restart() {
						if time.Since(start) > 2*time.Minute {
							t.Fatal("the server was not killed")
						}
						time.Sleep(10 * time.Millisecond) //nolint:forbidigo // it is dying
					}
					e.judge(done, goesOn)
				})
			}
			for edge, fate := range agentEdges {
				t.Run(edge, func(t *testing.T) {
					e := newEdged(t, apptest.NewProcess(t, dialect), "kill", edge)
					e.steps(time.Second)
					e.judge(e.drive(fate, 4*time.Minute), fate)
				})
			}
		})
	}
}

// edgesOn are all edges of a deployment that is not cancelled.
func edgesOn(dialect db.Dialect) []string {
	all := serverEdgesOn(dialect)
	for edge := range agentEdges {
		all = append(all, edge)
	}
	slices.Sort(all)
	return all
}

// TestStallAtEveryEdge stops the process that passes an edge for a while: that
// changes nothing but the time it takes. A deployment stalls for half a second at
// each of the edges; in the long tests there is one for each edge, which stalls for a
// minute: longer than an owner's life lasts that gives no sign of it.
func TestStallAtEveryEdge(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			if !soaking() {
				e := newEdged(t, apptest.NewProcess(t, dialect), "stall=500ms", edgesOn(dialect)...)
				e.steps(time.Second)
				e.judge(e.drive(goesOn, 4*time.Minute), goesOn)
				return
			}
			for _, edge := range edgesOn(dialect) {
				t.Run(edge, func(t *testing.T) {
					t.Parallel()
					e := newEdged(t, apptest.NewProcess(t, dialect), "stall=1m", edge)
					slow := 3 * time.Second
					if edge == heartbeatLost {
						slow = 70 * time.Second // it outlasts the stall
						second := apptest.NewProcess(t, db.SQLite)
						second.Data, second.Database = e.Data, e.Database
						second.Env = []string{"TAKO_NODE=second"}
						second.Start()
					}
					e.steps(slow)
					begin := time.Now()
					e.judge(e.drive(goesOn, 5*time.Minute), goesOn)
					t.Logf("it took %v", time.Since(begin).Round(time.Second))
				})
			}
		})
	}
}

// TestErrorAtEveryEdge has an error at each edge, once: a disk or a connection that
// says no. What can be repeated is; a script that could not be started is known not
// to have run; one whose result got lost is asked about.
func TestErrorAtEveryEdge(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			for _, edges := range errorsTogether(dialect) {
				t.Run(edges[0], func(t *testing.T) {
					fate := max(agentEdges[edges[0]], refusedAt[edges[0]])
					e := newEdged(t, apptest.NewProcess(t, dialect), "err", edges...)
					slow := 100 * time.Millisecond
					if slices.Contains(serverEdges, edges[0]) {
						slow = time.Second
					}
					e.steps(slow)
					e.judge(e.drive(fate, 4*time.Minute), fate)
				})
			}
		})
	}
}

// refusedAt are edges at which an agent that fails refuses the script.
var refusedAt = map[string]fate{"incoming-fsynced": notStarted, "renamed": notStarted}

// errorsTogether are the edges whose errors one deployment can meet, since the same
// may become of its scripts; in the long tests each edge has a deployment of its own.
func errorsTogether(dialect db.Dialect) (groups [][]string) {
	if !soaking() {
		return [][]string{
			append(serverEdgesOn(dialect), "runner-locked", "exit-renamed", "tombstone-written", "trashed"),
			{"incoming-fsynced", "started-written"},
			{"renamed", "before-execve"},
			{"child-exited", "log-fsynced", "exit-tmp-fsynced"},
		}
	}
	for _, edge := range edgesOn(dialect) {
		groups = append(groups, []string{edge})
	}
	return groups
}

// TestCancelAtItsEdge cancels a deployment whose agent is killed, stands still or
// fails once the cancellation is on its disk. The task has its end within its ten
// seconds all the same, and the script has one too.
func TestCancelAtItsEdge(t *testing.T) {
	t.Parallel()
	stall := "stall=2s"
	if soaking() {
		stall = "stall=1m"
	}
	for _, dialect := range apptest.Dialects() {
		for _, mode := range []string{"kill", stall, "err"} {
			t.Run(dialect.String()+"/"+mode, func(t *testing.T) {
				t.Parallel()
				e := newEdged(t, apptest.NewProcess(t, dialect), mode, cancelWritten)
				e.process(t, script("Long", fmt.Sprintf(`echo "1 $$" >> %q; exec sleep 600`, e.counter)), script("After", fmt.Sprintf(`echo "2 $$" >> %q`, e.counter)))
				_, version := e.release(t, nil)
				task := e.deploy(t, version, e.Dev)
				for start := time.Now(); e.runs(t)[1] == 0; time.Sleep(20 * time.Millisecond) { //nolint:forbidigo // it is being started
					if time.Since(start) > time.Minute {
						t.Fatalf("the script does not start:\n%s", e.Output())
					}
				}
				body, err := os.ReadFile(e.counter)
				if err != nil {
					t.Fatal(err)
				}
				pid, err := strconv.Atoi(strings.TrimSpace(strings.TrimPrefix(string(body), "1 ")))
				if err != nil {
					t.Fatal(err)
				}
				begin := time.Now()
				e.Process.Must(t, http.MethodPost, "/api/tasks/"+task+"/cancel", nil, nil)
				done := wait(t, e.Process.Client, task, 4*time.Minute)
				if took := time.Since(begin); done.State != octopus.TaskCanceled || took > 45*time.Second {
					t.Errorf("%s ended as %s after %v: %s", task, done.State, took, done.ErrorMessage)
				}
				for start := time.Now(); syscall.Kill(pid, 0) == nil; time.Sleep(20 * time.Millisecond) { //nolint:forbidigo // it is being killed
					if time.Since(start) > e.stall+30*time.Second {
						t.Fatalf("the script lives on:\n%s", e.Output())
					}
				}
				if left := e.missing(); len(left) > 0 {
					t.Errorf("nothing passed %v", left)
				}
				if runs := e.runs(t); runs[1] != 1 || runs[2] != 0 {
					t.Errorf("the scripts ran %v times", runs)
				}
			})
		}
	}
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
