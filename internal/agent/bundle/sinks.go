package bundle

import (
	"archive/zip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/takodeploy/tako/internal/durable"
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

// Folder puts files into a directory, which is made if missing. Each appears whole or not
// at all, in place of an earlier one.
func Folder(dir string) (Sink, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	return func(at string, perm fs.FileMode, content io.Reader) (err error) {
		to := filepath.Join(dir, filepath.FromSlash(at))
		if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
			return err
		}
		f, err := os.CreateTemp(filepath.Dir(to), ".tako-*")
		if err != nil {
			return err
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, os.Remove(f.Name()))
			}
		}()
		_, err = io.Copy(f, content)
		if err = errors.Join(err, f.Chmod(perm), f.Sync(), f.Close()); err != nil {
			return err
		}
		return durable.Rename(f.Name(), to)
	}, nil
}

// Forget removes from a folder the bundles of a machine and a project that were made by
// other deployments: their scripts would bring back what this one has replaced. Packages
// and programs stay, which others may use.
func Forget(dir string, keep Info) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // a directory handle
	found, err := fs.Glob(root.FS(), "*"+manifestSuffix)
	if err != nil {
		return err
	}
	for _, name := range found {
		data, err := readFile(root, name, maxManifest)
		var m Manifest
		if err != nil || json.Unmarshal(data, &m) != nil {
			continue // not ours to judge
		}
		if m.Info.MachineID != keep.MachineID || m.Info.ProjectID != keep.ProjectID || m.Info.Deployment == keep.Deployment {
			continue
		}
		base := strings.TrimSuffix(name, manifestSuffix)
		gone := []string{base + scriptSuffix} // first, since nothing runs without it
		for _, s := range m.Steps {
			if fs.ValidPath(s.Path) && path.Dir(s.Path) == variablesDir {
				gone = append(gone, s.Path)
			}
		}
		for _, one := range append(gone, name) {
			if err := root.Remove(one); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return fmt.Errorf("remove the earlier bundle %s: %w", base, err)
			}
		}
	}
	return nil
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
