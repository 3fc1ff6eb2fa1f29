package agent

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"strings"
	"time"
	"unicode/utf8"
)

// A frame of the log, little endian:
//
//	uint32 length of what follows the checksum
//	uint32 CRC-32C of what follows
//	uint64 seq, uint8 source, int64 time in microseconds UTC, text
//
// The last frame of a log whose script is over has the source endOfLog, the next
// seq and no text. Frames carry their own checksum because a log is read while it
// grows, and after a crash cut it anywhere.
const (
	frameHead = 8         // length and checksum
	frameBody = 8 + 1 + 8 // seq, source, time
	minFrame  = frameHead + frameBody
	maxFrame  = minFrame + MaxEntry
	endOfLog  = Source(255)
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli) //nolint:gochecknoglobals // a constant table

// errTorn says that the bytes at hand do not begin with a whole, sound frame.
var errTorn = errors.New("torn log frame")

// appendFrame appends one frame to b.
func appendFrame(b []byte, seq int64, source Source, at time.Time, text []byte) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(frameBody+len(text)))
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(seq))
	b = append(b, byte(source))
	b = binary.LittleEndian.AppendUint64(b, uint64(at.UnixMicro()))
	b = append(b, text...)
	binary.LittleEndian.PutUint32(b[start+4:], crc32.Checksum(b[start+frameHead:], castagnoli))
	return b
}

// frameAt checks the frame at the beginning of b and returns its length, seq and
// source; errTorn when b holds no whole sound one.
func frameAt(b []byte) (n int, seq int64, source Source, err error) {
	if len(b) < minFrame {
		return 0, 0, 0, errTorn
	}
	size := binary.LittleEndian.Uint32(b)
	if size < frameBody || size > frameBody+MaxEntry || len(b)-frameHead < int(size) {
		return 0, 0, 0, errTorn
	}
	n = frameHead + int(size)
	if crc32.Checksum(b[frameHead:n], castagnoli) != binary.LittleEndian.Uint32(b[4:]) {
		return 0, 0, 0, errTorn
	}
	return n, int64(binary.LittleEndian.Uint64(b[8:])), Source(b[16]), nil
}

// entryOf turns the frame f, checked by frameAt, into an Entry. The text is a
// part of s, which must be string(f) or begin so.
func entryOf(f []byte, s string) Entry {
	return Entry{
		Seq:    int64(binary.LittleEndian.Uint64(f[8:])),
		Source: Source(f[16]),
		Time:   time.UnixMicro(int64(binary.LittleEndian.Uint64(f[17:]))).UTC(),
		Text:   s[minFrame:len(f)],
	}
}

// decodeFrames reads frames from a wire answer: all of b must be sound frames
// with ascending numbers.
func decodeFrames(b []byte) ([]Entry, error) {
	var out []Entry
	s := string(b)
	last := int64(0)
	for len(b) > 0 {
		n, seq, _, err := frameAt(b)
		if err != nil {
			return nil, err
		}
		if seq <= last {
			return nil, errTorn
		}
		last = seq
		e := entryOf(b[:n], s)
		// The runner writes valid UTF-8, but the bytes come from a file.
		if !utf8.ValidString(e.Text) {
			e.Text = strings.ToValidUTF8(e.Text, "\uFFFD")
		}
		out = append(out, e)
		b, s = b[n:], s[n:]
	}
	return out, nil
}

// cutText returns how many bytes of b (longer than limit) make the first piece of
// at most limit bytes without cutting through a character.
func cutText(b []byte, limit int) int {
	for i := limit; i > limit-utf8.UTFMax && i > 0; i-- {
		if utf8.RuneStart(b[i]) {
			return i
		}
	}
	return limit
}
