package notify_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/notify"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

// TestWebhook: what is posted, and what is told of it.
func TestWebhook(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		r := newReceiver(t)
		w.happens("DeploymentFailed", "before")
		id := w.subscribe(actiontest.Admin, "Failures", r.hook(only("DeploymentFailed"))+
			`,"WebhookHeaderKey":"X-Token","WebhookHeaderValue":"hunter2","WebhookSecret":{"HasValue":true,"NewValue":"signing"}`)
		w.happens("DeploymentSucceeded", "fine")
		w.happens("DeploymentFailed", "one", "two")
		w.send()
		w.send()
		if diff := cmp.Diff([]string{"one", "two"}, r.messages()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		p := r.posts()[1]
		body := p.payload.Payload
		if p.payload.EventType != "SubscriptionPayload" || time.Since(p.payload.Timestamp.Time).Abs() > time.Hour || body.ServerURI != "https://tako.example.com/" ||
			!strings.HasPrefix(string(body.ServerAuditURI), "https://tako.example.com/api/events?fromAutoId=") || body.Subscription.ID != id || body.Subscription.Name != "Failures" ||
			body.Event.Category != "DeploymentFailed" || body.Event.SpaceID != "Spaces-1" || body.TotalEventsInBatch != 2 || body.EventNumberInBatch != 2 || len(body.BatchID) != 36 {
			t.Errorf("the payload is %s", p.body)
		}
		if got, want := p.header.Get(notify.HeaderSignature), notify.Sign("signing", p.payload.Timestamp.Time, p.body); got != want {
			t.Errorf("the signature is %q, want %q", got, want)
		}
		if got := p.header.Get("X-Token"); got != "hunter2" {
			t.Errorf("the header is %q", got)
		}
		if got := p.header.Get(notify.HeaderDelivery); got != id+"/"+body.Event.ID {
			t.Errorf("the delivery is %q", got)
		}
		log := w.deliveries(id)
		if log.TotalResults != 2 || log.Items[0].DeliveryID != id+"/"+body.Event.ID || log.Items[0].Outcome != "Delivered" || log.Items[0].Status != 200 || log.Items[0].Channel != "Webhook" || log.Items[0].Attempt != 1 {
			t.Errorf("the log has %+v", log.Items)
		}
		for name, text := range map[string]string{
			"payload": string(p.body), "log": string(w.Get("/api/subscriptions/" + id + "/deliveries").Body), "document": string(w.Get("/api/subscriptions/" + id).Body),
		} {
			if strings.Contains(text, "hunter2") || strings.Contains(text, `"signing"`) || strings.Contains(text, "own affair") {
				t.Errorf("the %s has a secret in it: %s", name, text)
			}
		}
		// What happens while it is off is not sent, and what is deleted leaves nothing.
		put := func(disabled bool) {
			w.Must(http.StatusOK, http.MethodPut, "/api/subscriptions/"+id, fmt.Sprintf(`{"Name":"Failures","IsDisabled":%v,"EventNotificationSubscription":{%s}}`, disabled, r.hook(only("DeploymentFailed"))))
		}
		put(true)
		w.happens("DeploymentFailed", "while off")
		w.send()
		put(false)
		w.happens("DeploymentFailed", "three")
		w.send()
		if diff := cmp.Diff([]string{"one", "two", "three"}, r.messages()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		w.Must(http.StatusOK, http.MethodDelete, "/api/subscriptions/"+id, "")
		if n := w.count(`SELECT count(*) FROM subscription_sender`) + w.count(`SELECT count(*) FROM subscription_delivery`); n != 0 {
			t.Errorf("%d rows are left", n)
		}
		for more, says := range map[string]string{
			`"WebhookURI":"https://x.example.com","WebhookHeaderKey":"Host","WebhookHeaderValue":"x"`: "WebhookHeaderKey is 'Host'",
			`"WebhookURI":"https://x.example.com","WebhookHeaderKey":"a b","WebhookHeaderValue":"x"`:  "WebhookHeaderKey is 'a b'",
			`"WebhookURI":"file:///etc/passwd"`:        "WebhookURI is 'file:///etc/passwd'",
			`"EmailShowDatesInTimeZoneId":"Mars/Base"`: "names no time zone",
		} {
			w.Refused(http.StatusBadRequest, http.MethodPost, "/api/subscriptions", `{"Name":"x","EventNotificationSubscription":{`+more+`}}`, says)
		}
	})
}

