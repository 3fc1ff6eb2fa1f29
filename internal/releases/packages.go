package releases

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/version"
	"github.com/takodeploy/tako/octopus"
)

// Package is a package that can be fetched.
type Package struct {
	FileName string
	// SHA256 is the content's hash, in hexadecimal.
	SHA256 string
	Size   int64 // bytes
}

// Packages finds packages in feeds. It may ask other servers: it is never called
// inside of a transaction.
type Packages interface {
	// Has looks a version of a package up, without fetching it; it MUST answer
	// fault.NotFound when the feed does not have it.
	Has(ctx context.Context, space ident.SpaceID, feedID, packageID, version string) error
	// Find returns a version of a package, and has it fetched from where it is; it
	// MUST answer fault.NotFound when the feed does not have it.
	Find(ctx context.Context, space ident.SpaceID, feedID, packageID, version string) (Package, error)
	// Versions calls fn for the versions of a package, the newest first by the
	// order of its feed, until fn returns false. A package that nobody has
	// pushed has none.
	Versions(ctx context.Context, space ident.SpaceID, feedID, packageID string, fn func(version string) bool) error
}

// ReleasesFeed is the feed whose packages are the releases of projects: what a
// step that deploys another project's release takes its version from. The id of
// the package is the project's.
const ReleasesFeed = "feeds-octopus-server-releases"

// completeSteps gives the actions of a process what their templates have, and their
// primary packages.
func (s *Service) completeSteps(ctx context.Context, tx *db.Tx, space ident.SpaceID, steps []octopus.Step) error {
	err := s.templates(space).complete(ctx, tx, steps)
	completePackages(steps)
	return err
}

// completePackages adds the primary package of actions that name it in their
// properties alone, as older clients and some step types do.
func completePackages(steps []octopus.Step) {
	for i := range steps {
		for j := range steps[i].Actions {
			a := &steps[i].Actions[j]
			if slices.ContainsFunc(a.Packages, func(r octopus.PackageReference) bool { return r.Name == "" }) {
				continue
			}
			ref := octopus.PackageReference{
				PackageID: a.Properties.Get(octopus.PropPackagePackageID), FeedID: a.Properties.Get(octopus.PropPackageFeedID),
				AcquisitionLocation: octopus.AcquireOnServer,
			}
			if strings.EqualFold(a.Properties.Get(octopus.PropPackageDownload), "true") {
				ref.AcquisitionLocation = octopus.AcquireOnTarget
			}
			if a.ActionType == octopus.ActionDeployRelease {
				ref = octopus.PackageReference{PackageID: a.Properties.Get(octopus.PropDeployReleaseTarget), FeedID: ReleasesFeed, AcquisitionLocation: octopus.AcquireNever}
			}
			if ref.PackageID != "" {
				a.Packages = append(octopus.List[octopus.PackageReference]{ref}, a.Packages...)
			}
		}
	}
}

// reference is a package that a process needs and a release selects a version of.
type reference struct {
	key              deploy.PackageKey // folded
	stepID, actionID string
	step, action     string
	octopus.PackageReference
	feed *octopus.Feed // nil when there is none of that id, or it is an expression
	rule *version.Rule // what the channel allows, nil for everything
}

// bound reports whether a text is an expression over variables.
func bound(text string) bool { return strings.Contains(text, "#{") }

// resolvable reports whether the server can look the package up.
func (r *reference) resolvable() bool { return !bound(r.PackageID) && !bound(r.FeedID) }

func (r *reference) scheme() version.Scheme {
	switch {
	case strings.EqualFold(r.FeedID, ReleasesFeed):
		return version.Octopus
	case r.feed == nil:
		return version.SchemeOfFeed("")
	}
	return version.SchemeOfFeed(string(r.feed.FeedType))
}

func key(action, name string) deploy.PackageKey {
	return deploy.PackageKey{Action: ident.Fold(action), Reference: ident.Fold(name)}
}

// name is how messages speak of a reference.
func (r *reference) name() string {
	if r.Name == "" {
		return fmt.Sprintf("the package '%s' of step '%s'", r.PackageID, r.action)
	}
	return fmt.Sprintf("the package '%s' (%s) of step '%s'", r.PackageID, r.Name, r.action)
}

// references lists the packages that releases of a channel select, in the order
// of the process.
func (s *Service) references(ctx context.Context, tx *db.Tx, space ident.SpaceID, steps []octopus.Step, channel *octopus.Channel) ([]reference, error) {
	feeds := map[string]*octopus.Feed{}
	var out []reference
	for _, step := range steps {
		for _, a := range step.Actions {
			if a.IsDisabled || len(a.Channels) > 0 && !slices.Contains(a.Channels, channel.ID) {
				continue
			}
			for _, p := range a.Packages {
				if p.Version != "" {
					continue // fixed by the process
				}
				r := reference{
					key: key(a.Name, p.Name), step: step.Name, action: a.Name, stepID: step.ID, actionID: a.ID,
					PackageReference: p,
				}
				f, known := feeds[p.FeedID]
				if !known && p.FeedID != "" && r.resolvable() && !strings.EqualFold(p.FeedID, ReleasesFeed) {
					var err error
					if f, err = get[octopus.Feed](ctx, s, tx, space, "feeds", p.FeedID); err != nil && !fault.Is(err, fault.NotFound) {
						return nil, err
					}
					feeds[p.FeedID] = f
				}
				r.feed = f
				if f != nil {
					r.FeedID = f.ID
				}
				out = append(out, r)
			}
		}
	}
	return out, addRules(out, channel)
}

