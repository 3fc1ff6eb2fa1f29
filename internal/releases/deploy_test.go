package releases_test

import (
	"encoding/base64"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// opt changes the options of a deployment.
func opt(change func(o *releases.Options)) func(in *releases.NewDeployments) {
	return func(in *releases.NewDeployments) { change(&in.Options) }
}

func TestDeploy(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(script("Deploy web", uses("", "Acme.Web")), onWorker("Tell"))
		w.push("Acme.Web.1.0.0.zip")
		w.machine("db-1", w.dev, "db")
		r := w.release("1.0.0", func(in *releases.NewRelease) { in.Notes = "First!" })
		d := w.deploy(r.ID, w.dev, opt(func(o *releases.Options) { o.Comments = "go" }))

		plan, task := w.plan(d), w.task(d)
		if plan.OwnerID != d.ID || plan.ManifestID != d.ManifestVariableSetID || plan.ProcessID != r.ProjectDeploymentProcessSnapshotID {
			t.Errorf("plan is of %s with %s and %s", plan.OwnerID, plan.ManifestID, plan.ProcessID)
		}
		if len(plan.Steps) != 3 || !plan.Steps[0].Acquires() || len(plan.Machines) != 1 || plan.Machines[0].ID != w.devTarget || !plan.Machines[0].OnWorker {
			t.Errorf("plan has %d steps and targets %v", len(plan.Steps), plan.Machines)
		}
		if p := plan.Steps[1].Actions[0].Packages; len(p) != 1 || p[0].Version != "1.0.0" {
			t.Errorf("packages are %v", p)
		}
		if task.Description != "Deploy Web Shop release 1.0.0 to Dev" || task.Argument("DeploymentId") != d.ID || task.Tag != w.project.ID+"/"+w.dev {
			t.Errorf("task is %q of %s, tag %s", task.Description, task.Argument("DeploymentId"), task.Tag)
		}
		if d.Name != "Deploy to Dev" || !slices.Equal(d.DeployedToMachineIDs, []string{w.devTarget}) || len(d.Changes) != 1 || d.ChangesMarkdown != "First!" || *d.UseGuidedFailure {
			t.Errorf("deployment is %s", encode(t, d))
		}
		if n := count(t, w, `SELECT count(*) FROM events WHERE category = 'DeploymentQueued' AND environment_id = ? AND message = ?`, w.dev, "Deploy of Web Shop release 1.0.0 to Dev was queued: go"); n != 1 {
			t.Errorf("%d events of the deployment", n)
		}
		if n := count(t, w, `SELECT count(*) FROM events WHERE message LIKE '%snapshot%'`); n != 0 {
			t.Errorf("%d events about snapshots", n)
		}
	})
}

func TestDeployIsRefused(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		required := value("Answer", "")
		required.Prompt = &octopus.VariablePrompt{Label: "The answer", Required: true}
		w.variables(required)
		w.steps(script("Deploy web", func(a *octopus.Action) { a.IsRequired = true }), onWorker("Tell"))
		r := w.release("1.0.0")
		now := time.Now()
		answered := func(o *releases.Options) { o.Variables = map[string]string{"answer": "42"} }
		tests := []struct {
			name, environment string
			change            func(o *releases.Options)
			kind              fault.Kind
			want              string
		}{
			{"lifecycle", w.prod, answered, fault.Invalid, `must be completed first`},
			{"environment", "Nowhere", answered, fault.NotFound, `environment 'Nowhere'`},
			{"prompt", w.dev, func(*releases.Options) {}, fault.Invalid, `"The answer" needs a value`},
			{"blank answer", w.dev, func(o *releases.Options) { o.Variables = map[string]string{"Answer": "  "} }, fault.Invalid, `needs a value`},
			{"required step", w.dev, func(o *releases.Options) { answered(o); o.SkipActions = []string{"deploy web"} }, fault.Invalid, `required and cannot be skipped`},
			{"unknown step", w.dev, func(o *releases.Options) { answered(o); o.SkipActions = []string{"x"} }, fault.Invalid, `no step`},
			{"unknown target", w.dev, func(o *releases.Options) { answered(o); o.Machines = []string{"x"} }, fault.Invalid, `no enabled deployment target`},
			{"all targets left out", w.dev, func(o *releases.Options) { answered(o); o.ExcludedMachines = []string{"web-" + w.dev} }, fault.Invalid, `no enabled deployment target`},
			{"too far ahead", w.dev, func(o *releases.Options) { answered(o); o.QueueTime = now.Add(31 * 24 * time.Hour) }, fault.Invalid, `30 days`},
			{"expired", w.dev, func(o *releases.Options) { answered(o); o.Expiry = now.Add(-time.Hour) }, fault.Invalid, `has passed`},
			{"expires before", w.dev, func(o *releases.Options) {
				answered(o)
				o.QueueTime, o.Expiry = now.Add(2*time.Hour), now.Add(time.Hour)
			}, fault.Invalid, `not after QueueTime`},
			{"priority", w.dev, func(o *releases.Options) { answered(o); o.Priority = "High" }, fault.Invalid, `LifecycleDefault`},
		}
		for _, test := range tests {
			_, err := w.tryDeploy(r.ID, test.environment, opt(test.change))
			if !fault.Is(err, test.kind) || !strings.Contains(fmt.Sprint(err), test.want) {
				t.Errorf("%s: error is %v, want %s with %q", test.name, err, test.kind, test.want)
			}
		}
		if n := count(t, w, `SELECT count(*) FROM task`) + count(t, w, `SELECT count(*) FROM deployment`); n != 0 {
			t.Errorf("%d rows were left by refused deployments", n)
		}
		w.deploy(r.ID, w.dev, opt(answered))
		w.changeProject(func(p *octopus.Project) { p.IsDisabled = true })
		_, err := w.tryDeploy(r.ID, w.dev, opt(answered))
		refused(t, err, fault.Invalid, "disabled")
	})
}

