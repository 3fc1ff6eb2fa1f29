package halibut

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut/wire"
)

// DefaultAgentPort is where agents listen unless their address says otherwise.
const DefaultAgentPort = "10933"

// DefaultServerPort is where servers listen for polling agents.
const DefaultServerPort = "10943"

// ParseAddress reads the address of a node that listens, "https://host:port/", as
// host and port. An error is a fault of the member Uri.
func ParseAddress(s, defaultPort string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil {
		return "", fault.InvalidField("Uri", "The address %q must be https://host:port/.", s)
	}
	port := u.Port()
	if port == "" {
		port = defaultPort
	}
	return net.JoinHostPort(u.Hostname(), port), nil
}

// DialFunc opens a TCP connection; it may go through a proxy.
type DialFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// vanished is when a peer that acknowledges nothing is taken as gone.
const vanished = 70 * time.Second

// keepAlive finds a peer that is gone within vanished while nothing is sent to it.
func keepAlive() net.KeepAliveConfig {
	return net.KeepAliveConfig{Enable: true, Idle: 15 * time.Second, Interval: 5 * time.Second, Count: 10}
}

func dialDirect(ctx context.Context, network, addr string) (net.Conn, error) {
	return egress.Dialer(net.Dialer{KeepAliveConfig: keepAlive(), Control: egress.LoseAfter(vanished)})(ctx, network, addr)
}

// ThroughProxy dials by way of an HTTP proxy. The zero proxy is none.
func ThroughProxy(p egress.HTTPProxy) DialFunc {
	if p == (egress.HTTPProxy{}) {
		return dialDirect
	}
	return DialFunc(egress.Through(p, net.Dialer{KeepAliveConfig: keepAlive(), Control: egress.LoseAfter(vanished)}))
}

// Listening calls an agent that listens, and keeps a few connections to it.
type Listening struct {
	caller

	addr   string // host:port
	host   string
	peer   Thumbprint
	dial   DialFunc
	effort Effort

	mu     sync.Mutex
	idle   []*pooled // the one used last at the end
	closed bool
}

var _ Caller = (*Listening)(nil)

// pooled is a connection that waits for its next call.
type pooled struct {
	*wire.Conn
	born  time.Time
	timer *time.Timer
}

// Listening returns a caller of the agent at an address ("host:port") that has that
// thumbprint. It does not connect yet. dial may be nil. Close it when it is no
// longer needed.
func (n *Node) Listening(addr string, peer Thumbprint, dial DialFunc, effort Effort) *Listening {
	if dial == nil {
		dial = dialDirect
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		host = addr // dialling it says what is wrong
	}
	l := &Listening{addr: addr, host: host, peer: peer, dial: dial, effort: effort.orThat(n.timing)}
	l.node, l.route = n, l
	return l
}

// Close closes the connections that are not in use; those that are, after their call.
func (l *Listening) Close() {
	l.mu.Lock()
	idle := l.idle
	l.idle, l.closed = nil, true
	l.mu.Unlock()
	for _, p := range idle {
		p.timer.Stop()
		farewell(p.Conn)
	}
}

// farewell ends a conversation whose turn is ours.
func farewell(c *wire.Conn) {
	_ = c.WriteLines(wire.End) // the peer may have left already
	_ = c.Close()
}

func (l *Listening) endpoint() wire.Endpoint {
	return wire.Endpoint{BaseURI: "https://" + l.addr + "/", RemoteThumbprint: string(l.peer)}
}

// take finds an idle connection that is alive, or dials.
func (l *Listening) take(ctx context.Context) (*line, error) {
	for {
		p := l.pop()
		if p == nil {
			break
		}
		if time.Since(p.born) > l.node.timing.PoolLife {
			farewell(p.Conn)
			continue
		}
		// Nothing has been asked yet: one that is dead costs only time.
		stop := context.AfterFunc(ctx, p.Abort)
		err := p.WriteLines(wire.Next)
		if err == nil {
			err = p.Expect(wire.Proceed, l.node.timing.Reuse)
		}
		if !stop() && ctx.Err() != nil {
			_ = p.Close()
			return nil, notSent(ctx.Err())
		}
		if err == nil {
			return l.line(p.Conn, p.born), nil
		}
		_ = p.Close()
	}
	c, err := l.connect(ctx)
	if err != nil {
		return nil, notSent(err)
	}
	return l.line(c, time.Now()), nil
}

