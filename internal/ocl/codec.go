package ocl

import (
	"cmp"
	"errors"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// Ref is the kind of thing that a file names by its slug and the API by its id.
type Ref string

// The kinds of references.
const (
	RefEnvironment Ref = "environment"
	RefChannel     Ref = "channel"
	RefFeed        Ref = "feed"
	RefWorkerPool  Ref = "worker pool"
	RefAccount     Ref = "account"
	RefCertificate Ref = "certificate"
	RefMachine     Ref = "deployment target"
	RefTeam        Ref = "team"
	RefTenant      Ref = "tenant"
	RefProject     Ref = "project"
	// RefAction is an action by id and slug. Actions that are read from a file
	// have their slug for an id.
	RefAction Ref = "step"
	// RefActionName is an action by name, as the API's versioning strategy
	// has it, and slug.
	RefActionName Ref = "step of that name"
	// RefProcess is "deployment-process" for the project's id, and
	// "runbook/slug" for a runbook's.
	RefProcess Ref = "process"
	// refNone is a text that is the same in both.
	refNone Ref = ""
)

// Lookup translates a reference, from id to slug for the Write functions and
// from slug, or the name that older files have, to id for the Read functions.
// It reports false for what it does not know: that is written as it is, and
// refused when it is read. A nil Lookup leaves all references as they are, as
// expressions (#{...}) always are.
type Lookup func(kind Ref, key string) (string, bool)

// maxErrors is how many faults of a file are reported at once.
const maxErrors = 20

// codec reads or writes the items of one body. Each field is described once, for
// both directions.
type codec struct {
	*shared
	reading bool
	what    string // of what the body is, for messages
	pos     Pos    // where it starts

	in   Body
	used []bool // by item of in

	out    Body
	labels []string
}

// shared is the state of a whole file.
type shared struct {
	lookup Lookup
	errs   []error
}

// read lets describe take its fields from a document.
func read(what string, body Body, lookup Lookup, describe func(*codec)) error {
	c := &codec{shared: &shared{lookup: lookup}, reading: true, what: what, pos: Pos{1, 1}, in: body, used: make([]bool, len(body))}
	describe(c)
	c.finish()
	return errors.Join(c.errs...)
}

// write lets describe put its fields into a document.
func write(what string, lookup Lookup, describe func(*codec)) (Body, error) {
	c := &codec{shared: &shared{lookup: lookup}, what: what}
	describe(c)
	c.finish()
	if err := errors.Join(c.errs...); err != nil {
		return nil, err
	}
	return c.out, nil
}

func (c *codec) fail(at Pos, format string, args ...any) {
	if len(c.errs) >= maxErrors {
		return
	}
	f := fault.New(fault.Invalid, format, args...)
	if at.Line > 0 {
		f.Message = "Line " + strconv.Itoa(at.Line) + ", column " + strconv.Itoa(at.Column) + ": " + f.Message
	}
	c.errs = append(c.errs, f)
}

// finish refuses what was read and is not known, and puts what is written in
// order: attributes before blocks, those of first before the others by name.
func (c *codec) finish(first ...string) {
	if c.reading {
		for i, item := range c.in {
			if !c.used[i] {
				c.fail(item.Pos, "%q is not known in %s; remove it, or correct its name.", item.Name, c.what)
			}
		}
		return
	}
	place := func(item Item) int {
		if i := slices.Index(first, item.Name); i >= 0 {
			return i
		}
		return len(first)
	}
	slices.SortStableFunc(c.out, func(a, b Item) int {
		switch {
		case a.Block != nil && b.Block != nil:
			return 0 // in the order in which they are described
		case a.Block != nil:
			return 1
		case b.Block != nil:
			return -1
		}
		return cmp.Or(cmp.Compare(place(a), place(b)), strings.Compare(a.Name, b.Name))
	})
}

// put adds an attribute to what is written.
func (c *codec) put(name string, v Value) { c.out = append(c.out, Attr(name, v)) }

// has reports whether what is read has an attribute.
func (c *codec) has(name string) bool {
	return slices.ContainsFunc(c.in, func(i Item) bool { return i.Name == name && i.Block == nil })
}

// get takes an attribute from what is read; null counts as absent.
func (c *codec) get(name string) (Value, Pos, bool) {
	var found *Item
	for i := range c.in {
		item := &c.in[i]
		if item.Name != name || item.Block != nil {
			continue
		}
		c.used[i] = true
		if found != nil {
			c.fail(item.Pos, "%q is there twice in %s; keep one.", name, c.what)
			continue
		}
		found = item
	}
	if found == nil || found.Value.Kind == Null {
		return Value{}, Pos{}, false
	}
	return found.Value, found.Pos, true
}

// text is a string, left out when it is the default.
func text[S ~string](c *codec, name string, p *S, byDefault S) {
	if !c.reading {
		if *p != byDefault {
			c.put(name, Text(string(*p)))
		}
		return
	}
	*p = byDefault
	always(c, name, p)
}

// always is a string that is written even if it is empty.
func always[S ~string](c *codec, name string, p *S) {
	if !c.reading {
		c.put(name, Text(string(*p)))
		return
	}
	v, at, ok := c.get(name)
	switch {
	case !ok:
	case v.Kind != String:
		c.fail(at, "%q of %s must be a string in quotes.", name, c.what)
	default:
		*p = S(v.Text)
	}
}

// choice is one of some words, left out when it is the default.
func choice[S ~string](c *codec, name string, p *S, byDefault S, others ...S) {
	if !c.reading && *p == "" {
		return
	}
	text(c, name, p, byDefault)
	if !c.reading {
		return
	}
	words := append([]S{byDefault}, others...)
	for _, word := range words {
		if strings.EqualFold(string(*p), string(word)) {
			*p = word
			return
		}
	}
	_, at, _ := c.get(name)
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = string(w)
	}
	c.fail(at, "%q of %s cannot be %q; it is one of %s.", name, c.what, string(*p), strings.Join(list, ", "))
}

