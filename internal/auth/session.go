package auth

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// Names of cookies begin like this, and of the header that has to repeat the
// second one. Clients look for the cookie by the beginning of its name.
const (
	identificationCookie = "OctopusIdentificationToken"
	csrfCookie           = "Octopus-Csrf-Token"
	// CSRFHeader is the header in which a page proves that it can read the
	// server's cookies.
	CSRFHeader = "X-Octopus-Csrf-Token"
	// KeyHeader is the header of an API key.
	KeyHeader = "X-Octopus-ApiKey"
)

// Session is a sign-in. Its Token and CSRF are secrets: they go into cookies and
// nowhere else.
type Session struct {
	Token, CSRF string
	Expires     time.Time
	// Persistent sessions outlive the browser.
	Persistent bool
	User       octopus.User
}

func newToken() string {
	random := make([]byte, 32)
	_, _ = rand.Read(random) // never fails
	return base64.RawURLEncoding.EncodeToString(random)
}

// csrf is the token against forged requests that belongs to a session's token.
// It follows from it, so that one that was planted in a cookie fits no session,
// and tells nothing about it.
func csrf(token string) string {
	mac := hmac.New(sha256.New, []byte(token))
	mac.Write([]byte("csrf 1"))
	return base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}

// maxToken bounds what is taken for a session's token, in bytes.
const maxToken = 128

// BySession finds whose session it is. It answers fault.Unauthenticated when it
// has ended.
func (s *Service) BySession(ctx context.Context, token string) (*Principal, error) {
	if token == "" || len(token) > maxToken {
		return nil, refused(BySession)
	}
	return s.recognize(ctx, BySession, token)
}

// CheckCSRF reports whether a request that a browser sends with a session's
// cookie was made by a page of this server: it repeats, in a header, the token
// that only such a page can read.
func CheckCSRF(token, header string) error {
	if subtle.ConstantTimeCompare([]byte(csrf(token)), []byte(header)) == 1 {
		return nil
	}
	return fault.New(fault.Forbidden, "A change that is sent with a session's cookie must repeat the value of the cookie %s in the header %s; use an API key from a program.", csrfCookie, CSRFHeader)
}

// FromRequest finds who sends a request: by its API key or access token, else by its
// session's cookie. Nobody is nil without an error. A credential that is no good is an
// error, though another may be good, since its owner has to hear of it.
func (s *Service) FromRequest(r *http.Request) (*Principal, error) {
	if key := keyOf(r); key != "" {
		if isAccessToken(key) {
			return s.ByAccessToken(r.Context(), key)
		}
		return s.ByAPIKey(r.Context(), key)
	}
	c, err := r.Cookie(s.cookieName(identificationCookie))
	if err != nil || c.Value == "" {
		return nil, nil // nobody
	}
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
	default:
		if err := CheckCSRF(c.Value, r.Header.Get(CSRFHeader)); err != nil {
			return nil, err
		}
	}
	return s.BySession(r.Context(), c.Value)
}

// keyOf finds the API key or the access token of a request: in its header, in the one that NuGet
// clients use, as a bearer's token, as the password of basic authentication (any
// name goes with it; a user's own password is never taken), or in the query.
func keyOf(r *http.Request) string {
	if key := r.Header.Get(KeyHeader); key != "" {
		return key
	}
	if key := r.Header.Get("X-NuGet-ApiKey"); key != "" {
		return key
	}
	if scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	if _, password, ok := r.BasicAuth(); ok {
		return password
	}
	if r.URL.RawQuery == "" {
		return ""
	}
	for name, values := range r.URL.Query() {
		if strings.EqualFold(name, "apikey") && len(values) > 0 {
			return values[0]
		}
	}
	return ""
}

func (s *Service) cookieName(prefix string) string {
	if s.opt.Installation == "" {
		return prefix
	}
	return prefix + "_" + s.opt.Installation
}

