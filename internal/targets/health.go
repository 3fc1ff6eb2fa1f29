package targets

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/servicemsg"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Bounds of the check of one machine.
const (
	// CheckTimeout is how long a machine may take for its answers unless told.
	CheckTimeout = 5 * time.Minute
	maxCheckLog  = 200  // lines
	maxCheckLine = 2000 // bytes of a line
	maxFact      = 200  // bytes of what a machine tells about itself

	// answerFor is how long an agent may take beyond that to tell about a script that
	// was ended.
	answerFor = 10 * time.Second

	firstCheckPause = 100 * time.Millisecond // between two tries; it doubles
	mostCheckPause  = 5 * time.Second
)

// Health is what the check of a machine has found.
type Health struct {
	Status  octopus.HealthStatus
	Summary string // a sentence
	// Log is what the script wrote, at most some hundred lines. Secrets are not
	// masked in it.
	Log []string
	// Agent is the name of the agent that Begin was told of, "" for none.
	Agent string
	// Over tells that no script of the check may still run.
	Over bool
	// Unsure tells that a start which nobody answered may still arrive.
	Unsure bool
	// Contract is that of the agent that was asked, "" for none.
	Contract deploy.Contract

	// Version is that of the agent, and the rest what the machine tells about
	// itself; each is "" where that is not known.
	Version, System, Shell, ShellVersion, Architecture string

	hello    agent.Hello
	answered bool // a start of the script
}

// Platform is that of the agent's program, "linux/arm64"; "" where that is not known.
func (h *Health) Platform() string { return h.hello.Program.Platform }

// Upgradable reports whether the agent can be brought to the server's version.
func (h *Health) Upgradable(serverVersion string) bool {
	return Upgradable(h.Contract, h.hello, serverVersion)
}

// AgentSays is a line for people about the version of the agent, "" where that says
// nothing.
func (h *Health) AgentSays(serverVersion string) string {
	switch {
	case h.Contract != deploy.ContractTako || h.Version == "":
		return ""
	case Outdated(h.Version, serverVersion):
		return fmt.Sprintf("Its agent has version %s; the server has version %s for it.", h.Version, serverVersion)
	}
	return fmt.Sprintf("Its agent has version %s, the latest that the server has.", h.Version)
}

// ChecksAtOnce is how many machines a task checks at the same time, however many
// processors the server has: a check waits for its machine, and for one that went away
// as long as its policy says. A few at a time would keep all the others waiting with
// them.
const ChecksAtOnce = 32

// lateStart is how long agents of other makes may still act on a start that nobody
// saw answered.
const lateStart = 15 * time.Minute

// Ticket is what becomes of the script of a check whose result is stored, or will never
// be; ok is false where there is none.
func (h *Health) Ticket(ticket agent.Ticket, unit string) (t tasks.Ticket, ok bool) {
	t = tasks.Ticket{ID: string(ticket), Unit: unit, Agent: h.Agent, State: tasks.TicketComplete, Contract: string(h.Contract), Answered: h.answered}
	other := h.Contract != deploy.ContractTako
	switch {
	case !h.Over:
		t.State = tasks.TicketCancel
		if other && h.Unsure && !h.answered {
			t.NotBefore = time.Now().Add(tasks.StartSettles).UnixMicro()
		}
	case h.Unsure && other:
		t.NotBefore = time.Now().Add(lateStart).UnixMicro()
	}
	return t, h.Agent != ""
}

// Found is what is kept of the check of a machine, which a task of a server of a
// version has made.
func (h *Health) Found(kind, id, task, version string) resources.MachineCheck {
	return resources.MachineCheck{
		Kind: kind, ID: id, Task: task, Status: h.Status, Summary: h.Summary, Log: h.Log,
		Version: h.Version, Outdated: h.Contract == deploy.ContractTako && h.Version != "" && Outdated(h.Version, version),
		System: h.System, Shell: h.Shell, ShellVersion: h.ShellVersion, Architecture: h.Architecture,
	}
}

// Well reports whether a deployment can go to the machine.
func (h *Health) Well() bool {
	return h.Status == octopus.Healthy || h.Status == octopus.HealthyWarnings
}

// Says is a line for people about a machine's health, and how grave it is.
func (h *Health) Says(name string) (octopus.LogCategory, string) {
	category, is := octopus.LogInfo, "is healthy"
	switch h.Status {
	case octopus.HealthyWarnings:
		category, is = octopus.LogWarning, "is healthy, with warnings"
	case octopus.Unhealthy:
		category, is = octopus.LogError, "is not healthy"
	case octopus.Unavailable:
		category, is = octopus.LogError, "is not available"
	case octopus.Healthy, octopus.HealthUnknown:
	}
	return category, name + " " + is + ": " + h.Summary
}

