package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/events"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/octopus"
)

// Headers of what is posted to webhooks.
const (
	// HeaderDelivery is the same whenever the same event is sent again.
	HeaderDelivery = "X-Tako-Delivery"
	// HeaderSignature has the time of the attempt, and the HMAC-SHA-256 of that time,
	// a dot and the body under the subscription's secret: "t=1767225600,v1=<hex>".
	HeaderSignature = "X-Tako-Signature"
)

// AllowWebhook reports whether webhooks may connect to an address: any that can be the
// address of another machine. Those of the server's own host, and link-local ones
// (where clouds serve credentials), may not.
func AllowWebhook(at netip.Addr) bool {
	at = at.Unmap()
	// 64:ff9b::/96 and 2002::/16 have addresses of the other kind in them.
	if embedded, ok := inside(at); ok {
		return AllowWebhook(embedded)
	}
	return at.IsValid() && !at.IsUnspecified() && !at.IsLoopback() && !at.IsLinkLocalUnicast() && !at.IsLinkLocalMulticast() &&
		!at.IsInterfaceLocalMulticast() && !at.IsMulticast() && at != netip.AddrFrom4([4]byte{255, 255, 255, 255}) && !(at.Is4() && at.As4()[0] == 0) &&
		at != netip.MustParseAddr("fd00:ec2::254")
}

// inside is the IPv4 address that an IPv6 address stands for.
func inside(at netip.Addr) (netip.Addr, bool) {
	if !at.Is6() {
		return at, false
	}
	b := at.As16()
	switch {
	case bytes.Equal(b[:12], []byte{0, 0x64, 0xff, 0x9b, 0, 0, 0, 0, 0, 0, 0, 0}):
		return netip.AddrFrom4([4]byte(b[12:16])), true
	case b[0] == 0x20 && b[1] == 0x02:
		return netip.AddrFrom4([4]byte(b[2:6])), true
	}
	return at, false
}

// errAddress says that a webhook's host is at an address that it must not be at.
var errAddress = errors.New("its address is one that webhooks must not connect to: the server's own host, or link-local")

// newClient makes the client for webhooks. The address is looked at once it is known
// to which one a connection goes, so that no name leads elsewhere; redirections are
// answers like any other, and the environment's proxies are not used.
func newClient(allow func(netip.Addr) bool) *http.Client {
	dial := egress.Dialer(net.Dialer{
		Timeout: 10 * time.Second,
		Control: func(_, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil || !allow(at.Addr().WithZone("")) {
				return errAddress
			}
			return nil
		},
	})
	return &http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext: dial, TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10,
			MaxIdleConnsPerHost: 2, MaxIdleConns: 2 * senders, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
		},
	}
}

// webhook posts the events that a row has to send, one after another, until one fails
// or others should have their turn.
func (s *Service) webhook(ctx context.Context, r *row) error {
	claimed := false
	for range burst {
		shown, open, b, now, err := s.batch(ctx, r)
		if err != nil {
			return err
		}
		if len(b.found) == 0 && !b.more && (claimed || b.end == r.at || now.Sub(db.Time(r.moved)) < settle) {
			// Not worth a write of its own: the next look goes through the same few events.
			return s.rest(ctx, r, b.end, claimed, now)
		}
		if !claimed {
			if err := s.claim(ctx, r); err != nil {
				return err
			}
			claimed = true
			if err := failpoint.Hit("webhook-claimed"); err != nil {
				return err
			}
			continue // with the row as it is
		}
		id := uuid.NewString()
		for i, f := range b.found {
			payload := octopus.WebhookPayload{Timestamp: octopus.NewTime(now), EventType: "SubscriptionPayload", Payload: s.payload(shown, f.event)}
			p := &payload.Payload
			p.BatchProcessingDate, p.BatchID, p.TotalEventsInBatch, p.EventNumberInBatch = octopus.NewTime(now), id, len(b.found), i+1
			if ok, err := s.one(ctx, r, open, f, &payload); err != nil || !ok {
				return err
			}
		}
		if r.at == b.end {
			continue
		}
		if now, err = s.now(ctx); err != nil {
			return err
		}
		if err := s.advance(ctx, r, row{at: b.end, due: r.due}, held(now), nil); err != nil {
			return err
		}
	}
	now, err := s.now(ctx)
	if err != nil {
		return err
	}
	return s.rest(ctx, r, r.at, claimed, now)
}

// rest gives a row back that this server has taken, at an event up to which there is
// nothing more to send.
func (s *Service) rest(ctx context.Context, r *row, at int64, claimed bool, now time.Time) error {
	if !claimed {
		return nil
	}
	return s.advance(ctx, r, row{at: at, due: db.Micros(now)}, time.UnixMicro(0), nil)
}

// batch reads a subscription and what it has to send next.
func (s *Service) batch(ctx context.Context, r *row) (shown, open *octopus.Subscription, b *batch, now time.Time, err error) {
	err = s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		now = tx.Now()
		if shown, open, err = s.subscription(ctx, tx, r.subscription); err != nil {
			return err
		}
		// Whoever has changed the subscription meanwhile is the one who counts.
		err := tx.QueryRow(ctx, `SELECT s.owner FROM subscription_sender s WHERE s.subscription = ? AND s.channel = ?`, r.subscription, r.channel).Scan(&r.owner)
		if errors.Is(err, sql.ErrNoRows) {
			return errTaken
		}
		if err != nil {
			return fmt.Errorf("read whose %s is: %w", r.subscription, err)
		}
		viewers := make([]viewer, 1, 2)
		if viewers[0], err = s.viewerOf(ctx, tx, r.owner); err != nil {
			return err
		}
		if teams := shown.EventNotificationSubscription.WebhookTeams; len(teams) > 0 {
			together, err := s.teams(ctx, tx, teams)
			if err != nil {
				return err
			}
			viewers = append(viewers, together)
		}
		b, err = s.find(ctx, tx, shown, r.at, viewers...)
		return err
	})
	return shown, open, b, now, err
}

