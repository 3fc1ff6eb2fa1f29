package projects_test

import (
	"encoding/json"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/internal/rest/actions/projects"
	"github.com/takodeploy/tako/octopus"
)

const home ident.SpaceID = "Spaces-1"

func routes(w *actiontest.World) []rest.Route { return projects.Routes(w.DB, w.Store) }

// world has two environments, and a project with a step, a channel and a target.
type world struct {
	*actiontest.World
	dev, prod, web, channel, machine, library string
}

func newWorld(w *actiontest.World) *world {
	w.T.Helper()
	out := &world{World: w}
	out.dev = w.Create("/api/environments", `{"Name":"Dev"}`)
	out.prod = w.Create("/api/environments", `{"Name":"Prod"}`)
	out.library = w.Create("/api/libraryvariablesets", `{"Name":"Shared"}`)
	out.web = out.project("Web", out.library)
	out.channel = w.Create("/api/channels", `{"Name":"Beta","ProjectId":"`+out.web+`"}`)
	out.machine = w.Create("/api/machines", `{"Name":"box1","EnvironmentIds":["`+out.prod+`"],"Roles":["web-server"],"Endpoint":{"CommunicationStyle":"None"}}`)
	w.Must(200, "PUT", "/api/deploymentprocesses/deploymentprocess-"+out.web, `{"Version":1,"Steps":[{"Id":"s1","Name":"Deploy","Properties":{"Octopus.Action.TargetRoles":"Web-Server, db"},
		"Actions":[{"Id":"a1","Name":"Deploy","ActionType":"Octopus.Script","Channels":["`+out.channel+`"],"Properties":{"Key":{"HasValue":true,"NewValue":"step-secret"}}}]}]}`)
	return out
}

func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	actiontest.Each(t, routes, func(t *testing.T, w *actiontest.World) { fn(t, newWorld(w)) })
}

func (w *world) project(name string, libraries ...string) string {
	w.T.Helper()
	body, err := json.Marshal(map[string]any{"Name": name, "ProjectGroupId": "ProjectGroups-1", "LifecycleId": "Lifecycles-1", "IncludedLibraryVariableSetIds": libraries})
	if err != nil {
		w.T.Fatal(err)
	}
	return w.Create("/api/projects", string(body))
}

// read reads a variable set as the holder of a key does.
func (w *world) read(key, owner string) octopus.VariableSet {
	w.T.Helper()
	var s octopus.VariableSet
	w.MustAs(key, 200, "GET", "/api/variables/variableset-"+owner, "").Into(&s)
	return s
}

// put sends a set, as it was read, with other variables.
func (w *world) put(key string, s octopus.VariableSet, variables ...octopus.Variable) actiontest.Answer {
	w.T.Helper()
	s.Variables = variables
	body, err := json.Marshal(s)
	if err != nil {
		w.T.Fatal(err)
	}
	return w.Do("PUT", "/api/variables/"+s.ID, key, string(body))
}

func (w *world) mustPut(key string, s octopus.VariableSet, variables ...octopus.Variable) octopus.VariableSet {
	w.T.Helper()
	a := w.put(key, s, variables...)
	if a.Status != 200 {
		w.T.Fatalf("put %s: %d %s", s.ID, a.Status, a.Body)
	}
	var fresh octopus.VariableSet
	a.Into(&fresh)
	return fresh
}

// value is a variable; environments scope it.
func value(name, text string, environments ...string) octopus.Variable {
	return octopus.Variable{Name: name, Value: &text, Scope: octopus.Scope{Environment: environments}}
}

// secret is a sensitive variable as the command line sends it.
func secret(name, text string, environments ...string) octopus.Variable {
	v := value(name, text, environments...)
	v.Type = octopus.VariableSensitive
	return v
}

// texts are what variables say, by name.
func texts(s octopus.VariableSet) map[string]string {
	all := map[string]string{}
	for _, v := range s.Variables {
		all[v.Name] = v.Text()
	}
	return all
}

// revealed are the values of a set with its secrets, as a deployment reads them.
func (w *world) revealed(id string) map[string]string {
	w.T.Helper()
	var s struct {
		Variables []struct {
			octopus.Variable
			Secret *octopus.Sensitive
		}
	}
	err := w.DB.Read(w.T.Context(), func(tx *db.Tx) error { return w.Store.Reveal(w.T.Context(), tx, "variables", id, &s) })
	if err != nil {
		w.T.Fatal(err)
	}
	all := map[string]string{}
	for _, v := range s.Variables {
		all[v.Name] = v.Text()
		if v.Secret != nil && v.Secret.NewValue != nil {
			all[v.Name] = string(*v.Secret.NewValue)
		}
	}
	return all
}

// person holds permissions in the default space, in some environments.
func (w *world) person(permissions []string, environments ...string) string {
	w.T.Helper()
	return w.Person(actiontest.Role{Space: home, Permissions: permissions, Scope: octopus.ScopedUserRole{EnvironmentIDs: environments}})
}
