package halibut

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/halibut/wire"
)

// Service answers calls under the name of an interface.
type Service struct {
	Name    string
	Methods []Method
}

// Method is one method of a service. A handler that gets streams acts only once it
// has read them to io.EOF: before that the peer may still give up.
type Method struct {
	name  string
	count int
	// read takes the parameters and returns what is to be done with them.
	read func(*wire.InRequest) (func(context.Context) (any, error), error)
}

// Method0 is a method without parameters.
func Method0[R any](name string, f func(context.Context) (R, error)) Method {
	return Method{name, 0, func(r *wire.InRequest) (func(context.Context) (any, error), error) {
		return func(ctx context.Context) (any, error) { return f(ctx) }, r.Params()
	}}
}

// Method1 is a method with one parameter.
func Method1[A, R any](name string, f func(context.Context, A) (R, error)) Method {
	return Method{name, 1, func(r *wire.InRequest) (func(context.Context) (any, error), error) {
		var a A
		err := r.Params(&a)
		return func(ctx context.Context) (any, error) { return f(ctx, a) }, err
	}}
}

// Method2 is a method with two parameters.
func Method2[A, B, R any](name string, f func(context.Context, A, B) (R, error)) Method {
	return Method{name, 2, func(r *wire.InRequest) (func(context.Context) (any, error), error) {
		var a A
		var b B
		err := r.Params(&a, &b)
		return func(ctx context.Context) (any, error) { return f(ctx, a, b) }, err
	}}
}

// Void1 is a method with one parameter that returns nothing.
func Void1[A any](name string, f func(context.Context, A) error) Method {
	return Method{name, 1, func(r *wire.InRequest) (func(context.Context) (any, error), error) {
		var a A
		err := r.Params(&a)
		return func(ctx context.Context) (any, error) { return nil, f(ctx, a) }, err
	}}
}

// find returns the method that a request names; names of methods have no case.
func (n *Node) find(r *wire.InRequest) (Method, *wire.ServerError) {
	for _, s := range n.cfg.Services {
		if s.Name != r.Service {
			continue
		}
		for _, m := range s.Methods {
			if strings.EqualFold(m.name, r.Method) && m.count == r.Count() {
				return m, nil
			}
		}
		return Method{}, &wire.ServerError{
			Message: fmt.Sprintf("Method not found: %.100q of %s with %d parameters", r.Method, s.Name, r.Count()),
			Type:    wire.ErrorMethodNotFound,
		}
	}
	return Method{}, &wire.ServerError{Message: fmt.Sprintf("Service not found: %.100s", r.Service), Type: wire.ErrorServiceNotFound}
}

// errOutOfStep ends a conversation whose next byte could be anything: what followed
// a message could not be told.
var errOutOfStep = errors.New("a request that cannot be understood was answered with an error")

// What is still read of a peer before a connection is closed after an answer: closed
// with something unread, the answer could be lost.
const (
	lingerFor   = 5 * time.Second
	lingerBytes = 64 << 20
)

// respond answers one request. After an error the connection is of no more use.
func (n *Node) respond(ctx context.Context, c *wire.Conn, r *wire.InRequest) error {
	resp := wire.Response{ID: r.ID}
	m, unknown := n.find(r)
	inStep := true
	if unknown != nil {
		resp.Error, inStep = unknown, r.Plain()
	} else if call, err := m.read(r); err != nil {
		resp.Error, inStep = &wire.ServerError{Message: err.Error(), Type: wire.ErrorNoMatch}, false
	} else if resp.Result, err = call(ctx); err != nil {
		resp.Result, resp.Error = nil, answered(err)
	}
	if inStep {
		// What the method did not read is in the way.
		if err := c.Finish(); err != nil {
			return err
		}
	}
	if s, ok := resp.Result.(*wire.DataStream); ok && s != nil {
		defer s.Release()
	}
	msg, err := wire.Encode(resp)
	if err != nil {
		return fmt.Errorf("answer %s.%s: %w", r.Service, r.Method, err)
	}
	if err := c.Send(msg); err != nil {
		return err
	}
	if !inStep {
		c.Linger(lingerFor, lingerBytes)
		return errOutOfStep
	}
	return nil
}

// answered is what a peer sees of an error.
func answered(err error) *wire.ServerError {
	var e *wire.ServerError
	if errors.As(err, &e) {
		return e
	}
	return &wire.ServerError{Message: err.Error()}
}
