package projects_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

func TestVariableSet(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		empty := w.read(actiontest.Admin, w.web)
		if empty.ID != "variableset-"+w.web || empty.OwnerID != w.web || empty.Version != 1 || empty.Links["Self"] != "/api/Spaces-1/variables/"+empty.ID {
			t.Errorf("%+v", empty)
		}
		first := w.mustPut(actiontest.Admin, empty, value("Url", "http://x"), secret("Password", "hunter2-hunter2"), value("Empty", ""))
		if diff := cmp.Diff(map[string]string{"Url": "http://x", "Password": "", "Empty": ""}, texts(first)); diff != "" || first.Version != 2 {
			t.Errorf("version %d (-want +got):\n%s", first.Version, diff)
		}
		for _, v := range first.Variables {
			if v.ID == "" || !v.IsEditable || v.IsSensitive != (v.Name == "Password") || (v.Value == nil) != v.IsSensitive {
				t.Errorf("%+v", v)
			}
		}
		if a := w.put(actiontest.Admin, empty, value("Url", "http://y")); a.Status != http.StatusConflict {
			t.Errorf("an old version: %d %s", a.Status, a.Body)
		}
		// What comes back of a secret is nothing, or an empty text: either keeps it.
		for _, back := range []*string{nil, new(string)} {
			now := w.read(actiontest.Admin, w.web)
			for i := range now.Variables {
				if now.Variables[i].IsSensitive {
					now.Variables[i].Value, now.Variables[i].IsSensitive = back, false
				}
			}
			w.mustPut(actiontest.Admin, now, now.Variables...)
			if got := w.revealed(now.ID)["Password"]; got != "hunter2-hunter2" {
				t.Errorf("the secret became %q", got)
			}
		}
		now := w.read(actiontest.Admin, w.web)
		i := slices.IndexFunc(now.Variables, func(v octopus.Variable) bool { return v.Name == "Password" })
		fresh := "correct horse"
		now.Variables[i].Value = &fresh
		w.mustPut(actiontest.Admin, now, now.Variables...)
		if got := w.revealed(now.ID)["Password"]; got != fresh {
			t.Errorf("the new secret is %q", got)
		}
		for _, path := range []string{"/api/variables/VARIABLESET-" + strings.ToLower(w.web), "/api/spaces/Spaces-1/variables/all?ids=" + now.ID, "/api/variables?ids=" + now.ID, "/api/variables/all"} {
			body := string(w.Get(path).Body)
			for _, bad := range []string{fresh, "hunter2", "tako1:", `"Secret"`} {
				if strings.Contains(body, bad) {
					t.Errorf("%s has %s: %s", path, bad, body)
				}
			}
			if !strings.Contains(body, `"Name":"Password"`) {
				t.Errorf("%s: %s", path, body)
			}
		}
		// Nor does a client write what is stored beside a variable.
		s := w.read(actiontest.Admin, w.web)
		raw := fmt.Sprintf(`{"Version":%d,"ScopeValues":{"Roles":[]},"Variables":[{"Name":"Sly","Type":"Sensitive","Secret":{"HasValue":true,"NewValue":"slipped in"}}]}`, s.Version)
		w.Must(200, http.MethodPut, "/api/variables/"+s.ID, raw)
		if got := w.revealed(s.ID); got["Sly"] != "" {
			t.Errorf("%v", got)
		}
		w.Must(http.StatusNotFound, http.MethodGet, "/api/variables/variableset-Projects-99", "")
		w.Must(http.StatusBadRequest, http.MethodPut, "/api/variables/"+s.ID, fmt.Sprintf(`{"Version":%d,"Variables":[{"Name":""}]}`, s.Version+1))
	})
}

