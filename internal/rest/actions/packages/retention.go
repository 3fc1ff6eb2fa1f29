package packages

import (
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
		found, total, err = a.repo.Verdicts(r.Context(), tx, r.Space, policy, nil, page)
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
