package resources

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/permission"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// ScopedUserRoles declares which team has which role, where.
//
// What a role is scoped to is not let go when it is deleted: an empty list
// means everything, so taking the last project out of one would widen it.
func ScopedUserRoles() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.ScopedUserRole]{
		Name:     "scopeduserroles",
		ItemType: "ScopedUserRole",
		Noun:     "scoped user role",
		Prefix:   "ScopedUserRoles",
		Scope:    resource.InEither,
		Permissions: resource.Permissions{
			View:   string(octopus.PermTeamView),
			Create: string(octopus.PermTeamEdit),
			Edit:   string(octopus.PermTeamEdit),
			Delete: string(octopus.PermTeamEdit),
		},
		Order:   resource.ByAge,
		Unnamed: true,
		Filters: []resource.Filter{{Param: "teamId", Path: "TeamId"}, {Param: "userRoleId", Path: "UserRoleId"}},
		References: []resource.Reference{
			{Path: "TeamId", To: "teams", OnDelete: resource.Cascade, Required: true},
			{Path: "UserRoleId", To: "userroles", OnDelete: resource.Refuse, Required: true},
			{Path: "ProjectIds", To: "projects", OnDelete: resource.Ignore},
			{Path: "ProjectGroupIds", To: "projectgroups", OnDelete: resource.Ignore},
			{Path: "EnvironmentIds", To: "environments", OnDelete: resource.Ignore},
			{Path: "TenantIds", To: "tenants", OnDelete: resource.Ignore},
		},
		Links: map[string]string{"Self": "/api/scopeduserroles/{Id}"},
		Prepare: func(s *octopus.ScopedUserRole) {
			for _, d := range scopeOf(s) {
				slices.Sort(*d.ids)
				*d.ids = slices.Compact(*d.ids)
			}
		},
		Check: checkScopedUserRole,
		InTx:  scopedUserRoleInTx,
	})
}

type dimension struct {
	field, kind string
	ids         *octopus.List[string]
}

func scopeOf(s *octopus.ScopedUserRole) []dimension {
	return []dimension{
		{"ProjectIds", "projects", &s.ProjectIDs},
		{"ProjectGroupIds", "projectgroups", &s.ProjectGroupIDs},
		{"EnvironmentIds", "environments", &s.EnvironmentIDs},
		{"TenantIds", "tenants", &s.TenantIDs},
	}
}

func checkScopedUserRole(ctx context.Context, r resource.Reader, old, s *octopus.ScopedUserRole) error {
	const maxScope = 2000
	for _, d := range scopeOf(s) {
		if len(*d.ids) > maxScope {
			return fault.InvalidField(d.field, "%s has %d entries; use at most %d, or a project group.", d.field, len(*d.ids), maxScope)
		}
		if slices.Contains(*d.ids, "") {
			return fault.InvalidField(d.field, "%s has an empty entry; an empty list is no limit.", d.field)
		}
	}
	return fitsTogether(ctx, r, old, s)
}

func scopedUserRoleInTx(ctx context.Context, w resource.Writer, c resource.Change[octopus.ScopedUserRole]) error {
	if c.Op != resource.Created && !byServer(ctx) {
		if err := keepsBuiltin(c); err != nil {
			return err
		}
	}
	if c.Op == resource.Created {
		return nil
	}
	return administratorsRemain(ctx, w.Tx())
}

// keepsBuiltin refuses to take from a built-in team, or to narrow, the role that
// it is there for.
func keepsBuiltin(c resource.Change[octopus.ScopedUserRole]) error {
	role := permission.RoleOf(c.Old.TeamID)
	if role == "" || role != c.Old.UserRoleID {
		return nil
	}
	if c.New != nil && c.New.TeamID == c.Old.TeamID && c.New.UserRoleID == role {
		narrowed := ""
		for _, d := range scopeOf(c.New) {
			if len(*d.ids) > 0 {
				narrowed = d.field
			}
		}
		if narrowed == "" {
			return nil
		}
	}
	return fault.New(fault.Conflict, "The team '%s' is built in and keeps the role '%s' without a scope.", c.Old.TeamID, role)
}

// fitsTogether checks the rules that hold between role, team and space: a role
// with permissions in spaces is given in one; a team of a space only there; and a
// role for the system alone not to a team of a space.
func fitsTogether(ctx context.Context, r resource.Reader, old, s *octopus.ScopedUserRole) error {
	var team octopus.Team
	if err := r.Load(ctx, "teams", s.TeamID, &team); err != nil {
		return err
	}
	var role octopus.UserRole
	if err := r.Load(ctx, "userroles", s.UserRoleID, &role); err != nil {
		return err
	}
	switch {
	case team.SpaceID != "" && team.SpaceID != s.SpaceID:
		return fault.InvalidField("TeamId", "The team '%s' belongs to the space %s; give it roles there only, or use a team of the system.", team.Name, team.SpaceID)
	case s.SpaceID == "" && len(role.GrantedSpacePermissions) > 0:
		return fault.InvalidField("SpaceId", "The role '%s' has permissions in spaces; set SpaceId to the space it is for.", role.Name)
	case team.SpaceID != "" && len(role.GrantedSpacePermissions) == 0 && len(role.GrantedSystemPermissions) > 0:
		return fault.InvalidField("UserRoleId", "The role '%s' has permissions on the system alone, and the team '%s' belongs to a space; use a team of the system.", role.Name, team.Name)
	}
	if err := scopeExists(ctx, r, old, s); err != nil {
		return err
	}
	if old != nil && old.UserRoleID == s.UserRoleID && old.TeamID == s.TeamID {
		return nil
	}
	return mayGive(ctx, r.Tx(), role.GrantedSystemPermissions)
}

// scopeExists checks what is new in the scope; the rest may have been deleted since.
func scopeExists(ctx context.Context, r resource.Reader, old, s *octopus.ScopedUserRole) error {
	before := scopeOf(cmp.Or(old, &octopus.ScopedUserRole{}))
	for i, d := range scopeOf(s) {
		if s.SpaceID == "" && len(*d.ids) > 0 {
			return fault.InvalidField(d.field, "%s limits a role that is given on the system, which nothing limits; leave it empty.", d.field)
		}
		for _, id := range *d.ids {
			if slices.Contains(*before[i].ids, id) {
				continue
			}
			if err := isInSpace(ctx, r, d, s.SpaceID, id); err != nil {
				return err
			}
		}
	}
	return nil
}

func isInSpace(ctx context.Context, r resource.Reader, d dimension, space octopus.NullString, id string) error {
	var thing struct{ SpaceID octopus.NullString }
	switch err := r.Load(ctx, d.kind, id, &thing); {
	case fault.Is(err, fault.NotFound) || err == nil && thing.SpaceID != space:
		return fault.InvalidField(d.field, "%s names '%.100s', which does not exist in the space %s; give the id of one of its %s.", d.field, id, space, d.kind)
	case err != nil:
		return fmt.Errorf("look up %s: %w", id, err)
	}
	return nil
}
