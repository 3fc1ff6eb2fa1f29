package releases

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// Renewal is a deployment that brings some targets to what the others at a place have.
type Renewal struct {
	ReleaseID, Version       string
	EnvironmentID, TenantID  string
	Machines, SkippedActions []string
}

// recent is how many deployments of a release to a place are looked at for whether a
// target was among theirs.
const recent = 50

// Renewals are the deployments of a project that targets lack: at each place where they
// take part, of the release that was last deployed there with success, or that was chosen
// for such deployments, with the steps that were left out then. A target that was deployed
// to with that release is left out unless again.
func (s *Service) Renewals(ctx context.Context, tx *db.Tx, project *octopus.Project, machines []octopus.Machine, again bool) ([]Renewal, error) {
	space := ident.SpaceID(project.SpaceID)
	var environments []string
	for i := range machines {
		for _, id := range machines[i].EnvironmentIDs {
			if !slices.Contains(environments, id) {
				environments = append(environments, id)
			}
		}
	}
	if len(environments) == 0 {
		return nil, nil
	}
	places, err := s.renewed(ctx, tx, project, environments)
	if err != nil {
		return nil, err
	}
	tenants := map[string]*octopus.Tenant{}
	var out []Renewal
	for _, p := range places {
		var tenant *octopus.Tenant
		if p.TenantID != "" {
			if tenants[p.TenantID] == nil {
				found, err := docstore.All[octopus.Tenant](ctx, s.store, tx, tenantKind, docstore.Query{Space: space, IDs: []string{p.TenantID}})
				if err != nil {
					return nil, err
				}
				if len(found) == 0 {
					continue
				}
				tenants[p.TenantID] = &found[0]
			}
			if tenant = tenants[p.TenantID]; tenant.IsDisabled {
				continue
			}
		}
		had, err := s.deployedTo(ctx, tx, &p)
		if err != nil {
			return nil, err
		}
		for i := range machines {
			m := &machines[i]
			if slices.Contains(m.EnvironmentIDs, p.EnvironmentID) && serves(m, tenant) && (again || !had[m.ID]) {
				p.Machines = append(p.Machines, m.ID)
			}
		}
		if len(p.Machines) > 0 {
			out = append(out, p)
		}
	}
	return out, nil
}

// renewed are the places where a project is, with what is there or was chosen for it.
func (s *Service) renewed(ctx context.Context, tx *db.Tx, project *octopus.Project, environments []string) ([]Renewal, error) {
	latest, err := s.Currents(ctx, tx, CurrentQuery{Space: ident.SpaceID(project.SpaceID), Projects: []string{project.ID}, Environments: environments})
	if err != nil {
		return nil, err
	}
	var out []Renewal
	for _, c := range latest {
		out = append(out, Renewal{ReleaseID: c.ReleaseID, EnvironmentID: c.EnvironmentID, TenantID: c.TenantID})
	}
	for _, o := range project.AutoDeployReleaseOverrides {
		if !slices.Contains(environments, o.EnvironmentID) {
			continue
		}
		i := slices.IndexFunc(out, func(r Renewal) bool {
			return r.EnvironmentID == o.EnvironmentID && strings.EqualFold(r.TenantID, string(o.TenantID))
		})
		if i < 0 {
			out = append(out, Renewal{EnvironmentID: o.EnvironmentID, TenantID: string(o.TenantID)})
			i = len(out) - 1
		}
		out[i].ReleaseID = o.ReleaseID
	}
	kept := out[:0]
	for _, r := range out {
		release, err := s.Release(ctx, tx, ident.SpaceID(project.SpaceID), r.ReleaseID)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		r.Version = release.Version
		kept = append(kept, r)
	}
	return kept, nil
}

// deployedTo are the targets of the latest successful deployments of a release to a
// place; the steps that the last of them left out are noted on r.
func (s *Service) deployedTo(ctx context.Context, tx *db.Tx, r *Renewal) (map[string]bool, error) {
	rows, err := tx.Query(ctx, `SELECT d.body FROM deployment d WHERE d.release_id = ? AND d.environment_id = ? AND d.tenant_id = ? AND d.state = 'Success'
		ORDER BY d.completed DESC, d.seq DESC LIMIT ?`, r.ReleaseID, r.EnvironmentID, r.TenantID, int64(recent))
	if err != nil {
		return nil, fmt.Errorf("read what was deployed to: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	had := map[string]bool{}
	for first := true; rows.Next(); first = false {
		var body string
		var d octopus.Deployment
		if err := rows.Scan(&body); err != nil {
			return nil, fmt.Errorf("read what was deployed to: %w", err)
		}
		if err := json.Unmarshal([]byte(body), &d); err != nil {
			return nil, fmt.Errorf("decode deployment: %w", err)
		}
		if first {
			r.SkippedActions = d.SkipActions
		}
		for _, id := range d.DeployedToMachineIDs {
			had[id] = true
		}
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read what was deployed to: %w", err)
	}
	return had, nil
}
