package network

import (
	"context"
	"time"

	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/octopus"
)

// freshFor is how long an agent counts as one that has just answered.
const freshFor = 10 * time.Second

// Dial is the targets.Dialer of agents that listen and of agents that poll.
func (n *Network) Dial(ctx context.Context, m targets.Machine) (targets.Agent, error) {
	var proxy egress.HTTPProxy
	if m.Endpoint.CommunicationStyle == octopus.StyleListening { // an agent that polls uses its own
		var err error
		if proxy, err = targets.ProxyOf(ctx, n.proxies, &m); err != nil {
			return targets.Agent{}, err
		}
	}
	age := askAgain
	if m.Fresh {
		age = freshFor
	}
	p := &m.Policy
	var within time.Duration
	if m.Check {
		within = time.Duration(p.ConnectionConnectTimeout)
		if away := n.absent(m.Endpoint); away > n.absentAfter {
			return targets.Agent{}, &targets.AbsentError{For: away}
		}
	}
	a, err := n.answered(ctx, m.Name, Endpoint{URI: m.Endpoint.URI, Thumbprint: m.Endpoint.Thumbprint, Proxy: proxy, Effort: halibut.Effort{
		Connect: time.Duration(p.ConnectionConnectTimeout), Attempts: p.ConnectionRetryCountLimit, Within: within,
		Pause: time.Duration(p.ConnectionRetrySleepInterval), Queue: time.Duration(p.PollingRequestQueueTimeout),
	}}, age)
	if err != nil {
		return targets.Agent{}, err
	}
	return targets.Agent{API: a.API, Contract: a.Contract, Home: a.Home}, nil
}

// absent is for how long an agent that polls has not been connected; 0 for others.
func (n *Network) absent(e octopus.Endpoint) time.Duration {
	if e.CommunicationStyle != octopus.StylePolling {
		return 0
	}
	sub, err := halibut.ParseSubscription(e.URI)
	thumb, thumbErr := halibut.ParseThumbprint(e.Thumbprint)
	if err != nil || thumbErr != nil {
		return 0 // reaching it says what is wrong
	}
	return n.node.Absent(sub, thumb)
}
