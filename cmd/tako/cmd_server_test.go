package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/fault"
)

// TestServerWithoutDatabase: whoever starts a server, or asks whether one could work, can
// tell by the exit code that the database is away, and the version not to blame.
func TestServerWithoutDatabase(t *testing.T) {
	t.Parallel()
	for _, command := range [][]string{{"server", "--listen", "127.0.0.1:0", "--agent-listen", "off"}, {"database", "check"}} {
		var out, errOut bytes.Buffer
		code := execute(append(command,
			"--data", filepath.Join(t.TempDir(), "data"),
			"--database", "postgres://tako@127.0.0.1:1/tako", // the port of nobody
		), &out, &errOut)
		if code != fault.ExitUnavailable || !strings.Contains(errOut.String(), "127.0.0.1:1") {
			t.Errorf("%q ended with %d and said: %s%s", command, code, &out, &errOut)
		}
	}
}

// TestSupervisorWithWrongSettings: a supervisor that its settings keep from beginning is not
// to be started again, unlike one that crashes, which is exit code 2 of any Go program.
func TestSupervisorWithWrongSettings(t *testing.T) {
	t.Parallel()
	var out, errOut strings.Builder
	code := execute([]string{"supervise", "--root", t.TempDir(), "--listen", "nowhere"}, &out, &errOut)
	if code != fault.ExitRefused || !strings.Contains(errOut.String(), "nowhere") {
		t.Errorf("exit code %d\n%s", code, errOut.String())
	}
}
