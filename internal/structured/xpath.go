package structured

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// maxXPath bounds an expression, in bytes, and thereby how deep it nests.
const maxXPath = 4096

// xpath is a compiled expression: XPath 1.0 without variables, with the few
// things of 2.0 that configuration uses (*:name, value comparisons, lower-case,
// upper-case, ends-with). The kept library for it was tried: it matches names
// without a prefix in any default namespace, and knows neither *:name nor the
// names of processing instructions.
type xpath struct {
	root xpathExpr
}

// compileXPath parses an expression; prefixes are those of spaces.
func compileXPath(text string, spaces map[string]string) (*xpath, error) {
	if len(text) > maxXPath || !utf8.ValidString(text) {
		return nil, errors.New("the expression is too long")
	}
	tokens, err := lexXPath(text)
	if err != nil {
		return nil, err
	}
	p := &xpathParser{tokens: tokens, spaces: spaces}
	root, err := p.binary(0)
	if err != nil {
		return nil, err
	}
	if p.at < len(tokens) {
		return nil, p.unexpected()
	}
	return &xpath{root}, nil
}

// nodes evaluates the expression from the document, and returns what it selects
// in the order of the document.
func (x *xpath) nodes(doc *xmlNode) ([]*xmlNode, error) {
	return x.nodesFrom(doc, doc)
}

// nodesFrom is nodes, from a node of the document.
func (x *xpath) nodesFrom(doc, from *xmlNode) ([]*xmlNode, error) {
	order := 0
	number(doc, &order)
	budget := xpathBudget
	v, err := x.root.eval(&xpathContext{node: from, position: 1, size: 1, budget: &budget})
	if err != nil {
		return nil, err
	}
	nodes, ok := v.([]*xmlNode)
	if !ok {
		return nil, errors.New("it selects no nodes")
	}
	return nodes, nil
}

// holds evaluates the expression as a condition on a node.
func (x *xpath) holds(node *xmlNode, position, size int) (bool, error) {
	budget := xpathBudget
	v, err := x.root.eval(&xpathContext{node: node, position: position, size: size, budget: &budget})
	if err != nil {
		return false, err
	}
	if n, ok := v.(float64); ok {
		return n == float64(position), nil
	}
	return toBool(v), nil
}

func number(n *xmlNode, order *int) {
	*order++
	n.order = *order
	for _, a := range n.attributes {
		*order++
		a.order = *order
	}
	for _, c := range n.children {
		number(c, order)
	}
}

// xpathToken is a word of an expression. Kinds: 'n' name, 's' string, 'd'
// number, 'o' operator or sign, and 'x' an operator that is spelled as a name.
type xpathToken struct {
	kind byte
	text string
}

func lexXPath(text string) ([]xpathToken, error) {
	var tokens []xpathToken
	for at := 0; at < len(text); {
		c := text[at]
		rest := text[at:]
		// After an operand, * and names are operators.
		operand := false
		if len(tokens) > 0 {
			last := tokens[len(tokens)-1]
			operand = last.kind != 'x' && (last.kind != 'o' || last.text == ")" || last.text == "]" || last.text == "." || last.text == ".." || last.text == "*")
		}
		switch {
		case strings.IndexByte(" \t\r\n", c) >= 0:
			at++
			continue
		case c == '"' || c == '\'':
			n := strings.IndexByte(rest[1:], c)
			if n < 0 {
				return nil, errors.New("a string does not end")
			}
			tokens = append(tokens, xpathToken{'s', rest[1 : 1+n]})
			at += n + 2
			continue
		case '0' <= c && c <= '9' || c == '.' && len(rest) > 1 && '0' <= rest[1] && rest[1] <= '9':
			n := len(rest) - len(strings.TrimLeft(rest, "0123456789"))
			if n < len(rest) && rest[n] == '.' {
				n++
				n += len(rest[n:]) - len(strings.TrimLeft(rest[n:], "0123456789"))
			}
			tokens = append(tokens, xpathToken{'d', rest[:n]})
			at += n
			continue
		}
		if c == '*' && operand {
			tokens = append(tokens, xpathToken{'x', "*"})
			at++
			continue
		}
		if name := xpathName(rest); name != "" {
			kind := byte('n')
			if operand && slices.Contains(xpathWords(), name) {
				kind = 'x'
			}
			tokens = append(tokens, xpathToken{kind, name})
			at += len(name)
			continue
		}
		sign := ""
		for _, s := range []string{"//", "::", "..", "!=", "<=", ">=", "/", "[", "]", "(", ")", "@", ",", ".", "|", "+", "-", "=", "<", ">"} {
			if strings.HasPrefix(rest, s) {
				sign = s
				break
			}
		}
		if sign == "" {
			return nil, fmt.Errorf("the character %q cannot stand here", []rune(rest)[0])
		}
		tokens = append(tokens, xpathToken{'o', sign})
		at += len(sign)
	}
	if len(tokens) == 0 {
		return nil, errors.New("the expression is empty")
	}
	return tokens, nil
}

