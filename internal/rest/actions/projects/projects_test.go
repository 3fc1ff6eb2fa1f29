package projects_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

func TestDeploymentSettings(t *testing.T) {
	t.Parallel()
	w := newWorld(actiontest.New(t, routes))
	path := "/api/projects/" + w.web + "/deploymentsettings"
	var s octopus.DeploymentSettings
	w.Get(path).Into(&s)
	if s.ID != "deploymentsettings-"+w.web || s.ProjectID != w.web || s.DefaultGuidedFailureMode != octopus.GuidedFailureEnvironment || s.ConnectivityPolicy.SkipMachineBehavior != octopus.SkipNone ||
		s.ProjectConnectivityPolicy.SkipMachineBehavior != octopus.SkipNone || s.VersioningStrategy.Template != octopus.DefaultVersionTemplate {
		t.Errorf("%+v", s)
	}
	project := func() (p octopus.Project) {
		w.Get("/api/projects/" + w.web).Into(&p)
		return p
	}
	// A client changes one name of the policy and sends the other back as it was.
	for i, body := range []string{
		`{"ConnectivityPolicy":{"SkipMachineBehavior":"SkipUnavailableMachines"},"ProjectConnectivityPolicy":{"SkipMachineBehavior":"None"},"DefaultGuidedFailureMode":"On","VersioningStrategy":{"Template":"1.0.i"},"CancelQueuedTasks":true,"ReleaseNotesTemplate":"notes"}`,
		`{"ConnectivityPolicy":{"SkipMachineBehavior":"SkipUnavailableMachines"},"ProjectConnectivityPolicy":{"SkipMachineBehavior":"SkipUnavailableMachines","TargetRoles":["web"]},"VersioningStrategy":{"Template":"1.0.i"},"CancelQueuedTasks":true}`,
		`{"ProjectConnectivityPolicy":{"SkipMachineBehavior":"SkipUnavailableMachines","AllowDeploymentsToNoTargets":true},"CancelQueuedTasks":true,"ForcePackageDownload":true}`,
	} {
		var put octopus.DeploymentSettings
		w.Must(200, http.MethodPut, path, body).Into(&put)
		p := project()
		if p.ProjectConnectivityPolicy.SkipMachineBehavior != octopus.SkipUnavailable || p.DefaultGuidedFailureMode != put.DefaultGuidedFailureMode || !put.CancelQueuedTasks {
			t.Errorf("%d: %+v and %+v", i, p, put)
		}
		if diff := cmp.Diff(p.ProjectConnectivityPolicy, *put.ConnectivityPolicy); diff != "" {
			t.Errorf("%d: project and settings (-project +settings):\n%s", i, diff)
		}
		if i == 1 && !slices.Equal(p.ProjectConnectivityPolicy.TargetRoles, []string{"web"}) {
			t.Errorf("%+v", p.ProjectConnectivityPolicy)
		}
	}
	if p := project(); !p.ForcePackageDownload || p.ReleaseNotesTemplate != "" || p.DefaultGuidedFailureMode != octopus.GuidedFailureEnvironment || p.IncludedLibraryVariableSetIDs[0] != w.library {
		t.Errorf("%+v", p)
	}
	// A client that replaces the project knows nothing of some settings.
	w.Must(200, http.MethodPut, "/api/projects/"+w.web, `{"Name":"Web","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1","DefaultGuidedFailureMode":"Off"}`)
	var after octopus.DeploymentSettings
	w.Get(path).Into(&after)
	if after.DefaultGuidedFailureMode != octopus.GuidedFailureOff || !after.CancelQueuedTasks || after.ForcePackageDownload {
		t.Errorf("%+v", after)
	}
	key := w.person([]string{"ProjectView"})
	w.MustAs(key, 200, http.MethodGet, path, "")
	w.MustAs(key, 403, http.MethodPut, path, `{}`)
	w.Must(http.StatusConflict, http.MethodPut, path, `{}`, "If-Match", `"1"`)
	w.Must(http.StatusNotFound, http.MethodGet, "/api/projects/none/deploymentsettings", "")
}

func TestProcessBelowItsProject(t *testing.T) {
	t.Parallel()
	w := newWorld(actiontest.New(t, routes))
	path := "/api/projects/web/deploymentprocesses"
	var p octopus.DeploymentProcess
	w.Get(path).Into(&p)
	if p.ID != "deploymentprocess-"+w.web || len(p.Steps) != 1 {
		t.Errorf("%+v", p)
	}
	w.Must(200, http.MethodPut, path, fmt.Sprintf(`{"Version":%d,"Steps":[]}`, p.Version))
	w.Must(http.StatusConflict, http.MethodPut, path, fmt.Sprintf(`{"Version":%d,"Steps":[]}`, p.Version))
	w.MustAs(w.person([]string{"ProjectView", "ProcessView"}), 403, http.MethodPut, path, `{}`)
}

