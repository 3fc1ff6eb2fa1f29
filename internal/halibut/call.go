package halibut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/takodeploy/tako/internal/halibut/wire"
)

// Call is what is asked of a service.
type Call struct {
	Service, Method string
	Params          []any // strings, numbers, wire.Typed structs, *wire.DataStream
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
	l, stop, err := k.exchange(ctx, call, result)
	if l == nil {
		return err
	}
	defer stop()
	// An answer that came is an answer, whatever becomes of its connection.
	if l.Pending() > 0 {
		l.back(errors.New("a result with streams that nobody reads"))
	} else {
		l.back(l.Finish())
	}
	return err
}

// Fetch is Caller.
func (k *caller) Fetch(ctx context.Context, call Call) (io.ReadCloser, error) {
	var s *wire.DataStream
	l, stop, err := k.exchange(ctx, call, &s)
	if l == nil {
		return nil, err
	}
	if err != nil || s == nil {
		defer stop()
		l.back(l.Finish())
		return nil, err
	}
	return &fetched{ctx: ctx, s: s, l: l, stop: stop}, nil
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

// exchange sends a request and reads the answer. Where a line is returned, the
// answer has come and the conversation is in step: err is nil or the agent's own.
// stop must be called when ctx shall no longer close it.
func (k *caller) exchange(ctx context.Context, call Call, result any) (_ *line, stop func() bool, _ error) {
	params := call.Params
	if params == nil {
		params = []any{} // null is an error to old agents
	}
	activity := wire.NewGUID()
	id := fmt.Sprintf("%s::%s[%d] / %s", call.Service, call.Method, k.calls.Add(1), activity)
	msg, err := wire.Encode(wire.Request{
		ID: id, ActivityID: activity, Endpoint: k.route.endpoint(), Service: call.Service, Method: call.Method, Params: params,
	})
	if err != nil {
		return nil, nil, notSent(err)
	}
	if len(msg.Body) > k.node.messageLimit() {
		return nil, nil, notSent(fmt.Errorf("a request of %d bytes; %d is the most", len(msg.Body), k.node.messageLimit()))
	}
	l, err := k.route.take(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("call %s.%s: %w", call.Service, call.Method, err)
	}
	stop = context.AfterFunc(ctx, l.Abort)
	fail := func(sent bool, err error) (*line, func() bool, error) {
		stop()
		err = lost(ctx, sent, err)
		l.back(err)
		return nil, nil, fmt.Errorf("call %s.%s: %w", call.Service, call.Method, err)
	}
	if err := l.Send(msg); err != nil {
		return fail(l.Sent(), err)
	}
	r, err := l.ReceiveResponse(k.node.timing.Response)
	switch {
	case err != nil:
		return fail(true, err)
	case r.ID != id:
		return fail(true, fmt.Errorf("%w: the answer to %.100q came for %.100q", wire.ErrProtocol, r.ID, id))
	case r.Error != nil:
		return l, stop, r.Error
	}
	if err := r.Result(result); err != nil {
		return fail(true, err)
	}
	return l, stop, nil
}

func (n *Node) messageLimit() int {
	if n.cfg.Limits.Message > 0 {
		return n.cfg.Limits.Message
	}
	return wire.DefaultMessage
}
