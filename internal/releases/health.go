package releases

import (
	"context"
	"fmt"
	"slices"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// Target is a deployment target as it is now, and how its policy has it checked.
type Target struct {
	octopus.Machine
	// OnlyConnect asks only whether it answers; else Script is run there, "" for
	// the one that comes with the server.
	OnlyConnect bool
	Script      string
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
			t := Target{Machine: *m}
			t.OnlyConnect, t.Script = healthScript(policies, m.MachinePolicyID)
			out = append(out, t)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the targets of %s: %w", p.OwnerID, err)
	}
	return out, nil
}

// healthScript is how a policy has its machines checked. One that says nothing of its
// own follows the space's default policy.
func healthScript(policies []octopus.MachinePolicy, id string) (onlyConnect bool, script string) {
	own := slices.IndexFunc(policies, func(p octopus.MachinePolicy) bool { return p.ID == id })
	usual := slices.IndexFunc(policies, func(p octopus.MachinePolicy) bool { return p.IsDefault })
	for _, i := range []int{own, usual} {
		if i < 0 {
			continue
		}
		check := &policies[i].MachineHealthCheckPolicy
		bash := &check.BashHealthCheckPolicy
		switch {
		case check.HealthCheckType == octopus.HealthOnlyConnectivity || bash.RunType == octopus.HealthScriptNone:
			return true, ""
		case bash.RunType == octopus.HealthScriptInline:
			return false, string(bash.ScriptBody)
		}
	}
	return false, ""
}

// Health is what a check has found of a target.
type Health struct {
	MachineID string
	Status    octopus.HealthStatus
	Summary   string // a sentence
}

// Checked keeps what checks have found with the targets, and tells of those whose
// health has changed. A target that is gone is passed over.
func (s *Service) Checked(ctx context.Context, found []Health) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		for _, h := range found {
			var m octopus.Machine
			err := s.store.Load(ctx, tx, "machines", h.MachineID, &m)
			if fault.Is(err, fault.NotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if m.HealthStatus == h.Status && m.StatusSummary == h.Summary {
				continue
			}
			was := m.HealthStatus
			m.HealthStatus, m.StatusSummary, m.Status = h.Status, h.Summary, octopus.MachineOnline
			if h.Status == octopus.Unavailable {
				m.Status = octopus.MachineOffline
			}
			if err := s.store.In(tx).Replace(ctx, "machines", m.ID, &m); err != nil {
				return fmt.Errorf("keep the health of %s: %w", m.ID, err)
			}
			if was != h.Status {
				tx.Event(healthEvent(&m))
			}
		}
		return nil
	})
}

func healthEvent(m *octopus.Machine) db.Event {
	category, is := octopus.EventMachineHealthy, "is healthy"
	switch m.HealthStatus {
	case octopus.HealthyWarnings:
		category, is = octopus.EventMachineHasWarnings, "is healthy, with warnings"
	case octopus.Unhealthy:
		category, is = octopus.EventMachineUnhealthy, "is not healthy"
	case octopus.Unavailable:
		category, is = octopus.EventMachineUnavailable, "is not available"
	case octopus.Healthy, octopus.HealthUnknown:
	}
	msg := message{}
	msg.text("Target ").ref(m.ID, m.Name).text(" " + is)
	e := db.Event{
		Category: string(category), SpaceID: m.SpaceID, Message: msg.String(), References: msg.refs,
		Related: append([]string{m.ID}, m.EnvironmentIDs...), DocumentType: "Machine",
	}
	if len(m.EnvironmentIDs) > 0 {
		e.EnvironmentID = m.EnvironmentIDs[0]
	}
	return e
}
