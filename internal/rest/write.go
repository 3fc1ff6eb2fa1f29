package rest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

const (
	typeJSON = "application/json; charset=utf-8"
	// writeTimeout is how long one answer, or one piece of a long one, may take
	// to reach a caller.
	writeTimeout = time.Minute
	heartbeat    = 15 * time.Second
)

// status is the one table from kinds of fault to HTTP.
func status(k fault.Kind) int {
	switch k {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.Unauthenticated:
		return http.StatusUnauthorized
	case fault.Forbidden:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.TooLarge:
		return http.StatusRequestEntityTooLarge
	case fault.Unsupported:
		return http.StatusNotImplemented
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.TooMany:
		return http.StatusTooManyRequests
	case fault.Internal:
		return http.StatusInternalServerError
	default:
		return http.StatusInternalServerError
	}
}

// notAllowed is the fault of a path that exists with other methods.
type notAllowed struct{ method, allow string }

func (e *notAllowed) Error() string {
	return fmt.Sprintf("The method %s is not allowed here; use %s.", e.method, e.allow)
}

// errorBody is an answer that is no success.
type errorBody struct {
	octopus.ErrorBody
	// Details has the sentences by the member they are about, for forms.
	Details map[string][]string `json:"Details,omitempty"`
	// RequestID finds a failure of ours in the server's log.
	RequestID string `json:"RequestId,omitempty"`
}

// describe turns an error into a status and a body. An answer of 404 must not
// have Errors: clients test that member before the status, and would not see
// that a thing is gone. With 400 they print nothing but Errors.
func describe(err error, id string) (int, errorBody) {
	var body errorBody
	var method *notAllowed
	if errors.As(err, &method) {
		body.ErrorMessage = method.Error()
		return http.StatusMethodNotAllowed, body
	}
	faults := fault.Faults(err)
	kind := fault.Internal
	if len(faults) > 0 {
		kind = faults[0].Kind
	} else if errors.Is(err, context.DeadlineExceeded) {
		body.ErrorMessage = "The server took too long over this; try again, and ask for less at once."
		return http.StatusServiceUnavailable, body
	}
	code := status(kind)
	messages := fault.Messages(err)
	switch {
	case kind == fault.Invalid:
		body.ErrorMessage = "There was a problem with your request."
		body.Errors = messages
		for _, f := range faults {
			if f.Field != "" {
				if body.Details == nil {
					body.Details = map[string][]string{}
				}
				body.Details[f.Field] = append(body.Details[f.Field], f.Message)
			}
		}
	case kind == fault.Internal || len(messages) == 0:
		body.ErrorMessage = "Something went wrong in the server; its log has the details under request " + id + "."
		body.RequestID = id
	default:
		body.ErrorMessage = strings.Join(messages, " ")
	}
	return code, body
}

// answer writes what a handler returned. It is the only place that picks a status.
func (s *Server) answer(w http.ResponseWriter, r *Request, result any, err error) {
	if err != nil {
		s.fail(w, r.Request, r.ID, err)
		return
	}
	code := http.StatusOK
	switch v := result.(type) {
	case Raw:
		s.raw(w, r, v)
		return
	case Array:
		s.array(w, r, v)
		return
	case Stream:
		s.stream(w, r, v)
		return
	case Redirect:
		w.Header().Set("Location", v.URL)
		w.Header().Set("Content-Length", "0")
		w.WriteHeader(http.StatusFound)
		return
	case Created:
		code, result = http.StatusCreated, v.Body
		if t, ok := v.Body.(Tagged); ok {
			w.Header().Set("ETag", etag(t.Version))
			result = t.Body
		}
		if v.Location != "" {
			w.Header().Set("Location", v.Location)
		}
	case Tagged:
		tag := etag(v.Version)
		w.Header().Set("ETag", tag)
		if r.Method == http.MethodGet || r.Method == http.MethodHead {
			w.Header()["Cache-Control"] = s.revalidate
			if matchesTag(r.Header.Get("If-None-Match"), tag) {
				w.WriteHeader(http.StatusNotModified)
				return
			}
		}
		result = v.Body
	case Failed:
		code, _ = describe(v.Err, r.ID)
		s.note(r.Request, r.ID, code, v.Err)
		result = v.Body
	}
	s.json(w, r.Request, r.ID, code, result)
}

