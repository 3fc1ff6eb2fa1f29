package feed_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

const day = 24 * 3600 * 1_000_000 // microseconds

func (w *world) exec(statement string, args ...any) {
	w.t.Helper()
	err := w.d.Write(w.as, func(tx *db.Tx) error {
		_, err := tx.Exec(w.as, statement, args...)
		return err
	})
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) use(owner string, used ...feed.Used) {
	w.t.Helper()
	if err := w.d.Write(w.as, func(tx *db.Tx) error { return feed.Use(w.as, tx, home, owner, used) }); err != nil {
		w.t.Fatal(err)
	}
}

// older lets everything of the repository have come some days ago.
func (w *world) older(days int) {
	w.t.Helper()
	w.exec(`UPDATE package SET published = published - ?`, int64(days*day))
	w.exec(`UPDATE build_information SET created = created - ?`, int64(days*day))
}

func called(_ context.Context, _ *db.Tx, owners []string) (map[string]string, error) {
	out := map[string]string{}
	for _, o := range owners {
		out[o] = "Web " + strings.TrimPrefix(o, "Releases-")
	}
	return out, nil
}

func verdict(v feed.Verdict) string { return v.PackageID + " " + v.Version + ": " + v.Reason }

// TestPackageRetention: what goes is old, not the newest, and in no release; the
// reasons are told beforehand, and nothing of it is done then.
func TestPackageRetention(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		for _, n := range []int{1, 2, 3, 4, 5} {
			w.pushed(fmt.Sprintf("Acme.Web.1.%d.zip", n), fmt.Sprint(n))
		}
		w.pushed("Acme.Api.2.0.zip", "api")
		w.pushed("Acme.Api.1.0.zip", "old api")
		w.pushed("Lib.1.0.0.zip", "lib")
		w.pushed("Lib.0.9.0.zip", "old lib")
		if _, _, err := w.push(other, "Acme.Web.1.1.zip", "1", feed.FailIfExists); err != nil {
			t.Fatal(err)
		}
		build := &octopus.BuildInformationCommand{PackageID: "acme.web", Version: "1.1"}
		if _, _, err := w.PushBuild(w.as, home, build, feed.FailIfExists); err != nil {
			t.Fatal(err)
		}
		w.older(40)
		w.pushed("Acme.Web.1.0.zip", "young") // of an older version
		w.use("Releases-1", feed.Used{PackageID: "ACME.web", Version: "1.2"})
		w.use("Releases-2", feed.Used{PackageID: "Acme.Web", Version: "1.2"}, feed.Used{PackageID: "#", Version: "9"})
		w.use("Releases-3", feed.Used{PackageID: "Acme.Web", Version: "1.2"}, feed.Used{PackageID: feed.Any, Version: "1.3"})
		w.use("Releases-4", feed.Used{PackageID: "Lib", Version: feed.Any})
		policy := feed.RetentionPolicy{Days: 30}
		want := []string{
			"Acme.Api 2.0: Kept: it is the newest version of Acme.Api.",
			"Acme.Api 1.0: Deleted: it was published 40 days ago, packages are kept for 30 days, and no release uses it.",
			"Acme.Web 1.5: Kept: it is the newest version of Acme.Web.",
			"Acme.Web 1.4: Deleted: it was published 40 days ago, packages are kept for 30 days, and no release uses it.",
			"Acme.Web 1.3: Kept: the release Web 3 uses it.",
			"Acme.Web 1.2: Kept: the release Web 1 and 2 more use it.",
			"Acme.Web 1.1: Deleted: it was published 40 days ago, packages are kept for 30 days, and no release uses it.",
			"Acme.Web 1.0: Kept: it was published 0 days ago, and packages are kept for 30 days.",
			"Lib 1.0.0: Kept: it is the newest version of Lib.",
			"Lib 0.9.0: Kept: the release Web 4 uses it.",
		}
		var dry []string
		w.read(func(tx *db.Tx) error {
			dry = nil
			for skip := int64(0); ; skip += 3 {
				page, total, err := w.Verdicts(w.as, tx, home, policy, called, ident.Page{Skip: skip, Take: 3})
				if err != nil || len(page) == 0 {
					return err
				}
				if total != 10 {
					t.Errorf("of %d", total)
				}
				for _, v := range page {
					dry = append(dry, verdict(v))
				}
			}
		})
		if diff := cmp.Diff(want, dry); diff != "" {
			t.Errorf("beforehand (-want +got):\n%s", diff)
		}
		var said []string
		n, err := w.Retain(w.as, home, policy, called, func(v feed.Verdict) error { said = append(said, verdict(v)); return nil })
		if err != nil || n != 3 {
			t.Fatalf("%d were deleted: %v", n, err)
		}
		if diff := cmp.Diff(want, said); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		left, _ := w.list(feed.Query{PackageID: "Acme.Web", Page: ident.Page{Take: 30}})
		if diff := cmp.Diff([]string{"Acme.Web 1.5", "Acme.Web 1.3", "Acme.Web 1.2", "Acme.Web 1.0"}, left); diff != "" {
			t.Errorf("left (-want +got):\n%s", diff)
		}
		w.read(func(tx *db.Tx) error {
			if p, err := w.Find(w.as, tx, other, "Acme.Web", "1.1"); err != nil || p == nil {
				t.Errorf("another space lost its package: %v", err)
			}
			b, err := feed.BuildOf(w.as, tx, home, "Acme.Web", "1.1")
			if b != nil {
				t.Error("the build information of a package that is gone is left")
			}
			return err
		})
		if n, err := w.Retain(w.as, home, policy, called, func(feed.Verdict) error { return nil }); err != nil || n != 0 {
			t.Errorf("once more %d were deleted: %v", n, err)
		}
		if n, err := w.Retain(w.as, home, feed.RetentionPolicy{Days: 1, Released: true}, called, func(feed.Verdict) error { return nil }); err != nil || n != 3 {
			t.Errorf("with those of releases %d were deleted: %v", n, err)
		}
	})
}

