// Package lameduck ends an HTTP server without failing a request, while another
// process serves the same socket.
//
// http.Server.Shutdown does not do that: it closes idle connections, on which a
// client may be sending at that moment, and drops requests that are read after it
// began. A lame duck accepts nobody new, answers everybody whom it has, asks each to
// come back on another connection, and waits until the last one has left by itself.
package lameduck

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
)

// Server is an HTTP server that can become a lame duck. It is safe for concurrent use.
type Server struct {
	http *http.Server

	mu        sync.Mutex
	listeners map[net.Listener]bool
	serving   int // Serve calls that have not returned
	conns     map[net.Conn]bool
	ducking   bool
	drained   chan struct{}
}

// New wraps a server, whose Handler and ConnState it replaces.
func New(h *http.Server) *Server {
	s := &Server{http: h, listeners: map[net.Listener]bool{}, conns: map[net.Conn]bool{}, drained: make(chan struct{})}
	inner, watch := h.Handler, h.ConnState
	h.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.isDucking() {
			w.Header().Set("Connection", "close")
		}
		inner.ServeHTTP(w, r)
	})
	h.ConnState = func(c net.Conn, state http.ConnState) {
		s.state(c, state)
		if watch != nil {
			watch(c, state)
		}
	}
	return s
}

func (s *Server) isDucking() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ducking
}

func (s *Server) state(c net.Conn, state http.ConnState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch state {
	case http.StateNew:
		s.conns[c] = true
	case http.StateClosed, http.StateHijacked:
		delete(s.conns, c)
		s.look()
	case http.StateActive, http.StateIdle:
	}
}

// look says when nobody is left. The caller holds the lock.
func (s *Server) look() {
	if !s.ducking || s.serving > 0 || len(s.conns) > 0 {
		return
	}
	select {
	case <-s.drained:
	default:
		close(s.drained)
	}
}

// Serve accepts connections until Duck or Shutdown, and then returns nil. It closes ln.
func (s *Server) Serve(ln net.Listener) error {
	s.mu.Lock()
	if s.ducking {
		s.mu.Unlock()
		return ln.Close()
	}
	s.listeners[ln] = true
	s.serving++
	s.mu.Unlock()
	err := s.http.Serve(ln)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, ln)
	s.serving--
	s.look()
	if s.ducking || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Duck makes the server accept nobody any more. It returns at once.
func (s *Server) Duck() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ducking = true
	for ln := range s.listeners {
		_ = ln.Close()
	}
	s.look()
}

// Drained is closed when a duck has no connection left.
func (s *Server) Drained() <-chan struct{} { return s.drained }

// Connections is how many there are.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Shutdown ends the server as http.Server does.
func (s *Server) Shutdown(ctx context.Context) error { return s.http.Shutdown(ctx) }
