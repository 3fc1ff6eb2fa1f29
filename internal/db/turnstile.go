package db

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// turnstile is where the writing processes of one SQLite database wait in line:
// SQLite itself has them try again after ever longer pauses, so that one can
// miss its chance for half a second while another writes a thousand times.
//
// Who comes takes the lock "next", then "turn", and gives "next" back. Who just
// wrote cannot overtake the one that waits, since that one holds "next". It only
// makes waiting fair and short: what keeps writers apart is SQLite's own lock,
// so going on without a turn is harmless.
//
// One goroutine at a time uses it, the one that has its process's turn.
type turnstile struct {
	path       string
	next, turn *os.File
}

// maxWait is how long a process waits for its turn. Another that stopped while
// it had the turn is then left to SQLite's lock.
const maxWait = busyTimeout

func openTurnstile(path string) (*turnstile, error) {
	s := &turnstile{path: path}
	return s, s.open()
}

func (s *turnstile) open() (err error) {
	if s.next, err = os.OpenFile(s.path+"-next", os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if s.turn, err = os.OpenFile(s.path+"-turn", os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return errors.Join(err, s.next.Close())
	}
	return nil
}

// enter waits for the turn. The error is ctx's, or that of a file.
func (s *turnstile) enter(ctx context.Context) error {
	if flock(s.next, unix.LOCK_EX|unix.LOCK_NB) == nil {
		if flock(s.turn, unix.LOCK_EX|unix.LOCK_NB) == nil {
			return flock(s.next, unix.LOCK_UN)
		}
	}
	next, turn := s.next, s.turn
	got := make(chan error, 1)
	go func() {
		got <- errors.Join(flock(next, unix.LOCK_EX), flock(turn, unix.LOCK_EX), flock(next, unix.LOCK_UN))
	}()
	limit := time.NewTimer(maxWait)
	defer limit.Stop()
	var ended error
	select {
	case err := <-got:
		return err
	case <-limit.C:
	case <-ctx.Done():
		ended = ctx.Err()
	}
	// The wait cannot be broken off: it goes on with these files, whose locks
	// end when they are closed, and the next one gets others.
	go func() {
		<-got            //nolint:errcheck // whether it was got or not
		_ = next.Close() // they were only locks
		_ = turn.Close()
	}()
	if err := s.open(); err != nil {
		return fmt.Errorf("wait for the turn to write: %w", err)
	}
	return ended
}

// leave lets the next one in.
func (s *turnstile) leave() { _ = flock(s.turn, unix.LOCK_UN) } // else it ends with the process

func (s *turnstile) close() error { return errors.Join(s.next.Close(), s.turn.Close()) }

func flock(f *os.File, how int) error {
	for {
		err := unix.Flock(int(f.Fd()), how)
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
