// Command tako-agent is the agent alone: the program on a target, without the
// server.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/install"
)

// version is set by the linker.
var version = ""

func main() {
	if handled, code := agent.Internal(os.Args); handled {
		os.Exit(code)
	}
	if handled, code := install.Internal(os.Args); handled {
		os.Exit(code)
	}
	os.Exit(run(os.Args[1:]))
}

const usage = `usage:
  tako-agent run --builtin --home DIR   run scripts for a server on this machine
  tako-agent version                    print the version
`

func run(args []string) int {
	if len(args) > 0 && args[0] == "agent" { // the same words as "tako agent run"
		args = args[1:]
	}
	if len(args) == 0 {
		fmt.Fprint(os.Stderr, usage)
		return 2
	}
	switch args[0] {
	case "version", "--version":
		fmt.Fprintln(os.Stdout, programVersion())
		return 0
	case "run":
		if err := serve(args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "tako-agent:", err)
			return 1
		}
		return 0
	case "help", "--help", "-h":
		fmt.Fprint(os.Stdout, usage)
		return 0
	}
	fmt.Fprintf(os.Stderr, "tako-agent: unknown command %q\n%s", args[0], usage)
	return 2
}

func serve(args []string) error {
	flags := flag.NewFlagSet("run", flag.ContinueOnError)
	home := flags.String("home", "", "directory of the agent's files")
	builtin := flags.Bool("builtin", false, "answer over a socket below the home directory")
	idle := flags.Duration("idle", 0, "end after this time without work")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *home == "" || !*builtin || flags.NArg() > 0 {
		return fmt.Errorf("run needs --builtin and --home DIR, and takes no other arguments")
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	if handler, err := agent.LogHandler(*home); err == nil {
		log = slog.New(handler)
	}
	return agent.RunBuiltin(ctx, agent.Config{Home: *home, Version: programVersion(), Log: log, Idle: *idle, LockWait: agent.HandOver})
}

func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "0.0.0-dev"
}
