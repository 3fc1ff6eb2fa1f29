// Package tasks is the durable queue and everything of a task that outlives the
// process that runs it: its lease, its journal, its log, the gates it passes and
// the locks it holds.
//
// A task is a row. A node claims it when its gates open (the node's capacity, the
// task's concurrency tag, its space's queue) and from then on holds a Lease: a
// pair of owner and epoch that every transaction of the engine checks under the
// task's row lock, while the journal's numbers keep two writers from ever
// appending side by side. A dead owner's tasks are taken over and resumed, never
// failed. The package runs no task itself: app gives it a table of Runners.
package tasks

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// Task is a row of the queue.
type Task struct {
	ID          string
	Seq         int64
	Space       ident.SpaceID
	Name        octopus.TaskName
	Description string
	Arguments   map[string]json.RawMessage
	State       octopus.TaskState
	// Waiting tells that only a person can bring the task further: it is
	// Executing for clients, and holds neither owner nor slot.
	Waiting bool
	// Priority tasks go before all others.
	Priority  bool
	QueueTime time.Time // not before then
	Expiry    time.Time // given up if not started by then; zero is never
	Started   time.Time
	Completed time.Time
	Updated   time.Time
	// Error is why the task failed, for people.
	Error       string
	HasWarnings bool
	// Tag is the concurrency tag: tasks of one tag run one after another. "" has no such limit.
	Tag                                                   string
	ProjectID, EnvironmentID, TenantID, RunbookID, UserID string
	Node                                                  string // the name of the node that ran it last
	CancelAt                                              time.Time
	LogLines, LogBytes                                    int64
	Plan                                                  json.RawMessage // the runner's; immutable

	owner    string
	epoch    int64
	resumes  int64
	runnable bool
}

const taskColumns = `t.id, t.seq, t.space_id, t.name, t.description, t.arguments, t.state, t.waiting, t.priority, t.queue_time, t.expiry,
	t.start_time, t.completed_time, t.updated_time, t.error, t.has_warnings, t.tag, t.project_id, t.environment_id, t.tenant_id,
	t.runbook_id, t.user_id, t.node, t.cancel_at, t.log_lines, t.log_bytes, t.owner, t.epoch, t.resumes, t.runnable`

func scanTask(scan func(...any) error) (*Task, error) {
	var t Task
	var arguments string
	var waiting, priority, warnings, runnable int64
	var queue, expiry, started, completed, updated, cancelAt int64
	err := scan(
		&t.ID, &t.Seq, &t.Space, &t.Name, &t.Description, &arguments, &t.State, &waiting, &priority, &queue, &expiry,
		&started, &completed, &updated, &t.Error, &warnings, &t.Tag, &t.ProjectID, &t.EnvironmentID, &t.TenantID,
		&t.RunbookID, &t.UserID, &t.Node, &cancelAt, &t.LogLines, &t.LogBytes, &t.owner, &t.epoch, &t.resumes, &runnable,
	)
	if err != nil {
		return nil, err
	}
	t.Waiting, t.Priority, t.HasWarnings, t.runnable = waiting != 0, priority != 0, warnings != 0, runnable != 0
	t.QueueTime, t.Expiry, t.Started = db.Time(queue), db.Time(expiry), db.Time(started)
	t.Completed, t.Updated, t.CancelAt = db.Time(completed), db.Time(updated), db.Time(cancelAt)
	if err := json.Unmarshal([]byte(arguments), &t.Arguments); err != nil {
		return nil, fmt.Errorf("arguments of %s: %w", t.ID, err)
	}
	return &t, nil
}

// Argument returns a text argument of the task, "" when it has none.
func (t *Task) Argument(name string) string {
	var s string
	if json.Unmarshal(t.Arguments[name], &s) != nil {
		return ""
	}
	return s
}

