package dashboard_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/internal/rest/actions/dashboard"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// noPackages are the packages of processes that use none.
type noPackages struct{}

func (noPackages) Find(context.Context, ident.SpaceID, string, string, string) (releases.Package, error) {
	return releases.Package{}, fault.New(fault.NotFound, "none")
}

func (p noPackages) Has(ctx context.Context, space ident.SpaceID, feedID, id, version string) error {
	_, err := p.Find(ctx, space, feedID, id, version)
	return err
}

func (noPackages) Versions(context.Context, ident.SpaceID, string, string, func(string) bool) error {
	return nil
}

type world struct {
	*actiontest.World
	service    *releases.Service
	statements atomic.Int64
	dev, prod  string
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func onBoth(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			w := &world{}
			d, err := db.Open(t.Context(), dbtest.URL(t, dialect), db.Options{Log: dbtest.Log(t), OnStatement: func(string) { w.statements.Add(1) }})
			check(t, err)
			t.Cleanup(func() { check(t, d.Close()) })
			w.World = actiontest.With(t, d, func(a *actiontest.World, cfg *rest.Config) {
				blobs, err := blob.OpenDir(t.TempDir())
				check(t, err)
				queue, err := tasks.Open(t.Context(), tasks.Config{DB: d, Blobs: blobs, RunDir: t.TempDir(), Node: "node", Version: "1"})
				check(t, err)
				t.Cleanup(func() { check(t, queue.Close()) })
				w.service = releases.New(releases.Config{DB: d, Store: a.Store, Queue: queue, Packages: noPackages{}, Sealer: a.Keys, Log: dbtest.Log(t)})
				cfg.Routes = dashboard.Routes(d, a.Store, w.service)
			})
			w.dev, w.prod = w.Create("/api/environments", `{"Name":"Dev"}`), w.Create("/api/environments", `{"Name":"Prod"}`)
			fn(t, w)
		})
	}
}

// project makes a project with one step.
func (w *world) project(name string) string {
	w.T.Helper()
	id := w.Create("/api/projects", fmt.Sprintf(`{"Name":%q,"ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`, name))
	w.Must(http.StatusOK, http.MethodPut, "/api/deploymentprocesses/deploymentprocess-"+id,
		`{"Version":1,"Steps":[{"Name":"Tell","Actions":[{"Name":"Tell","ActionType":"Octopus.Script","Properties":{"Octopus.Action.RunOnServer":"true","Octopus.Action.Script.ScriptBody":"true"}}]}]}`)
	return id
}