// note logs our own failures.
func (s *Server) note(r *http.Request, id string, code int, err error) {
	if code >= http.StatusInternalServerError && code != http.StatusNotImplemented {
		s.log.Error("request failed", "request", id, "method", r.Method, "path", r.URL.Path, "status", code, "error", err)
	}
}

// fail writes an error's status and body, and logs our own failures.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, id string, err error) {
	if errors.Is(err, context.Canceled) && r.Context().Err() != nil {
		// Mostly nobody hears it any more. But who has closed only their half of the
		// connection, as some proxies do, must not take silence for success.
		s.log.Debug("caller left", "request", id, "path", r.URL.Path)
		err = fault.New(fault.Invalid, "The connection was closed before the request had ended; send it again.")
	}
	code, body := describe(err, id)
	s.note(r, id, code, err)
	h := w.Header()
	var method *notAllowed
	switch {
	case errors.As(err, &method):
		h.Set("Allow", method.allow)
	case code == http.StatusUnauthorized:
		h.Set("WWW-Authenticate", "Bearer")
		if strings.Contains(strings.ToLower(r.URL.Path), "/nuget/") {
			// NuGet clients only send a name and a password when they are asked for them.
			h.Add("WWW-Authenticate", `Basic realm="Tako: any name, and an API key as the password"`)
		}
	case code == http.StatusServiceUnavailable || code == http.StatusTooManyRequests:
		if h.Get("Retry-After") == "" {
			h.Set("Retry-After", "5")
		}
	}
	s.json(w, r, id, code, body)
}

type encoder struct {
	buf bytes.Buffer
	enc *json.Encoder
}

func newEncoder() *encoder {
	e := &encoder{}
	e.enc = json.NewEncoder(&e.buf)
	e.enc.SetEscapeHTML(false) // the type says JSON, and nosniff is set
	return e
}

// maxKept is the largest buffer that goes back to the pool.
const maxKept = 1 << 20

// json writes a body with its length, so that connections live on and clients
// can tell an empty answer from a missing one.
func (s *Server) json(w http.ResponseWriter, r *http.Request, id string, code int, v any) {
	body, ready := written(v)
	if !ready {
		e := s.encoders.Get().(*encoder)
		defer func() {
			if e.buf.Cap() <= maxKept {
				s.encoders.Put(e)
			}
		}()
		e.buf.Reset()
		if err := e.enc.Encode(v); err != nil {
			s.log.Error("encode answer", "request", id, "path", r.URL.Path, "error", err)
			failure, message := describe(err, id)
			code = failure
			e.buf.Reset()
			if err := e.enc.Encode(message); err != nil {
				return // plain texts always encode
			}
		}
		body = e.buf.Bytes()
	}
	h := w.Header()
	h["Content-Type"] = s.typeJSON
	if s.Compress && len(body) >= minCompress && code != http.StatusNotModified {
		h.Set("Vary", "Accept-Encoding")
		if acceptsGzip(r.Header.Get("Accept-Encoding")) {
			if small, err := compress(body); err == nil {
				body = small
				h.Set("Content-Encoding", "gzip")
			}
		}
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(code)
	if _, err := w.Write(body); err != nil {
		s.log.Debug("caller left", "request", id, "path", r.URL.Path, "error", err)
	}
}

// written is an answer that needs no encoder, or whose parts do not: an encoder
// would read the documents of a list twice more.
func written(v any) (body json.RawMessage, ready bool) {
	switch v := v.(type) {
	case nil:
		return []byte("{}\n"), true
	case json.RawMessage:
		return v, true
	case []json.RawMessage:
		return append(appendItems(nil, v), '\n'), true
	case octopus.Page[json.RawMessage]:
		items := v.Items
		v.Items = nil
		frame := newEncoder()
		if err := frame.enc.Encode(v); err != nil {
			return nil, false
		}
		before, after, found := bytes.Cut(frame.buf.Bytes(), []byte(`"Items":[]`))
		if !found {
			return nil, false
		}
		body = append(slices.Clip(before), `"Items":`...)
		return append(appendItems(body, items), after...), true
	default:
		return nil, false
	}
}

// appendItems writes a list of texts that are JSON.
func appendItems(b []byte, items []json.RawMessage) []byte {
	size := 2
	for _, item := range items {
		size += len(item) + 1
	}
	b = append(slices.Grow(b, size), '[')
	for i, item := range items {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, bytes.TrimRight(item, "\n")...) // which rendered ones end with
	}
	return append(b, ']')
}

