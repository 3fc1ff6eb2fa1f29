package db

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/takodeploy/tako/internal/durable"
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
	if durable.TryFlock(s.next, durable.Exclusive, 0) == nil {
		if durable.TryFlock(s.turn, durable.Exclusive, 0) == nil {
			return durable.Unflock(s.next)
		}
	}
	next, turn := s.next, s.turn
	got := make(chan error, 1)
	go func() {
		got <- errors.Join(durable.Flock(next, durable.Exclusive), durable.Flock(turn, durable.Exclusive), durable.Unflock(next))
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
	// The wait cannot be broken off: it goes on with these files, whose locks it
	// gives back, and the next one gets others.
	go func() {
		<-got                     //nolint:errcheck // whether it was got or not
		_ = durable.Release(next) // they were only locks
		_ = durable.Release(turn)
	}()
	if err := s.open(); err != nil {
		return fmt.Errorf("wait for the turn to write: %w", err)
	}
	return ended
}

// leave lets the next one in.
func (s *turnstile) leave() { _ = durable.Unflock(s.turn) } // else it ends with the process

func (s *turnstile) close() error {
	return errors.Join(durable.Release(s.next), durable.Release(s.turn))
}
