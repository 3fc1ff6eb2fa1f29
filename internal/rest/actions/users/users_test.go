package users_test

import (
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/internal/rest/actions/users"
	"github.com/takodeploy/tako/octopus"
)

func newWorld(t *testing.T) *actiontest.World {
	t.Helper()
	return actiontest.New(t, func(w *actiontest.World) []rest.Route { return users.Routes(w.DB, w.Store, w.Auth) }, users.Aliases()...)
}

// An agent that registers itself goes this way: who am I, which spaces, where is one.
func TestCurrentUser(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var me octopus.User
	w.Get("/api/users/me").Into(&me)
	if me.Username != actiontest.AdminName || !me.IsRequestor || !me.IsActive || me.Password != nil {
		t.Errorf("me: %+v", me)
	}
	for name, tail := range map[string]string{"Self": "", "Spaces": "/spaces", "ApiKeys": "/apikeys{/id}{?skip,take}", "Teams": "/teams{?spaces,includeSystem}", "Permissions": "/permissions{?spaces,includeSystem}", "PermissionsConfiguration": "/permissions/configuration{?spaces,includeSystem}"} {
		if want := "/api/users/" + me.ID + tail; me.Links[name] != want {
			t.Errorf("link %s is %q, want %q", name, me.Links[name], want)
		}
	}
	var spaces []octopus.Space
	w.Get(me.Links["Spaces"]).Into(&spaces)
	if len(spaces) != 1 || !spaces[0].IsDefault || spaces[0].Links["SpaceHome"] != "/api/Spaces-1" {
		t.Errorf("spaces: %+v", spaces)
	}
	if a := w.Do(http.MethodGet, "/api/users/me", "", ""); a.Status != http.StatusUnauthorized {
		t.Errorf("nobody is somebody: %d %s", a.Status, a.Body)
	}
}

