package rest

import (
	"context"
	"io"
	"time"
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
