package halibut

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/halibut/bson"
	"github.com/takodeploy/tako/internal/halibut/wire"
)

var errTooMany = errors.New("too many connections")

// page is what a browser sees, and what registration takes as a sign that this port
// can be reached.
const page = `<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Tako</title></head>
<body><h1>Tako is listening</h1><p>This port is for agents and servers; it can be reached.</p></body></html>`

// Serve answers those who dial this node until ctx ends; then nobody is accepted any
// more, connections without a call close at once, others within Timing.Grace. It
// closes ln and returns nil.
func (n *Node) Serve(ctx context.Context, ln net.Listener) error {
	n.mu.Lock()
	n.serves = time.Now()
	n.mu.Unlock()
	hard, kill := context.WithCancel(context.WithoutCancel(ctx))
	defer kill()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	var wg sync.WaitGroup
	conns, untrusted := make(chan struct{}, n.cfg.MaxConnections), make(chan struct{}, n.cfg.MaxUntrusted)
	err := n.acceptAll(ctx, ln, untrusted, func(tcp net.Conn) {
		select {
		case conns <- struct{}{}:
		default:
			<-untrusted
			_ = tcp.Close()
			n.refuse.say("a connection was refused: there are too many", "everybody", "most", n.cfg.MaxConnections)
			return
		}
		wg.Go(func() {
			defer func() { <-conns }()
			n.accept(ctx, hard, tcp, sync.OnceFunc(func() { <-untrusted }))
		})
	})
	if stop() { // it is not ctx that ended it
		_ = ln.Close()
	}
	grace := time.AfterFunc(n.timing.Grace, kill)
	defer grace.Stop()
	wg.Wait()
	return err
}

// acceptAll accepts until ctx ends, no more at once than may be unknown.
func (n *Node) acceptAll(ctx context.Context, ln net.Listener, untrusted chan struct{}, handle func(net.Conn)) error {
	for {
		select {
		case untrusted <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		tcp, err := ln.Accept()
		if err == nil {
			handle(tcp)
			continue
		}
		<-untrusted
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("accept connections: %w", err)
		}
		// Out of file descriptors, mostly.
		n.log.Error("accept connections", "err", err)
		pause := time.NewTimer(100 * time.Millisecond)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
		}
	}
}

// accept serves one connection to its end.
func (n *Node) accept(ctx, hard context.Context, tcp net.Conn, trusted func()) {
	defer trusted()
	remote := tcp.RemoteAddr().String()
	if host, _, err := net.SplitHostPort(remote); err == nil {
		remote = host
	}
	if t, ok := tcp.(*net.TCPConn); ok {
		_ = t.SetKeepAliveConfig(keepAlive()) // a nicety, as is what follows
		if raw, err := t.SyscallConn(); err == nil {
			_ = egress.LoseAfter(vanished)("tcp", "", raw)
		}
	}
	defer func() { _ = tcp.Close() }()
	defer context.AfterFunc(hard, func() { _ = tcp.Close() })()
	// Whoever is not identified does not hold up a shutdown.
	early := context.AfterFunc(ctx, func() { _ = tcp.Close() })
	defer early()
	until := time.Now().Add(n.timing.Hello)
	hello, cancel := context.WithDeadline(hard, until)
	defer cancel()
	own, err := n.identity(hello)
	if err != nil {
		if hello.Err() == nil {
			n.log.Error("a connection was closed: this node has no certificate", "peer", remote, "err", err)
		}
		return
	}
	t := tls.Server(tcp, own.serverTLS())
	if err := t.HandshakeContext(hello); err != nil {
		n.log.Debug("a TLS handshake failed", "peer", remote, "err", err)
		return
	}
	c := wire.NewConn(t, n.cfg.Limits, n.budget)
	defer func() { _ = c.Close() }()
	first, err := c.ReadPreamble(time.Until(until))
	switch {
	case err != nil:
		n.refuse.say("a connection was refused: it does not begin as one", remote, "err", err)
		return
	case first == "":
		return
	case !strings.HasPrefix(first, wire.Hello):
		n.answerHTTP(c, until)
		return
	}
	peers := t.ConnectionState().PeerCertificates
	if len(peers) == 0 {
		n.refuse.say("a connection was refused: it has no certificate", remote)
		return
	}
	peer := ThumbprintOf(peers[0].Raw)
	id, err := readIdentity(c, until)
	if err != nil {
		n.refuse.say("a connection was refused: it does not introduce itself", remote, "thumbprint", peer, "err", err)
		return
	}
	serve, ok := n.admit(hello, id, peer, remote)
	if !ok || !early() { // the latter: ctx has ended, and the connection with it
		return
	}
	cancel()
	if err := c.WriteLines(wire.Identity{Kind: wire.KindServer}.String(), ""); err != nil {
		return
	}
	trusted()
	n.ended(serve(ctx, hard, c), remote, peer)
}

