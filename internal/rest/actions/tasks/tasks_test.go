package tasks_test

import (
	"net/http"
	"slices"
	"testing"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	actions "github.com/takodeploy/tako/internal/rest/actions/tasks"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// TestRightsOnOneTask reads and cancels single tasks with roles of every scope: they
// are seen exactly where the list shows them.
func TestRightsOnOneTask(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		blobs, err := blob.OpenDir(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		queue, err := tasks.Open(t.Context(), tasks.Config{DB: d, Blobs: blobs, Log: dbtest.Log(t), RunDir: t.TempDir(), Node: "here"})
		if err != nil {
			t.Fatal(err)
		}
		w := actiontest.With(t, d, func(_ *actiontest.World, cfg *rest.Config) {
			cfg.Routes = actions.Routes(d, cfg.Store, queue, nil, blobs)
		})
		group := w.Create("/api/projectgroups", `{"Name":"Shops"}`)
		project := w.Create("/api/projects", `{"Name":"Web","LifecycleId":"Lifecycles-1","ProjectGroupId":"`+group+`"}`)
		environment := w.Create("/api/environments", `{"Name":"Dev"}`)
		elsewhere := w.Create("/api/environments", `{"Name":"Elsewhere"}`)
		other := w.Create("/api/projectgroups", `{"Name":"Others"}`)
		queued := func() (id string) {
			err := d.Write(t.Context(), func(tx *db.Tx) error {
				task, err := queue.Create(t.Context(), tx, tasks.New{
					Space: "Spaces-1", Name: octopus.TaskDeploy, Description: "Deploy", ProjectID: project, EnvironmentID: environment,
				})
				if err == nil {
					id = task.ID
				}
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		for name, c := range map[string]struct {
			scope octopus.ScopedUserRole
			sees  bool
		}{
			"everywhere":        {octopus.ScopedUserRole{}, true},
			"its project group": {octopus.ScopedUserRole{ProjectGroupIDs: []string{group}}, true},
			"its group in its":  {octopus.ScopedUserRole{ProjectGroupIDs: []string{group}, EnvironmentIDs: []string{environment}}, true},
			"its project":       {octopus.ScopedUserRole{ProjectIDs: []string{project}}, true},
			"another group":     {octopus.ScopedUserRole{ProjectGroupIDs: []string{other}}, false},
			"another's place":   {octopus.ScopedUserRole{ProjectGroupIDs: []string{group}, EnvironmentIDs: []string{elsewhere}}, false},
		} {
			id := queued()
			key := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"TaskView", "TaskCancel"}, Scope: c.scope})
			if listed := slices.Contains(w.MustAs(key, http.StatusOK, http.MethodGet, "/api/tasks?take=100", "").IDs(), id); listed != c.sees {
				t.Errorf("%s: in the list: %t, want %t", name, listed, c.sees)
			}
			status := http.StatusOK
			if !c.sees {
				status = http.StatusNotFound
			}
			for _, call := range [][2]string{{http.MethodGet, "/api/tasks/" + id}, {http.MethodGet, "/api/Spaces-1/tasks/" + id}, {http.MethodPost, "/api/tasks/" + id + "/cancel"}} {
				if got := w.Do(call[0], call[1], key, ""); got.Status != status {
					t.Errorf("%s: %s %s: %d, want %d: %s", name, call[0], call[1], got.Status, status, got.Body)
				}
			}
		}
	})
}
