package octostache

import (
	"math"
	"math/big"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// The JSON in values is read as Json.NET reads it: besides strict JSON it takes
// single quotes, names without quotes, comments, trailing commas, raw line ends
// in strings, hexadecimal numbers, NaN and Infinity. Texts that look like an ISO
// date are dates. Anything behind the value makes it no JSON.

// jsonDoc is the JSON in a value; its root is nil if there is none.
type jsonDoc struct {
	root *jsonValue
}

type jsonKind uint8

const (
	jsonNull jsonKind = iota
	jsonScalar
	jsonArray
	jsonObject
)

type jsonValue struct {
	kind jsonKind
	text string // of a scalar: as template text
	code string // of a scalar: as JSON

	items []*jsonValue // of an array, or the values of an object
	names []string     // of an object
	byKey map[string]int
}

func parseJSON(s string) *jsonDoc {
	r := jsonReader{s: s}
	v, ok := r.value(0)
	if r.skip(); !ok || r.i < len(s) {
		return &jsonDoc{}
	}
	return &jsonDoc{v}
}

// property returns what a name or an index selects. A property that an object
// lacks, or an item beyond the end of an array, is an empty text. A scalar is
// its own property, whatever the name.
func (d *jsonDoc) property(name string) (*node, bool) {
	if d.root == nil {
		return nil, false
	}
	switch v := d.root; v.kind {
	case jsonScalar:
		return v.node(), true
	case jsonArray:
		i, ok := parseInt32(name)
		if !ok {
			return nil, false
		}
		if i < 0 || int(i) >= len(v.items) {
			return &node{val: newValue("")}, true
		}
		return v.items[i].node(), true
	case jsonObject:
		if i, ok := v.byKey[name]; ok {
			return v.items[i].node(), true
		}
		return &node{val: newValue("")}, true
	case jsonNull:
	}
	return nil, false
}

// items returns what a loop runs over, if the document is an array or an object.
func (d *jsonDoc) items() ([]*node, bool) {
	if d.root == nil || d.root.kind != jsonArray && d.root.kind != jsonObject {
		return nil, false
	}
	out := make([]*node, len(d.root.items))
	for i, it := range d.root.items {
		if out[i] = it.node(); d.root.kind == jsonObject {
			name := d.root.names[i]
			out[i] = &node{val: newValue(name), names: map[string]*node{
				"KEY":   {val: newValue(name)},
				"VALUE": out[i],
			}}
		}
	}
	return out, true
}

// node makes a place in the tree of variables from a value.
func (v *jsonValue) node() *node {
	switch v.kind {
	case jsonNull:
		return &node{val: newValue("")}
	case jsonScalar:
		return &node{val: newValue(v.text)}
	case jsonArray, jsonObject:
	}
	var b strings.Builder
	v.write(&b)
	val := newValue(b.String())
	val.json.Store(&jsonDoc{v})
	return &node{val: val}
}

func (v *jsonValue) write(b *strings.Builder) {
	switch v.kind {
	case jsonNull:
		b.WriteString("null")
	case jsonScalar:
		b.WriteString(v.code)
	case jsonArray, jsonObject:
		brackets := "[]"
		if v.kind == jsonObject {
			brackets = "{}"
		}
		b.WriteByte(brackets[0])
		for i, it := range v.items {
			if i > 0 {
				b.WriteByte(',')
			}
			if v.kind == jsonObject {
				b.WriteString(jsonQuote(v.names[i]))
				b.WriteByte(':')
			}
			it.write(b)
		}
		b.WriteByte(brackets[1])
	}
}

func jsonQuote(s string) string {
	b := make([]byte, 0, len(s)+2)
	b = append(b, '"')
	for _, r := range s {
		switch r {
		case '"', '\\':
			b = append(b, '\\', byte(r))
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		case '\f':
			b = append(b, `\f`...)
		case '\b':
			b = append(b, `\b`...)
		default:
			if r < ' ' || r == 0x85 || r == 0x2028 || r == 0x2029 {
				b = appendHex4(b, uint16(r))
			} else {
				b = utf8.AppendRune(b, r)
			}
		}
	}
	return string(append(b, '"'))
}

// appendHex4 writes \uXXXX with lower case digits.
func appendHex4(b []byte, u uint16) []byte {
	const digits = "0123456789abcdef"
	return append(b, '\\', 'u', digits[u>>12], digits[u>>8&15], digits[u>>4&15], digits[u&15])
}

const maxJSONDepth = 64

type jsonReader struct {
	s string
	i int
}

// skip passes white space and comments.
func (r *jsonReader) skip() {
	for {
		r.i = skipSpace(r.s, r.i)
		rest := r.s[r.i:]
		switch {
		case strings.HasPrefix(rest, "/*"):
			n := strings.Index(rest[2:], "*/")
			if n < 0 {
				return
			}
			r.i += n + 4
		case strings.HasPrefix(rest, "//"):
			n := strings.IndexAny(rest, "\r\n")
			if n < 0 {
				n = len(rest)
			}
			r.i += n
		default:
			return
		}
	}
}

func (r *jsonReader) peek() byte {
	if r.skip(); r.i < len(r.s) {
		return r.s[r.i]
	}
	return 0
}

func (r *jsonReader) value(depth int) (*jsonValue, bool) {
	if depth > maxJSONDepth {
		return nil, false
	}
	switch c := r.peek(); {
	case c == '{':
		r.i++
		return r.object(depth)
	case c == '[':
		r.i++
		return r.array(depth)
	case c == '"', c == '\'':
		s, ok := r.str()
		if !ok {
			return nil, false
		}
		if v := jsonDate(s); v != nil {
			return v, true
		}
		return &jsonValue{kind: jsonScalar, text: s, code: jsonQuote(s)}, true
	default:
		return r.word()
	}
}

func (r *jsonReader) array(depth int) (*jsonValue, bool) {
	v := &jsonValue{kind: jsonArray}
	for {
		switch r.peek() {
		case ']':
			r.i++
			return v, true
		case ',':
			v.items = append(v.items, &jsonValue{}) // [1,,2] has an undefined item
		default:
			item, ok := r.value(depth + 1)
			if !ok {
				return nil, false
			}
			v.items = append(v.items, item)
		}
		switch r.peek() {
		case ',':
			r.i++
		case ']':
		default:
			return nil, false
		}
	}
}

func (r *jsonReader) object(depth int) (*jsonValue, bool) {
	v := &jsonValue{kind: jsonObject, byKey: map[string]int{}}
	for {
		c := r.peek()
		if c == '}' {
			r.i++
			return v, true
		}
		var name string
		if c == '"' || c == '\'' {
			var ok bool
			if name, ok = r.str(); !ok {
				return nil, false
			}
		} else if name = r.bare(); name == "" {
			return nil, false
		}
		if r.peek() != ':' {
			return nil, false
		}
		r.i++
		item, ok := r.value(depth + 1)
		if !ok {
			return nil, false
		}
		if i, again := v.byKey[name]; again {
			v.items[i] = item
		} else {
			v.byKey[name] = len(v.items)
			v.names = append(v.names, name)
			v.items = append(v.items, item)
		}
		switch r.peek() {
		case ',':
			r.i++
		case '}':
		default:
			return nil, false
		}
	}
}

// bare reads a name without quotes.
func (r *jsonReader) bare() string {
	n := strings.IndexFunc(r.s[r.i:], func(c rune) bool {
		return !unicode.IsLetter(c) && !unicode.IsDigit(c) && c != '_' && c != '$'
	})
	if n < 0 {
		n = len(r.s) - r.i
	}
	s := r.s[r.i : r.i+n]
	r.i += n
	return s
}

// str reads a quoted text.
func (r *jsonReader) str() (string, bool) {
	quote := r.s[r.i]
	r.i++
	var b []byte
	for {
		n := strings.IndexAny(r.s[r.i:], "\\"+string(quote))
		if n < 0 {
			return "", false
		}
		b = append(b, r.s[r.i:r.i+n]...)
		r.i += n + 1
		if r.s[r.i-1] == quote {
			return string(b), true
		}
		if r.i >= len(r.s) {
			return "", false
		}
		c := r.s[r.i]
		r.i++
		switch c {
		case 'b':
			b = append(b, '\b')
		case 't':
			b = append(b, '\t')
		case 'n':
			b = append(b, '\n')
		case 'f':
			b = append(b, '\f')
		case 'r':
			b = append(b, '\r')
		case '\\', '"', '\'', '/':
			b = append(b, c)
		case 'u':
			u, ok := r.hex4()
			if !ok {
				return "", false
			}
			if utf16.IsSurrogate(u) && strings.HasPrefix(r.s[r.i:], `\u`) {
				at := r.i
				r.i += 2
				low, ok := r.hex4()
				if pair := utf16.DecodeRune(u, low); ok && pair != unicode.ReplacementChar {
					u = pair
				} else {
					r.i = at
				}
			}
			b = utf8.AppendRune(b, u)
		default:
			return "", false
		}
	}
}

func (r *jsonReader) hex4() (rune, bool) {
	if r.i+4 > len(r.s) {
		return 0, false
	}
	u, err := strconv.ParseUint(r.s[r.i:r.i+4], 16, 16)
	r.i += 4
	return rune(u), err == nil
}

// word reads a number or a keyword.
func (r *jsonReader) word() (*jsonValue, bool) {
	n := strings.IndexFunc(r.s[r.i:], func(c rune) bool {
		return !unicode.IsLetter(c) && !unicode.IsDigit(c) && c != '+' && c != '-' && c != '.'
	})
	if n < 0 {
		n = len(r.s) - r.i
	}
	s := r.s[r.i : r.i+n]
	r.i += n
	switch s {
	case "true":
		return &jsonValue{kind: jsonScalar, text: "True", code: s}, true
	case "false":
		return &jsonValue{kind: jsonScalar, text: "False", code: s}, true
	case "null", "undefined":
		return &jsonValue{}, true
	case "NaN", "Infinity", "-Infinity":
		return &jsonValue{kind: jsonScalar, text: s, code: jsonQuote(s)}, true
	}
	return jsonNumber(s)
}

func jsonNumber(s string) (*jsonValue, bool) {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || digits[0] != '.' && (digits[0] < '0' || digits[0] > '9') {
		return nil, false
	}
	whole := strings.IndexFunc(digits, func(c rune) bool { return c < '0' || c > '9' }) < 0
	hex := len(digits) > 2 && digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X')
	if whole || hex {
		if len(digits) > 400 {
			return nil, false
		}
		base := 10
		switch {
		case hex:
			digits, base = digits[2:], 16
		case len(digits) > 1 && digits[0] == '0':
			base = 8
		}
		n, ok := new(big.Int).SetString(digits, base)
		if !ok || digits[0] == '+' || digits[0] == '-' {
			return nil, false
		}
		if s[0] == '-' {
			n.Neg(n)
		}
		return &jsonValue{kind: jsonScalar, text: n.String(), code: n.String()}, true
	}
	f, err := strconv.ParseFloat(s, 64)
	if err != nil && !math.IsInf(f, 0) || strings.ContainsAny(s, "xXpP_nN") {
		return nil, false
	}
	v := &jsonValue{kind: jsonScalar, text: formatDouble(f)}
	if v.code = v.text; !strings.ContainsAny(v.code, ".EI") {
		v.code += ".0"
	}
	return v, true
}

// jsonDate turns an ISO date with a time into the text that such a value has: a
// date in UTC, or without zone, as MM/dd/yyyy HH:mm:ss.
func jsonDate(s string) *jsonValue {
	if len(s) < 19 || len(s) > 40 || s[10] != 'T' || s[0] < '0' || s[0] > '9' {
		return nil
	}
	zone := ""
	t, err := time.Parse("2006-01-02T15:04:05", s)
	if err != nil {
		if t, err = time.Parse("2006-01-02T15:04:05Z07:00", s); err != nil {
			return nil
		}
		zone = "+00:00"
		if strings.HasSuffix(s, "Z") {
			zone = "Z"
		}
		t = t.UTC()
	}
	return &jsonValue{
		kind: jsonScalar,
		text: t.Format("01/02/2006 15:04:05"),
		code: `"` + t.Format("2006-01-02T15:04:05.9999999") + zone + `"`,
	}
}
