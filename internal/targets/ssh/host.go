package ssh

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/targets/program"
	"golang.org/x/crypto/ssh"
)

// Times of what is done on a host before its agent answers.
const (
	commandFor = time.Minute
	uploadFor  = 30 * time.Minute
)

// host is one user of one host.
type host struct {
	hosts    *Hosts
	name     string
	endpoint Endpoint
	login    Login
	used     atomic.Int64

	turn chan struct{} // full while somebody looks for the agent

	mu       sync.Mutex
	conn     *conn // nil while there is none
	program  *program.Program
	launched agent.Launched
	client   *agent.Client // nil while the agent is not known to answer
	replaced bool          // this process has asked for its own version of the agent
	bridged  bool          // the host does not forward, as was seen since the agent was found
	gone     bool          // nobody connects any more
}

func (h *host) touch()              { h.used.Store(time.Now().UnixNano()) }
func (h *host) lastUsed() time.Time { return time.Unix(0, h.used.Load()) }

func (h *host) home() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.launched.Home
}

func (h *host) close() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
	if h.client != nil {
		h.client.Close()
	}
	if h.conn != nil {
		h.conn.close()
	}
}

// current is agent.Renewing's.
func (h *host) current(ctx context.Context, stale *agent.Client) (*agent.Client, error) {
	h.touch()
	if c := h.answering(stale); c != nil {
		return c, nil
	}
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if c := h.answering(stale); c != nil {
		return c, nil // somebody else was faster
	}
	for try := 0; ; try++ {
		c, err := h.connected(ctx)
		if err != nil {
			return nil, err
		}
		launched, err := h.launch(ctx, c)
		switch {
		case err == nil:
			return h.answers(launched), nil
		case ctx.Err() != nil || try > 0 || len(fault.Faults(err)) > 0:
			return nil, err
		}
		// The connection may have been dead for long.
		c.close()
	}
}

// answering is the client of the agent, nil if that is the stale one.
func (h *host) answering(stale *agent.Client) *agent.Client {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.client == stale || h.gone {
		return nil
	}
	return h.client
}

func (h *host) answers(l agent.Launched) *agent.Client {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.client != nil {
		h.client.Close()
	}
	h.launched, h.replaced, h.bridged = l, true, false
	h.client = agent.Over(h.dial, h.name)
	return h.client
}

// connected returns a connection that lives, and makes one if there is none.
func (h *host) connected(ctx context.Context) (*conn, error) {
	h.mu.Lock()
	old, gone := h.conn, h.gone
	h.mu.Unlock()
	if gone {
		return nil, net.ErrClosed
	}
	if old != nil && old.alive() && old.ping(pingFor) {
		return old, nil
	}
	client, err := connect(ctx, h.hosts.cfg.Dial, h.endpoint, h.login)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.gone {
		return nil, errors.Join(net.ErrClosed, client.Close())
	}
	h.conn = keep(client, &h.hosts.wg)
	return h.conn, nil
}

// dial makes a connection to the agent.
func (h *host) dial(ctx context.Context) (net.Conn, error) {
	h.mu.Lock()
	c, launched, bridged := h.conn, h.launched, h.bridged
	h.mu.Unlock()
	if c == nil || !c.alive() {
		return nil, errLost
	}
	// The longest path that a socket may have is that of the host's kernel.
	forwards := !bridged && len(launched.Socket) < 100
	if forwards {
		far, err := c.forward(ctx, launched.Socket)
		if err == nil || !refused(err) {
			return far, err
		}
	}
	// Hosts do not say whether they forbid it or whether nobody listens there.
	h.mu.Lock()
	p := h.program
	h.mu.Unlock()
	far, err := c.bridge(ctx, onHost(`exec %s %s "$d/%s"`, programPath(p), strings.Join(agent.ConnectArgs(), " "), h.hosts.cfg.Installation))
	if err == nil && forwards {
		h.mu.Lock()
		h.bridged = true
		h.mu.Unlock()
	}
	return far, err
}

// onHost is a command for the shell of an account, whichever that is. The script must
// have no single quotes; $d is our directory there.
func onHost(script string, args ...any) string {
	return `sh -c 'd="$HOME/.tako"; ` + fmt.Sprintf(script, args...) + `'`
}

// programPath is where a program lies, for the script of onHost.
func programPath(p *program.Program) string {
	return `"$d/bin/` + p.SHA256 + `/` + agent.ProgramName + `"`
}

// Exit codes of our scripts on a host, beside those of the program.
const (
	exitMissing  = 121 // the program is not there
	exitNotKept  = 122 // the program could not be written
	exitOther    = 123 // what was written is not what was sent
	exitNoExec   = 126 // it cannot be executed: the shell's
	exitNotFound = 127 // the shell's, too
)

