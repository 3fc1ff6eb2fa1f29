package auth

import (
	"context"
	"crypto/rand"
	"database/sql"
	"encoding/base32"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// Limits of API keys.
const (
	keyPrefix  = "API-"
	maxKey     = 256 // bytes of a key
	maxKeys    = 1000
	maxPurpose = 500 // bytes
	hintLength = len(keyPrefix) + 4
)

// newKey makes a key of 256 random bits in letters and digits that clients take
// for one.
func newKey() string {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails
	return keyPrefix + base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(random)
}

// IsAPIKey reports whether a text has the form of a key: API- and upper-case
// letters and digits.
func IsAPIKey(text string) bool {
	rest, ok := strings.CutPrefix(text, keyPrefix)
	return ok && rest != "" && len(text) <= maxKey && !strings.ContainsFunc(rest, func(r rune) bool {
		return (r < 'A' || r > 'Z') && (r < '0' || r > '9')
	})
}

// ByAPIKey finds whose key it is. It answers fault.Unauthenticated for a key that
// is unknown, revoked or expired, and for one of an inactive user.
func (s *Service) ByAPIKey(ctx context.Context, key string) (*Principal, error) {
	if !IsAPIKey(key) {
		return nil, fault.New(fault.Unauthenticated, "What was sent as an API key is none: keys begin with %s, and letters and digits follow.", keyPrefix)
	}
	return s.recognize(ctx, ByKey, key)
}

// CreateAPIKey makes a key for a user: for by itself, or, if by may edit users,
// for a service account. The answer is the only time that the key is shown.
func (s *Service) CreateAPIKey(ctx context.Context, by *Principal, user string, want octopus.APIKeyCommand) (*octopus.APIKeyCreated, error) {
	want.Purpose = strings.TrimSpace(want.Purpose)
	if len(want.Purpose) > maxPurpose {
		return nil, fault.InvalidField("Purpose", "Purpose has %d bytes; use at most %d.", len(want.Purpose), maxPurpose)
	}
	var expires time.Time
	if want.Expires != nil {
		if expires = want.Expires.Truncate(time.Microsecond); !expires.After(s.now()) {
			return nil, fault.InvalidField("Expires", "Expires is %s, which is past; give a time to come, or none.", want.Expires)
		}
	}
	var created *octopus.APIKeyCreated
	key := newKey()
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		owner, err := s.keysOf(ctx, tx, by, user)
		if err != nil {
			return err
		}
		if by.UserID() != owner.user.ID && !owner.user.IsService {
			return fault.New(fault.Forbidden, "You cannot create API keys for the user '%s'; people create their own. For programs, use a service account.", owner.user.Username)
		}
		stored, err := s.addKey(ctx, tx, owner.user, key, want.Purpose, expires)
		if err == nil {
			created = &octopus.APIKeyCreated{APIKeyBase: stored.APIKeyBase, APIKey: octopus.PlainSecret(key)}
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return created, nil
}

// addKey stores a key.
func (s *Service) addKey(ctx context.Context, tx *db.Tx, owner octopus.User, key, purpose string, expires time.Time) (*octopus.APIKey, error) {
	var n int
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM api_key WHERE user_id = ?`, owner.ID).Scan(&n); err != nil {
		return nil, fmt.Errorf("count API keys: %w", err)
	}
	if n >= maxKeys {
		return nil, fault.New(fault.Conflict, "The user '%s' has %d API keys; revoke some first.", owner.Username, n)
	}
	seq, err := tx.NextSeq(ctx, "apikeys")
	if err != nil {
		return nil, err
	}
	row := keyRow{
		id: ident.ID("apikeys", seq), user: owner.ID, hint: key[:min(hintLength, len(key))], purpose: purpose,
		created: db.Micros(tx.Now()), expires: db.Micros(expires),
	}
	_, err = tx.Exec(ctx, `INSERT INTO api_key (id, seq, user_id, hash, hint, purpose, created, expires, last_used) VALUES (?, ?, ?, ?, ?, ?, ?, ?, 0)`,
		row.id, seq, row.user, hash(key), row.hint, row.purpose, row.created, row.expires)
	if err != nil {
		return nil, fmt.Errorf("store API key %s: %w", row.id, err)
	}
	keyEvent(tx, "Created", "was created", row, owner)
	return row.wire(), nil
}

func keyEvent(tx *db.Tx, category, did string, row keyRow, owner octopus.User) {
	const lead = "API key "
	name := row.hint + "..."
	tx.Event(db.Event{
		Category: category, Message: lead + name + " of user " + owner.Username + " " + did, DocumentType: "ApiKey",
		Related:    []string{row.id, owner.ID},
		References: []db.EventReference{{ID: row.id, Start: len(lead), Length: len(name)}},
	})
}

type keyRow struct {
	id, user, hint, purpose string
	created, expires        int64
}

const keyColumns = `k.id, k.user_id, k.hint, k.purpose, k.created, k.expires`

func (r *keyRow) scan(scan func(...any) error) error {
	return scan(&r.id, &r.user, &r.hint, &r.purpose, &r.created, &r.expires)
}

func (r *keyRow) wire() *octopus.APIKey {
	return &octopus.APIKey{
		APIKeyBase: octopus.APIKeyBase{
			Resource: octopus.Resource{ID: r.id},
			Purpose:  r.purpose, UserID: r.user, Created: octopus.NewTime(db.Time(r.created)), Expires: octopus.OptionalTime(db.Time(r.expires)),
		},
		APIKey: octopus.Sensitive{HasValue: true, Hint: octopus.NullString(r.hint)},
	}
}

// keysOf returns the user whose keys by wants to see or change: by itself, or
// another if by may edit users and that one.
func (s *Service) keysOf(ctx context.Context, tx *db.Tx, by *Principal, user string) (*known, error) {
	owner, err := s.visibleUser(ctx, tx, by, user)
	if err != nil {
		return nil, err
	}
	return owner, s.mayManage(by, owner)
}

// ListAPIKeys lists a page of a user's keys, newest first, without their secrets,
// and how many there are in all.
func (s *Service) ListAPIKeys(ctx context.Context, by *Principal, user string, page ident.Page) ([]octopus.APIKey, int64, error) {
	page = page.Clamp()
	var keys []octopus.APIKey
	var total int64
	err := s.db.Read(ctx, func(tx *db.Tx) error {
		owner, err := s.keysOf(ctx, tx, by, user)
		if err != nil {
			return err
		}
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM api_key WHERE user_id = ?`, owner.user.ID).Scan(&total); err != nil {
			return fmt.Errorf("count API keys: %w", err)
		}
		rows, err := tx.Query(ctx, `SELECT `+keyColumns+` FROM api_key k WHERE k.user_id = ? ORDER BY k.seq DESC LIMIT ? OFFSET ?`, owner.user.ID, page.Take, page.Skip)
		if err != nil {
			return fmt.Errorf("list API keys: %w", err)
		}
		defer func() { _ = rows.Close() }() // Err below tells
		keys = nil
		for rows.Next() {
			var row keyRow
			if err := row.scan(rows.Scan); err != nil {
				return fmt.Errorf("list API keys: %w", err)
			}
			keys = append(keys, *row.wire())
		}
		return rows.Err()
	})
	return keys, total, err
}

