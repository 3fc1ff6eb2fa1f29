package tasks_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/octopus"
)

// A deployment that is made once more has the answers to prompts, and all else that
// somebody chose.
func TestRerun(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		project := w.project("Shop")
		var process octopus.DeploymentProcess
		w.Must(http.StatusOK, http.MethodPut, "/api/deploymentprocesses/deploymentprocess-"+project, `{"Version":2,"Steps":[`+ask("Left out", "")+`,`+
			step("Gate", octopus.ActionManual, "", octopus.PropManualInstructions, "#{Answer}")+`]}`).Into(&process)
		w.Must(http.StatusOK, http.MethodPut, "/api/variables/variableset-"+project,
			`{"Version":1,"Variables":[{"Id":"answer","Name":"Answer","Type":"String","Prompt":{"Label":"Well?","Required":true}}]}`)
		w.release("Shop", "2.0.0")
		w.Must(http.StatusBadRequest, http.MethodPost, space+"/deployments/create/untenanted/v1", `{"projectName":"Shop","releaseVersion":"2.0.0","environmentNames":["Dev"]}`)
		first := w.deploy("Shop", "2.0.0", "Dev", `,"variables":{"Answer":"forty-two"},"skipStepNames":["Left out"]`)
		question := w.asked(first)
		w.Must(http.StatusConflict, http.MethodPost, space+"/tasks/"+first+"/rerun", "")
		w.answer(w.may("InterruptionView", "InterruptionSubmit"), question.ID, `{"Result":"Abort"}`)
		if !w.ends(first, octopus.TaskFailed).CanRerun {
			t.Error("it cannot be run again")
		}
		w.MustAs(w.may("TaskView"), http.StatusForbidden, http.MethodPost, space+"/tasks/"+first+"/rerun", "")
		for _, path := range []string{space + "/tasks/" + first + "/rerun", "/api/tasks/rerun/" + first} {
			var again octopus.Task
			w.MustAs(w.may("TaskView", "DeploymentCreate"), http.StatusCreated, http.MethodPost, path, "").Into(&again)
			question = w.asked(again.ID)
			if text := question.Form.Elements[0].Control.Text; again.ID == first || question.Title != "Gate" || text != "forty-two" {
				t.Errorf("%s asks %q: %q", again.ID, question.Title, text)
			}
			w.answer(w.may("InterruptionView", "InterruptionSubmit"), question.ID, `{"Result":"Proceed"}`)
			w.ends(again.ID, octopus.TaskSuccess)
		}
	})
}

func TestModifyState(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.Must(http.StatusOK, http.MethodPut, "/api/lifecycles/Lifecycles-1", fmt.Sprintf(`{"Name":"Default","Phases":[
			{"Name":"Dev","OptionalDeploymentTargets":[%q]},{"Name":"Prod","OptionalDeploymentTargets":[%q]}]}`, w.dev, w.prod))
		w.project("Shop", step("Juggle", "Octopus.Juggle", ""))
		task := w.deploy("Shop", "1.0.0", "Dev")
		w.ends(task, octopus.TaskFailed)
		prod := `{"projectName":"Shop","releaseVersion":"1.0.0","environmentNames":["Prod"]}`
		w.Must(http.StatusBadRequest, http.MethodPost, space+"/deployments/create/untenanted/v1", prod)
		at := space + "/tasks/" + task + "/state"
		for body, want := range map[string]string{
			`{"State":"Success"}`:                 "Reason is empty",
			`{"State":"Executing","Reason":"x"}`:  "use Success, Failed or Canceled",
			`{"State":"Success","Reason":"   "}`:  "Reason is empty",
			`{"State":"Nonsense","Reason":"why"}`: "State is 'Nonsense'",
		} {
			if a := w.Must(http.StatusBadRequest, http.MethodPost, at, body); !strings.Contains(string(a.Body), want) {
				t.Errorf("%s: %s", body, a.Body)
			}
		}
		w.Must(http.StatusConflict, http.MethodPost, at, `{"State":"Failed","Reason":"it is"}`)
		w.MustAs(w.may("TaskView"), http.StatusForbidden, http.MethodPost, at, `{"State":"Success","Reason":"I say so"}`)
		w.MustAs(w.may("TaskView", "TaskEdit"), http.StatusOK, http.MethodPost, at, `{"State":"Success","Reason":"done by hand"}`)
		if doc := w.task(task); doc.State != octopus.TaskSuccess || doc.ErrorMessage != "" || !doc.FinishedSuccessfully {
			t.Errorf("%+v", doc)
		}
		// The lifecycle goes by it, in both directions.
		w.ends(w.deploy("Shop", "1.0.0", "Prod"), octopus.TaskFailed)
		w.Must(http.StatusOK, http.MethodPost, at, `{"State":"Failed","Reason":"not so"}`)
		if doc := w.task(task); doc.State != octopus.TaskFailed || doc.ErrorMessage != "not so" {
			t.Errorf("%+v", doc)
		}
		w.Must(http.StatusBadRequest, http.MethodPost, space+"/deployments/create/untenanted/v1", prod)
	})
}

