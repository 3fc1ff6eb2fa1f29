// Package notify sends the events of the audit trail to those who have subscribed to
// them: each by itself to a webhook, or several together by mail.
//
// How far a subscription has come is a row of the database. A server that finds
// something to send takes the row for a while, sends it, and only then moves the row
// on, in a transaction that fails if the row was taken by another since. So an event
// is sent at least once, whenever a server dies, and what is sent again has the id
// that it had before.
//
// What is read is bounded, and read from the trail when it can be sent: a receiver
// that does not answer costs a row and nothing else, however long it is silent. It is
// tried again after pauses that grow, and only some of a server's senders try
// receivers that have failed, so that the others are not held up.
//
// Nothing is sent that whoever set the subscription up may not see by themselves, and
// by mail nothing that the recipient may not. Differences are never sent: they are
// parts of documents, for which the permission to see events does not suffice.
package notify

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/events"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/mail"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

const (
	// GiveUp is how old an event may be whose sending fails: one that is older is
	// tried once more and then left out.
	GiveUp = 24 * time.Hour
	// firstPause and longestPause are between the attempts to send the same.
	firstPause, longestPause = 10 * time.Second, time.Hour
	// lease is how long a server may take before another one tries: longer than the
	// longest wait for a receiver's answer.
	lease = 8 * time.Minute
	// window is how many events are looked through at a time.
	window = 50
	// senders is how many subscriptions a server sends at a time, and stubborn how
	// many of these may be such as failed the last time.
	senders, stubborn = 32, 8
	// looked is how many rows one look reads.
	looked = 500
	// settle is how long a subscription that has nothing to send stays where it is
	// while others' events go by.
	settle = time.Minute
	// burst is how many windows are sent before others have their turn.
	burst = 20
)

// Config of a Service.
type Config struct {
	DB    *db.DB
	Store *docstore.Store
	Auth  *auth.Service
	Trail *events.Trail
	Mail  *mail.Service
	Log   *slog.Logger
	// ServerURI is the address that people reach the server at, "" if nobody has said.
	ServerURI string
	// Allow says which addresses webhooks may connect to; AllowWebhook unless set.
	Allow func(netip.Addr) bool
	// Look is how often Run looks for something to send; 1 s unless set.
	Look time.Duration
}

// Service is this server's part in sending. It is safe for concurrent use.
type Service struct {
	cfg    Config
	log    *slog.Logger
	client *http.Client

	mu     sync.Mutex
	busy   map[key]bool // what this server is sending, and whether it had failed
	failed int          // of these
}

// key names a row.
type key struct{ subscription, channel string }

// New makes a service.
func New(cfg Config) *Service {
	s := &Service{cfg: cfg, log: cfg.Log, busy: map[key]bool{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.cfg.Look <= 0 {
		s.cfg.Look = time.Second
	}
	if s.cfg.Allow == nil {
		s.cfg.Allow = AllowWebhook
	}
	s.client = newClient(s.cfg.Allow)
	return s
}

// Run sends what there is to send until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	defer s.client.CloseIdleConnections()
	var g errgroup.Group
	tick := time.NewTicker(s.cfg.Look)
	defer tick.Stop()
	for {
		if err := s.look(ctx, &g); err != nil && ctx.Err() == nil {
			s.log.Error("look for what is to be sent", "err", err)
		}
		select {
		case <-ctx.Done():
			return g.Wait()
		case <-tick.C:
		}
	}
}

// Once sends everything that there is to send now, and returns when it has been tried.
func (s *Service) Once(ctx context.Context) error {
	var g errgroup.Group
	err := s.look(ctx, &g)
	return errors.Join(err, g.Wait())
}

// look begins the sending of what there is to send, beside the caller.
func (s *Service) look(ctx context.Context, g *errgroup.Group) error {
	rows, err := s.ready(ctx)
	if err != nil {
		return fmt.Errorf("read what is to be sent: %w", err)
	}
	for _, r := range rows {
		if !s.enter(r) {
			continue
		}
		g.Go(func() error {
			defer s.exit(r)
			if err := s.send(ctx, r); err != nil && ctx.Err() == nil && !errors.Is(err, errTaken) {
				s.log.Error("send a subscription", "subscription", r.subscription, "channel", r.channel, "err", err)
			}
			return nil
		})
	}
	return nil
}

// enter takes one of the places of senders.
func (s *Service) enter(r *row) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, there := s.busy[r.key]
	again := r.attempts > 0
	if there || len(s.busy) >= senders || again && s.failed >= stubborn {
		return false
	}
	s.busy[r.key] = again
	if again {
		s.failed++
	}
	return true
}

func (s *Service) exit(r *row) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[r.key] {
		s.failed--
	}
	delete(s.busy, r.key)
}

// row is a row of subscription_sender.
type row struct {
	key
	owner    string
	at       int64 // the event that is done with, and all before it
	due      int64
	attempts int64
	progress string
	token    string
	moved    int64
}

