package octopus

import "encoding/json"

// ProjectGroup is a group of projects, on dashboards and in permissions.
type ProjectGroup struct {
	Resource
	SpaceID     string `json:"SpaceId"`
	Name        string `json:"Name"`
	Slug        string `json:"Slug"`
	Description string `json:"Description"`
	// EnvironmentIDs and RetentionPolicyID are there for older clients.
	EnvironmentIDs    List[string] `json:"EnvironmentIds"`
	RetentionPolicyID NullString   `json:"RetentionPolicyId"`
}

// TenantedDeploymentMode is whether a project, a runbook or a target takes part
// in deployments for tenants.
type TenantedDeploymentMode string

// Whether something takes part in deployments for tenants.
const (
	Untenanted           TenantedDeploymentMode = "Untenanted"
	TenantedOrUntenanted TenantedDeploymentMode = "TenantedOrUntenanted"
	Tenanted             TenantedDeploymentMode = "Tenanted"
)

// GuidedFailureMode is whether a failure asks a person what to do.
type GuidedFailureMode string

// Whether a failure asks a person what to do.
const (
	// GuidedFailureEnvironment leaves it to the environment.
	GuidedFailureEnvironment GuidedFailureMode = "EnvironmentDefault"
	GuidedFailureOff         GuidedFailureMode = "Off"
	GuidedFailureOn          GuidedFailureMode = "On"
)

// Project is something that is released and deployed.
type Project struct {
	Resource
	SpaceID             string     `json:"SpaceId"`
	Name                string     `json:"Name"`
	Slug                string     `json:"Slug"`
	Description         string     `json:"Description"`
	IsDisabled          bool       `json:"IsDisabled"`
	ProjectGroupID      string     `json:"ProjectGroupId"`
	LifecycleID         string     `json:"LifecycleId"`
	VariableSetID       string     `json:"VariableSetId"`
	DeploymentProcessID string     `json:"DeploymentProcessId"`
	ClonedFromProjectID NullString `json:"ClonedFromProjectId"`
	// IncludedLibraryVariableSetIDs are in order of precedence: of two values
	// of one name and scope the earlier set's holds.
	IncludedLibraryVariableSetIDs List[string] `json:"IncludedLibraryVariableSetIds"`
	// Templates are the variables whose values each tenant has its own of.
	Templates              List[TemplateParameter] `json:"Templates"`
	TenantedDeploymentMode TenantedDeploymentMode  `json:"TenantedDeploymentMode"`
	// AutoCreateRelease makes a release when a package is pushed, as
	// ReleaseCreationStrategy says.
	AutoCreateRelease       bool                    `json:"AutoCreateRelease"`
	ReleaseCreationStrategy ReleaseCreationStrategy `json:"ReleaseCreationStrategy"`
	// DiscreteChannelRelease treats the releases of each channel apart, on the
	// dashboard and in retention.
	DiscreteChannelRelease     bool                            `json:"DiscreteChannelRelease"`
	AutoDeployReleaseOverrides List[AutoDeployReleaseOverride] `json:"AutoDeployReleaseOverrides"`
	// AllowIgnoreChannelRules permits releases that break a channel's rules.
	AllowIgnoreChannelRules                         bool                    `json:"AllowIgnoreChannelRules"`
	IsVersionControlled                             bool                    `json:"IsVersionControlled"`
	PersistenceSettings                             PersistenceSettings     `json:"PersistenceSettings"`
	Icon                                            *Icon                   `json:"Icon"`
	ProjectTags                                     List[string]            `json:"ProjectTags"`
	IsBadgesEnabled                                 bool                    `json:"IsBadgesEnabled"`
	DefaultPowerShellEdition                        NullString              `json:"DefaultPowerShellEdition"`
	RetainTenantConnections                         bool                    `json:"RetainTenantConnections"`
	ExtensionSettings                               List[ExtensionSettings] `json:"ExtensionSettings"`
	ExecuteDeploymentsOnResilientPipeline           *bool                   `json:"ExecuteDeploymentsOnResilientPipeline"`
	CombineHealthAndSyncStatusInDashboardLiveStatus *bool                   `json:"CombineHealthAndSyncStatusInDashboardLiveStatus"`

	// The rest repeats the deployment settings for older clients; a write to
	// either shows in both.
	ProjectConnectivityPolicy       ConnectivityPolicy `json:"ProjectConnectivityPolicy"`
	DefaultGuidedFailureMode        GuidedFailureMode  `json:"DefaultGuidedFailureMode"`
	VersioningStrategy              VersioningStrategy `json:"VersioningStrategy"`
	ReleaseNotesTemplate            NullString         `json:"ReleaseNotesTemplate"`
	DeploymentChangesTemplate       NullString         `json:"DeploymentChangesTemplate"`
	DefaultToSkipIfAlreadyInstalled bool               `json:"DefaultToSkipIfAlreadyInstalled"`
	ForcePackageDownload            bool               `json:"ForcePackageDownload"`
}

