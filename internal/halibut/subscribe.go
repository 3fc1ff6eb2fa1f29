package halibut

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/halibut/wire"
)

// Server is a server that an agent polls.
type Server struct {
	Addr         string // host:port
	Thumbprint   Thumbprint
	Subscription Subscription // the agent's own
	Connections  int          // at the same time; 1 unless set
	Dial         DialFunc     // may be nil
}

// Poll has the node's services answer what a server asks, over connections that the
// node makes and makes again, until ctx ends. A call in progress has Timing.Grace
// to be answered then.
func (n *Node) Poll(ctx context.Context, s Server) {
	if s.Dial == nil {
		s.Dial = dialDirect
	}
	hard, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(n.timing.Grace, kill) })()
	var wg sync.WaitGroup
	first := newPresence()
	for i := range max(1, s.Connections) {
		wg.Go(func() { n.pollOn(ctx, hard, s, first, i == 0) })
	}
	wg.Wait()
}

// followAfter is how long the other connections of an agent wait for its first one.
const followAfter = 10 * time.Second

// presence tells whether an agent has a connection at all. A thousand agents that come back
// to a server are there once each has one; if each dialled five at once, the last of them
// would wait until nearly all are made.
type presence struct {
	mu    sync.Mutex
	count int
	there chan struct{} // closed while count is above 0
}

func newPresence() *presence { return &presence{there: make(chan struct{})} }

// add notes a connection, and gives what notes its end.
func (p *presence) add() (end func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count++; p.count == 1 {
		close(p.there)
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.count--; p.count == 0 {
			p.there = make(chan struct{})
		}
	}
}

// wait waits until there is a connection, and not forever: that one may have met a host
// that never answers, and another one may not.
func (p *presence) wait(ctx context.Context) {
	p.mu.Lock()
	there := p.there
	p.mu.Unlock()
	limit := time.NewTimer(followAfter)
	defer limit.Stop()
	select {
	case <-there:
	case <-limit.C:
	case <-ctx.Done():
	}
}

// pollOn keeps one connection. The first one of an agent is made at once, the others once
// there is one.
func (n *Node) pollOn(ctx, hard context.Context, s Server, one *presence, first bool) {
	var lost time.Time // since when there has been no connection
	for ctx.Err() == nil {
		if !first {
			one.wait(ctx)
		}
		identified, err := n.poll(ctx, hard, s, one)
		if ctx.Err() != nil {
			return
		}
		if identified || lost.IsZero() {
			lost = time.Now()
		}
		var wrong *WrongPeerError
		if errors.As(err, &wrong) {
			n.refuse.say("the server has another certificate than is trusted", s.Addr, "want", wrong.Want, "got", wrong.Got)
		} else {
			n.refuse.say("the connection to the server ended; it is made again", s.Addr, "err", err)
		}
		pause := time.NewTimer(n.timing.again(time.Since(lost), refused(err), rand.Float64()))
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// refused reports whether nobody answers at a server's address, which was known at once.
func refused(err error) bool {
	var failed *net.OpError
	return errors.As(err, &failed) && failed.Op == "dial" && !failed.Timeout()
}

// poll dials and answers requests until the connection ends.
func (n *Node) poll(ctx, hard context.Context, s Server, one *presence) (identified bool, err error) {
	host, _, err := net.SplitHostPort(s.Addr)
	if err != nil {
		return false, fmt.Errorf("connect to %s: %w", s.Addr, err)
	}
	c, err := n.dialPeer(ctx, n.timing.Connect, s.Dial, s.Addr, host, s.Thumbprint, wire.Identity{Kind: wire.KindSubscriber, Subscription: string(s.Subscription)})
	if err != nil {
		return false, err
	}
	defer func() { _ = c.Close() }()
	defer one.add()()
	defer context.AfterFunc(hard, c.Abort)()
	n.log.Info("connected to the server", "addr", s.Addr)
	for {
		r, err := n.nextRequest(ctx, c, n.timing.Poll)
		if err != nil {
			return true, err
		}
		if r != nil {
			if err := n.respond(hard, c, r); err != nil {
				return true, err
			}
		} else if err := c.Finish(); err != nil {
			return true, err
		}
		if ctx.Err() != nil {
			return true, ctx.Err()
		}
		if err := c.WriteLines(wire.Next); err != nil {
			return true, err
		}
		if err := c.Expect(wire.Proceed, n.timing.Control); err != nil {
			return true, err
		}
	}
}