func TestDeployNeedsPermission(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(onWorker("Tell"))
		r := w.release("1.0.0")
		in := releases.NewDeployments{Space: space, Project: "web shop", Version: "1.0.0", Environments: []string{"dev"}}
		var asked []auth.Target
		_, err := w.rel.Deploy(t.Context(), in, func(permission string, to auth.Target) error {
			asked = append(asked, to)
			return fault.New(fault.Forbidden, "needs %s", permission)
		})
		refused(t, err, fault.Forbidden, "DeploymentCreate")
		if diff := cmp.Diff([]auth.Target{{Project: w.project.ID, ProjectGroup: "ProjectGroups-1", Environment: w.dev}}, asked); diff != "" {
			t.Error(diff)
		}
		if made, err := w.rel.Deploy(t.Context(), in, nil); err != nil || made[0].ReleaseID != r.ID {
			t.Errorf("deploy by names: %v", err)
		}
	})
}

func TestMissingPackages(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(script("Deploy web", uses("", "Acme.Web"), uses("lib", "Acme.Lib")))
		r := w.release("1.0.0", func(in *releases.NewRelease) { in.PackageVersion = "4.0" })
		_, err := w.tryDeploy(r.ID, w.dev)
		refused(t, err, fault.Invalid, "Acme.Web 4.0", "Acme.Lib 4.0")
		w.deploy(r.ID, w.dev, opt(func(o *releases.Options) { o.SkipActions = []string{"Deploy web"} }))
		w.push("Acme.Web.4.0.zip", "Acme.Lib.4.0.zip")
		w.deploy(r.ID, w.dev)
	})
}

func TestNoTargets(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		empty := w.create("environments", "", &octopus.Environment{Name: "Empty"})
		lifecycle := w.create("lifecycles", "", &octopus.Lifecycle{Name: "Any", Phases: octopus.List[octopus.Phase]{{Name: "All"}}})
		w.changeProject(func(p *octopus.Project) { p.LifecycleID = lifecycle })
		w.steps(script("Deploy web"), onWorker("Tell"))
		r := w.release("1.0.0")
		_, err := w.tryDeploy(r.ID, empty)
		refused(t, err, fault.Invalid, "'Empty' has no enabled deployment target", "web")
		w.changeProject(func(p *octopus.Project) { p.ProjectConnectivityPolicy.AllowDeploymentsToNoTargets = true })
		if plan := w.plan(w.deploy(r.ID, empty)); len(plan.Machines) != 0 || len(plan.Steps) != 2 {
			t.Errorf("plan has %d steps on %v", len(plan.Steps), plan.Machines)
		}
		w.changeProject(func(p *octopus.Project) { p.ProjectConnectivityPolicy.AllowDeploymentsToNoTargets = false })
		w.steps(onWorker("Tell"))
		w.deploy(w.release("1.0.1").ID, empty) // nothing wants a target
	})
}

