package releases

import (
	"net/http"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// verdict is what retention would make of a release.
type verdict struct {
	ReleaseID string `json:"ReleaseId"`
	ChannelID string `json:"ChannelId"`
	Version   string
	Keep      bool
	Reason    string
	Links     octopus.Links
}

func (a *api) retentionRoutes() []rest.Route {
	return []rest.Route{{
		Method: http.MethodGet, Pattern: "/projects/{project}/retention", Permission: string(octopus.PermReleaseView), Handler: a.retention, Response: of[octopus.Page[verdict]](),
		Query: paged(), Summary: "Tells which releases of a project retention would delete now, and why; it changes nothing.",
	}}
}

func (a *api) retention(r *rest.Request) (any, error) {
	page, err := r.Page()
	if err != nil {
		return nil, err
	}
	page = page.Clamp()
	var items []verdict
	var total int64
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		items, total = []verdict{}, 0
		p, err := a.project(r.Context(), tx, r, r.PathValue("project"))
		if err != nil {
			return err
		}
		if err := r.Allow(string(octopus.PermReleaseView), rest.Target{Project: p.ID, ProjectGroup: p.ProjectGroupID}); err != nil {
			return fault.Missing("project", p.ID)
		}
		return a.service.Retention(r.Context(), tx, p, func(v releases.RetentionVerdict) error {
			if total >= page.Skip && total < page.Skip+page.Take {
				items = append(items, verdict{
					ReleaseID: v.ReleaseID, ChannelID: v.ChannelID, Version: v.Version, Keep: v.Keep, Reason: v.Reason,
					Links: octopus.Links{"Release": r.SpaceHref("/releases/" + v.ReleaseID)},
				})
			}
			total++
			return nil
		})
	})
	if err != nil {
		return nil, err
	}
	return rest.PageOf(r, "RetentionVerdict", page, total, items), nil
}