// Cookies are what a browser is given for a session: its token, which no script
// can read, and the token against forged requests, which the pages must. secure
// keeps them to HTTPS; base is the path under which the server is reached.
func (s *Service) Cookies(sess *Session, secure bool, base string) []*http.Cookie {
	expires := time.Time{} // with the browser
	if sess.Persistent {
		expires = sess.Expires
	}
	return s.cookies(sess.Token, sess.CSRF, expires, 0, secure, base)
}

// ExpiredCookies make a browser forget its session.
func (s *Service) ExpiredCookies(secure bool, base string) []*http.Cookie {
	return s.cookies("", "", time.Unix(1, 0), -1, secure, base)
}

func (s *Service) cookies(token, csrf string, expires time.Time, maxAge int, secure bool, base string) []*http.Cookie {
	cookie := func(name, value string, hidden bool) *http.Cookie {
		return &http.Cookie{
			Name: s.cookieName(name), Value: value, Path: strings.TrimRight(base, "/") + "/",
			Expires: expires, MaxAge: maxAge, Secure: secure, HttpOnly: hidden, SameSite: http.SameSiteLaxMode,
		}
	}
	return []*http.Cookie{cookie(identificationCookie, token, true), cookie(csrfCookie, csrf, false)}
}

// startSession stores a new session.
func (s *Service) startSession(ctx context.Context, tx *db.Tx, user octopus.User, in SignIn) (*Session, error) {
	limits := s.opt.Sessions
	most, idle := limits.Max, limits.Idle
	if in.Remember {
		most, idle = limits.Remember, limits.Remember
	}
	now := s.now()
	sess := &Session{Token: newToken(), Expires: now.Add(most), Persistent: in.Remember, User: user}
	sess.CSRF = csrf(sess.Token)
	persistent := 0
	if sess.Persistent {
		persistent = 1
	}
	_, err := tx.Exec(ctx, `INSERT INTO session (id, user_id, created, expires, idle, last_seen, persistent, ip_address, user_agent) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		hash(sess.Token), user.ID, db.Micros(now), db.Micros(sess.Expires), idle.Microseconds(), db.Micros(now), persistent, in.Address, in.UserAgent)
	if err != nil {
		return nil, fmt.Errorf("store session: %w", err)
	}
	return sess, nil
}

// Logout ends the session of a token; one that has ended already is no error.
func (s *Service) Logout(ctx context.Context, token string) error {
	if token == "" || len(token) > maxToken {
		return nil
	}
	return s.db.Write(ctx, func(tx *db.Tx) error {
		n, err := tx.Exec(ctx, `DELETE FROM session WHERE id = ?`, hash(token))
		if err != nil {
			return fmt.Errorf("delete session: %w", err)
		}
		if n > 0 {
			tx.Changed(changesKind)
		}
		return nil
	})
}

// LogoutRequest ends the session whose cookie a request carries.
func (s *Service) LogoutRequest(r *http.Request) error {
	c, err := r.Cookie(s.cookieName(identificationCookie))
	if err != nil {
		return nil // no cookie, no session
	}
	return s.Logout(r.Context(), c.Value)
}

// endSessions ends all sessions of a user but one.
func endSessions(ctx context.Context, tx *db.Tx, user, but string) error {
	if _, err := tx.Exec(ctx, `DELETE FROM session WHERE user_id = ? AND id <> ?`, user, but); err != nil {
		return fmt.Errorf("end the sessions of %s: %w", user, err)
	}
	tx.Changed(changesKind)
	return nil
}

// RevokeSessions signs a user out everywhere: by itself, or another one that by
// may manage.
func (s *Service) RevokeSessions(ctx context.Context, by *Principal, user string) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		owner, err := s.keysOf(ctx, tx, by, user)
		if err != nil {
			return err
		}
		tx.Event(db.Event{
			Category: "Modified", Message: "Sessions of user " + owner.user.Username + " were revoked",
			Related: []string{owner.user.ID}, DocumentType: s.users.ItemType,
		})
		return endSessions(ctx, tx, owner.user.ID, "")
	})
}
