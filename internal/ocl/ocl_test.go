package ocl

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/fault"
)

func drawText(t *rapid.T, label string) string {
	return rapid.OneOf(
		rapid.StringMatching(`[a-zA-Z0-9 .#{}"\\=<>\[\]-]{0,12}`),
		rapid.StringMatching(`( |\t|a|EOT|\n|\r\n|"){0,10}`),
		rapid.StringMatching(`(\r|\n|EOT|EOT1|x){0,6}`),
		rapid.String(),
	).Draw(t, label)
}

func drawValue(t *rapid.T, depth int) Value {
	kinds := []Kind{Null, Bool, Int, Decimal, String, String, String, List}
	if depth > 0 {
		kinds = append(kinds, Map)
	}
	switch rapid.SampledFrom(kinds).Draw(t, "kind") {
	case Bool:
		return Flag(rapid.Bool().Draw(t, "bool"))
	case Int:
		return Number(rapid.Int64().Draw(t, "int"))
	case Decimal:
		return Value{Kind: Decimal, Text: rapid.StringMatching(`-?[0-9]{1,9}\.[0-9]{1,9}`).Draw(t, "decimal")}
	case String:
		return Value{
			Kind: String, Text: drawText(t, "text"),
			Format: rapid.SampledFrom([]Format{Auto, SingleLine, Heredoc, Indented}).Draw(t, "format"),
			Tag:    rapid.SampledFrom([]string{"", "EOT", "ZZZ", "-X", "a b", "!!"}).Draw(t, "tag"),
		}
	case List:
		if rapid.Bool().Draw(t, "of numbers") {
			return Value{Kind: List, List: rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Value { return Number(rapid.Int64().Draw(t, "n")) }), 0, 3).Draw(t, "numbers")}
		}
		return Texts(rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return drawText(t, "item") }), 0, 3).Draw(t, "texts"))
	case Map:
		dict := Value{Kind: Map, Map: []Entry{}}
		keys := rapid.SliceOfNDistinct(rapid.Custom(func(t *rapid.T) string { return drawText(t, "key") }), 0, 3, rapid.ID).Draw(t, "keys")
		for _, key := range keys {
			dict.Map = append(dict.Map, Entry{key, drawValue(t, depth-1)})
		}
		return dict
	case Null:
	}
	return Value{}
}

func drawBody(t *rapid.T, depth int) Body {
	body := Body{}
	for range rapid.IntRange(0, 4).Draw(t, "items") {
		name := rapid.StringMatching(`[a-zA-Z_][a-zA-Z0-9_-]{0,8}`).Draw(t, "name")
		if depth > 0 && rapid.Bool().Draw(t, "block") {
			labels := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) string { return drawText(t, "label") }), 0, 2).Draw(t, "labels")
			body = append(body, NewBlock(name, labels, drawBody(t, depth-1)))
			continue
		}
		body = append(body, Attr(name, drawValue(t, 2)))
	}
	return body
}

// meaning is a tree without what may change when it is written and read: how
// strings are written, where things stand, and nil for empty.
func meaning(body Body) Body {
	out := Body{}
	for _, item := range body {
		item.Pos = Pos{}
		item.Value = valueMeaning(item.Value)
		if item.Block != nil {
			item.Block = &Block{Labels: append([]string{}, item.Block.Labels...), Body: meaning(item.Block.Body)}
		}
		out = append(out, item)
	}
	return out
}

func valueMeaning(v Value) Value {
	v.Format, v.Tag = Auto, ""
	var list []Value
	for _, item := range v.List {
		list = append(list, valueMeaning(item))
	}
	v.List = list
	var entries []Entry
	for _, e := range v.Map {
		entries = append(entries, Entry{e.Key, valueMeaning(e.Value)})
	}
	v.Map = entries
	return v
}

func TestPrintParse(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		tree := drawBody(t, 3)
		lineBreak := rapid.SampledFrom([]string{"\n", "\r\n"}).Draw(t, "line break")
		text := PrintLines(tree, lineBreak)
		parsed, err := Parse(text)
		if err != nil {
			t.Fatalf("%v in\n%s", err, text)
		}
		if diff := cmp.Diff(meaning(tree), meaning(parsed)); diff != "" {
			t.Fatalf("%s in\n%s", diff, text)
		}
		stable(t, Print(parsed))
	})
}

