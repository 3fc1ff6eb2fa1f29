//go:build linux

package proctest_test

import (
	"bufio"
	"os/exec"
	"testing"

	"github.com/takodeploy/tako/internal/proctest"
)

func TestEnd(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	// A tree whose first process is gone; the second is known by its directory only.
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-c", "(cd "+dir+"; env -i sleep 600 >/dev/null 2>&1 & echo begun); exec true")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := len(proctest.Of(dir)); n != 1 {
		t.Fatalf("%d processes are left", n)
	}
	proctest.End(t, dir)
	if left := proctest.Of(dir); len(left) > 0 {
		t.Errorf("processes %v live on", left)
	}
}
