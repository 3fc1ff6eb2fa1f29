package feed

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/version"
)

const (
	// maxNuspec is how large a package's own description may be, in bytes.
	maxNuspec = 1 << 20
	// maxDirectory is how much of a package is read to find its files, in bytes.
	maxDirectory = 16 << 20
	nupkg        = ".nupkg"
)

// Nuspec is what a NuGet package says of itself.
type Nuspec struct {
	ID           string `xml:"metadata>id"`
	Version      string `xml:"metadata>version"`
	Title        string `xml:"metadata>title"`
	Summary      string `xml:"metadata>summary"`
	Description  string `xml:"metadata>description"`
	Authors      string `xml:"metadata>authors"`
	ReleaseNotes string `xml:"metadata>releaseNotes"`
	// Groups are the dependencies by framework, and Dependencies those for all.
	Groups       []NuspecGroup      `xml:"metadata>dependencies>group"`
	Dependencies []NuspecDependency `xml:"metadata>dependencies>dependency"`
	// Text is the whole description, as it is in the package.
	Text []byte `xml:"-"`
}

// NuspecGroup is what a NuGet package depends on for one framework.
type NuspecGroup struct {
	TargetFramework string             `xml:"targetFramework,attr"`
	Dependencies    []NuspecDependency `xml:"dependency"`
}

// NuspecDependency is another package, and the range of its version, "" for any.
type NuspecDependency struct {
	ID      string `xml:"id,attr"`
	Version string `xml:"version,attr"`
}

// PushNuGet is Push for NuGet clients, which name every file package.nupkg: id and
// version are then those that the package's .nuspec tells.
func (r *Repository) PushNuGet(ctx context.Context, space ident.SpaceID, fileName string, content io.Reader, mode Overwrite) (*Package, bool, error) {
	if _, err := parseName(fileName); err == nil {
		return r.Push(ctx, space, fileName, content, mode)
	}
	stored, err := r.keep(ctx, "in the upload", content)
	if err != nil {
		return nil, false, err
	}
	spec, err := r.nuspec(ctx, stored.Hash)
	if err != nil {
		return nil, false, err
	}
	id, text := strings.TrimSpace(spec.ID), strings.TrimSpace(spec.Version)
	n, err := parseName(id + "." + text + nupkg)
	if err != nil {
		return nil, false, err
	}
	if n.id != id {
		return nil, false, fault.InvalidField("file", "The package's .nuspec names the package '%.100s' version '%.100s', which together read as the package '%s' version '%s'; give it an id without a part that is a number.", id, text, n.id, n.version)
	}
	return r.commit(ctx, space, n, stored, mode)
}

// Nuspec reads what a NuGet package says of itself. A package that is none is a
// fault Invalid.
func (r *Repository) Nuspec(ctx context.Context, p *Package) (*Nuspec, error) {
	return r.nuspec(ctx, blob.Hash(p.SHA256))
}

func (r *Repository) nuspec(ctx context.Context, h blob.Hash) (spec *Nuspec, err error) {
	content, size, err := r.blobs.Open(ctx, h)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, content.Close()) }()
	text, err := readNuspec(content, size)
	if err != nil {
		return nil, err
	}
	spec = &Nuspec{Text: text}
	if err := xml.Unmarshal(text, spec); err != nil {
		return nil, fault.InvalidField("file", "The package's .nuspec is no XML: %s.", err)
	}
	return spec, nil
}

