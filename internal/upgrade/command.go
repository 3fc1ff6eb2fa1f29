package upgrade

import (
	"context"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxAnswer = 4 << 20  // bytes of a command's answer
	maxSaid   = 64 << 10 // bytes of what a command says beside it: the last are kept
	maxReason = 2 << 10  // bytes of a reason that is kept for good
)

// run runs a command of a version on the server's data. What it says goes to the log; the
// last line of that is the error's text when it fails. The error of a program that was
// started and did not succeed is an *exec.ExitError.
func (c *Coordinator) run(ctx context.Context, version string, args ...string) ([]byte, error) {
	return c.started(ctx, (*exec.Cmd).Start, version, args)
}

// aside is run for what takes long and nobody waits for: it gives way to the server. It is
// not for what holds locks that a server waits for.
func (c *Coordinator) aside(ctx context.Context, version string, args ...string) ([]byte, error) {
	return c.started(ctx, startModestly, version, args)
}

// started is run with the function that starts the command.
func (c *Coordinator) started(ctx context.Context, start func(*exec.Cmd) error, version string, args []string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, c.program(version), append(args, c.cfg.Settings...)...)
	cmd.Env = c.cfg.Environ
	cmd.WaitDelay = 10 * time.Second
	cmd.Cancel = func() error { return cmd.Process.Signal(unix.SIGTERM) }
	var out beginning
	var said ending
	// A write that fails would end the command by a signal: the log must never.
	cmd.Stdout, cmd.Stderr = &out, io.MultiWriter(&said, c.cfg.Log)
	err := start(cmd)
	if err == nil {
		err = cmd.Wait()
	}
	name := strings.Join(args[:min(2, len(args))], " ")
	switch {
	case err != nil:
		return out.kept, fmt.Errorf("%s of version %s: %w: %s", name, version, err, brief(said.line()))
	case out.cut:
		return nil, fmt.Errorf("%s of version %s: the answer has more than %d bytes", name, version, maxAnswer)
	}
	return out.kept, nil
}

// beginning keeps the first maxAnswer bytes of what is written to it.
type beginning struct {
	kept []byte
	cut  bool // there was more
}

func (b *beginning) Write(p []byte) (int, error) {
	n := len(p)
	if room := maxAnswer - len(b.kept); n > room {
		b.cut = true
		p = p[:room]
	}
	b.kept = append(b.kept, p...)
	return n, nil
}

// ending keeps the last maxSaid bytes of what is written to it.
type ending struct{ kept []byte }

func (e *ending) Write(p []byte) (int, error) {
	n := len(p)
	p = p[max(0, n-maxSaid):]
	if over := len(e.kept) + len(p) - maxSaid; over > 0 {
		e.kept = e.kept[:copy(e.kept, e.kept[over:])]
	}
	e.kept = append(e.kept, p...)
	return n, nil
}

// line is the last line, which says why a command has failed.
func (e *ending) line() string {
	lines := strings.Split(strings.TrimSpace(string(e.kept)), "\n")
	return strings.TrimPrefix(lines[len(lines)-1], "tako: ")
}

// loose is a log whose disk may be full: what cannot be written is lost, and whoever
// writes goes on.
type loose struct{ io.Writer }

func (l loose) Write(p []byte) (int, error) {
	_, _ = l.Writer.Write(p)
	return len(p), nil
}

// brief is a reason of a length that can be kept.
func brief(text string) string {
	if len(text) <= maxReason {
		return text
	}
	return strings.ToValidUTF8(text[:maxReason], "") + "..."
}
