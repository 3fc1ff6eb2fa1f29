package ocl

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Parse reads a document. The error, if any, is a [*SyntaxError].
func Parse(text string) (Body, error) {
	if len(text) > MaxSize {
		return nil, &SyntaxError{Pos{1, 1}, fmt.Sprintf("the text has %d bytes; the limit is %d", len(text), MaxSize)}
	}
	text = strings.TrimPrefix(text, "\uFEFF")
	p := &parser{text: text, places: lineCounter{text: text}}
	body, err := p.body(0, false)
	if err != nil {
		return nil, err
	}
	return body, nil
}

// parser reads a text from front to back; at is a byte offset.
type parser struct {
	text   string
	at     int
	places lineCounter
}

// fail makes an error at an offset. Lines and columns are only counted then.
func (p *parser) fail(at int, format string, args ...any) error {
	return &SyntaxError{p.pos(at), fmt.Sprintf(format, args...)}
}

func (p *parser) pos(at int) Pos {
	before := p.text[:min(at, len(p.text))]
	start := strings.LastIndexByte(before, '\n') + 1
	return Pos{strings.Count(before, "\n") + 1, utf8.RuneCountInString(before[start:]) + 1}
}

// peek is the next byte, 0 at the end. A text may have a 0 byte too; no rule of
// the grammar asks for one.
func (p *parser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

func (p *parser) end() bool { return p.at >= len(p.text) }

// lineEnd is the length of the line break at the current place, 0 if there is none.
func (p *parser) lineEnd() int {
	switch rest := p.text[p.at:]; {
	case strings.HasPrefix(rest, "\n"):
		return 1
	case strings.HasPrefix(rest, "\r\n"):
		return 2
	}
	return 0
}

// blanks skips white space within a line.
func (p *parser) blanks() {
	for !p.end() && p.lineEnd() == 0 && isBlank(p.peek()) {
		p.at++
	}
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v' }

// lines skips white space and line breaks.
func (p *parser) lines() {
	for p.blanks(); p.lineEnd() > 0; p.blanks() {
		p.at += p.lineEnd()
	}
}

// endOfItem requires that nothing else stands on the line.
func (p *parser) endOfItem(what string) error {
	p.blanks()
	if n := p.lineEnd(); n > 0 {
		p.at += n
		return nil
	}
	if p.end() {
		return nil
	}
	return p.fail(p.at, "expected a new line after %s, found %s", what, p.found())
}

// found describes the next character.
func (p *parser) found() string {
	switch {
	case p.end():
		return "the end of the text"
	case p.lineEnd() > 0:
		return "the end of the line"
	}
	r, _ := utf8.DecodeRuneInString(p.text[p.at:])
	return strconv.QuoteRune(r)
}

// body reads items up to the end, or within a block up to its "}".
func (p *parser) body(depth int, block bool) (Body, error) {
	body := Body{}
	for {
		p.lines()
		switch {
		case p.end() && !block:
			return body, nil
		case p.end():
			return nil, p.fail(p.at, "a block is not closed: expected '}', found the end of the text")
		case p.peek() == '}' && block:
			p.at++
			return body, nil
		}
		item, err := p.item(depth)
		if err != nil {
			return nil, err
		}
		body = append(body, item)
	}
}

// lineCounter turns ascending offsets into places without counting from the
// start each time.
type lineCounter struct {
	text      string
	at, start int // offsets: how far it has counted, and the start of that line
	line      int // line breaks before at
}

func (c *lineCounter) pos(at int) Pos {
	for {
		i := strings.IndexByte(c.text[c.at:at], '\n')
		if i < 0 {
			break
		}
		c.line++
		c.at += i + 1
		c.start = c.at
	}
	c.at = at
	return Pos{c.line + 1, utf8.RuneCountInString(c.text[c.start:at]) + 1}
}

// item reads an attribute or a block, with its end of line.
func (p *parser) item(depth int) (Item, error) {
	start := p.at
	name := p.name()
	if name == "" {
		return Item{}, p.fail(start, "expected the name of an attribute or a block, found %s", p.found())
	}
	if strings.HasPrefix(name, "#") || strings.HasPrefix(name, "//") || strings.HasPrefix(name, "/*") {
		return Item{}, p.fail(start, "comments are not part of the language; remove the comment")
	}
	item := Item{Name: name, Pos: p.places.pos(start)}
	p.blanks()
	switch p.peek() {
	case '=':
		p.at++
		p.blanks()
		value, err := p.value(depth, true)
		if err != nil {
			return Item{}, err
		}
		item.Value = value
		return item, p.endOfItem("the value of " + name)
	case '"', '{':
		block, err := p.block(depth)
		if err != nil {
			return Item{}, err
		}
		item.Block = block
		return item, p.endOfItem("the block " + name)
	}
	return Item{}, p.fail(p.at, "expected '=', a label or '{' after %s, found %s", name, p.found())
}

// name reads up to white space or a character with a meaning of its own.
func (p *parser) name() string {
	start := p.at
	for !p.end() && p.lineEnd() == 0 && !isBlank(p.peek()) && !strings.ContainsRune(`="{}`, rune(p.peek())) {
		p.at++
	}
	return p.text[start:p.at]
}

// block reads labels and a body.
func (p *parser) block(depth int) (*Block, error) {
	b := &Block{Labels: []string{}}
	for p.peek() == '"' {
		label, err := p.quoted()
		if err != nil {
			return nil, err
		}
		b.Labels = append(b.Labels, label)
		p.blanks()
	}
	if p.peek() != '{' {
		return nil, p.fail(p.at, "expected a label or '{', found %s", p.found())
	}
	if depth >= MaxDepth {
		return nil, p.fail(p.at, "blocks are nested more than %d deep", MaxDepth)
	}
	p.at++
	p.blanks()
	if p.peek() != '}' {
		if p.lineEnd() == 0 {
			return nil, p.fail(p.at, "expected a new line or '}' after '{', found %s", p.found())
		}
	}
	var err error
	b.Body, err = p.body(depth+1, true)
	return b, err
}

// value reads a value. Here-documents and dictionaries need lines of their own,
// which a list does not have.
func (p *parser) value(depth int, multiline bool) (Value, error) {
	switch c := p.peek(); {
	case c == '"':
		s, err := p.quoted()
		return Text(s), err
	case c == '[' && multiline:
		return p.list(depth)
	case c == '{' && multiline:
		return p.dictionary(depth)
	case strings.HasPrefix(p.text[p.at:], "<<") && multiline:
		return p.heredoc()
	case c == '-' || c >= '0' && c <= '9':
		return p.number()
	}
	start := p.at
	switch word := p.word(); word {
	case "true", "false":
		return Flag(word == "true"), nil
	case "null":
		return Value{}, nil
	}
	p.at = start
	return Value{}, p.fail(p.at, "expected a value, found %s", p.found())
}

// word reads lower-case letters.
func (p *parser) word() string {
	start := p.at
	for p.peek() >= 'a' && p.peek() <= 'z' {
		p.at++
	}
	return p.text[start:p.at]
}

// number reads a whole number of 64 bits or a decimal number.
func (p *parser) number() (Value, error) {
	start := p.at
	if p.peek() == '-' {
		p.at++
	}
	digits := func() int {
		from := p.at
		for p.peek() >= '0' && p.peek() <= '9' {
			p.at++
		}
		return p.at - from
	}
	whole, fraction := digits(), -1
	if p.peek() == '.' {
		p.at++
		fraction = digits()
	}
	text := p.text[start:p.at]
	if whole == 0 || fraction == 0 {
		return Value{}, p.fail(p.at, "expected a digit in a number, found %s", p.found())
	}
	if fraction > 0 {
		return Value{Kind: Decimal, Text: text}, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return Value{}, p.fail(start, "the number %.40s is too large for 64 bits", text)
	}
	return Number(n), nil
}

// quoted reads a string in quotes, which ends on its line.
func (p *parser) quoted() (string, error) {
	start := p.at
	p.at++
	var b strings.Builder
	for {
		i := strings.IndexAny(p.text[p.at:], "\"\\\n")
		if i < 0 {
			p.at = len(p.text)
			return "", p.fail(p.at, "a string is not closed: expected '\"' before the end of the text")
		}
		b.WriteString(p.text[p.at : p.at+i])
		p.at += i
		switch p.peek() {
		case '"':
			p.at++
			return b.String(), nil
		case '\n':
			if strings.HasSuffix(p.text[start:p.at], "\r") {
				p.at--
			}
			return "", p.fail(p.at, "a string is not closed: expected '\"' before the end of the line; for several lines use <<-EOT")
		}
		escape := p.text[p.at:min(p.at+2, len(p.text))]
		switch escape {
		case `\n`:
			b.WriteByte('\n')
		case `\r`:
			b.WriteByte('\r')
		case `\t`:
			b.WriteByte('\t')
		case `\"`:
			b.WriteByte('"')
		case `\\`:
			b.WriteByte('\\')
		default:
			r, _ := utf8.DecodeRuneInString(p.text[min(p.at+1, len(p.text)):])
			return "", p.fail(p.at, "Unrecognised character escape: \\%c; known are \\n \\r \\t \\\" \\\\", r)
		}
		p.at += 2
	}
}

// list reads [a, b]. Its items are of one kind, so that whoever reads it need
// not guess; whole and decimal numbers may be mixed.
func (p *parser) list(depth int) (Value, error) {
	list := Value{Kind: List, List: []Value{}}
	p.at++
	p.lines()
	if p.peek() == ']' {
		p.at++
		return list, nil
	}
	for {
		start := p.at
		item, err := p.value(depth, false)
		if err != nil {
			return Value{}, err
		}
		if n := len(list.List); n > 0 && numeric(list.List[n-1].Kind) != numeric(item.Kind) {
			return Value{}, p.fail(start, "the items of a list must be of one kind")
		}
		list.List = append(list.List, item)
		p.lines()
		switch p.peek() {
		case ',':
			p.at++
			p.lines()
		case ']':
			p.at++
			return list, nil
		default:
			return Value{}, p.fail(p.at, "expected ',' or ']' in a list, found %s", p.found())
		}
	}
}

// numeric makes whole and decimal numbers one kind.
func numeric(k Kind) Kind {
	if k == Decimal {
		return Int
	}
	return k
}

// dictionary reads { and lines of key = value up to }.
func (p *parser) dictionary(depth int) (Value, error) {
	if depth >= MaxDepth {
		return Value{}, p.fail(p.at, "dictionaries are nested more than %d deep", MaxDepth)
	}
	dict := Value{Kind: Map, Map: []Entry{}}
	known := map[string]struct{}{}
	p.at++
	p.blanks()
	if p.peek() != '}' && p.lineEnd() == 0 {
		return Value{}, p.fail(p.at, "expected a new line or '}' after '{', found %s", p.found())
	}
	for {
		p.lines()
		if p.peek() == '}' {
			p.at++
			return dict, nil
		}
		start := p.at
		key, err := p.key()
		if err != nil {
			return Value{}, err
		}
		if _, twice := known[key]; twice {
			return Value{}, p.fail(start, "the key %q is there twice", key)
		}
		known[key] = struct{}{}
		p.blanks()
		if p.peek() != '=' {
			return Value{}, p.fail(p.at, "expected '=' after the key %q, found %s", key, p.found())
		}
		p.at++
		p.blanks()
		value, err := p.value(depth+1, true)
		if err != nil {
			return Value{}, err
		}
		dict.Map = append(dict.Map, Entry{key, value})
		if err := p.endOfItem("the value of " + strconv.Quote(key)); err != nil {
			return Value{}, err
		}
	}
}

// key reads the key of a dictionary: a string, or characters without white space.
func (p *parser) key() (string, error) {
	if p.peek() == '"' {
		return p.quoted()
	}
	start := p.at
	for !p.end() && p.lineEnd() == 0 && !isBlank(p.peek()) && p.peek() != '=' && p.peek() != '"' {
		p.at++
	}
	if p.at == start {
		return "", p.fail(p.at, "expected a key or '}' in a dictionary, found %s", p.found())
	}
	return p.text[start:p.at], nil
}
