package structured

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// replaceJSON replaces values by path. The file is read as leniently as the
// .NET library reads it that such files are written for: comments, single
// quotes, bare names and trailing commas are allowed (and not written again).
//
// Numbers and booleans stay such if the variable's value reads as one; an object
// or array is replaced by JSON, or left alone if the value is none; everything
// else becomes a string, and a variable without a value null. Where one path
// occurs twice ("a:b" as a name, and b within a), the last one is replaced.
func replaceJSON(input []byte, vars Lookup) (Result, error) {
	text, charset := decode(input, nil)
	r := Result{}
	find := &jsonFinder{names: pathVariables(vars), vars: vars, result: &r, last: map[string]jsonEdit{}}
	p := jsonParser{text: text, find: find}
	if err := p.document(); err != nil {
		return Result{}, err
	}
	if len(find.last) == 0 {
		return r, nil
	}
	p = jsonParser{text: text, edits: map[int]jsonEdit{}, out: &jsonWriter{newline: commonLineEnd(text)}}
	for _, e := range find.last {
		p.edits[e.offset] = e
	}
	p.out.Grow(len(text) + len(text)/4)
	if err := p.document(); err != nil {
		return Result{}, err
	}
	r.Replaced = p.applied
	r.Output = charset.encode(p.out.String())
	return r, nil
}

// jsonEdit is a value to replace.
type jsonEdit struct {
	offset int
	name   string // of the variable
	value  string // the new value as JSON
	isJSON bool   // value is an object or array to be written anew, not a token
}

// jsonFinder collects the values to replace while a document is first read.
type jsonFinder struct {
	names  paths
	vars   Lookup
	result *Result
	path   []byte
	last   map[string]jsonEdit
}

// found looks whether a variable names the current path.
func (f *jsonFinder) found(offset int, kind byte) {
	name, ok := f.names[string(f.path)]
	if !ok {
		return
	}
	edit := jsonEdit{offset: offset, name: name}
	value := f.vars.Value(name)
	switch {
	case value == nil:
		edit.value = "null"
	case kind == '{' || kind == '[':
		check := jsonParser{text: *value}
		if err := check.document(); err != nil {
			f.result.warn("The value of the variable '%s' is not valid JSON, so the object or array of that name was left as it is. (%v)", name, err)
			return
		}
		edit.value, edit.isJSON = *value, true
	default:
		edit.value = jsonToken(*value, kind)
	}
	f.last[string(f.path)] = edit
}

// jsonToken writes a value as a token of the kind if it reads as one, else as a
// string.
func jsonToken(value string, kind byte) string {
	trimmed := strings.TrimSpace(value)
	switch kind {
	case 't':
		if word := strings.ToLower(trimmed); word == "true" || word == "false" {
			return word
		}
	case '0':
		if digits := strings.TrimLeft(trimmed, "+-"); len(trimmed)-len(digits) <= 1 && digits != "" && strings.Trim(digits, "0123456789") == "" {
			digits = strings.TrimLeft(digits, "0")
			if digits == "" {
				return "0"
			}
			if trimmed[0] == '-' {
				digits = "-" + digits
			}
			return digits
		}
		whole, fraction, _ := strings.Cut(trimmed, ".")
		plain := strings.ReplaceAll(whole, ",", "") + strings.TrimPrefix(trimmed, whole)
		if strings.Trim(plain, "+-0123456789.eE") == "" && !strings.Contains(fraction, ",") && strings.ContainsAny(plain, "0123456789") {
			if f, err := strconv.ParseFloat(plain, 64); err == nil && !math.IsInf(f, 0) {
				return formatDouble(f)
			}
		}
	}
	return string(appendJSONString(nil, value))
}

// formatDouble writes a number as .NET does: the shortest digits that read back
// the same, with a decimal point, and an exponent from 1E+15 and below 1E-05.
func formatDouble(f float64) string {
	s := strconv.FormatFloat(f, 'E', -1, 64)
	exponent, _ := strconv.Atoi(s[strings.IndexByte(s, 'E')+1:])
	if exponent >= 15 || exponent < -5 {
		return s
	}
	s = strconv.FormatFloat(f, 'f', -1, 64)
	if !strings.Contains(s, ".") {
		s += ".0"
	}
	return s
}

// jsonParser reads a document once: to check it, to find values (find is set)
// or to write it anew (out is set).
type jsonParser struct {
	text    string
	at      int
	depth   int
	find    *jsonFinder
	out     *jsonWriter
	edits   map[int]jsonEdit
	applied []string
}

