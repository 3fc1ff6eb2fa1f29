package auth_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

func names(t *testing.T, docs []*docstore.Doc) []string {
	t.Helper()
	var all []string
	for _, doc := range docs {
		var u octopus.User
		if err := json.Unmarshal(doc.Body, &u); err != nil {
			t.Fatal(err)
		}
		all = append(all, u.Username)
	}
	return all
}

func TestFindUsers(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		w.user(`{"Username": "zoë", "DisplayName": "Zoë Q", "EmailAddress": "z@example.com"}`)
		w.user(`{"Username": "Bob", "DisplayName": "Robert 100%"}`)
		robot := w.person("robot")
		for _, c := range []struct {
			by    *auth.Principal
			query auth.UserQuery
			want  []string
			total int64
		}{
			{w.admin, auth.UserQuery{}, []string{"ada", "Bob", "robot", "zoë"}, 4},
			{w.admin, auth.UserQuery{Page: ident.Page{Skip: 1, Take: 2}}, []string{"Bob", "robot"}, 4},
			{w.admin, auth.UserQuery{Filter: "ZOË"}, []string{"zoë"}, 1},
			{w.admin, auth.UserQuery{Filter: "example"}, []string{"zoë"}, 1},
			{w.admin, auth.UserQuery{Filter: "rob"}, []string{"Bob", "robot"}, 2},
			{w.admin, auth.UserQuery{Filter: "0%"}, []string{"Bob"}, 1},
			{w.admin, auth.UserQuery{Filter: "_"}, nil, 0},
			{w.admin, auth.UserQuery{IDs: []string{strings.ToLower(robot.UserID()), "Users-999"}}, []string{"robot"}, 1},
			{w.admin, auth.UserQuery{IDs: []string{}}, nil, 0},
			{robot, auth.UserQuery{}, []string{"robot"}, 1},
			{robot, auth.UserQuery{Filter: "ada"}, nil, 0},
		} {
			docs, total, err := w.FindUsers(w.ctx, c.by, c.query)
			w.ok(err)
			if diff := cmp.Diff(c.want, names(w.t, docs)); diff != "" || total != c.total {
				w.t.Errorf("%+v: %d in all, %s", c.query, total, diff)
			}
		}
	})
}

func TestUserDocuments(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		t := w.t
		id := w.user(`{"Username": " Bob ", "Password": "bob's password", "EmailAddress": " bob@example.com", "Pronouns": "they", "Id": "Users-77", "Created": "1999-01-01"}`)
		bob := load[octopus.User](w, "users", id)
		if bob.Username != "Bob" || bob.DisplayName != "Bob" || bob.EmailAddress != "bob@example.com" || !bob.IsActive || bob.IsService ||
			!bob.CanPasswordBeEdited || bob.Created == nil || bob.Created.Year() == 1999 || id == "Users-77" {
			t.Errorf("stored %+v", bob)
		}
		doc, err := w.User(w.ctx, w.admin, "bob")
		w.ok(err)
		if doc.ID != id || !strings.Contains(string(doc.Body), `"Pronouns":"they"`) {
			t.Errorf("found %s by name: %s", doc.ID, doc.Body)
		}
		made := bob.Created
		doc, err = w.ReplaceUser(w.as(w.admin), w.admin, id, []byte(`{"Username": "bob2", "IsActive": true, "IsRequestor": true, "Created": "1999-01-01"}`), 0)
		w.ok(err)
		if bob = load[octopus.User](w, "users", doc.ID); bob.Username != "bob2" || bob.EmailAddress != "" || bob.IsRequestor || !bob.Created.Equal(*made) {
			t.Errorf("replaced by %+v", bob)
		}
		_, err = w.User(w.ctx, w.admin, "bob")
		w.refused(err, fault.NotFound)
		_, err = w.Login(w.ctx, auth.SignIn{Username: "bob2", Password: "bob's password"})
		w.ok(err)
		_, err = w.ReplaceUser(w.as(w.admin), w.admin, id, []byte(`{"Username": "bob2"}`), doc.Version+5)
		w.refused(err, fault.Conflict)

		for body, field := range map[string]string{
			`{}`:                  "Username",
			`{"Username": "  "}`:  "Username",
			`{"Username": "ADA"}`: "Username",
			`{"Username": "` + strings.Repeat("x", 65) + `"}`:      "Username",
			`{"Username": "a\nb"}`:                                 "Username",
			`{"Username": "c", "EmailAddress": "no address"}`:      "EmailAddress",
			`{"Username": "c", "EmailAddress": "C <c@d.example>"}`: "EmailAddress",
			`{"Username": "c", "Password": "short"}`:               "Password",
			`{"Username": "c", "IsActive": "yes"}`:                 "IsActive",
		} {
			_, err := w.CreateUser(w.as(w.admin), w.admin, []byte(body))
			w.refused(err, fault.Invalid)
			if f := fault.Faults(err); f[0].Field != field {
				t.Errorf("%s: %v is about %q", body, err, f[0].Field)
			}
		}
	})
}

