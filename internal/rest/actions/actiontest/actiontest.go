// Package actiontest is a server for the tests of actions: the real API over a
// real database, with the declared kinds, the default space as a new server has
// it, real users and real secrets. It runs no tasks.
package actiontest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/openapitest"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/octopus"
)

// Admin is the API key of the administrator, who is a manager of the default
// space too. AdminName and AdminPassword are what they sign in with.
const (
	Admin         = "API-ADMINADMINADMINADMIN"
	AdminName     = "ada"
	AdminPassword = "correct horse battery"
)

// World is a running server.
type World struct {
	T     testing.TB
	DB    *db.DB
	Store *docstore.Store
	Keys  *secret.Box
	// KeyDir has the master key, for other processes on the database.
	KeyDir string
	Auth   *auth.Service
	API    *rest.Server
	URL    string
	// Client sends requests; every answer is held against the OpenAPI document.
	Client *http.Client

	people atomic.Int64
}

// New starts a server on SQLite with what routes returns.
func New(t testing.TB, routes func(w *World) []rest.Route, aliases ...rest.Alias) *World {
	t.Helper()
	return With(t, dbtest.Open(t, db.SQLite), func(w *World, cfg *rest.Config) { cfg.Routes, cfg.Aliases = routes(w), aliases })
}

// Each runs fn against a server on each database there is.
func Each(t *testing.T, routes func(w *World) []rest.Route, fn func(t *testing.T, w *World), aliases ...rest.Alias) {
	t.Helper()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		fn(t, With(t, d, func(w *World, cfg *rest.Config) { cfg.Routes, cfg.Aliases = routes(w), aliases }))
	})
}

// On is New on a database of a dialect.
func On(t testing.TB, dialect db.Dialect, routes func(w *World) []rest.Route, aliases ...rest.Alias) *World {
	t.Helper()
	return With(t, dbtest.Open(t, dialect), func(w *World, cfg *rest.Config) { cfg.Routes, cfg.Aliases = routes(w), aliases })
}

// With starts a server on a database. setup completes the configuration of the
// API, when all else is there.
func With(t testing.TB, d *db.DB, setup func(w *World, cfg *rest.Config)) *World {
	t.Helper()
	ctx := t.Context()
	keyDir := t.TempDir()
	keys, err := secret.Open(ctx, d, secret.Source{Dir: keyDir})
	check(t, err)
	kinds, err := resource.NewSet(append(resources.All(), releases.Kinds()...)...)
	check(t, err)
	w := &World{T: t, DB: d, Store: docstore.New(kinds, keys), Keys: keys, KeyDir: keyDir}
	w.Auth, err = auth.Open(d, w.Store, auth.Options{
		Log: dbtest.Log(t), Argon2: auth.Argon2{Memory: 8, Time: 1, Threads: 1}, Installation: "9b1deb4d", Sealer: keys,
	})
	check(t, err)
	check(t, d.Write(ctx, func(tx *db.Tx) error {
		_, err := w.Store.In(tx).Create(ctx, "spaces", "", "", &octopus.Space{Name: "Default", IsDefault: true})
		return err
	}))
	check(t, w.Auth.EnsureBuiltins(ctx))
	id, err := w.Auth.CreateAdministrator(ctx, auth.Administrator{Username: AdminName, Password: AdminPassword, APIKey: Admin})
	check(t, err)
	check(t, d.Write(ctx, func(tx *db.Tx) error {
		return resources.ManageSpace(ctx, w.Store.In(tx), resources.DefaultSpace, nil, []string{id})
	}))
	cfg := rest.Config{
		Log: dbtest.Log(t), DB: d, Store: w.Store,
		Version: "2026.4.0-dev.1", InstallationID: "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d",
		Auth: rest.AuthenticatorFunc(func(r *http.Request) (rest.Principal, error) {
			p, err := w.Auth.FromRequest(r)
			if err != nil || p == nil {
				return rest.Anonymous{}, err
			}
			return p, nil
		}),
	}
	setup(w, &cfg)
	w.API, err = rest.New(cfg)
	check(t, err)
	srv := httptest.NewServer(w.API)
	t.Cleanup(srv.Close)
	w.URL = srv.URL
	w.Client = &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	w.Client.Transport = openapitest.Load(t, w.Do(http.MethodGet, "/api/openapi.json", "", "").Body).Transport(http.DefaultTransport)
	return w
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Answer is what came back.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
	t      testing.TB
}

// Into decodes the body into v.
func (a Answer) Into(v any) {
	a.t.Helper()
	if err := json.Unmarshal(a.Body, v); err != nil {
		a.t.Fatalf("status %d, body %.300q: %v", a.Status, a.Body, err)
	}
}

// JSON is the body as an object.
func (a Answer) JSON() map[string]any {
	a.t.Helper()
	var m map[string]any
	a.Into(&m)
	return m
}

// Text is a member of the body, "" when it is no text.
func (a Answer) Text(member string) string {
	a.t.Helper()
	s, _ := a.JSON()[member].(string)
	return s
}

