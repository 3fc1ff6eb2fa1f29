//go:build linux

package agent_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
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

// world is an agent's home whose agent process is started again whenever it dies,
// and the oracle: a file to which every script appends a line as its first act.
type world struct {
	*agent.Client
	t      testing.TB
	home   string
	oracle string
	env    []string
	once   sync.Once

	mu   sync.Mutex
	proc *os.Process
	stop chan struct{}
	done chan struct{}
	down int // how often it died
}

func newWorld(t testing.TB, env ...string) *world {
	t.Helper()
	home := t.TempDir()
	w := &world{
		Client: agent.Dial(agent.SocketPath(home)), t: t, home: home,
		oracle: filepath.Join(t.TempDir(), "oracle"), env: append(os.Environ(), env...),
		stop: make(chan struct{}), done: make(chan struct{}),
	}
	go w.keep()
	t.Cleanup(w.end)
	return w
}

// end kills all that is left of it.
func (w *world) end() {
	w.once.Do(func() {
		close(w.stop)
		w.killAgent()
		<-w.done
		w.Client.Close()
		w.killScripts()
	})
}

// keep runs agent processes, one after the other.
func (w *world) keep() {
	defer close(w.done)
	for {
		cmd := exec.CommandContext(context.Background(), os.Args[0], "agent", "run", "--builtin", "--home", w.home)
		cmd.Env = w.env
		cmd.Stderr = os.Stderr
		w.mu.Lock()
		select {
		case <-w.stop:
			w.mu.Unlock()
			return
		default:
		}
		err := cmd.Start()
		w.proc = cmd.Process
		w.mu.Unlock()
		if err != nil {
			w.t.Error(err)
			return
		}
		_ = cmd.Wait()
		w.mu.Lock()
		w.proc = nil
		w.down++
		w.mu.Unlock()
	}
}

func (w *world) killAgent() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.proc != nil {
		_ = w.proc.Kill()
	}
}

func (w *world) deaths() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.down
}

// script is a body that tells the oracle, prints n lines to each of stdout and
// stderr, runs for a while in its mutex, and exits with 7.
func (w *world) script(ticket agent.Ticket, mutex string, n int, sleep time.Duration) string {
	held := filepath.Join(w.home, "held-"+mutex)
	return fmt.Sprintf(`echo "%[1]s" >> %[2]q
exec 9>>%[3]q
flock -n 9 || echo "%[1]s" >> %[3]q.overlap
for ((i=1; i<=%[4]d; i++)); do echo "out $i"; echo "err $i" >&2; done
sleep %[5]f 9>&-
exit 7
`, ticket, w.oracle, held, n, sleep.Seconds())
}

// runs counts the executions of a ticket.
func (w *world) runs(ticket agent.Ticket) int {
	n := 0
	for _, l := range lines(w.t, w.oracle) {
		if l == string(ticket) {
			n++
		}
	}
	return n
}

// overlaps lists the tickets that met another in their mutex.
func (w *world) overlaps() []string {
	var all []string
	names, _ := filepath.Glob(filepath.Join(w.home, "*.overlap"))
	for _, name := range names {
		all = append(all, lines(w.t, name)...)
	}
	return all
}

