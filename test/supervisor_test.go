package test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/takodeploy/tako/internal/agent/daemon"
	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/setup"
	"github.com/takodeploy/tako/internal/supervisor"
)

// TestSupervisorReplaced: the installer replaces the supervisor, which is started anew as
// systemd does it, and the server goes on.
func TestSupervisorReplaced(t *testing.T) {
	t.Parallel()
	dir := apptest.ShortDir(t)
	at := func(name string) string { return filepath.Join(dir, name) }
	program, err := os.ReadFile(apptest.Binary(t))
	if err != nil {
		t.Fatal(err)
	}
	out, _ := run(t, "", "version", "--output", "json")
	var says struct{ Version string }
	if err := json.Unmarshal([]byte(out), &says); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(at("systemctl"), []byte("#!/bin/sh\n[ \"$1\" != is-active ] || echo active\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	layout := setup.Layout{Root: at("root"), Lib: at("lib"), Bin: at("bin"), Etc: at("etc"), Units: at("units")}
	// Programs that differ, and do the same: what follows a program's end is not read.
	request := func(more string) *setup.Request {
		path := at("program" + more)
		if err := os.WriteFile(path, append(bytes.Clone(program), more...), 0o755); err != nil {
			t.Fatal(err)
		}
		return &setup.Request{
			Layout: layout, Version: says.Version, Program: path, Listen: "127.0.0.1:0", Admin: "ann",
			Systemd: daemon.Manager{Systemctl: at("systemctl"), UnitDir: layout.Units},
		}
	}
	if _, err := setup.Install(t.Context(), request("")); err != nil {
		t.Fatal(err)
	}
	keeper := exec.Command("sh", "-c", `while [ ! -e "$0/stop" ]; do "$0/lib/tako" supervise --root "$0/root" >>"$0/log" 2>&1; done`, dir)
	keeper.Env = append(os.Environ(), "TAKO_LISTEN=127.0.0.1:0", "TAKO_AGENT_LISTEN=off", "TAKO_BUILTIN_WORKER=false")
	if err := keeper.Start(); err != nil {
		t.Fatal(err)
	}
	ask := func() (r supervisor.Report) {
		t.Helper()
		eventually(t, "the supervisor has a server", func() bool {
			var err error
			r, err = supervisor.Ask(t.Context(), layout.Root, supervisor.Order{Do: "status"})
			return err == nil && r.Server != nil
		})
		return r
	}
	before := ask()
	end := func() {
		if err := os.WriteFile(at("stop"), nil, 0o600); err != nil {
			t.Error(err)
		}
		_ = syscall.Kill(ask().PID, syscall.SIGTERM)
		_ = keeper.Wait()
	}
	defer func() {
		if t.Failed() {
			log, _ := os.ReadFile(at("log"))
			t.Logf("%s", log)
		}
		end()
	}()

	replace := func(r *setup.Request) (setup.Done, error) {
		r.SupervisorOnly, r.Start = true, true
		return setup.Install(t.Context(), r)
	}
	newer := request("newer")
	for again := range 2 {
		done, err := replace(newer)
		if err != nil || !done.Started || done.Former != 0 || (len(done.Changed) == 0) != (again > 0) {
			t.Fatalf("%+v %v", done, err)
		}
		if again == 0 && done.Server != before.Server.PID {
			t.Errorf("%+v", done)
		}
		after := ask()
		if after.PID == before.PID || after.Server.PID != before.Server.PID {
			t.Errorf("supervisor %d and server %d, before %d and %d", after.PID, after.Server.PID, before.PID, before.Server.PID)
		}
		is, err := os.Stat(fmt.Sprintf("/proc/%d/exe", after.PID))
		if err != nil {
			t.Fatal(err)
		}
		if there, err := os.Stat(layout.Supervisor()); err != nil || !os.SameFile(is, there) || there.Size() != int64(len(program)+len("newer")) {
			t.Errorf("another program than the new one runs: %v", err)
		}
	}
	// Without a start the process is named that is still the one before.
	newest := request("newest")
	newest.SupervisorOnly = true
	if done, err := setup.Install(t.Context(), newest); err != nil || done.Former != ask().PID || done.Started {
		t.Errorf("%+v %v", done, err)
	}
	old := request("older")
	old.Version = "2020.1.0"
	if _, err := replace(old); err == nil || !strings.Contains(err.Error(), "servers may need the newer one") {
		t.Errorf("an older one: %v", err)
	}
}

// TestInstallerWithoutExec: where no program can be run from, the installer says so.
func TestInstallerWithoutExec(t *testing.T) {
	t.Parallel()
	contained(t)
	program := filepath.Join(t.TempDir(), "tako")
	if err := os.WriteFile(program, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	const script = `mount --make-rprivate / && mount -t tmpfs -o noexec,size=1m tmpfs "$1" && TMPDIR=$1 sh "$2" --from "$3" --prefix "$1/x"`
	out, err := exec.CommandContext(t.Context(), "unshare", "--mount", "sh", "-c", script, "sh", t.TempDir(), installer, program).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "TMPDIR=") {
		t.Errorf("%v %s", err, out)
	}
}

// TestRootKeepsOut: root neither runs a server in a directory of somebody else's nor
// upgrades it.
func TestRootKeepsOut(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("only root may give a directory away")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if out, code := run(t, "", "supervise", "--root", dir); code != 78 || !strings.Contains(out, "belongs to the user nobody, and you are root") {
		t.Errorf("%d %s", code, out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("%v %v", left, err)
	}
	if err := os.Symlink("versions/2026.4.0", filepath.Join(dir, "current")); err != nil {
		t.Fatal(err)
	}
	if out, code := run(t, "", "upgrade", "status", "--root", dir); code != 2 || !strings.Contains(out, "belongs to the user nobody, and you are root") {
		t.Errorf("%d %s", code, out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v %v", left, err)
	}
}
