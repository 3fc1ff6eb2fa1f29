package releases

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/version"
	"github.com/takodeploy/tako/octopus"
)

// Child is a deployment that a step of another one asks for.
type Child struct {
	// Project is an id, slug or name, and Version that of its release.
	Project, Version string
	Condition        octopus.DeployReleaseCondition
	// Passed are values that go before those of the child.
	Passed []PassedValue
}

// PassedValue is a variable that one deployment hands to another.
type PassedValue struct {
	Name, Value string
	Sensitive   bool
}

// Child makes a deployment for a step of the deployment of p: to the same environment,
// and for the same tenant if its project knows tenants. All rules apply to it, its own
// lifecycle first. Where the condition says that there is nothing to do it makes none
// and returns why.
func (s *Service) Child(ctx context.Context, tx *db.Tx, p *deploy.Plan, c Child) (task, skipped string, err error) {
	space := ident.SpaceID(p.SpaceID)
	parent, err := s.Deployment(ctx, tx, space, p.OwnerID)
	if err != nil {
		return "", "", err
	}
	project, err := get[octopus.Project](ctx, s, tx, space, "projects", c.Project)
	if err != nil {
		return "", "", err
	}
	release, err := s.ReleaseByVersion(ctx, tx, project.ID, c.Version)
	if err != nil {
		return "", "", err
	}
	sc, err := s.scene(ctx, tx, space, release)
	if err != nil {
		return "", "", err
	}
	to := place{}
	if to.environment, err = sc.environment(p.EnvironmentID); err != nil {
		return "", "", err
	}
	if p.TenantID != "" && project.TenantedDeploymentMode != octopus.Untenanted {
		if to.tenant, err = sc.tenant(ctx, tx, p.TenantID); err != nil {
			return "", "", err
		}
	}
	if skipped, err = sc.unneeded(ctx, tx, to, c.Condition); err != nil || skipped != "" {
		return "", skipped, err
	}
	if err := sc.freeze(ctx, tx, s.newSnapshots()); err != nil {
		return "", "", err
	}
	o := Options{
		Comments: "Deployed by a step of " + parent.ID + ".", Priority: parent.Priority,
		Variables: map[string]string{}, passed: c.Passed, from: p.ProjectID,
		// Who overrode a freeze for the deployment did so for what it is made of.
		FreezeNames: parent.DeploymentFreezeNames, FreezeReason: string(parent.DeploymentFreezeOverrideReason),
	}
	for _, v := range c.Passed {
		o.Variables[v.Name] = v.Value // they answer prompts, too
	}
	ctx = db.WithActor(ctx, db.Actor{UserID: string(parent.DeployedByID), Username: string(parent.DeployedBy)})
	d, err := sc.deploy(ctx, tx, to, o, nil)
	if err != nil {
		return "", "", err
	}
	return d.TaskID, "", nil
}

// unneeded says why a release need not be deployed to a place, "" if it must.
func (sc *scene) unneeded(ctx context.Context, tx *db.Tx, p place, c octopus.DeployReleaseCondition) (string, error) {
	if c == octopus.DeployReleaseAlways || c == "" {
		return "", nil
	}
	var id, number string
	err := tx.QueryRow(ctx, `SELECT r.id, r.version FROM current_release c JOIN release r ON r.id = c.release_id WHERE c.project_id = ? AND c.environment_id = ? AND c.tenant_id = ?`,
		sc.project.ID, p.environment.ID, p.tenantID()).Scan(&id, &number)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read what is current in %s: %w", p.name(), err)
	}
	switch c {
	case octopus.DeployReleaseIfNotCurrent:
		if id == sc.release.ID {
			return fmt.Sprintf("%s %s is the current release in %s", sc.project.Name, number, p.name()), nil
		}
	case octopus.DeployReleaseIfNewer:
		was, err := version.Parse(version.SemVer, number)
		if err != nil {
			return "", nil //nolint:nilerr // what has no order is never newer
		}
		is, err := version.Parse(version.SemVer, sc.release.Version)
		if err == nil && version.Compare(is, was) <= 0 {
			return fmt.Sprintf("%s %s is not newer than %s, the current release in %s", sc.project.Name, sc.release.Version, number, p.name()), nil
		}
	case octopus.DeployReleaseAlways:
	default:
		return "", fault.New(fault.Invalid, "The deployment condition is '%.40s'; use Always, IfNotCurrentVersion or IfNewer.", c)
	}
	return "", nil
}
