package tasks_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/octopus"
)

// frozen freezes a project in an environment from an hour ago until tomorrow.
func (w *world) frozen(name, project, environment string) {
	w.T.Helper()
	now := time.Now()
	w.Create("/api/deploymentfreezes", fmt.Sprintf(`{"Name":%q,"Start":%q,"End":%q,"ProjectEnvironmentScope":{%q:[%q]}}`,
		name, now.Add(-time.Hour).Format(time.RFC3339), now.Add(24*time.Hour).Format(time.RFC3339), project, environment))
}

// TestPoint29FreezeAtEveryGate: a freeze is asked when a deployment is made, however
// it is, and once more when one that waited would start; only those who may administer
// freezes get past one, by its name and with a reason.
func TestPoint29FreezeAtEveryGate(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		shop := w.project("Shop", ask("Gate", ""))
		w.stop() // what is queued waits
		waiting, thawed := w.deploy("Shop", "1.0.0", "Dev"), w.deploy("Shop", "1.0.0", "Dev")
		w.sql(`UPDATE deployment SET body = replace(body, '"DeploymentFreezeNames":[]', '"DeploymentFreezeNames":["christmas"]') WHERE task_id = ?`, thawed)
		w.frozen("Christmas", shop, w.dev)

		body := `{"projectName":"Shop","releaseVersion":"1.0.0","environmentNames":["Dev"]%s}`
		for more, want := range map[string]string{
			"": "The deployment freeze 'Christmas' keeps the project 'Shop' from being deployed to Dev until 20",
			`,"deploymentFreezeNames":["Easter"],"deploymentFreezeOverrideReason":"x"`:    "'Christmas' keeps",
			`,"deploymentFreezeNames":["Christmas"]`:                                      "DeploymentFreezeOverrideReason is empty",
			`,"deploymentFreezeNames":["Christmas"],"deploymentFreezeOverrideReason":" "`: "DeploymentFreezeOverrideReason is empty",
			`,"runAt":"` + time.Now().Add(2*time.Hour).UTC().Format(time.RFC3339) + `"`:   "'Christmas' keeps",
		} {
			w.Refused(http.StatusBadRequest, http.MethodPost, space+"/deployments/create/untenanted/v1", fmt.Sprintf(body, more), want)
		}
		// After the freeze is soon enough.
		w.deploy("Shop", "1.0.0", "Dev", `,"runAt":"`+time.Now().Add(48*time.Hour).UTC().Format(time.RFC3339)+`"`)

		// Whoever deploys may not override.
		override := fmt.Sprintf(body, `,"deploymentFreezeNames":["CHRISTMAS"],"deploymentFreezeOverrideReason":"a bug"`)
		deployer := w.may("DeploymentCreate", "ReleaseView", "ProjectView", "EnvironmentView")
		if a := w.Do(http.MethodPost, space+"/deployments/create/untenanted/v1", deployer, override); a.Status != http.StatusForbidden || !strings.Contains(string(a.Body), "DeploymentFreezeAdminister") {
			t.Errorf("without the permission: %d %s", a.Status, a.Body)
		}
		var out octopus.DeployResponse
		w.Must(http.StatusCreated, http.MethodPost, space+"/deployments/create/untenanted/v1", override).Into(&out)
		overridden := out.DeploymentServerTasks[0]
		var d octopus.Deployment
		w.Get(space + "/deployments/" + overridden.DeploymentID).Into(&d)
		if len(d.DeploymentFreezeNames) != 1 || d.DeploymentFreezeNames[0] != "Christmas" || d.DeploymentFreezeOverrideReason != "a bug" {
			t.Errorf("the deployment says %q, %q", d.DeploymentFreezeNames, d.DeploymentFreezeOverrideReason)
		}
		if events := string(w.Get("/api/events?regarding=" + d.ID).Body); !strings.Contains(events, "in spite of the deployment freeze Christmas (a bug)") {
			t.Errorf("the audit trail has %s", events)
		}

		var preview octopus.DeploymentPreview
		w.Get(space + "/releases/" + d.ReleaseID + "/deployments/preview/" + w.dev).Into(&preview)
		if len(preview.DeploymentFreezes) != 1 || preview.DeploymentFreezes[0].Name != "Christmas" || !preview.DeploymentFreezes[0].End.After(time.Now()) {
			t.Errorf("the preview tells of %+v", preview.DeploymentFreezes)
		}
		w.Get(space + "/releases/" + d.ReleaseID + "/deployments/preview/" + w.prod).Into(&preview)
		if len(preview.DeploymentFreezes) != 0 {
			t.Errorf("elsewhere the preview tells of %+v", preview.DeploymentFreezes)
		}

		w.run(t)
		failed := w.ends(waiting, octopus.TaskFailed)
		if !strings.Contains(failed.ErrorMessage, "'Christmas' keeps the project 'Shop' from being deployed to Dev until 20") || !strings.Contains(w.log(waiting), "Christmas") {
			t.Errorf("the task says %q, its log\n%s", failed.ErrorMessage, w.log(waiting))
		}
		judge := w.may("InterruptionView", "InterruptionSubmit")
		// Named beforehand, overridden, and elsewhere: these start, one after another.
		for _, task := range []string{thawed, overridden.ServerTaskID} {
			w.answer(judge, w.asked(task).ID, `{"Result":"Proceed"}`)
			w.ends(task, octopus.TaskSuccess)
		}
		// What has begun goes on in a freeze that comes.
		started := w.deploy("Shop", "1.0.0", "Prod")
		question := w.asked(started)
		w.frozen("Epiphany", shop, w.prod)
		w.stop()
		w.run(t)
		w.answer(judge, question.ID, `{"Result":"Proceed"}`)
		w.ends(started, octopus.TaskSuccess)
	})
}

// TestFreezeOfAChild: a step that deploys a release meets the freeze of that project.
func TestFreezeOfAChild(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		child := w.project("Child", ask("Gate", ""))
		w.project("Parent", deploysRelease(child, ""))
		w.frozen("Christmas", child, w.dev)
		parent := w.deploy("Parent", "1.0.0", "Dev")
		w.ends(parent, octopus.TaskFailed)
		if log := w.log(parent); !strings.Contains(log, "The deployment freeze 'Christmas' keeps the project 'Child' from being deployed to Dev") {
			t.Errorf("the log is\n%s", log)
		}
		if n := w.count(`SELECT count(*) FROM deployment WHERE project_id = ?`, child); n != 0 {
			t.Errorf("the child was deployed %d times", n)
		}
	})
}
