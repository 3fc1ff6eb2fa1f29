package halibut_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/halibut/wire"
)

// TestCalls makes calls of every shape in both modes.
func TestCalls(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, polling bool) {
		w := newWorld(t, polling, quick(), quick())
		ctx := t.Context()
		var text string
		for _, want := range []string{"", "hé", strings.Repeat("long ", 1<<18)} {
			if err := w.Call(ctx, call("say", want), &text); err != nil || text != want {
				t.Fatalf("said %d bytes, heard %d: %v", len(want), len(text), err)
			}
		}
		if err := w.Call(ctx, call("Nothing", "x"), nil); err != nil {
			t.Fatal(err)
		}
		var n int64
		if err := w.Call(ctx, call("Count"), &n); err != nil || n != 1 {
			t.Fatal(n, err)
		}
		// The other side's errors are answers: the connection goes on.
		for name, tc := range map[string]struct {
			call halibut.Call
			kind string
			text string
		}{
			"method fails":    {call("Fail", "oh"), "", "oh"},
			"no method":       {call("Dance"), wire.ErrorMethodNotFound, "Dance"},
			"other count":     {call("Say", "a", "b"), wire.ErrorMethodNotFound, "2 parameters"},
			"no service":      {halibut.Call{Service: "INone", Method: "x"}, wire.ErrorServiceNotFound, "Service not found: INone"},
			"other parameter": {call("Say", int64(1)), wire.ErrorNoMatch, "Say"},
			"unknown object":  {halibut.Call{Service: "INone", Method: "x", Params: []any{wire.NewStream(3, strings.NewReader("abc"))}}, wire.ErrorServiceNotFound, "INone"},
			"unread stream":   {call("Upload", "refused", wire.NewStream(300_000, strings.NewReader(strings.Repeat("x", 300_000)))), "", "no such place"},
		} {
			err := w.Call(ctx, tc.call, &text)
			var e *wire.ServerError
			if !errors.As(err, &e) || e.Type != tc.kind || !strings.Contains(e.Message, tc.text) {
				t.Errorf("%s: %v", name, err)
			}
			if err := w.Call(ctx, call("Say", name), &text); err != nil || text != name {
				t.Errorf("after %s: %q, %v", name, text, err)
			}
		}
		if err := w.Call(ctx, call("Say", struct{}{}), &text); !errors.Is(err, halibut.ErrNotSent) {
			t.Errorf("what cannot be encoded: %v", err)
		}
		if err := w.Call(ctx, call("Say", "x"), &n); !errors.Is(err, halibut.ErrUnanswered) {
			t.Errorf("an answer of another type: %v", err)
		}
	})
}

