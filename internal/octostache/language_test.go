package octostache_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/octostache"
)

// vars makes variables from alternating names and values.
func vars(pairs ...string) *octostache.Variables {
	var out []octostache.Pair
	for i := 0; i+1 < len(pairs); i += 2 {
		out = append(out, octostache.Pair{Name: pairs[i], Value: pairs[i+1]})
	}
	return octostache.NewVariables(testOptions(), out...)
}

func TestLanguage(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, template string
		vars           []string
		want           string
		missing        []string
	}{
		{"plain text is left alone", "a ## b", nil, "a ## b", nil},
		{"odd run of hashes", "#####{x}", []string{"x", "v"}, "###v", nil},
		{"even run of hashes", "####{x}", []string{"x", "v"}, "###{x}", nil},
		{"hashes before an end tag", "#{if x}a###{/if}", []string{"x", "1"}, "a#", nil},
		{"two missing tokens", "#{A}#{B | ToLower}#{A}", nil, "#{A}#{B | ToLower}#{A}", []string{"#{A}", "#{B | ToLower}"}},
		{"echo is normalised", "#{ A|ToBazooka 6   \"x\" }", nil, `#{A | ToBazooka "6" "x"}`, []string{`#{A | ToBazooka "6" "x"}`}},
		{"missing inside a value", "#{A}-#{B}", []string{"A", "#{B}", "C", "1"}, "#{B}-#{B}", []string{"#{B}"}},
		{"unclosed if is a strange name", "#{if A}x", nil, "#{if A}x", []string{"#{if A}"}},
		{"unless echo", "#{unless A | Foo}x#{/unless}", nil, "#{if A | Foo}#{else}x#{/if}", []string{"A | Foo"}},
		{"elseif echo", `#{if A | Foo}1#{elseif B == "x"}2#{else}3#{/if}`, nil, `#{if A | Foo}1#{else}#{if B == "x" }2#{else}3#{/if}#{/if}`, []string{"A | Foo"}},
		{"elseif needs no spaces removed", "#{elseifs}", []string{"elseifs", "v"}, "v", nil},
		{"both missing are equal", "#{if A == B}y#{/if}", nil, "y", nil},
		{"keywords in any case", "#{IF A}y#{/if}#{Unless A}n#{/unless}#{EACH x in A}#{x}#{/each}", []string{"A", "1"}, "y1", nil},
		{"wildcard index", "#{A[*].N}", []string{"A[x].N", "1", "A[y].N", "2"}, "1", nil},
		{"empty index", "#{A[].N}", []string{"A[].N", "1"}, "1", nil},
		{"null in a branch not taken", "#{if A}x#{else}#{ | null}#{/if}", []string{"A", "1"}, "x", nil},
		{"calc", "#{calc 2*({A}+1.5)}", []string{"A", "1"}, "5", nil},
		{"calc seventh", "#{calc 2/7}", nil, "0.2857142857142857", nil},
		{"calc large", "#{calc A*10}", []string{"A", "1e14"}, "1E+15", nil},
		{"calc small", "#{calc 1/100000}", nil, "1E-05", nil},
		{"calc missing", "#{calc C + 2}", nil, "#{C+2}", []string{"#{C+2}"}},
		{"calc of a name with operators", "#{calc The/Var-2}", []string{"The/Var-2", "4"}, "4", nil},
		{"calc by zero", "#{calc 1/0}", nil, "Infinity", nil},
		{"calc in an option", "#{A | Append #{calc 1+1}}", []string{"A", "x"}, "x2", nil},
		{"filter after a bare substitution is not allowed", "#{A | Append #{B} | ToUpper}", []string{"A", "a", "B", "b"}, "#{A | Append #{B} | ToUpper}", nil},
		{"loop over direct values", "#{each x in S}[#{x.Key}=#{x}]#{/each}", []string{"S[a]", "5", "S[b]", "7"}, "[a=5][b=7]", nil},
		{"own Key wins", "#{each x in S}[#{x.Key}]#{/each}", []string{"S[a]", "5", "S[a].Key", "mine"}, "[mine]", nil},
		{"nested index loop", "#{each a in P}#{a}: #{a.N} #{/each}", []string{"P[c[0]].N", "A", "P[c[1]].N", "B"}, "c[0]: A c[1]: B ", nil},
		{"own value hides indexes", "#{each a in P}(#{a})#{/each}", []string{"P[x].N", "A", "P", "1,2"}, "(1)(2)", nil},
		{"variables do not see loop items", "#{each a in L}#{V}#{/each}", []string{"L", "1", "V", "#{a}"}, "#{a}", []string{"#{a}"}},
		{"indexes see loop items", "#{each a in L}#{V[#{a}]}#{/each}", []string{"L", "x,y", "V[x]", "1", "V[y]", "2"}, "12", nil},
		{"inner scope first", "#{each L in L}#{L}#{/each}", []string{"L", "x,y"}, "xy", nil},
		{"json refers to itself", "#{T.Name}", []string{"T", `{Name: "#{T.Value}", Desc: "Monkey", Value: 12}`}, "12", nil},
		{"json deep", "#{T[Hello][World][Foo][Bar]}", []string{"T", `{"Hello": {"World": {"Foo": {"Bar": 12 }}}}`}, "12", nil},
		{"json scalars", "#{T.a} #{T.b} #{T.c} #{T.d} #{T.e}.", []string{"T", `{a:true,b:1.50,c:null,d:'2020-01-31T10:00:00Z',e:-0x10}`}, "True 1.5  01/31/2020 10:00:00 -16.", nil},
		{"json text of a part", "#{T.a}", []string{"T", `{a: {"b": [1, 2.0, 'x"y', null, {}], // why
			"d": "2020-01-31T10:00:00.120Z" }, }`}, `{"b":[1,2.0,"x\"y",null,{}],"d":"2020-01-31T10:00:00.12Z"}`, nil},
		{"json missing property", "A#{T.Nope}B", []string{"T", "{Bar: 'x'}"}, "AB", nil},
		{"json properties are told apart by case", "A#{T.bar}B", []string{"T", "{Bar: 'x'}"}, "AB", nil},
		{"json with more behind it", "#{T.a}", []string{"T", "{a:1} x"}, "#{T.a}", []string{"#{T.a}"}},
		{"json scalar answers to any name", "#{T.anything}", []string{"T", "5"}, "5", nil},
		{"an index is no scalar", "#{T[0].Nope}", []string{"T[0].N", "5"}, "#{T[0].Nope}", []string{"#{T[0].Nope}"}},
		{"json object loop", "#{each s in T}#{s}:#{s.Value},#{/each}", []string{"T", `{"Small": "11.5",  Large: 15.21}`}, "Small:11.5,Large:15.21,", nil},
		{"json holds templates", "#{T.a}", []string{"T", `{a: "#{B}"}`, "B", "b"}, "b", nil},
		{"list is split as it is", "#{each i in L}[#{i}]#{/each}", []string{"L", "a, b,,"}, "[a][ b][][]", nil},
		{"empty list has one item", "#{each i in L}x#{/each}", []string{"L", ""}, "x", nil},
		{"space around everything", "#{  A  |  Trim   start  }", []string{"A", " x "}, "x ", nil},
		{"escaped quotes", `#{A | Append \"# "x" \"}`, []string{"A", "a"}, `a# "x" `, nil},
		{"left text", `#{if "x" != A}y#{else}n#{/if}`, []string{"A", "x"}, "n", nil},
		{"else twice is a name", "#{if A}1#{else}2#{else}3#{/if}", []string{"else", "E"}, "2E3", nil},
		{"name with spaces before in", "#{each a b in My List}#{a b}#{/each}", []string{"My List", "1"}, "1", nil},
		{"names that are no path", "#{A!}", []string{"A!", "x", "A", "y"}, "#{A!}", nil},
		{"fold beyond ASCII", "#{élan}", []string{"ÉLAN", "x"}, "x", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := vars(tt.vars...).Evaluate(tt.template)
			if r.Text != tt.want || r.Null {
				t.Errorf("%s = %q (null %v, %v), want %q", tt.template, r.Text, r.Null, r.Err, tt.want)
			}
			if diff := cmp.Diff(tt.missing, r.Missing); diff != "" {
				t.Errorf("missing (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNull(t *testing.T) {
	t.Parallel()
	v := vars("A", "#{ | null}", "B", "#{A}", "C", "#{if A}x#{else}y#{/if}", "T", "true")
	for template, null := range map[string]bool{
		"#{ | null}":                        true,
		"x#{ | NULL}y":                      true,
		"#{T | null | Append x}":            false,
		"#{A}":                              false, // only a null of its own
		"#{if A}x#{/if}":                    true,
		"#{if T}#{ | null}#{/if}":           true,
		"#{unless T}#{ | null}#{/unless}":   false,
		"#{T | Append #{T | null}}":         true,
		"#{each x in T}#{ | null}#{/each}a": true,
	} {
		if r := v.Evaluate(template); r.Null != null || null && r.Text != "" {
			t.Errorf("%s: null is %v with %q, want %v", template, r.Null, r.Text, null)
		}
	}
	if s, ok := v.Get("A"); ok {
		t.Errorf("Get of a null value = %q", s)
	}
	if s, ok := v.Get("B"); !ok || s != "" {
		t.Errorf("Get of a reference to a null value = %q, %v", s, ok)
	}
	if v.EvaluateTruthy("#{ | null}") {
		t.Error("null is truthy")
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	loop := vars("A", "x#{B}", "B", "#{A}", "L", "#{L}")
	tests := []struct{ template, want string }{
		{"#{L}", `An attempt to parse the variable symbol "L" appears to have resulted in a self referencing loop (L -> L). Ensure that recursive loops do not exist in the variable values.`},
		{"one\ntwo #{Foo", "template line 2, column 10: the text ends in the middle of a tag or block, expected \"}\""},
		{"é#{Foo!}", `template line 1, column 7: expected "}"`},
		{"a#{/if}", "template line 1, column 2: this end tag closes nothing"},
		{`#{if A == "b"}x`, "template line 1, column 16: the text ends in the middle of a tag or block, expected #{/if}"},
		{`#{if A == "b"}x#{/unless}`, "template line 1, column 19: expected #{/if}"},
		{"#{each x in }", `template line 1, column 13: expected a name`},
		{`#{A | Append "x#y"}`, `template line 1, column 16: expected no # inside "..." (\"...\" may hold one)`},
		{"#{if A == B}\n\n#{x !}\n#{/if}", `template line 3, column 5: expected "}"`},
		{"#{A}", `An attempt to parse the variable symbol "A" appears to have resulted in a self referencing loop (A -> B -> A). Ensure that recursive loops do not exist in the variable values.`},
	}
	for _, tt := range tests {
		r := loop.Evaluate(tt.template)
		if r.Err == nil || r.Err.Error() != tt.want {
			t.Errorf("%q\n got %v\nwant %s", tt.template, r.Err, tt.want)
		}
		if r.Text != tt.template {
			t.Errorf("%q became %q in spite of an error", tt.template, r.Text)
		}
	}
}

func TestFileMode(t *testing.T) {
	t.Parallel()
	v := vars("A", "a", "B", "b")
	for template, want := range map[string]string{
		`x#{A}#{"}#{B}`:                      `xa#{"}b`,
		`#{`:                                 `#{`,
		`###{`:                               `###{`,
		`##{A}#{/if}#{A}`:                    `#{A}#{/if}a`,
		`#{if A == "a"}#{B}`:                 `#{if A == "a"}#{B}`, // an open block swallows its body
		`#{if A == "a"}#{B}#{/each}#{A}`:     `#{if A == "a"}#{B}#{/each}a`,
		`#{if A}#{B}`:                        `#{if A}b`,
		"color: #{$blue}; x: #{A}":           "color: #{$blue}; x: a",
		`puts "#{x.map { |y| y }}#{A}"`:      `puts "#{x.map { |y| y }}a"`,
		`#{A | Append #{C!}} #{B}`:           `#{A | Append #{C!}} b`,
		`#{if A}1#{else}2#{/if}#{if}#{Nope}`: `1#{if}#{Nope}`,
	} {
		if got := v.EvaluateFile(template); got.Text != want || got.Err != nil {
			t.Errorf("%s = %q (%v), want %q", template, got.Text, got.Err, want)
		}
	}
}

func TestOverlay(t *testing.T) {
	t.Parallel()
	base := vars("A", "1", "P[x].N", "x", "P[y].N", "y", "Ref", "#{A}-#{New}")
	over := base.With(
		octostache.Pair{Name: "a", Value: "2"}, octostache.Pair{Name: "New", Value: "n"},
		octostache.Pair{Name: "P[X].N", Value: "changed"}, octostache.Pair{Name: "P[z].N", Value: "z"},
		octostache.Pair{Name: "P[x].M", Value: "m"})
	const template = "#{A} #{Ref} #{each p in P}#{p}#{p.N}#{p.M | Trim};#{/each}"
	if got, want := base.Evaluate(template).Text, "1 1-#{New} xx#{p.M | Trim};yy#{p.M | Trim};"; got != want {
		t.Errorf("base = %q, want %q", got, want)
	}
	if got, want := over.Evaluate(template).Text, "2 2-n xchangedm;yy#{p.M | Trim};zz#{p.M | Trim};"; got != want {
		t.Errorf("overlay = %q, want %q", got, want)
	}
	names := func(v *octostache.Variables) (out []string) {
		for p := range v.All() {
			out = append(out, p.Name+"="+p.Value)
		}
		return out
	}
	if diff := cmp.Diff([]string{"A=2", "P[x].N=changed", "P[y].N=y", "Ref=#{A}-#{New}", "New=n", "P[z].N=z", "P[x].M=m"}, names(over)); diff != "" {
		t.Errorf("overlay (-want +got):\n%s", diff)
	}
	for i := range 30 {
		over = over.With(octostache.Pair{Name: fmt.Sprintf("V%d", i%20), Value: fmt.Sprint(i)})
	}
	if got := over.Evaluate("#{V0} #{V9} #{V19} #{A}").Text; got != "20 29 19 2" {
		t.Errorf("many layers = %q", got)
	}
	if over.Len() != 27 || len(names(over)) != 27 || base.Len() != 4 {
		t.Errorf("%d and %d variables", over.Len(), base.Len())
	}
}

func TestDictionary(t *testing.T) {
	t.Parallel()
	v := octostache.NewVariables(testOptions(),
		octostache.Pair{Name: "Path", Value: "C:\\#{Dir}"}, octostache.Pair{Name: "Dir", Value: "d"},
		octostache.Pair{Name: "Null", Null: true}, octostache.Pair{Name: "Yes", Value: " tRUE "},
		octostache.Pair{Name: "N", Value: " +42 "}, octostache.Pair{Name: "Big", Value: "2147483648"},
		octostache.Pair{Name: "Odd!", Value: "#{Dir}"}, octostache.Pair{Name: "Loop", Value: "#{Loop}"})
	if s, ok := v.Get("PATH"); s != "C:\\d" || !ok {
		t.Errorf("Get = %q, %v", s, ok)
	}
	if s, ok := v.GetRaw("path"); s != "C:\\#{Dir}" || !ok {
		t.Errorf("GetRaw = %q, %v", s, ok)
	}
	if s, ok := v.Get("Odd!"); s != "d" || !ok {
		t.Errorf("Get of a name that is no path = %q, %v", s, ok)
	}
	if s, ok := v.Get("Null"); s != "" || ok {
		t.Errorf("Get of null = %q, %v", s, ok)
	}
	if r := v.Evaluate("[#{Null}]"); r.Text != "[]" || r.Missing != nil {
		t.Errorf("null in a template = %+v", r)
	}
	if !v.Flag("Yes", false) || v.Flag("N", false) || !v.Flag("Nope", true) {
		t.Error("Flag is wrong")
	}
	if n, ok := v.Int32("N"); n != 42 || !ok {
		t.Errorf("Int32 = %d, %v", n, ok)
	}
	if n, ok := v.Int32("Big"); ok {
		t.Errorf("Int32 of 2^31 = %d", n)
	}
	if _, err := v.Require("Null"); err == nil || err.Error() != "The variable 'Null' is required but no value is set." {
		t.Errorf("Require = %v", err)
	}
	var loop *octostache.LoopError
	if _, err := v.Require("Loop"); !errors.As(err, &loop) {
		t.Errorf("Require of a loop = %v", err)
	}
	if s := fmt.Sprintf("%v %+v %#v %s", v, v, v, v.LogValue()); strings.Contains(s, "Dir") || s != strings.TrimSpace(strings.Repeat("8 variables ", 4)) {
		t.Errorf("formats as %s", s)
	}
	later := v.At(time.Date(2031, 1, 2, 3, 4, 5, 0, time.UTC))
	if got := later.Evaluate("#{ | NowDate yyyy}").Text; got != "2031" {
		t.Errorf("At = %s", got)
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	doubling := func(n int, seed string) []octostache.Pair {
		out := []octostache.Pair{{Name: "A0", Value: seed}}
		for i := 1; i <= n; i++ {
			out = append(out, octostache.Pair{Name: fmt.Sprintf("A%d", i), Value: fmt.Sprintf("#{A%d}#{A%d | Trim}", i-1, i-1)})
		}
		return out
	}
	chain := []octostache.Pair{{Name: "A0", Value: "x"}}
	for i := 1; i <= 300; i++ {
		chain = append(chain, octostache.Pair{Name: fmt.Sprintf("A%d", i), Value: fmt.Sprintf("#{A%d}", i-1)})
	}
	list := octostache.Pair{Name: "L", Value: strings.Repeat(",", 999)}
	tests := []struct {
		name, template string
		pairs          []octostache.Pair
		limits         octostache.Limits
		want           string
	}{
		{"output", "#{A40}", doubling(40, "x"), octostache.Limits{}, "Output"},
		{"output of a filter", "#{A | Indent 255}", []octostache.Pair{{Name: "A", Value: strings.Repeat("\n", 1000)}}, octostache.Limits{Output: 10000}, "Output"},
		{"output of a replacement", `#{A | Replace a "$_"}`, []octostache.Pair{{Name: "A", Value: strings.Repeat("a", 10000)}}, octostache.Limits{Output: 1 << 20}, "Output"},
		{"depth", "#{A300}", chain, octostache.Limits{}, "Depth"},
		{"loops", "#{each a in L}#{each b in L}#{each c in L}x#{/each}#{/each}#{/each}", []octostache.Pair{list}, octostache.Limits{}, "Loops"},
		{"steps", "#{each a in L}#{each b in L}#{a}#{/each}#{/each}", []octostache.Pair{list}, octostache.Limits{Steps: 1000}, "Steps"},
		{"regular expression", `#{A | Match "(a+)+b"}`, []octostache.Pair{{Name: "A", Value: strings.Repeat("a", 60)}}, octostache.Limits{Regex: 20 * time.Millisecond}, "Regex"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			opts := testOptions()
			opts.Limits = tt.limits
			r := octostache.NewVariables(opts, tt.pairs...).Evaluate(tt.template)
			var limit *octostache.LimitError
			if !errors.As(r.Err, &limit) || limit.Limit != tt.want {
				t.Errorf("error is %v, want the limit %s", r.Err, tt.want)
			}
		})
	}
	// Nothing in the result, but far too much work if each value were evaluated anew.
	opts := testOptions()
	if r := octostache.NewVariables(opts, doubling(100, "")...).Evaluate("#{A100}"); r.Err != nil || r.Text != "" {
		t.Errorf("empty doubling = %q, %v", r.Text, r.Err)
	}
}

func TestNesting(t *testing.T) {
	t.Parallel()
	nest := func(n int, open, inner, end string) string {
		return strings.Repeat(open, n) + inner + strings.Repeat(end, n)
	}
	v := vars("a", "1", "x", "a")
	for name, tt := range map[string]struct {
		template string
		ok       bool
	}{
		"blocks":             {nest(150, "#{if a}", "x", "#{/if}"), true},
		"too many blocks":    {nest(100_000, "#{if a}", "x", "#{/if}"), false},
		"too many indexes":   {"#{" + nest(100_000, "a[#{", "x", "}]") + "}", false},
		"too many options":   {nest(100_000, "#{a | Append ", "x", "}"), false},
		"too many branches":  {"#{if a}" + strings.Repeat("#{elseif a}x", 100_000) + "#{/if}", false},
		"unclosed blocks":    {strings.Repeat("#{if a}", 50_000), true}, // names, all of them
		"unclosed branches":  {strings.Repeat("#{if a}#{elseif x}", 30_000), true},
		"unclosed loops":     {strings.Repeat("#{each a in b}", 50_000), false},
		"many brackets":      {"#{a" + strings.Repeat("[", 1_000_000) + "}", false},
		"many parentheses":   {"#{calc " + strings.Repeat("(", 1_000_000) + "+}", false},
		"too many filters":   {"#{a" + strings.Repeat("|Trim", 200_000) + "}", false},
		"too many operators": {"#{calc 1" + strings.Repeat("+1", 200_000) + "}", false},
		"open quotes":        {strings.Repeat(`#{a | b \"`, 50_000), false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if r := v.Evaluate(tt.template); (r.Err == nil) != tt.ok {
				t.Errorf("error is %v", r.Err)
			}
			octostache.ParseFile(tt.template)
		})
	}
}

func TestHostileRegexes(t *testing.T) {
	t.Parallel()
	opts := testOptions()
	opts.Limits.Regex = 50 * time.Millisecond
	for name, expr := range map[string]string{
		"groups":       strings.Repeat("(", 4000) + strings.Repeat(")", 4000),
		"open groups":  strings.Repeat("(", 8000),
		"subtractions": strings.Repeat("[a-", 2000) + strings.Repeat("]", 2000),
		"counts":       "((((a{1000}){1000}){1000}){1000}){1000}",
		"large count":  "(a|b){2147483647}",
		"alternatives": strings.Repeat("a|", 4000) + "a",
		"lookbehind":   strings.Repeat("(?<=", 1600) + strings.Repeat(")", 1600),
		"category":     `\p{Nope}`,
		"too long":     strings.Repeat("a", 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v := octostache.NewVariables(opts, octostache.Pair{Name: "in", Value: strings.Repeat("ab", 1000)}, octostache.Pair{Name: "re", Value: expr})
			for _, template := range []string{"#{in | Match #{re}}", "#{in | Replace #{re} x}"} {
				r := v.Evaluate(template)
				var limit *octostache.LimitError
				if r.Err != nil && !errors.As(r.Err, &limit) {
					t.Errorf("%s: %v", template, r.Err)
				}
			}
		})
	}
}