// New is a task to be queued.
type New struct {
	Space                                                 ident.SpaceID
	Name                                                  octopus.TaskName
	Description                                           string
	Arguments                                             map[string]any
	Priority                                              bool
	QueueTime, Expiry                                     time.Time // zero: now, never
	Tag                                                   string
	ProjectID, EnvironmentID, TenantID, RunbookID, UserID string
	Plan                                                  any // stored as JSON for the runner
	// Machines are the ids of those that the task has to do with, by which it is found.
	Machines []string
}

// Create queues a task in the caller's transaction; nodes hear of it at commit.
func (s *Service) Create(ctx context.Context, tx *db.Tx, n New) (*Task, error) {
	seq, err := tx.NextSeq(ctx, "ServerTasks")
	if err != nil {
		return nil, err
	}
	if n.Arguments == nil {
		n.Arguments = map[string]any{}
	}
	arguments, err := json.Marshal(n.Arguments)
	if err != nil {
		return nil, fmt.Errorf("arguments of a task: %w", err)
	}
	plan, err := json.Marshal(n.Plan)
	if err != nil {
		return nil, fmt.Errorf("plan of a task: %w", err)
	}
	queue := n.QueueTime
	if queue.IsZero() {
		queue = tx.Now()
	}
	id := ident.ID("ServerTasks", seq)
	_, err = tx.Exec(ctx, `INSERT INTO task (id, seq, space_id, name, description, arguments, state, runnable, waiting, priority, queue_time, expiry,
		start_time, completed_time, updated_time, error, has_warnings, tag, project_id, environment_id, tenant_id, runbook_id, user_id,
		node, owner, db_incarnation, epoch, resumes, cancel_at, plan, log_lines, log_bytes)
		VALUES (?, ?, ?, ?, ?, ?, 'Queued', 1, 0, ?, ?, ?, 0, 0, ?, '', 0, ?, ?, ?, ?, ?, ?, '', '', '', 0, 0, 0, ?, 0, 0)`,
		id, seq, string(n.Space), string(n.Name), n.Description, string(arguments), flag(n.Priority), db.Micros(queue), db.Micros(n.Expiry),
		db.Micros(tx.Now()), n.Tag, n.ProjectID, n.EnvironmentID, n.TenantID, n.RunbookID, n.UserID, string(plan))
	if err != nil {
		return nil, fmt.Errorf("queue task: %w", err)
	}
	for some := range slices.Chunk(n.Machines, maxIDs) {
		values := make([]any, 0, 2*len(some))
		for _, machine := range some {
			values = append(values, machine, id)
		}
		_, err = tx.Exec(ctx, `INSERT INTO task_machine (machine, task) VALUES (?, ?)`+strings.Repeat(`, (?, ?)`, len(some)-1)+` ON CONFLICT DO NOTHING`, values...)
		if err != nil {
			return nil, fmt.Errorf("note the machines of %s: %w", id, err)
		}
	}
	tx.Changed("tasks")
	tx.AfterCommit(s.wake)
	return Get(ctx, tx, id)
}

// ProjectGroup returns the id of the group that a project is in, folded as ids are
// compared; "" for no project, or one that is gone.
func ProjectGroup(ctx context.Context, tx *db.Tx, project string) (string, error) {
	if project == "" {
		return "", nil
	}
	groups, err := ProjectGroups(ctx, tx, []string{project})
	return groups[project], err
}

