package db

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
)

// On PostgreSQL events are numbered before their transactions end, so that a smaller
// number can become visible after a larger one. A transaction that writes events says so
// before it takes its first number, by a lock that lasts as long as itself and refuses
// nobody: in its key is the last number that was given out before.
const (
	// eventLocks begins the keys of these locks; the number is in the lower 40 bits.
	eventLocks = 0x74616B << 40
	lastEvent  = `SELECT COALESCE(pg_sequence_last_value(pg_get_serial_sequence('events', 'id')::regclass), 0)`
)

// SettledEvents is a number up to which every event that there is, or will ever be, can be
// seen by the statements that follow this one. On SQLite, which writes one transaction at
// a time, that is so of all numbers. It is for reading outside of a snapshot: one that
// was taken before knows less than it says.
func (t *Tx) SettledEvents(ctx context.Context) (int64, error) {
	if t.d.dialect == SQLite {
		return math.MaxInt64, nil
	}
	// Whoever has taken a number up to this one has their lock, or has ended; so the locks
	// are looked at later than the number, and the events later than the locks.
	var settled, open int64
	err := t.QueryRow(ctx, lastEvent).Scan(&settled)
	if err == nil {
		err = t.QueryRow(ctx, `SELECT COALESCE(min((l.classid::bigint << 32 | l.objid::bigint) - ?), ?) FROM pg_locks l
			WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.classid::bigint >> 8 = ?
			AND l.database = (SELECT d.oid FROM pg_database d WHERE d.datname = current_database())`,
			int64(eventLocks), settled, int64(eventLocks>>40)).Scan(&open)
	}
	if err != nil {
		return 0, fmt.Errorf("find out which events are settled: %w", err)
	}
	return min(settled, open), nil
}

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
	with, values := ``, `VALUES (0, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`
	if t.d.dialect == Postgres && !t.announced {
		// The row comes from where the lock is taken, and is numbered afterwards.
		t.announced = true
		with = fmt.Sprintf(`a AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(%d + (%s))), `, int64(eventLocks), lastEvent)
		values = `SELECT 0, ?::bigint` + strings.Repeat(`, ?::text`, 15) + ` FROM a`
	}
	insert := `INSERT INTO events (xact, occurred, category, space_id, user_id, username, identity, ip_address, user_agent,
		message, refs, details, project_id, project_group_id, environment_id, tenant_id, document_type)
		` + values
	args := []any{
		Micros(t.now), e.Category, e.SpaceID, who.UserID, who.Username, who.Identity, who.IPAddress, who.UserAgent,
		e.Message, string(refs), string(e.Details), e.ProjectID, e.ProjectGroupID, e.EnvironmentID, e.TenantID, e.DocumentType,
	}
	if len(e.Related) == 0 {
		if with != "" {
			insert = `WITH ` + strings.TrimSuffix(with, ", ") + " " + insert
		}
		return t.Queue(ctx, insert, args...)
	}
	insert += " RETURNING id"
	if t.d.dialect == Postgres {
		// One round trip for both tables.
		for _, doc := range e.Related {
			args = append(args, doc)
		}
		return t.Queue(ctx, `WITH `+with+`e AS (`+insert+`) INSERT INTO event_related (event_id, document_id) SELECT e.id, r.document_id
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
	list := strings.TrimSuffix(strings.Repeat("(?, ?), ", len(e.Related)), ", ")
	if _, err := t.Exec(ctx, `INSERT INTO event_related (event_id, document_id) VALUES `+list+` ON CONFLICT DO NOTHING`, args...); err != nil {
		return fmt.Errorf("relate event %d: %w", id, err)
	}
	return nil
}
