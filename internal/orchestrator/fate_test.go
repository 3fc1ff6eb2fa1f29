//go:build linux

package orchestrator_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/octopus"
)

// counted is a deployment that tells when anything ran twice, or a line was lost.
func (w *world) counted(slow ...string) []octopus.Step {
	print := func(word string, lines int) string {
		return w.run(word, fmt.Sprintf(`for i in $(seq 1 %d); do echo "%s line $i"; done
echo kept > %s.txt; new_octopusartifact %s.txt
set_octopusvariable Value "%s value"; set_octopusvariable Secret "%s s3cret" -sensitive`, lines, word, word, word, word, word))
	}
	return []octopus.Step{
		step("One", print("one", 200)),
		step("Two", print("two", 100)+"\nsleep 0.3"+strings.Join(slow, "")+"; echo two end"),
		step("Beside", print("beside", 100), beside),
		step("Last", w.run("last", `echo "$(get_octopusvariable "Octopus.Action[One].Output.Value"), $(get_octopusvariable "Octopus.Action[Beside].Output.Secret")"`)),
	}
}

// checkCounted checks a deployment of counted that has succeeded.
func (w *world) checkCounted(id string) {
	w.t.Helper()
	log := w.log(id)
	for word, lines := range map[string]int{"one": 200, "two": 100, "beside": 100} {
		if n := w.ran(word); n != 1 {
			w.t.Errorf("%s ran %d times", word, n)
		}
		var want, got []string
		for i := range lines {
			want = append(want, fmt.Sprintf("Info %s line %d", word, i+1))
		}
		for _, l := range log {
			if strings.HasPrefix(l, "Info "+word+" line ") {
				got = append(got, l)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			w.t.Errorf("lines of %s: %s", word, diff)
		}
	}
	if n := len(w.said(id, "one value, ********")); n != 1 {
		w.t.Errorf("the last step said it %d times: %q", n, log[max(0, len(log)-5):])
	}
	if diff := cmp.Diff(map[string]string{"one.txt": "kept\n", "two.txt": "kept\n", "beside.txt": "kept\n"}, w.artifacts(id)); diff != "" {
		w.t.Error(diff)
	}
	for _, u := range w.state(id).Units {
		if u.Attempt != 1 || u.Outcome != deploy.Succeeded {
			w.t.Errorf("a unit is %+v", u)
		}
	}
	if raw := w.raw(id); strings.Contains(raw, "s3cret") {
		w.t.Error("a secret is in the database")
	}
	// There may be other lines of the engine's own, but of scripts no more.
	if extra := slices.DeleteFunc(slices.Clone(log), func(l string) bool {
		return strings.Contains(l, " line ") || strings.Contains(l, "two end") || strings.Contains(l, "one value") ||
			strings.Contains(l, "tries again") || strings.Contains(l, "completed successfully")
	}); len(extra) > 0 {
		w.t.Errorf("further lines: %q", extra)
	}
}

// serverEdges are the places at which a server may die or fail in the middle of a
// deployment.
var serverEdges = []string{
	"claim-committed", "intent-committed", "start-sent", "start-replied", "ack-committed", "logs-fetched", "log-committed",
	"artifact-stored", "result-committed", "complete-sent", "cleanup-deleted", "lease-released", "heartbeat-lost",
	"commit-ambiguous", "segment-blob-renamed", "segment-committed",
}

// TestServerEdges has a server die, or get an error, at every edge: once each, and
// what follows goes on with everything as it was.
func TestServerEdges(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"kill", "err"} {
		for _, dialect := range dbtest.Dialects() {
			t.Run(mode+"/"+dialect.String(), func(t *testing.T) {
				t.Parallel()
				for _, edge := range serverEdges {
					never := edge == "heartbeat-lost" && dialect == db.SQLite || edge == "lease-released"
					if never {
						continue // see TestOwnerChanges for the latter
					}
					t.Run(edge, func(t *testing.T) { dieAt(t, newWorld(t, dialect), edge, mode) })
				}
			})
		}
	}
}

