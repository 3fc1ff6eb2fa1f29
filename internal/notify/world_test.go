package notify_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/events"
	"github.com/takodeploy/tako/internal/mail"
	"github.com/takodeploy/tako/internal/notify"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/internal/rest/actions/library"
	"github.com/takodeploy/tako/internal/rest/actions/server"
	"github.com/takodeploy/tako/internal/rest/actions/users"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/octopus"
)

// childEnv makes the test binary a server that sends from the database that it names;
// keyEnv is the directory of the master key.
const (
	childEnv = "NOTIFY_TEST_DATABASE"
	keyEnv   = "NOTIFY_TEST_KEYS"
)

func TestMain(m *testing.M) {
	url := os.Getenv(childEnv)
	if url == "" {
		os.Exit(m.Run())
	}
	if err := child(context.Background(), url, os.Getenv(keyEnv)); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
}

// child sends until its input ends.
func child(ctx context.Context, url, keys string) error {
	d, err := db.Open(ctx, url, db.Options{})
	if err != nil {
		return err
	}
	box, err := secret.Open(ctx, d, secret.Source{Dir: keys})
	if err != nil {
		return err
	}
	kinds, err := resource.NewSet(append(resources.All(), releases.Kinds()...)...)
	if err != nil {
		return err
	}
	store := docstore.New(kinds, box)
	people, err := auth.Open(d, store, auth.Options{})
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // nobody writes
		stop()
	}()
	s := notify.New(notify.Config{
		DB: d, Store: store, Auth: people, Trail: events.New(kinds), Mail: mail.New(d, store), Allow: everywhere, Look: 20 * time.Millisecond,
	})
	return errors.Join(s.Run(ctx), d.Close())
}

func everywhere(netip.Addr) bool { return true }

// world is a server, whose events are sent when a test says so.
type world struct {
	*actiontest.World
	sender *notify.Service
}

func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) { fn(t, newWorld(t, d)) })
}

func newWorld(t *testing.T, d *db.DB) *world {
	t.Helper()
	w := &world{}
	w.World = actiontest.With(t, d, func(a *actiontest.World, cfg *rest.Config) {
		cfg.Routes = append(users.Routes(d, a.Store, a.Auth), library.Routes(d, a.Store)...)
		cfg.Routes = append(cfg.Routes, server.Routes(server.Config{DB: d, Store: a.Store, Version: "1", Node: "node"})...)
	})
	w.sender = w.another(t, "https://tako.example.com/", everywhere)
	return w
}

// another is another server's sender.
func (w *world) another(t *testing.T, uri string, allow func(netip.Addr) bool) *notify.Service {
	t.Helper()
	return notify.New(notify.Config{
		DB: w.DB, Store: w.Store, Auth: w.Auth, Trail: events.New(w.Store.Kinds()), Mail: mail.New(w.DB, w.Store), Log: dbtest.Log(t), ServerURI: uri, Allow: allow,
	})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// send sends all that is there, also what would be tried again later only.
func (w *world) send() {
	w.T.Helper()
	w.sql(`UPDATE subscription_sender SET due = 0`)
	w.once()
}

// once sends what is due. On PostgreSQL other tests' transactions can keep events from
// settling for a while.
func (w *world) once() {
	w.T.Helper()
	w.settled()
	check(w.T, w.sender.Once(w.T.Context()))
}

func (w *world) settled() {
	w.T.Helper()
	await(w.T, "the events settle", func() bool {
		var settled int64
		check(w.T, w.DB.Read(w.T.Context(), func(tx *db.Tx) (err error) {
			settled, err = tx.SettledEvents(w.T.Context())
			return err
		}))
		return w.count(`SELECT count(*) FROM events e WHERE e.id > ?`, settled) == 0
	})
}

func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func (w *world) sql(statement string, args ...any) {
	w.T.Helper()
	ctx := w.T.Context()
	check(w.T, w.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		_, err := tx.Exec(ctx, statement, args...)
		return err
	}))
}

func (w *world) count(query string, args ...any) (n int) {
	w.T.Helper()
	ctx := w.T.Context()
	check(w.T, w.DB.Read(ctx, func(tx *db.Tx) error { return tx.QueryRow(ctx, query, args...).Scan(&n) }))
	return n
}

// happens writes events of a category, by nobody and of no project.
func (w *world) happens(category string, messages ...string) {
	w.T.Helper()
	ctx := w.T.Context()
	for _, text := range messages {
		check(w.T, w.DB.Write(ctx, func(tx *db.Tx) error {
			tx.Event(db.Event{Category: category, SpaceID: string(resources.DefaultSpace), Message: text})
			return nil
		}))
	}
}

// subscribe makes a subscription as somebody; more is of EventNotificationSubscription.
func (w *world) subscribe(key, name, more string) string {
	w.T.Helper()
	return w.MustAs(key, http.StatusCreated, http.MethodPost, "/api/subscriptions", fmt.Sprintf(`{"Name":%q,"EventNotificationSubscription":{%s}}`, name, more)).Text("Id")
}

func (w *world) deliveries(id string) (page octopus.Page[octopus.SubscriptionDelivery]) {
	w.T.Helper()
	w.Get("/api/subscriptions/" + id + "/deliveries").Into(&page)
	return page
}

// outcomes are those of a subscription's attempts, the oldest first.
func (w *world) outcomes(id string) (out []string) {
	w.T.Helper()
	for _, d := range w.deliveries(id).Items {
		out = append(out, d.Outcome)
	}
	slices.Reverse(out)
	return out
}

// post is what a receiver got.
type post struct {
	header  http.Header
	body    []byte
	payload octopus.WebhookPayload
}

// receiver is a server for webhooks.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	got    []post
	status int
	// hold, if set, is waited for before an answer.
	hold chan struct{}
}

func newReceiver(t testing.TB) *receiver {
	t.Helper()
	r := &receiver{status: http.StatusOK}
	r.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) {
		p := post{header: q.Header}
		var err error
		if p.body, err = io.ReadAll(q.Body); err == nil {
			err = json.Unmarshal(p.body, &p.payload)
		}
		if err != nil {
			t.Errorf("a receiver got %s: %v", p.body, err)
		}
		r.mu.Lock()
		r.got = append(r.got, p)
		status, hold := r.status, r.hold
		r.mu.Unlock()
		if hold != nil {
			select {
			case <-hold:
			case <-q.Context().Done():
			}
		}
		if status == http.StatusFound {
			rw.Header().Set("Location", "/elsewhere")
		}
		rw.WriteHeader(status)
		_, _ = io.WriteString(rw, "what the receiver says is its own affair") // it may be gone
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) answers(status int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status = status
}

func (r *receiver) posts() []post {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.got)
}

// messages are those of the events that came, each as often as it did.
func (r *receiver) messages() []string {
	out := []string{}
	for _, p := range r.posts() {
		out = append(out, p.payload.Payload.Event.Message)
	}
	return out
}

// hook is the part of a subscription that names a receiver.
func (r *receiver) hook(filter string) string {
	return fmt.Sprintf(`"WebhookURI":%q,"Filter":{%s}`, r.URL, filter)
}

// only is a filter of categories.
func only(categories ...string) string {
	return `"EventCategories":["` + strings.Join(categories, `","`) + `"]`
}
