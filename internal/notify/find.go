package notify

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/events"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// batch is a window of the trail, and what of it a subscription sends.
type batch struct {
	// end is the last event of the window, the one before it when it is empty.
	end int64
	// more tells that the window was full.
	more  bool
	found []found
}

// found is an event that is to be sent, and its number.
type found struct {
	at    int64
	event octopus.Event
}

// find looks through the next events of the trail for those that a subscription sends
// and that all of the viewers may see.
func (s *Service) find(ctx context.Context, tx *db.Tx, v *octopus.Subscription, from int64, viewers ...viewer) (*batch, error) {
	numbers, err := events.After(ctx, tx, from, window)
	if err != nil {
		return nil, err
	}
	b := &batch{end: from, more: len(numbers) == window}
	if len(numbers) == 0 {
		return b, nil
	}
	b.end = numbers[len(numbers)-1]
	ids := make([]string, len(numbers))
	for i, n := range numbers {
		ids[i] = ident.ID(events.Prefix, n)
	}
	f := &v.EventNotificationSubscription.Filter
	q := events.Query{
		IDs: ids, Users: f.Users, Projects: f.Projects, ProjectGroups: f.ProjectGroups, Environments: f.Environments, Tenants: f.Tenants,
		Groups: f.EventGroups, Agents: f.EventAgents, DocumentTypes: f.DocumentTypes,
		NoDifference: true, Page: ident.Page{Take: window},
	}
	for _, c := range f.EventCategories {
		q.Categories = append(q.Categories, string(c))
	}
	if len(f.Tags) > 0 {
		if q.IDs, err = tagged(ctx, tx, numbers, f.Tags); err != nil {
			return nil, err
		}
	}
	var all []octopus.Event
	for _, who := range viewers {
		q.Places = who.places(ident.SpaceID(v.SpaceID))
		if all, _, err = s.cfg.Trail.List(ctx, tx, q); err != nil {
			return nil, err
		}
		q.IDs = make([]string, len(all))
		for i := range all {
			q.IDs[i] = all[i].ID
		}
		if len(all) == 0 {
			break
		}
	}
	for i, n := range numbers {
		if j := slices.IndexFunc(all, func(e octopus.Event) bool { return e.ID == ids[i] }); j >= 0 {
			b.found = append(b.found, found{n, all[j]})
		}
	}
	return b, nil
}

// tagged are the events of tenants that have one of the tags.
func tagged(ctx context.Context, tx *db.Tx, numbers []int64, tags []string) ([]string, error) {
	args := []any{}
	marks := func(n int) string { return `?` + strings.Repeat(`, ?`, n-1) }
	for _, n := range numbers {
		args = append(args, n)
	}
	for _, tag := range tags {
		args = append(args, ident.Fold(tag))
	}
	rows, err := tx.Query(ctx, `SELECT e.id FROM events e WHERE e.id IN (`+marks(len(numbers))+`) AND e.tenant_id IN
		(SELECT x.id FROM document_index x WHERE x.kind = 'tenants' AND x.field = 'TenantTags' AND x.value IN (`+marks(len(tags))+`))`, args...)
	if err != nil {
		return nil, fmt.Errorf("read whose events these are: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	out := []string{}
	for rows.Next() {
		var n int64
		if err := rows.Scan(&n); err != nil {
			return nil, fmt.Errorf("read whose events these are: %w", err)
		}
		out = append(out, ident.ID(events.Prefix, n))
	}
	return out, rows.Err()
}

// viewer is what somebody may see of the trail.
type viewer struct {
	access *auth.Access // nil is nobody, unless all
	// all sees everything of the space in question, or of these for all spaces.
	all    bool
	spaces []ident.SpaceID
}

// places are where a viewer may look for what a subscription of a space sends, or one
// of all spaces when space is "".
func (v viewer) places(space ident.SpaceID) []events.Place {
	const permission = string(octopus.PermEventView)
	out := []events.Place{} // nowhere, which is not the same as no limit
	switch {
	case v.all && space != "":
		return append(out, events.Place{Space: space})
	case v.all:
		for _, one := range v.spaces {
			out = append(out, events.Place{Space: one})
		}
		return out
	case v.access == nil:
		return out
	}
	spaces := []ident.SpaceID{space}
	if space == "" {
		spaces = append(v.access.Spaces(), "")
	}
	for _, one := range spaces {
		if grants, ok := v.access.Grants(permission, one); ok {
			out = append(out, events.Place{Space: one, Grants: grants})
		}
	}
	return out
}

// viewerOf is what a user may see; nothing when they are gone or may not sign in. ""
// is the server itself, which sees all of one space.
func (s *Service) viewerOf(ctx context.Context, tx *db.Tx, user string) (viewer, error) {
	if user == "" {
		return viewer{all: true}, nil
	}
	var u octopus.User
	err := s.cfg.Store.Load(ctx, tx, "users", user, &u)
	if fault.Is(err, fault.NotFound) || err == nil && !u.IsActive {
		return viewer{}, nil
	}
	if err != nil {
		return viewer{}, err
	}
	access, err := s.cfg.Auth.AccessIn(ctx, tx, user)
	return viewer{access: access}, err
}

// teams is what teams may see together.
func (s *Service) teams(ctx context.Context, tx *db.Tx, teams []string) (viewer, error) {
	access, err := s.cfg.Auth.AccessOfTeams(ctx, tx, teams)
	return viewer{access: access}, err
}
