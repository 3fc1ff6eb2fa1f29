//go:build linux

package network_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/proctest"
	"github.com/takodeploy/tako/internal/targets/network/tentacletest"
	"github.com/takodeploy/tako/internal/targets/program"
)

// programs are this test's program for this platform.
func programs(t *testing.T) *program.Finder {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := program.NewFinder(exe)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// tentacleOf is an agent of another make with all of its kind's rules.
func tentacleOf(t *testing.T) (*tentacletest.Agent, *world) {
	t.Helper()
	other := tentacletest.New(t.TempDir())
	t.Cleanup(func() { proctest.End(t, other.Home) })
	return other, connect(t, false, func(agent.API) []halibut.Service { return other.Services() })
}

func packageOf(t *testing.T, content string) (hash string, b []byte) {
	t.Helper()
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	f, err := z.Create("hello.txt")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, content)
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(buf.Bytes())
	return hex.EncodeToString(sum[:]), buf.Bytes()
}

// run runs a script to its end.
func run(t *testing.T, a agent.Scripts, req agent.StartRequest) (agent.Status, string) {
	t.Helper()
	if _, err := a.StartScript(t.Context(), req); err != nil {
		t.Fatal(err)
	}
	st, out := finish(t, a, req.Ticket)
	if err := a.CompleteScript(t.Context(), req.Ticket); err != nil {
		t.Error(err)
	}
	return st, out
}

// TestOtherMake does on an agent of another make what its contract has no words for.
func TestOtherMake(t *testing.T) {
	t.Parallel()
	other, w := tentacleOf(t)
	ctx := t.Context()
	a := open(t, w)
	if a.Contract != deploy.ContractV2 || a.Home != other.Home {
		t.Errorf("it is %s in %s", a.Contract, a.Home)
	}
	if hello, err := a.Hello(ctx); err != nil || hello.Home != other.Home {
		t.Errorf("%+v, %v", hello, err)
	}
	if left, err := os.ReadDir(filepath.Join(other.Home, "Work")); err != nil || len(left) > 0 {
		t.Errorf("looking around left %v: %v", left, err)
	}
	// What the contract has words for needs no program.
	st, out := run(t, a, agent.StartRequest{Ticket: "Plain-1", Body: "pwd; cat sub/file; exit 5", Files: []agent.File{{Name: "sub/file", Content: []byte("sent\n")}}})
	if want := "0 " + filepath.Join(other.Home, "Work", "Plain-1") + "\n0 sent\n"; st.ExitCode != 5 || out != want {
		t.Errorf("exit code %d after\n%s, want\n%s", st.ExitCode, out, want)
	}
	if n := other.Uploads.Load(); n != 0 {
		t.Errorf("%d files were uploaded", n)
	}
	hash, content := packageOf(t, "from #{Where}")
	if ok, err := a.HasPackage(ctx, hash); ok || err != nil {
		t.Errorf("a package that was never sent: %v, %v", ok, err)
	}
	req := agent.StartRequest{
		Body:      `echo "$1 $MORE $(cat p/hello.txt) $(pwd) $(basename "$TAKO_AGENT_EXE")"; echo oh >&2; echo x >> ` + filepath.Join(other.Home, "runs") + `; exit 7`,
		Arguments: []string{"an argument"}, Env: map[string]string{"MORE": "env"}, Timeout: time.Minute,
		Files: []agent.File{{Name: ".tako/variables.json", Content: []byte(`{"Where":"there"}`)}},
	}
	req.Prepare.Packages = []agent.Package{{Name: "P", SHA256: hash, FileName: "P.1.0.0.zip", Extract: true, Dir: "p"}}
	req.Prepare.Substitute = agent.Substitution{Globs: []string{"p/*.txt"}, Variables: ".tako/variables.json"}
	req.Ticket = "Missing-1"
	if st, out := run(t, a, req); st.ExitCode != agent.ExecExit(agent.ExitPrepare) || !strings.Contains(out, "not there any more") {
		t.Errorf("without its package: exit code %d after\n%s", st.ExitCode, out)
	}
	if err := a.PutPackage(ctx, hash, int64(len(content))-1, bytes.NewReader(content)); !fault.Is(err, fault.Invalid) {
		t.Errorf("half a package: %v", err)
	}
	for range 2 {
		if err := a.PutPackage(ctx, hash, int64(len(content)), bytes.NewReader(content)); err != nil {
			t.Fatal(err)
		}
	}
	if ok, err := a.HasPackage(ctx, hash); !ok || err != nil {
		t.Errorf("a package that was sent: %v, %v", ok, err)
	}
	before := other.Uploads.Load()
	for i := range 3 {
		if i == 2 {
			a = open(t, w) // as after a restart of the server
		}
		req.Ticket = agent.Ticket(fmt.Sprint("Full-", i))
		// Sent again as when its answer was lost: it runs once.
		for range 2 {
			if _, err := a.StartScript(ctx, req); err != nil {
				t.Fatal(err)
			}
		}
		st, out := run(t, a, req)
		want := "0 an argument env from there " + filepath.Join(other.Home, "Work", string(req.Ticket)) + " " + agent.ProgramName + "\n"
		if st.ExitCode != 7 || !strings.Contains(out, want) || !strings.Contains(out, "1 oh\n") {
			t.Errorf("exit code %d after\n%s, want\n%s", st.ExitCode, out, want)
		}
	}
	if b, err := os.ReadFile(filepath.Join(other.Home, "runs")); err != nil || strings.Count(string(b), "x") != 3 {
		t.Errorf("they ran %q times: %v", b, err)
	}
	if n := other.Uploads.Load() - before; n != 0 {
		t.Errorf("%d files were uploaded again", n)
	}
	// The program was removed: it is brought again.
	if err := os.RemoveAll(filepath.Join(other.Home, "Tools")); err != nil {
		t.Fatal(err)
	}
	a = open(t, w)
	if st, out := run(t, a, agent.StartRequest{Ticket: "Again-1", Body: `test -x "$TAKO_AGENT_EXE" && echo there`}); st.ExitCode != 0 || out != "0 there\n" {
		t.Errorf("exit code %d after\n%s", st.ExitCode, out)
	}
}

