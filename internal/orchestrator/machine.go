package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// bypassMutex is the variable by which scripts run beside others on their target.
const bypassMutex = "OctopusBypassDeploymentMutex"

// shared reports whether the attempt's script may run beside others that may, too.
func (a *attempt) shared() bool {
	text, _ := a.vars.Get(bypassMutex)
	return isTrue(text)
}

// agentMutex is the mutex of deployments at agents. It is not that of health checks,
// which must not wait for them.
const agentMutex = "Deployment"

// isolate has the target's agent make sure, too, that the script runs alone: another
// server that uses the same agent does not ask this one for the machine's lock.
func (a *attempt) isolate(req *agent.StartRequest) {
	if !a.target {
		return
	}
	req.MutexName = agentMutex
	if !a.shared() {
		req.Isolation = agent.FullIsolation
	}
}

// lock waits for the lane's machine, and reports whether the unit holds it and is
// still to run. While it waits the unit's log says who is in the way. A unit has one
// machine, holds it for one attempt, and waits for nobody meanwhile but its agent, so
// that no two units can wait for each other.
func (a *attempt) lock(ctx context.Context) (held bool, err error) {
	told, waited := "", false
	held, err = a.r.l.AwaitLock(ctx, a.unit.Lane, a.id, a.shared(), func(ctx context.Context, ahead []tasks.Holder) (bool, error) {
		if a.canceled() || !a.r.wanted(a.unit, a.n) {
			return false, nil
		}
		waited = true
		if text := a.waitsFor(ahead); text != "" && text != told {
			told = text
			if err := a.r.l.Commit(ctx, tasks.Batch{Lines: []tasks.Line{a.line(octopus.LogWait, "%s", text)}}); err != nil {
				return false, err
			}
		}
		return true, failpoint.Hit("machine-queued")
	})
	switch {
	case err != nil:
		return false, err
	case !held:
		return false, a.withdraw(ctx)
	case waited: // what others have put out meanwhile counts
		a.vars = a.r.resolved(a.unit.Step, &a.unit)
		if err := a.mask(); err != nil {
			return false, a.refuse(ctx, err)
		}
	}
	return true, failpoint.Hit("machine-locked")
}

// waitsFor says who is in the way of the unit.
func (a *attempt) waitsFor(ahead []tasks.Holder) string {
	var who []string
	add := func(text string) {
		if !slices.Contains(who, text) {
			who = append(who, text)
		}
	}
	for _, h := range ahead {
		own := ""
		if unit, _, err := deploy.ParseAttempt(h.Unit); err == nil && h.Task == a.r.l.ID && unit.Step < len(a.r.plan.Steps) && unit.Action < len(a.r.plan.Steps[unit.Step].Actions) {
			own = a.r.plan.Steps[unit.Step].Actions[unit.Action].Name
		}
		switch {
		case own != "":
			add(fmt.Sprintf("the step \"%s\" of this deployment", own))
		case h.Ended:
			add(h.Task + ", which has ended and whose script may still run there")
		default:
			add(h.Task)
		}
	}
	if len(who) == 0 {
		return ""
	}
	return fmt.Sprintf("Waiting for %s, which is held by %s.", a.r.machineName(a.unit.Lane), strings.Join(who, ", "))
}

// wanted reports whether an attempt is still to be started: while it was prepared its
// machine may have been taken out, a failure may have ended its step, or the task was
// canceled.
func (r *run) wanted(unit deploy.Unit, n int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.ContainsFunc(r.state.Next(), func(m deploy.Move) bool {
		return m.Kind == deploy.MoveStart && m.Unit == unit && m.Attempt == n
	})
}

// withdraw gives up an attempt that nothing was begun for, and its place in line.
func (a *attempt) withdraw(ctx context.Context) error {
	if !a.target {
		return nil
	}
	return a.r.l.Commit(ctx, tasks.Batch{Unlock: []string{a.id}})
}

// machineLabel is where the attempt's script runs, for people.
func (a *attempt) machineLabel() string {
	switch {
	case a.agent.Label != "":
		return a.agent.Label
	case a.target:
		return a.r.machineName(a.unit.Lane)
	default:
		return "the built-in worker"
	}
}

// callError is a call of an agent in vain: it is not there.
type callError struct{ err error }

func (e *callError) Error() string { return e.err.Error() }
func (e *callError) Unwrap() error { return e.err }

// calling marks the error of a call of the attempt's agent when it means that there is
// no agent to be called: it does not answer, or its machine is gone.
func (a *attempt) calling(err error) error {
	if err != nil && (away(err) || a.target && fault.Is(err, fault.NotFound)) {
		return &callError{err}
	}
	return err
}

