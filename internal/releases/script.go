package releases

import (
	"context"
	"crypto/rand"
	"strconv"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// NewScript is a script that is to be run on machines by a task of its own.
type NewScript struct {
	Space       ident.SpaceID
	Description string
	Syntax      octopus.ScriptSyntax
	Body        string
	// Template is the id of a step template that is run instead, "" for none, and
	// Values those of its parameters that are not to have their default values.
	Template string
	Values   octopus.Properties
	Machines []deploy.Machine // targets and workers
}

// scriptAction is the one that the script's step has, and what of it the arguments of the
// task tell.
func (s *Service) scriptAction(ctx context.Context, tx *db.Tx, n *NewScript) (a octopus.Action, arguments map[string]any, err error) {
	a = octopus.Action{ID: "script", Name: "Run script", ActionType: octopus.ActionScript, Properties: octopus.Properties{}}
	if n.Template == "" {
		a.Properties[octopus.PropScriptSource] = octopus.Plain(string(octopus.ScriptInline))
		a.Properties[octopus.PropScriptSyntax], a.Properties[octopus.PropScriptBody] = octopus.Plain(string(n.Syntax)), octopus.Plain(n.Body)
		return a, map[string]any{"Syntax": n.Syntax, "ScriptBody": n.Body}, nil
	}
	var t octopus.ActionTemplate
	if err := s.store.Load(ctx, tx, "actiontemplates", n.Template, &t); err != nil {
		return a, nil, err
	}
	source := t.Properties.Get(octopus.PropScriptSource)
	if t.ActionType != octopus.ActionScript || len(t.Packages)+len(t.GitDependencies) > 0 || source != "" && !strings.EqualFold(source, string(octopus.ScriptInline)) {
		return a, nil, fault.InvalidField("Arguments.ActionTemplateId", "The step template '%s' is no inline script without packages, and no other kind is run by itself; use it in a process.", t.Name)
	}
	known := octopus.Properties{}
	for i := range t.Parameters {
		p := &t.Parameters[i]
		value, ok := n.Values.Lookup(p.Name)
		switch {
		case !ok:
			continue
		case value.Sensitive == nil && resources.IsSensitive(p):
			value = octopus.Secret(value.Value)
		}
		a.Properties[p.Name], known[p.Name] = value, value
	}
	for name := range n.Values {
		_, ofParameter := known.Lookup(name)
		if _, ofTemplate := t.Properties.Lookup(name); !ofParameter && !ofTemplate {
			return a, nil, fault.InvalidField("Arguments.Properties", "Arguments.Properties has '%.100s', which is no parameter of the step template '%s'; leave it out.", name, t.Name)
		}
	}
	a.Properties[octopus.PropTemplateID], a.Properties[octopus.PropTemplateVersion] = octopus.Plain(t.ID), octopus.Plain(strconv.Itoa(t.Version))
	steps := []octopus.Step{{Actions: octopus.List[octopus.Action]{a}}}
	if err := s.templates(n.Space).complete(ctx, tx, steps); err != nil {
		return a, nil, err
	}
	return steps[0].Actions[0], map[string]any{"ActionTemplateId": t.ID}, nil // the values may be secrets
}

// Script makes the task that runs a script, with the process that the engine runs: one
// step, on all machines.
func (s *Service) Script(ctx context.Context, tx *db.Tx, n NewScript) (tasks.New, error) {
	action, arguments, err := s.scriptAction(ctx, tx, &n)
	if err != nil {
		return tasks.New{}, err
	}
	name := action.Name
	step := octopus.Step{ID: action.ID, Name: name, Actions: octopus.List[octopus.Action]{action}}
	id := "deploymentprocess-script-" + strings.ToLower(rand.Text())
	process := &octopus.DeploymentProcess{Steps: octopus.List[octopus.Step]{step}}
	if _, err := s.store.In(tx).Create(ctx, ProcessSnapshots, n.Space, id, process); err != nil {
		return tasks.New{}, err
	}
	plan := deploy.Plan{
		Format: deploy.Format, Owner: deploy.OwnerScript, SpaceID: string(n.Space), ProcessID: id, Machines: n.Machines,
		Steps: []deploy.Step{{
			ID: step.ID, Name: name, Number: "1", Condition: octopus.StepConditionSuccess,
			Actions: []deploy.Action{{ID: "script", Name: name, Number: "1", Type: octopus.ActionScript, Place: deploy.OnTarget}},
		}},
	}
	plan.Steps[0].Lanes = plan.MachineIDs()
	arguments["MachineIds"] = plan.MachineIDs()
	return tasks.New{
		Space: n.Space, Name: octopus.TaskAdHocScript, Description: n.Description, Plan: plan, Machines: plan.MachineIDs(),
		Arguments: arguments,
	}, nil
}

// Scripts is what the engine knows of tasks that run a script: they have a process, and
// neither release nor variables.
type Scripts struct{ *Service }

// Variables are those of a step template's parameters: besides them a script sees those
// of its machine and its step, and none of a project or a library.
func (c Scripts) Variables(ctx context.Context, p *deploy.Plan) (all []variables.Variable, err error) {
	err = c.db.Read(ctx, func(tx *db.Tx) error {
		var process octopus.DeploymentProcess
		if err := c.store.Reveal(ctx, tx, ProcessSnapshots, p.ProcessID, &process); err != nil {
			return err
		}
		all, err = c.templates(ident.SpaceID(p.SpaceID)).parameters(ctx, tx, process.Steps)
		return err
	})
	return all, err
}

// Targets are none that a step of such a task would look for.
func (Scripts) Targets(context.Context, *deploy.Plan) ([]Target, error) { return nil, nil }

// MayStart lets every script start.
func (Scripts) MayStart(context.Context, *db.Tx, *deploy.Plan) error { return nil }

// Child makes no deployment.
func (Scripts) Child(context.Context, *db.Tx, *deploy.Plan, Child) (task, skipped string, err error) {
	return "", "", fault.New(fault.Unsupported, "A script that is run by itself deploys no release.")
}

// Ended forgets the process of a task that has ended.
func (c Scripts) Ended(ctx context.Context, tx *db.Tx, t *tasks.Task, _ octopus.TaskState) error {
	var plan deploy.Plan
	if err := tasks.Plan(ctx, tx, t.ID, &plan); err != nil {
		return err
	}
	err := c.store.In(tx).Delete(ctx, ProcessSnapshots, plan.ProcessID)
	if fault.Is(err, fault.NotFound) {
		return nil
	}
	return err
}
