package releases

import (
	"context"
	"fmt"
	"slices"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/lifecycle"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// maxShown bounds the deployments that a progression lists.
const maxShown = 500

// Progression is where a release stands in its lifecycle, with its newest
// deployments in each phase: those that one of the grants covers. Of a release
// that is deployed for tenants a place counts as soon as any tenant has it. The
// tasks of the deployments are for the caller to fill in.
func (s *Service) Progression(ctx context.Context, tx *db.Tx, r *octopus.Release, sight Sight) (*octopus.LifecycleProgression, error) {
	sc, err := s.scene(ctx, tx, ident.SpaceID(r.SpaceID), r)
	if err != nil {
		return nil, err
	}
	result := lifecycle.Progress(lifecycle.Input{
		Lifecycle: *sc.lifecycle, Environments: sc.environments, Successes: sc.successes, HasDefect: sc.defect,
		AnyTenant: sc.project.TenantedDeploymentMode != octopus.Untenanted,
	})
	found, _, err := s.Deployments(ctx, tx, DeploymentQuery{Space: sc.space, Release: r.ID, Visible: sight.Deployments, Page: ident.Page{Take: maxShown}})
	if err != nil {
		return nil, err
	}
	seen, err := s.seen(ctx, tx, sc.space, sight)
	if err != nil {
		return nil, err
	}
	doc := result.Document()
	for i := range doc.Phases {
		for j := range found {
			if slices.Contains(result.Phases[i].EnvironmentIDs, found[j].EnvironmentID) {
				doc.Phases[i].Deployments = append(doc.Phases[i].Deployments, octopus.PhaseDeployment{Deployment: &found[j]})
			}
		}
	}
	cut(&doc, seen)
	return &doc, nil
}

// cut takes the environments out of a progression that are not seen, and with them
// the phases of a lifecycle without phases, which have the environments' names. Other
// phases stay: they tell what the release still waits for.
func cut(doc *octopus.LifecycleProgression, seen func(id string) bool) {
	if seen == nil {
		return
	}
	hidden := func(id string) bool { return !seen(id) }
	doc.NextDeployments = slices.DeleteFunc(slices.Clone(doc.NextDeployments), hidden)
	doc.NextDeploymentsMinimumRequired = min(doc.NextDeploymentsMinimumRequired, len(doc.NextDeployments))
	doc.Phases = slices.DeleteFunc(doc.Phases, func(p octopus.PhaseProgression) bool {
		targets := slices.Concat(p.AutomaticDeploymentTargets, p.OptionalDeploymentTargets)
		return p.ID == "" && len(targets) > 0 && !slices.ContainsFunc(targets, seen)
	})
	for i := range doc.Phases {
		p := &doc.Phases[i]
		p.AutomaticDeploymentTargets = slices.DeleteFunc(slices.Clone(p.AutomaticDeploymentTargets), hidden)
		p.OptionalDeploymentTargets = slices.DeleteFunc(slices.Clone(p.OptionalDeploymentTargets), hidden)
	}
}

// Sight is what a caller may see of a progression; nil is everything, empty nothing.
type Sight struct{ Deployments, Environments []resource.Grant }

// seen tells the environments of a space that a caller may see; nil is all of them.
func (s *Service) seen(ctx context.Context, tx *db.Tx, space ident.SpaceID, sight Sight) (func(id string) bool, error) {
	if sight.Environments == nil {
		return nil, nil //nolint:nilnil // all is an answer
	}
	ids := map[string]bool{}
	err := s.store.Each(ctx, tx, "environments", docstore.Query{Space: space, Visible: sight.Environments}, func(doc *docstore.Doc) error {
		ids[doc.ID] = true
		return nil
	})
	return func(id string) bool { return ids[id] }, err
}

// ProjectProgression is which releases of a project are where.
type ProjectProgression struct {
	Project      *octopus.Project
	Environments []octopus.Environment
	// Lifecycles and Channels say which of the environments are theirs, by id.
	Lifecycles, Channels map[string][]octopus.Environment
	// Releases are the newest, and those that are current anywhere, the newest first.
	Releases []ReleaseProgression
}

// ReleaseProgression is where one release is.
type ReleaseProgression struct {
	Release octopus.Release
	Channel octopus.Channel
	// Deployments are the last ones of each place, the newest first.
	Deployments []octopus.Deployment
	// Next are the environments it can be deployed to next.
	Next            []string
	HasDefect       bool
	ReleasePeriod   *octopus.RetentionPeriod
	TentaclePeriod  *octopus.RetentionPeriod
	currentOfPlaces []Current
}

// IsCurrent reports whether a deployment is the last successful one of its place.
func (p *ReleaseProgression) IsCurrent(deployment string) bool {
	return slices.ContainsFunc(p.currentOfPlaces, func(c Current) bool { return c.DeploymentID == deployment })
}

// ProjectProgression lists the newest releases of a project, at most history of
// them, and those that are current somewhere, with where they are: of the
// deployments and environments that the caller may see.
func (s *Service) ProjectProgression(ctx context.Context, tx *db.Tx, project *octopus.Project, history int64, sight Sight) (*ProjectProgression, error) {
	space := ident.SpaceID(project.SpaceID)
	out := &ProjectProgression{Project: project, Lifecycles: map[string][]octopus.Environment{}, Channels: map[string][]octopus.Environment{}}
	var err error
	if out.Environments, err = s.allEnvironments(ctx, tx, space); err != nil {
		return nil, err
	}
	channels, err := s.channels(ctx, tx, project)
	if err != nil {
		return nil, err
	}
	lifecycles, err := s.lifecycles(ctx, tx, project, channels)
	if err != nil {
		return nil, err
	}
	for _, c := range channels {
		id := lifecycleOf(&c, project)
		if _, known := out.Lifecycles[id]; !known {
			out.Lifecycles[id] = reached(lifecycles[id], out.Environments)
		}
		out.Channels[c.ID] = out.Lifecycles[id]
	}
	found, _, err := s.Releases(ctx, tx, ReleaseQuery{Space: space, Project: project.ID, Page: ident.Page{Take: history}})
	if err != nil {
		return nil, err
	}
	current, err := s.Currents(ctx, tx, CurrentQuery{Space: space, Projects: []string{project.ID}, Visible: sight.Deployments})
	if err != nil {
		return nil, err
	}
	var older []string
	for _, c := range current {
		if !slices.ContainsFunc(found, func(r octopus.Release) bool { return r.ID == c.ReleaseID }) && !slices.Contains(older, c.ReleaseID) {
			older = append(older, c.ReleaseID)
		}
	}
	if len(older) > 0 {
		more, _, err := s.Releases(ctx, tx, ReleaseQuery{Space: space, IDs: older, Page: ident.Page{Take: ident.MaxTake}})
		if err != nil {
			return nil, err
		}
		found = append(found, more...)
	}
	facts, err := releaseFacts(ctx, tx, found, sight.Deployments)
	if err != nil {
		return nil, err
	}
	for _, r := range found {
		p := facts.of(r, current)
		if i := slices.IndexFunc(channels, func(c octopus.Channel) bool { return c.ID == r.ChannelID }); i >= 0 {
			p.Channel = channels[i]
			result := lifecycle.Progress(lifecycle.Input{
				Lifecycle: *lifecycles[lifecycleOf(&p.Channel, project)], Environments: out.Environments, Successes: facts.successes[r.ID],
				HasDefect: p.HasDefect, AnyTenant: project.TenantedDeploymentMode != octopus.Untenanted,
			})
			p.Next = result.NextDeployments
			p.ReleasePeriod, p.TentaclePeriod = periods(result)
		}
		out.Releases = append(out.Releases, p)
	}
	seen, err := s.seen(ctx, tx, space, sight)
	if err == nil {
		out.cut(seen)
	}
	return out, err
}

// cut takes the environments out that are not seen; nil sees all.
func (p *ProjectProgression) cut(seen func(id string) bool) {
	if seen == nil {
		return
	}
	left := func(list []octopus.Environment) []octopus.Environment {
		return slices.DeleteFunc(slices.Clone(list), func(e octopus.Environment) bool { return !seen(e.ID) })
	}
	p.Environments = left(p.Environments)
	for id, list := range p.Lifecycles {
		p.Lifecycles[id] = left(list)
	}
	for id, list := range p.Channels {
		p.Channels[id] = left(list)
	}
	for i := range p.Releases {
		one := &p.Releases[i]
		one.Next = slices.DeleteFunc(slices.Clone(one.Next), func(id string) bool { return !seen(id) })
	}
}

// periods are the retention policies of the furthest phase that a release has
// reached with a success, else of the first.
func periods(r lifecycle.Result) (releases, tentacles *octopus.RetentionPeriod) {
	for i, p := range r.Phases {
		if i == 0 || p.Succeeded > 0 {
			releases, tentacles = p.ReleaseRetentionPolicy, p.TentacleRetentionPolicy
		}
	}
	return releases, tentacles
}

func lifecycleOf(c *octopus.Channel, p *octopus.Project) string {
	if c.LifecycleID != "" {
		return string(c.LifecycleID)
	}
	return p.LifecycleID
}

// lifecycles reads those that the channels of a project follow, by id.
func (s *Service) lifecycles(ctx context.Context, tx *db.Tx, project *octopus.Project, channels []octopus.Channel) (map[string]*octopus.Lifecycle, error) {
	ids := []string{} // of no channels none
	for i := range channels {
		if id := lifecycleOf(&channels[i], project); !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	found, err := docstore.All[octopus.Lifecycle](ctx, s.store, tx, "lifecycles", docstore.Query{Space: ident.SpaceID(project.SpaceID), IDs: ids})
	if err != nil {
		return nil, err
	}
	out := make(map[string]*octopus.Lifecycle, len(found))
	for i := range found {
		out[found[i].ID] = &found[i]
	}
	for _, id := range ids {
		if out[id] == nil {
			return nil, fault.Missing("lifecycle", id)
		}
	}
	return out, nil
}

// reached are the environments of a lifecycle, in the order of its phases.
func reached(l *octopus.Lifecycle, environments []octopus.Environment) []octopus.Environment {
	var out []octopus.Environment
	for _, phase := range lifecycle.Phases(*l, environments) {
		for _, id := range slices.Concat(phase.AutomaticDeploymentTargets, phase.OptionalDeploymentTargets) {
			if slices.ContainsFunc(out, func(e octopus.Environment) bool { return e.ID == id }) {
				continue
			}
			if i := slices.IndexFunc(environments, func(e octopus.Environment) bool { return e.ID == id }); i >= 0 {
				out = append(out, environments[i])
			}
		}
	}
	return out
}

// facts are what is known of several releases, read in a few statements.
type facts struct {
	deployments map[string][]octopus.Deployment
	successes   map[string][]lifecycle.Success
	defects     map[string]bool
}

func releaseFacts(ctx context.Context, tx *db.Tx, found []octopus.Release, visible []resource.Grant) (*facts, error) {
	out := &facts{map[string][]octopus.Deployment{}, map[string][]lifecycle.Success{}, map[string]bool{}}
	if len(found) == 0 {
		return out, nil
	}
	ids := make([]string, len(found))
	for i := range found {
		ids[i] = found[i].ID
	}
	f := &filter{}
	f.anyOf(`d.release_id`, releasePrefix, ids)
	f.seen(visible, `d.project_id`, `d.environment_id`, `d.tenant_id`)
	// Of each place the last deployment, and the last one that succeeded. Numbers
	// of ids do not tell which was later: each process hands out its own.
	const later = `SELECT 1 FROM deployment l WHERE l.release_id = d.release_id AND l.environment_id = d.environment_id AND l.tenant_id = d.tenant_id
		AND (l.created > d.created OR l.created = d.created AND l.seq > d.seq)`
	list, err := deployments(ctx, tx, `WHERE `+f.where.String()+` AND (NOT EXISTS (`+later+`) OR d.state = 'Success' AND NOT EXISTS (`+later+` AND l.state = 'Success'))
		ORDER BY d.created DESC, d.seq DESC LIMIT ?`, append(f.args, int64(ident.MaxTake))...)
	if err != nil {
		return nil, fmt.Errorf("read deployments of a project: %w", err)
	}
	for _, d := range list {
		out.deployments[d.ReleaseID] = append(out.deployments[d.ReleaseID], d)
	}
	if err := out.readSuccesses(ctx, tx, ids); err != nil {
		return nil, err
	}
	var args []any
	rows, err := tx.Query(ctx, `SELECT DISTINCT f.release_id FROM release_defect f WHERE f.status = 'Unresolved' AND `+in(`f.release_id`, ids, &args), args...)
	if err != nil {
		return nil, fmt.Errorf("read defects of a project: %w", err)
	}
	defective, err := texts(rows)
	for _, id := range defective {
		out.defects[id] = true
	}
	return out, err
}

func (f *facts) readSuccesses(ctx context.Context, tx *db.Tx, ids []string) error {
	var args []any
	rows, err := tx.Query(ctx, `SELECT DISTINCT d.release_id, d.environment_id, d.tenant_id FROM deployment d WHERE d.state = 'Success' AND `+in(`d.release_id`, ids, &args), args...)
	if err != nil {
		return fmt.Errorf("read successes of a project: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var release string
		var one lifecycle.Success
		if err := rows.Scan(&release, &one.EnvironmentID, &one.TenantID); err != nil {
			return err
		}
		f.successes[release] = append(f.successes[release], one)
	}
	return rows.Err()
}

func (f *facts) of(r octopus.Release, current []Current) ReleaseProgression {
	p := ReleaseProgression{Release: r, Deployments: f.deployments[r.ID], HasDefect: f.defects[r.ID]}
	for _, c := range current {
		if c.ReleaseID == r.ID {
			p.currentOfPlaces = append(p.currentOfPlaces, c)
		}
	}
	return p
}

// Template says where a release can be deployed to, and whether what it froze has
// changed since. may keeps the places that the caller may deploy to.
func (s *Service) Template(ctx context.Context, tx *db.Tx, r *octopus.Release, may Allow) (*octopus.DeploymentTemplate, error) {
	space := ident.SpaceID(r.SpaceID)
	sc, err := s.scene(ctx, tx, space, r)
	if err != nil {
		return nil, err
	}
	out := &octopus.DeploymentTemplate{DeploymentNotes: r.ReleaseNotes}
	targets := func(t *octopus.Tenant) (list octopus.List[octopus.PromotionTarget]) {
		for _, id := range sc.progress(t).Deployable {
			e, err := sc.environment(id)
			if err == nil && may.check(octopus.PermDeploymentCreate, sc.target(place{e, t})) == nil {
				list = append(list, octopus.PromotionTarget{ID: e.ID, Name: e.Name})
			}
		}
		return list
	}
	if sc.project.TenantedDeploymentMode != octopus.Tenanted {
		out.PromoteTo = targets(nil)
	}
	if sc.project.TenantedDeploymentMode != octopus.Untenanted {
		tenants, err := sc.tenants(ctx, tx, "")
		if err != nil {
			return nil, err
		}
		for i := range tenants {
			if list := targets(&tenants[i]); len(list) > 0 {
				out.TenantPromotions = append(out.TenantPromotions, octopus.TenantPromotion{ID: tenants[i].ID, Name: tenants[i].Name, PromoteTo: list})
			}
		}
	}
	return out, s.modified(ctx, tx, sc, out)
}

// modified tells whether what a release froze has changed since.
func (s *Service) modified(ctx context.Context, tx *db.Tx, sc *scene, out *octopus.DeploymentTemplate) error {
	differs := func(kind, id, snapshot string) (bool, error) {
		k, err := s.store.Kind(kind)
		if err != nil {
			return false, err
		}
		var doc *docstore.Doc
		if doc, err = s.store.Get(ctx, tx, k, sc.space, id); err != nil {
			return false, err
		}
		return snapshotID(doc) != snapshot, nil
	}
	var err error
	if out.IsDeploymentProcessModified, err = differs("deploymentprocesses", sc.project.DeploymentProcessID, sc.release.ProjectDeploymentProcessSnapshotID); err != nil {
		return err
	}
	if out.IsVariableSetModified, err = differs("variables", sc.project.VariableSetID, sc.release.ProjectVariableSetSnapshotID); err != nil {
		return err
	}
	out.IsLibraryVariableSetModified = len(sc.project.IncludedLibraryVariableSetIDs) != len(sc.release.LibraryVariableSetSnapshotIDs)
	for i, id := range sc.project.IncludedLibraryVariableSetIDs {
		if out.IsLibraryVariableSetModified {
			break
		}
		if out.IsLibraryVariableSetModified, err = differs("variables", "variableset-"+id, sc.release.LibraryVariableSetSnapshotIDs[i]); err != nil {
			return err
		}
	}
	return nil
}
