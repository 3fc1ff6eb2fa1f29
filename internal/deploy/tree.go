package deploy

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/octopus"
)

// StepActivity is the id of a step's node in a task's log tree. It follows from
// the plan alone, so that it stays the same for ever.
func StepActivity(task string, step int) string { return task + "_" + strconv.Itoa(step) }

// UnitActivity is the id of a unit's node.
func UnitActivity(task string, u Unit) string {
	id := StepActivity(task, u.Step) + "." + strconv.Itoa(u.Action)
	if u.Lane != "" {
		id += "." + u.Lane
	}
	return id
}

// Key names the unit among those of its task.
func (u Unit) Key() string {
	return strings.TrimPrefix(UnitActivity("", u), "_")
}

// AttemptKey names an attempt of the unit among those of its task.
func (u Unit) AttemptKey(attempt int) string { return u.Key() + "#" + strconv.Itoa(attempt) }

// ParseAttempt reads what AttemptKey has made.
func ParseAttempt(key string) (u Unit, attempt int, err error) {
	unit, count, _ := cutLast(key, "#")
	step, rest, _ := strings.Cut(unit, ".")
	action, lane, _ := strings.Cut(rest, ".")
	u.Lane = lane
	if u.Step, err = strconv.Atoi(step); err == nil {
		u.Action, err = strconv.Atoi(action)
	}
	if err == nil {
		attempt, err = strconv.Atoi(count)
	}
	if err != nil {
		return u, 0, fmt.Errorf("'%.100s' names no attempt: %w", key, err)
	}
	return u, attempt, nil
}

func cutLast(text, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(text, sep); i >= 0 {
		return text[:i], text[i+len(sep):], true
	}
	return text, "", false
}

// Tree is the log tree of a deployment, still without log lines: the task, its
// steps, and in them the actions on their targets. times are those of the task.
func (s *State) Tree(task string, name string, state octopus.TaskState, started, ended time.Time) *octopus.Activity {
	root := &octopus.Activity{
		ID: task, Name: name, Status: taskStatus(state, s.Warnings),
		Started: octopus.OptionalTime(started), Ended: octopus.OptionalTime(ended), ShowAtSummaryLevel: true,
	}
	over := state.Completed()
	done := 0
	for i := range s.Plan.Steps {
		step := s.stepNode(task, i, over)
		if step.ProgressPercentage == 100 {
			done++
		}
		root.Children = append(root.Children, step)
	}
	switch {
	case over:
		root.ProgressPercentage = 100
	case len(s.Plan.Steps) > 0:
		root.ProgressPercentage = done * 100 / len(s.Plan.Steps)
	}
	return root
}

// title is how a step is called in a log.
func (s *Step) title() string {
	if s.Number == "" {
		return s.Name // none that people have made
	}
	return "Step " + s.Number + ": " + s.Name
}

func (s *State) stepNode(task string, i int, over bool) octopus.Activity {
	step, st := &s.Plan.Steps[i], s.Steps[i]
	node := octopus.Activity{
		ID: StepActivity(task, i), Name: step.title(),
		Status: octopus.ActivityPending, ShowAtSummaryLevel: true, Started: octopus.OptionalTime(st.At),
	}
	if st.Decided && !st.Run || !st.Decided && over {
		node.Status, node.ProgressPercentage, node.Ended = octopus.ActivitySkipped, 100, octopus.OptionalTime(st.At)
		return node
	}
	if !st.Decided {
		return node
	}
	over = over || s.stepOver(i)
	var c counts
	for _, lane := range s.lanes[i] {
		for a := range step.Actions {
			u := s.Unit(Unit{Step: i, Action: a, Lane: lane})
			child := s.unitNode(task, Unit{Step: i, Action: a, Lane: lane}, u, over || s.done[i][lane])
			c.add(child.Status)
			if child.Ended != nil && child.Ended.After(c.last) {
				c.last = child.Ended.Time
			}
			node.Children = append(node.Children, child)
		}
	}
	node.Status, node.ProgressPercentage = c.status(over)
	if node.ProgressPercentage == 100 {
		node.Ended = octopus.OptionalTime(c.last)
	}
	return node
}

// stepOver reports whether nothing more happens in a step, though it may have
// units that never run: those behind a failure, or on machines that were taken out.
func (s *State) stepOver(i int) bool {
	if i < s.over {
		return true
	}
	_, done := s.step(i)
	return done
}

