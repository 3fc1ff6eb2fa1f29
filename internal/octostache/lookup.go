package octostache

import (
	"errors"
	"slices"
	"strconv"
)

// maxKept is the longest value that is kept for the rest of an evaluation.
const maxKept = 64 << 10

// symbol evaluates a reference; ok false means that it has no value.
func (e *evaluator) symbol(f *frame, sym *symbol) (s string, ok bool, err error) {
	_, s, ok, err = e.find(f, sym)
	return s, ok, err
}

// find looks a reference up, from the innermost scope outwards, and evaluates
// what it finds in the scope where it found it: variables do not see the items
// of loops that use them. It returns nil if there is no such place, ok false if
// the place has no value.
func (e *evaluator) find(f *frame, sym *symbol) (n *node, s string, ok bool, err error) {
	if err := e.charge(0); err != nil {
		return nil, "", false, err
	}
	if len(sym.steps) == 0 {
		return nil, "", false, nil
	}
	steps, err := e.steps(f, sym)
	if err != nil {
		return nil, "", false, err
	}
	if err := e.checkLoop(f, sym, steps); err != nil {
		return nil, "", false, err
	}
	for ; f != nil; f = f.up {
		n, s, ok, stop, err := e.findIn(f, sym, steps)
		if err != nil || n != nil || stop {
			return n, s, ok, err
		}
	}
	return nil, "", false, nil
}

func (e *evaluator) findIn(f *frame, sym *symbol, steps []step) (n *node, s string, ok, stop bool, err error) {
	f.stack = append(f.stack, pending{sym, steps})
	defer func() { f.stack = f.stack[:len(f.stack)-1] }()
	n, stop, err = e.walk(f, steps)
	if err != nil || n == nil {
		return nil, "", false, stop, err
	}
	s, ok, err = e.value(f, n)
	return n, s, ok, true, err
}

