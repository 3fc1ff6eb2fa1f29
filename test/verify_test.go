package test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/upgrade/preflight"
	"github.com/takodeploy/tako/internal/verify"
	"github.com/takodeploy/tako/octopus"
)

// TestTwoProgramsCompared has two programs say what they do with a backup of a server that
// runs, and compares what they said: as an upgrade does.
func TestTwoProgramsCompared(t *testing.T) {
	t.Parallel()
	s := apptest.NewProcess(t, db.SQLite)
	s.Start()
	m := newModel(t, s.Client)
	m.process(t, script("Say", "echo said #{Colour}"))
	m.variables(t, text("Colour", "blue", octopus.Scope{}))
	_, version := m.release(t, nil)
	task := m.deploy(t, version, m.Dev)
	if doc := wait(t, s.Client, task, 2*time.Minute); doc.State != octopus.TaskSuccess {
		t.Fatalf("the deployment is %s", doc.State)
	}
	mustOnServer(t, s, "", "backup", "create", "--verify", "0")
	dir := t.TempDir()
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, bytes.Repeat([]byte{5}, verify.MinKey), 0o600); err != nil {
		t.Fatal(err)
	}
	facts := func(name string) string {
		out := mustOnServer(t, s, "", "verify", "facts", "--backup", "latest", "--seed", "7", "--key-file", key)
		for _, want := range []string{`"` + task + `": "`, ": steps", "GET /api/projects", "2 sign in", "01 make a space"} {
			if !strings.Contains(out, want) {
				t.Errorf("the facts have no %s", want)
			}
		}
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(out), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	before, after := facts("before.json"), facts("after.json")
	if out := mustOnServer(t, s, "", "backup", "list"); !strings.Contains(out, "not yet") {
		t.Errorf("nobody has asked for a proof:\n%s", out)
	}
	if out, code := run(t, "", "verify", "diff", before, after); code != 0 || !strings.Contains(out, " compared: 0 differences") {
		t.Errorf("the same program twice: %d\n%s", code, out)
	}
	text, err := os.ReadFile(after)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(text, []byte(`"`+task+`": "`), []byte(`"`+task+`": "not `), 1)
	if err := os.WriteFile(after, changed, 0o600); err != nil {
		t.Fatal(err)
	}
	if out, code := run(t, "", "verify", "diff", before, after); code != 1 || !strings.Contains(out, "logs: "+task+"\n") {
		t.Errorf("a log that is another: %d\n%s", code, out)
	}
	// What runs is not tried out, and nothing of it is left where it was done.
	if _, errOut, code := onServer(t, s, nil, "", "verify", "facts", "--key-file", key); code != 1 || !strings.Contains(errOut, "no test instance in quarantine") {
		t.Errorf("on the server itself: %d %s", code, errOut)
	}
	if left, err := filepath.Glob(filepath.Join(s.Data, "tmp", "*")); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	if users := apptest.Get[octopus.Page[octopus.User]](t, s.Client, "/api/users"); strings.Contains(strings.Join(names(users.Items), " "), verify.Probe) {
		t.Errorf("users of the server: %q", names(users.Items))
	}

	asUpgrade(t, s)
}

// asUpgrade asks for what an upgrade asks for, as it does.
func asUpgrade(t *testing.T, s *apptest.Process) {
	t.Helper()
	run := func(ctx context.Context, _ string, args ...string) ([]byte, error) {
		cmd := exec.CommandContext(ctx, apptest.Binary(t), args...)
		cmd.Env = append(os.Environ(), "TAKO_DATA="+s.Data)
		return cmd.Output()
	}
	dir := filepath.Join(t.TempDir(), "facts")
	c, err := verify.Programs(t.Context(), run, "2026.4.0", "2026.5.0", "latest", dir)
	if err != nil || !c.Same() || c.Facts < 60 {
		t.Errorf("two programs: %+v, %v", c, err)
	}
	if out := mustOnServer(t, s, "", "backup", "list"); !strings.Contains(out, "level 3, ") {
		t.Errorf("the new version worked on a copy of the backup:\n%s", out)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left in %s: %v, %v", dir, left, err)
	}
	old := func(ctx context.Context, version string, args ...string) ([]byte, error) {
		args[0] = "no-such-command"
		return run(ctx, version, args...)
	}
	if _, err := verify.Programs(t.Context(), old, "2026.4.0", "2026.5.0", "latest", dir); !fault.Is(err, fault.Unsupported) {
		t.Errorf("a version without facts: %v", err)
	}
	r, err := preflight.Program(t.Context(), run, "2026.4.0", "2027.1.0", t.TempDir(), "stable", "")
	if err != nil || r.Passed() || len(r.Checks) < 18 {
		t.Fatalf("preflight: %+v, %v", r, err)
	}
	for _, c := range r.Checks {
		if strings.Contains(c.Seen, "could not be made") || c.Name == "schema" && c.Status != preflight.OK {
			t.Errorf("preflight: %+v", c)
		}
	}
}

func names(users []octopus.User) (out []string) {
	for _, u := range users {
		out = append(out, u.Username)
	}
	return out
}
