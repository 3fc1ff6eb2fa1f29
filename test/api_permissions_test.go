package test

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/rest"
)

// publicRoutes are open to everybody: how one signs in, what the API looks like,
// and whether the server lives.
var publicRoutes = []string{
	"GET /api/", "GET /api/openapi.json", "GET /api/authentication", "POST /api/users/login", "POST /api/users/logout",
	"GET /api/octopusservernodes/ping", "GET /livez", "GET /readyz", "GET /.well-known/openid-configuration", "POST /token/v1",
	"POST /api/registrations", // whose token says who asks
}

// What routes that need no permission show to somebody who holds none.
const (
	facts   = "what is the same for everybody"
	nothing = "nothing at all: an empty list"
	oneself = "who asks, and nobody else"
	refused = "a refusal"
)

// signedInRoutes are all routes that need no permission but a name.
var signedInRoutes = map[string]string{
	"GET /api/communityactiontemplates":                 facts,
	"GET /api/communityactiontemplates/all":             facts,
	"GET /api/capabilities":                             facts,
	"GET /api/configuration/certificates":               facts,
	"GET /api/configuration/certificates/{certificate}": facts,
	"GET /api/configuration/feature-toggles":            facts,
	"GET /api/dynamic-extensions":                       facts,
	"GET /api/dynamic-extensions/features/metadata":     facts,
	"GET /api/dynamic-extensions/features/values":       facts,
	"GET /api/dynamic-extensions/scripts":               facts,
	"GET /api/externalsecuritygroupproviders":           facts,
	"GET /api/featuresconfiguration":                    facts,
	"GET /api/issuetrackers":                            facts,
	"GET /api/licenses":                                 facts,
	"GET /api/licenses/licenses-current":                facts,
	"GET /api/licenses/licenses-current-status":         facts,
	"GET /api/maintenanceconfiguration":                 facts,
	"GET /api/performanceconfiguration":                 facts,
	"GET /api/permissions/all":                          facts,
	"GET /api/serverstatus":                             facts,
	"GET /api/serverstatus/extensions":                  facts,
	"GET /api/serverstatus/health":                      facts,
	"GET /api/serverstatus/timezones":                   facts,
	"GET /api/smtpconfiguration/isconfigured":           facts,
	"GET /api/upgradeconfiguration":                     facts,
	"GET /api/users/authentication":                     facts,
	"GET /api/users/authentication/{id}":                facts,
	"GET /api/users/external-search":                    facts,
	"GET /api/users/identity-metadata":                  facts,
	"GET /api/{space}/events/agents":                    facts,
	"GET /api/{space}/events/categories":                facts,
	"GET /api/{space}/events/documenttypes":             facts,
	"GET /api/{space}/events/groups":                    facts,
	"GET /api/{space}/tasks/taskTypes":                  facts,
	"GET /api/{space}":                                  refused,
	"GET /api/{space}/tagsets":                          refused,
	"GET /api/{space}/tagsets/all":                      refused,
	"GET /api/{space}/tagsets/{id}":                     refused,
	"GET /api/spaces":                                   nothing,
	"GET /api/spaces/all":                               nothing,
	"GET /api/spaces/{id}":                              refused,
	"GET /api/users":                                    oneself,
	"GET /api/users/all":                                oneself,
	"GET /api/users/me":                                 oneself,
	"GET /api/teammembership":                           oneself,
	"POST /api/users":                                   refused,
	"GET /api/users/{id}":                               oneself,
	"PUT /api/users/{id}":                               oneself,
	"GET /api/users/{id}/apikeys":                       oneself,
	"POST /api/users/{id}/apikeys":                      oneself,
	"GET /api/users/{id}/apikeys/{key}":                 oneself,
	"DELETE /api/users/{id}/apikeys/{key}":              oneself,
	"GET /api/users/{id}/permissions":                   oneself,
	"GET /api/users/{id}/permissions/configuration":     oneself,
	"GET /api/users/{id}/permissions/export":            oneself,
	"GET /api/users/{id}/permissions/explain":           oneself,
	"GET /api/users/{id}/sessions":                      oneself,
	"DELETE /api/users/{id}/sessions/{session}":         oneself,
	"PUT /api/users/{id}/revoke-sessions":               oneself,
	"GET /api/users/{id}/spaces":                        oneself,
	"GET /api/users/{id}/teams":                         oneself,
}

// TestTheListsOfOpenRoutes: whoever opens a route has to say so here.
func TestTheListsOfOpenRoutes(t *testing.T) {
	t.Parallel()
	lines := routeTable(t)
	known := map[string]string{}
	for _, line := range lines {
		known[line.Method+" "+line.Path] = line.Permission
	}
	for _, line := range lines {
		name := line.Method + " " + line.Path
		_, listed := signedInRoutes[name]
		switch {
		case line.Permission == rest.Public && !slices.Contains(publicRoutes, name):
			t.Errorf("%s is open to everybody; list it and what it shows, or let it need a permission", name)
		case line.Permission == rest.SignedIn && !listed:
			t.Errorf("%s is open to everybody who is signed in; list it and what it shows, or let it need a permission", name)
		}
	}
	for _, name := range publicRoutes {
		if known[name] != rest.Public {
			t.Errorf("%s is listed as public; it is %q", name, known[name])
		}
	}
	for name := range signedInRoutes {
		if known[name] != rest.SignedIn {
			t.Errorf("%s is listed as open to who is signed in; it is %q", name, known[name])
		}
	}
}