// stable checks that a printed text stays as it is when it is read and printed.
func stable(t interface {
	Helper()
	Fatalf(string, ...any)
}, text string,
) {
	t.Helper()
	parsed, err := Parse(text)
	if err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if again := Print(parsed); again != text {
		t.Fatalf("printed again it differs:\n%q\n%q", text, again)
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "a = 1", "a = -1.5\nb = [1, 2]", "a \"l\" {\n    b = <<-EOT\n        x\n          y\n        EOT\n}",
		"p = {\n    a.b = \"1\"\n    \"c d\" = null\n}", "a = <<ZZZ\r\n x\r\nZZZ\r\n", "a {}\n\nb = \"\\n\\\"\"", "a = <<-!\n\t\n!",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		body, err := Parse(text)
		if err != nil {
			var at *SyntaxError
			if !errors.As(err, &at) || at.Pos.Line < 1 || at.Pos.Column < 1 || at.Pos.Line > strings.Count(text, "\n")+1 {
				t.Fatalf("%v is not a place in %q", err, text)
			}
			return
		}
		printed := Print(body)
		again, err := Parse(printed)
		if err != nil {
			t.Fatalf("%v in the printed text\n%s", err, printed)
		}
		if diff := cmp.Diff(values(body), values(again)); diff != "" {
			t.Fatalf("%s of\n%s", diff, printed)
		}
		stable(t, printed)
	})
}

// values is the meaning of a body without its names, which printing may clean.
func values(body Body) Body {
	out := meaning(body)
	for i := range out {
		out[i].Name = ""
		if out[i].Block != nil {
			out[i].Block.Body = values(out[i].Block.Body)
		}
	}
	return out
}

func TestErrors(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text string
		at   Pos
		says string
	}{
		"comment":                   {"a = 1\n  # why", Pos{2, 3}, "comments are not part"},
		"comment of slashes":        {"// why", Pos{1, 1}, "comments are not part"},
		"value on the next line":    {"a =\n  1", Pos{1, 4}, "expected a value, found the end of the line"},
		"equals on the next line":   {"a\n = 1", Pos{1, 2}, "expected '=', a label or '{'"},
		"two names":                 {"my block {\n}", Pos{1, 4}, "expected '=', a label or '{'"},
		"brace on the next line":    {"a \"l\"\n{\n}", Pos{1, 6}, "expected a label or '{'"},
		"two attributes in a line":  {"a = 1 b = 2", Pos{1, 7}, "expected a new line after the value of a"},
		"attribute in the braces":   {"a { b = 1 }", Pos{1, 5}, "expected a new line or '}'"},
		"after a block":             {"a {} b {}", Pos{1, 6}, "expected a new line after the block a"},
		"open block":                {"a {\n  b {\n  }\n", Pos{4, 1}, "a block is not closed"},
		"stray brace":               {"}", Pos{1, 1}, "expected the name"},
		"open string at the end":    {`a = "x`, Pos{1, 7}, "before the end of the text"},
		"open string, CRLF":         {"a = \"x\r\nb = 1", Pos{1, 7}, "before the end of the line"},
		"open list":                 {"a = [1, 2", Pos{1, 10}, "expected ',' or ']'"},
		"list of two kinds":         {`a = ["1", 2]`, Pos{1, 11}, "one kind"},
		"comma at the end":          {`a = ["1",]`, Pos{1, 10}, "expected a value"},
		"here-document in a list":   {"a = [<<EOT\nx\nEOT\n]", Pos{1, 6}, "expected a value"},
		"open here-document":        {"a = 1\nb = <<-EOT\n x\n", Pos{2, 5}, "expected a line with EOT"},
		"here-document without tag": {"a = <<\nEOT", Pos{1, 5}, "and a tag"},
		"no digit":                  {"a = -", Pos{1, 6}, "expected a digit"},
		"no digit after the point":  {"a = 1.", Pos{1, 7}, "expected a digit"},
		"too large":                 {"a = 9223372036854775808", Pos{1, 5}, "too large"},
		"exponent":                  {"a = 1e6", Pos{1, 6}, "expected a new line"},
		"unknown word":              {"a = yes", Pos{1, 5}, "expected a value"},
		"key twice":                 {"a = {\n b = 1\n b = 2\n}", Pos{3, 2}, `the key "b" is there twice`},
		"dictionary on one line":    {"a = { b = 1 }", Pos{1, 7}, "expected a new line or '}'"},
		"key without a value":       {"a = {\n  b\n}", Pos{2, 4}, "expected '='"},
		"columns are characters":    {"ü = \"ä\" x", Pos{1, 9}, "expected a new line"},
		"after the mark of UTF-8":   {"\uFEFFa = x", Pos{1, 5}, "expected a value"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse(tt.text)
			var at *SyntaxError
			if !errors.As(err, &at) {
				t.Fatalf("err = %v", err)
			}
			if at.Pos != tt.at || !strings.Contains(at.Message, tt.says) {
				t.Errorf("%v\nwant %v: ... %s", err, tt.at, tt.says)
			}
			if !fault.Is(err, fault.Invalid) {
				t.Error("it is not the caller's fault")
			}
		})
	}
}

