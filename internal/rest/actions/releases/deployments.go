package releases

import (
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// options are what both commands by name have in common.
func options(c *octopus.ExecutionCommand) releases.Options {
	o := releases.Options{
		ForcePackageDownload: c.ForcePackageDownload, SkipActions: c.SkipStepNames, Machines: c.SpecificMachineNames, ExcludedMachines: c.ExcludedMachineNames,
		UseGuidedFailure: c.UseGuidedFailure, Priority: c.Priority, Variables: textMap(c.Variables),
		FreezeNames: c.DeploymentFreezeNames, FreezeReason: c.DeploymentFreezeOverrideReason,
	}
	if c.RunAt != nil {
		o.QueueTime = c.RunAt.Time
	}
	if c.NoRunAfter != nil {
		o.Expiry = c.NoRunAfter.Time
	}
	return o
}

func (a *api) deployUntenanted(r *rest.Request) (any, error) {
	var c octopus.DeployUntenantedCommand
	if err := r.Decode(&c); err != nil {
		return nil, err
	}
	in := releases.NewDeployments{Environments: c.EnvironmentNames, UpdateVariables: c.UpdateVariableSnapshot, Options: options(&c.ExecutionCommand)}
	in.Options.ForcePackageRedeployment = c.ForcePackageRedeployment
	return a.deployByName(r, c.ProjectName, c.ReleaseVersion, in)
}

func (a *api) deployTenanted(r *rest.Request) (any, error) {
	var c octopus.DeployTenantedCommand
	if err := r.Decode(&c); err != nil {
		return nil, err
	}
	if len(c.Tenants) == 0 && len(c.TenantTags) == 0 {
		return nil, fault.InvalidField("Tenants", "Tenants and TenantTags are empty; name tenants or tags, or deploy untenanted.")
	}
	in := releases.NewDeployments{Tenants: c.Tenants, TenantTags: c.TenantTags, UpdateVariables: c.UpdateVariableSnapshot, Options: options(&c.ExecutionCommand)}
	if c.EnvironmentName != "" {
		in.Environments = []string{c.EnvironmentName}
	}
	in.Options.ForcePackageRedeployment = c.ForcePackageRedeployment
	return a.deployByName(r, c.ProjectName, c.ReleaseVersion, in)
}

func (a *api) deployByName(r *rest.Request, project, version string, in releases.NewDeployments) (any, error) {
	switch {
	case strings.TrimSpace(project) == "":
		return nil, fault.InvalidField("ProjectName", "ProjectName is empty; name the project.")
	case strings.TrimSpace(version) == "":
		return nil, fault.InvalidField("ReleaseVersion", "ReleaseVersion is empty; name the release to deploy.")
	}
	in.Space = r.Space
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		p, err := a.project(r.Context(), tx, r, project)
		if err != nil {
			return err
		}
		found, err := a.service.ReleaseByVersion(r.Context(), tx, p.ID, version)
		if err != nil {
			return err
		}
		found, err = a.service.FindRelease(r.Context(), tx, r.Space, found.ID, r.Grants(string(octopus.PermReleaseView)))
		if err == nil {
			in.ReleaseID = found.ID
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	made, err := a.service.Deploy(r.Context(), in, r.Allow)
	if err != nil {
		return nil, err
	}
	var out octopus.DeployResponse
	for _, d := range made {
		out.DeploymentServerTasks = append(out.DeploymentServerTasks, octopus.DeploymentServerTask{DeploymentID: d.ID, ServerTaskID: d.TaskID})
	}
	return rest.Created{Body: out}, nil
}

func (a *api) deploy(r *rest.Request) (any, error) {
	var doc octopus.Deployment
	if err := r.Decode(&doc); err != nil {
		return nil, err
	}
	in := releases.NewDeployments{
		Space: r.Space, ReleaseID: doc.ReleaseID,
		Options: releases.Options{
			ForcePackageDownload: doc.ForcePackageDownload, ForcePackageRedeployment: doc.ForcePackageRedeployment,
			SkipActions: doc.SkipActions, Machines: doc.SpecificMachineIDs, ExcludedMachines: doc.ExcludedMachineIDs,
			TargetTags: doc.SpecificTargetTagIDs, ExcludedTargetTags: doc.ExcludedTargetTagIDs,
			UseGuidedFailure: doc.UseGuidedFailure, DebugMode: string(doc.DebugMode), FailTargetDiscovery: doc.FailTargetDiscovery,
			Priority: doc.Priority, Comments: string(doc.Comments), FormValues: textMap(doc.FormValues),
			FreezeNames: doc.DeploymentFreezeNames, FreezeReason: string(doc.DeploymentFreezeOverrideReason),
		},
	}
	if doc.QueueTime != nil {
		in.Options.QueueTime = doc.QueueTime.Time
	}
	if doc.QueueTimeExpiry != nil {
		in.Options.Expiry = doc.QueueTimeExpiry.Time
	}
	if doc.EnvironmentID != "" {
		in.Environments = []string{doc.EnvironmentID}
	}
	if doc.TenantID != "" {
		in.Tenants = []string{string(doc.TenantID)}
	}
	if in.ReleaseID != "" {
		err := a.db.Read(r.Context(), func(tx *db.Tx) error {
			_, err := a.service.FindRelease(r.Context(), tx, r.Space, in.ReleaseID, r.Grants(string(octopus.PermReleaseView)))
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	made, err := a.service.Deploy(r.Context(), in, r.Allow)
	if err != nil {
		return nil, err
	}
	return rest.Created{Body: linkedDeployment(r, &made[0]), Location: r.SpaceHref("/deployments/" + made[0].ID)}, nil
}

func (a *api) deployments(r *rest.Request) (any, error) {
	q := releases.DeploymentQuery{Name: r.Query("partialName")}
	for name, to := range map[string]*[]string{
		"ids": &q.IDs, "projects": &q.Projects, "environments": &q.Environments, "tenants": &q.Tenants, "channels": &q.Channels, "taskState": &q.States,
	} {
		var err error
		if *to, err = r.QueryList(name); err != nil {
			return nil, err
		}
	}
	return a.deploymentPage(r, q, nil)
}

func (a *api) deploymentPage(r *rest.Request, q releases.DeploymentQuery, narrow func(tx *db.Tx, q *releases.DeploymentQuery) error) (any, error) {
	page, err := r.Page()
	if err != nil {
		return nil, err
	}
	q.Space, q.Page, q.Visible = r.Space, page, r.Grants(string(octopus.PermDeploymentView))
	var docs []octopus.Deployment
	var total int64
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		q := q
		if narrow != nil {
			if err := narrow(tx, &q); err != nil {
				return err
			}
		}
		docs, total, err = a.service.Deployments(r.Context(), tx, q)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.PageOf(r, "Deployment", page, total, each(r, docs, linkedDeployment)), nil
}

func (a *api) ofRelease(r *rest.Request) (any, error) {
	return a.deploymentPage(r, releases.DeploymentQuery{}, func(tx *db.Tx, q *releases.DeploymentQuery) error {
		release, err := a.release(tx, r)
		if err == nil {
			q.Release = release.ID
		}
		return err
	})
}

func (a *api) deployment(r *rest.Request) (any, error) {
	var doc *octopus.Deployment
	err := a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
		doc, err = a.service.FindDeployment(r.Context(), tx, r.Space, r.PathValue("id"), r.Grants(string(octopus.PermDeploymentView)))
		return err
	})
	if err != nil {
		return nil, err
	}
	return linkedDeployment(r, doc), nil
}

func (a *api) deleteDeployment(r *rest.Request) (any, error) {
	return nil, a.db.Write(r.Context(), func(tx *db.Tx) error {
		doc, err := a.service.FindDeployment(r.Context(), tx, r.Space, r.PathValue("id"), r.Grants(string(octopus.PermDeploymentView)))
		if err != nil {
			return err
		}
		return a.service.DeleteDeployment(r.Context(), tx, doc, r.Allow)
	})
}
