package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// insides are what an answer must not show of the server.
var insides = regexp.MustCompile(`sql:|SQLSTATE|UNIQUE constraint|unmarshal|json: |octopus\.|resources\.|goroutine|runtime error|interface conversion|strconv\.|\.go:\d`)

// bad is a request that must be refused.
type bad struct {
	method, path string
	body         io.Reader
	header       map[string]string
	says         []string // what the refusal must mention, without case
	strict       bool     // whatever its status; else that of a 400
	may          []int    // statuses besides 4xx
}

// refuser sends bad requests and looks at their refusals.
type refuser struct {
	*furnished
	sent int
}

func (r *refuser) send(b bad) {
	t := r.t
	t.Helper()
	r.sent++
	req, err := http.NewRequestWithContext(t.Context(), b.method, "http://"+strings.TrimPrefix(r.URL, "http://"), b.body)
	if err != nil {
		t.Fatal(err)
	}
	path, query, _ := strings.Cut(b.path, "?")
	req.URL.Opaque = "//" + req.URL.Host + path // as it stands, however odd
	req.URL.RawQuery = query
	req.Header.Set("X-Octopus-ApiKey", r.Key)
	req.Header.Set("Content-Type", "application/json")
	for name, value := range b.header {
		req.Header.Set(name, value)
	}
	resp, err := r.Send(req)
	label := fmt.Sprintf("%s %.200s", b.method, b.path)
	if err != nil {
		t.Errorf("%s: %v", label, err)
		return
	}
	var answer struct {
		ErrorMessage string
		Errors       []string
	}
	fail := func(why string) { t.Errorf("%s: %s: %d %.600s", label, why, resp.Status, resp.Body) }
	err = json.Unmarshal(resp.Body, &answer)
	if strings.HasPrefix(b.path, "/token/") && resp.Status == http.StatusBadRequest { // OAuth has a form of its own
		var refusal octopus.TokenError
		if err = json.Unmarshal(resp.Body, &refusal); refusal.Error != "" {
			answer.ErrorMessage, answer.Errors = refusal.Error, []string{refusal.ErrorDescription}
		}
	}
	switch {
	case resp.Status < 400 || resp.Status > 499:
		for _, code := range b.may {
			if resp.Status == code {
				return
			}
		}
		fail("it was not refused")
		return
	case err != nil || answer.ErrorMessage == "" || !strings.HasPrefix(resp.Header.Get("Content-Type"), "application/json"):
		fail("the refusal is no JSON with an ErrorMessage")
	case resp.Status == http.StatusBadRequest && (len(answer.Errors) == 0 || strings.TrimSpace(answer.Errors[0]) == ""):
		fail("400 without Errors")
	case resp.Status == http.StatusNotFound && strings.Contains(string(resp.Body), `"Errors"`):
		fail("404 with Errors")
	case insides.Match(resp.Body):
		fail("the refusal shows insides")
	case len(resp.Body) > 20_000:
		fail("the refusal is long")
	}
	said := strings.ToLower(answer.ErrorMessage + " " + strings.Join(answer.Errors, " "))
	for _, want := range b.says {
		if (b.strict || resp.Status == http.StatusBadRequest) && !strings.Contains(said, strings.ToLower(want)) {
			fail("it does not mention " + want)
		}
	}
}

func text1(s string) io.Reader { return strings.NewReader(s) }

