package rest_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/rest"
)

func TestRootDocuments(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	root := w.get("/api/", "").json(t)
	for member, want := range map[string]any{
		"Version": "2026.4.0-dev.1", "ApiVersion": "3.0.0", "InstallationId": "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d",
	} {
		if root[member] != want {
			t.Errorf("%s is %v, want %v", member, root[member], want)
		}
	}
	if a := w.get("/api/Spaces-1", ""); a.status != http.StatusUnauthorized {
		t.Errorf("a space's root document is open: %d", a.status)
	}
	space := w.must(http.StatusOK, http.MethodGet, "/api/Spaces-2", "").json(t)
	rootLinks, _ := root["Links"].(map[string]any)
	spaceLinks, _ := space["Links"].(map[string]any)
	if len(rootLinks) < 150 || len(rootLinks) != len(spaceLinks) {
		t.Errorf("%d links in the root document and %d in the space's; want the same names", len(rootLinks), len(spaceLinks))
	}
	for name, want := range map[string][2]string{
		"Self":         {"/api", "/api/Spaces-2"},
		"SpaceHome":    {"/api/{spaceId}", "/api/Spaces-2"},
		"Environments": {"/api/environments{/id}{?name,skip,ids,take,partialName}", "/api/Spaces-2/environments{/id}{?name,skip,ids,take,partialName}"},
		"MachineRoles": {"/api/machineroles/all", "/api/Spaces-2/machineroles/all"},
		"Spaces":       {"/api/spaces{/id}{?name,skip,ids,take,partialName}", "/api/spaces{/id}{?name,skip,ids,take,partialName}"},
		"CurrentUser":  {"/api/users/me", "/api/users/me"},
	} {
		if rootLinks[name] != want[0] || spaceLinks[name] != want[1] {
			t.Errorf("link %s: %v and %v, want %v", name, rootLinks[name], spaceLinks[name], want)
		}
	}
	// A collection's template without {/id} makes clients change the collection
	// where they mean one of its documents.
	for _, name := range []string{
		"Accounts", "Artifacts", "Certificates", "Channels", "DeploymentProcesses", "Deployments", "Environments", "Feeds", "Interruptions",
		"LibraryVariables", "Lifecycles", "MachinePolicies", "Machines", "ProjectGroups", "Projects", "ProjectTriggers", "Proxies", "Releases",
		"RunbookProcesses", "RunbookRuns", "Runbooks", "RunbookSnapshots", "ScopedUserRoles", "Spaces", "Subscriptions", "TagSets", "Tasks", "Teams",
		"Tenants", "UserRoles", "Users", "Variables", "WorkerPools", "Workers",
	} {
		if link, _ := spaceLinks[name].(string); !strings.Contains(link, "{/id}") {
			t.Errorf("link %s is %q, without {/id}", name, link)
		}
	}
}

func TestSmallDocuments(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *rest.Config) { c.Toggles = []string{"extra"} })
	if got := string(w.must(200, http.MethodGet, "/api/capabilities", "").body); got != `{"Capabilities":["GetAllSpacesRequest"]}`+"\n" {
		t.Error(got)
	}
	all := w.must(200, http.MethodGet, "/api/configuration/feature-toggles", "").body
	for _, name := range []string{"CommonVariableScopingFeatureToggle", "extra"} {
		if !strings.Contains(string(all), `{"Name":"`+name+`","IsEnabled":true}`) {
			t.Errorf("%s is not on in %s", name, all)
		}
	}
	if got := string(w.must(200, http.MethodGet, "/api/configuration/feature-toggles?Name=other", "").body); got != `{"FeatureToggles":[]}`+"\n" {
		t.Error(got)
	}
	for _, path := range []string{"/livez", "/readyz", "/api/octopusservernodes/ping"} {
		if a := w.get(path, ""); a.status != 200 {
			t.Errorf("%s: %d", path, a.status)
		}
	}
}

func TestLifeOfADocument(t *testing.T) {
	t.Parallel()
	onBoth(t, lifeOfADocument)
}

