package stage

import (
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
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/reserve"
	"github.com/takodeploy/tako/internal/upgrade/bundle"
)

const (
	// MaxUpload is the size of the largest bundle that is received, in bytes.
	MaxUpload = 2 << 30
	// stayFree is what receiving a bundle leaves of the disk, in bytes: the server writes
	// meanwhile.
	stayFree = 256 << 20
	// lookEvery is after how many bytes that is looked at.
	lookEvery = 8 << 20

	bundleSuffix = ".bundle"
	beingSent    = ".sent-"
)

// Upload is a bundle that somebody has sent to this server.
type Upload struct {
	// ID is the SHA-256 of the bundle in lower-case hex, Path where it is.
	ID, Path string
	// Version is the one that it has, Platforms for what.
	Version   string
	Platforms []string
	Size      int64
	At        time.Time
}

var (
	// ErrReceiving says that another bundle is being received just now.
	ErrReceiving = errors.New("another bundle is being received; wait for its end")
	// ErrTooLarge says that a bundle is larger than MaxUpload.
	ErrTooLarge = fmt.Errorf("the bundle is larger than %d bytes", int64(MaxUpload))
	// ErrNoRoom says that a bundle would fill the disk.
	ErrNoRoom = fmt.Errorf("the disk has no room for the bundle with %d bytes that stay free", int64(stayFree))
)

func (s *Store) uploads() string { return filepath.Join(s.root, "upgrade", "bundles") }

