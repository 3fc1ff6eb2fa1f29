package agent

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSubstitute(t *testing.T) {
	t.Parallel()
	utf16 := func(s string) string {
		b := "\xFF\xFE"
		for _, r := range s {
			b += string([]byte{byte(r), byte(r >> 8)})
		}
		return b
	}
	dir := t.TempDir()
	for name, body := range map[string]string{
		"vars.json":      `{"Name": "Wörld", "Empty": null, "Euro": "€", "Nested": "<#{Name}>", "Chinese": "世"}`,
		"app.config":     "hello #{Nested}#{Empty}, #{Missing} and #{if Name}yes#{/if}",
		"deep/a/b.xml":   "\xEF\xBB\xBF#{Name}",
		"deep/utf16.xml": utf16("#{Name}!"),
		"latin1.txt":     "caf\xe9 #{Name}",
		"euro.txt":       "caf\xe9 #{Euro}",
		"chinese.txt":    "caf\xe9 #{Chinese}",
		"same.txt":       "no variables \xe9\x00",
		"not-matched.md": "#{Name}",
		"Bootstrap.sh":   "echo #{Name}",
	} {
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(body), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	warnings, err := substitute(t.Context(), root, Substitution{
		Globs: []string{"*.{config,txt,sh,json}", "**/*.xml", "./none/*", "app.*"}, Variables: "vars.json",
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"vars.json":  `{"Name": "Wörld", "Empty": null, "Euro": "€", "Nested": "<#{Name}>", "Chinese": "世"}`,
		"app.config": "hello <Wörld>, #{Missing} and yes", "deep": "dir", "deep/a": "dir",
		"deep/a/b.xml": "\xEF\xBB\xBFWörld", "deep/utf16.xml": utf16("Wörld!"),
		"latin1.txt": "caf\xe9 W\xf6rld", "euro.txt": "caf\xe9 \x80", "chinese.txt": "café 世", "same.txt": "no variables \xe9\x00",
		"not-matched.md": "#{Name}", "Bootstrap.sh": "echo #{Name}",
	}
	for name, body := range want {
		if body != "dir" {
			want[name] = "-rw-r----- " + body
		}
	}
	if diff := cmp.Diff(want, treeOf(t, dir)); diff != "" {
		t.Error(diff)
	}
	wantWarnings := []string{
		"No files were found that match the substitution target pattern './none/*'",
		"The following tokens were unable to be evaluated in 'app.config': '#{Missing}'",
	}
	if diff := cmp.Diff(wantWarnings, warnings); diff != "" {
		t.Error(diff)
	}
}

func TestSubstituteRefuses(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for name, body := range map[string]string{
		"vars.json": `{"A": "secret-#{B}", "B": "#{A}"}`, "bad.json": `{"A": {"secret": 1}}`, "loop.txt": "#{A}",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, c := range map[string]struct {
		ctx  context.Context
		sub  Substitution
		want string
	}{
		"loop":       {t.Context(), Substitution{[]string{"loop.txt"}, "vars.json"}, "loop.txt"},
		"variables":  {t.Context(), Substitution{[]string{"*"}, "bad.json"}, "no JSON object of strings"},
		"no file":    {t.Context(), Substitution{[]string{"*"}, "none.json"}, "none.json"},
		"outside":    {t.Context(), Substitution{[]string{"a/../../*"}, "vars.json"}, "leaves the workspace"},
		"pattern":    {t.Context(), Substitution{[]string{"[a"}, "vars.json"}, "cannot be read"},
		"braces":     {t.Context(), Substitution{[]string{strings.Repeat("{a,b}", 20)}, "vars.json"}, "alternatives"},
		"cancelling": {canceled, Substitution{[]string{"*"}, "vars.json"}, "canceled"},
	} {
		_, err := substitute(c.ctx, root, c.sub)
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestGlob(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, name string
		want          bool
	}{
		{"*.json", "a.json", true},
		{"*.json", "d/a.json", false},
		{"**/*.json", "a.json", true},
		{"**/*.json", "d/e/a.json", true},
		{"**", "d/e/a.json", true},
		{"d/**", "d/e/a", true},
		{"d/**", "e/a", false},
		{"d/**/**/a", "d/a", true},
		{"**/a/**/b", "x/a/y/a/z/b", true},
		{"**/a/**/b", "x/b/a", false},
		{`conf\*.config`, "conf/web.config", true},
		{"/conf/web.config", "conf/web.config", true},
		{"./a?c", "abc", true},
		{"[a-c]x", "bx", true},
		{"{a,b/{c,d}}.txt", "b/d.txt", true},
		{"{a,b}.txt", "c.txt", false},
		{"a}b", "a}b", true},
	} {
		g, err := parseGlob(c.pattern)
		if err != nil {
			t.Errorf("%q: %v", c.pattern, err)
		} else if got := g.match(c.name); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.name, got)
		}
	}
}

// Whatever the pattern, it is refused or matched, in bounded time.
func FuzzGlob(f *testing.F) {
	f.Add("**/*.{json,xml}", "a/b.json")
	f.Add("{{a,b},c}/**/**/x", "a/x")
	f.Add(strings.Repeat("**/a/", 50)+"b", strings.Repeat("a/", 50))
	f.Fuzz(func(t *testing.T, pattern, name string) {
		if g, err := parseGlob(pattern); err == nil {
			g.match(name)
			if len(g) > 2*maxAlternatives {
				t.Errorf("%d alternatives", len(g))
			}
		}
	})
}
