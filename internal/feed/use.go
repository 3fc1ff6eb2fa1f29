package feed

import (
	"context"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/ident"
)

// Any stands, in a [Used], for every id or every version: for one that is an
// expression over variables, which nobody can know beforehand.
const Any = "*"

// Used is a version of a package, of whichever feed, that something is made of.
type Used struct{ PackageID, Version string }

// Use notes what an owner, such as a release, is made of: retention keeps it as
// long as the owner is there. What was noted for it before stays noted.
func Use(ctx context.Context, tx *db.Tx, space ident.SpaceID, owner string, used []Used) error {
	// The empty one says that the owner's packages are known, even if it has none.
	for _, u := range append([]Used{{}}, used...) {
		_, err := tx.Exec(ctx, `INSERT INTO package_use (owner, space_id, package_folded, version_folded) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING`,
			owner, string(space), ident.Fold(u.PackageID), ident.Fold(u.Version))
		if err != nil {
			return fmt.Errorf("note the packages of %s: %w", owner, err)
		}
	}
	return nil
}

// Disuse forgets what an owner was made of: it is gone.
func Disuse(ctx context.Context, tx *db.Tx, owner string) error {
	if _, err := tx.Exec(ctx, `DELETE FROM package_use WHERE owner = ?`, owner); err != nil {
		return fmt.Errorf("forget the packages of %s: %w", owner, err)
	}
	return nil
}

// uses compiles to a query's part for the owners that use the version of a row,
// which has the columns space_id, package_folded and version_folded.
func uses(alias string) string {
	return ` FROM package_use u WHERE u.space_id = ` + alias + `.space_id AND u.package_folded IN (` + alias + `.package_folded, '*') AND u.version_folded IN (` + alias + `.version_folded, '*')`
}
