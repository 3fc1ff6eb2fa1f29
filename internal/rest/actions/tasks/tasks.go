// Package tasks serves the queue: tasks, their logs, artifacts, and the
// interruptions that wait for people.
package tasks

import (
	"context"
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/orchestrator"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Permissions on tasks and what hangs on them.
const (
	view         = "TaskView"
	create       = "TaskCreate"
	cancel       = "TaskCancel"
	edit         = "TaskEdit"
	prioritize   = "TaskPrioritize"
	viewArtifact = "ArtifactView"
	viewAsked    = "InterruptionView"
	answer       = "InterruptionSubmit"
	// answerResponsible is for members of the teams that an interruption names.
	answerResponsible = "InterruptionViewSubmitResponsible"
)

type api struct {
	db      *db.DB
	store   *docstore.Store
	queue   *tasks.Service
	service *releases.Service
	blobs   orchestrator.Blobs
}

// Routes are the operations on tasks, artifacts and interruptions.
func Routes(d *db.DB, store *docstore.Store, queue *tasks.Service, service *releases.Service, blobs orchestrator.Blobs) []rest.Route {
	a := &api{d, store, queue, service, blobs}
	task := reflect.TypeFor[octopus.Task]()
	paged := []rest.Param{{Name: "skip", Type: rest.Number, About: "how many to leave out"}, {Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"}, {Name: "ids", Type: rest.List, About: "only these"}}
	text := func(name, about string) rest.Param { return rest.Param{Name: name, Type: rest.List, About: about} }
	list := append(paged[:3:3],
		text("states", "only those in one of these states"), text("name", "only those of these types"), text("project", "only those of these projects"),
		text("environment", "only those of these environments"), text("tenant", "only those of these tenants"), text("runbook", "only those of these runbooks"),
		text("node", "only those of this node"), text("partialName", "only those with this in their description"), text("spaces", "only those of these spaces"),
		rest.Param{Name: "active", Type: rest.Boolean, About: "only those that have not ended"},
		rest.Param{Name: "running", Type: rest.Boolean, About: "only those that execute"},
		rest.Param{Name: "hasPendingInterruptions", Type: rest.Boolean, About: "only those that wait for a person, or do not"},
		rest.Param{Name: "hasWarningsOrErrors", Type: rest.Boolean, About: "only those with warnings or errors, or without"},
		rest.Param{Name: "includeSystem", Type: rest.Boolean, About: "with those of the system; true unless said"},
		rest.Param{Name: "fromQueueTime", Type: rest.Moment, About: "only those queued from then on"},
		rest.Param{Name: "toQueueTime", Type: rest.Moment, About: "only those queued until then"})
	logged := []rest.Param{{Name: "verbose", Type: rest.Boolean, About: "with verbose lines; true unless said"}, {Name: "tail", Type: rest.Number, About: "how many of the last lines"}}
	return append(a.editRoutes(), []rest.Route{
		{Method: http.MethodGet, Pattern: "/tasks", Mount: rest.InEither, Permission: view, Handler: a.list, Query: list, Response: reflect.TypeFor[octopus.TaskPage](), Summary: "Lists tasks, those that have not ended first."},
		{Method: http.MethodGet, Pattern: "/tasks/taskTypes", Mount: rest.InEither, Permission: rest.SignedIn, Handler: a.types, Response: reflect.TypeFor[[]octopus.TaskType](), Summary: "Lists the types of tasks."},
		{Method: http.MethodGet, Pattern: "/tasks/{id}", Mount: rest.InEither, Permission: view, Handler: a.get, Response: task, Summary: "Reads a task."},
		{Method: http.MethodGet, Pattern: "/tasks/{id}/details", Mount: rest.InEither, Permission: view, Handler: a.details, Query: logged, Response: reflect.TypeFor[octopus.TaskDetails](), Summary: "Reads a task with its log as a tree."},
		{Method: http.MethodGet, Pattern: "/tasks/details/{id}", Mount: rest.InEither, Permission: view, Handler: a.details, Query: logged, Response: reflect.TypeFor[octopus.TaskDetails](), Summary: "Reads a task with its log as a tree, by its older path."},
		{Method: http.MethodGet, Pattern: "/tasks/{id}/raw", Mount: rest.InEither, Permission: view, Handler: a.raw, ContentType: "text/plain", Summary: "Reads the whole log of a task as text."},
		{Method: http.MethodGet, Pattern: "/tasks/{id}/log", Mount: rest.InEither, Permission: view, Handler: a.follow, Streams: true, ContentType: "text/event-stream", Query: []rest.Param{{Name: "from", Type: rest.Number, About: "the number of the first line"}}, Summary: "Follows the log of a task live, as server-sent events."},
		{Method: http.MethodPost, Pattern: "/tasks/{id}/cancel", Mount: rest.InEither, Permission: cancel, Handler: a.cancel, Response: task, Summary: "Asks a task to end."},
		{Method: http.MethodGet, Pattern: "/tasks/{id}/queued-behind", Mount: rest.InEither, Permission: view, Handler: a.behind, Response: reflect.TypeFor[octopus.Page[octopus.Task]](), Query: paged, Summary: "Lists the tasks that a queued task waits for."},

		{Method: http.MethodGet, Pattern: "/artifacts", Mount: rest.InSpace, Permission: viewArtifact, Handler: a.artifacts, Response: reflect.TypeFor[octopus.Page[octopus.Artifact]](), Query: append(paged[:3:3], text("regarding", "only those of this task or deployment")), Summary: "Lists artifacts, newest first."},
		{Method: http.MethodGet, Pattern: "/artifacts/{id}", Mount: rest.InSpace, Permission: viewArtifact, Handler: a.artifact, Response: reflect.TypeFor[octopus.Artifact](), Summary: "Reads an artifact."},
		{Method: http.MethodGet, Pattern: "/artifacts/{id}/content", Mount: rest.InSpace, Permission: viewArtifact, Handler: a.content, ContentType: "application/octet-stream", Summary: "Fetches the file of an artifact."},

		{Method: http.MethodGet, Pattern: "/interruptions", Mount: rest.InSpace, Permission: viewAsked, Handler: a.interruptions, Response: reflect.TypeFor[octopus.Page[octopus.Interruption]](), Query: append(paged[:3:3], text("regarding", "only those of this document"), rest.Param{Name: "pendingOnly", Type: rest.Boolean, About: "only those that wait for an answer"}), Summary: "Lists interruptions, newest first."},
		{Method: http.MethodGet, Pattern: "/interruptions/{id}", Mount: rest.InSpace, Permission: viewAsked, Handler: a.interruption, Response: reflect.TypeFor[octopus.Interruption](), Summary: "Reads an interruption."},
		{Method: http.MethodGet, Pattern: "/interruptions/{id}/responsible", Mount: rest.InSpace, Permission: viewAsked, Handler: a.responsible, Summary: "Reads who has taken on an interruption."},
		{Method: http.MethodPut, Pattern: "/interruptions/{id}/responsible", Mount: rest.InSpace, Permission: viewAsked, Handler: a.take, Summary: "Takes on an interruption."},
		{Method: http.MethodPost, Pattern: "/interruptions/{id}/submit", Mount: rest.InSpace, Permission: viewAsked, Handler: a.submit, Response: reflect.TypeFor[octopus.Interruption](), Summary: "Answers an interruption."},
	}...)
}

// seen is what the caller may see with a permission: of the path's space, or
// where it names none, of every space and the system.
func seen(r *rest.Request, permission string) ([]tasks.Visible, error) {
	if r.Space != "" {
		return []tasks.Visible{{Space: r.Space, Grants: r.Grants(permission)}}, nil
	}
	spaces, err := r.Spaces(permission)
	if err != nil {
		return nil, err
	}
	system, err := r.QueryBool("includeSystem", true)
	if err != nil {
		return nil, err
	}
	only, err := r.QueryList("spaces")
	if err != nil {
		return nil, err
	}
	var all []tasks.Visible
	for _, id := range spaces {
		switch {
		case id == "" && !system:
		case id != "" && len(only) > 0 && !containsFold(only, string(id)):
		default:
			all = append(all, tasks.Visible{Space: id, Grants: r.GrantsIn(id, permission)})
		}
	}
	return all, nil
}

func containsFold(list []string, want string) bool {
	for _, one := range list {
		if strings.EqualFold(one, want) {
			return true
		}
	}
	return false
}

func (a *api) query(r *rest.Request) (tasks.Query, error) {
	var q tasks.Query
	var err error
	step := func(fn func() error) {
		if err == nil {
			err = fn()
		}
	}
	listOf := func(name string, to *[]string) {
		step(func() (err error) {
			if r.HasQuery(name) {
				*to, err = r.QueryList(name)
			}
			return err
		})
	}
	step(func() (err error) { q.Visible, err = seen(r, view); return err })
	step(func() (err error) { q.Page, err = r.Page(); return err })
	listOf("ids", &q.IDs)
	listOf("name", &q.Names)
	listOf("project", &q.Project)
	listOf("environment", &q.Environment)
	listOf("tenant", &q.Tenant)
	listOf("runbook", &q.Runbook)
	var states []string
	listOf("states", &states)
	for _, s := range states {
		q.States = append(q.States, octopus.TaskState(s))
	}
	step(func() (err error) { q.Active, err = r.QueryBool("active", false); return err })
	step(func() (err error) { q.Running, err = r.QueryBool("running", false); return err })
	for name, to := range map[string]**bool{"hasPendingInterruptions": &q.Pending, "hasWarningsOrErrors": &q.Warnings} {
		if r.HasQuery(name) {
			step(func() error { b, err := r.QueryBool(name, false); *to = &b; return err })
		}
	}
	step(func() (err error) { q.From, err = r.QueryTime("fromQueueTime"); return err })
	step(func() (err error) { q.To, err = r.QueryTime("toQueueTime"); return err })
	q.Node, q.Partial = r.Query("node"), r.Query("partialName")
	return q, err
}

func (a *api) list(r *rest.Request) (any, error) {
	q, err := a.query(r)
	if err != nil {
		return nil, err
	}
	var docs []octopus.Task
	var total int64
	var counts map[octopus.TaskState]int64
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		var found []*tasks.Task
		if found, total, counts, err = tasks.List(r.Context(), tx, q); err != nil {
			return err
		}
		docs, err = Documents(r.Context(), tx, r, found)
		return err
	})
	if err != nil {
		return nil, err
	}
	return octopus.TaskPage{Page: rest.PageOf(r, "Task", q.Page, total, docs), TotalCounts: octopus.TaskCounts{
		Canceled: counts[octopus.TaskCanceled], Cancelling: counts[octopus.TaskCancelling], Executing: counts[octopus.TaskExecuting],
		Failed: counts[octopus.TaskFailed], Queued: counts[octopus.TaskQueued], Success: counts[octopus.TaskSuccess], TimedOut: counts[octopus.TaskTimedOut],
	}}, nil
}

func (a *api) types(*rest.Request) (any, error) {
	return octopus.List[octopus.TaskType]{
		{ID: string(octopus.TaskDeploy), Name: "Deploy"},
		{ID: string(octopus.TaskRunbookRun), Name: "Run a runbook"},
		{ID: string(octopus.TaskHealth), Name: "Health check"},
		{ID: string(octopus.TaskAdHocScript), Name: "Run a script"},
		{ID: string(octopus.TaskRetention), Name: "Retention"},
		{ID: string(octopus.TaskBackup), Name: "Backup"},
		{ID: string(octopus.TaskClone), Name: "Make a test instance"},
		{ID: string(octopus.TaskSystemIntegrityCheck), Name: "System integrity check"},
		{ID: string(octopus.TaskUpgrade), Name: "Upgrade agents"},
		{ID: string(octopus.TaskUpdateCalamari), Name: "Update tools"},
	}, nil
}

// Documents makes what clients see of tasks, with one look at their interruptions.
func Documents(ctx context.Context, tx *db.Tx, r *rest.Request, found []*tasks.Task) ([]octopus.Task, error) {
	ids := make([]string, len(found))
	for i, t := range found {
		ids[i] = t.ID
	}
	pending, err := tasks.Pending(ctx, tx, ids)
	if err != nil {
		return nil, err
	}
	held, err := tasks.Held(ctx, tx, ids)
	if err != nil {
		return nil, err
	}
	docs := make([]octopus.Task, len(found))
	for i, t := range found {
		docs[i] = document(r, tx.Now(), t, pending[t.ID])
		if _, waits := held[t.ID]; waits {
			docs[i].PendingPreconditionTypes = octopus.List[string]{octopus.PreconditionRestored}
		}
	}
	return docs, nil
}

func document(r *rest.Request, now time.Time, t *tasks.Task, pending []octopus.InterruptionType) octopus.Task {
	end := t.Completed
	if end.IsZero() {
		end = now
	}
	doc := octopus.Task{
		SpaceID: octopus.NullString(t.Space), Name: t.Name, Description: t.Description, State: t.State,
		Arguments: octopus.Map[string, json.RawMessage](t.Arguments),
		QueueTime: octopus.NewTime(t.QueueTime), QueueTimeExpiry: octopus.OptionalTime(t.Expiry),
		StartTime: octopus.OptionalTime(t.Started), CompletedTime: octopus.OptionalTime(t.Completed), LastUpdatedTime: octopus.OptionalTime(t.Updated),
		ServerNode: octopus.NullString(t.Node), ErrorMessage: t.Error, ProjectID: octopus.NullString(t.ProjectID),
		HasBeenPickedUpByProcessor: !t.Started.IsZero(), IsCompleted: t.State.Completed(), FinishedSuccessfully: t.State == octopus.TaskSuccess,
		HasPendingInterruptions: len(pending) > 0, PendingInterruptionTypes: pending, HasWarningsOrErrors: t.HasWarnings,
		CanRerun: rerunnable(t),
	}
	switch {
	case t.State == octopus.TaskQueued:
		doc.Completed = "Queued..."
	case !t.State.Completed():
		doc.Completed = string(t.State) + "..."
	default:
		doc.Completed = t.Completed.Format("Monday, 02 January 2006 15:04:05 -07:00")
	}
	if !t.Started.IsZero() {
		doc.Duration = words(end.Sub(t.Started))
	}
	doc.ID = t.ID
	self := "/api/tasks/" + t.ID
	if t.Space != "" {
		self = "/api/" + string(t.Space) + "/tasks/" + t.ID
	}
	doc.Links = octopus.Links{
		"Self": r.Href(self), "Details": r.Href(self) + "/details{?verbose,tail}", "Raw": r.Href(self) + "/raw", "Log": r.Href(self) + "/log",
		"Cancel": r.Href(self) + "/cancel", "Rerun": r.Href(self) + "/rerun", "State": r.Href(self) + "/state", "Prioritize": r.Href(self) + "/prioritize", "QueuedBehind": r.Href(self) + "/queued-behind{?skip,take}",
		"Artifacts": r.SpaceHref("/artifacts?regarding=" + t.ID), "Interruptions": r.SpaceHref("/interruptions?regarding=" + t.ID),
	}
	return doc
}

// words is a duration for people.
func words(d time.Duration) string {
	switch d = d.Round(time.Second); {
	case d < time.Second:
		return "less than a second"
	case d < time.Minute:
		return count(int(d/time.Second), "second")
	case d < time.Hour:
		return count(int(d/time.Minute), "minute")
	default:
		return count(int(d/time.Hour), "hour")
	}
}

func count(n int, unit string) string {
	text, err := json.Marshal(n)
	if err != nil || n == 1 {
		return "1 " + unit
	}
	return string(text) + " " + unit + "s"
}

// find returns the task of the path if the caller may see it.
func (a *api) find(r *rest.Request, tx *db.Tx) (*tasks.Task, error) {
	id := r.PathValue("id")
	t, err := tasks.Get(r.Context(), tx, canonical(id))
	if err != nil {
		return nil, err
	}
	where, err := target(r.Context(), tx, t.ProjectID, t.EnvironmentID, t.TenantID)
	if err != nil {
		return nil, err
	}
	if r.Space != "" && t.Space != r.Space && t.Space != "" || !r.Principal.Access().Can(view, t.Space, where) {
		return nil, fault.Missing("task", id)
	}
	return t, nil
}

// target is what a permission must cover for a task, or what hangs on it, of this
// project, environment and tenant.
func target(ctx context.Context, tx *db.Tx, project, environment, tenant string) (rest.Target, error) {
	group, err := tasks.ProjectGroup(ctx, tx, project)
	return rest.Target{Project: project, ProjectGroup: group, Environment: environment, Tenant: tenant}, err
}

func canonical(id string) string {
	const prefix = "servertasks-"
	if len(id) > len(prefix) && strings.EqualFold(id[:len(prefix)], prefix) {
		return "ServerTasks-" + id[len(prefix):]
	}
	return id
}

func (a *api) get(r *rest.Request) (any, error) {
	var doc octopus.Task
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		t, err := a.find(r, tx)
		if err != nil {
			return err
		}
		docs, err := Documents(r.Context(), tx, r, []*tasks.Task{t})
		if err == nil {
			doc = docs[0]
		}
		return err
	})
	return doc, err
}