func lifeOfADocument(t *testing.T, w *world) {
	made := w.must(http.StatusCreated, http.MethodPost, "/api/Spaces-1/environments", `{"name":" Dev & Test ","SpaceId":"","Slug":"","Links":{"Self":"x"},"Future":{"a":[1]}}`)
	doc := made.json(t)
	if doc["Name"] != "Dev & Test" || doc["Slug"] != "dev-test" || doc["SpaceId"] != "Spaces-1" {
		t.Errorf("made %s", made.body)
	}
	id, _ := doc["Id"].(string)
	self := "/api/Spaces-1/environments/" + id
	if made.header.Get("Location") != self || made.header.Get("ETag") != `"1"` {
		t.Errorf("headers %v", made.header)
	}
	if diff := cmp.Diff(map[string]any{"Self": self}, doc["Links"]); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[string]any{"a": []any{1.0}}, doc["Future"]); diff != "" {
		t.Errorf("a member that the server does not know is lost:\n%s", diff)
	}
	// Every spelling of the path and of the reference finds it.
	for _, path := range []string{
		self, self + "/", "/api/environments/" + id, "/api/spaces/Spaces-1/environments/" + id, "/API/SPACES-1/Environments/" + strings.ToLower(id),
		"/api/Spaces-1/environments/dev-test", "/api/Spaces-1/environments/Dev%20%26%20Test", "/api/Default/environments/dev%20%26%20TEST",
		"/api/default/environments/" + id, "/api//Spaces-1///environments/" + id, "/api/Spaces-1/environment/" + id,
	} {
		a := w.must(http.StatusOK, http.MethodGet, path, "")
		if string(a.body) != string(made.body) {
			t.Errorf("GET %s: %s", path, a.body)
		}
	}
	for _, path := range []string{"/api/Spaces-2/environments/" + id, "/api/Spaces-2/environments/Dev%20%26%20Test", "/api/ops-team/environments/" + id} {
		w.must(http.StatusNotFound, http.MethodGet, path, "")
	}
	if a := w.must(http.StatusOK, http.MethodHead, self, ""); len(a.body) != 0 || a.header.Get("Content-Length") == "" {
		t.Errorf("HEAD: %v", a)
	}

	// A PUT replaces: what is left out is cleared, and the slug stays.
	w.must(http.StatusOK, http.MethodPut, self, `{"Name":"Renamed","Description":"one"}`)
	got := w.must(http.StatusOK, http.MethodPut, self, `{"Name":"Renamed","SortOrder":7}`)
	doc = got.json(t)
	if doc["Description"] != "" || doc["SortOrder"] != 7.0 || doc["Slug"] != "dev-test" || doc["Future"] != nil || got.header.Get("ETag") != `"3"` {
		t.Errorf("replaced: %v %s", got.header, got.body)
	}
	w.must(http.StatusNotModified, http.MethodGet, self, "", "If-None-Match", `"1", W/"3"`)
	w.must(http.StatusOK, http.MethodGet, self, "", "If-None-Match", `"2"`)
	w.must(http.StatusConflict, http.MethodPut, self, `{"Name":"Late"}`, "If-Match", `"2"`)
	w.must(http.StatusBadRequest, http.MethodPut, self, `{"Name":"Late"}`, "If-Match", `abc`)
	w.must(http.StatusOK, http.MethodPut, self, `{"Name":"In time"}`, "If-Match", `"3"`)
	w.must(http.StatusOK, http.MethodPut, self, `{"Name":"Any"}`, "If-Match", `*`)
	w.must(http.StatusConflict, http.MethodDelete, self, "", "If-Match", `"4"`)

	gone := w.must(http.StatusOK, http.MethodDelete, self, "")
	if string(gone.body) != "{}\n" || gone.header.Get("Content-Length") != "3" {
		t.Errorf("DELETE answered %q", gone.body)
	}
	if _, has := w.must(http.StatusNotFound, http.MethodGet, self, "").json(t)["Errors"]; has {
		t.Error("a 404 has Errors; clients then do not see that the document is gone")
	}
	w.must(http.StatusNotFound, http.MethodDelete, self, "")
	w.must(http.StatusNotFound, http.MethodPut, self, `{"Name":"x"}`)
}

func TestLists(t *testing.T) {
	t.Parallel()
	onBoth(t, lists)
}

