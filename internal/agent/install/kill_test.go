//go:build linux

package install_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/agent/install"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/proctest"
)

// The test binary is the program that deploys packages.
func TestMain(m *testing.M) {
	if handled, code := install.Internal(os.Args); handled {
		os.Exit(code)
	}
	os.Exit(m.Run())
}

// start deploys a package by a process of its own.
func (m *machine) start(req *install.Request, content []byte, env ...string) (*exec.Cmd, *bytes.Buffer) {
	m.t.Helper()
	place, file := m.prepare(req, content)
	cmd := exec.Command(os.Args[0], "agent", "deploy-package", "--request", file)
	cmd.Dir = place.Workspace
	cmd.Env = append(append(os.Environ(), "TentacleHome="+m.home, "TentacleApplications="+m.applications()), env...)
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr, cmd.WaitDelay = out, out, time.Minute
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // its scripts die with it, as by a cancelled step
	if err := cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	return cmd, out
}

// killed is a deployment with something to do at each stage; its installation is whole
// if check finds nothing.
type killed struct {
	*machine
	content []byte
	custom  string
	many    int
}

func newKilled(t *testing.T) *killed {
	k := &killed{machine: newMachine(t), custom: filepath.Join(t.TempDir(), "site"), many: 50}
	t.Cleanup(func() { proctest.End(t, k.home) })
	files := map[string]string{"conf.json": `{"Level": "old"}`, "conf.txt": "#{Level}", "Deploy.sh": "cp conf.txt deployed", "PostDeploy.sh": "echo done > last"}
	for i := range k.many {
		files[fmt.Sprintf("data/%d/file", i)] = strings.Repeat(strconv.Itoa(i), 4000)
	}
	k.content = zipped(t, files)
	return k
}

func (k *killed) request() *install.Request {
	req := request("1.0.0")
	req.Properties = map[string]string{
		features: "Octopus.Features.SubstituteInFiles,Octopus.Features.JsonConfigurationVariables,Octopus.Features.CustomDirectory",
		"Octopus.Action.SubstituteInFiles.TargetFiles":             "*.txt",
		"Octopus.Action.Package.JsonConfigurationVariablesTargets": "*.json",
		"Octopus.Action.Package.CustomInstallationDirectory":       k.custom,
	}
	req.Variables = pairs(map[string]string{"Level": "new"})
	req.Keep.Items = 2
	return req
}

// check holds every installation of the journal to be whole, and returns how many
// there are. What was there before and is kept stays whole, too.
func (k *killed) check() int {
	k.t.Helper()
	j := k.journal()
	for _, e := range j.Installations {
		if !e.Successful {
			k.t.Errorf("%+v is an installation", e)
		}
		files := tree(k.t, filepath.Join(k.applications(), filepath.FromSlash(e.Directory)))
		if diff := cmp.Diff("new", files["conf.txt"]); diff != "" {
			k.t.Errorf("%s: %s", e.Directory, diff)
		}
		if !strings.Contains(files["conf.json"], `"new"`) || len(files) != k.many+2 {
			k.t.Errorf("%s is an installation with %d files, conf.json is %q", e.Directory, len(files), files["conf.json"])
		}
	}
	if n := len(j.Installations); n > 0 {
		// What has been copied once is there, whole, whoever is killed while it is copied again.
		files := tree(k.t, k.custom)
		for name, body := range files {
			if strings.HasPrefix(name, "data/") && !strings.Contains(name, ".tako-copy-") && len(body) == 0 || name == "conf.txt" && body != "new" {
				k.t.Errorf("%s of the custom directory is %q", name, body)
			}
		}
		if len(files) < k.many+2 {
			k.t.Errorf("the custom directory has %d files", len(files))
		}
	}
	return len(j.Installations)
}

// TestKillAtRandom kills the program, with all that it has started, at random moments: no
// broken installation is ever taken for one, those before stay, and the next deployment
// has a folder of its own.
func TestKillAtRandom(t *testing.T) {
	t.Parallel()
	rounds := 10
	if os.Getenv("TAKO_TEST_SOAK") != "" {
		rounds = 500
	}
	k := newKilled(t)
	begin := time.Now()
	k.installed(k.request(), k.content)
	whole := time.Since(begin)
	installations := k.check()
	ended, cut := 0, 0
	for range rounds {
		cmd, out := k.start(k.request(), k.content)
		over := make(chan error, 1)
		go func() { over <- cmd.Wait() }()
		var err error
		select {
		case err = <-over:
		case <-time.After(rand.N(whole + whole/4)):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may be over
			err = <-over
		}
		if err == nil {
			ended++
		} else if cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("%v\n%s", err, out)
		} else {
			cut++
		}
		k.check()
	}
	t.Logf("%d ended, %d were cut short", ended, cut)
	r, _ := k.installed(k.request(), k.content)
	if n := k.check(); n < installations || n > 3 {
		t.Errorf("%d installations; what is begun is %d", n, len(k.journal().Unfinished))
	}
	if n := len(k.journal().Unfinished); n > 1 {
		t.Errorf("%d folders of what was cut short are left\n%s", n, r.out)
	}
	// What is on the disk is what the journal knows of, but for folders that were empty.
	var known []string
	for _, e := range slices.Concat(k.journal().Installations, k.journal().Unfinished, k.journal().Removing) {
		known = append(known, filepath.Base(e.Directory))
	}
	for _, name := range k.there("Test", "Acme.Web") {
		if files := k.there("Test", "Acme.Web", name); len(files) > 0 && !slices.Contains(known, name) {
			t.Errorf("nobody knows of %s, which has %d files", name, len(files))
		}
	}
}

