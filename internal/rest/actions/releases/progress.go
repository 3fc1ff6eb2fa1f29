package releases

import (
	"context"
	"net/url"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/rest"
	taskroutes "github.com/takodeploy/tako/internal/rest/actions/tasks"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Bounds of what one answer tells.
const (
	defaultHistory = 30
	maxHistory     = 200
	maxPreviews    = 200
)

// tasksOf reads the tasks of deployments that the caller may see, by id.
func tasksOf(ctx context.Context, tx *db.Tx, r *rest.Request, ids []string) (map[string]octopus.Task, error) {
	out := make(map[string]octopus.Task, len(ids))
	if len(ids) == 0 {
		return out, nil
	}
	found, _, _, err := tasks.List(ctx, tx, tasks.Query{Visible: []tasks.Visible{{Space: r.Space}}, IDs: ids, Page: ident.Page{Take: ident.MaxTake}})
	if err != nil {
		return nil, err
	}
	docs, err := taskroutes.Documents(ctx, tx, r, found)
	for _, doc := range docs {
		out[doc.ID] = doc
	}
	return out, err
}

// sight is what the caller may see of progressions.
func sight(r *rest.Request) releases.Sight {
	return releases.Sight{Deployments: r.Grants(string(octopus.PermDeploymentView)), Environments: r.Grants(string(octopus.PermEnvironmentView))}
}

func (a *api) progression(r *rest.Request) (any, error) {
	var out *octopus.LifecycleProgression
	var release *octopus.Release
	err := a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
		if release, err = a.release(tx, r); err != nil {
			return err
		}
		if out, err = a.service.Progression(r.Context(), tx, release, sight(r)); err != nil {
			return err
		}
		var ids []string
		for _, p := range out.Phases {
			for _, d := range p.Deployments {
				ids = append(ids, d.Deployment.TaskID)
			}
		}
		known, err := tasksOf(r.Context(), tx, r, ids)
		if err != nil {
			return err
		}
		for i := range out.Phases {
			for j := range out.Phases[i].Deployments {
				d := &out.Phases[i].Deployments[j]
				linkedDeployment(r, d.Deployment)
				if task, ok := known[d.Deployment.TaskID]; ok {
					d.Task = &task
				}
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.Links = octopus.Links{"Self": r.SpaceHref("/releases/" + release.ID + "/progression"), "Release": r.SpaceHref("/releases/" + release.ID)}
	return out, nil
}

func (a *api) projectProgression(r *rest.Request) (any, error) {
	history, err := r.QueryInt("releaseHistoryCount", defaultHistory)
	if err != nil {
		return nil, err
	}
	var out *octopus.ProjectProgression
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		p, err := a.project(r.Context(), tx, r, r.PathValue("project"))
		if err != nil {
			return err
		}
		if err := r.Allow(string(octopus.PermReleaseView), rest.Target{Project: p.ID, ProjectGroup: p.ProjectGroupID}); err != nil {
			return fault.Missing("project", p.ID)
		}
		found, err := a.service.ProjectProgression(r.Context(), tx, p, min(max(history, 1), maxHistory), sight(r))
		if err != nil {
			return err
		}
		out, err = a.projectDocument(r.Context(), tx, r, found)
		return err
	})
	return out, err
}

func named(environments []octopus.Environment) octopus.List[octopus.Named] {
	var out octopus.List[octopus.Named]
	for _, e := range environments {
		out = append(out, octopus.Named{ID: e.ID, Name: e.Name})
	}
	return out
}

func (a *api) projectDocument(ctx context.Context, tx *db.Tx, r *rest.Request, p *releases.ProjectProgression) (*octopus.ProjectProgression, error) {
	out := &octopus.ProjectProgression{
		Resource:              octopus.Resource{ID: p.Project.ID},
		Environments:          named(p.Environments),
		LifecycleEnvironments: octopus.Map[string, octopus.List[octopus.Named]]{}, ChannelEnvironments: octopus.Map[string, octopus.List[octopus.Named]]{},
	}
	out.Links = octopus.Links{"Self": r.SpaceHref("/projects/" + p.Project.ID + "/progression"), "Project": r.SpaceHref("/projects/" + p.Project.ID)}
	for id, list := range p.Lifecycles {
		out.LifecycleEnvironments[id] = named(list)
	}
	for id, list := range p.Channels {
		out.ChannelEnvironments[id] = named(list)
	}
	var ids []string
	for i := range p.Releases {
		for _, d := range p.Releases[i].Deployments {
			ids = append(ids, d.TaskID)
		}
	}
	known, err := tasksOf(ctx, tx, r, ids)
	if err != nil {
		return nil, err
	}
	for i := range p.Releases {
		one := &p.Releases[i]
		row := octopus.ReleaseProgression{
			Release: *linked(r, &one.Release), Channel: one.Channel, NextDeployments: one.Next, HasUnresolvedDefect: one.HasDefect,
			ReleaseRetentionPeriod: one.ReleasePeriod, TentacleRetentionPeriod: one.TentaclePeriod,
			Deployments: octopus.Map[string, octopus.List[octopus.DashboardItem]]{},
		}
		for j := range one.Deployments {
			d := &one.Deployments[j]
			row.Deployments[d.EnvironmentID] = append(row.Deployments[d.EnvironmentID], Item(r, d, one.Release.Version, known[d.TaskID], one.IsCurrent(d.ID)))
		}
		out.Releases = append(out.Releases, row)
	}
	return out, nil
}

// Item is a deployment as dashboards show it; task is its task, which is empty if
// it is gone, and current tells that nothing has been deployed in its place since.
func Item(r *rest.Request, d *octopus.Deployment, version string, task octopus.Task, current bool) octopus.DashboardItem {
	item := octopus.DashboardItem{
		ID: d.ID, ProjectID: d.ProjectID, EnvironmentID: d.EnvironmentID, DeploymentEnvironmentID: d.EnvironmentID, ReleaseID: d.ReleaseID, DeploymentID: d.ID,
		TaskID: d.TaskID, TenantID: d.TenantID, ChannelID: d.ChannelID, ReleaseVersion: version, Created: d.Created, QueueTime: d.Created,
		StartTime: task.StartTime, CompletedTime: task.CompletedTime, State: task.State,
		HasPendingInterruptions: task.HasPendingInterruptions, PendingInterruptionTypes: task.PendingInterruptionTypes,
		HasWarningsOrErrors: task.HasWarningsOrErrors, ErrorMessage: task.ErrorMessage, Duration: task.Duration,
		IsCurrent: current, IsCompleted: task.IsCompleted,
		Links: octopus.Links{
			"Self": r.SpaceHref("/deployments/" + d.ID), "Release": r.SpaceHref("/releases/" + d.ReleaseID), "Task": r.SpaceHref("/tasks/" + d.TaskID),
		},
	}
	if task.QueueTime.After(time.Time{}) {
		item.QueueTime = task.QueueTime
	}
	return item
}

func (a *api) deploymentTemplate(r *rest.Request) (any, error) {
	var out *octopus.DeploymentTemplate
	var self string
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		release, err := a.release(tx, r)
		if err != nil {
			return err
		}
		self = r.SpaceHref("/releases/" + release.ID + "/deployments")
		out, err = a.service.Template(r.Context(), tx, release, r.Allow)
		return err
	})
	if err != nil {
		return nil, err
	}
	out.Links = octopus.Links{"Self": self + "/template"}
	for i := range out.PromoteTo {
		e := &out.PromoteTo[i]
		e.Links = octopus.Links{"Preview": self + "/preview/" + e.ID + "{?includeDisabledSteps}"}
	}
	for i := range out.TenantPromotions {
		t := &out.TenantPromotions[i]
		for j := range t.PromoteTo {
			e := &t.PromoteTo[j]
			e.Links = octopus.Links{"Preview": self + "/preview/" + e.ID + "/" + url.PathEscape(t.ID) + "{?includeDisabledSteps}"}
		}
	}
	return out, nil
}

