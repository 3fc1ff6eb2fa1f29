package permission

import (
	"slices"
	"strings"

	"github.com/takodeploy/tako/octopus"
)

// Ids of built-in roles that code refers to.
const (
	RoleSystemAdministrator = "userroles-systemadministrator"
	RoleSystemManager       = "userroles-systemmanager"
	RoleSpaceManager        = "userroles-spacemanager"
)

// builtinRole begins the id of every built-in role; others are "UserRoles-7".
const builtinRole = "userroles-"

// IsBuiltinRole reports whether the id is that of a built-in role, of this
// server's version or another.
func IsBuiltinRole(id string) bool { return strings.HasPrefix(id, builtinRole) }

// spaceManagers begins the id of the team that manages a space.
const spaceManagers = "teams-spacemanagers-"

// SpaceManagersTeam is the id of the team that manages a space.
func SpaceManagersTeam(space string) string { return spaceManagers + space }

// IsSpaceManagersTeam reports whether the id is that of a space's managers.
func IsSpaceManagersTeam(id string) bool { return strings.HasPrefix(id, spaceManagers) }

// IsBuiltinTeam reports whether the id is that of a team which comes with the
// server or with a space.
func IsBuiltinTeam(id string) bool {
	switch id {
	case octopus.TeamEveryone, octopus.TeamAdministrators, octopus.TeamManagers:
		return true
	default:
		return IsSpaceManagersTeam(id)
	}
}

// RoleOf is the role without which a built-in team would lose its sense, ""
// when it has none.
func RoleOf(team string) string {
	switch {
	case team == octopus.TeamAdministrators:
		return RoleSystemAdministrator
	case team == octopus.TeamManagers:
		return RoleSystemManager
	case IsSpaceManagersTeam(team):
		return RoleSpaceManager
	default:
		return ""
	}
}

// Role is a built-in role.
type Role struct {
	ID, Name, Description string
	Space, System         []octopus.Permission
}

