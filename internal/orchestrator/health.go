package orchestrator

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/steps"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// checkup is the check of one target.
type checkup struct {
	machine deploy.Machine
	now     *releases.Target // nil for one that the deployment could no longer have
	joins   bool             // the deployment does not have it yet
	ticket  agent.Ticket
	health  targets.Health
}

// checkHealth checks the targets of the deployment. It can be done again at any time:
// each target has a ticket that follows from the attempt, so that a script of a check
// that was broken off is found and not repeated.
func (a *attempt) checkHealth(ctx context.Context, h *steps.Health) error {
	now, err := a.r.o.cfg.Source.Targets(ctx, &a.r.plan)
	if err != nil {
		return err
	}
	all := a.checkups(now, h.Include)
	if len(all) == 0 {
		b := tasks.Batch{Lines: []tasks.Line{a.line(octopus.LogInfo, "There are no deployment targets to check.")}}
		return a.conclude(ctx, deploy.Result{Outcome: deploy.Succeeded}, b)
	}
	canceled, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		select {
		case <-a.r.l.Canceled:
			stop()
		case <-canceled.Done():
		}
	}()
	var say sync.Mutex // so that what is said of a target stays together
	g, checking := errgroup.WithContext(canceled)
	g.SetLimit(targets.ChecksAtOnce)
	for _, c := range all {
		g.Go(func() error {
			if err := a.check(checking, c, h.Full); err != nil {
				return err
			}
			say.Lock()
			defer say.Unlock()
			return a.r.l.Commit(ctx, tasks.Batch{Lines: a.told(c)})
		})
	}
	err = g.Wait()
	b := tasks.Batch{Tickets: a.checkTickets(all)}
	switch {
	case a.canceled() && ctx.Err() == nil:
		return a.conclude(ctx, deploy.Result{Outcome: deploy.Canceled, Message: "The step was canceled."}, b)
	case err != nil:
		return err
	}
	var found []resources.MachineCheck
	for _, c := range all {
		if c.now != nil && c.now.Endpoint.CommunicationStyle != octopus.StyleOfflineDrop {
			one := c.health.Found(resources.TargetKind, c.machine.ID, a.r.l.ID, a.r.l.Service().Version())
			one.Summary, one.Log = a.r.vars.mask(one.Summary), slices.Clone(one.Log)
			for i := range one.Log {
				one.Log[i] = a.r.vars.mask(one.Log[i])
			}
			found = append(found, one)
		}
	}
	if err := a.r.o.cfg.Source.Checked(ctx, found); err != nil {
		return err
	}
	result, facts := a.verdict(all, h, &b)
	return a.conclude(ctx, result, b, facts...)
}

// checkups are the targets to check: those of the deployment, and with join those
// that it could have and has not.
func (a *attempt) checkups(now []releases.Target, join bool) []*checkup {
	a.r.mu.Lock()
	defer a.r.mu.Unlock()
	var all []*checkup
	add := func(m deploy.Machine, t *releases.Target, joins bool) {
		ticket := strings.NewReplacer(".", "-", "#", "-").Replace(a.r.l.ID + "-health-" + deploy.Unit{Step: a.unit.Step, Action: a.unit.Action, Lane: m.ID}.AttemptKey(a.n))
		all = append(all, &checkup{machine: m, now: t, joins: joins, ticket: agent.Ticket(strings.ToLower(ticket))})
	}
	for _, m := range a.r.state.Checked(a.unit.Step, a.unit.Lane) {
		var t *releases.Target
		if i := slices.IndexFunc(now, func(t releases.Target) bool { return t.ID == m.ID }); i >= 0 {
			t = &now[i]
		}
		add(m, t, false)
	}
	if !join || a.unit.Lane != "" {
		return all
	}
	room := deploy.MaxMachines - len(a.r.plan.Machines) - len(a.r.state.Joined)
	for i := range now {
		t := &now[i]
		wanted := slices.ContainsFunc(a.r.plan.Steps, func(s deploy.Step) bool { return s.Wants(t.Roles) })
		if room > 0 && wanted && a.r.plan.Steps[a.unit.Step].Checks(t.Roles) && a.r.state.Machine(t.ID) == nil {
			add(t.Planned(), t, true)
			room--
		}
	}
	return all
}

