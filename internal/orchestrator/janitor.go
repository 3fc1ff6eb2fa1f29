package orchestrator

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/tasks"
)

// Janitor tells agents what they still have to hear about scripts: to end those
// of tasks that were ended without them, and to forget those whose results are
// stored. It repeats itself until they have answered, whichever server began it.
// Agents that do not answer keep no others waiting.
type Janitor struct {
	tasks  *tasks.Service
	agents Agents
	log    *slog.Logger

	mu   sync.Mutex
	told map[string]*telling
	// ending are the scripts whose end is repeated, and when each was due first.
	ending map[string]time.Time
	wg     sync.WaitGroup
}

// telling is what the janitor has to do with one agent.
type telling struct {
	busy   bool
	failed int // calls in a row
}

// NewJanitor makes a janitor.
func NewJanitor(s *tasks.Service, agents Agents, log *slog.Logger) *Janitor {
	return &Janitor{tasks: s, agents: agents, log: log, told: map[string]*telling{}, ending: map[string]time.Time{}}
}

// Times and bounds of the janitor.
const (
	sweepEvery = 500 * time.Millisecond
	sweepBatch = 100
	sweepRetry = 5 * time.Second // after a call that failed; it doubles with each
	sweepMost  = time.Minute
	sweepCall  = 20 * time.Second // what an agent may take for one ticket
	sweepMany  = 64               // agents at a time
	// endAgain is when the end of a script is repeated whose start may come late.
	endAgain = time.Minute
	// endingFor is how long such a script is remembered whose agent does not answer.
	endingFor = 24 * time.Hour
)

// Run sweeps until ctx ends.
func (j *Janitor) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	defer j.wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := j.sweep(ctx); err != nil && ctx.Err() == nil {
			j.log.Error("sweep tickets", "err", err)
		}
	}
}

// sweep begins to tell each agent what is due, unless it is being told already.
func (j *Janitor) sweep(ctx context.Context) error {
	j.mu.Lock()
	var busy []string
	for name, t := range j.told {
		if t.busy {
			busy = append(busy, name)
		}
	}
	j.mu.Unlock()
	if len(busy) >= sweepMany {
		return nil
	}
	// Without those of agents that take their time, which may be all that fit.
	due, err := j.tasks.DueTickets(ctx, sweepBatch, busy...)
	if err != nil || len(due) == 0 {
		return err
	}
	byAgent := map[string][]tasks.Ticket{}
	for _, t := range due {
		byAgent[t.Agent] = append(byAgent[t.Agent], t)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	many := len(busy)
	for name, all := range byAgent {
		t := j.told[name]
		if t == nil {
			t = &telling{}
			j.told[name] = t
		}
		if many >= sweepMany {
			continue
		}
		t.busy = true
		many++
		j.wg.Go(func() {
			failed, err := j.tellAll(ctx, all, t.failed)
			if err != nil && ctx.Err() == nil {
				j.log.Error("sweep tickets", "agent", name, "err", err)
			}
			j.mu.Lock()
			defer j.mu.Unlock()
			if t.busy, t.failed = false, failed; failed == 0 {
				delete(j.told, name)
			}
		})
	}
	return nil
}

// tellAll tells one agent about its tickets. From the first call that fails on, those
// that are left are due later; failed counts such calls in a row.
func (j *Janitor) tellAll(ctx context.Context, all []tasks.Ticket, failed int) (int, error) {
	var closed []tasks.Ticket
	var errs []error
	for i, t := range all {
		done, err := j.tell(ctx, t)
		if err != nil && ctx.Err() != nil {
			return failed, ctx.Err()
		}
		if err != nil {
			j.log.Warn("tell an agent about a script", "ticket", t.ID, "agent", t.Agent, "err", err)
			failed++
			later := time.Now().Add(min(sweepRetry<<min(failed-1, 10), sweepMost)).UnixMicro()
			for _, left := range all[i:] {
				errs = append(errs, j.tasks.PostponeTicket(ctx, left.ID, later))
			}
			break
		}
		failed = 0
		if done {
			closed = append(closed, t)
		}
	}
	if len(closed) > 0 {
		errs = append(errs, j.tasks.CloseTickets(ctx, closed), failpoint.Hit("cleanup-deleted"))
	}
	return failed, errors.Join(errs...)
}

// tell says what an agent has to hear about a script, and reports whether that is all.
// A script whose unit still has its machine's lock must have ended first: somebody
// has decided what it counts as while it could not be asked.
func (j *Janitor) tell(ctx context.Context, t tasks.Ticket) (done bool, err error) {
	ctx, stop := context.WithTimeout(ctx, sweepCall)
	defer stop()
	a, err := j.agents.ByName(ctx, t.Agent)
	if fault.Is(err, fault.NotFound) {
		return true, nil // its machine was deleted long ago: nobody is left to hear it
	}
	if err != nil {
		return false, err
	}
	other := t.Contract == string(deploy.ContractV1) || t.Contract == string(deploy.ContractV2)
	repeat := other && !t.Answered && t.State == tasks.TicketCancel
	var until time.Time
	if repeat {
		until = j.firstDue(t).Add(lateStart)
	}
	request := agent.StatusRequest{Ticket: agent.Ticket(t.ID)}
	var status agent.Status
	switch {
	case t.State == tasks.TicketCancel:
		status, err = a.CancelScript(ctx, request)
	case t.Locked:
		status, err = a.GetStatus(ctx, request)
	default:
		status.State = agent.Complete
	}
	if err != nil || status.State != agent.Complete {
		return false, err
	}
	if left := time.Until(until); repeat && left > 0 {
		// A start that comes late still runs there what was unknown just now, and once it is
		// forgotten also what was ended.
		return false, j.tasks.PostponeTicket(ctx, t.ID, time.Now().Add(min(left, endAgain)).UnixMicro())
	}
	if err := a.CompleteScript(ctx, agent.Ticket(t.ID)); err != nil {
		return false, err
	}
	if repeat {
		j.mu.Lock()
		delete(j.ending, t.ID)
		j.mu.Unlock()
	}
	return true, failpoint.Hit("complete-sent")
}

// firstDue is when a script was due that is ended again and again. Another server, or this
// one after a restart, counts from when it first meets it, which only takes longer.
func (j *Janitor) firstDue(t tasks.Ticket) time.Time {
	j.mu.Lock()
	defer j.mu.Unlock()
	if at, known := j.ending[t.ID]; known {
		return at
	}
	now := time.Now()
	maps.DeleteFunc(j.ending, func(_ string, at time.Time) bool { return now.Sub(at) > endingFor })
	at := now
	if t.NotBefore > 0 {
		at = time.UnixMicro(t.NotBefore)
	}
	j.ending[t.ID] = at
	return at
}