func TestLimits(t *testing.T) {
	t.Parallel()
	if _, err := Parse(strings.Repeat("a = 1\n", MaxSize/6+1)); err == nil {
		t.Error("a text over the limit was accepted")
	}
	blocks := func(n int) string { return strings.Repeat("a {\n", n) + strings.Repeat("}\n", n) }
	dicts := func(n int) string { return strings.Repeat("a = {\n", n) + strings.Repeat("}\n", n) }
	for _, nested := range []func(int) string{blocks, dicts} {
		if _, err := Parse(nested(MaxDepth)); err != nil {
			t.Errorf("at the limit: %v", err)
		}
		if _, err := Parse(nested(MaxDepth + 1)); err == nil || !strings.Contains(err.Error(), "nested more than") {
			t.Errorf("over the limit: %v", err)
		}
	}
}

func TestPositions(t *testing.T) {
	t.Parallel()
	body, err := Parse("a = 1\r\n\r\nb \"l\" {\r\n    c = <<-EOT\r\n        x\r\n        EOT\r\n    d = 2\r\n}\r\n  e = 3\r\n")
	if err != nil {
		t.Fatal(err)
	}
	in := body[1].Block.Body
	got := []Pos{body[0].Pos, body[1].Pos, in[0].Pos, in[1].Pos, body[2].Pos}
	if diff := cmp.Diff([]Pos{{1, 1}, {3, 1}, {4, 5}, {7, 5}, {9, 3}}, got); diff != "" {
		t.Error(diff)
	}
}

// TestForgiving has texts that people write and that have one form when printed.
func TestForgiving(t *testing.T) {
	t.Parallel()
	tests := map[string][2]string{
		"spacing":             {"a=1\n\n\n  b   =\t[ 1,2 ]  \n", "a = 1\nb = [1, 2]"},
		"CRLF":                {"a = 1\r\nb {\r\n}\r\n", "a = 1\n\nb {}"},
		"list over lines":     {"a = [\n  \"x\",\n  \"y\"\n]", `a = ["x", "y"]`},
		"empty block of old":  {"connectivity_policy {\n}\n", "connectivity_policy {}"},
		"blank first line":    {"a {\n\n    b {\n    }\n}", "a {\n    b {}\n}"},
		"several lines":       {`a = "x\ny"`, "a = <<-EOT\n        x\n        y\n        EOT"},
		"a line like the tag": {`a = "x\n EOT \nEOT1"`, "a = <<-EOT2\n        x\n         EOT \n        EOT1\n        EOT2"},
		"ends in a CR":        {`a = "x\ny\r"`, `a = "x\ny\r"`},
		"empty dictionary":    {"a = {}\nb = {\n}", "a = {}\nb = {}"},
		"mark of UTF-8":       {"\uFEFFa = 1", "a = 1"},
		"tag less indented":   {"a = <<-EOT\n        x\n          y\n    EOT", "a = <<-EOT\n            x\n              y\n        EOT"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body, err := Parse(tt[0])
			if err != nil {
				t.Fatal(err)
			}
			got := Print(body)
			if diff := cmp.Diff(tt[1], got); diff != "" {
				t.Error(diff)
			}
			stable(t, got)
		})
	}
}

func BenchmarkParse(b *testing.B) {
	step := "step \"deploy\" {\n    name = \"Deploy\"\n\n    action {\n        properties = {\n            Octopus.Action.Script.ScriptBody = <<-EOT\n" +
		strings.Repeat("                echo \"hello\"\n", 40) + "                EOT\n            Octopus.Action.Script.Syntax = \"Bash\"\n        }\n    }\n}\n\n"
	text := strings.Repeat(step, 200)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParseManyBlocks(b *testing.B) {
	text := strings.Repeat("a {\n b {\n }\n}\n", 50000)
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		if _, err := Parse(text); err != nil {
			b.Fatal(err)
		}
	}
}