func (p *jsonParser) fail(reason string) error {
	line, column := position(p.text, p.at)
	return &ParseError{Format: JSON, Line: line, Column: column, Reason: reason}
}

func (p *jsonParser) document() error {
	p.skip()
	if p.at == len(p.text) {
		return p.fail("there is no value")
	}
	if err := p.value(); err != nil {
		return err
	}
	p.skip()
	if p.at < len(p.text) {
		return p.fail("there is more after the value")
	}
	return nil
}

// skip passes white space and comments.
func (p *jsonParser) skip() {
	for p.at < len(p.text) {
		rest := p.text[p.at:]
		switch {
		case strings.IndexByte(" \t\r\n", rest[0]) >= 0:
			p.at++
		case strings.HasPrefix(rest, "//"):
			if n := strings.IndexByte(rest, '\n'); n >= 0 {
				p.at += n + 1
			} else {
				p.at = len(p.text)
			}
		case strings.HasPrefix(rest, "/*") && strings.Contains(rest[2:], "*/"):
			p.at += 2 + strings.Index(rest[2:], "*/") + 2
		case strings.HasPrefix(rest, "\u00a0") || strings.HasPrefix(rest, "\ufeff"):
			_, n := utf8.DecodeRuneInString(rest)
			p.at += n
		default:
			return
		}
	}
}

// peek returns the next byte, 0 at the end.
func (p *jsonParser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *jsonParser) value() error {
	if e, ok := p.edits[p.at]; ok {
		return p.replace(e)
	}
	start := p.at
	switch c := p.peek(); c {
	case '{', '[':
		if p.find != nil && p.depth > 0 {
			p.find.found(start, c)
		}
		return p.container(c)
	case '"', '\'':
		if p.find != nil {
			p.find.found(start, '"')
		}
		s, err := p.quoted()
		if err == nil && p.out != nil {
			p.out.string(s)
		}
		return err
	default:
		word := p.word()
		kind := literalKind(word)
		if kind == 0 {
			p.at = start
			return p.fail("a value was expected")
		}
		if p.find != nil {
			p.find.found(start, kind)
		}
		if p.out != nil {
			p.out.WriteString(word)
		}
		return nil
	}
}

// replace writes the new value and passes over the old one.
func (p *jsonParser) replace(e jsonEdit) error {
	// Edits inside the value that is replaced would apply to nothing.
	out, edits := p.out, p.edits
	p.out, p.edits = nil, nil
	if err := p.value(); err != nil {
		return err
	}
	p.out, p.edits = out, edits
	p.applied = append(p.applied, e.name)
	if !e.isJSON {
		out.WriteString(e.value)
		return nil
	}
	fresh := jsonParser{text: e.value, out: out, depth: p.depth}
	return fresh.document()
}

// word reads a token without quotes.
func (p *jsonParser) word() string {
	start := p.at
	for p.at < len(p.text) && strings.IndexByte(" \t\r\n,:{}[]\"'/", p.text[p.at]) < 0 {
		p.at++
	}
	return p.text[start:p.at]
}

// literalKind tells a number ('0'), a boolean ('t') or another literal ('n');
// 0 is no literal.
func literalKind(word string) byte {
	switch word {
	case "true", "false":
		return 't'
	case "null", "undefined":
		return 'n'
	case "NaN", "Infinity", "-Infinity":
		return '0'
	}
	if word == "" || strings.Trim(word, "+-0123456789.eE") != "" {
		return 0
	}
	if _, err := strconv.ParseFloat(word, 64); err != nil && !strings.Contains(err.Error(), "range") {
		return 0
	}
	return '0'
}

// container reads an object or array.
func (p *jsonParser) container(open byte) error {
	if p.depth++; p.depth > maxDepth {
		return p.fail("it nests too deep")
	}
	defer func() { p.depth-- }()
	closing := byte('}')
	if open == '[' {
		closing = ']'
	}
	p.at++
	if p.out != nil {
		p.out.WriteByte(open)
	}
	for count := 0; ; count++ {
		p.skip()
		if p.peek() == closing {
			p.at++
			if p.out != nil {
				p.out.close(p.depth-1, closing, count)
			}
			return nil
		}
		if p.out != nil {
			p.out.item(p.depth, count)
		}
		mark := 0
		if p.find != nil {
			mark = len(p.find.path)
		}
		if err := p.member(open, count); err != nil {
			return err
		}
		if p.find != nil {
			p.find.path = p.find.path[:mark]
		}
		p.skip()
		switch p.peek() {
		case ',':
			p.at++
		case closing:
		default:
			return p.fail("a comma or the end of the " + pick(open == '{', "object", "array") + " was expected")
		}
	}
}

