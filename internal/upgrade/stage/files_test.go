package stage

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/disktest"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
)

// TestSecretiveSite: a store that forbids what is not there is a site as good as another;
// a program that is forbidden is an error all the same.
func TestSecretiveSite(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.secretive = true
	w.put("feed.json", signedFeed(t, 3, key(1), release("2026.5.0", Platform(), says("2026.5.0", Platform()))))
	if _, err := w.store.Stage(t.Context(), w.request(), nil); !errors.Is(err, errForbidden) {
		t.Errorf("without its program: %v", err)
	}
	w.publish(t, 4, "2026.5.0", says("2026.5.0", Platform()))
	if _, err := w.store.Stage(t.Context(), w.request(), nil); err != nil {
		t.Error(err)
	}
	if w.count("root.2.json") == 0 {
		t.Error("nobody has looked for the next root")
	}
}

// TestPreparedPlaces: what somebody has put where a transfer writes is not written to.
func TestPreparedPlaces(t *testing.T) {
	t.Parallel()
	for name, prepare := range map[string]func(partial, victim string) error{
		"a link":        func(partial, victim string) error { return os.Symlink(victim, filepath.Join(partial, program)) },
		"a second name": func(partial, victim string) error { return os.Link(victim, filepath.Join(partial, program)) },
		"a pipe":        func(partial, _ string) error { return unix.Mkfifo(filepath.Join(partial, program), 0o600) },
		"a directory":   func(partial, _ string) error { return os.Mkdir(filepath.Join(partial, program), 0o700) },
		"a linked directory": func(partial, victim string) error {
			return errors.Join(os.Remove(partial), os.Symlink(filepath.Dir(victim), partial))
		},
		"a file, no directory": func(partial, _ string) error {
			return errors.Join(os.Remove(partial), os.WriteFile(partial, nil, 0o600))
		},
	} {
		for _, have := range []bool{false, true} {
			t.Run(name+map[bool]string{true: ", with the program at hand"}[have], func(t *testing.T) {
				t.Parallel()
				w := newWorld(t)
				content := says("2026.5.0", Platform())
				w.publish(t, 3, "2026.5.0", content)
				victim := filepath.Join(t.TempDir(), program)
				if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
					t.Fatal(err)
				}
				partial := filepath.Join(w.root, "versions", "2026.5.0.partial")
				if err := os.MkdirAll(partial, 0o700); err != nil {
					t.Fatal(err)
				}
				if err := prepare(partial, victim); err != nil {
					t.Fatal(err)
				}
				r := w.request()
				if have {
					r.Have = filepath.Join(t.TempDir(), "have")
					if err := os.WriteFile(r.Have, content, 0o600); err != nil {
						t.Fatal(err)
					}
				}
				if _, err := w.store.Stage(t.Context(), r, nil); err != nil {
					t.Fatal(err)
				}
				if got, err := os.ReadFile(victim); err != nil || string(got) != "precious" {
					t.Errorf("it was written to: %d bytes, %v", len(got), err)
				}
				if info, err := os.Stat(victim); err != nil || info.Mode() != 0o600 {
					t.Errorf("its mode was changed: %v %v", info, err)
				}
				if info, err := os.Lstat(w.store.Program("2026.5.0")); err != nil || !info.Mode().IsRegular() {
					t.Errorf("%v %v", info, err)
				}
			})
		}
	}
}

// TestFullDisk: a transfer that has no room leaves nothing behind.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	versions := filepath.Join(w.root, "versions")
	if err := os.Mkdir(versions, 0o755); err != nil {
		t.Fatal(err)
	}
	disktest.Mount(t, versions, 0, "size=128k")
	content := says("2026.5.0", Platform()) // 300 KiB
	w.publish(t, 3, "2026.5.0", content)
	have := filepath.Join(t.TempDir(), "have")
	if err := os.WriteFile(have, content, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, at := range []string{"", have} {
		_, err := w.store.Stage(t.Context(), w.request(func(r *Request) { r.Have = at }), nil)
		if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "make room on the disk of "+w.root) {
			t.Errorf("%v", err)
		}
		if left, err := filepath.Glob(filepath.Join(versions, "2*")); err != nil || len(left) != 0 {
			t.Errorf("%v is left, %v", left, err)
		}
	}
}

