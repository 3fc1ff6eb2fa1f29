package test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/permission"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// twins is a server with two of everything: one thing that somebody may see, and one
// that they may not. Names say which: a Quokka is theirs, a Zebra is of another
// project or environment, and an Okapi of another project group or tenant.
type twins struct {
	*furnished
	// other has the ids of the twins of what stands in of, under the same names.
	other map[string]string
}

// newTwins makes the world: a deployment of each project to each environment, and of
// the first project for each tenant. Those of the Quokkas have ended, and the rest
// wait for a person. Each has one more behind it that waits for its time.
func newTwins(t *testing.T, s *apptest.Server) *twins {
	t.Helper()
	w := &twins{&furnished{walker: &walker{s, t, dbtest.OpenURL(t, s.Database), map[string]string{}}, ops: operations(t, s.Client), far: map[string]string{}}, map[string]string{}}
	w.of["space"], w.of["builtin"], w.of["first"], w.of["retention"] = "Spaces-1", "feeds-builtin", "0", "RetentionPolicies-RunbookRetention-Spaces-1"
	w.library()
	for _, one := range []struct{ name, path, body string }{
		{"dev", "environments", `{"Name":"# place"}`},
		{"group", "projectgroups", `{"Name":"% group"}`},
		{"account", "accounts", `{"Name":"# account","AccountType":"Token","EnvironmentIds":["{dev}"]}`},
	} {
		w.both(one.name, one.path, one.body)
	}
	w.of["lifecycle"] = w.make("lifecycles", w.pairs(`{"Name":"Everywhere","Phases":[{"Name":"All","OptionalDeploymentTargets":["{dev}","{dev'}"]}]}`))
	w.both("project", "projects", `{"Name":"# shop","Description":"# things","ProjectGroupId":"{group}","LifecycleId":"{lifecycle}","TenantedDeploymentMode":"TenantedOrUntenanted","IncludedLibraryVariableSetIds":["{library}"],"Templates":[{"Id":"t1","Name":"# template","DefaultValue":"80"}]}`)
	w.both("trigger", "projecttriggers", `{"Name":"# trigger","ProjectId":"{project}","IsDisabled":true,"Filter":{"FilterType":"OnceDailySchedule","StartTime":"2026-01-01T09:00:00.000+00:00","Timezone":"UTC"},"Action":{"ActionType":"DeployNewRelease","EnvironmentId":"{dev}"}}`)
	w.of["tenant"] = w.make("tenants", w.pairs(`{"Name":"Quokka tenant","ProjectEnvironments":{"{project}":["{dev}"]}}`))
	w.other["tenant"] = w.make("tenants", w.pairs(`{"Name":"Okapi tenant","ProjectEnvironments":{"{project}":["{dev}","{dev'}"],"{project'}":["{dev'}"]}}`))
	const tenanted = `"EnvironmentIds":["{dev}"],"TenantedDeploymentParticipation":"TenantedOrUntenanted","TenantIds":["{tenant}"]`
	w.both("machine", "machines", `{"Name":"# machine","Roles":["#-tag"],"Endpoint":{"CommunicationStyle":"None"},`+tenanted+`}`)
	w.of["server certificate"] = octopus.CertificateGlobalID
	w.both("certificate", "certificates", `{"Name":"# certificate","CertificateData":{"NewValue":"`+sitePFX()+`"},"Password":{"NewValue":"hush-pfx"},`+tenanted+`}`)
	w.other["tenant's machine"] = w.make("machines", w.pairs(`{"Name":"Okapi machine","EnvironmentIds":["{dev}"],"TenantedDeploymentParticipation":"Tenanted","TenantIds":["{tenant'}"],"Roles":["okapi-tag"],"Endpoint":{"CommunicationStyle":"None"}}`))
	w.values("Quokka", w.of)
	w.values("Zebra", w.other)
	w.deployments()
	w.tenantValues()
	w.oldPackages()
	w.of["identity"] = w.make("serviceaccounts/"+w.of["user"]+"/oidcidentities/create/v1", `{"Name":"CI","Issuer":"https://ci.example.com","Subject":"repo:acme/*"}`)
	w.of["key"] = w.make("users/"+w.of["user"]+"/apikeys", `{"Purpose":"test"}`)
	w.of["node"] = w.ids("/api/octopusservernodes")[0]
	w.of["event"] = w.ids("/api/events?eventCategories=DeploymentQueued&take=1000&regarding=" + w.of["deployment"])[0]
	w.other["event"] = w.ids("/api/events?eventCategories=DeploymentQueued&take=1000&regarding=" + w.other["deployment"])[0]
	return w
}

