package rest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/takodeploy/tako/internal/ident"
)

// Created is the answer of a call that made something: 201, and where it is.
type Created struct {
	Body any
	// Location is the path of the new thing, as [Request.Href] makes it; "" if it has none.
	Location string
}

// Tagged is an answer with an entity tag: a caller that has it already gets 304.
type Tagged struct {
	Body any
	// Version is the number behind the tag; see [Request.Expects].
	Version int64
}

// Failed is an error in a form that another protocol prescribes: with the status of
// Err, which is treated like any other error, but with Body.
type Failed struct {
	Err  error
	Body any // becomes JSON; it must say no more than the public message of Err
}

// Raw is an answer that is no JSON: a file or a text.
type Raw struct {
	ContentType string // "application/octet-stream" when empty
	// Content is closed at the end if it is an [io.Closer]. If it is an
	// [io.ReadSeeker], callers can ask for ranges of it.
	Content io.Reader
	Size    int64  // in bytes, 0 when it is not known; a ReadSeeker knows by itself
	Name    string // of the file to save as; "" shows it in place
	// ETag and Modified let callers keep a copy; both are optional. The tag
	// comes without quotes.
	ETag     string
	Modified time.Time
}

// Array is an answer that is a JSON array of any length, of which two pieces are in
// memory at the most: Next gives the next piece, and an empty one once there is
// nothing more. What fails before the second piece is an answer like any other; later
// the connection is cut, so that nobody takes a part for the whole.
type Array struct {
	Next func() ([]json.RawMessage, error)
}

// Piece is how many items a piece of an [Array] should have.
const Piece = 500

// Pages is the [Array] of a list that is read by pages, which tell how many items
// there are in all. T becomes JSON.
func Pages[T any](page func(p ident.Page) (items []T, total int64, err error)) Array {
	p := ident.Page{Take: Piece}
	return Walk(func() ([]T, bool, error) {
		items, total, err := page(p)
		p.Skip += p.Take
		return items, p.Skip < total, err
	})
}

// Walk is the [Array] of a list that is read from one place to the next, of which
// next gives a piece and says whether there may be more. T becomes JSON.
func Walk[T any](next func() (items []T, more bool, err error)) Array {
	end := false
	return Array{Next: func() ([]json.RawMessage, error) {
		if end {
			return nil, nil
		}
		items, more, err := next()
		if err != nil {
			return nil, err
		}
		end = !more
		out := make([]json.RawMessage, len(items))
		for i := range items {
			if out[i], err = plain(items[i]); err != nil {
				return nil, err
			}
		}
		return out, nil
	}}
}

// plain is JSON as answers have it.
func plain(v any) (json.RawMessage, error) {
	if text, ready := v.(json.RawMessage); ready {
		return text, nil
	}
	e := newEncoder()
	if err := e.enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode an item: %w", err)
	}
	return e.buf.Bytes(), nil
}

// Redirect sends the caller elsewhere, with GET: 302.
type Redirect struct{ URL string }

// Stream is an answer of server-sent events, for as long as the caller listens:
// ctx ends when it leaves or the server drains. The server keeps the line alive by
// itself. The caller's Last-Event-ID is in the request's header. An error ends the
// stream with an event "error" that has its public message.
type Stream func(ctx context.Context, send func(Event) error) error

// Event is one server-sent event.
type Event struct {
	ID   string // for Last-Event-ID, one line
	Name string // one line; "" is "message"
	Data any    // becomes JSON
}