// TestRetentionSeesNewUses: a release that is made between the decision and the
// deletion keeps its package, and so does a version that became the newest.
func TestRetentionSeesNewUses(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		for n := range 45 { // more than a transaction deletes
			w.pushed(fmt.Sprintf("A.1.0.%d.zip", n), fmt.Sprint(n))
		}
		w.older(2)
		asked := 0
		n, err := w.Retain(w.as, home, feed.RetentionPolicy{Days: 1}, called, func(v feed.Verdict) error {
			if asked++; asked == 45 {
				w.use("Releases-1", feed.Used{PackageID: "A", Version: "1.0.7"})
				for _, id := range []string{"packages-A.1.0.44", "packages-A.1.0.43"} {
					if err := w.d.Write(w.as, func(tx *db.Tx) error { return w.Delete(w.as, tx, home, []string{id}) }); err != nil {
						return err
					}
				}
			}
			return nil
		})
		if err != nil || n != 41 {
			t.Errorf("%d were deleted: %v", n, err)
		}
		left, _ := w.list(feed.Query{PackageID: "A", Page: ident.Page{Take: 30}})
		if !slices.Equal(left, []string{"A 1.0.42", "A 1.0.7"}) {
			t.Errorf("left: %v", left)
		}
		stop := errors.New("enough")
		if _, err := w.Retain(w.as, home, feed.RetentionPolicy{Days: 1}, called, func(feed.Verdict) error { return stop }); !errors.Is(err, stop) {
			t.Errorf("told to stop: %v", err)
		}
	})
}

// TestBuildRetention: build information without a package goes after its days, if
// no release has it.
func TestBuildRetention(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		push := func(id, version string) {
			t.Helper()
			in := &octopus.BuildInformationCommand{PackageID: id, Version: version}
			if _, _, err := w.PushBuild(w.as, home, in, feed.Replace); err != nil {
				t.Fatal(err)
			}
		}
		for n := range 30 {
			push("External", fmt.Sprintf("1.0.%d", n))
		}
		push("Built-in", "1.0")
		push("Released", "1.0")
		push("Told.Again", "1.0")
		w.pushed("Built-in.1.0.zip", "x")
		w.use("Releases-1", feed.Used{PackageID: "Released", Version: "1.0"})
		w.exec(`UPDATE build_information SET body = replace(body, '"LastModifiedOn":"20', '"LastModifiedOn":"19')`)
		w.older(99)
		retain := func() (gone []string) {
			t.Helper()
			n, err := w.RetainBuilds(w.as, home, func(b octopus.BuildInformation) error { gone = append(gone, b.PackageID); return nil })
			if err != nil || n != len(gone) {
				t.Fatalf("%d, told of %d: %v", n, len(gone), err)
			}
			return gone
		}
		if gone := retain(); gone != nil {
			t.Errorf("after 99 days %v went", gone)
		}
		w.older(1)
		push("Told.Again", "1.0")
		push("Young", "1.0")
		if gone := retain(); len(gone) != 30 || gone[0] != "External" || gone[29] != "External" {
			t.Errorf("after 100 days %v went", gone)
		}
		w.exec(`DELETE FROM package_use WHERE owner = 'Releases-1'`)
		if gone := retain(); !slices.Equal(gone, []string{"Released"}) {
			t.Errorf("without its release %v went", gone)
		}
	})
}
