package supervisor

import (
	"context"
	"maps"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/egress"
)

// notifySystemd tells systemd how we are, and with sockets has it keep copies of them,
// which the next supervisor gets if this one is killed. Without systemd it does nothing.
func notifySystemd(state string, sockets map[string]*os.File) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	conn, err := egress.Dialer(net.Dialer{})(context.Background(), "unixgram", path)
	if err != nil {
		return // it finds out by its own time limit
	}
	c, ok := conn.(*net.UnixConn)
	if !ok {
		_ = conn.Close()
		return
	}
	defer c.Close() //nolint:errcheck // a datagram socket
	_, _ = c.Write([]byte(state))
	for _, name := range slices.Sorted(maps.Keys(sockets)) {
		raw, err := sockets[name].SyscallConn()
		if err != nil {
			continue
		}
		_ = raw.Control(func(fd uintptr) {
			_, _, _ = c.WriteMsgUnix([]byte("FDSTORE=1\nFDNAME="+name), unix.UnixRights(int(fd)), nil)
		})
	}
}

// fromSystemd are the sockets that systemd has kept or opened for us, by name.
func fromSystemd() map[string]*os.File {
	out := map[string]*os.File{}
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return out
	}
	n, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for _, key := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(key)
	}
	for i := range n {
		fd := 3 + i // as systemd passes them
		unix.CloseOnExec(fd)
		f := os.NewFile(uintptr(fd), "socket")
		if i >= len(names) || out[names[i]] != nil {
			_ = f.Close() // the same, kept twice
			continue
		}
		out[names[i]] = f
	}
	return out
}
