package structured_test

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/takodeploy/tako/internal/octostache"
	"github.com/takodeploy/tako/internal/structured"
)

func vars(pairs ...string) lookup {
	v := variables{}
	for i := 0; i < len(pairs); i += 2 {
		v.pairs = append(v.pairs, octostache.Pair{Name: pairs[i], Value: pairs[i+1]})
	}
	return v.lookup()
}

// again replaces in the result of a replacement, which must be a valid file in
// which the same things match and nothing changes any more.
func again(t *testing.T, format structured.Format, input string, v lookup) {
	t.Helper()
	r, err := structured.Replace(format, "f", []byte(input), v)
	if err != nil {
		if strings.Contains(err.Error(), "edited safely") {
			t.Fatalf("%q: %v", input, err)
		}
		return
	}
	if len(r.Replaced) == 0 {
		if string(r.Output) != input {
			t.Fatalf("%q changed without a match: %q", input, r.Output)
		}
		return
	}
	twice, err := structured.Replace(format, "f", r.Output, v)
	if err != nil {
		t.Fatalf("%q became %q, which cannot be read: %v", input, r.Output, err)
	}
	if len(twice.Replaced) != len(r.Replaced) || string(twice.Output) != string(r.Output) {
		t.Fatalf("%q became %q, and then %q", input, r.Output, twice.Output)
	}
}

func FuzzJSON(f *testing.F) {
	for _, s := range []string{
		`{"a": {"b": [1, true, null, "x"]}, 'c': 2.50 /* c */, d: {},}`,
		`[[], {"a": "\u00e9\ud83d\ude0e\n"}]`, `{"a:b": 1, "a": {"b": 2}}`, "\ufeff{\r\n\"a\": 1}",
	} {
		f.Add(s, "a", "x")
		f.Add(s, "a:b:0", "12.5")
	}
	f.Fuzz(func(t *testing.T, input, name, value string) {
		if strings.Contains(value, "#") || len(input) > 10000 {
			return
		}
		again(t, structured.JSON, input, vars(name, value, "a", "{}", "0:a", "1"))
	})
}

func FuzzYAML(f *testing.F) {
	for _, s := range []string{
		"a: 1\nb:\n- x\n- y: z\n  w: |\n    t\n    u\nc: {d: [e, 'f']}\n",
		"a: &x !!str foo # c\nb: *x\n? k\n: v\nnulls:\n  -\n  - - a\n", "--- >+\n folded\n\n text\n\n...\n---\na: \"q\\n\"\n",
		"a:\n  # comment\n  - 1\n  # more\n\nb: plain\n  text\n", "a: [x: 1, {y}, ]\n", "a: |2-\n    x\nb: '\n\n  y'\r\n",
	} {
		f.Add(s, "a", "x: 1")
		f.Add(s, "b:0", " text \n more\n")
		f.Add(s, "c:d", "- x\n- y: [1]\n")
	}
	f.Fuzz(func(t *testing.T, input, name, value string) {
		if strings.Contains(value, "#") || len(input) > 2000 {
			return
		}
		v := vars(name, value, "a", value, "b:0", "z")
		r, err := structured.Replace(structured.YAML, "f", []byte(input), v)
		if err != nil {
			if strings.Contains(err.Error(), "edited safely") {
				t.Fatalf("%q: %v", input, err)
			}
			return
		}
		if len(r.Replaced) == 0 && string(r.Output) != input {
			t.Fatalf("%q changed without a match: %q", input, r.Output)
		}
	})
}

func FuzzXML(f *testing.F) {
	for _, s := range []string{
		"<?xml version=\"1.0\"?>\n<a b='1'><!-- c --><d>x &amp; y</d><![CDATA[z]]><?p i?></a>",
		"<a xmlns:p='u'><p:b/>text<c><d/></c></a>", "<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>",
	} {
		f.Add(s, "//d", "new")
		f.Add(s, "/a/@b", "<x/>")
		f.Add(s, "//*[last()]/text()", "a]]>b--c\n")
	}
	f.Fuzz(func(t *testing.T, input, name, value string) {
		if strings.Contains(value, "#") || len(input) > 5000 {
			return
		}
		r, err := structured.Replace(structured.XML, "f", []byte(input), vars(name, value, "//d", "1"))
		if err != nil {
			return
		}
		if len(r.Replaced) == 0 {
			if string(r.Output) != input {
				t.Fatalf("%q changed without a match: %q", input, r.Output)
			}
			return
		}
		if _, err := structured.Replace(structured.XML, "f", r.Output, vars()); err != nil {
			t.Fatalf("%q became %q, which cannot be read: %v", input, r.Output, err)
		}
	})
}