// Icon is a picture by name and colour.
type Icon struct {
	ID    string `json:"Id"`
	Color string `json:"Color"`
}

// AutoDeployReleaseOverride fixes which release targets get that appear later.
type AutoDeployReleaseOverride struct {
	EnvironmentID string     `json:"EnvironmentId"`
	TenantID      NullString `json:"TenantId"`
	ReleaseID     string     `json:"ReleaseId"`
}

// ReleaseCreationStrategy is which package makes a release when it is pushed.
type ReleaseCreationStrategy struct {
	ChannelID                    NullString               `json:"ChannelId"`
	ReleaseCreationPackage       *DeploymentActionPackage `json:"ReleaseCreationPackage"`
	ReleaseCreationPackageStepID NullString               `json:"ReleaseCreationPackageStepId"`
}

// VersioningStrategy is where a new release takes its number from: a template,
// or the version of a package.
type VersioningStrategy struct {
	// Template is an expression over variables, or a mask such as "1.2.i".
	Template           NullString               `json:"Template"`
	DonorPackage       *DeploymentActionPackage `json:"DonorPackage"`
	DonorPackageStepID NullString               `json:"DonorPackageStepId"`
}

// DefaultVersionTemplate counts the patch number up.
const DefaultVersionTemplate = "#{Octopus.Version.LastMajor}.#{Octopus.Version.LastMinor}.#{Octopus.Version.NextPatch}"

// SkipMachineBehavior is what becomes of targets that cannot be reached.
type SkipMachineBehavior string

// What becomes of targets that cannot be reached.
const (
	SkipNone        SkipMachineBehavior = "None"
	SkipUnavailable SkipMachineBehavior = "SkipUnavailableMachines"
)

// ConnectivityPolicy is what a deployment does about targets that are missing,
// unreachable or unhealthy.
type ConnectivityPolicy struct {
	SkipMachineBehavior SkipMachineBehavior `json:"SkipMachineBehavior"`
	// TargetRoles limits the skipping to targets with one of the tags.
	TargetRoles                 List[string] `json:"TargetRoles"`
	AllowDeploymentsToNoTargets bool         `json:"AllowDeploymentsToNoTargets"`
	ExcludeUnhealthyTargets     bool         `json:"ExcludeUnhealthyTargets"`
}

// DeploymentSettings are how a project deploys, apart from its process. Its id
// is "deploymentsettings-" and the project's.
type DeploymentSettings struct {
	Resource
	SpaceID   string `json:"SpaceId"`
	ProjectID string `json:"ProjectId"`
	// ConnectivityPolicy repeats under the name that some clients use.
	ConnectivityPolicy              *ConnectivityPolicy `json:"ConnectivityPolicy"`
	ProjectConnectivityPolicy       *ConnectivityPolicy `json:"ProjectConnectivityPolicy"`
	DefaultGuidedFailureMode        GuidedFailureMode   `json:"DefaultGuidedFailureMode"`
	VersioningStrategy              VersioningStrategy  `json:"VersioningStrategy"`
	ReleaseNotesTemplate            NullString          `json:"ReleaseNotesTemplate"`
	DeploymentChangesTemplate       NullString          `json:"DeploymentChangesTemplate"`
	DefaultToSkipIfAlreadyInstalled bool                `json:"DefaultToSkipIfAlreadyInstalled"`
	ForcePackageDownload            bool                `json:"ForcePackageDownload"`
	FailTargetDiscovery             bool                `json:"FailTargetDiscovery"`
	// CancelQueuedTasks and CancelRunningTasks let a newer release to the
	// same environment end what it supersedes.
	CancelQueuedTasks  bool `json:"CancelQueuedTasks"`
	CancelRunningTasks bool `json:"CancelRunningTasks"`
	// ChangeDescription is the commit's message, for version-controlled projects.
	ChangeDescription string `json:"ChangeDescription,omitempty"`
}

// PersistenceType is where a project's configuration is kept.
type PersistenceType string

