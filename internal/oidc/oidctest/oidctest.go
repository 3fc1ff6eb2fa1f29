// Package oidctest is an issuer of OpenID Connect tokens for tests: a server on the
// loopback address, with HTTPS, a discovery document and keys.
package oidctest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/takodeploy/tako/internal/oidc"
)

// Key signs tokens.
type Key struct {
	ID        string
	Algorithm jose.SignatureAlgorithm
	Private   crypto.Signer
}

// RSA makes a key for RS256.
func RSA(t testing.TB, id string, bits int) Key {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		t.Fatal(err)
	}
	return Key{id, jose.RS256, private}
}

// EC makes a key for ES256.
func EC(t testing.TB, id string) Key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return Key{id, jose.ES256, private}
}

// Sign makes a token of claims.
func (k Key) Sign(t testing.TB, claims any) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: k.Algorithm, Key: jose.JSONWebKey{Key: k.Private, KeyID: k.ID}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	text, err := jwt.Signed(signer).Claims(claims).Serialize()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// Issuer is a running issuer.
type Issuer struct {
	URL   string
	roots *x509.CertPool

	mu     sync.Mutex
	keys   []Key
	down   bool
	asked  int
	change func(document map[string]any)
}

// New starts an issuer that lists keys, until the test ends.
func New(t testing.TB, keys ...Key) *Issuer {
	t.Helper()
	i := &Issuer{keys: keys, roots: x509.NewCertPool()}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /.well-known/openid-configuration", func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		document := map[string]any{"issuer": i.URL, "jwks_uri": i.URL + "/keys"}
		if i.change != nil {
			i.change(document)
		}
		i.answer(w, document)
	})
	mux.HandleFunc("GET /keys", func(w http.ResponseWriter, _ *http.Request) {
		i.mu.Lock()
		defer i.mu.Unlock()
		i.asked++
		keys := []any{map[string]string{"kty": "of another world", "kid": "odd"}}
		for _, k := range i.keys {
			keys = append(keys, jose.JSONWebKey{Key: k.Private.Public(), KeyID: k.ID, Algorithm: string(k.Algorithm), Use: "sig"})
		}
		i.answer(w, map[string]any{"keys": keys})
	})
	srv := httptest.NewTLSServer(mux)
	t.Cleanup(srv.Close)
	i.roots.AddCert(srv.Certificate())
	i.mu.Lock()
	defer i.mu.Unlock()
	i.URL = srv.URL
	return i
}

func (i *Issuer) answer(w http.ResponseWriter, v any) {
	if i.down {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	if err := json.NewEncoder(w).Encode(v); err != nil {
		w.WriteHeader(http.StatusInternalServerError)
	}
}

// Verifier trusts the issuer's certificate and its address.
func (i *Issuer) Verifier(now func() time.Time) *oidc.Verifier {
	return oidc.New(oidc.Config{Allow: netip.Addr.IsLoopback, Roots: i.roots, Now: now})
}

// Guarded is a verifier that trusts the certificate but may connect nowhere.
func (i *Issuer) Guarded() *oidc.Verifier { return oidc.New(oidc.Config{Roots: i.roots}) }

// List has the issuer list other keys.
func (i *Issuer) List(keys ...Key) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.keys = keys
}

// Down has the issuer answer with failures, or no longer.
func (i *Issuer) Down(down bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.down = down
}

// Change has the discovery document changed before it is sent.
func (i *Issuer) Change(change func(document map[string]any)) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.change = change
}

// Asked is how often the keys were asked for.
func (i *Issuer) Asked() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.asked
}

// Claims of a token that is good for ten minutes from now.
func (i *Issuer) Claims(now time.Time, subject string, audience ...string) map[string]any {
	return map[string]any{
		"iss": i.URL, "sub": subject, "aud": audience, "iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(10 * time.Minute).Unix(), "jti": fmt.Sprint(now.UnixNano()),
	}
}
