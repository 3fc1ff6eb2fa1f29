package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/takodeploy/tako/internal/fault"
)

// Client reaches an agent, over its unix socket or what Via is given. It holds no state but idle
// connections: an agent may be restarted or replaced beneath it.
type Client struct {
	socket string
	http   *http.Client
}

// socketName is the socket, below the home.
const socketName = "run/agent.sock"

// SocketPath is where the agent with that home listens.
func SocketPath(home string) string { return filepath.Join(home, filepath.FromSlash(socketName)) }

// Dial returns a client of the agent at a socket's path (SocketPath). It does not
// connect: an agent that is not there yet is ErrNotSent at the first call.
func Dial(socket string) *Client {
	return Over(func(ctx context.Context) (net.Conn, error) { return dialSocket(ctx, socket) }, socket)
}

// Over returns a client whose connections dial makes: to the agent's socket, however
// far away. An error of dial is ErrNotSent. Name tells the agent in errors.
func Over(dial func(context.Context) (net.Conn, error), name string) *Client {
	return &Client{socket: name, http: &http.Client{Transport: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		MaxIdleConnsPerHost: 16,
		IdleConnTimeout:     30 * time.Second,
		DisableCompression:  true,
	}}}
}

// Via returns a client whose calls are carried by something else than a socket,
// which name tells in errors. Errors of rt that wrap ErrUnanswered stay that; any
// other is ErrNotSent. What it carries is for Handler on the other side.
func Via(rt http.RoundTripper, name string) *Client {
	return &Client{socket: name, http: &http.Client{Transport: rt}}
}

// Close drops the idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// do sends a request and returns the answer's body; the caller closes it. An answer
// that is no success is returned as a fault.
func (c *Client) do(ctx context.Context, method, path string, body io.Reader, size int64) (*http.Response, error) {
	// A request counts as sent once a connection is there: what the agent has read
	// of it cannot be known.
	var sent atomic.Bool
	traced := httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { sent.Store(true) }})
	req, err := http.NewRequestWithContext(traced, method, "http://agent"+path, body)
	if err != nil {
		return nil, fmt.Errorf("call agent: %w", err)
	}
	if body != nil {
		req.ContentLength = size
		req.Header.Set("Content-Type", "application/octet-stream")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		kind := ErrNotSent
		if sent.Load() || errors.Is(err, ErrUnanswered) {
			kind = ErrUnanswered
		}
		return nil, fmt.Errorf("call agent at %s: %w: %w", c.socket, kind, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxError))
	if err != nil {
		return nil, unanswered(err)
	}
	var w wireError
	if err := json.Unmarshal(b, &w); err != nil {
		// A HEAD answer has no body.
		w = wireError{Kind: fault.Internal, Message: "The agent answered " + resp.Status + "."}
		if resp.StatusCode == http.StatusBadRequest {
			w.Kind = fault.Invalid
		}
	}
	return nil, &fault.Error{Kind: w.Kind, Field: w.Field, Message: w.Message}
}

func unanswered(err error) error { return fmt.Errorf("call agent: %w: %w", ErrUnanswered, err) }

// call sends v as JSON and returns the whole body of the answer.
func (c *Client) call(ctx context.Context, path string, v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("call agent: %w", err)
	}
	resp, err := c.do(ctx, http.MethodPost, path, bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	return readAnswer(resp, maxStatus)
}

func readAnswer(resp *http.Response, limit int64) ([]byte, error) {
	defer resp.Body.Close()
	if resp.ContentLength > limit {
		return nil, unanswered(fmt.Errorf("an answer of %d bytes is too long", resp.ContentLength))
	}
	buf := bytes.NewBuffer(make([]byte, 0, max(resp.ContentLength, 0)+bytes.MinRead))
	n, err := buf.ReadFrom(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, unanswered(err)
	}
	if n > limit {
		return nil, unanswered(fmt.Errorf("an answer of more than %d bytes is too long", limit))
	}
	return buf.Bytes(), nil
}

func (c *Client) status(ctx context.Context, path string, v any) (Status, error) {
	b, err := c.call(ctx, path, v)
	if err != nil {
		return Status{}, err
	}
	st, err := decodeStatus(b)
	if err != nil {
		return Status{}, unanswered(err)
	}
	return st, nil
}

