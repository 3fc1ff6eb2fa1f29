//go:build linux

package install_test

import (
	"archive/zip"
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/agent/install"
	"github.com/takodeploy/tako/internal/disktest"
	"github.com/takodeploy/tako/internal/octostache"
)

const features = "Octopus.Action.EnabledFeatures"

// machine is a test's target.
type machine struct {
	t      testing.TB
	home   string
	beside map[string]string // files that come with a request
}

func newMachine(t testing.TB) *machine { return &machine{t: t, home: t.TempDir()} }

// zipped is a package with these files; a name that ends in ! is executable.
func zipped(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, body := range files {
		name, executable := strings.CutSuffix(name, "!")
		h := &zip.FileHeader{Name: name, Method: zip.Deflate, Modified: time.Unix(1e9, 0)}
		h.SetMode(0o644)
		if executable {
			h.SetMode(0o755)
		}
		f, err := w.CreateHeader(h)
		if err == nil {
			_, err = io.WriteString(f, body)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// request is a deployment of Acme.Web by the step Web.
func request(version string) *install.Request {
	return &install.Request{
		Format: install.Format, Kind: install.Deploy, Action: "Web", Machine: "web01",
		Package:    install.Package{ID: "Acme.Web", Version: version, FileName: "Acme.Web." + version + ".zip", SHA256: version},
		Set:        install.Set{Space: "Spaces-1", Project: "Projects-1", Step: "a", Environment: "Environments-1", Machine: "Machines-1"},
		Folder:     install.Folder{Environment: "Test"},
		Properties: map[string]string{},
	}
}

// ran is what a deployment did.
type ran struct {
	err        error
	out        string
	outputs    map[string]string // output variables
	message    string            // why it failed
	warnings   []string
	workspace  string
	standardly string // standard error
}

var (
	messagePattern = regexp.MustCompile(`##octopus\[(\w[\w-]*)((?: \w+=["'][^"']*["'])*)\]`)
	valuePattern   = regexp.MustCompile(`(\w+)=["']([^"']*)["']`)
)

// run deploys a package with these bytes.
func (m *machine) run(req *install.Request, content []byte) ran {
	m.t.Helper()
	place, file := m.prepare(req, content)
	var out, errs bytes.Buffer
	place.Out, place.Err = &out, &errs
	r := ran{workspace: place.Workspace, outputs: map[string]string{}}
	r.err = install.Run(m.t.Context(), place, file)
	r.out, r.standardly = out.String(), errs.String()
	warning := false
	for line := range strings.Lines(r.out) {
		line = strings.TrimSuffix(line, "\n")
		found := messagePattern.FindStringSubmatch(line)
		if found == nil {
			if warning {
				r.warnings = append(r.warnings, line)
			}
			continue
		}
		values := map[string]string{}
		for _, pair := range valuePattern.FindAllStringSubmatch(found[2], -1) {
			text, err := base64.StdEncoding.DecodeString(pair[2])
			if err != nil {
				m.t.Fatalf("%q: %v", line, err)
			}
			values[pair[1]] = string(text)
		}
		switch found[1] {
		case "setVariable":
			r.outputs[values["name"]] = values["value"]
		case "resultMessage":
			r.message = values["message"]
		default:
			warning = found[1] == "stdout-warning"
		}
	}
	return r
}

// prepare makes the workspace of a request.
func (m *machine) prepare(req *install.Request, content []byte) (install.Place, string) {
	m.t.Helper()
	workspace := filepath.Join(m.t.TempDir(), "files")
	req.Package.File = install.PackageDir + "/" + req.Package.FileName
	file := filepath.Join(workspace, filepath.FromSlash(req.Package.File))
	err := os.MkdirAll(filepath.Dir(file), 0o700)
	if err == nil {
		err = os.WriteFile(file, content, 0o600)
	}
	for name, text := range m.beside {
		write(m.t, filepath.Join(workspace, name), text)
	}
	body, encodeErr := json.Marshal(req)
	if err == nil {
		err = os.WriteFile(filepath.Join(workspace, install.RequestFile), body, 0o600)
	}
	if err = errors.Join(err, encodeErr); err != nil {
		m.t.Fatal(err)
	}
	return install.Place{Workspace: workspace, Applications: m.applications(), Journals: filepath.Join(m.home, "Deployments")}, install.RequestFile
}

func (m *machine) applications() string { return filepath.Join(m.home, "Applications") }

// installed runs a deployment that succeeds, and returns where it is.
func (m *machine) installed(req *install.Request, content []byte) (ran, string) {
	m.t.Helper()
	r := m.run(req, content)
	if r.err != nil {
		m.t.Fatalf("%v\n%s%s", r.err, r.out, r.standardly)
	}
	return r, r.outputs["Package.InstallationDirectoryPath"]
}

// journal reads the one journal of the machine.
func (m *machine) journal() (j install.Journal) {
	m.t.Helper()
	names, err := filepath.Glob(filepath.Join(m.home, "Deployments", "*.json"))
	if err != nil || len(names) > 1 {
		m.t.Fatal(names, err)
	}
	if len(names) == 0 {
		return j
	}
	b, err := os.ReadFile(names[0])
	if err == nil {
		err = json.Unmarshal(b, &j)
	}
	if err != nil {
		m.t.Fatal(err)
	}
	return j
}

// tree lists the files below a directory with their contents.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, name)
		if err != nil {
			return err
		}
		if e.Type() == fs.ModeSymlink {
			all[rel], err = os.Readlink(name)
			return err
		}
		b, err := os.ReadFile(name)
		all[rel] = string(b)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func write(t testing.TB, name, body string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(name), 0o755)
	if err == nil {
		err = os.WriteFile(name, []byte(body), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func pairs(of map[string]string) (all []octostache.Pair) {
	for name, value := range of {
		all = append(all, octostache.Pair{Name: name, Value: value})
	}
	return all
}

// TestOrder: all conventions in their order, each seeing what those before it did, and
// output variables of scripts in those after.
func TestOrder(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	trace := filepath.Join(t.TempDir(), "trace")
	custom := filepath.Join(t.TempDir(), "site")
	note := func(what string) string {
		return "echo \"" + what + " $(basename \"$PWD\") sub=$(cat sub.txt) json=$(grep -o '\"[A-Za-z]*\"$' app.json) web=$(grep -o 'value=\"[a-z]*\"' Web.config | head -1) out=$(get_octopusvariable Late)\" >> '" + trace + "'\n"
	}
	req := request("1.0.0")
	req.Properties = map[string]string{
		features: "Octopus.Features.CustomScripts,Octopus.Features.CustomDirectory,Octopus.Features.ConfigurationVariables,Octopus.Features.ConfigurationTransforms,Octopus.Features.SubstituteInFiles,Octopus.Features.JsonConfigurationVariables",
		"Octopus.Action.CustomScripts.PreDeploy.sh":                                 "set_octopusvariable Late \"from #{Who}\"\n" + note("custom PreDeploy"),
		"Octopus.Action.CustomScripts.Deploy.sh":                                    note("custom Deploy"),
		"Octopus.Action.CustomScripts.PostDeploy.sh":                                note("custom PostDeploy"),
		"Octopus.Action.SubstituteInFiles.TargetFiles":                              "*.txt",
		"Octopus.Action.Package.JsonConfigurationVariablesTargets":                  "*.json",
		"Octopus.Action.Package.CustomInstallationDirectory":                        custom,
		"Octopus.Action.Package.AutomaticallyUpdateAppSettingsAndConnectionStrings": "True",
	}
	req.Variables = pairs(map[string]string{"Who": "step", "Level": "Debug", "Key": "replaced", "Octopus.Action.Name": "Web", "Alias": "#{Octopus.Action[Web].Output.Late}!"})
	r, dir := m.installed(req, zipped(t, map[string]string{
		"PreDeploy.sh": note("PreDeploy"), "Deploy.sh": note("Deploy"), "PostDeploy.sh": note("PostDeploy"), "DeployFailed.sh": note("DeployFailed"),
		"sub.txt": "#{Late}+#{Alias}", "app.json": "{\n  \"Level\": \"Info\"\n}\n",
		"Web.config":         `<configuration><appSettings><add key="Key" value="old"/></appSettings></configuration>`,
		"Web.Release.config": `<configuration xmlns:xdt="http://schemas.microsoft.com/XML-Document-Transform"><appSettings><add key="Key" value="release" xdt:Transform="SetAttributes" xdt:Locator="Match(key)"/></appSettings></configuration>`,
	}))
	if dir != custom {
		t.Errorf("it is installed in %s", dir)
	}
	const before, after = ` 1.0.0 sub=#{Late}+#{Alias} json="Info" web=value="old"`, ` site sub=from step+from step! json="Debug" web=value="replaced"`
	want := strings.Join([]string{
		"custom PreDeploy" + before + " out=", "PreDeploy" + before + " out=from step",
		"Deploy" + after + " out=from step", "custom Deploy" + after + " out=from step",
		"PostDeploy" + after + " out=from step", "custom PostDeploy" + after + " out=from step", "",
	}, "\n")
	got, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err, r.out)
	}
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, r.out)
	}
	for _, where := range []string{custom, filepath.Join(m.applications(), "Test", "Acme.Web", "1.0.0")} {
		files := tree(t, where)
		if len(files) != 4 {
			t.Errorf("%s has %v", where, files)
		}
		for name := range files {
			if strings.Contains(name, "eploy") || strings.HasPrefix(name, ".tako") {
				t.Errorf("%s has the script %s", where, name)
			}
		}
	}
	wantOut := map[string]string{"Late": "from step", "Package.InstallationDirectoryPath": custom}
	if diff := cmp.Diff(wantOut, r.outputs); diff != "" {
		t.Errorf("outputs (-want +got):\n%s", diff)
	}
	entry := m.journal().Installations[0]
	if entry.Custom != custom || entry.Directory != "Test/Acme.Web/1.0.0" || !entry.Successful || len(m.journal().Unfinished) != 0 {
		t.Errorf("%+v", m.journal())
	}
}

// TestLanguages: Python scripts have the same functions, and see what others set.
func TestLanguages(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	m.beside = map[string]string{"tools.py": "prefix = 'from '\n"}
	req := request("1.0.0")
	req.Properties[features] = "Octopus.Features.CustomScripts"
	req.Properties["Octopus.Action.CustomScripts.PreDeploy.py"] = "import tools\nset_octopusvariable('Py', tools.prefix + get_octopusvariable('who'))\nfail = None"
	req.Properties["Octopus.Action.CustomScripts.PostDeploy.sh"] = "printf '%s' \"$(get_octopusvariable Py)\" > seen-by-bash"
	req.Variables = pairs(map[string]string{"Who": "it's \"me\"\n$HOME"})
	r, dir := m.installed(req, zipped(t, map[string]string{"Deploy.py": "open('seen-by-python', 'w').write(get_octopusvariable('Octopus.Action[Web].Output[web01].Py'))\n", "deploy.SH": "echo bash goes first\necho no end of line: >&2\nprintf unfinished"}))
	const want = "from it's \"me\"\n$HOME"
	files := tree(t, dir)
	if diff := cmp.Diff(map[string]string{"seen-by-bash": want}, files); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if !strings.Contains(r.out, "bash goes first\nunfinished\n##octopus[") || len(r.warnings) != 1 || !strings.Contains(r.warnings[0], "deploy.SH is run, and not Deploy.py") {
		t.Errorf("%q %s", r.warnings, r.out)
	}
	_, dir = m.installed(request("1.0.1"), zipped(t, map[string]string{"Deploy.py": "open('seen-by-python', 'w').write(str(get_octopusvariable('Octopus.Tentacle.PreviousInstallation.PackageVersion')))\n"}))
	if diff := cmp.Diff(map[string]string{"seen-by-python": "1.0.0"}, tree(t, dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestRefused: what cannot be done is said before anything is changed.
func TestRefused(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		change func(*install.Request)
		files  map[string]string
		want   string
	}{
		{"IIS", func(r *install.Request) { r.Properties[features] = "Octopus.Features.IISWebSite" }, nil, "IIS web site"},
		{"a service", func(r *install.Request) {
			r.Properties[features] = "Octopus.Features.CustomScripts, octopus.features.windowsservice"
		}, nil, "Windows service"},
		{"NGINX", func(r *install.Request) { r.Properties[features] = "Octopus.Features.Nginx" }, nil, "NGINX"},
		{"a later format", func(r *install.Request) { r.Format++ }, nil, "upgrade the agent"},
		{"an unknown kind", func(r *install.Request) { r.Kind = "Juggle" }, nil, "upgrade the agent"},
		{"a file elsewhere", func(r *install.Request) { r.Package.FileName = "../x.zip" }, nil, "plain name"},
		{"a relative directory", func(r *install.Request) {
			r.Properties[features] = "Octopus.Features.CustomDirectory"
			r.Properties["Octopus.Action.Package.CustomInstallationDirectory"] = "var/www"
		}, nil, "must be an absolute path"},
		{"a directory without a value", func(r *install.Request) {
			r.Properties[features] = "Octopus.Features.CustomDirectory"
			r.Properties["Octopus.Action.Package.CustomInstallationDirectory"] = "/var/www/#{Site}"
		}, nil, "'#{Site}' has no value"},
		{"the home of applications", func(r *install.Request) {
			r.Properties[features] = "Octopus.Features.CustomDirectory"
			r.Properties["Octopus.Action.Package.CustomInstallationDirectory"] = "#{Home}/Applications/x"
		}, nil, "one in the other"},
		{"a purge of everything", func(r *install.Request) {
			r.Properties[features] = "Octopus.Features.CustomDirectory"
			r.Properties["Octopus.Action.Package.CustomInstallationDirectory"] = "/opt"
			r.Properties["Octopus.Action.Package.CustomInstallationDirectoryShouldBePurgedBeforeDeployment"] = "True"
		}, nil, "more than an application"},
		{"no PowerShell", func(*install.Request) {}, map[string]string{"PreDeploy.sh": "touch ran", "Deploy.ps1": ""}, "The script Deploy.ps1 needs pwsh, which is not installed"},
		{"C#", func(*install.Request) {}, map[string]string{"PreDeploy.sh": "touch ran", "Deploy.csx": ""}, "The script Deploy.csx cannot be run"},
		{"a full disk", func(r *install.Request) {
			r.Variables = append(r.Variables, octostache.Pair{Name: "OctopusFreeDiskSpaceOverrideInMegaBytes", Value: "4000000000"})
		}, nil, "MiB free, and 4000000000 must be"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, err := exec.LookPath("pwsh"); err == nil && c.name == "no PowerShell" {
				t.Skip("there is PowerShell")
			}
			m := newMachine(t)
			req := request("1.0.0")
			req.Variables = pairs(map[string]string{"Home": m.home})
			c.change(req)
			if strings.Contains(req.Package.FileName, "/") {
				req.Package.FileName, c.change = "x.zip", nil
				place, file := m.prepare(req, nil)
				name := filepath.Join(place.Workspace, file)
				body, err := os.ReadFile(name)
				if err == nil {
					err = os.WriteFile(name, bytes.ReplaceAll(body, []byte(`"FileName":"x.zip"`), []byte(`"FileName":"../x.zip"`)), 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				place.Out, place.Err = io.Discard, io.Discard
				if err := install.Run(t.Context(), place, file); err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v", err)
				}
				return
			}
			if c.files == nil {
				c.files = map[string]string{"a": "b"}
			}
			r := m.run(req, zipped(t, c.files))
			if r.err == nil || !strings.Contains(r.message, c.want) {
				t.Errorf("%v, %q does not say %q", r.err, r.message, c.want)
			}
			if c.files["a"] == "" { // it was extracted, and nothing was run
				if diff := cmp.Diff(c.files, tree(t, filepath.Join(m.applications(), "Test", "Acme.Web", "1.0.0"))); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
				return
			}
			if files := tree(t, m.home); len(files) > 1 || len(m.journal().Installations) != 0 { // the lock
				t.Errorf("it left %v", files)
			}
		})
	}
}

// TestHostilePackages: what would leave the installation is refused, and nothing of it
// is anywhere.
func TestHostilePackages(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"../evil", "a/../../evil", `..\evil`, "../../../../evil", "/evil", "../1.0.1/evil"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			m.installed(request("0.9.0"), zipped(t, map[string]string{"good": "good"}))
			before := tree(t, m.home)
			r := m.run(request("1.0.0"), zipped(t, map[string]string{name: "evil"}))
			if r.err == nil || !strings.Contains(r.message, "leave its directory") {
				t.Errorf("%v, %q", r.err, r.message)
			}
			if diff := cmp.Diff(before, tree(t, m.home)); diff != "" {
				t.Errorf("it changed (-before +after):\n%s", diff)
			}
			if n := len(m.journal().Installations); n != 1 {
				t.Errorf("%d installations", n)
			}
		})
	}
}

