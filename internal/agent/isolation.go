package agent

import (
	"slices"
	"sync"
)

// mutexes are the agent's isolation locks: per name a reader/writer lock that is
// granted first come, first served. A reader behind a waiting writer waits too, so
// that writers do not starve.
type mutexes struct {
	mu     sync.Mutex
	byName map[string]*mutex
}

type mutex struct {
	holders map[string]Isolation // by ticket
	queue   []*waiter            // by arrival
}

type waiter struct {
	ticket  string
	mode    Isolation
	arrival int64
	granted func() // called on a goroutine of its own
}

func newMutexes() *mutexes { return &mutexes{byName: make(map[string]*mutex)} }

func (m *mutexes) get(name string) *mutex {
	x := m.byName[name]
	if x == nil {
		x = &mutex{holders: make(map[string]Isolation)}
		m.byName[name] = x
	}
	return x
}

// free reports whether one more of that mode may hold it, queue aside.
func (x *mutex) free(mode Isolation) bool {
	if mode == FullIsolation {
		return len(x.holders) == 0
	}
	for _, held := range x.holders {
		if held == FullIsolation {
			return false
		}
	}
	return true
}

// acquire takes the mutex and returns true, or queues w by its arrival and returns
// false; then w.granted is called once it is w's, unless it is released before.
// Whoever holds it already gets true.
func (m *mutexes) acquire(name string, w *waiter) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	x := m.get(name)
	if _, held := x.holders[w.ticket]; held {
		return true
	}
	at, _ := slices.BinarySearchFunc(x.queue, w.arrival, func(q *waiter, arrival int64) int {
		if q.arrival <= arrival {
			return -1
		}
		return 1
	})
	if at == 0 && x.free(w.mode) {
		x.holders[w.ticket] = w.mode
		return true
	}
	x.queue = slices.Insert(x.queue, at, w)
	return false
}

// hold makes ticket a holder whatever else is so: a runner that is found alive has
// the mutex.
func (m *mutexes) hold(name, ticket string, mode Isolation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.get(name).holders[ticket] = mode
}

// release ends ticket's hold or wait, and grants what became free.
func (m *mutexes) release(name, ticket string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	x := m.byName[name]
	if x == nil {
		return
	}
	delete(x.holders, ticket)
	x.queue = slices.DeleteFunc(x.queue, func(w *waiter) bool { return w.ticket == ticket })
	for len(x.queue) > 0 && x.free(x.queue[0].mode) {
		w := x.queue[0]
		x.queue = x.queue[1:]
		x.holders[w.ticket] = w.mode
		go w.granted()
	}
	if len(x.holders) == 0 && len(x.queue) == 0 {
		delete(m.byName, name)
	}
}

// holders lists who has the mutex, sorted.
func (m *mutexes) holders(name string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []string
	if x := m.byName[name]; x != nil {
		for ticket := range x.holders {
			out = append(out, ticket)
		}
	}
	slices.Sort(out)
	return out
}