// minCompress is the smallest answer that is worth compressing, in bytes.
const minCompress = 8 << 10

func acceptsGzip(header string) bool {
	for one := range strings.SplitSeq(header, ",") {
		name, weight, _ := strings.Cut(one, ";")
		if strings.EqualFold(strings.TrimSpace(name), "gzip") {
			return strings.ReplaceAll(weight, " ", "") != "q=0"
		}
	}
	return false
}

func compress(body []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(body); err != nil {
		return nil, err
	}
	if err := z.Close(); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// array writes a JSON array: one that is short as any answer, a long one piece by piece.
func (s *Server) array(w http.ResponseWriter, r *Request, v Array) {
	items, err := v.Next()
	var more []json.RawMessage
	if err == nil && len(items) > 0 {
		more, err = v.Next()
	}
	switch {
	case err != nil:
		s.fail(w, r.Request, r.ID, err)
		return
	case len(more) == 0:
		s.json(w, r.Request, r.ID, http.StatusOK, items)
		return
	}
	h := w.Header()
	h["Content-Type"] = s.typeJSON
	var out io.Writer = &slowWriter{ResponseWriter: w, control: http.NewResponseController(w)}
	end := func() error { return nil }
	if s.Compress {
		h.Set("Vary", "Accept-Encoding")
		if acceptsGzip(r.Header.Get("Accept-Encoding")) {
			if z, err := gzip.NewWriterLevel(out, gzip.BestSpeed); err == nil {
				h.Set("Content-Encoding", "gzip")
				out, end = z, z.Close
			}
		}
	}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	if err = writeArray(out, items, more, v.Next); err == nil {
		err = end()
	}
	if err != nil {
		s.log.Warn("list cut off", "request", r.ID, "path", r.URL.Path, "error", err)
		s.abort(w)
	}
}

// writeArray writes the pieces of an array that were read, and those that follow.
func writeArray(out io.Writer, items, more []json.RawMessage, next func() ([]json.RawMessage, error)) error {
	start := byte('[')
	for {
		text := appendItems(nil, items)
		text[0] = start // in the place of each piece's own bracket
		if _, err := out.Write(text[:len(text)-1]); err != nil {
			return err
		}
		if len(more) == 0 {
			_, err := io.WriteString(out, "]\n")
			return err
		}
		following, err := next()
		if err != nil {
			return err
		}
		start, items, more = ',', more, following
	}
}

// raw writes a file or a text.
func (s *Server) raw(w http.ResponseWriter, r *Request, v Raw) {
	if c, ok := v.Content.(io.Closer); ok {
		defer func() {
			if err := c.Close(); err != nil {
				s.log.Warn("close content", "request", r.ID, "path", r.URL.Path, "error", err)
			}
		}()
	}
	h := w.Header()
	if v.ContentType == "" {
		v.ContentType = "application/octet-stream"
	}
	h.Set("Content-Type", v.ContentType)
	if v.Name != "" {
		h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": v.Name}))
	}
	if v.ETag != "" {
		h.Set("ETag", `"`+v.ETag+`"`)
		h["Cache-Control"] = s.revalidate
	}
	out := &slowWriter{ResponseWriter: w, control: http.NewResponseController(w)}
	if seeker, ok := v.Content.(io.ReadSeeker); ok {
		http.ServeContent(out, r.Request, "", v.Modified, seeker)
		return
	}
	if v.Size > 0 {
		h.Set("Content-Length", strconv.FormatInt(v.Size, 10))
	}
	w.WriteHeader(http.StatusOK)
	if r.Method == http.MethodHead {
		return
	}
	if _, err := io.Copy(out, v.Content); err != nil {
		// The status is out: cutting the connection is the only way left to say
		// that the content is not whole.
		s.log.Warn("content cut off", "request", r.ID, "path", r.URL.Path, "error", err)
		s.abort(w)
	}
}

// abort cuts the connection so that the caller sees a broken answer.
func (s *Server) abort(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Unix(1, 0)) // the answer is lost either way
}

