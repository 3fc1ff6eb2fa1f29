package tenants

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// replacement is what a client wants in place of some of a tenant's values.
type replacement struct {
	// covers tells the values that are replaced; the others stay.
	covers func(v *view, value *resources.TenantValue) bool
	values []resources.TenantValue
	// single marks values that have one environment each, as old clients have them.
	single bool
	// token is the version that the client has read; "" is any.
	token string
}

// put replaces values of the tenant that the path names. Values that the caller
// does not see stay as they are, for a client sends back what it was shown.
func (a *api) put(r *rest.Request, in *replacement) (v *view, err error) {
	err = a.db.Write(r.Context(), func(tx *db.Tx) error {
		ctx := r.Context()
		if v, err = a.find(tx, r); err != nil {
			return err
		}
		doc, err := r.Find(ctx, tx, tenantKind, v.tenant.ID)
		if err != nil {
			return err
		}
		if err := r.Must(ctx, tx, tenantKind, doc, tenantEdit); err != nil {
			return err
		}
		if in.token != "" && in.token != strconv.FormatInt(v.version, 10) {
			return fault.New(fault.Conflict, "The values of the tenant '%s' were modified by somebody else since they were read; read them again and repeat the change.", v.tenant.Name)
		}
		set, err := v.merge(r, in)
		if err != nil {
			return err
		}
		if err := a.keep(ctx, tx, r, v, set); err != nil {
			return err
		}
		v, err = a.find(tx, r)
		return err
	})
	return v, err
}

func (a *api) keep(ctx context.Context, tx *db.Tx, r *rest.Request, v *view, set *resources.TenantVariableSet) error {
	k, err := a.store.Kind(valueKind)
	if err != nil {
		return err
	}
	body, err := json.Marshal(set)
	if err != nil {
		return fmt.Errorf("encode the values of %s: %w", v.tenant.ID, err)
	}
	id := resources.TenantVariablesID(v.tenant.ID)
	if v.version == 0 {
		_, err = a.store.Create(ctx, tx, k, docstore.Input{Space: r.Space, ID: id, Body: body, Server: true})
	} else {
		_, err = a.store.Replace(ctx, tx, k, r.Space, id, docstore.Input{Body: body, Server: true})
	}
	return err
}

// merge puts new values in place of those that they replace, and checks that the
// caller may change what changes.
func (v *view) merge(r *rest.Request, in *replacement) (*resources.TenantVariableSet, error) {
	out := &resources.TenantVariableSet{TenantID: v.tenant.ID, SpaceID: v.tenant.SpaceID, Version: v.set.Version}
	var old []resources.TenantValue
	for i := range v.set.Values {
		if value := v.set.Values[i]; in.covers(v, &value) && v.sees(r, &value, variableView) {
			old = append(old, value)
		} else {
			out.Values = append(out.Values, value)
		}
	}
	if in.single {
		in.values = regroup(old, in.values)
	}
	var faults []error
	taken := map[string]bool{}
	for i := range in.values {
		value := &in.values[i]
		if err := v.check(value, fmt.Sprintf("Variables[%d]", i)); err != nil {
			faults = append(faults, err)
			continue
		}
		at := slices.IndexFunc(old, func(o resources.TenantValue) bool { return o.ID == value.ID })
		if at < 0 {
			at = slices.IndexFunc(old, func(o resources.TenantValue) bool {
				return o.OwnerID == value.OwnerID && o.TemplateID == value.TemplateID && slices.Equal(o.EnvironmentIDs, value.EnvironmentIDs)
			})
		}
		switch {
		case at >= 0 && !taken[old[at].ID]:
			value.ID = old[at].ID
		default:
			value.ID, at = uuid.NewString(), -1
		}
		taken[value.ID] = true
		if !resources.HasText(value.Value) {
			taken[value.ID] = false
			continue // no value: the default holds
		}
		if s := value.Value.Sensitive; at < 0 && s != nil && s.NewValue == nil {
			faults = append(faults, fault.InvalidField("Variables", "The secret value of the template '%s' of '%s' is new, or for other environments than before, and comes without a text; give it one.", value.TemplateID, value.OwnerID))
			continue
		}
		if (at < 0 || differ(&old[at], value)) && !v.sees(r, value, variableEdit) {
			return nil, mayNot(v)
		}
		out.Values = append(out.Values, *value)
	}
	for i := range old {
		if !taken[old[i].ID] && !v.sees(r, &old[i], variableEdit) {
			return nil, mayNot(v)
		}
	}
	return out, errors.Join(append(faults, overlaps(out.Values)...)...)
}

