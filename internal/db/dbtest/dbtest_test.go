package dbtest_test

import (
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
)

func TestEachTestHasItsOwn(t *testing.T) {
	t.Parallel()
	for range 2 {
		dbtest.Run(t, func(t *testing.T, d *db.DB) {
			n, err := d.Changes(t.Context(), "Projects")
			if err != nil || n != 0 {
				t.Fatalf("a new database has %d changes, %v", n, err)
			}
			err = d.Write(t.Context(), func(tx *db.Tx) error {
				tx.Changed("Projects")
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if n, err := d.Changes(t.Context(), "Projects"); err != nil || n != 1 {
				t.Fatalf("after one change there are %d, %v", n, err)
			}
		})
	}
}
