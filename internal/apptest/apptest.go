// Package apptest starts the real server for tests: its own data directory and
// port, either database, the real agent as a process, and a client that speaks to
// it over HTTP alone.
package apptest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"mime/multipart"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/proctest"
	"github.com/takodeploy/tako/internal/secret"
)

// AdminKey is the API key of the administrator of every test server.
const AdminKey = "API-TESTADMINISTRATOR00000000000"

// Dialects are the databases that a test runs on.
func Dialects() []db.Dialect { return []db.Dialect{db.SQLite, db.Postgres} }

// Run runs a test on a server with each of the databases.
func Run(t *testing.T, fn func(t *testing.T, s *Server)) {
	t.Helper()
	for _, dialect := range Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			fn(t, Start(t, dialect))
		})
	}
}

// Server is a running server.
type Server struct {
	*Client
	Data     string
	Database string // its URL; a test may open a handle of its own
	App      *app.App
}

// Options of StartWith.
type Options struct {
	Log *slog.Logger // shows warnings with a failing test, unless set
	// NoWorker leaves the built-in worker out, for tests that run no script.
	NoWorker bool
	// OnStatement is told of every SQL statement of the server.
	OnStatement func(query string)
}

// Start runs a server within the test's process until the test ends. Its built-in
// worker is a process, and ends with the test too.
func Start(t testing.TB, dialect db.Dialect) *Server {
	t.Helper()
	return StartWith(t, dialect, Options{})
}

// StartWith is Start with options.
func StartWith(t testing.TB, dialect db.Dialect, opt Options) *Server {
	t.Helper()
	if opt.Log == nil {
		opt.Log = dbtest.Log(t)
	}
	cfg := config.Defaults()
	cfg.BuiltinWorker = !opt.NoWorker
	cfg.Data = filepath.Join(ShortDir(t), "data")
	cfg.Backups = filepath.Join(cfg.Data, "backups")
	cfg.Listen, cfg.AgentListen, cfg.Node = "127.0.0.1:0", "127.0.0.1:0", "test"
	cfg.AdminUsername, cfg.AdminAPIKey = "admin", secret.Text(AdminKey)
	cfg.Database = "sqlite:" + filepath.Join(cfg.Data, "tako.db")
	if dialect == db.Postgres {
		cfg.Database = dbtest.EmptyURL(t, dialect)
	}
	exe := os.Args[0] // nothing will run it
	if cfg.BuiltinWorker {
		exe = Binary(t)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	a, err := app.New(ctx, cfg, app.Options{Log: opt.Log, Version: "2026.4.0-test", Exe: exe, OnStatement: opt.OnStatement, Reserve: 64 << 10})
	if err != nil {
		stop()
		t.Fatalf("start the server: %v", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, a.Close()); err != nil {
			t.Errorf("stop the server: %v", err)
		}
		StopWorker(t, cfg.Data)
	})
	expand(t, cfg.Data, cfg.Database)
	return &Server{Client: &Client{URL: a.URL(), Key: AdminKey}, Data: cfg.Data, Database: cfg.Database, App: a}
}

// expand has the program that TAKO_TEST_EXPAND names, if it names one, bring the schema
// of a server that has just started to its own level. All tests of this version then go
// over the schema of a later one, which is how this version works from the moment that an
// upgrade begins.
func expand(t testing.TB, data, database string) {
	t.Helper()
	program := os.Getenv("TAKO_TEST_EXPAND")
	if program == "" {
		return
	}
	args := []string{"database", "expand", "--data", data}
	if database != "" {
		args = append(args, "--database", database)
	}
	if out, err := exec.CommandContext(t.Context(), program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", program, args, err, out)
	}
}

// ShortDir is a temporary directory with a path short enough for a unix socket.
func ShortDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "tako") //nolint:usetesting // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Logf("remove %s: %v", dir, err)
		}
	})
	return dir
}

// StopWorker ends the built-in worker of a data directory, if one runs, and whatever
// scripts it has left.
func StopWorker(t testing.TB, data string) {
	t.Helper()
	defer proctest.End(t, data)
	client := agent.Dial(agent.SocketPath(filepath.Join(data, "worker")))
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Second)
	defer cancel()
	hello, err := client.Hello(ctx)
	if err != nil {
		return // none runs
	}
	if p, err := os.FindProcess(hello.PID); err == nil {
		if err := p.Signal(os.Interrupt); err != nil {
			t.Logf("stop the worker: %v", err)
		}
	}
	for ctx.Err() == nil { // its directory goes with it
		if _, err := client.Hello(ctx); err != nil {
			return
		}
	}
}

