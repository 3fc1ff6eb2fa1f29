package orchestrator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/octostache"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// run is one owner's time with one deployment.
type run struct {
	o       *Orchestrator
	l       *tasks.Lease
	log     *slog.Logger
	plan    deploy.Plan
	process []octopus.Step
	vars    *values
	others  []octostache.Pair // what actions see of each other, which never changes

	deltas differences

	mu    sync.Mutex // of state, leaving and chosen
	state *deploy.State
	// leaving are targets on their way out of the deployment.
	leaving map[string]bool
	// chosen are the workers of units of this run, where their number counts; choosing is
	// full while one of those is being chosen.
	chosen   map[deploy.Unit]string
	choosing chan struct{}

	// What follows belongs to loop alone.
	busy    map[deploy.Unit]*work
	woken   chan struct{}
	wg      sync.WaitGroup
	pending tasks.Batch // decisions that the next transaction takes along

	failMu sync.Mutex
	failed error // what ended a unit's goroutine without a result
}

// work is a unit that this process is bringing forward.
type work struct{ done bool }

func (r *run) wake() {
	select {
	case r.woken <- struct{}{}:
	default:
	}
}

// fail ends this owner's run: the lease is lost, or the database is gone.
func (r *run) fail(err error) {
	r.failMu.Lock()
	if r.failed == nil {
		r.failed = err
	}
	r.failMu.Unlock()
	r.wake()
}

func (r *run) failure() error {
	r.failMu.Lock()
	defer r.failMu.Unlock()
	return r.failed
}

// loop does what may be done, and waits for something to happen, until the
// deployment leaves this process.
func (r *run) loop(ctx context.Context) error {
	units, stop := context.WithCancel(ctx)
	defer r.deltas.close()
	defer r.wg.Wait()
	defer stop()
	changes := r.o.cfg.DB.Subscribe()
	defer changes.Close()
	canceled := r.l.Canceled
	for {
		if err := r.failure(); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.takeAnswers(ctx); err != nil {
			return err
		}
		select {
		case <-canceled:
			canceled = nil
			if err := r.cancel(ctx); err != nil {
				return err
			}
		default:
		}
		over, at, err := r.advance(ctx, units)
		if err != nil || over {
			return err
		}
		if err := r.flush(ctx); err != nil {
			return err
		}
		r.sleep(ctx, changes, canceled, at)
	}
}

// sleep waits until something may have changed; at is when a retry is due.
func (r *run) sleep(ctx context.Context, changes *db.Subscription, canceled <-chan struct{}, at time.Time) {
	var due <-chan time.Time
	if !at.IsZero() {
		timer := time.NewTimer(time.Until(at))
		defer timer.Stop()
		due = timer.C
	}
	for {
		select {
		case <-changes.C:
			// Any commit wakes; only an answer concerns this loop.
			if !r.asking() {
				continue
			}
		case <-ctx.Done():
		case <-canceled:
		case <-r.woken:
		case <-due:
		}
		return
	}
}

// asking reports whether an answer may come.
func (r *run) asking() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, u := range r.state.Units {
		if u.Asked != nil {
			return true
		}
	}
	return false
}

// advance does all that may be done now. at is the earliest time at which more may.
func (r *run) advance(ctx, units context.Context) (over bool, at time.Time, err error) {
	r.reap()
	r.reattach(units)
	for {
		r.mu.Lock()
		moves := r.state.Next()
		waiting := r.state.Waiting()
		r.mu.Unlock()
		if waiting && len(r.busy) == 0 {
			return true, at, r.l.Wait(ctx, r.keepTag(), r.take())
		}
		decided := false
		for _, m := range moves {
			switch m.Kind {
			case deploy.MoveFinish:
				if len(r.busy) > 0 {
					return false, at, nil // its last transaction is on its way
				}
				return true, at, r.finish(ctx, m.Outcome)
			case deploy.MoveDecideStep:
				r.decide(deploy.Fact{Kind: deploy.FactStep, Step: m.Step}, m)
				decided = true
			case deploy.MoveDecideUnit:
				r.decide(deploy.Fact{Kind: deploy.FactUnit, Unit: &m.Unit}, m)
				decided = true
			case deploy.MoveStart:
				if r.busy[m.Unit] != nil {
					continue
				}
				if time.Now().Before(m.NotBefore) {
					if at.IsZero() || m.NotBefore.Before(at) {
						at = m.NotBefore
					}
					continue
				}
				// What the start follows from goes to the journal before it.
				if err := r.flush(ctx); err != nil {
					return false, at, err
				}
				r.begin(units, m.Unit, func(ctx context.Context) error { return r.start(ctx, m.Unit, m.Attempt) })
			}
		}
		if !decided {
			return false, at, nil
		}
	}
}

