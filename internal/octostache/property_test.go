package octostache_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/octostache"
)

// templates generates texts that are mostly made of valid pieces.
func templates() *rapid.Generator[string] {
	name := rapid.SampledFrom([]string{"A", "B", "C.D", "L[x]", "L[#{B}].N", "J.a", "Missing", "item", "item.Key", "A b", "Octopus.Template.Each.Index"})
	filter := rapid.SampledFrom([]string{"", " | ToUpper", "|Trim", ` | Append "x y"`, " | Append #{B}", ` | Replace "a" \"#\"`, " | Nope 1", " | null", " | Indent"})
	tag := rapid.Custom(func(t *rapid.T) string { return name.Draw(t, "name") + filter.Draw(t, "filter") })
	var piece *rapid.Generator[string]
	body := rapid.Custom(func(t *rapid.T) string {
		return strings.Join(rapid.SliceOfN(rapid.Deferred(func() *rapid.Generator[string] { return piece }), 0, 3).Draw(t, "body"), "")
	})
	piece = rapid.OneOf(
		rapid.SampledFrom([]string{"text", "#", "##", "###", "{", "}", "##{x}", "\n", "é", `"`, "#{", "#{/if}", "#{else}", "#{elseif B}"}),
		rapid.Custom(func(t *rapid.T) string { return "#{" + tag.Draw(t, "tag") + "}" }),
		rapid.Custom(func(t *rapid.T) string { return "#{calc " + name.Draw(t, "name") + "*(2+{A})}" }),
		rapid.Custom(func(t *rapid.T) string {
			return "#{if " + tag.Draw(t, "test") + rapid.SampledFrom([]string{"", ` == "1"`, " != B"}).Draw(t, "op") + "}" + body.Draw(t, "then") +
				rapid.SampledFrom([]string{"", "#{elseif B}y"}).Draw(t, "elseif") + "#{else}" + body.Draw(t, "else") + "#{/if}"
		}),
		rapid.Custom(func(t *rapid.T) string {
			return "#{unless " + tag.Draw(t, "test") + "}" + body.Draw(t, "body") + "#{/unless}"
		}),
		rapid.Custom(func(t *rapid.T) string {
			return "#{each item in " + name.Draw(t, "list") + "}" + body.Draw(t, "body") + "#{/each}"
		}),
	)
	return body
}

func sampleVars() *octostache.Variables {
	return vars("A", "1", "B", "x", "C.D", "#{A}#{B}", "L[x].N", "n", "L[x]", "v", "L[y].N", "#{J.a}", "J", `{"a":[1,2],"b":"#{B}"}`, "A b", "a,b,,c")
}

func TestProperties(t *testing.T) {
	t.Parallel()
	t.Run("parsing what was written gives the same", func(t *testing.T) {
		t.Parallel()
		v := sampleVars()
		rapid.Check(t, func(t *rapid.T) {
			src := templates().Draw(t, "template")
			first, err := octostache.Parse(src)
			if err != nil {
				return
			}
			text := first.String()
			second, err := octostache.Parse(text)
			if err != nil {
				t.Fatalf("%q is written as %q: %v", src, text, err)
			}
			if again := second.String(); again != text {
				t.Fatalf("%q is written as %q, then as %q", src, text, again)
			}
			if diff := cmp.Diff(v.Execute(first), v.Execute(second)); diff != "" {
				t.Fatalf("%q and %q differ:\n%s", src, text, diff)
			}
			if diff := cmp.Diff(first.Arguments(), second.Arguments()); diff != "" {
				t.Fatalf("arguments of %q and %q differ:\n%s", src, text, diff)
			}
		})
	})
	t.Run("evaluating again, with a set of its own, gives the same", func(t *testing.T) {
		t.Parallel()
		rapid.Check(t, func(t *rapid.T) {
			src := templates().Draw(t, "template")
			first := sampleVars().Evaluate(src)
			if diff := cmp.Diff(first, sampleVars().Evaluate(src), cmp.Comparer(sameText)); diff != "" {
				t.Fatalf("%q differs the second time:\n%s", src, diff)
			}
		})
	})
	t.Run("files agree with texts where both can be read", func(t *testing.T) {
		t.Parallel()
		v := sampleVars()
		rapid.Check(t, func(t *rapid.T) {
			src := templates().Draw(t, "template")
			strict, file := v.Evaluate(src), v.EvaluateFile(src)
			if strict.Err != nil {
				if strict.Text != src {
					t.Fatalf("%q became %q in spite of %v", src, strict.Text, strict.Err)
				}
				return
			}
			if diff := cmp.Diff(strict, file); diff != "" {
				t.Fatalf("%q (-text +file):\n%s", src, diff)
			}
		})
	})
	t.Run("text without tags is left alone", func(t *testing.T) {
		t.Parallel()
		v := sampleVars()
		rapid.Check(t, func(t *rapid.T) {
			src := strings.ReplaceAll(rapid.OneOf(rapid.String(), rapid.StringMatching(`[#a{} ]*`)).Draw(t, "text"), "#{", "")
			if strings.Contains(src, "#{") {
				return
			}
			for _, r := range []octostache.Result{v.Evaluate(src), v.EvaluateFile(src)} {
				if r.Text != src || r.Problem() != nil || r.Null {
					t.Fatalf("%q became %+v", src, r)
				}
			}
		})
	})
	t.Run("overlays equal new sets", func(t *testing.T) {
		t.Parallel()
		names := []string{"A", "a", "B", "C.D", "c.d[x]", "C[#{A}]", "L[x].N", "L[X].M", "L[y]", "L", "Odd!"}
		rapid.Check(t, func(t *rapid.T) {
			pairs := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) octostache.Pair {
				return octostache.Pair{
					Name:  rapid.SampledFrom(names).Draw(t, "name"),
					Value: rapid.SampledFrom([]string{"1", "a,b", "#{A}", "#{C.D}", ""}).Draw(t, "value"),
					Null:  rapid.Float64Range(0, 1).Draw(t, "null") > 0.9,
				}
			}), 0, 20).Draw(t, "pairs")
			whole := octostache.NewVariables(testOptions(), pairs...)
			layered := octostache.NewVariables(testOptions())
			for len(pairs) > 0 {
				n := rapid.IntRange(1, len(pairs)).Draw(t, "layer")
				layered = layered.With(pairs[:n]...)
				pairs = pairs[n:]
			}
			const template = "#{A} #{B} #{C.D} #{C.D[x]} #{each i in L}#{i} #{i.N} #{i.M};#{/each} #{L[y]}"
			if diff := cmp.Diff(whole.Evaluate(template), layered.Evaluate(template), cmp.Comparer(sameText)); diff != "" {
				t.Fatalf("whole and layered differ:\n%s", diff)
			}
			a, _ := whole.SaveJSON()
			b, _ := layered.SaveJSON()
			if string(a) != string(b) {
				t.Fatalf("whole is %s, layered %s", a, b)
			}
		})
	})
}

func sameText(a, b error) bool { return fmt.Sprint(a) == fmt.Sprint(b) }

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	v := sampleVars()
	const template = "#{C.D} #{J.a} #{J.b} #{each i in L}#{i.N}#{/each} #{A | Replace 1 2}"
	want := v.Evaluate(template)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := 0; j < 200 && ctx.Err() == nil; j++ {
				w := v.With(octostache.Pair{Name: fmt.Sprintf("X%d", i), Value: "y"})
				if diff := cmp.Diff(want, w.Evaluate(template)); diff != "" {
					t.Errorf("differs:\n%s", diff)
					cancel()
				}
			}
		})
	}
	wg.Wait()
}
