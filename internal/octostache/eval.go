package octostache

import (
	"slices"
	"strconv"
	"strings"
)

// Result is what a template evaluates to.
type Result struct {
	// Text is the result. When Err is set it is the template as it was given.
	Text string
	// Null tells that the template asked for no value at all (with "| null").
	// A setting with such a value counts as not set. Text is "".
	Null bool
	// Missing lists the references and filters that stayed in the text, each once, in order.
	Missing []string
	// Err is a *ParseError, a *LoopError or a *LimitError.
	Err error
}

// Problem returns Err, a [*MissingError] when something is missing, or nil.
func (r Result) Problem() error {
	if r.Err != nil {
		return r.Err
	}
	if len(r.Missing) > 0 {
		return &MissingError{r.Missing}
	}
	return nil
}

// Evaluate parses and evaluates a text. A text without "#{" comes back as it is;
// so does, with an error, one that cannot be parsed.
func (v *Variables) Evaluate(text string) Result {
	if !strings.Contains(text, "#{") {
		return Result{Text: text}
	}
	t, err := Parse(text)
	if err != nil {
		return Result{Text: text, Err: err}
	}
	return v.run(t, text)
}

// EvaluateFile is Evaluate for files, which may hold #{ for other reasons: what
// cannot be parsed stays as it is and the rest is evaluated; see [ParseFile].
func (v *Variables) EvaluateFile(text string) Result {
	if !strings.Contains(text, "#{") {
		return Result{Text: text}
	}
	return v.run(ParseFile(text), text)
}

// Execute evaluates a parsed template. With an error, the text is empty.
func (v *Variables) Execute(t *Template) Result { return v.run(t, "") }

// EvaluateTruthy evaluates a condition. Anything unclear makes it false: an
// error, a missing token, no value.
func (v *Variables) EvaluateTruthy(text string) bool {
	r := v.Evaluate(text)
	return r.Problem() == nil && !r.Null && Truthy(r.Text)
}

// Truthy tells whether a text counts as true in an if, an unless or a run
// condition. False are "", "0", and "no" and "false" in any case with white
// space around them.
func Truthy(s string) bool {
	if s == "" || s == "0" {
		return false
	}
	word := fold(strings.TrimFunc(s, isSpace))
	return word != "NO" && word != "FALSE"
}

func (v *Variables) run(t *Template, source string) Result {
	e := v.evaluator()
	e.out = make([]byte, 0, len(source)+len(source)/8)
	if err := e.parts(e.root, t.parts); err != nil {
		return Result{Text: source, Err: err}
	}
	r := Result{Missing: distinct(e.missing)}
	if r.Null = e.null; !r.Null {
		r.Text = string(e.out)
	}
	return r
}

func distinct(tokens []string) []string {
	if len(tokens) == 0 {
		return nil
	}
	seen := make(map[string]bool, len(tokens))
	return slices.DeleteFunc(tokens, func(s string) bool {
		was := seen[s]
		seen[s] = true
		return was
	})
}

// evaluator is one evaluation. Texts on the way are built at the end of out and
// cut off again.
type evaluator struct {
	opts    *Options
	root    *frame
	out     []byte
	missing []string
	null    bool

	depth, loops, spent int

	// Values of variables that were already evaluated. They are the same
	// wherever they are used, unless a loop had to be cut short.
	done map[*value]*outcome
	cuts int

	regexes map[string]*regex
	html    markdown
}

// outcome is an evaluated value.
type outcome struct {
	text    string
	missing []string
	null    bool
	json    *jsonDoc
}

// frame is a scope: all variables, or the item of a loop.
type frame struct {
	up   *frame
	vars *node // of the outermost frame

	key         string // the folded name of the item
	item        *node
	index       int
	first, last bool

	// stack holds the references being evaluated here, to find loops.
	stack []pending
}

type pending struct {
	sym   *symbol
	steps []step
}

func (v *Variables) evaluator() *evaluator {
	return &evaluator{opts: &v.opts, root: &frame{vars: v.root}, done: map[*value]*outcome{}}
}

func (e *evaluator) limit(name string, value int) error {
	return &LimitError{name, strconv.Itoa(value)}
}

// charge counts work: one step, and one for every 256 bytes.
func (e *evaluator) charge(bytes int) error {
	if e.spent += 1 + bytes>>8; e.spent > e.opts.Limits.Steps {
		return e.limit("Steps", e.opts.Limits.Steps)
	}
	return nil
}

// size rejects a text that is too long, if possible before it is made.
func (e *evaluator) size(n int) error {
	if n > e.opts.Limits.Output {
		return e.limit("Output", e.opts.Limits.Output)
	}
	return nil
}

func (e *evaluator) write(s string) error {
	if err := e.size(len(e.out) + len(s)); err != nil {
		return err
	}
	e.out = append(e.out, s...)
	return e.charge(len(s))
}

// capture returns what eval writes.
func (e *evaluator) capture(eval func() error) (string, error) {
	start := len(e.out)
	err := eval()
	s := string(e.out[start:])
	e.out = e.out[:start]
	return s, err
}

// quietly forgets what eval finds missing or null.
func (e *evaluator) quietly(eval func() error) error {
	missing, null := len(e.missing), e.null
	err := eval()
	e.missing, e.null = e.missing[:missing], null
	return err
}

