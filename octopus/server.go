package octopus

// Root is the document that clients read first, of the server or of a space.
type Root struct {
	Application string `json:"Application"`
	// Version is compared by clients; it has no "+" suffix, which some of
	// them take for older than everything.
	Version string `json:"Version"`
	// APIVersion is 3.0.0 or a later patch.
	APIVersion string `json:"ApiVersion"`
	// InstallationID is a UUID.
	InstallationID       string `json:"InstallationId"`
	IsEarlyAccessProgram bool   `json:"IsEarlyAccessProgram"`
	HasLongTermSupport   bool   `json:"HasLongTermSupport"`
	// Links has every collection, as URI templates.
	Links Links `json:"Links"`
}

// Capabilities lists the requests that a server understands.
type Capabilities struct {
	Capabilities List[string] `json:"Capabilities"`
}

// FeatureToggles lists switches of the server's behaviour; one that is not
// listed is off.
type FeatureToggles struct {
	FeatureToggles List[FeatureToggle] `json:"FeatureToggles"`
}

// FeatureToggle is a switch of the server's behaviour.
type FeatureToggle struct {
	Name      string `json:"Name"`
	IsEnabled bool   `json:"IsEnabled"`
}

// ServerStatus is how the server fares.
type ServerStatus struct {
	IsDatabaseEncrypted                     bool       `json:"IsDatabaseEncrypted"`
	IsUpgradeAvailable                      bool       `json:"IsUpgradeAvailable"`
	IsMajorMinorUpgrade                     bool       `json:"IsMajorMinorUpgrade"`
	MaximumAvailableVersion                 NullString `json:"MaximumAvailableVersion"`
	MaximumAvailableVersionCoveredByLicense NullString `json:"MaximumAvailableVersionCoveredByLicense"`
	MaintenanceExpires                      NullString `json:"MaintenanceExpires"`
	IsInMaintenanceMode                     bool       `json:"IsInMaintenanceMode"`
	// TestInstance says what the server is a copy of; null when it is none.
	TestInstance *TestInstance `json:"TestInstance"`
	Links        Links         `json:"Links"`
}

// TestInstance is a server that was made as a copy of another.
type TestInstance struct {
	// IsInQuarantine tells that it connects to its own host only and runs no script.
	IsInQuarantine bool `json:"IsInQuarantine"`
	// ParentInstallationID is that of what it is a copy of, BackupID and BackupTime the
	// backup that it was made from.
	ParentInstallationID string `json:"ParentInstallationId"`
	BackupID             string `json:"BackupId"`
	BackupTime           Time   `json:"BackupTime"`
	Created              Time   `json:"Created"`
}

// ServerHealth is whether the server is well.
type ServerHealth struct {
	IsOperatingNormally     bool   `json:"IsOperatingNormally"`
	IsEntireClusterReadOnly bool   `json:"IsEntireClusterReadOnly"`
	IsEntireClusterDrained  bool   `json:"IsEntireClusterDrained"`
	Description             string `json:"Description"`
	Links                   Links  `json:"Links"`
}

// SystemInfo is what the server's process uses.
type SystemInfo struct {
	Version     string `json:"Version"`
	OSVersion   string `json:"OSVersion"`
	ThreadCount int    `json:"ThreadCount"`
	Uptime      string `json:"Uptime"`
	// WorkingSetBytes is the memory in use.
	WorkingSetBytes int64 `json:"WorkingSetBytes"`
	Links           Links `json:"Links"`
}

// InstalledVersion is a version that began to serve on the server's database.
type InstalledVersion struct {
	Version string `json:"Version"`
	// SchemaLevel is the level of the schema that the version makes.
	SchemaLevel int `json:"SchemaLevel"`
	// Node is where it began to serve; null where that is not known.
	Node NullString `json:"Node"`
	// Installed is when it began to.
	Installed Time `json:"Installed"`
}