func readIdentity(c *wire.Conn, until time.Time) (wire.Identity, error) {
	text, err := c.ReadLine(time.Until(until))
	if err != nil {
		return wire.Identity{}, err
	}
	id, err := wire.ParseIdentity(text)
	if err != nil {
		return id, err
	}
	if blank, err := c.ReadLine(time.Until(until)); err != nil || blank != "" {
		return id, errors.Join(fmt.Errorf("%w: no blank line after an identity", wire.ErrProtocol), err)
	}
	return id, nil
}

// admit decides whether a peer is who it says, and what is done with it then.
func (n *Node) admit(ctx context.Context, id wire.Identity, peer Thumbprint, remote string) (func(ctx, hard context.Context, c *wire.Conn) error, bool) {
	switch id.Kind {
	case wire.KindClient:
		if n.cfg.TrustCaller == nil || !n.cfg.TrustCaller(peer) {
			n.refuse.say("a caller was refused: its certificate is not trusted", remote, "thumbprint", peer)
			return nil, false
		}
		return func(ctx, hard context.Context, c *wire.Conn) error { return n.serveCalls(ctx, hard, c, peer) }, true
	case wire.KindSubscriber:
		sub, err := ParseSubscription(id.Subscription)
		if err != nil {
			n.refuse.say("a polling agent was refused: its subscription is none", remote, "thumbprint", peer, "err", err)
			return nil, false
		}
		trusted := false
		if n.cfg.TrustSubscriber != nil {
			if trusted, err = n.cfg.TrustSubscriber(ctx, sub, peer); err != nil {
				n.refuse.say("a polling agent is sent away: whether it is trusted cannot be told", "everybody", "err", err)
				return nil, false
			}
		}
		if !trusted {
			n.refuse.say("a polling agent was refused: this subscription is not known with its certificate", remote, "thumbprint", peer, "subscription", sub)
			return nil, false
		}
		return func(ctx, _ context.Context, c *wire.Conn) error {
			q := n.enter(agentKey{sub, peer})
			defer q.leave()
			return q.serve(ctx, c)
		}, true
	}
	n.refuse.say("a connection was refused: who dials is no "+wire.KindServer, remote, "thumbprint", peer)
	return nil, false
}

// ended logs what a peer did wrong. Going away is nothing wrong.
func (n *Node) ended(err error, remote string, peer Thumbprint) {
	switch {
	case err == nil, errors.Is(err, context.Canceled):
	case errors.Is(err, wire.ErrProtocol), errors.Is(err, bson.ErrMalformed), errors.Is(err, errTurn), errors.Is(err, errOutOfStep), errors.Is(err, errTooMany), errors.Is(err, errTrust):
		n.refuse.say("a connection was closed", remote, "thumbprint", peer, "err", err)
	default:
		n.log.Debug("a connection ended", "peer", remote, "thumbprint", peer, "err", err)
	}
}

// answerHTTP answers a browser, or a program that looks whether the port is open.
// Its request has been read up to the end of its header.
func (n *Node) answerHTTP(c *wire.Conn, until time.Time) {
	_ = c.WriteLines( // the peer may be gone
		"HTTP/1.0 200 OK",
		"Content-Type: text/html; charset=utf-8",
		fmt.Sprintf("Content-Length: %d", len(page)+len("\r\n")),
		"Connection: close",
		"", page,
	)
	c.Linger(min(time.Second, time.Until(until)), wire.MaxPreamble)
}

// serveCalls answers the requests of a peer that has dialled.
func (n *Node) serveCalls(ctx, hard context.Context, c *wire.Conn, peer Thumbprint) error {
	for {
		r, err := n.nextRequest(ctx, c, n.timing.Idle)
		if err != nil {
			return err
		}
		if !n.cfg.TrustCaller(peer) {
			return errTrust
		}
		if r == nil {
			return fmt.Errorf("%w: a caller that asks nothing", wire.ErrProtocol)
		}
		if err := n.respond(hard, c, r); err != nil {
			return err
		}
		if err := wait(ctx, c, n.timing.Idle); err != nil {
			return err
		}
		switch text, err := c.ReadControl(n.timing.Control); {
		case err != nil:
			return err
		case text == wire.End:
			return nil
		case text != wire.Next:
			return fmt.Errorf("%w: %.60q where %s is expected", wire.ErrProtocol, text, wire.Next)
		}
		if err := c.WriteLines(wire.Proceed); err != nil {
			return err
		}
	}
}

// wait waits for the peer's next word, or for the end of ctx.
func wait(ctx context.Context, c *wire.Conn, most time.Duration) error {
	c.Allow(most)
	stop := context.AfterFunc(ctx, c.Interrupt)
	err := c.Wait()
	if !stop() {
		return ctx.Err()
	}
	return err
}

// nextRequest waits for a request: nil for a null message.
func (n *Node) nextRequest(ctx context.Context, c *wire.Conn, most time.Duration) (*wire.InRequest, error) {
	if err := wait(ctx, c, most); err != nil {
		return nil, err
	}
	return c.ReceiveRequest(most)
}
