package lifecycle_test

import (
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/lifecycle"
	"github.com/takodeploy/tako/octopus"
)

const gone = "gone" // an environment that phases name and that does not exist

// drawInput draws any situation: odd minimums, environments in several phases,
// phases without environments, tenants and defects.
func drawInput(t *rapid.T) lifecycle.Input {
	var ids []string
	for i := range rapid.IntRange(0, 6).Draw(t, "environments") {
		ids = append(ids, "e"+strconv.Itoa(i))
	}
	some := func(label string, from ...string) []string {
		if len(from) == 0 {
			return nil
		}
		return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 0, len(from), rapid.ID).Draw(t, label)
	}
	in := lifecycle.Input{Environments: environments(ids...), HasDefect: rapid.Bool().Draw(t, "defect")}
	for i := range in.Environments {
		in.Environments[i].SortOrder = rapid.IntRange(0, 3).Draw(t, "order")
	}
	for i := range rapid.IntRange(0, 5).Draw(t, "phases") {
		p := octopus.Phase{
			Name:                               "p" + strconv.Itoa(i),
			MinimumEnvironmentsBeforePromotion: rapid.IntRange(-1, 4).Draw(t, "minimum"),
			IsOptionalPhase:                    rapid.Bool().Draw(t, "optional"),
		}
		p.AutomaticDeploymentTargets = some("automatic", append(slices.Clone(ids), gone)...)
		p.OptionalDeploymentTargets = some("manual", append(slices.Clone(ids), gone)...)
		in.Lifecycle.Phases = append(in.Lifecycle.Phases, p)
	}
	if rapid.Bool().Draw(t, "tenanted") {
		in.Tenant = &lifecycle.Tenant{ID: "a", EnvironmentIDs: some("connected", ids...)}
	}
	for range rapid.IntRange(0, 6).Draw(t, "successes") {
		in.Successes = append(in.Successes, drawSuccess(t, ids))
	}
	return in
}

func drawSuccess(t *rapid.T, ids []string) lifecycle.Success {
	return lifecycle.Success{
		EnvironmentID: rapid.SampledFrom(append(slices.Clone(ids), gone)).Draw(t, "environment"),
		TenantID:      rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "tenant"),
	}
}

func tenantID(in lifecycle.Input) string {
	if in.Tenant == nil {
		return ""
	}
	return in.Tenant.ID
}

func has(in lifecycle.Input, id string) bool {
	return slices.Contains(in.Successes, lifecycle.Success{EnvironmentID: id, TenantID: tenantID(in)})
}

func missing(t *rapid.T, what string, sub, all []string) {
	t.Helper()
	for _, id := range sub {
		if !slices.Contains(all, id) {
			t.Fatalf("%s: %s is not among %v", what, id, all)
		}
	}
}

// One more success never closes what was open.
func TestSuccessesOnlyOpen(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		before := lifecycle.Progress(in)
		var ids []string
		for _, e := range in.Environments {
			ids = append(ids, e.ID)
		}
		more := in
		more.Successes = append(slices.Clone(in.Successes), drawSuccess(t, ids))
		after := lifecycle.Progress(more)
		missing(t, "deployable before, not after", before.Deployable, after.Deployable)
		for i, p := range before.Phases {
			if p.Reached && !after.Phases[i].Reached || !p.Blocked && after.Phases[i].Blocked {
				t.Fatalf("phase %s was open and is closed", p.Name)
			}
		}
	})
}

// What has the release can have it again, and a phase that was gone through
// stays open however far the release has come.
func TestRedeployIsAlwaysAllowed(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		r := lifecycle.Progress(in)
		last := -1
		for i, p := range r.Phases {
			for _, id := range p.EnvironmentIDs {
				if ok, reason := lifecycle.CanDeploy(r, id); !ok && has(in, id) {
					t.Fatalf("%s has the release and is closed: %s", id, reason)
				}
			}
			if p.Reached {
				last = i
			}
		}
		if in.HasDefect {
			return
		}
		for _, p := range r.Phases[:last+1] {
			missing(t, "a phase up to the last that is reached", p.EnvironmentIDs, r.Deployable)
		}
	})
}