// StepStatus is how a step of a running deployment goes, as its node in Tree says.
func (s *State) StepStatus(i int) octopus.ActivityStatus {
	step, st := &s.Plan.Steps[i], &s.Steps[i]
	switch {
	case !st.Decided:
		return octopus.ActivityPending
	case !st.Run:
		return octopus.ActivitySkipped
	}
	over := s.stepOver(i)
	var c counts
	for _, lane := range s.lanes[i] {
		for a := range step.Actions {
			c.add(unitStatus(s.Unit(Unit{Step: i, Action: a, Lane: lane}), over || s.done[i][lane]))
		}
	}
	status, _ := c.status(over)
	return status
}

// StepError is the message of the first failure in a step, "" for none.
func (s *State) StepError(i int) string {
	for _, lane := range s.lanes[i] {
		for a := range s.Plan.Steps[i].Actions {
			if u := s.Unit(Unit{Step: i, Action: a, Lane: lane}); u.Final && !u.Ignored && (u.Outcome == Failed || u.Outcome == Unknown) && u.Result != nil {
				return u.Result.Message
			}
		}
	}
	return ""
}

func (s *State) unitNode(task string, unit Unit, u UnitState, over bool) octopus.Activity {
	step := &s.Plan.Steps[unit.Step]
	name := step.Actions[unit.Action].Name
	if unit.Lane != "" {
		name += " on " + s.MachineName(unit.Lane)
	} else if step.Actions[unit.Action].Place == OnWorker {
		name += " on a Worker"
	}
	if u.Attempt > 1 {
		name += fmt.Sprintf(" (attempt %d)", u.Attempt)
	}
	node := octopus.Activity{ID: UnitActivity(task, unit), Name: name, Status: octopus.ActivityPending, Started: octopus.OptionalTime(u.Started), ShowAtSummaryLevel: true}
	node.Status = unitStatus(u, over)
	switch node.Status {
	case octopus.ActivityPending, octopus.ActivityRunning:
	default:
		node.ProgressPercentage = 100
		if u.Final {
			node.Ended = octopus.OptionalTime(u.Ended)
		}
	}
	return node
}

// unitStatus is how a unit goes; over tells that nothing more happens in its step.
func unitStatus(u UnitState, over bool) octopus.ActivityStatus {
	switch {
	case u.Final:
	case over && u.Attempt > 0:
		return octopus.ActivityCanceled
	case over:
		return octopus.ActivitySkipped
	case u.Attempt > 0 || u.Decided:
		return octopus.ActivityRunning
	default:
		return octopus.ActivityPending
	}
	switch u.Outcome {
	case Succeeded:
		if u.Result != nil && u.Result.Warnings {
			return octopus.ActivitySuccessWithWarning
		}
		return octopus.ActivitySuccess
	case Skipped:
		return octopus.ActivitySkipped
	case Canceled:
		return octopus.ActivityCanceled
	case Failed, Unknown:
		if u.Ignored {
			return octopus.ActivitySuccessWithWarning
		}
	}
	return octopus.ActivityFailed
}

func taskStatus(state octopus.TaskState, warnings bool) octopus.ActivityStatus {
	switch state {
	case octopus.TaskQueued:
		return octopus.ActivityPending
	case octopus.TaskExecuting, octopus.TaskCancelling:
		return octopus.ActivityRunning
	case octopus.TaskCanceled:
		return octopus.ActivityCanceled
	case octopus.TaskSuccess:
		if warnings {
			return octopus.ActivitySuccessWithWarning
		}
		return octopus.ActivitySuccess
	case octopus.TaskFailed, octopus.TaskTimedOut:
	}
	return octopus.ActivityFailed
}

// counts sums up the units of a step.
type counts struct {
	total, done, failed, canceled, skipped, warned int
	last                                           time.Time // when the last one ended
}

func (c *counts) add(status octopus.ActivityStatus) {
	c.total++
	c.done++
	switch status {
	case octopus.ActivityPending, octopus.ActivityRunning:
		c.done--
	case octopus.ActivityFailed:
		c.failed++
	case octopus.ActivityCanceled:
		c.canceled++
	case octopus.ActivitySkipped:
		c.skipped++
	case octopus.ActivitySuccessWithWarning:
		c.warned++
	case octopus.ActivitySuccess:
	}
}

// status is that of a step with these units.
func (c *counts) status(over bool) (octopus.ActivityStatus, int) {
	switch {
	case !over && c.done < c.total:
		return octopus.ActivityRunning, c.done * 100 / c.total
	case c.failed > 0:
		return octopus.ActivityFailed, 100
	case c.canceled > 0:
		return octopus.ActivityCanceled, 100
	case c.skipped == c.total:
		return octopus.ActivitySkipped, 100
	case c.warned > 0:
		return octopus.ActivitySuccessWithWarning, 100
	default:
		return octopus.ActivitySuccess, 100
	}
}
