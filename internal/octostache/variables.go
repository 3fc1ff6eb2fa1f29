package octostache

import (
	"bytes"
	"encoding/json"
	"fmt"
	"iter"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/takodeploy/tako/internal/fault"
)

// Pair is a variable: a name and a value, which may hold a template.
type Pair struct {
	Name, Value string
	// Null marks a variable that exists without a value: templates see "",
	// but asking for it by name finds nothing.
	Null bool
}

// Options are what an evaluation depends on besides the variables.
type Options struct {
	// Now is what NowDate and NowDateUtc give. Its location is the local time
	// zone, which dates without an offset are taken to be in.
	Now    time.Time
	Limits Limits
}

// Variables is an immutable set of variables, looked up without regard to case,
// either by exact name or, in templates, by path. It is safe for concurrent use.
//
// It usually holds secrets. It formats itself as a count, never as its content.
type Variables struct {
	opts Options
	dict *dict
	root *node
}

// NewVariables builds a lookup. Of pairs with the same name the last one wins.
func NewVariables(opts Options, pairs ...Pair) *Variables {
	opts.Limits = opts.Limits.withDefaults()
	entries := newEntries(pairs)
	v := &Variables{opts: opts, dict: (&dict{}).with(entries), root: &node{}}
	var b builder
	for _, e := range entries {
		b.set(v.root, e)
	}
	return v
}

// With returns the variables with more laid over them; v stays as it is. It
// costs time in proportion to the new pairs and to the number of names on the
// same level as theirs, not to all variables.
func (v *Variables) With(pairs ...Pair) *Variables {
	if len(pairs) == 0 {
		return v
	}
	entries := newEntries(pairs)
	w := &Variables{opts: v.opts, dict: v.dict.with(entries)}
	b := builder{own: map[*node]bool{}}
	w.root = b.clone(v.root)
	for _, e := range entries {
		b.set(w.root, e)
	}
	return w
}

// At returns the same variables evaluated at another time.
func (v *Variables) At(now time.Time) *Variables {
	w := *v
	w.opts.Now = now
	return &w
}

// Len returns the number of variables.
func (v *Variables) Len() int { return v.dict.len }

// String returns a count, so that no value reaches a log.
func (v *Variables) String() string { return strconv.Itoa(v.Len()) + " variables" }

// GoString is String.
func (v *Variables) GoString() string { return v.String() }

// LogValue is String.
func (v *Variables) LogValue() slog.Value { return slog.StringValue(v.String()) }

// All yields the variables with their raw values in the order in which their names came first.
func (v *Variables) All() iter.Seq[Pair] {
	return func(yield func(Pair) bool) {
		for _, e := range v.dict.list() {
			if !yield(e.pair()) {
				return
			}
		}
	}
}

// Value evaluates the variable with exactly that name. It returns false if there
// is none or it has no value. Result.Null tells that its template wants it to
// be unset.
func (v *Variables) Value(name string) (Result, bool) {
	e := v.dict.get(name)
	if e == nil || e.val == nil {
		return Result{}, false
	}
	if !e.val.dynamic {
		return Result{Text: e.val.raw}, true
	}
	t, err := e.val.template()
	if err != nil {
		return Result{Text: e.val.raw, Err: err}, true
	}
	return v.run(t, e.val.raw), true
}

// Get is Value for callers that want a text or nothing. A value that cannot be
// evaluated comes back as it was written.
func (v *Variables) Get(name string) (string, bool) {
	r, ok := v.Value(name)
	return r.Text, ok && !r.Null
}

// GetRaw returns the value with that name without evaluating it.
func (v *Variables) GetRaw(name string) (string, bool) {
	e := v.dict.get(name)
	if e == nil || e.val == nil {
		return "", false
	}
	return e.val.raw, true
}

