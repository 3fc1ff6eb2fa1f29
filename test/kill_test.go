package test

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/octopus"
)

// kills is how many times each kind of process is killed on each database.
func kills(t *testing.T) int {
	if soaking() {
		return 50
	}
	if testing.Short() {
		return 2
	}
	t.Helper()
	return 10
}

// soaking says that the long tests are wanted.
func soaking() bool { return os.Getenv("TAKO_TEST_SOAK") != "" }

const (
	parallelSteps = 5
	linesPerStep  = 40
)

// counted is a script that says that it ran, and writes numbered lines.
func counted(n int, counter string) octopus.Step {
	name := fmt.Sprintf("Step %d", n)
	s := script(name, fmt.Sprintf(`
echo "%[1]d $$" >> %[2]q
for i in $(seq 1 %[3]d); do
  echo "step %[1]d line $i"
  sleep 0.02
done
`, n, counter, linesPerStep))
	if n > 1 {
		s = beside(s)
	}
	return s
}

// walk is a server whose deployments are disturbed.
type walk struct {
	*apptest.Process
	*model
	counter string
	random  *rand.Rand
}

func newWalk(t *testing.T, p *apptest.Process, seed uint64) *walk {
	t.Helper()
	p.Start()
	return walkOn(t, p, seed)
}

// walkOn is newWalk with a server that runs.
func walkOn(t *testing.T, p *apptest.Process, seed uint64) *walk {
	t.Helper()
	w := &walk{Process: p, model: newModel(t, p.Client), counter: filepath.Join(apptest.ShortDir(t), "counter"), random: rand.New(rand.NewPCG(seed, seed))}
	var steps []octopus.Step
	for n := range parallelSteps {
		steps = append(steps, counted(n+1, w.counter))
	}
	w.process(t, steps...)
	return w
}

// runs counts how often each step's script ran.
func (w *walk) runs(t *testing.T) [parallelSteps + 1]int {
	t.Helper()
	var n [parallelSteps + 1]int
	body, err := os.ReadFile(w.counter)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		step, _, _ := strings.Cut(line, " ")
		if i, err := strconv.Atoi(step); err == nil && i <= parallelSteps {
			n[i]++
		}
	}
	return n
}

var numbered = regexp.MustCompile(`step (\d+) line (\d+)$`)

// check holds the log against what the scripts wrote: every line once, in order.
func (w *walk) check(t *testing.T, task string, whole [parallelSteps + 1]bool) {
	t.Helper()
	raw := string(w.Process.Must(t, http.MethodGet, "/api/tasks/"+task+"/raw", nil, nil).Body)
	var next [parallelSteps + 1]int
	for line := range strings.Lines(raw) {
		m := numbered.FindStringSubmatch(strings.TrimRight(line, "\n"))
		if m == nil {
			continue
		}
		step, _ := strconv.Atoi(m[1])
		number, _ := strconv.Atoi(m[2])
		if number != next[step]+1 {
			t.Errorf("%s: step %d has line %d after line %d", task, step, number, next[step])
		}
		next[step] = number
	}
	for step := 1; step <= parallelSteps; step++ {
		if whole[step] && next[step] != linesPerStep {
			t.Errorf("%s: step %d has %d lines, want %d", task, step, next[step], linesPerStep)
		}
	}
	if t.Failed() {
		t.Logf("the log:\n%s", raw)
	}
}

// disturb runs a deployment during which fn is called at a random moment.
func (w *walk) disturb(t *testing.T, fn func()) octopus.Task {
	t.Helper()
	if err := os.Remove(w.counter); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	_, version := w.release(t, nil)
	task := w.deploy(t, version, w.Dev)
	time.Sleep(time.Duration(w.random.Int64N(int64(1800 * time.Millisecond)))) //nolint:forbidigo // the random moment
	fn()
	return wait(t, w.Process.Client, task, 4*time.Minute)
}

// TestKillServer kills the server at random moments. Every deployment succeeds,
// each script ran once, no line of a log is missing or doubled.
func TestKillServer(t *testing.T) {
	t.Parallel()
	killWalk(t, func(t *testing.T, w *walk) octopus.Task {
		return w.disturb(t, func() {
			w.Process.Kill()
			w.Process.Start()
		})
	})
}

// TestKillWorker kills the built-in worker at random moments: its runners live on,
// so the outcome is the same as if nothing had happened.
func TestKillWorker(t *testing.T) {
	t.Parallel()
	killWalk(t, func(t *testing.T, w *walk) octopus.Task {
		return w.disturb(t, func() {
			if pid := w.WorkerPID(); pid != 0 {
				if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
			}
		})
	})
}

func killWalk(t *testing.T, one func(*testing.T, *walk) octopus.Task) {
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			w := newWalk(t, apptest.NewProcess(t, dialect), 1)
			for n := range kills(t) {
				w.undisturbed(t, fmt.Sprint("kill ", n+1), one(t, w))
			}
			healthy(t, w.Process)
		})
	}
}

// undisturbed checks that a deployment ended as if nothing had happened.
func (w *walk) undisturbed(t *testing.T, what string, done octopus.Task) {
	t.Helper()
	if done.State != octopus.TaskSuccess {
		t.Errorf("%s: %s ended as %s: %s", what, done.ID, done.State, done.ErrorMessage)
	}
	for step, runs := range w.runs(t) {
		if step > 0 && runs != 1 {
			t.Errorf("%s: the script of step %d ran %d times", what, step, runs)
		}
	}
	w.check(t, done.ID, [parallelSteps + 1]bool{true, true, true, true, true, true})
	if t.Failed() {
		t.Fatalf("server output:\n%s", w.Output())
	}
}

// TestKillRunner kills runners at random moments. That loses the result of a
// script, which nobody can know: it is asked about, and never run again by itself.
func TestKillRunner(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			w := newWalk(t, apptest.NewProcess(t, dialect), 2)
			asked := 0
			for n := range kills(t) {
				done := w.disturb(t, func() {
					if pids := w.Runners(); len(pids) > 0 {
						_ = syscall.Kill(pids[w.random.IntN(len(pids))], syscall.SIGKILL) // it may just have ended
					}
				})
				for !done.IsCompleted {
					asked++
					w.answer(t, done.ID, "MarkSucceeded")
					done = wait(t, w.Process.Client, done.ID, 4*time.Minute)
				}
				if done.State != octopus.TaskSuccess {
					t.Errorf("kill %d: %s ended as %s: %s", n+1, done.ID, done.State, done.ErrorMessage)
				}
				for step, runs := range w.runs(t) {
					if step > 0 && runs > 1 {
						t.Errorf("kill %d: the script of step %d ran %d times", n+1, step, runs)
					}
				}
				w.check(t, done.ID, [parallelSteps + 1]bool{})
				if t.Failed() {
					t.Fatalf("server output:\n%s", w.Output())
				}
			}
			t.Logf("%d results were lost and asked about", asked)
		})
	}
}

// answer takes on the pending interruptions of a task and answers them.
func (w *walk) answer(t *testing.T, task, choice string) {
	t.Helper()
	page := apptest.Get[octopus.Page[octopus.Interruption]](t, w.Process.Client, space+"/interruptions?pendingOnly=true&regarding="+task)
	for _, i := range page.Items {
		w.Process.Must(t, http.MethodPut, space+"/interruptions/"+i.ID+"/responsible", nil, nil)
		w.Process.Must(t, http.MethodPost, space+"/interruptions/"+i.ID+"/submit", map[string]string{"Guidance": choice, "Notes": "seen"}, nil)
	}
}
