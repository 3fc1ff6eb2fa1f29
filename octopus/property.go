package octopus

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
)

// Sensitive is a secret on the wire. A client writes NewValue; an answer has
// HasValue and never the value. A write without NewValue keeps the stored
// secret while HasValue is true, and removes it when HasValue is false.
//
// It prints and logs as "***".
type Sensitive struct {
	HasValue bool       `json:"HasValue"`
	Hint     NullString `json:"Hint"`
	// NewValue is always a member of the JSON, null when there is none: some
	// clients fail on its absence.
	NewValue *string `json:"NewValue"`
}

// NewSensitive is a secret to be written; "" is no secret.
func NewSensitive(value string) Sensitive {
	if value == "" {
		return Sensitive{}
	}
	return Sensitive{HasValue: true, NewValue: &value}
}

// Masked returns what an answer may carry: s without its value.
func (s Sensitive) Masked() Sensitive {
	return Sensitive{HasValue: s.HasValue || s.NewValue != nil && *s.NewValue != "", Hint: s.Hint}
}

// String hides the value.
func (s Sensitive) String() string { return "***" }

// GoString hides the value.
func (s Sensitive) GoString() string { return "***" }

// LogValue hides the value.
func (s Sensitive) LogValue() slog.Value { return slog.StringValue("***") }

// UnmarshalJSON reads the object, and, for clients of old, a plain text as a
// new value.
func (s *Sensitive) UnmarshalJSON(data []byte) error {
	switch firstByte(data) {
	case 'n':
		return nil
	case '"':
		var value string
		if err := json.Unmarshal(data, &value); err != nil {
			return err
		}
		*s = NewSensitive(value)
		return nil
	}
	type plain Sensitive
	var p plain
	if err := json.Unmarshal(data, &p); err != nil {
		// The input is a secret: nothing of it may reach the message.
		return fmt.Errorf("sensitive value: want {\"HasValue\": true, \"NewValue\": \"text\"}")
	}
	*s = Sensitive(p)
	return nil
}

// PlainSecret is a secret that travels as a plain text, in the few documents
// where it must: a password at sign-in, a new API key in the answer that makes
// it. It prints and logs as "***".
type PlainSecret string

// String hides the value.
func (s PlainSecret) String() string { return "***" }

// GoString hides the value.
func (s PlainSecret) GoString() string { return "***" }

// LogValue hides the value.
func (s PlainSecret) LogValue() slog.Value { return slog.StringValue("***") }

// PropertyValue is the value of a property of a step, an action or a template's
// parameter: a text, or a secret. On the wire the first is a JSON string, the
// second the object of [Sensitive].
type PropertyValue struct {
	// Value is the text; it is "" for a secret.
	Value string
	// Sensitive is not nil for a secret.
	Sensitive *Sensitive
}

// Plain is a property value that is a text.
func Plain(value string) PropertyValue { return PropertyValue{Value: value} }

// Secret is a property value that is a secret to be written.
func Secret(value string) PropertyValue {
	s := NewSensitive(value)
	return PropertyValue{Sensitive: &s}
}

// IsSensitive reports whether the value is a secret.
func (v PropertyValue) IsSensitive() bool { return v.Sensitive != nil }

// MarshalJSON writes a string or the object of a secret.
func (v PropertyValue) MarshalJSON() ([]byte, error) {
	if v.Sensitive != nil {
		return json.Marshal(*v.Sensitive)
	}
	return json.Marshal(v.Value)
}

// UnmarshalJSON reads a string; null as ""; a number as its digits; true and
// false as "True" and "False"; the object of a secret; and the object
// {"IsSensitive", "Value", "SensitiveValue"} that some exports have.
func (v *PropertyValue) UnmarshalJSON(data []byte) error {
	if firstByte(data) != '{' {
		text, err := scalarText(data)
		if err != nil {
			return fmt.Errorf("property value: %w", err)
		}
		*v = PropertyValue{Value: text}
		return nil
	}
	var wrapper struct {
		IsSensitive    *bool
		Value          *PropertyText
		SensitiveValue *Sensitive
	}
	if err := json.Unmarshal(data, &wrapper); err != nil {
		return fmt.Errorf("property value: want a text or {\"HasValue\", \"NewValue\"}")
	}
	switch {
	case wrapper.SensitiveValue != nil:
		*v = PropertyValue{Sensitive: wrapper.SensitiveValue}
	case wrapper.Value != nil && (wrapper.IsSensitive == nil || !*wrapper.IsSensitive):
		*v = PropertyValue{Value: string(*wrapper.Value)}
	default:
		var s Sensitive
		if err := json.Unmarshal(data, &s); err != nil {
			return err
		}
		*v = PropertyValue{Sensitive: &s}
	}
	return nil
}

// Properties are the settings of a step or an action by key, such as
// "Octopus.Action.Script.ScriptBody". Keys are compared without case.
type Properties map[string]PropertyValue

// MarshalJSON writes {} for nil.
func (p Properties) MarshalJSON() ([]byte, error) {
	if p == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(map[string]PropertyValue(p))
}

// Lookup finds a value by its key without regard to case; an exact match wins.
func (p Properties) Lookup(key string) (PropertyValue, bool) {
	if v, ok := p[key]; ok {
		return v, true
	}
	// The smallest of several matches, so that the answer does not depend on
	// the order of a map.
	found := ""
	for k := range p {
		if strings.EqualFold(k, key) && (found == "" || k < found) {
			found = k
		}
	}
	if found == "" {
		return PropertyValue{}, false
	}
	return p[found], true
}

// Get returns the text of a property, "" when there is none or it is a secret.
func (p Properties) Get(key string) string {
	v, _ := p.Lookup(key)
	return v.Value
}

// PropertyText is a text that clients also send as a number or as true and
// false; it is always written as a string.
type PropertyText string

// UnmarshalJSON reads any scalar as its text, null as "".
func (t *PropertyText) UnmarshalJSON(data []byte) error {
	text, err := scalarText(data)
	if err != nil {
		return err
	}
	*t = PropertyText(text)
	return nil
}

// scalarText reads a JSON scalar as the text that a property keeps.
func scalarText(data []byte) (string, error) {
	switch firstByte(data) {
	case 'n':
		return "", nil
	case 't':
		return "True", nil
	case 'f':
		return "False", nil
	case '"':
		var s string
		err := json.Unmarshal(data, &s)
		return s, err
	case '{', '[':
		return "", fmt.Errorf("want a text, a number, true or false")
	default:
		var n json.Number
		if err := json.Unmarshal(data, &n); err != nil {
			return "", fmt.Errorf("want a text, a number, true or false")
		}
		return n.String(), nil
	}
}
