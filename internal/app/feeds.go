package app

import (
	"context"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resources"
)

// feeds finds packages for releases: in the built-in repository, which is the
// only feed that this version fetches from.
type feeds struct {
	db   *db.DB
	repo *feed.Repository
}

var _ releases.Packages = feeds{}

func (f feeds) builtin(space ident.SpaceID, id string) error {
	if id == "" || strings.EqualFold(id, "feeds-builtin") || strings.EqualFold(id, resources.BuiltinFeed(space)) {
		return nil
	}
	return fault.New(fault.Unsupported, "The feed '%s' is an external one; this server fetches packages from its built-in feed only.", id)
}

// Find is releases.Packages.
func (f feeds) Find(ctx context.Context, space ident.SpaceID, feedID, packageID, version string) (releases.Package, error) {
	if err := f.builtin(space, feedID); err != nil {
		return releases.Package{}, err
	}
	var found *feed.Package
	err := f.db.Read(ctx, func(tx *db.Tx) (err error) {
		found, err = f.repo.Find(ctx, tx, space, packageID, version)
		return err
	})
	if err != nil {
		return releases.Package{}, err
	}
	return releases.Package{FileName: found.FileName(), SHA256: found.SHA256, Size: found.Size}, nil
}

// Versions is releases.Packages.
func (f feeds) Versions(ctx context.Context, space ident.SpaceID, feedID, packageID string, fn func(version string) bool) error {
	if err := f.builtin(space, feedID); err != nil {
		return err
	}
	return f.db.Read(ctx, func(tx *db.Tx) error {
		return f.repo.Versions(ctx, tx, space, packageID, func(p *feed.Package) bool { return fn(p.Version) })
	})
}