// begin runs fn for a unit beside the loop.
func (r *run) begin(ctx context.Context, unit deploy.Unit, fn func(context.Context) error) {
	w := &work{}
	r.busy[unit] = w
	r.wg.Go(func() {
		if err := fn(ctx); err != nil {
			if ctx.Err() == nil && !errors.Is(err, tasks.ErrLost) {
				r.log.Error("run unit", "unit", unit.Key(), "err", err)
			}
			r.fail(err)
		}
		r.mu.Lock()
		w.done = true
		r.mu.Unlock()
		r.wake()
	})
}

// reap forgets units whose goroutines have ended.
func (r *run) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for unit, w := range r.busy {
		if w.done {
			delete(r.busy, unit)
		}
	}
}

// reattach goes on with units whose scripts somebody else started.
func (r *run) reattach(ctx context.Context) {
	for _, unit := range r.open() {
		if r.busy[unit] != nil {
			continue
		}
		r.begin(ctx, unit, func(ctx context.Context) error { return r.resume(ctx, unit) })
	}
}

// decide settles a step or a unit. The fact has no effect outside, so it may
// wait for the next transaction.
func (r *run) decide(f deploy.Fact, m deploy.Move) {
	f.At, f.Run, f.Reason = now(), m.Run, m.Reason
	if m.Evaluate {
		r.condition(&f)
	}
	if f.Kind == deploy.FactStep {
		if f.Beside = parallelism(r.resolved(-1, nil)); f.Run {
			f.Window = r.window(m.Step)
		}
		if !f.Run {
			r.say(deploy.StepActivity(r.l.ID, m.Step), octopus.LogInfo, "Step \""+r.plan.Steps[m.Step].Name+"\" skipped: "+f.Reason+".")
		}
	} else if !f.Run {
		r.say(deploy.UnitActivity(r.l.ID, *f.Unit), octopus.LogInfo, "Skipped: "+f.Reason+".")
	}
	r.pending.Facts = append(r.pending.Facts, f)
	r.apply(f)
}

func now() time.Time { return time.Now().UTC().Truncate(time.Microsecond) }

// say adds a line of our own to the log with the next transaction of loop.
func (r *run) say(activity string, category octopus.LogCategory, text string) {
	r.pending.Lines = append(r.pending.Lines, line(activity, category, r.vars.mask(text)))
}

func line(activity string, category octopus.LogCategory, text string) tasks.Line {
	return tasks.Line{Activity: activity, Category: category, At: now(), Text: text}
}

// take hands over what the next transaction takes along.
func (r *run) take() tasks.Batch {
	b := r.pending
	r.pending = tasks.Batch{}
	return b
}

func (r *run) flush(ctx context.Context) error {
	if len(r.pending.Facts) == 0 && len(r.pending.Lines) == 0 && r.pending.Also == nil {
		return nil
	}
	return r.l.Commit(ctx, r.take())
}

// apply folds facts that are committed, or certain to be committed before
// anything that follows from them.
func (r *run) apply(facts ...deploy.Fact) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range facts {
		if err := r.state.Apply(f); err != nil {
			r.fail(&damagedError{err})
		}
	}
}

// commit writes facts with whatever belongs to them, then folds them.
func (r *run) commit(ctx context.Context, b tasks.Batch, facts ...deploy.Fact) error {
	for _, f := range facts {
		b.Facts = append(b.Facts, f)
	}
	if err := r.l.Commit(ctx, b); err != nil {
		return err
	}
	r.apply(facts...)
	return nil
}

