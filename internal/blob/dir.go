package blob

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/reserve"
)

const (
	tempDir  = "tmp"
	lockFile = "lock"
	// orphanAge is how old a temporary file must be before it is taken for an
	// orphan; a live one is locked, but not in its first instant.
	orphanAge = time.Minute
)

// Dir is a store in a directory of a local file system:
//
//	ab/ab12...   a blob, in one of 256 folders by its first two digits
//	tmp/         what is being written; each file is locked by its writer
//	lock         held shared to publish a blob, exclusively to delete one
//
// Several processes may use one directory at once. It is safe for concurrent use.
type Dir struct {
	root string
	full func() bool
}

// WhenFull has Put refuse what it is given while full says that the last space of the disk
// is kept for others. It is to be called before the store is used.
func (d *Dir) WhenFull(full func() bool) { d.full = full }

// OpenDir opens the store in the directory root, which it makes if it is absent,
// and removes what writers that died have left.
func OpenDir(root string) (*Dir, error) {
	if err := os.MkdirAll(filepath.Join(root, tempDir), 0o700); err != nil {
		return nil, fmt.Errorf("open blobs: %w", translate(err))
	}
	d := &Dir{root: root, full: func() bool { return false }}
	unlock, err := d.locked(durable.Shared) // makes the file, and shows that the file system can lock
	if err != nil {
		return nil, fmt.Errorf("open blobs: %w", translate(err))
	}
	if err := errors.Join(d.clean(), unlock()); err != nil {
		return nil, fmt.Errorf("clean up blobs: %w", translate(err))
	}
	return d, nil
}

