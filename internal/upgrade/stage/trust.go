// Package stage brings a version of Tako onto a server's disk: it reads the feed of
// releases, believes it or says why not, fetches the program or takes it from a bundle,
// and puts it among the installed versions, whole and proven or not at all.
//
// What is trusted, and what was seen, is a file beside the database, so that restoring
// the database does not make old feeds believable again.
package stage

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
)

// Trust is what a server believes, and what it remembers of what it has seen.
type Trust struct {
	Format int `json:"format"`
	// Root is the signed root that is pinned, nil for none; its very bytes.
	Root []byte `json:"root,omitempty"`
	// Feed is the address of the feed to look at, "" when nobody has named one.
	Feed string `json:"feed,omitempty"`
	// Seen is what was seen of each channel.
	Seen map[string]releasefeed.Seen `json:"seen,omitempty"`
	// Bad are the versions that were tried here and failed, with the reason.
	Bad map[string]string `json:"bad,omitempty"`
}

const (
	trustFormat = 1
	maxTrust    = 8 << 20 // bytes of the file
)

// ErrNoRoot says that no keys are trusted yet.
var ErrNoRoot = errors.New("no keys are trusted yet that sign releases; pin them with `tako upgrade trust FILE`")

// Store is the versions and the trust of a root directory of a supervisor.
type Store struct {
	root    string
	builtin []byte
}

// Open opens the store of a root directory. builtin is the signed root that this program
// was built with, empty for none; it counts until another one is pinned.
func Open(root string, builtin []byte) *Store { return &Store{root, builtin} }

func (s *Store) trustPath() string { return filepath.Join(s.root, "upgrade", "trust.json") }

// Trust reads what is trusted.
func (s *Store) Trust() (Trust, error) {
	t := Trust{Format: trustFormat, Seen: map[string]releasefeed.Seen{}, Bad: map[string]string{}}
	f, err := os.Open(s.trustPath())
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return t, fmt.Errorf("read what is trusted: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxTrust))
	if err == nil {
		err = json.Unmarshal(raw, &t)
	}
	if err != nil {
		// Never taken for a new one: that would forget what was seen.
		return t, fmt.Errorf("read what is trusted (%s): %w. Move the file away and pin the keys again with `tako upgrade trust`", s.trustPath(), err)
	}
	if t.Format > trustFormat {
		return t, fmt.Errorf("%s has format %d, which a newer version has written", s.trustPath(), t.Format)
	}
	return t, nil
}

// Root is the root that is trusted, ErrNoRoot if there is none.
func (s *Store) Root() (releasefeed.Root, error) {
	t, err := s.Trust()
	if err != nil {
		return releasefeed.Root{}, err
	}
	return s.rootOf(t)
}

func (s *Store) rootOf(t Trust) (releasefeed.Root, error) {
	switch {
	case len(t.Root) > 0:
		r, err := releasefeed.ParseRoot(t.Root)
		if err != nil {
			return r, fmt.Errorf("the root that is pinned: %w", err)
		}
		return r, nil
	case len(s.builtin) > 0:
		r, err := releasefeed.ParseRoot(s.builtin)
		if err != nil {
			return r, fmt.Errorf("the root that this program was built with: %w", err)
		}
		return r, nil
	}
	return releasefeed.Root{}, ErrNoRoot
}

// change changes what is trusted, while nobody else does.
func (s *Store) change(fn func(*Trust) error) (err error) {
	if err := os.MkdirAll(filepath.Dir(s.trustPath()), 0o700); err != nil {
		return err
	}
	lock, err := durable.Wait(filepath.Join(s.root, "upgrade", "trust.lock"))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, lock.Unlock()) }()
	t, err := s.Trust()
	if err != nil {
		return err
	}
	before, err := json.Marshal(t)
	if err != nil {
		return err
	}
	if err := fn(&t); err != nil {
		return err
	}
	raw, err := json.Marshal(t)
	if err != nil || string(raw) == string(before) {
		return err
	}
	return durable.WriteFile(s.trustPath(), append(raw, '\n'), 0o600)
}

// Pin trusts a root that an administrator names. Another one than the next of that which
// is trusted already is taken only with replace.
func (s *Store) Pin(signed []byte, replace bool) (releasefeed.Root, error) {
	root, err := releasefeed.ParseRoot(signed)
	if err != nil {
		return root, err
	}
	err = s.change(func(t *Trust) error {
		now, err := s.rootOf(*t)
		if err != nil && !errors.Is(err, ErrNoRoot) && !replace {
			return err
		}
		if err == nil && !replace && !sameRoot(now, root) {
			if _, err := now.Next(signed); err != nil {
				return fmt.Errorf("other keys are trusted already (version %d), and these do not follow from them: %w To trust these instead, use --replace", now.Version, err)
			}
		}
		t.Root = signed
		return nil
	})
	return root, err
}

func sameRoot(a, b releasefeed.Root) bool {
	x, errA := json.Marshal(a)
	y, errB := json.Marshal(b)
	return errA == nil && errB == nil && string(x) == string(y)
}

// saw remembers what a feed has told. Neither number nor time goes back.
func (s *Store) saw(channel string, seen releasefeed.Seen) error {
	return s.change(func(t *Trust) error {
		old := t.Seen[channel]
		if seen.Number < old.Number {
			seen.Number = old.Number
		}
		if seen.Issued.Before(old.Issued) {
			seen.Issued = old.Issued
		}
		t.Seen[channel] = seen
		return nil
	})
}

// MarkBad remembers that a version failed here, so that it is not offered again.
func (s *Store) MarkBad(version, reason string) error {
	return s.change(func(t *Trust) error {
		t.Bad[version] = reason
		return nil
	})
}

// Forgive forgets that a version failed here: somebody asks for it by name.
func (s *Store) Forgive(version string) error {
	return s.change(func(t *Trust) error {
		delete(t.Bad, version)
		return nil
	})
}

// UseFeed remembers the address of the feed to look at.
func (s *Store) UseFeed(address string) error {
	if _, err := (&Source{Feed: address}).base(); err != nil {
		return err
	}
	return s.change(func(t *Trust) error {
		t.Feed = address
		return nil
	})
}

// bad are the versions that failed here.
func (t *Trust) bad() []string { return slices.Sorted(maps.Keys(t.Bad)) }

// latest is the latest time that any channel has told: no clock is behind it.
func (t *Trust) latest() time.Time {
	var at time.Time
	for _, s := range t.Seen {
		if s.Issued.After(at) {
			at = s.Issued
		}
	}
	return at
}
