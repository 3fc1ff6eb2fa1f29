package releases_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
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
	releaseroutes "github.com/takodeploy/tako/internal/rest/actions/releases"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// feed has the packages that a test gives it, the newest version first.
type feed map[string][]string

func (f feed) Find(_ context.Context, _ ident.SpaceID, _, id, version string) (releases.Package, error) {
	for _, v := range f[id] {
		if v == version {
			return releases.Package{FileName: id + "." + version + ".zip"}, nil
		}
	}
	return releases.Package{}, fault.New(fault.NotFound, "The package %s %s was not found.", id, version)
}

func (f feed) Has(ctx context.Context, space ident.SpaceID, feedID, id, version string) error {
	_, err := f.Find(ctx, space, feedID, id, version)
	return err
}

func (f feed) Versions(_ context.Context, _ ident.SpaceID, _, id string, fn func(string) bool) error {
	for _, v := range f[id] {
		if !fn(v) {
			break
		}
	}
	return nil
}

// world is a server with a project "Web Shop", two environments and a target.
type world struct {
	*actiontest.World
	service            *releases.Service
	project, dev, prod string
	target, group      string
}

const script = `{"Name":"Deploy","Properties":{"Octopus.Action.TargetRoles":"web"},"Actions":[{"Name":"Deploy","ActionType":"Octopus.Script",
	"Properties":{"Octopus.Action.Script.ScriptBody":"true"},"Packages":[{"PackageId":"Acme.Web","FeedId":"feeds-builtin","AcquisitionLocation":"Server"}]}]},
	{"Name":"Tell","Actions":[{"Name":"Tell","ActionType":"Octopus.Script","Properties":{"Octopus.Action.RunOnServer":"true","Octopus.Action.Script.ScriptBody":"true"}}]}`

func onBoth(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		w := &world{}
		w.World = actiontest.With(t, d, func(a *actiontest.World, cfg *rest.Config) {
			blobs, err := blob.OpenDir(t.TempDir())
			check(t, err)
			queue, err := tasks.Open(t.Context(), tasks.Config{DB: d, Blobs: blobs, RunDir: t.TempDir(), Node: "node", Version: "1"})
			check(t, err)
			t.Cleanup(func() { check(t, queue.Close()) })
			w.service = releases.New(releases.Config{DB: d, Store: a.Store, Queue: queue, Packages: feed{"Acme.Web": {"2.0.0", "1.0.0"}}, Sealer: a.Keys, Log: dbtest.Log(t)})
			cfg.Routes = releaseroutes.Routes(d, w.service)
		})
		w.dev = w.Create("/api/environments", `{"Name":"Dev"}`)
		w.prod = w.Create("/api/environments", `{"Name":"Prod"}`)
		w.group = "ProjectGroups-1"
		w.project = w.Create("/api/projects", `{"Name":"Web Shop","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`)
		w.target = w.Create("/api/machines", fmt.Sprintf(`{"Name":"web-1","EnvironmentIds":[%q],"Roles":["web"],"Endpoint":{"CommunicationStyle":"None"}}`, w.dev))
		w.Must(http.StatusOK, http.MethodPut, "/api/deploymentprocesses/deploymentprocess-"+w.project, `{"Version":1,"Steps":[`+script+`]}`)
		fn(t, w)
	})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// release makes a release by name and returns its id.
func (w *world) release(version string) string {
	w.T.Helper()
	return w.Must(http.StatusCreated, http.MethodPost, "/api/Spaces-1/releases/create/v1",
		fmt.Sprintf(`{"spaceIdOrName":"Spaces-1","projectName":"web shop","releaseVersion":%q,"packageVersion":"1.0.0"}`, version)).Text("ReleaseId")
}

// deploy deploys a release by name and returns the deployment and its task.
func (w *world) deploy(version, environment string) (deployment, task string) {
	w.T.Helper()
	var out octopus.DeployResponse
	w.Must(http.StatusCreated, http.MethodPost, "/api/Spaces-1/deployments/create/untenanted/v1",
		fmt.Sprintf(`{"projectName":"Web Shop","releaseVersion":%q,"environmentNames":[%q]}`, version, environment)).Into(&out)
	return out.DeploymentServerTasks[0].DeploymentID, out.DeploymentServerTasks[0].ServerTaskID
}

