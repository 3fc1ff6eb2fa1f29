package notify

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/events"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/mail"
	"github.com/takodeploy/tako/internal/timetable"
	"github.com/takodeploy/tako/octopus"
)

// mostEvents is how many events one digest has at most; what comes after them is in
// the next one, which then follows at once.
const mostEvents = 100

// mostFailures is after how many e-mails that were not taken a digest pauses.
const mostFailures = 3

// digesting is how far a digest is: its range is fixed before its first e-mail, so
// that whoever goes on sends the same.
type digesting struct {
	// First and Last are the first and last event that it has for anybody, End is
	// where it ends.
	First, Last, End int64
	// More tells that there was more than one digest has.
	More bool
	// Done are the users that have theirs.
	Done []string
}

// digest sends the digest that a row is due for.
func (s *Service) digest(ctx context.Context, r *row) error {
	if err := s.claim(ctx, r); err != nil {
		return err
	}
	if err := failpoint.Hit("digest-claimed"); err != nil {
		return err
	}
	var shown *octopus.Subscription
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
		shown, _, err = s.subscription(ctx, tx, r.subscription)
		return err
	})
	if err != nil {
		return err
	}
	var p digesting
	if r.progress == "" {
		err = s.plan(ctx, r, shown, &p)
	} else {
		err = json.Unmarshal([]byte(r.progress), &p)
	}
	if err != nil {
		return fmt.Errorf("plan the digest of %s: %w", r.subscription, err)
	}
	period := shown.EventNotificationSubscription.EmailFrequencyPeriod.Duration()
	var all []octopus.Event
	if p.First > 0 {
		if all, err = s.within(ctx, shown, r.at, p.End); err != nil {
			return err
		}
		if r.progress == "" {
			if err := s.note(ctx, r, &p, nil); err != nil {
				return err
			}
		}
		done, err := s.mails(ctx, r, shown, &p, all)
		if err != nil || !done {
			return err
		}
	}
	now, err := s.now(ctx)
	if err != nil {
		return err
	}
	due := now.Add(period)
	if p.More {
		due = now
	}
	if p.End == r.at && r.progress == "" {
		// Nothing has happened: only the time moves on.
		return s.advance(ctx, r, row{at: r.at, due: db.Micros(due)}, time.UnixMicro(0), nil)
	}
	if err := s.advance(ctx, r, row{at: p.End, due: db.Micros(due)}, time.UnixMicro(0), nil); err != nil {
		return err
	}
	return failpoint.Hit("digest-committed")
}

// plan finds out what a digest has in it.
func (s *Service) plan(ctx context.Context, r *row, v *octopus.Subscription, p *digesting) error {
	p.End = r.at
	everybody, err := s.everybody(ctx, v)
	if err != nil {
		return err
	}
	n := 0
	for {
		var b *batch
		err := s.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
			b, err = s.find(ctx, tx, v, p.End, everybody)
			return err
		})
		if err != nil {
			return err
		}
		for _, f := range b.found {
			if n == mostEvents {
				p.More = true
				return nil
			}
			n++
			p.First, p.Last, p.End = cmp.Or(p.First, f.at), f.at, f.at
		}
		p.End = b.end
		if !b.more {
			return nil
		}
	}
}

// everybody sees all that a subscription is about: what each recipient may see of it
// is asked for each.
func (s *Service) everybody(ctx context.Context, v *octopus.Subscription) (viewer, error) {
	out := viewer{all: true}
	if v.SpaceID != "" {
		return out, nil
	}
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		out.spaces = []ident.SpaceID{""}
		return s.cfg.Store.Each(ctx, tx, "spaces", docstore.Query{}, func(doc *docstore.Doc) error {
			out.spaces = append(out.spaces, ident.SpaceID(doc.ID))
			return nil
		})
	})
	return out, err
}

// within reads the events of a digest.
func (s *Service) within(ctx context.Context, v *octopus.Subscription, from, end int64) ([]octopus.Event, error) {
	everybody, err := s.everybody(ctx, v)
	if err != nil {
		return nil, err
	}
	var out []octopus.Event
	for len(out) < mostEvents {
		var b *batch
		err := s.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
			b, err = s.find(ctx, tx, v, from, everybody)
			return err
		})
		if err != nil {
			return nil, err
		}
		for _, f := range b.found {
			if f.at > end {
				return out, nil // it came since
			}
			out = append(out, f.event)
		}
		if !b.more || end <= b.end {
			break
		}
		from = b.end
	}
	return out, nil
}

// note writes how far a digest is.
func (s *Service) note(ctx context.Context, r *row, p *digesting, done []delivery) error {
	text, err := encode(p)
	if err != nil {
		return err
	}
	now, err := s.now(ctx)
	if err != nil {
		return err
	}
	return s.advance(ctx, r, row{at: r.at, due: r.due, attempts: r.attempts, progress: text}, held(now), done)
}