// TestPeopleChangeThemselves: everybody may change their name, address and
// password, and nothing else of themselves.
func TestPeopleChangeThemselves(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		id := w.user(`{"Username": "bob", "Password": "bob's password", "Pronouns": "they"}`)
		sess, err := w.Login(w.ctx, auth.SignIn{Username: "bob", Password: "bob's password"})
		w.ok(err)
		bob, err := w.BySession(w.ctx, sess.Token)
		w.ok(err)
		body := `{"Username": "root", "DisplayName": "Bobby", "EmailAddress": "b@example.com", "IsActive": false, "IsService": true, "Password": "bobby's password"}`
		_, err = w.ReplaceUser(w.as(bob), bob, "me", []byte(body), 0)
		w.ok(err)
		got := load[octopus.User](w, "users", id)
		if got.Username != "bob" || got.DisplayName != "Bobby" || got.EmailAddress != "b@example.com" || !got.IsActive || got.IsService {
			w.t.Errorf("bob made himself %+v", got)
		}
		_, err = w.Login(w.ctx, auth.SignIn{Username: "bob", Password: "bobby's password"})
		w.ok(err)

		_, err = w.User(w.ctx, bob, w.admin.UserID())
		w.refused(err, fault.NotFound)
		_, err = w.ReplaceUser(w.as(bob), bob, w.admin.UserID(), []byte(body), 0)
		w.refused(err, fault.NotFound)
		_, err = w.CreateUser(w.as(bob), bob, []byte(`{"Username": "c"}`))
		w.refused(err, fault.Forbidden)
		w.refused(w.DeleteUser(w.as(bob), bob, "me"), fault.Conflict)
		w.refused(w.DeleteUser(w.as(bob), bob, w.admin.UserID()), fault.NotFound)
		for _, lock := range []string{`{"Username": "ada"}`, `{"Username": "ada", "IsActive": true, "IsService": true}`} {
			_, err = w.ReplaceUser(w.as(w.admin), w.admin, "me", []byte(lock), 0)
			w.refused(err, fault.Invalid)
		}
	})
}

