//go:build linux

package install_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/agent/install"
)

const xdt = `xmlns:xdt="http://schemas.microsoft.com/XML-Document-Transform"`

// setter is a transform that sets the value of a key.
func setter(key, value string) string {
	return `<configuration ` + xdt + `><appSettings><add key="` + key + `" value="` + value + `" xdt:Transform="SetAttributes" xdt:Locator="Match(key)"/></appSettings></configuration>`
}

func settings(key, value string) string {
	return `<configuration><appSettings><add key="` + key + `" value="` + value + `"/></appSettings></configuration>`
}

// value is the value of the first setting of a .config file.
func value(t testing.TB, text string) string {
	t.Helper()
	_, after, ok := strings.Cut(text, `value="`)
	if !ok {
		t.Fatalf("no value in %q", text)
	}
	text, _, _ = strings.Cut(after, `"`)
	return text
}

// TestTransforms: the release's before the environment's before the tenant's before those
// that are listed; transforms themselves are no configuration.
func TestTransforms(t *testing.T) {
	t.Parallel()
	files := map[string]string{
		"Web.config": settings("A", "old"), "Web.Release.config": setter("A", "release"),
		"bin/App.exe.config": settings("A", "old"), "bin/App.exe.Release.config": setter("A", "release"), "bin/App.exe.Test.config": setter("A", "environment"),
		"Three.config": settings("A", "old"), "Three.Test.config": setter("A", "environment"), "Three.Big Co.config": setter("A", "tenant"),
		"Four.config": settings("A", "old"), "Four.Test.config": setter("A", "environment"), "extra.xml": setter("A", "listed"),
		"Five.config": settings("B", "old"),
	}
	all := func(enabled string, change func(*install.Request)) (map[string]string, ran) {
		m := newMachine(t)
		req := request("1.0.0")
		req.Folder.Tenant = "Big Co"
		req.Properties[features] = enabled
		req.Properties["Octopus.Action.Package.AdditionalXmlConfigurationTransforms"] = "extra.xml => Four.config\nmissing.config => Web.config"
		req.Variables = pairs(map[string]string{"B": "by #{C}", "C": "variable"})
		change(req)
		r, dir := m.installed(req, zipped(t, files))
		got := tree(t, dir)
		out := map[string]string{}
		for _, name := range []string{"Web.config", "bin/App.exe.config", "Three.config", "Four.config", "Five.config", "Three.Test.config"} {
			out[name] = value(t, got[name])
		}
		return out, r
	}
	got, r := all("Octopus.Features.ConfigurationTransforms,Octopus.Features.ConfigurationVariables", func(*install.Request) {})
	want := map[string]string{"Web.config": "release", "bin/App.exe.config": "environment", "Three.config": "tenant", "Four.config": "listed", "Five.config": "by variable", "Three.Test.config": "environment"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, r.out)
	}
	if len(r.warnings) != 1 || !strings.Contains(r.warnings[0], "'missing.config => Web.config'") {
		t.Errorf("%q", r.warnings)
	}
	got, r = all("Octopus.Features.ConfigurationTransforms,Octopus.Features.ConfigurationVariables", func(r *install.Request) {
		r.Properties["Octopus.Action.Package.AutomaticallyRunConfigurationTransformationFiles"] = "False"
		r.Properties["Octopus.Action.Package.AutomaticallyUpdateAppSettingsAndConnectionStrings"] = "False"
	})
	want = map[string]string{"Web.config": "old", "bin/App.exe.config": "old", "Three.config": "old", "Four.config": "listed", "Five.config": "old", "Three.Test.config": "environment"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("not by itself (-want +got):\n%s\n%s", diff, r.out)
	}
	want["Four.config"] = "old"
	if got, r = all("", func(*install.Request) {}); cmp.Diff(want, got) != "" {
		t.Errorf("switched off (-want +got):\n%s\n%s", cmp.Diff(want, got), r.out)
	}
}

