//go:build linux

package orchestrator_test

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"flag"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/agent/bundle"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/orchestrator"
	"github.com/takodeploy/tako/internal/targets/program"
	"github.com/takodeploy/tako/octopus"
)

// offline has the scenario's drops. Their bundles get a program that has the test binary
// do its work, which is much smaller than that.
func offline(dir string) *orchestrator.Offline {
	return &orchestrator.Offline{
		Endpoint: func(_ context.Context, machine string) (octopus.Endpoint, error) {
			sc, err := readScenario(dir)
			e, ok := sc.Drops[machine]
			if err == nil && !ok {
				err = fault.Missing("deployment target", machine)
			}
			return e, err
		},
		Programs: program.NewFinder(filepath.Join(dir, "bundle-program")), Version: "test", Protected: []string{dir},
	}
}

// runBundle is `agent run-bundle` of the test binary.
func runBundle(args []string) error {
	o := bundle.Options{Out: os.Stdout, Err: os.Stderr, Version: "test", Password: func() (string, error) {
		text, ok := os.LookupEnv("TAKO_BUNDLE_PASSWORD")
		if !ok {
			return "", errors.New("no password")
		}
		return text, nil
	}}
	flags := flag.NewFlagSet("run-bundle", flag.ContinueOnError)
	flags.StringVar(&o.Manifest, "manifest", "", "")
	flags.StringVar(&o.Working, "working-directory", "", "")
	if err := flags.Parse(args); err != nil {
		return err
	}
	return bundle.Run(context.Background(), o)
}