// Do sends a request with an API key, "" for none; headers are pairs.
func (w *World) Do(method, path, key, body string, headers ...string) Answer {
	w.T.Helper()
	req, err := http.NewRequestWithContext(w.T.Context(), method, w.URL+path, strings.NewReader(body))
	check(w.T, err)
	if key != "" {
		req.Header.Set("X-Octopus-ApiKey", key)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := w.Client.Do(req)
	check(w.T, err)
	defer func() { _ = resp.Body.Close() }() // it was read to its end
	data, err := io.ReadAll(resp.Body)
	check(w.T, err)
	return Answer{resp.StatusCode, resp.Header, data, w.T}
}

// Must sends a request as the administrator and wants a status.
func (w *World) Must(status int, method, path, body string, headers ...string) Answer {
	w.T.Helper()
	return w.MustAs(Admin, status, method, path, body, headers...)
}

// MustAs is Must with another key.
func (w *World) MustAs(key string, status int, method, path, body string, headers ...string) Answer {
	w.T.Helper()
	a := w.Do(method, path, key, body, headers...)
	if a.Status != status {
		w.T.Fatalf("%s %s: status %d, want %d: %s", method, path, a.Status, status, a.Body)
	}
	return a
}

// Refused sends a request as the administrator that must be refused with a status
// and with words that have says in them.
func (w *World) Refused(status int, method, path, body, says string) {
	w.T.Helper()
	a := w.Do(method, path, Admin, body)
	var answer octopus.ErrorBody
	if a.Status == status {
		a.Into(&answer)
	}
	if said := answer.ErrorMessage + " " + strings.Join(answer.Errors, " "); a.Status != status || !strings.Contains(said, says) {
		w.T.Errorf("%s %s: status %d, want %d with %q: %s", method, path, a.Status, status, says, a.Body)
	}
}

// Get reads as the administrator.
func (w *World) Get(path string) Answer {
	w.T.Helper()
	return w.Must(http.StatusOK, http.MethodGet, path, "")
}

// Create makes a document and returns its id.
func (w *World) Create(path, body string) string {
	w.T.Helper()
	return w.Must(http.StatusCreated, http.MethodPost, path, body).Text("Id")
}

// Role is a part of what somebody may do: permissions in a space, or on the
// system for "", within a scope.
type Role struct {
	Space       ident.SpaceID
	Permissions []string
	Scope       octopus.ScopedUserRole
}

// Person makes a service account that holds roles and nothing else, and returns its API key.
func (w *World) Person(roles ...Role) string {
	w.T.Helper()
	ctx := w.T.Context()
	n := w.people.Add(1)
	name := fmt.Sprintf("person%d", n)
	by, err := w.Auth.ByAPIKey(ctx, Admin)
	check(w.T, err)
	as := db.WithActor(ctx, by.Actor())
	doc, err := w.Auth.CreateUser(as, by, fmt.Appendf(nil, `{"Username":%q,"IsService":true}`, name))
	check(w.T, err)
	check(w.T, w.DB.Write(ctx, func(tx *db.Tx) error { return w.give(ctx, tx, name, doc.ID, roles) }))
	key, err := w.Auth.CreateAPIKey(as, by, doc.ID, octopus.APIKeyCommand{Purpose: "test"})
	check(w.T, err)
	return string(key.APIKey)
}

func (w *World) give(ctx context.Context, tx *db.Tx, name, user string, roles []Role) error {
	store := w.Store.In(tx)
	team, err := store.Create(ctx, "teams", "", "", &octopus.Team{Name: "Team of " + name, MemberUserIDs: []string{user}})
	if err != nil {
		return err
	}
	for i, one := range roles {
		role := octopus.UserRole{Name: fmt.Sprintf("Role %d of %s", i, name)}
		for _, p := range one.Permissions {
			if one.Space == "" {
				role.GrantedSystemPermissions = append(role.GrantedSystemPermissions, octopus.Permission(p))
			} else {
				role.GrantedSpacePermissions = append(role.GrantedSpacePermissions, octopus.Permission(p))
			}
		}
		id, err := store.Create(ctx, "userroles", "", "", &role)
		if err != nil {
			return err
		}
		scoped := one.Scope
		scoped.TeamID, scoped.UserRoleID, scoped.SpaceID = team, id, octopus.NullString(one.Space)
		if _, err := store.Create(ctx, "scopeduserroles", one.Space, "", &scoped); err != nil {
			return err
		}
	}
	return nil
}

// IDs lists the ids of a page's items, or of a bare array.
func (a Answer) IDs() []string {
	a.t.Helper()
	type item struct {
		ID string `json:"Id"`
	}
	var items []item
	if strings.HasPrefix(string(a.Body), "[") {
		a.Into(&items)
	} else {
		var page struct{ Items []item }
		a.Into(&page)
		items = page.Items
	}
	ids := make([]string, len(items))
	for i, one := range items {
		ids[i] = one.ID
	}
	return ids
}