// end ends a task as the engine does.
func (w *world) end(task string, state octopus.TaskState) {
	w.T.Helper()
	ctx := w.T.Context()
	check(w.T, w.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		t, err := tasks.Get(ctx, tx, task)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `UPDATE task SET state = ?, runnable = 0, completed_time = ? WHERE id = ?`, string(state), db.Micros(tx.Now()), task); err != nil {
			return err
		}
		return w.service.Ended(ctx, tx, t, state)
	}))
}

func TestExecutionsAPI(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		made := w.Must(http.StatusCreated, http.MethodPost, "/api/Spaces-1/releases/create/v1", `{"spaceId":"Spaces-1","projectName":"Web Shop","channelName":"Default"}`)
		if made.Text("ReleaseVersion") != "0.0.1" || made.Header.Get("Location") != "/api/Spaces-1/releases/"+made.Text("ReleaseId") {
			t.Errorf("made %s at %s", made.Body, made.Header.Get("Location"))
		}
		again := w.Must(http.StatusBadRequest, http.MethodPost, "/api/Spaces-1/releases/create/v1", `{"projectName":"Web Shop","releaseVersion":"0.0.1"}`)
		if !strings.Contains(string(again.Body), "already exists") {
			t.Errorf("answer is %s", again.Body)
		}
		same := w.Must(http.StatusCreated, http.MethodPost, "/api/Spaces-1/releases/create/v1", `{"projectName":"Web Shop","releaseVersion":"0.0.1","ignoreIfAlreadyExists":true}`)
		if same.Text("ReleaseId") != made.Text("ReleaseId") {
			t.Errorf("answer is %s", same.Body)
		}
		w.release("1.0.0")
		var out octopus.DeployResponse
		w.Must(http.StatusCreated, http.MethodPost, "/api/Spaces-1/deployments/create/untenanted/v1",
			`{"spaceIdOrName":"Spaces-1","projectName":"Web Shop","releaseVersion":"1.0.0","environmentNames":["Dev"],"skipStepNames":["Tell"],"specificMachineNames":["web-1"],"useGuidedFailure":true,"runAt":"2020-01-01T00:00:00Z"}`).Into(&out)
		if len(out.DeploymentServerTasks) != 1 || out.DeploymentServerTasks[0].ServerTaskID == "" {
			t.Fatalf("answer is %+v", out)
		}
		var d octopus.Deployment
		w.Get("/api/deployments/" + out.DeploymentServerTasks[0].DeploymentID).Into(&d)
		if !*d.UseGuidedFailure || len(d.SkipActions) != 1 || len(d.SpecificMachineIDs) != 1 || d.SpecificMachineIDs[0] != w.target || d.Links["Task"] != "/api/Spaces-1/tasks/"+d.TaskID {
			t.Errorf("deployment is %+v", d)
		}
		for body, want := range map[string]string{
			`{"projectName":"Web Shop","releaseVersion":"1.0.0"}`:                               "EnvironmentId is empty",
			`{"projectName":"Web Shop","releaseVersion":"1.0.0","environmentNames":["Prod"]}`:   "must be completed first",
			`{"projectName":"Web Shop","environmentNames":["Dev"]}`:                             "ReleaseVersion is empty",
			`{"releaseVersion":"1.0.0","environmentNames":["Dev"]}`:                             "ProjectName is empty",
			`{"projectName":"Web Shop","releaseVersion":"1.0.0","environmentNames":["Dev", 3]}`: "EnvironmentNames",
		} {
			a := w.Must(http.StatusBadRequest, http.MethodPost, "/api/Spaces-1/deployments/create/untenanted/v1", body)
			if !strings.Contains(string(a.Body), want) {
				t.Errorf("%s: answer is %s, want %q", body, a.Body, want)
			}
		}
		w.Must(http.StatusNotFound, http.MethodPost, "/api/Spaces-1/deployments/create/untenanted/v1", `{"projectName":"Web Shop","releaseVersion":"9","environmentNames":["Dev"]}`)
		w.Must(http.StatusNotFound, http.MethodPost, "/api/Spaces-1/releases/create/v1", `{"projectName":"Nothing"}`)
		w.Must(http.StatusBadRequest, http.MethodPost, "/api/Spaces-1/deployments/create/tenanted/v1", `{"projectName":"Web Shop","releaseVersion":"1.0.0","environmentName":"Dev"}`)
	})
}

