package octostache

import "strings"

// String writes the template so that parsing it again gives the same tree:
// with one blank around "|", filter options in quotes and elseif as nested ifs.
// Only templates from [Parse] come back exactly; pieces that [ParseFile] could
// not read are escaped text here.
func (t *Template) String() string {
	p := printer{exact: true}
	p.parts(t.parts, false)
	return string(p.out)
}

// printer turns a tree back into text.
type printer struct {
	out []byte
	// exact asks for text that parses to the same tree. Without it the text is
	// the one that an unresolved reference leaves behind: it drops "calc" and
	// the braces of a calculation, writes unless as an if with its branches
	// swapped, and does not escape quotes.
	exact bool
}

// echo is the text that stays in place of a part that has no value.
func echo(pt interface{ print(*printer) }) string {
	var p printer
	pt.print(&p)
	return string(p.out)
}

func (p *printer) str(s string) { p.out = append(p.out, s...) }

// parts writes a sequence; closed tells that another tag follows it at once.
func (p *printer) parts(parts []part, closed bool) {
	for i, pt := range parts {
		pt.print(p)
		if _, ok := pt.(*text); ok && p.exact && (closed || i+1 < len(parts)) && p.out[len(p.out)-1] == '#' {
			// A # directly before a tag would escape it: ###{x} is a # and then #{x}.
			p.str("#")
		}
	}
}

func (t *text) print(p *printer) { p.str(strings.ReplaceAll(t.s, "#{", "##{")) }

func (s *substitution) print(p *printer) {
	p.str("#{")
	start := len(p.out)
	s.expr.print(p)
	if rest := string(p.out[start:]); p.exact && (strings.HasPrefix(rest, "/") || strings.HasPrefix(rest, "else")) {
		// A blank keeps a name from being read as an end tag or an else.
		p.out = append(append(p.out[:start], ' '), rest...)
	}
	p.str("}")
}

func (c *condition) print(p *printer) {
	word, first, second := "if", c.then, c.otherwise
	if c.unless && p.exact {
		word, first, second = "unless", second, first
	}
	p.str("#{" + word + " ")
	c.test.print(p)
	p.str("}")
	p.parts(first, true)
	if len(second) > 0 {
		p.str("#{else}")
		p.parts(second, true)
	}
	p.str("#{/" + word + "}")
}

func (t *test) print(p *printer) {
	t.left.print(p)
	switch t.op {
	case isTruthy:
		return
	case equalsExpr, equalsText:
		p.str(" == ")
	case differsExpr, differsText:
		p.str(" != ")
	}
	if t.right != nil {
		t.right.print(p)
	} else {
		p.quoted(t.literal)
	}
	p.str(" ")
}

func (l *loop) print(p *printer) {
	p.str("#{each ")
	p.str(l.name)
	p.str(" in ")
	l.list.print(p)
	p.str("}")
	p.parts(l.body, true)
	p.str("#{/each}")
}

func (c *calculation) print(p *printer) {
	p.str("#{")
	if p.exact {
		p.str("calc ")
	}
	c.expr.print(p)
	p.str("}")
}

func (c *call) print(p *printer) {
	c.arg.print(p)
	p.str(" | ")
	p.str(c.name)
	for _, o := range c.opts {
		if t, ok := o.(*text); ok {
			p.str(" ")
			p.quoted(t.s)
			continue
		}
		// A blank between two substitutions is a syntax error, one before the first is not.
		if p.out[len(p.out)-1] != '}' || !p.exact {
			p.str(" ")
		}
		o.print(p)
	}
}

// quoted writes a literal option or operand.
func (p *printer) quoted(s string) {
	quote := `"`
	if p.exact && strings.ContainsAny(s, `"#`) {
		quote = `\"`
	} else if !p.exact {
		s = strings.ReplaceAll(s, "#{", "##{")
	}
	p.str(quote)
	p.str(s)
	p.str(quote)
}

func (s *symbol) print(p *printer) { p.steps(s.steps) }

func (p *printer) steps(steps []step) {
	for i, st := range steps {
		switch st.kind {
		case nameStep:
			if i > 0 {
				p.str(".")
			}
			p.str(st.text)
		case indexStep:
			p.str("[")
			p.str(st.text)
			p.str("]")
		case computedStep, failedStep:
			p.str("[#{")
			st.sym.print(p)
			p.str("}]")
		}
	}
}
