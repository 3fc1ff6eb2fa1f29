package octopus

import "encoding/json"

// DeploymentProcess is what a project does to deploy a release. Its id is
// "deploymentprocess-" and the project's.
type DeploymentProcess struct {
	Resource
	SpaceID   string `json:"SpaceId"`
	ProjectID string `json:"ProjectId"`
	// Version counts the changes. A PUT carries the version it was made from
	// and is refused when someone else has changed the process since.
	Version        int        `json:"Version"`
	LastSnapshotID NullString `json:"LastSnapshotId"`
	Steps          List[Step] `json:"Steps"`
}

// RunbookProcess is what a runbook does. Its id is "RunbookProcess-" and the runbook's.
type RunbookProcess struct {
	Resource
	SpaceID        string     `json:"SpaceId"`
	ProjectID      string     `json:"ProjectId"`
	RunbookID      string     `json:"RunbookId"`
	Version        int        `json:"Version"`
	LastSnapshotID NullString `json:"LastSnapshotId"`
	Steps          List[Step] `json:"Steps"`
}

// StepCondition is when a step runs, given what happened before it.
type StepCondition string

// When a step runs.
const (
	// StepConditionSuccess runs when nothing has failed.
	StepConditionSuccess StepCondition = "Success"
	// StepConditionFailure runs only when something has failed.
	StepConditionFailure StepCondition = "Failure"
	StepConditionAlways  StepCondition = "Always"
	// StepConditionVariable runs when the expression of the property
	// Octopus.Step.ConditionVariableExpression is true, failure or not.
	StepConditionVariable StepCondition = "Variable"
)

// StartTrigger is when a step starts, given when the previous one does.
type StartTrigger string

// When a step starts.
const (
	StartAfterPrevious StartTrigger = "StartAfterPrevious"
	// StartWithPrevious runs in parallel with the step before.
	StartWithPrevious StartTrigger = "StartWithPrevious"
)

// PackageRequirement is whether a step runs before or after packages are acquired.
type PackageRequirement string

// Where a step stands to the acquisition of packages.
const (
	PackageRequirementAuto   PackageRequirement = "LetOctopusDecide"
	PackageRequirementBefore PackageRequirement = "BeforePackageAcquisition"
	PackageRequirementAfter  PackageRequirement = "AfterPackageAcquisition"
)

// Keys of a step's properties.
const (
	// PropTargetRoles has the target tags a step runs on, separated by commas.
	PropTargetRoles = "Octopus.Action.TargetRoles"
	// PropMaxParallelism is the window of a rolling deployment: on how many
	// targets the step runs at a time.
	PropMaxParallelism = "Octopus.Action.MaxParallelism"
	// PropWorkerLeaseCap is the variable for how many steps of a deployment one worker
	// has before another one is taken; without it that is as many as there are.
	PropWorkerLeaseCap = "Octopus.Deployment.WorkerLeaseCap"
	// PropConditionExpression is evaluated for StepConditionVariable.
	PropConditionExpression = "Octopus.Step.ConditionVariableExpression"
)

// Step is a part of a process. A step of one action is what people see as a
// step; one of several is a rolling step with children.
type Step struct {
	ID                 string             `json:"Id"`
	Name               string             `json:"Name"`
	Slug               string             `json:"Slug"`
	PackageRequirement PackageRequirement `json:"PackageRequirement"`
	// Properties has the keys that hold for the whole step, such as its
	// target tags.
	Properties   Properties    `json:"Properties"`
	Condition    StepCondition `json:"Condition"`
	StartTrigger StartTrigger  `json:"StartTrigger"`
	Actions      List[Action]  `json:"Actions"`
}

// ActionCondition is when an action runs within its step.
type ActionCondition string

// When an action runs.
const (
	ActionConditionSuccess  ActionCondition = "Success"
	ActionConditionVariable ActionCondition = "Variable"
)

// ActionType names what an action does. Types that the server does not know are
// stored and shown, and fail when they are run.
type ActionType string

