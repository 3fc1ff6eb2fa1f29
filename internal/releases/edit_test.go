package releases_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// tryWrite runs fn with a fresh copy of a release and returns its error.
func (w *world) tryWrite(release string, fn func(tx *db.Tx, r *octopus.Release) error) error {
	return w.db.Write(w.t.Context(), func(tx *db.Tx) error {
		r, err := w.rel.Release(w.t.Context(), tx, space, release)
		if err != nil {
			return err
		}
		return fn(tx, r)
	})
}

func (w *world) edit(release string, change func(to *octopus.Release)) (out *octopus.Release, err error) {
	err = w.tryWrite(release, func(tx *db.Tx, r *octopus.Release) error {
		to := *r
		change(&to)
		out, err = w.rel.Edit(w.t.Context(), tx, r, &to, false, nil)
		return err
	})
	return out, err
}

func TestEdit(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(script("Deploy", uses("", "Acme.Web")))
		w.push("Acme.Web.1.0.0.zip", "Acme.Web.2.0.0.zip")
		two := w.create("channels", "", &octopus.Channel{ProjectID: w.project.ID, Name: "Two", Rules: octopus.List[octopus.ChannelRule]{{
			VersionRange: "[2.0,3.0)", Actions: octopus.List[string]{"Deploy"},
		}}})
		r := w.release("1.0.0", func(in *releases.NewRelease) { in.PackageVersion = "1.0.0" })
		w.release("2.0.0")

		_, err := w.edit(r.ID, func(to *octopus.Release) { to.Version = "2.0.0" })
		refused(t, err, fault.Invalid, "already exists")
		_, err = w.edit(r.ID, func(to *octopus.Release) { to.Version = "a b" })
		refused(t, err, fault.Invalid, "not a valid version")
		_, err = w.edit(r.ID, func(to *octopus.Release) { to.ChannelID = two })
		refused(t, err, fault.Invalid, "breaks the rules of the channel 'Two'")
		_, err = w.edit(r.ID, func(to *octopus.Release) { to.ReleaseNotes = octopus.NullString(strings.Repeat("x", 2<<20)) })
		refused(t, err, fault.Invalid, "ReleaseNotes")

		out, err := w.edit(r.ID, func(to *octopus.Release) {
			to.ChannelID, to.Version, to.ReleaseNotes = two, "1.2", "changed"
			to.SelectedPackages = octopus.List[octopus.SelectedPackage]{{StepName: "Deploy", Version: "2.0.0"}}
			to.ProjectID, to.ProjectVariableSetSnapshotID = "Projects-9", "other" // not for clients to change
		})
		check(t, err)
		want := r
		want.ChannelID, want.Version, want.ReleaseNotes = two, "1.2", "changed"
		want.SelectedPackages[0].Version = "2.0.0"
		want.LastModifiedOn, want.Links, out.LastModifiedOn = nil, nil, nil
		if diff := cmp.Diff(encode(t, want), encode(t, out)); diff != "" {
			t.Error(diff)
		}
		w.deploy(r.ID, w.dev)
		_, err = w.edit(r.ID, func(to *octopus.Release) { to.ChannelID = "Default" })
		refused(t, err, fault.Invalid, "has been deployed")
		if n := count(t, w, `SELECT count(*) FROM release WHERE version = '1.2' AND channel_id = ?`, two); n != 1 {
			t.Error("the columns do not follow the document")
		}
	})
}

func TestCustomFields(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(onWorker("Tell"))
		channel := w.create("channels", "", &octopus.Channel{ProjectID: w.project.ID, Name: "Asking", CustomFieldDefinitions: octopus.List[octopus.ChannelCustomField]{{FieldName: "Ticket"}}})
		in := func(fields map[string]string) func(in *releases.NewRelease) {
			return func(in *releases.NewRelease) { in.Channel, in.CustomFields = channel, fields }
		}
		_, err := w.tryRelease("1.0.0", in(nil))
		refused(t, err, fault.Invalid, "CustomFields has no 'Ticket'")
		r := w.release("1.0.0", in(map[string]string{"Ticket": "T-1"}))
		if got := w.manifest(w.deploy(r.ID, w.dev)).Value("Octopus.Release.CustomFields[Ticket]"); got != "T-1" {
			t.Errorf("the field is %q", got)
		}
	})
}

