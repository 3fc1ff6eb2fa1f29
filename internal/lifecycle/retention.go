package lifecycle

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/octopus"
)

// RetentionInput is what decides which releases of a channel are kept.
type RetentionInput struct {
	Lifecycle octopus.Lifecycle
	// Environments are all static environments of the space, in any order.
	Environments []octopus.Environment
	// Default is what a policy with the strategy Default means: the space's own.
	Default octopus.RetentionPeriod
	Now     time.Time
	// Releases of the channel, the newest first.
	Releases []RetentionCandidate
}

// RetentionCandidate is a release that may be deleted.
type RetentionCandidate struct {
	ID      string
	Version string
	Created time.Time
	// Deployed has when the release was last deployed to each environment that it
	// was ever deployed to, for whomever.
	Deployed map[string]time.Time
	// Needed is why the release must be kept whatever the policies say, "" when
	// nothing says so: it is on a dashboard, or before the one that is.
	Needed string
}

// Verdict is what becomes of a release, and why.
type Verdict struct {
	ReleaseID string
	Version   string
	Keep      bool
	Reason    string // a sentence without its stop
}

// Retain decides for each release whether it is kept.
//
// There is a counter for each phase, and one for the releases that were never
// deployed, which follow the policy of the first phase. A release is deleted only if the policy of every
// phase that it was deployed to lets it go: it is beyond the number of releases
// kept there so far, or its last deployment there is older than the days. Releases
// that are needed are kept besides and are not counted.
func Retain(in RetentionInput) []Verdict {
	phases := Phases(in.Lifecycle, in.Environments)
	undeployed := policy(in.Lifecycle.ReleaseRetentionPolicy, in.Default)
	if len(phases) > 0 {
		undeployed = policy(phases[0].ReleaseRetentionPolicy, in.Default)
	}
	kept := make([]int, len(phases)+1) // the last is of those never deployed
	out := make([]Verdict, 0, len(in.Releases))
	for _, r := range in.Releases {
		v := Verdict{ReleaseID: r.ID, Version: r.Version, Keep: true, Reason: r.Needed}
		if r.Needed != "" {
			out = append(out, v)
			continue
		}
		v.Keep = false
		var reasons []string
		var counts []int // where the release takes one of the places
		reached := 0
		for i, p := range phases {
			last, there := lastIn(targets(p), r.Deployed)
			if !there {
				continue
			}
			keeps, why := policy(p.ReleaseRetentionPolicy, in.Default).keeps(kept[i], last, in.Now)
			v.Keep = v.Keep || keeps
			reasons = append(reasons, "deployed to "+p.Name+", "+why)
			reached++
			if keeps {
				counts = append(counts, i)
			}
		}
		if reached == 0 {
			i := len(phases)
			at, what := r.Created, "never deployed, "
			if len(r.Deployed) > 0 {
				at, what = lastOf(r.Deployed), "deployed only to environments that its lifecycle has no more, "
			}
			keeps, why := undeployed.keeps(kept[i], at, in.Now)
			v.Keep = keeps
			reasons, counts = []string{what + why}, []int{i}
		}
		if v.Keep {
			for _, i := range counts {
				kept[i]++
			}
		}
		v.Reason = strings.Join(reasons, "; ")
		out = append(out, v)
	}
	return out
}

func lastIn(environments []string, deployed map[string]time.Time) (last time.Time, there bool) {
	for _, id := range environments {
		if at, ok := deployed[id]; ok {
			there = true
			if at.After(last) {
				last = at
			}
		}
	}
	return last, there
}

func lastOf(deployed map[string]time.Time) (last time.Time) {
	for _, at := range deployed {
		if at.After(last) {
			last = at
		}
	}
	return last
}

// rule is a policy that says what it means.
type rule struct{ octopus.RetentionPeriod }

// policy resolves a period: nil and Default are the space's.
func policy(p *octopus.RetentionPeriod, byDefault octopus.RetentionPeriod) rule {
	if p == nil || p.Strategy == octopus.RetentionDefault {
		return rule{byDefault}
	}
	return rule{*p}
}

// keeps reports whether the policy keeps a release of which kept newer ones are
// kept already.
func (r rule) keeps(kept int, last, now time.Time) (bool, string) {
	switch {
	case r.Strategy != octopus.RetentionCount || r.QuantityToKeep <= 0:
		return true, "where all are kept"
	case r.Unit == octopus.RetentionItems:
		if kept >= r.QuantityToKeep {
			return false, fmt.Sprintf("but %d of %d have been kept", kept, r.QuantityToKeep)
		}
		return true, fmt.Sprintf("kept so far = %d of %d", kept, r.QuantityToKeep)
	default:
		days := int(now.Sub(last) / (24 * time.Hour))
		if now.Sub(last) > time.Duration(r.QuantityToKeep)*24*time.Hour {
			return false, fmt.Sprintf("but %d days ago, and %d days are kept", days, r.QuantityToKeep)
		}
		return true, fmt.Sprintf("%d days ago, and %d days are kept", days, r.QuantityToKeep)
	}
}

// Place is where deployments go: an environment, for a tenant or for nobody.
type Place struct{ EnvironmentID, TenantID string }

// PlaceDeployment is a deployment of a project as retention sees it.
type PlaceDeployment struct {
	ReleaseID string
	Place     Place
	// At is when it ended, or was made when it has not.
	At      time.Time
	Success bool
	Ended   bool
}

// Needed says which releases of a project must be kept whatever its policies say,
// and why: those with a deployment that has not ended, and for each place what the
// dashboard shows (the last deployment and the last success) and the release that
// was there before, to go back to.
func Needed(all []PlaceDeployment) map[string]string {
	sorted := slices.SortedStableFunc(slices.Values(all), func(a, b PlaceDeployment) int { return cmp.Compare(b.At.UnixNano(), a.At.UnixNano()) })
	why := map[string]string{}
	say := func(release, reason string) {
		if why[release] == "" {
			why[release] = reason
		}
	}
	shown := map[Place]bool{}
	current, previous := map[Place]string{}, map[Place]string{}
	for _, d := range sorted {
		switch {
		case !d.Ended:
			say(d.ReleaseID, "a deployment of it has not ended")
		case !shown[d.Place]:
			say(d.ReleaseID, "it is on the dashboard")
		}
		shown[d.Place] = true
		if !d.Success {
			continue
		}
		switch {
		case current[d.Place] == "":
			current[d.Place] = d.ReleaseID
			say(d.ReleaseID, "it is on the dashboard")
		case previous[d.Place] == "" && d.ReleaseID != current[d.Place]:
			previous[d.Place] = d.ReleaseID
		}
	}
	for _, release := range previous {
		say(release, "it was there before one on the dashboard, and can be gone back to")
	}
	return why
}
