package feed

import (
	"context"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// Newest returns the newest versions of the next n packages of a space, by id, after
// the package of that id; "" is before the first.
func (r *Repository) Newest(ctx context.Context, tx *db.Tx, space ident.SpaceID, after string, n int) (all []*Package, err error) {
	err = each(ctx, tx, `SELECT `+columns+` FROM package p WHERE p.space_id = ? AND p.package_folded > ? AND `+isNewest+`) ORDER BY p.package_folded LIMIT ?`,
		[]any{string(space), ident.Fold(after), int64(n)}, func(p *Package) (bool, error) {
			all = append(all, p)
			return true, nil
		})
	return all, err
}

// BuildPlace is where build information stands among that of its space. The zero
// value is before all.
type BuildPlace struct {
	folded, key string
	seq         int64
}

// maxPiece is how large a piece of build information gets before it ends, in bytes:
// one of them may have a few megabytes.
const maxPiece = 4 << 20

// BuildsAfter returns the build information of a space that comes next, by package
// and the newest version first: at most n of it, and fewer when it is large. last is
// where the last of it stands, and more tells that there may be more.
func (r *Repository) BuildsAfter(ctx context.Context, tx *db.Tx, space ident.SpaceID, after BuildPlace, n int) (out []octopus.BuildInformation, last BuildPlace, more bool, err error) {
	rows, err := tx.Query(ctx, `SELECT b.body, b.package_folded, b.version_key, b.seq FROM build_information b
		WHERE b.space_id = ? AND (b.package_folded > ? OR b.package_folded = ? AND (b.version_key, b.seq) < (?, ?))
		ORDER BY b.package_folded, b.version_key DESC, b.seq DESC LIMIT ?`, string(space), after.folded, after.folded, after.key, after.seq, int64(n))
	if err != nil {
		return nil, after, false, fmt.Errorf("list build information: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	last = after
	for size := 0; size < maxPiece && rows.Next(); {
		var body string
		if err := rows.Scan(&body, &last.folded, &last.key, &last.seq); err != nil {
			return nil, after, false, fmt.Errorf("list build information: %w", err)
		}
		b, err := decodeBuild(body)
		if err != nil {
			return nil, after, false, err
		}
		out = append(out, *b)
		size += len(body)
		more = len(out) == n || size >= maxPiece
	}
	return out, last, more, rows.Err()
}
