package releases_test

import (
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/octopus"
)

func TestVersions(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		if got := w.release("").Version; got != "0.0.1" {
			t.Errorf("the first release is %s, want 0.0.1", got)
		}
		if got := w.release("").Version; got != "0.0.2" {
			t.Errorf("the next release is %s, want 0.0.2", got)
		}
		if got := w.release("1.2.i").Version; got != "1.2.0" {
			t.Errorf("1.2.i makes %s, want 1.2.0", got)
		}
		if got := w.release("1.2.i").Version; got != "1.2.1" {
			t.Errorf("1.2.i makes %s, want 1.2.1", got)
		}
		w.variables(value("Major", "7"))
		w.changeProject(func(p *octopus.Project) {
			p.VersioningStrategy.Template = "#{Major}.#{Octopus.Version.NextMinor}.i"
		})
		if got := w.release("").Version; got != "7.3.0" {
			t.Errorf("the template makes %s, want 7.3.0", got)
		}
		w.changeProject(func(p *octopus.Project) { p.VersioningStrategy.Template = "#{Nothing}" })
		_, err := w.tryRelease("")
		refused(t, err, fault.Invalid, "#{Nothing}", "give the release's version")

		for _, bad := range []string{"", "a b", strings.Repeat("1", 400)} {
			_, err := w.tryRelease(bad)
			refused(t, err, fault.Invalid)
		}
	})
}

func TestVersionIsUnique(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		first := w.release("1.0.0-Beta")
		_, err := w.tryRelease("1.0.0-beta")
		refused(t, err, fault.Invalid, "already exists")

		again, err := w.tryRelease("1.0.0-BETA", func(in *releases.NewRelease) { in.IgnoreIfExists = true })
		check(t, err)
		if !again.Existed || again.Release.ID != first.ID {
			t.Errorf("got %s (existed %v), want the first release, %s", again.Release.ID, again.Existed, first.ID)
		}
		// Another project may have it.
		id := w.create("projects", "", &octopus.Project{Name: "Other", ProjectGroupID: "ProjectGroups-1", LifecycleID: "Lifecycles-1"})
		w.release("1.0.0-beta", func(in *releases.NewRelease) { in.Project = id })
	})
}

func TestReleaseByNames(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		hotfix := w.create("channels", "", &octopus.Channel{ProjectID: w.project.ID, Name: "Hot Fix"})
		for _, ref := range []string{"web shop", "web-shop", w.project.ID, strings.ToLower(w.project.ID)} {
			if r := w.release("", func(in *releases.NewRelease) { in.Project = ref }); r.ProjectID != w.project.ID {
				t.Errorf("project %q gives %s", ref, r.ProjectID)
			}
		}
		for _, ref := range []string{"HOT FIX", "hot-fix", hotfix} {
			if r := w.release("", func(in *releases.NewRelease) { in.Channel = ref }); r.ChannelID != hotfix {
				t.Errorf("channel %q gives %s", ref, r.ChannelID)
			}
		}
		_, err := w.tryRelease("", func(in *releases.NewRelease) { in.Channel = "Nowhere" })
		refused(t, err, fault.Invalid, "no channel 'Nowhere'")
		_, err = w.tryRelease("", func(in *releases.NewRelease) { in.Project = "Nothing" })
		refused(t, err, fault.NotFound, "project")
		w.changeProject(func(p *octopus.Project) { p.IsDisabled = true })
		_, err = w.tryRelease("")
		refused(t, err, fault.Invalid, "disabled")
	})
}

func TestReleaseNeedsPermission(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		asked := auth.Target{}
		_, err := w.rel.CreateRelease(t.Context(), releases.NewRelease{Space: space, Project: w.project.ID}, func(permission string, to auth.Target) error {
			asked = to
			return fault.New(fault.Forbidden, "needs %s", permission)
		})
		refused(t, err, fault.Forbidden, "ReleaseCreate")
		if want := (auth.Target{Project: w.project.ID, ProjectGroup: "ProjectGroups-1"}); asked != want {
			t.Errorf("permission asked for %+v, want %+v", asked, want)
		}
		if n := count(t, w, `SELECT count(*) FROM release`); n != 0 {
			t.Errorf("%d releases were made", n)
		}
	})
}

