package projects_test

import (
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
