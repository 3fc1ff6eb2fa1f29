package agent

import (
	"context"
	"errors"
	"net/http"
	"sync"
	"time"
)

var errIdle = errors.New("nobody needs the agent")

// activity tells whether an agent is needed: it counts the calls in progress.
type activity struct {
	mu     sync.Mutex
	calls  int
	last   time.Time // when the last call ended, or the first must have come
	closed bool      // the agent ends; no call is answered any more
}

// counted counts the calls of h. One that comes when the end is decided breaks off
// before anything acts upon it: its caller starts another agent and asks that.
func (a *activity) counted(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !a.begin() {
			panic(http.ErrAbortHandler) //nolint:forbidigo // the only way to end a call without an answer
		}
		defer a.end()
		h.ServeHTTP(w, r)
	})
}

func (a *activity) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !a.closed {
		a.calls++
	}
	return !a.closed
}

func (a *activity) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls--
	a.last = time.Now()
}

// close decides the end if there was no call for so long, and none begins.
func (a *activity) close(idle time.Duration, busy func() bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = a.calls == 0 && time.Since(a.last) >= idle && !busy()
	return a.closed
}

// endIdle calls stop when the end is decided; it returns then, or with ctx.
func (a *activity) endIdle(ctx context.Context, idle time.Duration, busy func() bool, stop func()) {
	tick := time.NewTicker(max(idle/4, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if a.close(idle, busy) {
				stop()
				return
			}
		}
	}
}

// busy reports whether a ticket is being dealt with: it waits for its mutex, runs, or
// has processes that could not be killed.
func (s *Service) busy() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.tickets) > 0
}
