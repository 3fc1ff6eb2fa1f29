//go:build linux

package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
)

// alivePID reports whether a process lives; a zombie does not.
func alivePID(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	f := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return f[0] != "Z" && f[0] != "X"
}

// What a script finds around itself: none of our signals ignored, descriptors or
// settings inherited, and the names that Tentacle gives.
func TestScriptSurroundings(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "TAKO_MASTER_SECRET=hunter2", "NOTIFY_SOCKET=/x", failpoint.Env+"=nowhere:kill")
	ticket := newTicket()
	if _, err := w.start(t.Context(), agent.StartRequest{
		Ticket: ticket, Env: map[string]string{"PATH": os.Getenv("PATH"), "TAKO_GIVEN": "yes", "MULTI": "a\nb"},
		Body: `ls /proc/self/fd | tr '\n' ' '; echo
grep SigIgn /proc/self/status; grep SigBlk /proc/self/status
cat /proc/self/oom_score_adj
env | grep -a TAKO_ | grep -v '^TAKO_AGENT_EXE=/proc/[0-9]*/exe$' | sort; env | grep NOTIFY
test -x "$TAKO_AGENT_EXE" && cmp "$TAKO_AGENT_EXE" "$TentacleExecutablePath" && echo "our own program"
echo "$TentacleHome|$TentacleVersion|$TentacleInstanceName"
echo "$MULTI"; pwd
ps -o sid= -p $$ | tr -d ' '; echo $$
`,
	}); err != nil {
		t.Fatal(err)
	}
	st, log := finish(t, w, ticket)
	ws := filepath.Join(w.home, "Work", strings.ToLower(string(ticket)), "files")
	oom, err := os.ReadFile("/proc/self/oom_score_adj")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Split(text(log, agent.Stdout), "\n")
	if len(got) < 12 {
		t.Fatalf("%+v %v", st, log)
	}
	pid := got[len(got)-2]
	// What the caller of the tests ignores is inherited (the C library's own
	// signals, 32 and 33, by some); what runners ignore must not be.
	for i, line := range got {
		if mask, ok := strings.CutPrefix(line, "SigIgn:\t"); ok {
			ignored, err := strconv.ParseUint(mask, 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			const libc = 1<<31 | 1<<32
			got[i] = fmt.Sprintf("SigIgn:\t%016x", ignored&^libc)
		}
	}
	want := []string{
		"0 1 2 3 ", "SigIgn:\t0000000000000000", "SigBlk:\t0000000000000000", strings.TrimSpace(string(oom)),
		"TAKO_GIVEN=yes", "TAKO_SCRIPT_TICKET=" + strings.ToLower(string(ticket)), "our own program", w.home + "|test|Tako",
		"a", "b", ws, pid, pid, "",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
}

func TestCancel(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, body string
		env        string
		runner     bool // kill the runner first: the script is an orphan
		atLeast    time.Duration
	}{
		{"obeys", "sleep 100", "A=b", false, 0},
		{"ignores SIGTERM", "trap '' TERM; while :; do sleep 1; done", "A=b", false, 5 * time.Second},
		{"a tree", "(sleep 100; :) | (sleep 100; :) & setsid sleep 100 & nohup sleep 100 & wait", "A=b", false, 0},
		{"a tree without cgroup", "(sleep 100; :) & setsid bash -c 'sleep 100 & wait' & (setsid sleep 100 &) & wait", "AGENT_TEST_NO_CGROUP=1", false, 0},
		{"an orphan", "exec > /dev/null; setsid bash -c 'sleep 100 & wait' & sleep 100", "A=b", true, 0},
		{"an orphan without cgroup", "exec > /dev/null; (setsid setsid sleep 100 &); sleep 100 & wait", "AGENT_TEST_NO_CGROUP=1", true, 0},
		{"a stopped script", "kill -STOP $$", "A=b", false, 5 * time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.env)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			ticket := newTicket()
			mark := filepath.Join(t.TempDir(), "running")
			if _, err := w.start(ctx, agent.StartRequest{Ticket: ticket, Body: "echo $$ > " + mark + "\n" + c.body}); err != nil {
				t.Fatal(err)
			}
			await(t, "the script runs", func() bool { return len(lines(t, mark)) == 1 })
			wait(t, 100*time.Millisecond) // for its children
			members := membersOf(ticket)
			if len(members) == 0 {
				t.Fatal("no process has the ticket in its environment")
			}
			if c.runner {
				if !w.killIn(ticket, "lock") {
					t.Fatal("there is no runner to kill")
				}
			}
			begin := time.Now()
			if _, err := w.cancel(ctx, ticket); err != nil {
				t.Fatal(err)
			}
			st, log, err := w.follow(ctx, ticket)
			if err != nil || st.ExitCode != agent.ExitCanceled {
				t.Errorf("%+v, %v, %v", st, log, err)
			}
			if took := time.Since(begin); took > time.Minute || took < c.atLeast {
				t.Errorf("cancelling took %v", took)
			}
			for _, pid := range members { // one that is killed takes a moment to be gone
				await(t, fmt.Sprintf("process %d is gone", pid), func() bool { return !alivePID(pid) })
			}
			if left := membersOf(ticket); len(left) > 0 {
				t.Errorf("processes %v still live", left)
			}
		})
	}
}

