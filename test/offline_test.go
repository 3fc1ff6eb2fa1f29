package test

import (
	"archive/zip"
	"bytes"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/octopus"
)

// TestOfflineBundle deploys a package to an offline drop, downloads the bundle, and runs
// the one script inside: the package is installed by the program in the bundle, as an
// agent would have done. The server, which is not needed for it, has ended by then.
func TestOfflineBundle(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			p := apptest.NewProcess(t, dialect)
			p.Start()
			m := newModel(t, p.Client)
			p.Upload(t, space+"/packages/raw", "Acme.Web.1.2.0.zip", archive(t, map[string]string{"greeting.txt": "#{Greeting} from #{Octopus.Machine.Name}", "PostDeploy.sh": "echo installed in $PWD"}))
			secret, password, there := "tuna-salad", "correct horse", filepath.Join(apptest.ShortDir(t), "there")
			m.variables(t, octopus.Variable{Name: "Greeting", Value: &secret, Type: octopus.VariableSensitive, IsSensitive: true})
			install := onTargets("Web", "web", "")
			install.Actions[0].ActionType = octopus.ActionPackage
			install.Actions[0].Packages = octopus.List[octopus.PackageReference]{{PackageID: "Acme.Web", FeedID: "feeds-builtin", AcquisitionLocation: "Server"}}
			install.Actions[0].Properties = octopus.Properties{
				octopus.PropEnabledFeatures: octopus.Plain("Octopus.Features.SubstituteInFiles"), "Octopus.Action.SubstituteInFiles.TargetFiles": octopus.Plain("*.txt"),
			}
			m.process(t, install)
			drop := octopus.Endpoint{
				CommunicationStyle: octopus.StyleOfflineDrop, Destination: &octopus.DropDestination{DestinationType: octopus.DropArtifact},
				SensitiveVariablesEncryptionPassword: &octopus.Sensitive{HasValue: true, NewValue: &password},
				ApplicationsDirectory:                filepath.Join(there, "apps"), WorkingDirectory: filepath.Join(there, "work"),
			}
			target := m.target(t, "Vault 7", drop)
			if read := string(p.Must(t, http.MethodGet, space+"/machines/"+target.ID, nil, nil).Body); strings.Contains(read, password) {
				t.Error("the password is served")
			}
			_, version := m.release(t, nil)
			task := wait(t, p.Client, m.deploy(t, version, m.Dev), 4*time.Minute)
			raw := string(p.Must(t, http.MethodGet, "/api/tasks/"+task.ID+"/raw", nil, nil).Body)
			if task.State != octopus.TaskSuccess {
				t.Fatalf("%s: %s\n%s", task.State, task.ErrorMessage, raw)
			}
			found := apptest.Get[octopus.Page[octopus.Artifact]](t, p.Client, space+"/artifacts?regarding="+task.ID)
			if len(found.Items) != 1 || found.Items[0].Filename != "Web shop.Dev.Vault 7."+version+".zip" {
				t.Fatalf("artifacts %+v", found.Items)
			}
			bundle := p.Must(t, http.MethodGet, space+"/artifacts/"+found.Items[0].ID+"/content", nil, nil).Body
			p.Kill()
			dir := t.TempDir()
			scripts := extract(t, bundle, dir)
			if len(scripts) != 1 {
				t.Fatalf("scripts %q", scripts)
			}
			run := exec.CommandContext(t.Context(), filepath.Join(dir, scripts[0]))
			run.Env = append(os.Environ(), "TAKO_BUNDLE_PASSWORD="+password)
			out, err := run.CombinedOutput()
			if err != nil || !strings.Contains(string(out), "The deployment has succeeded.") || strings.Contains(string(out), secret) {
				t.Fatalf("%v\n%s", err, out)
			}
			installed, err := os.ReadFile(filepath.Join(there, "apps", "Dev", "Acme.Web", "1.2.0", "greeting.txt"))
			if err != nil || string(installed) != secret+" from Vault 7" {
				t.Errorf("installed %q, %v\n%s", installed, err, out)
			}
			run = exec.CommandContext(t.Context(), filepath.Join(dir, scripts[0]))
			if out, err := run.CombinedOutput(); err == nil || !strings.Contains(string(out), "the bundle is encrypted; give its password with --password-file or in TAKO_BUNDLE_PASSWORD") {
				t.Errorf("without a password: %v\n%s", err, out)
			}
		})
	}
}

// extract unpacks an archive and returns the scripts at its top.
func extract(t *testing.T, archive []byte, dir string) (scripts []string) {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(archive), int64(len(archive)))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range z.File {
		to := filepath.Join(dir, filepath.FromSlash(f.Name))
		if filepath.Ext(f.Name) == ".sh" {
			scripts = append(scripts, f.Name)
		}
		in, err := f.Open()
		if err == nil {
			err = os.MkdirAll(filepath.Dir(to), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, f.Mode().Perm())
		if err != nil {
			t.Fatal(err)
		}
		if _, err = io.Copy(out, in); err == nil {
			err = out.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return scripts
}
