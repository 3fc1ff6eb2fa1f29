package resource_test

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

type leaf struct {
	ID    string `json:"Id"`
	Value string `json:"Value"`
}

type tree struct {
	octopus.Resource
	Name    string                                    `json:"Name"`
	Text    octopus.NullString                        `json:"Text"`
	Count   int8                                      `json:"Count"`
	When    *octopus.Time                             `json:"When"`
	Flag    bool                                      `json:"Flag"`
	Leaves  octopus.List[leaf]                        `json:"Leaves"`
	ByKey   octopus.Map[string, leaf]                 `json:"ByKey"`
	Lists   octopus.Map[string, octopus.List[string]] `json:"Lists"`
	Nested  *tree                                     `json:"Nested"`
	Account octopus.Account                           `json:"Account"`
	Hidden  string                                    `json:"-"`
	private string                                    //nolint:unused // that it is passed over is tested
}

func kind() *resource.Kind {
	return resource.Declare(resource.Declaration[tree]{Name: "trees", ItemType: "Tree", Prefix: "Trees"})
}

func TestDeclareFillsIn(t *testing.T) {
	t.Parallel()
	k := kind()
	if k.Noun != "tree" || !cmp.Equal(k.Unique, []resource.Unique{{Field: "Name"}}) || k.Type != reflect.TypeFor[tree]() {
		t.Errorf("declared %+v", k)
	}
	v := k.New()
	k.Prepare(v)
	if err := k.Check(t.Context(), nil, nil, v); err != nil {
		t.Error(err)
	}
	if err := k.InTx(t.Context(), nil, resource.Created, "", "", nil, v); err != nil {
		t.Error(err)
	}
	if unnamed := resource.Declare(resource.Declaration[tree]{Name: "x", ItemType: "X", Unnamed: true}); unnamed.Unique != nil {
		t.Errorf("an unnamed kind has unique members %v", unnamed.Unique)
	}
}

func TestNilStaysNil(t *testing.T) {
	t.Parallel()
	k := resource.Declare(resource.Declaration[tree]{
		Name: "trees", ItemType: "Tree",
		Check: func(_ context.Context, _ resource.Reader, old, v *tree) error {
			if old != nil || v == nil {
				t.Error("a new document has an old one")
			}
			return nil
		},
		InTx: func(_ context.Context, _ resource.Writer, c resource.Change[tree]) error {
			if (c.Old == nil) != (c.Op == resource.Created) || (c.New == nil) != (c.Op == resource.Deleted) {
				t.Errorf("%v has old %v and new %v", c.Op, c.Old, c.New)
			}
			return nil
		},
	})
	if err := k.Check(t.Context(), nil, nil, &tree{}); err != nil {
		t.Error(err)
	}
	for op, both := range map[resource.Op][2]any{resource.Created: {nil, &tree{}}, resource.Modified: {&tree{}, &tree{}}, resource.Deleted: {&tree{}, nil}} {
		if err := k.InTx(t.Context(), nil, op, "", "", both[0], both[1]); err != nil {
			t.Error(err)
		}
	}
}

