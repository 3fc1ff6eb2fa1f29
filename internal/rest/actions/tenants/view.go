package tenants

import (
	"context"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// view is a tenant with everything that its values are about, as far as the caller
// may see it.
type view struct {
	tenant *octopus.Tenant
	// projects and libraries have templates; in the order of their lists.
	projects  []*octopus.Project
	libraries []*octopus.LibraryVariableSet
	set       *resources.TenantVariableSet
	version   int64 // of the set; 0 when there is none
	// within has, by library set, the environments of the projects that include it.
	within map[string][]string
}

// views reads many tenants' values with a fixed number of queries.
func (a *api) views(ctx context.Context, tx *db.Tx, r *rest.Request, tenants []*octopus.Tenant) ([]*view, error) {
	var projectIDs, setIDs []string
	for _, t := range tenants {
		for id := range t.ProjectEnvironments {
			projectIDs = append(projectIDs, id)
		}
		setIDs = append(setIDs, resources.TenantVariablesID(t.ID))
	}
	projects, libraryIDs := map[string]*octopus.Project{}, []string{}
	var order []string
	err := a.batches(ctx, tx, projectKind, docstore.Query{Space: r.Space, Visible: r.Grants(projectView)}, projectIDs, func(doc *docstore.Doc) error {
		p, err := docstore.Decode[octopus.Project](doc)
		if err == nil {
			projects[p.ID], order = p, append(order, p.ID)
			libraryIDs = append(libraryIDs, p.IncludedLibraryVariableSetIDs...)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	var libraries []*octopus.LibraryVariableSet
	err = a.batches(ctx, tx, libraryKind, docstore.Query{Space: r.Space}, libraryIDs, func(doc *docstore.Doc) error {
		l, err := docstore.Decode[octopus.LibraryVariableSet](doc)
		libraries = append(libraries, l)
		return err
	})
	if err != nil {
		return nil, err
	}
	k, err := a.store.Kind(valueKind)
	if err != nil {
		return nil, err
	}
	sets, versions := map[string]*resources.TenantVariableSet{}, map[string]int64{}
	err = a.batches(ctx, tx, valueKind, docstore.Query{Space: r.Space}, setIDs, func(doc *docstore.Doc) error {
		body, err := a.store.Served(k, doc) // without secrets
		if err != nil {
			return err
		}
		s, err := docstore.Decode[resources.TenantVariableSet](&docstore.Doc{ID: doc.ID, Body: body})
		if err == nil {
			sets[s.TenantID], versions[s.TenantID] = s, doc.Version
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	out := make([]*view, len(tenants))
	for i, t := range tenants {
		v := &view{tenant: t, set: sets[t.ID], version: versions[t.ID], within: map[string][]string{}}
		if v.set == nil {
			v.set = &resources.TenantVariableSet{TenantID: t.ID}
		}
		for _, id := range order {
			environments, connected := t.ProjectEnvironments[id]
			if !connected {
				continue
			}
			v.projects = append(v.projects, projects[id])
			for _, l := range projects[id].IncludedLibraryVariableSetIDs {
				v.within[l] = append(v.within[l], environments...)
			}
		}
		for _, l := range libraries {
			if _, included := v.within[l.ID]; included {
				v.libraries = append(v.libraries, l)
			}
		}
		out[i] = v
	}
	return out, nil
}

// batches is each for documents by their ids, however many.
func (a *api) batches(ctx context.Context, tx *db.Tx, kind string, q docstore.Query, ids []string, fn func(doc *docstore.Doc) error) error {
	slices.Sort(ids)
	for batch := range slices.Chunk(slices.Compact(ids), 1000) {
		q.IDs = batch
		if err := a.store.Each(ctx, tx, kind, q, fn); err != nil {
			return err
		}
	}
	return nil
}

func (v *view) project(id string) *octopus.Project {
	for _, p := range v.projects {
		if strings.EqualFold(p.ID, id) {
			return p
		}
	}
	return nil
}

func (v *view) library(id string) *octopus.LibraryVariableSet {
	for _, l := range v.libraries {
		if strings.EqualFold(l.ID, id) {
			return l
		}
	}
	return nil
}

// template finds a template of an owner; nil when it is gone.
func template(list octopus.List[octopus.TemplateParameter], id string) *octopus.TemplateParameter {
	for i := range list {
		if strings.EqualFold(list[i].ID, id) {
			return &list[i]
		}
	}
	return nil
}

// sees reports whether the caller holds a permission for a value: for one of a
// project in each of its environments, for one of a library set anywhere.
func (v *view) sees(r *rest.Request, value *resources.TenantValue, permission string) bool {
	p := v.project(value.OwnerID)
	if p == nil {
		if v.library(value.OwnerID) == nil {
			return false // of a project that the caller does not see, or that is gone
		}
		if len(value.EnvironmentIDs) == 0 {
			grants := r.Grants(permission)
			return grants == nil || len(grants) > 0
		}
	}
	at := rest.Target{}
	if p != nil {
		at.Project, at.ProjectGroup = p.ID, p.ProjectGroupID
	}
	for _, id := range value.EnvironmentIDs {
		at.Environment = id
		if p == nil {
			// A library set is of no project: some grant must cover the environment.
			if grants := r.Grants(permission); grants != nil && !slices.ContainsFunc(grants, func(g resource.Grant) bool { return len(g.Environments) == 0 || slices.Contains(g.Environments, id) }) {
				return false
			}
			continue
		}
		if r.Allow(permission, at) != nil {
			return false
		}
	}
	return true
}

// connected are the environments in which the tenant is deployed for a project.
func (v *view) connected(p *octopus.Project) octopus.List[string] {
	return v.tenant.ProjectEnvironments[p.ID]
}

// shown are those of some environments that the caller may know of: in which they may
// see values of the project, nil for a library set's, or the environment itself.
func (v *view) shown(r *rest.Request, p *octopus.Project, environments []string) octopus.List[string] {
	var of rest.Target
	if p != nil {
		of.Project, of.ProjectGroup = p.ID, p.ProjectGroupID
	}
	out := octopus.List[string]{}
	for _, id := range environments {
		of.Environment = id
		if r.Allow(variableView, of) == nil || r.Allow(environmentView, rest.Target{Environment: id}) == nil {
			out = append(out, id)
		}
	}
	return out
}

// valid are a value's environments that are still connected. A value that was
// limited to others alone applies nowhere.
func (v *view) valid(value *resources.TenantValue) octopus.List[string] {
	among := v.within[value.OwnerID]
	if p := v.project(value.OwnerID); p != nil {
		among = v.connected(p)
	}
	out := octopus.List[string]{}
	for _, id := range value.EnvironmentIDs {
		if slices.Contains(among, id) {
			out = append(out, id)
		}
	}
	return out
}

// has reports whether there is a value or a default of a template in an environment;
// "" asks for a library set's value that applies everywhere.
func (v *view) has(owner string, t *octopus.TemplateParameter, environment string) bool {
	if resources.HasText(t.DefaultValue) {
		return true
	}
	return slices.ContainsFunc(v.set.Values, func(value resources.TenantValue) bool {
		everywhere := len(value.EnvironmentIDs) == 0
		return value.OwnerID == owner && strings.EqualFold(value.TemplateID, t.ID) && resources.HasText(value.Value) &&
			(everywhere || slices.Contains(value.EnvironmentIDs, environment))
	})
}
