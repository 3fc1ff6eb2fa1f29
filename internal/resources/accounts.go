package resources

import (
	"context"
	"errors"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Accounts are credentials that steps and targets use.
func Accounts() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.Account]{
		Name: "accounts", ItemType: "Account", Prefix: "Accounts", Slugged: true,
		Permissions: resource.Permissions{View: "AccountView", Create: "AccountCreate", Edit: "AccountEdit", Delete: "AccountDelete"},
		Dimensions:  resource.Dimensions{Environment: "EnvironmentIds", Shared: true},
		Filters:     []resource.Filter{{Param: "accountType", Path: "AccountType"}},
		References: []resource.Reference{
			{Path: "EnvironmentIds", To: "environments", OnDelete: resource.Ignore},
			{Path: "TenantIds", To: "tenants", OnDelete: resource.Ignore},
		},
		Links: map[string]string{"Usages": "/api/{space}/accounts/{Id}/usages"},
		Prepare: func(v *octopus.Account) {
			if v.TenantedDeploymentParticipation == "" {
				v.TenantedDeploymentParticipation = octopus.Untenanted
			}
		},
		Check: func(ctx context.Context, r resource.Reader, old, v *octopus.Account) error {
			if v.AccountType == "" {
				return fault.InvalidField("AccountType", "AccountType is empty; give one such as UsernamePassword, SshKeyPair or Token.")
			}
			if old != nil && old.AccountType != v.AccountType {
				return fault.InvalidField("AccountType", "AccountType is '%s'; an account stays what it is, '%s'. Create another one instead.", v.AccountType, old.AccountType)
			}
			var had octopus.List[string]
			if old != nil {
				had = old.TenantTags
			}
			return errors.Join(
				checkParticipation("TenantedDeploymentParticipation", &v.TenantedDeploymentParticipation),
				checkTenantTags(ctx, r, v.SpaceID, had, tagList{"TenantTags", v.TenantTags}),
			)
		},
	})
}