// check finds out how a target is. What is reached by no agent is taken as well.
func (a *attempt) check(ctx context.Context, c *checkup, full bool) error {
	if c.now == nil {
		c.health = targets.Health{Status: octopus.Unavailable, Summary: "The target is disabled, or no longer one for this deployment.", Over: true}
		return nil
	}
	var err error
	c.health, err = targets.Examine(ctx, targets.Examination{
		Agents: a.r.o.cfg.Checks, Machine: c.machine.ID, Style: c.now.Endpoint.CommunicationStyle,
		OnlyConnect: !full || c.now.Policy.OnlyConnect, Script: c.now.Policy.Script, Ticket: c.ticket,
		Begin: func(ctx context.Context, agent string, contract deploy.Contract) error {
			return a.r.l.Commit(ctx, tasks.Batch{Tickets: []tasks.Ticket{{ID: string(c.ticket), Unit: a.id, Agent: agent, State: tasks.TicketOpen, Place: c.machine.Name, Contract: string(contract)}}})
		},
	})
	return err
}

// told are the lines about a target that was checked.
func (a *attempt) told(c *checkup) []tasks.Line {
	var lines []tasks.Line
	for _, text := range c.health.Log {
		lines = append(lines, a.line(octopus.LogVerbose, "%s: %s", c.machine.Name, text))
	}
	category, text := c.health.Says(c.machine.Name)
	return append(lines, a.line(category, "%s", text))
}

// checkTickets says what is to become of the scripts of checks.
func (a *attempt) checkTickets(all []*checkup) []tasks.Ticket {
	var out []tasks.Ticket
	for _, c := range all {
		if t, ok := c.health.Ticket(c.ticket, a.id); ok {
			out = append(out, t)
		}
	}
	return out
}

// verdict is what the checks mean for the step and for the deployment.
func (a *attempt) verdict(all []*checkup, h *steps.Health, b *tasks.Batch) (deploy.Result, []deploy.Fact) {
	change, leaving := &deploy.Machines{}, map[string]bool{}
	var bad []string
	result := deploy.Result{Outcome: deploy.Succeeded}
	for _, c := range all {
		switch {
		case c.health.Well() && c.joins:
			change.Join = append(change.Join, c.machine)
			b.Lines = append(b.Lines, a.line(octopus.LogInfo, "%s takes part in the deployment from here on.", c.machine.Name))
		case c.health.Well():
		case c.joins:
			b.Lines = append(b.Lines, a.line(octopus.LogWarning, "%s is new and does not take part in the deployment.", c.machine.Name))
		case h.Skip || c.health.Status == octopus.Unavailable && c.machine.MayBeOffline:
			change.Leave, leaving[c.machine.ID] = append(change.Leave, c.machine.ID), true
			b.Lines = append(b.Lines, a.line(octopus.LogWarning, "%s is left out of the rest of the deployment.", c.machine.Name))
		default:
			bad = append(bad, c.machine.Name)
		}
		result.Warnings = result.Warnings || c.health.Status != octopus.Healthy
	}
	if len(bad) > 0 {
		result.Outcome = deploy.Failed
		result.Message = fmt.Sprintf("%d of %d deployment targets are not healthy or not available: %s.", len(bad), len(all), strings.Join(bad[:min(len(bad), 20)], ", "))
		return result, nil
	}
	if len(change.Join)+len(change.Leave) == 0 {
		return result, nil
	}
	a.r.mu.Lock()
	some := len(change.Join) > 0 || a.r.plan.Targets.AllowNone || a.r.state.AnyLeft(leaving)
	a.r.mu.Unlock()
	if !some {
		result.Outcome, result.Message = deploy.Failed, "No deployment target is left that is healthy and available."
		return result, nil
	}
	f := a.fact(deploy.FactMachines)
	f.Machines = change
	return result, []deploy.Fact{f}
}
