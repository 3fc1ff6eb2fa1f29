package tasks

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Visible is what a caller may see of one space's tasks ("" is the system's).
type Visible struct {
	Space  ident.SpaceID
	Grants []resource.Grant // nil is everything, empty nothing
}

// Query asks for a page of tasks, newest first; those that have not ended come
// before those that have.
type Query struct {
	Visible []Visible
	IDs     []string // these only, when it is not nil
	States  []octopus.TaskState
	Names   []string
	// Active keeps tasks that have not ended; Running those that execute.
	Active, Running bool
	Project         []string
	Environment     []string
	Tenant          []string
	Runbook         []string
	Machine         []string // those that have to do with one of these machines
	Node            string   // an id or a name
	Partial         string   // a part of the description
	// Pending keeps tasks that have, or have not, a pending interruption;
	// Warnings those with, or without, warnings or errors.
	Pending, Warnings *bool
	From, To          time.Time // of the queue time
	Page              ident.Page
}

// NodePrefix begins the ids of nodes; their number follows.
const NodePrefix = "OctopusServerNodes"

// maxIDs bounds the ids of one query.
const maxIDs = 5000

// filter builds the condition of a statement.
type filter struct {
	where strings.Builder
	args  []any
}

func (f *filter) and(clause string, args ...any) {
	if f.where.Len() > 0 {
		f.where.WriteString(` AND `)
	}
	f.where.WriteString(clause)
	f.args = append(f.args, args...)
}

func placeholders(n int) string {
	return `(?` + strings.Repeat(`, ?`, n-1) + `)`
}

func anys[T ~string](list []T) []any {
	out := make([]any, len(list))
	for i, v := range list {
		out[i] = string(v)
	}
	return out
}

// anyOf keeps rows whose column has one of the values; nil keeps all, empty none.
func anyOf[T ~string](f *filter, column string, values []T) {
	switch {
	case values == nil:
	case len(values) == 0:
		f.and(`1 = 0`)
	default:
		values = values[:min(len(values), maxIDs)]
		f.and(column+` IN `+placeholders(len(values)), anys(values)...)
	}
}

// seen keeps what the caller may see. project, environment and tenant are columns.
func (f *filter) seen(visible []Visible, space, project, environment, tenant string) {
	var alternatives []string
	var args []any
	for _, v := range visible {
		if v.Grants == nil {
			alternatives = append(alternatives, `(`+space+` = ?)`)
			args = append(args, string(v.Space))
			continue
		}
		for _, g := range v.Grants {
			one := []string{space + ` = ?`}
			args = append(args, string(v.Space))
			for _, d := range []struct {
				column string
				ids    []string
			}{{project, g.Projects}, {environment, g.Environments}, {tenant, g.Tenants}} {
				if len(d.ids) > 0 {
					one = append(one, d.column+` IN `+placeholders(len(d.ids)))
					args = append(args, anys(d.ids)...)
				}
			}
			if len(g.ProjectGroups) > 0 {
				one = append(one, `EXISTS (SELECT 1 FROM document_index x WHERE x.kind = 'projects' AND x.field = 'ProjectGroupId' AND x.id = `+project+` AND x.value IN `+placeholders(len(g.ProjectGroups))+`)`)
				for _, id := range g.ProjectGroups {
					args = append(args, ident.Fold(id))
				}
			}
			alternatives = append(alternatives, `(`+strings.Join(one, ` AND `)+`)`)
		}
	}
	if len(alternatives) == 0 {
		f.and(`1 = 0`)
		return
	}
	f.and(`(`+strings.Join(alternatives, ` OR `)+`)`, args...)
}