// deploy deploys a version, made if it is not there, and ends the deployment; in
// no state it stays queued.
func (w *world) deploy(project, version, environment string, state octopus.TaskState) {
	w.T.Helper()
	ctx := w.T.Context()
	made, err := w.service.CreateRelease(ctx, releases.NewRelease{Space: "Spaces-1", Project: project, Version: version, IgnoreIfExists: true}, nil)
	check(w.T, err)
	d, err := w.service.Deploy(ctx, releases.NewDeployments{Space: "Spaces-1", ReleaseID: made.Release.ID, Environments: []string{environment}}, nil)
	check(w.T, err)
	if state == "" {
		return
	}
	check(w.T, w.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		t, err := tasks.Get(ctx, tx, d[0].TaskID)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE task SET state = ?, runnable = 0 WHERE id = ?`, string(state), t.ID); err != nil {
			return err
		}
		return w.service.Ended(ctx, tx, t, state)
	}))
}

func cells(items []octopus.DashboardItem) []string {
	out := []string{}
	for _, i := range items {
		out = append(out, fmt.Sprint(i.ProjectID, " ", i.EnvironmentID, " ", i.ReleaseVersion, " ", i.State))
	}
	slices.Sort(out)
	return out
}

func (w *world) board(key, path string) (out octopus.Dashboard) {
	w.T.Helper()
	w.MustAs(key, http.StatusOK, http.MethodGet, path, "").Into(&out)
	return out
}

func TestDashboard(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		web, shop := w.project("Web"), w.project("Shop")
		w.deploy(web, "1.0.0", w.dev, octopus.TaskSuccess)
		w.deploy(web, "1.0.0", w.prod, octopus.TaskSuccess)
		w.deploy(web, "1.1.0", w.dev, octopus.TaskSuccess)
		w.deploy(web, "1.1.0", w.prod, octopus.TaskFailed)
		w.deploy(shop, "2.0.0", w.dev, "")
		d := w.board(actiontest.Admin, "/api/dashboard")
		want := []string{web + " " + w.dev + " 1.1.0 Success", web + " " + w.prod + " 1.1.0 Failed", shop + " " + w.dev + " 2.0.0 Queued"}
		slices.Sort(want)
		if diff := cmp.Diff(want, cells(d.Items)); diff != "" {
			t.Errorf("items (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{web + " " + w.prod + " 1.0.0 Success"}, cells(d.PreviousItems)); diff != "" {
			t.Errorf("previous (-want +got):\n%s", diff)
		}
		if len(d.Projects) != 2 || len(d.ProjectGroups) != 1 || len(d.Environments) != 2 || d.IsFiltered || *d.ProjectLimit != 200 {
			t.Errorf("%+v", d)
		}
		if diff := cmp.Diff([]string{w.dev, w.prod}, []string(d.Projects[0].EnvironmentIDs)); diff != "" {
			t.Errorf("environments of a project (-want +got):\n%s", diff)
		}
		for path, want := range map[string]int{
			"/api/dashboard?projectId=" + web: 2, "/api/dashboard?releaseId=" + d.Items[0].ReleaseID: 2, "/api/dashboard?take=1": 1, "/api/dashboard?take=1&skip=1": 2,
			"/api/dashboard?showAll=true": 3, "/api/Spaces-1/dashboard/dynamic?projects=" + web + "&environments=" + w.prod: 1, "/api/dashboard?selectedTenants=Tenants-1": 0,
		} {
			got := w.board(actiontest.Admin, path)
			if len(got.Items) != want {
				t.Errorf("%s: %v", path, cells(got.Items))
			}
			if strings.Contains(path, "dynamic") && len(got.PreviousItems) != 0 {
				t.Errorf("%s: %v", path, cells(got.PreviousItems))
			}
		}
		if d := w.board(actiontest.Admin, "/api/dashboard/dynamic?includePrevious=true"); len(d.PreviousItems) != 1 || !d.PreviousItems[0].IsPrevious {
			t.Errorf("%v", cells(d.PreviousItems))
		}
	})
}

// TestPoint17DashboardShowsOwnPart gives somebody one project in one environment.
func TestPoint17DashboardShowsOwnPart(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		web, shop := w.project("Web"), w.project("Shop")
		for _, p := range []string{web, shop} {
			w.deploy(p, "1.0.0", w.dev, octopus.TaskSuccess)
			w.deploy(p, "1.0.0", w.prod, octopus.TaskSuccess)
		}
		all := []string{"ProjectView", "EnvironmentView", "DeploymentView", "ReleaseView", "ProjectGroupView", "TenantView"}
		key := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: all, Scope: octopus.ScopedUserRole{ProjectIDs: []string{web}, EnvironmentIDs: []string{w.dev}}})
		for _, path := range []string{"/api/dashboard", "/api/dashboard?showAll=true", "/api/dashboard/dynamic", "/api/dashboard/dynamic?projects=" + shop + "," + web + "&environments=" + w.prod + "," + w.dev} {
			d := w.board(key, path)
			if diff := cmp.Diff([]string{web + " " + w.dev + " 1.0.0 Success"}, cells(d.Items)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", path, diff)
			}
			if len(d.Projects) != 1 || len(d.Environments) != 1 || len(d.Projects[0].EnvironmentIDs) != 1 {
				t.Errorf("%s: %+v", path, d)
			}
		}
		none := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"ProjectView"}})
		if d := w.board(none, "/api/dashboard"); len(d.Items)+len(d.Environments)+len(d.ProjectGroups) != 0 || len(d.Projects) != 2 {
			t.Errorf("%+v", d)
		}
	})
}

// TestStatementsAreConstant counts the statements of a dashboard of one project
// and of one of many.
func TestStatementsAreConstant(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		count := func(path string) int64 {
			t.Helper()
			w.Get(path) // what is cached is
			before := w.statements.Load()
			w.Get(path)
			return w.statements.Load() - before
		}
		w.deploy(w.project("First"), "1.0.0", w.dev, "")
		few := count("/api/dashboard")
		for n := range 12 {
			p := w.project(fmt.Sprint("More ", n))
			w.deploy(p, "1.0.0", w.dev, octopus.TaskSuccess)
			w.deploy(p, "1.0.0", w.prod, "")
		}
		if many := count("/api/dashboard"); many != few || many > 25 {
			t.Errorf("%d statements for one project, %d for thirteen", few, many)
		}
	})
}

// TestStreamedDashboard compares a dashboard that is too large to be held with the
// same in pages.
func TestStreamedDashboard(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		first := w.project("First")
		w.deploy(first, "1.0.0", w.dev, octopus.TaskSuccess)
		w.deploy(first, "1.1.0", w.dev, octopus.TaskFailed)
		const more = 300
		check(t, w.DB.Write(t.Context(), func(tx *db.Tx) error {
			for n := range more {
				p := octopus.Project{Name: fmt.Sprint("Project ", n), ProjectGroupID: "ProjectGroups-1", LifecycleID: "Lifecycles-1"}
				if _, err := w.Store.In(tx).Create(t.Context(), "projects", "Spaces-1", "", &p); err != nil {
					return err
				}
			}
			return nil
		}))
		w.deploy("Project 299", "1.0.0", w.dev, octopus.TaskSuccess)
		whole := w.board(actiontest.Admin, "/api/dashboard?showAll=true")
		if len(whole.Projects) != more+1 || len(whole.Items) != 2 || len(whole.PreviousItems) != 1 {
			t.Fatalf("%d projects, %v, %v", len(whole.Projects), cells(whole.Items), cells(whole.PreviousItems))
		}
		var paged octopus.Dashboard
		for skip := 0; skip <= more; skip += 100 {
			d := w.board(actiontest.Admin, fmt.Sprintf("/api/dashboard?take=100&skip=%d", skip))
			paged.Projects, paged.Items, paged.PreviousItems = append(paged.Projects, d.Projects...), append(paged.Items, d.Items...), append(paged.PreviousItems, d.PreviousItems...)
			if !d.IsFiltered {
				t.Error("a page does not say that there is more")
			}
		}
		byID := func(d *octopus.Dashboard) string {
			slices.SortFunc(d.Items, func(a, b octopus.DashboardItem) int { return strings.Compare(a.ID, b.ID) })
			body, err := json.Marshal([]any{d.Projects, d.Items, d.PreviousItems})
			check(t, err)
			return string(body)
		}
		if diff := cmp.Diff(byID(&paged), byID(&whole)); diff != "" {
			t.Errorf("(-pages +whole):\n%s", diff)
		}
	})
}

func TestConfiguration(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		web, shop := w.project("Web"), w.project("Shop")
		w.deploy(web, "1.0.0", w.dev, octopus.TaskSuccess)
		w.deploy(shop, "1.0.0", w.dev, octopus.TaskSuccess)
		put := w.Must(200, http.MethodPut, "/api/dashboardconfiguration", `{"IncludedProjectIds":["`+web+`"],"ProjectLimit":10}`)
		if diff := cmp.Diff(string(put.Body), string(w.Get("/api/dashboardconfiguration").Body)); diff != "" {
			t.Errorf("(-put +got):\n%s", diff)
		}
		if d := w.board(actiontest.Admin, "/api/dashboard"); len(d.Projects) != 1 || *d.ProjectLimit != 10 {
			t.Errorf("%+v", d.Projects)
		}
		if d := w.board(actiontest.Admin, "/api/dashboard?showAll=true"); len(d.Projects) != 2 {
			t.Errorf("all: %+v", d.Projects)
		}
		other := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"ProjectView"}})
		if d := w.board(other, "/api/dashboard"); len(d.Projects) != 2 {
			t.Errorf("of somebody else: %+v", d.Projects)
		}
		w.Must(200, http.MethodPut, "/api/dashboardconfiguration", `{"IncludedProjectGroupIds":["ProjectGroups-1"]}`)
		if d := w.board(actiontest.Admin, "/api/dashboard"); len(d.Projects) != 2 {
			t.Errorf("of the group: %+v", d.Projects)
		}
		w.Must(400, http.MethodPut, "/api/dashboardconfiguration", `{"ProjectLimit":-1}`)
	})
}
