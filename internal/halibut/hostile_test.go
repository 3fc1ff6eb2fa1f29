package halibut_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/halibut/bson"
	"github.com/takodeploy/tako/internal/halibut/wire"
)

// raw is a peer that a test plays by itself.
type raw struct {
	*tls.Conn
	br *bufio.Reader
}

func dialRaw(t testing.TB, addr string, id *halibut.Identity) *raw {
	t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true}
	if id != nil {
		cfg.Certificates = []tls.Certificate{id.TLS()}
	}
	c, err := (&tls.Dialer{Config: cfg}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(patience))
	return &raw{c.(*tls.Conn), bufio.NewReader(c)}
}

func (r *raw) say(t testing.TB, s string) {
	t.Helper()
	if _, err := io.WriteString(r, s); err != nil {
		t.Fatal(err)
	}
}

// hear wants exactly these bytes.
func (r *raw) hear(t testing.TB, want string) {
	t.Helper()
	got := make([]byte, len(want))
	if n, err := io.ReadFull(r.br, got); err != nil || string(got) != want {
		t.Fatalf("heard %q, want %q: %v", got[:n], want, err)
	}
}

// gone wants the connection to end without another word.
func (r *raw) gone(t testing.TB) {
	t.Helper()
	b, err := io.ReadAll(r.br)
	if errors.Is(err, context.DeadlineExceeded) || len(b) > 0 {
		t.Fatalf("the connection goes on: %q, %v", b, err)
	}
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Fatalf("the connection stays open: %v", err)
	}
}

func request(t testing.TB, service, method string, params ...any) []byte {
	t.Helper()
	if params == nil {
		params = []any{}
	}
	m, err := wire.Encode(wire.Request{ID: "1", Service: service, Method: method, Params: params})
	if err != nil {
		t.Fatal(err)
	}
	return block(m.Body)
}

// block is a document of less than 64 KiB as a message.
func block(doc []byte) []byte {
	head := binary.LittleEndian.AppendUint16([]byte{1}, uint16(len(doc)))
	return append(binary.LittleEndian.AppendUint16(head, ^uint16(len(doc))), doc...)
}

func response(t testing.TB, id string, result any) []byte {
	t.Helper()
	m, err := wire.Encode(wire.Response{ID: id, Result: result})
	if err != nil {
		t.Fatal(err)
	}
	return block(m.Body)
}

// TestConversationOfACaller is a caller's side byte by byte, with the line ends of
// old peers and with those of current ones.
func TestConversationOfACaller(t *testing.T) {
	t.Parallel()
	serverID := newID(t)
	a := newAgent()
	node := halibut.New(halibut.Config{
		Identity: newID(t), Services: a.services(), Timing: quick(), TrustCaller: func(p halibut.Thumbprint) bool { return p == serverID.Thumbprint },
	})
	ln := listen(t)
	serve(t, node, ln)
	for _, end := range []string{"\r\n", "\n"} {
		c := dialRaw(t, ln.Addr().String(), serverID)
		c.say(t, "MX"+end+end)
		c.say(t, "MX-CLIENT 1.0"+end+end)
		c.hear(t, "MX-SERVER 1.0\r\n\r\n")
		for range 3 {
			c.say(t, string(request(t, service, "Say", "hello")))
			c.hear(t, string(response(t, "1", "hello")))
			c.say(t, end+"NEXT"+end)
			c.hear(t, "PROCEED\r\n")
		}
		c.say(t, string(request(t, service, "Nothing", "x")))
		c.hear(t, string(response(t, "1", nil)))
		c.say(t, "END"+end)
		c.gone(t)
	}
}

