// Package ocl reads and writes Octopus Configuration Language, the files in
// which version-controlled projects keep their deployment process, settings,
// variables and runbooks.
//
// [Parse] turns a text into a tree of attributes and blocks, [Print] turns a
// tree into the one text that stands for it: printing what was parsed from a
// printed text gives the same bytes. On top of the tree, ReadProcess,
// WriteProcess and their like translate between files and the API's model.
//
// The language in short: an attribute is a name, "=" and a value on one line; a
// block is a name, quoted labels and a body in braces. Values are null, true,
// false, whole and decimal numbers, quoted strings, here-documents (<<TAG, and
// <<-TAG, whose common indentation is removed), lists and dictionaries. There
// are no comments, no expressions and no references: #{...} inside a string is
// a matter of the string's reader.
package ocl

import (
	"fmt"

	"github.com/takodeploy/tako/internal/fault"
)

// Limits of a text.
const (
	// MaxSize is the longest text that is parsed, in bytes.
	MaxSize = 8 << 20
	// MaxDepth is how deep blocks and dictionaries may be nested.
	MaxDepth = 64
)

// Body is what a document or a block consists of, in order. Names may repeat;
// that is how lists of blocks are made.
type Body []Item

// Item is an attribute or a block.
type Item struct {
	Name string
	// Value is the attribute's; it has no meaning for a block.
	Value Value
	// Block is nil for an attribute.
	Block *Block
	// Pos is where the name stands, zero in a tree that was not parsed.
	Pos Pos
}

// Block is a body with labels.
type Block struct {
	Labels []string
	Body   Body
}

// Attr makes an attribute.
func Attr(name string, value Value) Item { return Item{Name: name, Value: value} }

// NewBlock makes a block.
func NewBlock(name string, labels []string, body Body) Item {
	return Item{Name: name, Block: &Block{Labels: labels, Body: body}}
}

// Pos is a place in a text; both count from 1, columns in characters.
type Pos struct{ Line, Column int }

// Kind is what sort of value it is.
type Kind uint8

// The kinds of values.
const (
	Null Kind = iota
	Bool
	Int
	Decimal
	String
	List
	Map
)

// Format is how a string is written.
type Format uint8

// The formats of strings.
const (
	// Auto is quoted, or an indented here-document if the text has several lines.
	Auto Format = iota
	// SingleLine is quoted, with \n for line breaks.
	SingleLine
	// Heredoc is <<TAG: lines as they are.
	Heredoc
	// Indented is <<-TAG: lines with an indentation that is not part of the text.
	Indented
)

// Value is the value of an attribute. The zero value is null.
type Value struct {
	Kind Kind
	Bool bool
	Int  int64
	// Text is a string, or the digits of a decimal number, which is not a
	// binary fraction and stays as it was written.
	Text string
	// Format and Tag are how a string was, or is to be, written. A here-document
	// that its text or tag does not permit is written as a quoted string, or
	// with another tag.
	Format Format
	Tag    string
	List   []Value
	Map    []Entry
}

// Entry is an entry of a dictionary; they are in order, and keys differ.
type Entry struct {
	Key   string
	Value Value
}

// Text makes a string.
func Text(s string) Value { return Value{Kind: String, Text: s} }

// Flag makes true or false.
func Flag(b bool) Value { return Value{Kind: Bool, Bool: b} }

// Number makes a whole number.
func Number(n int64) Value { return Value{Kind: Int, Int: n} }

// Texts makes a list of strings.
func Texts[S ~string](items []S) Value {
	list := make([]Value, len(items))
	for i, s := range items {
		list[i] = Text(string(s))
	}
	return Value{Kind: List, List: list}
}

// SyntaxError says where and why a text cannot be parsed.
type SyntaxError struct {
	Pos     Pos
	Message string
}

// Error gives the place and the reason.
func (e *SyntaxError) Error() string {
	return fmt.Sprintf("line %d, column %d: %s", e.Pos.Line, e.Pos.Column, e.Message)
}

// Unwrap makes it the caller's fault, not ours.
func (e *SyntaxError) Unwrap() error {
	return fault.New(fault.Invalid, "The file cannot be read: %s", e.Error())
}
