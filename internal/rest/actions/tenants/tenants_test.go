package tenants_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/internal/rest/actions/tenants"
	"github.com/takodeploy/tako/octopus"
)

const home ident.SpaceID = "Spaces-1"

// world has a project with two templates, one of them secret, that includes a
// library set with one, and a tenant that is connected to it in two environments.
type world struct {
	*actiontest.World
	dev, prod, library, web, tenant string
}

func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	actiontest.Each(t, func(w *actiontest.World) []rest.Route { return tenants.Routes(w.DB, w.Store) }, func(t *testing.T, w *actiontest.World) {
		out := &world{World: w}
		out.dev, out.prod = w.Create("/api/environments", `{"Name":"Dev"}`), w.Create("/api/environments", `{"Name":"Prod"}`)
		out.library = w.Create("/api/libraryvariablesets", `{"Name":"Shared","Templates":[{"Id":"region","Name":"Region"}]}`)
		out.web = w.Create("/api/projects", out.fill(`{"Name":"Web","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1","IncludedLibraryVariableSetIds":["{library}"],
			"Templates":[{"Id":"port","Name":"Port","DefaultValue":"80"},{"Id":"key","Name":"Key","DisplaySettings":{"Octopus.ControlType":"Sensitive"}}]}`))
		out.tenant = w.Create("/api/tenants", out.fill(`{"Name":"Acme","ProjectEnvironments":{"{web}":["{dev}","{prod}"]}}`))
		fn(t, out)
	})
}

func (w *world) fill(text string) string {
	return strings.NewReplacer("{dev}", w.dev, "{prod}", w.prod, "{library}", w.library, "{web}", w.web).Replace(text)
}

// stored are the values in clear, by template and environments.
func (w *world) stored(tenant string) map[string]string {
	w.T.Helper()
	var set resources.TenantVariableSet
	err := w.DB.Read(w.T.Context(), func(tx *db.Tx) error {
		return w.Store.Reveal(w.T.Context(), tx, "tenantvariables", resources.TenantVariablesID(tenant), &set)
	})
	if err != nil {
		w.T.Fatal(err)
	}
	out := map[string]string{}
	for _, v := range set.Values {
		text := v.Value.Value
		if s := v.Value.Sensitive; s != nil && s.NewValue != nil {
			text = *s.NewValue
		}
		out[v.TemplateID+"@"+strings.Join(v.EnvironmentIDs, ",")] = text
	}
	return out
}

func (w *world) missing(query string) (all []octopus.TenantMissingVariables) {
	w.T.Helper()
	w.Get("/api/tenants/variables-missing?" + query).Into(&all)
	return all
}

