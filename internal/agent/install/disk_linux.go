package install

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/durable"
)

// freeSpace is how many bytes a process of this user may still write below a directory.
func freeSpace(dir string) (bytes uint64, known bool) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Bsize <= 0 {
		return 0, false
	}
	return st.Bavail * uint64(st.Bsize), true
}

// syncDisk makes durable what was written to the disk that holds a directory.
func syncDisk(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(f.Fd())), f.Close())
}

// syncDir makes the entries of a directory durable.
func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// lock takes the lock of a file, which ends with this process. waiting is called, once,
// when another one has it.
func lock(f *os.File, waiting func()) error {
	if err := durable.TryFlock(f, durable.Exclusive, durable.Moment); !errors.Is(err, durable.ErrLocked) {
		return err
	}
	waiting()
	return durable.Flock(f, durable.Exclusive)
}
