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
	// Releases name the releases that use it, of all projects of its space.
	Releases []string
}

// Verdict is what becomes of a version, and why.
type Verdict struct {
	ID     string
	Delete bool
	// Reason is a sentence for people.
	Reason string
}

// Retain decides about every version, in their order. The newest version of each
// package, which is the first of it, is kept whatever its age: the next release is
// made of it, and a difference is sent against it. So are versions that were
// published after now, by a clock that was wrong.
func Retain(policy RetentionPolicy, now time.Time, newestFirst []Stored) []Verdict {
	const day = 24 * time.Hour
	out := make([]Verdict, len(newestFirst))
	seen := map[string]bool{}
	for i, p := range newestFirst {
		v := Verdict{ID: p.ID}
		name := ident.Fold(p.PackageID)
		newest := !seen[name]
		seen[name] = true
		age := now.Sub(p.Published)
		switch {
		case policy.Days <= 0:
			v.Reason = "Kept: packages are kept for ever."
		case newest:
			v.Reason = "Kept: it is the newest version of " + p.PackageID + "."
		case age < time.Duration(policy.Days)*day:
			v.Reason = fmt.Sprintf("Kept: it was published %s ago, and packages are kept for %s.", days(int(max(age, 0)/day)), days(policy.Days))
		case len(p.Releases) > 0 && !policy.Released:
			v.Reason = fmt.Sprintf("Kept: %s.", used(p.Releases))
		case len(p.Releases) > 0:
			v.Delete, v.Reason = true, fmt.Sprintf("Deleted: it was published %s ago, and packages are kept for %s even where releases use them; %s.", days(int(age/day)), days(policy.Days), used(p.Releases))
		default:
			v.Delete, v.Reason = true, fmt.Sprintf("Deleted: it was published %s ago, packages are kept for %s, and no release uses it.", days(int(age/day)), days(policy.Days))
		}
		out[i] = v
	}
	return out
}

func days(n int) string {
	if n == 1 {
		return "1 day"
	}
	return fmt.Sprintf("%d days", n)
}

// used names the releases that use a version, or the first of many.
func used(releases []string) string {
	switch n := len(releases); n {
	case 1:
		return "the release " + releases[0] + " uses it"
	case 2:
		return "the releases " + releases[0] + " and " + releases[1] + " use it"
	default:
		return fmt.Sprintf("the release %s and %d more use it", releases[0], n-1)
	}
}
