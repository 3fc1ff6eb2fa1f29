package durable

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/proctest"
)

// TestReleasedWhileForked: a lock that was given back is free, also while a child that is
// being forked has copies of its descriptor.
func TestReleasedWhileForked(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	for range 2 {
		l, err := TryLock(path)
		if err != nil {
			t.Fatal(err)
		}
		if held, err := Held(path); err != nil || !held {
			t.Errorf("held: %t, %v", held, err)
		}
		end := proctest.Copies(t, path)
		if err := l.Unlock(); err != nil {
			t.Error(err)
		}
		if held, err := Held(path); err != nil || held {
			t.Errorf("given back, and held: %t, %v", held, err)
		}
		t.Cleanup(end)
	}
}

// TestKilledWhileForking: a lock whose holder was killed while it forked is busy until the
// child is what it is to become, for who does not wait that long.
func TestKilledWhileForking(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	l, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	end := proctest.Copies(t, path)
	if err := l.File().Close(); err != nil { // as the end of a process does it
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, patience := range []time.Duration{0, time.Nanosecond, Moment} {
		if err := TryFlock(f, Exclusive, patience); !errors.Is(err, ErrLocked) {
			t.Errorf("after %s: %v", patience, err)
		}
	}
	got := make(chan error, 1)
	go func() { got <- TryFlock(f, Exclusive, 2*time.Minute) }()
	end()
	if err := <-got; err != nil {
		t.Errorf("with more patience: %v", err)
	}
	if err := Release(f); err != nil {
		t.Error(err)
	}
}

// TestShared: many share a lock, nobody has it for themselves meanwhile.
func TestShared(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "lock")
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	a, b, c := open(), open(), open()
	if err := errors.Join(Flock(a, Shared), TryFlock(b, Shared, 0)); err != nil {
		t.Error(err)
	}
	if err := TryFlock(c, Exclusive, 0); !errors.Is(err, ErrLocked) {
		t.Errorf("while two share it: %v", err)
	}
	if err := errors.Join(Unflock(a), Release(b)); err != nil {
		t.Error(err)
	}
	if err := errors.Join(TryFlock(c, Exclusive, 0), Release(c), a.Close()); err != nil {
		t.Errorf("once it is free: %v", err)
	}
}
