package resources

import "github.com/takodeploy/tako/internal/resource"

// All lists every declared kind.
func All() []*resource.Kind {
	return append([]*resource.Kind{
		Accounts(),
		Certificates(),
		Channels(),
		DeploymentProcesses(),
		Environments(),
		Feeds(),
		GitCredentials(),
		LibraryVariableSets(),
		Lifecycles(),
		MachinePolicies(),
		Machines(),
		ProjectGroups(),
		Projects(),
		Proxies(),
		ScopedUserRoles(),
		Spaces(),
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
