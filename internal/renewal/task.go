package renewal

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/health"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Job is what a task named Upgrade does. It is stored as the task's plan.
type Job struct {
	// Key is what makes the attempts of this task those of no other.
	Key      string           `json:"key"`
	Machines []health.Machine `json:"machines"`
}

// NewTask is the task that upgrades the agents of machines. Description "" says what it
// does.
func NewTask(space ident.SpaceID, machines []health.Machine, description string) tasks.New {
	if description == "" {
		description = fmt.Sprintf("Upgrade the agents of %d machines", len(machines))
		if len(machines) == 1 {
			description = "Upgrade the agent of " + machines[0].Name
		}
	}
	n := tasks.New{
		Space: space, Name: octopus.TaskUpgrade, Description: description, Plan: Job{strings.ToLower(rand.Text()), machines},
		Arguments: map[string]any{},
	}
	for _, m := range machines {
		n.Machines = append(n.Machines, m.ID)
	}
	return n
}

// Queue queues the upgrade of agents in the transaction tx, but for those that a task
// which has not ended upgrades already.
func Queue(ctx context.Context, tx *db.Tx, queue *tasks.Service, space ident.SpaceID, machines []health.Machine) error {
	rows, err := tx.Query(ctx, `SELECT k.machine FROM task t JOIN task_machine k ON k.task = t.id
		WHERE t.name = ? AND t.space_id = ? AND t.state IN ('Queued', 'Executing', 'Cancelling')`, string(octopus.TaskUpgrade), string(space))
	if err != nil {
		return fmt.Errorf("look for upgrades: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	busy := map[string]bool{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return err
		}
		busy[id] = true
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if err := rows.Close(); err != nil {
		return err
	}
	some := slices.DeleteFunc(slices.Clone(machines), func(m health.Machine) bool { return busy[m.ID] })
	if len(some) == 0 {
		return nil
	}
	_, err = queue.Create(ctx, tx, NewTask(space, some, ""))
	return err
}

// outcome is how it has gone with a machine.
type outcome string

const (
	upgraded outcome = "upgraded"
	nothing  outcome = "nothing" // to do
	skipped  outcome = "skipped"
	failed   outcome = "failed"
)

// fact is what the journal of a task has of one machine.
type fact struct {
	Machine string    `json:"machine"`
	At      time.Time `json:"at"`
	// Outcome is "" when it has begun.
	Outcome outcome `json:"outcome,omitempty"`
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
		if f.Outcome == "" {
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
	return health.Nodes(t, job.Machines, func(m health.Machine) health.Progress {
		at := health.Progress{Began: p.began[m.ID].At}
		if f, ok := p.over[m.ID]; ok {
			at.Ended = f.At
			at.Status = map[outcome]octopus.ActivityStatus{
				upgraded: octopus.ActivitySuccess, nothing: octopus.ActivitySuccess, skipped: octopus.ActivitySkipped, failed: octopus.ActivityFailed,
			}[f.Outcome]
		}
		return at
	}), nil
}
