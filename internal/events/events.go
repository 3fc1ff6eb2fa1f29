// Package events reads the audit trail: who did what to which documents, and when.
//
// Events are written by the transactions that they tell of (package db owns the
// table), so there is none without its change and no change without its event.
// Nothing here writes. A reader names the places it may look into, with the ways
// in which its permission is limited there, and what else to keep; all of it is
// decided in SQL, so that pages and totals count only what may be seen.
//
// Events are numbered as they are written, which on PostgreSQL is not the order
// in which they become visible. Who follows the trail by number therefore sees
// only what no transaction that is still open can precede, and misses nothing.
package events

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Prefix begins the ids of events; their number follows.
const Prefix = "Events"

// Trail reads the audit trail. It is safe for concurrent use and holds no state
// but the declared kinds.
type Trail struct {
	kinds    resource.Set
	prefixes map[string]string // of ids, by their folded form
}

// New makes a reader that knows kinds by the prefixes of their ids.
func New(kinds resource.Set) *Trail {
	t := &Trail{kinds, map[string]string{}}
	for _, k := range kinds {
		t.prefixes[strings.ToLower(k.Prefix)] = k.Prefix
	}
	for prefix := range unkinded() {
		t.prefixes[strings.ToLower(prefix)] = prefix
	}
	return t
}

// Place is a part of the trail that may be looked into.
type Place struct {
	Space ident.SpaceID // "" for what happens outside of spaces
	// Grants limit what is seen there; nil is everything, an empty list nothing.
	Grants []resource.Grant
}

// Query asks for events. Lists keep the events that have any of their values; an
// empty one keeps all.
type Query struct {
	// Places are where the reader may look; nothing else is ever found.
	Places []Place
	// From and To are instants, both included; the zero time is no limit.
	From, To time.Time
	// FromID and ToID are numbers of events, both included; 0 is no limit. With
	// either, events that one of a transaction still under way might precede are left out.
	FromID, ToID int64
	// IDs keeps these events only, when it is not nil.
	IDs []string
	// Regarding are documents that the event must all be about, RegardingAny those
	// of which one is enough.
	Regarding, RegardingAny                        []string
	Projects, ProjectGroups, Environments, Tenants []string
	Users                                          []string
	// Categories, Groups (of categories), Agents and DocumentTypes are named by
	// their ids; one that is not known matches nothing.
	Categories, Groups, Agents, DocumentTypes []string
	// NoDifference leaves out what exactly was changed.
	NoDifference bool
	// Shows tells whose differences the reader may see: they are parts of
	// documents, which to see may take more than to see that they were changed.
	// Nil shows none.
	Shows func(Subject) bool
	Page  ident.Page
}

// Subject is what an event is about, as far as permissions ask for it.
type Subject struct {
	Space ident.SpaceID
	// DocumentType is the item type of the document that was changed.
	DocumentType string
	// ProjectGroup is folded, as ids are compared. All are "" where there is none.
	Project, ProjectGroup, Environment, Tenant string
}

// following reports whether the trail is followed by number.
func (q *Query) following() bool { return q.FromID > 0 || q.ToID > 0 }

const columns = `e.id, e.space_id, e.category, e.user_id, e.username, e.identity, e.ip_address, e.user_agent, e.occurred, e.message, e.refs, e.details,
	e.document_type, e.project_id, e.environment_id, e.tenant_id, CASE WHEN e.details = '' THEN '' ELSE COALESCE((SELECT p.value FROM document_index p
		WHERE p.kind = 'projects' AND p.field = 'ProjectGroupId' AND p.id = e.project_id), e.project_group_id) END`

// counted is how many events beyond a page are counted: the trail only ever grows,
// and counting all of it would make the first page slower with each event.
const counted = 10_000