// processesWith lists the living processes with a variable in their environment.
func processesWith(variable string) []int {
	var out []int
	envs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, name := range envs {
		b, err := os.ReadFile(name)
		pid := strings.Split(name, "/")[2]
		n, err2 := strconv.Atoi(pid)
		if err == nil && err2 == nil && strings.Contains("\x00"+string(b), "\x00"+variable+"\x00") && alivePID(n) {
			out = append(out, n)
		}
	}
	return out
}

// membersOf lists the living processes of a script.
func membersOf(ticket agent.Ticket) []int {
	return processesWith("TAKO_SCRIPT_TICKET=" + strings.ToLower(string(ticket)))
}

// A runner that somebody stopped cannot end its script; the agent does.
func TestCancelWithStoppedRunner(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ticket := newTicket()
	if _, err := w.start(ctx, agent.StartRequest{Ticket: ticket, Body: w.script(ticket, "m", 1, 100*time.Second)}); err != nil {
		t.Fatal(err)
	}
	await(t, "the script runs", func() bool { return w.runs(ticket) == 1 })
	if err := syscall.Kill(w.pidOf(ticket, "lock"), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	if _, err := w.cancel(ctx, ticket); err != nil {
		t.Fatal(err)
	}
	st, _, err := w.follow(ctx, ticket)
	if took := time.Since(begin); err != nil || st.ExitCode != agent.ExitCanceled || took > time.Minute {
		t.Errorf("after %v: %+v, %v", took, st, err)
	}
	if left := membersOf(ticket); len(left) > 0 {
		t.Errorf("processes %v still live", left)
	}
}

// A cancellation that comes before its script keeps it from ever running.
func TestCancelBeforeStart(t *testing.T) {
	t.Parallel()
	a := open(t, t.TempDir())
	ticket := newTicket()
	st, err := a.GetStatus(t.Context(), agent.StatusRequest{Ticket: ticket, After: 5})
	if err != nil || st.State != agent.Complete || st.ExitCode != agent.ExitUnknownTicket || st.Next != 5 {
		t.Errorf("unknown: %+v, %v", st, err)
	}
	for range 2 {
		st, err = a.CancelScript(t.Context(), agent.StatusRequest{Ticket: ticket})
		if err != nil || st.State != agent.Complete || st.ExitCode != agent.ExitCanceled {
			t.Errorf("cancel: %+v, %v", st, err)
		}
	}
	st = start(t, a, agent.StartRequest{Ticket: agent.Ticket(strings.ToUpper(string(ticket))), Body: "exit 0", Wait: time.Second})
	if st.State != agent.Complete || st.ExitCode != agent.ExitCanceled {
		t.Errorf("start: %+v", st)
	}
	if err := a.CompleteScript(t.Context(), ticket); err != nil {
		t.Error(err)
	}
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	a := open(t, t.TempDir())
	ticket := newTicket()
	start(t, a, agent.StartRequest{Ticket: ticket, Body: "sleep 100 & setsid sleep 100 & wait", Timeout: 300 * time.Millisecond})
	st, log := finish(t, a, ticket)
	if st.ExitCode != agent.ExitTimeout || !strings.Contains(text(log, agent.Stderr), "longer than 300ms") {
		t.Errorf("%+v %v", st, log)
	}
	if left := membersOf(ticket); len(left) > 0 {
		t.Errorf("processes %v still live", left)
	}
}

// Readers of a mutex run together, a writer alone, in the order they came.
func TestMutexOverScripts(t *testing.T) {
	t.Parallel()
	a := open(t, t.TempDir())
	gate := filepath.Join(t.TempDir(), "gate")
	trace := filepath.Join(t.TempDir(), "trace")
	hold := fmt.Sprintf("until test -e %s; do sleep 0.02; done", gate)
	run := func(name string, iso agent.Isolation, body string, timeout time.Duration) agent.Ticket {
		ticket := newTicket()
		start(t, a, agent.StartRequest{Ticket: ticket, Body: "echo " + name + " >> " + trace + "\n" + body, Isolation: iso, MutexName: "x", MutexTimeout: timeout})
		return ticket
	}
	r1, r2 := run("r1", agent.NoIsolation, hold, 0), run("r2", agent.NoIsolation, hold, 0)
	await(t, "both readers run", func() bool { return len(lines(t, trace)) == 2 })
	writer := run("w", agent.FullIsolation, "sleep 0.1; echo w-end >> "+trace, 0)
	late := run("late", agent.FullIsolation, "", 200*time.Millisecond)
	reader := run("r3", agent.NoIsolation, "", 0)
	other := newTicket()
	if st := start(t, a, agent.StartRequest{Ticket: other, Body: "exit 5", MutexName: "y", Isolation: agent.FullIsolation, Wait: 10 * time.Second}); st.ExitCode != 5 {
		t.Errorf("a script of another mutex: %+v", st)
	}
	st, log := finish(t, a, late)
	if st.ExitCode != agent.ExitMutexTimeout || !strings.Contains(text(log, agent.Stderr), `"x" was not free within 200ms`) {
		t.Errorf("%+v %v", st, log)
	}
	st, err := a.GetStatus(t.Context(), agent.StatusRequest{Ticket: writer})
	if err != nil || st.State != agent.Pending || !strings.Contains(st.Waiting, strings.ToLower(string(r1))) {
		t.Errorf("the writer: %+v, %v", st, err)
	}
	if !strings.Contains(text(st.Entries, agent.Stdout), "##octopus[stdout-wait]") {
		t.Errorf("no word about waiting: %v", st.Entries)
	}
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ticket := range []agent.Ticket{r1, r2, writer, reader} {
		if st, log := finish(t, a, ticket); st.ExitCode != 0 {
			t.Errorf("%+v %v", st, log)
		}
	}
	if got := strings.Join(lines(t, trace)[2:], " "); got != "w w-end r3" {
		t.Errorf("they ran as %q", got)
	}
}

// A script whose runner was killed keeps its mutex for as long as it lives, under
// this agent and the next.
func TestOrphanKeepsMutex(t *testing.T) {
	t.Parallel()
	for _, restart := range []bool{false, true} {
		t.Run(fmt.Sprintf("restart %v", restart), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			first, second := newTicket(), newTicket()
			gate := filepath.Join(t.TempDir(), "gate")
			for _, ticket := range []agent.Ticket{first, second} {
				body := w.script(ticket, "m", 0, 0)
				if ticket == first {
					body = strings.Replace(body, "exit 7", "until test -e "+gate+"; do sleep 0.02 9>&-; done", 1)
				}
				req := agent.StartRequest{Ticket: ticket, Body: body, Isolation: agent.FullIsolation}
				if _, err := w.start(ctx, req); err != nil {
					t.Fatal(err)
				}
				if ticket == first {
					await(t, "the first script runs", func() bool { return w.runs(first) == 1 })
				}
			}
			if !w.killIn(first, "lock") {
				t.Fatal("there is no runner to kill")
			}
			if restart {
				w.killAgent()
			}
			// Long enough for the second to start, had it the mutex.
			st, err := retry(ctx, func() (agent.Status, error) {
				return w.GetStatus(ctx, agent.StatusRequest{Ticket: second, After: 100, Wait: 300 * time.Millisecond})
			})
			if err != nil || st.State != agent.Pending {
				t.Errorf("the second while the first lives: %+v, %v", st, err)
			}
			if err := os.WriteFile(gate, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			st, _, err = w.follow(ctx, second)
			if err != nil || st.ExitCode != 7 {
				t.Errorf("the second: %+v, %v", st, err)
			}
			st, _, err = w.follow(ctx, first)
			if err != nil || st.ExitCode != agent.ExitLost {
				t.Errorf("the first: %+v, %v", st, err)
			}
			if o := w.overlaps(); len(o) > 0 {
				t.Errorf("two scripts in one mutex: %v", o)
			}
		})
	}
}

// The machine was restarted in mid-script: whatever has its pid now is not it.
func TestReboot(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	d := startDaemon(t, home)
	ticket := newTicket()
	start(t, d, agent.StartRequest{Ticket: ticket, Body: "exec sleep 100"})
	ws := filepath.Join(home, "Work", strings.ToLower(string(ticket)))
	var started map[string]any
	await(t, "the script runs", func() bool {
		b, err := os.ReadFile(filepath.Join(ws, "started"))
		return err == nil && json.Unmarshal(b, &started) == nil
	})
	d.kill()
	w := &world{t: t, home: home}
	if !w.killIn(ticket, "lock") {
		t.Fatal("there is no runner to kill")
	}
	started["Boot"] = "another"
	b, err := json.Marshal(started)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(ws, "started"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	a := open(t, home)
	st, log := finish(t, a, ticket)
	if st.ExitCode != agent.ExitLost || !strings.Contains(text(log, agent.Stderr), "restarted") {
		t.Errorf("%+v %v", st, log)
	}
	for _, pid := range membersOf(ticket) {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
}

// The stub is the last gate: it does not run what was started or cancelled before.
func TestStubRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		file   string
		report string
	}{
		{"started", `"AlreadyStarted":true`},
		{"cancel", `"Code":-43`},
		{"exit", `"Code":-43`},
		{"", ""}, // the counter-check: it runs
	} {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			ws, ran := t.TempDir(), filepath.Join(t.TempDir(), "ran")
			if err := os.Mkdir(filepath.Join(ws, "files"), 0o700); err != nil {
				t.Fatal(err)
			}
			if c.file != "" {
				if err := os.WriteFile(filepath.Join(ws, c.file), []byte("{}"), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			order, err := json.Marshal(map[string]any{"Workspace": ws, "Name": "tako-test", "Argv": []string{"/bin/bash", "-c", "echo >> " + ran}})
			if err != nil {
				t.Fatal(err)
			}
			lock, err := os.Create(filepath.Join(ws, "lock"))
			if err != nil {
				t.Fatal(err)
			}
			defer lock.Close()
			report, tell, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer report.Close()
			stub := exec.CommandContext(t.Context(), os.Args[0], "tako-internal", "stub", string(order))
			stub.ExtraFiles = []*os.File{lock, lock, tell}
			if err := stub.Run(); err != nil {
				t.Error(err)
			}
			if err := tell.Close(); err != nil {
				t.Error(err)
			}
			said, err := io.ReadAll(report)
			if err != nil || !strings.Contains(string(said), c.report) || c.report == "" && len(said) > 0 {
				t.Errorf("the stub reports %q, %v", said, err)
			}
			if _, err := os.Stat(ran); (err == nil) != (c.file == "") {
				t.Errorf("the script ran: %v", err == nil)
			}
		})
	}
}

// A service that a script leaves behind lives on; the script ends all the same.
func TestScriptLeavesService(t *testing.T) {
	t.Parallel()
	a := open(t, t.TempDir())
	ticket := newTicket()
	start(t, a, agent.StartRequest{Ticket: ticket, Body: "setsid sleep 300 & echo $!; exit 0"})
	begin := time.Now()
	st, log := finish(t, a, ticket)
	if st.ExitCode != 0 || len(log) != 1 || time.Since(begin) > 2*time.Minute {
		t.Fatalf("after %v: %+v %v", time.Since(begin), st, log)
	}
	pid, err := strconv.Atoi(log[0].Text)
	if err != nil || !alivePID(pid) {
		t.Fatalf("the service %s does not live", log[0].Text)
	}
	if err := a.CompleteScript(t.Context(), ticket); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// An answer is capped, and a script that has ended is Running until all of its log
// was fetched.
func TestLongLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	const n = 200_000
	ticket := newTicket()
	if _, err := w.start(t.Context(), agent.StartRequest{Ticket: ticket, Body: fmt.Sprintf("seq -f 'a line of some length, number %%.0f' %d; exit 9", n)}); err != nil {
		t.Fatal(err)
	}
	await(t, "the script ends", func() bool {
		st, err := w.GetStatus(t.Context(), agent.StatusRequest{Ticket: ticket, After: n})
		return err == nil && st.State == agent.Complete && st.Next == n
	})
	after, answers := int64(0), 0
	for {
		st, err := w.GetStatus(t.Context(), agent.StatusRequest{Ticket: ticket, After: after})
		if err != nil {
			t.Fatal(err)
		}
		answers++
		size := 0
		for _, e := range st.Entries {
			if after++; e.Seq != after || e.Text != "a line of some length, number "+strconv.FormatInt(after, 10) {
				t.Fatalf("entry %d is %+v", after, e)
			}
			size += len(e.Text)
		}
		if size > agent.MaxAnswer {
			t.Errorf("an answer of %d bytes", size)
		}
		if st.State == agent.Complete {
			if st.ExitCode != 9 || after != n || answers < 2 {
				t.Errorf("%d entries in %d answers, exit code %d", after, answers, st.ExitCode)
			}
			return
		}
		if st.State != agent.Running || len(st.Entries) == 0 {
			t.Fatalf("%v with %d entries", st.State, len(st.Entries))
		}
	}
}

// On a full disk the runner stops reading and tries again; no line is lost.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	w := newWorld(t, failpoint.Env+"=log-full:err", failpoint.EnvOnce+"="+t.TempDir())
	ticket := newTicket()
	begin := time.Now()
	if _, err := w.start(t.Context(), agent.StartRequest{Ticket: ticket, Body: w.script(ticket, "m", 5000, 0)}); err != nil {
		t.Fatal(err)
	}
	st, log := finish(t, w, ticket)
	if err := whole(log, 5000); err != nil || st.ExitCode != 7 || time.Since(begin) < time.Second {
		t.Errorf("after %v: %+v, %v", time.Since(begin), st, err)
	}
}

