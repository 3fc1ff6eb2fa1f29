package install

import (
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzPlainName: whatever an environment or a tenant is called, its directory is one name.
func FuzzPlainName(f *testing.F) {
	for _, name := range []string{"Test", "..", "a/b", `..\..`, "", " . ", "C:", "a\x00b", "\xff\xfe", strings.Repeat("ü", 500), "con."} {
		f.Add(name)
	}
	f.Fuzz(func(t *testing.T, text string) {
		name := plainName(text)
		if name == "" || len(name) > maxName || !utf8.ValidString(name) || filepath.Base(name) != name || !filepath.IsLocal(name) || strings.ContainsAny(name, "\\/\x00:") {
			t.Errorf("%q becomes %q", text, name)
		}
		if again := plainName(name); again != name {
			t.Errorf("%q becomes %q, and that %q", text, name, again)
		}
	})
}