func TestReleasesByID(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		made := w.Must(http.StatusCreated, http.MethodPost, "/api/Spaces-1/releases?ignoreChannelRules=false",
			fmt.Sprintf(`{"ProjectId":%q,"Version":"1.0.0","ReleaseNotes":"first","SelectedPackages":[{"ActionName":"Deploy","PackageReferenceName":"","Version":"1.0.0"}]}`, w.project))
		id := made.Text("Id")
		var r octopus.Release
		w.Get("/api/Spaces-1/releases/" + strings.ToLower(id)).Into(&r)
		if r.Version != "1.0.0" || r.ReleaseNotes != "first" || len(r.SelectedPackages) != 1 || r.Assembled.IsZero() || r.Links["Deployments"] != "/api/Spaces-1/releases/"+id+"/deployments{?skip,take}" {
			t.Errorf("release is %+v", r)
		}
		w.release("1.1.0")
		w.release("2.0.0")
		versions := func(path string) string {
			var page octopus.Page[octopus.Release]
			w.Get(path).Into(&page)
			var all []string
			for _, one := range page.Items {
				all = append(all, one.Version)
			}
			return fmt.Sprint(page.TotalResults, " ", strings.Join(all, " "))
		}
		for path, want := range map[string]string{
			"/api/Spaces-1/releases":                                                "3 2.0.0 1.1.0 1.0.0",
			"/api/Spaces-1/releases?ids=" + id:                                      "1 1.0.0",
			"/api/Spaces-1/projects/web-shop/releases?take=1&skip=1":                "3 1.1.0",
			"/api/Spaces-1/projects/web-shop/releases?searchByVersion=1.":           "2 1.1.0 1.0.0",
			"/api/Spaces-1/projects/web-shop/channels/" + r.ChannelID + "/releases": "3 2.0.0 1.1.0 1.0.0",
			"/api/Spaces-1/channels/" + r.ChannelID + "/releases?take=1":            "3 2.0.0",
		} {
			if got := versions(path); got != want {
				t.Errorf("%s: %s, want %s", path, got, want)
			}
		}
		if got := w.Get("/api/Spaces-1/projects/Web%20Shop/releases/1.1.0").Text("Version"); got != "1.1.0" {
			t.Errorf("by version: %s", got)
		}
		w.Must(http.StatusNotFound, http.MethodGet, "/api/Spaces-1/projects/web-shop/releases/7", "")

		edited := w.Must(http.StatusOK, http.MethodPut, "/api/Spaces-1/releases/"+id, `{"Version":"1.0.1","ReleaseNotes":"second","SelectedPackages":[{"ActionName":"Deploy","Version":"2.0.0"}]}`)
		edited.Into(&r)
		if r.Version != "1.0.1" || r.ReleaseNotes != "second" || r.SelectedPackages[0].Version != "2.0.0" || r.ProjectID != w.project {
			t.Errorf("edited is %s", edited.Body)
		}
		w.Must(http.StatusBadRequest, http.MethodPut, "/api/Spaces-1/releases/"+id, `{"Version":"2.0.0"}`)
		w.Must(http.StatusOK, http.MethodPost, "/api/Spaces-1/releases/"+id+"/snapshot-variables", "")
		w.Must(http.StatusOK, http.MethodPost, "/api/Spaces-1/releases/"+id+"/snapshot-variables-by-name", `{"Variables":[{"Name":"x"}]}`)
		w.Must(http.StatusBadRequest, http.MethodPost, "/api/Spaces-1/releases/"+id+"/snapshot-variables-by-name", `{"Variables":[{"Name":"x","OwnerId":"LibraryVariableSets-7"}]}`)
		var process octopus.DeploymentProcess
		w.Get(r.Links["ProjectDeploymentProcessSnapshot"]).Into(&process)
		if process.ID != r.ProjectDeploymentProcessSnapshotID || len(process.Steps) != 2 || process.ProjectID != w.project {
			t.Errorf("the frozen process is %+v", process)
		}
		w.Get("/api/Spaces-1/deploymentprocesses/deploymentprocess-" + w.project)
		if got := w.Get("/api/Spaces-1/releases/" + id + "/missingpackages").JSON(); len(got["Packages"].([]any)) != 0 {
			t.Errorf("missing packages are %v", got)
		}
		w.Must(http.StatusOK, http.MethodPut, "/api/Spaces-1/releases/"+id, `{"SelectedPackages":[{"ActionName":"Deploy","Version":"7.0"}]}`)
		if got := string(w.Get("/api/Spaces-1/releases/" + id + "/missingpackages").Body); !strings.Contains(got, `"Version":"7.0"`) {
			t.Errorf("missing packages are %s", got)
		}
	})
}