// Killed by a signal is told as shells tell it.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	a := open(t, t.TempDir())
	for body, want := range map[string]int{"exit 0": 0, "exit 255": 255, "kill -9 $$": 137, "kill -TERM $$": 143, "no-such-command": 127} {
		ticket := newTicket()
		if st := start(t, a, agent.StartRequest{Ticket: ticket, Body: body, Wait: 20 * time.Second}); st.State != agent.Complete || st.ExitCode != want {
			t.Errorf("%q: %+v", body, st)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ok := agent.StartRequest{Ticket: "t", Body: ""}
	for name, change := range map[string]func(*agent.StartRequest){
		"empty ticket":   func(r *agent.StartRequest) { r.Ticket = "" },
		"ticket path":    func(r *agent.StartRequest) { r.Ticket = "../x" },
		"ticket dot":     func(r *agent.StartRequest) { r.Ticket = ".incoming" },
		"long ticket":    func(r *agent.StartRequest) { r.Ticket = agent.Ticket(strings.Repeat("a", 129)) },
		"file outside":   func(r *agent.StartRequest) { r.Files = []agent.File{{Name: "../x"}} },
		"absolute file":  func(r *agent.StartRequest) { r.Files = []agent.File{{Name: "/x"}} },
		"environment":    func(r *agent.StartRequest) { r.Env = map[string]string{"A=B": ""} },
		"argument":       func(r *agent.StartRequest) { r.Arguments = []string{"a\x00b"} },
		"negative time":  func(r *agent.StartRequest) { r.Timeout = -1 },
		"package hash":   func(r *agent.StartRequest) { r.Prepare.Packages = []agent.Package{{SHA256: "xyz", FileName: "a.zip"}} },
		"isolation":      func(r *agent.StartRequest) { r.Isolation = 7 },
		"variables file": func(r *agent.StartRequest) { r.Prepare.Substitute.Variables = "../v.json" },
		"too many bytes": func(r *agent.StartRequest) {
			r.Files = []agent.File{{Name: "a", Content: make([]byte, agent.MaxRequest+1)}}
		},
		"package outside": func(r *agent.StartRequest) {
			r.Prepare.Packages = []agent.Package{{SHA256: strings.Repeat("0", 64), FileName: "a.zip", Dir: "../x"}}
		},
	} {
		req := ok
		change(&req)
		if _, err := w.start(t.Context(), req); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	left, err := os.ReadDir(filepath.Join(w.home, "Work"))
	if err == nil && len(left) > 3 { // .incoming, .trash, Done
		t.Errorf("a refused request left %v", left)
	}
}

// The three ways in which a call can fail are told apart.
func TestClientErrors(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	c := agent.Dial(agent.SocketPath(home))
	defer c.Close()
	if _, err := c.GetStatus(t.Context(), agent.StatusRequest{Ticket: "t"}); !errors.Is(err, agent.ErrNotSent) {
		t.Errorf("no agent: %v", err)
	}
	ln, err := agent.Listen(t.Context(), home)
	if err != nil {
		t.Fatal(err)
	}
	var hangUp sync.WaitGroup
	hangUp.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			var b [10]byte
			_, _ = conn.Read(b[:])
			_ = conn.Close()
		}
	})
	if _, err := c.GetStatus(t.Context(), agent.StatusRequest{Ticket: "t"}); !errors.Is(err, agent.ErrUnanswered) || errors.Is(err, agent.ErrNotSent) {
		t.Errorf("an agent that hangs up: %v", err)
	}
	if err := ln.Close(); err != nil {
		t.Error(err)
	}
	hangUp.Wait()
	if info, err := os.Stat(filepath.Dir(agent.SocketPath(home))); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the socket's directory: %v, %v", info, err)
	}
}

