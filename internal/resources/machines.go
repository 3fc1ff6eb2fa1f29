package resources

import (
	"context"
	"errors"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Machines are deployment targets.
func Machines() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.Machine]{
		Name: "machines", ItemType: "Machine", Noun: "deployment target", Prefix: "Machines", Slugged: true,
		Permissions: resource.Permissions{View: "MachineView", Create: "MachineCreate", Edit: "MachineEdit", Delete: "MachineDelete"},
		Dimensions:  resource.Dimensions{Environment: "EnvironmentIds", Tenant: "TenantIds"},
		Filters: append(machineFilters(),
			resource.Filter{Param: "roles", Path: "Roles"},
			resource.Filter{Param: "environmentIds", Path: "EnvironmentIds"},
			resource.Filter{Param: "tenantIds", Path: "TenantIds"},
			resource.Filter{Param: "tenantTags", Path: "TenantTags"}),
		References: []resource.Reference{
			{Path: "EnvironmentIds", To: "environments", Required: true},
			{Path: "MachinePolicyId", To: "machinepolicies"}, // never empty: completePolicy,
			{Path: "TenantIds", To: "tenants", OnDelete: resource.Ignore},
			{Path: "Endpoint.AccountId", To: "accounts"},
			{Path: "Endpoint.ProxyId", To: "proxies"},
			{Path: "Endpoint.DefaultWorkerPoolId", To: "workerpools"},
		},
		Owned: machineOwned(), Measured: machineMeasured(),
		Links: map[string]string{
			"Connection":     "/api/{space}/machines/{Id}/connection",
			"TasksTemplate":  "/api/{space}/machines/{Id}/tasks{?skip,take,type}",
			"DeleteMachines": "/api/{space}/machines/{Id}",
		},
		Prepare: func(v *octopus.Machine) {
			prepareMachine(&v.MachineBase)
			if v.TenantedDeploymentParticipation == "" {
				v.TenantedDeploymentParticipation = octopus.Untenanted
			}
		},
		Check: func(ctx context.Context, r resource.Reader, old, v *octopus.Machine) error {
			var had octopus.List[string]
			if old != nil {
				had = old.TenantTags
				keepDetails(&old.MachineBase, &v.MachineBase)
			}
			err := errors.Join(
				completePolicy(ctx, r, &v.MachineBase, v.SpaceID), checkEndpoint(&v.Endpoint), checkParticipation("TenantedDeploymentParticipation", &v.TenantedDeploymentParticipation),
				checkTenantTags(ctx, r, v.SpaceID, had, tagList{"TenantTags", v.TenantTags}),
			)
			if len(v.Roles) == 0 {
				err = errors.Join(err, fault.InvalidField("Roles", "Roles is empty; give the target at least one target tag, by which steps choose it."))
			}
			return err
		},
		InTx: machineInTx,
	})
}

// Workers run steps that need no target.
func Workers() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.Worker]{
		Name: "workers", ItemType: "Worker", Prefix: "Workers", Slugged: true,
		Permissions: resource.Permissions{View: "WorkerView", Create: "WorkerEdit", Edit: "WorkerEdit", Delete: "WorkerEdit"},
		Filters:     append(machineFilters(), resource.Filter{Param: "workerPoolIds", Path: "WorkerPoolIds"}),
		References: []resource.Reference{
			{Path: "WorkerPoolIds", To: "workerpools", Required: true},
			{Path: "MachinePolicyId", To: "machinepolicies"}, // never empty: completePolicy,
			{Path: "Endpoint.AccountId", To: "accounts"},
			{Path: "Endpoint.ProxyId", To: "proxies"},
		},
		Owned: machineOwned(), Measured: machineMeasured(),
		Links: map[string]string{
			"Connection":    "/api/{space}/workers/{Id}/connection",
			"TasksTemplate": "/api/{space}/workers/{Id}/tasks{?skip,take,type}",
		},
		Prepare: func(v *octopus.Worker) { prepareMachine(&v.MachineBase) },
		Check: func(ctx context.Context, r resource.Reader, old, v *octopus.Worker) error {
			if old != nil {
				keepDetails(&old.MachineBase, &v.MachineBase)
			}
			return errors.Join(completePolicy(ctx, r, &v.MachineBase, v.SpaceID), checkEndpoint(&v.Endpoint))
		},
		InTx: func(ctx context.Context, w resource.Writer, c resource.Change[octopus.Worker]) error {
			if c.New == nil {
				return errors.Join(rememberMachine(ctx, w.Tx(), c.Space, c.ID, &c.Old.MachineBase), forgetHealth(ctx, w.Tx(), c.ID))
			}
			var old *octopus.MachineBase
			if c.Old != nil {
				old = &c.Old.MachineBase
			}
			return firstCheck(ctx, w.Tx(), WorkerKind, c.Space, c.ID, old, &c.New.MachineBase)
		},
	})
}