// TestManagersMakeNoAdministrators: whoever manages users, teams and roles
// cannot by that become an administrator, or take an administrator's place.
func TestManagersMakeNoAdministrators(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		manager := w.person("manager", octopus.TeamManagers)
		other := w.person("other", octopus.TeamManagers)
		if !manager.Can(octopus.PermUserEdit, "", auth.Target{}) || manager.Can(octopus.PermAdministerSystem, "", auth.Target{}) {
			w.t.Fatal("the team of managers has another role than expected")
		}
		me, ctx := manager.UserID(), w.as(manager)

		// Through teams and roles.
		w.refused(change(w, manager, "teams", octopus.TeamAdministrators, func(t *octopus.Team) { t.MemberUserIDs = append(t.MemberUserIDs, me) }), fault.Forbidden)
		team := w.made(manager, "teams", "", octopus.Team{Name: "Mine", MemberUserIDs: []string{me}})
		_, err := w.create(manager, "scopeduserroles", "", octopus.ScopedUserRole{TeamID: team, UserRoleID: "userroles-systemadministrator"})
		w.refused(err, fault.Forbidden)
		w.made(manager, "scopeduserroles", "", octopus.ScopedUserRole{TeamID: team, UserRoleID: "userroles-systemmanager"})
		_, err = w.create(manager, "userroles", "", octopus.UserRole{Name: "Root", GrantedSystemPermissions: []octopus.Permission{octopus.PermAdministerSystem}})
		w.refused(err, fault.Forbidden)
		role := w.made(manager, "userroles", "", octopus.UserRole{Name: "People", GrantedSystemPermissions: []octopus.Permission{octopus.PermUserEdit, octopus.PermUserView}})
		w.refused(change(w, manager, "userroles", role, func(r *octopus.UserRole) {
			r.GrantedSystemPermissions = append(r.GrantedSystemPermissions, octopus.PermAdministerSystem)
		}), fault.Forbidden)
		w.refused(change(w, manager, "scopeduserroles", w.made(manager, "scopeduserroles", "", octopus.ScopedUserRole{TeamID: team, UserRoleID: role}), func(s *octopus.ScopedUserRole) {
			s.UserRoleID = "userroles-systemadministrator"
		}), fault.Forbidden)

		// Through an administrator's own account.
		admin := w.admin.UserID()
		w.refused(w.SetPassword(ctx, manager, admin, "a manager's password"), fault.Forbidden)
		_, err = w.ReplaceUser(ctx, manager, admin, []byte(`{"Username": "ada", "IsActive": true, "Password": "a manager's password"}`), 0)
		w.refused(err, fault.Forbidden)
		w.refused(w.DeleteUser(ctx, manager, admin), fault.Forbidden)
		w.refused(w.RevokeSessions(ctx, manager, admin), fault.Forbidden)
		robot := w.person("robot", octopus.TeamAdministrators)
		_, err = w.CreateAPIKey(ctx, manager, robot.UserID(), octopus.APIKeyCommand{})
		w.refused(err, fault.Forbidden)

		// Among themselves managers manage.
		w.key(manager, other.UserID())
		w.ok(w.DeleteUser(ctx, manager, other.UserID()))
		w.ok(change(w, w.admin, "teams", octopus.TeamAdministrators, func(t *octopus.Team) { t.MemberUserIDs = append(t.MemberUserIDs, me) }))
	})
}

// TestSpaceManagersStayInTheirSpace: a role with power over the system cannot be
// had through a team of a space.
func TestSpaceManagersStayInTheirSpace(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		manager := w.person("manager", "teams-spacemanagers-Spaces-1")
		team := w.made(manager, "teams", "Spaces-1", octopus.Team{Name: "Ours", MemberUserIDs: []string{manager.UserID()}})
		for _, role := range []string{"userroles-projectdeployer", "userroles-readonly", "userroles-spacemanager"} {
			w.made(manager, "scopeduserroles", "Spaces-1", octopus.ScopedUserRole{TeamID: team, UserRoleID: role})
		}
		_, err := w.create(manager, "scopeduserroles", "Spaces-1", octopus.ScopedUserRole{TeamID: team, UserRoleID: "userroles-systemmanager"})
		w.refused(err, fault.Invalid)
		mixed := w.made(w.admin, "userroles", "", octopus.UserRole{
			Name: "Mixed", GrantedSpacePermissions: []octopus.Permission{octopus.PermProjectView}, GrantedSystemPermissions: []octopus.Permission{octopus.PermConfigureServer},
		})
		_, err = w.create(manager, "scopeduserroles", "Spaces-1", octopus.ScopedUserRole{TeamID: team, UserRoleID: mixed})
		w.refused(err, fault.Forbidden)
		w.made(w.admin, "scopeduserroles", "Spaces-1", octopus.ScopedUserRole{TeamID: team, UserRoleID: mixed})
	})
}

