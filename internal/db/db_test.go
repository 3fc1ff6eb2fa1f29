package db_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/takodeploy/tako/internal/db"
)

// insertDocument inserts a document of kind Bench.
func insertDocument(ctx context.Context, t *db.Tx, seq int64, body string) error {
	_, err := t.Exec(ctx, `INSERT INTO documents (kind, id, seq, space_id, name, slug, sort, version, body_version, created, updated, updated_by, deleted, body)
		VALUES (?, ?, ?, '', '', '', 0, 1, 1, 0, 0, '', 0, ?)`, "Bench", fmt.Sprintf("Bench-%d", seq), seq, body)
	return err
}

// fill inserts n documents.
func fill(t testing.TB, d *db.DB, n int) {
	t.Helper()
	err := d.Write(t.Context(), func(tx *db.Tx) error {
		for range n {
			seq, err := tx.NextSeq(t.Context(), "Bench")
			if err != nil {
				return err
			}
			if err := insertDocument(t.Context(), tx, seq, `{"Name":"a document of some size","Description":"................................................................"}`); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
