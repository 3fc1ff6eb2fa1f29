package tasks

import (
	"cmp"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/doctor"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/retention"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// maxDescription bounds the description of a task that somebody starts, in bytes.
const maxDescription = 1 << 10

// maxRelated bounds how many machines an event is about.
const maxRelated = 100

func joined(errs []error) error { return errors.Join(errs...) }

// forServer refuses whoever does not hold a permission for the whole server.
func forServer(r *rest.Request, permission string) error {
	if r.Principal.Access().Can(permission, "", rest.Target{}) {
		return nil
	}
	return fault.New(fault.Forbidden, "You do not have permission to do this: it needs %s for the whole server. Ask an administrator for a role that grants it.", permission)
}

// inSpace is the space of a task that somebody starts: that of the path, else the one
// that the task names, else the default one.
func inSpace(r *rest.Request, in *octopus.Task) (ident.SpaceID, error) {
	if r.Space != "" {
		return r.Space, nil
	}
	if in.SpaceID == "" {
		return resources.DefaultSpace, nil
	}
	spaces, err := r.Spaces(create)
	if err != nil {
		return "", err
	}
	i := slices.IndexFunc(spaces, func(id ident.SpaceID) bool { return id != "" && strings.EqualFold(string(id), string(in.SpaceID)) })
	if i < 0 {
		return "", fault.InvalidField("SpaceId", "SpaceId is '%.100s', which was not found, or you do not have permission to create tasks there.", in.SpaceID)
	}
	return spaces[i], nil
}

// refusal says why nobody starts a task of a name by hand.
func refusal(name octopus.TaskName) error {
	why := map[octopus.TaskName]string{
		octopus.TaskDeploy: "deployments are made at deployments", octopus.TaskRunbookRun: "runs of runbooks are made at runbookRuns",
		octopus.TaskAutoDeploy: "the server makes automatic deployments by itself", octopus.TaskFeedTriggers: "the server looks at feeds by itself",
		octopus.TaskDelete:    "things are deleted at their own paths, at once",
		octopus.TaskTestEmail: "this server sends no test e-mails", octopus.TaskTestAzureAccount: "this server signs in to no cloud accounts",
		octopus.TaskSyncCommunityTemplate: "this server knows no community library",
	}
	for known, reason := range why {
		if strings.EqualFold(string(known), string(name)) {
			return fault.InvalidField("Name", "Name is '%s', which cannot be started: %s. The tasks that can be started this way are %s.", known, reason, startable)
		}
	}
	return fault.InvalidField("Name", "Name is '%.100s', which is no task that can be started; the tasks that can be are %s. Deployments are made at deployments.", name, startable)
}

// startable are the names of the tasks that create starts.
const startable = "Health, AdHocScript, Upgrade, UpdateCalamari, Backup, Retention and SystemIntegrityCheck"

// create starts a task that is no deployment.
func (a *api) create(r *rest.Request) (any, error) {
	var in octopus.Task
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	description := strings.TrimSpace(in.Description)
	if len(description) > maxDescription {
		return nil, fault.InvalidField("Description", "Description has %d bytes; use at most %d.", len(description), maxDescription)
	}
	is := func(name octopus.TaskName) bool { return strings.EqualFold(string(in.Name), string(name)) }
	var make func(tx *db.Tx) (tasks.New, error)
	switch {
	case is(octopus.TaskRetention):
		// Of all spaces: whoever starts it needs the permission for the whole server.
		if err := forServer(r, create); err != nil {
			return nil, err
		}
		make = func(*db.Tx) (tasks.New, error) {
			return tasks.New{Name: octopus.TaskRetention, Description: cmp.Or(description, "Apply retention policies"), Tag: retention.Tag}, nil
		}
	case is(octopus.TaskBackup):
		if err := forServer(r, string(octopus.PermAdministerSystem)); err != nil {
			return nil, err
		}
		make = func(*db.Tx) (tasks.New, error) {
			n := backup.NewTask(backup.Job{Level: backup.LevelDatabase})
			n.Description = cmp.Or(description, n.Description)
			return n, nil
		}
	case is(octopus.TaskSystemIntegrityCheck):
		if err := forServer(r, string(octopus.PermAdministerSystem)); err != nil {
			return nil, err
		}
		var job doctor.Job
		if raw, given := in.Arguments["Full"]; given && json.Unmarshal(raw, &job.Full) != nil {
			return nil, fault.InvalidField("Arguments.Full", "Arguments.Full is no boolean; true also reads every package, artifact and log.")
		}
		make = func(*db.Tx) (tasks.New, error) {
			n := doctor.NewTask(job)
			n.Description = cmp.Or(description, n.Description)
			return n, nil
		}
	case is(octopus.TaskHealth):
		space, err := inSpace(r, &in)
		if err != nil {
			return nil, err
		}
		c := &chooser{a: a, r: r, space: space}
		make = func(tx *db.Tx) (tasks.New, error) { return c.health(r.Context(), tx, &in, description) }
	case is(octopus.TaskUpgrade), is(octopus.TaskUpdateCalamari):
		space, err := inSpace(r, &in)
		if err != nil {
			return nil, err
		}
		// What a machine runs is replaced, or would be.
		c := &chooser{a: a, r: r, space: space, runs: true}
		name := octopus.TaskUpgrade
		if is(octopus.TaskUpdateCalamari) {
			name = octopus.TaskUpdateCalamari
		}
		make = func(tx *db.Tx) (tasks.New, error) { return c.upgrade(r.Context(), tx, &in, name, description) }
	case is(octopus.TaskAdHocScript):
		space, err := inSpace(r, &in)
		if err != nil {
			return nil, err
		}
		c := &chooser{a: a, r: r, space: space, runs: true}
		make = func(tx *db.Tx) (tasks.New, error) { return c.script(r.Context(), tx, &in, description) }
	default:
		return nil, refusal(in.Name)
	}
	var doc octopus.Task
	err := a.db.Write(r.Context(), func(tx *db.Tx) error {
		n, err := make(tx)
		if err != nil {
			return err
		}
		n.UserID = db.ActorFrom(r.Context()).UserID
		t, err := a.queue.Create(r.Context(), tx, n)
		if err != nil {
			return err
		}
		tx.Event(db.Event{
			Category: string(octopus.EventTaskQueued), SpaceID: string(t.Space), Message: t.ID + " (" + t.Description + ") was queued",
			Related: append([]string{t.ID}, n.Machines[:min(len(n.Machines), maxRelated)]...), EnvironmentID: t.EnvironmentID, DocumentType: "ServerTask",
		})
		docs, err := Documents(r.Context(), tx, r, []*tasks.Task{t})
		if err == nil {
			doc = docs[0]
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.Created{Body: doc, Location: doc.Links["Self"]}, nil
}
