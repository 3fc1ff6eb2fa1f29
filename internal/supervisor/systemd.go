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
)

// notifySystemd tells systemd how we are, and with sockets has it keep copies of them,
// which the next supervisor gets if this one is killed. Without systemd it does nothing.
func notifySystemd(state string, sockets map[string]*os.File) {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return
	}
	// Not a connected one, by which Go sends no descriptors.
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"})
	if err != nil {
		return // it finds out by its own time limit
	}
	defer c.Close() //nolint:errcheck // a datagram socket
	to := &net.UnixAddr{Name: path, Net: "unixgram"}
	_, _ = c.WriteToUnix([]byte(state), to)
	for _, name := range slices.Sorted(maps.Keys(sockets)) {
		raw, err := sockets[name].SyscallConn()
		if err != nil {
			continue
		}
		_ = raw.Control(func(fd uintptr) {
			_, _, _ = c.WriteMsgUnix([]byte("FDSTORE=1\nFDNAME="+name), unix.UnixRights(int(fd)), to)
		})
	}
}

// forget has systemd keep the socket with a name no longer.
func forget(name string) { notifySystemd("FDSTOREREMOVE=1\nFDNAME="+name, nil) }

// listensOn reports whether a socket listens where an address says.
func listensOn(ctx context.Context, f *os.File, addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return false // to listen there fails with the reason
	}
	ln, err := net.FileListener(f)
	if err != nil {
		return false
	}
	defer ln.Close() //nolint:errcheck // a copy
	// What a host's name stands for, and where one listens for all addresses, listening tells.
	like, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return false
	}
	defer like.Close() //nolint:errcheck // it was only asked for its address
	is, ok := ln.Addr().(*net.TCPAddr)
	want, both := like.Addr().(*net.TCPAddr)
	return ok && both && want.IP.Equal(is.IP) && want.Zone == is.Zone && (port == "0" || port == strconv.Itoa(is.Port))
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
