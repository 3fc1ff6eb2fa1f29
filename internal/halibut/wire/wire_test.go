package wire_test

import (
	"bufio"
	"bytes"
	"compress/flate"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/halibut/bson"
	"github.com/takodeploy/tako/internal/halibut/wire"
)

// patience is for what must happen, on however slow a machine.
const patience = 2 * time.Minute

// parcel is a class for tests, with a member of every kind.
type parcel struct {
	Name     string `wire:"name"`
	Maybe    string `wire:",null"`
	Flag     bool
	Small    int32
	Large    int64
	At       time.Time
	For      time.Duration
	ID       wire.GUID
	Data     []byte
	Words    []string
	Named    map[string]int32
	Inner    *parcel
	Contents *wire.DataStream
	None     wire.Nothing
}

func (parcel) TypeNames() []string { return []string{"Tako.Parcel, Tako", "Tako.Old.Parcel, Tako"} }

// pipe is a connection of which a test has the other end, with room in between.
func pipe(t testing.TB, limits wire.Limits) (*wire.Conn, net.Conn) {
	t.Helper()
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	a, err := new(net.Dialer).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return wire.NewConn(a, limits, nil), b
}

// memory is a net.Conn over what is in memory.
type memory struct {
	net.Conn
	in     io.Reader
	out    bytes.Buffer
	writes []int
}

func (m *memory) Read(p []byte) (int, error) { return m.in.Read(p) }
func (m *memory) Write(p []byte) (int, error) {
	m.writes = append(m.writes, len(p))
	return m.out.Write(p)
}
func (*memory) SetReadDeadline(time.Time) error  { return nil }
func (*memory) SetWriteDeadline(time.Time) error { return nil }
func (*memory) Close() error                     { return nil }

func over(in []byte) (*wire.Conn, *memory) {
	m := &memory{in: bytes.NewReader(in)}
	return wire.NewConn(m, wire.Limits{Message: 1 << 20, Streams: 4, Stream: 1 << 20}, nil), m
}

func sent(t testing.TB, messages ...*wire.Message) []byte {
	t.Helper()
	c, m := over(nil)
	for _, msg := range messages {
		if err := c.Send(msg); err != nil {
			t.Fatal(err)
		}
	}
	return m.out.Bytes()
}

