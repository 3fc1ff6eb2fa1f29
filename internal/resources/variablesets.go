package resources

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// VariableSet is a variable set as it is stored: the value of a sensitive
// variable is a secret beside it.
type VariableSet struct {
	octopus.Resource
	SpaceID   string                 `json:"SpaceId"`
	OwnerID   string                 `json:"OwnerId"`
	Version   int                    `json:"Version"`
	Variables octopus.List[Variable] `json:"Variables"`
}

// Variable is a variable as it is stored.
type Variable struct {
	octopus.Variable
	// Secret is the value of a sensitive variable, whose Value is null.
	Secret *octopus.Sensitive `json:"Secret,omitempty"`
}

// VariableSets are the variables of projects and library sets. They are made
// with their owner and replaced as a whole, with the version that was read.
//
// A value that is scoped to a target, a channel or a tenant keeps that scope when
// the thing is deleted, and then applies nowhere: without it, it would apply
// everywhere.
func VariableSets() *resource.Kind {
	const scope = "Variables.*.Scope."
	return resource.Declare(resource.Declaration[VariableSet]{
		Name: "variables", ItemType: "VariableSet", Noun: "variable set", Prefix: "variableset",
		Permissions: resource.Permissions{View: "VariableView", Edit: "VariableEdit"},
		Dimensions:  resource.Dimensions{Project: "OwnerId"},
		Unnamed:     true, Versioned: true, Hidden: true, Order: resource.ByAge,
		Owned:   []string{"OwnerId"},
		Filters: []resource.Filter{{Param: "owner", Path: "OwnerId"}},
		References: []resource.Reference{
			{Path: scope + "Environment", To: "environments"},
			{Path: scope + "Machine", To: "machines", OnDelete: resource.Ignore},
			{Path: scope + "Channel", To: "channels", OnDelete: resource.Ignore},
			{Path: scope + "Tenant", To: "tenants", OnDelete: resource.Ignore},
		},
		Prepare: func(v *VariableSet) {
			for i := range v.Variables {
				prepareVariable(&v.Variables[i])
			}
		},
		Check: checkVariables,
	})
}

// prepareVariable keeps the value of a sensitive variable out of the open: no
// value, or an empty one, means the secret that is stored already.
func prepareVariable(v *Variable) {
	v.Name = strings.TrimSpace(v.Name)
	if v.Type == "" {
		v.Type = octopus.VariableString
	}
	v.IsEditable = true
	if !v.Variable.Secret() {
		v.Secret = nil
		if v.Value == nil {
			empty := ""
			v.Value = &empty
		}
		return
	}
	v.IsSensitive, v.Type = true, octopus.VariableSensitive
	if v.Value != nil && *v.Value != "" {
		secret := octopus.NewSensitive(*v.Value)
		v.Secret = &secret
	} else if v.Secret == nil {
		v.Secret = &octopus.Sensitive{HasValue: true}
	}
	v.Value = nil
}

// Limits of a variable set.
const (
	maxVariables    = 20000
	maxVariableName = 1000 // bytes
)

func checkVariables(ctx context.Context, r resource.Reader, old, v *VariableSet) error {
	if len(v.Variables) > maxVariables {
		return fault.InvalidField("Variables", "Variables has %d entries; use at most %d.", len(v.Variables), maxVariables)
	}
	var faults []error
	ids := map[string]bool{}
	for i := range v.Variables {
		one := &v.Variables[i]
		field := fmt.Sprintf("Variables[%d]", i)
		switch {
		case one.Name == "":
			faults = append(faults, fault.InvalidField(field+".Name", "%s.Name is empty; give the variable a name.", field))
		case len(one.Name) > maxVariableName:
			faults = append(faults, fault.InvalidField(field+".Name", "%s.Name has %d bytes; use at most %d.", field, len(one.Name), maxVariableName))
		}
		if one.ID == "" {
			one.ID = uuid.NewString()
		}
		if ids[one.ID] {
			faults = append(faults, fault.InvalidField(field+".Id", "%s.Id is '%.100s', which stands in the set twice; leave it empty for what is new.", field, one.ID))
		}
		ids[one.ID] = true
	}
	var had octopus.List[string]
	if old != nil {
		for _, l := range tagsOfVariables(old.Variables) {
			had = append(had, l.tags...)
		}
	}
	return errors.Join(append(faults, checkTenantTags(ctx, r, v.SpaceID, had, tagsOfVariables(v.Variables)...))...)
}

// tagsOfVariables are the tags of the tenants that values are for.
func tagsOfVariables(variables []Variable) (lists []tagList) {
	for i := range variables {
		if tags := variables[i].Scope.TenantTag; len(tags) > 0 {
			lists = append(lists, tagList{fmt.Sprintf("Variables[%d].Scope.TenantTag", i), tags})
		}
	}
	return lists
}
