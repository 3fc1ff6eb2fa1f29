package releases

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// LatestSuccess is the release that was deployed last, with success, to one of
// several environments: for a tenant, or for nobody when tenant is "", and in one
// channel unless channel is "". It is fault.NotFound when there is none.
func (s *Service) LatestSuccess(ctx context.Context, tx *db.Tx, project, channel, tenant string, environments []string) (*octopus.Release, error) {
	args := []any{project, tenant}
	where := `d.project_id = ? AND d.tenant_id = ? AND d.state = 'Success' AND ` + in(`d.environment_id`, environments, &args)
	if channel != "" {
		where += ` AND d.channel_id = ?`
		args = append(args, channel)
	}
	var body string
	err := tx.QueryRow(ctx, `SELECT r.body FROM deployment d JOIN release r ON r.id = d.release_id WHERE `+where+` ORDER BY d.completed DESC, d.seq DESC LIMIT 1`, args...).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.New(fault.NotFound, "No release was deployed there with success.")
	}
	if err != nil {
		return nil, fmt.Errorf("read the latest success of %s: %w", project, err)
	}
	return decodeRelease(body)
}

// Takes finds the package that an action's reference names in the process of a
// project as it is now; the action is named by its name, slug or id. Both texts are
// "" when there is no such action or reference.
func (s *Service) Takes(ctx context.Context, tx *db.Tx, project *octopus.Project, action, reference string) (packageID, feedID, actionName string, err error) {
	process, err := get[octopus.DeploymentProcess](ctx, s, tx, ident.SpaceID(project.SpaceID), "deploymentprocesses", project.DeploymentProcessID)
	if err != nil {
		return "", "", "", err
	}
	if err := s.completeSteps(ctx, tx, ident.SpaceID(project.SpaceID), process.Steps); err != nil {
		return "", "", "", err
	}
	for _, step := range process.Steps {
		for _, a := range step.Actions {
			if !matches(action, a.ID, a.Slug, a.Name) {
				continue
			}
			for _, p := range a.Packages {
				if strings.EqualFold(p.Name, reference) {
					return p.PackageID, p.FeedID, a.Name, nil
				}
			}
		}
	}
	return "", "", "", nil
}

func decodeRelease(body string) (*octopus.Release, error) {
	var r octopus.Release
	if err := json.Unmarshal([]byte(body), &r); err != nil {
		return nil, fmt.Errorf("decode release: %w", err)
	}
	return &r, nil
}
