package octodiff

import (
	"bufio"
	"context"
	"crypto/sha1" //nolint:gosec // see doc.go
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// chunk is a piece of the base.
type chunk struct {
	offset  int64
	length  int
	rolling uint32
	hash    sum
}

// Signature describes a base file by its chunks. It is safe for concurrent use.
type Signature struct {
	checksum checksum
	chunks   []chunk
	// window is the length of all chunks but the last, which may be shorter.
	window int
	// first finds a chunk by its checksum, and next (parallel to chunks) another
	// one with the same checksum and another hash; 0 is none, so both count from 1.
	first map[uint32]int32
	next  []int32
}

// Chunk is a good length of chunks for a base of size bytes: the usual one, or
// longer ones where the signature would be larger than most bytes.
func Chunk(size, most int64) int {
	length := int64(DefaultChunk)
	if chunks := max(most/ChunkCost, 1); size/length >= chunks {
		length = min(size/chunks+1, MaxChunk)
	}
	return int(length)
}

// Sign writes the signature of base in chunks of the given length, from MinChunk
// to MaxChunk bytes. It reads base once, holds one chunk in memory, and ends
// with ctx.
func Sign(ctx context.Context, w io.Writer, base io.Reader, length int) error {
	if length < MinChunk || length > MaxChunk {
		return fmt.Errorf("sign: chunks of %d bytes; use %d to %d", length, MinChunk, MaxChunk)
	}
	head := append([]byte(signatureMagic), formatVersion)
	head = append(text(text(head, hashName), adler.name), endOfHeader...)
	if _, err := w.Write(head); err != nil {
		return err
	}
	buf, row := make([]byte, length), make([]byte, 0, ChunkCost)
	in := bufio.NewReaderSize(base, 1<<16)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := io.ReadFull(in, buf)
		if n > 0 {
			hash := sha1.Sum(buf[:n]) //nolint:gosec // see doc.go
			row = binary.LittleEndian.AppendUint16(row[:0], uint16(n))
			row = binary.LittleEndian.AppendUint32(row, adler.of(buf[:n]))
			if _, err := w.Write(append(row, hash[:]...)); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return nil
		case err != nil:
			return fmt.Errorf("read the base: %w", err)
		}
	}
}

// ReadSignature reads a signature of at most MaxChunks chunks. What is none, or
// ends within a chunk, is a fault Invalid or an error io.ErrUnexpectedEOF.
func ReadSignature(r io.Reader) (*Signature, error) {
	in := bufio.NewReaderSize(r, 1<<16)
	h := &header{r: in, what: "signature"}
	h.open(signatureMagic)
	s := &Signature{first: map[uint32]int32{}}
	switch name := h.text(); {
	case h.err != nil:
	case name == adler.name:
		s.checksum = adler
	case name == adlerV2.name:
		s.checksum = adlerV2
	default:
		h.err = invalid(h.what, "uses the checksum %.30q; use %s or %s", name, adler.name, adlerV2.name)
	}
	h.want(endOfHeader, "the end of its header")
	if h.err != nil {
		return nil, h.err
	}
	var row [ChunkCost]byte
	for offset := int64(0); ; {
		_, err := io.ReadFull(in, row[:])
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return nil, err
		}
		c := chunk{offset: offset, length: int(binary.LittleEndian.Uint16(row[:])), rolling: binary.LittleEndian.Uint32(row[2:]), hash: sum(row[6:])}
		if err := s.add(c); err != nil {
			return nil, err
		}
		offset += int64(c.length)
	}
}

// add takes a chunk in. Of many that are alike the first is looked up.
func (s *Signature) add(c chunk) error {
	n := len(s.chunks)
	switch {
	case n == MaxChunks:
		return invalid("signature", "has more than %d chunks; make it with longer ones", MaxChunks)
	case c.length == 0 || c.length > MaxChunk:
		return invalid("signature", "has a chunk of %d bytes; one has 1 to %d", c.length, MaxChunk)
	case n == 0:
		s.window = c.length
	case s.chunks[n-1].length != s.window || c.length > s.window:
		return invalid("signature", "has chunks of %d and %d bytes; only the last may differ, and be shorter", s.window, c.length)
	}
	s.chunks = append(s.chunks, c)
	s.next = append(s.next, 0)
	if c.length < s.window {
		return nil // it is found by its place
	}
	// A peer could give every chunk the same checksum: what is looked through
	// has an end, and what is beyond it is only not found.
	const most = 16
	at := s.first[c.rolling]
	if at == 0 {
		s.first[c.rolling] = int32(n + 1)
		return nil
	}
	for range most {
		if s.chunks[at-1].hash == c.hash {
			return nil
		}
		if s.next[at-1] == 0 {
			s.next[at-1] = int32(n + 1)
			return nil
		}
		at = s.next[at-1]
	}
	return nil
}

// find returns the number of a whole chunk with this content, -1 when there is none.
func (s *Signature) find(rolling uint32, content []byte) int {
	at, ok := s.first[rolling]
	if !ok {
		return -1
	}
	hash := sum(sha1.Sum(content)) //nolint:gosec // see doc.go
	for ; at != 0; at = s.next[at-1] {
		if s.chunks[at-1].hash == hash {
			return int(at - 1)
		}
	}
	return -1
}

// is reports whether chunk i has this content.
func (s *Signature) is(i int, content []byte) bool {
	c := &s.chunks[i]
	return c.length == len(content) && c.rolling == s.checksum.of(content) && c.hash == sha1.Sum(content) //nolint:gosec // see doc.go
}
