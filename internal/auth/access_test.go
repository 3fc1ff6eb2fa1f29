package auth

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/permission"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

const home ident.SpaceID = "Spaces-1"

// deployers is a world with one team, which has one role by each of the scopes.
func deployers(space, system []octopus.Permission, scopes ...octopus.ScopedUserRole) Facts {
	f := Facts{
		Teams: []octopus.Team{{Resource: octopus.Resource{ID: "Teams-1"}, Name: "Deployers"}},
		Roles: []octopus.UserRole{{Resource: octopus.Resource{ID: "UserRoles-1"}, Name: "Role", GrantedSpacePermissions: space, GrantedSystemPermissions: system}},
	}
	for i, s := range scopes {
		s.ID = fmt.Sprintf("ScopedUserRoles-%d", i+1)
		s.TeamID, s.UserRoleID = "Teams-1", "UserRoles-1"
		f.Scoped = append(f.Scoped, s)
	}
	return f
}

func TestCan(t *testing.T) {
	t.Parallel()
	deploy := []octopus.Permission{
		octopus.PermDeploymentCreate, octopus.PermProjectView, octopus.PermProjectCreate, octopus.PermProcessEdit,
		octopus.PermMachineView, octopus.PermLifecycleView, octopus.PermEventView, octopus.PermTeamView,
	}
	inSpace := octopus.ScopedUserRole{SpaceID: octopus.NullString(home)}
	scope := func(change func(*octopus.ScopedUserRole)) octopus.ScopedUserRole {
		s := inSpace
		change(&s)
		return s
	}
	for name, c := range map[string]struct {
		facts      Facts
		permission octopus.Permission
		space      ident.SpaceID
		target     Target
		want       bool
	}{
		"nothing is granted": {Facts{}, octopus.PermProjectView, home, Target{}, false},
		"without limit":      {deployers(deploy, nil, inSpace), octopus.PermDeploymentCreate, home, Target{"Projects-1", "ProjectGroups-1", "Environments-1", ""}, true},
		"in another space":   {deployers(deploy, nil, inSpace), octopus.PermDeploymentCreate, "Spaces-2", Target{}, false},
		"a space's permission on the system": {
			deployers(deploy, nil, inSpace), octopus.PermTeamView, "", Target{}, false,
		},
		"the system's permission from a role given in a space": {
			deployers(deploy, []octopus.Permission{octopus.PermUserView}, inSpace), octopus.PermUserView, "", Target{}, true,
		},
		"the system's permission, asked for in a space": {
			deployers(nil, []octopus.Permission{octopus.PermUserView}, octopus.ScopedUserRole{}), octopus.PermUserView, home, Target{}, true,
		},
		"a permission of both levels, held on the system, asked for in a space": {
			deployers(nil, []octopus.Permission{octopus.PermTeamView}, octopus.ScopedUserRole{}), octopus.PermTeamView, home, Target{}, false,
		},
		"a role with permissions in spaces, given on the system": {
			deployers(deploy, nil, octopus.ScopedUserRole{}), octopus.PermProjectView, home, Target{}, false,
		},
		"a scope does not limit what the role grants on the system": {
			deployers(deploy, []octopus.Permission{octopus.PermEventView}, scope(func(s *octopus.ScopedUserRole) { s.ProjectIDs = []string{"Projects-1"} })),
			octopus.PermEventView, "",
			Target{},
			true,
		},
		"its project": {
			deployers(deploy, nil, scope(func(s *octopus.ScopedUserRole) { s.ProjectIDs = []string{"Projects-1", "Projects-2"} })),
			octopus.PermDeploymentCreate, home,
			Target{Project: "Projects-2"},
			true,
		},
		"its project, in another case": {
			deployers(deploy, nil, scope(func(s *octopus.ScopedUserRole) { s.ProjectIDs = []string{"Projects-1"} })),
			octopus.PermDeploymentCreate, home,
			Target{Project: "projects-1"},
			true,
		},
		"another project": {
			deployers(deploy, nil, scope(func(s *octopus.ScopedUserRole) { s.ProjectIDs = []string{"Projects-1"} })),
			octopus.PermDeploymentCreate, home,
			Target{Project: "Projects-3"},
			false,
		},
		"its project in another environment": {
			deployers(deploy, nil, scope(func(s *octopus.ScopedUserRole) {
				s.ProjectIDs, s.EnvironmentIDs = []string{"Projects-1"}, []string{"Environments-1"}
			})),
			octopus.PermDeploymentCreate, home,
			Target{Project: "Projects-1", Environment: "Environments-2"},
			false,
		},
		"a project of its group": {
			deployers(deploy, nil, scope(func(s *octopus.ScopedUserRole) { s.ProjectGroupIDs = []string{"ProjectGroups-1"} })),
			octopus.PermDeploymentCreate, home,
			Target{Project: "Projects-7", ProjectGroup: "ProjectGroups-1"},
			true,
		},
		"a project outside of its group that is listed": {
			deployers(deploy, nil, scope(func(s *octopus.ScopedUserRole) {
				s.ProjectIDs, s.ProjectGroupIDs = []string{"Projects-5"}, []string{"ProjectGroups-1"}
			})),
			octopus.PermDeploymentCreate, home,
			Target{Project: "Projects-5", ProjectGroup: "ProjectGroups-2"},
			true,
		},
		"a project of its group that is not listed": {
			deployers(deploy, nil, scope(func(s *octopus.ScopedUserRole) {
				s.ProjectIDs, s.ProjectGroupIDs = []string{"Projects-5"}, []string{"ProjectGroups-1"}
			})),
			octopus.PermDeploymentCreate, home,
			Target{Project: "Projects-1", ProjectGroup: "ProjectGroups-1"},
			true,
		},
		"a dimension that the permission does not know": {
			deployers(deploy, nil, scope(func(s *octopus.ScopedUserRole) { s.EnvironmentIDs = []string{"Environments-1"} })),
			octopus.PermLifecycleView, home,
			Target{},
			true,
		},
		"a project, where only groups limit": {
			deployers(deploy, nil, scope(func(s *octopus.ScopedUserRole) { s.ProjectIDs = []string{"Projects-1"} })),
			octopus.PermProjectCreate, home,
			Target{ProjectGroup: "ProjectGroups-9"},
			true,
		},
		"its tenant": {
			deployers(deploy, nil, scope(func(s *octopus.ScopedUserRole) { s.TenantIDs = []string{"Tenants-1"} })),
			octopus.PermDeploymentCreate, home,
			Target{Project: "Projects-1", Tenant: "Tenants-1"},
			true,
		},
		"no tenant, where tenants limit": {
			deployers(deploy, nil, scope(func(s *octopus.ScopedUserRole) { s.TenantIDs = []string{"Tenants-1"} })),
			octopus.PermDeploymentCreate, home,
			Target{Project: "Projects-1"},
			false,
		},
		"no project, where projects limit": {
			deployers(deploy, nil, scope(func(s *octopus.ScopedUserRole) { s.ProjectIDs = []string{"Projects-1"} })),
			octopus.PermEventView, home,
			Target{},
			false,
		},
		"a name in another case":  {deployers(deploy, nil, inSpace), "deploymentcreate", home, Target{}, true},
		"an unknown name":         {deployers(deploy, nil, inSpace), "DeploymentAdore", home, Target{}, false},
		"another permission":      {deployers(deploy, nil, inSpace), octopus.PermProjectDelete, home, Target{}, false},
		"the environment's limit": {deployers(deploy, nil, scope(func(s *octopus.ScopedUserRole) { s.EnvironmentIDs = []string{"Environments-1"} })), octopus.PermProcessEdit, home, Target{Project: "Projects-1"}, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := NewAccess(c.facts).Can(string(c.permission), c.space, c.target); got != c.want {
				t.Errorf("Can(%s, %q, %+v) = %v", c.permission, c.space, c.target, got)
			}
		})
	}
}