// healthHelpers are what a health check's script can say. Before the script the
// machine tells about itself.
const healthHelpers = `__tako_text() { printf '%s' "$1" | base64 | tr -d '\n'; }
__tako_health() { printf '%s\n' "##octopus[$1 message='$(__tako_text "$2")']"; }
echo_warning() { printf '%s\n' "$*"; __tako_health healthWarning "$*"; }
write_warning() { echo_warning "$@"; }
fail_healthcheck() { __tako_health healthFailure "$*"; exit 1; }
__tako_system=$( (. /etc/os-release && printf '%s' "$PRETTY_NAME") 2>/dev/null || true)
printf '%s\n' "##octopus[machineFacts system='$(__tako_text "${__tako_system:-$(uname -sr)}")' architecture='$(__tako_text "$(uname -m)")' shell='$(__tako_text Bash)' shellVersion='$(__tako_text "${BASH_VERSION%%[!0-9.]*}")' agent='$(__tako_text "${TentacleVersion:-}")']"
`

// defaultHealthScript is for machines whose policy has none.
const defaultHealthScript = "uname -srm\ndf -Ph .\n"

// Finder finds agents by the ids of their machines.
type Finder interface {
	ByName(ctx context.Context, name string) (Agent, error)
}

// Examination is the check of one machine.
type Examination struct {
	Agents  Finder
	Machine string // its id
	Style   octopus.CommunicationStyle
	// OnlyConnect asks whether the agent answers, and who it is. Else Script is run
	// there under Ticket; "" is a short one that tells about the machine. The same
	// ticket checks once, so that an examination that was broken off can be repeated.
	OnlyConnect bool
	Script      string
	Ticket      agent.Ticket
	// Timeout is how long the script may run, and but for a few seconds how long all of
	// it may take; 0 is CheckTimeout. An agent that cannot be reached is tried again
	// until Retry has passed, or was away for that long already (AbsentError).
	Timeout, Retry time.Duration
	// Begin is called before the script is sent to an agent, by its name and its contract,
	// maybe again with the same one. Its error ends the examination.
	Begin func(ctx context.Context, agent string, contract deploy.Contract) error

	known Health    // of the script, from one try to the next
	until time.Time // the agent must be reached, in tries after the first one; zero before
}

// Examine finds out how a machine is: one whose script fails is not healthy, and one
// whose script warns has warnings. What is reached by no agent is well. The error is
// that of ctx or of Begin and nothing else; what is known of the script comes with it.
func Examine(ctx context.Context, e Examination) (Health, error) {
	e.known = Health{Over: true}
	switch e.Style {
	case octopus.StyleNone, octopus.StyleOfflineDrop:
		return Health{Status: octopus.Healthy, Summary: "The target has no agent that could be asked.", Over: true}, nil
	default:
	}
	timeout := cmp.Or(e.Timeout, CheckTimeout)
	ctx, stop := context.WithTimeoutCause(ctx, timeout+answerFor, errLate)
	defer stop()
	until := time.Now().Add(e.Retry)
	for pause := firstCheckPause; ; pause = min(2*pause, mostCheckPause) {
		h, again, err := e.once(ctx, timeout)
		e.until = until
		if err != nil || !again || time.Now().Add(pause).After(until) {
			return h, err
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return h, ended(ctx)
		}
	}
}

var errLate = errors.New("the machine took too long")

// ended is why ctx has ended, unless the machine was only too slow.
func ended(ctx context.Context) error {
	if errors.Is(context.Cause(ctx), errLate) {
		return nil
	}
	return ctx.Err()
}

