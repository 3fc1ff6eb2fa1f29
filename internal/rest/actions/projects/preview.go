package projects

import (
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// preview is a variable set in which each name has the one value that it has in
// a deployment, with the reason.
type preview struct {
	octopus.Resource
	SpaceID     string                              `json:"SpaceId"`
	OwnerID     string                              `json:"OwnerId"`
	Version     int                                 `json:"Version"`
	Variables   octopus.List[chosen]                `json:"Variables"`
	ScopeValues octopus.ScopeValues                 `json:"ScopeValues"`
	Undefined   octopus.List[variables.Explanation] // names of which no value applies
	// HiddenValues is how many values the caller may not see: what is chosen here
	// may then not be what a deployment has.
	HiddenValues int
}

// chosen is a variable with the value that was chosen, where it comes from, and why.
type chosen struct {
	octopus.Variable
	OwnerID     string `json:"OwnerId"`
	OwnerName   string
	Explanation variables.Explanation
}

// pool is the variables that a project's deployments choose from, as far as the
// caller may see them.
type pool struct {
	owner  *owner // of the project's own
	sets   []*variableSet
	values []variables.Variable
	hidden int
}

// gather reads the variables of a project and of the library sets that it includes.
func (a *api) gather(ctx context.Context, tx *db.Tx, r *rest.Request, project string) (*pool, error) {
	doc, err := r.Find(ctx, tx, projectKind, project)
	if err != nil {
		return nil, err
	}
	p, err := docstore.Decode[octopus.Project](doc)
	if err != nil {
		return nil, err
	}
	ownerIDs := append([]string{p.ID}, p.IncludedLibraryVariableSetIDs...)
	owners, err := a.owners(ctx, tx, r, ownerIDs)
	if err != nil {
		return nil, err
	}
	setIDs := make([]string, len(ownerIDs))
	order := make(map[string]int, len(ownerIDs))
	for i, id := range ownerIDs {
		setIDs[i], order[setPrefix+id] = setPrefix+id, i
	}
	out := &pool{owner: owners[p.ID]}
	err = a.store.Each(ctx, tx, setKind, docstore.Query{Space: r.Space, IDs: setIDs}, func(doc *docstore.Doc) error {
		s, err := a.open(setKind, doc)
		if err != nil {
			return err
		}
		if s.owner = owners[s.value.OwnerID]; s.owner != nil {
			out.sets = append(out.sets, s)
		}
		return nil
	})
	slices.SortFunc(out.sets, func(x, y *variableSet) int { return order[x.doc.ID] - order[y.doc.ID] })
	for _, s := range out.sets {
		source := variables.Source{Kind: variables.KindProject, OwnerID: s.owner.id}
		if s.owner.library() {
			source.Kind, source.Order = variables.KindLibrary, int64(order[s.doc.ID])
		}
		for i := range s.value.Variables {
			one := &s.value.Variables[i]
			if !s.owner.sees(&one.Scope) {
				out.hidden++
				continue
			}
			// What a secret says is not read; its id stands for it, so that two of one
			// name are not taken for the same value.
			out.values = append(out.values, variables.From(one.Variable, source, one.ID))
		}
	}
	return out, err
}

func (a *api) names(r *rest.Request) (any, error) {
	filter, err := r.QueryList("projectEnvironmentsFilter")
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	if r.Query("project") == "" {
		return []string{}, nil
	}
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		p, err := a.gather(r.Context(), tx, r, r.Query("project"))
		if err != nil {
			return err
		}
		for _, v := range p.values {
			elsewhere := v.Source.Kind == variables.KindProject && len(filter) > 0 && len(v.Scope.Environment) > 0 &&
				!slices.ContainsFunc(v.Scope.Environment, func(id string) bool {
					return slices.ContainsFunc(filter, func(f string) bool { return strings.EqualFold(f, id) })
				})
			if folded := ident.Fold(v.Name); !elsewhere && names[folded] == "" {
				names[folded] = v.Name
			}
		}
		return nil
	})
	return sorted(names), err
}

// sorted lists names by their folded form.
func sorted(names map[string]string) []string {
	all := make([]string, 0, len(names))
	for _, name := range names {
		all = append(all, name)
	}
	slices.SortFunc(all, func(a, b string) int { return strings.Compare(ident.Fold(a), ident.Fold(b)) })
	return all
}

func (a *api) preview(r *rest.Request) (any, error) {
	if r.Query("project") == "" {
		return nil, fault.InvalidField("project", "project is empty; name the project whose variables you want to preview.")
	}
	var out preview
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		ctx := r.Context()
		p, err := a.gather(ctx, tx, r, r.Query("project"))
		if err != nil {
			return err
		}
		where, err := a.where(ctx, tx, r, p.owner)
		if err != nil {
			return err
		}
		scopes, err := a.scopeValues(ctx, tx, r, p.owner)
		if err != nil {
			return err
		}
		out = preview{SpaceID: string(r.Space), OwnerID: p.owner.id, ScopeValues: scopes[p.owner.id], HiddenValues: p.hidden}
		p.choose(&out, where)
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.Links = octopus.Links{"Self": r.SpaceHref("/variables/preview?" + r.URL.RawQuery), "Project": r.SpaceHref("/projects/" + out.OwnerID)}
	if r.HasQuery("apikey") {
		delete(out.Links, "Self") // a key must not end up in a link
	}
	return out, nil
}

