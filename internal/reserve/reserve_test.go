package reserve

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/disktest"
	"github.com/takodeploy/tako/internal/fault"
)

// fill leaves no room on a disk.
func fill(t *testing.T, dir string) {
	t.Helper()
	f, err := os.CreateTemp(dir, "filler")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for size := 1 << 20; size >= 4096; {
		_, err := f.Write(make([]byte, size))
		switch {
		case errors.Is(err, unix.ENOSPC):
			size /= 2
		case err != nil:
			t.Fatal(err)
		}
	}
}

func unfill(t *testing.T, dir string) {
	t.Helper()
	all, err := filepath.Glob(filepath.Join(dir, "filler*"))
	for _, path := range all {
		err = errors.Join(err, disktest.Remove(path))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func there(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); !so(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("it does not come about that %s", what)
		}
	}
}

// kept has a reserve be kept until the test ends.
func kept(t *testing.T, r *Reserve, told func() error) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- r.Keep(ctx, func(context.Context) error { return told() }) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// looks has Keep look now.
func looks(r *Reserve) {
	select {
	case r.look <- struct{}{}:
	default:
	}
}

// TestFullDisk: a database on a full disk commits once more with what was kept in reserve,
// which is told of, and made again when there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := disktest.New(t, "size=40m")
	const size = 8 << 20
	r := New(dir, size, slog.New(slog.DiscardHandler))
	d, err := db.Open(t.Context(), "sqlite:"+filepath.Join(dir, "tako.db"), db.Options{Log: dbtest.Log(t), OnFull: r.Spend})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := db.Migrate(t.Context(), d, db.MigrateOptions{By: "1"}); err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	told, refusing := 0, true
	kept(t, r, func() error {
		mu.Lock()
		defer mu.Unlock()
		if refusing {
			refusing = false
			return errors.New("not now")
		}
		told++
		return nil
	})
	telling := func() int {
		mu.Lock()
		defer mu.Unlock()
		return told
	}
	path := Path(dir)
	eventually(t, "it is there, really allocated", func() bool { return missing(path, size) == 0 })
	runs := 0
	write := func(bytes int) error {
		return d.WriteEngine(t.Context(), func(tx *db.Tx) error {
			runs++
			tx.Event(db.Event{Category: "Created", Message: strings.Repeat("x", bytes)})
			return nil
		})
	}
	if r.Spent() || r.Spend() || !there(path) {
		t.Error("it was given up on a disk that has room")
	}
	if err := d.Checkpoint(t.Context()); err != nil { // the log has no room that was used before
		t.Fatal(err)
	}
	fill(t, dir)
	if err := write(1 << 20); err != nil || runs != 2 {
		t.Errorf("on a full disk, at try %d: %v", runs, err)
	}
	eventually(t, "it is told that it was given up", func() bool { looks(r); return telling() == 1 && r.Spent() })
	if there(path) {
		t.Error("it is there, and there is no room for it")
	}
	fill(t, dir)
	runs = 0
	if err := write(1 << 20); !fault.Is(err, fault.Unavailable) || runs != 1 {
		t.Errorf("with nothing in reserve, at try %d: %v", runs, err)
	}
	unfill(t, dir)
	eventually(t, "it is there again", func() bool { looks(r); return missing(path, size) == 0 && !r.Spent() })
	if n := telling(); n != 1 {
		t.Errorf("it was told %d times", n)
	}
	if err := write(1); err != nil {
		t.Error(err)
	}
}

// TestSpendOnce: of many that meet the full disk all are told that there is room, and one
// that has it gives nothing up. A link stands for what it names.
func TestSpendOnce(t *testing.T) {
	t.Parallel()
	dir := disktest.New(t, "size=8m")
	path, elsewhere := Path(dir), filepath.Join(t.TempDir(), Name)
	if err := errors.Join(os.WriteFile(path, make([]byte, 2<<20), 0o600), os.Symlink(path, elsewhere)); err != nil {
		t.Fatal(err)
	}
	if room, err := Spend(elsewhere); room || err != nil || !there(path) {
		t.Errorf("a disk that has room: %t, %v", room, err)
	}
	fill(t, dir)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if room, err := Spend(elsewhere); !room || err != nil {
				// Who comes late cannot tell by a link to nothing that it was there.
				if room, err = Spend(path); !room || err != nil {
					t.Errorf("a full disk: %t, %v", room, err)
				}
			}
		})
	}
	all.Wait()
	fill(t, dir)
	if room, err := Spend(path); room || err != nil {
		t.Errorf("a full disk with nothing in reserve: %t, %v", room, err)
	}
}