func encode(t testing.TB, v wire.Typed) *wire.Message {
	t.Helper()
	m, err := wire.Encode(v)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestNullMessage pins the message of a server that has nothing to ask.
func TestNullMessage(t *testing.T) {
	t.Parallel()
	document := unhex(t, "0e 00 00 00 0a 4d 65 73 73 61 67 65 00 00")
	if got := wire.Null().Body; !bytes.Equal(got, document) {
		t.Errorf("the document is %x", []byte(got))
	}
	stored := append(unhex(t, "01 0e 00 f1 ff"), document...)
	if got := sent(t, wire.Null()); !bytes.Equal(got, stored) {
		t.Errorf("it is sent as %x", got)
	}
	for name, b := range map[string][]byte{"stored": stored, "zlib": unhex(t, "e3 63 60 60 e0 f2 4d 2d 2e 4e 4c 4f 65 60 00 00")} {
		c, _ := over(append(b, "NEXT\n"...))
		if r, err := c.ReceiveRequest(time.Minute); r != nil || err != nil {
			t.Errorf("%s: %v, %v", name, r, err)
		}
		if line, err := c.ReadControl(time.Minute); line != wire.Next || err != nil {
			t.Errorf("after %s comes %q, %v", name, line, err)
		}
	}
}

// TestBlocks shows that the last block of a message has data, each is written by
// itself, and a message of any length leaves nothing behind.
func TestBlocks(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, 65_000, 65_535, 65_536, 131_070, 300_000} {
		msg := encode(t, wire.Response{ID: "x", Result: strings.Repeat("y", n)})
		c, m := over(nil)
		if err := c.Send(msg); err != nil || !c.Sent() {
			t.Fatal(err)
		}
		want := (len(msg.Body) + 65_534) / 65_535
		if len(m.writes) != want {
			t.Errorf("%d bytes went in %d writes, want %d", len(msg.Body), len(m.writes), want)
		}
		raw := m.out.Bytes()
		for i, at := 0, 0; i < want; i++ {
			size := int(binary.LittleEndian.Uint16(raw[at+1:]))
			if final := raw[at] == 1; size == 0 || final != (i == want-1) {
				t.Errorf("block %d of %d has %d bytes, final: %v", i+1, want, size, final)
			}
			at += 5 + size
		}
		plain, err := io.ReadAll(flate.NewReader(bytes.NewReader(raw)))
		if err != nil || !bytes.Equal(plain, msg.Body) {
			t.Errorf("it is not what was sent: %v", err)
		}
		in, _ := over(append(raw, "END\r\n"...))
		r, err := in.ReceiveResponse(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		var text string
		if err := r.Result(&text); err != nil || len(text) != n {
			t.Errorf("%d bytes came: %v", len(text), err)
		}
		if err := in.Expect(wire.End, time.Minute); err != nil {
			t.Error(err)
		}
	}
}

// TestCompressors reads what other compressors make, whatever their blocks.
func TestCompressors(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		text := strings.Repeat(rapid.String().Draw(rt, "text"), rapid.IntRange(0, 3000).Draw(rt, "times"))
		msg := encode(t, wire.Response{ID: "x", Result: text})
		var b bytes.Buffer
		z, err := flate.NewWriter(&b, rapid.IntRange(-2, 9).Draw(rt, "level"))
		if err != nil {
			rt.Fatal(err)
		}
		cut := rapid.IntRange(0, len(msg.Body)).Draw(rt, "flush")
		z.Write(msg.Body[:cut])
		z.Flush()
		z.Write(msg.Body[cut:])
		z.Close()
		b.WriteString("\r\nNEXT\r\n")
		c, _ := over(b.Bytes())
		r, err := c.ReceiveResponse(time.Minute)
		if err != nil {
			rt.Fatal(err)
		}
		var got string
		if err := r.Result(&got); err != nil || got != text {
			rt.Fatalf("got %d bytes: %v", len(got), err)
		}
		if err := c.Expect(wire.Next, time.Minute); err != nil {
			rt.Fatal(err)
		}
	})
}

func genParcel(depth int, streams *[]*wire.DataStream, contents map[wire.GUID][]byte) *rapid.Generator[parcel] {
	return rapid.Custom(func(t *rapid.T) parcel {
		p := parcel{
			Name: rapid.String().Draw(t, "name"), Maybe: rapid.String().Draw(t, "maybe"), Flag: rapid.Bool().Draw(t, "flag"),
			Small: rapid.Int32().Draw(t, "small"), Large: rapid.Int64().Draw(t, "large"),
			At:    time.UnixMilli(rapid.Int64Range(-1e14, 1e14).Draw(t, "at")).UTC(),
			For:   time.Duration(rapid.Int64().Draw(t, "for")).Truncate(100),
			ID:    wire.GUID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "id")),
			Data:  append([]byte{}, rapid.SliceOf(rapid.Byte()).Draw(t, "data")...),
			Words: append([]string{}, rapid.SliceOfN(rapid.String(), 0, 3).Draw(t, "words")...),
			Named: rapid.MapOfN(rapid.StringMatching(`[a-z]{0,5}`), rapid.Int32(), 0, 3).Draw(t, "named"),
		}
		if depth > 0 && rapid.Bool().Draw(t, "more") {
			inner := genParcel(depth-1, streams, contents).Draw(t, "inner")
			p.Inner = &inner
		}
		if len(*streams) < 4 && rapid.Bool().Draw(t, "stream") {
			b := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "contents")
			p.Contents = wire.NewStream(int64(len(b)), bytes.NewReader(b))
			*streams = append(*streams, p.Contents)
			contents[p.Contents.ID] = b
		}
		return p
	})
}

var sameStream = cmp.Comparer(func(a, b *wire.DataStream) bool {
	return (a == nil) == (b == nil) && (a == nil || a.ID == b.ID && a.Length == b.Length)
})