// clean removes the temporary files that nobody writes any more.
func (d *Dir) clean() error {
	entries, err := os.ReadDir(filepath.Join(d.root, tempDir))
	if err != nil {
		return err
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < orphanAge {
			continue // gone, or young
		}
		if err := removeOrphan(filepath.Join(d.root, tempDir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

func removeOrphan(path string) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return ignoreAbsent(err)
	}
	if durable.TryFlock(f, durable.Exclusive, durable.Moment) != nil {
		return f.Close() // its writer lives
	}
	defer func() { err = errors.Join(err, durable.Release(f)) }()
	return ignoreAbsent(os.Remove(path))
}

func ignoreAbsent(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func (d *Dir) path(h Hash) (string, error) {
	if _, err := ParseHash(string(h)); err != nil {
		return "", missing(h)
	}
	return filepath.Join(d.root, string(h[:2]), string(h)), nil
}

// Put stores what r gives, up to limit bytes, and returns its hash and size once
// both survive a power loss. More than limit is a fault TooLarge, a full disk a
// fault Unavailable; then, and when r or ctx fails, nothing is left behind.
func (d *Dir) Put(ctx context.Context, r io.Reader, limit int64) (Info, error) {
	info, err := d.put(ctx, r, limit)
	if err != nil {
		return Info{}, fmt.Errorf("store blob: %w", translate(err))
	}
	return info, nil
}

func (d *Dir) put(ctx context.Context, r io.Reader, limit int64) (info Info, err error) {
	if d.full() {
		return info, unix.ENOSPC
	}
	tmp, err := os.OpenFile(filepath.Join(d.root, tempDir, rand.Text()), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return info, err
	}
	published := false
	defer func() {
		if !published {
			err = errors.Join(err, ignoreAbsent(os.Remove(tmp.Name())))
		}
		err = errors.Join(err, durable.Release(tmp))
	}()
	if err := durable.Flock(tmp, durable.Exclusive); err != nil {
		return info, err
	}

	hash := sha256.New()
	n, err := io.Copy(io.MultiWriter(tmp, hash), &reader{ctx: ctx, r: r, limit: limit, left: limit})
	if err != nil {
		return info, err
	}
	info = Info{Hash: hashOf(hash.Sum(nil)), Size: n}
	if err := tmp.Sync(); err != nil {
		return info, err // and never asked again: the file goes
	}
	if err := ctx.Err(); err != nil {
		return info, err
	}
	published, info.Used, err = d.publish(tmp.Name(), info)
	return info, err
}

// publish moves a finished temporary file to its place. If its content is there
// already it only marks that as used, and the file is not published.
func (d *Dir) publish(tmp string, info Info) (published bool, used time.Time, err error) {
	unlock, err := d.locked(durable.Shared)
	if err != nil {
		return false, used, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	path, err := d.path(info.Hash)
	if err != nil {
		return false, used, err
	}
	shard := filepath.Dir(path)
	if err := os.Mkdir(shard, 0o700); err == nil {
		if err := durable.SyncDir(d.root); err != nil {
			return false, used, err
		}
	} else if !errors.Is(err, fs.ErrExist) {
		return false, used, err
	}
	used = time.Now().UTC()
	if there, err := os.Stat(path); err == nil && there.Size() == info.Size {
		if err := os.Chtimes(path, used, used); err != nil {
			return false, used, err
		}
	} else {
		if err := os.Rename(tmp, path); err != nil {
			return false, used, err
		}
		published = true
	}
	// Also for one that was there: who put it may have died before this.
	return published, used, durable.SyncDir(shard)
}

// reader ends with its context, and with a fault when there is more than left.
type reader struct {
	ctx         context.Context //nolint:containedctx // it lives as long as one call of Put
	r           io.Reader
	limit, left int64
}

func (l *reader) Read(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	if int64(len(p)) > l.left+1 {
		p = p[:max(l.left, 0)+1] // one more tells whether there is more
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, tooLarge(l.limit)
	}
	return n, err
}

// Open returns a blob's content and its size. A blob that is not there is a
// fault NotFound.
func (d *Dir) Open(_ context.Context, h Hash) (io.ReadSeekCloser, int64, error) {
	path, err := d.path(h)
	if err != nil {
		return nil, 0, err
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, missing(h)
	}
	if err != nil {
		return nil, 0, fmt.Errorf("open blob %s: %w", h, translate(err))
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, errors.Join(fmt.Errorf("open blob %s: %w", h, translate(err)), f.Close())
	}
	return f, info.Size(), nil
}

// Stat describes a blob. One that is not there is a fault NotFound.
func (d *Dir) Stat(_ context.Context, h Hash) (Info, error) {
	path, err := d.path(h)
	if err != nil {
		return Info{}, err
	}
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Info{}, missing(h)
	}
	if err != nil {
		return Info{}, fmt.Errorf("look at blob %s: %w", h, translate(err))
	}
	return Info{Hash: h, Size: info.Size(), Used: info.ModTime().UTC()}, nil
}

// Delete removes a blob that was not put since the given time, and reports
// whether it did. A blob that is not there is no error. The time is what keeps a
// blob that somebody puts again just now: it must be so far back that every row
// which refers to a blob put before it has been committed.
func (d *Dir) Delete(_ context.Context, h Hash, unusedSince time.Time) (deleted bool, err error) {
	path, err := d.path(h)
	if err != nil {
		return false, nil
	}
	defer func() {
		if err != nil {
			err = fmt.Errorf("delete blob %s: %w", h, translate(err))
		}
	}()
	unlock, err := d.locked(durable.Exclusive)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil || !info.ModTime().Before(unusedSince) {
		return false, err
	}
	return true, os.Remove(path)
}

// List gives every blob, in the order of the hashes. Blobs that come or go
// meanwhile may be in it or not. It ends after the first error.
func (d *Dir) List(ctx context.Context) iter.Seq2[Info, error] {
	return func(yield func(Info, error) bool) {
		for i := range 256 {
			shard := fmt.Sprintf("%02x", i)
			entries, err := os.ReadDir(filepath.Join(d.root, shard))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				yield(Info{}, fmt.Errorf("list blobs: %w", translate(err)))
				return
			}
			for _, e := range entries {
				if err := ctx.Err(); err != nil {
					yield(Info{}, err)
					return
				}
				h, err := ParseHash(e.Name())
				if err != nil || string(h[:2]) != shard {
					continue // not ours
				}
				info, err := e.Info()
				if errors.Is(err, fs.ErrNotExist) {
					continue
				}
				if err != nil {
					yield(Info{}, fmt.Errorf("list blobs: %w", translate(err)))
					return
				}
				if !yield(Info{Hash: h, Size: info.Size(), Used: info.ModTime().UTC()}, nil) {
					return
				}
			}
		}
	}
}

// locked takes the store's lock. The lock belongs to an open file, so each
// holder opens its own.
func (d *Dir) locked(how durable.Mode) (unlock func() error, err error) {
	f, err := os.OpenFile(filepath.Join(d.root, lockFile), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := durable.Flock(f, how); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error { return durable.Release(f) }, nil
}

// translate gives a full disk its meaning.
func translate(err error) error {
	switch {
	case reserve.Full(err):
		return &fault.Error{Kind: fault.Unavailable, Message: "The disk of the blob store is full; free some space.", Cause: err}
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EIO):
		return &fault.Error{Kind: fault.Unavailable, Message: "The disk of the blob store failed.", Cause: err}
	}
	return err
}
