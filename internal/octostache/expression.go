package octostache

import "strings"

// The functions below read one construct at position i. They return where it
// ends and true, or where reading stopped and false; the stopping position
// decides how much text stays literal when errors are skipped.

// maxBrackets bounds brackets inside brackets and parentheses inside parentheses.
const maxBrackets = 64

// maxChain bounds filters and arithmetic operations in a row.
const maxChain = 1000

// name reads an identifier. With spaces allowed, white space is part of it,
// except before "|", "}" and before the words in, == and !=.
func (p *parser) name(i int, spaces bool) (string, int, bool) {
	start := i
	for i < len(p.src) {
		n, space := nameChar(p.src, i)
		if n == 0 || space && (!spaces || p.endsName(i+n)) {
			break
		}
		i += n
	}
	s := strings.TrimFunc(p.src[start:i], isSpace)
	if s == "" {
		p.expect(i, "a name")
		return "", i, false
	}
	return s, i, true
}

// endsName tells whether white space just before i is not part of a name.
func (p *parser) endsName(i int) bool {
	if i >= len(p.src) {
		return false
	}
	switch p.src[i] {
	case '|', '}':
		return true
	case 'i', '=', '!':
		for _, word := range [...]string{"in", "==", "!="} {
			if strings.HasPrefix(p.src[i:], word) && spaceAt(p.src, i+len(word)) > 0 {
				return true
			}
		}
	}
	return false
}

// symbol reads a reference.
func (p *parser) symbol(i int) (*symbol, int, bool) {
	first, end, ok := p.name(i, true)
	if !ok {
		return nil, end, false
	}
	s := &symbol{pos: i, steps: make([]step, 1, 4)}
	s.steps[0] = step{kind: nameStep, text: first, key: fold(first)}
	for end < len(p.src) {
		switch p.src[end] {
		case '.':
			n, e, ok := p.name(end+1, true)
			if !ok {
				return s, end, true
			}
			s.steps = append(s.steps, step{kind: nameStep, text: n, key: fold(n)})
			end = e
		case '[':
			st, e, ok := p.index(end)
			if !ok {
				return s, end, true
			}
			s.steps = append(s.steps, st)
			s.computed = s.computed || st.kind == computedStep
			end = e
		default:
			return s, end, true
		}
	}
	return s, end, true
}

// index reads [#{symbol}] or [text]; brackets inside the text must balance.
func (p *parser) index(i int) (step, int, bool) {
	if at := skipSpace(p.src, i+1); strings.HasPrefix(p.src[at:], "#{") {
		if sub, end, ok := p.substitutionAt(at); ok {
			if sym, ok := sub.expr.(*symbol); ok {
				if end = skipSpace(p.src, end); end < len(p.src) && p.src[end] == ']' {
					return step{kind: computedStep, key: fold(echo(sym)), sym: sym}, end + 1, true
				}
			}
		}
	}
	if start := skipSpace(p.src, i+1); start < len(p.src) { // the usual case, without brackets inside
		if n := strings.IndexAny(p.src[start:], "[]"); n >= 0 && p.src[start+n] == ']' {
			s := p.src[start : start+n]
			return step{kind: indexStep, text: s, key: fold(s)}, start + n + 1, true
		}
	}
	var b strings.Builder
	end, ok := p.brackets(i, &b, 0)
	if !ok {
		return step{}, end, false
	}
	s := b.String()
	s = s[1 : len(s)-1]
	return step{kind: indexStep, text: s, key: fold(s)}, end, true
}

// brackets copies a balanced [...] to b, without the white space after each "[".
func (p *parser) brackets(i int, b *strings.Builder, depth int) (int, bool) {
	if depth > maxBrackets {
		p.expect(i, "fewer nested brackets")
		return i, false
	}
	b.WriteByte('[')
	i = skipSpace(p.src, i+1)
	for i < len(p.src) {
		n := strings.IndexAny(p.src[i:], "[]")
		if n < 0 {
			i = len(p.src)
			break
		}
		b.WriteString(p.src[i : i+n])
		i += n
		if p.src[i] == ']' {
			b.WriteByte(']')
			return i + 1, true
		}
		end, ok := p.brackets(i, b, depth+1)
		if !ok {
			return end, false
		}
		i = end
	}
	p.expect(i, `"]"`)
	return i, false
}

