package install

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/takodeploy/tako/internal/octostache"
)

// Format is the version of the request. A request of a later one is refused: what it
// asks for might be more than this program knows of.
const Format = 1

// maxRequest bounds the request that is read, in bytes.
const maxRequest = 128 << 20

// Kind is what is to be done with a package.
type Kind string

// The kinds.
const (
	Deploy   Kind = "Deploy"
	Transfer Kind = "Transfer"
)

// Request says what to do with a package. It holds secrets.
type Request struct {
	Format  int
	Kind    Kind
	Package Package
	Set     Set
	Folder  Folder
	Keep    Keep
	// Force installs the package though it is installed already, whatever the step says.
	Force bool `json:",omitempty"`
	// Action and Machine are the names by which output variables are called; Machine is
	// "" where the step runs for no target.
	Action, Machine string
	// Properties are those of the step's action as they were written: what they refer to
	// may come from a script that runs meanwhile.
	Properties map[string]string
	// Variables are those that the step sees, as they were written.
	Variables []octostache.Pair
}

// Package is the package that the workspace has.
type Package struct {
	ID, Version string
	FileName    string // "Acme.Web.1.2.0.zip": its extension tells the format
	SHA256      string // of its bytes, lower-case hex
	File        string // its path below the workspace
}

// Set is what the installations of a journal have in common: ids, "" where there is none.
type Set struct {
	Space, Project, Step, Environment, Tenant, Machine string
}

// Folder has the names that the path of an installation is made of; Space and Tenant
// are left out where they are "".
type Folder struct {
	Space, Tenant, Environment string
}

// Keep says which earlier installations stay: those of the last Days days, or the last
// Items. Both 0 keep all.
type Keep struct {
	Days  int `json:",omitempty"`
	Items int `json:",omitempty"`
}

// readRequest reads a request that was sent along with the script.
func readRequest(name string) (*Request, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxRequest+1))
	if err != nil {
		return nil, fmt.Errorf("read the request: %w", err)
	}
	if len(b) > maxRequest {
		return nil, fmt.Errorf("the request has more than %d bytes", maxRequest)
	}
	r := new(Request)
	if err := json.Unmarshal(b, r); err != nil {
		// The decoder's message may quote a secret.
		return nil, fmt.Errorf("the request %s cannot be read as JSON", name)
	}
	return r, r.check()
}

func (r *Request) check() error {
	switch {
	case r.Format > Format:
		return fmt.Errorf("the server asks for more than this agent knows (format %d, known is %d); upgrade the agent of this machine", r.Format, Format)
	case r.Kind != Deploy && r.Kind != Transfer:
		return fmt.Errorf("the server asks to %q a package, which this agent does not know; upgrade the agent of this machine", r.Kind)
	case r.Package.ID == "" || r.Package.Version == "":
		return fmt.Errorf("the request names no package")
	case r.Package.FileName == "" || strings.ContainsAny(r.Package.FileName, "/\\\x00") || r.Package.FileName == "." || r.Package.FileName == "..":
		return fmt.Errorf("the package's file name %q must be a plain name", r.Package.FileName)
	case r.Keep.Days < 0 || r.Keep.Items < 0:
		return fmt.Errorf("the request keeps installations of %d days or %d of them; neither can be negative", r.Keep.Days, r.Keep.Items)
	}
	return nil
}
