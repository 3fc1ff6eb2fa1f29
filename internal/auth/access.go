package auth

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/permission"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Target is what a permission is asked for: the documents that it is about.
//
// A dimension that is "" was not named: the thing has none (a deployment without
// a tenant, an event of no project) or is in several that the caller asks for
// one by one. A grant that is limited in it does not cover such a target, as in
// Octopus Deploy: a team that may deploy for one tenant may not deploy without a
// tenant, and does not see targets that are for no tenant.
type Target struct{ Project, ProjectGroup, Environment, Tenant string }

// Facts is what the access of one user follows from.
type Facts struct {
	Teams  []octopus.Team           // the user is in, with Everyone
	Scoped []octopus.ScopedUserRole // of these teams
	Roles  []octopus.UserRole       // that these name
	// Connected lists the projects that a tenant is connected to. It matters
	// where a role is scoped to tenants.
	Connected map[string][]string
}

// Source is a way in which a permission came to somebody: by which team, which
// role, and which scoped role ties them together, within which limits. It is
// served to clients as it is.
type Source struct {
	Team             octopus.Named        `json:"Team"`
	UserRole         octopus.Named        `json:"UserRole"`
	ScopedUserRoleID string               `json:"ScopedUserRoleId"`
	ProjectIDs       octopus.List[string] `json:"ProjectIds"`
	ProjectGroupIDs  octopus.List[string] `json:"ProjectGroupIds"`
	EnvironmentIDs   octopus.List[string] `json:"EnvironmentIds"`
	TenantIDs        octopus.List[string] `json:"TenantIds"`
}

// grant is one way in which a permission is held, with where it came from.
type grant struct {
	resource.Grant
	source *Source
}

// holding is all ways in which one permission is held at one place. all is not nil
// and has one unlimited grant when any of them is.
type holding struct {
	all     []resource.Grant
	grants  []grant
	outward []octopus.PermissionRestriction // as clients see it
}

// Access is what one user may do. It is immutable and safe for concurrent use.
type Access struct {
	teams  []octopus.Team
	places map[ident.SpaceID]map[octopus.Permission]*holding // "" is the system
}

// NewAccess adds up what the facts grant.
//
// The permissions that a role grants in spaces hold in the scoped role's space;
// those that it grants on the system hold there without limit, wherever the role
// was given. A scope narrows a permission only in the dimensions that the
// permission supports, for a role may hold others that mean nothing in it.
// Between dimensions all must fit, within one any. Projects and project groups
// are one dimension in two forms: the projects listed, and those in the groups.
// What is about a project as a whole (its settings, its releases) is limited by
// tenants to the projects that these are connected to.
func NewAccess(f Facts) *Access {
	a := &Access{teams: f.Teams, places: map[ident.SpaceID]map[octopus.Permission]*holding{}}
	teams, roles := map[string]octopus.Team{}, map[string]octopus.UserRole{}
	for _, t := range f.Teams {
		teams[t.ID] = t
	}
	for _, r := range f.Roles {
		roles[r.ID] = r
	}
	for _, s := range f.Scoped {
		team, inTeam := teams[s.TeamID]
		role, known := roles[s.UserRoleID]
		if !inTeam || !known {
			continue
		}
		source := &Source{
			Team: octopus.Named{ID: team.ID, Name: team.Name}, UserRole: octopus.Named{ID: role.ID, Name: role.Name}, ScopedUserRoleID: s.ID,
			ProjectIDs: s.ProjectIDs, ProjectGroupIDs: s.ProjectGroupIDs, EnvironmentIDs: s.EnvironmentIDs, TenantIDs: s.TenantIDs,
		}
		for _, name := range role.GrantedSystemPermissions {
			if info, ok := permission.Find(name); ok && info.System {
				a.add("", info.Name, []resource.Grant{{}}, octopus.PermissionRestriction{}, source)
			}
		}
		if s.SpaceID == "" {
			continue
		}
		for _, name := range role.GrantedSpacePermissions {
			if info, ok := permission.Find(name); ok && info.Space {
				a.add(ident.SpaceID(s.SpaceID), info.Name, limit(info.Restrictions, s, f.Connected), outward(info.Restrictions, s), source)
			}
		}
	}
	for _, place := range a.places {
		for _, h := range place {
			for _, g := range h.grants {
				h.all = append(h.all, g.Grant)
			}
			if slices.ContainsFunc(h.all, resource.Grant.Unrestricted) {
				h.all = []resource.Grant{{}}
			}
		}
	}
	return a
}

