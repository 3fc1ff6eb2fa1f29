package halibut_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/halibut/bson"
	"github.com/takodeploy/tako/internal/halibut/wire"
)

// TestHostileAnswers come from an agent that is trusted: the call has no answer, the
// connection ends, and the next call goes its way over another one.
func TestHostileAnswers(t *testing.T) {
	t.Parallel()
	var nested bson.Builder
	for range bson.MaxDepth + 1 {
		nested.Begin(bson.Document, "Message")
	}
	deep, err := nested.Done()
	if err != nil {
		t.Fatal(err)
	}
	both(t, func(t *testing.T, polling bool) {
		agentID, sub, log := newID(t), halibut.NewSubscription(), &logged{}
		server := halibut.New(halibut.Config{
			Identity: newID(t), Timing: quick(), Log: log.logger(), Limits: wire.Limits{Message: 1 << 20, Idle: 400 * time.Millisecond},
			TrustSubscriber: func(_ context.Context, s halibut.Subscription, p halibut.Thumbprint) (bool, error) {
				return s == sub && p == agentID.Thumbprint, nil
			},
		})
		ln := listen(t)
		var caller halibut.Caller
		var meet func() *raw
		if polling {
			serve(t, server, ln)
			caller = server.Polling(sub, agentID.Thumbprint, halibut.Effort{Queue: patience})
			meet = func() *raw {
				c := dialRaw(t, ln.Addr().String(), agentID)
				c.say(t, "MX\r\n\r\nMX-SUBSCRIBER 1.0 "+string(sub)+"\r\n\r\n")
				c.hear(t, "MX-SERVER 1.0\r\n\r\n")
				return c
			}
		} else {
			l := server.Listening(ln.Addr().String(), agentID.Thumbprint, nil, halibut.Effort{})
			t.Cleanup(func() {
				l.Close()
				ln.Close()
			})
			caller = l
			meet = func() *raw {
				tcp, err := ln.Accept()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { tcp.Close() })
				_ = tcp.SetDeadline(time.Now().Add(patience))
				c := &raw{tls.Server(tcp, &tls.Config{Certificates: []tls.Certificate{agentID.TLS()}}), nil}
				c.br = bufio.NewReader(c.Conn)
				c.hear(t, "MX\r\n\r\nMX-CLIENT 1.0\r\n\r\n")
				c.say(t, "MX-SERVER 1.0\r\n\r\n")
				return c
			}
		}
		// asked is a call, and the connection on which the agent has it.
		asked := func() (ended chan error, c *raw, id string) {
			t.Helper()
			ended = make(chan error, 1)
			go func() { ended <- caller.Call(t.Context(), call("Say", "x"), new(string)) }()
			c = meet()
			r, err := wire.NewConn(&replay{Conn: c, r: c.br}, wire.Limits{}, nil).ReceiveRequest(patience)
			if err != nil || r == nil {
				t.Fatalf("no request: %v", err)
			}
			return ended, c, r.ID
		}
		for name, answer := range map[string]func(id string) []byte{
			"oversized":      func(string) []byte { return block(append([]byte{0xff, 0xff, 0xff, 0x7f}, make([]byte, 1000)...)) },
			"truncated":      func(id string) []byte { return response(t, id, "x")[:20] },
			"deep":           func(string) []byte { return block(deep) },
			"no compression": func(string) []byte { return []byte("HTTP/1.1 200 OK\r\n\r\n") },
			"nothing":        func(string) []byte { return block([]byte("\x0e\x00\x00\x00\x0aMessage\x00\x00")) },
			"a request":      func(string) []byte { return request(t, service, "Say", "x") },
			"of another":     func(string) []byte { return response(t, "another", "x") },
			"no text":        func(id string) []byte { return response(t, id, int32(5)) },
		} {
			ended, c, id := asked()
			c.say(t, string(answer(id)))
			if err := <-ended; !errors.Is(err, halibut.ErrUnanswered) {
				t.Errorf("%s: %v", name, err)
			}
			c.gone(t)
		}
		if polling { // it is one peer with one kind of misconduct
			eventually(t, "a line in the log", func() bool { return log.count("a connection was closed") == 1 })
		}
		if n := log.count("level=WARN"); n > 1 {
			t.Errorf("%d warnings:\n%s", n, log.b.String())
		}
		ended, c, id := asked()
		c.say(t, string(response(t, id, "x")))
		if err := <-ended; err != nil {
			t.Errorf("the next call: %v", err)
		}
	})
}
