package resources

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// TenantVariableSet has all values of one tenant: of templates of the projects that
// it is connected to, and of the library sets that these include. There is none
// until the first value is given.
type TenantVariableSet struct {
	octopus.Resource
	SpaceID  string                    `json:"SpaceId"`
	TenantID string                    `json:"TenantId"`
	Version  int                       `json:"Version"`
	Values   octopus.List[TenantValue] `json:"Values"`
}

// TenantValue is a tenant's own value of a template.
type TenantValue struct {
	ID string `json:"Id"`
	// OwnerID is the project or the library set that has the template.
	OwnerID    string                `json:"OwnerId"`
	TemplateID string                `json:"TemplateId"`
	Value      octopus.PropertyValue `json:"Value"`
	// EnvironmentIDs limit where it applies; a project's value always has some, and
	// that of a library set applies everywhere without.
	EnvironmentIDs octopus.List[string] `json:"EnvironmentIds"`
}

// TenantVariablesID is the id of a tenant's values.
func TenantVariablesID(tenant string) string { return "TenantVariables-" + tenant }

// maxTenantValues bounds the values of one tenant.
const maxTenantValues = 20000

// TenantVariableSets are the values of tenants. They come and go with their tenant;
// a value whose project, template or environment is gone is not shown and not used.
func TenantVariableSets() *resource.Kind {
	return resource.Declare(resource.Declaration[TenantVariableSet]{
		Name: "tenantvariables", ItemType: "TenantVariables", Noun: "set of tenant variables", Prefix: "TenantVariables",
		Permissions: resource.Permissions{View: "TenantView", Edit: "TenantEdit"},
		Dimensions:  resource.Dimensions{Tenant: "TenantId"},
		Unnamed:     true, Versioned: true, Hidden: true, Order: resource.ByAge,
		References: []resource.Reference{
			{Path: "TenantId", To: "tenants", OnDelete: resource.Cascade, Required: true},
			{Path: "Values.*.EnvironmentIds", To: "environments", OnDelete: resource.Ignore},
		},
		Check: func(_ context.Context, _ resource.Reader, _, v *TenantVariableSet) error {
			if len(v.Values) > maxTenantValues {
				return fault.InvalidField("Variables", "The tenant has %d values; use at most %d.", len(v.Values), maxTenantValues)
			}
			return nil
		},
	})
}

// checkTemplates gives templates their ids, which values refer to: one that comes
// without keeps that of its name.
func checkTemplates(templates, had octopus.List[octopus.TemplateParameter]) error {
	ids := map[string]string{}
	for _, t := range had {
		ids[ident.Fold(t.Name)] = t.ID
	}
	var faults []error
	names, taken := map[string]bool{}, map[string]bool{}
	for i := range templates {
		t, field := &templates[i], fmt.Sprintf("Templates[%d]", i)
		t.Name = strings.TrimSpace(t.Name)
		folded := ident.Fold(t.Name)
		switch {
		case t.Name == "":
			faults = append(faults, fault.InvalidField(field+".Name", "%s.Name is empty; give the template a name.", field))
		case names[folded]:
			faults = append(faults, fault.InvalidField(field+".Name", "%s.Name is '%.100s', which another template has too; name each once.", field, t.Name))
		}
		names[folded] = true
		if t.ID == "" && !taken[ids[folded]] {
			t.ID = ids[folded]
		}
		t.ID = cmp.Or(t.ID, uuid.NewString())
		if taken[t.ID] {
			faults = append(faults, fault.InvalidField(field+".Id", "%s.Id is '%.100s', which another template has too; leave it empty for what is new.", field, t.ID))
		}
		taken[t.ID] = true
	}
	return errors.Join(faults...)
}

// IsSensitive reports whether the values of a template are secrets.
func IsSensitive(t *octopus.TemplateParameter) bool {
	return t.DefaultValue.IsSensitive() || strings.EqualFold(t.DisplaySettings[octopus.DisplayControlType], string(octopus.ControlSensitive))
}

// HasText reports whether a property has a value at all, secret or not.
func HasText(v octopus.PropertyValue) bool {
	if v.Sensitive != nil {
		return v.Sensitive.HasValue || v.Sensitive.NewValue != nil && *v.Sensitive.NewValue != ""
	}
	return strings.TrimSpace(v.Value) != ""
}

// templateType is the type of the variables of a template.
func templateType(t *octopus.TemplateParameter) octopus.VariableType {
	switch control := octopus.ControlType(t.DisplaySettings[octopus.DisplayControlType]); control {
	case octopus.ControlSensitive:
		return octopus.VariableSensitive
	case octopus.ControlCertificate, octopus.ControlAWSAccount, octopus.ControlAzureAccount, octopus.ControlGoogleAccount, octopus.ControlUserAccount, octopus.ControlWorkerPool:
		return octopus.VariableType(control) // these types are called like their controls
	default:
		return octopus.VariableString
	}
}

// ParameterVariable is the variable of a step template's parameter for an action that
// was made from the template: the action's value of it, else the default. Secrets of
// both must have been revealed.
func ParameterVariable(t *octopus.TemplateParameter, a *octopus.Action) variables.Variable {
	value, ok := a.Properties.Lookup(t.Name)
	if !ok {
		value = t.DefaultValue
	}
	return variables.Variable{
		ID: a.ID + "/" + t.ID, Name: t.Name, Value: clearOf(value), Sensitive: IsSensitive(t) || value.IsSensitive(), Type: templateType(t),
		Scope: octopus.Scope{Action: octopus.List[string]{a.ID}}, Source: variables.Source{Kind: variables.KindAction, OwnerID: a.ID},
	}
}

// clearOf is the text of a property whose secret was revealed.
func clearOf(v octopus.PropertyValue) string {
	if v.Sensitive == nil {
		return v.Value
	}
	if v.Sensitive.NewValue == nil {
		return ""
	}
	return *v.Sensitive.NewValue
}

// TenantVariables are a tenant's variables in a deployment of a project to an
// environment, and the templates for which there is no value. All of what is given
// has its secrets in clear.
func TenantVariables(tenant, environment string, project *octopus.Project, libraries []octopus.LibraryVariableSet, set *TenantVariableSet) ([]variables.Variable, []variables.Missing) {
	var templates []variables.Template
	add := func(owner string, perEnvironment bool, list octopus.List[octopus.TemplateParameter]) {
		for i := range list {
			t := &list[i]
			fallback := clearOf(t.DefaultValue)
			templates = append(templates, variables.Template{
				ID: owner + "/" + t.ID, Name: t.Name, OwnerID: owner, PerEnvironment: perEnvironment,
				Sensitive: IsSensitive(t), Type: templateType(t), Default: &fallback,
			})
		}
	}
	add(project.ID, true, project.Templates)
	for i := range libraries {
		add(libraries[i].ID, false, libraries[i].Templates)
	}
	var values []variables.TenantValue
	for i := range set.Values {
		v := &set.Values[i]
		if text := clearOf(v.Value); text != "" {
			values = append(values, variables.TenantValue{TemplateID: v.OwnerID + "/" + v.TemplateID, Environments: v.EnvironmentIDs, Value: text})
		}
	}
	return variables.Tenant(tenant, environment, templates, values)
}