// TestTenantsReachProjects: what is about a project as a whole is limited by
// tenants to the projects that they are connected to.
func TestTenantsReachProjects(t *testing.T) {
	t.Parallel()
	see := []octopus.Permission{octopus.PermProjectView, octopus.PermReleaseCreate, octopus.PermTenantView}
	tenants := octopus.ScopedUserRole{SpaceID: octopus.NullString(home), TenantIDs: []string{"Tenants-1", "Tenants-2"}}
	withProjects, withGroup, withBoth := tenants, tenants, tenants
	withProjects.ProjectIDs = []string{"Projects-1", "Projects-9"}
	withGroup.ProjectGroupIDs = []string{"ProjectGroups-1"}
	withBoth.ProjectIDs, withBoth.ProjectGroupIDs = withProjects.ProjectIDs, withGroup.ProjectGroupIDs
	connected := map[string][]string{"Tenants-1": {"Projects-2", "Projects-1"}, "Tenants-2": {"Projects-3", "Projects-1"}}
	all := []string{"Projects-1", "Projects-2", "Projects-3"}
	for _, c := range []struct {
		scope     octopus.ScopedUserRole
		connected map[string][]string
		want      []resource.Grant
	}{
		{tenants, connected, []resource.Grant{{Projects: all}}},
		{withProjects, connected, []resource.Grant{{Projects: []string{"Projects-1"}}}},
		{withGroup, connected, []resource.Grant{{Projects: all, ProjectGroups: []string{"ProjectGroups-1"}}}},
		{withBoth, connected, []resource.Grant{{Projects: []string{"Projects-1"}}, {Projects: all, ProjectGroups: []string{"ProjectGroups-1"}}}},
		{tenants, nil, nil},
		{withBoth, map[string][]string{"Tenants-8": {"Projects-1"}}, nil},
	} {
		f := deployers(see, nil, c.scope)
		f.Connected = c.connected
		a := NewAccess(f)
		for _, p := range []octopus.Permission{octopus.PermProjectView, octopus.PermReleaseCreate} {
			got, held := a.Grants(string(p), home)
			if diff := cmp.Diff(c.want, got); diff != "" || held != (len(c.want) > 0) {
				t.Errorf("%s by %+v: held %v, %s", p, c.scope, held, diff)
			}
		}
		got, _ := a.Grants(string(octopus.PermTenantView), home)
		if diff := cmp.Diff([]resource.Grant{{Tenants: c.scope.TenantIDs}}, got); diff != "" {
			t.Errorf("TenantView: %s", diff)
		}
	}
}

