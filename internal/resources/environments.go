package resources

import (
	"context"

	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Environments are the places that releases go to, in the order of their SortOrder.
func Environments() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.Environment]{
		Name: "environments", ItemType: "Environment", Prefix: "Environments",
		Permissions: resource.Permissions{View: "EnvironmentView", Create: "EnvironmentCreate", Edit: "EnvironmentEdit", Delete: "EnvironmentDelete"},
		Dimensions:  resource.Dimensions{Environment: "Id"},
		Order:       resource.ByNumber, Slugged: true,
		Links: map[string]string{"Machines": "/api/{space}/environments/{Id}/machines{?skip,take,partialName,roles,isDisabled,healthStatuses,commStyles,tenantIds,tenantTags}"},
		Check: func(ctx context.Context, r resource.Reader, old, v *octopus.Environment) error {
			var had octopus.List[string]
			if old != nil {
				had = old.EnvironmentTags
			}
			err := checkTags(ctx, r, v.SpaceID, octopus.TagScopeEnvironment, "EnvironmentTags", v.EnvironmentTags, had)
			if err != nil || old != nil || v.SortOrder != 0 {
				return err
			}
			last, err := lastNumber(ctx, r, "environments", v.SpaceID)
			v.SortOrder = last + 1 // a new one goes to the end
			return err
		},
	})
}

// lastNumber is the highest SortOrder of a kind in a space, -1 when there is none.
func lastNumber(ctx context.Context, r resource.Reader, kind, space string) (int, error) {
	var n int
	err := r.Tx().QueryRow(ctx, `SELECT coalesce(max(d.sort), -1) FROM documents d WHERE d.kind = ? AND d.space_id = ? AND d.deleted = 0`, kind, space).Scan(&n)
	return n, err
}
