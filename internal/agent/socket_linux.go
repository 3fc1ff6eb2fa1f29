package agent

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

// maxSocketPath is the longest path the kernel takes for a unix socket.
const maxSocketPath = 107

// shortSocket calls f with a path to the socket that the kernel takes: a long one
// is reached through a handle of its directory.
func shortSocket(socket string, f func(string) error) error {
	if len(socket) <= maxSocketPath {
		return f(socket)
	}
	dir, err := unix.Open(filepath.Dir(socket), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return &fs.PathError{Op: "open", Path: filepath.Dir(socket), Err: err}
	}
	defer unix.Close(dir) //nolint:errcheck // a handle
	return f(fmt.Sprintf("/proc/self/fd/%d/%s", dir, filepath.Base(socket)))
}

func dialSocket(ctx context.Context, socket string) (net.Conn, error) {
	var c net.Conn
	err := shortSocket(socket, func(p string) (err error) {
		c, err = egress.Dialer(net.Dialer{})(ctx, "unix", p)
		return err
	})
	return c, err
}

// Listen opens the socket of the agent with that home, in a directory only its user
// may enter. The caller holds the home (Open), so a socket that is there is dead.
func Listen(ctx context.Context, home string) (net.Listener, error) {
	socket := SocketPath(home)
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, err
	}
	if err := os.Chmod(filepath.Dir(socket), 0o700); err != nil {
		return nil, err
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var ln net.Listener
	err := shortSocket(socket, func(p string) (err error) {
		ln, err = new(net.ListenConfig).Listen(ctx, "unix", p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", socket, err)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		// A successor may have its socket there when we close ours.
		u.SetUnlinkOnClose(false)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		return nil, errors.Join(err, ln.Close())
	}
	return ln, nil
}

// trustedPeer reports whether the peer of a unix socket is root or our own user.
// Other kinds of connection are for whoever made the listener to trust.
func trustedPeer(c net.Conn) bool {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return true
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return false
	}
	trusted := false
	err = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		trusted = err == nil && (cred.Uid == 0 || int(cred.Uid) == os.Geteuid())
	})
	return err == nil && trusted
}
