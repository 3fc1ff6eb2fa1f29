package structured_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/octostache"
	"github.com/takodeploy/tako/internal/structured"
)

func null(name string) lookup {
	return variables{pairs: []octostache.Pair{{Name: name, Null: true}}}.lookup()
}

func replaced(t *testing.T, format structured.Format, in string, v lookup) structured.Result {
	t.Helper()
	r, err := structured.Replace(format, "file", []byte(in), v)
	if err != nil {
		t.Fatalf("%q: %v", in, err)
	}
	return r
}

func TestJSONTypes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ old, value, want string }{
		{`1`, "2", `2`},
		{`1`, " -007 ", `-7`},
		{`1`, "+0", `0`},
		{`1`, "123456789012345678901234567890", `123456789012345678901234567890`},
		{`1`, "1.50", `1.5`},
		{`1`, "1,234.5", `1234.5`},
		{`1`, "456e-5", `0.00456`},
		{`1`, "1e3", `1000.0`},
		{`1`, "1e15", `1E+15`},
		{`1`, "0.000001", `1E-06`},
		{`1`, "1e999", `"1e999"`},
		{`1`, "NaN", `"NaN"`},
		{`1`, "0x10", `"0x10"`},
		{`1`, "one", `"one"`},
		{`1.5`, "", `""`},
		{`true`, " FALSE ", `false`},
		{`true`, "yes", `"yes"`},
		{`true`, "52", `"52"`},
		{`null`, "33", `"33"`},
		{`"s"`, "33", `"33"`},
		{`"s"`, "a\"b\\c\n\t\b\f\r\x01\u2028é😎/", `"a\"b\\c\n\t\b\f\r\u0001\u2028é😎/"`},
		{`{"x": 1}`, "[]", `[]`},
		{`[1]`, `{'a': [1, {}], b: null, /* c */}`, "{\n    \"a\": [\n      1,\n      {}\n    ],\n    \"b\": null\n  }"},
		{`[1]`, "12", `12`},
		{`[1]`, `"s"`, `"s"`},
	} {
		r := replaced(t, structured.JSON, `{"v": `+tt.old+`}`, vars("V", tt.value))
		if d := cmp.Diff("{\n  \"v\": "+tt.want+"\n}", string(r.Output)); d != "" {
			t.Errorf("%s and %q (-want +got)\n%s", tt.old, tt.value, d)
		}
	}
	for _, old := range []string{`1`, `true`, `"s"`, `null`, `{"a": 1}`, `[1]`} {
		if got := string(replaced(t, structured.JSON, `{"v": `+old+`}`, null("v")).Output); got != "{\n  \"v\": null\n}" {
			t.Errorf("%s without a value: %s", old, got)
		}
	}
}

