package structured_test

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"iter"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/text/encoding/charmap"
	"golang.org/x/text/encoding/unicode"

	"github.com/takodeploy/tako/internal/octostache"
	"github.com/takodeploy/tako/internal/structured"
	"github.com/takodeploy/tako/internal/vectortest"
)

// variables are a case's variables, in its order.
type variables struct {
	pairs []octostache.Pair
}

func (v *variables) UnmarshalJSON(b []byte) error {
	d := json.NewDecoder(bytes.NewReader(b))
	if _, err := d.Token(); err != nil {
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var value *string
		if err := d.Decode(&value); err != nil {
			return err
		}
		p := octostache.Pair{Name: name.(string), Null: value == nil}
		if value != nil {
			p.Value = *value
		}
		v.pairs = append(v.pairs, p)
	}
	return nil
}

// lookup evaluates as a deployment does.
type lookup struct{ *octostache.Variables }

func (v variables) lookup() lookup {
	return lookup{octostache.NewVariables(octostache.Options{}, v.pairs...)}
}

func (l lookup) Names() iter.Seq[string] {
	return func(yield func(string) bool) {
		for p := range l.All() {
			if !yield(p.Name) {
				return
			}
		}
	}
}

func (l lookup) Value(name string) *string {
	if value, ok := l.Get(name); ok {
		return &value
	}
	return nil
}

func (l lookup) evaluate(text string) (string, []string) {
	r := l.EvaluateFile(text)
	return r.Text, r.Missing
}

type vector struct {
	ID, Feature, Kind, Format, Input, Description, Transform string

	InputFile         string `json:"input_file"`
	InputHex          string `json:"input_hex"`
	Variables         variables
	Expected          json.RawMessage
	ExpectedHex       string   `json:"expected_hex"`
	ExpectedEncoding  string   `json:"expected_encoding"`
	ExpectedBOM       int      `json:"expected_bom_length"`
	ExpectedNoMatches bool     `json:"expected_no_matches"`
	ExpectedXPath     string   `json:"expected_xpath"`
	ExpectedStart     string   `json:"expected_starts_with"`
	Found             []string `json:"logs_structure_found"`
	MatchCount        *int     `json:"match_count"`
	Error             bool
	ErrorContains     []string `json:"error_contains"`
	Note              string
}

// different lists the cases that Tako answers in another way on purpose, with
// the reason.
func different() map[string]string {
	return map[string]string{
		"struct-yaml.replace-021": "the reference indents the whole file anew; we leave the lines alone that nothing replaces",
	}
}

func TestVectors(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("testdata/structured.json")
	if err != nil {
		t.Fatal(err)
	}
	var cases []vector
	if err := json.Unmarshal(raw, &cases); err != nil {
		t.Fatal(err)
	}
	reasons := different()
	counts := vectortest.New()
	t.Cleanup(func() { counts.Report(t, "structured.json") })
	for _, c := range cases {
		if strings.HasPrefix(c.Kind, "service_message") {
			continue // package servicemsg
		}
		if reason, ok := reasons[c.ID]; ok {
			counts.OnPurpose(c.ID + ": " + reason)
			continue
		}
		t.Run(c.ID, func(t *testing.T) {
			t.Parallel()
			counts.Count(t, c.Feature)
			switch c.Kind {
			case "structured":
				replaceText(t, c)
			case "structured_bytes":
				replaceBytes(t, c)
			case "dotnet_config":
				dotNetConfig(t, c)
			case "substitute_in_file", "substitute_in_file_bytes", "substitute_in_file_nonsensitive":
				substitute(t, c)
			case "xdt_transform":
				r, err := structured.TransformXML("app.config", []byte(c.Input), "app.Release.config", []byte(c.Transform))
				if err != nil {
					t.Fatal(err)
				}
				same(t, c.text(t), string(r.Output))
			case "transform_locator":
				locate(t, c)
			default:
				t.Fatalf("unknown kind %q", c.Kind)
			}
		})
	}
}

func (c vector) text(t *testing.T) string {
	t.Helper()
	var s string
	if err := json.Unmarshal(c.Expected, &s); err != nil {
		t.Fatal(err)
	}
	return s
}

func same(t *testing.T, want, got string) {
	t.Helper()
	if d := cmp.Diff(strings.ReplaceAll(want, "\r\n", "\n"), strings.ReplaceAll(got, "\r\n", "\n")); d != "" {
		t.Errorf("(-want +got)\n%s\ngot:\n%s", d, got)
	}
}

