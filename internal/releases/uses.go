package releases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// usedBy are the packages that a release is made of: all of its process, also of
// actions that are disabled or belong to other channels, since both can change. An
// id or a version that is an expression can be any.
func usedBy(steps []octopus.Step, r *octopus.Release) []feed.Used {
	known := func(text string) string {
		if bound(text) {
			return feed.Any
		}
		return text
	}
	versions := selected(r)
	var out []feed.Used
	for _, step := range steps {
		for _, a := range step.Actions {
			for _, p := range a.Packages {
				u := feed.Used{PackageID: known(p.PackageID), Version: versions[key(a.Name, p.Name)]}
				if p.Version != "" {
					u.Version = known(string(p.Version))
				}
				if u.PackageID != "" && u.Version != "" && !strings.EqualFold(p.FeedID, ReleasesFeed) && !slices.Contains(out, u) {
					out = append(out, u)
				}
			}
		}
	}
	return out
}

// usePackages notes the packages of a release as its snapshot has them.
func (s *Service) usePackages(ctx context.Context, tx *db.Tx, r *octopus.Release) error {
	process, err := get[octopus.DeploymentProcess](ctx, s, tx, ident.SpaceID(r.SpaceID), ProcessSnapshots, r.ProjectDeploymentProcessSnapshotID)
	if fault.Is(err, fault.NotFound) {
		// Nobody knows what it is made of: it may be anything.
		return feed.Use(ctx, tx, ident.SpaceID(r.SpaceID), r.ID, []feed.Used{{PackageID: feed.Any, Version: feed.Any}})
	}
	if err != nil {
		return err
	}
	return feed.Use(ctx, tx, ident.SpaceID(r.SpaceID), r.ID, usedBy(process.Steps, r))
}

// UsePackages notes the packages of those releases that were made by a version of
// the server that did not do so. Retention of packages comes after it.
func (s *Service) UsePackages(ctx context.Context) error {
	const batch = 100
	for {
		n := 0
		err := s.db.Write(ctx, func(tx *db.Tx) error {
			rows, err := tx.Query(ctx, `SELECT r.body FROM release r WHERE NOT EXISTS (SELECT 1 FROM package_use u WHERE u.owner = r.id) LIMIT ?`, int64(batch))
			if err != nil {
				return fmt.Errorf("list releases without packages: %w", err)
			}
			found, err := bodies[octopus.Release](rows)
			if err != nil {
				return fmt.Errorf("list releases without packages: %w", err)
			}
			for i := range found {
				if err := s.usePackages(ctx, tx, &found[i]); err != nil {
					return err
				}
			}
			n = len(found)
			return nil
		})
		if err != nil || n < batch {
			return err
		}
	}
}

// Names is feed.Names for the releases of a space: their project and version.
func (s *Service) Names(ctx context.Context, tx *db.Tx, owners []string) (map[string]string, error) {
	out := map[string]string{}
	const piece = 500 // of what a statement takes
	for some := range slices.Chunk(owners, piece) {
		if err := s.addNames(ctx, tx, some, out); err != nil {
			return nil, fmt.Errorf("read names of releases: %w", err)
		}
	}
	return out, nil
}

func (s *Service) addNames(ctx context.Context, tx *db.Tx, owners []string, to map[string]string) error {
	var args []any
	rows, err := tx.Query(ctx, `SELECT r.id, r.version, r.project_id, r.space_id FROM release r WHERE `+in("r.id", owners, &args), args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()  // Err tells
	versions := map[string][][2]string{} // by project
	var projects docstore.Query
	for rows.Next() {
		var id, version, project string
		if err := rows.Scan(&id, &version, &project, &projects.Space); err != nil {
			return err
		}
		if versions[project] == nil {
			projects.IDs = append(projects.IDs, project)
		}
		versions[project] = append(versions[project], [2]string{id, version})
		to[id] = project + " " + version // of one that is being deleted
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(projects.IDs) == 0 {
		return err
	}
	return s.store.Each(ctx, tx, "projects", projects, func(doc *docstore.Doc) error {
		p, err := docstore.Decode[octopus.Project](doc)
		if err != nil {
			return err
		}
		for _, v := range versions[p.ID] {
			to[v[0]] = p.Name + " " + v[1]
		}
		return nil
	})
}

var _ feed.Names = (*Service)(nil).Names
