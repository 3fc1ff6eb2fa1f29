package bundle

import (
	"bytes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/takodeploy/tako/internal/agent"
)

// workspaceMark begins what stands for a workspace. It looks like a path, so that
// whatever is made of it is one.
const workspaceMark = "/tako-workspace-"

// Sink takes the files of a bundle, each once. Path has '/', perm is 0644 or 0755.
type Sink func(path string, perm fs.FileMode, content io.Reader) error

// Writer makes a bundle. It is not safe for concurrent use.
type Writer struct {
	sink     Sink
	manifest Manifest
	key      cipher.AEAD // nil without a password
	packages map[string]string
	programs map[string]string // paths by platform, "linux-amd64"
	making   string            // which is in the names of what this one makes
}

// NewWriter begins a bundle. A password that is not "" encrypts the steps.
func NewWriter(sink Sink, info Info, password string) (*Writer, error) {
	w := &Writer{sink: sink, packages: map[string]string{}, programs: map[string]string{}, making: strings.ToLower(rand.Text()[:10])}
	w.manifest = Manifest{Format: Format, Info: info, Workspace: workspaceMark + strings.ToLower(rand.Text())}
	if password != "" {
		var err error
		if w.manifest.Encryption, w.key, err = newEncryption(password); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// Workspace is what stands in requests for the directory that their script runs in.
func (w *Writer) Workspace() string { return w.manifest.Workspace }

// Program adds the program that runs the bundle on a platform. Its hash is in its name:
// a bundle that another version of the server makes in the same folder leaves it alone.
func (w *Writer) Program(os, arch, sum string, content io.Reader) error {
	platform := os + "-" + arch
	f, err := w.put(path.Join(agentDir, "tako-agent-"+platform+"_"+sum[:16]), 0o755, content)
	if err == nil && f.SHA256 != sum {
		err = fmt.Errorf("the program for %s is damaged: its SHA-256 is %s, and should be %s", platform, f.SHA256, sum)
	}
	if err != nil {
		return err
	}
	w.programs[platform] = f.Path
	w.manifest.Programs = append(w.manifest.Programs, f)
	return nil
}

// Package adds a package unless it is there; its content is opened only then.
func (w *Writer) Package(fileName, sum string, open func() (io.ReadCloser, error)) error {
	if w.packages[sum] != "" {
		return nil
	}
	content, err := open()
	if err != nil {
		return err
	}
	defer content.Close()
	f, err := w.put(packagePath(fileName, sum), 0o644, content)
	if err == nil && f.SHA256 != sum {
		err = fmt.Errorf("the package %s is damaged: its SHA-256 is %s, and should be %s", fileName, f.SHA256, sum)
	}
	if err != nil {
		return err
	}
	w.packages[sum] = f.Path
	w.manifest.Packages = append(w.manifest.Packages, f)
	return nil
}

// packagePath names a package by its name and content.
func packagePath(fileName, sum string) string {
	ext := path.Ext(fileName)
	if strings.HasSuffix(strings.ToLower(fileName), ".tar"+strings.ToLower(ext)) {
		ext = fileName[len(fileName)-len(".tar"+ext):]
	}
	return path.Join(packagesDir, Plain(strings.TrimSuffix(fileName, ext))+"_"+sum[:16]+Plain(ext))
}

// Step adds the next step. Its packages must have been added, and its ticket is of no
// meaning. Secrets are texts that must not be shown while it runs.
func (w *Writer) Step(name string, req agent.StartRequest, secrets []string) error {
	for _, p := range req.Prepare.Packages {
		if w.packages[p.SHA256] == "" {
			return fmt.Errorf("the step %s uses the package %s, which is not in the bundle", name, p.Name)
		}
	}
	data, err := json.Marshal(content{Request: req, Secrets: secrets})
	if err != nil {
		return err
	}
	at := path.Join(variablesDir, fmt.Sprintf("%s.%02d.%s.%s.variables.json", w.manifest.Info.Name(), len(w.manifest.Steps)+1, Plain(name), w.making))
	if w.key != nil {
		at += ".enc"
		data = seal(w.key, at, data)
	}
	f, err := w.put(at, 0o644, bytes.NewReader(data))
	if err == nil {
		w.manifest.Steps = append(w.manifest.Steps, Step{Name: name, File: f})
	}
	return err
}

// Close ends the bundle with its manifest and its script, the last of all: a folder that
// has the script has the bundle. It returns the script's path.
func (w *Writer) Close() (string, error) {
	if w.key != nil {
		digest, err := w.manifest.digest()
		if err != nil {
			return "", err
		}
		w.manifest.Encryption.bind(w.key, digest)
	}
	data, err := json.MarshalIndent(w.manifest, "", "  ")
	if err != nil {
		return "", err
	}
	name := w.manifest.Info.Name()
	if err := w.sink(name+manifestSuffix, 0o644, bytes.NewReader(append(data, '\n'))); err != nil {
		return "", err
	}
	return name + scriptSuffix, w.sink(name+scriptSuffix, 0o755, strings.NewReader(script(name, w.programs)))
}

// put writes a file and measures it.
func (w *Writer) put(at string, perm fs.FileMode, content io.Reader) (File, error) {
	sum, count := sha256.New(), &counter{}
	if err := w.sink(at, perm, io.TeeReader(content, io.MultiWriter(sum, count))); err != nil {
		return File{}, fmt.Errorf("write %s: %w", at, err)
	}
	return File{Path: at, Size: count.n, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// script is what people run: it finds the program for the machine and has it do the rest.
func script(name string, programs map[string]string) string {
	return `#!/bin/sh
# Carries out a deployment on this machine. Options are shown by --help.
set -u
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd) || exit 1
case "$(uname -sm)" in
"Linux x86_64" | "Linux amd64") platform=linux-amd64 program=` + quote(programs["linux-amd64"]) + ` ;;
"Linux aarch64" | "Linux arm64") platform=linux-arm64 program=` + quote(programs["linux-arm64"]) + ` ;;
*)
	echo "This bundle cannot be run on $(uname -sm); it needs Linux on amd64 or arm64." >&2
	exit 1
	;;
esac
if [ -z "$program" ]; then
	echo "This bundle has no program for $platform: the server that made it has none." >&2
	exit 1
fi
if [ ! -f "$here/$program" ]; then
	echo "The bundle is not complete: $program is missing; copy the whole folder." >&2
	exit 1
fi
program="$here/$program"
[ -x "$program" ] || chmod +x "$program" || exit 1
exec "$program" agent run-bundle --manifest "$here/"` + quote(name+manifestSuffix) + ` "$@"
`
}

func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
