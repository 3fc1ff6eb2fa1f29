// Command tako-agent is the agent alone: the program on a target, without the
// server.
package main

import (
	"os"
	"runtime/debug"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/cli"
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
	args := os.Args[1:]
	if len(args) > 0 && args[0] == "agent" { // the same words as "tako agent run"
		args = args[1:]
	}
	os.Exit(cli.Main(cli.Program{Name: "tako-agent", Version: programVersion()}, args, os.Stdout, os.Stderr))
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
