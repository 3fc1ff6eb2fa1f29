package app

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
)

// TestOneBackupForManyStarts: a start that fails again and again takes one backup, until
// something is added; one that was not proven is proven, and one that is damaged is not used.
func TestOneBackupForManyStarts(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		meta, err := d.Meta(ctx)
		if err != nil {
			t.Fatal(err)
		}
		cfg := config.Defaults()
		cfg.Data, cfg.Backups = t.TempDir(), t.TempDir()
		start := func(version string) *catchUp {
			return &catchUp{cfg: cfg, opt: Options{Version: version, Log: dbtest.Log(t)}, db: d, log: dbtest.Log(t), from: meta.SchemaLevel, to: meta.SchemaLevel + 1}
		}
		backUp := func(version string) string {
			t.Helper()
			id, err := start(version).backUp(ctx)
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		// kept are the backups that are pinned and proven, the newest first.
		kept := func() (ids []string) {
			t.Helper()
			b, err := OpenBackups(cfg, Options{})
			if err != nil {
				t.Fatal(err)
			}
			all, err := b.List()
			if err != nil {
				t.Fatal(err)
			}
			for _, one := range all {
				if one.Pin.Keeps(time.Now()) && one.Verified != nil {
					ids = append(ids, one.ID)
				}
			}
			return ids
		}
		first := backUp("2")
		if again := backUp("2"); again != first {
			t.Errorf("another start takes %s, after %s", again, first)
		}
		proof := filepath.Join(cfg.Backups, first, "VERIFIED")
		if err := os.Remove(proof); err != nil {
			t.Fatal(err)
		}
		if again := backUp("2"); again != first || len(kept()) != 1 {
			t.Errorf("after one that was not proven it has %s, and keeps %v", again, kept())
		}

		err = d.WriteEngine(ctx, func(tx *db.Tx) error { _, err := tx.NextSeq(ctx, "Anything"); return err })
		if err != nil {
			t.Fatal(err)
		}
		second := backUp("2")
		if all := kept(); second == first || len(all) != 1 || all[0] != second {
			t.Errorf("when something was added it has %s, and keeps %v", second, all)
		}
		if other := backUp("3"); other == second {
			t.Error("another version uses the backup")
		}
		third := backUp("3")
		database := filepath.Join(cfg.Backups, third, "database.age")
		raw, err := os.ReadFile(database)
		if err != nil {
			t.Fatal(err)
		}
		raw[len(raw)/2] ^= 1
		if err := os.WriteFile(database, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(cfg.Backups, third, "VERIFIED")); err != nil {
			t.Fatal(err)
		}
		if again := backUp("3"); again == third {
			t.Error("a damaged backup is used")
		}
	})
}