// regroup puts values for one environment each together again, where they are what
// is left of one value for several: it keeps its id, and its secret.
func regroup(old, values []resources.TenantValue) []resources.TenantValue {
	for _, o := range old {
		if len(o.EnvironmentIDs) < 2 {
			continue
		}
		part := func(value resources.TenantValue) bool {
			one := o
			one.EnvironmentIDs = value.EnvironmentIDs
			return value.OwnerID == o.OwnerID && value.TemplateID == o.TemplateID && len(value.EnvironmentIDs) == 1 &&
				slices.Contains(o.EnvironmentIDs, value.EnvironmentIDs[0]) && !differ(&one, &value)
		}
		parts := 0
		for _, value := range values {
			if part(value) {
				parts++
			}
		}
		if parts == len(o.EnvironmentIDs) {
			values = append(slices.DeleteFunc(values, part), o)
		}
	}
	return values
}

func mayNot(v *view) error {
	return fault.New(fault.Forbidden, "You do not have permission to change these values of the tenant '%s': it needs %s for their projects and environments.", v.tenant.Name, variableEdit)
}

// differ reports whether a value says something else than the one before.
func differ(old, now *resources.TenantValue) bool {
	if now.Value.Sensitive != nil && now.Value.Sensitive.NewValue != nil {
		return true
	}
	return old.Value.Value != now.Value.Value || old.Value.IsSensitive() != now.Value.IsSensitive() || !slices.Equal(old.EnvironmentIDs, now.EnvironmentIDs)
}

// check completes a value by what it is for, and refuses one for nothing.
func (v *view) check(value *resources.TenantValue, field string) error {
	var t *octopus.TemplateParameter
	var among []string // the environments that it may be for
	switch p, l := v.project(value.OwnerID), v.library(value.OwnerID); {
	case p != nil:
		value.OwnerID, among, t = p.ID, v.connected(p), template(p.Templates, value.TemplateID)
		if len(value.EnvironmentIDs) == 0 { // of every environment, as they are now
			value.EnvironmentIDs = slices.Clone(among)
		}
	case l != nil:
		value.OwnerID, among, t = l.ID, v.within[l.ID], template(l.Templates, value.TemplateID)
	default:
		return fault.InvalidField(field, "%s is for '%.100s', which the tenant '%s' is not connected to; connect it first.", field, value.OwnerID, v.tenant.Name)
	}
	if t == nil {
		return fault.InvalidField(field+".TemplateId", "%s.TemplateId is '%.100s', which is no template of '%s'; give the id of one.", field, value.TemplateID, value.OwnerID)
	}
	value.TemplateID = t.ID
	for i, id := range value.EnvironmentIDs {
		at := slices.IndexFunc(among, func(one string) bool { return strings.EqualFold(one, id) })
		if at < 0 {
			return fault.InvalidField(field+".Scope.EnvironmentIds", "%s.Scope.EnvironmentIds names '%.100s', in which the tenant '%s' is not connected to '%s'; connect it there first.", field, id, v.tenant.Name, value.OwnerID)
		}
		value.EnvironmentIDs[i] = among[at]
	}
	slices.Sort(value.EnvironmentIDs)
	value.EnvironmentIDs = slices.Compact(value.EnvironmentIDs)
	if resources.IsSensitive(t) && !value.Value.IsSensitive() {
		value.Value = octopus.Secret(value.Value.Value)
	}
	return nil
}

