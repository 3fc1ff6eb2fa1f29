package projects_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

func TestSortOrder(t *testing.T) {
	t.Parallel()
	w := newWorld(actiontest.New(t, routes))
	test := w.Create("/api/environments", `{"Name":"Test"}`)
	put := func(key string, ids ...string) actiontest.Answer {
		return w.Do(http.MethodPut, "/api/environments/sortorder", key, `["`+strings.Join(ids, `","`)+`"]`)
	}
	if a := put(actiontest.Admin, w.prod, strings.ToLower(test), w.dev); a.Status != 200 || !slices.Equal(a.IDs(), []string{w.prod, test, w.dev}) {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if ids := w.Get("/api/environments").IDs(); !slices.Equal(ids, []string{w.prod, test, w.dev}) {
		t.Errorf("%v", ids)
	}
	for name, ids := range map[string][]string{
		"one is left out": {w.prod, test}, "one is there twice": {w.prod, test, w.dev, w.dev}, "one is of another kind": {w.prod, test, w.web},
	} {
		if a := put(actiontest.Admin, ids...); a.Status != http.StatusBadRequest {
			t.Errorf("%s: %d %s", name, a.Status, a.Body)
		}
	}
	if a := put(w.person([]string{"EnvironmentView"}), w.prod, test, w.dev); a.Status != 403 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	if a := put(w.person([]string{"EnvironmentView", "EnvironmentEdit"}, w.dev), w.dev, w.prod, test); a.Status != 403 {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	// The order as it is changes nothing, and would show what one may not see.
	if a := put(w.person([]string{"EnvironmentView", "EnvironmentEdit"}, w.dev), w.prod, test, w.dev); a.Status != 403 || strings.Contains(string(a.Body), "Prod") {
		t.Errorf("%d %s", a.Status, a.Body)
	}
	pool := w.Create("/api/workerpools", `{"Name":"Second"}`)
	if a := w.Must(200, http.MethodPut, "/api/workerpools/sortorder", `["`+pool+`","WorkerPools-1"]`); !slices.Equal(a.IDs(), []string{pool, "WorkerPools-1"}) {
		t.Errorf("%s", a.Body)
	}
	if ids := w.Get("/api/workerpools").IDs(); !slices.Equal(ids, []string{pool, "WorkerPools-1"}) {
		t.Errorf("%v", ids)
	}
}

// An agent that registers itself finds its environments here.
func TestEnvironmentsV2(t *testing.T) {
	t.Parallel()
	w := newWorld(actiontest.New(t, routes))
	var page octopus.Page[octopus.EnvironmentV2]
	w.Get("/api/Spaces-1/environments/v2?skip=0&take=2147483647").Into(&page)
	if page.TotalResults != 2 || page.Items[0].Type != octopus.EnvironmentStatic || page.Items[0].Name != "Dev" || page.Items[0].Slug != "dev" {
		t.Errorf("%+v", page)
	}
	for query, want := range map[string][]string{
		"name=prod": {w.prod}, "partialName=D": {w.dev, w.prod}, "ids=" + w.dev: {w.dev}, "type=Static&skip=1": {w.prod}, "type=Parent": {}, "type=ephemeral": {},
	} {
		if got := w.Get("/api/environments/v2?" + query).IDs(); !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
	if ids := w.MustAs(w.person([]string{"EnvironmentView"}, w.dev), 200, http.MethodGet, "/api/environments/v2", "").IDs(); !slices.Equal(ids, []string{w.dev}) {
		t.Errorf("%v", ids)
	}
}

func TestEnvironmentsSummary(t *testing.T) {
	t.Parallel()
	w := newWorld(actiontest.New(t, routes))
	w.Create("/api/machines", `{"Name":"box2","EnvironmentIds":["`+w.prod+`","`+w.dev+`"],"Roles":["db"],"IsDisabled":true,"Endpoint":{"CommunicationStyle":"TentaclePassive","Uri":"https://x:10933/","Thumbprint":"AB"}}`)
	count := func(key, query string) (total int, by map[string]int) {
		t.Helper()
		var s octopus.EnvironmentsSummary
		w.MustAs(key, 200, http.MethodGet, "/api/environments/summary?"+query, "").Into(&s)
		by = map[string]int{}
		for _, e := range s.EnvironmentSummaries {
			by[e.Environment.Name] = e.TotalMachines
		}
		return s.TotalMachines, by
	}
	for query, want := range map[string]map[string]int{
		"": {"Dev": 1, "Prod": 2},
		"hideEmptyEnvironments=true&roles=web-server": {"Prod": 1},
		"isDisabled=true":          {"Dev": 1, "Prod": 1},
		"commStyles=None":          {"Dev": 0, "Prod": 1},
		"machinePartialName=BOX1":  {"Dev": 0, "Prod": 1},
		"partialName=dev":          {"Dev": 1},
		"ids=" + w.prod:            {"Prod": 2},
		"healthStatuses=Unhealthy": {"Dev": 0, "Prod": 0},
	} {
		if _, got := count(actiontest.Admin, query); !cmp.Equal(got, want) {
			t.Errorf("%s: %v, want %v", query, got, want)
		}
	}
	var s octopus.EnvironmentsSummary
	w.Get("/api/environments/summary").Into(&s)
	if s.TotalMachines != 2 || s.TotalDisabledMachines != 1 || s.MachineHealthStatusSummaries["Unknown"] != 2 || s.MachineEndpointSummaries["TentaclePassive"] != 1 || s.EnvironmentSummaries[0].Environment.Links["Self"] == "" {
		t.Errorf("%+v", s)
	}
	if total, by := count(w.person([]string{"EnvironmentView", "MachineView"}, w.dev), ""); total != 1 || !cmp.Equal(by, map[string]int{"Dev": 1}) {
		t.Errorf("%d %v", total, by)
	}
	w.Must(400, http.MethodGet, "/api/environments/summary?hideEmptyEnvironments=x", "")
}

func TestPoolsAndMachines(t *testing.T) {
	t.Parallel()
	w := newWorld(actiontest.New(t, routes))
	w.Create("/api/workers", `{"Name":"w1","WorkerPoolIds":["WorkerPools-1"],"Endpoint":{"CommunicationStyle":"None"}}`)
	w.Create("/api/workerpools", `{"Name":"Empty"}`)
	w.Create("/api/machines", `{"Name":"box2","EnvironmentIds":["`+w.dev+`"],"Roles":["db","Web-Server"],"Endpoint":{"CommunicationStyle":"None"}}`)
	var s octopus.WorkerPoolsSummary
	w.Get("/api/workerpools/summary?hideEmptyWorkerPools=true").Into(&s)
	if s.TotalMachines != 1 || len(s.WorkerPoolSummaries) != 1 || s.WorkerPoolSummaries[0].WorkerPool.ID != "WorkerPools-1" {
		t.Errorf("%+v", s)
	}
	err := w.DB.Write(t.Context(), func(tx *db.Tx) error {
		for _, id := range []string{w.machine} {
			var m octopus.Machine
			if err := w.Store.Load(t.Context(), tx, "machines", id, &m); err != nil {
				return err
			}
			m.OperatingSystem, m.ShellName = "Debian 13", "Bash"
			if err := w.Store.In(tx).Replace(t.Context(), "machines", id, &m); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/api/machineroles/all":                    `["db","web-server"]`,
		"/api/machines/operatingsystem/names/all":  `["Debian 13"]`,
		"/api/machines/operatingsystem/shells/all": `["Bash"]`,
		"/api/workers/operatingsystem/names/all":   `[]`,
		"/api/workers/operatingsystem/shells/all":  `[]`,
		"/api/workerpools/dynamicworkertypes":      `{"Id":"dynamicworkertypes","WorkerTypes":[],"Links":{"Self":"/api/Spaces-1/workerpools/dynamicworkertypes"}}`,
		"/api/workerpools/supportedtypes":          `{"Id":"supportedtypes","SupportedPoolTypes":["StaticWorkerPool"],"Links":{"Self":"/api/Spaces-1/workerpools/supportedtypes"}}`,
	} {
		got := strings.TrimSpace(string(w.Get(path).Body))
		if !strings.EqualFold(got, want) {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
	key := w.person([]string{"MachineView"}, w.dev)
	if got := strings.TrimSpace(string(w.MustAs(key, 200, http.MethodGet, "/api/machines/operatingsystem/names/all", "").Body)); got != "[]" {
		t.Errorf("%s", got)
	}
	w.MustAs(key, 403, http.MethodGet, "/api/workerpools/summary", "")
	var policy octopus.MachinePolicy
	w.Get("/api/machinepolicies/template").Into(&policy)
	if policy.ID != "" || policy.ConnectionConnectTimeout == 0 || policy.MachineHealthCheckPolicy.HealthCheckInterval == nil {
		t.Errorf("%+v", policy)
	}
}

func TestRuleTest(t *testing.T) {
	t.Parallel()
	w := newWorld(actiontest.New(t, routes))
	for query, want := range map[string]string{
		"version=1.2.0&versionRange=[1.0,2.0)&preReleaseTag=^$":              "true true true []",
		"version=2.0.0&versionRange=[1.0,2.0)&preReleaseTag=^$":              "false true true []",
		"version=1.2.0-beta.1&versionRange=&preReleaseTag=^$":                "true false true []",
		"version=1.2.0-beta.1&preReleaseTag=^beta&feedType=NuGet":            "true true true []",
		"version=nonsense%20here&versionRange=[1.0,2.0)":                     "false false false [Invalid Version Number]",
		"version=1.2.0&versionTagRegex=^2&feedId=feeds-builtin":              "true true false []",
		"version=1.0-alpha&versionRange=[1.0-alpha,1.0-beta]&feedType=Maven": "true true true []",
	} {
		for _, path := range []string{"/api/channels/rule-test", "/api/Spaces-1/channels/rule-test/v1"} {
			var got octopus.ChannelRuleTest
			a := w.Get(path + "?" + strings.ReplaceAll(strings.ReplaceAll(query, "[", "%5B"), "^", "%5E"))
			a.Into(&got)
			text := fmt.Sprintf("%t %t %v %v", got.SatisfiesVersionRange, got.SatisfiesPreReleaseTag, a.JSON()["SatisfiesVersionTagRegex"], []string(got.Errors))
			if text != want {
				t.Errorf("%s?%s: %s, want %s", path, query, text, want)
			}
		}
	}
	bad := w.Get("/api/channels/rule-test?version=1.0&versionRange=x&preReleaseTag=(").JSON()
	if errs, _ := bad["Errors"].([]any); len(errs) != 2 || bad["SatisfiesVersionRange"] != false {
		t.Errorf("%v", bad)
	}
	posted := w.Must(200, http.MethodPost, "/api/channels/rule-test", `{"version":"1.2.0","versionRange":"[2.0,)"}`).JSON()
	if posted["SatisfiesVersionRange"] != false || posted["SatisfiesPreReleaseTag"] != true {
		t.Errorf("%v", posted)
	}
	w.Must(400, http.MethodGet, "/api/channels/rule-test", "")
	w.Must(404, http.MethodGet, "/api/channels/rule-test?version=1&feedId=none", "")
}

func TestAccountUsages(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		account := w.Create("/api/accounts", `{"Name":"Key","AccountType":"UsernamePassword","Username":"u"}`)
		w.Create("/api/accounts", `{"Name":"Unused","AccountType":"UsernamePassword","Username":"u"}`)
		box := w.Create("/api/machines", `{"Name":"ssh1","EnvironmentIds":["`+w.prod+`"],"Roles":["x"],"Endpoint":{"CommunicationStyle":"Ssh","Host":"h","Port":22,"AccountId":"`+account+`"}}`)
		use := value("Login", account, w.prod)
		use.Type = octopus.VariableUserAccount
		w.mustPut(actiontest.Admin, w.read(actiontest.Admin, w.web), use, value("Talk", "about "+account))
		w.mustPut(actiontest.Admin, w.read(actiontest.Admin, w.library), use)
		w.Must(200, http.MethodPut, "/api/projects/web/deploymentprocesses", `{"Version":2,"Steps":[{"Id":"s2","Name":"Cloud","Actions":[{"Name":"Cloud","ActionType":"Octopus.Script","Properties":{"Account":"`+account+`"}}]}]}`)
		var got octopus.AccountUsages
		w.Get("/api/accounts/Key/usages").Into(&got)
		got.Links = nil
		want := octopus.AccountUsages{
			DeploymentProcesses: octopus.List[octopus.ProcessUsage]{{ProjectID: w.web, ProjectName: "Web", ProjectSlug: "web", ProcessID: "deploymentprocess-" + w.web, Steps: octopus.List[octopus.StepUsage]{{StepID: "s2", StepName: "Cloud"}}}},
			RunbookProcesses:    octopus.List[octopus.ProcessUsage]{},
			LibraryVariableSets: octopus.List[octopus.VariableSetUsage]{{ID: w.library, Name: "Shared"}},
			ProjectVariableSets: octopus.List[octopus.VariableSetUsage]{{ID: "variableset-" + w.web, Name: "Web", ProjectID: octopus.NullString(w.web)}},
			Targets:             octopus.List[octopus.TargetUsage]{{TargetID: box, TargetName: "ssh1"}},
			Releases:            octopus.List[octopus.ReleaseUsage]{},
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		var none octopus.AccountUsages
		w.Get("/api/accounts/Unused/usages").Into(&none)
		if len(none.DeploymentProcesses)+len(none.LibraryVariableSets)+len(none.ProjectVariableSets)+len(none.Targets) != 0 {
			t.Errorf("%+v", none)
		}
		// What one may not see is not told, though the account is for all environments.
		limited := w.person([]string{"AccountView", "VariableView", "MachineView"}, w.dev)
		unlimited := w.Person(actiontest.Role{Space: home, Permissions: []string{"AccountView"}}, actiontest.Role{Space: home, Permissions: []string{"VariableView", "MachineView"}, Scope: octopus.ScopedUserRole{EnvironmentIDs: []string{w.dev}}})
		for _, key := range []string{limited, unlimited} {
			var little octopus.AccountUsages
			w.MustAs(key, 200, http.MethodGet, "/api/accounts/Key/usages", "").Into(&little)
			if len(little.DeploymentProcesses)+len(little.LibraryVariableSets)+len(little.ProjectVariableSets)+len(little.Targets) != 0 {
				t.Errorf("%+v", little)
			}
		}
	})
}

func TestFeedStats(t *testing.T) {
	t.Parallel()
	w := newWorld(actiontest.New(t, routes))
	var s octopus.BuiltInFeedStats
	w.Get("/api/feeds/stats").Into(&s)
	if s.TotalPackages != 0 || s.Links["Self"] != "/api/Spaces-1/feeds/stats" {
		t.Errorf("%+v", s)
	}
	w.MustAs(w.person([]string{"ProjectView"}), 403, http.MethodGet, "/api/feeds/stats", "")
}
