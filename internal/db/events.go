package db

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
)

// Actor is who does something. Context carries it from the edge of the server
// to the events that the work writes.
type Actor struct {
	UserID   string // "" when the server itself acts
	Username string // the name to show; kept in events, so that it survives the user
	// Identity says how the user was known: "ApiKey", "SessionCookie", "System".
	Identity  string
	IPAddress string
	UserAgent string
}

type actorKey struct{}

// WithActor returns a context in which a does what is done.
func WithActor(ctx context.Context, a Actor) context.Context {
	return context.WithValue(ctx, actorKey{}, a)
}

// ActorFrom returns who acts in ctx: the server itself when nobody was named.
func ActorFrom(ctx context.Context) Actor {
	if a, ok := ctx.Value(actorKey{}).(Actor); ok {
		return a
	}
	return Actor{Username: "system", Identity: "System"}
}

// Event is a line of the audit trail: what was done to which documents. Who did
// it comes from the context.
type Event struct {
	Category string // "Created", "Modified", "DeploymentQueued" ...
	SpaceID  string // "" for the system
	Message  string
	// Related lists the ids of every document that the event speaks of; events
	// are found, and their visibility is decided, by them.
	Related []string
	// References places names in Message: each says which part is which document.
	References []EventReference
	// Details is the difference that a change made, never with a secret in it.
	Details json.RawMessage
	// What decides who may see it; "" where the event has none.
	ProjectID, ProjectGroupID, EnvironmentID, TenantID string
	// DocumentType is the item type of the document at its centre ("Project").
	DocumentType string
}

// EventReference says that Message[Start:Start+Length] names the document ID.
type EventReference struct {
	ID     string `json:"ReferencedDocumentId"`
	Start  int    `json:"StartIndex"`
	Length int    `json:"Length"`
}

func (t *Tx) insertEvent(ctx context.Context, e Event) error {
	who := ActorFrom(ctx)
	refs, err := json.Marshal(e.References)
	if err != nil {
		return err
	}
	xid := "0"
	if t.d.dialect == Postgres {
		xid = "pg_current_xact_id()::text::bigint"
	}
	insert := `INSERT INTO events (xact, occurred, category, space_id, user_id, username, identity, ip_address, user_agent,
		message, refs, details, project_id, project_group_id, environment_id, tenant_id, document_type)
		VALUES (` + xid + `, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	args := []any{
		Micros(t.now), e.Category, e.SpaceID, who.UserID, who.Username, who.Identity, who.IPAddress, who.UserAgent,
		e.Message, string(refs), string(e.Details), e.ProjectID, e.ProjectGroupID, e.EnvironmentID, e.TenantID, e.DocumentType,
	}
	if len(e.Related) == 0 {
		return t.Queue(ctx, insert, args...)
	}
	insert += " RETURNING id"
	if t.d.dialect == Postgres {
		// One round trip for both tables.
		for _, doc := range e.Related {
			args = append(args, doc)
		}
		return t.Queue(ctx, `WITH e AS (`+insert+`) INSERT INTO event_related (event_id, document_id) SELECT e.id, r.document_id
			FROM e CROSS JOIN (VALUES `+strings.TrimSuffix(strings.Repeat("(?::text), ", len(e.Related)), ", ")+`) r (document_id) ON CONFLICT DO NOTHING`, args...)
	}
	var id int64
	if err := t.QueryRow(ctx, insert, args...).Scan(&id); err != nil {
		return err
	}
	args = make([]any, 0, 2*len(e.Related))
	for _, doc := range e.Related {
		args = append(args, id, doc)
	}
	values := strings.TrimSuffix(strings.Repeat("(?, ?), ", len(e.Related)), ", ")
	if _, err := t.Exec(ctx, `INSERT INTO event_related (event_id, document_id) VALUES `+values+` ON CONFLICT DO NOTHING`, args...); err != nil {
		return fmt.Errorf("relate event %d: %w", id, err)
	}
	return nil
}
