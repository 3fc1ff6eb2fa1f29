package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/fault"
)

// TestServerWithoutDatabase: whoever starts a server can tell by its exit code that its
// database is away, and the version not to blame.
func TestServerWithoutDatabase(t *testing.T) {
	t.Parallel()
	var out, errOut bytes.Buffer
	code := execute([]string{
		"server", "--data", filepath.Join(t.TempDir(), "data"), "--listen", "127.0.0.1:0", "--agent-listen", "off",
		"--database", "postgres://tako@127.0.0.1:1/tako", // the port of nobody
	}, &out, &errOut)
	if code != fault.ExitUnavailable || !strings.Contains(errOut.String(), "127.0.0.1:1") {
		t.Errorf("it ended with %d and said: %s%s", code, &out, &errOut)
	}
}