// TestDeadReceiver: it is tried again after pauses, with the same id and in order; it
// holds up nobody, and what is too old is given up.
func TestDeadReceiver(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		dead, good := newReceiver(t), newReceiver(t)
		dead.answers(http.StatusInternalServerError)
		one := w.subscribe(actiontest.Admin, "Dead", dead.hook(only("DeploymentFailed")))
		w.subscribe(actiontest.Admin, "Good", good.hook(only("DeploymentFailed")))
		w.happens("DeploymentFailed", "one", "two")
		w.once()
		w.once() // not due yet
		if diff := cmp.Diff([]string{"one"}, dead.messages()); diff != "" {
			t.Errorf("the dead one (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"one", "two"}, good.messages()); diff != "" {
			t.Errorf("the good one (-want +got):\n%s", diff)
		}
		w.send()
		dead.answers(http.StatusFound) // a redirection is not followed
		w.send()
		dead.answers(http.StatusNoContent)
		w.send()
		if diff := cmp.Diff([]string{"one", "one", "one", "one", "two"}, dead.messages()); diff != "" {
			t.Errorf("the dead one (-want +got):\n%s", diff)
		}
		posts := dead.posts()
		if a, b := posts[0].header.Get(notify.HeaderDelivery), posts[3].header.Get(notify.HeaderDelivery); a != b {
			t.Errorf("the same event is %q and %q", a, b)
		}
		log := w.deliveries(one).Items
		if diff := cmp.Diff([]string{"Failed", "Failed", "Failed", "Delivered", "Delivered"}, w.outcomes(one)); diff != "" || log[4].Message != "the answer was 500 Internal Server Error" || log[1].Attempt != 4 || log[0].Attempt != 1 {
			t.Errorf("the log is %+v", log)
		}
		dead.answers(http.StatusBadGateway)
		w.happens("DeploymentFailed", "old", "young")
		w.sql(`UPDATE events SET occurred = ? WHERE message = 'old'`, db.Micros(time.Now().Add(-25*time.Hour)))
		w.send()
		w.send()
		dead.answers(http.StatusOK)
		w.send()
		if diff := cmp.Diff([]string{"old", "young", "young"}, dead.messages()[5:]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{"GivenUp", "Failed", "Delivered"}, w.outcomes(one)[5:]); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestSilentReceivers: more receivers that do not answer than there are places for
// such do not keep a good one from its events.
func TestSilentReceivers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		silent, good := newReceiver(t), newReceiver(t)
		silent.hold = make(chan struct{})
		for i := range 12 {
			w.subscribe(actiontest.Admin, fmt.Sprint("Silent ", i), silent.hook(only("DeploymentFailed"))+`,"WebhookTimeout":"00:05:00"`)
		}
		w.subscribe(actiontest.Admin, "Good", good.hook(only("DeploymentFailed")))
		w.sql(`UPDATE subscription_sender SET attempts = 1 WHERE subscription <> (SELECT max(d.id) FROM documents d WHERE d.kind = 'subscriptions' AND d.name = 'good')`)
		w.happens("DeploymentFailed", "one")
		w.settled()
		ended := make(chan error, 1)
		go func() { ended <- w.sender.Once(t.Context()) }()
		await(t, "all places are taken, and the good one has its event", func() bool { return len(good.messages()) == 1 && len(silent.messages()) == 8 })
		close(silent.hold)
		check(t, <-ended)
		if n := len(silent.messages()); n != 8 {
			t.Errorf("%d places were given to those that fail", n)
		}
	})
}

