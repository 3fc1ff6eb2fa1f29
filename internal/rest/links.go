package rest

// link is a template in the root documents. Clients take their paths from them,
// so a name that is missing, or a template without {/id}, breaks a client that
// uses it; names of what is not served yet are therefore listed too.
type link struct {
	name string
	path string // after /api, or after /api/{space} for links in a space
}

// paged is what most collections can be asked.
const paged = "{/id}{?skip,take,ids,partialName}"

// spaceLinks point into a space: into the default one in the root document.
func spaceLinks() []link {
	return []link{
		{"Accounts", "/accounts{/id}{?skip,take,ids,partialName,accountType}"},
		{"ActionTemplates", "/actiontemplates" + paged},
		{"ActionTemplateLogo", "/actiontemplates{/typeOrId}/logo{?cb}"},
		{"ActionTemplatesCategories", "/actiontemplates/categories"},
		{"ActionTemplatesSearch", "/actiontemplates/search"},
		{"ActionTemplateVersionedLogo", "/actiontemplates{/typeOrId}/versions{/version}/logo{?cb}"},
		{"ApprovalPolicies", "/approvalpolicies{/id}{?skip,take,partialName}"},
		{"Artifacts", "/artifacts{/id}{?skip,take,regarding,ids,partialName,order}"},
		{"BuildInformation", "/build-information{/id}{?packageId,filter,latest,skip,take,overwriteMode}"},
		{"BuildInformationBulk", "/build-information/bulk{?ids}"},
		{"BuiltInFeedStats", "/feeds/stats"},
		{"Certificates", "/certificates{/id}{?skip,take,search,archived,tenant,firstResult,orderBy,ids,partialName}"},
		{"Channels", "/channels" + paged},
		{"CloudTemplate", "/cloudtemplate{/id}/metadata{?packageId,feedId}"},
		{"Dashboard", "/dashboard{?projectId,releaseId,selectedTenants,selectedTags,showAll,highestLatestVersionPerProjectAndEnvironment}"},
		{"DashboardConfiguration", "/dashboardconfiguration"},
		{"DashboardDynamic", "/dashboard/dynamic{?projects,environments,includePrevious}"},
		{"DeploymentProcesses", "/deploymentprocesses{/id}{?skip,take,ids}"},
		{"DeploymentProcessHistory", "/deploymentprocesses{/id}/history{?skip,take}"},
		{"Deployments", "/deployments{/id}{?skip,take,ids,projects,environments,tenants,channels,taskState,partialName}"},
		{"DiscoverMachine", "/machines/discover{?host,port,type,proxyId}"},
		{"DiscoverWorker", "/workers/discover{?host,port,type,proxyId}"},
		{"Environments", "/environments{/id}{?name,skip,ids,take,partialName}"},
		{"EnvironmentsSummary", "/environments/summary{?ids,partialName,machinePartialName,roles,isDisabled,healthStatuses,commStyles,tenantIds,tenantTags,hideEmptyEnvironments,shellNames}"},
		{"EnvironmentSortOrder", "/environments/sortorder"},
		{"ExportProjects", "/projects/import-export/export"},
		{"Feeds", "/feeds{/id}{?skip,take,ids,partialName,feedType,name}"},
		{"GitCredentials", "/git-credentials{/id}{?skip,take,name}"},
		{"ImportProjects", "/projects/import-export/import"},
		{"Interruptions", "/interruptions{/id}{?skip,take,regarding,pendingOnly,ids}"},
		{"LibraryVariables", "/libraryvariablesets{/id}{?skip,contentType,take,ids,partialName}"},
		{"Lifecycles", "/lifecycles" + paged},
		{"MachineOperatingSystems", "/machines/operatingsystem/names/all"},
		{"MachinePolicies", "/machinepolicies{/id}{?skip,take,ids,name,partialName}"},
		{"MachinePolicyTemplate", "/machinepolicies/template"},
		{"MachineRoles", "/machineroles/all"},
		{"Machines", "/machines{/id}{?skip,take,name,ids,partialName,roles,isDisabled,healthStatuses,commStyles,tenantIds,tenantTags,environmentIds,thumbprint,deploymentId,shellNames}"},
		{"MachineShells", "/machines/operatingsystem/shells/all"},
		{"PackageDeltaSignature", "/packages{/packageId,version}/delta-signature"},
		{"PackageDeltaUpload", "/packages{/packageId,baseVersion}/delta{?replace,overwriteMode}"},
		{"PackageMetadata", "/package-metadata{/id}{?filter,latest,skip,take,replace,overwriteMode}"},
		{"PackageNotesList", "/packages/notes{?packageIds}"},
		{"Packages", "/packages{/id}{?nuGetPackageId,filter,latest,skip,take,includeNotes}"},
		{"PackagesBulk", "/packages/bulk{?ids}"},
		{"PackageUpload", "/packages/raw{?replace,overwriteMode}"},
		{"ParentEnvironments", "/parentEnvironments{/id}{?skip,take,partialName}"},
		{"ProjectGroups", "/projectgroups" + paged},
		{"ProjectPulse", "/projects/pulse{?projectIds}"},
		{"Projects", "/projects{/id}{?name,skip,ids,clone,take,partialName,clonedFromProjectId}"},
		{"ProjectsExperimentalSummaries", "/projects/experimental/summaries{?ids}"},
		{"ProjectTriggers", "/projecttriggers{/id}{?skip,take,ids,runbooks}"},
		{"Proxies", "/proxies{/id}{?skip,take,ids,name,partialName}"},
		{"Releases", "/releases{/id}{?skip,ignoreChannelRules,take,ids}"},
		{"ReportingDeploymentsCountedByWeek", "/reporting/deployments-counted-by-week{?projectIds}"},
		{"RetentionPolicies", "/retentionpolicies{/id}{?RetentionType}"},
		{"RunbookProcesses", "/runbookProcesses{/id}{?skip,take,ids}"},
		{"RunbookRuns", "/runbookRuns{/id}{?skip,take,ids,projects,environments,tenants,runbooks,taskState,partialName}"},
		{"Runbooks", "/runbooks{/id}{?skip,take,ids,partialName,clone,projectIds}"},
		{"RunbookSnapshots", "/runbookSnapshots{/id}{?skip,take,ids,publish}"},
		{"ScheduledProjectTriggers", "/scheduledprojecttriggers{/id}{?skip,take,ids}"},
		{"Subscriptions", "/subscriptions" + paged},
		{"TagSets", "/tagsets{/id}{?skip,take,ids,partialName,scopes}"},
		{"TagSetSortOrder", "/tagsets/sortorder"},
		{"Tenants", "/tenants{/id}{?skip,projectId,name,tags,take,ids,clone,partialName,clonedFromTenantId,isDisabled}"},
		{"TenantsMissingVariables", "/tenants/variables-missing{?tenantId,projectId,environmentId,includeDetails}"},
		{"TenantsStatus", "/tenants/status"},
		{"TenantTagTest", "/tenants/tag-test{?tenantIds,tags}"},
		{"TenantVariables", "/tenantvariables/all{?projectId}"},
		{"UserOnboarding", "/useronboarding"},
		{"VariableNames", "/variables/names{?project,runbook,projectEnvironmentsFilter}"},
		{"VariablePreview", "/variables/preview{?project,runbook,environment,channel,tenant,action,machine,role}"},
		{"Variables", "/variables{/id}{?ids}"},
		{"VersionRuleTest", "/channels/rule-test{?version,versionRange,preReleaseTag,feedType}"},
		{"WorkerOperatingSystems", "/workers/operatingsystem/names/all"},
		{"WorkerPools", "/workerpools{/id}{?name,skip,ids,take,partialName}"},
		{"WorkerPoolsDynamicWorkerTypes", "/workerpools/dynamicworkertypes"},
		{"WorkerPoolsSortOrder", "/workerpools/sortorder"},
		{"WorkerPoolsSummary", "/workerpools/summary{?ids,partialName,machinePartialName,isDisabled,healthStatuses,commStyles,hideEmptyWorkerPools,shellNames}"},
		{"WorkerPoolsSupportedTypes", "/workerpools/supportedtypes"},
		{"Workers", "/workers{/id}{?skip,take,name,ids,partialName,isDisabled,healthStatuses,commStyles,workerPoolIds,thumbprint,shellNames}"},
		{"WorkerShells", "/workers/operatingsystem/shells/all"},
	}
}

