package resources

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/timetable"
	"github.com/takodeploy/tako/octopus"
)

// Limits of a subscription.
const (
	defaultWebhookTimeout = octopus.TimeSpan(10 * time.Second)
	maxWebhookTimeout     = octopus.TimeSpan(5 * time.Minute)
	defaultMailPeriod     = octopus.TimeSpan(time.Hour)
	maxMailPeriod         = octopus.TimeSpan(31 * 24 * time.Hour)
)

// SubscriptionKind names the kind of subscriptions.
const SubscriptionKind = "subscriptions"

// The ways in which a subscription is sent, as they are stored.
const (
	ChannelWebhook = "webhook"
	ChannelMail    = "mail"
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
		Name: SubscriptionKind, ItemType: "Subscription", Prefix: "Subscriptions",
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
			return errors.Join(checkSubscription(v), checkAddress(old, v))
		},
		InTx: subscriptionInTx,
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
	if _, err := timetable.Zone(string(n.EmailShowDatesInTimeZoneID)); err != nil {
		faults = append(faults, fault.InvalidField(of+"EmailShowDatesInTimeZoneId", "%sEmailShowDatesInTimeZoneId names no time zone: %s.", of, err))
	}
	if key := string(n.WebhookHeaderKey); key != "" && !headerName(key) {
		faults = append(faults, fault.InvalidField(of+"WebhookHeaderKey", "%sWebhookHeaderKey is '%.100s', which cannot be set; use a name of letters, digits and hyphens such as X-Token.", of, key))
	}
	if n.WebhookHeaderKey == "" && HasText(n.WebhookHeaderValue) {
		faults = append(faults, fault.InvalidField(of+"WebhookHeaderKey", "%sWebhookHeaderKey is empty; name the header that carries the value.", of))
	}
	return errors.Join(faults...)
}

// checkAddress refuses to send a header's value that nobody has entered again to another
// address: it would tell it to whoever may edit the subscription.
func checkAddress(old, v *octopus.Subscription) error {
	if old == nil || old.EventNotificationSubscription.WebhookURI == v.EventNotificationSubscription.WebhookURI {
		return nil
	}
	is := v.EventNotificationSubscription.WebhookHeaderValue
	if !HasText(old.EventNotificationSubscription.WebhookHeaderValue) || !HasText(is) || is.Sensitive != nil && is.Sensitive.NewValue != nil {
		return nil
	}
	const field = "EventNotificationSubscription.WebhookHeaderValue"
	return fault.InvalidField(field, "WebhookURI has changed, and the value of the header is not sent to another address unseen; enter %s again, or take it out.", field)
}

// headerName reports whether a header of a webhook may have a name: a token, and none
// that says how the message itself is to be read.
func headerName(key string) bool {
	for _, r := range key {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-_.!#$%&'*+^`|~", r) {
			return false
		}
	}
	reserved := []string{"host", "content-length", "content-type", "transfer-encoding", "connection", "te", "trailer", "upgrade"}
	return len(key) <= 200 && !slices.Contains(reserved, strings.ToLower(key)) && !strings.HasPrefix(strings.ToLower(key), "x-tako-")
}

// subscriptionInTx keeps the senders of a subscription in step with it. One that
// begins, or begins again, does so with what happens from then on. Nothing is sent
// that whoever changed it last may not see.
func subscriptionInTx(ctx context.Context, w resource.Writer, c resource.Change[octopus.Subscription]) error {
	tx := w.Tx()
	if c.New == nil {
		if _, err := tx.Exec(ctx, `DELETE FROM subscription_delivery WHERE subscription = ?`, c.ID); err != nil {
			return fmt.Errorf("forget what %s has sent: %w", c.ID, err)
		}
	}
	for _, channel := range []string{ChannelWebhook, ChannelMail} {
		if err := keepSender(ctx, tx, c.ID, channel, c.New); err != nil {
			return fmt.Errorf("keep the sender of %s: %w", c.ID, err)
		}
	}
	return nil
}

func keepSender(ctx context.Context, tx *db.Tx, id, channel string, v *octopus.Subscription) error {
	now := tx.Now()
	due := now
	wanted := v != nil && !v.IsDisabled
	if wanted && channel == ChannelWebhook {
		wanted = v.EventNotificationSubscription.WebhookURI != ""
	}
	if wanted && channel == ChannelMail {
		wanted = len(v.EventNotificationSubscription.EmailTeams) > 0
		due = now.Add(time.Duration(v.EventNotificationSubscription.EmailFrequencyPeriod))
	}
	if !wanted {
		_, err := tx.Exec(ctx, `DELETE FROM subscription_sender WHERE subscription = ? AND channel = ?`, id, channel)
		return err
	}
	owner := db.ActorFrom(ctx).UserID
	_, err := tx.Exec(ctx, `INSERT INTO subscription_sender (subscription, channel, owner, xact, event, floor, moved, due, lease, token, attempts, progress)
		VALUES (?, ?, ?, 0, (SELECT COALESCE(max(e.id), 0) FROM events e), 0, ?, ?, 0, '', 0, '')
		ON CONFLICT (subscription, channel) DO UPDATE SET owner = excluded.owner, attempts = 0,
			due = CASE WHEN subscription_sender.due < excluded.due AND subscription_sender.attempts = 0 THEN subscription_sender.due ELSE excluded.due END`,
		id, channel, owner, db.Micros(now), db.Micros(due))
	return err
}