func replaceText(t *testing.T, c vector) {
	t.Helper()
	const bom = "\ufeff"
	input := c.Input
	if strings.Contains(c.Note, "BOM") {
		input = bom + input
	}
	r, err := structured.Replace(structured.Format(strings.ToUpper(c.Format[:1])+c.Format[1:]), c.InputFile, []byte(input), c.Variables.lookup())
	if c.Error {
		if err == nil {
			t.Fatal("no error")
		}
		if m := regexp.MustCompile(`line \d+, column \d+`).FindString(c.Note); !strings.Contains(err.Error(), m) {
			t.Errorf("error %q does not say %q", err, m)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if c.MatchCount != nil && len(r.Replaced) != *c.MatchCount {
		t.Errorf("replaced %v, want %d", r.Replaced, *c.MatchCount)
	}
	if len(c.Found) == 2 && !slices.Contains(r.Replaced, c.Found[1]) {
		t.Errorf("replaced %v, want %s among them", r.Replaced, c.Found[1])
	}
	if c.ExpectedNoMatches && len(r.Replaced) > 0 {
		t.Errorf("replaced %v, want nothing", r.Replaced)
	}
	if len(r.Replaced) == 0 {
		// The reference writes a file anew even if nothing matches; we never touch it.
		if string(r.Output) != input {
			t.Errorf("nothing matches, but the file changed:\n%s", r.Output)
		}
		return
	}
	same(t, c.text(t), strings.TrimPrefix(string(r.Output), bom))
}

func replaceBytes(t *testing.T, c vector) {
	t.Helper()
	input, err1 := hex.DecodeString(c.InputHex)
	want, err2 := hex.DecodeString(c.ExpectedHex)
	if err1 != nil || err2 != nil {
		t.Fatal(err1, err2)
	}
	r, err := structured.Replace(structured.ByName, c.InputFile, input, c.Variables.lookup())
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Replaced) == 0 {
		want = input // as above
	}
	if !bytes.Equal(want, r.Output) {
		t.Errorf("got  %x\nwant %x", r.Output, want)
	}
}

func dotNetConfig(t *testing.T, c vector) {
	t.Helper()
	r, err := structured.ReplaceDotNetConfig(c.InputFile, []byte(c.Input), c.Variables.lookup())
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(string(r.Output), c.ExpectedStart) {
		t.Errorf("got %.60q, want it to begin with %q", r.Output, c.ExpectedStart)
	}
	if c.ExpectedXPath == "" {
		return
	}
	got, err := structured.SelectText(string(r.Output), c.ExpectedXPath)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{c.text(t)}, got); d != "" {
		t.Errorf("%s (-want +got)\n%s", c.ExpectedXPath, d)
	}
}

func substitute(t *testing.T, c vector) {
	t.Helper()
	vars := c.Variables.lookup()
	encoding, _ := vars.Get("Octopus.Action.SubstituteInFiles.OutputEncoding")
	input := []byte(c.Input)
	if c.InputHex != "" {
		var err error
		if input, err = hex.DecodeString(c.InputHex); err != nil {
			t.Fatal(err)
		}
	}
	if c.Kind == "substitute_in_file_nonsensitive" {
		_, err := structured.SubstituteStrict(c.InputFile, input, encoding, vars.evaluate)
		if err == nil {
			t.Fatal("no error")
		}
		for _, part := range c.ErrorContains {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("error %q does not say %q", err, part)
			}
		}
		return
	}
	got, _ := structured.Substitute(input, encoding, vars.evaluate)
	if c.ExpectedEncoding == "" {
		same(t, c.text(t), string(got))
		return
	}
	bom, text := map[string]string{"utf-8": "\xef\xbb\xbf", "utf-16": "\xff\xfe"}[c.ExpectedEncoding], got
	if c.ExpectedBOM == 0 {
		bom = ""
	}
	if len(bom) != c.ExpectedBOM || !strings.HasPrefix(string(got), bom) {
		t.Fatalf("got %.8x, want a byte order mark of %d bytes", got, c.ExpectedBOM)
	}
	text = text[len(bom):]
	var err error
	switch c.ExpectedEncoding {
	case "utf-8", "ascii":
	case "utf-16":
		text, err = unicode.UTF16(unicode.LittleEndian, unicode.IgnoreBOM).NewDecoder().Bytes(text)
	case "windows-1252":
		text, err = charmap.Windows1252.NewDecoder().Bytes(text)
	default:
		t.Fatalf("unknown encoding %q", c.ExpectedEncoding)
	}
	if err != nil {
		t.Fatal(err)
	}
	same(t, c.text(t), string(text))
}

// locate reads the worked example: trees of files, then "Then the transform X
// will ...".
func locate(t *testing.T, c vector) {
	t.Helper()
	var files []string
	var want []structured.TransformPair
	var expression string
	var dirs []string // of the tree that is read
	root := ""
	for line := range strings.SplitSeq(c.Description, "\n") {
		line = strings.TrimRight(line, "\r")
		if rest, ok := strings.CutPrefix(line, "Then the transform "); ok {
			if expression, ok = strings.CutSuffix(rest, " will do nothing."); !ok {
				expression, ok = strings.CutSuffix(rest, " will:")
			}
			if !ok {
				t.Fatalf("cannot read %q", line)
			}
			continue
		}
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "- Apply the transform "); ok {
			transform, target, _ := strings.Cut(rest, " to file ")
			want = append(want, structured.TransformPair{Transform: transform, Target: target})
			continue
		}
		i := strings.IndexAny(line, "├└")
		if i < 0 {
			if strings.HasSuffix(line, `:\`) {
				root, dirs = line, nil
			}
			continue
		}
		// Two columns per level: "| ├─name".
		depth := len([]rune(line[:i])) / 2
		name := strings.TrimLeft(line[i:], "├└─ ")
		dirs = append(dirs[:min(depth, len(dirs))], name)
		if strings.Contains(name, ".") {
			files = append(files, root+strings.Join(dirs, `\`))
		}
	}
	got := structured.LocateTransforms(expression, files)
	order := func(a, b structured.TransformPair) int {
		return strings.Compare(a.Target+"|"+a.Transform, b.Target+"|"+b.Transform)
	}
	slices.SortFunc(want, order)
	slices.SortFunc(got, order)
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s\nfiles %q\n(-want +got)\n%s", c.Description, files, d)
	}
}
