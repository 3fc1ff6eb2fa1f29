package auth

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/oidc"
	"github.com/takodeploy/tako/octopus"
)

const (
	// identityKind is the kind of the external identities of service accounts.
	identityKind = "oidcidentities"
	// TokenLife is how long access tokens are good.
	TokenLife   = time.Hour
	tokenPrefix = "tako-access-"
	maxAccess   = 2048 // bytes of an access token
	// What access tokens are sealed for.
	tokenOwner, tokenField = "auth", "access token"
)

// Exchange is a token of an external issuer that is to be exchanged for an access token.
type Exchange struct {
	// Account is the external id of the service account, or its own.
	Account string
	Token   string
	// Address and UserAgent are for the audit trail and the limits; may be "".
	Address, UserAgent string
}

// AccessToken lets programs act as a service account until it expires. It is a
// secret.
type AccessToken struct {
	Token string
	Life  time.Duration
}

// pass is what is sealed in an access token. Nothing of it is stored: it is good as
// long as its identity is there as it was.
type pass struct {
	User, Identity string
	Print          string // of the identity, see fingerprint
	Expires        int64  // microseconds
}

// fingerprint changes with whom an identity lets in.
func fingerprint(v *octopus.OIDCIdentity) string {
	return hash(v.ServiceAccountID + "\n" + v.Issuer + "\n" + v.Subject + "\n" + string(v.Audience))
}

// ExternalID is the audience by which tokens say that they are for a service account
// of this installation. It follows from the account's id.
func (s *Service) ExternalID(account string) string {
	return uuid.NewSHA1(uuid.NameSpaceURL, []byte("tako:"+s.opt.Installation+":serviceaccount:"+account)).String()
}

// isAccessToken reports whether a text has the form of an access token.
func isAccessToken(text string) bool { return strings.HasPrefix(text, tokenPrefix) }

// ByAccessToken finds the service account of an access token. It answers
// fault.Unauthenticated when it has expired, or when the external identity by which
// it was got, or the account, is not there any more, was changed or disabled.
func (s *Service) ByAccessToken(ctx context.Context, token string) (*Principal, error) {
	if len(token) > maxAccess || !isAccessToken(token) || s.opt.Sealer == nil {
		return nil, refused(ByToken)
	}
	return s.recognize(ctx, ByToken, token)
}

// loadToken opens an access token and reads its owner.
func (s *Service) loadToken(ctx context.Context, g *generation, token string) (*credential, error) {
	ctx, cancel := context.WithTimeout(ctx, loadTimeout)
	defer cancel()
	envelope, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimPrefix(token, tokenPrefix))
	if err != nil {
		return nil, refused(ByToken)
	}
	plain, err := s.opt.Sealer.Open(ctx, tokenOwner, tokenField, string(envelope))
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return nil, &fault.Error{Kind: fault.Unauthenticated, Message: refused(ByToken).Error(), Cause: err}
	}
	var in pass
	if err := json.Unmarshal(plain, &in); err != nil {
		return nil, fmt.Errorf("read an access token: %w", err)
	}
	c := &credential{kind: ByToken, id: in.Identity, expires: in.Expires}
	if !c.good(s.now()) {
		return nil, expired(ByToken)
	}
	var owner *known
	err = s.db.Read(ctx, func(tx *db.Tx) error {
		var identity octopus.OIDCIdentity
		if err := s.store.Load(ctx, tx, identityKind, in.Identity, &identity); err != nil {
			return err
		}
		if identity.ServiceAccountID != in.User || fingerprint(&identity) != in.Print {
			return refused(ByToken)
		}
		owner, err = s.know(ctx, tx, g, in.User)
		return err
	})
	switch {
	case fault.Is(err, fault.NotFound):
		return nil, refused(ByToken)
	case err != nil:
		return nil, err
	case !owner.user.IsActive || !owner.user.IsService:
		return nil, fault.New(fault.Unauthenticated, "The user '%s' is not an active service account; ask an administrator to activate it.", owner.user.Username)
	}
	c.who = newPrincipal(owner.user, owner.access, ByToken, c.id)
	return c, nil
}

