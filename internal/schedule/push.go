package schedule

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/octopus"
)

// push is a package that came.
type push struct {
	PackageID, Version string
}

// Pushed notes that a new version of a package is in the built-in repository, in
// the transaction that puts it there; the releases that it makes follow.
func Pushed(ctx context.Context, tx *db.Tx, space ident.SpaceID, packageID, version string) error {
	argument, err := json.Marshal(push{packageID, version})
	if err != nil {
		return err
	}
	seq, err := tx.NextSeq(ctx, "Pushes")
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO due (id, kind, space_id, argument, at, pending, lease, attempts, fired, progress, tasks) VALUES (?, ?, ?, ?, ?, 0, 0, 0, 0, '', '')`,
		ident.ID("Pushes", seq), kindPush, string(space), string(argument), db.Micros(tx.Now()))
	if err != nil {
		return fmt.Errorf("note the push of %s: %w", packageID, err)
	}
	return nil
}

// wanted is a release that a package makes.
type wanted struct {
	part      string // the trigger's id, or the project's
	name      string // of the trigger
	project   octopus.Project
	channel   string
	action    string
	reference string
}

// pushed makes the releases that wait for a package.
func (s *Scheduler) pushed(ctx context.Context, r *row) error {
	var came push
	if err := json.Unmarshal([]byte(r.argument), &came); err != nil {
		return fmt.Errorf("read a push: %w", err)
	}
	p, err := r.read()
	if err != nil {
		return err
	}
	var all []wanted
	err = s.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
		all, err = s.waiting(ctx, tx, r.space, came)
		return err
	})
	if err != nil {
		return err
	}
	for i := range all {
		if slices.Contains(p.Done, all[i].part) {
			continue
		}
		if err := s.release(ctx, r, &p, &all[i], came); err != nil {
			return err
		}
	}
	return s.finish(ctx, r, func(context.Context, *db.Tx) error { return nil })
}

// release makes one release. What the rules refuse (a channel that does not take
// the version, another package that is not there) is told of in the audit trail.
func (s *Scheduler) release(ctx context.Context, r *row, p *progress, w *wanted, came push) error {
	after := *p
	after.Done = append(slices.Clone(p.Done), w.part)
	text, err := json.Marshal(after)
	if err != nil {
		return err
	}
	in := releases.NewRelease{
		Space: r.space, Project: w.project.ID, Channel: w.channel,
		Selected: []octopus.SelectedPackage{{ActionName: w.action, PackageReferenceName: w.reference, Version: came.Version}},
		Notes:    fmt.Sprintf("Made because %s %s was pushed.", came.PackageID, came.Version), IgnoreIfExists: true,
		Also: func(ctx context.Context, tx *db.Tx, made *releases.CreatedRelease) error {
			event(tx, octopus.EventTriggerFired, &w.project, w.part, w.name, "has run", []string{"Made release " + made.Release.Version + " of " + came.PackageID + " " + came.Version})
			return r.mark(ctx, tx, string(text))
		},
	}
	made, err := s.cfg.Releases.CreateRelease(ctx, in, nil)
	switch {
	case err != nil:
		err = s.refused(ctx, r, string(text), err, func(tx *db.Tx, messages []string) {
			event(tx, octopus.EventTriggerFailed, &w.project, w.part, w.name, "made no release", messages)
		})
	case made.Existed: // so that nothing was noted beside it
		err = s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error { return r.mark(ctx, tx, string(text)) })
	}
	if err != nil {
		return err
	}
	*p, r.progress = after, string(text)
	return nil
}

// waiting are the releases that a package makes: of triggers with a filter for
// it, and of projects with the older setting for it.
func (s *Scheduler) waiting(ctx context.Context, tx *db.Tx, space ident.SpaceID, came push) ([]wanted, error) {
	var out []wanted
	add := func(w wanted) error {
		id, feed, action, err := s.cfg.Releases.Takes(ctx, tx, &w.project, w.action, w.reference)
		if err != nil || !strings.EqualFold(id, came.PackageID) || !builtin(space, feed) || w.project.IsDisabled {
			return err
		}
		w.action = action
		out = append(out, w)
		return nil
	}
	k, err := s.cfg.Store.Kind(resources.TriggerKind)
	if err != nil {
		return nil, err
	}
	found, err := docstore.All[octopus.Trigger](ctx, s.cfg.Store, tx, k.Name, docstore.Query{Space: space, Where: []docstore.Match{{Path: "Filter.FilterType", Any: []string{string(octopus.FilterArcFeed), string(octopus.FilterFeed)}}}})
	if err != nil {
		return nil, err
	}
	for _, t := range found {
		if t.IsDisabled || t.Action.ActionType != octopus.TriggerCreateRelease {
			continue
		}
		var project octopus.Project
		if err := s.cfg.Store.Load(ctx, tx, "projects", t.ProjectID, &project); err != nil {
			return nil, err
		}
		for _, p := range t.Filter.Packages {
			action := p.DeploymentActionSlug
			if action == "" {
				action = p.DeploymentAction
			}
			before := len(out)
			if err := add(wanted{part: t.ID, name: t.Name, project: project, channel: t.Action.ChannelID, action: action, reference: p.PackageReference}); err != nil {
				return nil, err
			}
			if len(out) > before {
				break // one release for one package
			}
		}
	}
	projects, err := docstore.All[octopus.Project](ctx, s.cfg.Store, tx, "projects", docstore.Query{Space: space, Where: []docstore.Match{{Path: "AutoCreateRelease", Any: []string{"true"}}}})
	if err != nil {
		return nil, err
	}
	for _, p := range projects {
		strategy := p.ReleaseCreationStrategy
		if strategy.ReleaseCreationPackage == nil {
			continue
		}
		err := add(wanted{
			part: p.ID, name: "for new packages", project: p, channel: string(strategy.ChannelID),
			action: strategy.ReleaseCreationPackage.DeploymentAction, reference: strategy.ReleaseCreationPackage.PackageReference,
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

func builtin(space ident.SpaceID, feed string) bool {
	return feed == "" || strings.EqualFold(feed, "feeds-builtin") || strings.EqualFold(feed, resources.BuiltinFeed(space))
}
