package agent

import (
	"context"
	"crypto/sha1" //nolint:gosec // the Tentacle protocol's checksum of uploads
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/takodeploy/tako/internal/fault"
)

// insideHome turns a path of the file service into one relative to home.
func insideHome(home, name string) (string, error) {
	given := name
	name = filepath.ToSlash(strings.ReplaceAll(name, `\`, "/"))
	if path.IsAbs(name) {
		rel, ok := strings.CutPrefix(path.Clean(name), strings.TrimSuffix(filepath.ToSlash(home), "/")+"/")
		if !ok {
			return "", fault.InvalidField("path", "The path %q is outside the agent's home %s.", given, home)
		}
		name = rel
	}
	if clean := path.Clean(name); filepath.IsLocal(filepath.FromSlash(clean)) && clean != "." {
		return clean, nil
	}
	return "", fault.InvalidField("path", "The path %q must name a file below the agent's home.", given)
}

// uploadFile writes a file below home, whole or not at all. Until it is whole it
// lies in the directory incoming, relative to home.
func uploadFile(ctx context.Context, home, incoming, name string, r io.Reader) (up Uploaded, err error) {
	rel, err := insideHome(home, name)
	if err != nil {
		return up, err
	}
	root, err := os.OpenRoot(home)
	if err != nil {
		return up, err
	}
	defer root.Close() //nolint:errcheck // a directory handle
	if err := root.MkdirAll(path.Dir(rel), 0o700); err != nil {
		return up, pathFault(name, err)
	}
	tmp := path.Join(incoming, "upload-"+uuid.NewString())
	f, err := root.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return up, pathFault(name, err)
	}
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = root.Remove(tmp)
		}
	}()
	s1, s256 := sha1.New(), sha256.New() //nolint:gosec // as above
	n, err := io.Copy(io.MultiWriter(f, s1, s256), &contextReader{ctx, r})
	if err != nil {
		return up, fmt.Errorf("receive %s: %w", rel, err)
	}
	if err := f.Sync(); err != nil {
		return up, err
	}
	if err := root.Rename(tmp, rel); err != nil {
		return up, pathFault(name, err)
	}
	if d, err := root.Open(path.Dir(rel)); err == nil {
		err = errors.Join(d.Sync(), d.Close())
		if err != nil {
			return up, err
		}
	}
	return Uploaded{
		FullPath: filepath.Join(home, filepath.FromSlash(rel)),
		SHA1:     hex.EncodeToString(s1.Sum(nil)),
		SHA256:   hex.EncodeToString(s256.Sum(nil)),
		Length:   n,
	}, nil
}

// downloadFile opens a regular file below home.
func downloadFile(home, name string) (*os.File, error) {
	rel, err := insideHome(home, name)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(home)
	if err != nil {
		return nil, err
	}
	defer root.Close() //nolint:errcheck // a directory handle
	// Looked at before it is opened: to open a pipe would wait for its writer.
	if info, err := root.Stat(rel); err != nil {
		return nil, pathFault(name, err)
	} else if !info.Mode().IsRegular() {
		return nil, fault.InvalidField("path", "%q is no regular file.", name)
	}
	f, err := root.Open(rel)
	if err != nil {
		return nil, pathFault(name, err)
	}
	return f, nil
}

// pathFault tells the caller's mistakes from our own troubles.
func pathFault(name string, err error) error {
	var p *fs.PathError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fault.New(fault.NotFound, "There is no file %q below the agent's home.", name)
	case errors.As(err, &p) && (diskFull(err) || errors.Is(err, fs.ErrPermission)):
		return err
	case errors.As(err, &p):
		return fault.InvalidField("path", "The path %q cannot be used: %v.", name, p.Err)
	}
	return err
}
