package halibut_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/halibut/wire"
)

// patience is for what must happen, on however slow a machine.
const patience = 2 * time.Minute

// TestMain looks for goroutines that a test left behind.
func TestMain(m *testing.M) {
	code := m.Run()
	left := ""
	for until := time.Now().Add(20 * time.Second); time.Now().Before(until); runtime.Gosched() {
		buf := make([]byte, 4<<20)
		left = ""
		for g := range strings.SplitSeq(string(buf[:runtime.Stack(buf, true)]), "\n\n") {
			if strings.Contains(g, "internal/halibut") && !strings.Contains(g, "TestMain") {
				left += g + "\n\n"
			}
		}
		if left == "" {
			break
		}
	}
	if left != "" && code == 0 {
		fmt.Fprintln(os.Stderr, "goroutines are left:\n"+left)
		code = 1
	}
	os.Exit(code)
}

// key is one key for all the certificates of the tests: making one takes long.
var key = sync.OnceValue(func() *rsa.PrivateKey {
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err) //nolint:forbidigo // ends the tests
	}
	return k
})

func newID(t testing.TB) *halibut.Identity {
	t.Helper()
	id, err := halibut.SelfSigned("test", time.Now(), key())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// logged is a log that a test reads.
type logged struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

// count is how many lines hold a text.
func (l *logged) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), text)
}

func (l *logged) logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

// agent is the answering side of the tests, and remembers what was done.
type agent struct {
	calls atomic.Int64 // of Count
	mu    sync.Mutex
	done  map[string]int // Do: how often for each name
	gate  chan struct{}  // Wait waits for it to be closed
	in    chan struct{}  // and says so before
}

func newAgent() *agent {
	return &agent{done: map[string]int{}, gate: make(chan struct{}), in: make(chan struct{}, 100)}
}

func (a *agent) times(name string) int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.done[name]
}

const service = "ITestService"

func (a *agent) services() []halibut.Service {
	return []halibut.Service{{Name: service, Methods: []halibut.Method{
		halibut.Method0("Count", func(context.Context) (int64, error) { return a.calls.Add(1), nil }),
		halibut.Method1("Say", func(_ context.Context, s string) (string, error) { return s, nil }),
		halibut.Method1("Do", func(_ context.Context, name string) (string, error) {
			a.mu.Lock()
			defer a.mu.Unlock()
			a.done[name]++
			return name, nil
		}),
		halibut.Method1("Fail", func(_ context.Context, s string) (string, error) { return "", errors.New(s) }),
		halibut.Void1("Nothing", func(context.Context, string) error { return nil }),
		halibut.Method0("Wait", func(ctx context.Context) (string, error) {
			a.in <- struct{}{}
			select {
			case <-a.gate:
				return "done", nil
			case <-ctx.Done():
				return "", ctx.Err()
			}
		}),
		halibut.Method2("Upload", func(_ context.Context, name string, s *wire.DataStream) (string, error) {
			if name == "refused" {
				return "", errors.New("no such place")
			}
			h := sha256.New()
			if _, err := io.Copy(h, s); err != nil {
				return "", err
			}
			a.mu.Lock()
			a.done[name]++
			a.mu.Unlock()
			return hex.EncodeToString(h.Sum(nil)), nil
		}),
		halibut.Method1("Download", func(_ context.Context, text string) (*wire.DataStream, error) {
			if text == "" {
				return nil, nil
			}
			return wire.NewStream(int64(len(text)), strings.NewReader(text)), nil
		}),
	}}}
}

func call(method string, params ...any) halibut.Call {
	return halibut.Call{Service: service, Method: method, Params: params}
}

// listen is a port of 127.0.0.1.
func listen(t testing.TB) net.Listener {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// serve serves until the test ends or the returned function is called.
func serve(t testing.TB, n *halibut.Node, ln net.Listener) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- n.Serve(ctx, ln) }()
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	t.Cleanup(stop)
	return stop
}

// poll polls until the test ends or the returned function is called.
func poll(t testing.TB, n *halibut.Node, s halibut.Server) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan struct{})
	go func() { defer close(ended); n.Poll(ctx, s) }()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	t.Cleanup(stop)
	return stop
}

// world is a server and an agent, connected in one of the two modes.
type world struct {
	*agent
	halibut.Caller
	server, node *halibut.Node
	proxy        *proxy // between them
	serverLog    *logged
	agentLog     *logged
}

func quick() halibut.Timing {
	return halibut.Timing{Pause: time.Millisecond, Again: 5 * time.Millisecond, AgainMax: 20 * time.Millisecond, Grace: patience}
}