// APIKey returns one of a user's keys, without its secret.
func (s *Service) APIKey(ctx context.Context, by *Principal, user, id string) (*octopus.APIKey, error) {
	var key *octopus.APIKey
	err := s.db.Read(ctx, func(tx *db.Tx) error {
		row, _, err := s.findKey(ctx, tx, by, user, id)
		key = row.wire()
		return err
	})
	if err != nil {
		return nil, err
	}
	return key, nil
}

func (s *Service) findKey(ctx context.Context, tx *db.Tx, by *Principal, user, id string) (row keyRow, owner *known, err error) {
	if owner, err = s.keysOf(ctx, tx, by, user); err != nil {
		return row, nil, err
	}
	err = row.scan(tx.QueryRow(ctx, `SELECT `+keyColumns+` FROM api_key k WHERE k.id = ? AND k.user_id = ?`, strings.ToLower(id), owner.user.ID).Scan)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		err = fault.Missing("API key", id)
	case err != nil:
		err = fmt.Errorf("read API key %s: %w", id, err)
	}
	return row, owner, err
}

// RevokeAPIKey deletes a key. It is refused from the next request on, by other
// processes within the time in which they hear of a change.
func (s *Service) RevokeAPIKey(ctx context.Context, by *Principal, user, id string) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		row, owner, err := s.findKey(ctx, tx, by, user, id)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM api_key WHERE id = ?`, row.id); err != nil {
			return fmt.Errorf("delete API key %s: %w", row.id, err)
		}
		tx.Changed(changesKind)
		keyEvent(tx, "Deleted", "was revoked", row, owner.user)
		return nil
	})
}
