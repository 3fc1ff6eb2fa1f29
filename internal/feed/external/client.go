package external

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/octopus"
)

// maxRedirects is how often one request is sent on.
const maxRedirects = 5

// client asks one feed.
type client struct {
	feed string   // its name, for messages
	what string   // what is expected at its address, for messages
	base *url.URL // without a user, query or slash at its end

	user     string
	password secret.Text
	// bearer has the password sent as a token, where there is no user.
	bearer bool

	http      *http.Client
	answer    time.Duration
	stall     time.Duration
	maxAnswer int64
}

// client makes the client of a feed; what is what should be at its address.
func (f *Feeds) client(doc *octopus.Feed, what string) (*client, error) {
	if doc.FeedURI == "" {
		return nil, fault.InvalidField("FeedUri", "The feed '%s' has no FeedUri; set it to the address of %s.", doc.Name, what)
	}
	base, err := url.Parse(doc.FeedURI)
	if err != nil || base.Host == "" || base.Scheme != "http" && base.Scheme != "https" {
		// The address is not repeated: it may have a password in it.
		return nil, fault.InvalidField("FeedUri", "The FeedUri of the feed '%s' is no address with http or https; set it to the address of %s.", doc.Name, what)
	}
	c := &client{
		feed: doc.Name, what: what, user: doc.Username, password: secret.Text(clear(doc.Password)),
		answer: f.cfg.Answer, stall: f.cfg.Stall, maxAnswer: f.cfg.MaxAnswer,
	}
	if u := base.User; u != nil && c.user == "" && c.password == "" {
		p, _ := u.Password()
		c.user, c.password = u.Username(), secret.Text(p)
	}
	base.User, base.RawQuery, base.Fragment = nil, "", ""
	base.Path, base.RawPath = strings.TrimRight(base.Path, "/"), ""
	c.base = base
	c.http = &http.Client{Transport: f.transport, CheckRedirect: redirect}
	return c, nil
}

// at is the address of a path below the feed's; its segments are escaped.
func (c *client) at(segments ...string) *url.URL { return c.base.JoinPath(escaped(segments)...) }

func escaped(segments []string) []string {
	out := make([]string, len(segments))
	for i, s := range segments {
		out[i] = url.PathEscape(s)
	}
	return out
}

// resolve reads an address that the feed gave.
func (c *client) resolve(from *url.URL, text string) (*url.URL, error) {
	u, err := from.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, c.nonsense("an address that is none with http or https")
	}
	if from.Scheme == "https" && u.Scheme != "https" {
		return nil, c.nonsense("an address without encryption")
	}
	u.User = nil
	return u, nil
}

func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return map[string]string{"http": "80", "https": "443"}[u.Scheme]
}

var (
	errRedirects = errors.New("it sends the request from one address to the next")
	errDowngrade = errors.New("it sends the request to an address without encryption")
	errScheme    = errors.New("it sends the request to an address that is not of the web")
	errStalled   = errors.New("it stopped sending")
	errTooLarge  = errors.New("its answer is too large")
)

// redirect follows a feed to other addresses, where its credentials do not go:
// neither to another host, nor from there back.
func redirect(req *http.Request, via []*http.Request) error {
	req.Header.Del("Referer") // it may have a token in its query
	switch {
	case len(via) > maxRedirects:
		return errRedirects
	case req.URL.Scheme != "http" && req.URL.Scheme != "https":
		return errScheme
	case via[0].URL.Scheme == "https" && req.URL.Scheme != "https":
		return errDowngrade
	}
	for _, r := range append(via[1:len(via):len(via)], req) {
		if !sameOrigin(r.URL, via[0].URL) {
			req.Header.Del("Authorization")
		}
	}
	return nil
}

// send asks for an address with a method, and returns whatever the answer is.
func (c *client) send(ctx context.Context, u *url.URL, headers http.Header) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, c.nonsense("an address that is none")
	}
	for name, values := range headers {
		req.Header[name] = values
	}
	req.Header.Set("User-Agent", "tako")
	if req.Header.Get("Authorization") == "" && sameOrigin(u, c.base) {
		switch {
		case c.user == "" && c.password != "" && c.bearer:
			req.Header.Set("Authorization", "Bearer "+string(c.password))
		case c.user != "" || c.password != "":
			req.SetBasicAuth(c.user, string(c.password))
		}
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.down(ctx, u, err)
	}
	return resp, nil
}

// get asks for an address, and returns an answer that is not a failure. An absent
// thing is a fault NotFound.
func (c *client) get(ctx context.Context, u *url.URL, headers http.Header) (*http.Response, error) {
	resp, err := c.send(ctx, u, headers)
	if err != nil {
		return nil, err
	}
	if err := c.refusal(resp); err != nil {
		drop(resp)
		return nil, err
	}
	return resp, nil
}

// drop ends an answer that nobody reads.
func drop(resp *http.Response) {
	_, _ = io.CopyN(io.Discard, resp.Body, 4<<10) // lets a short one's connection be used again
	_ = resp.Body.Close()                         // nothing was written
}

