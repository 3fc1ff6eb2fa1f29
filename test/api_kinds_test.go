package test

import (
	_ "embed" // for the files below
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/octopus"
)

// example is what the walk needs to know of a kind. In its texts, {name} stands
// for the id of what world has under that name, and {id} for the document's own.
type example struct {
	kind string
	// create is the least that makes a document.
	create string
	// full has all that a client can set, and something that the server does not know.
	full string
	// cleared is what members have once a client leaves them out again.
	cleared string
	// user makes a document of the kind userKind that refers to this one, which
	// then cannot be deleted.
	userKind, user string
	// before is put in place of the document before it is deleted.
	before string
}

// examples of every kind that has operations of its own.
func examples() []example {
	return []example{
		{
			kind:     "accounts",
			create:   `{"Name":"Ex 1","AccountType":"UsernamePassword"}`,
			full:     `{"Name":"Ex 2","AccountType":"UsernamePassword","Description":"d","EnvironmentIds":["{dev}"],"TenantedDeploymentParticipation":"Tenanted","TenantIds":["{tenant}"],"TenantTags":["Ring/One"],"Username":"u","Password":{"HasValue":true,"NewValue":"hush"}}`,
			cleared:  `{"Description":"","EnvironmentIds":[],"TenantedDeploymentParticipation":"Untenanted","TenantIds":[],"TenantTags":[],"Username":null,"Password":null}`,
			userKind: "machines", user: `{"Name":"u","EnvironmentIds":["{dev}"],"Roles":["r"],"Endpoint":{"CommunicationStyle":"Ssh","AccountId":"{id}"}}`,
		},
		{
			kind:    "actiontemplates",
			create:  `{"Name":"Ex 1","ActionType":"Octopus.Script"}`,
			full:    `{"Name":"Ex 2","ActionType":"Octopus.Script","Description":"d","Properties":{"Octopus.Action.Script.ScriptBody":"echo"},"Packages":[{"Id":"p","Name":"","PackageId":"Acme"}],"Parameters":[{"Id":"p1","Name":"Port","Label":"l","HelpText":"h","DefaultValue":"80","DisplaySettings":{"Octopus.ControlType":"SingleLineText"}}]}`,
			cleared: `{"Description":null,"Properties":{},"Packages":[],"Parameters":[],"GitDependencies":[]}`,
		},
		{
			kind:    "certificates",
			create:  `{"Name":"Ex 1","CertificateData":{"HasValue":true,"NewValue":"` + sitePEM() + `"}}`,
			full:    `{"Name":"Ex 2","Notes":"n","EnvironmentIds":["{dev}"],"TenantedDeploymentParticipation":"Tenanted","TenantIds":["{tenant}"],"TenantTags":["Ring/One"],"CertificateData":{"HasValue":true,"NewValue":"` + sitePFX() + `"},"Password":{"HasValue":true,"NewValue":"hush-pfx"}}`,
			cleared: `{"Notes":"","EnvironmentIds":[],"TenantedDeploymentParticipation":"Untenanted","TenantIds":[],"TenantTags":[],"HasPrivateKey":false,"CertificateDataFormat":"Pem"}`,
		},
		{
			kind:    "channels",
			create:  `{"Name":"Ex 1","ProjectId":"{project}"}`,
			full:    `{"Name":"Ex 2","ProjectId":"{project}","Description":"d","LifecycleId":"{lifecycle}","Rules":[{"VersionRange":"[1.0,2.0)","Tag":"^$","ActionPackages":[{"DeploymentAction":"a","PackageReference":""}],"New":1}],"TenantTags":["Ring/One"],"GitReferenceRules":["refs/heads/main"]}`,
			cleared: `{"Description":"","LifecycleId":null,"Rules":[],"TenantTags":[],"GitReferenceRules":[],"Type":"Lifecycle","IsDefault":false}`,
		},
		{
			kind:    "deploymentfreezes",
			create:  `{"Name":"Ex 1","Start":"2026-12-24T00:00:00.000+00:00","End":"2026-12-27T00:00:00.000+00:00"}`,
			full:    `{"Name":"Ex 2","Start":"2026-12-24T00:00:00.000+00:00","End":"2026-12-27T00:00:00.000+00:00","ProjectEnvironmentScope":{"{project}":["{dev}"]},"TenantProjectEnvironmentScope":[{"TenantId":"{tenant}","ProjectId":"{project}","EnvironmentId":"{dev}"}],"RecurringSchedule":{"Type":"Annually","Unit":1,"EndType":"Never"}}`,
			cleared: `{"ProjectEnvironmentScope":{},"TenantProjectEnvironmentScope":[],"RecurringSchedule":null}`,
		},
		{
			kind:     "environments",
			create:   `{"Name":"Ex 1"}`,
			full:     `{"Name":"Ex 2","Description":"d","SortOrder":40,"UseGuidedFailure":true,"AllowDynamicInfrastructure":true,"EnvironmentTags":["Set/Tag"],"ExtensionSettings":[{"ExtensionId":"jira","Values":{"Type":"x"}}]}`,
			cleared:  `{"Description":"","UseGuidedFailure":false,"AllowDynamicInfrastructure":false,"EnvironmentTags":[],"ExtensionSettings":[]}`,
			userKind: "lifecycles", user: `{"Name":"u","Phases":[{"Name":"p","AutomaticDeploymentTargets":["{id}"]}]}`,
		},
		{
			kind:    "feeds",
			create:  `{"Name":"Ex 1","FeedType":"NuGet"}`,
			full:    `{"Name":"Ex 2","FeedType":"NuGet","FeedUri":"https://nuget.example.com/v3/index.json","Username":"u","Password":{"NewValue":"hush"},"DownloadAttempts":3,"EnhancedMode":true}`,
			cleared: `{"FeedUri":null,"Username":null,"Password":null,"DownloadAttempts":null,"EnhancedMode":null,"PackageAcquisitionLocationOptions":["Server","ExecutionTarget"]}`,
		},
		{
			kind:    "git-credentials",
			create:  `{"Name":"Ex 1","Details":{"Type":"UsernamePassword","Username":"u"}}`,
			full:    `{"Name":"Ex 2","Description":"d","Details":{"Type":"UsernamePassword","Username":"v"},"RepositoryRestrictions":{"Enabled":true,"AllowedRepositories":["https://git.example.com/team/*"]}}`,
			cleared: `{"Description":"","RepositoryRestrictions":{"Enabled":false,"AllowedRepositories":[]}}`,
		},
		{
			kind:     "libraryvariablesets",
			create:   `{"Name":"Ex 1"}`,
			full:     `{"Name":"Ex 2","Description":"d","Templates":[{"Id":"t1","Name":"Port","Label":"l","DefaultValue":"80","DisplaySettings":{"Octopus.ControlType":"SingleLineText"}}]}`,
			cleared:  `{"Description":"","Templates":[],"ContentType":"Variables","VariableSetId":"variableset-{id}"}`,
			userKind: "projects", user: `{"Name":"u","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1","IncludedLibraryVariableSetIds":["{id}"]}`,
		},
		{
			kind:     "lifecycles",
			create:   `{"Name":"Ex 1"}`,
			full:     `{"Name":"Ex 2","Description":"d","ReleaseRetentionPolicy":{"Strategy":"Count","Unit":"Items","QuantityToKeep":3,"ShouldKeepForever":false},"Phases":[{"Id":"p1","Name":"One","OptionalDeploymentTargets":["{dev}"],"IsOptionalPhase":true,"New":1},{"Id":"p2","Name":"Two","AutomaticDeploymentTargets":["{production}"],"MinimumEnvironmentsBeforePromotion":1}]}`,
			cleared:  `{"Description":"","Phases":[],"ReleaseRetentionPolicy":{"Strategy":"Default","Unit":"Days","QuantityToKeep":0,"ShouldKeepForever":true}}`,
			userKind: "projects", user: `{"Name":"u","ProjectGroupId":"ProjectGroups-1","LifecycleId":"{id}"}`,
		},
		{
			kind:     "machinepolicies",
			create:   `{"Name":"Ex 1"}`,
			full:     `{"Name":"Ex 2","Description":"d","ConnectionConnectTimeout":"00:00:30","ConnectionRetryCountLimit":2,"MachineHealthCheckPolicy":{"HealthCheckInterval":"01:00:00","HealthCheckType":"OnlyConnectivity"},"MachineCleanupPolicy":{"DeleteMachinesBehavior":"DeleteUnavailableMachines","DeleteMachinesElapsedTimeSpan":"00:20:00"}}`,
			cleared:  `{"Description":"","ConnectionConnectTimeout":"00:01:00","ConnectionRetryCountLimit":5,"IsDefault":false}`,
			userKind: "workers", user: `{"Name":"u","WorkerPoolIds":["WorkerPools-1"],"MachinePolicyId":"{id}","Endpoint":{"CommunicationStyle":"None"}}`,
		},
		{
			kind:    "machines",
			create:  `{"Name":"Ex 1","EnvironmentIds":["{dev}"],"Roles":["web"],"Endpoint":{"CommunicationStyle":"None"}}`,
			full:    `{"Name":"Ex 2","EnvironmentIds":["{dev}","{production}"],"Roles":["web","db"],"IsDisabled":true,"MachinePolicyId":"{policy}","TenantedDeploymentParticipation":"TenantedOrUntenanted","TenantIds":["{tenant}"],"TenantTags":["Ring/One"],"Endpoint":{"CommunicationStyle":"TentaclePassive","Uri":"https://h:10933/","Thumbprint":"AB","ProxyId":"{proxy}","Brand":"new"}}`,
			cleared: `{"IsDisabled":false,"MachinePolicyId":"MachinePolicies-1","TenantedDeploymentParticipation":"Untenanted","TenantIds":[],"TenantTags":[],"Endpoint":{"CommunicationStyle":"None"}}`,
		},
		{
			kind:     "projectgroups",
			create:   `{"Name":"Ex 1"}`,
			full:     `{"Name":"Ex 2","Description":"d"}`,
			cleared:  `{"Description":"","EnvironmentIds":[]}`,
			userKind: "projects", user: `{"Name":"u","ProjectGroupId":"{id}","LifecycleId":"Lifecycles-1"}`,
		},
		{
			kind:   "projects",
			create: `{"Name":"Ex 1","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`,
			full: `{"Name":"Ex 2","ProjectGroupId":"{group}","LifecycleId":"{lifecycle}","Description":"d","IsDisabled":true,"IncludedLibraryVariableSetIds":["{library}"],"Templates":[{"Id":"t1","Name":"Port"}],"TenantedDeploymentMode":"Tenanted",
				"AllowIgnoreChannelRules":true,"DiscreteChannelRelease":true,"ProjectTags":["Set/Tag"],"DefaultGuidedFailureMode":"On","ReleaseNotesTemplate":"n","ProjectConnectivityPolicy":{"SkipMachineBehavior":"SkipUnavailableMachines","TargetRoles":["web"],"AllowDeploymentsToNoTargets":true,"ExcludeUnhealthyTargets":true}}`,
			cleared: `{"Description":"","IsDisabled":false,"IncludedLibraryVariableSetIds":[],"Templates":[],"TenantedDeploymentMode":"Untenanted","AllowIgnoreChannelRules":false,"ProjectTags":[],"DefaultGuidedFailureMode":"EnvironmentDefault","ReleaseNotesTemplate":null,
				"VariableSetId":"variableset-{id}","DeploymentProcessId":"deploymentprocess-{id}","PersistenceSettings":{"Type":"Database"},"ProjectConnectivityPolicy":{"SkipMachineBehavior":"None","TargetRoles":[],"AllowDeploymentsToNoTargets":false,"ExcludeUnhealthyTargets":false}}`,
		},
		{
			kind:   "projecttriggers",
			create: `{"Name":"Ex 1","ProjectId":"{project}","Filter":{"FilterType":"OnceDailySchedule","StartTime":"2026-01-01T09:00:00.000","Timezone":"UTC"},"Action":{"ActionType":"DeployNewRelease","EnvironmentId":"{dev}"}}`,
			full: `{"Name":"Ex 2","ProjectId":"{project}","Description":"d","IsDisabled":true,"Filter":{"FilterType":"CronExpressionSchedule","CronExpression":"0 0 6 * * Mon-Fri","Timezone":"Europe/Berlin","Shape":"new"},
				"Action":{"ActionType":"DeployLatestRelease","SourceEnvironmentIds":["{dev}"],"DestinationEnvironmentId":"{production}","ShouldRedeployWhenReleaseIsCurrent":true,"TenantIds":["{tenant}"],"TenantTags":["Ring/One"],"Variables":"{}"}}`,
			cleared: `{"Description":"","IsDisabled":false,"Filter":{"FilterType":"OnceDailySchedule","StartTime":"2026-01-01T09:00:00.000","Timezone":"UTC"},"Action":{"ActionType":"DeployNewRelease","EnvironmentId":"{dev}"}}`,
		},
		{
			kind:     "proxies",
			create:   `{"Name":"Ex 1","Host":"proxy.example.com","Port":3128}`,
			full:     `{"Name":"Ex 2","Host":"proxy2.example.com","Port":8080,"Username":"u","Password":{"NewValue":"hush"},"ProxyType":"HTTP"}`,
			cleared:  `{"Host":"proxy.example.com","Port":3128}`,
			userKind: "workers", user: `{"Name":"u","WorkerPoolIds":["WorkerPools-1"],"Endpoint":{"CommunicationStyle":"TentaclePassive","ProxyId":"{id}"}}`,
		},
		{
			kind:    "scopeduserroles",
			create:  `{"TeamId":"{team}","UserRoleId":"{role}","SpaceId":"Spaces-1"}`,
			full:    `{"TeamId":"{team}","UserRoleId":"{role}","SpaceId":"Spaces-1","EnvironmentIds":["{dev}"],"ProjectIds":["{project}"],"ProjectGroupIds":["{group}"],"TenantIds":["{tenant}"]}`,
			cleared: `{"EnvironmentIds":[],"ProjectIds":[],"ProjectGroupIds":[],"TenantIds":[]}`,
		},
		{
			kind:    "spaces",
			create:  `{"Name":"Ex 1","SpaceManagersTeams":["teams-administrators"]}`,
			full:    `{"Name":"Ex 2","Description":"d","IsPrivate":true,"SpaceManagersTeams":["teams-administrators"],"SpaceManagersTeamMembers":["{user}"]}`,
			cleared: `{"Description":"","IsPrivate":false,"TaskQueueStopped":false,"IsDefault":false,"SpaceManagersTeamMembers":[]}`,
			before:  `{"Name":"Ex 1","TaskQueueStopped":true,"SpaceManagersTeams":["teams-administrators"]}`,
		},
		{
			kind:    "tagsets",
			create:  `{"Name":"Ex 1"}`,
			full:    `{"Name":"Ex 2","Description":"d","SortOrder":9,"Type":"SingleSelect","Scopes":["Tenant","Project"],"Tags":[{"Name":"Hot","Color":"#FF0000","Description":"d","SortOrder":1},{"Name":"Cold","New":1}]}`,
			cleared: `{"Description":"","Type":"MultiSelect","Scopes":["Tenant"],"Tags":[],"IsSystem":false}`,
		},
		{
			kind:    "subscriptions",
			create:  `{"Name":"Ex 1"}`,
			full:    `{"Name":"Ex 2","IsDisabled":true,"EventNotificationSubscription":{"Filter":{"Projects":["{project}"],"EventCategories":["DeploymentFailed"]},"EmailTeams":["{team}"],"EmailPriority":"High","EmailFrequencyPeriod":"02:00:00","WebhookURI":"https://hooks.example.com/x","WebhookTimeout":"00:00:20","WebhookHeaderKey":"X-Key","WebhookHeaderValue":{"HasValue":true,"NewValue":"hush-header"},"WebhookSecret":{"HasValue":true,"NewValue":"hush-signing"}}}`,
			cleared: `{"IsDisabled":false,"Type":"Event"}`,
		},
		{
			kind:    "teams",
			create:  `{"Name":"Ex 1"}`,
			full:    `{"Name":"Ex 2","Description":"d","MemberUserIds":["{user}"],"ExternalSecurityGroups":[{"Id":"g","DisplayName":"G"}]}`,
			cleared: `{"Description":"","MemberUserIds":[],"ExternalSecurityGroups":[],"CanBeDeleted":true}`,
		},
		{
			kind:    "tenants",
			create:  `{"Name":"Ex 1"}`,
			full:    `{"Name":"Ex 2","Description":"d","IsDisabled":true,"TenantTags":["Ring/One"],"ProjectEnvironments":{"{project}":["{dev}"]}}`,
			cleared: `{"Description":"","IsDisabled":false,"TenantTags":[],"ProjectEnvironments":{}}`,
		},
		{
			kind:     "userroles",
			create:   `{"Name":"Ex 1"}`,
			full:     `{"Name":"Ex 2","Description":"d","GrantedSpacePermissions":["ProjectEdit","ProjectView"]}`,
			cleared:  `{"Description":"","GrantedSpacePermissions":[],"GrantedSystemPermissions":[],"CanBeDeleted":true}`,
			userKind: "scopeduserroles", user: `{"TeamId":"{team}","UserRoleId":"{id}","SpaceId":"Spaces-1"}`,
		},
		{
			kind:     "workerpools",
			create:   `{"Name":"Ex 1"}`,
			full:     `{"Name":"Ex 2","Description":"d","SortOrder":7,"WorkerPoolType":"StaticWorkerPool"}`,
			cleared:  `{"Description":"","IsDefault":false,"WorkerPoolType":"StaticWorkerPool","CanAddWorkers":true}`,
			userKind: "workers", user: `{"Name":"u","WorkerPoolIds":["{id}"],"Endpoint":{"CommunicationStyle":"None"}}`,
		},
		{
			kind:    "workers",
			create:  `{"Name":"Ex 1","WorkerPoolIds":["WorkerPools-1"],"Endpoint":{"CommunicationStyle":"None"}}`,
			full:    `{"Name":"Ex 2","WorkerPoolIds":["WorkerPools-1","{pool}"],"IsDisabled":true,"MachinePolicyId":"{policy}","Endpoint":{"CommunicationStyle":"Ssh","Host":"h","Port":22,"AccountId":"{account}","Fingerprint":"SHA256:x"}}`,
			cleared: `{"IsDisabled":false,"MachinePolicyId":"MachinePolicies-1","WorkerPoolIds":["WorkerPools-1"],"Endpoint":{"CommunicationStyle":"None"}}`,
		},
	}
}

