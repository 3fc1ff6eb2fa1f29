package orchestrator

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/steps"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// deployRelease makes the deployment of another project's release and waits for its
// end, without a slot. The intent and the deployment come in one transaction, so that
// there is exactly one of each attempt, whenever a server dies.
func (a *attempt) deployRelease(ctx context.Context, w *steps.Release, intent deploy.Fact) error {
	c := releases.Child{Project: w.Project, Version: w.Version, Condition: w.Condition}
	for name, value := range w.Variables {
		// What has a secret of ours in it is one there, too.
		c.Passed = append(c.Passed, releases.PassedValue{Name: name, Value: value, Sensitive: a.r.vars.mask(value) != value})
	}
	slices.SortFunc(c.Passed, func(x, y releases.PassedValue) int { return strings.Compare(x.Name, y.Name) })
	ask := a.fact(deploy.FactAsk)
	ask.Ask = &deploy.Ask{ID: a.id, Kind: deploy.AskChild}
	var child, skipped string
	b := tasks.Batch{Also: func(ctx context.Context, tx *db.Tx) (err error) {
		if child, skipped, err = a.r.o.cfg.Source.Child(ctx, tx, &a.r.plan, c); err != nil {
			return err
		}
		if skipped != "" {
			return errSkipped
		}
		return a.r.l.AddChild(ctx, tx, a.id, child)
	}}
	err := a.commit(ctx, b, intent, ask)
	switch {
	case errors.Is(err, errSkipped):
		b := tasks.Batch{Lines: []tasks.Line{a.line(octopus.LogInfo, "Skipped: %s.", skipped)}}
		return a.conclude(ctx, deploy.Result{Outcome: deploy.Skipped}, b, intent)
	case err == nil:
	case errors.Is(err, tasks.ErrLost) || ctx.Err() != nil || len(fault.Messages(err)) == 0 || fault.Is(err, fault.Unavailable):
		return err
	default:
		return a.refuse(ctx, err)
	}
	if err := failpoint.Hit("intent-committed"); err != nil {
		return err
	}
	return a.r.l.Commit(ctx, tasks.Batch{Lines: []tasks.Line{a.line(octopus.LogWait, "Waiting for the deployment of release %s (%s).", w.Version, child)}})
}

// errSkipped breaks off the transaction of a deployment that need not be made.
var errSkipped = errors.New("the deployment is not needed")

// childEnded ends the attempt whose deployment has ended.
func (a *attempt) childEnded(ctx context.Context) error {
	var child *tasks.Task
	var outputs []deploy.UnitOutput
	plan := new(deploy.Plan)
	err := a.r.o.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		id, err := a.r.l.Child(ctx, tx, a.id)
		if err != nil || id == "" {
			return err
		}
		child, err = tasks.Get(ctx, tx, id)
		if fault.Is(err, fault.NotFound) {
			child = nil
			return nil
		}
		if err != nil {
			return err
		}
		outputs, err = outputsIn(ctx, tx, id, plan)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the deployment that %s waited for: %w", a.id, err)
	}
	if child == nil {
		return a.conclude(ctx, deploy.Result{Outcome: deploy.Failed, Message: "The deployment that the step waited for was deleted."}, tasks.Batch{})
	}
	facts, err := a.adopt(ctx, child.ID, plan, outputs)
	if err != nil {
		return err
	}
	result := deploy.Result{Outcome: deploy.Succeeded, Warnings: child.HasWarnings}
	b := tasks.Batch{}
	switch child.State {
	case octopus.TaskSuccess:
		b.Lines = append(b.Lines, a.line(octopus.LogInfo, "The deployment %s has succeeded.", child.ID))
	case octopus.TaskCanceled:
		result.Outcome, result.Message = deploy.Failed, fmt.Sprintf("The deployment %s was canceled.", child.ID)
	case octopus.TaskFailed, octopus.TaskTimedOut, octopus.TaskQueued, octopus.TaskExecuting, octopus.TaskCancelling:
		result.Outcome, result.Message = deploy.Failed, fmt.Sprintf("The deployment %s has failed: %s", child.ID, child.Error)
	}
	return a.conclude(ctx, result, b, facts...)
}

// outputsIn are the output variables in a task's journal.
func outputsIn(ctx context.Context, tx *db.Tx, task string, plan *deploy.Plan) ([]deploy.UnitOutput, error) {
	if err := tasks.Plan(ctx, tx, task, plan); err != nil {
		return nil, err
	}
	rows, err := tasks.Journal(ctx, tx, task)
	if err != nil {
		return nil, err
	}
	var out []deploy.UnitOutput
	for _, row := range rows {
		var f deploy.Fact
		if err := json.Unmarshal(row.Body, &f); err != nil {
			return nil, err
		}
		if f.Kind == deploy.FactMachines && f.Machines != nil {
			plan.Machines = append(plan.Machines, f.Machines.Join...)
		}
		if f.Kind == deploy.FactOutput && f.Unit != nil && f.Output != nil && f.Unit.Step < len(plan.Steps) && f.Unit.Action < len(plan.Steps[f.Unit.Step].Actions) {
			out = append(out, deploy.UnitOutput{Unit: *f.Unit, Output: *f.Output})
		}
	}
	return out, nil
}

// adopt makes the outputs of the deployment that the step waited for its own:
// Deployment[Step].Name, and Deployment[Step][Machine].Name where there is one.
func (a *attempt) adopt(ctx context.Context, child string, plan *deploy.Plan, outputs []deploy.UnitOutput) ([]deploy.Fact, error) {
	var facts []deploy.Fact
	machines := deploy.NewState(plan)
	at := map[string]int{}
	for _, o := range outputs {
		step := "Deployment[" + plan.Steps[o.Unit.Step].Actions[o.Unit.Action].Name + "]"
		names := []string{step + "." + o.Output.Name}
		if o.Unit.Lane != "" {
			names = append(names, step+"["+machines.MachineName(o.Unit.Lane)+"]."+o.Output.Name)
		}
		for _, name := range names {
			out := deploy.Output{Name: name, Value: o.Output.Value, Sensitive: o.Output.Sensitive}
			if out.Sensitive {
				clear, err := a.r.o.cfg.Sealer.Open(ctx, child, "output."+o.Output.Name, o.Output.Value)
				if err != nil {
					return nil, fmt.Errorf("open output %s of %s: %w", o.Output.Name, child, err)
				}
				if out.Value, err = a.r.o.cfg.Sealer.Seal(a.r.l.ID, "output."+name, clear); err != nil {
					return nil, fmt.Errorf("seal output %s: %w", name, err)
				}
			}
			f := a.fact(deploy.FactOutput)
			f.Output = &out
			if i, twice := at[name]; twice {
				facts[i] = f // the last one counts
				continue
			}
			if len(facts) >= maxOutputs {
				return facts, nil
			}
			at[name] = len(facts)
			facts = append(facts, f)
		}
	}
	return facts, nil
}

// wakeParent tells the deployment that waits for this one.
func wakeParent(ctx context.Context, tx *db.Tx, child string) error {
	return tasks.WakeParent(ctx, tx, child, func(id string) (any, error) {
		unit, attempt, err := deploy.ParseAttempt(id)
		if err != nil {
			return nil, err
		}
		return deploy.Fact{
			Kind: deploy.FactAnswer, At: tx.Now(), Unit: &unit, Attempt: attempt,
			Answer: &deploy.Answer{ID: id, Choice: deploy.ChildEnded},
		}, nil
	})
}
