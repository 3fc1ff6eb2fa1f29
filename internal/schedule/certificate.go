package schedule

import (
	"context"
	"fmt"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// warning is something to tell of a certificate, some days before it expires.
type warning struct {
	days     int
	category octopus.EventCategory
}

// warnings are in the order in which their times come.
func warnings() []warning {
	return []warning{{20, octopus.EventCertificateExpires20Days}, {10, octopus.EventCertificateExpires10Days}, {0, octopus.EventCertificateExpired}}
}

func (w warning) at(notAfter time.Time) int64 { return db.Micros(notAfter.AddDate(0, 0, -w.days)) }

// noteCertificates gives certificates their rows that have none: those of a server
// that did not watch them yet.
func noteCertificates(ctx context.Context, tx *db.Tx) error {
	_, err := tx.Exec(ctx, `INSERT INTO due (id, kind, space_id, argument, at, pending, lease, attempts, fired, progress, tasks)
		SELECT d.id, ?, d.space_id, '', 0, 0, 0, 0, 0, '', '' FROM documents d WHERE d.kind = 'certificates' AND d.deleted = 0
			AND NOT EXISTS (SELECT 1 FROM due u WHERE u.id = d.id) ON CONFLICT (id) DO NOTHING`, kindCertificate)
	if err != nil {
		return fmt.Errorf("note when certificates expire: %w", err)
	}
	return nil
}

// expiry tells that a certificate expires soon, or has expired, and notes when it is
// to be looked at next. It all is one transaction, so that nothing is told twice:
// argument is the thumbprint of the file that it is about, fired the time of the last
// warning told of it. Of warnings whose times have passed meanwhile only the last is
// told. A certificate in the archive is told nothing of.
func (s *Scheduler) expiry(ctx context.Context, tx *db.Tx, r *row) error {
	now := db.Micros(tx.Now())
	if r.at > now {
		return nil // another server was first
	}
	var c octopus.Certificate
	err := s.cfg.Store.Load(ctx, tx, "certificates", r.id, &c)
	if fault.Is(err, fault.NotFound) {
		_, err = tx.Exec(ctx, `DELETE FROM due WHERE id = ?`, r.id)
		return err
	}
	if err != nil {
		return err
	}
	fired, next := r.fired, int64(never)
	if r.argument != c.Thumbprint {
		fired = 0 // another file than before
	}
	if !c.IsArchived {
		var told *warning
		for _, w := range warnings() {
			at := w.at(c.NotAfter.Time)
			switch {
			case at <= fired:
			case at > now:
				next = min(next, at)
			default:
				told, fired = &w, at
			}
		}
		if told != nil {
			tx.Event(told.event(&c))
		}
	}
	_, err = tx.Exec(ctx, `UPDATE due SET at = ?, argument = ?, fired = ? WHERE id = ?`, next, c.Thumbprint, fired, r.id)
	if err != nil {
		return fmt.Errorf("note when %s expires: %w", r.id, err)
	}
	return nil
}

func (w warning) event(c *octopus.Certificate) db.Event {
	const begin = "Certificate "
	does := "expires on "
	if w.days == 0 {
		does = "expired on "
	}
	return db.Event{
		Category: string(w.category), SpaceID: c.SpaceID, Message: begin + c.Name + " " + does + c.NotAfter.UTC().Format(time.RFC3339),
		References: []db.EventReference{{ID: c.ID, Start: len(begin), Length: length(c.Name)}}, Related: []string{c.ID}, DocumentType: "Certificate",
	}
}