func xpathWords() []string {
	return []string{"and", "or", "div", "mod", "eq", "ne", "lt", "le", "gt", "ge"}
}

// xpathName reads a name test or the name of a function or axis: a, p:a, p:*,
// *:a or *.
func xpathName(s string) string {
	part := func(s string) int {
		if strings.HasPrefix(s, "*") {
			return 1
		}
		n := nameLength(s)
		if i := strings.IndexByte(s[:n], ':'); i >= 0 {
			n = i
		}
		return n
	}
	n := part(s)
	if n > 0 && n < len(s) && s[n] == ':' && !strings.HasPrefix(s[n:], "::") {
		if m := part(s[n+1:]); m > 0 {
			return s[:n+1+m]
		}
	}
	return s[:n]
}

// xpathParser builds the tree of an expression.
type xpathParser struct {
	tokens []xpathToken
	at     int
	spaces map[string]string
}

func (p *xpathParser) peek() xpathToken {
	if p.at < len(p.tokens) {
		return p.tokens[p.at]
	}
	return xpathToken{}
}

func (p *xpathParser) accept(sign string) bool {
	if t := p.peek(); t.kind == 'o' && t.text == sign {
		p.at++
		return true
	}
	return false
}

func (p *xpathParser) unexpected() error {
	if p.at >= len(p.tokens) {
		return errors.New("the expression ends too early")
	}
	return fmt.Errorf("'%s' cannot stand there", p.peek().text)
}

// precedence of the binary operators; words and signs.
func xpathPrecedence(t xpathToken) int {
	if t.kind != 'o' && t.kind != 'x' {
		return -1
	}
	switch t.text {
	case "or":
		return 0
	case "and":
		return 1
	case "=", "!=", "eq", "ne":
		return 2
	case "<", "<=", ">", ">=", "lt", "le", "gt", "ge":
		return 3
	case "+", "-":
		return 4
	case "div", "mod":
		return 5
	case "*":
		if t.kind == 'x' {
			return 5
		}
	case "|":
		return 6
	}
	return -1
}

func (p *xpathParser) binary(lowest int) (xpathExpr, error) {
	var left xpathExpr
	var err error
	if p.accept("-") {
		if left, err = p.binary(6); err != nil {
			return nil, err
		}
		left = xpathNegate{left}
	} else if left, err = p.path(); err != nil {
		return nil, err
	}
	for {
		level := xpathPrecedence(p.peek())
		if level < lowest {
			return left, nil
		}
		operator := p.peek().text
		p.at++
		right, err := p.binary(level + 1)
		if err != nil {
			return nil, err
		}
		left = xpathBinary{operator, left, right}
	}
}

