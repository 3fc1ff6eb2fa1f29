package releases_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// texts are the values of a deployment under these names.
func (w *world) texts(d octopus.Deployment, names ...string) map[string]string {
	w.t.Helper()
	all, err := w.rel.Variables(w.t.Context(), w.plan(d))
	check(w.t, err)
	set, out := variables.New(all...), map[string]string{}
	for _, name := range names {
		if v, ok := set.Resolve(variables.Context{Environment: d.EnvironmentID, Channel: d.ChannelID}).Get(name); ok {
			out[name] = v.Value
		}
	}
	return out
}

// A release keeps its process and its variables, whatever becomes of the project, until
// somebody updates the variables; nobody can update the process.
func TestPoint04SnapshotsDoNotChange(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		library := w.create("libraryvariablesets", "", &octopus.LibraryVariableSet{Name: "Shared"})
		w.changeProject(func(p *octopus.Project) { p.IncludedLibraryVariableSetIDs = octopus.List[string]{library} })
		set := func(text string) {
			w.variables(value("Own", text), sensitive("Secret", "secret "+text))
			w.variablesOf("variableset-"+library, value("Shared", text))
			w.steps(onWorker("Step of " + text))
		}
		has := func(what, steps, values string, r octopus.Release) {
			t.Helper()
			d := w.deploy(r.ID, w.dev)
			process, err := w.rel.Process(t.Context(), w.plan(d))
			check(t, err)
			if len(process) != 1 || process[0].Name != "Step of "+steps {
				t.Errorf("%s: the process is %+v", what, process)
			}
			if diff := cmp.Diff(map[string]string{"Own": values, "Secret": "secret " + values, "Shared": values}, w.texts(d, "Own", "Secret", "Shared")); diff != "" {
				t.Errorf("%s (-want +got):\n%s", what, diff)
			}
		}
		set("old")
		r := w.release("1.0.0")
		set("new")
		has("the project was changed", "old", "old", r)
		has("another release", "new", "new", w.release("2.0.0"))
		w.write(func(tx *db.Tx) error {
			again, err := w.rel.Release(t.Context(), tx, space, r.ID)
			if err == nil {
				err = w.rel.UpdateVariables(t.Context(), tx, again)
			}
			return err
		})
		has("its variables were updated", "old", "new", r)
		set("newest")
		has("the project was changed again", "old", "new", r)
	})
}

// A deployment keeps the values that it was made with, though the variables of its release
// are updated while it waits; only accounts are as they are when it runs.
func TestPoint05ManifestIsFrozen(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		password := octopus.NewSensitive("first")
		account := &octopus.Account{Name: "Db", AccountType: "UsernamePassword", Username: "sa", Password: &password}
		id := w.create("accounts", "", account)
		login := value("Login", id)
		login.Type = octopus.VariableUserAccount
		prompted := value("Asked", "nothing")
		prompted.ID, prompted.Prompt = "asked", &octopus.VariablePrompt{Label: "Well?"}
		w.steps(onWorker("Tell"))
		w.variables(value("Own", "old"), login, prompted)
		r := w.release("1.0.0")
		d := w.deploy(r.ID, w.dev, opt(func(o *releases.Options) { o.FormValues = map[string]string{"asked": "answered"} }))
		names := []string{"Own", "Asked", "Login.Password", "Octopus.Environment.Name", "Octopus.Release.Number"}
		want := map[string]string{"Own": "old", "Asked": "answered", "Login.Password": "first", "Octopus.Environment.Name": "Dev", "Octopus.Release.Number": "1.0.0"}
		if diff := cmp.Diff(want, w.texts(d, names...)); diff != "" {
			t.Errorf("made (-want +got):\n%s", diff)
		}

		changed := login
		prompted.Value = new(string)
		w.variables(value("Own", "new"), changed, prompted)
		var env octopus.Environment
		w.load("environments", w.dev, &env)
		env.Name = "Development"
		w.replace("environments", w.dev, &env)
		second := octopus.NewSensitive("second")
		account.ID, account.Password = id, &second
		w.replace("accounts", id, account)
		later := w.deploy(r.ID, w.dev, func(in *releases.NewDeployments) { in.UpdateVariables = true })
		want["Login.Password"] = "second"
		if diff := cmp.Diff(want, w.texts(d, names...)); diff != "" {
			t.Errorf("then (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(map[string]string{"Own": "new", "Asked": "", "Login.Password": "second", "Octopus.Environment.Name": "Development", "Octopus.Release.Number": "1.0.0"}, w.texts(later, names...)); diff != "" {
			t.Errorf("of the later one (-want +got):\n%s", diff)
		}
	})
}

