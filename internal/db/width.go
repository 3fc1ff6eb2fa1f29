package db

import "sync"

// width is how many writers of documents may be at work at once on PostgreSQL, in this
// process. Small tables have all their rows and index entries on few pages, so that
// transactions beside each other fail each other although they change different documents.
// What is done again is work that the others wait for, which makes them longer and fail even
// more: beside a busy neighbour a server got a third of its writes done that way. So each
// failure halves the width, and writers that were not failed widen it again, as senders do
// on a network.
type width struct {
	mu sync.Mutex
	n  float64 // from 1 to widest; 0 is widest
}

const (
	// widest leaves connections of the pool for those who read.
	widest = poolSize / 2
	// widen is what a round of as many successes as there are writers adds.
	widen = 1. / 32
)

// weight is one writer's share of everyone.
func (w *width) weight() int64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return int64(everyone / w.current())
}

func (w *width) current() float64 {
	if w.n == 0 {
		w.n = widest
	}
	return w.n
}

// ended notes how the attempt of a writer has ended: failed by another one, or not.
func (w *width) ended(failed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := w.current()
	if failed {
		w.n = max(1, n/2)
	} else {
		w.n = min(widest, n+widen/n)
	}
}
