// Package reserve keeps some space of a disk for the moment in which that is full: a file
// that is really allocated, and given up once, so that the database and the journal of
// upgrades can still commit while somebody makes room.
//
// Whoever meets the full disk gives the reserve up (Spend), in whatever process; the server
// makes it again when there is room (Keep). What only adds bulk, such as packages, is to
// look at Spent, so that it does not take what was given up for others.
package reserve

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/durable"
)

const (
	// Size of a server's reserve, in bytes. It is also what is to stay free beside it: with
	// less room than twice that none is made.
	Size = 64 << 20
	// Name of the file in the data directory, and of the link to it beside the journal of
	// upgrades.
	Name = "reserve"

	// every is how often it is looked whether the reserve is there.
	every = 5 * time.Second
	// piece is what is written at once where space cannot be allocated otherwise.
	piece = 1 << 20
)

// Path is where a data directory has its reserve.
func Path(data string) string { return filepath.Join(data, Name) }

// Missing is how many bytes of a data directory's reserve are still to be made, 0 when it
// is whole.
func Missing(data string) int64 { return missing(Path(data), Size) }

func missing(path string, size int64) int64 {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return size
	}
	return max(0, size-min(st.Size, 512*st.Blocks)) // a copy of it may be sparse
}

// Spend gives up the reserve at path, or what a link there names, if its file system or a
// quota has no more room than that, and reports whether there is room now: also when another
// process has just made it. A full disk that is another one's is left to others.
func Spend(path string) (room bool, err error) {
	dir := filepath.Dir(path)
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path, dir = target, filepath.Dir(target)
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return left(dir)
	}
	if err == nil {
		room, err = give(f, path, dir)
	}
	if err != nil {
		return false, fmt.Errorf("give up the reserve: %w", err)
	}
	return room, nil
}

// left reports whether a reserve that is not there has left room.
func left(dir string) (bool, error) {
	free, err := Free(dir)
	return err == nil && free >= piece && free <= Size, err
}

