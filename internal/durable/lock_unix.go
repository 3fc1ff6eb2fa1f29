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

// Lock is the exclusive lock of a file. It ends with the process that holds it, and
// with every process that got a copy of its descriptor.
type Lock struct{ f *os.File }

// Wait takes the lock of a file, which it makes if there is none, as soon as it is free.
func Wait(path string) (*Lock, error) { return lock(path, unix.LOCK_EX) }

// TryLock takes the lock of a file, or fails with ErrLocked. A process that is just
// being forked holds copies of its parent's locks until its execve, so a lock counts
// as held when it stays so for a moment.
func TryLock(path string) (*Lock, error) {
	for pause := time.Millisecond; ; pause *= 2 {
		l, err := lock(path, unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return l, err
		}
		if pause > 16*time.Millisecond {
			return nil, fmt.Errorf("lock %s: %w", path, ErrLocked)
		}
		time.Sleep(pause)
	}
}

func lock(path string, how int) (*Lock, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock: %w", err)
	}
	for {
		err = unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), f.Close())
	}
	return &Lock{f}, nil
}

// Held reports whether a process holds the lock of a file. One that is not there is held
// by nobody.
func Held(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close() // and the lock with it
	err = unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return true, nil
	}
	return false, err
}

// File is the locked file.
func (l *Lock) File() *os.File { return l.f }

// Unlock gives the lock back, even while a child that is just being forked has a copy.
func (l *Lock) Unlock() error {
	return errors.Join(unix.Flock(int(l.f.Fd()), unix.LOCK_UN), l.f.Close())
}
