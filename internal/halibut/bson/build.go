package bson

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
)

// Builder builds a document from its beginning to its end. The zero value is an
// empty document that is open. What it cannot build is told by Done.
type Builder struct {
	b    []byte
	open []int // where documents begin that have no end yet
	err  error
}

func (b *Builder) head(t Type, name string) {
	if len(b.open) == 0 {
		b.open = append(b.open, 0)
		b.b = append(b.b, 0, 0, 0, 0)
	}
	if strings.IndexByte(name, 0) >= 0 && b.err == nil {
		b.err = fmt.Errorf("build BSON: the name %q holds a NUL", name)
	}
	b.b = append(b.b, byte(t))
	b.b = append(b.b, strings.ToValidUTF8(name, "\uFFFD")...)
	b.b = append(b.b, 0)
}

// Begin opens a Document or an Array within; End closes it.
func (b *Builder) Begin(t Type, name string) {
	b.head(t, name)
	b.open = append(b.open, len(b.b))
	b.b = append(b.b, 0, 0, 0, 0)
}

// End closes what Begin opened.
func (b *Builder) End() {
	last := len(b.open) - 1
	at := b.open[last]
	b.open = b.open[:last]
	b.b = append(b.b, 0)
	size := len(b.b) - at
	if size > maxDocument && b.err == nil {
		b.err = fmt.Errorf("build BSON: a document has %d bytes", size)
	}
	binary.LittleEndian.PutUint32(b.b[at:], uint32(size)) // checked above
}

// String adds a text; what is no UTF-8 in it is replaced by U+FFFD.
func (b *Builder) String(name, v string) {
	v = strings.ToValidUTF8(v, "\uFFFD")
	b.head(String, name)
	b.b = binary.LittleEndian.AppendUint32(b.b, uint32(len(v)+1)) // End checks the whole
	b.b = append(b.b, v...)
	b.b = append(b.b, 0)
}

// Binary adds bytes.
func (b *Builder) Binary(name string, subtype byte, v []byte) {
	b.head(Binary, name)
	b.b = binary.LittleEndian.AppendUint32(b.b, uint32(len(v))) // End checks the whole
	b.b = append(b.b, subtype)
	b.b = append(b.b, v...)
}

// Bool adds a boolean.
func (b *Builder) Bool(name string, v bool) {
	b.head(Bool, name)
	if v {
		b.b = append(b.b, 1)
	} else {
		b.b = append(b.b, 0)
	}
}

// Time adds a date, to the millisecond.
func (b *Builder) Time(name string, v time.Time) {
	b.head(DateTime, name)
	b.b = binary.LittleEndian.AppendUint64(b.b, uint64(v.UnixMilli())) // two's complement
}

// Null adds a null.
func (b *Builder) Null(name string) { b.head(Null, name) }

// Int32 adds a number of 32 bits.
func (b *Builder) Int32(name string, v int32) {
	b.head(Int32, name)
	b.b = binary.LittleEndian.AppendUint32(b.b, uint32(v)) // two's complement
}

// Int64 adds a number of 64 bits.
func (b *Builder) Int64(name string, v int64) {
	b.head(Int64, name)
	b.b = binary.LittleEndian.AppendUint64(b.b, uint64(v)) // two's complement
}

// Done closes the document and returns it.
func (b *Builder) Done() (Raw, error) {
	if len(b.open) == 0 {
		b.open = append(b.open, 0)
		b.b = append(b.b, 0, 0, 0, 0)
	}
	for len(b.open) > 0 {
		b.End()
	}
	return b.b, b.err
}
