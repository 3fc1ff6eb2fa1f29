package backup

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/takodeploy/tako/internal/fault"
)

// pinFile is the name of a pin, beside what it keeps.
const pinFile = "KEEP"

// AfterUpgrade is how long the backup of an upgrade is kept once the upgrade has ended.
const AfterUpgrade = 14 * 24 * time.Hour

// Pin keeps a backup from being pruned. It is a file beside the backup: whoever restores
// an older database does not lose it.
type Pin struct {
	// Reason is for people.
	Reason string
	// Upgrade is the id of the upgrade that the backup was taken for, "" for none.
	Upgrade string `json:",omitempty"`
	// Until is when it ends to keep the backup; zero is when somebody takes it away.
	Until time.Time `json:",omitzero"`
}

// Keeps reports whether the pin has not ended; p may be nil.
func (p *Pin) Keeps(now time.Time) bool { return p != nil && (p.Until.IsZero() || now.Before(p.Until)) }

// write puts the pin beside a backup, in the place of the one that is there.
func (p *Pin) write(dir string) error {
	text, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, pinFile), append(text, '\n'))
}

// readPin reads the pin of a backup; nil for none. One that cannot be read keeps the
// backup: somebody wanted it.
func readPin(dir string) *Pin {
	text, err := os.ReadFile(filepath.Join(dir, pinFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var p Pin
	if err != nil || json.Unmarshal(text, &p) != nil {
		return &Pin{Reason: "what it is kept for cannot be read"}
	}
	return &p
}

// Pin keeps a backup from being pruned, in the place of an earlier pin.
func (s *Store) Pin(id string, p Pin) error {
	return s.using(id, "pin", func(dir string) error { return p.write(dir) })
}

// Unpin lets a backup be pruned, at the time until if it is not zero. That only ever
// shortens: a backup without a pin gets none, and a pin that ends before stays as it is.
// It does not wait for whoever takes backups meanwhile.
func (s *Store) Unpin(id string, until time.Time) error {
	dir, err := s.path(id)
	if err != nil {
		return err
	}
	return unpin(dir, until)
}

func unpin(dir string, until time.Time) error {
	p := readPin(dir)
	if p == nil {
		return nil
	}
	if until.IsZero() {
		if err := os.Remove(filepath.Join(dir, pinFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return translate(err)
		}
		return nil
	}
	if !p.Until.IsZero() && !until.Before(p.Until) {
		return nil
	}
	p.Until = until.UTC()
	return translate(p.write(dir))
}

// EndUpgrades has the pins of all upgrades end at the time until, as Unpin does.
func (s *Store) EndUpgrades(until time.Time) error {
	return s.eachPinned(func(dir string, p *Pin) error {
		if p.Upgrade == "" {
			return nil
		}
		return unpin(dir, until)
	})
}

// replaced takes the pins of earlier backups of the same upgrade away: it was cut short
// after it had taken one, and has taken another.
func (s *Store) replaced(m *Manifest, p *Pin) error {
	if p == nil || p.Upgrade == "" {
		return nil
	}
	return s.eachPinned(func(dir string, other *Pin) error {
		if other.Upgrade != p.Upgrade || filepath.Base(dir) == m.ID {
			return nil
		}
		return unpin(dir, time.Time{})
	})
}

// eachPinned calls fn with every backup that is pinned.
func (s *Store) eachPinned(fn func(dir string, p *Pin) error) error {
	all, err := s.List()
	if err != nil {
		return err
	}
	var errs []error
	for _, b := range all {
		if b.Pin != nil {
			errs = append(errs, fn(filepath.Join(s.dir, b.ID), b.Pin))
		}
	}
	return errors.Join(errs...)
}

// maxReason bounds what a pin says, in bytes.
const maxReason = 1000

// Check refuses what is no pin.
func (p *Pin) Check(now time.Time) error {
	switch {
	case len(p.Reason) > maxReason:
		return fault.New(fault.Invalid, "The reason has %d bytes; use %d at most.", len(p.Reason), maxReason)
	case !p.Until.IsZero() && !p.Until.After(now):
		return fault.New(fault.Invalid, "The backup would be kept until %s, which is past; name a later time.", p.Until.Format(time.RFC3339))
	}
	return nil
}