// TestBrokenFiles: files that cannot be read fail the step by their names, or are warned
// of where the step says so.
func TestBrokenFiles(t *testing.T) {
	t.Parallel()
	const all = "Octopus.Features.ConfigurationTransforms,Octopus.Features.ConfigurationVariables,Octopus.Features.JsonConfigurationVariables,Octopus.Features.SubstituteInFiles"
	for _, c := range []struct {
		name    string
		files   map[string]string
		change  map[string]string
		message string
		warning string
	}{
		{"a transform", map[string]string{"Web.config": settings("A", "old"), "Web.Release.config": "<configuration"}, nil, "Web.Release.config", ""},
		{"a transform that is ignored", map[string]string{"Web.config": settings("A", "old"), "Web.Release.config": "<configuration"}, map[string]string{"Octopus.Action.Package.IgnoreConfigTransformationErrors": "True"}, "", "Web.Release.config"},
		{"settings", map[string]string{"Web.config": "<a"}, nil, "Web.config", ""},
		{"settings that are ignored", map[string]string{"Web.config": "<a"}, map[string]string{"Octopus.Action.Package.IgnoreVariableReplacementErrors": "True"}, "", "Web.config"},
		{"JSON", map[string]string{"app.json": "{"}, map[string]string{"Octopus.Action.Package.JsonConfigurationVariablesTargets": "*.json"}, "app.json", ""},
		{"nothing that matches", nil, map[string]string{"Octopus.Action.Package.JsonConfigurationVariablesTargets": "**/*.yaml"}, "", "replacement target pattern '**/*.yaml'"},
		{"nothing to substitute", nil, map[string]string{"Octopus.Action.SubstituteInFiles.TargetFiles": "*.txt"}, "", "substitution target pattern '*.txt'"},
		{"a token", map[string]string{"a.txt": "#{Nobody}"}, map[string]string{"Octopus.Action.SubstituteInFiles.TargetFiles": "*.txt"}, "", "#{Nobody}"},
		{"a pattern", nil, map[string]string{"Octopus.Action.SubstituteInFiles.TargetFiles": "../*.txt"}, "leaves", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			req := request("1.0.0")
			req.Properties[features] = all
			for key, v := range c.change {
				req.Properties[key] = v
			}
			r := m.run(req, zipped(t, c.files))
			if (r.err != nil) != (c.message != "") || !strings.Contains(r.message, c.message) {
				t.Errorf("%v: %q does not say %q", r.err, r.message, c.message)
			}
			if c.warning != "" && (len(r.warnings) != 1 || !strings.Contains(r.warnings[0], c.warning)) {
				t.Errorf("%q does not say %q", r.warnings, c.warning)
			}
		})
	}
}

// TestCustomDirectory: files are copied over what is there, with modes and links; a purge
// leaves what it is told to leave, and nothing leads out of the directory.
func TestCustomDirectory(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	outside := t.TempDir()
	write(t, filepath.Join(outside, "precious"), "x")
	custom := filepath.Join(t.TempDir(), "a", "site")
	req := func(purge bool) *install.Request {
		req := request("1.0.0")
		req.Properties[features] = "Octopus.Features.CustomDirectory"
		req.Properties["Octopus.Action.Package.CustomInstallationDirectory"] = "#{Root}/site"
		req.Variables = pairs(map[string]string{"Root": filepath.Dir(custom)})
		if purge {
			req.Properties["Octopus.Action.Package.CustomInstallationDirectoryShouldBePurgedBeforeDeployment"] = "True"
			req.Properties["Octopus.Action.Package.CustomInstallationDirectoryPurgeExclusions"] = "uploads/**\n*.keep"
		}
		return req
	}
	content := tarred(t, map[string]string{"run!": "#!/bin/sh\n", "web/index.html": "new", "current@": "web/index.html"})
	tgz := func(r *install.Request) *install.Request { r.Package.FileName = "Acme.Web.1.0.0.tar.gz"; return r }
	for name, body := range map[string]string{"web/index.html": "old", "uploads/cat.jpg": "cat", "local.keep": "k", "old/deep/x": "x", "web/local.txt": "l"} {
		write(t, filepath.Join(custom, name), body)
	}
	err := os.Symlink(outside, filepath.Join(custom, "elsewhere"))
	half := filepath.Join(custom, "web", ".tako-copy-of-the-past")
	write(t, half, "half")
	if err = errors.Join(err, os.Chtimes(half, time.Unix(0, 0), time.Unix(0, 0)), os.Chmod(filepath.Join(custom, "web/index.html"), 0o400)); err != nil {
		t.Fatal(err)
	}
	_, dir := m.installed(tgz(req(false)), content)
	if dir != custom {
		t.Errorf("it is in %s", dir)
	}
	want := map[string]string{"web/index.html": "new", "uploads/cat.jpg": "cat", "local.keep": "k", "old/deep/x": "x", "web/local.txt": "l", "run": "#!/bin/sh\n", "current": "web/index.html", "elsewhere": outside}
	if diff := cmp.Diff(want, tree(t, custom)); diff != "" {
		t.Errorf("over what was there (-want +got):\n%s", diff)
	}
	if info, err := os.Stat(filepath.Join(custom, "run")); err != nil || info.Mode().Perm() != 0o755 || !info.ModTime().Equal(time.Unix(1e9, 0)) {
		t.Errorf("%v %v", info, err)
	}
	m.installed(tgz(req(true)), content)
	for _, gone := range []string{"old/deep/x", "web/local.txt", "elsewhere"} {
		delete(want, gone)
	}
	if diff := cmp.Diff(want, tree(t, custom)); diff != "" {
		t.Errorf("purged (-want +got):\n%s", diff)
	}
	if _, err := os.Stat(filepath.Join(custom, "old")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory is left: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(custom, "web")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(custom, "web")); err != nil {
		t.Fatal(err)
	}
	if r := m.run(tgz(req(false)), content); r.err == nil || !strings.Contains(r.message, custom) {
		t.Errorf("through a link: %q", r.message)
	}
	if diff := cmp.Diff(map[string]string{"precious": "x"}, tree(t, outside)); diff != "" {
		t.Errorf("outside (-want +got):\n%s", diff)
	}
}

