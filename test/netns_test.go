package test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/apptest"
)

// network is a network namespace of a server's own: a loopback, and a wire with the default
// route, whose other end nobody listens at. Without ARP and IPv6 nothing is on the wire
// but what somebody sends.
const network = `for c in all default; do echo 1 > /proc/sys/net/ipv6/conf/$c/disable_ipv6; done
ip link set lo up && ip link add out type veth peer name end && ip link set out arp off && ip link set end arp off up &&
	ip addr add 198.51.100.1/24 dev out && ip link set out up && ip route add default via 198.51.100.254 && exec "$@"`

// shown is how many packets a message shows at most.
const shown = 50

// lonely is the network namespace that a server is in, with all that left it.
type lonely struct {
	pid   int                    // of who keeps the namespace, also while no server runs
	sent  []string               // what was sent on purpose, as tcpdump tells it
	lines chan string            // tcpdump's, nil without it
	ended func() (string, error) // stops tcpdump, and has what it says of itself
}

// alone has a server run in a network namespace of its own, which a test machine must allow.
// Two look at it from before the server starts until silent is called: the counters of the wire
// and, where it is installed, tcpdump, on every interface but loopback.
func alone(t *testing.T, p *apptest.Process) *lonely {
	t.Helper()
	keeper := exec.CommandContext(t.Context(), "unshare", "--net", "sh", "-c", network, "sh", "cat")
	var said bytes.Buffer
	keeper.Stderr = &said
	in, err := keeper.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := keeper.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := keeper.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = in.Close(); _ = keeper.Wait() }) // it has served
	_, _ = io.WriteString(in, "up\n")                       // comes back when the wire is there; if it is not, the read tells
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		_ = keeper.Wait() // what it says tells more
		if os.Getenv("CI") == "true" {
			t.Fatalf("a test machine must allow network namespaces: %v %s", err, said.String())
		}
		t.Skipf("only root may make network namespaces: %v %s", err, said.String())
	}
	l := &lonely{pid: keeper.Process.Pid}
	p.Within = l.enter()
	transport := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		return dialWithin(ctx, l.pid, network, addr)
	}}
	p.HTTP = &http.Client{Transport: transport}
	t.Cleanup(transport.CloseIdleConnections)
	l.capture(t)
	l.knock(t)
	return l
}

// enter is the command line that another one is appended to which is to run in the namespace.
func (l *lonely) enter() []string {
	return []string{"nsenter", fmt.Sprintf("--net=/proc/%d/ns/net", l.pid)}
}

// capture has tcpdump tell every packet, but those of loopback, which is the first
// interface of every namespace.
func (l *lonely) capture(t *testing.T) {
	t.Helper()
	program, err := exec.LookPath("tcpdump")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("a test machine must have tcpdump: %v", err)
		}
		t.Logf("the packets are only counted at the wire, since tcpdump does not look: %v", err)
		return
	}
	args := append(l.enter(), program, "-i", "any", "-nn", "-l", "--immediate-mode", "not", "ifindex", "1")
	dump := exec.CommandContext(t.Context(), args[0], args[1:]...) //nolint:gosec // the arguments are the test's own
	out, err := dump.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errOut, err := dump.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := dump.Start(); err != nil {
		t.Fatal(err)
	}
	said := bufio.NewReader(errOut)
	for listens := false; !listens; {
		line, err := said.ReadString('\n')
		if err != nil {
			t.Fatalf("tcpdump does not listen: %s%v", line, err)
		}
		listens = strings.HasPrefix(line, "listening on any")
	}
	lines, done := make(chan string, 1<<16), make(chan struct{}) // nobody may wait for the test
	l.lines = lines
	go func() {
		defer close(done)
		defer close(lines)
		for packets := bufio.NewScanner(out); packets.Scan(); {
			lines <- packets.Text()
		}
	}()
	l.ended = func() (string, error) {
		if err := dump.Process.Signal(os.Interrupt); err != nil {
			return "", err
		}
		summary, err := io.ReadAll(said)
		<-done
		return string(summary), errors.Join(err, dump.Wait())
	}
	t.Cleanup(func() {
		if l.lines == nil {
			return // silent has looked
		}
		_, _ = l.ended() // the test has failed for another reason, of which packets may tell more
		for line := range l.lines {
			if line != "" && !l.knew(line) {
				t.Errorf("tcpdump has seen %s", line)
			}
		}
	})
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

