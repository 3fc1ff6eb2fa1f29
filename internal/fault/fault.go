// Package fault names the few ways in which a request can fail for a reason
// that its caller should hear about.
//
// Code deep inside returns a fault with the kind and a sentence for people;
// the HTTP writer turns the kind into a status and the sentence into the body,
// and nothing else picks a status. Any other error is internal: its text goes
// to the log, never to the caller.
package fault

import (
	"errors"
	"fmt"
	"strings"
)

// Kind says what went wrong in the terms a caller can act on.
type Kind uint8

// The kinds, with the HTTP status that the API's writer gives them.
const (
	Internal        Kind = iota // 500: our own failure; the text stays in the log
	Invalid                     // 400: the request breaks a rule; Field says where
	Unauthenticated             // 401: nobody is signed in
	Forbidden                   // 403: signed in, but the permission is missing
	NotFound                    // 404: it does not exist, or the caller may not see it
	Conflict                    // 409: it collides with what is stored
	TooLarge                    // 413: a body or a value is over its limit
	Unsupported                 // 501: understood, but this server cannot do it
	Unavailable                 // 503: try again later
	TooMany                     // 429: slow down
)

// String returns the kind's name for logs.
func (k Kind) String() string {
	names := [...]string{"internal", "invalid", "unauthenticated", "forbidden", "not found", "conflict", "too large", "unsupported", "unavailable", "too many requests"}
	if int(k) < len(names) {
		return names[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Error is a failure with a kind and a sentence meant for the caller.
type Error struct {
	Kind    Kind
	Field   string // the request's field at fault, "" when it is none
	Message string // a whole sentence: the field, the value and the remedy
	Cause   error  // for the log only, may be nil
}

// Error returns the public sentence, followed by the private cause.
func (e *Error) Error() string {
	if e.Cause != nil {
		return e.Message + ": " + e.Cause.Error()
	}
	return e.Message
}

// Unwrap gives errors.Is and errors.As the cause.
func (e *Error) Unwrap() error { return e.Cause }

// New makes a fault of any kind; the message is formatted as by fmt.Sprintf.
func New(kind Kind, format string, args ...any) *Error {
	return &Error{Kind: kind, Message: fmt.Sprintf(format, args...)}
}

// InvalidField reports that field breaks a rule. Several can be joined with errors.Join:
// each becomes one entry of the answer's Errors.
func InvalidField(field, format string, args ...any) *Error {
	return &Error{Kind: Invalid, Field: field, Message: fmt.Sprintf(format, args...)}
}

// Missing reports that there is no such thing, or none that the caller may see.
// The answer is the same in both cases, so that ids cannot be probed.
func Missing(what, id string) *Error {
	return New(NotFound, "The %s '%s' was not found, or you do not have permission to view it.", what, id)
}

// KindOf returns the kind of err: that of the first fault in its chain, or of
// the first in a joined error; Internal when there is none.
func KindOf(err error) Kind {
	var e *Error
	if errors.As(err, &e) {
		return e.Kind
	}
	return Internal
}

// Is reports whether err carries a fault of that kind.
func Is(err error, kind Kind) bool { return err != nil && KindOf(err) == kind }

// Faults lists every fault in err's tree, in order, without looking below a fault.
func Faults(err error) []*Error {
	switch e := err.(type) { //nolint:errorlint // walks the tree itself
	case nil:
		return nil
	case *Error:
		return []*Error{e}
	case interface{ Unwrap() []error }:
		var all []*Error
		for _, sub := range e.Unwrap() {
			all = append(all, Faults(sub)...)
		}
		return all
	default:
		return Faults(errors.Unwrap(err))
	}
}

// Messages returns the sentences of every fault in err, for the caller's eyes.
func Messages(err error) []string {
	var out []string
	for _, f := range Faults(err) {
		if m := strings.TrimSpace(f.Message); m != "" {
			out = append(out, m)
		}
	}
	return out
}
