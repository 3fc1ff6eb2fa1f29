package bench

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

const (
	space    = "/api/Spaces-1"
	password = "a password to measure with" // of the administrator, where there is one
)

// dialects are the databases that there are binaries for.
func dialects(b *testing.B, fn func(b *testing.B, dialect db.Dialect)) {
	for _, dialect := range apptest.Dialects() {
		b.Run(dialect.String(), func(b *testing.B) {
			b.ReportMetric(0, "ns/op") // says nothing here
			fn(b, dialect)
		})
	}
}

// started is a running server whose worker runs too.
func started(b *testing.B, dialect db.Dialect) *apptest.Process {
	b.Helper()
	p := apptest.NewProcess(b, dialect)
	p.Start()
	awaitWorker(b, p)
	return p
}

// awaitWorker waits until the worker, which starts beside the server, answers.
func awaitWorker(b *testing.B, p *apptest.Process) {
	b.Helper()
	for start := time.Now(); p.WorkerPID() == 0; <-time.After(10 * time.Millisecond) {
		if time.Since(start) > 30*time.Second {
			b.Fatalf("the built-in worker does not start:\n%s", p.Output())
		}
	}
}

// median is the one in the middle.
func median[T cmp.Ordered](all []T) T { return apptest.Quantile(all, 0.5) }

func ms(d time.Duration) float64 { return math.Round(float64(d.Microseconds())/10) / 100 }

// memory is what /proc says of processes, in MiB.
type memory struct {
	resident float64 // the sum of resident pages: shared ones count in each process
	share    float64 // shared pages divided among those who share them
}

// memoryOf adds up server and worker.
func memoryOf(b *testing.B, p *apptest.Process) memory {
	b.Helper()
	var m memory
	for _, pid := range processes(b, p) {
		fields := proc(b, pid, "smaps_rollup")
		m.resident += fields["Rss"] / 1024
		m.share += fields["Pss"] / 1024
	}
	return m
}

func processes(b *testing.B, p *apptest.Process) []int {
	b.Helper()
	awaitWorker(b, p)
	return append([]int{p.PID(), p.WorkerPID()}, p.Runners()...)
}

// proc reads the numbers, in KiB, of a file of a process.
func proc(b *testing.B, pid int, file string) map[string]float64 {
	b.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/%s", pid, file))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	all := map[string]float64{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		name, rest, _ := strings.Cut(lines.Text(), ":")
		number, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
		if n, err := strconv.ParseFloat(number, 64); err == nil {
			all[name] = n
		}
	}
	return all
}

// forgetPeaks has the kernel measure the highest memory anew from now on.
func forgetPeaks(b *testing.B, pids ...int) {
	b.Helper()
	for _, pid := range pids {
		if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", pid), []byte("5"), 0); err != nil {
			b.Fatal(err)
		}
	}
}

// peak is the highest resident memory of a process since forgetPeaks, in MiB.
func peak(b *testing.B, pid int) float64 {
	b.Helper()
	return math.Round(proc(b, pid, "status")["VmHWM"] / 1024)
}

// idle waits as long as memory is given to settle.
func idle() { <-time.After(10 * time.Second) }

// work is a project of one step with environments that each release may go to at once.
type work struct {
	*apptest.Client
	project      octopus.Project
	environments []octopus.Environment
	version      string
}

const step = "The step"

// How often a task is looked at until it has ended.
const (
	fast = 10 * time.Millisecond
	slow = 250 * time.Millisecond
)

// newWork makes a project whose step runs a script, and a release of it.
func newWork(b *testing.B, c *apptest.Client, environments int, script string) *work {
	b.Helper()
	w := &work{Client: c}
	phase := octopus.Phase{Name: "All", OptionalDeploymentTargets: octopus.List[string]{}}
	for i := range environments {
		e := apptest.Post(b, c, space+"/environments", octopus.Environment{Name: fmt.Sprintf("Environment %d", i+1)})
		w.environments = append(w.environments, e)
		phase.OptionalDeploymentTargets = append(phase.OptionalDeploymentTargets, e.ID)
	}
	lifecycle := apptest.Post(b, c, space+"/lifecycles", octopus.Lifecycle{Name: "All at once", Phases: octopus.List[octopus.Phase]{phase}})
	w.project = apptest.Post(b, c, space+"/projects", octopus.Project{Name: "Measured", ProjectGroupID: "ProjectGroups-1", LifecycleID: lifecycle.ID})
	path := space + "/deploymentprocesses/" + w.project.DeploymentProcessID
	process := apptest.Get[octopus.DeploymentProcess](b, c, path)
	process.Steps = octopus.List[octopus.Step]{{Name: step, Actions: octopus.List[octopus.Action]{{
		Name: step, ActionType: octopus.ActionScript, Properties: octopus.Properties{
			octopus.PropRunOnServer: octopus.Plain("True"), octopus.PropScriptSource: octopus.Plain("Inline"),
			octopus.PropScriptSyntax: octopus.Plain("Bash"), octopus.PropScriptBody: octopus.Plain(script),
		},
	}}}}
	apptest.Put(b, c, path, process)
	var made struct{ ReleaseVersion string }
	c.Must(b, http.MethodPost, space+"/releases/create/v1", map[string]any{"spaceId": "Spaces-1", "projectName": w.project.Name}, &made)
	w.version = made.ReleaseVersion
	return w
}

// command asks for a deployment to an environment; skip leaves its one step out.
func (w *work) command(environment int, skip bool) map[string]any {
	body := map[string]any{
		"spaceId": "Spaces-1", "projectName": w.project.Name, "releaseVersion": w.version,
		"environmentNames": []string{w.environments[environment%len(w.environments)].Name},
	}
	if skip {
		body["skipStepNames"] = []string{step}
	}
	return body
}

// ask starts a deployment and returns its task's id.
func (w *work) ask(ctx context.Context, environment int, skip bool) (string, error) {
	resp, err := w.Do(ctx, http.MethodPost, space+"/deployments/create/untenanted/v1", w.command(environment, skip))
	if err != nil {
		return "", err
	}
	var started struct {
		DeploymentServerTasks []struct{ ServerTaskID string }
	}
	if err := json.Unmarshal(resp.Body, &started); err != nil || len(started.DeploymentServerTasks) != 1 {
		return "", fmt.Errorf("a deployment was answered with %d %s", resp.Status, resp.Body)
	}
	return started.DeploymentServerTasks[0].ServerTaskID, nil
}

// deploy is ask for the benchmark's own goroutine.
func (w *work) deploy(b *testing.B, environment int, skip bool) string {
	b.Helper()
	task, err := w.ask(b.Context(), environment, skip)
	if err != nil {
		b.Fatal(err)
	}
	return task
}

// ended waits for the success of a task. It asks as rarely as its length allows,
// for asking takes time of the same machine.
func (w *work) ended(b *testing.B, task string, every time.Duration) octopus.Task {
	b.Helper()
	for {
		doc := apptest.Get[octopus.Task](b, w.Client, "/api/tasks/"+task)
		if doc.IsCompleted {
			if !doc.FinishedSuccessfully || doc.CompletedTime == nil {
				b.Fatalf("%s ended as %s: %s", task, doc.State, doc.ErrorMessage)
			}
			return doc
		}
		<-time.After(every)
	}
}
