package releases

import (
	"context"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// wanted is a package that a release needs.
type wanted struct{ feed, id, version, action string }

// packagesOf lists the packages, each once, that a release fetches: those that
// nobody skips and whose names are no expressions.
func packagesOf(steps []octopus.Step, r *octopus.Release, skip []string) []wanted {
	versions := selected(r)
	var out []wanted
	for _, step := range steps {
		for _, a := range step.Actions {
			skipped := slices.ContainsFunc(skip, func(ref string) bool { return matches(ref, a.ID, "", a.Name) || matches(ref, step.ID, "", step.Name) })
			if a.IsDisabled || skipped || len(a.Channels) > 0 && !slices.Contains(a.Channels, r.ChannelID) {
				continue
			}
			for _, p := range a.Packages {
				w := wanted{p.FeedID, p.PackageID, versions[key(a.Name, p.Name)], a.Name}
				if p.Version != "" {
					w.version = string(p.Version)
				}
				known := slices.ContainsFunc(out, func(o wanted) bool { return o.feed == w.feed && o.id == w.id && o.version == w.version })
				if p.AcquisitionLocation == octopus.AcquireNever && !strings.EqualFold(p.FeedID, ReleasesFeed) || bound(p.PackageID) || bound(p.FeedID) || known {
					continue
				}
				out = append(out, w)
			}
		}
	}
	return out
}

// missing are those of the packages that their feeds do not have. A feed that
// cannot be asked is no reason to say that a package is missing.
func (s *Service) missing(ctx context.Context, space ident.SpaceID, packages []wanted) ([]wanted, error) {
	var out []wanted
	for _, w := range packages {
		there := false
		if w.version != "" {
			var err error
			there, err = s.exists(ctx, space, w.feed, w.id, w.version)
			switch {
			case fault.Is(err, fault.Unsupported), fault.Is(err, fault.Unavailable):
				there = true // it fails, or not, when it is fetched
			case err != nil:
				return nil, err
			}
		}
		if !there {
			out = append(out, w)
		}
	}
	return out, nil
}

// allThere refuses a deployment whose packages are not all there, with a list.
func (s *Service) allThere(ctx context.Context, space ident.SpaceID, packages []wanted) error {
	gone, err := s.missing(ctx, space, packages)
	if err != nil || len(gone) == 0 {
		return err
	}
	const most = 10
	var names []string
	for _, w := range gone[:min(len(gone), most)] {
		if w.version == "" {
			names = append(names, w.id+" (no version is selected for step '"+w.action+"')")
		} else {
			names = append(names, w.id+" "+w.version)
		}
	}
	if len(gone) > most {
		names = append(names, "others")
	}
	return fault.New(fault.Invalid, "The release cannot be deployed because packages are missing from their feeds: %s. Push them, or make a release with other versions.", strings.Join(names, ", "))
}