// launch starts the agent if it does not run, and brings the program before that if it
// is not there. An error without a fault is one of the connection.
func (h *host) launch(ctx context.Context, c *conn) (agent.Launched, error) {
	h.mu.Lock()
	p, replace := h.program, !h.replaced
	h.mu.Unlock()
	if p == nil {
		var err error
		if p, err = h.find(ctx, c); err != nil {
			return agent.Launched{}, err
		}
		h.mu.Lock()
		h.program = p
		h.mu.Unlock()
	}
	command := onHost(`test -f %[1]s || exit %[2]d; exec %[1]s %[3]s "$d/%[4]s"`, programPath(p), exitMissing,
		strings.Join(agent.LaunchArgs(h.hosts.cfg.Idle, replace), " "), h.hosts.cfg.Installation)
	for try := 0; ; try++ {
		r, err := h.command(ctx, c, command)
		if err != nil {
			return agent.Launched{}, err
		}
		if l, ok := agent.ParseLaunched(r.output); r.exit == 0 && ok {
			return l, nil
		}
		if try > 0 || r.exit != exitMissing && r.exit != exitNoExec && r.exit != exitNotFound {
			return agent.Launched{}, h.failed("The agent could not be started", r)
		}
		if err := h.upload(ctx, c, p); err != nil {
			return agent.Launched{}, err
		}
	}
}

func (h *host) command(ctx context.Context, c *conn, command string) (ran, error) {
	ctx, stop := context.WithTimeout(ctx, commandFor)
	defer stop()
	r, err := c.run(ctx, command, nil)
	var refused *ssh.OpenChannelError
	if errors.As(err, &refused) {
		return r, fault.New(fault.Unavailable, "%s refuses to run a program for the user %s: %.200s.", h.endpoint, h.login.Username, refused.Message)
	}
	return r, err
}

// find asks what kind of machine it is, and finds the program for it.
func (h *host) find(ctx context.Context, c *conn) (*program.Program, error) {
	r, err := h.command(ctx, c, onHost(`printf "\n%s%%s\n" "$(uname -sm)"`, agent.ReplyMark))
	if err != nil {
		return nil, err
	}
	uname, ok := agent.FindReply(r.output)
	if !ok {
		return nil, fault.New(fault.Unsupported, "The login shell of %s on %s runs no commands of a POSIX shell (exit code %d: %.200s). Give the user a shell such as /bin/sh or /bin/bash.", h.login.Username, h.endpoint, r.exit, strings.TrimSpace(r.output+" "+r.say))
	}
	platform, err := program.ParseUname("The host "+h.endpoint.String(), uname)
	if err != nil {
		return nil, err
	}
	return h.hosts.cfg.Programs.Find(platform)
}

// upload brings the program: whole and executable, or not at all. It is compared before
// it is run: by its size, and by its hash where the host has something to make one. That
// it verifies itself is for hosts that have nothing.
func (h *host) upload(ctx context.Context, c *conn, p *program.Program) error {
	ctx, stop := context.WithTimeout(ctx, uploadFor)
	defer stop()
	begun := time.Now()
	r, err := c.run(ctx, onHost(`umask 077; b="$d/bin/%[1]s"; t="$b/.new.$$"; mkdir -p "$b" && cat >"$t" && chmod 700 "$t" || { rm -f "$t"; exit %[2]d; }; `+
		`s=$(wc -c <"$t"); test $s -eq %[5]d || { rm -f "$t"; echo "what arrived has" $s "bytes, not %[5]d" >&2; exit %[6]d; }; `+
		`if command -v sha256sum >/dev/null 2>&1; then s=$(sha256sum <"$t"); test "${s%%%% *}" = %[1]s || { rm -f "$t"; echo "what arrived has another SHA-256" >&2; exit %[6]d; }; fi; `+
		`"$t" %[3]s || { r=$?; rm -f "$t"; exit $r; }; mv -f "$t" %[4]s || exit %[2]d`,
		p.SHA256, exitNotKept, strings.Join(agent.VerifyArgs(p.SHA256), " "), programPath(p), p.Size, exitOther), p.Open())
	if err != nil {
		return err
	}
	if reply, ok := agent.FindReply(r.output); r.exit != 0 || !ok || reply != "verified" {
		return h.failed("The agent's program could not be brought there", r)
	}
	h.hosts.cfg.Log.Info("the agent's program was brought to a host", "machine", h.name, "host", h.endpoint.String(), "bytes", p.Size, "took", time.Since(begun).Round(time.Millisecond).String())
	return nil
}

// failed is the sentence about a command that failed on the host.
func (h *host) failed(what string, r ran) error {
	where := fmt.Sprintf("the host %s, as the user %s", h.endpoint, h.login.Username)
	switch {
	case strings.Contains(r.say, "No space left on device"), strings.Contains(r.say, "Disk quota exceeded"):
		return fault.New(fault.Unavailable, "%s on %s: the disk with the user's home directory is full.", what, where)
	case r.exit == exitNoExec && strings.Contains(r.say, "ermission denied"):
		return fault.New(fault.Unsupported, "%s on %s: programs in the user's home directory may not be executed. Mount its disk without noexec, or use an account whose home allows it.", what, where)
	}
	return fault.New(fault.Unavailable, "%s on %s: it ended with exit code %d and said: %.500s", what, where, r.exit, r.say)
}
