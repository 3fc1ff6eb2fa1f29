//go:build linux

// Package disktest gives tests small file systems of their own, which they may fill. Only
// root may mount one: elsewhere such a test is skipped, but with CI=true in the environment it
// fails, so that nobody believes that it ran.
package disktest

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// New makes a small file system that lasts as long as the test. Options are those of tmpfs:
// size=8m has room for eight MiB, and takes memory for what is in it alone.
func New(t testing.TB, options string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	Mount(t, dir, 0, options)
	return dir
}

// Mount does the same at a directory that is there, with flags of mount(2). What is to
// happen before it is gone is a Cleanup that is registered later.
func Mount(t testing.TB, dir string, flags uintptr, options string) {
	t.Helper()
	if err := unix.Mount("tmpfs", dir, "tmpfs", flags, options); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("mount a small file system at %s: %v", dir, err)
		}
		t.Skipf("this test mounts a small file system: %v", err)
	}
	t.Cleanup(func() {
		// Somebody may still be in it, who is not to fail the test.
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
}

// Resize changes the options of a file system. It fails when less is asked for than is taken.
func Resize(dir, options string) error {
	return os.NewSyscallError("mount", unix.Mount("tmpfs", dir, "tmpfs", unix.MS_REMOUNT, options))
}

// Remove removes a file and gives its space back at once. A process that was just forked still
// has what is open in this one, and whose name alone is gone would take the space until then.
func Remove(path string) error {
	if err := os.Truncate(path, 0); err != nil {
		return err
	}
	return os.Remove(path)
}
