// Package cli is the agent's command line: configuring instances of it, registering
// them with servers, running them, and having the machine run them as services. It is
// the same in the server's program, below `tako agent`, and in the agent's own.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/takodeploy/tako/internal/agent/daemon"
	"github.com/takodeploy/tako/internal/agent/instance"
)

// Exit codes of every command.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2 // the command line itself is wrong
)

// Program is the one that has these commands.
type Program struct {
	// Name is how people call it: "tako agent".
	Name string
	// Prefix are the words between the program's file and a command: "agent".
	Prefix  []string
	Version string
	// Services is where services are installed; the zero value is this machine.
	Services daemon.Manager
}

// UsageError marks mistakes in the command line.
type UsageError struct{ Err error }

// Error is what is wrong, and how it is put right.
func (e *UsageError) Error() string { return e.Err.Error() }

// Unwrap returns the error.
func (e *UsageError) Unwrap() error { return e.Err }

// ExitCode is that of the program.
func (*UsageError) ExitCode() int { return exitUsage }

func usage(format string, args ...any) error { return &UsageError{fmt.Errorf(format, args...)} }

// bad says what is wrong with a flag's value, and the remedy.
func bad(flag, value, remedy string) error { return usage("--%s %q: %s", flag, value, remedy) }

// Commands are the agent's.
func Commands(p Program) []*cobra.Command {
	all := []*cobra.Command{
		installCommand(p), configureCommand(p), registerCommand(p, false), registerCommand(p, true), pollServerCommand(p), deregisterCommand(p),
		runCommand(p), runBundleCommand(p), serviceCommand(p), showThumbprintCommand(p), listInstancesCommand(p), deleteInstanceCommand(p), selfTestCommand(p),
	}
	for _, cmd := range all {
		complete(cmd)
	}
	return all
}

// complete gives a command what all have.
func complete(cmd *cobra.Command) {
	cmd.Flags().SetNormalizeFunc(normalize)
	if cmd.RunE != nil && cmd.Args == nil {
		cmd.Args = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("%s takes no argument %q; what it is told stands in flags, see --help", cmd.Name(), args[0])
			}
			return nil
		}
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage("%w; `%s --help` lists the flags", err, cmd.CommandPath())
	})
	for _, sub := range cmd.Commands() {
		complete(sub)
	}
}

// normalize lets flags be written as others write them: without dashes between words,
// in any case, and by some other names.
func normalize(_ *pflag.FlagSet, name string) pflag.NormalizedName {
	key := strings.ToLower(strings.ReplaceAll(name, "-", ""))
	switch key {
	case "env":
		return "environment"
	case "tag":
		return "role"
	case "bearertoken":
		return "token"
	case "removetrust":
		return "distrust"
	}
	for known := range strings.FieldsSeq(spelt) {
		if strings.ReplaceAll(known, "-", "") == key {
			return pflag.NormalizedName(known)
		}
	}
	return pflag.NormalizedName(name)
}

// spelt are the flags of more than one word.
const spelt = `listen-address no-listen api-key api-key-file token-file password-file tenant-tag
	tenanted-deployment-participation worker-pool comms-style public-host-name tentacle-comms-port
	server-comms-port server-comms-address server-proxy keep-trust no-service`

// Main runs a program that has nothing but these commands, and returns its exit code.
func Main(p Program, args []string, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use: p.Name, Short: "Runs scripts on this machine for deployment servers",
		Long: `The agent runs scripts on this machine for deployment servers that it trusts. They
reach it on its port (listening), or it asks them for work (polling).

Exit codes: 0 done, 1 failed, 2 wrong command line.`,
		Example:      "  " + p.Name + " install --server https://tako.example.com --token tako-register-...\n  " + p.Name + " list-instances",
		SilenceUsage: true, SilenceErrors: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usage("there is no command %q; `%s --help` lists those there are", args[0], p.Name)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	version := &cobra.Command{
		Use: "version", Short: "Print the version",
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), p.Version)
			return err
		},
	}
	complete(version)
	root.AddCommand(append(Commands(p), version)...)
	root.Version = p.Version
	root.SetVersionTemplate("{{.Version}}\n")
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage("%w; see --help", err) })
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(errOut, "%s: %v\n", p.Name, err)
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		return coded.ExitCode()
	}
	return exitFailed
}

// instanceFlag names the instance that a command is for.
func instanceFlag(flags *pflag.FlagSet) *string {
	return flags.String("instance", instance.DefaultName, "name of the instance, where the machine has several")
}

// open finds the store and checks the name.
func open(name string) (instance.Store, error) {
	if err := instance.CheckName(name); err != nil {
		return instance.Store{}, usage("--instance: %w", err)
	}
	return instance.DefaultStore()
}

// outputFlag chooses between people and programs.
func outputFlag(flags *pflag.FlagSet) *string {
	return flags.String("output", "table", "form of what is printed: table or json")
}

// printed writes v as JSON, or has table write it for people.
func printed(cmd *cobra.Command, output string, v any, table func(w io.Writer) error) error {
	switch output {
	case "table":
		return table(cmd.OutOrStdout())
	case "json":
		e := json.NewEncoder(cmd.OutOrStdout())
		e.SetIndent("", "  ")
		return e.Encode(v)
	default:
		return bad("output", output, "give table or json")
	}
}
