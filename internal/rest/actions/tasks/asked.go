package tasks

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/orchestrator"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

func artifactDocument(r *rest.Request, f *tasks.Artifact) octopus.Artifact {
	doc := octopus.Artifact{
		SpaceID: string(f.Space), Filename: f.Filename, Source: octopus.NullString(f.Source), ServerTaskID: f.Task,
		LogCorrelationID: octopus.NullString(f.Correlation), Created: octopus.NewTime(f.Created), Size: f.Size,
	}
	doc.ID = f.ID
	doc.Links = octopus.Links{"Self": r.SpaceHref("/artifacts/" + f.ID), "Content": r.SpaceHref("/artifacts/" + f.ID + "/content"), "Task": r.SpaceHref("/tasks/" + f.Task)}
	return doc
}

func (a *api) artifacts(r *rest.Request) (any, error) {
	p, err := r.Page()
	if err != nil {
		return nil, err
	}
	q := tasks.ArtifactQuery{Visible: []tasks.Visible{{Space: r.Space, Grants: r.Grants(viewArtifact)}}, Regarding: r.Query("regarding"), Page: p}
	if r.HasQuery("ids") {
		if q.IDs, err = r.QueryList("ids"); err != nil {
			return nil, err
		}
	}
	var docs []octopus.Artifact
	var total int64
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		found, n, err := tasks.Artifacts(r.Context(), tx, q)
		total = n
		docs = make([]octopus.Artifact, len(found))
		for i, f := range found {
			docs[i] = artifactDocument(r, f)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.PageOf(r, "Artifact", p, total, docs), nil
}

func (a *api) findArtifact(r *rest.Request) (f *tasks.Artifact, err error) {
	id := r.PathValue("id")
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		found, _, err := tasks.Artifacts(r.Context(), tx, tasks.ArtifactQuery{
			Visible: []tasks.Visible{{Space: r.Space, Grants: r.Grants(viewArtifact)}}, IDs: []string{id},
		})
		if err == nil && len(found) == 0 {
			return fault.Missing("artifact", id)
		}
		if err == nil {
			f = found[0]
		}
		return err
	})
	return f, err
}

func (a *api) artifact(r *rest.Request) (any, error) {
	f, err := a.findArtifact(r)
	if err != nil {
		return nil, err
	}
	return artifactDocument(r, f), nil
}

func (a *api) content(r *rest.Request) (any, error) {
	f, err := a.findArtifact(r)
	if err != nil {
		return nil, err
	}
	content, size, err := a.blobs.Open(r.Context(), blob.Hash(f.SHA256))
	if err != nil {
		return nil, fmt.Errorf("open artifact %s: %w", f.ID, err)
	}
	return rest.Raw{Content: content, Size: size, Name: f.Filename, ETag: f.SHA256, Modified: f.Created}, nil
}

// interruptionDocument is a question as clients see it: a form with the answers
// that it takes.
func interruptionDocument(r *rest.Request, i *tasks.Interruption, at rest.Target, linked bool) (octopus.Interruption, error) {
	var q orchestrator.Question
	if err := json.Unmarshal(i.Body, &q); err != nil {
		return octopus.Interruption{}, fmt.Errorf("read interruption %s: %w", i.ID, err)
	}
	user := r.Principal.Actor().UserID
	doc := octopus.Interruption{
		SpaceID: string(i.Space), Title: i.Title, Type: i.Kind, Created: octopus.NewTime(i.Created), IsPending: i.Pending,
		RelatedDocumentIDs: octopus.List[string]{i.Task, i.ProjectID, i.EnvironmentID}, TaskID: i.Task, CorrelationID: i.Correlation,
		ResponsibleUserID:     octopus.NullString(i.ResponsibleUser),
		CanTakeResponsibility: i.Pending && i.ResponsibleUser == "" && mayAnswer(r, i, q, at), HasResponsibility: i.ResponsibleUser != "" && i.ResponsibleUser == user,
		ResponsibleTeamIDs: q.Teams, IsLinkedToOtherInterruption: linked, Form: form(q),
	}
	doc.ID = i.ID
	self := r.SpaceHref("/interruptions/" + i.ID)
	doc.Links = octopus.Links{"Self": self, "Submit": self + "/submit", "Responsible": self + "/responsible", "Task": r.SpaceHref("/tasks/" + i.Task)}
	return doc, nil
}

