//go:build linux

package agent_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/proctest"
)

// version puts the program into the directory of a version, as an upload does.
func version(t *testing.T, versions, sha string) string {
	t.Helper()
	dir := filepath.Join(versions, sha)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, agent.ProgramName)
	if os.Link(os.Args[0], to) == nil {
		return to
	}
	in, err := os.Open(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	return to
}

func hashOf(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

// launched runs LaunchArgs.
func launched(t *testing.T, program, home string, idle time.Duration, replace bool) agent.Launched {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), program, append(agent.LaunchArgs(idle, replace), home)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	l, ok := agent.ParseLaunched("noise of a shell\n" + string(out))
	if !ok {
		t.Fatalf("the answer is %q", out)
	}
	return l
}

// TestLaunch starts the agent of a home once, lets another version take it over in the
// middle of a script, and removes versions that nobody uses.
func TestLaunch(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	home, versions := filepath.Join(dir, "home"), filepath.Join(dir, "bin")
	t.Cleanup(func() { proctest.End(t, dir) })
	one, two := version(t, versions, hashOf("1")), version(t, versions, hashOf("2"))
	old := filepath.Join(versions, hashOf("0"))
	if err := os.MkdirAll(old, 0o700); err != nil {
		t.Fatal(err)
	}
	long := time.Now().Add(-48 * time.Hour)
	if err := os.Chtimes(old, long, long); err != nil {
		t.Fatal(err)
	}
	first := launched(t, one, home, time.Hour, true)
	if first.Home != home || first.Version != "test" {
		t.Errorf("%+v", first)
	}
	if again := launched(t, one, home, time.Hour, true); again.PID != first.PID {
		t.Errorf("agents %d and %d", first.PID, again.PID)
	}
	if _, err := os.Stat(old); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the old version is still there: %v", err)
	}
	c := agent.Dial(first.Socket)
	defer c.Close()
	hold := filepath.Join(dir, "hold")
	start(t, c, agent.StartRequest{Ticket: "Held", Body: "echo begun; until [ -e " + hold + " ]; do sleep 0.01; done; echo ended; env", Env: map[string]string{"MINE": "x"}})
	if kept := launched(t, two, home, time.Hour, false); kept.PID != first.PID {
		t.Errorf("agent %d made room for %d unasked", first.PID, kept.PID)
	}
	second := launched(t, two, home, time.Hour, true)
	if second.PID == first.PID {
		t.Error("the old agent goes on")
	}
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// The old agent closed its connections when it ended.
	fresh := agent.Dial(second.Socket)
	defer fresh.Close()
	st, log := finish(t, fresh, "Held")
	if out := text(log, agent.Stdout); st.ExitCode != 0 || !strings.Contains(out, "begun\nended\n") || !strings.Contains(out, "MINE=x\n") {
		t.Errorf("exit code %d after\n%s", st.ExitCode, out)
	}
	// Both are young, however unused.
	for _, p := range []string{one, two} {
		if _, err := os.Stat(p); err != nil {
			t.Error(err)
		}
	}
}

// TestIdle lets an agent end when nobody needs it: not while a script runs, and not
// while somebody asks.
func TestIdle(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	t.Cleanup(func() { proctest.End(t, dir) })
	home := filepath.Join(dir, "home")
	hold := filepath.Join(dir, "hold")
	// Renewed, every call finds an agent, however quickly agents end.
	r := &agent.Renewing{Current: func(ctx context.Context, _ *agent.Client) (*agent.Client, error) {
		c, err := agent.Spawn(ctx, os.Args[0], home, "--idle", "300ms")
		if err == nil {
			t.Cleanup(c.Close)
		}
		return c, err
	}}
	body := "echo begun > " + hold + ".begun; until [ -e " + hold + " ]; do sleep 0.01; done"
	await(t, "the script begins", func() bool {
		_, err := r.StartScript(t.Context(), agent.StartRequest{Ticket: "Long", Body: body})
		return err == nil && len(lines(t, hold+".begun")) > 0
	})
	first, err := r.Hello(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	wait(t, 600*time.Millisecond)
	if !alivePID(first.PID) {
		t.Error("it ended while a script ran")
	}
	if err := os.WriteFile(hold, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	await(t, "the agent ends", func() bool { return !alivePID(first.PID) })
	c := agent.Dial(agent.SocketPath(home))
	defer c.Close()
	if _, err := c.Hello(t.Context()); err == nil {
		t.Error("it answers")
	}
	await(t, "the end of the script is told", func() bool {
		st, err := r.GetStatus(t.Context(), agent.StatusRequest{Ticket: "Long"})
		return err == nil && st.State == agent.Complete && st.ExitCode == 0
	})
}

// TestConnect carries calls over a program's standard input and output.
func TestConnect(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	d := startDaemon(t, home)
	c := agent.Over(func(ctx context.Context) (net.Conn, error) {
		cmd := exec.CommandContext(context.WithoutCancel(ctx), os.Args[0], append(agent.ConnectArgs(), home)...)
		in, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { _ = cmd.Wait() })
		near, far := net.Pipe()
		go func() { _, _ = io.Copy(in, far); in.Close() }()
		go func() {
			mark := make([]byte, len("\n"+agent.ReplyMark+"\n"))
			if _, err := io.ReadFull(out, mark); err == nil {
				_, _ = io.Copy(far, out)
			}
			far.Close()
		}()
		return near, cmd.Start()
	}, "the program")
	defer c.Close() // before the programs are waited for
	hello, err := c.Hello(t.Context())
	if err != nil || hello.PID != d.cmd.Process.Pid {
		t.Fatal(hello, err)
	}
	content := bytes.Repeat([]byte("0123456789"), 100_000)
	up, err := c.UploadFile(t.Context(), "file", bytes.NewReader(content))
	if err != nil || up.SHA256 != hashOf(string(content)) {
		t.Error(up, err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], append(agent.ConnectArgs(), filepath.Join(home, "none"))...)
	if out, err := cmd.CombinedOutput(); err == nil || strings.Contains(string(out), agent.ReplyMark) {
		t.Errorf("where no agent is: %v\n%s", err, out)
	}
}

// TestVerify tells a program that came whole from another.
func TestVerify(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), os.Args[0], agent.VerifyArgs(hashOf(string(b)))...).Output()
	if reply, ok := agent.FindReply(string(out)); err != nil || !ok || reply != "verified" {
		t.Errorf("%q, %v", out, err)
	}
	if out, err := exec.CommandContext(t.Context(), os.Args[0], agent.VerifyArgs(hashOf("x"))...).Output(); err == nil {
		t.Errorf("another hash: %q", out)
	}
}

