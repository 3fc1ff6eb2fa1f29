package supervisor

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/localsocket"
	"github.com/takodeploy/tako/internal/supervisor/control"
)

// strays finds the servers at the sockets of an earlier supervisor, all at the same time.
func (s *Supervisor) strays(ctx context.Context, sockets []string) ([]*child, error) {
	found, errs := make([]*child, len(sockets)), make([]error, len(sockets))
	var all sync.WaitGroup
	for i, socket := range sockets {
		all.Go(func() { found[i], errs[i] = s.stray(ctx, socket) })
	}
	all.Wait()
	out := found[:0]
	for _, c := range found {
		if c != nil {
			out = append(out, c)
		}
	}
	return out, errors.Join(errs...)
}

// stray finds the server at a socket, nil if there is none any more. One that only says
// nothing, since it was stopped or the machine is short of memory, must not be taken for
// one that is gone: it has its listening sockets and its tasks, and would go on with both
// beside the next one. So it is waited for, and ended if it stays silent.
func (s *Supervisor) stray(ctx context.Context, socket string) (*child, error) {
	limit, stop := context.WithTimeout(ctx, s.cfg.Limits.Adopt)
	defer stop()
	for said := ""; ; {
		c, err := adoptChild(limit, socket)
		switch {
		case err == nil:
			return c, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, os.ErrNotExist):
			s.log.Warn("a socket without a server", "path", socket, "err", err)
			if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
				return nil, err
			}
			return nil, nil //nolint:nilnil // no server is an answer
		case limit.Err() != nil:
			return nil, s.endSilent(ctx, socket, err)
		}
		if text := err.Error(); text != said {
			said = text
			s.log.Warn("a server of an earlier supervisor does not answer; trying again", "path", socket, "err", err)
		}
		select {
		case <-limit.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// killWithin is how long the end of a killed process may take.
const killWithin = 10 * time.Second

// endSilent kills the server at a socket, which does not answer for that reason.
func (s *Supervisor) endSilent(ctx context.Context, socket string, silent error) error {
	ctx, stop := context.WithTimeout(ctx, killWithin)
	defer stop()
	pid, err := listenerOf(ctx, socket)
	if err == nil {
		err = s.killServer(pid)
	}
	if err != nil {
		return fmt.Errorf("the server at %s has not answered for %s (%w), and cannot be ended: %w. It may still serve; end its process (it is one of %s), and start the supervisor again",
			socket, s.cfg.Limits.Adopt, silent, err, s.path("versions"))
	}
	s.log.Error("a server of an earlier supervisor did not answer, and was killed", "pid", pid, "path", socket, "err", silent)
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// endHidden ends the servers of an earlier supervisor that have no socket, so that nobody
// can tell them anything: those that have not come as far as to make one, and those that
// end just now. They have the listening sockets, and would serve beside the next one.
func (s *Supervisor) endHidden(ctx context.Context) error {
	all, err := Processes(s.cfg.Root)
	if err != nil {
		return err
	}
	for _, p := range all {
		pid, socket := p.PID, socketOf(p.PID)
		if pid == os.Getpid() || filepath.Dir(socket) != s.path("run") {
			continue
		}
		if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
			continue
		}
		s.log.Warn("ending a server of an earlier supervisor that cannot be reached", "pid", pid)
		if err := s.endServer(ctx, pid); err != nil {
			return fmt.Errorf("a server of an earlier supervisor cannot be ended: %w; end it, and start the supervisor again", err)
		}
	}
	return nil
}

// socketOf is the socket by which a process was to answer its supervisor, "" for one that
// was started by none.
func socketOf(pid int) string {
	environ, err := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
	if err != nil {
		return ""
	}
	for pair := range strings.SplitSeq(string(environ), "\x00") {
		text, ok := strings.CutPrefix(pair, control.Env+"=")
		var l control.Launch
		if ok && json.Unmarshal([]byte(text), &l) == nil {
			return l.Socket
		}
	}
	return ""
}

// endServer has a server end by itself, and kills it if it does not in time.
func (s *Supervisor) endServer(ctx context.Context, pid int) error {
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		if errors.Is(err, unix.ESRCH) {
			return nil
		}
		return fmt.Errorf("process %d: %w", pid, err)
	}
	ended := make(chan error, 1)
	go func() { ended <- outlive(pid) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(s.cfg.Limits.Adopt):
		return s.killServer(pid)
	}
}

// listenerOf is the process that made a socket, which the kernel tells also if that
// process never answers.
func listenerOf(ctx context.Context, socket string) (pid int, err error) {
	c, err := localsocket.Dial(ctx, socket)
	if err != nil {
		return 0, err
	}
	defer c.Close() //nolint:errcheck // nothing is said
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) { cred, failed = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	if err := errors.Join(err, failed); err != nil {
		return 0, err
	}
	return int(cred.Pid), nil
}

// killServer kills a process that runs one of the versions, and waits for its end.
func (s *Supervisor) killServer(pid int) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("process %d: %w", pid, err)
	}
	defer unix.Close(fd) //nolint:errcheck // a handle
	if (&child{pid: pid}).dir(s.cfg.Root) == "" {
		return fmt.Errorf("process %d runs none of the versions", pid)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	until := time.Now().Add(killWithin)
	for {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(until).Milliseconds())) //nolint:gosec // a descriptor is small
		switch {
		case n > 0:
			return nil
		case err != nil && !errors.Is(err, unix.EINTR):
			return err
		case !time.Now().Before(until):
			return fmt.Errorf("process %d does not end", pid)
		}
	}
}
