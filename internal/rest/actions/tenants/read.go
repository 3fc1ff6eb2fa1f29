package tenants

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// one reads the tenant that the path names with its values.
func (a *api) one(r *rest.Request) (v *view, err error) {
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		v, err = a.find(tx, r)
		return err
	})
	return v, err
}

func (a *api) find(tx *db.Tx, r *rest.Request) (*view, error) {
	doc, err := r.Find(r.Context(), tx, tenantKind, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	t, err := docstore.Decode[octopus.Tenant](doc)
	if err != nil {
		return nil, err
	}
	views, err := a.views(r.Context(), tx, r, []*octopus.Tenant{t})
	if err != nil {
		return nil, err
	}
	return views[0], nil
}

func (a *api) variables(r *rest.Request) (any, error) {
	v, err := a.one(r)
	if err != nil {
		return nil, err
	}
	return v.document(r, nil), nil
}

// document is a tenant's values in the form of old clients; of the given projects,
// or of all.
func (v *view) document(r *rest.Request, projects []string) octopus.TenantVariables {
	self := r.SpaceHref("/tenants/" + v.tenant.ID)
	out := octopus.TenantVariables{
		Resource: octopus.Resource{ID: v.set.ID, LastModifiedOn: v.set.LastModifiedOn, LastModifiedBy: v.set.LastModifiedBy, Links: octopus.Links{"Self": self + "/variables", "Tenant": self}},
		SpaceID:  v.tenant.SpaceID, TenantID: v.tenant.ID, TenantName: v.tenant.Name,
		ProjectVariables: octopus.Map[string, octopus.TenantProjectValues]{}, LibraryVariables: octopus.Map[string, octopus.TenantLibraryValues]{},
		ConcurrencyToken: octopus.NullString(strconv.FormatInt(v.version, 10)),
	}
	if v.version == 0 {
		out.ID = resources.TenantVariablesID(v.tenant.ID)
	}
	for _, p := range v.projects {
		if projects != nil && !slices.Contains(projects, p.ID) {
			continue
		}
		values := octopus.TenantProjectValues{
			ProjectID: p.ID, ProjectName: p.Name, Templates: p.Templates, Variables: octopus.Map[string, octopus.Properties]{},
			Links: octopus.Links{"Project": r.SpaceHref("/projects/" + p.ID)},
		}
		for _, id := range v.shown(r, p, v.connected(p)) {
			values.Variables[id] = octopus.Properties{}
		}
		out.ProjectVariables[p.ID] = values
	}
	for _, l := range v.libraries {
		out.LibraryVariables[l.ID] = octopus.TenantLibraryValues{
			LibraryVariableSetID: l.ID, LibraryVariableSetName: l.Name, Templates: l.Templates, Variables: octopus.Properties{},
			Links: octopus.Links{"LibraryVariableSet": r.SpaceHref("/libraryvariablesets/" + l.ID)},
		}
	}
	for i := range v.set.Values {
		value := &v.set.Values[i]
		if !v.sees(r, value, variableView) {
			continue
		}
		if project, ok := out.ProjectVariables[value.OwnerID]; ok && template(project.Templates, value.TemplateID) != nil {
			for _, id := range v.valid(value) {
				project.Variables[id][value.TemplateID] = value.Value
			}
		}
		if library, ok := out.LibraryVariables[value.OwnerID]; ok && len(value.EnvironmentIDs) == 0 && template(library.Templates, value.TemplateID) != nil {
			library.Variables[value.TemplateID] = value.Value
		}
	}
	return out
}

// tenants reads the tenants that the caller may see, of a query.
func (a *api) tenants(tx *db.Tx, r *rest.Request, q docstore.Query) ([]*view, error) {
	q.Space, q.Visible = r.Space, r.Grants(tenantView)
	var all []*octopus.Tenant
	err := a.store.Each(r.Context(), tx, tenantKind, q, func(doc *docstore.Doc) error {
		t, err := docstore.Decode[octopus.Tenant](doc)
		all = append(all, t)
		return err
	})
	if err != nil {
		return nil, err
	}
	return a.views(r.Context(), tx, r, all)
}

func (a *api) allVariables(r *rest.Request) (any, error) {
	projects, err := r.QueryList("projectId")
	if err != nil {
		return nil, err
	}
	k, err := a.store.Kind(tenantKind)
	if err != nil {
		return nil, err
	}
	q := docstore.Query{Space: r.Space, Visible: r.Grants(tenantView)}
	if len(projects) > 0 {
		q.Where = []docstore.Match{{Path: "ProjectEnvironments.*key", Any: projects}}
	} else {
		projects = nil
	}
	return rest.Pages(func(p ident.Page) (out []octopus.TenantVariables, total int64, err error) {
		q.Page = p
		err = a.db.Read(r.Context(), func(tx *db.Tx) error {
			docs, n, err := a.store.List(r.Context(), tx, k, q)
			if err != nil {
				return err
			}
			some := make([]*octopus.Tenant, len(docs))
			for i, doc := range docs {
				if some[i], err = docstore.Decode[octopus.Tenant](doc); err != nil {
					return err
				}
			}
			views, err := a.views(r.Context(), tx, r, some)
			out, total = make([]octopus.TenantVariables, 0, len(views)), n
			for _, v := range views {
				out = append(out, v.document(r, projects))
			}
			return err
		})
		return out, total, err
	}), nil
}

func (a *api) common(r *rest.Request) (any, error) {
	missing, errQuery := r.QueryBool("includeMissingVariables", false)
	v, err := a.one(r)
	if err := errors.Join(errQuery, err); err != nil {
		return nil, err
	}
	return v.common(r, missing), nil
}

func (v *view) common(r *rest.Request, missing bool) octopus.TenantCommonVariables {
	self := r.SpaceHref("/tenants/" + v.tenant.ID)
	sources := make([]source, len(v.libraries))
	for i, l := range v.libraries {
		sources[i] = source{id: l.ID, name: l.Name, templates: l.Templates, among: v.within[l.ID]}
	}
	variables, lacks := entries(v, r, sources, missing, func(e *entry) octopus.TenantCommonVariable {
		one := octopus.TenantCommonVariable{Resource: octopus.Resource{ID: e.id}, LibraryVariableSetID: e.of.id, LibraryVariableSetName: e.of.name, TemplateID: e.template.ID, Template: *e.template, Value: e.value}
		one.Scope.EnvironmentIDs = e.at
		return one
	})
	return octopus.TenantCommonVariables{
		TenantID: v.tenant.ID, Resource: octopus.Resource{Links: octopus.Links{"Self": self + "/commonvariables", "Tenant": self}},
		Variables: variables, MissingVariables: lacks,
	}
}

// source is a project or a library set: what has templates, and the environments in
// which the tenant needs values of them.
type source struct {
	id, name  string
	project   *octopus.Project // nil for a library set
	templates octopus.List[octopus.TemplateParameter]
	among     []string
}

// entry is a value of a template, or the lack of one.
type entry struct {
	of       *source
	template *octopus.TemplateParameter
	id       string // "" where it is missing, as is the value
	value    octopus.PropertyValue
	at       octopus.List[string] // environments
}

// entries lists the values of some sources that the caller may see, and what is
// missing of them if it is asked for, each as row makes it.
func entries[R any](v *view, r *rest.Request, sources []source, missing bool, row func(e *entry) R) (have, lacks octopus.List[R]) {
	byID := map[string]*source{}
	for i := range sources {
		byID[strings.ToLower(sources[i].id)] = &sources[i]
	}
	for i := range v.set.Values {
		value := &v.set.Values[i]
		of := byID[strings.ToLower(value.OwnerID)]
		if of == nil || !v.sees(r, value, variableView) {
			continue
		}
		t, at := template(of.templates, value.TemplateID), v.valid(value)
		everywhere := of.project == nil && len(value.EnvironmentIDs) == 0
		if t != nil && (len(at) > 0 || everywhere) {
			have = append(have, row(&entry{of: of, template: t, id: value.ID, value: value.Value, at: at}))
		}
	}
	if !missing {
		return have, nil
	}
	for i := range sources {
		of := &sources[i]
		shown := v.shown(r, of.project, of.among)
		for j := range of.templates {
			t := &of.templates[j]
			if at := v.lacking(of.id, t, shown); len(at) > 0 {
				lacks = append(lacks, row(&entry{of: of, template: t, at: at}))
			}
		}
	}
	return have, lacks
}

// lacking are the environments in which there is neither a value nor a default.
func (v *view) lacking(owner string, t *octopus.TemplateParameter, environments []string) octopus.List[string] {
	out := octopus.List[string]{}
	for _, id := range environments {
		if !v.has(owner, t, id) && !slices.Contains(out, id) {
			out = append(out, id)
		}
	}
	return out
}

func (a *api) project(r *rest.Request) (any, error) {
	missing, errQuery := r.QueryBool("includeMissingVariables", false)
	v, err := a.one(r)
	if err := errors.Join(errQuery, err); err != nil {
		return nil, err
	}
	return v.ofProjects(r, missing), nil
}

func (v *view) ofProjects(r *rest.Request, missing bool) octopus.TenantProjectVariables {
	self := r.SpaceHref("/tenants/" + v.tenant.ID)
	sources := make([]source, len(v.projects))
	for i, p := range v.projects {
		sources[i] = source{id: p.ID, name: p.Name, project: p, templates: p.Templates, among: v.connected(p)}
	}
	variables, lacks := entries(v, r, sources, missing, func(e *entry) octopus.TenantProjectVariable {
		one := octopus.TenantProjectVariable{Resource: octopus.Resource{ID: e.id}, ProjectID: e.of.id, ProjectName: e.of.name, TemplateID: e.template.ID, Template: *e.template, Value: e.value}
		one.Scope.EnvironmentIDs = e.at
		return one
	})
	return octopus.TenantProjectVariables{
		TenantID: v.tenant.ID, Resource: octopus.Resource{Links: octopus.Links{"Self": self + "/projectvariables", "Tenant": self}},
		Variables: variables, ProjectVariables: variables, MissingVariables: lacks, MissingProjectVariables: lacks,
	}
}

// missing lists what tenants lack.
func (a *api) missing(r *rest.Request) (any, error) {
	tenants, err1 := r.QueryList("tenantId")
	projects, err2 := r.QueryList("projectId")
	environments, err3 := r.QueryList("environmentId")
	details, err4 := r.QueryBool("includeDetails", false)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return nil, err
	}
	var q docstore.Query
	if len(tenants) > 0 {
		q.IDs = tenants
	}
	if len(projects) > 0 {
		q.Where = []docstore.Match{{Path: "ProjectEnvironments.*key", Any: projects}}
	}
	out := []octopus.TenantMissingVariables{}
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		views, err := a.tenants(tx, r, q)
		out = out[:0]
		for _, v := range views {
			found := v.lacks(r, projects, environments)
			if len(found) == 0 {
				continue
			}
			self := r.SpaceHref("/tenants/" + v.tenant.ID)
			one := octopus.TenantMissingVariables{TenantID: v.tenant.ID, Links: octopus.Links{"Tenant": self, "Variables": self + "/variables"}}
			if details {
				one.MissingVariables = found
			}
			out = append(out, one)
		}
		return err
	})
	return out, err
}