// TestRoundTrip sends requests of every shape and reads back the same, their
// streams in order and then what follows.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		var streams []*wire.DataStream
		contents := map[wire.GUID][]byte{}
		want := genParcel(2, &streams, contents).Draw(rt, "parcel")
		word := rapid.String().Draw(rt, "word")
		msg := encode(t, wire.Request{ID: "id", ActivityID: wire.NewGUID(), Service: "S", Method: "M", Params: []any{word, want, nil}})
		c, _ := over(append(sent(t, msg), "NEXT\r\n"...))
		r, err := c.ReceiveRequest(time.Minute)
		if err != nil {
			rt.Fatal(err)
		}
		var gotWord, none string
		var got parcel
		if err := r.Params(&gotWord, &got, &none); err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(want, got, sameStream); diff != "" || gotWord != word || none != "" {
			rt.Fatal(gotWord, diff)
		}
		// The outer one's stream comes last: it is the last member.
		var all []*wire.DataStream
		var walk func(p *parcel)
		walk = func(p *parcel) {
			if p == nil {
				return
			}
			walk(p.Inner)
			if p.Contents != nil {
				all = append(all, p.Contents)
			}
		}
		walk(&got)
		for _, s := range all {
			if rapid.Bool().Draw(rt, "skip") {
				continue
			}
			b, err := io.ReadAll(s)
			if err != nil || !bytes.Equal(b, contents[s.ID]) {
				rt.Fatalf("%x came as %x: %v", contents[s.ID], b, err)
			}
		}
		if err := c.Finish(); err != nil || c.Pending() != 0 {
			rt.Fatal(err)
		}
		if err := c.Expect(wire.Next, time.Minute); err != nil {
			rt.Fatal(err)
		}
	})
}

// TestTimeSpans pins the text of durations.
func TestTimeSpans(t *testing.T) {
	t.Parallel()
	for text, d := range map[string]time.Duration{
		"00:00:00": 0, "00:00:05": 5 * time.Second, "00:30:00": 30 * time.Minute, "1.00:00:00": 24 * time.Hour,
		"-00:00:01":           -time.Second,
		"24.20:31:23.6470000": 24*24*time.Hour + 20*time.Hour + 31*time.Minute + 23*time.Second + 647*time.Millisecond,
		"00:00:00.0000001":    100,
	} {
		if got := wire.FormatTimeSpan(d); got != text {
			t.Errorf("%v is %s, want %s", d, got, text)
		}
		if got, err := wire.ParseTimeSpan(text); err != nil || got != d {
			t.Errorf("%s is %v, %v", text, got, err)
		}
	}
	if got, err := wire.ParseTimeSpan("10675199.02:48:05.4775807"); err != nil || got != math.MaxInt64 {
		t.Errorf("the longest is %v, %v", got, err)
	}
	if got := wire.FormatTimeSpan(math.MinInt64); got != "-106751.23:47:16.8547758" {
		t.Errorf("the smallest is %s", got)
	}
	for _, bad := range []string{"", "5", "00:00", "24:00:00", "00:60:00", "00:00:60", "0:0:0.", "0:0:0.12345678", "x.00:00:00", "00:00:-1", "1.2.00:00:00", "+1:00:00", "99999999999.00:00:00"} {
		if d, err := wire.ParseTimeSpan(bad); !errors.Is(err, wire.ErrProtocol) {
			t.Errorf("%q is %v, %v", bad, d, err)
		}
	}
	rapid.Check(t, func(rt *rapid.T) {
		d := time.Duration(rapid.Int64().Draw(rt, "d")).Truncate(100)
		if got, err := wire.ParseTimeSpan(wire.FormatTimeSpan(d)); err != nil || got != d {
			rt.Fatalf("%v became %v: %v", d, got, err)
		}
	})
}