func TestTargetsThatTakePart(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(script("Deploy web"))
		r := w.release("1.0.0")
		off := &octopus.Machine{EnvironmentIDs: octopus.List[string]{w.dev}, Roles: octopus.List[string]{"web"}}
		off.Name, off.Endpoint.CommunicationStyle, off.IsDisabled = "off", octopus.StyleNone, true
		w.create("machines", "", off)
		sick := &octopus.Machine{EnvironmentIDs: octopus.List[string]{w.dev}, Roles: octopus.List[string]{"WEB"}}
		sick.Name, sick.Endpoint.CommunicationStyle, sick.HealthStatus = "sick", octopus.StyleNone, octopus.Unhealthy
		w.create("machines", "", sick)
		for _, tenanted := range []octopus.TenantedDeploymentMode{octopus.Tenanted, octopus.TenantedOrUntenanted} {
			m := &octopus.Machine{EnvironmentIDs: octopus.List[string]{w.dev}, Roles: octopus.List[string]{"web"}, TenantedDeploymentParticipation: tenanted}
			m.Name, m.Endpoint.CommunicationStyle = string(tenanted), octopus.StyleNone
			w.create("machines", "", m)
		}
		blue := &octopus.Machine{EnvironmentIDs: octopus.List[string]{w.dev}, Roles: octopus.List[string]{"web", "blue"}}
		blue.Name, blue.Endpoint.CommunicationStyle = "blue", octopus.StyleNone
		w.create("machines", "", blue)
		names := func(change func(o *releases.Options)) string {
			var all []string
			for _, m := range w.plan(w.deploy(r.ID, w.dev, opt(change))).Machines {
				all = append(all, m.Name)
			}
			return strings.Join(all, " ")
		}
		web := "web-" + w.dev
		tests := []struct {
			name, want string
			change     func(o *releases.Options)
		}{
			{"all", "blue sick TenantedOrUntenanted " + web, func(*releases.Options) {}},
			{"some", web, func(o *releases.Options) { o.Machines = []string{strings.ToUpper(web)} }},
			{"others", "blue sick TenantedOrUntenanted", func(o *releases.Options) { o.ExcludedMachines = []string{w.devTarget, "gone"} }},
			{"with a tag", "blue", func(o *releases.Options) { o.TargetTags = []string{"Blue"} }},
			{"with one of two", "blue sick TenantedOrUntenanted " + web, func(o *releases.Options) { o.TargetTags = []string{"blue", "web"} }},
			{"with a tag, or named", "blue sick", func(o *releases.Options) { o.TargetTags, o.Machines = []string{"blue"}, []string{"sick"} }},
			{"without a tag", "sick TenantedOrUntenanted " + web, func(o *releases.Options) { o.ExcludedTargetTags = []string{"BLUE", "nobody has it"} }},
			{"with a tag and not named", "sick TenantedOrUntenanted", func(o *releases.Options) {
				o.TargetTags, o.ExcludedMachines, o.ExcludedTargetTags = []string{"web"}, []string{web}, []string{"blue"}
			}},
		}
		for _, test := range tests {
			if got := names(test.change); got != test.want {
				t.Errorf("%s: targets are %s, want %s", test.name, got, test.want)
			}
		}
		_, err := w.tryDeploy(r.ID, w.dev, opt(func(o *releases.Options) { o.TargetTags = []string{"blue", "green"} }))
		refused(t, err, fault.Invalid, "SpecificTargetTagIds names the target tag 'green'", "'Dev'")
		_, err = w.tryDeploy(r.ID, w.dev, opt(func(o *releases.Options) { o.TargetTags = make([]string, 1001) }))
		refused(t, err, fault.Invalid, "at most 1000")
		// They are told, done again, and asked for by what the engine looks for anew.
		d := w.deploy(r.ID, w.dev, opt(func(o *releases.Options) { o.TargetTags, o.ExcludedTargetTags = []string{"web"}, []string{"blue"} }))
		again, err := w.rel.Again(t.Context(), space, d.ID, false, nil)
		check(t, err)
		if diff := cmp.Diff([]octopus.List[string]{{"web"}, {"blue"}}, []octopus.List[string]{again.SpecificTargetTagIDs, again.ExcludedTargetTagIDs}); diff != "" {
			t.Error(diff)
		}
		found, err := w.rel.Targets(t.Context(), w.plan(d))
		check(t, err)
		if slices.ContainsFunc(found, func(m releases.Target) bool { return m.Name == "blue" }) || len(found) != 3 {
			t.Errorf("targets of the deployment are %d", len(found))
		}
		w.changeProject(func(p *octopus.Project) { p.ProjectConnectivityPolicy.ExcludeUnhealthyTargets = true })
		if got := names(func(*releases.Options) {}); strings.Contains(got, "sick") {
			t.Errorf("targets are %s, want no unhealthy one", got)
		}
		// How a target is when the deployment begins is looked at then.
		if got := names(func(o *releases.Options) { o.QueueTime = time.Now().Add(time.Hour) }); !strings.Contains(got, "sick") {
			t.Errorf("targets of a later deployment are %s", got)
		}
	})
}

