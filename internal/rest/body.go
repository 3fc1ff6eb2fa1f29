package rest

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"
	"unicode/utf8"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
)

// MaxBody is how many bytes of JSON a request can carry. Uploads stream and have
// limits of their own.
const MaxBody = 16 << 20

// ReadBody returns the whole body of the request, at most [MaxBody] of it. It is
// valid UTF-8 and has no NUL in a text, which PostgreSQL could not keep.
func (r *Request) ReadBody() ([]byte, error) {
	if r.read {
		return r.body, nil
	}
	var buf bytes.Buffer
	if n := r.ContentLength; n > 0 {
		buf.Grow(int(min(n, 1<<20)) + bytes.MinRead)
	}
	if _, err := buf.ReadFrom(r.Body); err != nil {
		return nil, bodyFault(err)
	}
	body := bytes.TrimPrefix(buf.Bytes(), []byte("\xef\xbb\xbf")) // some clients put a mark in front
	if !utf8.Valid(body) {
		return nil, fault.New(fault.Invalid, "The request body is not valid UTF-8; encode it as UTF-8.")
	}
	if hasNUL(body) {
		return nil, fault.New(fault.Invalid, `The request body has the character \u0000 in a text; remove it.`)
	}
	r.body, r.read = body, true
	return body, nil
}

// bodyFault translates the ways in which reading a body fails.
func bodyFault(err error) error {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		return fault.New(fault.TooLarge, "The request body has more than %d bytes; send less at once.", tooLarge.Limit)
	default:
		return &fault.Error{Kind: fault.Invalid, Message: "The request body did not arrive as a whole; send it again.", Cause: err}
	}
}

// hasNUL finds the escape \u0000 that is no escaped backslash before "u0000".
func hasNUL(body []byte) bool {
	for rest := body; ; {
		i := bytes.Index(rest, []byte(`\u0000`))
		if i < 0 {
			return false
		}
		backslashes := 0
		for j := i - 1; j >= 0 && rest[j] == '\\'; j-- {
			backslashes++
		}
		if backslashes%2 == 0 {
			return true
		}
		rest = rest[i+len(`\u0000`):]
	}
}

// Decode reads the JSON body into v, a pointer. Members are matched without case
// and unknown ones are ignored. What does not fit is an Invalid fault that names
// the member, what it is and what it must be.
func (r *Request) Decode(v any) error {
	body, err := r.ReadBody()
	if err != nil {
		return err
	}
	return decode(body, v)
}

// DecodeOptional is Decode for commands that may come without a body, which
// leaves v as it is.
func (r *Request) DecodeOptional(v any) error {
	body, err := r.ReadBody()
	if err != nil || len(bytes.TrimSpace(body)) == 0 {
		return err
	}
	return decode(body, v)
}

func decode(body []byte, v any) error {
	t := reflect.TypeOf(v).Elem()
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	switch wantsArray := t.Kind() == reflect.Slice; {
	case len(trimmed) == 0 && wantsArray:
		return fault.New(fault.Invalid, "The request has no body; send a JSON array.")
	case wantsArray && trimmed[0] == '{':
		return fault.New(fault.Invalid, "The request body is an object; send a JSON array.")
	case !wantsArray && (len(trimmed) == 0 || trimmed[0] != '{'):
		_, err := resource.Parse(body) // says what it is instead
		return err
	}
	err := json.Unmarshal(body, v)
	if err == nil {
		return nil
	}
	var syntax *json.SyntaxError
	if errors.As(err, &syntax) || errors.Is(err, io.ErrUnexpectedEOF) {
		if _, err := resource.Parse(body); err != nil {
			return err
		}
	}
	return resource.Misfit(body, t)
}

// jsonFields calls fn for the members of a struct as encoding/json sees them,
// those of embedded structs too.
func jsonFields(t reflect.Type, fn func(name string, f reflect.StructField)) {
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case name == "-":
		case f.Anonymous && name == "" && f.Type.Kind() == reflect.Struct:
			jsonFields(f.Type, fn)
		case f.IsExported():
			if name == "" {
				name = f.Name
			}
			fn(name, f)
		}
	}
}
