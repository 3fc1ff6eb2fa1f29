package releases_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// TestTemplatesInReleases: an action that was made from a step template has what the
// template of that version says, frozen with the release; values of its parameters are
// variables of that action, with the types of the parameters.
func TestTemplatesInReleases(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		parameter := func(name string, value octopus.PropertyValue, control octopus.ControlType) octopus.TemplateParameter {
			return octopus.TemplateParameter{Name: name, DefaultValue: value, DisplaySettings: octopus.Map[string, string]{octopus.DisplayControlType: string(control)}}
		}
		password := octopus.NewSensitive("s3cret")
		account := &octopus.Account{Name: "Database", AccountType: "UsernamePassword", Username: "sa", Password: &password}
		accountID := w.create("accounts", "", account)
		template := &octopus.ActionTemplate{
			Name: "Migrate", ActionType: octopus.ActionScript,
			Properties: octopus.Properties{
				octopus.PropScriptBody: octopus.Plain("migrate #{Database}"), octopus.PropScriptSyntax: octopus.Plain("Bash"), octopus.PropRunOnServer: octopus.Plain("false"),
			},
			Packages: octopus.List[octopus.PackageReference]{{
				Name: "Migrations", FeedID: "feeds-builtin", AcquisitionLocation: octopus.AcquireOnServer,
				Properties: octopus.Map[string, octopus.PropertyText]{octopus.PackagePropSelectionMode: "deferred", octopus.PackagePropParameterName: "Migrations"},
			}},
			Parameters: octopus.List[octopus.TemplateParameter]{
				parameter("Database", octopus.Plain("shop"), octopus.ControlSingleLine),
				parameter("Login", octopus.Plain(""), octopus.ControlUserAccount),
				parameter("Key", octopus.Secret("hush"), octopus.ControlSensitive),
				parameter("Migrations", octopus.Plain(""), octopus.ControlPackage),
			},
		}
		id := w.create("actiontemplates", "", template)
		made := func(a *octopus.Action) {
			a.Properties = octopus.Properties{
				octopus.PropTemplateID: octopus.Plain(id), octopus.PropTemplateVersion: octopus.Plain("0"), octopus.PropRunOnServer: octopus.Plain("true"),
				"Login": octopus.Plain(accountID), "Migrations": octopus.Plain(`{"PackageId":"Acme.Migrations","FeedId":"feeds-builtin"}`),
			}
		}
		orphan := func(a *octopus.Action) {
			a.Properties[octopus.PropTemplateID], a.Properties[octopus.PropTemplateVersion] = octopus.Plain("ActionTemplates-999"), octopus.Plain("0")
		}
		w.steps(onWorker("Migrate", made), onWorker("Orphan", orphan))
		w.push("Acme.Migrations.1.0.0.zip")
		r := w.release("1.0.0")
		if diff := cmp.Diff(octopus.List[octopus.SelectedPackage]{{ActionName: "Migrate", StepName: "Migrate", PackageReferenceName: "Migrations", Version: "1.0.0"}}, r.SelectedPackages); diff != "" {
			t.Errorf("packages (-want +got):\n%s", diff)
		}

		// What becomes of the template afterwards is none of the release's business.
		template.ID = id
		template.Properties[octopus.PropScriptBody] = octopus.Plain("drop #{Database}")
		template.Parameters[0].DefaultValue = octopus.Plain("other")
		w.replace("actiontemplates", id, template)
		again := w.release("1.0.1")
		if again.ProjectDeploymentProcessSnapshotID != r.ProjectDeploymentProcessSnapshotID {
			t.Errorf("the same process has two snapshots, %s and %s", r.ProjectDeploymentProcessSnapshotID, again.ProjectDeploymentProcessSnapshotID)
		}

		d := w.deploy(r.ID, w.dev)
		steps, err := w.rel.Process(t.Context(), w.plan(d))
		check(t, err)
		a := &steps[0].Actions[0]
		texts := map[string]string{}
		for key, value := range a.Properties {
			if texts[key] = value.Value; value.Sensitive != nil && value.Sensitive.NewValue != nil {
				texts[key] = "secret " + *value.Sensitive.NewValue
			}
		}
		want := map[string]string{
			octopus.PropScriptBody: "migrate #{Database}", octopus.PropScriptSyntax: "Bash", octopus.PropRunOnServer: "true", octopus.PropTemplateID: id, octopus.PropTemplateVersion: "0",
			"Database": "shop", "Login": accountID, "Key": "secret hush", "Migrations": `{"PackageId":"Acme.Migrations","FeedId":"feeds-builtin"}`,
		}
		if diff := cmp.Diff(want, texts); diff != "" {
			t.Errorf("properties (-want +got):\n%s", diff)
		}
		if len(a.Packages) != 1 || a.Packages[0].PackageID != "Acme.Migrations" {
			t.Errorf("packages are %+v", a.Packages)
		}
		all, err := w.rel.Variables(t.Context(), w.plan(d))
		check(t, err)
		set := variables.New(all...)
		for name, value := range map[string]string{"Database": "shop", "Login": accountID, "Login.Username": "sa", "Login.Password": "s3cret", "Key": "hush"} {
			v, ok := set.Resolve(variables.Context{Environment: w.dev, Action: a.ID}).Get(name)
			if secret := name == "Key" || name == "Login.Password"; !ok || v.Value != value || v.Sensitive != secret {
				t.Errorf("%s is %v, %v", name, v, ok)
			}
			if v, ok := set.Resolve(variables.Context{Environment: w.dev, Action: steps[1].Actions[0].ID}).Get(name); ok {
				t.Errorf("another action sees %v", v)
			}
		}

		// The newest version comes with the next snapshot, once the step is of it.
		w.steps(onWorker("Migrate", made, func(a *octopus.Action) { a.Properties[octopus.PropTemplateVersion] = octopus.Plain("1") }))
		newer := w.deploy(w.release("1.1.0").ID, w.dev)
		if steps, err = w.rel.Process(t.Context(), w.plan(newer)); err != nil || steps[0].Actions[0].Properties.Get(octopus.PropScriptBody) != "drop #{Database}" || steps[0].Actions[0].Properties.Get("Database") != "other" {
			t.Errorf("then the step is %+v, %v", steps[0].Actions[0].Properties, err)
		}
	})
}

