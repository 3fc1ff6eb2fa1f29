package oidc

import (
	"context"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/go-jose/go-jose/v4"
	"golang.org/x/sync/singleflight"

	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/fault"
)

// Limits of what is asked of issuers.
const (
	// keep is how long keys are used before they are fetched again: a key that an
	// issuer takes back is good for no longer.
	keep = time.Hour
	// pause is how long an issuer is not asked again, when a token names a key that
	// it did not have, or when it did not answer.
	pause = 10 * time.Second
	// fetchTimeout is how long an issuer has for both of its documents.
	fetchTimeout = 15 * time.Second
	maxDocument  = 1 << 20 // bytes
	maxKeys      = 200     // of one issuer
	maxIssuers   = 500     // whose keys are kept
	minRSA       = 2048    // bits
)

// Config of New.
type Config struct {
	// Allow says which addresses issuers may be at; nil is none.
	Allow func(netip.Addr) bool
	// Now is the clock; time.Now unless set.
	Now func() time.Time
	// Roots sign the certificates of issuers; those of the system unless set.
	Roots *x509.CertPool
}

// Verifier verifies tokens by the keys of their issuers. It is safe for concurrent use.
type Verifier struct {
	client *http.Client
	now    func() time.Time
	flight singleflight.Group

	mu      sync.Mutex
	issuers map[string]*issuer
}

// issuer is what was last heard of one. It is immutable.
type issuer struct {
	keys    []jose.JSONWebKey
	fetched time.Time // when it gave the keys
	asked   time.Time // the last time, whether it answered or not
	err     error     // of the last time
}

// errAddress says that an issuer is at an address that it must not be at.
var errAddress = errors.New("its address is one that the server must not connect to: its own host, or link-local")

// New makes a verifier.
func New(cfg Config) *Verifier {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	dial := egress.Dialer(net.Dialer{
		Timeout: 10 * time.Second,
		// Looked at when it is known where the connection goes, so that no name
		// leads elsewhere.
		Control: func(_, address string, _ syscall.RawConn) error {
			at, err := netip.ParseAddrPort(address)
			if err != nil || cfg.Allow == nil || !cfg.Allow(at.Addr().WithZone("")) {
				return errAddress
			}
			return nil
		},
	})
	return &Verifier{
		now: cfg.Now, issuers: map[string]*issuer{},
		client: &http.Client{
			Timeout:       fetchTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DialContext: dial, TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 64 << 10,
				TLSClientConfig: &tls.Config{RootCAs: cfg.Roots, MinVersion: tls.VersionTLS12},
				MaxIdleConns:    16, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute, ForceAttemptHTTP2: true,
			},
		},
	}
}

// Verify checks that a token was signed by the issuer that it names and that now is
// within its time, give or take a minute. The caller must have made sure that it
// trusts the issuer. It answers fault.Invalid for a token that is no good, and
// fault.Unavailable when the issuer's keys cannot be had.
func (v *Verifier) Verify(ctx context.Context, t *Token) error {
	known, err := v.keys(ctx, t.Issuer, false)
	if err != nil {
		return err
	}
	keys := t.candidates(known.keys)
	if len(keys) == 0 {
		// Issuers change their keys; but a token may name any.
		if known, err = v.keys(ctx, t.Issuer, true); err != nil {
			return err
		}
		if keys = t.candidates(known.keys); len(keys) == 0 {
			return fault.New(fault.Invalid, "The token is signed by the key %.100q, which its issuer does not list.", t.kid)
		}
	}
	return t.verify(keys, v.now())
}

// keys are those of an issuer: the ones that are kept or, with anew, those that it
// has now.
func (v *Verifier) keys(ctx context.Context, name string, anew bool) (*issuer, error) {
	known := v.known(name)
	if !anew && v.within(known.fetched, keep) {
		return known, nil
	}
	if !v.within(known.asked, pause) {
		// Several may wait for the answer, which therefore ends with none of them.
		answer := v.flight.DoChan(name, func() (any, error) { return v.fetch(context.WithoutCancel(ctx), name), nil })
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case got := <-answer:
			known = got.Val.(*issuer)
		}
	}
	if known.err != nil && (anew || !v.within(known.fetched, keep)) {
		return nil, &fault.Error{Kind: fault.Unavailable, Message: fmt.Sprintf("The keys of the issuer %s cannot be had now; try again in a moment.", name), Cause: known.err}
	}
	return known, nil
}

// known is what was last heard of an issuer, if anything.
func (v *Verifier) known(name string) *issuer {
	v.mu.Lock()
	defer v.mu.Unlock()
	if known := v.issuers[name]; known != nil {
		return known
	}
	return &issuer{}
}

// within reports whether a time is past, by less than d.
func (v *Verifier) within(t time.Time, d time.Duration) bool {
	since := v.now().Sub(t)
	return !t.IsZero() && since >= 0 && since < d
}

// fetch asks an issuer for its keys, and keeps the answer. One that does not answer
// keeps the keys that it has given.
func (v *Verifier) fetch(ctx context.Context, name string) *issuer {
	before := v.known(name)
	if v.within(before.asked, pause) {
		return before // by somebody who was just before
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	keys, err := v.ask(ctx, name)
	now := v.now()
	got := &issuer{keys: keys, fetched: now, asked: now}
	if err != nil {
		got = &issuer{keys: before.keys, fetched: before.fetched, asked: now, err: err}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, there := v.issuers[name]; !there && len(v.issuers) >= maxIssuers {
		for other := range v.issuers { // any: it is asked again when it is needed
			delete(v.issuers, other)
			break
		}
	}
	v.issuers[name] = got
	return got
}

func (v *Verifier) ask(ctx context.Context, name string) ([]jose.JSONWebKey, error) {
	var found struct {
		Issuer string `json:"issuer"`
		Keys   string `json:"jwks_uri"`
	}
	if err := v.get(ctx, strings.TrimSuffix(name, "/")+"/.well-known/openid-configuration", &found); err != nil {
		return nil, fmt.Errorf("discovery document: %w", err)
	}
	if found.Issuer != name {
		return nil, fmt.Errorf("the discovery document is of the issuer %.200q", found.Issuer)
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := v.get(ctx, found.Keys, &set); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	var keys []jose.JSONWebKey
	for _, text := range set.Keys[:min(len(set.Keys), maxKeys)] {
		var k jose.JSONWebKey
		// One of a kind that we do not know is no reason to do without the others.
		if json.Unmarshal(text, &k) == nil && usable(k) {
			keys = append(keys, k)
		}
	}
	if len(keys) == 0 {
		return nil, errors.New("keys: there is none that signs tokens")
	}
	return keys, nil
}

// usable reports whether a key may verify signatures.
func usable(k jose.JSONWebKey) bool {
	if !k.Valid() || !k.IsPublic() || k.Use != "" && k.Use != "sig" {
		return false
	}
	public, ok := k.Key.(*rsa.PublicKey)
	return !ok || public.N.BitLen() >= minRSA
}

// get reads a JSON document over HTTPS.
func (v *Verifier) get(ctx context.Context, address string, into any) error {
	at, err := url.Parse(address)
	if err != nil || at.Scheme != "https" || at.Host == "" || at.User != nil {
		return fmt.Errorf("%.200q is not an address with https", address)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "Tako")
	resp, err := v.client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }() // it was only read
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %d", address, resp.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", address, err)
	case len(body) > maxDocument:
		return fmt.Errorf("%s has more than %d bytes", address, maxDocument)
	}
	if err := json.Unmarshal(body, into); err != nil {
		return fmt.Errorf("read %s: %w", address, err)
	}
	return nil
}