func TestScopeValues(t *testing.T) {
	t.Parallel()
	w := newWorld(actiontest.New(t, routes))
	w.project("Other")
	s := w.read(actiontest.Admin, w.web)
	var project octopus.Project
	w.Get("/api/projects/" + w.web).Into(&project)
	var channels octopus.Page[octopus.Channel]
	w.Get("/api/channels").Into(&channels)
	want := octopus.ScopeValues{
		Environments: octopus.List[octopus.Named]{{ID: w.dev, Name: "Dev"}, {ID: w.prod, Name: "Prod"}},
		Machines:     octopus.List[octopus.Named]{{ID: w.machine, Name: "box1"}},
		Actions:      octopus.List[octopus.Named]{{ID: "a1", Name: "Deploy"}},
		Roles:        octopus.List[octopus.Named]{{ID: "db", Name: "db"}, {ID: "web-server", Name: "web-server"}},
		TenantTags:   octopus.List[octopus.Named]{},
		Processes:    octopus.List[octopus.NamedProcess]{{ID: w.web, Name: "Web", ProcessType: octopus.ProcessDeployment}},
	}
	for _, c := range channels.Items {
		if c.ProjectID == w.web {
			want.Channels = append(want.Channels, octopus.Named{ID: c.ID, Name: c.Name})
		}
	}
	if diff := cmp.Diff(want, s.ScopeValues); diff != "" || len(want.Channels) != 2 {
		t.Errorf("(-want +got):\n%s", diff)
	}
	library := w.read(actiontest.Admin, w.library).ScopeValues
	if len(library.Actions)+len(library.Channels)+len(library.Processes) != 0 || len(library.Environments) != 2 {
		t.Errorf("of a library set: %+v", library)
	}
	// What one may not see is not offered.
	key := w.person([]string{"VariableView", "EnvironmentView", "MachineView"}, w.dev)
	if got := w.read(key, w.web).ScopeValues; len(got.Environments) != 1 || len(got.Machines)+len(got.Channels)+len(got.Actions) != 0 {
		t.Errorf("%+v", got)
	}
}

