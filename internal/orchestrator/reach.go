package orchestrator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/octopus"
)

// finder finds the agent for new work.
func (a *attempt) finder(place deploy.Place, pool string) func(context.Context) (targets.Agent, error) {
	if place == deploy.OnTarget {
		return func(ctx context.Context) (targets.Agent, error) { return a.r.o.cfg.Agents.Target(ctx, a.unit.Lane) }
	}
	need := targets.Need{Space: a.r.plan.SpaceID, Pool: pool}
	if text, ok := a.vars.Get(octopus.PropWorkerLeaseCap); ok {
		if n, err := strconv.Atoi(strings.TrimSpace(text)); err == nil && n > 0 {
			need.Cap = n
		}
	}
	return func(ctx context.Context) (targets.Agent, error) {
		if need.Cap > 0 {
			// One after the other, so that each counts what those before it have chosen.
			select {
			case a.r.choosing <- struct{}{}:
				defer func() { <-a.r.choosing }()
			case <-ctx.Done():
				return targets.Agent{}, ctx.Err()
			}
		}
		need.Used, need.Steps = a.r.used()
		found, err := a.r.o.cfg.Agents.Worker(ctx, need)
		if err == nil && need.Cap > 0 {
			a.r.mu.Lock()
			a.r.chosen[a.unit] = found.Name
			a.r.mu.Unlock()
			a.notes = append(a.notes, a.line(octopus.LogVerbose, "The step runs on %s, as the deployment's step number %d there (%s is %d).", cmp.Or(found.Label, "the built-in worker"), need.Steps[found.Name]+1, octopus.PropWorkerLeaseCap, need.Cap))
		}
		return found, err
	}
}

// used are the agents that the deployment has used, the latest first, and how many of its
// units each has had, those included that have only chosen theirs.
func (r *run) used() ([]string, map[string]int) {
	type use struct {
		agent string
		at    time.Time
	}
	r.mu.Lock()
	var all []use
	had := map[string]int{}
	for unit, u := range r.state.Units {
		if u.Intent != nil && u.Intent.Agent != "" {
			all = append(all, use{u.Intent.Agent, u.Started})
			if r.chosen[unit] == "" {
				had[u.Intent.Agent]++
			}
		}
	}
	for _, agent := range r.chosen {
		had[agent]++
	}
	r.mu.Unlock()
	slices.SortFunc(all, func(a, b use) int { return cmp.Or(b.at.Compare(a.at), cmp.Compare(a.agent, b.agent)) })
	var out []string
	for _, u := range all {
		if !slices.Contains(out, u.agent) {
			out = append(out, u.agent)
		}
	}
	return out, had
}

// untilCanceled is a context that ends when the task is canceled, too.
func (a *attempt) untilCanceled(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, stop := context.WithCancel(ctx)
	go func() {
		select {
		case <-a.r.l.Canceled:
			stop()
		case <-ctx.Done():
		}
	}()
	return ctx, stop
}

// startScript makes one attempt to start the script. A cancellation does not wait for
// an agent of our own, which can be told to end what it may not have begun.
func (a *attempt) startScript(ctx context.Context, req agent.StartRequest) (agent.Status, error) {
	if a.agent.Contract == deploy.ContractTako {
		var stop context.CancelFunc
		ctx, stop = a.untilCanceled(ctx)
		defer stop()
	}
	return a.agent.StartScript(ctx, req)
}

// patience is how long the agent is called again while it does not answer.
func (a *attempt) patience() time.Duration { return cmp.Or(a.agent.Patience, reachFor) }

// where names what runs the script, at the beginning of a sentence.
func (a *attempt) where() string {
	return named(a.unit.Lane != "" && a.agent.Name == a.unit.Lane, a.agent.Label)
}

func named(target bool, label string) string {
	switch {
	case label == "":
		return "The worker"
	case target:
		return "The deployment target " + label
	default:
		return "The worker " + label
	}
}

// unreached is a sentence about an agent that did not answer for as long as it was
// called.
func (a *attempt) unreached(err error) string {
	who, patience := a.where(), a.patience()
	var away *targets.AwayError
	if errors.As(err, &away) {
		who, patience = named(a.unit.Lane != "" && a.agent.Name == "" && a.planned.Place == deploy.OnTarget, away.Label), away.Patience
	}
	return fmt.Sprintf("%s could not be reached for %s: %s.", who, patience, strings.TrimSuffix(cause(err).Error(), "."))
}

// cause is the innermost of an error's chain; of several, the last one.
func cause(err error) error {
	for {
		var op *net.OpError
		if errors.As(err, &op) {
			return op
		}
		var inner error
		switch e := err.(type) { //nolint:errorlint // it walks the chain itself
		case interface{ Unwrap() error }:
			inner = e.Unwrap()
		case interface{ Unwrap() []error }:
			if all := e.Unwrap(); len(all) > 0 {
				inner = all[len(all)-1]
			}
		}
		if inner == nil {
			return err
		}
		err = inner
	}
}
