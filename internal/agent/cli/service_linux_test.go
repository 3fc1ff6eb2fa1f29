package cli_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/agent/instance"
)

// TestService has a fake of systemctl, which lies outside, tell what it was asked.
func TestService(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(instance.EnvDir, filepath.Join(dir, "agents"))
	systemctl, log := filepath.Join(dir, "systemctl"), filepath.Join(dir, "log")
	if err := os.WriteFile(systemctl, []byte("#!/bin/sh\necho \"$*\" >> '"+log+"'\n[ \"$1\" != is-active ] || echo active\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	p := program()
	p.Prefix = []string{"agent"}
	p.Services.UnitDir, p.Services.Systemctl = dir, systemctl
	must := func(code int, says string, args ...string) {
		t.Helper()
		if got, out := run(p, args...); got != code || !strings.Contains(out, says) {
			t.Errorf("%q: exit code %d, want %d with %q:\n%s", args, got, code, says, out)
		}
	}
	must(1, `There is no instance "Web"`, "service", "install", "--instance", "Web")
	must(0, "The instance Web is configured", "configure", "--instance", "Web", "--home", filepath.Join(dir, "home"), "--noListen")
	must(1, "is not installed", "service", "start", "--instance", "web")
	must(1, "tako-agent-web: not installed", "service", "status", "--instance", "web")
	must(0, "The service tako-agent-web is installed", "service", "install", "--instance", "web", "--user", "deploy")
	unit, err := os.ReadFile(filepath.Join(dir, "tako-agent-web.service"))
	if err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"ExecStart=" + exe + " agent run --instance Web\n", `Environment="` + instance.EnvDir + "=" + filepath.Join(dir, "agents") + `"`, "User=deploy\n"} {
		if !strings.Contains(string(unit), want) {
			t.Errorf("no %q in\n%s", want, unit)
		}
	}
	must(0, "has started", "service", "start", "--instance", "web")
	must(0, `"State": "running"`, "service", "status", "--instance", "web", "--output", "json")
	must(0, "has stopped", "service", "stop", "--instance", "web")
	must(0, "is gone", "service", "uninstall", "--instance", "web")
	calls, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	want := "daemon-reload\nenable tako-agent-web.service\nrestart tako-agent-web.service\nis-active tako-agent-web.service\nstop tako-agent-web.service\ndisable --now tako-agent-web.service\ndaemon-reload\n"
	if string(calls) != want {
		t.Errorf("systemctl was asked\n%s", calls)
	}

	// Settings that no flag names stay; a proxy's password is not shown.
	must(0, "configured", "configure", "--instance", "web", "--port", "10950", "--proxy", "http://me:hidden@proxy:3128")
	if code, out := run(p, "list-instances"); code != 0 || !strings.Contains(out, filepath.Join(dir, "home")) || strings.Contains(out, "10950") || strings.Contains(out, "hidden") {
		t.Errorf("%d %s", code, out)
	}
	must(0, "configured", "configure", "--instance", "web", "--no-listen=false")
	must(0, ":10950", "list-instances")
	must(2, `--server-comms-port "0": give a port`, "poll-server", "--server", "http://x", "--api-key", "API-X", "--server-comms-port", "0", "--instance", "web")
	must(0, "its home "+filepath.Join(dir, "home")+" is left", "delete-instance", "--instance", "WEB")
}
