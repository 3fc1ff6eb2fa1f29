package releases

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/timetable"
	"github.com/takodeploy/tako/octopus"
)

// holding is a freeze of a place, whether it holds, and until when.
type holding struct {
	freeze *octopus.DeploymentFreeze
	holds  bool
	until  time.Time
}

// named reports whether a freeze is among those that names mean.
func (h *holding) named(names []string) bool {
	return slices.ContainsFunc(names, func(name string) bool { return matches(strings.TrimSpace(name), h.freeze.ID, "", h.freeze.Name) })
}

// holding are the freezes that cover a place, with what they say of an instant.
func (sc *scene) holding(ctx context.Context, tx *db.Tx, p place, at time.Time) ([]holding, error) {
	if sc.freezes == nil {
		found, err := sc.s.freezesOf(ctx, tx, sc.project.ID)
		if err != nil {
			return nil, err
		}
		sc.freezes = &found
	}
	return holdingOf(*sc.freezes, sc.project.ID, p.environment.ID, p.tenantID(), at)
}

func holdingOf(all []octopus.DeploymentFreeze, project, environment, tenant string, at time.Time) ([]holding, error) {
	var out []holding
	for i := range all {
		f := &all[i]
		if !covers(f, project, environment, tenant) {
			continue
		}
		times, err := timetable.FreezeOf(f)
		if err != nil {
			return nil, fmt.Errorf("read the times of %s: %w", f.ID, err)
		}
		until, ok := times.Holds(at)
		out = append(out, holding{f, ok, until})
	}
	return out, nil
}

// covers reports whether a freeze is for a place: a project in an environment, which
// is all of its tenants, or one tenant there.
func covers(f *octopus.DeploymentFreeze, project, environment, tenant string) bool {
	for id, environments := range f.ProjectEnvironmentScope {
		if strings.EqualFold(id, project) && slices.ContainsFunc(environments, func(e string) bool { return strings.EqualFold(e, environment) }) {
			return true
		}
	}
	return tenant != "" && slices.ContainsFunc(f.TenantProjectEnvironmentScope, func(t octopus.TenantProjectEnvironment) bool {
		return strings.EqualFold(t.TenantID, tenant) && strings.EqualFold(t.ProjectID, project) && strings.EqualFold(t.EnvironmentID, environment)
	})
}

// freezesOf are the freezes that name a project, in the order of their names.
func (s *Service) freezesOf(ctx context.Context, tx *db.Tx, project string) ([]octopus.DeploymentFreeze, error) {
	if !s.knows(resources.FreezeKind) {
		return nil, nil
	}
	rows, err := tx.Query(ctx, `SELECT DISTINCT x.id FROM document_index x WHERE x.kind = ? AND x.field IN (?, ?) AND x.value = ?`,
		resources.FreezeKind, resources.FreezeProjects, resources.FreezeTenantProjects, ident.Fold(project))
	if err != nil {
		return nil, fmt.Errorf("read the freezes of %s: %w", project, err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("read the freezes of %s: %w", project, err)
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil || len(ids) == 0 {
		return nil, err
	}
	return docstore.All[octopus.DeploymentFreeze](ctx, s.store, tx, resources.FreezeKind, docstore.Query{IDs: ids})
}

// thaw checks that no freeze keeps a deployment from a place when it is to start, and
// returns the names of the freezes that it overrides. These may also be such as do not
// hold yet: who may override them may have a deployment wait into them.
func (sc *scene) thaw(ctx context.Context, tx *db.Tx, p place, o *Options, allow Allow) ([]string, error) {
	if o.IgnoreFreezes {
		return nil, nil
	}
	at := tx.Now()
	if o.QueueTime.After(at) {
		at = o.QueueTime
	}
	all, err := sc.holding(ctx, tx, p, at)
	if err != nil {
		return nil, err
	}
	var overridden []string
	for _, h := range all {
		named := h.named(o.FreezeNames)
		if h.holds && !named {
			return nil, invalid("DeploymentFreezeNames", "%s", h.refusal(sc.project.Name, p.name()))
		}
		if !named {
			continue
		}
		err := allow.check(octopus.PermDeploymentFreezeAdminister, auth.Target{})
		if err != nil && h.holds {
			return nil, err
		}
		if err == nil {
			overridden = append(overridden, h.freeze.Name)
		}
	}
	return overridden, nil
}

// refusal says what a freeze keeps from happening, and what can be done.
func (h *holding) refusal(project, where string) string {
	return fmt.Sprintf("The deployment freeze '%s' keeps the project '%s' from being deployed to %s until %s; deploy after that, or have somebody with the permission %s override it by its name and with a reason.",
		h.freeze.Name, project, where, octopus.NewTime(h.until.UTC()), octopus.PermDeploymentFreezeAdminister)
}

// MayStart checks that no freeze holds that the deployment of a plan does not
// override: it may have been made, or have changed, while the deployment waited. The
// error is fault.Invalid and says which freeze it is and when it ends.
func (s *Service) MayStart(ctx context.Context, tx *db.Tx, p *deploy.Plan) error {
	d, err := s.Deployment(ctx, tx, ident.SpaceID(p.SpaceID), p.OwnerID)
	if fault.Is(err, fault.NotFound) {
		return nil // deleted meanwhile, or no deployment
	}
	if err != nil {
		return err
	}
	all, err := s.freezesOf(ctx, tx, d.ProjectID)
	if err != nil || len(all) == 0 {
		return err
	}
	found, err := holdingOf(all, d.ProjectID, d.EnvironmentID, string(d.TenantID), tx.Now())
	if err != nil {
		return err
	}
	i := slices.IndexFunc(found, func(h holding) bool { return h.holds && !h.named(d.DeploymentFreezeNames) })
	if i < 0 {
		return nil
	}
	m, err := readManifest(ctx, tx, d.ManifestVariableSetID)
	if err != nil || m.IgnoreFreezes {
		return err
	}
	project, err := get[octopus.Project](ctx, s, tx, ident.SpaceID(d.SpaceID), "projects", d.ProjectID)
	if err != nil {
		return err
	}
	environment, err := get[octopus.Environment](ctx, s, tx, ident.SpaceID(d.SpaceID), "environments", d.EnvironmentID)
	if err != nil {
		return err
	}
	return invalid("DeploymentFreezeNames", "%s", found[i].refusal(project.Name, environment.Name))
}