func dieAt(t *testing.T, w *world, edge, mode string) {
	t.Helper()
	once := t.TempDir()
	env := []string{failpoint.Env + "=" + edge + ":" + mode, failpoint.EnvOnce + "=" + once}
	steps := w.counted()
	held := edge == "ack-committed" || edge == "logs-fetched"
	if held {
		// Longer than a start waits for its script, and with news all the time.
		steps = w.counted(fmt.Sprintf("\n"+`until test -e '%s'; do echo "held line on"; sleep 0.2; done; true`, filepath.Join(w.dir, "go-two")))
	}
	id := w.queue(false, steps...)
	exited := make(chan error, 1)
	start := func() *exec.Cmd {
		cmd := w.child(env...)
		go func() {
			_, err := cmd.Process.Wait()
			exited <- err
		}()
		return cmd
	}
	start()
	hit := func() bool {
		_, err := os.Stat(filepath.Join(once, edge))
		return err == nil
	}
	settled := func() bool {
		return w.task(id).State.Completed() && hit() && w.count(`SELECT (SELECT count(*) FROM ticket) + (SELECT count(*) FROM task_log)`) == 0
	}
	deaths := 0
	defer func() {
		if t.Failed() {
			task := w.task(id)
			t.Logf("task %s %q, edge passed %t, deaths %d, log:\n%s", task.State, task.Error, hit(), deaths, strings.Join(w.log(id), "\n"))
		}
	}()
	await(t, "it ends, the edge "+edge+" was passed, and its death was seen", func() bool {
		select {
		case err := <-exited:
			if deaths++; deaths > 2 {
				t.Fatalf("the server ends again and again: %v", err)
			}
			start()
		default:
		}
		if held && hit() {
			w.letGo("two")
		}
		return settled() && (mode != "kill" || deaths > 0)
	})
	w.ends(id, octopus.TaskSuccess)
	w.checkCounted(id)
	if mode == "kill" && deaths != 1 {
		t.Errorf("the server died %d times", deaths)
	}
}

// Owners come and go in good order, while scripts run, without output and with it.
func TestOwnerChanges(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		id := w.queue(false, step("Mask", `mask_octopusvalue "pl4in"; echo "pl4in one"`), step("Silent", w.run("silent", w.hold("silent")+`echo "pl4in two"; set_octopusvariable A "$(date +%s) pl4in"`)),
			step("Loud", w.run("loud", `for i in $(seq 1 60); do echo "loud line $i"; sleep 0.02; done; echo "$(get_octopusvariable "Octopus.Action[Silent].Output.A")"`)))
		for i := range 5 {
			stop := w.serve(fmt.Sprint("node-", i))
			await(t, "the silent script runs", func() bool { return w.ran("silent") == 1 })
			stop()
		}
		stop := w.serve("node-a")
		w.letGo("silent")
		for i := range 3 {
			await(t, "lines come", func() bool { return len(w.said(id, "loud line")) > 10*i })
			stop()
			stop = w.serve(fmt.Sprint("node-b", i))
		}
		w.ends(id, octopus.TaskSuccess)
		if w.ran("silent") != 1 || w.ran("loud") != 1 {
			t.Errorf("silent ran %d times, loud %d times", w.ran("silent"), w.ran("loud"))
		}
		var want []string
		for i := range 60 {
			want = append(want, fmt.Sprintf("Info loud line %d", i+1))
		}
		if diff := cmp.Diff(want, w.said(id, "loud line")); diff != "" {
			t.Error(diff)
		}
		// What the first step had masked stays masked for all owners after it.
		if strings.Contains(w.raw(id), "pl4in") || len(w.said(id, "Info ******** two")) != 1 {
			t.Errorf("%q", w.log(id))
		}
	})
}

// A cancellation that one owner heard of is brought to its end by the next.
func TestCancelThroughOwners(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		child := w.child()
		id := w.queue(false, step("Long", w.run("long", "trap '' TERM; while :; do sleep 1; done")), step("After", w.run("after", "")))
		await(t, "it runs", func() bool { return w.ran("long") == 1 })
		w.cancel(id)
		await(t, "its owner knows", func() bool { return w.state(id).Cancelled })
		if err := child.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		w.serve("a")
		begin := time.Now()
		w.ends(id, octopus.TaskCanceled)
		if took := time.Since(begin); took > time.Minute {
			t.Errorf("it took %v", took)
		}
		if w.ran("after") != 0 {
			t.Error("a step ran after the cancellation")
		}
	})
}

