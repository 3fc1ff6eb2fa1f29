package users_test

import (
	"net/http"
	"testing"

	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

// TestExplanations: each way in which somebody holds a permission is named, for just
// what is asked.
func TestExplanations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	web := w.Create("/api/projects", `{"Name":"Web","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`)
	dev, prod := w.Create("/api/environments", `{"Name":"Dev"}`), w.Create("/api/environments", `{"Name":"Prod"}`)
	key := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"DeploymentCreate"}, Scope: octopus.ScopedUserRole{ProjectGroupIDs: []string{"ProjectGroups-1"}, EnvironmentIDs: []string{dev}}})
	var person octopus.User
	w.MustAs(key, http.StatusOK, http.MethodGet, "/api/users/me", "").Into(&person)
	at := "/api/users/" + person.ID + "/permissions/explain?permission=DeploymentCreate"
	for query, granted := range map[string]bool{"&project=" + web + "&environment=" + dev: true, "&project=" + web + "&environment=" + prod: false, "": false} {
		var why struct {
			IsGranted bool
			Because   []struct {
				Team, UserRole                  octopus.Named
				ProjectGroupIDs, EnvironmentIDs []string
			}
		}
		w.Get(at + query).Into(&why)
		if why.IsGranted != granted || granted && (len(why.Because) != 1 || why.Because[0].Team.Name == "" || why.Because[0].UserRole.Name == "" || why.Because[0].EnvironmentIDs[0] != dev) || !granted && len(why.Because) != 0 {
			t.Errorf("%s: %+v", query, why)
		}
	}
	w.Refused(http.StatusBadRequest, http.MethodGet, "/api/users/"+person.ID+"/permissions/explain?permission=Fly", "", "'Fly', which is none")
	w.Refused(http.StatusNotFound, http.MethodGet, at+"&project=Projects-99", "", "Projects-99")
	w.Refused(http.StatusNotFound, http.MethodGet, at+"&space=Spaces-99", "", "Spaces-99")
	// Who may not see the project learns nothing of it, not even its group.
	if a := w.Do(http.MethodGet, at+"&project="+web, key, ""); a.Status != http.StatusNotFound {
		t.Errorf("of a project that they do not see: %d %s", a.Status, a.Body)
	}
}

// TestSessionList: people see where they are signed in, and end one session of them.
func TestSessionList(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	type session struct{ ID, UserAgent string }
	list := func() []session {
		var page octopus.Page[session]
		w.Get("/api/users/me/sessions").Into(&page)
		return page.Items
	}
	sign := `{"Username":"` + actiontest.AdminName + `","Password":"` + actiontest.AdminPassword + `"}`
	for _, agent := range []string{"one", "two"} {
		if a := w.Do(http.MethodPost, "/api/users/login", "", sign, "User-Agent", agent); a.Status != http.StatusOK {
			t.Fatalf("sign in: %d %s", a.Status, a.Body)
		}
	}
	all := list()
	if len(all) != 2 {
		t.Fatalf("there are %+v", all)
	}
	other := w.Person(actiontest.Role{Permissions: []string{"UserView"}})
	var me octopus.User
	w.Get("/api/users/me").Into(&me)
	if a := w.Do(http.MethodDelete, "/api/users/"+me.ID+"/sessions/"+all[0].ID, other, ""); a.Status != http.StatusForbidden {
		t.Errorf("somebody else ends it: %d %s", a.Status, a.Body)
	}
	w.Must(http.StatusOK, http.MethodDelete, "/api/users/me/sessions/"+all[0].ID, "")
	w.Refused(http.StatusNotFound, http.MethodDelete, "/api/users/me/sessions/"+all[0].ID, "", "session")
	if left := list(); len(left) != 1 || left[0].ID != all[1].ID {
		t.Errorf("left are %+v", left)
	}
}

// TestOIDCIdentities goes through the life of an identity of a service account.
func TestOIDCIdentities(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	robot, person := w.Create("/api/users", `{"Username":"ci","IsService":true}`), w.Create("/api/users", `{"Username":"p","Password":"a long enough one"}`)
	at := "/api/serviceaccounts/" + robot + "/oidcidentities/"
	const good = `{"Name":"Main","Issuer":"https://ci.example.com","Subject":"repo:acme/web:*"}`
	var made octopus.OIDCIdentity
	w.Must(http.StatusCreated, http.MethodPost, at+"create/v1", good).Into(&made)
	for body, says := range map[string]string{
		`{"Name":"x","Issuer":"http://ci.example.com","Subject":"a"}`:  "Issuer is",
		`{"Name":"x","Issuer":"https://ci.example.com","Subject":""}`:  "Subject is empty",
		`{"Name":"x","Issuer":"https://ci.example.com","Subject":"*"}`: "lets every token",
		good: "already used",
	} {
		w.Refused(http.StatusBadRequest, http.MethodPost, at+"create/v1", body, says)
	}
	w.Refused(http.StatusNotFound, http.MethodGet, "/api/serviceaccounts/"+person+"/oidcidentities/v1", "", "service account")
	w.Must(http.StatusOK, http.MethodPut, at+made.ID+"/v1", `{"Name":"Main","Issuer":"https://ci.example.com","Subject":"repo:acme/app:*"}`).Into(&made)
	var list octopus.OIDCIdentities
	w.Get(at + "v1").Into(&list)
	if list.Count != 1 || list.OIDCIdentities[0].Subject != "repo:acme/app:*" || list.OIDCIdentities[0].ServiceAccountID != robot || list.ExternalID == "" {
		t.Errorf("listed: %+v", list)
	}
	w.Must(http.StatusOK, http.MethodDelete, at+made.ID+"/v1", "")
	w.Must(http.StatusNotFound, http.MethodGet, at+made.ID+"/v1", "")
}
