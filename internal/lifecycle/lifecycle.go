// Package lifecycle decides where a release may go next. It is one pure
// function, [Progress], over a lifecycle, the environments there are and the
// deployments of the release that have succeeded; everyone who has to know asks
// it: the API, the form in which a deployment is made, the check when one is
// made, and the automatic deployments that follow one.
//
// The rules:
//
//   - Phases are gone through in order. A phase is complete when enough of its
//     environments have the release: as many as it asks for, or all of them. The
//     release reaches a phase when every phase before it is complete or optional.
//   - A release may be deployed to every environment of the phases it has
//     reached. So the earlier ones stay open, and nothing that a further success
//     brings can close one again. An environment that has the release can always
//     be given it once more, even if the lifecycle was changed since so that its
//     phase is no longer reached.
//   - A lifecycle without phases has an implied one for each environment, in
//     their order. A phase without environments has all that no phase before it
//     names; environments made later belong to it too.
//   - Only successes of this very release count. For a tenant only those of that
//     tenant do, and only the environments that it is connected to: a phase that
//     has none of these holds it up no more than if it were not there.
//   - While the release has an unresolved defect it stays in the phases where it
//     has a success, in all of their environments. The first phase is open even
//     then.
//   - Automatic targets are deployed to when their phase is reached. An optional
//     phase has none: it is up to people.
package lifecycle

import (
	"cmp"
	"slices"
	"strings"

	"github.com/takodeploy/tako/octopus"
)

// Input is what progression depends on.
type Input struct {
	// Lifecycle is the channel's, or the project's where the channel has none.
	Lifecycle octopus.Lifecycle
	// Environments are all static environments of the space, in any order. An
	// environment that a phase names and that is not among them is left out of
	// account: it cannot be deployed to, so it must not hold up a release.
	Environments []octopus.Environment
	// Successes are the successful deployments of the release, for whomever.
	Successes []Success
	// HasDefect tells of an unresolved defect of the release.
	HasDefect bool
	// Tenant is nil where no tenant is deployed for.
	Tenant *Tenant
	// AnyTenant counts the successes for every tenant and for none, as an
	// overview of a release of a tenanted project wants. It must not be set
	// together with Tenant, and does not do to decide on a deployment.
	AnyTenant bool
}

// Success is a successful deployment of the release.
type Success struct {
	EnvironmentID string
	// TenantID is "" where no tenant was deployed for.
	TenantID string
}

// Tenant is whom the release is to be deployed for.
type Tenant struct {
	ID string
	// EnvironmentIDs are those the tenant is connected to in the project.
	EnvironmentIDs []string
}

// Result is where a release stands.
type Result struct {
	Phases []Phase
	// Deployable are the environments that may be deployed to now, in the
	// order of the phases.
	Deployable []string
	// NextDeployments are the environments that the release should go to next:
	// those of the current phase that lack it and, if that phase is optional,
	// those of the phases after it up to the first that is not.
	NextDeployments []string
	// NextDeploymentsMinimumRequired is how many of NextDeployments must
	// succeed before the release has done with the last of their phases; 0
	// when that is up to people.
	NextDeploymentsMinimumRequired int
	// Automatic are the automatic targets, of all phases reached, that lack
	// the release. See [NewlyAutomatic].
	Automatic []string

	lifecycle string
	names     map[string]string // of environments, by id
}

// Phase is where a release stands in one phase.
type Phase struct {
	// Phase is the phase of the lifecycle, or the implied one. Its targets are
	// complete (those of a phase without environments are filled in) and have
	// only environments that exist. Its retention policies are resolved: where
	// the phase has none it is the nearest earlier phase's, else the
	// lifecycle's.
	octopus.Phase
	// EnvironmentIDs are the targets that count: all, or those that the tenant
	// is connected to.
	EnvironmentIDs []string
	// Required is how many of them must have the release for the phase to be
	// complete, Succeeded how many have it.
	Required  int
	Succeeded int
	Progress  octopus.PhaseProgress
	// Reached tells that the phases before are complete or optional.
	Reached bool
	// Blocked tells that nothing may be deployed to the phase but what is
	// there already: it is not reached, or a defect closes it.
	Blocked bool

	missing []string // those of EnvironmentIDs that lack the release
}

func (p Phase) complete() bool { return p.Succeeded >= p.Required }

