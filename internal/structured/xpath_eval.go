package structured

import (
	"errors"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// xpathBudget bounds how many nodes one evaluation visits.
const xpathBudget = 20_000_000

// xpathContext is where an expression is evaluated.
type xpathContext struct {
	node           *xmlNode
	position, size int
	budget         *int
}

func (c *xpathContext) spend(n int) error {
	if *c.budget -= n; *c.budget < 0 {
		return errors.New("it visits too many nodes")
	}
	return nil
}

// xpathExpr is a part of an expression. Its value is a []*xmlNode in the order
// of the document, a string, a float64 or a bool.
type xpathExpr interface {
	eval(c *xpathContext) (any, error)
}

type (
	xpathString string
	xpathNumber float64
	xpathNegate struct{ operand xpathExpr }
	xpathBinary struct {
		operator    string
		left, right xpathExpr
	}
	xpathCall struct {
		name string
		args []xpathExpr
	}
	// xpathPath is a start (the root, the context or an expression) and steps.
	xpathPath struct {
		absolute bool
		start    xpathExpr
		filters  []xpathExpr
		steps    []xpathStep
	}
	xpathStep struct {
		axis       string
		test       string // name, node, text, comment or processing-instruction
		local      string
		space      string
		anySpace   bool
		predicates []xpathExpr
	}
)

func (s xpathString) eval(*xpathContext) (any, error) { return string(s), nil }
func (n xpathNumber) eval(*xpathContext) (any, error) { return float64(n), nil }

func (n xpathNegate) eval(c *xpathContext) (any, error) {
	v, err := n.operand.eval(c)
	return -toNumber(v), err
}

func (b xpathBinary) eval(c *xpathContext) (any, error) {
	left, err := b.left.eval(c)
	if err != nil {
		return nil, err
	}
	switch b.operator {
	case "or", "and":
		if toBool(left) == (b.operator == "or") {
			return b.operator == "or", nil
		}
		right, err := b.right.eval(c)
		return toBool(right), err
	}
	right, err := b.right.eval(c)
	if err != nil {
		return nil, err
	}
	switch b.operator {
	case "+":
		return toNumber(left) + toNumber(right), nil
	case "-":
		return toNumber(left) - toNumber(right), nil
	case "*":
		return toNumber(left) * toNumber(right), nil
	case "div":
		return toNumber(left) / toNumber(right), nil
	case "mod":
		return math.Mod(toNumber(left), toNumber(right)), nil
	case "|":
		l, ok1 := left.([]*xmlNode)
		r, ok2 := right.([]*xmlNode)
		if !ok1 || !ok2 {
			return nil, errors.New("'|' joins nodes only")
		}
		return inOrder(slices.Concat(l, r)), nil
	}
	return compareXPath(c, b.operator, left, right)
}

// compareXPath compares two values; sets of nodes compare if any pair does.
func compareXPath(c *xpathContext, operator string, left, right any) (bool, error) {
	ls, lset := left.([]*xmlNode)
	rs, rset := right.([]*xmlNode)
	switch {
	case lset && rset:
		for _, l := range ls {
			if err := c.spend(len(rs)); err != nil {
				return false, err
			}
			text := l.text()
			for _, r := range rs {
				if compareValues(operator, text, r.text()) {
					return true, nil
				}
			}
		}
		return false, nil
	case lset:
		if b, ok := right.(bool); ok {
			return compareValues(operator, len(ls) > 0, b), nil
		}
		return slices.ContainsFunc(ls, func(l *xmlNode) bool { return compareValues(operator, l.text(), right) }), nil
	case rset:
		if b, ok := left.(bool); ok {
			return compareValues(operator, b, len(rs) > 0), nil
		}
		return slices.ContainsFunc(rs, func(r *xmlNode) bool { return compareValues(operator, left, r.text()) }), nil
	}
	return compareValues(operator, left, right), nil
}

func compareValues(operator string, left, right any) bool {
	switch operator {
	case "=", "eq", "!=", "ne":
		equal := false
		_, lb := left.(bool)
		_, rb := right.(bool)
		_, ln := left.(float64)
		_, rn := right.(float64)
		switch {
		case lb || rb:
			equal = toBool(left) == toBool(right)
		case ln || rn:
			equal = toNumber(left) == toNumber(right)
		default:
			equal = toString(left) == toString(right)
		}
		return equal == (operator == "=" || operator == "eq")
	}
	l, r := toNumber(left), toNumber(right)
	switch operator {
	case "<", "lt":
		return l < r
	case "<=", "le":
		return l <= r
	case ">", "gt":
		return l > r
	default:
		return l >= r
	}
}

func toBool(v any) bool {
	switch v := v.(type) {
	case bool:
		return v
	case float64:
		return v != 0 && !math.IsNaN(v)
	case string:
		return v != ""
	case []*xmlNode:
		return len(v) > 0
	}
	return false
}

func toString(v any) string {
	switch v := v.(type) {
	case bool:
		return strconv.FormatBool(v)
	case float64:
		if math.IsInf(v, 0) {
			return pick(v > 0, "Infinity", "-Infinity")
		}
		return strconv.FormatFloat(v, 'f', -1, 64)
	case string:
		return v
	case []*xmlNode:
		if len(v) > 0 {
			return v[0].text()
		}
	}
	return ""
}

func toNumber(v any) float64 {
	switch v := v.(type) {
	case bool:
		return pick(v, 1.0, 0.0)
	case float64:
		return v
	}
	return parseNumber(toString(v))
}

func parseNumber(s string) float64 {
	s = strings.Trim(s, " \t\r\n")
	if strings.Trim(s, "-0123456789.") == "" {
		if f, err := strconv.ParseFloat(s, 64); err == nil {
			return f
		}
	}
	return math.NaN()
}

func inOrder(nodes []*xmlNode) []*xmlNode {
	slices.SortFunc(nodes, func(a, b *xmlNode) int { return a.order - b.order })
	return slices.Compact(nodes)
}

func (p *xpathPath) eval(c *xpathContext) (any, error) {
	nodes := []*xmlNode{c.node}
	if p.absolute {
		for nodes[0].parent != nil {
			nodes[0] = nodes[0].parent
		}
	}
	if p.start != nil {
		v, err := p.start.eval(c)
		if err != nil {
			return nil, err
		}
		set, ok := v.([]*xmlNode)
		if !ok {
			return nil, errors.New("a path follows something that is no node")
		}
		if nodes, err = filterNodes(c, set, p.filters); err != nil {
			return nil, err
		}
	}
	for _, step := range p.steps {
		var next []*xmlNode
		for _, n := range nodes {
			found, err := step.from(c, n)
			if err != nil {
				return nil, err
			}
			next = append(next, found...)
		}
		nodes = inOrder(next)
	}
	return nodes, nil
}

// from returns what the step selects from a node, nearest first.
func (s *xpathStep) from(c *xpathContext, n *xmlNode) ([]*xmlNode, error) {
	var found []*xmlNode
	visit := func(n *xmlNode) error {
		if s.matches(n) {
			found = append(found, n)
		}
		return c.spend(1)
	}
	if err := walkAxis(s.axis, n, visit); err != nil {
		return nil, err
	}
	return filterNodes(c, found, s.predicates)
}

func filterNodes(c *xpathContext, nodes []*xmlNode, predicates []xpathExpr) ([]*xmlNode, error) {
	for _, predicate := range predicates {
		var kept []*xmlNode
		for i, n := range nodes {
			v, err := predicate.eval(&xpathContext{node: n, position: i + 1, size: len(nodes), budget: c.budget})
			if err != nil {
				return nil, err
			}
			if number, ok := v.(float64); ok && number == float64(i+1) || !ok && toBool(v) {
				kept = append(kept, n)
			}
		}
		nodes = kept
	}
	return nodes, nil
}

func (s *xpathStep) matches(n *xmlNode) bool {
	switch s.test {
	case "node":
		return n.kind != xmlDoctype && n.kind != xmlDeclaration
	case "text":
		return n.kind == xmlText || n.kind == xmlCData
	case "comment":
		return n.kind == xmlComment
	case "processing-instruction":
		return n.kind == xmlInstruction && (s.local == "" || s.local == n.name)
	}
	if principal := pick(s.axis == "attribute", xmlAttribute, xmlElement); n.kind != principal {
		return false
	}
	return (s.local == "*" || s.local == n.local()) && (s.anySpace || s.space == n.space)
}

// walkAxis visits the nodes of an axis, nearest first.
func walkAxis(axis string, n *xmlNode, visit func(*xmlNode) error) error {
	switch axis {
	case "self":
		return visit(n)
	case "parent":
		if n.parent != nil {
			return visit(n.parent)
		}
	case "attribute":
		for _, a := range n.attributes {
			if a.isNamespace() {
				continue
			}
			if err := visit(a); err != nil {
				return err
			}
		}
	case "child":
		for _, child := range n.children {
			if err := visit(child); err != nil {
				return err
			}
		}
	case "descendant", "descendant-or-self":
		return walkDown(n, axis == "descendant-or-self", visit)
	case "ancestor", "ancestor-or-self":
		if axis == "ancestor" {
			n = n.parent
		}
		for ; n != nil; n = n.parent {
			if err := visit(n); err != nil {
				return err
			}
		}
	case "following-sibling", "preceding-sibling", "following", "preceding":
		return walkBeside(axis, n, visit)
	}
	return nil
}

func walkDown(n *xmlNode, self bool, visit func(*xmlNode) error) error {
	if self {
		if err := visit(n); err != nil {
			return err
		}
	}
	for _, child := range n.children {
		if err := walkDown(child, true, visit); err != nil {
			return err
		}
	}
	return nil
}

func walkBeside(axis string, n *xmlNode, visit func(*xmlNode) error) error {
	for ; n.parent != nil; n = n.parent {
		siblings := n.parent.children
		i := slices.Index(siblings, n) // -1 for an attribute, which has none
		var beside []*xmlNode
		if strings.HasPrefix(axis, "following") {
			beside = siblings[i+1:]
		} else if i > 0 {
			beside = slices.Clone(siblings[:i])
			slices.Reverse(beside)
		}
		if n.kind == xmlAttribute && strings.HasSuffix(axis, "-sibling") {
			return nil
		}
		for _, s := range beside {
			var err error
			switch axis {
			case "following-sibling", "preceding-sibling":
				err = visit(s)
			case "following":
				err = walkDown(s, true, visit)
			default:
				var below []*xmlNode
				err = walkDown(s, true, func(n *xmlNode) error { below = append(below, n); return nil })
				for _, b := range slices.Backward(below) {
					if err == nil {
						err = visit(b)
					}
				}
			}
			if err != nil {
				return err
			}
		}
		if strings.HasSuffix(axis, "-sibling") {
			return nil
		}
	}
	return nil
}

// xpathArity returns how many arguments a function takes.
func xpathArity(name string) (least, most int, known bool) {
	switch name {
	case "last", "position", "true", "false":
		return 0, 0, true
	case "local-name", "name", "namespace-uri", "string", "number", "string-length", "normalize-space":
		return 0, 1, true
	case "count", "sum", "not", "boolean", "floor", "ceiling", "round", "lower-case", "upper-case", "exists", "empty":
		return 1, 1, true
	case "starts-with", "ends-with", "contains", "substring-before", "substring-after":
		return 2, 2, true
	case "substring":
		return 2, 3, true
	case "translate":
		return 3, 3, true
	case "concat":
		return 2, math.MaxInt, true
	}
	return 0, 0, false
}

func (f xpathCall) eval(c *xpathContext) (any, error) {
	if err := c.spend(1); err != nil {
		return nil, err
	}
	args := make([]any, len(f.args))
	for i, a := range f.args {
		var err error
		if args[i], err = a.eval(c); err != nil {
			return nil, err
		}
	}
	if len(args) == 0 {
		args = append(args, []*xmlNode{c.node})
	}
	nodes, isSet := args[0].([]*xmlNode)
	first := toString(args[0])
	second := ""
	if len(args) > 1 {
		second = toString(args[1])
	}
	switch f.name {
	case "last":
		return float64(c.size), nil
	case "position":
		return float64(c.position), nil
	case "true", "false":
		return f.name == "true", nil
	case "local-name", "name", "namespace-uri", "count", "sum":
		if !isSet {
			return nil, errors.New(f.name + " takes nodes")
		}
		return f.ofNodes(nodes), nil
	case "exists", "empty":
		return toBool(args[0]) == (f.name == "exists"), nil
	case "string":
		return first, nil
	case "number":
		return toNumber(args[0]), nil
	case "boolean":
		return toBool(args[0]), nil
	case "not":
		return !toBool(args[0]), nil
	case "floor":
		return math.Floor(toNumber(args[0])), nil
	case "ceiling":
		return math.Ceil(toNumber(args[0])), nil
	case "round":
		return math.Floor(toNumber(args[0]) + 0.5), nil
	case "string-length":
		return float64(utf8.RuneCountInString(first)), nil
	case "normalize-space":
		return strings.Join(strings.Fields(first), " "), nil
	case "lower-case":
		return strings.ToLower(first), nil
	case "upper-case":
		return strings.ToUpper(first), nil
	case "concat":
		var b strings.Builder
		for _, a := range args {
			b.WriteString(toString(a))
		}
		return b.String(), nil
	case "starts-with":
		return strings.HasPrefix(first, second), nil
	case "ends-with":
		return strings.HasSuffix(first, second), nil
	case "contains":
		return strings.Contains(first, second), nil
	case "substring-before":
		before, _, found := strings.Cut(first, second)
		return pick(found, before, ""), nil
	case "substring-after":
		_, after, _ := strings.Cut(first, second)
		return after, nil
	case "substring":
		return substring(first, args[1:]), nil
	default:
		return translate(first, second, toString(args[2])), nil
	}
}

// ofNodes evaluates the functions that take a set of nodes.
func (f xpathCall) ofNodes(nodes []*xmlNode) any {
	switch f.name {
	case "count":
		return float64(len(nodes))
	case "sum":
		total := 0.0
		for _, n := range nodes {
			total += parseNumber(n.text())
		}
		return total
	}
	if len(nodes) == 0 {
		return ""
	}
	switch f.name {
	case "name":
		return nodes[0].name
	case "local-name":
		return nodes[0].local()
	default:
		return nodes[0].space
	}
}

// substring counts characters from 1, and rounds as XPath does.
func substring(s string, args []any) string {
	from := math.Floor(toNumber(args[0]) + 0.5)
	to := math.Inf(1)
	if len(args) > 1 {
		to = from + math.Floor(toNumber(args[1])+0.5)
	}
	var b strings.Builder
	i := 1.0
	for _, r := range s {
		if i >= from && i < to {
			b.WriteRune(r)
		}
		i++
	}
	return b.String()
}

func translate(s, from, to string) string {
	source, target := []rune(from), []rune(to)
	return strings.Map(func(r rune) rune {
		i := slices.Index(source, r)
		switch {
		case i < 0:
			return r
		case i < len(target):
			return target[i]
		default:
			return -1
		}
	}, s)
}
