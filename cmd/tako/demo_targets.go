package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/agent/instance"
	"github.com/takodeploy/tako/octopus"
)

// demoMark is set, to the demo's directory, in the environment of every process that a
// demo starts: agents, and by them scripts and the services that scripts start. By it
// they are found at the end, and by the next demo if this one is killed. It is none of
// the server's settings (TAKO_...), which scripts do not get.
const demoMark = "DEMO_OF_TAKO"

// Where the demo looks for free ports, so that they are the same each time if they can.
const (
	firstAgentPort   = 10933
	firstServicePort = 8081
)

// errAgentEnded ends a demo whose agents do not go on.
var errAgentEnded = errors.New("an agent has ended by itself")

// demoTarget is one of the demo's deployment targets, an agent with a home of its own.
type demoTarget struct {
	name  string
	style octopus.CommunicationStyle
	port  int // that it listens on, 0 for one that polls
	log   string
	id    string // at the server, once it is registered
	// dev and prod are the ports of its services.
	dev, prod int
}

// crew are the agents of a demo, which are processes of this program.
type crew struct {
	exe, dir string
	targets  []*demoTarget
	failed   func(error) // called when an agent ends before its time

	mu     sync.Mutex
	ending bool
	wg     sync.WaitGroup
}

// newCrew prepares an agent that listens and one that polls.
func newCrew(ctx context.Context, dir string, failed func(error)) (*crew, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	agents, err := freePorts(ctx, 1, firstAgentPort)
	if err != nil {
		return nil, err
	}
	ports, err := freePorts(ctx, 4, firstServicePort)
	if err != nil {
		return nil, err
	}
	return &crew{exe: exe, dir: dir, failed: failed, targets: []*demoTarget{
		{name: "web-1", style: octopus.StyleListening, port: agents[0], log: filepath.Join(dir, "web-1.log"), dev: ports[0], prod: ports[2]},
		{name: "web-2", style: octopus.StylePolling, log: filepath.Join(dir, "web-2.log"), dev: ports[1], prod: ports[3]},
	}}, nil
}

// freePorts finds ports of this host's own address that nobody listens on, from first on.
func freePorts(ctx context.Context, n, first int) (ports []int, err error) {
	var held []net.Listener
	defer func() {
		for _, ln := range held {
			err = errors.Join(err, ln.Close())
		}
	}()
	for port := first; len(ports) < n; port++ {
		if port >= first+1000 {
			return nil, fmt.Errorf("only %d of the ports %d to %d are free, and %d are needed; end what listens there", len(ports), first, port-1, n)
		}
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			continue // somebody's
		}
		held, ports = append(held, ln), append(ports, port)
	}
	return ports, nil
}

// command is one of the agent's commands, for the instances of this demo alone.
func (c *crew) command(ctx context.Context, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, c.exe, append([]string{"agent"}, args...)...)
	// What the server and its users set up is not for the agents.
	own := slices.DeleteFunc(os.Environ(), func(pair string) bool { return strings.HasPrefix(pair, "TAKO_") })
	cmd.Env = append(append(own, instance.EnvDir+"="+filepath.Join(c.dir, "agents")), env...)
	cmd.SysProcAttr = apart()
	return cmd
}

// install registers a target by the command that people use, or registers it anew: its
// ports may be others than the last time.
func (c *crew) install(ctx context.Context, t *demoTarget, server, polled, key string) error {
	args := []string{
		"install", "--no-service", "--force", "--instance", t.name, "--name", t.name, "--comms-style", string(t.style),
		"--server", server, "--role", demoTag, "--environment", demoDev, "--environment", demoProd,
	}
	if t.style == octopus.StylePolling {
		args = append(args, "--server-comms-address", "https://"+polled+"/")
	} else {
		args = append(args, "--listen-address", "127.0.0.1", "--public-host-name", "127.0.0.1", "--port", strconv.Itoa(t.port))
	}
	out, err := c.command(ctx, []string{"TAKO_API_KEY=" + key}, args...).CombinedOutput()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("register the agent %s: %w: %s", t.name, err, bytes.TrimSpace(out))
	}
	return nil
}

// start runs a target's agent. It goes on until end, or tells failed.
func (c *crew) start(ctx context.Context, t *demoTarget) error {
	log, err := os.OpenFile(t.log, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	// The server needs it for as long as there is one: it is not ended with ctx.
	cmd := c.command(context.WithoutCancel(ctx), nil, "run", "--instance", t.name)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the agent %s: %w", t.name, err)
	}
	c.wg.Go(func() {
		_ = cmd.Wait() // its state says how it ended
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.ending {
			c.failed(fmt.Errorf("%w: %s (%s); its log is %s", errAgentEnded, t.name, cmd.ProcessState, t.log))
		}
	})
	return nil
}

// end ends the agents and everything else that this demo has started.
func (c *crew) end() error {
	c.mu.Lock()
	c.ending = true
	c.mu.Unlock()
	_, err := endMarked(demoMark + "=" + c.dir)
	c.wg.Wait()
	return err
}

// How processes are ended: they are asked to, after patience they are killed, and after
// twice that it is an error that they are still there.
const patience = 5 * time.Second

// endMarked ends all processes with a variable in the environment that they were started
// with, but for this one. It returns how many there were at first.
func endMarked(mark string) (int, error) {
	begun, n := time.Now(), -1
	asked := map[int]bool{}
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		living := marked(mark)
		if n < 0 {
			n = len(living)
		}
		for _, p := range living {
			// It may have ended meanwhile, which is as well.
			switch {
			case time.Since(begun) > patience:
				_ = p.Kill()
			case !asked[p.Pid]:
				_ = p.Signal(terminate)
				asked[p.Pid] = true
			}
			_ = p.Release()
		}
		switch {
		case len(living) == 0:
			return n, nil
		case time.Since(begun) > 2*patience:
			return n, fmt.Errorf("%d processes of the demo do not end, %d for one", len(living), living[0].Pid)
		}
		<-tick.C
	}
}
