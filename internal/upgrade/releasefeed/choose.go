package releasefeed

import (
	"fmt"
	"slices"

	"github.com/takodeploy/tako/internal/version"
)

// Installed is what runs now.
type Installed struct {
	// Version is "" where nothing is installed yet: then there is no way to go.
	Version string
	// Platform is where it runs: "linux/amd64".
	Platform string
	// Bad are versions that were tried here and failed. They are not offered again,
	// but a person can ask for them.
	Bad []string
}

// Choice is what to upgrade to.
type Choice struct {
	Release  Release
	Artifact Artifact
	// Stop tells that Release is not the wanted one but one that must be visited on
	// the way to it; Wanted is the version that was wanted.
	Stop   bool
	Wanted string
	// Passed are the versions in between, newest first: their notes belong to this
	// upgrade too.
	Passed []string
	// Rollback says what going back from Release costs: RollbackRestore also where that
	// is so of a version that is passed, since Release has in it what that has brought.
	Rollback Rollback
}

// NoChoice says why there is nothing to upgrade to.
type NoChoice struct {
	// Newest tells that there is simply nothing newer.
	Newest  bool
	message string
}

// Error is a sentence for people.
func (e *NoChoice) Error() string { return e.message }

func none(format string, args ...any) error { return &NoChoice{message: fmt.Sprintf(format, args...)} }

// Choose finds what to upgrade to: the version that is wanted, or with "" the newest
// that is good. Before-releases are taken only when they are named, or when one of them
// runs. An error is a *NoChoice.
func (v *Verified) Choose(in Installed, wanted string) (*Choice, error) {
	current := parse(in.Version)
	fresh := in.Version == ""
	if current.IsZero() && !fresh {
		return nil, none("The version that runs (%.40q) is no release's; say with --to which one to install.", in.Version)
	}
	if v.Expired && wanted == "" {
		return nil, none("The feed has expired (on %s): a newer one may have been kept from this server. Name the version that you want with --to.", v.Expires.Format("2006-01-02"))
	}
	target, err := v.target(in, current, wanted)
	if err != nil {
		return nil, err
	}
	c := &Choice{Release: *target, Wanted: target.Version}
	var path []Release
	if !fresh {
		path = v.between(current, target.Parsed())
	}
	for _, r := range slices.Backward(path) { // oldest first
		if r.RequiredStop && r.Revoked == "" {
			c.Release, c.Stop = r, true
			break
		}
	}
	c.Rollback = c.Release.Rollback
	for _, r := range path {
		if version.Compare(r.Parsed(), c.Release.Parsed()) < 0 {
			c.Passed = append(c.Passed, r.Version)
			if r.Rollback == RollbackRestore {
				c.Rollback = RollbackRestore
			}
		}
	}
	if !fresh && version.Compare(current, parse(c.Release.UpgradeFromMin)) < 0 {
		return nil, none("Version %s can be upgraded to from version %s on, and %s runs here. Upgrade to a version in between first.", c.Release.Version, c.Release.UpgradeFromMin, in.Version)
	}
	a, ok := c.Release.Artifacts[in.Platform]
	if !ok {
		return nil, none("Version %s is not there for %s.", c.Release.Version, in.Platform)
	}
	c.Artifact = a
	return c, nil
}

func (v *Verified) target(in Installed, current version.Version, wanted string) (*Release, error) {
	if wanted != "" {
		i := slices.IndexFunc(v.Releases, func(r Release) bool { return r.Version == wanted })
		switch {
		case i < 0:
			return nil, none("The channel %s has no version %.40q.", v.Channel, wanted)
		case v.Releases[i].Revoked != "":
			return nil, none("Version %s was revoked: %s", wanted, v.Releases[i].Revoked)
		case in.Version == "":
		case version.Compare(v.Releases[i].Parsed(), current) == 0:
			return nil, &NoChoice{Newest: true, message: fmt.Sprintf("Version %s runs already.", wanted)}
		case version.Compare(v.Releases[i].Parsed(), current) < 0:
			return nil, none("Version %s is older than %s, which runs here. To go back, use `tako upgrade rollback`, or restore a backup.", wanted, in.Version)
		}
		return &v.Releases[i], nil
	}
	var best *Release
	for i := range v.Releases {
		r := &v.Releases[i]
		p := r.Parsed()
		_, here := r.Artifacts[in.Platform]
		old := in.Version != "" && version.Compare(p, current) <= 0
		unfit := r.Revoked != "" || slices.Contains(in.Bad, r.Version) || p.IsPrerelease() && !current.IsPrerelease() || !here
		if unfit || old || best != nil && version.Compare(p, best.Parsed()) <= 0 {
			continue
		}
		best = r
	}
	if best == nil && in.Version == "" {
		return nil, none("The channel %s has no version for %s.", v.Channel, in.Platform)
	}
	if best == nil {
		return nil, &NoChoice{Newest: true, message: fmt.Sprintf("There is nothing newer than version %s in the channel %s.", in.Version, v.Channel)}
	}
	return best, nil
}

// between are the releases after one version and before another, newest first.
func (v *Verified) between(from, to version.Version) []Release {
	var path []Release
	for _, r := range v.Releases {
		if p := r.Parsed(); version.Compare(p, from) > 0 && version.Compare(p, to) < 0 {
			path = append(path, r)
		}
	}
	slices.SortFunc(path, func(a, b Release) int { return version.Compare(b.Parsed(), a.Parsed()) })
	return path
}
