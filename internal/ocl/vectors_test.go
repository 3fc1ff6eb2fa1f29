package ocl

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/vectortest"
)

// vector is a case of testdata/ocl.json.
type vector struct {
	ID          string          `json:"id"`
	Feature     string          `json:"feature"`
	Kind        string          `json:"kind"`
	OCL         string          `json:"ocl"`
	Tree        json.RawMessage `json:"tree"`
	Newline     string          `json:"writer_newline"`
	Input       string          `json:"input"`
	Tag         string          `json:"tag"`
	Lines       []string        `json:"lines"`
	EndLine     string          `json:"end_line"`
	Expected    json.RawMessage `json:"expected"`
	Error       bool            `json:"error"`
	ErrorText   string          `json:"error_text"`
	ErrorLine   int             `json:"error_line"`
	ErrorColumn int             `json:"error_column"`
}

// onPurpose gives the reason why a case is answered differently. There is none
// so far; at most one in a hundred may have one.
func onPurpose(id string) string {
	return map[string]string{}[id]
}

// TestVectors holds the package to known inputs and outputs of the language,
// whatever cases the file has.
func TestVectors(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile("testdata/ocl.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(data, &vectors); err != nil {
		t.Fatal(err)
	}
	counts := vectortest.New()
	t.Cleanup(func() { counts.Report(t, "ocl.json") })
	for _, v := range vectors {
		if why := onPurpose(v.ID); why != "" {
			counts.OnPurpose(v.ID + ": " + why)
			continue
		}
		t.Run(v.ID, func(t *testing.T) {
			t.Parallel()
			counts.Count(t, v.Feature)
			got := answer(t, v)
			if v.Error {
				return // answer has looked at it
			}
			var want any
			if v.Kind == "roundtrip" {
				want = decode(t, v.Tree)
			} else {
				want = decode(t, v.Expected)
			}
			if diff := cmp.Diff(normal(want), normal(got)); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func decode(t *testing.T, raw json.RawMessage) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var out any
	if err := d.Decode(&out); err != nil {
		t.Fatal(err)
	}
	return out
}

// answer does what the case asks for, as the JSON that the file has.
func answer(t *testing.T, v vector) any {
	t.Helper()
	parse := func(text string) Body {
		body, err := Parse(text)
		checkError(t, v, err)
		return body
	}
	switch v.Kind {
	case "parse":
		return toJSON(parse(v.OCL))
	case "idempotent":
		return Print(parse(v.OCL))
	case "format":
		return Print(fromJSON(t, decode(t, v.Tree)))
	case "roundtrip":
		tree := fromJSON(t, decode(t, v.Tree))
		return toJSON(parse(PrintLines(tree, v.Newline)))
	case "heredoc_start":
		line, _, complete := cutLine(v.Input)
		tag, indented, ok := heredocStart(line)
		if ok = ok && complete; ok == v.Error {
			t.Errorf("accepted: %v, want %v", ok, !v.Error)
		}
		return map[string]any{"tag": tag, "indented": indented}
	case "heredoc_end":
		line, _, _ := cutLine(v.Input)
		indent, ok := heredocEnd(v.Tag, line)
		if ok == v.Error {
			t.Errorf("accepted: %v, want %v", ok, !v.Error)
		}
		return indent + v.Tag
	case "unindent":
		return unindent(v.Lines, v.EndLine)
	case "snake_case":
		return SnakeCase(v.Input)
	}
	t.Fatalf("unknown kind %q", v.Kind)
	return nil
}

func checkError(t *testing.T, v vector, err error) {
	t.Helper()
	if v.Error != (err != nil) {
		t.Fatalf("error: %v, want one: %v", err, v.Error)
	}
	if err == nil {
		return
	}
	var at *SyntaxError
	if !errors.As(err, &at) {
		t.Fatalf("%T: %v", err, err)
	}
	if !strings.Contains(at.Message, v.ErrorText) {
		t.Errorf("error %q, want %q in it", at.Message, v.ErrorText)
	}
	if want := (Pos{v.ErrorLine, v.ErrorColumn}); v.ErrorLine > 0 && at.Pos != want {
		t.Errorf("error at %v, want %v: %v", at.Pos, want, err)
	}
}

// normal makes answers and expectations comparable: both as decoded JSON.
func normal(v any) any {
	data, err := json.Marshal(v)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var out any
	if err := d.Decode(&out); err != nil {
		return err
	}
	return out
}

func toJSON(body Body) []any {
	out := []any{}
	for _, item := range body {
		if item.Block == nil {
			out = append(out, map[string]any{"attr": item.Name, "value": valueToJSON(item.Value)})
		} else {
			out = append(out, map[string]any{"block": item.Name, "labels": item.Block.Labels, "children": toJSON(item.Block.Body)})
		}
	}
	return out
}

func valueToJSON(v Value) any {
	switch v.Kind {
	case Null:
		return nil
	case Bool:
		return v.Bool
	case Int:
		return v.Int
	case Decimal:
		return json.Number(v.Text)
	case String:
		switch v.Format {
		case Heredoc:
			return map[string]any{"$string": v.Text, "format": "heredoc", "tag": v.Tag}
		case Indented:
			return map[string]any{"$string": v.Text, "format": "indented", "tag": v.Tag}
		case Auto, SingleLine:
		}
		return v.Text
	case List:
		out := []any{}
		for _, item := range v.List {
			out = append(out, valueToJSON(item))
		}
		return out
	case Map:
		out := map[string]any{}
		for _, e := range v.Map {
			out[e.Key] = valueToJSON(e.Value)
		}
		return out
	}
	return "?"
}

func fromJSON(t *testing.T, tree any) Body {
	t.Helper()
	body := Body{}
	for _, node := range tree.([]any) {
		m := node.(map[string]any)
		if name, ok := m["attr"]; ok {
			body = append(body, Attr(name.(string), valueFromJSON(t, m["value"])))
			continue
		}
		labels := []string{}
		for _, l := range m["labels"].([]any) {
			labels = append(labels, l.(string))
		}
		body = append(body, NewBlock(m["block"].(string), labels, fromJSON(t, m["children"])))
	}
	return body
}

func valueFromJSON(t *testing.T, v any) Value {
	t.Helper()
	switch v := v.(type) {
	case nil:
		return Value{}
	case bool:
		return Flag(v)
	case string:
		return Text(v)
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return Number(n)
		}
		return Value{Kind: Decimal, Text: v.String()}
	case []any:
		list := Value{Kind: List, List: []Value{}}
		for _, item := range v {
			list.List = append(list.List, valueFromJSON(t, item))
		}
		return list
	case map[string]any:
		if text, ok := v["$decimal"]; ok {
			return Value{Kind: Decimal, Text: text.(string)}
		}
		if text, ok := v["$string"]; ok {
			tag, _ := v["tag"].(string)
			formats := []string{"", "single-line", "heredoc", "indented"}
			i := slices.Index(formats, v["format"].(string))
			if i < 1 {
				t.Fatalf("unknown format %v", v["format"])
			}
			return Value{Kind: String, Text: text.(string), Format: Format(i), Tag: tag}
		}
		keys := []string{}
		for key := range v {
			keys = append(keys, key)
		}
		slices.Sort(keys) // the file's own order is lost in a JSON object
		dict := Value{Kind: Map, Map: []Entry{}}
		for _, key := range keys {
			dict.Map = append(dict.Map, Entry{key, valueFromJSON(t, v[key])})
		}
		return dict
	}
	t.Fatalf("unknown value %T", v)
	return Value{}
}