// TestLines holds control lines to their rules.
func TestLines(t *testing.T) {
	t.Parallel()
	read := func(s string) (string, error) { return wire.ReadLine(bufio.NewReaderSize(strings.NewReader(s), 16)) }
	for in, want := range map[string]string{"NEXT\r\n": "NEXT", "NEXT\n": "NEXT", "\r\n": "", "\n": "", "a\rb\r\n": "a\rb", strings.Repeat("x", 100) + "\n": strings.Repeat("x", 100)} {
		if got, err := read(in); err != nil || got != want {
			t.Errorf("%q is %q, %v", in, got, err)
		}
	}
	if _, err := read("NEXT"); !errors.Is(err, io.EOF) {
		t.Errorf("a line that is cut off: %v", err)
	}
	if _, err := read(strings.Repeat("x", wire.MaxLine) + "\n"); !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("a line that is too long: %v", err)
	}
	c, m := over(nil)
	if err := c.WriteLines(wire.Identity{Kind: wire.KindSubscriber, Subscription: "poll://abc/"}.String(), ""); err != nil ||
		m.out.String() != "MX-SUBSCRIBER 1.0 poll://abc/\r\n\r\n" || len(m.writes) != 1 {
		t.Errorf("an identity is written as %q in %d writes", m.out.String(), len(m.writes))
	}
	c, _ = over([]byte("\r\n\nPROCEED\n" + strings.Repeat("\n", 100)))
	if err := c.Expect(wire.Proceed, time.Minute); err != nil {
		t.Error(err)
	}
	if _, err := c.ReadControl(time.Minute); !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("blank lines without end: %v", err)
	}
	if err := c.Finish(); !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("a broken connection goes on: %v", err)
	}
	for in, want := range map[string]string{
		"MX\r\n\r\n": "MX", "MX\n\n": "MX", "\r\n": "", "POST /handshake HTTP/1.1\r\nHost: x\r\n\r\n": "POST /handshake HTTP/1.1",
	} {
		c, _ := over([]byte(in + "rest"))
		if got, err := c.ReadPreamble(time.Minute); err != nil || got != want {
			t.Errorf("the preamble %q is %q, %v", in, got, err)
		}
	}
	c, _ = over([]byte(strings.Repeat("x\n", wire.MaxPreamble)))
	if _, err := c.ReadPreamble(time.Minute); !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("a preamble without end: %v", err)
	}
	for in, want := range map[string]wire.Identity{
		"MX-CLIENT 1.0": {Kind: wire.KindClient}, "MX-SERVER 2.7 more": {Kind: wire.KindServer},
		"MX-SUBSCRIBER 1.0 poll://abc/": {Kind: wire.KindSubscriber, Subscription: "poll://abc/"},
	} {
		if got, err := wire.ParseIdentity(in); err != nil || got != want {
			t.Errorf("%q is %+v, %v", in, got, err)
		}
	}
	for _, bad := range []string{"", " ", "MX", "mx-client 1.0", "MX-SUBSCRIBER 1.0", "MX-SUBSCRIBER 1.0 https://x/", "GET / HTTP/1.1"} {
		if got, err := wire.ParseIdentity(bad); !errors.Is(err, wire.ErrProtocol) {
			t.Errorf("%q is %+v, %v", bad, got, err)
		}
	}
}

// stored is a message that a test builds by hand.
func stored(t testing.TB, build func(b *bson.Builder)) []byte {
	t.Helper()
	var b bson.Builder
	build(&b)
	doc, err := b.Done()
	if err != nil {
		t.Fatal(err)
	}
	return sent(t, &wire.Message{Body: doc})
}