// List returns a page of events, the newest first, and how many there are in all,
// counting at most 10,000 of those that come after the page. Where there are more,
// the number grows as later pages are asked for, so that whoever walks through the
// pages comes to all of them. They have no links.
func (t *Trail) List(ctx context.Context, tx *db.Tx, q Query) ([]octopus.Event, int64, error) {
	where, args, err := t.where(ctx, tx, &q)
	if err != nil {
		return nil, 0, err
	}
	page := q.Page.Clamp()
	var total int64
	err = tx.QueryRow(ctx, `SELECT count(*) FROM (SELECT 1 FROM events e WHERE `+where+` LIMIT ?) c`, append(slices.Clip(args), page.Skip+page.Take+counted)...).Scan(&total)
	if err != nil {
		return nil, 0, fmt.Errorf("count events: %w", err)
	}
	if total <= page.Skip {
		return nil, total, nil
	}
	found, _, err := t.read(ctx, tx, &q, where+` ORDER BY e.id DESC LIMIT ? OFFSET ?`, append(args, page.Take, page.Skip))
	// Between two statements on PostgreSQL another event may have come.
	return found, max(total, page.Skip+int64(len(found))), err
}

// Before returns at most n events with smaller numbers than id, the newest first,
// and the smallest number among them; an id of 0 begins at the end of the trail,
// and a smallest of 0 is the end of the answer. Who reads a long part of the
// trail reads it so, piece by piece, each in a transaction of its own.
func (t *Trail) Before(ctx context.Context, tx *db.Tx, q Query, id int64, n int) (found []octopus.Event, smallest int64, err error) {
	where, args, err := t.where(ctx, tx, &q)
	if err != nil {
		return nil, 0, err
	}
	if id > 0 {
		where += ` AND e.id < ?`
		args = append(args, id)
	}
	return t.read(ctx, tx, &q, where+` ORDER BY e.id DESC LIMIT ?`, append(args, n))
}

// Get returns an event by its id, if it is in a place of q; fault.NotFound else. Of
// q, Places and Shows count.
func (t *Trail) Get(ctx context.Context, tx *db.Tx, q Query, id string) (*octopus.Event, error) {
	q = Query{Places: q.Places, Shows: q.Shows, IDs: []string{id}}
	where, args, err := t.where(ctx, tx, &q)
	if err != nil {
		return nil, err
	}
	found, _, err := t.read(ctx, tx, &q, where, args)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 {
		return nil, fault.Missing("event", id)
	}
	return &found[0], nil
}

// read runs a query for events and completes them.
func (t *Trail) read(ctx context.Context, tx *db.Tx, q *Query, where string, args []any) (found []octopus.Event, smallest int64, err error) {
	found, numbers, err := scan(ctx, tx, q, where, args)
	if err != nil || len(found) == 0 {
		return found, 0, err
	}
	if err := relate(ctx, tx, found, numbers); err != nil {
		return nil, 0, err
	}
	return found, numbers[len(numbers)-1], markServices(ctx, tx, found)
}

