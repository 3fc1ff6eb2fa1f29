package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/reserve"
)

const (
	// leastSpace is what a server needs free to go on, in bytes; below it, it is an error.
	leastSpace = 64 << 20
	// leastFiles is how many files there must be room for.
	leastFiles = 1000
)

// machine looks at the space on the disks. What is kept in reserve does not count as free.
func (x *examination) machine(ctx context.Context) error {
	size, err := x.DB.Size(ctx)
	if err != nil {
		return err
	}
	seen := map[uint64]bool{}
	for _, dir := range []string{x.Data, x.Backups} {
		space, err := reserve.SpaceOf(dir)
		if errors.Is(err, unix.ENOENT) || dir == "" {
			continue
		}
		if err != nil {
			return fmt.Errorf("look at the space: %w", err)
		}
		if seen[space.Device] {
			continue
		}
		seen[space.Device] = true
		free := space.Free
		f := Finding{Code: "disk-low", Where: dir, Remedy: "Make room, or move the directory to a larger disk."}
		switch {
		case free < leastSpace:
			f.Severity, f.What = Error, fmt.Sprintf("%s are free, and a server needs %s", backup.Size(free), backup.Size(leastSpace))
		case x.DB.Dialect() == db.SQLite && free < size+leastSpace:
			f.Severity, f.What = Warning, fmt.Sprintf("%s are free, which is no room for a backup of the database (%s)", backup.Size(free), backup.Size(size))
		case space.Files < leastFiles:
			f.Severity, f.What = Warning, fmt.Sprintf("There is room for %d files only", space.Files)
		default:
			continue
		}
		x.add(f)
	}
	return x.reserve()
}

// reserve looks whether what is given up when the disk is full is there. A server makes it
// by itself where there is room.
func (x *examination) reserve() error {
	lacks := reserve.Missing(x.Data)
	if lacks == 0 {
		return nil
	}
	free, err := reserve.Free(x.Data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // there is no data directory here
	}
	if err != nil {
		return err
	}
	if free < lacks+reserve.Size {
		x.add(Finding{
			Severity: Warning, Code: "reserve-missing", Where: reserve.Path(x.Data),
			What:   "The disk is or was full: the file that is given up then is not there, and the next time the server cannot write at all",
			Remedy: fmt.Sprintf("Have %s free; the server makes it again by itself.", backup.Size(lacks+reserve.Size)),
		})
	}
	return nil
}

// files looks who may read the data, and whether something was left half-done.
func (x *examination) files(context.Context) error {
	if half, err := backup.Pending(x.Data); err != nil {
		return err
	} else if half != "" {
		x.add(Finding{Severity: Error, Code: "restore-open", Where: x.Data, What: "The restore of backup " + half + " was cut short", Remedy: "End it: tako backup restore " + half})
	}
	owner := -1
	for _, one := range []struct {
		path   string
		secret bool
	}{
		{x.Data, true},
		{filepath.Join(x.Data, "tako.db"), true},
		{filepath.Join(x.Data, "tako.db-wal"), true},
		{filepath.Join(x.Data, "tako.db-shm"), true},
		{filepath.Join(x.Data, "master.key"), true},
		{x.KeyFile, false},
		{filepath.Join(x.Data, "blobs"), true},
		{filepath.Join(x.Data, "run"), true},
		{filepath.Join(x.Data, "tmp"), true},
		{filepath.Join(x.Data, "worker"), true},
		{x.Backups, true},
	} {
		if one.path == "" {
			continue
		}
		info, err := os.Stat(one.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		x.check.Looked++
		if err := x.mode(one.path, info, one.secret); err != nil {
			return err
		}
		var st unix.Stat_t
		if err := unix.Stat(one.path, &st); err != nil {
			return err
		}
		switch {
		case owner < 0:
			owner = int(st.Uid)
		case int(st.Uid) != owner && one.secret:
			x.add(Finding{
				Severity: Warning, Code: "owner-differs", Where: one.path, What: fmt.Sprintf("It belongs to user %d, and %s to user %d", st.Uid, x.Data, owner),
				Remedy: "Give all of it to the user that the server runs as (chown).",
			})
		}
	}
	return nil
}

// mode looks at the permissions of a file. A key that an administrator keeps elsewhere
// may be read by a group.
func (x *examination) mode(path string, info fs.FileInfo, strict bool) error {
	open := info.Mode().Perm() & 0o077
	if !strict {
		open = info.Mode().Perm() & 0o007
	}
	if open == 0 {
		return nil
	}
	f := Finding{
		Severity: Warning, Code: "permissions", Where: path, What: fmt.Sprintf("Other users of this machine may use it (%04o)", info.Mode().Perm()),
		Remedy: "tako doctor --fix takes that away, or: chmod go= " + path,
	}
	if info.Name() == "master.key" || path == x.KeyFile {
		f.Severity = Error
	}
	if within, err := filepath.Rel(x.Data, path); err != nil || !filepath.IsLocal(within) {
		f.Remedy = "Take that away, if it is not on purpose: chmod o= " + path
		x.add(f) // not ours
		return nil
	}
	x.mend(f, func() (string, error) {
		mode := info.Mode().Perm() &^ 0o077
		return fmt.Sprintf("set it to %04o", mode), os.Chmod(path, mode)
	})
	return nil
}
