package tasks_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

func TestManualIntervention(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		w.project("Shop", ask("Gate", ""), step("Tell", octopus.ActionManual, `,"Condition":"Always"`, octopus.PropManualInstructions,
			"#{Octopus.Action[Gate].Output.Manual.ResponsibleUser.Username} said #{Octopus.Action[Gate].Output.Manual.Notes}"))
		task := w.deploy("Shop", "1.0.0", "Dev")
		i := w.asked(task)
		buttons := octopus.List[octopus.FormButton]{{Text: "Proceed", Value: "Proceed"}, {Text: "Abort", Value: "Abort"}}
		form := octopus.Form{Elements: octopus.List[octopus.FormElement]{
			{Name: "Instructions", Control: octopus.FormControl{Type: octopus.FormParagraph, Text: "May **Gate** go on?", ResolveLinks: true}},
			{Name: "Notes", Control: octopus.FormControl{Type: octopus.FormTextArea, Label: "Notes"}},
			{Name: "Result", Control: octopus.FormControl{Type: octopus.FormButtons, Buttons: buttons}, IsValueRequired: true},
		}, Values: i.Form.Values}
		if diff := cmp.Diff(form, i.Form); diff != "" {
			t.Error(diff)
		}
		if i.Type != octopus.InterruptionManual || i.Title != "Gate" || !i.IsPending || !i.CanTakeResponsibility || i.HasResponsibility || len(i.ResponsibleTeamIDs) != 0 || i.IsLinkedToOtherInterruption {
			t.Errorf("%+v", i)
		}
		if doc := w.task(task); !doc.HasPendingInterruptions || doc.State != octopus.TaskExecuting || !cmp.Equal(doc.PendingInterruptionTypes, octopus.List[octopus.InterruptionType]{octopus.InterruptionManual}) {
			t.Errorf("%+v", doc)
		}
		at := space + "/interruptions/" + i.ID
		// Nobody answers what they have not taken on, and nobody takes what another one has.
		w.Must(http.StatusConflict, http.MethodPost, at+"/submit", `{"Result":"Proceed"}`)
		w.Must(http.StatusOK, http.MethodPut, at+"/responsible", "")
		other := w.may("InterruptionView", "DeploymentCreate")
		w.MustAs(other, http.StatusConflict, http.MethodPut, at+"/responsible", "")
		w.MustAs(other, http.StatusConflict, http.MethodPost, at+"/submit", `{"Result":"Proceed"}`)
		if name := w.Get(at + "/responsible").Text("Username"); name != actiontest.AdminName {
			t.Errorf("it is held by %q", name)
		}
		w.Must(http.StatusBadRequest, http.MethodPost, at+"/submit", `{"Result":"Retry"}`)
		w.Must(http.StatusBadRequest, http.MethodPost, at+"/submit", fmt.Sprintf(`{"Result":"Proceed","Notes":%q}`, strings.Repeat("x", 1<<16+1)))
		var done octopus.Interruption
		w.Must(http.StatusOK, http.MethodPost, at+"/submit", `{"Instructions":null,"Result":"Proceed","Notes":"yes"}`).Into(&done)
		if done.IsPending || !done.HasResponsibility {
			t.Errorf("%+v", done)
		}
		w.Must(http.StatusConflict, http.MethodPost, at+"/submit", `{"Result":"Abort"}`)
		// The next question knows the first answer.
		i = w.asked(task)
		if text := i.Form.Elements[0].Control.Text; text != actiontest.AdminName+" said yes" {
			t.Errorf("it asks %q", text)
		}
		w.answer(other, i.ID, `{"Result":"Abort","Notes":"no"}`)
		if doc := w.ends(task, octopus.TaskFailed); doc.HasPendingInterruptions {
			t.Error("it still asks")
		}
	})
}

// Who may answer: everybody with the permission for all questions; members of a
// responsible team; and where no team is named, who may deploy there.
func TestWhoMayAnswer(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		member := w.may("InterruptionView", "InterruptionViewSubmitResponsible")
		var team string
		var page octopus.Page[octopus.Team]
		w.Get("/api/teams?take=1000").Into(&page)
		for _, one := range page.Items {
			if strings.HasPrefix(one.Name, "Team of person") {
				team = one.ID
			}
		}
		stranger, deployer := w.may("InterruptionView", "InterruptionViewSubmitResponsible"), w.may("InterruptionView", "DeploymentCreate")
		all, elsewhere := w.may("InterruptionView", "InterruptionSubmit"), w.Person(
			actiontest.Role{Space: "Spaces-1", Permissions: []string{"InterruptionView"}},
			actiontest.Role{Space: "Spaces-1", Permissions: []string{"InterruptionSubmit", "DeploymentCreate"}, Scope: octopus.ScopedUserRole{EnvironmentIDs: []string{w.prod}}})
		w.project("Teams", ask("Gate", team))
		w.project("Anybody", ask("Gate", ""))
		for _, c := range []struct {
			project, who, key string
			ok                bool
		}{
			{"Teams", "a member", member, true},
			{"Teams", "a member of another team", stranger, false},
			{"Teams", "who may deploy", deployer, false},
			{"Teams", "who may answer all", all, true},
			{"Teams", "who may elsewhere", elsewhere, false},
			{"Anybody", "a member", member, false},
			{"Anybody", "who may deploy", deployer, true},
			{"Anybody", "who may answer all", all, true},
			{"Anybody", "who may elsewhere", elsewhere, false},
		} {
			task := w.deploy(c.project, "1.0.0", "Dev")
			at := space + "/interruptions/" + w.asked(task).ID
			var seen octopus.Interruption
			w.MustAs(c.key, http.StatusOK, http.MethodGet, at, "").Into(&seen)
			if seen.CanTakeResponsibility != c.ok {
				t.Errorf("%s: %s is told %t", c.project, c.who, seen.CanTakeResponsibility)
			}
			if c.ok {
				w.MustAs(c.key, http.StatusOK, http.MethodPut, at+"/responsible", "")
				w.MustAs(c.key, http.StatusOK, http.MethodPost, at+"/submit", `{"Result":"Proceed"}`)
				w.ends(task, octopus.TaskSuccess)
				continue
			}
			if a := w.Do(http.MethodPut, at+"/responsible", c.key, ""); a.Status != http.StatusForbidden || !strings.Contains(string(a.Body), "InterruptionSubmit") {
				t.Errorf("%s: %s takes it: %d %s", c.project, c.who, a.Status, a.Body)
			}
			w.MustAs(c.key, http.StatusForbidden, http.MethodPost, at+"/submit", `{"Result":"Proceed"}`)
			w.Must(http.StatusOK, http.MethodPost, space+"/tasks/"+task+"/cancel", "")
			w.ends(task, octopus.TaskCanceled)
		}
		// A step that asks teams cannot be left out.
		a := w.Must(http.StatusBadRequest, http.MethodPost, space+"/deployments/create/untenanted/v1", `{"projectName":"Teams","releaseVersion":"1.0.0","environmentNames":["Dev"],"skipStepNames":["Gate"]}`)
		if !strings.Contains(string(a.Body), "required") {
			t.Errorf("%s", a.Body)
		}
	})
}
