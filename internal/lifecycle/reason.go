package lifecycle

import (
	"fmt"
	"slices"
	"strings"
)

// CanDeploy reports whether the release may be deployed to an environment now
// and, if not, says why in a sentence or two for people, with what would help.
func CanDeploy(r Result, environmentID string) (ok bool, reason string) {
	if slices.Contains(r.Deployable, environmentID) {
		return true, ""
	}
	environment := r.name(environmentID)
	listed := false
	var closed *Phase // the phase through which the environment would be open first
	for i, p := range r.Phases {
		listed = listed || slices.Contains(targets(p.Phase), environmentID)
		if closed == nil && slices.Contains(p.EnvironmentIDs, environmentID) {
			closed = &r.Phases[i]
		}
	}
	switch {
	case !listed:
		return false, fmt.Sprintf("The lifecycle %q has no phase with the environment %s. Add it to one, or use a channel with another lifecycle.", r.lifecycle, environment)
	case closed == nil:
		return false, fmt.Sprintf("The tenant is not connected to the environment %s in this project. Connect it first.", environment)
	case closed.Reached:
		return false, fmt.Sprintf("The release has an unresolved defect and has not been deployed to the phase %q yet. Resolve the defect to deploy it to %s.", closed.Name, environment)
	}
	for _, p := range r.Phases {
		if !p.complete() && !p.IsOptionalPhase {
			return false, fmt.Sprintf("The release cannot be deployed to %s yet. %s", environment, r.needs(p))
		}
	}
	// Not reached without a phase in the way cannot be.
	return false, fmt.Sprintf("The release cannot be deployed to %s yet.", environment)
}

// needs says what a phase lacks.
func (r Result) needs(p Phase) string {
	names := make([]string, len(p.missing))
	for i, id := range p.missing {
		names[i] = r.name(id)
	}
	most := 5
	if len(names) > most {
		names = append(names[:most:most], fmt.Sprintf("%d more", len(names)-most))
	}
	lacks := p.Required - p.Succeeded
	switch {
	case lacks == len(p.missing):
		return fmt.Sprintf("The phase %q must be completed first: deploy it to %s.", p.Name, join(names, "and"))
	case lacks == 1:
		return fmt.Sprintf("The phase %q must be completed first: deploy it to %s.", p.Name, join(names, "or"))
	default:
		return fmt.Sprintf("The phase %q must be completed first: deploy it to %d of %s.", p.Name, lacks, join(names, "and"))
	}
}

// name is how people know an environment.
func (r Result) name(id string) string {
	if name := r.names[id]; name != "" {
		return fmt.Sprintf("%q", name)
	}
	return fmt.Sprintf("%q", id)
}

// join makes a list of words as people write it.
func join(words []string, last string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	n := len(words) - 1
	return strings.Join(words[:n], ", ") + " " + last + " " + words[n]
}
