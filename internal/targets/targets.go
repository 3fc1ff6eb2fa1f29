// Package targets is how a step reaches the machine that runs it.
//
// That is the built-in worker, an agent on the server's own host and a process of its
// own that outlives the server and keeps what it runs; or the agent of a machine, by
// the dialer of its communication style. Styles without one are refused in one sentence.
package targets

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// Builtin is the name of the built-in worker in journals and tickets.
const Builtin = "builtin"

// Agent is a reachable agent.
type Agent struct {
	agent.API
	// Name finds it again after a restart.
	Name     string
	Contract deploy.Contract
	// Home is its directory, "" while it is not known.
	Home string
	// Label is what people call its machine, "" for the built-in worker.
	Label string
	// Patience is how long it is called again while it does not answer; 0 leaves it to
	// the caller.
	Patience time.Duration
}

// AwayError says that a machine could not be reached, and may be later.
type AwayError struct {
	Label    string        // of the machine
	Patience time.Duration // how long to try, as its policy says
	Err      error
}

// Error names the machine and the cause.
func (e *AwayError) Error() string { return fmt.Sprintf("reach the machine %s: %v", e.Label, e.Err) }

// Unwrap is the cause, which wraps agent.ErrNotSent or agent.ErrUnanswered.
func (e *AwayError) Unwrap() error { return e.Err }

// Workspace is the absolute path of the directory in which a ticket's script runs, ""
// while the agent's home is not known.
func (a Agent) Workspace(t agent.Ticket) string {
	switch {
	case a.Home == "":
		return ""
	case a.Contract == deploy.ContractTako:
		return a.Home + "/" + strings.TrimSuffix(agent.WorkspacePath(t, ""), "/")
	}
	return a.Home + "/Work/" + string(t) // that of other makes, which have nothing of their own in it
}

// Config of Targets.
type Config struct {
	// Exe is the program that becomes the built-in worker, and Home its directory.
	Exe, Home string
	// Disabled refuses to run anything on the server's host.
	Disabled bool
	// Directory knows the machines, and Dialers reach them by their communication
	// style; without them there is the built-in worker alone.
	Directory Directory
	Dialers   map[octopus.CommunicationStyle]Dialer
	Log       *slog.Logger // nil discards
}

// Targets finds agents. It is safe for concurrent use.
type Targets struct {
	cfg     Config
	turn    chan struct{} // full while somebody looks at what follows
	builtin *agent.Client
	home    string
}

// New makes a finder of agents; the built-in worker starts when it is first needed.
func New(cfg Config) *Targets {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Targets{cfg: cfg, turn: make(chan struct{}, 1)}
}

// ByName returns the agent that a journal names, for what is under way there: also that
// of a machine that was disabled or deleted since.
func (t *Targets) ByName(ctx context.Context, name string) (Agent, error) {
	if name != Builtin {
		m, err := t.machine(ctx, name)
		if err != nil {
			return Agent{}, err
		}
		return t.dial(ctx, m)
	}
	return t.own(ctx)
}

// own returns the built-in worker.
func (t *Targets) own(ctx context.Context) (Agent, error) {
	if t.cfg.Disabled {
		return Agent{}, fault.New(fault.Unsupported, "The built-in worker is switched off; choose a worker pool that has workers.")
	}
	_, home, err := t.spawned(ctx, nil)
	if err != nil {
		return Agent{}, err
	}
	return Agent{API: &agent.Renewing{Current: t.current}, Name: Builtin, Contract: deploy.ContractTako, Home: home}, nil
}

// Start starts the built-in worker if it does not run yet.
func (t *Targets) Start(ctx context.Context) error {
	if t.cfg.Disabled {
		return nil
	}
	_, _, err := t.spawned(ctx, nil)
	return err
}

// spawned returns the built-in worker's client. A client that failed is given as
// stale: the worker is then started again if it is not running.
func (t *Targets) spawned(ctx context.Context, stale *agent.Client) (*agent.Client, string, error) {
	select {
	case t.turn <- struct{}{}: // starting it may take a while
	case <-ctx.Done():
		return nil, "", ctx.Err()
	}
	defer func() { <-t.turn }()
	if t.builtin != nil && t.builtin != stale {
		return t.builtin, t.home, nil
	}
	client, err := agent.Spawn(ctx, t.cfg.Exe, t.cfg.Home)
	if err != nil {
		return nil, "", fmt.Errorf("start the built-in worker: %w", err)
	}
	hello, err := client.Hello(ctx)
	if err != nil {
		return nil, "", fmt.Errorf("greet the built-in worker: %w", err)
	}
	if t.builtin != nil {
		t.builtin.Close()
	}
	t.builtin, t.home = client, hello.Home
	return client, hello.Home, nil
}

// current is agent.Renewing's: the built-in worker may have been started anew since
// somebody found it, and is started again when it is gone.
func (t *Targets) current(ctx context.Context, stale *agent.Client) (*agent.Client, error) {
	client, _, err := t.spawned(ctx, stale)
	return client, err
}
