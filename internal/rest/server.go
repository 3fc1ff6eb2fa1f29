package rest

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
)

// requestTimeout bounds every request in and with JSON; uploads, files and streams
// may go on for as long as something moves.
const requestTimeout = 2 * time.Minute

// Config is what the API is made of.
type Config struct {
	Log   *slog.Logger
	DB    *db.DB
	Store *docstore.Store
	Auth  Authenticator
	// Routes are those that are no plain resources.
	Routes []Route
	// Aliases are further paths of declared kinds.
	Aliases []Alias

	// Version is what the root document reports ("2026.4.0"): digits and dots,
	// perhaps with a "-suffix" and never with a "+suffix", which clients would
	// take for a version older than all.
	Version        string
	InstallationID string // a UUID; clients refuse to start without one
	TestInstance   bool   // the server is a copy of another
	// Base is the path under which the server is reached behind a proxy
	// ("/deploy"); "" when it has a host of its own.
	Base string
	// Toggles names the features that clients may ask about and that are on,
	// besides those that are always on.
	Toggles []string

	// Web serves everything outside of the API; nil answers 404.
	Web http.Handler
	// Guard can refuse a request whose caller is known, before its handler runs
	// (maintenance mode, rate limits). Nil lets all pass.
	Guard func(*Request) error
	// Ready tells whether the server can do its work, for load balancers. Nil is always.
	Ready func(context.Context) error
	// ClientIP finds the caller's address; nil takes the connection's.
	ClientIP func(*http.Request) string
	// Drain is done when the server wants long answers to end. Nil is never.
	Drain context.Context
	// Compress allows gzip for large answers to callers that ask for it.
	Compress bool
	// Answered is told the status of each answer, 0 for one that broke off before it began.
	// Nil is nobody.
	Answered func(status int)
}

// Server is the API as an [http.Handler]. It keeps no goroutine of its own.
type Server struct {
	Config
	log    *slog.Logger
	base   string
	table  *table
	spaces *spaceCache
	links  map[string]*linkMaker // by kind
	roots  roots
	schema func() (json.RawMessage, error) // the OpenAPI document
	drain  context.Context
	cross  *http.CrossOriginProtection

	prefix   string // of request ids
	count    atomic.Uint64
	encoders sync.Pool
	// Header values that all answers share; never written to.
	common               http.Header
	typeJSON, revalidate []string
}

// New makes the server: the API, and Web for the rest.
func New(cfg Config) (*Server, error) {
	if strings.Contains(cfg.Version, "+") {
		return nil, fmt.Errorf("version %q has a +suffix, which clients take for older than everything", cfg.Version)
	}
	s := &Server{
		Config: cfg,
		log:    cfg.Log,
		base:   strings.TrimRight(cfg.Base, "/"),
		drain:  cfg.Drain,
		cross:  http.NewCrossOriginProtection(),
		prefix: strings.ToLower(rand.Text()[:8]) + "-",
		common: http.Header{
			"Cache-Control":                {"no-store"},
			"Content-Security-Policy":      {"default-src 'none'; frame-ancestors 'none'"},
			"Cross-Origin-Resource-Policy": {"same-origin"},
			"Referrer-Policy":              {"no-referrer"},
			"X-Content-Type-Options":       {"nosniff"},
			"X-Frame-Options":              {"DENY"},
		},
		typeJSON:   []string{typeJSON},
		revalidate: []string{"private, no-cache"},
	}
	s.encoders.New = func() any { return newEncoder() }
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.drain == nil {
		s.drain = context.Background()
	}
	if s.ClientIP == nil {
		s.ClientIP = remoteIP
	}
	s.spaces = &spaceCache{db: cfg.DB, store: cfg.Store}
	routes, err := s.routes()
	if err != nil {
		return nil, err
	}
	if s.table, err = newTable(routes); err != nil {
		return nil, err
	}
	if s.roots.root, err = s.rootJSON(""); err != nil {
		return nil, err
	}
	s.schema = sync.OnceValues(s.describeAPI)
	return s, nil
}

// Routes are all operations, those of kinds too, by path and method.
func (s *Server) Routes() []Line { return lines(s.table.routes) }