// All that a result says agrees with itself.
func TestResultIsConsistent(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		r := lifecycle.Progress(in)
		missing(t, "next but not deployable", r.NextDeployments, r.Deployable)
		missing(t, "automatic but not deployable", r.Automatic, r.Deployable)
		for _, id := range append(slices.Clone(r.NextDeployments), r.Automatic...) {
			if has(in, id) {
				t.Fatalf("%s has the release and is to be deployed to", id)
			}
		}
		if n := r.NextDeploymentsMinimumRequired; n < 0 || n > len(r.NextDeployments) {
			t.Fatalf("%d of %d next deployments are required", n, len(r.NextDeployments))
		}
		current := 0
		for _, p := range r.Phases {
			if p.Progress == octopus.PhaseCurrent {
				current++
			}
			if slices.Contains(p.EnvironmentIDs, gone) {
				t.Fatal("an environment that does not exist counts")
			}
			if p.Required < 0 || p.Required > len(p.EnvironmentIDs) || p.Succeeded > len(p.EnvironmentIDs) {
				t.Fatalf("phase %+v", p)
			}
			if in.Tenant != nil {
				missing(t, "not connected", p.EnvironmentIDs, in.Tenant.EnvironmentIDs)
			}
		}
		if current > 1 {
			t.Fatalf("%d phases are current", current)
		}
		for _, e := range append(environments(gone), in.Environments...) {
			ok, reason := lifecycle.CanDeploy(r, e.ID)
			if ok != slices.Contains(r.Deployable, e.ID) || ok != (reason == "") {
				t.Fatalf("CanDeploy(%s) = %v, %q", e.ID, ok, reason)
			}
		}
	})
}

// A defect takes away, and never gives.
func TestDefectOnlyCloses(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		in.HasDefect = false
		without := lifecycle.Progress(in)
		in.HasDefect = true
		with := lifecycle.Progress(in)
		missing(t, "deployable with a defect only", with.Deployable, without.Deployable)
		missing(t, "automatic with a defect only", with.Automatic, without.Automatic)
	})
}

// Others' deployments and the order of the input do not matter.
func TestOnlyOwnSuccessesCount(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		own := in
		own.Environments, own.Successes = slices.Clone(in.Environments), nil
		slices.Reverse(own.Environments)
		for _, s := range slices.Backward(in.Successes) {
			if s.TenantID == tenantID(in) {
				own.Successes = append(own.Successes, s)
			}
		}
		a, b := lifecycle.Progress(in), lifecycle.Progress(own)
		if show(a) != show(b) || !slices.Equal(a.Deployable, b.Deployable) || !slices.Equal(a.NextDeployments, b.NextDeployments) {
			t.Fatalf("%s\n%s", show(a), show(b))
		}
	})
}

// Whoever deploys what is next arrives at the end.
func TestNextLeadsToTheEnd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		in.HasDefect = false
		r := lifecycle.Progress(in)
		for range len(in.Lifecycle.Phases) + len(in.Environments) {
			if len(r.NextDeployments) == 0 {
				break
			}
			for _, id := range r.NextDeployments {
				in.Successes = append(in.Successes, lifecycle.Success{EnvironmentID: id, TenantID: tenantID(in)})
			}
			r = lifecycle.Progress(in)
		}
		for _, p := range r.Phases {
			if !p.Reached || p.Succeeded < p.Required && !p.IsOptionalPhase {
				t.Fatalf("nothing is next, yet %s", cmp.Diff(octopus.PhaseComplete, p.Progress))
			}
			missing(t, "closed at the end", p.EnvironmentIDs, r.Deployable)
		}
	})
}

// The input is the caller's.
func TestInputIsNotChanged(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		in := drawInput(t)
		copied := in
		copied.Lifecycle.Phases, copied.Environments = slices.Clone(in.Lifecycle.Phases), slices.Clone(in.Environments)
		for i, p := range in.Lifecycle.Phases {
			copied.Lifecycle.Phases[i].OptionalDeploymentTargets = slices.Clone(p.OptionalDeploymentTargets)
			copied.Lifecycle.Phases[i].AutomaticDeploymentTargets = slices.Clone(p.AutomaticDeploymentTargets)
		}
		lifecycle.Progress(in)
		if diff := cmp.Diff(copied, in); diff != "" {
			t.Fatalf("(-before +after):\n%s", diff)
		}
	})
}
