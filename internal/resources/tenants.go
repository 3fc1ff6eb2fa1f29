package resources

import (
	"context"

	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Tenants are whom a project is deployed for, each connected to projects in
// environments of its own.
func Tenants() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.Tenant]{
		Name: "tenants", ItemType: "Tenant", Prefix: "Tenants", Slugged: true,
		Permissions: resource.Permissions{View: "TenantView", Create: "TenantCreate", Edit: "TenantEdit", Delete: "TenantDelete"},
		Dimensions:  resource.Dimensions{Tenant: "Id"},
		Filters: []resource.Filter{
			{Param: "projectId", Path: "ProjectEnvironments.*key"},
			{Param: "tags", Path: "TenantTags"},
			{Param: "isDisabled", Path: "IsDisabled"},
			{Param: "clonedFromTenantId", Path: "ClonedFromTenantId"},
		},
		References: []resource.Reference{
			{Path: "ProjectEnvironments.*key", To: "projects", OnDelete: resource.Clear},
			{Path: "ProjectEnvironments.*", To: "environments", OnDelete: resource.Clear},
		},
		Owned: []string{"ClonedFromTenantId"},
		Links: map[string]string{
			"Variables":        "/api/{space}/tenants/{Id}/variables",
			"CommonVariables":  "/api/{space}/tenants/{Id}/commonvariables{?includeMissingVariables}",
			"ProjectVariables": "/api/{space}/tenants/{Id}/projectvariables{?includeMissingVariables}",
			"MissingVariables": "/api/{space}/tenants/variables-missing{?tenantId,projectId,environmentId,includeDetails}",
		},
		Check: func(ctx context.Context, r resource.Reader, old, v *octopus.Tenant) error {
			var had octopus.List[string]
			if old != nil {
				had = old.TenantTags
			}
			return checkTags(ctx, r, v.SpaceID, octopus.TagScopeTenant, "TenantTags", v.TenantTags, had)
		},
	})
}