// TestExec runs scripts as an agent of another make does: by our program in the
// script's directory.
func TestExec(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	t.Cleanup(func() { proctest.End(t, dir) })
	versions := filepath.Join(dir, "Tools")
	program := version(t, versions, hashOf("1"))
	sha, content := packageOf(t, map[string]string{"hello.txt": "from #{Where}", "mine.txt": "theirs"})
	store := filepath.Join(versions, agent.PackagesName, sha)
	put := func(content []byte) {
		t.Helper()
		if err := os.MkdirAll(store, 0o700); err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{"content-1": content, agent.ReadyName: []byte("content-1")} {
			if err := os.WriteFile(filepath.Join(store, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(content)
	n := 0
	run := func(script string, req agent.ExecRequest, args ...string) (int, string) {
		t.Helper()
		n++
		work := filepath.Join(dir, fmt.Sprint("work", n))
		req.Script = ".x/script.sh"
		b, err := json.Marshal(req)
		if err != nil {
			t.Fatal(err)
		}
		for name, content := range map[string]string{req.Script: script, ".x/request.json": string(b), "mine.txt": "mine", "vars.json": `{"Where":"there"}`} {
			name = filepath.Join(work, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(content), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.CommandContext(t.Context(), program, append(agent.ExecArgs(".x/request.json"), args...)...)
		cmd.Dir = work
		cmd.Env = append(os.Environ(), "TAKO_SECRET=x")
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err = cmd.Run()
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			t.Fatal(err)
		}
		return cmd.ProcessState.ExitCode(), out.String()
	}
	full := agent.ExecRequest{Env: map[string]string{"MORE": "env"}, Sent: []string{"mine.txt", "vars.json"}, Timeout: time.Minute}
	full.Prepare.Packages = []agent.Package{{Name: "P", SHA256: sha, FileName: "P.1.zip", Extract: true}}
	full.Prepare.Substitute = agent.Substitution{Globs: []string{"hello.txt"}, Variables: "vars.json"}
	code, out := run(`echo "$1 $MORE $(cat hello.txt) $(cat mine.txt) ${TAKO_SECRET:-none} $TAKO_AGENT_EXE"; exit 7`, full, "an argument")
	if want := "an argument env from there mine none " + program + "\n"; code != 7 || !strings.Contains(out, want) || !strings.Contains(out, "was left out") {
		t.Errorf("exit code %d, want\n%s after\n%s", code, want, out)
	}
	if code, out := run("kill -KILL $$", agent.ExecRequest{}); code != 128+9 {
		t.Errorf("a killed script: %d\n%s", code, out)
	}
	// On a busy machine the time may be up before the script knows what to do then.
	for limit := 300 * time.Millisecond; ; limit *= 2 {
		code, out = run("trap 'echo asked; exit 0' TERM; sleep 1000 & wait", agent.ExecRequest{Timeout: limit})
		if code != agent.ExecExit(agent.ExitTimeout) || !strings.Contains(out, "ran longer than "+limit.String()) || !strings.Contains(out, "##octopus[resultMessage ") {
			t.Errorf("too long: %d\n%s", code, out)
		}
		if strings.Contains(out, "asked\n") {
			break
		}
		if limit > time.Minute {
			t.Fatalf("the script was not asked to end: %s", out)
		}
	}
	if err := os.WriteFile(filepath.Join(store, "content-1"), []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"was damaged", "not there any more"} {
		if code, out := run("echo never", full); code != agent.ExecExit(agent.ExitPrepare) || !strings.Contains(out, want) || strings.Contains(out, "never\n") {
			t.Errorf("%s: %d\n%s", want, code, out)
		}
	}
}

// TestExecEndsWithAgent kills our program in mid-script: the script ends with it.
func TestExecEndsWithAgent(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	t.Cleanup(func() { proctest.End(t, dir) })
	for name, content := range map[string]string{"s.sh": "echo $$ > pid; exec sleep 1000", "r.json": `{"Script":"s.sh"}`} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe, agent.ExecArgs("r.json")...)
	cmd.Dir = dir
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := 0
	await(t, "the script begins", func() bool {
		l := lines(t, filepath.Join(dir, "pid"))
		return len(l) == 1 && func() bool { _, err := fmt.Sscan(l[0], &pid); return err == nil }()
	})
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	await(t, "the script ends", func() bool { return !alivePID(pid) })
}