func TestDelete(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		library := w.create("libraryvariablesets", "", &octopus.LibraryVariableSet{Name: "Shared"})
		w.changeProject(func(p *octopus.Project) { p.IncludedLibraryVariableSetIDs = octopus.List[string]{library} })
		w.steps(onWorker("Tell"))
		first := w.release("1.0.0")
		w.variables(value("A", "1"))
		second := w.release("2.0.0")
		w.end(w.deploy(first.ID, w.dev), octopus.TaskSuccess)
		w.end(w.deploy(second.ID, w.dev), octopus.TaskSuccess)
		current := func() string {
			var id string
			w.read(func(tx *db.Tx) error {
				found, err := w.rel.Currents(t.Context(), tx, releases.CurrentQuery{Space: space})
				for _, c := range found {
					id += c.ReleaseID
				}
				return err
			})
			return id
		}
		if got := current(); got != second.ID {
			t.Fatalf("current is %s, want %s", got, second.ID)
		}
		check(t, w.tryWrite(second.ID, func(tx *db.Tx, r *octopus.Release) error { return w.rel.DeleteRelease(t.Context(), tx, r, nil) }))
		if got := current(); got != first.ID {
			t.Errorf("current is %s, want the release before, %s", got, first.ID)
		}
		gone := func(kind, id string) bool {
			return count(t, w, `SELECT count(*) FROM documents WHERE kind = ? AND id = ?`, kind, id) == 0
		}
		if !gone(releases.VariableSnapshots, second.ProjectVariableSetSnapshotID) {
			t.Error("the deleted release's own snapshot is left")
		}
		if gone(releases.ProcessSnapshots, first.ProjectDeploymentProcessSnapshotID) || gone(releases.VariableSnapshots, first.LibraryVariableSetSnapshotIDs[0]) {
			t.Error("a snapshot of the other release was deleted")
		}
	})
}

func TestDefectHoldsBackAutomaticDeployments(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		lifecycle := w.create("lifecycles", "", &octopus.Lifecycle{Name: "Auto", Phases: octopus.List[octopus.Phase]{
			{Name: "Dev", OptionalDeploymentTargets: octopus.List[string]{w.dev}},
			{Name: "Test", AutomaticDeploymentTargets: octopus.List[string]{w.test}},
		}})
		w.changeProject(func(p *octopus.Project) { p.LifecycleID = lifecycle })
		w.steps(onWorker("Tell"))
		r := w.release("1.0.0")
		d := w.deploy(r.ID, w.dev)
		report := func(text string) error {
			return w.tryWrite(r.ID, func(tx *db.Tx, r *octopus.Release) error {
				_, err := w.rel.ReportDefect(t.Context(), tx, r, text, nil)
				return err
			})
		}
		resolve := func() error {
			return w.tryWrite(r.ID, func(tx *db.Tx, r *octopus.Release) error {
				_, err := w.rel.ResolveDefects(t.Context(), tx, r, nil)
				return err
			})
		}
		refused(t, report(strings.Repeat("x", 1<<15)), fault.Invalid, "Description")
		check(t, report("broken"))
		w.end(d, octopus.TaskSuccess)
		if n := len(w.deployments(r.ID)); n != 1 {
			t.Fatalf("%d deployments in spite of the defect, want 1", n)
		}
		check(t, resolve())
		all := w.deployments(r.ID)
		if len(all) != 2 || all[1].EnvironmentID != w.test {
			t.Fatalf("deployments are %s, want one to Test", encode(t, all))
		}
		check(t, report("broken again"))
		check(t, resolve())
		if n := len(w.deployments(r.ID)); n != 2 {
			t.Errorf("%d deployments, want none but the 2", n)
		}
	})
}

func TestDeployReleaseStep(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		child := w.create("projects", "", &octopus.Project{Name: "Child", ProjectGroupID: "ProjectGroups-1", LifecycleID: "Lifecycles-1"})
		w.steps(onWorker("Child", func(a *octopus.Action) {
			a.ActionType = octopus.ActionDeployRelease
			a.Properties[octopus.PropDeployReleaseTarget] = octopus.Plain(child)
		}))
		_, err := w.tryRelease("1.0.0")
		refused(t, err, fault.Invalid, "no version")
		w.release("2.0.0", func(in *releases.NewRelease) { in.Project = child })
		w.release("1.5.0", func(in *releases.NewRelease) { in.Project = child })
		r := w.release("1.0.0")
		if got := r.SelectedPackages[0].Version; got != "1.5.0" {
			t.Errorf("the child's release is %s, want the one made last, 1.5.0", got)
		}
		plan := w.plan(w.deploy(r.ID, w.dev))
		if p := plan.Steps[0].Actions[0].Packages; len(p) != 1 || p[0].PackageID != child || p[0].Version != "1.5.0" {
			t.Errorf("packages are %v", p)
		}
		_, err = w.rel.Package(t.Context(), plan, releases.ReleasesFeed, child, "1.5.0")
		refused(t, err, fault.Unsupported, "no package that can be fetched")
		r = w.release("1.1.0", func(in *releases.NewRelease) { in.Packages = []string{"Child:9.9"} })
		_, err = w.tryDeploy(r.ID, w.dev)
		refused(t, err, fault.Invalid, "missing", "9.9")
	})
}