func TestJSON(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		in   string
		vars lookup
		want string
	}{
		"lenient":                 {"// c\n{a: 'x', \"b\": 1.50, /* d */ c: [1, 2,],}\n", vars("a", "y"), "{\n  \"a\": \"y\",\n  \"b\": 1.50,\n  \"c\": [\n    1,\n    2\n  ]\n}"},
		"line ends":               {"{\r\n\"a\": 1,\r\n\"b\": 2}", vars("a", "3"), "{\r\n  \"a\": 3,\r\n  \"b\": 2\r\n}"},
		"the last of a path":      {`{"a": {"b": 1}, "a:b": 2}`, vars("a:b", "3"), "{\n  \"a\": {\n    \"b\": 1\n  },\n  \"a:b\": 3\n}"},
		"a value within a value":  {`{"a": {"b": 1}}`, vars("a:b", "2", "a", `{"b": 3}`), "{\n  \"a\": {\n    \"b\": 3\n  }\n}"},
		"escapes":                 {`{"\u0061\/": "\ud83d\ude0e\u00e9", "x": 1}`, vars("a/", "é", "x", "2"), "{\n  \"a/\": \"é\",\n  \"x\": 2\n}"},
		"an array of arrays":      {`[[1, 2], []]`, vars("0:1", "3"), "[\n  [\n    1,\n    3\n  ],\n  []\n]"},
		"names of the system":     {`{"Octopus.X": 1, "octopus": {"y": 1}}`, vars("Octopus.X", "2", "OCTOPUS:y", "2"), "{\n  \"Octopus.X\": 1,\n  \"octopus\": {\n    \"y\": 2\n  }\n}"},
		"case of other alphabets": {`{"ÄÖ": 1}`, vars("äö", "2"), "{\n  \"ÄÖ\": 2\n}"},
		"an unpaired surrogate":   {`{"a": "\ud83d", "b": 1}`, vars("b", "2"), "{\n  \"a\": \"\uFFFD\",\n  \"b\": 2\n}"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff(tt.want, string(replaced(t, structured.JSON, tt.in, tt.vars).Output)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
	r := replaced(t, structured.JSON, `{"a": {"b": 1}}`, vars("a", "no JSON", "a:b", "2"))
	if string(r.Output) != "{\n  \"a\": {\n    \"b\": 2\n  }\n}" || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "'a'") || strings.Contains(r.Warnings[0], "no JSON") {
		t.Errorf("a value that is no JSON: %s, %q", r.Output, r.Warnings)
	}
}

func TestParseErrors(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		format structured.Format
		in     string
		at     string
	}{
		{structured.JSON, "", "line 1, column 1"},
		{structured.JSON, "{\n  \"é\": x}", "line 2, column 8"},
		{structured.JSON, `{"a": 1`, "line 1, column 8"},
		{structured.JSON, `{"a" 1}`, "line 1, column 6"},
		{structured.JSON, `{"a": "x}`, "line 1, column 7"},
		{structured.JSON, `[1] 2`, "line 1, column 5"},
		{structured.JSON, `["\q"]`, "line 1, column"},
		{structured.JSON, strings.Repeat("[", 10000), "too deep"},
		{structured.YAML, "a: b: c", "line 1, column"},
		{structured.YAML, strings.Repeat("[", 10000), "line"},
		{structured.YAML, strings.Repeat("- ", 2000), "too deep"},
		{structured.XML, "", "root element"},
		{structured.XML, "<a>\n  <b></a>", "line 2, column 6"},
		{structured.XML, "<a/><b/>", "2 root elements"},
		{structured.XML, "<a x='1' x='2'/>", "line 1, column 10"},
		{structured.XML, "<p:a/>", "'p' is not declared"},
		{structured.XML, "<a>&nbsp;</a>", "&nbsp;"},
		{structured.XML, "<a>&#1;</a>", "&#1;"},
		{structured.XML, "x<a/>", "outside"},
		{structured.XML, "<a", "does not end"},
		{structured.XML, "<a b/>", "'=' was expected"},
		{structured.XML, "<a><!-- </a>", "not closed"},
		{structured.XML, strings.Repeat("<a>", 10000), "too deep"},
	} {
		_, err := structured.Replace(tt.format, "conf/f.x", []byte(tt.in), vars("a", "1"))
		pe, ok := errors.AsType[*structured.ParseError](err)
		if !ok || !strings.Contains(err.Error(), tt.at) || pe.Name != "conf/f.x" || pe.Format != tt.format {
			t.Errorf("%s %.40q: error %v, want one that says %q", tt.format, tt.in, err, tt.at)
		}
	}
	if _, err := structured.Replace("Toml", "f", nil, vars()); err == nil {
		t.Error("an unknown format is accepted")
	}
	if _, err := structured.Replace(structured.JSON, "f", make([]byte, structured.MaxFile+1), vars()); err == nil {
		t.Error("a file of any size is accepted")
	}
}

func TestByName(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct{ in, want string }{
		"a.JSON":        {`{"a": 1}`, "{\n  \"a\": 2\n}"},
		"b.yml":         {"a: 1\n", "a: 2\n"},
		"c.yaml":        {"a: 1\n", "a: 2\n"},
		"d.properties":  {"a=1\n", "a=2\n"},
		"e.xml":         {"<a>1</a>", "<a>2</a>"},
		"json.conf":     {`{"a": 1}`, "{\n  \"a\": 2\n}"},
		"xml.config":    {"<a>1</a>", "<a>2</a>"},
		"yaml.conf":     {"a: 1\n", "a: 2\n"},
		"other.conf":    {"a=1\n\tb=: [\n", "a=2\n\tb=: [\n"},
		"no-extension":  {"a: 1\nb: [\n", "a: 2\nb: [\n"},
		"wrong/ext.xml": {"", ""},
	} {
		r, err := structured.Replace(structured.ByName, name, []byte(tt.in), vars("a", "2", "/a", "2"))
		if (err != nil) != (tt.want == "") || string(r.Output) != tt.want {
			t.Errorf("%s: %q, %v; want %q", name, r.Output, err, tt.want)
		}
	}
}