// spellings are all paths that one operation answers at.
func (f *furnished) spellings(op operation) []string {
	path := f.path(op, nil)
	rest, spaced := strings.CutPrefix(path, "/api/Spaces-1/")
	if !spaced {
		return []string{path, strings.ToUpper(path[:1]) + path[1:]}
	}
	return []string{path, "/api/spaces/Spaces-1/" + rest, "/api/spaces/default/" + rest, "/api/" + rest, "/API/" + rest}
}

// secrets are the ids and names of what there is: none of it may be seen.
func (f *furnished) secrets() []string {
	var all []string
	for name, id := range f.of {
		switch name {
		case "space", "builtin", "version", "library version", "node", "first", "retention", "server certificate":
		default:
			all = append(all, `"`+id+`"`)
		}
	}
	return append(all, `"Spaces-`, "Greeting", `"Username":"admin"`, `"somebody"`, `"Dev"`)
}

// leaks reports which of the secrets stand in an answer.
func leaks(body []byte, secrets []string) (found []string) {
	for _, s := range secrets {
		if strings.Contains(string(body), s) {
			found = append(found, s)
		}
	}
	return found
}

// body is what a write sends.
func body(op operation) any {
	if op.Method == http.MethodPost || op.Method == http.MethodPut {
		return "{}"
	}
	return nil
}

// TestNobodySeesOrChangesAnything calls every operation at every path as somebody
// without a key, and as somebody who is in no team but Everyone.
func TestNobodySeesOrChangesAnything(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			f := furnish(t, apptest.StartWith(t, dialect, apptest.Options{NoWorker: true}))
			me := f.make("users", `{"Username":"nobody","IsService":true}`)
			var key struct{ ID, APIKey string }
			f.Must(t, http.MethodPost, "/api/users/"+me+"/apikeys", map[string]string{"Purpose": "test"}, &key)
			before := state(t, f.d)
			for _, op := range f.ops {
				if op.Path == "/api/users/login" || op.Path == "/token/v1" {
					continue // to fail at it leaves a trace
				}
				for _, path := range f.spellings(op) {
					f.anonymous(t, op, path)
					f.nobody(t, f.As(key.APIKey), op, path)
				}
			}
			f.myself(t, f.As(key.APIKey), me, key.ID)
			if diff := cmp.Diff(before, state(t, f.d)); diff != "" {
				t.Errorf("nobody has changed the database (-before +after):\n%s", diff)
			}
		})
	}
}

// anonymous: 401 everywhere, but on public routes.
func (f *furnished) anonymous(t *testing.T, op operation, path string) {
	t.Helper()
	resp, err := f.As("").Do(t.Context(), op.Method, path, body(op))
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ ErrorMessage string }
	switch {
	case op.Permission == rest.Public:
		if found := leaks(resp.Body, f.secrets()); len(found) > 0 {
			t.Errorf("%s %s shows everybody %v", op.Method, path, found)
		}
	case resp.Status != http.StatusUnauthorized || json.Unmarshal(resp.Body, &answer) != nil || !strings.Contains(answer.ErrorMessage, "signed in"):
		t.Errorf("%s %s without a key: %d %s", op.Method, path, resp.Status, resp.Body)
	}
}

// nobody: refused where a permission is needed, and elsewhere shown what the list
// above says.
func (f *furnished) nobody(t *testing.T, c *apptest.Client, op operation, path string) {
	t.Helper()
	resp, err := c.Do(t.Context(), op.Method, path+needed(op, f), body(op))
	if err != nil {
		t.Fatal(err)
	}
	var answer struct{ ErrorMessage string }
	refusedBy := func(statuses ...int) bool {
		return slices.Contains(statuses, resp.Status) && json.Unmarshal(resp.Body, &answer) == nil && answer.ErrorMessage != ""
	}
	shows := signedInRoutes[op.Method+" "+op.Path]
	ok := false
	switch {
	case op.Permission == rest.Public:
		ok = true
	case op.Permission != rest.SignedIn:
		ok = refusedBy(http.StatusForbidden, http.StatusNotFound) && (resp.Status == http.StatusNotFound || strings.Contains(answer.ErrorMessage, op.Permission))
	case shows == facts:
		// In a space that one may not know of, even facts are not found.
		ok = resp.Status == http.StatusOK && len(leaks(resp.Body, f.secrets())) == 0 || refusedBy(http.StatusNotFound) && strings.Contains(strings.ToLower(path), "/spaces")
	case shows == nothing:
		ok = resp.Status == http.StatusOK && (string(resp.Body) == "[]\n" || strings.Contains(string(resp.Body), `"Items":[]`))
	case shows == oneself && strings.Contains(op.Path, "{id}"): // the path names somebody else
		ok = refusedBy(http.StatusForbidden, http.StatusNotFound)
	case shows == oneself:
		ok = resp.Status == http.StatusOK && len(leaks(resp.Body, f.secrets())) == 0
	case shows == refused:
		ok = refusedBy(http.StatusForbidden, http.StatusNotFound)
	}
	if !ok {
		t.Errorf("%s %s (%s, %s) as nobody: %d %.500s", op.Method, path, op.Permission, shows, resp.Status, resp.Body)
	}
}