// Flag reads a variable that is True or False, in any case, and returns missing for anything else.
func (v *Variables) Flag(name string, missing bool) bool {
	s, _ := v.Get(name)
	switch fold(strings.Trim(strings.TrimSpace(s), "\x00")) {
	case "TRUE":
		return true
	case "FALSE":
		return false
	}
	return missing
}

// Int32 reads a variable that is a whole number of 32 bits; false for anything else.
func (v *Variables) Int32(name string) (int32, bool) {
	s, ok := v.Get(name)
	if !ok {
		return 0, false
	}
	n, ok := parseInt32(s)
	return n, ok
}

// Require returns a variable that must not be empty. The error is a fault of
// kind Invalid, or what went wrong when it was evaluated.
func (v *Variables) Require(name string) (string, error) {
	r, ok := v.Value(name)
	if r.Err != nil {
		return "", fmt.Errorf("evaluate variable %s: %w", name, r.Err)
	}
	if !ok || r.Null || r.Text == "" {
		return "", fault.InvalidField(name, "The variable '%s' is required but no value is set.", name)
	}
	return r.Text, nil
}

// Indexes lists the indexes of a collection: given Package[A].Name and
// Package[B].Name, Indexes("Package") returns A and B. A list in JSON or
// separated by commas gives its items.
func (v *Variables) Indexes(name string) ([]string, error) {
	p := parser{src: name}
	sym, end, ok := p.symbol(0)
	if !ok || end < len(name) {
		return nil, fault.InvalidField(name, "'%s' is not a name that variables can be indexed by.", name)
	}
	e := v.evaluator()
	items, err := e.items(e.root, sym)
	if err != nil {
		return nil, fmt.Errorf("list indexes of %s: %w", name, err)
	}
	var out []string
	for _, it := range items {
		switch {
		case it.index != nil:
			out = append(out, *it.index)
		case it.val != nil:
			out = append(out, it.val.raw)
		}
	}
	return out, nil
}

