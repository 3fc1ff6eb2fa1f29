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

// Space is what the file system of a directory has, as that tells. A quota may have less.
type Space struct {
	// Free is how many bytes this process can still write, Files for how many files there is
	// room: AnyNumber where a file system has no limit.
	Free, Files int64
	// Device tells file systems apart.
	Device uint64
}

// AnyNumber is for how many files there is room where they are not limited.
const AnyNumber = 1 << 62

// SpaceOf looks at the file system of a directory. The error is a *fs.PathError.
func SpaceOf(dir string) (Space, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return Space{}, &fs.PathError{Op: "statfs", Path: dir, Err: err}
	}
	var node unix.Stat_t
	if err := unix.Stat(dir, &node); err != nil {
		return Space{}, &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	s := Space{Free: int64(min(st.Bavail, 1<<40)) * st.Bsize, Files: AnyNumber, Device: node.Dev} //nolint:gosec // no file system has more
	if st.Files > 0 {
		s.Files = int64(min(st.Ffree, AnyNumber)) //nolint:gosec // at most that
	}
	return s, nil
}

// Free is how many bytes this process can still write to the file system of a directory.
func Free(dir string) (int64, error) {
	s, err := SpaceOf(dir)
	return s.Free, err
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
