package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/octostache"
)

// Keys of the custom installation directory.
const (
	keyCustomDirectory = "Octopus.Action.Package.CustomInstallationDirectory"
	keyPurge           = "Octopus.Action.Package.CustomInstallationDirectoryShouldBePurgedBeforeDeployment"
	keyPurgeExclusions = "Octopus.Action.Package.CustomInstallationDirectoryPurgeExclusions"
)

// customDirectory is where a package is copied to when its files are as they should be.
type customDirectory struct {
	dir   string // absolute, "" for none
	purge bool
	keep  []agent.Glob // of what a purge leaves
}

// readCustomDirectory reads the step's custom directory.
func (d *deployment) readCustomDirectory() error {
	d.copyTo = customDirectory{}
	if !d.feature(featureCustomDirectory) {
		return nil
	}
	dir, err := d.directory(keyCustomDirectory)
	if err != nil || dir == "" {
		return err
	}
	if within(dir, d.Applications) || within(d.Applications, dir) {
		return fmt.Errorf("The custom installation directory '%s' and the home of applications, '%s', are one in the other; choose another directory.", dir, d.Applications) //nolint:staticcheck // a sentence for people
	}
	d.copyTo.dir = dir
	if d.copyTo.purge, err = d.flag(keyPurge, false); err != nil {
		return err
	}
	text, err := d.text(keyPurgeExclusions)
	if err != nil {
		return err
	}
	for _, pattern := range splitList(text, "\r\n;") {
		g, err := agent.ParseGlob(pattern)
		if err != nil {
			return fmt.Errorf("%s: %w", keyPurgeExclusions, err)
		}
		d.copyTo.keep = append(d.copyTo.keep, g)
	}
	if d.copyTo.purge && (strings.Count(dir, string(filepath.Separator)) < 2 || within(filepath.Dir(d.Journals), dir)) {
		return fmt.Errorf("The custom installation directory '%s' is to be purged, which would remove more than an application; choose a directory of its own.", dir) //nolint:staticcheck // a sentence for people
	}
	return nil
}

// directory reads a property that is an absolute path; "" is none.
func (d *deployment) directory(key string) (string, error) {
	raw := strings.TrimSpace(d.req.Properties[key])
	if raw == "" {
		return "", nil
	}
	r := d.vars.Evaluate(raw)
	switch dir := strings.TrimSpace(r.Text); {
	case r.Err != nil:
		return "", fmt.Errorf("%s cannot be evaluated: %w", key, r.Err)
	case len(r.Missing) > 0:
		return "", fmt.Errorf("%s is '%s', in which '%s' has no value.", key, dir, strings.Join(r.Missing, "', '")) //nolint:staticcheck // a sentence for people
	case !filepath.IsAbs(dir) || strings.ContainsRune(dir, 0):
		return "", fmt.Errorf("%s is '%s'; it must be an absolute path.", key, dir) //nolint:staticcheck // a sentence for people
	default:
		return filepath.Clean(dir), nil
	}
}

// within reports whether a path is another one, or below it.
func within(dir, above string) bool {
	rel, err := filepath.Rel(above, dir)
	return err == nil && filepath.IsLocal(rel)
}

// copyToCustomDirectory copies the files to the directory that the step names, where
// what comes after finds them.
func (d *deployment) copyToCustomDirectory(ctx context.Context) error {
	if err := d.readCustomDirectory(); err != nil || d.copyTo.dir == "" {
		return err // a script may have changed it
	}
	dir := d.copyTo.dir
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return onDisk(dir, err)
	}
	to, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer to.Close() //nolint:errcheck // a directory handle
	if d.copyTo.purge {
		d.out.verbose("Purging '%s'.", dir)
		if _, err := purge(ctx, to, ".", d.copyTo.keep); err != nil {
			return fmt.Errorf("purge %s: %w", dir, err)
		}
	}
	if err := failpoint.Hit("install-purged"); err != nil {
		return err
	}
	n, err := copyTree(ctx, d.root, to)
	if err != nil {
		return onDisk(dir, fmt.Errorf("copy to %s: %w", dir, err))
	}
	if err := syncDisk(dir); err != nil {
		return onDisk(dir, err)
	}
	d.out.verbose("Copied %d files to '%s'.", n, dir)
	d.entry.Custom = dir
	d.vars = d.vars.With(octostache.Pair{Name: keyCustomDirectory, Value: dir})
	d.installedIn(dir)
	return nil
}

