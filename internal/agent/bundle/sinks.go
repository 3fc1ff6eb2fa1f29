package bundle

import (
	"archive/zip"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// ZIP puts files into an archive. Packages are stored as they are: most are compressed.
func ZIP(w *zip.Writer) Sink {
	return func(at string, perm fs.FileMode, content io.Reader) error {
		h := &zip.FileHeader{Name: at, Method: zip.Deflate}
		if strings.HasPrefix(at, packagesDir+"/") {
			h.Method = zip.Store
		}
		h.SetMode(perm)
		out, err := w.CreateHeader(h)
		if err != nil {
			return err
		}
		_, err = io.Copy(out, content)
		return err
	}
}

// Folder is a directory of bundles. It is for one bundle, and one goroutine.
type Folder struct {
	root    *os.Root
	allowed func() error
	steps   []string // that were written, and are this bundle's alone
	last    []string // its manifest and its script, as far as they are there
	stale   []string // steps of an earlier making of the same bundle
}

// OpenFolder opens a directory, which is made if missing. Nothing gets out of it by links
// inside. Allowed is asked before each file appears and before any goes, and its error is
// that of the call: another process may have taken the work over. Nil allows all.
func OpenFolder(dir string, allowed func() error) (*Folder, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	if allowed == nil {
		allowed = func() error { return nil }
	}
	return &Folder{root: root, allowed: allowed}, nil
}

// Close closes the directory. What was written stays.
func (f *Folder) Close() error { return f.root.Close() }

// Put is a Sink. A file appears whole or not at all, in place of an earlier one.
func (f *Folder) Put(at string, perm fs.FileMode, content io.Reader) (err error) {
	dir := path.Dir(at)
	if dir != "." {
		if err := f.root.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	temp := path.Join(dir, ".tako-"+strings.ToLower(rand.Text()))
	w, err := f.root.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, f.remove(temp))
		}
	}()
	_, err = io.Copy(w, content)
	if err = errors.Join(err, w.Chmod(perm), w.Sync(), w.Close()); err != nil {
		return err
	}
	if err := f.allowed(); err != nil {
		return err
	}
	if strings.HasSuffix(at, manifestSuffix) {
		if m := f.manifest(at); m != nil {
			f.stale = append(f.stale, m.steps()...)
		}
	}
	if err := f.root.Rename(temp, at); err != nil {
		return err
	}
	switch dir {
	case variablesDir:
		f.steps = append(f.steps, at)
	case ".":
		f.last = append(f.last, at)
	}
	d, err := f.root.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// manifest reads what may be one, nil for what is none.
func (f *Folder) manifest(name string) *Manifest {
	data, err := readFile(f.root, name, maxManifest)
	var m Manifest
	if err != nil || json.Unmarshal(data, &m) != nil {
		return nil
	}
	return &m
}

// steps are the files that are a bundle's alone, and that one may remove of a manifest
// that anybody may have written.
func (m *Manifest) steps() []string {
	var out []string
	for _, s := range m.Steps {
		if fs.ValidPath(s.Path) && path.Dir(s.Path) == variablesDir {
			out = append(out, s.Path)
		}
	}
	return out
}

// remove removes files, in their order, of which some may be gone.
func (f *Folder) remove(names ...string) error {
	for _, one := range names {
		if err := f.root.Remove(one); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// Undo removes the bundle as far as it was written. Packages and programs stay, which
// others may use. Manifest and script stay, too, where it is not allowed: they may be somebody
// else's by now.
func (f *Folder) Undo() error {
	if len(f.last) > 0 && f.allowed() == nil {
		last := slices.Clone(f.last)
		slices.Reverse(last) // nothing runs without the script
		if err := f.remove(last...); err != nil {
			return err
		}
	}
	return f.remove(f.steps...)
}

// Forget removes the bundles of a machine and a project, in the environment and for the
// tenant, that were made by other deployments: their scripts would bring back what this one
// has replaced. Packages and programs stay, which others may use.
func (f *Folder) Forget(keep Info) error {
	found, err := fs.Glob(f.root.FS(), "*"+manifestSuffix)
	if err != nil {
		return err
	}
	if err := f.allowed(); err != nil {
		return err
	}
	for _, name := range found {
		m := f.manifest(name)
		if m == nil {
			continue // not ours to judge
		}
		is := m.Info
		if is.MachineID != keep.MachineID || is.ProjectID != keep.ProjectID || is.Environment != keep.Environment || is.Tenant != keep.Tenant || is.Deployment == keep.Deployment {
			continue
		}
		base := strings.TrimSuffix(name, manifestSuffix)
		gone := append([]string{base + scriptSuffix}, m.steps()...) // the script first, since nothing runs without it
		if err := f.remove(append(gone, name)...); err != nil {
			return fmt.Errorf("remove the earlier bundle %s: %w", base, err)
		}
	}
	return f.remove(f.stale...)
}

// readFile reads a file of a bundle that has at most limit bytes.
func readFile(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := root.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%s has more than %d bytes", name, limit)
	}
	return data, err
}