// TestConversationOfAPollingAgent is a polling agent's side byte by byte.
func TestConversationOfAPollingAgent(t *testing.T) {
	t.Parallel()
	agentID, sub := newID(t), halibut.NewSubscription()
	open := func(null time.Duration) (*halibut.Node, net.Listener) {
		timing := quick()
		timing.Null = null
		node := halibut.New(halibut.Config{
			Identity: newID(t), Timing: timing,
			TrustSubscriber: func(_ context.Context, s halibut.Subscription, p halibut.Thumbprint) (bool, error) {
				return s == sub && p == agentID.Thumbprint, nil
			},
		})
		ln := listen(t)
		serve(t, node, ln)
		return node, ln
	}
	node, ln := open(10 * time.Millisecond)
	null := "\x01\x0e\x00\xf1\xff\x0e\x00\x00\x00\x0aMessage\x00\x00"
	c := dialRaw(t, ln.Addr().String(), agentID)
	c.say(t, "MX\n\n")
	c.say(t, "MX-SUBSCRIBER 1.0 "+strings.ToUpper(string(sub[:10]))+string(sub[10:])+"\n\n")
	c.hear(t, "MX-SERVER 1.0\r\n\r\n")
	for range 3 {
		c.hear(t, null)
		c.say(t, "NEXT\n")
		c.hear(t, "PROCEED\r\n")
	}
	c.Close()
	// An agent that says something unasked is sent away. This server asks nothing for a
	// while, so that it cannot be an answer.
	_, calm := open(time.Hour)
	c = dialRaw(t, calm.Addr().String(), agentID)
	c.say(t, "MX\n\nMX-SUBSCRIBER 1.0 "+string(sub)+"\n\n")
	c.hear(t, "MX-SERVER 1.0\r\n\r\n")
	c.say(t, "NEXT\n")
	c.gone(t)
	// Nor is a call lost by those that have gone.
	for range 3 {
		c := dialRaw(t, ln.Addr().String(), agentID)
		c.say(t, "MX\r\n\r\nMX-SUBSCRIBER 1.0 "+string(sub)+"\r\n\r\n")
		c.hear(t, "MX-SERVER 1.0\r\n\r\n")
		c.Close()
	}
	eventually(t, "the ends are seen", func() bool { return node.Connected(sub, agentID.Thumbprint) == 0 })
	ended := make(chan error)
	go func() {
		ended <- node.Polling(sub, agentID.Thumbprint, halibut.Effort{}).Call(t.Context(), call("Say", "x"), new(string))
	}()
	c = dialRaw(t, ln.Addr().String(), agentID)
	c.say(t, "MX\r\n\r\nMX-SUBSCRIBER 1.0 "+string(sub)+"\r\n\r\n")
	c.hear(t, "MX-SERVER 1.0\r\n\r\n")
	for {
		w := wire.NewConn(&replay{Conn: c, r: c.br}, wire.Limits{}, nil)
		r, err := w.ReceiveRequest(patience)
		if err != nil {
			t.Fatal(err)
		}
		if r != nil {
			c.say(t, string(response(t, r.ID, "answer"))+"NEXT\r\n")
			break
		}
		c.say(t, "NEXT\r\n")
		c.hear(t, "PROCEED\r\n")
	}
	if err := <-ended; err != nil {
		t.Fatal(err)
	}
	c.hear(t, "PROCEED\r\n")
}

// replay reads byte by byte, so that nothing is read ahead.
type replay struct {
	net.Conn
	r *bufio.Reader
}

func (r *replay) Read(p []byte) (int, error) {
	b, err := r.r.ReadByte()
	if err != nil {
		return 0, err
	}
	p[0] = b
	return 1, nil
}

// TestHTTP answers the probes of registration, and browsers.
func TestHTTP(t *testing.T) {
	t.Parallel()
	node := halibut.New(halibut.Config{Identity: newID(t), Timing: quick()})
	ln := listen(t)
	serve(t, node, ln)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true, ForceAttemptHTTP2: true}}
	for _, method := range []string{http.MethodPost, http.MethodGet} {
		req := httptest.NewRequest(method, "https://"+ln.Addr().String()+"/handshake", http.NoBody).WithContext(t.Context())
		req.RequestURI = ""
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != 200 || resp.ProtoMinor != 0 || !strings.Contains(resp.Header.Get("Content-Type"), "text/html") || !strings.Contains(string(b), "can be reached") {
			t.Errorf("%s: %s, %q, %v", method, resp.Status, b, err)
		}
	}
}