// myself: of oneself everybody sees all of it, and no more.
func (f *furnished) myself(t *testing.T, c *apptest.Client, me, key string) {
	t.Helper()
	for path, want := range map[string]string{
		"users":                           me,
		"users/all":                       me,
		"users/me":                        me,
		"users/" + me:                     me,
		"users/" + me + "/apikeys":        key,
		"users/" + me + "/apikeys/" + key: key,
		"users/" + me + "/permissions":    "",
		"users/" + me + "/spaces":         "",
		"users/" + me + "/teams":          "",
		"teammembership?userId=" + me:     "",
	} {
		resp := c.Must(t, http.MethodGet, "/api/"+path, nil, nil)
		if found := leaks(resp.Body, f.secrets()); !strings.Contains(string(resp.Body), want) || len(found) > 0 {
			t.Errorf("GET /api/%s shows %v: %.500s", path, found, resp.Body)
		}
	}
	for _, path := range []string{"users?filter=admin", "users?ids=" + f.of["user"], "teammembership?userId=" + f.of["user"], "users/admin"} {
		resp, err := c.Do(t.Context(), http.MethodGet, "/api/"+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if found := leaks(resp.Body, f.secrets()); resp.Status == http.StatusOK && len(found) > 0 {
			t.Errorf("GET /api/%s shows %v: %.500s", path, found, resp.Body)
		}
	}
}

// TestManagersOfOneSpaceSeeNothingOfAnother calls every operation in one space as
// somebody who may do everything in another.
func TestManagersOfOneSpaceSeeNothingOfAnother(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			f := furnish(t, apptest.StartWith(t, dialect, apptest.Options{NoWorker: true}))
			me := f.make("users", `{"Username":"manager","IsService":true}`)
			var key struct{ APIKey string }
			f.Must(t, http.MethodPost, "/api/users/"+me+"/apikeys", map[string]string{"Purpose": "test"}, &key)
			f.Must(t, http.MethodPut, "/api/spaces/"+f.farSpace, map[string]any{"Name": "Far", "SpaceManagersTeamMembers": []string{me}}, nil)
			c := f.As(key.APIKey)
			before := state(t, f.d)
			for _, op := range f.ops {
				path := f.path(op, nil)
				if strings.HasPrefix(path, "/api/Spaces-1") {
					resp, err := c.Do(t.Context(), op.Method, path, body(op))
					if err != nil {
						t.Fatal(err)
					}
					if resp.Status != http.StatusNotFound {
						t.Errorf("%s %s: %d %.500s", op.Method, path, resp.Status, resp.Body)
					}
				}
				if op.Method != http.MethodGet || op.Permission == rest.Public {
					continue
				}
				// Their own space, with the ids of the other one; and all spaces together.
				for _, elsewhere := range []string{strings.Replace(path, "/Spaces-1", "/"+f.farSpace, 1), strings.Replace(path, "/Spaces-1", "", 1)} {
					resp, err := c.Do(t.Context(), op.Method, elsewhere+needed(op, f), nil)
					if err != nil {
						t.Fatal(err)
					}
					if resp.Status != http.StatusOK {
						continue
					}
					if found := leaks(resp.Body, f.inSpace(t)); len(found) > 0 {
						t.Errorf("GET %s shows %v: %.500s", elsewhere, found, resp.Body)
					}
				}
			}
			if ids := idsOf(t, c, "/api/"+f.farSpace+"/environments"); !slices.Equal(ids, []string{f.far["dev"]}) {
				t.Errorf("of their own they see %v", ids)
			}
			if diff := cmp.Diff(before, state(t, f.d)); diff != "" {
				t.Errorf("the database has changed (-before +after):\n%s", diff)
			}
		})
	}
}

// inSpace are the ids of what belongs to the default space.
func (f *furnished) inSpace(t *testing.T) (ids []string) {
	t.Helper()
	for name, id := range f.of {
		switch name {
		case "space", "builtin", "version", "library version", "node", "first", "retention", "user", "key", "role", "team", "event", "deploymentfreeze", "identity", "server certificate":
		default:
			ids = append(ids, `"`+id+`"`)
		}
	}
	return append(ids, "Greeting")
}

func idsOf(t testing.TB, c *apptest.Client, path string) []string {
	t.Helper()
	return (&walker{Server: &apptest.Server{Client: c}, t: t}).ids(path)
}
