package resources

import (
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// oneOf refuses a value that is none of a closed list, and spells one that is as
// the list does: values are compared without case. It is for what decides how a
// deployment goes; kinds of things (feeds, endpoints, actions) stay open.
func oneOf[T ~string](field string, v *T, allowed ...T) error {
	names := make([]string, len(allowed))
	for i, a := range allowed {
		if strings.EqualFold(string(*v), string(a)) {
			*v = a
			return nil
		}
		names[i] = string(a)
	}
	return fault.InvalidField(field, "%s is '%.100s'; use %s.", field, string(*v), strings.Join(names, ", "))
}

// checkParticipation is oneOf for how a thing takes part in deployments of tenants.
func checkParticipation(field string, v *octopus.TenantedDeploymentMode) error {
	return oneOf(field, v, octopus.Untenanted, octopus.TenantedOrUntenanted, octopus.Tenanted)
}