func (a *Access) add(space ident.SpaceID, name octopus.Permission, grants []resource.Grant, wire octopus.PermissionRestriction, source *Source) {
	place := a.places[space]
	if place == nil {
		place = map[octopus.Permission]*holding{}
		a.places[space] = place
	}
	h := place[name]
	if h == nil {
		h = &holding{}
		place[name] = h
	}
	for _, g := range grants {
		h.grants = append(h.grants, grant{g, source})
	}
	wire.SpaceID = string(space)
	h.outward = append(h.outward, wire)
}

// limit is what a permission that supports these restrictions covers by a scoped
// role; nothing when no project is left.
func limit(supports permission.Restrictions, s octopus.ScopedUserRole, connected map[string][]string) []resource.Grant {
	var g resource.Grant
	if supports.Has(permission.Environments) {
		g.Environments = s.EnvironmentIDs
	}
	perTenant := supports.Has(permission.Tenants)
	// The likes of ProjectEdit and ReleaseView are about no single tenant.
	perProject := perTenant && supports.Has(permission.Projects) && !supports.Has(permission.Environments)
	if perTenant && !perProject {
		g.Tenants = s.TenantIDs
	}
	if !supports.Has(permission.Projects) {
		if supports.Has(permission.ProjectGroups) {
			g.ProjectGroups = s.ProjectGroupIDs
		}
		return []resource.Grant{g}
	}

	projects, groups := []string(s.ProjectIDs), []string(s.ProjectGroupIDs)
	var grants []resource.Grant
	if !perProject || len(s.TenantIDs) == 0 {
		if len(projects) > 0 || len(groups) == 0 {
			g.Projects = projects
			grants = append(grants, g)
		}
		if len(groups) > 0 {
			g.Projects, g.ProjectGroups = nil, groups
			grants = append(grants, g)
		}
		return grants
	}

	reachable := map[string]bool{}
	for _, tenant := range s.TenantIDs {
		for _, p := range connected[tenant] {
			reachable[p] = true
		}
	}
	if len(reachable) == 0 {
		return nil
	}
	all := slices.Sorted(maps.Keys(reachable))
	if len(projects) == 0 && len(groups) == 0 {
		g.Projects = all
		return []resource.Grant{g}
	}
	if both := slices.DeleteFunc(slices.Clone(projects), func(p string) bool { return !reachable[p] }); len(both) > 0 {
		g.Projects = both
		grants = append(grants, g)
	}
	if len(groups) > 0 {
		g.Projects, g.ProjectGroups = all, groups
		grants = append(grants, g)
	}
	return grants
}

// outward is the restriction as clients are told it: the scope's own lists.
func outward(supports permission.Restrictions, s octopus.ScopedUserRole) octopus.PermissionRestriction {
	var r octopus.PermissionRestriction
	if supports.Has(permission.Projects) {
		r.RestrictedToProjectIDs = s.ProjectIDs
	}
	if supports.Has(permission.Projects) || supports.Has(permission.ProjectGroups) {
		r.RestrictedToProjectGroupIDs = s.ProjectGroupIDs
	}
	if supports.Has(permission.Environments) {
		r.RestrictedToEnvironmentIDs = s.EnvironmentIDs
	}
	if supports.Has(permission.Tenants) {
		r.RestrictedToTenantIDs = s.TenantIDs
	}
	return r
}

// at finds how a permission is held. One that exists on the system alone is held
// there, whatever space the question comes from.
func (a *Access) at(name string, space ident.SpaceID) *holding {
	if h := a.places[space][octopus.Permission(name)]; h != nil {
		return h
	}
	info, ok := permission.Find(name)
	if !ok {
		return nil
	}
	if !info.Space {
		space = ""
	}
	return a.places[space][info.Name]
}

