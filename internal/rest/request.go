package rest

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
)

// Principal is who sends a request: a user, a service account, or nobody. What
// they may do is decided by package auth; nothing here adds to it.
type Principal interface {
	// Actor says who it is, for the audit trail. UserID is "" for nobody.
	Actor() db.Actor
	// Access is what the principal may do.
	Access() *auth.Access
}

// Target is what a permission is asked for.
type Target = auth.Target

// Authenticator tells who sends a request. It reads the API key, the bearer
// token or the session's cookie, and for a cookie and an unsafe method also
// checks the token against forged requests. It answers [Anonymous] when the
// request carries nothing, and a fault when what it carries is not good.
type Authenticator interface {
	Authenticate(r *http.Request) (Principal, error)
}

// AuthenticatorFunc is a function as an [Authenticator].
type AuthenticatorFunc func(r *http.Request) (Principal, error)

// Authenticate calls f.
func (f AuthenticatorFunc) Authenticate(r *http.Request) (Principal, error) { return f(r) }

// Anonymous is nobody: without a name and without a permission.
type Anonymous struct{}

// Actor names nobody.
func (Anonymous) Actor() db.Actor { return db.Actor{Username: "anonymous"} }

// Access grants nothing.
func (Anonymous) Access() *auth.Access { return auth.NewAccess(auth.Facts{}) }

// holds reports whether p holds a permission in space for anything.
func holds(p Principal, permission string, space ident.SpaceID) bool {
	_, held := p.Access().Grants(permission, space)
	return held
}

// Request is one call of a route. It is for one goroutine.
type Request struct {
	// Request's Context carries the actor, for audit events, and ends with the
	// caller's patience or the route's deadline.
	*http.Request
	Principal Principal
	// Space is the space that the path names, or the default one where it names
	// none; "" for routes outside of spaces.
	Space ident.SpaceID
	// ID marks the request in logs and in answers that report our own failures.
	ID string

	srv    *Server
	route  *mounted
	names  []string
	values captures
	header http.Header // of the answer
	query  []param
	body   []byte
	read   bool

	spaces    *spaceList // read when first needed
	spacesErr error
}

// PathValue returns what stands in the path for a parameter of the pattern,
// decoded; "" for an unknown name.
func (r *Request) PathValue(name string) string {
	for i, n := range r.names {
		if n == name {
			return r.values.values[i]
		}
	}
	return ""
}

// ResponseHeader holds headers of the answer, for cookies and Retry-After.
func (r *Request) ResponseHeader() http.Header { return r.header }

// Log is the server's log with this request's id.
func (r *Request) Log() *slog.Logger { return r.srv.log.With("request", r.ID) }

// Allow returns nil when the caller holds permission in the request's space for
// the target, and a Forbidden fault that names the permission otherwise.
func (r *Request) Allow(permission string, t Target) error {
	if r.Principal.Access().Can(permission, r.Space, t) {
		return nil
	}
	return forbidden(permission)
}

// Grants are the ways in which the caller holds permission in the request's
// space, as [docstore.Query] wants them: nil when everything is covered, an empty
// list when nothing is.
func (r *Request) Grants(permission string) []resource.Grant {
	return visible(r.Principal, permission, r.Space)
}

// GrantsIn is [Request.Grants] for a space that the path does not name.
func (r *Request) GrantsIn(space ident.SpaceID, permission string) []resource.Grant {
	return visible(r.Principal, permission, space)
}

func visible(p Principal, permission string, space ident.SpaceID) []resource.Grant {
	grants, held := p.Access().Grants(permission, space)
	switch {
	case !held:
		return []resource.Grant{}
	case slices.ContainsFunc(grants, resource.Grant.Unrestricted):
		return nil
	default:
		return grants
	}
}

func forbidden(permission string) error {
	return fault.New(fault.Forbidden, "You do not have permission to do this: it needs %s. Ask an administrator for a role that grants it.", permission)
}

// Href makes a link to a path of this server ("/api/users/me"), with the base
// path in front.
func (r *Request) Href(path string) string { return r.srv.base + path }

// SpaceHref makes a link to a path in the request's space ("/projects/Projects-1"),
// or outside of spaces when it has none.
func (r *Request) SpaceHref(path string) string {
	if r.Space == "" {
		return r.srv.base + "/api" + path
	}
	return r.srv.base + "/api/" + string(r.Space) + path
}

// Route is the operation that the request calls.
func (r *Request) Route() *Route { return r.route.Route }

// path is the request's own path for links: escaped, without a trailing slash.
func (r *Request) path() string {
	u := url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath}
	return r.srv.base + strings.TrimRight(u.EscapedPath(), "/")
}

// isText reports whether s can be stored and compared everywhere: UTF-8 without NUL.
func isText(s string) bool {
	for i := range len(s) {
		if s[i] == 0 || s[i] >= utf8.RuneSelf {
			return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0
		}
	}
	return true
}

// withActor is the context in which the caller does what the request does.
func withActor(ctx context.Context, p Principal, ip, userAgent string) context.Context {
	const maxAgent = 256
	actor := p.Actor()
	actor.IPAddress = ip
	actor.UserAgent = strings.ToValidUTF8(userAgent[:min(len(userAgent), maxAgent)], "")
	return db.WithActor(ctx, actor)
}
