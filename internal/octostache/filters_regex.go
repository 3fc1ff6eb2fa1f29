package octostache

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/dlclark/regexp2"
)

const (
	// maxRegexes bounds the compiled expressions kept during an evaluation.
	maxRegexes = 100
	// maxRegexSize bounds an expression, in bytes; a longer one is not valid.
	maxRegexSize = 8 << 10
)

// regex is a compiled expression, nil if it is not valid.
type regex = regexp2.Regexp

// regex compiles an expression in .NET's syntax, which has lookaround and back references.
func (e *evaluator) regex(expr string) *regex {
	re, ok := e.regexes[expr]
	if !ok {
		if len(expr) <= maxRegexSize {
			re, _ = regexp2.Compile(expr, regexp2.None)
		}
		if re != nil {
			re.MatchTimeout = e.opts.Limits.Regex
		}
		if len(e.regexes) >= maxRegexes || e.regexes == nil {
			e.regexes = map[string]*regex{}
		}
		e.regexes[expr] = re
	}
	return re
}

// regexError turns a time-out into the limit it is.
func (e *evaluator) regexError() error {
	return &LimitError{"Regex", e.opts.Limits.Regex.String()}
}

func matchFilter(f *filtering) (string, bool, error) {
	if !f.has || len(f.opts) != 1 {
		return "", false, nil
	}
	re := f.e.regex(f.opts[0])
	if re == nil {
		return "", false, nil
	}
	yes, err := re.MatchString(f.in)
	if err != nil {
		return "", false, f.e.regexError()
	}
	return truth(yes), true, nil
}

// replaceFilter takes an expression and a replacement, "" if there is none.
func replaceFilter(f *filtering) (string, bool, error) {
	if !f.has || len(f.opts) < 1 || len(f.opts) > 2 {
		return "", false, nil
	}
	re := f.e.regex(f.opts[0])
	if re == nil {
		return "", false, nil
	}
	var with string
	if len(f.opts) == 2 {
		with = f.opts[1]
	}
	in := []rune(f.in)
	m, err := re.FindRunesMatch(in)
	if err != nil {
		return "", false, f.e.regexError()
	}
	if m == nil {
		return f.in, true, nil
	}
	pieces := parseReplacement(re, with)
	var out []byte
	last := 0
	for m != nil && m.Index >= last {
		out = appendRunes(out, in[last:m.Index])
		for _, p := range pieces {
			out = p.appendTo(out, in, m)
			if err := f.e.size(len(out)); err != nil {
				return "", false, err
			}
		}
		last = m.Index + m.Length
		if err := f.e.charge(len(with)); err != nil {
			return "", false, err
		}
		if m, err = re.FindNextMatch(m); err != nil {
			return "", false, f.e.regexError()
		}
	}
	return string(appendRunes(out, in[last:])), true, nil
}

func appendRunes(b []byte, runes []rune) []byte {
	for _, r := range runes {
		b = utf8.AppendRune(b, r)
	}
	return b
}

// replacement is a piece of a replacement: literal text, a group by number, or
// one of the characters & ` ' + _ that stand for the match, what is before it,
// what is behind it, the last group and the whole input.
type replacement struct {
	literal string
	group   int
	special byte // 'g' for a group
}

func (p replacement) appendTo(out []byte, in []rune, m *regexp2.Match) []byte {
	switch p.special {
	case 0:
		return append(out, p.literal...)
	case 'g':
		if g := m.GroupByNumber(p.group); g != nil && len(g.Captures) > 0 {
			return appendRunes(out, g.Runes())
		}
	case '`':
		return appendRunes(out, in[:m.Index])
	case '\'':
		return appendRunes(out, in[m.Index+m.Length:])
	case '_':
		return appendRunes(out, in)
	}
	return out
}

// parseReplacement reads $1, ${1}, ${name}, $$, $&, $`, $', $+ and $_. What
// stands for nothing is literal.
func parseReplacement(re *regex, s string) []replacement {
	numbers := re.GetGroupNumbers()
	last := 0
	known := make(map[int]bool, len(numbers))
	for _, n := range numbers {
		known[n] = true
		last = max(last, n)
	}
	var out []replacement
	for s != "" {
		n := strings.IndexByte(s, '$')
		if n < 0 {
			n = len(s)
		}
		if n > 0 {
			out = append(out, replacement{literal: s[:n]})
			s = s[n:]
			continue
		}
		p, size := replacement{literal: "$"}, 1
		rest := s[1:]
		switch {
		case rest == "":
		case rest[0] == '$':
			size = 2
		case rest[0] == '&':
			p, size = replacement{special: 'g'}, 2
		case rest[0] == '+':
			p, size = replacement{special: 'g', group: last}, 2
		case strings.IndexByte("`'_", rest[0]) >= 0:
			p, size = replacement{special: rest[0]}, 2
		case isDigit(rest[0]):
			// The longest number that is a group.
			for i := 1; i <= len(rest) && i < 10 && isDigit(rest[i-1]); i++ {
				if g, _ := strconv.Atoi(rest[:i]); known[g] {
					p, size = replacement{special: 'g', group: g}, i+1
				}
			}
		case rest[0] == '{':
			if name, _, ok := strings.Cut(rest[1:], "}"); ok {
				g, err := strconv.Atoi(name)
				if err != nil {
					g = re.GroupNumberFromName(name)
				}
				if known[g] {
					p, size = replacement{special: 'g', group: g}, len(name)+3
				}
			}
		}
		out = append(out, p)
		s = s[size:]
	}
	return out
}