// What becomes of targets that are not there is frozen with the plan.
func TestConnectivityOfPlans(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(script("Deploy web"))
		r := w.release("1.0.0")
		policy := &octopus.MachinePolicy{Name: "Laptops"}
		policy.MachineConnectivityPolicy.MachineConnectivityBehavior = octopus.MayBeOffline
		laptop := &octopus.Machine{EnvironmentIDs: octopus.List[string]{w.dev}, Roles: octopus.List[string]{"web"}}
		laptop.MachinePolicyID = w.create("machinepolicies", "", policy)
		laptop.Name, laptop.Endpoint.CommunicationStyle = "laptop", octopus.StyleNone
		w.create("machines", "", laptop)
		w.changeProject(func(p *octopus.Project) {
			p.ProjectConnectivityPolicy = octopus.ConnectivityPolicy{
				SkipMachineBehavior: octopus.SkipUnavailable, TargetRoles: octopus.List[string]{"db"}, AllowDeploymentsToNoTargets: true, ExcludeUnhealthyTargets: true,
			}
		})
		d := w.deploy(r.ID, w.dev)
		plan := w.plan(d)
		if diff := cmp.Diff(deploy.Targets{Skip: true, SkipRoles: []string{"db"}, ExcludeUnhealthy: true, AllowNone: true}, plan.Targets); diff != "" {
			t.Error(diff)
		}
		got := map[string]bool{}
		for i := range plan.Machines {
			got[plan.Machines[i].Name] = plan.MaySkip(&plan.Machines[i])
		}
		if diff := cmp.Diff(map[string]bool{"laptop": true, "web-" + w.dev: false}, got); diff != "" {
			t.Error(diff)
		}
		// One that was left out on the way lacks the release: it is brought to it later.
		var m octopus.Machine
		w.load("machines", w.devTarget, &m)
		renewals := func() (all []releases.Renewal) {
			w.read(func(tx *db.Tx) (err error) {
				all, err = w.rel.Renewals(t.Context(), tx, &w.project, []octopus.Machine{m}, false)
				return err
			})
			return all
		}
		w.end(d, octopus.TaskSuccess)
		if len(renewals()) != 0 {
			t.Errorf("a target lacks what was deployed to it: %+v", renewals())
		}
		w.write(func(tx *db.Tx) error { return w.rel.Reached(t.Context(), tx, plan, []string{laptop.ID}) })
		if all := renewals(); len(all) != 1 || all[0].ReleaseID != r.ID || len(all[0].Machines) != 1 {
			t.Errorf("what the target lacks: %+v", all)
		}
		found, err := w.rel.Targets(t.Context(), plan)
		check(t, err)
		for i := range found {
			if p := found[i].Planned(); p.MayBeOffline != (p.Name == "laptop") {
				t.Errorf("%+v", p)
			}
		}
	})
}

func TestProgressionAndCurrentRelease(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(onWorker("Tell"))
		r := w.release("1.0.0")
		d := w.deploy(r.ID, w.dev)
		_, err := w.tryDeploy(r.ID, w.test)
		refused(t, err, fault.Invalid, `deploy it to "Dev"`)
		w.end(d, octopus.TaskFailed)
		_, err = w.tryDeploy(r.ID, w.test)
		refused(t, err, fault.Invalid, `deploy it to "Dev"`)
		w.end(w.deploy(r.ID, w.dev), octopus.TaskSuccess)
		w.end(w.deploy(r.ID, w.test), octopus.TaskSuccess)
		if d := w.deploy(r.ID, w.prod); !*d.UseGuidedFailure {
			t.Error("the environment's guided failure is not the deployment's")
		}
		if n := count(t, w, `SELECT count(*) FROM current_release WHERE project_id = ? AND release_id = ?`, w.project.ID, r.ID); n != 2 {
			t.Errorf("the release is current in %d places, want 2", n)
		}
		for category, want := range map[string]int64{"DeploymentQueued": 4, "DeploymentSucceeded": 2, "DeploymentFailed": 1} {
			if n := count(t, w, `SELECT count(*) FROM events WHERE category = ?`, category); n != want {
				t.Errorf("%d events %s, want %d", n, category, want)
			}
		}
		// What was there before is known to the next deployment.
		next := w.release("1.1.0", func(in *releases.NewRelease) { in.Notes = "More." })
		d = w.deploy(next.ID, w.dev)
		vars := w.manifest(d)
		for name, want := range map[string]string{
			"Octopus.Release.Previous.Number": "1.0.0", "Octopus.Release.CurrentForEnvironment.Number": "1.0.0",
			"Octopus.Release.PreviousForEnvironment.Id": r.ID, "Octopus.Release.Number": "1.1.0",
			"Octopus.Environment.Name": "Dev", "Octopus.Project.Name": "Web Shop", "Octopus.ProjectGroup.Name": "Default Project Group",
			"Octopus.Space.Name": "Default", "Octopus.Task.Id": d.TaskID, "Octopus.Deployment.Id": d.ID,
			"Octopus.Web.ReleaseLink": "/app#/Spaces-1/projects/web-shop/deployments/releases/1.1.0", "Octopus.Web.ServerUri": "https://tako.example.com",
		} {
			if got := vars.Value(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if _, ok := vars.Get("Octopus.Deployment.Tenant.Id"); ok {
			t.Error("an untenanted deployment has a tenant")
		}
	})
}

