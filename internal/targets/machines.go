package targets

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// Machine is a deployment target or a worker, as far as reaching it needs.
type Machine struct {
	ID, Name, SpaceID string
	// Disabled says that it is to take no new work, Gone that it was deleted.
	Disabled, Gone bool
	Health         octopus.HealthStatus
	Endpoint       octopus.Endpoint
	// Policy says how long to try; its periods are never zero.
	Policy octopus.MachinePolicy
	// Busy is how many scripts are under way there; it is told of workers.
	Busy int
	// Fresh has a dialer find out whether the machine answers now.
	Fresh bool
	// Check has a dialer give all attempts together the time of one, and none where an
	// AbsentError tells enough: others wait to be checked.
	Check bool
}

// AbsentError says that the agent of a machine polls, and was not connected for so long
// that it is not on its way back by itself.
type AbsentError struct{ For time.Duration }

// Error is a sentence; how long it is does not change it.
func (*AbsentError) Error() string {
	return "The machine's agent polls, and is not connected to this server."
}

// Unwrap says that nothing was sent.
func (*AbsentError) Unwrap() error { return agent.ErrNotSent }

// Pool is a worker pool with all of its workers.
type Pool struct {
	ID, Name string
	Default  bool // of its space
	Dynamic  bool // its workers are not kept here
	Workers  []Machine
}

// Directory knows machines.
type Directory interface {
	// Machine finds a deployment target or a worker by its id, also one that was deleted
	// not long ago. What is not known is a fault NotFound.
	Machine(ctx context.Context, id string) (Machine, error)
	// Pool finds a worker pool of a space by its id; "" is the default one.
	Pool(ctx context.Context, space, pool string) (Pool, error)
}

// Proxies open the proxies that machines are behind.
type Proxies interface {
	// Proxy finds a proxy of a space by its id, with its password in clear. One that is
	// not there is a fault NotFound.
	Proxy(ctx context.Context, space, id string) (egress.HTTPProxy, error)
}

// ProxyOf is the proxy that a machine is behind, zero for none.
func ProxyOf(ctx context.Context, all Proxies, m *Machine) (egress.HTTPProxy, error) {
	id := m.Endpoint.ProxyID
	if id == "" {
		return egress.HTTPProxy{}, nil
	}
	p, err := all.Proxy(ctx, m.SpaceID, id)
	if fault.Is(err, fault.NotFound) {
		err = fault.InvalidField("Endpoint.ProxyId", "The machine %s is behind the proxy '%.40s', which is not there any more; choose another one, or none.", m.Name, id)
	}
	return p, err
}

// Dialer reaches the machines of a communication style. What it returns needs no name.
// An error is a fault where trying again is of no use; else it wraps agent.ErrNotSent
// or agent.ErrUnanswered.
type Dialer func(ctx context.Context, m Machine) (Agent, error)

// ErrDisabled says that a machine takes no new work.
var ErrDisabled = errors.New("the machine is disabled")

// Target returns the agent of a machine for new work, which disabled and deleted ones
// do not take: ErrDisabled, or a fault NotFound.
func (t *Targets) Target(ctx context.Context, id string) (Agent, error) {
	m, err := t.machine(ctx, id)
	if err == nil {
		err = m.takesWork()
	}
	if err != nil {
		return Agent{}, err
	}
	return t.dial(ctx, m)
}

// TakesWork checks that a machine takes new work now, as Target does.
func (t *Targets) TakesWork(ctx context.Context, id string) error {
	m, err := t.machine(ctx, id)
	if err != nil {
		return err
	}
	return m.takesWork()
}

func (m *Machine) takesWork() error {
	switch {
	case m.Gone:
		return fault.New(fault.NotFound, "The machine %s was deleted.", m.Name)
	case m.Disabled:
		return &fault.Error{Kind: fault.Unsupported, Message: fmt.Sprintf("The machine %s is disabled; enable it, or leave it out.", m.Name), Cause: ErrDisabled}
	}
	return nil
}

// Checking finds the agents of machines that are to be checked: see Machine.Check.
func (t *Targets) Checking() Finder { return checking{t} }

type checking struct{ t *Targets }

// ByName is Finder.
func (c checking) ByName(ctx context.Context, name string) (Agent, error) {
	m, err := c.t.machine(ctx, name)
	if err != nil {
		return Agent{}, err
	}
	m.Check = true
	return c.t.dial(ctx, m)
}

func (t *Targets) machine(ctx context.Context, id string) (Machine, error) {
	if t.cfg.Directory == nil {
		return Machine{}, fault.New(fault.NotFound, "There is no machine '%s'.", id)
	}
	return t.cfg.Directory.Machine(ctx, id)
}

// dial reaches a machine by its communication style.
func (t *Targets) dial(ctx context.Context, m Machine) (Agent, error) {
	style := m.Endpoint.CommunicationStyle
	dialer := t.cfg.Dialers[style]
	if dialer == nil {
		return Agent{}, fault.New(fault.Unsupported, "The machine %s cannot be reached: this server runs no scripts on machines of the kind %s.", m.Name, style)
	}
	patience := time.Duration(m.Policy.ConnectionRetryTimeLimit)
	a, err := dialer(ctx, m)
	if errors.Is(err, agent.ErrNotSent) || errors.Is(err, agent.ErrUnanswered) || fault.Is(err, fault.Unavailable) {
		return Agent{}, &AwayError{Label: m.Name, Patience: patience, Err: err}
	}
	if err != nil {
		return Agent{}, fmt.Errorf("reach the machine %s: %w", m.Name, err)
	}
	a.Name, a.Label, a.Patience = m.ID, m.Name, patience
	return a, nil
}