// Hello implements API.
func (c *Client) Hello(ctx context.Context) (Hello, error) {
	var h Hello
	resp, err := c.do(ctx, http.MethodGet, pathHello, nil, 0) //nolint:bodyclose // decodeAnswer closes it
	if err != nil {
		return h, err
	}
	return h, decodeAnswer(resp, &h)
}

func decodeAnswer(resp *http.Response, into any) error {
	b, err := readAnswer(resp, maxError)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, into); err != nil {
		return unanswered(err)
	}
	return nil
}

// StartScript implements Scripts.
func (c *Client) StartScript(ctx context.Context, req StartRequest) (Status, error) {
	// Checked here too, so that a request that is too large is refused, not cut off.
	if err := req.check(); err != nil {
		return Status{}, err
	}
	return c.status(ctx, pathStart, req)
}

// GetStatus implements Scripts.
func (c *Client) GetStatus(ctx context.Context, req StatusRequest) (Status, error) {
	return c.status(ctx, pathStatus, req)
}

// CancelScript implements Scripts.
func (c *Client) CancelScript(ctx context.Context, req StatusRequest) (Status, error) {
	return c.status(ctx, pathCancel, req)
}

// CompleteScript implements Scripts.
func (c *Client) CompleteScript(ctx context.Context, ticket Ticket) error {
	_, err := c.call(ctx, pathComplete, StatusRequest{Ticket: ticket})
	return err
}

// UploadFile implements Files.
func (c *Client) UploadFile(ctx context.Context, path string, r io.Reader) (Uploaded, error) {
	var up Uploaded
	resp, err := c.do(ctx, http.MethodPut, pathFiles+"?path="+url.QueryEscape(path), io.NopCloser(r), -1) //nolint:bodyclose // decodeAnswer closes it
	if err != nil {
		return up, err
	}
	return up, decodeAnswer(resp, &up)
}

// DownloadFile implements Files. A body that ends early is an error of its Read.
func (c *Client) DownloadFile(ctx context.Context, path string) (io.ReadCloser, error) {
	resp, err := c.do(ctx, http.MethodGet, pathFiles+"?path="+url.QueryEscape(path), nil, 0)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// HasPackage implements Packages.
func (c *Client) HasPackage(ctx context.Context, sha256 string) (bool, error) {
	if err := checkSHA256(sha256); err != nil {
		return false, err
	}
	resp, err := c.do(ctx, http.MethodHead, pathPackages+sha256, nil, 0)
	if err != nil {
		return false, err
	}
	return resp.StatusCode == http.StatusOK, resp.Body.Close()
}

// PutPackage implements Packages.
func (c *Client) PutPackage(ctx context.Context, sha256 string, size int64, r io.Reader) error {
	if err := checkSHA256(sha256); err != nil {
		return err
	}
	resp, err := c.do(ctx, http.MethodPut, pathPackages+sha256+"?size="+strconv.FormatInt(size, 10), io.NopCloser(r), size)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}

// UpgradeProgram implements Upgrades.
func (c *Client) UpgradeProgram(ctx context.Context, req UpgradeRequest) error {
	_, err := c.call(ctx, pathUpgrade, req)
	return err
}

// ConfirmProgram implements Upgrades.
func (c *Client) ConfirmProgram(ctx context.Context, sha256 string) error {
	_, err := c.call(ctx, pathConfirm, UpgradeRequest{SHA256: sha256})
	return err
}

// ApplyDelta implements Deltas.
func (c *Client) ApplyDelta(ctx context.Context, base, target string, size int64, delta io.Reader, deltaSize int64) error {
	if err := errors.Join(checkSHA256(base), checkSHA256(target)); err != nil {
		return err
	}
	path := pathPackages + target + pathDelta + "?base=" + base + "&size=" + strconv.FormatInt(size, 10)
	resp, err := c.do(ctx, http.MethodPut, path, io.NopCloser(delta), deltaSize)
	if err != nil {
		return err
	}
	return resp.Body.Close()
}