// manifest is what a deployment's steps see where no step and no target counts.
func (w *world) manifest(d octopus.Deployment) variables.Resolved {
	w.t.Helper()
	p := w.plan(d)
	values, err := w.rel.Variables(w.t.Context(), p)
	check(w.t, err)
	return variables.New(values...).Resolve(variables.Context{Environment: p.EnvironmentID, Channel: p.ChannelID, Tenant: p.TenantID, TenantTags: p.TenantTags, ProcessOwner: p.ProjectID})
}

func TestVariablesOfADeployment(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		library := w.create("libraryvariablesets", "", &octopus.LibraryVariableSet{Name: "Shared"})
		second := w.create("libraryvariablesets", "", &octopus.LibraryVariableSet{Name: "Shared too"})
		w.variablesOf("variableset-"+library, value("Color", "red"), value("Name", "library"))
		w.variablesOf("variableset-"+second, value("Color", "blue"), value("Size", "XL"))
		w.changeProject(func(p *octopus.Project) { p.IncludedLibraryVariableSetIDs = octopus.List[string]{library, second} })
		password := octopus.NewSensitive("s3cret")
		account := w.create("accounts", "", &octopus.Account{Name: "db", AccountType: octopus.AccountUsernamePassword, Username: "scott", Password: &password})
		prompted, hidden := value("Answer", "default"), sensitive("Pin", "0000")
		prompted.Prompt, hidden.Prompt = &octopus.VariablePrompt{}, &octopus.VariablePrompt{Required: true}
		scoped := value("Name", "dev")
		scoped.Scope.Environment = octopus.List[string]{w.dev}
		db := value("Db", account)
		db.Type = octopus.VariableUserAccount
		w.variables(value("Name", "project"), scoped, sensitive("Password", "hunter2"), prompted, hidden, db)
		w.steps(onWorker("Tell", func(a *octopus.Action) { a.Properties["Token"] = octopus.Secret("t0ken") }))
		r := w.release("1.0.0")
		w.variables(value("Name", "later"))

		d := w.deploy(r.ID, w.dev, opt(func(o *releases.Options) { o.Variables = map[string]string{"ANSWER": "42", "pin": "1234"} }))
		vars := w.manifest(d)
		for name, want := range map[string]string{
			"Name": "dev", "Color": "red", "Size": "XL", "Password": "hunter2", "Answer": "42", "Pin": "1234",
			"Db": account, "Db.Username": "scott", "Db.Password": "s3cret",
		} {
			if got, ok := vars.Get(name); !ok || got.Value != want {
				t.Errorf("%s is %q, want %q", name, got.Value, want)
			}
		}
		for _, name := range []string{"Password", "Pin", "Db.Password"} {
			if v, _ := vars.Get(name); !v.Sensitive {
				t.Errorf("%s is not sensitive", name)
			}
		}
		if text := encode(t, d); strings.Contains(text, "1234") {
			t.Errorf("the document shows a secret answer: %s", text)
		}
		if n := count(t, w, `SELECT count(*) FROM manifest WHERE body LIKE '%1234%' OR body LIKE '%hunter2%' OR body LIKE '%s3cret%'`); n != 0 {
			t.Error("a manifest has a secret in clear")
		}
		steps, err := w.rel.Process(t.Context(), w.plan(d))
		check(t, err)
		if v := steps[0].Actions[0].Properties["Token"]; v.Sensitive == nil || v.Sensitive.NewValue == nil || *v.Sensitive.NewValue != "t0ken" {
			t.Error("the engine does not get the secret of an action")
		}
		// By id an answer is for that very value.
		var set struct{ Variables []octopus.Variable }
		w.load("variablesnapshots", r.ProjectVariableSetSnapshotID, &set)
		id := set.Variables[slices.IndexFunc(set.Variables, func(v octopus.Variable) bool { return v.Name == "Answer" })].ID
		d = w.deploy(r.ID, w.dev, opt(func(o *releases.Options) { o.FormValues = map[string]string{id: "43"} }))
		if got := w.manifest(d).Value("Answer"); got != "43" || d.FormValues[id] != "43" {
			t.Errorf("Answer is %q, the document says %q", got, d.FormValues[id])
		}
	})
}