func TestClone(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		scoped := secret("Password", "hunter2-hunter2", w.prod)
		scoped.Scope.Channel = []string{w.channel}
		scoped.Scope.ProcessOwner = []string{w.web}
		w.mustPut(actiontest.Admin, w.read(actiontest.Admin, w.web), value("Url", "x"), scoped)
		w.Must(200, http.MethodPut, "/api/projects/"+w.web+"/deploymentsettings", `{"ConnectivityPolicy":{"SkipMachineBehavior":"SkipUnavailableMachines"},"CancelRunningTasks":true}`)
		w.Must(200, http.MethodPut, "/api/channels/"+w.channel, `{"Name":"Beta","ProjectId":"`+w.web+`","IsDefault":true,"Rules":[{"VersionRange":"[1.0,2.0)","ActionPackages":[{"DeploymentAction":"Deploy","PackageReference":""}]}]}`)

		// As the command line sends it: members in a spelling of its own.
		made := w.Must(201, http.MethodPost, "/api/projects?clone="+w.web, `{"Name":"Copy","Description":"d","ProjectGroupID":"ProjectGroups-1","LifecycleID":"Lifecycles-1","SpaceId":""}`)
		var copied, source octopus.Project
		made.Into(&copied)
		w.Get("/api/projects/" + w.web).Into(&source)
		if copied.Name != "Copy" || copied.Slug != "copy" || copied.ClonedFromProjectID != octopus.NullString(w.web) || copied.VariableSetID != "variableset-"+copied.ID || copied.Description != "d" ||
			!slices.Equal(copied.IncludedLibraryVariableSetIDs, source.IncludedLibraryVariableSetIDs) || copied.ProjectConnectivityPolicy.SkipMachineBehavior != octopus.SkipUnavailable ||
			made.Header.Get("Location") != "/api/Spaces-1/projects/"+copied.ID {
			t.Errorf("%s at %s", made.Body, made.Header.Get("Location"))
		}
		var channels octopus.Page[octopus.Channel]
		w.Get("/api/channels").Into(&channels)
		byName := map[string]octopus.Channel{}
		for _, c := range channels.Items {
			if c.ProjectID == copied.ID {
				byName[c.Name] = c
			}
		}
		if len(byName) != 2 || !byName["Beta"].IsDefault || byName["Default"].IsDefault || len(byName["Beta"].Rules) != 1 {
			t.Errorf("channels: %+v", byName)
		}
		var process octopus.DeploymentProcess
		w.Get("/api/deploymentprocesses/deploymentprocess-" + copied.ID).Into(&process)
		if process.Steps[0].ID != "s1" || !slices.Equal(process.Steps[0].Actions[0].Channels, []string{byName["Beta"].ID}) {
			t.Errorf("%+v", process.Steps)
		}
		if diff := cmp.Diff(map[string]string{"Url": "x", "Password": "hunter2-hunter2"}, w.revealed(copied.VariableSetID)); diff != "" {
			t.Errorf("variables (-want +got):\n%s", diff)
		}
		var secrets struct {
			Steps []struct {
				Actions []struct {
					Properties map[string]octopus.PropertyValue
				}
			}
		}
		err := w.DB.Read(t.Context(), func(tx *db.Tx) error {
			return w.Store.Reveal(t.Context(), tx, "deploymentprocesses", process.ID, &secrets)
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprintf("%+v", *secrets.Steps[0].Actions[0].Properties["Key"].Sensitive.NewValue); got != "step-secret" {
			t.Errorf("the step's secret is %s", got)
		}
		for _, v := range w.read(actiontest.Admin, copied.ID).Variables {
			if v.Name == "Password" && (!slices.Equal(v.Scope.Channel, []string{byName["Beta"].ID}) || !slices.Equal(v.Scope.ProcessOwner, []string{copied.ID})) {
				t.Errorf("%+v", v.Scope)
			}
		}
		var settings octopus.DeploymentSettings
		w.Get("/api/projects/" + copied.ID + "/deploymentsettings").Into(&settings)
		if !settings.CancelRunningTasks {
			t.Errorf("%+v", settings)
		}
		// The one it was made from is as it was, and so is its name.
		if got := w.revealed("variableset-" + w.web); got["Password"] != "hunter2-hunter2" {
			t.Errorf("%v", got)
		}
		w.Must(http.StatusBadRequest, http.MethodPost, "/api/projects?clone="+w.web, `{"Name":"Copy"}`)
		w.Must(http.StatusBadRequest, http.MethodPost, "/api/projects?clone="+w.web, `{}`)
		w.Must(http.StatusNotFound, http.MethodPost, "/api/projects?clone=none", `{"Name":"X"}`)
		if ids := w.Get("/api/projects?clonedFromProjectId=" + w.web).IDs(); !slices.Equal(ids, []string{copied.ID}) {
			t.Errorf("projects: %v", ids)
		}

		// Who may not see all of it may not use it in a copy.
		permissions := []string{"ProjectView", "ProjectCreate", "ProcessView", "VariableView", "LibraryVariableSetView"}
		for i, key := range []string{
			w.person(permissions, w.dev), w.person(permissions[:2]), w.person([]string{"ProjectView", "ProjectCreate", "VariableView"}), w.person([]string{"ProjectView", "ProcessView", "VariableView"}),
		} {
			w.MustAs(key, http.StatusForbidden, http.MethodPost, "/api/projects?clone="+w.web, fmt.Sprintf(`{"Name":"No %d"}`, i))
		}
		w.MustAs(w.person(permissions), http.StatusCreated, http.MethodPost, "/api/projects?clone="+w.web, `{"Name":"Yes"}`)
	})
}

