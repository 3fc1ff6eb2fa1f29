package structured

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// replaceProperties replaces the values of keys in a Java properties file. The
// rest of the file stays: comments, separators, continued keys, line ends.
func replaceProperties(input []byte, vars Lookup) (Result, error) {
	names := map[string]string{}
	for name := range vars.Names() {
		if folded := fold(name); !strings.HasPrefix(folded, "OCTOPUS") {
			names[folded] = name
		}
	}
	text, charset := decode(input, nil)
	r := Result{}
	var out strings.Builder
	copied := 0
	for at := 0; at < len(text); {
		e := readProperty(text, at)
		at = e.next
		name, found := names[fold(e.key)]
		if !e.isPair || !found {
			continue
		}
		value := ""
		if v := vars.Value(name); v != nil {
			value = *v
		}
		out.WriteString(text[copied:e.valueStart])
		if !e.hasSeparator {
			out.WriteByte(':')
		}
		out.WriteString(escapeProperty(value))
		copied = e.valueEnd
		r.Replaced = append(r.Replaced, name)
	}
	out.WriteString(text[copied:])
	r.Output = charset.encode(out.String())
	return r, nil
}

// property is a logical line of the file.
type property struct {
	isPair       bool   // not a comment or empty
	key          string // unescaped
	hasSeparator bool
	valueStart   int
	valueEnd     int
	next         int // where the next logical line begins
}

// lineEndAt returns the length of the line end at an offset, 0 if there is none.
func lineEndAt(text string, at int) int {
	switch {
	case strings.HasPrefix(text[at:], "\r\n"):
		return 2
	case at < len(text) && (text[at] == '\n' || text[at] == '\r'):
		return 1
	default:
		return 0
	}
}

func isPropertySpace(c byte) bool { return c == ' ' || c == '\t' || c == '\f' }

// readProperty reads the logical line that begins at an offset. A backslash
// before a line end continues it, and the white space of the next line is
// skipped.
func readProperty(text string, at int) property {
	p := property{}
	for at < len(text) && isPropertySpace(text[at]) {
		at++
	}
	if at == len(text) || lineEndAt(text, at) > 0 {
		p.next = at + max(1, lineEndAt(text, min(at, len(text))))
		return p
	}
	if text[at] == '#' || text[at] == '!' {
		for at < len(text) && lineEndAt(text, at) == 0 {
			at++
		}
		p.next = at + 1
		return p
	}
	p.isPair = true
	var key strings.Builder
	for at < len(text) && lineEndAt(text, at) == 0 {
		if n := continuation(text, at); n > 0 {
			at += n
			continue
		}
		c := text[at]
		if isPropertySpace(c) || c == '=' || c == ':' || c == '\\' && at+1 == len(text) {
			break // a backslash at the end of the file escapes nothing
		}
		if c == '\\' {
			r, n := unescapeProperty(text[at:])
			key.WriteString(r)
			at += n
			continue
		}
		key.WriteByte(c)
		at++
	}
	p.key = key.String()

	// The separator is white space around at most one = or :, continued or not.
	separator := at
	for sign := false; at < len(text) && lineEndAt(text, at) == 0; {
		if n := continuation(text, at); n > 0 {
			at += n
		} else if isPropertySpace(text[at]) {
			at++
		} else if !sign && (text[at] == '=' || text[at] == ':') {
			sign = true
			at++
		} else {
			break
		}
	}
	p.hasSeparator = at > separator
	p.valueStart = at
	for at < len(text) && lineEndAt(text, at) == 0 {
		if n := continuation(text, at); n > 0 {
			at += n
		} else if text[at] == '\\' {
			at = min(at+2, len(text))
		} else {
			at++
		}
	}
	p.valueEnd = at
	p.next = at + 1
	return p
}

// continuation returns the length of a backslash, a line end and the white
// space after it, 0 if there is none at the offset.
func continuation(text string, at int) int {
	if text[at] != '\\' || at+1 == len(text) {
		return 0
	}
	n := lineEndAt(text, at+1)
	if n == 0 {
		return 0
	}
	end := at + 1 + n
	for end < len(text) && isPropertySpace(text[end]) {
		end++
	}
	return end - at
}

// unescapeProperty reads the escape that s begins with.
func unescapeProperty(s string) (string, int) {
	if len(s) < 2 {
		return "", len(s)
	}
	switch s[1] {
	case 't':
		return "\t", 2
	case 'n':
		return "\n", 2
	case 'r':
		return "\r", 2
	case 'f':
		return "\f", 2
	case 'u':
		units, n := []uint16{}, 0
		for strings.HasPrefix(s[n:], `\u`) && len(s) >= n+6 && len(units) < 2 {
			u, err := strconv.ParseUint(s[n+2:n+6], 16, 16)
			if err != nil {
				break
			}
			units, n = append(units, uint16(u)), n+6
			if !utf16.IsSurrogate(rune(u)) {
				break
			}
		}
		if n > 0 {
			return string(utf16.Decode(units)), n
		}
	}
	_, n := utf8.DecodeRuneInString(s[1:])
	return s[1 : 1+n], 1 + n
}

// escapeProperty writes a value so that Java reads it back: only a first space
// needs a backslash, and everything outside ASCII becomes \uXXXX, since older
// readers take the file for Latin-1.
func escapeProperty(value string) string {
	var b strings.Builder
	for i, r := range value {
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\f':
			b.WriteString(`\f`)
		case r == ' ' && i == 0:
			b.WriteString(`\ `)
		case r < ' ' || r > '~':
			for _, u := range utf16.Encode([]rune{r}) {
				b.WriteString(`\u` + strings.ToUpper(strconv.FormatInt(0x10000+int64(u), 16)[1:]))
			}
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
