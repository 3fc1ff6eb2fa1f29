package test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/permission"
	"github.com/takodeploy/tako/octopus"
)

// crowd makes n more of everything that lists show, and has them refer to each
// other in as many ways: each environment has a lifecycle, which a channel of the
// project follows, whose release is deployed there, and so on.
func (f *furnished) crowd(prefix string, n int) {
	f.t.Helper()
	t := f.t
	project := apptest.Get[octopus.Project](t, f.Client, "/api/projects/"+f.of["project"])
	dev := apptest.Get[octopus.Environment](t, f.Client, "/api/environments/"+f.of["dev"])
	m := &model{Client: f.Client, Project: project}
	at := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	for i := range n {
		name := fmt.Sprintf("%s-%d", prefix, i)
		here := map[string]string{}
		add := func(what, path, body string) {
			for key, id := range here {
				body = strings.ReplaceAll(body, "<"+key+">", id)
			}
			here[what] = f.make(path, strings.ReplaceAll(body, "<name>", name))
		}
		add("environment", "environments", `{"Name":"<name>"}`)
		add("lifecycle", "lifecycles", `{"Name":"<name>","Phases":[{"Name":"All","OptionalDeploymentTargets":["{dev}","<environment>"]}]}`)
		add("group", "projectgroups", `{"Name":"<name>"}`)
		add("project", "projects", `{"Name":"<name>","ProjectGroupId":"<group>","LifecycleId":"<lifecycle>"}`)
		add("channel", "channels", `{"Name":"<name>","ProjectId":"{project}","LifecycleId":"<lifecycle>"}`)
		add("tenant", "tenants", `{"Name":"<name>","TenantTags":["Ring/One"],"ProjectEnvironments":{"{project}":["{dev}","<environment>"],"<project>":["<environment>"]}}`)
		add("policy", "machinepolicies", `{"Name":"<name>"}`)
		add("proxy", "proxies", `{"Name":"<name>","Host":"h","Port":1}`)
		add("pool", "workerpools", `{"Name":"<name>"}`)
		add("machine", "machines", `{"Name":"<name>","EnvironmentIds":["{dev}","<environment>"],"Roles":["web","<name>"],"MachinePolicyId":"<policy>","TenantedDeploymentParticipation":"TenantedOrUntenanted","TenantIds":["<tenant>"],"Endpoint":{"CommunicationStyle":"TentaclePassive","Uri":"https://h:10933/","Thumbprint":"AB","ProxyId":"<proxy>"}}`)
		add("worker", "workers", `{"Name":"<name>","WorkerPoolIds":["{pool}","<pool>"],"MachinePolicyId":"<policy>","Endpoint":{"CommunicationStyle":"None"}}`)
		add("library", "libraryvariablesets", `{"Name":"<name>"}`)
		add("tagset", "tagsets", `{"Name":"<name>","Tags":[{"Name":"One"}]}`)
		add("template", "actiontemplates", `{"Name":"<name>","ActionType":"Octopus.Script"}`)
		add("account", "accounts", `{"Name":"<name>","AccountType":"Token","EnvironmentIds":["<environment>"],"TenantIds":["<tenant>"]}`)
		add("certificate", "certificates", `{"Name":"<name>","CertificateData":{"NewValue":"`+sitePEM()+`"}}`)
		add("git", "git-credentials", `{"Name":"<name>","Details":{"Username":"u"}}`)
		add("feed", "feeds", `{"Name":"<name>","FeedType":"NuGet"}`)
		add("freeze", "deploymentfreezes", `{"Name":"<name>","Start":"2026-12-24T00:00:00Z","End":"2026-12-27T00:00:00Z","ProjectEnvironmentScope":{"{project}":["<environment>"]}}`)
		add("user", "users", `{"Username":"<name>","IsService":true}`)
		add("team", "teams", `{"Name":"<name>","MemberUserIds":["<user>","{user}"]}`)
		add("role", "userroles", `{"Name":"<name>","GrantedSpacePermissions":["ProjectView"]}`)
		add("scoped", "scopeduserroles", `{"TeamId":"<team>","UserRoleId":"<role>","SpaceId":"Spaces-1","ProjectIds":["<project>"],"EnvironmentIds":["<environment>"],"TenantIds":["<tenant>"],"ProjectGroupIds":["<group>"]}`)
		add("scoped", "scopeduserroles", `{"TeamId":"{team}","UserRoleId":"<role>","SpaceId":"Spaces-1","ProjectIds":["<project>"]}`)
		add("subscription", "subscriptions", `{"Name":"<name>"}`)
		add("key", "users/"+f.of["user"]+"/apikeys", `{"Purpose":"<name>"}`)
		add("trigger", "projecttriggers", `{"Name":"<name>","ProjectId":"{project}","IsDisabled":true,"Filter":{"FilterType":"OnceDailySchedule","StartTime":"2026-01-01T09:00:00.000+00:00","Timezone":"UTC"},"Action":{"ActionType":"DeployNewRelease","EnvironmentId":"<environment>"}}`)
		add("identity", "serviceaccounts/"+f.of["user"]+"/oidcidentities/create/v1", `{"Name":"<name>","Issuer":"https://ci.example.com","Subject":"repo:<name>/*"}`)
		for _, file := range []string{"Acme.Web.1." + fmt.Sprint(len(name)) + "." + strings.ReplaceAll(name, "-", "") + ".zip", "Acme." + name + ".1.0.0.zip"} {
			if r := f.Upload(t, "/api/packages/raw", strings.ReplaceAll(file, "1."+fmt.Sprint(len(name))+".", "1.0.0-"), archive(t, map[string]string{"a": name})); r.Status != http.StatusCreated {
				t.Fatalf("push: %d %s", r.Status, r.Body)
			}
		}
		add("build", "build-information", `{"PackageId":"Acme.Web","Version":"1.0.0-`+strings.ReplaceAll(name, "-", "")+`","OctopusBuildInformation":{"BuildNumber":"12","VcsCommitNumber":"abc"}}`)
		release, version := m.release(t, map[string]any{"channelName": name})
		f.make("releases/"+release+"/defects", `{"Description":"`+name+`"}`)
		f.Must(t, http.MethodPost, "/api/releases/"+release+"/defects/resolve", nil, nil)
		for _, one := range []struct{ version, environment string }{{f.of["version"], dev.Name}, {version, name}, {version, dev.Name}} {
			body := m.deployment(one.version, octopus.Environment{Name: one.environment})
			body["runAt"] = at
			f.Must(t, http.MethodPost, space+"/deployments/create/untenanted/v1", body, nil)
		}
		f.asked(name, i)
	}
}