// ServerNode is a process of the server.
type ServerNode struct {
	Resource
	Name               string `json:"Name"`
	MaxConcurrentTasks int    `json:"MaxConcurrentTasks"`
	// IsInMaintenanceMode tells that the node is drained: it takes no new tasks.
	IsInMaintenanceMode bool  `json:"IsInMaintenanceMode"`
	LastSeen            *Time `json:"LastSeen"`
	IsOffline           bool  `json:"IsOffline"`
	RunningTaskCount    int   `json:"RunningTaskCount"`
}

// ServerNodesSummary has all nodes.
type ServerNodesSummary struct {
	Nodes List[ServerNode] `json:"Nodes"`
	Links Links            `json:"Links"`
}

// ServerNodePing is the answer of a node that is alive.
type ServerNodePing struct {
	IsInMaintenanceMode bool `json:"IsInMaintenanceMode"`
	IsOffline           bool `json:"IsOffline"`
}

// LicenseDisposition is how serious a message about the licence is.
type LicenseDisposition string

// How serious a message is.
const (
	LicenseInformation LicenseDisposition = "Information"
	LicenseWarning     LicenseDisposition = "Warning"
	LicenseError       LicenseDisposition = "Error"
)

// LicenseStatus tells clients that nothing is limited.
type LicenseStatus struct {
	IsCompliant        bool   `json:"IsCompliant"`
	HostingEnvironment string `json:"HostingEnvironment"`
	ComplianceSummary  string `json:"ComplianceSummary"`
	// EffectiveExpiryDate is a date, "2026-01-02".
	EffectiveExpiryDate                   string               `json:"EffectiveExpiryDate"`
	DaysToEffectiveExpiryDate             int                  `json:"DaysToEffectiveExpiryDate"`
	Messages                              List[LicenseMessage] `json:"Messages"`
	Limits                                List[LicenseLimit]   `json:"Limits"`
	DoesExpiryBlockKeyActivities          bool                 `json:"DoesExpiryBlockKeyActivities"`
	EffectiveNodeTaskLimit                int                  `json:"EffectiveNodeTaskLimit"`
	EffectiveClusterTaskLimit             int                  `json:"EffectiveClusterTaskLimit"`
	IsClusterTaskLimitControlledByLicense bool                 `json:"IsClusterTaskLimitControlledByLicense"`
	IsNodeTaskLimitControlledByLicense    bool                 `json:"IsNodeTaskLimitControlledByLicense"`
	// PermissionsMode is "Full".
	PermissionsMode string `json:"PermissionsMode"`
	Links           Links  `json:"Links"`
}

// LicenseMessage is something to know about the licence.
type LicenseMessage struct {
	Message     string             `json:"Message"`
	Disposition LicenseDisposition `json:"Disposition"`
}

// LicenseLimit is how much there may be of something.
type LicenseLimit struct {
	Name                      string             `json:"Name"`
	EffectiveLimit            int64              `json:"EffectiveLimit"`
	LicensedLimit             int64              `json:"LicensedLimit"`
	EffectiveLimitDescription string             `json:"EffectiveLimitDescription"`
	LicenseLimitDescription   string             `json:"LicenseLimitDescription"`
	IsUnlimited               bool               `json:"IsUnlimited"`
	CurrentUsage              int64              `json:"CurrentUsage"`
	Message                   NullString         `json:"Message"`
	Disposition               LicenseDisposition `json:"Disposition"`
}

// License is the licence document.
type License struct {
	Resource
	LicenseText  string `json:"LicenseText"`
	SerialNumber string `json:"SerialNumber"`
}

// CertificateConfiguration is the certificate by which agents know the server.
type CertificateConfiguration struct {
	Resource
	Name string `json:"Name"`
	// Thumbprint is the SHA-1 in hexadecimal.
	Thumbprint         string `json:"Thumbprint"`
	SignatureAlgorithm string `json:"SignatureAlgorithm"`
}

// CertificateGlobalID is the id of the certificate of the whole server.
const CertificateGlobalID = "certificate-global"

// MaintenanceConfiguration is whether only administrators may change things.
type MaintenanceConfiguration struct {
	Resource
	IsInMaintenanceMode bool `json:"IsInMaintenanceMode"`
}