// library makes what projects and environments share.
func (w *twins) library() {
	for _, one := range []struct{ name, path, body string }{
		{"library", "libraryvariablesets", `{"Name":"Shared","Templates":[{"Id":"t1","Name":"Port","DefaultValue":"80"}]}`},
		{"tagset", "tagsets", `{"Name":"Ring","Tags":[{"Name":"One"}]}`},
		{"actiontemplate", "actiontemplates", `{"Name":"Template","ActionType":"Octopus.Script"}`},
		{"subscription", "subscriptions", `{"Name":"Subscription"}`},
		{"deploymentfreeze", "deploymentfreezes", `{"Name":"Freeze","Start":"2026-12-24T00:00:00Z","End":"2026-12-27T00:00:00Z"}`},
		{"git-credential", "git-credentials", `{"Name":"Git","Details":{"Username":"u","Password":{"NewValue":"hush"}}}`},
		{"policy", "machinepolicies", `{"Name":"Policy"}`},
		{"proxy", "proxies", `{"Name":"Proxy","Host":"h","Port":1}`},
		{"pool", "workerpools", `{"Name":"Pool"}`},
		{"worker", "workers", `{"Name":"Worker","WorkerPoolIds":["{pool}"],"Endpoint":{"CommunicationStyle":"None"}}`},
		{"feed", "feeds", `{"Name":"Feed","FeedType":"NuGet"}`},
		{"team", "teams", `{"Name":"Team","SpaceId":"Spaces-1"}`},
		{"role", "userroles", `{"Name":"Role","GrantedSpacePermissions":["ProjectView"]}`},
		{"user", "users", `{"Username":"somebody","IsService":true}`},
		{"scoped", "scopeduserroles", `{"TeamId":"{team}","UserRoleId":"{role}","SpaceId":"Spaces-1"}`},
	} {
		w.of[one.name] = w.make(one.path, one.body)
	}
	for _, version := range []string{"1.2.0", "1.3.0"} {
		if r := w.Upload(w.t, "/api/packages/raw", "Acme.Web."+version+".zip", archive(w.t, map[string]string{"a": version})); r.Status != http.StatusCreated {
			w.t.Fatalf("push: %d %s", r.Status, r.Body)
		}
	}
	nuspec := `<package><metadata><id>Acme.Lib</id><version>1.0.0</version><description>A library</description></metadata></package>`
	if r := w.Upload(w.t, "/nuget/packages", "package.nupkg", archive(w.t, map[string]string{"Acme.Lib.nuspec": nuspec})); r.Status != http.StatusCreated {
		w.t.Fatalf("push to NuGet: %d %s", r.Status, r.Body)
	}
	w.of["package"], w.of["library package"], w.of["library version"] = "packages-Acme.Web.1.2.0", "Acme.Lib", "1.0.0"
	w.of["build"] = w.make("build-information", `{"PackageId":"Acme.Web","Version":"1.2.0","OctopusBuildInformation":{"BuildNumber":"12","VcsCommitNumber":"abc"}}`)
}

// pairs puts ids into a text: {name} of ours, {name'} of the twin.
func (w *twins) pairs(text string) string {
	var pairs []string
	for name, id := range w.of {
		pairs = append(pairs, "{"+name+"}", id)
	}
	for name, id := range w.other {
		pairs = append(pairs, "{"+name+"'}", id)
	}
	return strings.NewReplacer(pairs...).Replace(text)
}

