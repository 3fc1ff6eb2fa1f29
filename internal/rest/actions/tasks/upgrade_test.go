package tasks_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

// TestUpgradeTasks: clients start upgrades of agents, and updates of tools, as they do
// elsewhere, and read what becomes of each machine.
func TestUpgradeTasks(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		target := func(name, style string) string {
			return w.Create("/api/machines", fmt.Sprintf(`{"Name":%q,"EnvironmentIds":[%q],"Roles":["web"],"SkipInitialHealthCheck":true,"Endpoint":{"CommunicationStyle":%q,"Uri":"https://a:1/"}}`, name, w.dev, style))
		}
		region, far := target("region", "None"), target("far", "TentaclePassive")
		var task octopus.Task
		w.Must(http.StatusCreated, http.MethodPost, space+"/tasks", fmt.Sprintf(`{"Name":"Upgrade","Arguments":{"EnvironmentId":%q,"MachineIds":null}}`, w.dev)).Into(&task)
		if task.Name != octopus.TaskUpgrade || task.Description != "Upgrade the agents of 2 machines" {
			t.Errorf("it is %s, %q", task.Name, task.Description)
		}
		if ended := w.ends(task.ID, octopus.TaskFailed); ended.ErrorMessage != "1 of 2 agents were not upgraded: far." {
			t.Errorf("it failed with %q", ended.ErrorMessage)
		}
		var details octopus.TaskDetails
		w.Get(space + "/tasks/" + task.ID + "/details").Into(&details)
		says := map[string]string{}
		for _, c := range details.ActivityLogs[0].Children {
			says[c.Name] = string(c.Status)
			for _, l := range c.LogElements {
				says[c.Name] += " " + l.MessageText
			}
		}
		if says["region"] != "Skipped region has no agent." || !strings.HasPrefix(says["far"], "Failed far was not upgraded: ") {
			t.Errorf("the log says %q", says)
		}
		w.Must(http.StatusCreated, http.MethodPost, "/api/tasks", fmt.Sprintf(`{"Name":"UpdateCalamari","Description":"Tools","Arguments":{"MachineIds":[%q,%q]}}`, region, far)).Into(&task)
		if task.Name != octopus.TaskUpdateCalamari || task.Description != "Tools" {
			t.Errorf("it is %s, %q", task.Name, task.Description)
		}
		w.ends(task.ID, octopus.TaskSuccess)
		w.Get(space + "/tasks/" + task.ID + "/details").Into(&details)

		// It changes machines: to start and to see tasks is not enough.
		starts := []string{"TaskCreate", "TaskView", "MachineView", "EnvironmentView"}
		for _, name := range []string{"Upgrade", "UpdateCalamari"} {
			body := fmt.Sprintf(`{"Name":%q,"Arguments":{"MachineIds":[%q]}}`, name, region)
			w.MustAs(w.Person(actiontest.Role{Space: "Spaces-1", Permissions: starts}), http.StatusForbidden, http.MethodPost, space+"/tasks", body)
			w.MustAs(w.Person(actiontest.Role{Space: "Spaces-1", Permissions: append(starts[:len(starts):len(starts)], "MachineEdit")}), http.StatusCreated, http.MethodPost, space+"/tasks", body)
		}
	})
}