// TestFailure: a failed deployment is no installation, runs the scripts for failures,
// and leaves the one before as it was; the next one takes a new folder.
func TestFailure(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	_, first := m.installed(request("1.0.0"), zipped(t, map[string]string{"a": "1"}))
	req := request("1.1.0")
	req.Properties[features] = "Octopus.Features.CustomScripts"
	req.Properties["Octopus.Action.CustomScripts.DeployFailed.sh"] = `echo "custom: $(get_octopusvariable OctopusLastError)"; exit 3`
	failing := zipped(t, map[string]string{"a": "2", "Deploy.sh": "exit 7", "DeployFailed.sh": `echo "failed: $(get_octopusvariable OctopusLastError)"`, "PostDeploy.sh": "echo never"})
	r := m.run(req, failing)
	if r.err == nil || r.message != "The script Deploy.sh exited with code 7." {
		t.Errorf("%v %q", r.err, r.message)
	}
	if !strings.Contains(r.out, "failed: The script Deploy.sh exited with code 7.\n") || !strings.Contains(r.out, "custom: The script Deploy.sh") || strings.Contains(r.out, "never") || len(r.warnings) != 1 {
		t.Errorf("%q %s", r.warnings, r.out)
	}
	j := m.journal()
	if len(j.Installations) != 1 || len(j.Unfinished) != 1 || j.Unfinished[0].Successful {
		t.Errorf("%+v", j)
	}
	if diff := cmp.Diff(map[string]string{"a": "1"}, tree(t, first)); diff != "" {
		t.Error(diff)
	}
	_, again := m.installed(request("1.1.0"), zipped(t, map[string]string{"a": "3", "Deploy.sh": `echo "before: $(get_octopusvariable Octopus.Tentacle.PreviousInstallation.PackageVersion)" > before`}))
	if filepath.Base(again) != "1.1.0_1" {
		t.Errorf("it is in %s", again)
	}
	if diff := cmp.Diff(map[string]string{"a": "3", "before": "before: 1.0.0\n"}, tree(t, again)); diff != "" {
		t.Error(diff)
	}
	said := m.run(request("1.2.0"), zipped(t, map[string]string{"PreDeploy.sh": `fail_step "since I say so"`}))
	if said.message != "since I say so" {
		t.Errorf("%q", said.message)
	}
	broken := m.run(request("1.3.0"), failing[:len(failing)-30])
	if broken.err == nil || !strings.Contains(broken.message, "extract Acme.Web.1.3.0.zip: zip: not a valid zip file") {
		t.Errorf("%q", broken.message)
	}
	if _, err := os.Stat(filepath.Join(m.applications(), "Test", "Acme.Web", "1.3.0")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the half folder is there: %v", err)
	}
	if j := m.journal(); len(j.Installations) != 2 || len(j.Unfinished) != 2 {
		t.Errorf("%+v", j)
	}
}