func TestPackages(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(script("Deploy web", uses("", "Acme.Web"), uses("tools", "Acme.Tools")), script("Deploy api", uses("", "Acme.Api")))
		w.push("Acme.Web.1.0.0.zip", "Acme.Web.2.0.0-beta.zip", "Acme.Tools.5.1.zip", "Acme.Api.3.0.0.zip")
		tests := []struct {
			name string
			in   func(in *releases.NewRelease)
			want string // web tools api
		}{
			{"newest", func(*releases.NewRelease) {}, "2.0.0-beta 5.1 3.0.0"},
			{"one version for all", func(in *releases.NewRelease) { in.PackageVersion = "9.9" }, "9.9 9.9 9.9"},
			{"by package", func(in *releases.NewRelease) { in.Packages = []string{"acme.web:1.0.0"} }, "1.0.0 5.1 3.0.0"},
			{"by step", func(in *releases.NewRelease) { in.Packages = []string{"Deploy web:1.0.0"} }, "1.0.0 1.0.0 3.0.0"},
			{"by reference", func(in *releases.NewRelease) { in.Packages = []string{"tools:Deploy web:6", "*:7"} }, "7 6 7"},
			{"by reference and package", func(in *releases.NewRelease) { in.Packages = []string{"tools:Acme.Tools:6"} }, "2.0.0-beta 6 3.0.0"},
			{"step before reference", func(in *releases.NewRelease) { in.Packages = []string{"Deploy web:tools:6"} }, "2.0.0-beta 6 3.0.0"},
			{"any step's reference", func(in *releases.NewRelease) { in.Packages = []string{"tools:*:6"} }, "2.0.0-beta 6 3.0.0"},
			{"the rest", func(in *releases.NewRelease) {
				in.Packages, in.PackageVersion = []string{"Acme.Api:4"}, "8"
			}, "8 8 4"},
			{"selected", func(in *releases.NewRelease) {
				in.Selected = []octopus.SelectedPackage{{ActionName: "deploy WEB", Version: "1.0.0"}, {StepName: "Deploy api", Version: "2"}}
			}, "1.0.0 5.1 2"},
			{"pre-release", func(in *releases.NewRelease) { in.PackagePrerelease = "^$" }, "1.0.0 5.1 3.0.0"},
		}
		for _, test := range tests {
			r, err := w.tryRelease("", test.in)
			if err != nil {
				t.Errorf("%s: %v", test.name, err)
				continue
			}
			var got []string
			for _, p := range r.Release.SelectedPackages {
				got = append(got, p.Version)
			}
			if diff := cmp.Diff(test.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("%s: %s", test.name, diff)
			}
		}
		for _, bad := range []struct {
			text, want string
		}{{"1.0", "package:version"}, {"Acme.Web:", "package:version"}, {"Unknown:1", "fits no package"}, {"x:Deploy web:1", "fits no package"}, {"Acme.Web:1 2", "not a valid version"}} {
			_, err := w.tryRelease("", func(in *releases.NewRelease) { in.Packages = []string{bad.text} })
			refused(t, err, fault.Invalid, bad.want)
		}
		w.steps(script("Deploy", uses("", "Acme.Nothing")))
		_, err := w.tryRelease("")
		refused(t, err, fault.Invalid, "Acme.Nothing", "no version")
	})
}

