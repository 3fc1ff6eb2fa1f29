package auth_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/octopus"
)

// thing stands in for what roles are scoped to.
type thing struct {
	octopus.Resource
	Name     string               `json:"Name"`
	Projects octopus.List[string] `json:"Projects"`
}

func scopes(name, prefix string, refs ...resource.Reference) *resource.Kind {
	return resource.Declare(resource.Declaration[thing]{Name: name, ItemType: "Thing", Prefix: prefix, References: refs})
}

// quick are argon2 parameters that cost nothing: the real algorithm all the same.
func quick() auth.Argon2 { return auth.Argon2{Memory: 8, Time: 1, Threads: 1} }

// clock is a clock that tests move.
type clock struct {
	mu sync.Mutex
	t  time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.t
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.t = c.t.Add(d)
}

// world is a server's worth of people, without the server.
type world struct {
	*auth.Service
	t     *testing.T
	ctx   context.Context
	db    *db.DB
	store *docstore.Store
	clock *clock
	admin *auth.Principal
}

const (
	adminName     = "ada"
	adminPassword = "correct horse battery"
	adminKey      = "API-ADMINADMINADMINADMIN"
)

func kinds(t testing.TB) resource.Set {
	t.Helper()
	set, err := resource.NewSet(
		resources.Users(), resources.Teams(), resources.UserRoles(), resources.ScopedUserRoles(), resources.OIDCIdentities(),
		scopes("projects", "Projects"), scopes("projectgroups", "ProjectGroups"), scopes("environments", "Environments"),
		scopes("tenants", "Tenants", resource.Reference{Path: "Projects", To: "projects", OnDelete: resource.Clear}),
	)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// service opens a service on d, as each process of a server would.
func service(t testing.TB, d *db.DB, change func(*auth.Options)) (*auth.Service, *docstore.Store) {
	t.Helper()
	store := docstore.New(kinds(t), nil)
	opt := auth.Options{Log: dbtest.Log(t), Argon2: quick(), Installation: "9b1deb4d"}
	if change != nil {
		change(&opt)
	}
	s, err := auth.Open(d, store, opt)
	if err != nil {
		t.Fatal(err)
	}
	return s, store
}

// newWorld has the built-in roles and teams, a space's managers, and ada, who
// administers and manages all.
func newWorld(t *testing.T, d *db.DB) *world {
	t.Helper()
	c := &clock{t: time.Now()}
	w := &world{t: t, ctx: t.Context(), db: d, clock: c}
	w.Service, w.store = service(t, d, func(o *auth.Options) { o.Now = c.now })
	w.ok(w.EnsureBuiltins(w.ctx))
	w.manage("Spaces-1", nil, nil)
	_, err := w.CreateAdministrator(w.ctx, auth.Administrator{Username: adminName, Password: adminPassword, APIKey: adminKey})
	w.ok(err)
	w.admin = w.byKey(adminKey)
	return w
}

// administered is a service with an administrator who has a key, and no more.
func administered(t testing.TB, d *db.DB) *auth.Service {
	t.Helper()
	s, _ := service(t, d, nil)
	if err := s.EnsureBuiltins(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.CreateAdministrator(t.Context(), auth.Administrator{Username: adminName, APIKey: adminKey}); err != nil {
		t.Fatal(err)
	}
	return s
}

func each(t *testing.T, fn func(w *world)) {
	t.Helper()
	dbtest.Run(t, func(t *testing.T, d *db.DB) { fn(newWorld(t, d)) })
}

func (w *world) ok(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// refused checks that err is a fault of that kind.
func (w *world) refused(err error, want fault.Kind) {
	w.t.Helper()
	if !fault.Is(err, want) {
		w.t.Fatalf("got %v, want a fault of the kind %q", err, want)
	}
}

func (w *world) write(ctx context.Context, fn func(*db.Tx) error) {
	w.t.Helper()
	w.ok(w.db.Write(ctx, fn))
}

func (w *world) byKey(key string) *auth.Principal {
	w.t.Helper()
	p, err := w.ByAPIKey(w.ctx, key)
	w.ok(err)
	return p
}

// as is a context in which p acts.
func (w *world) as(p *auth.Principal) context.Context { return db.WithActor(w.ctx, p.Actor()) }

// user makes a user by a JSON object and returns the id.
func (w *world) user(body string) string {
	w.t.Helper()
	doc, err := w.CreateUser(w.as(w.admin), w.admin, []byte(body))
	w.ok(err)
	return doc.ID
}

// person makes somebody with a key, who is in teams.
func (w *world) person(name string, teams ...string) *auth.Principal {
	w.t.Helper()
	id := w.user(fmt.Sprintf(`{"Username": %q, "IsService": true}`, name))
	for _, team := range teams {
		w.join(team, id)
	}
	return w.byKey(w.key(w.admin, id))
}

func (w *world) key(by *auth.Principal, user string) string {
	w.t.Helper()
	key, err := w.CreateAPIKey(w.as(by), by, user, octopus.APIKeyCommand{Purpose: "test"})
	w.ok(err)
	return string(key.APIKey)
}

func (w *world) join(team, user string) {
	w.t.Helper()
	w.write(w.ctx, func(tx *db.Tx) error {
		var t octopus.Team
		if err := w.store.Load(w.ctx, tx, "teams", team, &t); err != nil {
			return err
		}
		t.MemberUserIDs = append(t.MemberUserIDs, user)
		return w.store.In(tx).Replace(w.ctx, "teams", team, &t)
	})
}

// create stores a document as p would, by the rules for what clients send.
func (w *world) create(p *auth.Principal, kind string, space ident.SpaceID, v any) (string, error) {
	w.t.Helper()
	ctx := w.as(p)
	k, err := w.store.Kind(kind)
	w.ok(err)
	body, err := json.Marshal(v)
	w.ok(err)
	var id string
	return id, w.db.Write(ctx, func(tx *db.Tx) error {
		doc, err := w.store.Create(ctx, tx, k, docstore.Input{Space: space, Body: body})
		if err == nil {
			id = doc.ID
		}
		return err
	})
}

func (w *world) made(p *auth.Principal, kind string, space ident.SpaceID, v any) string {
	w.t.Helper()
	id, err := w.create(p, kind, space, v)
	w.ok(err)
	return id
}

// change loads a document into v, changes it, and stores it as p would.
func change[T any](w *world, p *auth.Principal, kind, id string, fn func(*T)) error {
	w.t.Helper()
	ctx := w.as(p)
	k, err := w.store.Kind(kind)
	w.ok(err)
	return w.db.Write(ctx, func(tx *db.Tx) error {
		v := new(T)
		if err := w.store.Load(ctx, tx, kind, id, v); err != nil {
			return err
		}
		fn(v)
		body, err := json.Marshal(v)
		if err != nil {
			return err
		}
		space, err := w.home(ctx, tx, kind, id)
		if err != nil {
			return err
		}
		_, err = w.store.Replace(ctx, tx, k, space, id, docstore.Input{Body: body})
		return err
	})
}

func (w *world) remove(p *auth.Principal, kind, id string) error {
	w.t.Helper()
	ctx := w.as(p)
	k, err := w.store.Kind(kind)
	w.ok(err)
	return w.db.Write(ctx, func(tx *db.Tx) error {
		space, err := w.home(ctx, tx, kind, id)
		if err != nil {
			return err
		}
		return w.store.Delete(ctx, tx, k, space, id)
	})
}

// home is the space that a document is in.
func (w *world) home(ctx context.Context, tx *db.Tx, kind, id string) (space ident.SpaceID, err error) {
	return space, tx.QueryRow(ctx, `SELECT space_id FROM documents WHERE kind = ? AND id = ?`, kind, id).Scan(&space)
}

func load[T any](w *world, kind, id string) T {
	w.t.Helper()
	var v T
	w.ok(w.db.Read(w.ctx, func(tx *db.Tx) error { return w.store.Load(w.ctx, tx, kind, id, &v) }))
	return v
}

func (w *world) list(kind string, q docstore.Query) (docs []*docstore.Doc) {
	w.t.Helper()
	k, err := w.store.Kind(kind)
	w.ok(err)
	w.ok(w.db.Read(w.ctx, func(tx *db.Tx) error {
		docs, _, err = w.store.List(w.ctx, tx, k, q)
		return err
	}))
	return docs
}

func (w *world) manage(space ident.SpaceID, teams, users []string) {
	w.t.Helper()
	w.write(w.ctx, func(tx *db.Tx) error {
		return resources.ManageSpace(w.ctx, w.store.In(tx), space, teams, users)
	})
}

// nobody is a principal in whose name the server itself acts.
func (w *world) nobody() *auth.Principal { return new(auth.Principal) }

// count runs a query for one number.
func (w *world) count(query string, args ...any) (n int) {
	w.t.Helper()
	w.ok(w.db.Read(w.ctx, func(tx *db.Tx) error { return tx.QueryRow(w.ctx, query, args...).Scan(&n) }))
	return n
}

// team makes a team of the system with a role in a space, or on the system.
func (w *world) team(name, role string, space ident.SpaceID, members ...string) string {
	w.t.Helper()
	id := w.made(w.admin, "teams", "", octopus.Team{Name: name, MemberUserIDs: members})
	w.made(w.admin, "scopeduserroles", space, octopus.ScopedUserRole{TeamID: id, UserRoleID: role})
	return id
}

// request is a request with a session's cookies.
func (w *world) request(method string, s *auth.Session) *http.Request {
	r := httptest.NewRequestWithContext(w.ctx, method, "/api/users/me", nil)
	for _, c := range w.Cookies(s, true, "") {
		r.AddCookie(c)
	}
	return r
}

// secondProcess is another handle to the same database, with a service of its own.
func secondProcess(t *testing.T, dialect db.Dialect) (first, second *world) {
	t.Helper()
	url := dbtest.URL(t, dialect)
	first = newWorld(t, dbtest.OpenURL(t, url))
	d := dbtest.OpenURL(t, url)
	s, store := service(t, d, nil)
	return first, &world{Service: s, t: t, ctx: t.Context(), db: d, store: store, clock: first.clock}
}