// TestStreams carries contents in both directions and both modes.
func TestStreams(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, polling bool) {
		w := newWorld(t, polling, quick(), quick())
		ctx := t.Context()
		for _, size := range []int{0, 1, 70_000, 3 << 20} {
			content := bytes.Repeat([]byte("ab"), size)[:size]
			sum := sha256.Sum256(content)
			var hash string
			if err := w.Call(ctx, call("Upload", "x", wire.NewStream(int64(size), bytes.NewReader(content))), &hash); err != nil || hash != hex.EncodeToString(sum[:]) {
				t.Fatalf("%d bytes up: %s, %v", size, hash, err)
			}
			if size == 0 {
				continue
			}
			r, err := w.Fetch(ctx, call("Download", string(content)))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, content) {
				t.Fatalf("%d bytes down came as %d: %v", size, len(got), err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if r, err := w.Fetch(ctx, call("Download", "")); r != nil || err != nil {
			t.Fatalf("nothing to fetch: %v, %v", r, err)
		}
		if r, err := w.Fetch(ctx, call("Fail", "x")); r != nil || err == nil || errors.Is(err, halibut.ErrUnanswered) {
			t.Fatalf("a failure to fetch: %v, %v", r, err)
		}
		// A stream that is left alone costs its connection, and nothing else.
		r, err := w.Fetch(ctx, call("Download", strings.Repeat("x", 8<<20)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := r.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		r.Close()
		r.Close()
		// Streams that nobody expects are no answer.
		var text string
		if err := w.Call(ctx, call("Download", "abc"), &text); !errors.Is(err, halibut.ErrUnanswered) {
			t.Errorf("a stream for a text: %v", err)
		}
		if err := w.Call(ctx, call("Say", "x"), &text); err != nil || text != "x" {
			t.Fatal(text, err)
		}
		// A stream that gives less than it said was never sent as a whole.
		err = w.Call(ctx, call("Upload", "short", wire.NewStream(100_000, strings.NewReader("abc"))), &text)
		if !errors.Is(err, halibut.ErrNotSent) {
			t.Errorf("a short stream: %v", err)
		}
		if err := w.Call(ctx, call("Say", "x"), &text); err != nil || w.times("short") != 0 {
			t.Fatal(w.times("short"), err)
		}
		// Ending the context ends a stream.
		ctx, cancel := context.WithCancel(ctx)
		r, err = w.Fetch(ctx, call("Download", strings.Repeat("x", 8<<20)))
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := io.Copy(io.Discard, r); !errors.Is(err, halibut.ErrUnanswered) || !errors.Is(err, context.Canceled) {
			t.Errorf("a stream whose context ended: %v", err)
		}
		r.Close()
	})
}

// TestConnectionsAreUsedAgain counts what calls one after the other, and at the
// same time, need.
func TestConnectionsAreUsedAgain(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, polling bool) {
		w := newWorld(t, polling, quick(), quick())
		var n int64
		for range 20 {
			if err := w.Call(t.Context(), call("Count"), &n); err != nil {
				t.Fatal(err)
			}
		}
		// A polling agent has two; a call at a time needs one.
		want := 1
		if polling {
			want = 2
		}
		eventually(t, "connections", func() bool { return w.proxy.count() == want })
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for range 10 {
					var n int64
					if err := w.Call(t.Context(), call("Count"), &n); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		if got := w.calls.Load(); got != 220 {
			t.Errorf("%d calls arrived", got)
		}
		if got := w.proxy.count(); polling && got != 2 {
			t.Errorf("%d connections", got)
		}
	})
}

// TestIdleConnectionsEnd closes what is not used, and what is old, and what its
// agent has closed is found out before anything is asked.
func TestIdleConnectionsEnd(t *testing.T) {
	t.Parallel()
	timing := quick()
	timing.PoolIdle = 10 * time.Millisecond
	w := newWorld(t, false, timing, quick())
	var n int64
	for i := range 3 {
		if err := w.Call(t.Context(), call("Count"), &n); err != nil || n != int64(i+1) {
			t.Fatal(n, err)
		}
		eventually(t, "connections", func() bool {
			w.proxy.mu.Lock()
			defer w.proxy.mu.Unlock()
			return len(w.proxy.conns) == 0
		})
	}
	timing = quick()
	timing.PoolLife = time.Nanosecond
	w = newWorld(t, false, timing, quick())
	for i := range 3 {
		if err := w.Call(t.Context(), call("Count"), &n); err != nil || n != int64(i+1) {
			t.Fatal(n, err)
		}
	}
	if w.proxy.count() != 3 {
		t.Errorf("%d connections, each too old for a second call", w.proxy.count())
	}
	w = newWorld(t, false, quick(), quick())
	for i := range 3 {
		if err := w.Call(t.Context(), call("Count"), &n); err != nil || n != int64(i+1) {
			t.Fatal(n, err)
		}
		w.proxy.cut()
	}
	if w.proxy.count() != 3 {
		t.Errorf("%d connections, each cut after its call", w.proxy.count())
	}
	// An agent, too, closes what nobody uses.
	timing = quick()
	timing.Idle = 10 * time.Millisecond
	id := newID(t)
	node := halibut.New(halibut.Config{Identity: id, Timing: timing, TrustCaller: func(halibut.Thumbprint) bool { return true }})
	ln := listen(t)
	serve(t, node, ln)
	c := dialRaw(t, ln.Addr().String(), id)
	c.say(t, "MX\r\n\r\nMX-CLIENT 1.0\r\n\r\n")
	c.hear(t, "MX-SERVER 1.0\r\n\r\n")
	c.gone(t)
}

// TestCancel ends calls in every state.
func TestCancel(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, polling bool) {
		w := newWorld(t, polling, quick(), quick())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- w.Call(ctx, call("Wait"), new(string)) }()
		<-w.in
		cancel()
		if err := <-ended; !errors.Is(err, halibut.ErrUnanswered) || !errors.Is(err, context.Canceled) {
			t.Errorf("a call that had begun: %v", err)
		}
		if err := w.Call(ctx, call("Do", "never"), new(string)); !errors.Is(err, halibut.ErrNotSent) || w.times("never") != 0 {
			t.Errorf("a call that had not: %v", err)
		}
		// One that lingers keeps its connection.
		lingering := call("Wait")
		lingering.Linger = patience
		ctx, cancel = context.WithCancel(t.Context())
		var never string
		go func() { ended <- w.Call(ctx, lingering, &never) }()
		<-w.in
		made := w.proxy.count() // with the one in the place of that which the first call lost
		cancel()
		if err := <-ended; !errors.Is(err, halibut.ErrUnanswered) || !errors.Is(err, context.Canceled) || never != "" {
			t.Errorf("a call that lingers: %v", err)
		}
		close(w.gate)
		var text string
		for range 10 {
			say := call("Say", "x")
			say.Linger = patience
			if err := w.Call(t.Context(), say, &text); err != nil || text != "x" {
				t.Error(text, err)
			}
		}
		if more := w.proxy.count() - made; !polling && more > 2 || polling && more > 1 {
			t.Errorf("%d more connections", more)
		}
		if err := w.Call(ctx, lingering, &text); !errors.Is(err, halibut.ErrNotSent) {
			t.Error(err)
		}
		failing := call("Fail", "oh")
		failing.Linger = patience
		var e *wire.ServerError
		if err := w.Call(t.Context(), failing, &text); !errors.As(err, &e) || e.Message != "oh" {
			t.Error(err)
		}
	})
}

