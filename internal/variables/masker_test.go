package variables_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/variables"
)

func newMasker(t interface {
	Helper()
	Fatal(...any)
}, secrets ...string,
) *variables.Masker {
	t.Helper()
	m, err := variables.NewMasker(secrets...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestMask(t *testing.T) {
	t.Parallel()
	const x = variables.Redacted
	tests := map[string]struct {
		secrets []string
		text    string
		want    string
	}{
		"none":                     {nil, "hello", "hello"},
		"empty text":               {[]string{"secret"}, "", ""},
		"whole line":               {[]string{"secret"}, "secret", x},
		"within":                   {[]string{"secret"}, "a secret b", "a " + x + " b"},
		"each occurrence":          {[]string{"secret"}, "secret,secret", x + "," + x},
		"side by side":             {[]string{"secret"}, "secretsecret", x + x},
		"three characters are not": {[]string{"abc"}, "abc", "abc"},
		"four are":                 {[]string{"abcd"}, "abcde", x + "e"},
		"three wide characters":    {[]string{"äöü"}, "äöü", "äöü"},
		"four wide characters":     {[]string{"äöüß"}, "äöüß!", x + "!"},
		"the longest first":        {[]string{"pass", "password1", "word1"}, "password1 passwor word1", x + " " + x + "wor " + x},
		"overlapping":              {[]string{"abcdef", "defghi"}, "xabcdefghiy", "x" + x + "y"},
		"one inside another":       {[]string{"abcdefgh", "cdef"}, "abcdefgh abcdef", x + " ab" + x},
		"overlapping itself":       {[]string{"abab"}, "ababab", x},
		"case matters":             {[]string{"Secret"}, "secret", "secret"},
		"lines one by one":         {[]string{"first line\r\nshort\nabc\n  indented\n"}, "first line|short|abc|  indented|", x + "|" + x + "|abc|  " + x + "|"},
		"white space around it":    {[]string{" padded "}, "is padded.", "is " + x + "."},
		"white space alone":        {[]string{"      "}, "a          b", "a          b"},
		"invalid UTF-8":            {[]string{"\xff\xfe\xfd\xfc"}, "a\xff\xfe\xfd\xfcb", "a" + x + "b"},
		"a shared beginning":       {[]string{"AKIA1111", "AKIA2222"}, "AKIA1112 AKIA2222", "AKIA1112 " + x},
		"fallback to a suffix":     {[]string{"abcdX", "bcdY"}, "abcdY", "a" + x},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMasker(t, tt.secrets...)
			if got := m.Mask(tt.text); got != tt.want {
				t.Errorf("Mask(%q) = %q, want %q", tt.text, got, tt.want)
			}
			// The same, byte by byte.
			var got strings.Builder
			var c variables.Carry
			for i := range len(tt.text) {
				got.WriteString(m.Next(&c, tt.text[i:i+1], false))
			}
			got.WriteString(m.Next(&c, "", true))
			if got.String() != tt.want {
				t.Errorf("byte by byte: %q, want %q", got.String(), tt.want)
			}
			if c != (variables.Carry{}) {
				t.Errorf("the line has ended, and %+v is left", c)
			}
		})
	}
}

func TestCarryIsShort(t *testing.T) {
	t.Parallel()
	m := newMasker(t, "0123456789")
	var c variables.Carry
	if got := m.Next(&c, strings.Repeat("x", 65536)+"01234", false); got != strings.Repeat("x", 65536) {
		t.Errorf("returned %d bytes, want all but the possible start of the secret", len(got))
	}
	if c.Held != "01234" {
		t.Errorf("held %q", c.Held)
	}
	if got := m.Next(&c, "5678", false); got != "" || c.Held != "012345678" {
		t.Errorf("returned %q, held %q", got, c.Held)
	}
	if got := m.Next(&c, "! 0123456789", false); got != "012345678! "+variables.Redacted {
		t.Errorf("returned %q", got)
	}
}

func TestAddCoversLaterTextOnly(t *testing.T) {
	t.Parallel()
	m := newMasker(t)
	before := m.Mask("late-secret")
	if err := m.Add("late-secret"); err != nil {
		t.Fatal(err)
	}
	if after := m.Mask("late-secret"); before != "late-secret" || after != variables.Redacted {
		t.Errorf("before %q, after %q", before, after)
	}
	if m.Len() != 1 {
		t.Errorf("Len = %d", m.Len())
	}
}

func TestMaskerLimit(t *testing.T) {
	t.Parallel()
	m := newMasker(t, "known-secret")
	if err := m.Add("other-secret", strings.Repeat("x", variables.MaxMaskBytes)); err == nil {
		t.Error("more masks than the limit were accepted")
	}
	if got := m.Mask("known-secret other-secret"); got != variables.Redacted+" other-secret" {
		t.Errorf("after a refused Add: %q", got)
	}
}

