package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/octopus"
)

const (
	// crowdSteps are the steps of each deployment: the first runs while the server is
	// upgraded, the second while it goes back, the third after that.
	crowdSteps = 3
	// crowdPatience is how long all deployments may take to get anywhere.
	crowdPatience = 10 * time.Minute
)

// crowd is many deployments of one release that run at the same time.
type crowd struct {
	*upgraded
	dir          string // what the scripts write, and what they wait for
	environments []octopus.Environment
	tasks        []string
}

func newCrowd(t *testing.T, u *upgraded, size int) *crowd {
	t.Helper()
	w := &crowd{upgraded: u, dir: apptest.ShortDir(t)}
	phase := octopus.Phase{Name: "All", OptionalDeploymentTargets: octopus.List[string]{}}
	for i := range size {
		e := u.environment(fmt.Sprintf("Place %d", i+1))
		w.environments = append(w.environments, e)
		phase.OptionalDeploymentTargets = append(phase.OptionalDeploymentTargets, e.ID)
	}
	nodes := apptest.Get[octopus.Page[octopus.ServerNode]](t, u.Client, "/api/octopusservernodes")
	node := nodes.Items[0]
	node.MaxConcurrentTasks = size
	apptest.Put(t, u.Client, "/api/octopusservernodes/"+node.ID, node)

	m := &model{Client: u.Client}
	m.Lifecycle = apptest.Post(t, u.Client, space+"/lifecycles", octopus.Lifecycle{Name: "All at once", Phases: octopus.List[octopus.Phase]{phase}})
	m.Project = apptest.Post(t, u.Client, space+"/projects", octopus.Project{Name: "Everywhere", ProjectGroupID: "ProjectGroups-1", LifecycleID: m.Lifecycle.ID})
	var steps []octopus.Step
	for n := range crowdSteps {
		steps = append(steps, w.held(n+1))
	}
	m.process(t, steps...)
	_, version := m.release(t, nil)
	for _, e := range w.environments {
		w.tasks = append(w.tasks, m.deploy(t, version, e))
	}
	return w
}

// held is a step that says that it runs, and writes lines: to its log, and the same to a file. It goes on
// until its gate is open, and waits without a process that could be counted as its own.
func (w *crowd) held(n int) octopus.Step {
	return script(fmt.Sprintf("Step %d", n), fmt.Sprintf(`
own=%[1]q/#{Octopus.Environment.Id}.%[2]d
echo $$ >> "$own.ran"
n=0
say() { n=$((n+1)); line="<#{Octopus.Environment.Id} %[2]d $n> $RANDOM äöü & \"$RANDOM\""; echo "$line"; echo "$line" >> "$own.said"; }
for i in 1 2 3 4 5 6 7 8 9 10; do say; done
mkfifo "$own.pause"
exec 9<> "$own.pause"
until [ -e %[1]q/gate.%[2]d ]; do say; read -r -t 1 -u 9 nothing || true; done
for i in 1 2 3 4 5 6 7 8 9 10; do say; done
`, w.dir, n))
}

// open lets a step go on.
func (w *crowd) open(t *testing.T, n int) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(w.dir, fmt.Sprintf("gate.%d", n)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
}

// run waits until a step runs in all deployments.
func (w *crowd) run(t *testing.T, n int) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.After(crowdPatience); ; {
		began, err := filepath.Glob(filepath.Join(w.dir, fmt.Sprintf("*.%d.said", n)))
		if err != nil {
			t.Fatal(err)
		}
		if len(began) == len(w.tasks) {
			return
		}
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("step %d runs in %d of %d deployments\n%s", n, len(began), len(w.tasks), w.Output())
		}
	}
}

// written is what the scripts of a deployment have written, and how often each ran.
func (w *crowd) written(t *testing.T, e octopus.Environment) (said string, ran int) {
	t.Helper()
	for n := range crowdSteps {
		own := filepath.Join(w.dir, fmt.Sprintf("%s.%d", e.ID, n+1))
		if starts := lines(t, own+".ran"); len(starts) != 1 {
			t.Errorf("%s: the script of step %d ran %d times", e.ID, n+1, len(starts))
		} else {
			ran++
		}
		raw, err := os.ReadFile(own + ".said")
		if err != nil {
			t.Error(err)
		}
		said += string(raw)
	}
	return said, ran
}

// logged is what of that its log has, and where it stands there.
func (w *crowd) logged(t *testing.T, task string, e octopus.Environment) string {
	t.Helper()
	var b strings.Builder
	for line := range strings.Lines(string(w.Must(t, http.MethodGet, "/api/tasks/"+task+"/raw", nil, nil).Body)) {
		if at := strings.Index(line, "<"+e.ID+" "); at >= 0 {
			b.WriteString(line[at:])
		}
	}
	return b.String()
}

// deployments has many run while the server is upgraded and goes back.
func (g *goals) deployments(t *testing.T, dialect db.Dialect, program []byte) {
	u := newUpgraded(t, dialect)
	u.site.publish(t, next, program)
	size := apptest.Size(t, "TAKO_TEST_GOALS_DEPLOYMENTS", 100)
	w := newCrowd(t, u, size)
	w.run(t, 1)
	u.do(0, "Version "+next+" serves", "--yes", "--probation", "1s")
	there := u.step(upgrade.Switched).Took()
	w.open(t, 1)
	w.run(t, 2)
	u.do(0, "Version "+u.old+" serves again", "rollback")
	back := u.step(upgrade.RolledBack).Took()
	w.open(t, 2)
	w.open(t, 3)

	succeeded, ran, same, all := 0, 0, 0, 0
	for i, task := range w.tasks {
		done := wait(t, u.Client, task, crowdPatience)
		if done.State == octopus.TaskSuccess {
			succeeded++
		} else {
			t.Errorf("%s ended as %s: %s", task, done.State, done.ErrorMessage)
		}
		said, scripts := w.written(t, w.environments[i])
		ran += scripts
		all += strings.Count(said, "\n")
		if got := w.logged(t, task, w.environments[i]); got == said {
			same++
		} else {
			t.Errorf("%s: its log has\n%s\nand its scripts have written\n%s", task, got, said)
		}
	}
	g.seen(t, "running deployments across upgrade and rollback, "+dialect.String(), fmt.Sprintf("%d of %d succeed, each script runs once, logs are what was written", size, size),
		"%d succeeded, %d of %d scripts ran once, %d logs of %d lines in all are what was written; switch %s, rollback %s",
		succeeded, ran, size*crowdSteps, same, all, there.Round(time.Millisecond), back.Round(time.Millisecond))
}
