// Package durable makes changes of files that are whole or not there, and that are
// still there after a loss of power.
//
// A file is written beside its name, flushed, renamed, and its directory flushed:
// whoever reads sees the old or the new one. Rename and symbolic link are atomic in
// every file system that Tako runs on; that they last needs the directory's flush.
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
)

// SyncDir makes the entries of a directory durable.
func SyncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil // NTFS journals its directories; a handle to one cannot be flushed
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// beside is a name in the same directory that nobody else has.
func beside(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+"."+rand.Text()[:8])
}

// WriteFile replaces or makes a file. At an error the old one is still there.
func WriteFile(path string, data []byte, perm os.FileMode) error {
	tmp := beside(path)
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(tmp))
	}
	return SyncDir(filepath.Dir(path))
}

// Portion is how many bytes of a large file are written before they are flushed, at most.
const Portion = 8 << 20

// Paced writes a large file so that nobody who flushes a small one meanwhile waits for long:
// it flushes what it has written, a Portion at a time. A disk, and the file system's journal, take
// what they are given in turn, and all of a large file at once may be seconds of it.
type Paced struct {
	File  *os.File
	since int
}

// Write writes to the file.
func (p *Paced) Write(b []byte) (n int, err error) {
	for len(b) > 0 && err == nil {
		var took int
		took, err = p.File.Write(b[:min(len(b), Portion-p.since)])
		n, b = n+took, b[took:]
		if p.since += took; p.since >= Portion && err == nil {
			p.since, err = 0, p.File.Sync()
		}
	}
	return n, err
}

// Early writes a large file of which the disk begins to write each Portion as soon as it is
// there, and does not wait for it: the flush at the end has little left to do. The disk would
// otherwise idle until then.
type Early struct {
	File  *os.File
	since int
}

// Write writes to the file.
func (e *Early) Write(b []byte) (int, error) {
	n, err := e.File.Write(b)
	if e.since += n; e.since >= Portion && err == nil {
		e.since = 0
		StartWriting(e.File)
	}
	return n, err
}

// Symlink makes path a symbolic link to target, in the place of the link that is
// there.
func Symlink(target, path string) error {
	tmp := beside(path)
	if err := os.Symlink(target, tmp); err != nil {
		return fmt.Errorf("link %s: %w", path, err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return errors.Join(fmt.Errorf("link %s: %w", path, err), os.Remove(tmp))
	}
	return SyncDir(filepath.Dir(path))
}

// Rename moves a file or directory within a file system, whose content was flushed
// before.
func Rename(from, to string) error {
	if err := os.Rename(from, to); err != nil {
		return err
	}
	if filepath.Dir(from) != filepath.Dir(to) {
		if err := SyncDir(filepath.Dir(from)); err != nil {
			return err
		}
	}
	return SyncDir(filepath.Dir(to))
}
