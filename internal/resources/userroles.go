package resources

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/permission"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// UserRoles declares roles: sets of permissions under a name. Those that come
// with the server cannot be changed, so that a newer version can add to them.
func UserRoles() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.UserRole]{
		Name:     "userroles",
		ItemType: "UserRole",
		Noun:     "user role",
		Prefix:   "UserRoles",
		Scope:    resource.InSystem,
		Permissions: resource.Permissions{
			View:   string(octopus.PermUserRoleView),
			Create: string(octopus.PermUserRoleEdit),
			Edit:   string(octopus.PermUserRoleEdit),
			Delete: string(octopus.PermUserRoleEdit),
		},
		Filters: []resource.Filter{
			{Param: "spacePermission", Path: "GrantedSpacePermissions"},
			{Param: "systemPermission", Path: "GrantedSystemPermissions"}, // heldOnSystem reads its index
		},
		Prepare: prepareUserRole,
		Check:   checkUserRole,
		InTx:    userRoleInTx,
	})
}

// prepareUserRole spells permissions as the catalogue does, in order and once,
// and derives what clients show beside them.
func prepareUserRole(r *octopus.UserRole) {
	var restrictions permission.Restrictions
	tidy := func(names octopus.List[octopus.Permission]) (tidied octopus.List[octopus.Permission], about octopus.List[string]) {
		for _, name := range names {
			if info, ok := permission.Find(name); ok {
				name = info.Name
			}
			tidied = append(tidied, name)
		}
		slices.Sort(tidied)
		tidied = slices.Compact(tidied)
		for _, name := range tidied {
			if info, ok := permission.Find(name); ok {
				about = append(about, info.Describe())
				restrictions |= info.Restrictions
			}
		}
		slices.Sort(about)
		return tidied, about
	}
	r.GrantedSystemPermissions, r.SystemPermissionDescriptions = tidy(r.GrantedSystemPermissions)
	restrictions = 0 // a scope narrows only what holds in spaces
	r.GrantedSpacePermissions, r.SpacePermissionDescriptions = tidy(r.GrantedSpacePermissions)
	r.SupportedRestrictions = restrictions.Names()
	r.CanBeDeleted = !permission.IsBuiltinRole(r.ID)
}

func checkUserRole(ctx context.Context, reader resource.Reader, old, r *octopus.UserRole) error {
	if old != nil && permission.IsBuiltinRole(r.ID) && !byServer(ctx) {
		return fault.New(fault.Invalid, "The user role '%s' is built in and cannot be changed; create a role of your own with the permissions you need.", old.Name)
	}
	const maxDescription = 2000
	if len(r.Description) > maxDescription {
		return fault.InvalidField("Description", "Description has %d bytes; use at most %d.", len(r.Description), maxDescription)
	}
	for _, list := range []struct {
		field, level, other string
		names               octopus.List[octopus.Permission]
		at                  func(permission.Info) bool
	}{
		{"GrantedSpacePermissions", "in spaces", "GrantedSystemPermissions", r.GrantedSpacePermissions, func(i permission.Info) bool { return i.Space }},
		{"GrantedSystemPermissions", "on the system", "GrantedSpacePermissions", r.GrantedSystemPermissions, func(i permission.Info) bool { return i.System }},
	} {
		for _, name := range list.names {
			switch info, ok := permission.Find(name); {
			case !ok:
				return fault.InvalidField(list.field, "%s names '%.100s', which is no permission; /api/permissions/all lists them.", list.field, name)
			case !list.at(info):
				return fault.InvalidField(list.field, "%s names '%s', which means nothing %s; put it into %s.", list.field, name, list.level, list.other)
			}
		}
	}
	added := slices.Clone(r.GrantedSystemPermissions)
	if old != nil {
		added = slices.DeleteFunc(added, func(p octopus.Permission) bool { return slices.Contains(old.GrantedSystemPermissions, p) })
	}
	return mayGive(ctx, reader.Tx(), added) // before the change: afterwards one may hold it
}

func userRoleInTx(ctx context.Context, w resource.Writer, c resource.Change[octopus.UserRole]) error {
	if byServer(ctx) {
		return nil
	}
	if c.Op == resource.Deleted && permission.IsBuiltinRole(c.ID) {
		return fault.New(fault.Conflict, "The user role '%s' is built in and cannot be deleted.", c.Old.Name)
	}
	return administratorsRemain(ctx, w.Tx())
}

