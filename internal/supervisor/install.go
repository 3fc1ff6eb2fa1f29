package supervisor

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

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
	err := durable.SyncDir(root) // the first time, versions is new
	if err == nil {
		err = copyProgram(exe, filepath.Join(partial, program))
	}
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

// Unused says why a version must not become the first of a root whose link "current" is not
// there: other versions are, or data that one of them has written. Which version can use
// that data is known to that link alone, and a wrong one may find formats that it does
// not know. What a first installation of that very version has left is no obstacle.
func Unused(root, version string) error {
	entries, err := os.ReadDir(filepath.Join(root, "versions"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var others []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(root, "versions", e.Name(), program)); err == nil && e.Name() != version && !strings.HasSuffix(e.Name(), ".partial") && !strings.HasPrefix(e.Name(), ".") {
			others = append(others, e.Name())
		}
	}
	link := filepath.Join(root, "current")
	const lost = "there is no link %s, which says what is to run, and %s. Version %s does not put itself in its place, since only the version that ran last is sure to be able to use the data. "
	if len(others) > 0 {
		return fmt.Errorf(lost+"Name that one; if it was %[4]s: ln -s versions/%[4]s %[1]s", link, "versions has "+strings.Join(others, ", "), version, others[len(others)-1])
	}
	for _, name := range []string{"tako.db", "master.key"} { // the latter also with a database elsewhere
		path := filepath.Join(root, "data", name)
		_, err := os.Lstat(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		dir := filepath.Join("versions", version)
		return fmt.Errorf(lost+"Put the program of that version into versions and name it; if it is this one: install -D tako %s && ln -s %s %s",
			link, "a server has run here ("+path+")", version, filepath.Join(root, dir, program), dir, link)
	}
	return nil
}

// Begin makes a version the current one if there is none yet.
func Begin(root, version string) error {
	link := filepath.Join(root, "current")
	if _, err := os.Lstat(link); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return durable.Symlink(filepath.Join("versions", version), link)
}
