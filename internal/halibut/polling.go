package halibut

import (
	"context"
	"errors"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/halibut/wire"
)

// agentKey is a polling agent. Calls for one and connections of one meet only if
// both the subscription and the certificate are the same.
type agentKey struct {
	sub   Subscription
	thumb Thumbprint
}

// queue is where calls for a polling agent wait for its connections, and those for
// calls. One of the two lists is always empty.
type queue struct {
	node *Node
	key  agentKey

	refs int // of Node.queues, under its mutex

	mu      sync.Mutex
	conns   int
	idle    []*turn
	waiting []*waiter
}

// waiter is a call without a connection.
type waiter struct{ given chan *turn }

// turn is a connection that waits for a call, from one NEXT to the next.
type turn struct {
	*wire.Conn
	state turnState  // under queue.mu
	ready chan error // the connection's goroutine has stopped reading; an error: it is dead
	back  chan error // the call is over
}

type turnState int

const (
	turnIdle turnState = iota
	turnTaken
	turnLeft // its goroutine has it back
	turnRetired
)

// errUnused says that a connection was taken, but nothing was sent on it.
var errUnused = errors.New("nothing was sent")

// errTrust says that a peer has lost its trust since it came.
var errTrust = errors.New("it is no longer trusted")

// errTurn says that an agent spoke though nobody had asked it.
var errTurn = errors.New("the agent sent something unasked")

// enter finds the queue of an agent, leave gives it back.
func (n *Node) enter(key agentKey) *queue {
	n.mu.Lock()
	defer n.mu.Unlock()
	q := n.queues[key]
	if q == nil {
		q = &queue{node: n, key: key}
		n.queues[key] = q
	}
	q.refs++
	return q
}

func (q *queue) leave() {
	q.node.mu.Lock()
	defer q.node.mu.Unlock()
	if q.refs--; q.refs == 0 {
		delete(q.node.queues, q.key)
	}
}

// Polling calls an agent that polls.
type Polling struct {
	caller

	key   agentKey
	queue time.Duration
}

var _ Caller = (*Polling)(nil)

// Polling returns a caller of the agent with that subscription and thumbprint. A
// call waits, for at most effort.Queue, until the agent has a connection free.
func (n *Node) Polling(sub Subscription, peer Thumbprint, effort Effort) *Polling {
	p := &Polling{key: agentKey{sub, peer}, queue: effort.orThat(n.timing).Queue}
	p.node, p.route = n, p
	return p
}

// Connected reports how many connections the agent has.
func (n *Node) Connected(sub Subscription, peer Thumbprint) int {
	n.mu.Lock()
	q := n.queues[agentKey{sub, peer}]
	n.mu.Unlock()
	if q == nil {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.conns
}

// Absent reports for how long an agent that polls has had no connection here: 0 when it
// has one, and while nobody is served. One that has not been here since Serve began, or
// for a day, may be away for longer.
func (n *Node) Absent(sub Subscription, peer Thumbprint) time.Duration {
	if n.Connected(sub, peer) > 0 {
		return 0
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.serves.IsZero() {
		return 0
	}
	since := n.serves
	if at, ok := n.left[agentKey{sub, peer}]; ok && at.After(since) {
		since = at
	}
	return time.Since(since)
}

// Bounds of what is remembered of agents that have left.
const (
	rememberLeft = 24 * time.Hour
	tidyLeft     = 1000 // each time that many came, those that are older are forgotten
)

// lost notes that an agent has lost its last connection.
func (n *Node) lost(key agentKey) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	if _, known := n.left[key]; !known && len(n.left) > 0 && len(n.left)%tidyLeft == 0 {
		for k, at := range n.left {
			if now.Sub(at) > rememberLeft {
				delete(n.left, k)
			}
		}
	}
	n.left[key] = now
}

func (p *Polling) endpoint() wire.Endpoint {
	return wire.Endpoint{BaseURI: string(p.key.sub), RemoteThumbprint: string(p.key.thumb)}
}

// take waits for a connection of the agent that is alive.
func (p *Polling) take(ctx context.Context) (*line, error) {
	q := p.node.enter(p.key)
	defer q.leave()
	ctx, cancel := context.WithTimeoutCause(ctx, p.queue, errors.New("the agent did not ask for work in time"))
	defer cancel()
	for {
		t, err := q.take(ctx)
		if err != nil {
			return nil, notSent(err)
		}
		// Its goroutine waits for the agent to go away; it hands the connection over.
		t.Interrupt()
		if err := <-t.ready; err == nil {
			return &line{t.Conn, func(err error) { t.back <- err }}, nil
		} // else it is dead, and nothing was asked
	}
}

func (q *queue) take(ctx context.Context) (*turn, error) {
	q.mu.Lock()
	if ctx.Err() != nil {
		q.mu.Unlock()
		return nil, context.Cause(ctx)
	}
	if len(q.idle) > 0 {
		t := q.idle[0]
		q.idle = slices.Delete(q.idle, 0, 1)
		t.state = turnTaken
		q.mu.Unlock()
		return t, nil
	}
	w := &waiter{make(chan *turn, 1)}
	q.waiting = append(q.waiting, w)
	q.mu.Unlock()
	select {
	case t := <-w.given:
		return t, nil
	case <-ctx.Done():
	}
	q.mu.Lock()
	i := slices.Index(q.waiting, w)
	if i >= 0 {
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
	q.mu.Unlock()
	if i < 0 { // a connection came at the same moment; the next call has it
		t := <-w.given
		t.Interrupt()
		if <-t.ready == nil {
			t.back <- errUnused
		}
	}
	return nil, context.Cause(ctx)
}

// offer gives a connection to the call that waits for longest, or lets it wait.
func (q *queue) offer(t *turn) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		q.idle = append(q.idle, t)
		return
	}
	w := q.waiting[0]
	q.waiting = slices.Delete(q.waiting, 0, 1)
	t.state = turnTaken
	w.given <- t
}

