package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/durable"
)

func demoCommand() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use: "demo", Short: "Start a server and two agents, and deploy a real example", Args: cobra.NoArgs,
		Long: `Starts a server with embedded SQLite in ./tako-data and two agents, one that listens and
one that polls, registers them as deployment targets, makes a project of a small web
service, pushes its package, and deploys a release to Dev. On one target after the
other the package is installed, its configuration file gets its values, the service
starts, and its health is checked over HTTP. In the end both services are asked which
release they are.

Ctrl-C ends everything that the demo has started: the deployment that is under way, the
services, the agents and the server. Running the demo again carries on with the next
release; it ends first what a demo that was killed has left.

It needs Linux, and node, which runs the example's service.`,
		Example: "  tako demo\n  tako demo --listen 127.0.0.1:9000 --data /tmp/tako --once",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load("", os.Environ(), given(cmd.Flags()))
			if err != nil {
				return usageError{err}
			}
			if cfg.AdminUsername == "" {
				cfg.AdminUsername = "admin"
			}
			if !cmd.Flags().Changed("log-level") {
				cfg.LogLevel = "warn" // the terminal is for the deployment
			}
			switch {
			case !cmd.Flags().Changed("agent-listen"):
				cfg.AgentListen = "127.0.0.1:0" // its own agent is told where
			case cfg.AgentListen == "":
				return usageError{errors.New("agent-listen is off, and one of the demo's agents polls: leave it out, or give an address")}
			}
			return runDemo(cmd.Context(), cfg, once, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	settings(cmd.Flags())
	cmd.Flags().BoolVar(&once, "once", false, "end when the deployment has ended")
	return cmd
}

// errServerEnded has the rest end, too, when the server does; why is the server's error.
var errServerEnded = errors.New("the server has ended")

// runDemo runs the server, and the example against it over HTTP.
func runDemo(ctx context.Context, cfg config.Config, once bool, out, errOut io.Writer) (err error) {
	if _, err := exec.LookPath("node"); err != nil {
		return fmt.Errorf("the example's service is run by node, which was not found (%w): install Node.js, as by apt-get install nodejs", err)
	}
	dir := filepath.Join(cfg.Data, "demo")
	if err := os.Setenv(demoMark, dir); err != nil {
		return err
	}
	opt := app.Options{Log: logger(cfg, errOut), Version: version}
	a, err := app.New(ctx, cfg, opt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	lock, err := durable.TryLock(filepath.Join(dir, "lock"))
	if errors.Is(err, durable.ErrLocked) {
		return fmt.Errorf("a demo runs in %s already: end it, or give this one another directory by --data", cfg.Data)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if n, err := endMarked(demoMark + "=" + dir); err != nil {
		return err
	} else if n > 0 {
		fmt.Fprintf(out, "Ended %d processes that a demo before this one has left.\n", n)
	}
	working, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	targets, err := newCrew(ctx, dir, fail)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Tako %s serves at %s, its data is in %s.\n", version, a.URL(), cfg.Data)
	d := &demo{client: &client{url: a.URL()}, crew: targets, out: out, cfg: cfg}
	if at, ok := a.AgentAddr().(*net.TCPAddr); ok {
		d.polled = net.JoinHostPort("127.0.0.1", strconv.Itoa(at.Port))
	}
	// The server ends after its work: it is what cancels the deployment.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var g errgroup.Group
	g.Go(func() error {
		defer fail(errServerEnded)
		return a.Run(serving)
	})
	g.Go(func() error {
		defer stop()
		return d.run(working, opt, once)
	})
	err = g.Wait()
	if ended := targets.end(); ended != nil || err != nil {
		return errors.Join(err, ended)
	}
	_, err = fmt.Fprintln(out, "The demo has ended, and everything that it had started.")
	return err
}
