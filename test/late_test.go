package test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/octopus"
)

// The calls that the proxy knows, as the agent's protocol names them.
const (
	callStart    = "/v1/scripts/start"
	callComplete = "/v1/scripts/complete"
)

// between is a proxy on the socket of a real agent. It holds the first StartScript of
// each ticket back and hangs up on the server, which sends it again; the held one
// goes to the agent when the server has had the ticket completed. Every other
// StartScript it sends twice, at the same time.
type between struct {
	t       *testing.T
	agent   *agent.Client // the real one
	forward *httputil.ReverseProxy

	mu        sync.Mutex
	held      map[agent.Ticket]agent.StartRequest
	late      map[agent.Ticket]agent.Status // what the agent said to the late ones
	completed map[agent.Ticket]bool
	doubled   int
}

// putBetween puts a proxy between the server and its built-in worker, which runs.
func putBetween(t *testing.T, p *apptest.Process) *between {
	t.Helper()
	socket := agent.SocketPath(filepath.Join(p.Data, "worker"))
	real, front := socket+".real", socket+".front"
	ln, err := new(net.ListenConfig).Listen(t.Context(), "unix", front)
	if err != nil {
		t.Fatal(err)
	}
	// In one step, so that nobody finds no socket and starts a worker.
	if err := os.Link(socket, real); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(front, socket); err != nil {
		t.Fatal(err)
	}
	b := &between{
		t: t, agent: agent.Dial(real),
		held: make(map[agent.Ticket]agent.StartRequest), late: make(map[agent.Ticket]agent.Status), completed: make(map[agent.Ticket]bool),
	}
	b.forward = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", "agent" },
		Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", real)
		}},
	}
	server := &http.Server{Handler: b, ReadHeaderTimeout: time.Minute}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = server.Serve(ln) // ends with the test
	}()
	t.Cleanup(func() {
		_ = server.Close() // the test is over
		<-ended
		b.agent.Close()
		_ = os.Rename(real, socket) // so that the worker can be told to end
	})
	return b
}

func (b *between) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case callStart:
		b.start(w, r)
	case callComplete:
		b.complete(w, r)
	default:
		b.forward.ServeHTTP(w, r)
	}
}

// read reads a call's body and puts it back.
func read[T any](r *http.Request) (v T, err error) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return v, err
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	return v, json.Unmarshal(body, &v)
}

func (b *between) start(w http.ResponseWriter, r *http.Request) {
	req, err := read[agent.StartRequest](r)
	if err != nil {
		b.t.Errorf("a StartScript cannot be read: %v", err)
	}
	b.mu.Lock()
	_, known := b.held[req.Ticket]
	if !known {
		b.held[req.Ticket] = req
	}
	b.mu.Unlock()
	if !known {
		panic(http.ErrAbortHandler) //nolint:forbidigo // how a handler hangs up
	}
	twin := make(chan error, 1)
	go func() {
		_, err := b.agent.StartScript(context.WithoutCancel(r.Context()), req)
		twin <- err
	}()
	b.forward.ServeHTTP(w, r)
	if err := <-twin; err != nil {
		b.t.Errorf("the second of two: %v", err)
	}
	b.mu.Lock()
	b.doubled++
	b.mu.Unlock()
}

func (b *between) complete(w http.ResponseWriter, r *http.Request) {
	req, err := read[agent.StatusRequest](r)
	if err != nil {
		b.t.Errorf("a CompleteScript cannot be read: %v", err)
	}
	b.forward.ServeHTTP(w, r)
	b.mu.Lock()
	defer b.mu.Unlock()
	start, ok := b.held[req.Ticket]
	if !ok || b.completed[req.Ticket] {
		return
	}
	b.completed[req.Ticket] = true
	start.Wait = 5 * time.Second // were it to run, its end would be seen
	status, err := b.agent.StartScript(context.WithoutCancel(r.Context()), start)
	if err != nil {
		b.t.Errorf("a late StartScript: %v", err)
	}
	b.late[req.Ticket] = status
}

// lateStarts returns what the agent said to those that were held back.
func (b *between) lateStarts() (late map[agent.Ticket]agent.Status, doubled int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	late = make(map[agent.Ticket]agent.Status)
	for ticket, status := range b.late {
		late[ticket] = status
	}
	return late, b.doubled
}

// TestLateStart delays a StartScript of each script until its CompleteScript has been
// answered, and doubles the one in between. The agent runs each script once, and
// answers the late one from what it remembers.
func TestLateStart(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			w := newWalk(t, apptest.NewProcess(t, dialect), 5)
			for w.WorkerPID() == 0 {
				time.Sleep(20 * time.Millisecond) //nolint:forbidigo // it is being started
			}
			proxy := putBetween(t, w.Process)
			w.Process.Kill() // with its open connections to the worker
			w.Process.Start()

			_, version := w.release(t, nil)
			done := wait(t, w.Process.Client, w.deploy(t, version, w.Dev), 4*time.Minute)
			if done.State != octopus.TaskSuccess {
				t.Fatalf("%s ended as %s: %s\n%s", done.ID, done.State, done.ErrorMessage, w.Output())
			}
			late, doubled := proxy.lateStarts()
			for start := time.Now(); len(late) < parallelSteps && time.Since(start) < time.Minute; late, doubled = proxy.lateStarts() {
				time.Sleep(20 * time.Millisecond) //nolint:forbidigo // the server tidies up after the end
			}
			if len(late) != parallelSteps || doubled < parallelSteps {
				t.Errorf("%d scripts were started late and %d twice, want %d", len(late), doubled, parallelSteps)
			}
			for ticket, status := range late {
				if status.State != agent.Complete || status.ExitCode != 0 || len(status.Entries) != 0 {
					t.Errorf("the late start of %s was answered with %+v", ticket, status)
				}
			}
			for step, runs := range w.runs(t) {
				if step > 0 && runs != 1 {
					t.Errorf("the script of step %d ran %d times", step, runs)
				}
			}
			w.check(t, done.ID, [parallelSteps + 1]bool{true, true, true, true, true, true})
		})
	}
}