func TestLifeOfARelease(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id := w.release("1.0.0")
		first, task := w.deploy("1.0.0", "Dev")
		w.Must(http.StatusConflict, http.MethodDelete, "/api/Spaces-1/deployments/"+first, "")
		w.Must(http.StatusConflict, http.MethodDelete, "/api/Spaces-1/releases/"+id, "")
		w.end(task, octopus.TaskSuccess)

		var p octopus.LifecycleProgression
		w.Get("/api/Spaces-1/releases/" + id + "/progression").Into(&p)
		if diff := cmp.Diff([]string{w.prod}, []string(p.NextDeployments)); diff != "" || len(p.Phases) != 2 {
			t.Errorf("next: %s in %d phases", diff, len(p.Phases))
		}
		if d := p.Phases[0].Deployments; p.Phases[0].Progress != octopus.PhaseComplete || len(d) != 1 || d[0].Task == nil || d[0].Task.State != octopus.TaskSuccess || d[0].Deployment.ID != first {
			t.Errorf("the first phase is %+v", p.Phases[0])
		}
		var template octopus.DeploymentTemplate
		w.Get("/api/Spaces-1/releases/" + id + "/deployments/template").Into(&template)
		if len(template.PromoteTo) != 2 || template.PromoteTo[1].Name != "Prod" || template.IsDeploymentProcessModified || template.IsVariableSetModified || template.IsLibraryVariableSetModified {
			t.Errorf("template is %+v", template)
		}
		var preview octopus.DeploymentPreview
		w.Get("/api/Spaces-1/releases/" + id + "/deployments/preview/" + w.dev + "?includeDisabledSteps=true").Into(&preview)
		if s := preview.StepsToExecute; len(s) != 2 || len(s[0].Machines) != 1 || s[0].Machines[0].ID != w.target || s[0].ActionNumber != "1" || !s[1].CanBeSkipped {
			t.Errorf("preview is %+v", preview)
		}
		previews := w.Must(http.StatusOK, http.MethodPost, "/api/Spaces-1/releases/"+id+"/deployments/previews", fmt.Sprintf(`{"DeploymentPreviews":[{"EnvironmentId":%q},{"EnvironmentId":%q}]}`, w.dev, w.prod))
		var many []octopus.DeploymentPreview
		previews.Into(&many)
		if len(many) != 2 || !many[1].StepsToExecute[0].HasNoApplicableMachines {
			t.Errorf("previews are %s", previews.Body)
		}

		w.Must(http.StatusBadRequest, http.MethodPost, "/api/Spaces-1/releases/"+id+"/defects", `{"Description":" "}`)
		w.Must(http.StatusCreated, http.MethodPost, "/api/Spaces-1/releases/"+id+"/defects", `{"ReleaseId":"x","Description":"It smells."}`)
		w.Must(http.StatusConflict, http.MethodPost, "/api/Spaces-1/releases/"+id+"/defects", `{"Description":"Again."}`)
		blocked := w.Must(http.StatusBadRequest, http.MethodPost, "/api/Spaces-1/deployments", fmt.Sprintf(`{"ReleaseId":%q,"EnvironmentId":%q}`, id, w.prod))
		if !strings.Contains(string(blocked.Body), "defect") {
			t.Errorf("answer is %s", blocked.Body)
		}
		var defects octopus.Page[octopus.Defect]
		w.Get("/api/Spaces-1/releases/" + id + "/defects").Into(&defects)
		if len(defects.Items) != 1 || defects.Items[0].Status != octopus.DefectUnresolved || defects.Items[0].ReleaseID != id {
			t.Errorf("defects are %+v", defects.Items)
		}
		w.Must(http.StatusOK, http.MethodPost, "/api/Spaces-1/releases/"+id+"/defects/resolve", "{}")
		w.Must(http.StatusConflict, http.MethodPost, "/api/Spaces-1/releases/"+id+"/defects/resolve", "{}")
		w.Must(http.StatusOK, http.MethodPut, "/api/Spaces-1/machines/"+w.target, fmt.Sprintf(`{"Name":"web-1","EnvironmentIds":[%q,%q],"Roles":["web"],"Endpoint":{"CommunicationStyle":"None"}}`, w.dev, w.prod))
		second := w.Must(http.StatusCreated, http.MethodPost, "/api/Spaces-1/deployments", fmt.Sprintf(`{"ReleaseId":%q,"EnvironmentId":%q,"Comments":"at last"}`, id, w.prod))
		w.end(second.Text("TaskId"), octopus.TaskFailed)

		var progress octopus.ProjectProgression
		w.Get("/api/Spaces-1/projects/web-shop/progression").Into(&progress)
		if len(progress.Releases) != 1 || len(progress.Environments) != 2 || len(progress.LifecycleEnvironments["Lifecycles-1"]) != 2 {
			t.Fatalf("progression is %+v", progress)
		}
		row := progress.Releases[0]
		if d := row.Deployments[w.dev]; len(d) != 1 || !d[0].IsCurrent || d[0].State != octopus.TaskSuccess {
			t.Errorf("deployments to Dev are %+v", d)
		}
		if d := row.Deployments[w.prod]; len(d) != 1 || d[0].IsCurrent || d[0].State != octopus.TaskFailed {
			t.Errorf("deployments to Prod are %+v", d)
		}
		var page octopus.Page[octopus.Deployment]
		w.Get("/api/Spaces-1/deployments?taskState=Failed,Canceled&projects=" + w.project).Into(&page)
		if len(page.Items) != 1 || !page.Items[0].FailureEncountered || page.Items[0].EnvironmentID != w.prod {
			t.Errorf("failed deployments are %+v", page.Items)
		}
		if got := w.Get("/api/Spaces-1/deployments?environments=" + w.dev + "&partialName=1.0").IDs(); len(got) != 1 || got[0] != first {
			t.Errorf("deployments to Dev are %v", got)
		}
		if got := w.Get("/api/Spaces-1/releases/" + id + "/deployments").IDs(); len(got) != 2 {
			t.Errorf("deployments of the release are %v", got)
		}
		w.Must(http.StatusOK, http.MethodDelete, "/api/Spaces-1/deployments/"+first, "")
		w.Must(http.StatusNotFound, http.MethodGet, "/api/Spaces-1/deployments/"+first, "")
		w.Get("/api/Spaces-1/releases/" + id + "/progression").Into(&p)
		if p.Phases[0].Progress == octopus.PhaseComplete {
			t.Error("a deleted deployment counts")
		}
		w.Must(http.StatusOK, http.MethodDelete, "/api/Spaces-1/releases/"+id, "")
		w.Must(http.StatusNotFound, http.MethodGet, "/api/Spaces-1/releases/"+id, "")
		for _, table := range []string{"release", "deployment", "manifest", "current_release", "release_defect", "snapshot_use", "task", "journal"} {
			var n int64
			check(t, w.DB.Read(t.Context(), func(tx *db.Tx) error {
				return tx.QueryRow(t.Context(), `SELECT count(*) FROM `+table).Scan(&n)
			}))
			if n != 0 {
				t.Errorf("%d rows are left in %s", n, table)
			}
		}
		if n := len(w.snapshots()); n != 0 {
			t.Errorf("%d snapshots are left", n)
		}
	})
}

