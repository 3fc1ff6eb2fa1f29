package agent

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"compress/bzip2"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
)

// archiveLimits bound what unpacking one archive may cost.
type archiveLimits struct {
	entries int
	bytes   int64 // of all files together
	ratio   int64 // unpacked to packed bytes, once a hundredth of bytes is reached
}

func defaultArchiveLimits() archiveLimits {
	return archiveLimits{entries: 500_000, bytes: 64 << 30, ratio: 1000}
}

// Reasons for which an archive is not unpacked.
var (
	errNotArchive  = errors.New("its name does not end like an archive's: .zip, .nupkg, .jar, .war, .ear, .tar, .tar.gz, .tgz or .tar.bz2")
	errTooLarge    = errors.New("it is larger unpacked than is allowed")
	errTooMany     = errors.New("it has more entries than are allowed")
	errBomb        = errors.New("it grows suspiciously when it is unpacked")
	errOutside     = errors.New("it would leave its directory")
	errThroughLink = errors.New("its directory is a symbolic link")
	errKind        = errors.New("it is neither file, directory nor link")
)

// unpacker unpacks one archive into a directory of root. Every name goes through
// root, so that nothing lands outside whatever the archive says; names, links and
// sizes are checked besides, so that what is unpacked can be walked safely too.
type unpacker struct {
	root   *os.Root
	dir    string          // "." or a local path with '/'
	taken  map[string]bool // names in root that stay as they are
	limits archiveLimits
	packed int64 // bytes of the archive

	entries int
	bytes   int64
	skipped []string // names that were taken
}

// unpack unpacks the archive f of that name. What is there already is overwritten:
// to unpack twice is to unpack once.
func (u *unpacker) unpack(ctx context.Context, f *os.File, name string) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	u.packed = info.Size()
	if err := u.root.MkdirAll(u.dir, 0o755); err != nil {
		return err
	}
	lower := strings.ToLower(name)
	has := func(suffixes ...string) bool {
		for _, s := range suffixes {
			if strings.HasSuffix(lower, s) {
				return true
			}
		}
		return false
	}
	switch {
	case has(".nupkg"):
		return u.zip(ctx, f, nupkgName)
	case has(".zip", ".jar", ".war", ".ear"):
		return u.zip(ctx, f, func(name string) (string, bool) { return name, true })
	case has(".tar.gz", ".tgz"):
		z, err := gzip.NewReader(bufio.NewReaderSize(f, 256<<10))
		if err != nil {
			return err
		}
		return u.tar(ctx, z)
	case has(".tar.bz2", ".tbz2", ".tbz"):
		return u.tar(ctx, bzip2.NewReader(bufio.NewReaderSize(f, 256<<10)))
	case has(".tar"):
		return u.tar(ctx, bufio.NewReaderSize(f, 256<<10))
	}
	return errNotArchive
}

