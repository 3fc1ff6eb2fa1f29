package variables

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// Explanation says which value of a name is used in a context, and why. It
// carries no secrets and can be shown as it is.
type Explanation struct {
	Name string
	// Found is false when no value applies; the name is then undefined.
	Found bool
	// Value is the chosen text, [Redacted] for a secret.
	Value     string
	Sensitive bool
	// Tied tells that another value has the same right to be chosen.
	Tied bool
	// Reason is the answer in a sentence.
	Reason string
	// Candidates are all values of the name: the chosen one, then those that
	// apply, the more specific first, then the others.
	Candidates []Candidate
}

// Candidate is one value of the name.
type Candidate struct {
	ID        string `json:"Id"`
	Source    Source
	Value     string
	Sensitive bool
	Prompted  bool
	Scope     octopus.Scope
	Chosen    bool
	// Applies tells whether all dimensions match.
	Applies bool
	Rank    Rank
	// Dimensions are those of the scope, the most specific first.
	Dimensions []DimensionMatch
	// Reason says in a sentence why it was, or was not, chosen.
	Reason string
}

// DimensionMatch compares a dimension of a scope with the context.
type DimensionMatch struct {
	Dimension Dimension
	// Wanted is what the scope lists, Have what there is; both by label.
	Wanted, Have []string
	Matched      bool
}

// Labels turns an id of a dimension into the name that people know. It may be nil.
type Labels func(d Dimension, id string) string

func (f Labels) all(d Dimension, ids []string) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = id
		if f != nil {
			out[i] = cmp.Or(f(d, id), id)
		}
	}
	return out
}

// Explain says which value of a name [Set.Resolve] chooses, and why.
func (s *Set) Explain(name string, ctx Context, labels Labels) Explanation {
	type entry struct {
		row  *row
		rank Rank
	}
	var all []entry
	folded := ident.Fold(name)
	for _, l := range s.layers {
		g, ok := l.index[folded]
		if !ok {
			continue
		}
		p := l.place(&ctx)
		for i := l.groups[g].from; i < l.groups[g].to; i++ {
			row := &l.rows[i]
			all = append(all, entry{row, row.raise(l.scopes[row.scope].rank(&p))})
		}
	}
	slices.SortStableFunc(all, func(a, b entry) int {
		return cmp.Or(-cmp.Compare(a.rank, b.rank), compare(&a.row.Variable, &b.row.Variable))
	})
	e := Explanation{Name: name, Candidates: make([]Candidate, 0, len(all))}
	applying := 0
	for i, a := range all {
		c := Candidate{
			ID: a.row.ID, Source: a.row.Source, Value: a.row.shown(), Sensitive: a.row.Sensitive,
			Prompted: a.row.Prompted, Scope: a.row.Scope,
			Applies: a.rank >= 0, Chosen: i == 0 && a.rank >= 0, Rank: a.rank,
			Dimensions: compareDimensions(&a.row.Scope, &ctx, labels),
		}
		if c.Applies {
			applying++
		}
		switch {
		case c.Chosen:
			e.Found, e.Name = true, a.row.Name
			e.Value, e.Sensitive = c.Value, c.Sensitive
		case c.Applies:
			first := all[0]
			tied := a.rank == first.rank && clash(&first.row.Variable, &a.row.Variable)
			e.Tied = e.Tied || tied
			c.Reason = beaten(a.rank, first.rank, &a.row.Variable, &first.row.Variable, tied)
		default:
			c.Reason = mismatch(c.Dimensions)
		}
		e.Candidates = append(e.Candidates, c)
	}
	e.Reason = sentence(&e, applying)
	if e.Found {
		e.Candidates[0].Reason = e.Reason
	}
	return e
}