// state is what the database holds: rows of every table, and what was changed.
func state(t testing.TB, d *db.DB) map[string]int64 {
	t.Helper()
	found := map[string]int64{}
	tables := `SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'`
	if d.Dialect() == db.Postgres {
		tables = `SELECT table_name FROM information_schema.tables WHERE table_schema = current_schema()`
	}
	err := d.Read(t.Context(), func(tx *db.Tx) error {
		rows, err := tx.Query(t.Context(), tables)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				return err
			}
			found[name] = 0
		}
		if err := rows.Err(); err != nil {
			return err
		}
		for name := range found {
			var n int64
			if err := tx.QueryRow(t.Context(), `SELECT count(*) FROM `+name).Scan(&n); err != nil {
				return err
			}
			found[name] = n
		}
		for name, sum := range map[string]string{"changes of caches": `coalesce(sum(counter), 0) FROM changes`, "versions": `coalesce(sum(version), 0) FROM documents`, "tasks that were cancelled": `count(*) FROM task WHERE cancel_at <> 0`} {
			var n int64
			if err := tx.QueryRow(t.Context(), `SELECT `+sum).Scan(&n); err != nil {
				return err
			}
			found[name] = n
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// TestBadRequests sends thousands of requests that are wrong in one way each, to
// every operation. Each is refused with words that help, and nothing changes.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			r := &refuser{furnished: furnish(t, apptest.StartWith(t, dialect, apptest.Options{NoWorker: true}))}
			before := state(t, r.d)
			for _, op := range r.ops {
				r.t = t
				r.badPaths(op)
				r.badQueries(op)
				r.badBodies(op)
			}
			r.badDocuments()
			r.badReferences()
			r.badHeaders()
			r.hugeBodies()
			if diff := cmp.Diff(before, state(t, r.d)); diff != "" {
				t.Errorf("refused requests have changed the database (-before +after):\n%s", diff)
			}
			if r.sent < 2000 {
				t.Errorf("only %d requests were sent", r.sent)
			}
			t.Logf("%d requests were refused", r.sent)
		})
	}
}

// badPaths: ids of nothing, of what is elsewhere, and what is no id at all; and a
// method that there is not.
func (r *refuser) badPaths(op operation) {
	kinds := parameters(op.Path)
	for i, kind := range kinds {
		ids := []string{"Nope-99999", "%27%3B%20DROP%20TABLE%20documents%3B--", "%ff", "%00", strings.Repeat("a", 3000), "%2e%2e%2f%2e%2e%2fetc%2fpasswd", "-1", "%F0%9F%92%A9", "*"}
		if far := r.far[kind]; far != "" {
			ids = append(ids, far)
		}
		if kind == "" && i == 0 { // the space
			ids = append(ids, "Spaces-99999", "spaces-0", "nowhere")
		}
		for _, id := range ids {
			var body io.Reader
			if op.Method == http.MethodPost || op.Method == http.MethodPut {
				body = text1("{}")
			}
			r.send(bad{method: op.Method, path: r.path(op, map[int]string{i: id}), body: body, may: r.harmless(op)})
		}
	}
	r.send(bad{method: http.MethodPatch, path: r.path(op, nil), body: text1("{}")})
	if op.Mount == rest.InSpace {
		r.send(bad{method: op.Method, path: strings.Replace(r.path(op, nil), "/Spaces-1", "/Spaces-99999", 1), body: text1("{}")})
	}
}

// harmless lists answers that are no refusals although an id of a path is odd: who
// asks how somebody can sign in must not learn whether there is such a user.
func (r *refuser) harmless(op operation) []int {
	if op.Path == "/api/users/authentication/{id}" {
		return []int{http.StatusOK}
	}
	return nil
}

// badQueries: values that are not of the parameter's type.
func (r *refuser) badQueries(op operation) {
	if op.Method != http.MethodGet {
		return
	}
	path := r.path(op, nil) + "?"
	if with := needed(op, r.furnished); with != "" {
		path = r.path(op, nil) + with + "&"
	}
	for _, p := range op.query {
		if strings.Contains(path, p.Name+"=") {
			continue
		}
		values := []string{"%ff", "%00", "%zz"}
		switch s := p.Schema.Value; {
		case s.Type.Is("integer"):
			values = append(values, "abc", "-1", "1.5", "0x10", "%D9%A3")
		case s.Type.Is("boolean"):
			values = append(values, "maybe", "2")
		case s.Format == "date-time":
			values = append(values, "yesterday", "2026-13-45", "12")
		case p.Name == "ids" && !strings.Contains(op.Path, "/tasks/"):
			values = append(values, strings.Repeat("a,", 5001))
		}
		if p.Name == "includeSystem" && strings.HasSuffix(op.Path, "/{space}/tasks") {
			continue // means nothing in a space, and is not read there
		}
		for _, v := range values {
			says := []string{p.Name}
			if v == "%zz" || v == "%ff" || v == "%00" {
				says = []string{"query string"}
			}
			if mayBeMissing(op) || missing(r.furnished, op) {
				says = nil
			}
			r.send(bad{method: http.MethodGet, path: path + url.QueryEscape(p.Name) + "=" + v, says: says})
		}
	}
	r.send(bad{method: http.MethodGet, path: path + strings.Repeat("a=1&", 300), says: []string{"more than 200 parameters"}})
}

