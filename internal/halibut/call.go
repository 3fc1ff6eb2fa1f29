package halibut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/takodeploy/tako/internal/halibut/wire"
)

// Call is what is asked of a service.
type Call struct {
	Service, Method string
	Params          []any // strings, numbers, wire.Typed structs, *wire.DataStream
	// Linger, for Caller.Call, keeps the connection for that long after ctx has ended
	// when the request has been sent: the call returns at once all the same, and the
	// answer is read for nobody. Without it the connection is closed, and a polling
	// agent needs seconds to make another.
	Linger time.Duration
}

// Caller makes calls to one agent. It is safe for concurrent use. Errors wrap
// ErrNotSent or ErrUnanswered, or are a *wire.ServerError. Ending ctx ends a call
// by closing its connection: the agent may finish it all the same.
type Caller interface {
	// Call reads the result into what the pointer points at; nil takes none.
	Call(ctx context.Context, call Call, result any) error
	// Fetch makes a call whose result is a stream. It is nil where the agent has
	// none; the caller closes it, and ctx counts until then.
	Fetch(ctx context.Context, call Call) (io.ReadCloser, error)
}

// line is a connection on which it is our turn to send a request.
type line struct {
	*wire.Conn
	// back returns it after a whole exchange, or has it closed after any error.
	back func(error)
}

// route finds a connection to an agent.
type route interface {
	// take returns a connection for one call, or an error that wraps ErrNotSent.
	take(ctx context.Context) (*line, error)
	endpoint() wire.Endpoint
}

// caller is every Caller: what differs is the route.
type caller struct {
	node  *Node
	route route
	calls atomic.Int64
}

func notSent(err error) error { return fmt.Errorf("%w: %w", ErrNotSent, err) }

// lost says how a call ended whose connection did.
func lost(ctx context.Context, sent bool, err error) error {
	kind := ErrNotSent
	if sent {
		kind = ErrUnanswered
	}
	if cause := ctx.Err(); cause != nil {
		err = cause
	}
	return fmt.Errorf("%w: %w", kind, err)
}

// Call is Caller.
func (k *caller) Call(ctx context.Context, call Call, result any) error {
	s, err := k.send(ctx, call)
	if err != nil {
		return err
	}
	if call.Linger <= 0 {
		return s.receive(ctx, result)
	}
	// What the answer is read into is ours until somebody waits for it no longer.
	s.stop()
	own := result
	if result != nil {
		own = reflect.New(reflect.TypeOf(result).Elem()).Interface()
	}
	bound, cancel := context.WithCancel(context.WithoutCancel(ctx))
	s.stop = context.AfterFunc(bound, s.line.Abort)
	ended := make(chan error, 1)
	go func() {
		defer cancel()
		ended <- s.receive(bound, own)
	}()
	select {
	case err := <-ended:
		if result != nil {
			reflect.ValueOf(result).Elem().Set(reflect.ValueOf(own).Elem())
		}
		return err
	case <-ctx.Done():
		time.AfterFunc(call.Linger, cancel)
		return s.failed(lost(ctx, true, ctx.Err()))
	}
}

// Fetch is Caller.
func (k *caller) Fetch(ctx context.Context, call Call) (io.ReadCloser, error) {
	s, err := k.send(ctx, call)
	if err != nil {
		return nil, err
	}
	var stream *wire.DataStream
	inStep, err := s.answer(ctx, &stream)
	if !inStep {
		return nil, err
	}
	if err != nil || stream == nil {
		s.stop()
		s.line.back(s.line.Finish())
		return nil, err
	}
	return &fetched{ctx: ctx, s: stream, l: s.line, stop: s.stop}, nil
}

// fetched is a stream that comes over a connection of its own for as long.
type fetched struct {
	ctx  context.Context //nolint:containedctx // that of the call, which lasts until Close
	s    *wire.DataStream
	l    *line
	stop func() bool
	once sync.Once
}

func (f *fetched) Read(p []byte) (int, error) {
	n, err := f.s.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = lost(f.ctx, true, err)
	}
	return n, err
}

// Close gives the connection back if the stream was read to its end.
func (f *fetched) Close() error {
	f.once.Do(func() {
		if f.stop(); f.l.Pending() > 0 {
			f.l.back(errors.New("the stream was not read to its end"))
		} else {
			f.l.back(f.l.Finish())
		}
	})
	return nil
}

// sent is a request that has been sent.
type sent struct {
	node *Node
	call Call
	id   string
	line *line
	stop func() bool // keeps the context's end from closing the line
}

func (s *sent) failed(err error) error {
	return fmt.Errorf("call %s.%s: %w", s.call.Service, s.call.Method, err)
}

// send finds a connection and sends a request.
func (k *caller) send(ctx context.Context, call Call) (*sent, error) {
	params := call.Params
	if params == nil {
		params = []any{} // null is an error to old agents
	}
	activity := wire.NewGUID()
	s := &sent{node: k.node, call: call, id: fmt.Sprintf("%s::%s[%d] / %s", call.Service, call.Method, k.calls.Add(1), activity)}
	msg, err := wire.Encode(wire.Request{
		ID: s.id, ActivityID: activity, Endpoint: k.route.endpoint(), Service: call.Service, Method: call.Method, Params: params,
	})
	if err != nil {
		return nil, notSent(err)
	}
	if len(msg.Body) > k.node.messageLimit() {
		return nil, notSent(fmt.Errorf("a request of %d bytes; %d is the most", len(msg.Body), k.node.messageLimit()))
	}
	if s.line, err = k.route.take(ctx); err != nil {
		return nil, s.failed(err)
	}
	s.stop = context.AfterFunc(ctx, s.line.Abort)
	if err := s.line.Send(msg); err != nil {
		s.stop()
		err = lost(ctx, s.line.Sent(), err)
		s.line.back(err)
		return nil, s.failed(err)
	}
	return s, nil
}

// answer reads the response. Where it is in step, the conversation is: err is nil
// or the agent's own, and what is left are the result's streams.
func (s *sent) answer(ctx context.Context, result any) (inStep bool, err error) {
	r, err := s.line.ReceiveResponse(s.node.timing.Response)
	switch {
	case err != nil:
	case r.ID != s.id:
		err = fmt.Errorf("%w: the answer to %.100q came for %.100q", wire.ErrProtocol, r.ID, s.id)
	case r.Error != nil:
		return true, r.Error
	default:
		if err = r.Result(result); err == nil {
			return true, nil
		}
	}
	s.stop()
	err = lost(ctx, true, err)
	s.line.back(err)
	return false, s.failed(err)
}

// receive reads the response and gives the connection back.
func (s *sent) receive(ctx context.Context, result any) error {
	inStep, err := s.answer(ctx, result)
	if !inStep {
		return err
	}
	s.stop()
	// An answer that came is an answer, whatever becomes of its connection.
	if s.line.Pending() > 0 {
		s.line.back(errors.New("a result with streams that nobody reads"))
	} else {
		s.line.back(s.line.Finish())
	}
	return err
}

func (n *Node) messageLimit() int {
	if n.cfg.Limits.Message > 0 {
		return n.cfg.Limits.Message
	}
	return wire.DefaultMessage
}
