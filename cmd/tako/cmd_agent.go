package main

import (
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/agent"
)

func agentCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "agent", Short: "The program that runs scripts on a machine"}
	var builtin bool
	var home string
	var idle time.Duration
	run := &cobra.Command{
		Use: "run", Short: "Run the agent", Args: cobra.NoArgs,
		Long: `Runs the agent. With --builtin it is the worker of a server on the same host: the
server starts it by itself, and it outlives the server, so that scripts go on while
the server is restarted or upgraded.`,
		Example: "  tako agent run --builtin --home /var/lib/tako/worker",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !builtin {
				return usageError{errBuiltinOnly}
			}
			handler, err := agent.LogHandler(home)
			if err != nil {
				return err
			}
			return agent.RunBuiltin(cmd.Context(), agent.Config{Home: home, Log: slog.New(handler), Version: version, Idle: idle, LockWait: agent.HandOver})
		},
	}
	run.Flags().BoolVar(&builtin, "builtin", false, "be the built-in worker of a server on this host")
	run.Flags().StringVar(&home, "home", "", "directory of the agent")
	run.Flags().DurationVar(&idle, "idle", 0, "end after this time without calls and scripts; 0 is never")
	if err := run.MarkFlagRequired("home"); err != nil {
		run.RunE = func(*cobra.Command, []string) error { return err }
	}
	cmd.AddCommand(run)
	return cmd
}
