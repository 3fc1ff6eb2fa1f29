package backup

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/takodeploy/tako/internal/durable"
)

// counted hashes and counts what goes through it.
type counted struct {
	w    io.Writer
	sum  hash.Hash
	n    int64
	tell func(n int64)
}

func newCounted(w io.Writer, tell func(int64)) *counted {
	return &counted{w: w, sum: sha256.New(), tell: tell}
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	_, _ = c.sum.Write(p[:n]) // a hash does not fail
	if c.n += int64(n); c.tell != nil {
		c.tell(c.n)
	}
	return n, err
}

func (c *counted) hex() string { return hex.EncodeToString(c.sum.Sum(nil)) }

// stopped reads until its context ends.
type stopped struct {
	ctx context.Context //nolint:containedctx // it lives as long as one copy
	r   io.Reader
}

func (s stopped) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.r.Read(p)
}

// sealFile encrypts what r gives into a new file, compressed if compress. It is on
// disk when it returns.
func sealFile(ctx context.Context, path string, r io.Reader, compress bool, to []age.Recipient, tell func(int64)) (file File, err error) {
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return file, err
	}
	defer func() {
		if err = errors.Join(err, out.Close()); err != nil {
			err = errors.Join(err, os.Remove(path))
		}
	}()
	stored := newCounted(&durable.Paced{File: out}, nil)
	sealed, err := age.Encrypt(stored, to...)
	if err != nil {
		return file, err
	}
	var into io.Writer = sealed
	var packed *zstd.Encoder
	if compress {
		// One goroutine: a backup leaves the machine to the server.
		if packed, err = zstd.NewWriter(sealed, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1)); err != nil {
			return file, err
		}
		into = packed
	}
	plain := newCounted(into, tell)
	_, err = io.Copy(plain, stopped{ctx, r})
	if packed != nil {
		err = errors.Join(err, packed.Close())
	}
	if err := errors.Join(err, sealed.Close()); err != nil {
		return file, err
	}
	return File{Size: plain.n, SHA256: plain.hex(), Stored: stored.n, StoredSHA256: stored.hex()}, out.Sync()
}

// opened is the content of an encrypted file, hashed while it is read. A file that
// was cut short or changed gives an error before its end.
type opened struct {
	io.Reader
	sum   *counted
	close func()
}

// openFile decrypts a file.
func openFile(ctx context.Context, path string, compressed bool, by []age.Identity, tell func(int64)) (*opened, error) {
	in, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	o := &opened{sum: newCounted(io.Discard, tell), close: func() { _ = in.Close() }} // only read
	plain, err := age.Decrypt(stopped{ctx, in}, by...)
	if err != nil {
		o.close()
		return nil, cannotDecrypt(err)
	}
	if compressed {
		z, err := zstd.NewReader(plain, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(128<<20))
		if err != nil {
			o.close()
			return nil, err
		}
		o.close = func() { z.Close(); _ = in.Close() }
		plain = z
	}
	o.Reader = io.TeeReader(damageOf{plain}, o.sum)
	return o, nil
}

// is reports whether what was read has this size and hash.
func (o *opened) is(size int64, sum string) bool { return o.sum.n == size && o.sum.hex() == sum }

// damageOf says what a failure to decrypt means.
type damageOf struct{ r io.Reader }

func (d damageOf) Read(p []byte) (int, error) {
	n, err := d.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("it is damaged or cut short: %w", err)
	}
	return n, err
}

// errWrongKey says that none of the keys at hand opens a file.
var errWrongKey = errors.New("none of the keys at hand opens it; give the recovery kit of its time with --recovery-key-file")

func cannotDecrypt(err error) error {
	var none *age.NoIdentityMatchError
	if errors.As(err, &none) {
		return errWrongKey
	}
	return fmt.Errorf("it is damaged or cut short: %w", err)
}

// sealedSize is how large a file is that seals n bytes, without compression, given
// the size of one that seals none.
func sealedSize(empty, n int64) int64 {
	const chunk, tag = 64 * 1024, 16
	chunks := max(1, (n+chunk-1)/chunk)
	return empty - tag + n + chunks*tag
}
