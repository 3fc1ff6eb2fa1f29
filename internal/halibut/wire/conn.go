package wire

import (
	"bufio"
	"compress/flate"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/halibut/bson"
)

// DefaultMessage is how many bytes a message may have unless Limits say otherwise.
const DefaultMessage = 64 << 20

// Limits of what one connection may cost.
type Limits struct {
	Message int   // bytes of a message's document; 64 MiB unless set
	Streams int   // data streams of a message; 10,000 unless set
	Stream  int64 // bytes of a data stream; 64 GiB unless set
	// Idle is how long a transfer may take to move the next 64 KiB; a minute unless set.
	Idle time.Duration
	// Transfer is how long a message may take from its first byte to its last,
	// streams not counted; ten minutes unless set.
	Transfer time.Duration
}

func (l Limits) orDefaults() Limits {
	if l.Message == 0 {
		l.Message = DefaultMessage
	}
	if l.Streams == 0 {
		l.Streams = 10_000
	}
	if l.Stream == 0 {
		l.Stream = 64 << 30
	}
	if l.Idle == 0 {
		l.Idle = time.Minute
	}
	if l.Transfer == 0 {
		l.Transfer = 10 * time.Minute
	}
	return l
}

const (
	pace      = 64 << 10 // bytes after which a transfer has another Limits.Idle
	maxBlock  = 1<<16 - 1
	freeBytes = 1 << 20 // of a message that needs no place in the Budget
)

// Budget bounds how many messages of more than a mebibyte are in memory at once,
// over all the connections that share it. nil is no bound.
type Budget struct{ slots chan struct{} }

// NewBudget makes a budget of n large messages.
func NewBudget(n int) *Budget { return &Budget{make(chan struct{}, n)} }

// errBudget ends a message that found no place in time.
var errBudget = errors.New("too many large messages are being read at once")

// Conn is one connection. It is used by one goroutine at a time, but for Abort and
// Interrupt. After an error of any method but WaitByte the conversation is out of
// step, and the connection of no more use.
type Conn struct {
	net    net.Conn
	r      *paced
	br     *bufio.Reader
	limits Limits
	budget *Budget

	held    bool          // a place in budget
	streams []*DataStream // of the last message, not yet read
	sent    bool
	broken  error
}

// NewConn makes a connection over one whose handshake is done, or will be by the
// first read or write.
func NewConn(c net.Conn, limits Limits, budget *Budget) *Conn {
	p := &paced{net: c}
	return &Conn{net: c, r: p, br: bufio.NewReader(p), limits: limits.orDefaults(), budget: budget}
}

// paced reads with deadlines that move on with what has come.
type paced struct {
	net   net.Conn
	idle  time.Duration // 0: the deadline is fixed
	until time.Time     // no deadline moves beyond, unless zero
	got   int
}

// within sets a fixed deadline.
func (p *paced) within(d time.Duration) {
	p.idle = 0
	_ = p.net.SetReadDeadline(time.Now().Add(d)) // a closed connection says so when it is read
}

// transfer sets a deadline that every 64 KiB moves, for at most total, 0 for ever.
func (p *paced) transfer(idle, total time.Duration) {
	p.idle, p.got, p.until = idle, 0, time.Time{}
	if total > 0 {
		p.until = time.Now().Add(total)
	}
	p.extend()
}

func (p *paced) extend() {
	at := time.Now().Add(p.idle)
	if !p.until.IsZero() && at.After(p.until) {
		at = p.until
	}
	_ = p.net.SetReadDeadline(at)
}

func (p *paced) Read(b []byte) (int, error) {
	n, err := p.net.Read(b)
	if p.got += n; p.idle > 0 && p.got >= pace {
		p.got = 0
		p.extend()
	}
	return n, err
}

// fail notes that the connection is of no more use.
func (c *Conn) fail(err error) error {
	if c.broken == nil {
		c.broken = err
	}
	return err
}

// Close says good-bye at the TLS level and closes the connection.
func (c *Conn) Close() error {
	c.release()
	return c.net.Close()
}

// Abort closes the connection at once, whatever is going on. It may be called from
// anywhere.
func (c *Conn) Abort() {
	if t, ok := c.net.(*tls.Conn); ok {
		_ = t.NetConn().Close() // the peer may be gone
		return
	}
	_ = c.net.Close()
}

