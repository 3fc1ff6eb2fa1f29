package bson_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/halibut/bson"
)

// member is one element as a test writes and reads it.
type member struct {
	Name  string
	Value any // string, []byte, bool, int32, int64, time.Time, nil, []member, list
}

type list []any

func add(b *bson.Builder, name string, v any) {
	switch v := v.(type) {
	case nil:
		b.Null(name)
	case string:
		b.String(name, v)
	case []byte:
		b.Binary(name, bson.SubtypeBytes, v)
	case bool:
		b.Bool(name, v)
	case int32:
		b.Int32(name, v)
	case int64:
		b.Int64(name, v)
	case time.Time:
		b.Time(name, v)
	case []member:
		b.Begin(bson.Document, name)
		for _, m := range v {
			add(b, m.Name, m.Value)
		}
		b.End()
	case list:
		b.Begin(bson.Array, name)
		for i, e := range v {
			add(b, fmt.Sprint(i), e)
		}
		b.End()
	}
}

func build(t testing.TB, members []member) bson.Raw {
	t.Helper()
	var b bson.Builder
	for _, m := range members {
		add(&b, m.Name, m.Value)
	}
	raw, err := b.Done()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err) //nolint:forbidigo // ends the test
	}
	return v
}

func value(e bson.Element) any {
	switch e.Type {
	case bson.String:
		return must(e.Text())
	case bson.Binary:
		return bytes.Clone(must(e.Bytes(bson.SubtypeBytes)))
	case bson.Bool:
		return must(e.Bool())
	case bson.Int32:
		return int32(must(e.Int()))
	case bson.Int64:
		return must(e.Int())
	case bson.DateTime:
		return must(e.Time())
	case bson.Document:
		return members(must(e.Doc()))
	case bson.Array:
		all := list{}
		for e := range must(e.List()).Elements() {
			all = append(all, value(e))
		}
		return all
	default:
		return nil
	}
}

func members(r bson.Raw) []member {
	all := []member{}
	for e := range r.Elements() {
		all = append(all, member{string(e.Name), value(e)})
	}
	return all
}

func genValue(depth int) *rapid.Generator[any] {
	kinds := []*rapid.Generator[any]{
		rapid.Just[any](nil), rapid.String().AsAny(), rapid.SliceOf(rapid.Byte()).AsAny(), rapid.Bool().AsAny(),
		rapid.Int32().AsAny(), rapid.Int64().AsAny(),
		rapid.Map(rapid.Int64Range(-1e14, 1e14), func(ms int64) any { return time.UnixMilli(ms).UTC() }),
	}
	if depth > 0 {
		kinds = append(kinds, genMembers(depth-1).AsAny(),
			rapid.Map(rapid.SliceOfN(genValue(depth-1), 0, 4), func(v []any) any { return append(list{}, v...) }))
	}
	return rapid.OneOf(kinds...)
}

func genMembers(depth int) *rapid.Generator[[]member] {
	return rapid.Custom(func(t *rapid.T) []member {
		all := []member{}
		for range rapid.IntRange(0, 5).Draw(t, "n") {
			name := strings.ReplaceAll(rapid.String().Draw(t, "name"), "\x00", "")
			all = append(all, member{name, genValue(depth).Draw(t, "value")})
		}
		return all
	})
}

