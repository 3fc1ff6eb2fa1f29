package resource

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
)

// Misfit says in a fault why body, which is valid JSON, does not decode into t:
// which member it is, what it is and what it must be. The decoder names a member
// for wrong JSON types only, and not for types that read themselves, such as
// times; so the member is looked for by decoding each by itself.
func Misfit(body []byte, t reflect.Type) error {
	if err := misfit(body, t, "", 0); err != nil {
		return err
	}
	return fault.New(fault.Invalid, "The request body does not fit what is read here.")
}

// maxMisfit bounds how deep misfit looks.
const maxMisfit = 50

func misfit(body []byte, t reflect.Type, at string, depth int) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	err := json.Unmarshal(body, reflect.New(t).Interface())
	if err == nil {
		return nil
	}
	// A struct that reads itself has, as far as is known, the members it seems to
	// have; another type that does is looked at as a whole.
	ownReader := reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]())
	if depth < maxMisfit && (t.Kind() == reflect.Struct || !ownReader) {
		if inner := misfitInside(body, t, at, depth); inner != nil {
			return inner
		}
	}
	name := at
	if name == "" {
		name = "The request body"
	}
	var wrong *json.UnmarshalTypeError
	is, must := jsonName(body), goName(t)
	switch {
	case errors.As(err, &wrong) && is == must:
		return fault.InvalidField(at, "%s does not fit what is read there.", name)
	case errors.As(err, &wrong):
		return fault.InvalidField(at, "%s is %s; it must be %s.", name, is, must)
	default:
		return fault.InvalidField(at, "%s does not fit: %v.", name, err)
	}
}

func misfitInside(body []byte, t reflect.Type, at string, depth int) error {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		var members map[string]json.RawMessage
		if json.Unmarshal(body, &members) != nil {
			return nil
		}
		types := map[string]memberType{}
		if t.Kind() == reflect.Struct {
			memberTypes(types, t)
		}
		for name, value := range members {
			m, ok := types[strings.ToLower(name)]
			if t.Kind() == reflect.Map {
				m, ok = memberType{name: fmt.Sprintf("%.60s", name), typ: t.Elem()}, true
			}
			if !ok {
				continue
			}
			if err := misfit(value, m.typ, join(at, m.name), depth+1); err != nil {
				return err
			}
		}
	case reflect.Slice, reflect.Array:
		var elements []json.RawMessage
		if json.Unmarshal(body, &elements) != nil {
			return nil
		}
		for i, e := range elements {
			if err := misfit(e, t.Elem(), join(at, strconv.Itoa(i)), depth+1); err != nil {
				return err
			}
		}
	default:
	}
	return nil
}

func join(at, key string) string {
	if at == "" {
		return key
	}
	return at + "." + key
}

// jsonName says what a JSON value is. It repeats none of it: it may be a secret.
func jsonName(body []byte) string {
	body = bytes.TrimSpace(body)
	if len(body) == 0 {
		return "nothing"
	}
	switch body[0] {
	case '{':
		return "an object"
	case '[':
		return "an array"
	case '"':
		return "a text"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	default:
		return "a number"
	}
}

func goName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.String:
		return "a text"
	case reflect.Bool:
		return "true or false"
	case reflect.Slice, reflect.Array:
		return "an array"
	case reflect.Map, reflect.Struct:
		return "an object"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return fmt.Sprintf("a whole number within %d bits", t.Bits())
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number, 0 or more"
	default:
		return "a number"
	}
}

type memberType struct {
	name string
	typ  reflect.Type
}

// memberTypes collects the members of a struct as the decoder sees them.
func memberTypes(types map[string]memberType, t reflect.Type) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			memberTypes(types, f.Type)
		case f.IsExported():
			if name == "" {
				name = f.Name
			}
			types[strings.ToLower(name)] = memberType{name: name, typ: f.Type}
		}
	}
}
