// Package localsocket is how processes on one host talk to each other: Unix sockets
// that only their own user and root can use, at paths of any length.
package localsocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/egress"
)

// maxPath is the longest path the kernel takes for a Unix socket.
const maxPath = 107

// short calls f with a path to the socket that the kernel takes: a long one is reached
// through a handle of its directory.
func short(socket string, f func(string) error) error {
	if len(socket) <= maxPath {
		return f(socket)
	}
	dir, err := unix.Open(filepath.Dir(socket), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: filepath.Dir(socket), Err: err}
	}
	defer unix.Close(dir) //nolint:errcheck // a handle
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(socket)))
}

// Dial connects to a socket.
func Dial(ctx context.Context, path string) (*net.UnixConn, error) {
	var c net.Conn
	err := short(path, func(p string) (err error) {
		c, err = egress.Dialer(net.Dialer{})(ctx, "unix", p)
		return err
	})
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("not a Unix socket"), c.Close())
	}
	return u, nil
}

// Listen makes a socket in the place of one that is there, whose process the caller
// knows to be gone, in a directory that only its user may enter. It is not removed at
// the end, since a successor may have its own there by then.
func Listen(ctx context.Context, path string) (*Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ln net.Listener
	err := short(path, func(p string) (err error) {
		ln, err = new(net.ListenConfig).Listen(ctx, "unix", p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	u, ok := ln.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(errors.New("not a Unix socket"), ln.Close())
	}
	u.SetUnlinkOnClose(false)
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return &Listener{u}, nil
}

// Listener accepts connections of root and of its own user, and closes others.
type Listener struct{ *net.UnixListener }

// Accept is net.Listener.
func (l *Listener) Accept() (net.Conn, error) { return l.AcceptLocal() }

// AcceptLocal waits for the next connection.
func (l *Listener) AcceptLocal() (*net.UnixConn, error) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if Trusted(c) {
			return c, nil
		}
		_ = c.Close()
	}
}

// Trusted reports whether the peer is root or our own user.
func Trusted(c *net.UnixConn) bool {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	ok := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		ok = err == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
	})
	return err == nil && ok
}
