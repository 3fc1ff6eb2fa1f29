package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// facts reads what a user's access follows from.
func (s *Service) facts(ctx context.Context, tx *db.Tx, user string) (Facts, error) {
	var f Facts
	var err error
	f.Teams, err = documents[octopus.Team](ctx, s.store, tx, s.teams, docstore.Query{Where: []docstore.Match{{Path: "MemberUserIds", Any: []string{user}}}})
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
	if len(f.Teams) == 0 {
		return f, nil
	}
	ids := make([]string, len(f.Teams))
	for i, t := range f.Teams {
		ids[i] = t.ID
	}
	f.Scoped, err = documents[octopus.ScopedUserRole](ctx, s.store, tx, s.scoped, docstore.Query{Where: []docstore.Match{{Path: "TeamId", Any: ids}}})
	if err != nil || len(f.Scoped) == 0 {
		return f, err
	}
	var roles, tenants []string
	for _, scoped := range f.Scoped {
		roles = append(roles, scoped.UserRoleID)
		tenants = append(tenants, scoped.TenantIDs...)
	}
	slices.Sort(roles)
	f.Roles, err = documents[octopus.UserRole](ctx, s.store, tx, s.roles, docstore.Query{IDs: slices.Compact(roles)})
	if err != nil {
		return f, err
	}
	slices.Sort(tenants)
	f.Connected, err = connected(ctx, tx, slices.Compact(tenants))
	return f, err
}

// documents reads every document of a kind that a query finds.
func documents[T any](ctx context.Context, store *docstore.Store, tx *db.Tx, k *resource.Kind, q docstore.Query) ([]T, error) {
	var all []T
	q.Page = ident.Page{Take: ident.MaxTake}
	for {
		docs, total, err := store.List(ctx, tx, k, q)
		if err != nil {
			return nil, err
		}
		for _, doc := range docs {
			var v T
			if err := json.Unmarshal(doc.Body, &v); err != nil {
				return nil, fmt.Errorf("read %s %s: %w", k.Noun, doc.ID, err)
			}
			all = append(all, v)
		}
		q.Page.Skip += int64(len(docs))
		if len(docs) == 0 || q.Page.Skip >= total {
			return all, nil
		}
	}
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