// systemLinks are the same in every root document.
func systemLinks() []link {
	return []link{
		{"Authentication", "/authentication"},
		{"Authentication_CheckLoginInitiated", "/authentication/checklogininitiated"},
		{"AzureDevOpsConnectivityCheck", "/azuredevopsissuetracker/connectivitycheck"},
		{"AzureEnvironments", "/accounts/azureenvironments"},
		{"Capabilities", "/capabilities"},
		{"CertificateConfiguration", "/configuration/certificates{/id}{?skip,take,ids,partialName}"},
		{"CommunityActionTemplates", "/communityactiontemplates{/id}{?skip,take,ids}"},
		{"Configuration", "/configuration{/id}"},
		{"CurrentLicense", "/licenses/licenses-current"},
		{"CurrentLicenseStatus", "/licenses/licenses-current-status"},
		{"CurrentUser", "/users/me"},
		{"DeploymentFreezes", "/deploymentfreezes{/id}{?skip,take,ids,partialName,projectIds,environmentIds,tenantIds,includeComplete,status}"},
		{"DynamicExtensionsFeaturesMetadata", "/dynamic-extensions/features/metadata"},
		{"DynamicExtensionsFeaturesValues", "/dynamic-extensions/features/values"},
		{"DynamicExtensionsScripts", "/dynamic-extensions/scripts"},
		{"EventAgents", "/events/agents"},
		{"EventCategories", "/events/categories{?appliesTo}"},
		{"EventDocumentTypes", "/events/documenttypes"},
		{"EventGroups", "/events/groups{?appliesTo}"},
		{"Events", "/events{/id}{?skip,regarding,regardingAny,user,users,projects,projectGroups,environments,eventGroups,eventCategories,eventAgents,tags,tenants,from,to,internal,fromAutoId,toAutoId,documentTypes,asCsv,take,ids,spaces,includeSystem,excludeDifference}"},
		{"ExtensionStats", "/serverstatus/extensions"},
		{"ExternalSecurityGroupProviders", "/externalsecuritygroupproviders"},
		{"ExternalUserSearch", "/users/external-search{?partialName}"},
		{"FeaturesConfiguration", "/featuresconfiguration"},
		{"FeatureToggles", "/configuration/feature-toggles{?Name}"},
		{"Invitations", "/users/invitations"},
		{"IssueTrackers", "/issuetrackers{?skip,take,ids,partialName}"},
		{"JiraConnectAppCredentialsTest", "/jiraintegration/connectivitycheck/connectapp"},
		{"JiraCredentialsTest", "/jiraintegration/connectivitycheck/jira"},
		{"LetsEncryptConfiguration", "/letsencryptconfiguration"},
		{"Licenses", "/licenses"},
		{"LoginInitiated", "/authentication/checklogininitiated"},
		{"MaintenanceConfiguration", "/maintenanceconfiguration"},
		{"Migrations", "/migrations"},
		{"MigrationsImport", "/migrations/import"},
		{"MigrationsPartialExport", "/migrations/partialexport"},
		{"OctopusServerClusterSummary", "/octopusservernodes/summary"},
		{"OctopusServerNodes", "/octopusservernodes{/id}{?skip,take,ids,partialName}"},
		{"PerformanceConfiguration", "/performanceconfiguration"},
		{"PermissionDescriptions", "/permissions/all"},
		{"Permissions", "/permissions/all"},
		{"RateLimitingPolicies", "/ratelimitingpolicies{/id}{?skip,take}"},
		{"Register", "/users/register"},
		{"Reporting", "/reporting"},
		{"Scheduler", "/scheduler{/name}/logs{?verbose,tail}"},
		{"ScopedUserRoles", "/scopeduserroles{/id}{?skip,take,ids,partialName,spaces,includeSystem}"},
		{"ServerConfiguration", "/serverconfiguration"},
		{"ServerConfigurationSettings", "/serverconfiguration/settings"},
		{"ServerHealthStatus", "/serverstatus/health"},
		{"ServerStatus", "/serverstatus"},
		{"ServiceAccounts", "/serviceaccounts{/id}/oidcidentities/v1{?skip,take}"},
		{"SignIn", "/users/login{?returnUrl}"},
		{"SignOut", "/users/logout"},
		{"SmtpConfiguration", "/smtpconfiguration"},
		{"SmtpIsConfigured", "/smtpconfiguration/isconfigured"},
		{"Spaces", "/spaces{/id}{?name,skip,ids,take,partialName}"},
		{"Tasks", "/tasks{/id}{?skip,active,environment,tenant,runbook,project,name,node,running,states,hasPendingInterruptions,hasWarningsOrErrors,take,ids,partialName,spaces,includeSystem}"},
		{"TaskTypes", "/tasks/taskTypes"},
		{"TeamMembership", "/teammembership{?userId,spaces,includeSystem}"},
		{"TeamMembershipPreviewTeam", "/teammembership/previewteam"},
		{"Teams", "/teams{/id}{?skip,take,ids,partialName,spaces,includeSystem}"},
		{"Timezones", "/serverstatus/timezones"},
		{"UpgradeConfiguration", "/upgradeconfiguration"},
		{"UserAuthentication", "/users/authentication{/userId}"},
		{"UserIdentityMetadata", "/users/identity-metadata"},
		{"UserRoles", "/userroles" + paged},
		{"Users", "/users{/id}{?skip,take,ids,filter}"},
	}
}

// rootLinks are the templates of the root document, or of a space's: the same
// names in both, so that a client finds each wherever it looks.
func rootLinks(base, space string) map[string]string {
	self, home := base+"/api", base+"/api/{spaceId}"
	inSpace := self
	if space != "" {
		inSpace = self + "/" + space
		self, home = inSpace, inSpace
	}
	links := map[string]string{
		"Self":      self,
		"SpaceHome": home,
		"Web":       base + "/app",
		"OpenApi":   base + "/api/openapi.json",
	}
	for _, l := range spaceLinks() {
		links[l.name] = inSpace + l.path
	}
	for _, l := range systemLinks() {
		links[l.name] = base + "/api" + l.path
	}
	return links
}
