package resources

import "github.com/takodeploy/tako/internal/resource"

// All lists every declared kind.
func All() []*resource.Kind {
	return append([]*resource.Kind{
		Accounts(),
		ActionTemplates(),
		ActionTemplateVersions(),
		Certificates(),
		Channels(),
		DeploymentFreezes(),
		DeploymentProcesses(),
		Environments(),
		Feeds(),
		GitCredentials(),
		LibraryVariableSets(),
		Lifecycles(),
		MachinePolicies(),
		Machines(),
		OIDCIdentities(),
		ProjectGroups(),
		Projects(),
		ProjectTriggers(),
		Proxies(),
		RetentionPolicies(),
		ScopedUserRoles(),
		Spaces(),
		Subscriptions(),
		TagSets(),
		Teams(),
		Tenants(),
		TenantVariableSets(),
		UserRoles(),
		Users(),
		VariableSets(),
		WorkerPools(),
		Workers(),
	}, Configurations()...)
}
