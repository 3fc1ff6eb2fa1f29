package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/agent/versions"
	"github.com/takodeploy/tako/internal/fault"
)

// Config is what a Service is opened with. Only Home is needed.
type Config struct {
	Home    string // directory of all the agent's files, on a local disk; made when missing
	Version string // of the program, for Hello and the scripts' environment
	// Exe is the program that runners are started from; it must call Internal.
	// "" is the running program itself, also when an upgrade has replaced its file.
	Exe          string
	Instance     string        // TentacleInstanceName of the scripts; "" is "Tako"
	Applications string        // TentacleApplications of the scripts; "" is Applications below Home
	Log          *slog.Logger  // nil discards
	PackageLimit int64         // bytes of the package cache; 0 is DefaultPackageLimit
	LockWait     time.Duration // how long Open waits for another agent to let go of Home
	NoCgroup     bool          // never put scripts into cgroups of their own
	// Idle is how long RunBuiltin goes on without a call and without a script that runs;
	// then it ends by itself, for whoever needs it can start it again. 0 is for ever.
	Idle time.Duration
	// Versions are the programs that servers have brought; nil for an agent that they
	// cannot upgrade.
	Versions *versions.Store
}

// HandOver is a LockWait for agents that follow another one in its home: the time that
// one may need to end.
const HandOver = 10 * time.Second

// ErrHomeBusy says that another agent holds the home directory.
var ErrHomeBusy = errors.New("another agent works in this home directory")

// ErrUnsupported says that scripts cannot be run on this operating system.
var ErrUnsupported = errors.New("running scripts is not supported on this platform yet")

// Limits of a request beyond its size.
const (
	maxArguments = 1000
	maxEnv       = 10_000
	maxPackages  = 100
	maxGlobs     = 1000
	maxTimeout   = 100 * 365 * 24 * time.Hour
)

// check reports what in the request breaks a rule.
func (r StartRequest) check() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fault.InvalidField(field, format, args...))
	}
	if err := r.Ticket.Check(); err != nil {
		errs = append(errs, err)
	}
	size := len(r.Body)
	if len(r.Files) > MaxFiles {
		bad("Files", "The request has %d files; %d is the most.", len(r.Files), MaxFiles)
	}
	for _, f := range r.Files {
		size += len(f.Content)
		if !localName(f.Name) {
			bad("Files", "The file name %q must be relative and stay inside the workspace.", f.Name)
		}
	}
	if len(r.Arguments) > maxArguments {
		bad("Arguments", "The request has %d arguments; %d is the most.", len(r.Arguments), maxArguments)
	}
	for i, a := range r.Arguments {
		size += len(a)
		if strings.ContainsRune(a, 0) {
			bad("Arguments", "Argument %d holds a NUL character.", i+1)
		}
	}
	if len(r.Env) > maxEnv {
		bad("Env", "The request has %d environment variables; %d is the most.", len(r.Env), maxEnv)
	}
	for k, v := range r.Env {
		size += len(k) + len(v)
		if k == "" || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(v, 0) {
			bad("Env", "The environment variable %q cannot be set: no name, or '=' or NUL in it.", k)
		}
	}
	if size > MaxRequest {
		bad("Files", "The request has %d bytes; %d is the most. Send large files with PutPackage.", size, MaxRequest)
	}
	if r.Isolation != NoIsolation && r.Isolation != FullIsolation {
		bad("Isolation", "The isolation level %d must be 0 (none) or 1 (full).", int(r.Isolation))
	}
	if len(r.MutexName) > 1000 {
		bad("MutexName", "The mutex name has %d bytes; 1000 is the most.", len(r.MutexName))
	}
	if r.MutexTimeout < 0 || r.MutexTimeout > maxTimeout {
		bad("MutexTimeout", "The mutex timeout %v must be positive, or 0 for none.", r.MutexTimeout)
	}
	if r.Timeout < 0 || r.Timeout > maxTimeout {
		bad("Timeout", "The timeout %v must be positive, or 0 for none.", r.Timeout)
	}
	return errors.Join(append(errs, r.Prepare.check())...)
}

func (p Prepare) check() error {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, fault.InvalidField(field, format, args...))
	}
	if len(p.Packages) > maxPackages {
		bad("Packages", "The request has %d packages; %d is the most.", len(p.Packages), maxPackages)
	}
	for _, pkg := range p.Packages {
		if err := checkSHA256(pkg.SHA256); err != nil {
			errs = append(errs, err)
		}
		if pkg.Dir != "" && !localName(pkg.Dir) {
			bad("Dir", "The directory %q of the package %s must be relative and stay inside the workspace.", pkg.Dir, pkg.Name)
		}
		if path.Base(pkg.FileName) != pkg.FileName || !localName(pkg.FileName) {
			bad("FileName", "The file name %q of the package %s must be a plain name.", pkg.FileName, pkg.Name)
		}
	}
	if len(p.Substitute.Globs) > maxGlobs {
		bad("Globs", "The request has %d globs; %d is the most.", len(p.Substitute.Globs), maxGlobs)
	}
	if v := p.Substitute.Variables; v != "" && !localName(v) {
		bad("Variables", "The file name %q must be relative and stay inside the workspace.", v)
	}
	return errors.Join(errs...)
}

// localName reports whether a name with '/' stays inside a directory.
func localName(name string) bool {
	return len(name) <= 4096 && !strings.ContainsAny(name, "\\\x00") && filepath.IsLocal(filepath.FromSlash(name))
}

// hash names the request's content: SHA-256 of its JSON, without Wait and with the
// ticket as it is compared.
func (r StartRequest) hash() (string, error) {
	r.Wait = 0
	r.Ticket = Ticket(strings.ToLower(string(r.Ticket)))
	b, err := json.Marshal(r)
	if err != nil {
		return "", fmt.Errorf("hash request: %w", err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}
