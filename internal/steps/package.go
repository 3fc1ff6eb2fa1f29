package steps

import (
	"encoding/json"
	"path"
	"strings"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/install"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/octopus"
)

// Place says what a unit belongs to: ids, and what its deployment says about packages.
type Place struct {
	SpaceID, ProjectID, EnvironmentID, TenantID, MachineID string
	// Keep is how much of what was deployed before stays on the machine, nil for all.
	Keep *deploy.Keep
	// Redeploy installs packages though they are installed already.
	Redeploy bool
}

// defaultSpace is the space whose name is in no path on a machine.
const defaultSpace = "Spaces-1"

// InstallsPackage reports whether a type of action wants its primary package whole, in
// install.PackageDir: it is for a program of ours, not for a script.
func InstallsPackage(kind octopus.ActionType) bool {
	return kind == octopus.ActionPackage || kind == octopus.ActionTransferPackage
}

// installPackage is an action that deploys a package or transfers it: one script, which
// calls the agent's program on the machine with a request beside it.
func installPackage(in Input) (*Work, error) {
	if c := in.Action.Container; c != nil && (c.Image != "" || c.GitURL != "" || c.Dockerfile != "") {
		return nil, failf("This server cannot deploy packages from a container; take the container image out of the step.")
	}
	req := install.Request{
		Format: install.Format, Kind: install.Deploy, Action: in.Action.Name, Force: in.Place.Redeploy,
		Set: install.Set{
			Space: in.Place.SpaceID, Project: in.Place.ProjectID, Step: in.Action.ID,
			Environment: in.Place.EnvironmentID, Tenant: in.Place.TenantID, Machine: in.Place.MachineID,
		},
		Folder:     install.Folder{Tenant: in.named("Octopus.Deployment.Tenant.Name", in.Place.TenantID), Environment: in.named("Octopus.Environment.Name", in.Place.EnvironmentID)},
		Properties: in.allProperties(),
	}
	if in.Action.ActionType == octopus.ActionTransferPackage {
		req.Kind = install.Transfer
	}
	if in.Place.SpaceID != "" && !strings.EqualFold(in.Place.SpaceID, defaultSpace) {
		req.Folder.Space = in.named("Octopus.Space.Name", in.Place.SpaceID)
	}
	if in.Place.MachineID != "" {
		req.Machine = in.named("Octopus.Machine.Name", in.Place.MachineID)
	}
	if k := in.Place.Keep; k != nil {
		req.Keep = install.Keep{Days: k.Days, Items: k.Items}
	}
	for pair := range in.Vars.All() {
		req.Variables = append(req.Variables, pair)
	}
	s := &Script{Body: install.Command}
	for _, p := range in.Packages {
		if p.Name == "" {
			req.Package = install.Package{ID: p.PackageID, Version: p.Version, FileName: p.FileName, SHA256: p.SHA256, File: path.Join(p.Dir(), p.FileName)}
		}
		one := p.prepare()
		// A transfer runs no scripts, and its program only reads the package. A deployment
		// tells its scripts where the package is, and they may write to it.
		one.Link = p.Name == "" && req.Kind == install.Transfer
		s.Prepare.Packages = append(s.Prepare.Packages, one)
	}
	if req.Package.ID == "" {
		return nil, failf("The step selects no package; choose one in its settings.")
	}
	if err := s.limits(in); err != nil {
		return nil, err
	}
	for _, syntax := range []octopus.ScriptSyntax{octopus.SyntaxBash, octopus.SyntaxPython, octopus.SyntaxPowerShell} {
		s.addModules(in, syntax)
	}
	body, err := json.Marshal(req)
	if err != nil {
		return nil, err
	}
	s.Files = append(s.Files, agent.File{Name: install.RequestFile, Content: body})
	return &Work{Script: s}, nil
}

// named is a variable with the name of something, its id where there is none.
func (in Input) named(variable, id string) string {
	if text, ok := in.Vars.Get(variable); ok && text != "" {
		return text
	}
	return id
}

// allProperties are those of the action, and of its step where the action has none, as
// they were written, secrets in clear.
func (in Input) allProperties() map[string]string {
	all := map[string]string{}
	for _, properties := range []octopus.Properties{in.Step.Properties, in.Action.Properties} {
		for key, v := range properties {
			all[key] = clearText(v)
		}
	}
	return all
}

// prepare is what the agent does with a package before the script.
func (p Package) prepare() agent.Package {
	return agent.Package{Name: p.PackageID + " " + p.Version, SHA256: p.SHA256, FileName: p.FileName, Extract: p.Extract, Dir: p.Dir()}
}