// refusal is the fault of an answer by its status, nil for success.
func (c *client) refusal(resp *http.Response) error {
	switch code := resp.StatusCode; {
	case code == http.StatusOK:
		return nil
	case code == http.StatusNotFound || code == http.StatusGone:
		return fault.New(fault.NotFound, "The feed '%s' does not have it.", c.feed)
	case code == http.StatusTooManyRequests || code == http.StatusForbidden && resp.Header.Get("X-Ratelimit-Remaining") == "0":
		return fault.New(fault.Unavailable, "The feed '%s' asks to slow down (%d); try again later, or give it credentials with a higher limit.", c.feed, code)
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return fault.New(fault.Unavailable, "The feed '%s' refuses its credentials (%d); check the Username and Password of the feed.", c.feed, code)
	case code == http.StatusProxyAuthRequired:
		return fault.New(fault.Unavailable, "The proxy before the feed '%s' refuses this server (407); check HTTP_PROXY and HTTPS_PROXY.", c.feed)
	default:
		return fault.New(fault.Unavailable, "The feed '%s' answered with status %d; check that its FeedUri is the address of %s, or try again later.", c.feed, code, c.what)
	}
}

// down is the fault of a feed that cannot be asked. The cause has no address in it:
// that of a redirect may be signed.
func (c *client) down(ctx context.Context, u *url.URL, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	for wrapped := (*url.Error)(nil); errors.As(err, &wrapped); {
		err = wrapped.Err
	}
	why := "it cannot be reached"
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		why = "it did not answer in time"
	case errors.Is(err, errRedirects), errors.Is(err, errDowngrade), errors.Is(err, errScheme), errors.Is(err, errStalled), errors.Is(err, errTooLarge):
		why = err.Error()
	}
	f := fault.New(fault.Unavailable, "The feed '%s' failed at %s: %s; check its FeedUri and that the server there runs, or try again later.", c.feed, u.Host, why)
	f.Cause = err
	return f
}

// nonsense is the fault of a feed that answers with what it should not.
func (c *client) nonsense(what string) error {
	return fault.New(fault.Unavailable, "The feed '%s' answered with %s; check that its FeedUri is the address of %s.", c.feed, what, c.what)
}

// read asks for an address and has fn read the answer, within the bounds of time and
// size. It returns the headers of the answer.
func (c *client) read(ctx context.Context, u *url.URL, headers http.Header, fn func(io.Reader) error) (http.Header, error) {
	ctx, cancel := context.WithTimeout(ctx, c.answer)
	defer cancel()
	resp, err := c.get(ctx, u, headers)
	if err != nil {
		return nil, err
	}
	return resp.Header, c.take(ctx, u, resp, fn)
}

// take has fn read the body of an answer.
func (c *client) take(ctx context.Context, u *url.URL, resp *http.Response, fn func(io.Reader) error) error {
	defer resp.Body.Close()
	body := &bounded{from: resp.Body, left: c.maxAnswer}
	err := fn(body)
	switch {
	case err == nil:
		return nil
	case body.err != nil:
		return c.down(ctx, u, body.err)
	case fault.KindOf(err) != fault.Internal:
		return err
	}
	return c.nonsense("what cannot be read")
}

// json reads an answer into v.
func (c *client) json(ctx context.Context, u *url.URL, headers http.Header, v any) (http.Header, error) {
	return c.read(ctx, u, headers, func(r io.Reader) error { return json.NewDecoder(r).Decode(v) })
}

// xml reads an answer into v.
func (c *client) xml(ctx context.Context, u *url.URL, v any) error {
	_, err := c.read(ctx, u, nil, func(r io.Reader) error { return xml.NewDecoder(r).Decode(v) })
	return err
}

// text reads a short answer.
func (c *client) text(ctx context.Context, u *url.URL) (string, error) {
	var all []byte
	_, err := c.read(ctx, u, nil, func(r io.Reader) (err error) {
		all, err = io.ReadAll(io.LimitReader(r, 4<<10))
		return err
	})
	return string(all), err
}

// bounded reads no more than it may, and keeps the error of reading.
type bounded struct {
	from io.Reader
	left int64
	err  error
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		b.err = errTooLarge
		return 0, b.err
	}
	n, err := b.from.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	return n, err
}

// download asks for a file. It may take as long as it likes, as long as it moves.
func (c *client) download(ctx context.Context, u *url.URL, headers http.Header, name string) (*download, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(c.stall, func() { cancel(errStalled) })
	resp, err := c.get(ctx, u, headers) //nolint:bodyclose // closed with the download
	if err != nil {
		timer.Stop()
		cancel(nil)
		return nil, err
	}
	return &download{name: name, body: &moving{c: c, ctx: ctx, at: u, body: resp.Body, timer: timer, cancel: cancel}}, nil
}

// moving is a body that fails when it stands still.
type moving struct {
	c      *client
	ctx    context.Context //nolint:containedctx // the body's own: it ends with it
	at     *url.URL
	body   io.ReadCloser
	timer  *time.Timer
	cancel context.CancelCauseFunc
}

// Read reads the next part.
func (m *moving) Read(p []byte) (int, error) {
	n, err := m.body.Read(p)
	if n > 0 {
		m.timer.Reset(m.c.stall)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		err = m.c.down(m.ctx, m.at, err)
	}
	return n, err
}

// Close ends the download.
func (m *moving) Close() error {
	m.timer.Stop()
	m.cancel(nil)
	if err := m.body.Close(); err != nil && m.ctx.Err() == nil {
		return fmt.Errorf("end the download: %w", err)
	}
	return nil
}
