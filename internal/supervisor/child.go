package supervisor

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/supervisor/control"
)

// program is the name of the program in a version's directory.
const program = "tako"

// child is a server, started by this supervisor or by an earlier one.
type child struct {
	pid     int
	process *os.Process
	socket  string
	conn    *control.Conn
	status  control.Status
	started time.Time // when it began to serve; of one of an earlier supervisor, its process
	// gone is closed when it has ended.
	gone chan struct{}
	exit string // how, once gone is closed
	code int    // its exit code then, 0 where that is not known
}

// spawn starts a version.
func (s *Supervisor) spawn(dir string, candidate bool) (*child, error) {
	exe := s.path(dir, program)
	socket := s.path("run", "server-"+strings.ToLower(rand.Text()[:10])+".sock")
	p, err := control.Spawn(exe, s.cfg.Args, s.cfg.Environ, control.Launch{Socket: socket, Candidate: candidate, Orphan: s.cfg.Limits.Orphan.Milliseconds()}, s.sockets, s.cfg.Stdout, s.cfg.Stderr)
	if err != nil {
		return nil, err
	}
	c := &child{pid: p.Pid, process: p, socket: socket, started: time.Now(), gone: make(chan struct{})}
	go func() {
		state, err := p.Wait()
		c.exit, c.code = fmt.Sprint(state), state.ExitCode()
		if err != nil {
			c.exit = err.Error()
		}
		close(c.gone)
	}()
	return c, nil
}

// adoptChild finds the server that answers at a socket.
func adoptChild(ctx context.Context, socket string) (*child, error) {
	conn, st, err := control.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	p, err := os.FindProcess(st.PID)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	info, err := os.Stat(fmt.Sprintf("/proc/%d", st.PID))
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	c := &child{pid: st.PID, process: p, socket: socket, conn: conn, status: st, started: info.ModTime(), gone: make(chan struct{})}
	go func() {
		c.exit = "ended"
		if err := outlive(st.PID); err != nil {
			c.exit = err.Error()
		}
		close(c.gone)
	}()
	return c, nil
}

// outlive waits for the end of a process that is no child of ours.
func outlive(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // a handle
	for {
		_, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1) //nolint:gosec // a descriptor is small
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// reach connects to the server and waits until it could serve.
func (c *child) reach(ctx context.Context, limit time.Duration) error {
	until := time.Now().Add(limit)
	for c.conn == nil {
		conn, _, err := control.Dial(ctx, c.socket)
		if err == nil {
			c.conn = conn
			break
		}
		select {
		case <-c.gone:
			return fmt.Errorf("it has ended: %s", c.exit)
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(until) {
			return fmt.Errorf("it did not answer within %s: %w", limit, err)
		}
	}
	return c.tell(ctx, control.Wait, max(time.Until(until), time.Second))
}

// tell has the server do something.
func (c *child) tell(ctx context.Context, cmd control.Command, limit time.Duration) error {
	st, err := c.do(ctx, cmd, limit)
	if st.PID != 0 {
		c.status = st
	}
	if err != nil {
		select {
		case <-c.gone:
			return fmt.Errorf("it has ended: %s", c.exit)
		case <-time.After(100 * time.Millisecond): // its end may come after that of its connection
		}
		return fmt.Errorf("%s: %w", cmd, err)
	}
	return nil
}

// do is tell by the connection that there is, or by a new one if an answer never came on
// that.
func (c *child) do(ctx context.Context, cmd control.Command, limit time.Duration) (control.Status, error) {
	if c.conn.Lost() {
		conn, st, err := control.Dial(ctx, c.socket)
		if err != nil {
			return st, err
		}
		_ = c.conn.Close()
		c.conn = conn
	}
	return c.conn.Do(ctx, cmd, limit)
}

func (c *child) version() string { return c.status.Version }

// state says how it has ended, once it has.
func (c *child) state() string { return c.exit }

// terminate asks it to end.
func (c *child) terminate() { _ = c.process.Signal(syscall.SIGTERM) }

// kill ends it now.
func (c *child) kill() error {
	err := c.process.Kill()
	if errors.Is(err, os.ErrProcessDone) {
		err = nil
	}
	<-c.gone
	c.close()
	return err
}

// close forgets a server that has ended, or is to go on without us.
func (c *child) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
	select {
	case <-c.gone:
		_ = os.Remove(c.socket)
	default:
	}
}

// dir is the text of a link to the version that runs, "" if it is none of this root.
func (c *child) dir(root string) string {
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", c.pid))
	if err != nil {
		return ""
	}
	root, err = filepath.EvalSymlinks(root)
	if err != nil {
		return ""
	}
	v := versionOf(root, exe)
	if v == "" {
		return ""
	}
	return filepath.Join("versions", v)
}
