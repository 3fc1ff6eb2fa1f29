package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/daemon"
	"github.com/takodeploy/tako/internal/agent/instance"
)

func runCommand(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use: "run", Short: "Run an instance of the agent",
		Long: `Runs an instance of the agent until it is told to stop (SIGTERM, Ctrl-C). Scripts that
are running then go on; the next start has them back. There can be one process for each
instance.

With --builtin it is the worker of a server on the same host instead: the server starts
it by itself, and it outlives the server, so that scripts go on while the server is
restarted or upgraded.`,
		Example: "  " + p.Name + " run\n  " + p.Name + " run --instance web\n  " + p.Name + " run --builtin --home /var/lib/tako/worker",
	}
	name := instanceFlag(cmd.Flags())
	var builtin bool
	var home string
	var idle time.Duration
	cmd.Flags().BoolVar(&builtin, "builtin", false, "be the built-in worker of a server on this host")
	cmd.Flags().StringVar(&home, "home", "", "directory of the built-in worker")
	cmd.Flags().DurationVar(&idle, "idle", 0, "have the built-in worker end after this time without calls and scripts; 0 is never")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if builtin {
			if home == "" || cmd.Flags().Changed("instance") {
				return usage("--builtin needs --home, and no --instance")
			}
			handler, err := agent.LogHandler(home)
			if err != nil {
				return err
			}
			return agent.RunBuiltin(cmd.Context(), agent.Config{Home: home, Log: slog.New(handler), Version: p.Version, Idle: idle, LockWait: agent.HandOver})
		}
		if home != "" || idle != 0 {
			return usage("--home and --idle go with --builtin; the home of an instance is set by `%s configure --home`", p.Name)
		}
		store, err := open(*name)
		if err != nil {
			return err
		}
		handler := slog.Handler(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
		if daemon.IsService() { // which has no standard error
			set, err := store.Load(*name)
			if err != nil {
				return err
			}
			if handler, err = agent.LogHandler(set.Home); err != nil {
				return err
			}
		}
		o := instance.Options{Store: store, Name: *name, Version: p.Version, Log: slog.New(handler)}
		run := func(ctx context.Context) error { return instance.Live(ctx, o) }
		if daemon.IsService() {
			return daemon.Serve(cmd.Context(), serviceName(*name), run)
		}
		return run(cmd.Context())
	}
	return cmd
}

// serviceName is that of an instance's service.
func serviceName(name string) string {
	if strings.EqualFold(name, instance.DefaultName) {
		return "tako-agent"
	}
	return "tako-agent-" + strings.ToLower(name)
}

func serviceCommand(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use: "service", Short: "Have this machine run an instance as a service",
		Long: `Has this machine's service manager (systemd, on Windows the service control manager)
run an instance: from the machine's start, and again when it has ended.`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	one := func(use, short, long string, fn func(cmd *cobra.Command, store instance.Store, name string) error) *cobra.Command {
		sub := &cobra.Command{Use: use, Short: short, Long: long, Example: "  " + p.Name + " service " + use + "\n  " + p.Name + " service " + use + " --instance web"}
		name := instanceFlag(sub.Flags())
		sub.RunE = func(cmd *cobra.Command, _ []string) error {
			store, err := open(*name)
			if err != nil {
				return err
			}
			return fn(cmd, store, *name)
		}
		cmd.AddCommand(sub)
		return sub
	}
	say := func(cmd *cobra.Command, name, did string) error {
		_, err := fmt.Fprintf(cmd.OutOrStdout(), "The service %s %s.\n", serviceName(name), did)
		return err
	}
	var user string
	install := one("install", "Install an instance's service; it starts with the machine",
		"Installs an instance's service, which starts with the machine. One that is installed is\nreplaced. It does not start it now: `service start` does. Needs root.",
		func(cmd *cobra.Command, store instance.Store, name string) error {
			if err := installService(cmd.Context(), p, store, name, user); err != nil {
				return err
			}
			return say(cmd, name, "is installed")
		})
	install.Flags().StringVar(&user, "user", "", "account that the service and its scripts run as (default: root); it must own the instance's files")
	one("start", "Start an instance's service, or restart it", "Starts an instance's service, and restarts one that runs; scripts go on meanwhile.\nIt returns once the instance is ready.",
		func(cmd *cobra.Command, _ instance.Store, name string) error {
			if err := p.Services.Start(cmd.Context(), serviceName(name)); err != nil {
				return err
			}
			return say(cmd, name, "has started")
		})
	one("stop", "Stop an instance's service", "Stops an instance's service. Scripts that are running go on; the next start has them\nback.",
		func(cmd *cobra.Command, _ instance.Store, name string) error {
			if err := p.Services.Stop(cmd.Context(), serviceName(name)); err != nil {
				return err
			}
			return say(cmd, name, "has stopped")
		})
	var output *string
	status := one("status", "Tell what an instance's service does", "Tells what an instance's service does: running, stopped, failed or not installed.\nExits with 1 unless it is running.",
		func(cmd *cobra.Command, _ instance.Store, name string) error {
			return serviceStatus(cmd, p, name, *output)
		})
	output = outputFlag(status.Flags())
	one("uninstall", "Stop an instance's service and remove it", "Stops an instance's service and removes it. The instance itself stays.",
		func(cmd *cobra.Command, _ instance.Store, name string) error {
			if err := p.Services.Uninstall(cmd.Context(), serviceName(name)); err != nil {
				return err
			}
			return say(cmd, name, "is gone")
		})
	return cmd
}

// errNotRunning has the program say by its exit code that a service does not run.
var errNotRunning = errors.New("the service is not running")

// installService has the service run the program that is running.
func installService(ctx context.Context, p Program, store instance.Store, name, user string) error {
	set, err := store.Load(name)
	if err != nil {
		return err
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	s := daemon.Service{
		Name: serviceName(name), Description: "Tako agent, instance " + set.Name, Exe: exe, User: user,
		Args: append(append([]string{}, p.Prefix...), "run", "--instance", set.Name),
	}
	if !store.IsDefault() {
		s.Env = []string{instance.EnvDir + "=" + store.Dir}
	}
	return p.Services.Install(ctx, s)
}

func serviceStatus(cmd *cobra.Command, p Program, name, output string) error {
	state, err := p.Services.Status(cmd.Context(), serviceName(name))
	if err != nil {
		return err
	}
	err = printed(cmd, output, map[string]string{"Service": serviceName(name), "State": string(state)}, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "%s: %s\n", serviceName(name), state)
		return err
	})
	if err == nil && state != daemon.Running {
		err = errNotRunning
	}
	return err
}
