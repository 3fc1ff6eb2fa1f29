package orchestrator

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/octostache"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// values are the variables of a run: the manifest's, which never change, and the
// outputs of its steps, which are added as they come.
type values struct {
	mu      sync.Mutex
	set     *variables.Set
	outputs int64
	masker  *variables.Masker
}

// loadVariables reads the manifest, and the outputs that the journal has.
func (r *run) loadVariables(ctx context.Context) error {
	all, err := r.o.cfg.Source.Variables(ctx, &r.plan)
	if err != nil {
		return fmt.Errorf("read the variables of %s: %w", r.l.ID, err)
	}
	masker, err := variables.NewMasker(secretsOf(all)...)
	if err != nil {
		return fmt.Errorf("hide the secrets of %s: %w", r.l.ID, err)
	}
	r.vars = &values{set: variables.New(all...), masker: masker}
	for _, out := range r.state.Outputs {
		if err := r.addOutput(ctx, out.Unit, out.Output); err != nil {
			return err
		}
	}
	return r.loadMasks(ctx)
}

func secretsOf(all []variables.Variable) []string {
	var secrets []string
	for _, v := range all {
		if v.Sensitive {
			secrets = append(secrets, v.Value)
		}
	}
	return secrets
}

// addOutput makes an output that is in the journal visible to later steps.
func (r *run) addOutput(ctx context.Context, unit deploy.Unit, out deploy.Output) error {
	value := out.Value
	if out.Sensitive {
		clear, err := r.o.cfg.Sealer.Open(ctx, r.l.ID, "output."+out.Name, out.Value)
		if err != nil {
			return fmt.Errorf("open output %s: %w", out.Name, err)
		}
		value = string(clear)
	}
	r.vars.mu.Lock()
	defer r.vars.mu.Unlock()
	r.vars.outputs++
	o := variables.Output{
		Action: r.plan.Steps[unit.Step].Actions[unit.Action].Name, MachineID: unit.Lane,
		Name: out.Name, Value: value, Sensitive: out.Sensitive, Order: r.vars.outputs,
	}
	if unit.Lane != "" {
		o.Machine = r.machineName(unit.Lane)
	}
	r.vars.set = r.vars.set.With(o.Variables()...)
	if out.Sensitive {
		return r.vars.masker.Add(value)
	}
	return nil
}

// mask hides every secret known so far in a text of our own.
func (v *values) mask(text string) string {
	if v == nil {
		return text
	}
	return v.masker.Mask(text)
}

// scope is where variables are looked for: in a step, and maybe in a unit of it.
func (r *run) scope(step int, unit *deploy.Unit) variables.Context {
	c := variables.Context{
		Environment: r.plan.EnvironmentID, Channel: r.plan.ChannelID, Tenant: r.plan.TenantID,
		TenantTags: r.plan.TenantTags, ProcessOwner: r.plan.ProjectID,
	}
	if step >= 0 {
		c.StepRoles = r.plan.Steps[step].Roles
	}
	if unit == nil {
		return c
	}
	c.Action = r.plan.Steps[unit.Step].Actions[unit.Action].ID
	if m := r.machine(unit.Lane); m != nil {
		c.Machine, c.MachineRoles = m.ID, m.Roles
	}
	return c
}

func (a *attempt) context() variables.Context { return a.r.scope(a.unit.Step, &a.unit) }

