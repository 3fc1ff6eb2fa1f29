//go:build linux

package daemon_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/agent/daemon"
)

// analyze is systemd's own check of a unit. Where it is not installed, the rest of the
// tests says nothing of it; `make test` installs it.
func analyze(t *testing.T, s daemon.Service) string {
	t.Helper()
	program, err := exec.LookPath("systemd-analyze")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("systemd-analyze is not installed")
		}
		t.Skip("systemd-analyze is not installed")
	}
	path := filepath.Join(t.TempDir(), s.Name+".service")
	if err := os.WriteFile(path, []byte(s.Unit()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), program, "verify", "--man=no", "--generators=no", path).CombinedOutput()
	if err != nil {
		t.Errorf("systemd-analyze verify: %v\n%s\n%s", err, out, s.Unit())
	}
	return string(out)
}

func TestSystemdTakesTheUnit(t *testing.T) {
	t.Parallel()
	odd := filepath.Join(t.TempDir(), "a program")
	if err := os.WriteFile(odd, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, s := range []daemon.Service{
		{Name: "tako-agent", Description: "Tako agent", Exe: "/bin/sh", Args: []string{"agent", "run", "--instance", "default"}},
		{
			Name: "tako-agent-web_1.x", Description: "Tako agent 100% \"web\"", Exe: odd, User: "root",
			Args: []string{"run", "a b", `c"d\e`, "$HOME", "50%", "", "x;y"}, Env: []string{`TAKO_AGENT_CONFIG=/srv/my agents/100%/"x"`},
		},
	} {
		// It warns of what it ignores, and succeeds.
		for line := range strings.Lines(analyze(t, s)) {
			if strings.Contains(line, s.Name) {
				t.Errorf("systemd-analyze verify: %s\n%s", line, s.Unit())
			}
		}
	}
	if out := analyzeFails(t, daemon.Service{Name: "broken", Exe: "/no/such/program"}); !strings.Contains(out, "/no/such/program") {
		t.Errorf("it takes anything: %s", out)
	}
}

// analyzeFails is analyze for a unit that must not pass: the check checks something.
func analyzeFails(t *testing.T, s daemon.Service) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), s.Name+".service")
	if err := os.WriteFile(path, []byte(s.Unit()), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "verify", "--man=no", "--generators=no", path).CombinedOutput()
	if err == nil {
		t.Error("systemd-analyze took a unit without a program")
	}
	return string(out)
}

func TestUnitLetsScriptsLive(t *testing.T) {
	t.Parallel()
	unit := daemon.Service{Name: "x", Exe: "/usr/bin/tako-agent", Args: []string{"run", "50%", "a b", "$X"}, Env: []string{"A=b c"}}.Unit()
	for _, want := range []string{
		"KillMode=process\n", "Delegate=yes\n", "OOMPolicy=continue\n", "Restart=always\n", "Type=notify\n",
		"ExecStart=/usr/bin/tako-agent run \"50%%\" \"a b\" \"$$X\"\n", "Environment=\"A=b c\"\n",
	} {
		if !strings.Contains(unit, want) {
			t.Errorf("no %q in\n%s", want, unit)
		}
	}
	for _, harm := range []string{"NoNewPrivileges", "ProtectSystem", "ProtectHome", "PrivateTmp", "User="} {
		if strings.Contains(unit, harm) {
			t.Errorf("scripts that need more are kept from it by %s", harm)
		}
	}
}

// fakeSystemctl notes its arguments and answers is-active from a file.
func fakeSystemctl(t *testing.T) (m daemon.Manager, calls func() []string, say func(string)) {
	t.Helper()
	dir := t.TempDir()
	log, answer, program := filepath.Join(dir, "calls"), filepath.Join(dir, "answer"), filepath.Join(dir, "systemctl")
	script := "#!/bin/sh\necho \"$*\" >> '" + log + "'\nif [ \"$1\" = is-active ]; then cat '" + answer + "'; grep -q '^active' '" + answer + "' || exit 3; fi\n" +
		"if [ -e '" + dir + "/fail' ]; then echo 'Access denied' >&2; exit 1; fi\n"
	if err := os.WriteFile(program, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	say = func(s string) {
		name := answer
		if s == "fail" {
			name = filepath.Join(dir, "fail")
		}
		if err := os.WriteFile(name, []byte(s+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	calls = func() []string {
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(log); err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(b)), "\n")
	}
	return daemon.Manager{UnitDir: t.TempDir(), Systemctl: program}, calls, say
}

func TestSystemd(t *testing.T) {
	t.Parallel()
	m, calls, say := fakeSystemctl(t)
	ctx := t.Context()
	s := daemon.Service{Name: "tako-agent", Exe: "/bin/true"}
	wantCalls := func(want ...string) {
		t.Helper()
		if diff := cmp.Diff(want, calls()); diff != "" {
			t.Error(diff)
		}
	}
	if state, err := m.Status(ctx, s.Name); err != nil || state != daemon.NotInstalled {
		t.Error(state, err)
	}
	for _, err := range []error{m.Start(ctx, s.Name), m.Stop(ctx, s.Name)} {
		if err == nil || !strings.Contains(err.Error(), "service install") {
			t.Error(err)
		}
	}
	if err := m.Uninstall(ctx, s.Name); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := m.Install(ctx, s); err != nil {
			t.Fatal(err)
		}
		wantCalls("daemon-reload", "enable tako-agent.service")
	}
	path := filepath.Join(m.UnitDir, "tako-agent.service")
	if b, err := os.ReadFile(path); err != nil || string(b) != s.Unit() {
		t.Errorf("%s %v", b, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o644 {
		t.Error(info.Mode(), err)
	}
	if err := m.Start(ctx, s.Name); err != nil {
		t.Error(err)
	}
	wantCalls("restart tako-agent.service")
	for answer, want := range map[string]daemon.State{"active": daemon.Running, "failed": daemon.Failed, "inactive": daemon.Stopped} {
		say(answer)
		if state, err := m.Status(ctx, s.Name); err != nil || state != want {
			t.Errorf("%s: %s %v", answer, state, err)
		}
		wantCalls("is-active tako-agent.service")
	}
	say("unheard of")
	if state, err := m.Status(ctx, s.Name); err == nil {
		t.Errorf("an answer that nobody knows is %q", state)
	}
	calls()
	if err := m.Stop(ctx, s.Name); err != nil {
		t.Error(err)
	}
	if err := m.Uninstall(ctx, s.Name); err != nil {
		t.Error(err)
	}
	wantCalls("stop tako-agent.service", "disable --now tako-agent.service", "daemon-reload")
	if _, err := os.Stat(path); err == nil {
		t.Error("the unit is still there")
	}
	say("fail")
	if err := m.Install(ctx, s); err == nil || !strings.Contains(err.Error(), "systemctl daemon-reload") || !strings.Contains(err.Error(), "Access denied") {
		t.Error(err)
	}
}