func lists(t *testing.T, w *world) {
	var ids []string
	for i := range 35 {
		ids = append(ids, w.create("/api/Spaces-1/environments", fmt.Sprintf(`{"Name":"E %02d & Ä%%_","SortOrder":%d}`, i, 100-i)))
	}
	w.create("/api/Spaces-2/environments", `{"Name":"elsewhere"}`)
	slices.Reverse(ids) // the order is by SortOrder

	var walked []string
	next := "/api/Spaces-1/environments"
	pages := 0
	for next != "" {
		page := w.must(http.StatusOK, http.MethodGet, next, "").json(t)
		if page["TotalResults"] != 35.0 || page["ItemsPerPage"] != 30.0 || page["NumberOfPages"] != 2.0 || page["LastPageNumber"] != 1.0 || page["ItemType"] != "Environment" {
			t.Errorf("page %v", page)
		}
		walked = append(walked, idsOf(page["Items"])...)
		links, _ := page["Links"].(map[string]any)
		next, _ = links["Page.Next"].(string)
		pages++
	}
	if diff := cmp.Diff(ids, walked); diff != "" || pages != 2 {
		t.Errorf("walk of %d pages (-want +got):\n%s", pages, diff)
	}

	list := func(query string) map[string]any {
		t.Helper()
		return w.must(http.StatusOK, http.MethodGet, "/api/Spaces-1/environments?"+query, "").json(t)
	}
	for query, want := range map[string][]string{
		"take=2147483647":                  ids,
		"take=99999999999999999999&skip=0": ids,
		"take=0":                           ids[:30],
		"take=3&skip=33":                   ids[33:],
		"skip=99999999999999999999":        nil,
		"SKIP=1&Take=2":                    ids[1:3],
		"ids=" + ids[4] + "%2C" + strings.ToLower(ids[2]) + ",Environments-999": {ids[2], ids[4]},
		"ids=" + ids[4] + "&ids=" + ids[2]:                                      {ids[2], ids[4]},
		"ids=&take=1":                                                           ids[:1],
		"ids=nonsense":                                                          nil,
		"partialName=e%2007%20%26":                                              {ids[35-1-7]},
		"partialName=%C3%A4%25_":                                                ids[:30],
		"partialName=%25%25":                                                    nil,
		"name=e%2007%20%26%20%C3%A4%25_":                                        {ids[35-1-7]},
		"name=e%2007":                                                           nil,
	} {
		if diff := cmp.Diff(want, idsOf(list(query)["Items"])); diff != "" {
			t.Errorf("?%s (-want +got):\n%s", query, diff)
		}
	}

	page := list("partialName=e%200&take=4&skip=4&apikey=API-SECRET&x=%7B%26")
	links, _ := page["Links"].(map[string]any)
	want := map[string]any{
		"Self":         "/api/Spaces-1/environments?skip=4&take=4&partialName=e+0&x=%7B%26",
		"Template":     "/api/Spaces-1/environments{?skip,take,ids,partialName}",
		"Page.All":     "/api/Spaces-1/environments?skip=0&take=2147483647&partialName=e+0&x=%7B%26",
		"Page.Current": "/api/Spaces-1/environments?skip=4&take=4&partialName=e+0&x=%7B%26",
		"Page.Last":    "/api/Spaces-1/environments?skip=8&take=4&partialName=e+0&x=%7B%26",
		"Page.Next":    "/api/Spaces-1/environments?skip=8&take=4&partialName=e+0&x=%7B%26",
	}
	if diff := cmp.Diff(want, links); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}

	empty := w.must(http.StatusOK, http.MethodGet, "/api/Spaces-2/projects", "")
	if !strings.Contains(string(empty.body), `"NumberOfPages":1,"LastPageNumber":0,"Items":[]`) {
		t.Errorf("an empty list is %s", empty.body)
	}
	if got := string(w.must(http.StatusOK, http.MethodGet, "/api/Spaces-2/projects/all", "").body); got != "[]\n" {
		t.Errorf("/all of nothing is %q", got)
	}
	var all []any
	if err := json.Unmarshal(w.must(http.StatusOK, http.MethodGet, "/api/environments/all?partialName=E", "").body, &all); err != nil || len(all) != 35 {
		t.Errorf("/all has %d, %v", len(all), err)
	}
}