// retry repeats f while the agent is away: what a server does.
func retry[T any](ctx context.Context, f func() (T, error)) (T, error) {
	for {
		v, err := f()
		away := errors.Is(err, agent.ErrNotSent) || errors.Is(err, agent.ErrUnanswered) || fault.Is(err, fault.Unavailable)
		if !away || ctx.Err() != nil {
			return v, err
		}
		select {
		case <-time.After(2 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

func (w *world) start(ctx context.Context, req agent.StartRequest) (agent.Status, error) {
	return retry(ctx, func() (agent.Status, error) { return w.StartScript(ctx, req) })
}

func (w *world) cancel(ctx context.Context, ticket agent.Ticket) (agent.Status, error) {
	return retry(ctx, func() (agent.Status, error) { return w.CancelScript(ctx, agent.StatusRequest{Ticket: ticket}) })
}

func (w *world) complete(ctx context.Context, ticket agent.Ticket) error {
	_, err := retry(ctx, func() (struct{}, error) { return struct{}{}, w.CompleteScript(ctx, ticket) })
	return err
}

// follow reads a ticket to its end.
func (w *world) follow(ctx context.Context, ticket agent.Ticket) (agent.Status, []agent.Entry, error) {
	var all []agent.Entry
	after := int64(0)
	for {
		st, err := retry(ctx, func() (agent.Status, error) {
			return w.GetStatus(ctx, agent.StatusRequest{Ticket: ticket, After: after, Wait: time.Second})
		})
		if err != nil {
			return st, all, err
		}
		for _, e := range st.Entries {
			if after++; e.Seq != after {
				return st, all, fmt.Errorf("%s: entry %d came as number %d", ticket, after, e.Seq)
			}
		}
		all = append(all, st.Entries...)
		if st.State == agent.Complete {
			return st, all, nil
		}
	}
}

// whole reports what is missing from the log of a script that printed n lines.
func whole(log []agent.Entry, n int) error {
	for _, src := range []struct {
		source agent.Source
		prefix string
	}{{agent.Stdout, "out "}, {agent.Stderr, "err "}} {
		var got []string
		for _, l := range strings.Split(text(log, src.source), "\n") {
			if rest, ok := strings.CutPrefix(l, src.prefix); ok {
				got = append(got, rest)
			}
		}
		if len(got) != n {
			return fmt.Errorf("%d lines %q, want %d", len(got), src.prefix, n)
		}
		for i, g := range got {
			if g != strconv.Itoa(i+1) {
				return fmt.Errorf("line %d of %q is %q", i+1, src.prefix, g)
			}
		}
	}
	return nil
}

// pidOf reads the process that a file of a workspace names.
func (w *world) pidOf(ticket agent.Ticket, file string) int {
	b, err := os.ReadFile(filepath.Join(w.home, "Work", strings.ToLower(string(ticket)), file))
	var p struct{ PID int }
	if err != nil || json.Unmarshal(b, &p) != nil {
		return 0
	}
	return p.PID
}

// killIn kills the runner ("lock") or the stub and script ("started") of a ticket.
func (w *world) killIn(ticket agent.Ticket, file string) bool {
	pid := w.pidOf(ticket, file)
	// The pid may have been used again; only a process of this home is ours.
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	return pid > 0 && err == nil && strings.Contains(string(cmdline), w.home) && syscall.Kill(pid, syscall.SIGKILL) == nil
}

// killScripts ends what a test leaves behind.
func (w *world) killScripts() {
	dirs, _ := os.ReadDir(filepath.Join(w.home, "Work"))
	for _, d := range dirs {
		w.killIn(agent.Ticket(d.Name()), "lock")
		w.killIn(agent.Ticket(d.Name()), "started")
	}
	for _, pid := range processesWith("TentacleHome=" + w.home) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
}

// Every instant between two durable steps, with the process that is there killed.
// Who dies is told by the name of the edge.
func TestKilledAtEveryEdge(t *testing.T) {
	t.Parallel()
	const ran = 7
	for _, c := range []struct {
		edge string
		code int // the fate
		runs int
	}{
		{"incoming-fsynced", ran, 1},
		{"renamed", ran, 1},
		{"runner-locked", ran, 1},
		{"before-started", ran, 1},
		{"started-written", agent.ExitNoShell, 0},
		{"before-execve", agent.ExitNoShell, 0},
		{"child-exited", agent.ExitLost, 1},
		{"log-fsynced", agent.ExitLost, 1},
		{"exit-tmp-fsynced", ran, 1},
		{"exit-renamed", ran, 1},
		{"tombstone-written", ran, 1},
		{"trashed", ran, 1},
	} {
		t.Run(c.edge, func(t *testing.T) {
			t.Parallel()
			once := t.TempDir()
			w := newWorld(t, failpoint.Env+"="+c.edge+":kill", failpoint.EnvOnce+"="+once)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			ticket := newTicket()
			req := agent.StartRequest{Ticket: ticket, Body: w.script(ticket, "m", 50, 0), Isolation: agent.FullIsolation}
			if _, err := w.start(ctx, req); err != nil {
				t.Fatal(err)
			}
			st, log, err := w.follow(ctx, ticket)
			if err != nil {
				t.Fatal(err)
			}
			if st.ExitCode != c.code {
				t.Errorf("exit code %d, want %d; log %v", st.ExitCode, c.code, log)
			}
			if c.code == ran {
				if err := whole(log, 50); err != nil {
					t.Error(err)
				}
			}
			if err := w.complete(ctx, ticket); err != nil {
				t.Fatal(err)
			}
			st, err = w.start(ctx, req)
			if err != nil || st.State != agent.Complete || st.ExitCode != c.code || len(st.Entries) != 0 {
				t.Errorf("a late StartScript: %+v, %v", st, err)
			}
			if n := w.runs(ticket); n != c.runs {
				t.Errorf("the script ran %d times, want %d", n, c.runs)
			}
			if _, err := os.Stat(filepath.Join(once, c.edge)); err != nil {
				t.Errorf("the edge was never reached: %v", err)
			}
			// The mutex is free again.
			next := newTicket()
			if _, err := w.start(ctx, agent.StartRequest{Ticket: next, Body: "exit 0", Isolation: agent.FullIsolation}); err != nil {
				t.Fatal(err)
			}
			if st, _, err := w.follow(ctx, next); err != nil || st.ExitCode != 0 {
				t.Errorf("the next script of the mutex: %+v, %v", st, err)
			}
		})
	}
}

// The same edges when the disk or a test says no there: what can be repeated is
// repeated, and nothing runs twice.
func TestErrorAtEveryEdge(t *testing.T) {
	t.Parallel()
	const ran = 7
	for _, c := range []struct {
		edge string
		code int // the fate
		runs int
	}{
		{"incoming-fsynced", ran, 1},
		{"renamed", ran, 1},
		{"runner-locked", ran, 1},
		{"before-started", agent.ExitNoShell, 0},
		{"started-written", agent.ExitNoShell, 0},
		{"before-execve", agent.ExitNoShell, 0},
		{"child-exited", agent.ExitLost, 1},
		{"log-fsynced", agent.ExitLost, 1},
		{"exit-tmp-fsynced", ran, 1},
		{"exit-renamed", ran, 1},
		{"tombstone-written", ran, 1},
		{"trashed", ran, 1},
	} {
		t.Run(c.edge, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, failpoint.Env+"="+c.edge+":err", failpoint.EnvOnce+"="+t.TempDir())
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			ticket := newTicket()
			req := agent.StartRequest{Ticket: ticket, Body: w.script(ticket, "m", 50, 0), Isolation: agent.FullIsolation}
			refused := 0
			again := func(err error) bool {
				if err == nil {
					return false
				}
				if refused++; refused > 1 || !strings.Contains(err.Error(), failpoint.ErrInjected.Error()) {
					t.Fatal(err)
				}
				return true
			}
			for {
				if _, err := w.start(ctx, req); !again(err) {
					break
				}
			}
			st, log, err := w.follow(ctx, ticket)
			if err != nil {
				t.Fatal(err)
			}
			if st.ExitCode != c.code {
				t.Errorf("exit code %d, want %d; log %v", st.ExitCode, c.code, log)
			}
			if c.code == ran {
				if err := whole(log, 50); err != nil {
					t.Error(err)
				}
			}
			for again(w.complete(ctx, ticket)) {
			}
			st, err = w.start(ctx, req)
			if err != nil || st.State != agent.Complete || st.ExitCode != c.code {
				t.Errorf("a late StartScript: %+v, %v", st, err)
			}
			if n := w.runs(ticket); n != c.runs {
				t.Errorf("the script ran %d times, want %d", n, c.runs)
			}
		})
	}
}

// A stub that does not get on is cancelled like a script, also when its runner is
// dead, and never becomes one.
func TestCancelStalledStub(t *testing.T) {
	t.Parallel()
	for edge, killed := range map[string]bool{"before-started": true, "started-written": true, "before-execve": false} {
		t.Run(edge, func(t *testing.T) {
			t.Parallel()
			once := t.TempDir()
			w := newWorld(t, failpoint.Env+"="+edge+":stall", failpoint.EnvOnce+"="+once)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			ticket := newTicket()
			if _, err := w.start(ctx, agent.StartRequest{Ticket: ticket, Body: w.script(ticket, "m", 1, 0)}); err != nil {
				t.Fatal(err)
			}
			await(t, "the stub stalls", func() bool {
				_, err := os.Stat(filepath.Join(once, edge))
				return err == nil
			})
			if killed && !w.killIn(ticket, "lock") {
				t.Fatal("there is no runner to kill")
			}
			if _, err := w.cancel(ctx, ticket); err != nil {
				t.Fatal(err)
			}
			st, log, err := w.follow(ctx, ticket)
			if err != nil || st.ExitCode != agent.ExitCanceled {
				t.Errorf("%+v %v, %v", st, log, err)
			}
			if n := w.runs(ticket); n != 0 {
				t.Errorf("the script ran %d times", n)
			}
			if left := membersOf(ticket); len(left) > 0 {
				t.Errorf("processes %v still live", left)
			}
		})
	}
}

// A cancellation whose agent dies right after the decision is carried out by the
// next one.
func TestKilledWhileCancelling(t *testing.T) {
	t.Parallel()
	for _, when := range []string{"running", "queued", "prepared"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			points := "cancel-written:kill"
			if when == "prepared" {
				points += ",runner-locked:stall=1s"
			}
			w := newWorld(t, failpoint.Env+"="+points, failpoint.EnvOnce+"="+t.TempDir())
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			holder := newTicket()
			if when == "queued" {
				if _, err := w.start(ctx, agent.StartRequest{Ticket: holder, Body: "sleep 100", Isolation: agent.FullIsolation}); err != nil {
					t.Fatal(err)
				}
			}
			ticket := newTicket()
			if _, err := w.start(ctx, agent.StartRequest{Ticket: ticket, Body: w.script(ticket, "m", 1, 100*time.Second), Isolation: agent.FullIsolation}); err != nil {
				t.Fatal(err)
			}
			want := 0
			if when == "running" {
				want = 1
				await(t, "the script runs", func() bool { return w.runs(ticket) == 1 })
			}
			before := w.deaths()
			if _, err := w.cancel(ctx, ticket); err != nil {
				t.Fatal(err)
			}
			st, _, err := w.follow(ctx, ticket)
			if err != nil || st.ExitCode != agent.ExitCanceled {
				t.Errorf("%+v, %v; want exit code -43", st, err)
			}
			if w.deaths() == before {
				t.Error("the agent was not killed")
			}
			if n := w.runs(ticket); n != want {
				t.Errorf("the script ran %d times, want %d", n, want)
			}
			if when == "queued" {
				if _, err := w.cancel(ctx, holder); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// A stub whose runner was killed goes on by itself: it may win, but nobody else
// may start the script meanwhile or take its mutex.
func TestStubOutlivesRunner(t *testing.T) {
	t.Parallel()
	once := t.TempDir()
	w := newWorld(t, failpoint.Env+"=before-started:stall=3s", failpoint.EnvOnce+"="+once)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	ticket, other := newTicket(), newTicket()
	req := agent.StartRequest{Ticket: ticket, Body: w.script(ticket, "m", 1, 300*time.Millisecond), Isolation: agent.FullIsolation}
	if _, err := w.start(ctx, req); err != nil {
		t.Fatal(err)
	}
	await(t, "the stub stalls", func() bool {
		_, err := os.Stat(filepath.Join(once, "before-started"))
		return err == nil
	})
	if !w.killIn(ticket, "lock") {
		t.Fatal("there is no runner to kill")
	}
	w.killAgent()
	if _, err := w.start(ctx, agent.StartRequest{Ticket: other, Body: w.script(other, "m", 1, 0), Isolation: agent.FullIsolation}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.start(ctx, req); err != nil {
		t.Fatal(err)
	}
	st, _, err := w.follow(ctx, ticket)
	if err != nil || st.ExitCode != agent.ExitLost {
		t.Errorf("%+v, %v; want exit code -46", st, err)
	}
	if st, _, err := w.follow(ctx, other); err != nil || st.ExitCode != 7 {
		t.Errorf("the other script: %+v, %v", st, err)
	}
	if a, b := w.runs(ticket), w.runs(other); a != 1 || b != 1 {
		t.Errorf("the scripts ran %d and %d times", a, b)
	}
	if o := w.overlaps(); len(o) > 0 {
		t.Errorf("two scripts in one mutex: %v", o)
	}
}

// walkSize is n tickets, or what AGENT_TEST_WALK says.
func walkSize(t testing.TB, n int) int {
	if v := os.Getenv("AGENT_TEST_WALK"); v != "" {
		m, err := strconv.Atoi(v)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	return n
}

// The kill walk: every ticket is started twice at the same time, and followed to
// its end, while the agent is killed again and again.
func TestKillWalk(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		runners bool // kill runners too
		env     string
	}{
		{"agents", false, "A=b"},
		{"agents and runners", true, "A=b"},
		{"agents and runners without cgroups", true, "AGENT_TEST_NO_CGROUP=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.env)
			n := walkSize(t, 24)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			var doubled, unknown, lost, runnerKills int
			var mu sync.Mutex
			var busy sync.Map // tickets in progress
			one := func(seed uint64) error {
				rnd := rand.New(rand.NewPCG(seed, 1))
				ticket := newTicket()
				busy.Store(ticket, true)
				defer busy.Delete(ticket)
				mutex := "m" + strconv.Itoa(rnd.IntN(3))
				printed := rnd.IntN(200)
				req := agent.StartRequest{
					Ticket: ticket, Body: w.script(ticket, mutex, printed, time.Duration(rnd.IntN(40))*time.Millisecond),
					Isolation: agent.FullIsolation, MutexName: mutex,
				}
				var racing sync.WaitGroup
				errs := make([]error, 2)
				for i := range errs {
					racing.Go(func() { _, errs[i] = w.start(ctx, req) })
				}
				racing.Wait()
				if err := errors.Join(errs...); err != nil {
					return err
				}
				st, log, err := w.follow(ctx, ticket)
				if err != nil {
					return err
				}
				runs := w.runs(ticket)
				mu.Lock()
				switch {
				case runs > 1:
					doubled++
				case st.ExitCode == agent.ExitLost || st.ExitCode == agent.ExitNoShell && c.runners:
					unknown++
				case st.ExitCode != 7 || runs == 0:
					lost++
				}
				mu.Unlock()
				if st.ExitCode == 7 {
					if err := whole(log, printed); err != nil {
						return fmt.Errorf("%s: %w", ticket, err)
					}
				}
				if err := w.complete(ctx, ticket); err != nil {
					return err
				}
				if st2, err := w.start(ctx, req); err != nil || st2.ExitCode != st.ExitCode || st2.State != agent.Complete {
					return fmt.Errorf("%s: a late StartScript: %+v, %w", ticket, st2, err)
				}
				if again := w.runs(ticket); again != runs {
					return fmt.Errorf("%s ran again after its end", ticket)
				}
				return nil
			}
			finished := make(chan struct{})
			go func() {
				defer close(finished)
				var workers sync.WaitGroup
				slots := make(chan struct{}, 6)
				for i := range n {
					slots <- struct{}{}
					workers.Go(func() {
						defer func() { <-slots }()
						if err := one(uint64(i)); err != nil {
							t.Error(err)
						}
					})
				}
				workers.Wait()
			}()
			for rnd := rand.New(rand.NewPCG(7, 7)); ; {
				select {
				case <-finished:
					t.Logf("%d tickets, %d agent deaths, %d runner kills: %d doubled, %d lost, %d unknown",
						n, w.deaths(), runnerKills, doubled, lost, unknown)
					if doubled+lost > 0 || unknown > 0 && !c.runners {
						t.Error("a script was run twice, forgotten, or its fate is not known")
					}
					if o := w.overlaps(); len(o) > 0 {
						t.Errorf("two scripts in one mutex: %v", o)
					}
					if w.deaths() == 0 {
						t.Error("the agent was never killed")
					}
					return
				case <-time.After(time.Duration(5+rnd.IntN(120)) * time.Millisecond):
				}
				// On a busy machine agents would never get to work between two kills.
				if rnd.IntN(4) > 0 {
					_, _ = retry(ctx, func() (agent.Hello, error) { return w.Hello(ctx) })
				}
				if c.runners && rnd.IntN(2) == 0 {
					busy.Range(func(ticket, _ any) bool {
						if rnd.IntN(3) == 0 && w.killIn(ticket.(agent.Ticket), "lock") {
							runnerKills++
						}
						return true
					})
				} else {
					w.killAgent()
				}
			}
		})
	}
}