// missing reports whether furnish made nothing for one of the path's parameters.
func missing(f *furnished, op operation) bool {
	for _, kind := range parameters(op.Path)[min(1, len(parameters(op.Path))):] {
		if f.of[kind] == "" {
			return true
		}
	}
	return false
}

// badBodies: what is no JSON, not an object, or has a member of a wrong type.
func (r *refuser) badBodies(op operation) {
	if op.body == nil || strings.HasPrefix(op.Path, "/api/users/log") {
		return // signing in leaves a trace by itself
	}
	path := r.path(op, nil)
	for _, body := range []string{
		`{`, `{"Name":`, `{"Name":"x",}`, `{}{}`, `[`, `"x"`, `null`, `true`, `12`, `nonsense`, `{"Name":"` + "\xff" + `"}`, `{"Name":"\u0000"}`, `{'Name':'x'}`,
		strings.Repeat("[", 20_000), strings.Repeat(`{"a":`, 20_000), "\x00", "\x1f\x8b\x08",
	} {
		r.send(bad{method: op.Method, path: path, body: text1(body)})
	}
	if !op.body.Type.Is("array") {
		r.send(bad{method: op.Method, path: path, body: text1(`[]`)})
	}
	for name, ref := range op.body.Properties {
		for _, wrong := range wrongValues(ref) {
			if unread(op, name) {
				continue
			}
			says := []string{name}
			if missing(r.furnished, op) || mayBeMissing(op) {
				says = nil
			}
			r.send(bad{method: op.Method, path: path, body: text1(fmt.Sprintf(`{%s%q:%s}`, r.version(op, name), name, wrong)), says: says})
		}
	}
}

// version is the beginning of an object that must say which version it replaces.
func (r *refuser) version(op operation, but string) string {
	if op.Method != http.MethodPut || op.body.Properties["Version"] == nil || but == "Version" {
		return ""
	}
	resp, err := r.Do(r.t.Context(), http.MethodGet, r.path(op, nil), nil)
	if err != nil || resp.Status != http.StatusOK {
		return ""
	}
	return `"Version":` + asJSON(r.t, parse(r.t, string(resp.Body))["Version"]) + ","
}

// wrongValues are values that are not of a schema's type.
func wrongValues(ref *openapi3.SchemaRef) []string {
	s := ref.Value
	for len(s.AllOf) == 1 {
		ref, s = s.AllOf[0], s.AllOf[0].Value
	}
	switch {
	case strings.Contains(ref.Ref, "Sensitive"):
		return []string{`[]`, `12`}
	case s.Type == nil: // anything
		return nil
	case s.Type.Is("string"):
		return []string{`{"a":1}`, `["x"]`}
	case s.Type.Is("integer"):
		return []string{`"x"`, `1.5`, `99999999999999999999`, `[]`}
	case s.Type.Is("number"):
		return []string{`"x"`}
	case s.Type.Is("boolean"):
		return []string{`"maybe"`, `1`, `{}`}
	case s.Type.Is("array"):
		return []string{`"x"`, `{"a":1}`, `12`}
	case s.Type.Is("object"):
		return []string{`[1]`, `12`}
	}
	return nil
}

// unread reports whether what a client sends as a member does not count, so that
// its type does not either.
func unread(op operation, name string) bool {
	switch name {
	case "Links", "Id", "SpaceId", "ScopeValues":
		return true
	}
	words := strings.Split(op.Path, "/")
	if last := words[len(words)-1]; strings.HasPrefix(last, "{") {
		words = words[:len(words)-1]
	}
	kind := words[len(words)-1]
	if (kind == "channels" || kind == "triggers") && name == "ProjectId" && strings.Contains(op.Path, "/projects/") {
		return true // the path says it
	}
	if kind == "preview" && name == "DaysOfWeek" {
		return true // what it may be depends on the type of the schedule, which is missing
	}
	for _, k := range resources.All() {
		if k.Name == kind && slices.Contains(k.Owned, name) {
			return true
		}
	}
	return false
}

