package releases

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/octostache"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/internal/version"
	"github.com/takodeploy/tako/octopus"
)

// maxVersions bounds how many releases of a project the next version is reckoned from.
const maxVersions = 10000

// numbered is a release of a project by its version.
type numbered struct {
	version version.Version
	channel string
}

// numbers are the versions of a project's releases, the highest first.
func numbers(ctx context.Context, tx *db.Tx, project string) ([]numbered, error) {
	rows, err := tx.Query(ctx, `SELECT r.version, r.channel_id FROM release r WHERE r.project_id = ? ORDER BY r.version_key DESC LIMIT ?`, project, maxVersions)
	if err != nil {
		return nil, fmt.Errorf("list versions of %s: %w", project, err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	var out []numbered
	for rows.Next() {
		var text, channel string
		if err := rows.Scan(&text, &channel); err != nil {
			return nil, err
		}
		v, err := version.Parse(version.Octopus, text)
		if err != nil {
			return nil, fmt.Errorf("release %s of %s: %w", text, project, err)
		}
		out = append(out, numbered{v, channel})
	}
	return out, rows.Err()
}

// nextVersion is the version of a new release: the one that was asked for, or
// the one that the project's strategy makes.
func (s *Service) nextVersion(ctx context.Context, tx *db.Tx, d *draft) (string, error) {
	text := d.in.Version
	strategy := &d.project.VersioningStrategy
	switch {
	case text != "":
	case strategy.DonorPackage != nil || strategy.DonorPackageStepID != "":
		return d.donated()
	}
	if text != "" && !version.IsMask(text) {
		return checkedVersion(text)
	}
	channels, err := s.channels(ctx, tx, d.project)
	if err != nil {
		return "", err
	}
	known, err := numbers(ctx, tx, d.project.ID)
	if err != nil {
		return "", err
	}
	if text == "" {
		if text, err = d.expand(tx, channels, known); err != nil {
			return "", err
		}
	}
	if mask, ok := version.ParseMask(text); ok && mask.Substitutes() {
		versions := make([]version.Version, len(known))
		for i := range known {
			versions[i] = known[i].version
		}
		latest, _ := mask.Latest(versions)
		made, err := version.ApplyMask(text, latest)
		if err != nil {
			return "", invalid("Version", "The mask '%.100s' makes no valid version; give the release's version.", text)
		}
		text = made.String()
	}
	return checkedVersion(text)
}

func checkedVersion(text string) (string, error) {
	v, err := version.Parse(version.Octopus, text)
	if err != nil {
		return "", invalid("Version", "Version is '%.100s', which is not a valid version; write for example 1.2.3 or 1.2.3-beta.1.", text)
	}
	if err := checkVersionLength(v.String()); err != nil {
		return "", err
	}
	return v.String(), nil
}

// donated is the version of the package that gives releases theirs.
func (d *draft) donated() (string, error) {
	want := deploy.PackageKey{}
	donor := d.project.VersioningStrategy.DonorPackage
	if donor == nil {
		donor = &octopus.DeploymentActionPackage{DeploymentAction: string(d.project.VersioningStrategy.DonorPackageStepID)}
	}
	for i := range d.refs {
		r := &d.refs[i]
		if (matches(donor.DeploymentAction, r.actionID, "", r.action) || matches(donor.DeploymentAction, r.stepID, "", r.step)) && strings.EqualFold(donor.PackageReference, r.Name) {
			want = r.key
		}
	}
	for _, p := range d.chosen {
		if key(p.ActionName, p.PackageReferenceName) == want && want.Action != "" {
			return checkedVersion(p.Version)
		}
	}
	return "", invalid("Version", "Releases of the project '%s' take their version from the package of step '%s', which this release does not have; give the release's version.", d.project.Name, donor.DeploymentAction)
}

// expand evaluates the project's template for versions.
func (d *draft) expand(tx *db.Tx, channels []octopus.Channel, known []numbered) (string, error) {
	template := cmp.Or(string(d.project.VersioningStrategy.Template), octopus.DefaultVersionTemplate)
	var pairs []octostache.Pair
	add := func(name, value string) bool {
		pairs = append(pairs, octostache.Pair{Name: name, Value: value})
		return true
	}
	highest := func(channel string) version.Version {
		for _, n := range known {
			if channel == "" || n.channel == channel {
				return n.version
			}
		}
		return version.Version{}
	}
	version.TemplateVariables("Octopus.Version", highest(""))(add)
	version.TemplateVariables("Octopus.Version.Channel", highest(d.channel.ID))(add)
	for _, c := range channels {
		if strings.Contains(template, "[") {
			version.TemplateVariables("Octopus.Version.Channel["+c.Name+"]", highest(c.ID))(add)
		}
	}
	version.DateVariables(tx.Now())(add)
	pairs = append(pairs, d.named()...)
	result := d.values.lookup(variables.Context{Channel: d.channel.ID}, tx.Now(), pairs...).Evaluate(template)
	if err := result.Problem(); err != nil {
		return "", invalid("Version", "The project's template for versions, '%.200s', cannot be evaluated (%s); correct it, or give the release's version.", template, err)
	}
	return strings.TrimSpace(result.Text), nil
}

// named are the names that every template of a release may use.
func (d *draft) named() []octostache.Pair {
	return []octostache.Pair{
		{Name: "Octopus.Project.Id", Value: d.project.ID},
		{Name: "Octopus.Project.Name", Value: d.project.Name},
		{Name: "Octopus.Release.Channel.Id", Value: d.channel.ID},
		{Name: "Octopus.Release.Channel.Name", Value: d.channel.Name},
	}
}

// notes are those that were given, or what the project's template makes.
func (d *draft) notes(r *octopus.Release) (octopus.NullString, error) {
	template := string(d.project.ReleaseNotesTemplate)
	if d.in.Notes != "" || template == "" {
		return octopus.NullString(d.in.Notes), nil
	}
	pairs := append(d.named(), octostache.Pair{Name: "Octopus.Release.Number", Value: r.Version})
	for _, p := range r.SelectedPackages {
		prefix := "Octopus.Release.Package[" + p.ActionName + "]"
		if p.PackageReferenceName != "" {
			prefix += "[" + p.PackageReferenceName + "]"
		}
		pairs = append(pairs, octostache.Pair{Name: prefix + ".Version", Value: p.Version}, octostache.Pair{Name: prefix + ".PackageVersion", Value: p.Version})
		for i := range d.refs {
			if d.refs[i].key == key(p.ActionName, p.PackageReferenceName) {
				pairs = append(pairs, octostache.Pair{Name: prefix + ".PackageId", Value: d.refs[i].PackageID})
			}
		}
	}
	result := d.values.lookup(variables.Context{Channel: d.channel.ID}, r.Assembled.Time, pairs...).Evaluate(template)
	if result.Err != nil {
		return "", invalid("ReleaseNotes", "The project's template for release notes cannot be evaluated (%s); correct it, or give the release's notes.", result.Err)
	}
	if len(result.Text) > maxNotes {
		return "", invalid("ReleaseNotes", "The project's template for release notes makes %d bytes; the limit is %d.", len(result.Text), maxNotes)
	}
	return octopus.NullString(result.Text), nil
}
