package oidc

import (
	"errors"
	"slices"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/takodeploy/tako/internal/fault"
)

// Limits of tokens.
const (
	// MaxToken bounds a token, in bytes.
	MaxToken = 16 << 10
	// maxClaim bounds the issuer and the subject of a token, in bytes.
	maxClaim = 1024
	// skew is how far the issuer's clock may be from ours.
	skew = time.Minute
)

// algorithms are those by which tokens may be signed: all have a public key. Neither
// "none" nor one with a shared secret is among them, so that no token is verified
// by taking a public key for a secret.
func algorithms() []jose.SignatureAlgorithm {
	return []jose.SignatureAlgorithm{
		jose.RS256, jose.RS384, jose.RS512, jose.PS256, jose.PS384, jose.PS512,
		jose.ES256, jose.ES384, jose.ES512, jose.EdDSA,
	}
}

// Token is a token that was read and, before [Verifier.Verify] says so, not verified.
type Token struct {
	signed   *jwt.JSONWebToken
	kid, alg string
	// Issuer and Subject are what the token says of itself: nothing to rely on
	// before it is verified.
	Issuer, Subject string
	audience        []string
}

// For reports whether the token is for an audience. As with Issuer, that means
// nothing before the token is verified.
func (t *Token) For(audience string) bool { return slices.Contains(t.audience, audience) }

// Audience are those whom the token is for. The caller must not change it.
func (t *Token) Audience() []string { return t.audience }

// Parse reads a token without verifying it. It answers fault.Invalid for what is no
// token, or one that is signed in a way that is not taken.
func Parse(text string) (*Token, error) {
	if len(text) > MaxToken {
		return nil, fault.New(fault.Invalid, "The token has %d bytes; at most %d are taken.", len(text), MaxToken)
	}
	signed, err := jwt.ParseSigned(text, algorithms())
	if err != nil || len(signed.Headers) != 1 {
		var unexpected *jose.ErrUnexpectedSignatureAlgorithm
		if errors.As(err, &unexpected) {
			return nil, fault.New(fault.Invalid, "The token is signed by '%.20s'; use RS256, ES256 or another algorithm that has a public key.", unexpected.Got)
		}
		return nil, fault.New(fault.Invalid, "What was sent is no signed JSON Web Token.")
	}
	var claims jwt.Claims
	if err := signed.UnsafeClaimsWithoutVerification(&claims); err != nil {
		return nil, fault.New(fault.Invalid, "The claims of the token cannot be read.")
	}
	switch {
	case claims.Issuer == "" || claims.Subject == "":
		return nil, fault.New(fault.Invalid, "The token lacks an issuer or a subject (iss, sub).")
	case len(claims.Issuer) > maxClaim || len(claims.Subject) > maxClaim:
		return nil, fault.New(fault.Invalid, "The issuer or the subject of the token is longer than %d bytes.", maxClaim)
	}
	return &Token{
		signed: signed, kid: signed.Headers[0].KeyID, alg: signed.Headers[0].Algorithm,
		Issuer: claims.Issuer, Subject: claims.Subject, audience: claims.Audience,
	}, nil
}

// verify checks the signature by a key, and the times that the token names.
func (t *Token) verify(keys []jose.JSONWebKey, now time.Time) error {
	var claims jwt.Claims
	good := slices.ContainsFunc(keys, func(k jose.JSONWebKey) bool {
		claims = jwt.Claims{}
		return t.signed.Claims(k.Key, &claims) == nil
	})
	if !good {
		return fault.New(fault.Invalid, "The token's signature is not by a key of its issuer.")
	}
	if claims.Expiry == nil {
		return fault.New(fault.Invalid, "The token does not say when it expires (exp).")
	}
	err := claims.ValidateWithLeeway(jwt.Expected{Issuer: t.Issuer, Subject: t.Subject, Time: now}, skew)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, jwt.ErrExpired):
		return fault.New(fault.Invalid, "The token expired at %s; ask the issuer for a new one.", claims.Expiry.Time().UTC().Format(time.RFC3339))
	case errors.Is(err, jwt.ErrNotValidYet), errors.Is(err, jwt.ErrIssuedInTheFuture):
		return fault.New(fault.Invalid, "The token is of a time to come; the clocks of the issuer and of this server differ.")
	default:
		return fault.New(fault.Invalid, "The token's claims do not hold together.")
	}
}

// candidates are the keys that may have signed the token: those with its key id, or
// all that fit when it names none.
func (t *Token) candidates(keys []jose.JSONWebKey) (out []jose.JSONWebKey) {
	for _, k := range keys {
		if (t.kid == "" || k.KeyID == t.kid) && (k.Algorithm == "" || k.Algorithm == t.alg) {
			out = append(out, k)
		}
	}
	return out
}

// Match reports whether a text fits a pattern, in which * stands for any characters
// and ? for one. The case of letters matters.
func Match(pattern, text string) bool {
	p, s := []rune(pattern), []rune(text)
	i, j, star, mark := 0, 0, -1, 0
	for j < len(s) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == s[j]):
			i++
			j++
		case star >= 0: // let the last * take one more
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
