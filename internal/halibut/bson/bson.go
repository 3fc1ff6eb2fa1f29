// Package bson reads and builds the subset of BSON that the agent protocol uses.
//
// Reading makes no tree: Read and Parse look over a whole document once (lengths,
// depth, number of elements, UTF-8), and after that its elements are walked where
// they lie. So what a peer sends costs as much memory as it has bytes, and nothing
// that was accepted can fail later for being cut off.
package bson

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"time"
	"unicode/utf8"
)

// Type is the kind of an element's value.
type Type byte

// The types. Double is only ever skipped: nothing in the protocol has one.
const (
	Double   Type = 0x01
	String   Type = 0x02
	Document Type = 0x03
	Array    Type = 0x04
	Binary   Type = 0x05
	Bool     Type = 0x08
	DateTime Type = 0x09
	Null     Type = 0x0A
	Int32    Type = 0x10
	Int64    Type = 0x12
)

// Subtypes of Binary.
const (
	SubtypeBytes byte = 0x00
	SubtypeGUID  byte = 0x04
)

// Limits of one document.
const (
	MaxDepth    = 32      // documents within documents, the outermost counted
	MaxElements = 4 << 20 // elements at all depths
	minDocument = 5       // length and end
	maxDocument = math.MaxInt32
)

// ErrMalformed is wrapped by every error that says what a peer sent is no BSON, or
// more of it than the limits allow.
var ErrMalformed = errors.New("malformed BSON")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrMalformed, fmt.Sprintf(format, args...))
}

// Raw is a document or an array that has been looked over.
type Raw []byte

// Element is one member of a document. Its bytes are those of the document.
type Element struct {
	Type Type
	Name []byte // in an array its number in decimal digits, which nobody checks
	data []byte
}

// firstChunk is what is reserved before the peer has sent anything of a document.
const firstChunk = 4 << 10

// Read reads one document of at most limit bytes and looks it over. grown, unless
// nil, is asked once before more than free bytes are reserved.
func Read(r io.Reader, limit, free int, grown func() error) (Raw, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return nil, err
	}
	size := int64(binary.LittleEndian.Uint32(head[:]))
	if size < minDocument || size > int64(min(limit, maxDocument)) {
		return nil, malformed("a document of %d bytes; %d to %d are accepted", size, minDocument, limit)
	}
	// What is reserved follows what has come: a peer that only announces a large
	// document gets little memory.
	doc := append(make([]byte, 0, min(int(size), firstChunk)), head[:]...)
	for len(doc) < int(size) {
		if len(doc) == cap(doc) {
			next := min(int(size), 2*cap(doc))
			if grown != nil && next > free {
				if err := grown(); err != nil {
					return nil, err
				}
				grown = nil
			}
			doc = append(make([]byte, 0, next), doc...)
		}
		n, err := io.ReadFull(r, doc[len(doc):cap(doc)])
		doc = doc[:len(doc)+n]
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
	return Parse(doc)
}

// Parse looks a document over. It keeps b.
func Parse(b []byte) (Raw, error) {
	left := MaxElements
	rest, err := check(b, 1, &left)
	if err != nil {
		return nil, err
	}
	if len(rest) > 0 {
		return nil, malformed("%d bytes follow the document", len(rest))
	}
	return b, nil
}

// check looks over the document at the beginning of b and returns what follows it.
func check(b []byte, depth int, left *int) ([]byte, error) {
	if depth > MaxDepth {
		return nil, malformed("documents are nested more than %d deep", MaxDepth)
	}
	if len(b) < minDocument {
		return nil, malformed("a document is cut off")
	}
	size := uint64(binary.LittleEndian.Uint32(b))
	if size < minDocument || size > uint64(len(b)) {
		return nil, malformed("a document of %d bytes where there are %d", size, len(b))
	}
	doc, after := b[4:size], b[size:]
	for len(doc) > 1 {
		if *left--; *left < 0 {
			return nil, malformed("more than %d elements", MaxElements)
		}
		e, rest, err := split(doc)
		if err != nil {
			return nil, err
		}
		switch e.Type {
		case Document, Array:
			if _, err := check(e.data, depth+1, left); err != nil {
				return nil, err
			}
		case String:
			if e.data[len(e.data)-1] != 0 || !utf8.Valid(e.data[4:len(e.data)-1]) {
				return nil, malformed("the text of %q is no UTF-8, or has no end", e.Name)
			}
		case Bool:
			if e.data[0] > 1 {
				return nil, malformed("the boolean %q is %d", e.Name, e.data[0])
			}
		default:
		}
		doc = rest
	}
	if len(doc) != 1 || doc[0] != 0 {
		return nil, malformed("a document has no end")
	}
	return after, nil
}