// both makes a thing and its twin, which is about twins. In the text, # stands for
// the animal of projects and environments, and % for that of groups.
func (w *twins) both(name, path, body string) {
	made := w.make(path, w.pairs(strings.NewReplacer("#", "Quokka", "%", "Quokka").Replace(body)))
	ids := maps.Clone(w.of)
	maps.Copy(ids, w.other)
	var pairs []string
	for key, id := range ids {
		pairs = append(pairs, "{"+key+"}", id)
	}
	w.other[name] = w.make(path, strings.NewReplacer(pairs...).Replace(strings.NewReplacer("#", "Zebra", "%", "Okapi").Replace(body)))
	w.of[name] = made
}

// values gives a project its variables and its process.
func (w *twins) values(animal string, ids map[string]string) {
	p := apptest.Get[octopus.Project](w.t, w.Client, "/api/projects/"+ids["project"])
	ids["process"], ids["variables"] = p.DeploymentProcessID, p.VariableSetID
	ids["channel"] = w.ids("/api/projects/" + p.ID + "/channels")[0]
	m := &model{Client: w.Client, Project: p}
	at := func(id string) octopus.Scope { return octopus.Scope{Environment: octopus.List[string]{id}} }
	m.variables(w.t, text("Account", w.of["account"], at(w.of["dev"])), text("Certificate", w.of["certificate"], at(w.of["dev"])),
		text(animal+" here", animal, at(w.of["dev"])), text("Zebra there", "Zebra", at(w.other["dev"])))
	report := script(animal+" report", `echo "#{Octopus.Project.Name} in #{Octopus.Environment.Name}" > report.txt
new_octopusartifact report.txt "#{Octopus.Project.Name} in #{Octopus.Environment.Name}.txt"`)
	report.Actions[0].Properties[octopus.PropTemplateID] = octopus.Plain(w.of["actiontemplate"])
	report.Actions[0].Properties[octopus.PropTemplateVersion] = octopus.Plain("0")
	report.Actions[0].Packages = octopus.List[octopus.PackageReference]{{Name: "web", PackageID: "Acme.Web", FeedID: "feeds-builtin", AcquisitionLocation: octopus.AcquireNever}}
	report.Actions[0].Properties["Account"] = octopus.Plain(w.of["account"])
	ask := octopus.Step{Name: animal + " question", Actions: octopus.List[octopus.Action]{{Name: animal + " question", ActionType: octopus.ActionManual, Properties: octopus.Properties{
		octopus.PropManualInstructions: octopus.Plain("Shall #{Octopus.Project.Name} go on in #{Octopus.Environment.Name}?"),
	}}}}
	m.process(w.t, report, ask)
	ids["release"], ids["version"] = m.release(w.t, map[string]any{"releaseNotes": animal + " notes", "releaseVersion": fmt.Sprint(len(animal), ".1.1")})
}

