package resource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// Tree is a JSON object as it is stored: members are spelled as the wire type
// spells them, numbers are json.Number, and members that the type does not know
// are kept, so that a client newer than the server loses nothing.
type Tree = map[string]any

// maxDepth is how deep objects and arrays may stand within each other.
const maxDepth = 100

// schema is what the tree functions need of a Go type.
type schema struct {
	fields map[string]member // by folded name; nil when it is no struct
	elem   *schema           // of a slice, an array or a map
	list   bool              // elem is of a slice
	// opaque types write themselves, and keep what they do not know by themselves;
	// a secret keeps nothing.
	opaque bool
}

type member struct {
	name string
	of   *schema
}

func schemaOf(t reflect.Type, known map[reflect.Type]*schema) *schema {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if s, ok := known[t]; ok {
		return s
	}
	s := &schema{}
	known[t] = s
	switch t.Kind() {
	case reflect.Slice, reflect.Array:
		s.elem, s.list = schemaOf(t.Elem(), known), true
	case reflect.Map:
		s.elem = schemaOf(t.Elem(), known)
	case reflect.Struct:
		s.opaque = t == reflect.TypeFor[octopus.Sensitive]() || reflect.PointerTo(t).Implements(reflect.TypeFor[json.Marshaler]())
		s.fields = map[string]member{}
		addFields(s.fields, t, known)
	default:
	}
	return s
}

func addFields(fields map[string]member, t reflect.Type, known map[reflect.Type]*schema) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		if f.Anonymous && name == "" {
			addFields(fields, f.Type, known)
			continue
		}
		if !f.IsExported() {
			continue
		}
		if name == "" {
			name = f.Name
		}
		fields[foldName(name)] = member{name, schemaOf(f.Type, known)}
	}
}

// foldName maps a member's name to the form in which the decoder compares names.
// Upper case comes first for the letters that have no way back from it, such as
// the long s, which matches s.
func foldName(name string) string { return strings.ToLower(strings.ToUpper(name)) }

// normalize spells the members of in as the type does. Of several spellings of
// one member the exact one counts, else the first in the order of the alphabet.
func (s *schema) normalize(in any) any {
	switch v := in.(type) {
	case Tree:
		out := make(Tree, len(v))
		spelled := map[string]string{} // members that were found under another name
		for key, value := range v {
			switch {
			case s.fields != nil:
				m, ok := s.fields[foldName(key)]
				if !ok {
					break
				}
				if key != m.name {
					if before, twice := spelled[m.name]; twice && before < key {
						continue
					}
					if _, exact := v[m.name]; exact {
						continue
					}
					spelled[m.name] = key
				}
				key, value = m.name, m.of.normalize(value)
			case s.elem != nil:
				value = s.elem.normalize(value)
			}
			out[key] = value
		}
		return out
	case []any:
		if s.elem == nil {
			return v
		}
		out := make([]any, len(v))
		for i := range v {
			out[i] = s.elem.normalize(v[i])
		}
		return out
	default:
		return in
	}
}

// keepUnknown adds to known what in has and the type does not know. Elements of
// arrays are matched by their Id, and by their place where they have none.
func (s *schema) keepUnknown(known, in any) {
	switch k := known.(type) {
	case Tree:
		v, ok := in.(Tree)
		if !ok {
			return
		}
		for key, value := range v {
			if s.fields == nil {
				if s.elem != nil {
					if _, ok := k[key]; ok {
						s.elem.keepUnknown(k[key], value)
					}
				}
				continue
			}
			if m, ok := s.fields[foldName(key)]; ok {
				m.of.keepUnknown(k[m.name], value)
			} else if _, ok := k[key]; !ok && !s.opaque {
				k[key] = value
			}
		}
	case []any:
		v, ok := in.([]any)
		if !ok || s.elem == nil {
			return
		}
		byID := map[string]any{}
		for _, e := range v {
			if id := elementID(e); id != "" {
				byID[id] = e
			}
		}
		for i := range k {
			switch id := elementID(k[i]); {
			case id != "" && byID[id] != nil:
				s.elem.keepUnknown(k[i], byID[id])
			case len(v) == len(k) && elementID(v[i]) == "":
				s.elem.keepUnknown(k[i], v[i])
			}
		}
	}
}

// elementID is the Id of an array's element, "" when it has none.
func elementID(e any) string {
	obj, ok := e.(Tree)
	if !ok {
		return ""
	}
	id, _ := obj["Id"].(string)
	return id
}