func TestPackageForTheEngine(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(onWorker("Deploy", uses("", "Acme.Web")))
		w.push("Acme.Web.1.0.0.zip")
		plan := w.plan(w.deploy(w.release("1.0.0").ID, w.dev))
		p, err := w.rel.Package(t.Context(), plan, "feeds-builtin", "Acme.Web", "1.0.0")
		if err != nil || p.FileName != "Acme.Web.1.0.0.zip" || p.Size == 0 || p.SHA256 == "" {
			t.Errorf("package is %+v: %v", p, err)
		}
		_, err = w.rel.Package(t.Context(), plan, "feeds-builtin", "Acme.Web", "2.0.0")
		refused(t, err, fault.NotFound)
	})
}

func TestPreview(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		prompted, secret, elsewhere := value("Answer", "42"), sensitive("Pin", "0000"), value("Other", "")
		prompted.Prompt = &octopus.VariablePrompt{Label: "The answer", Required: true, DisplaySettings: octopus.Map[string, string]{octopus.DisplayControlType: "SingleLineText"}}
		secret.Prompt = &octopus.VariablePrompt{Label: "A pin"}
		elsewhere.Prompt, elsewhere.Scope.Environment = &octopus.VariablePrompt{}, octopus.List[string]{w.prod}
		w.variables(prompted, secret, elsewhere)
		off := script("Off", func(a *octopus.Action) { a.IsDisabled = true })
		other := script("Prod only", func(a *octopus.Action) { a.Environments = octopus.List[string]{w.prod} })
		w.steps(script("Deploy", func(a *octopus.Action) { a.IsRequired = true }), off, other, onWorker("Tell"))
		for name, status := range map[string]octopus.HealthStatus{"away": octopus.Unavailable, "sick": octopus.Unhealthy} {
			m := &octopus.Machine{EnvironmentIDs: octopus.List[string]{w.dev}, Roles: octopus.List[string]{"web"}}
			m.Name, m.Endpoint.CommunicationStyle, m.HealthStatus = name, octopus.StyleNone, status
			w.create("machines", "", m)
		}
		r := w.release("1.0.0", func(in *releases.NewRelease) { in.Notes = "New." })
		preview := func() *octopus.DeploymentPreview {
			var out *octopus.DeploymentPreview
			w.read(func(tx *db.Tx) (err error) {
				out, err = w.rel.Preview(t.Context(), tx, &r, "dev", "", true, "", nil)
				return err
			})
			return out
		}
		p := preview()
		var names []string
		for _, s := range p.StepsToExecute {
			names = append(names, s.ActionNumber+" "+s.ActionName)
		}
		if diff := cmp.Diff([]string{"1 Deploy", "4 Tell", " Off"}, names); diff != "" {
			t.Error(diff)
		}
		if s := p.StepsToExecute[0]; s.CanBeSkipped || len(s.Machines) != 3 || len(s.UnavailableMachines) != 1 || s.UnavailableMachines[0].Name != "away" || len(s.ExcludedMachines) != 0 {
			t.Errorf("the first step is %+v", s)
		}
		if e := p.Form.Elements; len(e) != 2 || e[0].Control.Label != "A pin" || !e[0].Control.IsSecure || e[1].Control.Name != "Answer" || !e[1].IsValueRequired {
			t.Errorf("the form has %+v", e)
		}
		if len(p.Form.Values) != 1 || p.Form.Values[p.Form.Elements[1].Name] != "42" || strings.Contains(encode(t, p), "0000") {
			t.Errorf("the values are %v", p.Form.Values)
		}
		if p.ChangesMarkdown != "New." || p.UseGuidedFailureModeByDefault {
			t.Errorf("changes are %q", p.ChangesMarkdown)
		}
		// What is previewed is what runs.
		plan := w.plan(w.deploy(r.ID, w.dev))
		for i, step := range plan.Steps {
			if got, want := len(step.Lanes), max(len(p.StepsToExecute[i].Machines), 1); got != want {
				t.Errorf("step %s runs %d times, and was previewed with %d", step.Name, got, want)
			}
		}
		w.changeProject(func(p *octopus.Project) {
			p.ProjectConnectivityPolicy.ExcludeUnhealthyTargets, p.DefaultGuidedFailureMode = true, octopus.GuidedFailureOn
		})
		p = preview()
		if s := p.StepsToExecute[0]; len(s.Machines) != 1 || len(s.ExcludedMachines) != 2 || !p.UseGuidedFailureModeByDefault {
			t.Errorf("the first step is %+v", s)
		}
	})
}

