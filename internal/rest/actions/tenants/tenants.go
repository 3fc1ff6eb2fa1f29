// Package tenants serves what belongs to tenants and is no plain resource: their
// values of variable templates in the three forms that clients know, what they
// lack, copies of tenants, and whether tags match them.
package tenants

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// Kinds that are read here.
const (
	tenantKind  = "tenants"
	projectKind = "projects"
	libraryKind = "libraryvariablesets"
	valueKind   = "tenantvariables"
)

// Permissions that the routes need.
const (
	tenantView   = string(octopus.PermTenantView)
	tenantEdit   = string(octopus.PermTenantEdit)
	tenantCreate = string(octopus.PermTenantCreate)
	projectView  = string(octopus.PermProjectView)
	variableView = string(octopus.PermVariableView)

	environmentView = string(octopus.PermEnvironmentView)
	variableEdit    = string(octopus.PermVariableEdit)
)

type api struct {
	db    *db.DB
	store *docstore.Store
}

// status tells whether there are tenants at all, by which clients show or hide
// what is about them.
type status struct {
	Enabled bool
	Links   octopus.Links
}

// Routes are the operations. They all are in spaces.
func Routes(d *db.DB, store *docstore.Store) []rest.Route {
	a := &api{d, store}
	tenant, all := reflect.TypeFor[octopus.Tenant](), reflect.TypeFor[octopus.TenantVariables]()
	common, project := reflect.TypeFor[octopus.TenantCommonVariables](), reflect.TypeFor[octopus.TenantProjectVariables]()
	text := func(name, about string) rest.Param { return rest.Param{Name: name, Type: rest.Text, About: about} }
	list := func(name, about string) rest.Param { return rest.Param{Name: name, Type: rest.List, About: about} }
	missing := []rest.Param{{Name: "includeMissingVariables", Type: rest.Boolean, About: "with the templates that have neither a value nor a default"}}
	return []rest.Route{
		{Method: http.MethodPost, Pattern: "/tenants", Permission: tenantCreate, Handler: a.create, Overrides: true, Body: tenant, Response: tenant, Query: []rest.Param{text("clone", "the tenant to make a copy of")}, Summary: "Creates a tenant, or a copy of one with its connections and values."},
		{Method: http.MethodGet, Pattern: "/tenants/status", Permission: tenantView, Handler: a.status, Response: reflect.TypeFor[status](), Summary: "Tells whether there are tenants."},
		{Method: http.MethodGet, Pattern: "/tenants/tag-test", Permission: tenantView, Handler: a.tagTest, Response: reflect.TypeFor[octopus.Map[string, octopus.TagTest]](), Query: []rest.Param{list("tenantIds", "the tenants; all unless said"), list("tags", "canonical names of tags")}, Summary: "Tells which tenants given tags match: any tag of a set, and every set."},
		{Method: http.MethodGet, Pattern: "/tenants/variables-missing", Permission: tenantView, Handler: a.missing, Response: reflect.TypeFor[[]octopus.TenantMissingVariables](), Query: []rest.Param{list("tenantId", "only of these tenants"), list("projectId", "only for these projects"), list("environmentId", "only in these environments"), {Name: "includeDetails", Type: rest.Boolean, About: "with the templates, and not only the tenants"}}, Summary: "Lists the tenants that lack values, without which they cannot be deployed for."},
		{Method: http.MethodGet, Pattern: "/tenants/{id}/variables", Permission: tenantView, Handler: a.variables, Response: all, Summary: "Reads a tenant's values, in one document."},
		{Method: http.MethodPut, Pattern: "/tenants/{id}/variables", Permission: tenantEdit, Handler: a.putVariables, Body: all, Response: all, Summary: "Replaces a tenant's values."},
		{Method: http.MethodPost, Pattern: "/tenants/{id}/variables", Permission: tenantEdit, Handler: a.putVariables, Body: all, Response: all, Summary: "Replaces a tenant's values."},
		{Method: http.MethodGet, Pattern: "/tenants/{id}/commonvariables", Permission: tenantView, Handler: a.common, Response: common, Query: missing, Summary: "Reads a tenant's values of the templates of library sets."},
		{Method: http.MethodPut, Pattern: "/tenants/{id}/commonvariables", Permission: tenantEdit, Handler: a.putCommon, Body: reflect.TypeFor[octopus.TenantCommonVariablesCommand](), Response: common, Query: missing, Summary: "Replaces a tenant's values of the templates of library sets."},
		{Method: http.MethodGet, Pattern: "/tenants/{id}/projectvariables", Permission: tenantView, Handler: a.project, Response: project, Query: missing, Summary: "Reads a tenant's values of the templates of projects."},
		{Method: http.MethodPut, Pattern: "/tenants/{id}/projectvariables", Permission: tenantEdit, Handler: a.putProject, Body: reflect.TypeFor[octopus.TenantProjectVariablesCommand](), Response: project, Query: missing, Summary: "Replaces a tenant's values of the templates of projects."},
		{Method: http.MethodGet, Pattern: "/tenantvariables/all", Permission: tenantView, Handler: a.allVariables, Response: reflect.SliceOf(all), Query: []rest.Param{list("projectId", "only of tenants that are connected to these projects, and their values for them")}, Summary: "Lists the values of all tenants as a bare array."},
	}
}

