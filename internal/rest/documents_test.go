package rest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/rest"
)

// TestHandlersUseDocuments calls what handlers of their own have of the declared
// kinds: by the rules of the kinds' operations.
func TestHandlersUseDocuments(t *testing.T) {
	t.Parallel()
	var w *world
	in := func(r *rest.Request, fn func(tx *db.Tx) error) error { return w.db.Read(r.Context(), fn) }
	w = newWorld(t, withRoutes(
		route("GET", "/probe/list/{project}", rest.InSpace, "ProcessView", func(r *rest.Request) (any, error) {
			return r.List("channels", docstore.Match{Path: "ProjectId", Any: []string{r.PathValue("project")}})
		}),
		route("GET", "/probe/find/{ref}", rest.InSpace, "AccountView", func(r *rest.Request) (any, error) {
			var out json.RawMessage
			err := in(r, func(tx *db.Tx) error {
				doc, err := r.Find(r.Context(), tx, "accounts", r.PathValue("ref"))
				if err != nil {
					return err
				}
				if err := r.Must(r.Context(), tx, "accounts", doc, "AccountEdit"); err != nil {
					return err
				}
				out, err = r.Render("accounts", doc)
				return err
			})
			return out, err
		}),
		route("PUT", "/probe/put/{ref}", rest.InSpace, "AccountEdit", func(r *rest.Request) (any, error) {
			return r.Replace("accounts", r.PathValue("ref"), []byte(`{"Name":"put"}`))
		}),
		route("DELETE", "/probe/delete/{ref}", rest.InSpace, "AccountDelete", func(r *rest.Request) (any, error) {
			return r.Delete("accounts", r.PathValue("ref"))
		}),
		route("GET", "/probe/allow/{project}", rest.InSpace, rest.SignedIn, func(r *rest.Request) (any, error) {
			err := r.Allow("ReleaseCreate", rest.Target{Project: r.PathValue("project")})
			return map[string]any{
				"grants": r.Grants("ReleaseCreate"), "route": r.Route().Pattern, "href": r.Href("/x"), "skip": r.HasQuery("skip"),
			}, err
		}),
		route("GET", "/probe/undeclared", rest.InSpace, rest.SignedIn, func(r *rest.Request) (any, error) { return r.List("nothings") }),
	), func(c *rest.Config) { c.Log = nil })
	w.client.Transport = http.DefaultTransport
	life := w.create("/api/lifecycles", `{"Name":"L"}`)
	p1 := w.create("/api/projects", `{"Name":"P1","LifecycleId":"`+life+`"}`)
	p2 := w.create("/api/projects", `{"Name":"P2","LifecycleId":"`+life+`"}`)
	w.create("/api/channels", `{"Name":"C1","ProjectId":"`+p1+`"}`)
	c2 := w.create("/api/channels", `{"Name":"C2","ProjectId":"`+p2+`"}`)
	env := w.create("/api/environments", `{"Name":"Dev"}`)
	account := w.create("/api/accounts", `{"Name":"A","EnvironmentIds":["`+env+`"],"Token":{"HasValue":true,"NewValue":"s3cr3t"}}`)
	other := w.create("/api/accounts", `{"Name":"B"}`)
	w.keys["API-SOME"] = newUser("Users-2", grants{
		"AccountView/Spaces-1":   {{Environments: []string{env}}},
		"ReleaseCreate/Spaces-1": {{Projects: []string{p1}}},
	})

	page := w.must(200, "GET", "/api/probe/list/"+p2+"?take=1", "").json(t)
	if diff := cmp.Diff([]string{c2}, idsOf(page["Items"])); diff != "" || page["TotalResults"] != 1.0 {
		t.Errorf("list: %v", page)
	}
	found := w.must(200, "GET", "/api/probe/find/a", "")
	if found.text(t, "Id") != account || strings.Contains(string(found.body), "s3cr3t") || !strings.Contains(string(found.body), `"Self":"/api/Spaces-1/accounts/`+account) {
		t.Errorf("find: %s", found.body)
	}
	for path, want := range map[string]int{
		"/api/probe/find/" + account:           403,
		"/api/probe/find/" + other:             404,
		"/api/probe/allow/" + p1 + "?skip=1":   200,
		"/api/probe/allow/" + p2:               403,
		"/api/probe/list/" + p1:                403,
		"/api/probe/undeclared":                500,
		"/api/Spaces-2/probe/allow/Projects-1": 404,
	} {
		if a := w.get(path, "API-SOME"); a.status != want {
			t.Errorf("%s: %d, want %d: %s", path, a.status, want, a.body)
		}
	}
	got := w.get("/api/probe/allow/"+p1+"?skip=1", "API-SOME").json(t)
	want := map[string]any{
		"grants": []any{map[string]any{"Projects": []any{p1}, "ProjectGroups": nil, "Environments": nil, "Tenants": nil}},
		"route":  "/probe/allow/{project}", "href": "/x", "skip": true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("allow (-want +got):\n%s", diff)
	}
	if a := w.must(200, "PUT", "/api/probe/put/"+account, ``); a.text(t, "Name") != "put" {
		t.Errorf("put: %s", a.body)
	}
	w.must(200, "DELETE", "/api/probe/delete/"+account, "")
	w.must(404, "GET", "/api/accounts/"+account, "")
}
