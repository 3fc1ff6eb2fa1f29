package octopus

// DeploymentPriority is whether a deployment goes before others in the queue.
type DeploymentPriority string

// Priorities of deployments.
const (
	PriorityLifecycleDefault DeploymentPriority = "LifecycleDefault"
	PriorityOn               DeploymentPriority = "On"
	PriorityOff              DeploymentPriority = "Off"
)

// Execution is the part that deployments and runbook runs have in common.
type Execution struct {
	Name          string     `json:"Name"`
	ProjectID     string     `json:"ProjectId"`
	EnvironmentID string     `json:"EnvironmentId"`
	TenantID      NullString `json:"TenantId"`
	TaskID        string     `json:"TaskId"`
	// ManifestVariableSetID is the frozen set of variables that the run uses.
	ManifestVariableSetID string `json:"ManifestVariableSetId"`

	ForcePackageDownload bool `json:"ForcePackageDownload"`
	// SkipActions has ids of actions.
	SkipActions List[string] `json:"SkipActions"`
	// SpecificMachineIDs limits the run to these targets; empty is no limit.
	SpecificMachineIDs   List[string] `json:"SpecificMachineIds"`
	ExcludedMachineIDs   List[string] `json:"ExcludedMachineIds"`
	DeployedToMachineIDs List[string] `json:"DeployedToMachineIds"`
	// UseGuidedFailure is null in a request that leaves it to the project.
	UseGuidedFailure    *bool              `json:"UseGuidedFailure"`
	DebugMode           NullString         `json:"DebugMode"`
	FailTargetDiscovery bool               `json:"FailTargetDiscovery"`
	Priority            DeploymentPriority `json:"Priority"`
	Comments            NullString         `json:"Comments"`
	// FormValues are the answers to prompts, by the variable's id. Values of
	// sensitive prompts are not served back.
	FormValues Map[string, PropertyText] `json:"FormValues"`
	// QueueTime is when the run is to start, null for now; at
	// QueueTimeExpiry it is given up if it has not started.
	QueueTime          *Time `json:"QueueTime"`
	QueueTimeExpiry    *Time `json:"QueueTimeExpiry"`
	Created            Time  `json:"Created"`
	FailureEncountered bool  `json:"FailureEncountered"`
	// DeploymentFreezeNames are the freezes that DeploymentFreezeOverrideReason overrides.
	DeploymentFreezeNames          List[string] `json:"DeploymentFreezeNames"`
	DeploymentFreezeOverrideReason NullString   `json:"DeploymentFreezeOverrideReason"`
	// ContinuesDeploymentID is the failed deployment that this one goes on from,
	// null for none: what had succeeded there does not run again.
	ContinuesDeploymentID NullString `json:"ContinuesDeploymentId"`
}

// Deployment is a release being brought to an environment, for one tenant or none.
type Deployment struct {
	Resource
	SpaceID             string `json:"SpaceId"`
	ReleaseID           string `json:"ReleaseId"`
	ChannelID           string `json:"ChannelId"`
	DeploymentProcessID string `json:"DeploymentProcessId"`
	Execution
	// ForcePackageRedeployment runs package steps also on targets that have
	// the version.
	ForcePackageRedeployment bool                 `json:"ForcePackageRedeployment"`
	SpecificTargetTagIDs     List[string]         `json:"SpecificTargetTagIds"`
	ExcludedTargetTagIDs     List[string]         `json:"ExcludedTargetTagIds"`
	Changes                  List[ReleaseChanges] `json:"Changes"`
	ChangesMarkdown          string               `json:"ChangesMarkdown"`
	DeployedBy               NullString           `json:"DeployedBy"`
	DeployedByID             NullString           `json:"DeployedById"`
	TentacleRetentionPeriod  *RetentionPeriod     `json:"TentacleRetentionPeriod"`
}