// readNuspec finds the one .nuspec at the root of a package.
func readNuspec(content io.ReadSeeker, size int64) ([]byte, error) {
	noPackage := func(why string) error {
		return fault.InvalidField("file", "The file is no NuGet package: %s. Push a .nupkg, or give the file a name such as Acme.Web.1.2.0.zip.", why)
	}
	files := &directory{content: content, left: maxDirectory}
	if err := files.refuseHuge(size); err != nil {
		return nil, noPackage(err.Error())
	}
	archive, err := zip.NewReader(files, size)
	if err != nil {
		return nil, noPackage("it cannot be read as a ZIP file")
	}
	for _, f := range archive.File {
		if !strings.HasSuffix(strings.ToLower(f.Name), ".nuspec") || strings.ContainsAny(f.Name, `/\`) {
			continue
		}
		in, err := f.Open()
		if err != nil {
			return nil, noPackage("its .nuspec cannot be read")
		}
		text, err := io.ReadAll(io.LimitReader(in, maxNuspec+1))
		if err := errors.Join(err, in.Close()); err != nil {
			return nil, noPackage("its .nuspec cannot be read")
		}
		if len(text) > maxNuspec {
			return nil, noPackage(fmt.Sprintf("its .nuspec has more than %d bytes", maxNuspec))
		}
		return text, nil
	}
	return nil, noPackage("it has no .nuspec at its root")
}

// directory reads from a package only so much, as its list of files is held in memory.
type directory struct {
	content io.ReadSeeker
	left    int64
}

// ReadAt is io.ReaderAt, for one goroutine.
func (d *directory) ReadAt(p []byte, at int64) (int, error) {
	if d.left -= int64(len(p)); d.left < 0 {
		return 0, errors.New("too much to read")
	}
	if _, err := d.content.Seek(at, io.SeekStart); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(d.content, p)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}

// refuseHuge refuses archives with 65535 files or more: room for as many as their
// end claims is made before any is read.
func (d *directory) refuseHuge(size int64) error {
	const most = 1<<16 + 22 // the end's record, and the longest comment behind it
	tail := make([]byte, min(size, most))
	if _, err := d.ReadAt(tail, size-int64(len(tail))); err != nil {
		return errors.New("it cannot be read")
	}
	for at := 0; ; {
		i := bytes.Index(tail[at:], []byte("PK\x05\x06"))
		if i < 0 {
			return nil
		}
		if at += i; len(tail)-at < 22 {
			return nil
		}
		if end := tail[at:]; bytes.HasPrefix(end[10:], []byte("\xff\xff")) || bytes.HasPrefix(end[12:], []byte("\xff\xff\xff\xff")) || bytes.HasPrefix(end[16:], []byte("\xff\xff\xff\xff")) {
			return errors.New("it has too many files")
		}
		at += 4
	}
}

// NuGetVersion spells a version as NuGet clients ask for it: three numbers, or
// four when the last is not 0, without metadata, in lower case. What NuGet cannot
// read is "".
func NuGetVersion(text string) string {
	v, err := version.Parse(version.SemVer, text)
	if err != nil {
		return ""
	}
	return strings.ToLower(v.Normalized())
}

// maxVersions is how many versions of a package NuGet clients are told of.
const maxVersions = 5000

// NuGetVersions are the NuGet packages among the versions of a package, the newest
// first, those with the same NuGetVersion once.
func (r *Repository) NuGetVersions(ctx context.Context, tx *db.Tx, space ident.SpaceID, packageID string) ([]*Package, error) {
	var out []*Package
	seen := map[string]bool{}
	err := r.Versions(ctx, tx, space, packageID, func(p *Package) bool {
		if v := NuGetVersion(p.Version); v != "" && !seen[v] && strings.EqualFold(p.Extension, nupkg) {
			seen[v] = true
			out = append(out, p)
		}
		return len(out) < maxVersions
	})
	return out, err
}

// NuGetPackage finds the package that a NuGet client means by a version.
func (r *Repository) NuGetPackage(ctx context.Context, tx *db.Tx, space ident.SpaceID, packageID, text string) (*Package, error) {
	if want := NuGetVersion(text); want != "" {
		all, err := r.NuGetVersions(ctx, tx, space, packageID)
		if err != nil {
			return nil, err
		}
		for _, p := range all {
			if NuGetVersion(p.Version) == want {
				return p, nil
			}
		}
	}
	return nil, fault.New(fault.NotFound, "The NuGet package %.100s version %.100s was not found in the built-in feed; push it first.", packageID, text)
}
