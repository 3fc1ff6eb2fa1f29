package releases

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/lifecycle"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Ended notes how a deployment went, and after a success makes the deployments
// that the lifecycle makes automatically, each once. It is called in the
// transaction that ends the task; what can go wrong for reasons that people must
// mend is written to the audit trail and does not keep the task from ending.
func (s *Service) Ended(ctx context.Context, tx *db.Tx, t *tasks.Task, state octopus.TaskState) error {
	id := t.Argument("DeploymentId")
	if t.Name != octopus.TaskDeploy || id == "" {
		return nil
	}
	d, err := s.Deployment(ctx, tx, t.Space, id)
	if fault.Is(err, fault.NotFound) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	// Deployments of a release end one after another: of two that complete a
	// phase together, the later must see the earlier.
	var locked string
	switch err := tx.QueryRow(ctx, `SELECT r.id FROM release r WHERE r.id = ?`+tx.ForUpdate(), d.ReleaseID).Scan(&locked); {
	case errors.Is(err, sql.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("lock release %s: %w", d.ReleaseID, err)
	}
	// What was successful before counts without this deployment.
	before, err := successes(ctx, tx, d.ReleaseID)
	if err != nil {
		return err
	}
	now := db.Micros(tx.Now())
	if err := tx.Queue(ctx, `UPDATE deployment SET state = ?, completed = ? WHERE id = ?`, string(state), now, d.ID); err != nil {
		return fmt.Errorf("end %s: %w", d.ID, err)
	}
	tx.Changed("deployments")
	if state == octopus.TaskSuccess {
		err := tx.Queue(ctx, `INSERT INTO current_release (project_id, environment_id, tenant_id, release_id, deployment_id, completed) VALUES (?, ?, ?, ?, ?, ?)
			ON CONFLICT (project_id, environment_id, tenant_id) DO UPDATE SET release_id = excluded.release_id, deployment_id = excluded.deployment_id, completed = excluded.completed
			WHERE excluded.completed >= current_release.completed`, d.ProjectID, d.EnvironmentID, string(d.TenantID), d.ReleaseID, d.ID, now)
		if err != nil {
			return fmt.Errorf("make %s current: %w", d.ID, err)
		}
	}
	err = s.follow(ctx, tx, d, state, before)
	if err == nil || !harmless(err) {
		return err
	}
	s.log.Warn("what follows a deployment was left out", "deployment", d.ID, "err", err)
	return nil
}

// Reached notes which targets a deployment went to: those that were left out on the way
// lack it still, and are brought to it when they come back where somebody wants that.
func (s *Service) Reached(ctx context.Context, tx *db.Tx, p *deploy.Plan, machines []string) error {
	d, err := s.Deployment(ctx, tx, ident.SpaceID(p.SpaceID), p.OwnerID)
	if fault.Is(err, fault.NotFound) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	d.DeployedToMachineIDs = machines
	body, err := encode(d)
	if err != nil {
		return fmt.Errorf("encode deployment: %w", err)
	}
	if _, err := tx.Exec(ctx, `UPDATE deployment SET body = ? WHERE id = ?`, body, d.ID); err != nil {
		return fmt.Errorf("note the targets of %s: %w", d.ID, err)
	}
	tx.Changed("deployments")
	return nil
}

// harmless reports whether an error came from what was read, so that the
// transaction itself is sound and can be committed without what failed.
func harmless(err error) bool {
	var database *db.Error
	switch {
	case errors.As(err, &database), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	}
	return !fault.Is(err, fault.Unavailable) && fault.KindOf(err) != fault.Internal
}

// follow writes the event of a deployment's end, and makes those that come next.
func (s *Service) follow(ctx context.Context, tx *db.Tx, d *octopus.Deployment, state octopus.TaskState, before []lifecycle.Success) error {
	space := ident.SpaceID(d.SpaceID)
	r, err := s.Release(ctx, tx, space, d.ReleaseID)
	if err != nil {
		return err
	}
	sc, err := s.scene(ctx, tx, space, r)
	if err != nil {
		return err
	}
	p := place{}
	if p.environment, err = sc.environment(d.EnvironmentID); err != nil {
		return err
	}
	if d.TenantID != "" {
		if p.tenant, err = sc.tenant(ctx, tx, string(d.TenantID)); err != nil {
			return err
		}
	}
	category, did := octopus.EventDeploymentFailed, "failed"
	switch state {
	case octopus.TaskSuccess:
		category, did = octopus.EventDeploymentSucceeded, "succeeded"
	case octopus.TaskCanceled:
		category, did = octopus.EventTaskCanceled, "was canceled"
	case octopus.TaskTimedOut:
		did = "was not started in time"
	case octopus.TaskFailed, octopus.TaskQueued, octopus.TaskExecuting, octopus.TaskCancelling:
	}
	tx.Event(sc.event(category, p, d.ID, d.TaskID, did, ""))
	if state != octopus.TaskSuccess {
		return nil
	}
	after := sc.progress(p.tenant)
	sc.successes = before
	environments := lifecycle.NewlyAutomatic(sc.progress(p.tenant), after)
	if sc.successes, err = successes(ctx, tx, r.ID); err != nil {
		return err
	}
	for _, id := range environments {
		environment, err := sc.environment(id)
		if err != nil {
			return err
		}
		if _, err := sc.automatically(ctx, tx, place{environment, p.tenant}); err != nil {
			return err
		}
	}
	return nil
}

// deployNew makes the automatic deployments of a new release, and says to which
// environments.
func (s *Service) deployNew(ctx context.Context, tx *db.Tx, project *octopus.Project, r *octopus.Release) ([]octopus.Named, error) {
	sc, err := s.scene(ctx, tx, ident.SpaceID(r.SpaceID), r)
	if err != nil {
		return nil, err
	}
	if !automates(sc.lifecycle) {
		return nil, nil
	}
	var deployed []octopus.Named
	for i := range sc.environments {
		e := &sc.environments[i]
		places, err := sc.automaticPlaces(ctx, tx, project, e)
		if err != nil {
			return nil, err
		}
		queued := false
		for _, p := range places {
			made, err := sc.automatically(ctx, tx, p)
			if err != nil {
				return nil, err
			}
			queued = queued || made
		}
		if queued {
			deployed = append(deployed, octopus.Named{ID: e.ID, Name: e.Name})
		}
	}
	return deployed, nil
}

// automates reports whether a lifecycle has any automatic target.
func automates(l *octopus.Lifecycle) bool {
	return slices.ContainsFunc(l.Phases, func(p octopus.Phase) bool { return len(p.AutomaticDeploymentTargets) > 0 })
}

// automaticPlaces are for whom a release is deployed to an environment
// automatically: each connected tenant, and nobody, as far as the project allows.
func (sc *scene) automaticPlaces(ctx context.Context, tx *db.Tx, project *octopus.Project, e *octopus.Environment) ([]place, error) {
	var out []place
	if project.TenantedDeploymentMode != octopus.Tenanted && slices.Contains(sc.progress(nil).Automatic, e.ID) {
		out = append(out, place{environment: e})
	}
	if project.TenantedDeploymentMode == octopus.Untenanted {
		return out, nil
	}
	tenants, err := sc.tenants(ctx, tx, e.ID)
	for i := range tenants {
		if slices.Contains(sc.progress(&tenants[i]).Automatic, e.ID) {
			out = append(out, place{e, &tenants[i]})
		}
	}
	return out, err
}

// automatically makes an automatic deployment, and says whether it did. One that
// the rules refuse (a required prompt without a value, no targets) is told of in
// the audit trail.
func (sc *scene) automatically(ctx context.Context, tx *db.Tx, p place) (made bool, err error) {
	if sc.frozen == nil {
		if err := sc.freeze(ctx, tx, sc.s.newSnapshots()); err != nil {
			return false, err
		}
	}
	_, err = sc.deploy(ctx, tx, p, Options{Comments: "Deployed automatically by the lifecycle '" + sc.lifecycle.Name + "'."}, nil)
	if err == nil || !harmless(err) {
		return err == nil, err
	}
	for _, message := range fault.Messages(err) {
		tx.Event(sc.event(octopus.EventDeploymentFailed, p, sc.release.ID, "", "could not be queued automatically", message))
	}
	return false, nil
}
