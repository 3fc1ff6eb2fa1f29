package main

import "time"

// attendEvery is how often a supervisor looks whether an upgrade was cut short, and
// attendAtLeast how often it goes on with one that ends again and again.
const (
	attendEvery   = 3 * time.Second
	attendAtLeast = 5 * time.Minute
)

// retries say when to try again what does not come to its end: at once for the first
// time, then ever more seldom, and at once again after any progress.
type retries struct {
	mark  int64
	tries int
	next  time.Time
}

// due reports whether it is time for a try, and counts it then. mark is another one after
// progress.
func (r *retries) due(now time.Time, mark int64) bool {
	if mark != r.mark {
		*r = retries{mark: mark}
	}
	if now.Before(r.next) {
		return false
	}
	r.tries++
	r.next = now.Add(min(attendEvery<<min(r.tries, 10), attendAtLeast))
	return true
}
