package releases_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/octopus"
)

// used are the packages that a release is noted to use.
func (w *world) used(release string) (out []string) {
	w.t.Helper()
	w.read(func(tx *db.Tx) error {
		out = nil
		rows, err := tx.Query(w.t.Context(), `SELECT u.package_folded, u.version_folded FROM package_use u WHERE u.owner = ? ORDER BY u.package_folded, u.version_folded`, release)
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // Err tells
		for rows.Next() {
			var id, version string
			if err := rows.Scan(&id, &version); err != nil {
				return err
			}
			out = append(out, strings.TrimSpace(id+" "+version))
		}
		return rows.Err()
	})
	return out
}

// TestUsedPackages: a release's packages are known from when it is made until it is
// deleted: of all its actions, whatever its snapshot has of them, and those too that
// it selected before it was changed.
func TestUsedPackages(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.push("Acme.Web.1.0.zip", "Acme.Web.2.0.zip")
		w.steps(
			script("Deploy", uses("", "Acme.Web"), uses("tool", "Acme.#{Name}")),
			script("Pinned", func(a *octopus.Action) {
				a.Packages = octopus.List[octopus.PackageReference]{{PackageID: "Fixed", FeedID: "feeds-builtin", Version: "3.0"}, {Name: "v", PackageID: "Bound", FeedID: "feeds-builtin", Version: "#{V}"}}
			}),
			script("Plain"),
		)
		r := w.release("1.0", func(in *releases.NewRelease) { in.Packages = []string{"Acme.Web:1.0", "tool:Deploy:7.0"} })
		want := []string{"", "* 7.0", "acme.web 1.0", "bound *", "fixed 3.0"}
		if diff := cmp.Diff(want, w.used(r.ID)); diff != "" {
			t.Errorf("of a new release (-want +got):\n%s", diff)
		}
		w.steps(script("Plain"))
		edited := r
		edited.SelectedPackages = octopus.List[octopus.SelectedPackage]{{ActionName: "Deploy", Version: "2.0"}, {ActionName: "Deploy", PackageReferenceName: "tool", Version: "7.0"}}
		w.write(func(tx *db.Tx) error {
			_, err := w.rel.Edit(t.Context(), tx, &r, &edited, false, nil)
			return err
		})
		want = []string{"", "* 7.0", "acme.web 1.0", "acme.web 2.0", "bound *", "fixed 3.0"}
		if diff := cmp.Diff(want, w.used(r.ID)); diff != "" {
			t.Errorf("of a changed release (-want +got):\n%s", diff)
		}
		none := w.release("2.0")
		if diff := cmp.Diff([]string{""}, w.used(none.ID)); diff != "" {
			t.Errorf("of a release without packages (-want +got):\n%s", diff)
		}
		// As a version of the server left them that noted nothing.
		w.write(func(tx *db.Tx) error {
			_, err := tx.Exec(t.Context(), `DELETE FROM package_use`)
			return err
		})
		check(t, w.rel.UsePackages(t.Context()))
		want = []string{"", "* 7.0", "acme.web 2.0", "bound *", "fixed 3.0"}
		if diff := cmp.Diff(want, w.used(r.ID)); diff != "" {
			t.Errorf("noted afterwards (-want +got):\n%s", diff)
		}
		w.read(func(tx *db.Tx) error {
			names, err := w.rel.Names(t.Context(), tx, []string{r.ID, none.ID, "Releases-99"})
			if diff := cmp.Diff(map[string]string{r.ID: "Web Shop 1.0", none.ID: "Web Shop 2.0"}, names); diff != "" {
				t.Errorf("names (-want +got):\n%s", diff)
			}
			return err
		})
		w.write(func(tx *db.Tx) error { return w.rel.DeleteRelease(t.Context(), tx, &r, nil) })
		if left := w.used(r.ID); left != nil {
			t.Errorf("a deleted release uses %q", left)
		}
	})
}
