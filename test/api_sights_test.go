package test

// sight is what somebody with a role of one project and one environment sees by an
// operation that reads.
type sight struct {
	// own names what of theirs the answer has.
	own string
	// mentions names what of the others' may stand in it by its id, because a thing
	// that they may see whole refers to it. Names and contents never do.
	mentions []string
	// finds are the parameters by which the hidden is sought in a list, and not found.
	finds []string
	// queries are further ones to ask with, from the ? or & on.
	queries []string
	// shared says why nothing in it is anybody's own.
	shared string
	// missing allows another answer than 200: there is none of it in the world.
	missing bool
	// refused wants a refusal: their role cannot grant it.
	refused bool
}

// listed is a list in which one's own things are, and others' cannot be found.
func listed(own string, finds ...string) sight { return sight{own: own, finds: finds} }

// of is an answer about a thing of one's own.
func ofOwn(own string) sight { return sight{own: own} }

const (
	space4all = "the role's permission for it cannot be limited to a project or an environment"
	statical  = "it is the same for everybody"
)

// kindSights is what is seen of each kind by its list, its /all and its id.
func kindSights() map[string]sight {
	named := []string{"ids", "partialName"}
	shared := sight{shared: space4all}
	return map[string]sight{
		"accounts":            listed("account", named...),
		"actiontemplates":     shared,
		"certificates":        listed("certificate", named...),
		"channels":            listed("channel", named...),
		"deploymentfreezes":   {refused: true},
		"deploymentprocesses": listed("process", "ids"),
		"environments":        listed("dev", named...),
		"feeds":               shared,
		"git-credentials":     shared,
		"libraryvariablesets": shared,
		"lifecycles":          {shared: space4all, mentions: []string{"dev"}},
		"machinepolicies":     shared,
		"machines":            listed("machine", named...),
		"projectgroups":       listed("group", named...),
		"projects":            listed("project", named...),
		"projecttriggers":     listed("trigger", named...),
		"proxies":             shared,
		"scopeduserroles":     shared,
		"spaces":              shared,
		"subscriptions":       shared,
		"tagsets":             shared,
		"teams":               shared,
		// A tenant is seen whole, and with it what it is connected to.
		"tenants":     {own: "tenant", finds: named, mentions: []string{"project", "dev"}},
		"userroles":   {refused: true},
		"workerpools": shared,
		"workers":     shared,
	}
}

