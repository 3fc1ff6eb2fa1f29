package octopus

// FeedType is what kind of a repository a feed reads; it tells what the rest of
// the document means.
type FeedType string

// Types of feeds.
const (
	FeedBuiltIn     FeedType = "BuiltIn"
	FeedNuGet       FeedType = "NuGet"
	FeedDocker      FeedType = "Docker"
	FeedMaven       FeedType = "Maven"
	FeedGitHub      FeedType = "GitHub"
	FeedHelm        FeedType = "Helm"
	FeedOCI         FeedType = "OciRegistry"
	FeedECR         FeedType = "AwsElasticContainerRegistry"
	FeedACR         FeedType = "AzureContainerRegistry"
	FeedGCR         FeedType = "GoogleContainerRegistry"
	FeedS3          FeedType = "S3"
	FeedArtifactory FeedType = "ArtifactoryGeneric"
	FeedNpm         FeedType = "Npm"
	FeedPyPI        FeedType = "PyPi"
	FeedGCS         FeedType = "GcsStorage"
	// FeedProject has the releases of projects as its packages.
	FeedProject FeedType = "OctopusProject"
)

// BuiltInFeedID is the id of the server's own package repository.
const BuiltInFeedID = "feeds-builtin"

// Feed is a repository of packages. Which of the later members have a meaning
// depends on the type; those of types that are not declared here are in Extra.
type Feed struct {
	Resource
	SpaceID  string   `json:"SpaceId"`
	FeedType FeedType `json:"FeedType"`
	Name     string   `json:"Name"`
	Slug     string   `json:"Slug"`
	// PackageAcquisitionLocationOptions follows from the type.
	PackageAcquisitionLocationOptions List[AcquisitionLocation] `json:"PackageAcquisitionLocationOptions"`

	FeedURI  string     `json:"FeedUri,omitempty"`
	Username string     `json:"Username,omitempty"`
	Password *Sensitive `json:"Password,omitempty"`
	// DownloadAttempts and DownloadRetryBackoffSeconds say how often, and
	// after how long, a download is tried again.
	DownloadAttempts            *int `json:"DownloadAttempts,omitempty"`
	DownloadRetryBackoffSeconds *int `json:"DownloadRetryBackoffSeconds,omitempty"`
	// EnhancedMode is there for older clients of NuGet feeds.
	EnhancedMode *bool `json:"EnhancedMode,omitempty"`

	// APIVersion and RegistryPath are a container registry's.
	APIVersion   string `json:"ApiVersion,omitempty"`
	RegistryPath string `json:"RegistryPath,omitempty"`
	// Region, AccessKey and SecretKey are Amazon's.
	Region                string     `json:"Region,omitempty"`
	AccessKey             string     `json:"AccessKey,omitempty"`
	SecretKey             *Sensitive `json:"SecretKey,omitempty"`
	UseMachineCredentials *bool      `json:"UseMachineCredentials,omitempty"`
	// Repository and LayoutRegex are Artifactory's.
	Repository  string `json:"Repository,omitempty"`
	LayoutRegex string `json:"LayoutRegex,omitempty"`

	// The rest is the built-in repository's. Packages that are in no release
	// are deleted after the number of days; without one they are kept.
	DeleteUnreleasedPackagesAfterDays    *int  `json:"DeleteUnreleasedPackagesAfterDays,omitempty"`
	DeletePackagesAssociatedWithReleases *bool `json:"DeletePackagesAssociatedWithReleases,omitempty"`
	IsBuiltInRepoSyncEnabled             *bool `json:"IsBuiltInRepoSyncEnabled,omitempty"`

	Extra Extra `json:"-"`
}

type plainFeed Feed

// MarshalJSON writes the members that are set, and Extra.
func (f Feed) MarshalJSON() ([]byte, error) { return marshalExtra(plainFeed(f), f.Extra) }

// UnmarshalJSON keeps the members that it does not know in Extra.
func (f *Feed) UnmarshalJSON(data []byte) (err error) {
	var p plainFeed
	if p.Extra, err = unmarshalExtra(data, &p); err == nil {
		*f = Feed(p)
	}
	return err
}

// BuiltInFeedStats counts the packages of the built-in repository.
type BuiltInFeedStats struct {
	TotalPackages int64 `json:"TotalPackages"`
	Links         Links `json:"Links"`
}

// Package is a version of a package in the built-in repository. Its id is
// "packages-", the package's id, "." and the version.
type Package struct {
	Resource
	SpaceID   string `json:"SpaceId"`
	PackageID string `json:"PackageId"`
	Version   string `json:"Version"`
	FeedID    string `json:"FeedId"`
	// NuGetPackageID and NuGetFeedID repeat the ids for older clients.
	NuGetPackageID string     `json:"NuGetPackageId"`
	NuGetFeedID    string     `json:"NuGetFeedId"`
	Title          string     `json:"Title"`
	Summary        NullString `json:"Summary"`
	Description    NullString `json:"Description"`
	Published      *Time      `json:"Published"`
	// ReleaseNotes should stay null: one widespread client reads the member as
	// a time and fails on any other text.
	ReleaseNotes NullString `json:"ReleaseNotes"`
	// FileExtension has its dot: ".zip", ".tar.gz".
	FileExtension string `json:"FileExtension"`
	// PackageSizeBytes is the file's size.
	PackageSizeBytes int64 `json:"PackageSizeBytes"`
	// Hash is the SHA-1 of the file, in hexadecimal.
	Hash                           string            `json:"Hash"`
	PackageVersionBuildInformation *BuildInformation `json:"PackageVersionBuildInformation"`
}

// PackageVersion is a version of a package in any feed.
type PackageVersion struct {
	Resource
	FeedID       string     `json:"FeedId"`
	PackageID    string     `json:"PackageId"`
	Version      string     `json:"Version"`
	Title        NullString `json:"Title"`
	Published    *Time      `json:"Published"`
	ReleaseNotes NullString `json:"ReleaseNotes"`
	// SizeBytes is 0 where the feed does not tell.
	SizeBytes int64 `json:"SizeBytes"`
}

// PackageDescription is a package of a feed, as a search finds it.
type PackageDescription struct {
	Resource
	Name          string     `json:"Name"`
	Description   NullString `json:"Description"`
	LatestVersion NullString `json:"LatestVersion"`
}

// PackageNotes has the release notes of several packages.
type PackageNotes struct {
	Packages List[PackageNote] `json:"Packages"`
}

// PackageNote is the release notes of one package, or why there are none.
type PackageNote struct {
	PackageID string            `json:"PackageId"`
	Version   string            `json:"Version"`
	FeedID    string            `json:"FeedId"`
	Notes     PackageNoteResult `json:"Notes"`
}

// PackageNoteResult is the text of release notes, or why there is none.
type PackageNoteResult struct {
	Succeeded      bool       `json:"Succeeded"`
	Notes          NullString `json:"Notes"`
	FailureReason  NullString `json:"FailureReason"`
	DisplayMessage NullString `json:"DisplayMessage"`
	Published      *Time      `json:"Published"`
}

// DeltaSignature is what a client needs to send only the difference to a
// version that the server has.
type DeltaSignature struct {
	// BaseVersion is the version that the signature is of.
	BaseVersion string `json:"BaseVersion"`
	// Signature is an Octodiff signature, in base64.
	Signature []byte `json:"Signature"`
}