// asked gives the first task an interruption and an artifact.
func (f *furnished) asked(name string, i int) {
	f.t.Helper()
	err := f.d.WriteEngine(f.t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(f.t.Context(), `INSERT INTO interruption (id, seq, task, space_id, project_id, environment_id, tenant_id, kind, title, unit, correlation, created, pending, responsible_user, body)
			VALUES (?, ?, ?, 'Spaces-1', ?, ?, '', 'ManualIntervention', ?, '', '', ?, 1, '', '{}')`, "Interruptions-"+name, 1000+i, f.of["task"], f.of["project"], f.of["dev"], name, db.Micros(tx.Now()))
		if err == nil {
			_, err = tx.Exec(f.t.Context(), `INSERT INTO artifact (id, seq, task, space_id, filename, source, correlation, created, size, sha256) VALUES (?, ?, ?, 'Spaces-1', ?, '', '', ?, 1, 'ab')`,
				"Artifacts-"+name, 1000+i, f.of["task"], name, db.Micros(tx.Now()))
		}
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
}

// partial is somebody who may see everything in a project group, and everything in
// an environment, so that each list is cut.
func (f *furnished) partial() *apptest.Client {
	f.t.Helper()
	var role octopus.UserRole
	role.Name = "Everything"
	for _, info := range permission.All() {
		if info.Space {
			role.GrantedSpacePermissions = append(role.GrantedSpacePermissions, info.Name)
		}
	}
	f.Must(f.t, http.MethodPost, "/api/userroles", role, &role)
	me := f.make("users", `{"Username":"partial","IsService":true}`)
	team := f.make("teams", `{"Name":"Partial","MemberUserIds":["`+me+`"]}`)
	for _, scope := range []string{`"ProjectGroupIds":["{group}"]`, `"EnvironmentIds":["{dev}"]`} {
		f.make("scopeduserroles", `{"TeamId":"`+team+`","UserRoleId":"`+role.ID+`","SpaceId":"Spaces-1",`+scope+`}`)
	}
	var key struct{ APIKey string }
	f.Must(f.t, http.MethodPost, "/api/users/"+me+"/apikeys", map[string]string{"Purpose": "test"}, &key)
	return f.As(key.APIKey)
}

// TestStatementsDoNotGrowWithRows counts the SQL statements of everything that can
// be read, with three rows of each kind and with thirty: as many. Whatever asks for
// each row by itself is found by the route table, and not by whoever has a large
// installation. How many statements there are does not depend on the database.
func TestStatementsDoNotGrowWithRows(t *testing.T) {
	t.Parallel()
	var statements atomic.Int64
	s := apptest.StartWith(t, db.SQLite, apptest.Options{NoWorker: true, OnStatement: func(string) { statements.Add(1) }})
	f := furnish(t, s)
	f.crowd("few", 3)
	people := map[string]*apptest.Client{"the administrator": s.Client, "somebody with a part of it": f.partial()}
	read := func(who, path string) (answer *apptest.Response, n int64) {
		before := statements.Load()
		answer, err := people[who].Do(t.Context(), http.MethodGet, path, nil)
		if err != nil {
			t.Fatal(err)
		}
		return answer, statements.Load() - before
	}
	// What the server does by itself meanwhile only adds: the least of several
	// readings is what the request took. The first fills caches. A slow machine
	// may be busy with its own work for many readings; a path that asks for each
	// row never gets to enough, however often it is read.
	least := func(who, path string, times int, enough int64) int64 {
		_, n := read(who, path)
		for range times {
			if _, again := read(who, path); again < n {
				n = again
			}
			if n <= enough {
				break
			}
		}
		return n
	}
	type request struct{ who, path string }
	few := map[request]int64{}
	for _, op := range f.ops {
		if op.Method != http.MethodGet || !op.json {
			continue
		}
		for who := range people {
			path := f.path(op, nil) + needed(op, f)
			if answer, _ := read(who, path); answer.Status == http.StatusOK {
				few[request{who, path}] = least(who, path, 2, 0)
			}
		}
	}
	f.crowd("many", 27)
	for r, n := range few {
		if many := least(r.who, r.path, 2000, n); many > n {
			t.Errorf("GET %s by %s: %d statements with three rows, %d with thirty", r.path, r.who, n, many)
		}
	}
	if len(few) < 200 {
		t.Errorf("only %d paths were read", len(few))
	}
}