// addRules gives references the rules that the channel has for them.
func addRules(refs []reference, channel *octopus.Channel) error {
	for i := range refs {
		r := &refs[i]
		for _, rule := range channel.Rules {
			applies := slices.ContainsFunc(rule.ActionPackages, func(p octopus.DeploymentActionPackage) bool {
				return key(p.DeploymentAction, p.PackageReference) == r.key || strings.EqualFold(p.DeploymentAction, r.actionID) && ident.Fold(p.PackageReference) == r.key.Reference
			}) || len(rule.ActionPackages) == 0 && r.Name == "" && slices.ContainsFunc(rule.Actions, func(name string) bool {
				return ident.Fold(name) == r.key.Action || strings.EqualFold(name, r.actionID)
			})
			if !applies {
				continue
			}
			compiled, err := version.NewRule(r.scheme(), string(rule.VersionRange), string(rule.Tag), string(rule.VersionTagRegex))
			if err != nil {
				return fmt.Errorf("rule of channel %s: %w", channel.Name, err)
			}
			r.rule = &compiled
		}
	}
	return nil
}

// wish is a version that somebody asks for, for some packages.
type wish struct {
	name      string // of a package, a step or an action; "*" is any
	reference string // of a reference; only if named is set
	named     bool
	version   string
	text      string // as it was written
	used      bool
}

// parseWish reads "package:version", "step:version", "reference:package:version"
// or "*:version". A backslash takes the meaning from the character after it.
func parseWish(text string) (wish, error) {
	var parts []string
	var part strings.Builder
	escaped := false
	for _, c := range text {
		switch {
		case escaped:
			part.WriteRune(c)
			escaped = false
		case c == '\\':
			escaped = true
		case c == ':':
			parts = append(parts, part.String())
			part.Reset()
		default:
			part.WriteRune(c)
		}
	}
	parts = append(parts, part.String())
	for i := range parts {
		parts[i] = strings.TrimSpace(parts[i])
	}
	n := len(parts)
	w := wish{version: parts[n-1], text: text}
	switch {
	case n < 2 || w.version == "" || parts[n-2] == "":
		return w, invalid("Packages", "Packages has '%.200s'; write package:version, step:version or reference:step:version.", text)
	case n == 2:
		w.name = parts[0]
	default:
		w.reference, w.name, w.named = parts[0], strings.Join(parts[1:n-1], ":"), true
	}
	return w, nil
}

// weight is how exactly a wish means a reference; 0 is not at all. Of several
// that fit the heaviest holds, then the last.
func (w *wish) weight(r *reference) int {
	is := func(name string) bool {
		return strings.EqualFold(name, r.action) || strings.EqualFold(name, r.step) || strings.EqualFold(name, r.PackageID)
	}
	switch {
	case w.named && strings.EqualFold(w.reference, r.Name) && (is(w.name) || w.name == "*"):
		return 4
	case w.named && is(w.reference) && strings.EqualFold(w.name, r.Name):
		return 4 // the other way round, as older tools write it
	case w.named && strings.EqualFold(w.reference+":"+w.name, r.PackageID):
		return 3 // a Maven artifact's id has a colon
	case w.named:
		return 0
	case is(w.name):
		return 2
	case w.name == "*":
		return 1
	}
	return 0
}

// selection is what a new release wants of its packages.
type selection struct {
	wishes   []wish
	selected []octopus.SelectedPackage
	// everything is the version of what the others do not name.
	everything string
	// prerelease restricts the pre-release of the versions that are looked up.
	prerelease string
	// last are the versions of the last release, for packages without any.
	last map[deploy.PackageKey]string
	// unchecked lets versions break the channel's rules.
	unchecked, mayBreak bool
}

// explicit is the version that somebody has asked for, "" if nobody has.
func (sel *selection) explicit(r *reference) string {
	for i := range sel.selected {
		p := &sel.selected[i]
		if key(cmp.Or(p.ActionName, p.StepName), p.PackageReferenceName) == r.key || key(p.StepName, p.PackageReferenceName) == r.key {
			return strings.TrimSpace(p.Version)
		}
	}
	best, chosen := 0, ""
	for i := range sel.wishes {
		w := &sel.wishes[i]
		weight := w.weight(r)
		w.used = w.used || weight > 0
		if weight > 0 && weight >= best {
			best, chosen = weight, w.version
		}
	}
	return cmp.Or(chosen, sel.everything)
}

