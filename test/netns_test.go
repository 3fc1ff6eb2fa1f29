package test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/apptest"
)

// network is a network namespace of a server's own: a loopback, and a wire with the default
// route, whose other end nobody listens at. Without ARP and IPv6 nothing is on the wire
// but what somebody sends.
const network = `for c in all default; do echo 1 > /proc/sys/net/ipv6/conf/$c/disable_ipv6; done
ip link set lo up && ip link add out type veth peer name end && ip link set out arp off && ip link set end arp off up &&
	ip addr add 198.51.100.1/24 dev out && ip link set out up && ip route add default via 198.51.100.254 && exec "$@"`

// alone has a server run in a network namespace of its own, which a test machine must allow.
func alone(t *testing.T, p *apptest.Process) {
	t.Helper()
	p.Within = []string{"unshare", "--net", "sh", "-c", network, "sh"}
	//nolint:gosec // the arguments are the test's own
	if out, err := exec.CommandContext(t.Context(), p.Within[0], append(p.Within[1:], "true")...).CombinedOutput(); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("a test machine must allow network namespaces: %v %s", err, out)
		}
		t.Skipf("only root may make network namespaces: %v %s", err, out)
	}
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return dialWithin(ctx, p.PID(), network, addr)
	}}
	p.HTTP = &http.Client{Transport: transport}
	t.Cleanup(transport.CloseIdleConnections)
}

// within runs fn on a thread that is in the network namespace of a process.
func within(pid int, fn func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		done <- func() error {
			f, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", pid))
			if err != nil {
				return err
			}
			defer f.Close()
			if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
				return err
			}
			return fn()
		}()
	}()
	return <-done
}

func dialWithin(ctx context.Context, pid int, network, addr string) (conn net.Conn, err error) {
	err = within(pid, func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, addr)
		return err
	})
	return conn, err
}

// left counts the packets that have left a server's namespace but for loopback.
func left(t *testing.T, p *apptest.Process) (packets int) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", p.PID()))
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for line := range bytes.Lines(text) {
		name, counts, ok := strings.Cut(strings.TrimSpace(string(line)), ":")
		if !ok || name == "lo" {
			continue
		}
		found = true
		n, err := strconv.Atoi(strings.Fields(counts)[9]) // transmitted packets
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		packets += n
	}
	if !found {
		t.Fatalf("the server has no interface but loopback:\n%s", text)
	}
	return packets
}

// knock sends one packet out of a server's namespace, to see that it is counted.
func knock(t *testing.T, p *apptest.Process) {
	t.Helper()
	err := within(p.PID(), func() error {
		c, err := net.Dial("udp", elsewhere+":9")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("out"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
