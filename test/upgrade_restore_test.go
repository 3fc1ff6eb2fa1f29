package test

import (
	"os"
	"os/exec"
	"strings"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/octopus"
)

// wayBack asserts that one cannot go back without a restore, and is told why, what that
// would lose, and the commands that it takes.
func (u *upgraded) wayBack(says string) (commands []string) {
	u.t.Helper()
	out, code := runProgram(u.t, u.Executable(u.t), u.Env, "", u.args("rollback")...)
	for _, want := range []string{says, "which loses 0 deployments, and whatever else was written, since 20"} {
		if code != 1 || !strings.Contains(out, want) {
			u.t.Fatalf("it does not say %q: exit code %d\n%s", want, code, out)
		}
	}
	for line := range strings.Lines(out) {
		if command, ok := strings.CutPrefix(line, "  "); ok {
			commands = append(commands, strings.TrimSpace(command))
		}
	}
	if n := len(commands); n != 4 || commands[0] != "systemctl stop tako" || commands[n-1] != "systemctl start tako" {
		u.t.Fatalf("the commands are %q", commands)
	}
	return commands
}

// goBack does what wayBack says.
func (u *upgraded) goBack(commands []string) {
	u.t.Helper()
	u.Stop()
	for _, command := range commands[1 : len(commands)-1] {
		cmd := exec.CommandContext(u.t.Context(), "/bin/sh", "-c", command)
		cmd.Env = append(os.Environ(), u.Env...)
		if out, err := cmd.CombinedOutput(); err != nil {
			u.t.Fatalf("%s: %v\n%s", command, err, out)
		}
	}
	u.Start()
	u.serves(u.old)
}

// all are the names of the server's environments.
func (u *upgraded) all() (names []string) {
	u.t.Helper()
	for _, e := range apptest.Get[[]octopus.Environment](u.t, u.Client, "/api/Spaces-1/environments/all") {
		names = append(names, e.Name)
	}
	return names
}