// A certificate without its key and with it, as files that are uploaded.
var (
	//go:embed testdata/site.pem
	siteCertificate []byte
	//go:embed testdata/site.pfx
	siteStore []byte
)

func sitePEM() string { return base64.StdEncoding.EncodeToString(siteCertificate) }

func sitePFX() string { return base64.StdEncoding.EncodeToString(siteStore) }

// walker goes through the lives of documents on one server.
type walker struct {
	*apptest.Server
	t  testing.TB
	d  *db.DB
	of map[string]string // ids by name
}

func newWalker(t testing.TB, s *apptest.Server) *walker {
	t.Helper()
	w := &walker{s, t, dbtest.OpenURL(t, s.Database), map[string]string{}}
	for _, one := range []struct{ name, path, body string }{
		{"dev", "environments", `{"Name":"Dev"}`},
		{"production", "environments", `{"Name":"Production"}`},
		{"lifecycle", "lifecycles", `{"Name":"Straight"}`},
		{"group", "projectgroups", `{"Name":"Group"}`},
		{"library", "libraryvariablesets", `{"Name":"Shared"}`},
		{"tagset", "tagsets", `{"Name":"Ring","Tags":[{"Name":"One"},{"Name":"Two"}]}`},
		{"sorting", "tagsets", `{"Name":"Set","Scopes":["Environment","Project"],"Tags":[{"Name":"Tag"}]}`},
		{"project", "projects", `{"Name":"Project","ProjectGroupId":"{group}","LifecycleId":"{lifecycle}"}`},
		{"tenant", "tenants", `{"Name":"Tenant"}`},
		{"actiontemplate", "actiontemplates", `{"Name":"Template","ActionType":"Octopus.Script"}`},
		{"subscription", "subscriptions", `{"Name":"Subscription"}`},
		{"deploymentfreeze", "deploymentfreezes", `{"Name":"Freeze","Start":"2026-12-24T00:00:00Z","End":"2026-12-27T00:00:00Z"}`},
		{"certificate", "certificates", `{"Name":"Certificate","CertificateData":{"NewValue":"` + sitePEM() + `"}}`},
		{"git-credential", "git-credentials", `{"Name":"Git","Details":{"Username":"u","Password":{"NewValue":"hush"}}}`},
		{"account", "accounts", `{"Name":"Account","AccountType":"Token"}`},
		{"policy", "machinepolicies", `{"Name":"Policy"}`},
		{"proxy", "proxies", `{"Name":"Proxy","Host":"h","Port":1}`},
		{"pool", "workerpools", `{"Name":"Pool"}`},
		{"team", "teams", `{"Name":"Team"}`},
		{"role", "userroles", `{"Name":"Role","GrantedSpacePermissions":["ProjectView"]}`},
		{"user", "users", `{"Username":"somebody","IsService":true}`},
	} {
		w.of[one.name] = w.make(one.path, one.body)
	}
	return w
}

