package rest_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/permission"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/openapitest"
	"github.com/takodeploy/tako/octopus"
)

// testKinds are unlike kinds: plain, with references, nested below an owner,
// with secrets, and one that lives in spaces and in the system.
func testKinds(t testing.TB) resource.Set {
	t.Helper()
	name := func(n string) resource.Permissions {
		return resource.Permissions{View: n + "View", Create: n + "Create", Edit: n + "Edit", Delete: n + "Delete"}
	}
	set, err := resource.NewSet(
		resource.Declare(resource.Declaration[octopus.Space]{
			Name: "spaces", ItemType: "Space", Prefix: "Spaces", Scope: resource.InSystem, Slugged: true,
			Permissions: resource.Permissions{Create: "SpaceCreate", Edit: "SpaceEdit", Delete: "SpaceDelete"},
			Links:       map[string]string{"SpaceHome": "/api/{Id}"},
		}),
		resource.Declare(resource.Declaration[octopus.Environment]{
			Name: "environments", ItemType: "Environment", Prefix: "Environments", Slugged: true, Order: resource.ByNumber,
			Permissions: name("Environment"), Dimensions: resource.Dimensions{Environment: "Id"},
		}),
		resource.Declare(resource.Declaration[octopus.Lifecycle]{
			Name: "lifecycles", ItemType: "Lifecycle", Prefix: "Lifecycles", Slugged: true, Permissions: name("Lifecycle"),
			References: []resource.Reference{{Path: "Phases.*.OptionalDeploymentTargets", To: "environments"}},
		}),
		resource.Declare(resource.Declaration[octopus.Project]{
			Name: "projects", ItemType: "Project", Prefix: "Projects", Slugged: true, Permissions: name("Project"),
			Dimensions: resource.Dimensions{Project: "Id"},
			References: []resource.Reference{{Path: "LifecycleId", To: "lifecycles", Required: true}},
			Links:      map[string]string{"Releases": "/api/{space}/projects/{Id}/releases{/version}{?skip,take}", "Lifecycle": "/api/{space}/lifecycles/{LifecycleId}"},
		}),
		resource.Declare(resource.Declaration[octopus.Channel]{
			Name: "channels", ItemType: "Channel", Prefix: "Channels", Slugged: true, SlugWithin: "ProjectId",
			Permissions: resource.Permissions{View: "ProcessView", Create: "ProcessEdit", Edit: "ProcessEdit", Delete: "ProcessEdit"},
			Dimensions:  resource.Dimensions{Project: "ProjectId"},
			Unique:      []resource.Unique{{Field: "Name", Within: "ProjectId"}},
			References:  []resource.Reference{{Path: "ProjectId", To: "projects", Required: true, OnDelete: resource.Cascade}},
			Filters:     []resource.Filter{{Param: "projectId", Path: "ProjectId"}},
		}),
		resource.Declare(resource.Declaration[octopus.Account]{
			Name: "accounts", ItemType: "Account", Prefix: "Accounts", Slugged: true, Permissions: name("Account"),
			Dimensions: resource.Dimensions{Environment: "EnvironmentIds"},
			Filters:    []resource.Filter{{Param: "accountType", Path: "AccountType"}},
			References: []resource.Reference{{Path: "EnvironmentIds", To: "environments", OnDelete: resource.Clear}},
		}),
		resource.Declare(resource.Declaration[octopus.Team]{
			Name: "teams", ItemType: "Team", Prefix: "Teams", Scope: resource.InEither, Slugged: true, Permissions: name("Team"),
			Links: map[string]string{"ScopedUserRoles": "/api/{space}/teams/{Id}/scopeduserroles"},
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// sealer stands in for the master key; it binds owner and field as that does.
type sealer struct{}

func (sealer) Seal(owner, field string, clear []byte) (string, error) {
	return "sealed:" + base64.StdEncoding.EncodeToString([]byte(owner+"|"+field+"|"+string(clear))), nil
}

func (sealer) Open(_ context.Context, owner, field, sealed string) ([]byte, error) {
	text, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sealed, "sealed:"))
	clear, ok := strings.CutPrefix(string(text), owner+"|"+field+"|")
	if err != nil || !ok {
		return nil, errors.New("does not open")
	}
	return []byte(clear), nil
}

// user is a principal by its id and what it may do.
type user struct {
	id     string
	access *auth.Access
}

func (u user) Access() *auth.Access { return u.access }

func (u user) Actor() db.Actor {
	return db.Actor{UserID: u.id, Username: strings.ToLower(u.id), Identity: "ApiKey"}
}

// grants are permissions and spaces, joined by a slash, with how each is held.
type grants map[string][]resource.Grant

// newUser makes a user who is in one team with a role for each grant.
func newUser(id string, g grants) user {
	facts := auth.Facts{Teams: []octopus.Team{{Resource: octopus.Resource{ID: "Teams-1"}}}}
	for held, ways := range g {
		name, space, _ := strings.Cut(held, "/")
		role := octopus.UserRole{Resource: octopus.Resource{ID: "UserRoles-" + held}}
		if space == "" {
			role.GrantedSystemPermissions = append(role.GrantedSystemPermissions, octopus.Permission(name))
		} else {
			role.GrantedSpacePermissions = append(role.GrantedSpacePermissions, octopus.Permission(name))
		}
		facts.Roles = append(facts.Roles, role)
		for _, way := range ways {
			facts.Scoped = append(facts.Scoped, octopus.ScopedUserRole{
				SpaceID: octopus.NullString(space), TeamID: "Teams-1", UserRoleID: role.ID,
				ProjectIDs: way.Projects, ProjectGroupIDs: way.ProjectGroups, EnvironmentIDs: way.Environments, TenantIDs: way.Tenants,
			})
		}
	}
	return user{id, auth.NewAccess(facts)}
}

// everything is all that can be held in the first spaces and on the system.
func everything() grants {
	all := grants{}
	for _, info := range permission.All() {
		for _, space := range []string{"", "/Spaces-1", "/Spaces-2", "/Spaces-3", "/Spaces-4"} {
			if space == "" && info.System || space != "" && info.Space {
				all[strings.TrimSuffix(string(info.Name)+space, "/")] = []resource.Grant{{}}
			}
		}
	}
	return all
}

// keys knows users by their API key.
type keys map[string]user

func (k keys) Authenticate(r *http.Request) (rest.Principal, error) {
	key := r.Header.Get("X-Octopus-ApiKey")
	if key == "" {
		return rest.Anonymous{}, nil
	}
	u, ok := k[key]
	if !ok {
		return nil, fault.New(fault.Unauthenticated, "The API key is not valid.")
	}
	return u, nil
}

const admin = "API-ADMIN"

// world is a running server with two spaces.
type world struct {
	t     testing.TB
	url   string
	keys  keys
	db    *db.DB
	store *docstore.Store
	api   *rest.Server
	check *openapitest.Checker
	// client sends requests; every answer is checked against the OpenAPI document.
	client *http.Client
}

func newWorld(t testing.TB, change ...func(*rest.Config)) *world {
	t.Helper()
	return newWorldOn(t, dbtest.Open(t, db.SQLite), change...)
}

// onBoth runs a test on SQLite and on PostgreSQL.
func onBoth(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	dbtest.Run(t, func(t *testing.T, d *db.DB) { fn(t, newWorldOn(t, d)) })
}

func newWorldOn(t testing.TB, d *db.DB, change ...func(*rest.Config)) *world {
	t.Helper()
	return newWorldOf(t, d, testKinds(t), change...)
}

func newWorldOf(t testing.TB, d *db.DB, kinds resource.Set, change ...func(*rest.Config)) *world {
	t.Helper()
	w := &world{t: t, db: d, keys: keys{admin: newUser("Users-1", everything())}}
	w.store = docstore.New(kinds, sealer{})
	cfg := rest.Config{
		Log: dbtest.Log(t), DB: w.db, Store: w.store, Auth: w.keys,
		Version: "2026.4.0-dev.1", InstallationID: "9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d",
		Aliases: []rest.Alias{
			{Kind: "channels", Pattern: "/projects/{owner}/channels", Owner: "projects", Within: "ProjectId"},
			{Kind: "environments", Pattern: "/environment", Only: []string{"get"}},
		},
	}
	for _, c := range change {
		c(&cfg)
	}
	var err error
	if w.api, err = rest.New(cfg); err != nil {
		t.Fatal(err)
	}
	err = w.db.Write(t.Context(), func(tx *db.Tx) error {
		for _, body := range []string{`{"Name":"Default","IsDefault":true}`, `{"Name":"Ops Team"}`} {
			k, err := w.store.Kind("spaces")
			if err != nil {
				return err
			}
			if _, err := w.store.Create(t.Context(), tx, k, docstore.Input{Body: []byte(body), Server: true}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(w.api)
	t.Cleanup(srv.Close)
	w.url = srv.URL + cfg.Base
	w.client = &http.Client{
		Transport:     http.DefaultTransport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	w.check = openapitest.Load(t, w.get("/api/openapi.json", "").body)
	w.client.Transport = w.check.Transport(http.DefaultTransport)
	return w
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   []byte
}

func (a answer) json(t testing.TB) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(a.body, &m); err != nil {
		t.Fatalf("status %d, body %.300q: %v", a.status, a.body, err)
	}
	return m
}

func (a answer) text(t testing.TB, member string) string {
	t.Helper()
	s, _ := a.json(t)[member].(string)
	return s
}

// do sends a request; headers are pairs.
func (w *world) do(method, path, key, body string, headers ...string) answer {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("X-Octopus-ApiKey", key)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	return w.send(req)
}

func (w *world) send(req *http.Request) answer {
	w.t.Helper()
	resp, err := w.client.Do(req)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, data}
}

func (w *world) get(path, key string) answer {
	w.t.Helper()
	return w.do(http.MethodGet, path, key, "")
}

// must sends a request as the administrator and wants a status.
func (w *world) must(status int, method, path, body string, headers ...string) answer {
	w.t.Helper()
	a := w.do(method, path, admin, body, headers...)
	if a.status != status {
		w.t.Fatalf("%s %s: status %d, want %d: %s", method, path, a.status, status, a.body)
	}
	return a
}

// create makes a document and returns its id.
func (w *world) create(path, body string) string {
	w.t.Helper()
	return w.must(http.StatusCreated, http.MethodPost, path, body).text(w.t, "Id")
}

// dump is everything that is stored, to see that nothing changed.
func (w *world) dump() string {
	w.t.Helper()
	var b bytes.Buffer
	err := w.db.Read(w.t.Context(), func(tx *db.Tx) error {
		b.Reset()
		rows, err := tx.Query(w.t.Context(), `SELECT kind, id, space_id, version, body FROM documents ORDER BY kind, id`)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // Err tells
		for rows.Next() {
			var kind, id, space, body string
			var version int64
			if err := rows.Scan(&kind, &id, &space, &version, &body); err != nil {
				return err
			}
			fmt.Fprintln(&b, kind, id, space, version, body)
		}
		return rows.Err()
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return b.String()
}

func encode(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func unmarshal(body []byte, v any) error { return json.Unmarshal(body, v) }
