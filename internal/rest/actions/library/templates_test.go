package library_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

// TestStepTemplates: every change makes a version, and steps follow when asked.
func TestStepTemplates(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *actiontest.World) {
		id := w.Create("/api/actiontemplates", `{"Name":"Tell","Version":9,"ActionType":"Octopus.Script","Properties":{"Octopus.Action.Script.ScriptBody":"one"},"Parameters":[{"Name":"Who"}]}`)
		at := "/api/actiontemplates/" + id
		read := func(path string) (one octopus.ActionTemplate) {
			w.Get(path).Into(&one)
			return one
		}
		first := read(at)
		if first.Version != 0 || first.Parameters[0].ID == "" {
			t.Errorf("made: %+v", first)
		}
		project := w.Create("/api/projects", `{"Name":"P","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`)
		process := "deploymentprocess-" + project
		w.Must(200, "PUT", "/api/deploymentprocesses/"+process, `{"Version":1,"Steps":[{"Name":"S","Actions":[{"Id":"a1","Name":"S","ActionType":"Octopus.Script","Properties":{
			"Octopus.Action.Script.ScriptBody":"one","Octopus.Action.RunOnServer":"true","Who":"me","Octopus.Action.Template.Id":"`+id+`","Octopus.Action.Template.Version":"0"}}]}]}`)
		w.Refused(409, "DELETE", at, "", process)

		w.Must(200, "PUT", at, `{"Name":"Tell","ActionType":"Octopus.Script","Properties":{"Octopus.Action.Script.ScriptBody":"two"},
			"Parameters":[{"Name":"Who"},{"Name":"Key","DefaultValue":{"HasValue":true,"NewValue":"hush"},"DisplaySettings":{"Octopus.ControlType":"Sensitive"}},{"Name":"Where"}]}`)
		second := read(at)
		if second.Version != 1 || second.Parameters[0].ID != first.Parameters[0].ID {
			t.Errorf("changed: %+v", second)
		}
		for n, body := range []string{"one", "two"} {
			if v := read(fmt.Sprint(at, "/versions/", n)); v.Version != n || v.ID != id || v.Properties.Get(octopus.PropScriptBody) != body {
				t.Errorf("version %d: %+v", n, v)
			}
		}
		w.Refused(404, "GET", at+"/versions/2", "", "version of the step template 'Tell'")
		w.Refused(404, "GET", at+"/versions/x", "", "version")
		w.Refused(400, "PUT", at, `{"Name":"Tell","ActionType":"Octopus.Email"}`, "stays what it is")

		var usage []octopus.ActionTemplateUsage
		w.Get(at + "/usage").Into(&usage)
		if len(usage) != 1 || usage[0].ActionID != "a1" || usage[0].Version != "0" || usage[0].ProjectName != "P" || usage[0].ProcessID != process {
			t.Errorf("used by %+v", usage)
		}
		w.Refused(400, "POST", at+"/actionsUpdate", `{"ActionIdsByProcessId":{"`+process+`":["no"]}}`, "is no step of")
		w.Refused(400, "POST", at+"/actionsUpdate", `{"Version":7,"ActionIdsByProcessId":{"`+process+`":["a1"]}}`, "Version is 7")
		var done []struct {
			ID, Outcome                             string
			NamesOfNewParametersMissingDefaultValue []string
		}
		w.Must(200, "POST", at+"/actionsUpdate", `{"Version":1,"ActionIdsByProcessId":{"`+process+`":["a1"]}}`).Into(&done)
		if len(done) != 1 || done[0].Outcome != "Success" || !cmp.Equal(done[0].NamesOfNewParametersMissingDefaultValue, []string{"Where"}) {
			t.Errorf("updated: %+v", done)
		}
		var p octopus.DeploymentProcess
		err := w.DB.Read(t.Context(), func(tx *db.Tx) error { return w.Store.Reveal(t.Context(), tx, "deploymentprocesses", process, &p) })
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for key, value := range p.Steps[0].Actions[0].Properties {
			if got[key] = value.Value; value.Sensitive != nil && value.Sensitive.NewValue != nil {
				got[key] = "secret " + *value.Sensitive.NewValue
			}
		}
		want := map[string]string{"Octopus.Action.Script.ScriptBody": "two", "Octopus.Action.RunOnServer": "true", "Who": "me", "Key": "secret hush", "Octopus.Action.Template.Id": id, "Octopus.Action.Template.Version": "1"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the step (-want +got):\n%s", diff)
		}

		var found []octopus.ActionTemplateSearch
		w.Get("/api/actiontemplates/search?type=Octopus.Script").Into(&found)
		if len(found) != 2 || !found[0].IsBuiltIn || found[1].ID != id || found[1].Version != "1" {
			t.Errorf("found %+v", found)
		}
		for _, path := range []string{at + "/logo", "/api/actiontemplates/Octopus.Script/logo?cb=1", at + "/versions/0/logo"} {
			if a := w.Get(path); a.Header.Get("Content-Type") != "image/svg+xml" {
				t.Errorf("%s is %s", path, a.Header.Get("Content-Type"))
			}
		}
		var none octopus.Page[octopus.CommunityActionTemplate]
		w.Get("/api/communityactiontemplates").Into(&none)
		if none.TotalResults != 0 || none.Items == nil {
			t.Errorf("the community has %+v", none)
		}
	})
}
