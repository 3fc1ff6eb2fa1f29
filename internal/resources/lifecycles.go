package resources

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/google/uuid"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Lifecycles say in which order releases go through environments.
func Lifecycles() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.Lifecycle]{
		Name: "lifecycles", ItemType: "Lifecycle", Prefix: "Lifecycles", Slugged: true,
		Permissions: resource.Permissions{View: "LifecycleView", Create: "LifecycleCreate", Edit: "LifecycleEdit", Delete: "LifecycleDelete"},
		References: []resource.Reference{
			{Path: "Phases.*.AutomaticDeploymentTargets", To: "environments"},
			{Path: "Phases.*.OptionalDeploymentTargets", To: "environments"},
		},
		Links: map[string]string{"Projects": "/api/{space}/lifecycles/{Id}/projects"},
		Prepare: func(v *octopus.Lifecycle) {
			if v.ReleaseRetentionPolicy == nil {
				v.ReleaseRetentionPolicy = defaultRetention()
			}
			if v.TentacleRetentionPolicy == nil {
				v.TentacleRetentionPolicy = defaultRetention()
			}
		},
		Check: checkLifecycle,
	})
}

func defaultRetention() *octopus.RetentionPeriod {
	return &octopus.RetentionPeriod{Strategy: "Default", Unit: "Days", ShouldKeepForever: true}
}

func checkLifecycle(_ context.Context, _ resource.Reader, _, v *octopus.Lifecycle) error {
	faults := []error{checkRetention("ReleaseRetentionPolicy", v.ReleaseRetentionPolicy), checkRetention("TentacleRetentionPolicy", v.TentacleRetentionPolicy)}
	names := map[string]bool{}
	for i := range v.Phases {
		p := &v.Phases[i]
		if p.ID == "" {
			p.ID = uuid.NewString()
		}
		field := fmt.Sprintf("Phases[%d]", i)
		switch folded := ident.Fold(p.Name); {
		case folded == "":
			faults = append(faults, fault.InvalidField(field+".Name", "%s.Name is empty; give the phase a name.", field))
		case names[folded]:
			faults = append(faults, fault.InvalidField(field+".Name", "%s.Name is '%s', which another phase has too; choose another one.", field, p.Name))
		default:
			names[folded] = true
		}
		faults = append(faults, checkRetention(field+".ReleaseRetentionPolicy", p.ReleaseRetentionPolicy), checkRetention(field+".TentacleRetentionPolicy", p.TentacleRetentionPolicy))
		for _, env := range p.AutomaticDeploymentTargets {
			if slices.Contains(p.OptionalDeploymentTargets, env) {
				faults = append(faults, fault.InvalidField(field, "%s has '%s' both as automatic and as optional target; keep one.", field, env))
			}
		}
		if p.MinimumEnvironmentsBeforePromotion < 0 {
			faults = append(faults, fault.InvalidField(field+".MinimumEnvironmentsBeforePromotion",
				"%s.MinimumEnvironmentsBeforePromotion is %d; use 0 for all environments or a positive number.", field, p.MinimumEnvironmentsBeforePromotion))
		}
	}
	return errors.Join(faults...)
}

// checkRetention refuses what retention could not follow. Clients of old say no
// strategy: ShouldKeepForever and the quantity tell.
func checkRetention(field string, p *octopus.RetentionPeriod) error {
	if p == nil {
		return nil
	}
	var faults []error
	if p.Strategy != "" {
		faults = append(faults, oneOf(field+".Strategy", &p.Strategy, octopus.RetentionDefault, octopus.RetentionForever, octopus.RetentionCount))
	}
	if p.Unit != "" {
		faults = append(faults, oneOf(field+".Unit", &p.Unit, octopus.RetentionDays, octopus.RetentionItems))
	}
	if p.QuantityToKeep < 0 {
		faults = append(faults, fault.InvalidField(field+".QuantityToKeep", "%s.QuantityToKeep is %d; use 0 to keep all, or a positive number.", field, p.QuantityToKeep))
	}
	return errors.Join(faults...)
}
