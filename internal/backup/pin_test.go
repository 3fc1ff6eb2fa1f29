package backup_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/fault"
)

// TestPins keeps the backup of an upgrade beside newer ones, until the upgrade is over.
func TestPins(t *testing.T) {
	t.Parallel()
	w := newWorld(t, db.SQLite, t.TempDir())
	forUpgrade := func(id string) string {
		t.Helper()
		m, err := w.store.Create(t.Context(), backup.Source{
			DB: w.db, Keys: w.box, Blobs: w.blobs, RunDir: w.run(), Temp: w.temp(), Version: "1", Log: dbtest.Log(t), Pin: &backup.Pin{Reason: "r", Upgrade: id},
		})
		if err != nil {
			t.Fatal(err)
		}
		return m.ID
	}
	left := func() (all []string) {
		t.Helper()
		if _, err := w.store.Prune(backup.Retention{}, false); err != nil {
			t.Fatal(err)
		}
		list, err := w.store.List()
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range list {
			all = append(all, b.ID)
		}
		slices.Sort(all)
		return all
	}
	want := func(when string, ids ...string) {
		t.Helper()
		slices.Sort(ids)
		if diff := cmp.Diff(ids, left()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", when, diff)
		}
	}
	forUpgrade("one") // cut short, and taken again
	one, two := forUpgrade("one"), forUpgrade("two")
	hand := w.mustCreate().ID
	if err := w.store.Pin(hand, backup.Pin{Reason: "audit", Until: time.Now().Add(time.Hour)}); err != nil {
		t.Fatal(err)
	}
	newest := w.mustCreate().ID
	want("pinned", one, two, hand, newest)

	// Shortened, never prolonged.
	soon := time.Now().Add(time.Minute)
	for _, until := range []time.Time{soon, soon.Add(time.Hour)} {
		if err := w.store.EndUpgrades(until); err != nil {
			t.Fatal(err)
		}
	}
	list, err := w.store.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range list {
		switch b.ID {
		case one, two:
			if b.Pin == nil || !b.Pin.Until.Equal(soon) {
				t.Errorf("the pin of an upgrade that is over is %+v", b.Pin)
			}
		case hand:
			if !b.Pin.Keeps(time.Now()) || b.Pin.Until.Before(soon.Add(time.Minute)) {
				t.Errorf("the pin of a backup that is for no upgrade is %+v", b.Pin)
			}
		case newest:
			if b.Pin != nil {
				t.Errorf("a backup without a pin has %+v", b.Pin)
			}
		}
	}
	if err := w.store.Unpin(one, time.Now().Add(-time.Second)); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Unpin(hand, time.Time{}); err != nil {
		t.Fatal(err)
	}
	if err := w.store.Unpin(newest, soon); err != nil {
		t.Errorf("unpin what is not pinned: %v", err)
	}
	// A pin that nobody can read keeps what it stands beside.
	if err := os.WriteFile(filepath.Join(w.store.Dir(), two, "KEEP"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	want("unpinned", two, newest)
	if err := w.store.Unpin(one, time.Time{}); !fault.Is(err, fault.NotFound) {
		t.Errorf("unpin a backup that is gone: %v", err)
	}
	for _, bad := range []backup.Pin{{Until: time.Now().Add(-time.Second)}, {Reason: string(make([]byte, 1001))}} {
		if err := bad.Check(time.Now()); !fault.Is(err, fault.Invalid) {
			t.Errorf("%v is a pin: %v", bad.Until, err)
		}
	}
}