// flag is true or false, left out when it is false. It may be a string.
func flag(c *codec, name string, p *bool) {
	if !c.reading {
		if *p {
			c.put(name, Flag(true))
		}
		return
	}
	*p = false
	v, at, ok := c.get(name)
	if !ok {
		return
	}
	switch {
	case v.Kind == Bool:
		*p = v.Bool
	case v.Kind == String && strings.EqualFold(v.Text, "true"):
		*p = true
	case v.Kind == String && strings.EqualFold(v.Text, "false"):
	default:
		c.fail(at, "%q of %s must be true or false.", name, c.what)
	}
}

// number is a whole number, left out when it is zero.
func number(c *codec, name string, p *int) {
	if !c.reading {
		if *p != 0 {
			c.put(name, Number(int64(*p)))
		}
		return
	}
	*p = 0
	v, at, ok := c.get(name)
	switch {
	case !ok:
	case v.Kind != Int || v.Int != int64(int32(v.Int)):
		c.fail(at, "%q of %s must be a whole number.", name, c.what)
	default:
		*p = int(v.Int)
	}
}

// translate looks up a reference.
func (c *codec) translate(at Pos, kind Ref, key string) string {
	if kind == refNone || key == "" || c.lookup == nil || strings.Contains(key, "#{") {
		return key
	}
	to, ok := c.lookup(kind, key)
	if !ok {
		if c.reading {
			c.fail(at, "There is no %s %q; create it first, or correct the name.", kind, key)
		}
		return key
	}
	return to
}

// reference is a string that names a thing.
func reference[S ~string](c *codec, name string, p *S, kind Ref) {
	if c.reading {
		text(c, name, p, "")
		_, at, _ := c.get(name)
		*p = S(c.translate(at, kind, string(*p)))
		return
	}
	slug := S(c.translate(Pos{}, kind, string(*p)))
	text(c, name, &slug, "")
}

// references is a list of strings that name things, left out when it is empty.
func references(c *codec, name string, p *octopus.List[string], kind Ref) {
	if !c.reading {
		if len(*p) == 0 {
			return
		}
		out := make([]string, len(*p))
		for i, id := range *p {
			out[i] = c.translate(Pos{}, kind, id)
		}
		c.put(name, Texts(out))
		return
	}
	*p = nil
	v, at, ok := c.get(name)
	if !ok {
		return
	}
	if v.Kind != List {
		c.fail(at, "%q of %s must be a list of strings.", name, c.what)
		return
	}
	for _, item := range v.List {
		if item.Kind != String {
			c.fail(at, "%q of %s must be a list of strings.", name, c.what)
			return
		}
		*p = append(*p, c.translate(at, kind, item.Text))
	}
}