// interruptionDocuments makes what clients see of interruptions, with one look at what
// they are linked to.
func interruptionDocuments(r *rest.Request, tx *db.Tx, found []*tasks.Interruption) ([]octopus.Interruption, error) {
	ids, projects := make([]string, len(found)), make([]string, len(found))
	for i, one := range found {
		ids[i], projects[i] = one.ID, one.ProjectID
	}
	linked, err := tasks.Linked(r.Context(), tx, ids)
	if err != nil {
		return nil, err
	}
	groups, err := tasks.ProjectGroups(r.Context(), tx, slices.Compact(slices.Sorted(slices.Values(projects))))
	if err != nil {
		return nil, err
	}
	docs := make([]octopus.Interruption, len(found))
	for i, one := range found {
		if docs[i], err = interruptionDocument(r, one, rest.Target{Project: one.ProjectID, ProjectGroup: groups[one.ProjectID], Environment: one.EnvironmentID, Tenant: one.TenantID}, linked[one.ID]); err != nil {
			return nil, err
		}
	}
	return docs, nil
}

// mayAnswer reports whether the caller may take an interruption on: with the permission
// for all of them; as a member of a team that is responsible; or, where no team is
// named, as somebody who may deploy there.
func mayAnswer(r *rest.Request, i *tasks.Interruption, q orchestrator.Question, at rest.Target) bool {
	access := r.Principal.Access()
	switch {
	case access.Can(answer, i.Space, at):
		return true
	case len(q.Teams) == 0:
		return access.Can(string(octopus.PermDeploymentCreate), i.Space, at)
	default:
		return access.Can(answerResponsible, i.Space, at) && slices.ContainsFunc(q.Teams, access.InTeam)
	}
}

// answerable is the question of an interruption, if the caller may answer it.
func answerable(r *rest.Request, tx *db.Tx, i *tasks.Interruption) (orchestrator.Question, error) {
	var q orchestrator.Question
	if err := json.Unmarshal(i.Body, &q); err != nil {
		return q, fmt.Errorf("read interruption %s: %w", i.ID, err)
	}
	at, err := target(r.Context(), tx, i.ProjectID, i.EnvironmentID, i.TenantID)
	switch {
	case err != nil:
		return q, err
	case mayAnswer(r, i, q, at):
		return q, nil
	case len(q.Teams) > 0:
		return q, fault.New(fault.Forbidden, "You do not have permission to answer the interruption '%s': it needs %s, or %s and a place in a responsible team (%s).", i.ID, answer, answerResponsible, strings.Join(q.Teams, ", "))
	default:
		return q, fault.New(fault.Forbidden, "You do not have permission to answer the interruption '%s': it needs %s or %s. Ask an administrator for a role that grants it.", i.ID, answer, octopus.PermDeploymentCreate)
	}
}

func form(q orchestrator.Question) octopus.Form {
	buttons := make([]octopus.FormButton, 0, 4)
	for _, c := range q.Choices() {
		buttons = append(buttons, octopus.FormButton{Text: choiceText(c), Value: string(c)})
	}
	return octopus.Form{
		Elements: octopus.List[octopus.FormElement]{
			{Name: "Instructions", Control: octopus.FormControl{Type: octopus.FormParagraph, Text: q.Message, ResolveLinks: q.Kind == deploy.AskManual}},
			{Name: octopus.FieldNotes, Control: octopus.FormControl{Type: octopus.FormTextArea, Label: "Notes"}},
			{Name: q.Field(), Control: octopus.FormControl{Type: octopus.FormButtons, Buttons: buttons}, IsValueRequired: true},
		},
	}
}

func choiceText(c deploy.Choice) string {
	switch c {
	case deploy.MarkSucceeded:
		return "Mark as succeeded"
	case deploy.MarkFailed:
		return "Mark as failed"
	case deploy.RunAgain:
		return "Run again"
	case deploy.Exclude:
		return "Exclude machine from deployment"
	case deploy.Proceed, deploy.Abort, deploy.Fail, deploy.Retry, deploy.Ignore, deploy.ChildEnded:
	}
	return string(c)
}

func (a *api) interruptions(r *rest.Request) (any, error) {
	p, err := r.Page()
	if err != nil {
		return nil, err
	}
	q := tasks.InterruptionQuery{Visible: []tasks.Visible{{Space: r.Space, Grants: r.Grants(viewAsked)}}, Regarding: r.Query("regarding"), Page: p}
	if q.PendingOnly, err = r.QueryBool("pendingOnly", false); err != nil {
		return nil, err
	}
	if r.HasQuery("ids") {
		if q.IDs, err = r.QueryList("ids"); err != nil {
			return nil, err
		}
	}
	var docs []octopus.Interruption
	var total int64
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		found, n, err := tasks.Interruptions(r.Context(), tx, q)
		if err != nil {
			return err
		}
		total = n
		docs, err = interruptionDocuments(r, tx, found)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.PageOf(r, "Interruption", p, total, docs), nil
}

