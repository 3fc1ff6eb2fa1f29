package releases

import (
	"context"
	"crypto/rand"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
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
	Machines    []deploy.Machine // targets and workers
}

// Script makes the task that runs a script, with the process that the engine runs: one
// step, on all machines.
func (s *Service) Script(ctx context.Context, tx *db.Tx, n NewScript) (tasks.New, error) {
	const name = "Run script"
	step := octopus.Step{ID: "script", Name: name, Actions: octopus.List[octopus.Action]{{
		ID: "script", Name: name, ActionType: octopus.ActionScript,
		Properties: octopus.Properties{
			octopus.PropScriptSource: octopus.Plain(string(octopus.ScriptInline)), octopus.PropScriptSyntax: octopus.Plain(string(n.Syntax)), octopus.PropScriptBody: octopus.Plain(n.Body),
		},
	}}}
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
	return tasks.New{
		Space: n.Space, Name: octopus.TaskAdHocScript, Description: n.Description, Plan: plan, Machines: plan.MachineIDs(),
		Arguments: map[string]any{"MachineIds": plan.MachineIDs(), "Syntax": n.Syntax, "ScriptBody": n.Body},
	}, nil
}

// Scripts is what the engine knows of tasks that run a script: they have a process, and
// neither release nor variables.
type Scripts struct{ *Service }

// Variables are none: a script sees those of its machine and its step.
func (Scripts) Variables(context.Context, *deploy.Plan) ([]variables.Variable, error) {
	return nil, nil
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
