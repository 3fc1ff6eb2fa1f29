package rest

import (
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/permission"
	"github.com/takodeploy/tako/octopus"
)

// Handler serves one route. What it returns becomes the answer: a value is
// written as JSON with 200, nil as {}, [Created] with 201, [Raw], [Stream] and
// [Redirect] as they say; an error becomes the status and body of its fault.
// A handler never writes to the connection itself.
type Handler func(*Request) (any, error)

// Access of routes that need no permission.
const (
	// Public routes are open to everybody; Request.Principal is [Anonymous].
	Public = "public"
	// SignedIn routes are open to everybody who is signed in; they show each
	// caller only what is theirs, or what all may know.
	SignedIn = "signed in"
)

// Mount says under which paths a route answers.
type Mount uint8

// The mounts.
const (
	// InSpace is /api/{space}/x and /api/spaces/{space}/x, and /api/x for the
	// default space. Request.Space is set.
	InSpace Mount = iota
	// InSystem is /api/x. Request.Space is "".
	InSystem
	// InEither is all of these; at /api/x Request.Space is "": the caller named
	// no space, which means the system and every space the caller may see.
	InEither
	// AtRoot is the pattern as it stands, outside /api. Request.Space is "".
	AtRoot
	// AtRootInSpace is the pattern as it stands, outside /api, for the space that
	// its {space} names, or the default one when it has none.
	AtRootInSpace
	// atSpace is /api/{space} itself.
	atSpace
)

// String returns the mount's name for the table of routes.
func (m Mount) String() string {
	switch m {
	case InSpace:
		return "space"
	case InSystem:
		return "system"
	case InEither:
		return "either"
	case AtRoot, AtRootInSpace:
		return "root"
	case atSpace:
		return "space"
	default:
		return fmt.Sprintf("mount %d", uint8(m))
	}
}

// Param is a query parameter, for the table and the OpenAPI document.
type Param struct {
	Name  string
	Type  ParamType
	About string
}

// ParamType is the type of a query parameter's value.
type ParamType uint8

// The types of query parameters.
const (
	Text    ParamType = iota
	Number            // a whole number, 0 or more
	Boolean           // true or false
	List              // comma-separated texts
	Moment            // RFC 3339
)

// Route declares one operation of the API.
type Route struct {
	Method  string
	Pattern string // "/environments/{id}"; "{rest...}" may end it
	Mount   Mount
	// Permission is what the caller must hold, in the route's space, for at
	// least something: the handler narrows it to its target by [Request.Allow] or
	// by [Request.Grants]. [Public] and [SignedIn] stand for none. Never empty.
	Permission string
	Handler    Handler
	Summary    string // a sentence for people
	Group      string // heading in the documents; "" takes the pattern's first word
	Query      []Param
	// Body and Response are the wire types, for the OpenAPI document:
	// reflect.TypeFor[T](), nil when there is none or it is not JSON.
	Body, Response reflect.Type
	// Failure is the wire type of the bodies of [Failed]; nil when there are none.
	Failure reflect.Type
	// ContentType of a response that is not JSON ("text/plain"), for the documents;
	// such an answer may take longer than one in JSON.
	ContentType string
	// Upload routes read the body themselves, as a stream without the limit of a
	// JSON body: the handler bounds it.
	Upload bool
	// Overrides takes the place of a declared kind's own operation at the same
	// method and pattern. Its handler can still call that, as [Request.Create] and
	// the like.
	Overrides bool
	// Reads tells of an operation by POST that it changes nothing: what it is asked
	// does not fit into a query.
	Reads bool
	// Streams are answered for as long as the caller listens: no deadline.
	Streams bool

	item reflect.Type // of the items, where Response is a page of documents
	op   string       // of a declared kind
}

// mounted is a route at one of its paths.
type mounted struct {
	*Route
	path string // the whole pattern
	// spaced: the path has a {space}; otherwise home says that the default space is meant.
	spaced, home bool
}