// left counts the packets that have left the namespace, but for those sent on purpose, and
// has what tcpdump saw of them.
func (l *lonely) left(t *testing.T) (packets int, seen []string) {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/dev", l.pid))
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
		t.Fatalf("the namespace has no interface but loopback:\n%s", text)
	}
	for {
		select {
		case line, ok := <-l.lines:
			if !ok {
				t.Fatal("tcpdump has ended")
			}
			if !l.knew(line) {
				seen = append(seen, line)
			}
		default:
			return packets - len(l.sent), seen
		}
	}
}

// knew reports whether a line of tcpdump is of a packet that was sent on purpose.
func (l *lonely) knew(line string) bool {
	return slices.ContainsFunc(l.sent, func(one string) bool { return strings.Contains(line, one) })
}

// quiet fails a test when a packet has left, and shows it.
func (l *lonely) quiet(t *testing.T, when string) {
	t.Helper()
	if n, seen := l.left(t); n != 0 || len(seen) > 0 {
		t.Fatalf("%s: %d packets have left the copy, and tcpdump has seen %d:\n%s", when, n, len(seen), strings.Join(seen[:min(len(seen), shown)], "\n"))
	}
}

// listen waits until a time has come, and fails a test as soon as a packet leaves.
func (l *lonely) listen(t *testing.T, until time.Time) {
	t.Helper()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for ; time.Now().Before(until); <-tick.C {
		l.quiet(t, "while everybody just waits")
	}
}

// knock sends one packet out of the namespace, to see that it is counted and captured. What
// had been sent before it was captured then, too.
func (l *lonely) knock(t *testing.T) {
	t.Helper()
	before, seen := l.left(t)
	err := within(l.pid, func() error {
		c, err := net.Dial("udp", elsewhere+":9")
		if err != nil {
			return err
		}
		defer c.Close()
		host, port, err := net.SplitHostPort(c.LocalAddr().String())
		if err != nil {
			return err
		}
		l.sent = append(l.sent, fmt.Sprintf("%s.%s > %s.9: UDP", host, port, elsewhere))
		_, err = c.Write([]byte("out"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if l.lines != nil {
		for own := false; !own; {
			select {
			case line, ok := <-l.lines:
				if own = ok && l.knew(line); !own {
					seen = append(seen, line)
				}
			case <-time.After(time.Minute):
				t.Fatalf("tcpdump has not seen a packet that was sent on purpose (%s)", l.sent[len(l.sent)-1])
			}
		}
	}
	if after, more := l.left(t); before != 0 || after != 0 || len(seen)+len(more) > 0 {
		t.Fatalf("%d packets before one that was sent on purpose, and %d beside it; tcpdump has seen\n%s", before, after, strings.Join(append(seen, more...), "\n"))
	}
}

// silent ends the looking: all that was sent on purpose must have been seen, and nothing else.
func (l *lonely) silent(t *testing.T) {
	t.Helper()
	l.knock(t)
	if l.lines == nil {
		return
	}
	lines := l.lines
	l.lines = nil
	summary, err := l.ended()
	for line := range lines {
		if line != "" && !l.knew(line) { // it ends the line of whoever interrupts it
			t.Errorf("tcpdump has seen %s", line)
		}
	}
	if err != nil || !strings.Contains(summary, "\n0 packets dropped by kernel") {
		t.Errorf("tcpdump may have missed packets: %v\n%s", err, summary)
	}
	t.Logf("tcpdump has seen the %d packets that were sent on purpose, and no other: %s", len(l.sent), strings.Join(strings.Fields(summary), " "))
}