func TestSomebodyCanAlwaysAdminister(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		robot := w.person("robot", octopus.TeamAdministrators) // cannot sign in
		admin := w.admin.UserID()
		leave := func(t *octopus.Team) { t.MemberUserIDs = []string{robot.UserID()} }
		w.refused(change(w, w.admin, "teams", octopus.TeamAdministrators, leave), fault.Conflict)
		w.refused(w.DeleteUser(w.as(robot), robot, admin), fault.Conflict)
		_, err := w.ReplaceUser(w.as(robot), robot, admin, []byte(`{"Username": "ada", "IsActive": false}`), 0)
		w.refused(err, fault.Conflict)
		_, err = w.ReplaceUser(w.as(robot), robot, admin, []byte(`{"Username": "ada", "IsActive": true, "IsService": true}`), 0)
		w.refused(err, fault.Conflict)

		second := w.user(`{"Username": "grace", "Password": "grace's password"}`)
		w.join(octopus.TeamAdministrators, second)
		w.ok(w.DeleteUser(w.as(robot), robot, admin))
		_, err = w.ReplaceUser(w.as(robot), robot, second, []byte(`{"Username": "grace", "IsActive": false}`), 0)
		w.refused(err, fault.Conflict)
	})
}

func TestBuiltinsAreProtected(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		t := w.t
		own := func(team string) string { // the scoped role that a team is there for
			var id string
			for _, s := range w.scoped(team) {
				id = s.ID
			}
			return id
		}
		managers := "teams-spacemanagers-Spaces-1"
		for team, other := range map[string]string{
			octopus.TeamEveryone: "", octopus.TeamAdministrators: "userroles-systemmanager",
			octopus.TeamManagers: "userroles-systemadministrator", managers: "userroles-spaceviewer",
		} {
			got := load[octopus.Team](w, "teams", team)
			if got.CanBeDeleted || got.CanBeRenamed || got.CanChangeMembers != (team != octopus.TeamEveryone) {
				t.Errorf("%+v", got)
			}
			w.refused(w.remove(w.admin, "teams", team), fault.Conflict)
			w.refused(change(w, w.admin, "teams", team, func(t *octopus.Team) { t.Name = "Renamed" }), fault.Invalid)
			w.ok(change(w, w.admin, "teams", team, func(t *octopus.Team) { t.Description = "Described"; t.CanBeDeleted = true }))
			if load[octopus.Team](w, "teams", team).CanBeDeleted {
				t.Errorf("%s was made deletable", team)
			}
			if id := own(team); id != "" {
				w.refused(w.remove(w.admin, "scopeduserroles", id), fault.Conflict)
				w.refused(change(w, w.admin, "scopeduserroles", id, func(s *octopus.ScopedUserRole) { s.UserRoleID = other }), fault.Conflict)
			} else if team != octopus.TeamEveryone {
				t.Errorf("%s has no role", team)
			}
		}
		w.made(w.admin, "environments", "Spaces-1", thing{Name: "Production"})
		w.refused(change(w, w.admin, "scopeduserroles", own(managers), func(s *octopus.ScopedUserRole) { s.EnvironmentIDs = []string{"Environments-1"} }), fault.Conflict)
		w.refused(change(w, w.admin, "teams", octopus.TeamEveryone, func(t *octopus.Team) { t.MemberUserIDs = []string{w.admin.UserID()} }), fault.Invalid)

		w.refused(w.remove(w.admin, "userroles", "userroles-projectviewer"), fault.Conflict)
		w.refused(change(w, w.admin, "userroles", "userroles-projectviewer", func(r *octopus.UserRole) { r.Description = "Mine" }), fault.Invalid)
		if id := w.made(w.admin, "userroles", "", octopus.UserRole{Resource: octopus.Resource{ID: "userroles-mine"}, Name: "Mine"}); !load[octopus.UserRole](w, "userroles", id).CanBeDeleted {
			t.Errorf("%s passes for built in", id)
		} else {
			w.ok(w.remove(w.admin, "userroles", id))
		}
		team := w.made(w.admin, "teams", "", octopus.Team{Name: "Ours"})
		if got := load[octopus.Team](w, "teams", team); !got.CanBeDeleted || !got.CanBeRenamed || !got.CanChangeMembers || !got.CanChangeRoles || got.Slug != "ours" {
			t.Errorf("%+v", got)
		}
		scoped := w.made(w.admin, "scopeduserroles", "Spaces-1", octopus.ScopedUserRole{TeamID: team, UserRoleID: "userroles-projectviewer"})
		w.ok(w.remove(w.admin, "teams", team))
		if n := w.count(`SELECT count(*) FROM documents WHERE kind = 'scopeduserroles' AND id = ?`, scoped); n != 0 {
			t.Error("a role is given to a team that was deleted")
		}
	})
}

