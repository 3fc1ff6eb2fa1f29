package auth_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/oidc"
	"github.com/takodeploy/tako/internal/oidc/oidctest"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/octopus"
)

// trusting is a world with an issuer, and a service account that trusts it.
type trusting struct {
	*world
	issuer          *oidctest.Issuer
	rsa, ec         oidctest.Key
	robot, identity string
	keyDir          string
	open            func(t *testing.T, d *db.DB, issuers *oidc.Verifier) *auth.Service
}

func newTrusting(t *testing.T, d *db.DB) *trusting {
	t.Helper()
	w := &trusting{world: newWorld(t, d), rsa: oidctest.RSA(t, "rsa", 2048), ec: oidctest.EC(t, "ec"), keyDir: t.TempDir()}
	w.issuer = oidctest.New(t, w.rsa, w.ec)
	w.open = func(t *testing.T, d *db.DB, issuers *oidc.Verifier) *auth.Service {
		t.Helper()
		keys, err := secret.Open(t.Context(), d, secret.Source{Dir: w.keyDir})
		if err != nil {
			t.Fatal(err)
		}
		s, _ := service(t, d, func(o *auth.Options) { o.Now, o.Sealer, o.Issuers = w.clock.now, keys, issuers })
		return s
	}
	w.Service = w.open(t, d, w.issuer.Verifier(w.clock.now))
	w.robot = w.user(`{"Username": "ci", "IsService": true}`)
	w.identity = w.trust(w.robot, "Main", "repo:acme/*:ref:refs/heads/main", "")
	return w
}

func (w *trusting) trust(account, name, subject, audience string) string {
	w.t.Helper()
	return w.made(w.admin, "oidcidentities", "", octopus.OIDCIdentity{ServiceAccountID: account, Name: name, Issuer: w.issuer.URL, Subject: subject, Audience: octopus.NullString(audience)})
}

const subjectOfMain = "repo:acme/app:ref:refs/heads/main"

// token is one that the account lets in.
func (w *trusting) token(key oidctest.Key) string {
	w.t.Helper()
	return key.Sign(w.t, w.issuer.Claims(w.clock.now(), subjectOfMain, w.ExternalID(w.robot)))
}

func (w *trusting) try(account, token string) (string, error) {
	w.t.Helper()
	got, err := w.Exchange(w.ctx, auth.Exchange{Account: account, Token: token, Address: "192.0.2.1", UserAgent: "ci"})
	if err != nil {
		return "", err
	}
	if got.Life != time.Hour {
		w.t.Errorf("a token for %s", got.Life)
	}
	return got.Token, nil
}

func (w *trusting) access() string {
	w.t.Helper()
	token, err := w.try(w.ExternalID(w.robot), w.token(w.ec))
	w.ok(err)
	return token
}

// bearer is who sends a request with a token.
func bearer(s *auth.Service, token string) (*auth.Principal, error) {
	r := httptest.NewRequest(http.MethodPost, "/api/projects", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	return s.FromRequest(r)
}

func TestExchange(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		w := newTrusting(t, d)
		w.team("Builders", "userroles-projectviewer", "Spaces-1", w.robot)
		for _, key := range []oidctest.Key{w.rsa, w.ec} {
			for _, account := range []string{w.ExternalID(w.robot), strings.ToUpper(w.ExternalID(w.robot)), w.robot} {
				sent := w.token(key)
				token, err := w.try(account, sent)
				w.ok(err)
				who, err := bearer(w.Service, token)
				w.ok(err)
				if a := who.Actor(); who.UserID() != w.robot || who.Credential() != auth.ByToken || a.Identity != "AccessToken" || a.Username != "ci" {
					t.Errorf("it is %+v by %s", a, who.Credential())
				}
				if !who.Can(octopus.PermProjectView, "Spaces-1", auth.Target{}) || who.Can(octopus.PermProjectEdit, "Spaces-1", auth.Target{}) {
					t.Error("it may not do what the account may")
				}
				for _, leak := range []string{sent, token, strings.Split(sent, ".")[2]} {
					if n := w.count(`SELECT count(*) FROM events WHERE message LIKE '%' || ? || '%' OR details LIKE '%' || ? || '%'`, leak, leak); n != 0 {
						t.Errorf("the audit trail has the token %d times", n)
					}
				}
				if _, err := bearer(w.Service, token[:len(token)-2]); !fault.Is(err, fault.Unauthenticated) {
					t.Errorf("a token that was cut off: %v", err)
				}
			}
		}
		if n := w.count(`SELECT count(*) FROM events WHERE category = 'LoginSucceeded' AND ip_address = '192.0.2.1' AND message = ?`, "Service account ci signed in as '"+subjectOfMain+"' of "+w.issuer.URL); n != 6 {
			t.Errorf("the audit trail tells of %d sign-ins", n)
		}
		if n := w.issuer.Asked(); n != 1 {
			t.Errorf("the issuer was asked %d times", n)
		}
		// With an audience of its own, the account's id is none.
		w.trust(w.robot, "Other", "sub", "api://tako")
		for audience, kind := range map[string]fault.Kind{"api://tako": fault.Internal, w.ExternalID(w.robot): fault.Invalid} {
			_, err := w.try(w.robot, w.ec.Sign(t, w.issuer.Claims(w.clock.now(), "sub", audience)))
			if kind == fault.Internal {
				w.ok(err)
			} else {
				w.refused(err, kind)
			}
		}
	})
}

