package tasks_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// queued makes a task of the system, as the server's own schedule does.
func (w *world) queued(name octopus.TaskName) string {
	w.T.Helper()
	var id string
	ctx := w.T.Context()
	check(w.T, w.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		t, err := w.queue.Create(ctx, tx, tasks.New{Name: name, Description: "The system's own"})
		if err == nil {
			id = t.ID
		}
		return err
	}))
	return id
}

// TestPoint22MaintenanceLetsQueuedTasksRun: in maintenance mode only administrators
// change or queue anything; whoever else tries is told so, and reads on. What runs,
// what is queued and what is scheduled comes to its end, and so do the system's tasks.
func TestPoint22MaintenanceLetsQueuedTasksRun(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		project := w.project("Web", ask("Gate", ""))
		key := w.may("EnvironmentView", "EnvironmentCreate", "EnvironmentEdit", "ProjectView", "ProcessView", "ReleaseView", "ReleaseCreate", "DeploymentView", "DeploymentCreate",
			"TaskView", "TaskCancel", "InterruptionView", "InterruptionSubmit")
		proceed := func(task string) {
			t.Helper()
			w.answer(w.admin(), w.asked(task).ID, `{"Result":"Proceed"}`)
			w.ends(task, octopus.TaskSuccess)
		}
		proceed(w.deploy("Web", "1.0.0", "Dev")) // so that it may go to Prod
		running := w.deploy("Web", "1.0.0", "Dev")
		question := w.asked(running)
		behind := w.deploy("Web", "1.0.0", "Dev") // of the same tag
		later := w.deploy("Web", "1.0.0", "Prod", fmt.Sprintf(`,"runAt":%q`, time.Now().Add(time.Hour).UTC().Format(time.RFC3339)))
		var release octopus.Release
		w.Get(space + "/projects/" + project + "/releases/1.0.0").Into(&release)

		w.Must(http.StatusOK, http.MethodPut, "/api/maintenanceconfiguration", `{"IsInMaintenanceMode":true}`)
		deploy := fmt.Sprintf(`{"ReleaseId":%q,"EnvironmentId":%q}`, release.ID, w.prod)
		for _, change := range []struct{ method, path, body string }{
			{http.MethodPost, "/environments", `{"Name":"Another"}`},
			{http.MethodPut, "/environments/" + w.dev, `{"Name":"Dev","Description":"new"}`},
			{http.MethodPost, "/releases", `{"ProjectId":"` + project + `"}`},
			{http.MethodPost, "/deployments", deploy},
			{http.MethodPost, "/tasks/" + behind + "/cancel", ``},
			{http.MethodPut, "/interruptions/" + question.ID + "/responsible", ``},
			{http.MethodPost, "/interruptions/" + question.ID + "/submit", `{"Result":"Proceed"}`},
		} {
			a := w.MustAs(key, http.StatusForbidden, change.method, space+change.path, change.body)
			if said := string(a.Body); !strings.Contains(said, "maintenance mode") || !strings.Contains(said, "AdministerSystem") {
				t.Errorf("%s %s: %s", change.method, change.path, said)
			}
		}
		for _, path := range []string{"/environments", "/tasks", "/tasks/" + running + "/raw", "/releases/" + release.ID + "/progression", "/interruptions"} {
			w.MustAs(key, http.StatusOK, http.MethodGet, space+path, "")
		}
		for path, body := range map[string]string{
			"/channels/rule-test":                               `{"version":"1.0.0","versionRange":"[1.0,2.0)"}`,
			"/releases/" + release.ID + "/deployments/previews": fmt.Sprintf(`{"DeploymentPreviews":[{"EnvironmentId":%q}]}`, w.dev),
		} {
			w.MustAs(key, http.StatusOK, http.MethodPost, space+path, body)
		}
		if w.Get("/api/serverstatus").JSON()["IsInMaintenanceMode"] != true {
			t.Error("the status does not say so")
		}

		w.ends(w.queued(octopus.TaskRetention), octopus.TaskSuccess)
		proceed(running)
		proceed(behind)
		w.sql(`UPDATE task SET queue_time = ? WHERE id = ?`, db.Micros(time.Now().Add(-time.Second)), later) // its time has come
		proceed(later)
		proceed(w.deploy("Web", "1.0.0", "Dev")) // an administrator's

		w.Must(http.StatusOK, http.MethodPut, "/api/maintenanceconfiguration", `{"IsInMaintenanceMode":false}`)
		w.MustAs(key, http.StatusCreated, http.MethodPost, space+"/environments", `{"Name":"Another"}`)
		proceed(w.MustAs(key, http.StatusCreated, http.MethodPost, space+"/deployments", deploy).Text("TaskId"))
	})
}

// held runs tasks until the test lets one go.
type held chan string

