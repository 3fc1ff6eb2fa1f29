// Package users serves people and how they sign in: their documents, API keys,
// permissions and teams, and the sessions of browsers. Who may see and change
// whom is decided by package auth; here are the shapes.
package users

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"reflect"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// kind is the name of the kind of users' documents.
const kind = "users"

// api serves the routes.
type api struct {
	db    *db.DB
	store *docstore.Store
	auth  *auth.Service
}

// Routes are the operations on users and their sessions. The server's requests
// must come with principals of service.
func Routes(d *db.DB, store *docstore.Store, service *auth.Service) []rest.Route {
	a := &api{d, store, service}
	user, page := reflect.TypeFor[octopus.User](), reflect.TypeFor[octopus.Page[octopus.User]]()
	teams := reflect.TypeFor[[]octopus.TeamReference]()
	listed := []rest.Param{{Name: "ids", Type: rest.List, About: "only these"}, {Name: "filter", Type: rest.Text, About: "only those with this in their user name, display name or e-mail address"}}
	paged := []rest.Param{{Name: "skip", Type: rest.Number, About: "how many to leave out"}, {Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"}}
	places := []rest.Param{{Name: "spaces", Type: rest.List, About: "only of these spaces"}, {Name: "includeSystem", Type: rest.Boolean, About: "with what holds outside of spaces; true unless said"}}
	routes := []rest.Route{
		{Method: http.MethodGet, Pattern: "/users", Permission: rest.SignedIn, Handler: a.list, Response: page, Query: append(paged[:2:2], listed...), Summary: "Lists users; who may not see users finds themselves."},
		{Method: http.MethodGet, Pattern: "/users/all", Permission: rest.SignedIn, Handler: a.all, Response: reflect.SliceOf(user), Query: listed, Summary: "Lists all users as a bare array."},
		{Method: http.MethodPost, Pattern: "/users", Permission: rest.SignedIn, Handler: a.create, Body: user, Response: user, Summary: "Creates a user or a service account; needs UserInvite or UserEdit."},
		{Method: http.MethodGet, Pattern: "/users/me", Permission: rest.SignedIn, Handler: a.me, Response: user, Summary: "Reads the user who asks."},
		{Method: http.MethodGet, Pattern: "/users/{id}", Permission: rest.SignedIn, Handler: a.get, Response: user, Summary: "Reads a user by id or user name."},
		{Method: http.MethodPut, Pattern: "/users/{id}", Permission: rest.SignedIn, Handler: a.replace, Body: user, Response: user, Summary: "Replaces a user; without UserEdit people can change their own name, e-mail address and password."},
		{Method: http.MethodDelete, Pattern: "/users/{id}", Permission: string(octopus.PermUserEdit), Handler: a.delete, Summary: "Deletes a user with their keys and sessions."},
		{Method: http.MethodPut, Pattern: "/users/{id}/revoke-sessions", Permission: rest.SignedIn, Handler: a.revoke, Summary: "Signs a user out everywhere."},

		{Method: http.MethodGet, Pattern: "/users/{id}/permissions", Permission: rest.SignedIn, Handler: a.permissions, Response: reflect.TypeFor[octopus.UserPermissions](), Query: places, Summary: "Reads what a user may do, and where."},
		{Method: http.MethodGet, Pattern: "/users/{id}/permissions/configuration", Permission: rest.SignedIn, Handler: a.permissions, Response: reflect.TypeFor[octopus.UserPermissions](), Query: places, Summary: "Reads what a user may do as it is set up, and where."},
		{Method: http.MethodGet, Pattern: "/users/{id}/permissions/explain", Permission: rest.SignedIn, Handler: a.explain, Response: reflect.TypeFor[explanation](), Query: []rest.Param{{Name: "permission", Type: rest.Text, About: "the permission"}, {Name: "space", Type: rest.Text, About: "the id of the space; the default one unless said"}, {Name: "project", Type: rest.Text, About: "the id of a project that it is about"}, {Name: "environment", Type: rest.Text, About: "the id of an environment"}, {Name: "tenant", Type: rest.Text, About: "the id of a tenant"}}, Summary: "Tells why a user can do something: by which teams, roles and scopes."},
		{Method: http.MethodGet, Pattern: "/users/{id}/sessions", Permission: rest.SignedIn, Handler: a.sessions, Response: reflect.TypeFor[octopus.Page[auth.OpenSession]](), Query: paged, Summary: "Lists where a user is signed in."},
		{Method: http.MethodDelete, Pattern: "/users/{id}/sessions/{session}", Permission: rest.SignedIn, Handler: a.endSession, Summary: "Ends one session of a user."},
		{Method: http.MethodGet, Pattern: "/users/{id}/permissions/export", Permission: rest.SignedIn, Handler: a.export, ContentType: "text/csv", Query: places, Summary: "Reads what a user may do as a table."},
		{Method: http.MethodGet, Pattern: "/users/{id}/teams", Permission: rest.SignedIn, Handler: a.teams, Response: teams, Query: places, Summary: "Lists the teams of a user as a bare array."},
		{Method: http.MethodGet, Pattern: "/teammembership", Permission: rest.SignedIn, Handler: a.membership, Response: teams, Query: append(places[:2:2], rest.Param{Name: "userId", Type: rest.Text, About: "whose; one's own unless said"}), Summary: "Lists the teams of a user as a bare array."},
		{Method: http.MethodGet, Pattern: "/users/{id}/spaces", Permission: rest.SignedIn, Handler: a.spaces, Response: reflect.TypeFor[[]octopus.Space](), Summary: "Lists the spaces in which a user may do anything, as a bare array."},
		{Method: http.MethodGet, Pattern: "/permissions/all", Permission: rest.SignedIn, Handler: a.descriptions, Response: reflect.TypeFor[octopus.Map[octopus.Permission, auth.Description]](), Summary: "Describes every permission."},

		{Method: http.MethodGet, Pattern: "/users/{id}/apikeys", Permission: rest.SignedIn, Handler: a.keys, Response: reflect.TypeFor[octopus.Page[octopus.APIKey]](), Query: paged, Summary: "Lists a user's API keys, without their secrets."},
		{Method: http.MethodPost, Pattern: "/users/{id}/apikeys", Permission: rest.SignedIn, Handler: a.createKey, Body: reflect.TypeFor[octopus.APIKeyCommand](), Response: reflect.TypeFor[octopus.APIKeyCreated](), Summary: "Creates an API key; the answer is the only time that it is shown."},
		{Method: http.MethodGet, Pattern: "/users/{id}/apikeys/{key}", Permission: rest.SignedIn, Handler: a.key, Response: reflect.TypeFor[octopus.APIKey](), Summary: "Reads an API key, without its secret."},
		{Method: http.MethodDelete, Pattern: "/users/{id}/apikeys/{key}", Permission: rest.SignedIn, Handler: a.revokeKey, Summary: "Revokes an API key."},
	}
	routes = append(routes, a.signInRoutes()...)
	routes = append(routes, a.identityRoutes()...)
	for i := range routes {
		routes[i].Mount = rest.InSystem
	}
	return append(routes, a.tokenRoutes()...)
}

// Aliases are further paths of the kinds about people.
func Aliases() []rest.Alias {
	return []rest.Alias{
		{Kind: "scopeduserroles", Pattern: "/teams/{owner}/scopeduserroles", Owner: "teams", Within: "TeamId", Only: []string{"list", "all"}},
	}
}

// by is who asks.
func by(r *rest.Request) (*auth.Principal, error) {
	p, ok := r.Principal.(*auth.Principal)
	if !ok {
		return nil, fmt.Errorf("a request of %T, which is no user that auth knows", r.Principal)
	}
	return p, nil
}

// document is a user as clients see it: with links, and marked where it is the
// one who asks.
func document(r *rest.Request, me string, doc *docstore.Doc) (json.RawMessage, error) {
	body, err := r.Render(kind, doc)
	if err != nil || doc.ID != me {
		return body, err
	}
	var members map[string]json.RawMessage
	if err := json.Unmarshal(body, &members); err != nil {
		return nil, fmt.Errorf("read user %s: %w", doc.ID, err)
	}
	members["IsRequestor"] = json.RawMessage("true")
	return json.Marshal(members)
}

func answer(r *rest.Request, me string, doc *docstore.Doc) (any, error) {
	body, err := document(r, me, doc)
	if err != nil {
		return nil, err
	}
	return rest.Tagged{Body: body, Version: doc.Version}, nil
}

func (a *api) find(r *rest.Request, p ident.Page) (items []json.RawMessage, total int64, err error) {
	me, err := by(r)
	if err != nil {
		return nil, 0, err
	}
	q := auth.UserQuery{Filter: r.Query("filter"), Page: p}
	if r.HasQuery("ids") {
		if q.IDs, err = r.QueryList("ids"); err != nil {
			return nil, 0, err
		}
	}
	docs, total, err := a.auth.FindUsers(r.Context(), me, q)
	if err != nil {
		return nil, 0, err
	}
	items = make([]json.RawMessage, len(docs))
	for i, doc := range docs {
		if items[i], err = document(r, me.UserID(), doc); err != nil {
			return nil, 0, err
		}
	}
	return items, total, nil
}

func (a *api) list(r *rest.Request) (any, error) {
	p, err := r.Page()
	if err != nil {
		return nil, err
	}
	items, total, err := a.find(r, p)
	if err != nil {
		return nil, err
	}
	return rest.PageOf(r, "User", p, total, items), nil
}

func (a *api) all(r *rest.Request) (any, error) {
	return rest.Pages(func(p ident.Page) ([]json.RawMessage, int64, error) { return a.find(r, p) }), nil
}

func (a *api) me(r *rest.Request) (any, error) { return a.read(r, auth.Me) }

func (a *api) get(r *rest.Request) (any, error) { return a.read(r, r.PathValue("id")) }

func (a *api) read(r *rest.Request, ref string) (any, error) {
	me, err := by(r)
	if err != nil {
		return nil, err
	}
	doc, err := a.auth.User(r.Context(), me, ref)
	if err != nil {
		return nil, err
	}
	return answer(r, me.UserID(), doc)
}

func (a *api) create(r *rest.Request) (any, error) {
	me, err := by(r)
	if err != nil {
		return nil, err
	}
	body, err := r.ReadBody()
	if err != nil {
		return nil, err
	}
	doc, err := a.auth.CreateUser(r.Context(), me, body)
	if err != nil {
		return nil, err
	}
	made, err := answer(r, me.UserID(), doc)
	if err != nil {
		return nil, err
	}
	return rest.Created{Body: made, Location: r.Href("/api/users/" + doc.ID)}, nil
}

func (a *api) replace(r *rest.Request) (any, error) {
	me, errBy := by(r)
	body, errBody := r.ReadBody()
	expect, errExpect := r.Expects()
	if err := errors.Join(errBy, errBody, errExpect); err != nil {
		return nil, err
	}
	doc, err := a.auth.ReplaceUser(r.Context(), me, r.PathValue("id"), body, expect)
	if err != nil {
		return nil, err
	}
	return answer(r, me.UserID(), doc)
}

func (a *api) delete(r *rest.Request) (any, error) {
	me, err := by(r)
	if err != nil {
		return nil, err
	}
	return nil, a.auth.DeleteUser(r.Context(), me, r.PathValue("id"))
}

func (a *api) revoke(r *rest.Request) (any, error) {
	me, err := by(r)
	if err != nil {
		return nil, err
	}
	return nil, a.auth.RevokeSessions(r.Context(), me, r.PathValue("id"))
}
