package octopus

// Permission is something that a role allows. What it covers and how it can be
// scoped is known where permissions are checked; here are the names.
type Permission string

// The names of permissions.
const (
	PermAdministerSystem Permission = "AdministerSystem"
	PermConfigureServer  Permission = "ConfigureServer"

	PermProjectView   Permission = "ProjectView"
	PermProjectEdit   Permission = "ProjectEdit"
	PermProjectCreate Permission = "ProjectCreate"
	PermProjectDelete Permission = "ProjectDelete"

	PermProcessView Permission = "ProcessView"
	PermProcessEdit Permission = "ProcessEdit"

	PermVariableView         Permission = "VariableView"
	PermVariableViewUnscoped Permission = "VariableViewUnscoped"
	PermVariableEdit         Permission = "VariableEdit"
	PermVariableEditUnscoped Permission = "VariableEditUnscoped"

	PermReleaseView   Permission = "ReleaseView"
	PermReleaseCreate Permission = "ReleaseCreate"
	PermReleaseEdit   Permission = "ReleaseEdit"
	PermReleaseDelete Permission = "ReleaseDelete"

	PermDefectReport  Permission = "DefectReport"
	PermDefectResolve Permission = "DefectResolve"

	PermDeploymentView   Permission = "DeploymentView"
	PermDeploymentCreate Permission = "DeploymentCreate"
	PermDeploymentDelete Permission = "DeploymentDelete"

	PermEnvironmentView   Permission = "EnvironmentView"
	PermEnvironmentCreate Permission = "EnvironmentCreate"
	PermEnvironmentEdit   Permission = "EnvironmentEdit"
	PermEnvironmentDelete Permission = "EnvironmentDelete"

	PermMachineView   Permission = "MachineView"
	PermMachineCreate Permission = "MachineCreate"
	PermMachineEdit   Permission = "MachineEdit"
	PermMachineDelete Permission = "MachineDelete"

	PermArtifactView   Permission = "ArtifactView"
	PermArtifactCreate Permission = "ArtifactCreate"
	PermArtifactEdit   Permission = "ArtifactEdit"
	PermArtifactDelete Permission = "ArtifactDelete"

	PermFeedView Permission = "FeedView"
	PermFeedEdit Permission = "FeedEdit"

	PermEventView            Permission = "EventView"
	PermEventRetentionView   Permission = "EventRetentionView"
	PermEventRetentionDelete Permission = "EventRetentionDelete"

	PermLibraryVariableSetView   Permission = "LibraryVariableSetView"
	PermLibraryVariableSetCreate Permission = "LibraryVariableSetCreate"
	PermLibraryVariableSetEdit   Permission = "LibraryVariableSetEdit"
	PermLibraryVariableSetDelete Permission = "LibraryVariableSetDelete"

	PermProjectGroupView   Permission = "ProjectGroupView"
	PermProjectGroupCreate Permission = "ProjectGroupCreate"
	PermProjectGroupEdit   Permission = "ProjectGroupEdit"
	PermProjectGroupDelete Permission = "ProjectGroupDelete"

	PermTeamView   Permission = "TeamView"
	PermTeamCreate Permission = "TeamCreate"
	PermTeamEdit   Permission = "TeamEdit"
	PermTeamDelete Permission = "TeamDelete"

	PermUserView     Permission = "UserView"
	PermUserInvite   Permission = "UserInvite"
	PermUserEdit     Permission = "UserEdit"
	PermUserRoleView Permission = "UserRoleView"
	PermUserRoleEdit Permission = "UserRoleEdit"

	PermTaskView       Permission = "TaskView"
	PermTaskViewLog    Permission = "TaskViewLog"
	PermTaskCreate     Permission = "TaskCreate"
	PermTaskCancel     Permission = "TaskCancel"
	PermTaskEdit       Permission = "TaskEdit"
	PermTaskPrioritize Permission = "TaskPrioritize"

	PermInterruptionView                  Permission = "InterruptionView"
	PermInterruptionSubmit                Permission = "InterruptionSubmit"
	PermInterruptionViewSubmitResponsible Permission = "InterruptionViewSubmitResponsible"

	PermBuiltInFeedPush       Permission = "BuiltInFeedPush"
	PermBuiltInFeedAdminister Permission = "BuiltInFeedAdminister"
	PermBuiltInFeedDownload   Permission = "BuiltInFeedDownload"

	PermActionTemplateView   Permission = "ActionTemplateView"
	PermActionTemplateCreate Permission = "ActionTemplateCreate"
	PermActionTemplateEdit   Permission = "ActionTemplateEdit"
	PermActionTemplateDelete Permission = "ActionTemplateDelete"

	PermLifecycleView   Permission = "LifecycleView"
	PermLifecycleCreate Permission = "LifecycleCreate"
	PermLifecycleEdit   Permission = "LifecycleEdit"
	PermLifecycleDelete Permission = "LifecycleDelete"

	PermAccountView   Permission = "AccountView"
	PermAccountCreate Permission = "AccountCreate"
	PermAccountEdit   Permission = "AccountEdit"
	PermAccountDelete Permission = "AccountDelete"

	PermTenantView   Permission = "TenantView"
	PermTenantCreate Permission = "TenantCreate"
	PermTenantEdit   Permission = "TenantEdit"
	PermTenantDelete Permission = "TenantDelete"

	PermTagSetCreate Permission = "TagSetCreate"
	PermTagSetEdit   Permission = "TagSetEdit"
	PermTagSetDelete Permission = "TagSetDelete"

	PermTargetTagView       Permission = "TargetTagView"
	PermTargetTagAdminister Permission = "TargetTagAdminister"

	PermMachinePolicyView   Permission = "MachinePolicyView"
	PermMachinePolicyCreate Permission = "MachinePolicyCreate"
	PermMachinePolicyEdit   Permission = "MachinePolicyEdit"
	PermMachinePolicyDelete Permission = "MachinePolicyDelete"

	PermProxyView   Permission = "ProxyView"
	PermProxyCreate Permission = "ProxyCreate"
	PermProxyEdit   Permission = "ProxyEdit"
	PermProxyDelete Permission = "ProxyDelete"

	PermSubscriptionView   Permission = "SubscriptionView"
	PermSubscriptionCreate Permission = "SubscriptionCreate"
	PermSubscriptionEdit   Permission = "SubscriptionEdit"
	PermSubscriptionDelete Permission = "SubscriptionDelete"

	PermTriggerView   Permission = "TriggerView"
	PermTriggerCreate Permission = "TriggerCreate"
	PermTriggerEdit   Permission = "TriggerEdit"
	PermTriggerDelete Permission = "TriggerDelete"

	PermCertificateView             Permission = "CertificateView"
	PermCertificateCreate           Permission = "CertificateCreate"
	PermCertificateEdit             Permission = "CertificateEdit"
	PermCertificateDelete           Permission = "CertificateDelete"
	PermCertificateExportPrivateKey Permission = "CertificateExportPrivateKey"

	PermWorkerView Permission = "WorkerView"
	PermWorkerEdit Permission = "WorkerEdit"

	PermSpaceView   Permission = "SpaceView"
	PermSpaceCreate Permission = "SpaceCreate"
	PermSpaceEdit   Permission = "SpaceEdit"
	PermSpaceDelete Permission = "SpaceDelete"

	PermBuildInformationPush       Permission = "BuildInformationPush"
	PermBuildInformationAdminister Permission = "BuildInformationAdminister"

	PermRunbookView      Permission = "RunbookView"
	PermRunbookEdit      Permission = "RunbookEdit"
	PermRunbookRunView   Permission = "RunbookRunView"
	PermRunbookRunCreate Permission = "RunbookRunCreate"
	PermRunbookRunDelete Permission = "RunbookRunDelete"

	PermGitCredentialView Permission = "GitCredentialView"
	PermGitCredentialEdit Permission = "GitCredentialEdit"

	PermInsightsReportView   Permission = "InsightsReportView"
	PermInsightsReportCreate Permission = "InsightsReportCreate"
	PermInsightsReportEdit   Permission = "InsightsReportEdit"
	PermInsightsReportDelete Permission = "InsightsReportDelete"

	PermDeploymentFreezeAdminister Permission = "DeploymentFreezeAdminister"
	PermRetentionAdminister        Permission = "RetentionAdminister"

	PermPlatformHubView Permission = "PlatformHubView"
	PermPlatformHubEdit Permission = "PlatformHubEdit"

	PermTelemetryView Permission = "TelemetryView"
)