// withdraw takes a connection out again and returns what it was until then.
func (q *queue) withdraw(t *turn, as turnState) turnState {
	q.mu.Lock()
	defer q.mu.Unlock()
	was := t.state
	if was == turnIdle {
		t.state = as
		q.idle = slices.DeleteFunc(q.idle, func(o *turn) bool { return o == t })
	}
	return was
}

// serve gives a polling agent's connection to calls until it ends, or ctx does:
// then a call in progress still gets its answer.
func (q *queue) serve(ctx context.Context, c *wire.Conn) error {
	q.mu.Lock()
	if q.conns >= maxPerAgent {
		q.mu.Unlock()
		return errTooMany
	}
	q.conns++
	q.mu.Unlock()
	defer func() {
		q.mu.Lock()
		q.conns--
		last := q.conns == 0
		q.mu.Unlock()
		if last {
			q.node.lost(q.key)
		}
	}()
	for {
		err := q.turn(ctx, c)
		switch {
		case errors.Is(err, errUnused):
			continue
		case err != nil:
			return err
		}
		if err := c.Expect(wire.Next, q.node.timing.Control); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := c.WriteLines(wire.Proceed); err != nil {
			return err
		}
	}
}

// turn waits for a call and until it is over. Where none comes, it sends nothing.
func (q *queue) turn(ctx context.Context, c *wire.Conn) error {
	t := &turn{Conn: c, ready: make(chan error, 1), back: make(chan error, 1)}
	c.Allow(q.node.timing.Null) // before anybody can take and interrupt it
	q.offer(t)
	stop := context.AfterFunc(ctx, func() {
		if q.withdraw(t, turnRetired) == turnIdle {
			c.Interrupt()
		}
	})
	err := c.Wait()
	stop()
	switch q.withdraw(t, turnLeft) {
	case turnRetired:
		return ctx.Err()
	case turnTaken:
		silent := errors.Is(err, os.ErrDeadlineExceeded)
		if err == nil {
			err = errTurn
		}
		if !silent {
			t.ready <- err
			return err
		}
		t.ready <- nil
		return <-t.back
	default:
	}
	switch {
	case err == nil:
		return errTurn
	case !errors.Is(err, os.ErrDeadlineExceeded):
		return err
	}
	if ok, err := q.node.cfg.TrustSubscriber(ctx, q.key.sub, q.key.thumb); err == nil && !ok {
		return errTrust
	}
	return c.Send(wire.Null())
}

// again is how long a polling agent waits before it dials once more, lost for that
// long by now. Random is in [0,1): agents that lost a server at the same moment do
// not come back at the same moment. The first pauses are the shortest, while the
// server's machine refuses at once, which costs it nothing: a server that is only
// restarted is back soon.
func (t Timing) again(lost time.Duration, refused bool, random float64) time.Duration {
	if lost < t.Again/10 || refused && lost < 6*t.Again {
		return time.Duration(float64(t.Again) * (0.2 + 0.8*random))
	}
	d := time.Duration(float64(max(lost, t.Again)) * (1 + random))
	return min(d, t.AgainMax-time.Duration(random/4*float64(t.AgainMax)))
}
