package install

import (
	"context"
	"errors"
	"os"
	"path/filepath"
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
	if err := os.MkdirAll(dir, 0o755); err != nil {
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
	if err := copyFile(from, to, d.req.Package.File, name, make([]byte, 256<<10)); err != nil {
		return onDisk(dir, err)
	}
	if err := syncDisk(dir); err != nil {
		return onDisk(dir, err)
	}
	d.out.info("The package %s %s was put into '%s'.", d.req.Package.ID, d.req.Package.Version, dir)
	d.tell("Package.DirectoryPath", dir)
	d.tell("Package.FileName", name)
	d.tell("Package.FilePath", filepath.Join(dir, name))
	return nil
}
