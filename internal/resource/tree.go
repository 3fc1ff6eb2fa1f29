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
)

// Tree is a JSON object as it is stored: members are spelled as the wire type
// spells them, numbers are json.Number, and members that the type does not know
// are kept, so that a client newer than the server loses nothing.
type Tree = map[string]any

// schema is what the tree functions need of a Go type.
type schema struct {
	fields map[string]member // by folded name; nil when it is no struct
	elem   *schema           // of a slice, an array or a map
	list   bool              // elem is of a slice
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
		if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Marshaler]()) {
			return s // it writes itself, and keeps what it does not know by itself
		}
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
		fields[strings.ToLower(name)] = member{name, schemaOf(f.Type, known)}
	}
}

// normalize spells the members of in as the type does.
func (s *schema) normalize(in any) any {
	switch v := in.(type) {
	case Tree:
		out := make(Tree, len(v))
		for key, value := range v {
			switch {
			case s.fields != nil:
				if m, ok := s.fields[strings.ToLower(key)]; ok {
					if _, exact := v[m.name]; exact && key != m.name {
						continue // of two spellings the exact one counts
					}
					key, value = m.name, m.of.normalize(value)
				}
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

// keepUnknown adds to known what in has and the type does not know.
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
			if m, ok := s.fields[strings.ToLower(key)]; ok {
				m.of.keepUnknown(k[m.name], value)
			} else {
				k[key] = value
			}
		}
	case []any:
		v, ok := in.([]any)
		if !ok || s.elem == nil || len(v) != len(k) {
			return
		}
		for i := range k {
			s.elem.keepUnknown(k[i], v[i])
		}
	}
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
	return t, nil
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

// Decode reads a client's object: the tree with everything in it, and the wire
// type's value. A member of the wrong type is a fault that names it.
func (k *Kind) Decode(body []byte) (Tree, any, error) {
	raw, err := Parse(body)
	if err != nil {
		return nil, nil, err
	}
	tree, _ := k.schema.normalize(raw).(Tree)
	v, err := k.Value(tree)
	return tree, v, err
}

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

// Walk calls fn for every place that path names in tree: the object and the
// key within it, and at, the place's own name in which an element of an array
// is called by its Id when it has one.
func Walk(tree Tree, path string, fn func(obj Tree, key, at string)) {
	walk(tree, strings.Split(path, "."), "", fn)
}

func walk(node any, path []string, at string, fn func(obj Tree, key, at string)) {
	step, rest := path[0], path[1:]
	switch v := node.(type) {
	case Tree:
		keys := []string{step}
		if step == "*" {
			keys = keys[:0]
			for key := range v {
				keys = append(keys, key)
			}
		}
		for _, key := range keys {
			value, ok := v[key]
			if !ok {
				continue
			}
			here := join(at, key)
			if len(rest) == 0 {
				fn(v, key, here)
			} else {
				walk(value, rest, here, fn)
			}
		}
	case []any:
		if step != "*" {
			return
		}
		for i, element := range v {
			name := strconv.Itoa(i)
			if obj, ok := element.(Tree); ok {
				if id, ok := obj["Id"].(string); ok && id != "" {
					name = id
				}
			}
			if len(rest) > 0 {
				walk(element, rest, join(at, name), fn)
			}
		}
	}
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
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
	Walk(tree, path, func(obj Tree, key, _ string) {
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