func machineFilters() []resource.Filter {
	return []resource.Filter{
		{Param: "isDisabled", Path: "IsDisabled"},
		{Param: "healthStatuses", Path: "HealthStatus"},
		{Param: "commStyles", Path: "Endpoint.CommunicationStyle"},
		{Param: "thumbprint", Path: "Thumbprint"},
		{Param: "shellNames", Path: "ShellName"},
	}
}

// machineOwned is what health checks find out.
func machineOwned() []string {
	return []string{"HealthStatus", "Status", "StatusSummary", "HasLatestCalamari", "IsInProcess", "OperatingSystem", "ShellName", "ShellVersion", "Architecture"}
}

// machineMeasured is what health checks change.
func machineMeasured() []string {
	return append(machineOwned(), "Endpoint.TentacleVersionDetails")
}

func prepareMachine(m *octopus.MachineBase) {
	// Older clients read, and send, these beside the endpoint.
	if m.Endpoint.Thumbprint == "" {
		m.Endpoint.Thumbprint = string(m.Thumbprint)
	}
	if m.Endpoint.URI == "" {
		m.Endpoint.URI = string(m.URI)
	}
	// Agents are found by it: there is one way to write it.
	if t, err := halibut.ParseThumbprint(m.Endpoint.Thumbprint); err == nil {
		m.Endpoint.Thumbprint = string(t)
	}
	m.Thumbprint, m.URI = octopus.NullString(m.Endpoint.Thumbprint), octopus.NullString(m.Endpoint.URI)
	if m.HealthStatus == "" {
		m.HealthStatus, m.Status = octopus.HealthUnknown, "Unknown"
		m.StatusSummary = "This machine has not been checked yet."
	}
}

// completePolicy gives a machine that names no policy its space's default one.
func completePolicy(ctx context.Context, r resource.Reader, m *octopus.MachineBase, space string) error {
	if m.MachinePolicyID != "" {
		return nil
	}
	found, err := defaults(ctx, r, "machinepolicies", space, "", "", "")
	switch {
	case err != nil:
		return err
	case len(found) == 0:
		return fault.InvalidField("MachinePolicyId", "MachinePolicyId is empty and the space has no default machine policy; give the id of one of the machinepolicies.")
	}
	m.MachinePolicyID = found[0]
	return nil
}

func checkEndpoint(e *octopus.Endpoint) error {
	if e.CommunicationStyle == "" {
		return fault.InvalidField("Endpoint.CommunicationStyle", "Endpoint.CommunicationStyle is empty; give one such as TentaclePassive, TentacleActive, Ssh or None.")
	}
	if e.CommunicationStyle != octopus.StyleOfflineDrop || e.Destination == nil {
		return nil
	}
	d := e.Destination
	if d.DestinationType == "" {
		d.DestinationType = octopus.DropArtifact
		if d.DropFolderPath != "" {
			d.DestinationType = octopus.DropFileSystem
		}
	}
	err := oneOf("Endpoint.Destination.DestinationType", &d.DestinationType, octopus.DropArtifact, octopus.DropFileSystem)
	if err == nil && d.DestinationType == octopus.DropFileSystem && d.DropFolderPath == "" {
		err = fault.InvalidField("Endpoint.Destination.DropFolderPath", "Endpoint.Destination.DropFolderPath is empty; give the folder on the server's host that bundles are written to, or let DestinationType be Artifact.")
	}
	return err
}

// MachinePolicies say how machines are checked and reached.
func MachinePolicies() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.MachinePolicy]{
		Name: "machinepolicies", ItemType: "MachinePolicy", Noun: "machine policy", Prefix: "MachinePolicies",
		Permissions: resource.Permissions{View: "MachinePolicyView", Create: "MachinePolicyCreate", Edit: "MachinePolicyEdit", Delete: "MachinePolicyDelete"},
		Owned:       []string{"IsDefault"},
		Links: map[string]string{
			"Devices":  "/api/{space}/machines{?skip,take}",
			"Template": "/api/{space}/machinepolicies/template",
		},
		Prepare: CompleteMachinePolicy,
		Check:   checkMachinePolicy,
		InTx:    machinePolicyInTx,
	})
}

