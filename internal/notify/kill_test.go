package notify_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
)

// TestKilledAtEachEdge: a server that dies before a receiver has answered, after it
// has and before that is stored, or right after, leaves nothing unsent; only what it
// was about to store comes once more, with the same id.
func TestKilledAtEachEdge(t *testing.T) {
	t.Parallel()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			url := dbtest.URL(t, dialect)
			d, err := db.Open(t.Context(), url, db.Options{Log: dbtest.Log(t)})
			check(t, err)
			t.Cleanup(func() { check(t, d.Close()) })
			w := newWorld(t, d)
			r := newReceiver(t)
			id := w.subscribe(actiontest.Admin, "All", r.hook(only("DeploymentFailed")))
			var want []string
			for i := range 8 {
				want = append(want, fmt.Sprint(i))
			}
			w.happens("DeploymentFailed", want...)
			w.settled()
			once := t.TempDir()
			edges := []string{"webhook-claimed", "webhook-sent", "webhook-committed"}
			for _, edge := range edges {
				// The other server goes on while one has died.
				w.sql(`UPDATE subscription_sender SET lease = 0`)
				if state := w.dies(t, url, once, edge); !strings.Contains(state, "killed") {
					t.Fatalf("at %s a server ended as %s", edge, state)
				}
			}
			// A dead server's lease runs out, and another one goes on.
			if n := w.count(`SELECT count(*) FROM subscription_sender WHERE lease > 0`); n != 1 {
				t.Fatalf("%d leases are left", n)
			}
			w.once()
			if n := len(r.posts()); n >= len(want) {
				t.Errorf("%d events came although the row is taken", n)
			}
			w.sql(`UPDATE subscription_sender SET lease = 0`)
			w.once()
			got := r.messages()
			if unique := slices.Compact(slices.Clone(got)); !slices.Equal(unique, want) || len(got) != len(want)+1 {
				t.Errorf("they came as %q", got)
			}
			ids := map[string]string{}
			for _, p := range r.posts() {
				message, delivery := p.payload.Payload.Event.Message, p.header.Get("X-Tako-Delivery")
				if ids[message] != "" && ids[message] != delivery {
					t.Errorf("%s came as %s and %s", message, ids[message], delivery)
				}
				ids[message] = delivery
			}
			if n := w.count(`SELECT count(*) FROM subscription_delivery WHERE subscription = ?`, id); n != len(want) {
				t.Errorf("%d deliveries are noted", n)
			}
		})
	}
}

// dies runs another server that kills itself at an edge, and tells how it ended.
func (w *world) dies(t *testing.T, url, once, edge string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+url, keyEnv+"="+w.KeyDir, failpoint.Env+"="+edge+":kill", failpoint.EnvOnce+"="+once)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	check(t, err)
	defer func() { _ = in.Close() }() // it may be dead
	check(t, cmd.Start())
	_ = cmd.Wait() // the state says more
	return cmd.ProcessState.String()
}

// TestDigestKilledAtEachEdge: a digest that was begun is sent by whoever goes on, with
// the same events to the same people; one that may have come already has the same id.
func TestDigestKilledAtEachEdge(t *testing.T) {
	t.Parallel()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			url := dbtest.URL(t, dialect)
			d, err := db.Open(t.Context(), url, db.Options{Log: dbtest.Log(t)})
			check(t, err)
			t.Cleanup(func() { check(t, d.Close()) })
			w := newWorld(t, d)
			office := newPostOffice(t)
			w.Must(http.StatusOK, http.MethodPut, "/api/smtpconfiguration", fmt.Sprintf(`{"SmtpHost":"127.0.0.1","SmtpPort":%d,"SendEmailFrom":"tako@example.com"}`, office.port))
			admin := w.Get("/api/users/me").JSON()
			admin["EmailAddress"] = "ada@example.com"
			body, err := json.Marshal(admin)
			check(t, err)
			w.Must(http.StatusOK, http.MethodPut, "/api/users/Users-1", string(body))
			w.subscribe(actiontest.Admin, "Digest", `"EmailTeams":["teams-spacemanagers-Spaces-1"],"Filter":{`+only("DeploymentFailed")+`}`)
			w.happens("DeploymentFailed", "one", "two")
			w.settled()
			once := t.TempDir()
			for _, edge := range []string{"digest-claimed", "digest-sent"} {
				w.sql(`UPDATE subscription_sender SET lease = 0, due = 0`)
				if state := w.dies(t, url, once, edge); !strings.Contains(state, "killed") {
					t.Fatalf("at %s a server ended as %s", edge, state)
				}
			}
			w.happens("DeploymentFailed", "three")
			w.sql(`UPDATE subscription_sender SET lease = 0`)
			w.settled()
			if state := w.dies(t, url, once, "digest-committed"); !strings.Contains(state, "killed") {
				t.Fatalf("a server ended as %s", state)
			}
			w.send()
			letters := office.letters("ada@example.com")
			if len(letters) != 3 || letters[0].header.Get("Message-Id") != letters[1].header.Get("Message-Id") || letters[0].header.Get("Message-Id") == letters[2].header.Get("Message-Id") {
				t.Fatalf("%d letters came: %+v", len(letters), letters)
			}
			for i, want := range []string{"one two", "one two", "three"} {
				var has []string
				for _, text := range []string{"one", "two", "three"} {
					if strings.Contains(letters[i].body, "DeploymentFailed  "+text) {
						has = append(has, text)
					}
				}
				if got := strings.Join(has, " "); got != want {
					t.Errorf("letter %d has %q, want %q", i, got, want)
				}
			}
		})
	}
}