// TestSkipInstalled: what is installed already is left alone, if the step wants that
// and it is the very same; else it is installed again.
func TestSkipInstalled(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	content := zipped(t, map[string]string{"a": "1", "Deploy.sh": "echo deployed"})
	deployed := func(change func(*install.Request)) (bool, string) {
		req := request("1.0.0")
		req.Properties["Octopus.Action.Package.SkipIfAlreadyInstalled"] = "True"
		change(req)
		r, dir := m.installed(req, content)
		return strings.Contains(r.out, "\ndeployed\n"), filepath.Base(dir)
	}
	nothing := func(*install.Request) {}
	for i, c := range []struct {
		change func(*install.Request)
		ran    bool
		dir    string
	}{
		{nothing, true, "1.0.0"},
		{nothing, false, "1.0.0"},
		{func(r *install.Request) { r.Force = true }, true, "1.0.0_1"},
		{func(r *install.Request) { r.Properties["Octopus.Action.Package.SkipIfAlreadyInstalled"] = "False" }, true, "1.0.0_2"},
		{func(r *install.Request) { r.Package.SHA256 = "pushed again" }, true, "1.0.0_3"},
		{nothing, true, "1.0.0_4"}, // another content was installed since
		{func(r *install.Request) { r.Set.Tenant = "Tenants-1"; r.Folder.Tenant = "Big/Co" }, true, "1.0.0"},
		{nothing, false, "1.0.0_4"},
	} {
		if ran, dir := deployed(c.change); ran != c.ran || dir != c.dir {
			t.Errorf("%d: ran %v in %s; want %v in %s", i, ran, dir, c.ran, c.dir)
		}
	}
	if err := os.RemoveAll(filepath.Join(m.applications(), "Test", "Acme.Web", "1.0.0_4")); err != nil {
		t.Fatal(err)
	}
	if ran, dir := deployed(nothing); !ran || dir != "1.0.0_4" {
		t.Errorf("what somebody has removed: ran %v in %s", ran, dir)
	}
	if files := tree(t, filepath.Join(m.applications(), "Big_Co")); len(files) != 1 {
		t.Errorf("the tenant has %v", files)
	}
}