func TestGrantsAreSimplified(t *testing.T) {
	t.Parallel()
	limited := octopus.ScopedUserRole{SpaceID: octopus.NullString(home), EnvironmentIDs: []string{"Environments-1"}}
	a := NewAccess(deployers([]octopus.Permission{octopus.PermMachineView}, nil, limited, octopus.ScopedUserRole{SpaceID: octopus.NullString(home)}, limited))
	got, held := a.Grants("MachineView", home)
	if diff := cmp.Diff([]resource.Grant{{}}, got); diff != "" || !held {
		t.Errorf("held %v, %s", held, diff)
	}
	if got := a.Spaces(); !slices.Equal(got, []ident.SpaceID{home}) {
		t.Errorf("spaces %v", got)
	}
}

func TestWhy(t *testing.T) {
	t.Parallel()
	f := deployers([]octopus.Permission{octopus.PermDeploymentCreate}, nil,
		octopus.ScopedUserRole{SpaceID: octopus.NullString(home), EnvironmentIDs: []string{"Environments-1"}},
		octopus.ScopedUserRole{SpaceID: octopus.NullString(home), EnvironmentIDs: []string{"Environments-2"}},
		octopus.ScopedUserRole{SpaceID: octopus.NullString(home)},
	)
	a := NewAccess(f)
	var ids []string
	for _, s := range a.Why("DeploymentCreate", home, Target{Environment: "Environments-2"}) {
		ids = append(ids, s.ScopedUserRoleID)
		if s.Team != (octopus.Named{ID: "Teams-1", Name: "Deployers"}) || s.UserRole != (octopus.Named{ID: "UserRoles-1", Name: "Role"}) {
			t.Errorf("source %+v", s)
		}
	}
	if want := []string{"ScopedUserRoles-2", "ScopedUserRoles-3"}; !slices.Equal(ids, want) {
		t.Errorf("held by %v, want %v", ids, want)
	}
	if why := a.Why("DeploymentDelete", home, Target{}); why != nil {
		t.Errorf("not held, and yet because of %+v", why)
	}
}

