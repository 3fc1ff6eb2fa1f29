package secret

import (
	"context"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
)

// Blank puts a copied database, which nobody uses yet, under a master key of its own and
// takes every sealed value out of the documents: told hears of each. Nothing in the copy
// opens with the keys of what it is a copy of any more. Records of what was (answers to
// prompts, outputs of old deployments) stay, closed for good; their number is returned.
// src must be a data directory whose master.key is the new one.
func Blank(ctx context.Context, d *db.DB, src Source, places []Place, told func(Ref)) (closed int, err error) {
	err = d.Write(ctx, func(t *db.Tx) error {
		for _, table := range []string{"secret_key", "secret_passage", "secret_holder", "secret_recovery", "secret_former"} {
			if _, err := t.Exec(ctx, `DELETE FROM `+table); err != nil {
				return err
			}
		}
		t.Changed(changed)
		return nil
	})
	if err != nil {
		return 0, fmt.Errorf("take the keys out of the copy: %w", err)
	}
	b, err := Open(ctx, d, src)
	if err != nil {
		return 0, err
	}
	if err := b.EnsureRecovery(ctx); err != nil {
		return 0, err
	}
	return b.clearDead(ctx, places, told)
}
