package auth

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// facts reads what a user's access follows from.
func (s *Service) facts(ctx context.Context, tx *db.Tx, user string) (Facts, error) {
	var f Facts
	var err error
	f.Teams, err = docstore.All[octopus.Team](ctx, s.store, tx, s.teams.Name, docstore.Query{Where: []docstore.Match{{Path: "MemberUserIds", Any: []string{user}}}})
	if err != nil {
		return f, err
	}
	var everyone octopus.Team
	switch err := s.store.Load(ctx, tx, s.teams.Name, octopus.TeamEveryone, &everyone); {
	case err == nil:
		f.Teams = append(f.Teams, everyone)
	case !fault.Is(err, fault.NotFound): // it comes with the first start
		return f, err
	}
	return f, s.addRoles(ctx, tx, &f)
}

// AccessIn is what a user may do as the transaction sees it.
func (s *Service) AccessIn(ctx context.Context, tx *db.Tx, user string) (*Access, error) {
	f, err := s.facts(ctx, tx, user)
	if err != nil {
		return nil, err
	}
	return NewAccess(f), nil
}

// AccessOfTeams is what teams may do together, whoever is in them. Teams that are not
// there may do nothing.
func (s *Service) AccessOfTeams(ctx context.Context, tx *db.Tx, teams []string) (*Access, error) {
	f := Facts{}
	var err error
	if len(teams) > 0 {
		f.Teams, err = docstore.All[octopus.Team](ctx, s.store, tx, s.teams.Name, docstore.Query{IDs: teams})
	}
	if err != nil {
		return nil, err
	}
	if err := s.addRoles(ctx, tx, &f); err != nil {
		return nil, err
	}
	return NewAccess(f), nil
}

// addRoles reads what the teams of f were given.
func (s *Service) addRoles(ctx context.Context, tx *db.Tx, f *Facts) (err error) {
	if len(f.Teams) == 0 {
		return nil
	}
	ids := make([]string, len(f.Teams))
	for i, t := range f.Teams {
		ids[i] = t.ID
	}
	f.Scoped, err = docstore.All[octopus.ScopedUserRole](ctx, s.store, tx, s.scoped.Name, docstore.Query{Where: []docstore.Match{{Path: "TeamId", Any: ids}}})
	if err != nil || len(f.Scoped) == 0 {
		return err
	}
	var roles, tenants []string
	for _, scoped := range f.Scoped {
		roles = append(roles, scoped.UserRoleID)
		tenants = append(tenants, scoped.TenantIDs...)
	}
	slices.Sort(roles)
	f.Roles, err = docstore.All[octopus.UserRole](ctx, s.store, tx, s.roles.Name, docstore.Query{IDs: slices.Compact(roles)})
	if err != nil {
		return err
	}
	slices.Sort(tenants)
	f.Connected, err = connected(ctx, tx, slices.Compact(tenants))
	return err
}

// connected lists the projects that each tenant is connected to: those that its
// document refers to.
func connected(ctx context.Context, tx *db.Tx, tenants []string) (map[string][]string, error) {
	projects := map[string][]string{}
	for batch := range slices.Chunk(tenants, 500) {
		if err := addConnected(ctx, tx, batch, projects); err != nil {
			return nil, fmt.Errorf("read what tenants are connected to: %w", err)
		}
	}
	return projects, nil
}

func addConnected(ctx context.Context, tx *db.Tx, tenants []string, to map[string][]string) error {
	args := make([]any, len(tenants))
	for i, id := range tenants {
		args[i] = id
	}
	rows, err := tx.Query(ctx, `SELECT DISTINCT r.from_id, r.to_id FROM document_refs r WHERE r.from_kind = 'tenants' AND r.to_kind = 'projects'
		AND r.from_id IN (?`+strings.Repeat(", ?", len(tenants)-1)+`)`, args...)
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }() // Err below tells
	for rows.Next() {
		var tenant, project string
		if err := rows.Scan(&tenant, &project); err != nil {
			return err
		}
		to[tenant] = append(to[tenant], project)
	}
	return rows.Err()
}