// SMTPConfiguration is how mail is sent.
type SMTPConfiguration struct {
	Resource
	SMTPHost      string    `json:"SmtpHost"`
	SMTPPort      int       `json:"SmtpPort"`
	SMTPLogin     string    `json:"SmtpLogin"`
	SMTPPassword  Sensitive `json:"SmtpPassword"`
	SendEmailFrom string    `json:"SendEmailFrom"`
	EnableSSL     bool      `json:"EnableSsl"`
	// Timeout is in milliseconds.
	Timeout int `json:"Timeout"`
}

// SMTPIsConfigured is whether mail can be sent.
type SMTPIsConfigured struct {
	IsConfigured bool  `json:"IsConfigured"`
	Links        Links `json:"Links"`
}

// ServerConfiguration is how the server is known to the outside.
type ServerConfiguration struct {
	Resource
	ServerURI string `json:"ServerUri"`
}

// PerformanceConfiguration is what is given up for speed.
type PerformanceConfiguration struct {
	Resource
	// DefaultDashboardRenderMode is "VirtualizeColumns" or "VirtualizeRowsAndColumns".
	DefaultDashboardRenderMode string `json:"DefaultDashboardRenderMode"`
}

// UpgradeConfiguration is whether the server looks for newer versions of itself.
type UpgradeConfiguration struct {
	Resource
	NotificationMode  UpgradeNotification `json:"NotificationMode"`
	IncludeStatistics bool                `json:"IncludeStatistics"`
	AllowChecking     bool                `json:"AllowChecking"`
}

// UpgradeNotification is which newer versions are shown.
type UpgradeNotification string

// Which newer versions are shown.
const (
	UpgradeAlwaysShow    UpgradeNotification = "AlwaysShow"
	UpgradeShowMajorOnly UpgradeNotification = "ShowOnlyMajorMinor"
	UpgradeNeverShow     UpgradeNotification = "NeverShow"
)

// FeaturesConfiguration switches features of the whole server.
type FeaturesConfiguration struct {
	Resource
	IsBuiltInWorkerEnabled                  bool `json:"IsBuiltInWorkerEnabled"`
	IsCommunityActionTemplatesEnabled       bool `json:"IsCommunityActionTemplatesEnabled"`
	IsHelpSidebarEnabled                    bool `json:"IsHelpSidebarEnabled"`
	IsKubernetesCloudTargetDiscoveryEnabled bool `json:"IsKubernetesCloudTargetDiscoveryEnabled"`
	IsAutomaticStepUpdatesEnabled           bool `json:"IsAutomaticStepUpdatesEnabled"`
}

// Timezone is a time zone that schedules can be in.
type Timezone struct {
	// ID is a name of the IANA database, "Europe/Berlin".
	ID      string `json:"Id"`
	Name    string `json:"Name"`
	IsLocal bool   `json:"IsLocal"`
	// SupportsDaylightSavingTime tells that the offset changes in the year.
	SupportsDaylightSavingTime bool `json:"SupportsDaylightSavingTime"`
}

// AuthenticationProvider is a way to sign in.
type AuthenticationProvider struct {
	Name                    string       `json:"Name"`
	IdentityType            string       `json:"IdentityType"`
	FormsLoginEnabled       bool         `json:"FormsLoginEnabled"`
	FormsUsernameIdentifier NullString   `json:"FormsUsernameIdentifier"`
	CSSLinks                List[string] `json:"CSSLinks"`
	JavascriptLinks         List[string] `json:"JavascriptLinks"`
	Links                   Links        `json:"Links"`
}

// Authentication has the ways to sign in.
type Authentication struct {
	AuthenticationProviders                             List[AuthenticationProvider] `json:"AuthenticationProviders"`
	AutoLoginEnabled                                    bool                         `json:"AutoLoginEnabled"`
	AnyAuthenticationProvidersSupportPasswordManagement bool                         `json:"AnyAuthenticationProvidersSupportPasswordManagement"`
	Links                                               Links                        `json:"Links"`
}