func TestConcurrencyTag(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(onWorker("Tell"))
		w.variables(value("Octopus.Task.ConcurrencyTag", "#{Octopus.Project.Name} #{Octopus.Environment.Name}"))
		if got := w.task(w.deploy(w.release("1.0.0").ID, w.dev)).Tag; got != "Web Shop Dev" {
			t.Errorf("tag is %q", got)
		}
	})
}

func TestPriority(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		lifecycle := w.create("lifecycles", "", &octopus.Lifecycle{Name: "Fast", Phases: octopus.List[octopus.Phase]{{Name: "Dev", OptionalDeploymentTargets: octopus.List[string]{w.dev}, IsPriorityPhase: true}}})
		w.changeProject(func(p *octopus.Project) { p.LifecycleID = lifecycle })
		w.steps(onWorker("Tell"))
		r := w.release("1.0.0")
		for priority, want := range map[octopus.DeploymentPriority]bool{"": true, octopus.PriorityOn: true, octopus.PriorityOff: false} {
			if got := w.task(w.deploy(r.ID, w.dev, opt(func(o *releases.Options) { o.Priority = priority }))).Priority; got != want {
				t.Errorf("priority %q gives %v, want %v", priority, got, want)
			}
		}
	})
}

func TestAutomaticDeployments(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		lifecycle := w.create("lifecycles", "", &octopus.Lifecycle{Name: "Auto", Phases: octopus.List[octopus.Phase]{
			{Name: "Dev", AutomaticDeploymentTargets: octopus.List[string]{w.dev}},
			{Name: "Test", AutomaticDeploymentTargets: octopus.List[string]{w.test}},
			{Name: "Prod", OptionalDeploymentTargets: octopus.List[string]{w.prod}},
		}})
		w.changeProject(func(p *octopus.Project) { p.LifecycleID = lifecycle })
		w.steps(onWorker("Tell"))
		made, err := w.tryRelease("1.0.0")
		check(t, err)
		if len(made.Deployed) != 1 || made.Deployed[0].Name != "Dev" {
			t.Fatalf("deployed to %v, want Dev", made.Deployed)
		}
		to := func(environment string) []octopus.Deployment {
			t.Helper()
			var all []octopus.Deployment
			for _, d := range w.deployments(made.Release.ID) {
				if d.EnvironmentID == environment {
					all = append(all, d)
				}
			}
			return all
		}
		w.end(to(w.dev)[0], octopus.TaskFailed)
		if n := len(to(w.test)) + len(to(w.dev)); n != 1 {
			t.Fatalf("%d deployments after a failure, want 1", n)
		}
		w.end(w.deploy(made.Release.ID, w.dev), octopus.TaskSuccess)
		if n := len(to(w.test)); n != 1 {
			t.Fatalf("%d deployments to Test after a success, want 1", n)
		}
		// A further success of the same phase brings nothing new.
		w.end(w.deploy(made.Release.ID, w.dev), octopus.TaskSuccess)
		w.end(to(w.test)[0], octopus.TaskSuccess)
		if n := len(to(w.test)) + len(to(w.prod)); n != 1 {
			t.Errorf("%d deployments to Test and Prod, want 1", n)
		}
		// What the rules refuse is told, and the release is made all the same.
		required := value("Answer", "")
		required.Prompt = &octopus.VariablePrompt{Required: true}
		w.variables(required)
		w.release("1.1.0")
		if n := count(t, w, `SELECT count(*) FROM events WHERE category = 'DeploymentFailed' AND message LIKE '%could not be queued automatically%Answer%'`); n != 1 {
			t.Errorf("%d events of an automatic deployment that was refused, want 1", n)
		}
	})
}

