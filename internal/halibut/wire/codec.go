package wire

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/halibut/bson"
)

// Typed is what a class of .NET is to the codec: a struct that says which names its
// class has on the wire. The first one is written, any of them is read.
type Typed interface{ TypeNames() []string }

// Nothing is a member that is always null; whatever a peer puts there is ignored.
type Nothing struct{}

const typeKey = "$type"

//nolint:gochecknoglobals // types do not change
var (
	typeGUID     = reflect.TypeFor[GUID]()
	typeTime     = reflect.TypeFor[time.Time]()
	typeDuration = reflect.TypeFor[time.Duration]()
	typeStream   = reflect.TypeFor[*DataStream]()
	typeNothing  = reflect.TypeFor[Nothing]()
	typeBytes    = reflect.TypeFor[[]byte]()
	typeAnys     = reflect.TypeFor[[]any]()
	typeAny      = reflect.TypeFor[any]()
	typeElement  = reflect.TypeFor[bson.Element]()
)

// field is one member of a class. In a struct's tag `wire:"name,null"` the name is
// that on the wire (the field's own otherwise), and null says that a zero value is
// written as null; null is read as the zero value in any case.
type field struct {
	name  string
	index int
	null  bool
}

//nolint:gochecknoglobals // what was found out about types, which do not change
var classes sync.Map // reflect.Type -> []field

func fieldsOf(t reflect.Type) []field {
	if known, ok := classes.Load(t); ok {
		return known.([]field) // nothing else is stored
	}
	var all []field
	for i := range t.NumField() {
		f := t.Field(i)
		if !f.IsExported() {
			continue
		}
		name, option, _ := strings.Cut(f.Tag.Get("wire"), ",")
		if name == "" {
			name = f.Name
		}
		all = append(all, field{name, i, option == "null"})
	}
	classes.Store(t, all)
	return all
}

// encoder writes objects and notes the streams that it meets, in their order.
type encoder struct {
	bson.Builder
	streams []*DataStream
}

// object writes the members of a class.
func (e *encoder) object(v reflect.Value) error {
	for _, f := range fieldsOf(v.Type()) {
		m := v.Field(f.index)
		if f.null && m.IsZero() {
			e.Null(f.name)
			continue
		}
		if err := e.value(f.name, m); err != nil {
			return err
		}
	}
	return nil
}

