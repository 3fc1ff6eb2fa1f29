package install

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/takodeploy/tako/internal/durable"
)

// keyTransferPath is where a package is put by the step that transfers it.
const keyTransferPath = "Octopus.Action.Package.TransferPath"

// transfer puts the package, as it is, into the directory that the step names.
func (d *deployment) transfer(context.Context) error {
	dir, err := d.directory(keyTransferPath)
	if err != nil {
		return err
	}
	if dir == "" {
		return errors.New("The step does not say where the package is to go; set its " + keyTransferPath + ".") //nolint:staticcheck // a sentence for people
	}
	made, err := makeDirs(dir)
	if err != nil {
		return onDisk(dir, err)
	}
	from, err := os.OpenRoot(d.Workspace)
	if err != nil {
		return err
	}
	defer from.Close() //nolint:errcheck // a directory handle
	to, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer to.Close() //nolint:errcheck // a directory handle
	name := d.req.Package.FileName
	if err := putFile(from, to, d.req.Package.File, name); err != nil {
		return onDisk(dir, err)
	}
	for _, one := range made {
		if err := syncDir(one); err != nil {
			return onDisk(one, err)
		}
	}
	d.out.info("The package %s %s was put into '%s'.", d.req.Package.ID, d.req.Package.Version, dir)
	d.tell("Package.DirectoryPath", dir)
	d.tell("Package.FileName", name)
	d.tell("Package.FilePath", filepath.Join(dir, name))
	return nil
}

// makeDirs makes a directory and those above it that are missing. It returns those whose
// entries are to be made durable for what is put into it: itself, and each one up to the
// lowest that was there.
func makeDirs(dir string) (changed []string, err error) {
	for at := dir; ; at = filepath.Dir(at) {
		changed = append(changed, at)
		if _, err := os.Stat(at); err == nil || !errors.Is(err, fs.ErrNotExist) || at == filepath.Dir(at) {
			break
		}
	}
	return changed, os.MkdirAll(dir, 0o755)
}

// putFile copies a file, whole or not at all, with its time and the mode that new files
// have. Its content is on the disk before it has its name: this one alone is flushed, for
// what else the disk has to write may take longer than the copy.
func putFile(from, to *os.Root, source, name string) (err error) {
	in, err := from.Open(source)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	tmp := temporary(name)
	out, err := to.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	for err == nil {
		if _, err = io.CopyN(out, in, durable.Portion); err == nil { // in the kernel, where it can
			durable.StartWriting(out)
		}
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	if err == nil {
		err = to.Chtimes(tmp, info.ModTime(), info.ModTime())
	}
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		return errors.Join(err, to.Remove(tmp))
	}
	return replace(to, tmp, name)
}