// takeAnswers moves answers of people into the journal.
func (r *run) takeAnswers(ctx context.Context) error {
	if !r.asking() {
		return nil
	}
	bodies, ids, err := r.l.Answers(ctx)
	if err != nil || len(bodies) == 0 {
		return err
	}
	var b tasks.Batch
	var facts []deploy.Fact
	for _, body := range bodies {
		var f deploy.Fact
		if err := json.Unmarshal(body, &f); err != nil {
			return fmt.Errorf("read an answer: %w", err)
		}
		if !r.answers(f) {
			r.log.Error("an answer that fits no question", "fact", string(body))
			continue
		}
		facts = append(append(facts, r.outputsOf(f)...), f)
		if t, ok := r.settled(f); ok {
			b.Tickets = append(b.Tickets, t)
		}
		if f.Answer.Choice == deploy.ChildEnded {
			continue
		}
		text := fmt.Sprintf("Answered with %s", f.Answer.Choice)
		if f.Answer.User != "" {
			text += " by " + f.Answer.User
		}
		if f.Answer.Notes != "" {
			text += ": " + strings.Join(strings.Fields(f.Answer.Notes), " ")
		} else {
			text += "."
		}
		b.Lines = append(b.Lines, line(deploy.UnitActivity(r.l.ID, *f.Unit), octopus.LogInfo, r.vars.mask(text)))
	}
	b.Also = func(ctx context.Context, tx *db.Tx) error { return tasks.TakeAnswers(ctx, tx, ids) }
	for _, f := range facts {
		b.Facts = append(b.Facts, f)
	}
	if err := r.l.Commit(ctx, b); err != nil {
		return err
	}
	if err := r.publish(ctx, facts); err != nil {
		return err
	}
	r.apply(facts...)
	return nil
}

// publish makes committed outputs visible to what starts later.
func (r *run) publish(ctx context.Context, facts []deploy.Fact) error {
	for _, f := range facts {
		if f.Kind == deploy.FactOutput {
			if err := r.addOutput(ctx, *f.Unit, *f.Output); err != nil {
				return err
			}
		}
	}
	return nil
}

// outputsOf are the output variables that an answer leaves: who has decided what in a
// manual intervention.
func (r *run) outputsOf(f deploy.Fact) []deploy.Fact {
	r.mu.Lock()
	asked := r.state.Unit(*f.Unit).Asked
	r.mu.Unlock()
	if asked.Kind != deploy.AskManual {
		return nil
	}
	approved := "False"
	if f.Answer.Choice == deploy.Proceed {
		approved = "True"
	}
	var out []deploy.Fact
	for _, o := range []deploy.Output{
		{Name: "Manual.Notes", Value: f.Answer.Notes},
		{Name: "Manual.Approved", Value: approved},
		{Name: "Manual.ResponsibleUser.Id", Value: f.Answer.UserID},
		{Name: "Manual.ResponsibleUser.Username", Value: f.Answer.User},
		{Name: "Manual.ResponsibleUser.DisplayName", Value: f.Answer.DisplayName},
		{Name: "Manual.ResponsibleUser.EmailAddress", Value: f.Answer.Email},
	} {
		out = append(out, deploy.Fact{Kind: deploy.FactOutput, At: f.At, Unit: f.Unit, Attempt: f.Attempt, Output: &o})
	}
	return out
}

