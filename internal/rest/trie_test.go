package rest

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// pattern is one route as the naive matcher keeps it.
type pattern struct{ method, path string }

// naive matches by looking at every pattern and ranking those that fit, segment
// by segment: a word before a space before a parameter before the rest.
func naive(patterns []pattern, method string, segments []string, isSpace func(string) bool) (best *pattern, values []string) {
	asciiLower := func(s string) string {
		return strings.Map(func(r rune) rune {
			if r >= 'A' && r <= 'Z' {
				return r + 'a' - 'A'
			}
			return r
		}, s)
	}
	var bestRank string
	for i := range patterns {
		p := &patterns[i]
		if p.method != method && (method != http.MethodHead || p.method != http.MethodGet) {
			continue
		}
		parts := strings.FieldsFunc(p.path, func(r rune) bool { return r == '/' })
		rank, captured, fits := "", []string{}, true
		for n, part := range parts {
			if strings.HasSuffix(part, "...}") {
				rank += "4"
				captured = append(captured, strings.Join(segments[min(n, len(segments)):], "/"))
				break
			}
			if n >= len(segments) {
				fits = false
				break
			}
			switch s := segments[n]; {
			case part == "{space}":
				rank, captured, fits = rank+"2", append(captured, s), fits && isSpace(s)
			case part[0] == '{':
				rank, captured = rank+"3", append(captured, s)
			default:
				rank, fits = rank+"1", fits && asciiLower(part) == asciiLower(s)
			}
		}
		if !strings.Contains(rank, "4") {
			rank += "0" // the path ends here
			fits = fits && len(parts) == len(segments)
		}
		if fits && (best == nil || rank < bestRank) {
			best, bestRank, values = p, rank, captured
		}
	}
	return best, values
}

func buildTrie(patterns []pattern) (*trie, []pattern) {
	t := &trie{}
	var kept []pattern
	for _, p := range patterns {
		if t.add(p.method, p.path, &mounted{Route: &Route{Method: p.method}, path: p.path}) == nil {
			kept = append(kept, p)
		}
	}
	return t, kept
}

func onlySpaces(s string) bool {
	return strings.EqualFold(s, "spaces-1") || s == "ops" || s == "Über Raum"
}

// join makes the URL of a path of these segments.
func join(segments []string) *url.URL {
	escaped := make([]string, len(segments))
	for i, s := range segments {
		escaped[i] = url.PathEscape(s)
	}
	u := &url.URL{Path: "/" + strings.Join(segments, "/"), RawPath: "/" + strings.Join(escaped, "/")}
	if u.RawPath == (&url.URL{Path: u.Path}).EscapedPath() {
		u.RawPath = ""
	}
	return u
}

// compare checks the trie against the naive matcher for one request.
func compare(t interface{ Fatalf(string, ...any) }, tr *trie, patterns []pattern, method string, u *url.URL, segments []string) {
	var c captures
	got, _, err := tr.find(method, u, onlySpaces, &c)
	want, values := naive(patterns, method, segments, onlySpaces)
	if (got == nil) != (want == nil) || got != nil && got.route.path != want.path {
		t.Fatalf("%s %s: trie found %v, the naive matcher %v (%v)", method, u, got, want, err)
	}
	if want == nil {
		return
	}
	if c.n != len(got.names) {
		t.Fatalf("%s %s: %d captures for %v", method, u, c.n, got.names)
	}
	found := append([]string{}, c.values[:c.n]...)
	if strings.HasSuffix(want.path, "...}") { // the rest keeps its slashes, the reference does not
		last := &found[len(found)-1]
		*last = strings.Join(strings.FieldsFunc(*last, func(r rune) bool { return r == '/' }), "/")
		last = &values[len(values)-1]
		*last = strings.Join(strings.FieldsFunc(*last, func(r rune) bool { return r == '/' }), "/")
	}
	if diff := cmp.Diff(values, found); diff != "" {
		t.Fatalf("%s %s at %s: captures (-naive +trie):\n%s", method, u, want.path, diff)
	}
}

