package releases

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// maxIDs bounds the values of one filter; both databases bound their parameters.
const maxIDs = 5000

// filter builds the condition of a statement.
type filter struct {
	where strings.Builder
	args  []any
}

func (f *filter) and(clause string, args ...any) {
	if f.where.Len() > 0 {
		f.where.WriteString(` AND `)
	}
	f.where.WriteString(clause)
	f.args = append(f.args, args...)
}

// anyOf keeps rows whose column has one of the values, in our spelling of their
// prefix; nil keeps all, empty none.
func (f *filter) anyOf(column, prefix string, values []string) {
	if values == nil {
		return
	}
	spelled := make([]string, 0, min(len(values), maxIDs))
	for _, v := range values[:min(len(values), maxIDs)] {
		spelled = append(spelled, canonical(prefix, v))
	}
	var args []any
	f.and(in(column, spelled, &args), args...)
}

// seen keeps the rows that one of the grants covers; nil is everything, empty
// nothing. A column that is "" does not restrict.
func (f *filter) seen(grants []resource.Grant, project, environment, tenant string) {
	if grants == nil {
		return
	}
	var alternatives []string
	var args []any
	for _, g := range grants {
		one := []string{`1 = 1`}
		for _, d := range []struct {
			column string
			ids    []string
		}{{project, g.Projects}, {environment, g.Environments}, {tenant, g.Tenants}} {
			if len(d.ids) > 0 && d.column != "" {
				one = append(one, in(d.column, d.ids, &args))
			}
		}
		if len(g.ProjectGroups) > 0 {
			folded := make([]string, len(g.ProjectGroups))
			for i, id := range g.ProjectGroups {
				folded[i] = ident.Fold(id)
			}
			one = append(one, project+` IN (SELECT x.id FROM document_index x WHERE x.kind = 'projects' AND x.field = 'ProjectGroupId' AND `+in(`x.value`, folded, &args)+`)`)
		}
		alternatives = append(alternatives, `(`+strings.Join(one, ` AND `)+`)`)
	}
	if len(alternatives) == 0 {
		f.and(`1 = 0`)
		return
	}
	f.and(`(`+strings.Join(alternatives, ` OR `)+`)`, args...)
}

// ReleaseQuery asks for a page of releases, the newest first.
type ReleaseQuery struct {
	Space            ident.SpaceID
	IDs              []string // these only, when it is not nil
	Project, Channel string   // ids; "" is any
	// Version is a part of the version, without case.
	Version string
	// Visible keeps what one of the grants covers; nil is everything, empty nothing.
	Visible []resource.Grant
	Page    ident.Page
}

func (q *ReleaseQuery) filter() *filter {
	f := &filter{}
	f.and(`r.space_id = ?`, string(q.Space))
	if q.Project != "" {
		f.and(`r.project_id = ?`, q.Project)
	}
	if q.Channel != "" {
		f.and(`r.channel_id = ?`, q.Channel)
	}
	f.anyOf(`r.id`, releasePrefix, q.IDs)
	if q.Version != "" {
		f.and(`r.version_folded LIKE ? ESCAPE '\'`, db.Containing(ident.Fold(q.Version)))
	}
	f.seen(q.Visible, `r.project_id`, "", "")
	return f
}

// Releases lists releases, and counts them.
func (s *Service) Releases(ctx context.Context, tx *db.Tx, q ReleaseQuery) ([]octopus.Release, int64, error) {
	f := q.filter()
	var total int64
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM release r WHERE `+f.where.String(), f.args...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count releases: %w", err)
	}
	page := q.Page.Clamp()
	if total <= page.Skip {
		return []octopus.Release{}, total, nil
	}
	rows, err := tx.Query(ctx, `SELECT r.body FROM release r WHERE `+f.where.String()+` ORDER BY r.created DESC, r.seq DESC LIMIT ? OFFSET ?`, append(f.args, page.Take, page.Skip)...)
	if err != nil {
		return nil, 0, fmt.Errorf("list releases: %w", err)
	}
	found, err := bodies[octopus.Release](rows)
	if err != nil {
		return nil, 0, fmt.Errorf("list releases: %w", err)
	}
	return found, total, nil
}

// FindRelease reads a release of a space that one of the grants covers.
func (s *Service) FindRelease(ctx context.Context, tx *db.Tx, space ident.SpaceID, id string, visible []resource.Grant) (*octopus.Release, error) {
	q := ReleaseQuery{Space: space, IDs: []string{id}, Visible: visible}
	f := q.filter()
	return one[octopus.Release](ctx, tx, "release", id, `SELECT r.body FROM release r WHERE `+f.where.String(), f.args...)
}

// DeploymentQuery asks for a page of deployments, the newest first. Lists that
// are nil do not restrict.
type DeploymentQuery struct {
	Space                                             ident.SpaceID
	IDs                                               []string
	Projects, Environments, Tenants, Channels, States []string
	Release                                           string // an id; "" is any
	// Name is a part of the deployment's name or the release's version, without case.
	Name    string
	Visible []resource.Grant
	Page    ident.Page
}

func (q *DeploymentQuery) filter() *filter {
	f := &filter{}
	f.and(`d.space_id = ?`, string(q.Space))
	if q.Release != "" {
		f.and(`d.release_id = ?`, q.Release)
	}
	f.anyOf(`d.id`, deploymentPrefix, q.IDs)
	f.anyOf(`d.project_id`, "Projects", q.Projects)
	f.anyOf(`d.environment_id`, "Environments", q.Environments)
	f.anyOf(`d.tenant_id`, "Tenants", q.Tenants)
	f.anyOf(`d.channel_id`, "Channels", q.Channels)
	if q.States != nil {
		var args []any
		f.and(in(`CASE WHEN d.state <> '' THEN d.state ELSE (SELECT t.state FROM task t WHERE t.id = d.task_id) END`, q.States, &args), args...)
	}
	if q.Name != "" {
		f.and(`EXISTS (SELECT 1 FROM release r WHERE r.id = d.release_id AND r.version_folded LIKE ? ESCAPE '\')`, db.Containing(ident.Fold(q.Name)))
	}
	f.seen(q.Visible, `d.project_id`, `d.environment_id`, `d.tenant_id`)
	return f
}

