package projects

import (
	"context"
	"fmt"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// maxSummaries bounds the projects of one answer.
const maxSummaries = 1000

// pulse is when a project was last deployed.
type pulse struct {
	ProjectID                    string `json:"ProjectId"`
	Name                         string
	LastDeploymentTime           *octopus.Time
	LastSuccessfulDeploymentTime *octopus.Time
	Links                        octopus.Links
}

// short is little of a project.
type short struct {
	ID                  string `json:"Id"`
	SpaceID             string `json:"SpaceId"`
	Name, Slug          string
	ProjectGroupID      string `json:"ProjectGroupId"`
	IsDisabled          bool
	IsVersionControlled bool
	Links               octopus.Links
}

// last is when something was last deployed; 0 is never.
type last struct{ created, succeeded int64 }

// lastOf reads when projects were last deployed, by the places whose deployments
// the caller may see.
func lastOf(ctx context.Context, tx *db.Tx, grants []resource.Grant, projects []string) (map[string]last, error) {
	found := map[string]last{}
	seen, args := seenDeployments(grants)
	if len(projects) == 0 || seen == "" {
		return found, nil
	}
	in, more := inList(`d.project_id`, projects)
	rows, err := tx.Query(ctx, `SELECT d.project_id, max(d.created), max(COALESCE(c.completed, 0)) FROM latest_deployment d
		LEFT JOIN current_release c ON c.project_id = d.project_id AND c.environment_id = d.environment_id AND c.tenant_id = d.tenant_id
		WHERE `+in+` AND `+seen+` GROUP BY d.project_id`, append(more, args...)...)
	if err != nil {
		return nil, fmt.Errorf("read when projects were deployed: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var project string
		var l last
		if err := rows.Scan(&project, &l.created, &l.succeeded); err != nil {
			return nil, fmt.Errorf("read when projects were deployed: %w", err)
		}
		found[project] = l
	}
	return found, rows.Err()
}

// seenDeployments is the condition that one of the grants covers the deployments of
// a place d; "" when none covers anything.
func seenDeployments(grants []resource.Grant) (string, []any) {
	if grants == nil {
		return `1 = 1`, nil
	}
	var alternatives []string
	var args []any
	for _, g := range grants {
		all := []string{`1 = 1`}
		for _, d := range []struct {
			column string
			ids    []string
		}{{`d.project_id`, g.Projects}, {`d.environment_id`, g.Environments}, {`d.tenant_id`, g.Tenants}} {
			if len(d.ids) > 0 {
				in, more := inList(d.column, d.ids)
				all, args = append(all, in), append(args, more...)
			}
		}
		if len(g.ProjectGroups) > 0 {
			folded := make([]string, len(g.ProjectGroups))
			for i, id := range g.ProjectGroups {
				folded[i] = ident.Fold(id)
			}
			in, more := inList(`p.value`, folded)
			all = append(all, `d.project_id IN (SELECT p.id FROM document_index p WHERE p.kind = 'projects' AND p.field = 'ProjectGroupId' AND `+in+`)`)
			args = append(args, more...)
		}
		alternatives = append(alternatives, `(`+strings.Join(all, ` AND `)+`)`)
	}
	if len(alternatives) == 0 {
		return "", nil
	}
	return `(` + strings.Join(alternatives, ` OR `) + `)`, args
}

// inList is "column IN (...)" with its parameters.
func inList(column string, values []string) (string, []any) {
	if len(values) == 0 {
		return `1 = 0`, nil
	}
	args := make([]any, len(values))
	for i, v := range values {
		args[i] = v
	}
	return column + ` IN (?` + strings.Repeat(`, ?`, len(values)-1) + `)`, args
}

func at(micros int64) *octopus.Time { return octopus.OptionalTime(db.Time(micros)) }

func (a *api) summary(r *rest.Request) (any, error) {
	var out octopus.ProjectSummary
	var id string
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		ctx := r.Context()
		doc, err := r.Find(ctx, tx, projectKind, r.PathValue("id"))
		if err != nil {
			return err
		}
		id = doc.ID
		out = octopus.ProjectSummary{}
		times, err := lastOf(ctx, tx, r.Grants(deploymentView), []string{id})
		if err != nil {
			return err
		}
		out.LastSuccessfulDeploymentTime = at(times[id].succeeded)
		out.HasBeenSuccessfullyDeployed = times[id].succeeded > 0
		var process octopus.DeploymentProcess
		if err := a.store.Load(ctx, tx, "deploymentprocesses", "deploymentprocess-"+id, &process); err != nil {
			return err
		}
		out.StepCount, out.HasDeploymentProcess = len(process.Steps), len(process.Steps) > 0
		for _, s := range process.Steps {
			disabled := len(s.Actions) > 0
			for _, action := range s.Actions {
				disabled = disabled && action.IsDisabled
			}
			if disabled {
				out.DisabledStepCount++
			}
		}
		if !a.declared("runbooks") {
			return nil
		}
		k, err := a.store.Kind("runbooks")
		if err != nil {
			return err
		}
		_, runbooks, err := a.store.List(ctx, tx, k, docstore.Query{Space: r.Space, Where: []docstore.Match{{Path: "ProjectId", Any: []string{id}}}, Page: ident.Page{Take: 1}})
		out.HasRunbooks = runbooks > 0
		return err
	})
	if err != nil {
		return nil, err
	}
	out.Links = octopus.Links{"Self": r.SpaceHref("/projects/" + id + "/summary"), "Project": r.SpaceHref("/projects/" + id)}
	return out, nil
}

