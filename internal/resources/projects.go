package resources

import (
	"context"
	"errors"

	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Projects are what is deployed. A new one gets a default channel, an empty
// process and an empty variable set, which live and die with it.
func Projects() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.Project]{
		Name: "projects", ItemType: "Project", Prefix: "Projects", Slugged: true,
		Permissions: resource.Permissions{View: "ProjectView", Create: "ProjectCreate", Edit: "ProjectEdit", Delete: "ProjectDelete"},
		Dimensions:  resource.Dimensions{Project: "Id", ProjectGroup: "ProjectGroupId"},
		Filters: []resource.Filter{
			{Param: "projectGroupId", Path: "ProjectGroupId"},
			{Param: "clonedFromProjectId", Path: "ClonedFromProjectId"},
			{Param: "autoCreateRelease", Path: "AutoCreateRelease"},
		},
		References: []resource.Reference{
			{Path: "ProjectGroupId", To: "projectgroups", Required: true},
			{Path: "LifecycleId", To: "lifecycles", Required: true},
			{Path: "IncludedLibraryVariableSetIds", To: "libraryvariablesets"},
		},
		Owned: append([]string{"VariableSetId", "DeploymentProcessId", "ClonedFromProjectId", "IsVersionControlled", "PersistenceSettings"}, settingsAlone()...),
		Links: map[string]string{
			"Releases":           "/api/{space}/projects/{Id}/releases{/version}{?skip,take,searchByVersion}",
			"Channels":           "/api/{space}/projects/{Id}/channels{?skip,take,partialName}",
			"Progression":        "/api/{space}/projects/{Id}/progression{?releaseHistoryCount}",
			"Summary":            "/api/{space}/projects/{Id}/summary",
			"DeploymentProcess":  "/api/{space}/deploymentprocesses/{DeploymentProcessId}",
			"DeploymentSettings": "/api/{space}/projects/{Id}/deploymentsettings",
			"Variables":          "/api/{space}/variables/{VariableSetId}",
			"Runbooks":           "/api/{space}/projects/{Id}/runbooks{?skip,take,partialName}",
			"Triggers":           "/api/{space}/projects/{Id}/triggers{?skip,take,partialName}",
			"ConvertToVcs":       "/api/{space}/projects/{Id}/git/convert",
			"Web":                "/app#/{space}/projects/{Slug}",
		},
		Prepare: prepareProject,
		Check: func(ctx context.Context, r resource.Reader, old, v *octopus.Project) error {
			var had octopus.List[string]
			var templates octopus.List[octopus.TemplateParameter]
			if old != nil {
				had, templates = old.ProjectTags, old.Templates
			}
			return errors.Join(
				checkTemplates(v.Templates, templates),
				checkTags(ctx, r, v.SpaceID, octopus.TagScopeProject, "ProjectTags", v.ProjectTags, had),
				checkParticipation("TenantedDeploymentMode", &v.TenantedDeploymentMode),
				oneOf("DefaultGuidedFailureMode", &v.DefaultGuidedFailureMode, octopus.GuidedFailureEnvironment, octopus.GuidedFailureOff, octopus.GuidedFailureOn),
				oneOf("ProjectConnectivityPolicy.SkipMachineBehavior", &v.ProjectConnectivityPolicy.SkipMachineBehavior, octopus.SkipNone, octopus.SkipUnavailable))
		},
		InTx: projectInTx,
	})
}

// settingsAlone are the deployment settings that a project's document keeps and
// that the project's own form does not have: a client that replaces a project
// knows nothing of them.
func settingsAlone() []string {
	return []string{"FailTargetDiscovery", "CancelQueuedTasks", "CancelRunningTasks"}
}

func prepareProject(v *octopus.Project) {
	v.VariableSetID = "variableset-" + v.ID
	v.DeploymentProcessID = "deploymentprocess-" + v.ID
	v.PersistenceSettings.Type = octopus.PersistenceDatabase
	if v.TenantedDeploymentMode == "" {
		v.TenantedDeploymentMode = octopus.Untenanted
	}
	if v.DefaultGuidedFailureMode == "" {
		v.DefaultGuidedFailureMode = octopus.GuidedFailureEnvironment
	}
	if v.VersioningStrategy.Template == "" && v.VersioningStrategy.DonorPackage == nil {
		v.VersioningStrategy.Template = octopus.DefaultVersionTemplate
	}
	if v.ProjectConnectivityPolicy.SkipMachineBehavior == "" {
		v.ProjectConnectivityPolicy.SkipMachineBehavior = octopus.SkipNone
	}
}

func projectInTx(ctx context.Context, w resource.Writer, c resource.Change[octopus.Project]) error {
	switch c.Op {
	case resource.Deleted:
		return w.Delete(ctx, "variables", c.Old.VariableSetID)
	case resource.Modified:
		return nil
	case resource.Created:
	}
	p := c.New
	if _, err := w.Create(ctx, "channels", c.Space, "", &octopus.Channel{ProjectID: p.ID, Name: "Default", IsDefault: true}); err != nil {
		return err
	}
	if _, err := w.Create(ctx, "deploymentprocesses", c.Space, p.DeploymentProcessID, &octopus.DeploymentProcess{ProjectID: p.ID}); err != nil {
		return err
	}
	_, err := w.Create(ctx, "variables", c.Space, p.VariableSetID, &VariableSet{OwnerID: p.ID})
	return err
}