// drops makes a deployment's targets offline drops.
func (w *world) drops(e octopus.Endpoint, names ...string) []deploy.Machine {
	w.t.Helper()
	exe, err := os.Executable()
	if err == nil {
		err = os.WriteFile(filepath.Join(w.dir, "bundle-program"), []byte("#!/bin/sh\nexec '"+exe+"' \"$@\"\n"), 0o700)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	e.CommunicationStyle = octopus.StyleOfflineDrop
	out := machines(names...)
	w.sc.Drops = map[string]octopus.Endpoint{}
	for i := range out {
		out[i].Offline = true
		w.sc.Drops[out[i].ID] = e
	}
	return out
}

func unzip(t *testing.T, archive, dir string) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader([]byte(archive)), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		to := filepath.Join(dir, filepath.FromSlash(f.Name))
		in, err := f.Open()
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		var body []byte
		if err == nil {
			body, err = io.ReadAll(in)
		}
		if err == nil {
			err = os.WriteFile(to, body, f.Mode().Perm())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// carryOut runs the script of a bundle.
func carryOut(t *testing.T, script, password string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "sh", append([]string{script}, args...)...)
	cmd.Env = append(os.Environ(), "TAKO_BUNDLE_PASSWORD="+password)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func onDrop(s *octopus.Step) {
	onTargets(s)
	delete(s.Actions[0].Properties, octopus.PropRunOnServer)
}

// TestOfflineDrop: a deployment to an offline drop runs nothing there and makes a bundle,
// which deploys the package when somebody runs the script inside. Without the password
// nothing sensitive is to be found in it, and it does not run.
func TestOfflineDrop(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		w.push("Acme.Web 1.2.0", map[string]string{"conf.txt": "#{Octopus.Machine.Name}: #{Secret}", "PostDeploy.sh": `echo "installed $(cat conf.txt)"`})
		w.sc.Vars = []plainVariable{{Name: "Secret", Value: "hunter22", Sensitive: true}, {Name: "Octopus.Project.Name", Value: "Shop"}, {Name: "Octopus.Environment.Name", Value: "Test"}, {Name: "Octopus.Release.Number", Value: "1.2.0"}}
		password := "correct horse"
		there := filepath.Join(t.TempDir(), "the machine")
		targets := w.drops(octopus.Endpoint{
			SensitiveVariablesEncryptionPassword: &octopus.Sensitive{HasValue: true, NewValue: &password},
			ApplicationsDirectory:                filepath.Join(there, "apps"), WorkingDirectory: filepath.Join(there, "#{Octopus.Environment.Name}"),
		}, "vault")
		w.serve("a")
		ran := filepath.Join(t.TempDir(), "ran")
		id := w.queuePlan(deploy.Input{Plan: deploy.Plan{ProjectID: "Projects-1"}, Machines: targets, Process: []octopus.Step{
			step("Here", "echo here", func(*octopus.Step) {}),
			packageStep("Web", octopus.ActionPackage, onDrop, property(octopus.PropEnabledFeatures, "Octopus.Features.SubstituteInFiles"), property("Octopus.Action.SubstituteInFiles.TargetFiles", "*.txt")),
			step("After", `echo "secret $(get_octopusvariable Secret) of $(get_octopusvariable Octopus.Machine.Name)"; echo ran >> '`+ran+`'`, onDrop),
			step("Behalf", "echo behalf", onTargets),
		}})
		w.ends(id, octopus.TaskSuccess)
		log := strings.Join(w.log(id), "\n")
		for _, want := range []string{
			"Info here", "Info The step goes into the bundle of vault.",
			"Warning The step runs on a worker on behalf of vault, which is an offline drop: a bundle has no workers, so the step is left out.",
			"Highlight The bundle of vault is the artifact Shop.Test.vault.1.2.0.zip.",
		} {
			if !strings.Contains(log, want) {
				t.Errorf("%q is not in\n%s", want, log)
			}
		}
		if _, err := os.Stat(ran); err == nil {
			t.Fatal("a step of the bundle has run on the server")
		}
		archive := w.artifacts(id)["Shop.Test.vault.1.2.0.zip"]
		dir := t.TempDir()
		unzip(t, archive, dir)
		script := filepath.Join(dir, "vault.Shop.Deployments-1.sh")
		_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			if body, err := os.ReadFile(path); err != nil || bytes.Contains(body, []byte("hunter22")) || bytes.Contains(body, []byte("get_octopusvariable Secret")) {
				t.Errorf("%s has a secret, or what is made with one: %v", path, err)
			}
			return nil
		})
		if out, err := carryOut(t, script, "wrong"); err == nil || !strings.Contains(out, "the password is not the one that the bundle was made with") {
			t.Errorf("with the wrong password: %v\n%s", err, out)
		}
		if _, err := os.Stat(there); err == nil {
			t.Error("something was done with the wrong password")
		}
		out, err := carryOut(t, script, password)
		if err != nil || strings.Contains(out, "hunter22") {
			t.Fatalf("%v\n%s", err, out)
		}
		for _, want := range []string{"Step 1 of 2: Web", "installed vault: ********", "Step 2 of 2: After", "secret ******** of vault", "The deployment has succeeded."} {
			if !strings.Contains(out, want) {
				t.Errorf("%q is not in\n%s", want, out)
			}
		}
		installed, err := os.ReadFile(filepath.Join(there, "apps", "Test", "Acme.Web", "1.2.0", "conf.txt"))
		if err != nil || string(installed) != "vault: hunter22" {
			t.Errorf("installed %q, %v", installed, err)
		}
		// What is damaged is not run.
		packages, err := filepath.Glob(filepath.Join(dir, "Packages", "*"))
		if err != nil || len(packages) != 1 {
			t.Fatal(packages, err)
		}
		if err := os.WriteFile(packages[0], []byte("other"), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := carryOut(t, script, password); err == nil || !strings.Contains(out, "the bundle is damaged: Packages/") {
			t.Errorf("with another package: %v\n%s", err, out)
		}
		if body, err := os.ReadFile(ran); err != nil || string(body) != "ran\n" {
			t.Errorf("the script ran %q, %v", body, err)
		}
	})
}