// TestPoint17NoWayAroundPermissions: a webhook gets nothing that whoever set it up may
// not see, whatever teams it names; nor when they lose the right.
func TestPoint17NoWayAroundPermissions(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		r := newReceiver(t)
		project := func(name string) string {
			return w.Create("/api/projects", fmt.Sprintf(`{"Name":%q,"ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`, name))
		}
		mine, other := project("Mine"), project("Other")
		setup := actiontest.Role{Space: resources.DefaultSpace, Permissions: []string{"SubscriptionCreate", "SubscriptionView", "SubscriptionEdit", "TeamView"}}
		sees := func(project string) actiontest.Role {
			return actiontest.Role{Space: resources.DefaultSpace, Permissions: []string{"EventView"}, Scope: octopus.ScopedUserRole{ProjectIDs: octopus.List[string]{project}}}
		}
		blind, half := w.Person(setup), w.Person(setup, sees(mine))
		admins := `,"WebhookTeams":["teams-spacemanagers-Spaces-1"]`
		w.subscribe(blind, "Blind", r.hook(""))
		w.subscribe(blind, "Blind with teams", r.hook("")+admins)
		own := w.subscribe(half, "Half", r.hook("")+admins)
		touch := func(id, name string) {
			w.Must(http.StatusOK, http.MethodPut, "/api/projects/"+id, fmt.Sprintf(`{"Name":%q,"Description":"secret plan","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`, name))
		}
		touch(mine, "Mine")
		touch(other, "Other")
		w.send()
		if diff := cmp.Diff([]string{"Project Mine was changed"}, r.messages()); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
		if body := string(r.posts()[0].body); strings.Contains(body, "secret plan") || r.posts()[0].payload.Payload.Subscription.ID != own {
			t.Errorf("the payload is %s", body)
		}
		// A team that sees less narrows it; the right is asked for each time.
		narrow := w.Create("/api/teams", `{"Name":"Nobody"}`)
		w.MustAs(half, http.StatusOK, http.MethodPut, "/api/subscriptions/"+own, fmt.Sprintf(`{"Name":"Half","EventNotificationSubscription":{%s,"WebhookTeams":[%q]}}`, r.hook(""), narrow))
		touch(mine, "Mine too")
		w.send()
		w.MustAs(half, http.StatusOK, http.MethodPut, "/api/subscriptions/"+own, fmt.Sprintf(`{"Name":"Half","EventNotificationSubscription":{%s}}`, r.hook("")))
		w.sql(`DELETE FROM document_index WHERE kind = 'teams' AND field = 'MemberUserIds'`)
		touch(mine, "Mine again")
		w.send()
		if got := r.messages(); len(got) != 1 {
			t.Errorf("it got %q", got)
		}
	})
}

