package octopus

// ChannelType tells what a channel's releases are deployed to.
type ChannelType string

// Types of channels.
const (
	ChannelLifecycle ChannelType = "Lifecycle"
	ChannelEphemeral ChannelType = "EphemeralEnvironment"
)

// Channel is a line of a project's releases with its own lifecycle and rules.
type Channel struct {
	Resource
	SpaceID     string `json:"SpaceId"`
	ProjectID   string `json:"ProjectId"`
	Name        string `json:"Name"`
	Slug        string `json:"Slug"`
	Description string `json:"Description"`
	// IsDefault is true for exactly one channel of a project.
	IsDefault bool        `json:"IsDefault"`
	Type      ChannelType `json:"Type"`
	// LifecycleID is null where the project's lifecycle holds.
	LifecycleID NullString `json:"LifecycleId"`
	// Rules limit which package versions a release may have.
	Rules List[ChannelRule] `json:"Rules"`
	// GitReferenceRules are globs of the references, "refs/heads/main", that
	// a release of a version-controlled project may be made from.
	GitReferenceRules List[string]         `json:"GitReferenceRules"`
	GitResourceRules  List[ChannelGitRule] `json:"GitResourceRules"`
	// TenantTags limit which tenants the releases may be deployed to.
	TenantTags List[string] `json:"TenantTags"`
	// CustomFieldDefinitions are what a release of the channel must be told.
	CustomFieldDefinitions List[ChannelCustomField] `json:"CustomFieldDefinitions"`
	// The rest belongs to channels of type ChannelEphemeral.
	ParentEnvironmentID                      NullString `json:"ParentEnvironmentId"`
	EphemeralEnvironmentNameTemplate         NullString `json:"EphemeralEnvironmentNameTemplate"`
	AutomaticEphemeralEnvironmentDeployments bool       `json:"AutomaticEphemeralEnvironmentDeployments"`
}

// ChannelCustomField is a text that a release of a channel must be told.
type ChannelCustomField struct {
	FieldName   string     `json:"FieldName"`
	Description NullString `json:"Description"`
}

// ChannelVersioning is how a rule picks the newest of the versions it allows.
type ChannelVersioning string

// How a rule picks the newest version.
const (
	ChannelBySemVer    ChannelVersioning = "SemVer"
	ChannelByPublished ChannelVersioning = "MostRecentlyPublished"
)

// ChannelRule limits the versions of some packages.
type ChannelRule struct {
	ID string `json:"Id"`
	// VersionRange is a range of NuGet's or Maven's syntax; "" is no limit.
	VersionRange NullString `json:"VersionRange"`
	// Tag is a regular expression on the pre-release part; "^$" allows none,
	// "" anything.
	Tag NullString `json:"Tag"`
	// VersioningStrategy is null for the order of versions.
	VersioningStrategy *ChannelVersioning `json:"VersioningStrategy"`
	VersionTagRegex    NullString         `json:"VersionTagRegex"`
	// ActionPackages are the packages that the rule is about. A package can
	// be in one rule of a channel only.
	ActionPackages List[DeploymentActionPackage] `json:"ActionPackages"`
	// Actions names actions whose primary package the rule is about, as older
	// clients do in place of ActionPackages.
	Actions List[string] `json:"Actions"`
	Links   Links        `json:"Links"`
}

// DeploymentActionPackage names a package of a process.
type DeploymentActionPackage struct {
	// DeploymentAction is the action's name.
	DeploymentAction string `json:"DeploymentAction"`
	// PackageReference is the reference's name, "" for the primary package.
	PackageReference string `json:"PackageReference"`
}

// ChannelGitRule limits the references of some Git dependencies.
type ChannelGitRule struct {
	ID                   string                    `json:"Id"`
	GitDependencyActions List[ActionGitDependency] `json:"GitDependencyActions"`
	Rules                List[string]              `json:"Rules"`
}

// ActionGitDependency names a Git dependency of a process.
type ActionGitDependency struct {
	// DeploymentActionSlug is the action's slug.
	DeploymentActionSlug string `json:"DeploymentActionSlug"`
	// GitDependencyName is "" for the primary dependency.
	GitDependencyName string `json:"GitDependencyName"`
}

// ChannelRuleTest is the answer to whether a version satisfies a rule.
type ChannelRuleTest struct {
	SatisfiesVersionRange  bool         `json:"SatisfiesVersionRange"`
	SatisfiesPreReleaseTag bool         `json:"SatisfiesPreReleaseTag"`
	IsNull                 bool         `json:"IsNull"`
	Errors                 List[string] `json:"Errors"`
}
