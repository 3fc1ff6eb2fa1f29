package supervisor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/takodeploy/tako/internal/durable"
)

// Install puts the program exe into the directory of a version, whole or not at all,
// unless it is there already. What an interrupted installation has left is removed.
func Install(root, version, exe string) error {
	dir := filepath.Join(root, "versions", version)
	if _, err := os.Stat(filepath.Join(dir, program)); err == nil {
		return nil
	}
	partial := dir + ".partial"
	if err := os.RemoveAll(partial); err != nil {
		return fmt.Errorf("install version %s: %w", version, err)
	}
	if err := os.MkdirAll(partial, 0o755); err != nil {
		return fmt.Errorf("install version %s: %w", version, err)
	}
	err := copyProgram(exe, filepath.Join(partial, program))
	if err == nil {
		err = durable.SyncDir(partial)
	}
	if err == nil {
		err = durable.Rename(partial, dir)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("install version %s: %w", version, err), os.RemoveAll(partial))
	}
	return nil
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Sync(), out.Close())
}

// Begin makes a version the current one if there is none yet.
func Begin(root, version string) error {
	link := filepath.Join(root, "current")
	if _, err := os.Lstat(link); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.Symlink(filepath.Join("versions", version), link)
}