// tarred is a .tar.gz; a name that ends in ! is executable, one in @ a link.
func tarred(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	var names []string
	for name := range files {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, given := range names {
		name, executable := strings.CutSuffix(given, "!")
		name, link := strings.CutSuffix(name, "@")
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[given])), ModTime: time.Unix(1e9, 0), Typeflag: tar.TypeReg}
		if executable {
			h.Mode = 0o755
		}
		if link {
			h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, files[given], 0
		}
		err := w.WriteHeader(h)
		if err == nil && !link {
			_, err = w.Write([]byte(files[given]))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// bzipped is a .tar.bz2 with the file a.
const bzipped = `QlpoOTFBWSZTWS8mrwUAAHJ7hMkAAEBgAG+AAADwAJ4AAACACCAAVCUptCeoAfqg9QSIkBoA0FvucplCDq5JCKvXEwo6FWkghOLQRIjdgqsUvsjNQneKWgcXM7np3fyakzZmYPxdyRThQkC8mrwU`

// TestFormats: packages of every kind, a container's own files left out.
func TestFormats(t *testing.T) {
	t.Parallel()
	bz2, err := base64.StdEncoding.DecodeString(bzipped)
	if err != nil {
		t.Fatal(err)
	}
	gz := tarred(t, map[string]string{"a": "b"})
	z, err := gzip.NewReader(bytes.NewReader(gz))
	if err != nil {
		t.Fatal(err)
	}
	var plain bytes.Buffer
	if _, err := plain.ReadFrom(z); err != nil {
		t.Fatal(err)
	}
	zip := zipped(t, map[string]string{"a": "b"})
	for extension, content := range map[string][]byte{
		".zip": zip, ".jar": zip, ".war": zip, ".ear": zip, ".tar": plain.Bytes(), ".tar.gz": gz, ".tgz": gz, ".tar.bz2": bz2, ".tbz": bz2,
		".nupkg": zipped(t, map[string]string{"a": "b", "[Content_Types].xml": "x", "_rels/.rels": "x", "package/services/metadata/core-properties/1.psmdcp": "x"}),
	} {
		m := newMachine(t)
		req := request("1.0.0")
		req.Package.FileName = "Acme.Web.1.0.0" + extension
		_, dir := m.installed(req, content)
		if diff := cmp.Diff(map[string]string{"a": "b"}, tree(t, dir)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", extension, diff)
		}
	}
	m := newMachine(t)
	req := request("1.0.0")
	req.Package.FileName = "Acme.Web.1.0.0.rar"
	if r := m.run(req, zip); r.err == nil || !strings.Contains(r.message, ".tar.gz") {
		t.Errorf("%q", r.message)
	}
	for name, content := range map[string][]byte{
		"out of the folder": zipped(t, map[string]string{"../../evil": "x"}), "an absolute link": tarred(t, map[string]string{"l@": "/etc"}),
		"a link out of the folder": tarred(t, map[string]string{"l@": "../../../.."}),
	} {
		req := request("1.0.0")
		req.Package.FileName = "Acme.Web.1.0.0.zip"
		if bytes.HasPrefix(content, []byte{0x1f, 0x8b}) {
			req.Package.FileName = "Acme.Web.1.0.0.tgz"
		}
		if r := m.run(req, content); r.err == nil || !strings.Contains(r.message, "it would leave its directory") {
			t.Errorf("%s: %q", name, r.message)
		}
	}
	if names := m.there("Test", "Acme.Web"); len(names) != 0 {
		t.Errorf("left: %v", names)
	}
}

// TestKnobs: packaged scripts may be left alone or left there, and a script may end the
// step early.
func TestKnobs(t *testing.T) {
	t.Parallel()
	files := map[string]string{"a": "b", "PreDeploy.sh": "echo pre", "PostDeploy.ps1": "never", "PostDeploy.sh": "echo post"}
	for _, c := range []struct {
		name   string
		values map[string]string
		files  []string
		said   string // of "pre" and "post"
	}{
		{"nothing", nil, []string{"a"}, "pre,post"},
		{"scripts off", map[string]string{"Octopus.Action.Package.RunScripts": "False"}, []string{"PostDeploy.ps1", "PostDeploy.sh", "PreDeploy.sh", "a"}, ""},
		{"scripts stay", map[string]string{"OctopusDeleteScriptsOnCleanup": "False"}, []string{"PostDeploy.ps1", "PostDeploy.sh", "PreDeploy.sh", "a"}, "pre,post"},
		{"the rest left out", map[string]string{"Octopus.Action.SkipRemainingConventions": "True"}, []string{"a", "PreDeploy.sh"}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := newMachine(t)
			req := request("1.0.0")
			req.Variables = pairs(c.values)
			r, dir := m.installed(req, zipped(t, files))
			if c.name == "the rest left out" {
				// It is the first convention, the step's own scripts, after which it is looked at.
				if strings.Contains(r.out, "\npost\n") || len(m.journal().Installations) != 1 {
					t.Errorf("%s", r.out)
				}
				return
			}
			var names, said []string
			for name := range tree(t, dir) {
				names = append(names, name)
			}
			slices.Sort(names)
			if diff := cmp.Diff(c.files, names); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			for _, word := range []string{"pre", "post"} {
				if strings.Contains(r.out, "\n"+word+"\n") {
					said = append(said, word)
				}
			}
			if strings.Join(said, ",") != c.said {
				t.Errorf("%v of %s", said, r.out)
			}
		})
	}
}