// drain keeps the server from taking tasks: it checks each new machine soon, and the
// machine's health would change while the test looks at it.
func (w *walker) drain() {
	w.t.Helper()
	for _, n := range apptest.Get[octopus.Page[octopus.ServerNode]](w.t, w.Client, "/api/octopusservernodes").Items {
		n.IsInMaintenanceMode = true
		if n = apptest.Put(w.t, w.Client, "/api/octopusservernodes/"+n.ID, n); !n.IsInMaintenanceMode {
			w.t.Fatalf("the node takes tasks: %+v", n)
		}
	}
}

// fill puts ids into a text.
func (w *walker) fill(text, own string) string {
	pairs := []string{"{id}", own}
	for name, id := range w.of {
		pairs = append(pairs, "{"+name+"}", id)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

func (w *walker) make(path, body string) string {
	w.t.Helper()
	var made struct{ ID string }
	w.Must(w.t, http.MethodPost, "/api/"+path, w.fill(body, ""), &made)
	return made.ID
}

func (w *walker) get(path string) map[string]any {
	w.t.Helper()
	return apptest.Get[map[string]any](w.t, w.Client, path)
}

// ids of a page or an array.
func (w *walker) ids(path string) []string {
	w.t.Helper()
	type item struct{ ID string }
	var items []item
	resp := w.Must(w.t, http.MethodGet, path, nil, nil)
	if strings.HasPrefix(string(resp.Body), "[") {
		items = decode[[]item](w.t, resp.Body)
	} else {
		items = decode[struct{ Items []item }](w.t, resp.Body).Items
	}
	ids := make([]string, len(items))
	for i, one := range items {
		ids[i] = one.ID
	}
	return ids
}

// contains reports where want is not what got has. Elements of arrays are compared
// in order, and there may be more after them.
func contains(want, got any) string {
	switch w := want.(type) {
	case map[string]any:
		has, _ := got.(map[string]any)
		for name, value := range w {
			if diff := contains(value, has[name]); diff != "" {
				return name + ": " + diff
			}
		}
		return ""
	case []any:
		has, _ := got.([]any)
		if len(w) == 0 || len(has) < len(w) {
			break
		}
		for i, value := range w {
			if diff := contains(value, has[i]); diff != "" {
				return fmt.Sprint(i, ": ", diff)
			}
		}
		return ""
	}
	return cmp.Diff(want, got)
}

func parse(t testing.TB, text string) map[string]any {
	t.Helper()
	return decode[map[string]any](t, []byte(text))
}

func asJSON(t testing.TB, v any) string {
	t.Helper()
	body, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(body)
}

// TestEveryKindsLife takes a document of every kind from its creation to its end.
func TestEveryKindsLife(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			w := newWalker(t, apptest.StartWith(t, dialect, apptest.Options{NoWorker: true}))
			w.drain()
			known := map[string]example{}
			for _, e := range examples() {
				known[e.kind] = e
			}
			for _, k := range resources.All() {
				if k.Hidden || k.Permissions.Create == "" {
					continue
				}
				e, ok := known[k.Name]
				if !ok {
					t.Errorf("the kind %s has no example", k.Name)
					continue
				}
				t.Run(k.Name, func(t *testing.T) {
					w := *w
					w.t = t
					w.live(k, e)
				})
			}
		})
	}
}

