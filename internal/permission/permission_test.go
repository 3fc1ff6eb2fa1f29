package permission

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/octopus"
)

func TestCatalogueIsSound(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, info := range All() {
		name := string(info.Name)
		if seen[strings.ToLower(name)] {
			t.Errorf("%s is there twice", name)
		}
		seen[strings.ToLower(name)] = true
		if !info.Space && !info.System {
			t.Errorf("%s holds nowhere", name)
		}
		if info.About == "" || strings.HasSuffix(info.About, ".") {
			t.Errorf("%s is about %q", name, info.About)
		}
		if !info.Space && info.Restrictions != 0 {
			t.Errorf("%s is of the system and can be restricted", name)
		}
	}
	if n := len(All()); n < 130 {
		t.Errorf("there are %d permissions", n)
	}
}

// TestSpellings checks against the names that clients compare with: the
// constants of the wire types are written down independently.
func TestSpellings(t *testing.T) {
	t.Parallel()
	for _, name := range []octopus.Permission{
		octopus.PermAdministerSystem, octopus.PermProjectView, octopus.PermVariableEditUnscoped, octopus.PermDeploymentCreate,
		octopus.PermMachinePolicyView, octopus.PermInterruptionViewSubmitResponsible, octopus.PermBuiltInFeedAdminister,
		octopus.PermCertificateExportPrivateKey, octopus.PermUserRoleEdit, octopus.PermEventRetentionDelete,
		octopus.PermTargetTagAdminister, octopus.PermPlatformHubEdit, octopus.PermTelemetryView, octopus.PermTaskViewLog,
		octopus.PermGitCredentialEdit, octopus.PermInsightsReportView, octopus.PermRetentionAdminister, octopus.PermSpaceDelete,
	} {
		if info, ok := Find(name); !ok || info.Name != name {
			t.Errorf("Find(%s) = %v, %v", name, info, ok)
		}
		if info, ok := Find(strings.ToUpper(string(name))); !ok || info.Name != name {
			t.Errorf("Find(%s) in upper case = %v, %v", name, info, ok)
		}
	}
	if _, ok := Find("ProjectAdore"); ok {
		t.Error("found a permission that does not exist")
	}
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	for name, want := range map[octopus.Permission]string{
		octopus.PermDeploymentDelete: "Delete deployments (restrictable to Environments, Projects, Tenants)",
		octopus.PermLifecycleView:    "See lifecycles",
	} {
		if info, _ := Find(name); info.Describe() != want {
			t.Errorf("%s is %q, want %q", name, info.Describe(), want)
		}
	}
}

func TestRolesAreSound(t *testing.T) {
	t.Parallel()
	roles := Roles()
	if !slices.IsSortedFunc(roles, func(a, b Role) int { return strings.Compare(a.Name, b.Name) }) {
		t.Error("the roles are not in order")
	}
	if n := len(roles); n < 20 {
		t.Errorf("there are %d roles", n)
	}
	ids := map[string]bool{}
	for _, r := range roles {
		if ids[r.ID] || !IsBuiltinRole(r.ID) || r.ID != strings.ToLower(r.ID) {
			t.Errorf("id %q", r.ID)
		}
		ids[r.ID] = true
		if len(r.Space)+len(r.System) == 0 || r.Description == "" {
			t.Errorf("%s is empty", r.Name)
		}
		for _, list := range [][]octopus.Permission{r.Space, r.System} {
			if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) {
				t.Errorf("the permissions of %s are not a sorted set: %v", r.Name, list)
			}
		}
		for _, p := range r.Space {
			if info, ok := Find(p); !ok || !info.Space {
				t.Errorf("%s grants %s in spaces, where it means nothing", r.Name, p)
			}
		}
		for _, p := range r.System {
			if info, ok := Find(p); !ok || !info.System {
				t.Errorf("%s grants %s on the system, where it means nothing", r.Name, p)
			}
		}
	}
}

// TestRolesBuildOnEachOther checks what the roles' descriptions promise.
func TestRolesBuildOnEachOther(t *testing.T) {
	t.Parallel()
	by := map[string]Role{}
	for _, r := range Roles() {
		by[strings.TrimPrefix(r.ID, builtinRole)] = r
	}
	for _, c := range []struct{ more, less string }{
		{"projectcontributor", "projectviewer"},
		{"projectdeployer", "projectcontributor"},
		{"projectlead", "projectcontributor"},
		{"projectinitiator", "projectviewer"},
		{"runbookproducer", "runbookconsumer"},
		{"environmentmanager", "environmentviewer"},
		{"spaceviewer", "projectviewer"},
		{"readonly", "spaceviewer"},
		{"systemadministrator", "systemmanager"},
	} {
		var missing []octopus.Permission
		for _, p := range append(slices.Clone(by[c.less].Space), by[c.less].System...) {
			if !slices.Contains(by[c.more].Space, p) && !slices.Contains(by[c.more].System, p) {
				missing = append(missing, p)
			}
		}
		if diff := cmp.Diff([]octopus.Permission(nil), missing); diff != "" {
			t.Errorf("%s lacks what %s has: %s", c.more, c.less, diff)
		}
	}
	for _, r := range []string{"projectviewer", "spaceviewer", "readonly", "environmentviewer"} {
		for _, p := range append(slices.Clone(by[r].Space), by[r].System...) {
			if info, _ := Find(p); !info.Looks() {
				t.Errorf("%s only looks, and yet grants %s", r, p)
			}
		}
	}
	has := func(role string, p octopus.Permission) bool {
		return slices.Contains(by[role].Space, p) || slices.Contains(by[role].System, p)
	}
	if has("projectlead", octopus.PermDeploymentCreate) || has("projectdeployer", octopus.PermReleaseCreate) || has("systemmanager", octopus.PermAdministerSystem) {
		t.Error("a role grants what is kept from it")
	}
}

func TestBuiltinTeams(t *testing.T) {
	t.Parallel()
	for team, role := range map[string]string{
		octopus.TeamEveryone: "", octopus.TeamAdministrators: RoleSystemAdministrator, octopus.TeamManagers: RoleSystemManager,
		SpaceManagersTeam("Spaces-3"): RoleSpaceManager, "Teams-1": "",
	} {
		if got := RoleOf(team); got != role {
			t.Errorf("RoleOf(%s) = %q", team, got)
		}
		if IsBuiltinTeam(team) == (team == "Teams-1") {
			t.Errorf("IsBuiltinTeam(%s)", team)
		}
	}
}
