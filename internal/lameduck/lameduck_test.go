package lameduck_test

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/lameduck"
)

const patience = 2 * time.Minute

type world struct {
	*lameduck.Server
	addr   string
	served chan error
}

func serve(t *testing.T, ln net.Listener, h http.Handler) *world {
	t.Helper()
	w := &world{Server: lameduck.New(&http.Server{Handler: h, ReadHeaderTimeout: patience}), addr: ln.Addr().String(), served: make(chan error, 1)}
	go func() { w.served <- w.Serve(ln) }()
	t.Cleanup(func() {
		ctx, stop := context.WithTimeout(context.Background(), patience)
		defer stop()
		_ = w.Shutdown(ctx)
	})
	return w
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// exchange sends one request on a connection and reads the answer.
func exchange(t *testing.T, c net.Conn, in *bufio.Reader) *http.Response {
	t.Helper()
	if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		t.Fatal(err)
	}
	_ = r.Body.Close()
	return r
}

// TestConnectionsFinish: an idle connection of a duck still has its next request
// answered, and is closed with that; a request under way is finished.
func TestConnectionsFinish(t *testing.T) {
	t.Parallel()
	slow, began := make(chan struct{}), make(chan struct{})
	w := serve(t, listen(t), http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(began)
			<-slow
		}
		_, _ = io.WriteString(w, "done")
	}))
	dial := func() (net.Conn, *bufio.Reader) {
		c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", w.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c, bufio.NewReader(c)
	}
	idle, idleIn := dial()
	if r := exchange(t, idle, idleIn); r.Close {
		t.Fatal("a server that is no duck closes connections")
	}
	busy, busyIn := dial()
	if _, err := io.WriteString(busy, "POST /slow HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	<-began
	w.Duck()
	if err := <-w.served; err != nil {
		t.Errorf("Serve: %v", err)
	}
	if c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", w.addr); err == nil {
		_ = c.Close()
		t.Error("a duck accepts connections")
	}
	if r := exchange(t, idle, idleIn); !r.Close || r.StatusCode != http.StatusOK {
		t.Errorf("the idle connection: %v, close %v", r.Status, r.Close)
	}
	select {
	case <-w.Drained():
		t.Error("drained with a request under way")
	default:
	}
	close(slow)
	r, err := http.ReadResponse(busyIn, nil)
	if err != nil || r.StatusCode != http.StatusOK {
		t.Fatalf("the request under way: %v %v", r, err)
	}
	_ = r.Body.Close()
	_ = busy.Close()
	select {
	case <-w.Drained():
	case <-time.After(patience):
		t.Errorf("%d connections are left", w.Connections())
	}
}

// TestNoRequestFails hands a socket over between servers again and again under load,
// as two processes would, and counts requests that fail.
func TestNoRequestFails(t *testing.T) {
	t.Parallel()
	ln := listen(t)
	next := func() *world {
		f, err := ln.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		own, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		return serve(t, own, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			_, _ = w.Write(body)
		}))
	}
	now := next()
	url := "http://" + ln.Addr().String()
	var failed, done atomic.Int64
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for i := range 8 {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: i%2 == 1}}
		wg.Go(func() {
			for ctx.Err() == nil {
				r, err := client.Post(url, "text/plain", strings.NewReader("hello"))
				if err != nil {
					failed.Add(1)
					t.Error(err)
					continue
				}
				if body, err := io.ReadAll(r.Body); err != nil || string(body) != "hello" {
					failed.Add(1)
				}
				_ = r.Body.Close()
				done.Add(1)
			}
			client.CloseIdleConnections()
		})
	}
	for range 10 {
		want, tick := done.Load()+200, time.NewTicker(time.Millisecond)
		for done.Load() < want && failed.Load() == 0 {
			<-tick.C
		}
		tick.Stop()
		after := next()
		now.Duck()
		<-now.Drained()
		now = after
	}
	stop()
	wg.Wait()
	if failed.Load() > 0 {
		t.Errorf("%d of %d requests failed", failed.Load(), done.Load())
	}
	t.Logf("%d requests over 10 handovers", done.Load())
}