// live is one document's life.
func (w *walker) live(k *resource.Kind, e example) {
	t, base := w.t, "/api/"+k.Name
	// Creation.
	resp := w.Must(t, http.MethodPost, base, w.fill(e.create, ""), nil)
	made := parse(t, string(resp.Body))
	id, _ := made["Id"].(string)
	at := base + "/" + id
	if resp.Status != http.StatusCreated || !strings.HasPrefix(id, k.Prefix+"-") || resp.Header.Get("ETag") != `"1"` {
		t.Fatalf("created: %d, ETag %s, %s", resp.Status, resp.Header.Get("ETag"), resp.Body)
	}
	links, _ := made["Links"].(map[string]any)
	self, _ := links["Self"].(string)
	if location := resp.Header.Get("Location"); location != self || !strings.HasSuffix(self, "/"+k.Name+"/"+id) {
		t.Errorf("Location is %q, Self %q", location, self)
	}
	if diff := contains(w.hide(parse(t, w.fill(e.create, id))), made); diff != "" {
		t.Errorf("created with another %s", diff)
	}
	w.found(k, made, base)

	// A whole replacement, and another one that leaves out what it had.
	full := parse(t, w.fill(e.full, id))
	full["New"] = map[string]any{"member": []any{map[string]any{"of": "a newer client"}}}
	fresh := parse(t, string(w.Must(t, http.MethodPut, at, full, nil).Body))
	masked := w.hide(full)
	if diff := contains(masked, fresh); diff != "" {
		t.Errorf("replaced with another %s", diff)
	}
	if diff := cmp.Diff(fresh, w.get(at)); diff != "" {
		t.Errorf("read (-answered +read):\n%s", diff)
	}
	again := w.hide(fresh)
	delete(again, "Version") // some count their changes
	if diff := contains(again, apptest.Put(t, w.Client, at, fresh)); !strings.HasPrefix(diff, "LastModifiedOn") && diff != "" {
		t.Errorf("what was read and put back came out with another %s", diff)
	}
	w.found(k, fresh, base)
	put := parse(t, w.fill(e.create, id))
	least := apptest.Put(t, w.Client, at, put)
	for member, want := range parse(t, w.fill(e.cleared, id)) {
		if diff := contains(want, least[member]); diff != "" {
			t.Errorf("left out, but %s still has: %s", member, diff)
		}
	}
	if _, there := least["New"]; there {
		t.Error("the unknown member was left out and is there")
	}
	if k.Slugged && (least["Slug"] != made["Slug"] || fresh["Slug"] != made["Slug"]) {
		t.Errorf("the slug was %v, then %v, then %v", made["Slug"], fresh["Slug"], least["Slug"])
	}
	w.guarded(at, put)
	if !k.Unnamed {
		said := w.Refused(t, http.StatusBadRequest, http.MethodPost, base, w.fill(e.create, ""))
		if !strings.Contains(said, "Name 'Ex 1' is already used") {
			t.Errorf("a second one: %s", said)
		}
	}

	// The end.
	if e.user != "" {
		w.kept(e, at, id)
	}
	if e.before != "" {
		w.Must(t, http.MethodPut, at, w.fill(e.before, id), nil)
	}
	if resp := w.Must(t, http.MethodDelete, at, nil, nil); resp.Status != http.StatusOK || len(resp.Body) == 0 {
		t.Errorf("deleted: %d %q", resp.Status, resp.Body)
	}
	w.gone(base, at, id, put)
	w.audited(k, id)
}

