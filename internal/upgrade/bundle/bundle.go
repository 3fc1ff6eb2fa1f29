// Package bundle is a release on a stick: one file with the signed feed of a channel and
// the programs of one version, for servers that reach no network.
//
// A bundle is a tar archive. Its first entry is the feed, the others are programs under
// "<version>/<os>-<arch>/tako". Nothing in it but the feed is signed, and nothing else
// needs to be: the feed has the size and the hash of every program.
package bundle

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
)

const (
	feedName    = "feed.json"
	programName = "tako"
)

// block is what an archive is made of.
const block = 512

// maxEntries bounds the entries of a bundle.
const maxEntries = 64

// Program is one program to be put into a bundle.
type Program struct {
	Platform string // "linux/amd64"
	Path     string // of the file
	Size     int64
}

// Write writes a bundle. The same feed and programs give the same bytes.
func Write(w io.Writer, feed []byte, version string, programs []Program) error {
	if len(programs) == 0 || len(programs) >= maxEntries {
		return fmt.Errorf("a bundle has 1 to %d programs, not %d", maxEntries-1, len(programs))
	}
	t := tar.NewWriter(w)
	if err := header(t, feedName, int64(len(feed)), 0o644); err != nil {
		return err
	}
	if _, err := t.Write(feed); err != nil {
		return fmt.Errorf("write the feed into the bundle: %w", err)
	}
	for _, p := range programs {
		if err := add(t, entry(version, p.Platform), p); err != nil {
			return fmt.Errorf("write %s into the bundle: %w", p.Path, err)
		}
	}
	if err := t.Close(); err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	return nil
}

func entry(version, platform string) string {
	return path.Join(version, strings.Replace(platform, "/", "-", 1), programName)
}

// header has nothing of the machine that writes it.
func header(t *tar.Writer, name string, size, mode int64) error {
	err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: mode, ModTime: time.Unix(0, 0).UTC(), Format: tar.FormatPAX})
	if err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	return nil
}

func add(t *tar.Writer, name string, p Program) error {
	f, err := os.Open(p.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := header(t, name, p.Size, 0o755); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}

// Bundle is one that was opened.
type Bundle struct {
	f *os.File
	// Feed is the signed feed as it is there; nothing of it was checked.
	Feed []byte
	// Version is that of the programs, as the bundle says.
	Version  string
	programs map[string]program
}

type program struct{ offset, size int64 }

// ErrMalformed says that a file is no bundle.
var ErrMalformed = errors.New("it is no bundle of a release, or was cut short")

// Open opens a bundle, for the caller to close. An error that is ErrMalformed is one of
// the file's content.
func Open(name string) (_ *Bundle, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("open the bundle: %w", err)
	}
	b := &Bundle{f: f, programs: map[string]program{}}
	if err := b.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("open the bundle %s: %w", name, err), f.Close())
	}
	return b, nil
}

func (b *Bundle) read() error {
	t := tar.NewReader(b.f)
	var last int64 // end of what was read
	for n := 0; ; n++ {
		h, err := t.Next()
		if errors.Is(err, io.EOF) && n > 1 {
			// Without the two blocks at its end it may lack whole programs.
			if at, err := b.f.Seek(0, io.SeekCurrent); err != nil || at < last+2*block {
				return ErrMalformed
			}
			return nil
		}
		if err != nil || n == maxEntries || h.Typeflag != tar.TypeReg {
			return ErrMalformed
		}
		if n == 0 {
			if h.Name != feedName || h.Size > releasefeed.MaxDocument {
				return ErrMalformed
			}
			if b.Feed, err = io.ReadAll(t); err != nil {
				return ErrMalformed
			}
			continue
		}
		version, rest, ok := strings.Cut(h.Name, "/")
		dir, base, ok2 := strings.Cut(rest, "/")
		system, arch, ok3 := strings.Cut(dir, "-")
		if !ok || !ok2 || !ok3 || base != programName || h.Size > releasefeed.MaxArtifact || b.Version != "" && b.Version != version {
			return ErrMalformed
		}
		at, err := b.f.Seek(0, io.SeekCurrent)
		if err != nil {
			return err
		}
		b.Version = version
		b.programs[system+"/"+arch] = program{at, h.Size}
		last = at + (h.Size+block-1)/block*block
	}
}

// Program reads the program of a platform, and tells its size; false when there is none.
func (b *Bundle) Program(platform string) (io.Reader, int64, bool) {
	p, ok := b.programs[platform]
	if !ok {
		return nil, 0, false
	}
	return io.NewSectionReader(b.f, p.offset, p.size), p.size, true
}

// Platforms are those that it has programs for, sorted.
func (b *Bundle) Platforms() []string { return slices.Sorted(maps.Keys(b.programs)) }

// Close closes the file.
func (b *Bundle) Close() error { return b.f.Close() }
