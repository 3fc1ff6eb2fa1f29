package octopus

// MachinePolicy is how machines are checked, reached, updated and removed. Its
// periods and ConnectionRetryCountLimit must not be zero: clients check them.
type MachinePolicy struct {
	Resource
	SpaceID     string `json:"SpaceId"`
	Name        string `json:"Name"`
	Description string `json:"Description"`
	IsDefault   bool   `json:"IsDefault"`

	MachineHealthCheckPolicy           MachineHealthCheckPolicy           `json:"MachineHealthCheckPolicy"`
	MachineConnectivityPolicy          MachineConnectivityPolicy          `json:"MachineConnectivityPolicy"`
	MachineCleanupPolicy               MachineCleanupPolicy               `json:"MachineCleanupPolicy"`
	MachineUpdatePolicy                MachineUpdatePolicy                `json:"MachineUpdatePolicy"`
	MachineRPCCallRetryPolicy          MachineRPCCallRetryPolicy          `json:"MachineRpcCallRetryPolicy"`
	MachinePackageCacheRetentionPolicy MachinePackageCacheRetentionPolicy `json:"MachinePackageCacheRetentionPolicy"`

	// PollingRequestQueueTimeout is how long a request waits for a polling
	// machine to fetch it.
	PollingRequestQueueTimeout TimeSpan `json:"PollingRequestQueueTimeout"`
	// PollingRequestMaximumMessageProcessingTimeout is there for older clients.
	PollingRequestMaximumMessageProcessingTimeout TimeSpan `json:"PollingRequestMaximumMessageProcessingTimeout"`
	ConnectionRetrySleepInterval                  TimeSpan `json:"ConnectionRetrySleepInterval"`
	ConnectionRetryCountLimit                     int      `json:"ConnectionRetryCountLimit"`
	ConnectionRetryTimeLimit                      TimeSpan `json:"ConnectionRetryTimeLimit"`
	ConnectionConnectTimeout                      TimeSpan `json:"ConnectionConnectTimeout"`
}

// HealthCheckType is what a health check does.
type HealthCheckType string

// What a health check does.
const (
	HealthRunScript        HealthCheckType = "RunScript"
	HealthOnlyConnectivity HealthCheckType = "OnlyConnectivity"
)

// MachineHealthCheckPolicy is when and how machines are checked.
type MachineHealthCheckPolicy struct {
	HealthCheckType             HealthCheckType     `json:"HealthCheckType"`
	PowerShellHealthCheckPolicy MachineScriptPolicy `json:"PowerShellHealthCheckPolicy"`
	BashHealthCheckPolicy       MachineScriptPolicy `json:"BashHealthCheckPolicy"`
	// HealthCheckInterval is null where HealthCheckCron says when, or where
	// no checks are made.
	HealthCheckInterval *TimeSpan `json:"HealthCheckInterval"`
	// HealthCheckCron has six fields, the first of seconds.
	HealthCheckCron         NullString `json:"HealthCheckCron"`
	HealthCheckCronTimezone string     `json:"HealthCheckCronTimezone"`
}

// MachineScriptRun is where a health check's script comes from.
type MachineScriptRun string

// Where a health check's script comes from.
const (
	HealthScriptDefault MachineScriptRun = "InheritFromDefault"
	HealthScriptInline  MachineScriptRun = "Inline"
	HealthScriptNone    MachineScriptRun = "OnlyConnectivity"
)

// MachineScriptPolicy is the script of a health check.
type MachineScriptPolicy struct {
	RunType    MachineScriptRun `json:"RunType"`
	ScriptBody NullString       `json:"ScriptBody"`
}

// MachineConnectivityBehavior is whether a machine is expected to be reachable.
type MachineConnectivityBehavior string

// Whether a machine is expected to be reachable.
const (
	ExpectedOnline MachineConnectivityBehavior = "ExpectedToBeOnline"
	MayBeOffline   MachineConnectivityBehavior = "MayBeOfflineAndCanBeSkipped"
)

// MachineConnectivityPolicy is whether a machine is expected to be reachable.
type MachineConnectivityPolicy struct {
	MachineConnectivityBehavior MachineConnectivityBehavior `json:"MachineConnectivityBehavior"`
}

// DeleteMachinesBehavior is whether unavailable machines are removed.
type DeleteMachinesBehavior string

// Whether unavailable machines are removed.
const (
	DoNotDeleteMachines       DeleteMachinesBehavior = "DoNotDelete"
	DeleteUnavailableMachines DeleteMachinesBehavior = "DeleteUnavailableMachines"
)

// MachineCleanupPolicy is whether and when unavailable machines are removed.
type MachineCleanupPolicy struct {
	DeleteMachinesBehavior        DeleteMachinesBehavior `json:"DeleteMachinesBehavior"`
	DeleteMachinesElapsedTimeSpan TimeSpan               `json:"DeleteMachinesElapsedTimeSpan"`
}

// CalamariUpdateBehavior is when a target's tools are updated.
type CalamariUpdateBehavior string

// When a target's tools are updated.
const (
	CalamariOnDeployment CalamariUpdateBehavior = "UpdateOnDeployment"
	CalamariOnNewMachine CalamariUpdateBehavior = "UpdateOnNewMachine"
	CalamariAlways       CalamariUpdateBehavior = "UpdateAlways"
)

// AgentUpdateBehavior is whether agents are updated.
type AgentUpdateBehavior string

// Whether agents are updated.
const (
	AgentNeverUpdate AgentUpdateBehavior = "NeverUpdate"
	AgentUpdate      AgentUpdateBehavior = "Update"
)

// MachineUpdatePolicy is when tools and agents are updated.
type MachineUpdatePolicy struct {
	CalamariUpdateBehavior        CalamariUpdateBehavior `json:"CalamariUpdateBehavior"`
	TentacleUpdateBehavior        AgentUpdateBehavior    `json:"TentacleUpdateBehavior"`
	TentacleUpdateAccountID       NullString             `json:"TentacleUpdateAccountId"`
	KubernetesAgentUpdateBehavior AgentUpdateBehavior    `json:"KubernetesAgentUpdateBehavior"`
}

// MachineRPCCallRetryPolicy is how long a call to an agent is tried again.
type MachineRPCCallRetryPolicy struct {
	Enabled                                  bool     `json:"Enabled"`
	RetryDuration                            TimeSpan `json:"RetryDuration"`
	HealthyMachineHealthCheckRetryDuration   TimeSpan `json:"HealthyMachineHealthCheckRetryDuration"`
	UnhealthyMachineHealthCheckRetryDuration TimeSpan `json:"UnHealthyMachineHealthCheckRetryDuration"`
}

// PackageCacheStrategy is how a target's package cache is kept small.
type PackageCacheStrategy string

// How a target's package cache is kept small.
const (
	PackageCacheDefault    PackageCacheStrategy = "Default"
	PackageCacheQuantities PackageCacheStrategy = "Quantities"
)

// MachinePackageCacheRetentionPolicy is how a target's package cache is kept
// small. The quantities are null for the default strategy.
type MachinePackageCacheRetentionPolicy struct {
	Strategy                 PackageCacheStrategy `json:"Strategy"`
	QuantityOfPackagesToKeep *int                 `json:"QuantityOfPackagesToKeep"`
	// The units are "Items".
	PackageUnit              NullString `json:"PackageUnit"`
	QuantityOfVersionsToKeep *int       `json:"QuantityOfVersionsToKeep"`
	VersionUnit              NullString `json:"VersionUnit"`
}
