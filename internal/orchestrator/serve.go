package orchestrator

import (
	"context"
	"slices"

	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/steps"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// serve does what the server does itself, without any agent.
func (a *attempt) serve(ctx context.Context) error {
	if a.planned.Type == deploy.AcquirePackages {
		return a.acquireAll(ctx)
	}
	work, err := a.prepared()
	if err != nil {
		return a.refuse(ctx, err)
	}
	if a.canceled() {
		return nil // nothing has begun, and nothing will
	}
	intent := a.fact(deploy.FactIntent)
	intent.Intent = &deploy.Intent{Contract: deploy.ContractNone}
	if work.Question != nil {
		return a.question(ctx, work.Question, intent)
	}
	if work.Release != nil {
		return a.deployRelease(ctx, work.Release, intent)
	}
	if err := a.r.commit(ctx, tasks.Batch{}, intent); err != nil {
		return err
	}
	if err := failpoint.Hit("intent-committed"); err != nil {
		return err
	}
	if work.Health != nil {
		return a.checkHealth(ctx, work.Health)
	}
	return a.deliver(ctx, work.Mail)
}

// serveAgain goes on with what another process had begun: it sends an e-mail again,
// under the same Message-ID, since nobody knows whether it was sent, and checks the
// health of targets again.
func (a *attempt) serveAgain(ctx context.Context) error {
	if a.planned.Type == octopus.ActionDeployRelease {
		return a.childEnded(ctx)
	}
	if a.planned.Type == deploy.AcquirePackages {
		return a.acquireAll(ctx)
	}
	work, err := a.prepared()
	switch {
	case err == nil && work.Health != nil:
		return a.checkHealth(ctx, work.Health)
	case err != nil || work.Mail == nil:
		return a.conclude(ctx, deploy.Result{Outcome: deploy.Failed, Message: "The server was stopped while it did this step itself."}, tasks.Batch{})
	case a.canceled():
		return a.conclude(ctx, deploy.Result{Outcome: deploy.Canceled, Message: "The step was canceled."}, tasks.Batch{})
	}
	return a.deliver(ctx, work.Mail)
}

// deliver sends an e-mail.
func (a *attempt) deliver(ctx context.Context, m *steps.Mail) error {
	message := m.Message
	message.ID = a.r.l.ID + "." + a.unit.Key()
	b := tasks.Batch{}
	err := func() error {
		if a.r.o.cfg.Mail == nil {
			return fault.New(fault.Invalid, "This server sends no e-mails.")
		}
		members, err := a.r.o.cfg.Mail.Addresses(ctx, m.Teams)
		if err != nil {
			return err
		}
		for _, one := range members {
			if !slices.Contains(message.To, one) {
				message.To = append(message.To, one)
			}
		}
		return a.r.o.cfg.Mail.Send(ctx, message)
	}()
	switch {
	case err == nil:
		b.Lines = append(b.Lines, a.line(octopus.LogInfo, "Sent the e-mail \"%s\" to %d recipients.", message.Subject, len(message.To)+len(message.CC)+len(message.Bcc)))
		return a.conclude(ctx, deploy.Result{Outcome: deploy.Succeeded}, b)
	case ctx.Err() != nil:
		return ctx.Err()
	default:
		a.r.log.Warn("send an e-mail", "unit", a.unit.Key(), "err", err)
		return a.conclude(ctx, deploy.Result{Outcome: deploy.Failed, Message: publicText(err, "The e-mail could not be sent because of a failure of the server; its log has the details.")}, b)
	}
}

// prepared is the work of an action that needs no agent.
func (a *attempt) prepared() (*steps.Work, error) {
	in := steps.Input{Step: a.step, Action: a.action, Vars: a.vars}
	for _, p := range a.planned.Packages {
		in.Packages = append(in.Packages, steps.Package{Name: p.Name, PackageID: p.PackageID, Version: p.Version})
	}
	return steps.Prepare(in)
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