// TestRefused lists messages that are none, or too much.
func TestRefused(t *testing.T) {
	t.Parallel()
	request := func(inner func(b *bson.Builder)) []byte {
		return stored(t, func(b *bson.Builder) {
			b.Begin(bson.Document, "Message")
			inner(b)
			b.End()
		})
	}
	whole := sent(t, encode(t, wire.Request{ID: "x", Service: "S", Method: "M", Params: []any{"a"}}))
	var bomb bytes.Buffer
	z, _ := flate.NewWriter(&bomb, 9)
	doc := encode(t, wire.Request{ID: strings.Repeat("x", 2<<20)})
	z.Write(doc.Body)
	z.Close()
	longer := bytes.Clone(sent(t, wire.Null()))
	longer = append([]byte{0, 14, 0, 0xf1, 0xff}, longer[5:]...)
	longer = append(longer, 1, 1, 0, 0xfe, 0xff, 'x')
	for name, tc := range map[string]struct {
		in   []byte
		want error
	}{
		"nothing":              {nil, io.EOF},
		"cut off":              {whole[:len(whole)-1], io.ErrUnexpectedEOF},
		"no compression":       {[]byte("HTTP/1.1 200 OK\r\n\r\n"), wire.ErrProtocol},
		"bomb":                 {bomb.Bytes(), bson.ErrMalformed},
		"goes on":              {longer, wire.ErrProtocol},
		"no message":           {stored(t, func(b *bson.Builder) { b.String("x", "y") }), wire.ErrProtocol},
		"message is text":      {stored(t, func(b *bson.Builder) { b.String("Message", "y") }), bson.ErrMalformed},
		"a response":           {sent(t, encode(t, wire.Response{ID: "x"})), wire.ErrProtocol},
		"type is a number":     {request(func(b *bson.Builder) { b.Int32("$type", 1) }), wire.ErrProtocol},
		"id is a number":       {request(func(b *bson.Builder) { b.Int32("id", 1) }), bson.ErrMalformed},
		"two ids":              {request(func(b *bson.Builder) { b.String("id", "a"); b.String("id", "b") }), wire.ErrProtocol},
		"activity is a string": {request(func(b *bson.Builder) { b.String("activityId", "a") }), wire.ErrProtocol},
	} {
		c, _ := over(tc.in)
		if r, err := c.ReceiveRequest(time.Minute); !errors.Is(err, tc.want) {
			t.Errorf("%s: %+v, %v", name, r, err)
		} else if _, err := c.ReceiveRequest(time.Minute); err == nil {
			t.Errorf("%s: the connection goes on", name)
		}
	}
	// Messages without a type are those of new peers.
	c, _ := over(request(func(b *bson.Builder) { b.String("service", "S") }))
	if r, err := c.ReceiveRequest(time.Minute); err != nil || r.Service != "S" || r.Count() != 0 || !r.Plain() || r.Params() != nil {
		t.Errorf("a message without a type: %+v, %v", r, err)
	}
	c, _ = over(sent(t, wire.Null()))
	if _, err := c.ReceiveResponse(time.Minute); !errors.Is(err, wire.ErrProtocol) {
		t.Errorf("a null response: %v", err)
	}
}

