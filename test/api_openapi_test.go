package test

import (
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/openapitest"
	"github.com/takodeploy/tako/octopus"
)

// operation is a line of the route table with what the OpenAPI document says of it.
type operation struct {
	rest.Line
	query []*openapi3.Parameter
	body  *openapi3.Schema // nil when the operation reads no JSON
	json  bool             // it answers with JSON
}

// operations lists everything that the server can do, from its route table. What
// the table has, the document must have, and nothing else.
func operations(t testing.TB, c *apptest.Client) []operation {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(c.Must(t, http.MethodGet, "/api/openapi.json", nil, nil).Body)
	if err != nil {
		t.Fatal(err)
	}
	lines := routeTable(t)
	described := 0
	for _, item := range doc.Paths.Map() {
		described += len(item.Operations())
	}
	var all []operation
	for _, line := range lines {
		path := strings.ReplaceAll(strings.TrimSuffix(line.Path, "/"), "...}", "}")
		item := doc.Paths.Value(path)
		if item == nil || item.GetOperation(line.Method) == nil {
			t.Errorf("the OpenAPI document has no %s %s", line.Method, line.Path)
			continue
		}
		described--
		if line.Mount == rest.InEither { // stands there a second time, without the space
			described--
		}
		op := operation{Line: line}
		spec := item.GetOperation(line.Method)
		for _, p := range spec.Parameters {
			if p.Value.In == openapi3.ParameterInQuery {
				op.query = append(op.query, p.Value)
			}
		}
		if spec.RequestBody != nil {
			if media := spec.RequestBody.Value.Content.Get("application/json"); media != nil {
				op.body = media.Schema.Value
			}
		}
		op.json = spec.Responses.Value("200").Value.Content.Get("application/json") != nil
		all = append(all, op)
	}
	if described != 0 {
		t.Errorf("the document has %d operations that the table of routes has not", described)
	}
	return all
}

