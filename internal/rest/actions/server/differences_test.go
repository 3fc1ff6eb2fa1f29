package server_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

// TestDifferencesNeedTheView lets people who may see events look at what exactly was
// changed: they see it of documents that they may see themselves.
func TestDifferencesNeedTheView(t *testing.T) {
	t.Parallel()
	actiontest.Each(t, routes, func(t *testing.T, w *actiontest.World) {
		group := w.Create("/api/projectgroups", `{"Name":"Shops"}`)
		id := w.Create("/api/projects", strings.Replace(project, "ProjectGroups-1", group, 1))
		dev := w.Create("/api/environments", `{"Name":"Dev"}`)
		library := w.Create("/api/libraryvariablesets", `{"Name":"Common"}`)
		ctx := db.WithActor(t.Context(), db.Actor{UserID: "Users-1", Username: "ada"})
		for owner, value := range map[string]string{id: "project-value", library: "library-value"} {
			err := w.DB.Write(ctx, func(tx *db.Tx) error {
				var set resources.VariableSet
				store := w.Store.In(tx)
				if err := store.Load(ctx, "variables", "variableset-"+owner, &set); err != nil {
					return err
				}
				set.Variables = append(set.Variables, resources.Variable{Variable: octopus.Variable{Name: "Greeting", Value: &value, Type: octopus.VariableString}})
				return store.Replace(ctx, "variables", set.ID, &set)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		ofProject := octopus.ScopedUserRole{ProjectIDs: []string{id}}
		ofGroup := octopus.ScopedUserRole{ProjectGroupIDs: []string{group}}
		ofDev := octopus.ScopedUserRole{EnvironmentIDs: []string{dev}}
		role := func(scope octopus.ScopedUserRole, permissions ...string) actiontest.Role {
			return actiontest.Role{Space: "Spaces-1", Permissions: permissions, Scope: scope}
		}
		all := octopus.ScopedUserRole{}
		for name, c := range map[string]struct {
			roles            []actiontest.Role
			project, library bool
		}{
			"events alone":                     {[]actiontest.Role{role(all, "EventView")}, false, false},
			"variables too":                    {[]actiontest.Role{role(all, "EventView", "VariableView")}, true, false},
			"and library sets":                 {[]actiontest.Role{role(all, "EventView", "VariableView", "LibraryVariableSetView")}, true, true},
			"library sets, no variables":       {[]actiontest.Role{role(all, "EventView", "LibraryVariableSetView")}, false, false},
			"variables of the project":         {[]actiontest.Role{role(ofProject, "EventView", "VariableView")}, true, false},
			"variables of its group":           {[]actiontest.Role{role(ofGroup, "EventView", "VariableView")}, true, false},
			"variables of one environment":     {[]actiontest.Role{role(all, "EventView", "LibraryVariableSetView"), role(ofDev, "VariableView")}, false, false},
			"and those of no environment":      {[]actiontest.Role{role(all, "EventView", "VariableViewUnscoped", "LibraryVariableSetView"), role(ofDev, "VariableView")}, false, false},
			"the project, but not what it has": {[]actiontest.Role{role(all, "EventView", "ProjectView")}, false, false},
		} {
			key := w.Person(c.roles...)
			var page octopus.Page[octopus.Event]
			answer := w.MustAs(key, http.StatusOK, http.MethodGet, "/api/Spaces-1/events?take=200&eventCategories=Modified", "")
			answer.Into(&page)
			body := string(answer.Body)
			for _, e := range page.Items {
				body += string(w.MustAs(key, http.StatusOK, http.MethodGet, e.Links["Self"], "").Body)
			}
			if n := strings.Count(body, "project-value"); (n > 0) != c.project {
				t.Errorf("%s: the project's value is there %d times, want it: %t", name, n, c.project)
			}
			if n := strings.Count(body, "library-value"); (n > 0) != c.library {
				t.Errorf("%s: the library set's value is there %d times, want it: %t", name, n, c.library)
			}
		}
		csv := w.Must(http.StatusOK, http.MethodGet, "/api/events?asCsv=true", "")
		if strings.Contains(string(csv.Body), "-value") {
			t.Error("the table has values of variables")
		}
	})
}