// TestParameters lists parameters that are not what the method takes.
func TestParameters(t *testing.T) {
	t.Parallel()
	receive := func(params func(b *bson.Builder)) *wire.InRequest {
		t.Helper()
		c, _ := over(stored(t, func(b *bson.Builder) {
			b.Begin(bson.Document, "Message")
			b.Begin(bson.Array, "params")
			params(b)
		}))
		r, err := c.ReceiveRequest(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	object := func(name string, members func(b *bson.Builder)) func(b *bson.Builder) {
		return func(b *bson.Builder) {
			b.Begin(bson.Document, "0")
			if name != "" {
				b.String("$type", name)
			}
			members(b)
			b.End()
		}
	}
	const known = "Tako.Parcel, Tako"
	stream := func(id byte, length int64) func(b *bson.Builder) {
		return func(b *bson.Builder) {
			b.Begin(bson.Document, "Contents")
			b.Binary("id", bson.SubtypeGUID, bytes.Repeat([]byte{id}, 16))
			b.Int64("length", length)
			b.End()
		}
	}
	for name, tc := range map[string]struct {
		params func(b *bson.Builder)
		want   error
	}{
		"good":            {object(known, func(b *bson.Builder) { b.Int64("Small", 5); b.Int32("Large", 5) }), nil},
		"old name":        {object("Tako.Old.Parcel, Tako", func(*bson.Builder) {}), nil},
		"more than known": {object(known, func(b *bson.Builder) { b.Begin(bson.Document, "New"); b.End() }), nil},
		"ignored":         {object(known, func(b *bson.Builder) { b.Int32("None", 1) }), nil},
		"null texts":      {object(known, func(b *bson.Builder) { b.Null("name"); b.Null("For"); b.Null("Words"); b.Null("Inner") }), nil},
		"no type":         {object("", func(*bson.Builder) {}), wire.ErrProtocol},
		"other type":      {object("System.Diagnostics.Process, System", func(*bson.Builder) {}), wire.ErrProtocol},
		"type is later":   {object("", func(b *bson.Builder) { b.Null("Maybe"); b.String("$type", known) }), wire.ErrProtocol},
		"text for object": {func(b *bson.Builder) { b.String("0", "x") }, bson.ErrMalformed},
		"too many":        {func(b *bson.Builder) { b.Null("0"); b.Null("1") }, wire.ErrProtocol},
		"null flag":       {object(known, func(b *bson.Builder) { b.Null("Flag") }), wire.ErrProtocol},
		"too large":       {object(known, func(b *bson.Builder) { b.Int64("Small", math.MaxInt32+1) }), wire.ErrProtocol},
		"bad time span":   {object(known, func(b *bson.Builder) { b.String("For", "soon") }), wire.ErrProtocol},
		"short GUID":      {object(known, func(b *bson.Builder) { b.Binary("ID", bson.SubtypeGUID, []byte{1}) }), wire.ErrProtocol},
		"stream":          {object(known, stream(1, 1<<20)), nil},
		"negative stream": {object(known, stream(1, -1)), wire.ErrProtocol},
		"large stream":    {object(known, stream(1, 1<<20+1)), wire.ErrProtocol},
		"same streams": {object(known, func(b *bson.Builder) {
			stream(1, 1)(b)
			b.Begin(bson.Document, "Inner")
			stream(1, 1)(b)
			b.End()
		}), wire.ErrProtocol},
		"many streams": {object(known, func(b *bson.Builder) {
			for i := range byte(5) {
				stream(i, 1)(b)
				b.Begin(bson.Document, "Inner")
			}
			for range 5 {
				b.End()
			}
		}), wire.ErrProtocol},
	} {
		var p parcel
		if err := receive(tc.params).Params(&p); !errors.Is(err, tc.want) || err != nil && tc.want == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, v := range map[string]any{"channel": make(chan int), "float": 1.5, "untyped": struct{ A string }{}} {
		if _, err := wire.Encode(wire.Request{Params: []any{v}}); err == nil {
			t.Errorf("a %s was encoded", name)
		}
	}
}

// TestStreams lists streams that are not what their message said.
func TestStreams(t *testing.T) {
	t.Parallel()
	id := wire.GUID(bytes.Repeat([]byte{7}, 16))
	head := func(n int64) []byte {
		return binary.LittleEndian.AppendUint64(bytes.Repeat([]byte{7}, 16), uint64(n))
	}
	tail := func(n int64) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(n)) }
	message := sent(t, &wire.Message{Body: encode(t, wire.Response{Result: &wire.DataStream{ID: id, Length: 3}}).Body})
	for name, tc := range map[string]struct {
		in   []byte
		want error
	}{
		"good":           {bytes.Join([][]byte{head(3), []byte("abc"), tail(3)}, nil), nil},
		"other id":       {bytes.Join([][]byte{make([]byte, 16), tail(3), []byte("abc"), tail(3)}, nil), wire.ErrProtocol},
		"other length":   {bytes.Join([][]byte{head(4), []byte("abcd"), tail(4)}, nil), wire.ErrProtocol},
		"other end":      {bytes.Join([][]byte{head(3), []byte("abc"), tail(2)}, nil), wire.ErrProtocol},
		"no head":        {nil, io.ErrUnexpectedEOF},
		"head cut off":   {head(3)[:20], io.ErrUnexpectedEOF},
		"body cut off":   {append(head(3), "ab"...), io.ErrUnexpectedEOF},
		"end missing":    {append(head(3), "abc"...), io.ErrUnexpectedEOF},
		"end is cut off": {append(append(head(3), "abc"...), tail(3)[:7]...), io.ErrUnexpectedEOF},
	} {
		c, _ := over(append(bytes.Clone(message), tc.in...))
		r, err := c.ReceiveResponse(time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		var s *wire.DataStream
		if err := r.Result(&s); err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(s)
		if !errors.Is(err, tc.want) || err != nil && tc.want == nil || err == nil && string(b) != "abc" {
			t.Errorf("%s: %q, %v", name, b, err)
		}
		if err := c.Finish(); (err == nil) != (tc.want == nil) {
			t.Errorf("%s: afterwards %v", name, err)
		}
	}
	// What has too little to send breaks the connection, and was never sent.
	for name, s := range map[string]*wire.DataStream{"short": wire.NewStream(3, strings.NewReader("ab")), "no source": {Length: 3}} {
		c, _ := over(nil)
		if err := c.Send(encode(t, wire.Request{Params: []any{s}})); err == nil || c.Sent() {
			t.Errorf("%s: %v, sent: %v", name, err, c.Sent())
		}
	}
	c, m := over(nil)
	s := wire.NewStream(3, strings.NewReader("abcd"))
	if err := c.Send(encode(t, wire.Request{Params: []any{s}})); err != nil || !c.Sent() || len(m.writes) != 4 {
		t.Errorf("a stream went in %v: %v", m.writes, err)
	}
	if _, err := s.Read(nil); err == nil {
		t.Error("a stream to send was read")
	}
}

// TestDeadlines shows that a peer that stops, or trickles, does not hold a reader.
func TestDeadlines(t *testing.T) {
	t.Parallel()
	c, peer := pipe(t, wire.Limits{Idle: 50 * time.Millisecond, Transfer: 50 * time.Millisecond})
	if err := c.WaitByte(time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	interrupted := make(chan error)
	go func() { interrupted <- c.WaitByte(patience) }()
	c.Interrupt()
	select {
	case err := <-interrupted:
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	case <-time.After(50 * time.Millisecond): // it came before the wait began
		c.Interrupt()
		if err := <-interrupted; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
	}
	fmt.Fprint(peer, "NEXT\r\n")
	if err := c.Expect(wire.Next, patience); err != nil {
		t.Fatalf("after interruptions: %v", err)
	}
	// A message that has begun and does not go on.
	peer.Write(sent(t, wire.Null())[:8])
	if _, err := c.ReceiveRequest(patience); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a message that stops: %v", err)
	}
	// A message that trickles has a bound in all.
	c, peer = pipe(t, wire.Limits{Idle: patience, Transfer: 50 * time.Millisecond})
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		if _, err := peer.Write([]byte{1, 0xff, 0xff, 0, 0, 0xff, 0xff, 0, 0}); err != nil {
			return
		}
		for tick := time.Tick(5 * time.Millisecond); ; <-tick {
			if _, err := peer.Write([]byte{2}); err != nil {
				return
			}
		}
	}()
	if _, err := c.ReceiveRequest(patience); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a message that trickles: %v", err)
	}
	c.Abort()
	<-stop
	// A peer that reads nothing does not hold a writer.
	c, _ = pipe(t, wire.Limits{Idle: 50 * time.Millisecond})
	if err := c.Send(encode(t, wire.Response{Result: strings.Repeat("x", 32<<20)})); !errors.Is(err, os.ErrDeadlineExceeded) || c.Sent() {
		t.Errorf("a peer that reads nothing: %v", err)
	}
}

