package auth

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// SignIn is what somebody signs in with.
type SignIn struct {
	Username, Password string
	Remember           bool
	Address, UserAgent string // for the audit trail and the limits; may be ""
}

// maxSignIn bounds the texts that come with a sign-in, in bytes.
const maxSignIn = 256

// Login signs a person in. It answers fault.Invalid, always in the same words and
// after the same work, when the name is unknown, the password wrong, or the user
// inactive or a service account; and fault.TooMany when too many attempts have
// failed for the name or from the address.
func (s *Service) Login(ctx context.Context, in SignIn) (*Session, error) {
	in.UserAgent = strings.ToValidUTF8(in.UserAgent[:min(len(in.UserAgent), maxSignIn)], "")
	in.Address = in.Address[:min(len(in.Address), maxSignIn)]
	ctx = db.WithActor(ctx, db.Actor{Username: "anonymous", IPAddress: in.Address, UserAgent: in.UserAgent})

	// The attempt counts as failed from its beginning, so that many at once
	// are not all tried before the first is counted.
	subjects := s.subjects(in)
	if err := s.attempt(ctx, subjects); err != nil {
		return nil, err
	}
	user, stored, err := s.passwordOf(ctx, in.Username)
	if err != nil {
		return nil, err
	}
	ok, outdated, err := s.hasher.verify(ctx, stored, in.Password)
	if err != nil {
		return nil, err
	}
	if !ok || user == nil || !user.IsActive || user.IsService {
		if err := s.failed(ctx, user); err != nil {
			s.opt.Log.WarnContext(ctx, "a failed sign-in could not be noted", "error", err)
		}
		return nil, badSignIn()
	}
	fresh := ""
	if outdated {
		if fresh, err = s.hasher.hash(ctx, in.Password); err != nil {
			return nil, err
		}
	}
	ctx = db.WithActor(ctx, db.Actor{UserID: user.ID, Username: user.Username, Identity: BySession.String(), IPAddress: in.Address, UserAgent: in.UserAgent})
	var sess *Session
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		// The password may have been changed, or the user locked out, meanwhile.
		var still string
		err := tx.QueryRow(ctx, `SELECT p.hash FROM user_password p WHERE p.user_id = ?`, user.ID).Scan(&still)
		if errors.Is(err, sql.ErrNoRows) || err == nil && still != stored {
			return badSignIn()
		}
		if err != nil {
			return fmt.Errorf("read password: %w", err)
		}
		var now octopus.User
		if err := s.store.Load(ctx, tx, s.users.Name, user.ID, &now); err != nil || !now.IsActive || now.IsService {
			return errors.Join(err, badSignIn())
		}
		if fresh != "" {
			if err := storePassword(ctx, tx, user.ID, fresh); err != nil {
				return err
			}
		}
		if err := s.forgive(ctx, tx, subjects); err != nil {
			return err
		}
		tx.Event(db.Event{
			Category: "LoginSucceeded", Message: "User " + user.Username + " signed in", DocumentType: s.users.ItemType,
			Related: []string{user.ID}, References: []db.EventReference{{ID: user.ID, Start: len("User "), Length: len(user.Username)}},
		})
		sess, err = s.startSession(ctx, tx, now, in)
		return err
	})
	if err != nil {
		return nil, err
	}
	return sess, nil
}

func badSignIn() error {
	return fault.New(fault.Invalid, "Invalid username or password.")
}

// failed notes a failed sign-in in the audit trail. What was typed for a name is
// not noted when nobody is called so: it may be a password.
func (s *Service) failed(ctx context.Context, user *octopus.User) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		e := db.Event{Category: "LoginFailed", Message: "Sign-in failed for an unknown user", DocumentType: s.users.ItemType}
		if user != nil {
			e.Message, e.Related = "Sign-in failed for user "+user.Username, []string{user.ID}
			e.References = []db.EventReference{{ID: user.ID, Start: len("Sign-in failed for user "), Length: len(user.Username)}}
		}
		tx.Event(e)
		return nil
	})
}

