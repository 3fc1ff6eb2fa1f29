package dbtest

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
)

// Cut says what becomes of the connection on which a COMMIT is under way.
type Cut int

// The ways to lose a connection in a COMMIT. Only the server knows what became of
// the transaction in each of them.
const (
	NoCut     Cut = iota
	CutBefore     // the server never hears of the COMMIT: it undoes the transaction
	CutDuring     // the server has the COMMIT and loses its client in the middle of it
	CutAfter      // the server has committed, and its answer does not arrive
)

// maxMessage bounds a message of PostgreSQL's protocol in a test.
const maxMessage = 64 << 20

// Proxy puts a proxy in front of a PostgreSQL database that URL or EmptyURL gave and
// returns the database's address behind it. It asks at what to do whenever a COMMIT
// is sent over one of its connections; at may be called by several at once. The
// proxy ends with the test.
func Proxy(t testing.TB, database string, at func() Cut) string {
	t.Helper()
	u, err := url.Parse(database)
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(u.Query().Get("host"), ".s.PGSQL.5432")
	ln, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it ends with the test
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{socket: socket, at: at, conns: make(map[net.Conn]struct{})}
	p.running.Go(func() { p.accept(ln) })
	t.Cleanup(func() {
		_ = ln.Close() // ends accept
		p.closeAll()
		p.running.Wait()
	})
	behind := url.URL{Scheme: "postgres", User: u.User, Host: ln.Addr().String(), Path: u.Path, RawQuery: "sslmode=disable"}
	return behind.String()
}

type proxy struct {
	socket  string
	at      func() Cut
	running sync.WaitGroup

	mu    sync.Mutex
	ended bool
	conns map[net.Conn]struct{}
}

func (p *proxy) accept(ln net.Listener) {
	for {
		client, err := ln.Accept()
		if err != nil {
			return // the test has ended
		}
		p.running.Go(func() { p.serve(client) })
	}
}

// keep remembers a connection, so that it ends with the test.
func (p *proxy) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ended {
		p.conns[c] = struct{}{}
	}
	return !p.ended
}

func (p *proxy) drop(c net.Conn) {
	_ = c.Close() // that is what is wanted of it
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *proxy) closeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	for c := range p.conns {
		_ = c.Close() // its serve ends by that
	}
}

// serve passes on what client and server say until one of them hangs up, or the
// connection is cut. Errors need no more words: both sides see them as a
// connection that is gone.
func (p *proxy) serve(client net.Conn) {
	defer p.drop(client)
	server, err := net.Dial("unix", p.socket) //nolint:noctx // it ends with the test
	if err != nil {
		return
	}
	defer p.drop(server)
	if !p.keep(client) || !p.keep(server) {
		return
	}
	swallow := make(chan struct{}) // closed: the next answer does not arrive
	var answers sync.WaitGroup
	answers.Go(func() {
		defer p.drop(client)
		defer p.drop(server)
		passAnswers(client, server, swallow)
	})
	defer answers.Wait()

	from := bufio.NewReader(client)
	message, err := readMessage(from, false) // how it begins has no type
	for {
		if err != nil {
			p.drop(server)
			return
		}
		cut := NoCut
		if message[0] == 'Q' && bytes.HasSuffix(message, []byte("COMMIT\x00")) {
			cut = p.at()
		}
		switch cut {
		case CutBefore:
			p.drop(client)
			p.drop(server)
			return
		case CutAfter:
			close(swallow)
		case CutDuring, NoCut:
		}
		if _, err = server.Write(message); err == nil {
			switch cut {
			case CutDuring:
				p.drop(client)
				p.drop(server)
				return
			case CutAfter:
				return // once the answer has been swallowed
			case NoCut, CutBefore:
			}
			message, err = readMessage(from, true)
		}
	}
}

// passAnswers passes the server's messages on. One that comes once swallow is
// closed belongs to the COMMIT, up to the one that says the server is ready again.
func passAnswers(client io.Writer, server io.Reader, swallow <-chan struct{}) {
	const readyForQuery = 'Z'
	from := bufio.NewReader(server)
	for {
		message, err := readMessage(from, true)
		if err != nil {
			return
		}
		select {
		case <-swallow:
			if message[0] == readyForQuery {
				return
			}
			continue
		default:
		}
		if _, err := client.Write(message); err != nil {
			return
		}
	}
}

// readMessage reads a whole message of the protocol: a type, unless it is the first
// one, and the length that counts itself.
func readMessage(from *bufio.Reader, typed bool) ([]byte, error) {
	head := make([]byte, 4, 5)
	if typed {
		head = head[:5]
	}
	if _, err := io.ReadFull(from, head); err != nil {
		return nil, err
	}
	length := binary.BigEndian.Uint32(head[len(head)-4:])
	if length < 4 || length > maxMessage {
		return nil, fmt.Errorf("a message of %d bytes", length)
	}
	message := append(head, make([]byte, length-4)...)
	_, err := io.ReadFull(from, message[len(head):])
	return message, err
}