// resolved are the variables as one step, unit or the deployment sees them.
func (r *run) resolved(step int, unit *deploy.Unit) *octostache.Variables {
	c := r.scope(step, unit)
	var extra []variables.Variable
	if step >= 0 {
		s := &r.plan.Steps[step]
		extra = variables.ForStep(variables.StepInput{ID: s.ID, Name: s.Name, Number: s.Number})
		extra = append(extra, variables.Variable{Name: octopus.PropTargetRoles, Value: strings.Join(s.Roles, ",")})
	}
	if unit != nil {
		extra = append(extra, variables.ForAction(r.actionInput(unit.Step, unit.Action))...)
		if m := r.machine(unit.Lane); m != nil {
			extra = append(extra, variables.ForMachine(variables.MachineInput{ID: m.ID, Name: m.Name, Roles: m.Roles, TargetedRoles: targeted(m.Roles, r.plan.Steps[step].Roles)})...)
		}
	}
	r.vars.mu.Lock()
	set := r.vars.set
	r.vars.mu.Unlock()
	var pairs []octostache.Pair
	for v := range set.Resolve(c).All() {
		pairs = append(pairs, octostache.Pair{Name: v.Name, Value: v.Value})
	}
	pairs = append(append(pairs, r.others...), r.statuses()...)
	return octostache.NewVariables(octostache.Options{Now: now()}, append(pairs, pairsOf(extra)...)...)
}

func pairsOf(all []variables.Variable) []octostache.Pair {
	pairs := make([]octostache.Pair, len(all))
	for i, v := range all {
		pairs[i] = octostache.Pair{Name: v.Name, Value: v.Value}
	}
	return pairs
}

// targeted are the tags of a target that a step wants.
func targeted(has, wants []string) []string {
	return slices.DeleteFunc(slices.Clone(has), func(tag string) bool {
		return !slices.ContainsFunc(wants, func(w string) bool { return strings.EqualFold(w, tag) })
	})
}

// actionInput is an action of the plan as its variables are made of it. The texts of
// scripts are no variables: they are long, and a script is in no need of itself.
func (r *run) actionInput(step, action int) variables.ActionInput {
	s, a := &r.plan.Steps[step], &r.plan.Steps[step].Actions[action]
	in := variables.ActionInput{ID: a.ID, Name: a.Name, Number: a.Number, TargetRoles: s.Roles, Skipped: a.Skip}
	for _, p := range a.Packages {
		in.Packages = append(in.Packages, variables.PackageInput{Name: p.Name, PackageID: p.PackageID, FeedID: p.FeedID, Version: p.Version})
	}
	_, frozen, ok := r.action(deploy.Unit{Step: step, Action: action})
	if !ok {
		return in
	}
	in.TemplateID, in.TemplateVersion = frozen.Properties.Get(octopus.PropTemplateID), frozen.Properties.Get(octopus.PropTemplateVersion)
	for _, key := range slices.Sorted(maps.Keys(frozen.Properties)) {
		p := variables.Property{Name: key, Value: frozen.Properties[key].Value}
		if secret := frozen.Properties[key].Sensitive; secret != nil {
			if p.Sensitive = true; secret.NewValue != nil {
				p.Value = *secret.NewValue
			}
		}
		if p.Value != "" && !strings.HasPrefix(key, octopus.PropScriptBody) {
			in.Properties = append(in.Properties, p)
		}
	}
	return in
}

// loadOthers are the variables by which actions see each other.
func (r *run) loadOthers() {
	for i := range r.plan.Steps {
		for j := range r.plan.Steps[i].Actions {
			r.others = append(r.others, pairsOf(variables.OfAction(r.actionInput(i, j)))...)
		}
	}
}

// statuses are the variables that tell how the deployment has gone so far.
func (r *run) statuses() []octostache.Pair {
	r.mu.Lock()
	defer r.mu.Unlock()
	var pairs []octostache.Pair
	if r.state.Error {
		pairs = append(pairs,
			octostache.Pair{Name: "Octopus.Deployment.Error", Value: "One or more steps failed"},
			octostache.Pair{Name: "Octopus.Deployment.ErrorDetail", Value: r.state.ErrorDetail})
	}
	for i := range r.plan.Steps {
		step := &r.plan.Steps[i]
		in := variables.StepInput{ID: step.ID, Name: step.Name, Number: step.Number, Status: statusCode(r.state.StepStatus(i))}
		if step.AllDone() {
			in.Status = variables.StepSucceeded
		}
		if in.Status == variables.StepFailed {
			in.Error, in.ErrorDetail = "The step failed", r.state.StepError(i)
		}
		pairs = append(pairs, pairsOf(variables.OfStep(in))...)
	}
	return pairs
}

