// Package program finds the programs of ours that are sent to machines on which none
// is installed: the server's own executable where the machine's platform is the
// server's, else an agent's program that lies beside it.
package program

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"

	"github.com/takodeploy/tako/internal/fault"
)

// Platform is an operating system and an architecture, as Go names them.
type Platform struct{ OS, Arch string }

// String is "linux/arm64".
func (p Platform) String() string { return p.OS + "/" + p.Arch }

// ParseUname reads the output of "uname -sm". The error, a fault, says that nothing of
// ours runs there; name tells the machine in it.
func ParseUname(name, uname string) (Platform, error) {
	system, machine, ok := strings.Cut(strings.TrimSpace(uname), " ")
	if !ok {
		return Platform{}, fault.New(fault.Unsupported, "%s does not tell what system it is: uname said %.100q.", name, uname)
	}
	if system != "Linux" {
		return Platform{}, fault.New(fault.Unsupported, "%s runs %.50s %.50s; this version runs scripts on Linux only.", name, system, machine)
	}
	arch := map[string]string{
		"x86_64": "amd64", "amd64": "amd64", "aarch64": "arm64", "arm64": "arm64", "armv6l": "arm", "armv7l": "arm", "armv8l": "arm",
		"i386": "386", "i686": "386", "ppc64le": "ppc64le", "s390x": "s390x", "riscv64": "riscv64", "loongarch64": "loong64",
	}[machine]
	if arch == "" {
		return Platform{}, fault.New(fault.Unsupported, "%s has processors of the kind %.50s, which this version does not know.", name, machine)
	}
	return Platform{OS: "linux", Arch: arch}, nil
}

// Program is a program of ours.
type Program struct {
	Size   int64
	SHA256 string // lower-case hex
	file   *os.File
}

// Open returns its content from the beginning, for one reader. There is nothing to close.
func (p *Program) Open() *io.SectionReader { return io.NewSectionReader(p.file, 0, p.Size) }

// Finder finds programs. It is safe for concurrent use, and keeps what it has found
// open: a file that an upgrade replaces is still what it was.
type Finder struct {
	exe string

	mu    sync.Mutex
	found map[Platform]*Program
}

// NewFinder makes a finder; exe is the server's own executable.
func NewFinder(exe string) *Finder { return &Finder{exe: exe, found: map[Platform]*Program{}} }

// running is the file of the running program, also after an upgrade has put another
// one in its place.
const running = "/proc/self/exe"

// Find returns the program for a platform. An error that is a fault says which file is
// missing.
func (f *Finder) Find(p Platform) (*Program, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if found := f.found[p]; found != nil {
		return found, nil
	}
	for _, path := range f.places(p) {
		found, err := open(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read the agent's program for %s: %w", p, err)
		}
		f.found[p] = found
		return found, nil
	}
	return nil, fault.New(fault.Unsupported, "This server has no agent program for %s: put the file tako-agent-%s-%s of the same version beside the server's program, or into a directory 'agents' there.", p, p.OS, p.Arch)
}

func (f *Finder) places(p Platform) []string {
	if p == (Platform{runtime.GOOS, runtime.GOARCH}) {
		if self, err := os.Executable(); err == nil && self == f.exe {
			return []string{running, f.exe}
		}
		return []string{f.exe}
	}
	name, dir := "tako-agent-"+p.OS+"-"+p.Arch, filepath.Dir(f.exe)
	return []string{filepath.Join(dir, name), filepath.Join(dir, "agents", name)}
}

func open(path string) (*Program, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	sum := sha256.New()
	n, err := io.Copy(sum, file)
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return &Program{Size: n, SHA256: hex.EncodeToString(sum.Sum(nil)), file: file}, nil
}

// Close closes the files.
func (f *Finder) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	var err error
	for _, p := range f.found {
		err = errors.Join(err, p.file.Close())
	}
	clear(f.found)
	return err
}
