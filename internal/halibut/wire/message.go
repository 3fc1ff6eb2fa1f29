package wire

import (
	"fmt"
	"reflect"

	"github.com/takodeploy/tako/internal/halibut/bson"
)

const (
	memberMessage = "Message"
	nameRequest   = "Halibut.Transport.Protocol.RequestMessage, Halibut"
	nameResponse  = "Halibut.Transport.Protocol.ResponseMessage, Halibut"
	nameStream    = "Halibut.DataStream, Halibut"
)

// Endpoint is where a request was meant to go. Services ignore it.
type Endpoint struct {
	BaseURI             string `wire:"BaseUri"`
	RemoteThumbprint    string
	Proxy               Nothing
	IsWebSocketEndpoint bool
}

// Request asks a service to do something.
type Request struct {
	ID         string   `wire:"id"` // free text; the response repeats it
	ActivityID GUID     `wire:"activityId"`
	Endpoint   Endpoint `wire:"endpoint"`
	Service    string   `wire:"service"` // the name of its interface
	Method     string   `wire:"method"`
	Params     []any    `wire:"params"` // strings, numbers, Typed structs, *DataStream
}

// TypeNames is Typed.
func (Request) TypeNames() []string { return []string{nameRequest} }

// Response answers a request.
type Response struct {
	ID     string       `wire:"id"`
	Error  *ServerError `wire:"error"`  // nil if the method succeeded
	Result any          `wire:"result"` // like a parameter; nil if the method returns nothing
}

// TypeNames is Typed.
func (Response) TypeNames() []string { return []string{nameResponse} }

// ServerError is a failure that the other side answers instead of a result.
type ServerError struct {
	Message string `wire:"message"`
	Details string `wire:"details,null"` // the peer's stack, for people
	// Type is one of the ErrorTypes, "" where the method itself failed.
	Type string `wire:"HalibutErrorType,null"`
}

// Error is the peer's message.
func (e *ServerError) Error() string { return e.Message }

// ErrorTypes of failures that are no method's own.
const (
	ErrorServiceNotFound = "Halibut.Exceptions.ServiceNotFoundHalibutClientException"
	ErrorMethodNotFound  = "Halibut.Exceptions.MethodNotFoundHalibutClientException"
	ErrorAmbiguousMethod = "Halibut.Exceptions.AmbiguousMethodMatchHalibutClientException"
	ErrorNoMatch         = "Halibut.Exceptions.NoMatchingServiceOrMethodHalibutClientException"
	ErrorInvocation      = "Halibut.Exceptions.ServiceInvocationHalibutClientException"
)

// Message is what Conn.Send sends: a document and the streams that it names.
type Message struct {
	Body    bson.Raw
	Streams []*DataStream
}

// Encode makes a message of a Request or a Response.
func Encode(v Typed) (*Message, error) {
	var e encoder
	if err := e.any(memberMessage, reflect.ValueOf(v)); err != nil {
		return nil, err
	}
	body, err := e.Done()
	if err != nil {
		return nil, err
	}
	return &Message{Body: body, Streams: e.streams}, nil
}

// Null is the message of a server that has nothing to ask.
func Null() *Message {
	var b bson.Builder
	b.Null(memberMessage)
	body, _ := b.Done() // no name in it can be wrong
	return &Message{Body: body}
}

// InRequest is a request that has come. Its parameters are read by Params.
type InRequest struct {
	ID         string       `wire:"id"`
	ActivityID GUID         `wire:"activityId"`
	Service    string       `wire:"service"`
	Method     string       `wire:"method"`
	Raw        bson.Element `wire:"params"`

	conn *Conn
}

// InResponse is a response that has come. Its result is read by Result.
type InResponse struct {
	ID    string       `wire:"id"`
	Error *ServerError `wire:"error"`
	Raw   bson.Element `wire:"result"`

	conn *Conn
}

// open reads the envelope: false for a null message.
func open(body bson.Raw, name string, into any) (bool, error) {
	e, ok := body.Find(memberMessage)
	switch {
	case !ok:
		return false, violation("a message without a %s", memberMessage)
	case e.IsNull():
		return false, nil
	}
	doc, err := e.Doc()
	if err != nil {
		return false, err
	}
	// Only old peers need the type to read it, so new ones may leave it out.
	if t, ok := doc.Find(typeKey); ok {
		if got, err := t.Text(); err != nil || got != name {
			return false, violation("a message of type %q where %q is expected", clip(got), name)
		}
	}
	d := decoder{}
	return true, d.object(doc, reflect.ValueOf(into).Elem())
}

// Count is how many parameters there are.
func (r *InRequest) Count() int {
	list, err := r.Raw.List()
	if err != nil {
		return 0
	}
	return list.Len()
}

// Plain reports whether no parameter is an object, so that no stream can follow.
func (r *InRequest) Plain() bool {
	list, err := r.Raw.List()
	if err != nil {
		return r.Raw.IsNull()
	}
	for e := range list.Elements() {
		if e.Type == bson.Document || e.Type == bson.Array {
			return false
		}
	}
	return true
}

// Params reads the parameters into what the pointers point at. Streams among them
// can be read from then on, each once and in their order.
func (r *InRequest) Params(into ...any) error {
	if r.Count() != len(into) {
		return violation("%d parameters for %s.%s, which has %d", r.Count(), clip(r.Service), clip(r.Method), len(into))
	}
	if len(into) == 0 {
		return nil
	}
	list, err := r.Raw.List()
	if err != nil {
		return err
	}
	d := r.conn.decoder()
	i := 0
	for e := range list.Elements() {
		if err := d.untyped(e, reflect.ValueOf(into[i]).Elem()); err != nil {
			return fmt.Errorf("read parameter %d of %s.%s: %w", i+1, clip(r.Service), clip(r.Method), err)
		}
		i++
	}
	return r.conn.expect(d.streams)
}

// Result reads the result into what the pointer points at; nil takes only null.
// Streams in it can be read from then on, each once and in their order.
func (r *InResponse) Result(into any) error {
	if into == nil {
		if r.Raw.IsNull() {
			return nil
		}
		return violation("a result where none is expected")
	}
	d := r.conn.decoder()
	if err := d.untyped(r.Raw, reflect.ValueOf(into).Elem()); err != nil {
		return fmt.Errorf("read result: %w", err)
	}
	return r.conn.expect(d.streams)
}
