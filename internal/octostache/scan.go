package octostache

import (
	"unicode"
	"unicode/utf8"
)

// fold makes names comparable without regard to case: each letter becomes its
// simple upper case form, as in .NET's ordinal comparison, which leaves the
// dotless i and the long s alone.
func fold(s string) string {
	for i := range len(s) {
		if c := s[i]; c >= utf8.RuneSelf || 'a' <= c && c <= 'z' {
			return foldFrom(s, i)
		}
	}
	return s
}

func foldFrom(s string, i int) string {
	b := make([]byte, i, len(s)+8)
	copy(b, s)
	for ; i < len(s); i++ {
		c := s[i]
		if c >= utf8.RuneSelf {
			for _, r := range s[i:] {
				if r != 'ı' && r != 'ſ' {
					r = unicode.ToUpper(r)
				}
				b = utf8.AppendRune(b, r)
			}
			break
		}
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		b = append(b, c)
	}
	return string(b)
}

// nameChar reads the character at s[i] if it may be part of a name: letters,
// digits, white space and _ - : / ~ ( ) @ ; do. It returns its size, 0 if not.
// Names are made of UTF-16 units in the original, so letters beyond them are not allowed.
func nameChar(s string, i int) (size int, space bool) {
	c := s[i]
	if c < utf8.RuneSelf {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			return 1, false
		case c == ' ', '\t' <= c && c <= '\r':
			return 1, true
		case c == '_', c == '-', c == ':', c == '/', c == '~', c == '(', c == ')', c == '@', c == ';':
			return 1, false
		}
		return 0, false
	}
	r, n := utf8.DecodeRuneInString(s[i:])
	switch {
	case r == utf8.RuneError && n == 1, r > 0xFFFF:
		return 0, false
	case unicode.IsSpace(r):
		return n, true
	case unicode.IsLetter(r), unicode.IsDigit(r):
		return n, false
	}
	return 0, false
}

// skipSpace returns the first position from i on that is no white space.
func skipSpace(s string, i int) int {
	for i < len(s) {
		n := spaceAt(s, i)
		if n == 0 {
			break
		}
		i += n
	}
	return i
}

// spaceAt returns the size of the white space character at s[i], 0 if there is none.
func spaceAt(s string, i int) int {
	if i >= len(s) {
		return 0
	}
	if c := s[i]; c < utf8.RuneSelf {
		if c == ' ' || '\t' <= c && c <= '\r' {
			return 1
		}
		return 0
	}
	if r, n := utf8.DecodeRuneInString(s[i:]); unicode.IsSpace(r) {
		return n
	}
	return 0
}

// match returns how many bytes of s[i:] agree with want; ok if all of it does.
func match(s string, i int, want string) (n int, ok bool) {
	for n < len(want) && i+n < len(s) && s[i+n] == want[n] {
		n++
	}
	return n, n == len(want)
}

// matchWord is match without regard to the case of ASCII letters; want is lower case.
func matchWord(s string, i int, want string) (n int, ok bool) {
	for n < len(want) && i+n < len(s) {
		c := s[i+n]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != want[n] {
			break
		}
		n++
	}
	return n, n == len(want)
}
