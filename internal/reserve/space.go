package reserve

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// Full reports whether an error is that of a write for which there was no room: the disk is
// full, or a quota has no more.
func Full(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// Free is how many bytes this process can still write to the file system of a directory,
// as that tells. A quota may have less.
func Free(dir string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	return int64(min(st.Bavail, 1<<40)) * st.Bsize, nil //nolint:gosec // no file system has more
}

// cramped reports whether not even a piece can be written to a directory, whatever its file
// system tells: few of them know of all quotas when they are asked for what is free.
func cramped(dir string) bool {
	f, err := os.CreateTemp(dir, "."+Name+"-*")
	if err != nil {
		return Full(err)
	}
	defer f.Close()
	_ = os.Remove(f.Name())
	if err = unix.Fallocate(int(f.Fd()), 0, 0, piece); errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		_, err = f.Write(make([]byte, piece))
	}
	return Full(err)
}
