package tasks

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/health"
	"github.com/takodeploy/tako/internal/renewal"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// maxTreeLines is how many lines a log tree has at most, and maxTreeBytes how long
// their texts are together, since one line may have 256 KiB. The raw log has all.
const (
	maxTreeLines = 20000
	maxTreeBytes = 8 << 20
)

// tailing keeps the last lines of a log that fit into maxTreeBytes.
type tailing struct {
	lines []tasks.Line
	bytes int
}

func (t *tailing) add(l tasks.Line) {
	t.lines = append(t.lines, l)
	t.bytes += len(l.Text) + len(l.Detail)
	for t.bytes > maxTreeBytes && len(t.lines) > 1 {
		t.bytes -= len(t.lines[0].Text) + len(t.lines[0].Detail)
		t.lines[0] = tasks.Line{} // its text need not wait for the array
		t.lines = t.lines[1:]
	}
}

// tree is a task with the nodes of its log, still without lines.
type tree struct {
	task *tasks.Task
	doc  octopus.Task
	root *octopus.Activity
	wait string
}

func (a *api) tree(r *rest.Request) (*tree, error) {
	visible, err := seen(r, view)
	if err != nil {
		return nil, err
	}
	var t tree
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		var err error
		if t.task, err = a.find(r, tx); err != nil {
			return err
		}
		docs, err := Documents(r.Context(), tx, r, []*tasks.Task{t.task})
		if err != nil {
			return err
		}
		t.doc = docs[0]
		if t.wait, _, err = a.queue.WaitReason(r.Context(), tx, t.task, visible); err != nil {
			return err
		}
		t.root, err = nodes(r.Context(), tx, t.task)
		return err
	})
	return &t, err
}

// nodes folds the journal of a deployment or of a task about machines; other tasks have a root alone.
func nodes(ctx context.Context, tx *db.Tx, t *tasks.Task) (*octopus.Activity, error) {
	switch t.Name {
	case octopus.TaskHealth:
		return health.Tree(ctx, tx, t)
	case octopus.TaskUpgrade:
		return renewal.Tree(ctx, tx, t)
	default:
	}
	var plan deploy.Plan
	if t.Name == octopus.TaskDeploy || t.Name == octopus.TaskRunbookRun || t.Name == octopus.TaskAdHocScript {
		if err := tasks.Plan(ctx, tx, t.ID, &plan); err != nil {
			return nil, err
		}
	}
	rows, err := tasks.Journal(ctx, tx, t.ID)
	if err != nil {
		return nil, err
	}
	facts := make([]deploy.Fact, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal(row.Body, &facts[i]); err != nil {
			return nil, fmt.Errorf("read fact %d of %s: %w", row.Seq, t.ID, err)
		}
	}
	state, err := deploy.Fold(&plan, facts)
	if err != nil {
		// A damaged journal: its task has failed with the reason, and its lines
		// are still worth reading.
		state = deploy.NewState(&deploy.Plan{})
	}
	return state.Tree(t.ID, t.Description, t.State, t.Started, t.Completed), nil
}

func (a *api) details(r *rest.Request) (any, error) {
	verbose, err := r.QueryBool("verbose", true)
	if err != nil {
		return nil, err
	}
	tail, err := r.QueryInt("tail", maxTreeLines)
	if err != nil {
		return nil, err
	}
	t, err := a.tree(r)
	if err != nil {
		return nil, err
	}
	byID := map[string]*octopus.Activity{}
	index(t.root, byID)
	from := tasks.TailStart(t.task.LogLines, min(tail, maxTreeLines))
	var last tailing
	err = a.queue.ReadLog(r.Context(), t.task.ID, from, func(l tasks.Line) bool {
		last.add(l)
		return true
	})
	if err != nil {
		return nil, err
	}
	if len(last.lines) > 0 {
		from = last.lines[0].Number
	}
	if from > 1 {
		t.root.LogElements = append(t.root.LogElements, octopus.LogElement{
			Category: octopus.LogGap, OccurredAt: octopus.NewTime(t.task.Started), MessageText: fmt.Sprintf("%d earlier lines are left out; the raw log has all of them.", from-1),
		})
	}
	if t.wait != "" {
		t.root.LogElements = append(t.root.LogElements, octopus.LogElement{Category: octopus.LogWait, OccurredAt: octopus.NewTime(t.task.QueueTime), MessageText: t.wait})
	}
	for _, l := range last.lines {
		node := byID[l.Activity]
		if node == nil {
			node = t.root
		}
		if verbose || l.Category != octopus.LogVerbose && l.Category != octopus.LogTrace {
			node.LogElements = append(node.LogElements, element(l))
		}
	}
	details := octopus.TaskDetails{
		Task: t.doc, ActivityLogs: octopus.List[octopus.Activity]{*t.root}, PhysicalLogSize: t.task.LogBytes,
		Progress: octopus.TaskProgress{ProgressPercentage: t.root.ProgressPercentage},
	}
	details.ID, details.Links = t.doc.ID, t.doc.Links
	return details, nil
}

