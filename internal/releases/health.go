package releases

import (
	"context"
	"fmt"
	"slices"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/octopus"
)

// Target is a deployment target as it is now, and how its policy has it checked.
type Target struct {
	octopus.Machine
	Policy resources.HealthPolicy
}

// Targets are the targets that a deployment could have if it were made now: those of
// its environment that are enabled, serve its tenant, and are among those that it was
// limited to.
func (s *Service) Targets(ctx context.Context, p *deploy.Plan) ([]Target, error) {
	var out []Target
	space := ident.SpaceID(p.SpaceID)
	err := s.db.Read(ctx, func(tx *db.Tx) error {
		out = nil
		d, err := s.Deployment(ctx, tx, space, p.OwnerID)
		if err != nil {
			return err
		}
		var tenant *octopus.Tenant
		if p.TenantID != "" {
			if tenant, err = get[octopus.Tenant](ctx, s, tx, space, tenantKind, p.TenantID); err != nil {
				return err
			}
		}
		machines, err := all[octopus.Machine](ctx, s, tx, space, "machines", docstore.Match{Path: "EnvironmentIds", Any: []string{p.EnvironmentID}})
		if err != nil {
			return err
		}
		policies, err := all[octopus.MachinePolicy](ctx, s, tx, space, "machinepolicies")
		if err != nil {
			return err
		}
		for i := range machines {
			m := &machines[i]
			if len(out) == deploy.MaxMachines {
				break // a deployment has no more
			}
			if m.IsDisabled || !serves(m, tenant) || len(d.SpecificMachineIDs) > 0 && !slices.Contains(d.SpecificMachineIDs, m.ID) || slices.Contains(d.ExcludedMachineIDs, m.ID) {
				continue
			}
			out = append(out, Target{Machine: *m, Policy: resources.HealthPolicyOf(policies, m.MachinePolicyID)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the targets of %s: %w", p.OwnerID, err)
	}
	return out, nil
}

// Checked keeps what checks have found with the targets, and tells of those whose
// health has changed. A target that is gone is passed over.
func (s *Service) Checked(ctx context.Context, found []resources.MachineCheck) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		for _, c := range found {
			if err := resources.KeepCheck(ctx, s.store.In(tx), c); err != nil {
				return err
			}
		}
		return nil
	})
}