// TestGivenUpAtStart: what is given up before it is kept is told of as well.
func TestGivenUpAtStart(t *testing.T) {
	t.Parallel()
	dir := disktest.New(t, "size=8m")
	if err := os.WriteFile(Path(dir), make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	r := New(dir, 2<<20, slog.New(slog.DiscardHandler))
	fill(t, dir)
	if !r.Spend() {
		t.Fatal("there is no room")
	}
	told := make(chan struct{}, 1)
	kept(t, r, func() error { told <- struct{}{}; return nil })
	select {
	case <-told:
	case <-time.After(2 * time.Minute):
		t.Fatal("it is not told")
	}
	if !r.Spent() || there(Path(dir)) {
		t.Errorf("spent is %t, and there is one: %t", r.Spent(), there(Path(dir)))
	}
}

// TestOtherFileSystems: where space cannot be allocated at once, it is written, and not
// again at each look; what was begun is ended; and a sparse copy becomes a whole one.
func TestOtherFileSystems(t *testing.T) {
	t.Parallel()
	const size = 3<<20 + 5
	dir := t.TempDir()
	r := New(dir, size, slog.New(slog.DiscardHandler))
	if err := os.WriteFile(r.path, []byte("begun"), 0o600); err != nil {
		t.Fatal(err)
	}
	tries := 0
	r.fallocate = func(int, uint32, int64, int64) error {
		if tries++; tries == 1 {
			return unix.EINTR
		}
		return unix.EOPNOTSUPP
	}
	for range 2 {
		if made, err := r.make(t.Context()); !made || err != nil || missing(r.path, size) != 0 {
			t.Errorf("made: %t, %v; %d bytes are missing", made, err, missing(r.path, size))
		}
	}
	if tries != 2 {
		t.Errorf("it was made at try %d", tries)
	}
	if err := errors.Join(os.Truncate(r.path, 0), os.Truncate(r.path, size)); err != nil {
		t.Fatal(err)
	}
	if missing(r.path, size) == 0 {
		t.Skip("this file system allocates what was never written")
	}
	r.fallocate = unix.Fallocate
	if made, err := r.make(t.Context()); !made || err != nil || missing(r.path, size) != 0 {
		t.Errorf("of a sparse one: %t, %v; %d bytes are missing", made, err, missing(r.path, size))
	}
}

// TestNoRoom: none is made that would leave less than as much again, and nothing of it
// stays. What a former process has used up counts as such.
func TestNoRoom(t *testing.T) {
	t.Parallel()
	dir := disktest.New(t, "size=3m")
	for size, spent := range map[int64]bool{2 << 20: false, 4 << 20: true} {
		r := New(dir, size, slog.New(slog.DiscardHandler))
		if made, err := r.make(t.Context()); made || !errors.Is(err, errNoRoom) || there(r.path) || r.Spent() != spent {
			t.Errorf("%d bytes: %t, %v, spent is %t", size, made, err, r.Spent())
		}
	}
	// Nor does what was never there stay given up for ever.
	r := New(dir, 4<<20, slog.New(slog.DiscardHandler))
	for _, c := range []struct {
		options string
		spent   bool
	}{{"size=3m", true}, {"size=6m", false}, {"size=3m", true}, {"size=6m", false}} {
		if err := disktest.Resize(dir, c.options); err != nil {
			t.Fatal(err)
		}
		if _, err := r.make(t.Context()); !errors.Is(err, errNoRoom) || r.Spent() != c.spent {
			t.Errorf("of a disk with %s: %v, spent is %t", c.options, err, r.Spent())
		}
	}
	r = New(dir, 1<<20, slog.New(slog.DiscardHandler))
	r.fallocate = func(int, uint32, int64, int64) error { return unix.ENOSPC } // somebody was quicker
	if made, err := r.make(t.Context()); made || !errors.Is(err, unix.ENOSPC) || there(r.path) {
		t.Errorf("the room was taken: %t, %v", made, err)
	}
}
