package tasks

import (
	"net/http"
	"reflect"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// maxReason bounds the reason of a changed state, in bytes.
const maxReason = 1 << 14

// editRoutes are the operations that change tasks, but for cancelling.
func (a *api) editRoutes() []rest.Route {
	task := reflect.TypeFor[octopus.Task]()
	fromFailed := []rest.Param{{Name: "fromFailedStep", Type: rest.Boolean, About: "goes on where the deployment has failed, without what had succeeded"}}
	return []rest.Route{
		{Method: http.MethodPost, Pattern: "/tasks", Mount: rest.InEither, Permission: create, Handler: a.create, Body: task, Response: task, Summary: "Starts a task by hand. Its name says what it does: Health, AdHocScript, Backup or Retention."},
		{Method: http.MethodPost, Pattern: "/tasks/{id}/state", Mount: rest.InEither, Permission: edit, Handler: a.restate, Body: reflect.TypeFor[octopus.TaskStateCommand](), Response: task, Summary: "Changes how a task has ended, with a reason."},
		{Method: http.MethodPost, Pattern: "/tasks/{id}/prioritize", Mount: rest.InEither, Permission: prioritize, Handler: a.prioritize, Response: task, Summary: "Moves a queued task before those without priority."},
		{Method: http.MethodPost, Pattern: "/tasks/{id}/rerun", Mount: rest.InEither, Permission: view, Handler: a.rerun, Query: fromFailed, Response: task, Summary: "Makes a deployment that has ended once more, as a new task."},
		{Method: http.MethodPost, Pattern: "/tasks/rerun/{id}", Mount: rest.InEither, Permission: view, Handler: a.rerun, Query: fromFailed, Response: task, Summary: "Makes a deployment that has ended once more, by its older path."},
	}
}

// change finds the task of the path, which the caller must be allowed to change, and
// answers with what fn makes of it.
func (a *api) change(r *rest.Request, permission string, fn func(tx *db.Tx, t *tasks.Task) (*tasks.Task, error)) (any, error) {
	var doc octopus.Task
	err := a.db.Write(r.Context(), func(tx *db.Tx) error {
		t, err := a.find(r, tx)
		if err != nil {
			return err
		}
		where, err := target(r.Context(), tx, t.ProjectID, t.EnvironmentID, t.TenantID)
		if err != nil {
			return err
		}
		if !r.Principal.Access().Can(permission, t.Space, where) {
			return fault.New(fault.Forbidden, "You do not have permission to do this: it needs %s. Ask an administrator for a role that grants it.", permission)
		}
		if t, err = fn(tx, t); err != nil {
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

func changed(t *tasks.Task, message string) db.Event {
	return db.Event{
		Category: string(octopus.EventModified), SpaceID: string(t.Space), Message: message, Related: []string{t.ID, t.ProjectID, t.EnvironmentID},
		ProjectID: t.ProjectID, EnvironmentID: t.EnvironmentID, TenantID: t.TenantID, DocumentType: "ServerTask",
	}
}

func (a *api) restate(r *rest.Request) (any, error) {
	var c octopus.TaskStateCommand
	if err := r.Decode(&c); err != nil {
		return nil, err
	}
	reason := strings.TrimSpace(string(c.Reason))
	switch {
	case reason == "":
		return nil, fault.InvalidField("Reason", "Reason is empty; say why the state of the task is changed.")
	case len(reason) > maxReason:
		return nil, fault.InvalidField("Reason", "Reason has %d bytes; use at most %d.", len(reason), maxReason)
	}
	return a.change(r, edit, func(tx *db.Tx, t *tasks.Task) (*tasks.Task, error) {
		now, err := tasks.Restate(r.Context(), tx, t.ID, c.State, reason)
		if err != nil {
			return nil, err
		}
		tx.Event(changed(now, "The state of "+t.ID+" ("+t.Description+") was changed from "+string(t.State)+" to "+string(now.State)+": "+reason))
		return now, a.service.Restated(r.Context(), tx, now)
	})
}

func (a *api) prioritize(r *rest.Request) (any, error) {
	return a.change(r, prioritize, func(tx *db.Tx, t *tasks.Task) (*tasks.Task, error) {
		now, err := a.queue.Prioritize(r.Context(), tx, t.ID)
		if err == nil {
			tx.Event(changed(now, t.ID+" ("+t.Description+") was moved before tasks without priority"))
		}
		return now, err
	})
}

func (a *api) rerun(r *rest.Request) (any, error) {
	fromFailed, err := r.QueryBool("fromFailedStep", false)
	if err != nil {
		return nil, err
	}
	var t *tasks.Task
	err = a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
		t, err = a.find(r, tx)
		return err
	})
	switch {
	case err != nil:
		return nil, err
	case !rerunnable(t):
		return nil, fault.New(fault.Conflict, "The task '%s' (%s, %s) cannot be run again; only a deployment that has ended can.", t.ID, t.Name, t.State)
	}
	allow := func(permission string, at rest.Target) error {
		if r.Principal.Access().Can(permission, t.Space, at) {
			return nil
		}
		return fault.New(fault.Forbidden, "You do not have permission to do this: it needs %s. Ask an administrator for a role that grants it.", permission)
	}
	d, err := a.service.Again(r.Context(), t.Space, t.Argument("DeploymentId"), fromFailed, allow)
	if err != nil {
		return nil, err
	}
	var doc octopus.Task
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		made, err := tasks.Get(r.Context(), tx, d.TaskID)
		if err != nil {
			return err
		}
		docs, err := Documents(r.Context(), tx, r, []*tasks.Task{made})
		if err == nil {
			doc = docs[0]
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.Created{Body: doc, Location: r.SpaceHref("/tasks/" + doc.ID)}, nil
}

// rerunnable reports whether a task of the same effect can be made.
func rerunnable(t *tasks.Task) bool {
	return t.State.Completed() && t.Name == octopus.TaskDeploy && t.Argument("DeploymentId") != ""
}
