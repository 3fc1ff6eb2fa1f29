package variables_test

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/variables"
)

func some(t *rapid.T, label string, from ...string) ids {
	return ids(rapid.SliceOfN(rapid.SampledFrom(from), 0, 2).Draw(t, label))
}

func drawScope(t *rapid.T) scope {
	return scope{
		Environment: some(t, "env", "E1", "e1", "E2", "E3"), Machine: some(t, "machine", "M1", "M2"),
		Role: some(t, "role", "web", "DB", "db", "mail"), Action: some(t, "action", "A1", "A2"),
		Channel: some(t, "channel", "C1"), Tenant: some(t, "tenant", "T1", "T2"),
		TenantTag: some(t, "tag", "S/a", "S/b", "R/a", "R/b"), ProcessOwner: some(t, "process", "P1", "R1"),
	}
}

func drawContext(t *rapid.T) variables.Context {
	one := func(label string, from ...string) string {
		return rapid.SampledFrom(append(from, "")).Draw(t, label)
	}
	return variables.Context{
		Environment: one("in env", "E1", "E2"), Machine: one("on machine", "M1", "M2"),
		MachineRoles: some(t, "has role", "web", "db", "mail"), StepRoles: some(t, "step role", "Web", "mail"),
		Action: one("in action", "A1", "A2"), Channel: one("in channel", "C1"), Tenant: one("for tenant", "T1", "T2"),
		TenantTags: some(t, "has tag", "s/a", "S/b", "R/a"), ProcessOwner: one("process", "P1", "R1"),
	}
}

func drawVariables(t *rapid.T, limit int) []variables.Variable {
	n := rapid.IntRange(0, limit).Draw(t, "n")
	out := make([]variables.Variable, n)
	for i := range out {
		out[i] = variables.Variable{
			ID:        fmt.Sprint("v", i),
			Name:      rapid.SampledFrom([]string{"A", "a", "B", "C", "D"}).Draw(t, "name"),
			Value:     rapid.SampledFrom([]string{"1", "2"}).Draw(t, "value"),
			Sensitive: rapid.Bool().Draw(t, "sensitive"),
			Scope:     drawScope(t),
			Source: variables.Source{
				Kind: rapid.SampledFrom([]variables.Kind{
					variables.KindProject, variables.KindProject, variables.KindLibrary, variables.KindTenant,
					variables.KindOutput, variables.KindSystem, variables.KindPassed, variables.KindAction,
				}).Draw(t, "kind"),
				Order: int64(rapid.IntRange(0, 2).Draw(t, "order")),
			},
		}
	}
	return out
}

func chosen(r variables.Resolved) []string {
	var out []string
	for v := range r.All() {
		out = append(out, v.Name+"="+v.ID)
	}
	return out
}

func TestOrderOfInputDoesNotMatter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		values, ctx := drawVariables(t, 30), drawContext(t)
		want := variables.New(values...).Resolve(ctx)
		shuffled := rapid.Permutation(values).Draw(t, "shuffled")
		got := variables.New(shuffled...).Resolve(ctx)
		if !slices.Equal(chosen(got), chosen(want)) {
			t.Fatalf("%v, then %v", chosen(want), chosen(got))
		}
		if a, b := fmt.Sprint(want.Ties()), fmt.Sprint(got.Ties()); a != b {
			t.Fatalf("ties %s, then %s", a, b)
		}
		// Nor does it matter in how many portions they come.
		set := variables.New()
		for len(shuffled) > 0 {
			n := rapid.IntRange(1, len(shuffled)).Draw(t, "portion")
			set = set.With(shuffled[:n]...)
			shuffled = shuffled[n:]
		}
		got = set.Resolve(ctx)
		if !slices.Equal(chosen(got), chosen(want)) {
			t.Fatalf("%v, in portions %v", chosen(want), chosen(got))
		}
		if a, b := fmt.Sprint(want.Ties()), fmt.Sprint(got.Ties()); a != b {
			t.Fatalf("ties %s, in portions %s", a, b)
		}
	})
}

