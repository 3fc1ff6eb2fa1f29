package install

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// A folder's name is free again when the folder is gone, and may be taken by another
// step's installation. So there is a note beside the journals for each folder, of the
// journal and entry that it belongs to: only these may remove it.

// claims are those notes.
type claims struct {
	dir  string // of the notes
	lock string // a file, locked while a folder or a note comes or goes
}

func claimsOf(journals string) claims {
	return claims{dir: filepath.Join(journals, "folders"), lock: filepath.Join(journals, "folders.lock")}
}

func (c claims) note(folder string) string {
	sum := sha256.Sum256([]byte(folder))
	return filepath.Join(c.dir, hex.EncodeToString(sum[:16]))
}

// alone calls do while no other process is in here.
func (c claims) alone(do func() error) error {
	if err := os.MkdirAll(c.dir, 0o700); err != nil {
		return err
	}
	held, err := os.OpenFile(c.lock, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	defer held.Close()
	if err := lock(held, func() {}); err != nil {
		return err
	}
	return do()
}

// take makes a folder, by a function, and notes whose it is.
func (c claims) take(owner string, make func() (string, error)) (folder string, err error) {
	err = c.alone(func() error {
		if folder, err = make(); err != nil {
			return err
		}
		tmp := c.note(folder) + ".new"
		if err := os.WriteFile(tmp, []byte(owner), 0o600); err != nil {
			return err
		}
		return os.Rename(tmp, c.note(folder))
	})
	return folder, err
}

// has reports whether a folder still belongs to its owner.
func (c claims) has(folder, owner string) (bool, error) {
	b, err := os.ReadFile(c.note(folder))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return string(b) == owner, err
}

// release drops the note of a folder that is gone, if nobody has taken it since.
func (c claims) release(folder, owner string) error {
	return c.alone(func() error {
		if own, err := c.has(folder, owner); err != nil || !own {
			return err
		}
		return os.Remove(c.note(folder))
	})
}