func remoteIP(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

// ServeHTTP answers one request.
func (s *Server) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	id := s.prefix + strconv.FormatUint(s.count.Add(1), 36)
	maps.Copy(w.Header(), s.common)
	w.Header().Set("X-Request-Id", id)
	out := &statusWriter{ResponseWriter: w}
	if s.log.Enabled(hr.Context(), slog.LevelDebug) {
		start := time.Now()
		defer func() { // never the query: it may carry a key
			s.log.DebugContext(hr.Context(), "request", "request", id, "method", hr.Method, "path", hr.URL.Path, "status", out.status, "took", time.Since(start))
		}()
	}
	if s.Answered != nil {
		defer func() { s.Answered(out.status) }()
	}
	defer s.recover(out, hr, id)

	if s.base != "" {
		var ok bool
		if hr, ok = stripBase(hr, s.base); !ok {
			s.fail(out, hr, id, fault.New(fault.NotFound, "There is nothing at '%.200s'; this server's addresses begin with '%s'.", hr.URL.Path, s.base))
			return
		}
	}
	r, err := s.prepare(out, hr, id)
	if r == nil && err == nil {
		s.web(out, hr)
		return
	}
	if err != nil {
		s.fail(out, hr, id, err)
		return
	}
	if !r.route.Streams && !r.route.Upload && r.route.ContentType == "" {
		ctx, cancel := context.WithTimeout(r.Context(), requestTimeout)
		defer cancel()
		r.Request = r.WithContext(ctx)
	}
	result, err := r.route.Handler(r)
	s.answer(out, r, result, err)
}

