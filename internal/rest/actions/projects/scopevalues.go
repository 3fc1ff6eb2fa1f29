package projects

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// scopeValues are what the variables of each owner can be scoped to, by the
// owner's id: of what the caller may see. Clients find ids for names by it. The
// space's things are read once, and those of all projects together.
func (a *api) scopeValues(ctx context.Context, tx *db.Tx, r *rest.Request, owners ...*owner) (map[string]octopus.ScopeValues, error) {
	all := make(map[string]octopus.ScopeValues, len(owners))
	if len(owners) == 0 {
		return all, nil
	}
	var shared octopus.ScopeValues
	roles := roleSet{}
	named := func(to *octopus.List[octopus.Named]) func(*docstore.Doc) error {
		return func(doc *docstore.Doc) error {
			n, err := docstore.Decode[struct {
				octopus.Named
				Roles []string
			}](doc)
			if err == nil {
				*to = append(*to, n.Named)
				roles.add(n.Roles...)
			}
			return err
		}
	}
	err := a.store.Each(ctx, tx, "environments", docstore.Query{Space: r.Space, Visible: r.Grants(environmentView)}, named(&shared.Environments))
	if err != nil {
		return nil, err
	}
	if err := a.store.Each(ctx, tx, "machines", docstore.Query{Space: r.Space, Visible: r.Grants(machineView)}, named(&shared.Machines)); err != nil {
		return nil, err
	}
	if shared.TenantTags, err = a.tenantTags(ctx, tx, r); err != nil {
		return nil, err
	}
	var projects []string
	for _, o := range owners {
		all[o.id] = octopus.ScopeValues{}
		if !o.library() {
			projects = append(projects, o.id)
		}
	}
	if err := a.ofProjects(ctx, tx, r, projects, all, roles); err != nil {
		return nil, err
	}
	for _, o := range owners {
		v := all[o.id]
		v.Environments, v.Machines, v.TenantTags, v.Roles = shared.Environments, shared.Machines, shared.TenantTags, roles.list()
		if !o.library() {
			v.Processes = append(octopus.List[octopus.NamedProcess]{{ID: o.id, Name: o.name, ProcessType: octopus.ProcessDeployment}}, v.Processes...)
		}
		all[o.id] = v
	}
	return all, nil
}

// ofProjects adds what is within projects: channels, steps and runbooks.
func (a *api) ofProjects(ctx context.Context, tx *db.Tx, r *rest.Request, projects []string, all map[string]octopus.ScopeValues, roles roleSet) error {
	if len(projects) == 0 {
		return nil
	}
	type within struct {
		octopus.Named
		ProjectID string `json:"ProjectId"`
		Steps     []step
	}
	read := func(kind, permission string, add func(v *octopus.ScopeValues, one *within)) error {
		if !a.declared(kind) {
			return nil
		}
		q := docstore.Query{Space: r.Space, Visible: r.Grants(permission), Where: []docstore.Match{{Path: "ProjectId", Any: projects}}}
		return a.store.Each(ctx, tx, kind, q, func(doc *docstore.Doc) error {
			one, err := docstore.Decode[within](doc)
			if err != nil {
				return err
			}
			v := all[one.ProjectID]
			add(&v, one)
			all[one.ProjectID] = v
			return nil
		})
	}
	steps := func(v *octopus.ScopeValues, one *within) {
		for _, s := range one.Steps {
			roles.add(s.roles()...)
			for _, action := range s.Actions {
				v.Actions = append(v.Actions, action)
			}
		}
	}
	for _, one := range []struct {
		kind, permission string
		add              func(v *octopus.ScopeValues, one *within)
	}{
		{"channels", processView, func(v *octopus.ScopeValues, one *within) { v.Channels = append(v.Channels, one.Named) }},
		{"deploymentprocesses", processView, steps},
		{"runbooks", string(octopus.PermRunbookView), func(v *octopus.ScopeValues, one *within) {
			v.Processes = append(v.Processes, octopus.NamedProcess{ID: one.ID, Name: one.Name, ProcessType: octopus.ProcessRunbook})
		}},
		{"runbookprocesses", string(octopus.PermRunbookView), steps},
	} {
		if err := read(one.kind, one.permission, one.add); err != nil {
			return err
		}
	}
	return nil
}

// step is what is read of a step here.
type step struct {
	ID, Name   string
	Properties map[string]json.RawMessage
	Actions    []octopus.Named
}

// roles are the target tags that a step goes to.
func (s *step) roles() []string {
	var text string
	if json.Unmarshal(s.Properties[octopus.PropTargetRoles], &text) != nil {
		return nil
	}
	return strings.Split(text, ",")
}

// tenantTags are all tags that tenants can have.
func (a *api) tenantTags(ctx context.Context, tx *db.Tx, r *rest.Request) (tags octopus.List[octopus.Named], err error) {
	if !a.declared("tagsets") {
		return nil, nil
	}
	return tags, a.store.Each(ctx, tx, "tagsets", docstore.Query{Space: r.Space}, func(doc *docstore.Doc) error {
		set, err := docstore.Decode[octopus.TagSet](doc)
		if err != nil {
			return err
		}
		if len(set.Scopes) > 0 && !slices.Contains(set.Scopes, octopus.TagScopeTenant) {
			return nil
		}
		for _, tag := range set.Tags {
			name := cmp.Or(tag.CanonicalTagName, set.Name+"/"+tag.Name)
			tags = append(tags, octopus.Named{ID: name, Name: name})
		}
		return nil
	})
}

// roleSet gathers target tags, which differ in more than case.
type roleSet map[string]string

func (s roleSet) add(roles ...string) {
	for _, role := range roles {
		role = strings.TrimSpace(role)
		if folded := ident.Fold(role); folded != "" && s[folded] == "" {
			s[folded] = role
		}
	}
}

// names lists the tags in order.
func (s roleSet) names() []string {
	names := make([]string, 0, len(s))
	for _, role := range s {
		names = append(names, role)
	}
	slices.SortFunc(names, func(a, b string) int { return strings.Compare(ident.Fold(a), ident.Fold(b)) })
	return names
}

func (s roleSet) list() octopus.List[octopus.Named] {
	list := octopus.List[octopus.Named]{}
	for _, role := range s.names() {
		list = append(list, octopus.Named{ID: role, Name: role})
	}
	return list
}
