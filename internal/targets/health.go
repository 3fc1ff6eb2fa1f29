package targets

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/servicemsg"
	"github.com/takodeploy/tako/octopus"
)

// Bounds of the check of one machine.
const (
	// CheckTimeout is how long a machine may take for its answers.
	CheckTimeout = 5 * time.Minute
	maxCheckLog  = 200 // lines
)

// Health is what the check of a machine has found.
type Health struct {
	Status  octopus.HealthStatus
	Summary string // a sentence
	// Log is what the script wrote, at most some hundred lines. Secrets are not
	// masked in it.
	Log []string
	// Over tells that the agent knows of no script that may still run.
	Over bool
}

// healthHelpers are what a health check's script can say.
const healthHelpers = `__tako_health() { printf '%s\n' "##octopus[$1 message='$(printf '%s' "$2" | base64 | tr -d '\n')']"; }
echo_warning() { printf '%s\n' "$*"; __tako_health healthWarning "$*"; }
write_warning() { echo_warning "$@"; }
fail_healthcheck() { __tako_health healthFailure "$*"; exit 1; }
`

// defaultHealthScript is for machines whose policy has none.
const defaultHealthScript = "uname -srm\ndf -Ph .\n"

// Check asks whether an agent answers. Unless onlyConnect it then runs a script under
// the ticket ("" is a short one that tells about the machine): one that fails is an
// unhealthy machine, and one that warns a machine with warnings. The same ticket
// checks once. The error is that of ctx and nothing else.
func Check(ctx context.Context, a Agent, ticket agent.Ticket, onlyConnect bool, script string) (Health, error) {
	ctx, stop := context.WithTimeoutCause(ctx, CheckTimeout, errLate)
	defer stop()
	if onlyConnect {
		_, err := a.GetStatus(ctx, agent.StatusRequest{Ticket: ticket})
		if err == nil {
			err = a.CompleteScript(ctx, ticket)
		}
		if err != nil {
			return away(ctx, err, true)
		}
		return Health{Status: octopus.Healthy, Summary: "The machine answers.", Over: true}, nil
	}
	if strings.TrimSpace(script) == "" {
		script = defaultHealthScript
	}
	c := check{}
	status, err := a.StartScript(ctx, agent.StartRequest{
		Ticket: ticket, Body: healthHelpers + strings.ReplaceAll(script, "\r\n", "\n"), Timeout: CheckTimeout, Isolation: agent.NoIsolation, Wait: 2 * time.Second,
	})
	if err != nil {
		return away(ctx, err, errors.Is(err, agent.ErrNotSent))
	}
	for {
		c.read(status.Entries)
		if status.State == agent.Complete {
			return c.health(status.ExitCode), nil
		}
		if status, err = a.GetStatus(ctx, agent.StatusRequest{Ticket: ticket, After: status.Next, Wait: 10 * time.Second}); err != nil {
			return away(ctx, err, false)
		}
	}
}

var errLate = fmt.Errorf("the machine took longer than %s", CheckTimeout)

// away is the health of a machine whose agent does not answer.
func away(ctx context.Context, err error, over bool) (Health, error) {
	if ctx.Err() != nil && !errors.Is(context.Cause(ctx), errLate) {
		return Health{}, ctx.Err()
	}
	h := Health{Status: octopus.Unavailable, Summary: "The machine does not answer.", Over: over}
	if errors.Is(context.Cause(ctx), errLate) {
		h.Summary = fmt.Sprintf("The machine took longer than %s to answer.", CheckTimeout)
	} else if m := fault.Messages(err); len(m) > 0 {
		h.Summary = strings.Join(m, " ")
	}
	return h, nil
}

// check reads the output of a health check's script.
type check struct {
	scanner          servicemsg.Scanner
	log              []string
	warning, failure string
}

func (c *check) read(entries []agent.Entry) {
	for _, e := range entries {
		if e.Source != agent.Stdout {
			c.say(e.Text)
			continue
		}
		c.take(c.scanner.Feed(e.Text))
	}
}

func (c *check) take(items []servicemsg.Item) {
	for _, item := range items {
		switch {
		case item.Message == nil:
			c.say(item.Text)
		case strings.EqualFold(item.Message.Name, "healthWarning"):
			c.warning = item.Message.Get("message")
		case strings.EqualFold(item.Message.Name, "healthFailure"):
			c.failure = item.Message.Get("message")
		}
	}
}

func (c *check) say(text string) {
	if len(c.log) < maxCheckLog {
		c.log = append(c.log, text)
	}
}

func (c *check) health(exit int) Health {
	c.take(c.scanner.Flush())
	h := Health{Status: octopus.Healthy, Summary: "The health check succeeded.", Log: c.log, Over: true}
	switch {
	case exit != 0 && c.failure != "":
		h.Status, h.Summary = octopus.Unhealthy, c.failure
	case exit != 0:
		h.Status, h.Summary = octopus.Unhealthy, fmt.Sprintf("The health check's script ended with exit code %d.", exit)
	case c.warning != "":
		h.Status, h.Summary = octopus.HealthyWarnings, c.warning
	}
	return h
}
