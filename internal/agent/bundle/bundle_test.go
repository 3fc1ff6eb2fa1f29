package bundle

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/agent"
)

func TestPlain(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]string{
		"Web": "Web", `a/b\c:d`: "a_b_c_d", "..": "_", ".": "_", "": "_", " x ": "x", "a\nb": "a_b", "Größe 2": "Größe 2",
	} {
		if got := Plain(name); got != want {
			t.Errorf("%q is %q, want %q", name, got, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		got := Plain(rapid.String().Draw(t, "name"))
		if got == "" || len(got) > maxName || got != filepath.Base(got) || !filepath.IsLocal(got) || !utf8.ValidString(got) {
			t.Fatalf("%q", got)
		}
	})
}

// written makes a bundle of one step in a folder, and returns its manifest.
func written(t *testing.T, info Info, password string) (dir, manifest string) {
	t.Helper()
	dir = t.TempDir()
	sink, err := Folder(dir)
	if err != nil {
		t.Fatal(err)
	}
	w, err := NewWriter(sink, info, password)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Program("linux", "amd64", strings.NewReader("program")); err != nil {
		t.Fatal(err)
	}
	if err := w.Step("Say", agent.StartRequest{Body: "echo s3cret"}, []string{"s3cret"}); err != nil {
		t.Fatal(err)
	}
	script, err := w.Close()
	if err != nil || script != info.Name()+".sh" {
		t.Fatal(script, err)
	}
	return dir, filepath.Join(dir, info.Name()+manifestSuffix)
}

