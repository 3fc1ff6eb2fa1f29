package octostache

import (
	"encoding/base64"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// filter is what stands behind a "|". It returns ok false when it cannot use
// its input or options, which leaves the reference in the text as missing. An
// error ends the whole evaluation.
type filter func(f *filtering) (s string, ok bool, err error)

// filtering is one use of a filter.
type filtering struct {
	e    *evaluator
	in   string
	has  bool // there is an input; "#{ | NowDate}" has none, nor has a missing variable
	opts []string
}

// lookupFilter finds a filter by name, in any case; nil if there is none.
func lookupFilter(name string) filter {
	switch fold(name) {
	case "TOLOWER":
		return plain(strings.ToLower)
	case "TOUPPER":
		return plain(strings.ToUpper)
	case "HTMLESCAPE":
		return plain(htmlEscape)
	case "XMLESCAPE":
		return plain(xmlEscape)
	case "JSONESCAPE":
		return plain(jsonEscape)
	case "YAMLSINGLEQUOTEESCAPE":
		return plain(yamlSingleQuoteEscape)
	case "YAMLDOUBLEQUOTEESCAPE":
		return plain(yamlDoubleQuoteEscape)
	case "PROPERTIESKEYESCAPE":
		return plain(propertiesKeyEscape)
	case "PROPERTIESVALUEESCAPE":
		return plain(propertiesValueEscape)
	case "URIESCAPE":
		return plain(uriEscape)
	case "URIDATAESCAPE":
		return plain(uriDataEscape)
	case "MARKDOWN", "MARKDOWNTOHTML":
		return markdownToHTML
	case "TOBASE64":
		return toBase64
	case "FROMBASE64":
		return fromBase64
	case "NOWDATE":
		return nowDate
	case "NOWDATEUTC":
		return nowDateUTC
	case "ADDSECONDS":
		return addSeconds(1)
	case "ADDMINUTES":
		return addSeconds(60)
	case "ADDHOURS":
		return addSeconds(60 * 60)
	case "ADDDAYS":
		return addSeconds(24 * 60 * 60)
	case "ADDWEEKS":
		return addSeconds(7 * 24 * 60 * 60)
	case "ADDMONTHS":
		return addMonths
	case "FORMAT":
		return format
	case "MATCH":
		return matchFilter
	case "REPLACE":
		return replaceFilter
	case "STARTSWITH":
		return compare(strings.HasPrefix)
	case "ENDSWITH":
		return compare(strings.HasSuffix)
	case "CONTAINS":
		return compare(strings.Contains)
	case "SUBSTRING":
		return substring
	case "TRUNCATE":
		return truncate
	case "TRIM":
		return trim
	case "INDENT":
		return indent
	case "URIPART":
		return uriPart
	case "APPEND":
		return appendFilter
	case "PREPEND":
		return prependFilter
	case "MD5", "SHA1", "SHA256", "SHA384", "SHA512":
		return hash(fold(name))
	case "NULL":
		return func(*filtering) (string, bool, error) { return "", false, nil }
	}
	return lookupVersionFilter(name)
}

// plain makes a filter that takes no options.
func plain(fn func(string) string) filter {
	return func(f *filtering) (string, bool, error) {
		if !f.has || len(f.opts) > 0 {
			return "", false, nil
		}
		return fn(f.in), true, nil
	}
}

// compare makes a filter that answers true or false to its only option.
func compare(fn func(s, option string) bool) filter {
	return func(f *filtering) (string, bool, error) {
		if !f.has || len(f.opts) != 1 {
			return "", false, nil
		}
		return truth(fn(f.in, f.opts[0])), true, nil
	}
}

func truth(b bool) string {
	if b {
		return "true"
	}
	return "false"
}

// encoding reads the optional name of an encoding in the options.
func (f *filtering) encoding() (string, bool) {
	if !f.has || len(f.opts) > 1 {
		return "", false
	}
	if len(f.opts) == 0 {
		return "UTF8", true
	}
	return fold(f.opts[0]), true
}

// encode turns text into bytes; UNICODE is UTF-16, little end first.
func encode(s, encoding string) ([]byte, bool) {
	switch encoding {
	case "UTF8", "UTF-8":
		return []byte(s), true
	case "UNICODE":
		b := make([]byte, 0, 2*len(s))
		for _, u := range utf16.Encode([]rune(s)) {
			b = append(b, byte(u), byte(u>>8))
		}
		return b, true
	}
	return nil, false
}

func toBase64(f *filtering) (string, bool, error) {
	enc, ok := f.encoding()
	if !ok {
		return "", false, nil
	}
	b, ok := encode(f.in, enc)
	return base64.StdEncoding.EncodeToString(b), ok, nil
}

func fromBase64(f *filtering) (string, bool, error) {
	enc, ok := f.encoding()
	if !ok {
		return "", false, nil
	}
	b, ok := decodeBase64(f.in)
	if !ok {
		return "", false, nil
	}
	switch enc {
	case "UTF8", "UTF-8":
		return strings.ToValidUTF8(string(b), "\uFFFD"), true, nil
	case "UNICODE":
		units := make([]uint16, 0, len(b)/2+1)
		for i := 0; i+1 < len(b); i += 2 {
			units = append(units, uint16(b[i])|uint16(b[i+1])<<8)
		}
		s := string(utf16.Decode(units))
		if len(b)%2 == 1 {
			s += "\uFFFD"
		}
		return s, true, nil
	}
	return "", false, nil
}

// decodeBase64 reads padded base64 with white space anywhere.
func decodeBase64(s string) ([]byte, bool) {
	s = strings.Map(func(r rune) rune {
		if isNumberSpace(r) {
			return -1
		}
		return r
	}, s)
	b, err := base64.StdEncoding.DecodeString(s)
	return b, err == nil
}

// units is a text in UTF-16 units, in which the original counts.
type units struct {
	s    string
	wide []uint16 // nil if s is ASCII, where bytes will do
}

func newUnits(s string) units {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return units{s, utf16.Encode([]rune(s))}
		}
	}
	return units{s: s}
}

