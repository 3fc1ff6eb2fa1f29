package rest_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// route makes a route for a test.
func route(method, pattern string, mount rest.Mount, permission string, h rest.Handler) rest.Route {
	return rest.Route{Method: method, Pattern: pattern, Mount: mount, Permission: permission, Handler: h, Summary: "Is for a test."}
}

func withRoutes(routes ...rest.Route) func(*rest.Config) {
	return func(c *rest.Config) { c.Routes = append(c.Routes, routes...) }
}

func TestFaultsBecomeAnswers(t *testing.T) {
	t.Parallel()
	faults := map[string]error{
		"invalid":     errors.Join(fault.InvalidField("Name", "Name is wrong; right it."), fault.New(fault.Invalid, "And so is the rest.")),
		"unauth":      fault.New(fault.Unauthenticated, "Who are you, please?"),
		"forbidden":   fault.New(fault.Forbidden, "It needs ProjectView."),
		"missing":     fault.Missing("project", "Projects-1"),
		"conflict":    fault.New(fault.Conflict, "It is already there."),
		"large":       fault.New(fault.TooLarge, "It has too many bytes."),
		"unsupported": fault.New(fault.Unsupported, "This server cannot do it."),
		"unavailable": fault.New(fault.Unavailable, "Try again later, please."),
		"many":        fault.New(fault.TooMany, "Slow down for a moment."),
		"internal":    errors.New("secret detail"),
		"hidden":      &fault.Error{Kind: fault.Internal, Message: "secret detail", Cause: errors.New("secret cause")},
		"wrapped":     errors.Join(errors.New("read the thing"), fault.New(fault.Conflict, "It is in the way.")),
		"slow":        context.DeadlineExceeded,
	}
	w := newWorld(t, withRoutes(
		route("GET", "/faults/{kind}", rest.InSystem, rest.SignedIn, func(r *rest.Request) (any, error) { return nil, faults[r.PathValue("kind")] }),
		route("GET", "/panic", rest.InSystem, rest.Public, func(*rest.Request) (any, error) {
			var m map[string]int
			m["x"] = 1 //nolint:staticcheck // panics, which is the point
			return nil, nil
		}),
		route("GET", "/unencodable", rest.InSystem, rest.Public, func(*rest.Request) (any, error) { return func() {}, nil }),
	), func(c *rest.Config) { c.Log = nil })
	w.client.Transport = http.DefaultTransport // these routes declare no answers
	for kind, want := range map[string]struct {
		status int
		says   []string
	}{
		"invalid":     {400, []string{`"Errors":["Name is wrong; right it.","And so is the rest."]`, `"Details":{"Name":["Name is wrong; right it."]}`}},
		"unauth":      {401, []string{"Who are you"}},
		"forbidden":   {403, []string{`"ErrorMessage":"It needs ProjectView."`}},
		"missing":     {404, []string{"Projects-1"}},
		"conflict":    {409, []string{"already there"}},
		"large":       {413, []string{"too many bytes"}},
		"unsupported": {501, []string{"cannot do it"}},
		"unavailable": {503, []string{"Try again later"}},
		"many":        {429, []string{"Slow down"}},
		"internal":    {500, []string{`"RequestId":"`}},
		"hidden":      {500, []string{`"RequestId":"`}},
		"wrapped":     {409, []string{"in the way"}},
		"slow":        {503, []string{"too long"}},
	} {
		a := w.get("/api/faults/"+kind, admin)
		if a.status != want.status {
			t.Errorf("%s: status %d, want %d: %s", kind, a.status, want.status, a.body)
		}
		for _, s := range want.says {
			if !strings.Contains(string(a.body), s) {
				t.Errorf("%s: %s does not say %q", kind, a.body, s)
			}
		}
		if strings.Contains(string(a.body), "secret") || strings.Contains(string(a.body), "read the thing") {
			t.Errorf("%s: internals in %s", kind, a.body)
		}
		useful(t, kind, a)
	}
	for _, path := range []string{"/api/panic", "/api/unencodable"} {
		a := w.get(path, "")
		if id := a.header.Get("X-Request-Id"); a.status != 500 || id == "" || a.text(t, "RequestId") != id {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	w.must(200, "GET", "/api/environments", "") // and it still serves
}

func TestHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	id := w.create("/api/environments", `{"Name":"Dev"}`)
	for path, cache := range map[string]string{"/api": "no-store", "/api/environments/" + id: "private, no-cache", "/api/nothing": "no-store", "/api/environments": "no-store"} {
		a := w.get(path, admin)
		for name, want := range map[string]string{
			"Content-Type": "application/json; charset=utf-8", "X-Content-Type-Options": "nosniff", "X-Frame-Options": "DENY",
			"Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'", "Referrer-Policy": "no-referrer", "Cache-Control": cache,
		} {
			if got := a.header.Get(name); got != want {
				t.Errorf("%s: %s is %q, want %q", path, name, got, want)
			}
		}
		if a.header.Get("Content-Length") == "" {
			t.Errorf("%s has no Content-Length", path)
		}
	}
}

func TestOtherSitesCannotWrite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for _, header := range [][]string{{"Sec-Fetch-Site", "cross-site"}, {"Origin", "https://evil.example"}} {
		if a := w.do("POST", "/api/environments", admin, `{"Name":"x"}`, header...); a.status != http.StatusForbidden {
			t.Errorf("%v: %d", header, a.status)
		}
		if a := w.do("GET", "/api/environments", admin, "", header...); a.status != http.StatusOK {
			t.Errorf("GET with %v: %d", header, a.status)
		}
	}
	w.must(201, "POST", "/api/environments", `{"Name":"x"}`, "Sec-Fetch-Site", "same-origin")
}