// TestFullDisk: a disk that is full is named, and what was begun makes room again. Where
// the machine does not let us mount a small disk, there is nothing to test.
func TestFullDisk(t *testing.T) { //nolint:paralleltest // a mount is the whole machine's
	m := newMachine(t)
	if err := os.Mkdir(m.applications(), 0o755); err != nil {
		t.Fatal(err)
	}
	disktest.Mount(t, m.applications(), 0, "size=1m")
	deployed := func(version string, size int) ran {
		req := request(version)
		req.Variables = pairs(map[string]string{"OctopusSkipFreeDiskSpaceCheck": "True"})
		return m.run(req, zipped(t, map[string]string{"a": strings.Repeat("x", size)}))
	}
	if r := deployed("1.0.0", 1000); r.err != nil {
		t.Error(r.err)
	}
	if r := deployed("1.1.0", 3<<20); r.err == nil || !strings.HasPrefix(r.message, "The disk that holds "+m.applications()+" is full (") || !strings.Contains(r.message, "extract Acme.Web.1.1.0.zip") {
		t.Errorf("%v: %q", r.err, r.message)
	}
	if r := deployed("1.2.0", 500_000); r.err != nil {
		t.Error(r.err)
	}
	if j := m.journal(); len(j.Installations) != 2 || len(j.Unfinished) != 0 {
		t.Errorf("%+v", j)
	}
	if diff := cmp.Diff([]string{"1.0.0", "1.2.0"}, m.there("Test", "Acme.Web")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
