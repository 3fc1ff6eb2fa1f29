package steps_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/install"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/octostache"
	"github.com/takodeploy/tako/internal/steps"
	"github.com/takodeploy/tako/octopus"
)

// TestInstallPackage: the request has everything that the machine needs, as it was
// written, and the packages are where it says.
func TestInstallPackage(t *testing.T) {
	t.Parallel()
	secret := "hunter22"
	in := steps.Input{
		Step: octopus.Step{Properties: octopus.Properties{"Octopus.Action.TargetRoles": {Value: "web"}, "both": {Value: "step"}}},
		Action: octopus.Action{ID: "a", Name: "Web", ActionType: octopus.ActionPackage, Properties: octopus.Properties{
			"both": {Value: "action"}, "Octopus.Action.CustomScripts.Deploy.sh": {Sensitive: &octopus.Sensitive{HasValue: true, NewValue: &secret}},
			"Octopus.Action.Package.CustomInstallationDirectory": {Value: "/srv/#{Late}"}, octopus.PropExecutionTimeout: {Value: "2"},
		}},
		Vars: octostache.NewVariables(octostache.Options{}, []octostache.Pair{
			{Name: "Octopus.Environment.Name", Value: "Test"},
			{Name: "Octopus.Deployment.Tenant.Name", Value: "Big Co"},
			{Name: "Octopus.Machine.Name", Value: "web01"},
			{Name: "Octopus.Space.Name", Value: "Second"},
			{Name: "A", Value: "#{Late}"},
			{Name: "Octopus.Script.Module[Tools]", Value: "x = 1"},
			{Name: "Octopus.Script.Module.Language[Tools]", Value: "Python"},
		}...),
		Packages: []steps.Package{
			{PackageID: "Acme", Version: "1.0", FileName: "Acme.1.0.zip", SHA256: "aa", Into: install.PackageDir},
			{Name: "tools", PackageID: "Tools", Version: "2.0", FileName: "Tools.2.0.zip", SHA256: "bb", Extract: true},
		},
		Workspace: "/agent/Work/x/files",
		Place:     steps.Place{SpaceID: "Spaces-2", ProjectID: "Projects-1", EnvironmentID: "Environments-1", TenantID: "Tenants-1", MachineID: "Machines-1", Keep: &deploy.Keep{Items: 3}, Redeploy: true},
	}
	work, err := steps.Prepare(in)
	if err != nil {
		t.Fatal(err)
	}
	s := work.Script
	if !strings.HasSuffix(s.Body, ` agent deploy-package --request .tako/package.json`+"\n") || s.Timeout.Minutes() != 2 {
		t.Errorf("%+v", s)
	}
	var got install.Request
	names := map[string]bool{}
	for _, f := range s.Files {
		names[f.Name] = true
		if f.Name == install.RequestFile {
			if err := json.Unmarshal(f.Content, &got); err != nil {
				t.Fatal(err)
			}
		}
	}
	if !names["Tools.py"] {
		t.Errorf("the script module is missing among %v", names)
	}
	if len(got.Variables) != in.Vars.Len() {
		t.Errorf("%d variables of %d", len(got.Variables), in.Vars.Len())
	}
	got.Variables = nil
	want := install.Request{
		Format: 1, Kind: install.Deploy, Action: "Web", Machine: "web01", Force: true,
		Package: install.Package{ID: "Acme", Version: "1.0", FileName: "Acme.1.0.zip", SHA256: "aa", File: ".tako/package/Acme.1.0.zip"},
		Set:     install.Set{Space: "Spaces-2", Project: "Projects-1", Step: "a", Environment: "Environments-1", Tenant: "Tenants-1", Machine: "Machines-1"},
		Folder:  install.Folder{Space: "Second", Tenant: "Big Co", Environment: "Test"}, Keep: install.Keep{Items: 3},
		Properties: map[string]string{
			"both": "action", "Octopus.Action.TargetRoles": "web", "Octopus.Action.CustomScripts.Deploy.sh": secret,
			"Octopus.Action.Package.CustomInstallationDirectory": "/srv/#{Late}", octopus.PropExecutionTimeout: "2",
		},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("request (-want +got):\n%s", diff)
	}
	wantPackages := []agent.Package{
		{Name: "Acme 1.0", SHA256: "aa", FileName: "Acme.1.0.zip", Dir: ".tako/package"},
		{Name: "Tools 2.0", SHA256: "bb", FileName: "Tools.2.0.zip", Extract: true, Dir: "tools"},
	}
	if diff := cmp.Diff(wantPackages, s.Prepare.Packages); diff != "" {
		t.Errorf("packages (-want +got):\n%s", diff)
	}

	in.Place = steps.Place{SpaceID: "Spaces-1", EnvironmentID: "Environments-9"}
	in.Vars = octostache.NewVariables(octostache.Options{})
	in.Action.ActionType = octopus.ActionTransferPackage
	if work, err = steps.Prepare(in); err != nil {
		t.Fatal(err)
	}
	got = install.Request{}
	if err := json.Unmarshal(work.Script.Files[len(work.Script.Files)-1].Content, &got); err != nil {
		t.Fatal(err)
	}
	if got.Kind != install.Transfer || got.Folder != (install.Folder{Environment: "Environments-9"}) || got.Machine != "" || got.Keep != (install.Keep{}) {
		t.Errorf("%+v", got)
	}
	// A deployment's scripts may write to their package, a transfer has none.
	wantPackages[0].Link = true
	if diff := cmp.Diff(wantPackages, work.Script.Prepare.Packages); diff != "" {
		t.Errorf("packages of a transfer (-want +got):\n%s", diff)
	}
	for want, change := range map[string]func(*steps.Input){
		"selects no package": func(in *steps.Input) { in.Packages = in.Packages[1:] },
		"container":          func(in *steps.Input) { in.Action.Container = &octopus.ActionContainer{Image: "alpine"} },
	} {
		bad := in
		change(&bad)
		if _, err := steps.Prepare(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
}
