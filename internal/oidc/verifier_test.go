package oidc_test

import (
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/oidc"
	"github.com/takodeploy/tako/internal/oidc/oidctest"
)

// clock is a clock that tests move.
type clock struct{ at atomic.Int64 }

func newClock() *clock {
	c := &clock{}
	c.at.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixNano())
	return c
}

func (c *clock) now() time.Time      { return time.Unix(0, c.at.Load()) }
func (c *clock) add(d time.Duration) { c.at.Add(int64(d)) }

func verify(t *testing.T, v *oidc.Verifier, text string) error {
	t.Helper()
	token, err := oidc.Parse(text)
	if err != nil {
		return err
	}
	return v.Verify(t.Context(), token)
}

// refused checks the kind of a refusal, and a part of its sentence.
func refused(t *testing.T, err error, kind fault.Kind, part string) {
	t.Helper()
	if !fault.Is(err, kind) || !strings.Contains(strings.Join(fault.Messages(err), " "), part) {
		t.Errorf("got %v, want a fault of the kind %q with %q", err, kind, part)
	}
}

func raw(header, claims string) string {
	return base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "."
}

func TestTokens(t *testing.T) {
	t.Parallel()
	c := newClock()
	rsa, ec, weak, stranger := oidctest.RSA(t, "rsa", 2048), oidctest.EC(t, "ec"), oidctest.RSA(t, "weak", 1024), oidctest.EC(t, "ec")
	issuer := oidctest.New(t, rsa, ec, weak)
	v := issuer.Verifier(c.now)
	claims := issuer.Claims(c.now(), "repo:acme/app", "me", "others")
	with := func(name string, value any) map[string]any {
		changed := issuer.Claims(c.now(), "repo:acme/app", "me")
		if changed[name] = value; value == nil {
			delete(changed, name)
		}
		return changed
	}

	for _, key := range []oidctest.Key{rsa, ec, {Algorithm: rsa.Algorithm, Private: rsa.Private}, {Algorithm: ec.Algorithm, Private: ec.Private}} {
		token, err := oidc.Parse(key.Sign(t, claims))
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Verify(t.Context(), token); err != nil {
			t.Errorf("key %q by %s: %v", key.ID, key.Algorithm, err)
		}
		if token.Issuer != issuer.URL || token.Subject != "repo:acme/app" || !token.For("me") || !token.For("others") || token.For("m") {
			t.Errorf("read as %+v", token)
		}
	}

	// By a shared secret which is the public key, as it was once taken.
	public, err := jose.JSONWebKey{Key: rsa.Private.Public()}.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	hmac, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: public, KeyID: "rsa"}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	shared, err := jwt.Signed(hmac).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	body := fmt.Sprintf(`{"iss":%q,"sub":"s","exp":%d}`, issuer.URL, c.now().Add(time.Hour).Unix())
	good := rsa.Sign(t, claims)
	parts := strings.Split(good, ".")
	other := strings.Split(rsa.Sign(t, with("sub", "repo:evil/app")), ".")

	for name, one := range map[string]struct{ token, part string }{
		"none":                    {raw(`{"alg":"none"}`, body), "none"},
		"none in another case":    {raw(`{"alg":"NonE"}`, body), "NonE"},
		"a shared secret":         {shared, "HS256"},
		"another key":             {stranger.Sign(t, claims), "not by a key of its issuer"},
		"other claims":            {parts[0] + "." + other[1] + "." + parts[2], "not by a key of its issuer"},
		"a short key":             {weak.Sign(t, claims), "does not list"},
		"another key's name":      {oidctest.Key{ID: "ec", Algorithm: rsa.Algorithm, Private: rsa.Private}.Sign(t, claims), "does not list"},
		"unknown key":             {oidctest.EC(t, "new").Sign(t, claims), "does not list"},
		"expired":                 {rsa.Sign(t, with("exp", c.now().Add(-2*time.Minute).Unix())), "expired"},
		"without end":             {rsa.Sign(t, with("exp", nil)), "exp"},
		"not yet":                 {rsa.Sign(t, with("nbf", c.now().Add(2*time.Minute).Unix())), "time to come"},
		"issued in times to come": {rsa.Sign(t, with("iat", c.now().Add(2*time.Minute).Unix())), "time to come"},
		"without issuer":          {rsa.Sign(t, with("iss", nil)), "lacks an issuer"},
		"without subject":         {rsa.Sign(t, with("sub", nil)), "lacks an issuer or a subject"},
		"a long subject":          {rsa.Sign(t, with("sub", strings.Repeat("x", 1025))), "longer than"},
		"no token":                {"hello", "no signed JSON Web Token"},
		"a large one":             {strings.Repeat("x", oidc.MaxToken+1), "bytes"},
	} {
		err := verify(t, v, one.token)
		if err == nil {
			t.Errorf("%s: is taken", name)
			continue
		}
		t.Run(name, func(t *testing.T) { refused(t, err, fault.Invalid, one.part) })
	}
	for name, value := range map[string]any{"exp": c.now().Add(-30 * time.Second).Unix(), "nbf": c.now().Add(30 * time.Second).Unix()} {
		if err := verify(t, v, ec.Sign(t, with(name, value))); err != nil {
			t.Errorf("a clock that is half a minute off (%s): %v", name, err)
		}
	}
}