// TestRoundTrip builds documents and reads back what was built, in any pieces.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		want := genMembers(3).Draw(rt, "members")
		raw := build(t, want)
		read, err := bson.Read(iotest.OneByteReader(bytes.NewReader(raw)), len(raw), 1, nil)
		if err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, members(read)); diff != "" {
			rt.Fatal(diff)
		}
		// What is cut off is refused wherever the cut is.
		cut := rapid.IntRange(0, len(raw)-1).Draw(rt, "cut")
		if _, err := bson.Parse(raw[:cut]); !errors.Is(err, bson.ErrMalformed) {
			rt.Fatalf("cut at %d of %d: %v", cut, len(raw), err)
		}
		if _, err := bson.Read(bytes.NewReader(raw[:cut]), len(raw), 1, nil); !errors.Is(err, io.ErrUnexpectedEOF) && (cut > 0 || !errors.Is(err, io.EOF)) {
			rt.Fatalf("read cut at %d: %v", cut, err)
		}
	})
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestKnownBytes pins the encoding of each type.
func TestKnownBytes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		value any
		hex   string
	}{
		{nil, "08000000 0a6100 00"},
		{"hé", "10000000 026100 04000000 68c3a900 00"},
		{[]byte{1, 2}, "0f000000 056100 02000000 00 0102 00"},
		{true, "09000000 086100 01 00"},
		{int32(-2), "0c000000 106100 feffffff 00"},
		{int64(30000), "10000000 126100 3075000000000000 00"},
		{time.UnixMilli(1).UTC(), "10000000 096100 0100000000000000 00"},
		{[]member{}, "0d000000 036100 0500000000 00"},
		{list{"x"}, "16000000 046100 0e000000 023000 02000000 7800 00 00"},
	} {
		want := unhex(t, tc.hex)
		if got := build(t, []member{{"a", tc.value}}); !bytes.Equal(got, want) {
			t.Errorf("%#v is %x, want %x", tc.value, []byte(got), want)
		}
	}
}

