package egress_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/egress/proxytest"
)

// listen accepts connections and has each dealt with.
func listen(t *testing.T, serve func(c net.Conn)) string {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				serve(c)
			}()
		}
	}()
	return ln.Addr().String()
}

// TestThrough: what both sides say arrives, whoever speaks first.
func TestThrough(t *testing.T) {
	t.Parallel()
	greets := listen(t, func(c net.Conn) {
		_, _ = io.WriteString(c, "hello\n")
		_, _ = io.Copy(c, c)
	})
	gate := proxytest.Start(t, "", "")
	c, err := egress.Through(egress.HTTPProxy{Name: "Gate", Addr: gate.Addr}, net.Dialer{})(t.Context(), "tcp", greets)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("%q, %v", line, err)
	}
	if _, err := io.WriteString(c, "echo\n"); err != nil {
		t.Fatal(err)
	}
	if line, err := r.ReadString('\n'); err != nil || line != "echo\n" {
		t.Errorf("%q, %v", line, err)
	}
	// A greeting that comes in one piece with the proxy's answer is not lost.
	early := listen(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nX: y\r\n\r\nSSH-2.0-early\n")
			_, _ = io.Copy(io.Discard, c)
		}
	})
	c, err = egress.Through(egress.HTTPProxy{Name: "Gate", Addr: early}, net.Dialer{})(t.Context(), "tcp", "example.invalid:22")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if line, err := bufio.NewReaderSize(c, 16).ReadString('\n'); err != nil || line != "SSH-2.0-early\n" {
		t.Errorf("%q, %v", line, err)
	}
}

// TestThroughFails: what a proxy answers is told, and nobody is waited for without end.
func TestThroughFails(t *testing.T) {
	t.Parallel()
	answers := func(text string) string {
		return listen(t, func(c net.Conn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
				_, _ = io.WriteString(c, text)
			}
		})
	}
	silent := listen(t, func(c net.Conn) { _, _ = io.Copy(io.Discard, c) })
	closed := proxytest.Start(t, "tako", "pr0xy")
	for name, c := range map[string]struct {
		proxy   egress.HTTPProxy
		refused bool
		want    string
	}{
		"no credentials":    {egress.HTTPProxy{Addr: closed.Addr}, true, "it wants a user name and a password"},
		"wrong credentials": {egress.HTTPProxy{Addr: closed.Addr, Username: "tako", Password: "s3cret"}, true, "it does not take the user name and the password"},
		"nobody behind":     {egress.HTTPProxy{Addr: closed.Addr, Username: "tako", Password: "pr0xy"}, true, "it answers 502 Bad Gateway"},
		"a web site":        {egress.HTTPProxy{Addr: answers("HTTP/1.1 404 Not Found\r\nContent-Length: 1000000\r\n\r\n")}, true, "it answers 404 Not Found"},
		"its own words":     {egress.HTTPProxy{Addr: answers("HTTP/1.1 599 inner-s3cret\r\n\r\n")}, true, "it answers 599"},
		"no HTTP":           {egress.HTTPProxy{Addr: answers("SSH-2.0-s3cret\r\n\r\n")}, true, "its answer is none of HTTP"},
		"endless":           {egress.HTTPProxy{Addr: answers("HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", 1<<20))}, true, "its answer is none of HTTP"},
		"nobody":            {egress.HTTPProxy{Addr: "127.0.0.1:1"}, false, "reach the proxy Gate (127.0.0.1:1)"},
		"silence":           {egress.HTTPProxy{Addr: silent}, false, "context deadline exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			wait := time.Minute
			if name == "silence" {
				wait = 50 * time.Millisecond
			}
			ctx, stop := context.WithTimeout(t.Context(), wait)
			defer stop()
			c.proxy.Name = "Gate"
			conn, err := egress.Through(c.proxy, net.Dialer{})(ctx, "tcp", "127.0.0.1:1")
			if err == nil {
				_ = conn.Close()
				t.Fatal("connected")
			}
			var refused *egress.RefusedError
			var down *egress.DownError
			if errors.As(err, &down) != (name == "nobody") {
				t.Errorf("that the proxy is down is said of: %v", err)
			}
			if errors.As(err, &refused) != c.refused || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "s3cret") {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