func (u units) len() int {
	if u.wide != nil {
		return len(u.wide)
	}
	return len(u.s)
}

func (u units) slice(start, end int) string {
	if u.wide != nil {
		return string(utf16.Decode(u.wide[start:end]))
	}
	return u.s[start:end]
}

func substring(f *filtering) (string, bool, error) {
	if !f.has || len(f.opts) < 1 || len(f.opts) > 2 {
		return "", false, nil
	}
	var n [2]int // start and length; the start is optional
	for i, o := range f.opts {
		v, ok := parseInt32(o)
		if !ok || v < 0 {
			return "", false, nil
		}
		n[i+2-len(f.opts)] = int(v)
	}
	u := newUnits(f.in)
	start := n[0]
	if start > u.len() {
		return "", false, nil
	}
	return u.slice(start, min(start+n[1], u.len())), true, nil
}

func truncate(f *filtering) (string, bool, error) {
	if !f.has || len(f.opts) < 1 || len(f.opts) > 2 {
		return "", false, nil
	}
	n, ok := parseInt32(f.opts[0])
	if !ok || n < 0 {
		return "", false, nil
	}
	u := newUnits(f.in)
	if int(n) >= u.len() {
		return f.in, true, nil
	}
	suffix := "..."
	if len(f.opts) == 2 {
		suffix = f.opts[1]
	}
	return u.slice(0, int(n)) + suffix, true, nil
}

func trim(f *filtering) (string, bool, error) {
	switch {
	case !f.has:
		return "", false, nil
	case len(f.opts) == 0:
		return strings.TrimFunc(f.in, isSpace), true, nil
	}
	switch fold(f.opts[0]) {
	case "START":
		return strings.TrimLeftFunc(f.in, isSpace), true, nil
	case "END":
		return strings.TrimRightFunc(f.in, isSpace), true, nil
	}
	return "", false, nil
}

// indent takes no option (4 blanks), a number of blanks up to 255, first/others,
// /others, one text for every line or two texts for the first line and the others.
func indent(f *filtering) (string, bool, error) {
	if !f.has || len(f.opts) > 2 {
		return "", false, nil
	}
	if f.in == "" {
		return "", true, nil
	}
	first, others := "    ", "    "
	switch len(f.opts) {
	case 1:
		first, others = indents(f.opts[0])
	case 2:
		first, others = f.opts[0], f.opts[1]
	}
	if err := f.e.size(len(f.in) + len(first) + len(others)*strings.Count(f.in, "\n")); err != nil {
		return "", false, err
	}
	return first + strings.ReplaceAll(f.in, "\n", "\n"+others), true, nil
}

func indents(option string) (first, others string) {
	width := func(s string) (string, bool) {
		if len(s) < 1 || len(s) > 3 || strings.Trim(s, "0123456789") != "" {
			return "", false
		}
		n, _ := parseInt32(s)
		return strings.Repeat(" ", int(n)), n <= 255
	}
	a, b, two := strings.Cut(option, "/")
	if !two {
		if w, ok := width(a); ok {
			return w, w
		}
		return option, option
	}
	first, ok := width(a)
	others, ok2 := width(b)
	if (ok || a == "") && ok2 {
		return first, others
	}
	return option, option
}

func appendFilter(f *filtering) (string, bool, error) { return join(f, false) }

func prependFilter(f *filtering) (string, bool, error) { return join(f, true) }

func join(f *filtering, before bool) (string, bool, error) {
	more := strings.Join(f.opts, "")
	if before {
		return more + f.in, len(f.opts) > 0, nil
	}
	return f.in + more, len(f.opts) > 0, nil
}
