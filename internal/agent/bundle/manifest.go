package bundle

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/agent"
)

// Format is the version of the manifest and of what it lists. Others are refused.
const Format = 2

// Suffixes of a bundle's own files.
const (
	manifestSuffix = ".manifest.json"
	scriptSuffix   = ".sh"
)

// Folders of a bundle.
const (
	packagesDir  = "Packages"
	variablesDir = "Variables"
	agentDir     = "Agent"
)

// Bounds of what is read from a bundle.
const (
	maxManifest = 16 << 20
	// maxStep bounds a step: its files are base64 in it, and its secrets beside them.
	maxStep = 2*agent.MaxRequest + maxManifest
)

// Info says what a bundle deploys, in names for people. The ids tell bundles apart.
type Info struct {
	Deployment   string // "Deployments-7"
	MachineID    string
	Machine      string
	ProjectID    string
	Project      string
	Environment  string
	Tenant       string `json:",omitempty"`
	Release      string `json:",omitempty"`
	Server       string `json:",omitempty"` // its version
	Created      time.Time
	Applications string `json:",omitempty"` // the directory that packages are installed to
	Working      string `json:",omitempty"` // the directory of journals and logs
}

// Name is what the bundle's own files begin with. No two machines of a deployment have
// the same.
func (i Info) Name() string {
	return distinct(i.Machine, i.MachineID, maxName) + "." + Plain(i.Project) + "." + Plain(i.Deployment)
}

// ArchiveName is the name of an archive of the bundle, in names for people. No two
// machines of a deployment have the same.
func (i Info) ArchiveName() string {
	parts := []string{plain(i.Project, maxArchivePart), plain(i.Environment, maxArchivePart)}
	if i.Tenant != "" {
		parts = append(parts, plain(i.Tenant, maxArchivePart))
	}
	parts = append(parts, distinct(i.Machine, i.MachineID, maxArchivePart))
	if i.Release != "" {
		parts = append(parts, plain(i.Release, maxArchivePart))
	}
	return strings.Join(parts, ".") + ".zip"
}

// distinct is a plain name with the id behind it where others may have the same: where
// it was changed, and where it looks as if it had been.
func distinct(name, id string, most int) string {
	got := plain(name, most)
	if got == name && !strings.Contains(name, idMark) {
		return got
	}
	return got + idMark + Plain(id)
}

// idMark is between a name and the id behind it.
const idMark = "~"

// Plain is a name as one of a file: what some file system would not take is '_'.
func Plain(name string) string { return plain(name, maxName) }

// plain is Plain for another number of bytes.
func plain(name string, most int) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || strings.ContainsRune(`/\:*?"<>|`, r) {
			return '_'
		}
		return r
	}, name)
	if name = strings.Trim(name, " "); name == "" || strings.Trim(name, ".") == "" {
		return "_"
	}
	for len(name) > most { // in characters, not in the middle of one
		runes := []rune(name)
		name = string(runes[:len(runes)-1])
	}
	return name
}

// Bounds of one part of a file's name, in bytes: all together have 255.
const (
	maxName        = 60
	maxArchivePart = 45
)

// Manifest is the list of everything in a bundle.
type Manifest struct {
	Format int
	Info   Info
	// Workspace stands in the steps for the directory that they run in.
	Workspace string
	// Encryption is how the steps are encrypted, nil when they are not.
	Encryption *Encryption `json:",omitempty"`
	Steps      []Step
	Packages   []File `json:",omitempty"`
	Programs   []File
}

// Step is one step of the deployment.
type Step struct {
	Name string
	File
}

// File is a file of the bundle.
type File struct {
	Path   string // below the bundle's folder, with '/'
	Size   int64
	SHA256 string // of its bytes, lower-case hex
}

// content is what the file of a step has. It holds secrets.
type content struct {
	Request agent.StartRequest
	// Secrets are texts that must not be shown.
	Secrets []string `json:",omitempty"`
}

// readManifest reads the manifest of a bundle and checks that it can be run.
func readManifest(root *os.Root, name string) (*Manifest, error) {
	data, err := readFile(root, name, maxManifest)
	if err != nil {
		return nil, fmt.Errorf("read the manifest: %w", err)
	}
	m := new(Manifest)
	if err := json.Unmarshal(data, m); err != nil {
		return nil, fmt.Errorf("the manifest %s is damaged: %w", name, err)
	}
	if m.Format != Format {
		return nil, fmt.Errorf("the bundle has the format %d, and this program knows %d; run it by the script inside it", m.Format, Format)
	}
	for _, f := range m.files() {
		if !fs.ValidPath(f.Path) || f.Path == "." || path.Clean(f.Path) != f.Path {
			return nil, fmt.Errorf("the manifest %s is damaged: it lists %q, which is no path below the bundle", name, f.Path)
		}
	}
	if len(m.Workspace) < len(workspaceMark) || !strings.HasPrefix(m.Workspace, workspaceMark) {
		return nil, fmt.Errorf("the manifest %s is damaged: it does not say what stands for the workspace", name)
	}
	return m, nil
}

// digest is the SHA-256 of all that the manifest says, but for the check that has it.
func (m *Manifest) digest() (string, error) {
	clear := *m
	if m.Encryption != nil {
		e := *m.Encryption
		e.Check = nil
		clear.Encryption = &e
	}
	data, err := json.Marshal(clear)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:]), nil
}

// files are all that the manifest lists.
func (m *Manifest) files() []File {
	all := append(append([]File(nil), m.Packages...), m.Programs...)
	for _, s := range m.Steps {
		all = append(all, s.File)
	}
	return all
}
