// Package vectortest counts the cases of test vectors by feature, so that the output of
// a test tells how much of a language is answered as its vectors say.
package vectortest

import (
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
)

// Tally counts the cases of a file that are answered as it says, per feature.
type Tally struct {
	mu          sync.Mutex
	cases, good map[string]int
	onPurpose   []string
}

// New is a tally of no cases.
func New() *Tally { return &Tally{cases: map[string]int{}, good: map[string]int{}} }

// OnPurpose registers a case that is answered differently, with the reason.
func (c *Tally) OnPurpose(why string) { c.onPurpose = append(c.onPurpose, why) }

// Count registers a case, and its outcome when its test ends.
func (c *Tally) Count(t *testing.T, feature string) {
	t.Helper()
	t.Cleanup(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.cases[feature]++; !t.Failed() {
			c.good[feature]++
		}
	})
}

// Report prints the counts when all cases have run, and fails when more than one
// case in a hundred is answered differently on purpose.
func (c *Tally) Report(t *testing.T, file string) {
	t.Helper()
	all, good := len(c.onPurpose), 0
	lines := ""
	for _, feature := range slices.Sorted(maps.Keys(c.cases)) {
		all, good = all+c.cases[feature], good+c.good[feature]
		lines += fmt.Sprintf("\n%5d of %d  %s", c.good[feature], c.cases[feature], feature)
	}
	t.Logf("%s: %d cases, %d answered as it says, %d differently on purpose%s", file, all, good, len(c.onPurpose), lines)
	for _, why := range c.onPurpose {
		t.Log("on purpose: " + why)
	}
	if all == 0 {
		t.Errorf("%s has no cases", file)
	}
	if len(c.onPurpose)*100 > all {
		t.Errorf("%d of %d cases are answered differently on purpose; at most 1 %% may be", len(c.onPurpose), all)
	}
}