// scoped lists what roles a team has.
func (w *world) scoped(team string) []octopus.ScopedUserRole {
	w.t.Helper()
	var all []octopus.ScopedUserRole
	for _, doc := range w.list("scopeduserroles", docstore.Query{Where: []docstore.Match{{Path: "TeamId", Any: []string{team}}}}) {
		var s octopus.ScopedUserRole
		w.ok(json.Unmarshal(doc.Body, &s))
		all = append(all, s)
	}
	return all
}

func TestRoleDocuments(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		id := w.made(w.admin, "userroles", "", map[string]any{
			"Name": "Releasers", "SupportedRestrictions": []string{"Moon"}, "CanBeDeleted": false,
			"GrantedSpacePermissions":  []string{"releasecreate", "ProcessView", "ReleaseCreate", "LifecycleView"},
			"GrantedSystemPermissions": []string{"SpaceView"},
		})
		got := load[octopus.UserRole](w, "userroles", id)
		got.Resource = octopus.Resource{}
		want := octopus.UserRole{
			Name:                         "Releasers",
			GrantedSpacePermissions:      []octopus.Permission{"LifecycleView", "ProcessView", "ReleaseCreate"},
			GrantedSystemPermissions:     []octopus.Permission{"SpaceView"},
			SupportedRestrictions:        []string{"Projects", "Tenants"},
			SpacePermissionDescriptions:  []string{"Create releases (restrictable to Projects, Tenants)", "See deployment processes and channels (restrictable to Projects)", "See lifecycles"},
			SystemPermissionDescriptions: []string{"See all spaces"},
			CanBeDeleted:                 true,
		}
		if diff := cmp.Diff(want, got); diff != "" {
			w.t.Error(diff)
		}
		for _, bad := range []octopus.UserRole{
			{Name: "a", GrantedSpacePermissions: []octopus.Permission{"ProjectAdore"}},
			{Name: "a", GrantedSpacePermissions: []octopus.Permission{octopus.PermUserEdit}},
			{Name: "a", GrantedSystemPermissions: []octopus.Permission{octopus.PermProjectEdit}},
			{Name: "project viewer"},
		} {
			_, err := w.create(w.admin, "userroles", "", bad)
			w.refused(err, fault.Invalid)
		}
	})
}