func (q *Query) filter() *filter {
	f := &filter{}
	f.seen(q.Visible, `t.space_id`, `t.project_id`, `t.environment_id`, `t.tenant_id`)
	anyOf(f, `t.id`, q.IDs)
	anyOf(f, `t.state`, q.States)
	anyOf(f, `t.name`, q.Names)
	anyOf(f, `t.project_id`, q.Project)
	anyOf(f, `t.environment_id`, q.Environment)
	anyOf(f, `t.tenant_id`, q.Tenant)
	anyOf(f, `t.runbook_id`, q.Runbook)
	if len(q.Machine) > 0 {
		f.and(`t.id IN (SELECT x.task FROM task_machine x WHERE x.machine IN `+placeholders(len(q.Machine))+`)`, anys(q.Machine)...)
	}
	if q.Active {
		f.and(`t.state IN ` + unended)
	}
	if q.Running {
		f.and(`t.state IN ('Executing', 'Cancelling')`)
	}
	if q.Node != "" {
		seq := int64(0) // nobody's
		if head, _, _ := strings.Cut(q.Node, "-"); strings.EqualFold(head, NodePrefix) {
			seq, _ = ident.Seq(q.Node)
		}
		f.and(`(t.node = ? OR t.node IN (SELECT n.name FROM node_setting n WHERE lower(n.name) = ? OR n.seq = ?))`, q.Node, strings.ToLower(q.Node), seq)
	}
	if q.Partial != "" {
		f.and(`lower(t.description) LIKE ? ESCAPE '\'`, db.Containing(lowerASCII(q.Partial)))
	}
	if q.Pending != nil {
		f.and(not(*q.Pending) + `EXISTS (SELECT 1 FROM interruption i WHERE i.task = t.id AND i.pending = 1)`)
	}
	if q.Warnings != nil {
		f.and(`t.has_warnings = ?`, flag(*q.Warnings))
	}
	if !q.From.IsZero() {
		f.and(`t.queue_time >= ?`, db.Micros(q.From))
	}
	if !q.To.IsZero() {
		f.and(`t.queue_time <= ?`, db.Micros(q.To))
	}
	return f
}

// lowerASCII folds as both databases' lower() does here: letters of ASCII alone.
func lowerASCII(s string) string {
	return strings.Map(func(r rune) rune {
		if 'A' <= r && r <= 'Z' {
			return r + 'a' - 'A'
		}
		return r
	}, s)
}

func not(positive bool) string {
	if positive {
		return ``
	}
	return `NOT `
}

// unended are the states of tasks that have not ended.
const unended = `('Queued', 'Executing', 'Cancelling')`

// List returns a page of tasks, how many there are, and how many of each state.
func List(ctx context.Context, tx *db.Tx, q Query) (page []*Task, total int64, counts map[octopus.TaskState]int64, err error) {
	f := q.filter()
	if counts, err = countStates(ctx, tx, f); err != nil {
		return nil, 0, nil, err
	}
	before := int64(0) // those that have not ended
	for state, n := range counts {
		total += n
		if !state.Completed() {
			before += n
		}
	}
	p := q.Page.Clamp()
	// Two reads, so that each goes by an index: the few that have not ended by
	// their states, and the many that have from the newest on. The sum keeps the
	// first from going through the many, too, for the sake of the order.
	if p.Skip < before {
		if page, err = listPart(ctx, tx, f, `t.state IN `+unended+` ORDER BY t.seq + 0 DESC`, p.Take, p.Skip); err != nil {
			return nil, 0, nil, err
		}
	}
	if more := p.Take - int64(len(page)); more > 0 && p.Skip+int64(len(page)) < total {
		ended, err := listPart(ctx, tx, f, `t.state NOT IN `+unended+` ORDER BY t.seq DESC`, more, max(p.Skip-before, 0))
		if err != nil {
			return nil, 0, nil, err
		}
		page = append(page, ended...)
	}
	return page, total, counts, nil
}

func listPart(ctx context.Context, tx *db.Tx, f *filter, rest string, take, skip int64) ([]*Task, error) {
	args := append(slices.Clip(f.args), take, skip)
	rows, err := tx.Query(ctx, `SELECT `+taskColumns+` FROM task t WHERE `+f.where.String()+` AND `+rest+` LIMIT ? OFFSET ?`, args...)
	if err != nil {
		return nil, fmt.Errorf("list tasks: %w", err)
	}
	defer rows.Close()
	var part []*Task
	for rows.Next() {
		t, err := scanTask(rows.Scan)
		if err != nil {
			return nil, err
		}
		part = append(part, t)
	}
	return part, rows.Err()
}

