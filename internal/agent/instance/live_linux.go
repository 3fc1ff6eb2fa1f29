package instance

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/versions"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
)

// The words between a parent and its child: what the child runs in its environment, and
// its lines on a pipe.
const (
	envChild  = "TAKO_AGENT_RUNS" // "<sha256> <version>"
	childPipe = 3                 // the descriptor
	saysReady = "ready"
	saysError = "error "
)

// endFor is how long a child may take to end: less than systemd gives the parent.
const endFor = 25 * time.Second

// self is the file of the running program, whatever has taken its place.
const self = "/proc/self/exe"

// Live is Run for an instance that servers can upgrade. While the installed program is
// the one to run, it runs in this process. A program that a server has brought runs as a
// child, which dies with this process: so the service manager goes on to start the
// installed program, whatever was brought. A child on trial that ends, or is not
// confirmed in time, is followed by what ran before it.
func Live(ctx context.Context, o Options) error {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	o.LockWait = agent.HandOver // of a process that is just being killed
	set, err := o.Store.Load(o.Name)
	if err != nil {
		return err
	}
	test := versions.Says(append(inherited(), EnvDir+"="+o.Store.Dir), agent.ReplyMark, agent.SelfTestArgs(set.Name)...)
	if program, ok := childOf(); ok {
		if o.Versions, err = versions.Open(set.Home, program, test); err != nil {
			return err
		}
		return asChild(ctx, o)
	}
	if o.Versions, err = versions.Open(set.Home, versions.Program{}, test); err != nil {
		return err
	}
	lock, err := durable.TryLock(filepath.Join(o.Versions.Dir(), "parent.lock"))
	if errors.Is(err, durable.ErrLocked) {
		return fmt.Errorf("the instance %q runs already: %w", set.Name, agent.ErrHomeBusy)
	}
	if err != nil {
		return err
	}
	p := &parent{Options: o}
	return errors.Join(p.live(ctx), lock.Unlock())
}

// inherited is the environment of other programs of ours.
func inherited() []string {
	var out []string
	for _, kv := range os.Environ() {
		if key, _, _ := strings.Cut(kv, "="); key != "NOTIFY_SOCKET" && key != envChild && key != EnvDir {
			out = append(out, kv)
		}
	}
	return out
}

// childOf reports whether this process is a child, and which program it runs.
func childOf() (p versions.Program, ok bool) {
	p.SHA256, p.Version, ok = strings.Cut(os.Getenv(envChild), " ")
	if ok {
		_ = os.Unsetenv(envChild) // nothing that it starts is one
		syscall.CloseOnExec(childPipe)
	}
	return p, ok
}

// asChild runs the instance and tells the parent about it.
func asChild(ctx context.Context, o Options) error {
	st, err := o.Versions.Load()
	if err != nil {
		return err
	}
	switch running := o.Versions.Running().SHA256; {
	case st.Trial != nil && st.Trial.SHA256 == running:
		if err := failpoint.Hit("trial-serving"); err != nil {
			return err
		}
	case st.Trial != nil:
		// The parent has dropped the trial, and could not write that.
		if err := o.Versions.Fail("The agent went back to the program from before while its disk was full; its log has the reason."); err != nil {
			o.Log.Error("the state of the agent's programs cannot be written", "err", err)
		}
	}
	pipe := os.NewFile(childPipe, "parent")
	defer pipe.Close()
	ready := o.Ready
	o.Ready = func(a net.Addr) {
		_, _ = fmt.Fprintln(pipe, saysReady) // a parent that is gone has this process killed
		if ready != nil {
			ready(a)
		}
	}
	err = Run(ctx, o)
	if errors.Is(err, ErrSwitch) {
		return nil // the parent reads what is next
	}
	if err != nil {
		_, _ = fmt.Fprintln(pipe, saysError+strings.ReplaceAll(err.Error(), "\n", " "))
	}
	return err
}

// parent decides which program runs, one after another.
type parent struct {
	Options

	installed string // the SHA-256 of this program, once it is known
}

func (p *parent) live(ctx context.Context) error {
	p.fail("The agent was stopped before its new program was confirmed.")
	for {
		err := p.once(ctx)
		if ctx.Err() != nil || err != nil && !errors.Is(err, ErrSwitch) {
			return err
		}
	}
}

// fail ends the trial, if there is one. A disk that does not take it ends nothing else:
// the agent is needed to have room made.
func (p *parent) fail(reason string) {
	if err := p.Versions.Fail(reason); err != nil {
		p.Log.Error("the state of the agent's programs cannot be written", "err", err)
	}
}

// forget has the installed program run, in the same way.
func (p *parent) forget() {
	if err := p.Versions.Forget(); err != nil {
		p.Log.Error("the state of the agent's programs cannot be written", "err", err)
	}
}

// once runs the program that counts, or that is on trial, until it ends. It is nil, or
// ErrSwitch, when another one may be next.
func (p *parent) once(ctx context.Context) error {
	st, err := p.Versions.Load()
	if err != nil {
		return err
	}
	if st.Trial == nil && st.Current == nil {
		return Run(ctx, p.Options)
	}
	if p.installed == "" {
		if p.installed, err = versions.Hash(self); err != nil {
			return err
		}
	}
	if st.Trial != nil {
		return p.trial(ctx, st)
	}
	c := st.Current
	switch {
	case c.Over != p.installed:
		p.Log.Info("another program was installed, and runs instead of the one that a server had brought", "brought", c.Version, "installed", p.Version)
		p.forget()
		return nil
	case !p.Versions.Intact(c.Program):
		p.Log.Error("the program that a server had brought is damaged; the installed one runs", "brought", c.Version, "installed", p.Version)
		p.forget()
		return nil
	}
	child, err := p.start(c.Program)
	if err != nil {
		p.Log.Error("the program that a server had brought cannot be started; the installed one runs", "brought", c.Version, "installed", p.Version, "err", err)
		p.forget()
		return nil
	}
	select {
	case <-ctx.Done():
		return child.end()
	case <-child.done:
		return p.ended(child)
	}
}

