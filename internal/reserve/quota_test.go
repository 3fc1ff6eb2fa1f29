package reserve

import (
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
)

// TestQuota: who has all that a quota allows is one whose disk is full, whatever the file
// system tells.
func TestQuota(t *testing.T) {
	t.Parallel()
	dir := limited(t)
	r := New(dir, 4<<20, slog.New(slog.DiscardHandler))
	if made, err := r.make(t.Context()); err != nil || !made {
		t.Fatalf("the reserve was made: %t, %v", made, err)
	}
	if room, err := Spend(r.path); err != nil || room || !there(r.path) {
		t.Errorf("it is given up while there is room: %t, %v", room, err)
	}
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		if _, err = f.Write(make([]byte, 64<<10)); err == nil {
			err = f.Sync()
		}
	}
	if !errors.Is(err, unix.EDQUOT) || !Full(err) {
		t.Errorf("it is full: %v", err)
	}
	if room, err := Spend(r.path); err != nil || !room || there(r.path) {
		t.Errorf("there is room: %t, %v", room, err)
	}
	_, err = f.Write(make([]byte, 1<<20))
	if err = errors.Join(err, f.Sync()); err != nil {
		t.Error(err)
	}
	// What was given up is for others: there has to be room for it and as much beside it.
	r.had, r.given = false, true
	if made, err := r.make(t.Context()); made || !Full(err) || there(r.path) {
		t.Errorf("the reserve was made again: %t, %v", made, err)
	}
	if err := errors.Join(f.Truncate(0), f.Sync()); err != nil {
		t.Error(err)
	}
	if made, err := r.make(t.Context()); err != nil || !made || missing(r.path, r.size) != 0 {
		t.Errorf("the reserve was made again: %t, %v", made, err)
	}
	if info, err := os.Stat(r.path); err != nil || info.Size() != r.size {
		t.Errorf("it is %v, %v", info, err)
	}
}

// limited makes a file system of more room than its quota allows.
func limited(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	image := filepath.Join(t.TempDir(), "image")
	if err := errors.Join(os.WriteFile(image, nil, 0o600), os.Truncate(image, 256<<20)); err != nil {
		t.Fatal(err)
	}
	for _, command := range [][]string{
		{"mkfs.btrfs", "-q", image},
		{"mount", "-o", "loop", image, dir},
		{"btrfs", "quota", "enable", dir},
		{"btrfs", "qgroup", "limit", "24M", dir},
	} {
		if out, err := exec.CommandContext(t.Context(), command[0], command[1:]...).CombinedOutput(); err != nil {
			if os.Getenv("CI") == "true" { // as disktest: nobody is to believe that it ran
				t.Fatalf("mount a file system with quotas: %v: %s", err, out)
			}
			t.Skipf("this test mounts a file system with quotas: %v: %s", err, out)
		}
		if command[0] == "mount" {
			t.Cleanup(func() {
				if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
					t.Error(err)
				}
			})
		}
	}
	return dir
}

// TestFullQuota: a database that a quota leaves no room commits once more with what was kept in
// reserve, though SQLite takes that for an I/O error.
func TestFullQuota(t *testing.T) {
	t.Parallel()
	dir := limited(t)
	r := New(dir, 4<<20, slog.New(slog.DiscardHandler))
	if made, err := r.make(t.Context()); err != nil || !made {
		t.Fatalf("the reserve was made: %t, %v", made, err)
	}
	open := func(room func() bool) *db.DB {
		t.Helper()
		d, err := db.Open(t.Context(), "sqlite:"+filepath.Join(dir, "tako.db"), db.Options{Log: dbtest.Log(t), OnFull: room})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = d.Close() }) // again, or after it has failed
		return d
	}
	d := open(r.Spend)
	if err := db.Migrate(t.Context(), d, db.MigrateOptions{By: "1"}); err != nil {
		t.Fatal(err)
	}
	if err := d.Checkpoint(t.Context()); err != nil { // the log has no room that was used before
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fill := func() {
		t.Helper()
		var err error
		for size := 1 << 20; size >= 4096; {
			if _, err = f.Write(make([]byte, size)); err == nil {
				err = f.Sync()
			}
			switch {
			case Full(err):
				size /= 2
			case err != nil:
				t.Fatal(err)
			}
		}
	}
	fill()
	runs := 0
	write := func(d *db.DB, name string) error {
		runs = 0
		return d.WriteEngine(t.Context(), func(tx *db.Tx) error {
			runs++
			tx.Event(db.Event{Category: "Created", Message: name + strings.Repeat("x", 1<<20)})
			return nil
		})
	}
	// As long as nobody makes room, it may be that the disk is not to be trusted.
	alone := open(func() bool { return false })
	if err := write(alone, "alone"); !errors.Is(err, db.ErrFateUnknown) || runs != 1 {
		t.Errorf("without anybody who makes room, at try %d: %v", runs, err)
	}
	_ = alone.Close() // it has failed
	if err := write(d, "first"); err != nil || runs != 2 || there(r.path) {
		t.Fatalf("without room, at try %d: %v", runs, err)
	}
	// Without a reserve it is not tried again. On this file system SQLite may even fail before it
	// writes, since the index of its log takes room when it changes.
	fill()
	if err := write(d, "second"); err == nil || runs > 1 {
		t.Errorf("without a reserve, at try %d: %v", runs, err)
	}
	_ = d.Close() // it may have failed
	if out, err := exec.CommandContext(t.Context(), "btrfs", "qgroup", "limit", "none", dir).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	d = open(r.Spend)
	count := func(name string) (n int) {
		t.Helper()
		err := d.Read(t.Context(), func(tx *db.Tx) error {
			return tx.QueryRow(t.Context(), `SELECT count(*) FROM events WHERE message LIKE ?`, name+"%").Scan(&n)
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if first, failed := count("first"), count("alone")+count("second"); first != 1 || failed != 0 {
		t.Errorf("it was written %d times, and what failed %d times", first, failed)
	}
	damage, err := d.Integrity(t.Context())
	if err != nil || len(damage) > 0 {
		t.Errorf("the database: %v, %v", damage, err)
	}
	if err := write(d, "third"); err != nil {
		t.Error(err)
	}
}