// oldPackages lets the packages that releases use be older than the feed keeps others,
// and the newest one young: what is kept is kept for the releases.
func (w *twins) oldPackages() {
	feed := w.get("/api/feeds/feeds-builtin")
	feed["DeleteUnreleasedPackagesAfterDays"] = 3
	w.Must(w.t, http.MethodPut, "/api/feeds/feeds-builtin", feed, nil)
	long := db.Micros(time.Now().Add(-100 * 24 * time.Hour))
	err := w.d.Write(w.t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(w.t.Context(), `UPDATE package SET published = ?`, long)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
	if r := w.Upload(w.t, "/api/packages/raw", "Acme.Web.9.0.0.zip", archive(w.t, map[string]string{"a": "9"})); r.Status != http.StatusCreated {
		w.t.Fatalf("push: %d %s", r.Status, r.Body)
	}
	if all := string(w.Must(w.t, http.MethodGet, "/api/packages/retention", nil, nil).Body); !strings.Contains(all, w.of["release"]) {
		w.t.Errorf("nobody is told which releases use the packages: %s", all)
	}
}

// tenantValues gives both tenants values in each of their environments, and lets them
// lack some.
func (w *twins) tenantValues() {
	for _, id := range []string{w.of["project"], w.other["project"]} {
		p := apptest.Get[octopus.Project](w.t, w.Client, "/api/projects/"+id)
		p.Templates = append(p.Templates, octopus.TemplateParameter{ID: "t2", Name: strings.ReplaceAll(p.Name, "shop", "lack")})
		apptest.Put(w.t, w.Client, "/api/projects/"+id, p)
	}
	const value = `{"ProjectId":"%s","TemplateId":"t1","Value":"%s","Scope":{"EnvironmentIds":["%s"]}}`
	w.Must(w.t, http.MethodPut, "/api/tenants/"+w.of["tenant"]+"/projectvariables", `{"Variables":[`+fmt.Sprintf(value, w.of["project"], "Quokka value", w.of["dev"])+`]}`, nil)
	w.Must(w.t, http.MethodPut, "/api/tenants/"+w.other["tenant"]+"/projectvariables", `{"Variables":[`+
		fmt.Sprintf(value, w.of["project"], "Okapi value", w.of["dev"])+`,`+fmt.Sprintf(value, w.of["project"], "Zebra value", w.other["dev"])+`,`+
		fmt.Sprintf(value, w.other["project"], "Zebra value", w.other["dev"])+`]}`, nil)
	const common = `{"LibraryVariableSetId":"%s","TemplateId":"t1","Value":"%s","Scope":{"EnvironmentIds":["%s"]}}`
	w.Must(w.t, http.MethodPut, "/api/tenants/"+w.other["tenant"]+"/commonvariables", `{"Variables":[`+
		fmt.Sprintf(common, w.of["library"], "Okapi value", w.of["dev"])+`,`+fmt.Sprintf(common, w.of["library"], "Zebra value", w.other["dev"])+`]}`, nil)
}

// deployments makes them, and waits until all of them are as they shall be.
func (w *twins) deployments() {
	t := w.t
	ids := func(name string) [2]string { return [2]string{w.of[name], w.other[name]} }
	releases, environments, tenants := ids("release"), ids("dev"), ids("tenant")
	type one struct{ release, environment, tenant string }
	var all []one
	for _, release := range releases {
		for _, environment := range environments {
			all = append(all, one{release, environment, ""})
		}
	}
	for _, tenant := range tenants {
		all = append(all, one{releases[0], environments[0], tenant})
	}
	made := make([]octopus.Deployment, len(all))
	for i, d := range all {
		body := map[string]any{"ReleaseId": d.release, "EnvironmentId": d.environment, "TenantId": d.tenant}
		w.Must(t, http.MethodPost, "/api/deployments", body, &made[i])
		body["QueueTime"] = time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
		w.Must(t, http.MethodPost, "/api/deployments", body, nil)
	}
	for i, d := range all {
		asked := w.asked(made[i].TaskID)
		to := w.other
		if d.release == releases[0] && d.environment == environments[0] && d.tenant != tenants[1] {
			to = w.of
			w.Must(t, http.MethodPut, "/api/interruptions/"+asked+"/responsible", nil, nil)
			w.Must(t, http.MethodPost, "/api/interruptions/"+asked+"/submit", map[string]string{"Result": "Proceed"}, nil)
			if done := wait(t, w.Client, made[i].TaskID, 2*time.Minute); !done.FinishedSuccessfully {
				t.Fatalf("%+v ended as %s: %s", d, done.State, done.ErrorMessage)
			}
		}
		prefix, suffix := "", ""
		switch {
		case d.tenant != "":
			prefix = "tenant's "
		case to["deployment"] != "":
			suffix = fmt.Sprint(" of ", d.release, " in ", d.environment)
		}
		to[prefix+"deployment"+suffix], to[prefix+"task"+suffix], to[prefix+"interruption"+suffix] = made[i].ID, made[i].TaskID, asked
		to[prefix+"artifact"+suffix] = w.ids("/api/artifacts?regarding=" + made[i].TaskID)[0]
	}
}

// asked waits until a task asks, and tells which interruption it is.
func (w *twins) asked(task string) string {
	w.t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(20 * time.Millisecond) { //nolint:forbidigo // between two looks
		if ids := w.ids("/api/interruptions?pendingOnly=true&regarding=" + task); len(ids) > 0 {
			return ids[0]
		}
		if doc := apptest.Get[octopus.Task](w.t, w.Client, "/api/tasks/"+task); doc.IsCompleted || time.Now().After(deadline) {
			w.t.Fatalf("%s does not ask: %s %s", task, doc.State, doc.ErrorMessage)
		}
	}
}

// person is somebody who may see everything within a scope, and what a deployer
// needs to look at before they deploy.
func (w *twins) person(name string, scope octopus.ScopedUserRole) *apptest.Client {
	w.t.Helper()
	var may []octopus.Permission
	for _, p := range permission.All() {
		if p.Space && p.Looks() || slices.Contains([]octopus.Permission{
			octopus.PermDeploymentCreate, octopus.PermBuiltInFeedDownload, octopus.PermBuiltInFeedPush, octopus.PermCertificateExportPrivateKey,
		}, p.Name) {
			may = append(may, p.Name)
		}
	}
	user := w.make("users", `{"Username":"`+name+`","IsService":true}`)
	scope.TeamID = w.make("teams", `{"Name":"`+name+`","MemberUserIds":["`+user+`"]}`)
	scope.UserRoleID = apptest.Post(w.t, w.Client, "/api/userroles", octopus.UserRole{Name: name, GrantedSpacePermissions: may}).ID
	scope.SpaceID = "Spaces-1"
	apptest.Post(w.t, w.Client, "/api/scopeduserroles", scope)
	var key struct{ APIKey string }
	w.Must(w.t, http.MethodPost, "/api/users/"+user+"/apikeys", map[string]string{"Purpose": "test"}, &key)
	return w.As(key.APIKey)
}

// viewer looks at the world as somebody with a limited role.
type viewer struct {
	*twins
	t *testing.T
	c *apptest.Client
	// words are in the names of what they may not see, and hidden are ids of it by
	// what it is.
	words  []string
	hidden map[string]string
}

// shows reports what of the hidden stands in an answer. What the answer of a kind has
// to say of other things (ids of a lifecycle's environments) is not told.
func (v *viewer) shows(body []byte, mentions []string) (found []string) {
	text := string(body)
	for _, word := range v.words {
		if at := strings.Index(strings.ToLower(text), word); at >= 0 {
			found = append(found, fmt.Sprintf("%q", text[max(0, at-80):min(len(text), at+40)]))
		}
	}
	for name, id := range v.hidden {
		if slices.Contains(mentions, name) {
			continue
		}
		if at := regexp.MustCompile(`\b` + regexp.QuoteMeta(id) + `\b`).FindStringIndex(text); at != nil {
			found = append(found, fmt.Sprintf("the %s %q", name, text[max(0, at[0]-80):min(len(text), at[1]+40)]))
		}
	}
	return found
}

// generated are the reading operations that every kind has of itself.
func generated() map[string]*resource.Kind {
	all := map[string]*resource.Kind{}
	for _, k := range resources.All() {
		if k.Hidden {
			continue
		}
		base := "GET /api/{space}/" + k.Name
		if k.Scope == resource.InSystem {
			base = "GET /api/" + k.Name
		}
		for _, path := range []string{"", "/all", "/{id}"} {
			all[base+path] = k
		}
	}
	return all
}

// sightOf finds what is said of an operation, in the tables of kinds or of routes.
func sightOf(op operation, kinds map[string]*resource.Kind) (s sight, known bool) {
	name := op.Method + " " + op.Path
	if s, known = routeSights()[name]; known {
		return s, true
	}
	if k := kinds[name]; k != nil {
		s, known = kindSights()[k.Name]
	}
	return s, known
}

// TestPoint17EveryListShowsOwnPart reads everything that can be read as people whose
// roles are for one project and one environment, or for one project group and one
// tenant: in every list, dashboard, progression and event they see theirs and
// nothing else, by its id they find nothing else, and nothing else is counted.
func TestPoint17EveryListShowsOwnPart(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			w := newTwins(t, apptest.Start(t, dialect))
			one := func(id string) octopus.List[string] { return octopus.List[string]{id} }
			place := w.person("place", octopus.ScopedUserRole{ProjectIDs: one(w.of["project"]), EnvironmentIDs: one(w.of["dev"])})
			tenant := w.person("customer", octopus.ScopedUserRole{ProjectGroupIDs: one(w.of["group"]), EnvironmentIDs: one(w.of["dev"]), TenantIDs: one(w.of["tenant"])})
			t.Run("of a project in an environment", func(t *testing.T) {
				v := &viewer{twins: w, t: t, c: place, words: []string{"zebra"}, hidden: maps.Clone(w.other)}
				delete(v.hidden, "group")
				for name := range w.other {
					// Who sees a place sees its deployments for every tenant.
					if strings.HasPrefix(name, "tenant") {
						delete(v.hidden, name)
					}
				}
				v.walk(nil)
			})
			t.Run("of a group for a tenant", func(t *testing.T) {
				v := &viewer{twins: w, t: t, c: tenant, words: []string{"zebra", "okapi"}, hidden: maps.Clone(w.other)}
				own := maps.Clone(w.of)
				for name, id := range w.of {
					if of, is := strings.CutPrefix(name, "tenant's "); is {
						v.hidden["untenanted "+of] = own[of]
						own[of] = id
					}
				}
				own["event"] = w.ids("/api/events?eventCategories=DeploymentQueued&take=1000&regarding=" + own["deployment"])[0]
				v.walk(own)
			})
		})
	}
}

