package octodiff

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha1" //nolint:gosec // see doc.go
	"encoding/binary"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"
)

// Diff writes a delta that makes of the signature's base a file of size bytes.
// It reads the file two times, in order, and where it differs a third time; it
// holds about a megabyte of it, and ends with ctx.
func Diff(ctx context.Context, w io.Writer, s *Signature, file io.ReaderAt, size int64) error {
	hash, err := hashOf(ctx, file, size)
	if err != nil {
		return err
	}
	return s.diff(ctx, w, hash, file, size, nil)
}

// DiffFiles is Diff for who has the base, too: it signs the base, of baseSize bytes, in
// chunks of the given length, as Sign does, and compares what follows a chunk that was
// found byte by byte in the place of hashing it. It keeps two processors busy.
func DiffFiles(ctx context.Context, w io.Writer, base io.ReaderAt, baseSize int64, length int, file io.ReaderAt, size int64) error {
	var hash sum
	var signed bytes.Buffer
	both, under := errgroup.WithContext(ctx)
	both.Go(func() (err error) {
		hash, err = hashOf(under, file, size)
		return err
	})
	both.Go(func() error { return Sign(under, &signed, io.NewSectionReader(base, 0, baseSize), length) })
	if err := both.Wait(); err != nil {
		return err
	}
	s, err := ReadSignature(&signed)
	if err != nil {
		return err
	}
	return s.diff(ctx, w, hash, file, size, &window{what: "base", file: base, size: baseSize, ahead: 1 << 16})
}

// hashOf is the SHA-1 of a file.
func hashOf(ctx context.Context, file io.ReaderAt, size int64) (sum, error) {
	hash, in, buf := sha1.New(), io.NewSectionReader(file, 0, size), make([]byte, 1<<18) //nolint:gosec // see doc.go
	for left := size; left > 0; {
		if err := ctx.Err(); err != nil {
			return sum{}, err
		}
		n, err := io.ReadFull(in, buf[:min(left, int64(len(buf)))])
		left -= int64(n)
		_, _ = hash.Write(buf[:n]) // a hash does not fail
		if err != nil {
			return sum{}, fmt.Errorf("read the new file: %d of %d bytes: %w", size-left, size, short(err))
		}
	}
	return sum(hash.Sum(nil)), nil
}

// diff writes the delta of a file with this hash. base is nil where nobody has it.
func (s *Signature) diff(ctx context.Context, w io.Writer, hash sum, file io.ReaderAt, size int64, base *window) error {
	out := &writer{w: bufio.NewWriterSize(w, 1<<16), file: file}
	head := text(append([]byte(deltaMagic), formatVersion), hashName)
	head = append(binary.LittleEndian.AppendUint32(head, sha1.Size), hash[:]...)
	if _, err := out.w.Write(append(head, endOfHeader...)); err != nil {
		return err
	}
	if err := s.search(ctx, &window{what: "new file", file: file, size: size, ahead: 1 << 20}, base, out); err != nil {
		return err
	}
	return out.w.Flush()
}

// search goes through the new file and finds the base's chunks in it.
func (s *Signature) search(ctx context.Context, in, base *window, out *writer) error {
	var rolling uint32
	fresh := true  // rolling has to be made anew
	follower := -1 // the chunk that goes on where the last one found ends
	for at := int64(0); at < in.size; {
		if at&0xFFFFF == 0 || fresh {
			if err := ctx.Err(); err != nil {
				return err
			}
		}
		found, err := s.match(in, base, at, follower, &rolling, fresh)
		if err != nil {
			return err
		}
		if found >= 0 {
			c := &s.chunks[found]
			if err := out.copy(c.offset, int64(c.length)); err != nil {
				return err
			}
			at += int64(c.length)
			follower, fresh = found+1, true
			continue
		}
		follower = -1
		step := int64(1)
		if n := int64(s.window); s.window == 0 || at+n >= in.size {
			// No whole chunk fits any more; the last one, which may be shorter,
			// can still be the file's end.
			if step, err = s.tail(in, at); err != nil {
				return err
			}
			fresh = true
		} else {
			b, err := in.bytes(at, s.window+1)
			if err != nil {
				return err
			}
			rolling, fresh = s.checksum.roll(rolling, b[0], b[s.window], s.window), false
		}
		if err := out.data(at, step); err != nil {
			return err
		}
		at += step
	}
	return out.flush()
}