func FuzzProperties(f *testing.F) {
	for _, s := range []string{"a=b\n", "a\\\n  b : c\\\n d\n# x\n! y\n\nk", "a\\ b=\\u00e9\r\nc"} {
		f.Add(s, "a", "x")
		f.Add(s, "k", " \té\\")
	}
	f.Fuzz(func(t *testing.T, input, name, value string) {
		if strings.Contains(value, "#") {
			return
		}
		again(t, structured.Properties, input, vars(name, value, "a", value))
	})
}

func FuzzDotNetConfig(f *testing.F) {
	f.Add("<c><appSettings><add key='a'/></appSettings><applicationSettings><s><setting name='a' /></s></applicationSettings></c>", "x<\"'&")
	f.Fuzz(func(t *testing.T, input, value string) {
		if strings.Contains(value, "#") {
			return
		}
		v := vars("a", value)
		r, err := structured.ReplaceDotNetConfig("f", []byte(input), v)
		if err != nil {
			return
		}
		twice, err := structured.ReplaceDotNetConfig("f", r.Output, v)
		if err != nil || string(twice.Output) != string(r.Output) || len(twice.Replaced) != len(r.Replaced) {
			t.Fatalf("%q became %q, and then %q (%v)", input, r.Output, twice.Output, err)
		}
	})
}

func FuzzTransformXML(f *testing.F) {
	const xdt = ` xmlns:xdt="http://schemas.microsoft.com/XML-Document-Transform" `
	f.Add("<a><b k='1'/><b/></a>", "<a"+xdt+"><b k='1' xdt:Locator='Match(k)' xdt:Transform='Replace'/><c xdt:Transform='Insert'/></a>")
	f.Add("<a><b k='1'/><b/></a>", "<a"+xdt+"><b xdt:Transform='RemoveAll'/><b xdt:Locator='Condition(@k)' xdt:Transform='SetAttributes'/></a>")
	f.Fuzz(func(t *testing.T, input, transform string) {
		r, err := structured.TransformXML("f", []byte(input), "t", []byte(transform))
		if err != nil || !utf8.ValidString(input) {
			return
		}
		if _, err := structured.SelectText(strings.TrimPrefix(string(r.Output), "\ufeff"), "/*"); err != nil {
			t.Fatalf("%q by %q became %q: %v", input, transform, r.Output, err)
		}
	})
}

// FuzzLocateTransforms checks that only files that there are come in pairs, no
// file with itself, and that nothing outside the package is a target.
func FuzzLocateTransforms(f *testing.F) {
	files := "Web.config\nWeb.Release.config\nbin\\App.config\nbin\\app.release.config\n/etc/x.config\nC:\\x.config"
	for _, expression := range []string{"Release", "Web.Release.config => web.CONFIG", "bin/*.Release => *.config", "*.a.config=>*.config", `C:\x.config => ./Web.config`, "..\\x => y", "=>"} {
		f.Add(expression, files)
	}
	f.Fuzz(func(t *testing.T, expression, files string) {
		if len(expression)+len(files) > 4000 {
			return
		}
		there := strings.Split(files, "\n")
		for _, pair := range structured.LocateTransforms(expression, there) {
			if !slices.Contains(there, pair.Transform) || !slices.Contains(there, pair.Target) || pair.Transform == pair.Target {
				t.Fatalf("%q of %q gives %+v", expression, there, pair)
			}
			if slashed := strings.ReplaceAll(pair.Target, `\`, "/"); strings.HasPrefix(slashed, "/") || len(slashed) > 1 && slashed[1] == ':' {
				t.Fatalf("%q changes %q, which is outside the package", expression, pair.Target)
			}
		}
	})
}
