package variables

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// Prompts lists the values that people are asked for when a deployment is made
// for a context, ordered by label, then name. The context has no step and no
// machine yet, so scopes by these do not keep a prompt out; any other dimension
// that cannot match does.
func Prompts(values []Variable, ctx Context) []Variable {
	var out []Variable
	for _, v := range values {
		if v.Prompt != nil && reachable(v.Scope, ctx) {
			out = append(out, v)
		}
	}
	slices.SortStableFunc(out, func(a, b Variable) int {
		return cmp.Or(
			strings.Compare(ident.Fold(label(a)), ident.Fold(label(b))),
			strings.Compare(ident.Fold(a.Name), ident.Fold(b.Name)),
			strings.Compare(a.ID, b.ID),
		)
	})
	return out
}

func label(v Variable) string { return cmp.Or(string(v.Prompt.Label), v.Name) }

// reachable reports whether a scope matches once a step and a machine are known.
func reachable(scope octopus.Scope, ctx Context) bool {
	scope.Action, scope.Machine, scope.Role = nil, nil, nil
	_, ok := Matches(scope, ctx)
	return ok
}

// Answers are the values that people gave to prompts. An answer by id is for
// that very value; one by name, as scripts send them, is for every prompted
// value of the name whose scope can match, and yields to one by id.
type Answers struct {
	ByID   map[string]string
	ByName map[string]string
}

// Answer puts answers in the place of the values asked for; their scopes still
// apply. An unanswered prompt keeps its stored value as the default. It returns
// a new slice and the keys of answers that fit no prompt, sorted; and a fault
// for each required prompt that can apply and is left blank.
func Answer(values []Variable, answers Answers, ctx Context) (answered []Variable, unused []string, err error) {
	ids, names := map[string]string{}, map[string]string{} // folded: as given
	byID, byName := map[string]string{}, map[string]string{}
	for _, id := range sortedKeys(answers.ByID) {
		ids[ident.Fold(id)], byID[ident.Fold(id)] = id, answers.ByID[id]
	}
	for _, name := range sortedKeys(answers.ByName) {
		names[ident.Fold(name)], byName[ident.Fold(name)] = name, answers.ByName[name]
	}
	var faults []error
	answered = slices.Clone(values)
	for i := range answered {
		v := &answered[i]
		if v.Prompt == nil {
			continue
		}
		id, name, can := ident.Fold(v.ID), ident.Fold(v.Name), reachable(v.Scope, ctx)
		if text, ok := byName[name]; ok && can {
			v.Value, v.Prompted = text, true
			delete(names, name)
		}
		if text, ok := byID[id]; ok && id != "" {
			v.Value, v.Prompted = text, true
			delete(ids, id)
		}
		if v.Prompt.Required && can && strings.TrimSpace(v.Value) == "" {
			faults = append(faults, fault.InvalidField("FormValues", "The prompted variable %q needs a value; give it one under %q.", label(*v), cmp.Or(v.ID, v.Name)))
		}
	}
	for _, given := range ids {
		unused = append(unused, given)
	}
	for _, given := range names {
		unused = append(unused, given)
	}
	slices.Sort(unused)
	return answered, unused, errors.Join(faults...)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }

// Passed makes the values that one deployment hands to another by name; they
// go before all others.
func Passed(values map[string]string, from string) []Variable {
	out := make([]Variable, 0, len(values))
	for _, name := range sortedKeys(values) {
		out = append(out, Variable{Name: name, Value: values[name], Type: octopus.VariableString, Source: Source{Kind: KindPassed, OwnerID: from}})
	}
	return out
}
