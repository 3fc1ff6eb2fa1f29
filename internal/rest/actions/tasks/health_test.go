package tasks_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

// TestHealthTasks: clients start checks of machines, of an environment, of a pool and of
// all, and read their logs by machine.
func TestHealthTasks(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		pool := w.Create("/api/workerpools", `{"Name":"Ours"}`)
		target := func(name, environment, style string) string {
			return w.Create("/api/machines", fmt.Sprintf(`{"Name":%q,"EnvironmentIds":[%q],"Roles":["web"],"SkipInitialHealthCheck":true,"Endpoint":{"CommunicationStyle":%q,"Uri":"https://a:1/"}}`, name, environment, style))
		}
		region, other := target("region", w.dev, "None"), target("other", w.prod, "None")
		worker := w.Create("/api/workers", fmt.Sprintf(`{"Name":"worker","WorkerPoolIds":[%q],"SkipInitialHealthCheck":true,"Endpoint":{"CommunicationStyle":"None"}}`, pool))
		for name, tc := range map[string]struct{ path, arguments, machines string }{
			"by ids":                      {space, fmt.Sprintf(`"MachineIds":[%q,%q],"Timeout":"00:05:00","MachineTimeout":"00:01:00"`, worker, region), "worker region"},
			"by ids, joined":              {space, fmt.Sprintf(`"MachineIds":"%s, %s","EnvironmentId":null`, strings.ToLower(region), other), "region other"},
			"of an environment":           {space, fmt.Sprintf(`"EnvironmentId":%q,"MachineIds":null`, w.dev), "region"},
			"of a pool":                   {space, fmt.Sprintf(`"WorkerpoolId":%q`, pool), "worker"},
			"of targets":                  {space, `"RestrictedTo":"DeploymentTargets"`, "other region"},
			"of workers":                  {"/api", `"RestrictedTo":"Workers"`, "worker"},
			"of all in the default space": {"/api", `"Timeout":"00:05:00"`, "other region worker"},
		} {
			var task octopus.Task
			w.Must(http.StatusCreated, http.MethodPost, tc.path+"/tasks", fmt.Sprintf(`{"Name":"Health","Description":%q,"SpaceId":"Spaces-1","Arguments":{%s}}`, name, tc.arguments)).Into(&task)
			if task.Name != octopus.TaskHealth || task.Description != name || task.SpaceID != "Spaces-1" {
				t.Errorf("%s: it is %s, %q in %s", name, task.Name, task.Description, task.SpaceID)
			}
			w.ends(task.ID, octopus.TaskSuccess)
			var details octopus.TaskDetails
			w.Get(space + "/tasks/" + task.ID + "/details").Into(&details)
			var names []string
			for _, c := range details.ActivityLogs[0].Children {
				names = append(names, c.Name)
				if c.Status != octopus.ActivitySuccess || len(c.LogElements) == 0 {
					t.Errorf("%s: %s is %s with %d lines", name, c.Name, c.Status, len(c.LogElements))
				}
			}
			if got := strings.Join(names, " "); got != tc.machines {
				t.Errorf("%s: checked %q, want %q", name, got, tc.machines)
			}
		}
		far := target("far", w.dev, "TentaclePassive")
		var task octopus.Task
		w.Must(http.StatusCreated, http.MethodPost, space+"/tasks", fmt.Sprintf(`{"Name":"health","Arguments":{"MachineIds":[%q]}}`, far)).Into(&task)
		var page octopus.Page[octopus.Task]
		w.Get(space + "/tasks?name=Health&take=100").Into(&page)
		if page.TotalResults != 8 {
			t.Errorf("%d tasks", page.TotalResults)
		}
		if ended := w.ends(task.ID, octopus.TaskFailed); ended.Description != "Check the health of far" || !strings.Contains(ended.ErrorMessage, "far") {
			t.Errorf("%q failed with %q", ended.Description, ended.ErrorMessage)
		}
	})
}