// findInterruption returns the interruption of the path if the caller may see it.
func (a *api) findInterruption(r *rest.Request, tx *db.Tx) (*tasks.Interruption, error) {
	id := r.PathValue("id")
	found, _, err := tasks.Interruptions(r.Context(), tx, tasks.InterruptionQuery{
		Visible: []tasks.Visible{{Space: r.Space, Grants: r.Grants(viewAsked)}}, IDs: []string{id},
	})
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fault.Missing("interruption", id)
	}
	return found[0], nil
}

func (a *api) interruption(r *rest.Request) (any, error) {
	var doc octopus.Interruption
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		i, err := a.findInterruption(r, tx)
		if err != nil {
			return err
		}
		docs, err := interruptionDocuments(r, tx, []*tasks.Interruption{i})
		if err == nil {
			doc = docs[0]
		}
		return err
	})
	return doc, err
}

func (a *api) responsible(r *rest.Request) (any, error) {
	var user string
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		i, err := a.findInterruption(r, tx)
		if err == nil {
			user = i.ResponsibleUser
		}
		return err
	})
	if err != nil || user == "" {
		return map[string]any{}, err
	}
	return r.Get("users", user)
}

func (a *api) take(r *rest.Request) (any, error) {
	user := r.Principal.Actor().UserID
	err := a.db.Write(r.Context(), func(tx *db.Tx) error {
		i, err := a.findInterruption(r, tx)
		if err != nil {
			return err
		}
		if _, err := answerable(r, tx, i); err != nil {
			return err
		}
		return tasks.TakeResponsibility(r.Context(), tx, i.ID, user)
	})
	if err != nil {
		return nil, err
	}
	return map[string]any{"Id": user, "Username": r.Principal.Actor().Username}, nil
}

// maxNotes bounds the notes of an answer, in bytes.
const maxNotes = 1 << 16

// person is what a deployment learns of who has answered it.
func (a *api) person(r *rest.Request, id string) (*octopus.User, error) {
	var found *octopus.User
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		k, err := a.store.Kind("users")
		if err != nil {
			return err
		}
		doc, err := a.store.Get(r.Context(), tx, k, "", id)
		if err != nil {
			return err
		}
		found = &octopus.User{}
		return json.Unmarshal(doc.Body, found)
	})
	if err != nil {
		return nil, fmt.Errorf("read user %s: %w", id, err)
	}
	return found, nil
}

func (a *api) submit(r *rest.Request) (any, error) {
	var values map[string]any
	if err := r.Decode(&values); err != nil {
		return nil, err
	}
	text := func(name string) string {
		for key, v := range values {
			if s, ok := v.(string); ok && strings.EqualFold(key, name) {
				return s
			}
		}
		return ""
	}
	notes := text(octopus.FieldNotes)
	if len(notes) > maxNotes {
		return nil, fault.InvalidField(octopus.FieldNotes, "Notes has %d bytes; use at most %d.", len(notes), maxNotes)
	}
	actor := r.Principal.Actor()
	who, err := a.person(r, actor.UserID)
	if err != nil {
		return nil, err
	}
	var doc octopus.Interruption
	err = a.db.WriteEngine(r.Context(), func(tx *db.Tx) error {
		i, err := a.findInterruption(r, tx)
		if err != nil {
			return err
		}
		q, err := answerable(r, tx, i)
		if err != nil {
			return err
		}
		if i.ResponsibleUser != actor.UserID {
			return fault.New(fault.Conflict, "The interruption '%s' is not yours to answer; take responsibility for it first.", i.ID)
		}
		given := deploy.Answer{
			ID: i.ID, Choice: deploy.Choice(text(q.Field())), Notes: notes,
			User: actor.Username, UserID: actor.UserID, DisplayName: who.DisplayName, Email: who.EmailAddress,
		}
		if err := orchestrator.Answer(r.Context(), a.queue, tx, given); err != nil {
			return err
		}
		tx.Event(db.Event{
			Category: "InterruptionSubmitted", SpaceID: string(i.Space), Message: "Interruption " + i.Title + " was answered with " + string(given.Choice),
			Related: []string{i.ID, i.Task, i.ProjectID, i.EnvironmentID}, ProjectID: i.ProjectID, EnvironmentID: i.EnvironmentID, TenantID: i.TenantID, DocumentType: "Interruption",
		})
		if i, err = tasks.GetInterruption(r.Context(), tx, i.ID); err != nil {
			return err
		}
		docs, err := interruptionDocuments(r, tx, []*tasks.Interruption{i})
		if err == nil {
			doc = docs[0]
		}
		return err
	})
	return doc, err
}