func TestSummaries(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		other := w.project("Api")
		err := w.DB.Write(t.Context(), func(tx *db.Tx) error {
			for i, d := range []struct {
				env, state string
				completed  int64
			}{{w.dev, "Success", 2_000_000}, {w.prod, "Success", 9_000_000}, {w.prod, "Failed", 11_000_000}} {
				_, err := tx.Exec(t.Context(), `INSERT INTO deployment (id, seq, space_id, project_id, release_id, channel_id, environment_id, tenant_id, task_id, created, completed, state, body)
					VALUES (?, ?, 'Spaces-1', ?, 'Releases-1', ?, ?, '', 'ServerTasks-1', ?, ?, ?, '{}')`, fmt.Sprintf("Deployments-%d", i), i, w.web, w.channel, d.env, d.completed-1_000_000, d.completed, d.state)
				if err != nil {
					return err
				}
			}
			for _, statement := range []string{
				`INSERT INTO latest_deployment (project_id, environment_id, tenant_id, deployment_id, created, seq)
					SELECT project_id, environment_id, tenant_id, id, created, seq FROM deployment WHERE id IN ('Deployments-0', 'Deployments-2')`,
				`INSERT INTO current_release (project_id, environment_id, tenant_id, release_id, deployment_id, completed)
					SELECT project_id, environment_id, tenant_id, release_id, id, completed FROM deployment WHERE state = 'Success'`,
			} {
				if _, err := tx.Exec(t.Context(), statement); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		when := func(key string) string {
			var s octopus.ProjectSummary
			w.MustAs(key, 200, http.MethodGet, "/api/projects/web/summary", "").Into(&s)
			if !s.HasDeploymentProcess || s.StepCount != 1 || s.DisabledStepCount != 0 || s.HasRunbooks || s.HasBeenSuccessfullyDeployed != (s.LastSuccessfulDeploymentTime != nil) {
				t.Errorf("%+v", s)
			}
			if s.LastSuccessfulDeploymentTime == nil {
				return "never"
			}
			return s.LastSuccessfulDeploymentTime.Format("05")
		}
		for want, key := range map[string]string{
			"09": actiontest.Admin, "02": w.person([]string{"ProjectView", "DeploymentView"}, w.dev), "never": w.person([]string{"ProjectView"}),
		} {
			if got := when(key); got != want {
				t.Errorf("last at %s, want %s", got, want)
			}
		}
		var pulses []struct {
			ProjectID                                        string `json:"ProjectId"`
			LastDeploymentTime, LastSuccessfulDeploymentTime *octopus.Time
		}
		w.Get("/api/projects/pulse?projectIds=" + w.web + "," + other).Into(&pulses)
		if len(pulses) != 2 || pulses[0].ProjectID != other || pulses[0].LastDeploymentTime != nil || pulses[1].LastDeploymentTime.Format("05") != "10" {
			t.Errorf("%+v", pulses)
		}
		if body := string(w.Get("/api/projects/experimental/summaries?ids=" + other).Body); !strings.HasPrefix(body, `[{"Id":"`+other+`","SpaceId":"Spaces-1","Name":"Api","Slug":"api","ProjectGroupId":"ProjectGroups-1"`) {
			t.Errorf("%s", body)
		}
		key := w.Person(actiontest.Role{Space: home, Permissions: []string{"ProjectView"}, Scope: octopus.ScopedUserRole{ProjectIDs: []string{other}}})
		if ids := w.MustAs(key, 200, http.MethodGet, "/api/projects/experimental/summaries", "").IDs(); !slices.Equal(ids, []string{other}) {
			t.Errorf("%v", ids)
		}
		w.MustAs(key, 404, http.MethodGet, "/api/projects/web/summary", "")
	})
}