// TestQueue lets calls wait for a polling agent, and takes them back.
func TestQueue(t *testing.T) {
	t.Parallel()
	server := quick()
	server.Queue = 20 * time.Millisecond
	serverID, agentID, sub := newID(t), newID(t), halibut.NewSubscription()
	n := halibut.New(halibut.Config{Identity: serverID, Timing: server, TrustSubscriber: func(context.Context, halibut.Subscription, halibut.Thumbprint) (bool, error) { return true, nil }})
	absent := n.Polling(sub, agentID.Thumbprint, halibut.Effort{})
	if err := absent.Call(t.Context(), call("Do", "a"), new(string)); !errors.Is(err, halibut.ErrNotSent) {
		t.Fatalf("nobody is there: %v", err)
	}
	if n.Queues() != 0 || n.Connected(sub, agentID.Thumbprint) != 0 {
		t.Errorf("%d agents are remembered", n.Queues())
	}
	server.Queue = patience
	n = halibut.New(halibut.Config{Identity: serverID, Timing: server, TrustSubscriber: func(context.Context, halibut.Subscription, halibut.Thumbprint) (bool, error) { return true, nil }})
	caller := n.Polling(sub, agentID.Thumbprint, halibut.Effort{})
	// One is withdrawn, others wait.
	ctx, cancel := context.WithCancel(t.Context())
	withdrawn, early := make(chan error), make(chan error)
	go func() { withdrawn <- caller.Call(ctx, call("Do", "withdrawn"), new(string)) }()
	go func() { early <- caller.Call(t.Context(), call("Do", "early"), new(string)) }()
	eventually(t, "calls wait", func() bool { return n.Waiting(sub, agentID.Thumbprint) == 2 })
	cancel()
	if err := <-withdrawn; !errors.Is(err, halibut.ErrNotSent) || !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	ln := listen(t)
	serve(t, n, ln)
	a := newAgent()
	node := halibut.New(halibut.Config{Identity: agentID, Services: a.services(), Timing: quick()})
	poll(t, node, halibut.Server{Addr: ln.Addr().String(), Thumbprint: serverID.Thumbprint, Subscription: sub})
	if err := <-early; err != nil || a.times("early") != 1 || a.times("withdrawn") != 0 {
		t.Fatalf("early %d, withdrawn %d: %v", a.times("early"), a.times("withdrawn"), err)
	}
	if got := n.Connected(sub, agentID.Thumbprint); got != 1 {
		t.Errorf("%d connections", got)
	}
	// Calls that end while they wait, at whatever moment, take nothing along.
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
			defer cancel()
			if err := caller.Call(ctx, call("Say", "x"), new(string)); err != nil && ctx.Err() == nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	var text string
	if err := caller.Call(t.Context(), call("Say", "still"), &text); err != nil || text != "still" {
		t.Fatal(text, err)
	}
}

// TestNullMessages keeps a polling agent's connection though nothing is asked.
func TestNullMessages(t *testing.T) {
	t.Parallel()
	server, agent := quick(), quick()
	server.Null = time.Millisecond
	w := newWorld(t, true, server, agent)
	for i := range 200 {
		var n int64
		if err := w.Call(t.Context(), call("Count"), &n); err != nil || n != int64(i+1) {
			t.Fatal(n, err)
		}
	}
	if w.proxy.count() > 2 {
		t.Errorf("%d connections", w.proxy.count())
	}
	// Without them the agent finds a server that says nothing dead.
	agent.Poll = 10 * time.Millisecond
	w = newWorld(t, true, quick(), agent)
	eventually(t, "the agent dials again", func() bool { return w.proxy.count() > 4 })
}

