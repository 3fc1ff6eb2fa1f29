package supervisor

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// words are what the page says. It is for anybody who can reach the server, so that it tells
// neither versions nor reasons.
const words = `503 Service Unavailable

No version of this Tako server runs at this moment. Its supervisor is starting it again,
and answers until it serves.

If this page stays, these say what is wrong, on the server's own machine:

    tako upgrade status
    journalctl -u tako    (or wherever the service writes its log)
`

// alert is TLS's fatal alert "internal_error".
const alert = "\x15\x03\x03\x00\x02\x02\x50"

const (
	handshake     = 0x16            // the first byte of a connection with TLS
	retryAfter    = "5"             // seconds, which is the longest pause between two starts
	answersAtOnce = 128             // connections beyond them are closed
	answerWithin  = 5 * time.Second // for a request to come, and to be answered
	lingerFor     = time.Second     // for the client to take the answer
	maxHead       = 64 << 10        // bytes that are read of a request before it is answered
	maxRest       = 1 << 20         // bytes that are read of it after that
	acceptAgain   = 100             // milliseconds after an accept that did not succeed
)

// page is what the supervisor itself answers on its sockets while no server can be started:
// that this is so, and where to look. Nobody is left to wait without a word, and proxies and
// monitors are told in their own language (503, Retry-After).
//
// At each moment at most one process accepts connections: a server begins to when it is
// told so, and before that the page is hidden. Whoever connects in between waits for the
// server. The supervisor has no keys, so it cannot say anything within TLS: a client that
// begins with a handshake is sent TLS's own word for an error, and its connection ends.
type page struct {
	log     *slog.Logger
	sockets map[string]*os.File
	after   time.Duration // until it is shown, once it is expected
	busy    chan struct{} // has one for each connection

	mu       sync.Mutex
	expected bool
	round    int    // how often it was hidden
	stop     func() // ends the accepting; nil while it is hidden
}

func newPage(sockets map[string]*os.File, after time.Duration, log *slog.Logger) *page {
	return &page{log: log, sockets: sockets, after: after, busy: make(chan struct{}, answersAtOnce)}
}

// expect has the page shown after a while, unless it is hidden until then.
func (p *page) expect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.expected {
		return
	}
	p.expected = true
	round := p.round
	time.AfterFunc(p.after, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.round == round {
			p.open()
		}
	})
}

// show shows the page now.
func (p *page) show() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = true
	p.open()
}

// hide ends it. When hide returns nobody accepts connections any more; those that were
// accepted before are answered still.
func (p *page) hide() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.expected = false
	p.round++
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
}

// shown reports whether it is.
func (p *page) shown() bool {
	if p == nil { // in a container
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stop != nil
}

// open shows the page; mu is held.
func (p *page) open() {
	if p.stop != nil {
		return
	}
	stop, err := p.accept()
	if err != nil {
		p.log.Error("answer while no server runs", "err", err)
		return
	}
	p.stop = stop
	p.log.Warn("no server runs; whoever asks is told so")
}

// accept accepts connections until stop is called, which waits for its end.
//
// That is poll and accept4, and no net.Listener: a server that is just being started may
// for an instant make the socket, which is shared, one that blocks. An accept that sits in
// the kernel then could not be ended, and would take a connection away from the server.
// After poll there is a connection, which nobody else takes.
func (p *page) accept() (stop func(), err error) {
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		return nil, err
	}
	all := []unix.PollFd{{Fd: int32(pipe[0]), Events: unix.POLLIN}} //nolint:gosec // a descriptor is small
	for _, f := range p.sockets {
		raw, err := f.SyscallConn()
		if err == nil { // the sockets stay open longer than the page
			err = raw.Control(func(fd uintptr) { all = append(all, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}) }) //nolint:gosec // a descriptor is small
		}
		if err != nil {
			return nil, errors.Join(err, unix.Close(pipe[0]), unix.Close(pipe[1]))
		}
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.take(all)
	}()
	return func() {
		_ = unix.Close(pipe[1]) // which take notices
		<-done
		_ = unix.Close(pipe[0])
	}, nil
}

// take takes connections from all but the first descriptor, until there is something with
// that one.
func (p *page) take(all []unix.PollFd) {
	for {
		switch _, err := unix.Poll(all, -1); {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			p.log.Error("wait for connections while no server runs", "err", err)
			return
		case all[0].Revents != 0:
			return
		}
		for _, ln := range all[1:] {
			if ln.Revents != 0 && p.one(int(ln.Fd)) != nil {
				// For want of descriptors, it may be; not at once again.
				_, _ = unix.Poll(all[:1], acceptAgain)
			}
		}
	}
}

// one takes one connection, and has it answered.
func (p *page) one(listener int) error {
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "connection")
	c, err := net.FileConn(f) // has a descriptor of its own
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	select {
	case p.busy <- struct{}{}:
		go func() {
			defer func() { <-p.busy }()
			p.answer(c)
		}()
	default:
		_ = c.Close() // too many at once
	}
	return nil
}

// answer answers one request, whatever it asks, and ends the connection. The supervisor, of
// which there is no other, does not end for what strangers send.
func (p *page) answer(c net.Conn) {
	defer func() {
		if failed := recover(); failed != nil {
			p.log.Error("answer while no server runs", "err", failed, "stack", string(debug.Stack()))
		}
	}()
	defer c.Close() //nolint:errcheck // it has the answer, or has gone
	if c.SetDeadline(time.Now().Add(answerWithin)) != nil {
		return
	}
	in := bufio.NewReader(io.LimitReader(c, maxHead))
	first, err := in.Peek(1)
	if err != nil {
		return // it has never asked
	}
	if first[0] == handshake {
		_, err = io.WriteString(c, alert)
	} else {
		asked, _ := http.ReadRequest(in) // one that cannot be read is answered, too
		err = tell(c, asked)
	}
	if err != nil {
		return
	}
	// A connection that is closed while something comes is reset, and its answer lost.
	if t, ok := c.(*net.TCPConn); ok && t.CloseWrite() == nil && c.SetDeadline(time.Now().Add(lingerFor)) == nil {
		_, _ = io.Copy(io.Discard, io.LimitReader(c, maxRest))
	}
}

// tell writes the page as the answer to a request, which may be nil.
func tell(w io.Writer, asked *http.Request) error {
	r := http.Response{
		StatusCode: http.StatusServiceUnavailable, ProtoMajor: 1, ProtoMinor: 1, Request: asked, Close: true,
		Header: http.Header{"Content-Type": {"text/plain; charset=utf-8"}, "Cache-Control": {"no-store"}, "Retry-After": {retryAfter}},
		Body:   io.NopCloser(strings.NewReader(words)), ContentLength: int64(len(words)),
	}
	return r.Write(w)
}
