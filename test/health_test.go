package test

import (
	"fmt"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/octopus"
)

// TestMachinesAreChecked makes machines whose agents listen and poll: they are checked
// at first and by hand, and scripts are run on them by tasks.
func TestMachinesAreChecked(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			p := apptest.NewProcess(t, dialect)
			p.Start()
			thumbprint := serverThumbprint(t, p.Client)
			m := newModel(t, p.Client)
			passive, worker := newRemoteAgent(t, thumbprint), newRemoteAgent(t, thumbprint)
			target := m.target(t, "listens", passive.listens(t))
			made := apptest.Post(t, p.Client, space+"/workers", octopus.Worker{
				MachineBase: octopus.MachineBase{Name: "builds", Endpoint: worker.polls(t, p.Agents, thumbprint)}, WorkerPoolIDs: octopus.List[string]{"WorkerPools-1"},
			})
			until(t, "both are checked at first", func() bool {
				return apptest.Get[octopus.Machine](t, p.Client, space+"/machines/"+target.ID).HealthStatus != octopus.HealthUnknown &&
					apptest.Get[octopus.Worker](t, p.Client, space+"/workers/"+made.ID).HealthStatus != octopus.HealthUnknown
			})
			start := func(body string) string {
				t.Helper()
				var task octopus.Task
				p.Must(t, http.MethodPost, space+"/tasks", []byte(body), &task)
				return task.ID
			}
			done := wait(t, p.Client, start(fmt.Sprintf(`{"Name":"Health","Arguments":{"MachineIds":[%q,%q]}}`, target.ID, made.ID)), 2*time.Minute)
			checked := apptest.Get[octopus.Machine](t, p.Client, space+"/machines/"+target.ID)
			if done.State != octopus.TaskSuccess || checked.HealthStatus != octopus.Healthy || checked.ShellName != "Bash" || checked.Endpoint.TentacleVersionDetails == nil {
				t.Errorf("%s (%s): %+v", done.State, done.ErrorMessage, checked.MachineBase)
			}
			ran := filepath.Join(apptest.ShortDir(t), "ran")
			body := fmt.Sprintf(`echo "$(get_octopusvariable Octopus.Machine.Name)" >> %s; echo hello`, ran)
			id := start(fmt.Sprintf(`{"Name":"AdHocScript","Description":"Say hello","Arguments":{"MachineIds":[%q,%q],"Syntax":"Bash","ScriptBody":%q}}`, target.ID, made.ID, body))
			if done = wait(t, p.Client, id, 2*time.Minute); done.State != octopus.TaskSuccess || done.Description != "Say hello" {
				t.Fatalf("%s: %s\n%s", done.State, done.ErrorMessage, p.Must(t, http.MethodGet, "/api/tasks/"+id+"/raw", nil, nil).Body)
			}
			got := lines(t, ran)
			slices.Sort(got)
			if diff := cmp.Diff([]string{"builds", "listens"}, got); diff != "" {
				t.Errorf("it ran on (-want +got):\n%s", diff)
			}
			details := apptest.Get[octopus.TaskDetails](t, p.Client, "/api/tasks/"+id+"/details")
			said := 0
			for _, child := range details.ActivityLogs[0].Children[0].Children {
				for _, line := range child.LogElements {
					if line.MessageText == "hello" {
						said++
					}
				}
			}
			if said != 2 {
				t.Errorf("%d of 2 machines have the line in their logs", said)
			}
			bad := wait(t, p.Client, start(fmt.Sprintf(`{"Name":"AdHocScript","Arguments":{"EnvironmentIds":[%q],"TargetRoles":["web"],"Syntax":"Bash","ScriptBody":"exit 3"}}`, m.Dev.ID)), 2*time.Minute)
			if bad.State != octopus.TaskFailed {
				t.Errorf("a script that fails: %s", bad.State)
			}
			template := apptest.Post(t, p.Client, space+"/actiontemplates", octopus.ActionTemplate{
				Name: "Greet", ActionType: octopus.ActionScript,
				Properties: octopus.Properties{octopus.PropScriptSource: octopus.Plain("Inline"), octopus.PropScriptSyntax: octopus.Plain("Bash"), octopus.PropScriptBody: octopus.Plain(
					`echo "#{Greeting} #{Whom}, says #{Octopus.Machine.Name}"; set -- $(get_octopusvariable Password); echo "a password of ${#1} letters: $1"`,
				)},
				Parameters: octopus.List[octopus.TemplateParameter]{
					{Name: "Greeting", DefaultValue: octopus.Plain("Good day")},
					{Name: "Whom", DefaultValue: octopus.Plain("nobody")},
					{Name: "Password", DisplaySettings: octopus.Map[string, string]{octopus.DisplayControlType: string(octopus.ControlSensitive)}},
				},
			})
			const password = "correct-horse"
			id = start(fmt.Sprintf(`{"Name":"AdHocScript","Arguments":{"MachineIds":[%q],"ActionTemplateId":%q,"Properties":{"Whom":"World","Password":%q}}}`, target.ID, template.ID, password))
			done = wait(t, p.Client, id, 2*time.Minute)
			raw := string(p.Must(t, http.MethodGet, "/api/tasks/"+id+"/raw", nil, nil).Body)
			if done.State != octopus.TaskSuccess || !strings.Contains(raw, "Good day World, says listens") || !strings.Contains(raw, "a password of 13 letters: ***") {
				t.Errorf("%s: %s\n%s", done.State, done.ErrorMessage, raw)
			}
			if doc := string(p.Must(t, http.MethodGet, "/api/tasks/"+id, nil, nil).Body); strings.Contains(doc+raw, password) || !strings.Contains(doc, template.ID) {
				t.Errorf("the task tells %s", doc)
			}
			p.Refused(t, http.StatusBadRequest, http.MethodPost, space+"/tasks", map[string]any{"Name": "AdHocScript", "Arguments": map[string]any{
				"MachineIds": []string{target.ID}, "ActionTemplateId": template.ID, "Properties": map[string]any{"Who": "World"},
			}})
			page := apptest.Get[octopus.Page[octopus.Task]](t, p.Client, space+"/machines/"+target.ID+"/tasks?type=AdHocScript")
			if page.TotalResults != 3 || !strings.Contains(page.Items[0].Description, "script") {
				t.Errorf("%d tasks of the machine: %+v", page.TotalResults, page.Items)
			}
		})
	}
}
