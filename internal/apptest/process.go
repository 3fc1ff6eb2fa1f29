package apptest

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/supervisor"
)

// Process is the built program as a server in a process of its own, which can be
// killed and started again.
type Process struct {
	*Client
	Data     string
	Database string // "" is SQLite in Data
	Env      []string
	// AgentListen is the address for agents that poll; "" is any free one, another at
	// each start. Agents is where it was the last time.
	AgentListen, Agents string
	// Root is that of the supervisor which runs the server, "" for none. Set it by
	// Supervised.
	Root string
	// Program is the path of the program to run, "" for the one that is built of these
	// sources.
	Program string
	// Within is a command line that the program's is appended to and that becomes it.
	Within []string

	t   testing.TB
	cmd *exec.Cmd
	mu  sync.Mutex
	out []string
	// said is what comes from the process, and read is closed at its end.
	said io.ReadCloser
	read chan struct{}
	// stopped tells that Stop was the last end: no server is left for a supervisor to find.
	stopped bool
}

// NewProcess prepares a server's process; Start starts it. Server and worker end
// with the test.
func NewProcess(t testing.TB, dialect db.Dialect) *Process {
	t.Helper()
	p := &Process{t: t, Client: &Client{Key: AdminKey}, Data: filepath.Join(ShortDir(t), "data")}
	if dialect == db.Postgres {
		p.Database = dbtest.EmptyURL(t, dialect)
	}
	t.Cleanup(func() {
		p.Kill()
		StopWorker(t, p.Data)
	})
	return p
}

// Supervised has a supervisor run the server, in a directory of versions. Kill and Stop
// are the supervisor's then. It is called before Start.
func (p *Process) Supervised() {
	p.t.Helper()
	p.Root = filepath.Dir(p.Data) // ends in "data"
	p.t.Cleanup(func() {
		for _, pid := range p.Servers() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
}

// Install gives the supervised server another version, which is this program again.
func (p *Process) Install(version string) {
	p.t.Helper()
	if err := supervisor.Install(p.Root, version, p.Executable(p.t)); err != nil {
		p.t.Fatal(err)
	}
}

// Switch has the supervisor hand over to a version.
func (p *Process) Switch(version string) (supervisor.Report, error) {
	ctx, stop := context.WithTimeout(context.Background(), readyWithin)
	defer stop()
	return supervisor.Ask(ctx, p.Root, supervisor.Order{Do: "switch", Version: version})
}

// Servers are the processes of versions below Root.
func (p *Process) Servers() (pids []int) {
	all, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is right
	for _, exe := range all {
		target, err := os.Readlink(exe)
		if err != nil || !strings.HasPrefix(target, filepath.Join(p.Root, "versions")+"/") {
			continue
		}
		args, err := os.ReadFile(filepath.Join(filepath.Dir(exe), "cmdline"))
		if pid, convErr := strconv.Atoi(filepath.Base(filepath.Dir(exe))); err == nil && convErr == nil && bytes.Contains(args, []byte("\x00server\x00")) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Executable is the path of the program that runs.
func (p *Process) Executable(t testing.TB) string {
	t.Helper()
	if p.Program != "" {
		return p.Program
	}
	return Binary(t)
}

// readyWithin is how long a start may take on a busy machine.
const readyWithin = 2 * time.Minute

// Start runs the server and waits until it says where it serves.
func (p *Process) Start() {
	p.t.Helper()
	args := []string{"server", "--data", p.Data, "--listen", "127.0.0.1:0", "--agent-listen", cmp.Or(p.AgentListen, "127.0.0.1:0"), "--node", "test"}
	if p.Root != "" {
		args = []string{"supervise", "--root", p.Root, "--listen", "127.0.0.1:0", "--agent-listen", cmp.Or(p.AgentListen, "127.0.0.1:0"), "--", "--node", "test"}
	}
	if p.Database != "" {
		args = append(args, "--database", p.Database)
	}
	args = append(slices.Concat(p.Within, []string{p.Executable(p.t)}), args...)
	p.cmd = exec.Command(args[0], args[1:]...) //nolint:noctx // it is killed by the test, not by a context
	p.cmd.Env = append(os.Environ(), append([]string{"TAKO_ADMIN_USERNAME=admin", "TAKO_ADMIN_API_KEY=" + AdminKey}, p.Env...)...)
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd.Stderr = p.cmd.Stdout
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	ready, read := make(chan string, 1), make(chan struct{})
	p.said, p.read = stdout, read
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			p.mu.Lock()
			p.out = append(p.out, lines.Text())
			p.mu.Unlock()
			if _, at, ok := strings.Cut(lines.Text(), "Agents poll at "); ok {
				p.Agents = strings.TrimSuffix(at, ".") // before the line below
			}
			if _, rest, ok := strings.Cut(lines.Text(), " is ready at "); ok {
				url, _, _ := strings.Cut(rest, " ")
				select {
				case ready <- url:
				default: // a later server of the same supervisor
				}
			}
		}
		close(ready)
	}()
	if p.Root != "" && p.URL != "" && !p.stopped {
		p.adopted()
		return
	}
	p.stopped = false
	select {
	case url, ok := <-ready:
		if !ok {
			p.t.Fatalf("the server did not start:\n%s", p.Output())
		}
		first := p.URL == ""
		p.URL = url
		if first {
			expand(p.t, p.Data, p.Database)
		}
	case <-time.After(readyWithin):
		p.t.Fatalf("the server is not ready after %s:\n%s", readyWithin, p.Output())
	}
}

// adopted waits until a new supervisor has found the server of the one before.
func (p *Process) adopted() {
	p.t.Helper()
	tick, late := time.NewTicker(10*time.Millisecond), time.After(readyWithin)
	defer tick.Stop()
	for {
		r, err := supervisor.Ask(context.Background(), p.Root, supervisor.Order{Do: "status"})
		if err == nil && r.PID == p.PID() && r.Server != nil {
			return
		}
		select {
		case <-tick.C:
		case <-late:
			p.t.Fatalf("the supervisor is not ready after %s: %+v, %v\n%s", readyWithin, r, err, p.Output())
		}
	}
}

// PID is the server's, or the supervisor's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Output is everything the server has written.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.out, "\n")
}

// Kill ends the server as a crash would, and waits until it is gone.
func (p *Process) Kill() {
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Kill() // it may have died by itself
	p.wait()
}

// Stop asks the server to end and waits until it has. The next Start has another URL.
func (p *Process) Stop() {
	p.t.Helper()
	p.stopped = true
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		p.t.Fatal(err)
	}
	p.wait()
}

