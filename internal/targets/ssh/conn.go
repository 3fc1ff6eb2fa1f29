package ssh

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/fault"
	"golang.org/x/crypto/ssh"
)

// Times of a connection.
const (
	dialFor      = 15 * time.Second // until the host's port answers
	handshakeFor = 30 * time.Second // until somebody is signed in
	keepAlive    = 15 * time.Second // between two questions whether the host is there, and for its answer
	pingFor      = 5 * time.Second  // for the answer when a call has failed
	idleFor      = 10 * time.Minute // after which a connection that nobody uses is closed
)

// Dialer makes connections; network is "tcp".
type Dialer func(ctx context.Context, network, addr string) (net.Conn, error)

func dialHost(ctx context.Context, dial Dialer, e Endpoint) (net.Conn, error) {
	switch {
	case e.Proxy != (egress.HTTPProxy{}):
		dial = Dialer(egress.Through(e.Proxy, net.Dialer{}))
	case dial == nil:
		dial = Dialer(egress.Dialer(net.Dialer{}))
	}
	ctx, stop := context.WithTimeout(ctx, dialFor)
	defer stop()
	raw, err := dial(ctx, "tcp", e.String())
	if err != nil {
		return nil, &fault.Error{Kind: fault.Unavailable, Message: "The host " + e.String() + " cannot be reached: " + reason(err) + ".", Cause: err}
	}
	return raw, nil
}

// reason is what an error of the network says last, without addresses.
func reason(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	var refused *egress.RefusedError
	var down *egress.DownError
	switch {
	case errors.As(err, &down):
		return down.Proxy + " does not answer for it: " + reason(down.Err)
	case errors.As(err, &refused):
		return refused.Proxy + " does not connect to it: " + refused.Reason
	case errors.As(err, &dns):
		return "its name is not known"
	case errors.Is(err, context.DeadlineExceeded):
		return "it does not answer"
	case errors.As(err, &op) && op.Err != nil:
		text := op.Err.Error()
		return strings.TrimSpace(text[strings.LastIndex(text, ": ")+1:])
	}
	return err.Error()
}

// handshake signs in, or fails in time. into gets the connection, nil where none is wanted.
func handshake(ctx context.Context, raw net.Conn, e Endpoint, cfg *ssh.ClientConfig, into **ssh.Client) error {
	ctx, stop := context.WithTimeout(ctx, handshakeFor)
	defer stop()
	unwatch := context.AfterFunc(ctx, func() { _ = raw.Close() })
	c, chans, requests, err := ssh.NewClientConn(raw, e.String(), cfg)
	if !unwatch() && err == nil {
		err = errors.Join(context.Cause(ctx), c.Close())
	}
	if err == nil && into != nil {
		*into = ssh.NewClient(c, chans, requests)
	}
	return err
}

// connect signs in to a host whose key has the fingerprint that is known.
func connect(ctx context.Context, dial Dialer, e Endpoint, l Login) (*ssh.Client, error) {
	methods, err := l.methods()
	if err != nil {
		return nil, err
	}
	first := "" // the fingerprint of the key that was shown first
	kinds := append([][]string{allKinds()}, keyKinds...)
	var tried []string // types of keys that are not the one
	for _, kind := range kinds {
		if slices.Contains(tried, kind[0]) {
			continue
		}
		var client *ssh.Client
		shown, right := "", false
		raw, err := dialHost(ctx, dial, e)
		if err != nil {
			return nil, err
		}
		err = handshake(ctx, raw, e, &ssh.ClientConfig{
			User: l.Username, Auth: methods, HostKeyAlgorithms: kind, ClientVersion: "SSH-2.0-Tako",
			HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
				shown, right = e.Fingerprint.of(key), e.Fingerprint.of(key) == e.Fingerprint.text
				if !right {
					tried = append(tried, key.Type())
					return errSeen
				}
				return nil
			},
		}, &client)
		if err == nil {
			return client, nil
		}
		_ = raw.Close() // nobody is signed in
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case right && strings.Contains(err.Error(), "unable to authenticate"):
			return nil, &fault.Error{Kind: fault.Invalid, Field: "Endpoint.AccountId", Cause: err, Message: fmt.Sprintf("%s does not let the user %s in: it refuses the account's key or password.", e, l.Username)}
		case right || first == "" && shown == "":
			return nil, &fault.Error{Kind: fault.Unavailable, Cause: err, Message: fmt.Sprintf("The connection to %s was not made: the SSH server broke it off.", e)}
		case first == "":
			first = shown
		}
		// The host may have the key that is known besides the one that it has shown.
	}
	return nil, strange(e, e.Fingerprint, first)
}

// conn is a connection to a host. It is safe for concurrent use.
type conn struct {
	client *ssh.Client
	open   atomic.Int64 // channels
	used   atomic.Int64 // when the last channel came or went, in nanoseconds
	ended  chan struct{}
	slots  chan struct{} // one for each session: hosts have ten for a connection
}

// maxSessions is how many programs run over one connection at the same time.
const maxSessions = 8

// keep makes a conn that is watched until it ends.
func keep(client *ssh.Client, wg *sync.WaitGroup) *conn {
	c := &conn{client: client, ended: make(chan struct{}), slots: make(chan struct{}, maxSessions)}
	c.used.Store(time.Now().UnixNano())
	wg.Go(func() {
		_ = client.Wait() // whatever ended it
		close(c.ended)
	})
	wg.Go(c.watch)
	return c
}

