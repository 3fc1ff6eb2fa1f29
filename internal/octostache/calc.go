package octostache

import "strconv"

// calcExpr is a node of the arithmetic in #{calc ...}: calcNumber, *calcSymbol or *calcBinary.
type calcExpr interface {
	print(p *printer)
	refer(add func(string))
	// eval returns ok false when an operand is missing or is no number.
	eval(e *evaluator, f *frame) (v float64, ok bool, err error)
}

type (
	calcNumber float64

	calcSymbol struct {
		sym *symbol
	}

	calcBinary struct {
		left, right calcExpr
		op          byte // + - * /
	}
)

func (n calcNumber) print(p *printer) {
	if p.exact {
		p.out = strconv.AppendFloat(p.out, float64(n), 'f', -1, 64)
		return
	}
	p.str(formatDouble(float64(n)))
}

func (c *calcSymbol) print(p *printer) {
	if p.exact { // braces, because - and / may be part of a name
		p.str("{")
		defer p.str("}")
	}
	c.sym.print(p)
}

func (b *calcBinary) print(p *printer) {
	operand := func(x calcExpr) {
		if _, nested := x.(*calcBinary); nested && p.exact {
			p.str("(")
			defer p.str(")")
		}
		x.print(p)
	}
	operand(b.left)
	p.out = append(p.out, b.op)
	operand(b.right)
}

func (calcNumber) refer(func(string)) {}

func (c *calcSymbol) refer(add func(string)) { c.sym.refer(add) }

func (b *calcBinary) refer(add func(string)) {
	b.left.refer(add)
	b.right.refer(add)
}

func (n calcNumber) eval(*evaluator, *frame) (float64, bool, error) { return float64(n), true, nil }

func (c *calcSymbol) eval(e *evaluator, f *frame) (float64, bool, error) {
	s, ok, err := e.symbol(f, c.sym)
	if err != nil || !ok {
		return 0, false, err
	}
	v, ok := parseDouble(s)
	return v, ok, nil
}

func (b *calcBinary) eval(e *evaluator, f *frame) (float64, bool, error) {
	l, ok, err := b.left.eval(e, f)
	if err != nil || !ok {
		return 0, false, err
	}
	r, ok, err := b.right.eval(e, f)
	if err != nil || !ok {
		return 0, false, err
	}
	switch b.op {
	case '+':
		return l + r, true, nil
	case '-':
		return l - r, true, nil
	case '*':
		return l * r, true, nil
	default:
		return l / r, true, nil
	}
}
