// Package octodiff reads and writes the signatures and deltas of the Octodiff
// format, by which clients push only what differs from a version that the
// server has.
//
// A signature lists the chunks of a base file, each with a rolling checksum and
// a SHA-1. Who has a new file and the signature makes a delta: what to copy from
// the base, and what to insert. Who has the base and the delta makes the new
// file, and knows by its SHA-1 that it is right.
//
// All numbers are little-endian, and a text is one byte of length and its bytes.
//
//	signature: "OCTOSIG" 01 "SHA1" checksum ">>>" { uint16 length, uint32 checksum, 20 bytes SHA-1 }
//	delta:     "OCTODELTA" 01 "SHA1" int32 20, 20 bytes SHA-1 of the new file ">>>" { command }
//	command:   60 int64 offset, int64 length       copies from the base
//	           80 int64 length, bytes              inserts
//
// Nothing here holds a file in memory: bases and new files are streamed, and
// everything read from a peer has a bound.
package octodiff

import (
	"crypto/sha1" //nolint:gosec // the format's hash; it finds damage, not malice
	"errors"
	"io"

	"github.com/takodeploy/tako/internal/fault"
)

// Limits of the format, and of what is read.
const (
	// DefaultChunk is the usual length of a chunk in bytes.
	DefaultChunk = 2048
	// MinChunk is the least length of a chunk in bytes; a file's last chunk may be
	// shorter.
	MinChunk = 128
	// MaxChunk is the greatest length of a chunk in bytes.
	MaxChunk = 31 * 1024
	// MaxChunks bounds the chunks of a signature that is read, and with them the
	// memory that it takes: about 200 MB.
	MaxChunks = 4 << 20
	// ChunkCost is how many bytes a chunk takes in a signature.
	ChunkCost = 2 + 4 + sha1.Size

	signatureMagic = "OCTOSIG"
	deltaMagic     = "OCTODELTA"
	formatVersion  = 1
	hashName       = "SHA1"
	endOfHeader    = ">>>"

	copyCommand = 0x60
	dataCommand = 0x80
)

// sum is a SHA-1.
type sum [sha1.Size]byte

// header reads the fixed parts of a file of the format.
type header struct {
	r    io.Reader
	what string // "signature"
	err  error
}

// bytes reads n bytes; of an empty answer the error tells.
func (h *header) bytes(n int) []byte {
	b := make([]byte, n)
	if h.err == nil {
		if _, err := io.ReadFull(h.r, b); err != nil {
			h.err = short(err)
		}
	}
	return b
}

// want reads what must stand there.
func (h *header) want(text, meaning string) {
	if got := h.bytes(len(text)); h.err == nil && string(got) != text {
		h.err = invalid(h.what, "does not have %s where it should", meaning)
	}
}

// text reads a text with its length before it.
func (h *header) text() string {
	n := h.bytes(1)
	return string(h.bytes(int(n[0])))
}

// open reads the beginning that both kinds have: magic, version, hash.
func (h *header) open(magic string) {
	h.want(magic, "the format's name")
	if v := h.bytes(1)[0]; h.err == nil && v != formatVersion {
		h.err = invalid(h.what, "has the version %d; this program knows %d", v, formatVersion)
	}
	if name := h.text(); h.err == nil && name != hashName {
		h.err = invalid(h.what, "uses the hash '%.20q'; use %s", name, hashName)
	}
}

// short says that input ends where it must not.
func short(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func invalid(what, format string, args ...any) error {
	return fault.New(fault.Invalid, "The "+what+" "+format+".", args...)
}

// text writes a text with its length before it.
func text(b []byte, s string) []byte { return append(append(b, byte(len(s))), s...) }
