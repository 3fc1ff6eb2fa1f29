package octopus

import "encoding/json"

// RunbookEnvironmentScope is where a runbook may run.
type RunbookEnvironmentScope string

// Where a runbook may run.
const (
	RunbookAll       RunbookEnvironmentScope = "All"
	RunbookSpecified RunbookEnvironmentScope = "Specified"
	// RunbookFromLifecycles are the environments of the project's lifecycles.
	RunbookFromLifecycles RunbookEnvironmentScope = "FromProjectLifecycles"
)

// Runbook is a process of a project that runs without a release.
type Runbook struct {
	Resource
	SpaceID          string `json:"SpaceId"`
	ProjectID        string `json:"ProjectId"`
	Name             string `json:"Name"`
	Slug             string `json:"Slug"`
	Description      string `json:"Description"`
	RunbookProcessID string `json:"RunbookProcessId"`
	// PublishedRunbookSnapshotID is null while no snapshot is published.
	PublishedRunbookSnapshotID NullString              `json:"PublishedRunbookSnapshotId"`
	MultiTenancyMode           TenantedDeploymentMode  `json:"MultiTenancyMode"`
	ConnectivityPolicy         ConnectivityPolicy      `json:"ConnectivityPolicy"`
	EnvironmentScope           RunbookEnvironmentScope `json:"EnvironmentScope"`
	// Environments are those of the scope Specified.
	Environments             List[string]      `json:"Environments"`
	DefaultGuidedFailureMode GuidedFailureMode `json:"DefaultGuidedFailureMode"`
	RunRetentionPolicy       *RunbookRetention `json:"RunRetentionPolicy"`
	ForcePackageDownload     bool              `json:"ForcePackageDownload"`
	FailTargetDiscovery      bool              `json:"FailTargetDiscovery"`
	CancelQueuedTasks        bool              `json:"CancelQueuedTasks"`
	CancelRunningTasks       bool              `json:"CancelRunningTasks"`
	RunbookTags              List[string]      `json:"RunbookTags"`
}

// RunbookRetention is how many runs, per environment and tenant, are kept.
type RunbookRetention struct {
	Strategy RetentionStrategy `json:"Strategy"`
	Unit     RetentionUnit     `json:"Unit"`
	// QuantityToKeep is in Unit; 0 keeps everything.
	QuantityToKeep    int  `json:"QuantityToKeep"`
	ShouldKeepForever bool `json:"ShouldKeepForever"`
}

// DefaultRunsToKeep is how many runs are kept where nobody has said otherwise.
const DefaultRunsToKeep = 100

// UnmarshalJSON fills in what clients leave out. To those that know no
// strategies, 100 items is the default.
func (p *RunbookRetention) UnmarshalJSON(data []byte) error {
	type plain RunbookRetention
	var q plain
	if err := json.Unmarshal(data, &q); err != nil {
		return err
	}
	if q.Unit == "" {
		q.Unit = RetentionItems
	}
	if q.Strategy == "" {
		switch {
		case q.ShouldKeepForever || q.QuantityToKeep == 0:
			q.Strategy = RetentionForever
		case q.QuantityToKeep == DefaultRunsToKeep && q.Unit == RetentionItems:
			q.Strategy = RetentionDefault
		default:
			q.Strategy = RetentionCount
		}
	}
	q.ShouldKeepForever = q.Strategy == RetentionForever
	*p = RunbookRetention(q)
	return nil
}

// RunbookSnapshot is a version of a runbook: its process, variables, packages
// and Git references, all as they were when it was made.
type RunbookSnapshot struct {
	Resource
	SpaceID   string     `json:"SpaceId"`
	ProjectID string     `json:"ProjectId"`
	RunbookID string     `json:"RunbookId"`
	Name      string     `json:"Name"`
	Notes     NullString `json:"Notes"`
	// Assembled is never null: clients look into it.
	Assembled                     Time         `json:"Assembled"`
	FrozenRunbookProcessID        string       `json:"FrozenRunbookProcessId"`
	FrozenProjectVariableSetID    string       `json:"FrozenProjectVariableSetId"`
	LibraryVariableSetSnapshotIDs List[string] `json:"LibraryVariableSetSnapshotIds"`
	// ProjectVariableSetSnapshotID repeats FrozenProjectVariableSetID.
	ProjectVariableSetSnapshotID string                    `json:"ProjectVariableSetSnapshotId"`
	SelectedPackages             List[SelectedPackage]     `json:"SelectedPackages"`
	SelectedGitResources         List[SelectedGitResource] `json:"SelectedGitResources"`
	// GitReference is null unless the runbooks are in Git.
	GitReference *GitReference `json:"GitReference"`
}

// RunbookRun is a snapshot of a runbook being run in an environment, for one
// tenant or none.
type RunbookRun struct {
	Resource
	SpaceID                string `json:"SpaceId"`
	RunbookID              string `json:"RunbookId"`
	RunbookSnapshotID      string `json:"RunbookSnapshotId"`
	FrozenRunbookProcessID string `json:"FrozenRunbookProcessId"`
	Execution
	DeployedBy              NullString       `json:"DeployedBy"`
	DeployedByID            NullString       `json:"DeployedById"`
	TentacleRetentionPeriod *RetentionPeriod `json:"TentacleRetentionPeriod"`
}

// RunbookSnapshotTemplate is what a new snapshot of a runbook needs to be told.
type RunbookSnapshotTemplate struct {
	RunbookProcessID  string                       `json:"RunbookProcessId"`
	NextNameIncrement NullString                   `json:"NextNameIncrement"`
	Packages          List[ReleaseTemplatePackage] `json:"Packages"`
	GitResources      List[ReleaseTemplateGit]     `json:"GitResources"`
	Links             Links                        `json:"Links"`
}
