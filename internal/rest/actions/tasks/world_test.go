package tasks_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/health"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/mail"
	"github.com/takodeploy/tako/internal/orchestrator"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/renewal"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/internal/rest/actions/projects"
	releaseroutes "github.com/takodeploy/tako/internal/rest/actions/releases"
	"github.com/takodeploy/tako/internal/rest/actions/server"
	taskroutes "github.com/takodeploy/tako/internal/rest/actions/tasks"
	"github.com/takodeploy/tako/internal/rest/actions/users"
	"github.com/takodeploy/tako/internal/retention"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// noPackages is a feed without any.
type noPackages struct{}

func (noPackages) Find(_ context.Context, _ ident.SpaceID, _, id, version string) (releases.Package, error) {
	return releases.Package{}, fault.New(fault.NotFound, "The package %s %s was not found.", id, version)
}

func (p noPackages) Has(ctx context.Context, space ident.SpaceID, feedID, id, version string) error {
	_, err := p.Find(ctx, space, feedID, id, version)
	return err
}

func (noPackages) Versions(context.Context, ident.SpaceID, string, string, func(string) bool) error {
	return nil
}

// world is a server that runs deployments, but has no worker: what the server does by
// itself is enough for these tests.
type world struct {
	*actiontest.World
	cfg       tasks.Config
	queue     *tasks.Service
	stop      func() // of the queue
	service   *releases.Service
	dev, prod string
}

func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		w := &world{}
		w.World = actiontest.With(t, d, func(a *actiontest.World, cfg *rest.Config) { w.wire(t, d, a, cfg) })
		w.dev = w.Create("/api/environments", `{"Name":"Dev"}`)
		w.prod = w.Create("/api/environments", `{"Name":"Prod"}`)
		fn(t, w)
	})
}

func (w *world) wire(t *testing.T, d *db.DB, a *actiontest.World, cfg *rest.Config) {
	t.Helper()
	blobs, err := blob.OpenDir(t.TempDir())
	check(t, err)
	runners := map[octopus.TaskName]tasks.Runner{}
	w.cfg = tasks.Config{
		DB: d, Blobs: blobs, RunDir: t.TempDir(), Node: "node", Version: "1", Runners: runners, Log: dbtest.Log(t),
		Timing: tasks.Timing{Look: 20 * time.Millisecond, Seal: 50 * time.Millisecond},
	}
	w.run(t)
	w.service = releases.New(releases.Config{DB: d, Store: a.Store, Queue: w.queue, Packages: noPackages{}, Sealer: a.Keys, Log: dbtest.Log(t)})
	runners[octopus.TaskDeploy] = orchestrator.New(orchestrator.Config{
		DB: d, Source: w.service, Agents: targets.New(targets.Config{Disabled: true}), Blobs: blobs, Sealer: a.Keys, Mail: mail.New(d, a.Store), Log: dbtest.Log(t),
	})
	runners[octopus.TaskRetention] = retention.New(retention.Config{DB: d, Store: a.Store, Releases: w.service, Packages: feed.New(d, blobs), Blobs: blobs, Log: dbtest.Log(t)})
	runners[octopus.TaskHealth] = health.New(health.Config{DB: d, Store: a.Store, Agents: targets.New(targets.Config{Disabled: true})})
	runners[octopus.TaskUpgrade] = renewal.New(renewal.Config{DB: d, Store: a.Store, Agents: targets.New(targets.Config{Disabled: true})})
	runners[octopus.TaskUpdateCalamari] = renewal.Tools{}
	cfg.Guard = server.Guard(d, a.Store)
	cfg.Routes = append(users.Routes(d, a.Store, a.Auth), server.Routes(server.Config{DB: d, Store: a.Store, Version: "1", Node: "node"})...)
	cfg.Routes = append(cfg.Routes, projects.Routes(d, a.Store)...)
	cfg.Routes = append(cfg.Routes, releaseroutes.Routes(d, w.service)...)
	cfg.Routes = append(cfg.Routes, taskroutes.Routes(d, a.Store, w.queue, w.service, blobs)...)
}

// run runs the queue until stop.
func (w *world) run(t *testing.T) {
	t.Helper()
	w.queue, w.stop = serve(t, w.cfg)
}

// another runs a second node, which runs health checks by a runner of its own, until
// stop or the end of the test.
func (w *world) another(t *testing.T, name string, health tasks.Runner) (stop func()) {
	t.Helper()
	cfg := w.cfg
	cfg.Node, cfg.Runners = name, maps.Clone(w.cfg.Runners)
	cfg.Runners[octopus.TaskHealth] = health
	_, stop = serve(t, cfg)
	return stop
}