// TestTwoDeploymentsCompleteAPhase ends two deployments at the same time, which
// together complete a phase: what follows is made once, whoever was later.
func TestTwoDeploymentsCompleteAPhase(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		lifecycle := w.create("lifecycles", "", &octopus.Lifecycle{Name: "Auto", Phases: octopus.List[octopus.Phase]{
			{Name: "First", OptionalDeploymentTargets: octopus.List[string]{w.dev, w.test}},
			{Name: "Prod", AutomaticDeploymentTargets: octopus.List[string]{w.prod}},
		}})
		w.changeProject(func(p *octopus.Project) { p.LifecycleID = lifecycle })
		w.steps(onWorker("Tell"))
		for range 8 {
			r := w.release("")
			pair := []octopus.Deployment{w.deploy(r.ID, w.dev), w.deploy(r.ID, w.test)}
			var both sync.WaitGroup
			for _, d := range pair {
				both.Go(func() {
					if err := w.tryEnd(d, octopus.TaskSuccess); err != nil {
						t.Error(err)
					}
				})
			}
			both.Wait()
			if all := w.deployments(r.ID); len(all) != 3 || all[2].EnvironmentID != w.prod {
				t.Fatalf("release %s: %d deployments, want 3", r.Version, len(all))
			}
		}
	})
}

func TestPoint01Tenants(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		connected := func(name string, environments ...string) *octopus.Tenant {
			return &octopus.Tenant{Name: name, TenantTags: octopus.List[string]{"Ring/" + name}, ProjectEnvironments: octopus.Map[string, octopus.List[string]]{w.project.ID: environments}}
		}
		w.steps(onWorker("Tell"))
		w.create("tagsets", "", &octopus.TagSet{Name: "Ring", Type: octopus.TagFreeText})
		alpha := w.create("tenants", "", connected("Alpha", w.dev, w.prod))
		w.create("tenants", "", connected("Beta", w.dev))
		off := connected("Off", w.dev)
		off.IsDisabled = true
		w.create("tenants", "", off)
		r := w.release("1.0.0")
		with := func(tenants ...string) func(in *releases.NewDeployments) {
			return func(in *releases.NewDeployments) { in.Tenants = tenants }
		}
		_, err := w.tryDeploy(r.ID, w.dev, with("alpha"))
		refused(t, err, fault.Invalid, "is not deployed for tenants")
		w.changeProject(func(p *octopus.Project) { p.TenantedDeploymentMode = octopus.Tenanted })
		_, err = w.tryDeploy(r.ID, w.dev)
		refused(t, err, fault.Invalid, "for tenants only")
		_, err = w.tryDeploy(r.ID, w.dev, with("off"))
		refused(t, err, fault.Invalid, "is disabled")
		_, err = w.tryDeploy(r.ID, w.prod, with("beta"))
		refused(t, err, fault.Invalid, "not connected")
		_, err = w.tryDeploy(r.ID, w.dev, with("nobody"))
		refused(t, err, fault.NotFound, "tenant")

		made, err := w.tryDeploy(r.ID, w.dev, func(in *releases.NewDeployments) { in.TenantTags = []string{"Ring/alpha", "Ring/beta", "Ring/off"} })
		check(t, err)
		if len(made) != 2 || string(made[0].TenantID) != alpha {
			t.Fatalf("deployments are %s", encode(t, made))
		}
		if task := w.task(made[0]); task.Tag != w.project.ID+"/"+w.dev+"/"+alpha || task.TenantID != alpha || !strings.HasSuffix(task.Description, "to Dev for Alpha") {
			t.Errorf("task is %q, tag %s", task.Description, task.Tag)
		}
		if got := w.manifest(made[0]).Value("Octopus.Deployment.Tenant.Name"); got != "Alpha" {
			t.Errorf("the tenant is %q", got)
		}
		// Alpha skips Test, to which it is not connected; its progress is its own.
		_, err = w.tryDeploy(r.ID, w.prod, with("alpha"))
		refused(t, err, fault.Invalid, `deploy it to "Dev"`)
		w.end(made[0], octopus.TaskSuccess)
		if _, err := w.tryDeploy(r.ID, w.prod, with("alpha")); err != nil {
			t.Error(err)
		}
		channel := w.create("channels", "", &octopus.Channel{ProjectID: w.project.ID, Name: "Early", TenantTags: octopus.List[string]{"Ring/Alpha"}})
		early := w.release("2.0.0", func(in *releases.NewRelease) { in.Channel = channel })
		_, err = w.tryDeploy(early.ID, w.dev, with("beta"))
		refused(t, err, fault.Invalid, "The channel 'Early' is not for the tenant 'Beta'")
	})
}

func TestBoundPackages(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.variables(value("Product", "Acme.Web"))
		w.steps(script("Deploy", uses("", "#{Product}.#{Octopus.Environment.Name}")))
		_, err := w.tryRelease("1.0.0")
		refused(t, err, fault.Invalid, "must be given")
		r := w.release("1.0.0", func(in *releases.NewRelease) { in.Packages = []string{"Deploy:2.0"} })
		if p := w.plan(w.deploy(r.ID, w.dev)).Steps[1].Actions[0].Packages; p[0].PackageID != "Acme.Web.Dev" || p[0].Version != "2.0" {
			t.Errorf("packages are %v", p)
		}
	})
}