// Progress says where a release stands.
func Progress(in Input) Result {
	r := Result{
		lifecycle: in.Lifecycle.Name,
		names:     make(map[string]string, len(in.Environments)),
	}
	for _, e := range in.Environments {
		r.names[e.ID] = e.Name
	}
	has := successes(in)
	first, furthest := -1, -1
	reached := true
	for i, phase := range Phases(in.Lifecycle, in.Environments) {
		p := Phase{Phase: phase, Reached: reached, Progress: octopus.PhasePending}
		for _, id := range targets(phase) {
			if in.Tenant != nil && !slices.Contains(in.Tenant.EnvironmentIDs, id) {
				continue
			}
			p.EnvironmentIDs = append(p.EnvironmentIDs, id)
			if !has[id] {
				p.missing = append(p.missing, id)
			}
		}
		p.Succeeded = len(p.EnvironmentIDs) - len(p.missing)
		p.Required = len(p.EnvironmentIDs)
		if n := phase.MinimumEnvironmentsBeforePromotion; n > 0 {
			p.Required = min(n, p.Required)
		}
		if first < 0 && len(p.EnvironmentIDs) > 0 {
			first = i
		}
		if p.Succeeded > 0 {
			furthest = i
		}
		p.Blocked = !reached || in.HasDefect && p.Succeeded == 0 && i != first
		if p.complete() && (len(p.EnvironmentIDs) > 0 || reached) {
			p.Progress = octopus.PhaseComplete
		}
		reached = reached && (p.complete() || p.IsOptionalPhase)
		r.Phases = append(r.Phases, p)
	}
	r.deployable(has)
	r.next(furthest)
	return r
}

// deployable fills in what may be deployed to, and what is to be automatically.
func (r *Result) deployable(has map[string]bool) {
	for _, p := range r.Phases {
		for _, id := range p.EnvironmentIDs {
			if (!p.Blocked || has[id]) && !slices.Contains(r.Deployable, id) {
				r.Deployable = append(r.Deployable, id)
			}
		}
		if p.Blocked || p.IsOptionalPhase {
			continue
		}
		for _, id := range p.missing {
			if slices.Contains(p.AutomaticDeploymentTargets, id) && !slices.Contains(r.Automatic, id) {
				r.Automatic = append(r.Automatic, id)
			}
		}
	}
}

// next finds the current phase and what comes next. furthest is the last phase
// with a success; the optional phases before it were skipped.
func (r *Result) next(furthest int) {
	current := slices.IndexFunc(r.Phases, func(p Phase) bool { return p.Reached && !p.complete() })
	for current >= 0 && current < furthest && r.Phases[current].IsOptionalPhase {
		more := slices.IndexFunc(r.Phases[current+1:], func(p Phase) bool { return p.Reached && !p.complete() })
		if more < 0 {
			return
		}
		current += 1 + more
	}
	if current < 0 {
		return
	}
	r.Phases[current].Progress = octopus.PhaseCurrent
	for _, p := range r.Phases[current:] {
		if p.Blocked {
			return
		}
		if p.complete() {
			continue
		}
		for _, id := range p.missing {
			if !slices.Contains(r.NextDeployments, id) {
				r.NextDeployments = append(r.NextDeployments, id)
			}
		}
		if !p.IsOptionalPhase {
			r.NextDeploymentsMinimumRequired = p.Required - p.Succeeded
			return
		}
	}
}

// successes are the environments that have the release, as far as in counts them.
func successes(in Input) map[string]bool {
	tenant := ""
	if in.Tenant != nil {
		tenant = in.Tenant.ID
	}
	has := make(map[string]bool, len(in.Successes))
	for _, s := range in.Successes {
		if s.TenantID == tenant || in.AnyTenant {
			has[s.EnvironmentID] = true
		}
	}
	return has
}