// TestStrangers are refused without a word, and each is logged once.
func TestStrangers(t *testing.T) {
	t.Parallel()
	serverID, agentID, otherID := newID(t), newID(t), newID(t)
	mine, others := halibut.NewSubscription(), halibut.NewSubscription()
	log := &logged{}
	a := newAgent()
	node := halibut.New(halibut.Config{
		Identity: newID(t), Services: a.services(), Timing: quick(), Log: log.logger(),
		TrustCaller: func(p halibut.Thumbprint) bool { return p == serverID.Thumbprint },
		TrustSubscriber: func(_ context.Context, s halibut.Subscription, p halibut.Thumbprint) (bool, error) {
			return s == mine && p == agentID.Thumbprint || s == others && p == otherID.Thumbprint, nil
		},
	})
	ln := listen(t)
	serve(t, node, ln)
	for name, tc := range map[string]struct {
		id   *halibut.Identity
		says string
		log  string
	}{
		"no certificate":      {nil, "MX\r\n\r\nMX-CLIENT 1.0\r\n\r\n", "it has no certificate"},
		"unknown caller":      {newID(t), "MX\r\n\r\nMX-CLIENT 1.0\r\n\r\n", "a caller was refused"},
		"agent as caller":     {agentID, "MX\r\n\r\nMX-CLIENT 1.0\r\n\r\n", ""},
		"stolen subscription": {otherID, "MX\r\n\r\nMX-SUBSCRIBER 1.0 " + string(mine) + "\r\n\r\n", "not known with its certificate"},
		"no subscription":     {agentID, "MX\r\n\r\nMX-SUBSCRIBER 1.0 poll://a b/\r\n\r\n", ""},
		"bad subscription":    {agentID, "MX\r\n\r\nMX-SUBSCRIBER 1.0 poll://../x\r\n\r\n", "its subscription is none"},
		"a server that dials": {serverID, "MX\r\n\r\nMX-SERVER 1.0\r\n\r\n", "who dials is no"},
		"no identity":         {serverID, "MX\r\n\r\nHELLO\r\n\r\n", "does not introduce itself"},
		"no blank line":       {serverID, "MX\r\n\r\nMX-CLIENT 1.0\r\nX\r\n", ""},
		"long line":           {serverID, "MX\r\n\r\n" + strings.Repeat("x", 20_000), ""},
		"long preamble":       {serverID, strings.Repeat("MX\r\n", 10_000), "does not begin as one"},
		"nothing":             {serverID, "\r\n", ""},
	} {
		for range 3 {
			c := dialRaw(t, ln.Addr().String(), tc.id)
			_, _ = io.WriteString(c, tc.says)
			c.gone(t)
		}
		if n := log.count(tc.log); tc.log != "" && n != 1 {
			t.Errorf("%s was logged %d times", name, n)
		}
	}
	if node.Queues() != 0 {
		t.Errorf("%d agents are remembered", node.Queues())
	}
	// Two agents that are both trusted do not get each other's calls.
	serve2 := listen(t)
	everybody := halibut.New(halibut.Config{
		Identity: newID(t), Timing: halibut.Timing{Queue: 30 * time.Millisecond},
		TrustSubscriber: func(context.Context, halibut.Subscription, halibut.Thumbprint) (bool, error) { return true, nil },
	})
	serve(t, everybody, serve2)
	thief := dialRaw(t, serve2.Addr().String(), otherID)
	thief.say(t, "MX\r\n\r\nMX-SUBSCRIBER 1.0 "+string(mine)+"\r\n\r\n")
	thief.hear(t, "MX-SERVER 1.0\r\n\r\n")
	if err := everybody.Polling(mine, agentID.Thumbprint, halibut.Effort{}).Call(t.Context(), call("Say", "secret"), new(string)); !errors.Is(err, halibut.ErrNotSent) {
		t.Errorf("a call for another agent: %v", err)
	}
}

