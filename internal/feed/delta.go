package feed

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/octodiff"
	"github.com/takodeploy/tako/internal/version"
)

const (
	// maxSignature is how many bytes a signature may have; bases that are larger
	// get longer chunks.
	maxSignature = 4 << 20
	// maxBase is the largest base that is signed, in bytes: reading it has to end
	// before the client loses its patience.
	maxBase = 4 << 30
)

// Base finds the version against which a difference is best made: the nearest
// stored one that is no newer than the given version, else the nearest newer
// one. There being none is a fault NotFound; clients then push the whole.
func (r *Repository) Base(ctx context.Context, space ident.SpaceID, packageID, text string) (p *Package, err error) {
	v, err := version.Parse(version.Octopus, text)
	if err != nil {
		return nil, fault.InvalidField("version", "'%.100s' is no version: %s.", text, err)
	}
	err = r.db.Read(ctx, func(tx *db.Tx) error {
		for _, side := range []string{
			`p.version_key <= ? ORDER BY p.version_key DESC, p.published DESC, p.version_folded DESC LIMIT 1`,
			`p.version_key > ? ORDER BY p.version_key, p.published DESC, p.version_folded DESC LIMIT 1`,
		} {
			p, err = scan(tx.QueryRow(ctx, `SELECT `+columns+` FROM package p WHERE p.space_id = ? AND p.package_folded = ? AND p.size > 0 AND p.size <= ? AND `+side,
				string(space), ident.Fold(packageID), int64(maxBase), version.SortKey(v)).Scan)
			if !errors.Is(err, sql.ErrNoRows) {
				return err
			}
		}
		return fault.New(fault.NotFound, "There is no version of %.100s to send a difference against; send the whole package.", packageID)
	})
	return p, err
}

// Near finds the n stored versions of a package that whoever has the package is most
// likely to have instead of the given one: those before it, the nearest first, then
// those after it.
func (r *Repository) Near(ctx context.Context, tx *db.Tx, space ident.SpaceID, packageID, text string, n int) (all []*Package, err error) {
	v, err := version.Parse(version.Octopus, text)
	if err != nil {
		return nil, fault.InvalidField("version", "'%.100s' is no version: %s.", text, err)
	}
	for _, side := range []string{
		`p.version_key <= ? AND p.version_folded <> ? ORDER BY p.version_key DESC, p.published DESC, p.version_folded DESC LIMIT ?`,
		`p.version_key > ? AND p.version_folded <> ? ORDER BY p.version_key, p.published DESC, p.version_folded DESC LIMIT ?`,
	} {
		err := each(ctx, tx, `SELECT `+columns+` FROM package p WHERE p.space_id = ? AND p.package_folded = ? AND `+side,
			[]any{string(space), ident.Fold(packageID), version.SortKey(v), ident.Fold(text), n - len(all)}, func(p *Package) (bool, error) {
				all = append(all, p)
				return true, nil
			})
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// Signature is the Octodiff signature of a package's content.
func (r *Repository) Signature(ctx context.Context, p *Package) (signature []byte, err error) {
	content, size, err := r.Open(ctx, p)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	var out bytes.Buffer
	if err := octodiff.Sign(ctx, &out, content, octodiff.Chunk(size, maxSignature)); err != nil {
		return nil, fmt.Errorf("sign package %s: %w", p.ID, err)
	}
	return out.Bytes(), nil
}

// PushDelta is Push with the difference to a version that is stored. The result
// is only kept when it is the file that the delta names by its SHA-1.
func (r *Repository) PushDelta(ctx context.Context, space ident.SpaceID, packageID, base, fileName string, delta io.Reader, mode Overwrite) (p *Package, created bool, err error) {
	n, err := parseName(fileName)
	if err != nil {
		return nil, false, err
	}
	if ident.Fold(n.id) != ident.Fold(packageID) {
		return nil, false, fault.InvalidField("file", "The file '%.200s' is of the package %s, and the difference is sent against %.100s; send the whole package.", fileName, n.id, packageID)
	}
	if old, err := r.refusal(ctx, space, n, mode); old != nil || err != nil {
		return old, false, err
	}
	from, err := r.find(ctx, space, packageID, base)
	if err != nil {
		return nil, false, err
	}
	if from == nil {
		return nil, false, fault.New(fault.NotFound, "The package %.100s version %.100s is not in the built-in feed any more; send the whole package.", packageID, base)
	}
	content, size, err := r.Open(ctx, from)
	if err != nil {
		return nil, false, err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	patch, err := octodiff.Apply(content, size, delta, r.limit)
	if err != nil {
		return nil, false, err
	}
	stored, err := r.keep(ctx, n.id+"."+n.version+n.extension, patch)
	if err != nil {
		return nil, false, err
	}
	return r.commit(ctx, space, n, stored, mode)
}