func (a *api) cancel(r *rest.Request) (any, error) {
	return a.change(r, cancel, func(tx *db.Tx, t *tasks.Task) (*tasks.Task, error) {
		t, err := a.queue.Cancel(r.Context(), tx, t.ID)
		if err != nil {
			return nil, err
		}
		tx.Event(db.Event{
			Category: "TaskCanceled", SpaceID: string(t.Space), Message: "Task " + t.ID + " was asked to end: " + t.Description, Related: []string{t.ID, t.ProjectID, t.EnvironmentID},
			ProjectID: t.ProjectID, EnvironmentID: t.EnvironmentID, TenantID: t.TenantID, DocumentType: "ServerTask",
		})
		return t, nil
	})
}

func (a *api) behind(r *rest.Request) (any, error) {
	p, err := r.Page()
	if err != nil {
		return nil, err
	}
	visible, err := seen(r, view)
	if err != nil {
		return nil, err
	}
	var docs []octopus.Task
	var total int64
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		t, err := a.find(r, tx)
		if err != nil {
			return err
		}
		_, ahead, err := a.queue.WaitReason(r.Context(), tx, t, visible)
		if err != nil {
			return err
		}
		found, n, _, err := tasks.List(r.Context(), tx, tasks.Query{Visible: visible, IDs: append([]string{}, ahead...), Page: p})
		if err != nil {
			return err
		}
		total = n
		docs, err = Documents(r.Context(), tx, r, found)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.PageOf(r, "Task", p, total, docs), nil
}

// Duration is a period in words, as tasks show how long they took.
func Duration(d time.Duration) string { return words(d) }