// What is disabled takes no part: a project gets neither releases nor deployments, a tenant
// no deployments, whoever asks; a target and a step are left out.
func TestPoint29DisabledAtEveryGate(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.changeProject(func(p *octopus.Project) {
			p.TenantedDeploymentMode, p.ProjectConnectivityPolicy.AllowDeploymentsToNoTargets = octopus.TenantedOrUntenanted, true
		})
		w.steps(script("Deploy web"), script("Off", func(a *octopus.Action) { a.IsDisabled = true }))
		off := w.machine("off", w.dev, "web")
		var m octopus.Machine
		w.load("machines", off, &m)
		m.IsDisabled = true
		w.replace("machines", off, &m)
		connected := octopus.Map[string, octopus.List[string]]{w.project.ID: {w.dev}}
		asleep := &octopus.Tenant{Name: "Asleep", ProjectEnvironments: connected, TenantTags: octopus.List[string]{"Ring/One"}, IsDisabled: true}
		awake := &octopus.Tenant{Name: "Awake", ProjectEnvironments: connected, TenantTags: octopus.List[string]{"Ring/One"}}
		w.create("tagsets", "", &octopus.TagSet{Name: "Ring", Tags: octopus.List[octopus.Tag]{{Name: "One"}}})
		w.create("tenants", "", asleep)
		awakeID := w.create("tenants", "", awake)
		r := w.release("1.0.0")
		d := w.deploy(r.ID, w.dev)
		if plan := w.plan(d); len(plan.Steps) != 1 || len(plan.Machines) != 1 || plan.Machines[0].ID != w.devTarget {
			t.Errorf("the plan has %+v on %+v", plan.Steps, plan.Machines)
		}
		_, err := w.tryDeploy(r.ID, w.dev, opt(func(o *releases.Options) { o.Machines = []string{"off"} }))
		refused(t, err, fault.Invalid, "no enabled deployment target")
		_, err = w.tryDeploy(r.ID, w.dev, func(in *releases.NewDeployments) { in.Tenants = []string{"Asleep"} })
		refused(t, err, fault.Invalid, "The tenant 'Asleep' is disabled")
		made, err := w.tryDeploy(r.ID, w.dev, func(in *releases.NewDeployments) { in.TenantTags = []string{"Ring/One"} })
		check(t, err)
		if len(made) != 1 || string(made[0].TenantID) != awakeID {
			t.Errorf("by their tag %d tenants are deployed for", len(made))
		}

		w.changeProject(func(p *octopus.Project) { p.IsDisabled = true })
		_, err = w.tryRelease("1.1.0")
		refused(t, err, fault.Invalid, "The project 'Web Shop' is disabled")
		_, err = w.tryDeploy(r.ID, w.dev)
		refused(t, err, fault.Invalid, "The project 'Web Shop' is disabled")
		w.end(d, octopus.TaskFailed)
		_, err = w.rel.Again(t.Context(), space, d.ID, false, nil)
		refused(t, err, fault.Invalid, "The project 'Web Shop' is disabled")
	})
}

// A deployment is made for each tenant that is connected and that the channel's tags let in,
// as soon as the release is there.
func TestPoint14AutomaticForTenantsOfTheChannel(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		lifecycle := w.create("lifecycles", "", &octopus.Lifecycle{Name: "Auto", Phases: octopus.List[octopus.Phase]{{Name: "Dev", AutomaticDeploymentTargets: octopus.List[string]{w.dev}}}})
		w.changeProject(func(p *octopus.Project) {
			p.LifecycleID, p.TenantedDeploymentMode = lifecycle, octopus.Tenanted
		})
		w.steps(onWorker("Tell"))
		w.create("tagsets", "", &octopus.TagSet{Name: "Ring", Tags: octopus.List[octopus.Tag]{{Name: "Early"}, {Name: "Late"}}})
		w.create("channels", "", &octopus.Channel{Name: "Beta", ProjectID: w.project.ID, TenantTags: octopus.List[string]{"Ring/Early"}})
		tenant := func(name string, tags ...string) string {
			return w.create("tenants", "", &octopus.Tenant{Name: name, TenantTags: tags, ProjectEnvironments: octopus.Map[string, octopus.List[string]]{w.project.ID: {w.dev}}})
		}
		names := map[string]string{tenant("Early", "Ring/Early"): "Early", tenant("Late", "Ring/Late"): "Late", tenant("Untagged"): "Untagged"}
		w.create("tenants", "", &octopus.Tenant{Name: "Unconnected", TenantTags: octopus.List[string]{"Ring/Early"}})
		got := func(r octopus.Release) map[string]bool {
			out := map[string]bool{}
			for _, d := range w.deployments(r.ID) {
				out[names[string(d.TenantID)]] = true
			}
			return out
		}
		if diff := cmp.Diff(map[string]bool{"Early": true}, got(w.release("1.0.0", func(in *releases.NewRelease) { in.Channel = "Beta" }))); diff != "" {
			t.Errorf("of the channel (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(map[string]bool{"Early": true, "Late": true, "Untagged": true}, got(w.release("1.0.1"))); diff != "" {
			t.Errorf("of the default channel (-want +got):\n%s", diff)
		}
	})
}
