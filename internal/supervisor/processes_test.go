package supervisor_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/supervisor"
)

// TestProcesses: whoever runs a version of a root is found by any name of the root, also when
// the version has been removed, and nobody who runs one of another root is.
func TestProcesses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	root, other, alias := filepath.Join(dir, "root"), filepath.Join(dir, "other"), filepath.Join(dir, "alias")
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	started := func(path ...string) *exec.Cmd {
		program := filepath.Join(path...)
		if err := os.MkdirAll(filepath.Dir(program), 0o700); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.CommandContext(t.Context(), "cp", cat, program).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		cmd := exec.CommandContext(context.WithoutCancel(t.Context()), program) // it reads until it is ended
		in, err := cmd.StdinPipe()
		if err == nil {
			err = cmd.Start() // when it returns the program runs
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := errors.Join(in.Close(), cmd.Wait()); err != nil {
				t.Error(err)
			}
		})
		return cmd
	}
	one := started(root, "versions", "2026.5.0", "tako")
	started(root, "versions", "2026.5.0", "deeper", "tako")
	started(root, "bin", "tako")
	started(other, "versions", "2026.5.0", "tako")
	if err := os.Symlink(root, alias); err != nil {
		t.Fatal(err)
	}
	want := []supervisor.Process{{PID: one.Process.Pid, Version: "2026.5.0"}}
	for _, name := range []string{root, alias} {
		if got, err := supervisor.Processes(name); err != nil || !cmp.Equal(want, got) {
			t.Errorf("by the name %s: %v, %v", name, got, err)
		}
	}
	if err := os.RemoveAll(filepath.Join(root, "versions")); err != nil {
		t.Fatal(err)
	}
	if got, err := supervisor.Processes(root); err != nil || !cmp.Equal(want, got) {
		t.Errorf("without the version: %v, %v", got, err)
	}
	if got, err := supervisor.Processes(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of no root: %v, %v", got, err)
	}
}