// TestEncryption opens a step with its password only, as itself only, and unchanged only.
func TestEncryption(t *testing.T) {
	t.Parallel()
	e, key, err := newEncryption("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	sealed := seal(key, "Variables/one", []byte("clear"))
	if _, err := e.open("wrong"); !errors.Is(err, ErrPassword) {
		t.Errorf("a wrong password: %v", err)
	}
	again, err := e.open("correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if text, err := unseal(again, "Variables/one", sealed); err != nil || string(text) != "clear" {
		t.Errorf("%q, %v", text, err)
	}
	if _, err := unseal(again, "Variables/two", sealed); err == nil {
		t.Error("it passes for another file")
	}
	for i := range sealed {
		other := bytes.Clone(sealed)
		other[i] ^= 1
		if _, err := unseal(again, "Variables/one", other); err == nil {
			t.Errorf("byte %d is changed, and nobody sees", i)
		}
	}
	if _, err := unseal(again, "Variables/one", sealed[:5]); err == nil {
		t.Error("a piece of it is taken")
	}
	greedy := *e
	greedy.Memory = maxMemory + 1
	if _, err := greedy.open("correct horse"); err == nil || errors.Is(err, ErrPassword) {
		t.Errorf("too much memory: %v", err)
	}
}

// TestRefused runs nothing of what is damaged or not meant for this program.
func TestRefused(t *testing.T) {
	t.Parallel()
	info := Info{Deployment: "Deployments-1", MachineID: "Machines-1", Machine: "Vault", ProjectID: "Projects-1", Project: "Shop", Environment: "Test"}
	for name, c := range map[string]struct {
		harm func(dir string, manifest []byte) ([]byte, error)
		want string
	}{
		"a later format": {func(_ string, m []byte) ([]byte, error) {
			return bytes.Replace(m, []byte(`"Format": 1`), []byte(`"Format": 2`), 1), nil
		}, "has the format 2, and this program knows up to 1"},
		"a way out": {func(_ string, m []byte) ([]byte, error) {
			return bytes.Replace(m, []byte(`"Agent/tako`), []byte(`"../Agent/tako`), 1), nil
		}, "which is no path below the bundle"},
		"no mark": {func(_ string, m []byte) ([]byte, error) {
			return bytes.Replace(m, []byte(workspaceMark), []byte("/"), 1), nil
		}, "does not say what stands for the workspace"},
		"no manifest at all": {func(string, []byte) ([]byte, error) { return []byte("{"), nil }, "is damaged"},
		"a missing file": {func(dir string, m []byte) ([]byte, error) {
			return m, os.Remove(filepath.Join(dir, "Agent", "tako-agent-linux-amd64"))
		}, "is not complete: Agent/tako-agent-linux-amd64 is missing"},
		"a longer file": {func(dir string, m []byte) ([]byte, error) {
			return m, os.WriteFile(filepath.Join(dir, "Agent", "tako-agent-linux-amd64"), []byte("program and more"), 0o600)
		}, "is damaged: Agent/tako-agent-linux-amd64"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, manifest := written(t, info, "")
			body, err := os.ReadFile(manifest)
			if err == nil {
				body, err = c.harm(dir, body)
			}
			if err == nil {
				err = os.WriteFile(manifest, body, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			home := filepath.Join(t.TempDir(), "home")
			if err := Run(t.Context(), Options{Manifest: manifest, Working: home, Out: io.Discard, Err: io.Discard}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if _, err := os.Stat(home); err == nil {
				t.Error("something was done")
			}
		})
	}
	_, manifest := written(t, info, "")
	for _, o := range []Options{{Working: "relative"}, {Working: `/it's`}, {Working: "/x", Applications: `C:\Apps`}} {
		o.Manifest, o.Out, o.Err = manifest, io.Discard, io.Discard
		if err := Run(t.Context(), o); err == nil || !strings.Contains(err.Error(), "absolute path") {
			t.Errorf("%+v: %v", o, err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := Run(ctx, Options{Manifest: manifest, Working: "/nowhere", Out: io.Discard, Err: io.Discard}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
}

// TestForget takes the bundles of earlier deployments out of a folder, and no others.
func TestForget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	sink, err := Folder(dir)
	if err != nil {
		t.Fatal(err)
	}
	info := func(deployment, machine, project string) Info {
		return Info{Deployment: deployment, MachineID: "Machines-" + machine, Machine: machine, ProjectID: "Projects-" + project, Project: project}
	}
	for _, i := range []Info{info("Deployments-1", "A", "B.C"), info("Deployments-2", "A.B", "C"), info("Deployments-3", "A", "B.C")} {
		w, err := NewWriter(sink, i, "")
		if err == nil {
			err = w.Step("Say", agent.StartRequest{Body: "echo"}, nil)
		}
		if err == nil {
			_, err = w.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "other.manifest.json"), []byte("[]"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Forget(dir, info("Deployments-3", "A", "B.C")); err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, pattern := range []string{"*", "Variables/*"} {
		found, err := filepath.Glob(filepath.Join(dir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range found {
			left = append(left, filepath.Base(f))
		}
	}
	want := "A.B.C.Deployments-2.manifest.json A.B.C.Deployments-2.sh A.B.C.Deployments-3.manifest.json A.B.C.Deployments-3.sh Variables other.manifest.json A.B.C.Deployments-2.01.Say.variables.json A.B.C.Deployments-3.01.Say.variables.json"
	if got := strings.Join(left, " "); got != want {
		t.Errorf("left %s", got)
	}
}

// TestZIP keeps what may be executed executable, and refuses a package that is not itself.
func TestZIP(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	w, err := NewWriter(ZIP(archive), Info{Deployment: "Deployments-1", Machine: "it's", Project: "Shop"}, "")
	if err != nil {
		t.Fatal(err)
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader("content")), nil }
	const sum = "ed7002b439e9ac845f22357d822bac1444730fbdb6016d3ec9432297b9ec9f73"
	if err := w.Package("a.tar.gz", strings.Repeat("0", 64), open); err == nil {
		t.Error("a package with another hash is taken")
	}
	if err := w.Package("Acme.Web.1.2.0.tar.gz", sum, open); err != nil {
		t.Fatal(err)
	}
	if err := w.Package("Acme.Web.1.2.0.tar.gz", sum, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Step("Web", agent.StartRequest{Prepare: agent.Prepare{Packages: []agent.Package{{Name: "Other", SHA256: strings.Repeat("1", 64)}}}}, nil); err == nil {
		t.Error("a step has a package that is not there")
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := archive.Close(); err != nil {
		t.Fatal(err)
	}
	z, err := zip.NewReader(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatal(err)
	}
	modes := map[string]os.FileMode{}
	for _, f := range z.File {
		modes[f.Name] = f.Mode()
	}
	if modes["it's.Shop.Deployments-1.sh"] != 0o755 || modes["Packages/Acme.Web.1.2.0_"+sum[:16]+".tar.gz"] != 0o644 {
		t.Errorf("%v", modes)
	}
}