// An issuer that changes its keys is asked again, but not whenever somebody names a
// key; and what it has taken back is good for an hour at most.
func TestKeysAreKept(t *testing.T) {
	t.Parallel()
	c := newClock()
	first, second := oidctest.EC(t, "1"), oidctest.EC(t, "2")
	issuer := oidctest.New(t, first)
	v := issuer.Verifier(c.now)
	sign := func(k oidctest.Key) string { return k.Sign(t, issuer.Claims(c.now(), "s", "a")) }
	asked := func(want int) {
		t.Helper()
		if got := issuer.Asked(); got != want {
			t.Errorf("the keys were asked for %d times, want %d", got, want)
		}
	}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if err := verify(t, v, sign(first)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	asked(1)
	issuer.List(second)
	for range 20 {
		refused(t, verify(t, v, sign(second)), fault.Invalid, "does not list")
	}
	asked(1)
	c.add(11 * time.Second)
	if err := verify(t, v, sign(second)); err != nil {
		t.Error(err)
	}
	asked(2)
	refused(t, verify(t, v, sign(first)), fault.Invalid, "does not list")
	asked(2)

	// Down: the keys that are there serve on, until their hour is over.
	issuer.Down(true)
	c.add(11 * time.Second)
	refused(t, verify(t, v, sign(first)), fault.Unavailable, issuer.URL)
	if err := verify(t, v, sign(second)); err != nil {
		t.Errorf("with a key that is kept: %v", err)
	}
	c.add(time.Hour)
	refused(t, verify(t, v, sign(second)), fault.Unavailable, "cannot be had")
	issuer.Down(false)
	refused(t, verify(t, v, sign(second)), fault.Unavailable, "cannot be had") // it was asked just now
	c.add(11 * time.Second)
	if err := verify(t, v, sign(second)); err != nil {
		t.Error(err)
	}
	asked(3)
	issuer.List(first)
	c.add(time.Hour)
	refused(t, verify(t, v, sign(second)), fault.Invalid, "does not list")
}

func TestIssuersThatAreNotOnesOwn(t *testing.T) {
	t.Parallel()
	key := oidctest.EC(t, "1")
	for name, change := range map[string]func(issuer string, document map[string]any){
		"another issuer": func(_ string, d map[string]any) { d["issuer"] = "https://example.com" },
		"keys without TLS": func(issuer string, d map[string]any) {
			d["jwks_uri"] = strings.Replace(issuer, "https", "http", 1) + "/keys"
		},
		"keys in a file":    func(_ string, d map[string]any) { d["jwks_uri"] = "file:///etc/passwd" },
		"no keys":           func(_ string, d map[string]any) { delete(d, "jwks_uri") },
		"an endless answer": func(_ string, d map[string]any) { d["more"] = strings.Repeat("x", 1<<20) },
		"no such document":  func(issuer string, d map[string]any) { d["jwks_uri"] = issuer + "/nothing" },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			issuer := oidctest.New(t, key)
			issuer.Change(func(d map[string]any) { change(issuer.URL, d) })
			refused(t, verify(t, issuer.Verifier(time.Now), key.Sign(t, issuer.Claims(time.Now(), "s", "a"))), fault.Unavailable, "cannot be had")
		})
	}
	issuer := oidctest.New(t, key)
	err := verify(t, issuer.Guarded(), key.Sign(t, issuer.Claims(time.Now(), "s", "a")))
	refused(t, err, fault.Unavailable, "cannot be had")
	if err == nil || !strings.Contains(err.Error(), "must not connect") || issuer.Asked() != 0 {
		t.Errorf("an address that is not allowed: %v", err)
	}
	plain := strings.Replace(issuer.URL, "https", "http", 1)
	claims := issuer.Claims(time.Now(), "s", "a")
	claims["iss"] = plain
	refused(t, verify(t, issuer.Verifier(time.Now), key.Sign(t, claims)), fault.Unavailable, plain)
}

func TestMatch(t *testing.T) {
	t.Parallel()
	for _, one := range []struct {
		pattern, text string
		want          bool
	}{
		{"repo:acme/app:ref:refs/heads/main", "repo:acme/app:ref:refs/heads/main", true},
		{"repo:acme/app:ref:refs/heads/main", "repo:acme/app:ref:refs/heads/main2", false},
		{"repo:acme/*", "repo:acme/app:ref:refs/heads/main", true},
		{"repo:acme/*", "repo:Acme/app", false},
		{"repo:acme/*", "x repo:acme/app", false},
		{"repo:acme/*:main", "repo:acme/app:main:other", false},
		{"repo:*/app:*:main", "repo:a/b/app:x:main:main", true},
		{"v?.?", "v1.2", true},
		{"v?.?", "v1.23", false},
		{"v?", "v\u00e9", true},
		{"a.c", "abc", false},
		{"*", "", true},
		{"?", "", false},
	} {
		if got := oidc.Match(one.pattern, one.text); got != one.want {
			t.Errorf("Match(%q, %q) is %t", one.pattern, one.text, got)
		}
	}
}

// TestMatchOfParts: a text fits the pattern that comes of it by putting ? for letters
// and * for parts, and does not with a letter that it has not in front of the pattern.
func TestMatchOfParts(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringOfN(rapid.RuneFrom([]rune("ab")), 1, 30, -1).Draw(t, "text")
		var pattern strings.Builder
		for rest := text; rest != ""; {
			switch rapid.IntRange(0, 2).Draw(t, "how") {
			case 0:
				pattern.WriteByte(rest[0])
				rest = rest[1:]
			case 1:
				pattern.WriteByte('?')
				rest = rest[1:]
			default:
				pattern.WriteByte('*')
				rest = rest[rapid.IntRange(0, len(rest)).Draw(t, "n"):]
			}
		}
		if !oidc.Match(pattern.String(), text) {
			t.Fatalf("%q does not fit %q", text, pattern.String())
		}
		if oidc.Match("c"+pattern.String(), text) {
			t.Fatalf("%q fits %q", text, "c"+pattern.String())
		}
	})
}
