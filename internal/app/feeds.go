package app

import (
	"context"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/feed/external"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resources"
)

// feeds finds packages for releases: in the built-in repository, and in external
// feeds.
type feeds struct {
	db     *db.DB
	repo   *feed.Repository
	others *external.Feeds
}

var _ releases.Packages = feeds{}

func builtin(space ident.SpaceID, id string) bool {
	return id == "" || strings.EqualFold(id, "feeds-builtin") || strings.EqualFold(id, resources.BuiltinFeed(space))
}

// Has is releases.Packages.
func (f feeds) Has(ctx context.Context, space ident.SpaceID, feedID, packageID, version string) error {
	if builtin(space, feedID) {
		_, err := f.Find(ctx, space, feedID, packageID, version)
		return err
	}
	_, err := f.others.Version(ctx, space, feedID, packageID, version)
	return err
}

// Find is releases.Packages.
func (f feeds) Find(ctx context.Context, space ident.SpaceID, feedID, packageID, version string) (releases.Package, error) {
	if !builtin(space, feedID) {
		file, err := f.others.Fetch(ctx, space, feedID, packageID, version)
		return releases.Package{FileName: file.Name, SHA256: file.SHA256, Size: file.Size}, err
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

// nearVersions is how many versions of a package are looked for on a target.
const nearVersions = 5

// earlier finds what a target may have of a package already, for orchestrator.Config.
// Of external feeds nothing is known: their versions are fetched one by one.
func (f feeds) earlier(ctx context.Context, p *deploy.Plan, feedID, packageID, version string) (all []releases.Package, err error) {
	space := ident.SpaceID(p.SpaceID)
	if !builtin(space, feedID) {
		return nil, nil
	}
	err = f.db.Read(ctx, func(tx *db.Tx) error {
		near, err := f.repo.Near(ctx, tx, space, packageID, version, nearVersions)
		for _, one := range near {
			all = append(all, releases.Package{FileName: one.FileName(), SHA256: one.SHA256, Size: one.Size})
		}
		return err
	})
	return all, err
}

// Versions is releases.Packages.
func (f feeds) Versions(ctx context.Context, space ident.SpaceID, feedID, packageID string, fn func(version string) bool) error {
	if !builtin(space, feedID) {
		all, err := f.others.Versions(ctx, space, feedID, external.Query{PackageID: packageID})
		for i := 0; i < len(all) && fn(all[i].Version); i++ {
		}
		return err
	}
	return f.db.Read(ctx, func(tx *db.Tx) error {
		return f.repo.Versions(ctx, tx, space, packageID, func(p *feed.Package) bool { return fn(p.Version) })
	})
}