// A socket's path may be longer than the kernel's 108 bytes.
func TestLongSocketPath(t *testing.T) {
	t.Parallel()
	home := filepath.Join(t.TempDir(), strings.Repeat("long/", 40))
	if err := os.MkdirAll(home, 0o700); err != nil {
		t.Fatal(err)
	}
	d := startDaemon(t, home)
	if h, err := d.Hello(t.Context()); err != nil || h.Home != home || h.Format != agent.Format {
		t.Errorf("%+v, %v", h, err)
	}
}

// However many ask for an agent at once, there is one, and it outlives them.
func TestSpawn(t *testing.T) {
	t.Parallel()
	home := filepath.Join(t.TempDir(), "home")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // those too that lost the race and wait for the home
		await(t, "all agents end", func() bool {
			left := processesOf(home)
			for _, pid := range left {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			return len(left) == 0
		})
	})
	clients, errs := make([]*agent.Client, 3), make([]error, 3)
	var all sync.WaitGroup
	for i := range clients {
		all.Go(func() { clients[i], errs[i] = agent.Spawn(t.Context(), exe, home) })
	}
	all.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	pid := 0
	for _, c := range clients {
		h, err := c.Hello(t.Context())
		if err != nil || pid != 0 && h.PID != pid {
			t.Errorf("%+v, %v; another has the pid %d", h, err, pid)
		}
		pid = h.PID
		defer c.Close()
	}
	if sid, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err != nil || !strings.Contains(string(sid), fmt.Sprintf(" %d %d ", pid, pid)) {
		t.Errorf("the agent has no session of its own: %s, %v", sid, err)
	}
	if _, err := agent.Open(t.Context(), agent.Config{Home: home}); !errors.Is(err, agent.ErrHomeBusy) {
		t.Errorf("a second agent: %v", err)
	}
	if b, err := os.ReadFile(filepath.Join(home, "agent.log")); err != nil || !strings.Contains(string(b), "agent is ready") {
		t.Errorf("agent.log: %q, %v", b, err)
	}
	for _, exe := range []string{"/bin/false", "/bin/true", "/no/such/program"} {
		if _, err := agent.Spawn(t.Context(), exe, t.TempDir()); err == nil || !strings.Contains(err.Error(), "agent.log") {
			t.Errorf("%s, which is no agent: %v", exe, err)
		}
	}
}

