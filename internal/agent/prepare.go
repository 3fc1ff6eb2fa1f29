package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"
)

// prepareFiles does in the directory files what p asks for, with the packages that
// lie under their hashes in the directory packages. Doing it again begins anew.
// sent are the names of the script's own files, which packages do not overwrite.
// say gets remarks, warn what a person should know; both lines of the script's log.
func prepareFiles(ctx context.Context, files, packages string, sent []string, p Prepare, say, warn func(string)) error {
	if len(p.Packages) == 0 && len(p.Substitute.Globs) == 0 {
		return nil
	}
	root, err := os.OpenRoot(files)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // a directory handle
	taken := map[string]bool{bodyName: true}
	for _, name := range sent {
		taken[path.Clean(name)] = true
	}
	for _, pkg := range p.Packages {
		if err := preparePackage(ctx, root, packages, taken, pkg, say, warn); err != nil {
			return fmt.Errorf("package %s (%s): %w", pkg.Name, pkg.FileName, err)
		}
	}
	warnings, err := substitute(ctx, root, p.Substitute)
	for _, w := range warnings {
		warn(w)
	}
	return err
}

func preparePackage(ctx context.Context, root *os.Root, packages string, taken map[string]bool, pkg Package, say, warn func(string)) error {
	start := time.Now()
	f, err := os.Open(filepath.Join(packages, pkg.SHA256))
	if err != nil {
		return err
	}
	defer f.Close()
	u := &unpacker{root: root, dir: path.Join(".", pkg.Dir), taken: taken, limits: defaultArchiveLimits()}
	if pkg.Extract {
		if err := u.unpack(ctx, f, pkg.FileName); err != nil {
			return err
		}
	} else if err := u.copy(ctx, f, pkg.FileName, pkg.Link); err != nil {
		return err
	}
	for i, name := range u.skipped {
		if i == maxShownTokens {
			warn(fmt.Sprintf("... and %d more.", len(u.skipped)-i))
			break
		}
		warn(fmt.Sprintf("The file '%s' of the package %s was left out: the script has a file of that name.", name, pkg.Name))
	}
	done := "Copied"
	if pkg.Extract {
		done = fmt.Sprintf("Extracted %d entries of", u.entries)
	}
	say(fmt.Sprintf("%s %s to '%s' in %v.", done, pkg.FileName, u.dir, time.Since(start).Round(time.Millisecond)))
	return nil
}

// copy puts the package itself into the directory. It is a copy and no link, for the
// script may write to it; unless who asked for it says that nothing does (link).
func (u *unpacker) copy(ctx context.Context, f *os.File, name string, link bool) error {
	to, err := u.next(ctx, name)
	if err != nil || to == "" {
		return err
	}
	if err := u.clear(to); err != nil {
		return err
	}
	if link && os.Link(f.Name(), filepath.Join(u.root.Name(), filepath.FromSlash(to))) == nil {
		return nil // where it cannot be linked, it is copied
	}
	out, err := u.root.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	for err == nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
			break
		}
		_, err = io.CopyN(out, f, 64<<20) // in the kernel, where it can
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return errors.Join(err, out.Close())
}

// warningLines marks a line of standard output as a warning, as Octopus scripts do.
func warningLines(line string) []string {
	return []string{"##octopus[stdout-warning]", strings.ReplaceAll(line, "\n", " "), "##octopus[stdout-default]"}
}