func TestExchangeRefuses(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		w := newTrusting(t, d)
		other, idle := w.user(`{"Username": "other", "IsService": true}`), w.user(`{"Username": "idle", "IsService": true}`)
		w.trust(idle, "Main", subjectOfMain, "")
		w.ok(change(w.world, w.admin, "users", idle, func(u *octopus.User) { u.IsActive = false }))
		external := w.ExternalID(w.robot)
		if external == w.ExternalID(other) {
			t.Fatal("two accounts have the same external id")
		}
		signed := func(subject, audience string, changes map[string]any) string {
			claims := w.issuer.Claims(w.clock.now(), subject, audience)
			for name, value := range changes {
				claims[name] = value
			}
			return w.ec.Sign(t, claims)
		}
		stranger := oidctest.EC(t, "ec")
		for name, one := range map[string]struct{ account, token, says string }{
			"unknown account":       {"nobody", w.token(w.ec), "No service account has the id 'nobody'"},
			"an account without":    {w.ExternalID(other), w.token(w.ec), "and trusts the issuer"},
			"another issuer":        {external, signed(subjectOfMain, external, map[string]any{"iss": "https://example.com"}), "trusts the issuer 'https://example.com'"},
			"another subject":       {external, signed("repo:evil/app:ref:refs/heads/main", external, nil), "fits none"},
			"a subject in capitals": {external, signed(strings.ToUpper(subjectOfMain), external, nil), "fits none"},
			"another audience":      {external, signed(subjectOfMain, w.ExternalID(other), nil), "is for the audience"},
			"the id as audience":    {external, signed(subjectOfMain, w.robot, nil), "is for the audience"},
			"a wrong signature":     {external, w.token(stranger), "signature"},
			"an expired token":      {external, signed(subjectOfMain, external, map[string]any{"exp": w.clock.now().Add(-time.Hour).Unix()}), "expired"},
			"an inactive account":   {w.ExternalID(idle), signed(subjectOfMain, w.ExternalID(idle), nil), "not active"},
			"no token":              {external, "hello", "no signed JSON Web Token"},
		} {
			_, err := w.Exchange(w.ctx, auth.Exchange{Account: one.account, Token: one.token, Address: "192.0.2.7"})
			if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), one.says) {
				t.Errorf("%s: %v", name, err)
			}
			w.clock.add(time.Second)
		}
		if n := w.count(`SELECT count(*) FROM events WHERE category = 'LoginFailed' AND ip_address = '192.0.2.7'`); n != 11 {
			t.Errorf("the audit trail tells of %d refusals", n)
		}
		// What nobody has signed is not in it.
		if n := w.count(`SELECT count(*) FROM events WHERE category = 'LoginFailed' AND message LIKE '%example.com%'`); n != 0 {
			t.Error("the audit trail tells what a token says that was not verified")
		}
		if n := w.count(`SELECT count(*) FROM events WHERE category = 'LoginFailed' AND message LIKE '%service account ci, of ''repo:evil/%'`); n != 1 {
			t.Error("the audit trail does not tell of the verified subject")
		}
		for _, made := range []string{"tako-access-", "tako-access-AAAA", "tako-access-!", "tako-access-" + strings.Repeat("A", 5000)} {
			if _, err := bearer(w.Service, made); !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("%.30s: %v", made, err)
			}
		}
	})
}

