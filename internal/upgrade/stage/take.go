package stage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
)

// Staged is a version that a store has staged, for another store to take.
type Staged struct {
	// Dir is the version's directory.
	Dir     string `json:"dir"`
	Version string `json:"version"`
	// Channel is that of the feed which has it, Seen what was seen of that.
	Channel string           `json:"channel"`
	Seen    releasefeed.Seen `json:"seen"`
}

// Staged is a version that Stage has put into this store, for another one to take.
func (s *Store) Staged(version, channel string) (Staged, error) {
	t, err := s.Trust()
	return Staged{s.dir(version), version, channel, t.Seen[channel]}, err
}

// Take installs a version that another store has staged, unless it is there already, puts
// the feed that says so beside it, and remembers what that store has seen. The caller MUST know that nobody can write to the
// other store whom he does not believe: no signature is checked again. A feed that is
// older than the one that was seen here is refused.
func (s *Store) Take(ctx context.Context, from Staged) (err error) {
	t, err := s.Trust()
	if err != nil {
		return err
	}
	if seen := t.Seen[from.Channel]; from.Seen.Number < seen.Number {
		return fmt.Errorf("the feed has number %d, and number %d was seen here before: take a newer one", from.Seen.Number, seen.Number)
	}
	if err := s.saw(from.Channel, from.Seen); err != nil {
		return err
	}
	var m Manifest
	raw, err := os.ReadFile(filepath.Join(from.Dir, manifestFile))
	if err == nil {
		err = json.Unmarshal(raw, &m)
	}
	if err != nil {
		return fmt.Errorf("install version %s: %w", from.Version, err)
	}
	alone, err := s.Lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, alone.Unlock()) }()
	if err := s.verify(ctx, from.Version, m.Artifact); err == nil {
		feed, err := os.ReadFile(filepath.Join(from.Dir, feedFile))
		if err != nil {
			return fmt.Errorf("install version %s: %w", from.Version, err)
		}
		return s.restate(from.Version, feed)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	partial := s.dir(from.Version) + partialSuffix
	err = os.RemoveAll(partial)
	if err == nil {
		err = os.Mkdir(partial, 0o700)
	}
	if err == nil {
		err = takeFiles(ctx, from.Dir, partial, m.Artifact.SHA256)
	}
	if err == nil {
		err = durable.Rename(partial, s.dir(from.Version))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("install version %s: %w", from.Version, err), os.RemoveAll(partial))
	}
	return nil
}

// takeFiles copies what makes a version, whose program has that hash.
func takeFiles(ctx context.Context, from, to, want string) error {
	for name, mode := range map[string]fs.FileMode{program: 0o755, manifestFile: 0o644, feedFile: 0o644} {
		sum, err := copyFile(ctx, filepath.Join(from, name), filepath.Join(to, name), mode)
		if err != nil {
			return err
		}
		if name == program && sum != want {
			return refuse(Corrupt, "The program in %s has the SHA-256 %s; the feed says %s.", from, sum, want)
		}
	}
	if err := os.Chmod(to, 0o755); err != nil { //nolint:gosec // a directory of programs
		return err
	}
	return durable.SyncDir(to)
}

// copyFile copies a file to one that is not there, and tells its SHA-256.
func copyFile(ctx context.Context, from, to string, mode fs.FileMode) (sum string, err error) {
	in, err := os.OpenFile(from, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return "", err
	}
	defer in.Close()
	out, err := newFile(to)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(io.MultiWriter(out, h), stoppable{ctx, in})
	return hex.EncodeToString(h.Sum(nil)), errors.Join(err, out.Chmod(mode), out.Sync(), out.Close())
}
