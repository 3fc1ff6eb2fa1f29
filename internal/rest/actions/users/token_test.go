package users_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/oidc/oidctest"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/internal/rest/actions/users"
	"github.com/takodeploy/tako/octopus"
)

// TestTokenExchange goes the way of a client that signs in with a token of its build
// server: identity, discovery, exchange, and a request with the access token.
func TestTokenExchange(t *testing.T) {
	t.Parallel()
	key := oidctest.EC(t, "1")
	issuer := oidctest.New(t, key)
	var service *auth.Service
	w := actiontest.With(t, dbtest.Open(t, db.SQLite), func(w *actiontest.World, cfg *rest.Config) {
		var err error
		service, err = auth.Open(w.DB, w.Store, auth.Options{Log: dbtest.Log(t), Installation: "9b1deb4d", Sealer: w.Keys, Issuers: issuer.Verifier(time.Now)})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Routes, cfg.Aliases = users.Routes(w.DB, w.Store, service), users.Aliases()
	})
	robot := w.Create("/api/users", `{"Username":"ci","IsService":true}`)
	at := "/api/serviceaccounts/" + robot + "/oidcidentities/"
	w.Must(http.StatusCreated, http.MethodPost, at+"create/v1", fmt.Sprintf(`{"Name":"Main","Issuer":%q,"Subject":"repo:acme/*"}`, issuer.URL))
	var list octopus.OIDCIdentities
	w.Get(at + "v1").Into(&list)

	var found octopus.OpenIDConfiguration
	w.Must(http.StatusOK, http.MethodGet, "/.well-known/openid-configuration", "").Into(&found)
	if found.Issuer != w.URL || found.TokenEndpoint != w.URL+"/token/v1" {
		t.Fatalf("discovered %+v", found)
	}
	endpoint := strings.TrimPrefix(found.TokenEndpoint, w.URL)
	token := key.Sign(t, issuer.Claims(time.Now(), "repo:acme/app", list.ExternalID))
	ask := func(grant, kind, audience, token string) string {
		return fmt.Sprintf(`{"grant_type":%q,"subject_token_type":%q,"audience":%q,"subject_token":%q}`, grant, kind, audience, token)
	}
	const grant, kind = "urn:ietf:params:oauth:grant-type:token-exchange", "urn:ietf:params:oauth:token-type:jwt"
	a := w.Do(http.MethodPost, endpoint, "", ask(grant, kind, list.ExternalID, token))
	var got octopus.TokenResponse
	a.Into(&got)
	if a.Status != http.StatusOK || got.TokenType != "Bearer" || got.ExpiresIn != 3600 || got.IssuedTokenType != "urn:ietf:params:oauth:token-type:access_token" || a.Header.Get("Cache-Control") != "no-store" {
		t.Fatalf("exchanged: %d %v %s", a.Status, a.Header, got.TokenType)
	}
	var me octopus.User
	w.Do(http.MethodGet, "/api/users/me", "", "", "Authorization", "Bearer "+string(got.AccessToken)).Into(&me)
	if me.ID != robot {
		t.Errorf("the access token is of %q", me.ID)
	}

	for name, one := range map[string]struct {
		body, code, says string
		status           int
	}{
		"no body":      {"", "invalid_request", "JSON", http.StatusBadRequest},
		"a form":       {"grant_type=x", "invalid_request", "", http.StatusBadRequest},
		"other grant":  {ask("password", kind, list.ExternalID, token), "unsupported_grant_type", "grant_type is 'password'", http.StatusBadRequest},
		"other type":   {ask(grant, "saml", list.ExternalID, token), "invalid_request", "subject_token_type is 'saml'", http.StatusBadRequest},
		"no audience":  {ask(grant, kind, "", token), "invalid_request", "audience is empty", http.StatusBadRequest},
		"no token":     {ask(grant, kind, list.ExternalID, ""), "invalid_request", "subject_token is empty", http.StatusBadRequest},
		"a bad token":  {ask(grant, kind, list.ExternalID, token+"AAAA"), "invalid_grant", "signature", http.StatusBadRequest},
		"other issuer": {ask(grant, kind, "someone", token), "invalid_grant", "No service account", http.StatusBadRequest},
	} {
		a := w.Do(http.MethodPost, endpoint, "", one.body)
		var refusal octopus.TokenError
		a.Into(&refusal)
		if a.Status != one.status || refusal.Error != one.code || refusal.ErrorDescription == "" || !strings.Contains(refusal.ErrorDescription, one.says) || strings.Contains(string(a.Body), token) {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	for range 10 {
		w.Do(http.MethodPost, endpoint, "", ask(grant, kind, list.ExternalID, "x"))
	}
	a = w.Do(http.MethodPost, endpoint, "", ask(grant, kind, list.ExternalID, token))
	var refusal octopus.TokenError
	if a.Into(&refusal); a.Status != http.StatusTooManyRequests || refusal.Error != "slow_down" {
		t.Errorf("after too many: %d %s", a.Status, a.Body)
	}

	// The token ends with its identity, on this node and on others.
	w.Must(http.StatusOK, http.MethodDelete, at+list.OIDCIdentities[0].ID+"/v1", "")
	if a := w.Do(http.MethodGet, "/api/users/me", "", "", "Authorization", "Bearer "+string(got.AccessToken)); a.Status != http.StatusUnauthorized {
		t.Errorf("after its identity was removed: %d %s", a.Status, a.Body)
	}
}

// TestTokenExchangeWithoutIssuer: an issuer that does not answer is no fault of the caller.
func TestTokenExchangeWithoutIssuer(t *testing.T) {
	t.Parallel()
	key := oidctest.EC(t, "1")
	issuer := oidctest.New(t, key)
	w := actiontest.With(t, dbtest.Open(t, db.SQLite), func(w *actiontest.World, cfg *rest.Config) {
		service, err := auth.Open(w.DB, w.Store, auth.Options{Log: dbtest.Log(t), Sealer: w.Keys, Issuers: issuer.Guarded()})
		if err != nil {
			t.Fatal(err)
		}
		cfg.Routes, cfg.Aliases = users.Routes(w.DB, w.Store, service), users.Aliases()
	})
	robot := w.Create("/api/users", `{"Username":"ci","IsService":true}`)
	w.Must(http.StatusCreated, http.MethodPost, "/api/serviceaccounts/"+robot+"/oidcidentities/create/v1", fmt.Sprintf(`{"Name":"Main","Issuer":%q,"Subject":"s"}`, issuer.URL))
	a := w.Do(http.MethodPost, "/token/v1", "", fmt.Sprintf(`{"grant_type":"urn:ietf:params:oauth:grant-type:token-exchange","subject_token_type":"urn:ietf:params:oauth:token-type:jwt","audience":%q,"subject_token":%q}`,
		robot, key.Sign(t, issuer.Claims(time.Now(), "s", "a"))))
	var refusal octopus.TokenError
	a.Into(&refusal)
	if a.Status != http.StatusServiceUnavailable || refusal.Error != "temporarily_unavailable" || !strings.Contains(refusal.ErrorDescription, issuer.URL) {
		t.Errorf("%d %s", a.Status, a.Body)
	}
}
