package backup_test

import (
	"context"
	"testing"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/secret"
)

// kept counts the databases that have what a backup has.
func (w *world) kept(id string) (n int) {
	w.t.Helper()
	err := w.db.Read(w.t.Context(), func(tx *db.Tx) error {
		return tx.QueryRow(w.t.Context(), `SELECT count(*) FROM pg_database WHERE shobj_description(oid, 'pg_database') LIKE ?`, "as loaded from "+id+" %").Scan(&n)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return n
}

// TestWhatWasRestoredIsKept: the next verifications of a backup begin with a copy of what an
// earlier one restored, whatever was done to the copies before, and the last one removes it.
func TestWhatWasRestoredIsKept(t *testing.T) {
	t.Parallel()
	w := newWorld(t, db.Postgres, t.TempDir())
	m, other := w.mustCreate(), w.mustCreate()
	// Copies have the same numbers of their tables as what they were made of.
	number, changed := int64(0), false
	look := func(ctx context.Context, c backup.Copy) error {
		d := dbtest.OpenURL(t, c.Database)
		return d.Write(ctx, func(tx *db.Tx) error {
			var workers string
			var rows int64
			if err := tx.QueryRow(ctx, `SELECT 'artifact'::regclass::oid::bigint, current_setting('max_parallel_workers_per_gather'), count(*) FROM artifact`).Scan(&number, &workers, &rows); err != nil {
				return err
			}
			if workers != "0" {
				t.Errorf("a query there may have %s workers", workers)
			}
			if rows != 3 {
				t.Errorf("there are %d artifacts", rows)
			}
			changed = true
			_, err := tx.Exec(ctx, `DELETE FROM artifact`)
			return err
		})
	}
	keys, err := backup.ServerKeys(t.Context(), w.box, w.src, nil)
	if err != nil {
		t.Fatal(err)
	}
	within := func(id string) int64 {
		t.Helper()
		changed = false
		opt := backup.VerifyOptions{Keys: keys, Temp: w.temp(), Server: w.db, Places: secret.Places, Log: dbtest.Log(t)}
		if err := w.store.Within(t.Context(), id, opt, look); err != nil || !changed {
			t.Fatalf("it was looked at: %v, %v", changed, err)
		}
		return number
	}
	before := within(m.ID)
	if n := w.kept(m.ID); n != 0 {
		t.Fatalf("without Keep, %d databases are kept", n)
	}
	keep := func(o *backup.VerifyOptions) { o.Keep = true }
	if err := w.verify(m.ID, backup.LevelDatabase, keep); err != nil || w.kept(m.ID) != 1 {
		t.Fatalf("%v; %d databases are kept", err, w.kept(m.ID))
	}
	first := within(m.ID)
	if second := within(m.ID); first != second || first == before {
		t.Errorf("it was restored again: table %d after %d and %d", second, first, before)
	}
	if another := within(other.ID); another == first {
		t.Errorf("the copy of another backup has the same table %d", another)
	}
	if err := w.verify(m.ID, backup.LevelBoot, func(o *backup.VerifyOptions) { o.Boot, o.Last = look, true }); err != nil {
		t.Fatal(err)
	}
	if number != first || w.kept(m.ID) != 0 {
		t.Errorf("the last one had table %d, not %d, and %d databases are kept", number, first, w.kept(m.ID))
	}

	// Whoever lets the backup go removes it, too, and only that one.
	if err := w.verify(other.ID, backup.LevelDatabase, keep); err != nil {
		t.Fatal(err)
	}
	if err := w.store.DropKept(t.Context(), m.ID, w.db); err != nil || w.kept(other.ID) != 1 {
		t.Errorf("%v; %d are kept of the other one", err, w.kept(other.ID))
	}
	if err := w.store.DropKept(t.Context(), other.ID, w.db); err != nil || w.kept(other.ID) != 0 {
		t.Errorf("%v; %d are kept of the other one", err, w.kept(other.ID))
	}
}
