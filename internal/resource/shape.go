package resource

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"io"
	"reflect"
	"strings"
)

// shapeOf is a fingerprint of what a type looks like in JSON: the names and types
// of its members, at every depth. It does not depend on the build.
func shapeOf(t reflect.Type) int64 {
	h := fnv.New64a()
	writeShape(h, t, map[reflect.Type]int{})
	return int64(h.Sum64() >> 1) // positive, for the eyes of whoever reads the column
}

// writeShape describes t; open has the types that are being described, which a
// type that contains itself refers to by their number.
func writeShape(w io.Writer, t reflect.Type, open map[reflect.Type]int) {
	for t.Kind() == reflect.Pointer {
		fmt.Fprint(w, "*")
		t = t.Elem()
	}
	if n, ok := open[t]; ok {
		fmt.Fprint(w, "^", n)
		return
	}
	fmt.Fprint(w, t.Kind())
	open[t] = len(open)
	defer delete(open, t)
	switch t.Kind() {
	case reflect.Slice, reflect.Array, reflect.Map:
		fmt.Fprint(w, "<")
		writeShape(w, t.Elem(), open)
		fmt.Fprint(w, ">")
	case reflect.Struct:
		fmt.Fprint(w, "{")
		for f := range t.Fields() {
			tag := f.Tag.Get("json")
			if name, _, _ := strings.Cut(tag, ","); name == "-" || !f.IsExported() && !f.Anonymous {
				continue
			}
			fmt.Fprint(w, f.Name, " ", tag, ":")
			writeShape(w, f.Type, open)
			fmt.Fprint(w, ";")
		}
		fmt.Fprint(w, "}")
	default:
	}
}

// Refresh completes a body that was stored under another shape: it gets the
// members that the wire type has by now, with their defaults, and keeps all that
// it has.
func (k *Kind) Refresh(body []byte) ([]byte, error) {
	tree, err := Parse(body)
	if err != nil {
		return nil, err
	}
	v, err := k.Value(tree)
	if err != nil {
		return nil, err
	}
	k.Prepare(v)
	complete, err := k.Encode(v, tree)
	if err != nil {
		return nil, err
	}
	if _, ok := tree["Links"]; !ok {
		delete(complete, "Links") // follows from the rest, and is never stored
	}
	return json.Marshal(complete)
}

// has reports whether a path leads to a member that the type declares.
func (s *schema) has(path string) bool {
	path, _ = strings.CutSuffix(path, ".*key")
	for step := range strings.SplitSeq(path, ".") {
		if step == "*" && s.elem != nil {
			s = s.elem
			continue
		}
		m, ok := s.fields[foldName(step)]
		if !ok || m.name != step {
			return false
		}
		s = m.of
	}
	return true
}