// TestOtherMakeEnds ends scripts that an agent of another make runs for too long, or
// that are canceled.
func TestOtherMakeEnds(t *testing.T) {
	t.Parallel()
	other, w := tentacleOf(t)
	a := open(t, w)
	st, out := run(t, a, agent.StartRequest{Ticket: "Late", Body: "sleep 1000 & echo begun; wait", Timeout: 200 * time.Millisecond})
	if st.ExitCode != agent.ExecExit(agent.ExitTimeout) || !strings.Contains(out, "ran longer than 200ms") {
		t.Errorf("exit code %d after\n%s", st.ExitCode, out)
	}
	pid := filepath.Join(other.Home, "pid")
	if _, err := a.StartScript(t.Context(), agent.StartRequest{Ticket: "Canceled", Body: "echo $$ > " + pid + ".new && mv " + pid + ".new " + pid + "; exec sleep 1000", Timeout: time.Hour}); err != nil {
		t.Fatal(err)
	}
	await := func(what string, ok func() bool) {
		t.Helper()
		deadline := time.Now().Add(2 * time.Minute)
		for !ok() {
			if time.Now().After(deadline) {
				t.Fatalf("waited in vain: %s", what)
			}
			<-time.After(5 * time.Millisecond)
		}
	}
	n := 0
	await("the script begins", func() bool {
		b, err := os.ReadFile(pid)
		if err == nil {
			n, err = strconv.Atoi(strings.TrimSpace(string(b)))
		}
		return err == nil
	})
	if _, err := a.CancelScript(t.Context(), agent.StatusRequest{Ticket: "Canceled"}); err != nil {
		t.Fatal(err)
	}
	if st, _ := finish(t, a, "Canceled"); st.ExitCode != agent.ExitCanceled {
		t.Errorf("exit code %d", st.ExitCode)
	}
	await("the script ends", func() bool { return errors.Is(syscall.Kill(n, 0), syscall.ESRCH) })
}

// TestOtherMakeUnfit says what is wrong with agents that cannot do what is needed.
func TestOtherMakeUnfit(t *testing.T) {
	t.Parallel()
	other, w := tentacleOf(t)
	other.Windows = true
	a := open(t, w)
	if _, err := a.StartScript(t.Context(), agent.StartRequest{Ticket: "W", Body: "echo hi"}); !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "runs on Windows") {
		t.Errorf("on Windows: %v", err)
	}
	other.Windows = false
	// A program that is not what it should be does not stay.
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "tako"), []byte("#!/bin/sh\necho not me\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	bad := program.NewFinder(filepath.Join(dir, "tako"))
	t.Cleanup(func() { _ = bad.Close() })
	a = openWith(t, w, bad)
	if _, err := a.StartScript(t.Context(), agent.StartRequest{Ticket: "B", Body: "echo hi", Timeout: time.Minute}); !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "not me") {
		t.Errorf("another program: %v", err)
	}
	ran := filepath.Join(other.Home, "ran")
	other.Instead = "#!/bin/sh\n: >'" + ran + "'\n"
	if _, err := open(t, w).StartScript(t.Context(), agent.StartRequest{Ticket: "I", Body: "echo hi", Timeout: time.Minute}); !fault.Is(err, fault.Unsupported) || !strings.Contains(err.Error(), "what arrived has another SHA-256") {
		t.Errorf("a file that was changed: %v", err)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("what is not ours was run")
	}
	other.Instead = ""
	if _, err := a.HasPackage(t.Context(), "../../x"); !fault.Is(err, fault.Invalid) {
		t.Errorf("no hash: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.StartScript(ctx, agent.StartRequest{Ticket: "N", Body: "echo hi", Timeout: time.Minute}); !errors.Is(err, agent.ErrNotSent) || errors.Is(err, agent.ErrUnanswered) {
		t.Errorf("before it was sent: %v", err)
	}
	if err := a.PutPackage(t.Context(), strings.Repeat("0", 64), 5, io.LimitReader(strings.NewReader("12345678"), 5)); !fault.Is(err, fault.Invalid) {
		t.Errorf("another content: %v", err)
	}
}