// hide is a document as it is answered: without its secrets.
func (w *walker) hide(doc map[string]any) map[string]any {
	w.t.Helper()
	out := parse(w.t, asJSON(w.t, doc))
	delete(out, "LastModifiedOn")
	hideIn(out)
	return out
}

// hideIn takes the secrets out of an object and the objects in it.
func hideIn(out map[string]any) {
	for name, value := range out {
		switch s, ok := value.(map[string]any); {
		case ok && s["NewValue"] != nil:
			out[name] = map[string]any{"HasValue": true, "NewValue": nil}
		case ok:
			hideIn(s)
		}
	}
}

// found looks for a document in all the ways in which it can be found.
func (w *walker) found(k *resource.Kind, doc map[string]any, base string) {
	t, id := w.t, doc["Id"].(string)
	t.Helper()
	refs := []string{id, strings.ToLower(id)}
	queries := []string{"ids=" + id, "ids=" + strings.ToLower(id) + ",x", "take=1000", "take=2147483647"}
	if slug, _ := doc["Slug"].(string); k.Slugged {
		refs = append(refs, slug)
	}
	if !k.Unnamed {
		name := doc["Name"].(string)
		refs = append(refs, name, strings.ToUpper(name))
		queries = append(queries, "name="+url.QueryEscape(name), "partialName="+url.QueryEscape(strings.ToUpper(name[1:])))
	}
	for _, f := range k.Filters {
		if values := resource.Values(doc, f.Path); len(values) > 0 {
			queries = append(queries, "ids="+id+"&"+f.Param+"="+url.QueryEscape(values[0]))
		}
		if ids := w.ids(base + "?ids=" + id + "&" + f.Param + "=no-such-value"); len(ids) != 0 {
			t.Errorf("%s=no-such-value finds %v", f.Param, ids)
		}
	}
	for _, prefix := range []string{base, strings.Replace(base, "/api/", "/api/Spaces-1/", 1), strings.Replace(base, "/api/", "/api/spaces/default/", 1)} {
		if prefix != base && k.Scope == resource.InSystem {
			continue
		}
		for _, ref := range refs {
			if got := w.get(prefix + "/" + url.PathEscape(ref)); got["Id"] != id {
				t.Errorf("%s/%s is %v", prefix, ref, got["Id"])
			}
		}
		for _, q := range queries {
			if ids := w.ids(prefix + "?" + q); !slices.Contains(ids, id) {
				t.Errorf("%s?%s finds %v", prefix, q, ids)
			}
		}
		if ids := w.ids(prefix + "/all"); !slices.Contains(ids, id) {
			t.Errorf("%s/all has %v", prefix, ids)
		}
	}
}

