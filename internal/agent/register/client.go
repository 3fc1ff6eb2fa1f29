package register

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/octopus"
)

// Credentials say on whose behalf an agent is registered. One of them is needed: an API
// key, an access token, or a user's name and password.
type Credentials struct {
	APIKey   octopus.PlainSecret
	Bearer   octopus.PlainSecret
	Username string
	Password octopus.PlainSecret
}

// Limits of a conversation.
const (
	maxAnswer   = 64 << 20 // bytes of one answer
	maxPages    = 10_000
	callTimeout = time.Minute
	startTries  = 30 // while a server is starting
)

// startPause is between two of them.
const startPause = 2 * time.Second

const (
	csrfCookie = "Octopus-Csrf-Token" // the beginning of its name
	csrfHeader = "X-Octopus-Csrf-Token"
)

// Client speaks to a server's API. It is for one goroutine.
type Client struct {
	base *url.URL
	http *http.Client
	cred Credentials
	csrf string
}

// StatusError is an answer that says no.
type StatusError struct {
	Status int
	// Sentences are the server's own.
	Sentences []string
}

// Error is what the server says.
func (e *StatusError) Error() string {
	return fmt.Sprintf("the server answered %d: %s", e.Status, strings.Join(e.Sentences, " "))
}

// ParseServer reads the URL of a server: http or https, a host, perhaps a path.
func ParseServer(s string) (*url.URL, error) {
	u, err := url.Parse(strings.TrimSpace(s))
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("give the server's URL, such as https://tako.example.com")
	}
	path := strings.TrimSuffix(strings.TrimRight(u.Path, "/"), "/api")
	return &url.URL{Scheme: u.Scheme, Host: u.Host, Path: path}, nil
}

// NewClient makes a client of the server at a URL of [ParseServer]. proxy may be nil:
// then the environment says whether there is one.
func NewClient(server, proxy *url.URL, cred Credentials) (*Client, error) {
	jar, err := cookiejar.New(nil)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{Proxy: egress.Proxy, DialContext: egress.Dialer(net.Dialer{}), ForceAttemptHTTP2: true, TLSHandshakeTimeout: callTimeout}
	if proxy != nil {
		transport.Proxy = http.ProxyURL(proxy)
	}
	return &Client{base: server, cred: cred, http: &http.Client{
		Transport: transport, Jar: jar, Timeout: callTimeout,
		// Credentials go to nobody but the server that was named, and never in clear from
		// one that was named with https.
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) >= 5 || req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme || via[0].Method != http.MethodGet {
				return fmt.Errorf("the server sends us on to %s; give that as --server if it is right", req.URL)
			}
			return nil
		},
	}}, nil
}

// Close drops the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// call sends in as JSON, if it is not nil, and reads the answer into out. href is as
// links have it: with the path that the server is reached under.
func (c *Client) call(ctx context.Context, method, href string, in, out any) error {
	ref, err := url.Parse(href)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, href, err)
	}
	at := c.base.ResolveReference(ref)
	if at.Host != c.base.Host || at.Scheme != c.base.Scheme {
		return fmt.Errorf("%s %s: the link leads to another server", method, href)
	}
	var body io.Reader
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, at.String(), body)
	if err != nil {
		return err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "tako-agent")
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	switch {
	case c.cred.APIKey != "":
		req.Header.Set("X-Octopus-ApiKey", string(c.cred.APIKey))
	case c.cred.Bearer != "":
		req.Header.Set("Authorization", "Bearer "+string(c.cred.Bearer))
	case c.csrf != "":
		req.Header.Set(csrfHeader, c.csrf)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err // it names method and URL
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", method, at.Path, err)
	case len(text) > maxAnswer:
		return fmt.Errorf("%s %s: the answer has more than %d bytes", method, at.Path, maxAnswer)
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("%s %s: %w", method, at.Path, refusal(resp.StatusCode, text))
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(text, out); err != nil {
		return fmt.Errorf("%s %s: the answer is not what a server of this API answers; check the URL of the server", method, at.Path)
	}
	return nil
}

func refusal(status int, text []byte) error {
	var said struct {
		ErrorMessage string
		Errors       []string
	}
	e := &StatusError{Status: status}
	switch {
	case json.Unmarshal(text, &said) != nil || said.ErrorMessage == "":
		e.Sentences = []string{http.StatusText(status)}
	case len(said.Errors) > 0:
		e.Sentences = said.Errors
	default:
		e.Sentences = []string{said.ErrorMessage}
	}
	return e
}

// status is that of a refusal, 0 of another error.
func status(err error) int {
	var e *StatusError
	if errors.As(err, &e) {
		return e.Status
	}
	return 0
}

// links are what a document leads to, as templates.
type links map[string]string

// document is what is read of most.
type document struct {
	ID    string `json:"Id"`
	Name  string
	Slug  string
	Links links
}

// at fills in a link's template: {/id}, {id} and {?a,b}, of which only those that
// params has.
func (l links) at(name string, params url.Values) (string, error) {
	template, ok := l[name]
	if !ok {
		return "", fmt.Errorf("the server's documents have no link %q; it may be too old, or the URL another program's", name)
	}
	var out strings.Builder
	query := url.Values{}
	for template != "" {
		before, rest, found := strings.Cut(template, "{")
		out.WriteString(before)
		if !found {
			break
		}
		expr, after, closed := strings.Cut(rest, "}")
		if !closed || expr == "" {
			return "", fmt.Errorf("the server's link %q is no template: %q", name, l[name])
		}
		template = after
		op, names := byte(0), expr
		if strings.IndexByte("/?&", expr[0]) >= 0 {
			op, names = expr[0], expr[1:]
		}
		for one := range strings.SplitSeq(names, ",") {
			value, given := params[one]
			switch {
			case !given:
			case op == '?' || op == '&':
				query[one] = value
			case op == '/':
				out.WriteString("/" + url.PathEscape(value[0]))
			default:
				out.WriteString(url.PathEscape(value[0]))
			}
		}
	}
	if len(query) > 0 {
		out.WriteString("?" + query.Encode())
	}
	return out.String(), nil
}

// get reads what a link leads to.
func (c *Client) get(ctx context.Context, l links, name string, params url.Values, out any) error {
	href, err := l.at(name, params)
	if err != nil {
		return err
	}
	return c.call(ctx, http.MethodGet, href, nil, out)
}

// each calls fn for the items of all pages, until it says that it has enough.
func (c *Client) each(ctx context.Context, l links, name string, params url.Values, fn func(json.RawMessage) (more bool, err error)) error {
	href, err := l.at(name, params)
	for range maxPages {
		if err != nil {
			return err
		}
		var page struct {
			Items []json.RawMessage
			Links links
		}
		if err := c.call(ctx, http.MethodGet, href, nil, &page); err != nil {
			return err
		}
		for _, item := range page.Items {
			if more, err := fn(item); err != nil || !more {
				return err
			}
		}
		if page.Links["Page.Next"] == "" {
			return nil
		}
		href, err = page.Links.at("Page.Next", nil)
	}
	return fmt.Errorf("the list %s has no end", name)
}

// collect is each for all documents of a list.
func (c *Client) collect(ctx context.Context, l links, name string, params url.Values) (all []document, err error) {
	err = c.each(ctx, l, name, params, func(item json.RawMessage) (bool, error) {
		var d document
		err := json.Unmarshal(item, &d)
		all = append(all, d)
		return true, err
	})
	return all, err
}