// Where a project's configuration is kept.
const (
	PersistenceDatabase PersistenceType = "Database"
	PersistenceGit      PersistenceType = "VersionControlled"
)

// PersistenceSettings is where a project's configuration is kept. Of Database
// settings only the type is written: clients tell the two by what is there.
type PersistenceSettings struct {
	// Type "" is written as Database: clients fail on a project without one.
	Type                        PersistenceType
	URL                         string
	Credentials                 *GitProjectCredential
	DefaultBranch               string
	BasePath                    string
	ProtectedDefaultBranch      bool
	ProtectedBranchNamePatterns List[string]
	SerializationFormat         NullString
	ConversionState             ConversionState
}

type gitPersistence struct {
	Type                        PersistenceType       `json:"Type"`
	URL                         string                `json:"Url"`
	Credentials                 *GitProjectCredential `json:"Credentials"`
	DefaultBranch               string                `json:"DefaultBranch"`
	BasePath                    string                `json:"BasePath"`
	ProtectedDefaultBranch      bool                  `json:"ProtectedDefaultBranch"`
	ProtectedBranchNamePatterns List[string]          `json:"ProtectedBranchNamePatterns"`
	SerializationFormat         NullString            `json:"SerializationFormat"`
	ConversionState             ConversionState       `json:"ConversionState"`
}

// MarshalJSON writes the type, and the rest for version-controlled projects only.
func (p PersistenceSettings) MarshalJSON() ([]byte, error) {
	if p.Type == "" || p.Type == PersistenceDatabase {
		return json.Marshal(map[string]PersistenceType{"Type": PersistenceDatabase})
	}
	return json.Marshal(gitPersistence(p))
}

// UnmarshalJSON reads either form; null is Database.
func (p *PersistenceSettings) UnmarshalJSON(data []byte) error {
	var g gitPersistence
	if err := json.Unmarshal(data, &g); err != nil {
		return err
	}
	if g.Type == "" {
		g.Type = PersistenceDatabase
	}
	*p = PersistenceSettings(g)
	return nil
}

// ConversionState is which parts of a version-controlled project are in Git.
type ConversionState struct {
	VariablesAreInGit bool `json:"VariablesAreInGit"`
	RunbooksAreInGit  bool `json:"RunbooksAreInGit"`
}

// ProjectCredentialType is what a project reads its repository with.
type ProjectCredentialType string

// What a project reads its repository with.
const (
	ProjectCredentialAnonymous ProjectCredentialType = "Anonymous"
	ProjectCredentialPassword  ProjectCredentialType = "UsernamePassword"
	// ProjectCredentialReference is a Git credential of the space's library.
	ProjectCredentialReference ProjectCredentialType = "Reference"
	ProjectCredentialGitHub    ProjectCredentialType = "GitHub"
)

// GitProjectCredential is what a project reads its repository with.
type GitProjectCredential struct {
	Type ProjectCredentialType `json:"Type"`
	// ID is the library's credential, for Reference, or the connection, for GitHub.
	ID       string     `json:"Id,omitempty"`
	Username string     `json:"Username,omitempty"`
	Password *Sensitive `json:"Password,omitempty"`
}

// ConvertToGitCommand moves a project's configuration to a Git repository.
type ConvertToGitCommand struct {
	CommitMessage           string              `json:"CommitMessage"`
	InitialCommitBranchName string              `json:"InitialCommitBranchName"`
	VersionControlSettings  PersistenceSettings `json:"VersionControlSettings"`
}

// ConvertToGitResponse has what a person should know after the move.
type ConvertToGitResponse struct {
	Messages List[string] `json:"Messages"`
}

// GitBranch is a branch or tag of a project's repository.
type GitBranch struct {
	Name string `json:"Name"`
	// CanonicalName is the full reference, "refs/heads/main".
	CanonicalName string `json:"CanonicalName"`
	IsProtected   bool   `json:"IsProtected"`
	Links         Links  `json:"Links"`
}

// ProjectSummary counts what a project has.
type ProjectSummary struct {
	HasBeenSuccessfullyDeployed  bool  `json:"HasBeenSuccessfullyDeployed"`
	HasDeploymentProcess         bool  `json:"HasDeploymentProcess"`
	HasRunbooks                  bool  `json:"HasRunbooks"`
	LastSuccessfulDeploymentTime *Time `json:"LastSuccessfulDeploymentTime"`
	DisabledStepCount            int   `json:"DisabledStepCount"`
	StepCount                    int   `json:"StepCount"`
	Links                        Links `json:"Links"`
}
