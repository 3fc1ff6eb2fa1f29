package orchestrator

import (
	"context"

	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/steps"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// serve does what the server does itself, without any agent.
func (a *attempt) serve(ctx context.Context) error {
	work, err := a.prepared()
	if err != nil {
		return a.refuse(ctx, err)
	}
	if a.canceled() {
		return nil // nothing has begun, and nothing will
	}
	intent := a.fact(deploy.FactIntent)
	intent.Intent = &deploy.Intent{Contract: deploy.ContractNone}
	return a.question(ctx, work.Question, intent)
}

// serveAgain goes on with what another process had begun.
func (a *attempt) serveAgain(ctx context.Context) error {
	return a.conclude(ctx, deploy.Result{Outcome: deploy.Failed, Message: "The server was stopped while it did this step itself."}, tasks.Batch{})
}

// prepared is the work of an action that needs no agent.
func (a *attempt) prepared() (*steps.Work, error) {
	return steps.Prepare(steps.Input{Step: a.step, Action: a.action, Vars: a.vars})
}

// question asks a person. The intent and the interruption come together: there is no
// moment at which one is there without the other.
func (a *attempt) question(ctx context.Context, q *steps.Question, intent deploy.Fact) error {
	id, err := a.r.l.NextInterruption(ctx)
	if err != nil {
		return err
	}
	ask := a.fact(deploy.FactAsk)
	ask.Ask = &deploy.Ask{ID: id, Kind: deploy.AskManual}
	b := tasks.Batch{Lines: []tasks.Line{a.line(octopus.LogWait, "Waiting for somebody to answer the manual intervention %s.", id)}}
	err = a.raise(&b, octopus.InterruptionManual, id, Question{
		Kind: deploy.AskManual, Message: q.Instructions, Required: a.planned.Required, OnTarget: a.unit.Lane != "", Teams: q.Teams,
	})
	if err != nil {
		return err
	}
	return a.commit(ctx, b, intent, ask)
}