// newMode is the mode that a new file for everybody to read has here.
func newMode(t *testing.T) os.FileMode {
	t.Helper()
	name := filepath.Join(t.TempDir(), "new")
	err := os.WriteFile(name, nil, 0o644)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode().Perm()
}

// TestTransfer puts a package as it is where the step says.
func TestTransfer(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	to := filepath.Join(t.TempDir(), "packages")
	req := request("1.0.0")
	req.Kind = install.Transfer
	content := zipped(t, map[string]string{"a": "b"})
	if r := m.run(req, content); r.err == nil || !strings.Contains(r.message, "Octopus.Action.Package.TransferPath") {
		t.Errorf("%q", r.message)
	}
	to = filepath.Join(to, "for", "all") // none of which is there
	req.Properties["Octopus.Action.Package.TransferPath"] = "#{Root}/packages/for/all"
	req.Variables = pairs(map[string]string{"Root": strings.TrimSuffix(to, "/packages/for/all")})
	for range 2 { // over what is there
		r, _ := m.installed(req, content)
		want := map[string]string{"Package.DirectoryPath": to, "Package.FileName": "Acme.Web.1.0.0.zip", "Package.FilePath": to + "/Acme.Web.1.0.0.zip"}
		if diff := cmp.Diff(want, r.outputs); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		if diff := cmp.Diff(map[string]string{"Acme.Web.1.0.0.zip": string(content)}, tree(t, to)); diff != "" {
			t.Error("it is another file")
		}
		// What the workspace has may be the cache's own, which is for nobody else.
		if info, err := os.Stat(filepath.Join(to, "Acme.Web.1.0.0.zip")); err != nil || info.Mode().Perm() != newMode(t) {
			t.Errorf("%v, %v; new files have %v", info.Mode(), err, newMode(t))
		}
	}
}