func compareDimensions(s *octopus.Scope, ctx *Context, labels Labels) []DimensionMatch {
	out := []DimensionMatch{}
	for d := dimensions; d > 0; {
		d--
		wanted := entries(s, d)
		if len(wanted) == 0 {
			continue
		}
		ok, _ := matchDimension(d, wanted, ctx)
		out = append(out, DimensionMatch{
			Dimension: d, Matched: ok,
			Wanted: labels.all(d, wanted), Have: labels.all(d, ctx.present(d)),
		})
	}
	return out
}

// scoped describes a scope: "step Deploy, environment Test or Production".
func scoped(ds []DimensionMatch) string {
	parts := make([]string, len(ds))
	for i, d := range ds {
		parts[i] = d.Dimension.words() + " " + strings.Join(d.Wanted, " or ")
	}
	return strings.Join(parts, " and ")
}

func sentence(e *Explanation, applying int) string {
	switch {
	case len(e.Candidates) == 0:
		return fmt.Sprintf("There is no variable %q.", e.Name)
	case !e.Found && len(e.Candidates) == 1:
		return fmt.Sprintf("The only value of %q does not apply here.", e.Name)
	case !e.Found:
		return fmt.Sprintf("None of the %d values of %q applies here.", len(e.Candidates), e.Name)
	}
	c := e.Candidates[0]
	what := "it has no scope"
	if len(c.Dimensions) > 0 {
		what = "it is scoped to " + scoped(c.Dimensions)
	}
	switch {
	case c.Source.Kind == KindPassed && applying > 1:
		return "Chosen because it was passed to this deployment, which goes before every other value."
	case applying == 1 && len(e.Candidates) == 1:
		return fmt.Sprintf("Chosen because it is the only value and applies here: %s.", what)
	case applying == 1:
		return fmt.Sprintf("Chosen because it is the only value that applies here: %s.", what)
	case e.Tied:
		return fmt.Sprintf("Chosen from several values that have the same right to it (%s); which one is taken is stable but arbitrary. Scope them apart, or remove all but one.", what)
	default:
		return fmt.Sprintf("Chosen because it is the most specific of the %d values that apply here: %s.", applying, what)
	}
}

// beaten says why the chosen value goes before one that applies too.
func beaten(rank, best Rank, v, chosen *Variable, tied bool) string {
	if best&rankPassed != 0 && rank&rankPassed == 0 {
		return "Applies, but another value was passed to this deployment."
	}
	if rank != best {
		// What the chosen value has and this one lacks, at the place that decides.
		only := best &^ rank
		deciding := Rank(1) << (bits.Len16(uint16(only)) - 1)
		if deciding == rankStepRole && rank&rankRole != 0 {
			return "Applies, but the chosen value is scoped to a target tag that the step goes to."
		}
		for d := range dimensions {
			if deciding == d.bit(false) || deciding == d.bit(true) {
				return fmt.Sprintf("Applies, but the chosen value is scoped by %s, which is more specific.", d.words())
			}
		}
	}
	switch {
	case tied:
		return "Applies and is as specific as the chosen value: a tie."
	case v.Source.Kind != chosen.Source.Kind:
		return fmt.Sprintf("Applies and is as specific, but a %s value goes before a %s value.", chosen.Source.Kind, v.Source.Kind)
	case v.Source.Kind == KindOutput || v.Source.Kind == KindPassed:
		return "Applies, but a later value has replaced it."
	default:
		return "Applies, and has the same value as the chosen one."
	}
}

// mismatch says which dimension keeps a value from applying.
func mismatch(ds []DimensionMatch) string {
	for _, d := range ds {
		if d.Matched {
			continue
		}
		if len(d.Have) == 0 {
			return fmt.Sprintf("Does not apply: it is scoped to %s, and there is no %s here.", scoped([]DimensionMatch{d}), d.Dimension.words())
		}
		return fmt.Sprintf("Does not apply: it is scoped to %s, and here it is %s.", scoped([]DimensionMatch{d}), strings.Join(d.Have, ", "))
	}
	return "Does not apply."
}