func (a *api) status(r *rest.Request) (any, error) {
	out := status{Links: octopus.Links{"Self": r.SpaceHref("/tenants/status")}}
	return out, a.db.Read(r.Context(), func(tx *db.Tx) error {
		k, err := a.store.Kind(tenantKind)
		if err != nil {
			return err
		}
		_, total, err := a.store.List(r.Context(), tx, k, docstore.Query{Space: r.Space, Visible: r.Grants(tenantView), Page: ident.Page{Take: 1}})
		out.Enabled = total > 0
		return err
	})
}

// tagTest says of each tenant whether tags match it, by the rule of deployments.
func (a *api) tagTest(r *rest.Request) (any, error) {
	tags, err := r.QueryList("tags")
	if err != nil {
		return nil, err
	}
	q := docstore.Query{Space: r.Space, Visible: r.Grants(tenantView)}
	if r.HasQuery("tenantIds") {
		if q.IDs, err = r.QueryList("tenantIds"); err != nil {
			return nil, err
		}
	}
	out := octopus.Map[string, octopus.TagTest]{}
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		return a.store.Each(r.Context(), tx, tenantKind, q, func(doc *docstore.Doc) error {
			t, err := docstore.Decode[octopus.Tenant](doc)
			if err != nil {
				return err
			}
			test := octopus.TagTest{IsMatched: deploy.MatchTags(tags, t.TenantTags)}
			if !test.IsMatched {
				for _, tag := range tags {
					if !deploy.MatchTags([]string{tag}, t.TenantTags) {
						test.MissingTags = append(test.MissingTags, tag)
					}
				}
				test.Reason = octopus.NullString("The tenant '" + t.Name + "' has none of: " + strings.Join(test.MissingTags, ", "))
			}
			out[t.ID] = test
			return nil
		})
	})
	return out, err
}

// create makes a tenant as the kind's own operation does, or a copy of one.
func (a *api) create(r *rest.Request) (any, error) {
	body, err := r.ReadBody()
	if err != nil {
		return nil, err
	}
	if !r.HasQuery("clone") {
		return r.Create(tenantKind, body)
	}
	var doc *docstore.Doc
	err = a.db.Write(r.Context(), func(tx *db.Tx) error {
		doc, err = a.clone(r.Context(), tx, r, r.Query("clone"), body)
		return err
	})
	if err != nil {
		return nil, err
	}
	made, err := r.Render(tenantKind, doc)
	if err != nil {
		return nil, err
	}
	return rest.Created{Body: rest.Tagged{Body: made, Version: doc.Version}, Location: r.SpaceHref("/tenants/" + doc.ID)}, nil
}

// clone copies a tenant: tags, connections and values. The name is the client's,
// and the description if it gives one.
func (a *api) clone(ctx context.Context, tx *db.Tx, r *rest.Request, ref string, body []byte) (*docstore.Doc, error) {
	k, err := a.store.Kind(tenantKind)
	if err != nil {
		return nil, err
	}
	source, err := r.Find(ctx, tx, tenantKind, ref)
	if err != nil {
		return nil, err
	}
	from, err := docstore.Decode[octopus.Tenant](source)
	if err != nil {
		return nil, err
	}
	given, _, err := k.Decode(body)
	if err != nil {
		return nil, err
	}
	tree, err := a.store.Tree(k, source)
	if err != nil {
		return nil, err
	}
	for _, member := range []string{"Id", "Slug", "Name", "IsDisabled"} {
		delete(tree, member)
	}
	for _, member := range []string{"Name", "Slug", "Description"} {
		if text := resource.Text(given, member); text != "" {
			tree[member] = text
		}
	}
	tree["ClonedFromTenantId"] = from.ID
	encoded, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("encode tenant: %w", err)
	}
	doc, err := a.store.Create(ctx, tx, k, docstore.Input{Space: r.Space, Body: encoded, Server: true})
	if err != nil {
		return nil, err
	}
	if err := r.Must(ctx, tx, tenantKind, doc, tenantCreate); err != nil {
		return nil, err
	}
	return doc, a.copyValues(ctx, tx, r, from, doc.ID)
}

// copyValues gives a tenant the values of another one. Whoever copies must see
// them all: with the copy they could use what is kept from them.
func (a *api) copyValues(ctx context.Context, tx *db.Tx, r *rest.Request, from *octopus.Tenant, to string) error {
	var set resources.TenantVariableSet
	err := a.store.Reveal(ctx, tx, valueKind, resources.TenantVariablesID(from.ID), &set)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	views, err := a.views(ctx, tx, r, []*octopus.Tenant{from})
	if err != nil {
		return err
	}
	for i := range set.Values {
		if v := &set.Values[i]; !views[0].sees(r, v, variableView) {
			return fault.New(fault.Forbidden, "You cannot copy the tenant '%s', which has values that you may not see: it needs %s for all of its projects and environments.", from.Name, variableView)
		}
	}
	_, err = a.store.In(tx).Create(ctx, valueKind, r.Space, resources.TenantVariablesID(to), &resources.TenantVariableSet{TenantID: to, Values: set.Values})
	return err
}
