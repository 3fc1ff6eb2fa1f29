package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// DataStream is content that travels behind its message. One that is sent has a
// source. One that came is an io.Reader over the connection itself: it can be read
// once, before the streams that follow it and before the conversation goes on, and
// its end (io.EOF) says that it came whole.
type DataStream struct {
	ID     GUID
	Length int64

	source io.Reader

	conn  *Conn
	phase phase
	left  int64
}

type phase int

const (
	phaseHead phase = iota
	phaseBody
	phaseDone
)

// NewStream makes a stream to send, once, of exactly length bytes.
func NewStream(length int64, source io.Reader) *DataStream {
	return &DataStream{ID: NewGUID(), Length: length, source: source}
}

// Release closes the source of a stream that was to be sent, if it can be closed.
func (s *DataStream) Release() {
	if closer, ok := s.source.(io.Closer); ok {
		_ = closer.Close() // it was only read
	}
}

// TypeNames is Typed.
func (*DataStream) TypeNames() []string { return []string{nameStream} }

// Read is io.Reader for a stream that came. Streams before it that were not read
// are skipped.
func (s *DataStream) Read(p []byte) (int, error) {
	c := s.conn
	if c == nil {
		return 0, errors.New("read stream: it has not come over a connection")
	}
	if s.phase == phaseDone {
		return 0, io.EOF
	}
	if c.broken != nil {
		return 0, c.broken
	}
	for len(c.streams) == 0 || c.streams[0] != s {
		if len(c.streams) == 0 {
			return 0, errors.New("read stream: its message is over")
		}
		if err := c.skip(); err != nil {
			return 0, err
		}
	}
	n, err := s.read(p)
	switch {
	case err == nil || s.phase == phaseDone:
		return n, err
	case errors.Is(err, io.EOF):
		err = io.ErrUnexpectedEOF
	}
	return n, c.fail(fmt.Errorf("read stream: %w", err))
}

func (s *DataStream) read(p []byte) (int, error) {
	c := s.conn
	if s.phase == phaseHead {
		c.r.transfer(c.limits.Idle, 0)
		var head [24]byte
		if _, err := io.ReadFull(c.br, head[:]); err != nil {
			return 0, err
		}
		if id := GUID(head[:16]).swapped(); id != s.ID {
			return 0, violation("the stream %s where %s is expected", id, s.ID)
		}
		if n := int64(binary.LittleEndian.Uint64(head[16:])); n != s.Length { // two's complement
			return 0, violation("a stream of %d bytes that was announced with %d", n, s.Length)
		}
		s.phase, s.left = phaseBody, s.Length
	}
	n := 0
	if s.left > 0 {
		if len(p) == 0 {
			return 0, nil
		}
		// The time between two reads is the reader's, not the peer's.
		c.r.transfer(c.limits.Idle, 0)
		var err error
		n, err = c.br.Read(p[:min(int64(len(p)), s.left)])
		if s.left -= int64(n); err != nil || s.left > 0 {
			return n, err
		}
	}
	var tail [8]byte
	if _, err := io.ReadFull(c.br, tail[:]); err != nil {
		return n, err
	}
	if end := int64(binary.LittleEndian.Uint64(tail[:])); end != s.Length { // two's complement
		return n, violation("a stream of %d bytes ends with %d", s.Length, end)
	}
	s.phase = phaseDone
	c.streams = c.streams[1:]
	return n, io.EOF
}

// skip reads the next stream to its end.
func (c *Conn) skip() error {
	_, err := io.Copy(io.Discard, onlyReader{c.streams[0]})
	return err
}

type onlyReader struct{ io.Reader }

// expect makes the streams of a message readable.
func (c *Conn) expect(streams []*DataStream) error {
	ids := make(map[GUID]bool, len(streams))
	for _, s := range streams {
		if ids[s.ID] {
			return c.fail(violation("two streams with the id %s", s.ID))
		}
		ids[s.ID] = true
		s.conn = c
	}
	c.streams = streams
	return nil
}