// Roles lists the built-in roles by name.
func Roles() []Role {
	return []Role{
		{
			ID: "userroles-buildserver", Name: "Build Server",
			Description: "Publishes packages and build information, creates releases and runbook snapshots, and starts deployments and runbook runs.",
			Space: names(`BuildInformationAdminister BuildInformationPush BuiltInFeedAdminister BuiltInFeedDownload ` +
				`BuiltInFeedPush DeploymentCreate DeploymentView EnvironmentView FeedView InsightsReportView ` +
				`LibraryVariableSetView LifecycleView ProcessView ProjectView ReleaseCreate ReleaseView ` +
				`RunbookRunCreate RunbookRunView RunbookSnapshotCreate RunbookView TargetTagView TaskPrioritize ` +
				`TaskView TenantView`),
		},
		{
			ID: "userroles-certificatemanager", Name: "Certificate Manager",
			Description: "Changes certificates and exports their private keys.",
			Space: names(`CertificateCreate CertificateDelete CertificateEdit CertificateExportPrivateKey CertificateView ` +
				`EnvironmentView TenantView`),
		},
		{
			ID: "userroles-deploymentcreator", Name: "Deployment Creator",
			Description: "Starts deployments and runbook runs.",
			Space: names(`DeploymentCreate DeploymentView EnvironmentView InsightsReportView LibraryVariableSetView ` +
				`LifecycleView ProcessView ProjectView ReleaseView RunbookRunCreate RunbookRunView RunbookView ` +
				`TargetTagView TaskView TenantView`),
		},
		{
			ID: "userroles-environmentmanager", Name: "Environment Manager",
			Description: "Sees and changes environments and what is in them.",
			Space: names(`AccountCreate AccountDelete AccountEdit AccountView ApprovalRuleAdminister CertificateView ` +
				`EnvironmentCreate EnvironmentDelete EnvironmentEdit EnvironmentView MachineCreate MachineDelete ` +
				`MachineEdit MachinePolicyCreate MachinePolicyDelete MachinePolicyEdit MachinePolicyView MachineView ` +
				`ProxyCreate ProxyDelete ProxyEdit ProxyView TargetTagAdminister TargetTagView TaskCancel TaskCreate ` +
				`TaskView TeamView WorkerEdit WorkerView`),
			System: names(`TeamView`),
		},
		{
			ID: "userroles-environmentviewer", Name: "Environment Viewer",
			Description: "Sees environments and what is in them.",
			Space: names(`AccountView CertificateView EnvironmentView MachinePolicyView MachineView ProxyView TargetTagView ` +
				`TaskView TeamView WorkerView`),
			System: names(`TeamView`),
		},
		{
			ID: "userroles-featuretoggleeditor", Name: "Feature Toggle Editor",
			Description: "Changes feature toggles.",
			Space:       names(`EnvironmentView FeatureToggleEdit ProcessView ProjectGroupView ProjectView TenantView`),
		},
		{
			ID: "userroles-insightsreportmanager", Name: "Insights Report Manager",
			Description: "Creates and changes reports of delivery figures.",
			Space: names(`EnvironmentView InsightsReportCreate InsightsReportDelete InsightsReportEdit InsightsReportView ` +
				`ProcessView ProjectGroupView ProjectView TargetTagView TenantView`),
		},
		{
			ID: "userroles-packagepublisher", Name: "Package Publisher",
			Description: "Publishes packages to the built-in repository.",
			Space: names(`BuildInformationAdminister BuildInformationPush BuiltInFeedAdminister BuiltInFeedDownload ` +
				`BuiltInFeedPush FeedView`),
		},
		{
			ID: "userroles-projectcontributor", Name: "Project Contributor",
			Description: "All that a project viewer may, and changes processes, runbooks and variables; neither creates nor deploys releases.",
			Space: names(`AccountView ActionTemplateCreate ActionTemplateDelete ActionTemplateEdit ActionTemplateView ` +
				`ArtifactCreate ArtifactView CertificateView DefectReport DefectResolve DeployedResourceAdminister ` +
				`DeploymentView EnvironmentView EventView FeatureToggleEdit FeedView GitCredentialView ` +
				`InsightsReportEdit InsightsReportView InterruptionView InterruptionViewSubmitResponsible ` +
				`LibraryVariableSetCreate LibraryVariableSetDelete LibraryVariableSetEdit LibraryVariableSetView ` +
				`LifecycleView MachinePolicyView MachineView ProcessEdit ProcessView ProjectEdit ProjectGroupView ` +
				`ProjectView ReleaseView RunbookEdit RunbookRunView RunbookSnapshotCreate RunbookView ` +
				`TargetTagAdminister TargetTagView TaskCreate TaskView TeamView TenantView TriggerCreate ` +
				`TriggerDelete TriggerEdit TriggerView VariableEdit VariableView`),
			System: names(`SshKnownHostsView TeamView UserRoleView UserView`),
		},
		{
			ID: "userroles-projectdeployer", Name: "Project Deployer",
			Description: "All that a project contributor may, and deploys releases; does not create them.",
			Space: names(`AccountView ActionTemplateCreate ActionTemplateDelete ActionTemplateEdit ActionTemplateView ` +
				`ArtifactCreate ArtifactView CertificateView DefectReport DefectResolve DeployedResourceAdminister ` +
				`DeploymentCreate DeploymentView EnvironmentView EventView FeatureToggleEdit FeedView ` +
				`GitCredentialView InsightsReportEdit InsightsReportView InterruptionSubmit InterruptionView ` +
				`InterruptionViewSubmitResponsible LibraryVariableSetCreate LibraryVariableSetDelete ` +
				`LibraryVariableSetEdit LibraryVariableSetView LifecycleView MachinePolicyView MachineView ` +
				`ProcessEdit ProcessView ProjectEdit ProjectGroupView ProjectView ReleaseView RunbookEdit ` +
				`RunbookRunCreate RunbookRunView RunbookSnapshotCreate RunbookView TargetTagAdminister TargetTagView ` +
				`TaskCancel TaskCreate TaskView TeamView TenantView TriggerCreate TriggerDelete TriggerEdit ` +
				`TriggerView VariableEdit VariableView`),
			System: names(`SshKnownHostsView TeamView UserRoleView UserView`),
		},
		{
			ID: "userroles-projectinitiator", Name: "Project Initiator",
			Description: "All that a project viewer may, and creates projects.",
			Space: names(`AccountView ActionTemplateView ArtifactView CertificateView DefectReport DefectResolve ` +
				`DeploymentView EnvironmentView EventView FeedView GitCredentialView InsightsReportCreate ` +
				`InsightsReportDelete InsightsReportEdit InsightsReportView InterruptionView LibraryVariableSetView ` +
				`LifecycleView MachinePolicyView ProcessView ProjectCreate ProjectDelete ProjectEdit ProjectGroupView ` +
				`ProjectView ReleaseView RunbookRunView RunbookView TargetTagView TaskView TeamView TenantView ` +
				`TriggerView`),
			System: names(`SshKnownHostsView TeamView UserRoleView UserView`),
		},
		{
			ID: "userroles-projectlead", Name: "Project Lead",
			Description: "All that a project contributor may, and creates releases; does not deploy them.",
			Space: names(`AccountView ActionTemplateCreate ActionTemplateDelete ActionTemplateEdit ActionTemplateView ` +
				`ArtifactCreate ArtifactDelete ArtifactEdit ArtifactView CertificateView DefectReport DefectResolve ` +
				`DeployedResourceAdminister DeploymentView EnvironmentView EventView FeatureToggleEdit FeedView ` +
				`GitCredentialView InsightsReportEdit InsightsReportView InterruptionView ` +
				`InterruptionViewSubmitResponsible LibraryVariableSetCreate LibraryVariableSetDelete ` +
				`LibraryVariableSetEdit LibraryVariableSetView LifecycleView MachinePolicyView MachineView ` +
				`ProcessEdit ProcessView ProjectEdit ProjectGroupView ProjectView ReleaseCreate ReleaseDelete ` +
				`ReleaseEdit ReleaseView RunbookEdit RunbookRunView RunbookSnapshotCreate RunbookView ` +
				`TargetTagAdminister TargetTagView TaskCreate TaskView TeamView TenantView TriggerCreate ` +
				`TriggerDelete TriggerEdit TriggerView VariableEdit VariableView`),
			System: names(`SshKnownHostsView TeamView UserRoleView UserView`),
		},
		{
			ID: "userroles-projectviewer", Name: "Project Viewer",
			Description: "Sees projects with their releases and deployments. Scope it by project, or by environment to limit which deployments are seen.",
			Space: names(`AccountView ActionTemplateView ArtifactView CertificateView DeploymentView EnvironmentView EventView ` +
				`FeedView InsightsReportView InterruptionView LibraryVariableSetView LifecycleView MachinePolicyView ` +
				`ProcessView ProjectGroupView ProjectView ReleaseView RunbookRunView RunbookView TargetTagView ` +
				`TaskView TeamView TenantView TriggerView`),
			System: names(`TeamView UserRoleView UserView`),
		},
		{
			ID: "userroles-readonly", Name: "Read Only",
			Description: "Sees everything in a space and on the server, and changes nothing.",
			Space: names(`AccountView ActionTemplateView ArtifactView CertificateView DeploymentView EnvironmentView EventView ` +
				`FeedView GitCredentialView InsightsReportView InterruptionView LibraryVariableSetView LifecycleView ` +
				`MachinePolicyView MachineView ProcessView ProjectGroupView ProjectView ProxyView ReleaseView ` +
				`RunbookRunView RunbookView SubscriptionView TargetTagView TaskView TeamView TenantView TriggerView ` +
				`VariableView VariableViewUnscoped WorkerView`),
			System: names(`EventRetentionView EventView PlatformHubView SpaceView SshKnownHostsView TaskView TeamView ` +
				`TelemetryView UserRoleView UserView`),
		},
		{
			ID: "userroles-releasecreator", Name: "Release Creator",
			Description: "Creates releases and runbook snapshots.",
			Space: names(`EnvironmentView FeedView InsightsReportView ProcessView ProjectView ReleaseCreate ReleaseView ` +
				`RunbookEdit RunbookSnapshotCreate RunbookView TargetTagView`),
		},
		{
			ID: "userroles-runbookconsumer", Name: "Runbook Consumer",
			Description: "Sees and runs runbooks.",
			Space: names(`ActionTemplateView ArtifactView CertificateView EnvironmentView EventView FeedView InterruptionView ` +
				`LibraryVariableSetView MachinePolicyView MachineView ProjectGroupView ProjectView RunbookRunCreate ` +
				`RunbookRunView RunbookView TargetTagView TaskView TeamView TenantView TriggerView VariableView`),
		},
		{
			ID: "userroles-runbookproducer", Name: "Runbook Producer",
			Description: "Changes and runs runbooks.",
			Space: names(`ActionTemplateCreate ActionTemplateDelete ActionTemplateEdit ActionTemplateView ArtifactCreate ` +
				`ArtifactDelete ArtifactEdit ArtifactView CertificateView EnvironmentView EventView FeedView ` +
				`InterruptionSubmit InterruptionView InterruptionViewSubmitResponsible LibraryVariableSetCreate ` +
				`LibraryVariableSetDelete LibraryVariableSetEdit LibraryVariableSetView LifecycleView ` +
				`MachinePolicyView MachineView ProjectCreate ProjectDelete ProjectEdit ProjectGroupView ProjectView ` +
				`RunbookEdit RunbookRunCreate RunbookRunDelete RunbookRunView RunbookSnapshotCreate RunbookView ` +
				`TargetTagView TaskCancel TaskCreate TaskView TeamView TenantView TriggerCreate TriggerDelete ` +
				`TriggerEdit TriggerView VariableEdit VariableView`),
		},
		{
			ID: "userroles-spacemanager", Name: "Space Manager",
			Description: "Does everything within a space.",
			Space:       everywhere(inSpace),
			System:      names(`DeploymentFreezeAdminister SshKnownHostsAdminister SshKnownHostsView TeamView UserRoleView UserView`),
		},
		{
			ID: "userroles-spaceviewer", Name: "Space Viewer",
			Description: "Sees everything in a space, and changes nothing.",
			Space: names(`AccountView ActionTemplateView ArtifactView CertificateView DeploymentView EnvironmentView EventView ` +
				`FeedView GitCredentialView InsightsReportView InterruptionView LibraryVariableSetView LifecycleView ` +
				`MachinePolicyView MachineView ProcessView ProjectGroupView ProjectView ProxyView ReleaseView ` +
				`RunbookRunView RunbookView SubscriptionView TargetTagView TaskView TeamView TenantView TriggerView ` +
				`VariableView VariableViewUnscoped WorkerView`),
			System: names(`SshKnownHostsView TeamView UserRoleView UserView`),
		},
		{
			ID: "userroles-systemadministrator", Name: "System Administrator",
			Description: "Does everything outside of spaces.",
			System:      everywhere(inSystem),
		},
		{
			ID: "userroles-systemmanager", Name: "System Manager",
			Description: "Does everything outside of spaces but what is kept for system administrators.",
			System:      without(everywhere(inSystem), octopus.PermAdministerSystem),
		},
		{
			ID: "userroles-tenantmanager", Name: "Tenant Manager",
			Description: "Changes tenants and their tags.",
			Space:       names(`TenantCreate TenantDelete TenantEdit TenantView`),
		},
	}
}

func names(list string) []octopus.Permission {
	var all []octopus.Permission
	for _, name := range strings.Fields(list) {
		all = append(all, octopus.Permission(name))
	}
	return all
}

// everywhere lists all permissions of a level, by name.
func everywhere(at level) []octopus.Permission {
	var all []octopus.Permission
	for _, e := range entries() {
		if e.level&at != 0 && e.name != octopus.PermTaskViewLog {
			all = append(all, e.name)
		}
	}
	slices.Sort(all)
	return all
}

func without(all []octopus.Permission, name octopus.Permission) []octopus.Permission {
	return slices.DeleteFunc(all, func(p octopus.Permission) bool { return p == name })
}