// passwordOf finds the user of a name with the hash of the password; nil and ""
// when there is none.
func (s *Service) passwordOf(ctx context.Context, username string) (*octopus.User, string, error) {
	var user *octopus.User
	var stored string
	err := s.db.Read(ctx, func(tx *db.Tx) error {
		id, err := s.idOf(ctx, tx, username)
		if err != nil || id == "" {
			return err
		}
		var u octopus.User
		if err := s.store.Load(ctx, tx, s.users.Name, id, &u); err != nil {
			if fault.Is(err, fault.NotFound) {
				return nil
			}
			return err
		}
		user = &u
		err = tx.QueryRow(ctx, `SELECT p.hash FROM user_password p WHERE p.user_id = ?`, id).Scan(&stored)
		if errors.Is(err, sql.ErrNoRows) {
			return nil
		}
		return err
	})
	if err != nil {
		return nil, "", fmt.Errorf("look up a user: %w", err)
	}
	return user, stored, nil
}

// idOf is the id of the user of a name, "" when there is none.
func (s *Service) idOf(ctx context.Context, tx *db.Tx, username string) (string, error) {
	var id string
	err := tx.QueryRow(ctx, `SELECT u.user_id FROM user_search u WHERE u.username = ?`, ident.Fold(username)).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return id, err
}

// subject is somebody or something whose failed sign-ins are counted.
type subject struct {
	hash  string
	most  int
	whose string
}

func (s *Service) subjects(in SignIn) []subject {
	all := []subject{{hash("user " + ident.Fold(in.Username)), s.opt.Lockout.User, "for this user name"}}
	if from := network(in.Address); from != "" {
		all = append(all, subject{hash("address " + from), s.opt.Lockout.Address, "from this address"})
	}
	return all
}

// network is what one caller can choose addresses from: a whole /64 of IPv6.
func network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil {
		return address
	}
	ip = ip.Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	prefix, err := ip.Prefix(bits)
	if err != nil {
		return address
	}
	return prefix.String()
}

// attempt counts an attempt for every subject, and refuses it when one has had
// too many. Attempts while somebody is locked out do not lengthen it.
func (s *Service) attempt(ctx context.Context, subjects []subject) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		now := s.now()
		for _, sub := range subjects {
			var count, until int64
			err := tx.QueryRow(ctx, `SELECT f.count, f.until FROM sign_in_failure f WHERE f.subject = ?`+tx.ForUpdate(), sub.hash).Scan(&count, &until)
			if err != nil && !errors.Is(err, sql.ErrNoRows) {
				return fmt.Errorf("count failed sign-ins: %w", err)
			}
			if until <= db.Micros(now) {
				count = 0
			}
			if count >= int64(sub.most) {
				return tooMany(sub, until-db.Micros(now))
			}
			_, err = tx.Exec(ctx, `INSERT INTO sign_in_failure (subject, count, until) VALUES (?, ?, ?)
				ON CONFLICT (subject) DO UPDATE SET count = excluded.count, until = excluded.until`, sub.hash, count+1, db.Micros(now.Add(s.opt.Lockout.For)))
			if err != nil {
				return fmt.Errorf("count failed sign-ins: %w", err)
			}
		}
		return nil
	})
}

// tooMany is the refusal of somebody who has to wait for some microseconds.
func tooMany(sub subject, micros int64) error {
	wait := time.Duration(micros) * time.Microsecond
	return fault.New(fault.TooMany, "Too many sign-ins have failed %s; try again in %d minutes.", sub.whose, int((wait+time.Minute-1)/time.Minute))
}

// forgive takes the failures of a name back after a success, and from the
// address the one that was counted in advance.
func (s *Service) forgive(ctx context.Context, tx *db.Tx, subjects []subject) error {
	for i, sub := range subjects {
		statement := `DELETE FROM sign_in_failure WHERE subject = ?`
		if i > 0 {
			statement = `UPDATE sign_in_failure SET count = count - 1 WHERE subject = ? AND count > 0`
		}
		if _, err := tx.Exec(ctx, statement, sub.hash); err != nil {
			return fmt.Errorf("forget failed sign-ins: %w", err)
		}
	}
	return nil
}

func storePassword(ctx context.Context, tx *db.Tx, user, phc string) error {
	_, err := tx.Exec(ctx, `INSERT INTO user_password (user_id, hash, changed) VALUES (?, ?, ?)
		ON CONFLICT (user_id) DO UPDATE SET hash = excluded.hash, changed = excluded.changed`, user, phc, db.Micros(tx.Now()))
	if err != nil {
		return fmt.Errorf("store the password of %s: %w", user, err)
	}
	return nil
}