func checkMachinePolicy(_ context.Context, _ resource.Reader, _, v *octopus.MachinePolicy) error {
	u := &v.MachineUpdatePolicy
	_, _, err := HealthTimetable(v)
	return errors.Join(
		err,
		oneOf("MachineHealthCheckPolicy.HealthCheckType", &v.MachineHealthCheckPolicy.HealthCheckType, octopus.HealthRunScript, octopus.HealthOnlyConnectivity),
		oneOf("MachineConnectivityPolicy.MachineConnectivityBehavior", &v.MachineConnectivityPolicy.MachineConnectivityBehavior, octopus.ExpectedOnline, octopus.MayBeOffline),
		oneOf("MachineCleanupPolicy.DeleteMachinesBehavior", &v.MachineCleanupPolicy.DeleteMachinesBehavior, octopus.DoNotDeleteMachines, octopus.DeleteUnavailableMachines),
		oneOf("MachineUpdatePolicy.CalamariUpdateBehavior", &u.CalamariUpdateBehavior, octopus.CalamariOnDeployment, octopus.CalamariOnNewMachine, octopus.CalamariAlways),
		oneOf("MachineUpdatePolicy.TentacleUpdateBehavior", &u.TentacleUpdateBehavior, octopus.AgentNeverUpdate, octopus.AgentUpdate),
		oneOf("MachineUpdatePolicy.KubernetesAgentUpdateBehavior", &u.KubernetesAgentUpdateBehavior, octopus.AgentNeverUpdate, octopus.AgentUpdate),
		oneOf("MachinePackageCacheRetentionPolicy.Strategy", &v.MachinePackageCacheRetentionPolicy.Strategy, octopus.PackageCacheDefault, octopus.PackageCacheQuantities),
	)
}

// WorkerPools are groups of workers that steps choose from.
func WorkerPools() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.WorkerPool]{
		Name: "workerpools", ItemType: "WorkerPool", Noun: "worker pool", Prefix: "WorkerPools", Slugged: true, Order: resource.ByNumber,
		Permissions: resource.Permissions{View: "WorkerView", Create: "WorkerEdit", Edit: "WorkerEdit", Delete: "WorkerEdit"},
		Links:       map[string]string{"Workers": "/api/{space}/workerpools/{Id}/workers{?skip,take,partialName}"},
		Prepare: func(v *octopus.WorkerPool) {
			if v.WorkerPoolType == "" {
				v.WorkerPoolType = octopus.PoolStatic
			}
		},
		Check: func(ctx context.Context, r resource.Reader, old, v *octopus.WorkerPool) error {
			if err := oneOf("WorkerPoolType", &v.WorkerPoolType, octopus.PoolStatic, octopus.PoolDynamic); err != nil {
				return err
			}
			v.CanAddWorkers = v.WorkerPoolType == octopus.PoolStatic
			if old != nil && old.IsDefault && !v.IsDefault {
				others, err := defaults(ctx, r, "workerpools", v.SpaceID, "", "", v.ID)
				if err == nil && len(others) == 0 {
					err = fault.InvalidField("IsDefault", "IsDefault is false; a space has one default worker pool. Make another pool the default instead.")
				}
				return err
			}
			if old != nil || v.SortOrder != 0 {
				return nil
			}
			last, err := lastNumber(ctx, r, "workerpools", v.SpaceID)
			v.SortOrder = last + 1
			return err
		},
		InTx: workerPoolInTx,
	})
}

func workerPoolInTx(ctx context.Context, w resource.Writer, c resource.Change[octopus.WorkerPool]) error {
	switch {
	case c.Op == resource.Deleted && c.Old.IsDefault:
		return fault.New(fault.Conflict, "The worker pool '%s' cannot be deleted because it is the space's default; make another pool the default first.", c.Old.Name)
	case c.Op == resource.Deleted || !c.New.IsDefault:
		return nil
	}
	// The new default takes the place of the old one.
	others, err := defaults(ctx, w, "workerpools", string(c.Space), "", "", c.ID)
	if err != nil {
		return err
	}
	for _, id := range others {
		var old octopus.WorkerPool
		if err := w.Load(ctx, "workerpools", id, &old); err != nil {
			return err
		}
		old.IsDefault = false
		if err := w.Replace(ctx, "workerpools", id, &old); err != nil {
			return err
		}
	}
	return nil
}