func TestTrieAgainstNaive(t *testing.T) {
	t.Parallel()
	words := []string{"api", "spaces", "projects", "all", "users", "x"}
	part := rapid.OneOf(rapid.SampledFrom(words), rapid.SampledFrom([]string{"{space}", "{id}", "{a}", "{b}"}))
	given := rapid.SampledFrom(append([]string{"Spaces-1", "ops", "Projects-7", "ALL", "Über Raum", "a/b", "K"}, words...))
	rapid.Check(t, func(t *rapid.T) {
		var patterns []pattern
		for range rapid.IntRange(1, 25).Draw(t, "routes") {
			parts := rapid.SliceOfN(part, 0, 5).Draw(t, "pattern")
			if rapid.IntRange(0, 9).Draw(t, "rest") == 0 {
				parts = append(parts, "{rest...}")
			}
			method := rapid.SampledFrom([]string{"GET", "PUT"}).Draw(t, "method")
			patterns = append(patterns, pattern{method, "/" + strings.Join(parts, "/")})
		}
		tr, kept := buildTrie(patterns)
		for range 20 {
			segments := rapid.SliceOfN(given, 0, 6).Draw(t, "path")
			compare(t, tr, kept, rapid.SampledFrom([]string{"GET", "PUT", "HEAD", "DELETE"}).Draw(t, "verb"), join(segments), segments)
		}
	})
}

func apiPatterns() []pattern {
	var out []pattern
	for _, p := range []string{
		"/api", "/api/{space}", "/livez", "/api/users/me", "/api/users/{id}", "/api/users/{id}/apikeys", "/api/tasks/details/{id}",
		"/api/spaces", "/api/spaces/all", "/api/spaces/{id}", "/web/{path...}",
	} {
		out = append(out, pattern{"GET", p})
	}
	for _, p := range []string{
		"/environments", "/environments/all", "/environments/{id}", "/projects/{id}/releases/{version}", "/projects/{project}/{ref}/runbooks/{id}",
		"/packages/{id}/{version}/delta-signature", "/packages/raw", "/tasks/{id}",
	} {
		for _, prefix := range []string{"/api", "/api/{space}", "/api/spaces/{space}"} {
			out = append(out, pattern{"GET", prefix + p})
		}
	}
	for _, prefix := range []string{"/api", "/api/{space}", "/api/spaces/{space}"} {
		out = append(out, pattern{"PUT", prefix + "/environments/sortorder"}, pattern{"PUT", prefix + "/environments/{id}"})
	}
	return out
}

func FuzzTrie(f *testing.F) {
	for _, p := range []string{"/api", "/api/Spaces-1/environments", "/api/users/Users-1", "/API/spaces/ops//projects/x/releases/1.0/", "/web/a%2Fb/c", "/api/%ff", "/api/a%2fb/c"} {
		f.Add("GET", p)
	}
	tr, kept := buildTrie(apiPatterns())
	f.Fuzz(func(t *testing.T, method, path string) {
		u, err := url.ParseRequestURI("/" + strings.TrimLeft(path, "/"))
		if err != nil || u.RawQuery != "" {
			return
		}
		// The reference cuts the escaped path and decodes each segment.
		var segments []string
		for s := range strings.SplitSeq(u.EscapedPath(), "/") {
			if s == "" {
				continue
			}
			d, err := url.PathUnescape(s)
			if err != nil || !isText(d) {
				return // the trie may or may not look at this segment
			}
			segments = append(segments, d)
		}
		compare(t, tr, kept, method, u, segments)
	})
}

