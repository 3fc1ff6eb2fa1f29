// Package proxytest is an HTTP proxy for tests, which connects to whom it is asked to.
package proxytest

import (
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"sync"
	"testing"

	"github.com/takodeploy/tako/internal/egress"
)

// Proxy is a proxy that runs until its test ends.
type Proxy struct {
	// Addr is where it listens, host:port.
	Addr string

	credentials string // what it wants, "" for nothing
	mu          sync.Mutex
	down        bool
	tunnels     []string
	open        map[net.Conn]bool
	wg          sync.WaitGroup
}

// Start starts a proxy; it wants credentials unless username is "".
func Start(t testing.TB, username, password string) *Proxy {
	t.Helper()
	p := &Proxy{open: map[net.Conn]bool{}}
	if username != "" {
		p.credentials = "Basic " + base64.StdEncoding.EncodeToString([]byte(username+":"+password))
	}
	server := httptest.NewServer(http.HandlerFunc(p.serve))
	p.Addr = server.Listener.Addr().String()
	t.Cleanup(func() {
		p.Cut()
		server.Close()
		p.wg.Wait()
	})
	return p
}

// Tunnels are the addresses that it has connected to, once for each time.
func (p *Proxy) Tunnels() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.tunnels...)
}

// Cut cuts all connections.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.open {
		_ = c.Close()
	}
}

// Refuse has it answer 503 to all, or no more.
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down = on
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	down := p.down
	p.mu.Unlock()
	switch {
	case p.credentials != "" && r.Header.Get("Proxy-Authorization") != p.credentials:
		w.Header().Set("Proxy-Authenticate", `Basic realm="test"`)
		http.Error(w, "no", http.StatusProxyAuthRequired)
		return
	case down:
		http.Error(w, "down", http.StatusServiceUnavailable)
		return
	case r.Method != http.MethodConnect: // plain HTTP, which it passes on
		p.mu.Lock()
		p.tunnels = append(p.tunnels, r.URL.Host)
		p.mu.Unlock()
		r.Header.Del("Proxy-Authorization")
		forward := httputil.ReverseProxy{Rewrite: func(*httputil.ProxyRequest) {}, Transport: &http.Transport{DialContext: egress.Dialer(net.Dialer{}), DisableKeepAlives: true}}
		forward.ServeHTTP(w, r)
		return
	}
	to, err := egress.Dialer(net.Dialer{})(r.Context(), "tcp", r.Host)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	from, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		_ = to.Close()
		return
	}
	p.mu.Lock()
	p.tunnels = append(p.tunnels, r.Host)
	p.open[from], p.open[to] = true, true
	p.mu.Unlock()
	p.wg.Go(func() {
		if _, err := io.WriteString(from, "HTTP/1.1 200 Connection established\r\n\r\n"); err == nil {
			_, _ = io.Copy(from, to)
		}
		p.end(from, to)
	})
	p.wg.Go(func() {
		_, _ = io.Copy(to, buffered)
		p.end(from, to)
	})
}

func (p *Proxy) end(all ...net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range all {
		_ = c.Close()
		delete(p.open, c)
	}
}