func TestScopedRoleDocuments(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		viewer := "userroles-projectviewer"
		team := w.made(w.admin, "teams", "", octopus.Team{Name: "All"})
		ours := w.made(w.admin, "teams", "Spaces-1", octopus.Team{Name: "Ours"})
		here := w.made(w.admin, "projects", "Spaces-1", thing{Name: "Here"})
		there := w.made(w.admin, "projects", "Spaces-2", thing{Name: "There"})
		for _, c := range []struct {
			space ident.SpaceID
			s     octopus.ScopedUserRole
			field string
		}{
			{"", octopus.ScopedUserRole{TeamID: team, UserRoleID: viewer}, "SpaceId"},
			{"Spaces-2", octopus.ScopedUserRole{TeamID: ours, UserRoleID: viewer}, "TeamId"},
			{"Spaces-1", octopus.ScopedUserRole{TeamID: ours, UserRoleID: "userroles-systemmanager"}, "UserRoleId"},
			{"Spaces-1", octopus.ScopedUserRole{TeamID: "Teams-999", UserRoleID: viewer}, "TeamId"},
			{"Spaces-1", octopus.ScopedUserRole{TeamID: team}, "UserRoleId"},
			{"Spaces-1", octopus.ScopedUserRole{TeamID: team, UserRoleID: viewer, ProjectIDs: []string{there}}, "ProjectIds"},
			{"Spaces-1", octopus.ScopedUserRole{TeamID: team, UserRoleID: viewer, ProjectIDs: []string{""}}, "ProjectIds"},
			{"Spaces-1", octopus.ScopedUserRole{TeamID: team, UserRoleID: viewer, EnvironmentIDs: []string{"Environments-9"}}, "EnvironmentIds"},
			{"", octopus.ScopedUserRole{TeamID: team, UserRoleID: "userroles-systemmanager", ProjectIDs: []string{here}}, "ProjectIds"},
		} {
			_, err := w.create(w.admin, "scopeduserroles", c.space, c.s)
			w.refused(err, fault.Invalid)
			if f := fault.Faults(err)[0].Field; f != c.field {
				w.t.Errorf("%+v in %q: %v is about %q", c.s, c.space, err, f)
			}
		}
		id := w.made(w.admin, "scopeduserroles", "Spaces-1", octopus.ScopedUserRole{TeamID: team, UserRoleID: viewer, ProjectIDs: []string{here, here}})
		if got := load[octopus.ScopedUserRole](w, "scopeduserroles", id); !slices.Equal(got.ProjectIDs, []string{here}) || got.SpaceID != "Spaces-1" {
			w.t.Errorf("%+v", got)
		}

		// A scope does not widen when what it names is deleted, and can still be changed.
		robot := w.person("robot", team)
		key := w.key(robot, "me")
		w.ok(w.remove(w.admin, "projects", here))
		if w.byKey(key).Can(octopus.PermProjectView, "Spaces-1", auth.Target{Project: "Projects-77"}) {
			w.t.Error("the deletion of the only project in a scope gave all others")
		}
		env := w.made(w.admin, "environments", "Spaces-1", thing{Name: "Test"})
		w.ok(change(w, w.admin, "scopeduserroles", id, func(s *octopus.ScopedUserRole) { s.EnvironmentIDs = []string{env} }))
		w.refused(w.remove(w.admin, "userroles", viewer), fault.Conflict)
	})
}

// TestTenantsReachTheirProjects: connections of tenants come from their documents.
func TestTenantsReachTheirProjects(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		one := w.made(w.admin, "projects", "Spaces-1", thing{Name: "One"})
		two := w.made(w.admin, "projects", "Spaces-1", thing{Name: "Two"})
		tenant := w.made(w.admin, "tenants", "Spaces-1", thing{Name: "Acme", Projects: []string{one}})
		robot := w.person("robot")
		key := w.key(robot, "me")
		team := w.made(w.admin, "teams", "", octopus.Team{Name: "Acme's", MemberUserIDs: []string{robot.UserID()}})
		w.made(w.admin, "scopeduserroles", "Spaces-1", octopus.ScopedUserRole{TeamID: team, UserRoleID: "userroles-projectviewer", TenantIDs: []string{tenant}})
		can := func(project string) bool {
			return w.byKey(key).Can(octopus.PermProjectView, "Spaces-1", auth.Target{Project: project})
		}
		if !can(one) || can(two) {
			w.t.Error("a tenant's viewer sees other projects than the tenant's")
		}
		w.ok(change(w, w.admin, "tenants", tenant, func(v *thing) { v.Projects = []string{two} }))
		if can(one) || !can(two) {
			w.t.Error("the tenant was connected to another project, and nobody noticed")
		}
	})
}

