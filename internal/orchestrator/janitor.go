package orchestrator

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/tasks"
)

// Janitor tells agents what they still have to hear about scripts: to end those
// of tasks that were ended without them, and to forget those whose results are
// stored. It repeats itself until they have answered, whichever server began it.
type Janitor struct {
	tasks  *tasks.Service
	agents Agents
	log    *slog.Logger
}

// NewJanitor makes a janitor.
func NewJanitor(s *tasks.Service, agents Agents, log *slog.Logger) *Janitor {
	return &Janitor{tasks: s, agents: agents, log: log}
}

// Times of the janitor.
const (
	sweepEvery = 500 * time.Millisecond
	sweepBatch = 100
	sweepRetry = 5 * time.Second // after a call that failed
)

// Run sweeps until ctx ends.
func (j *Janitor) Run(ctx context.Context) error {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
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

func (j *Janitor) sweep(ctx context.Context) error {
	due, err := j.tasks.DueTickets(ctx, sweepBatch)
	if err != nil || len(due) == 0 {
		return err
	}
	var closed []tasks.Ticket
	var errs []error
	for _, t := range due {
		done, err := j.tell(ctx, t)
		switch {
		case err != nil && ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			j.log.Warn("tell an agent about a script", "ticket", t.ID, "agent", t.Agent, "err", err)
			errs = append(errs, j.tasks.PostponeTicket(ctx, t.ID, time.Now().Add(sweepRetry).UnixMicro()))
		case done:
			closed = append(closed, t)
		}
	}
	if len(closed) > 0 {
		errs = append(errs, j.tasks.CloseTickets(ctx, closed), failpoint.Hit("cleanup-deleted"))
	}
	return errors.Join(errs...)
}

func (j *Janitor) tell(ctx context.Context, t tasks.Ticket) (done bool, err error) {
	a, err := j.agents.ByName(ctx, t.Agent)
	if err != nil {
		return false, err
	}
	if t.State == tasks.TicketCancel {
		status, err := a.CancelScript(ctx, agent.StatusRequest{Ticket: agent.Ticket(t.ID)})
		if err != nil || status.State != agent.Complete {
			return false, err
		}
	}
	if err := a.CompleteScript(ctx, agent.Ticket(t.ID)); err != nil {
		return false, err
	}
	return true, failpoint.Hit("complete-sent")
}
