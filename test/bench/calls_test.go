package bench

import (
	"context"
	"crypto/rand"
	"fmt"
	"math"
	"net"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/instance"
	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/proctest"
	"github.com/takodeploy/tako/internal/targets/network"
	"github.com/takodeploy/tako/octopus"
)

// Sizes of the benchmarks of calls.
const (
	callTime   = 3 * time.Second // that calls are made for
	fewCallers = 4               // as many connections to an agent that listens are kept
	manyAgents = 20
	scripts    = 40 // that are run one after another
)

// caller is a server's end of the protocol in this process, with agents of the program
// that are processes of their own.
type caller struct {
	*testing.B
	net  *network.Network
	addr string // where it is polled
}

func newCaller(b *testing.B) *caller {
	b.Helper()
	id, err := halibut.NewIdentity(network.IdentityName, time.Now())
	if err != nil {
		b.Fatal(err)
	}
	ln, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	c := &caller{B: b, addr: ln.Addr().String()}
	all := func(context.Context, halibut.Subscription, halibut.Thumbprint) (bool, error) { return true, nil }
	c.net = network.New(network.Config{Identity: id, Trust: all, Timing: halibut.Timing{Grace: time.Second}})
	ctx, stop := context.WithCancel(context.WithoutCancel(b.Context()))
	ended := make(chan error, 1)
	go func() { ended <- c.net.Serve(ctx, ln) }()
	b.Cleanup(func() {
		c.net.Close()
		stop()
		if err := <-ended; err != nil {
			b.Error(err)
		}
	})
	return c
}

// agents starts n agents that are reached in a style, and returns them once they answer.
func (c *caller) agents(style octopus.CommunicationStyle, n int) []network.Agent {
	c.Helper()
	dir := apptest.ShortDir(c)
	c.Cleanup(func() { proctest.End(c, dir) })
	all := make([]network.Agent, n)
	endpoints := make([]network.Endpoint, n)
	for i, id := range identities(c.B, n) {
		store := instance.Store{Dir: filepath.Join(dir, strconv.Itoa(i+1))}
		e := network.Endpoint{URI: string(halibut.NewSubscription()), Thumbprint: string(id.Thumbprint)}
		server := instance.Server{Thumbprint: c.net.Thumbprint(), Style: style}
		listen := ""
		if style == octopus.StyleListening {
			listen = apptest.FixedAddress(c)
			e.URI = "https://" + listen + "/"
		} else {
			server.Address, server.Subscription = "https://"+c.addr+"/", halibut.Subscription(e.URI)
		}
		err := configured(store, id, func(s *instance.Settings) {
			s.NoListen, s.Connections = listen == "", connections
			if host, port, err := net.SplitHostPort(listen); err == nil {
				s.ListenAddress = host
				s.Port, _ = strconv.Atoi(port) // else Configure refuses 0
			}
			s.Trust(server)
		})
		if err != nil {
			c.Fatal(err)
		}
		m := &member{cmd: runAgent(c.B, store, func(string) {})}
		c.Cleanup(m.end)
		endpoints[i] = e
	}
	for i, e := range endpoints {
		for start := time.Now(); ; <-time.After(20 * time.Millisecond) {
			var err error
			if all[i], err = c.net.Agent(c.Context(), fmt.Sprintf("agent %d", i+1), e); err == nil {
				break
			}
			if time.Since(start) > fleetPatience {
				c.Fatalf("an agent does not answer: %v", err)
			}
		}
	}
	return all
}

// BenchmarkCalls is how many calls of the agents' protocol one server makes in a
// second, over connections that are there: a question without work and its answer.
// Server and agents share the machine.
func BenchmarkCalls(b *testing.B) {
	c := newCaller(b)
	for _, one := range []struct {
		name            string
		style           octopus.CommunicationStyle
		agents, callers int // of each agent
	}{
		{"listening/callers=1", octopus.StyleListening, 1, 1},
		{"listening/callers=4", octopus.StyleListening, 1, fewCallers},
		{"polling/callers=1", octopus.StylePolling, 1, 1},
		{"polling/callers=4", octopus.StylePolling, 1, fewCallers},
		{fmt.Sprintf("polling/agents=%d/callers=4", manyAgents), octopus.StylePolling, manyAgents, fewCallers},
	} {
		b.Run(one.name, func(b *testing.B) {
			c := &caller{b, c.net, c.addr}
			all := c.agents(one.style, one.agents)
			took := make([][]time.Duration, one.agents*one.callers)
			start := time.Now()
			group, ctx := errgroup.WithContext(b.Context())
			for i := range took {
				group.Go(func() error {
					for time.Since(start) < callTime {
						begin := time.Now()
						if _, err := all[i%len(all)].Hello(ctx); err != nil {
							return err
						}
						took[i] = append(took[i], time.Since(begin))
					}
					return nil
				})
			}
			if err := group.Wait(); err != nil {
				b.Fatal(err)
			}
			spent := time.Since(start)
			var calls []time.Duration
			for _, some := range took {
				calls = append(calls, some...)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(math.Round(float64(len(calls))/spent.Seconds()), "calls/s")
			b.ReportMetric(ms(median(calls)), "ms-p50")
			b.ReportMetric(ms(apptest.Quantile(calls, 0.99)), "ms-p99")
		})
	}
}

// BenchmarkOverhead is what a script through an agent takes, from the request for it
// until it is forgotten, against running it by hand: one after another, with nothing
// else to do.
func BenchmarkOverhead(b *testing.B) {
	c := newCaller(b)
	for _, style := range []octopus.CommunicationStyle{octopus.StyleListening, octopus.StylePolling} {
		b.Run(string(style), func(b *testing.B) {
			c := &caller{b, c.net, c.addr}
			one := c.agents(style, 1)[0]
			var through, hand []time.Duration
			for range scripts {
				start := time.Now()
				runThrough(b, one)
				through = append(through, time.Since(start))
				start = time.Now()
				if out, err := exec.CommandContext(b.Context(), "/bin/bash", "-c", "echo hello").Output(); err != nil || string(out) != "hello\n" {
					b.Fatalf("%q, %v", out, err)
				}
				hand = append(hand, time.Since(start))
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(ms(median(through)), "ms-p50")
			b.ReportMetric(ms(apptest.Quantile(through, 1)), "ms-worst")
			b.ReportMetric(ms(median(hand)), "ms-by-hand")
			b.ReportMetric(ms(median(through)-median(hand)), "ms-overhead")
			b.ReportMetric(50, "ms-overhead-is-the-aim")
		})
	}
}

// runThrough runs a script on an agent as a deployment does.
func runThrough(b *testing.B, a network.Agent) {
	b.Helper()
	ticket := agent.Ticket("bench-" + strings.ToLower(rand.Text()))
	st, err := a.StartScript(b.Context(), agent.StartRequest{Ticket: ticket, Body: "echo hello", Isolation: agent.NoIsolation, Wait: 2 * time.Second})
	said := ""
	for {
		if err != nil {
			b.Fatal(err)
		}
		for _, e := range st.Entries {
			said += e.Text
		}
		if st.State == agent.Complete {
			break
		}
		st, err = a.GetStatus(b.Context(), agent.StatusRequest{Ticket: ticket, After: st.Next, Wait: 10 * time.Second})
	}
	if st.ExitCode != 0 || said != "hello" {
		b.Fatalf("the script ended with %d and said %q", st.ExitCode, said)
	}
	if err := a.CompleteScript(b.Context(), ticket); err != nil {
		b.Fatal(err)
	}
}