// TestTasksThatAreRefused: names and arguments that nothing can be made of, and callers
// whose permissions do not reach.
func TestTasksThatAreRefused(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		both := w.Create("/api/machines", fmt.Sprintf(`{"Name":"both","EnvironmentIds":[%q,%q],"Roles":["web"],"SkipInitialHealthCheck":true,"Endpoint":{"CommunicationStyle":"None"}}`, w.dev, w.prod))
		for body, says := range map[string]string{
			`{"Name":"Upgrade","Arguments":{"MachineIds":["Machines-404"]}}`: "'Machines-404', which was not found", `{"Name":"Deploy"}`: "deployments are made at deployments",
			`{"Name":"Perhaps"}`: "Health, AdHocScript, Upgrade, UpdateCalamari, Backup, Retention and SystemIntegrityCheck", `{}`: "Health, AdHocScript, Upgrade, UpdateCalamari, Backup, Retention and SystemIntegrityCheck",
			`{"Name":"Health","Arguments":{"MachineIds":["Machines-404"]}}`:                                            "'Machines-404', which was not found",
			`{"Name":"AdHocScript","Arguments":{"MachineIds":["` + both + `"],"Syntax":"Bash"}}`:                       "Arguments.ScriptBody is empty",
			`{"Name":"AdHocScript","Arguments":{"Syntax":"Bash","ScriptBody":"true"}}`:                                 "name no machine",
			`{"Name":"AdHocScript","Arguments":{"MachineIds":["` + both + `"],"Syntax":"CSharp","ScriptBody":"true"}}`: "CSharp",
			`{"Name":"AdHocScript","Arguments":{"MachineIds":["` + both + `"],"Syntax":"Bash","ScriptBody":"true"}}`:   "has no agent",
			`{"Name":"AdHocScript","Arguments":{"ActionTemplateId":"ActionTemplates-1"}}`:                              "ActionTemplateId",
			`{"Name":"AdHocScript","Arguments":{"TargetType":"OctopusServer","Syntax":"Bash","ScriptBody":"true"}}`:    "OctopusServer",
			`{"Name":"Health","Arguments":{"MachineIds":7}}`:                                                           "Arguments.MachineIds is 7",
			`{"Name":"Health","Arguments":{"EnvironmentId":"Environments-404"}}`:                                       "Arguments.EnvironmentId is 'Environments-404'",
			`{"Name":"Health","Arguments":{"WorkerPoolId":"WorkerPools-404"}}`:                                         "WorkerPools-404",
			`{"Name":"Health","Arguments":{"Timeout":"soon"}}`:                                                         "Arguments.Timeout",
			`{"Name":"Health","Arguments":{"MachineTimeout":"2.00:00:00"}}`:                                            "at most a day",
			`{"Name":"Health","Arguments":{"RestrictedTo":"Cats"}}`:                                                    "'Cats'",
			`{"Name":"Health","Arguments":{"RestrictedTo":"Policies"}}`:                                                "Arguments.MachineIds is empty",
		} {
			if r := w.Must(http.StatusBadRequest, http.MethodPost, space+"/tasks", body); !strings.Contains(string(r.Body), says) {
				t.Errorf("%s: %s", body, r.Body)
			}
		}
		var task octopus.Task
		w.Must(http.StatusCreated, http.MethodPost, "/api/tasks", `{"Name":"Backup","Description":"By hand"}`).Into(&task)
		if task.Name != octopus.TaskBackup || task.SpaceID != "" || task.Description != "By hand" {
			t.Errorf("%+v", task)
		}
		// Whoever may do so in one environment has its machines checked, and no others.
		inDev := w.Person(actiontest.Role{
			Space: "Spaces-1", Permissions: []string{"TaskCreate", "TaskView", "MachineView", "EnvironmentView"}, Scope: octopus.ScopedUserRole{EnvironmentIDs: octopus.List[string]{w.dev}},
		})
		elsewhere := w.Create("/api/machines", fmt.Sprintf(`{"Name":"elsewhere","EnvironmentIds":[%q],"Roles":["web"],"SkipInitialHealthCheck":true,"Endpoint":{"CommunicationStyle":"None"}}`, w.prod))
		w.MustAs(inDev, http.StatusBadRequest, http.MethodPost, space+"/tasks", fmt.Sprintf(`{"Name":"Health","Arguments":{"MachineIds":[%q]}}`, elsewhere))
		w.MustAs(inDev, http.StatusCreated, http.MethodPost, space+"/tasks", fmt.Sprintf(`{"Name":"Health","Arguments":{"MachineIds":[%q]}}`, both))
		w.MustAs(inDev, http.StatusForbidden, http.MethodPost, space+"/tasks", `{"Name":"Backup"}`)
		w.MustAs(inDev, http.StatusForbidden, http.MethodPost, space+"/tasks", `{"Name":"Retention"}`)
		w.MustAs(w.may("MachineView"), http.StatusForbidden, http.MethodPost, space+"/tasks", `{"Name":"Health"}`)
	})
}