const rowColumns = `s.subscription, s.channel, s.owner, s.event, s.due, s.attempts, s.progress, s.token, s.moved`

func (r *row) scan(scan func(...any) error) error {
	return scan(&r.subscription, &r.channel, &r.owner, &r.at, &r.due, &r.attempts, &r.progress, &r.token, &r.moved)
}

// ready are the rows that are due and that nobody has taken, and whose subscriptions
// may have something to send, those that have waited longest first.
func (s *Service) ready(ctx context.Context) ([]*row, error) {
	var out []*row
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		out = nil
		quiet, err := tasks.Quiet(ctx, tx)
		if err != nil || quiet {
			return err
		}
		const newer = `EXISTS (SELECT 1 FROM events e WHERE e.id > s.event)` // settled or not
		now := db.Micros(tx.Now())
		rows, err := tx.Query(ctx, `SELECT `+rowColumns+` FROM subscription_sender s WHERE s.due <= ? AND s.lease < ? AND (s.channel = ? OR `+newer+`)
			ORDER BY s.due, s.subscription LIMIT ?`, now, now, resources.ChannelMail, int64(looked))
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // Err tells
		for rows.Next() {
			r := &row{}
			if err := r.scan(rows.Scan); err != nil {
				return err
			}
			out = append(out, r)
		}
		return rows.Err()
	})
	return out, err
}

// errTaken says that another server has taken a row, or that its subscription is gone.
var errTaken = errors.New("taken by another server")

// send does what a row is due for.
func (s *Service) send(ctx context.Context, r *row) error {
	if r.channel == resources.ChannelMail {
		return s.digest(ctx, r)
	}
	return s.webhook(ctx, r)
}

// claim takes a row, and reads it as it is.
func (s *Service) claim(ctx context.Context, r *row) error {
	token := uuid.NewString()
	return s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		now := tx.Now()
		n, err := tx.Exec(ctx, `UPDATE subscription_sender SET token = ?, lease = ? WHERE subscription = ? AND channel = ? AND due <= ? AND lease < ?`,
			token, db.Micros(now.Add(lease)), r.subscription, r.channel, db.Micros(now), db.Micros(now))
		if err != nil {
			return fmt.Errorf("take %s: %w", r.subscription, err)
		}
		if n == 0 {
			return errTaken
		}
		return r.scan(tx.QueryRow(ctx, `SELECT `+rowColumns+` FROM subscription_sender s WHERE s.subscription = ? AND s.channel = ?`, r.subscription, r.channel).Scan)
	})
}

// advance changes a row that this server has taken, and writes what was done. It
// fails with errTaken if another server has taken the row since.
func (s *Service) advance(ctx context.Context, r *row, to row, until time.Time, done []delivery) error {
	err := s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		to.moved = r.moved
		if to.at != r.at {
			to.moved = db.Micros(tx.Now())
		}
		n, err := tx.Exec(ctx, `UPDATE subscription_sender SET event = ?, due = ?, attempts = ?, progress = ?, lease = ?, moved = ?
			WHERE subscription = ? AND channel = ? AND token = ? AND event = ?`, to.at, to.due, to.attempts, to.progress, db.Micros(until), to.moved,
			r.subscription, r.channel, r.token, r.at)
		if err != nil {
			return fmt.Errorf("move %s on: %w", r.subscription, err)
		}
		if n == 0 {
			return errTaken
		}
		for i := range done {
			if err := done[i].write(ctx, tx, r.key); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		to.key, to.token, to.owner = r.key, r.token, r.owner
		*r = to
	}
	return err
}

// held is the end of the lease that a server has while it goes on.
func held(now time.Time) time.Time { return now.Add(lease) }

// pause is how long to wait after so many failures in a row.
func pause(attempts int64) time.Duration {
	p := firstPause
	for ; attempts > 1 && p < longestPause; attempts-- {
		p *= 2
	}
	return min(p, longestPause)
}

// subscription reads what a row is about: as clients see it, and with its secrets.
func (s *Service) subscription(ctx context.Context, tx *db.Tx, id string) (shown, open *octopus.Subscription, err error) {
	shown, open = &octopus.Subscription{}, &octopus.Subscription{}
	if err := s.cfg.Store.Load(ctx, tx, resources.SubscriptionKind, id, shown); err != nil {
		if fault.Is(err, fault.NotFound) {
			return nil, nil, errTaken
		}
		return nil, nil, err
	}
	if err := s.cfg.Store.Reveal(ctx, tx, resources.SubscriptionKind, id, open); err != nil {
		return nil, nil, err
	}
	return shown, open, nil
}

// now is the time by the database's clock, as everything else here reads it.
func (s *Service) now(ctx context.Context) (now time.Time, err error) {
	err = s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		now = tx.Now()
		return nil
	})
	return now, err
}

func encode(v any) (string, error) {
	body, err := json.Marshal(v)
	return string(body), err
}