// SaveJSON writes the raw values as a JSON object, in order. It holds every
// secret in clear text: encrypt it before it leaves memory.
func (v *Variables) SaveJSON() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	put := func(x any) error {
		if err := enc.Encode(x); err != nil {
			return fmt.Errorf("write variables: %w", err)
		}
		b.Truncate(b.Len() - 1) // the line end
		return nil
	}
	b.WriteByte('{')
	for i, e := range v.dict.list() {
		if i > 0 {
			b.WriteByte(',')
		}
		if err := put(e.name); err != nil {
			return nil, err
		}
		b.WriteByte(':')
		var value any
		if e.val != nil {
			value = e.val.raw
		}
		if err := put(value); err != nil {
			return nil, err
		}
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// dict finds variables by exact name. Layers are merged when there are many.
type dict struct {
	below   *dict
	layers  int
	len     int
	entries map[string]*entry
	order   []*entry // of the names that are new in this layer; entries may hold a later value
}

type entry struct {
	name string
	val  *value // nil: null
}

func (e *entry) pair() Pair {
	if e.val == nil {
		return Pair{Name: e.name, Null: true}
	}
	return Pair{Name: e.name, Value: e.val.raw}
}

func newEntries(pairs []Pair) []*entry {
	out := make([]*entry, len(pairs))
	for i, p := range pairs {
		out[i] = &entry{name: p.Name}
		if !p.Null {
			out[i].val = newValue(p.Value)
			out[i].val.kept = true
		}
	}
	return out
}

const maxLayers = 8

func (d *dict) with(entries []*entry) *dict {
	n := &dict{below: d, layers: d.layers + 1, len: d.len, entries: make(map[string]*entry, len(entries))}
	if d.len == 0 {
		n.below, n.layers = nil, 1
	}
	add := func(e *entry) {
		key := fold(e.name)
		old := n.entries[key]
		if old == nil && n.below != nil {
			old = n.below.find(key)
		}
		if old == nil {
			n.len++
			n.order = append(n.order, e)
		} else if e.name != old.name { // the first spelling stays
			e = &entry{old.name, e.val}
		}
		n.entries[key] = e
	}
	if n.layers > maxLayers {
		n.below, n.layers, n.len = nil, 1, 0
		for _, e := range d.list() {
			add(e)
		}
	}
	for _, e := range entries {
		add(e)
	}
	return n
}

func (d *dict) get(name string) *entry { return d.find(fold(name)) }

func (d *dict) find(key string) *entry {
	for ; d != nil; d = d.below {
		if e := d.entries[key]; e != nil {
			return e
		}
	}
	return nil
}

// list returns the entries that count, in order.
func (d *dict) list() []*entry {
	var layers []*dict
	for l := d; l != nil; l = l.below {
		layers = append(layers, l)
	}
	out := make([]*entry, 0, d.len)
	for _, l := range slices.Backward(layers) {
		for _, e := range l.order {
			out = append(out, d.get(e.name))
		}
	}
	return out
}

// value is a text that may be a template. Its parsed forms are made when they
// are first needed.
type value struct {
	raw     string
	dynamic bool // it holds "#{"
	// synthetic marks the index that stands in for an item without own value.
	synthetic bool
	kept      bool // it belongs to a variable, not to a passing text
	tmpl      atomic.Pointer[parsed]
	json      atomic.Pointer[jsonDoc]
}

type parsed struct {
	t   *Template
	err error
}

func newValue(s string) *value { return &value{raw: s, dynamic: strings.Contains(s, "#{")} }

func (v *value) template() (*Template, error) {
	p := v.tmpl.Load()
	if p == nil {
		t, err := Parse(v.raw)
		p = &parsed{t, err}
		v.tmpl.Store(p)
	}
	return p.t, p.err
}

// node is a place in the tree of names: Octopus.Action[Web] is the index "Web"
// below the name "Action" below the name "Octopus".
type node struct {
	val     *value  // nil: only something below it has a value
	index   *string // of an item of a collection: its index as written
	names   map[string]*node
	indexes map[string]*node
	order   []*node // of indexes
}

// builder adds variables to a tree. Nodes that it does not own are shared with
// other trees and are copied before they change; a nil own means all are its own.
type builder struct {
	own map[*node]bool
}

func (b *builder) clone(n *node) *node {
	if b.own == nil || b.own[n] {
		return n
	}
	c := &node{val: n.val, index: n.index, names: maps.Clone(n.names), indexes: maps.Clone(n.indexes), order: slices.Clone(n.order)}
	b.own[c] = true
	return c
}

// set puts a variable at its place. A name that is no path is out of reach of templates.
func (b *builder) set(root *node, e *entry) {
	p := parser{src: e.name}
	sym, end, ok := p.symbol(0)
	if !ok || end < len(e.name) || sym.computed {
		return
	}
	n := root
	for _, st := range sym.steps {
		n = b.child(n, st)
	}
	if n.val = e.val; n.val == nil {
		n.val = newValue("")
	}
}

func (b *builder) child(n *node, st step) *node {
	if st.kind == nameStep {
		c := n.names[st.key]
		if c == nil {
			c = b.fresh()
			if n.names == nil {
				n.names = map[string]*node{}
			}
		} else {
			c = b.clone(c)
		}
		n.names[st.key] = c
		return c
	}
	c := n.indexes[st.key]
	if c == nil {
		c = b.fresh()
		c.index = &st.text
		c.val = newValue(st.text)
		c.val.synthetic = true
		if n.indexes == nil {
			n.indexes = map[string]*node{}
		}
		n.order = append(n.order, c)
	} else if fresh := b.clone(c); fresh != c {
		n.order[slices.Index(n.order, c)] = fresh
		c = fresh
	}
	n.indexes[st.key] = c
	return c
}

func (b *builder) fresh() *node {
	n := &node{}
	if b.own != nil {
		b.own[n] = true
	}
	return n
}
