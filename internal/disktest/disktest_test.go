//go:build linux

package disktest_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/disktest"
)

// TestSmall: a small file system is full when it says so, has room when it has grown, and is
// gone after the test.
func TestSmall(t *testing.T) {
	t.Parallel()
	var dir string
	t.Run("has it", func(t *testing.T) { //nolint:paralleltest // what it leaves is looked at after it
		dir = disktest.New(t, "size=64k")
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, make([]byte, 65<<10), 0o600); !errors.Is(err, unix.ENOSPC) {
			t.Errorf("more than it has room for: %v", err)
		}
		if err := disktest.Resize(dir, "size=128k"); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, make([]byte, 65<<10), 0o600); err != nil {
			t.Error(err)
		}
		if err := disktest.Resize(dir, "size=64k"); !errors.Is(err, unix.EINVAL) {
			t.Errorf("less than is taken: %v", err)
		}
	})
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s is there: %v", dir, err)
	}
}

// TestRemove: the space of a file is there again although somebody has it open.
func TestRemove(t *testing.T) {
	t.Parallel()
	dir := disktest.New(t, "size=64k")
	path := filepath.Join(dir, "file")
	for range 2 {
		if err := os.WriteFile(path, make([]byte, 60<<10), 0o600); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := disktest.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
}
