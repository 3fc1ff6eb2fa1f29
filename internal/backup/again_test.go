package backup_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/disktest"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/reserve"
)

// TestDamageIsNotPassedOn: a blob that was found damaged is taken anew by the next backup, which
// shares it with the damaged one: both are good then.
func TestDamageIsNotPassedOn(t *testing.T) {
	t.Parallel()
	for name, at := range map[string]func(n int) int{"header": func(int) int { return 30 }, "content": func(n int) int { return n - 20 }} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, db.SQLite, t.TempDir())
			m := w.mustCreate()
			path := filepath.Join(w.store.Dir(), "blobs", m.Pool, string(w.hash[1][:2]), string(w.hash[1])+".age")
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text[at(len(text))] ^= 1
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			var damaged *backup.DamagedError
			if err := w.verify(m.ID, backup.LevelFiles, nil); !errors.As(err, &damaged) {
				t.Fatalf("verify: %v", err)
			}
			if _, err := w.store.Prune(backup.DefaultRetention(), false); err != nil {
				t.Fatal(err)
			}
			before := len(tree(t, w.store.Dir()))
			next := w.mustCreate()
			for _, id := range []string{next.ID, m.ID} {
				if err := w.verify(id, backup.LevelDatabase, nil); err != nil {
					t.Errorf("after a new backup: %v", err)
				}
			}
			// A manifest, a database, a list and two proofs more; one note of damage less.
			if after := len(tree(t, w.store.Dir())); after != before+4 {
				t.Errorf("there were %d files, and are %d", before, after)
			}
		})
	}
}

// TestRestoreGoesOnWithoutRoom: a restore that was cut short needs no room again for what it has.
func TestRestoreGoesOnWithoutRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t, db.SQLite, t.TempDir())
	m := w.mustCreate()
	disk := disktest.New(t, "size=32m")
	// What was killed while it decrypted left this; it is no reason to have no room.
	into := filepath.Join(disk, "first")
	if err := os.MkdirAll(into, 0o700); err != nil {
		t.Fatal(err)
	}
	left := filepath.Join(into, "tako.db.restoring")
	leave(t, left, 0)
	if err := w.restore(m.ID, into); err != nil {
		t.Errorf("beside what another one left: %v", err)
	}
	// One that was killed once it was marked: its database is there, and its blobs are.
	into = filepath.Join(disk, "second")
	if err := w.restore(m.ID, into); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(into, "tako.db"), filepath.Join(into, "tako.db.restoring")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(into, "restore.pending"), []byte(`{"Backup":"`+m.ID+`"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	leave(t, filepath.Join(disk, "filler"), 64<<10)
	if err := w.restore(m.ID, into); err != nil {
		t.Errorf("one that was marked: %v", err)
	}
	if half, err := backup.Pending(into); half != "" || err != nil {
		t.Errorf("still pending: %q, %v", half, err)
	}
}

// leave has a new file take the space of a file system but for some bytes.
func leave(t *testing.T, path string, bytes int64) {
	t.Helper()
	free, err := reserve.Free(filepath.Dir(path))
	if err == nil {
		err = os.WriteFile(path, make([]byte, free-bytes), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestPgDumpOnAFullDisk: what PostgreSQL's programs say of a full disk is told as that.
func TestPgDumpOnAFullDisk(t *testing.T) {
	t.Parallel()
	disk := disktest.New(t, "size=32m")
	w := newWorld(t, db.Postgres, disk)
	_, err := w.create(func(p backup.Progress) {
		if p.Stage == "copying the database" {
			leave(t, filepath.Join(disk, "filler"), 16<<10)
		}
	})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "pg_dump") {
		t.Errorf("a dump on a full disk: %v", err)
	}
}