// Values are seen where one may see them, and stay where one may not.
func TestWhoSeesAndChangesWhat(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		full := w.mustPut(actiontest.Admin, w.read(actiontest.Admin, w.web),
			value("Dev", "d", w.dev), secret("ProdKey", "prod-secret", w.prod), value("Both", "b", w.dev, w.prod), value("All", "a"))
		scoped := w.person([]string{"VariableView", "VariableEdit"}, w.dev)
		unscoped := w.Person(
			actiontest.Role{Space: home, Permissions: []string{"VariableView", "VariableEdit"}, Scope: octopus.ScopedUserRole{EnvironmentIDs: []string{w.dev}}},
			actiontest.Role{Space: home, Permissions: []string{"VariableViewUnscoped", "VariableEditUnscoped"}})
		viewer := w.person([]string{"VariableView"})
		elsewhere := w.Person(actiontest.Role{Space: home, Permissions: []string{"VariableView", "VariableEdit"}, Scope: octopus.ScopedUserRole{ProjectIDs: []string{w.project("Other")}}})
		names := func(key string) string {
			var all []string
			for _, v := range w.read(key, w.web).Variables {
				name := v.Name
				if v.IsEditable {
					name += "!"
				}
				all = append(all, name)
			}
			slices.Sort(all)
			return strings.Join(all, " ")
		}
		for key, want := range map[string]string{
			actiontest.Admin: "All! Both! Dev! ProdKey!", scoped: "Both Dev!", unscoped: "All! Both Dev!", viewer: "All Both Dev ProdKey",
		} {
			if got := names(key); got != want {
				t.Errorf("sees %q, want %q", got, want)
			}
		}
		w.MustAs(elsewhere, http.StatusNotFound, http.MethodGet, "/api/variables/"+full.ID, "")
		if ids := w.MustAs(elsewhere, 200, http.MethodGet, "/api/variables/all?ids="+full.ID, "").IDs(); len(ids) != 0 {
			t.Errorf("another project's set is listed: %v", ids)
		}

		mine := w.read(scoped, w.web)
		own := mine.Variables[slices.IndexFunc(mine.Variables, func(v octopus.Variable) bool { return v.Name == "Dev" })]
		both := mine.Variables[slices.IndexFunc(mine.Variables, func(v octopus.Variable) bool { return v.Name == "Both" })]
		prod := full.Variables[slices.IndexFunc(full.Variables, func(v octopus.Variable) bool { return v.Name == "ProdKey" })]
		changed := func(v octopus.Variable, change func(*octopus.Variable)) octopus.Variable {
			change(&v)
			return v
		}
		text := "new"
		set := func(v *octopus.Variable) { v.Value = &text }
		before := w.revealed(full.ID)
		for name, variables := range map[string][]octopus.Variable{
			"changes a value of two environments":         {own, changed(both, set)},
			"deletes a value of two environments":         {own},
			"moves its own to another environment":        {changed(own, func(v *octopus.Variable) { v.Scope.Environment = []string{w.prod} }), both},
			"takes the scope off its own":                 {changed(own, func(v *octopus.Variable) { v.Scope = octopus.Scope{} }), both},
			"adds one for another environment":            {own, both, value("New", "n", w.prod)},
			"adds one without a scope":                    {own, both, value("New", "n")},
			"takes a hidden secret into its environment":  {own, both, changed(prod, func(v *octopus.Variable) { v.Scope.Environment = []string{w.dev} })},
			"replaces a hidden one by its id":             {own, both, changed(prod, set)},
			"widens a value of two environments to three": {own, changed(both, func(v *octopus.Variable) { v.Scope.Machine = []string{w.machine} })},
		} {
			if a := w.put(scoped, mine, variables...); a.Status != http.StatusForbidden {
				t.Errorf("%s: %d %s", name, a.Status, a.Body)
			}
		}
		if a := w.put(viewer, w.read(viewer, w.web), full.Variables...); a.Status != http.StatusForbidden {
			t.Errorf("a viewer's change that changes nothing: %d %s", a.Status, a.Body)
		}
		if diff := cmp.Diff(before, w.revealed(full.ID)); diff != "" {
			t.Errorf("a refused change changed something:\n%s", diff)
		}
		after := w.mustPut(scoped, mine, changed(own, set), both, value("Added", "x", w.dev))
		if got := len(after.Variables); got != 3 {
			t.Errorf("%d variables come back", got)
		}
		want := map[string]string{"Dev": "new", "Both": "b", "Added": "x", "All": "a", "ProdKey": "prod-secret"}
		if diff := cmp.Diff(want, w.revealed(full.ID)); diff != "" {
			t.Errorf("the rest is not as it was (-want +got):\n%s", diff)
		}
		// Deleting all that one sees and may change leaves the others'.
		now := w.read(unscoped, w.web)
		kept := slices.DeleteFunc(slices.Clone(now.Variables), func(v octopus.Variable) bool { return v.IsEditable })
		w.mustPut(unscoped, now, kept...)
		if diff := cmp.Diff(map[string]string{"Both": "b", "ProdKey": "prod-secret"}, w.revealed(full.ID)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestLibrarySets(t *testing.T) {
	t.Parallel()
	w := newWorld(actiontest.New(t, routes))
	set := w.mustPut(actiontest.Admin, w.read(actiontest.Admin, w.library), value("Shared", "s"))
	if set.Links["Owner"] != "/api/Spaces-1/libraryvariablesets/"+w.library {
		t.Errorf("%v", set.Links)
	}
	step := value("Step", "x")
	step.Scope.Action = []string{"a1"}
	if a := w.put(actiontest.Admin, set, step); a.Status != http.StatusBadRequest || !strings.Contains(string(a.Body), "library set") {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	for _, c := range []struct {
		permissions []string
		read, write int
	}{
		{[]string{"VariableView", "VariableEdit"}, 404, 404},
		{[]string{"VariableView", "VariableEdit", "LibraryVariableSetView"}, 200, 403},
		{[]string{"VariableView", "LibraryVariableSetView", "LibraryVariableSetEdit"}, 200, 403},
		{[]string{"VariableView", "VariableEdit", "LibraryVariableSetView", "LibraryVariableSetEdit"}, 200, 200},
	} {
		key := w.person(c.permissions)
		if a := w.Do(http.MethodGet, "/api/variables/"+set.ID, key, ""); a.Status != c.read {
			t.Errorf("%v: %d %s", c.permissions, a.Status, a.Body)
		}
		now := w.read(actiontest.Admin, w.library)
		if a := w.put(key, now, now.Variables...); a.Status != c.write {
			t.Errorf("%v: %d %s", c.permissions, a.Status, a.Body)
		}
	}
}

func TestVariableNames(t *testing.T) {
	t.Parallel()
	w := newWorld(actiontest.New(t, routes))
	w.mustPut(actiontest.Admin, w.read(actiontest.Admin, w.library), value("Shared", "s", w.dev), value("url", "u"))
	w.mustPut(actiontest.Admin, w.read(actiontest.Admin, w.web), value("Url", "x"), value("Url", "y", w.prod), value("OnlyProd", "p", w.prod))
	for query, want := range map[string]string{
		"":                  `[]`,
		"?project=Web":      `["OnlyProd","Shared","Url"]`,
		"?project=" + w.web: `["OnlyProd","Shared","Url"]`,
		"?project=Web&projectEnvironmentsFilter=" + strings.ToLower(w.dev): `["Shared","Url"]`,
	} {
		if got := strings.TrimSpace(string(w.Get("/api/variables/names" + query).Body)); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
	w.Must(http.StatusNotFound, http.MethodGet, "/api/variables/names?project=none", "")
}

func TestPreview(t *testing.T) {
	t.Parallel()
	w := newWorld(actiontest.New(t, routes))
	w.mustPut(actiontest.Admin, w.read(actiontest.Admin, w.library), value("Url", "library"), value("Shared", "s"))
	tagged := value("Url", "tag")
	tagged.Scope.Role = []string{"web-server"}
	w.mustPut(actiontest.Admin, w.read(actiontest.Admin, w.web),
		value("Url", "plain"), value("Url", "prod", w.prod), tagged, value("OnlyDev", "d", w.dev), secret("Key", "prod-secret", w.prod))
	type answer struct {
		Variables []struct {
			Name, Value, OwnerName string
			Explanation            struct {
				Reason     string
				Candidates []struct{ Value, Reason string }
			}
		}
		Undefined    []struct{ Name string }
		HiddenValues int
	}
	ask := func(key, query string) (a answer, byName map[string]string) {
		t.Helper()
		w.MustAs(key, 200, http.MethodGet, "/api/variables/preview?project=Web"+query, "").Into(&a)
		byName = map[string]string{}
		for _, v := range a.Variables {
			byName[v.Name] = v.Value
		}
		return a, byName
	}
	for query, want := range map[string]map[string]string{
		"":                                         {"Url": "plain", "Shared": "s"},
		"&environment=Prod":                        {"Url": "prod", "Shared": "s", "Key": ""},
		"&environment=" + w.dev:                    {"Url": "plain", "Shared": "s", "OnlyDev": "d"},
		"&environment=Prod&machine=box1":           {"Url": "tag", "Shared": "s", "Key": ""},
		"&environment=Prod&role=Web-Server":        {"Url": "tag", "Shared": "s", "Key": ""},
		"&action=deploy&channel=Beta":              {"Url": "plain", "Shared": "s"},
		"&environment=Prod&machine=box1&action=a1": {"Url": "tag", "Shared": "s", "Key": ""},
	} {
		if _, got := ask(actiontest.Admin, query); !cmp.Equal(got, want) {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
	a, _ := ask(actiontest.Admin, "&environment=Prod")
	for _, v := range a.Variables {
		switch v.Name {
		case "Url":
			if v.OwnerName != "Web" || len(v.Explanation.Candidates) != 4 || !strings.Contains(v.Explanation.Reason, "environment Prod") {
				t.Errorf("%+v", v)
			}
		case "Key":
			if v.Explanation.Candidates[0].Value != "********" {
				t.Errorf("%+v", v)
			}
		}
	}
	if len(a.Undefined) != 1 || a.Undefined[0].Name != "OnlyDev" || a.HiddenValues != 0 {
		t.Errorf("%+v", a)
	}
	if body := string(w.Get("/api/variables/preview?project=Web&environment=Prod").Body); strings.Contains(body, "prod-secret") || strings.Contains(body, `"Secret"`) {
		t.Errorf("%s", body)
	}
	key := w.person([]string{"VariableView", "ProjectView", "EnvironmentView", "LibraryVariableSetView"}, w.dev)
	limited, _ := ask(key, "&environment=Dev")
	if limited.HiddenValues != 6 || len(limited.Variables) != 1 {
		t.Errorf("%+v", limited)
	}
	for query, status := range map[string]int{
		"?project=none": 404, "?environment=Dev": 400, "?project=Web&environment=none": 404, "?project=Web&action=none": 400, "?project=Web&machine=none": 404,
	} {
		w.Must(status, http.MethodGet, "/api/variables/preview"+query, "")
	}
	// An environment whose values one sees for another project only.
	other := w.Person(
		actiontest.Role{Space: home, Permissions: []string{"ProjectView", "EnvironmentView"}},
		actiontest.Role{Space: home, Permissions: []string{"VariableView"}, Scope: octopus.ScopedUserRole{EnvironmentIDs: []string{w.dev}}})
	w.MustAs(other, http.StatusForbidden, http.MethodGet, "/api/variables/preview?project=Web&environment=Prod", "")
}