// Types of actions.
const (
	ActionScript            ActionType = "Octopus.Script"
	ActionPackage           ActionType = "Octopus.TentaclePackage"
	ActionManual            ActionType = "Octopus.Manual"
	ActionEmail             ActionType = "Octopus.Email"
	ActionHealthCheck       ActionType = "Octopus.HealthCheck"
	ActionTransferPackage   ActionType = "Octopus.TransferPackage"
	ActionDeployRelease     ActionType = "Octopus.DeployRelease"
	ActionKubernetesRawYAML ActionType = "Octopus.KubernetesDeployRawYaml"
	ActionKubernetesScript  ActionType = "Octopus.KubernetesRunScript"
	ActionHelmUpgrade       ActionType = "Octopus.HelmChartUpgrade"
	ActionTerraformApply    ActionType = "Octopus.TerraformApply"
	ActionTerraformPlan     ActionType = "Octopus.TerraformPlan"
	ActionTerraformDestroy  ActionType = "Octopus.TerraformDestroy"
	ActionIIS               ActionType = "Octopus.IIS"
	ActionWindowsService    ActionType = "Octopus.WindowsService"
	ActionNginx             ActionType = "Octopus.Nginx"
)

// Keys of an action's properties.
const (
	PropRunOnServer         = "Octopus.Action.RunOnServer"
	PropEnabledFeatures     = "Octopus.Action.EnabledFeatures"
	PropScriptSource        = "Octopus.Action.Script.ScriptSource" // ScriptSource
	PropScriptBody          = "Octopus.Action.Script.ScriptBody"
	PropScriptSyntax        = "Octopus.Action.Script.Syntax" // ScriptSyntax
	PropScriptFileName      = "Octopus.Action.Script.ScriptFileName"
	PropScriptParameters    = "Octopus.Action.Script.ScriptParameters"
	PropManualInstructions  = "Octopus.Action.Manual.Instructions"
	PropManualTeams         = "Octopus.Action.Manual.ResponsibleTeamIds"
	PropManualBlock         = "Octopus.Action.Manual.BlockConcurrentDeployments"
	PropEmailTo             = "Octopus.Action.Email.To"
	PropEmailCC             = "Octopus.Action.Email.CC"
	PropEmailBcc            = "Octopus.Action.Email.Bcc"
	PropEmailTeams          = "Octopus.Action.Email.ToTeamIds"
	PropEmailSubject        = "Octopus.Action.Email.Subject"
	PropEmailBody           = "Octopus.Action.Email.Body"
	PropEmailHTML           = "Octopus.Action.Email.IsHtml"
	PropEmailPriority       = "Octopus.Action.Email.Priority"           // Low, Normal or High
	PropRetryCount          = "Octopus.Action.AutoRetry.MaximumCount"   // at most 3
	PropRetryBackoff        = "Octopus.Action.AutoRetry.MinimumBackoff" // seconds
	PropExecutionTimeout    = "Octopus.Action.ExecutionTimeout.Minutes" // minutes
	PropTemplateID          = "Octopus.Action.Template.Id"
	PropTemplateVersion     = "Octopus.Action.Template.Version"
	PropFailOnErrorOutput   = "Octopus.Action.FailScriptOnErrorOutput"
	PropPackageFeedID       = "Octopus.Action.Package.FeedId"
	PropPackagePackageID    = "Octopus.Action.Package.PackageId"
	PropPackageDownload     = "Octopus.Action.Package.DownloadOnTentacle"
	PropDeployReleaseTarget = "Octopus.Action.DeployRelease.ProjectId"
	// PropDeployReleaseCondition is a DeployReleaseCondition.
	PropDeployReleaseCondition = "Octopus.Action.DeployRelease.DeploymentCondition"
	// The properties of a health check have the values that follow them below.
	PropHealthType    = "Octopus.Action.HealthCheck.Type"
	PropHealthErrors  = "Octopus.Action.HealthCheck.ErrorHandling"
	PropHealthInclude = "Octopus.Action.HealthCheck.IncludeMachinesInDeployment"
	// PropDeployReleaseVariables is an object of names and values in JSON.
	PropDeployReleaseVariables = "Octopus.Action.DeployRelease.Variables"
)

// Values of the properties of a health check.
const (
	// HealthCheckFull runs the script of each target's policy, HealthCheckConnection
	// only asks whether it answers.
	HealthCheckFull       = "FullHealthCheck"
	HealthCheckConnection = "ConnectionTest"
	// HealthErrorsFail fails the step where a target is not well, HealthErrorsSkip
	// takes the target out of the deployment.
	HealthErrorsFail = "TreatExceptionsAsErrors"
	HealthErrorsSkip = "TreatExceptionsAsWarnings"
	// HealthMachinesJoin takes in targets that the deployment does not have yet.
	HealthMachinesStay = "DoNotAlterMachines"
	HealthMachinesJoin = "IncludeCheckedMachines"
)

