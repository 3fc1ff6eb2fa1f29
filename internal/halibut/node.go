package halibut

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/halibut/wire"
)

// How a call can end without an answer.
var (
	ErrNotSent    = errors.New("the agent was not reached")
	ErrUnanswered = errors.New("the agent did not answer")
)

// Timing says how long things may take. Zero values are replaced by the defaults
// that are given with each.
type Timing struct {
	Connect  time.Duration // a minute: TCP, TLS and identification of one attempt to dial
	Attempts int           // 5: attempts to dial for one call
	Pause    time.Duration // a second: between two of them
	Hello    time.Duration // 20 s: what somebody who dials us has until it is identified
	Response time.Duration // 5 min: until the first byte of an answer
	Control  time.Duration // a minute: until a control line
	Reuse    time.Duration // 10 s: until an idle connection has proved to be alive
	Idle     time.Duration // 10 min: an accepted connection waits for its next request
	Null     time.Duration // 30 s: what polling agents are asked at least, which is nothing
	Poll     time.Duration // a minute: a polling agent waits for a request or for nothing
	Queue    time.Duration // 2 min: a call waits for a polling agent
	PoolIdle time.Duration // 45 s: an unused connection is kept; agents give up after a minute
	PoolLife time.Duration // 9 min: any connection is kept
	Again    time.Duration // 5 s: the shortest pause of a polling agent before it dials again, the longest of the first ones
	AgainMax time.Duration // 2 min: the longest
	Grace    time.Duration // 10 s: what calls in progress have when Serve or Poll end
}

func (t Timing) orDefaults() Timing {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&t.Connect, time.Minute)
	set(&t.Pause, time.Second)
	set(&t.Hello, 20*time.Second)
	set(&t.Response, 5*time.Minute)
	set(&t.Control, time.Minute)
	set(&t.Reuse, 10*time.Second)
	set(&t.Idle, 10*time.Minute)
	set(&t.Null, 30*time.Second)
	set(&t.Poll, time.Minute)
	set(&t.Queue, 2*time.Minute)
	set(&t.PoolIdle, 45*time.Second)
	set(&t.PoolLife, 9*time.Minute)
	set(&t.Again, 5*time.Second)
	set(&t.AgainMax, 2*time.Minute)
	set(&t.Grace, 10*time.Second)
	if t.Attempts == 0 {
		t.Attempts = 5
	}
	return t
}

// Effort is what a caller gives to reach its agent before a call is not sent. Zero
// values are those of the node's Timing.
type Effort struct {
	Connect  time.Duration // one attempt to dial an agent that listens
	Attempts int           // to dial for one call
	Pause    time.Duration // between two of them
	Within   time.Duration // all of them together; 0 is no bound
	Queue    time.Duration // a call waits for an agent that polls
}

func (e Effort) orThat(t Timing) Effort {
	return Effort{cmp.Or(e.Connect, t.Connect), cmp.Or(e.Attempts, t.Attempts), cmp.Or(e.Pause, t.Pause), e.Within, cmp.Or(e.Queue, t.Queue)}
}

// Bounds of what a node holds for others.
const (
	maxLarge         = 8      // messages over a mebibyte in memory at once
	maxIdle          = 4      // unused connections to one listening agent
	defaultConns     = 20_000 // accepted connections
	defaultUntrusted = 256    // accepted connections that are not identified yet
	maxPerAgent      = 64     // connections of one polling agent
)

// Config is what a node is. Whom neither function trusts is refused; both may be nil.
type Config struct {
	Identity *Identity
	// AwaitIdentity gives the identity in the place of Identity, where that may not be
	// made yet. It is called for each connection, which waits for it as long as for the
	// other end.
	AwaitIdentity func(context.Context) (*Identity, error)
	// Services answer calls of those whom TrustCaller trusts.
	Services    []Service
	TrustCaller func(Thumbprint) bool
	// TrustSubscriber says whether the polling agent of that subscription has that
	// thumbprint. Both are asked again while a connection lasts: a caller before each
	// of its requests, an agent whenever it was not called for Timing.Null. An error
	// says that it cannot be told: then a new connection is closed, and one that is
	// there stays.
	TrustSubscriber func(context.Context, Subscription, Thumbprint) (bool, error)

	Timing Timing
	Limits wire.Limits
	// MaxConnections and MaxUntrusted bound the accepted connections, and those of
	// them that are not identified yet; 20,000 and 256 unless set.
	MaxConnections, MaxUntrusted int
	Log                          *slog.Logger // nil discards
}

// Node is one end of the protocol. It is safe for concurrent use.
type Node struct {
	cfg    Config
	timing Timing
	log    *slog.Logger
	budget *wire.Budget
	refuse refusals

	mu     sync.Mutex
	queues map[agentKey]*queue
	left   map[agentKey]time.Time // when polling agents have lost their last connection
	serves time.Time              // since when polling agents can come; zero before Serve
}

// New makes a node.
func New(cfg Config) *Node {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.MaxConnections == 0 {
		cfg.MaxConnections = defaultConns
	}
	if cfg.MaxUntrusted == 0 {
		cfg.MaxUntrusted = defaultUntrusted
	}
	return &Node{
		cfg: cfg, timing: cfg.Timing.orDefaults(), log: cfg.Log, budget: wire.NewBudget(maxLarge),
		refuse: refusals{log: cfg.Log, seen: make(map[string]time.Time)},
		queues: make(map[agentKey]*queue), left: make(map[agentKey]time.Time),
	}
}

// Thumbprint is the node's own, of one that was made with its identity.
func (n *Node) Thumbprint() Thumbprint { return n.cfg.Identity.Thumbprint }

func (n *Node) identity(ctx context.Context) (*Identity, error) {
	if n.cfg.Identity != nil {
		return n.cfg.Identity, nil
	}
	return n.cfg.AwaitIdentity(ctx)
}

// refusals logs each cause once an hour, and no more causes than it can remember.
type refusals struct {
	log  *slog.Logger
	mu   sync.Mutex
	seen map[string]time.Time
}

const (
	sayAgain   = time.Hour
	maxReasons = 1000
)

func (r *refusals) say(reason, who string, args ...any) {
	key := reason + "\x00" + who
	r.mu.Lock()
	now := time.Now()
	said, known := r.seen[key]
	if known && now.Sub(said) < sayAgain {
		r.mu.Unlock()
		return
	}
	if !known && len(r.seen) >= maxReasons {
		for k, at := range r.seen {
			if now.Sub(at) >= sayAgain {
				delete(r.seen, k)
			}
		}
		if len(r.seen) >= maxReasons {
			r.mu.Unlock()
			return
		}
	}
	r.seen[key] = now
	r.mu.Unlock()
	r.log.Warn(reason, append([]any{"peer", who}, args...)...)
}
