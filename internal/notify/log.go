package notify

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/events"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/octopus"
)

// Outcomes of attempts.
const (
	delivered = "Delivered"
	failed    = "Failed"
	givenUp   = "GivenUp"
)

const (
	// Kept is how many attempts are remembered of each subscription.
	Kept = 1000
	// maxMessage bounds what is remembered of a failure, in bytes.
	maxMessage = 500
	// deliveryPrefix begins the ids of attempts.
	deliveryPrefix = "SubscriptionDeliveries"
)

// delivery is an attempt to send something.
type delivery struct {
	id          string // the same for all attempts
	first, last int64
	at          time.Time
	took        time.Duration
	attempt     int64
	outcome     string
	status      int64
	recipient   string
	message     string
}

func (d *delivery) write(ctx context.Context, tx *db.Tx, k key) error {
	message := strings.ToValidUTF8(d.message[:min(len(d.message), maxMessage)], "")
	_, err := tx.Exec(ctx, `INSERT INTO subscription_delivery (subscription, channel, delivery, first, last, at, took, attempt, outcome, status, recipient, message)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, k.subscription, k.channel, d.id, d.first, d.last, db.Micros(d.at), d.took.Microseconds(), d.attempt, d.outcome, d.status, d.recipient, message)
	if err != nil {
		return fmt.Errorf("note what was sent: %w", err)
	}
	_, err = tx.Exec(ctx, `DELETE FROM subscription_delivery WHERE subscription = ? AND id <= COALESCE((SELECT d.id FROM subscription_delivery d
		WHERE d.subscription = ? ORDER BY d.id DESC LIMIT 1 OFFSET ?), 0)`, k.subscription, k.subscription, int64(Kept))
	if err != nil {
		return fmt.Errorf("forget what was sent long ago: %w", err)
	}
	return nil
}

// Deliveries lists the attempts to send a subscription, the newest first, and how many
// are remembered. Whether the caller may see the subscription is for the caller to check.
func Deliveries(ctx context.Context, tx *db.Tx, subscription string, page ident.Page) ([]octopus.SubscriptionDelivery, int64, error) {
	var total int64
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM subscription_delivery d WHERE d.subscription = ?`, subscription).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count deliveries: %w", err)
	}
	page = page.Clamp()
	rows, err := tx.Query(ctx, `SELECT d.id, d.channel, d.delivery, d.first, d.last, d.at, d.took, d.attempt, d.outcome, d.status, d.recipient, d.message
		FROM subscription_delivery d WHERE d.subscription = ? ORDER BY d.id DESC LIMIT ? OFFSET ?`, subscription, page.Take, page.Skip)
	if err != nil {
		return nil, 0, fmt.Errorf("read deliveries: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	out := []octopus.SubscriptionDelivery{}
	for rows.Next() {
		d := octopus.SubscriptionDelivery{SubscriptionID: subscription}
		var id, first, last, at, took int64
		if err := rows.Scan(&id, &d.Channel, &d.DeliveryID, &first, &last, &at, &took, &d.Attempt, &d.Outcome, &d.Status, &d.Recipient, &d.Message); err != nil {
			return nil, 0, fmt.Errorf("read deliveries: %w", err)
		}
		d.ID, d.FirstEventID, d.LastEventID = ident.ID(deliveryPrefix, id), ident.ID(events.Prefix, first), ident.ID(events.Prefix, last)
		d.Occurred, d.Duration = octopus.NewTime(db.Time(at)), octopus.TimeSpan(time.Duration(took)*time.Microsecond)
		d.Channel = map[string]string{resources.ChannelWebhook: "Webhook", resources.ChannelMail: "Email"}[d.Channel]
		out = append(out, d)
	}
	return out, total, rows.Err()
}
