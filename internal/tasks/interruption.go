package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// Interruption is a question to a person. Its body (form, responsible teams) is
// the asker's.
type Interruption struct {
	ID              string // from NextInterruption
	Seq             int64
	Task            string
	Space           ident.SpaceID
	ProjectID       string
	EnvironmentID   string
	TenantID        string
	Kind            octopus.InterruptionType
	Title           string
	Unit            string
	Correlation     string // the activity of the log that waits
	Created         time.Time
	Pending         bool
	ResponsibleUser string
	Body            json.RawMessage
}

// NextInterruption takes the id of an interruption that is about to be raised.
func (l *Lease) NextInterruption(ctx context.Context) (id string, err error) {
	err = l.s.cfg.DB.WriteEngine(ctx, func(tx *db.Tx) error {
		seq, err := tx.NextSeq(ctx, "Interruptions")
		id = ident.ID("Interruptions", seq)
		return err
	})
	return id, err
}

func insertInterruption(ctx context.Context, tx *db.Tx, t *Task, i Interruption) error {
	seq, _ := ident.Seq(i.ID)
	body := i.Body
	if body == nil {
		body = json.RawMessage(`{}`)
	}
	_, err := tx.Exec(ctx, `INSERT INTO interruption (id, seq, task, space_id, project_id, environment_id, tenant_id, kind, title, unit, correlation, created, pending, responsible_user, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 1,
			COALESCE((SELECT max(o.responsible_user) FROM interruption o WHERE o.task = ? AND o.correlation = ? AND o.kind = ? AND o.pending = 1), ''), ?)`,
		i.ID, seq, t.ID, string(t.Space), t.ProjectID, t.EnvironmentID, t.TenantID, string(i.Kind), i.Title, i.Unit, i.Correlation, db.Micros(tx.Now()),
		t.ID, i.Correlation, string(i.Kind), string(body))
	if err != nil {
		return fmt.Errorf("raise interruption: %w", err)
	}
	tx.Changed("interruptions")
	category := octopus.EventGuidedFailureRaised
	if i.Kind == octopus.InterruptionManual {
		category = octopus.EventManualRaised
	}
	tx.Event(db.Event{
		Category: string(category), SpaceID: string(t.Space), Message: "Interruption raised: " + i.Title,
		Related: []string{i.ID, t.ID, t.ProjectID, t.EnvironmentID}, ProjectID: t.ProjectID, EnvironmentID: t.EnvironmentID, TenantID: t.TenantID, DocumentType: "Interruption",
	})
	return nil
}

const interruptionColumns = `i.id, i.seq, i.task, i.space_id, i.project_id, i.environment_id, i.tenant_id, i.kind, i.title, i.unit, i.correlation, i.created, i.pending, i.responsible_user, i.body`

func scanInterruption(scan func(...any) error) (*Interruption, error) {
	var i Interruption
	var created, pending int64
	var body string
	err := scan(&i.ID, &i.Seq, &i.Task, &i.Space, &i.ProjectID, &i.EnvironmentID, &i.TenantID, &i.Kind, &i.Title, &i.Unit, &i.Correlation, &created, &pending, &i.ResponsibleUser, &body)
	i.Created, i.Pending, i.Body = db.Time(created), pending != 0, json.RawMessage(body)
	return &i, err
}

// GetInterruption returns an interruption.
func GetInterruption(ctx context.Context, tx *db.Tx, id string) (*Interruption, error) {
	i, err := scanInterruption(tx.QueryRow(ctx, `SELECT `+interruptionColumns+` FROM interruption i WHERE i.id = ?`, id).Scan)
	if isNoRows(err) {
		return nil, fault.Missing("interruption", id)
	}
	if err != nil {
		return nil, fmt.Errorf("read interruption %s: %w", id, err)
	}
	return i, nil
}