func (r *Route) paths() []mounted {
	space := mounted{Route: r, path: "/api/{space}" + r.Pattern, spaced: true}
	long := mounted{Route: r, path: "/api/spaces/{space}" + r.Pattern, spaced: true}
	plain := mounted{Route: r, path: "/api" + r.Pattern}
	switch r.Mount {
	case InSpace:
		plain.home = true
		return []mounted{space, long, plain}
	case InSystem:
		return []mounted{plain}
	case InEither:
		return []mounted{space, long, plain}
	case atSpace:
		return []mounted{{Route: r, path: "/api/{space}", spaced: true}}
	case AtRootInSpace:
		spaced := strings.Contains(r.Pattern, "{space}")
		return []mounted{{Route: r, path: r.Pattern, spaced: spaced, home: !spaced}}
	default:
		return []mounted{{Route: r, path: r.Pattern}}
	}
}

func (r *Route) check() error {
	var errs []error
	fail := func(what string) { errs = append(errs, fmt.Errorf("route %s %s: %s", r.Method, r.Pattern, what)) }
	if !slices.Contains([]string{http.MethodGet, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodPatch}, r.Method) {
		fail("no such method")
	}
	if r.Permission == "" {
		fail(`names no permission; say rest.Public or rest.SignedIn if it needs none`)
	}
	if _, known := permission.Find(octopus.Permission(r.Permission)); r.Permission != "" && !known && r.Permission != Public && r.Permission != SignedIn {
		fail("names the permission " + r.Permission + ", which does not exist")
	}
	if r.Handler == nil {
		fail("has no handler")
	}
	if r.Summary == "" {
		fail("has no summary")
	}
	if r.Mount != AtRootInSpace && r.Mount != atSpace && strings.Contains(r.Pattern, "{space}") {
		fail("the space is put in front by its mount")
	}
	return errors.Join(errs...)
}

// group is the heading under which the documents list the route.
func (r *Route) group() string {
	if r.Group != "" {
		return r.Group
	}
	word, _, _ := strings.Cut(strings.TrimPrefix(r.Pattern, "/"), "/")
	return word
}

// shape is what tells a route from others: names of parameters don't.
func (r *Route) shape() string {
	words := strings.Split(strings.ToLower(strings.Trim(r.Pattern, "/")), "/")
	for i, w := range words {
		if strings.HasPrefix(w, "{") {
			words[i] = "{}"
		}
	}
	return r.Method + " " + strings.Join(words, "/")
}

// override puts the routes that say so in place of those of kinds.
func override(kinds, given []Route) ([]Route, error) {
	taken := map[string]bool{}
	for _, r := range given {
		if r.Overrides {
			taken[r.shape()] = false
		}
	}
	all := make([]Route, 0, len(kinds)+len(given))
	for _, r := range kinds {
		if _, ok := taken[r.shape()]; ok {
			taken[r.shape()] = true
			continue
		}
		all = append(all, r)
	}
	for shape, done := range taken {
		if !done {
			return nil, fmt.Errorf("route %s overrides nothing", shape)
		}
	}
	return append(all, given...), nil
}

// table is the checked list of routes with its trie.
type table struct {
	routes []Route
	trie   trie
}

func newTable(routes []Route) (*table, error) {
	t := &table{routes: routes}
	var errs []error
	for i := range t.routes {
		r := &t.routes[i]
		if err := r.check(); err != nil {
			errs = append(errs, err)
			continue
		}
		for _, m := range r.paths() {
			if err := t.trie.add(r.Method, m.path, &m); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return t, errors.Join(errs...)
}

// Line is a route as the printed table shows it.
type Line struct {
	Method, Path, Permission, Summary string
	Mount                             Mount
}

func lines(routes []Route) []Line {
	all := make([]Line, 0, len(routes))
	for _, r := range routes {
		all = append(all, Line{Method: r.Method, Path: r.paths()[0].path, Permission: r.Permission, Summary: r.Summary, Mount: r.Mount})
	}
	slices.SortFunc(all, func(a, b Line) int {
		if c := strings.Compare(strings.ToLower(a.Path), strings.ToLower(b.Path)); c != 0 {
			return c
		}
		return strings.Compare(a.Method, b.Method)
	})
	return all
}
