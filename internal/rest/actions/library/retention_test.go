package library_test

import (
	"testing"

	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

// TestRetentionPolicies: a space has one of each type from the first moment on.
func TestRetentionPolicies(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *actiontest.World) {
		var page octopus.Page[octopus.RetentionPolicy]
		w.Get("/api/retentionpolicies").Into(&page)
		if len(page.Items) != 3 || page.Items[0].Strategy != octopus.RetentionForever {
			t.Errorf("there are %+v", page.Items)
		}
		var one octopus.RetentionPolicy
		w.Get("/api/retentionpolicies?RetentionType=lifecycletentacle").Into(&one)
		if one.RetentionType != octopus.RetentionLifecycleTentacle || one.ID == "" {
			t.Errorf("of the type there is %+v", one)
		}
		at := "/api/retentionpolicies/" + one.ID
		for range 2 { // to make the document, and to replace it
			w.Must(200, "PUT", at, `{"Strategy":"Count","Unit":"Items","QuantityToKeep":3,"RetentionType":"RunbookRetention"}`).Into(&one)
			if one.Strategy != octopus.RetentionCount || one.QuantityToKeep != 3 || one.RetentionType != octopus.RetentionLifecycleTentacle {
				t.Errorf("changed to %+v", one)
			}
		}
		w.Get(at).Into(&one)
		if one.QuantityToKeep != 3 {
			t.Errorf("read: %+v", one)
		}
		w.Refused(400, "PUT", at, `{"Strategy":"Count"}`, "QuantityToKeep is 0")
		w.Refused(400, "PUT", at, `{"Strategy":"Default"}`, "Strategy is 'Default'; use Forever, Count")
		w.Refused(400, "GET", "/api/retentionpolicies?RetentionType=No", "", "RetentionType is 'No'")
		w.Refused(404, "GET", "/api/retentionpolicies/RetentionPolicies-9", "", "RetentionPolicies-9")
		reader := w.Person(actiontest.Role{Space: home, Permissions: []string{"LifecycleView"}})
		w.MustAs(reader, 200, "GET", at, "")
		w.MustAs(reader, 403, "PUT", at, `{"Strategy":"Forever"}`)
	})
}

// TestFreezesAndSubscriptions: what no freeze and no subscription can be is refused.
func TestFreezesAndSubscriptions(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *actiontest.World) {
		const times = `"Start":"2026-12-24T00:00:00Z","End":"2026-12-27T00:00:00Z"`
		id := w.Create("/api/deploymentfreezes", `{"Name":"Christmas",`+times+`}`)
		var list struct {
			DeploymentFreezes []octopus.DeploymentFreeze
			Count             int
		}
		w.Get("/api/deploymentfreezes?partialName=christ").Into(&list)
		if list.Count != 1 || list.DeploymentFreezes[0].ID != id {
			t.Errorf("listed: %+v", list)
		}
		for body, says := range map[string]string{
			`"End":"2026-12-27T00:00:00Z"`:                                          "Start is empty",
			`"Start":"2026-12-24T00:00:00Z","End":"2026-12-23T00:00:00Z"`:           "not after Start",
			times + `,"RecurringSchedule":{"Type":"Hourly"}`:                        "RecurringSchedule.Type is 'Hourly'",
			times + `,"RecurringSchedule":{"Type":"Daily","EndType":"OnDate"}`:      "EndOnDate is empty",
			times + `,"ProjectEnvironmentScope":{"Projects-99":["Environments-1"]}`: "Projects-99",
		} {
			w.Refused(400, "POST", "/api/deploymentfreezes", `{"Name":"x",`+body+`}`, says)
		}
		for body, says := range map[string]string{
			`"WebhookURI":"ftp://x"`:            "WebhookURI is 'ftp://x'",
			`"WebhookTimeout":"01:00:00"`:       "WebhookTimeout is 01:00:00",
			`"EmailFrequencyPeriod":"00:00:01"`: "EmailFrequencyPeriod is 00:00:01",
			`"WebhookHeaderValue":"v"`:          "WebhookHeaderKey is empty",
			`"EmailPriority":"Odd"`:             "EmailPriority is 'Odd'",
			`"EmailTeams":["Teams-99"]`:         "Teams-99",
		} {
			w.Refused(400, "POST", "/api/subscriptions", `{"Name":"x","EventNotificationSubscription":{`+body+`}}`, says)
		}
		sub := w.Create("/api/subscriptions", `{"Name":"x","EventNotificationSubscription":{"WebhookHeaderKey":"K","WebhookHeaderValue":"hush","WebhookLastProcessedEventAutoId":7}}`)
		var s octopus.Subscription
		w.Get("/api/subscriptions/" + sub).Into(&s)
		if n := s.EventNotificationSubscription; !n.WebhookHeaderValue.IsSensitive() || n.WebhookHeaderValue.Sensitive.NewValue != nil || n.WebhookLastProcessedEventAutoID != nil {
			t.Errorf("stored: %+v", n)
		}
		// The value goes to no other address by itself, not even by way of none.
		put := func(address, value string) string {
			return `{"Name":"x","EventNotificationSubscription":{"WebhookURI":"` + address + `","WebhookHeaderKey":"K","WebhookHeaderValue":` + value + `}}`
		}
		const kept, again = `{"HasValue":true,"NewValue":null}`, `{"HasValue":true,"NewValue":"hush"}`
		w.Must(200, "PUT", "/api/subscriptions/"+sub, put("https://a.example.com", again))
		w.Must(200, "PUT", "/api/subscriptions/"+sub, put("https://a.example.com", kept))
		for _, other := range []string{"https://b.example.com", "http://a.example.com", ""} {
			w.Refused(400, "PUT", "/api/subscriptions/"+sub, put(other, kept), "enter EventNotificationSubscription.WebhookHeaderValue again")
		}
		w.Must(200, "PUT", "/api/subscriptions/"+sub, put("https://b.example.com", again))
		w.Must(200, "PUT", "/api/subscriptions/"+sub, put("https://c.example.com", `null`))
	})
}
