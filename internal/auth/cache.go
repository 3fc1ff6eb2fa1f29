package auth

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// maxCached bounds the credentials and the users that are kept in memory.
const maxCached = 20000

// cache keeps what was recognized, as long as nothing that it follows from has
// changed. All of it is then dropped at once: changes are rare, and finding out
// what one of them touches would be harder to trust than reading again.
type cache struct{ current atomic.Pointer[generation] }

type generation struct {
	at    uint64
	keys  sync.Map // hash of a key or token, with its kind -> *credential
	users sync.Map // user id -> *known
	count atomic.Int64
	// accounts are the service accounts that have external identities, by their
	// external ids; nil before the first who asks.
	accounts atomic.Pointer[map[string]string]
}

// credential is a key, a session or an access token that is good until it expires.
type credential struct {
	kind    Credential
	id      string
	expires int64 // microseconds, 0 is never
	idle    int64 // microseconds it may go unused, 0 is for ever
	used    atomic.Int64
	noted   atomic.Int64 // the use that was last put into the list to be written
	who     *Principal
}

// known is a user with what they may do.
type known struct {
	user   octopus.User
	access *Access
}

// at returns what is cached for a generation, or for one that is newer still.
func (c *cache) at(n uint64) *generation {
	for {
		g := c.current.Load()
		if g != nil && g.at >= n && g.count.Load() < maxCached {
			return g
		}
		if fresh := (&generation{at: n}); c.current.CompareAndSwap(g, fresh) {
			return fresh
		}
	}
}

