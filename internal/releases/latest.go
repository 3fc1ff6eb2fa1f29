package releases

import (
	"context"
	"fmt"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// LatestQuery asks for what was deployed last to each place. Lists that are nil do
// not restrict.
type LatestQuery struct {
	// Space is where to look when Projects is nil; projects are in one space.
	Space                           ident.SpaceID
	Projects, Environments, Tenants []string
	// Release keeps the places that it is the last one at; "" is any.
	Release string
	// Previous asks for the last success instead, of the places where something
	// was deployed after it.
	Previous bool
	Visible  []resource.Grant
}

// Latest is a deployment with what a dashboard shows of its release and its task.
type Latest struct {
	DeploymentID, ProjectID, EnvironmentID, TenantID, ReleaseID, ChannelID, TaskID string
	Version                                                                        string
	Created                                                                        time.Time
	// State is the task's, or what it ended with where the task is gone.
	State                         octopus.TaskState
	QueueTime, Started, Completed time.Time // zero where there is none
	Error                         string
	HasWarnings                   bool
}

// Latest lists what was deployed last to each place, by project, environment and
// tenant, in one statement. It costs what it returns, however much was deployed
// there before.
func (s *Service) Latest(ctx context.Context, tx *db.Tx, q LatestQuery) ([]Latest, error) {
	from := `latest_deployment l JOIN deployment d ON d.id = l.deployment_id`
	if q.Previous {
		from = `latest_deployment l JOIN current_release c ON c.project_id = l.project_id AND c.environment_id = l.environment_id AND c.tenant_id = l.tenant_id
			AND c.deployment_id <> l.deployment_id JOIN deployment d ON d.id = c.deployment_id`
	}
	f := &filter{}
	if q.Projects == nil {
		f.and(`d.space_id = ?`, string(q.Space))
	}
	// Where there are projects the space is not asked for: a database that has no
	// statistics yet would go through all of it.
	f.anyOf(`l.project_id`, "Projects", q.Projects)
	f.anyOf(`l.environment_id`, "Environments", q.Environments)
	f.anyOf(`l.tenant_id`, "Tenants", q.Tenants)
	if q.Release != "" {
		f.and(`d.release_id = ?`, canonical(releasePrefix, q.Release))
	}
	f.seen(q.Visible, `l.project_id`, `l.environment_id`, `l.tenant_id`)
	rows, err := tx.Query(ctx, `SELECT d.id, l.project_id, l.environment_id, l.tenant_id, d.release_id, d.channel_id, d.task_id, r.version, d.created, d.completed, d.state,
			COALESCE(t.state, ''), COALESCE(t.queue_time, 0), COALESCE(t.start_time, 0), COALESCE(t.error, ''), COALESCE(t.has_warnings, 0)
		FROM `+from+` JOIN release r ON r.id = d.release_id LEFT JOIN task t ON t.id = d.task_id
		WHERE `+f.where.String()+` ORDER BY l.project_id, l.environment_id, l.tenant_id`, f.args...)
	if err != nil {
		return nil, fmt.Errorf("list the latest deployments: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	var out []Latest
	for rows.Next() {
		var l Latest
		var ended octopus.TaskState
		var created, completed, queued, started, warnings int64
		err := rows.Scan(&l.DeploymentID, &l.ProjectID, &l.EnvironmentID, &l.TenantID, &l.ReleaseID, &l.ChannelID, &l.TaskID, &l.Version, &created, &completed, &ended,
			&l.State, &queued, &started, &l.Error, &warnings)
		if err != nil {
			return nil, fmt.Errorf("list the latest deployments: %w", err)
		}
		if ended != "" {
			l.State = ended
		}
		l.Created, l.Completed, l.QueueTime, l.Started, l.HasWarnings = db.Time(created), db.Time(completed), db.Time(queued), db.Time(started), warnings != 0
		out = append(out, l)
	}
	return out, rows.Err()
}

// Reached are the environments of a lifecycle, in the order of its phases.
func Reached(l *octopus.Lifecycle, environments []octopus.Environment) []octopus.Environment {
	return reached(l, environments)
}