// purge removes what is in a directory, but for what the patterns match and the
// directories that lead to it. empty tells that nothing is left.
func purge(ctx context.Context, root *os.Root, dir string, keep []agent.Glob) (empty bool, err error) {
	if ctx.Err() != nil {
		return false, context.Cause(ctx)
	}
	f, err := root.Open(dir)
	if err != nil {
		return false, err
	}
	entries, err := f.ReadDir(-1)
	if err = errors.Join(err, f.Close()); err != nil {
		return false, err
	}
	empty = true
	for _, e := range entries {
		name := path.Join(dir, e.Name())
		if matches(keep, name) {
			empty = false
			continue
		}
		gone := true
		if e.IsDir() {
			if gone, err = purge(ctx, root, name, keep); err != nil {
				return false, err
			}
		}
		if !gone {
			empty = false
		} else if err := root.Remove(name); err != nil {
			return false, err
		}
	}
	return empty, nil
}

func matches(globs []agent.Glob, name string) bool {
	for _, g := range globs {
		if g.Match(name) {
			return true
		}
	}
	return false
}

// copyTree copies all that is in a directory into another one, over what is there. A
// file changes from one moment to the next: no reader sees a half one.
func copyTree(ctx context.Context, from, to *os.Root) (files int, err error) {
	buf := make([]byte, 256<<10)
	err = fs.WalkDir(from.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case name == ".":
			return sweep(to, name)
		case e.IsDir():
			err := to.Mkdir(name, 0o755)
			if info, statErr := to.Stat(name); errors.Is(err, fs.ErrExist) && statErr == nil && info.IsDir() {
				return sweep(to, name)
			}
			return err
		case e.Type() == fs.ModeSymlink:
			files++
			return copyLink(from, to, name)
		case e.Type().IsRegular():
			files++
			return copyFile(from, to, name, name, buf)
		}
		return nil // a script has made a pipe or a socket; it belongs to its process
	})
	return files, err
}

func copyLink(from, to *os.Root, name string) error {
	target, err := from.Readlink(name)
	if err != nil {
		return err
	}
	tmp := temporary(name)
	if err := to.Symlink(target, tmp); err != nil {
		return err
	}
	return replace(to, tmp, name)
}

// copyFile copies a file with its mode and time, whole or not at all.
func copyFile(from, to *os.Root, source, name string, buf []byte) (err error) {
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
	out, err := to.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, info.Mode().Perm()|0o200)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(out, in, buf) // in the kernel, where it can
	if err = errors.Join(err, out.Close()); err == nil {
		err = to.Chmod(tmp, info.Mode().Perm())
	}
	if err == nil {
		err = to.Chtimes(tmp, info.ModTime(), info.ModTime())
	}
	if err != nil {
		return errors.Join(err, to.Remove(tmp))
	}
	return replace(to, tmp, name)
}

// temporaryPrefix begins the names of files that are being copied.
const temporaryPrefix = ".tako-copy-"

func temporary(name string) string {
	return path.Join(path.Dir(name), temporaryPrefix+uuid.NewString())
}

// staleAfter is how old a half copy must be to be nobody's any more.
const staleAfter = time.Hour

// sweep removes what copies that were cut short have left in a directory.
func sweep(root *os.Root, dir string) error {
	f, err := root.Open(dir)
	if err != nil {
		return err
	}
	entries, err := f.ReadDir(-1)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), temporaryPrefix) || e.IsDir() {
			continue
		}
		name := path.Join(dir, e.Name())
		if info, err := root.Lstat(name); err != nil || time.Since(info.ModTime()) < staleAfter {
			continue
		}
		if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// replace puts a new file in the place of what is there.
func replace(to *os.Root, tmp, name string) error {
	if err := to.Rename(tmp, name); err != nil {
		return errors.Join(err, to.Remove(tmp))
	}
	return nil
}
