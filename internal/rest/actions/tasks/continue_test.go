package tasks_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/takodeploy/tako/octopus"
)

// A deployment that has failed is gone on from: what had succeeded does not run again and
// leaves its output variables, the preview says so beforehand and the audit trail after.
func TestRerunFromFailedStep(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.project("Shop", ask("First", ""), step("Gate", octopus.ActionManual, "", octopus.PropManualInstructions, "#{Octopus.Action[First].Output.Manual.Notes}, #{Octopus.Step[First].Status.Code}"))
		key := w.may("InterruptionView", "InterruptionSubmit")
		first := w.deploy("Shop", "1.0.0", "Dev")
		w.answer(key, w.asked(first).ID, `{"Result":"Proceed","Notes":"all is well"}`)
		await(t, "the second question", func() bool { return w.asked(first).Title == "Gate" })
		rerun := func(task string) string { return space + "/tasks/" + task + "/rerun?fromFailedStep=true" }
		w.Must(http.StatusConflict, http.MethodPost, rerun(first), "")
		w.answer(key, w.asked(first).ID, `{"Result":"Abort"}`)
		w.ends(first, octopus.TaskFailed)
		deployment := w.deployments("Shop")[0]

		var preview octopus.DeploymentPreview
		at := space + "/releases/" + deployment.ReleaseID + "/deployments/preview/"
		w.Get(at + w.dev + "?continues=" + deployment.ID).Into(&preview)
		if s := preview.StepsToExecute; len(s) != 2 || !s[0].IsDone || s[1].IsDone {
			t.Errorf("the preview is %+v", s)
		}
		w.Get(at + w.dev).Into(&preview)
		if preview.StepsToExecute[0].IsDone {
			t.Error("a new deployment leaves something out")
		}
		w.Refused(http.StatusBadRequest, http.MethodGet, at+w.prod+"?continues="+deployment.ID, "", "is of another release, or to another place")
		w.Refused(http.StatusNotFound, http.MethodGet, at+w.dev+"?continues=Deployments-999", "", "Deployments-999")
		w.Refused(http.StatusBadRequest, http.MethodPost, space+"/tasks/"+first+"/rerun?fromFailedStep=perhaps", "", "fromFailedStep")
		w.MustAs(w.may("TaskView"), http.StatusForbidden, http.MethodPost, rerun(first), "")

		last := first
		for _, result := range []string{"Abort", "Proceed"} { // the second goes on from one that has gone on
			var again octopus.Task
			w.Must(http.StatusCreated, http.MethodPost, rerun(last), "").Into(&again)
			question := w.asked(again.ID)
			if text := question.Form.Elements[0].Control.Text; question.Title != "Gate" || text != "all is well, Succeeded" {
				t.Errorf("%s asks %q: %q", again.ID, question.Title, text)
			}
			made := w.deployments("Shop")[0]
			if before := string(w.task(last).Arguments["DeploymentId"]); made.TaskID != again.ID || before != `"`+string(made.ContinuesDeploymentID)+`"` {
				t.Errorf("%s goes on from %q, want %v", made.ID, made.ContinuesDeploymentID, before)
			}
			w.answer(key, question.ID, `{"Result":"`+result+`"}`)
			await(t, again.ID+" ends", func() bool { return w.task(again.ID).IsCompleted })
			if log := w.log(again.ID); !strings.Contains(log, `Step "First" skipped: it has succeeded in `+string(made.ContinuesDeploymentID)+".") {
				t.Errorf("the log is\n%s", log)
			}
			last = again.ID
		}
		if w.task(last).State != octopus.TaskSuccess {
			t.Errorf("it is %s", w.task(last).State)
		}
		w.Refused(http.StatusConflict, http.MethodPost, rerun(last), "", "only one that has failed or was canceled")
		var events octopus.Page[octopus.Event]
		w.Get("/api/events?take=100&eventCategories=DeploymentQueued").Into(&events)
		if !slices.ContainsFunc(events.Items, func(e octopus.Event) bool {
			return strings.Contains(e.Message, "was queued, to go on where "+deployment.ID+" has failed")
		}) {
			t.Errorf("the trail has %+v", events.Items)
		}
	})
}

// deployments are those of a project, the newest first.
func (w *world) deployments(project string) []octopus.Deployment {
	w.T.Helper()
	var p octopus.Project
	w.Get(space + "/projects/" + project).Into(&p)
	var page octopus.Page[octopus.Deployment]
	w.Get(space + "/deployments?projects=" + p.ID).Into(&page)
	return page.Items
}