// TestValues goes through the three forms of a tenant's values.
func TestValues(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		at := "/api/tenants/" + w.tenant
		if lacks := w.missing("includeDetails=true"); len(lacks) != 1 || len(lacks[0].MissingVariables) != 4 { // Key and Region, in two environments each
			t.Fatalf("at first it lacks %+v", lacks)
		}
		var common octopus.TenantCommonVariables
		w.Must(200, "PUT", at+"/commonvariables?includeMissingVariables=true", w.fill(`{"Variables":[{"LibraryVariableSetId":"{library}","TemplateId":"region","Value":"eu","Scope":{"EnvironmentIds":["{dev}"]}}]}`)).Into(&common)
		if len(common.Variables) != 1 || len(common.MissingVariables) != 1 || !cmp.Equal(common.MissingVariables[0].Scope.EnvironmentIDs, octopus.List[string]{w.prod}) {
			t.Errorf("common: %+v", common)
		}
		var project octopus.TenantProjectVariables
		w.Must(200, "PUT", at+"/projectvariables", w.fill(`{"Variables":[{"ProjectId":"{web}","TemplateId":"key","Value":{"HasValue":true,"NewValue":"hush"},"Scope":{"EnvironmentIds":["{prod}","{dev}"]}},
			{"ProjectId":"{web}","TemplateId":"port","Value":"8080","Scope":{"EnvironmentIds":["{dev}"]}}]}`)).Into(&project)
		if len(project.Variables) != 2 || strings.Contains(string(w.Get(at+"/projectvariables").Body), "hush") {
			t.Errorf("project: %+v", project)
		}
		if lacks := w.missing("includeDetails=true"); len(lacks) != 1 || len(lacks[0].MissingVariables) != 1 || lacks[0].MissingVariables[0].VariableTemplateName != "Region" {
			t.Errorf("then it lacks %+v", lacks)
		}
		if lacks := w.missing("environmentId=" + w.dev); len(lacks) != 0 {
			t.Errorf("in Dev it lacks %+v", lacks)
		}

		// The old form shows the same, and what is put back as it was read changes nothing.
		var old octopus.TenantVariables
		a := w.Get(at + "/variables")
		a.Into(&old)
		dev := old.ProjectVariables[w.web].Variables[w.dev]
		if dev.Get("port") != "8080" || !dev["key"].IsSensitive() || len(old.ProjectVariables[w.web].Variables[w.prod]) != 1 {
			t.Errorf("the old form: %s", a.Body)
		}
		want := map[string]string{"region@" + w.dev: "eu", "key@" + w.dev + "," + w.prod: "hush", "port@" + w.dev: "8080"}
		w.Must(200, "PUT", at+"/variables", string(a.Body))
		if diff := cmp.Diff(want, w.stored(w.tenant)); diff != "" {
			t.Errorf("put back (-want +stored):\n%s", diff)
		}
		w.Refused(409, "PUT", at+"/variables", string(a.Body), "modified by somebody else")
		w.Must(200, "POST", at+"/variables", w.fill(`{"ProjectVariables":{"{web}":{"Variables":{"{prod}":{"port":"443"}}}},"LibraryVariables":{"{library}":{"Variables":{"region":"us"}}}}`))
		if diff := cmp.Diff(map[string]string{"region@" + w.dev: "eu", "region@": "us", "port@" + w.prod: "443"}, w.stored(w.tenant)); diff != "" {
			t.Errorf("replaced (-want +stored):\n%s", diff)
		}
		var all []octopus.TenantVariables
		w.Get("/api/tenantvariables/all?projectId=" + w.web).Into(&all)
		if len(all) != 1 || all[0].TenantID != w.tenant || len(all[0].ProjectVariables) != 1 {
			t.Errorf("all: %+v", all)
		}

		for says, body := range map[string]string{
			"is no template of":          `{"Variables":[{"ProjectId":"{web}","TemplateId":"no","Value":"x"}]}`,
			"which the tenant 'Acme' is": `{"Variables":[{"ProjectId":"Projects-99","TemplateId":"port","Value":"x"}]}`,
			"is not connected to":        `{"Variables":[{"ProjectId":"{web}","TemplateId":"port","Value":"x","Scope":{"EnvironmentIds":["Environments-99"]}}]}`,
			"has two values":             `{"Variables":[{"ProjectId":"{web}","TemplateId":"port","Value":"x"},{"ProjectId":"{web}","TemplateId":"port","Value":"y","Scope":{"EnvironmentIds":["{dev}"]}}]}`,
			"comes without a text":       `{"Variables":[{"ProjectId":"{web}","TemplateId":"key","Value":{"HasValue":true}}]}`,
		} {
			w.Refused(400, "PUT", at+"/projectvariables", w.fill(body), says)
		}
	})
}