func TestPeople(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	a := w.Must(http.StatusCreated, http.MethodPost, "/api/users", `{"Username":"bob","DisplayName":"Bob B","Password":"a long enough one","Custom":7}`)
	bob := a.Text("Id")
	if strings.Contains(string(a.Body), "long enough") || a.JSON()["Custom"] != 7.0 || a.Header.Get("Location") != "/api/users/"+bob {
		t.Errorf("created: %s, at %s", a.Body, a.Header.Get("Location"))
	}
	for path, want := range map[string][]string{
		"/api/users?filter=b%20B":                 {bob},
		"/api/users?ids=" + bob:                   {bob},
		"/api/users/all?filter=bob":               {bob},
		"/api/users?filter=nobody":                {},
		"/api/users?skip=1&take=1&filter=o":       {},
		"/api/users/all?ids=" + bob + "&filter=x": {},
	} {
		if diff := cmp.Diff(want, w.Get(path).IDs()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
	w.Must(http.StatusOK, http.MethodPut, "/api/users/"+bob, `{"Username":"bob","DisplayName":"Robert","IsActive":true}`)
	if got := w.Get("/api/users/bob").Text("DisplayName"); got != "Robert" {
		t.Error(got)
	}
	w.Must(http.StatusConflict, http.MethodPut, "/api/users/"+bob, `{"Username":"bob","IsActive":true}`, "If-Match", `"1"`)
	w.Must(http.StatusOK, http.MethodDelete, "/api/users/"+bob, "")
	if a := w.Must(http.StatusNotFound, http.MethodGet, "/api/users/"+bob, ""); strings.Contains(string(a.Body), `"Errors"`) {
		t.Errorf("%s", a.Body)
	}
	for _, path := range []string{"/api/users/identity-metadata", "/api/users/external-search?partialName=x", "/api/users/authentication", "/api/users/authentication/" + bob} {
		w.Get(path)
	}
}

// Who may nothing sees themselves, and nobody else.
func TestOthersAreHidden(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := w.Person()
	me := w.MustAs(key, 200, http.MethodGet, "/api/users/me", "").Text("Id")
	admin := w.Get("/api/users/me").Text("Id")
	for _, tc := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/api/users", "", 200, `"TotalResults":1`},
		{"GET", "/api/users/" + me, "", 200, `"IsRequestor":true`},
		{"GET", "/api/users/" + admin, "", 404, ""},
		{"GET", "/api/users/" + actiontest.AdminName, "", 404, ""},
		{"GET", "/api/users/" + admin + "/teams", "", 404, ""},
		{"GET", "/api/users/" + admin + "/spaces", "", 404, ""},
		{"GET", "/api/users/" + admin + "/permissions", "", 404, ""},
		{"GET", "/api/users/" + admin + "/permissions/export", "", 404, ""},
		{"GET", "/api/users/" + admin + "/apikeys", "", 404, ""},
		{"GET", "/api/teammembership?userId=" + admin, "", 404, ""},
		{"POST", "/api/users/" + admin + "/apikeys", `{"Purpose":"x"}`, 404, ""},
		{"PUT", "/api/users/" + admin + "/revoke-sessions", "", 404, ""},
		{"POST", "/api/users", `{"Username":"eve"}`, 403, "UserInvite"},
		{"DELETE", "/api/users/" + admin, "", 403, "UserEdit"},
		{"PUT", "/api/users/" + admin, `{"Username":"ada"}`, 404, ""},
		{"GET", "/api/users/me/spaces", "", 200, "[]"},
		{"GET", "/api/users/me/teams", "", 200, `"Id":"teams-everyone"`},
		{"GET", "/api/teammembership", "", 200, `"IsDirectlyAssigned":false`},
		{"GET", "/api/teams/teams-everyone/scopeduserroles", "", 403, "TeamView"},
		{"GET", "/api/permissions/all", "", 200, `"CanApplyAtSpaceLevel":true`},
	} {
		a := w.Do(tc.method, tc.path, key, tc.body)
		if a.Status != tc.status || !strings.Contains(string(a.Body), tc.says) {
			t.Errorf("%s %s: %d %s; want %d with %q", tc.method, tc.path, a.Status, a.Body, tc.status, tc.says)
		}
	}
}

func TestPermissions(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	project := w.Create("/api/projects", `{"Name":"Web","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`)
	key := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"ProjectView"}, Scope: octopus.ScopedUserRole{ProjectIDs: []string{project}}},
		actiontest.Role{Permissions: []string{"UserView"}})
	var got octopus.UserPermissions
	w.MustAs(key, 200, http.MethodGet, "/api/users/me/permissions?spaces=all&includeSystem=true", "").Into(&got)
	want := octopus.Map[octopus.Permission, octopus.List[octopus.PermissionRestriction]]{"ProjectView": {{
		SpaceID: "Spaces-1", RestrictedToProjectIDs: octopus.List[string]{project}, RestrictedToEnvironmentIDs: octopus.List[string]{},
		RestrictedToTenantIDs: octopus.List[string]{}, RestrictedToProjectGroupIDs: octopus.List[string]{},
	}}}
	if diff := cmp.Diff(want, got.SpacePermissions); diff != "" {
		t.Errorf("space permissions (-want +got):\n%s", diff)
	}
	if !slices.Contains(got.SystemPermissions, "UserView") || got.Links["Self"] != "/api/users/"+got.ID+"/permissions" {
		t.Errorf("%+v", got)
	}
	var narrow octopus.UserPermissions
	w.MustAs(key, 200, http.MethodGet, "/api/users/me/permissions/configuration?spaces=Spaces-9&includeSystem=false", "").Into(&narrow)
	if len(narrow.SpacePermissions)+len(narrow.SystemPermissions) != 0 {
		t.Errorf("of no place: %+v", narrow)
	}
	csv := w.MustAs(key, 200, http.MethodGet, "/api/users/me/permissions/export", "")
	if !strings.Contains(string(csv.Body), "ProjectView,Spaces-1,"+project+",,,\n") || !strings.HasPrefix(csv.Header.Get("Content-Type"), "text/csv") {
		t.Errorf("%s %s", csv.Header.Get("Content-Type"), csv.Body)
	}
	if ids := w.Get("/api/teams/teams-administrators/scopeduserroles").IDs(); len(ids) != 1 {
		t.Errorf("roles of the administrators: %v", ids)
	}
}

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	made := w.Must(http.StatusCreated, http.MethodPost, "/api/users/me/apikeys", `{"Purpose":"ci"}`)
	key, id := made.Text("ApiKey"), made.Text("Id")
	if !strings.HasPrefix(key, "API-") {
		t.Fatalf("%s", made.Body)
	}
	w.MustAs(key, 200, http.MethodGet, "/api/users/me", "")
	var page octopus.Page[octopus.APIKey]
	list := w.Get("/api/users/me/apikeys")
	list.Into(&page)
	if strings.Contains(string(list.Body), key) || page.Items[0].ID != id || !page.Items[0].APIKey.HasValue || page.ItemType != "ApiKey" {
		t.Errorf("%s", list.Body)
	}
	var one octopus.APIKey
	w.Get(page.Items[0].Links["Self"]).Into(&one)
	if one.Purpose != "ci" || one.APIKey.Hint != octopus.NullString(key[:8]) {
		t.Errorf("%+v", one)
	}
	w.Must(http.StatusOK, http.MethodDelete, "/api/users/me/apikeys/"+id, "")
	w.MustAs(key, http.StatusUnauthorized, http.MethodGet, "/api/users/me", "")
	w.Must(http.StatusNotFound, http.MethodGet, "/api/users/me/apikeys/"+id, "")
	w.Must(http.StatusBadRequest, http.MethodPost, "/api/users/me/apikeys", `{"Purpose":"ci","Expires":"2020-01-01T00:00:00+00:00"}`)
}

func TestSignInAndOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	w.Client.Jar = jar
	login := func(password string) actiontest.Answer {
		return w.Do(http.MethodPost, "/api/users/login?returnUrl=x", "", `{"Username":"ada","Password":"`+password+`","RememberMe":true,"State":{"UsingSecureConnection":false}}`)
	}
	if a := login("wrong"); a.Status != http.StatusBadRequest || strings.Contains(string(a.Body), "wrong") || a.Header.Get("Set-Cookie") != "" {
		t.Errorf("a wrong password: %d %s", a.Status, a.Body)
	}
	a := login(actiontest.AdminPassword)
	if a.Status != http.StatusOK || a.JSON()["IsRequestor"] != true {
		t.Fatalf("%d %s", a.Status, a.Body)
	}
	at, err := url.Parse(w.URL)
	if err != nil {
		t.Fatal(err)
	}
	csrf := ""
	for _, c := range jar.Cookies(at) {
		if strings.HasPrefix(c.Name, "Octopus-Csrf-Token") {
			csrf = c.Value
		}
	}
	if csrf == "" {
		t.Fatalf("no token in %v", jar.Cookies(at))
	}
	for _, c := range a.Header.Values("Set-Cookie") {
		if strings.HasPrefix(c, "OctopusIdentificationToken") != strings.Contains(c, "HttpOnly") || strings.Contains(c, "Secure") {
			t.Errorf("cookie %s", c)
		}
	}
	if a := w.Do(http.MethodGet, "/api/users/me", "", ""); a.Status != http.StatusOK {
		t.Errorf("with the cookie: %d", a.Status)
	}
	if a := w.Do(http.MethodPost, "/api/users/me/apikeys", "", `{}`); a.Status != http.StatusForbidden {
		t.Errorf("a change without the token: %d", a.Status)
	}
	if a := w.Do(http.MethodPost, "/api/users/me/apikeys", "", `{}`, "X-Octopus-Csrf-Token", csrf); a.Status != http.StatusCreated {
		t.Errorf("a change with the token: %d %s", a.Status, a.Body)
	}
	w.Do(http.MethodPost, "/api/users/logout", "", "")
	if left := jar.Cookies(at); len(left) > 0 {
		t.Errorf("cookies are left: %v", left)
	}
	if a := w.Do(http.MethodGet, "/api/users/me", "", ""); a.Status != http.StatusUnauthorized {
		t.Errorf("after signing out: %d", a.Status)
	}
	secure := w.Do(http.MethodPost, "/api/users/login", "", `{"Username":"ada","Password":"`+actiontest.AdminPassword+`","State":{"UsingSecureConnection":true}}`)
	if !strings.Contains(secure.Header.Get("Set-Cookie"), "Secure") {
		t.Errorf("cookie %s", secure.Header.Get("Set-Cookie"))
	}
	if a := w.Do(http.MethodGet, "/api/authentication", "", ""); a.Status != http.StatusOK || !strings.Contains(string(a.Body), `"FormsLoginEnabled":true`) {
		t.Errorf("%s", a.Body)
	}
}
