// Package octopus has the wire types of the REST API that Tako serves, which is
// compatible with Octopus Deploy's: one plain struct per JSON document, written
// and read as clients of that API expect.
//
// The package is data only. It imports nothing else of Tako, keeps no state and
// decides nothing; defaults and rules belong to the code that serves a type.
// What it does settle is the shape of the JSON, once and for every document:
//
//   - Arrays are [] and objects that are maps are {}, never null, since clients
//     range over the first and write into the second. [List] and [Map] do that
//     for their nil values, so that a zero struct is a valid document.
//   - A reference or a text that may be absent is null, not "": [NullString].
//     Other scalars that may be null are pointers.
//   - Time stamps carry a zone ([Time]); periods are texts of the form
//     d.hh:mm:ss ([TimeSpan]).
//   - A secret is written as a new value and never read back ([Sensitive]).
//   - Documents of several shapes (a target's endpoint, an account, a feed, a
//     trigger) keep what they do not know, so that a type made for a newer or
//     another server comes back unharmed.
//
// Names of members are matched without case on the way in, as encoding/json
// does; clients rely on it.
package octopus

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Resource is the part that all stored documents have in common.
type Resource struct {
	// ID is assigned by the server, made of a prefix for the kind and a
	// number: "Projects-12". Clients treat it as opaque.
	ID string `json:"Id"`
	// LastModifiedOn is null for a document that no one has changed since it
	// was made by the server itself.
	LastModifiedOn *Time `json:"LastModifiedOn"`
	// LastModifiedBy is the user name of who did.
	LastModifiedBy NullString `json:"LastModifiedBy"`
	// Links maps a relation's name ("Self", "Web") to a path relative to the
	// host, or to a URI template of RFC 6570.
	Links Links `json:"Links"`
}

// Links are the hypermedia links of a document, by relation name.
type Links = Map[string, string]

// List is a slice whose nil value is written as [] and not as null.
type List[T any] []T

// MarshalJSON writes the elements.
func (l List[T]) MarshalJSON() ([]byte, error) {
	if l == nil {
		return []byte("[]"), nil
	}
	return json.Marshal([]T(l))
}

// Map is a map whose nil value is written as {} and not as null.
type Map[K ~string, V any] map[K]V

// MarshalJSON writes the members in the order of their names.
func (m Map[K, V]) MarshalJSON() ([]byte, error) {
	if m == nil {
		return []byte("{}"), nil
	}
	return json.Marshal(map[K]V(m))
}

// NullString is a text that is null on the wire when it is empty: an optional
// reference to another document, or a text that nobody has entered.
type NullString string

// MarshalJSON writes null for "".
func (s NullString) MarshalJSON() ([]byte, error) {
	if s == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(s))
}

// Named is an id with the name that people know it by.
type Named struct {
	ID   string `json:"Id"`
	Name string `json:"Name"`
}

// Page is one page of a collection.
type Page[T any] struct {
	// ItemType names what the items are: "Project".
	ItemType string `json:"ItemType"`
	// TotalResults counts the items of all pages that match the request.
	TotalResults int64 `json:"TotalResults"`
	// ItemsPerPage is the number that the request asked for, after bounding.
	ItemsPerPage int64 `json:"ItemsPerPage"`
	// NumberOfPages is at least 1, also for an empty collection.
	NumberOfPages int64 `json:"NumberOfPages"`
	// LastPageNumber is the zero-based number of the last page.
	LastPageNumber int64   `json:"LastPageNumber"`
	Items          List[T] `json:"Items"`
	// Links has Self, Template, Page.All, Page.Current, Page.Last and, when
	// there is one, Page.Next; a client's walk ends where Page.Next is missing.
	Links Links `json:"Links"`
}

// ErrorBody is the body of every answer that is no success.
type ErrorBody struct {
	ErrorMessage string `json:"ErrorMessage"`
	// Errors has a sentence per fault. It is left out when empty: clients that
	// see the member, even as [], print it in place of ErrorMessage and no
	// longer recognise a 404 as "gone".
	Errors          []string     `json:"Errors,omitempty"`
	FullException   NullString   `json:"FullException"`
	HelpLink        NullString   `json:"HelpLink"`
	HelpText        NullString   `json:"HelpText"`
	ParsedHelpLinks List[string] `json:"ParsedHelpLinks"`
}

// firstByte is the first byte of a JSON value, 0 when there is none.
func firstByte(data []byte) byte {
	if data = bytes.TrimLeft(data, " \t\r\n"); len(data) > 0 {
		return data[0]
	}
	return 0
}

// excerpt cuts a JSON value to what an error message can carry.
func excerpt(data []byte) string {
	const most = 40
	if len(data) > most {
		return fmt.Sprintf("%.40s...", data)
	}
	return string(data)
}