// Grants lists the ways in which a permission is held in a space, for filters of
// lists; "" asks for the system. held is false when there is none. If one of them
// is without limit, it is the only one.
func (a *Access) Grants(name string, space ident.SpaceID) (grants []resource.Grant, held bool) {
	h := a.at(name, space)
	if h == nil {
		return nil, false
	}
	return h.all, len(h.all) > 0
}

// Can reports whether a permission is held in a space for a target.
func (a *Access) Can(name string, space ident.SpaceID, t Target) bool {
	grants, _ := a.Grants(name, space)
	return slices.ContainsFunc(grants, func(g resource.Grant) bool { return covers(g, t) })
}

// Why lists how a permission is held for a target: nothing when it is not. Each
// team, role and scope is listed that suffices by itself.
func (a *Access) Why(name string, space ident.SpaceID, t Target) []Source {
	h := a.at(name, space)
	if h == nil {
		return nil
	}
	var why []Source
	for _, g := range h.grants {
		if covers(g.Grant, t) && (len(why) == 0 || why[len(why)-1].ScopedUserRoleID != g.source.ScopedUserRoleID) {
			why = append(why, *g.source)
		}
	}
	return why
}

func covers(g resource.Grant, t Target) bool {
	return within(g.Projects, t.Project) && within(g.ProjectGroups, t.ProjectGroup) &&
		within(g.Environments, t.Environment) && within(g.Tenants, t.Tenant)
}

func within(ids []string, id string) bool {
	return len(ids) == 0 || id != "" && slices.ContainsFunc(ids, func(one string) bool { return strings.EqualFold(one, id) })
}

// Spaces lists the spaces in which anything at all is held, in the order of their
// numbers.
func (a *Access) Spaces() []ident.SpaceID {
	var spaces []ident.SpaceID
	for space, place := range a.places {
		if space != "" && anything(place) {
			spaces = append(spaces, space)
		}
	}
	slices.SortFunc(spaces, func(x, y ident.SpaceID) int {
		nx, _ := ident.Seq(string(x))
		ny, _ := ident.Seq(string(y))
		return cmp.Or(cmp.Compare(nx, ny), cmp.Compare(x, y))
	})
	return spaces
}

func anything(place map[octopus.Permission]*holding) bool {
	for _, h := range place {
		if len(h.all) > 0 {
			return true
		}
	}
	return false
}

// Teams are those that the user is in, Everyone among them.
func (a *Access) Teams() []octopus.Team { return a.teams }

// InTeam reports whether the user is in a team.
func (a *Access) InTeam(id string) bool {
	return slices.ContainsFunc(a.teams, func(t octopus.Team) bool { return strings.EqualFold(t.ID, id) })
}

// System lists the permissions that are held on the system, by name.
func (a *Access) System() []octopus.Permission { return slices.Sorted(maps.Keys(a.places[""])) }

// Permissions is all of it as clients see it. It keeps the spaces that keep says
// yes to, "" standing for the system; nil keeps all.
func (a *Access) Permissions(keep func(ident.SpaceID) bool) octopus.UserPermissions {
	out := octopus.UserPermissions{
		SpacePermissions: octopus.Map[octopus.Permission, octopus.List[octopus.PermissionRestriction]]{},
		IsTeamsComplete:  true, IsPermissionsComplete: true,
	}
	if keep == nil {
		keep = func(ident.SpaceID) bool { return true }
	}
	for _, space := range a.Spaces() {
		if keep(space) {
			for name, h := range a.places[space] {
				out.SpacePermissions[name] = append(out.SpacePermissions[name], h.outward...)
			}
		}
	}
	if keep("") {
		out.SystemPermissions = a.System()
	}
	for _, t := range a.teams {
		if keep(ident.SpaceID(t.SpaceID)) {
			out.Teams = append(out.Teams, reference(t))
		}
	}
	return out
}

func reference(t octopus.Team) octopus.TeamReference {
	return octopus.TeamReference{ID: t.ID, Name: t.Name, SpaceID: t.SpaceID, IsDirectlyAssigned: t.ID != octopus.TeamEveryone}
}
