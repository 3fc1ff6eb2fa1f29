package octopus

// Release is a version of a project: a process, variables, packages and Git
// references, all as they were when it was made.
type Release struct {
	Resource
	SpaceID   string `json:"SpaceId"`
	ProjectID string `json:"ProjectId"`
	ChannelID string `json:"ChannelId"`
	// Version is unique within the project and at most 349 characters long.
	Version string `json:"Version"`
	// ReleaseNotes is Markdown.
	ReleaseNotes NullString `json:"ReleaseNotes"`
	Assembled    Time       `json:"Assembled"`
	// The snapshots are what the release froze.
	ProjectDeploymentProcessSnapshotID string       `json:"ProjectDeploymentProcessSnapshotId"`
	ProjectVariableSetSnapshotID       string       `json:"ProjectVariableSetSnapshotId"`
	LibraryVariableSetSnapshotIDs      List[string] `json:"LibraryVariableSetSnapshotIds"`

	SelectedPackages     List[SelectedPackage]     `json:"SelectedPackages"`
	SelectedGitResources List[SelectedGitResource] `json:"SelectedGitResources"`
	// VersionControlReference is null unless the project is version-controlled.
	VersionControlReference *GitReference                 `json:"VersionControlReference"`
	BuildInformation        List[ReleaseBuildInformation] `json:"BuildInformation"`
	CustomFields            Map[string, string]           `json:"CustomFields"`
	// IgnoreChannelRules is written at creation only.
	IgnoreChannelRules bool `json:"IgnoreChannelRules"`
}

// SelectedPackage is the version of a package that a release or a snapshot uses.
type SelectedPackage struct {
	// ActionName is the action's name. StepName repeats it for older clients,
	// which may send that alone.
	ActionName string `json:"ActionName"`
	StepName   string `json:"StepName"`
	// PackageReferenceName is "" for the primary package.
	PackageReferenceName string `json:"PackageReferenceName"`
	Version              string `json:"Version"`
}

// SelectedGitResource is the reference of a Git dependency that a release or a
// snapshot uses.
type SelectedGitResource struct {
	ActionName string `json:"ActionName"`
	// GitReferenceName is the dependency's name, "" for the primary one.
	GitReferenceName string       `json:"GitReferenceName"`
	GitReference     GitReference `json:"GitReference"`
}

// GitReference is a branch or tag and the commit it was resolved to.
type GitReference struct {
	// GitRef is a full reference, "refs/heads/main".
	GitRef NullString `json:"GitRef"`
	// GitCommit is the hash, null while it is not resolved.
	GitCommit NullString `json:"GitCommit"`
}

// DefectStatus is whether a defect still blocks a release.
type DefectStatus string

// Whether a defect blocks.
const (
	DefectUnresolved DefectStatus = "Unresolved"
	DefectResolved   DefectStatus = "Resolved"
)

// Defect is a reason why a release must not go further.
type Defect struct {
	Resource
	ReleaseID   string       `json:"ReleaseId"`
	Description string       `json:"Description"`
	Status      DefectStatus `json:"Status"`
}

// ReleaseChanges are the notes and changes of one release, as part of the
// changes that a deployment brings to an environment.
type ReleaseChanges struct {
	ReleaseID        string                        `json:"ReleaseId"`
	Version          string                        `json:"Version"`
	ReleaseNotes     NullString                    `json:"ReleaseNotes"`
	BuildInformation List[ReleaseBuildInformation] `json:"BuildInformation"`
	WorkItems        List[WorkItem]                `json:"WorkItems"`
	Commits          List[Commit]                  `json:"Commits"`
}

// MissingPackages are the selected packages that no feed has.
type MissingPackages struct {
	Packages List[MissingPackage] `json:"Packages"`
}

// MissingPackage is a selected package that its feed does not have.
type MissingPackage struct {
	ID      string `json:"Id"`
	Version string `json:"Version"`
	FeedID  string `json:"FeedId"`
}