// routeSights is what is seen by the operations that no kind has of itself.
func routeSights() map[string]sight {
	shared, static := sight{shared: space4all}, sight{shared: statical}
	return map[string]sight{
		"GET /api/{space}":                                                          static,
		"GET /api/{space}/accounts/{id}/usages":                                     ofOwn("account"),
		"GET /api/{space}/actiontemplates/categories":                               static,
		"GET /api/{space}/actiontemplates/search":                                   shared,
		"GET /api/{space}/actiontemplates/{id}/logo":                                shared,
		"GET /api/{space}/actiontemplates/{id}/usage":                               ofOwn("process"),
		"GET /api/{space}/actiontemplates/{id}/versions/{version}":                  shared,
		"GET /api/{space}/actiontemplates/{id}/versions/{version}/logo":             shared,
		"GET /api/{space}/artifacts":                                                listed("artifact", "ids"),
		"GET /api/{space}/artifacts/{id}":                                           ofOwn("artifact"),
		"GET /api/{space}/artifacts/{id}/content":                                   {},
		"GET /api/{space}/build-information":                                        shared,
		"GET /api/{space}/build-information/all":                                    shared,
		"GET /api/{space}/build-information/bulk":                                   shared,
		"GET /api/{space}/build-information/{id}":                                   shared,
		"GET /api/{space}/certificates/{id}/export":                                 {queries: []string{"?includePrivateKey=true"}},
		"GET /api/{space}/certificates/{id}/usages":                                 ofOwn("certificate"),
		"GET /api/{space}/channels/rule-test":                                       static,
		"GET /api/{space}/channels/rule-test/v1":                                    static,
		"GET /api/{space}/channels/{channel}/releases":                              ofOwn("release"),
		"GET /api/{space}/dashboard":                                                {own: "deployment", queries: []string{"?showAll=true", "?projectId={project'}", "?releaseId={release'}", "?selectedTenants={tenant'}", "?highestLatestVersionPerProjectAndEnvironment=true"}},
		"GET /api/{space}/dashboard/dynamic":                                        {own: "project", queries: []string{"?includePrevious=true", "?projects={project'}", "?environments={dev'}"}},
		"GET /api/{space}/dashboardconfiguration":                                   {},
		"GET /api/{space}/deploymentprocesses/{id}/template":                        {own: "process", queries: []string{"?channel={channel}", "?releaseId={release}"}},
		"GET /api/{space}/deployments":                                              {own: "deployment", finds: []string{"ids", "projects=project", "environments=dev"}},
		"GET /api/{space}/deployments/{id}":                                         ofOwn("deployment"),
		"GET /api/{space}/environments/summary":                                     {own: "dev", queries: []string{"?ids={dev'}", "?roles=Zebra-tag"}},
		"GET /api/{space}/environments/v2":                                          listed("dev", "ids", "partialName"),
		"GET /api/{space}/environments/{owner}/machines":                            ofOwn("machine"),
		"GET /api/{space}/events":                                                   {own: "deployment", finds: []string{"ids", "projects=project", "environments=dev", "regardingAny"}, queries: []string{"?asCsv=true", "?excludeDifference=true", "?eventGroups=Document"}},
		"GET /api/{space}/events/agents":                                            static,
		"GET /api/{space}/events/categories":                                        static,
		"GET /api/{space}/events/documenttypes":                                     static,
		"GET /api/{space}/events/groups":                                            static,
		"GET /api/{space}/events/{id}":                                              ofOwn("event"),
		"GET /api/{space}/feeds/stats":                                              shared,
		"GET /api/{space}/feeds/{feedId}/packages/notes":                            shared,
		"GET /api/{space}/feeds/{feedId}/packages/search":                           shared,
		"GET /api/{space}/feeds/{feedId}/packages/versions":                         shared,
		"GET /api/{space}/interruptions":                                            {own: "interruption", finds: []string{"ids", "regarding=task", "regarding=project"}, queries: []string{"?pendingOnly=true"}},
		"GET /api/{space}/interruptions/{id}":                                       ofOwn("interruption"),
		"GET /api/{space}/interruptions/{id}/responsible":                           {missing: true},
		"GET /api/{space}/lifecycles/{owner}/projects":                              listed("project", "ids", "partialName"),
		"GET /api/{space}/machinepolicies/template":                                 static,
		"GET /api/{space}/machineroles/all":                                         {},
		"GET /api/{space}/machines/discover":                                        {refused: true},
		"GET /api/{space}/machines/operatingsystem/names/all":                       {},
		"GET /api/{space}/machines/operatingsystem/shells/all":                      {},
		"GET /api/{space}/machines/registration-tokens":                             {refused: true},
		"GET /api/{space}/machines/registration-tokens/{targetToken}":               {refused: true},
		"GET /api/{space}/machines/{id}/connection":                                 ofOwn("machine"),
		"GET /api/{space}/machines/{id}/tasks":                                      {},
		"GET /api/{space}/package-metadata":                                         shared,
		"GET /api/{space}/package-metadata/{id}":                                    shared,
		"GET /api/{space}/packages":                                                 shared,
		"GET /api/{space}/packages/all":                                             shared,
		"GET /api/{space}/packages/bulk":                                            shared,
		"GET /api/{space}/packages/retention":                                       shared,
		"GET /api/{space}/packages/notes":                                           shared,
		"GET /api/{space}/packages/{id}":                                            shared,
		"GET /api/{space}/packages/{id}/raw":                                        shared,
		"GET /api/{space}/packages/{packageId}/{version}/delta-signature":           {shared: space4all, missing: true},
		"GET /api/{space}/projectgroups/{owner}/projects":                           ofOwn("project"),
		"GET /api/{space}/projects/experimental/summaries":                          {own: "project", queries: []string{"?ids={project'}"}},
		"GET /api/{space}/projects/pulse":                                           {own: "project", queries: []string{"?projectIds={project'}"}},
		"GET /api/{space}/projects/{id}/deploymentprocesses":                        ofOwn("process"),
		"GET /api/{space}/projects/{id}/deploymentsettings":                         {},
		"GET /api/{space}/projects/{id}/summary":                                    ofOwn("project"),
		"GET /api/{space}/projects/{owner}/channels":                                ofOwn("channel"),
		"GET /api/{space}/projects/{owner}/channels/all":                            ofOwn("channel"),
		"GET /api/{space}/projects/{owner}/channels/{id}":                           ofOwn("channel"),
		"GET /api/{space}/projects/{owner}/triggers":                                ofOwn("trigger"),
		"GET /api/{space}/projects/{owner}/triggers/all":                            ofOwn("trigger"),
		"GET /api/{space}/projects/{owner}/triggers/{id}":                           ofOwn("trigger"),
		"GET /api/{space}/projects/{project}/channels/{channel}/releases":           ofOwn("release"),
		"GET /api/{space}/projects/{project}/deploymentprocesses/template":          {own: "process", queries: []string{"?channel={channel}", "?releaseId={release}"}},
		"GET /api/{space}/projects/{project}/progression":                           ofOwn("deployment"),
		"GET /api/{space}/projects/{project}/releases":                              ofOwn("release"),
		"GET /api/{space}/projects/{project}/releases/{version}":                    ofOwn("release"),
		"GET /api/{space}/projects/{project}/retention":                             ofOwn("release"),
		"GET /api/{space}/releases":                                                 listed("release", "ids"),
		"GET /api/{space}/releases/{id}":                                            ofOwn("release"),
		"GET /api/{space}/releases/{id}/defects":                                    {},
		"GET /api/{space}/releases/{id}/deployments":                                ofOwn("deployment"),
		"GET /api/{space}/releases/{id}/deployments/preview/{environment}":          {missing: true},
		"GET /api/{space}/releases/{id}/deployments/preview/{environment}/{tenant}": {},
		"GET /api/{space}/releases/{id}/deployments/template":                       ofOwn("dev"),
		"GET /api/{space}/releases/{id}/missingpackages":                            {},
		"GET /api/{space}/releases/{id}/progression":                                ofOwn("deployment"),
		"GET /api/{space}/retentionpolicies":                                        shared,
		"GET /api/{space}/retentionpolicies/{id}":                                   shared,
		"GET /api/{space}/scheduledprojecttriggers":                                 listed("trigger", "ids"),
		"GET /api/{space}/scheduledprojecttriggers/{id}":                            ofOwn("trigger"),
		"GET /api/{space}/subscriptions/{id}/deliveries":                            shared,
		"GET /api/{space}/tasks":                                                    {own: "task", finds: []string{"ids", "partialName", "project=project", "environment=dev"}, queries: []string{"?active=true", "?hasPendingInterruptions=true"}},
		"GET /api/{space}/tasks/details/{id}":                                       ofOwn("task"),
		"GET /api/{space}/tasks/taskTypes":                                          static,
		"GET /api/{space}/tasks/{id}":                                               ofOwn("task"),
		"GET /api/{space}/tasks/{id}/details":                                       ofOwn("task"),
		"GET /api/{space}/tasks/{id}/log":                                           {},
		"GET /api/{space}/tasks/{id}/queued-behind":                                 {},
		"GET /api/{space}/tasks/{id}/raw":                                           ofOwn("task"),
		"GET /api/{space}/teams/{owner}/scopeduserroles":                            shared,
		"GET /api/{space}/teams/{owner}/scopeduserroles/all":                        shared,
		"GET /api/{space}/tenant/{id}":                                              {own: "tenant", mentions: []string{"project", "dev"}},
		"GET /api/{space}/tenants/status":                                           {},
		"GET /api/{space}/tenants/tag-test":                                         {own: "tenant", queries: []string{"?tenantIds={tenant},{tenant'}"}},
		"GET /api/{space}/tenants/variables-missing":                                {own: "tenant", queries: []string{"?includeDetails=true", "?projectId={project'}", "?environmentId={dev'}&includeDetails=true"}},
		"GET /api/{space}/tenants/{id}/commonvariables":                             {own: "tenant", queries: []string{"?includeMissingVariables=true"}},
		"GET /api/{space}/tenants/{id}/projectvariables":                            {own: "tenant", queries: []string{"?includeMissingVariables=true"}},
		"GET /api/{space}/tenants/{id}/variables":                                   ofOwn("tenant"),
		"GET /api/{space}/tenantvariables/all":                                      ofOwn("tenant"),
		"GET /api/{space}/variables":                                                listed("variables", "ids"),
		"GET /api/{space}/variables/all":                                            ofOwn("variables"),
		"GET /api/{space}/variables/names":                                          {},
		"GET /api/{space}/variables/preview":                                        {queries: []string{"&environment={dev}"}},
		"GET /api/{space}/variables/{id}":                                           ofOwn("variables"),
		"GET /api/{space}/workerpools/dynamicworkertypes":                           static,
		"GET /api/{space}/workerpools/summary":                                      shared,
		"GET /api/{space}/workerpools/supportedtypes":                               static,
		"GET /api/{space}/workerpools/{owner}/workers":                              shared,
		"GET /api/{space}/workers/discover":                                         {refused: true},
		"GET /api/{space}/workers/operatingsystem/names/all":                        shared,
		"GET /api/{space}/workers/operatingsystem/shells/all":                       shared,
		"GET /api/{space}/workers/registration-tokens":                              {refused: true},
		"GET /api/{space}/workers/registration-tokens/{workerToken}":                {refused: true},
		"GET /api/{space}/workers/{id}/connection":                                  shared,
		"GET /api/{space}/workers/{id}/tasks":                                       shared,
		"GET /nuget/v3/flat/{id}/index.json":                                        shared,
		"GET /nuget/v3/flat/{id}/{version}/{file}":                                  {shared: space4all, missing: true},
		"GET /nuget/v3/index.json":                                                  static,
		"GET /nuget/v3/registration/{id}/index.json":                                shared,
		"GET /nuget/v3/registration/{id}/page/{page}":                               {shared: space4all, missing: true},
		"GET /nuget/v3/registration/{id}/{version}":                                 shared,
		"GET /nuget/v3/search":                                                      shared,
		"GET /api/{space}/nuget/v3/flat/{id}/index.json":                            shared,
		"GET /{space}/nuget/v3/flat/{id}/index.json":                                shared,
		"GET /api/{space}/nuget/v3/flat/{id}/{version}/{file}":                      {shared: space4all, missing: true},
		"GET /{space}/nuget/v3/flat/{id}/{version}/{file}":                          {shared: space4all, missing: true},
		"GET /api/{space}/nuget/v3/index.json":                                      static,
		"GET /{space}/nuget/v3/index.json":                                          static,
		"GET /api/{space}/nuget/v3/registration/{id}/index.json":                    shared,
		"GET /{space}/nuget/v3/registration/{id}/index.json":                        shared,
		"GET /api/{space}/nuget/v3/registration/{id}/page/{page}":                   {shared: space4all, missing: true},
		"GET /{space}/nuget/v3/registration/{id}/page/{page}":                       {shared: space4all, missing: true},
		"GET /api/{space}/nuget/v3/registration/{id}/{version}":                     shared,
		"GET /{space}/nuget/v3/registration/{id}/{version}":                         shared,
		"GET /api/{space}/nuget/v3/search":                                          shared,
		"GET /{space}/nuget/v3/search":                                              shared,
	}
}
