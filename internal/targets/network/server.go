package network

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/targets/program"
)

// Config of a Network.
type Config struct {
	// Identity is whom agents know. AwaitIdentity gives it in its place where it may not
	// be made yet: halibut.Config.AwaitIdentity.
	Identity      *halibut.Identity
	AwaitIdentity func(context.Context) (*halibut.Identity, error)
	// Trust says whether the polling agent of that subscription has that
	// certificate: halibut.Config.TrustSubscriber.
	Trust  func(context.Context, halibut.Subscription, halibut.Thumbprint) (bool, error)
	Timing halibut.Timing
	// Programs are those that agents of other makes get for what they lack.
	Programs *program.Finder
	Proxies  targets.Proxies // for Dial
	Log      *slog.Logger    // nil discards
}

// Network is the server's end of the protocol. It is safe for concurrent use.
type Network struct {
	node     *halibut.Node
	programs *program.Finder
	proxies  targets.Proxies
	// absentAfter is when an agent that polls, and is not connected, is not on its way
	// back by itself.
	absentAfter time.Duration

	mu     sync.Mutex
	agents map[Endpoint]*known
	closed bool
}

// Endpoint is where an agent is, and who it is.
type Endpoint struct {
	URI        string // https://host:port/ or poll://subscription/
	Thumbprint string // as people have it
	// Proxy is the one in front of an agent that listens, zero for none.
	Proxy  egress.HTTPProxy
	Effort halibut.Effort
}

// known is an agent that has been called.
type known struct {
	caller halibut.Caller
	close  func()
	pace   Pace
	used   time.Time

	turn  chan struct{} // full while somebody asks what the agent can do
	agent Agent         // what was found, if asked is not zero
	asked time.Time
}

const (
	// askAgain is how long an agent's contract is taken as known: it may be upgraded.
	askAgain = 10 * time.Minute
	// forgetAfter is when connections to an agent that nobody calls are forgotten.
	forgetAfter = time.Hour
	// againMax is the longest pause of polling agents before they dial again, unless
	// the Timing says another.
	againMax = 2 * time.Minute
)

// New makes a server's end. Nobody can reach it before Serve.
func New(cfg Config) *Network {
	return &Network{
		node:     halibut.New(halibut.Config{Identity: cfg.Identity, AwaitIdentity: cfg.AwaitIdentity, TrustSubscriber: cfg.Trust, Timing: cfg.Timing, Log: cfg.Log}),
		programs: cfg.Programs, proxies: cfg.Proxies, absentAfter: cmp.Or(cfg.Timing.AgainMax, againMax) * 5 / 4,
		agents: make(map[Endpoint]*known),
	}
}

// Serve accepts polling agents, and answers the HTTP requests by which programs look
// whether they would be, until ctx ends. It closes ln.
func (n *Network) Serve(ctx context.Context, ln net.Listener) error { return n.node.Serve(ctx, ln) }

// Thumbprint is what agents have to trust, where Config has the identity itself.
func (n *Network) Thumbprint() halibut.Thumbprint { return n.node.Thumbprint() }

// Connected is how many connections a polling agent has at the moment.
func (n *Network) Connected(sub halibut.Subscription, peer halibut.Thumbprint) int {
	return n.node.Connected(sub, peer)
}

// Close closes the connections to listening agents that are not in use.
func (n *Network) Close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.closed = true
	for _, k := range n.agents {
		k.close()
	}
	n.agents = nil
}

// Agent reaches an agent and knows its contract. Name is for messages. An error is a
// fault where the endpoint is none or the agent is too old; else it wraps
// agent.ErrNotSent or agent.ErrUnanswered.
func (n *Network) Agent(ctx context.Context, name string, e Endpoint) (Agent, error) {
	return n.answered(ctx, name, e, askAgain)
}

// answered is Agent for one that has answered within an age.
func (n *Network) answered(ctx context.Context, name string, e Endpoint, age time.Duration) (Agent, error) {
	k, err := n.find(e)
	if err != nil {
		return Agent{}, err
	}
	select {
	case k.turn <- struct{}{}:
		defer func() { <-k.turn }()
	case <-ctx.Done():
		return Agent{}, errors.Join(agent.ErrNotSent, ctx.Err())
	}
	if !k.asked.IsZero() && time.Since(k.asked) < age {
		return k.agent, nil
	}
	found, err := reopen(ctx, k.caller, name, k.pace, n.programs, k.agent.API)
	if err != nil {
		return Agent{}, err
	}
	k.agent, k.asked = found, time.Now()
	return found, nil
}

// find returns what is known of an agent, and forgets those nobody has called.
func (n *Network) find(e Endpoint) (*known, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return nil, errors.Join(agent.ErrNotSent, net.ErrClosed)
	}
	now := time.Now()
	if k, ok := n.agents[e]; ok {
		k.used = now
		return k, nil
	}
	k, err := n.reach(e)
	if err != nil {
		return nil, err
	}
	for other, old := range n.agents {
		if now.Sub(old.used) > forgetAfter {
			old.close()
			delete(n.agents, other)
		}
	}
	k.used, k.turn = now, make(chan struct{}, 1)
	n.agents[e] = k
	return k, nil
}

func (n *Network) reach(e Endpoint) (*known, error) {
	thumb, err := halibut.ParseThumbprint(e.Thumbprint)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(strings.ToLower(e.URI), "poll:") {
		sub, err := halibut.ParseSubscription(e.URI)
		if err != nil {
			return nil, err
		}
		return &known{caller: n.node.Polling(sub, thumb, e.Effort), close: func() {}, pace: PacePolling()}, nil
	}
	addr, err := halibut.ParseAddress(e.URI, halibut.DefaultAgentPort)
	if err != nil {
		return nil, err
	}
	l := n.node.Listening(addr, thumb, halibut.ThroughProxy(e.Proxy), e.Effort)
	return &known{caller: l, close: l.Close, pace: PaceListening()}, nil
}
