package directory_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/targets/directory"
	"github.com/takodeploy/tako/octopus"
)

// world is a database with a space.
type world struct {
	t     *testing.T
	d     *db.DB
	store *docstore.Store
	dir   *directory.Directory
	space ident.SpaceID
}

func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	dbtest.Run(t, func(t *testing.T, d *db.DB) { fn(t, newWorld(t, d)) })
}

func newWorld(t *testing.T, d *db.DB) *world {
	t.Helper()
	kinds, err := resource.NewSet(resources.All()...)
	if err != nil {
		t.Fatal(err)
	}
	box, err := secret.Open(t.Context(), d, secret.Source{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	store := docstore.New(kinds, box)
	w := &world{t: t, d: d, store: store, dir: directory.New(d, store)}
	w.space = ident.SpaceID(w.create("spaces", "", &octopus.Space{Name: "Default", IsDefault: true}))
	w.create("environments", w.space, &octopus.Environment{Name: "Dev"})
	return w
}

func (w *world) write(fn func(ctx context.Context, tx *db.Tx, docs resource.Writer) error) {
	w.t.Helper()
	err := w.d.Write(w.t.Context(), func(tx *db.Tx) error { return fn(w.t.Context(), tx, w.store.In(tx)) })
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) create(kind string, space ident.SpaceID, v any) (id string) {
	w.t.Helper()
	w.write(func(ctx context.Context, _ *db.Tx, docs resource.Writer) (err error) {
		id, err = docs.Create(ctx, kind, space, "", v)
		return err
	})
	return id
}

func (w *world) exec(statement string, args ...any) {
	w.t.Helper()
	w.write(func(ctx context.Context, tx *db.Tx, _ resource.Writer) error {
		_, err := tx.Exec(ctx, statement, args...)
		return err
	})
}

func (w *world) trusts(sub halibut.Subscription, thumb halibut.Thumbprint) bool {
	w.t.Helper()
	ok, err := w.dir.Trusts(w.t.Context(), sub, thumb)
	if err != nil {
		w.t.Fatal(err)
	}
	return ok
}

const (
	thumb = halibut.Thumbprint("4DD9F93946DFC9A9C11B470748B6028A1B96B95B")
	other = halibut.Thumbprint("B6028A1B96B95B4DD9F93946DFC9A9C11B470748")
	sub   = halibut.Subscription("poll://abcdefghij0123456789/")
)

func base(name string, e octopus.Endpoint) octopus.MachineBase {
	return octopus.MachineBase{Name: name, Endpoint: e}
}

func polling(s string, t string) octopus.Endpoint {
	return octopus.Endpoint{CommunicationStyle: octopus.StylePolling, URI: s, Thumbprint: t}
}

// TestTrust follows one polling agent, of a target and of a worker, through what
// becomes of it.
func TestTrust(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		spaced := strings.ToLower(string(thumb[:20])) + " " + string(thumb[20:])
		for kind, make := range map[string]func(b octopus.MachineBase) any{
			"machines": func(b octopus.MachineBase) any {
				return &octopus.Machine{MachineBase: b, Roles: []string{"web"}, EnvironmentIDs: []string{"Environments-1"}}
			},
			"workers": func(b octopus.MachineBase) any {
				return &octopus.Worker{MachineBase: b, WorkerPoolIDs: []string{"WorkerPools-1"}}
			},
		} {
			if w.trusts(sub, thumb) {
				t.Fatal("somebody unknown")
			}
			// As people write them.
			id := w.create(kind, w.space, make(base("box", polling("POLL://ABCDEFGHIJ0123456789", spaced))))
			for name, tc := range map[string]struct {
				sub   halibut.Subscription
				thumb halibut.Thumbprint
				want  bool
			}{
				"it":                   {sub, thumb, true},
				"another subscription": {"poll://other/", thumb, false},
				"another certificate":  {sub, other, false},
			} {
				if got := w.trusts(tc.sub, tc.thumb); got != tc.want {
					t.Errorf("%s: %s: %t", kind, name, got)
				}
			}
			disable := func(yes bool) {
				w.write(func(ctx context.Context, _ *db.Tx, docs resource.Writer) error {
					v := make(base("box", polling(string(sub), string(thumb))))
					switch v := v.(type) {
					case *octopus.Machine:
						v.IsDisabled = yes
					case *octopus.Worker:
						v.IsDisabled = yes
					}
					return docs.Replace(ctx, kind, id, v)
				})
			}
			disable(true)
			if w.trusts(sub, thumb) {
				t.Errorf("%s: a disabled one", kind)
			}
			w.exec(`INSERT INTO ticket (ticket, task, unit, agent, state, not_before) VALUES ('t', 'ServerTasks-1', 'u', ?, 'open', 0)`, id)
			if !w.trusts(sub, thumb) {
				t.Errorf("%s: a disabled one where a script is under way", kind)
			}
			if m, err := w.dir.Machine(t.Context(), id); err != nil || !m.Disabled || m.Gone || m.Name != "box" || m.Policy.ConnectionRetryCountLimit == 0 {
				t.Errorf("%s: %+v, %v", kind, m, err)
			}
			w.write(func(ctx context.Context, _ *db.Tx, docs resource.Writer) error { return docs.Delete(ctx, kind, id) })
			if !w.trusts(sub, thumb) || w.trusts(sub, other) || w.trusts("poll://other/", thumb) {
				t.Errorf("%s: a deleted one where a script is under way", kind)
			}
			if m, err := w.dir.Machine(t.Context(), id); err != nil || !m.Gone || m.Name != "box" || m.Endpoint.URI != string(sub) || m.Policy.ConnectionConnectTimeout == 0 {
				t.Errorf("%s: %+v, %v", kind, m, err)
			}
			w.exec(`DELETE FROM ticket`)
			if w.trusts(sub, thumb) {
				t.Errorf("%s: a deleted one", kind)
			}
			w.exec(`UPDATE former_machine SET deleted = deleted - ?`, resources.FormerMachineFor.Microseconds())
			if _, err := w.dir.Machine(t.Context(), id); !fault.Is(err, fault.NotFound) {
				t.Errorf("%s: long deleted: %v", kind, err)
			}
		}
		// A target that listens is dialled; it does not come by itself.
		w.create("machines", w.space, &octopus.Machine{
			MachineBase: base("listens", octopus.Endpoint{CommunicationStyle: octopus.StyleListening, URI: string(sub), Thumbprint: string(thumb)}),
			Roles:       []string{"web"}, EnvironmentIDs: []string{"Environments-1"},
		})
		if w.trusts(sub, thumb) {
			t.Error("one that listens")
		}
		if _, err := w.dir.Machine(t.Context(), "Machines-404"); !fault.Is(err, fault.NotFound) {
			t.Errorf("an unknown one: %v", err)
		}
		ctx, stop := context.WithCancel(t.Context())
		stop()
		if ok, err := w.dir.Trusts(ctx, sub, thumb); ok || !errors.Is(err, context.Canceled) {
			t.Errorf("nobody can tell: %t, %v", ok, err)
		}
	})
}