func TestOverview(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		t := w.t
		robot := w.person("robot")
		w.team("Viewers", "userroles-environmentviewer", "Spaces-2", robot.UserID())
		p, err := w.Permissions(w.ctx, w.admin, "robot", auth.Places{System: true})
		w.ok(err)
		if len(p.SpacePermissions) != 10 || !slices.Equal(p.SystemPermissions, []octopus.Permission{octopus.PermTeamView}) || len(p.Teams) != 2 {
			t.Errorf("%+v", p)
		}
		p, err = w.Permissions(w.ctx, w.admin, "robot", auth.Places{Spaces: []string{"Spaces-1"}})
		w.ok(err)
		if len(p.SpacePermissions)+len(p.SystemPermissions)+len(p.Teams) != 0 {
			t.Errorf("elsewhere: %+v", p)
		}
		_, err = w.Permissions(w.ctx, robot, w.admin.UserID(), auth.Places{})
		w.refused(err, fault.NotFound)

		teams, err := w.TeamsOf(w.ctx, robot, "me", auth.Places{System: true})
		w.ok(err)
		if len(teams) != 2 || teams[0].Name != "Viewers" || !teams[0].IsDirectlyAssigned || teams[1].ID != octopus.TeamEveryone || teams[1].IsDirectlyAssigned {
			t.Errorf("teams %+v", teams)
		}
		spaces, every, err := w.SpacesOf(w.ctx, robot, "me")
		w.ok(err)
		if !slices.Equal(spaces, []ident.SpaceID{"Spaces-2"}) || every {
			t.Errorf("spaces %v, all %v", spaces, every)
		}
		if _, every, err = w.SpacesOf(w.ctx, w.admin, "me"); err != nil || !every {
			t.Errorf("ada sees all spaces: %v, %v", every, err)
		}
		why, err := w.Why(w.ctx, robot, "me", "MachineView", "Spaces-2", auth.Target{Environment: "Environments-1"})
		w.ok(err)
		if len(why) != 1 || why[0].Team.Name != "Viewers" || why[0].UserRole.ID != "userroles-environmentviewer" {
			t.Errorf("because of %+v", why)
		}
		_, err = w.Why(w.ctx, robot, "me", "MachineAdore", "Spaces-2", auth.Target{})
		w.refused(err, fault.Invalid)
		csv, err := w.PermissionsCSV(w.ctx, w.admin, "robot", auth.Places{System: true})
		w.ok(err)
		lines := strings.Split(strings.TrimSpace(string(csv)), "\n")
		if len(lines) != 12 || lines[1] != "TeamView,,,,," || lines[2] != "AccountView,Spaces-2,,,," {
			t.Errorf("%s", csv)
		}
		if n := len(auth.Descriptions()); n < 130 {
			t.Errorf("%d permissions are described", n)
		}
		access, err := w.AccessOf(w.ctx, robot.UserID())
		w.ok(err)
		if !access.InTeam("TEAMS-EVERYONE") || access.InTeam(octopus.TeamManagers) {
			t.Errorf("in teams %v", access.Teams())
		}
		_, err = w.AccessOf(w.ctx, "Users-999")
		w.refused(err, fault.NotFound)
	})
}