// badDocuments: documents of every kind that break a rule.
func (r *refuser) badDocuments() {
	for _, e := range examples() {
		post := func(body string, says ...string) {
			r.send(bad{method: http.MethodPost, path: "/api/" + e.kind, body: text1(body), says: says, strict: true})
		}
		post(`{}`, "is empty")
		post(`{"Name":"x","Deep":`+strings.Repeat(`[`, 200)+strings.Repeat(`]`, 200)+`}`, "levels deep")
		good := parse(r.t, r.fill(e.create, ""))
		with := func(member string, value any) string {
			doc := parse(r.t, asJSON(r.t, good))
			doc[member] = value
			return asJSON(r.t, doc)
		}
		if _, named := good["Name"]; !named {
			continue
		}
		post(with("Name", strings.Repeat("n", 300)), "Name has 300 bytes", "at most 200")
		post(with("Name", "   "), "Name is empty")
		post(with("Name", "two\nlines"), "Name", "control characters")
		if slices.ContainsFunc(resources.All(), func(k *resource.Kind) bool { return k.Name == e.kind && k.Slugged }) {
			post(with("Slug", "Not A Slug"), "Slug is 'Not A Slug'", "not-a-slug")
		}
		if field := map[string]string{"accounts": "AccountType", "feeds": "FeedType"}[e.kind]; field != "" {
			post(with(field, ""), field+" is empty")
		}
	}
	for _, one := range []struct{ method, path, body, says string }{
		{"POST", "accounts", `{"Name":"x","AccountType":"Token","TenantedDeploymentParticipation":"Sideways"}`, "TenantedDeploymentParticipation is 'Sideways'; use Untenanted"},
		{"PUT", "accounts/{account}", `{"Name":"x","AccountType":"UsernamePassword"}`, "stays what it is"},
		{"POST", "channels", `{"Name":"x","ProjectId":"{project}","Type":"Odd"}`, "Type is 'Odd'"},
		{"PUT", "channels/{channel}", `{"Name":"x","ProjectId":"{project}","IsDefault":false}`, "Make another channel the default"},
		{"DELETE", "channels/{channel}", ``, "cannot be deleted"},
		{"POST", "feeds", `{"Name":"x","FeedType":"BuiltIn"}`, "one built-in feed"},
		{"PUT", "feeds/{feed}", `{"Name":"x","FeedType":"Docker"}`, "stays what it is"},
		{"DELETE", "feeds/feeds-builtin", ``, "built-in feed cannot be deleted"},
		{"POST", "libraryvariablesets", `{"Name":"x","ContentType":"Recipes"}`, "ContentType is 'Recipes'"},
		{"PUT", "libraryvariablesets/{library}", `{"Name":"x","ContentType":"ScriptModule"}`, "stays what it is"},
		{"POST", "lifecycles", `{"Name":"x","Phases":[{"Name":"a"},{"Name":"A"}]}`, "Phases[1].Name is 'A'"},
		{"POST", "lifecycles", `{"Name":"x","Phases":[{"Name":""}]}`, "Phases[0].Name is empty"},
		{"POST", "lifecycles", `{"Name":"x","Phases":[{"Name":"a","AutomaticDeploymentTargets":["{dev}"],"OptionalDeploymentTargets":["{dev}"]}]}`, "both as automatic and as optional"},
		{"POST", "lifecycles", `{"Name":"x","Phases":[{"Name":"a","MinimumEnvironmentsBeforePromotion":-1}]}`, "MinimumEnvironmentsBeforePromotion is -1"},
		{"POST", "lifecycles", `{"Name":"x","ReleaseRetentionPolicy":{"Strategy":"Sometimes"}}`, "ReleaseRetentionPolicy.Strategy is 'Sometimes'; use Default, Forever, Count"},
		{"POST", "lifecycles", `{"Name":"x","Phases":[{"Name":"a","TentacleRetentionPolicy":{"Unit":"Weeks"}}]}`, "Phases[0].TentacleRetentionPolicy.Unit is 'Weeks'"},
		{"POST", "machinepolicies", `{"Name":"x","MachineHealthCheckPolicy":{"HealthCheckType":"Stare"}}`, "HealthCheckType is 'Stare'"},
		{"POST", "machinepolicies", `{"Name":"x","ConnectionConnectTimeout":"soon"}`, "ConnectionConnectTimeout"},
		{"DELETE", "machinepolicies/MachinePolicies-1", ``, "cannot be deleted"},
		{"POST", "machines", `{"Name":"x","EnvironmentIds":["{dev}"],"Roles":[],"Endpoint":{"CommunicationStyle":"None"}}`, "Roles is empty"},
		{"POST", "machines", `{"Name":"x","EnvironmentIds":[],"Roles":["r"],"Endpoint":{"CommunicationStyle":"None"}}`, "EnvironmentIds is empty"},
		{"POST", "machines", `{"Name":"x","EnvironmentIds":["{dev}"],"Roles":["r"]}`, "Endpoint.CommunicationStyle is empty"},
		{"POST", "projects", `{"Name":"x","ProjectGroupId":"{group}"}`, "LifecycleId is empty"},
		{"POST", "projects", `{"Name":"x","LifecycleId":"{lifecycle}"}`, "ProjectGroupId is empty"},
		{"POST", "projects", `{"Name":"x","ProjectGroupId":"{group}","LifecycleId":"{lifecycle}","TenantedDeploymentMode":"Both"}`, "TenantedDeploymentMode is 'Both'"},
		{"POST", "projects?clone=Projects-999", `{"Name":"x","ProjectGroupId":"{group}","LifecycleId":"{lifecycle}"}`, "Projects-999"},
		{"POST", "machines", `{"Name":"x","Roles":["r"],"EnvironmentIds":["{dev}"],"Endpoint":{"CommunicationStyle":"OfflineDrop","Destination":{"DestinationType":"FileSystem"}}}`, "Endpoint.Destination.DropFolderPath is empty"},
		{"POST", "proxies", `{"Name":"x","Port":80}`, "Host is ''"},
		{"POST", "proxies", `{"Name":"x","Port":80,"Host":"http://h"}`, "Host is 'http://h'"},
		{"POST", "proxies", `{"Name":"x","Port":80,"Host":"h","ProxyType":"SOCKS"}`, "ProxyType is 'SOCKS'; use HTTP"},
		{"POST", "proxies", `{"Name":"x","Host":"h","Port":70000}`, "Port is 70000; use a number from 1 to 65535"},
		{"POST", "tagsets", `{"Name":"a/b"}`, "Name is 'a/b'"},
		{"POST", "tagsets", `{"Name":"x","Tags":[{"Name":""}]}`, "Tags[0].Name is empty"},
		{"POST", "tagsets", `{"Name":"x","Tags":[{"Name":"a"},{"Name":"A"}]}`, "Tags[1].Name is 'A', which stands in the set twice"},
		{"POST", "tagsets", `{"Name":"x","Tags":[{"Name":"a","Color":"red"}]}`, "Tags[0].Color is 'red'"},
		{"POST", "tagsets", `{"Name":"x","Type":"Fuzzy"}`, "Type is 'Fuzzy'; use MultiSelect"},
		{"POST", "tagsets", `{"Name":"x","Scopes":["Moon"]}`, "Scopes is 'Moon'"},
		{"POST", "tenants", `{"Name":"x","TenantTags":["Ring/Three"]}`, "TenantTags names 'Ring/Three'"},
		{"POST", "environments", `{"Name":"x","EnvironmentTags":["Ring/One"]}`, "is no tag for environments"},
		{"POST", "spaces", `{"Name":"x"}`, "name at least one team or user"},
		{"DELETE", "spaces/Spaces-1", ``, "default space cannot be deleted"},
		{"DELETE", "spaces/{farspace}", ``, "TaskQueueStopped"},
		{"POST", "userroles", `{"Name":"x","GrantedSpacePermissions":["FlyToTheMoon"]}`, "FlyToTheMoon"},
		{"PUT", "workerpools/WorkerPools-1", `{"Name":"x","IsDefault":false}`, "Make another pool the default"},
		{"DELETE", "workerpools/WorkerPools-1", ``, "default"},
		{"POST", "workerpools", `{"Name":"x","WorkerPoolType":"Swimming"}`, "WorkerPoolType is 'Swimming'"},
		{"PUT", "deploymentprocesses/{process}", `{"Version":1}`, "modified by somebody else"},
		{"PUT", "deploymentprocesses/{process}", `{"Version":2,"Steps":[{"Name":"a","Condition":"Maybe","Actions":[{"ActionType":"x"}]}]}`, "Steps[0].Condition is 'Maybe'; use Success, Failure, Always, Variable"},
		{"PUT", "deploymentprocesses/{process}", `{"Version":2,"Steps":[{"Name":"a","StartTrigger":"Now","Actions":[{"ActionType":"x"}]}]}`, "StartTrigger is 'Now'"},
		{"PUT", "deploymentprocesses/{process}", `{"Version":2,"Steps":[{"Name":"a"}]}`, "Steps[0].Actions has 0 entries"},
		{"PUT", "deploymentprocesses/{process}", `{"Version":2,"Steps":[{"Name":"a","Actions":[{"Name":"b"}]}]}`, "ActionType is empty"},
		{"PUT", "deploymentprocesses/{process}", `{"Version":2,"Steps":[{"Name":"a","Actions":[{"ActionType":"x"}]},{"Name":"A","Actions":[{"ActionType":"x"}]}]}`, "another step of the process has too"},
		{"PUT", "variables/{variables}", `{"Version":1,"Variables":[]}`, "modified by somebody else"},
		{"PUT", "variables/{variables}", `{"Version":2,"Variables":[{"Value":"x"}]}`, "Variables[0].Name is empty"},
		{"PUT", "variables/{variables}", `{"Version":2,"Variables":[{"Id":"a","Name":"x"},{"Id":"a","Name":"y"}]}`, "twice"},
		{"POST", "users", `{"Username":"somebody","IsService":true}`, "already used"},
		{"POST", "users", `{"Username":"x","Password":"short"}`, "Password"},
		{"POST", "releases/create/v1", `{"projectName":"Nobody"}`, "Nobody"},
		{"POST", "releases/create/v1", `{"projectName":"Project","releaseVersion":"not a version!"}`, "not a version!"},
		{"POST", "releases/create/v1", `{"projectName":"Project","releaseVersion":"{version}"}`, "{version}"},
		{"POST", "releases/create/v1", `{"projectName":"Project","channelName":"Nowhere"}`, "Nowhere"},
		{"POST", "deployments/create/untenanted/v1", `{"projectName":"Project","releaseVersion":"9.9.9","environmentNames":["Dev"]}`, "9.9.9"},
		{"POST", "deployments/create/untenanted/v1", `{"projectName":"Project","releaseVersion":"{version}","environmentNames":["Mars"]}`, "Mars"},
		{"POST", "deployments/create/untenanted/v1", `{"projectName":"Project","releaseVersion":"{version}","environmentNames":[]}`, "environment"},
		{"POST", "deployments/create/tenanted/v1", `{"projectName":"Project","releaseVersion":"{version}","environmentName":"Dev","tenants":["Tenant"]}`, "tenant"},
		{"POST", "deployments", `{"ReleaseId":"Releases-99","EnvironmentId":"{dev}"}`, "Releases-99"},
		{"POST", "releases", `{"ProjectId":"Projects-99","Version":"1.0"}`, "Projects-99"},
		{"PUT", "serverconfiguration", `{"ServerUri":"ftp://x"}`, "ServerUri is 'ftp://x'"},
	} {
		body := r.fill(strings.ReplaceAll(one.body, "{farspace}", r.farSpace), "")
		path := "/api/" + r.fill(strings.ReplaceAll(one.path, "{farspace}", r.farSpace), "")
		r.send(bad{method: one.method, path: path, body: text1(body), says: []string{r.fill(one.says, "")}, strict: true})
	}
}