// expression reads a symbol or a filter chain. White space before it must be
// skipped by the caller, and what follows may still be white space.
func (p *parser) expression(i int) (expr, int, bool) {
	var in expr
	sym, end, ok := p.symbol(i)
	after := i
	if ok {
		in, after = sym, skipSpace(p.src, end)
	} else {
		in = &symbol{pos: i}
	}
	calls := 0
	for after < len(p.src) && p.src[after] == '|' {
		c, e, chained := p.filter(after)
		if !chained {
			if calls == 0 && !ok {
				return nil, max(end, e), false
			}
			break
		}
		c.arg = in
		in, end, after = c, e, e
		if calls++; calls > maxChain {
			p.expect(e, "fewer filters in a row")
			return nil, e, false
		}
	}
	if calls == 0 && !ok {
		p.expect(after, `a name or "|"`)
		return nil, max(end, after), false
	}
	return in, end, true
}

// filter reads "| name option...".
func (p *parser) filter(i int) (*call, int, bool) {
	i = skipSpace(p.src, i+1)
	name, end, ok := p.name(i, false)
	if !ok {
		return nil, end, false
	}
	c := &call{name: name, apply: lookupFilter(name)}
	end = skipSpace(p.src, end)
	for {
		opt, e, ok := p.option(end)
		if !ok {
			return c, end, true
		}
		c.opts = append(c.opts, opt)
		end = e
	}
}

// option reads an option of a filter: a tag, a word or a quoted text. White
// space is skipped around words and quoted texts, but not around tags.
func (p *parser) option(i int) (part, int, bool) {
	if strings.HasPrefix(p.src[i:], "#{") {
		return p.tagAt(i)
	}
	at := skipSpace(p.src, i)
	s, end, ok := p.name(at, false)
	if !ok {
		s, end, ok = p.quoted(at)
	}
	if !ok {
		return nil, end, false
	}
	return &text{s}, skipSpace(p.src, end), true
}

// quoted reads "text" without quotes and # in it, or \"text\" with anything in it.
func (p *parser) quoted(i int) (string, int, bool) {
	rest := p.src[min(i, len(p.src)):]
	switch {
	case strings.HasPrefix(rest, `"`):
		n := strings.IndexAny(rest[1:], `"#`)
		if n < 0 {
			p.expect(len(p.src), `a closing "`)
			return "", len(p.src), false
		}
		if rest[1+n] == '#' {
			p.expect(i+1+n, `no # inside "..." (\"...\" may hold one)`)
			return "", i + 1 + n, false
		}
		return rest[1 : 1+n], i + n + 2, true
	case strings.HasPrefix(rest, `\"`):
		n := strings.Index(rest[2:], `\"`)
		if n < 0 {
			p.expect(len(p.src), `a closing \"`)
			return "", len(p.src), false
		}
		return rest[2 : 2+n], i + n + 4, true
	}
	p.expect(i, "a quoted text")
	return "", i, false
}

// test reads the condition of an if, with the white space around it.
func (p *parser) test(i int) (test, int, bool) {
	i = skipSpace(p.src, i)
	left, end, ok := p.expression(i)
	if !ok {
		lit, e, isText := p.quoted(i)
		if !isText {
			return test{}, max(end, e), false
		}
		equal, e, isOp := p.comparison(skipSpace(p.src, e))
		if !isOp {
			return test{}, max(end, e), false
		}
		right, e, ok := p.expression(skipSpace(p.src, e))
		if !ok {
			return test{}, max(end, e), false
		}
		t := test{left: right, op: differsText, literal: lit}
		if equal {
			t.op = equalsText
		}
		return t, skipSpace(p.src, e), true
	}
	end = skipSpace(p.src, end)
	equal, e, ok := p.comparison(end)
	if !ok {
		return test{left: left}, end, true
	}
	at := skipSpace(p.src, e)
	if right, e, ok := p.expression(at); ok {
		t := test{left: left, op: differsExpr, right: right}
		if equal {
			t.op = equalsExpr
		}
		return t, skipSpace(p.src, e), true
	}
	if lit, e, ok := p.quoted(at); ok {
		t := test{left: left, op: differsText, literal: lit}
		if equal {
			t.op = equalsText
		}
		return t, skipSpace(p.src, e), true
	}
	return test{left: left}, end, true
}