func idsOf(items any) []string {
	list, _ := items.([]any)
	var ids []string
	for _, item := range list {
		doc, _ := item.(map[string]any)
		id, _ := doc["Id"].(string)
		ids = append(ids, id)
	}
	return ids
}

func TestReferencesAndFilters(t *testing.T) {
	t.Parallel()
	onBoth(t, referencesAndFilters)
}

func referencesAndFilters(t *testing.T, w *world) {
	env := w.create("/api/environments", `{"Name":"Dev"}`)
	life := w.create("/api/lifecycles", `{"Name":"L","Phases":[{"Name":"one","OptionalDeploymentTargets":["`+env+`"]}]}`)
	project := func(name string) string {
		return w.create("/api/projects", `{"Name":"`+name+`","LifecycleId":"`+life+`"}`)
	}
	p1, p2 := project("Web"), project("Api")
	links, _ := w.must(200, http.MethodGet, "/api/projects/"+p1, "").json(t)["Links"].(map[string]any)
	want := map[string]any{
		"Self":      "/api/Spaces-1/projects/" + p1,
		"Releases":  "/api/Spaces-1/projects/" + p1 + "/releases{/version}{?skip,take}",
		"Lifecycle": "/api/Spaces-1/lifecycles/" + life,
	}
	if diff := cmp.Diff(want, links); diff != "" {
		t.Errorf("links (-want +got):\n%s", diff)
	}
	refused := w.must(http.StatusConflict, http.MethodDelete, "/api/environments/"+env, "")
	if !strings.Contains(refused.text(t, "ErrorMessage"), life) {
		t.Errorf("the refusal does not name the user: %s", refused.body)
	}

	c1 := w.create("/api/channels", `{"Name":"Default","ProjectId":"`+p1+`"}`)
	// Below its project a channel needs no ProjectId, and gets no other one.
	made := w.must(http.StatusCreated, http.MethodPost, "/api/projects/Api/channels", `{"Name":"Default","projectID":"`+p1+`"}`)
	if made.text(t, "ProjectId") != p2 {
		t.Errorf("made in the wrong project: %s", made.body)
	}
	c2 := made.text(t, "Id")
	for path, want := range map[string][]string{
		"/api/channels?projectId=" + p2:                              {c2},
		"/api/channels?PROJECTID=" + p1 + "," + p2:                   {c1, c2},
		"/api/projects/Web/channels":                                 {c1},
		"/api/Spaces-1/projects/" + p2 + "/channels?partialName=def": {c2},
	} {
		if diff := cmp.Diff(want, idsOf(w.must(200, http.MethodGet, path, "").json(t)["Items"])); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	for path, want := range map[string]string{
		"/api/projects/web/channels/" + c1:   c1,
		"/api/projects/web/channels/Default": c1,
		"/api/projects/api/channels/default": c2,
		"/api/projects/api/channels/" + c1:   "",
		"/api/projects/none/channels/" + c1:  "",
	} {
		a := w.get(path, admin)
		if got := a.text(t, "Id"); got != want || (want == "") != (a.status == http.StatusNotFound) {
			t.Errorf("%s: %d %q, want %q", path, a.status, got, want)
		}
	}
	w.must(http.StatusNotFound, http.MethodDelete, "/api/projects/api/channels/"+c1, "")
	w.must(http.StatusOK, http.MethodPut, "/api/projects/web/channels/"+c1, `{"Name":"Stable","ProjectId":"`+p1+`"}`)
	w.must(http.StatusOK, http.MethodDelete, "/api/projects/"+p1, "")
	w.must(http.StatusNotFound, http.MethodGet, "/api/channels/"+c1, "")
}

func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const secret = "s3cr3t-value"
	id := w.create("/api/accounts", `{"Name":"Cloud","AccountType":"Token","Token":{"HasValue":true,"NewValue":"`+secret+`"}}`)
	path := "/api/accounts/" + id
	w.must(200, http.MethodPut, path, `{"Name":"Cloud","AccountType":"Token","Token":{"HasValue":true,"NewValue":null}}`)
	for _, p := range []string{path, "/api/accounts", "/api/accounts/all", "/api/Spaces-1/accounts?accountType=token"} {
		body := string(w.must(200, http.MethodGet, p, "").body)
		if strings.Contains(body, secret) || strings.Contains(body, "sealed:") || !strings.Contains(body, `"HasValue":true`) || !strings.Contains(body, `"NewValue":null`) {
			t.Errorf("%s: %s", p, body)
		}
	}
	w.must(400, http.MethodPut, path, `{"Name":"Cloud","Token":{"HasValue":"`+secret+`"}}`)
	if a := w.do(http.MethodPut, path, admin, `{"Name":"Cloud","Token":["`+secret+`"]}`); a.status != 400 || strings.Contains(string(a.body), secret) {
		t.Errorf("a bad secret: %d %s", a.status, a.body)
	}
	w.must(200, http.MethodPut, path, `{"Name":"Cloud","AccountType":"Token","Token":{"HasValue":false}}`)
	if body := string(w.must(200, http.MethodGet, path, "").body); strings.Contains(body, `"HasValue":true`) {
		t.Errorf("the secret was not removed: %s", body)
	}
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	onBoth(t, permissions)
}

