package halibut_test

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/halibut"
)

// noted is a listener that hands on the connections that it has accepted.
type noted struct {
	net.Listener
	accepted chan net.Conn
}

func (n *noted) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err == nil {
		n.accepted <- c
	}
	return c, err
}

// givenUp is after which time the system gives up a peer that acknowledges nothing.
func givenUp(t *testing.T, c net.Conn) (after time.Duration) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Control(func(fd uintptr) {
		ms, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT)
		if err != nil {
			t.Error(err)
		}
		after = time.Duration(ms) * time.Millisecond
	})
	if err != nil {
		t.Fatal(err)
	}
	return after
}

// TestVanishedPeers: a peer that vanishes while something is sent to it is given up by
// either end long before the answer to a call is.
func TestVanishedPeers(t *testing.T) {
	t.Parallel()
	node := halibut.New(halibut.Config{Identity: newID(t), Timing: quick()})
	ln := &noted{listen(t), make(chan net.Conn, 1)}
	serve(t, node, ln)
	dialed, err := halibut.DialDirect(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	if got := givenUp(t, dialed); got != halibut.Vanished {
		t.Errorf("the dialing end gives up after %s", got)
	}
	accepted := <-ln.accepted
	eventually(t, "the accepting end gives up, too", func() bool { return givenUp(t, accepted) == halibut.Vanished })
}
