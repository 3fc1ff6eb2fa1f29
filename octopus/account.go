package octopus

// AccountType is what an account signs in to; it tells what the rest of the
// document means.
type AccountType string

// Types of accounts.
const (
	AccountUsernamePassword AccountType = "UsernamePassword"
	AccountSSHKeyPair       AccountType = "SshKeyPair"
	AccountToken            AccountType = "Token"
	AccountAWS              AccountType = "AmazonWebServicesAccount"
	AccountAWSRole          AccountType = "AmazonWebServicesRoleAccount"
	AccountAWSOIDC          AccountType = "AmazonWebServicesOidcAccount"
	AccountAzure            AccountType = "AzureServicePrincipal"
	AccountAzureOIDC        AccountType = "AzureOidc"
	AccountAzureCertificate AccountType = "AzureSubscription"
	AccountGoogle           AccountType = "GoogleCloudAccount"
	AccountGoogleOIDC       AccountType = "GoogleCloudOidcAccount"
	AccountGenericOIDC      AccountType = "GenericOidcAccount"
)

// Account is a credential that variables and targets refer to. Which of the
// later members have a meaning depends on the type; those of types that are not
// declared here are in Extra.
type Account struct {
	Resource
	SpaceID     string      `json:"SpaceId"`
	AccountType AccountType `json:"AccountType"`
	Name        string      `json:"Name"`
	Slug        string      `json:"Slug"`
	Description string      `json:"Description"`
	// EnvironmentIDs limits where the account may be used; empty is no limit.
	EnvironmentIDs                  List[string]           `json:"EnvironmentIds"`
	TenantedDeploymentParticipation TenantedDeploymentMode `json:"TenantedDeploymentParticipation"`
	TenantIDs                       List[string]           `json:"TenantIds"`
	TenantTags                      List[string]           `json:"TenantTags"`

	Username string `json:"Username,omitempty"`
	// Password is a person's, or the secret of an Azure service principal.
	Password *Sensitive `json:"Password,omitempty"`
	Token    *Sensitive `json:"Token,omitempty"`
	// PrivateKeyFile is the key itself, in base64.
	PrivateKeyFile       *Sensitive `json:"PrivateKeyFile,omitempty"`
	PrivateKeyPassphrase *Sensitive `json:"PrivateKeyPassphrase,omitempty"`

	AccessKey        string     `json:"AccessKey,omitempty"`
	SecretKey        *Sensitive `json:"SecretKey,omitempty"`
	Region           string     `json:"Region,omitempty"`
	RoleARN          string     `json:"RoleArn,omitempty"`
	SessionDuration  string     `json:"SessionDuration,omitempty"`
	JSONKey          *Sensitive `json:"JsonKey,omitempty"`
	CertificateBytes *Sensitive `json:"CertificateBytes,omitempty"`

	SubscriptionNumber string `json:"SubscriptionNumber,omitempty"`
	ClientID           string `json:"ClientId,omitempty"`
	// TenantID is a tenant of Azure's, not one of ours.
	TenantID         string `json:"TenantId,omitempty"`
	AzureEnvironment string `json:"AzureEnvironment,omitempty"`

	Audience               string       `json:"Audience,omitempty"`
	DeploymentSubjectKeys  List[string] `json:"DeploymentSubjectKeys,omitempty"`
	HealthCheckSubjectKeys List[string] `json:"HealthCheckSubjectKeys,omitempty"`
	AccountTestSubjectKeys List[string] `json:"AccountTestSubjectKeys,omitempty"`

	Extra Extra `json:"-"`
}

type plainAccount Account

// MarshalJSON writes the members that are set, and Extra.
func (a Account) MarshalJSON() ([]byte, error) { return marshalExtra(plainAccount(a), a.Extra) }

// UnmarshalJSON keeps the members that it does not know in Extra.
func (a *Account) UnmarshalJSON(data []byte) (err error) {
	var p plainAccount
	if p.Extra, err = unmarshalExtra(data, &p); err == nil {
		*a = Account(p)
	}
	return err
}

// AccountUsages is what uses an account.
type AccountUsages struct {
	DeploymentProcesses List[ProcessUsage]     `json:"DeploymentProcesses"`
	RunbookProcesses    List[ProcessUsage]     `json:"RunbookProcesses"`
	LibraryVariableSets List[VariableSetUsage] `json:"LibraryVariableSets"`
	ProjectVariableSets List[VariableSetUsage] `json:"ProjectVariableSets"`
	Targets             List[TargetUsage]      `json:"Targets"`
	Releases            List[ReleaseUsage]     `json:"Releases"`
	Links               Links                  `json:"Links"`
}