// routeTable lists all operations.
func routeTable(t testing.TB) []rest.Line {
	t.Helper()
	lines, err := app.RouteTable("2026.4.0-test")
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// furnished is a server with something of everything: documents, a package, a
// release, and a deployment that waits for its time.
type furnished struct {
	*walker
	ops []operation
	// far has the ids of like things in another space, and where that is.
	far      map[string]string
	farSpace string
}

// furnish makes all that. Nothing goes on by itself when it returns.
func furnish(t testing.TB, s *apptest.Server) *furnished {
	t.Helper()
	w := newWalker(t, s)
	f := &furnished{walker: w, ops: operations(t, s.Client), far: map[string]string{}}
	project := apptest.Get[octopus.Project](t, s.Client, "/api/projects/"+w.of["project"])
	w.of["builtin"] = "feeds-builtin"
	_, w.of["agent port"], _ = strings.Cut(s.App.AgentAddr().String(), ":")
	w.of["space"], w.of["process"], w.of["variables"] = "Spaces-1", project.DeploymentProcessID, project.VariableSetID
	m := &model{Client: s.Client, Project: project}
	m.process(t, script("Say", "echo hello"))
	m.variables(t, text("Greeting", "Hello", octopus.Scope{}))
	if r := s.Upload(t, "/api/packages/raw", "Acme.Web.1.2.0.zip", archive(t, map[string]string{"a": "b"})); r.Status != http.StatusCreated {
		t.Fatalf("push: %d %s", r.Status, r.Body)
	}
	w.of["first"], w.of["retention"] = "0", "RetentionPolicies-RunbookRetention-Spaces-1"
	w.of["package"], w.of["server certificate"] = "packages-Acme.Web.1.2.0", octopus.CertificateGlobalID
	nuspec := `<package><metadata><id>Acme.Lib</id><version>1.0.0</version><description>A library</description></metadata></package>`
	if r := s.Upload(t, "/nuget/packages", "package.nupkg", archive(t, map[string]string{"Acme.Lib.nuspec": nuspec})); r.Status != http.StatusCreated {
		t.Fatalf("push to NuGet: %d %s", r.Status, r.Body)
	}
	w.of["library package"], w.of["library version"] = "Acme.Lib", "1.0.0"
	w.of["build"] = w.make("build-information", `{"PackageId":"Acme.Web","Version":"1.2.0","OctopusBuildInformation":{"BuildNumber":"12","VcsCommitNumber":"abc"}}`)
	w.of["trigger"] = w.make("projecttriggers", `{"Name":"Nightly","ProjectId":"{project}","IsDisabled":true,"Filter":{"FilterType":"OnceDailySchedule","StartTime":"2026-01-01T09:00:00.000+00:00","Timezone":"UTC"},"Action":{"ActionType":"DeployNewRelease","EnvironmentId":"{dev}"}}`)
	release, version := m.release(t, nil)
	w.of["release"], w.of["version"] = release, version
	dev := apptest.Get[octopus.Environment](t, s.Client, "/api/environments/"+w.of["dev"])
	later := m.deployment(version, dev)
	later["runAt"] = time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	var started struct {
		DeploymentServerTasks []struct{ ServerTaskID string }
	}
	m.Must(t, http.MethodPost, space+"/deployments/create/untenanted/v1", later, &started)
	w.of["task"] = started.DeploymentServerTasks[0].ServerTaskID
	w.of["deployment"] = w.ids("/api/deployments?releases=" + release)[0]
	w.of["identity"] = w.make("serviceaccounts/"+w.of["user"]+"/oidcidentities/create/v1", `{"Name":"CI","Issuer":"https://ci.example.com","Subject":"repo:acme/*"}`)
	w.of["key"] = w.make("users/"+w.of["user"]+"/apikeys", `{"Purpose":"test"}`)
	w.of["machine"] = w.make("machines", `{"Name":"Machine","EnvironmentIds":["{dev}"],"Roles":["web"],"Endpoint":{"CommunicationStyle":"None"}}`)
	w.of["worker"] = w.make("workers", `{"Name":"Worker","WorkerPoolIds":["{pool}"],"Endpoint":{"CommunicationStyle":"None"}}`)
	w.of["targetToken"] = w.make("machines/registration-tokens", `{"EnvironmentIds":["{dev}"],"Roles":["web"]}`)
	w.of["workerToken"] = w.make("workers/registration-tokens", `{"WorkerPoolIds":["{pool}"]}`)
	w.of["feed"] = w.make("feeds", `{"Name":"Feed","FeedType":"NuGet"}`)
	w.of["scoped"] = w.make("scopeduserroles", `{"TeamId":"{team}","UserRoleId":"{role}","SpaceId":"Spaces-1"}`)
	w.of["channel"] = w.ids("/api/projects/" + w.of["project"] + "/channels")[0]
	w.of["event"] = w.ids("/api/events")[0]
	w.of["node"] = w.ids("/api/octopusservernodes")[0]

	f.farSpace = w.make("spaces", `{"Name":"Far","SpaceManagersTeams":["teams-administrators"]}`)
	at := f.farSpace + "/"
	for _, one := range []struct{ name, path, body string }{
		{"dev", "environments", `{"Name":"Far"}`},
		{"lifecycle", "lifecycles", `{"Name":"Far"}`},
		{"group", "projectgroups", `{"Name":"Far"}`},
		{"library", "libraryvariablesets", `{"Name":"Far"}`},
		{"tenant", "tenants", `{"Name":"Far"}`},
		{"account", "accounts", `{"Name":"Far","AccountType":"Token"}`},
		{"policy", "machinepolicies", `{"Name":"Far"}`},
		{"proxy", "proxies", `{"Name":"Far","Host":"h","Port":1}`},
		{"pool", "workerpools", `{"Name":"Far"}`},
		{"feed", "feeds", `{"Name":"Far","FeedType":"NuGet"}`},
	} {
		f.far[one.name] = w.make(at+one.path, one.body)
	}
	var far octopus.Project
	w.Must(t, http.MethodPost, "/api/"+at+"projects", octopus.Project{Name: "Far", ProjectGroupID: f.far["group"], LifecycleID: f.far["lifecycle"]}, &far)
	f.far["project"], f.far["process"], f.far["variables"] = far.ID, far.DeploymentProcessID, far.VariableSetID
	f.far["channel"] = w.ids("/api/" + at + "projects/" + far.ID + "/channels")[0]
	f.far["machine"] = w.make(at+"machines", `{"Name":"Far","EnvironmentIds":["`+f.far["dev"]+`"],"Roles":["web"],"MachinePolicyId":"`+f.far["policy"]+`","Endpoint":{"CommunicationStyle":"None"}}`)
	f.far["worker"] = w.make(at+"workers", `{"Name":"Far","WorkerPoolIds":["`+f.far["pool"]+`"],"MachinePolicyId":"`+f.far["policy"]+`","Endpoint":{"CommunicationStyle":"None"}}`)
	// What a pushed package sets off, when a certificate expires, and how new machines
	// are, is looked at behind the answer.
	for deadline := time.Now().Add(2 * time.Minute); due(t, w.d) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("the pushes, the certificate and the machines are still to be looked at")
		}
		time.Sleep(10 * time.Millisecond) //nolint:forbidigo // between two looks
	}
	return f
}