// TakeResponsibility makes a user the one who answers, also of the interruptions that
// are linked to this one: those about other targets of its step. Another holder of any
// of them is a conflict.
func TakeResponsibility(ctx context.Context, tx *db.Tx, id, user string) error {
	i, err := GetInterruption(ctx, tx, id)
	if err != nil {
		return err
	}
	// Whoever raises another one of the step locks the same row.
	var locked string
	if err := tx.QueryRow(ctx, `SELECT t.id FROM task t WHERE t.id = ?`+tx.ForUpdate(), i.Task).Scan(&locked); err != nil {
		return fmt.Errorf("lock the task of %s: %w", id, err)
	}
	const linked = `task = ? AND correlation = ? AND kind = ? AND pending = 1`
	args := []any{i.Task, i.Correlation, string(i.Kind)}
	var open, others int64
	err = tx.QueryRow(ctx, `SELECT count(CASE WHEN o.id = ? THEN 1 END), count(CASE WHEN o.responsible_user NOT IN ('', ?) THEN 1 END) FROM interruption o WHERE `+linked,
		append([]any{id, user}, args...)...).Scan(&open, &others)
	switch {
	case err != nil:
		return fmt.Errorf("take responsibility for %s: %w", id, err)
	case open == 0:
		return fault.New(fault.Conflict, "The interruption '%s' was answered already.", id)
	case others > 0:
		return fault.New(fault.Conflict, "The interruption '%s' is held by somebody else, who alone can answer it.", id)
	}
	if _, err := tx.Exec(ctx, `UPDATE interruption SET responsible_user = ? WHERE `+linked, append([]any{user}, args...)...); err != nil {
		return fmt.Errorf("take responsibility for %s: %w", id, err)
	}
	tx.Changed("interruptions")
	return nil
}

// Linked says which of the interruptions wait beside others about the same step of the
// same task.
func Linked(ctx context.Context, tx *db.Tx, ids []string) (map[string]bool, error) {
	linked := map[string]bool{}
	if len(ids) == 0 {
		return linked, nil
	}
	rows, err := tx.Query(ctx, `SELECT i.id FROM interruption i WHERE i.pending = 1 AND i.id IN `+placeholders(len(ids))+`
		AND EXISTS (SELECT 1 FROM interruption o WHERE o.task = i.task AND o.correlation = i.correlation AND o.kind = i.kind AND o.pending = 1 AND o.id <> i.id)`, anys(ids)...)
	if err != nil {
		return nil, fmt.Errorf("look up linked interruptions: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		linked[id] = true
	}
	return linked, rows.Err()
}

// Artifact is a file that a task has produced; its content is a blob.
type Artifact struct {
	ID          string
	Seq         int64
	Task        string
	Space       ident.SpaceID
	Filename    string
	Source      string // the machine it came from, "" for the server's own worker
	Correlation string // the activity of the log that made it
	Created     time.Time
	Size        int64
	SHA256      string
	// Stored is when the content was put, as blob.Info tells it: a batch that comes
	// too late after that is refused, and whoever goes on with the task stores the
	// content again. It is not kept; zero is always early enough.
	Stored time.Time
}

func insertArtifact(ctx context.Context, tx *db.Tx, t *Task, a Artifact) error {
	if !a.Stored.IsZero() {
		if err := (blob.Info{Used: a.Stored}).Fresh(); err != nil {
			return err
		}
	}
	seq, err := tx.NextSeq(ctx, "Artifacts")
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO artifact (id, seq, task, space_id, filename, source, correlation, created, size, sha256) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		ident.ID("Artifacts", seq), seq, t.ID, string(t.Space), a.Filename, a.Source, a.Correlation, db.Micros(tx.Now()), a.Size, a.SHA256)
	if err != nil {
		return fmt.Errorf("list artifact: %w", err)
	}
	tx.Changed("artifacts")
	return nil
}

const artifactColumns = `a.id, a.seq, a.task, a.space_id, a.filename, a.source, a.correlation, a.created, a.size, a.sha256`

func scanArtifact(scan func(...any) error) (*Artifact, error) {
	var a Artifact
	var created int64
	err := scan(&a.ID, &a.Seq, &a.Task, &a.Space, &a.Filename, &a.Source, &a.Correlation, &created, &a.Size, &a.SHA256)
	a.Created = db.Time(created)
	return &a, err
}

// GetArtifact returns an artifact.
func GetArtifact(ctx context.Context, tx *db.Tx, id string) (*Artifact, error) {
	a, err := scanArtifact(tx.QueryRow(ctx, `SELECT `+artifactColumns+` FROM artifact a WHERE a.id = ?`, id).Scan)
	if isNoRows(err) {
		return nil, fault.Missing("artifact", id)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read artifact %s", id), err)
	}
	return a, nil
}