// badReferences: every reference of every kind, to nothing and into another space.
func (r *refuser) badReferences() {
	for _, one := range []struct{ method, path, field, to, body string }{
		{"POST", "accounts", "EnvironmentIds", "dev", `{"Name":"x","AccountType":"Token","EnvironmentIds":["{dev}","{bad}"]}`},
		{"POST", "accounts", "TenantIds", "tenant", `{"Name":"x","AccountType":"Token","TenantIds":["{bad}"]}`},
		{"POST", "channels", "ProjectId", "project", `{"Name":"x","ProjectId":"{bad}"}`},
		{"POST", "channels", "LifecycleId", "lifecycle", `{"Name":"x","ProjectId":"{project}","LifecycleId":"{bad}"}`},
		{"PUT", "deploymentprocesses/{process}", "Environments", "dev", `{"Version":2,"Steps":[{"Name":"a","Actions":[{"ActionType":"x","Environments":["{bad}"]}]}]}`},
		{"PUT", "deploymentprocesses/{process}", "ExcludedEnvironments", "dev", `{"Version":2,"Steps":[{"Name":"a","Actions":[{"ActionType":"x","ExcludedEnvironments":["{bad}"]}]}]}`},
		{"PUT", "deploymentprocesses/{process}", "Channels", "channel", `{"Version":2,"Steps":[{"Name":"a","Actions":[{"ActionType":"x","Channels":["{bad}"]}]}]}`},
		{"PUT", "deploymentprocesses/{process}", "WorkerPoolId", "pool", `{"Version":2,"Steps":[{"Name":"a","Actions":[{"ActionType":"x","WorkerPoolId":"{bad}"}]}]}`},
		{"POST", "lifecycles", "AutomaticDeploymentTargets", "dev", `{"Name":"x","Phases":[{"Name":"a","AutomaticDeploymentTargets":["{bad}"]}]}`},
		{"POST", "lifecycles", "OptionalDeploymentTargets", "dev", `{"Name":"x","Phases":[{"Name":"a","OptionalDeploymentTargets":["{bad}"]}]}`},
		{"POST", "machines", "EnvironmentIds", "dev", `{"Name":"x","Roles":["r"],"EnvironmentIds":["{bad}"],"Endpoint":{"CommunicationStyle":"None"}}`},
		{"POST", "machines", "MachinePolicyId", "policy", `{"Name":"x","Roles":["r"],"EnvironmentIds":["{dev}"],"MachinePolicyId":"{bad}","Endpoint":{"CommunicationStyle":"None"}}`},
		{"POST", "machines", "TenantIds", "tenant", `{"Name":"x","Roles":["r"],"EnvironmentIds":["{dev}"],"TenantIds":["{bad}"],"Endpoint":{"CommunicationStyle":"None"}}`},
		{"POST", "machines", "Endpoint.AccountId", "account", `{"Name":"x","Roles":["r"],"EnvironmentIds":["{dev}"],"Endpoint":{"CommunicationStyle":"Ssh","AccountId":"{bad}"}}`},
		{"POST", "machines", "Endpoint.ProxyId", "proxy", `{"Name":"x","Roles":["r"],"EnvironmentIds":["{dev}"],"Endpoint":{"CommunicationStyle":"TentaclePassive","ProxyId":"{bad}"}}`},
		{"POST", "machines", "Endpoint.DefaultWorkerPoolId", "pool", `{"Name":"x","Roles":["r"],"EnvironmentIds":["{dev}"],"Endpoint":{"CommunicationStyle":"None","DefaultWorkerPoolId":"{bad}"}}`},
		{"POST", "projects", "ProjectGroupId", "group", `{"Name":"x","ProjectGroupId":"{bad}","LifecycleId":"{lifecycle}"}`},
		{"POST", "projects", "LifecycleId", "lifecycle", `{"Name":"x","ProjectGroupId":"{group}","LifecycleId":"{bad}"}`},
		{"POST", "projects", "IncludedLibraryVariableSetIds", "library", `{"Name":"x","ProjectGroupId":"{group}","LifecycleId":"{lifecycle}","IncludedLibraryVariableSetIds":["{bad}"]}`},
		{"PUT", "projects/{project}", "LifecycleId", "lifecycle", `{"Name":"x","ProjectGroupId":"{group}","LifecycleId":"{bad}"}`},
		{"POST", "scopeduserroles", "EnvironmentIds", "dev", `{"TeamId":"{team}","UserRoleId":"{role}","SpaceId":"Spaces-1","EnvironmentIds":["{bad}"]}`},
		{"POST", "scopeduserroles", "TeamId", "", `{"TeamId":"{bad}","UserRoleId":"{role}","SpaceId":"Spaces-1"}`},
		{"POST", "scopeduserroles", "UserRoleId", "", `{"TeamId":"{team}","UserRoleId":"{bad}","SpaceId":"Spaces-1"}`},
		{"POST", "scopeduserroles", "SpaceId", "", `{"TeamId":"{team}","UserRoleId":"{role}","SpaceId":"{bad}"}`},
		{"POST", "teams", "MemberUserIds", "", `{"Name":"x","MemberUserIds":["{bad}"]}`},
		{"POST", "tenants", "ProjectEnvironments", "project", `{"Name":"x","ProjectEnvironments":{"{bad}":[]}}`},
		{"POST", "tenants", "ProjectEnvironments", "dev", `{"Name":"x","ProjectEnvironments":{"{project}":["{bad}"]}}`},
		{"PUT", "variables/{variables}", "Scope.Environment", "dev", `{"Version":2,"Variables":[{"Name":"x","Value":"y","Scope":{"Environment":["{bad}"]}}]}`},
		{"PUT", "variables/{variables}", "Scope.Machine", "machine", `{"Version":2,"Variables":[{"Name":"x","Value":"y","Scope":{"Machine":["{bad}"]}}]}`},
		{"PUT", "variables/{variables}", "Scope.Channel", "channel", `{"Version":2,"Variables":[{"Name":"x","Value":"y","Scope":{"Channel":["{bad}"]}}]}`},
		{"POST", "workers", "WorkerPoolIds", "pool", `{"Name":"x","WorkerPoolIds":["{bad}"],"Endpoint":{"CommunicationStyle":"None"}}`},
		{"POST", "workers", "MachinePolicyId", "policy", `{"Name":"x","WorkerPoolIds":["{pool}"],"MachinePolicyId":"{bad}","Endpoint":{"CommunicationStyle":"None"}}`},
	} {
		ids := []string{"Nope-12345", strings.Repeat("z", 300)}
		if one.to != "" {
			ids = append(ids, r.far[one.to])
		}
		for _, id := range ids {
			body := r.fill(strings.ReplaceAll(one.body, "{bad}", id), "")
			r.send(bad{method: one.method, path: "/api/" + r.fill(one.path, ""), body: text1(body), says: []string{one.field, id[:min(len(id), 90)]}, strict: true})
		}
	}
}