// Examine finds out as Check does what there is to install, and reads its program to hold
// it against the feed, as Stage does; it does not keep it.
func (s *Store) Examine(ctx context.Context, r Request) (*Offer, error) {
	src, err := r.Source.open()
	if err != nil {
		return nil, err
	}
	defer src.close()
	offer, err := s.check(ctx, src, &r)
	if err != nil {
		return nil, err
	}
	in, err := src.program(ctx, Platform(), offer.Artifact, 0)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	h := sha256.New()
	switch n, err := io.Copy(h, io.LimitReader(stoppable{ctx, in}, offer.Artifact.Size+1)); {
	case err != nil:
		return nil, fmt.Errorf("read the program: %w", err)
	case n < offer.Artifact.Size:
		return nil, refuse(Truncated, "The program ended after %d of %d bytes.", n, offer.Artifact.Size)
	case n > offer.Artifact.Size:
		return nil, refuse(Corrupt, "The program is longer than the %d bytes that the feed says.", offer.Artifact.Size)
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != offer.Artifact.SHA256 {
		return nil, refuse(Corrupt, "The program has the SHA-256 %s; the feed says %s. It was changed on the way, or where it comes from.", got, offer.Artifact.SHA256)
	}
	return offer, nil
}

// Receive takes a bundle from in, one at a time, and keeps it if it has what can be
// installed: what Examine says of it is the same as of a file. Of one that is refused, or
// cut short, nothing is left. size is what it is said to have in bytes, -1 where nobody
// knows. The source of r is the bundle. received is called when it is there and nobody else,
// also of another server, receives one yet: what it forgets is none that has come since. It
// may be nil; its error is returned, and the bundle stays.
func (s *Store) Receive(ctx context.Context, r Request, in io.Reader, size int64, received func(*Upload) error) (_ *Upload, _ *Offer, err error) {
	if size > MaxUpload {
		return nil, nil, ErrTooLarge
	}
	defer func() {
		if reserve.Full(err) { // also of inodes, and where only a flush tells it
			err = ErrNoRoom
		}
	}()
	if err := os.MkdirAll(s.uploads(), 0o700); err != nil {
		return nil, nil, err
	}
	lock, err := durable.TryLock(filepath.Join(s.uploads(), ".lock"))
	if errors.Is(err, durable.ErrLocked) {
		return nil, nil, ErrReceiving
	}
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	if err := s.forgetSent(); err != nil {
		return nil, nil, err
	}
	f, err := os.CreateTemp(s.uploads(), beingSent)
	if err != nil {
		return nil, nil, err
	}
	kept := false
	defer func() {
		if !kept {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	id, n, err := receive(ctx, f, in, max(size, 0))
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, nil, err
	}
	if size >= 0 && n != size {
		return nil, nil, io.ErrUnexpectedEOF
	}
	if err := failpoint.Hit("bundle-received"); err != nil {
		return nil, nil, err
	}
	u, err := described(f.Name(), id)
	if err != nil {
		return nil, nil, err
	}
	r.Source = Source{Bundle: f.Name()}
	offer, err := s.Examine(ctx, r)
	if err != nil {
		return nil, nil, err
	}
	u.Path = filepath.Join(s.uploads(), id+bundleSuffix)
	if err := durable.Rename(f.Name(), u.Path); err != nil {
		return nil, nil, err
	}
	kept = true
	if received != nil {
		if err := received(u); err != nil {
			return nil, nil, err
		}
	}
	return u, offer, nil
}

// forgetSent removes what was being received by somebody who was killed.
func (s *Store) forgetSent() error {
	entries, err := os.ReadDir(s.uploads())
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), beingSent) {
			if err := os.Remove(filepath.Join(s.uploads(), e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// receive writes a bundle to a file, and tells its hash and size. First it looks whether
// there is room for as much as will come.
func receive(ctx context.Context, f *os.File, in io.Reader, announced int64) (id string, n int64, err error) {
	h := sha256.New()
	for want := max(announced, lookEvery); ; want = lookEvery {
		if err := room(f, want); err != nil {
			return "", 0, err
		}
		some, err := io.CopyN(io.MultiWriter(f, h), stoppable{ctx, in}, min(lookEvery, MaxUpload+1-n))
		n += some
		switch {
		case n > MaxUpload:
			return "", 0, ErrTooLarge
		case errors.Is(err, io.EOF):
			return hex.EncodeToString(h.Sum(nil)), n, f.Sync()
		case err != nil:
			return "", 0, err
		}
	}
}

// room is ErrNoRoom when a file cannot grow by some bytes with space that stays free.
func room(f *os.File, by int64) error {
	free, err := reserve.Free(filepath.Dir(f.Name()))
	if err != nil {
		return fmt.Errorf("look at the space for a bundle: %w", err)
	}
	if free < by+stayFree {
		return ErrNoRoom
	}
	return nil
}

// described reads what a bundle says that it is. Of a file that is none there is the rest,
// beside the error.
func described(path, id string) (*Upload, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	u := &Upload{ID: id, Path: path, Size: info.Size(), At: info.ModTime()}
	b, err := bundle.Open(path)
	if errors.Is(err, bundle.ErrMalformed) {
		return u, refuse(Truncated, "What was sent is no bundle of a release, or was cut short.")
	}
	if err != nil {
		return nil, err
	}
	u.Version, u.Platforms = b.Version, b.Platforms()
	return u, b.Close()
}

// Uploads are the bundles that were sent to this server, the newest first.
func (s *Store) Uploads() ([]Upload, error) {
	entries, err := os.ReadDir(s.uploads())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the bundles: %w", err)
	}
	var all []Upload
	for _, e := range entries {
		id, ok := strings.CutSuffix(e.Name(), bundleSuffix)
		if !ok || !isUpload(id) {
			continue
		}
		u, err := described(filepath.Join(s.uploads(), e.Name()), id)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue // it was just removed
		case err != nil && u == nil:
			return nil, fmt.Errorf("list the bundles: %w", err)
		}
		all = append(all, *u) // also one that was damaged since
	}
	slices.SortFunc(all, func(a, b Upload) int {
		if n := b.At.Compare(a.At); n != 0 {
			return n
		}
		return strings.Compare(a.ID, b.ID)
	})
	return all, nil
}

func isUpload(id string) bool {
	raw, err := hex.DecodeString(id)
	return err == nil && len(raw) == sha256.Size && strings.ToLower(id) == id
}

// Uploaded is the bundle with an id; fs.ErrNotExist for none.
func (s *Store) Uploaded(id string) (*Upload, error) {
	if !isUpload(id) {
		return nil, fs.ErrNotExist
	}
	return described(filepath.Join(s.uploads(), id+bundleSuffix), id)
}

// ForgetUploads removes the bundles of which forget says so, and tells which they were.
func (s *Store) ForgetUploads(forget func(*Upload) bool) (gone []Upload, err error) {
	all, err := s.Uploads()
	if err != nil {
		return nil, err
	}
	for i := range all {
		if !forget(&all[i]) {
			continue
		}
		if err := os.Remove(all[i].Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return gone, fmt.Errorf("remove a bundle: %w", err)
		}
		gone = append(gone, all[i])
	}
	return gone, nil
}