// walk reads everything. own are the ids of what the viewer sees, when they are
// others than those of the world.
func (v *viewer) walk(own map[string]string) {
	if own != nil {
		f, w := *v.furnished, *v.walker
		w.of, f.walker = own, &w
		v.twins = &twins{&f, v.other}
	}
	kinds := generated()
	for _, op := range v.ops {
		if op.Method != http.MethodGet || op.Permission == rest.Public {
			continue
		}
		s, known := sightOf(op, kinds)
		if !known && system(op) {
			s, known = sight{refused: true}, true
		}
		if shows := signedInRoutes[op.Method+" "+op.Path]; !known && (shows == facts || shows == oneself) {
			s, known = sight{shared: shows, missing: shows == oneself}, true
		}
		if !known {
			v.t.Errorf("nobody has said what a role of one project and one environment sees by %s %s: add the kind or the route to the tables", op.Method, op.Path)
			continue
		}
		v.read(op, s)
		v.others(op, s)
	}
}

// system reports whether an operation takes a permission that no space has.
func system(op operation) bool {
	info, ok := permission.Find(op.Permission)
	return ok && !info.Space
}

// read reads an operation with the ids of what the viewer may see.
func (v *viewer) read(op operation, s sight) {
	path, query := v.path(op, nil), needed(op, v.furnished)
	if query == "" && slices.ContainsFunc(op.query, func(p *openapi3.Parameter) bool { return p.Name == "take" }) {
		query = "?take=1000" // all of it, so that it can be counted
	}
	asked := []string{path + query}
	for _, more := range s.queries {
		asked = append(asked, path+query+strings.Replace(v.pairs(more), "?", cmp.Or(strings.Repeat("&", min(len(query), 1)), "?"), 1))
	}
	if s.own != "" {
		asked = append(asked, strings.Replace(path, "/api/Spaces-1/", "/api/", 1)+query)
	}
	for i, at := range asked {
		resp, err := v.c.Do(v.t.Context(), http.MethodGet, at, nil)
		if err != nil {
			v.t.Fatal(err)
		}
		if s.refused {
			if resp.Status != http.StatusForbidden {
				v.t.Errorf("GET %s: %d %.300s; they have no permission for it", at, resp.Status, resp.Body)
			}
			continue
		}
		if resp.Status != http.StatusOK && !s.missing {
			v.t.Errorf("GET %s: %d %.300s", at, resp.Status, resp.Body)
			continue
		}
		if found := v.shows(resp.Body, s.mentions); len(found) > 0 {
			v.t.Errorf("GET %s shows\n\t%s", at, strings.Join(found, "\n\t"))
		}
		if own := v.of[s.own]; s.own != "" && (i == 0 || i == len(asked)-1) && !strings.Contains(string(resp.Body), own) {
			v.t.Errorf("GET %s does not show the %s %s: %.500s", at, s.own, own, resp.Body)
		}
		v.counted(at, resp.Body)
	}
}

