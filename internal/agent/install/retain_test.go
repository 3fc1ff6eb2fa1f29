//go:build linux

package install_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/agent/install"
)

// there are the folders of installations below an environment's folder.
func (m *machine) there(below ...string) (names []string) {
	m.t.Helper()
	entries, err := os.ReadDir(filepath.Join(append([]string{m.applications()}, below...)...))
	if err != nil {
		m.t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// age makes all installations older.
func (m *machine) age(days int) {
	m.t.Helper()
	names, err := filepath.Glob(filepath.Join(m.home, "Deployments", "*.json"))
	if err != nil {
		m.t.Fatal(err)
	}
	for _, name := range names {
		var j install.Journal
		b, err := os.ReadFile(name)
		if err == nil {
			err = json.Unmarshal(b, &j)
		}
		for i := range j.Installations {
			j.Installations[i].At = j.Installations[i].At.AddDate(0, 0, -days)
		}
		b, encodeErr := json.Marshal(j)
		if err == nil && encodeErr == nil {
			err = os.WriteFile(name, b, 0o600)
		}
		if err != nil || encodeErr != nil {
			m.t.Fatal(err, encodeErr)
		}
	}
}

// TestPoint16RetentionOnTargets: what a deployment finds of earlier ones is removed as the
// policy says, for the current project, step, environment, tenant and target alone: never
// what is installed, what was before it, or a directory that was copied to.
func TestPoint16RetentionOnTargets(t *testing.T) {
	t.Parallel()
	content := zipped(t, map[string]string{"a": "b"})
	m := newMachine(t)
	custom := filepath.Join(t.TempDir(), "site")
	deployed := func(version string, keep install.Keep, change ...func(*install.Request)) {
		t.Helper()
		req := request(version)
		req.Keep = keep
		req.Properties[features] = "Octopus.Features.CustomDirectory"
		req.Properties["Octopus.Action.Package.CustomInstallationDirectory"] = custom
		for _, c := range change {
			c(req)
		}
		m.installed(req, content)
	}
	other := func(r *install.Request) { r.Set.Project, r.Package.ID = "Projects-2", "Other" }
	forever := install.Keep{}
	for _, version := range []string{"1", "2", "3", "4", "5"} {
		deployed(version, forever)
		deployed(version, forever, other)
	}
	failing := request("bad1")
	failing.Properties[features], failing.Properties["Octopus.Action.CustomScripts.Deploy.sh"] = "Octopus.Features.CustomScripts", "exit 1"
	for _, version := range []string{"bad1", "bad2"} {
		failing.Package.Version = version
		if r := m.run(failing, content); r.err == nil {
			t.Error("it did not fail")
		}
	}
	all := []string{"1", "2", "3", "4", "5"}
	check := func(what string, want ...string) {
		t.Helper()
		got := m.there("Test", "Acme.Web")
		slices.Sort(want)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
		if diff := cmp.Diff(all, m.there("Test", "Other")); diff != "" {
			t.Errorf("%s: the other project (-want +got):\n%s", what, diff)
		}
		if diff := cmp.Diff(map[string]string{"a": "b"}, tree(t, custom)); diff != "" {
			t.Errorf("%s: the custom directory (-want +got):\n%s", what, diff)
		}
	}
	check("for ever", append(slices.Clone(all), "bad1", "bad2")...)
	// Three of those that were there stay, with the new one; of failures the last.
	deployed("6", install.Keep{Items: 3})
	check("3 items", "3", "4", "5", "6", "bad2")
	// One is fewer than what is installed and what was before it.
	deployed("7", install.Keep{Items: 1})
	check("1 item", "5", "6", "7", "bad2")
	deployed("8", forever)
	deployed("9", install.Keep{Days: 1})
	check("of today", "5", "6", "7", "8", "9", "bad2")
	m.age(3)
	deployed("10", install.Keep{Days: 4})
	check("3 of 4 days old", "5", "6", "7", "8", "9", "10", "bad2")
	deployed("11", install.Keep{Days: 2})
	check("3 of 2 days old", "9", "10", "11", "bad2")
	// What is installed already is not installed again, and retention is applied all the same.
	deployed("11", install.Keep{Items: 2}, func(r *install.Request) { r.Properties["Octopus.Action.Package.SkipIfAlreadyInstalled"] = "True" })
	check("nothing to install", "10", "11", "bad2")
	// Another tenant, step, environment or target has a history of its own.
	for _, change := range []func(*install.Set){
		func(s *install.Set) { s.Tenant = "Tenants-1" }, func(s *install.Set) { s.Step = "b" },
		func(s *install.Set) { s.Environment = "Environments-2" }, func(s *install.Set) { s.Machine = "" }, func(s *install.Set) { s.Space = "Spaces-2" },
	} {
		deployed("12", install.Keep{Items: 1}, func(r *install.Request) { change(&r.Set) })
	}
	check("elsewhere", "10", "11", "12", "12_1", "12_2", "12_3", "12_4", "bad2")
}

// TestFolderOfAnother: a folder that somebody has removed, and whose name another step has
// taken since, is that step's.
func TestFolderOfAnother(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	content := zipped(t, map[string]string{"a": "b"})
	other := func() *install.Request {
		req := request("1")
		req.Set.Step = "other"
		return req
	}
	_, first := m.installed(request("1"), content)
	if err := os.RemoveAll(first); err != nil {
		t.Fatal(err)
	}
	if _, dir := m.installed(other(), content); dir != first {
		t.Fatalf("it is in %s", dir)
	}
	for _, version := range []string{"2", "3", "4"} {
		req := request(version)
		req.Keep.Items = 1
		m.installed(req, content)
	}
	if diff := cmp.Diff([]string{"1", "2", "3", "4"}, m.there("Test", "Acme.Web")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]string{"a": "b"}, tree(t, first)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	req := request("5")
	req.Keep.Items = 1
	m.installed(req, content)
	if diff := cmp.Diff([]string{"1", "3", "4", "5"}, m.there("Test", "Acme.Web")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if notes, err := os.ReadDir(filepath.Join(m.home, "Deployments", "folders")); err != nil || len(notes) != 4 {
		t.Errorf("%v %v", notes, err)
	}
}

// TestJournalOfOthers: a journal whose content is not ours removes nothing that is not an
// installation, and one that cannot be read keeps nobody from deploying.
func TestJournalOfOthers(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	content := zipped(t, map[string]string{"a": "b"})
	m.installed(request("1"), content)
	write(t, filepath.Join(m.home, "precious"), "x")
	write(t, filepath.Join(m.applications(), "Test", "precious"), "x")
	names, err := filepath.Glob(filepath.Join(m.home, "Deployments", "*.json"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	var j install.Journal
	for _, dir := range []string{"../precious", "", ".", "Test", "/", "Test/precious", "Test/../..", m.home, "Test/../../precious/x"} {
		j.Installations = append(j.Installations, install.Entry{Directory: dir, At: time.Unix(0, 0)})
	}
	for _, dir := range []string{"Test/Acme.Web/a", "Test/Acme.Web/b"} {
		j.Installations = append(j.Installations, install.Entry{Directory: dir, At: time.Now()})
	}
	b, err := json.Marshal(j)
	if err == nil {
		err = os.WriteFile(names[0], b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	req := request("2")
	req.Keep.Items = 1
	m.installed(req, content)
	for _, name := range []string{filepath.Join(m.home, "precious"), filepath.Join(m.applications(), "Test", "precious")} {
		if _, err := os.Stat(name); err != nil {
			t.Error(err)
		}
	}
	write(t, names[0], "{ not JSON")
	r, _ := m.installed(request("3"), content)
	if len(r.warnings) != 1 || !strings.Contains(r.warnings[0], "put aside as "+names[0]+".damaged") {
		t.Errorf("%q", r.warnings)
	}
	if j := m.journal(); len(j.Installations) != 1 {
		t.Errorf("%+v", j)
	}
	write(t, names[0], `{"Format": 99}`)
	if r := m.run(request("4"), content); r.err == nil || !strings.Contains(r.message, "later version") {
		t.Errorf("%q", r.message)
	}
}