// TestRefused lists what is no document, or too much of one.
func TestRefused(t *testing.T) {
	t.Parallel()
	deep := func(n int) []byte {
		var b bson.Builder
		for range n - 1 {
			b.Begin(bson.Document, "a")
		}
		return must(b.Done())
	}
	if _, err := bson.Parse(deep(bson.MaxDepth)); err != nil {
		t.Errorf("the deepest document: %v", err)
	}
	many := func(n int) []byte {
		b := append(make([]byte, 0, 5+2*n), 0, 0, 0, 0)
		for range n {
			b = append(b, byte(bson.Null), 0)
		}
		b = append(b, 0)
		binary.LittleEndian.PutUint32(b, uint32(len(b)))
		return b
	}
	if _, err := bson.Parse(many(bson.MaxElements)); err != nil {
		t.Errorf("the longest document: %v", err)
	}
	for name, b := range map[string][]byte{
		"empty":             {},
		"too deep":          deep(bson.MaxDepth + 1),
		"too many elements": many(bson.MaxElements + 1),
		"length too small":  unhex(t, "04000000 00"),
		"length negative":   unhex(t, "ffffffff 00"),
		"length too large":  unhex(t, "06000000 00"),
		"no end":            unhex(t, "05000000 01"),
		"rest":              unhex(t, "05000000 00 00"),
		"unknown type":      unhex(t, "08000000 066100 00"),
		"name without end":  unhex(t, "07000000 0a61 00")[:6],
		"name no UTF-8":     unhex(t, "08000000 0aff00 00"),
		"text without end":  unhex(t, "0e000000 026100 02000000 7878 00"),
		"text of length 0":  unhex(t, "0c000000 026100 00000000 00"),
		"text no UTF-8":     unhex(t, "0e000000 026100 02000000 ff00 00"),
		"text too long":     unhex(t, "0e000000 026100 ffffff7f 7800 00"),
		"binary too long":   unhex(t, "0d000000 056100 ffffffff 00 00"),
		"boolean 2":         unhex(t, "09000000 086100 02 00"),
		"inner too short":   unhex(t, "0d000000 036100 0400000000 00"),
		"inner too long":    unhex(t, "0d000000 036100 0700000000 00"),
		"inner overlong":    unhex(t, "0e000000 036100 060000000100 00"),
	} {
		if _, err := bson.Parse(b); !errors.Is(err, bson.ErrMalformed) {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, f := range map[string]func(bson.Element) error{
		"text":     func(e bson.Element) error { _, err := e.Text(); return err },
		"document": func(e bson.Element) error { _, err := e.Doc(); return err },
		"array":    func(e bson.Element) error { _, err := e.List(); return err },
		"bytes":    func(e bson.Element) error { _, err := e.Bytes(bson.SubtypeBytes); return err },
		"boolean":  func(e bson.Element) error { _, err := e.Bool(); return err },
		"number":   func(e bson.Element) error { _, err := e.Int(); return err },
		"date":     func(e bson.Element) error { _, err := e.Time(); return err },
	} {
		e, ok := build(t, []member{{"a", nil}}).Find("a")
		if !ok || !e.IsNull() || !errors.Is(f(e), bson.ErrMalformed) {
			t.Errorf("null as %s: %v", name, f(e))
		}
	}
	var b bson.Builder
	b.Null("a\x00b")
	if _, err := b.Done(); err == nil {
		t.Error("a name with a NUL was built")
	}
}

// TestReadReservesWhatCame shows that announcing a large document costs nothing,
// and that a large one asks first.
func TestReadReservesWhatCame(t *testing.T) {
	t.Parallel()
	const size = 1 << 30
	head := binary.LittleEndian.AppendUint32(nil, size)
	src := &gauge{r: bytes.NewReader(head)}
	if _, err := bson.Read(src, size, size, nil); !errors.Is(err, io.ErrUnexpectedEOF) || src.most > 16<<10 {
		t.Errorf("an announced document reserved %d bytes: %v", src.most, err)
	}
	no := errors.New("no")
	doc := build(t, []member{{"a", strings.Repeat("x", 100_000)}})
	if _, err := bson.Read(bytes.NewReader(doc), size, 50_000, func() error { return no }); !errors.Is(err, no) {
		t.Errorf("growing was not asked for: %v", err)
	}
	asked := 0
	if _, err := bson.Read(bytes.NewReader(doc), size, 50_000, func() error { asked++; return nil }); err != nil || asked != 1 {
		t.Errorf("asked %d times: %v", asked, err)
	}
	if _, err := bson.Read(bytes.NewReader(doc), len(doc)-1, 0, nil); !errors.Is(err, bson.ErrMalformed) {
		t.Errorf("a document over the limit: %v", err)
	}
}

// gauge notes how much was asked for at once.
type gauge struct {
	r    io.Reader
	most int
}

func (g *gauge) Read(p []byte) (int, error) {
	g.most = max(g.most, len(p))
	return g.r.Read(p)
}

// FuzzParse walks whatever was accepted, to the last element.
func FuzzParse(f *testing.F) {
	f.Add([]byte(build(f, []member{{"a", []member{{"b", list{"c", int32(1), int64(2), nil, true}}}}, {"d", []byte("e")}})))
	f.Add(unhex(f, "0e000000 0a4d65737361676500 00"))
	f.Add(unhex(f, "05000000 00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		raw, err := bson.Parse(b)
		read, readErr := bson.Read(bytes.NewReader(b), 1<<20, 1<<20, nil)
		if err != nil {
			if !errors.Is(err, bson.ErrMalformed) {
				t.Fatal(err)
			}
			return
		}
		if readErr != nil || !bytes.Equal(read, raw) {
			t.Fatalf("parsed, but not read: %v", readErr)
		}
		var again bson.Builder
		whole := true
		copyInto(&again, raw, &whole)
		if built, err := again.Done(); whole && (err != nil || !bytes.Equal(built, raw)) {
			t.Fatalf("%x was built again as %x: %v", b, []byte(built), err)
		}
	})
}

// copyInto builds again what was read; whole is false where it has what is only skipped.
func copyInto(b *bson.Builder, r bson.Raw, whole *bool) {
	for e := range r.Elements() {
		name := string(e.Name)
		switch e.Type {
		case bson.Document, bson.Array:
			b.Begin(e.Type, name)
			inner, err := e.Doc()
			if e.Type == bson.Array {
				inner, err = e.List()
			}
			copyInto(b, must(inner, err), whole)
			b.End()
		case bson.Binary:
			if v, err := e.Bytes(bson.SubtypeBytes); err == nil {
				b.Binary(name, bson.SubtypeBytes, v)
			} else if v, err := e.Bytes(bson.SubtypeGUID); err == nil {
				b.Binary(name, bson.SubtypeGUID, v)
			} else {
				*whole = false
			}
		case bson.Double:
			*whole = false
		default:
			add(b, name, value(e))
		}
	}
}