// lacks lists what a tenant lacks in projects and environments; nil is any.
func (v *view) lacks(r *rest.Request, projects, environments []string) octopus.List[octopus.MissingVariable] {
	var out octopus.List[octopus.MissingVariable]
	wanted := func(list []string, id string) bool {
		return len(list) == 0 || slices.ContainsFunc(list, func(one string) bool { return strings.EqualFold(one, id) })
	}
	seen := map[[3]string]bool{}
	for _, p := range v.projects {
		if !wanted(projects, p.ID) {
			continue
		}
		for _, environment := range v.shown(r, p, v.connected(p)) {
			if !wanted(environments, environment) {
				continue
			}
			for i := range p.Templates {
				if t := &p.Templates[i]; !v.has(p.ID, t, environment) {
					out = append(out, octopus.MissingVariable{
						ProjectID: octopus.NullString(p.ID), EnvironmentID: octopus.NullString(environment), VariableTemplateID: t.ID, VariableTemplateName: t.Name,
						Links: octopus.Links{"Project": r.SpaceHref("/projects/" + p.ID)},
					})
				}
			}
			for _, id := range p.IncludedLibraryVariableSetIDs {
				l := v.library(id)
				if l == nil {
					continue
				}
				for i := range l.Templates {
					t := &l.Templates[i]
					if key := [3]string{l.ID, t.ID, environment}; !v.has(l.ID, t, environment) && !seen[key] {
						seen[key] = true
						out = append(out, octopus.MissingVariable{
							LibraryVariableSetID: octopus.NullString(l.ID), EnvironmentID: octopus.NullString(environment), VariableTemplateID: t.ID, VariableTemplateName: t.Name,
							Links: octopus.Links{"LibraryVariableSet": r.SpaceHref("/libraryvariablesets/" + l.ID)},
						})
					}
				}
			}
		}
	}
	return out
}