// A runner that is killed takes the result of its script with it: a person is
// asked, neither a retry nor guided failure answers, and each answer is obeyed.
func TestUnknownFate(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		choice deploy.Choice
		state  octopus.TaskState
		first  int
		second int
	}{
		{deploy.MarkSucceeded, octopus.TaskSuccess, 1, 1},
		{deploy.MarkFailed, octopus.TaskFailed, 1, 0},
		{deploy.RunAgain, octopus.TaskSuccess, 2, 1},
	} {
		t.Run(string(c.choice), func(t *testing.T) {
			t.Parallel()
			each(t, func(t *testing.T, w *world) {
				w.serve("a")
				id := w.queue(true, step("First", w.run("first", "echo begins; test $(grep -c first '"+filepath.Join(w.dir, "ran")+"') = 2 || exec sleep 1000"), property(octopus.PropRetryCount, "3"), property(octopus.PropRetryBackoff, "0")),
					step("Second", w.run("second", "")))
				await(t, "it runs", func() bool { return len(w.said(id, "Info begins")) == 1 })
				ticket := w.ticket(id, 0)
				if !w.killIn(ticket, "lock") || !w.killIn(ticket, "started") {
					t.Fatal("there is no runner to kill")
				}
				question := w.asked(id)
				if n := w.ran("first"); n != 1 {
					t.Fatalf("it ran %d times before anybody was asked", n)
				}
				if err := w.answer(question, deploy.Retry); err == nil {
					t.Error("an unknown fate takes the answers of a failure")
				}
				if err := w.answer(question, c.choice); err != nil {
					t.Fatal(err)
				}
				w.ends(id, c.state)
				if w.ran("first") != c.first || w.ran("second") != c.second {
					t.Errorf("first ran %d times, second %d times\n%s", w.ran("first"), w.ran("second"), strings.Join(w.log(id), "\n"))
				}
				await(t, "the agent has forgotten the scripts", func() bool { return w.count(`SELECT count(*) FROM ticket`) == 0 })
			})
		})
	}
}

// A person who ends the deployment instead of answering leaves no script behind.
func TestCancelUnknownFate(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		id := w.queue(false, step("First", w.run("first", "echo begins; exec sleep 1000")))
		await(t, "it runs", func() bool { return len(w.said(id, "Info begins")) == 1 })
		ticket := w.ticket(id, 0)
		if !w.killIn(ticket, "lock") {
			t.Fatal("there is no runner to kill")
		}
		if !w.killIn(ticket, "started") {
			t.Fatal("there is no script to kill")
		}
		w.asked(id)
		w.cancel(id)
		w.ends(id, octopus.TaskCanceled)
		await(t, "the agent has forgotten the script", func() bool { return w.count(`SELECT count(*) FROM ticket`) == 0 })
	})
}

// An agent that is killed comes back, again and again, and its scripts go on.
func TestAgentIsKilled(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.serve("a")
		id := w.queue(false, w.counted()[0], step("Long", w.run("long", `for i in $(seq 1 100); do echo "long line $i"; sleep 0.02; done; echo x > long.txt; new_octopusartifact long.txt; `+w.hold("on"))), step("After", w.run("after", "")))
		killed := 0
		for killed < 3 {
			await(t, "the script goes on", func() bool { return len(w.said(id, "long line")) > 20*killed })
			if w.killAgent() {
				killed++
			}
		}
		await(t, "its output is there", func() bool { return len(w.said(id, "long line")) == 100 })
		w.killAgent() // and the artifact is fetched from the next one
		w.letGo("on")
		w.ends(id, octopus.TaskSuccess)
		for _, word := range []string{"one", "long", "after"} {
			if n := w.ran(word); n != 1 {
				t.Errorf("%s ran %d times", word, n)
			}
		}
		if got := w.artifacts(id); got["long.txt"] != "x\n" {
			t.Errorf("artifacts %q", got)
		}
		var want []string
		for i := range 100 {
			want = append(want, fmt.Sprintf("Info long line %d", i+1))
		}
		if diff := cmp.Diff(want, w.said(id, "long line")); diff != "" {
			t.Error(diff)
		}
	})
}

// soaking says that long walks are wanted.
func soaking() bool { return os.Getenv("TAKO_TEST_SOAK") != "" }

// A walk of random kills: server, agent, at any time. Each script runs once.
func TestRandomKills(t *testing.T) {
	t.Parallel()
	rounds := 3
	if soaking() {
		rounds = 100
	}
	each(t, func(t *testing.T, w *world) {
		id := w.queue(false, w.counted()...)
		child := w.child()
		for i := range rounds {
			<-time.After(time.Duration(150+37*(i%11)) * time.Millisecond)
			if w.task(id).State.Completed() {
				w.ends(id, octopus.TaskSuccess)
				w.checkCounted(id)
				if err := os.Remove(filepath.Join(w.dir, "ran")); err != nil && !errors.Is(err, os.ErrNotExist) {
					t.Fatal(err)
				}
				id = w.queue(false, w.counted()...)
			}
			if i%3 == 2 {
				w.killAgent()
			} else {
				_ = child.Process.Kill() // it may have ended
				_ = child.Wait()
				child = w.child()
			}
		}
		w.ends(id, octopus.TaskSuccess)
		w.checkCounted(id)
	})
}