func TestYAML(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		in   string
		vars lookup
		want string
	}{
		"the rest stays": {
			"# head\n\na:   1   # one\n\n\nb:  {x: 1,  y: [ 2,3 ]}\nlist:\n    - p   # p\n\n    - q\n",
			vars("a", "2", "b:y:1", "4", "list:1", "r"),
			"# head\n\na:   2   # one\n\n\nb:  {x: 1,  y: [ 2,4 ]}\nlist:\n    - p   # p\n\n    - r\n",
		},
		"quotes stay":                   {"a: 'x'\nb: \"y\"\n", vars("a", "it's", "b", "q\"\n"), "a: 'it''s'\nb: \"q\\\"\\n\"\n"},
		"quotes where they are needed":  {"a: x\nb: x\nc: x\nd: x\ne: [x]\n", vars("a", "- x", "b", "k: v", "c", " x", "d", "@x", "e:0", "y, z"), "a: '- x'\nb: 'k: v'\nc: ' x'\nd: '@x'\ne: ['y, z']\n"},
		"no quotes where not":           {"a: x\nb: x\nc: [x]\n", vars("a", "a, [b]", "b", "x:y#z", "c:0", "a-b"), "a: a, [b]\nb: x:y#z\nc: [a-b]\n"},
		"characters that do not print":  {"a: x\nb: 'x'\n", vars("a", "\x01\t\u0085", "b", "é😎"), "a: \"\\x01\\t\\x85\"\nb: 'é😎'\n"},
		"lines":                         {"a:\n  b: x\n  c: 'x'\n", vars("a:b", "1\n2\n\n3\n", "a:c", "1\n2"), "a:\n  b: '1\n\n    2\n\n\n    3\n\n    '\n  c: '1\n\n    2'\n"},
		"a literal":                     {"a:\n  b: |  # c\n    old\n\n  c: x\n", vars("a:b", "1\n  2\n\n3\n"), "a:\n  b: | # c\n    1\n      2\n\n    3\n\n  c: x\n"},
		"a literal without a line end":  {"a: |\n  old\n", vars("a", "new"), "a: |-\n  new\n"},
		"a literal with spaces first":   {"a: |\n  old\n", vars("a", " new\nx\n"), "a: |2\n   new\n  x\n"},
		"a literal that must be quoted": {"a: |\n  old\nb: 1\n", vars("a", "x \ny"), "a: \"x \\ny\"\nb: 1\n"},
		"a literal that keeps":          {"a: |\n  old\n\n\nb: 1\n", vars("a", "x\n\n"), "a: |+\n  x\n\nb: 1\n"},
		"a folded text":                 {"a: >\n  old\n  text\nb: 1\n", vars("a", "x\ny\n\nz\n"), "a: >\n  x\n\n  y\n\n\n  z\nb: 1\n"},
		"a plain text of lines":         {"a: one\n  two\n\n  three # c\nb: 1\n", vars("a", "x"), "a: x # c\nb: 1\n"},
		"an empty value":                {"a:\nb: # c\nc:\n  -\n  - x\nd: {e, f: }\n", vars("a", "1", "b", "2", "c:0", "3", "d:e", "4", "d:f", "5"), "a: 1\nb: 2 # c\nc:\n  - 3\n  - x\nd: {e: 4, f: 5 }\n"},
		"an empty item in brackets":     {"a: {b: [0, 0]}\nc: [1]\n", vars("a:b", "-", "c", "- x\n- !!str\n-\n"), "a: {b: [null]}\nc:\n- x\n- !!str\n-\n"},
		"null":                          {"a: 'x'\nb: &n !!str y\n", null("B"), "a: 'x'\nb: &n null\n"},
		"a mapping by a mapping":        {"a:\n    b: # c\n        x: 1\n    d: 1\n", vars("a:b", "p: {q: [1, 'two']}\nr:\n- s\n- - t\n  - u: v\n"), "a:\n    b: # c\n        p: {q: [1, 'two']}\n        r:\n        - s\n        - - t\n          - u: v\n    d: 1\n"},
		"a mapping by a word":           {"a: # c\n  x: 1\nb: 1\n", vars("a", "w"), "a: w # c\nb: 1\n"},
		"a sequence within its mapping": {"a:\n  - 1\nb:\n  - 2\n", vars("a", "[]", "b", "- x: 1\n  y: 2\n- z"), "a: []\nb:\n  - x: 1\n    y: 2\n  - z\n"},
		"a literal for a sequence":      {"a: # b\n- x # c\nd: [1] # e\nf:\n  - g: {h: i} # j\n", vars("a", "|\n x\n y\n", "d", ">-\n z", "f:0:g", "k: |\n  l\n"), "a: | # b\n  x\n  y\n# c\nd: >-\n  z\n# e\nf:\n  - g:\n      k: |\n        l\n    # j\n"},
		"an item by a mapping":          {"- {a: 1}\n- x: 1\n  y: 2\n- z\n", vars("0", "p: 1\nq: 2", "1", "[1]"), "- p: 1\n  q: 2\n- [1]\n- z\n"},
		"within brackets":               {"a: {b: [1, 2], c: {d: e}}\n", vars("a:b", "- x\n- y: z\n", "a:c", "w"), "a: {b: [x, {y: z}], c: w}\n"},
		"a word that is no YAML":        {"a: [1]\nb: [1]\nc: [1]\n", vars("a", "{", "b", "", "c", "x: y: z"), "a: \"{\"\nb: \"\"\nc: \"x: y: z\"\n"},
		"anchors stay":                  {"a: &x [1]\nb: *x\nc: &y 1\nd: *y\n", vars("a", "[2]", "c", "3"), "a: &x [2]\nb: *x\nc: &y 3\nd: *y\n"},
		"an alias is not replaced":      {"a: &x 1\nb: *x\nc: 1\n", vars("b", "2", "c", "2"), "a: &x 1\nb: *x\nc: 2\n"},
		"tags":                          {"a: !custom x\nb: !<tag:yaml.org,2002:str> y\n", vars("a", "z"), "a: !custom z\nb: !!str y\n"},
		"documents":                     {"a: 1\n---\na: 2\n...\n---\n- 1\n", vars("a", "3", "0", "4"), "a: 3\n---\na: 3\n...\n---\n- 4\n"},
		"keys in quotes":                {"? a\n: 1\n\"b c\": 1\n? [x, y]\n: z: 1\n3: 1\n", vars("a", "2", "b c", "2", "z", "2", "3", "2"), "? a\n: 2\n\"b c\": 2\n? [x, y]\n: z: 1\n3: 2\n"},
		"line ends":                     {"a: 1\r\nb:\r\n- x\r\n", vars("a", "1\n2", "b", "- y\n- z"), "a: '1\r\n\r\n  2'\r\nb:\r\n- y\r\n- z\r\n"},
		"no line end at the end":        {"a: 1", vars("a", "2"), "a: 2"},
		"a literal at the end":          {"a: |\n  x", vars("a", "y\n"), "a: |\n  y\n"},
		"wide characters":               {"é: {日: 1, 😎: 2}\n", vars("é:😎", "3", "É:日", "4"), "é: {日: 4, 😎: 3}\n"},
		"a path twice":                  {"a:\n  b: 1\na:b: 2\n", vars("a:b", "3"), "a:\n  b: 3\na:b: 3\n"},
		"only a comment":                {"# x\n", vars("a", "1"), "# x\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff(tt.want, string(replaced(t, structured.YAML, tt.in, tt.vars).Output)); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestEncodings(t *testing.T) {
	t.Parallel()
	utf16 := func(bom, text string, big bool) string {
		var b strings.Builder
		b.WriteString(bom)
		for _, r := range text {
			if big {
				b.Write([]byte{byte(r >> 8), byte(r)})
			} else {
				b.Write([]byte{byte(r), byte(r >> 8)})
			}
		}
		return b.String()
	}
	for name, tt := range map[string]struct{ in, value, want string }{
		"UTF-8":                          {"a=1\nb=é", "2", "a=2\nb=é"},
		"UTF-8 with a mark":              {"\xef\xbb\xbfa=1", "2", "\xef\xbb\xbfa=2"},
		"UTF-16":                         {utf16("\xff\xfe", "a=1", false), "2", utf16("\xff\xfe", "a=2", false)},
		"UTF-16, big end first":          {utf16("\xfe\xff", "a=1", true), "2", utf16("\xfe\xff", "a=2", true)},
		"Windows-1252":                   {"a=1\nb=\x80", "2", "a=2\nb=\x80"},
		"a mark and then something else": {"\xef\xbb\xbfa=1\nb=\xff", "2", "\xef\xbb\xbfa=1\nb=\xff"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if got := string(replaced(t, structured.Properties, tt.in, vars("a", tt.value)).Output); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	got := string(replaced(t, structured.XML, "<?xml version='1.0' encoding='ISO-8859-2' standalone='yes'?>\n<a b='\xb3'/>", vars("/a/@c", "", "/a/@b", "日")).Output)
	if want := "<?xml version=\"1.0\" encoding=\"utf-8\" standalone=\"yes\"?>\n<a b=\"日\" />"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestXML(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		in       string
		vars     lookup
		want     string
		warnings int
	}{
		"children":              {"<a><b><c/></b></a>", vars("/a/b", "<x y='1'/><z>t</z>"), "<a>\n  <b>\n    <x y=\"1\" />\n    <z>t</z>\n  </b>\n</a>", 0},
		"children, no XML":      {"<a><b><c/></b><d/></a>", vars("/a/b", "<x>", "//d", "1"), "<a>\n  <b>\n    <c />\n  </b>\n  <d>1</d>\n</a>", 1},
		"text with elements":    {"<a><b>x <c/> y</b><d/></a>", vars("//d", "1"), "<a>\n  <b>x <c /> y</b>\n  <d>1</d>\n</a>", 0},
		"nothing":               {"<a><b/></a>", vars("/a/b", ""), "<a>\n  <b></b>\n</a>", 0},
		"escapes":               {"<a b='x'>y</a>", vars("/a/@b", "<&>\"'\n\t", "/a", "<&>\"'\n"), "<a b=\"&lt;&amp;&gt;&quot;'&#xA;&#x9;\">&lt;&amp;&gt;\"'\n</a>", 0},
		"a comment":             {"<a><!--x--></a>", vars("//comment()", "a--b-"), "<a>\n  <!--a- -b- -->\n</a>", 0},
		"CDATA":                 {"<a><![CDATA[x]]></a>", vars("/a", "y]]>z"), "<a><![CDATA[y]]]]><![CDATA[>z]]></a>", 0},
		"an instruction":        {"<a><?p x?></a>", vars("//processing-instruction()", "y?>z"), "<a>\n  <?p y? >z?>\n</a>", 0},
		"a control character":   {"<a>x</a>", vars("/a", "\x01"), "<a>x</a>", 1},
		"a document type":       {"<!DOCTYPE a [<!ENTITY e 'v'>]>\n<a b='1'>x&e;y</a>", vars("/a/@b", "2"), "<!DOCTYPE a [<!ENTITY e 'v'>]>\n<a b=\"2\">x&e;y</a>", 0},
		"space that is kept":    {"<a xml:space='preserve'> <b> </b></a>", vars("/a/@c", "", "//b", "1"), "<a xml:space=\"preserve\"> <b>1</b></a>", 0},
		"no expression":         {"<a><b>1</b></a>", vars("b", "2", "x:y", "2", "http://x/y", "2", "a/b[", "2", "//p:b", "2"), "<a><b>1</b></a>", 0},
		"no value":              {"<a>1</a>", null("/a"), "<a>1</a>", 0},
		"the system's":          {"<Octopus><x>1</x></Octopus>", vars("Octopus/x", "2"), "<Octopus><x>1</x></Octopus>", 0},
		"a prefix used twice":   {"<a xmlns:p='1'><b xmlns:p='2'><p:c>x</p:c></b><p:c>x</p:c></a>", vars("//p:c", "y"), "<a xmlns:p=\"1\">\n  <b xmlns:p=\"2\">\n    <p:c>x</p:c>\n  </b>\n  <p:c>y</p:c>\n</a>", 1},
		"the default is not ''": {"<a xmlns='u'><b>x</b></a>", vars("/a/b", "y", "/*:a/*:b", "z"), "<a xmlns=\"u\">\n  <b>z</b>\n</a>", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := replaced(t, structured.XML, tt.in, tt.vars)
			if d := cmp.Diff(tt.want, string(r.Output)); d != "" || len(r.Warnings) != tt.warnings {
				t.Errorf("warnings %q (-want +got)\n%s", r.Warnings, d)
			}
		})
	}
}

func TestXPath(t *testing.T) {
	t.Parallel()
	const document = `<?xml version="1.0"?><!-- top --><r xmlns:p="u" id="1"><a n="1">one</a><a n="2">two</a><b><a n="3">three<c/></a></b><p:a>four</p:a><?pi data?><d x=" 5 "/></r>`
	for path, want := range map[string][]string{
		"/r/a":                                    {"one", "two"},
		"//a":                                     {"one", "two", "three"},
		"//a[2]":                                  {"two"},
		"(//a)[3]":                                {"three"},
		"(//a)[last()]":                           {"three"},
		"//a[@n='3']":                             {"three"},
		"//a[@n>1]/@n":                            {"2", "3"},
		"//a[@n>1 and @n<3 or @n='3']/@n":         {"2", "3"},
		"//a[not(c)]":                             {"one", "two"},
		"//a[c]/c/..":                             {"three"},
		"//p:a":                                   {"four"},
		"//p:*":                                   {"four"},
		"//*:a":                                   {"one", "two", "three", "four"},
		"//*[local-name()='a']":                   {"one", "two", "three", "four"},
		"//*[namespace-uri()='u']":                {"four"},
		"//a | //p:a":                             {"one", "two", "three", "four"},
		"//a[contains(., 'hre')]":                 {"three"},
		"//a[starts-with(., 't')]":                {"two", "three"},
		"//a[ends-with(., 'o')]":                  {"two"},
		"//a[string-length() = 5]":                {"three"},
		"//a[upper-case(.) = 'ONE']":              {"one"},
		"//a[translate(., 'eno', 'x') = 'x']":     {"one"},
		"//a[substring(., 2, 2) = 'ne']":          {"one"},
		"//a[substring-before(., 'n') = 'o']":     {"one"},
		"//a[substring-after(., 't') = 'wo']":     {"two"},
		"//a[concat(@n, '-', .) = '1-one']":       {"one"},
		"//a[position() mod 2 = 0]":               {"two"},
		"//a[count(preceding-sibling::a) = 1]":    {"two"},
		"//a[@n = 1 + 1]":                         {"two"},
		"//a[@n * 2 = 6 div 1]":                   {"three"},
		"//a[-@n = -2]":                           {"two"},
		"//b/preceding-sibling::a[1]":             {"two"},
		"//b/following-sibling::*":                {"four", ""},
		"//c/ancestor::b/a/@n":                    {"3"},
		"//b/descendant::*":                       {"three", ""},
		"//a[. = 'one']/following::a":             {"two", "three"},
		"//c/preceding::a":                        {"one", "two"},
		"//comment()":                             {" top "},
		"//processing-instruction('pi')":          {"data"},
		"//processing-instruction('other')":       {},
		"//a/text()":                              {"one", "two", "three"},
		"//d/@x[normalize-space() = '5']":         {" 5 "},
		"//@id":                                   {"1"},
		"//d[number(@x) = 5][sum(//a/@n) = 6]/@x": {" 5 "},
		"//d[boolean(@y)]":                        {},
		"//d[@y = false()]":                       {""},
		"//d[round(1.5) = 2 and floor(1.5) = 1 and ceiling(1.5) = 2]": {""},
		"/r/a[1 to-x]":     nil,
		"//unknown:a":      nil,
		"//a[unknown()]":   nil,
		"//a[":             nil,
		"//a]":             nil,
		"count(//a)":       nil,
		"'x'":              nil,
		"//a[concat('x')]": nil,
		"/r/sideways::a":   nil,
		"":                 nil,
	} {
		got, err := structured.SelectText(document, path)
		if want == nil {
			if err == nil {
				t.Errorf("%s: %q, want an error", path, got)
			}
			continue
		}
		if d := cmp.Diff(want, got); err != nil || d != "" {
			t.Errorf("%s: %v (-want +got)\n%s", path, err, d)
		}
	}
}

// What would take for ever ends, with a warning.
func TestXPathBudget(t *testing.T) {
	t.Parallel()
	in := "<a>" + strings.Repeat("<b/>", 3000) + "</a>"
	r := replaced(t, structured.XML, in, vars("//*[//*[//*[//x]]]", "1"))
	if len(r.Warnings) != 1 || string(r.Output) != in {
		t.Errorf("warnings %q", r.Warnings)
	}
}

func TestProperties(t *testing.T) {
	t.Parallel()
	in := "a = 1\\\n   2\nb:\\u00e9 \\\\\n\\u0063\\ d=x\ne\n"
	for value, want := range map[string]string{
		"":             "a = \nb:\\u00e9 \\\\\n\\u0063\\ d=\ne:\n",
		" x y ":        "a = \\ x y \nb:\\u00e9 \\\\\n\\u0063\\ d=\\ x y \ne:\\ x y \n",
		"é😎\r\n\f\x01": "a = \\u00E9\\uD83D\\uDE0E\\r\\n\\f\\u0001\nb:\\u00e9 \\\\\n\\u0063\\ d=\\u00E9\\uD83D\\uDE0E\\r\\n\\f\\u0001\ne:\\u00E9\\uD83D\\uDE0E\\r\\n\\f\\u0001\n",
	} {
		if d := cmp.Diff(want, string(replaced(t, structured.Properties, in, vars("A", value, "c d", value, "e", value)).Output)); d != "" {
			t.Errorf("%q (-want +got)\n%s", value, d)
		}
	}
}

func TestDotNetConfig(t *testing.T) {
	t.Parallel()
	in := "<?xml version='1.0'?>\r\n<configuration>\r\n  <!-- keep -->\r\n  <appSettings>\r\n    <add key='A'   value='1'/>\r\n    <add key=\"B\"/>\r\n    <add value='x'/>\r\n  </appSettings>\r\n" +
		"  <applicationSettings><s><setting name='C'><value>1</value></setting><setting name='D'/><setting name='E'><value/></setting></s></applicationSettings>\r\n  <other><add key='A' value='1'/></other>\r\n</configuration>\r\n"
	want := "<?xml version='1.0'?>\r\n<configuration>\r\n  <!-- keep -->\r\n  <appSettings>\r\n    <add key='A'   value='it&apos;s'/>\r\n    <add key=\"B\" value=\"&quot;\"/>\r\n    <add value='x'/>\r\n  </appSettings>\r\n" +
		"  <applicationSettings><s><setting name='C'><value>&lt;c&gt;</value></setting><setting name='D'><value>d</value></setting><setting name='E'><value>e</value></setting></s></applicationSettings>\r\n  <other><add key='A' value='1'/></other>\r\n</configuration>\r\n"
	r, err := structured.ReplaceDotNetConfig("web.config", []byte(in), vars("a", "it's", "B", `"`, "C", "<c>", "D", "d", "E", "e"))
	if d := cmp.Diff(want, string(r.Output)); d != "" || err != nil {
		t.Errorf("%v (-want +got)\n%s", err, d)
	}
	if d := cmp.Diff([]string{"a", "B", "C", "D", "E"}, r.Replaced); d != "" {
		t.Error(d)
	}
	if r, err := structured.ReplaceDotNetConfig("web.config", []byte(in), vars("X", "1")); err != nil || string(r.Output) != in {
		t.Errorf("without a match: %v, %q", err, r.Output)
	}
	if _, err := structured.ReplaceDotNetConfig("web.config", []byte("<a>"), vars()); err == nil || !strings.Contains(err.Error(), "web.config") {
		t.Errorf("a broken file: %v", err)
	}
}

func TestTransformXML(t *testing.T) {
	t.Parallel()
	const in = `<c><s k="1" v="a"/><s k="2" v="b"/><t><u/></t></c>`
	for name, tt := range map[string]struct {
		rules    string
		want     string // nothing is an error
		warnings int
	}{
		"set":                {`<s k="2" v="z" x:Transform="SetAttributes(v)" x:Locator="Match(k)"/>`, `<c><s k="1" v="a" /><s k="2" v="z" /><t><u /></t></c>`, 0},
		"set all":            {`<s w="z" x:Transform="SetAttributes"/>`, `<c><s k="1" v="a" w="z" /><s k="2" v="b" w="z" /><t><u /></t></c>`, 0},
		"remove attributes":  {`<s x:Transform="RemoveAttributes(v, k)"/>`, `<c><s /><s /><t><u /></t></c>`, 0},
		"replace":            {`<t x:Transform="Replace"><n x:Transform="ignored"/></t>`, `<c><s k="1" v="a" /><s k="2" v="b" /><t><n /></t></c>`, 0},
		"replace an element": {`<s k="9" x:Transform="Replace" x:Locator="Condition(@v='b')"><n/></s>`, `<c><s k="1" v="a" /><s k="9"><n /></s><t><u /></t></c>`, 0},
		"remove":             {`<s x:Transform="Remove"/>`, `<c><s k="2" v="b" /><t><u /></t></c>`, 0},
		"remove all":         {`<s x:Transform="RemoveAll"/>`, `<c><t><u /></t></c>`, 0},
		"insert":             {`<t><n a="1" x:Transform="Insert"/></t>`, `<c><s k="1" v="a" /><s k="2" v="b" /><t><u /><n a="1" /></t></c>`, 0},
		"insert if missing":  {`<t><u x:Transform="InsertIfMissing"/><n x:Transform="InsertIfMissing"/></t>`, `<c><s k="1" v="a" /><s k="2" v="b" /><t><u /><n /></t></c>`, 0},
		"insert before":      {`<n x:Transform="InsertBefore(/c/s[@k='2'])"/>`, `<c><s k="1" v="a" /><n /><s k="2" v="b" /><t><u /></t></c>`, 0},
		"insert after":       {`<n x:Transform="InsertAfter(/c/s[1])"/>`, `<c><s k="1" v="a" /><n /><s k="2" v="b" /><t><u /></t></c>`, 0},
		"by XPath":           {`<s x:Locator="XPath(/c/t/u)" x:Transform="SetAttributes" q="1"/>`, `<c><s k="1" v="a" /><s k="2" v="b" /><t><u q="1" /></t></c>`, 0},
		"by a condition":     {`<s x:Locator="Condition(position()=2)" x:Transform="Remove"/>`, `<c><s k="1" v="a" /><t><u /></t></c>`, 0},
		"another namespace":  {`<t><n xmlns="n" x:Transform="Insert"/></t>`, `<c><s k="1" v="a" /><s k="2" v="b" /><t><u /><n xmlns="n" /></t></c>`, 0},
		"unknown":            {`<s x:Transform="Shuffle"/>`, "", 0},
		"unknown locator":    {`<s x:Locator="Near(x)" x:Transform="Remove"/>`, "", 0},
		"no such attribute":  {`<s x:Locator="Match(k)" x:Transform="Remove"/>`, "", 0},
		"no expression":      {`<s x:Locator="Condition([)" x:Transform="Remove"/>`, "", 0},
		"an import":          {`<x:Import path="x" namespace="n"/>`, "", 0},
		"import in nothing":  {`<none><x:Import assembly="x" namespace="n"/></none>`, "", 0},
		"unknown element":    {`<x:Shuffle/><s x:Transform="RemoveAll"/>`, `<c><t><u /></t></c>`, 1},
		"beside the root":    {`<n x:Transform="InsertAfter(/c)"/>`, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rules := `<c xmlns:x="http://schemas.microsoft.com/XML-Document-Transform">` + tt.rules + `</c>`
			r, err := structured.TransformXML("web.config", []byte(in), "web.Release.config", []byte(rules))
			if tt.want == "" {
				if err == nil || !strings.Contains(err.Error(), "web.Release.config") {
					t.Errorf("error %v, output %q", err, r.Output)
				}
				return
			}
			got := strings.ReplaceAll(strings.ReplaceAll(string(r.Output), "\n", ""), "  ", "")
			if d := cmp.Diff(tt.want, got); d != "" || err != nil || len(r.Warnings) != tt.warnings {
				t.Errorf("%v, warnings %q (-want +got)\n%s", err, r.Warnings, d)
			}
		})
	}
}

// Imported transforms are code in a .NET assembly: whoever has one must learn why
// it fails, and the file that is named must not be touched.
func TestImportSaysWhy(t *testing.T) {
	t.Parallel()
	for _, attribute := range []string{`assembly="Acme.Transforms"`, `path="../../Acme.Transforms"`} {
		rules := `<c xmlns:xdt="http://schemas.microsoft.com/XML-Document-Transform"><xdt:Import ` + attribute + ` namespace="Acme"/><s xdt:Transform="Merge"/></c>`
		_, err := structured.TransformXML("web.config", []byte("<c><s/></c>"), "web.Release.config", []byte(rules))
		if err == nil || !strings.Contains(err.Error(), "xdt:Import") || !strings.Contains(err.Error(), "Acme.Transforms") || !strings.Contains(err.Error(), "SetAttributes") {
			t.Errorf("%s: error %v, want one that names the element, the assembly and the remedy", attribute, err)
		}
	}
}

func TestLocateTransforms(t *testing.T) {
	t.Parallel()
	files := []string{"Web.config", "Web.Release.config", `bin\App.config`, `bin\app.release.config`, "readme.txt", "readme.Release.txt", "/etc/x.config"}
	for expression, want := range map[string][]structured.TransformPair{
		"Release":                              {{Transform: "Web.Release.config", Target: "Web.config"}, {Transform: `bin\app.release.config`, Target: `bin\App.config`}},
		"Release.config":                       {{Transform: "Web.Release.config", Target: "Web.config"}, {Transform: `bin\app.release.config`, Target: `bin\App.config`}},
		"":                                     nil,
		"=>":                                   nil,
		"a => ":                                nil,
		"x/Release":                            nil,
		"Web.Release.config => web.CONFIG":     {{Transform: "Web.Release.config", Target: "Web.config"}},
		"Web.Release.config => bin/App.config": {{Transform: "Web.Release.config", Target: `bin\App.config`}},
		"/etc/x.config => ./Web.config":        {{Transform: "/etc/x.config", Target: "Web.config"}},
		"bin/*.Release => Web.config":          {{Transform: `bin\app.release.config`, Target: "Web.config"}},
	} {
		if d := cmp.Diff(want, structured.LocateTransforms(expression, files)); d != "" {
			t.Errorf("%q (-want +got)\n%s", expression, d)
		}
	}
}

func TestSubstitute(t *testing.T) {
	t.Parallel()
	v := vars("a", "1", "b", "日")
	for _, tt := range []struct{ in, encoding, want, missing string }{
		{"x\r\n#{a}\n", "", "x\r\n1\n", "[]"},
		{"#{a} #{z} #{z}", "", "1 #{z} #{z}", "[#{z}]"},
		{"\x80 #{a}", "", "\x80 1", "[]"},
		{"\x80 #{b}", "", "€ 日", "[]"},
		{"\x80 plain", "", "\x80 plain", "[]"},
		{"plain", "utf-8", "\xef\xbb\xbfplain", "[]"},
		{"€", "windows-1252", "\x80", "[]"},
		{"#{b}", "us-ascii", "日", "[]"},
		{"é", "utf-16be", "\xfe\xff\x00\xe9", "[]"},
	} {
		got, missing := structured.Substitute([]byte(tt.in), tt.encoding, v.evaluate)
		if string(got) != tt.want || fmt.Sprint(missing) != tt.missing {
			t.Errorf("%q as %s: %q, %v; want %q, %s", tt.in, tt.encoding, got, missing, tt.want, tt.missing)
		}
	}
	if _, err := structured.SubstituteStrict("f", []byte("#{z}"), "", v.evaluate); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "#{z}") {
		t.Errorf("a token without a value: %v", err)
	}
	if got, err := structured.SubstituteStrict("f", []byte("#{a}"), "", v.evaluate); err != nil || string(got) != "1" {
		t.Errorf("got %q, %v", got, err)
	}
}