// choose fills in which value of each name applies at a place, and why.
func (p *pool) choose(out *preview, where variables.Context) {
	type place struct{ owner, id string }
	rows := map[place]*resources.Variable{}
	owners := map[string]string{}
	for _, s := range p.sets {
		owners[s.owner.id] = s.owner.name
		for i := range s.value.Variables {
			rows[place{s.owner.id, s.value.Variables[i].ID}] = &s.value.Variables[i]
		}
	}
	names := map[string]string{}
	for _, v := range p.values {
		names[ident.Fold(v.Name)] = v.Name
	}
	labels := labelsOf(&out.ScopeValues)
	set := variables.New(p.values...)
	for _, name := range sorted(names) {
		why := set.Explain(name, where, labels)
		if !why.Found || len(why.Candidates) == 0 {
			out.Undefined = append(out.Undefined, why)
			continue
		}
		best := why.Candidates[0]
		row := rows[place{best.Source.OwnerID, best.ID}]
		if row == nil {
			continue
		}
		out.Variables = append(out.Variables, chosen{Variable: row.Variable, OwnerID: best.Source.OwnerID, OwnerName: owners[best.Source.OwnerID], Explanation: why})
	}
}

// labelsOf names things as people know them.
func labelsOf(v *octopus.ScopeValues) variables.Labels {
	type key struct {
		d  variables.Dimension
		id string
	}
	names := map[key]string{}
	for d, list := range map[variables.Dimension]octopus.List[octopus.Named]{
		variables.DimEnvironment: v.Environments, variables.DimMachine: v.Machines, variables.DimAction: v.Actions,
		variables.DimChannel: v.Channels, variables.DimTenantTag: v.TenantTags,
	} {
		for _, one := range list {
			names[key{d, one.ID}] = one.Name
		}
	}
	for _, one := range v.Processes {
		names[key{variables.DimProcess, one.ID}] = one.Name
	}
	return func(d variables.Dimension, id string) string { return names[key{d, id}] }
}

// where reads the place that a preview is for. What it names must exist and be
// seen by the caller.
func (a *api) where(ctx context.Context, tx *db.Tx, r *rest.Request, o *owner) (variables.Context, error) {
	c := variables.Context{ProcessOwner: o.id, Action: r.Query("action")}
	var faults []error
	find := func(param, kind string) *docstore.Doc {
		if !r.HasQuery(param) {
			return nil
		}
		if !a.declared(kind) {
			faults = append(faults, fault.InvalidField(param, "%s is '%.100s'; this server has no %s.", param, r.Query(param), kind))
			return nil
		}
		doc, err := r.Find(ctx, tx, kind, r.Query(param))
		if err != nil {
			faults = append(faults, err)
		}
		return doc
	}
	if doc := find("environment", "environments"); doc != nil {
		c.Environment = doc.ID
		if !o.may(octopus.PermVariableView, auth.Target{Project: o.target.Project, ProjectGroup: o.target.ProjectGroup, Environment: doc.ID}) {
			faults = append(faults, fault.New(fault.Forbidden, "You do not have permission to see the variables of the environment '%s': it needs %s there.", doc.ID, variableView))
		}
	}
	if doc := find("channel", "channels"); doc != nil {
		c.Channel = doc.ID
	}
	if doc := find("runbook", "runbooks"); doc != nil {
		c.ProcessOwner = doc.ID
	}
	if doc := find("tenant", "tenants"); doc != nil {
		tenant, err := docstore.Decode[octopus.Tenant](doc)
		if err == nil {
			c.Tenant, c.TenantTags = doc.ID, tenant.TenantTags
		}
		faults = append(faults, err)
	}
	if doc := find("machine", "machines"); doc != nil {
		machine, err := docstore.Decode[octopus.Machine](doc)
		if err == nil {
			c.Machine, c.MachineRoles = doc.ID, machine.Roles
		}
		faults = append(faults, err)
	}
	roles, err := r.QueryList("role")
	c.MachineRoles = append(slices.Clone(c.MachineRoles), roles...)
	faults = append(faults, err)
	if c.Action != "" {
		err := a.ofAction(ctx, tx, r, o, &c)
		faults = append(faults, err)
	}
	return c, errors.Join(faults...)
}

// ofAction adds the target tags of the step that an action is in, and finds the
// action by its name, too.
func (a *api) ofAction(ctx context.Context, tx *db.Tx, r *rest.Request, o *owner, c *variables.Context) error {
	doc, err := r.Find(ctx, tx, "deploymentprocesses", o.project.DeploymentProcessID)
	if err != nil {
		return err
	}
	process, err := docstore.Decode[struct{ Steps []step }](doc)
	if err != nil {
		return err
	}
	for _, s := range process.Steps {
		for _, action := range s.Actions {
			if strings.EqualFold(action.ID, c.Action) || ident.Fold(action.Name) == ident.Fold(c.Action) {
				c.Action, c.StepRoles = action.ID, s.roles()
				return nil
			}
		}
	}
	if c.ProcessOwner != o.id {
		return nil // of a runbook's process
	}
	return fault.InvalidField("action", "action is '%.100s', which is no step of the project '%s'; give the id or the name of one.", c.Action, o.name)
}