// DeployReleaseCondition is when a step deploys another project's release.
type DeployReleaseCondition string

// When a step deploys another project's release.
const (
	DeployReleaseAlways       DeployReleaseCondition = "Always"
	DeployReleaseIfNotCurrent DeployReleaseCondition = "IfNotCurrentVersion"
	DeployReleaseIfNewer      DeployReleaseCondition = "IfNewer"
)

// ScriptSource is where a script comes from.
type ScriptSource string

// Where a script comes from.
const (
	ScriptInline  ScriptSource = "Inline"
	ScriptPackage ScriptSource = "Package"
	ScriptGit     ScriptSource = "GitRepository"
)

// ScriptSyntax is the language of a script.
type ScriptSyntax string

// Languages of scripts.
const (
	SyntaxPowerShell ScriptSyntax = "PowerShell"
	SyntaxBash       ScriptSyntax = "Bash"
	SyntaxPython     ScriptSyntax = "Python"
	SyntaxCSharp     ScriptSyntax = "CSharp"
	SyntaxFSharp     ScriptSyntax = "FSharp"
)

// Action is one thing that a step does.
type Action struct {
	ID         string     `json:"Id"`
	Name       string     `json:"Name"`
	Slug       string     `json:"Slug"`
	ActionType ActionType `json:"ActionType"`
	Notes      NullString `json:"Notes"`
	IsDisabled bool       `json:"IsDisabled"`
	// IsRequired means that nobody can skip the action, nor ignore its failure.
	IsRequired bool `json:"IsRequired"`
	// CanBeUsedForProjectVersioning tells that a release may take its number
	// from a package of the action.
	CanBeUsedForProjectVersioning bool `json:"CanBeUsedForProjectVersioning"`
	// WorkerPoolID names the pool of an action that runs on a worker,
	// WorkerPoolVariable a variable that does. With neither it is the default pool.
	WorkerPoolID       NullString       `json:"WorkerPoolId"`
	WorkerPoolVariable NullString       `json:"WorkerPoolVariable"`
	Container          *ActionContainer `json:"Container"`
	Condition          ActionCondition  `json:"Condition"`
	// Environments, Channels and TenantTags limit where the action takes part;
	// empty is no limit.
	Environments         List[string]           `json:"Environments"`
	ExcludedEnvironments List[string]           `json:"ExcludedEnvironments"`
	Channels             List[string]           `json:"Channels"`
	TenantTags           List[string]           `json:"TenantTags"`
	Properties           Properties             `json:"Properties"`
	Packages             List[PackageReference] `json:"Packages"`
	GitDependencies      List[GitDependency]    `json:"GitDependencies"`
	// StepPackageVersion and Inputs belong to actions of step packages only
	// and are kept as they came.
	StepPackageVersion string          `json:"StepPackageVersion,omitempty"`
	Inputs             json.RawMessage `json:"Inputs,omitempty"`
	Links              Links           `json:"Links"`
}

// ActionContainer is the container image that an action's script runs in. All
// members null means that it runs in none.
type ActionContainer struct {
	Image      NullString `json:"Image"`
	FeedID     NullString `json:"FeedId"`
	GitURL     NullString `json:"GitUrl"`
	Dockerfile NullString `json:"Dockerfile"`
}

// AcquisitionLocation is who fetches a package. It may also be an expression
// over variables.
type AcquisitionLocation string

// Who fetches a package.
const (
	AcquireOnServer AcquisitionLocation = "Server"
	AcquireOnTarget AcquisitionLocation = "ExecutionTarget"
	AcquireNever    AcquisitionLocation = "NotAcquired"
)

// Keys of a package reference's properties.
const (
	PackagePropExtract       = "Extract"              // "True" or "False"
	PackagePropSelectionMode = "SelectionMode"        // "immediate" or "deferred"
	PackagePropParameterName = "PackageParameterName" // of a deferred reference
	PackagePropPurpose       = "Purpose"
)

