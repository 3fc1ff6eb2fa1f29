package rest

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
)

const (
	maxCaptures = 8  // parameters in one pattern
	maxStatic   = 64 // bytes of one static segment
)

// trie finds the route of a request by method and path.
//
// The API's URL space has routes such as /api/{space}/projects beside
// /api/projects/{id}, over which [http.ServeMux] panics, and clients write its
// words in any case. So a path is matched segment by segment: a static word wins
// over a parameter, a space wins over any other parameter, a parameter wins over
// the rest of a path, and where a choice leads nowhere the next is tried. The
// method is part of the match: PUT /environments/sortorder does not hide an
// environment whose slug is "sortorder" from GET. Empty segments don't count, so
// neither a trailing slash nor a doubled one matters.
type trie struct{ root node }

type node struct {
	static map[string]*node // by lower-case word
	space  *node            // {space}: only what names a space
	param  *node            // {anything}
	leaves []leaf           // routes that end here
	rests  []leaf           // {rest...} routes: this and everything below
}

type leaf struct {
	method string
	route  *mounted
	names  []string // of the captures, in order
}

// captures holds the decoded values of a match's parameters, in order.
type captures struct {
	n      int
	values [maxCaptures]string
}

// add registers a route under a pattern such as "/api/{space}/projects/{id}".
func (t *trie) add(method, pattern string, route *mounted) error {
	if !strings.HasPrefix(pattern, "/") {
		return fmt.Errorf("route %s %s: a pattern begins with a slash", method, pattern)
	}
	n, names := &t.root, []string(nil)
	segments := strings.FieldsFunc(pattern, func(r rune) bool { return r == '/' })
	for i, s := range segments {
		name, isParam := strings.CutPrefix(s, "{")
		if !isParam {
			word, ok := lower(s, new([maxStatic]byte))
			if !ok || strings.ContainsAny(s, "{}%?#") {
				return fmt.Errorf("route %s %s: bad segment %q", method, pattern, s)
			}
			if n.static == nil {
				n.static = map[string]*node{}
			}
			if n.static[string(word)] == nil {
				n.static[string(word)] = &node{}
			}
			n = n.static[string(word)]
			continue
		}
		name, closed := strings.CutSuffix(name, "}")
		name, isRest := strings.CutSuffix(name, "...")
		if !closed || name == "" || strings.ContainsAny(name, "{}.") || slices.Contains(names, name) {
			return fmt.Errorf("route %s %s: bad parameter %q", method, pattern, s)
		}
		if len(names) == maxCaptures {
			return fmt.Errorf("route %s %s: more than %d parameters", method, pattern, maxCaptures)
		}
		names = append(names, name)
		switch {
		case isRest && i == len(segments)-1:
			return n.put(&n.rests, method, pattern, names, route)
		case isRest:
			return fmt.Errorf("route %s %s: %s can only stand at the end", method, pattern, s)
		case name == "space":
			if n.space == nil {
				n.space = &node{}
			}
			n = n.space
		default:
			if n.param == nil {
				n.param = &node{}
			}
			n = n.param
		}
	}
	return n.put(&n.leaves, method, pattern, names, route)
}

func (n *node) put(to *[]leaf, method, pattern string, names []string, route *mounted) error {
	for _, l := range *to {
		if l.method == method {
			return fmt.Errorf("route %s %s: the same as %s", method, pattern, l.route.path)
		}
	}
	*to = append(*to, leaf{method: method, route: route, names: names})
	return nil
}

// errBadPath says that a path cannot be decoded.
var errBadPath = errors.New("the path is not valid percent-encoded UTF-8")

// find returns the leaf that serves method and u's path, with the captured
// values in c. When some route has the path but none the method, it returns nil
// and the methods that do have it. isSpace tells whether a text names a space.
func (t *trie) find(method string, u *url.URL, isSpace func(string) bool, c *captures) (l *leaf, allow []string, err error) {
	m := search{method: method, path: u.Path, isSpace: isSpace, c: c}
	if u.RawPath != "" { // an escaped slash is part of a segment: decode after cutting
		m.path, m.escaped = u.RawPath, true
	}
	if l = m.walk(&t.root, 0); l != nil {
		return l, nil, nil
	}
	slices.Sort(m.allow)
	return nil, slices.Compact(m.allow), m.err
}

type search struct {
	method  string
	path    string
	escaped bool
	isSpace func(string) bool
	c       *captures
	allow   []string
	err     error
}

// walk matches the path from byte at on below n.
func (m *search) walk(n *node, at int) *leaf {
	for at < len(m.path) && m.path[at] == '/' {
		at++
	}
	if at == len(m.path) {
		if l := m.pick(n.leaves); l != nil {
			return l
		}
		return m.rest(n, at)
	}
	end := len(m.path)
	if i := strings.IndexByte(m.path[at:], '/'); i >= 0 {
		end = at + i
	}
	segment, ok := m.decode(m.path[at:end])
	if !ok {
		return nil
	}
	var buf [maxStatic]byte
	if word, ok := lower(segment, &buf); ok {
		if child := n.static[string(word)]; child != nil {
			if l := m.walk(child, end); l != nil {
				return l
			}
		}
	}
	if n.space != nil && m.isSpace(segment) {
		if l := m.capture(n.space, segment, end); l != nil {
			return l
		}
	}
	if n.param != nil {
		if l := m.capture(n.param, segment, end); l != nil {
			return l
		}
	}
	return m.rest(n, at)
}

func (m *search) capture(child *node, value string, at int) *leaf {
	m.c.values[m.c.n] = value
	m.c.n++
	l := m.walk(child, at)
	if l == nil {
		m.c.n--
	}
	return l
}

func (m *search) rest(n *node, at int) *leaf {
	if n.rests == nil {
		return nil
	}
	value, ok := m.decode(m.path[at:])
	if !ok {
		return nil
	}
	l := m.pick(n.rests)
	if l != nil {
		m.c.values[m.c.n] = value
		m.c.n++
	}
	return l
}

// pick chooses by method; HEAD is served by GET where nobody declared it.
func (m *search) pick(leaves []leaf) *leaf {
	var get *leaf
	for i := range leaves {
		switch l := &leaves[i]; l.method {
		case m.method:
			return l
		case http.MethodGet:
			get = l
		}
	}
	if m.method == http.MethodHead && get != nil {
		return get
	}
	for _, l := range leaves {
		m.allow = append(m.allow, l.method)
		if l.method == http.MethodGet {
			m.allow = append(m.allow, http.MethodHead)
		}
	}
	return nil
}

func (m *search) decode(s string) (string, bool) {
	if m.escaped {
		d, err := url.PathUnescape(s)
		if err != nil {
			m.err = errBadPath
			return "", false
		}
		s = d
	}
	if !isText(s) {
		m.err = errBadPath
		return "", false
	}
	return s, true
}

// lower folds a word of ASCII into buf; false when it cannot be a static segment.
func lower(s string, buf *[maxStatic]byte) ([]byte, bool) {
	if len(s) > len(buf) {
		return nil, false
	}
	for i := range len(s) {
		b := s[i]
		if b-'A' < 26 {
			b += 'a' - 'A'
		}
		buf[i] = b
	}
	return buf[:len(s)], true
}
