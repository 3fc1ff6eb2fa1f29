package supervisor

import (
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
func listensOn(f *os.File, addr string) bool {
	want, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return false // to listen there fails with the reason
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var at unix.Sockaddr
	var failed error
	err = raw.Control(func(fd uintptr) { at, failed = unix.Getsockname(int(fd)) })
	if err != nil || failed != nil {
		return false
	}
	var ip net.IP
	var port int
	switch a := at.(type) {
	case *unix.SockaddrInet4:
		ip, port = a.Addr[:], a.Port
	case *unix.SockaddrInet6:
		ip, port = a.Addr[:], a.Port
	}
	if want.Port != 0 && want.Port != port {
		return false
	}
	if len(want.IP) == 0 || want.IP.IsUnspecified() {
		return ip.IsUnspecified()
	}
	return want.IP.Equal(ip)
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
