package steps_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/octostache"
	"github.com/takodeploy/tako/internal/steps"
	"github.com/takodeploy/tako/octopus"
)

func input(props map[string]string, packages ...steps.Package) steps.Input {
	p := octopus.Properties{}
	for k, v := range props {
		p[k] = octopus.PropertyValue{Value: v}
	}
	return steps.Input{
		Action: octopus.Action{ActionType: octopus.ActionScript, Properties: p}, Packages: packages, Workspace: "/home/Work/t/files",
		Vars: octostache.NewVariables(octostache.Options{}, octostache.Pair{Name: "Lang", Value: "Bash"}, octostache.Pair{Name: "Loop", Value: "#{Loop}"}, octostache.Pair{Name: "N", Value: "2"}),
	}
}

func TestPrepareRefuses(t *testing.T) {
	t.Parallel()
	primary := steps.Package{PackageID: "Acme", Version: "1.0", FileName: "Acme.1.0.zip", SHA256: "x", Extract: true}
	for _, c := range []struct {
		name string
		in   steps.Input
		want string
	}{
		{"another type", func() steps.Input {
			in := input(nil)
			in.Action.ActionType = "Octopus.Juggle"
			return in
		}(), "cannot run steps of type Octopus.Juggle"},
		{"another language", input(map[string]string{octopus.PropScriptSyntax: "FSharp"}), "written in FSharp; use Bash, Python or PowerShell"},
		{"a container", func() steps.Input {
			in := input(nil)
			in.Action.Container = &octopus.ActionContainer{Image: "ubuntu"}
			return in
		}(), "cannot run scripts in a container"},
		{"files from Git", func() steps.Input {
			in := input(nil)
			in.Action.GitDependencies = octopus.List[octopus.GitDependency]{{RepositoryURI: "https://example.com/x.git"}}
			return in
		}(), "cannot fetch files from Git"},
		{"another source", input(map[string]string{octopus.PropScriptSource: "GitRepository"}), "from the source GitRepository"},
		{"a property that cannot be evaluated", input(map[string]string{octopus.PropScriptBody: "#{Loop}"}), octopus.PropScriptBody},
		{"no file", input(map[string]string{octopus.PropScriptSource: "Package"}, primary), "give the path of a file"},
		{"a file outside", input(map[string]string{octopus.PropScriptSource: "Package", octopus.PropScriptFileName: `..\x.sh`}, primary), "'../x.sh'"},
		{"a file outside, hidden", input(map[string]string{octopus.PropScriptSource: "Package", octopus.PropScriptFileName: "a/../../x.sh"}, primary), "'../x.sh'"},
		{"an absolute file", input(map[string]string{octopus.PropScriptSource: "Package", octopus.PropScriptFileName: "/etc/passwd"}, primary), "'/etc/passwd'"},
		{"the directory itself", input(map[string]string{octopus.PropScriptSource: "Package", octopus.PropScriptFileName: "."}, primary), "'.'"},
		{"no package", input(map[string]string{octopus.PropScriptSource: "Package", octopus.PropScriptFileName: "x.sh"}), "selects none"},
		{"only a package that is not unpacked", input(map[string]string{octopus.PropScriptSource: "Package", octopus.PropScriptFileName: "x.sh"}, steps.Package{FileName: "a.zip"}), "selects none"},
		{"a time that is none", input(map[string]string{octopus.PropExecutionTimeout: "soon"}), "must be a number of minutes"},
		{"a time with more behind it", input(map[string]string{octopus.PropExecutionTimeout: "5 hours"}), "must be a number of minutes"},
		{"less than no time", input(map[string]string{octopus.PropExecutionTimeout: "-1"}), "must be a number of minutes"},
		{"too much time", input(map[string]string{octopus.PropExecutionTimeout: "1e9"}), "must be a number of minutes"},
		{"no number", input(map[string]string{octopus.PropExecutionTimeout: "NaN"}), "must be a number of minutes"},
	} {
		_, err := steps.Prepare(c.in)
		var public *steps.Error
		if !errors.As(err, &public) || !strings.Contains(public.Message, c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestPrepare(t *testing.T) {
	t.Parallel()
	secret := "s3cret"
	in := input(map[string]string{
		octopus.PropScriptSyntax: "#{Lang}", octopus.PropScriptBody: "echo one\r\necho #{N}\r\n", octopus.PropExecutionTimeout: " 1.5 ",
		octopus.PropFailOnErrorOutput: "True", octopus.PropEnabledFeatures: "Octopus.Features.Other, octopus.features.substituteinfiles",
		"Octopus.Action.SubstituteInFiles.TargetFiles": "a\\b.txt\r\n*.json; #{Lang}.yml\n\n",
	},
		steps.Package{PackageID: "Acme", Version: "1.0", FileName: "Acme.1.0.zip", SHA256: "x", Extract: true},
		steps.Package{Name: `tools/x\y:z`, PackageID: "Tools", Version: "2", FileName: "Tools.2.tgz", SHA256: "y"},
	)
	in.Step.Properties = octopus.Properties{octopus.PropScriptParameters: {Sensitive: &octopus.Sensitive{HasValue: true, NewValue: &secret}}}
	work, err := steps.Prepare(in)
	if err != nil {
		t.Fatal(err)
	}
	s := work.Script
	if s.Timeout != 90*time.Second || !s.FailOnErrorOutput {
		t.Errorf("time limit %v, fail on error output %t", s.Timeout, s.FailOnErrorOutput)
	}
	if !strings.Contains(s.Body, "set -- s3cret\n") {
		t.Errorf("body %q", s.Body)
	}
	files := map[string]string{}
	for _, f := range s.Files {
		files[f.Name] = string(f.Content)
	}
	if got := files[".tako/script.sh"]; got != "echo one\necho 2\n\n" {
		t.Errorf("script %q", got)
	}
	var values map[string]string
	if err := json.Unmarshal([]byte(files[".tako/variables.json"]), &values); err != nil {
		t.Fatal(err)
	}
	if values["N"] != "2" || values["Lang"] != "Bash" {
		t.Errorf("variables %v", values)
	}
	want := agent.Prepare{
		Packages: []agent.Package{
			{Name: "Acme 1.0", SHA256: "x", FileName: "Acme.1.0.zip", Extract: true},
			{Name: "Tools 2", SHA256: "y", FileName: "Tools.2.tgz", Dir: "tools_x_y_z"},
		},
		Substitute: agent.Substitution{Globs: []string{"a/b.txt", "*.json", "Bash.yml"}, Variables: ".tako/variables.json"},
	}
	if diff := cmp.Diff(want, s.Prepare); diff != "" {
		t.Error(diff)
	}
}

// A script from a package is run where it lies, by its own path.
func TestPackageScript(t *testing.T) {
	t.Parallel()
	primary := steps.Package{PackageID: "Acme", Version: "1.0", FileName: "Acme.1.0.zip", SHA256: "x", Extract: true}
	for syntax, want := range map[string]string{
		"Bash": `. './deploy/it'\''s here.sh'`, "Python": `run.py 'deploy/it'\''s here.sh'`, "PowerShell": `run.ps1 'deploy/it'\''s here.sh'`,
	} {
		work, err := steps.Prepare(input(map[string]string{
			octopus.PropScriptSyntax: syntax, octopus.PropScriptSource: "Package", octopus.PropScriptFileName: ` deploy\x\..\it's here.sh `,
		}, primary))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(work.Script.Body, want) {
			t.Errorf("%s: body %q", syntax, work.Script.Body)
		}
	}
}

// TestModulesByLanguage: PowerShell has its modules loaded, and no others are sent.
func TestModulesByLanguage(t *testing.T) {
	t.Parallel()
	in := input(map[string]string{octopus.PropScriptSyntax: "PowerShell", octopus.PropScriptBody: "Get-It"})
	in.Vars = octostache.NewVariables(octostache.Options{},
		octostache.Pair{Name: "octopus.script.module[Shell]", Value: "function Get-It { '#{What}' }"}, octostache.Pair{Name: "What", Value: "it"},
		octostache.Pair{Name: "Octopus.Script.Module[../é a_1]", Value: "2"}, octostache.Pair{Name: "Octopus.Script.Module.Language[../é a_1]", Value: "powershell"},
		octostache.Pair{Name: "Octopus.Script.Module[!]", Value: "nameless"}, octostache.Pair{Name: "Octopus.Script.Module[]", Value: "nameless"},
		octostache.Pair{Name: "Octopus.Script.Module[Bash]", Value: "x"}, octostache.Pair{Name: "Octopus.Script.Module.Language[Bash]", Value: "Bash"},
	)
	work, err := steps.Prepare(in)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range work.Script.Files {
		if strings.HasSuffix(f.Name, ".psm1") || strings.HasSuffix(f.Name, ".sh") {
			got[f.Name] = string(f.Content)
		}
	}
	want := map[string]string{".tako/modules/Shell.psm1": "function Get-It { 'it' }\n", ".tako/modules/éa1.psm1": "2\n", ".tako/modules/éa_1.psm1": "2\n"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestBodyOfLanguage: some steps keep a script for each language.
func TestBodyOfLanguage(t *testing.T) {
	t.Parallel()
	for syntax, want := range map[string]string{"": "echo bash\n", "Bash": "echo bash\n", "Python": "print('python')\n"} {
		work, err := steps.Prepare(input(map[string]string{
			octopus.PropScriptSyntax: syntax, octopus.PropScriptBody + "[Bash]": "echo bash", octopus.PropScriptBody + "[Python]": "print('python')",
		}))
		if err != nil {
			t.Fatal(err)
		}
		found := ""
		for _, f := range work.Script.Files {
			if f.Name == ".tako/script.sh" || f.Name == ".tako/script.py" {
				found = string(f.Content)
			}
		}
		if found != want {
			t.Errorf("the script in %q is %q", syntax, found)
		}
	}
}
