package feed_test

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/feed"
)

func TestRetain(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 31, 12, 0, 0, 0, time.UTC)
	ago := func(days int) time.Time { return now.AddDate(0, 0, -days) }
	stored := []feed.Stored{
		{ID: "new", PackageID: "A", Published: ago(400)},
		{ID: "young", PackageID: "a", Published: ago(29)},
		{ID: "edge", PackageID: "A", Published: ago(30)},
		{ID: "old", PackageID: "A", Published: ago(90)},
		{ID: "used", PackageID: "A", Published: ago(90), Releases: []string{"Web 1.0"}},
		{ID: "used by two", PackageID: "A", Published: ago(90), Releases: []string{"Web 1.0", "Web 1.1"}},
		{ID: "used by many", PackageID: "A", Published: ago(90), Releases: []string{"Web 1.0", "Web 1.1", "Web 1.2"}},
		{ID: "future", PackageID: "A", Published: ago(-2)},
		{ID: "another", PackageID: "B", Published: ago(90)},
	}
	const gone = " ago, packages are kept for 30 days, and no release uses it."
	want := []feed.Verdict{
		{ID: "new", PackageID: "A", Reason: "Kept: it is the newest version of A."},
		{ID: "young", PackageID: "a", Reason: "Kept: it was published 29 days ago, and packages are kept for 30 days."},
		{ID: "edge", PackageID: "A", Delete: true, Reason: "Deleted: it was published 30 days" + gone},
		{ID: "old", PackageID: "A", Delete: true, Reason: "Deleted: it was published 90 days" + gone},
		{ID: "used", PackageID: "A", Reason: "Kept: the release Web 1.0 uses it."},
		{ID: "used by two", PackageID: "A", Reason: "Kept: the releases Web 1.0 and Web 1.1 use it."},
		{ID: "used by many", PackageID: "A", Reason: "Kept: the release Web 1.0 and 2 more use it."},
		{ID: "future", PackageID: "A", Reason: "Kept: it was published 0 days ago, and packages are kept for 30 days."},
		{ID: "another", PackageID: "B", Reason: "Kept: it is the newest version of B."},
	}
	if diff := cmp.Diff(want, feed.Retain(feed.RetentionPolicy{Days: 30}, now, stored)); diff != "" {
		t.Error(diff)
	}
	all := feed.Retain(feed.RetentionPolicy{Days: 1, Released: true}, now, stored)
	if v := all[4]; !v.Delete || v.Reason != "Deleted: it was published 90 days ago, and packages are kept for 1 day even where releases use them; the release Web 1.0 uses it." {
		t.Errorf("%+v", v)
	}
	for _, v := range feed.Retain(feed.RetentionPolicy{Released: true}, now, stored) {
		if v.Delete || v.Reason != "Kept: packages are kept for ever." {
			t.Errorf("%+v", v)
		}
	}
}

// TestRetainLosesNothing: whatever the policy, each package keeps a version, what
// releases use stays unless the policy says so, and a longer time keeps no less.
func TestRetainLosesNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		now := time.Unix(1_800_000_000, 0).UTC()
		stored := rapid.SliceOf(rapid.Custom(func(t *rapid.T) feed.Stored {
			return feed.Stored{
				PackageID: rapid.SampledFrom([]string{"A", "a", "B"}).Draw(t, "id"),
				Published: now.Add(-time.Duration(rapid.IntRange(-50, 2000).Draw(t, "hours")) * time.Hour),
				Releases:  rapid.SliceOfN(rapid.Just("R"), 0, 2).Draw(t, "releases"),
			}
		})).Draw(t, "stored")
		p := feed.RetentionPolicy{Days: rapid.IntRange(-1, 60).Draw(t, "days"), Released: rapid.Bool().Draw(t, "released")}
		longer := p
		longer.Days++
		verdicts, later := feed.Retain(p, now, stored), feed.Retain(longer, now, stored)
		kept := map[bool]int{}
		for i, v := range verdicts {
			isB := stored[i].PackageID == "B"
			kept[isB] += 0
			switch {
			case !v.Delete:
				kept[isB]++
			case p.Days <= 0, len(stored[i].Releases) > 0 && !p.Released, now.Sub(stored[i].Published) < time.Duration(p.Days)*24*time.Hour:
				t.Fatalf("%+v: %+v", stored[i], v)
			}
			if p.Days > 0 && later[i].Delete && !v.Delete {
				t.Fatalf("%+v goes only when packages are kept longer", stored[i])
			}
		}
		for _, n := range kept {
			if n == 0 {
				t.Fatal("a package has no version left")
			}
		}
	})
}