// Linger says that nothing more will be written, and reads for a while what the
// peer still writes, so that it gets to read what was written last.
func (c *Conn) Linger(most time.Duration, bytes int64) {
	if t, ok := c.net.(interface{ CloseWrite() error }); ok {
		_ = t.CloseWrite() // the peer may be gone
	}
	c.r.within(most)
	_, _ = io.CopyN(io.Discard, c.br, bytes) // until it, too, has done
}

// Interrupt makes a WaitByte that is going on, or the next one, return
// os.ErrDeadlineExceeded. It may be called from anywhere.
func (c *Conn) Interrupt() { _ = c.net.SetReadDeadline(time.Unix(1, 0)) }

// Net is the connection below.
func (c *Conn) Net() net.Conn { return c.net }

// WaitByte waits until the peer has sent something, which stays unread. After an
// os.ErrDeadlineExceeded the connection can still be used.
func (c *Conn) WaitByte(wait time.Duration) error {
	c.r.within(wait)
	return c.Wait()
}

// Allow sets the deadline of a Wait.
func (c *Conn) Allow(wait time.Duration) { c.r.within(wait) }

// Wait is WaitByte with the deadline that Allow has set, or Interrupt since.
func (c *Conn) Wait() error {
	_, err := c.br.Peek(1)
	return err
}

// write writes b in parts, each of which has its own time.
func (c *Conn) write(b []byte) error {
	for len(b) > 0 {
		n := min(len(b), 2*pace)
		if err := c.net.SetWriteDeadline(time.Now().Add(c.limits.Idle)); err != nil {
			return c.fail(err)
		}
		if _, err := c.net.Write(b[:n]); err != nil {
			return c.fail(err)
		}
		b = b[n:]
	}
	return nil
}

// WriteLines writes lines at once.
func (c *Conn) WriteLines(lines ...string) error {
	return c.write([]byte(strings.Join(lines, crlf) + crlf))
}

// ReadLine reads one line, which may be blank, within a time.
func (c *Conn) ReadLine(wait time.Duration) (string, error) {
	c.r.within(wait)
	line, err := ReadLine(c.br)
	if err != nil {
		return "", c.fail(err)
	}
	return line, nil
}

// ReadControl reads the next line that is not blank, within a time.
func (c *Conn) ReadControl(wait time.Duration) (string, error) {
	c.r.within(wait)
	line, err := readControl(c.br)
	if err != nil {
		return "", c.fail(err)
	}
	return line, nil
}

// Expect reads a control line that must be the given one.
func (c *Conn) Expect(want string, wait time.Duration) error {
	got, err := c.ReadControl(wait)
	if err != nil {
		return fmt.Errorf("wait for %s: %w", want, err)
	}
	if got != want {
		return c.fail(violation("%q where %s is expected", clip(got), want))
	}
	return nil
}

// ReadPreamble reads what the dialling side says first, up to a blank line: its
// first line. Nothing else in it counts.
func (c *Conn) ReadPreamble(wait time.Duration) (string, error) {
	c.r.within(wait)
	first, size := "", 0
	for i := 0; ; i++ {
		line, err := ReadLine(c.br)
		if err != nil {
			return "", c.fail(err)
		}
		if size += len(line) + 1; size > MaxPreamble {
			return "", c.fail(violation("a preamble of more than %d bytes", MaxPreamble))
		}
		if i == 0 {
			first = line
		}
		if line == "" {
			return first, nil
		}
	}
}

// Sent reports whether the last byte of what Send sent last may have left: before
// that, no peer can have acted upon it.
func (c *Conn) Sent() bool { return c.sent }

// Send writes a message and its streams.
func (c *Conn) Send(m *Message) error {
	c.sent = false
	block := make([]byte, 0, min(len(m.Body), maxBlock)+5)
	for rest := []byte(m.Body); len(rest) > 0; {
		n := min(len(rest), maxBlock)
		final := byte(0)
		if n == len(rest) {
			final = 1
			c.sent = len(m.Streams) == 0
		}
		// A stored block: its final bit and its type, its length, the complement.
		block = append(block[:0], final, byte(n), byte(n>>8), ^byte(n), ^byte(n>>8))
		if err := c.write(append(block, rest[:n]...)); err != nil {
			return fmt.Errorf("send message: %w", err)
		}
		rest = rest[n:]
	}
	for i, s := range m.Streams {
		if err := c.sendStream(s, i == len(m.Streams)-1); err != nil {
			return fmt.Errorf("send stream: %w", err)
		}
	}
	return nil
}

//nolint:gochecknoglobals // buffers that any connection can use
var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 64<<10); return &b }}

