package ssh

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/targets/program"
	"github.com/takodeploy/tako/octopus"
)

// Config of Hosts.
type Config struct {
	// Installation names this server's directory on a host: letters, digits and '-'.
	// Servers of several installations may sign in to the same account.
	Installation string
	Programs     *program.Finder
	Accounts     Accounts        // for Dial
	Proxies      targets.Proxies // for Dial
	// Idle is after what time without scripts and calls an agent on a host ends by itself;
	// 0 is DefaultIdle.
	Idle time.Duration
	Dial Dialer       // of hosts that are behind no proxy; nil dials directly
	Log  *slog.Logger // nil discards
}

// Accounts opens accounts.
type Accounts interface {
	// Account finds an account of a space by its id, with its secrets in clear. One that
	// is not there is a fault NotFound.
	Account(ctx context.Context, space, id string) (octopus.Account, error)
}

// DefaultIdle is how long an agent stays on a host that nobody needs.
const DefaultIdle = 30 * time.Minute

// forgetAfter is when a host that nobody calls is forgotten.
const forgetAfter = time.Hour

// Agent is an agent on a host.
type Agent struct {
	agent.API
	Home string // its directory, absolute
}

// Hosts are the hosts that were called: one connection to each. It is safe for
// concurrent use.
type Hosts struct {
	cfg Config
	wg  sync.WaitGroup

	mu     sync.Mutex
	known  map[known]*host
	closed bool
}

// known is what tells one host from another: that of another user is another.
type known struct {
	endpoint Endpoint
	login    string // Login.key
}

// New makes a finder of hosts; nothing is connected before it is needed.
func New(cfg Config) *Hosts {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Idle == 0 {
		cfg.Idle = DefaultIdle
	}
	return &Hosts{cfg: cfg, known: map[known]*host{}}
}

// Close closes all connections. What runs on the hosts goes on.
func (h *Hosts) Close() {
	h.mu.Lock()
	h.closed = true
	all := h.known
	h.known = nil
	h.mu.Unlock()
	for _, one := range all {
		one.close()
	}
	h.wg.Wait()
}

// Agent reaches the agent of a host, which is brought there and started if need be. An
// error is a fault in a sentence for people where one may be had: of the kind
// fault.Unavailable where it may be otherwise in a while. Name is of the machine.
//
// Calls of the agent connect again when the connection is lost, and start the agent
// again when it is gone; a call that may have been acted upon is agent.ErrUnanswered.
func (h *Hosts) Agent(ctx context.Context, name string, e Endpoint, l Login) (Agent, error) {
	if id := h.cfg.Installation; id == "" || strings.Trim(strings.ToLower(id), "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return Agent{}, errors.New("an installation's name must be letters, digits and '-'")
	}
	one, err := h.find(name, e, l)
	if err != nil {
		return Agent{}, err
	}
	if _, err := one.current(ctx, nil); err != nil {
		if len(fault.Faults(err)) == 0 || fault.Is(err, fault.Unavailable) {
			err = errors.Join(agent.ErrNotSent, err) // nothing was asked of the agent yet
		}
		return Agent{}, err
	}
	return Agent{API: &agent.Renewing{Current: one.current}, Home: one.home()}, nil
}

// Dial is the targets.Dialer of machines that are reached by SSH.
func (h *Hosts) Dial(ctx context.Context, m targets.Machine) (targets.Agent, error) {
	e, err := EndpointOf(&m.Endpoint)
	if err != nil {
		return targets.Agent{}, err
	}
	if e.Proxy, err = targets.ProxyOf(ctx, h.cfg.Proxies, &m); err != nil {
		return targets.Agent{}, err
	}
	if m.Endpoint.AccountID == "" {
		return targets.Agent{}, fault.InvalidField("Endpoint.AccountId", "Endpoint.AccountId is empty; give the account that signs in to the host.")
	}
	account, err := h.cfg.Accounts.Account(ctx, m.SpaceID, m.Endpoint.AccountID)
	if err != nil {
		return targets.Agent{}, err
	}
	l, err := LoginOf(&account)
	if err != nil {
		return targets.Agent{}, err
	}
	a, err := h.Agent(ctx, m.Name, e, l)
	if err != nil {
		return targets.Agent{}, err
	}
	if m.Fresh {
		if _, err := a.Hello(ctx); err != nil {
			return targets.Agent{}, err
		}
	}
	return targets.Agent{API: a.API, Contract: deploy.ContractTako, Home: a.Home}, nil
}

func (h *Hosts) find(name string, e Endpoint, l Login) (*host, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, errors.Join(agent.ErrNotSent, net.ErrClosed)
	}
	now := time.Now()
	for key, old := range h.known {
		if now.Sub(old.lastUsed()) > forgetAfter {
			delete(h.known, key)
			old.close()
		}
	}
	key := known{e, l.key()}
	one := h.known[key]
	if one == nil {
		one = &host{hosts: h, name: name, endpoint: e, login: l, turn: make(chan struct{}, 1)}
		h.known[key] = one
	}
	one.touch()
	return one, nil
}
