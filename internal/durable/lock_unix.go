//go:build unix

package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another process holds a lock.
var ErrLocked = errors.New("another process holds the lock")

// Moment is how long a lock has to stay held to count as such. A process that is just being
// forked holds copies of its parent's locks until its execve, also when the parent is
// killed meanwhile.
const Moment = 32 * time.Millisecond

// Mode says who else may have a lock at the same time.
type Mode int

// The modes.
const (
	Shared    Mode = unix.LOCK_SH // with others that share it
	Exclusive Mode = unix.LOCK_EX // nobody
)

// Flock takes the lock of an open file as soon as it is free. Whoever gets a copy of the
// descriptor holds it as well; Release gives it back for all of them.
func Flock(f *os.File, how Mode) error { return flock(f, int(how)) }

// TryFlock takes the lock of an open file, or fails with ErrLocked when somebody holds it
// for longer than patience: Moment for whoever says so to others, 0 for one look.
func TryFlock(f *os.File, how Mode, patience time.Duration) error {
	for pause := patience / 32; ; pause *= 2 {
		err := flock(f, int(how)|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return err
		}
		if patience <= 0 {
			return ErrLocked
		}
		pause = max(min(pause, patience), time.Microsecond)
		time.Sleep(pause)
		patience -= pause
	}
}

// Unflock gives the lock of an open file back.
func Unflock(f *os.File) error { return flock(f, unix.LOCK_UN) }

// Release gives the lock of an open file back and closes it. Closing alone would not do
// while a child that is just being forked has a copy.
func Release(f *os.File) error { return errors.Join(Unflock(f), f.Close()) }

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Lock is the exclusive lock of a file. It ends with the process that holds it, and
// with every process that got a copy of its descriptor.
type Lock struct{ f *os.File }

// Wait takes the lock of a file, which it makes if there is none, as soon as it is free.
func Wait(path string) (*Lock, error) {
	return lock(path, func(f *os.File) error { return Flock(f, Exclusive) })
}

// TryLock takes the lock of a file, which it makes if there is none, or fails with
// ErrLocked when somebody holds it for longer than a Moment.
func TryLock(path string) (*Lock, error) {
	return lock(path, func(f *os.File) error { return TryFlock(f, Exclusive, Moment) })
}

func lock(path string, take func(*os.File) error) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := take(f); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return &Lock{f}, nil
}

// Held reports whether a process holds the lock of a file for longer than a Moment. One that
// is not there is held by nobody.
func Held(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = TryFlock(f, Shared, Moment)
	if errors.Is(err, ErrLocked) {
		return true, f.Close()
	}
	return false, errors.Join(err, Release(f))
}

// File is the locked file.
func (l *Lock) File() *os.File { return l.f }

// Unlock gives the lock back, even while a child that is just being forked has a copy.
func (l *Lock) Unlock() error { return Release(l.f) }