func TestBootstrap(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		t := w.t
		before := w.count(`SELECT count(*) FROM events`)
		w.ok(w.EnsureBuiltins(w.ctx))
		again := auth.Administrator{Username: adminName, Password: "another password", APIKey: adminKey}
		id, err := w.CreateAdministrator(w.ctx, again)
		w.ok(err)
		if id != w.admin.UserID() || w.count(`SELECT count(*) FROM events`) != before {
			t.Error("the second start changed something")
		}
		_, err = w.Login(w.ctx, auth.SignIn{Username: adminName, Password: adminPassword})
		w.ok(err)
		if !w.admin.Can(octopus.PermAdministerSystem, "", auth.Target{}) || !w.admin.Can(octopus.PermProjectDelete, "Spaces-1", auth.Target{}) || w.admin.Can(octopus.PermProjectView, "Spaces-2", auth.Target{}) {
			t.Error("the first administrator administers the server and manages the first space")
		}
		if has, err := w.HasAdministrator(w.ctx); err != nil || !has {
			t.Errorf("has an administrator: %v, %v", has, err)
		}
		for _, bad := range []auth.Administrator{
			{Username: "bob", Password: "short"},
			{Username: "", Password: "long enough"},
			{Username: "bob", APIKey: "API-lower"},
			{Username: "bob", APIKey: "secret"},
		} {
			_, err := w.CreateAdministrator(w.ctx, bad)
			w.refused(err, fault.Invalid)
		}
		_, err = w.CreateAdministrator(w.ctx, auth.Administrator{Username: "bob", APIKey: adminKey})
		w.refused(err, fault.Conflict)

		// A newer version grants more: simulated by an older one that granted less.
		w.ok(change(w, w.nobody(), "userroles", "userroles-projectviewer", func(r *octopus.UserRole) {
			r.GrantedSpacePermissions = []octopus.Permission{octopus.PermProjectView, octopus.PermAccountDelete}
		}))
		w.ok(w.EnsureBuiltins(w.ctx))
		r := load[octopus.UserRole](w, "userroles", "userroles-projectviewer")
		if len(r.GrantedSpacePermissions) != 25 || !slices.Contains(r.GrantedSpacePermissions, octopus.PermAccountDelete) {
			t.Errorf("the role grants %v", r.GrantedSpacePermissions)
		}
		// A role that is new in this version finds its name taken.
		w.write(w.ctx, func(tx *db.Tx) error { return w.store.In(tx).Delete(w.ctx, "userroles", "userroles-tenantmanager") })
		mine := w.made(w.admin, "userroles", "", octopus.UserRole{Name: "tenant manager"})
		w.ok(w.EnsureBuiltins(w.ctx))
		if got := load[octopus.UserRole](w, "userroles", "userroles-tenantmanager").Name; got != "Tenant Manager (built in)" {
			t.Errorf("beside %s it is called %q", mine, got)
		}
		w.ok(w.EnsureBuiltins(w.ctx))
		w.refused(w.ResetPassword(w.ctx, "unknown", "long enough"), fault.NotFound)
		w.user(`{"Username": "robot", "IsService": true}`)
		w.refused(w.ResetPassword(w.ctx, "robot", "long enough"), fault.Invalid)
	})
}

func TestManageSpace(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		bob := w.user(`{"Username": "bob"}`)
		team := w.made(w.admin, "teams", "", octopus.Team{Name: "Operators"})
		managers := func() (teams []string) {
			for _, doc := range w.list("scopeduserroles", docstore.Query{Space: "Spaces-1", Where: []docstore.Match{{Path: "UserRoleId", Any: []string{"userroles-spacemanager"}}}}) {
				var s octopus.ScopedUserRole
				w.ok(json.Unmarshal(doc.Body, &s))
				teams = append(teams, s.TeamID)
			}
			slices.Sort(teams)
			return teams
		}
		own := "teams-spacemanagers-Spaces-1"
		for range 2 {
			w.manage("Spaces-1", []string{team, octopus.TeamManagers, own}, []string{bob})
			if diff := cmp.Diff([]string{team, octopus.TeamManagers, own}, managers()); diff != "" {
				w.t.Error(diff)
			}
			if got := load[octopus.Team](w, "teams", own); !slices.Equal(got.MemberUserIDs, []string{bob}) || got.Name != "Space Managers" || got.SpaceID != "Spaces-1" {
				w.t.Errorf("%+v", got)
			}
		}
		w.manage("Spaces-1", []string{octopus.TeamManagers}, nil)
		if diff := cmp.Diff([]string{octopus.TeamManagers, own}, managers()); diff != "" {
			w.t.Error(diff)
		}
	})
}

// TestFirstSpaceBeforeRoles: a server's first space may be made before its roles.
func TestFirstSpaceBeforeRoles(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		w := &world{t: t, ctx: t.Context(), db: d}
		w.Service, w.store = service(t, d, nil)
		w.manage("Spaces-1", nil, nil)
		if has, err := w.HasAdministrator(w.ctx); err != nil || has {
			t.Errorf("has an administrator: %v, %v", has, err)
		}
		w.ok(w.EnsureBuiltins(w.ctx))
		if n := len(w.scoped("teams-spacemanagers-Spaces-1")); n != 1 {
			t.Errorf("the managers have %d roles", n)
		}
	})
}
