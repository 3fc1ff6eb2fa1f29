package reserve

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestQuota: who has all that a quota allows is one whose disk is full, whatever the file
// system tells.
func TestQuota(t *testing.T) {
	t.Parallel()
	dir := limited(t)
	r := New(dir, 4<<20, slog.New(slog.DiscardHandler))
	if made, err := r.make(t.Context()); err != nil || !made {
		t.Fatalf("the reserve was made: %t, %v", made, err)
	}
	if room, err := Spend(r.path); err != nil || room || !there(r.path) {
		t.Errorf("it is given up while there is room: %t, %v", room, err)
	}
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		if _, err = f.Write(make([]byte, 64<<10)); err == nil {
			err = f.Sync()
		}
	}
	if !errors.Is(err, unix.EDQUOT) || !Full(err) {
		t.Errorf("it is full: %v", err)
	}
	if room, err := Spend(r.path); err != nil || !room || there(r.path) {
		t.Errorf("there is room: %t, %v", room, err)
	}
	_, err = f.Write(make([]byte, 1<<20))
	if err = errors.Join(err, f.Sync()); err != nil {
		t.Error(err)
	}
	// What was given up is for others: there has to be room for it and as much beside it.
	r.had, r.given = false, true
	if made, err := r.make(t.Context()); made || !Full(err) || there(r.path) {
		t.Errorf("the reserve was made again: %t, %v", made, err)
	}
	if err := errors.Join(f.Truncate(0), f.Sync()); err != nil {
		t.Error(err)
	}
	if made, err := r.make(t.Context()); err != nil || !made || missing(r.path, r.size) != 0 {
		t.Errorf("the reserve was made again: %t, %v", made, err)
	}
	if info, err := os.Stat(r.path); err != nil || info.Size() != r.size {
		t.Errorf("it is %v, %v", info, err)
	}
}

// limited makes a file system of more room than its quota allows.
func limited(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	image := filepath.Join(t.TempDir(), "image")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 256<<20)); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"mkfs.btrfs", "-q", image},
		{"mount", "-o", "loop", image, dir},
		{"btrfs", "quota", "enable", dir},
		{"btrfs", "qgroup", "limit", "24M", dir},
	} {
		if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			if os.Getenv("CI") == "true" { // as disktest: nobody is to believe that it ran
				t.Fatalf("mount a file system with quotas: %v: %s", err, out)
			}
			t.Skipf("this test mounts a file system with quotas: %v: %s", err, out)
		}
		if command[0] == "mount" {
			t.Cleanup(func() {
				if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
		}
	}
	return dir
}
