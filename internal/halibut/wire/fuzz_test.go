package wire_test

import (
	"bufio"
	"bytes"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/halibut/wire"
)

// FuzzLine checks lines against what they are by their definition.
func FuzzLine(f *testing.F) {
	for _, s := range []string{"NEXT\r\n", "MX\n\n", "MX-SUBSCRIBER 1.0 poll://abc/\r\n", "\r\r\n", "x"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		br := bufio.NewReaderSize(bytes.NewReader(b), 16)
		line, err := wire.ReadLine(br)
		before, _, ended := strings.Cut(string(b), "\n")
		if want := strings.TrimSuffix(before, "\r"); ended && len(before) < wire.MaxLine && (err != nil || line != want) {
			t.Fatalf("%q: %q, %v", b, line, err)
		}
		if !ended && err == nil {
			t.Fatalf("%q is a line: %q", b, line)
		}
		if err != nil {
			return
		}
		if rest, _ := io.ReadAll(br); len(rest) != len(b)-len(before)-1 {
			t.Fatalf("%d bytes are left of %q", len(rest), b)
		}
		id, err := wire.ParseIdentity(line)
		if err != nil {
			return
		}
		if again, err := wire.ParseIdentity(id.String()); err != nil || again != id {
			t.Fatalf("%+v became %+v: %v", id, again, err)
		}
	})
}

// FuzzMessage reads whatever comes as a conversation: requests with a parameter of
// every kind, their streams, and lines between.
func FuzzMessage(f *testing.F) {
	p := parcel{Name: "n", Words: []string{"w"}, Named: map[string]int32{"a": 1}, Contents: wire.NewStream(3, strings.NewReader("abc"))}
	f.Add(append(sent(f, encode(f, wire.Request{ID: "i", Service: "S", Method: "M", Params: []any{"a", p}})), "NEXT\r\n"...))
	f.Add(append(sent(f, wire.Null()), "NEXT\n"...))
	f.Add(append(sent(f, encode(f, wire.Request{Params: []any{}})), sent(f, wire.Null())...))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, _ := over(b)
		for range 4 {
			r, err := c.ReceiveRequest(time.Minute)
			if err != nil {
				return
			}
			if r != nil {
				var word string
				var got parcel
				err = r.Params(&word, &got)
				if err == nil && got.Contents != nil {
					n, err := io.Copy(io.Discard, got.Contents)
					if err == nil && n != got.Contents.Length {
						t.Fatalf("a stream of %d bytes has %d", got.Contents.Length, n)
					}
				}
				if err == nil {
					got.Contents = nil
					if _, err := wire.Encode(wire.Request{Params: []any{word, got}}); err != nil {
						t.Fatalf("what was read cannot be written: %v", err)
					}
				}
			}
			if c.Finish() != nil {
				return
			}
			if err := c.Expect(wire.Next, time.Minute); err != nil {
				return
			}
		}
	})
}
