package octopus

// CommunicationStyle is how a machine is reached; it tells what the rest of an
// endpoint means.
type CommunicationStyle string

// How a machine is reached.
const (
	// StyleNone is a cloud region: it is not reached at all, steps run on
	// workers on its behalf.
	StyleNone CommunicationStyle = "None"
	// StyleListening is a Tentacle that the server connects to.
	StyleListening CommunicationStyle = "TentaclePassive"
	// StylePolling is a Tentacle that connects to the server.
	StylePolling CommunicationStyle = "TentacleActive"
	StyleSSH     CommunicationStyle = "Ssh"
	// StyleOfflineDrop is a folder to which deployments are written.
	StyleOfflineDrop     CommunicationStyle = "OfflineDrop"
	StyleKubernetes      CommunicationStyle = "Kubernetes"
	StyleKubernetesAgent CommunicationStyle = "KubernetesTentacle"
	StyleAzureWebApp     CommunicationStyle = "AzureWebApp"
	StyleServiceFabric   CommunicationStyle = "AzureServiceFabricCluster"
	StyleCloudService    CommunicationStyle = "AzureCloudService"
	StyleECS             CommunicationStyle = "AwsEcsCluster"
	StyleStepPackage     CommunicationStyle = "StepPackage"
)

// HealthStatus is how a machine fared at its last health check.
type HealthStatus string

// How a machine fared.
const (
	Healthy         HealthStatus = "Healthy"
	HealthyWarnings HealthStatus = "HasWarnings"
	Unhealthy       HealthStatus = "Unhealthy"
	// Unavailable is a machine that could not be reached.
	Unavailable HealthStatus = "Unavailable"
	// HealthUnknown is a machine that was never checked.
	HealthUnknown HealthStatus = "Unknown"
)

// MachineStatus is the older form of [HealthStatus].
type MachineStatus string

// Older forms of health.
const (
	MachineOnline        MachineStatus = "Online"
	MachineOffline       MachineStatus = "Offline"
	MachineUnknown       MachineStatus = "Unknown"
	MachineNeedsUpgrade  MachineStatus = "NeedsUpgrade"
	MachineCalamariStale MachineStatus = "CalamariNeedsUpgrade"
	MachineDisabled      MachineStatus = "Disabled"
)

// MachineBase is the part that targets and workers have in common.
type MachineBase struct {
	Name       string `json:"Name"`
	Slug       string `json:"Slug"`
	IsDisabled bool   `json:"IsDisabled"`
	// MachinePolicyID is the default policy's where a client leaves it out.
	MachinePolicyID string   `json:"MachinePolicyId"`
	Endpoint        Endpoint `json:"Endpoint"`
	// Thumbprint, URI and Status repeat the endpoint and the health for older
	// clients.
	Thumbprint        NullString    `json:"Thumbprint"`
	URI               NullString    `json:"Uri"`
	Status            MachineStatus `json:"Status"`
	HealthStatus      HealthStatus  `json:"HealthStatus"`
	StatusSummary     string        `json:"StatusSummary"`
	HasLatestCalamari bool          `json:"HasLatestCalamari"`
	// IsInProcess tells that the machine is the server itself.
	IsInProcess     bool   `json:"IsInProcess"`
	OperatingSystem string `json:"OperatingSystem"`
	ShellName       string `json:"ShellName"`
	ShellVersion    string `json:"ShellVersion"`
	Architecture    string `json:"Architecture"`
	// SkipInitialHealthCheck is written at creation only.
	SkipInitialHealthCheck bool `json:"SkipInitialHealthCheck"`
}

// Machine is a deployment target.
type Machine struct {
	Resource
	SpaceID string `json:"SpaceId"`
	MachineBase
	EnvironmentIDs List[string] `json:"EnvironmentIds"`
	// Roles are the target's tags, by which steps choose it.
	Roles                           List[string]           `json:"Roles"`
	TenantedDeploymentParticipation TenantedDeploymentMode `json:"TenantedDeploymentParticipation"`
	TenantIDs                       List[string]           `json:"TenantIds"`
	// TenantTags are canonical tag names, "Set/Tag".
	TenantTags List[string] `json:"TenantTags"`
}

