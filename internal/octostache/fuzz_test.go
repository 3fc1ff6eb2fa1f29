package octostache_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/octostache"
)

func seeds(f *testing.F, add func(template string)) {
	f.Helper()
	for _, s := range []string{
		"", "plain", "#{A}", "##{A}###{A}####{A}", "#{A[#{B}].C | Append \"x\" #{D} | Trim}",
		"#{if A == \"x\"}1#{elseif B != C}2#{else}3#{/if}", "#{unless A | ToLower}x#{else}y#{/unless}",
		"#{each a in B.C}#{a.D}#{Octopus.Template.Each.Last}#{/each}", "#{calc 1+{A}*(2-B)/3.5}",
		`#{A | Replace "(a)" \"#$1\"}`, "#{A", "#{/if}", "#{if A}", "#{ | null}", "#{A[[x]y].Z}", "#{A.b[c]}",
		"#{A | Format \"#,##0.0;(0)\"}", "#{A | UriPart Host}", "#{A | Markdown}", "#{A | AddDays 1 | Format d}",
	} {
		add(s)
	}
}

// FuzzParse checks that what a template is written as reads as the same template.
func FuzzParse(f *testing.F) {
	seeds(f, func(s string) { f.Add(s) })
	f.Fuzz(func(t *testing.T, src string) {
		file := octostache.ParseFile(src)
		first, err := octostache.Parse(src)
		if err != nil {
			return
		}
		text := first.String()
		if got := file.String(); got != text {
			t.Fatalf("%q is %q as a file, %q as a text", src, got, text)
		}
		second, err := octostache.Parse(text)
		if err != nil {
			t.Fatalf("%q is written as %q: %v", src, text, err)
		}
		if again := second.String(); again != text {
			t.Fatalf("%q is written as %q, then as %q", src, text, again)
		}
		if diff := cmp.Diff(first.Arguments(), second.Arguments()); diff != "" {
			t.Fatalf("arguments of %q and %q differ:\n%s", src, text, diff)
		}
	})
}

// FuzzEvaluate checks that evaluation neither fails in strange ways nor depends
// on anything but its input.
func FuzzEvaluate(f *testing.F) {
	seeds(f, func(s string) {
		f.Add(s, "x", "1,2")
		f.Add("#{A}#{each i in B}#{i}#{/each}", s, `{"a":["#{A}"]}`)
	})
	f.Fuzz(func(t *testing.T, template, a, b string) {
		opts := testOptions()
		opts.Limits = octostache.Limits{Output: 1 << 20, Steps: 200_000, Loops: 10_000, Regex: 50 * time.Millisecond}
		pairs := []octostache.Pair{{Name: "A", Value: a}, {Name: "B", Value: b}, {Name: "B.C[x].D", Value: a}, {Name: "C", Value: "#{A}"}}
		if strings.HasPrefix(template, "#{") {
			pairs = append(pairs, octostache.Pair{Name: strings.Trim(template, "#{}"), Value: b})
		}
		v := octostache.NewVariables(opts, pairs...)
		r := v.Evaluate(template)
		if r.Err != nil && r.Text != template {
			t.Fatalf("%q became %q in spite of %v", template, r.Text, r.Err)
		}
		if len(r.Text) > opts.Limits.Output {
			t.Fatalf("%d bytes", len(r.Text))
		}
		if again := v.With().Evaluate(template); again.Err == nil && r.Err == nil {
			if diff := cmp.Diff(r, again); diff != "" {
				t.Fatalf("%q differs the second time:\n%s", template, diff)
			}
		}
		file := v.EvaluateFile(template)
		if r.Err == nil && file.Err == nil && file.Text != r.Text {
			t.Fatalf("%q is %q as a file, %q as a text", template, file.Text, r.Text)
		}
		if _, err := v.Indexes(a); err != nil && err.Error() == "" {
			t.Fatal("an error without a text")
		}
		v.EvaluateTruthy(b)
	})
}

// FuzzFilter checks that no filter minds what it is given.
func FuzzFilter(f *testing.F) {
	names := []string{
		"Replace", "Match", "Format", "UriPart", "Indent", "Markdown", "FromBase64", "Substring", "Truncate", "VersionMajor",
		"AddDays", "AddMonths", "NowDate", "YamlSingleQuoteEscape", "YamlDoubleQuoteEscape", "PropertiesKeyEscape", "Sha1", "Trim", "UriEscape",
	}
	for i := range names {
		f.Add(uint8(i), "2030-05-22T09:05:00+02:00", "1", "yyyy")
		f.Add(uint8(i), "https://u@h:1/p?q#f", `(?<n>h)|\b.`, "${n}$1$$")
		f.Add(uint8(i), "-1234.5", `#,##0.0"x";(0.##E+0);'z'`, "Double")
		f.Add(uint8(i), "|a|b|\n|-|:-|\n|~~c~~|^d^|", "3/4", "[a-z]+?(?=x)")
	}
	f.Fuzz(func(t *testing.T, filter uint8, in, first, second string) {
		opts := testOptions()
		opts.Limits = octostache.Limits{Output: 1 << 20, Steps: 200_000, Regex: 20 * time.Millisecond}
		v := octostache.NewVariables(opts, octostache.Pair{Name: "in", Value: strings.ReplaceAll(in, "#{", "")},
			octostache.Pair{Name: "a", Value: strings.ReplaceAll(first, "#{", "")}, octostache.Pair{Name: "b", Value: strings.ReplaceAll(second, "#{", "")})
		name := names[int(filter)%len(names)]
		for _, template := range []string{
			"#{in | " + name + "}", "#{in | " + name + " #{a}}", "#{in | " + name + " #{a}#{b}}", "#{|" + name + " #{a}}",
		} {
			r, again := v.Evaluate(template), v.Evaluate(template)
			if r.Err == nil && again.Err == nil && r.Text != again.Text {
				t.Fatalf("%s gives %q, then %q", template, r.Text, again.Text)
			}
			if len(r.Text) > opts.Limits.Output+4 {
				t.Fatalf("%s gives %d bytes", template, len(r.Text))
			}
		}
	})
}
