package halibut_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/halibut/wire"
)

// TestNothingIsSentTwice cuts, and stops, connections at random bytes: every call
// was executed once if it has an answer, never if it was not sent, and at most once
// in any case.
func TestNothingIsSentTwice(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, polling bool) {
		server, agent := quick(), quick()
		// Half-open connections are found out by these.
		server.Response, server.Control, server.Reuse, server.Hello, server.Connect = 100*time.Millisecond, 100*time.Millisecond, 100*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond
		server.Null = 20 * time.Millisecond
		agent.Poll, agent.Control, agent.Connect, agent.Hello = 100*time.Millisecond, 100*time.Millisecond, 200*time.Millisecond, 200*time.Millisecond
		server.Queue = patience
		w := newWorld(t, polling, server, agent, wire.Limits{Idle: 100 * time.Millisecond})
		w.proxy.do(func() harm {
			h := harm{stall: rand.IntN(4) == 0}
			// The handshake takes some 2,000 bytes each way.
			if rand.IntN(2) == 0 {
				h.up = 1 + rand.IntN(8000)
			} else {
				h.down = 1 + rand.IntN(8000)
			}
			return h
		})
		w.proxy.cut()
		var mu sync.Mutex
		tally := map[string]int{}
		var wg sync.WaitGroup
		calls := 120
		if testing.Short() {
			calls = 40
		}
		for g := range 4 {
			wg.Go(func() {
				for i := range calls / 4 {
					name := fmt.Sprintf("%d-%d", g, i)
					c := call("Do", name)
					if i%3 == 0 {
						c = call("Upload", name, wire.NewStream(2000, strings.NewReader(strings.Repeat("x", 2000))))
					}
					err := w.Call(t.Context(), c, new(string))
					times, outcome := w.times(name), "answered"
					switch {
					case err == nil:
						if times != 1 {
							t.Errorf("%s was answered and done %d times", name, times)
						}
					case errors.Is(err, halibut.ErrNotSent):
						outcome = "not sent"
						if times != 0 {
							t.Errorf("%s was not sent and done %d times: %v", name, times, err)
						}
					case errors.Is(err, halibut.ErrUnanswered):
						outcome = "unanswered"
						if times > 1 {
							t.Errorf("%s was done %d times", name, times)
						}
					default:
						t.Errorf("%s: %v", name, err)
					}
					mu.Lock()
					tally[outcome]++
					mu.Unlock()
				}
			})
		}
		wg.Wait()
		t.Logf("%d connections: %v", w.proxy.count(), tally)
		w.proxy.do(nil)
		w.proxy.cut()
		for {
			err := w.Call(t.Context(), call("Do", "last"), new(string))
			if err == nil {
				break
			}
			if t.Context().Err() != nil {
				t.Fatal(err)
			}
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		for name, n := range w.done {
			if name != "last" && n > 1 {
				t.Errorf("%s was done %d times in the end", name, n)
			}
		}
	})
}

// BenchmarkPolling has a thousand agents connected to one server, each with a
// certificate, a subscription and a connection of its own, all in this process: the
// memory is that of both sides.
func BenchmarkPolling(b *testing.B) {
	for _, agents := range []int{1000} {
		b.Run(fmt.Sprintf("agents=%d", agents), func(b *testing.B) { benchmarkPolling(b, agents) })
	}
}

func benchmarkPolling(b *testing.B, agents int) {
	type known struct {
		sub   halibut.Subscription
		thumb halibut.Thumbprint
	}
	before := heap()
	all := map[halibut.Subscription]halibut.Thumbprint{}
	ids := make([]*halibut.Identity, agents)
	list := make([]known, agents)
	for i := range ids {
		ids[i] = newID(b)
		list[i] = known{halibut.NewSubscription(), ids[i].Thumbprint}
		all[list[i].sub] = list[i].thumb
	}
	serverID := newID(b)
	server := halibut.New(halibut.Config{
		Identity: serverID,
		TrustSubscriber: func(_ context.Context, s halibut.Subscription, p halibut.Thumbprint) (bool, error) {
			return all[s] == p, nil
		},
	})
	ln := listen(b)
	start := time.Now()
	stopServer := serve(b, server, ln)
	stops := make([]func(), agents)
	a := newAgent()
	for i := range ids {
		node := halibut.New(halibut.Config{Identity: ids[i], Services: a.services()})
		stops[i] = poll(b, node, halibut.Server{Addr: ln.Addr().String(), Thumbprint: serverID.Thumbprint, Subscription: list[i].sub})
	}
	for _, k := range list {
		eventually(b, "all are connected", func() bool { return server.Connected(k.sub, k.thumb) == 1 })
	}
	connected, used := time.Since(start).Seconds(), float64(heap()-before)/1024/float64(agents)
	began := time.Now()
	work := make(chan int)
	var wg sync.WaitGroup
	for range 64 {
		wg.Go(func() {
			for i := range work {
				var text string
				if err := server.Polling(list[i].sub, list[i].thumb, halibut.Effort{}).Call(b.Context(), call("Say", "x"), &text); err != nil {
					b.Error(err)
				}
			}
		})
	}
	n := 0
	for b.Loop() {
		work <- n % agents
		n++
	}
	close(work)
	wg.Wait()
	b.ReportMetric(float64(n)/time.Since(began).Seconds(), "calls/s")
	b.ReportMetric(connected, "s-connect")
	b.ReportMetric(used, "KiB/agent")
	var end sync.WaitGroup
	for _, stop := range append(stops, stopServer) {
		end.Go(stop)
	}
	end.Wait()
}

// BenchmarkCall is one call after the other.
func BenchmarkCall(b *testing.B) {
	for name, polling := range map[string]bool{"listening": false, "polling": true} {
		b.Run(name, func(b *testing.B) {
			w := newWorld(b, polling, halibut.Timing{}, halibut.Timing{})
			var text string
			for b.Loop() {
				if err := w.Call(b.Context(), call("Say", "x"), &text); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "calls/s")
		})
	}
}
