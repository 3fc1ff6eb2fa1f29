package test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/octopus"
)

// silence is how long the test listens at least, and silenceSoak how long its long form
// provokes and listens, TAKO_TEST_SOAK.
const (
	silence     = time.Minute
	silenceSoak = 10 * time.Minute
)

// TestCloneIsSilent runs a test instance in a network of its own, in which every packet is
// counted and captured. First it is as it was made, with everything due that there is. Then
// everything is enabled again that was disabled, so that nothing but the guard of the process
// is in the way of webhooks, e-mails, feeds and issuers of tokens: each of them must try, and
// not a packet may leave.
func TestCloneIsSilent(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			c, into := copyOf(t, dialect)
			l := alone(t, c)
			b, _, _ := newBusy(t, dialect)
			mustOnServer(t, b.Process, "", append([]string{"instance", "clone"}, into...)...)
			c.Start()
			d := openDatabase(t, c)
			due := allDue(t, d) // while it runs, which is as if its clock had been moved
			eventually(t, "everything that is due was looked at", func() bool { return dueNow(t, d) == 0 })
			t.Logf("%d schedules were due in the copy as it was made", due)
			l.quiet(t, "as it was made")
			began := time.Now()
			b.enableAll(t, c)
			rounds := 0
			for ok := true; ok; ok = os.Getenv("TAKO_TEST_SOAK") != "" && time.Since(began) < silenceSoak {
				rounds++
				b.provoke(t, c, d, rounds)
				l.quiet(t, fmt.Sprintf("round %d", rounds))
			}
			l.listen(t, began.Add(silence))
			l.silent(t)
			t.Logf("%d rounds in %s, in which no packet left", rounds, time.Since(began).Round(time.Second))
		})
	}
}