// notPrepared ends an attempt that nothing was started for.
func (a *attempt) notPrepared(ctx context.Context, err error) error {
	var call *callError
	switch {
	case ctx.Err() != nil, a.canceled():
		return a.refuse(ctx, err)
	case errors.Is(err, targets.ErrDisabled) && a.r.l.Name != octopus.TaskAdHocScript && a.r.leave(a.unit.Lane, false):
		return a.goOnWithout(ctx, "It was disabled.", a.unsent())
	case !errors.As(err, &call):
		return a.refuse(ctx, err)
	}
	return a.unavailable(ctx, publicText(err, a.unreached(err)), a.unsent())
}

// unavailable ends an attempt whose agent cannot be reached, and of which it is
// certain that nothing has started. Where the deployment may go on without the target
// it is taken out, with a warning; the last one never is, unless a deployment may go
// to none.
func (a *attempt) unavailable(ctx context.Context, message string, facts ...deploy.Fact) error {
	if !a.target || !a.r.leave(a.unit.Lane, true) {
		return a.conclude(ctx, deploy.Result{Outcome: deploy.Failed, Message: message}, tasks.Batch{}, facts...)
	}
	return a.goOnWithout(ctx, message, facts...)
}

// stillEnabled checks that the target of the unit was not disabled since the deployment
// began: while it waited for its turn, and where a worker runs its steps. Of one that
// cannot be found its agent tells.
func (a *attempt) stillEnabled(ctx context.Context) error {
	check := a.r.o.cfg.TakesWork
	if check == nil || a.r.machine(a.unit.Lane) == nil || a.r.l.Name == octopus.TaskAdHocScript {
		return nil
	}
	if err := check(ctx, a.unit.Lane); errors.Is(err, targets.ErrDisabled) {
		return err
	}
	return ctx.Err()
}

// goOnWithout ends an attempt, and takes its target out of the rest of the deployment.
func (a *attempt) goOnWithout(ctx context.Context, message string, facts ...deploy.Fact) error {
	left := a.fact(deploy.FactMachines)
	left.Machines = &deploy.Machines{Leave: []string{a.unit.Lane}}
	b := tasks.Batch{Warnings: true, Lines: []tasks.Line{
		a.line(octopus.LogWarning, "%s", message),
		a.line(octopus.LogWarning, "%s is left out of the rest of the deployment.", a.r.machineName(a.unit.Lane)),
	}}
	return a.conclude(ctx, deploy.Result{Outcome: deploy.Skipped, Message: message, Warnings: true}, b, append(facts, left)...)
}

// leave reports whether the deployment goes on without a target; lost tells that it is
// one that is not available, which the deployment may have to have. Of several that are
// found so at the same time, one stays.
func (r *run) leave(id string, lost bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	m := r.state.Machine(id)
	if m == nil || lost && !r.plan.MaySkip(m) {
		return false
	}
	r.leaving[id] = true
	if r.plan.Targets.AllowNone || r.state.AnyLeft(r.leaving) {
		return true
	}
	delete(r.leaving, id)
	return false
}

// leaveOut takes out targets as the deployment begins: those that it could no longer
// have, and those that it is not to go to because of how they are. The decision is in
// the journal with the first of all.
func (r *run) leaveOut(ctx context.Context) error {
	select {
	case <-r.l.Canceled:
		return nil // it is not going to begin
	default:
	}
	if len(r.plan.Machines) == 0 || r.l.Name == octopus.TaskAdHocScript { // its machines were named, and may be workers
		return nil
	}
	current, err := r.o.cfg.Source.Targets(ctx, &r.plan)
	if err != nil {
		return err
	}
	found := make(map[string]*releases.Target, len(current))
	for i := range current {
		found[current[i].ID] = &current[i]
	}
	var out []string
	for i := range r.plan.Machines {
		m := &r.plan.Machines[i]
		why := ""
		switch t := found[m.ID]; {
		case t == nil:
			why = "it is disabled, or no longer one for this deployment"
		case r.plan.Targets.ExcludeUnhealthy && (t.HealthStatus == octopus.Unhealthy || t.HealthStatus == octopus.Unavailable):
			why = "it is not healthy"
		case t.HealthStatus == octopus.Unavailable && r.plan.MaySkip(m):
			why = "it is not available"
		default:
			continue
		}
		out = append(out, m.ID)
		r.say(r.l.ID, octopus.LogWarning, fmt.Sprintf("%s is left out of the deployment: %s.", m.Name, why))
	}
	if len(out) == 0 {
		return nil
	}
	if len(out) == len(r.plan.Machines) && !r.plan.Targets.AllowNone {
		r.pending = tasks.Batch{}
		return &blockedError{"None of the deployment targets that the deployment was made for can be deployed to any more: they are disabled, not healthy or not available. Bring one back, or let the project allow deployments to no targets."}
	}
	f := deploy.Fact{Kind: deploy.FactMachines, At: now(), Machines: &deploy.Machines{Leave: out}}
	r.pending.Facts, r.pending.Warnings = append(r.pending.Facts, f), true
	r.apply(f)
	return r.failure()
}