// The few queries below read who holds what on the system from the rows that
// stand beside the documents of roles, scoped roles and teams. The permission
// checks of requests do not come from here; these are rules about changing who
// holds what, which have to be decided in the transaction of the change.

// conferring selects from what roles grant on the system, with the team (t.to_id)
// that they are given to.
const conferring = ` FROM document_index p
	JOIN document_refs r ON r.to_kind = 'userroles' AND r.to_id = p.id AND r.from_kind = 'scopeduserroles' AND r.field = 'UserRoleId'
	JOIN document_refs t ON t.from_kind = 'scopeduserroles' AND t.from_id = r.from_id AND t.field = 'TeamId'
	WHERE p.kind = 'userroles' AND p.field = 'GrantedSystemPermissions' `

// heldOnSystem lists which permissions a user holds outside of spaces.
func heldOnSystem(ctx context.Context, tx *db.Tx, user string) ([]octopus.Permission, error) {
	return systemPermissions(ctx, tx, `SELECT DISTINCT p.value`+conferring+`AND (t.to_id = ? OR EXISTS
		(SELECT 1 FROM document_refs m WHERE m.from_kind = 'teams' AND m.from_id = t.to_id AND m.field = 'MemberUserIds' AND m.to_id = ?))`,
		octopus.TeamEveryone, user)
}

// conferredOnSystem lists which permissions a team's members hold outside of spaces by it.
func conferredOnSystem(ctx context.Context, tx *db.Tx, team string) ([]octopus.Permission, error) {
	return systemPermissions(ctx, tx, `SELECT DISTINCT p.value`+conferring+`AND t.to_id = ?`, team)
}

func systemPermissions(ctx context.Context, tx *db.Tx, query string, args ...any) ([]octopus.Permission, error) {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("read permissions on the system: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err below tells
	var held []octopus.Permission
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			return nil, fmt.Errorf("read permissions on the system: %w", err)
		}
		if info, ok := permission.Find(name); ok {
			held = append(held, info.Name)
		}
	}
	return held, rows.Err()
}

// mayGive refuses to hand on a permission on the system that whoever acts does
// not hold: else anybody who manages teams or roles could make themselves an
// administrator. What only lets people look is free, since the built-in roles
// for work in spaces include some of it; an administrator may give anything.
func mayGive(ctx context.Context, tx *db.Tx, permissions []octopus.Permission) error {
	wanted := slices.DeleteFunc(slices.Clone(permissions), func(p octopus.Permission) bool {
		info, ok := permission.Find(p)
		return ok && info.Looks()
	})
	if len(wanted) == 0 || byServer(ctx) {
		return nil
	}
	held, err := heldOnSystem(ctx, tx, db.ActorFrom(ctx).UserID)
	if err != nil || slices.Contains(held, octopus.PermAdministerSystem) {
		return err
	}
	var lacking []string
	for _, p := range wanted {
		if !slices.Contains(held, p) {
			lacking = append(lacking, string(p))
		}
	}
	if len(lacking) > 0 {
		return fault.New(fault.Forbidden, "You cannot give others a permission on the system that you do not hold: %s. Ask an administrator to do it.", strings.Join(lacking, ", "))
	}
	return nil
}

// administratorsRemain refuses a change after which nobody could administer the
// server: no active person (a service account cannot sign in).
func administratorsRemain(ctx context.Context, tx *db.Tx) error {
	if byServer(ctx) {
		return nil
	}
	var n int
	err := tx.QueryRow(ctx, `SELECT count(*) FROM document_index a
		JOIN document_index s ON s.kind = 'users' AND s.field = 'IsService' AND s.value = 'false' AND s.id = a.id
		WHERE a.kind = 'users' AND a.field = 'IsActive' AND a.value = 'true' AND EXISTS
		(SELECT 1`+conferring+`AND p.value = 'administersystem' AND (t.to_id = ? OR EXISTS
			(SELECT 1 FROM document_refs m WHERE m.from_kind = 'teams' AND m.from_id = t.to_id AND m.field = 'MemberUserIds' AND m.to_id = a.id)))`,
		octopus.TeamEveryone).Scan(&n)
	if err != nil {
		return fmt.Errorf("count administrators: %w", err)
	}
	if n == 0 {
		return fault.New(fault.Conflict, "After this nobody could administer the server; make somebody else an active member of the team '%s' first.", octopus.TeamAdministrators)
	}
	return nil
}
