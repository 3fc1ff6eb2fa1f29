//go:build linux

package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
)

// The test binary is agent, runner and stub as well: real processes of one
// program, as in the field.
func TestMain(m *testing.M) {
	if handled, code := agent.Internal(os.Args); handled {
		os.Exit(code)
	}
	if len(os.Args) > 2 && os.Args[1] == "agent" && os.Args[2] == "run" {
		os.Exit(agentProcess(os.Args[3:]))
	}
	os.Exit(m.Run())
}

// agentProcess is "agent run --builtin --home HOME".
func agentProcess(args []string) int {
	home := args[slices.Index(args, "--home")+1]
	idle := time.Duration(0)
	handler, err := agent.LogHandler(home)
	if i := slices.Index(args, "--idle"); err == nil && i >= 0 {
		idle, err = time.ParseDuration(args[i+1])
	}
	if err == nil {
		err = agent.RunBuiltin(context.Background(), agent.Config{
			Home: home, Version: "test", Log: slog.New(handler),
			LockWait: 5 * time.Second, NoCgroup: os.Getenv("AGENT_TEST_NO_CGROUP") != "",
			PackageLimit: 1 << 20, Idle: idle,
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "agent process:", err)
		return 1
	}
	return 0
}

var lastTicket atomic.Int64

// newTicket returns a ticket nobody else has.
func newTicket() agent.Ticket {
	return agent.Ticket(fmt.Sprintf("Ticket-%d-%d", os.Getpid(), lastTicket.Add(1)))
}

// open opens a service in this process, closed at the test's end.
func open(t testing.TB, home string) *agent.Service {
	t.Helper()
	s, err := agent.Open(t.Context(), agent.Config{Home: home, Version: "test", LockWait: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// finish follows a ticket to its end and returns the whole log.
func finish(t testing.TB, a agent.Scripts, ticket agent.Ticket) (agent.Status, []agent.Entry) {
	t.Helper()
	var all []agent.Entry
	after := int64(0)
	for {
		st, err := a.GetStatus(t.Context(), agent.StatusRequest{Ticket: ticket, After: after, Wait: 10 * time.Second})
		if err != nil {
			t.Fatalf("status of %s: %v", ticket, err)
		}
		for _, e := range st.Entries {
			if after++; e.Seq != after {
				t.Fatalf("%s: entry %d came as number %d", ticket, after, e.Seq)
			}
		}
		if st.Next != after {
			t.Fatalf("%s: after %d entries Next is %d", ticket, after, st.Next)
		}
		all = append(all, st.Entries...)
		if st.State == agent.Complete {
			return st, all
		}
	}
}

// start starts a script that must be accepted.
func start(t testing.TB, a agent.Scripts, req agent.StartRequest) agent.Status {
	t.Helper()
	st, err := a.StartScript(t.Context(), req)
	if err != nil {
		t.Fatalf("start %s: %v", req.Ticket, err)
	}
	return st
}

// text joins the entries of one source.
func text(entries []agent.Entry, source agent.Source) string {
	var b strings.Builder
	for _, e := range entries {
		if e.Source == source {
			b.WriteString(e.Text + "\n")
		}
	}
	return b.String()
}

func lines(t testing.TB, name string) []string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Fields(string(b))
}

// daemon is an agent process that a test may kill.
type daemon struct {
	*agent.Client
	home string
	cmd  *exec.Cmd
}

// startDaemon starts an agent process and waits until it answers.
func startDaemon(t testing.TB, home string, env ...string) *daemon {
	t.Helper()
	d := &daemon{Client: agent.Dial(agent.SocketPath(home)), home: home}
	d.cmd = exec.CommandContext(context.Background(), os.Args[0], "agent", "run", "--builtin", "--home", home)
	d.cmd.Env = append(os.Environ(), env...)
	d.cmd.Stderr = os.Stderr
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.kill)
	d.ready(t)
	return d
}

func (d *daemon) ready(t testing.TB) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		h, err := d.Hello(t.Context())
		if err == nil && h.PID == d.cmd.Process.Pid {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the agent does not answer: %v", err)
		}
		wait(t, 2*time.Millisecond)
	}
}

// kill kills the process and waits until it is gone.
func (d *daemon) kill() {
	_ = d.cmd.Process.Kill()
	_ = d.cmd.Wait()
	d.Client.Close()
}

// wait lets other processes get on, where there is no event to wait for.
func wait(t testing.TB, d time.Duration) {
	t.Helper()
	select {
	case <-time.After(d):
	case <-t.Context().Done():
		t.Fatal("the test ran out of time")
	}
}

// await waits until ok, for what happens in other processes. It serves in a
// Cleanup too, when the test's context is over.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
		<-time.After(5 * time.Millisecond)
	}
}

func TestScript(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	a := open(t, home)
	ticket := newTicket()
	start(t, a, agent.StartRequest{
		Ticket: ticket, Body: "echo \"hello $1 $WHO\"\r\necho bad >&2\r\ncat sub/data.txt\nexit 3\n",
		Arguments: []string{"big world"}, Env: map[string]string{"WHO": "me"},
		Files: []agent.File{{Name: "sub/data.txt", Content: []byte("no line end")}},
	})
	st, log := finish(t, a, ticket)
	if st.ExitCode != 3 {
		t.Errorf("exit code %d, want 3", st.ExitCode)
	}
	if got, want := text(log, agent.Stdout), "hello big world me\nno line end\n"; got != want {
		t.Errorf("stdout %q, want %q", got, want)
	}
	if got, want := text(log, agent.Stderr), "bad\n"; got != want {
		t.Errorf("stderr %q, want %q", got, want)
	}
	if err := a.CompleteScript(t.Context(), ticket); err != nil {
		t.Fatal(err)
	}
	st = start(t, a, agent.StartRequest{Ticket: ticket, Body: "echo again"})
	if st.State != agent.Complete || st.ExitCode != 3 || st.Next != 3 || len(st.Entries) != 0 {
		t.Errorf("a late StartScript is answered with %+v", st)
	}
	if _, err := os.Stat(filepath.Join(home, agent.WorkspacePath(ticket, ""))); err == nil {
		t.Error("the workspace is still there")
	}
}

func TestDaemon(t *testing.T) {
	t.Parallel()
	d := startDaemon(t, t.TempDir())
	ticket := newTicket()
	st, err := d.StartScript(t.Context(), agent.StartRequest{Ticket: ticket, Body: "echo hi; echo $TentacleHome", Wait: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if st.State != agent.Complete || st.ExitCode != 0 || text(st.Entries, agent.Stdout) != "hi\n"+d.home+"\n" {
		t.Errorf("status %+v", st)
	}
}