// TestTake: a version that one store has staged is installed in another one.
func TestTake(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	content := says("2026.5.0", Platform())
	w.publish(t, 3, "2026.5.0", content)
	if _, err := w.store.Stage(t.Context(), w.request(), nil); err != nil {
		t.Fatal(err)
	}
	staged, err := w.store.Staged("2026.5.0", "stable")
	if err != nil {
		t.Fatal(err)
	}
	to := Open(t.TempDir(), nil)
	for range 2 {
		if err := to.Take(t.Context(), staged); err != nil {
			t.Fatal(err)
		}
	}
	if err := SelfTest(t.Context(), to.Program("2026.5.0"), "2026.5.0"); err != nil {
		t.Error(err)
	}
	if m, err := to.Manifest("2026.5.0"); err != nil || m.Release.Version != "2026.5.0" {
		t.Errorf("%+v %v", m, err)
	}
	if trust, err := to.Trust(); err != nil || trust.Seen["stable"].Number != 3 {
		t.Errorf("%+v %v", trust, err)
	}
	w.publish(t, 4, "2026.5.0", content)
	again, err := w.store.Stage(t.Context(), w.request(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if staged, err = w.store.Staged("2026.5.0", "stable"); err != nil {
		t.Fatal(err)
	}
	if err := to.Take(t.Context(), staged); err != nil {
		t.Fatal(err)
	}
	if feed, err := os.ReadFile(filepath.Join(to.dir("2026.5.0"), feedFile)); err != nil || !bytes.Equal(feed, again.Feed) {
		t.Errorf("by a newer feed another one is beside the version (%v)", err)
	}
	old := staged
	old.Seen = releasefeed.Seen{Number: 3, Issued: start.Add(time.Hour)}
	if err := to.Take(t.Context(), old); err == nil || !strings.Contains(err.Error(), "number 4 was seen here before") {
		t.Errorf("from an older feed: %v", err)
	}
	if err := os.WriteFile(w.store.Program("2026.5.0"), []byte("something else"), 0o755); err != nil { //nolint:gosec // a program
		t.Fatal(err)
	}
	other := Open(t.TempDir(), nil)
	if err := other.Take(t.Context(), staged); !Is(err, Corrupt) {
		t.Errorf("with another program: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(other.root, "versions", "2*")); err != nil || len(left) != 0 {
		t.Errorf("%v is left, %v", left, err)
	}
}

// TestClockJumps: a clock that is set between two looks at a feed makes none of it good that
// was not, nor bad what somebody insists on; what was seen stays seen.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.publish(t, 3, "2026.5.0", says("2026.5.0", Platform()))
	ends := start.AddDate(0, 1, 0) // of the feed
	at := func(now time.Time, wanted string) Request {
		return w.request(func(r *Request) { r.Now, r.Wanted = now, wanted })
	}
	var no *releasefeed.NoChoice
	for _, c := range []struct {
		name    string
		now     time.Time
		wanted  string
		refused bool
		expired bool
	}{
		{"in time", ends.Add(-30 * time.Minute), "", false, false},
		{"an hour on", ends.Add(30 * time.Minute), "", true, false},
		{"an hour on, for somebody who insists", ends.Add(30 * time.Minute), "2026.5.0", false, true},
		{"an hour back", ends.Add(-90 * time.Minute), "", false, false},
		{"before the feed was made", start.Add(-time.Hour), "", false, false},
	} {
		offer, err := w.store.Check(t.Context(), at(c.now, c.wanted))
		switch {
		case c.refused != errors.As(err, &no), !c.refused && err != nil:
			t.Errorf("%s: %v", c.name, err)
		case err == nil && offer.Expired != c.expired:
			t.Errorf("%s: it counts as expired: %t", c.name, offer.Expired)
		}
	}
}