// slowWriter gives every piece of a long answer its own time.
type slowWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (w *slowWriter) Write(p []byte) (int, error) {
	if err := w.control.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return 0, err
	}
	return w.ResponseWriter.Write(p)
}

// stream writes server-sent events until the handler or the caller is done.
func (s *Server) stream(w http.ResponseWriter, r *Request, run Stream) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("X-Accel-Buffering", "no") // proxies must not gather events
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(s.drain, cancel)()

	out := &eventWriter{slowWriter: slowWriter{ResponseWriter: w, control: http.NewResponseController(w)}, cancel: cancel}
	w.WriteHeader(http.StatusOK)
	if err := out.write([]byte(": ready\n\n")); err != nil {
		return
	}
	beat := time.AfterFunc(heartbeat, func() {
		if err := out.write([]byte(":\n\n")); err == nil {
			out.rearm()
		}
	})
	out.setTimer(beat)
	defer out.close()
	err := run(ctx, out.send)
	if err == nil || ctx.Err() != nil {
		return
	}
	code, body := describe(err, r.ID)
	if code >= http.StatusInternalServerError {
		s.log.Error("stream failed", "request", r.ID, "path", r.URL.Path, "error", err)
	}
	if err := out.send(Event{Name: "error", Data: body}); err != nil {
		s.log.Debug("caller left", "request", r.ID, "error", err)
	}
}

// eventWriter is shared by the handler and the heartbeat.
type eventWriter struct {
	slowWriter
	cancel context.CancelFunc

	mu     sync.Mutex
	timer  *time.Timer
	closed bool
}

func (w *eventWriter) setTimer(t *time.Timer) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.timer = t
}

func (w *eventWriter) rearm() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.closed && w.timer != nil {
		w.timer.Reset(heartbeat)
	}
}

func (w *eventWriter) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.timer.Stop()
}

func (w *eventWriter) write(p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return http.ErrHandlerTimeout
	}
	_, err := w.slowWriter.Write(p)
	if err == nil {
		err = w.control.Flush()
	}
	if err != nil {
		w.cancel()
	}
	return err
}

func (w *eventWriter) send(e Event) error {
	data, err := json.Marshal(e.Data) // never has a line break
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	var b bytes.Buffer
	line := strings.NewReplacer("\r", " ", "\n", " ")
	if e.ID != "" {
		fmt.Fprintf(&b, "id: %s\n", line.Replace(e.ID))
	}
	if e.Name != "" {
		fmt.Fprintf(&b, "event: %s\n", line.Replace(e.Name))
	}
	fmt.Fprintf(&b, "data: %s\n\n", data)
	return w.write(b.Bytes())
}

// etag is the entity tag of a document's version.
func etag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

// matchesTag reports whether a header such as `"3", W/"4"` or `*` has the tag.
func matchesTag(header, tag string) bool {
	if header == "" {
		return false
	}
	for one := range strings.SplitSeq(header, ",") {
		if one = strings.TrimPrefix(strings.TrimSpace(one), "W/"); one == "*" || one == tag {
			return true
		}
	}
	return false
}

// Expects returns the version that If-Match asks for: 0 when the header is
// absent or "*". Several tags or one that is none of ours are a fault.
func (r *Request) Expects() (int64, error) {
	header := strings.TrimSpace(r.Header.Get("If-Match"))
	if header == "" || header == "*" {
		return 0, nil
	}
	n, err := strconv.ParseInt(strings.Trim(header, `"`), 10, 64)
	if err != nil || n <= 0 {
		return 0, fault.New(fault.Invalid, "The header If-Match is '%.60s'; it must be one ETag as this server gave it, such as \"3\".", header)
	}
	return n, nil
}