// PackageReference is a package that an action uses.
type PackageReference struct {
	ID string `json:"Id"`
	// Name is "" for the action's primary package.
	Name string `json:"Name"`
	// PackageID and FeedID may be expressions over variables.
	PackageID           string              `json:"PackageId"`
	FeedID              string              `json:"FeedId"`
	AcquisitionLocation AcquisitionLocation `json:"AcquisitionLocation"`
	// Version fixes the version, for references that no release selects.
	Version                      NullString                `json:"Version"`
	Properties                   Map[string, PropertyText] `json:"Properties"`
	StepPackageInputsReferenceID NullString                `json:"StepPackageInputsReferenceId"`
}

// GitCredentialType is whose credential a Git dependency is fetched with.
type GitCredentialType string

// Whose credential a Git dependency is fetched with.
const (
	GitCredentialAnonymous GitCredentialType = "Anonymous"
	GitCredentialLibrary   GitCredentialType = "Library"
	GitCredentialProject   GitCredentialType = "Project"
	GitCredentialGitHub    GitCredentialType = "GitHub"
)

// GitDependency is a Git repository that an action takes files from.
type GitDependency struct {
	// Name is "" for the action's primary dependency.
	Name              string            `json:"Name"`
	RepositoryURI     string            `json:"RepositoryUri"`
	DefaultBranch     string            `json:"DefaultBranch"`
	GitCredentialType GitCredentialType `json:"GitCredentialType"`
	GitCredentialID   NullString        `json:"GitCredentialId"`
	// GitHubConnectionID is set for GitCredentialGitHub.
	GitHubConnectionID NullString `json:"GitHubConnectionId"`
	// FilePathFilters are the paths whose changes matter to a Git trigger.
	FilePathFilters              List[string] `json:"FilePathFilters"`
	StepPackageInputsReferenceID NullString   `json:"StepPackageInputsReferenceId"`
}

// ReleaseTemplate is what a new release of a process needs to be told.
type ReleaseTemplate struct {
	DeploymentProcessID  NullString `json:"DeploymentProcessId"`
	LastReleaseVersion   NullString `json:"LastReleaseVersion"`
	NextVersionIncrement NullString `json:"NextVersionIncrement"`
	// VersioningPackageStepName and VersioningPackageReferenceName are set
	// when the release takes its number from a package.
	VersioningPackageStepName      NullString                   `json:"VersioningPackageStepName"`
	VersioningPackageReferenceName NullString                   `json:"VersioningPackageReferenceName"`
	Packages                       List[ReleaseTemplatePackage] `json:"Packages"`
	GitResources                   List[ReleaseTemplateGit]     `json:"GitResources"`
	Links                          Links                        `json:"Links"`
}

// ReleaseTemplatePackage is a package whose version a new release must select.
type ReleaseTemplatePackage struct {
	// StepName repeats ActionName for older clients.
	StepName             string `json:"StepName"`
	ActionName           string `json:"ActionName"`
	PackageReferenceName string `json:"PackageReferenceName"`
	PackageID            string `json:"PackageId"`
	FeedID               string `json:"FeedId"`
	FeedName             string `json:"FeedName"`
	// ProjectName is the project whose releases are the packages, for an
	// action that deploys a release.
	ProjectName                NullString `json:"ProjectName"`
	VersionSelectedLastRelease NullString `json:"VersionSelectedLastRelease"`
	// IsResolvable is false when package or feed are expressions, so that a
	// person must type the version.
	IsResolvable   bool       `json:"IsResolvable"`
	FixedVersion   NullString `json:"FixedVersion"`
	NuGetFeedID    string     `json:"NuGetFeedId"`
	NuGetFeedName  string     `json:"NuGetFeedName"`
	NuGetPackageID string     `json:"NuGetPackageId"`
}

// ReleaseTemplateGit is a Git dependency whose reference a new release must select.
type ReleaseTemplateGit struct {
	ActionName                     string        `json:"ActionName"`
	Name                           string        `json:"Name"`
	RepositoryURI                  string        `json:"RepositoryUri"`
	DefaultBranch                  string        `json:"DefaultBranch"`
	FilePathFilters                List[string]  `json:"FilePathFilters"`
	GitCredentialID                NullString    `json:"GitCredentialId"`
	IsResolvable                   bool          `json:"IsResolvable"`
	GitResourceSelectedLastRelease *GitReference `json:"GitResourceSelectedLastRelease"`
}