// TestBudget lets one large message be read at a time.
func TestBudget(t *testing.T) {
	t.Parallel()
	large := sent(t, encode(t, wire.Request{ID: strings.Repeat("x", 3<<20)}))
	budget := wire.NewBudget(1)
	receive := func(c *wire.Conn) error {
		_, err := c.ReceiveRequest(patience)
		return err
	}
	limits := wire.Limits{Idle: 20 * time.Millisecond}
	first := wire.NewConn(&memory{in: bytes.NewReader(append(bytes.Clone(large), large...))}, limits, budget)
	if err := receive(first); err != nil {
		t.Fatal(err)
	}
	if err := receive(wire.NewConn(&memory{in: bytes.NewReader(large)}, limits, budget)); err == nil {
		t.Fatal("two large messages at once")
	}
	small := wire.NewConn(&memory{in: bytes.NewReader(sent(t, wire.Null()))}, limits, budget)
	if err := receive(small); err != nil {
		t.Fatal(err)
	}
	if err := first.Finish(); err != nil {
		t.Fatal(err)
	}
	second := wire.NewConn(&memory{in: bytes.NewReader(large)}, limits, budget)
	if err := receive(second); err != nil {
		t.Fatal(err)
	}
	_ = second.Close()
	if err := receive(first); err != nil {
		t.Fatalf("after the other closed: %v", err)
	}
}
