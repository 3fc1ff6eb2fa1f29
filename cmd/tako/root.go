package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes of every command.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // the command line itself is wrong
)

// usageError marks mistakes in the command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// execute runs one command line and returns its exit code.
func execute(args []string, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:   "tako",
		Short: "A deployment server: the same release, the same steps, from Dev to Production",
		Long: `Tako keeps a team's deployment model (projects, processes, variables, environments,
releases) and runs deployments as durable tasks. It serves a REST API that is
compatible with Octopus Deploy's.

Exit codes: 0 done, 1 failed, 2 wrong command line, 69 the database does not answer, or has
no room (of the server alone), 78 wrong configuration or database.`,
		SilenceUsage: true, SilenceErrors: true,
	}
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(serverCommand(), superviseCommand(), containerCommand(), installCommand(), uninstallCommand(), demoCommand(), adminCommand(), keyCommand(), backupCommand(), instanceCommand(), doctorCommand(), verifyCommand(), preflightCommand(), databaseCommand(), agentCommand(), upgradeCommand(), upgradeWorkerCommand(), releaseCommand(), routesCommand(), versionCommand())
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintln(errOut, "tako:", err)
	var coded interface{ ExitCode() int }
	var usage usageError
	switch {
	case errors.As(err, &coded):
		return coded.ExitCode()
	case errors.As(err, &usage):
		fmt.Fprintln(errOut, "Run 'tako --help' for the commands and their flags.")
		return exitUsage
	default:
		return exitFailed
	}
}
