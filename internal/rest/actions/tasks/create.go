package tasks

import (
	"cmp"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/retention"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// maxDescription bounds the description of a task that somebody starts, in bytes.
const maxDescription = 1 << 10

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
	var n tasks.New
	switch {
	case strings.EqualFold(string(in.Name), string(octopus.TaskRetention)):
		// Of all spaces: whoever starts it needs the permission for the whole server.
		if !r.Principal.Access().Can(create, "", rest.Target{}) {
			return nil, fault.New(fault.Forbidden, "You do not have permission to do this: it needs %s for the whole server. Ask an administrator for a role that grants it.", create)
		}
		n = tasks.New{Name: octopus.TaskRetention, Description: cmp.Or(description, "Apply retention policies"), Tag: retention.Tag}
	default:
		return nil, fault.InvalidField("Name", "Name is '%.100s'; the task that can be started this way is Retention. Deployments are made at deployments.", in.Name)
	}
	n.UserID = db.ActorFrom(r.Context()).UserID
	var doc octopus.Task
	err := a.db.Write(r.Context(), func(tx *db.Tx) error {
		t, err := a.queue.Create(r.Context(), tx, n)
		if err != nil {
			return err
		}
		tx.Event(db.Event{
			Category: string(octopus.EventTaskQueued), SpaceID: string(t.Space), Message: t.ID + " (" + t.Description + ") was queued", Related: []string{t.ID}, DocumentType: "ServerTask",
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
