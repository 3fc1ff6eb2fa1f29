package setup_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/setup"
)

// program is one that tells how it was called.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tako")
	text := "#!/bin/sh\necho \"$0|$*|$TAKO_LISTEN|$TAKO_DATA|$TAKO_ODD|$OTHER\"\n"
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func request(t *testing.T, version string) *setup.Request {
	t.Helper()
	layout, err := setup.Usual(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return &setup.Request{Layout: layout, Version: version, Program: program(t), Listen: "127.0.0.1:1", Admin: "root", Start: true}
}

func install(t *testing.T, r *setup.Request) setup.Done {
	t.Helper()
	done, err := setup.Install(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	// A child that another test forked meanwhile may have a program open for writing still,
	// which nobody can run then. None that is forked from now on has.
	syscall.ForkLock.RLock()
	syscall.ForkLock.RUnlock() //nolint:staticcheck // to wait is all
	return done
}

func modes(t *testing.T, want map[string]fs.FileMode) {
	t.Helper()
	for path, mode := range want {
		if info, err := os.Lstat(path); err != nil || info.Mode() != mode {
			t.Errorf("%s: %v %v, want %v", path, info, err, mode)
		}
	}
}

func TestInstall(t *testing.T) {
	t.Parallel()
	r := request(t, "2026.4.0")
	done := install(t, r)
	if done.Version != "2026.4.0" || done.Managed || done.Started || len(done.Changed) == 0 {
		t.Errorf("%+v", done)
	}
	at := func(parts ...string) string { return filepath.Join(append([]string{r.Root}, parts...)...) }
	modes(t, map[string]fs.FileMode{
		r.Root: fs.ModeDir | 0o755, at("versions"): fs.ModeDir | 0o755, at("data"): fs.ModeDir | 0o700, at("backups"): fs.ModeDir | 0o700,
		at("upgrade"): fs.ModeDir | 0o700, at("run"): fs.ModeDir | 0o700, at("versions", "2026.4.0", "tako"): 0o755,
		r.Supervisor(): 0o755, r.Command(): 0o755, r.Settings(): 0o640, r.Unit(): 0o644,
	})
	if link, err := os.Readlink(at("current")); link != "versions/2026.4.0" {
		t.Error(link, err)
	}
	if done := install(t, r); len(done.Changed) != 0 {
		t.Errorf("done again it changes %v", done.Changed)
	}
	// What an administrator has changed stays; what was lost is made anew.
	if err := os.WriteFile(r.Settings(), []byte("TAKO_LISTEN=1.2.3.4:5\nOTHER=x\nTAKO_ODD=a b$c"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(r.Unit()); err != nil {
		t.Fatal(err)
	}
	if done := install(t, r); len(done.Changed) != 1 || done.Changed[0] != r.Unit() {
		t.Errorf("it changes %v", done.Changed)
	}
	for args, want := range map[string]string{
		"doctor --fix": at("current", "tako") + "|doctor --fix|1.2.3.4:5|" + at("data") + "|a b$c|\n",
		"supervise":    r.Supervisor() + "|supervise|1.2.3.4:5|" + at("data") + "|a b$c|\n",
		"uninstall":    r.Supervisor() + "|uninstall||||\n",
	} {
		if out, err := exec.CommandContext(t.Context(), r.Command(), strings.Fields(args)...).CombinedOutput(); err != nil || string(out) != want {
			t.Errorf("%s: %q %v, want %q", args, out, err, want)
		}
	}
	other := *r
	other.Version = "2026.5.0"
	if _, err := setup.Install(t.Context(), &other); !errors.Is(err, setup.ErrOther) || !strings.Contains(err.Error(), r.Command()+" upgrade") {
		t.Errorf("another version over it: %v", err)
	}
	if _, err := os.Stat(at("versions", "2026.5.0")); err == nil {
		t.Error("another version was installed")
	}
}

// TestInstallGoesOn: an installation that was cut short anywhere is ended by another.
func TestInstallGoesOn(t *testing.T) {
	t.Parallel()
	whole := request(t, "2026.4.0")
	for _, path := range install(t, whole).Changed {
		r := *whole
		rel, err := filepath.Rel(whole.Prefix, path)
		if err != nil {
			t.Fatal(err)
		}
		if r.Layout, err = setup.Usual(t.TempDir()); err != nil {
			t.Fatal(err)
		}
		install(t, &r)
		if err := os.RemoveAll(filepath.Join(r.Prefix, rel)); err != nil {
			t.Fatal(err)
		}
		install(t, &r)
		if done := install(t, &r); len(done.Changed) != 0 {
			t.Errorf("without %s, the second time it changes %v", rel, done.Changed)
		}
		if out, err := exec.CommandContext(t.Context(), r.Command(), "x").CombinedOutput(); err != nil || !strings.Contains(string(out), "|x|127.0.0.1:1|") {
			t.Errorf("without %s: %s %v", rel, out, err)
		}
	}
}

func TestUninstall(t *testing.T) {
	t.Parallel()
	r := request(t, "2026.4.0")
	install(t, r)
	removal := &setup.Removal{Layout: r.Layout}
	lock, err := durable.TryLock(filepath.Join(r.Root, "run", "supervisor.lock"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := setup.Uninstall(t.Context(), removal); err == nil || !strings.Contains(err.Error(), "a supervisor runs") {
		t.Errorf("under a supervisor: %v", err)
	}
	if err := lock.Unlock(); err != nil {
		t.Fatal(err)
	}
	out, err := setup.Uninstall(t.Context(), removal)
	if err != nil || len(out.Kept) != 2 || out.Kept[0] != r.Root {
		t.Errorf("%+v %v", out, err)
	}
	for path, there := range map[string]bool{r.Unit(): false, r.Command(): false, r.Lib: false, r.Settings(): true, r.Data(): true} {
		if _, err := os.Stat(path); (err == nil) != there {
			t.Errorf("%s: %v", path, err)
		}
	}
	// Another version than that of the data puts that of the data back into service.
	other := *r
	other.Version = "2026.5.0"
	if done := install(t, &other); done.Version != "2026.4.0" {
		t.Errorf("%+v", done)
	}
	removal.Purge = true
	if _, err := setup.Uninstall(t.Context(), removal); err != nil {
		t.Error(err)
	}
	for _, path := range []string{r.Root, r.Etc, r.Lib} {
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
	if _, err := setup.Uninstall(t.Context(), removal); err == nil || !strings.Contains(err.Error(), "nothing of Tako") {
		t.Errorf("where nothing is: %v", err)
	}
}

// TestUninstallEndsUpgrade: the process that carries an upgrade out, days after the switch
// as well, ends with the service, and is no script of somebody's.
func TestUninstallEndsUpgrade(t *testing.T) {
	t.Parallel()
	r := request(t, "2026.4.0")
	install(t, r)
	cat, err := exec.LookPath("cat")
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(r.Root, "versions", "2026.4.0", "cat")
	if out, err := exec.CommandContext(t.Context(), "cp", cat, program).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	worker := exec.CommandContext(t.Context(), program, "-", "upgrade-worker") // it reads until it is ended
	in, err := worker.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	// The kernel knows its arguments a moment after it has begun to run.
	line := fmt.Sprintf("/proc/%d/cmdline", worker.Process.Pid)
	for late := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) { //nolint:forbidigo // between two looks
		if args, err := os.ReadFile(line); err != nil || time.Now().After(late) {
			t.Fatalf("its arguments: %q, %v", args, err)
		} else if strings.HasSuffix(string(args), "upgrade-worker\x00") {
			break
		}
	}
	ended := make(chan error, 1)
	go func() { ended <- worker.Wait() }()
	out, err := setup.Uninstall(t.Context(), &setup.Removal{Layout: r.Layout, Purge: true})
	if err != nil || len(out.Scripts) > 0 {
		t.Errorf("%+v %v", out, err)
	}
	_ = in.Close() // it ends by that if it was left
	if err := <-ended; err == nil || err.Error() != "signal: terminated" {
		t.Errorf("it has ended: %v", err)
	}
}

// TestContainersData: in the data of a container there is no program.
func TestContainersData(t *testing.T) {
	t.Parallel()
	r := request(t, "2026.4.0")
	if err := os.MkdirAll(r.Root, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("versions/2026.4.0", filepath.Join(r.Root, "current")); err != nil {
		t.Fatal(err)
	}
	other := *r
	other.Version = "2026.5.0"
	if _, err := setup.Install(t.Context(), &other); err == nil || !strings.Contains(err.Error(), "install that version first") {
		t.Errorf("another version: %v", err)
	}
	install(t, r)
	if _, err := os.Stat(filepath.Join(r.Root, "current", "tako")); err != nil {
		t.Error(err)
	}
}

func TestPrefixes(t *testing.T) {
	t.Parallel()
	if _, err := setup.Usual("/srv/a b"); err == nil || !strings.Contains(err.Error(), "blank") {
		t.Error(err)
	}
	l, err := setup.Usual("")
	if err != nil || l.Root != "/var/lib/tako" || l.User != "tako" || l.Unit() != "/etc/systemd/system/tako.service" {
		t.Errorf("%+v %v", l, err)
	}
	for addr, good := range map[string]bool{"127.0.0.1:8065": true, ":80": true, "8065": false, "a b:1": false, "localhost:": false} {
		if err := setup.CheckListen(addr); (err == nil) != good {
			t.Errorf("%q: %v", addr, err)
		}
	}
}

// TestSystemdTakesTheUnits asks systemd itself. `make test` installs it.
func TestSystemdTakesTheUnits(t *testing.T) {
	t.Parallel()
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("systemd-analyze is not installed")
		}
		t.Skip("systemd-analyze is not installed")
	}
	verify := func(r *setup.Request) (string, error) {
		out, err := exec.CommandContext(t.Context(), analyze, "verify", "--man=no", "--generators=no", r.Unit()).CombinedOutput()
		return string(out), err
	}
	for _, noWorker := range []bool{false, true} {
		r := request(t, "2026.4.0")
		r.NoWorker = noWorker
		install(t, r)
		out, err := verify(r)
		if err != nil {
			t.Errorf("systemd-analyze verify: %v\n%s", err, out)
		}
		for line := range strings.Lines(out) { // it warns of what it ignores
			if strings.Contains(line, "tako") {
				t.Errorf("systemd-analyze verify: %s", line)
			}
		}
		unit, err := os.ReadFile(r.Unit())
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"Type=notify\n", "KillMode=process\n", "OOMPolicy=continue\n", "Delegate=yes\n", "FileDescriptorStoreMax=16\n", "Restart=always\n", "RestartPreventExitStatus=78\n"} {
			if !strings.Contains(string(unit), want) {
				t.Errorf("no %q in\n%s", want, unit)
			}
		}
		for _, harm := range []string{"NoNewPrivileges", "ProtectSystem", "ProtectHome", "PrivateTmp", "UMask"} {
			if strings.Contains(string(unit), harm) {
				t.Errorf("scripts of the built-in worker are kept from what they need by %s", harm)
			}
		}
		tight, err := os.ReadFile(r.Unit() + ".d/no-worker.conf")
		if noWorker != (err == nil) || strings.Contains(string(tight), "PrivateTmp") {
			t.Errorf("without a worker %t: %v %s", noWorker, err, tight)
		}
		if err := os.Remove(r.Supervisor()); err != nil {
			t.Fatal(err)
		}
		if out, err := verify(r); err == nil {
			t.Errorf("the check checks nothing: %s", out)
		}
	}
}
