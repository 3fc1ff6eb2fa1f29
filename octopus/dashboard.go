package octopus

// Dashboard is what is deployed where.
type Dashboard struct {
	Resource
	Projects      List[DashboardProject] `json:"Projects"`
	ProjectGroups List[DashboardGroup]   `json:"ProjectGroups"`
	Environments  List[Named]            `json:"Environments"`
	Tenants       List[DashboardTenant]  `json:"Tenants"`
	// Items are the current deployments.
	Items         List[DashboardItem] `json:"Items"`
	PreviousItems List[DashboardItem] `json:"PreviousItems"`
	// ProjectLimit is the most projects shown, null for no limit.
	ProjectLimit *int `json:"ProjectLimit"`
	// IsFiltered tells that the limit left projects out.
	IsFiltered bool `json:"IsFiltered"`
}

// DashboardProject is a row of the dashboard.
type DashboardProject struct {
	ID                             string                 `json:"Id"`
	Name                           string                 `json:"Name"`
	Slug                           string                 `json:"Slug"`
	IsDisabled                     bool                   `json:"IsDisabled"`
	ProjectGroupID                 string                 `json:"ProjectGroupId"`
	EnvironmentIDs                 List[string]           `json:"EnvironmentIds"`
	TenantedDeploymentMode         TenantedDeploymentMode `json:"TenantedDeploymentMode"`
	CanPerformUntenantedDeployment bool                   `json:"CanPerformUntenantedDeployment"`
	Links                          Links                  `json:"Links"`
}

// DashboardGroup is a group of rows of the dashboard.
type DashboardGroup struct {
	ID             string       `json:"Id"`
	Name           string       `json:"Name"`
	EnvironmentIDs List[string] `json:"EnvironmentIds"`
	Links          Links        `json:"Links"`
}

// DashboardTenant is a tenant of the dashboard.
type DashboardTenant struct {
	ID                  string                    `json:"Id"`
	Name                string                    `json:"Name"`
	ProjectEnvironments Map[string, List[string]] `json:"ProjectEnvironments"`
	TenantTags          List[string]              `json:"TenantTags"`
	Links               Links                     `json:"Links"`
}

// DashboardItem is a deployment on the dashboard.
type DashboardItem struct {
	// ID is the deployment's.
	ID            string `json:"Id"`
	ProjectID     string `json:"ProjectId"`
	EnvironmentID string `json:"EnvironmentId"`
	// DeploymentEnvironmentID repeats EnvironmentID for some clients.
	DeploymentEnvironmentID  string                 `json:"DeploymentEnvironmentId"`
	ReleaseID                string                 `json:"ReleaseId"`
	DeploymentID             string                 `json:"DeploymentId"`
	TaskID                   string                 `json:"TaskId"`
	TenantID                 NullString             `json:"TenantId"`
	ChannelID                string                 `json:"ChannelId"`
	ReleaseVersion           string                 `json:"ReleaseVersion"`
	Created                  Time                   `json:"Created"`
	QueueTime                Time                   `json:"QueueTime"`
	StartTime                *Time                  `json:"StartTime"`
	CompletedTime            *Time                  `json:"CompletedTime"`
	State                    TaskState              `json:"State"`
	HasPendingInterruptions  bool                   `json:"HasPendingInterruptions"`
	PendingInterruptionTypes List[InterruptionType] `json:"PendingInterruptionTypes"`
	HasWarningsOrErrors      bool                   `json:"HasWarningsOrErrors"`
	ErrorMessage             string                 `json:"ErrorMessage"`
	// Duration is a text for people.
	Duration    string `json:"Duration"`
	IsCurrent   bool   `json:"IsCurrent"`
	IsPrevious  bool   `json:"IsPrevious"`
	IsCompleted bool   `json:"IsCompleted"`
	Links       Links  `json:"Links"`
}

// DashboardConfiguration is what a user wants to see on the dashboard; empty
// lists are no limit.
type DashboardConfiguration struct {
	Resource
	SpaceID                 string       `json:"SpaceId"`
	IncludedProjectGroupIDs List[string] `json:"IncludedProjectGroupIds"`
	IncludedProjectIDs      List[string] `json:"IncludedProjectIds"`
	IncludedProjectTags     List[string] `json:"IncludedProjectTags"`
	IncludedEnvironmentIDs  List[string] `json:"IncludedEnvironmentIds"`
	IncludedEnvironmentTags List[string] `json:"IncludedEnvironmentTags"`
	IncludedTenantIDs       List[string] `json:"IncludedTenantIds"`
	IncludedTenantTags      List[string] `json:"IncludedTenantTags"`
	ProjectLimit            *int         `json:"ProjectLimit"`
}

// ProjectProgression is which releases of a project are where.
type ProjectProgression struct {
	Resource
	Environments List[Named] `json:"Environments"`
	// LifecycleEnvironments are by lifecycle id, ChannelEnvironments by channel id.
	LifecycleEnvironments Map[string, List[Named]] `json:"LifecycleEnvironments"`
	ChannelEnvironments   Map[string, List[Named]] `json:"ChannelEnvironments"`
	Releases              List[ReleaseProgression] `json:"Releases"`
}

// ReleaseProgression is where a release is.
type ReleaseProgression struct {
	Release Release `json:"Release"`
	Channel Channel `json:"Channel"`
	// Deployments are by environment id, the newest first.
	Deployments             Map[string, List[DashboardItem]] `json:"Deployments"`
	NextDeployments         List[string]                     `json:"NextDeployments"`
	HasUnresolvedDefect     bool                             `json:"HasUnresolvedDefect"`
	ReleaseRetentionPeriod  *RetentionPeriod                 `json:"ReleaseRetentionPeriod"`
	TentacleRetentionPeriod *RetentionPeriod                 `json:"TentacleRetentionPeriod"`
}