func countStates(ctx context.Context, tx *db.Tx, f *filter) (map[octopus.TaskState]int64, error) {
	rows, err := tx.Query(ctx, `SELECT t.state, count(*) FROM task t WHERE `+f.where.String()+` GROUP BY t.state`, f.args...)
	if err != nil {
		return nil, fmt.Errorf("count tasks: %w", err)
	}
	defer rows.Close()
	counts := map[octopus.TaskState]int64{}
	for rows.Next() {
		var state octopus.TaskState
		var n int64
		if err := rows.Scan(&state, &n); err != nil {
			return nil, err
		}
		counts[state] = n
	}
	return counts, rows.Err()
}

// Pending lists the kinds of pending interruptions of tasks, by task.
func Pending(ctx context.Context, tx *db.Tx, ids []string) (map[string][]octopus.InterruptionType, error) {
	pending := map[string][]octopus.InterruptionType{}
	if len(ids) == 0 {
		return pending, nil
	}
	rows, err := tx.Query(ctx, `SELECT i.task, i.kind FROM interruption i WHERE i.pending = 1 AND i.task IN `+placeholders(len(ids))+` ORDER BY i.seq`, anys(ids)...)
	if err != nil {
		return nil, fmt.Errorf("look up interruptions: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var kind octopus.InterruptionType
		if err := rows.Scan(&id, &kind); err != nil {
			return nil, err
		}
		pending[id] = append(pending[id], kind)
	}
	return pending, rows.Err()
}

// InterruptionQuery asks for a page of interruptions, newest first.
type InterruptionQuery struct {
	Visible     []Visible
	IDs         []string
	Regarding   string // a task, deployment, project or environment
	PendingOnly bool
	Page        ident.Page
}

// Interruptions returns a page of interruptions and how many there are.
func Interruptions(ctx context.Context, tx *db.Tx, q InterruptionQuery) ([]*Interruption, int64, error) {
	f := &filter{}
	f.seen(q.Visible, `i.space_id`, `i.project_id`, `i.environment_id`, `i.tenant_id`)
	anyOf(f, `i.id`, q.IDs)
	if q.PendingOnly {
		f.and(`i.pending = 1`)
	}
	if q.Regarding != "" {
		f.and(`(i.task = ? OR i.project_id = ? OR i.environment_id = ? OR EXISTS (SELECT 1 FROM task t WHERE t.id = i.task AND t.arguments LIKE ? ESCAPE '\'))`,
			q.Regarding, q.Regarding, q.Regarding, db.Containing(`"`+q.Regarding+`"`))
	}
	return page(ctx, tx, f, q.Page, `interruption i`, interruptionColumns, `i.seq DESC`, scanInterruption)
}

// ArtifactQuery asks for a page of artifacts, newest first.
type ArtifactQuery struct {
	Visible   []Visible
	IDs       []string
	Regarding string // a task
	Page      ident.Page
}

// Artifacts returns a page of artifacts and how many there are. They are seen by
// who may see their task's project, environment and tenant.
func Artifacts(ctx context.Context, tx *db.Tx, q ArtifactQuery) ([]*Artifact, int64, error) {
	f := &filter{}
	f.seen(q.Visible, `t.space_id`, `t.project_id`, `t.environment_id`, `t.tenant_id`)
	anyOf(f, `a.id`, q.IDs)
	if q.Regarding != "" {
		f.and(`(a.task = ? OR t.arguments LIKE ? ESCAPE '\')`, q.Regarding, db.Containing(`"`+q.Regarding+`"`))
	}
	return page(ctx, tx, f, q.Page, `artifact a JOIN task t ON t.id = a.task`, artifactColumns, `a.seq DESC`, scanArtifact)
}

func page[T any](ctx context.Context, tx *db.Tx, f *filter, p ident.Page, from, columns, order string, scan func(func(...any) error) (*T, error)) ([]*T, int64, error) {
	var total int64
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM `+from+` WHERE `+f.where.String(), f.args...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count %s: %w", from, err)
	}
	p = p.Clamp()
	rows, err := tx.Query(ctx, `SELECT `+columns+` FROM `+from+` WHERE `+f.where.String()+` ORDER BY `+order+` LIMIT ? OFFSET ?`, append(f.args, p.Take, p.Skip)...)
	if err != nil {
		return nil, 0, fmt.Errorf("list %s: %w", from, err)
	}
	defer rows.Close()
	var all []*T
	for rows.Next() {
		one, err := scan(rows.Scan)
		if err != nil {
			return nil, 0, err
		}
		all = append(all, one)
	}
	return all, total, rows.Err()
}

// WaitReason says why a queued task does not run yet, in a sentence; "" when it
// is about to. ahead lists the tasks that it waits for. Neither names tasks that
// the reader may not see.
func (s *Service) WaitReason(ctx context.Context, tx *db.Tx, t *Task, visible []Visible) (reason string, ahead []string, err error) {
	if t.State != octopus.TaskQueued && !t.Waiting {
		return "", nil, nil
	}
	if t.Waiting {
		children, err := openChildren(ctx, tx, t.ID)
		if err != nil || len(children) == 0 {
			return "Waiting for a person to answer an interruption.", nil, err
		}
		seen, err := among(ctx, tx, Query{Visible: visible, IDs: children}, `1 = 1`)
		if err != nil || len(seen) == 0 {
			return "Waiting for the deployments that its steps have started.", nil, err
		}
		return "Waiting for the deployments that its steps have started: " + strings.Join(seen, ", ") + ".", seen, nil
	}
	if t.QueueTime.After(tx.Now()) {
		return "Scheduled to start at " + t.QueueTime.Format(time.RFC3339) + ".", nil, nil
	}
	var stopped int64
	err = tx.QueryRow(ctx, `SELECT count(*) FROM document_index x WHERE x.kind = 'spaces' AND x.field = 'TaskQueueStopped' AND x.value = 'true' AND x.id = ?`, string(t.Space)).Scan(&stopped)
	if err != nil {
		return "", nil, fmt.Errorf("read whether the queue of %s is stopped: %w", t.Space, err)
	}
	if stopped > 0 {
		return "The task queue of the space is stopped.", nil, nil
	}
	if t.Tag != "" {
		var holder string
		err := tx.QueryRow(ctx, `SELECT h.task FROM tag_holder h WHERE h.tag = ? AND h.task <> ?`, t.Tag, t.ID).Scan(&holder)
		if err == nil {
			seen, err := among(ctx, tx, Query{Visible: visible}, `t.id = ?`, holder)
			return "Waiting for " + cmp.Or(strings.Join(seen, ""), "another task") + ", which works on the same (" + t.Tag + ").", seen, err
		}
		if !isNoRows(err) {
			return "", nil, err
		}
	}
	g, err := s.gates(ctx, tx)
	if err != nil || g.free > 0 && !g.draining {
		return "", nil, err
	}
	ahead, err = among(ctx, tx, Query{Visible: visible}, `t.id IN (SELECT s.task FROM slot s WHERE s.node = ?)`, s.cfg.Node)
	return "Waiting for a free slot: this node runs as many tasks as it may, or is drained.", ahead, err
}

// among lists the tasks of a query of which a condition holds, at most a hundred.
func among(ctx context.Context, tx *db.Tx, q Query, condition string, args ...any) ([]string, error) {
	f := q.filter()
	f.and(condition, args...)
	rows, err := tx.Query(ctx, `SELECT t.id FROM task t WHERE `+f.where.String()+` ORDER BY t.seq LIMIT 100`, f.args...)
	if err != nil {
		return nil, fmt.Errorf("look for tasks that are ahead: %w", err)
	}
	defer rows.Close()
	var seen []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		seen = append(seen, id)
	}
	return seen, rows.Err()
}