// allDue makes every schedule of a server due, and counts them.
func allDue(t *testing.T, d *db.DB) (n int64) {
	t.Helper()
	at := db.Micros(time.Now().Add(-time.Second))
	err := d.Write(t.Context(), func(tx *db.Tx) (err error) {
		n, err = tx.Exec(t.Context(), `UPDATE due SET at = ?`, at)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// dueNow counts the schedules whose time has come and that have not had their effect.
func dueNow(t *testing.T, d *db.DB) (n int64) {
	t.Helper()
	now := db.Micros(time.Now())
	err := d.Read(t.Context(), func(tx *db.Tx) error {
		return tx.QueryRow(t.Context(), `SELECT count(*) FROM due u WHERE u.at <= ? OR u.pending > 0`, now).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// enableAll undoes in a copy what disarmed it.
func (b *busy) enableAll(t *testing.T, c *apptest.Process) {
	t.Helper()
	for _, path := range []string{"/projecttriggers/" + b.trigger, "/subscriptions/" + b.hook, "/machines", "/workers"} {
		path = space + path
		if strings.HasSuffix(path, "s") { // the only one of the list
			list := apptest.Get[octopus.Page[struct{ ID string }]](t, c.Client, path)
			path += "/" + list.Items[0].ID
		}
		doc := apptest.Get[map[string]any](t, c.Client, path)
		doc["IsDisabled"] = false
		c.Must(t, http.MethodPut, path, doc, nil)
	}
	smtp := apptest.Get[map[string]any](t, c.Client, "/api/smtpconfiguration")
	smtp["SmtpHost"], smtp["SendEmailFrom"] = elsewhere, "tako@example.com"
	c.Must(t, http.MethodPut, "/api/smtpconfiguration", smtp, nil)
	c.Must(t, http.MethodPost, "/api/serviceaccounts/"+b.robot+"/oidcidentities/create/v1", map[string]string{"Name": "CI", "Issuer": "https://" + elsewhere, "Subject": "repo:acme/*"}, nil)
}

// provoke has everything in a copy speak that can, and waits until each has tried.
func (b *busy) provoke(t *testing.T, c *apptest.Process, d *db.DB, round int) {
	t.Helper()
	// By address and by name: a lookup is a packet too.
	for i, host := range []string{elsewhere, "hooks.example.com"} {
		sub := apptest.Get[map[string]any](t, c.Client, space+"/subscriptions/"+b.hook)
		sub["EventNotificationSubscription"].(map[string]any)["WebhookURI"] = "http://" + host + "/hook"
		c.Must(t, http.MethodPut, space+"/subscriptions/"+b.hook, sub, nil)
		failed := func() int64 {
			return apptest.Get[octopus.Page[struct{ ID string }]](t, c.Client, space+"/subscriptions/"+b.hook+"/deliveries?take=1").TotalResults
		}
		before := failed()
		apptest.Post(t, c.Client, "/api/accounts", account(fmt.Sprintf("event-%d-%d", round, i), "x"))
		retryNow(t, d)
		eventually(t, "the webhook has tried "+host, func() bool { return failed() > before })

		feed := apptest.Get[map[string]any](t, c.Client, space+"/feeds/"+b.feed)
		feed["FeedUri"] = "http://" + host + "/v3/index.json"
		c.Must(t, http.MethodPut, space+"/feeds/"+b.feed, feed, nil)
		inVain(t, c, http.MethodGet, space+"/feeds/"+b.feed+"/packages/search?term=a", nil)
	}
	part := func(text string) string { return base64.RawURLEncoding.EncodeToString([]byte(text)) }
	token := part(`{"alg":"RS256","kid":"1"}`) + "." + part(fmt.Sprintf(`{"iss":"https://%s","sub":"repo:acme/web","aud":%q,"exp":%d,"iat":%d}`, elsewhere, b.robot, time.Now().Add(time.Hour).Unix(), time.Now().Unix())) + "." + part("signature")
	inVain(t, c, http.MethodPost, "/token/v1", map[string]string{
		"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token_type": "urn:ietf:params:oauth:token-type:jwt", "audience": b.robot, "subject_token": token,
	})
	// A step of the server itself, which needs no worker.
	mail := octopus.Step{Name: "Mail", Actions: octopus.List[octopus.Action]{{Name: "Mail", ActionType: octopus.ActionEmail, Properties: octopus.Properties{
		octopus.PropEmailTo: octopus.Plain("ops@example.com"), octopus.PropEmailSubject: octopus.Plain("s"), octopus.PropEmailBody: octopus.Plain("b"),
	}}}}
	model := *b.model
	model.Client = c.Client
	sends := model.another(t, fmt.Sprintf("Mail %d", round), mail)
	_, version := sends.release(t, nil)
	if doc := ended(t, c.Client, sends.deploy(t, version, sends.Dev)); doc.State != octopus.TaskFailed {
		t.Errorf("the deployment that sends an e-mail is %s", doc.State)
	}
	// A script on a target, which the server calls again and again.
	remote := script("Remote", "echo never")
	remote.Properties = octopus.Properties{octopus.PropTargetRoles: octopus.Plain("web")}
	remote.Actions[0].Properties[octopus.PropRunOnServer] = octopus.Plain("False")
	calls := model.another(t, fmt.Sprintf("Remote %d", round), remote)
	_, version = calls.release(t, nil)
	called := strings.Count(c.Output(), egress.ErrQuarantined.Error())
	task := calls.deploy(t, version, calls.Dev)
	eventually(t, "the target was called", func() bool { return strings.Count(c.Output(), egress.ErrQuarantined.Error()) > called })
	c.Must(t, http.MethodPost, "/api/tasks/"+task+"/cancel", nil, nil)
	ended(t, c.Client, task)
	// The schedules of triggers and of the server, all at once.
	if allDue(t, d) < 2 {
		t.Error("the trigger has no schedule, so it was not enabled")
	}
	eventually(t, "everything that is due was looked at", func() bool { return dueNow(t, d) == 0 })
}

// retryNow takes the pause of the webhook away, after which it would try again.
func retryNow(t *testing.T, d *db.DB) {
	t.Helper()
	err := d.Write(t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE subscription_sender SET due = 0, lease = 0`)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// inVain sends what the server cannot answer without others.
func inVain(t *testing.T, c *apptest.Process, method, path string, body any) {
	t.Helper()
	resp, err := c.Do(t.Context(), method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if resp.Status/100 == 2 || resp.Status == http.StatusUnauthorized || resp.Status == http.StatusNotFound {
		t.Errorf("%s %s answers %d %.300s, as if somebody had been asked", method, path, resp.Status, resp.Body)
	}
}
