package network

import (
	"context"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/targets"
)

// Dial is the targets.Dialer of agents that listen and of agents that poll.
func (n *Network) Dial(ctx context.Context, m targets.Machine) (targets.Agent, error) {
	if m.Endpoint.ProxyID != "" {
		return targets.Agent{}, fault.New(fault.Unsupported, "The machine %s is behind a proxy, and this server reaches agents directly or by polling; clear its ProxyId, or let its agent poll.", m.Name)
	}
	a, err := n.Agent(ctx, m.Name, Endpoint{URI: m.Endpoint.URI, Thumbprint: m.Endpoint.Thumbprint})
	if err != nil {
		return targets.Agent{}, err
	}
	return targets.Agent{API: a.API, Name: m.ID, Contract: a.Contract, Home: a.Home}, nil
}