func (w *world) snapshots() (ids []string) {
	w.T.Helper()
	check(w.T, w.DB.Read(w.T.Context(), func(tx *db.Tx) error {
		ids = nil
		rows, err := tx.Query(w.T.Context(), `SELECT id FROM documents WHERE kind IN ('processsnapshots', 'variablesnapshots')`)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // Err tells
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			ids = append(ids, id)
		}
		return rows.Err()
	}))
	return ids
}

func TestDeleteProject(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.release("1.0.0")
		_, task := w.deploy("1.0.0", "Dev")
		w.Must(http.StatusConflict, http.MethodDelete, "/api/Spaces-1/projects/web-shop", "")
		w.end(task, octopus.TaskSuccess)
		key := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"ProjectView", "ReleaseDelete", "DeploymentDelete"}})
		w.MustAs(key, http.StatusForbidden, http.MethodDelete, "/api/Spaces-1/projects/web-shop", "")
		w.Must(http.StatusOK, http.MethodDelete, "/api/Spaces-1/projects/web-shop", "")
		w.Must(http.StatusNotFound, http.MethodGet, "/api/Spaces-1/projects/"+w.project, "")
		for _, path := range []string{"/api/Spaces-1/releases", "/api/Spaces-1/deployments", "/api/Spaces-1/channels"} {
			if got := w.Get(path).IDs(); len(got) != 0 {
				t.Errorf("%s: %v are left", path, got)
			}
		}
		if got := w.snapshots(); len(got) != 0 {
			t.Errorf("snapshots are left: %v", got)
		}
	})
}