func scan(ctx context.Context, tx *db.Tx, q *Query, where string, args []any) (found []octopus.Event, numbers []int64, err error) {
	rows, err := tx.Query(ctx, `SELECT `+columns+` FROM events e WHERE `+where, args...)
	if err != nil {
		return nil, nil, fmt.Errorf("read events: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		e, n, err := scanEvent(rows, q)
		if err != nil {
			return nil, nil, fmt.Errorf("read events: %w", err)
		}
		found, numbers = append(found, e), append(numbers, n)
	}
	return found, numbers, rows.Err()
}

func scanEvent(rows *sql.Rows, q *Query) (e octopus.Event, number int64, err error) {
	var occurred int64
	var refs, details string
	var about Subject
	err = rows.Scan(&number, &e.SpaceID, &e.Category, &e.UserID, &e.Username, &e.IdentityEstablishedWith, &e.IPAddress, &e.UserAgent, &occurred, &e.Message, &refs, &details,
		&about.DocumentType, &about.Project, &about.Environment, &about.Tenant, &about.ProjectGroup)
	if err != nil {
		return e, 0, err
	}
	e.ID = ident.ID(Prefix, number)
	e.Occurred = octopus.NewTime(db.Time(occurred))
	var stored []db.EventReference
	if err := json.Unmarshal([]byte(refs), &stored); err != nil {
		return e, 0, fmt.Errorf("references of event %d: %w", number, err)
	}
	for _, ref := range stored {
		if from, length, ok := units(e.Message, ref.Start, ref.Length); ok {
			e.MessageReferences = append(e.MessageReferences, octopus.EventReference{ReferencedDocumentID: ref.ID, StartIndex: from, Length: length})
		}
	}
	about.Space = ident.SpaceID(e.SpaceID)
	if details != "" && !q.NoDifference && q.Shows != nil && q.Shows(about) {
		if e.ChangeDetails, err = changes([]byte(details)); err != nil {
			return e, 0, fmt.Errorf("details of event %d: %w", number, err)
		}
	}
	return e, number, nil
}

// units turns a place in a message from bytes, as it is stored, into UTF-16
// units, as clients count.
func units(message string, start, length int) (from, n int, ok bool) {
	if start < 0 || length < 0 || start > len(message) || length > len(message)-start {
		return 0, 0, false
	}
	count := func(s string) int { return len(utf16.Encode([]rune(s))) }
	return count(message[:start]), count(message[start : start+length]), true
}

// patch is a line of a JSON patch (RFC 6902), with the old value beside it.
type patch struct {
	Op    string          `json:"op"`
	Path  string          `json:"path"`
	Value json.RawMessage `json:"value,omitempty"`
	Old   json.RawMessage `json:"oldValue,omitempty"`
}

// changes turns a stored difference into what clients read.
func changes(details []byte) (*octopus.ChangeDetails, error) {
	var stored []struct {
		Path     string          `json:"path"`
		Old, New json.RawMessage `json:",omitempty"`
	}
	if err := json.Unmarshal(details, &stored); err != nil {
		return nil, err
	}
	none := func(v json.RawMessage) bool { return len(v) == 0 || string(v) == "null" }
	lines := make([]patch, len(stored))
	for i, d := range stored {
		lines[i] = patch{Op: "replace", Path: d.Path, Value: d.New, Old: d.Old}
		switch {
		case none(d.Old):
			lines[i].Op, lines[i].Old = "add", nil
		case none(d.New):
			lines[i].Op, lines[i].Value = "remove", nil
		}
	}
	body, err := json.Marshal(lines)
	if err != nil {
		return nil, err
	}
	return &octopus.ChangeDetails{DocumentContext: json.RawMessage("null"), Differences: body}, nil
}

// relate adds what each event is about.
func relate(ctx context.Context, tx *db.Tx, found []octopus.Event, numbers []int64) error {
	place := make(map[int64]int, len(numbers))
	args := make([]any, len(numbers))
	for i, n := range numbers {
		place[n], args[i] = i, n
	}
	rows, err := tx.Query(ctx, `SELECT r.event_id, r.document_id FROM event_related r WHERE r.event_id IN (?`+strings.Repeat(", ?", len(args)-1)+`) ORDER BY r.event_id, r.document_id`, args...)
	if err != nil {
		return fmt.Errorf("read what events are about: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var n int64
		var id string
		if err := rows.Scan(&n, &id); err != nil {
			return fmt.Errorf("read what events are about: %w", err)
		}
		if id != "" {
			e := &found[place[n]]
			e.RelatedDocumentIDs = append(e.RelatedDocumentIDs, id)
		}
	}
	return rows.Err()
}

// markServices tells which of the events' users are service accounts.
func markServices(ctx context.Context, tx *db.Tx, found []octopus.Event) error {
	users := map[string]bool{}
	var args []any
	for i := range found {
		if id := found[i].UserID; id != "" && !users[id] {
			users[id] = true
			args = append(args, id)
		}
	}
	if len(args) == 0 {
		return nil
	}
	rows, err := tx.Query(ctx, `SELECT x.id FROM document_index x WHERE x.kind = 'users' AND x.field = 'IsService' AND x.value = 'true' AND x.id IN (?`+strings.Repeat(", ?", len(args)-1)+`)`, args...)
	if err != nil {
		return fmt.Errorf("read whose events these are: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	services := map[string]bool{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return fmt.Errorf("read whose events these are: %w", err)
		}
		services[id] = true
	}
	for i := range found {
		found[i].IsService = services[found[i].UserID]
	}
	return rows.Err()
}
