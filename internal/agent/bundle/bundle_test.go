package bundle

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
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

// TestNames: what names are changed to is nobody else's, and no file system's too long.
func TestNames(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 70)
	machines := []string{"Web", "a/b", "a:b", "a_b", long + "1", long + "2", "a_b~Machines-1", "ü" + long}
	names, archives := map[string]bool{}, map[string]bool{}
	for i, m := range machines {
		info := Info{Deployment: "Deployments-123456", MachineID: fmt.Sprintf("Machines-%d", i), Machine: m, Project: long, Environment: long, Tenant: long, Release: long}
		if n := len(info.Name() + ".99." + Plain(long) + ".0123456789.variables.json.enc"); n > 255 || len(info.ArchiveName()) > 255 {
			t.Errorf("%s: names of %d and %d bytes", m, n, len(info.ArchiveName()))
		}
		names[info.Name()], archives[info.ArchiveName()] = true, true
	}
	if len(names) != len(machines) || len(archives) != len(machines) {
		t.Errorf("%d machines have the names %v and %v", len(machines), names, archives)
	}
	info := Info{Deployment: "Deployments-1", MachineID: "Machines-1", Machine: "Web", Project: "Shop", Environment: "Test", Release: "1.2.0"}
	if info.Name() != "Web.Shop.Deployments-1" || info.ArchiveName() != "Shop.Test.Web.1.2.0.zip" {
		t.Errorf("%s, %s", info.Name(), info.ArchiveName())
	}
	info.Machine = "a/b"
	if info.Name() != "a_b~Machines-1.Shop.Deployments-1" || info.ArchiveName() != "Shop.Test.a_b~Machines-1.1.2.0.zip" {
		t.Errorf("%s, %s", info.Name(), info.ArchiveName())
	}
}

// programFile is where written puts it.
func programFile() string { return "tako-agent-linux-amd64_" + sumOf("program")[:16] }

