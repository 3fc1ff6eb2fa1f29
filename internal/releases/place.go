package releases

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/lifecycle"
	"github.com/takodeploy/tako/octopus"
)

// scene is a release with all that decides where it may go: read once for all
// deployments of a request.
type scene struct {
	s     *Service
	space ident.SpaceID

	release      *octopus.Release
	project      *octopus.Project
	channel      *octopus.Channel
	lifecycle    *octopus.Lifecycle
	environments []octopus.Environment
	successes    []lifecycle.Success
	defect       bool

	frozen *frozen
	values *values

	machines map[string][]octopus.Machine // by environment
	policies []octopus.MachinePolicy      // nil until they are read
	freezes  *[]octopus.DeploymentFreeze  // that name the project; nil until they are read
}

// scene reads what belongs to a release.
func (s *Service) scene(ctx context.Context, tx *db.Tx, space ident.SpaceID, r *octopus.Release) (*scene, error) {
	sc, err := s.stand(ctx, tx, space, r)
	if err != nil {
		return nil, err
	}
	if sc.successes, err = successes(ctx, tx, r.ID); err != nil {
		return nil, err
	}
	sc.defect, err = hasDefect(ctx, tx, r.ID)
	return sc, err
}

// stand is a scene without what has happened on it: enough to plan, and not to say whether
// a deployment is allowed.
func (s *Service) stand(ctx context.Context, tx *db.Tx, space ident.SpaceID, r *octopus.Release) (*scene, error) {
	sc := &scene{s: s, space: space, release: r, machines: map[string][]octopus.Machine{}}
	var err error
	if sc.project, err = get[octopus.Project](ctx, s, tx, space, "projects", r.ProjectID); err != nil {
		return nil, err
	}
	if sc.channel, err = get[octopus.Channel](ctx, s, tx, space, "channels", r.ChannelID); err != nil {
		return nil, err
	}
	if sc.lifecycle, err = get[octopus.Lifecycle](ctx, s, tx, space, "lifecycles", cmp.Or(string(sc.channel.LifecycleID), sc.project.LifecycleID)); err != nil {
		return nil, err
	}
	sc.environments, err = s.allEnvironments(ctx, tx, space)
	return sc, err
}

// freeze reads what the release has frozen.
func (sc *scene) freeze(ctx context.Context, tx *db.Tx, c *snapshots) (err error) {
	if sc.frozen, err = c.load(ctx, tx, sc.space, sc.release); err != nil {
		return err
	}
	sc.values = valuesOf(sc.frozen.sets)
	return nil
}

// progress is where the release stands, for a tenant or for nobody.
func (sc *scene) progress(t *octopus.Tenant) lifecycle.Result {
	in := lifecycle.Input{Lifecycle: *sc.lifecycle, Environments: sc.environments, Successes: sc.successes, HasDefect: sc.defect}
	if t != nil {
		in.Tenant = &lifecycle.Tenant{ID: t.ID, EnvironmentIDs: t.ProjectEnvironments[sc.project.ID]}
	}
	return lifecycle.Progress(in)
}

// environment finds an environment by id, slug or name.
func (sc *scene) environment(ref string) (*octopus.Environment, error) {
	i := slices.IndexFunc(sc.environments, func(e octopus.Environment) bool { return matches(ref, e.ID, e.Slug, e.Name) })
	if i < 0 {
		return nil, fault.Missing("environment", ref)
	}
	return &sc.environments[i], nil
}

const tenantKind = "tenants"

// tenant finds a tenant by id, slug or name.
func (sc *scene) tenant(ctx context.Context, tx *db.Tx, ref string) (*octopus.Tenant, error) {
	if !sc.s.knows(tenantKind) {
		return nil, fault.Missing("tenant", ref)
	}
	return get[octopus.Tenant](ctx, sc.s, tx, sc.space, tenantKind, ref)
}

// tenants are those that are connected to the project in an environment ("" is
// any) and that the channel lets in.
func (sc *scene) tenants(ctx context.Context, tx *db.Tx, environment string) ([]octopus.Tenant, error) {
	if !sc.s.knows(tenantKind) {
		return nil, nil
	}
	found, err := all[octopus.Tenant](ctx, sc.s, tx, sc.space, tenantKind, docstore.Match{Path: "ProjectEnvironments.*key", Any: []string{sc.project.ID}})
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(found, func(t octopus.Tenant) bool {
		here := environment == "" || slices.Contains(t.ProjectEnvironments[sc.project.ID], environment)
		return t.IsDisabled || !here || !deploy.MatchTags(sc.channel.TenantTags, t.TenantTags)
	}), nil
}

// targets are the enabled targets of an environment.
func (sc *scene) targets(ctx context.Context, tx *db.Tx, environment string) ([]octopus.Machine, error) {
	if found, ok := sc.machines[environment]; ok {
		return found, nil
	}
	found, err := all[octopus.Machine](ctx, sc.s, tx, sc.space, "machines", docstore.Match{Path: "EnvironmentIds", Any: []string{environment}})
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(m octopus.Machine) bool { return m.IsDisabled })
	sc.machines[environment] = found
	return found, nil
}

// serves reports whether a target takes part in deployments for a tenant, or for
// nobody when t is nil.
func serves(m *octopus.Machine, t *octopus.Tenant) bool {
	if t == nil {
		return m.TenantedDeploymentParticipation != octopus.Tenanted
	}
	if m.TenantedDeploymentParticipation != octopus.Tenanted && m.TenantedDeploymentParticipation != octopus.TenantedOrUntenanted {
		return false
	}
	return slices.ContainsFunc(m.TenantIDs, func(id string) bool { return strings.EqualFold(id, t.ID) }) ||
		len(m.TenantTags) > 0 && deploy.MatchTags(m.TenantTags, t.TenantTags)
}

// chosenMachines are the ids of targets that were named by id or name. Each must
// be a target of the environment.
func chosenMachines(field string, refs []string, machines []octopus.Machine, environment *octopus.Environment) ([]string, error) {
	var ids []string
	for _, ref := range refs {
		i := slices.IndexFunc(machines, func(m octopus.Machine) bool { return matches(ref, m.ID, m.Slug, m.Name) })
		if i < 0 {
			return nil, invalid(field, "%s names '%.100s', which is no enabled deployment target of the environment '%s'.", field, ref, environment.Name)
		}
		if !slices.Contains(ids, machines[i].ID) {
			ids = append(ids, machines[i].ID)
		}
	}
	return ids, nil
}

// chosenTags checks target tags that were named: some target must have each of them.
func chosenTags(field string, refs []string, machines []octopus.Machine, environment *octopus.Environment) ([]string, error) {
	var tags []string
	for _, ref := range refs {
		if !slices.ContainsFunc(machines, func(m octopus.Machine) bool { return tagged(&m, []string{ref}) }) {
			return nil, invalid(field, "%s names the target tag '%.100s', which no enabled deployment target of the environment '%s' has.", field, ref, environment.Name)
		}
		tags = append(tags, ref)
	}
	return tags, nil
}
