package health

import (
	"time"

	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Progress is how far a task has come with one machine.
type Progress struct {
	Began, Ended time.Time              // zero while it has not
	Status       octopus.ActivityStatus // once it has ended
}

// Nodes is the log of a task that has to do with machines, still without lines: the
// task and, in it, each machine, whose node's id is Activity.
func Nodes(t *tasks.Task, machines []Machine, at func(Machine) Progress) *octopus.Activity {
	root := &octopus.Activity{
		ID: t.ID, Name: t.Description, Status: octopus.ActivityRunning, ShowAtSummaryLevel: true,
		Started: octopus.OptionalTime(t.Started), Ended: octopus.OptionalTime(t.Completed),
	}
	switch t.State {
	case octopus.TaskQueued:
		root.Status = octopus.ActivityPending
	case octopus.TaskSuccess:
		root.Status = octopus.ActivitySuccess
		if t.HasWarnings {
			root.Status = octopus.ActivitySuccessWithWarning
		}
	case octopus.TaskFailed, octopus.TaskTimedOut:
		root.Status = octopus.ActivityFailed
	case octopus.TaskCanceled:
		root.Status = octopus.ActivityCanceled
	case octopus.TaskExecuting, octopus.TaskCancelling:
	}
	over := 0
	for _, m := range machines {
		node := octopus.Activity{ID: Activity(t.ID, m.ID), Name: m.Name, Status: octopus.ActivityPending, ShowAtSummaryLevel: true}
		p := at(m)
		if !p.Began.IsZero() {
			node.Status, node.Started = octopus.ActivityRunning, octopus.OptionalTime(p.Began)
		}
		switch {
		case !p.Ended.IsZero():
			over++
			node.Status, node.Ended, node.ProgressPercentage = p.Status, octopus.OptionalTime(p.Ended), 100
		case t.State == octopus.TaskCanceled:
			node.Status = octopus.ActivityCanceled
		case t.State.Completed():
			node.Status = octopus.ActivitySkipped
		}
		root.Children = append(root.Children, node)
	}
	root.ProgressPercentage = 100
	if n := len(machines); n > 0 && !t.State.Completed() {
		root.ProgressPercentage = 100 * over / n
	}
	return root
}

// Activity is the node of a machine in a task's log.
func Activity(task, machine string) string { return task + "_" + machine }