// steps evaluates the computed indexes of a reference.
func (e *evaluator) steps(f *frame, sym *symbol) ([]step, error) {
	if !sym.computed {
		return sym.steps, nil
	}
	steps := slices.Clone(sym.steps)
	for i, st := range steps {
		if st.kind != computedStep {
			continue
		}
		err := e.quietly(func() error {
			s, ok, err := e.symbol(f, st.sym)
			if ok {
				steps[i] = step{kind: indexStep, text: s, key: fold(s)}
			} else {
				steps[i].kind = failedStep
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return steps, nil
}

// checkLoop fails if the same reference is being evaluated already, here or
// further out. References in different places of their templates count as
// different at first: that lets a JSON text refer to its own properties.
func (e *evaluator) checkLoop(f *frame, sym *symbol, steps []step) error {
	for ; f != nil; f = f.up {
		for _, p := range f.stack {
			if p.sym.pos != sym.pos || !sameSteps(p.steps, steps) {
				continue
			}
			name := func(steps []step) string {
				var w printer
				w.steps(steps)
				return string(w.out)
			}
			err := &LoopError{Symbol: name(steps)}
			for _, p := range f.stack {
				err.Path = append(err.Path, name(p.steps))
			}
			return err
		}
	}
	return nil
}

// walk follows the steps in one scope. At each step a variable of that name
// goes before a property of the JSON in the value so far.
func (e *evaluator) walk(f *frame, steps []step) (n *node, stop bool, err error) {
	n = f.vars
	if n == nil {
		if n, steps = f.local(steps); n == nil {
			return nil, false, nil
		}
	}
	for _, st := range steps {
		var next *node
		switch st.kind {
		case nameStep:
			next = n.names[st.key]
		case indexStep:
			if st.text == "*" && len(n.order) > 0 {
				next = n.order[0]
			} else {
				next = n.indexes[st.key]
			}
		case computedStep, failedStep:
			return nil, true, nil
		}
		if next == nil {
			if next, err = e.property(f, n, st.text); err != nil || next == nil {
				return nil, false, err
			}
		}
		n = next
	}
	return n, false, nil
}

// local finds what a loop adds to the scope: its item, by its name, and
// Octopus.Template.Each.Index, First and Last. It returns the steps that are left.
func (f *frame) local(steps []step) (*node, []step) {
	named := func(i int, key string) bool {
		return i < len(steps) && steps[i].kind == nameStep && steps[i].key == key
	}
	if named(0, f.key) {
		// The items of a collection have their index as Key, like the properties of JSON.
		if named(1, "KEY") && f.item.index != nil && f.item.names["KEY"] == nil {
			return &node{val: newValue(*f.item.index)}, steps[2:]
		}
		return f.item, steps[1:]
	}
	if !named(0, "OCTOPUS") || !named(1, "TEMPLATE") || !named(2, "EACH") || len(steps) < 4 {
		return nil, nil
	}
	truth := func(b bool) string {
		if b {
			return "True"
		}
		return "False"
	}
	var s string
	switch {
	case named(3, "INDEX"):
		s = strconv.Itoa(f.index)
	case named(3, "FIRST"):
		s = truth(f.first)
	case named(3, "LAST"):
		s = truth(f.last)
	default:
		return nil, nil
	}
	return &node{val: newValue(s)}, steps[4:]
}

// property looks into the JSON in a value. A value that refers to itself has no JSON.
func (e *evaluator) property(f *frame, n *node, name string) (*node, error) {
	if n.val == nil || n.val.raw == "" || name == "" || n.val.synthetic {
		return nil, nil
	}
	var doc *jsonDoc
	err := e.quietly(func() (err error) {
		doc, err = e.document(f, n)
		return err
	})
	if loop := (*LoopError)(nil); errors.As(err, &loop) {
		e.cuts++
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	sub, ok := doc.property(name)
	if !ok {
		return nil, nil
	}
	return sub, e.charge(len(sub.val.raw))
}

func (e *evaluator) document(f *frame, n *node) (*jsonDoc, error) {
	if !n.val.dynamic {
		doc := n.val.json.Load()
		if doc == nil {
			doc = parseJSON(n.val.raw)
			n.val.json.Store(doc)
			return doc, e.charge(2 * len(n.val.raw))
		}
		return doc, nil
	}
	s, _, err := e.value(f, n)
	if err != nil {
		return nil, err
	}
	if d := e.done[n.val]; d != nil && f == e.root {
		if d.json == nil {
			d.json = parseJSON(s)
			return d.json, e.charge(2 * len(s))
		}
		return d.json, nil
	}
	return parseJSON(s), e.charge(2 * len(s))
}

// value evaluates the value of a place in a scope; ok false if it has none. A
// value that does not parse is itself.
func (e *evaluator) value(f *frame, n *node) (s string, ok bool, err error) {
	if n.val == nil {
		return "", false, nil
	}
	if !n.val.dynamic {
		return n.val.raw, true, nil
	}
	t, err := n.val.template()
	if err != nil {
		return n.val.raw, true, nil
	}
	if d := e.done[n.val]; d != nil && f == e.root {
		e.missing = append(e.missing, d.missing...)
		e.null = e.null || d.null
		return d.text, true, e.charge(len(d.missing) << 11)
	}
	if e.depth++; e.depth > e.opts.Limits.Depth {
		return "", false, e.limit("Depth", e.opts.Limits.Depth)
	}
	defer func() { e.depth-- }()
	missing, cuts, null := len(e.missing), e.cuts, e.null
	e.null = false
	s, err = e.capture(func() error { return e.parts(f, t.parts) })
	if err != nil {
		return "", false, err
	}
	// What was cut short depends on where it was needed, and long texts are
	// bounded by Limits.Output as it is.
	if f == e.root && e.cuts == cuts && n.val.kept && len(s) <= maxKept {
		e.done[n.val] = &outcome{text: s, missing: distinct(slices.Clone(e.missing[missing:])), null: e.null}
	}
	e.null = e.null || null
	return s, true, nil
}
