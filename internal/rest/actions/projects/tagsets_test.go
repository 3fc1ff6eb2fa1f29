package projects_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

func (w *world) tagSet(id string) (s octopus.TagSet) {
	w.T.Helper()
	w.Must(200, "GET", "/api/tagsets/"+id, "").Into(&s)
	return s
}

// TestTagsAreFollowed: a tag keeps its id, and what names it follows its name.
func TestTagsAreFollowed(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		set := w.Create("/api/tagsets", `{"Name":"100% \"sure\"","Scopes":["Tenant","Environment","Project"],"Tags":[{"Name":"Hot_1"},{"Name":"Cold"}]}`)
		other := w.Create("/api/tagsets", `{"Name":"Other","Tags":[{"Name":"Hot_1"}]}`)
		tenant := w.Create("/api/tenants", `{"Name":"T","TenantTags":["100% \"SURE\"/hot_1","Other/Hot_1"]}`)
		w.Create("/api/accounts", `{"Name":"A","AccountType":"Token","Token":{"HasValue":true,"NewValue":"s"},"TenantTags":["100% \"sure\"/Hot_1"]}`)
		v := value("V", "x")
		v.Scope.TenantTag = octopus.List[string]{`100% "sure"/Cold`}
		w.mustPut(actiontest.Admin, w.read(actiontest.Admin, w.web), v, secret("S", "hidden"))

		var made octopus.Tenant
		w.Must(200, "GET", "/api/tenants/"+tenant, "").Into(&made)
		if diff := cmp.Diff(octopus.List[string]{`100% "sure"/Hot_1`, "Other/Hot_1"}, made.TenantTags); diff != "" {
			t.Errorf("the tags are not spelled as their sets do (-want +got):\n%s", diff)
		}

		// Both tags and the set get another name, and the tags change places.
		before := w.tagSet(set)
		w.Must(200, "PUT", "/api/tagsets/"+set, `{"Name":"Sure","Scopes":["Tenant"],"Tags":[{"Id":"`+before.Tags[1].ID+`","Name":"Hot_1"},{"Id":"`+before.Tags[0].ID+`","Name":"Warm"}]}`)
		w.Must(200, "GET", "/api/tenants/"+tenant, "").Into(&made)
		if diff := cmp.Diff(octopus.List[string]{"Sure/Warm", "Other/Hot_1"}, made.TenantTags); diff != "" {
			t.Errorf("the tenant's tags (-want +got):\n%s", diff)
		}
		after := w.read(actiontest.Admin, w.web)
		if diff := cmp.Diff(octopus.List[string]{"Sure/Hot_1"}, after.Variables[0].Scope.TenantTag); diff != "" {
			t.Errorf("the variable's tags (-want +got):\n%s", diff)
		}
		if got := w.revealed("variableset-" + w.web)["S"]; got != "hidden" {
			t.Errorf("the secret beside it is %q", got)
		}

		// What is used stays.
		w.Refused(409, "PUT", "/api/tagsets/"+set, `{"Name":"Sure","Tags":[{"Id":"`+before.Tags[1].ID+`","Name":"Hot_1"}]}`, "'Sure/Warm' cannot be deleted because it is used by 'T' ("+tenant+")")
		w.Refused(409, "DELETE", "/api/tagsets/"+other, "", "used by 'T'")
		w.Must(200, "PUT", "/api/tenants/"+tenant, `{"Name":"T"}`)
		w.Must(200, "DELETE", "/api/tagsets/"+other, "")
		w.Refused(409, "DELETE", "/api/tagsets/"+set, "", "used by 'A'")
	})
}

// TestTagSetTypes: how many tags of a set a thing may have, and which.
func TestTagSetTypes(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.Create("/api/tagsets", `{"Name":"One","Type":"SingleSelect","Tags":[{"Name":"a"},{"Name":"b"}]}`)
		free := w.Create("/api/tagsets", `{"Name":"Free","Type":"FreeText"}`)
		w.Refused(400, "POST", "/api/tenants", `{"Name":"T","TenantTags":["One/a","One/b"]}`, "more than one tag of the set 'One'")
		w.Refused(400, "POST", "/api/tenants", `{"Name":"T","TenantTags":["One"]}`, "TenantTags names 'One'")
		w.Refused(400, "POST", "/api/projects", `{"Name":"P","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1","ProjectTags":["One/a"]}`, "no tag for projects")
		w.Create("/api/tenants", `{"Name":"T","TenantTags":["one/A","free/whatever"]}`)
		w.Must(200, "PUT", "/api/tagsets/"+free, `{"Name":"Freed","Type":"FreeText"}`)
		var list struct{ Items []octopus.Tenant }
		w.Must(200, "GET", "/api/tenants?tags=Freed/whatever", "").Into(&list)
		if len(list.Items) != 1 || !cmp.Equal(list.Items[0].TenantTags, octopus.List[string]{"One/a", "Freed/whatever"}) {
			t.Errorf("found %+v", list.Items)
		}
		w.Refused(409, "DELETE", "/api/tagsets/"+free, "", "'Freed/whatever' cannot be deleted")
	})
}