// give gives up a reserve that is open, and closes it. Of several that meet the full disk
// at once the later ones wait for the first, as the space is not free before the name has
// gone by itself, nor must they take what it has made free for that of a disk with room.
func give(f *os.File, path, dir string) (room bool, err error) {
	if err := durable.Flock(f, durable.Exclusive); err != nil {
		return false, errors.Join(err, f.Close())
	}
	defer func() { err = errors.Join(err, durable.Release(f)) }()
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	free, err := Free(dir)
	switch {
	case err != nil:
		return false, err
	case info.Size() == 0:
		return left(dir)
	case free > info.Size() && !cramped(dir):
		return false, nil // that is not what is missing
	}
	// Without content before without a name: whoever finds none finds the space. Where that
	// fails the removal does it as well.
	if f.Truncate(0) == nil {
		_ = f.Sync()
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	// Some file systems give the space out only when the removal is durable.
	return true, durable.SyncDir(dir)
}

// Reserve is that of a server. It is safe for concurrent use.
type Reserve struct {
	path  string
	size  int64
	log   *slog.Logger
	spent atomic.Bool
	look  chan struct{}

	// had says that the reserve was there when it was last looked for, and given that it
	// was given up since and not made again. Keep alone has them.
	had, given bool

	// fallocate is the system's, but for tests.
	fallocate func(fd int, mode uint32, off, size int64) error
}

// New is the reserve of a data directory, with a size in bytes, as it is found; Keep
// makes it.
func New(data string, size int64, log *slog.Logger) *Reserve {
	r := &Reserve{path: Path(data), size: size, log: log, look: make(chan struct{}, 1), fallocate: unix.Fallocate}
	r.had = r.found() // a start may give it up before it is kept
	return r
}

// found reports whether there is a reserve, of which space may be missing.
func (r *Reserve) found() bool {
	info, err := os.Stat(r.path)
	return err == nil && info.Size() > 0 || err != nil && !errors.Is(err, fs.ErrNotExist)
}

// Spent reports whether the reserve was given up and not made again yet, or cannot be made
// while less than its size is free.
func (r *Reserve) Spent() bool { return r.spent.Load() }

// Spend gives the reserve up, as the function Spend does.
func (r *Reserve) Spend() (room bool) {
	room, err := Spend(r.path)
	if err != nil {
		r.log.Error("the disk is full, and its reserve could not be given up", "err", err)
	}
	if room {
		select {
		case r.look <- struct{}{}: // Keep tells
		default:
		}
	}
	return room
}

// Keep makes the reserve and looks after it until ctx ends. told is called when it is
// found given up, by whatever process, until it succeeds.
func (r *Reserve) Keep(ctx context.Context, told func(ctx context.Context) error) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var owed, refused bool // whether told is to be called, and it was said that there is no room
	for {
		if r.had && !r.found() {
			r.had, r.given, owed = false, true, true
			r.spent.Store(true)
			r.log.Error("the disk of the data directory is full, and its reserve was given up so that the server can go on: free some space now", "reserve", r.path, "bytes", r.size)
		}
		made, err := r.make(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && !refused:
			refused = true
			r.log.Warn("there is no reserve for a full disk; it is tried again", "reserve", r.path, "err", err)
		case err == nil && made:
			if r.spent.Swap(false) {
				r.log.Info("there is room again, and the reserve was made anew", "reserve", r.path)
			}
			r.had, r.given, refused = true, false, false
		}
		if owed {
			if err := told(ctx); err == nil {
				owed = false
			} else if ctx.Err() == nil {
				r.log.Warn("tell of the full disk; it is tried again", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case <-r.look:
		}
	}
}

// errNoRoom says that the reserve would take what others need.
var errNoRoom = errors.New("the disk has no room for it")

// make makes the reserve, unless it is there, and reports whether it is now.
func (r *Reserve) make(ctx context.Context) (made bool, err error) {
	lacks := missing(r.path, r.size)
	if lacks == 0 {
		return true, nil
	}
	free, err := Free(filepath.Dir(r.path))
	if err != nil {
		return false, err
	}
	if free < lacks+r.size {
		// Where it was not given up by anybody whom this process has seen, what is free counts.
		r.spent.Store(r.given || free < r.size)
		return false, fmt.Errorf("%w: %d bytes are free, and %d are needed", errNoRoom, free, lacks+r.size)
	}
	lock, err := durable.TryLock(r.path)
	if errors.Is(err, durable.ErrLocked) {
		return false, nil // another server makes it
	}
	if err != nil {
		return false, err
	}
	if err = r.allocate(ctx, lock.File()); err != nil {
		err = errors.Join(fmt.Errorf("make the reserve: %w", err), os.Remove(r.path))
	}
	made = err == nil && r.holds(lock.File())
	err = errors.Join(err, lock.Unlock())
	return made && err == nil, err
}

// holds reports whether the reserve is this file. Somebody may have given it up between its
// being opened and its being locked.
func (r *Reserve) holds(f *os.File) bool {
	named, err := os.Stat(r.path)
	if err != nil {
		return false
	}
	own, err := f.Stat()
	return err == nil && os.SameFile(named, own)
}

// allocate gives a file its size and its space: at once where the file system can do that,
// and else by writing what cannot be compressed.
func (r *Reserve) allocate(ctx context.Context, f *os.File) error {
	size := r.size
	if r.given {
		size *= 2 // is there a quota, only that tells whether as much stays free
	}
	var err error = unix.EINTR
	for errors.Is(err, unix.EINTR) {
		err = r.fallocate(int(f.Fd()), 0, 0, size)
	}
	if err == nil {
		return errors.Join(f.Truncate(r.size), f.Sync())
	}
	if !errors.Is(err, unix.EOPNOTSUPP) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	if info, err := f.Stat(); err != nil || info.Size() == r.size {
		return err // it tells of fewer blocks than it has
	}
	var seed [32]byte
	noise, content := rand.NewChaCha8(seed), make([]byte, min(piece, r.size))
	for at := int64(0); at < r.size; at += int64(len(content)) {
		if err := ctx.Err(); err != nil {
			return err
		}
		_, _ = noise.Read(content) // it never fails
		if _, err := f.WriteAt(content[:min(int64(len(content)), r.size-at)], at); err != nil {
			return err
		}
	}
	return f.Sync()
}
