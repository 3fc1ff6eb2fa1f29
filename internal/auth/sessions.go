package auth

import (
	"context"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// OpenSession is a sign-in that has not ended, without its token: its ID is the
// token's hash, from which nobody gets back to the token.
type OpenSession struct {
	ID        string        `json:"Id"`
	UserID    string        `json:"UserId"`
	Created   octopus.Time  `json:"Created"`
	LastSeen  octopus.Time  `json:"LastSeen"`
	Expires   octopus.Time  `json:"Expires"`
	IPAddress string        `json:"IpAddress"`
	UserAgent string        `json:"UserAgent"`
	IsLasting bool          `json:"IsPersistent"`
	Links     octopus.Links `json:"Links"`
}

// Sessions lists a page of a user's open sessions, newest first, and how many there
// are in all: one's own, or those of somebody whom by may manage.
func (s *Service) Sessions(ctx context.Context, by *Principal, user string, page ident.Page) (all []OpenSession, total int64, err error) {
	page = page.Clamp()
	const open = ` FROM session t WHERE t.user_id = ? AND t.expires > ? AND t.last_seen + t.idle > ?`
	err = s.db.Read(ctx, func(tx *db.Tx) error {
		all = nil
		owner, err := s.keysOf(ctx, tx, by, user)
		if err != nil {
			return err
		}
		now := db.Micros(s.now())
		if err := tx.QueryRow(ctx, `SELECT count(*)`+open, owner.user.ID, now, now).Scan(&total); err != nil {
			return fmt.Errorf("count sessions: %w", err)
		}
		rows, err := tx.Query(ctx, `SELECT t.id, t.created, t.last_seen, t.expires, t.persistent, t.ip_address, t.user_agent`+open+` ORDER BY t.created DESC, t.id LIMIT ? OFFSET ?`,
			owner.user.ID, now, now, page.Take, page.Skip)
		if err != nil {
			return fmt.Errorf("list sessions: %w", err)
		}
		defer func() { _ = rows.Close() }() // Err below tells
		for rows.Next() {
			one := OpenSession{UserID: owner.user.ID}
			var created, seen, expires, persistent int64
			if err := rows.Scan(&one.ID, &created, &seen, &expires, &persistent, &one.IPAddress, &one.UserAgent); err != nil {
				return fmt.Errorf("list sessions: %w", err)
			}
			one.Created, one.LastSeen, one.Expires = octopus.NewTime(db.Time(created)), octopus.NewTime(db.Time(seen)), octopus.NewTime(db.Time(expires))
			one.IsLasting = persistent == 1
			all = append(all, one)
		}
		return rows.Err()
	})
	return all, total, err
}

// EndSession ends one session of a user.
func (s *Service) EndSession(ctx context.Context, by *Principal, user, session string) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		owner, err := s.keysOf(ctx, tx, by, user)
		if err != nil {
			return err
		}
		n, err := tx.Exec(ctx, `DELETE FROM session WHERE user_id = ? AND id = ?`, owner.user.ID, session)
		if err != nil {
			return fmt.Errorf("end a session of %s: %w", owner.user.ID, err)
		}
		if n == 0 {
			return fault.Missing("session", session)
		}
		tx.Event(db.Event{
			Category: "Modified", Message: "A session of user " + owner.user.Username + " was revoked",
			Related: []string{owner.user.ID}, DocumentType: s.users.ItemType,
		})
		tx.Changed(changesKind)
		return nil
	})
}