// split takes the first element off what is inside a document.
func split(b []byte) (e Element, rest []byte, err error) {
	e.Type = Type(b[0])
	b = b[1:]
	end := 0
	for end < len(b) && b[end] != 0 {
		end++
	}
	if end == len(b) {
		return e, nil, malformed("an element's name has no end")
	}
	e.Name, b = b[:end], b[end+1:]
	if !utf8.Valid(e.Name) {
		return e, nil, malformed("an element's name is no UTF-8")
	}
	size := uint64(0)
	switch e.Type {
	case Null:
	case Bool:
		size = 1
	case Int32:
		size = 4
	case Double, DateTime, Int64:
		size = 8
	case String, Document, Array, Binary:
		if len(b) < 4 {
			return e, nil, malformed("the element %q is cut off", e.Name)
		}
		size = uint64(binary.LittleEndian.Uint32(b))
		switch e.Type {
		case String:
			if size == 0 {
				return e, nil, malformed("the text of %q has no end", e.Name)
			}
			size += 4
		case Binary:
			size += 5
		case Document, Array:
			if size < minDocument {
				return e, nil, malformed("the document %q has %d bytes", e.Name, size)
			}
		default:
		}
	default:
		return e, nil, malformed("the element %q has the type 0x%02x, which is not used here", e.Name, byte(e.Type))
	}
	if size > uint64(len(b)) {
		return e, nil, malformed("the element %q is cut off", e.Name)
	}
	e.data = b[:size]
	return e, b[size:], nil
}

// Elements walks the members in their order.
func (r Raw) Elements() iter.Seq[Element] {
	return func(yield func(Element) bool) {
		if len(r) < minDocument {
			return
		}
		for doc := []byte(r[4:]); len(doc) > 1; {
			e, rest, err := split(doc)
			if err != nil || !yield(e) { // Parse has excluded the former
				return
			}
			doc = rest
		}
	}
}

// Len counts the members.
func (r Raw) Len() int {
	n := 0
	for range r.Elements() {
		n++
	}
	return n
}

// Find returns the first member of that name.
func (r Raw) Find(name string) (Element, bool) {
	for e := range r.Elements() {
		if string(e.Name) == name {
			return e, true
		}
	}
	return Element{}, false
}

func (e Element) wrong(want string) error {
	return malformed("%q is of type 0x%02x, where %s is expected", e.Name, byte(e.Type), want)
}

// IsNull reports whether the value is null; that of no element is, too.
func (e Element) IsNull() bool { return e.Type == Null || e.Type == 0 }

// Text returns a string.
func (e Element) Text() (string, error) {
	if e.Type != String {
		return "", e.wrong("a text")
	}
	return string(e.data[4 : len(e.data)-1]), nil
}

// Doc returns a document.
func (e Element) Doc() (Raw, error) {
	if e.Type != Document {
		return nil, e.wrong("a document")
	}
	return Raw(e.data), nil
}

// List returns an array.
func (e Element) List() (Raw, error) {
	if e.Type != Array {
		return nil, e.wrong("an array")
	}
	return Raw(e.data), nil
}

// Bytes returns binary data of a subtype. They are the document's own.
func (e Element) Bytes(subtype byte) ([]byte, error) {
	if e.Type != Binary || e.data[4] != subtype {
		return nil, e.wrong(fmt.Sprintf("binary data of subtype %d", subtype))
	}
	return e.data[5:], nil
}

// Bool returns a boolean.
func (e Element) Bool() (bool, error) {
	if e.Type != Bool {
		return false, e.wrong("a boolean")
	}
	return e.data[0] == 1, nil
}

// Int returns a whole number of either size.
func (e Element) Int() (int64, error) {
	switch e.Type {
	case Int32:
		return int64(int32(binary.LittleEndian.Uint32(e.data))), nil // two's complement
	case Int64:
		return int64(binary.LittleEndian.Uint64(e.data)), nil // two's complement
	default:
		return 0, e.wrong("a whole number")
	}
}

// Time returns a date, in UTC.
func (e Element) Time() (time.Time, error) {
	if e.Type != DateTime {
		return time.Time{}, e.wrong("a date")
	}
	return time.UnixMilli(int64(binary.LittleEndian.Uint64(e.data))).UTC(), nil // two's complement
}