// ProjectGroups is ProjectGroup for many projects in one statement: group by project.
func ProjectGroups(ctx context.Context, tx *db.Tx, projects []string) (map[string]string, error) {
	groups := map[string]string{}
	if len(projects) == 0 {
		return groups, nil
	}
	rows, err := tx.Query(ctx, `SELECT x.id, x.value FROM document_index x WHERE x.kind = 'projects' AND x.field = 'ProjectGroupId' AND x.id IN `+placeholders(len(projects)), anys(projects)...)
	if err != nil {
		return nil, fmt.Errorf("look up the groups of projects: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var project, group string
		if err := rows.Scan(&project, &group); err != nil {
			return nil, err
		}
		groups[project] = group
	}
	return groups, rows.Err()
}

func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

// Get returns a task without its plan.
func Get(ctx context.Context, tx *db.Tx, id string) (*Task, error) {
	t, err := scanTask(tx.QueryRow(ctx, `SELECT `+taskColumns+` FROM task t WHERE t.id = ?`, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.Missing("task", id)
	}
	if err != nil {
		return nil, fmt.Errorf("read task %s: %w", id, err)
	}
	return t, nil
}

// Plan decodes a task's plan into v.
func Plan(ctx context.Context, tx *db.Tx, id string, v any) error {
	var plan string
	err := tx.QueryRow(ctx, `SELECT t.plan FROM task t WHERE t.id = ?`, id).Scan(&plan)
	if errors.Is(err, sql.ErrNoRows) {
		return fault.Missing("task", id)
	}
	if err != nil {
		return fmt.Errorf("read plan of %s: %w", id, err)
	}
	return json.Unmarshal([]byte(plan), v)
}

// Fact is an entry of a task's journal, opaque here.
type Fact struct {
	Seq   int64
	Epoch int64
	Body  json.RawMessage
}

// Journal returns all facts of a task in order.
func Journal(ctx context.Context, tx *db.Tx, id string) ([]Fact, error) {
	rows, err := tx.Query(ctx, `SELECT j.seq, j.epoch, j.fact FROM journal j WHERE j.task = ? ORDER BY j.seq`, id)
	if err != nil {
		return nil, fmt.Errorf("read journal of %s: %w", id, err)
	}
	defer rows.Close()
	var facts []Fact
	for rows.Next() {
		var f Fact
		var body string
		if err := rows.Scan(&f.Seq, &f.Epoch, &body); err != nil {
			return nil, err
		}
		f.Body = json.RawMessage(body)
		facts = append(facts, f)
	}
	return facts, rows.Err()
}

// Cancel asks a task to end. One that has not started, or waits for a person and
// runs nothing, is Canceled at once or by the next node that looks; a running one
// is Cancelling until its scripts have ended, at most CancelBound.
func (s *Service) Cancel(ctx context.Context, tx *db.Tx, id string) (*Task, error) {
	t, err := scanTask(tx.QueryRow(ctx, `SELECT `+taskColumns+` FROM task t WHERE t.id = ?`+tx.ForUpdate(), id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.Missing("task", id)
	}
	if err != nil {
		return nil, fmt.Errorf("read task %s: %w", id, err)
	}
	now := db.Micros(tx.Now())
	switch t.State {
	case octopus.TaskQueued:
		_, err = tx.Exec(ctx, `UPDATE task SET state = 'Canceled', runnable = 0, completed_time = ?, updated_time = ?, error = 'The task was canceled before it started.' WHERE id = ?`, now, now, id)
		if err == nil {
			err = s.ended(ctx, tx, t, octopus.TaskCanceled)
		}
	case octopus.TaskExecuting:
		clock, clockErr := s.clock(ctx, tx)
		if clockErr != nil {
			return nil, clockErr
		}
		// One that waits for a person is claimed by whoever is free: ending it takes no slot.
		_, err = tx.Exec(ctx, `UPDATE task SET state = 'Cancelling', cancel_at = ?, updated_time = ?,
			runnable = CASE WHEN waiting = 1 THEN 1 ELSE runnable END, waiting = 0 WHERE id = ?`, clock, now, id)
	case octopus.TaskCancelling:
	case octopus.TaskCanceled, octopus.TaskFailed, octopus.TaskSuccess, octopus.TaskTimedOut:
		return nil, fault.New(fault.Conflict, "The task '%s' has ended already (%s); only a queued or executing task can be canceled.", id, t.State)
	}
	if err != nil {
		return nil, fmt.Errorf("cancel %s: %w", id, err)
	}
	tx.Changed("tasks")
	tx.AfterCommit(func() { s.cancelled(id) })
	return Get(ctx, tx, id)
}
