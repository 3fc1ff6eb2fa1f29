package main

import (
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/agent"
)

func agentCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "agent", Short: "The program that runs scripts on a machine"}
	var builtin bool
	var home string
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
			return agent.RunBuiltin(cmd.Context(), agent.Config{Home: home, Log: slog.New(handler), Version: version})
		},
	}
	run.Flags().BoolVar(&builtin, "builtin", false, "be the built-in worker of a server on this host")
	run.Flags().StringVar(&home, "home", "", "directory of the agent")
	if err := run.MarkFlagRequired("home"); err != nil {
		run.RunE = func(*cobra.Command, []string) error { return err }
	}
	cmd.AddCommand(run)
	return cmd
}
