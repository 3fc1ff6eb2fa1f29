package db

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/proctest"
)

// TestTurnOfNobody: a turn that was waited for and then not wanted any more is given back,
// also while a child that is being forked has a copy of its lock.
func TestTurnOfNobody(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "tako.db")
	var all [2]*turnstile
	for i := range all {
		var err error
		if all[i], err = openTurnstile(path); err != nil {
			t.Fatal(err)
		}
	}
	if err := all[0].enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := all[1].enter(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("while another has it: %v", err)
	}
	for _, name := range []string{"-turn", "-next"} {
		t.Cleanup(proctest.Copies(t, path+name))
	}
	all[0].leave()
	for _, name := range []string{"-turn", "-next"} {
		f, err := os.OpenFile(path+name, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(durable.TryFlock(f, durable.Exclusive, 2*time.Minute), durable.Release(f)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := errors.Join(all[0].close(), all[1].close()); err != nil {
		t.Error(err)
	}
}
