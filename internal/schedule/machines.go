package schedule

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/events"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/octopus"
)

// renewal is a deployment that a trigger makes for targets.
type renewal struct {
	releases.Renewal
	trigger *octopus.Trigger
	project octopus.Project
}

// part names it among the parts of its row.
func (n *renewal) part() string {
	return strings.Join([]string{n.trigger.ID, n.ReleaseID, n.EnvironmentID, n.TenantID}, "/")
}

// machines deploys to the targets that came or changed, as triggers say: those of one
// place together.
func (s *Scheduler) machines(ctx context.Context, r *row) error {
	var changes []resources.MachineChange
	if err := json.Unmarshal([]byte(r.argument), &changes); err != nil {
		return fmt.Errorf("read what targets did: %w", err)
	}
	p, err := r.read()
	if err != nil {
		return err
	}
	var all []renewal
	err = s.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
		all, err = s.renewals(ctx, tx, r, changes)
		return err
	})
	if err != nil {
		return err
	}
	for i := range all {
		if slices.Contains(p.Done, all[i].part()) {
			continue
		}
		if err := s.renew(ctx, r, &p, &all[i]); err != nil {
			return err
		}
	}
	return s.finish(ctx, r, func(context.Context, *db.Tx) error { return nil })
}

// renewals are what the triggers of a space make of changes.
func (s *Scheduler) renewals(ctx context.Context, tx *db.Tx, r *row, changes []resources.MachineChange) ([]renewal, error) {
	var ids []string
	for _, c := range changes {
		if !slices.Contains(ids, c.MachineID) {
			ids = append(ids, c.MachineID)
		}
	}
	machines, err := docstore.All[octopus.Machine](ctx, s.cfg.Store, tx, "machines", docstore.Query{Space: r.space, IDs: ids})
	if err != nil {
		return nil, err
	}
	triggers, err := docstore.All[octopus.Trigger](ctx, s.cfg.Store, tx, resources.TriggerKind, docstore.Query{Space: r.space, Where: []docstore.Match{{Path: "Filter.FilterType", Any: []string{string(octopus.FilterMachine)}}}})
	if err != nil {
		return nil, err
	}
	var out []renewal
	for i := range triggers {
		t := &triggers[i]
		if t.IsDisabled || t.Action.ActionType != octopus.TriggerAutoDeploy {
			continue
		}
		var project octopus.Project
		if err := s.cfg.Store.Load(ctx, tx, "projects", t.ProjectID, &project); err != nil {
			return nil, err
		}
		if project.IsDisabled {
			continue
		}
		again := t.Action.ShouldRedeployWhenMachineHasBeenDeployedTo != nil && *t.Action.ShouldRedeployWhenMachineHasBeenDeployedTo
		found, err := s.cfg.Releases.Renewals(ctx, tx, &project, chosen(&t.Filter, machines, changes), again)
		if err != nil {
			return nil, err
		}
		for _, one := range found {
			out = append(out, renewal{one, t, project})
		}
	}
	return out, nil
}

// chosen are the targets that a filter lets through, in the environments that it names.
func chosen(f *octopus.TriggerFilter, machines []octopus.Machine, changes []resources.MachineChange) []octopus.Machine {
	fold := func(list []string, id string) bool {
		return len(list) == 0 || slices.ContainsFunc(list, func(one string) bool { return strings.EqualFold(one, id) })
	}
	categories := events.CategoriesOf(f.EventCategories, f.EventGroups)
	every := len(f.EventCategories)+len(f.EventGroups) == 0
	var out []octopus.Machine
	for _, m := range machines {
		happened := slices.ContainsFunc(changes, func(c resources.MachineChange) bool {
			return c.MachineID == m.ID && (every || slices.Contains(categories, string(c.Category)))
		})
		if m.IsDisabled || !happened || !slices.ContainsFunc(m.Roles, func(role string) bool { return fold(f.Roles, role) }) {
			continue
		}
		m.EnvironmentIDs = slices.DeleteFunc(slices.Clone(m.EnvironmentIDs), func(id string) bool { return !fold(f.EnvironmentIDs, id) })
		if len(m.EnvironmentIDs) > 0 {
			out = append(out, m)
		}
	}
	return out
}

// renew makes one deployment. What the rules refuse is told of in the audit trail.
func (s *Scheduler) renew(ctx context.Context, r *row, p *progress, n *renewal) error {
	after := *p
	after.Done = append(slices.Clone(p.Done), n.part())
	body, err := json.Marshal(after)
	if err != nil {
		return err
	}
	text := string(body)
	in := releases.NewDeployments{
		Space: r.space, ReleaseID: n.ReleaseID, Environments: []string{n.EnvironmentID},
		// A target that comes in a freeze is to have what the others have.
		Options: releases.Options{Comments: "Deployed by the trigger '" + n.trigger.Name + "'.", Machines: n.Machines, SkipActions: n.SkippedActions, IgnoreFreezes: true},
		Also: func(ctx context.Context, tx *db.Tx, _ []octopus.Deployment) error {
			event(tx, octopus.EventTriggerFired, &n.project, n.trigger.ID, n.trigger.Name, "has run", []string{fmt.Sprintf("Deployed release %s to %d targets", n.Version, len(n.Machines))})
			return r.mark(ctx, tx, text)
		},
	}
	if n.TenantID != "" {
		in.Tenants = []string{n.TenantID}
	}
	if _, err = s.cfg.Releases.Deploy(ctx, in, nil); err != nil {
		err = s.refused(ctx, r, text, err, func(tx *db.Tx, messages []string) {
			event(tx, octopus.EventTriggerFailed, &n.project, n.trigger.ID, n.trigger.Name, "could not run", messages)
		})
		if err != nil {
			return err
		}
	}
	*p, r.progress = after, text
	return nil
}
