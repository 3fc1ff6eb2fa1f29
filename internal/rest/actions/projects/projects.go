// Package projects serves what belongs to projects and their surroundings and is
// no plain resource: variable sets with what they can be scoped to, previews that
// explain themselves, deployment settings, clones, and the summaries, orders and
// lists that clients read beside environments, pools, machines, channels, accounts
// and feeds.
package projects

import (
	"net/http"
	"reflect"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// Permissions that the routes need.
const (
	projectView     = string(octopus.PermProjectView)
	projectEdit     = string(octopus.PermProjectEdit)
	projectCreate   = string(octopus.PermProjectCreate)
	processView     = string(octopus.PermProcessView)
	processEdit     = string(octopus.PermProcessEdit)
	variableView    = string(octopus.PermVariableView)
	environmentView = string(octopus.PermEnvironmentView)
	environmentEdit = string(octopus.PermEnvironmentEdit)
	machineView     = string(octopus.PermMachineView)
	policyView      = string(octopus.PermMachinePolicyView)
	tagSetEdit      = string(octopus.PermTagSetEdit)
	workerView      = string(octopus.PermWorkerView)
	workerEdit      = string(octopus.PermWorkerEdit)
	accountView     = string(octopus.PermAccountView)
	feedView        = string(octopus.PermFeedView)
	deploymentView  = string(octopus.PermDeploymentView)
)

// api serves the routes.
type api struct {
	db    *db.DB
	store *docstore.Store
}

// Routes are the operations. They all are in spaces.
func Routes(d *db.DB, store *docstore.Store) []rest.Route {
	a := &api{d, store}
	routes := a.variableRoutes()
	routes = append(routes, a.projectRoutes()...)
	routes = append(routes, a.placeRoutes()...)
	routes = append(routes, a.smallRoutes()...)
	return routes
}

func (a *api) projectRoutes() []rest.Route {
	project, process := reflect.TypeFor[octopus.Project](), reflect.TypeFor[octopus.DeploymentProcess]()
	settings := reflect.TypeFor[octopus.DeploymentSettings]()
	ids := func(name string) []rest.Param {
		return []rest.Param{{Name: name, Type: rest.List, About: "only these"}}
	}
	return []rest.Route{
		{Method: http.MethodPost, Pattern: "/projects", Permission: projectCreate, Handler: a.create, Overrides: true, Body: project, Response: project, Query: []rest.Param{{Name: "clone", Type: rest.Text, About: "the project to copy: its process, variables, channels and settings"}}, Summary: "Creates a project, or a copy of one."},
		{Method: http.MethodGet, Pattern: "/projects/{id}/deploymentsettings", Permission: projectView, Handler: a.settings, Response: settings, Summary: "Reads how a project deploys."},
		{Method: http.MethodPut, Pattern: "/projects/{id}/deploymentsettings", Permission: projectEdit, Handler: a.putSettings, Body: settings, Response: settings, Summary: "Changes how a project deploys."},
		{Method: http.MethodGet, Pattern: "/projects/{id}/deploymentprocesses", Permission: processView, Handler: a.process, Response: process, Summary: "Reads the process of a project."},
		{Method: http.MethodPut, Pattern: "/projects/{id}/deploymentprocesses", Permission: processEdit, Handler: a.putProcess, Body: process, Response: process, Summary: "Replaces the process of a project."},
		{Method: http.MethodGet, Pattern: "/projects/{id}/summary", Permission: projectView, Handler: a.summary, Response: reflect.TypeFor[octopus.ProjectSummary](), Summary: "Tells what a project has, and whether it was ever deployed."},
		{Method: http.MethodGet, Pattern: "/projects/pulse", Permission: projectView, Handler: a.pulse, Response: reflect.TypeFor[[]pulse](), Query: ids("projectIds"), Summary: "Tells when projects were last deployed."},
		{Method: http.MethodGet, Pattern: "/projects/experimental/summaries", Permission: projectView, Handler: a.summaries, Response: reflect.TypeFor[[]short](), Query: ids("ids"), Summary: "Lists projects with little of each."},
	}
}

// declared reports whether the server has a kind.
func (a *api) declared(kind string) bool { return a.store.Kinds()[kind] != nil }

// find reads the project that the path names, if the caller may see it.
func (a *api) find(r *rest.Request) (p *octopus.Project, err error) {
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		doc, err := r.Find(r.Context(), tx, "projects", r.PathValue("id"))
		if err == nil {
			p, err = docstore.Decode[octopus.Project](doc)
		}
		return err
	})
	return p, err
}

func (a *api) process(r *rest.Request) (any, error) {
	p, err := a.find(r)
	if err != nil {
		return nil, err
	}
	return r.Get("deploymentprocesses", p.DeploymentProcessID)
}

func (a *api) putProcess(r *rest.Request) (any, error) {
	p, err := a.find(r)
	if err != nil {
		return nil, err
	}
	body, err := r.ReadBody()
	if err != nil {
		return nil, err
	}
	return r.Replace("deploymentprocesses", p.DeploymentProcessID, body)
}
