package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/takodeploy/tako/internal/failpoint"
	"golang.org/x/sys/unix"
)

// maxAgentLog is the size at which agent.log becomes agent.log.1, of which there is
// one.
const maxAgentLog = 4 << 20

// spawnFor is how long Spawn waits for an agent to answer.
const spawnFor = 15 * time.Second

// RunBuiltin is `tako agent run --builtin`: the agent of a server's own machine,
// answering over its socket until ctx ends or nobody has needed it for cfg.Idle (nil),
// or it cannot go on. Its runners outlive it.
func RunBuiltin(ctx context.Context, cfg Config) error {
	svc, err := Open(ctx, cfg)
	if err != nil {
		return err
	}
	ln, err := Listen(ctx, svc.home)
	if err != nil {
		return errors.Join(err, svc.Close())
	}
	svc.log.Info("agent is ready", "home", svc.home, "pid", os.Getpid(), "version", cfg.Version)
	serving, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	go func() {
		select {
		case <-svc.Failed():
			stop(errors.New("the agent's disk refused to make something durable"))
		case <-serving.Done():
		}
	}()
	// Calls that wait for a script's end return at once when the service stops.
	unhold := context.AfterFunc(serving, svc.Stop)
	defer unhold()
	handler := Handler(svc)
	if cfg.Idle > 0 {
		calls := &activity{last: time.Now().Add(spawnFor)} // whoever started it comes until then
		handler = calls.counted(handler)
		go calls.endIdle(serving, cfg.Idle, svc.busy, func() {
			svc.log.Info("agent ends: nobody needed it", "for", cfg.Idle)
			stop(errIdle)
		})
	}
	err = serveHandler(serving, ln, handler)
	if cause := context.Cause(serving); ctx.Err() == nil && serving.Err() != nil && !errors.Is(cause, errIdle) {
		err = errors.Join(cause, err)
	}
	return errors.Join(err, svc.Close())
}

// Spawn returns a client of the agent that works in home. When there is none it
// starts one: `exe agent run --builtin --home HOME` with more arguments after that,
// detached from the caller, with its output in <home>/agent.log. exe must be absolute
// and stay in place.
func Spawn(ctx context.Context, exe, home string, more ...string) (*Client, error) {
	home, err := filepath.Abs(home)
	if err != nil {
		return nil, err
	}
	c := Dial(SocketPath(home))
	if _, err := c.Hello(ctx); err == nil {
		return c, nil
	}
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, fmt.Errorf("spawn agent: %w", err)
	}
	life, err := startAgent(ctx, exe, home, more)
	if err != nil {
		return nil, fmt.Errorf("spawn agent: %w", err)
	}
	died := make(chan struct{})
	go func() { // until Spawn returns, which closes life
		_, _ = io.Copy(io.Discard, life)
		close(died)
	}()
	defer func() {
		_ = life.Close()
		<-died
	}()
	limit := time.NewTimer(spawnFor)
	defer limit.Stop()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	watched := died
	for {
		if _, err = c.Hello(ctx); err == nil {
			return c, nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil, fmt.Errorf("spawn agent: %w", ctx.Err())
		case <-limit.C:
			return nil, fmt.Errorf("spawn agent: no answer within %v: %w; see %s", spawnFor, err, filepath.Join(home, agentLogName))
		case <-watched:
			// Perhaps another Spawn was faster: then that agent holds the home.
			watched = nil
			lock, err := tryLock(filepath.Join(home, "agent.lock"))
			if err == nil {
				unlock(lock)
				return nil, fmt.Errorf("spawn agent: it ended at once; see %s", filepath.Join(home, agentLogName))
			}
		}
	}
}

const agentLogName = "agent.log"

// startAgent starts the agent in a session of its own and as nobody's child. What
// it returns comes to its end when the agent does.
func startAgent(ctx context.Context, exe, home string, more []string) (*os.File, error) {
	out, err := openAgentLog(home)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	life, end, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer end.Close()
	cmd := exec.CommandContext(ctx, exe, append([]string{internalArg, "spawn", exe, home}, more...)...)
	cmd.Dir = "/"
	cmd.Env = agentEnv(os.Environ())
	cmd.Stdout, cmd.Stderr = out, out
	cmd.ExtraFiles = []*os.File{end}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Run(); err != nil {
		return nil, errors.Join(fmt.Errorf("%w; see %s", err, filepath.Join(home, agentLogName)), life.Close())
	}
	return life, nil
}

// spawnMain stands between Spawn and the agent: it starts the agent and goes.
func spawnMain(args []string) int {
	if len(args) < 2 {
		return 2
	}
	exe := args[0]
	_, err := syscall.ForkExec(exe, append([]string{exe, "agent", "run", "--builtin", "--home"}, args[1:]...), &syscall.ProcAttr{
		Dir:   "/",
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2, lifeFD},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, "start agent:", err)
		return 1
	}
	return 0
}

// agentEnv is the environment of a spawned agent: the caller's, without its
// settings, some of which are secrets, and the service manager's.
func agentEnv(env []string) []string {
	out := scriptEnv(env, nil)
	for _, kv := range env {
		if strings.HasPrefix(kv, failpoint.Env+"=") || strings.HasPrefix(kv, failpoint.EnvOnce+"=") {
			out = append(out, kv)
		}
	}
	return out
}

// LogHandler is a slog handler for <home>/agent.log, which it keeps within bounds:
// past maxAgentLog the file becomes agent.log.1. Standard error, where a crash is
// told, follows to the new file if Spawn made it the old one.
func LogHandler(home string) (slog.Handler, error) {
	if err := os.MkdirAll(home, 0o700); err != nil {
		return nil, err
	}
	f, err := openAgentLog(home)
	if err != nil {
		return nil, err
	}
	l := &agentLog{home: home, f: f}
	mine, err := f.Stat()
	if stderr, err2 := os.Stderr.Stat(); err == nil && err2 == nil {
		l.ownStderr = os.SameFile(mine, stderr)
	}
	return slog.NewTextHandler(l, nil), nil
}

func openAgentLog(home string) (*os.File, error) {
	name := filepath.Join(home, agentLogName)
	if info, err := os.Stat(name); err == nil && info.Size() > maxAgentLog {
		if err := os.Rename(name, name+".1"); err != nil {
			return nil, err
		}
	}
	return os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
}

type agentLog struct {
	home      string
	ownStderr bool

	mu sync.Mutex
	f  *os.File
	n  int // bytes written since the file's size was looked at
}

var _ io.Writer = (*agentLog)(nil)

// Write implements io.Writer. It never reports an error: an agent that cannot write
// its diary goes on.
func (l *agentLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, _ = l.f.Write(b)
	if l.n += len(b); l.n > maxAgentLog/16 {
		l.n = 0
		if f, err := openAgentLog(l.home); err == nil {
			_ = l.f.Close()
			l.f = f
			if l.ownStderr {
				_ = unix.Dup3(int(f.Fd()), 2, 0)
			}
		}
	}
	return len(b), nil
}