// TestTrustEnds closes the connections of those who are trusted no longer, and keeps
// those of whom it cannot be told.
func TestTrustEnds(t *testing.T) {
	t.Parallel()
	peer, sub := newID(t), halibut.NewSubscription()
	timing := quick()
	timing.Null = 5 * time.Millisecond
	var mu sync.Mutex
	trusted, failure, asked := true, error(nil), 0
	set := func(ok bool, err error) {
		mu.Lock()
		defer mu.Unlock()
		trusted, failure, asked = ok, err, 0
	}
	a := newAgent()
	node := halibut.New(halibut.Config{
		Identity: newID(t), Services: a.services(), Timing: timing,
		TrustCaller: func(halibut.Thumbprint) bool {
			mu.Lock()
			defer mu.Unlock()
			return trusted
		},
		TrustSubscriber: func(context.Context, halibut.Subscription, halibut.Thumbprint) (bool, error) {
			mu.Lock()
			defer mu.Unlock()
			asked++
			return trusted, failure
		},
	})
	ln := listen(t)
	serve(t, node, ln)
	caller := dialRaw(t, ln.Addr().String(), peer)
	caller.say(t, "MX\r\n\r\nMX-CLIENT 1.0\r\n\r\n")
	caller.hear(t, "MX-SERVER 1.0\r\n\r\n")
	polling := halibut.New(halibut.Config{Identity: peer, Services: a.services(), Timing: quick()})
	stop := poll(t, polling, halibut.Server{Addr: ln.Addr().String(), Thumbprint: node.Thumbprint(), Subscription: sub})
	connected := func() bool { return node.Connected(sub, peer.Thumbprint) == 1 }
	eventually(t, "the agent is connected", connected)
	set(false, errors.New("the database is away"))
	eventually(t, "it is looked at again", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return asked > 3
	})
	if !connected() {
		t.Error("it was sent away though nobody knew")
	}
	set(false, nil)
	eventually(t, "the agent is sent away", func() bool { return !connected() })
	stop()
	caller.say(t, string(request(t, service, "Say", "x")))
	caller.gone(t)
	// Nobody new comes in while it cannot be told.
	set(true, errors.New("the database is away"))
	c := dialRaw(t, ln.Addr().String(), peer)
	c.say(t, "MX\r\n\r\nMX-SUBSCRIBER 1.0 "+string(sub)+"\r\n\r\n")
	c.gone(t)
}

// TestWrongServer has both diallers turn away from somebody else's certificate.
func TestWrongServer(t *testing.T) {
	t.Parallel()
	log := &logged{}
	a := newAgent()
	node := halibut.New(halibut.Config{Identity: newID(t), Services: a.services(), Timing: quick(), TrustCaller: func(halibut.Thumbprint) bool { return true }})
	ln := listen(t)
	p := newProxy(t, ln.Addr().String())
	serve(t, node, ln)
	server := halibut.New(halibut.Config{Identity: newID(t), Timing: quick(), Log: log.logger()})
	other := newID(t).Thumbprint
	l := server.Listening(p.addr, other, nil, halibut.Effort{})
	defer l.Close()
	for range 2 {
		err := l.Call(t.Context(), call("Say", "x"), new(string))
		var wrong *halibut.WrongPeerError
		if !errors.Is(err, halibut.ErrNotSent) || !errors.As(err, &wrong) || wrong.Want != other || wrong.Got != node.Thumbprint() {
			t.Fatal(err)
		}
	}
	if p.count() != 2 {
		t.Errorf("%d attempts for 2 calls", p.count())
	}
	stop := poll(t, server, halibut.Server{Addr: p.addr, Thumbprint: other, Subscription: halibut.NewSubscription()})
	eventually(t, "the agent tries again", func() bool { return p.count() >= 5 })
	stop()
	if n := log.count("has another certificate"); n != 2 {
		t.Errorf("logged %d times", n)
	}
	// Nobody there at all: it is tried a few times, and was not sent.
	free := listen(t)
	free.Close()
	l = server.Listening(free.Addr().String(), other, nil, halibut.Effort{})
	defer l.Close()
	if err := l.Call(t.Context(), call("Say", "x"), new(string)); !errors.Is(err, halibut.ErrNotSent) {
		t.Fatal(err)
	}
}