// Deployments lists deployments, and counts them.
func (s *Service) Deployments(ctx context.Context, tx *db.Tx, q DeploymentQuery) ([]octopus.Deployment, int64, error) {
	f := q.filter()
	var total int64
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM deployment d WHERE `+f.where.String(), f.args...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count deployments: %w", err)
	}
	page := q.Page.Clamp()
	if total <= page.Skip {
		return []octopus.Deployment{}, total, nil
	}
	found, err := deployments(ctx, tx, `WHERE `+f.where.String()+` ORDER BY d.created DESC, d.seq DESC LIMIT ? OFFSET ?`, append(f.args, page.Take, page.Skip)...)
	if err != nil {
		return nil, 0, fmt.Errorf("list deployments: %w", err)
	}
	return found, total, nil
}

// FindDeployment reads a deployment of a space that one of the grants covers.
func (s *Service) FindDeployment(ctx context.Context, tx *db.Tx, space ident.SpaceID, id string, visible []resource.Grant) (*octopus.Deployment, error) {
	q := DeploymentQuery{Space: space, IDs: []string{id}, Visible: visible}
	f := q.filter()
	found, err := deployments(ctx, tx, `WHERE `+f.where.String(), f.args...)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read deployment %s: %w", id, err)
	case len(found) == 0:
		return nil, fault.Missing("deployment", id)
	}
	return &found[0], nil
}

// deployments reads deployments d as clients see them.
func deployments(ctx context.Context, tx *db.Tx, rest string, args ...any) ([]octopus.Deployment, error) {
	rows, err := tx.Query(ctx, `SELECT d.body, d.state FROM deployment d `+rest, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err tells
	out := []octopus.Deployment{}
	for rows.Next() {
		var body string
		var state octopus.TaskState
		if err := rows.Scan(&body, &state); err != nil {
			return nil, err
		}
		var d octopus.Deployment
		if err := json.Unmarshal([]byte(body), &d); err != nil {
			return nil, err
		}
		d.FailureEncountered = state == octopus.TaskFailed
		out = append(out, d)
	}
	return out, rows.Err()
}

// Current is what is where: the last successful deployment of a place.
type Current struct {
	ProjectID, EnvironmentID, TenantID, ReleaseID, DeploymentID string
}

// CurrentQuery asks for what is where. Lists that are nil do not restrict.
type CurrentQuery struct {
	Space                           ident.SpaceID
	Projects, Environments, Tenants []string
	Visible                         []resource.Grant
}

// Currents lists what is where, by project and environment.
func (s *Service) Currents(ctx context.Context, tx *db.Tx, q CurrentQuery) ([]Current, error) {
	f := &filter{}
	f.and(`d.space_id = ?`, string(q.Space))
	f.anyOf(`c.project_id`, "Projects", q.Projects)
	f.anyOf(`c.environment_id`, "Environments", q.Environments)
	f.anyOf(`c.tenant_id`, "Tenants", q.Tenants)
	f.seen(q.Visible, `c.project_id`, `c.environment_id`, `c.tenant_id`)
	rows, err := tx.Query(ctx, `SELECT c.project_id, c.environment_id, c.tenant_id, c.release_id, c.deployment_id FROM current_release c JOIN deployment d ON d.id = c.deployment_id
		WHERE `+f.where.String()+` ORDER BY c.project_id, c.environment_id, c.tenant_id`, f.args...)
	if err != nil {
		return nil, fmt.Errorf("list current releases: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	var out []Current
	for rows.Next() {
		var c Current
		if err := rows.Scan(&c.ProjectID, &c.EnvironmentID, &c.TenantID, &c.ReleaseID, &c.DeploymentID); err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, rows.Err()
}
