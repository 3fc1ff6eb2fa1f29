package installed_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/installed"
)

// TestRecord starts versions one after another, on one node and on two.
func TestRecord(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		ctx, before := t.Context(), time.Now().Add(-time.Minute)
		for _, begun := range [][2]string{
			{"a", "2026.5.0"},
			{"a", "2026.5.0"}, // started again
			{"b", "2026.5.0"},
			{"a", "2026.6.0"},
			{"b", "2026.5.0"},
			{"a", "2026.5.0"}, // and back
		} {
			if err := installed.Record(ctx, d, begun[0], begun[1]); err != nil {
				t.Fatal(err)
			}
		}
		read := func(skip, take int64) (all []installed.Version, total int64) {
			err := d.Read(ctx, func(tx *db.Tx) (err error) {
				all, total, err = installed.List(ctx, tx, skip, take)
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			return all, total
		}
		level := db.BinaryLevels().Level
		want := []installed.Version{{"2026.5.0", level, "a", time.Time{}}, {"2026.6.0", level, "a", time.Time{}}, {"2026.5.0", level, "b", time.Time{}}, {"2026.5.0", level, "a", time.Time{}}}
		got, total := read(0, 100)
		if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(installed.Version{}, "Began")); diff != "" || total != 4 {
			t.Errorf("%d versions (-want +got):\n%s", total, diff)
		}
		for i, v := range got {
			if v.Began.Before(before) || v.Began.After(time.Now().Add(time.Minute)) || i > 0 && v.Began.After(got[i-1].Began) {
				t.Errorf("version %d began at %s", i, v.Began)
			}
		}
		if part, total := read(1, 2); total != 4 || cmp.Diff(got[1:3], part) != "" {
			t.Errorf("two after the first are %v of %d", part, total)
		}
	})
}
