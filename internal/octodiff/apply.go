package octodiff

import (
	"bufio"
	"crypto/sha1" //nolint:gosec // see doc.go
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/takodeploy/tako/internal/fault"
)

// Patch gives the new file that a delta makes of its base, as a stream. The end
// of the file is only reported when the whole has the SHA-1 that the delta
// names (unless that is left out): who stores the file does so beside its place
// and moves it there at the end. It is for one goroutine.
type Patch struct {
	base  io.ReadSeeker
	size  int64
	delta *bufio.Reader
	limit int64 // what the new file may still have

	want sum
	hash hash.Hash // nil when somebody else checks
	from io.Reader // of the command at hand
	left int64     // bytes of it
	err  error
}

// Apply reads a delta's header and returns the new file, which has at most limit
// bytes. size is the base's, in bytes. What is no delta, or one of another base,
// is a fault Invalid; one that ends early an error io.ErrUnexpectedEOF; a new
// file beyond the limit a fault TooLarge.
func Apply(base io.ReadSeeker, size int64, delta io.Reader, limit int64) (*Patch, error) {
	p := &Patch{base: base, size: size, delta: bufio.NewReaderSize(delta, 1<<16), limit: limit, hash: sha1.New()} //nolint:gosec // see doc.go
	h := &header{r: p.delta, what: "delta"}
	h.open(deltaMagic)
	if n := binary.LittleEndian.Uint32(h.bytes(4)); h.err == nil && n != sha1.Size {
		h.err = invalid(h.what, "has a hash of %d bytes; a %s has %d", n, hashName, sha1.Size)
	}
	p.want = sum(h.bytes(sha1.Size))
	h.want(endOfHeader, "the end of its header")
	if h.err != nil {
		return nil, h.err
	}
	return p, nil
}

// LeaveHashOut is for who checks the whole new file by a better hash, which makes
// the delta's one more pass over it for nothing. It is called before the first Read.
func (p *Patch) LeaveHashOut() { p.hash = nil }

// Read gives the next bytes of the new file.
func (p *Patch) Read(b []byte) (int, error) {
	for p.err == nil && p.left == 0 {
		p.err = p.command()
	}
	if p.err != nil || len(b) == 0 {
		return 0, p.err
	}
	n, err := p.from.Read(b[:min(int64(len(b)), p.left)])
	p.left -= int64(n)
	if p.hash != nil {
		_, _ = p.hash.Write(b[:n]) // a hash does not fail
	}
	if err != nil && (p.left > 0 || !errors.Is(err, io.EOF)) {
		p.err = short(err)
	}
	return n, p.err
}

// command reads the next command; at the end of all it checks the hash.
func (p *Patch) command() error {
	op, err := p.delta.ReadByte()
	switch {
	case errors.Is(err, io.EOF):
		if p.hash != nil && sum(p.hash.Sum(nil)) != p.want {
			return invalid("delta", "does not make the file that it names of this base: the SHA-1 differs; send the whole file")
		}
		return io.EOF
	case err != nil:
		return err
	}
	var offset, length int64
	switch op {
	case copyCommand:
		if offset, err = p.number(); err != nil {
			return err
		}
		if length, err = p.number(); err != nil {
			return err
		}
		if offset < 0 || length < 0 || offset > p.size || length > p.size-offset {
			return invalid("delta", "copies %d bytes from %d on, of a base of %d bytes", length, offset, p.size)
		}
		if _, err := p.base.Seek(offset, io.SeekStart); err != nil {
			return fmt.Errorf("find byte %d of the base: %w", offset, err)
		}
		p.from = p.base
	case dataCommand:
		if length, err = p.number(); err != nil {
			return err
		}
		if length < 0 {
			return invalid("delta", "inserts %d bytes", length)
		}
		p.from = p.delta
	default:
		return invalid("delta", "has an unknown command %#02x; this program knows %#02x and %#02x", op, copyCommand, dataCommand)
	}
	if length > p.limit {
		return fault.New(fault.TooLarge, "The delta makes a file that is larger than the limit.")
	}
	p.limit -= length
	p.left = length
	return nil
}

func (p *Patch) number() (int64, error) {
	var b [8]byte
	if _, err := io.ReadFull(p.delta, b[:]); err != nil {
		return 0, short(err)
	}
	return int64(binary.LittleEndian.Uint64(b[:])), nil
}