func TestAutomaticDeploymentsOfTenants(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		lifecycle := w.create("lifecycles", "", &octopus.Lifecycle{Name: "Auto", Phases: octopus.List[octopus.Phase]{
			{Name: "Dev", AutomaticDeploymentTargets: octopus.List[string]{w.dev}},
			{Name: "Test", AutomaticDeploymentTargets: octopus.List[string]{w.test}},
		}})
		w.changeProject(func(p *octopus.Project) {
			p.LifecycleID, p.TenantedDeploymentMode = lifecycle, octopus.TenantedOrUntenanted
		})
		w.steps(onWorker("Tell"))
		both := w.create("tenants", "", &octopus.Tenant{Name: "Both", ProjectEnvironments: octopus.Map[string, octopus.List[string]]{w.project.ID: {w.dev, w.test}}})
		late := w.create("tenants", "", &octopus.Tenant{Name: "Late", ProjectEnvironments: octopus.Map[string, octopus.List[string]]{w.project.ID: {w.test}}})
		r := w.release("1.0.0")
		where := func() string {
			var all []string
			for _, d := range w.deployments(r.ID) {
				for name, id := range map[string]string{"Dev": w.dev, "Test": w.test} {
					if d.EnvironmentID == id {
						all = append(all, name+":"+map[string]string{"": "-", both: "Both", late: "Late"}[string(d.TenantID)])
					}
				}
			}
			return strings.Join(all, " ")
		}
		// Late has no part in Dev, so that Test is its first phase.
		if got, want := where(), "Dev:- Dev:Both Test:Late"; got != want {
			t.Fatalf("deployments are %s, want %s", got, want)
		}
		w.end(w.deployments(r.ID)[1], octopus.TaskSuccess)
		if got, want := where(), "Dev:- Dev:Both Test:Late Test:Both"; got != want {
			t.Errorf("deployments are %s, want %s", got, want)
		}
	})
}

func TestTargetsOfTenants(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.changeProject(func(p *octopus.Project) { p.TenantedDeploymentMode = octopus.TenantedOrUntenanted })
		w.steps(script("Deploy"))
		connected := octopus.Map[string, octopus.List[string]]{w.project.ID: {w.dev}}
		w.create("tagsets", "", &octopus.TagSet{Name: "Ring", Tags: octopus.List[octopus.Tag]{{Name: "One"}, {Name: "Two"}}})
		alpha := w.create("tenants", "", &octopus.Tenant{Name: "Alpha", TenantTags: octopus.List[string]{"Ring/One"}, ProjectEnvironments: connected})
		beta := w.create("tenants", "", &octopus.Tenant{Name: "Beta", TenantTags: octopus.List[string]{"Ring/Two"}, ProjectEnvironments: connected})
		for name, m := range map[string]octopus.Machine{
			"by id":    {TenantedDeploymentParticipation: octopus.Tenanted, TenantIDs: octopus.List[string]{alpha}},
			"by tag":   {TenantedDeploymentParticipation: octopus.TenantedOrUntenanted, TenantTags: octopus.List[string]{"ring/two"}},
			"for none": {TenantedDeploymentParticipation: octopus.Tenanted},
		} {
			m.Name, m.Endpoint.CommunicationStyle = name, octopus.StyleNone
			m.EnvironmentIDs, m.Roles = octopus.List[string]{w.dev}, octopus.List[string]{"web"}
			w.create("machines", "", &m)
		}
		r := w.release("1.0.0")
		for tenant, want := range map[string]string{"": "by tag web-" + w.dev, alpha: "by id", beta: "by tag"} {
			var names []string
			d := w.deploy(r.ID, w.dev, func(in *releases.NewDeployments) {
				if tenant != "" {
					in.Tenants = []string{tenant}
				}
			})
			for _, m := range w.plan(d).Machines {
				names = append(names, m.Name)
			}
			if got := strings.Join(names, " "); got != want {
				t.Errorf("for %q the targets are %s, want %s", tenant, got, want)
			}
		}
	})
}