// watch ends a connection whose host is gone, or that nobody uses.
func (c *conn) watch() {
	tick := time.NewTicker(keepAlive)
	defer tick.Stop()
	for {
		select {
		case <-c.ended:
			return
		case <-tick.C:
			if c.open.Load() == 0 && time.Since(time.Unix(0, c.used.Load())) > idleFor {
				c.close()
				return
			}
			c.ping(keepAlive)
		}
	}
}

// ping closes a connection whose host does not answer in time, and reports whether it lives.
func (c *conn) ping(limit time.Duration) bool {
	timer := time.AfterFunc(limit, c.close)
	_, _, err := c.client.SendRequest("keepalive@openssh.com", true, nil)
	if timer.Stop() && err != nil {
		c.close()
	}
	return err == nil
}

func (c *conn) close() { _ = c.client.Close() } // what is lost by it is told to those who wait

func (c *conn) alive() bool {
	select {
	case <-c.ended:
		return false
	default:
		return true
	}
}

// channel is a net.Conn that is counted.
type channel struct {
	io.Reader
	io.Writer
	release func() error
}

func (c *conn) counted(r io.Reader, w io.Writer, end func() error) net.Conn {
	c.open.Add(1)
	return &channel{Reader: r, Writer: w, release: sync.OnceValue(func() error {
		c.open.Add(-1)
		c.used.Store(time.Now().UnixNano())
		return end()
	})}
}

// Close is net.Conn.
func (c *channel) Close() error { return c.release() }

// LocalAddr is net.Conn.
func (*channel) LocalAddr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// RemoteAddr is net.Conn.
func (*channel) RemoteAddr() net.Addr { return &net.UnixAddr{Net: "unix"} }

// SetDeadline is net.Conn. Those who use a channel close it when they leave.
func (*channel) SetDeadline(time.Time) error { return nil }

// SetReadDeadline is net.Conn.
func (*channel) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is net.Conn.
func (*channel) SetWriteDeadline(time.Time) error { return nil }

// forward opens a channel to a unix socket of the host.
func (c *conn) forward(ctx context.Context, socket string) (net.Conn, error) {
	far, err := c.client.DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	return c.counted(far, far, far.Close), nil
}

// refused reports whether an error of forward is the host's answer.
func refused(err error) bool {
	var answer *ssh.OpenChannelError
	return errors.As(err, &answer)
}

// session begins a session; the caller calls end when it is over.
func (c *conn) session(ctx context.Context) (_ *ssh.Session, end func(), err error) {
	select {
	case c.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	case <-c.ended:
		return nil, nil, errLost
	}
	s, err := c.client.NewSession()
	if err != nil {
		<-c.slots
		return nil, nil, err
	}
	unwatch := context.AfterFunc(ctx, func() { _ = s.Close() })
	return s, sync.OnceFunc(func() {
		unwatch()
		_ = s.Close() // it may have ended by itself
		<-c.slots
	}), nil
}

var errLost = errors.New("the connection was lost")

// bridge runs a command that connects its standard input and output to the agent: what
// follows a line of agent.ReplyMark is the agent's.
func (c *conn) bridge(ctx context.Context, command string) (net.Conn, error) {
	s, end, err := c.session(context.WithoutCancel(ctx)) // it lives longer than the call that began it
	if err != nil {
		return nil, err
	}
	unwatch := context.AfterFunc(ctx, end)
	in, err := s.StdinPipe()
	if err != nil {
		end()
		return nil, err
	}
	out, err := s.StdoutPipe()
	if err != nil {
		end()
		return nil, err
	}
	errs := &limited{room: maxOutput}
	s.Stderr = errs
	if err := s.Start(command); err != nil {
		end()
		return nil, err
	}
	r := bufio.NewReaderSize(out, 32<<10)
	for read := 0; ; {
		line, err := r.ReadString('\n')
		if read += len(line); err != nil || read > maxOutput {
			end()
			return nil, errors.Join(fmt.Errorf("the program on the host did not connect: %.200s", errs.String()), err)
		}
		if strings.HasPrefix(line, agent.ReplyMark) {
			break
		}
	}
	if !unwatch() {
		return nil, ctx.Err()
	}
	return c.counted(r, in, func() error { end(); return nil }), nil
}

// maxOutput bounds what is kept of a program's output, in bytes.
const maxOutput = 64 << 10

// limited keeps the beginning of what is written to it.
type limited struct {
	mu   sync.Mutex
	room int
	buf  bytes.Buffer
}

func (l *limited) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(b[:min(len(b), l.room-l.buf.Len())])
	return len(b), nil
}

func (l *limited) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

// ran is how a command ended.
type ran struct {
	exit        int // 255 where a signal ended it
	output, say string
}

// run runs a command to its end. An error says that it is not known how it ended.
func (c *conn) run(ctx context.Context, command string, in io.Reader) (ran, error) {
	s, end, err := c.session(ctx)
	if err != nil {
		return ran{}, err
	}
	defer end()
	out, errs := &limited{room: maxOutput}, &limited{room: maxOutput}
	s.Stdin, s.Stdout, s.Stderr = in, out, errs
	err = s.Run(command)
	if ctx.Err() != nil {
		return ran{}, ctx.Err()
	}
	r := ran{output: out.String(), say: strings.TrimSpace(errs.String())}
	var exit *ssh.ExitError
	switch {
	case err == nil:
		return r, nil
	case errors.As(err, &exit) && exit.Signal() != "":
		r.exit = 255
		return r, nil
	case errors.As(err, &exit):
		r.exit = exit.ExitStatus()
		return r, nil
	}
	return ran{}, err
}