// hash is how keys and tokens are stored and looked up: they are random, so
// nothing slower is needed.
func hash(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// recognize finds the owner of a key, a session's token or an access token.
func (s *Service) recognize(ctx context.Context, kind Credential, secret string) (*Principal, error) {
	n, err := s.opt.Generation(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for changes: %w", err)
	}
	type key struct {
		kind Credential
		hash [sha256.Size]byte
	}
	at, g := key{kind, sha256.Sum256([]byte(secret))}, s.cache.at(n)
	if v, ok := g.keys.Load(at); ok {
		c := v.(*credential)
		if c.good(s.now()) {
			s.used.note(c, s.now())
			return c.who, nil
		}
		g.keys.CompareAndDelete(at, c) // another process may have seen the session since
	}
	sum := hex.EncodeToString(at.hash[:])
	v, err, _ := s.flight.Do(fmt.Sprint(kind, sum, n), func() (any, error) {
		load := func(ctx context.Context) (*credential, error) { return s.load(ctx, g, kind, sum) }
		if kind == ByToken {
			load = func(ctx context.Context) (*credential, error) { return s.loadToken(ctx, g, secret) }
		}
		c, err := load(context.WithoutCancel(ctx))
		if err == nil {
			if _, there := g.keys.Swap(at, c); !there {
				g.count.Add(1)
			}
		}
		return c, err
	})
	if err != nil {
		return nil, err
	}
	c := v.(*credential)
	s.used.note(c, s.now())
	return c.who, nil
}

func (c *credential) good(now time.Time) bool {
	t := now.UnixMicro()
	return (c.expires == 0 || t < c.expires) && (c.idle == 0 || t < c.used.Load()+c.idle)
}

// loadTimeout bounds the reading of a credential, which several requests may
// wait for and which therefore does not end with any of them.
const loadTimeout = 30 * time.Second

// load reads a key or a session with its owner.
func (s *Service) load(ctx context.Context, g *generation, kind Credential, sum string) (*credential, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	query := `SELECT k.id, k.user_id, k.expires, k.last_used, 0 FROM api_key k WHERE k.hash = ?`
	if kind == BySession {
		query = `SELECT k.id, k.user_id, k.expires, k.last_seen, k.idle FROM session k WHERE k.id = ?`
	}
	c := &credential{kind: kind}
	var owner *known
	err := s.db.Read(ctx, func(tx *db.Tx) error {
		var user string
		var used int64
		err := tx.QueryRow(ctx, query, sum).Scan(&c.id, &user, &c.expires, &used, &c.idle)
		if errors.Is(err, sql.ErrNoRows) {
			return refused(kind)
		}
		if err != nil {
			return fmt.Errorf("look up a credential: %w", err)
		}
		c.used.Store(used)
		c.noted.Store(used)
		if !c.good(s.now()) {
			return expired(kind)
		}
		owner, err = s.know(ctx, tx, g, user)
		return err
	})
	switch {
	case fault.Is(err, fault.NotFound):
		return nil, refused(kind) // the owner was deleted in this moment
	case err != nil:
		return nil, err
	case !owner.user.IsActive, kind == BySession && owner.user.IsService:
		return nil, fault.New(fault.Unauthenticated, "The user '%s' is not active; ask an administrator to activate it.", owner.user.Username)
	}
	c.who = newPrincipal(owner.user, owner.access, kind, c.id)
	return c, nil
}

func refused(kind Credential) error {
	switch kind {
	case ByKey:
		return fault.New(fault.Unauthenticated, "The API key is not known to this server; check it, or create a new one.")
	case ByToken:
		return fault.New(fault.Unauthenticated, "The access token is not good any more: its OIDC identity was changed or removed, or it is not of this server; exchange a token again.")
	default:
		return fault.New(fault.Unauthenticated, "You are not signed in any more; sign in again.")
	}
}

func expired(kind Credential) error {
	switch kind {
	case ByKey:
		return fault.New(fault.Unauthenticated, "The API key has expired; create a new one.")
	case ByToken:
		return fault.New(fault.Unauthenticated, "The access token has expired; exchange a token again.")
	default:
		return refused(kind)
	}
}

// know returns a user with what they may do, from memory if it is there.
func (s *Service) know(ctx context.Context, tx *db.Tx, g *generation, id string) (*known, error) {
	if g != nil {
		if v, ok := g.users.Load(id); ok {
			return v.(*known), nil
		}
	}
	k := &known{}
	if err := s.store.Load(ctx, tx, s.users.Name, id, &k.user); err != nil {
		return nil, err
	}
	facts, err := s.facts(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	k.access = NewAccess(facts)
	if g != nil {
		if _, there := g.users.Swap(id, k); !there {
			g.count.Add(1)
		}
	}
	return k, nil
}

// AccessOf is what a user may do, whether they are signed in or not;
// fault.NotFound when there is no such user.
func (s *Service) AccessOf(ctx context.Context, user string) (*Access, error) {
	n, err := s.opt.Generation(ctx)
	if err != nil {
		return nil, fmt.Errorf("ask for changes: %w", err)
	}
	g := s.cache.at(n)
	if v, ok := g.users.Load(user); ok {
		return v.(*known).access, nil
	}
	var k *known
	err = s.db.Read(ctx, func(tx *db.Tx) error {
		k, err = s.know(ctx, tx, g, user)
		return err
	})
	if err != nil {
		return nil, err
	}
	return k.access, nil
}

// usage remembers which keys and sessions were used, until it is written down.
type usage struct{ list sync.Map } // *credential -> struct{}

// noteEvery is how exactly the last use of a key or session is known.
const noteEvery = time.Minute

func (u *usage) note(c *credential, now time.Time) {
	if c.kind == ByToken {
		return // nothing is stored of it
	}
	t := now.UnixMicro()
	c.used.Store(t)
	if last := c.noted.Load(); t-last >= noteEvery.Microseconds() && c.noted.CompareAndSwap(last, t) {
		u.list.Store(c, struct{}{})
	}
}

// flush writes down when keys and sessions were last used. It changes nothing
// that is cached, so nobody is told.
func (s *Service) flush(ctx context.Context) error {
	var due []*credential
	s.used.list.Range(func(k, _ any) bool {
		due = append(due, k.(*credential))
		return true
	})
	if len(due) == 0 {
		return nil
	}
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		for _, c := range due {
			statement := `UPDATE api_key SET last_used = ? WHERE id = ? AND last_used < ?`
			if c.kind == BySession {
				statement = `UPDATE session SET last_seen = ? WHERE id = ? AND last_seen < ?`
			}
			used := c.used.Load()
			if _, err := tx.Exec(ctx, statement, used, c.id, used); err != nil {
				return fmt.Errorf("note the use of a credential: %w", err)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, c := range due {
		s.used.list.Delete(c)
	}
	return nil
}