// ended is what the end of a child means that was not asked to end. The service manager
// starts this process again, but where the child is not worth another start.
func (p *parent) ended(child *child) error {
	st, loadErr := p.Versions.Load()
	switch {
	case loadErr != nil:
		return loadErr
	case st.Trial != nil: // the next one
		return nil
	}
	why := child.why()
	yields, err := p.Versions.Ended(why)
	if err != nil {
		p.Log.Error("the state of the agent's programs cannot be written", "err", err)
	}
	if yields {
		p.Log.Error("the program that a server had brought ends again and again; the installed one runs", "brought", child.program.Version, "installed", p.Version, "reason", why)
		return nil
	}
	return fmt.Errorf("the agent's program of version %s has ended: %s", child.program.Version, why)
}

// trial runs a program until it has ended, or was not confirmed in time.
func (p *parent) trial(ctx context.Context, st versions.State) error {
	st, err := p.Versions.Start(st, p.installed)
	t := st.Trial
	fail := func(reason string) error {
		p.Log.Error("the agent's new program does not stay", "version", t.Version, "reason", reason)
		p.fail(reason)
		return nil
	}
	if err != nil {
		return fail(fmt.Sprintf("The trial of the new program cannot begin: %v.", err))
	}
	if !p.Versions.Intact(t.Program) {
		return fail("The new program's file is damaged.")
	}
	child, err := p.start(t.Program)
	if err != nil {
		return fail(fmt.Sprintf("The new program cannot be started: %v.", err))
	}
	if err := failpoint.Hit("trial-started"); err != nil {
		return errors.Join(err, child.kill())
	}
	late := time.NewTimer(t.Within)
	defer late.Stop()
	select {
	case <-ctx.Done():
		return child.end()
	case <-child.done:
		// Nobody but this process changes the state now.
		switch on, loadErr := p.onTrial(t); {
		case loadErr != nil:
			return loadErr
		case on:
			return fail("The new program ended by itself: " + child.why())
		}
		return p.ended(child)
	case <-late.C:
	}
	if on, err := p.onTrial(t); err != nil || on {
		if err := child.kill(); err != nil {
			p.Log.Warn("end the agent's new program", "err", err)
		}
		// What was confirmed while it was being killed is started again.
		if on, err := p.onTrial(t); err != nil || !on {
			return err
		}
		if child.ready.Load() {
			return fail(fmt.Sprintf("The new program came up, and no server reached it within %s.", t.Within))
		}
		return fail(fmt.Sprintf("The new program did not come up within %s.", t.Within))
	}
	select {
	case <-ctx.Done():
		return child.end()
	case <-child.done:
		return p.ended(child)
	}
}

// onTrial reports whether a program is still on trial: neither confirmed, nor followed
// by another since.
func (p *parent) onTrial(t *versions.Trial) (bool, error) {
	st, err := p.Versions.Load()
	return err == nil && st.Trial != nil && *st.Trial == *t, err
}

// child is a program that runs in the place of this one.
type child struct {
	program versions.Program
	cmd     *exec.Cmd
	done    chan struct{} // closed when it has ended, as err says
	err     error
	heard   chan struct{} // closed when all that it says was read
	ready   atomic.Bool
	said    string // its error, once heard is closed
}

func (p *parent) start(program versions.Program) (*child, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(p.Versions.Path(program), "agent", "run", "--instance", p.Name) //nolint:noctx // it is told to end, not killed, when the context ends
	cmd.Env = append(inherited(), EnvDir+"="+p.Store.Dir, envChild+"="+program.SHA256+" "+program.Version)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.ExtraFiles = []*os.File{w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	c := &child{program: program, cmd: cmd, done: make(chan struct{}), heard: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The signal at the parent's death comes at that of the thread which has started
		// the child: this one, which ends with the goroutine.
		runtime.LockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			c.err = cmd.Wait()
			close(c.done)
		}
	}()
	err = <-started
	if err = errors.Join(err, w.Close()); err != nil {
		return nil, errors.Join(err, r.Close())
	}
	p.Log.Info("runs a program that a server has brought", "version", program.Version, "pid", cmd.Process.Pid)
	go c.hear(r)
	return c, nil
}

// hear reads what the child says until it has ended.
func (c *child) hear(r io.ReadCloser) {
	defer close(c.heard)
	defer r.Close()
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if lines.Text() == saysReady {
			c.ready.Store(true)
			notify("READY=1")
		}
		if text, ok := strings.CutPrefix(lines.Text(), saysError); ok {
			c.said = text
		}
	}
}

// why says how the child has ended.
func (c *child) why() string {
	<-c.heard
	switch {
	case c.said != "":
		return c.said
	case c.err != nil:
		return c.err.Error()
	}
	return "without an error"
}

// end tells the child to end, and waits for it.
func (c *child) end() error {
	notify("STOPPING=1")
	_ = c.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	limit := time.NewTimer(endFor)
	defer limit.Stop()
	select {
	case <-c.done:
		return nil
	case <-limit.C:
		return c.kill()
	}
}

// kill ends the child at once. Scripts do not notice.
func (c *child) kill() error {
	if err := c.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-c.done
	return nil
}
