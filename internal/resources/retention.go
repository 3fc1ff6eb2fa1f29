package resources

import (
	"context"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// RetentionPolicies are what lifecycles and runbooks of a space keep that leave it
// to the space. There is one of each type; until somebody has changed it there is no
// document, and [DefaultRetention] holds.
func RetentionPolicies() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.RetentionPolicy]{
		Name: "retentionpolicies", ItemType: "RetentionPolicy", Noun: "retention policy", Prefix: "RetentionPolicies",
		Permissions: resource.Permissions{View: "LifecycleView", Edit: "RetentionAdminister"},
		Unnamed:     true, Hidden: true, Order: resource.ByAge,
		Owned: []string{"Name", "RetentionType"},
		Check: func(_ context.Context, _ resource.Reader, _, v *octopus.RetentionPolicy) error {
			if v.Unit == "" {
				v.Unit = octopus.RetentionDays
			}
			if err := oneOf("Strategy", &v.Strategy, octopus.RetentionForever, octopus.RetentionCount); err != nil {
				return err
			}
			if err := oneOf("Unit", &v.Unit, octopus.RetentionDays, octopus.RetentionItems); err != nil {
				return err
			}
			switch {
			case v.Strategy == octopus.RetentionForever:
				v.QuantityToKeep = 0
			case v.QuantityToKeep < 1:
				return fault.InvalidField("QuantityToKeep", "QuantityToKeep is %d; keep at least 1, or choose the strategy Forever.", v.QuantityToKeep)
			}
			return nil
		},
	})
}

// RetentionTypes are the types of retention policies that a space has.
func RetentionTypes() []octopus.RetentionType {
	return []octopus.RetentionType{octopus.RetentionLifecycleRelease, octopus.RetentionLifecycleTentacle, octopus.RetentionRunbook}
}

// RetentionPolicyID is the id of a space's policy of a type.
func RetentionPolicyID(space ident.SpaceID, of octopus.RetentionType) string {
	return "RetentionPolicies-" + string(of) + "-" + string(space)
}

// DefaultRetention is the policy of a space that nobody has changed: everything is kept.
func DefaultRetention(space ident.SpaceID, of octopus.RetentionType) octopus.RetentionPolicy {
	names := map[octopus.RetentionType]string{
		octopus.RetentionLifecycleRelease: "Releases", octopus.RetentionLifecycleTentacle: "Files on targets", octopus.RetentionRunbook: "Runbook runs",
	}
	return octopus.RetentionPolicy{
		Resource: octopus.Resource{ID: RetentionPolicyID(space, of)}, SpaceID: string(space), Name: names[of], RetentionType: of,
		Strategy: octopus.RetentionForever, Unit: octopus.RetentionItems,
	}
}