// choose selects a version of each package. It asks feeds.
func (s *Service) choose(ctx context.Context, space ident.SpaceID, refs []reference, channel *octopus.Channel, sel *selection) ([]octopus.SelectedPackage, error) {
	var out []octopus.SelectedPackage
	var faults []error
	for i := range refs {
		r := &refs[i]
		text := sel.explicit(r)
		if text == "" {
			var err error
			if text, err = s.latest(ctx, space, r, sel); err != nil {
				faults = append(faults, err)
				continue
			}
		}
		if err := sel.accepts(r, channel, text); err != nil {
			faults = append(faults, err)
			continue
		}
		out = append(out, octopus.SelectedPackage{ActionName: r.action, StepName: r.action, PackageReferenceName: r.Name, Version: text})
	}
	for i := range sel.wishes {
		if w := &sel.wishes[i]; !w.used {
			faults = append(faults, invalid("Packages", "Packages has '%.200s', which fits no package of the process; name a package or a step.", w.text))
		}
	}
	return out, joined(faults)
}

func (sel *selection) accepts(r *reference, channel *octopus.Channel, text string) error {
	v, err := version.Parse(r.scheme(), text)
	if err != nil {
		return invalid("SelectedPackages", "The version '%.100s' for %s is not a valid version.", text, r.name())
	}
	if r.rule == nil || sel.unchecked && sel.mayBreak {
		return nil
	}
	ok, err := r.rule.Accepts(v)
	switch {
	case err != nil:
		return err
	case ok:
		return nil
	case sel.unchecked:
		return invalid("IgnoreChannelRules", "The version %s for %s breaks the rules of the channel '%s', and the project does not allow to ignore them; choose another version or channel.", text, r.name(), channel.Name)
	}
	return invalid("SelectedPackages", "The version %s for %s breaks the rules of the channel '%s'; choose another version or channel, or ignore the channel's rules.", text, r.name(), channel.Name)
}

// latest looks for the newest version that a reference may have.
func (s *Service) latest(ctx context.Context, space ident.SpaceID, r *reference, sel *selection) (string, error) {
	if !r.resolvable() {
		if last := sel.last[r.key]; last != "" {
			return last, nil
		}
		return "", invalid("SelectedPackages", "The version of %s must be given, because its package or feed is an expression.", r.name())
	}
	accept := r.rule
	if sel.unchecked && sel.mayBreak {
		accept = nil
	}
	var tag *version.Rule
	if sel.prerelease != "" {
		rule, err := version.NewRule(r.scheme(), "", sel.prerelease, "")
		if err != nil {
			return "", err
		}
		tag = &rule
	}
	found, seen := "", false
	err := s.versions(ctx, space, r, func(text string) bool {
		seen = true
		v, err := version.Parse(r.scheme(), text)
		if err != nil {
			return true
		}
		for _, rule := range []*version.Rule{accept, tag} {
			if rule == nil {
				continue
			}
			if ok, err := rule.Accepts(v); err != nil || !ok {
				return true
			}
		}
		found = text
		return false
	})
	switch {
	case found != "":
		return found, nil
	case fault.Is(err, fault.Unavailable):
		return "", err // what it has now is not known: whoever wants the last version gives it
	case !seen && sel.last[r.key] != "":
		return sel.last[r.key], nil // the feed was cleaned, or cannot be asked at all: as before
	case err != nil:
		return "", err
	case seen:
		return "", invalid("SelectedPackages", "No version of %s is allowed by the rules of the channel; push one, or give the version.", r.name())
	}
	return "", invalid("SelectedPackages", "There is no version of %s in its feed; push one, or give the version.", r.name())
}

func (s *Service) versions(ctx context.Context, space ident.SpaceID, r *reference, fn func(string) bool) error {
	if strings.EqualFold(r.FeedID, ReleasesFeed) {
		return s.releaseVersions(ctx, space, r.PackageID, fn)
	}
	return s.cfg.Packages.Versions(ctx, space, r.FeedID, r.PackageID, fn)
}

// releaseVersions are the versions of a project's releases, the last made first.
func (s *Service) releaseVersions(ctx context.Context, space ident.SpaceID, project string, fn func(string) bool) error {
	return s.db.Read(ctx, func(tx *db.Tx) error {
		rows, err := tx.Query(ctx, `SELECT r.version FROM release r WHERE r.project_id = ? AND r.space_id = ? ORDER BY r.created DESC, r.seq DESC`, project, string(space))
		if err != nil {
			return fmt.Errorf("list releases of %s: %w", project, err)
		}
		defer func() { _ = rows.Close() }() // Err tells
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				return err
			}
			if !fn(text) {
				return nil
			}
		}
		return rows.Err()
	})
}

// exists looks a package up. Missing is an answer, not an error.
func (s *Service) exists(ctx context.Context, space ident.SpaceID, feedID, packageID, text string) (bool, error) {
	var err error
	if strings.EqualFold(feedID, ReleasesFeed) {
		err = s.db.Read(ctx, func(tx *db.Tx) error {
			_, err := s.ReleaseByVersion(ctx, tx, packageID, text)
			return err
		})
	} else {
		err = s.cfg.Packages.Has(ctx, space, feedID, packageID, text)
	}
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return err == nil, err
}
