package releases_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/octopus"
)

// built tells of a build of a package, with commits "id comment".
func (w *world) built(id, version string, commits ...string) {
	w.t.Helper()
	in := octopus.BuildInformationCommand{PackageID: id, Version: version, OctopusBuildInformation: octopus.BuildDetails{
		BuildNumber: "build of " + version, VcsRoot: "https://gitlab.example.com/acme/web",
	}}
	for _, c := range commits {
		id, comment, _ := strings.Cut(c, " ")
		in.OctopusBuildInformation.Commits = append(in.OctopusBuildInformation.Commits, octopus.Commit{ID: id, Comment: comment})
	}
	_, _, err := w.feed.PushBuild(w.t.Context(), space, &in, feed.Replace)
	check(w.t, err)
}

// numbers are the builds of a release.
func numbers(r octopus.Release) (out []string) {
	for _, b := range r.BuildInformation {
		out = append(out, b.BuildNumber)
	}
	return out
}

// TestBuildsOfReleases: a release keeps what was told of its packages, and a
// deployment tells all that is new in its environment.
func TestBuildsOfReleases(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.push("Web.1.0.0.zip", "Web.1.1.0.zip", "Web.1.2.0.zip", "Lib.9.0.0.zip")
		w.steps(script("Deploy", uses("", "Web"), uses("lib", "Lib")), script("Again", uses("", "web")))
		w.built("Web", "1.0.0", "aaa First")
		w.built("WEB", "1.1.0", "bbb Fixes #12\n\nat length", "ccc [odd] `one`")
		w.built("Lib", "9.0.0", "bbb Fixes #12")
		at := func(version string) func(in *releases.NewRelease) {
			return func(in *releases.NewRelease) { in.Packages = []string{"Web:" + version} }
		}
		r1 := w.release("1.0.0", at("1.0.0"))
		if diff := cmp.Diff([]string{"build of 1.0.0", "build of 9.0.0"}, numbers(r1)); diff != "" {
			t.Fatal(diff)
		}
		w.end(w.deploy(r1.ID, w.dev), octopus.TaskSuccess)

		w.release("1.1.0", at("1.1.0"), func(in *releases.NewRelease) { in.Notes = "Better." })
		r3 := w.release("1.2.0", at("1.2.0"))
		d := w.deploy(r3.ID, w.dev)
		if len(d.Changes) != 2 || len(d.Changes[1].BuildInformation) != 2 || len(d.Changes[0].BuildInformation) != 1 {
			t.Fatalf("changes %+v", d.Changes)
		}
		// The commit that both packages have is told once.
		if c := d.Changes[1]; len(c.Commits) != 2 || len(c.WorkItems) != 1 || c.WorkItems[0].LinkURL != "https://gitlab.example.com/acme/web/-/issues/12" {
			t.Errorf("changes of 1.1.0: %+v", c)
		}
		const root = "https://gitlab.example.com/acme/web/-/"
		want := "### 1.2.0\n\n#### Work items\n\n- [#12](" + root + "issues/12)\n\n#### Commits\n\n- [bbb](" + root + "commit/bbb) Fixes #12\n\n" +
			"### 1.1.0\n\nBetter.\n\n#### Work items\n\n- [#12](" + root + "issues/12)\n\n#### Commits\n\n- [bbb](" + root + "commit/bbb) Fixes #12\n- [ccc](" + root + "commit/ccc) \\[odd\\] \\`one\\`"
		if diff := cmp.Diff(want, d.ChangesMarkdown); diff != "" {
			t.Error(diff)
		}
		// Scripts get them as variables.
		values := w.manifest(d)
		if v := values.Value("Octopus.Deployment.WorkItems"); !strings.Contains(v, root+"issues/12") {
			t.Errorf("work items are %q", v)
		}
		if v := values.Value("Octopus.Deployment.PackageBuildInformation"); !strings.Contains(v, "build of 1.1.0") {
			t.Errorf("builds are %q", v)
		}

		// Other packages have other builds; what was kept stays without them.
		w.built("Web", "1.2.0", "ddd Later")
		edited, err := w.edit(r3.ID, func(to *octopus.Release) {
			to.SelectedPackages = slices.Clone(to.SelectedPackages)
			for i := range to.SelectedPackages {
				if to.SelectedPackages[i].PackageReferenceName == "" {
					to.SelectedPackages[i].Version = "1.1.0"
				}
			}
		})
		check(t, err)
		if diff := cmp.Diff([]string{"build of 1.1.0", "build of 9.0.0"}, numbers(*edited)); diff != "" {
			t.Error(diff)
		}
		w.write(func(tx *db.Tx) error {
			all, _, err := w.feed.Builds(t.Context(), tx, feed.BuildQuery{Space: space})
			for _, b := range all {
				if err == nil {
					err = w.feed.DeleteBuilds(t.Context(), tx, space, []string{b.ID})
				}
			}
			return err
		})
		edited, err = w.edit(r3.ID, func(to *octopus.Release) { to.ReleaseNotes = "New notes." })
		check(t, err)
		if len(numbers(*edited)) != 2 {
			t.Errorf("after the notes were changed there are the builds %v", numbers(*edited))
		}
	})
}