// processesOf lists the living processes with a home in their command line.
func processesOf(home string) []int {
	var out []int
	names, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, name := range names {
		b, err := os.ReadFile(name)
		if n, err2 := strconv.Atoi(strings.Split(name, "/")[2]); err == nil && err2 == nil && strings.Contains(string(b), home+"\x00") && alivePID(n) {
			out = append(out, n)
		}
	}
	return out
}

// An agent that is told to stop ends soon, though a caller waits for a script, and
// the script goes on under the next one.
func TestStopAndSucceed(t *testing.T) {
	t.Parallel()
	home := t.TempDir()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	stopped := make(chan error, 1)
	go func() { stopped <- agent.RunBuiltin(ctx, agent.Config{Home: home}) }()
	c := agent.Dial(agent.SocketPath(home))
	defer c.Close()
	await(t, "the agent answers", func() bool { _, err := c.Hello(t.Context()); return err == nil })
	ticket := newTicket()
	start(t, c, agent.StartRequest{Ticket: ticket, Body: "sleep 1; exit 4"})
	var waiting sync.WaitGroup
	waiting.Go(func() {
		_, _ = c.GetStatus(t.Context(), agent.StatusRequest{Ticket: ticket, Wait: time.Minute})
	})
	wait(t, 100*time.Millisecond)
	stop()
	select {
	case err := <-stopped:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("the agent does not stop")
	}
	waiting.Wait()
	if st, log := finish(t, open(t, home), ticket); st.ExitCode != 4 {
		t.Errorf("%+v %v", st, log)
	}
}