// Worker is a machine that runs steps which need no target.
type Worker struct {
	Resource
	SpaceID string `json:"SpaceId"`
	MachineBase
	WorkerPoolIDs List[string] `json:"WorkerPoolIds"`
}

// Endpoint is how a machine is reached. Which members have a meaning depends on
// the style; those of kinds that are not declared here are in Extra.
type Endpoint struct {
	CommunicationStyle CommunicationStyle `json:"CommunicationStyle"`

	// URI is "https://host:10933/" of a listening Tentacle, "poll://id/" of a
	// polling one.
	URI string `json:"Uri,omitempty"`
	// Thumbprint is the SHA-1 of a Tentacle's certificate, in hexadecimal.
	Thumbprint                    string           `json:"Thumbprint,omitempty"`
	ProxyID                       string           `json:"ProxyId,omitempty"`
	TentacleVersionDetails        *TentacleDetails `json:"TentacleVersionDetails,omitempty"`
	CertificateSignatureAlgorithm string           `json:"CertificateSignatureAlgorithm,omitempty"`

	// AccountID is the account that an SSH connection, or a cloud kind, uses.
	AccountID string `json:"AccountId,omitempty"`
	Host      string `json:"Host,omitempty"`
	Port      int    `json:"Port,omitempty"`
	// Fingerprint is that of the SSH host's key.
	Fingerprint      string `json:"Fingerprint,omitempty"`
	HostKeyAlgorithm string `json:"HostKeyAlgorithm,omitempty"`
	// DotNetCorePlatform is "linux-x64", "osx-x64"...
	DotNetCorePlatform string `json:"DotNetCorePlatform,omitempty"`

	// DefaultWorkerPoolID is the pool for steps that run on a target's behalf.
	DefaultWorkerPoolID string `json:"DefaultWorkerPoolId,omitempty"`

	// The following are an offline drop's.
	Destination                          *DropDestination `json:"Destination,omitempty"`
	SensitiveVariablesEncryptionPassword *Sensitive       `json:"SensitiveVariablesEncryptionPassword,omitempty"`
	ApplicationsDirectory                string           `json:"ApplicationsDirectory,omitempty"`
	WorkingDirectory                     string           `json:"OctopusWorkingDirectory,omitempty"`

	// The following are a Kubernetes agent's.
	TentacleEndpointConfiguration *AgentConnection   `json:"TentacleEndpointConfiguration,omitempty"`
	KubernetesAgentDetails        *KubernetesDetails `json:"KubernetesAgentDetails,omitempty"`

	Extra Extra `json:"-"`
}

type plainEndpoint Endpoint

// MarshalJSON writes the members that are set, and Extra.
func (e Endpoint) MarshalJSON() ([]byte, error) { return marshalExtra(plainEndpoint(e), e.Extra) }

// UnmarshalJSON keeps the members that it does not know in Extra.
func (e *Endpoint) UnmarshalJSON(data []byte) (err error) {
	var p plainEndpoint
	if p.Extra, err = unmarshalExtra(data, &p); err == nil {
		*e = Endpoint(p)
	}
	return err
}

// TentacleDetails is the version of a Tentacle.
type TentacleDetails struct {
	// UpgradeLocked keeps the Tentacle from being upgraded.
	UpgradeLocked    bool       `json:"UpgradeLocked"`
	Version          NullString `json:"Version"`
	UpgradeSuggested bool       `json:"UpgradeSuggested"`
	UpgradeRequired  bool       `json:"UpgradeRequired"`
	UpgradeAvailable bool       `json:"UpgradeAvailable"`
}

// DropDestinationType is where an offline drop is written.
type DropDestinationType string

// Where an offline drop is written.
const (
	DropArtifact   DropDestinationType = "Artifact"
	DropFileSystem DropDestinationType = "FileSystem"
)

