package releases

import (
	"context"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// Replan makes the plan of a past deployment once more, as this version of the program
// would make it: of the same release to the same place, with the same choices and the
// same answers to prompts, over the targets that there are now. Nothing is stored. It
// does not ask whether the deployment would be allowed; what is gone by now (the place,
// the tenant, the project) is a fault NotFound.
func (s *Service) Replan(ctx context.Context, tx *db.Tx, d *octopus.Deployment) (*deploy.Plan, error) {
	r, err := s.Release(ctx, tx, ident.SpaceID(d.SpaceID), d.ReleaseID)
	if err != nil {
		return nil, err
	}
	sc, err := s.stand(ctx, tx, ident.SpaceID(d.SpaceID), r)
	if err != nil {
		return nil, err
	}
	var p place
	if p.environment, err = sc.environment(d.EnvironmentID); err != nil {
		return nil, err
	}
	if d.TenantID != "" {
		if p.tenant, err = sc.tenant(ctx, tx, string(d.TenantID)); err != nil {
			return nil, err
		}
	}
	if err := sc.freeze(ctx, tx, s.newSnapshots()); err != nil {
		return nil, err
	}
	o := optionsOf(d)
	pl, err := sc.think(ctx, tx, p, &o, deploy.Plan{OwnerID: d.ID, ManifestID: d.ManifestVariableSetID, Redeploy: d.ForcePackageRedeployment})
	if err != nil {
		return nil, err
	}
	return pl.Plan, nil
}

// optionsOf are the choices of a deployment that say where its steps run.
func optionsOf(d *octopus.Deployment) Options {
	return Options{
		SkipActions: d.SkipActions, Machines: d.SpecificMachineIDs, ExcludedMachines: d.ExcludedMachineIDs,
		TargetTags: d.SpecificTargetTagIDs, ExcludedTargetTags: d.ExcludedTargetTagIDs, UseGuidedFailure: d.UseGuidedFailure,
	}
}
