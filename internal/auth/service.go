package auth

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/oidc"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// changesKind is what [db.Tx.Changed] is told when keys, sessions or passwords
// stop being good: whoever caches principals drops them.
const changesKind = "auth"

// Options of Open. The zero value of each field chooses.
type Options struct {
	Log *slog.Logger
	Now func() time.Time
	// Generation is a number that grows whenever something that principals
	// follow from may have changed: users, teams, roles, keys, sessions. By
	// default it is the sum of the database's change counters of these.
	Generation func(context.Context) (uint64, error)
	Argon2     Argon2
	// Installation tells this server's cookies from those of another one on the
	// same host; the installation's id.
	Installation string
	Sessions     SessionLimits
	Lockout      Lockout
	// Sealer seals access tokens, and Issuers verifies the tokens that they are given
	// for. Without either there are none.
	Sealer  Sealer
	Issuers *oidc.Verifier
}

// Sealer seals what must not be read or made by others; the server has a secret.Box for it.
type Sealer interface {
	Seal(owner, field string, plain []byte) (string, error)
	Open(ctx context.Context, owner, field, envelope string) ([]byte, error)
}

// SessionLimits say how long people stay signed in.
type SessionLimits struct {
	Idle     time.Duration // without a request; 12 hours
	Max      time.Duration // in all; 24 hours
	Remember time.Duration // in all and idle, for those who ask to be remembered; 20 days
}

// Lockout says how many sign-ins may fail.
type Lockout struct {
	User    int           // in a row, for one user name; 10
	Address int           // from one address, whatever the names; 100
	For     time.Duration // how long it then takes, and how long failures are counted; 15 minutes
}

func (o *Options) defaults(d *db.DB) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Generation == nil {
		o.Generation = func(ctx context.Context) (uint64, error) { return changes(ctx, d) }
	}
	if o.Argon2 == (Argon2{}) {
		o.Argon2 = DefaultArgon2()
	}
	if o.Sessions == (SessionLimits{}) {
		o.Sessions = SessionLimits{Idle: 12 * time.Hour, Max: 24 * time.Hour, Remember: 20 * 24 * time.Hour}
	}
	if o.Lockout == (Lockout{}) {
		o.Lockout = Lockout{User: 10, Address: 100, For: 15 * time.Minute}
	}
}

// changes adds up what principals follow from. Tenants are among it because a
// role that is scoped to them reaches the projects they are connected to.
func changes(ctx context.Context, d *db.DB) (uint64, error) {
	var sum uint64
	for _, kind := range [...]string{changesKind, "users", "teams", "userroles", "scopeduserroles", "tenants", identityKind} {
		n, err := d.Changes(ctx, kind)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// Service signs people in, knows keys and sessions, and finds out what their
// owners may do. It is safe for concurrent use.
type Service struct {
	db     *db.DB
	store  *docstore.Store
	opt    Options
	hasher *hasher

	users, teams, scoped, roles *resource.Kind

	cache  cache
	flight singleflight.Group
	used   usage
}

// Open makes a service over a database and a store that knows the kinds of
// users, teams, roles and scoped roles.
func Open(d *db.DB, store *docstore.Store, opt Options) (*Service, error) {
	opt.defaults(d)
	s := &Service{db: d, store: store, opt: opt}
	var errs error
	kind := func(name string) *resource.Kind {
		k, err := store.Kind(name)
		errs = errors.Join(errs, err)
		return k
	}
	s.users, s.teams, s.scoped, s.roles = kind("users"), kind("teams"), kind("scopeduserroles"), kind("userroles")
	if errs != nil {
		return nil, errs
	}
	var err error
	if s.hasher, err = newHasher(opt.Argon2); err != nil {
		return nil, err
	}
	return s, nil
}

// now is in whole microseconds, as it is stored.
func (s *Service) now() time.Time { return s.opt.Now().UTC().Truncate(time.Microsecond) }

// Credential says by what somebody was recognized.
type Credential uint8

// The credentials.
const (
	ByKey Credential = iota
	BySession
	ByToken
)

// String is how the audit trail names the credential.
func (c Credential) String() string {
	switch c {
	case ByKey:
		return "ApiKey"
	case ByToken:
		return "AccessToken"
	default:
		return "SessionCookie"
	}
}

// Principal is a user or a service account that has shown a credential, with
// what it may do. It is immutable; requests share it.
type Principal struct {
	user       octopus.User
	access     *Access
	credential Credential
	id         string // of the key, the session, or the token's external identity
	actor      db.Actor
}

func newPrincipal(user octopus.User, access *Access, by Credential, id string) *Principal {
	return &Principal{
		user: user, access: access, credential: by, id: id,
		actor: db.Actor{UserID: user.ID, Username: user.Username, Identity: by.String()},
	}
}

// Actor says who it is, for the audit trail; address and program are the
// request's to add.
func (p *Principal) Actor() db.Actor { return p.actor }

// UserID is the id of the user's document.
func (p *Principal) UserID() string { return p.user.ID }

// User is the user's document. Its lists are shared; they must not be changed.
func (p *Principal) User() octopus.User { return p.user }

// Credential tells by what the principal was recognized.
func (p *Principal) Credential() Credential { return p.credential }

// Access is what the principal may do.
func (p *Principal) Access() *Access { return p.access }

// Grants are the ways in which the principal holds a permission in a space, or
// outside of spaces for ""; none when it does not hold it.
func (p *Principal) Grants(permission string, space ident.SpaceID) []resource.Grant {
	grants, _ := p.access.Grants(permission, space)
	return grants
}

// Can reports whether the principal holds a permission in a space for a target.
func (p *Principal) Can(permission octopus.Permission, space ident.SpaceID, t Target) bool {
	return p.access.Can(string(permission), space, t)
}

// onSystem reports whether the principal holds a permission outside of spaces.
func (p *Principal) onSystem(permission octopus.Permission) bool {
	return p.access.Can(string(permission), "", Target{})
}

// Run writes down from time to time when keys and sessions were last used, and
// clears away what has expired. It ends with ctx, after a last time.
func (s *Service) Run(ctx context.Context) error {
	const (
		flush = 30 * time.Second
		sweep = 10 * time.Minute
	)
	flushes, sweeps := time.NewTicker(flush), time.NewTicker(sweep)
	defer flushes.Stop()
	defer sweeps.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			last, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if err := s.flush(last); err != nil {
				return fmt.Errorf("note when keys and sessions were used: %w", err)
			}
			return nil
		case <-flushes.C:
			err = s.flush(ctx)
		case <-sweeps.C:
			err = s.Sweep(ctx)
		}
		if err != nil && ctx.Err() == nil {
			s.opt.Log.WarnContext(ctx, "keys and sessions could not be looked after", "error", err)
		}
	}
}

// Sweep clears away expired sessions and forgotten failures. Expired keys stay,
// so that their owners see why they fail.
func (s *Service) Sweep(ctx context.Context) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		now := db.Micros(s.now())
		if _, err := tx.Exec(ctx, `DELETE FROM session WHERE expires <= ? OR last_seen + idle <= ?`, now, now); err != nil {
			return fmt.Errorf("clear expired sessions: %w", err)
		}
		if _, err := tx.Exec(ctx, `DELETE FROM sign_in_failure WHERE until <= ?`, now); err != nil {
			return fmt.Errorf("clear old failures: %w", err)
		}
		return nil
	})
}
