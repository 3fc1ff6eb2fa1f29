package releases

import (
	"context"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Again makes a deployment once more: of the same release to the same place, with the
// same choices and the same answers to prompts, but at once. It is a new deployment,
// to which all rules apply anew. With fromFailed it goes on where that one has failed:
// what had succeeded before does not run again, and leaves its output variables.
func (s *Service) Again(ctx context.Context, space ident.SpaceID, id string, fromFailed bool, allow Allow) (*octopus.Deployment, error) {
	var d *octopus.Deployment
	var m *manifest
	var before *progress
	err := s.db.Read(ctx, func(tx *db.Tx) (err error) {
		if d, err = s.Deployment(ctx, tx, space, id); err != nil {
			return err
		}
		if m, err = readManifest(ctx, tx, d.ManifestVariableSetID); err == nil && fromFailed {
			before, err = s.settled(ctx, tx, d, m)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	in := NewDeployments{
		Space: space, ReleaseID: d.ReleaseID, Environments: []string{d.EnvironmentID},
		Options: Options{
			ForcePackageDownload: d.ForcePackageDownload, ForcePackageRedeployment: d.ForcePackageRedeployment,
			SkipActions: d.SkipActions, Machines: d.SpecificMachineIDs, ExcludedMachines: d.ExcludedMachineIDs, TargetTags: d.SpecificTargetTagIDs, ExcludedTargetTags: d.ExcludedTargetTagIDs, UseGuidedFailure: d.UseGuidedFailure,
			DebugMode: string(d.DebugMode), FailTargetDiscovery: d.FailTargetDiscovery, Priority: d.Priority, Comments: string(d.Comments),
			FreezeNames: d.DeploymentFreezeNames, FreezeReason: string(d.DeploymentFreezeOverrideReason),
		},
	}
	if d.TenantID != "" {
		in.Tenants = []string{string(d.TenantID)}
	}
	if in.Options.FormValues, err = s.openAnswers(ctx, d.ManifestVariableSetID, "id", m.ByID); err != nil {
		return nil, err
	}
	if in.Options.Variables, err = s.openAnswers(ctx, d.ManifestVariableSetID, "name", m.ByName); err != nil {
		return nil, err
	}
	passed, err := s.openPassed(ctx, d.ManifestVariableSetID, m)
	if err != nil {
		return nil, err
	}
	for _, v := range passed {
		in.Options.passed, in.Options.from = append(in.Options.passed, v.PassedValue), v.from
	}
	in.Options.before = before
	made, err := s.Deploy(ctx, in, allow)
	if err != nil {
		return nil, err
	}
	return &made[0], nil
}

// Restated notes that somebody has changed the state of a deployment that had ended,
// in the transaction that does: what is current is found out anew, and where it is a
// success now, what follows from one follows.
func (s *Service) Restated(ctx context.Context, tx *db.Tx, t *tasks.Task) error {
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
	before, err := successes(ctx, tx, d.ReleaseID)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `UPDATE deployment SET state = ? WHERE id = ?`, string(t.State), d.ID); err != nil {
		return fmt.Errorf("change the state of %s: %w", d.ID, err)
	}
	tx.Changed("deployments")
	if err := settle(ctx, tx, Current{ProjectID: d.ProjectID, EnvironmentID: d.EnvironmentID, TenantID: string(d.TenantID)}); err != nil {
		return err
	}
	if t.State != octopus.TaskSuccess {
		return nil
	}
	if err := s.follow(ctx, tx, d, t.State, before); err != nil && !harmless(err) {
		return err
	}
	return nil
}