// prepare finds the route of a request and checks everything that comes before
// its handler. Without a route or an error, the request is for the web.
func (s *Server) prepare(w http.ResponseWriter, hr *http.Request, id string) (*Request, error) {
	r := &Request{Request: hr, Principal: Anonymous{}, ID: id, srv: s, header: w.Header()}
	leaf, allow, err := s.table.trie.find(hr.Method, hr.URL, r.isSpace, &r.values)
	switch {
	case r.spacesErr != nil:
		return nil, r.spacesErr
	case err != nil:
		return nil, fault.New(fault.Invalid, "The path cannot be decoded: %s.", err)
	case leaf == nil && allow != nil:
		return nil, &notAllowed{method: hr.Method, allow: strings.Join(allow, ", ")}
	case leaf == nil && (isAPI(hr.URL.Path) || isAPI(hr.URL.EscapedPath())):
		return nil, fault.New(fault.NotFound, "There is no operation %s '%.200s' in this API; %s/api/openapi.json lists all.", hr.Method, hr.URL.Path, s.base)
	case leaf == nil:
		return nil, nil
	}
	r.route, r.names = leaf.route, leaf.names

	if err := s.cross.Check(hr); err != nil {
		return nil, fault.New(fault.Forbidden, "This request was sent by a page of another site; use this server's own pages, or send an API key from a program.")
	}
	if err := r.parseQuery(); err != nil {
		return nil, err
	}
	s.limit(w, r)
	if r.route.Permission != Public {
		if r.Principal, err = s.Auth.Authenticate(hr); err != nil {
			return nil, err
		}
		if r.Principal.Actor().UserID == "" {
			return nil, fault.New(fault.Unauthenticated, "You must be signed in to do this: send an API key in the header X-Octopus-ApiKey, or sign in.")
		}
	}
	r.Request = r.WithContext(withActor(hr.Context(), r.Principal, s.ClientIP(hr), hr.UserAgent()))
	if err := r.enterSpace(); err != nil {
		return nil, err
	}
	if err := r.gate(); err != nil {
		return nil, err
	}
	if s.Guard != nil {
		if err := s.Guard(r); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// limit bounds the body and the time of a request.
func (s *Server) limit(w http.ResponseWriter, r *Request) {
	control := http.NewResponseController(w)
	now := time.Now()
	var errs error
	switch {
	case r.route.Upload:
		r.Body = &slowReader{ReadCloser: r.Body, control: control, each: true}
	case r.ContentLength != 0:
		r.Body = http.MaxBytesReader(w, &slowReader{ReadCloser: r.Body, control: control}, MaxBody)
		errs = control.SetReadDeadline(now.Add(requestTimeout))
	}
	deadline := now.Add(requestTimeout + writeTimeout)
	if r.route.Streams || r.route.Upload {
		deadline = time.Time{}
	}
	errs = errors.Join(errs, control.SetWriteDeadline(deadline))
	if errs != nil && !errors.Is(errs, http.ErrNotSupported) {
		s.log.Debug("set deadlines", "request", r.ID, "error", errs)
	}
}

// slowReader ends the time for reading a body with the body: a deadline that is
// left would cut the connection while the handler still works. With each, every
// piece has its own time.
type slowReader struct {
	io.ReadCloser
	control *http.ResponseController
	each    bool
}

func (r *slowReader) Read(p []byte) (int, error) {
	if r.each {
		if err := r.until(time.Now().Add(writeTimeout)); err != nil {
			return 0, err
		}
	}
	n, err := r.ReadCloser.Read(p)
	if errors.Is(err, io.EOF) {
		if late := r.until(time.Time{}); late != nil {
			return n, late
		}
	}
	return n, err
}

func (r *slowReader) until(t time.Time) error {
	if err := r.control.SetReadDeadline(t); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// enterSpace sets the space that a request works in.
func (r *Request) enterSpace() error {
	if !r.route.spaced && !r.route.home {
		return nil
	}
	spaces, err := r.allSpaces()
	if err != nil {
		return err
	}
	if r.route.home {
		if r.Space = spaces.home; r.Space == "" {
			return fault.New(fault.NotFound, "There is no default space; put a space into the path, such as %s/api/Spaces-1%s.", r.srv.base, r.route.Pattern)
		}
		return nil
	}
	sp, ok := spaces.find(r.PathValue("space"))
	if !ok {
		return fault.Missing("space", r.PathValue("space"))
	}
	r.Space = sp.ID
	return nil
}

// gate refuses a caller who does not hold the route's permission for anything.
// What they may do it to is decided by the handler.
func (r *Request) gate() error {
	p := r.route.Permission
	switch {
	case p == Public:
		return nil
	case r.route.spaced && !r.knows(r.Space):
		return fault.Missing("space", r.PathValue("space"))
	case p == SignedIn || holds(r.Principal, p, r.Space):
		return nil
	}
	if r.route.Mount == InEither && r.Space == "" {
		if held, err := r.Spaces(p); err != nil || len(held) > 0 {
			return err
		}
	}
	return forbidden(p)
}

// allSpaces is the list of spaces that this request sees, the same throughout.
func (r *Request) allSpaces() (*spaceList, error) {
	if r.spaces == nil && r.spacesErr == nil {
		r.spaces, r.spacesErr = r.srv.spaces.list(r.Request.Context())
	}
	return r.spaces, r.spacesErr
}

// isSpace is asked by the trie; a failure to read the spaces is kept for later.
func (r *Request) isSpace(ref string) bool {
	spaces, err := r.allSpaces()
	return err == nil && spaces.names(ref)
}

func (s *Server) web(w http.ResponseWriter, hr *http.Request) {
	h := w.Header()
	h.Del("Content-Security-Policy") // pages have one of their own
	h.Del("Cache-Control")
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(requestTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		s.log.Debug("set deadlines", "error", err)
	}
	if s.Web == nil {
		http.NotFound(w, hr)
		return
	}
	s.Web.ServeHTTP(w, hr)
}

// recover turns a panic into a 500 whose details stay in the log.
func (s *Server) recover(w *statusWriter, hr *http.Request, id string) {
	v := recover()
	if v == nil {
		return
	}
	s.log.Error("panic in handler", "request", id, "method", hr.Method, "path", hr.URL.Path, "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	if w.status != 0 {
		s.abort(w)
		return
	}
	s.fail(w, hr, id, fault.New(fault.Internal, "panic"))
}

// statusWriter remembers the status of an answer that has begun, else 0.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(code int) {
	w.status = code
	w.ResponseWriter.WriteHeader(code)
}

func (w *statusWriter) Write(p []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(p)
}

// Unwrap lets [http.ResponseController] reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// isAPI reports whether a path without a route is meant for a program, which is
// told so, and not for the pages: below /api, and where NuGet clients look, which
// put a space in front.
func isAPI(path string) bool {
	first, rest, _ := strings.Cut(strings.TrimLeft(path, "/"), "/")
	second, _, _ := strings.Cut(rest, "/")
	return strings.EqualFold(first, "api") || strings.EqualFold(first, "nuget") || strings.EqualFold(second, "nuget")
}

// stripBase takes the base path off; without it in front there is nothing here.
func stripBase(hr *http.Request, base string) (*http.Request, bool) {
	cut := func(p string) (string, bool) {
		if len(p) >= len(base) && strings.EqualFold(p[:len(base)], base) && (len(p) == len(base) || p[len(base)] == '/') {
			return cmp.Or(p[len(base):], "/"), true
		}
		return p, false
	}
	path, ok := cut(hr.URL.Path)
	if !ok {
		return hr, false
	}
	out := new(http.Request)
	*out = *hr
	u := *hr.URL
	u.Path = path
	if u.RawPath != "" {
		if u.RawPath, ok = cut(u.RawPath); !ok {
			return hr, false
		}
	}
	out.URL = &u
	return out, true
}
