package upgrade

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/upgrade/journal"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// contained has an upgrade in a container that has reached a state, of which the entrypoint
// has told nothing.
func contained(t *testing.T, reached State) (root string) {
	t.Helper()
	root = t.TempDir()
	j, err := journal.Open(Dir(root))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range inImage(reached).entries {
		if _, err := j.Append(time.Now(), func([]journal.Entry) (journal.Entry, error) {
			return journal.Entry{Txn: e.Txn, Kind: e.Kind, Data: e.Data}, nil
		}); err != nil {
			t.Fatal(err)
		}
	}
	runs(t, root, "2026.4.0")
	return root
}

// runs notes which version's image the container runs with.
func runs(t *testing.T, root, version string) {
	t.Helper()
	if err := durable.Symlink(filepath.Join("versions", version), filepath.Join(root, "current")); err != nil {
		t.Fatal(err)
	}
}

// TestUnattendedInContainer: nobody carries an upgrade out that waits for an image, but one
// whose image runs, also when that could not be written down.
func TestUnattendedInContainer(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		reached State
		runs    string
		want    bool
	}{
		"in the middle":               {BackedUp, "2026.4.0", true},
		"it waits":                    {Expanded, "2026.4.0", false},
		"it waits, and a third runs":  {Expanded, "2026.3.0", false},
		"the new image runs unseen":   {Expanded, "2026.5.0", true},
		"the new image runs too soon": {Preflight, "2026.5.0", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			root := contained(t, c.reached)
			runs(t, root, c.runs)
			if got, err := Unattended(root, true); err != nil || got != c.want {
				t.Errorf("somebody is needed: %t, %v", got, err)
			}
			if got, err := Unattended(root, false); err != nil || got {
				t.Errorf("a supervisor is needed: %t, %v", got, err)
			}
		})
	}
}

// TestAbortInContainer: an upgrade that waits for its image can be given up, by the program of
// the image that is there, which is none of the versions on the volume.
func TestAbortInContainer(t *testing.T) {
	t.Parallel()
	root := contained(t, Expanded)
	program, said := filepath.Join(root, "image"), filepath.Join(root, "said")
	// A process that is forked meanwhile would hold the file open, and nothing could run it.
	syscall.ForkLock.RLock()
	err := os.WriteFile(program, []byte("#!/bin/sh\necho \"$@\" >>"+said+"\n[ \"$2\" = list ] && echo '[{\"ID\": \"b\", \"Pin\": {\"Upgrade\": \"t\"}}]'\nexit 0\n"), 0o700)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	for _, w := range []Wish{WishRollback, WishFinalize, WishHold, WishForward} {
		if err := Want(root, Ask{Wish: w}, time.Now(), func(t *Txn) error { return Allowed(t, w) }); err == nil {
			t.Errorf("%s is allowed", w)
		}
	}
	if err := Want(root, Ask{Wish: WishAbort}, time.Now(), func(t *Txn) error { return Allowed(t, WishAbort) }); err != nil {
		t.Fatal(err)
	}
	c, err := Open(Config{Root: root, Store: stage.Open(root, nil), Environ: os.Environ(), Version: "2026.4.0", Program: program, Poll: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ended, err := c.Run(t.Context())
	if err != nil || ended.State != Aborted {
		t.Errorf("it is %+v, %v", ended, err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if raw, err := os.ReadFile(said); err != nil || !strings.Contains(string(raw), "backup unpin b --after 14d") {
		t.Errorf("%v: %s", err, raw)
	}
}
