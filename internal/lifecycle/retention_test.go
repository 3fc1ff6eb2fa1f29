package lifecycle_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/lifecycle"
	"github.com/takodeploy/tako/octopus"
)

var (
	today  = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	places = []octopus.Environment{{Resource: octopus.Resource{ID: "staging"}, Name: "Staging"}, {Resource: octopus.Resource{ID: "production"}, Name: "Production"}}
)

func twoPhases(all, staging, production *octopus.RetentionPeriod) octopus.Lifecycle {
	return octopus.Lifecycle{ReleaseRetentionPolicy: all, Phases: octopus.List[octopus.Phase]{
		{Name: "Staging", OptionalDeploymentTargets: octopus.List[string]{"staging"}, ReleaseRetentionPolicy: staging},
		{Name: "Production", OptionalDeploymentTargets: octopus.List[string]{"production"}, ReleaseRetentionPolicy: production},
	}}
}

// history is fifteen releases, a day apart: 1 to 6 went to both, 7 to 9 to Staging.
func history() (candidates []lifecycle.RetentionCandidate, all []lifecycle.PlaceDeployment) {
	for n := 15; n >= 1; n-- {
		at := today.AddDate(0, 0, n-16)
		c := lifecycle.RetentionCandidate{ID: fmt.Sprint("Releases-", n), Version: fmt.Sprint("0.0.", n), Created: at, Deployed: map[string]time.Time{}}
		for i, env := range []string{"staging", "production"} {
			if n <= []int{9, 6}[i] {
				c.Deployed[env] = at
				all = append(all, lifecycle.PlaceDeployment{ReleaseID: c.ID, Place: lifecycle.Place{EnvironmentID: env}, At: at, Success: true, Ended: true})
			}
		}
		candidates = append(candidates, c)
	}
	needed := lifecycle.Needed(all)
	for i := range candidates {
		candidates[i].Needed = needed[candidates[i].ID]
	}
	return candidates, all
}

func deleted(verdicts []lifecycle.Verdict) string {
	var out []string
	for _, v := range verdicts {
		if !v.Keep {
			out = append(out, v.Version)
		}
	}
	return strings.Join(out, " ")
}

// TestPoint15RetentionCounters holds the counters of phases and of undeployed
// releases, and what the dashboard needs, to a worked example.
func TestPoint15RetentionCounters(t *testing.T) {
	t.Parallel()
	candidates, _ := history()
	verdicts := lifecycle.Retain(lifecycle.RetentionInput{
		Lifecycle: twoPhases(octopus.KeepCount(3, octopus.RetentionItems), nil, nil), Environments: places, Now: today, Releases: candidates,
	})
	if got, want := deleted(verdicts), "0.0.12 0.0.11 0.0.10 0.0.1"; got != want {
		t.Errorf("deleted %s, want %s", got, want)
	}
	reasons := map[string]string{}
	for _, v := range verdicts {
		reasons[v.Version] = v.Reason
	}
	for version, want := range map[string]string{
		"0.0.15": "never deployed, kept so far = 0 of 3",
		"0.0.12": "never deployed, but 3 of 3 have been kept",
		"0.0.9":  "it is on the dashboard",
		"0.0.8":  "it was there before one on the dashboard, and can be gone back to",
		"0.0.7":  "deployed to Staging, kept so far = 0 of 3",
		"0.0.6":  "it is on the dashboard",
		"0.0.2":  "deployed to Staging, but 3 of 3 have been kept; deployed to Production, kept so far = 2 of 3",
		"0.0.1":  "deployed to Staging, but 3 of 3 have been kept; deployed to Production, but 3 of 3 have been kept",
	} {
		if diff := cmp.Diff(want, reasons[version]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", version, diff)
		}
	}
}

func TestRetentionStrategies(t *testing.T) {
	t.Parallel()
	three := octopus.KeepCount(3, octopus.RetentionItems)
	for name, tt := range map[string]struct {
		lifecycle octopus.Lifecycle
		byDefault octopus.RetentionPeriod
		want      string
	}{
		"forever":                     {twoPhases(octopus.KeepForever(), nil, nil), *three, ""},
		"forever in the last phase":   {twoPhases(three, nil, octopus.KeepForever()), *three, "0.0.12 0.0.11 0.0.10"},
		"none":                        {twoPhases(nil, nil, nil), *three, "0.0.12 0.0.11 0.0.10 0.0.1"},
		"the space's, which is three": {twoPhases(octopus.KeepDefault(), nil, nil), *three, "0.0.12 0.0.11 0.0.10 0.0.1"},
		"the space's, which is all":   {twoPhases(octopus.KeepDefault(), nil, nil), *octopus.KeepForever(), ""},
		"days":                        {twoPhases(octopus.KeepCount(4, octopus.RetentionDays), nil, nil), *three, "0.0.11 0.0.10 0.0.7 0.0.4 0.0.3 0.0.2 0.0.1"},
		"days in one phase":           {twoPhases(octopus.KeepCount(12, octopus.RetentionDays), three, nil), *three, "0.0.12 0.0.11 0.0.10 0.0.1"},
		"a count of nothing":          {twoPhases(&octopus.RetentionPeriod{Strategy: octopus.RetentionCount}, nil, nil), *three, ""},
		"no phases": {
			octopus.Lifecycle{ReleaseRetentionPolicy: three}, *octopus.KeepForever(), "0.0.12 0.0.11 0.0.10 0.0.1",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			candidates, _ := history()
			in := lifecycle.RetentionInput{Lifecycle: tt.lifecycle, Environments: places, Default: tt.byDefault, Now: today, Releases: candidates}
			if got := deleted(lifecycle.Retain(in)); got != tt.want {
				t.Errorf("deleted %q, want %q", got, tt.want)
			}
		})
	}
}