// newWorld connects a server with an agent through a proxy.
func newWorld(t testing.TB, polling bool, server, agent halibut.Timing, limits ...wire.Limits) *world {
	t.Helper()
	var bounds wire.Limits
	for _, bounds = range limits {
	}
	w := &world{agent: newAgent(), serverLog: &logged{}, agentLog: &logged{}}
	serverID, agentID := newID(t), newID(t)
	sub := halibut.NewSubscription()
	w.server = halibut.New(halibut.Config{
		Identity: serverID, Timing: server, Limits: bounds, Log: w.serverLog.logger(),
		TrustSubscriber: func(_ context.Context, s halibut.Subscription, p halibut.Thumbprint) (bool, error) {
			return s == sub && p == agentID.Thumbprint, nil
		},
	})
	w.node = halibut.New(halibut.Config{
		Identity: agentID, Timing: agent, Limits: bounds, Log: w.agentLog.logger(), Services: w.services(),
		TrustCaller: func(p halibut.Thumbprint) bool { return p == serverID.Thumbprint },
	})
	ln := listen(t)
	w.proxy = newProxy(t, ln.Addr().String())
	if polling {
		serve(t, w.server, ln)
		poll(t, w.node, halibut.Server{Addr: w.proxy.addr, Thumbprint: serverID.Thumbprint, Subscription: sub, Connections: 2})
		w.Caller = w.server.Polling(sub, agentID.Thumbprint, halibut.Effort{})
		return w
	}
	serve(t, w.node, ln)
	l := w.server.Listening(w.proxy.addr, agentID.Thumbprint, nil, halibut.Effort{})
	t.Cleanup(l.Close)
	w.Caller = l
	return w
}

// both runs a test in both modes.
func both(t *testing.T, fn func(t *testing.T, polling bool)) {
	t.Helper()
	for name, polling := range map[string]bool{"listening": false, "polling": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			fn(t, polling)
		})
	}
}

// proxy stands between two peers and does harm.
type proxy struct {
	addr   string
	target string

	mu    sync.Mutex
	conns map[*harmed]bool
	next  func() harm // of the next connection; nil does none
	made  int
}

// harm is what happens to a connection: after so many bytes in a direction it is
// cut, or nothing goes on though it stays open.
type harm struct {
	up, down int // bytes from the dialling side and to it; 0 is for ever
	stall    bool
}

type harmed struct {
	in, out net.Conn
	held    chan struct{}
	once    sync.Once
}

func (h *harmed) close() { h.once.Do(func() { h.in.Close(); h.out.Close(); close(h.held) }) }

func newProxy(t testing.TB, target string) *proxy {
	t.Helper()
	ln := listen(t)
	p := &proxy{addr: ln.Addr().String(), target: target, conns: map[*harmed]bool{}}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { p.carry(in) })
		}
	})
	t.Cleanup(func() {
		ln.Close()
		p.cut()
		wg.Wait()
	})
	return p
}

func (p *proxy) carry(in net.Conn) {
	out, err := new(net.Dialer).DialContext(context.Background(), "tcp", p.target)
	if err != nil {
		in.Close()
		return
	}
	h := &harmed{in: in, out: out, held: make(chan struct{})}
	p.mu.Lock()
	p.made++
	p.conns[h] = true
	var does harm
	if p.next != nil {
		does = p.next()
	}
	p.mu.Unlock()
	var wg sync.WaitGroup
	wg.Go(func() { copySome(h, out, in, does.up, does.stall) })
	wg.Go(func() { copySome(h, in, out, does.down, does.stall) })
	wg.Wait()
	h.close()
	p.mu.Lock()
	delete(p.conns, h)
	p.mu.Unlock()
}

func copySome(h *harmed, to, from net.Conn, most int, stall bool) {
	if most == 0 {
		_, _ = io.Copy(to, from)
		h.close()
		return
	}
	_, _ = io.CopyN(to, from, int64(most))
	if stall {
		<-h.held
		return
	}
	h.close()
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for h := range p.conns {
		h.close()
	}
}

func (p *proxy) count() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.made
}

func (p *proxy) do(next func() harm) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = next
}

// eventually waits for something that will be so.
func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	for until := time.Now().Add(patience); !is(); {
		if time.Now().After(until) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		pause := time.NewTimer(2 * time.Millisecond)
		<-pause.C
	}
}

func x509Leaf(id *halibut.Identity) (*x509.Certificate, error) {
	return x509.ParseCertificate(id.TLS().Certificate[0])
}

// heap is what is in use, stacks included, once the garbage is gone.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}