func permissions(t *testing.T, w *world) {
	dev, prod := w.create("/api/environments", `{"Name":"Dev"}`), w.create("/api/environments", `{"Name":"Prod"}`)
	life := w.create("/api/lifecycles", `{"Name":"L"}`)
	p1 := w.create("/api/projects", `{"Name":"Web","LifecycleId":"`+life+`"}`)
	p2 := w.create("/api/projects", `{"Name":"Api","LifecycleId":"`+life+`"}`)
	c2 := w.create("/api/channels", `{"Name":"Stable","ProjectId":"`+p2+`"}`)
	w.create("/api/accounts", `{"Name":"D","EnvironmentIds":["`+dev+`"]}`)
	w.create("/api/accounts", `{"Name":"P","EnvironmentIds":["`+prod+`"]}`)
	w.create("/api/accounts", `{"Name":"DP","EnvironmentIds":["`+dev+`","`+prod+`"]}`)
	onlyDev, onlyWeb := resource.Grant{Environments: []string{dev}}, resource.Grant{Projects: []string{p1}}
	w.keys["API-DEV"] = newUser("Users-2", grants{
		"EnvironmentView/Spaces-1": {onlyDev},
		"EnvironmentEdit/Spaces-1": {{Environments: []string{prod}}},
		"AccountView/Spaces-1":     {onlyDev},
		"AccountEdit/Spaces-1":     {onlyDev},
		"AccountCreate/Spaces-1":   {onlyDev},
		"ProjectView/Spaces-1":     {onlyWeb},
		"ProcessView/Spaces-1":     {onlyWeb},
		"ProcessEdit/Spaces-1":     {{}},
		"LifecycleView/Spaces-2":   {{}},
		"TeamView/Spaces-2":        {{}},
	})
	before := w.dump()
	for _, tc := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/api/environments/" + dev, "", 200, ""},
		{"GET", "/api/environments/" + prod, "", 404, ""},
		{"GET", "/api/environments/Prod", "", 404, ""},
		{"GET", "/api/environments", "", 200, `"TotalResults":1`},
		{"GET", "/api/environments?ids=" + prod, "", 200, `"TotalResults":0`},
		{"GET", "/api/environments?name=prod", "", 200, `"TotalResults":0`},
		{"PUT", "/api/environments/" + dev, `{"Name":"x"}`, 403, "EnvironmentEdit"},
		{"PUT", "/api/environments/" + prod, `{"Name":"x"}`, 404, ""},
		{"DELETE", "/api/environments/" + dev, "", 403, "EnvironmentDelete"},
		{"POST", "/api/environments", `{"Name":"x"}`, 403, "EnvironmentCreate"},
		{"GET", "/api/Spaces-2/environments", "", 403, "EnvironmentView"},
		{"GET", "/api/lifecycles", "", 403, "LifecycleView"},
		{"GET", "/api/Spaces-2/lifecycles", "", 200, ""},
		{"GET", "/api/accounts", "", 200, `"TotalResults":2`},
		// Seen in one environment, changed only by who may in all.
		{"GET", "/api/accounts/DP", "", 200, `"Name":"DP"`},
		{"PUT", "/api/accounts/DP", `{"Name":"DP","EnvironmentIds":["` + dev + `"]}`, 403, "AccountEdit"},
		{"POST", "/api/accounts", `{"Name":"x","EnvironmentIds":["` + dev + `","` + prod + `"]}`, 403, "AccountCreate"},
		{"POST", "/api/accounts", `{"Name":"x","EnvironmentIds":["` + prod + `"]}`, 403, "AccountCreate"},
		{"PUT", "/api/accounts/D", `{"Name":"D","EnvironmentIds":["` + prod + `"]}`, 403, "AccountEdit"},
		{"GET", "/api/projects/" + p2 + "/channels", "", 404, ""},
		{"GET", "/api/projects/" + p1 + "/channels", "", 200, `"TotalResults":0`},
		{"GET", "/api/channels/" + c2, "", 404, ""},
		{"GET", "/api/channels?projectId=" + p2, "", 200, `"TotalResults":0`},
		{"POST", "/api/projects/" + p2 + "/channels", `{"Name":"x"}`, 404, ""},
		{"GET", "/api/environments", "", 200, ""},
	} {
		a := w.do(tc.method, tc.path, "API-DEV", tc.body)
		if a.status != tc.status || !strings.Contains(string(a.body), tc.says) {
			t.Errorf("%s %s: %d %s; want %d with %q", tc.method, tc.path, a.status, a.body, tc.status, tc.says)
		}
	}
	if after := w.dump(); after != before {
		t.Error("a refused request changed something")
	}
	for _, key := range []string{"", "API-NOBODY"} {
		a := w.get("/api/environments", key)
		if a.status != http.StatusUnauthorized || a.text(t, "ErrorMessage") == "" || a.header.Get("WWW-Authenticate") == "" {
			t.Errorf("key %q: %d %s", key, a.status, a.body)
		}
	}
}

