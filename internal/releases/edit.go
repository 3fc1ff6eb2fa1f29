package releases

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Edit changes what of a release can be changed: its version, notes and custom
// fields, the versions of its packages, and as long as it has not been deployed
// its channel. Everything else of to is ignored.
func (s *Service) Edit(ctx context.Context, tx *db.Tx, r *octopus.Release, to *octopus.Release, ignoreRules bool, allow Allow) (*octopus.Release, error) {
	project, err := s.projectOf(ctx, tx, r, octopus.PermReleaseEdit, allow)
	if err != nil {
		return nil, err
	}
	out := *r
	if text := strings.TrimSpace(to.Version); text != "" {
		if out.Version, err = checkedVersion(text); err != nil {
			return nil, err
		}
	}
	if len(to.ReleaseNotes) > maxNotes {
		return nil, invalid("ReleaseNotes", "ReleaseNotes has %d bytes; use at most %d.", len(to.ReleaseNotes), maxNotes)
	}
	out.ReleaseNotes, out.CustomFields = to.ReleaseNotes, to.CustomFields
	channel, err := s.channel(ctx, tx, project, cmp.Or(to.ChannelID, r.ChannelID))
	if err != nil {
		return nil, err
	}
	if channel.ID != r.ChannelID {
		var n int64
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM deployment d WHERE d.release_id = ?`, r.ID).Scan(&n); err != nil {
			return nil, fmt.Errorf("count deployments of %s: %w", r.ID, err)
		}
		if n > 0 {
			return nil, invalid("ChannelId", "The release '%s' has been deployed, so that its channel cannot be changed; make another release.", r.Version)
		}
		out.ChannelID = channel.ID
	}
	if out.SelectedPackages, out.BuildInformation, err = s.reselect(ctx, tx, project, channel, r, to, ignoreRules); err != nil {
		return nil, err
	}
	if len(r.BuildInformation) > 0 && slices.Equal(out.SelectedPackages, r.SelectedPackages) {
		out.BuildInformation = r.BuildInformation // which may be gone by now elsewhere
	}
	if err := updateRelease(ctx, tx, &out); err != nil {
		return nil, err
	}
	if err := s.usePackages(ctx, tx, &out); err != nil {
		return nil, err
	}
	tx.Event(releaseEvent(octopus.EventModified, project, &out, "was changed"))
	return &out, nil
}

// reselect takes the versions that an edited release asks for; packages that it
// does not name stay as they are. It also returns what is known of their builds.
func (s *Service) reselect(ctx context.Context, tx *db.Tx, project *octopus.Project, channel *octopus.Channel, r, to *octopus.Release, ignoreRules bool) (octopus.List[octopus.SelectedPackage], octopus.List[octopus.ReleaseBuildInformation], error) {
	process, err := get[octopus.DeploymentProcess](ctx, s, tx, ident.SpaceID(r.SpaceID), ProcessSnapshots, r.ProjectDeploymentProcessSnapshotID)
	if err != nil {
		return nil, nil, err
	}
	refs, err := s.references(ctx, tx, ident.SpaceID(r.SpaceID), process.Steps, channel)
	if err != nil {
		return nil, nil, err
	}
	sel := selection{selected: to.SelectedPackages, unchecked: ignoreRules, mayBreak: project.AllowIgnoreChannelRules}
	had := selected(r)
	var out octopus.List[octopus.SelectedPackage]
	var faults []error
	for i := range refs {
		ref := &refs[i]
		text := cmp.Or(sel.explicit(ref), had[ref.key])
		if text == "" {
			faults = append(faults, invalid("SelectedPackages", "SelectedPackages has no version for %s; give one.", ref.name()))
			continue
		}
		if text != had[ref.key] || channel.ID != r.ChannelID {
			if err := sel.accepts(ref, channel, text); err != nil {
				faults = append(faults, err)
				continue
			}
		}
		out = append(out, octopus.SelectedPackage{ActionName: ref.action, StepName: ref.action, PackageReferenceName: ref.Name, Version: text})
	}
	if err := joined(faults); err != nil {
		return nil, nil, err
	}
	told, err := builds(ctx, tx, ident.SpaceID(r.SpaceID), refs, out)
	return out, told, err
}

// DeleteRelease removes a release with its deployments, their tasks, logs and
// artifacts.
func (s *Service) DeleteRelease(ctx context.Context, tx *db.Tx, r *octopus.Release, allow Allow) error {
	project, err := s.projectOf(ctx, tx, r, octopus.PermReleaseDelete, allow)
	if err != nil {
		return err
	}
	if err := s.dropRelease(ctx, tx, r); err != nil {
		return err
	}
	tx.Event(releaseEvent(octopus.EventDeleted, project, r, "was deleted"))
	return nil
}

func (s *Service) dropRelease(ctx context.Context, tx *db.Tx, r *octopus.Release) error {
	found, err := deployments(ctx, tx, `WHERE d.release_id = ?`, r.ID)
	if err != nil {
		return fmt.Errorf("list deployments of %s: %w", r.ID, err)
	}
	if err := s.drop(ctx, tx, found); err != nil {
		return err
	}
	for _, statement := range []string{`DELETE FROM release_defect WHERE release_id = ?`, `DELETE FROM release WHERE id = ?`} {
		if _, err := tx.Exec(ctx, statement, r.ID); err != nil {
			return fmt.Errorf("delete release %s: %w", r.ID, err)
		}
	}
	tx.Changed("releases")
	if err := feed.Disuse(ctx, tx, r.ID); err != nil {
		return err
	}
	return s.disuse(ctx, tx, r.ID)
}

// DeleteDeployment removes a deployment with its task, log and artifacts.
func (s *Service) DeleteDeployment(ctx context.Context, tx *db.Tx, d *octopus.Deployment, allow Allow) error {
	r, err := s.Release(ctx, tx, ident.SpaceID(d.SpaceID), d.ReleaseID)
	if err != nil {
		return err
	}
	sc, err := s.scene(ctx, tx, ident.SpaceID(d.SpaceID), r)
	if err != nil {
		return err
	}
	p, err := sc.placeOf(ctx, tx, d)
	if err != nil {
		return err
	}
	if err := allow.check(octopus.PermDeploymentDelete, sc.target(p)); err != nil {
		return err
	}
	if err := s.drop(ctx, tx, []octopus.Deployment{*d}); err != nil {
		return err
	}
	tx.Event(sc.event(octopus.EventDeleted, p, d.ID, d.TaskID, "was deleted", ""))
	return nil
}

// placeOf is where a deployment went. An environment or a tenant that is gone is
// known by its id alone.
func (sc *scene) placeOf(ctx context.Context, tx *db.Tx, d *octopus.Deployment) (place, error) {
	p := place{}
	var err error
	if p.environment, err = sc.environment(d.EnvironmentID); err != nil {
		p.environment = &octopus.Environment{Resource: octopus.Resource{ID: d.EnvironmentID}, Name: d.EnvironmentID}
	}
	if d.TenantID == "" {
		return p, nil
	}
	p.tenant, err = sc.tenant(ctx, tx, string(d.TenantID))
	if fault.Is(err, fault.NotFound) {
		p.tenant, err = &octopus.Tenant{Resource: octopus.Resource{ID: string(d.TenantID)}, Name: string(d.TenantID)}, nil
	}
	return p, err
}

// drop deletes deployments and all that hangs on them; what was there before
// becomes current again.
func (s *Service) drop(ctx context.Context, tx *db.Tx, gone []octopus.Deployment) error {
	var places []Current
	for i := range gone {
		d := &gone[i]
		if err := tasks.Delete(ctx, tx, d.TaskID); err != nil {
			return fmt.Errorf("delete deployment %s: %w", d.ID, err)
		}
		for _, statement := range []string{`DELETE FROM manifest WHERE owner = ?`, `DELETE FROM deployment WHERE id = ?`} {
			if _, err := tx.Exec(ctx, statement, d.ID); err != nil {
				return fmt.Errorf("delete deployment %s: %w", d.ID, err)
			}
		}
		at := Current{ProjectID: d.ProjectID, EnvironmentID: d.EnvironmentID, TenantID: string(d.TenantID)}
		if !slices.Contains(places, at) {
			places = append(places, at)
		}
	}
	for _, at := range places {
		if err := settle(ctx, tx, at); err != nil {
			return err
		}
	}
	if len(gone) > 0 {
		tx.Changed("deployments")
	}
	return nil
}

// settle finds out anew what is current at a place, and what was deployed to it last.
func settle(ctx context.Context, tx *db.Tx, at Current) error {
	const here = ` WHERE project_id = ? AND environment_id = ? AND tenant_id = ?`
	for _, statement := range []string{
		`DELETE FROM current_release` + here,
		`INSERT INTO current_release (project_id, environment_id, tenant_id, release_id, deployment_id, completed)
			SELECT project_id, environment_id, tenant_id, release_id, id, completed FROM deployment` + here + ` AND state = 'Success' ORDER BY completed DESC, seq DESC LIMIT 1`,
		`DELETE FROM latest_deployment` + here,
		`INSERT INTO latest_deployment (project_id, environment_id, tenant_id, deployment_id, created, seq)
			SELECT project_id, environment_id, tenant_id, id, created, seq FROM deployment` + here + ` ORDER BY created DESC, seq DESC LIMIT 1`,
	} {
		if _, err := tx.Exec(ctx, statement, at.ProjectID, at.EnvironmentID, at.TenantID); err != nil {
			return fmt.Errorf("settle what is current in %s: %w", at.EnvironmentID, err)
		}
	}
	return nil
}

// DeleteProject removes a project with all its releases and what hangs on them. A
// deployment that has not ended is refused. It is one transaction: a project with
// very many releases is better emptied by DeleteReleases before.
func (s *Service) DeleteProject(ctx context.Context, tx *db.Tx, space ident.SpaceID, project string) error {
	for {
		switch n, err := s.DeleteReleases(ctx, tx, project, 100); {
		case err != nil:
			return err
		case n > 0:
			continue
		}
		k, err := s.store.Kind("projects")
		if err != nil {
			return err
		}
		return s.store.Delete(ctx, tx, k, space, project)
	}
}

// DeleteReleases removes at most limit releases of a project and says how many it was.
func (s *Service) DeleteReleases(ctx context.Context, tx *db.Tx, project string, limit int) (int, error) {
	rows, err := tx.Query(ctx, `SELECT r.body FROM release r WHERE r.project_id = ? ORDER BY r.created, r.seq LIMIT ?`, project, limit)
	if err != nil {
		return 0, fmt.Errorf("list releases of %s: %w", project, err)
	}
	found, err := bodies[octopus.Release](rows)
	if err != nil {
		return 0, fmt.Errorf("list releases of %s: %w", project, err)
	}
	for i := range found {
		if err := s.dropRelease(ctx, tx, &found[i]); err != nil {
			return 0, err
		}
	}
	return len(found), nil
}