func TestReleaseTemplate(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		var template octopus.ReleaseTemplate
		w.Get("/api/Spaces-1/deploymentprocesses/deploymentprocess-" + w.project + "/template").Into(&template)
		if template.NextVersionIncrement != "0.0.1" || len(template.Packages) != 1 {
			t.Fatalf("template is %+v", template)
		}
		want := octopus.ReleaseTemplatePackage{
			StepName: "Deploy", ActionName: "Deploy", PackageID: "Acme.Web", FeedID: "feeds-builtin", FeedName: template.Packages[0].FeedName, IsResolvable: true,
			NuGetFeedID: "feeds-builtin", NuGetFeedName: template.Packages[0].FeedName, NuGetPackageID: "Acme.Web",
		}
		if diff := cmp.Diff(want, template.Packages[0]); diff != "" || want.FeedName == "" {
			t.Error(diff)
		}
		id := w.release("1.0.0")
		w.Get("/api/Spaces-1/projects/web-shop/deploymentprocesses/template?channel=Default&releaseId=" + id).Into(&template)
		if template.LastReleaseVersion != "1.0.0" || template.NextVersionIncrement != "1.0.1" || template.Packages[0].VersionSelectedLastRelease != "1.0.0" {
			t.Errorf("template is %+v", template)
		}
		w.Must(http.StatusNotFound, http.MethodGet, "/api/Spaces-1/deploymentprocesses/deploymentprocess-Projects-99/template", "")
		w.Must(http.StatusBadRequest, http.MethodGet, "/api/Spaces-1/projects/web-shop/deploymentprocesses/template?channel=x", "")
	})
}