func TestDeclarationsMustFit(t *testing.T) {
	t.Parallel()
	type d = resource.Declaration[tree]
	for says, decl := range map[string]d{
		`"Nmae"`:                      {Unique: []resource.Unique{{Field: "Nmae"}}},
		`"name"`:                      {Unique: []resource.Unique{{Field: "name"}}}, // the exact spelling
		`"Leaves.Value"`:              {Filters: []resource.Filter{{Path: "Leaves.Value"}}},
		`"Leaves.*.Vale"`:             {Filters: []resource.Filter{{Path: "Leaves.*.Vale"}}},
		`"Name.*"`:                    {Filters: []resource.Filter{{Path: "Name.*"}}},
		`"ProjectId"`:                 {Dimensions: resource.Dimensions{Project: "ProjectId"}},
		`"Slug"`:                      {Slugged: true},
		`"Version"`:                   {Versioned: true},
		`"SortOrder"`:                 {Order: resource.ByNumber},
		`"Hidden"`:                    {Filters: []resource.Filter{{Path: "Hidden"}}},
		`"private"`:                   {Filters: []resource.Filter{{Path: "private"}}},
		`"Lists.*.x"`:                 {References: []resource.Reference{{Path: "Lists.*.x", To: "trees"}}},
		`kind "bushes", which nobody`: {References: []resource.Reference{{Path: "Text", To: "bushes"}}},
		`requires Text, which is to`:  {References: []resource.Reference{{Path: "Text", To: "trees", Required: true, OnDelete: resource.Clear}}},
	} {
		decl.Name, decl.ItemType = "trees", "Tree"
		if _, err := resource.NewSet(resource.Declare(decl)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("want an error about %s, got %v", says, err)
		}
	}
	if _, err := resource.NewSet(kind(), kind()); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("two kinds of one name: %v", err)
	}
	good := d{
		Name: "trees", ItemType: "Tree",
		Dimensions: resource.Dimensions{Project: "Id", Environment: "Lists.*key"},
		Filters:    []resource.Filter{{Path: "Leaves.*.Value"}, {Path: "ByKey.*.Value"}, {Path: "Nested.Nested.Text"}, {Path: "Account.EnvironmentIds"}},
		References: []resource.Reference{{Path: "Lists.*key", To: "trees"}, {Path: "Lists.*", To: "trees"}},
	}
	if _, err := resource.NewSet(resource.Declare(good)); err != nil {
		t.Error(err)
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for body, says := range map[string]string{
		"":               "no body",
		" \n ":           "no body",
		`{"a":`:          "middle",
		"{\n\"a\": tru}": "line 2, column 9",
		`{"a":1}{"b":2}`: "after its JSON object",
		`{"a":1} x`:      "after its JSON object",
		`[1]`:            "an array",
		`true`:           "a boolean",
		`12`:             "a number",
		`"a"`:            "a text",
		`null`:           "null",
		strings.Repeat(`{"a":`, 101) + "1" + strings.Repeat("}", 101):       "100 levels",
		`{"a":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + "}": "",
		strings.Repeat("[", 20_000):                                         "JSON",
	} {
		_, err := resource.Parse([]byte(body))
		if says == "" && err == nil {
			continue
		}
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), says) {
			t.Errorf("%.30q: %v; want %q", body, err, says)
		}
	}
	got, err := resource.Parse([]byte(`{"n": 12345678901234567890.10}`))
	if err != nil || got["n"] != json.Number("12345678901234567890.10") {
		t.Errorf("a long number is %v, %v", got["n"], err)
	}
}

// TestMisfits: the message names the member, what it is and what it must be, and
// repeats no value, which may be a secret.
func TestMisfits(t *testing.T) {
	t.Parallel()
	for body, says := range map[string]string{
		`{"Name":1}`:                              "Name is a number; it must be a text.",
		`{"name":["hush"]}`:                       "Name is an array; it must be a text.",
		`{"Count":"hush"}`:                        "Count is a text; it must be a whole number within 8 bits.",
		`{"Count":300}`:                           "Count is a number; it must be a whole number within 8 bits.",
		`{"Flag":null,"Leaves":{"a":"hush"}}`:     "Leaves is an object; it must be an array.",
		`{"Leaves":[{"Value":"a"},{"Value":{}}]}`: "Leaves.1.Value is an object; it must be a text.",
		`{"ByKey":{"k":{"Value":true}}}`:          "ByKey.k.Value is a boolean; it must be a text.",
		`{"Lists":{"k":[1]}}`:                     "Lists.k.0 is a number; it must be a text.",
		`{"Nested":{"Nested":{"Flag":"hush"}}}`:   "Nested.Nested.Flag is a text; it must be true or false.",
		`{"When":"tomorrow"}`:                     "When does not fit",
		`{"Account":{"Username":5}}`:              "Account.Username is a number; it must be a text.",
		`{"Account":{"Password":{"NewValue":5}}}`: "Account.Password",
	} {
		_, _, err := kind().Decode([]byte(body))
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "hush") {
			t.Errorf("%s: %v", body, err)
		}
	}
}

func TestValues(t *testing.T) {
	t.Parallel()
	parsed, err := resource.Parse([]byte(`{"a":"1","b":[ "2", "", 3, null, true, {} ],"c":{"x":["4"],"y":["5","6"]},"d":[{"e":"7"},{"e":["8"]},{},9],"f":"","g":null,"h":false}`))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string][]string{
		"a": {"1"}, "b": {"2", "3", "true"}, "c.*": {"4", "5", "6"}, "c.*key": {"x", "y"}, "d.*.e": {"7", "8"}, "f": nil, "g": nil, "h": {"false"},
		"none": nil, "a.b": nil, "a.*": nil, "d.e": nil, "c": nil, "*": {"1", "2", "3", "true", "9", "false"},
	} {
		got := resource.Values(parsed, path)
		slices.Sort(got)
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", path, diff)
		}
	}
}

// bodies draws JSON objects that fit the type, with members that it does not know.
func bodies() *rapid.Generator[map[string]any] {
	return rapid.Custom(func(t *rapid.T) map[string]any {
		unknown := func(o map[string]any) map[string]any {
			if rapid.Bool().Draw(t, "more") {
				o["x-"+rapid.StringMatching(`[a-z]{1,4}`).Draw(t, "member")] = map[string]any{"deep": []any{"v", rapid.StringN(0, 4, 9).Draw(t, "value")}}
			}
			return o
		}
		leaves := func() []any {
			out := []any{}
			for i := range rapid.IntRange(0, 3).Draw(t, "leaves") {
				out = append(out, unknown(map[string]any{"Id": string(rune('a' + i)), "Value": rapid.String().Draw(t, "leaf")}))
			}
			return out
		}
		return unknown(map[string]any{
			"Name": rapid.String().Draw(t, "name"), "Count": rapid.IntRange(-128, 127).Draw(t, "count"), "Flag": rapid.Bool().Draw(t, "flag"),
			"Leaves": leaves(), "ByKey": map[string]any{"k": unknown(map[string]any{"Value": "v"})},
			"Nested":  unknown(map[string]any{"Leaves": leaves()}),
			"Account": unknown(map[string]any{"AccountType": "New", "Container": map[string]any{"Image": "i"}}),
		})
	})
}

// within reports where want is not in got.
func within(want, got any, at string) string {
	switch w := want.(type) {
	case map[string]any:
		g, ok := got.(map[string]any)
		if !ok {
			return at
		}
		for key, value := range w {
			if missing := within(value, g[key], at+"."+key); missing != "" {
				return missing
			}
		}
	case []any:
		g, ok := got.([]any)
		if !ok || len(g) != len(w) {
			return at
		}
		for i := range w {
			if missing := within(w[i], g[i], at+".*"); missing != "" {
				return missing
			}
		}
	default:
		if !cmp.Equal(want, got) {
			return at
		}
	}
	return ""
}

// TestNothingIsLostOnTheWay through the Go type and back.
func TestNothingIsLostOnTheWay(t *testing.T) {
	t.Parallel()
	k := kind()
	rapid.Check(t, func(t *rapid.T) {
		body, err := json.Marshal(bodies().Draw(t, "body"))
		if err != nil {
			t.Fatal(err)
		}
		in, v, err := k.Decode(body)
		if err != nil {
			t.Fatal(err)
		}
		out, err := k.Encode(v, in)
		if err != nil {
			t.Fatal(err)
		}
		if missing := within(in, out, ""); missing != "" {
			t.Fatalf("%s of %s is lost: %v", missing, body, out)
		}
		text, err := json.Marshal(out)
		if err != nil {
			t.Fatal(err)
		}
		again, err := k.Refresh(text)
		if err != nil || string(again) != string(text) {
			t.Fatalf("completing what is complete: %v\n%s\n%s", err, text, again)
		}
	})
}

func TestShapes(t *testing.T) {
	t.Parallel()
	type a struct {
		Name string `json:"Name"`
		Sub  []leaf `json:"Sub"`
	}
	type renamed a
	type more struct {
		Name string `json:"Name"`
		Sub  []leaf `json:"Sub"`
		More bool   `json:"More"`
	}
	shape := func(k *resource.Kind) int64 { return k.Shape() }
	one := shape(resource.Declare(resource.Declaration[a]{ItemType: "A"}))
	if one <= 0 || one != shape(resource.Declare(resource.Declaration[renamed]{ItemType: "B"})) {
		t.Errorf("the name of a type changes its shape %d", one)
	}
	if one == shape(resource.Declare(resource.Declaration[more]{ItemType: "C"})) {
		t.Error("a new member does not change the shape")
	}
	if first, again := shape(kind()), shape(kind()); first != again {
		t.Error("a shape is not stable")
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		`{"Name":"x","Leaves":[{"Id":"a","More":1}],"Account":{"Password":"p"},"Nested":{"name":"y"}}`, `{"NAME":1,"Name":"b"}`, `{"When":"2026-01-02T03:04:05Z"}`, `[`, `{"Lists":{"a":null}}`,
	} {
		f.Add([]byte(seed))
	}
	k := kind()
	f.Fuzz(func(t *testing.T, body []byte) {
		in, v, err := k.Decode(body)
		if err != nil {
			if fault.KindOf(err) != fault.Invalid {
				t.Fatalf("%q: %v", body, err)
			}
			return
		}
		k.Prepare(v)
		out, err := k.Encode(v, in)
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		text, err := json.Marshal(out)
		if err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		if _, _, err := k.Decode(text); err != nil {
			t.Fatalf("%q became %q: %v", body, text, err)
		}
	})
}