// overlaps finds templates with two values in one environment.
func overlaps(values []resources.TenantValue) (faults []error) {
	type place struct{ owner, template, environment string }
	seen := map[place]bool{}
	for i := range values {
		value := &values[i]
		at := []string(value.EnvironmentIDs)
		if len(at) == 0 {
			at = []string{""}
		}
		for _, environment := range at {
			if key := (place{value.OwnerID, value.TemplateID, environment}); seen[key] {
				faults = append(faults, fault.InvalidField("Variables", "The template '%s' of '%s' has two values for '%s'; give it one.", value.TemplateID, value.OwnerID, environment))
			} else {
				seen[key] = true
			}
		}
	}
	return faults
}

// putVariables replaces everything that the form of old clients shows: all but the
// values of library sets that are limited to environments.
func (a *api) putVariables(r *rest.Request) (any, error) {
	var body octopus.TenantVariables
	if err := r.Decode(&body); err != nil {
		return nil, err
	}
	in := &replacement{single: true, token: string(body.ConcurrencyToken), covers: func(v *view, value *resources.TenantValue) bool {
		return v.project(value.OwnerID) != nil || len(value.EnvironmentIDs) == 0
	}}
	for owner, project := range body.ProjectVariables {
		for environment, properties := range project.Variables {
			for id, value := range properties {
				in.values = append(in.values, resources.TenantValue{OwnerID: owner, TemplateID: id, Value: value, EnvironmentIDs: octopus.List[string]{environment}})
			}
		}
	}
	for owner, library := range body.LibraryVariables {
		for id, value := range library.Variables {
			in.values = append(in.values, resources.TenantValue{OwnerID: owner, TemplateID: id, Value: value})
		}
	}
	slices.SortFunc(in.values, func(a, b resources.TenantValue) int {
		return strings.Compare(a.OwnerID+"\x00"+a.TemplateID+"\x00"+strings.Join(a.EnvironmentIDs, ","), b.OwnerID+"\x00"+b.TemplateID+"\x00"+strings.Join(b.EnvironmentIDs, ","))
	})
	v, err := a.put(r, in)
	if err != nil {
		return nil, err
	}
	return v.document(r, nil), nil
}

func (a *api) putCommon(r *rest.Request) (any, error) {
	missing, errQuery := r.QueryBool("includeMissingVariables", false)
	var body octopus.TenantCommonVariablesCommand
	if err := errors.Join(errQuery, r.Decode(&body)); err != nil {
		return nil, err
	}
	in := &replacement{covers: func(v *view, value *resources.TenantValue) bool { return v.library(value.OwnerID) != nil }}
	for _, one := range body.Variables {
		in.values = append(in.values, resources.TenantValue{ID: one.ID, OwnerID: one.LibraryVariableSetID, TemplateID: one.TemplateID, Value: one.Value, EnvironmentIDs: one.Scope.EnvironmentIDs})
	}
	v, err := a.put(r, in)
	if err != nil {
		return nil, err
	}
	return v.common(r, missing), nil
}

func (a *api) putProject(r *rest.Request) (any, error) {
	missing, errQuery := r.QueryBool("includeMissingVariables", false)
	var body octopus.TenantProjectVariablesCommand
	if err := errors.Join(errQuery, r.Decode(&body)); err != nil {
		return nil, err
	}
	in := &replacement{covers: func(v *view, value *resources.TenantValue) bool { return v.project(value.OwnerID) != nil }}
	for _, one := range body.Variables {
		in.values = append(in.values, resources.TenantValue{ID: one.ID, OwnerID: one.ProjectID, TemplateID: one.TemplateID, Value: one.Value, EnvironmentIDs: one.Scope.EnvironmentIDs})
	}
	v, err := a.put(r, in)
	if err != nil {
		return nil, err
	}
	return v.ofProjects(r, missing), nil
}
