package resources

import "github.com/takodeploy/tako/internal/resource"

// All lists every declared kind.
func All() []*resource.Kind {
	return append([]*resource.Kind{
		Accounts(),
		Channels(),
		DeploymentProcesses(),
		Environments(),
		Feeds(),
		LibraryVariableSets(),
		Lifecycles(),
		MachinePolicies(),
		Machines(),
		ProjectGroups(),
		Projects(),
		ProjectTriggers(),
		Proxies(),
		ScopedUserRoles(),
		Spaces(),
		Teams(),
		Tenants(),
		UserRoles(),
		Users(),
		VariableSets(),
		WorkerPools(),
		Workers(),
	}, Configurations()...)
}