func TestTrieFindsAPI(t *testing.T) {
	t.Parallel()
	tr, kept := buildTrie(apiPatterns())
	if len(kept) != len(apiPatterns()) {
		t.Fatalf("%d of %d patterns were taken", len(kept), len(apiPatterns()))
	}
	for _, tc := range []struct {
		method, target, want string
		values               []string
		allow                []string
	}{
		{"GET", "/api", "/api", nil, nil},
		{"GET", "/api/", "/api", nil, nil},
		{"HEAD", "//API//", "/api", nil, nil},
		{"GET", "/api/Spaces-1", "/api/{space}", []string{"Spaces-1"}, nil},
		{"GET", "/api/nowhere", "", nil, nil},
		{"GET", "/api/users/me", "/api/users/me", nil, nil},
		{"GET", "/api/USERS/Me/", "/api/users/me", nil, nil},
		{"GET", "/api/users/environments", "/api/users/{id}", []string{"environments"}, nil},
		{"GET", "/api/ops/environments", "/api/{space}/environments", []string{"ops"}, nil},
		{"GET", "/api/%C3%9Cber%20Raum/environments/all", "/api/{space}/environments/all", []string{"Über Raum"}, nil},
		{"GET", "/api/spaces/spaces-1/environments/A%20B", "/api/spaces/{space}/environments/{id}", []string{"spaces-1", "A B"}, nil},
		{"GET", "/api/spaces/Spaces-1", "/api/spaces/{id}", []string{"Spaces-1"}, nil},
		{"GET", "/api/environments/sortorder", "/api/environments/{id}", []string{"sortorder"}, nil},
		{"PUT", "/api/environments/sortorder", "/api/environments/sortorder", nil, nil},
		{"POST", "/api/environments/sortorder", "", nil, []string{"GET", "HEAD", "PUT"}},
		{"GET", "/api/Spaces-1/projects/Projects-1/refs%2Fheads%2Fmain/runbooks/build", "/api/{space}/projects/{project}/{ref}/runbooks/{id}", []string{"Spaces-1", "Projects-1", "refs/heads/main", "build"}, nil},
		{"GET", "/web/static/app.js", "/web/{path...}", []string{"static/app.js"}, nil},
		{"GET", "/web", "/web/{path...}", []string{""}, nil},
	} {
		u, err := url.ParseRequestURI(tc.target)
		if err != nil {
			// A path of two slashes is one only behind a host.
			if u, err = url.Parse("http://host" + tc.target); err != nil {
				t.Fatal(err)
			}
		}
		if strings.HasPrefix(tc.target, "//") {
			u = &url.URL{Path: tc.target}
		}
		var c captures
		l, allow, err := tr.find(tc.method, u, onlySpaces, &c)
		got := ""
		if l != nil {
			got = l.route.path
		}
		if err != nil || got != tc.want || !slices.Equal(c.values[:c.n], tc.values) || !slices.Equal(allow, tc.allow) {
			t.Errorf("%s %s: got %q %q allow %q, %v; want %q %q allow %q", tc.method, tc.target, got, c.values[:c.n], allow, err, tc.want, tc.values, tc.allow)
		}
	}
}

func TestTrieRefusesPatterns(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"api", "/{}", "/{id", "/a{id}", "/{a}/{a}", "/{rest...}/x", "/{a}/{b}/{c}/{d}/{e}/{f}/{g}/{h}/{i}",
		"/" + strings.Repeat("x", maxStatic+1), "/a%20b",
	} {
		if err := new(trie).add("GET", bad, &mounted{path: bad}); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
	tr := &trie{}
	if err := tr.add("GET", "/a/{id}", &mounted{path: "/a/{id}"}); err != nil {
		t.Fatal(err)
	}
	if err := tr.add("GET", "/A/{other}/", &mounted{path: "/A/{other}/"}); err == nil {
		t.Error("the same route was taken twice")
	}
}

func BenchmarkTrie(b *testing.B) {
	tr, _ := buildTrie(apiPatterns())
	u := &url.URL{Path: "/api/Spaces-1/environments/Environments-12"}
	b.ReportAllocs()
	for b.Loop() {
		var c captures
		if l, _, _ := tr.find("GET", u, onlySpaces, &c); l == nil {
			b.Fatal("not found")
		}
	}
}