// naiveMask is the rule written the slow way: mark every byte of every
// occurrence, then replace each run of overlapping ones.
func naiveMask(text string, secrets []string) string {
	type span struct{ from, to int }
	var spans []span
	for _, s := range secrets {
		for i := 0; i+len(s) <= len(text); i++ {
			if text[i:i+len(s)] == s {
				spans = append(spans, span{i, i + len(s)})
			}
		}
	}
	slices.SortFunc(spans, func(a, b span) int { return a.from - b.from })
	var b strings.Builder
	at := 0
	for i := 0; i < len(spans); {
		from, to := spans[i].from, spans[i].to
		for i++; i < len(spans) && spans[i].from < to; i++ {
			to = max(to, spans[i].to)
		}
		b.WriteString(text[at:from] + variables.Redacted)
		at = to
	}
	return b.String() + text[at:]
}

func TestMaskerAgainstNaive(t *testing.T) {
	t.Parallel()
	// Two letters make every kind of overlap likely.
	word := rapid.StringMatching(`[ab]{4,9}`)
	rapid.Check(t, func(t *rapid.T) {
		secrets := rapid.SliceOfN(word, 0, 8).Draw(t, "secrets")
		text := strings.Join(rapid.SliceOfN(rapid.OneOf(rapid.StringMatching(`[abc]{0,12}`), word), 0, 6).Draw(t, "text"), "")
		want := naiveMask(text, secrets)
		m := newMasker(t, secrets...)
		if got := m.Mask(text); got != want {
			t.Fatalf("Mask(%q) with %q = %q, want %q", text, secrets, got, want)
		}
		// Added one by one.
		m = newMasker(t)
		for _, s := range secrets {
			if err := m.Add(s); err != nil {
				t.Fatal(err)
			}
		}
		// In pieces, with the carry stored and read back, and a fresh masker, between.
		var got strings.Builder
		var c variables.Carry
		longest := 0
		for _, s := range secrets {
			longest = max(longest, len(s))
		}
		for rest := text; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "piece")
			got.WriteString(m.Next(&c, rest[:n], false))
			rest = rest[n:]
			if len(c.Held) >= max(longest, 1) || c.Covered > len(c.Held) {
				t.Fatalf("the carry %+v is too long", c)
			}
			data, err := json.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			c = variables.Carry{}
			if err := json.Unmarshal(data, &c); err != nil {
				t.Fatal(err)
			}
			m = newMasker(t, secrets...)
		}
		got.WriteString(m.Next(&c, "", true))
		if got.String() != want {
			t.Fatalf("in pieces: %q with %q gives %q, want %q", text, secrets, got.String(), want)
		}
	})
}

func TestMasks(t *testing.T) {
	t.Parallel()
	secret := func(name, value string, s scope) variables.Variable {
		return variables.Variable{ID: name + value, Name: name, Value: value, Sensitive: true, Scope: s}
	}
	set := variables.New(
		secret("Plain", "s3cret", scope{}),
		secret("Short", "abc", scope{}),
		secret("Elsewhere", "not-here", scope{Environment: ids{"Environments-9"}}),
		secret("Template", "user:#{Plain}", scope{}),
		secret("Broken", "#{if", scope{}),
		secret("Key", "-----BEGIN-----\nAAAA\nBBBB\n==\n", scope{}),
		variables.Variable{Name: "Public", Value: "visible"},
	)
	eval := func(text string) (string, bool) {
		if text == "user:#{Plain}" {
			return "user:s3cret", true
		}
		return "", false
	}
	want := []string{"#{if", "-----BEGIN-----", "AAAA", "BBBB", "s3cret", "user:#{Plain}", "user:s3cret"}
	if diff := cmp.Diff(want, variables.Masks(set.Resolve(here()), eval)); diff != "" {
		t.Error(diff)
	}
	if got := variables.Masks(set.Resolve(here()), nil); slices.Contains(got, "user:s3cret") || len(got) != len(want)-1 {
		t.Errorf("without evaluation: %q", got)
	}
}

// FuzzMasker looks for text that comes through, or comes out different, when it
// is cut in two.
func FuzzMasker(f *testing.F) {
	f.Add("secret\nother secret", "my secret is other secret", 5)
	f.Add("aaaa", "aaaaaaaaa", 3)
	f.Fuzz(func(t *testing.T, secrets, text string, cut int) {
		m, err := variables.NewMasker(strings.Split(secrets, "\n")...)
		if err != nil {
			return
		}
		whole := m.Mask(text)
		var c variables.Carry
		cut = min(max(cut, 0), len(text))
		pieces := m.Next(&c, text[:cut], false)
		pieces += m.Next(&c, text[cut:], true)
		if pieces != whole {
			t.Errorf("cut at %d: %q, whole: %q", cut, pieces, whole)
		}
	})
}
