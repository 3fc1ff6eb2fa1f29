package octostache

import (
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// mapRunes replaces characters; ok false keeps one as it is.
func mapRunes(s string, fn func(r rune, at int) (string, bool)) string {
	var b strings.Builder
	b.Grow(len(s) + len(s)/8)
	for i, r := range s {
		if to, ok := fn(r, i); ok {
			b.WriteString(to)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func htmlEscape(s string) string {
	return mapRunes(s, func(r rune, _ int) (string, bool) {
		if r == '/' {
			return "&#x2F;", true
		}
		return xmlEntity(r)
	})
}

func xmlEscape(s string) string {
	return mapRunes(s, func(r rune, _ int) (string, bool) { return xmlEntity(r) })
}

func xmlEntity(r rune) (string, bool) {
	switch r {
	case '&':
		return "&amp;", true
	case '<':
		return "&lt;", true
	case '>':
		return "&gt;", true
	case '"':
		return "&quot;", true
	case '\'':
		return "&apos;", true
	}
	return "", false
}

func jsonEscape(s string) string {
	return mapRunes(s, func(r rune, _ int) (string, bool) {
		if r == '"' {
			return `\"`, true
		}
		return lineEscape(r)
	})
}

// lineEscape escapes what keeps a value from standing on one line.
func lineEscape(r rune) (string, bool) {
	switch r {
	case '\\':
		return `\\`, true
	case '\r':
		return `\r`, true
	case '\n':
		return `\n`, true
	case '\t':
		return `\t`, true
	}
	return "", false
}

// yamlSingleQuoteEscape doubles quotes and adds a line end to each run of them:
// YAML reads one line end as a blank, two as one line end, and so on.
func yamlSingleQuoteEscape(s string) string {
	s = strings.ReplaceAll(s, "'", "''")
	var b strings.Builder
	for i := 0; i < len(s); {
		n := 0
		for {
			if rest := s[i+n:]; strings.HasPrefix(rest, "\n") {
				n++
			} else if strings.HasPrefix(rest, "\r\n") {
				n += 2
			} else {
				break
			}
		}
		if n == 0 {
			b.WriteByte(s[i])
			i++
			continue
		}
		if s[i] == '\r' {
			b.WriteByte('\r')
		}
		b.WriteByte('\n')
		b.WriteString(s[i : i+n])
		i += n
	}
	return b.String()
}

func yamlDoubleQuoteEscape(s string) string {
	return mapRunes(s, func(r rune, _ int) (string, bool) {
		if to, ok := lineEscape(r); ok {
			return to, true
		}
		switch {
		case r == '"':
			return `\"`, true
		case r < 0x20 || r > 0x7E:
			return unicodeEscape(r), true
		}
		return "", false
	})
}

// unicodeEscape writes \uXXXX for each UTF-16 unit of a character.
func unicodeEscape(r rune) string {
	if r > 0xFFFF {
		high, low := utf16.EncodeRune(r)
		return string(appendHex4(appendHex4(nil, uint16(high)), uint16(low)))
	}
	return string(appendHex4(nil, uint16(r)))
}

func propertiesKeyEscape(s string) string {
	return mapRunes(s, func(r rune, _ int) (string, bool) {
		if r == ' ' || r == ':' || r == '=' {
			return `\` + string(r), true
		}
		return propertiesEscape(r)
	})
}

func propertiesValueEscape(s string) string {
	return mapRunes(s, func(r rune, at int) (string, bool) {
		if r == ' ' && at == 0 {
			return `\ `, true
		}
		return propertiesEscape(r)
	})
}

func propertiesEscape(r rune) (string, bool) {
	if r >= 0xFF { // Latin 1 but for its last character
		return unicodeEscape(r), true
	}
	return lineEscape(r)
}

// uriEscape escapes what must not be in a URI, uriDataEscape also what has a meaning there.
func uriEscape(s string) string { return percentEncode(s, "-._~:/?#[]@!$&'()*+,;=") }

func uriDataEscape(s string) string { return percentEncode(s, "-._~") }

func percentEncode(s, keep string) string {
	const digits = "0123456789ABCDEF"
	b := make([]byte, 0, len(s)+len(s)/4)
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', isDigit(c), c < utf8.RuneSelf && strings.IndexByte(keep, c) >= 0:
			b = append(b, c)
		default:
			b = append(b, '%', digits[c>>4], digits[c&15])
		}
	}
	return string(b)
}
