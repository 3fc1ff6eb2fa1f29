package directory_test

import (
	"context"
	"errors"
	"strings"
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
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
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
		fn(t, w)
	})
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
