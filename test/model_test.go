package test

import (
	"archive/zip"
	"bytes"
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/octopus"
)

const space = "/api/Spaces-1"

// model is a small deployment model, made over HTTP.
type model struct {
	*apptest.Client
	Dev, Production octopus.Environment
	Lifecycle       octopus.Lifecycle
	Project         octopus.Project
}

// newModel makes two environments, a lifecycle through both, and a project.
func newModel(t testing.TB, c *apptest.Client) *model {
	t.Helper()
	m := &model{Client: c}
	m.Dev = apptest.Post(t, c, space+"/environments", octopus.Environment{Name: "Dev"})
	m.Production = apptest.Post(t, c, space+"/environments", octopus.Environment{Name: "Production"})
	m.Lifecycle = apptest.Post(t, c, space+"/lifecycles", octopus.Lifecycle{Name: "Dev to Production", Phases: octopus.List[octopus.Phase]{
		{Name: "Development", OptionalDeploymentTargets: octopus.List[string]{m.Dev.ID}},
		{Name: "Live", OptionalDeploymentTargets: octopus.List[string]{m.Production.ID}},
	}})
	m.Project = apptest.Post(t, c, space+"/projects", octopus.Project{Name: "Web shop", ProjectGroupID: "ProjectGroups-1", LifecycleID: m.Lifecycle.ID})
	return m
}

// script is a step of one inline Bash script on a worker.
func script(name, body string) octopus.Step {
	return octopus.Step{Name: name, Actions: octopus.List[octopus.Action]{{Name: name, ActionType: octopus.ActionScript, Properties: octopus.Properties{
		octopus.PropRunOnServer: octopus.Plain("True"), octopus.PropScriptSource: octopus.Plain("Inline"),
		octopus.PropScriptSyntax: octopus.Plain("Bash"), octopus.PropScriptBody: octopus.Plain(body),
	}}}}
}

// beside lets a step start with the one before it.
func beside(s octopus.Step) octopus.Step {
	s.StartTrigger = octopus.StartWithPrevious
	return s
}

// process gives the project its steps.
func (m *model) process(t testing.TB, steps ...octopus.Step) octopus.DeploymentProcess {
	t.Helper()
	path := space + "/deploymentprocesses/" + m.Project.DeploymentProcessID
	p := apptest.Get[octopus.DeploymentProcess](t, m.Client, path)
	p.Steps = steps
	return apptest.Put(t, m.Client, path, p)
}

// variables gives the project its variables.
func (m *model) variables(t testing.TB, all ...octopus.Variable) octopus.VariableSet {
	t.Helper()
	path := space + "/variables/" + m.Project.VariableSetID
	set := apptest.Get[octopus.VariableSet](t, m.Client, path)
	set.Variables = all
	return apptest.Put(t, m.Client, path, set)
}

func text(name, value string, scope octopus.Scope) octopus.Variable {
	return octopus.Variable{Name: name, Value: &value, Type: octopus.VariableString, Scope: scope}
}

func in(env octopus.Environment) octopus.Scope {
	return octopus.Scope{Environment: octopus.List[string]{env.ID}}
}

// release makes a release through the executions API, as clients send it.
func (m *model) release(t testing.TB, more map[string]any) (id, version string) {
	t.Helper()
	body := map[string]any{"spaceId": "Spaces-1", "spaceIdOrName": "Spaces-1", "projectName": m.Project.Name}
	for k, v := range more {
		body[k] = v
	}
	var made struct{ ReleaseID, ReleaseVersion string }
	m.Must(t, http.MethodPost, space+"/releases/create/v1", body, &made)
	return made.ReleaseID, made.ReleaseVersion
}

// deployment is the command of the executions API.
func (m *model) deployment(version string, env octopus.Environment) map[string]any {
	return map[string]any{
		"spaceId": "Spaces-1", "spaceIdOrName": "Spaces-1", "projectName": m.Project.Name,
		"releaseVersion": version, "environmentNames": []string{env.Name},
	}
}

// deploy starts a deployment and returns its task's id.
func (m *model) deploy(t testing.TB, version string, env octopus.Environment) (task string) {
	t.Helper()
	var started struct {
		DeploymentServerTasks []struct{ DeploymentID, ServerTaskID string }
	}
	m.Must(t, http.MethodPost, space+"/deployments/create/untenanted/v1", m.deployment(version, env), &started)
	if len(started.DeploymentServerTasks) != 1 {
		t.Fatalf("started %d deployments", len(started.DeploymentServerTasks))
	}
	return started.DeploymentServerTasks[0].ServerTaskID
}

// wait waits until the task has ended, or waits for a person.
func wait(t testing.TB, c *apptest.Client, task string, limit time.Duration) octopus.Task {
	t.Helper()
	deadline := time.After(limit)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		var doc octopus.Task
		resp, err := c.Do(t.Context(), http.MethodGet, "/api/tasks/"+task, nil)
		if err == nil && resp.Status == http.StatusOK {
			doc = decode[octopus.Task](t, resp.Body)
			if doc.IsCompleted || doc.HasPendingInterruptions {
				return doc
			}
		}
		select {
		case <-tick.C:
		case <-deadline:
			raw, _ := c.Do(t.Context(), http.MethodGet, "/api/tasks/"+task+"/raw", nil)
			if raw == nil {
				raw = &apptest.Response{}
			}
			t.Fatalf("%s is still %s after %s:\n%s", task, doc.State, limit, raw.Body)
		}
	}
}

// archive is a zip of these files.
func archive(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, content := range files {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Fprint(f, content); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