func TestPermissionsForClients(t *testing.T) {
	t.Parallel()
	f := deployers([]octopus.Permission{octopus.PermDeploymentCreate, octopus.PermLifecycleView}, []octopus.Permission{octopus.PermUserView},
		octopus.ScopedUserRole{SpaceID: octopus.NullString(home), EnvironmentIDs: []string{"Environments-1"}, ProjectGroupIDs: []string{"ProjectGroups-1"}, TenantIDs: []string{"Tenants-1"}})
	f.Teams = append(f.Teams, octopus.Team{Resource: octopus.Resource{ID: octopus.TeamEveryone}, Name: "Everyone"})
	got := NewAccess(f).Permissions(nil)
	want := octopus.UserPermissions{
		SpacePermissions: octopus.Map[octopus.Permission, octopus.List[octopus.PermissionRestriction]]{
			octopus.PermDeploymentCreate: {{
				SpaceID: "Spaces-1", RestrictedToEnvironmentIDs: []string{"Environments-1"}, RestrictedToProjectGroupIDs: []string{"ProjectGroups-1"},
				RestrictedToTenantIDs: []string{"Tenants-1"},
			}},
			octopus.PermLifecycleView: {{SpaceID: "Spaces-1"}},
		},
		SystemPermissions: []octopus.Permission{octopus.PermUserView},
		Teams:             []octopus.TeamReference{{ID: "Teams-1", Name: "Deployers", IsDirectlyAssigned: true}, {ID: octopus.TeamEveryone, Name: "Everyone"}},
		IsTeamsComplete:   true, IsPermissionsComplete: true,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	elsewhere := NewAccess(f).Permissions(func(s ident.SpaceID) bool { return s == "Spaces-2" })
	if len(elsewhere.SpacePermissions)+len(elsewhere.SystemPermissions)+len(elsewhere.Teams) != 0 {
		t.Errorf("at another place: %+v", elsewhere)
	}
}

// Generators of small worlds, in which things meet often.

func few(prefix string) *rapid.Generator[[]string] {
	return rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) string {
		return fmt.Sprintf("%s-%d", prefix, rapid.IntRange(1, 3).Draw(t, "n"))
	}), 0, 2, rapid.ID[string])
}

func maybe(prefix string) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		if n := rapid.IntRange(0, 3).Draw(t, "n"); n > 0 {
			return fmt.Sprintf("%s-%d", prefix, n)
		}
		return ""
	})
}

func anyScope() *rapid.Generator[octopus.ScopedUserRole] {
	return rapid.Custom(func(t *rapid.T) octopus.ScopedUserRole {
		s := octopus.ScopedUserRole{
			Resource: octopus.Resource{ID: fmt.Sprintf("ScopedUserRoles-%d", rapid.IntRange(1, 1000).Draw(t, "id"))},
			SpaceID:  octopus.NullString(maybe("Spaces").Draw(t, "space")),
			TeamID:   "Teams-1", UserRoleID: fmt.Sprintf("UserRoles-%d", rapid.IntRange(1, 2).Draw(t, "role")),
		}
		s.ProjectIDs, s.ProjectGroupIDs = few("Projects").Draw(t, "projects"), few("ProjectGroups").Draw(t, "groups")
		s.EnvironmentIDs, s.TenantIDs = few("Environments").Draw(t, "environments"), few("Tenants").Draw(t, "tenants")
		return s
	})
}