// once tries it once; again tells that another try may find more.
func (e *Examination) once(ctx context.Context, timeout time.Duration) (h Health, again bool, err error) {
	c := check{}
	away := func(err error) (Health, bool, error) {
		h := e.known
		h.Status, h.Summary = octopus.Unavailable, "The machine does not answer."
		if ended(ctx) != nil {
			return h, false, ended(ctx)
		}
		if ctx.Err() != nil {
			h.Summary = fmt.Sprintf("The machine took longer than %s to answer.", timeout)
		} else if m := fault.Messages(err); len(m) > 0 {
			h.Summary = strings.Join(m, " ")
		}
		var absent *AbsentError
		if errors.As(err, &absent) {
			h.Summary = absent.Error()
			return h, absent.For < e.Retry, nil
		}
		return h, isAway(err) && ctx.Err() == nil, nil
	}
	a, hello, err := e.reach(ctx)
	if err != nil {
		return away(err)
	}
	e.known.Version, e.known.hello = cmp.Or(hello.Version, e.known.Version), hello
	if e.OnlyConnect {
		h := e.known
		h.Status, h.Summary = octopus.Healthy, "The machine answers."
		return h, false, nil
	}
	if e.Begin != nil {
		if err := e.Begin(ctx, a.Name, a.Contract); err != nil {
			return e.known, false, err
		}
		e.known.Agent = a.Name
	}
	script := strings.ReplaceAll(e.Script, "\r\n", "\n")
	if strings.TrimSpace(script) == "" {
		script = defaultHealthScript
	}
	req := agent.StartRequest{Ticket: e.Ticket, Body: healthHelpers + script, Isolation: agent.NoIsolation, Wait: 2 * time.Second}
	if a.Contract == deploy.ContractTako {
		req.Timeout = timeout // agents of other makes know of no limit; theirs are canceled
	}
	status, err := a.StartScript(ctx, req)
	if err != nil {
		if !errors.Is(err, agent.ErrNotSent) {
			e.known.Over, e.known.Unsure = false, true
		}
		return away(err)
	}
	e.known.Over, e.known.answered = false, true
	c.health = e.known
	for {
		c.read(status.Entries)
		if status.State == agent.Complete {
			return c.judged(status.ExitCode, timeout), false, nil
		}
		if ctx.Err() != nil {
			return away(ctx.Err()) // an agent near by answers all the same
		}
		if status, err = a.GetStatus(ctx, agent.StatusRequest{Ticket: e.Ticket, After: status.Next, Wait: 10 * time.Second}); err != nil {
			return away(err)
		}
	}
}

// reach finds the agent and greets it.
func (e *Examination) reach(ctx context.Context) (a Agent, hello agent.Hello, err error) {
	if !e.until.IsZero() {
		var stop context.CancelFunc
		ctx, stop = context.WithDeadline(ctx, e.until)
		defer stop()
	}
	if a, err = e.Agents.ByName(ctx, e.Machine); err != nil {
		return a, hello, err
	}
	e.known.Contract = a.Contract
	hello, err = a.Hello(ctx)
	return a, hello, err
}

// isAway reports whether an error says that an agent is not there for now.
func isAway(err error) bool {
	return errors.Is(err, agent.ErrNotSent) || errors.Is(err, agent.ErrUnanswered) || len(fault.Faults(err)) == 0 || fault.KindOf(err) == fault.Unavailable
}

// check reads the output of a health check's script.
type check struct {
	health           Health
	scanner          servicemsg.Scanner
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
		m := item.Message
		switch {
		case m == nil:
			c.say(item.Text)
		case strings.EqualFold(m.Name, "healthWarning"):
			c.warning = m.Get("message")
		case strings.EqualFold(m.Name, "healthFailure"):
			c.failure = m.Get("message")
		case strings.EqualFold(m.Name, "machineFacts"):
			h := &c.health
			h.System, h.Architecture, h.Shell, h.ShellVersion = plain(m.Get("system")), plain(m.Get("architecture")), plain(m.Get("shell")), plain(m.Get("shellVersion"))
			h.Version = cmp.Or(h.Version, plain(m.Get("agent")))
		}
	}
}

// plain is a short text of what a machine tells about itself.
func plain(text string) string {
	text = strings.TrimSpace(strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return -1
		}
		return r
	}, text))
	return cut(text, maxFact)
}

func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "")
}

func (c *check) say(text string) {
	if len(c.health.Log) < maxCheckLog {
		c.health.Log = append(c.health.Log, cut(text, maxCheckLine))
	}
}

// judged is the health of a machine whose script is over.
func (c *check) judged(exit int, timeout time.Duration) Health {
	c.take(c.scanner.Flush())
	h := c.health
	h.Status, h.Summary, h.Over = octopus.Healthy, "The health check succeeded.", true
	switch {
	case exit == agent.ExitTimeout:
		h.Status, h.Summary = octopus.Unhealthy, fmt.Sprintf("The health check's script ran longer than %s and was ended.", timeout)
	case exit == agent.ExitLost, exit == agent.ExitUnknownTicket:
		h.Status, h.Summary = octopus.Unhealthy, "The result of the health check's script was lost: its agent or its machine was stopped while it ran."
	case exit != 0 && c.failure != "":
		h.Status, h.Summary = octopus.Unhealthy, cut(c.failure, maxCheckLine)
	case exit != 0:
		h.Status, h.Summary = octopus.Unhealthy, fmt.Sprintf("The health check's script ended with exit code %d.", exit)
	case c.warning != "":
		h.Status, h.Summary = octopus.HealthyWarnings, cut(c.warning, maxCheckLine)
	}
	return h
}