func (c *Conn) sendStream(s *DataStream, last bool) error {
	if s.source == nil {
		return c.fail(errors.New("a stream has nothing to send"))
	}
	id := s.ID.swapped()
	length := binary.LittleEndian.AppendUint64(nil, uint64(s.Length)) // never negative
	if err := c.write(append(id[:], length...)); err != nil {
		return err
	}
	buf := copyBuffers.Get().(*[]byte) // nothing else is in there
	defer copyBuffers.Put(buf)
	for left := s.Length; left > 0; {
		n, err := io.ReadFull(s.source, (*buf)[:min(int64(len(*buf)), left)])
		if err != nil {
			return c.fail(fmt.Errorf("read what is to be sent, %d bytes before its end: %w", left-int64(n), err))
		}
		if err := c.write((*buf)[:n]); err != nil {
			return err
		}
		left -= int64(n)
	}
	c.sent = c.sent || last
	return c.write(length)
}

//nolint:gochecknoglobals // each has 40 KiB, of use only while a message is read
var inflaters = sync.Pool{New: func() any { return flate.NewReader(strings.NewReader("")) }}

// receive reads a message's document; it must have begun within wait.
func (c *Conn) receive(wait time.Duration) (bson.Raw, error) {
	if c.broken != nil {
		return nil, c.broken
	}
	if len(c.streams) > 0 {
		return nil, c.fail(errors.New("the streams of the last message have not been read"))
	}
	if err := c.WaitByte(wait); err != nil {
		return nil, c.fail(err)
	}
	c.r.transfer(c.limits.Idle, c.limits.Transfer)
	body, err := c.inflate()
	if err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, c.fail(fmt.Errorf("read message: %w", err))
	}
	return body, nil
}

func (c *Conn) inflate() (bson.Raw, error) {
	z := inflaters.Get().(io.ReadCloser) // nothing else is in there
	defer inflaters.Put(z)
	if err := z.(flate.Resetter).Reset(c.br, nil); err != nil { // documented
		return nil, err
	}
	body, err := bson.Read(z, c.limits.Message, freeBytes, c.reserve)
	if err != nil {
		var corrupt flate.CorruptInputError
		if errors.As(err, &corrupt) {
			err = violation("what should be a message is not compressed as one")
		}
		return nil, err
	}
	// The document has ended; the compression must end with it, so that the next
	// byte belongs to what follows.
	var more [1]byte
	switch n, err := io.ReadFull(z, more[:]); {
	case n > 0:
		return nil, violation("a message goes on after its document")
	case !errors.Is(err, io.EOF):
		return nil, err
	}
	// What the inflater has seen stays in its window; the next one overwrites it.
	return body, nil
}

// reserve takes a place for a large message.
func (c *Conn) reserve() error {
	if c.budget == nil || c.held {
		return nil
	}
	wait := time.NewTimer(c.limits.Idle)
	defer wait.Stop()
	select {
	case c.budget.slots <- struct{}{}:
		c.held = true
		c.r.extend()
		return nil
	case <-wait.C:
		return errBudget
	}
}

func (c *Conn) release() {
	if c.held {
		c.held = false
		<-c.budget.slots
	}
}

func (c *Conn) decoder() *decoder {
	return &decoder{maxStreams: c.limits.Streams, maxStream: c.limits.Stream}
}

// Pending is how many streams of the last message have not been read to their end.
func (c *Conn) Pending() int { return len(c.streams) }

// Finish ends a message that has come: streams that nobody read are skipped.
func (c *Conn) Finish() error {
	c.release()
	for len(c.streams) > 0 {
		if c.broken != nil {
			return c.broken
		}
		if err := c.skip(); err != nil {
			return err
		}
	}
	return c.broken
}

// ReceiveRequest reads a request that begins within wait; nil for a null message.
func (c *Conn) ReceiveRequest(wait time.Duration) (*InRequest, error) {
	body, err := c.receive(wait)
	if err != nil {
		return nil, err
	}
	r := &InRequest{conn: c}
	switch some, err := open(body, nameRequest, r); {
	case err != nil:
		return nil, c.fail(err)
	case !some:
		return nil, nil // a null message is one
	}
	return r, nil
}

// ReceiveResponse reads a response that begins within wait.
func (c *Conn) ReceiveResponse(wait time.Duration) (*InResponse, error) {
	body, err := c.receive(wait)
	if err != nil {
		return nil, err
	}
	r := &InResponse{conn: c}
	switch some, err := open(body, nameResponse, r); {
	case err != nil:
		return nil, c.fail(err)
	case !some:
		return nil, c.fail(violation("a null message where a response is expected"))
	}
	return r, nil
}