// TestTrustIsCheap asks about the agents of many machines again and again, as it is done
// for connections that have nothing to do: the database is asked once for each, and
// again when a machine has changed.
func TestTrustIsCheap(t *testing.T) {
	t.Parallel()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			var asked atomic.Int64
			d, err := db.Open(t.Context(), dbtest.URL(t, dialect), db.Options{Log: dbtest.Log(t), OnStatement: func(query string) {
				if strings.Contains(query, "'Thumbprint'") {
					asked.Add(1)
				}
			}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := d.Close(); err != nil {
					t.Error(err)
				}
			})
			newWorld(t, d).cheap(&asked)
		})
	}
}

// cheap counts what is asked about the trust of agents.
func (w *world) cheap(asked *atomic.Int64) {
	t := w.t
	const machines = 20
	agent := func(i int) (halibut.Subscription, halibut.Thumbprint) {
		return halibut.Subscription(fmt.Sprintf("poll://abcdefghij00000000%02d/", i)), halibut.Thumbprint(fmt.Sprintf("%s%02d", thumb[:38], i))
	}
	var ids []string
	document := func(i int, disabled bool) *octopus.Machine {
		s, p := agent(i)
		m := &octopus.Machine{MachineBase: base(fmt.Sprint("box", i), polling(string(s), string(p))), Roles: []string{"web"}, EnvironmentIDs: []string{"Environments-1"}}
		m.IsDisabled = disabled
		return m
	}
	for i := range machines {
		ids = append(ids, w.create("machines", w.space, document(i, false)))
	}
	round := func(want func(i int) bool) int64 {
		t.Helper()
		before := asked.Load()
		for i := range machines {
			if got := w.trusts(agent(i)); got != want(i) {
				t.Errorf("agent %d is trusted: %t", i, got)
			}
		}
		return asked.Load() - before
	}
	all := func(int) bool { return true }
	if n := round(all); n != machines {
		t.Errorf("at first the database is asked %d times", n)
	}
	for range 10 {
		if n := round(all); n != 0 {
			t.Errorf("then the database is asked %d times", n)
		}
	}
	w.write(func(ctx context.Context, _ *db.Tx, docs resource.Writer) error {
		return docs.Replace(ctx, "machines", ids[3], document(3, true))
	})
	but := func(i int) bool { return i != 3 }
	if n := round(but); n != machines {
		t.Errorf("after a change the database is asked %d times", n)
	}
	if n := round(but); n != 1 { // a script may have begun where it was disabled
		t.Errorf("then the database is asked %d times", n)
	}
}

// TestAccount opens the accounts of a space, and not those of another.
func TestAccount(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		password := "s3cret"
		id := w.create("accounts", w.space, &octopus.Account{
			Name: "web", AccountType: octopus.AccountUsernamePassword, Username: "deploy", Password: &octopus.Sensitive{HasValue: true, NewValue: &password},
		})
		a, err := w.dir.Account(t.Context(), string(w.space), id)
		if err != nil || a.Username != "deploy" || a.Password == nil || a.Password.NewValue == nil || *a.Password.NewValue != password {
			t.Errorf("%+v, %v", a, err)
		}
		for _, other := range [][2]string{{"Spaces-404", id}, {string(w.space), "Accounts-404"}} {
			if a, err := w.dir.Account(t.Context(), other[0], other[1]); !fault.Is(err, fault.NotFound) || a.Username != "" {
				t.Errorf("%v: %+v, %v", other, a, err)
			}
		}
	})
}