// TestKillAtEdges kills the program where it matters most.
func TestKillAtEdges(t *testing.T) {
	t.Parallel()
	for _, edge := range []string{"install-extracted", "install-purged", "install-before-journal"} {
		t.Run(edge, func(t *testing.T) {
			t.Parallel()
			k := newKilled(t)
			_, first := k.installed(k.request(), k.content)
			req := k.request()
			cmd, out := k.start(req, k.content, failpoint.Env+"="+edge+":kill")
			if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
				t.Fatalf("%v\n%s", err, out)
			}
			if n := k.check(); n != 1 || len(k.journal().Unfinished) != 1 {
				t.Errorf("%+v", k.journal())
			}
			_, again := k.installed(k.request(), k.content)
			if n := k.check(); n != 2 || again != first || k.journal().Installations[1].Directory != "Test/Acme.Web/1.0.0_2" {
				t.Errorf("%+v", k.journal())
			}
		})
	}
}

// TestKillWhileRemoving: what is being removed is no installation from the first file on,
// and goes the next time, whatever the policy says then.
func TestKillWhileRemoving(t *testing.T) {
	t.Parallel()
	k := newKilled(t)
	forever := func() *install.Request {
		req := k.request()
		req.Keep = install.Keep{}
		return req
	}
	for range 4 {
		k.installed(forever(), k.content)
	}
	cmd, out := k.start(k.request(), k.content, failpoint.Env+"=install-removing:kill")
	if err := cmd.Wait(); err == nil || cmd.ProcessState.ExitCode() != -1 {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := os.Remove(filepath.Join(k.applications(), "Test", "Acme.Web", "1.0.0", "conf.txt")); err != nil {
		t.Fatal(err)
	}
	if n := k.check(); n != 2 || len(k.journal().Removing) != 2 {
		t.Errorf("%+v", k.journal())
	}
	k.installed(forever(), k.content)
	if n := k.check(); n != 3 || len(k.journal().Removing) != 0 {
		t.Errorf("%+v", k.journal())
	}
	if diff := cmp.Diff([]string{"1.0.0", "1.0.0_2", "1.0.0_3"}, k.there("Test", "Acme.Web")); diff != "" { // the name was free again
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestOneAtATime: two deployments by the same step wait for each other.
func TestOneAtATime(t *testing.T) {
	t.Parallel()
	m := newMachine(t)
	t.Cleanup(func() { proctest.End(t, m.home) })
	dir := t.TempDir()
	inside, goOn := filepath.Join(dir, "inside"), filepath.Join(dir, "go")
	first, out := m.start(request("1"), zipped(t, map[string]string{"Deploy.sh": "touch '" + inside + "'; until test -e '" + goOn + "'; do sleep 0.02; done"}))
	until := time.Now().Add(2 * time.Minute)
	for ; ; <-time.After(5 * time.Millisecond) {
		if _, err := os.Stat(inside); err == nil {
			break
		}
		if time.Now().After(until) {
			t.Fatal("the first does not begin")
		}
	}
	place, file := m.prepare(request("2"), zipped(t, map[string]string{"a": "b"}))
	said := &waits{what: "Waiting until another deployment", then: func() { write(t, goOn, "") }}
	place.Out, place.Err = said, said
	if err := install.Run(t.Context(), place, file); err != nil {
		t.Error(err)
	}
	if err := first.Wait(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if j := m.journal(); len(j.Installations) != 2 || j.Installations[0].Version != "1" || j.Installations[1].Version != "2" {
		t.Errorf("%+v", j)
	}
}

// waits calls a function when something is written.
type waits struct {
	what string
	then func()
}

func (w *waits) Write(p []byte) (int, error) {
	if w.what != "" && strings.Contains(string(p), w.what) {
		w.what = ""
		w.then()
	}
	return len(p), nil
}
