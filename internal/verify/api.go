package verify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/egress"
)

// client asks the program's own API.
type client struct {
	*run
	http *http.Client
}

func (r *run) client() *client {
	c := egress.Client()
	c.Timeout = 5 * time.Minute // a program that hangs is a finding, not a reason to wait for ever
	c.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &client{r, c}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// maxAnswer bounds an answer that is read as JSON, in bytes.
const maxAnswer = 32 << 20

// answer is what the API said.
type answer struct {
	status  int
	body    []byte
	cookies []*http.Cookie
	large   bool // the body was cut
}

// ask sends a request. body is JSON unless kind names another type; session, if it is not
// nil, is sent instead of the key.
func (c *client) ask(ctx context.Context, method, path string, body []byte, kind string, session []*http.Cookie) (*answer, error) {
	resp, err := c.send(ctx, method, path, body, kind, session)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	a := &answer{status: resp.StatusCode, cookies: resp.Cookies()}
	if a.body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1)); err != nil {
		return nil, fmt.Errorf("%s %s: %w", method, path, err)
	}
	if a.large = len(a.body) > maxAnswer; a.large {
		a.body = nil
	}
	return a, nil
}

func (c *client) send(ctx context.Context, method, path string, body []byte, kind string, session []*http.Cookie) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.API.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if session == nil {
		req.Header.Set("X-Octopus-ApiKey", c.API.Key)
	}
	for _, one := range session {
		req.AddCookie(one)
	}
	if body != nil {
		if kind == "" {
			kind = "application/json"
		}
		req.Header.Set("Content-Type", kind)
	}
	return c.http.Do(req)
}

// read reads the same logs and artifacts once more, as a client does.
func (c *client) read(ctx context.Context) error {
	for _, one := range []struct {
		ids          []string
		path, suffix string
	}{{c.readLogs, "/api/tasks/", "/raw"}, {c.readArtifacts, "/api/artifacts/", "/content"}} {
		for _, id := range one.ids {
			path := one.path + id + one.suffix
			said, err := c.stream(ctx, path)
			if err != nil {
				return err
			}
			c.fact(PartRead, "GET "+path, said)
		}
	}
	return nil
}

// stream hashes an answer of any size.
func (c *client) stream(ctx context.Context, path string) (string, error) {
	resp, err := c.send(ctx, http.MethodGet, path, nil, "", nil)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	sum := hmac.New(sha256.New, c.Key)
	n, err := io.Copy(sum, resp.Body)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err != nil {
		return fmt.Sprintf("%d, cut short", resp.StatusCode), nil //nolint:nilerr // a fact
	}
	return fmt.Sprintf("%d, %d bytes %s", resp.StatusCode, n, short(sum.Sum(nil))), nil
}

// lists are the paths that are read and whose answers are compared by their shape: those
// that clients ask for. What the first of two programs on one copy leaves behind must not
// show in them.
func (r *run) lists() []string {
	to := ""
	if !r.Until.IsZero() {
		to = "?to=" + url.QueryEscape(r.Until.UTC().Format(time.RFC3339))
	}
	all := []string{
		"/api", "/api/serverstatus", "/api/spaces", "/api/users/me", "/api/teams", "/api/userroles", "/api/scopeduserroles", "/api/permissions/all",
		"/api/projectgroups", "/api/projects", "/api/deploymentprocesses", "/api/channels", "/api/lifecycles", "/api/environments", "/api/releases", "/api/deployments",
		"/api/libraryvariablesets", "/api/tenants", "/api/tagsets", "/api/machines", "/api/machinepolicies", "/api/machineroles/all", "/api/workers", "/api/workerpools",
		"/api/accounts", "/api/certificates", "/api/proxies", "/api/feeds", "/api/packages", "/api/actiontemplates", "/api/projecttriggers", "/api/subscriptions",
		"/api/tasks", "/api/interruptions", "/api/artifacts", "/api/dashboard", "/api/maintenanceconfiguration", "/api/octopusservernodes", "/api/events" + to,
	}
	return all
}

// fleeting are members that tell of the moment and not of the data: a node that was alive
// when the copy was made is forgotten some time after, by whichever program looks then.
func fleeting() map[string][]string {
	return map[string][]string{"/api/octopusservernodes": {".Items[].LastSeen"}}
}

func (c *client) routes(ctx context.Context) error {
	for _, path := range c.lists() {
		a, err := c.ask(ctx, http.MethodGet, path, nil, "", nil)
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(path, "?")
		c.note(PartRoutes, "GET "+name, a, fleeting()[name]...)
	}
	return nil
}

// note notes an answer by its status and its shape, in which the members without have no
// place.
func (c *client) note(part, name string, a *answer, without ...string) {
	c.fact(part, name, fmt.Sprint(a.status)+a.refusal())
	shape := shapeOf(a)
	for _, member := range without {
		delete(shape, member)
	}
	if len(shape) > 0 {
		c.refer(part, name+": shape", shape)
	}
}

// maxShape bounds the members of a shape.
const maxShape = 5000

// shapeOf lists the members of a JSON document with the types that they have in it.
func shapeOf(a *answer) map[string]string {
	if a.large {
		return map[string]string{"(all)": fmt.Sprintf("more than %d bytes", maxAnswer)}
	}
	if len(bytes.TrimSpace(a.body)) == 0 {
		return nil
	}
	var doc any
	if err := json.Unmarshal(a.body, &doc); err != nil {
		return map[string]string{"(all)": "no JSON"}
	}
	types := map[string]map[string]bool{}
	walk(doc, "", types)
	out := make(map[string]string, len(types))
	for path, of := range types {
		out[path] = strings.Join(slices.Sorted(maps.Keys(of)), " or ")
	}
	return out
}

// idForm is what a member's name looks like that is no name but somebody's id.
var idForm = regexp.MustCompile(`(?i)^[a-z]+(-[a-z0-9]+)*-[0-9]+$`)

func walk(v any, path string, types map[string]map[string]bool) {
	note := func(kind string) {
		if types[path] == nil {
			if len(types) >= maxShape {
				return
			}
			types[path] = map[string]bool{}
		}
		types[path][kind] = true
	}
	switch v := v.(type) {
	case nil:
		note("null")
	case bool:
		note("boolean")
	case float64:
		note("number")
	case string:
		note("text")
	case []any:
		note("list")
		for _, one := range v {
			walk(one, path+"[]", types)
		}
	case map[string]any:
		note("object")
		for name, one := range v {
			if idForm.MatchString(name) {
				name = "{id}"
			}
			walk(one, path+"."+name, types)
		}
	}
}

// probeName is a name that was made up for one try.
var probeName = regexp.MustCompile(Probe + `-[a-z0-9]+`)

// refusal is why a request was refused, without what is made up for each try.
func (a *answer) refusal() string {
	if a.status < http.StatusBadRequest {
		return ""
	}
	var said struct {
		ErrorMessage string
		Errors       []string
	}
	if err := json.Unmarshal(a.body, &said); err != nil || said.ErrorMessage == "" {
		return ""
	}
	text := probeName.ReplaceAllString(strings.Join(append([]string{said.ErrorMessage}, said.Errors...), " "), Probe)
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "..."
	}
	return ": " + text
}

// member reads a text of an answer's JSON object.
func (a *answer) member(name string) string {
	var doc map[string]any
	if err := json.Unmarshal(a.body, &doc); err != nil {
		return ""
	}
	text, _ := doc[name].(string)
	return text
}

// errStop ends a row of requests of which one was not answered as it should be: what
// comes after needs it.
var errStop = errors.New("the next requests need this one")