// TestShutdown ends idle connections at once, and lets calls end.
func TestShutdown(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, polling bool) {
		serverID, agentID, sub := newID(t), newID(t), halibut.NewSubscription()
		a := newAgent()
		server := halibut.New(halibut.Config{Identity: serverID, Timing: quick(), TrustSubscriber: func(context.Context, halibut.Subscription, halibut.Thumbprint) (bool, error) { return true, nil }})
		node := halibut.New(halibut.Config{Identity: agentID, Services: a.services(), Timing: quick(), TrustCaller: func(halibut.Thumbprint) bool { return true }})
		ln := listen(t)
		var caller halibut.Caller
		stops := []func(){}
		if polling {
			stops = append(stops, serve(t, server, ln), poll(t, node, halibut.Server{Addr: ln.Addr().String(), Thumbprint: serverID.Thumbprint, Subscription: sub, Connections: 2}))
			caller = server.Polling(sub, agentID.Thumbprint, halibut.Effort{})
			eventually(t, "connections", func() bool { return server.Connected(sub, agentID.Thumbprint) == 2 })
		} else {
			stops = append(stops, serve(t, node, ln))
			l := server.Listening(ln.Addr().String(), agentID.Thumbprint, nil, halibut.Effort{})
			defer l.Close()
			caller = l
		}
		ended := make(chan error, 1)
		go func() {
			var text string
			err := caller.Call(t.Context(), call("Wait"), &text)
			if err == nil && text != "done" {
				err = errors.New(text)
			}
			ended <- err
		}()
		<-a.in
		var wg sync.WaitGroup
		for _, stop := range stops {
			wg.Go(stop)
		}
		if polling {
			eventually(t, "the idle one ends", func() bool { return server.Connected(sub, agentID.Thumbprint) == 1 })
		}
		close(a.gate)
		if err := <-ended; err != nil {
			t.Errorf("the call in progress: %v", err)
		}
		wg.Wait()
		if n := server.Connected(sub, agentID.Thumbprint); n != 0 {
			t.Errorf("%d connections are left", n)
		}
	})
}

// TestReconnect has polling agents find a server again that went away.
func TestReconnect(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true, quick(), quick())
	for range 5 {
		var n int64
		if err := w.Call(t.Context(), call("Count"), &n); err != nil {
			t.Fatal(err)
		}
		made := w.proxy.count()
		w.proxy.cut()
		eventually(t, "the agent dials again", func() bool { return w.proxy.count() >= made+2 })
	}
	if n := w.agentLog.count("is made again"); n != 1 {
		t.Errorf("it was logged %d times", n)
	}
}

// TestFirstConnectionComesFirst: an agent has one connection before it dials for others.
func TestFirstConnectionComesFirst(t *testing.T) {
	t.Parallel()
	agentID, sub, serverID := newID(t), halibut.NewSubscription(), newID(t)
	server := halibut.New(halibut.Config{
		Identity: serverID, Timing: quick(),
		TrustSubscriber: func(_ context.Context, s halibut.Subscription, p halibut.Thumbprint) (bool, error) {
			return s == sub && p == agentID.Thumbprint, nil
		},
	})
	ln := listen(t)
	serve(t, server, ln)
	var dials, together atomic.Int32
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		if dials.Add(1) == 1 {
			<-time.After(100 * time.Millisecond) // the others would dial meanwhile
			together.Store(dials.Load())
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}
	agent := halibut.New(halibut.Config{Identity: agentID, Timing: quick()})
	poll(t, agent, halibut.Server{Addr: ln.Addr().String(), Thumbprint: serverID.Thumbprint, Subscription: sub, Connections: 5, Dial: dial})
	eventually(t, "all connections are there", func() bool { return server.Connected(sub, agentID.Thumbprint) == 5 })
	if n := together.Load(); n != 1 {
		t.Errorf("%d connections were dialled for before there was one", n)
	}
}

// TestAgain holds the pauses of polling agents to their bounds.
func TestAgain(t *testing.T) {
	t.Parallel()
	var timing halibut.Timing
	for _, random := range []float64{0, 0.25, 0.5, 0.999} {
		for _, refused := range []bool{false, true} {
			last := time.Duration(0)
			for _, lost := range []time.Duration{0, time.Second, 5 * time.Second, 20 * time.Second, 40 * time.Second, time.Minute, time.Hour} {
				d := timing.Again0(lost, refused, random)
				least, most := 5*time.Second, 2*time.Minute
				if lost == 0 || refused && lost < 30*time.Second { // the server may only be restarted
					least, most = time.Second, 5*time.Second
				}
				if d < least || d > most || d < last {
					t.Errorf("lost for %v, refused %v, random %v: %v", lost, refused, random, d)
				}
				last = d
			}
			if random > 0 && (timing.Again0(0, refused, random) == timing.Again0(0, refused, 0) || timing.Again0(time.Hour, refused, random) == timing.Again0(time.Hour, refused, 0)) {
				t.Errorf("random %v makes no difference", random)
			}
		}
	}
}
