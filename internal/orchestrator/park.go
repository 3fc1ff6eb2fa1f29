package orchestrator

import (
	"context"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Park is for a deployment that was under way when the backup was taken that the
// database is restored from. What had been begun and not ended then has ended since,
// one way or the other, and so may what came after it: a person is asked about each
// open unit, no agent is spoken to, and nothing else begins.
func (o *Orchestrator) Park(ctx context.Context, l *tasks.Lease, h tasks.Hold) error {
	facts, err := l.Facts(ctx)
	if err != nil {
		return err
	}
	if len(facts) == 0 {
		return l.ParkAsIs(ctx, h) // nothing of it had begun
	}
	r, err := o.load(ctx, l)
	if err != nil {
		return giveUp(ctx, l, err)
	}
	for _, unit := range r.open() {
		if err := r.doubt(ctx, unit, h); err != nil {
			return err
		}
	}
	if err := r.failure(); err != nil {
		return err
	}
	r.say(l.ID, octopus.LogWarning, h.Line())
	r.pending.Warnings = true
	return l.Wait(ctx, r.keepTag(), r.take())
}

// open are the units whose scripts were begun and have no result, and about which
// nobody is asked.
func (r *run) open() []deploy.Unit {
	r.mu.Lock()
	defer r.mu.Unlock()
	var open []deploy.Unit
	for unit, u := range r.state.Units {
		if u.Open && u.Asked == nil {
			open = append(open, unit)
		}
	}
	return open
}

// doubt ends an open attempt as one whose fate is not known.
func (r *run) doubt(ctx context.Context, unit deploy.Unit, h tasks.Hold) error {
	r.mu.Lock()
	u := r.state.Unit(unit)
	r.mu.Unlock()
	a := r.attempt(unit, u.Attempt)
	a.ticket, a.acked, a.resumed = agent.Ticket(u.Intent.Ticket), u.Acked, true
	a.agent = targets.Agent{Name: u.Intent.Agent, Contract: u.Intent.Contract}
	return a.unknown(ctx, "The script was under way at "+h.Instant.UTC().Format(time.RFC3339)+", the moment that the server was restored to.", tasks.Batch{})
}