// TestHostileMessages come from a peer that is trusted, or was.
func TestHostileMessages(t *testing.T) {
	t.Parallel()
	serverID := newID(t)
	log := &logged{}
	a := newAgent()
	node := halibut.New(halibut.Config{
		Identity: newID(t), Services: a.services(), Timing: quick(), Log: log.logger(),
		TrustCaller: func(halibut.Thumbprint) bool { return true },
		Limits:      wire.Limits{Message: 1 << 20, Stream: 1 << 20, Idle: 400 * time.Millisecond},
	})
	ln := listen(t)
	serve(t, node, ln)
	var deep bson.Builder
	for range 40 {
		deep.Begin(bson.Document, "Message")
	}
	deepDoc, err := deep.Done()
	if err != nil {
		t.Fatal(err)
	}
	huge := block(append([]byte{0xff, 0xff, 0xff, 0x7f}, make([]byte, 1000)...))
	upload := request(t, service, "Upload", "x", &wire.DataStream{Length: 10})
	for name, msg := range map[string][]byte{
		"oversized":       huge,
		"truncated":       request(t, service, "Say", "hello")[:20],
		"deep":            block(deepDoc),
		"no compression":  []byte("GET / HTTP/1.1\r\n\r\n"),
		"null request":    block([]byte("\x0e\x00\x00\x00\x0aMessage\x00\x00")),
		"missing stream":  upload,
		"wrong stream":    append(bytes.Clone(upload), make([]byte, 100)...),
		"oversize stream": request(t, service, "Upload", "x", &wire.DataStream{Length: 2 << 20}),
		"no NEXT":         append(request(t, service, "Say", "x"), "WHAT\r\n"...),
	} {
		c := dialRaw(t, ln.Addr().String(), serverID)
		c.say(t, "MX\r\n\r\nMX-CLIENT 1.0\r\n\r\n")
		c.hear(t, "MX-SERVER 1.0\r\n\r\n")
		c.say(t, string(msg))
		if name != "oversize stream" && name != "no NEXT" && name != "missing stream" && name != "wrong stream" {
			c.gone(t)
			continue
		}
		// There is an answer first, or an end.
		_, err := io.ReadAll(c.br)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() {
			t.Errorf("%s: the connection stays open", name)
		}
		c.Close()
	}
	if n := a.times("x"); n != 0 {
		t.Errorf("%d uploads succeeded", n)
	}
	// It is one peer with one kind of misconduct.
	eventually(t, "a line in the log", func() bool { return log.count("a connection was closed") == 1 })
	if n := log.count("level=WARN"); n != 1 {
		t.Errorf("%d warnings:\n%s", n, log.b.String())
	}
}

// TestSlowStrangers are held for a short time, and no more of them than may be.
func TestSlowStrangers(t *testing.T) {
	t.Parallel()
	timing := quick()
	timing.Hello = 400 * time.Millisecond
	serverID := newID(t)
	a := newAgent()
	node := halibut.New(halibut.Config{
		Identity: newID(t), Services: a.services(), Timing: timing, MaxUntrusted: 2, MaxConnections: 3,
		TrustCaller: func(p halibut.Thumbprint) bool { return p == serverID.Thumbprint },
	})
	ln := listen(t)
	serve(t, node, ln)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			c, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
			if err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			if i%2 == 0 { // says nothing at all, not even TLS
				_ = c.SetReadDeadline(time.Now().Add(patience))
				if _, err := io.Copy(io.Discard, c); errors.Is(err, context.DeadlineExceeded) {
					t.Error("it was held")
				}
				return
			}
			s := tls.Client(c, &tls.Config{InsecureSkipVerify: true})
			_ = s.SetDeadline(time.Now().Add(patience))
			if s.HandshakeContext(t.Context()) != nil {
				return // it waited for too long to be accepted
			}
			done := make(chan struct{})
			go func() { // trickles a preamble
				defer close(done)
				for tick := time.Tick(5 * time.Millisecond); ; <-tick {
					if _, err := s.Write([]byte("M")); err != nil {
						return
					}
				}
			}()
			_, _ = io.Copy(io.Discard, s)
			c.Close()
			<-done
		})
	}
	wg.Wait()
	// One that is trusted gets in, and idle ones do not count as strangers.
	server := halibut.New(halibut.Config{Identity: serverID, Timing: halibut.Timing{Attempts: 1000, Pause: time.Millisecond}})
	for range 3 {
		l := server.Listening(ln.Addr().String(), node.Thumbprint(), nil, halibut.Effort{})
		defer l.Close()
		if err := l.Call(t.Context(), call("Say", "x"), new(string)); err != nil {
			t.Fatal(err)
		}
	}
	few := halibut.New(halibut.Config{Identity: serverID, Timing: halibut.Timing{Attempts: 1}})
	l := few.Listening(ln.Addr().String(), node.Thumbprint(), nil, halibut.Effort{})
	defer l.Close()
	if err := l.Call(t.Context(), call("Say", "x"), new(string)); !errors.Is(err, halibut.ErrNotSent) {
		t.Errorf("one more than may be: %v", err)
	}
}

