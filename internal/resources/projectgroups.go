package resources

import (
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// ProjectGroups put projects together, on the dashboard and in permissions.
func ProjectGroups() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.ProjectGroup]{
		Name: "projectgroups", ItemType: "ProjectGroup", Noun: "project group", Prefix: "ProjectGroups",
		Permissions: resource.Permissions{View: "ProjectGroupView", Create: "ProjectGroupCreate", Edit: "ProjectGroupEdit", Delete: "ProjectGroupDelete"},
		Dimensions:  resource.Dimensions{ProjectGroup: "Id"},
		Slugged:     true,
		Links:       map[string]string{"Projects": "/api/{space}/projectgroups/{Id}/projects{?skip,take,partialName}"},
	})
}