// TestFilters: each member of a filter by itself.
func TestFilters(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		r := newReceiver(t)
		set := w.Create("/api/tagsets", `{"Name":"Region","Tags":[{"Name":"North","Color":"#333333"}]}`)
		_ = set
		tenant := w.Create("/api/tenants", `{"Name":"Acme","TenantTags":["Region/North"]}`)
		project := w.Create("/api/projects", `{"Name":"Shop","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`)
		env := w.Create("/api/environments", `{"Name":"Dev"}`)
		names := map[string]string{}
		for name, filter := range map[string]string{
			"all": "", "category": only("DeploymentFailed"), "group": `"EventGroups":["Deployment"]`, "project": fmt.Sprintf(`"Projects":[%q]`, project),
			"projectgroup": `"ProjectGroups":["ProjectGroups-1"]`, "environment": fmt.Sprintf(`"Environments":[%q]`, env), "tenant": fmt.Sprintf(`"Tenants":[%q]`, tenant),
			"tag": `"Tags":["region/north"]`, "type": `"DocumentTypes":["Deployments"]`, "user": `"Users":["Users-1"]`, "agent": `"EventAgents":["GoClient"]`,
			"both": only("DeploymentFailed") + fmt.Sprintf(`,"Projects":[%q]`, project),
		} {
			names[w.subscribe(actiontest.Admin, name, r.hook(filter))] = name
		}
		w.sql(`UPDATE subscription_sender SET event = (SELECT max(e.id) FROM events e)`) // nothing of the set-up
		ctx := t.Context()
		check(t, w.DB.Write(ctx, func(tx *db.Tx) error {
			for i, e := range []db.Event{
				{Category: "DeploymentFailed"},
				{Category: "DeploymentSucceeded", ProjectID: project},
				{Category: "DeploymentFailed", ProjectID: project},
				{Category: "TaskQueued", EnvironmentID: env},
				{Category: "TaskQueued", TenantID: tenant},
				{Category: "TaskQueued", DocumentType: "Deployment"},
			} {
				e.SpaceID, e.Message = "Spaces-1", fmt.Sprint(i)
				tx.Event(e)
			}
			tx.Event(db.Event{Category: "TaskQueued", SpaceID: "Spaces-2", Message: "elsewhere"})
			tx.Event(db.Event{Category: "LoginSucceeded", Message: "system"})
			return nil
		}))
		check(t, w.DB.Write(db.WithActor(ctx, db.Actor{UserID: "Users-1", Username: "ada", UserAgent: "go-octopusdeploy/2.0"}), func(tx *db.Tx) error {
			tx.Event(db.Event{Category: "TaskQueued", SpaceID: "Spaces-1", Message: "6"})
			return nil
		}))
		w.send()
		got := map[string]string{}
		for _, p := range r.posts() {
			got[names[p.payload.Payload.Subscription.ID]] += p.payload.Payload.Event.Message
		}
		want := map[string]string{
			"all": "0123456", "category": "02", "group": "012", "project": "12", "projectgroup": "12", "environment": "3", "tenant": "4", "tag": "4", "type": "5", "user": "6", "agent": "6", "both": "2",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestAddresses: the server's own host and where clouds keep credentials are no
// receivers, under whatever name.
func TestAddresses(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]bool{
		"93.184.216.34": true, "10.1.2.3": true, "192.168.1.1": true, "172.16.0.9": true, "100.64.0.1": true, "2606:4700::1111": true, "fd12:3456::1": true, "::ffff:10.0.0.1": true,
		"127.0.0.1": false, "127.9.9.9": false, "::1": false, "::ffff:127.0.0.1": false, "0.0.0.0": false, "0.1.2.3": false, "::": false, "169.254.169.254": false,
		"::ffff:169.254.169.254": false, "fe80::1": false, "fd00:ec2::254": false, "224.0.0.1": false, "255.255.255.255": false, "ff02::1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false,
	} {
		if got := notify.AllowWebhook(netip.MustParseAddr(address)); got != want {
			t.Errorf("%s is allowed: %v", address, got)
		}
	}
	w := newWorld(t, dbtest.Open(t, db.SQLite))
	r := newReceiver(t)
	id := w.subscribe(actiontest.Admin, "Self", strings.Replace(r.hook(only("DeploymentFailed")), "127.0.0.1", "localhost", 1))
	w.happens("DeploymentFailed", "one")
	guarded := w.another(t, "", notify.AllowWebhook)
	check(t, guarded.Once(t.Context()))
	if log := w.deliveries(id).Items; len(r.messages()) != 0 || len(log) != 1 || !strings.Contains(log[0].Message, "must not connect to") {
		t.Errorf("it got %q; the log is %+v", r.messages(), log)
	}
}

// TestTwoServers: however two servers look, each event comes once and in order.
func TestTwoServers(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		r := newReceiver(t)
		id := w.subscribe(actiontest.Admin, "All", r.hook(only("DeploymentFailed")))
		var want []string
		done := make(chan error, 2)
		stop := make(chan struct{})
		for range 2 {
			s := w.another(t, "", everywhere)
			go func() {
				for {
					if err := s.Once(t.Context()); err != nil {
						done <- err
						return
					}
					select {
					case <-stop:
						done <- nil
						return
					default:
					}
				}
			}()
		}
		for i := range 120 {
			text := fmt.Sprintf("%03d", i)
			want = append(want, text)
			w.happens("DeploymentFailed", text)
		}
		await(t, "all events came", func() bool { return len(r.posts()) >= len(want) })
		close(stop)
		for range 2 {
			check(t, <-done)
		}
		if diff := cmp.Diff(want, r.messages()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if n := w.count(`SELECT count(*) FROM subscription_delivery WHERE subscription = ?`, id); n != len(want) {
			t.Errorf("%d deliveries", n)
		}
		if got := r.messages(); !slices.IsSorted(got) {
			t.Errorf("they came as %q", got)
		}
	})
}