func (p *Process) wait() {
	p.heard()
	var exit *exec.ExitError
	if err := p.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		p.t.Logf("wait for the server: %v", err)
	}
	p.cmd = nil
}

// heard waits until the process has ended and what it said last was read: to wait for the
// command closes the pipe, with what is in it. A child of the process may keep the pipe
// open; then what is in it now is all.
func (p *Process) heard() {
	for {
		if err := unix.Waitid(unix.P_PID, p.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); !errors.Is(err, unix.EINTR) {
			break
		}
	}
	tick, late := time.NewTicker(20*time.Millisecond), time.After(time.Second)
	defer tick.Stop()
	for empty := 0; empty < 3; {
		select {
		case <-p.read:
			return
		case <-late:
			return
		case <-tick.C:
		}
		if empty++; p.unread() {
			empty = 0
		}
	}
}

// unread reports whether something is in the pipe.
func (p *Process) unread() bool {
	pipe, ok := p.said.(syscall.Conn)
	if !ok {
		return false
	}
	conn, err := pipe.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = conn.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) }) //nolint:gosec // a descriptor is small
	return err == nil && n > 0
}

// Exited reports whether the server has ended by itself, at a failpoint.
func (p *Process) Exited() bool {
	return p.cmd == nil || syscall.Kill(p.cmd.Process.Pid, 0) != nil || zombie(p.cmd.Process.Pid)
}

func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(rest, "Z")
}

// WorkerPID is the built-in worker's, 0 when none answers.
func (p *Process) WorkerPID() int {
	client := agent.Dial(agent.SocketPath(filepath.Join(p.Data, "worker")))
	defer client.Close()
	hello, err := client.Hello(p.t.Context())
	if err != nil {
		return 0
	}
	return hello.PID
}

// Runners are the runners of the built-in worker's scripts. A child that a runner has
// just made still looks like it until it becomes the script: it is none.
func (p *Process) Runners() []int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		p.t.Fatal(err)
	}
	parents := map[int]int{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue // it has ended
		}
		args := strings.Split(string(line), "\x00")
		if len(args) > 2 && args[1] == "tako-internal" && args[2] == "runner" && strings.Contains(string(line), p.Data) {
			parents[pid] = parent(pid)
		}
	}
	var pids []int
	for pid, above := range parents {
		if _, child := parents[above]; !child {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// parent is the process above another, or 0 if that has ended.
func parent(pid int) int {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The name stands in brackets and may hold anything; state and parent follow it.
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 2 {
		return 0
	}
	above, err := strconv.Atoi(fields[1])
	if err != nil {
		return 0
	}
	return above
}

// FixedAddress is a free address that a server can come back to: its port is none that
// systems give out by themselves.
func FixedAddress(t testing.TB) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20_000+rand.IntN(10_000))
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
		if err != nil {
			continue
		}
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		return addr
	}
	t.Fatal("no port is free between 20000 and 30000")
	return ""
}