// TestMemoryIsBounded has many peers announce what they do not send.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	serverID := newID(t)
	node := halibut.New(halibut.Config{Identity: newID(t), Timing: quick(), TrustCaller: func(halibut.Thumbprint) bool { return true }})
	ln := listen(t)
	serve(t, node, ln)
	const peers = 50
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for range peers {
		c := dialRaw(t, ln.Addr().String(), serverID)
		c.say(t, "MX\r\n\r\nMX-CLIENT 1.0\r\n\r\n")
		c.hear(t, "MX-SERVER 1.0\r\n\r\n")
		c.say(t, string(block(binary.LittleEndian.AppendUint32(nil, 60<<20))[:9]))
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	// Other tests run beside this one; 60 MiB for each would be 3,000.
	if grown := int64(after.HeapInuse) - int64(before.HeapInuse); grown > 500<<20 {
		t.Errorf("%d peers that announce 60 MiB took %d MiB", peers, grown>>20)
	}
}

// TestThumbprints and names of agents are read as people have them.
func TestThumbprints(t *testing.T) {
	t.Parallel()
	id := newID(t)
	lower := strings.ToLower(string(id.Thumbprint))
	if got, err := halibut.ParseThumbprint("\u200e" + lower[:2] + " " + lower[2:4] + ":" + lower[4:]); err != nil || got != id.Thumbprint {
		t.Errorf("%s, %v", got, err)
	}
	for _, bad := range []string{"", "12", lower + "0", "x" + lower[1:]} {
		if _, err := halibut.ParseThumbprint(bad); err == nil {
			t.Errorf("%q is a thumbprint", bad)
		}
	}
	for in, want := range map[string]halibut.Subscription{"poll://ABC/": "poll://abc/", "POLL://a-b.c_1": "poll://a-b.c_1/"} {
		if got, err := halibut.ParseSubscription(in); err != nil || got != want {
			t.Errorf("%q is %q, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "poll://", "poll:///", "https://x/", "poll://a/b", "poll://a b", "poll://" + strings.Repeat("a", 300)} {
		if got, err := halibut.ParseSubscription(bad); err == nil {
			t.Errorf("%q is the subscription %q", bad, got)
		}
	}
	if s := halibut.NewSubscription(); len(s) != len("poll://")+20+1 {
		t.Errorf("a new subscription is %s", s)
	} else if got, err := halibut.ParseSubscription(string(s)); err != nil || got != s {
		t.Error(got, err)
	}
	for in, want := range map[string]string{"https://host:1234/": "host:1234", "https://host": "host:10933", "https://[::1]/": "[::1]:10933"} {
		if got, err := halibut.ParseAddress(in, halibut.DefaultAgentPort); err != nil || got != want {
			t.Errorf("%q is %q, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", "http://host/", "https:///", "https://user@host/", "://"} {
		if got, err := halibut.ParseAddress(bad, "1"); err == nil {
			t.Errorf("%q is the address %q", bad, got)
		}
	}
}

// TestIdentity makes a certificate as agents have it, writes it and reads it.
func TestIdentity(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)
	id, err := halibut.NewIdentity("Octopus Tentacle", now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := id.PEM()
	if err != nil {
		t.Fatal(err)
	}
	again, err := halibut.ParseIdentity(b)
	if err != nil || again.Thumbprint != id.Thumbprint {
		t.Fatal(err)
	}
	leaf, err := x509Leaf(id)
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(leaf.Subject, leaf.SignatureAlgorithm, leaf.PublicKeyAlgorithm, leaf.NotBefore, leaf.NotAfter, len(leaf.ExtKeyUsage), len(leaf.DNSNames)); got !=
		"CN=Octopus Tentacle SHA256-RSA RSA 2026-03-03 05:06:07 +0000 UTC 2126-03-04 05:06:07 +0000 UTC 0 0" {
		t.Error(got)
	}
	if leaf.SerialNumber.Sign() <= 0 {
		t.Errorf("the serial number is %s", leaf.SerialNumber)
	}
	if _, err := halibut.ParseIdentity(id.CertificatePEM()); err == nil {
		t.Error("a certificate without a key was read")
	}
}