// DeploymentTemplate says where a release can be deployed.
type DeploymentTemplate struct {
	PromoteTo                    List[PromotionTarget] `json:"PromoteTo"`
	TenantPromotions             List[TenantPromotion] `json:"TenantPromotions"`
	IsDeploymentProcessModified  bool                  `json:"IsDeploymentProcessModified"`
	DeploymentNotes              NullString            `json:"DeploymentNotes"`
	IsVariableSetModified        bool                  `json:"IsVariableSetModified"`
	IsLibraryVariableSetModified bool                  `json:"IsLibraryVariableSetModified"`
	IsGitResourceModified        bool                  `json:"IsGitResourceModified"`
	Links                        Links                 `json:"Links"`
}

// PromotionTarget is an environment that a release can be deployed to.
type PromotionTarget struct {
	ID    string `json:"Id"`
	Name  string `json:"Name"`
	Links Links  `json:"Links"`
}

// TenantPromotion has the environments that a release can be deployed to for a tenant.
type TenantPromotion struct {
	ID        string                `json:"Id"`
	Name      string                `json:"Name"`
	PromoteTo List[PromotionTarget] `json:"PromoteTo"`
	Links     Links                 `json:"Links"`
}

// DeploymentPreview says what a deployment would do. Runbook runs have the same.
type DeploymentPreview struct {
	StepsToExecute                List[PreviewStep]    `json:"StepsToExecute"`
	Form                          Form                 `json:"Form"`
	UseGuidedFailureModeByDefault bool                 `json:"UseGuidedFailureModeByDefault"`
	Changes                       List[ReleaseChanges] `json:"Changes"`
	ChangesMarkdown               string               `json:"ChangesMarkdown"`
	// DeploymentFreezes hold now, and would keep the deployment from being made.
	DeploymentFreezes List[PreviewFreeze] `json:"DeploymentFreezes"`
	Links             Links               `json:"Links"`
}

// PreviewFreeze is a deployment freeze that holds.
type PreviewFreeze struct {
	ID   string `json:"Id"`
	Name string `json:"Name"`
	// End is when it no longer holds.
	End Time `json:"End"`
}

// PreviewStep is an action that a deployment would run.
type PreviewStep struct {
	ActionID   string `json:"ActionId"`
	ActionName string `json:"ActionName"`
	// ActionNumber is the action's place, "1" or "2.1" for a child.
	ActionNumber string       `json:"ActionNumber"`
	Roles        List[string] `json:"Roles"`
	// MachineNames repeats the names of Machines for older clients.
	MachineNames            List[string]         `json:"MachineNames"`
	Machines                List[PreviewMachine] `json:"Machines"`
	CanBeSkipped            bool                 `json:"CanBeSkipped"`
	IsDisabled              bool                 `json:"IsDisabled"`
	HasNoApplicableMachines bool                 `json:"HasNoApplicableMachines"`
	UnavailableMachines     List[PreviewMachine] `json:"UnavailableMachines"`
	ExcludedMachines        List[PreviewMachine] `json:"ExcludedMachines"`
	// IsDone and DoneMachines tell, of a deployment that goes on where another one
	// has failed, what does not run again: the action as a whole, or on some targets.
	IsDone       bool                 `json:"IsDone"`
	DoneMachines List[PreviewMachine] `json:"DoneMachines"`
}

// PreviewMachine is a target of a previewed action.
type PreviewMachine struct {
	ID                string       `json:"Id"`
	Name              string       `json:"Name"`
	HealthStatus      HealthStatus `json:"HealthStatus"`
	HasLatestCalamari bool         `json:"HasLatestCalamari"`
	Links             Links        `json:"Links"`
}

// DeploymentPreviewRequest asks for the previews of several deployments.
type DeploymentPreviewRequest struct {
	DeploymentPreviews   List[DeploymentPreviewTarget] `json:"DeploymentPreviews"`
	IncludeDisabledSteps bool                          `json:"IncludeDisabledSteps"`
}

// DeploymentPreviewTarget is an environment, and a tenant, to preview.
type DeploymentPreviewTarget struct {
	EnvironmentID string     `json:"EnvironmentId"`
	TenantID      NullString `json:"TenantId"`
}
