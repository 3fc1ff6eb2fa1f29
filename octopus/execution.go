package octopus

// The commands below are the executions API: they name things as people do,
// where the documents have ids. Clients send the members in camel case.

// ExecutionCommand is the part that commands which run something have in common.
type ExecutionCommand struct {
	// SpaceID and SpaceIDOrName repeat the space of the URL, which holds.
	SpaceID       string `json:"SpaceId,omitempty"`
	SpaceIDOrName string `json:"SpaceIdOrName,omitempty"`
	// ProjectName is a name, a slug or an id.
	ProjectName          string       `json:"ProjectName"`
	ForcePackageDownload bool         `json:"ForcePackageDownload"`
	SpecificMachineNames List[string] `json:"SpecificMachineNames"`
	ExcludedMachineNames List[string] `json:"ExcludedMachineNames"`
	SkipStepNames        List[string] `json:"SkipStepNames"`
	// UseGuidedFailure is null to leave it to the project.
	UseGuidedFailure *bool              `json:"UseGuidedFailure"`
	Priority         DeploymentPriority `json:"Priority,omitempty"`
	RunAt            *Time              `json:"RunAt,omitempty"`
	NoRunAfter       *Time              `json:"NoRunAfter,omitempty"`
	// Variables are values for prompted variables, by name.
	Variables                      Map[string, PropertyText] `json:"Variables"`
	DeploymentFreezeNames          List[string]              `json:"DeploymentFreezeNames"`
	DeploymentFreezeOverrideReason string                    `json:"DeploymentFreezeOverrideReason,omitempty"`
}

// CreateReleaseCommand makes a release.
type CreateReleaseCommand struct {
	SpaceID       string `json:"SpaceId,omitempty"`
	SpaceIDOrName string `json:"SpaceIdOrName,omitempty"`
	// ProjectName is a name, a slug or an id.
	ProjectName string `json:"ProjectName"`
	// ReleaseVersion "" asks the server for the next one.
	ReleaseVersion string `json:"ReleaseVersion,omitempty"`
	// ChannelName is a name or an id, "" for the default channel. Older
	// clients send ChannelIDOrName.
	ChannelName     string `json:"ChannelName,omitempty"`
	ChannelIDOrName string `json:"ChannelIdOrName,omitempty"`
	// PackageVersion is the version of all packages that Packages does not name.
	PackageVersion string `json:"PackageVersion,omitempty"`
	// Packages are "package:version", "step:version" or
	// "step:reference:version".
	Packages              List[string]              `json:"Packages"`
	PackagePrerelease     string                    `json:"PackagePrerelease,omitempty"`
	GitRef                string                    `json:"GitRef,omitempty"`
	GitCommit             string                    `json:"GitCommit,omitempty"`
	GitResources          List[string]              `json:"GitResources"`
	ReleaseNotes          string                    `json:"ReleaseNotes,omitempty"`
	IgnoreIfAlreadyExists bool                      `json:"IgnoreIfAlreadyExists"`
	IgnoreChannelRules    bool                      `json:"IgnoreChannelRules"`
	CustomFields          Map[string, PropertyText] `json:"CustomFields"`
}

// CreateReleaseResponse names the release that a command made, or found.
type CreateReleaseResponse struct {
	ReleaseID      string `json:"ReleaseId"`
	ReleaseVersion string `json:"ReleaseVersion"`
	// AutomaticallyDeployedEnvironments are names, separated by commas.
	AutomaticallyDeployedEnvironments string `json:"AutomaticallyDeployedEnvironments"`
}

// DeployUntenantedCommand deploys a release to environments, for no tenant.
type DeployUntenantedCommand struct {
	ExecutionCommand
	ReleaseVersion           string       `json:"ReleaseVersion"`
	EnvironmentNames         List[string] `json:"EnvironmentNames"`
	ForcePackageRedeployment bool         `json:"ForcePackageRedeployment"`
	UpdateVariableSnapshot   bool         `json:"UpdateVariableSnapshot"`
}

// DeployTenantedCommand deploys a release to an environment for tenants: those
// named, and those that match the tags.
type DeployTenantedCommand struct {
	ExecutionCommand
	ReleaseVersion           string       `json:"ReleaseVersion"`
	EnvironmentName          string       `json:"EnvironmentName"`
	Tenants                  List[string] `json:"Tenants"`
	TenantTags               List[string] `json:"TenantTags"`
	ForcePackageRedeployment bool         `json:"ForcePackageRedeployment"`
	UpdateVariableSnapshot   bool         `json:"UpdateVariableSnapshot"`
}

// DeployResponse has a task for each environment, or tenant.
type DeployResponse struct {
	DeploymentServerTasks List[DeploymentServerTask] `json:"DeploymentServerTasks"`
}

// DeploymentServerTask is a deployment and its task.
type DeploymentServerTask struct {
	DeploymentID string `json:"DeploymentId"`
	ServerTaskID string `json:"ServerTaskId"`
}

// RunRunbookCommand runs a runbook in environments, for tenants or none.
type RunRunbookCommand struct {
	ExecutionCommand
	RunbookName      string       `json:"RunbookName"`
	EnvironmentNames List[string] `json:"EnvironmentNames"`
	Tenants          List[string] `json:"Tenants"`
	TenantTags       List[string] `json:"TenantTags"`
	// Snapshot is a name or an id, "" for the published one.
	Snapshot string `json:"Snapshot,omitempty"`
}

// RunGitRunbookCommand runs a runbook as it is in Git.
type RunGitRunbookCommand struct {
	ExecutionCommand
	RunbookName      string       `json:"RunbookName"`
	EnvironmentNames List[string] `json:"EnvironmentNames"`
	Tenants          List[string] `json:"Tenants"`
	TenantTags       List[string] `json:"TenantTags"`
	GitRef           string       `json:"GitRef"`
	PackageVersion   string       `json:"PackageVersion,omitempty"`
	Packages         List[string] `json:"Packages"`
	GitResources     List[string] `json:"GitResources"`
}

// RunRunbookResponse has a task for each environment and tenant.
type RunRunbookResponse struct {
	RunbookRunServerTasks List[RunbookRunServerTask] `json:"RunbookRunServerTasks"`
}

// RunbookRunServerTask is a run of a runbook and its task.
type RunbookRunServerTask struct {
	RunbookRunID string `json:"RunbookRunId"`
	ServerTaskID string `json:"ServerTaskId"`
}