// TestChosenIsMaximal compares with the rules written the slow way.
func TestChosenIsMaximal(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		values, ctx := drawVariables(t, 20), drawContext(t)
		set := variables.New(values...)
		r := set.Resolve(ctx)
		for _, name := range []string{"a", "b", "c", "d"} {
			v, found := r.Get(name)
			e := set.Explain(name, ctx, nil)
			if e.Found != found || found && e.Candidates[0].ID != v.ID {
				t.Fatalf("resolved %v %v, explained %+v", found, v, e)
			}
			best, _ := variables.Matches(v.Scope, ctx)
			matches := 0
			for _, other := range set.Named(name) {
				rank, ok := variables.Matches(other.Scope, ctx)
				if !ok {
					continue
				}
				matches++
				isPassed, otherPassed := v.Source.Kind == variables.KindPassed, other.Source.Kind == variables.KindPassed
				if !isPassed && otherPassed || isPassed == otherPassed && rank > best {
					t.Fatalf("%v (rank %d) was chosen over %v (rank %d)", v, best, other, rank)
				}
			}
			if found != (matches > 0) {
				t.Fatalf("found: %v, with %d values that apply", found, matches)
			}
			for _, c := range e.Candidates {
				if c.Reason == "" {
					t.Fatalf("no reason for %+v", c)
				}
				for _, d := range c.Dimensions {
					if c.Applies && !d.Matched {
						t.Fatalf("applies without %s", d.Dimension)
					}
				}
				if !c.Applies && !slices.ContainsFunc(c.Dimensions, func(d variables.DimensionMatch) bool { return !d.Matched }) {
					t.Fatalf("does not apply though all dimensions match: %+v", c)
				}
			}
		}
	})
}

// TestMoreSpecificWins narrows a value by one more dimension that matches.
func TestMoreSpecificWins(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		ctx := here()
		wide := scope{}
		narrow := wide
		dims := []func(*scope){
			func(s *scope) { s.Environment = ids{ctx.Environment} },
			func(s *scope) { s.Machine = ids{ctx.Machine} },
			func(s *scope) { s.Role = ids{"db"} },
			func(s *scope) { s.Role = ids{"web"} },
			func(s *scope) { s.Action = ids{ctx.Action} },
			func(s *scope) { s.Channel = ids{ctx.Channel} },
			func(s *scope) { s.Tenant = ids{ctx.Tenant} },
			func(s *scope) { s.TenantTag = ids{"Ring/Beta"} },
			func(s *scope) { s.ProcessOwner = ids{ctx.ProcessOwner} },
		}
		for _, i := range rapid.SliceOfDistinct(rapid.IntRange(0, len(dims)-1), rapid.ID).Draw(t, "dimensions") {
			dims[i](&narrow)
			if slices.Equal(narrow.Role, wide.Role) || wide.Role == nil {
				set := variables.New(project("a", "wide", wide), project("b", "narrow", narrow))
				if got := set.Resolve(ctx).Value("X"); got != "narrow" {
					t.Fatalf("%+v was chosen over %+v", wide, narrow)
				}
			}
			wide = narrow
		}
	})
}

// TestValuesThatDoNotApplyDoNotMatter removes them.
func TestValuesThatDoNotApplyDoNotMatter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		values, ctx := drawVariables(t, 30), drawContext(t)
		var applying []variables.Variable
		for _, v := range values {
			if _, ok := variables.Matches(v.Scope, ctx); ok {
				applying = append(applying, v)
			}
		}
		a, b := chosen(variables.New(values...).Resolve(ctx)), chosen(variables.New(applying...).Resolve(ctx))
		if !slices.Equal(a, b) {
			t.Fatalf("%v with all, %v with those that apply", a, b)
		}
	})
}
