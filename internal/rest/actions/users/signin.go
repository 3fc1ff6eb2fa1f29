package users

import (
	"net/http"
	"reflect"
	"strings"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// identityMetadata lists what external providers know of users.
type identityMetadata struct{ Providers octopus.List[string] }

// signInRoutes are how people come in and go.
func (a *api) signInRoutes() []rest.Route {
	ways := reflect.TypeFor[octopus.Authentication]()
	return []rest.Route{
		{Method: http.MethodPost, Pattern: "/users/login", Permission: rest.Public, Handler: a.login, Body: reflect.TypeFor[octopus.LoginCommand](), Response: reflect.TypeFor[octopus.User](), Query: []rest.Param{{Name: "returnUrl", Type: rest.Text, About: "not used: the client goes on by itself"}}, Summary: "Signs a person in with a name and a password, for a session by cookie."},
		{Method: http.MethodPost, Pattern: "/users/logout", Permission: rest.Public, Handler: a.logout, Summary: "Ends the session whose cookie comes with the request."},
		{Method: http.MethodGet, Pattern: "/authentication", Permission: rest.Public, Handler: a.ways, Response: ways, Summary: "Lists the ways to sign in."},
		{Method: http.MethodGet, Pattern: "/users/authentication", Permission: rest.SignedIn, Handler: a.ways, Response: ways, Summary: "Lists the ways in which one can sign in."},
		{Method: http.MethodGet, Pattern: "/users/authentication/{id}", Permission: rest.SignedIn, Handler: a.ways, Response: ways, Summary: "Lists the ways in which a user can sign in."},
		{Method: http.MethodGet, Pattern: "/users/identity-metadata", Permission: rest.SignedIn, Handler: a.identities, Response: reflect.TypeFor[identityMetadata](), Summary: "Lists what external providers know of users; there are none."},
		{Method: http.MethodGet, Pattern: "/users/external-search", Permission: rest.SignedIn, Handler: a.external, Response: reflect.TypeFor[[]string](), Query: []rest.Param{{Name: "partialName", Type: rest.Text, About: "a part of the name"}}, Summary: "Finds users of external providers; there are none."},
	}
}

// login answers with the user, and with the cookies of the new session: what a
// browser, or an agent that registers itself, sends from then on.
func (a *api) login(r *rest.Request) (any, error) {
	var in octopus.LoginCommand
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	actor := db.ActorFrom(r.Context())
	session, err := a.auth.Login(r.Context(), auth.SignIn{
		Username: in.Username, Password: string(in.Password), Remember: in.RememberMe,
		Address: actor.IPAddress, UserAgent: actor.UserAgent,
	})
	if err != nil {
		return nil, err
	}
	k, err := a.store.Kind(kind)
	if err != nil {
		return nil, err
	}
	var doc *docstore.Doc
	err = a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
		doc, err = a.store.Get(r.Context(), tx, k, "", session.User.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	setCookies(r, a.auth.Cookies(session, secure(r) || in.State.UsingSecureConnection, r.Href("")))
	return document(r, doc.ID, doc)
}

func (a *api) logout(r *rest.Request) (any, error) {
	if err := a.auth.LogoutRequest(r.Request); err != nil {
		return nil, err
	}
	setCookies(r, a.auth.ExpiredCookies(secure(r), r.Href("")))
	return nil, nil //nolint:nilnil // an empty answer is one
}

func setCookies(r *rest.Request, cookies []*http.Cookie) {
	for _, c := range cookies {
		r.ResponseHeader().Add("Set-Cookie", c.String())
	}
}

// secure reports whether the caller's connection is encrypted, as far as the
// server or a proxy in front of it knows. It decides on nothing but whether the
// cookies are kept to HTTPS and which addresses the caller itself is told, so that a
// caller who lies harms nobody else.
func secure(r *rest.Request) bool {
	return r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
}

func (a *api) ways(r *rest.Request) (any, error) {
	return octopus.Authentication{
		AuthenticationProviders: octopus.List[octopus.AuthenticationProvider]{{
			Name: "Username / Password", IdentityType: "UsernamePassword", FormsLoginEnabled: true, FormsUsernameIdentifier: "Username",
			Links: octopus.Links{"SignIn": r.Href("/api/users/login{?returnUrl}")},
		}},
		AnyAuthenticationProvidersSupportPasswordManagement: true,
		Links: octopus.Links{"Self": r.Href("/api/authentication"), "SignIn": r.Href("/api/users/login{?returnUrl}")},
	}, nil
}

func (a *api) identities(*rest.Request) (any, error) { return identityMetadata{}, nil }

func (a *api) external(*rest.Request) (any, error) { return octopus.List[string]{}, nil }