// payload is what is told of an event.
func (s *Service) payload(v *octopus.Subscription, e octopus.Event) octopus.WebhookEventBody {
	e.MessageHTML = html.EscapeString(e.Message)
	out := octopus.WebhookEventBody{Subscription: *v, Event: e}
	if s.cfg.ServerURI != "" {
		out.ServerURI = octopus.NullString(s.cfg.ServerURI)
		out.ServerAuditURI = octopus.NullString(s.audit(string(e.SpaceID), e.ID, e.ID))
	}
	return out
}

// audit is where people see a range of events.
func (s *Service) audit(space, first, last string) string {
	number := func(id string) string { return strings.TrimPrefix(id, events.Prefix+"-") }
	q := url.Values{"fromAutoId": {number(first)}, "toAutoId": {number(last)}}
	if space != "" {
		q.Set("spaces", space)
	}
	return strings.TrimSuffix(s.cfg.ServerURI, "/") + "/api/events?" + q.Encode()
}

// one posts an event and moves the row on; ok is false when it is to be tried again.
func (s *Service) one(ctx context.Context, r *row, v *octopus.Subscription, f found, payload *octopus.WebhookPayload) (ok bool, err error) {
	body, err := json.Marshal(payload)
	if err != nil {
		return false, fmt.Errorf("encode %s: %w", f.event.ID, err)
	}
	d := delivery{id: r.subscription + "/" + f.event.ID, first: f.at, last: f.at, attempt: r.attempts + 1}
	began := time.Now()
	d.status, err = s.post(ctx, v, d.id, payload.Timestamp.Time, body)
	d.took = time.Since(began)
	if ctx.Err() != nil {
		return false, ctx.Err() // the answer was not waited for: whoever comes next sends it again
	}
	if err := failpoint.Hit("webhook-sent"); err != nil {
		return false, err
	}
	now, errNow := s.now(ctx)
	if errNow != nil {
		return false, errNow
	}
	d.at = now
	to, until := row{at: f.at, due: r.due}, held(now)
	d.outcome = delivered
	if err != nil {
		d.outcome, d.message = failed, err.Error()
		// The row stands on what failed the last time.
		to.at, to.attempts = r.at, r.attempts+1
		if now.Sub(f.event.Occurred.Time) > GiveUp {
			d.outcome, to.at = givenUp, f.at
		}
		to.due, until = db.Micros(now.Add(pause(to.attempts))), time.UnixMicro(0)
	}
	if err := s.advance(ctx, r, to, until, []delivery{d}); err != nil {
		return false, err
	}
	return d.outcome == delivered, failpoint.Hit("webhook-committed")
}

// post sends a body. Its errors have nothing of the answer's body in them.
func (s *Service) post(ctx context.Context, v *octopus.Subscription, id string, at time.Time, body []byte) (status int64, err error) {
	n := &v.EventNotificationSubscription
	ctx, cancel := context.WithTimeout(ctx, n.WebhookTimeout.Duration())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, string(n.WebhookURI), bytes.NewReader(body))
	if err != nil {
		return 0, errors.New("the address cannot be used")
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("User-Agent", "Tako")
	req.Header.Set(HeaderDelivery, id)
	if secret := n.WebhookSecret.NewValue; secret != nil && *secret != "" {
		req.Header.Set(HeaderSignature, Sign(*secret, at, body))
	}
	if key := string(n.WebhookHeaderKey); key != "" {
		value := n.WebhookHeaderValue.Value
		if sealed := n.WebhookHeaderValue.Sensitive; sealed != nil && sealed.NewValue != nil {
			value = *sealed.NewValue
		}
		if strings.ContainsAny(value, "\r\n\x00") {
			return 0, errors.New("the value of the header has a line break in it")
		}
		req.Header.Set(key, value)
	}
	resp, err := s.client.Do(req)
	switch {
	case errors.Is(err, errAddress):
		return 0, errAddress
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return 0, fmt.Errorf("there was no answer within %s", n.WebhookTimeout)
	case err != nil:
		return 0, fmt.Errorf("there was no answer: %w", plain(err))
	}
	defer func() { _ = resp.Body.Close() }()                      // nothing of it is used
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 16<<10)) // so that the connection can serve again
	if resp.StatusCode < 200 || resp.StatusCode > 299 {
		return int64(resp.StatusCode), fmt.Errorf("the answer was %d %s", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return int64(resp.StatusCode), nil
}

// plain takes the address out of an error of the client: it may have a secret in it.
func plain(err error) error {
	var at *url.Error
	if errors.As(err, &at) {
		return at.Err
	}
	return err
}

// Sign makes the signature of a body that is sent at a time.
func Sign(secret string, at time.Time, body []byte) string {
	stamp := strconv.FormatInt(at.Unix(), 10)
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(stamp + "."))
	mac.Write(body)
	return "t=" + stamp + ",v1=" + hex.EncodeToString(mac.Sum(nil))
}