func TestTemplateTellsWhatHasChanged(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		library := w.create("libraryvariablesets", "", &octopus.LibraryVariableSet{Name: "Shared"})
		w.changeProject(func(p *octopus.Project) {
			p.IncludedLibraryVariableSetIDs, p.TenantedDeploymentMode = octopus.List[string]{library}, octopus.TenantedOrUntenanted
		})
		w.create("tenants", "", &octopus.Tenant{Name: "Alpha", ProjectEnvironments: octopus.Map[string, octopus.List[string]]{w.project.ID: {w.test}}})
		w.steps(onWorker("Tell"))
		r := w.release("1.0.0")
		template := func() (out *octopus.DeploymentTemplate) {
			w.read(func(tx *db.Tx) (err error) {
				out, err = w.rel.Template(t.Context(), tx, &r, nil)
				return err
			})
			return out
		}
		got := template()
		if got.IsDeploymentProcessModified || got.IsVariableSetModified || got.IsLibraryVariableSetModified {
			t.Errorf("nothing has changed, and the template says %+v", got)
		}
		if len(got.PromoteTo) != 1 || got.PromoteTo[0].ID != w.dev || len(got.TenantPromotions) != 1 || got.TenantPromotions[0].PromoteTo[0].ID != w.test {
			t.Errorf("the template is %+v", got)
		}
		w.variablesOf("variableset-"+library, value("A", "1"))
		if got := template(); !got.IsLibraryVariableSetModified || got.IsVariableSetModified {
			t.Errorf("the library set has changed, and the template says %+v", got)
		}
		w.variables(value("A", "1"))
		w.steps(onWorker("Tell more"))
		if got := template(); !got.IsDeploymentProcessModified || !got.IsVariableSetModified {
			t.Errorf("process and variables have changed, and the template says %+v", got)
		}
	})
}

func TestListsAreCutByGrants(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(onWorker("Tell"))
		group := w.create("projectgroups", "", &octopus.ProjectGroup{Name: "Others"})
		other := w.create("projects", "", &octopus.Project{Name: "Other", ProjectGroupID: group, LifecycleID: "Lifecycles-1"})
		mine := w.release("1.0.0")
		theirs := w.release("1.0.0", func(in *releases.NewRelease) { in.Project = other })
		w.end(w.deploy(mine.ID, w.dev), octopus.TaskSuccess)
		w.deploy(mine.ID, w.test)
		w.deploy(theirs.ID, w.dev)
		tests := []struct {
			name                  string
			grants                []resource.Grant
			releases, deployments int
		}{
			{"everything", nil, 2, 3},
			{"nothing", []resource.Grant{}, 0, 0},
			{"a project", []resource.Grant{{Projects: []string{other}}}, 1, 1},
			{"a group", []resource.Grant{{ProjectGroups: []string{group}}}, 1, 1},
			{"an environment", []resource.Grant{{Environments: []string{w.dev}}}, 2, 2},
			{"a tenant", []resource.Grant{{Tenants: []string{"Tenants-1"}}}, 2, 0},
			{"a project in an environment", []resource.Grant{{Projects: []string{w.project.ID}, Environments: []string{w.test}}}, 1, 1},
			{"either", []resource.Grant{{Projects: []string{other}}, {Projects: []string{w.project.ID}, Environments: []string{w.test}}}, 2, 2},
		}
		for _, test := range tests {
			w.read(func(tx *db.Tx) error {
				r, total, err := w.rel.Releases(t.Context(), tx, releases.ReleaseQuery{Space: space, Visible: test.grants})
				check(t, err)
				d, all, err := w.rel.Deployments(t.Context(), tx, releases.DeploymentQuery{Space: space, Visible: test.grants})
				check(t, err)
				if len(r) != test.releases || int(total) != len(r) || len(d) != test.deployments || int(all) != len(d) {
					t.Errorf("%s: %d of %d releases and %d of %d deployments, want %d and %d", test.name, len(r), total, len(d), all, test.releases, test.deployments)
				}
				_, err = w.rel.FindRelease(t.Context(), tx, space, theirs.ID, test.grants)
				if seen := err == nil; seen != (test.releases == 2 || strings.Contains(test.name, "a project") && test.name != "a project in an environment" || test.name == "a group") {
					t.Errorf("%s: the other's release is found: %v", test.name, seen)
				}
				return nil
			})
		}
		w.read(func(tx *db.Tx) error {
			found, total, err := w.rel.Releases(t.Context(), tx, releases.ReleaseQuery{Space: space, Page: ident.Page{Skip: 1, Take: 1}})
			if err == nil && (total != 2 || len(found) != 1 || found[0].ID != mine.ID) {
				t.Errorf("the second page has %d of %d", len(found), total)
			}
			return err
		})
	})
}
