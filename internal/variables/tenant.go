package variables

import (
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// Template is a variable whose value each tenant has its own of.
type Template struct {
	ID   string `json:"Id"`
	Name string
	// OwnerID is the project or the library set that declares it.
	OwnerID string `json:"OwnerId"`
	// PerEnvironment is true for a project's template, of which a tenant has a
	// value for each environment, and false for a library set's, of which it
	// has one for all environments or for some.
	PerEnvironment bool
	Sensitive      bool
	Type           octopus.VariableType
	// Default is used by tenants without a value of their own; nil is none.
	Default *string
}

// TenantValue is a tenant's own value of a template.
type TenantValue struct {
	TemplateID string
	// Environments limit where it applies; empty is everywhere, which a value
	// of a per-environment template must not be.
	Environments []string
	Value        string
}

// Missing is a template for which a tenant has neither a value nor a default.
type Missing struct {
	TemplateID, Name, OwnerID, Environment string
}

// Tenant makes the variables of one tenant for one environment from the
// templates that its projects and library sets declare. They count as scoped to
// the tenant, and if per environment to that too, and so go before a project's
// values for the environment, but not before those for a step or target. It
// also lists what has no value, which stops a deployment.
func Tenant(tenant, environment string, templates []Template, values []TenantValue) ([]Variable, []Missing) {
	var out []Variable
	var missing []Missing
	own := map[string][]TenantValue{}
	for _, v := range values {
		key := ident.Fold(v.TemplateID)
		own[key] = append(own[key], v)
	}
	env := ident.Fold(environment)
	for _, t := range templates {
		v := Variable{
			ID: t.ID, Name: t.Name, Sensitive: t.Sensitive || t.Type == octopus.VariableSensitive, Type: t.Type,
			Scope:  octopus.Scope{Tenant: octopus.List[string]{tenant}},
			Source: Source{Kind: KindTenant, OwnerID: t.OwnerID},
		}
		found := false
		for _, value := range own[ident.Fold(t.ID)] {
			everywhere := len(value.Environments) == 0
			if everywhere && t.PerEnvironment || !everywhere && !slices.Contains(foldAll(value.Environments), env) {
				continue
			}
			w := v
			w.Value = value.Value
			if !everywhere {
				w.Scope.Environment = octopus.List[string]{environment}
			}
			out = append(out, w)
			found = true
		}
		if found {
			continue
		}
		if t.Default == nil || strings.TrimSpace(*t.Default) == "" {
			missing = append(missing, Missing{TemplateID: t.ID, Name: t.Name, OwnerID: t.OwnerID, Environment: environment})
			continue
		}
		v.Value = *t.Default
		if t.PerEnvironment {
			v.Scope.Environment = octopus.List[string]{environment}
		}
		out = append(out, v)
	}
	return out, missing
}