func index(node *octopus.Activity, byID map[string]*octopus.Activity) {
	byID[node.ID] = node
	for i := range node.Children {
		index(&node.Children[i], byID)
	}
}

func element(l tasks.Line) octopus.LogElement {
	return octopus.LogElement{Category: l.Category, OccurredAt: octopus.NewTime(l.At), MessageText: l.Text, Detail: octopus.NullString(l.Detail), Number: l.Number}
}

// raw streams the whole log, one line of text for each.
func (a *api) raw(r *rest.Request) (any, error) {
	t, err := a.tree(r)
	if err != nil {
		return nil, err
	}
	names := map[string]string{}
	name(t.root, "", names)
	reader, writer := io.Pipe()
	go func() {
		w := bufio.NewWriterSize(writer, 64*1024)
		fmt.Fprintf(w, "Task ID:        %s\nTask:           %s\nTask status:    %s\nTask queued:    %s\n", t.task.ID, t.task.Description, t.task.State, t.task.QueueTime.Format(time.RFC3339))
		if !t.task.Started.IsZero() {
			fmt.Fprintf(w, "Task started:   %s\n", t.task.Started.Format(time.RFC3339))
		}
		if !t.task.Completed.IsZero() {
			fmt.Fprintf(w, "Task completed: %s\nTask duration:  %s\n", t.task.Completed.Format(time.RFC3339), t.doc.Duration)
		}
		fmt.Fprint(w, "\n")
		last := ""
		err := a.queue.ReadLog(r.Context(), t.task.ID, 1, func(l tasks.Line) bool {
			if l.Activity != last {
				last = l.Activity
				fmt.Fprintf(w, "                    | == %s ==\n", names[l.Activity])
			}
			_, err := fmt.Fprintf(w, "%s   %-8s |   %s\n", l.At.Format("15:04:05"), l.Category, l.Text)
			return err == nil
		})
		if err == nil {
			err = w.Flush()
		}
		writer.CloseWithError(err)
	}()
	return rest.Raw{ContentType: "text/plain; charset=utf-8", Content: reader}, nil
}

func name(node *octopus.Activity, path string, names map[string]string) {
	names[node.ID] = path + node.Name
	for i := range node.Children {
		name(&node.Children[i], "", names)
	}
}

// liveLine is a line of the log as the live tail sends it.
type liveLine struct {
	octopus.LogElement
	ActivityID string `json:"ActivityId"`
}

// follow sends the log as it is committed, then the end of the task. The number
// of a line is its event's id, so that a listener goes on where it was cut off,
// on whichever node.
func (a *api) follow(r *rest.Request) (any, error) {
	t, err := a.tree(r)
	if err != nil {
		return nil, err
	}
	from, err := r.QueryInt("from", 1)
	if err != nil {
		return nil, err
	}
	if last, err := strconv.ParseInt(r.Header.Get("Last-Event-ID"), 10, 64); err == nil && last > 0 {
		from = last + 1
	}
	return rest.Stream(func(ctx context.Context, send func(rest.Event) error) error {
		return a.tail(ctx, t.task.ID, from, send)
	}), nil
}

func (a *api) tail(ctx context.Context, id string, from int64, send func(rest.Event) error) error {
	woken, stop := a.queue.Follow(id)
	defer stop()
	changes := a.db.Subscribe()
	defer changes.Close()
	for {
		var t *tasks.Task
		err := a.db.Read(ctx, func(tx *db.Tx) (err error) {
			t, err = tasks.Get(ctx, tx, id)
			return err
		})
		if err != nil {
			return err
		}
		var sendErr error
		if t.LogLines >= from {
			err = a.queue.ReadLog(ctx, id, from, func(l tasks.Line) bool {
				sendErr = send(rest.Event{ID: strconv.FormatInt(l.Number, 10), Name: "line", Data: liveLine{element(l), l.Activity}})
				from = l.Number + 1
				return sendErr == nil
			})
		}
		if err != nil || sendErr != nil {
			return firstOf(sendErr, err)
		}
		if t.State.Completed() {
			return send(rest.Event{Name: "end", Data: map[string]any{"State": t.State}})
		}
		select {
		case <-ctx.Done():
			return nil
		case <-woken:
		case <-changes.C:
		}
	}
}

func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
