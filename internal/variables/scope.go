package variables

import (
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// Context is where a value is looked for: one deployment, and as far as it is
// known one step and one machine. An empty field means that there is no such
// thing there, so values that are scoped by it do not apply. All are ids, but
// for roles (target tags, by name) and tenant tags ("Set/Tag"); case does not
// matter.
type Context struct {
	Environment string
	Machine     string
	// MachineRoles are the machine's target tags. For a step that runs on a
	// worker or the server on behalf of a machine, that machine's.
	MachineRoles []string
	// StepRoles are the target tags that the step goes to.
	StepRoles []string
	Action    string
	// Channel is empty in runbooks.
	Channel string
	// Tenant and TenantTags are empty in an untenanted deployment.
	Tenant     string
	TenantTags []string
	// ProcessOwner is the project for its deployment process, or the runbook.
	ProcessOwner string
}

// Dimension is a part of a scope.
type Dimension uint8

// The dimensions, the least specific first.
const (
	DimProcess Dimension = iota
	DimChannel
	DimEnvironment
	DimTenantTag
	DimTenant
	DimRole
	DimMachine
	DimAction
	dimensions
)

// String is the dimension's key in the API.
func (d Dimension) String() string {
	switch d {
	case DimProcess:
		return "ProcessOwner"
	case DimChannel:
		return "Channel"
	case DimEnvironment:
		return "Environment"
	case DimTenantTag:
		return "TenantTag"
	case DimTenant:
		return "Tenant"
	case DimRole:
		return "Role"
	case DimMachine:
		return "Machine"
	case DimAction:
		return "Action"
	case dimensions:
	}
	return "?"
}

// MarshalText gives a dimension its name in JSON.
func (d Dimension) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// words is the dimension in a sentence.
func (d Dimension) words() string {
	switch d {
	case DimProcess:
		return "process"
	case DimChannel:
		return "channel"
	case DimEnvironment:
		return "environment"
	case DimTenantTag:
		return "tenant tag"
	case DimTenant:
		return "tenant"
	case DimRole:
		return "target tag"
	case DimMachine:
		return "target"
	case DimAction:
		return "step"
	case dimensions:
	}
	return "?"
}

// Rank is how specific a value is in some context: one bit per dimension of its
// scope, so that the most specific dimension decides, then the next. How many
// entries a dimension has does not matter. Zero is unscoped; less than zero
// means that the value does not apply.
//
// From the most specific: step, target, target tag that the step goes to,
// another tag of the target, tenant, tenant tag, environment, channel, process.
type Rank int16

// NoMatch is the rank of a value that does not apply.
const NoMatch Rank = -1

// The bits of a rank.
const (
	rankProcess Rank = 1 << iota
	rankChannel
	rankEnvironment
	rankTenantTag
	rankTenant
	rankRole
	rankStepRole
	rankMachine
	rankAction
	rankPassed
)

// bit is what a dimension adds to a rank; stepRole tells that the tag that
// matched is one that the step goes to.
func (d Dimension) bit(stepRole bool) Rank {
	switch d {
	case DimProcess:
		return rankProcess
	case DimChannel:
		return rankChannel
	case DimEnvironment:
		return rankEnvironment
	case DimTenantTag:
		return rankTenantTag
	case DimTenant:
		return rankTenant
	case DimRole:
		if stepRole {
			return rankStepRole
		}
		return rankRole
	case DimMachine:
		return rankMachine
	case DimAction:
		return rankAction
	case dimensions:
	}
	return 0
}

// entries are what a scope lists for a dimension.
func entries(s *octopus.Scope, d Dimension) []string {
	switch d {
	case DimProcess:
		return s.ProcessOwner
	case DimChannel:
		return s.Channel
	case DimEnvironment:
		return s.Environment
	case DimTenantTag:
		return s.TenantTag
	case DimTenant:
		return s.Tenant
	case DimRole:
		return s.Role
	case DimMachine:
		return s.Machine
	case DimAction:
		return s.Action
	case dimensions:
	}
	return nil
}

// present is what there is of a dimension in a context, without empty entries.
func (c *Context) present(d Dimension) []string {
	one := func(s string) []string {
		if strings.TrimSpace(s) == "" {
			return nil
		}
		return []string{s}
	}
	switch d {
	case DimProcess:
		return one(c.ProcessOwner)
	case DimChannel:
		return one(c.Channel)
	case DimEnvironment:
		return one(c.Environment)
	case DimTenantTag:
		return c.TenantTags
	case DimTenant:
		return one(c.Tenant)
	case DimRole:
		return c.MachineRoles
	case DimMachine:
		return one(c.Machine)
	case DimAction:
		return one(c.Action)
	case dimensions:
	}
	return nil
}

// tagSet is the set's part of a canonical tag "Set/Tag".
func tagSet(tag string) string {
	set, _, _ := strings.Cut(tag, "/")
	return strings.TrimSpace(set)
}

// Matches reports whether a value of that scope applies in a context, and how
// specific it is there. [Set] gives the same answers, faster.
func Matches(scope octopus.Scope, ctx Context) (Rank, bool) {
	var rank Rank
	for d := range dimensions {
		wanted := entries(&scope, d)
		if len(wanted) == 0 {
			continue
		}
		ok, stepRole := matchDimension(d, wanted, &ctx)
		if !ok {
			return NoMatch, false
		}
		rank |= d.bit(stepRole)
	}
	return rank, true
}

// matchDimension tells whether any of wanted is there; for tenant tags, any of
// each tag set that is named.
func matchDimension(d Dimension, wanted []string, ctx *Context) (ok, stepRole bool) {
	have := foldAll(ctx.present(d))
	sets := map[string]bool{} // by tag set: matched
	for _, w := range wanted {
		w = ident.Fold(w)
		set := ""
		if d == DimTenantTag {
			set = tagSet(w)
		}
		hit := w != "" && slices.Contains(have, w)
		sets[set] = sets[set] || hit
		if hit && d == DimRole && slices.Contains(foldAll(ctx.StepRoles), w) {
			stepRole = true
		}
	}
	for _, hit := range sets {
		if !hit {
			return false, false
		}
	}
	return true, stepRole
}

func foldAll(items []string) []string {
	out := make([]string, len(items))
	for i, s := range items {
		out[i] = ident.Fold(s)
	}
	return out
}

// CheckLibrary refuses a scope that a value of a library set cannot have: the
// set is shared by projects, so a project's steps and channels mean nothing to
// it. field is the request's field for the message.
func CheckLibrary(field string, scope octopus.Scope) error {
	if len(scope.Action) > 0 {
		return fault.InvalidField(field, "A variable of a library set cannot be scoped to the step %q; remove the step from its scope, or define the variable in the project.", scope.Action[0])
	}
	if len(scope.Channel) > 0 {
		return fault.InvalidField(field, "A variable of a library set cannot be scoped to the channel %q; remove the channel from its scope, or define the variable in the project.", scope.Channel[0])
	}
	return nil
}