// Parse reads a JSON object, keeping numbers as they are written.
func Parse(body []byte) (Tree, error) {
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.UseNumber()
	var any any
	if err := dec.Decode(&any); err != nil {
		return nil, syntaxFault(body, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return nil, fault.New(fault.Invalid, "The request body has text after its JSON object; send one object.")
	}
	t, ok := any.(Tree)
	if !ok {
		return nil, fault.New(fault.Invalid, "The request body is %s; send a JSON object.", jsonKind(any))
	}
	if deeper(t, maxDepth) {
		return nil, fault.New(fault.Invalid, "The request body has objects and arrays within each other more than %d levels deep; send a flatter one.", maxDepth)
	}
	return t, nil
}

// deeper reports whether v has more than levels of objects and arrays.
func deeper(v any, levels int) bool {
	switch v := v.(type) {
	case Tree:
		for _, e := range v {
			if levels == 0 || deeper(e, levels-1) {
				return true
			}
		}
	case []any:
		for _, e := range v {
			if levels == 0 || deeper(e, levels-1) {
				return true
			}
		}
	}
	return false
}

func syntaxFault(body []byte, err error) error {
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) {
		upTo := body[:min(int(syntax.Offset), len(body))]
		line := 1 + bytes.Count(upTo, []byte("\n"))
		column := len(upTo) - bytes.LastIndexByte(upTo, '\n') - 1
		return fault.New(fault.Invalid, "The request body is not JSON (line %d, column %d: %s); send a JSON object.", line, column, syntax)
	}
	if len(bytes.TrimSpace(body)) == 0 {
		return fault.New(fault.Invalid, "The request has no body; send a JSON object.")
	}
	return fault.New(fault.Invalid, "The request body ends in the middle of its JSON; send the whole object.")
}

func jsonKind(v any) string {
	switch v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case json.Number:
		return "a number"
	case string:
		return "a text"
	case []any:
		return "an array"
	default:
		return "an object"
	}
}

// Tree reads a client's object with everything in it, its members spelled as the
// wire type spells them. Whether their values fit, Value finds.
func (k *Kind) Tree(body []byte) (Tree, error) {
	raw, err := Parse(body)
	if err != nil {
		return nil, err
	}
	tree, _ := k.schema.normalize(raw).(Tree)
	return tree, nil
}

// Decode reads a client's object: the tree with everything in it, and the wire
// type's value. A member of the wrong type is a fault that names it.
func (k *Kind) Decode(body []byte) (Tree, any, error) {
	tree, err := k.Tree(body)
	if err != nil {
		return nil, nil, err
	}
	v, err := k.Value(tree)
	return tree, v, err
}

// KeepUnknown adds to a tree what extra has beside what the wire type knows.
func (k *Kind) KeepUnknown(tree, extra Tree) { k.schema.keepUnknown(tree, extra) }

// Value converts a tree to a pointer to the wire type.
func (k *Kind) Value(tree Tree) (any, error) {
	body, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", k.Noun, err)
	}
	v := k.New()
	if err := json.Unmarshal(body, v); err != nil {
		return nil, Misfit(body, k.Type)
	}
	return v, nil
}

// Encode converts a pointer to the wire type to a tree, and adds to it what
// extra has beside what the type knows.
func (k *Kind) Encode(v any, extra Tree) (Tree, error) {
	body, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", k.Noun, err)
	}
	tree, err := Parse(body)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", k.Noun, err)
	}
	k.schema.keepUnknown(tree, extra)
	return tree, nil
}

// Walk calls fn for every place that path names in tree: the object and the key
// within it.
func Walk(tree Tree, path string, fn func(obj Tree, key string)) {
	walk(tree, strings.Split(path, "."), fn)
}

func walk(node any, path []string, fn func(obj Tree, key string)) {
	step, rest := path[0], path[1:]
	visit := func(obj Tree, key string) {
		value, ok := obj[key]
		switch {
		case !ok:
		case len(rest) == 0:
			fn(obj, key)
		default:
			walk(value, rest, fn)
		}
	}
	switch v := node.(type) {
	case Tree:
		if step != "*" {
			visit(v, step)
			return
		}
		for key := range v {
			visit(v, key)
		}
	case []any:
		if step != "*" || len(rest) == 0 {
			return
		}
		for _, element := range v {
			walk(element, rest, fn)
		}
	}
}

// Values lists the non-empty texts that path names in tree: the elements of an
// array at its end, the keys of an object for a trailing `*key`, else the value.
func Values(tree Tree, path string) []string {
	keys := false
	if p, ok := strings.CutSuffix(path, ".*key"); ok {
		path, keys = p, true
	}
	var out []string
	add := func(v any) {
		switch v := v.(type) {
		case string:
			if v != "" {
				out = append(out, v)
			}
		case json.Number:
			out = append(out, v.String())
		case bool:
			out = append(out, strconv.FormatBool(v))
		}
	}
	Walk(tree, path, func(obj Tree, key string) {
		switch v := obj[key].(type) {
		case []any:
			for _, e := range v {
				add(e)
			}
		case Tree:
			if keys {
				for k := range v {
					add(k)
				}
			}
		default:
			add(v)
		}
	})
	return out
}

// Text returns the text at a top-level member, "" when there is none.
func Text(tree Tree, member string) string {
	s, _ := tree[member].(string)
	return s
}