func TestBasePath(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *rest.Config) {
		c.Base = "/deploy"
		c.Web = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "page "+r.URL.Path) })
	})
	id := w.create("/api/environments", `{"Name":"A/B"}`)
	a := w.must(200, "GET", "/api/environments/A%2FB", "")
	if want := `"Links":{"Self":"/deploy/api/Spaces-1/environments/` + id + `"}`; !strings.Contains(string(a.body), want) {
		t.Errorf("%s lacks %s", a.body, want)
	}
	if body := string(w.must(200, "GET", "/api/environments", "").body); !strings.Contains(body, `"Self":"/deploy/api/environments?skip=0`) {
		t.Errorf("%s", body)
	}
	if body := string(w.get("/api", "").body); !strings.Contains(body, `"Accounts":"/deploy/api/accounts{/id}`) {
		t.Errorf("%.200s", body)
	}
	if body := string(w.get("/app/projects", "").body); body != "page /app/projects" {
		t.Errorf("the web got %q", body)
	}
	w.url = strings.TrimSuffix(w.url, "/deploy")
	if a := w.get("/api", ""); a.status != 404 || !strings.Contains(string(a.body), "/deploy") {
		t.Errorf("outside the base path: %d %s", a.status, a.body)
	}
	if a := w.get("/deployment/api", ""); a.status != 404 {
		t.Errorf("beside the base path: %d", a.status)
	}
}

func TestWebKeepsItsOwnHeaders(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *rest.Config) {
		c.Web = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "<html>") })
	})
	a := w.get("/", "")
	if a.status != 200 || a.header.Get("Content-Security-Policy") != "" || a.header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%d %v", a.status, a.header)
	}
	if a := newWorld(t).get("/", ""); a.status != 404 {
		t.Errorf("without a web: %d", a.status)
	}
}

