package tasks

import "sync"

// tails wakes the readers of live logs in this process.
type tails struct {
	mu      sync.Mutex
	readers map[string]map[chan struct{}]struct{}
}

// Follow returns a channel that receives after lines of the task were committed
// by this process; several may share one wake-up. Other processes' commits come
// through the database's own subscription.
func (s *Service) Follow(task string) (woken <-chan struct{}, stop func()) {
	c := make(chan struct{}, 1)
	t := &s.tails
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.readers == nil {
		t.readers = map[string]map[chan struct{}]struct{}{}
	}
	if t.readers[task] == nil {
		t.readers[task] = map[chan struct{}]struct{}{}
	}
	t.readers[task][c] = struct{}{}
	return c, func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.readers[task], c)
		if len(t.readers[task]) == 0 {
			delete(t.readers, task)
		}
	}
}

func (t *tails) moved(task string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.readers[task] {
		select {
		case c <- struct{}{}:
		default: // a wake-up is waiting for it already
		}
	}
}