func pick[T any](condition bool, yes, no T) T {
	if condition {
		return yes
	}
	return no
}

// member reads a value of a container, in an object with its name.
func (p *jsonParser) member(open byte, index int) error {
	key := ""
	if open == '{' {
		var err error
		if c := p.peek(); c == '"' || c == '\'' {
			key, err = p.quoted()
		} else if key = p.word(); key == "" {
			err = p.fail("the name of a property was expected")
		}
		if err != nil {
			return err
		}
		p.skip()
		if p.peek() != ':' {
			return p.fail("a colon was expected")
		}
		p.at++
		p.skip()
		if p.out != nil {
			p.out.string(key)
			p.out.WriteString(": ")
		}
	}
	if p.find != nil {
		if len(p.find.path) > 0 {
			p.find.path = append(p.find.path, ':')
		}
		if open == '{' {
			p.find.path = appendFold(p.find.path, key)
		} else {
			p.find.path = strconv.AppendInt(p.find.path, int64(index), 10)
		}
	}
	return p.value()
}

func appendFold(b []byte, s string) []byte {
	for i := range len(s) {
		if s[i] >= utf8.RuneSelf {
			return append(b, fold(s)...)
		}
	}
	for i := range len(s) {
		c := s[i]
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		b = append(b, c)
	}
	return b
}

// quoted reads a string in either kind of quotes.
func (p *jsonParser) quoted() (string, error) {
	quote, start := p.text[p.at], p.at
	p.at++
	if n := strings.IndexByte(p.text[p.at:], quote); n >= 0 && strings.IndexByte(p.text[p.at:p.at+n], '\\') < 0 {
		s := p.text[p.at : p.at+n]
		p.at += n + 1
		return s, nil
	}
	var b []byte
	for p.at < len(p.text) {
		c := p.text[p.at]
		p.at++
		switch c {
		case quote:
			return string(b), nil
		case '\\':
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			b = utf8.AppendRune(b, r)
		default:
			b = append(b, c)
		}
	}
	p.at = start
	return "", p.fail("the string that begins here does not end")
}

// escape reads what follows a backslash.
func (p *jsonParser) escape() (rune, error) {
	c := p.peek()
	p.at++
	switch c {
	case 'b':
		return '\b', nil
	case 't':
		return '\t', nil
	case 'n':
		return '\n', nil
	case 'f':
		return '\f', nil
	case 'r':
		return '\r', nil
	case '"', '\'', '/', '\\':
		return rune(c), nil
	case 'u':
		r, ok := p.hex()
		if !ok {
			return 0, p.fail("four hexadecimal digits were expected")
		}
		if utf16.IsSurrogate(r) && strings.HasPrefix(p.text[p.at:], `\u`) {
			back := p.at
			p.at += 2
			if low, ok := p.hex(); ok {
				if full := utf16.DecodeRune(r, low); full != utf8.RuneError {
					return full, nil
				}
			}
			p.at = back
		}
		return r, nil
	}
	return 0, p.fail("the escape is not known")
}

func (p *jsonParser) hex() (rune, bool) {
	if p.at+4 > len(p.text) {
		return 0, false
	}
	n, err := strconv.ParseUint(p.text[p.at:p.at+4], 16, 16)
	p.at += 4
	return rune(n), err == nil
}

// jsonWriter writes a document with two spaces of indentation.
type jsonWriter struct {
	bytes.Buffer
	newline string
}

func (w *jsonWriter) indent(depth int) {
	w.WriteString(w.newline)
	for range depth {
		w.WriteString("  ")
	}
}

func (w *jsonWriter) item(depth, index int) {
	if index > 0 {
		w.WriteByte(',')
	}
	w.indent(depth)
}

func (w *jsonWriter) close(depth int, closing byte, count int) {
	if count > 0 {
		w.indent(depth)
	}
	w.WriteByte(closing)
}

func (w *jsonWriter) string(s string) {
	w.Write(appendJSONString(w.AvailableBuffer(), s))
}

// appendJSONString escapes what JSON, or a reader of JavaScript, demands, and
// nothing more.
func appendJSONString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\b':
			b = append(b, `\b`...)
		case r == '\t':
			b = append(b, `\t`...)
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\f':
			b = append(b, `\f`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r < ' ' || r == 0x85 || r == 0x2028 || r == 0x2029:
			b = append(b, `\u`...)
			b = append(b, strconv.FormatInt(0x10000+int64(r), 16)[1:]...)
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
