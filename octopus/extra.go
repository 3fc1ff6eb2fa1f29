package octopus

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
)

// Extra has the members of a document that its Go type does not declare, by
// name. Documents of several shapes keep them, so that a kind that this server
// has never heard of comes back as it was sent.
type Extra map[string]json.RawMessage

// Masked returns a copy whose secrets have lost their values: every object, at
// any depth, that has a member NewValue.
func (e Extra) Masked() Extra {
	masked := maps.Clone(e)
	for name, raw := range masked {
		var value any
		numbers := json.NewDecoder(bytes.NewReader(raw))
		numbers.UseNumber() // what is written back keeps every digit
		if numbers.Decode(&value) != nil {
			continue // not JSON, so it was not read from a document
		}
		if maskSecrets(value) {
			if clean, err := json.Marshal(value); err == nil {
				masked[name] = clean
			}
		}
	}
	return masked
}

// maskSecrets takes the values out of the secrets within value and reports
// whether there were any.
func maskSecrets(value any) bool {
	found := false
	switch v := value.(type) {
	case []any:
		for _, item := range v {
			found = maskSecrets(item) || found
		}
	case map[string]any:
		for name, item := range v {
			if strings.EqualFold(name, "NewValue") {
				if item != nil && item != "" {
					v["HasValue"] = true
				}
				v[name], found = nil, true
				continue
			}
			found = maskSecrets(item) || found
		}
	}
	return found
}

// unmarshalExtra reads data into known, a pointer to a struct, and returns the
// members that the struct does not declare.
func unmarshalExtra(data []byte, known any) (Extra, error) {
	if err := json.Unmarshal(data, known); err != nil {
		return nil, err
	}
	var extra Extra
	if err := json.Unmarshal(data, &extra); err != nil {
		return nil, err
	}
	declared := memberNames(reflect.TypeOf(known).Elem())
	maps.DeleteFunc(extra, func(name string, _ json.RawMessage) bool { return declared[foldName(name)] })
	if len(extra) == 0 {
		return nil, nil
	}
	return extra, nil
}

// marshalExtra writes known, a struct, with the members of extra after its own.
// Of a name that both have, the struct's holds.
func marshalExtra(known any, extra Extra) ([]byte, error) {
	data, err := json.Marshal(known)
	if err != nil || len(extra) == 0 {
		return data, err
	}
	declared := memberNames(reflect.TypeOf(known))
	var b bytes.Buffer
	b.Write(bytes.TrimSuffix(data, []byte("}")))
	for _, name := range slices.Sorted(maps.Keys(extra)) {
		if declared[foldName(name)] {
			continue
		}
		key, err := json.Marshal(name)
		if err != nil {
			return nil, fmt.Errorf("member %q: %w", name, err)
		}
		if b.Len() > 1 {
			b.WriteByte(',')
		}
		b.Write(key)
		b.WriteByte(':')
		b.Write(extra[name])
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

// foldName maps a member's name to the form in which encoding/json compares
// names. Upper case comes first for the letters that have no way back from it,
// such as the long s, which matches s.
func foldName(name string) string { return strings.ToLower(strings.ToUpper(name)) }

// memberNames are the folded names of a struct's JSON members, those of embedded
// structs among them.
func memberNames(t reflect.Type) map[string]bool {
	names := map[string]bool{}
	for i := range t.NumField() {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case name != "":
			names[foldName(name)] = true
		case field.Anonymous && field.Type.Kind() == reflect.Struct:
			maps.Copy(names, memberNames(field.Type))
		default:
			names[foldName(field.Name)] = true
		}
	}
	return names
}