func TestKindsInSpacesAndSystem(t *testing.T) {
	t.Parallel()
	onBoth(t, kindsInSpacesAndSystem)
}

func kindsInSpacesAndSystem(t *testing.T, w *world) {
	system := w.create("/api/teams", `{"Name":"Everyone"}`)
	one := w.create("/api/Spaces-1/teams", `{"Name":"One"}`)
	two := w.create("/api/teams", `{"Name":"Two","SpaceId":"spaces-2"}`)
	a := w.must(400, http.MethodPost, "/api/teams", `{"Name":"X","SpaceId":"Spaces-99"}`)
	if !strings.Contains(string(a.body), "SpaceId") {
		t.Errorf("%s", a.body)
	}
	for id, want := range map[string]string{
		system: `"Links":{"ScopedUserRoles":"/api/teams/` + system + `/scopeduserroles","Self":"/api/teams/` + system + `"}`,
		two:    `"Links":{"ScopedUserRoles":"/api/Spaces-2/teams/` + two + `/scopeduserroles","Self":"/api/Spaces-2/teams/` + two + `"}`,
	} {
		if body := string(w.must(200, http.MethodGet, "/api/teams/"+id, "").body); !strings.Contains(body, want) {
			t.Errorf("%s: %s", id, body)
		}
	}
	w.must(404, http.MethodGet, "/api/Spaces-1/teams/"+two, "")
	w.keys["API-TWO"] = newUser("Users-2", grants{"TeamView/Spaces-2": {{}}})
	w.keys["API-NONE"] = newUser("Users-3", nil)
	for _, tc := range []struct {
		key, path string
		want      []string
	}{
		{admin, "/api/teams", []string{system, one, two}},
		{admin, "/api/teams?includeSystem=false", []string{one, two}},
		{admin, "/api/teams?spaces=spaces-2", []string{system, two}},
		{admin, "/api/teams?spaces=Spaces-2&includeSystem=false", []string{two}},
		{admin, "/api/Spaces-1/teams", []string{system, one}},
		{"API-TWO", "/api/teams", []string{two}},
		{"API-TWO", "/api/Spaces-2/teams", []string{two}},
		{"API-TWO", "/api/teams?ids=" + one + "," + system, nil},
	} {
		got := idsOf(w.get(tc.path, tc.key).json(t)["Items"])
		slices.Sort(got)
		slices.Sort(tc.want)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", tc.key, tc.path, diff)
		}
	}
	for path, want := range map[string]int{"/api/teams/" + one: 404, "/api/teams/" + system: 404, "/api/teams/" + two: 200, "/api/Spaces-1/teams": 404} {
		if a := w.get(path, "API-TWO"); a.status != want {
			t.Errorf("%s: %d, want %d", path, a.status, want)
		}
	}
	if a := w.get("/api/teams", "API-NONE"); a.status != http.StatusForbidden {
		t.Errorf("without the permission anywhere: %d %s", a.status, a.body)
	}
}

func TestSpacesAreHidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.keys["API-TWO"] = newUser("Users-2", grants{"EnvironmentView/Spaces-2": {{}}})
	w.keys["API-ALL"] = newUser("Users-3", grants{"SpaceView": {{}}})
	for _, tc := range []struct {
		key, path string
		status    int
		want      []string
	}{
		{"API-TWO", "/api/spaces", 200, []string{"Spaces-2"}},
		{"API-TWO", "/api/spaces?ids=Spaces-1,spaces-2", 200, []string{"Spaces-2"}},
		{"API-TWO", "/api/spaces?ids=Spaces-1", 200, nil},
		{"API-TWO", "/api/spaces/Spaces-2", 200, nil},
		{"API-TWO", "/api/spaces/Spaces-1", 404, nil},
		{"API-TWO", "/api/Spaces-2", 200, nil},
		{"API-TWO", "/api/Spaces-1", 404, nil},
		{"API-TWO", "/api/Spaces-1/environments", 404, nil},
		{"API-TWO", "/api/Spaces-2/environments", 200, nil},
		{"API-TWO", "/api/Spaces-2/projects", 403, nil},
		{"API-ALL", "/api/spaces", 200, []string{"Spaces-1", "Spaces-2"}},
		{"API-ALL", "/api/Spaces-2/environments", 403, nil},
		{"", "/api/Spaces-1/environments", 401, nil},
	} {
		a := w.get(tc.path, tc.key)
		if a.status != tc.status {
			t.Errorf("%s %s: %d, want %d: %s", tc.key, tc.path, a.status, tc.status, a.body)
		}
		got := idsOf(a.json(t)["Items"])
		slices.Sort(got)
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", tc.key, tc.path, diff)
		}
	}
}

func TestSpacesComeAndGo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.must(404, http.MethodGet, "/api/Spaces-9/environments", "")
	a := w.must(404, http.MethodGet, "/api/lab/environments", "")
	if strings.Contains(string(a.body), "Errors") {
		t.Errorf("%s", a.body)
	}
	id := w.create("/api/spaces", `{"Name":"Lab Rats","Slug":"lab"}`)
	for _, ref := range []string{id, strings.ToLower(id), "lab", "LAB", "lab%20rats"} {
		w.must(200, http.MethodGet, "/api/"+ref+"/environments", "")
		w.must(200, http.MethodGet, "/api/spaces/"+ref+"/environments", "")
		w.must(200, http.MethodGet, "/api/"+ref, "")
	}
	// Words of the API win over names of spaces.
	shadow := w.create("/api/spaces", `{"Name":"environments"}`)
	w.must(200, http.MethodGet, "/api/"+shadow+"/environments", "")
	if got := w.must(200, http.MethodGet, "/api/environments", "").json(t)["ItemType"]; got != "Environment" {
		t.Error(got)
	}
	w.must(200, http.MethodDelete, "/api/spaces/lab", "")
	w.must(404, http.MethodGet, "/api/lab/environments", "")
	w.must(404, http.MethodGet, "/api/"+id+"/environments", "")

	// Another process's change is seen too.
	err := w.db.Write(t.Context(), func(tx *db.Tx) error {
		k, err := w.store.Kind("spaces")
		if err != nil {
			return err
		}
		_, err = w.store.Replace(t.Context(), tx, k, "", "Spaces-1", docstore.Input{Body: []byte(`{"Name":"Default"}`), Server: true})
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if a := w.must(404, http.MethodGet, "/api/environments", ""); !strings.Contains(a.text(t, "ErrorMessage"), "default space") {
		t.Errorf("%s", a.body)
	}
}