func statusCode(s octopus.ActivityStatus) variables.StepStatus {
	switch s {
	case octopus.ActivitySuccess, octopus.ActivitySuccessWithWarning:
		return variables.StepSucceeded
	case octopus.ActivityPending, octopus.ActivityRunning, octopus.ActivityFailed, octopus.ActivitySkipped, octopus.ActivityCanceled:
	}
	return variables.StepStatus(s)
}

// condition evaluates the run condition of a step or of a unit: that of its action and,
// for the first one on a target, that of the step. What cannot be resolved is false.
func (r *run) condition(f *deploy.Fact) {
	const isFalse = "its run condition is false"
	stepTrue := func(vars *octostache.Variables, step int) bool {
		return vars.EvaluateTruthy(r.step(step).Properties.Get(octopus.PropConditionExpression))
	}
	if f.Kind == deploy.FactStep {
		if f.Run = stepTrue(r.resolved(f.Step, nil), f.Step); !f.Run {
			f.Reason = isFalse
		}
		return
	}
	f.Run = true
	vars := r.resolved(f.Unit.Step, f.Unit)
	step := &r.plan.Steps[f.Unit.Step]
	if f.Unit.Action == 0 && step.PerLane() && !stepTrue(vars, f.Unit.Step) {
		f.Run, f.Lane, f.Reason = false, true, isFalse
		return
	}
	_, a, _ := r.action(*f.Unit)
	if step.Actions[f.Unit.Action].Variable && !vars.EvaluateTruthy(a.Properties.Get("Octopus.Action.ConditionVariableExpression")) {
		f.Run, f.Reason = false, isFalse
	}
}

// window is how many lanes of a step run at a time. A rolling step's own window goes
// before the variable, which it says where that would allow more.
func (r *run) window(step int) int {
	vars := r.resolved(step, nil)
	limit := parallelism(vars)
	own := r.step(step).Properties.Get(octopus.PropMaxParallelism)
	if own == "" {
		return cmp.Or(limit, deploy.MaxParallel)
	}
	window := 1
	if n, err := strconv.Atoi(strings.TrimSpace(vars.Evaluate(own).Text)); err == nil && n > 0 {
		window = n
	}
	if limit > window {
		r.say(deploy.StepActivity(r.l.ID, step), octopus.LogWarning, fmt.Sprintf("The variable %s allows %d targets at a time; the window of the rolling step, %d, goes before it.", octopus.PropMaxParallelism, limit, window))
	}
	return window
}

// parallelism is what the variable for it says, 0 for nothing.
func parallelism(vars *octostache.Variables) int {
	if text, ok := vars.Get(octopus.PropMaxParallelism); ok {
		if n, err := strconv.Atoi(strings.TrimSpace(text)); err == nil && n > 0 {
			return n
		}
	}
	return 0
}

// machine finds a target of the deployment, nil for none.
func (r *run) machine(id string) *deploy.Machine {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.Machine(id)
}

func (r *run) machineName(id string) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.MachineName(id)
}

// step is the frozen step of a plan's step.
func (r *run) step(i int) octopus.Step {
	for _, s := range r.process {
		if s.ID == r.plan.Steps[i].ID {
			return s
		}
	}
	return octopus.Step{}
}

// action is the frozen step and action of a unit.
func (r *run) action(u deploy.Unit) (octopus.Step, octopus.Action, bool) {
	s := r.step(u.Step)
	for _, a := range s.Actions {
		if a.ID == r.plan.Steps[u.Step].Actions[u.Action].ID {
			return s, a, true
		}
	}
	return s, octopus.Action{}, false
}

func isTrue(text string) bool { return strings.EqualFold(strings.TrimSpace(text), "true") }