// match finds the chunk that is at a place of the new file, -1 when there is none.
func (s *Signature) match(in, base *window, at int64, follower int, rolling *uint32, fresh bool) (int, error) {
	left := in.size - at
	if follower >= 0 && follower < len(s.chunks) && int64(s.chunks[follower].length) <= left {
		b, err := in.bytes(at, s.chunks[follower].length)
		if err != nil {
			return -1, err
		}
		if same, err := s.same(base, follower, b); err != nil || same {
			return follower, err
		}
	}
	if s.window == 0 || int64(s.window) > left {
		if n := len(s.chunks); n > 0 && int64(s.chunks[n-1].length) == left {
			b, err := in.bytes(at, int(left))
			if err != nil || s.is(n-1, b) {
				return n - 1, err
			}
		}
		return -1, nil
	}
	b, err := in.bytes(at, s.window)
	if err != nil {
		return -1, err
	}
	if fresh {
		*rolling = s.checksum.of(b)
	}
	return s.find(*rolling, b), nil
}

// same reports whether chunk i has this content, and looks at the base where there is one.
func (s *Signature) same(base *window, i int, content []byte) (bool, error) {
	if base == nil {
		return s.is(i, content), nil
	}
	b, err := base.bytes(s.chunks[i].offset, s.chunks[i].length)
	return err == nil && bytes.Equal(b, content), err
}

// tail tells how many bytes at the end of the new file are to be inserted before
// the last chunk could match, or all.
func (s *Signature) tail(in *window, at int64) (int64, error) {
	left := in.size - at
	if n := len(s.chunks); n > 0 {
		if last := int64(s.chunks[n-1].length); last < left {
			b, err := in.bytes(in.size-last, int(last))
			if err != nil || s.is(n-1, b) {
				return left - last, err
			}
		}
	}
	return left, nil
}

// window is the part of a file that is looked at.
type window struct {
	what  string // for messages
	file  io.ReaderAt
	size  int64
	ahead int64 // how much is read at a time
	buf   []byte
	at    int64 // where buf begins
}

// bytes returns n bytes from a place on, best one that is not before the last. They
// are good until the next call.
func (w *window) bytes(at int64, n int) ([]byte, error) {
	if at >= w.at && at+int64(n) <= w.at+int64(len(w.buf)) {
		return w.buf[at-w.at:][:n], nil
	}
	length := min(max(int64(n), w.ahead), w.size-at)
	if int64(cap(w.buf)) < length {
		w.buf = make([]byte, length)
	}
	w.at, w.buf = at, w.buf[:length]
	if got, err := w.file.ReadAt(w.buf, at); got < len(w.buf) {
		return nil, fmt.Errorf("read the %s: %w", w.what, short(err))
	}
	return w.buf[:n], nil
}

// writer puts neighbouring commands together.
type writer struct {
	w            *bufio.Writer
	file         io.ReaderAt
	from, length int64 // of the command that is not yet written; none when length is 0
	copies       bool
}

func (o *writer) copy(from, length int64) error { return o.add(true, from, length) }
func (o *writer) data(from, length int64) error { return o.add(false, from, length) }

func (o *writer) add(copies bool, from, length int64) error {
	if o.length > 0 && o.copies == copies && o.from+o.length == from {
		o.length += length
		return nil
	}
	if err := o.flush(); err != nil {
		return err
	}
	o.copies, o.from, o.length = copies, from, length
	return nil
}

func (o *writer) flush() error {
	if o.length == 0 {
		return nil
	}
	command := make([]byte, 0, 17)
	if o.copies {
		command = binary.LittleEndian.AppendUint64(append(command, copyCommand), uint64(o.from))
	} else {
		command = append(command, dataCommand)
	}
	command = binary.LittleEndian.AppendUint64(command, uint64(o.length))
	if _, err := o.w.Write(command); err != nil {
		return err
	}
	if !o.copies {
		if n, err := io.CopyN(o.w, io.NewSectionReader(o.file, o.from, o.length), o.length); err != nil {
			return fmt.Errorf("copy from the new file: %d of %d bytes: %w", n, o.length, err)
		}
	}
	o.length = 0
	return nil
}