func TestNeeded(t *testing.T) {
	t.Parallel()
	at := func(n int) time.Time { return today.Add(time.Duration(n) * time.Hour) }
	dev := lifecycle.Place{EnvironmentID: "dev"}
	tenant := lifecycle.Place{EnvironmentID: "dev", TenantID: "Tenants-1"}
	got := lifecycle.Needed([]lifecycle.PlaceDeployment{
		{ReleaseID: "gone", Place: dev, At: at(1), Success: true, Ended: true},
		{ReleaseID: "before", Place: dev, At: at(2), Success: true, Ended: true},
		{ReleaseID: "failed", Place: dev, At: at(3), Ended: true},
		{ReleaseID: "current", Place: dev, At: at(4), Success: true, Ended: true},
		{ReleaseID: "current", Place: dev, At: at(5), Success: true, Ended: true}, // once more
		{ReleaseID: "last", Place: dev, At: at(6), Ended: true},
		{ReleaseID: "theirs", Place: tenant, At: at(1), Success: true, Ended: true},
		{ReleaseID: "running", Place: tenant, At: at(7)},
	})
	want := map[string]string{
		"before": "it was there before one on the dashboard, and can be gone back to", "current": "it is on the dashboard", "last": "it is on the dashboard",
		"theirs": "it is on the dashboard", "running": "a deployment of it has not ended",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestRetentionKeepsEnough: what is deleted is beyond the number in each of its
// phases, and more is never kept than the phases ask for.
func TestRetentionKeepsEnough(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		quantity := []int{rapid.IntRange(1, 4).Draw(t, "staging"), rapid.IntRange(1, 4).Draw(t, "production")}
		l := twoPhases(nil, octopus.KeepCount(quantity[0], octopus.RetentionItems), octopus.KeepCount(quantity[1], octopus.RetentionItems))
		var candidates []lifecycle.RetentionCandidate
		for n := range rapid.IntRange(0, 30).Draw(t, "releases") {
			c := lifecycle.RetentionCandidate{ID: fmt.Sprint(n), Version: fmt.Sprint(n), Created: today, Deployed: map[string]time.Time{}}
			for _, env := range []string{"staging", "production"} {
				if rapid.Bool().Draw(t, env) {
					c.Deployed[env] = today
				}
			}
			if rapid.IntRange(0, 4).Draw(t, "needed") == 0 {
				c.Needed = "needed"
			}
			candidates = append(candidates, c)
		}
		verdicts := lifecycle.Retain(lifecycle.RetentionInput{Lifecycle: l, Environments: places, Now: today, Releases: candidates})
		for i, v := range verdicts {
			c := candidates[i]
			if c.Needed != "" {
				if !v.Keep {
					t.Fatalf("%s is needed and goes", v.Version)
				}
				continue
			}
			enough := true // newer ones are kept in every phase of it
			for p, env := range []string{"staging", "production"} {
				if _, there := c.Deployed[env]; !there && (len(c.Deployed) > 0 || p > 0) {
					continue
				}
				kept := 0
				for j := range i {
					_, there := candidates[j].Deployed[env]
					if len(c.Deployed) == 0 {
						there = len(candidates[j].Deployed) == 0
					}
					if verdicts[j].Keep && candidates[j].Needed == "" && there {
						kept++
					}
				}
				enough = enough && kept >= quantity[p]
			}
			if v.Keep == enough {
				t.Fatalf("%s: keep is %t, and there are enough: %t", v.Version, v.Keep, enough)
			}
		}
	})
}

// TestNeedsInAnyOrder holds what is known of each place, deployment by deployment, to
// what all of them together say, in whichever order they come.
func TestNeedsInAnyOrder(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		minutes := rapid.Permutation([]int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}).Draw(t, "minutes")
		var all []lifecycle.PlaceDeployment
		for _, m := range minutes[:rapid.IntRange(0, len(minutes)).Draw(t, "deployments")] {
			d := lifecycle.PlaceDeployment{
				ReleaseID: rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "release"),
				Place:     lifecycle.Place{EnvironmentID: "dev", TenantID: rapid.SampledFrom([]string{"", "acme"}).Draw(t, "tenant")},
				At:        today.Add(time.Duration(m) * time.Minute), Ended: rapid.IntRange(0, 3).Draw(t, "ended") > 0,
			}
			d.Success = d.Ended && rapid.Bool().Draw(t, "success")
			all = append(all, d)
		}
		sorted := slices.SortedFunc(slices.Values(all), func(a, b lifecycle.PlaceDeployment) int { return b.At.Compare(a.At) })
		want := map[string]bool{}
		for _, tenant := range []string{"", "acme"} {
			last, successes := false, []string(nil)
			for _, d := range sorted {
				if d.Place.TenantID != tenant {
					continue
				}
				if !last || !d.Ended {
					want[d.ReleaseID] = true
				}
				last = true
				if d.Success && !slices.Contains(successes, d.ReleaseID) {
					successes = append(successes, d.ReleaseID)
				}
			}
			for _, release := range successes[:min(2, len(successes))] {
				want[release] = true
			}
		}
		got := map[string]bool{}
		for release, why := range lifecycle.Needed(all) {
			got[release] = why != ""
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	})
}
