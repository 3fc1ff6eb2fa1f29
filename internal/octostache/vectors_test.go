package octostache_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/takodeploy/tako/internal/octostache"
	"github.com/takodeploy/tako/internal/vectortest"
)

// vector is a template and what it should give. Most were collected from the
// tests of the original implementation, some from reading its source.
type vector struct {
	ID        string          `json:"id"`
	Feature   string          `json:"feature"`
	Kind      string          `json:"kind"`
	Template  string          `json:"template"`
	Name      string          `json:"name"`
	Default   bool            `json:"default"`
	Variables orderedPairs    `json:"variables"`
	Expected  json.RawMessage `json:"expected"`

	ExpectedOneOf       []string `json:"expected_one_of"`
	ExpectedSet         []string `json:"expected_set"`
	ExpectedContains    []string `json:"expected_contains"`
	ExpectedNotContains []string `json:"expected_not_contains"`

	Error       *bool    `json:"error"`
	ErrorText   string   `json:"error_text"`
	Throws      string   `json:"throws"`
	HaltOnError *bool    `json:"halt_on_error"`
	Normalize   []string `json:"normalize"`
}

// orderedPairs reads a JSON object without losing the order of its members.
type orderedPairs []octostache.Pair

func (o *orderedPairs) UnmarshalJSON(b []byte) error {
	dec := json.NewDecoder(bytes.NewReader(b))
	if _, err := dec.Token(); err != nil {
		return err
	}
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return err
		}
		var value *string
		if err := dec.Decode(&value); err != nil {
			return fmt.Errorf("value of %v: %w", name, err)
		}
		p := octostache.Pair{Name: name.(string), Null: value == nil}
		if value != nil {
			p.Value = *value
		}
		*o = append(*o, p)
	}
	return nil
}

// deviations are the vectors that are answered differently on purpose, with the reason.
func deviations() map[string]string {
	return map[string]string{}
}

func testOptions() octostache.Options {
	return octostache.Options{Now: time.Date(2030, 5, 22, 9, 5, 0, 123_456_700, time.UTC)}
}

