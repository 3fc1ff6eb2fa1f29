// Package variables decides which value each variable has.
//
// A name can have many values, each with a scope: the environments, targets,
// steps and so on in which it applies. A [Set] is compiled once per deployment
// from all values there are (the project's, its library sets', the tenant's,
// prompted and system ones); [Set.Resolve] then chooses one value per name for
// one step on one machine. The choice does not depend on the order in which the
// values were given.
//
// The rules, all compatible with Octopus Deploy's:
//
//   - Names are compared without case. Every value is a text.
//   - Within one dimension of a scope any entry may match; every dimension that
//     has entries must match; a scope without entries always matches. Tenant
//     tags are grouped by their tag set: any tag of a set, and every set.
//   - A dimension that does not exist where the value is looked for (no tenant,
//     no machine, no channel in a runbook) never matches.
//   - Of the values that apply, the most specific one wins: see [Rank].
//   - Then a value of the project goes before one of a library set. What is
//     still equal is a tie: the choice is stable, and reported by
//     [Resolved.Ties].
//
// Values are stored as they were written; substituting #{...} in them is the
// business of whoever uses them, late, since output variables appear while a
// deployment runs. The package is pure: it reads no clock and no store.
package variables

import (
	"cmp"
	"log/slog"
	"strings"

	"github.com/takodeploy/tako/octopus"
)

// Kind says where a value comes from.
type Kind string

// The kinds of sources, the nearest to the run first: that is the order in
// which equally specific values are preferred.
const (
	// KindPassed is a value handed to the deployment by name, as a step that
	// deploys another project's release does. It wins whatever the scopes of
	// the others are.
	KindPassed Kind = "passed"
	// KindOutput is an output variable of an earlier step.
	KindOutput Kind = "output"
	// KindAction is a parameter of the step's template, or another value that
	// belongs to the running action.
	KindAction Kind = "action"
	// KindTenant is a tenant's value of a variable template.
	KindTenant Kind = "tenant"
	// KindProject is a variable of the project.
	KindProject Kind = "project"
	// KindLibrary is a variable of an included library set.
	KindLibrary Kind = "library"
	// KindSystem is one of the variables that the server defines. A project's
	// variable of the same name goes before it.
	KindSystem Kind = "system"
)

// precedence is the place of a kind among equally specific values; less wins.
func (k Kind) precedence() int {
	switch k {
	case KindPassed:
		return 0
	case KindOutput:
		return 1
	case KindAction:
		return 2
	case KindTenant:
		return 3
	case KindProject:
		return 4
	case KindLibrary:
		return 5
	case KindSystem:
		return 6
	}
	return 7
}

// Source says where a value comes from.
type Source struct {
	Kind Kind
	// OwnerID is the project, library set, tenant or action.
	OwnerID string `json:"OwnerId"`
	// Order is the place among sources of the same kind: of library sets, that
	// in which the project includes them, where less wins a tie; of outputs,
	// a number that grows with time, where more wins, so the last writer.
	Order int64
}

// Variable is one value of a name.
type Variable struct {
	// ID is the row's id; a prompted value names the row by it. It may be
	// empty, as for system variables.
	ID   string `json:"Id"`
	Name string
	// Value is the text as it was written, with its #{...}. It may be a secret:
	// printing and logging a Variable leaves it out if Sensitive says so.
	Value     string
	Sensitive bool
	Type      octopus.VariableType
	Scope     octopus.Scope
	Source    Source
	// Prompt is set when people are asked for the value as a deployment is made.
	Prompt *octopus.VariablePrompt
	// Prompted tells that Value is an answer to the prompt.
	Prompted bool
}

// From turns a variable of the API's model into a value. secret is the value of
// a sensitive one, which the model does not carry.
func From(v octopus.Variable, source Source, secret string) Variable {
	out := Variable{
		ID: v.ID, Name: v.Name, Value: v.Text(), Sensitive: v.Secret(),
		Type: v.Type, Scope: v.Scope, Source: source, Prompt: v.Prompt,
	}
	if out.Sensitive {
		out.Value = secret
	}
	return out
}

// Redacted is what stands for a secret in logs and answers.
const Redacted = "********"

// shown is the value for people's eyes.
func (v Variable) shown() string {
	if v.Sensitive {
		return Redacted
	}
	return v.Value
}

// String is the variable for people, without a secret.
func (v Variable) String() string { return v.Name + "=" + v.shown() }

// GoString hides a secret from %#v.
func (v Variable) GoString() string { return "variables.Variable{" + v.String() + "}" }

// LogValue hides a secret from logs.
func (v Variable) LogValue() slog.Value {
	return slog.GroupValue(slog.String("name", v.Name), slog.String("value", v.shown()))
}

// compare orders equally specific values, the preferred one first. It is a
// total order over all that can be told from outside, so that the choice does
// not depend on the order of the input.
func compare(a, b *Variable) int {
	order := cmp.Compare(a.Source.Order, b.Source.Order)
	if a.Source.Kind == KindOutput || a.Source.Kind == KindPassed {
		order = -order // the last writer
	}
	return cmp.Or(
		cmp.Compare(a.Source.Kind.precedence(), b.Source.Kind.precedence()),
		order,
		strings.Compare(a.ID, b.ID),
		strings.Compare(a.Source.OwnerID, b.Source.OwnerID),
		strings.Compare(a.Value, b.Value),
		strings.Compare(a.Name, b.Name),
		strings.Compare(string(a.Type), string(b.Type)),
		// The more secret of two that are otherwise the same.
		cmp.Compare(toInt(b.Sensitive), toInt(a.Sensitive)),
	)
}

func toInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// clash reports whether it is arbitrary that a was preferred to the equally
// specific b. Library sets do not clash with the project, which goes first by
// rule; a tenant's value and a project's do, for there is no rule.
func clash(a, b *Variable) bool {
	if a.Value == b.Value && a.Sensitive == b.Sensitive && a.Type == b.Type {
		return false
	}
	if a.Source.Kind == KindOutput || a.Source.Kind == KindPassed {
		return false // the last writer wins by rule
	}
	return class(a.Source.Kind) == class(b.Source.Kind)
}

func class(k Kind) int {
	if k == KindTenant {
		k = KindProject
	}
	return k.precedence()
}
