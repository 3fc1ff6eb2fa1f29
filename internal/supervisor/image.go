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

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/supervisor/control"
)

// Image is the one version that a container's image has.
type Image struct {
	// Version is the image's, Program the path of its program.
	Version, Program string
}

// EndedError is a server that has ended by itself.
type EndedError struct{ status syscall.WaitStatus }

// Error says how it has ended. Why it has said itself.
func (e *EndedError) Error() string {
	if e.status.Signaled() {
		return fmt.Sprintf("the server was ended by signal %d (%s)", e.status.Signal(), e.status.Signal())
	}
	return fmt.Sprintf("the server has ended with exit code %d", e.status.ExitStatus())
}

// ExitCode is the server's, or 128 and the number of the signal.
func (e *EndedError) ExitCode() int {
	if e.status.Signaled() {
		return 128 + int(e.status.Signal())
	}
	return e.status.ExitStatus()
}

// RunImage is what the first process of a container does until ctx ends: it runs the
// image's server on the volume cfg.Root, and collects the processes that others leave
// behind. In a container another version comes with another image, so nothing is handed
// over here, and nothing goes back by itself: when the server ends, so does RunImage,
// with an *EndedError, and whoever runs the container decides.
//
// What `current` and `previous` say on the volume stays true all the same: once the
// image's version serves, and not before, it is the current one. So as long as the links
// say so, the version that they name can use the data that is there.
//
// Whoever else waits for children in its process may be told that they are none: it
// collects them all.
func RunImage(ctx context.Context, cfg Config, image Image) (err error) {
	s := &Supervisor{cfg: cfg, log: cfg.Log, orders: make(chan order)}
	s.cfg.Limits = cfg.Limits.withDefaults()
	if err := os.MkdirAll(s.path("run"), 0o700); err != nil {
		return fmt.Errorf("make the directory for sockets: %w", err)
	}
	if s.lock, err = s.own(ctx); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.lock.Unlock()) }()
	left, err := filepath.Glob(s.path("run", "server-*.sock"))
	if err != nil {
		return err
	}
	for _, path := range left { // of containers that are gone
		_ = os.Remove(path)
	}
	listening, stop := context.WithCancel(ctx)
	defer stop()
	commands, err := s.listen(listening)
	if err != nil {
		return err
	}
	defer func() { stop(); <-commands }()
	return s.runImage(ctx, image)
}

// own takes the volume. The container before this one may just be ending.
func (s *Supervisor) own(ctx context.Context) (*durable.Lock, error) {
	until := time.Now().Add(s.cfg.Limits.Bind)
	for {
		lock, err := durable.TryLock(s.path("run", "supervisor.lock"))
		if !errors.Is(err, durable.ErrLocked) {
			return lock, err
		}
		if time.Now().After(until) {
			return nil, fmt.Errorf("another container, or a supervisor, uses %s: %w", s.cfg.Root, err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *Supervisor) runImage(ctx context.Context, image Image) error {
	c := &child{socket: s.path("run", "server-"+strings.ToLower(rand.Text()[:10])+".sock"), started: time.Now(), gone: make(chan struct{})}
	p, err := control.Spawn(image.Program, s.cfg.Args, s.cfg.Environ, control.Launch{Socket: c.socket}, nil, s.cfg.Stdout, s.cfg.Stderr)
	if err != nil {
		return fmt.Errorf("start the server: %w", err)
	}
	c.pid, c.process = p.Pid, p
	var how syscall.WaitStatus
	go func() {
		how = collect(c.pid)
		c.exit = (&EndedError{how}).Error()
		close(c.gone)
	}()
	ready := make(chan error, 1)
	reaching, stop := context.WithCancel(ctx)
	go func() { ready <- c.serves(reaching) }()
	defer func() { stop(); c.close() }()
	done, late := ctx.Done(), (<-chan time.Time)(nil)
	for {
		select {
		case err := <-ready:
			ready = nil
			if err != nil {
				continue // it ends, or goes on without being the current version
			}
			s.server = c
			if err := s.becomes(image.Version); err != nil {
				s.log.Error("make the image's version the current one", "version", image.Version, "err", err)
			}
			s.log.Info("the server runs", "version", image.Version)
		case <-done:
			done, late = nil, time.After(s.cfg.Limits.Stop)
			c.terminate()
		case <-late:
			s.log.Error("the server does not end; killing it")
			_ = syscall.Kill(c.pid, syscall.SIGKILL)
		case <-c.gone:
			stop()
			if ready != nil {
				s.log.Debug("it did not come to serve", "err", <-ready)
			}
			if ctx.Err() != nil && how.Exited() && how.ExitStatus() == 0 {
				return nil
			}
			return &EndedError{how}
		case o := <-s.orders:
			var err error
			switch o.Do {
			case "status":
			case "deep":
				err = s.deep(ctx)
			case "keep":
				err = s.forgetPrevious(o.Version, filepath.Join("versions", o.Version))
			default:
				err = fmt.Errorf("this server runs in a container, whose image has version %s; to run another version, start the container with that version's image", image.Version)
			}
			r := s.report()
			r.Image = image.Version
			if err != nil {
				r.Error = err.Error()
			}
			o.done <- r
		}
	}
}

// serves waits until the server does, however long it takes to bring its schema up.
func (c *child) serves(ctx context.Context) error {
	for {
		err := c.reach(ctx, time.Minute)
		switch {
		case err == nil && c.status.Stage == control.Serving:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		}
		select {
		case <-c.gone:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// becomes makes a version the current one, and the one that was it the previous.
func (s *Supervisor) becomes(version string) error {
	to := filepath.Join("versions", version)
	from, err := os.Readlink(s.path("current"))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return durable.Symlink(to, s.path("current"))
	case err != nil || from == to:
		return err
	}
	return s.flip(from, to)
}

// collect waits for the end of a process, and of all orphans that come to this one, which
// is their parent if it is the first of its container.
func collect(pid int) syscall.WaitStatus {
	for {
		var how syscall.WaitStatus
		got, err := syscall.Wait4(-1, &how, 0, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil: // no child at all, so not that one
			return syscall.WaitStatus(0xff00)
		case got == pid:
			return how
		}
	}
}
