package variables

import (
	"slices"
	"strings"
	"unicode/utf8"
)

// Masks lists the texts that must not appear in the log of a step with these
// values: every sensitive value, as it was written and as eval evaluates it,
// line by line, as far as they are long enough to be masked. The result is
// sorted and can be given to a [Masker]. eval may be nil; it returns false when
// a text cannot be evaluated.
//
// A plain value that quotes a secret is not secret itself, but the part of it
// that is the secret is masked.
func Masks(r Resolved, eval func(text string) (string, bool)) []string {
	var out []string
	for row := range r.each {
		if !row.Sensitive {
			continue
		}
		out = append(out, maskable(row.Value)...)
		if eval == nil || !strings.Contains(row.Value, "#{") {
			continue
		}
		if text, ok := eval(row.Value); ok {
			out = append(out, maskable(text)...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// MinMask is how many characters a text has at least to be masked. A shorter
// one would be found in half of all lines and make a log unreadable, which also
// tells the secret.
const MinMask = 4

// maskable cuts a secret into what is looked for in a log: its lines, without
// the white space around them, that are long enough. A log is masked line by
// line, so that a secret of several lines is found even if other lines come
// between.
func maskable(secret string) []string {
	var out []string
	for line := range strings.FieldsFuncSeq(secret, isBreak) {
		line = strings.TrimSpace(line)
		if utf8.RuneCountInString(line) >= MinMask {
			out = append(out, line)
		}
	}
	return out
}

func isBreak(r rune) bool { return r == '\n' || r == '\r' }