// nupkgName is the file's name of an entry of a NuGet package, whose names are
// URI-escaped, and false for the parts that are the container's own.
func nupkgName(name string) (string, bool) {
	if plain, err := url.PathUnescape(name); err == nil {
		name = plain
	}
	lower := strings.ToLower(strings.ReplaceAll(name, `\`, "/"))
	own := lower == "[content_types].xml" || strings.HasPrefix(lower, "_rels/") || strings.HasPrefix(lower, "package/services/metadata/")
	return name, !own
}

func (u *unpacker) zip(ctx context.Context, f *os.File, rename func(string) (string, bool)) error {
	z, err := zip.NewReader(f, u.packed)
	if err != nil {
		return err
	}
	z.RegisterDecompressor(zip.Deflate, func(r io.Reader) io.ReadCloser { return flate.NewReader(r) })
	for _, e := range z.File {
		name, wanted := rename(e.Name)
		if !wanted {
			continue
		}
		if err := u.zipEntry(ctx, e, name); err != nil {
			return fmt.Errorf("entry %q: %w", e.Name, err)
		}
	}
	return nil
}

func (u *unpacker) zipEntry(ctx context.Context, e *zip.File, name string) error {
	mode := e.Mode()
	if strings.HasSuffix(name, "/") || strings.HasSuffix(name, `\`) {
		mode |= fs.ModeDir
	}
	to, err := u.next(ctx, name)
	if err != nil || to == "" {
		return err
	}
	if mode.IsDir() {
		return u.mkdir(to)
	}
	r, err := e.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	switch mode.Type() {
	case 0:
		return u.file(ctx, to, r, mode, e.Modified)
	case fs.ModeSymlink:
		target, err := io.ReadAll(io.LimitReader(r, 4097))
		if err != nil {
			return err
		}
		return u.symlink(to, string(target))
	default:
		return errKind
	}
}

func (u *unpacker) tar(ctx context.Context, r io.Reader) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := u.tarEntry(ctx, t, h); err != nil {
			return fmt.Errorf("entry %q: %w", h.Name, err)
		}
	}
}

func (u *unpacker) tarEntry(ctx context.Context, t *tar.Reader, h *tar.Header) error {
	if h.Typeflag == tar.TypeXGlobalHeader {
		return nil
	}
	to, err := u.next(ctx, h.Name)
	if err != nil || to == "" {
		return err
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return u.mkdir(to)
	case tar.TypeReg, tar.TypeGNUSparse:
		return u.file(ctx, to, t, h.FileInfo().Mode(), h.ModTime)
	case tar.TypeSymlink:
		return u.symlink(to, h.Linkname)
	case tar.TypeLink:
		return u.hardlink(to, h.Linkname)
	}
	return errKind
}

// next counts an entry and returns where it goes, "" when nowhere.
func (u *unpacker) next(ctx context.Context, name string) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", context.Cause(ctx)
	}
	if u.entries++; u.entries > u.limits.entries {
		return "", fmt.Errorf("%w (%d)", errTooMany, u.limits.entries)
	}
	to, err := u.place(name)
	if err != nil {
		return "", err
	}
	if u.taken[to] {
		u.skipped = append(u.skipped, to)
		return "", nil
	}
	if to == path.Clean(u.dir) {
		return "", nil // the directory itself
	}
	return to, nil
}

// place is where an entry's name lies in root.
func (u *unpacker) place(name string) (string, error) {
	clean := path.Clean(strings.ReplaceAll(name, `\`, "/"))
	if name == "" || strings.ContainsRune(name, 0) || len(name) > 4096 || !filepath.IsLocal(filepath.FromSlash(clean)) {
		return "", errOutside
	}
	return path.Join(u.dir, clean), nil
}

// mkdir makes a directory and those above it. None of them may be a link.
func (u *unpacker) mkdir(dir string) error {
	info, err := u.root.Lstat(dir)
	switch {
	case err == nil && info.IsDir():
		return u.parents(dir)
	case err == nil && info.Mode().Type() == fs.ModeSymlink:
		return errThroughLink
	case err == nil:
		return fmt.Errorf("%w: a file has the name of the directory", errKind)
	}
	if err := u.parents(dir); err != nil {
		return err
	}
	return u.root.Mkdir(dir, 0o755)
}

// parents makes the directories above a path.
func (u *unpacker) parents(p string) error {
	if up := path.Dir(p); up != "." {
		return u.mkdir(up)
	}
	return nil
}

// clear makes room for something other than a directory.
func (u *unpacker) clear(to string) error {
	if err := u.parents(to); err != nil {
		return err
	}
	info, err := u.root.Lstat(to)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && info.IsDir() {
		return fmt.Errorf("%w: a directory has its name", errKind)
	}
	if err == nil {
		err = u.root.Remove(to)
	}
	return err
}

func (u *unpacker) file(ctx context.Context, to string, r io.Reader, mode fs.FileMode, modified time.Time) error {
	if err := u.clear(to); err != nil {
		return err
	}
	perm := mode.Perm() | 0o600
	f, err := u.root.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, perm)
	if err != nil {
		return err
	}
	// The wrapper hides f's ReadFrom, which would only come back to this reader.
	_, err = io.CopyBuffer(struct{ io.Writer }{f}, &meter{ctx: ctx, r: r, u: u}, make([]byte, 128<<10))
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := u.root.Chmod(to, perm); err != nil { // umask aside
		return err
	}
	if modified.IsZero() || modified.Unix() < 0 {
		return nil
	}
	return u.root.Chtimes(to, modified, modified)
}

// meter counts the bytes that come out of the archive.
type meter struct {
	ctx context.Context //nolint:containedctx // it lives as long as one call
	r   io.Reader
	u   *unpacker
}

func (m *meter) Read(p []byte) (int, error) {
	if m.ctx.Err() != nil {
		return 0, context.Cause(m.ctx)
	}
	n, err := m.r.Read(p)
	u := m.u
	u.bytes += int64(n)
	switch {
	case u.bytes > u.limits.bytes:
		return n, fmt.Errorf("%w (%d bytes)", errTooLarge, u.limits.bytes)
	case u.bytes > u.limits.bytes/100 && u.bytes/max(u.packed, 1) > u.limits.ratio:
		return n, fmt.Errorf("%w (%d times)", errBomb, u.limits.ratio)
	}
	return n, err
}

// symlink makes a link that leads to something in the archive's directory. Its
// target may go up only at its beginning: a ".." after a name could go up from
// wherever that name leads.
func (u *unpacker) symlink(to, target string) error {
	if target == "" || len(target) > 4096 || strings.ContainsRune(target, 0) || path.IsAbs(target) || strings.Contains(target, `\`) {
		return fmt.Errorf("link to %q: %w", target, errOutside)
	}
	rest := target
	for strings.HasPrefix(rest, "../") {
		rest = strings.TrimLeft(rest[3:], "/")
	}
	if rest != ".." && strings.Contains("/"+rest+"/", "/../") {
		return fmt.Errorf("link to %q: %w", target, errOutside)
	}
	rel, err := filepath.Rel(filepath.FromSlash(u.dir), filepath.FromSlash(path.Join(path.Dir(to), target)))
	if err != nil || !filepath.IsLocal(rel) {
		return fmt.Errorf("link to %q: %w", target, errOutside)
	}
	if err := u.clear(to); err != nil {
		return err
	}
	return u.root.Symlink(target, to)
}

// hardlink makes a second name of a file that was unpacked before.
func (u *unpacker) hardlink(to, target string) error {
	from, err := u.place(target)
	if err != nil {
		return fmt.Errorf("link to %q: %w", target, err)
	}
	if from == to {
		return nil
	}
	if err := u.clear(to); err != nil {
		return err
	}
	if err := u.parents(from); err != nil {
		return fmt.Errorf("link to %q: %w", target, err)
	}
	info, err := u.root.Lstat(from)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() || u.taken[from] {
		return fmt.Errorf("link to %q: %w", target, errKind)
	}
	return u.root.Link(from, to)
}