func sumOf(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// folder opens a directory of bundles.
func folder(t *testing.T, dir string, allowed func() error) *Folder {
	t.Helper()
	f, err := OpenFolder(dir, allowed)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// written makes a bundle of one step in a folder, and returns its manifest.
func written(t *testing.T, info Info, password string) (dir, manifest string) {
	t.Helper()
	dir = t.TempDir()
	w, err := NewWriter(folder(t, dir, nil).Put, info, password)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Program("linux", "amd64", sumOf("other"), strings.NewReader("program")); err == nil {
		t.Fatal("a program with another hash is taken")
	}
	if err := w.Program("linux", "amd64", sumOf("program"), strings.NewReader("program")); err != nil {
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
	e.bind(key, "digest")
	sealed := seal(key, "Variables/one", []byte("clear"))
	if _, err := e.open("correct horse", "another"); !errors.Is(err, ErrChanged) {
		t.Errorf("another manifest: %v", err)
	}
	if _, err := e.open("wrong", "digest"); !errors.Is(err, ErrPassword) {
		t.Errorf("a wrong password: %v", err)
	}
	again, err := e.open("correct horse", "digest")
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
	if _, err := greedy.open("correct horse", "digest"); err == nil || errors.Is(err, ErrPassword) {
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
			return bytes.Replace(m, []byte(`"Format": 2`), []byte(`"Format": 3`), 1), nil
		}, "has the format 3, and this program knows 2"},
		"an earlier format": {func(_ string, m []byte) ([]byte, error) {
			return bytes.Replace(m, []byte(`"Format": 2`), []byte(`"Format": 1`), 1), nil
		}, "has the format 1, and this program knows 2"},
		"a way out": {func(_ string, m []byte) ([]byte, error) {
			return bytes.Replace(m, []byte(`"Agent/tako`), []byte(`"../Agent/tako`), 1), nil
		}, "which is no path below the bundle"},
		"no mark": {func(_ string, m []byte) ([]byte, error) {
			return bytes.Replace(m, []byte(workspaceMark), []byte("/"), 1), nil
		}, "does not say what stands for the workspace"},
		"no manifest at all": {func(string, []byte) ([]byte, error) { return []byte("{"), nil }, "is damaged"},
		"a missing file": {func(dir string, m []byte) ([]byte, error) {
			return m, os.Remove(filepath.Join(dir, "Agent", programFile()))
		}, "is not complete: Agent/" + programFile() + " is missing"},
		"a longer file": {func(dir string, m []byte) ([]byte, error) {
			return m, os.WriteFile(filepath.Join(dir, "Agent", programFile()), []byte("program and more"), 0o600)
		}, "is damaged: Agent/" + programFile()},
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
	if err := Run(t.Context(), Options{Manifest: manifest, Working: "/nowhere", Expected: true, Out: io.Discard, Err: io.Discard}); err == nil || !strings.Contains(err.Error(), "the bundle is not encrypted") {
		t.Errorf("with a password: %v", err)
	}
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

// TestManifestIsAuthenticated: with the password, nothing that the manifest says can be
// changed by somebody who does not know it.
func TestManifestIsAuthenticated(t *testing.T) {
	t.Parallel()
	info := Info{
		Deployment: "Deployments-1", MachineID: "Machines-1", Machine: "Vault", ProjectID: "Projects-1", Project: "Shop", Environment: "Test",
		Created: time.Now().UTC(), Working: "/tako-test/nowhere",
	}
	dir, manifest := written(t, info, "correct horse")
	made, err := os.ReadFile(manifest)
	if err != nil {
		t.Fatal(err)
	}
	open := func(change func(m *Manifest)) error {
		t.Helper()
		m := new(Manifest)
		if err := json.Unmarshal(made, m); err != nil {
			t.Fatal(err)
		}
		change(m)
		data, err := json.Marshal(m)
		if err == nil {
			err = os.WriteFile(manifest, data, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		root, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer root.Close()
		if m, err = readManifest(root, filepath.Base(manifest)); err != nil {
			t.Fatal(err)
		}
		_, err = Options{Password: func() (string, error) { return "correct horse", nil }}.key(m)
		return err
	}
	if err := open(func(*Manifest) {}); err != nil {
		t.Errorf("as it was made: %v", err)
	}
	for what, change := range map[string]func(m *Manifest){
		"no steps":             func(m *Manifest) { m.Steps = nil },
		"a step twice":         func(m *Manifest) { m.Steps = append(m.Steps, m.Steps[0]) },
		"another program":      func(m *Manifest) { m.Programs[0].SHA256 = sumOf("other") },
		"a package":            func(m *Manifest) { m.Packages = []File{{Path: "Packages/x", SHA256: sumOf("x")}} },
		"another directory":    func(m *Manifest) { m.Info.Applications = "/etc" },
		"another working one":  func(m *Manifest) { m.Info.Working = "/etc" },
		"another machine":      func(m *Manifest) { m.Info.Machine = "Other" },
		"another step's name":  func(m *Manifest) { m.Steps[0].Name = "Other" },
		"another place inside": func(m *Manifest) { m.Workspace += "x" },
	} {
		if err := open(change); !errors.Is(err, ErrChanged) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// making is the part of a step's file name that no other making of a bundle has.
var making = regexp.MustCompile(`\.[a-z2-7]{10}\.variables`)

// files lists a folder, without what is random.
func files(t *testing.T, dir string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			path, err = filepath.Rel(dir, path)
			out = append(out, making.ReplaceAllString(filepath.ToSlash(path), ".variables"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// TestOthersInTheFolder: an owner that was followed by another one publishes nothing more,
// and takes nothing of the other one away; a bundle that is made again leaves nothing of the
// first making; and nothing gets out of the folder by a link.
func TestOthersInTheFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	info := Info{Deployment: "Deployments-1", MachineID: "Machines-1", Machine: "A", ProjectID: "Projects-1", Project: "B"}
	fill := func(f *Folder) *Writer {
		t.Helper()
		w, err := NewWriter(f.Put, info, "")
		if err == nil {
			err = w.Program("linux", "amd64", sumOf("program"), strings.NewReader("program"))
		}
		if err == nil {
			err = w.Step("Say", agent.StartRequest{Body: "echo"}, nil)
		}
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	lost := false
	errLost := errors.New("the lease was lost")
	stale := folder(t, dir, func() error {
		if lost {
			return errLost
		}
		return nil
	})
	old := fill(stale)
	next := folder(t, dir, nil)
	lost = true
	if _, err := fill(next).Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Close(); !errors.Is(err, errLost) {
		t.Errorf("the earlier owner publishes: %v", err)
	}
	if err := stale.Undo(); err != nil {
		t.Error(err)
	}
	want := "A.B.Deployments-1.manifest.json A.B.Deployments-1.sh Agent/" + programFile() + " Variables/A.B.Deployments-1.01.Say.variables.json"
	if got := files(t, dir); got != want {
		t.Errorf("there are %s, want %s", got, want)
	}
	again := folder(t, dir, nil)
	if _, err := fill(again).Close(); err != nil {
		t.Fatal(err)
	}
	if err := again.Forget(info); err != nil {
		t.Error(err)
	}
	if got := files(t, dir); got != want {
		t.Errorf("after another making there are %s, want %s", got, want)
	}
	if err := again.Undo(); err != nil {
		t.Error(err)
	}
	if got := files(t, dir); got != "Agent/"+programFile() {
		t.Errorf("after it was undone there are %s", got)
	}
	// What a later version of the server brings lies beside it.
	w, err := NewWriter(again.Put, info, "")
	if err == nil {
		err = w.Program("linux", "amd64", sumOf("later"), strings.NewReader("later"))
	}
	if err != nil {
		t.Fatal(err)
	}
	if body, err := os.ReadFile(filepath.Join(dir, "Agent", programFile())); err != nil || string(body) != "program" {
		t.Errorf("the earlier program is %q, %v", body, err)
	}
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(dir, "Packages")); err != nil {
		t.Fatal(err)
	}
	if err := again.Put("Packages/x", 0o644, strings.NewReader("x")); err == nil {
		t.Error("a link leads out")
	}
	if got := files(t, outside); got != "" {
		t.Errorf("outside there are %s", got)
	}
}

// TestForget takes the bundles of earlier deployments out of a folder, and no others.
func TestForget(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := folder(t, dir, nil)
	info := func(deployment, machine, project string) Info {
		return Info{Deployment: deployment, MachineID: "Machines-" + machine, Machine: machine, ProjectID: "Projects-" + project, Project: project}
	}
	for _, i := range []Info{info("Deployments-1", "A", "B.C"), info("Deployments-2", "A.B", "C"), info("Deployments-3", "A", "B.C")} {
		w, err := NewWriter(f.Put, i, "")
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
	elsewhere := info("Deployments-4", "A", "B.C")
	elsewhere.Environment = "Test"
	if err := f.Forget(elsewhere); err != nil {
		t.Fatal(err)
	}
	if got := files(t, dir); !strings.Contains(got, "Deployments-1.sh") {
		t.Errorf("a bundle for another environment is gone: %s", got)
	}
	if err := f.Forget(info("Deployments-3", "A", "B.C")); err != nil {
		t.Fatal(err)
	}
	want := "A.B.C.Deployments-2.manifest.json A.B.C.Deployments-2.sh A.B.C.Deployments-3.manifest.json A.B.C.Deployments-3.sh " +
		"Variables/A.B.C.Deployments-2.01.Say.variables.json Variables/A.B.C.Deployments-3.01.Say.variables.json other.manifest.json"
	if got := files(t, dir); got != want {
		t.Errorf("left %s", got)
	}
}

// TestZIP keeps what may be executed executable, and refuses a package that is not itself.
func TestZIP(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	archive := zip.NewWriter(&out)
	w, err := NewWriter(ZIP(archive), Info{Deployment: "Deployments-1", MachineID: "Machines-1", Machine: "it's", Project: "Shop"}, "")
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
