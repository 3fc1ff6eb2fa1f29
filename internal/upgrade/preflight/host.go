package preflight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/reserve"
)

// What an upgrade needs of a disk, as a share of the database's size: the copy on which
// the new version is tried, with room for what its migrations write, and the backup. The
// copy has all packages, artifacts and logs besides.
const (
	copyShare   = 1.2
	backupShare = 1.0
)

// stayFree is what is to be left of each disk, in bytes: the server goes on meanwhile.
const stayFree = 256 << 20

// theReserve is what the space of a reserve is for that is not there.
const theReserve = "the reserve for a full disk"

// leastFiles is how many files there must be room for on each disk.
const leastFiles = 1000

// volume is one file system and what is to be written to it.
type volume struct {
	dir     string
	purpose []string
	need    int64
	reserve.Space
}

// volumes are the file systems that an upgrade writes to.
func (x *examination) volumes(ctx context.Context) ([]volume, int64, error) {
	size, err := x.DB.Size(ctx)
	if err != nil {
		return nil, 0, err
	}
	content, err := contentSize(ctx, filepath.Join(x.Data, "blobs"))
	if err != nil {
		return nil, 0, err
	}
	staging := int64(0)
	if a, ok := x.artifact(); ok && x.Program == "" {
		staging = a.Size
	}
	var out []volume
	at := map[uint64]int{}
	for _, one := range []struct {
		dir, purpose string
		need         int64
	}{
		{x.Data, "a copy to try it on", int64(copyShare*float64(size)) + content},
		{x.Data, theReserve, reserve.Missing(x.Data)}, // the server makes it as soon as it can
		{x.Backups, "the backup", int64(backupShare * float64(size))},
		{x.Root, "the program", staging},
	} {
		if one.dir == "" || one.purpose == theReserve && one.need == 0 {
			continue
		}
		dir, err := existing(one.dir)
		if err != nil {
			return nil, 0, err
		}
		space, err := reserve.SpaceOf(dir)
		if err != nil {
			return nil, 0, fmt.Errorf("look at the space: %w", err)
		}
		i, known := at[space.Device]
		if !known {
			i = len(out)
			at[space.Device] = i
			out = append(out, volume{dir: dir, Space: space})
		}
		out[i].need += one.need
		out[i].purpose = append(out[i].purpose, one.purpose)
	}
	return out, size, nil
}

// contentSize adds up the packages, artifacts and logs. It only looks: to open their store
// would make one where there is none.
func contentSize(ctx context.Context, dir string) (sum int64, err error) {
	shards, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	for _, shard := range shards {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if !shard.IsDir() {
			continue // the store's lock
		}
		files, err := os.ReadDir(filepath.Join(dir, shard.Name()))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, err
		}
		for _, f := range files {
			if info, err := f.Info(); err == nil { // else it was just deleted
				sum += info.Size()
			}
		}
	}
	return sum, nil
}

// existing is a directory, or the one above it in which it will be made.
func existing(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir, err
		} else if !errors.Is(err, os.ErrNotExist) {
			return "", err
		}
		dir = filepath.Dir(dir)
	}
}

// disk looks whether there is room for what an upgrade writes: 2.2 times the database, all
// packages, artifacts and logs once more, and the program; some space is to be left.
func (x *examination) disk(ctx context.Context) error {
	all, size, err := x.volumes(ctx)
	if err != nil {
		return err
	}
	for _, v := range all {
		purpose := strings.Join(v.purpose, ", ")
		if v.Free < v.need+stayFree {
			x.say(Fail, "Make room, prune backups (tako backup prune), or move the directory to a larger disk.", "%s has %s free, and %s are needed for %s, with %s that stay free (the database has %s)", v.dir, backup.Size(v.Free), backup.Size(v.need+stayFree), purpose, backup.Size(stayFree), backup.Size(size))
			continue
		}
		x.say(OK, "", "%s has %s free, and %s are needed for %s, with %s that stay free", v.dir, backup.Size(v.Free), backup.Size(v.need+stayFree), purpose, backup.Size(stayFree))
	}
	return nil
}

// files looks whether there is room for more files.
func (x *examination) files(ctx context.Context) error {
	all, _, err := x.volumes(ctx)
	if err != nil {
		return err
	}
	for _, v := range all {
		switch {
		case v.Files == reserve.AnyNumber:
			x.say(OK, "", "%s does not limit the number of files", v.dir)
		case v.Files < leastFiles:
			x.say(Fail, "Delete files that nobody needs, or make the file system anew with more inodes.", "%s has room for %d files only, and %d are needed", v.dir, v.Files, leastFiles)
		default:
			x.say(OK, "", "%s has room for %d more files", v.dir, v.Files)
		}
	}
	return nil
}

// writable looks whether this process may write where an upgrade does, and whether
// `current` names a version that is there.
func (x *examination) writable(context.Context) error {
	dirs := []string{x.Data, x.Backups}
	if x.Root != "" {
		dirs = append(dirs, x.Root, filepath.Join(x.Root, "versions"), filepath.Join(x.Root, "upgrade"))
	}
	bad := false
	for _, dir := range dirs {
		at, err := existing(dir)
		if err != nil {
			return err
		}
		if err := unix.Faccessat(unix.AT_FDCWD, at, unix.W_OK|unix.X_OK, unix.AT_EACCESS); err != nil {
			bad = true
			x.say(Fail, "Give it to the user that the server runs as (chown), or mount it writable, and run this as that user.", "%s cannot be written to by user %d: %v", at, os.Geteuid(), err)
		}
	}
	if x.Root != "" {
		link := filepath.Join(x.Root, "current")
		target, err := os.Readlink(link)
		switch want := filepath.Join("versions", x.From); {
		case err != nil:
			bad = true
			x.say(Fail, "Name the supervisor's directory with --root.", "%s is no link to a version: %v", link, err)
		case filepath.Clean(target) != want && filepath.Clean(target) != filepath.Join(x.Root, want):
			bad = true
			x.say(Fail, "See `tako upgrade status`.", "%s names %s, and version %s runs", link, target, x.From)
		}
	}
	if !bad {
		x.say(OK, "", "%s", strings.Join(dirs, ", "))
	}
	return nil
}
