package lifecycle

import (
	"fmt"
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
	// Releases of the channel, the newest first. [NewRetention] does not look at them.
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

// Retain decides for each release whether it is kept; see [Retention].
func Retain(in RetentionInput) []Verdict {
	r := NewRetention(in)
	out := make([]Verdict, 0, len(in.Releases))
	for i := range in.Releases {
		out = append(out, r.Decide(&in.Releases[i]))
	}
	return out
}

// Retention decides for one release of a channel after the other, the newest first,
// whether it is kept.
//
// There is a counter for each phase, and one for the releases that were never
// deployed, which follow the policy of the first phase. A release is deleted only if the policy of every
// phase that it was deployed to lets it go: it is beyond the number of releases
// kept there so far, or its last deployment there is older than the days. Releases
// that are needed are kept besides and are not counted.
type Retention struct {
	phases     []octopus.Phase
	undeployed rule
	byDefault  octopus.RetentionPeriod
	now        time.Time
	kept       []int // by phase; the last is of those never deployed
}

// NewRetention begins with the newest release.
func NewRetention(in RetentionInput) *Retention {
	r := &Retention{phases: Phases(in.Lifecycle, in.Environments), byDefault: in.Default, now: in.Now}
	first := in.Lifecycle.ReleaseRetentionPolicy
	if len(r.phases) > 0 {
		first = r.phases[0].ReleaseRetentionPolicy
	}
	r.undeployed, r.kept = policy(first, in.Default), make([]int, len(r.phases)+1)
	return r
}

// Decide is what becomes of the next release.
func (r *Retention) Decide(c *RetentionCandidate) Verdict {
	v := Verdict{ReleaseID: c.ID, Version: c.Version, Keep: true, Reason: c.Needed}
	if c.Needed != "" {
		return v
	}
	v.Keep = false
	var reasons []string
	var counts []int // where the release takes one of the places
	reached := 0
	for i, p := range r.phases {
		last, there := lastIn(targets(p), c.Deployed)
		if !there {
			continue
		}
		keeps, why := policy(p.ReleaseRetentionPolicy, r.byDefault).keeps(r.kept[i], last, r.now)
		v.Keep = v.Keep || keeps
		reasons = append(reasons, "deployed to "+p.Name+", "+why)
		reached++
		if keeps {
			counts = append(counts, i)
		}
	}
	if reached == 0 {
		i := len(r.phases)
		at, what := c.Created, "never deployed, "
		if len(c.Deployed) > 0 {
			at, what = lastOf(c.Deployed), "deployed only to environments that its lifecycle has no more, "
		}
		keeps, why := r.undeployed.keeps(r.kept[i], at, r.now)
		v.Keep = keeps
		reasons, counts = []string{what + why}, []int{i}
	}
	if v.Keep {
		for _, i := range counts {
			r.kept[i]++
		}
	}
	v.Reason = strings.Join(reasons, "; ")
	return v
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
// and why; see [Needs].
func Needed(all []PlaceDeployment) map[string]string {
	n := Needs{}
	for _, d := range all {
		n.Add(d)
	}
	return n.Why()
}

// Needs finds the releases of a project that must be kept whatever its policies say:
// those with a deployment that has not ended, and for each place what the dashboard
// shows (the last deployment and the last success) and the release that was there
// before, to go back to. It keeps what it has to know of a place, and not the
// deployments. The zero value has seen none.
type Needs struct {
	running map[string]bool // releases
	places  map[Place]*needed
}

// needed is what is known of a place.
type needed struct {
	shown             at // the last deployment
	ended             bool
	current, previous at // the last success, and the last of another release
}

// at is a release and a time of it.
type at struct {
	release string
	time    time.Time
}

// Add takes a deployment into account. They come in any order; of those at the same
// time the first counts as the later one.
func (n *Needs) Add(d PlaceDeployment) {
	if n.places == nil {
		n.places, n.running = map[Place]*needed{}, map[string]bool{}
	}
	p := n.places[d.Place]
	if p == nil {
		p = &needed{}
		n.places[d.Place] = p
	}
	if !d.Ended {
		n.running[d.ReleaseID] = true
	}
	one := at{d.ReleaseID, d.At}
	if p.shown.before(one) {
		p.shown, p.ended = one, d.Ended
	}
	if !d.Success {
		return
	}
	switch {
	case p.current.release == one.release:
		if p.current.before(one) {
			p.current = one
		}
	case p.current.before(one):
		p.current, p.previous = one, p.current
	case p.previous.before(one):
		p.previous = one
	}
}

// before reports whether b is later, or the first at all.
func (a at) before(b at) bool { return a.release == "" || a.time.Before(b.time) }

// Why says of each release that is needed why it is.
func (n *Needs) Why() map[string]string {
	why := map[string]string{}
	for release := range n.running {
		why[release] = "a deployment of it has not ended"
	}
	say := func(release, reason string) {
		if release != "" && why[release] == "" {
			why[release] = reason
		}
	}
	for _, p := range n.places {
		if p.ended {
			say(p.shown.release, "it is on the dashboard")
		}
		say(p.current.release, "it is on the dashboard")
	}
	for _, p := range n.places {
		say(p.previous.release, "it was there before one on the dashboard, and can be gone back to")
	}
	return why
}
