package packages

import (
	"context"
	"net/url"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/retention"
	"github.com/takodeploy/tako/octopus"
)

// verdict is what retention would make of a version of a package.
type verdict struct {
	ID        string `json:"Id"`
	PackageID string `json:"PackageId"`
	Version   string
	Keep      bool
	Reason    string
	Links     octopus.Links
}

// called leaves it at the ids of releases: who sees packages need not see projects.
// Who does not see all releases is not told which they are.
func called(r *rest.Request) feed.Names {
	return func(_ context.Context, _ *db.Tx, owners []string) (map[string]string, error) {
		if r.Grants(string(octopus.PermReleaseView)) == nil {
			return nil, nil
		}
		names := make(map[string]string, len(owners))
		for _, id := range owners {
			names[id] = ""
		}
		return names, nil
	}
}

func (a *api) retention(r *rest.Request) (any, error) {
	page, err := r.Page()
	if err != nil {
		return nil, err
	}
	var found []feed.Verdict
	var total int64
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		policy, err := retention.Policy(r.Context(), tx, a.store, r.Space)
		if err != nil {
			return err
		}
		found, total, err = a.repo.Verdicts(r.Context(), tx, r.Space, policy, called(r), page)
		return err
	})
	if err != nil {
		return nil, err
	}
	items := make([]verdict, len(found))
	for i, v := range found {
		items[i] = verdict{
			ID: v.ID, PackageID: v.PackageID, Version: v.Version, Keep: !v.Delete, Reason: v.Reason,
			Links: octopus.Links{"Package": r.SpaceHref("/packages/" + url.PathEscape(v.ID))},
		}
	}
	return rest.PageOf(r, "PackageRetentionVerdict", page, total, items), nil
}
