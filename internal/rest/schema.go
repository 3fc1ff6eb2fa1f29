package rest

import (
	"encoding"
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"github.com/takodeploy/tako/octopus"
)

// schema is a JSON schema as OpenAPI 3.0 writes it.
type schema map[string]any

// schemas makes the schemas of Go types, each struct once by name.
type schemas struct {
	named map[string]schema
	names map[reflect.Type]string
}

func newSchemas() *schemas {
	return &schemas{named: map[string]schema{}, names: map[reflect.Type]string{}}
}

// of is the schema of a type in an answer, where every member that is always
// written is required; an input may leave out any.
func (s *schemas) of(t reflect.Type, input bool) schema {
	if t == nil {
		return schema{}
	}
	switch t {
	case reflect.TypeFor[octopus.Time]():
		return schema{"type": "string", "format": "date-time"}
	case reflect.TypeFor[octopus.ClockTime]():
		return schema{"type": "string", "description": "what a wall clock shows; a zone has no meaning", "example": "2026-01-01T09:00:00.000"}
	case reflect.TypeFor[octopus.TimeSpan]():
		return schema{"type": "string", "description": "a period: [d.]hh:mm:ss", "example": "00:02:30"}
	case reflect.TypeFor[octopus.NullString]():
		return schema{"type": "string", "nullable": true}
	case reflect.TypeFor[octopus.PropertyText]():
		return schema{"type": "string"}
	case reflect.TypeFor[octopus.PropertyValue]():
		return schema{"description": "a text, or a secret", "nullable": true}
	case reflect.TypeFor[json.RawMessage]():
		return anything()
	case reflect.TypeFor[[]byte]():
		return schema{"type": "string", "format": "byte", "nullable": true}
	}
	if t.Kind() != reflect.Pointer && t.Implements(reflect.TypeFor[encoding.TextMarshaler]()) {
		return schema{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return nullable(s.of(t.Elem(), input))
	case reflect.String:
		return schema{"type": "string"}
	case reflect.Bool:
		return schema{"type": "boolean"}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return schema{"type": "integer"}
	case reflect.Float32, reflect.Float64:
		return schema{"type": "number"}
	case reflect.Slice, reflect.Array:
		out := schema{"type": "array", "items": s.of(t.Elem(), input)}
		return orNull(out, t, input)
	case reflect.Map:
		out := schema{"type": "object", "additionalProperties": s.of(t.Elem(), input)}
		return orNull(out, t, input)
	case reflect.Struct:
		return schema{"$ref": "#/components/schemas/" + s.name(t, input)}
	default: // an interface
		return anything()
	}
}

func anything() schema { return schema{"nullable": true} }

// orNull marks slices and maps whose nil value is written as null, and inputs,
// which may always say null.
func orNull(s schema, t reflect.Type, input bool) schema {
	if input || !t.Implements(reflect.TypeFor[json.Marshaler]()) {
		s["nullable"] = true
	}
	return s
}

func nullable(s schema) schema {
	if s["$ref"] != nil {
		return schema{"allOf": []schema{s}, "nullable": true}
	}
	if len(s) > 0 {
		s["nullable"] = true
	}
	return s
}

// name registers a struct's schema and returns its name.
func (s *schemas) name(t reflect.Type, input bool) string {
	base, ok := s.names[t]
	if !ok {
		base = strings.ToUpper(t.Name()[:min(1, len(t.Name()))]) + t.Name()[min(1, len(t.Name())):]
		if i := strings.IndexByte(base, '['); i >= 0 { // of a generic type
			base = base[:i]
		}
		for base == "" || s.taken(base) {
			base += "_"
		}
		s.names[t] = base
	}
	name := base
	if input {
		name += "Input"
	}
	if s.named[name] != nil {
		return name
	}
	out := schema{"type": "object"}
	s.named[name] = out // before its members, which may contain it
	properties, required := schema{}, []string{}
	jsonFields(t, func(member string, f reflect.StructField) {
		p := s.of(f.Type, input)
		if input && f.Type.Kind() != reflect.Struct && len(p) > 0 {
			p = nullable(p)
		}
		properties[member] = p
		if _, options, _ := strings.Cut(f.Tag.Get("json"), ","); !strings.Contains(options, "omit") {
			required = append(required, member)
		}
	})
	if len(properties) > 0 {
		out["properties"] = properties
	}
	// A type that writes itself may leave members out, or add some.
	if !input && len(required) > 0 && !t.Implements(reflect.TypeFor[json.Marshaler]()) {
		slices.Sort(required)
		out["required"] = slices.Compact(required)
	}
	return name
}

func (s *schemas) taken(name string) bool {
	for _, n := range s.names {
		if n == name {
			return true
		}
	}
	return false
}

// page is the envelope of a list of t.
func (s *schemas) page(t reflect.Type) schema {
	number := schema{"type": "integer"}
	return schema{
		"type": "object",
		"properties": schema{
			"ItemType": schema{"type": "string"}, "TotalResults": number, "ItemsPerPage": number,
			"NumberOfPages": number, "LastPageNumber": number,
			"Items": schema{"type": "array", "items": s.of(t, false)},
			"Links": schema{"type": "object", "additionalProperties": schema{"type": "string"}},
		},
		"required": []string{"ItemType", "Items", "ItemsPerPage", "LastPageNumber", "Links", "NumberOfPages", "TotalResults"},
	}
}