// visible reads the projects that a list asks for and the caller may see.
func (a *api) visible(ctx context.Context, tx *db.Tx, r *rest.Request, param string) (projects []*octopus.Project, err error) {
	q := docstore.Query{Space: r.Space, Visible: r.Grants(projectView), Page: ident.Page{Take: maxSummaries}}
	if r.HasQuery(param) {
		if q.IDs, err = r.QueryList(param); err != nil {
			return nil, err
		}
	}
	k, err := a.store.Kind(projectKind)
	if err != nil {
		return nil, err
	}
	docs, _, err := a.store.List(ctx, tx, k, q)
	if err != nil {
		return nil, err
	}
	for _, doc := range docs {
		p, err := docstore.Decode[octopus.Project](doc)
		if err != nil {
			return nil, err
		}
		projects = append(projects, p)
	}
	return projects, nil
}

func (a *api) pulse(r *rest.Request) (any, error) {
	all := octopus.List[pulse]{}
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		projects, err := a.visible(r.Context(), tx, r, "projectIds")
		if err != nil {
			return err
		}
		ids := make([]string, len(projects))
		for i, p := range projects {
			ids[i] = p.ID
		}
		times, err := lastOf(r.Context(), tx, r.Grants(deploymentView), ids)
		all = all[:0]
		for _, p := range projects {
			all = append(all, pulse{
				ProjectID: p.ID, Name: p.Name, LastDeploymentTime: at(times[p.ID].created), LastSuccessfulDeploymentTime: at(times[p.ID].succeeded),
				Links: octopus.Links{"Project": r.SpaceHref("/projects/" + p.ID)},
			})
		}
		return err
	})
	return all, err
}

func (a *api) summaries(r *rest.Request) (any, error) {
	all := octopus.List[short]{}
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		projects, err := a.visible(r.Context(), tx, r, "ids")
		all = all[:0]
		for _, p := range projects {
			all = append(all, short{
				ID: p.ID, SpaceID: p.SpaceID, Name: p.Name, Slug: p.Slug, ProjectGroupID: p.ProjectGroupID, IsDisabled: p.IsDisabled,
				IsVersionControlled: p.IsVersionControlled, Links: octopus.Links{"Self": r.SpaceHref("/projects/" + p.ID)},
			})
		}
		return err
	})
	return all, err
}