// TestPoint03ChannelRules: a release whose packages break the rules of its channel is not
// made, unless both who makes it and the project want it.
func TestPoint03ChannelRules(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(script("Deploy", uses("", "Acme.Web")))
		w.push("Acme.Web.1.5.0.zip", "Acme.Web.2.5.0.zip", "Acme.Web.2.6.0-rc.1.zip", "Acme.Web.3.0.0.zip")
		channel := &octopus.Channel{ProjectID: w.project.ID, Name: "Two", Rules: octopus.List[octopus.ChannelRule]{{
			VersionRange: "[2.0,3.0)", Tag: "^$", ActionPackages: octopus.List[octopus.DeploymentActionPackage]{{DeploymentAction: "Deploy"}},
		}}}
		two := w.create("channels", "", channel)
		in := func(version string, ignore bool) func(in *releases.NewRelease) {
			return func(in *releases.NewRelease) {
				in.Channel, in.PackageVersion, in.IgnoreChannelRules = two, version, ignore
			}
		}
		if got := w.release("", in("", false)).SelectedPackages[0].Version; got != "2.5.0" {
			t.Errorf("the newest allowed version is %s, want 2.5.0", got)
		}
		_, err := w.tryRelease("", in("2.6.0-rc.1", false))
		refused(t, err, fault.Invalid, "breaks the rules of the channel 'Two'", "ignore the channel's rules")
		_, err = w.tryRelease("", in("1.5.0", true))
		refused(t, err, fault.Invalid, "does not allow to ignore them")
		w.changeProject(func(p *octopus.Project) { p.AllowIgnoreChannelRules = true })
		if got := w.release("", in("1.5.0", true)).SelectedPackages[0].Version; got != "1.5.0" {
			t.Errorf("the rules were ignored and made %s, want 1.5.0", got)
		}
		if got := w.release("").SelectedPackages[0].Version; got != "3.0.0" {
			t.Errorf("another channel's release has %s, want 3.0.0", got)
		}
	})
}

func TestDonorPackage(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(script("Deploy", uses("", "Acme.Web")))
		w.push("Acme.Web.1.5.0.zip")
		w.changeProject(func(p *octopus.Project) {
			p.VersioningStrategy = octopus.VersioningStrategy{DonorPackage: &octopus.DeploymentActionPackage{DeploymentAction: "deploy"}}
		})
		if got := w.release("").Version; got != "1.5.0" {
			t.Errorf("the release is %s, want its package's version, 1.5.0", got)
		}
		_, err := w.tryRelease("")
		refused(t, err, fault.Invalid, "1.5.0", "already exists")
	})
}

func TestSnapshots(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		library := w.create("libraryvariablesets", "", &octopus.LibraryVariableSet{Name: "Shared"})
		w.variablesOf("variableset-"+library, value("Color", "red"))
		w.changeProject(func(p *octopus.Project) { p.IncludedLibraryVariableSetIDs = octopus.List[string]{library} })
		w.variables(value("Name", "old"), sensitive("Password", "hunter2"))
		w.steps(script("Deploy", func(a *octopus.Action) { a.Properties["Token"] = octopus.Secret("t0ken") }))

		first, second := w.release(""), w.release("")
		if first.ProjectVariableSetSnapshotID != second.ProjectVariableSetSnapshotID || first.ProjectDeploymentProcessSnapshotID != second.ProjectDeploymentProcessSnapshotID {
			t.Error("unchanged documents were frozen twice")
		}
		if len(first.LibraryVariableSetSnapshotIDs) != 1 || !strings.HasPrefix(first.ProjectDeploymentProcessSnapshotID, w.project.DeploymentProcessID+"-s-2-") {
			t.Errorf("snapshots are %v and %s", first.LibraryVariableSetSnapshotIDs, first.ProjectDeploymentProcessSnapshotID)
		}
		w.variables(value("Name", "new"))
		third := w.release("")
		if third.ProjectVariableSetSnapshotID == first.ProjectVariableSetSnapshotID {
			t.Error("changed variables were not frozen anew")
		}
		w.read(func(tx *db.Tx) error {
			var set map[string]any
			check(t, w.store.Load(t.Context(), tx, releases.VariableSnapshots, first.ProjectVariableSetSnapshotID, &set))
			text := encode(t, set)
			if !strings.Contains(text, `"old"`) || strings.Contains(text, "hunter2") {
				t.Errorf("the first snapshot is %s", text)
			}
			process, err := w.rel.ProcessSnapshot(t.Context(), tx, space, first.ProjectDeploymentProcessSnapshotID)
			check(t, err)
			if text := encode(t, process); strings.Contains(text, "t0ken") || !strings.Contains(text, `"Token":{"HasValue":true`) {
				t.Errorf("the process is %s", text)
			}
			return nil
		})
		// Neither secret stands in the database in clear.
		for _, word := range []string{"hunter2", "t0ken"} {
			if n := count(t, w, `SELECT count(*) FROM documents WHERE body LIKE '%' || ? || '%'`, word); n != 0 {
				t.Errorf("%q stands in %d documents in clear", word, n)
			}
		}
		w.write(func(tx *db.Tx) error {
			r, err := w.rel.Release(t.Context(), tx, space, first.ID)
			if err != nil {
				return err
			}
			return w.rel.UpdateVariables(t.Context(), tx, r)
		})
		w.read(func(tx *db.Tx) error {
			r, err := w.rel.Release(t.Context(), tx, space, first.ID)
			if err == nil && r.ProjectVariableSetSnapshotID != third.ProjectVariableSetSnapshotID {
				t.Errorf("the updated snapshot is %s, want %s", r.ProjectVariableSetSnapshotID, third.ProjectVariableSetSnapshotID)
			}
			return err
		})
	})
}