var build = sync.OnceValues(func() (string, error) { //nolint:gochecknoglobals // one build for all tests of a binary
	if path := os.Getenv("TAKO_TEST_BINARY"); path != "" {
		return path, nil
	}
	dir, err := os.MkdirTemp("", "takobin")
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "tako")
	cmd := exec.Command("go", "build", "-o", path, "github.com/takodeploy/tako/cmd/tako")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("build tako: %w\n%s", err, out)
	}
	return path, nil
})

// Binary is the path of the built program: TAKO_TEST_BINARY, or one that is built
// for this run.
func Binary(t testing.TB) string {
	t.Helper()
	path, err := build()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// Client speaks to a server.
type Client struct {
	URL, Key string
	HTTP     *http.Client // http.DefaultClient unless set
}

// As is a client with another key.
func (c *Client) As(key string) *Client { return &Client{URL: c.URL, Key: key, HTTP: c.HTTP} }

// Response is an answer, read whole.
type Response struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do sends a request; body may be nil, a string or []byte as it is, or anything
// else as JSON.
func (c *Client) Do(ctx context.Context, method, path string, body any) (*Response, error) {
	var r io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		r = strings.NewReader(b)
	case []byte:
		r = bytes.NewReader(b)
	default:
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.URL+path, r)
	if err != nil {
		return nil, err
	}
	if c.Key != "" {
		req.Header.Set("X-Octopus-ApiKey", c.Key)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	return c.Send(req)
}

// Send sends a request that the caller has made.
func (c *Client) Send(req *http.Request) (*Response, error) {
	client := c.HTTP
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return &Response{Status: resp.StatusCode, Header: resp.Header, Body: text}, err
}

// Must sends a request that has to succeed, and reads the answer into out unless it is nil.
func (c *Client) Must(t testing.TB, method, path string, body, out any) *Response {
	t.Helper()
	resp, err := c.Do(t.Context(), method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	if resp.Status/100 != 2 {
		t.Fatalf("%s %s: %d %s", method, path, resp.Status, resp.Body)
	}
	if out != nil {
		if err := json.Unmarshal(resp.Body, out); err != nil {
			t.Fatalf("%s %s: %v in %.500s", method, path, err, resp.Body)
		}
	}
	return resp
}

// Get reads a document.
func Get[T any](t testing.TB, c *Client, path string) T {
	t.Helper()
	var v T
	c.Must(t, http.MethodGet, path, nil, &v)
	return v
}

// Post sends a document and returns what the server made of it.
func Post[T any](t testing.TB, c *Client, path string, v T) T {
	t.Helper()
	var made T
	c.Must(t, http.MethodPost, path, v, &made)
	return made
}

// Put replaces a document.
func Put[T any](t testing.TB, c *Client, path string, v T) T {
	t.Helper()
	var made T
	c.Must(t, http.MethodPut, path, v, &made)
	return made
}

// Refused sends a request that has to fail with a status, and returns the sentences.
func (c *Client) Refused(t testing.TB, status int, method, path string, body any) string {
	t.Helper()
	resp, err := c.Do(t.Context(), method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	var said struct {
		ErrorMessage string
		Errors       []string
	}
	if resp.Status != status {
		t.Fatalf("%s %s: %d %s; want %d", method, path, resp.Status, resp.Body, status)
	}
	if err := json.Unmarshal(resp.Body, &said); err != nil || said.ErrorMessage == "" {
		t.Fatalf("%s %s: %d without an ErrorMessage: %s", method, path, resp.Status, resp.Body)
	}
	return said.ErrorMessage + " " + strings.Join(said.Errors, " ")
}

// Form is a form with one file in it, and its content type.
func Form(name string, content []byte) (body *bytes.Buffer, contentType string, err error) {
	body = &bytes.Buffer{}
	w := multipart.NewWriter(body)
	part, err := w.CreateFormFile("file", name)
	if err != nil {
		return nil, "", err
	}
	if _, err := part.Write(content); err != nil {
		return nil, "", err
	}
	return body, w.FormDataContentType(), w.Close()
}

// Upload pushes a package.
func (c *Client) Upload(t testing.TB, path, name string, content []byte) *Response {
	t.Helper()
	form, contentType, err := Form(name, content)
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, c.URL+path, form)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Octopus-ApiKey", c.Key)
	req.Header.Set("Content-Type", contentType)
	resp, err := c.Send(req)
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
