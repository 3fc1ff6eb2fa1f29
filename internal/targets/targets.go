// Package targets is how a step reaches the machine that runs it.
//
// That is the built-in worker, an agent on the server's own host and a process of its
// own that outlives the server and keeps what it runs; or the agent of a machine, by
// the dialer of its communication style. Styles without one are refused in one sentence.
package targets

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

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
	Log       *slog.Logger
}

// Targets finds agents. It is safe for concurrent use.
type Targets struct {
	cfg     Config
	turn    chan struct{} // full while somebody looks at what follows
	builtin *agent.Client
	home    string
}

// New makes a finder of agents; the built-in worker starts when it is first needed.
func New(cfg Config) *Targets { return &Targets{cfg: cfg, turn: make(chan struct{}, 1)} }

// Worker returns the agent for a step that runs on a worker of the pool; "" is
// the default one.
func (t *Targets) Worker(ctx context.Context, _ string) (Agent, error) { return t.ByName(ctx, Builtin) }

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
	if t.cfg.Disabled {
		return Agent{}, fault.New(fault.Unsupported, "The built-in worker is switched off; choose a worker pool that has workers.")
	}
	client, home, err := t.spawned(ctx, nil)
	if err != nil {
		return Agent{}, err
	}
	return Agent{API: &resilient{Client: client, t: t}, Name: Builtin, Contract: deploy.ContractTako, Home: home}, nil
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

// resilient starts the built-in worker again when it is gone. Every call of an
// agent may be repeated with the same ticket, so that is always safe.
type resilient struct {
	*agent.Client
	t *Targets
}

// again makes a call, and once more when the worker was not there or went away
// before it answered: then it is started if nobody has. An error of the second call
// keeps what is known of the first, which may have been acted upon.
func again[T any](ctx context.Context, r *resilient, call func(*agent.Client) (T, error)) (T, error) {
	// The worker may have been started anew since r was made.
	client, _, err := r.t.spawned(ctx, nil)
	if err != nil {
		var none T
		return none, errors.Join(agent.ErrNotSent, err)
	}
	v, err := call(client)
	if err == nil || ctx.Err() != nil || !errors.Is(err, agent.ErrNotSent) && !errors.Is(err, agent.ErrUnanswered) {
		return v, err
	}
	fresh, _, spawnErr := r.t.spawned(ctx, client)
	if spawnErr != nil {
		return v, errors.Join(err, spawnErr)
	}
	v, second := call(fresh)
	if second == nil || errors.Is(err, agent.ErrNotSent) || !errors.Is(second, agent.ErrNotSent) {
		return v, second
	}
	return v, errors.Join(err, second)
}

// StartScript is agent.Scripts.
func (r *resilient) StartScript(ctx context.Context, req agent.StartRequest) (agent.Status, error) {
	return again(ctx, r, func(c *agent.Client) (agent.Status, error) { return c.StartScript(ctx, req) })
}

// GetStatus is agent.Scripts.
func (r *resilient) GetStatus(ctx context.Context, req agent.StatusRequest) (agent.Status, error) {
	return again(ctx, r, func(c *agent.Client) (agent.Status, error) { return c.GetStatus(ctx, req) })
}

// CancelScript is agent.Scripts.
func (r *resilient) CancelScript(ctx context.Context, req agent.StatusRequest) (agent.Status, error) {
	return again(ctx, r, func(c *agent.Client) (agent.Status, error) { return c.CancelScript(ctx, req) })
}

// CompleteScript is agent.Scripts.
func (r *resilient) CompleteScript(ctx context.Context, ticket agent.Ticket) error {
	_, err := again(ctx, r, func(c *agent.Client) (struct{}, error) { return struct{}{}, c.CompleteScript(ctx, ticket) })
	return err
}

// DownloadFile is agent.Files.
func (r *resilient) DownloadFile(ctx context.Context, path string) (io.ReadCloser, error) {
	return again(ctx, r, func(c *agent.Client) (io.ReadCloser, error) { return c.DownloadFile(ctx, path) })
}

// HasPackage is agent.Packages.
func (r *resilient) HasPackage(ctx context.Context, sha256 string) (bool, error) {
	return again(ctx, r, func(c *agent.Client) (bool, error) { return c.HasPackage(ctx, sha256) })
}

// PutPackage is agent.Packages. Content that can be read again is, where that is needed.
func (r *resilient) PutPackage(ctx context.Context, sha256 string, size int64, content io.Reader) error {
	calls := 0
	_, err := again(ctx, r, func(c *agent.Client) (struct{}, error) {
		if calls++; calls > 1 {
			from, ok := content.(io.Seeker)
			if !ok {
				return struct{}{}, fmt.Errorf("send a package again: %w", agent.ErrUnanswered)
			}
			if _, err := from.Seek(0, io.SeekStart); err != nil {
				return struct{}{}, fmt.Errorf("read a package again: %w", err)
			}
		}
		return struct{}{}, c.PutPackage(ctx, sha256, size, content)
	})
	return err
}