func (e *evaluator) parts(f *frame, parts []part) error {
	for _, p := range parts {
		if err := e.part(f, p); err != nil {
			return err
		}
	}
	return nil
}

func (e *evaluator) part(f *frame, p part) error {
	switch p := p.(type) {
	case *text:
		return e.write(p.s)
	case *substitution:
		return e.substitution(f, p)
	case *condition:
		return e.condition(f, p)
	case *loop:
		return e.loop(f, p)
	case *calculation:
		v, ok, err := p.expr.eval(e, f)
		if err != nil {
			return err
		}
		if !ok {
			return e.unresolved(p)
		}
		return e.write(formatDouble(v))
	}
	return nil
}

// unresolved leaves a part in the text.
func (e *evaluator) unresolved(p part) error {
	s := echo(p)
	e.missing = append(e.missing, s)
	return e.write(s)
}

func (e *evaluator) substitution(f *frame, p *substitution) error {
	s, ok, err := e.expr(f, p.expr)
	if err != nil {
		return err
	}
	if ok {
		return e.write(s)
	}
	if c, isCall := p.expr.(*call); isCall && strings.EqualFold(c.name, "null") {
		e.null = true
		return nil
	}
	return e.unresolved(p)
}

// expr evaluates a reference or a filter chain; ok false means that it has no value.
func (e *evaluator) expr(f *frame, x expr) (s string, ok bool, err error) {
	switch x := x.(type) {
	case *symbol:
		null := e.null
		s, ok, err = e.symbol(f, x)
		e.null = null // only a null in the template itself makes the whole null
		return s, ok, err
	case *call:
		in, ok, err := e.expr(f, x.arg)
		if err != nil {
			return "", false, err
		}
		opts := make([]string, len(x.opts))
		for i, o := range x.opts {
			if t, ok := o.(*text); ok {
				opts[i] = t.s
				continue
			}
			opts[i], err = e.capture(func() error { return e.part(f, o) })
			if err != nil {
				return "", false, err
			}
		}
		if x.apply == nil {
			return "", false, nil
		}
		if err := e.charge(len(in)); err != nil {
			return "", false, err
		}
		s, ok, err := x.apply(&filtering{e: e, in: in, has: ok, opts: opts})
		if err == nil {
			err = e.size(len(s))
		}
		return s, ok, err
	}
	return "", false, nil
}

func (e *evaluator) condition(f *frame, c *condition) error {
	yes, broken, err := e.test(f, &c.test)
	switch {
	case err != nil:
		return err
	case broken != nil:
		e.missing = append(e.missing, echo(broken))
		return e.write(echo(c))
	case yes:
		return e.parts(f, c.then)
	default:
		return e.parts(f, c.otherwise)
	}
}

// test evaluates a condition. A filter that has no value cannot be compared and
// is returned as broken; a reference without value compares as "".
func (e *evaluator) test(f *frame, t *test) (yes bool, broken expr, err error) {
	side := func(x expr) (string, bool, error) {
		if sym, ok := x.(*symbol); ok {
			s, _, err := e.symbol(f, sym)
			return s, true, err
		}
		return e.expr(f, x)
	}
	left, ok, err := side(t.left)
	if err != nil || !ok {
		return false, t.left, err
	}
	switch t.op {
	case isTruthy:
		return Truthy(left), nil, nil
	case equalsText:
		return left == t.literal, nil, nil
	case differsText:
		return left != t.literal, nil, nil
	case equalsExpr, differsExpr:
	}
	right, ok, err := side(t.right)
	if err != nil || !ok {
		return false, t.right, err
	}
	return (left == right) == (t.op == equalsExpr), nil, nil
}

func (e *evaluator) loop(f *frame, l *loop) error {
	items, err := e.items(f, l.list)
	if err != nil {
		return err
	}
	if e.loops += len(items); e.loops > e.opts.Limits.Loops {
		return e.limit("Loops", e.opts.Limits.Loops)
	}
	for i, it := range items {
		scope := &frame{up: f, key: l.key, item: it, index: i, first: i == 0, last: i == len(items)-1}
		if err := e.charge(0); err != nil {
			return err
		}
		if err := e.parts(scope, l.body); err != nil {
			return err
		}
	}
	return nil
}

// items lists what a loop runs over: the indexes of a name that has no value of
// its own, the items or properties in its JSON, or what commas separate in it.
func (e *evaluator) items(f *frame, list *symbol) ([]*node, error) {
	n, s, ok, err := e.find(f, list)
	if err != nil || n == nil {
		return nil, err
	}
	if !ok || n.val.dynamic && len(n.order) > 0 && s == n.val.raw && parseFails(n.val) {
		return n.order, nil
	}
	doc := parseJSON(s)
	if err := e.charge(2 * len(s)); err != nil {
		return nil, err
	}
	if items, ok := doc.items(); ok {
		return items, nil
	}
	pieces := strings.Split(s, ",")
	items := make([]*node, len(pieces))
	for i, piece := range pieces {
		items[i] = &node{val: newValue(piece)}
	}
	return items, nil
}

func parseFails(v *value) bool {
	_, err := v.template()
	return err != nil
}
