package octostache

import "slices"

// Template is a parsed text. It is immutable and safe for concurrent use.
type Template struct {
	parts []part
}

// part is a piece of a template: *text, *substitution, *condition, *loop or *calculation.
type part interface {
	print(p *printer)
	// refer reports the names that the part needs.
	refer(add func(string))
}

// expr is what stands in #{...} or on a side of a comparison: *symbol or *call.
type expr interface {
	print(p *printer)
	refer(add func(string))
}

type (
	// text is literal, with ##{ already undone.
	text struct {
		s string
	}

	substitution struct {
		expr expr
	}

	// condition covers if, elseif (a condition in the otherwise branch) and
	// unless (a condition with its branches swapped).
	condition struct {
		test      test
		unless    bool
		then      []part
		otherwise []part
	}

	loop struct {
		name string // of the item, as written
		key  string // the same, folded
		list *symbol
		body []part
	}

	calculation struct {
		expr calcExpr
	}
)

// test is the condition of an if. A literal on the left has been moved to the
// right; that keeps the meaning and is how the condition is echoed.
type test struct {
	left    expr
	op      testOp
	right   expr   // when op compares two expressions
	literal string // when op compares with a text
}

type testOp uint8

const (
	isTruthy testOp = iota
	equalsExpr
	differsExpr
	equalsText
	differsText
)

// call applies a filter. An expression that starts with "|" has no input, which
// is a symbol without steps.
type call struct {
	name  string
	apply filter // nil: no such filter
	arg   expr
	opts  []part
}

// symbol is a reference: identifiers and indexes, for example Octopus.Action[Web].Name.
type symbol struct {
	steps []step
	// pos is where it starts in its own template. It tells two references to
	// the same name apart when loops are looked for.
	pos int
	// computed tells that some index has to be evaluated first.
	computed bool
}

type stepKind uint8

const (
	nameStep     stepKind = iota // .Name
	indexStep                    // [text]
	computedStep                 // [#{symbol}]
	failedStep                   // [#{symbol}] whose symbol has no value
)

type step struct {
	kind stepKind
	text string
	key  string  // text, folded for look-up
	sym  *symbol // of a computedStep or failedStep
}

// sameSteps compares without regard to case.
func sameSteps(a, b []step) bool {
	return slices.EqualFunc(a, b, func(x, y step) bool { return x.kind == y.kind && x.key == y.key })
}

// Arguments lists the names the template needs to be given, in order and
// without repeats. What is inside a loop is left out, because it depends on the
// items, but the collection is listed; of a reference with a computed index,
// the part before the index and the index's own name are.
func (t *Template) Arguments() []string {
	var names []string
	seen := map[string]bool{}
	add := func(name string) {
		if k := fold(name); !seen[k] {
			seen[k] = true
			names = append(names, name)
		}
	}
	for _, p := range t.parts {
		p.refer(add)
	}
	return names
}

func (*text) refer(func(string)) {}

func (s *substitution) refer(add func(string)) { s.expr.refer(add) }

func (c *condition) refer(add func(string)) {
	c.test.left.refer(add)
	if c.test.right != nil {
		c.test.right.refer(add)
	}
	for _, p := range c.then {
		p.refer(add)
	}
	for _, p := range c.otherwise {
		p.refer(add)
	}
}

func (l *loop) refer(add func(string)) { l.list.refer(add) }

func (c *calculation) refer(add func(string)) { c.expr.refer(add) }

func (c *call) refer(add func(string)) {
	c.arg.refer(add)
	for _, o := range c.opts {
		o.refer(add)
	}
}

func (s *symbol) refer(add func(string)) {
	fixed := len(s.steps)
	for i, st := range s.steps {
		if st.kind == computedStep {
			fixed = min(fixed, i)
		}
	}
	if fixed > 0 {
		var p printer
		p.steps(s.steps[:fixed])
		add(string(p.out))
	}
	for _, st := range s.steps {
		if st.kind == computedStep {
			st.sym.refer(add)
		}
	}
}