// guarded: If-Match keeps a change from others' changes.
func (w *walker) guarded(at string, put map[string]any) {
	t := w.t
	t.Helper()
	for method, body := range map[string]string{http.MethodPut: asJSON(t, put), http.MethodDelete: ""} {
		req, err := http.NewRequestWithContext(t.Context(), method, w.URL+at, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Octopus-ApiKey", w.Key)
		req.Header.Set("If-Match", `"1"`)
		if resp, err := w.Send(req); err != nil || resp.Status != http.StatusConflict || !strings.Contains(string(resp.Body), "modified by somebody else") {
			t.Errorf("%s with an old If-Match: %v %+v", method, err, resp)
		}
	}
}

// kept: what is used cannot be deleted, and the refusal says by whom it is.
func (w *walker) kept(e example, at, id string) {
	t := w.t
	t.Helper()
	user := w.make(e.userKind, w.fill(e.user, id))
	said := w.Refused(t, http.StatusConflict, http.MethodDelete, at, nil)
	if !strings.Contains(said, "cannot be deleted because it is used by") || !strings.Contains(said, user) {
		t.Errorf("the guard says %q", said)
	}
	w.Must(t, http.MethodDelete, "/api/"+e.userKind+"/"+user, nil, nil)
}

// gone: nothing finds it any more, and clients can tell.
func (w *walker) gone(base, at, id string, put map[string]any) {
	t := w.t
	t.Helper()
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
		var body any
		if method == http.MethodPut {
			body = put
		}
		resp, err := w.Do(t.Context(), method, at, body)
		if err != nil {
			t.Fatal(err)
		}
		answer := parse(t, string(resp.Body))
		_, errors := answer["Errors"]
		if message, _ := answer["ErrorMessage"].(string); resp.Status != http.StatusNotFound || errors || !strings.Contains(message, id) {
			t.Errorf("%s of what is gone: %d %s", method, resp.Status, resp.Body)
		}
	}
	if ids := w.ids(base + "?ids=" + id); len(ids) != 0 {
		t.Errorf("the list still has %v", ids)
	}
}