// TestOfflineDropFolder: bundles in a drop folder lie side by side, a later one of the
// same target takes the place of the earlier one, and a step that fails is the last.
// Where a secret would be written unencrypted, or the folder cannot be, nothing is made.
func TestOfflineDropFolder(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		folder := t.TempDir()
		w.sc.Vars = []plainVariable{{Name: "Octopus.Project.Name", Value: "Shop: a/b"}, {Name: "Octopus.Environment.Name", Value: "Test"}, {Name: "Octopus.Release.Number", Value: "1.2.0"}, {Name: "Drops", Value: folder}}
		targets := w.drops(octopus.Endpoint{Destination: &octopus.DropDestination{DestinationType: octopus.DropFileSystem, DropFolderPath: "#{Drops}"}}, "a", "b")
		w.serve("a")
		ran := filepath.Join(t.TempDir(), "ran")
		process := []octopus.Step{step("First", `echo "$(get_octopusvariable Octopus.Machine.Name)" >> '`+ran+`'; fail_step "no luck"`, onDrop), step("Second", "echo second", onDrop)}
		deployTo := func(name string, want octopus.TaskState) []string {
			in := deploy.Input{Plan: deploy.Plan{ProjectID: "Projects-1"}, Machines: targets, Process: process}
			id := w.queuePlan(in)
			w.ends(id, want)
			return w.log(id)
		}
		deployTo("first", octopus.TaskSuccess)
		deployTo("again", octopus.TaskSuccess)
		dir := filepath.Join(folder, "Test", "Shop_ a_b", "1.2.0")
		scripts, err := filepath.Glob(filepath.Join(dir, "*.sh"))
		want := []string{filepath.Join(dir, "a.Shop_ a_b.Deployments-1.sh"), filepath.Join(dir, "b.Shop_ a_b.Deployments-1.sh")}
		if err != nil || !slices.Equal(scripts, want) {
			t.Fatal(scripts, err)
		}
		out, err := carryOut(t, want[1], "", "--working-directory", filepath.Join(t.TempDir(), "work"))
		if err == nil || !strings.Contains(out, "step 1, First: no luck") || strings.Contains(out, "second") {
			t.Errorf("%v\n%s", err, out)
		}
		if body, err := os.ReadFile(ran); err != nil || string(body) != "b\n" {
			t.Errorf("ran for %q, %v", body, err)
		}
		w.sc.Vars = append(w.sc.Vars, plainVariable{Name: "Secret", Value: "hunter22", Sensitive: true})
		if log := strings.Join(deployTo("secret", octopus.TaskFailed), "\n"); !strings.Contains(log, "The step can see the sensitive value Secret, and the offline drop a has no password to encrypt it with") {
			t.Error(log)
		}
		w.sc.Vars = slices.DeleteFunc(w.sc.Vars, func(v plainVariable) bool { return v.Name == "Secret" || v.Name == "Drops" })
		for path, want := range map[string]string{
			"there":                   "The drop folder 'there' of a is no absolute path on the server's host",
			filepath.Join(w.dir, "x"): "among the server's own files",
			"/dev/null/x":             "The bundle of a cannot be written to its drop folder /dev/null/x/Test/",
		} {
			w.sc.Vars = append(w.sc.Vars, plainVariable{Name: "Drops", Value: path})
			if log := strings.Join(deployTo("bad", octopus.TaskFailed), "\n"); !strings.Contains(log, want) {
				t.Errorf("%s: %s", path, log)
			}
			w.sc.Vars = w.sc.Vars[:len(w.sc.Vars)-1]
		}
		// One bundle that cannot be made leaves none of the deployment's.
		half := t.TempDir()
		w.sc.Vars = append(w.sc.Vars, plainVariable{Name: "Drops", Value: half})
		broken := w.sc.Drops[targets[1].ID]
		broken.Destination = &octopus.DropDestination{DestinationType: octopus.DropFileSystem, DropFolderPath: "/dev/null/x"}
		w.sc.Drops[targets[1].ID] = broken
		if log := strings.Join(deployTo("half", octopus.TaskFailed), "\n"); !strings.Contains(log, "The bundle of b cannot be written") || strings.Contains(log, "The bundle of a is complete") {
			t.Error(log)
		}
		programs := 0
		err = filepath.WalkDir(half, func(path string, d os.DirEntry, err error) error {
			switch {
			case err != nil || d.IsDir():
				return err
			case filepath.Base(filepath.Dir(path)) == "Agent":
				programs++
			default:
				t.Errorf("%s is left", path)
			}
			return nil
		})
		if err != nil || programs == 0 {
			t.Errorf("nothing was written for a: %v", err)
		}
	})
}