// DropDestination is where an offline drop is written.
type DropDestination struct {
	DestinationType DropDestinationType `json:"DestinationType"`
	DropFolderPath  NullString          `json:"DropFolderPath"`
}

// AgentConnection is how a Kubernetes agent is reached.
type AgentConnection struct {
	// CommunicationMode is "Polling" or "Listening".
	CommunicationMode string `json:"CommunicationMode"`
	URI               string `json:"Uri"`
	Thumbprint        string `json:"Thumbprint"`
}

// KubernetesDetails is the version of a Kubernetes agent and where it lives.
type KubernetesDetails struct {
	AgentVersion        string `json:"AgentVersion"`
	TentacleVersion     string `json:"TentacleVersion"`
	UpgradeStatus       string `json:"UpgradeStatus"`
	HelmReleaseName     string `json:"HelmReleaseName"`
	KubernetesNamespace string `json:"KubernetesNamespace"`
}

// MachineConnection is what became of the last attempt to reach a machine.
type MachineConnection struct {
	Resource
	MachineID              string           `json:"MachineId"`
	Logs                   List[LogElement] `json:"Logs"`
	Status                 string           `json:"Status"`
	CurrentTentacleVersion NullString       `json:"CurrentTentacleVersion"`
	LastChecked            Time             `json:"LastChecked"`
}

// Proxy is an HTTP proxy through which machines are reached.
type Proxy struct {
	Resource
	SpaceID  string `json:"SpaceId"`
	Name     string `json:"Name"`
	Host     string `json:"Host"`
	Port     int    `json:"Port"`
	Username string `json:"Username"`
	// Password is never null: a client may look into it.
	Password Sensitive `json:"Password"`
	// ProxyType is "HTTP".
	ProxyType string `json:"ProxyType"`
}

// WorkerPoolType tells pools of registered workers from pools of workers that
// are made on demand.
type WorkerPoolType string

// Types of worker pools.
const (
	PoolStatic  WorkerPoolType = "StaticWorkerPool"
	PoolDynamic WorkerPoolType = "DynamicWorkerPool"
)

// WorkerPool is a group of workers.
type WorkerPool struct {
	Resource
	SpaceID     string `json:"SpaceId"`
	Name        string `json:"Name"`
	Slug        string `json:"Slug"`
	Description string `json:"Description"`
	// IsDefault is true for the pool of steps that name none.
	IsDefault      bool           `json:"IsDefault"`
	SortOrder      int            `json:"SortOrder"`
	WorkerPoolType WorkerPoolType `json:"WorkerPoolType"`
	CanAddWorkers  bool           `json:"CanAddWorkers"`
	// WorkerType is a dynamic pool's image.
	WorkerType NullString `json:"WorkerType"`
}

// WorkerPoolsSummary counts the workers of a space's pools.
type WorkerPoolsSummary struct {
	MachineCounts
	MachineIDsForCalamariUpgrade List[string]            `json:"MachineIdsForCalamariUpgrade"`
	MachineIDsForTentacleUpgrade List[string]            `json:"MachineIdsForTentacleUpgrade"`
	TentacleUpgradesRequired     bool                    `json:"TentacleUpgradesRequired"`
	WorkerPoolSummaries          List[WorkerPoolSummary] `json:"WorkerPoolSummaries"`
	Links                        Links                   `json:"Links"`
}

// WorkerPoolSummary counts the workers of one pool.
type WorkerPoolSummary struct {
	WorkerPool WorkerPool `json:"WorkerPool"`
	MachineCounts
	MachineIDsForCalamariUpgrade List[string] `json:"MachineIdsForCalamariUpgrade"`
	MachineIDsForTentacleUpgrade List[string] `json:"MachineIdsForTentacleUpgrade"`
	TentacleUpgradesRequired     bool         `json:"TentacleUpgradesRequired"`
	Links                        Links        `json:"Links"`
}