// answers reports whether a fact answers a question that is open.
func (r *run) answers(f deploy.Fact) bool {
	if f.Kind != deploy.FactAnswer || f.Unit == nil || f.Answer == nil {
		return false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	asked := r.state.Unit(*f.Unit).Asked
	return asked != nil && asked.ID == f.Answer.ID && slices.Contains(asked.Kind.Choices(), f.Answer.Choice)
}

// settled is the ticket of an unknown fate that a person has decided: its agent
// may forget the script. It keeps its machine's lock until the agent has told that it
// does not run. One that is to run again is ended first, elsewhere.
func (r *run) settled(f deploy.Fact) (tasks.Ticket, bool) {
	if f.Answer.Choice != deploy.MarkSucceeded && f.Answer.Choice != deploy.MarkFailed {
		return tasks.Ticket{}, false
	}
	r.mu.Lock()
	u := r.state.Unit(*f.Unit)
	r.mu.Unlock()
	if u.Intent == nil || u.Intent.Ticket == "" {
		return tasks.Ticket{}, false
	}
	t := tasks.Ticket{ID: u.Intent.Ticket, Unit: f.Unit.Key() + "#" + strconv.Itoa(u.Attempt), Agent: u.Intent.Agent, State: tasks.TicketComplete}
	// Where no machine's lock waits for it there is time enough for a start that was sent
	// twice, too.
	if mayArrive(&u) || u.Intent.Contract != deploy.ContractTako && u.Intent.Mutex == "" {
		t.NotBefore = time.Now().Add(lateStart).UnixMicro()
	}
	return t, true
}

// cancel writes that the deployment is to end. The units hear of it by themselves.
func (r *run) cancel(ctx context.Context) error {
	r.mu.Lock()
	already := r.state.Cancelled
	r.mu.Unlock()
	if already {
		return nil
	}
	b := r.take()
	b.Lines = append(b.Lines, line(r.l.ID, octopus.LogWarning, "The deployment was canceled."))
	return r.commit(ctx, b, deploy.Fact{Kind: deploy.FactCancel, At: now()})
}

// finish ends the task.
func (r *run) finish(ctx context.Context, outcome deploy.Outcome) error {
	b := r.take()
	b.Warnings = r.state.Warnings
	if outcome == deploy.Succeeded {
		switch err := r.bundles(ctx, &b); {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.Is(err, tasks.ErrLost):
			return err
		case errors.Is(err, errStopped):
			b.Lines = append(b.Lines, line(r.l.ID, octopus.LogWarning, "The deployment was canceled."))
			outcome = deploy.Canceled
		case fault.Is(err, fault.Unavailable):
			return fmt.Errorf("make the bundles of offline drops: %w", err) // it passes: all is done again but what is in the journal
		case err != nil:
			r.log.Warn("make the bundles of offline drops", "err", err)
			message := r.vars.mask(publicText(err, "The bundle of an offline drop could not be made because of a failure of the server; its log has the details."))
			b.Lines = append(b.Lines, line(r.l.ID, octopus.LogFatal, message))
			b.Warnings = true
			return r.l.Finish(ctx, octopus.TaskFailed, message, b)
		}
	}
	if len(r.state.Excluded)+len(r.state.Joined) > 0 {
		var reached []string
		for _, m := range slices.Concat(r.plan.Machines, r.state.Joined) {
			if !r.state.Excluded[m.ID] {
				reached = append(reached, m.ID)
			}
		}
		also := b.Also
		b.Also = func(ctx context.Context, tx *db.Tx) error {
			if also != nil {
				if err := also(ctx, tx); err != nil {
					return err
				}
			}
			return r.o.cfg.Source.Reached(ctx, tx, &r.plan, reached)
		}
	}
	switch outcome {
	case deploy.Succeeded:
		b.Lines = append(b.Lines, line(r.l.ID, octopus.LogInfo, "The deployment completed successfully."))
		return r.l.Finish(ctx, octopus.TaskSuccess, "", b)
	case deploy.Canceled:
		return r.l.Finish(ctx, octopus.TaskCanceled, "The task was canceled.", b)
	default:
		message := "The deployment failed because one or more steps failed. Please see the deployment log for details."
		b.Lines = append(b.Lines, line(r.l.ID, octopus.LogFatal, message))
		b.Warnings = true
		return r.l.Finish(ctx, octopus.TaskFailed, message, b)
	}
}

// keepTag reports whether others of the same concurrency tag wait while this
// deployment waits for a person.
func (r *run) keepTag() bool {
	var asked []deploy.Unit
	r.mu.Lock()
	for unit, u := range r.state.Units {
		if u.Asked != nil && u.Asked.Kind == deploy.AskManual {
			asked = append(asked, unit)
		}
	}
	r.mu.Unlock()
	return slices.ContainsFunc(asked, func(unit deploy.Unit) bool {
		_, a, _ := r.action(unit)
		return isTrue(r.resolved(unit.Step, &unit).Evaluate(a.Properties.Get(octopus.PropManualBlock)).Text)
	})
}