func TestHandlersSeeTheRequest(t *testing.T) {
	t.Parallel()
	type command struct {
		Name   string
		Count  int
		Active *bool
	}
	show := func(r *rest.Request) (any, error) {
		var c command
		if err := r.DecodeOptional(&c); err != nil {
			return nil, err
		}
		ids, err := r.QueryList("ids")
		if err != nil {
			return nil, err
		}
		yes, err := r.QueryBool("yes", true)
		if err != nil {
			return nil, err
		}
		from, err := r.QueryTime("from")
		if err != nil {
			return nil, err
		}
		actor := db.ActorFrom(r.Context())
		return map[string]any{
			"space": r.Space, "thing": r.PathValue("thing"), "none": r.PathValue("none"), "ids": ids, "yes": yes, "from": from,
			"name": c.Name, "count": c.Count, "user": actor.UserID, "ip": actor.IPAddress, "agent": actor.UserAgent, "url": r.SpaceHref("/x"),
		}, nil
	}
	w := newWorld(t, withRoutes(
		route("POST", "/things/{thing}/show", rest.InSpace, "ProjectView", show),
		route("GET", "/odd", rest.InSystem, rest.Public, func(r *rest.Request) (any, error) {
			r.ResponseHeader().Set("Set-Cookie", "a=b")
			return rest.Redirect{URL: "/elsewhere"}, nil
		}),
		route("PUT", "/nuget/packages", rest.AtRootInSpace, "BuiltInFeedPush", show),
		route("PUT", "/nuget/{space}/packages", rest.AtRootInSpace, "BuiltInFeedPush", show),
		route("PUT", "/order", rest.InSpace, "ProjectView", func(r *rest.Request) (any, error) {
			var ids []string
			err := r.Decode(&ids)
			return ids, err
		}),
	))
	w.client.Transport = http.DefaultTransport
	got := w.must(200, "POST", "/api/ops-team/things/a%2Fb/show?IDS=1,2&ids=3&Yes=FALSE&from=2026-01-02T03:04:05%2B01:00", `{"NAME":"x","count":5,"other":[]}`, "User-Agent", "probe").json(t)
	for name, want := range map[string]any{
		"space": "Spaces-2", "thing": "a/b", "none": "", "yes": false, "from": "2026-01-02T02:04:05Z", "name": "x", "count": 5.0,
		"user": "Users-1", "ip": "127.0.0.1", "agent": "probe", "url": "/api/Spaces-2/x",
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if !reflect.DeepEqual(got["ids"], []any{"1", "2", "3"}) {
		t.Errorf("ids are %v", got["ids"])
	}
	for path, want := range map[string]string{"/nuget/packages": "Spaces-1", "/nuget/ops-team/packages": "Spaces-2"} {
		if got := w.must(200, "PUT", path, "").json(t)["space"]; got != want {
			t.Errorf("%s is in %v, want %s", path, got, want)
		}
	}
	if got := w.must(200, "POST", "/api/things/a/show", "").json(t); got["space"] != "Spaces-1" || got["yes"] != true {
		t.Errorf("%v", got)
	}
	for query, says := range map[string]string{"yes=2": "yes", "from=soon": "from"} {
		if a := w.do("POST", "/api/things/a/show?"+query, admin, ""); a.status != 400 || !strings.Contains(string(a.body), says) {
			t.Errorf("?%s: %d %s", query, a.status, a.body)
		}
	}
	for body, says := range map[string]string{`{"count":"5"}`: "count is a text", `{"Active":1}`: "Active is a number", `[1]`: "an array", `{"a"`: "ends in"} {
		a := w.do("POST", "/api/things/a/show", admin, body)
		if a.status != 400 || !strings.Contains(strings.ToLower(string(a.body)), strings.ToLower(says)) {
			t.Errorf("%s: %d %s, want %q", body, a.status, a.body, says)
		}
	}
	if got := string(w.must(200, "PUT", "/api/order", `["b","a"]`).body); got != `["b","a"]`+"\n" {
		t.Error(got)
	}
	w.must(400, "PUT", "/api/order", `{"a":1}`)
	w.must(400, "PUT", "/api/order", ``)
	w.must(400, "PUT", "/api/order", `[1]`)
	a := w.get("/api/odd", "")
	if a.status != 302 || a.header.Get("Location") != "/elsewhere" || a.header.Get("Set-Cookie") != "a=b" {
		t.Errorf("%d %v", a.status, a.header)
	}
}

// broken fails in the middle.
type broken struct {
	data   io.Reader
	closed chan struct{}
}

func (b *broken) Read(p []byte) (int, error) {
	n, err := b.data.Read(p)
	if errors.Is(err, io.EOF) {
		err = errors.New("disk gone")
	}
	return n, err
}

func (b *broken) Close() error { close(b.closed); return nil }

func TestRawAnswers(t *testing.T) {
	t.Parallel()
	big := bytes.Repeat([]byte("0123456789"), 10_000)
	cut := &broken{data: bytes.NewReader(big), closed: make(chan struct{})}
	file := func(name string, raw func() rest.Raw) rest.Route {
		return route("GET", "/files/"+name, rest.InSystem, rest.Public, func(*rest.Request) (any, error) { return raw(), nil })
	}
	w := newWorld(t, withRoutes(
		file("seek", func() rest.Raw { return rest.Raw{Content: bytes.NewReader(big), Name: `a"ü.zip`, ETag: "hash"} }),
		file("sized", func() rest.Raw {
			return rest.Raw{Content: io.LimitReader(bytes.NewReader(big), 5), Size: 5, ContentType: "text/plain"}
		}),
		file("unsized", func() rest.Raw { return rest.Raw{Content: io.LimitReader(bytes.NewReader(big), 5)} }),
		file("broken", func() rest.Raw { return rest.Raw{Content: cut} }),
	))
	a := w.get("/api/files/seek", "")
	if !bytes.Equal(a.body, big) || a.header.Get("Content-Length") != "100000" || a.header.Get("ETag") != `"hash"` || !strings.HasPrefix(a.header.Get("Content-Disposition"), "attachment; filename") {
		t.Errorf("%d %v", a.status, a.header)
	}
	if a := w.do("GET", "/api/files/seek", "", "", "Range", "bytes=10-14"); a.status != 206 || string(a.body) != "01234" {
		t.Errorf("range: %d %.50q", a.status, a.body)
	}
	if a := w.do("GET", "/api/files/seek", "", "", "If-None-Match", `"hash"`); a.status != 304 {
		t.Errorf("If-None-Match: %d", a.status)
	}
	if a := w.get("/api/files/sized", ""); string(a.body) != "01234" || a.header.Get("Content-Length") != "5" || a.header.Get("Content-Type") != "text/plain" {
		t.Errorf("%v %q", a.header, a.body)
	}
	if a := w.get("/api/files/unsized", ""); string(a.body) != "01234" || a.header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("%v %q", a.header, a.body)
	}
	req, err := http.NewRequestWithContext(t.Context(), "GET", w.url+"/api/files/broken", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := w.client.Do(req)
	if err == nil {
		_, err = io.ReadAll(resp.Body)
		err = errors.Join(err, resp.Body.Close())
	}
	if err == nil {
		t.Error("content that broke off looks whole")
	}
	<-cut.closed
}

func TestUploads(t *testing.T) {
	t.Parallel()
	up := route("POST", "/uploads", rest.InSpace, "BuiltInFeedPush", func(r *rest.Request) (any, error) {
		n, err := io.Copy(io.Discard, r.Body)
		return rest.Created{Body: map[string]any{"Size": n}}, err
	})
	up.Upload = true
	w := newWorld(t, withRoutes(up))
	w.client.Transport = http.DefaultTransport
	// Chunked, and larger than a JSON body may be.
	body := io.LimitReader(zeros{}, rest.MaxBody+1)
	req, err := http.NewRequestWithContext(t.Context(), "POST", w.url+"/api/uploads", body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Octopus-ApiKey", admin)
	if a := w.send(req); a.status != 201 || a.json(t)["Size"] != float64(rest.MaxBody+1) {
		t.Errorf("%d %s", a.status, a.body)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestStreams(t *testing.T) {
	t.Parallel()
	drain, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	events := route("GET", "/events/live", rest.InSpace, "EventView", func(r *rest.Request) (any, error) {
		last := r.Header.Get("Last-Event-ID")
		return rest.Stream(func(ctx context.Context, send func(rest.Event) error) error {
			if err := send(rest.Event{ID: "1", Name: "line\nbreak", Data: map[string]string{"text": "a\nb", "last": last}}); err != nil {
				return err
			}
			<-ctx.Done()
			ended <- ctx.Err()
			return ctx.Err()
		}), nil
	})
	events.Streams = true
	failing := route("GET", "/events/failing", rest.InSpace, "EventView", func(*rest.Request) (any, error) {
		return rest.Stream(func(context.Context, func(rest.Event) error) error { return fault.Missing("task", "ServerTasks-1") }), nil
	})
	failing.Streams = true
	w := newWorld(t, withRoutes(events, failing), func(c *rest.Config) { c.Drain = drain })
	open := func(path string) *bufio.Scanner {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), "GET", w.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Octopus-ApiKey", admin)
		req.Header.Set("Last-Event-ID", "0")
		resp, err := w.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = resp.Body.Close() })
		if got := resp.Header.Get("Content-Type"); got != "text/event-stream; charset=utf-8" {
			t.Errorf("Content-Type is %q", got)
		}
		return bufio.NewScanner(resp.Body)
	}
	lines := func(s *bufio.Scanner, n int) string {
		var all []string
		for len(all) < n && s.Scan() {
			all = append(all, s.Text())
		}
		return strings.Join(all, "|")
	}
	s := open("/api/events/live")
	if got, want := lines(s, 6), `: ready||id: 1|event: line break|data: {"last":"0","text":"a\nb"}|`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := lines(open("/api/events/failing"), 4); !strings.Contains(got, "event: error|data: {") || !strings.Contains(got, "ServerTasks-1") {
		t.Errorf("a failing stream: %q", got)
	}
	stop()
	if s.Scan() {
		t.Errorf("after the drain: %q", s.Text())
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

func TestCallerLeavesStream(t *testing.T) {
	t.Parallel()
	ended := make(chan struct{})
	events := route("GET", "/live", rest.InSystem, rest.Public, func(*rest.Request) (any, error) {
		return rest.Stream(func(ctx context.Context, _ func(rest.Event) error) error {
			<-ctx.Done()
			close(ended)
			return ctx.Err()
		}), nil
	})
	events.Streams = true
	w := newWorld(t, withRoutes(events))
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", w.url+"/api/live", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := w.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	<-ended
	_ = resp.Body.Close() // cut off already
}

func TestGuardAndReady(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *rest.Config) {
		c.Guard = func(r *rest.Request) error {
			if r.Method != http.MethodGet && r.Principal.Actor().UserID == "Users-1" {
				return fault.New(fault.Unavailable, "The server is in maintenance mode.")
			}
			return nil
		}
		c.Ready = func(context.Context) error { return fault.New(fault.Unavailable, "The node drains.") }
	})
	if a := w.do("POST", "/api/environments", admin, `{"Name":"x"}`); a.status != 503 || a.header.Get("Retry-After") == "" {
		t.Errorf("%d %v", a.status, a.header)
	}
	w.must(200, "GET", "/api/environments", "")
	if a := w.get("/readyz", ""); a.status != 503 {
		t.Errorf("readyz: %d", a.status)
	}
	if a := w.get("/livez", ""); a.status != 200 {
		t.Errorf("livez: %d", a.status)
	}
}

func TestOverrides(t *testing.T) {
	t.Parallel()
	clone := route("POST", "/environments", rest.InSpace, "EnvironmentCreate", func(r *rest.Request) (any, error) {
		body, err := r.ReadBody()
		if err != nil {
			return nil, err
		}
		if from := r.Query("clone"); from != "" {
			body = []byte(`{"Name":"copy of ` + from + `"}`)
		}
		return r.Create("environments", body)
	})
	clone.Overrides = true
	clone.Query = []rest.Param{{Name: "clone", Type: rest.Text, About: "the one to copy"}}
	clone.Body, clone.Response = reflect.TypeFor[octopus.Environment](), reflect.TypeFor[octopus.Environment]()
	first := route("GET", "/environments/first", rest.InSpace, "EnvironmentView", func(r *rest.Request) (any, error) {
		return r.Get("environments", "Environments-1")
	})
	first.Response = reflect.TypeFor[octopus.Environment]()
	w := newWorld(t, withRoutes(clone, first))
	id := w.create("/api/environments", `{"Name":"plain"}`)
	if a := w.must(201, "POST", "/api/Spaces-1/environments?clone="+id, `{}`); a.text(t, "Name") != "copy of "+id || a.header.Get("Location") == "" {
		t.Errorf("%v %s", a.header, a.body)
	}
	if a := w.must(200, "GET", "/api/environments/first", ""); a.text(t, "Name") != "plain" || a.header.Get("ETag") == "" {
		t.Errorf("%v %s", a.header, a.body)
	}
}

func TestLogHasNoKeys(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	w := newWorld(t, func(c *rest.Config) {
		c.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	rec := httptest.NewRecorder()
	req := httptest.NewRequestWithContext(t.Context(), "GET", "/api/environments?apikey=API-SECRET&take=-1", nil)
	req.Header.Set("X-Octopus-ApiKey", "API-OTHER")
	w.api.ServeHTTP(rec, req)
	if rec.Code != http.StatusUnauthorized {
		t.Errorf("status %d", rec.Code)
	}
	if text := log.String(); strings.Contains(text, "API-SECRET") || strings.Contains(text, "API-OTHER") || !strings.Contains(text, "path=/api/environments status=4") {
		t.Errorf("logged %s", text)
	}
}

func TestCompression(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(c *rest.Config) { c.Compress = true })
	w.client.Transport = &http.Transport{DisableCompression: true}
	plain := w.get("/api", "")
	zipped := w.do("GET", "/api", "", "", "Accept-Encoding", "br, gzip")
	if zipped.header.Get("Content-Encoding") != "gzip" || plain.header.Get("Content-Encoding") != "" || len(zipped.body) >= len(plain.body)/2 {
		t.Fatalf("%v %d, %v %d", zipped.header, len(zipped.body), plain.header, len(plain.body))
	}
	z, err := gzip.NewReader(bytes.NewReader(zipped.body))
	if err != nil {
		t.Fatal(err)
	}
	if body, err := io.ReadAll(z); err != nil || !bytes.Equal(body, plain.body) {
		t.Errorf("%v", err)
	}
	if a := w.do("GET", "/api", "", "", "Accept-Encoding", "gzip;q=0"); a.header.Get("Content-Encoding") != "" {
		t.Error("compressed against the caller's will")
	}
}

func TestConnectionsLiveOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var dials int
	w.client.Transport = &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials++
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	for range 5 {
		w.must(200, "GET", "/api/environments", "")
		w.must(404, "GET", "/api/environments/none", "")
		w.do("POST", "/api/environments", admin, `{"Name":5}`)
		w.get("/api/nothing", "")
	}
	if dials != 1 {
		t.Errorf("%d connections for requests one after the other", dials)
	}
}