// TestRights: who may see and change one environment sees and changes that, and
// leaves the rest as it is.
func TestRights(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		at := "/api/tenants/" + w.tenant
		w.Must(200, "PUT", at+"/projectvariables", w.fill(`{"Variables":[{"ProjectId":"{web}","TemplateId":"port","Value":"1","Scope":{"EnvironmentIds":["{dev}"]}},{"ProjectId":"{web}","TemplateId":"port","Value":"2","Scope":{"EnvironmentIds":["{prod}"]}}]}`))
		grant := func(environments []string, permissions ...string) string {
			return w.Person(actiontest.Role{Space: home, Permissions: permissions, Scope: octopus.ScopedUserRole{EnvironmentIDs: environments}})
		}
		key := grant([]string{w.dev}, "TenantView", "TenantEdit", "ProjectView", "VariableView", "VariableEdit")
		var seen octopus.TenantProjectVariables
		w.MustAs(key, 200, "GET", at+"/projectvariables", "").Into(&seen)
		if len(seen.Variables) != 1 || seen.Variables[0].Value.Value != "1" {
			t.Errorf("they see %+v", seen.Variables)
		}
		w.MustAs(key, 200, "PUT", at+"/projectvariables", w.fill(`{"Variables":[{"ProjectId":"{web}","TemplateId":"port","Value":"3","Scope":{"EnvironmentIds":["{dev}"]}}]}`))
		if diff := cmp.Diff(map[string]string{"port@" + w.dev: "3", "port@" + w.prod: "2"}, w.stored(w.tenant)); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		reader := grant(nil, "TenantView", "TenantEdit", "ProjectView", "VariableView")
		w.MustAs(reader, 403, "PUT", at+"/projectvariables", `{"Variables":[]}`)
		w.MustAs(reader, 403, "POST", "/api/tenants?clone="+w.tenant, `{"Name":"Copy"}`)
		blind := grant(nil, "TenantView", "TenantCreate", "ProjectView")
		w.MustAs(blind, 200, "GET", at+"/projectvariables", "").Into(&seen)
		if len(seen.Variables) != 0 {
			t.Errorf("without VariableView they see %+v", seen.Variables)
		}
		w.MustAs(blind, 403, "POST", "/api/tenants?clone="+w.tenant, `{"Name":"Copy"}`)
	})
}

func TestClone(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.Create("/api/tagsets", `{"Name":"Ring","Tags":[{"Name":"One"},{"Name":"Two"}]}`)
		w.Create("/api/tagsets", `{"Name":"Size","Tags":[{"Name":"Big"}]}`)
		w.Must(200, "PUT", "/api/tenants/"+w.tenant, w.fill(`{"Name":"Acme","Description":"d","TenantTags":["Ring/One"],"ProjectEnvironments":{"{web}":["{dev}"]}}`))
		w.Must(200, "PUT", "/api/tenants/"+w.tenant+"/projectvariables", w.fill(`{"Variables":[{"ProjectId":"{web}","TemplateId":"key","Value":"hush"}]}`))
		var made octopus.Tenant
		w.Must(201, "POST", "/api/tenants?clone=acme", `{"Name":"Copy"}`).Into(&made)
		if made.ClonedFromTenantID != octopus.NullString(w.tenant) || made.Description != "d" || made.Slug != "copy" || !cmp.Equal(made.TenantTags, octopus.List[string]{"Ring/One"}) || len(made.ProjectEnvironments[w.web]) != 1 {
			t.Errorf("the copy is %+v", made)
		}
		if diff := cmp.Diff(map[string]string{"key@" + w.dev: "hush"}, w.stored(made.ID)); diff != "" {
			t.Errorf("its values (-want +got):\n%s", diff)
		}

		var test map[string]octopus.TagTest
		w.Get("/api/tenants/tag-test?tags=Ring/Two,Ring/One,Size/Big&tenantIds=" + made.ID).Into(&test)
		if one := test[made.ID]; len(test) != 1 || one.IsMatched || !cmp.Equal(one.MissingTags, octopus.List[string]{"Ring/Two", "Size/Big"}) {
			t.Errorf("the test says %+v", test)
		}
		w.Get("/api/tenants/tag-test?tags=Ring/Two,Ring/One").Into(&test)
		if len(test) != 2 || !test[made.ID].IsMatched || !test[w.tenant].IsMatched {
			t.Errorf("the test says %+v", test)
		}
		w.Must(200, "DELETE", "/api/tenants/"+made.ID, "")
		w.Must(404, "GET", "/api/tenants/"+made.ID+"/variables", "")
	})
}