// TestWhatIsForTenants: whatever says by tags which tenants it is for names tags that
// there are, several of a set if it likes, and is spelled as the set is; the same holds
// for the ids of environments, tenants, channels and targets.
func TestWhatIsForTenants(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.Create("/api/tagsets", `{"Name":"One","Type":"SingleSelect","Tags":[{"Name":"a"},{"Name":"b"}]}`)
		w.Create("/api/tagsets", `{"Name":"Of projects","Scopes":["Project"],"Tags":[{"Name":"a"}]}`)
		step := `{"Version":%d,"Steps":[{"Name":"s","Actions":[{"Name":"s","ActionType":"Octopus.Script","TenantTags":[%s]%s}]}]}`
		trigger := `"ProjectId":"` + w.web + `","Filter":{"FilterType":"OnceDailySchedule","StartTime":"2026-01-01T09:00:00.000+00:00","Timezone":"UTC"},"Action":{"ActionType":"DeployLatestRelease","SourceEnvironmentIds":["` + w.dev + `"],"DestinationEnvironmentId":"` + w.dev + `"`
		for _, c := range []struct {
			method, path, field string
			body                func(tags, more string) string
			// missing are members that name what there is not, by the field of the fault.
			missing map[string]string
		}{
			{
				"POST", "machines", "TenantTags",
				func(tags, more string) string {
					return `{"Name":"M","EnvironmentIds":["` + w.dev + `"],"Roles":["r"],"Endpoint":{"CommunicationStyle":"None"},"TenantTags":[` + tags + `]` + more + `}`
				},
				map[string]string{"TenantIds names 'Tenants-77'": `,"TenantIds":["Tenants-77"]`, "EnvironmentIds names 'Environments-77'": `,"EnvironmentIds":["Environments-77"]`},
			},
			{
				"POST", "accounts", "TenantTags",
				func(tags, more string) string {
					return `{"Name":"A","AccountType":"Token","TenantTags":[` + tags + `]` + more + `}`
				},
				map[string]string{"TenantIds names 'Tenants-77'": `,"TenantIds":["Tenants-77"]`, "EnvironmentIds names 'Environments-77'": `,"EnvironmentIds":["Environments-77"]`},
			},
			{
				"POST", "channels", "TenantTags",
				func(tags, more string) string {
					return `{"Name":"C","ProjectId":"` + w.web + `","TenantTags":[` + tags + `]` + more + `}`
				},
				map[string]string{"LifecycleId names 'Lifecycles-77'": `,"LifecycleId":"Lifecycles-77"`},
			},
			{
				"POST", "projecttriggers", "Action.TenantTags",
				func(tags, more string) string {
					return `{"Name":"T",` + trigger + more + `,"TenantTags":[` + tags + `]}}`
				},
				map[string]string{"Action.TenantIds names 'Tenants-77'": `,"TenantIds":["Tenants-77"]`, "Action.DestinationEnvironmentId names 'Environments-77'": `,"DestinationEnvironmentId":"Environments-77"`},
			},
			{
				"PUT", "deploymentprocesses/deploymentprocess-" + w.web, "Steps[0].Actions[0].TenantTags",
				func(tags, more string) string {
					return fmt.Sprintf(step, w.version("deploymentprocesses/deploymentprocess-"+w.web), tags, more)
				},
				map[string]string{"Steps.Actions.Environments names 'Environments-77'": `,"Environments":["Environments-77"]`, "Steps.Actions.Channels names 'Channels-77'": `,"Channels":["Channels-77"]`},
			},
			{
				"PUT", "variables/variableset-" + w.web, "Variables[0].Scope.TenantTag",
				func(tags, more string) string {
					return fmt.Sprintf(`{"Version":%d,"Variables":[{"Name":"v","Value":"x","Scope":{"TenantTag":[%s]%s}}]}`, w.version("variables/variableset-"+w.web), tags, more)
				},
				map[string]string{"Variables.Scope.Environment names 'Environments-77'": `,"Environment":["Environments-77"]`, "Variables.Scope.Machine names 'Machines-77'": `,"Machine":["Machines-77"]`},
			},
		} {
			for _, tag := range []string{"One/c", "Two/a", "One", "Of projects/a"} {
				w.Refused(400, c.method, "/api/"+c.path, c.body(`"`+tag+`"`, ""), c.field+" names '"+tag+"', which is no tag for tenants")
			}
			for said, more := range c.missing {
				w.Refused(400, c.method, "/api/"+c.path, c.body("", more), said)
			}
			made := w.Do(c.method, "/api/"+c.path, actiontest.Admin, c.body(`"one/A","One/b"`, ""))
			if made.Status > 201 || !strings.Contains(string(made.Body), `"One/a","One/b"`) {
				t.Errorf("%s: %d %s", c.path, made.Status, made.Body)
			}
		}
	})
}

// version is that of a document that counts its changes.
func (w *world) version(path string) int {
	w.T.Helper()
	var doc struct{ Version int }
	w.Get("/api/" + path).Into(&doc)
	return doc.Version
}

// TestTagSetOrder: new sets go to the end, until somebody says otherwise.
func TestTagSetOrder(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		a, b := w.Create("/api/tagsets", `{"Name":"A"}`), w.Create("/api/tagsets", `{"Name":"B","Scopes":["Project"]}`)
		w.Must(200, "PUT", "/api/tagsets/sortorder", `["`+b+`","`+a+`"]`)
		var all []octopus.TagSet
		w.Must(200, "GET", "/api/tagsets/all", "").Into(&all)
		if len(all) != 2 || all[0].ID != b || all[1].ID != a {
			t.Errorf("in order they are %+v", all)
		}
		w.Must(200, "GET", "/api/tagsets/all?scopes=Project", "").Into(&all)
		if len(all) != 1 || all[0].ID != b {
			t.Errorf("for projects there are %+v", all)
		}
	})
}
