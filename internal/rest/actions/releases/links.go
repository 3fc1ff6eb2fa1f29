package releases

import (
	"net/url"

	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// linked gives a release its links.
func linked(r *rest.Request, doc *octopus.Release) *octopus.Release {
	self := r.SpaceHref("/releases/" + doc.ID)
	doc.Links = octopus.Links{
		"Self":                             self,
		"Project":                          r.SpaceHref("/projects/" + doc.ProjectID),
		"Channel":                          r.SpaceHref("/channels/" + doc.ChannelID),
		"Deployments":                      self + "/deployments{?skip,take}",
		"DeploymentTemplate":               self + "/deployments/template",
		"DeploymentPreviews":               self + "/deployments/previews",
		"Progression":                      self + "/progression",
		"SnapshotVariables":                self + "/snapshot-variables",
		"MissingPackages":                  self + "/missingpackages",
		"Defects":                          self + "/defects",
		"ReportDefect":                     self + "/defects",
		"ResolveDefect":                    self + "/defects/resolve",
		"ProjectVariableSnapshot":          r.SpaceHref("/variables/" + doc.ProjectVariableSetSnapshotID),
		"ProjectDeploymentProcessSnapshot": r.SpaceHref("/deploymentprocesses/" + doc.ProjectDeploymentProcessSnapshotID),
		"Artifacts":                        r.SpaceHref("/artifacts?regarding=" + doc.ID),
		"Web":                              r.Href("/app#/" + doc.SpaceID + "/releases/" + doc.ID),
	}
	return doc
}

// linkedDeployment gives a deployment its links.
func linkedDeployment(r *rest.Request, doc *octopus.Deployment) *octopus.Deployment {
	doc.Links = octopus.Links{
		"Self":              r.SpaceHref("/deployments/" + doc.ID),
		"Project":           r.SpaceHref("/projects/" + doc.ProjectID),
		"Release":           r.SpaceHref("/releases/" + doc.ReleaseID),
		"Environment":       r.SpaceHref("/environments/" + doc.EnvironmentID),
		"Task":              r.SpaceHref("/tasks/" + doc.TaskID),
		"Variables":         r.SpaceHref("/variables/" + doc.ManifestVariableSetID),
		"DeploymentProcess": r.SpaceHref("/deploymentprocesses/" + doc.DeploymentProcessID),
		"Artifacts":         r.SpaceHref("/artifacts?regarding=" + url.QueryEscape(doc.TaskID)),
		"Interruptions":     r.SpaceHref("/interruptions?regarding=" + url.QueryEscape(doc.TaskID)),
		"Web":               r.Href("/app#/" + doc.SpaceID + "/deployments/" + doc.ID),
	}
	if doc.TenantID != "" {
		doc.Links["Tenant"] = r.SpaceHref("/tenants/" + string(doc.TenantID))
	}
	return doc
}

// linkedDefect gives a defect its links.
func linkedDefect(r *rest.Request, doc *octopus.Defect) *octopus.Defect {
	doc.Links = octopus.Links{"Self": r.SpaceHref("/releases/" + doc.ReleaseID + "/defects"), "Release": r.SpaceHref("/releases/" + doc.ReleaseID)}
	return doc
}

// each gives all documents of a list their links.
func each[T any](r *rest.Request, docs []T, link func(*rest.Request, *T) *T) []T {
	for i := range docs {
		link(r, &docs[i])
	}
	return docs
}
