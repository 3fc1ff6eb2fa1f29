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
	// MayBeOffline tells that nobody minds when it is not available.
	MayBeOffline bool
}

// Planned is the target as plans know it.
func (t *Target) Planned() deploy.Machine { return planned(&t.Machine, t.MayBeOffline) }

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
			if m.IsDisabled || !serves(m, tenant) || !chosen(m, d.SpecificMachineIDs, d.ExcludedMachineIDs, d.SpecificTargetTagIDs, d.ExcludedTargetTagIDs) {
				continue
			}
			out = append(out, Target{Machine: *m, Policy: resources.HealthPolicyOf(policies, m.MachinePolicyID), MayBeOffline: mayBeOffline(policies, m)})
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the targets of %s: %w", p.OwnerID, err)
	}
	return out, nil
}

// mayBeOffline reports whether a machine's policy lets it be unavailable; one without
// a policy has the space's default one.
func mayBeOffline(policies []octopus.MachinePolicy, m *octopus.Machine) bool {
	i := slices.IndexFunc(policies, func(p octopus.MachinePolicy) bool { return p.ID == m.MachinePolicyID })
	if i < 0 {
		i = slices.IndexFunc(policies, func(p octopus.MachinePolicy) bool { return p.IsDefault })
	}
	return i >= 0 && policies[i].MachineConnectivityPolicy.MachineConnectivityBehavior == octopus.MayBeOffline
}

// machinePolicies are those of the space, nil where there are no machines.
func (sc *scene) machinePolicies(ctx context.Context, tx *db.Tx, machines int) ([]octopus.MachinePolicy, error) {
	if machines == 0 || sc.policies != nil {
		return sc.policies, nil
	}
	found, err := all[octopus.MachinePolicy](ctx, sc.s, tx, sc.space, "machinepolicies")
	if err != nil {
		return nil, err
	}
	sc.policies = found
	return found, nil
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