// counted compares what a page says there is with what it has.
func (v *viewer) counted(at string, body []byte) {
	var page struct {
		TotalResults *int
		Items        []json.RawMessage
		TotalCounts  map[string]json.RawMessage
	}
	if !strings.Contains(at, "take=1000") || json.Unmarshal(body, &page) != nil || page.TotalResults == nil {
		return
	}
	if *page.TotalResults != len(page.Items) {
		v.t.Errorf("GET %s counts %d and shows %d", at, *page.TotalResults, len(page.Items))
	}
	sum := 0
	for _, raw := range page.TotalCounts {
		var n int
		if json.Unmarshal(raw, &n) == nil {
			sum += n
		}
	}
	if page.TotalCounts != nil && sum != len(page.Items) {
		v.t.Errorf("GET %s counts %d by their states and shows %d", at, sum, len(page.Items))
	}
}

// others reads an operation with the id of a hidden thing for each of those in its
// path, and looks for hidden things in its list.
func (v *viewer) others(op operation, s sight) {
	for n, name := range parameters(op.Path) {
		id := v.hidden[name]
		if id == "" || s.refused || id == v.of[name] {
			continue
		}
		at := v.path(op, map[int]string{n: id}) + needed(op, v.furnished)
		resp, err := v.c.Do(v.t.Context(), http.MethodGet, at, nil)
		if err != nil {
			v.t.Fatal(err)
		}
		if resp.Status != http.StatusNotFound && resp.Status != http.StatusForbidden {
			v.t.Errorf("GET %s, which they may not see: %d %.300s", at, resp.Status, resp.Body)
		}
		for _, word := range v.words {
			if strings.Contains(strings.ToLower(string(resp.Body)), word) {
				v.t.Errorf("GET %s: %s", at, resp.Body)
			}
		}
	}
	if s.refused || s.missing || strings.HasSuffix(op.Path, "}") {
		return
	}
	for _, find := range s.finds {
		value := strings.Join(slices.Sorted(maps.Values(v.hidden)), ",")
		if param, name, one := strings.Cut(find, "="); one {
			find, value = param, v.hidden[name]
		}
		if find == "partialName" {
			value = v.words[0]
		}
		at := v.path(op, nil) + "?" + find + "=" + value
		resp, err := v.c.Do(v.t.Context(), http.MethodGet, at, nil)
		if err != nil {
			v.t.Fatal(err)
		}
		var page struct{ TotalResults *int }
		none := strings.TrimSpace(string(resp.Body)) == "[]" || json.Unmarshal(resp.Body, &page) == nil && page.TotalResults != nil && *page.TotalResults == 0
		if resp.Status != http.StatusOK || !none {
			v.t.Errorf("GET %s finds what they may not see: %d %.300s", at, resp.Status, resp.Body)
		}
	}
}

// TestSightsAreWanted: what is said of a kind or a route that is no more is in the way.
func TestSightsAreWanted(t *testing.T) {
	t.Parallel()
	known := map[string]bool{}
	for _, line := range routeTable(t) {
		known[line.Method+" "+line.Path] = true
	}
	for name := range routeSights() {
		if !known[name] {
			t.Errorf("there is no operation %s", name)
		}
	}
	kinds := map[string]bool{}
	for _, k := range resources.All() {
		kinds[k.Name] = true
		if _, ok := kindSights()[k.Name]; !ok && !k.Hidden {
			t.Errorf("nobody has said who sees what of the kind %s", k.Name)
		}
	}
	for name := range kindSights() {
		if !kinds[name] {
			t.Errorf("there is no kind %s", name)
		}
	}
}
