package stage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/version"
)

const (
	// partialSuffix is behind the name of a version that is being fetched.
	partialSuffix = ".partial"
	// gonePrefix is before the name of what is being removed: nobody takes that for a version.
	gonePrefix = ".gone-"
	// pinFile is the name of a pin, in the directory of what it keeps.
	pinFile = "KEEP"
	// maxPin bounds why a version is pinned, in bytes.
	maxPin = 1000
)

// Installed is a directory below versions: a version that is on disk, or what a transfer
// of one has left.
type Installed struct {
	// Version is what the directory is named after. IsVersion tells that this is the name
	// of a version at all, Partial that it is not installed, but was being fetched.
	Version   string
	IsVersion bool
	Partial   bool
	// Bytes is what its files have, Changed when one of them was changed the last time.
	Bytes   int64
	Changed time.Time
	// Bad is why it failed when it was tried here, "" if it did not.
	Bad string
	// Pin is why it is kept; nil if nobody pinned it.
	Pin *VersionPin
}

// Name is that of the directory.
func (v *Installed) Name() string {
	if v.Partial {
		return v.Version + partialSuffix
	}
	return v.Version
}

// VersionPin keeps a version on disk. It is a file beside the program, so that a version
// which does not know of pins does not lose it.
type VersionPin struct {
	// Reason is for people; of 1000 bytes at the most.
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
}

// Versions are the directories of a store, while nobody else installs or removes any.
type Versions struct {
	s    *Store
	lock *durable.Lock
}

// Lock waits until nobody else installs or removes versions, and keeps others from it
// until Unlock.
func (s *Store) Lock() (*Versions, error) {
	if err := os.MkdirAll(s.versions(), 0o755); err != nil {
		return nil, err
	}
	lock, err := durable.Wait(filepath.Join(s.versions(), ".lock"))
	if err != nil {
		return nil, err
	}
	return &Versions{s, lock}, nil
}

// Unlock lets others go on.
func (v *Versions) Unlock() error { return v.lock.Unlock() }

func (s *Store) versions() string { return filepath.Join(s.root, "versions") }

// Installed lists what is on disk, by name. Files, and directories whose names begin with a
// dot, are nothing that is listed.
func (s *Store) Installed() ([]Installed, error) {
	entries, err := os.ReadDir(s.versions())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list the versions: %w", err)
	}
	t, err := s.Trust()
	if err != nil {
		return nil, err
	}
	var all []Installed
	for _, e := range entries {
		if !e.IsDir() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		v := Installed{}
		v.Version, v.Partial = strings.CutSuffix(e.Name(), partialSuffix)
		v.IsVersion = isVersion(v.Version)
		v.Bad = t.Bad[v.Version]
		dir := filepath.Join(s.versions(), e.Name())
		if v.Bytes, v.Changed, err = sizeOf(dir); err != nil {
			return nil, fmt.Errorf("list the versions: %w", err)
		}
		if !v.Partial {
			v.Pin = readPin(dir)
		}
		all = append(all, v)
	}
	return all, nil
}

func isVersion(name string) bool {
	v, err := version.Parse(version.SemVer, name)
	return err == nil && v.Normalized() == name
}

// sizeOf adds up the files of a directory, and tells when the last of them, or it itself,
// was changed. What goes meanwhile does not count.
func sizeOf(dir string) (bytes int64, changed time.Time, err error) {
	err = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		info, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if info.Mode().IsRegular() {
			bytes += info.Size()
		}
		if info.ModTime().After(changed) {
			changed = info.ModTime()
		}
		return nil
	})
	return bytes, changed, err
}

// readPin reads a pin; nil for none. One that cannot be read keeps the version: somebody
// wanted that.
func readPin(dir string) *VersionPin {
	raw, err := os.ReadFile(filepath.Join(dir, pinFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var p VersionPin
	if err != nil || json.Unmarshal(raw, &p) != nil {
		return &VersionPin{Reason: "what it is kept for cannot be read"}
	}
	return &p
}

// PinVersion keeps an installed version from being removed, in the place of an earlier pin.
func (s *Store) PinVersion(name string, p VersionPin) error {
	if len(p.Reason) > maxPin {
		return fmt.Errorf("the reason has %d bytes; use %d at most", len(p.Reason), maxPin)
	}
	raw, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return s.having(name, func(dir string) error {
		return durable.WriteFile(filepath.Join(dir, pinFile), append(raw, '\n'), 0o644)
	})
}

// UnpinVersion takes the pin of an installed version away, if it has one.
func (s *Store) UnpinVersion(name string) error {
	return s.having(name, func(dir string) error {
		err := os.Remove(filepath.Join(dir, pinFile))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return errors.Join(err, durable.SyncDir(dir))
	})
}

// having calls fn with the directory of an installed version, which stays meanwhile.
func (s *Store) having(name string, fn func(dir string) error) (err error) {
	if !isVersion(name) {
		return fmt.Errorf("%.60q is no version", name)
	}
	all, err := s.Lock()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, all.Unlock()) }()
	info, err := os.Lstat(s.dir(name))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return fmt.Errorf("version %s is not installed; `tako upgrade prune --dry-run` lists those that are", name)
	}
	if err != nil {
		return err
	}
	return fn(s.dir(name))
}

// Discard takes a directory, by the name that Installed has, out of the versions, whole and
// at once. Its files are there until Empty, under a name that is no version's.
func (v *Versions) Discard(name string) error {
	from := filepath.Join(v.s.versions(), name)
	if err := durable.Rename(from, filepath.Join(v.s.versions(), gonePrefix+name)); err != nil {
		return fmt.Errorf("remove version %s: %w", name, err)
	}
	return failpoint.Hit("version-discarded")
}

// Empty removes the files of what was discarded, also by somebody who was killed before
// they had done so.
func (v *Versions) Empty() error {
	entries, err := os.ReadDir(v.s.versions())
	if err != nil {
		return fmt.Errorf("remove versions: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), gonePrefix) {
			continue
		}
		gone := filepath.Join(v.s.versions(), e.Name())
		if err := os.Remove(filepath.Join(gone, program)); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("remove version %s: %w", strings.TrimPrefix(e.Name(), gonePrefix), err)
		}
		if err := failpoint.Hit("version-emptied"); err != nil {
			return err
		}
		if err := os.RemoveAll(gone); err != nil {
			return fmt.Errorf("remove version %s: %w", strings.TrimPrefix(e.Name(), gonePrefix), err)
		}
	}
	return nil
}