func TestPermissions(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		other := w.Create("/api/projects", `{"Name":"Other","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`)
		id := w.release("1.0.0")
		hidden := w.Must(http.StatusCreated, http.MethodPost, "/api/Spaces-1/releases", fmt.Sprintf(`{"ProjectId":%q}`, other)).Text("Id")
		_, task := w.deploy("1.0.0", "Dev")
		w.end(task, octopus.TaskSuccess)
		scoped := octopus.ScopedUserRole{ProjectIDs: []string{w.project}, EnvironmentIDs: []string{w.prod}}
		key := w.Person(actiontest.Role{Space: "Spaces-1", Scope: scoped, Permissions: []string{"ProjectView", "ReleaseView", "DeploymentView", "DeploymentCreate", "EnvironmentView", "ProcessView"}})
		nobody := w.Person()
		do := func(status int, method, path, body string) actiontest.Answer {
			t.Helper()
			return w.MustAs(key, status, method, path, body)
		}
		if got := do(http.StatusOK, http.MethodGet, "/api/Spaces-1/releases", "").IDs(); len(got) != 1 || got[0] != id {
			t.Errorf("releases are %v, want %s alone", got, id)
		}
		do(http.StatusNotFound, http.MethodGet, "/api/Spaces-1/releases/"+hidden, "")
		do(http.StatusNotFound, http.MethodGet, "/api/Spaces-1/releases/"+hidden+"/progression", "")
		do(http.StatusNotFound, http.MethodGet, "/api/Spaces-1/projects/other/releases", "")
		do(http.StatusNotFound, http.MethodPost, "/api/Spaces-1/deployments", fmt.Sprintf(`{"ReleaseId":%q,"EnvironmentId":%q}`, hidden, w.prod))
		if got := do(http.StatusOK, http.MethodGet, "/api/Spaces-1/deployments", "").IDs(); len(got) != 0 {
			t.Errorf("deployments to Dev are seen: %v", got)
		}
		var p octopus.LifecycleProgression
		do(http.StatusOK, http.MethodGet, "/api/Spaces-1/releases/"+id+"/progression", "").Into(&p)
		if len(p.Phases) != 1 || p.Phases[0].Name != "Prod" || p.Phases[0].Progress != octopus.PhaseCurrent || len(p.Phases[0].Deployments) != 0 {
			t.Errorf("the phases are %+v; Dev is not theirs", p.Phases)
		}
		var template octopus.DeploymentTemplate
		do(http.StatusOK, http.MethodGet, "/api/Spaces-1/releases/"+id+"/deployments/template", "").Into(&template)
		if len(template.PromoteTo) != 1 || template.PromoteTo[0].ID != w.prod {
			t.Errorf("can promote to %+v, want Prod alone", template.PromoteTo)
		}
		for _, call := range []struct{ method, path, body, want string }{
			{http.MethodPost, "/deployments", fmt.Sprintf(`{"ReleaseId":%q,"EnvironmentId":%q}`, id, w.dev), "DeploymentCreate"},
			{http.MethodPost, "/releases/create/v1", `{"projectName":"Web Shop"}`, "ReleaseCreate"},
			{http.MethodPut, "/releases/" + id, `{}`, "ReleaseEdit"},
			{http.MethodDelete, "/releases/" + id, ``, "ReleaseDelete"},
			{http.MethodPost, "/releases/" + id + "/snapshot-variables", ``, "ReleaseEdit"},
			{http.MethodPost, "/releases/" + id + "/defects", `{"Description":"x"}`, "DefectReport"},
			{http.MethodGet, "/releases/" + id + "/deployments/preview/" + w.dev, ``, "DeploymentCreate"},
		} {
			if a := do(http.StatusForbidden, call.method, "/api/Spaces-1"+call.path, call.body); !strings.Contains(string(a.Body), call.want) {
				t.Errorf("%s %s: answer is %s, want %s named", call.method, call.path, a.Body, call.want)
			}
		}
		if a := w.Do(http.MethodGet, "/api/Spaces-1/releases/"+id, nobody, ""); a.Status != http.StatusForbidden && a.Status != http.StatusNotFound {
			t.Errorf("somebody without any permission gets %d", a.Status)
		}
	})
}
