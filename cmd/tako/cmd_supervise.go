package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/supervisor"
)

func superviseCommand() *cobra.Command {
	var root string
	cmd := &cobra.Command{
		Use: "supervise --root DIR [-- FLAGS OF THE SERVER]", Short: "Run the server so that it can be upgraded without an outage",
		Long: `Runs the server as a service does: the supervisor owns the listening sockets, starts
the version that is current below its root directory, starts it again when it dies,
and hands over from one version to another without closing a socket. In an empty
directory it installs this very program as the first version; where there are versions
or data, and only the link "current" is lost, it refuses and says how to name the one
that ran.

The server's data is in DIR/data. Its addresses come from --listen and
--agent-listen, or TAKO_LISTEN and TAKO_AGENT_LISTEN; what follows -- is passed on to
it.`,
		Example: `  tako supervise --root /var/lib/tako
  tako supervise --root /var/lib/tako --listen 0.0.0.0:8065 -- --tls-cert tako.pem --tls-key tako.key`,
		RunE: func(cmd *cobra.Command, args []string) error {
			return supervise(cmd, root, args)
		},
	}
	defaults := config.Defaults()
	cmd.Flags().StringVar(&root, "root", "", "directory of versions, data and sockets")
	cmd.Flags().String("listen", defaults.Listen, "address to serve on")
	cmd.Flags().String("agent-listen", defaults.AgentListen, "address to serve agents on that poll for work, or off")
	return cmd
}

// refusedError is a supervisor that does not begin with these settings. Its exit code is none
// that a Go program ends with that has failed (2): that one is to be started again.
type refusedError struct{ error }

func (e *refusedError) Unwrap() error { return e.error }

// ExitCode tells systemd that a restart does not help.
func (*refusedError) ExitCode() int { return fault.ExitRefused }

func supervise(cmd *cobra.Command, root string, args []string) error {
	if root == "" {
		return usageError{fmt.Errorf("supervise needs --root DIR, the directory of versions, data and sockets")}
	}
	root, err := filepath.Abs(root)
	if err != nil {
		return usageError{err}
	}
	if err := refuseRoot(root); err != nil {
		return &refusedError{err}
	}
	flags := map[string]string{"data": filepath.Join(root, "data")}
	for _, name := range []string{"listen", "agent-listen"} {
		if f := cmd.Flags().Lookup(name); f.Changed {
			flags[name] = f.Value.String()
		}
	}
	cfg, err := config.Load("", addresses(os.Environ()), flags)
	if err != nil {
		return &refusedError{err}
	}
	server := []string{"server", "--data", cfg.Data, "--listen", cfg.Listen}
	sockets := map[string]string{app.SocketHTTP: cfg.Listen}
	if cfg.AgentListen == "" {
		server = append(server, "--agent-listen", "off")
	} else {
		server = append(server, "--agent-listen", cfg.AgentListen)
		sockets[app.SocketAgents] = cfg.AgentListen
	}
	log := logger(cfg, cmd.ErrOrStderr())
	attended, stop := context.WithCancel(cmd.Context())
	defer stop()
	go attendUpgrades(attended, root, args, log)
	return runSupervisor(cmd.Context(), supervisor.Config{
		Root: root, Addresses: sockets, Args: append(server, args...), Environ: os.Environ(),
		Stdout: os.Stdout, Stderr: os.Stderr, Log: log, First: func() error { return firstVersion(root) },
	}, cmd.OutOrStdout())
}

// addresses are the settings of the environment that a supervisor looks at; the others
// are the server's.
func addresses(environ []string) []string {
	own := []string{"TAKO_LISTEN", "TAKO_AGENT_LISTEN", "TAKO_LOG_LEVEL", "TAKO_LOG_FORMAT"}
	var out []string
	for _, pair := range environ {
		if name, _, _ := strings.Cut(pair, "="); slices.Contains(own, name) {
			out = append(out, pair)
		}
	}
	return out
}

// firstVersion installs this program where there is nothing yet.
func firstVersion(root string) error {
	if err := supervisor.Unused(root, version); err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	if err := supervisor.Install(root, version, exe); err != nil {
		return err
	}
	return supervisor.Begin(root, version)
}

func runSupervisor(ctx context.Context, cfg supervisor.Config, out io.Writer) error {
	if err := supervisor.Run(ctx, cfg); err != nil {
		return err
	}
	_, err := fmt.Fprintln(out, "Tako has stopped.")
	return err
}
