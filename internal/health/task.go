package health

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// MaxMachines is how many machines one task checks.
const MaxMachines = 10_000

// Machine is one that a task checks.
type Machine struct {
	Kind string `json:"kind"` // resources.TargetKind or resources.WorkerKind
	ID   string `json:"id"`
	Name string `json:"name"` // as it was when the task was queued
}

// Job is what a task named Health does. It is stored as the task's plan.
type Job struct {
	// Key is what makes the tickets of this task those of no other, also where the
	// numbers of tasks have begun anew after a restore.
	Key      string    `json:"key"`
	Machines []Machine `json:"machines"`
	// OnlyConnect runs no scripts, whatever the policies of the machines say.
	OnlyConnect bool `json:"onlyConnect,omitempty"`
	// Timeout ends the whole task, 0 never; MachineTimeout is that of one machine, 0
	// for targets.CheckTimeout.
	Timeout        time.Duration `json:"timeout,omitempty"`
	MachineTimeout time.Duration `json:"machineTimeout,omitempty"`
}

// NewTask is the task of a job; its Key is made here. Description "" says what it does.
func NewTask(space ident.SpaceID, job Job, description string) tasks.New {
	job.Key = strings.ToLower(rand.Text())
	if description == "" {
		description = fmt.Sprintf("Check the health of %d machines", len(job.Machines))
		if len(job.Machines) == 1 {
			description = "Check the health of " + job.Machines[0].Name
		}
	}
	n := tasks.New{Space: space, Name: octopus.TaskHealth, Description: description, Plan: job, Arguments: map[string]any{}}
	for _, m := range job.Machines {
		n.Machines = append(n.Machines, m.ID)
	}
	return n
}

// ticket names the script of a machine's check.
func (j *Job) ticket(machine string) agent.Ticket {
	return agent.Ticket("health-" + j.Key + "-" + strings.ToLower(machine))
}

// fact is what the journal of a task has of one machine.
type fact struct {
	Machine string    `json:"machine"`
	At      time.Time `json:"at"`
	// Began says that its check has begun; else it is over, and the rest tells how.
	Began bool   `json:"began,omitempty"`
	Agent string `json:"agent,omitempty"` // that a script was sent to
	// Contract is that of the agent.
	Contract deploy.Contract      `json:"contract,omitempty"`
	Status   octopus.HealthStatus `json:"status,omitempty"`
	// Skipped is why it was not checked.
	Skipped string `json:"skipped,omitempty"`
	// MayBeAway says that its not being available is no failure.
	MayBeAway bool `json:"mayBeAway,omitempty"`
	// Upgrade says that its agent is to be upgraded.
	Upgrade bool `json:"upgrade,omitempty"`
}

// progress is a journal, read.
type progress struct{ began, over map[string]fact }

func fold(facts []tasks.Fact) (p progress, err error) {
	p = progress{map[string]fact{}, map[string]fact{}}
	for _, row := range facts {
		var f fact
		if err := json.Unmarshal(row.Body, &f); err != nil {
			return p, fmt.Errorf("read fact %d: %w", row.Seq, err)
		}
		if f.Began {
			p.began[f.Machine] = f
		} else {
			p.over[f.Machine] = f
		}
	}
	return p, nil
}

// Tree is the log of a task, still without lines: the task and, in it, its machines.
func Tree(ctx context.Context, tx *db.Tx, t *tasks.Task) (*octopus.Activity, error) {
	var job Job
	if err := tasks.Plan(ctx, tx, t.ID, &job); err != nil {
		return nil, err
	}
	facts, err := tasks.Journal(ctx, tx, t.ID)
	if err != nil {
		return nil, err
	}
	p, err := fold(facts)
	if err != nil {
		return nil, err
	}
	return Nodes(t, job.Machines, func(m Machine) Progress {
		var at Progress
		if f, ok := p.began[m.ID]; ok {
			at.Began = f.At
		}
		if f, ok := p.over[m.ID]; ok {
			at.Ended, at.Status = f.At, f.activityStatus()
		}
		return at
	}), nil
}

func (f fact) activityStatus() octopus.ActivityStatus {
	if f.Skipped != "" {
		return octopus.ActivitySkipped
	}
	switch f.Status {
	case octopus.Healthy:
		return octopus.ActivitySuccess
	case octopus.HealthyWarnings:
		return octopus.ActivitySuccessWithWarning
	case octopus.Unavailable:
		if f.MayBeAway {
			return octopus.ActivitySuccessWithWarning
		}
	case octopus.Unhealthy, octopus.HealthUnknown:
	}
	return octopus.ActivityFailed
}