// due is how much the scheduler has to do by now, and how many of the checks that it
// has queued are not over, with their logs sealed.
func due(t testing.TB, d *db.DB) (n int64) {
	t.Helper()
	err := d.Read(t.Context(), func(tx *db.Tx) error {
		return tx.QueryRow(t.Context(), `SELECT (SELECT count(*) FROM due u WHERE u.kind = 'push' OR u.pending > 0 OR u.at <= ?)
			+ (SELECT count(*) FROM task t WHERE t.name = 'Health' AND (t.completed_time = 0 OR EXISTS (SELECT 1 FROM task_log l WHERE l.task = t.id) OR EXISTS (SELECT 1 FROM slot s WHERE s.task = t.id)))`, db.Micros(tx.Now())).Scan(&n)
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// named tells what a parameter of a path stands for, by the word before it and
// its own name; "" for what there is none of.
func named(before, parameter string) string {
	switch parameter {
	case "feedId":
		return "builtin"
	case "certificate":
		return "server certificate"
	}
	switch before {
	case "environments":
		return "dev"
	case "deploymentprocesses":
		return "process"
	case "machinepolicies":
		return "policy"
	case "workerpools":
		return "pool"
	case "libraryvariablesets":
		return "library"
	case "projectgroups":
		return "group"
	case "userroles":
		return "role"
	case "scopeduserroles":
		return "scoped"
	case "variables":
		return "variables"
	case "octopusservernodes":
		return "node"
	case "apikeys":
		return "key"
	case "proxies":
		return "proxy"
	case "registration-tokens":
		return parameter
	case "authentication":
		return "user"
	case "details":
		return "task"
	case "preview", "{environment}":
		return map[string]string{"preview": "dev", "{environment}": "tenant"}[before]
	case "retentionpolicies":
		return "retention"
	case "serviceaccounts":
		return "user"
	case "flat", "registration":
		return "library package"
	case "page":
		return "first"
	case "{id}":
		return map[string]string{"version": "library version"}[parameter]
	case "build-information", "package-metadata":
		return "build"
	case "projecttriggers", "scheduledprojecttriggers":
		return "trigger"
	case "oidcidentities":
		return "identity"
	case "versions":
		return "first"
	case "releases":
		if parameter == "version" {
			return "version"
		}
		return "release"
	}
	return strings.TrimSuffix(before, "s")
}

// parameters of a path, each with what it stands for.
func parameters(path string) (names []string) {
	words := strings.Split(path, "/")
	for i, word := range words {
		if strings.HasPrefix(word, "{") {
			names = append(names, named(words[i-1], strings.Trim(word, "{}.")))
		}
	}
	return names
}

// path puts ids into the pattern of an operation: those given for the place of a
// parameter, or those of what there is.
func (f *furnished) path(op operation, instead map[int]string) string {
	f.t.Helper()
	var out []string
	n := -1
	words := strings.Split(strings.TrimSuffix(op.Path, "/"), "/")
	for i, word := range words {
		if !strings.HasPrefix(word, "{") {
			out = append(out, word)
			continue
		}
		n++
		if id, ok := instead[n]; ok {
			out = append(out, id)
			continue
		}
		switch id := f.of[named(words[i-1], strings.Trim(word, "{}."))]; {
		case word == "{space}":
			out = append(out, "Spaces-1")
		case id != "":
			out = append(out, url.PathEscape(id))
		default:
			out = append(out, "None-1")
		}
	}
	return strings.Join(out, "/")
}

// TestAnswersAreWhatTheDocumentSays reads everything there is, and takes a
// document of every kind through its life, and holds every answer against the
// OpenAPI document.
func TestAnswersAreWhatTheDocumentSays(t *testing.T) {
	t.Parallel()
	s := apptest.StartWith(t, db.SQLite, apptest.Options{NoWorker: true})
	document := s.Must(t, http.MethodGet, "/api/openapi.json", nil, nil).Body
	checked := &counter{next: openapitest.Load(t, document).Transport(http.DefaultTransport)}
	s.HTTP = &http.Client{Transport: checked}
	f := furnish(t, s)
	for _, e := range examples() {
		var made struct{ ID string }
		s.Must(t, http.MethodPost, "/api/"+e.kind, f.fill(e.create, ""), &made)
		s.Must(t, http.MethodPut, "/api/"+e.kind+"/"+made.ID, f.fill(e.full, made.ID), nil)
		put := e.create
		if e.before != "" {
			put = e.before
		}
		s.Must(t, http.MethodPut, "/api/"+e.kind+"/"+made.ID, f.fill(put, made.ID), nil)
		s.Must(t, http.MethodDelete, "/api/"+e.kind+"/"+made.ID, nil, nil)
	}
	read := 0
	for _, op := range f.ops {
		if op.Method != http.MethodGet || !op.json {
			continue
		}
		resp, err := s.Do(t.Context(), http.MethodGet, f.path(op, nil)+needed(op, f), nil)
		if err != nil {
			t.Fatal(err)
		}
		// 404 and the like are answers too, but most must be there.
		switch {
		case resp.Status == http.StatusOK:
			read++
		case resp.Status >= 500 && resp.Status != http.StatusNotImplemented:
			t.Errorf("GET %s: %d %s", f.path(op, nil), resp.Status, resp.Body)
		case !mayBeMissing(op):
			t.Errorf("GET %s: %d %s", f.path(op, nil), resp.Status, resp.Body)
		}
	}
	if read < 100 || checked.n < 200 {
		t.Errorf("only %d operations were read, and %d answers checked", read, checked.n)
	}
}

// needed is the query without which an operation does nothing.
func needed(op operation, f *furnished) string {
	switch {
	case strings.HasSuffix(op.Path, "/permissions/explain"):
		return "?permission=ProjectView"
	case strings.HasSuffix(op.Path, "/packages/versions"):
		return "?packageId=Acme.Web"
	case strings.HasSuffix(op.Path, "/packages/notes"):
		return "?packageId=Acme.Web&version=1.2.0"
	case strings.HasSuffix(op.Path, "/discover"):
		return "?host=127.0.0.1&port=" + f.of["agent port"]
	case strings.Contains(op.Path, "/rule-test"):
		return "?version=1.0.0"
	case strings.HasSuffix(op.Path, "/variables/names"), strings.HasSuffix(op.Path, "/variables/preview"):
		return "?project=" + f.of["project"]
	}
	return ""
}

// mayBeMissing lists what furnish makes none of.
func mayBeMissing(op operation) bool {
	return slices.ContainsFunc([]string{"/artifacts/{id}", "/interruptions/{id}", "/delta-signature", "/logo", "/backups/{id}"}, func(part string) bool { return strings.Contains(op.Path, part) })
}

// counter counts what passes through it.
type counter struct {
	next http.RoundTripper
	n    int
}

func (c *counter) RoundTrip(req *http.Request) (*http.Response, error) {
	c.n++
	return c.next.RoundTrip(req)
}