// value writes a member whose type the receiver knows.
func (e *encoder) value(name string, v reflect.Value) error {
	switch v.Type() {
	case typeGUID:
		g := v.Interface().(GUID).swapped() // its type was just looked at
		e.Binary(name, bson.SubtypeGUID, g[:])
		return nil
	case typeTime:
		e.Time(name, v.Interface().(time.Time)) // its type was just looked at
		return nil
	case typeDuration:
		e.String(name, FormatTimeSpan(time.Duration(v.Int())))
		return nil
	case typeStream:
		if v.IsNil() {
			e.Null(name)
			return nil
		}
		e.Begin(bson.Document, name)
		e.stream(v.Interface().(*DataStream)) // its type was just looked at
		e.End()
		return nil
	case typeNothing:
		e.Null(name)
		return nil
	case typeBytes:
		e.Binary(name, bson.SubtypeBytes, v.Bytes())
		return nil
	case typeAnys:
		e.Begin(bson.Array, name)
		for i := range v.Len() {
			if err := e.any(strconv.Itoa(i), v.Index(i).Elem()); err != nil {
				return err
			}
		}
		e.End()
		return nil
	case typeAny:
		return e.any(name, v.Elem())
	}
	switch v.Kind() {
	case reflect.String:
		e.String(name, v.String())
	case reflect.Bool:
		e.Bool(name, v.Bool())
	case reflect.Int32:
		e.Int32(name, int32(v.Int())) // of that size
	case reflect.Int64:
		e.Int64(name, v.Int())
	case reflect.Slice:
		e.Begin(bson.Array, name)
		for i := range v.Len() {
			if err := e.value(strconv.Itoa(i), v.Index(i)); err != nil {
				return err
			}
		}
		e.End()
	case reflect.Map:
		e.Begin(bson.Document, name)
		keys := v.MapKeys()
		slices.SortFunc(keys, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, k := range keys {
			if err := e.value(k.String(), v.MapIndex(k)); err != nil {
				return err
			}
		}
		e.End()
	case reflect.Pointer:
		if v.IsNil() {
			e.Null(name)
			return nil
		}
		return e.value(name, v.Elem())
	case reflect.Struct:
		e.Begin(bson.Document, name)
		if err := e.object(v); err != nil {
			return err
		}
		e.End()
	default:
		return fmt.Errorf("encode %s: a %s has no form on the wire", name, v.Type())
	}
	return nil
}

// any writes a value whose type the receiver learns from "$type"; strings, numbers
// and null need none.
func (e *encoder) any(name string, v reflect.Value) error {
	if !v.IsValid() {
		e.Null(name)
		return nil
	}
	if v.Type() != typeStream {
		if v.Kind() == reflect.Pointer && !v.IsNil() {
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct || v.Type() == typeTime {
			return e.value(name, v)
		}
	}
	t, ok := v.Interface().(Typed)
	if !ok {
		return fmt.Errorf("encode %s: a %s has no name on the wire", name, v.Type())
	}
	if v.Type() == typeStream && v.IsNil() {
		e.Null(name)
		return nil
	}
	e.Begin(bson.Document, name)
	e.String(typeKey, t.TypeNames()[0])
	if s, ok := t.(*DataStream); ok {
		e.stream(s)
	} else if err := e.object(v); err != nil {
		return err
	}
	e.End()
	return nil
}

func (e *encoder) stream(s *DataStream) {
	g := s.ID.swapped()
	e.Binary("id", bson.SubtypeGUID, g[:])
	e.Int64("length", s.Length)
	e.streams = append(e.streams, s)
}

// decoder reads objects and notes the streams that it meets, in their order.
type decoder struct {
	streams    []*DataStream
	maxStreams int
	maxStream  int64
}

func decoded[T any](v reflect.Value, get func() (T, error)) error {
	x, err := get()
	if err == nil {
		v.Set(reflect.ValueOf(x).Convert(v.Type()))
	}
	return err
}

// value reads a member whose type is known.
func (d *decoder) value(e bson.Element, v reflect.Value) error {
	if v.Type() == typeElement {
		v.Set(reflect.ValueOf(e))
		return nil
	}
	if v.Type() == typeNothing {
		return nil
	}
	if e.IsNull() {
		switch v.Kind() {
		case reflect.String, reflect.Slice, reflect.Map, reflect.Pointer, reflect.Int64:
			v.SetZero()
			return nil
		default:
			return violation("%q is null, which it cannot be", e.Name)
		}
	}
	switch v.Type() {
	case typeGUID:
		b, err := e.Bytes(bson.SubtypeGUID)
		if err != nil || len(b) != len(GUID{}) {
			return violation("%q is no GUID", e.Name)
		}
		v.Set(reflect.ValueOf(GUID(b).swapped()))
		return nil
	case typeTime:
		return decoded(v, e.Time)
	case typeDuration:
		return decoded(v, func() (time.Duration, error) {
			s, err := e.Text()
			if err != nil {
				return 0, err
			}
			return ParseTimeSpan(s)
		})
	case typeStream:
		s, err := d.stream(e)
		v.Set(reflect.ValueOf(s))
		return err
	case typeBytes:
		return decoded(v, func() ([]byte, error) {
			b, err := e.Bytes(bson.SubtypeBytes)
			return slices.Clone(b), err
		})
	}
	switch v.Kind() {
	case reflect.String:
		return decoded(v, e.Text)
	case reflect.Bool:
		return decoded(v, e.Bool)
	case reflect.Int32, reflect.Int64:
		n, err := e.Int()
		if err == nil && v.Kind() == reflect.Int32 && (n < math.MinInt32 || n > math.MaxInt32) {
			err = violation("%q is %d, which does not fit", e.Name, n)
		}
		if err == nil {
			v.SetInt(n)
		}
		return err
	case reflect.Slice:
		return d.list(e, v)
	case reflect.Map:
		return d.dictionary(e, v)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(e, v.Elem())
	case reflect.Struct:
		doc, err := e.Doc()
		if err != nil {
			return err
		}
		return d.object(doc, v)
	default:
		return fmt.Errorf("decode %s: a %s has no form on the wire", e.Name, v.Type())
	}
}

func (d *decoder) list(e bson.Element, v reflect.Value) error {
	raw, err := e.List()
	if err != nil {
		return err
	}
	// It grows with what could be read: nothing is reserved for what is only counted.
	v.Set(reflect.MakeSlice(v.Type(), 0, 0))
	for item := range raw.Elements() {
		v.Grow(1)
		v.SetLen(v.Len() + 1)
		last := v.Index(v.Len() - 1)
		last.SetZero()
		if err := d.value(item, last); err != nil {
			return err
		}
	}
	return nil
}

func (d *decoder) dictionary(e bson.Element, v reflect.Value) error {
	doc, err := e.Doc()
	if err != nil {
		return err
	}
	v.Set(reflect.MakeMap(v.Type()))
	for item := range doc.Elements() {
		if string(item.Name) == typeKey {
			continue
		}
		x := reflect.New(v.Type().Elem()).Elem()
		if err := d.value(item, x); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(string(item.Name)).Convert(v.Type().Key()), x)
	}
	return nil
}

// object reads the members of a class; what it does not know is ignored.
func (d *decoder) object(doc bson.Raw, v reflect.Value) error {
	fields := fieldsOf(v.Type())
	var seen uint64
	for e := range doc.Elements() {
		for i, f := range fields {
			if string(e.Name) != f.name {
				continue
			}
			if seen&(1<<i) != 0 {
				return violation("%q is there twice", f.name)
			}
			seen |= 1 << i
			if err := d.value(e, v.Field(f.index)); err != nil {
				return err
			}
		}
	}
	return nil
}

// untyped reads a value whose type is told by "$type" into one of the type that is
// expected there.
func (d *decoder) untyped(e bson.Element, v reflect.Value) error {
	if e.Type == bson.Document {
		want, ok := v.Interface().(Typed)
		if !ok {
			return violation("an object where a %s is expected", v.Kind())
		}
		doc, err := e.Doc()
		if err != nil {
			return err
		}
		name := ""
		for first := range doc.Elements() {
			if string(first.Name) == typeKey {
				if name, err = first.Text(); err != nil {
					return err
				}
			}
			break // it is the first member or none
		}
		if !slices.Contains(want.TypeNames(), name) {
			return violation("an object of type %q where %q is expected", clip(name), want.TypeNames()[0])
		}
	}
	return d.value(e, v)
}

func (d *decoder) stream(e bson.Element) (*DataStream, error) {
	doc, err := e.Doc()
	if err != nil {
		return nil, err
	}
	var head struct {
		ID     GUID  `wire:"id"`
		Length int64 `wire:"length"`
	}
	if err := d.object(doc, reflect.ValueOf(&head).Elem()); err != nil {
		return nil, err
	}
	switch {
	case head.Length < 0 || head.Length > d.maxStream:
		return nil, violation("a stream of %d bytes; %d is the most", head.Length, d.maxStream)
	case len(d.streams) >= d.maxStreams:
		return nil, violation("more than %d streams", d.maxStreams)
	}
	s := &DataStream{ID: head.ID, Length: head.Length}
	d.streams = append(d.streams, s)
	return s, nil
}