// badHeaders: what comes beside a request.
func (r *refuser) badHeaders() {
	group := "/api/projectgroups/" + r.of["group"]
	for _, tag := range []string{`"abc"`, `abc`, `"1", "2"`, `-1`, `"0"`, `W/"x"`} {
		r.send(bad{method: http.MethodPut, path: group, body: text1(`{"Name":"x"}`), header: map[string]string{"If-Match": tag}, says: []string{"If-Match"}})
	}
	r.send(bad{method: http.MethodPut, path: group, body: text1(`{"Name":"x"}`), header: map[string]string{"If-Match": `"99"`}, says: []string{"modified by somebody else"}, strict: true})
	r.send(bad{method: http.MethodPost, path: "/api/projectgroups", body: text1(`{"Name":"x"}`), header: map[string]string{"Sec-Fetch-Site": "cross-site"}, says: []string{"another site"}, strict: true})
	for _, key := range []string{"API-WRONG", "x", "'; --"} {
		r.send(bad{method: http.MethodGet, path: group, header: map[string]string{"X-Octopus-ApiKey": key}})
	}
	for _, path := range []string{"/api/nonsense", "/api/Spaces-1/nonsense", "/api/projects/x/y/z", "/api/spaces/Spaces-1", "/api//", "/api/Spaces-1/projects/" + r.of["project"] + "/nonsense"} {
		if path != "/api/spaces/Spaces-1" && path != "/api//" {
			r.send(bad{method: http.MethodGet, path: path, says: []string{"nonsense"}[:min(1, strings.Count(path, "nonsense"))]})
		}
		r.send(bad{method: http.MethodPost, path: path, body: text1("{}")})
	}
}

// hugeBodies are too large for a request, or for what is stored.
func (r *refuser) hugeBodies() {
	pad := func(n int) io.Reader {
		return bytes.NewReader([]byte(`{"Name":"huge","Padding":"` + strings.Repeat("p", n) + `"}`))
	}
	for _, path := range []string{"environments", "projects", "spaces", "users", "releases/create/v1"} {
		r.send(bad{method: http.MethodPost, path: "/api/" + path, body: pad(rest.MaxBody), says: []string{"more than 16777216 bytes"}, strict: true})
	}
	r.send(bad{method: http.MethodPut, path: "/api/environments/" + r.of["dev"], body: pad(9 << 20), says: []string{"limit"}, strict: true})
	r.send(bad{method: http.MethodPost, path: "/api/environments", body: pad(9 << 20), says: []string{"limit"}, strict: true})
}
