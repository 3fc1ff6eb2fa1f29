package proctest

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

// Copies makes copies of all descriptors that this process has of a file, as a child has
// them while it is being forked, until end is called. It fails the test when there are none.
func Copies(t testing.TB, path string) (end func()) {
	t.Helper()
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		t.Fatal(err)
	}
	own, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var copies []int
	for _, e := range own {
		fd, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if target, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd)); err != nil || target != path {
			continue // it may be closed by now
		}
		if copied, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			copies = append(copies, copied)
		}
	}
	if len(copies) == 0 {
		t.Fatalf("this process does not have %s open", path)
	}
	return func() {
		for _, fd := range copies {
			_ = unix.Close(fd) // nobody else has the number
		}
	}
}