// An access token ends with its hour, and with what it was given for.
func TestAccessTokensEnd(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		w := newTrusting(t, d)
		for _, one := range []struct {
			name string
			end  func() error
			undo func()
		}{
			{"its hour", func() error { w.clock.add(time.Hour); return nil }, nil},
			{"the account is disabled", func() error {
				return change(w.world, w.admin, "users", w.robot, func(u *octopus.User) { u.IsActive = false })
			}, func() {
				w.ok(change(w.world, w.admin, "users", w.robot, func(u *octopus.User) { u.IsActive = true }))
			}},
			{"the identity lets others in", func() error {
				return change(w.world, w.admin, "oidcidentities", w.identity, func(v *octopus.OIDCIdentity) { v.Subject = "repo:acme/app:*" })
			}, nil},
			{"the identity is removed", func() error { return w.remove(w.admin, "oidcidentities", w.identity) }, func() {
				w.identity = w.trust(w.robot, "Main", subjectOfMain, "")
			}},
			{"the account is removed", func() error { return w.remove(w.admin, "users", w.robot) }, nil},
		} {
			token := w.access()
			w.clock.add(time.Minute)
			if _, err := bearer(w.Service, token); err != nil {
				t.Fatalf("before %s: %v", one.name, err)
			}
			w.ok(one.end())
			if _, err := bearer(w.Service, token); !fault.Is(err, fault.Unauthenticated) {
				t.Errorf("after %s: %v", one.name, err)
			}
			if one.undo != nil {
				one.undo()
			}
		}
	})
}

// Other processes on the same database, with the same keys, take the tokens, and hear
// of their end.
func TestAccessTokensInAnotherProcess(t *testing.T) {
	t.Parallel()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			url := dbtest.URL(t, dialect)
			w := newTrusting(t, dbtest.OpenURL(t, url))
			second := w.open(t, dbtest.OpenURL(t, url), nil)
			token := w.access()
			who, err := bearer(second, token)
			w.ok(err)
			if who.UserID() != w.robot {
				t.Errorf("the other process takes it for %s", who.UserID())
			}
			_, err = second.Exchange(w.ctx, auth.Exchange{Account: w.robot, Token: token})
			w.refused(err, fault.Unsupported) // it has no issuers
			w.ok(w.remove(w.admin, "oidcidentities", w.identity))
			deadline := time.Now().Add(2 * time.Minute)
			for {
				_, err := bearer(second, token)
				if fault.Is(err, fault.Unauthenticated) {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("the other process still takes the token: %v", err)
				}
				<-time.After(5 * time.Millisecond)
			}
		})
	}
}

func TestExchangeLockout(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		w := newTrusting(t, d)
		from := func(address, token string) error {
			_, err := w.Exchange(w.ctx, auth.Exchange{Account: w.robot, Token: token, Address: address})
			return err
		}
		// An issuer that is down is nobody's failure.
		w.issuer.Down(true)
		for range 12 {
			w.refused(from("192.0.2.1", w.token(w.ec)), fault.Unavailable)
		}
		w.issuer.Down(false)
		w.clock.add(time.Minute)
		bad := w.token(oidctest.EC(t, "ec"))
		for range 9 {
			w.refused(from("192.0.2.1", bad), fault.Invalid)
		}
		w.ok(from("192.0.2.1", w.token(w.ec))) // takes the others back
		for range 10 {
			w.refused(from("192.0.2.1", bad), fault.Invalid)
		}
		err := from("192.0.2.1", w.token(w.ec))
		w.refused(err, fault.TooMany)
		if !strings.Contains(err.Error(), "15 minutes") {
			t.Errorf("the refusal says %q", err)
		}
		w.ok(from("192.0.2.2", w.token(w.ec))) // nobody locks an account out for others
		w.clock.add(15 * time.Minute)
		w.ok(from("192.0.2.1", w.token(w.ec)))
		// 19 so far from the address, but long ago.
		for i := range 100 {
			_, err := w.Exchange(w.ctx, auth.Exchange{Account: "unknown " + string(rune('a'+i/5)), Token: bad, Address: "192.0.2.1"})
			w.refused(err, fault.Invalid)
		}
		w.refused(from("192.0.2.1", w.token(w.ec)), fault.TooMany)
	})
}
