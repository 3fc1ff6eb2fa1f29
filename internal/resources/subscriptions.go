package resources

import (
	"context"
	"errors"
	"net/url"
	"time"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Limits of a subscription.
const (
	defaultWebhookTimeout = octopus.TimeSpan(10 * time.Second)
	maxWebhookTimeout     = octopus.TimeSpan(5 * time.Minute)
	defaultMailPeriod     = octopus.TimeSpan(time.Hour)
	maxMailPeriod         = octopus.TimeSpan(31 * 24 * time.Hour)
)

// Subscriptions say which events are sent where: by mail to teams, or to a webhook.
// How far one has come is the server's to know.
func Subscriptions() *resource.Kind {
	const of = "EventNotificationSubscription."
	filter := func(member, to string) resource.Reference {
		// A filter that lost its last entry would let everything through.
		return resource.Reference{Path: of + "Filter." + member, To: to, OnDelete: resource.Ignore}
	}
	return resource.Declare(resource.Declaration[octopus.Subscription]{
		Name: "subscriptions", ItemType: "Subscription", Prefix: "Subscriptions",
		Permissions: resource.Permissions{View: "SubscriptionView", Create: "SubscriptionCreate", Edit: "SubscriptionEdit", Delete: "SubscriptionDelete"},
		References: []resource.Reference{
			{Path: of + "EmailTeams", To: "teams", OnDelete: resource.Clear},
			{Path: of + "WebhookTeams", To: "teams", OnDelete: resource.Clear},
			filter("Users", "users"), filter("Projects", "projects"), filter("ProjectGroups", "projectgroups"), filter("Environments", "environments"), filter("Tenants", "tenants"),
		},
		Prepare: func(v *octopus.Subscription) {
			n := &v.EventNotificationSubscription
			if v.Type == "" {
				v.Type = octopus.SubscriptionEvents
			}
			if n.EmailPriority == "" {
				n.EmailPriority = octopus.EmailNormal
			}
			if n.WebhookTimeout == 0 {
				n.WebhookTimeout = defaultWebhookTimeout
			}
			if n.EmailFrequencyPeriod == 0 {
				n.EmailFrequencyPeriod = defaultMailPeriod
			}
			if h := n.WebhookHeaderValue; !h.IsSensitive() && h.Value != "" {
				n.WebhookHeaderValue = octopus.Secret(h.Value) // it is a password in all but name
			}
		},
		Check: func(_ context.Context, _ resource.Reader, old, v *octopus.Subscription) error {
			keepCursors(old, v)
			return checkSubscription(v)
		},
	})
}

// keepCursors puts what the server knows in place of what a client sent.
func keepCursors(old, v *octopus.Subscription) {
	var was octopus.EventNotificationSubscription
	if old != nil {
		was = old.EventNotificationSubscription
	}
	n := &v.EventNotificationSubscription
	n.EmailDigestLastProcessed, n.EmailDigestLastProcessedEventAutoID = was.EmailDigestLastProcessed, was.EmailDigestLastProcessedEventAutoID
	n.WebhookLastProcessed, n.WebhookLastProcessedEventAutoID = was.WebhookLastProcessed, was.WebhookLastProcessedEventAutoID
	n.TeamsDigestLastProcessed, n.TeamsDigestLastProcessedEventAutoID = was.TeamsDigestLastProcessed, was.TeamsDigestLastProcessedEventAutoID
}

func checkSubscription(v *octopus.Subscription) error {
	const of = "EventNotificationSubscription."
	n := &v.EventNotificationSubscription
	faults := []error{
		oneOf("Type", &v.Type, octopus.SubscriptionEvents),
		oneOf(of+"EmailPriority", &n.EmailPriority, octopus.EmailLow, octopus.EmailNormal, octopus.EmailHigh),
	}
	if n.WebhookURI != "" {
		at, err := url.Parse(string(n.WebhookURI))
		if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" || at.User != nil {
			faults = append(faults, fault.InvalidField(of+"WebhookURI", "%sWebhookURI is '%.200s'; give an address such as https://hooks.example.com/tako, and secrets in the header.", of, n.WebhookURI))
		}
	}
	if n.WebhookTimeout < octopus.TimeSpan(time.Second) || n.WebhookTimeout > maxWebhookTimeout {
		faults = append(faults, fault.InvalidField(of+"WebhookTimeout", "%sWebhookTimeout is %s; use a time from 00:00:01 to %s.", of, n.WebhookTimeout, maxWebhookTimeout))
	}
	if n.EmailFrequencyPeriod < octopus.TimeSpan(time.Minute) || n.EmailFrequencyPeriod > maxMailPeriod {
		faults = append(faults, fault.InvalidField(of+"EmailFrequencyPeriod", "%sEmailFrequencyPeriod is %s; use a time from 00:01:00 to %s.", of, n.EmailFrequencyPeriod, maxMailPeriod))
	}
	if n.WebhookHeaderKey == "" && HasText(n.WebhookHeaderValue) {
		faults = append(faults, fault.InvalidField(of+"WebhookHeaderKey", "%sWebhookHeaderKey is empty; name the header that carries the value.", of))
	}
	return errors.Join(faults...)
}
