package supervisor_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/supervisor"
)

// newManager hears, in the place of systemd, what is said at the socket "notify" of a
// directory.
func newManager(t *testing.T) (dir string, said *net.UnixConn) {
	t.Helper()
	dir, err := os.MkdirTemp("", "tako") //nolint:usetesting // t.TempDir is too long for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	said, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = said.Close() })
	if err := said.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return dir, said
}

// TestSystemdKeepsSockets: a supervisor tells systemd that it is ready, and gives it its
// listening sockets to keep.
func TestSystemdKeepsSockets(t *testing.T) {
	dir, manager := newManager(t)
	t.Setenv("NOTIFY_SOCKET", filepath.Join(dir, "notify"))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- supervisor.Run(ctx, supervisor.Config{Root: dir, Addresses: map[string]string{"http": "127.0.0.1:0", "agents": "127.0.0.1:0"}})
	}()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	var said []string
	for range 3 {
		text, rights := make([]byte, 4096), make([]byte, 4096)
		n, m, _, _, err := manager.ReadMsgUnix(text, rights)
		if err != nil {
			t.Fatalf("after %q: %v", said, err)
		}
		said = append(said, string(text[:n]))
		all, err := unix.ParseSocketControlMessage(rights[:m])
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range all {
			fds, err := unix.ParseUnixRights(&c)
			if err != nil || len(fds) != 1 {
				t.Fatalf("%v %v", fds, err)
			}
			if v, err := unix.GetsockoptInt(fds[0], unix.SOL_SOCKET, unix.SO_ACCEPTCONN); v != 1 || err != nil {
				t.Errorf("what systemd got does not listen: %v", err)
			}
			_ = unix.Close(fds[0])
		}
		if len(all) == 0 && n != len("READY=1") {
			t.Errorf("%q came without a socket", text[:n])
		}
	}
	if want := []string{"READY=1", "FDSTORE=1\nFDNAME=agents", "FDSTORE=1\nFDNAME=http"}; !slices.Equal(said, want) {
		t.Errorf("systemd was told %q", said)
	}
}

// TestKeptSocket: a socket that systemd has kept is used where it listens on the address of
// the settings, and given up where these have changed: it is kept over a restart, too.
func TestKeptSocket(t *testing.T) {
	t.Parallel()
	for name, same := range map[string]bool{"the same address": true, "all addresses": true, "another address": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, "1.0.0")
			addr := "127.0.0.1:0"
			if name == "all addresses" { // which the kernel tells in another way
				w.addr = strings.Replace(w.addr, "127.0.0.1", "0.0.0.0", 1)
			}
			if same {
				addr = w.addr
			}
			ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			tcp, ok := ln.(*net.TCPListener)
			if !ok {
				t.Fatalf("%T", ln)
			}
			kept, err := tcp.File()
			if err != nil {
				t.Fatal(err)
			}
			w.kept = []*os.File{kept}
			dir, manager := newManager(t)
			// While this process has it, nobody else can listen there.
			w.supervise("LISTEN_FDS=1", "LISTEN_FDNAMES=http", "NOTIFY_SOCKET="+filepath.Join(dir, "notify"))
			w.serves("1.0.0")
			first := make([]byte, 4096)
			n, err := manager.Read(first)
			want := "READY=1"
			if !same { // else it would be there after the next restart, too, beside the new one
				want = "FDSTOREREMOVE=1\nFDNAME=http"
			}
			if err != nil || string(first[:n]) != want {
				t.Errorf("systemd was told %q, %v", first[:n], err)
			}
			if err := errors.Join(kept.Close(), ln.Close()); err != nil {
				t.Fatal(err)
			}
			if same {
				w.serves("1.0.0")
				return
			}
			w.await("nobody listens on the former address", func() bool {
				c, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
				if err == nil {
					_ = c.Close()
				}
				return err != nil
			})
		})
	}
}
