package octopus

// BuildInformation is where a package comes from, as a build server tells.
type BuildInformation struct {
	Resource
	SpaceID          string         `json:"SpaceId"`
	PackageID        string         `json:"PackageId"`
	Version          string         `json:"Version"`
	BuildEnvironment string         `json:"BuildEnvironment"`
	BuildNumber      string         `json:"BuildNumber"`
	BuildURL         string         `json:"BuildUrl"`
	Branch           string         `json:"Branch"`
	VcsType          string         `json:"VcsType"`
	VcsRoot          string         `json:"VcsRoot"`
	VcsCommitNumber  string         `json:"VcsCommitNumber"`
	VcsCommitURL     NullString     `json:"VcsCommitUrl"`
	IssueTrackerName NullString     `json:"IssueTrackerName"`
	WorkItems        List[WorkItem] `json:"WorkItems"`
	Commits          List[Commit]   `json:"Commits"`
	Created          *Time          `json:"Created"`
	// IncompleteDataWarning tells what could not be looked up.
	IncompleteDataWarning NullString `json:"IncompleteDataWarning"`
}

// BuildInformationCommand is what a build server sends.
type BuildInformationCommand struct {
	PackageID               string       `json:"PackageId"`
	Version                 string       `json:"Version"`
	OctopusBuildInformation BuildDetails `json:"OctopusBuildInformation"`
	// OverwriteMode may also be in the query.
	OverwriteMode OverwriteMode `json:"OverwriteMode,omitempty"`
}

// BuildDetails describes one build.
type BuildDetails struct {
	BuildEnvironment string       `json:"BuildEnvironment"`
	BuildNumber      string       `json:"BuildNumber"`
	BuildURL         string       `json:"BuildUrl"`
	Branch           string       `json:"Branch"`
	VcsType          string       `json:"VcsType"`
	VcsRoot          string       `json:"VcsRoot"`
	VcsCommitNumber  string       `json:"VcsCommitNumber"`
	Commits          List[Commit] `json:"Commits"`
}

// Commit is a change that a build contains.
type Commit struct {
	ID      string     `json:"Id"`
	LinkURL NullString `json:"LinkUrl"`
	Comment string     `json:"Comment"`
}

// WorkItem is an issue that a build mentions.
type WorkItem struct {
	ID          string     `json:"Id"`
	LinkURL     string     `json:"LinkUrl"`
	Source      NullString `json:"Source"`
	Description string     `json:"Description"`
}

// ReleaseBuildInformation is the build information of a package of a release.
type ReleaseBuildInformation struct {
	PackageID        string         `json:"PackageId"`
	Version          string         `json:"Version"`
	BuildEnvironment string         `json:"BuildEnvironment"`
	BuildNumber      string         `json:"BuildNumber"`
	BuildURL         string         `json:"BuildUrl"`
	Branch           string         `json:"Branch"`
	VcsType          string         `json:"VcsType"`
	VcsRoot          string         `json:"VcsRoot"`
	VcsCommitNumber  string         `json:"VcsCommitNumber"`
	VcsCommitURL     NullString     `json:"VcsCommitUrl"`
	WorkItems        List[WorkItem] `json:"WorkItems"`
	Commits          List[Commit]   `json:"Commits"`
}

// OverwriteMode says what to do with a package, or build information, whose
// version is there already.
type OverwriteMode string

// What to do with a version that is there already.
const (
	OverwriteFail     OverwriteMode = "FailIfExists"
	OverwriteExisting OverwriteMode = "OverwriteExisting"
	OverwriteIgnore   OverwriteMode = "IgnoreIfExists"
)