func TestScheduledDeployment(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(onWorker("Tell"))
		r := w.release("1.0.0")
		at := time.Now().Add(time.Hour).UTC().Truncate(time.Second)
		d := w.deploy(r.ID, w.dev, opt(func(o *releases.Options) { o.QueueTime, o.Expiry = at, at.Add(time.Hour) }))
		task := w.task(d)
		if !task.QueueTime.Equal(at) || !task.Expiry.Equal(at.Add(time.Hour)) || d.QueueTime == nil || !d.QueueTime.Time.Equal(at) {
			t.Errorf("task is queued for %v until %v", task.QueueTime, task.Expiry)
		}
		// A start that has passed is now.
		if d := w.deploy(r.ID, w.dev, opt(func(o *releases.Options) { o.QueueTime = at.Add(-2 * time.Hour) })); d.QueueTime != nil {
			t.Errorf("queue time is %v, want none", d.QueueTime)
		}
	})
}

// TestTenantsValues: what a tenant lacks stops its deployments, and what it has is
// used as it is when the deployment runs.
func TestTenantsValues(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.changeProject(func(p *octopus.Project) {
			p.TenantedDeploymentMode = octopus.TenantedOrUntenanted
			p.Templates = octopus.List[octopus.TemplateParameter]{{ID: "port", Name: "Port"}, {ID: "host", Name: "Host", DefaultValue: octopus.Plain("localhost")}}
		})
		w.steps(onWorker("Tell"))
		acme := w.create("tenants", "", &octopus.Tenant{Name: "Acme", ProjectEnvironments: octopus.Map[string, octopus.List[string]]{w.project.ID: {w.dev}}})
		r := w.release("1.0.0")
		for0 := func(in *releases.NewDeployments) { in.Tenants = []string{acme} }
		if _, err := w.tryDeploy(r.ID, w.dev, for0); err == nil || !strings.Contains(err.Error(), "has no value for Port") {
			t.Fatalf("without a value: %v", err)
		}
		w.create("tenantvariables", resources.TenantVariablesID(acme), &resources.TenantVariableSet{TenantID: acme, Values: octopus.List[resources.TenantValue]{
			{ID: "1", OwnerID: w.project.ID, TemplateID: "port", Value: octopus.Secret("443"), EnvironmentIDs: octopus.List[string]{w.dev}},
		}})
		made, err := w.tryDeploy(r.ID, w.dev, for0)
		if err != nil {
			t.Fatal(err)
		}
		vars := w.manifest(made[0])
		for name, want := range map[string]string{"Port": "443", "Host": "localhost"} {
			if got := vars.Value(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
	})
}

// TestCertificateVariables: a variable of the type Certificate has parts.
func TestCertificateVariables(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		data, err := os.ReadFile("../certificate/testdata/site.pfx")
		check(t, err)
		encoded := base64.StdEncoding.EncodeToString(data)
		id := w.create("certificates", "", &octopus.Certificate{Name: "Site", CertificateData: octopus.NewSensitive(encoded), Password: octopus.NewSensitive("hush-pfx")})
		w.variables(octopus.Variable{Name: "Site", Value: &id, Type: octopus.VariableCertificate})
		w.steps(onWorker("Tell"))
		p := w.plan(w.deploy(w.release("1.0.0").ID, w.dev))
		all, err := w.rel.Variables(t.Context(), p)
		check(t, err)
		parts := map[string]variables.Variable{}
		for _, v := range all {
			parts[v.Name] = v
		}
		for name, want := range map[string]string{
			"Site.Thumbprint": "4DD9F93946DFC9A9C11B470748B6028A1B96B95B", "Site.SubjectCommonName": "www.example.com", "Site.HasPrivateKey": "True",
			"Site.RawOriginal": encoded, "Site.Pfx": encoded, "Site.Password": "hush-pfx",
		} {
			if got := parts[name].Value; got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		for _, name := range []string{"Site.RawOriginal", "Site.Pfx", "Site.Password", "Site.PrivateKey", "Site.PrivateKeyPem"} {
			if v := parts[name]; !v.Sensitive || v.Value == "" {
				t.Errorf("%s is %+v, want a secret", name, v)
			}
		}
		if v := parts["Site.CertificatePem"]; v.Sensitive || !strings.HasPrefix(v.Value, "-----BEGIN CERTIFICATE-----") {
			t.Errorf("the certificate itself is %+v", v)
		}
	})
}