// mails sends a digest to those who do not have it; done is false when some of them are
// to be tried again later.
func (s *Service) mails(ctx context.Context, r *row, v *octopus.Subscription, p *digesting, all []octopus.Event) (done bool, err error) {
	users, err := s.recipients(ctx, v)
	if err != nil {
		return false, err
	}
	zone, err := timetable.Zone(string(v.EventNotificationSubscription.EmailShowDatesInTimeZoneID))
	if err != nil {
		zone = time.UTC
	}
	failures := 0
	for i := range users {
		// Whoever comes first has another go first the next time: where some addresses
		// are refused, or the server is, not all have to be tried each time.
		u := users[(i+int(r.attempts)*mostFailures)%len(users)]
		if failures == mostFailures {
			break
		}
		if slices.Contains(p.Done, u.ID) {
			continue
		}
		seen, err := s.seenBy(ctx, v, u.ID, all)
		if err != nil {
			return false, err
		}
		if len(seen) == 0 {
			continue
		}
		d := delivery{id: fmt.Sprintf("%s/%s/%d-%d", r.subscription, u.ID, p.First, p.Last), first: p.First, last: p.Last, attempt: r.attempts + 1, recipient: u.ID, outcome: delivered}
		began := time.Now()
		err = s.cfg.Mail.Send(ctx, s.message(v, &u, d.id, seen, zone))
		d.took = time.Since(began)
		if ctx.Err() != nil {
			return false, ctx.Err()
		}
		if err := failpoint.Hit("digest-sent"); err != nil {
			return false, err
		}
		now, errNow := s.now(ctx)
		if errNow != nil {
			return false, errNow
		}
		d.at = now
		if err != nil {
			if fault.KindOf(err) == fault.Internal {
				return false, err
			}
			failures++
			d.outcome, d.message = failed, strings.Join(fault.Messages(err), " ")
			if d.at.Sub(all[0].Occurred.Time) > GiveUp+v.EventNotificationSubscription.EmailFrequencyPeriod.Duration() {
				failures--
				d.outcome = givenUp
			}
		}
		if d.outcome != failed {
			p.Done = append(p.Done, u.ID)
		}
		if err := s.note(ctx, r, p, []delivery{d}); err != nil {
			return false, err
		}
	}
	if failures == 0 {
		return true, nil
	}
	now, err := s.now(ctx)
	if err != nil {
		return false, err
	}
	return false, s.advance(ctx, r, row{at: r.at, due: db.Micros(now.Add(pause(r.attempts + 1))), attempts: r.attempts + 1, progress: r.progress}, time.UnixMicro(0), nil)
}

// recipients are the active members of a subscription's teams that have an address,
// each once.
func (s *Service) recipients(ctx context.Context, v *octopus.Subscription) ([]octopus.User, error) {
	var out []octopus.User
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
		out, err = s.cfg.Mail.Members(ctx, tx, v.EventNotificationSubscription.EmailTeams)
		return err
	})
	return out, err
}

// seenBy are the events that a user may see.
func (s *Service) seenBy(ctx context.Context, v *octopus.Subscription, user string, all []octopus.Event) ([]octopus.Event, error) {
	ids := make([]string, len(all))
	for i := range all {
		ids[i] = all[i].ID
	}
	var seen []octopus.Event
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		who, err := s.viewerOf(ctx, tx, user)
		if err != nil {
			return err
		}
		seen, _, err = s.cfg.Trail.List(ctx, tx, events.Query{IDs: ids, Places: who.places(ident.SpaceID(v.SpaceID)), NoDifference: true, Page: ident.Page{Take: mostEvents}})
		return err
	})
	slices.SortFunc(seen, func(a, b octopus.Event) int { return slices.Index(ids, a.ID) - slices.Index(ids, b.ID) })
	return seen, err
}

// message is the e-mail of a digest.
func (s *Service) message(v *octopus.Subscription, u *octopus.User, id string, seen []octopus.Event, zone *time.Location) mail.Message {
	var b strings.Builder
	fmt.Fprintf(&b, "Events of the subscription \"%s\":\n\n", v.Name)
	for i := range seen {
		e := &seen[i]
		fmt.Fprintf(&b, "%s  %s  %s", e.Occurred.In(zone).Format("2006-01-02 15:04:05 MST"), e.Category, strings.Join(strings.Fields(e.Message), " "))
		if e.Username != "" {
			fmt.Fprintf(&b, " (%s)", e.Username)
		}
		b.WriteString("\n")
	}
	if s.cfg.ServerURI != "" {
		fmt.Fprintf(&b, "\n%s\n", s.audit(string(v.SpaceID), seen[0].ID, seen[len(seen)-1].ID))
	}
	what := "events"
	if len(seen) == 1 {
		what = "event"
	}
	return mail.Message{
		ID: strings.ReplaceAll(id, "/", "."), To: []string{u.EmailAddress}, Subject: fmt.Sprintf("%s: %d %s", v.Name, len(seen), what), Body: b.String(),
		Priority: mail.Priority(v.EventNotificationSubscription.EmailPriority),
	}
}