// A queued task that is moved up runs before those that came earlier.
func TestPrioritize(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.project("Shop", step("Gate", octopus.ActionManual, "", octopus.PropManualInstructions, "Go on?", octopus.PropManualBlock, "True"))
		first := w.deploy("Shop", "1.0.0", "Dev")
		question := w.asked(first)
		second, third := w.deploy("Shop", "1.0.0", "Dev"), w.deploy("Shop", "1.0.0", "Dev")
		w.MustAs(w.may("TaskView"), http.StatusForbidden, http.MethodPost, space+"/tasks/"+third+"/prioritize", "")
		w.Must(http.StatusOK, http.MethodPost, space+"/tasks/"+third+"/prioritize", "")
		w.Must(http.StatusConflict, http.MethodPost, space+"/tasks/"+first+"/prioritize", "")
		answer := func(i octopus.Interruption) {
			w.Must(http.StatusOK, http.MethodPut, space+"/interruptions/"+i.ID+"/responsible", "")
			w.Must(http.StatusOK, http.MethodPost, space+"/interruptions/"+i.ID+"/submit", `{"Result":"Proceed"}`)
		}
		answer(question)
		w.ends(first, octopus.TaskSuccess)
		answer(w.asked(third))
		w.ends(third, octopus.TaskSuccess)
		answer(w.asked(second))
		w.ends(second, octopus.TaskSuccess)
		if a, b := w.task(third), w.task(second); a.StartTime.After(b.StartTime.Time) {
			t.Error("it did not go first")
		}
	})
}

// A deployment that is scheduled waits for its time; one that nobody started in time
// is given up, whatever it waited for.
func TestPoint07QueueExpiry(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.project("Shop", step("Gate", octopus.ActionManual, "", octopus.PropManualInstructions, "Go on?", octopus.PropManualBlock, "True"))
		first := w.deploy("Shop", "1.0.0", "Dev")
		w.asked(first)
		later := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		scheduled := w.deploy("Shop", "1.0.0", "Dev", fmt.Sprintf(`,"runAt":%q`, later))
		expiring := w.deploy("Shop", "1.0.0", "Dev", fmt.Sprintf(`,"noRunAfter":%q`, time.Now().Add(1500*time.Millisecond).UTC().Format(time.RFC3339Nano)))
		doc := w.ends(expiring, octopus.TaskTimedOut)
		if doc.StartTime != nil || !strings.Contains(doc.ErrorMessage, "expired") {
			t.Errorf("%+v", doc)
		}
		if doc := w.task(scheduled); doc.State != octopus.TaskQueued {
			t.Errorf("the scheduled one is %s", doc.State)
		}
		if w.task(first).State != octopus.TaskExecuting {
			t.Error("the one that blocks has ended")
		}
		// Only what has not started expires.
		w.Must(http.StatusOK, http.MethodPost, space+"/tasks/"+scheduled+"/cancel", "")
		w.ends(scheduled, octopus.TaskCanceled)
	})
}