// TestScriptModulesOfProjects: a script module that a project includes is frozen with
// its releases, like other variables.
func TestScriptModulesOfProjects(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		id := w.create("libraryvariablesets", "", &octopus.LibraryVariableSet{Name: "Tools", ContentType: octopus.ContentScriptModule})
		w.variablesOf("variableset-"+id, value("Octopus.Script.Module[Tools]", "one"), value("Octopus.Script.Module.Language[Tools]", "Bash"))
		w.steps(onWorker("Use"))
		without := w.deploy(w.release("1.0.0").ID, w.dev)
		w.changeProject(func(p *octopus.Project) { p.IncludedLibraryVariableSetIDs = octopus.List[string]{id} })
		with := w.deploy(w.release("1.1.0").ID, w.dev)
		w.variablesOf("variableset-"+id, value("Octopus.Script.Module[Tools]", "two"), value("Octopus.Script.Module.Language[Tools]", "Bash"))
		for d, want := range map[*octopus.Deployment][]string{&without: nil, &with: {"one"}} {
			all, err := w.rel.Variables(t.Context(), w.plan(*d))
			check(t, err)
			var got []string
			for _, v := range all {
				if v.Name == octopus.ScriptModulePrefix+"Tools]" {
					got = append(got, v.Value)
				}
			}
			if !slices.Equal(got, want) {
				t.Errorf("the module is %q, want %q", got, want)
			}
		}
	})
}