func TestReleaseNotesTemplate(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(script("Deploy", uses("", "Acme.Web")))
		w.push("Acme.Web.1.5.0.zip")
		w.changeProject(func(p *octopus.Project) {
			p.ReleaseNotesTemplate = "#{Octopus.Project.Name} #{Octopus.Release.Number} with #{each p in Octopus.Release.Package}#{p.PackageId} #{p.Version}#{/each}"
		})
		if got, want := string(w.release("3.1").ReleaseNotes), "Web Shop 3.1 with Acme.Web 1.5.0"; got != want {
			t.Errorf("notes are %q, want %q", got, want)
		}
		if got := string(w.release("3.2", func(in *releases.NewRelease) { in.Notes = "mine" }).ReleaseNotes); got != "mine" {
			t.Errorf("notes are %q, want mine", got)
		}
	})
}

func TestUpdateSomeVariables(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(onWorker("Tell"))
		w.variables(value("A", "old"), sensitive("B", "old secret"), value("Gone", "old"), value("C", "old"))
		r := w.release("1.0.0")
		w.variables(value("A", "new"), sensitive("B", "new secret"), value("C", "new"))
		update := func(names ...releases.VariableName) error {
			return w.db.Write(t.Context(), func(tx *db.Tx) error {
				fresh, err := w.rel.Release(t.Context(), tx, space, r.ID)
				if err != nil {
					return err
				}
				return w.rel.UpdateVariablesByName(t.Context(), tx, fresh, names)
			})
		}
		check(t, update(releases.VariableName{Name: "b"}, releases.VariableName{OwnerID: w.project.ID, Name: "Gone"}))
		check(t, update(releases.VariableName{Name: "b"}))
		vars := w.manifest(w.deploy(r.ID, w.dev))
		for name, want := range map[string]string{"A": "old", "B": "new secret", "C": "old", "Gone": ""} {
			if got := vars.Value(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		refused(t, update(releases.VariableName{OwnerID: "LibraryVariableSets-9", Name: "A"}), fault.Invalid, "LibraryVariableSets-9")
	})
}

func TestManyReleasesAtOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.steps(onWorker("Tell"))
		const n = 8
		versions := make(chan string, n)
		var all sync.WaitGroup
		for range n {
			all.Go(func() {
				made, err := w.rel.CreateRelease(t.Context(), releases.NewRelease{Space: space, Project: w.project.ID}, nil)
				if err != nil {
					t.Error(err)
					return
				}
				versions <- made.Release.Version
			})
		}
		all.Wait()
		close(versions)
		seen := map[string]bool{}
		for v := range versions {
			if seen[v] {
				t.Errorf("version %s was given twice", v)
			}
			seen[v] = true
		}
		if !seen["0.0.1"] || !seen["0.0.8"] {
			t.Errorf("versions are %v", seen)
		}
	})
}
