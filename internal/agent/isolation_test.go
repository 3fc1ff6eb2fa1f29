package agent

import (
	"fmt"
	"slices"
	"strconv"
	"testing"

	"pgregory.net/rapid"
)

// The mutex against the obvious model: a list of who waits, and who holds. Grants
// come on goroutines; the test collects them from a channel.
func TestMutexes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		type claim struct {
			ticket  string
			mode    Isolation
			arrival int64
		}
		m := newMutexes()
		granted := make(chan string, 1000)
		holders := make(map[string]Isolation)
		var queue []claim
		next := 0
		free := func(mode Isolation) bool {
			if mode == FullIsolation {
				return len(holders) == 0
			}
			for _, held := range holders {
				if held == FullIsolation {
					return false
				}
			}
			return true
		}
		rt.Repeat(map[string]func(*rapid.T){
			"acquire": func(rt *rapid.T) {
				next++
				c := claim{
					ticket: "t" + strconv.Itoa(next), mode: Isolation(rapid.IntRange(0, 1).Draw(rt, "mode")),
					arrival: rapid.Int64Range(0, 50).Draw(rt, "arrival"),
				}
				w := &waiter{ticket: c.ticket, mode: c.mode, arrival: c.arrival, granted: func() { granted <- c.ticket }}
				at := 0
				for at < len(queue) && queue[at].arrival <= c.arrival {
					at++
				}
				want := at == 0 && free(c.mode)
				if got := m.acquire("m", w); got != want {
					rt.Fatalf("acquire %+v: %v, want %v", c, got, want)
				}
				if want {
					holders[c.ticket] = c.mode
				} else {
					queue = slices.Insert(queue, at, c)
				}
			},
			"release": func(rt *rapid.T) {
				if next == 0 {
					return
				}
				ticket := "t" + strconv.Itoa(rapid.IntRange(1, next).Draw(rt, "ticket"))
				m.release("m", ticket)
				delete(holders, ticket)
				queue = slices.DeleteFunc(queue, func(c claim) bool { return c.ticket == ticket })
				var want []string
				for len(queue) > 0 && free(queue[0].mode) {
					holders[queue[0].ticket] = queue[0].mode
					want = append(want, queue[0].ticket)
					queue = queue[1:]
				}
				var got []string
				for range want {
					got = append(got, <-granted)
				}
				slices.Sort(got)
				slices.Sort(want)
				if !slices.Equal(got, want) {
					rt.Fatalf("granted %v, want %v", got, want)
				}
			},
			"hold": func(rt *rapid.T) { // found alive after a restart
				next++
				ticket := "t" + strconv.Itoa(next)
				m.hold("m", ticket, FullIsolation)
				holders[ticket] = FullIsolation
			},
			"": func(rt *rapid.T) {
				var want []string
				for h := range holders {
					want = append(want, h)
				}
				slices.Sort(want)
				if got := m.holders("m"); !slices.Equal(got, want) {
					rt.Fatalf("held by %v, want %v", got, want)
				}
				select {
				case extra := <-granted:
					rt.Fatalf("granted %s", extra)
				default:
				}
			},
		})
		for _, h := range m.holders("m") {
			m.release("m", h)
		}
		for n := range next {
			m.release("m", fmt.Sprintf("t%d", n+1))
		}
		if len(m.byName) != 0 {
			rt.Fatalf("left over: %v", m.byName)
		}
	})
}