func serve(t *testing.T, cfg tasks.Config) (queue *tasks.Service, stop func()) {
	t.Helper()
	queue, err := tasks.Open(t.Context(), cfg)
	check(t, err)
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- queue.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-ended, queue.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return queue, stop
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const space = "/api/Spaces-1"

// step is a step of one action, as JSON; properties are pairs.
func step(name string, kind octopus.ActionType, more string, properties ...string) string {
	var props []string
	for i := 0; i+1 < len(properties); i += 2 {
		props = append(props, fmt.Sprintf("%q:%q", properties[i], properties[i+1]))
	}
	return fmt.Sprintf(`{"Name":%q,"Actions":[{"Name":%q,"ActionType":%q,"Properties":{%s}}]%s}`, name, name, kind, strings.Join(props, ","), more)
}

// ask is a step that asks somebody.
func ask(name, teams string) string {
	return step(name, octopus.ActionManual, "", octopus.PropManualInstructions, "May **"+name+"** go on?", octopus.PropManualTeams, teams)
}

// project makes a project with a process, and a release 1.0.0 of it.
func (w *world) project(name string, steps ...string) (id string) {
	w.T.Helper()
	id = w.Create("/api/projects", fmt.Sprintf(`{"Name":%q,"ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`, name))
	w.Must(http.StatusOK, http.MethodPut, "/api/deploymentprocesses/deploymentprocess-"+id, `{"Version":1,"Steps":[`+strings.Join(steps, ",")+`]}`)
	w.release(name, "1.0.0")
	return id
}

func (w *world) release(project, version string) {
	w.T.Helper()
	w.Must(http.StatusCreated, http.MethodPost, space+"/releases/create/v1", fmt.Sprintf(`{"spaceIdOrName":"Spaces-1","projectName":%q,"releaseVersion":%q}`, project, version))
}

// deploy deploys a release and returns the task.
func (w *world) deploy(project, version, environment string, more ...string) string {
	w.T.Helper()
	var out octopus.DeployResponse
	w.Must(http.StatusCreated, http.MethodPost, space+"/deployments/create/untenanted/v1",
		fmt.Sprintf(`{"projectName":%q,"releaseVersion":%q,"environmentNames":[%q]%s}`, project, version, environment, strings.Join(more, ""))).Into(&out)
	return out.DeploymentServerTasks[0].ServerTaskID
}

func (w *world) task(id string) (t octopus.Task) {
	w.T.Helper()
	w.Get(space + "/tasks/" + id).Into(&t)
	return t
}

// await waits for what the queue does.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

// ends waits for the end of a task and checks how it ended.
func (w *world) ends(id string, want octopus.TaskState) octopus.Task {
	w.T.Helper()
	await(w.T, id+" ends", func() bool { return w.task(id).IsCompleted })
	t := w.task(id)
	if t.State != want {
		w.T.Fatalf("%s ended as %s: %s\n%s", id, t.State, t.ErrorMessage, w.log(id))
	}
	return t
}

func (w *world) log(id string) string {
	w.T.Helper()
	return string(w.Get(space + "/tasks/" + id + "/raw").Body)
}

// asked waits for the question of a task.
func (w *world) asked(task string) (i octopus.Interruption) {
	w.T.Helper()
	await(w.T, task+" asks", func() bool {
		var page octopus.Page[octopus.Interruption]
		w.Get(space + "/interruptions?pendingOnly=true&regarding=" + task).Into(&page)
		if len(page.Items) > 0 {
			i = page.Items[0]
		}
		return len(page.Items) > 0
	})
	return i
}

// answer takes a question on and answers it, as somebody.
func (w *world) answer(key, interruption, values string) {
	w.T.Helper()
	w.MustAs(key, http.StatusOK, http.MethodPut, space+"/interruptions/"+interruption+"/responsible", "")
	w.MustAs(key, http.StatusOK, http.MethodPost, space+"/interruptions/"+interruption+"/submit", values)
}

// admin is the key of the administrator.
func (*world) admin() string { return actiontest.Admin }

// may is somebody with these permissions in the space.
func (w *world) may(permissions ...string) string {
	w.T.Helper()
	return w.Person(actiontest.Role{Space: resources.DefaultSpace, Permissions: permissions})
}