// ProcessUsage is a process that uses something.
type ProcessUsage struct {
	ProjectID   string          `json:"ProjectId"`
	ProjectName string          `json:"ProjectName"`
	ProjectSlug string          `json:"ProjectSlug"`
	ProcessID   string          `json:"ProcessId"`
	RunbookID   NullString      `json:"RunbookId"`
	RunbookName NullString      `json:"RunbookName"`
	Steps       List[StepUsage] `json:"Steps"`
}

// StepUsage is a step that uses something.
type StepUsage struct {
	StepID   string `json:"StepId"`
	StepName string `json:"StepName"`
}

// VariableSetUsage is a variable set that uses something.
type VariableSetUsage struct {
	ID        string     `json:"Id"`
	Name      string     `json:"Name"`
	ProjectID NullString `json:"ProjectId"`
}

// TargetUsage is a target that uses something.
type TargetUsage struct {
	TargetID   string `json:"TargetId"`
	TargetName string `json:"TargetName"`
}

// ReleaseUsage has the releases of a project that use something.
type ReleaseUsage struct {
	ProjectID   string      `json:"ProjectId"`
	ProjectName string      `json:"ProjectName"`
	Releases    List[Named] `json:"Releases"`
}

// CertificateFormat is the format of a certificate's data.
type CertificateFormat string

// Formats of certificates.
const (
	CertificateUnknown CertificateFormat = "Unknown"
	CertificatePKCS12  CertificateFormat = "Pkcs12"
	CertificateDER     CertificateFormat = "Der"
	CertificatePEM     CertificateFormat = "Pem"
)

// Certificate is an X.509 certificate, perhaps with its key, that variables
// refer to.
type Certificate struct {
	Resource
	SpaceID string `json:"SpaceId"`
	Name    string `json:"Name"`
	Slug    string `json:"Slug"`
	Notes   string `json:"Notes"`
	// CertificateData is the file in base64.
	CertificateData Sensitive `json:"CertificateData"`
	Password        Sensitive `json:"Password"`

	EnvironmentIDs                  List[string]           `json:"EnvironmentIds"`
	TenantedDeploymentParticipation TenantedDeploymentMode `json:"TenantedDeploymentParticipation"`
	TenantIDs                       List[string]           `json:"TenantIds"`
	TenantTags                      List[string]           `json:"TenantTags"`
	// Archived is when the certificate was archived, null while it is in use.
	Archived *Time `json:"Archived"`
	// IsArchived tells that it is.
	IsArchived bool `json:"IsArchived"`
	// ReplacedBy is the archived certificate's successor.
	ReplacedBy            NullString        `json:"ReplacedBy"`
	CertificateDataFormat CertificateFormat `json:"CertificateDataFormat"`

	CertificateInfo
	SubjectCommonName       string                `json:"SubjectCommonName"`
	SubjectOrganization     NullString            `json:"SubjectOrganization"`
	IssuerCommonName        string                `json:"IssuerCommonName"`
	IssuerOrganization      NullString            `json:"IssuerOrganization"`
	SelfSigned              bool                  `json:"SelfSigned"`
	IsExpired               bool                  `json:"IsExpired"`
	HasPrivateKey           bool                  `json:"HasPrivateKey"`
	SubjectAlternativeNames List[string]          `json:"SubjectAlternativeNames"`
	CertificateChain        List[CertificateInfo] `json:"CertificateChain"`
}

// ReplaceCertificateCommand puts another file in place of a certificate's.
type ReplaceCertificateCommand struct {
	// CertificateData is the file in base64.
	CertificateData PlainSecret `json:"CertificateData"`
	Password        PlainSecret `json:"Password"`
}

// CertificateUsages is what uses a certificate.
type CertificateUsages = AccountUsages

// CertificateInfo is what a certificate says about itself.
type CertificateInfo struct {
	SubjectDistinguishedName string `json:"SubjectDistinguishedName"`
	IssuerDistinguishedName  string `json:"IssuerDistinguishedName"`
	// Thumbprint is the SHA-1 in hexadecimal.
	Thumbprint             string `json:"Thumbprint"`
	NotBefore              Time   `json:"NotBefore"`
	NotAfter               Time   `json:"NotAfter"`
	Version                int    `json:"Version"`
	SerialNumber           string `json:"SerialNumber"`
	SignatureAlgorithmName string `json:"SignatureAlgorithmName"`
}

// GitCredential is a credential for Git repositories, kept in the space's library.
type GitCredential struct {
	Resource
	SpaceID     string               `json:"SpaceId"`
	Name        string               `json:"Name"`
	Slug        string               `json:"Slug"`
	Description string               `json:"Description"`
	Details     GitProjectCredential `json:"Details"`
	// RepositoryRestrictions limits the repositories it may be used for.
	RepositoryRestrictions RepositoryRestrictions `json:"RepositoryRestrictions"`
}

// RepositoryRestrictions limits the repositories that a credential is used for.
type RepositoryRestrictions struct {
	Enabled             bool         `json:"Enabled"`
	AllowedRepositories List[string] `json:"AllowedRepositories"`
}