func anyFacts() *rapid.Generator[Facts] {
	return rapid.Custom(func(t *rapid.T) Facts {
		f := Facts{
			Teams:     []octopus.Team{{Resource: octopus.Resource{ID: "Teams-1"}}},
			Scoped:    rapid.SliceOfN(anyScope(), 0, 4).Draw(t, "scoped"),
			Connected: map[string][]string{},
		}
		for _, tenant := range []string{"Tenants-1", "Tenants-2", "Tenants-3"} {
			f.Connected[tenant] = few("Projects").Draw(t, tenant)
		}
		for n := 1; n <= 2; n++ {
			some := rapid.SliceOf(rapid.SampledFrom(permission.All()))
			role := octopus.UserRole{Resource: octopus.Resource{ID: fmt.Sprintf("UserRoles-%d", n)}}
			for _, info := range some.Draw(t, "permissions") {
				role.GrantedSpacePermissions = append(role.GrantedSpacePermissions, info.Name)
				role.GrantedSystemPermissions = append(role.GrantedSystemPermissions, info.Name)
			}
			f.Roles = append(f.Roles, role)
		}
		return f
	})
}

type question struct {
	name   octopus.Permission
	space  ident.SpaceID
	target Target
}

func anyQuestion() *rapid.Generator[question] {
	return rapid.Custom(func(t *rapid.T) question {
		return question{
			rapid.SampledFrom(permission.All()).Draw(t, "permission").Name,
			ident.SpaceID(maybe("Spaces").Draw(t, "space")),
			Target{maybe("Projects").Draw(t, "project"), maybe("ProjectGroups").Draw(t, "group"), maybe("Environments").Draw(t, "environment"), maybe("Tenants").Draw(t, "tenant")},
		}
	})
}

func (q question) ask(a *Access) bool { return a.Can(string(q.name), q.space, q.target) }

// Giving a team one more role never takes anything from its members.
func TestGrantsOnlyAdd(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f, q := anyFacts().Draw(t, "facts"), anyQuestion().Draw(t, "question")
		before := q.ask(NewAccess(f))
		f.Scoped = append(slices.Clone(f.Scoped), anyScope().Draw(t, "more"))
		if before && !q.ask(NewAccess(f)) {
			t.Fatalf("%+v was held before", q)
		}
	})
}

// Limiting a role in a dimension that had no limit never gives its holders more.
// (Projects and groups are one dimension, so they are limited together.)
func TestScopingNeverWidens(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		f, q := anyFacts().Draw(t, "facts"), anyQuestion().Draw(t, "question")
		if len(f.Scoped) == 0 {
			return
		}
		i := rapid.IntRange(0, len(f.Scoped)-1).Draw(t, "which")
		narrow := f
		narrow.Scoped = slices.Clone(f.Scoped)
		s := &narrow.Scoped[i]
		switch dimension := rapid.IntRange(0, 2).Draw(t, "dimension"); {
		case dimension == 0 && len(s.ProjectIDs)+len(s.ProjectGroupIDs) == 0:
			s.ProjectIDs, s.ProjectGroupIDs = few("Projects").Draw(t, "projects"), few("ProjectGroups").Draw(t, "groups")
		case dimension == 1 && len(s.EnvironmentIDs) == 0:
			s.EnvironmentIDs = few("Environments").Draw(t, "environments")
		case dimension == 2 && len(s.TenantIDs) == 0:
			s.TenantIDs = few("Tenants").Draw(t, "tenants")
		}
		if !q.ask(NewAccess(f)) && q.ask(NewAccess(narrow)) {
			t.Fatalf("%+v is held only since the scope has a limit", q)
		}
	})
}

// The three ways of asking never disagree.
func TestAnswersAgree(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, q := NewAccess(anyFacts().Draw(t, "facts")), anyQuestion().Draw(t, "question")
		can := q.ask(a)
		if why := a.Why(string(q.name), q.space, q.target); (len(why) > 0) != can {
			t.Fatalf("%+v: can %v, because of %+v", q, can, why)
		}
		grants, held := a.Grants(string(q.name), q.space)
		if held != (len(grants) > 0) || can && !held {
			t.Fatalf("%+v: can %v, held %v by %v", q, can, held, grants)
		}
		if unlimited := slices.ContainsFunc(grants, resource.Grant.Unrestricted); unlimited && (!can || len(grants) > 1) {
			t.Fatalf("%+v: can %v, with %v", q, can, grants)
		}
	})
}
