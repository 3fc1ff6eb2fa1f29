package resources

import (
	"context"
	"maps"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/permission"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Teams declares groups of users, to whom roles are given: of the system, or of
// one space.
func Teams() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.Team]{
		Name:     "teams",
		ItemType: "Team",
		Noun:     "team",
		Prefix:   "Teams",
		Scope:    resource.InEither,
		Permissions: resource.Permissions{
			View:   string(octopus.PermTeamView),
			Create: string(octopus.PermTeamCreate),
			Edit:   string(octopus.PermTeamEdit),
			Delete: string(octopus.PermTeamDelete),
		},
		Slugged:    true,
		References: []resource.Reference{{Path: "MemberUserIds", To: "users", OnDelete: resource.Clear}},
		Links: map[string]string{
			"Self":            "/api/teams/{Id}",
			"ScopedUserRoles": "/api/teams/{Id}/scopeduserroles{?skip,take}",
		},
		Prepare: prepareTeam,
		Check:   checkTeam,
		InTx:    teamInTx,
	})
}

func prepareTeam(t *octopus.Team) {
	slices.Sort(t.MemberUserIDs)
	t.MemberUserIDs = slices.Compact(t.MemberUserIDs)
	builtin := permission.IsBuiltinTeam(t.ID)
	t.CanBeDeleted = !builtin
	t.CanBeRenamed = !builtin
	t.CanChangeMembers = t.ID != octopus.TeamEveryone
	t.CanChangeRoles = t.ID != octopus.TeamAdministrators && t.ID != octopus.TeamManagers
}

func checkTeam(ctx context.Context, r resource.Reader, old, t *octopus.Team) error {
	const (
		maxMembers     = 5000
		maxGroups      = 500
		maxDescription = 2000
	)
	switch {
	case len(t.MemberUserIDs) > maxMembers:
		return fault.InvalidField("MemberUserIds", "The team has %d members; use at most %d, or the team '%s'.", len(t.MemberUserIDs), maxMembers, octopus.TeamEveryone)
	case len(t.ExternalSecurityGroups) > maxGroups:
		return fault.InvalidField("ExternalSecurityGroups", "The team has %d external groups; use at most %d.", len(t.ExternalSecurityGroups), maxGroups)
	case len(t.Description) > maxDescription:
		return fault.InvalidField("Description", "Description has %d bytes; use at most %d.", len(t.Description), maxDescription)
	case old == nil || byServer(ctx):
		return nil
	case !old.CanBeRenamed && strings.TrimSpace(t.Name) != old.Name:
		return fault.InvalidField("Name", "The team '%s' is built in and keeps its name.", old.Name)
	case !old.CanChangeMembers && len(t.MemberUserIDs)+len(t.ExternalSecurityGroups) > 0:
		return fault.InvalidField("MemberUserIds", "Everybody is a member of the team '%s'; leave its members empty.", old.Name)
	}
	joins := func(id string) bool { return !slices.Contains(old.MemberUserIDs, id) }
	if !slices.ContainsFunc(t.MemberUserIDs, joins) && slices.Equal(t.ExternalSecurityGroups, old.ExternalSecurityGroups) {
		return nil
	}
	// Here and not in the transaction's later part, where whoever joins is
	// a member already.
	conferred, err := conferredOnSystem(ctx, r.Tx(), t.ID)
	if err != nil {
		return err
	}
	return mayGive(ctx, r.Tx(), conferred)
}

func teamInTx(ctx context.Context, w resource.Writer, c resource.Change[octopus.Team]) error {
	if byServer(ctx) {
		return nil
	}
	if c.Op == resource.Deleted && permission.IsBuiltinTeam(c.ID) {
		return fault.New(fault.Conflict, "The team '%s' is built in and cannot be deleted.", c.Old.Name)
	}
	return administratorsRemain(ctx, w.Tx())
}

// ManageSpace makes teams and users the managers of a space, and nobody else:
// users through the space's own team, which it makes, other teams by the role of
// space managers in the space. It is for the rules of spaces.
func ManageSpace(ctx context.Context, w resource.Writer, space ident.SpaceID, teams, users []string) error {
	if err := ensureSpaceManagerRole(ctx, w); err != nil {
		return err
	}
	own := permission.SpaceManagersTeam(string(space))
	var team octopus.Team
	switch err := w.Load(ctx, "teams", own, &team); {
	case fault.Is(err, fault.NotFound):
		team = octopus.Team{Name: "Space Managers", MemberUserIDs: users, Description: "Those who may do everything in the space."}
		if _, err := w.Create(ctx, "teams", space, own, &team); err != nil {
			return err
		}
	case err != nil:
		return err
	default:
		if !slices.Equal(slices.Sorted(slices.Values(team.MemberUserIDs)), slices.Sorted(slices.Values(users))) {
			team.MemberUserIDs = users
			if err := w.Replace(ctx, "teams", own, &team); err != nil {
				return err
			}
		}
	}

	wanted := map[string]bool{own: true}
	for _, id := range teams {
		wanted[id] = true
	}
	var surplus []string
	err := w.Each(ctx, "scopeduserroles", space, "UserRoleId", permission.RoleSpaceManager, func(id string) error {
		var s octopus.ScopedUserRole
		if err := w.Load(ctx, "scopeduserroles", id, &s); err != nil {
			return err
		}
		switch {
		case ident.SpaceID(s.SpaceID) != space || slices.ContainsFunc(scopeOf(&s), func(d dimension) bool { return len(*d.ids) > 0 }):
		case wanted[s.TeamID]:
			delete(wanted, s.TeamID)
		default:
			surplus = append(surplus, id)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range surplus {
		if err := w.Delete(ctx, "scopeduserroles", id); err != nil {
			return err
		}
	}
	for _, id := range slices.Sorted(maps.Keys(wanted)) {
		s := octopus.ScopedUserRole{TeamID: id, UserRoleID: permission.RoleSpaceManager}
		if _, err := w.Create(ctx, "scopeduserroles", space, "", &s); err != nil {
			return err
		}
	}
	return nil
}

// ensureSpaceManagerRole makes the built-in role that a space cannot do without:
// the first space of a server may come before its roles.
func ensureSpaceManagerRole(ctx context.Context, w resource.Writer) error {
	var role octopus.UserRole
	err := w.Load(ctx, "userroles", permission.RoleSpaceManager, &role)
	if !fault.Is(err, fault.NotFound) {
		return err
	}
	for _, r := range permission.Roles() {
		if r.ID == permission.RoleSpaceManager {
			_, err = w.Create(ctx, "userroles", "", r.ID, &octopus.UserRole{
				Name: r.Name, Description: r.Description, GrantedSpacePermissions: r.Space, GrantedSystemPermissions: r.System,
			})
		}
	}
	return err
}