func (h held) Run(ctx context.Context, l *tasks.Lease) error {
	if _, err := l.Facts(ctx); err != nil {
		return err
	}
	select {
	case <-h:
		return l.Finish(ctx, octopus.TaskSuccess, "", tasks.Batch{})
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (held) Ended(context.Context, *db.Tx, *tasks.Task, octopus.TaskState) error { return nil }

// TestDrainedNode: a node that is drained ends what it runs and takes nothing new, and
// another one does; while all are drained, tasks wait. A stopped queue holds the
// tasks of its space alone.
func TestDrainedNode(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		first, second := make(held), make(held)
		w.cfg.Runners[octopus.TaskHealth] = first
		start := func() string {
			t.Helper()
			id := w.queued(octopus.TaskHealth)
			await(t, id+" runs", func() bool { return w.task(id).State == octopus.TaskExecuting })
			return id
		}
		on := func(node string, drained bool, running int64) {
			t.Helper()
			await(t, fmt.Sprintf("%s is drained %t with %d tasks", node, drained, running), func() bool {
				var n octopus.ServerNode
				w.Get("/api/octopusservernodes/" + node).Into(&n)
				return n.IsInMaintenanceMode == drained && int64(n.RunningTaskCount) == running
			})
		}
		drain := func(node string, drained bool) {
			t.Helper()
			w.Must(http.StatusOK, http.MethodPut, "/api/octopusservernodes/"+node, fmt.Sprintf(`{"MaxConcurrentTasks":5,"IsInMaintenanceMode":%t}`, drained))
		}
		ran := func(id, node string) {
			t.Helper()
			if got := w.task(id); string(got.ServerNode) != node {
				t.Errorf("%s was run by %s, want %s", id, got.ServerNode, node)
			}
		}

		w.project("Web", ask("Gate", ""))
		old, asking := start(), w.deploy("Web", "1.0.0", "Dev")
		question := w.asked(asking)
		var n octopus.ServerNode
		w.Get("/api/octopusservernodes/node").Into(&n)
		for _, path := range []string{n.Links["Tasks"], "/api/tasks?node=NODE"} {
			if ids := w.Get(path + "&running=true").IDs(); !slices.Contains(ids, old) {
				t.Errorf("%s has %v, and not %s", path, ids, old)
			}
		}
		if ids := w.Get("/api/tasks?node=OctopusServerNodes-77").IDs(); len(ids) != 0 {
			t.Errorf("a node that there is not has %v", ids)
		}
		on("node", false, 1) // who waits for an answer holds no slot
		drain("node", true)
		waits := w.queued(octopus.TaskHealth)
		w.answer(w.admin(), question.ID, `{"Result":"Proceed"}`)
		w.ends(asking, octopus.TaskSuccess) // it had begun there
		ran(asking, "node")
		on("node", true, 1)
		if got := w.task(waits); got.State != octopus.TaskQueued {
			t.Errorf("%s is %s on a drained node", waits, got.State)
		}
		if log := w.Get("/api/tasks/" + waits + "/details"); !strings.Contains(string(log.Body), "is drained") {
			t.Errorf("%s does not say why it waits: %s", waits, log.Body)
		}

		other := w.another(t, "other", second)
		await(t, waits+" runs elsewhere", func() bool { return w.task(waits).State == octopus.TaskExecuting })
		ran(waits, "other")
		on("other", false, 1)
		first <- old
		w.ends(old, octopus.TaskSuccess)
		ran(old, "node")
		on("node", true, 0)

		drain("other", true)
		last := w.queued(octopus.TaskHealth)
		if health := w.Get("/api/serverstatus/health").JSON(); health["IsEntireClusterDrained"] != true {
			t.Errorf("%v", health)
		}
		second <- waits
		w.ends(waits, octopus.TaskSuccess)
		on("other", true, 0)
		if got := w.task(last); got.State != octopus.TaskQueued {
			t.Errorf("%s is %s while all nodes are drained", last, got.State)
		}

		// Of a stopped queue nothing new begins, and the system's tasks do.
		w.Must(http.StatusOK, http.MethodPut, "/api/spaces/Spaces-1", `{"Name":"Default","TaskQueueStopped":true,"SpaceManagersTeams":["teams-administrators"]}`)
		stopped := w.deploy("Web", "1.0.0", "Dev")
		other()
		drain("node", false)
		await(t, last+" runs", func() bool { return w.task(last).State == octopus.TaskExecuting })
		ran(last, "node")
		first <- last
		w.ends(last, octopus.TaskSuccess)
		if got := w.task(stopped); got.State != octopus.TaskQueued {
			t.Errorf("%s is %s in a space whose queue is stopped", stopped, got.State)
		}
		w.Must(http.StatusOK, http.MethodPut, "/api/spaces/Spaces-1", `{"Name":"Default","SpaceManagersTeams":["teams-administrators"]}`)
		w.answer(w.admin(), w.asked(stopped).ID, `{"Result":"Proceed"}`)
		w.ends(stopped, octopus.TaskSuccess)
	})
}