// Exchange gives an access token for a token of an issuer that an identity of the
// service account trusts. It answers fault.Invalid for a token that is no good or that
// no identity lets in, fault.TooMany when too many were tried from the address, and
// fault.Unavailable when the issuer does not answer.
//
// Failures are counted by the address alone, and by the address with the account: the
// account's id is no secret, and nobody else may be able to lock it out.
func (s *Service) Exchange(ctx context.Context, in Exchange) (*AccessToken, error) {
	if s.opt.Sealer == nil || s.opt.Issuers == nil {
		return nil, fault.New(fault.Unsupported, "This server does not exchange tokens.")
	}
	in.UserAgent = strings.ToValidUTF8(in.UserAgent[:min(len(in.UserAgent), maxSignIn)], "")
	in.Address = in.Address[:min(len(in.Address), maxSignIn)]
	in.Account = in.Account[:min(len(in.Account), maxSignIn)]
	ctx = db.WithActor(ctx, db.Actor{Username: "anonymous", IPAddress: in.Address, UserAgent: in.UserAgent})
	subjects := s.exchanges(in)
	if err := s.blocked(ctx, subjects); err != nil {
		return nil, err
	}
	account, err := s.accountOf(ctx, in.Account)
	if err != nil {
		return nil, err
	}
	var verified *oidc.Token
	out, err := s.exchange(ctx, in, account, &verified)
	// What a caller sends wrong counts; an issuer or a database that is down does not.
	if fault.Is(err, fault.Invalid) {
		if err := s.exchangeFailed(ctx, subjects, account, verified); err != nil {
			s.opt.Log.WarnContext(ctx, "a failed exchange of a token could not be noted", "error", err)
		}
	}
	return out, err
}

// exchange does it; verified is set once the token is known to be its issuer's.
func (s *Service) exchange(ctx context.Context, in Exchange, account string, verified **oidc.Token) (*AccessToken, error) {
	token, err := oidc.Parse(in.Token)
	if err != nil {
		return nil, err
	}
	// Only issuers that the account trusts are asked for anything.
	var trusted []octopus.OIDCIdentity
	if account != "" {
		if err := s.db.Read(ctx, func(tx *db.Tx) (err error) {
			trusted, err = s.identities(ctx, tx, account, token.Issuer)
			return err
		}); err != nil {
			return nil, err
		}
	}
	if len(trusted) == 0 {
		return nil, fault.New(fault.Invalid, "No service account has the id '%.100s' and trusts the issuer '%.200s'; check the audience, and the issuer of the account's OIDC identities.", in.Account, token.Issuer)
	}
	if err := s.opt.Issuers.Verify(ctx, token); err != nil {
		return nil, err
	}
	*verified = token
	var out *AccessToken
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		// What the account trusts may have been changed meanwhile.
		now, err := s.identities(ctx, tx, account, token.Issuer)
		if err != nil {
			return err
		}
		identity, err := s.fitting(now, account, token)
		if err != nil {
			return err
		}
		var user octopus.User
		if err := s.store.Load(ctx, tx, s.users.Name, account, &user); err != nil && !fault.Is(err, fault.NotFound) {
			return err
		}
		if !user.IsActive || !user.IsService {
			return fault.New(fault.Invalid, "The service account is not active; ask an administrator to activate it.")
		}
		out, err = s.issue(identity)
		if err != nil {
			return err
		}
		if err := s.forgiveExchanges(ctx, tx, in); err != nil {
			return err
		}
		const lead = "Service account "
		tx.Event(db.Event{
			Category: "LoginSucceeded", DocumentType: s.users.ItemType,
			Message:    lead + user.Username + " signed in as '" + token.Subject + "' of " + token.Issuer,
			Related:    []string{user.ID, identity.ID},
			References: []db.EventReference{{ID: user.ID, Start: len(lead), Length: len(user.Username)}},
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// identities are those of an account that trust an issuer.
func (s *Service) identities(ctx context.Context, tx *db.Tx, account, issuer string) (out []octopus.OIDCIdentity, err error) {
	query := docstore.Query{Where: []docstore.Match{{Path: "ServiceAccountId", Any: []string{account}}}}
	return out, s.store.Each(ctx, tx, identityKind, query, func(doc *docstore.Doc) error {
		one, err := docstore.Decode[octopus.OIDCIdentity](doc)
		if err == nil && one.Issuer == issuer {
			one.ID = doc.ID
			out = append(out, *one)
		}
		return err
	})
}

// fitting is the first identity that lets a token in.
func (s *Service) fitting(identities []octopus.OIDCIdentity, account string, token *oidc.Token) (*octopus.OIDCIdentity, error) {
	subject := false
	for i := range identities {
		one := &identities[i]
		if !oidc.Match(one.Subject, token.Subject) {
			continue
		}
		subject = true
		audience := string(one.Audience)
		if audience == "" {
			audience = s.ExternalID(account)
		}
		if token.For(audience) {
			return one, nil
		}
	}
	if subject {
		return nil, fault.New(fault.Invalid, "The token is for the audience '%.200s', not for this service account; ask the issuer for one with the account's id or the audience of its OIDC identity.", strings.Join(token.Audience(), ", "))
	}
	return nil, fault.New(fault.Invalid, "The subject of the token is '%s', which fits none of the service account's OIDC identities of this issuer.", token.Subject)
}

// issue makes an access token.
func (s *Service) issue(identity *octopus.OIDCIdentity) (*AccessToken, error) {
	plain, err := json.Marshal(pass{
		User: identity.ServiceAccountID, Identity: identity.ID, Print: fingerprint(identity), Expires: db.Micros(s.now().Add(TokenLife)),
	})
	if err != nil {
		return nil, err
	}
	envelope, err := s.opt.Sealer.Seal(tokenOwner, tokenField, plain)
	if err != nil {
		return nil, fmt.Errorf("seal an access token: %w", err)
	}
	return &AccessToken{Token: tokenPrefix + base64.RawURLEncoding.EncodeToString([]byte(envelope)), Life: TokenLife}, nil
}

// accountOf finds the service account that a caller names, among those that have
// external identities; "" when it is none of them.
func (s *Service) accountOf(ctx context.Context, name string) (string, error) {
	n, err := s.opt.Generation(ctx)
	if err != nil {
		return "", fmt.Errorf("ask for changes: %w", err)
	}
	g := s.cache.at(n)
	accounts := g.accounts.Load()
	if accounts == nil {
		all, err, _ := s.flight.Do(fmt.Sprint("accounts", n), func() (any, error) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), loadTimeout)
			defer cancel()
			return s.accounts(ctx)
		})
		if err != nil {
			return "", err
		}
		found := all.(map[string]string)
		accounts = &found
		g.accounts.Store(accounts)
	}
	return (*accounts)[strings.ToLower(name)], nil
}