// comparison reads == or !=.
func (p *parser) comparison(i int) (equal bool, end int, ok bool) {
	switch {
	case strings.HasPrefix(p.src[i:], "=="):
		return true, i + 2, true
	case strings.HasPrefix(p.src[i:], "!="):
		return false, i + 2, true
	}
	p.expect(i, `"==", "!=" or "}"`)
	return false, i, false
}

// sum reads a calculation: terms joined by + and -.
func (p *parser) sum(i, depth int) (calcExpr, int, bool) {
	return p.chain(i, depth, "+-", p.product)
}

func (p *parser) product(i, depth int) (calcExpr, int, bool) {
	return p.chain(i, depth, "*/", p.factor)
}

// chain reads operands joined by operators that bind to the left.
func (p *parser) chain(i, depth int, ops string, operand func(i, depth int) (calcExpr, int, bool)) (calcExpr, int, bool) {
	left, end, ok := operand(i, depth)
	if !ok {
		return nil, end, false
	}
	for n := 0; ; n++ {
		at := skipSpace(p.src, end)
		if at >= len(p.src) || strings.IndexByte(ops, p.src[at]) < 0 || n == maxChain {
			return left, end, true
		}
		right, e, ok := operand(skipSpace(p.src, at+1), depth)
		if !ok {
			return left, end, true
		}
		left, end = &calcBinary{left: left, right: right, op: p.src[at]}, e
	}
}

// factor reads a number, a name, a {name} or (a calculation).
func (p *parser) factor(i, depth int) (calcExpr, int, bool) {
	if i >= len(p.src) {
		p.expect(i, "a number or a name")
		return nil, i, false
	}
	switch c := p.src[i]; {
	case c == '(':
		if depth >= maxBrackets {
			p.expect(i, "fewer nested parentheses")
			return nil, i, false
		}
		x, end, ok := p.sum(i+1, depth+1)
		if !ok {
			return nil, end, false
		}
		if end >= len(p.src) || p.src[end] != ')' {
			p.expect(end, `")"`)
			return nil, end, false
		}
		return x, end + 1, true
	case c == '{':
		sym, end, ok := p.symbol(skipSpace(p.src, i+1))
		if !ok {
			return nil, end, false
		}
		end = skipSpace(p.src, end)
		if end >= len(p.src) || p.src[end] != '}' {
			p.expect(end, `"}"`)
			return nil, end, false
		}
		return &calcSymbol{sym}, end + 1, true
	case '0' <= c && c <= '9', c == '.':
		return p.number(i)
	}
	sym, end, ok := p.symbol(skipSpace(p.src, i))
	if !ok {
		return nil, end, false
	}
	return &calcSymbol{sym}, skipSpace(p.src, end), true
}

// number reads digits, with a fraction or without.
func (p *parser) number(i int) (calcExpr, int, bool) {
	digits := func(j int) int {
		for j < len(p.src) && '0' <= p.src[j] && p.src[j] <= '9' {
			j++
		}
		return j
	}
	end := digits(i)
	if end < len(p.src) && p.src[end] == '.' {
		e := digits(end + 1)
		if e == end+1 {
			p.expect(e, "a digit")
			return nil, e, false
		}
		end = e
	}
	v, ok := parseDouble(p.src[i:end])
	if !ok {
		return nil, i, false
	}
	return calcNumber(v), end, true
}