func (l *Listening) line(c *wire.Conn, born time.Time) *line {
	return &line{c, func(err error) {
		if err != nil {
			c.Abort()
			_ = c.Close()
			return
		}
		l.put(&pooled{Conn: c, born: born})
	}}
}

func (l *Listening) pop() *pooled {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.idle) > 0 {
		p := l.idle[len(l.idle)-1]
		l.idle = l.idle[:len(l.idle)-1]
		if p.timer.Stop() {
			return p
		} // else its timer closes it
	}
	return nil
}

func (l *Listening) put(p *pooled) {
	l.mu.Lock()
	if l.closed || len(l.idle) >= maxIdle {
		l.mu.Unlock()
		farewell(p.Conn)
		return
	}
	defer l.mu.Unlock()
	p.timer = time.AfterFunc(l.node.timing.PoolIdle, func() {
		l.mu.Lock()
		for i, q := range l.idle {
			if q == p {
				l.idle = append(l.idle[:i], l.idle[i+1:]...)
				break
			}
		}
		l.mu.Unlock()
		farewell(p.Conn)
	})
	l.idle = append(l.idle, p)
}

// connect dials until it has a conversation, a few times. Only somebody else's
// certificate is not tried again.
func (l *Listening) connect(ctx context.Context) (*wire.Conn, error) {
	t := l.effort
	if t.Within > 0 {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeout(ctx, t.Within)
		defer stop()
	}
	for attempt := 1; ; attempt++ {
		c, err := l.node.dialPeer(ctx, t.Connect, l.dial, l.addr, l.host, l.peer, wire.Identity{Kind: wire.KindClient})
		if err == nil {
			return c, nil
		}
		var wrong *WrongPeerError
		if errors.As(err, &wrong) {
			l.node.refuse.say("an agent has another certificate than is trusted", l.addr, "want", wrong.Want, "got", wrong.Got)
			return nil, err
		}
		if attempt >= t.Attempts || ctx.Err() != nil {
			return nil, err
		}
		pause := time.NewTimer(t.Pause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, err
		}
	}
}

// dialPeer dials, introduces us, and reads that the other side is a server of the
// protocol, all within a time.
func (n *Node) dialPeer(ctx context.Context, within time.Duration, dial DialFunc, addr, host string, peer Thumbprint, as wire.Identity) (_ *wire.Conn, err error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	own, err := n.identity(ctx)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	tcp, err := dial(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	t := tls.Client(tcp, own.clientTLS(host, peer))
	if err := t.HandshakeContext(ctx); err != nil {
		_ = tcp.Close()
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	c := wire.NewConn(t, n.cfg.Limits, n.budget)
	stop := context.AfterFunc(ctx, c.Abort)
	defer func() {
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			c.Abort()
			_ = c.Close()
			err = fmt.Errorf("introduce this node to %s: %w", addr, err)
		}
	}()
	if err := c.WriteLines(wire.Hello, ""); err != nil {
		return nil, err
	}
	// In one write: old services read it at once.
	if err := c.WriteLines(as.String(), ""); err != nil {
		return nil, err
	}
	text, err := c.ReadLine(within)
	if err != nil {
		return nil, err
	}
	id, err := wire.ParseIdentity(text)
	if err != nil {
		return nil, err
	}
	if id.Kind != wire.KindServer {
		return nil, fmt.Errorf("%w: a peer that was called says that it is %s", wire.ErrProtocol, id.Kind)
	}
	if blank, err := c.ReadLine(within); err != nil || blank != "" {
		return nil, errors.Join(fmt.Errorf("%w: no blank line after an identity", wire.ErrProtocol), err)
	}
	return c, nil
}
