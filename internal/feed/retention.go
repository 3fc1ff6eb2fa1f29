package feed

import (
	"fmt"
	"time"

	"github.com/takodeploy/tako/internal/ident"
)

// RetentionPolicy says when packages of the built-in repository are deleted.
type RetentionPolicy struct {
	// Days is after how many days a package goes; 0 or less keeps all for ever.
	Days int
	// Released also lets packages go that releases use; they then cannot be
	// deployed any more where they have not been fetched.
	Released bool
}

// Stored is a version of a package as retention sees it.
type Stored struct {
	ID        string // "packages-Acme.Web.1.2.0"
	PackageID string
	Version   string
	Published time.Time
	// Releases name releases that use it, of all projects of its space: all of
	// them, or two of Used.
	Releases []string
	Used     int
}

// used is how many releases use it.
func (p *Stored) used() int { return max(p.Used, len(p.Releases)) }

// Verdict is what becomes of a version, and why.
type Verdict struct {
	ID        string
	PackageID string
	Version   string
	Delete    bool
	// Reason is a sentence for people.
	Reason string
}

// Retain decides about every version, in their order. The newest version of each
// package, which is the first of it, is kept whatever its age: the next release is
// made of it, and a difference is sent against it. So are versions that were
// published after now, by a clock that was wrong.
func Retain(policy RetentionPolicy, now time.Time, newestFirst []Stored) []Verdict {
	out := make([]Verdict, len(newestFirst))
	seen := map[string]bool{}
	for i := range newestFirst {
		name := ident.Fold(newestFirst[i].PackageID)
		out[i] = policy.decide(now, &newestFirst[i], !seen[name])
		seen[name] = true
	}
	return out
}

// decide is Retain for one version.
func (policy RetentionPolicy) decide(now time.Time, p *Stored, newest bool) Verdict {
	const day = 24 * time.Hour
	v := Verdict{ID: p.ID, PackageID: p.PackageID, Version: p.Version}
	age := now.Sub(p.Published)
	switch {
	case policy.Days <= 0:
		v.Reason = "Kept: packages are kept for ever."
	case newest:
		v.Reason = "Kept: it is the newest version of " + p.PackageID + "."
	case age < time.Duration(policy.Days)*day:
		v.Reason = fmt.Sprintf("Kept: it was published %s ago, and packages are kept for %s.", days(int(max(age, 0)/day)), days(policy.Days))
	case p.used() > 0 && !policy.Released:
		v.Reason = fmt.Sprintf("Kept: %s.", p.usedBy())
	case p.used() > 0:
		v.Delete, v.Reason = true, fmt.Sprintf("Deleted: it was published %s ago, and packages are kept for %s even where releases use them; %s.", days(int(age/day)), days(policy.Days), p.usedBy())
	default:
		v.Delete, v.Reason = true, fmt.Sprintf("Deleted: it was published %s ago, packages are kept for %s, and no release uses it.", days(int(age/day)), days(policy.Days))
	}
	return v
}

func days(n int) string {
	if n == 1 {
		return "1 day"
	}
	return fmt.Sprintf("%d days", n)
}

// usedBy names the releases that use a version, or the first of many.
func (p *Stored) usedBy() string {
	switch n := p.used(); {
	case n == 1 && len(p.Releases) == 0:
		return "a release uses it"
	case len(p.Releases) == 0:
		return fmt.Sprintf("%d releases use it", n)
	case n == 1:
		return "the release " + p.Releases[0] + " uses it"
	case n == 2 && len(p.Releases) == 2:
		return "the releases " + p.Releases[0] + " and " + p.Releases[1] + " use it"
	default:
		return fmt.Sprintf("the release %s and %d more use it", p.Releases[0], n-1)
	}
}
