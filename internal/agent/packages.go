package agent

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/octodiff"
)

// DefaultPackageLimit is the size of the package cache when Config names none.
const DefaultPackageLimit = 20 << 30

// copyBuffer is how much of a package is copied at a time.
const copyBuffer = 128 << 10

// packageCache keeps packages by the SHA-256 of their content. A file's
// modification time is its last use.
type packageCache struct {
	dir   string
	limit int64 // bytes; what was not used for longest goes first

	mu sync.Mutex // held while files come and go, not while they are written
}

func checkSHA256(hash string) error {
	if b, err := hex.DecodeString(hash); err != nil || len(b) != sha256.Size || strings.ToLower(hash) != hash {
		return fault.InvalidField("SHA256", "The hash %q must be the SHA-256 of the package: 64 lower-case hexadecimal digits.", hash)
	}
	return nil
}

func (c *packageCache) path(hash string) string { return filepath.Join(c.dir, hash) }

// touch reports whether the package is there, and counts that as a use.
func (c *packageCache) touch(hash string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return os.Chtimes(c.path(hash), time.Time{}, time.Now()) == nil
}

func (c *packageCache) has(hash string) (bool, error) {
	if err := checkSHA256(hash); err != nil {
		return false, err
	}
	return c.touch(hash), nil
}

// link gives the package a second name, which outlives its place in the cache.
func (c *packageCache) link(hash, to string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := os.Link(c.path(hash), to)
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "The package with the SHA-256 %s is not in the agent's cache: send it with PutPackage, then start the script again.", hash)
	}
	if err == nil {
		_ = os.Chtimes(c.path(hash), time.Time{}, time.Now())
	}
	return err
}

func (c *packageCache) put(ctx context.Context, hash string, size int64, r io.Reader) (err error) {
	if err := checkSHA256(hash); err != nil {
		return err
	}
	if size < 0 || size > c.limit {
		return fault.InvalidField("size", "The package has %d bytes; the agent's cache takes %d at most.", size, c.limit)
	}
	if c.touch(hash) {
		return nil
	}
	tmp, err := os.CreateTemp(c.dir, ".put-")
	if err != nil {
		return err
	}
	defer func() {
		_ = tmp.Close()
		if err != nil {
			_ = os.Remove(tmp.Name())
		}
	}()
	sum := sha256.New()
	// While the rest is received, the disk writes what is there: there is less to flush then.
	into := io.MultiWriter(&durable.Early{File: tmp}, sum)
	n, err := io.CopyBuffer(into, io.LimitReader(&contextReader{ctx, r}, size+1), make([]byte, copyBuffer))
	if err != nil {
		return fmt.Errorf("receive package %s: %w", hash, err)
	}
	if got := hex.EncodeToString(sum.Sum(nil)); n != size || got != hash {
		return fault.InvalidField("SHA256", "The package arrived with %d bytes or more and the SHA-256 %s; %d bytes and %s were announced. Send it again.", n, got, size, hash)
	}
	if err := tmp.Sync(); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := os.Rename(tmp.Name(), c.path(hash)); err != nil {
		return err
	}
	if err := durable.SyncDir(c.dir); err != nil {
		return err
	}
	return c.evict(hash)
}

// apply makes a package of another one and a delta, and stores it.
func (c *packageCache) apply(ctx context.Context, base, target string, size int64, delta io.Reader) error {
	if err := errors.Join(checkSHA256(base), checkSHA256(target)); err != nil {
		return err
	}
	c.mu.Lock()
	f, err := os.Open(c.path(base)) // it may be removed while it is read
	c.mu.Unlock()
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "The package with the SHA-256 %s is not in the agent's cache, so no delta can be applied to it; send the whole package with PutPackage.", base)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	_ = os.Chtimes(c.path(base), time.Time{}, time.Now()) // it was of use
	patched, err := octodiff.Apply(f, info.Size(), &contextReader{ctx, delta}, size)
	if err != nil {
		return err
	}
	patched.LeaveHashOut() // put has a SHA-256
	return c.put(ctx, target, size, patched)
}

// evict removes what was not used for longest until the cache is within its limit.
func (c *packageCache) evict(keep string) error {
	entries, err := os.ReadDir(c.dir)
	if err != nil {
		return err
	}
	var all []fs.FileInfo
	total := int64(0)
	for _, e := range entries {
		info, err := e.Info()
		if err != nil || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		all = append(all, info)
		total += info.Size()
	}
	slices.SortFunc(all, func(a, b fs.FileInfo) int {
		return cmp.Or(a.ModTime().Compare(b.ModTime()), cmp.Compare(a.Name(), b.Name()))
	})
	for _, info := range all {
		if total <= c.limit {
			break
		}
		if info.Name() == keep {
			continue
		}
		if err := os.Remove(c.path(info.Name())); err != nil {
			return err
		}
		total -= info.Size()
	}
	return nil
}

// clean removes what an earlier process left half written.
func (c *packageCache) clean() error {
	left, err := filepath.Glob(filepath.Join(c.dir, ".put-*"))
	for _, name := range left {
		err = errors.Join(err, os.Remove(name))
	}
	return err
}

// contextReader ends a copy when its caller is gone.
type contextReader struct {
	ctx context.Context //nolint:containedctx // it lives as long as one call
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