func (a *api) preview(r *rest.Request) (any, error) {
	disabled, err := r.QueryBool("includeDisabledSteps", false)
	if err != nil {
		return nil, err
	}
	found, err := a.previewsOf(r, r.Query("continues"), []octopus.DeploymentPreviewTarget{{EnvironmentID: r.PathValue("environment"), TenantID: octopus.NullString(r.PathValue("tenant"))}}, disabled)
	if err != nil {
		return nil, err
	}
	return found[0], nil
}

func (a *api) previews(r *rest.Request) (any, error) {
	var in octopus.DeploymentPreviewRequest
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if n := len(in.DeploymentPreviews); n > maxPreviews {
		return nil, fault.InvalidField("DeploymentPreviews", "DeploymentPreviews has %d entries; use at most %d.", n, maxPreviews)
	}
	return a.previewsOf(r, "", in.DeploymentPreviews, in.IncludeDisabledSteps)
}

func (a *api) previewsOf(r *rest.Request, continues string, targets []octopus.DeploymentPreviewTarget, disabled bool) ([]*octopus.DeploymentPreview, error) {
	out := []*octopus.DeploymentPreview{}
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		out = out[:0]
		release, err := a.release(tx, r)
		if err != nil {
			return err
		}
		for _, t := range targets {
			p, err := a.service.Preview(r.Context(), tx, release, t.EnvironmentID, string(t.TenantID), disabled, continues, r.Allow)
			if err != nil {
				return err
			}
			p.Links = octopus.Links{"Release": r.SpaceHref("/releases/" + release.ID)}
			for i := range p.StepsToExecute {
				step := &p.StepsToExecute[i]
				for _, list := range []octopus.List[octopus.PreviewMachine]{step.Machines, step.UnavailableMachines, step.ExcludedMachines, step.DoneMachines} {
					for j := range list {
						list[j].Links = octopus.Links{"Self": r.SpaceHref("/machines/" + list[j].ID)}
					}
				}
			}
			out = append(out, p)
		}
		return nil
	})
	return out, err
}