func TestVectors(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile(filepath.Join("testdata", "octostache.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors []vector
	if err := json.Unmarshal(raw, &vectors); err != nil {
		t.Fatal(err)
	}
	apart := deviations()
	counts := vectortest.New()
	t.Cleanup(func() { counts.Report(t, "octostache.json") })
	for _, v := range vectors {
		if reason, ok := apart[v.ID]; ok {
			counts.OnPurpose(v.ID + ": " + reason)
		}
		t.Run(v.ID, func(t *testing.T) {
			t.Parallel()
			diff := v.check()
			reason, expected := apart[v.ID]
			if !expected {
				counts.Count(t, v.Feature)
			}
			switch {
			case expected && diff == "":
				t.Errorf("is answered as expected, so it is no deviation: %s", reason)
			case !expected && diff != "":
				t.Errorf("%s of %q with %v:\n%s", v.Kind, v.Template, []octostache.Pair(v.Variables), diff)
			}
		})
	}
}

// check returns what is wrong with the answer to a vector.
func (v *vector) check() string {
	vars := octostache.NewVariables(testOptions(), v.Variables...)
	switch v.Kind {
	case "evaluate":
		return v.checkEvaluate(vars)
	case "truthy":
		return v.is(vars.EvaluateTruthy(v.Template))
	case "get":
		s, ok := vars.Get(v.Name)
		return v.isText(s, ok)
	case "getraw":
		s, ok := vars.GetRaw(v.Name)
		return v.isText(s, ok)
	case "flag":
		return v.is(vars.Flag(v.Name, v.Default))
	case "int32":
		if n, ok := vars.Int32(v.Name); ok {
			return v.is(n)
		}
		return v.is(nil)
	case "require":
		s, err := vars.Require(v.Name)
		return v.hasError(err) + v.isText(s, err == nil)
	case "yamlroundtrip":
		var doc struct {
			Key string `yaml:"Key"`
		}
		if err := yaml.Unmarshal([]byte(vars.Evaluate(v.Template).Text), &doc); err != nil {
			return err.Error()
		}
		return v.isText(strings.ReplaceAll(doc.Key, "\r\n", "\n"), true)
	case "parse":
		_, err := octostache.Parse(v.Template)
		if v.HaltOnError != nil && !*v.HaltOnError {
			octostache.ParseFile(v.Template)
			err = nil
		}
		return v.hasError(err) + v.is(err == nil)
	case "arguments", "unparse":
		tmpl, err := octostache.Parse(v.Template)
		if err != nil {
			return err.Error()
		}
		if v.Kind == "unparse" {
			return v.isText(tmpl.String(), true)
		}
		return v.isSet(tmpl.Arguments())
	case "indexes":
		got, err := vars.Indexes(v.Name)
		return v.hasError(err) + v.isSet(got)
	case "save":
		b, err := vars.SaveJSON()
		if err != nil {
			return err.Error()
		}
		var out bytes.Buffer
		if err := json.Indent(&out, b, "", "  "); err != nil {
			return err.Error()
		}
		return v.isText(out.String(), true)
	}
	return "unknown kind " + v.Kind
}

func (v *vector) checkEvaluate(vars *octostache.Variables) string {
	r := vars.Evaluate(v.Template)
	if v.HaltOnError != nil && !*v.HaltOnError {
		r = vars.EvaluateFile(v.Template)
	}
	diff := v.hasError(r.Problem())
	if v.Throws != "" { // the original has no result then
		return diff
	}
	return diff + v.isText(r.Text, !r.Null)
}

func (v *vector) hasError(err error) string {
	switch {
	case v.Error != nil && *v.Error != (err != nil):
		return fmt.Sprintf("error is %v, expected one: %v\n", err, *v.Error)
	case v.ErrorText != "" && (err == nil || err.Error() != v.ErrorText):
		return fmt.Sprintf("error is %v, expected %s\n", err, v.ErrorText)
	}
	return ""
}

func (v *vector) is(got any) string {
	var want any
	if err := json.Unmarshal(v.Expected, &want); err != nil {
		return err.Error()
	}
	if fmt.Sprint(want) != fmt.Sprint(got) {
		return fmt.Sprintf("got %v, want %v\n", got, want)
	}
	return ""
}

func (v *vector) isText(got string, ok bool) string {
	for _, edit := range v.Normalize {
		switch edit {
		case "strip-double-quotes-from-actual":
			got = strings.ReplaceAll(got, `"`, "")
		case "trim-actual":
			got = strings.TrimSpace(got)
		default:
			return "unknown edit " + edit
		}
	}
	if len(v.ExpectedOneOf) > 0 {
		if slices.Contains(v.ExpectedOneOf, got) {
			return ""
		}
		return fmt.Sprintf("got %q, want one of %q\n", got, v.ExpectedOneOf)
	}
	var want *string
	if err := json.Unmarshal(v.Expected, &want); err != nil {
		return err.Error()
	}
	if !ok {
		if want != nil {
			return fmt.Sprintf("got nothing, want %q\n", *want)
		}
		return ""
	}
	return cmp.Diff(want, &got)
}

func (v *vector) isSet(got []string) string {
	diff := ""
	if v.ExpectedSet != nil {
		diff = cmp.Diff(slices.Sorted(slices.Values(v.ExpectedSet)), slices.Sorted(slices.Values(got)))
	}
	for _, s := range v.ExpectedContains {
		if !slices.Contains(got, s) {
			diff += fmt.Sprintf("%q lacks %q\n", got, s)
		}
	}
	for _, s := range v.ExpectedNotContains {
		if slices.Contains(got, s) {
			diff += fmt.Sprintf("%q contains %q\n", got, s)
		}
	}
	return diff
}