// path reads a location path, or another operand and the path after it.
func (p *xpathParser) path() (xpathExpr, error) {
	t := p.peek()
	var start xpathExpr
	next := xpathToken{}
	if p.at+1 < len(p.tokens) {
		next = p.tokens[p.at+1]
	}
	switch {
	case t.kind == 's':
		p.at++
		start = xpathString(t.text)
	case t.kind == 'd':
		p.at++
		start = xpathNumber(parseNumber(t.text))
	case t.kind == 'o' && t.text == "(":
		p.at++
		inner, err := p.binary(0)
		if err != nil {
			return nil, err
		}
		if !p.accept(")") {
			return nil, p.unexpected()
		}
		start = inner
	case t.kind == 'n' && next.kind == 'o' && next.text == "(" && !isNodeType(t.text):
		call, err := p.call()
		if err != nil {
			return nil, err
		}
		start = call
	}
	path := &xpathPath{start: start}
	if start != nil {
		filters, err := p.predicates()
		if err != nil {
			return nil, err
		}
		path.filters = filters
		if t := p.peek(); t.kind != 'o' || t.text != "/" && t.text != "//" {
			if len(filters) == 0 {
				return start, nil
			}
			return path, nil
		}
	} else if p.accept("/") {
		path.absolute = true
		if t := p.peek(); t.kind != 'n' && (t.kind != 'o' || t.text != "." && t.text != ".." && t.text != "@") {
			return path, nil
		}
	} else if p.accept("//") {
		path.absolute = true
		path.steps = append(path.steps, anyDescendant())
	}
	for first := start == nil; ; first = false {
		if !first {
			if p.accept("//") {
				path.steps = append(path.steps, anyDescendant())
			} else if !p.accept("/") {
				return path, nil
			}
		}
		step, err := p.step()
		if err != nil {
			return nil, err
		}
		path.steps = append(path.steps, step)
	}
}

func anyDescendant() xpathStep { return xpathStep{axis: "descendant-or-self", test: "node"} }

func isNodeType(name string) bool {
	return name == "node" || name == "text" || name == "comment" || name == "processing-instruction"
}

func (p *xpathParser) step() (xpathStep, error) {
	step := xpathStep{axis: "child"}
	switch {
	case p.accept("."):
		return xpathStep{axis: "self", test: "node"}, nil
	case p.accept(".."):
		return xpathStep{axis: "parent", test: "node"}, nil
	case p.accept("@"):
		step.axis = "attribute"
	case p.at+1 < len(p.tokens) && p.tokens[p.at+1] == xpathToken{'o', "::"}:
		step.axis = p.peek().text
		if !slices.Contains([]string{"child", "descendant", "descendant-or-self", "parent", "self", "attribute", "ancestor", "ancestor-or-self", "following", "following-sibling", "preceding", "preceding-sibling"}, step.axis) {
			return step, fmt.Errorf("the axis '%s' is not known", step.axis)
		}
		p.at += 2
	}
	t := p.peek()
	if t.kind != 'n' {
		return step, p.unexpected()
	}
	p.at++
	if isNodeType(t.text) && p.accept("(") {
		step.test = t.text
		if s := p.peek(); t.text == "processing-instruction" && (s.kind == 's' || s.kind == 'n') {
			step.local = s.text
			p.at++
		}
		if !p.accept(")") {
			return step, p.unexpected()
		}
	} else {
		step.test = "name"
		prefix, local, two := strings.Cut(t.text, ":")
		switch {
		case !two && prefix == "*":
			step.local, step.anySpace = "*", true
		case !two:
			step.local = prefix
		case prefix == "*":
			step.local, step.anySpace = local, true
		default:
			space, known := p.spaces[prefix]
			if !known {
				return step, fmt.Errorf("the prefix '%s' is not declared", prefix)
			}
			step.local, step.space = local, space
		}
	}
	var err error
	step.predicates, err = p.predicates()
	return step, err
}

func (p *xpathParser) predicates() ([]xpathExpr, error) {
	var list []xpathExpr
	for p.accept("[") {
		e, err := p.binary(0)
		if err != nil {
			return nil, err
		}
		if !p.accept("]") {
			return nil, p.unexpected()
		}
		list = append(list, e)
	}
	return list, nil
}

func (p *xpathParser) call() (xpathExpr, error) {
	name := p.peek().text
	p.at += 2
	call := xpathCall{name: strings.TrimPrefix(name, "fn:")}
	least, most, known := xpathArity(call.name)
	if !known {
		return nil, fmt.Errorf("the function '%s' is not known", name)
	}
	for !p.accept(")") {
		if len(call.args) > 0 && !p.accept(",") {
			return nil, p.unexpected()
		}
		arg, err := p.binary(0)
		if err != nil {
			return nil, err
		}
		call.args = append(call.args, arg)
	}
	if len(call.args) < least || len(call.args) > most {
		return nil, fmt.Errorf("the function '%s' does not take %d arguments", name, len(call.args))
	}
	return call, nil
}