// accounts are the ids of all service accounts that have external identities, by
// their own and their external ids in lower case.
func (s *Service) accounts(ctx context.Context) (map[string]string, error) {
	var all map[string]string
	err := s.db.Read(ctx, func(tx *db.Tx) error {
		all = map[string]string{}
		rows, err := tx.Query(ctx, `SELECT DISTINCT r.to_id FROM document_refs r WHERE r.from_kind = ? AND r.to_kind = ?`, identityKind, s.users.Name)
		if err != nil {
			return fmt.Errorf("list accounts with external identities: %w", err)
		}
		defer func() { _ = rows.Close() }() // Err below tells
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return fmt.Errorf("list accounts with external identities: %w", err)
			}
			all[strings.ToLower(id)], all[s.ExternalID(id)] = id, id
		}
		return rows.Err()
	})
	return all, err
}

// exchanges are whose failures count for an exchange.
func (s *Service) exchanges(in Exchange) []subject {
	from := network(in.Address)
	all := []subject{{hash("exchange " + strings.ToLower(in.Account) + " " + from), s.opt.Lockout.User, "for this service account"}}
	if from != "" {
		all = append(all, subject{hash("address " + from), s.opt.Lockout.Address, "from this address"})
	}
	return all
}

// blocked refuses an exchange when one of the subjects has failed too often. Contrary
// to sign-ins, those under way do not count: a token is not guessed, and many jobs of
// a build server begin at once.
func (s *Service) blocked(ctx context.Context, subjects []subject) error {
	return s.db.Read(ctx, func(tx *db.Tx) error {
		for _, sub := range subjects {
			var count, until int64
			err := tx.QueryRow(ctx, `SELECT f.count, f.until FROM sign_in_failure f WHERE f.subject = ?`, sub.hash).Scan(&count, &until)
			switch now := db.Micros(s.now()); {
			case errors.Is(err, sql.ErrNoRows):
			case err != nil:
				return fmt.Errorf("count failed exchanges: %w", err)
			case until > now && count >= int64(sub.most):
				return tooMany(sub, until-now)
			}
		}
		return nil
	})
}

// forgiveExchanges forgets the failures of the account from the address.
func (s *Service) forgiveExchanges(ctx context.Context, tx *db.Tx, in Exchange) error {
	if _, err := tx.Exec(ctx, `DELETE FROM sign_in_failure WHERE subject = ?`, s.exchanges(in)[0].hash); err != nil {
		return fmt.Errorf("forget failed exchanges: %w", err)
	}
	return nil
}

// exchangeFailed counts a failure and notes it in the audit trail. What a token says is
// noted only if its issuer has signed it.
func (s *Service) exchangeFailed(ctx context.Context, subjects []subject, account string, verified *oidc.Token) error {
	if err := s.attempt(ctx, subjects); err != nil && !fault.Is(err, fault.TooMany) {
		return err
	}
	return s.db.Write(ctx, func(tx *db.Tx) error {
		e := db.Event{Category: "LoginFailed", Message: "A token was refused for an unknown service account", DocumentType: s.users.ItemType}
		if account != "" {
			var user octopus.User
			if err := s.store.Load(ctx, tx, s.users.Name, account, &user); err != nil {
				return err
			}
			const lead = "A token was refused for service account "
			e.Message, e.Related = lead+user.Username, []string{account}
			e.References = []db.EventReference{{ID: account, Start: len(lead), Length: len(user.Username)}}
			if verified != nil {
				e.Message += ", of '" + verified.Subject + "' of " + verified.Issuer
			}
		}
		tx.Event(e)
		return nil
	})
}
