// Package releases serves releases and deployments: making them by id or, as
// command lines do, by name; listing them; and what decides where a release can
// go next.
package releases

import (
	"net/http"
	"reflect"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// api serves the routes.
type api struct {
	db      *db.DB
	service *releases.Service
}

// Routes are the operations on releases and deployments.
func Routes(d *db.DB, service *releases.Service) []rest.Route {
	a := &api{d, service}
	all := append(a.releaseRoutes(), a.progressRoutes()...)
	all = append(all, a.retentionRoutes()...)
	return append(all, a.deploymentRoutes()...)
}

func of[T any]() reflect.Type { return reflect.TypeFor[T]() }

// get, post, put and del declare a route; what is less usual is added to it.
func get(pattern string, permission octopus.Permission, h rest.Handler, answer reflect.Type, about string, query ...rest.Param) rest.Route {
	return rest.Route{Method: http.MethodGet, Pattern: pattern, Permission: string(permission), Handler: h, Response: answer, Summary: about, Query: query}
}

func post(pattern string, permission octopus.Permission, h rest.Handler, body, answer reflect.Type, about string, query ...rest.Param) rest.Route {
	return rest.Route{Method: http.MethodPost, Pattern: pattern, Permission: string(permission), Handler: h, Body: body, Response: answer, Summary: about, Query: query}
}

func put(pattern string, permission octopus.Permission, h rest.Handler, body, answer reflect.Type, about string, query ...rest.Param) rest.Route {
	return rest.Route{Method: http.MethodPut, Pattern: pattern, Permission: string(permission), Handler: h, Body: body, Response: answer, Summary: about, Query: query}
}

func del(pattern string, permission octopus.Permission, h rest.Handler, about string) rest.Route {
	return rest.Route{Method: http.MethodDelete, Pattern: pattern, Permission: string(permission), Handler: h, Summary: about}
}

// paged are the parameters of a list.
func paged(more ...rest.Param) []rest.Param {
	return append([]rest.Param{
		{Name: "skip", Type: rest.Number, About: "how many to leave out"},
		{Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"},
	}, more...)
}

func list(name, about string) rest.Param {
	return rest.Param{Name: name, Type: rest.List, About: about}
}

func text(name, about string) rest.Param {
	return rest.Param{Name: name, Type: rest.Text, About: about}
}

func flag(name, about string) rest.Param {
	return rest.Param{Name: name, Type: rest.Boolean, About: about}
}

func (a *api) releaseRoutes() []rest.Route {
	one, page := of[octopus.Release](), of[octopus.Page[octopus.Release]]()
	ids, version := list("ids", "only these"), text("searchByVersion", "only those with this in their version")
	ignore := flag("ignoreChannelRules", "true lets packages break the channel's rules, if the project allows it")
	project := del("/projects/{id}", octopus.PermProjectDelete, a.deleteProject, "Deletes a project with its releases, their deployments, logs and artifacts.")
	project.Overrides = true
	template := []rest.Param{text("channel", "the channel of the release; the default one unless said"), text("releaseId", "tells of this release instead of a new one")}
	return []rest.Route{
		project,
		post("/releases/create/v1", octopus.PermReleaseCreate, a.createByName, of[octopus.CreateReleaseCommand](), of[octopus.CreateReleaseResponse](), "Creates a release of a project that is named as people do."),
		get("/releases", octopus.PermReleaseView, a.list, page, "Lists releases, the newest first.", paged(ids)...),
		post("/releases", octopus.PermReleaseCreate, a.create, one, one, "Creates a release.", ignore),
		get("/releases/{id}", octopus.PermReleaseView, a.get, one, "Reads a release."),
		put("/releases/{id}", octopus.PermReleaseEdit, a.edit, one, one, "Changes a release: its version, notes, packages, and its channel while it has not been deployed.", ignore),
		del("/releases/{id}", octopus.PermReleaseDelete, a.delete, "Deletes a release with its deployments, their tasks, logs and artifacts."),
		post("/releases/{id}/snapshot-variables", octopus.PermReleaseEdit, a.updateVariables, nil, one, "Takes the variables for a release anew, as they are now."),
		post("/releases/{id}/snapshot-variables-by-name", octopus.PermReleaseEdit, a.updateSomeVariables, of[variableNames](), one, "Takes some variables for a release anew, as they are now."),
		get("/releases/{id}/missingpackages", octopus.PermReleaseView, a.missingPackages, of[octopus.MissingPackages](), "Lists the packages of a release that are not in their feeds."),
		get("/releases/{id}/defects", octopus.PermReleaseView, a.defects, of[octopus.Page[octopus.Defect]](), "Lists the defects of a release, the newest first.", paged()...),
		post("/releases/{id}/defects", octopus.PermDefectReport, a.report, of[octopus.Defect](), of[octopus.Defect](), "Keeps a release from going further."),
		post("/releases/{id}/defects/resolve", octopus.PermDefectResolve, a.resolve, nil, of[octopus.Defect](), "Lets a release go further again."),
		get("/projects/{project}/releases", octopus.PermReleaseView, a.ofProject, page, "Lists the releases of a project, the newest first.", paged(version)...),
		get("/projects/{project}/releases/{version}", octopus.PermReleaseView, a.byVersion, one, "Reads a release of a project by its version."),
		get("/projects/{project}/channels/{channel}/releases", octopus.PermReleaseView, a.ofChannel, page, "Lists the releases of a channel, the newest first.", paged(version)...),
		get("/channels/{channel}/releases", octopus.PermReleaseView, a.ofChannel, page, "Lists the releases of a channel, the newest first.", paged(version)...),
		get("/deploymentprocesses/{id}/template", octopus.PermProcessView, a.template, of[octopus.ReleaseTemplate](), "Says what a new release of a process needs to be told.", template...),
		get("/projects/{project}/deploymentprocesses/template", octopus.PermProcessView, a.template, of[octopus.ReleaseTemplate](), "Says what a new release of a project needs to be told.", template...),
	}
}

func (a *api) progressRoutes() []rest.Route {
	process := get("/deploymentprocesses/{id}", octopus.PermProcessView, a.process, of[octopus.DeploymentProcess](), "Reads a deployment process, or what a release has frozen of one, by id.")
	process.Overrides = true
	disabled := flag("includeDisabledSteps", "with the steps that are disabled")
	preview, continues := of[octopus.DeploymentPreview](), text("continues", "the id of a failed deployment that it would go on from")
	previews := post("/releases/{id}/deployments/previews", octopus.PermDeploymentCreate, a.previews, of[octopus.DeploymentPreviewRequest](), of[[]octopus.DeploymentPreview](), "Says what several deployments would do.")
	previews.Reads = true
	return []rest.Route{
		process,
		get("/releases/{id}/progression", octopus.PermReleaseView, a.progression, of[octopus.LifecycleProgression](), "Says how far a release has come in its lifecycle, and where it can go next."),
		get("/projects/{project}/progression", octopus.PermReleaseView, a.projectProgression, of[octopus.ProjectProgression](), "Lists which releases of a project are where.",
			rest.Param{Name: "releaseHistoryCount", Type: rest.Number, About: "how many of the newest releases; 30 unless said"}),
		get("/releases/{id}/deployments/template", octopus.PermReleaseView, a.deploymentTemplate, of[octopus.DeploymentTemplate](), "Says where a release can be deployed to."),
		get("/releases/{id}/deployments/preview/{environment}", octopus.PermDeploymentCreate, a.preview, preview, "Says what a deployment would do.", disabled, continues),
		get("/releases/{id}/deployments/preview/{environment}/{tenant}", octopus.PermDeploymentCreate, a.preview, preview, "Says what a deployment for a tenant would do.", disabled, continues),
		previews,
	}
}

func (a *api) deploymentRoutes() []rest.Route {
	one, page := of[octopus.Deployment](), of[octopus.Page[octopus.Deployment]]()
	filters := paged(list("ids", "only these"), list("projects", "only those of these projects"), list("environments", "only those to these environments"),
		list("tenants", "only those for these tenants"), list("channels", "only those of these channels"), list("taskState", "only those whose task is in one of these states"),
		text("partialName", "only those of releases with this in their version"))
	return []rest.Route{
		post("/deployments/create/untenanted/v1", octopus.PermDeploymentCreate, a.deployUntenanted, of[octopus.DeployUntenantedCommand](), of[octopus.DeployResponse](), "Deploys a release to environments, all named as people do."),
		post("/deployments/create/tenanted/v1", octopus.PermDeploymentCreate, a.deployTenanted, of[octopus.DeployTenantedCommand](), of[octopus.DeployResponse](), "Deploys a release to an environment for tenants, all named as people do."),
		get("/deployments", octopus.PermDeploymentView, a.deployments, page, "Lists deployments, the newest first.", filters...),
		post("/deployments", octopus.PermDeploymentCreate, a.deploy, one, one, "Deploys a release to an environment."),
		get("/deployments/{id}", octopus.PermDeploymentView, a.deployment, one, "Reads a deployment."),
		del("/deployments/{id}", octopus.PermDeploymentDelete, a.deleteDeployment, "Deletes a deployment that has ended, with its task, log and artifacts."),
		get("/releases/{id}/deployments", octopus.PermDeploymentView, a.ofRelease, page, "Lists the deployments of a release, the newest first.", paged()...),
	}
}