// audited: every step has left an event that names it.
func (w *walker) audited(k *resource.Kind, id string) {
	t := w.t
	t.Helper()
	var got []string
	err := w.d.Read(t.Context(), func(tx *db.Tx) error {
		rows, err := tx.Query(t.Context(), `SELECT e.category, e.document_type, e.username, e.details FROM events e JOIN event_related r ON r.event_id = e.id
			WHERE r.document_id = ? AND e.document_type = ? AND e.category NOT LIKE 'Machine%' ORDER BY e.id`, id, k.ItemType)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var category, kind, user, details string
			if err := rows.Scan(&category, &kind, &user, &details); err != nil {
				return err
			}
			if strings.Contains(details, "hush") || strings.Contains(details, "tako1:") {
				t.Errorf("an event has a secret: %s", details)
			}
			if user == "admin" {
				got = append(got, category)
			}
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"Created", "Modified", "Modified", "Modified", "Deleted"}
	if compact := slices.Compact(got); len(got) < len(want) || !slices.Equal(compact, slices.Compact(want)) {
		t.Errorf("the audit trail has %v", got)
	}
}

// TestExamplesAreWanted: an example of a kind that is no more is in the way.
func TestExamplesAreWanted(t *testing.T) {
	t.Parallel()
	for _, e := range examples() {
		if !slices.ContainsFunc(resources.All(), func(k *resource.Kind) bool { return k.Name == e.kind && !k.Hidden }) {
			t.Errorf("there is no kind %s", e.kind)
		}
		if e.full == "" || e.cleared == "" {
			t.Error(fmt.Errorf("the example of %s is not complete", e.kind))
		}
	}
}
