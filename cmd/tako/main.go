// Command tako is the server, its command line and, on Linux, its agent.
package main

import (
	"os"
	_ "time/tzdata" // schedules name time zones, and not every host has them

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/install"
	"github.com/takodeploy/tako/internal/setup"
)

func main() {
	if handled, code := agent.Internal(os.Args); handled {
		os.Exit(code)
	}
	if handled, code := install.Internal(os.Args); handled {
		os.Exit(code)
	}
	if handled, code := setup.Internal(os.Args); handled {
		os.Exit(code)
	}
	os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr))
}
