package octostache

import (
	"strconv"
	"strings"
	"unicode"
)

// versionParts is a version as release numbers have it: almost anything goes.
type versionParts struct {
	numbers  [4]int32
	release  string // everything behind the numbers
	prefix   string // of release, up to the first separator
	counter  string // of release, behind it
	metadata string // behind "+"
}

func lookupVersionFilter(name string) filter {
	number := func(i int) func(*versionParts) string {
		return func(v *versionParts) string { return strconv.Itoa(int(v.numbers[i])) }
	}
	var get func(*versionParts) string
	switch fold(name) {
	case "VERSIONMAJOR":
		get = number(0)
	case "VERSIONMINOR":
		get = number(1)
	case "VERSIONPATCH":
		get = number(2)
	case "VERSIONREVISION":
		get = number(3)
	case "VERSIONPRERELEASE":
		get = func(v *versionParts) string { return v.release }
	case "VERSIONPRERELEASEPREFIX":
		get = func(v *versionParts) string { return v.prefix }
	case "VERSIONPRERELEASECOUNTER":
		get = func(v *versionParts) string { return v.counter }
	case "VERSIONMETADATA":
		get = func(v *versionParts) string { return v.metadata }
	default:
		return nil
	}
	return func(f *filtering) (string, bool, error) {
		if !f.has {
			return "", false, nil
		}
		v, ok := parseVersion(f.in)
		if !ok {
			return "", false, nil
		}
		return get(&v), true, nil
	}
}

// parseVersion reads v1.2.3.4-prefix.counter+metadata, where every part may be
// missing. White space is allowed around the numbers, and numbers must fit in
// 32 bits.
func parseVersion(s string) (v versionParts, ok bool) {
	s = strings.TrimFunc(s, isSpace)
	if s == "" {
		return v, false
	}
	rest := s
	if rest[0] == 'v' || rest[0] == 'V' {
		rest = strings.TrimLeftFunc(rest[1:], isSpace)
	}
	for i := range v.numbers {
		if i > 0 {
			after, dot := strings.CutPrefix(rest, ".")
			if !dot {
				break
			}
			rest = strings.TrimLeftFunc(after, isSpace)
		}
		n := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
		next := strings.IndexFunc(rest[n:], func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) && r != '_' })
		if n == 0 || next != 0 && n < len(rest) { // a number ends where the word ends
			break
		}
		num, err := strconv.ParseInt(rest[:n], 10, 32)
		if err != nil {
			return v, false
		}
		v.numbers[i] = int32(num)
		rest = strings.TrimLeftFunc(rest[n:], isSpace)
		s = rest
	}
	const separators = `.-_\`
	if s != "" && strings.IndexByte(separators, s[0]) >= 0 {
		s = s[1:]
	}
	v.release, v.metadata, _ = strings.Cut(s, "+")
	v.prefix, v.counter = v.release, ""
	if i := strings.IndexAny(v.release, separators); i >= 0 {
		v.prefix, v.counter = v.release[:i], v.release[i+1:]
	}
	allowed := func(s, more string) bool {
		return strings.IndexFunc(s, func(r rune) bool {
			return r >= 0x80 || !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune(more, r)
		}) < 0
	}
	return v, allowed(v.release, separators) && allowed(v.metadata, separators+"+")
}