// plain is the text of a value in a dictionary, as the API has it.
func plain(v Value) (string, bool) {
	switch v.Kind {
	case String, Decimal:
		return v.Text, true
	case Int:
		return strconv.FormatInt(v.Int, 10), true
	case Bool:
		if v.Bool {
			return "True", true
		}
		return "False", true
	case Null:
		return "", true
	case List, Map:
	}
	return "", false
}

// dictionary is a dictionary of texts, left out when it is empty.
func dictionary[V ~string](c *codec, name string, p *octopus.Map[string, V]) {
	if !c.reading {
		if len(*p) == 0 {
			return
		}
		dict := Value{Kind: Map}
		for _, key := range slices.Sorted(maps.Keys(*p)) {
			dict.Map = append(dict.Map, Entry{key, Text(string((*p)[key]))})
		}
		c.put(name, dict)
		return
	}
	*p = nil
	v, at, ok := c.get(name)
	if !ok {
		return
	}
	if v.Kind != Map {
		c.fail(at, "%q of %s must be a dictionary.", name, c.what)
		return
	}
	*p = make(octopus.Map[string, V], len(v.Map))
	for _, e := range v.Map {
		s, ok := plain(e.Value)
		if !ok {
			c.fail(at, "%q in %q of %s must be a string.", e.Key, name, c.what)
		}
		(*p)[e.Key] = V(s)
	}
}

// child describes the body of a block.
func (c *codec) child(what string, item *Item, describe func(*codec), first []string) Item {
	sub := &codec{shared: c.shared, reading: c.reading, what: what}
	if item != nil {
		sub.pos, sub.in, sub.labels = item.Pos, item.Block.Body, item.Block.Labels
		sub.used = make([]bool, len(sub.in))
	}
	describe(sub)
	sub.finish(first...)
	return Item{Block: &Block{Labels: sub.labels, Body: sub.out}}
}

// takeBlocks takes the blocks of a name from what is read.
func (c *codec) takeBlocks(name string) []*Item {
	var out []*Item
	for i := range c.in {
		if item := &c.in[i]; item.Name == name && item.Block != nil {
			c.used[i] = true
			out = append(out, item)
		}
	}
	return out
}

// block is a block that is there once or not at all. When writing, present says
// whether it is; when reading, the answer does.
func block(c *codec, name string, present bool, describe func(*codec), first ...string) bool {
	if !c.reading {
		if present {
			item := c.child(name, nil, describe, first)
			item.Name = name
			c.out = append(c.out, item)
		}
		return present
	}
	found := c.takeBlocks(name)
	for i, item := range found {
		if i > 0 {
			c.fail(item.Pos, "%q is there twice in %s; keep one.", name, c.what)
			break
		}
		if len(item.Block.Labels) > 0 {
			c.fail(item.Pos, "%q of %s has no label; remove %q.", name, c.what, item.Block.Labels[0])
		}
		c.child(name, item, describe, first)
	}
	return len(found) > 0
}

// blocks is a list that is written as a block for each item.
func blocks[T any](c *codec, name string, p *octopus.List[T], describe func(*codec, *T), first ...string) {
	if !c.reading {
		for i := range *p {
			item := c.child(name, nil, func(sub *codec) { describe(sub, &(*p)[i]) }, first)
			item.Name = name
			c.out = append(c.out, item)
		}
		return
	}
	*p = nil
	for _, item := range c.takeBlocks(name) {
		var value T
		what := name
		if len(item.Block.Labels) > 0 {
			what += " " + strconv.Quote(item.Block.Labels[0])
		}
		c.child(what, item, func(sub *codec) { describe(sub, &value) }, first)
		*p = append(*p, value)
	}
}

// label is the block's only label; "" is none.
func label[S ~string](c *codec, p *S) {
	if !c.reading {
		c.labels = []string{}
		if *p != "" {
			c.labels = []string{string(*p)}
		}
		return
	}
	*p = ""
	if len(c.labels) > 0 {
		*p = S(c.labels[0])
	}
	if len(c.labels) > 1 {
		c.fail(c.pos, "%s has one label at most; remove %q.", c.what, c.labels[1])
	}
}
