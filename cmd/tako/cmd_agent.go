package main

import (
	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/agent/cli"
)

func agentCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "agent", Short: "The program that runs scripts on a machine",
		Long: `The agent runs scripts on a machine for servers that it trusts. They reach it on its port
(listening), or it asks them for work (polling). tako-agent is the same without a server
in it, for machines that are deployed to.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{&unknownCommandError{"tako agent", args[0]}}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(cli.Commands(cli.Program{Name: "tako agent", Prefix: []string{"agent"}, Version: version})...)
	return cmd
}
