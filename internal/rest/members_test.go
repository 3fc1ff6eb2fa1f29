package rest

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// TestEachMember: every object is cut as decoding it would.
func TestEachMember(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		text := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{`"`, `\`, `\"`, `a\\"b`, `{"`, `]}`, `,`, ""}))
		scalar := rapid.OneOf(rapid.Just[any](nil), rapid.Just[any](true), rapid.Map(rapid.Float64Range(-1e9, 1e9), func(f float64) any { return f }), rapid.Map(text, func(s string) any { return s }))
		nested := rapid.OneOf(scalar, rapid.Map(rapid.SliceOfN(scalar, 0, 3), func(l []any) any { return l }), rapid.Map(rapid.MapOfN(text, scalar, 0, 3), func(m map[string]any) any { return m }))
		object := rapid.MapOfN(text, nested, 0, 5).Draw(rt, "object")
		body, err := json.Marshal(object)
		if err != nil {
			rt.Fatal(err)
		}
		if rapid.Bool().Draw(rt, "indented") {
			var b bytes.Buffer
			if err := json.Indent(&b, body, " ", "\t"); err != nil {
				rt.Fatal(err)
			}
			body = b.Bytes()
		}
		want := map[string]json.RawMessage{}
		if err := json.Unmarshal(body, &want); err != nil {
			rt.Fatal(err)
		}
		got := map[string]json.RawMessage{}
		err = eachMember(body, func(name, value []byte) {
			var plain string
			if err := json.Unmarshal([]byte(`"`+string(name)+`"`), &plain); err != nil {
				rt.Fatalf("name %q: %v", name, err)
			}
			got[plain] = value
		})
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			rt.Errorf("%s\n%s", body, diff)
		}
	})
}

// FuzzEachMember: damaged texts are cut somehow, or refused.
func FuzzEachMember(f *testing.F) {
	for _, text := range []string{`{"a":1}`, `{`, `{"`, `{"a`, `{"a"`, `{"a":`, `{"a":"\`, `{"a":[{"b":"]"}],"c":2}`, ` {} `, `[]`, ``, `{"a":1]`, `{"\"`, `{"a":}`} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		members := 0
		err := eachMember(text, func(_, _ []byte) { members++ })
		var whole map[string]json.RawMessage
		if json.Unmarshal(text, &whole) == nil && whole != nil && (err != nil || members < len(whole)) {
			t.Errorf("%q is cut into %d members, %v; it has %d", text, members, err, len(whole))
		}
	})
}