// Phases are the phases of a lifecycle with their targets and retention policies
// filled in, as the embedded phase of [Phase] describes. A lifecycle without
// phases has one for each environment.
func Phases(lifecycle octopus.Lifecycle, environments []octopus.Environment) []octopus.Phase {
	sorted := slices.SortedFunc(slices.Values(environments), func(a, b octopus.Environment) int {
		return cmp.Or(cmp.Compare(a.SortOrder, b.SortOrder), cmp.Compare(strings.ToLower(a.Name), strings.ToLower(b.Name)), cmp.Compare(a.ID, b.ID))
	})
	known := make(map[string]bool, len(sorted))
	for _, e := range sorted {
		known[e.ID] = true
	}
	releases, tentacles := lifecycle.ReleaseRetentionPolicy, lifecycle.TentacleRetentionPolicy
	if len(lifecycle.Phases) == 0 {
		phases := make([]octopus.Phase, len(sorted))
		for i, e := range sorted {
			phases[i] = octopus.Phase{
				Name: e.Name, OptionalDeploymentTargets: octopus.List[string]{e.ID},
				ReleaseRetentionPolicy: releases, TentacleRetentionPolicy: tentacles,
			}
		}
		return phases
	}
	phases := make([]octopus.Phase, len(lifecycle.Phases))
	named := map[string]bool{}
	for i, p := range lifecycle.Phases {
		automatic, optional := p.AutomaticDeploymentTargets, p.OptionalDeploymentTargets
		if len(automatic) == 0 && len(optional) == 0 {
			optional = nil // not the caller's memory
			for _, e := range sorted {
				if !named[e.ID] {
					optional = append(optional, e.ID)
				}
			}
		}
		for _, id := range p.AutomaticDeploymentTargets {
			named[id] = true
		}
		for _, id := range p.OptionalDeploymentTargets {
			named[id] = true
		}
		p.AutomaticDeploymentTargets = only(automatic, known)
		p.OptionalDeploymentTargets = only(optional, known)
		releases = cmp.Or(p.ReleaseRetentionPolicy, releases)
		tentacles = cmp.Or(p.TentacleRetentionPolicy, tentacles)
		p.ReleaseRetentionPolicy, p.TentacleRetentionPolicy = releases, tentacles
		phases[i] = p
	}
	return phases
}

// only returns those ids that are known, in a slice of its own.
func only(ids []string, known map[string]bool) octopus.List[string] {
	kept := octopus.List[string]{}
	for _, id := range ids {
		if known[id] && !slices.Contains(kept, id) {
			kept = append(kept, id)
		}
	}
	return kept
}

// targets are the environments of a phase, each once, the automatic ones first.
func targets(p octopus.Phase) []string {
	all := slices.Clone(p.AutomaticDeploymentTargets)
	for _, id := range p.OptionalDeploymentTargets {
		if !slices.Contains(all, id) {
			all = append(all, id)
		}
	}
	return all
}

// NewlyAutomatic are the environments to deploy to because after is what before
// has become: a deployment succeeded, or a defect was resolved. A new release
// has no before; its automatic deployments are [Result.Automatic].
//
// Taking the difference is what keeps an automatic deployment that failed from
// being made over and over.
func NewlyAutomatic(before, after Result) []string {
	var ids []string
	for _, id := range after.Automatic {
		if !slices.Contains(before.Automatic, id) {
			ids = append(ids, id)
		}
	}
	return ids
}

// IsPriority reports whether deployments to an environment go before others in
// the queue, unless they say otherwise themselves. Of several phases with the
// environment the last that is open decides.
func (r Result) IsPriority(environmentID string) bool {
	priority := false
	for _, p := range r.Phases {
		if slices.Contains(p.EnvironmentIDs, environmentID) && !p.Blocked {
			priority = p.IsPriorityPhase
		}
	}
	return priority
}

// Document is the result as the API shows it, without its deployments, which the
// caller adds.
func (r Result) Document() octopus.LifecycleProgression {
	d := octopus.LifecycleProgression{
		NextDeployments:                r.NextDeployments,
		NextDeploymentsMinimumRequired: r.NextDeploymentsMinimumRequired,
	}
	for _, p := range r.Phases {
		d.Phases = append(d.Phases, octopus.PhaseProgression{
			ID: p.ID, Name: p.Name, Blocked: p.Blocked, Progress: p.Progress,
			AutomaticDeploymentTargets:         p.AutomaticDeploymentTargets,
			OptionalDeploymentTargets:          p.OptionalDeploymentTargets,
			MinimumEnvironmentsBeforePromotion: p.MinimumEnvironmentsBeforePromotion,
			IsOptionalPhase:                    p.IsOptionalPhase,
			IsPriorityPhase:                    p.IsPriorityPhase,
			ReleaseRetentionPolicy:             p.ReleaseRetentionPolicy,
			TentacleRetentionPolicy:            p.TentacleRetentionPolicy,
		})
	}
	return d
}
