// Package oidc verifies tokens of OpenID Connect issuers: JSON Web Tokens that a
// build server or a cloud signs for what runs in it. It fetches the keys of issuers
// over HTTPS, keeps them for a while, and never asks an issuer more often than every
// few seconds, whatever tokens come.
//
// Which issuers are trusted, and for what, is for the caller to say: it reads the
// issuer that a token names by [Parse], and has the token verified only when that is
// one of its own.
package oidc
