// Package docstore keeps the documents of declared kinds in the database.
//
// A document is the JSON that clients see, with its secrets sealed. Beside it
// stand the rows by which it is found (document_index), kept unique
// (document_unique) and protected from deletion (document_refs); all of them are
// written in the caller's transaction together with the audit event. The rules
// come from the kind's declaration; nothing here knows any kind by name.
package docstore

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
)

// Sealer encrypts the secrets of documents. The owner (a document's id) and the
// field are bound to the ciphertext, so that one moved elsewhere does not open.
type Sealer interface {
	Seal(owner, field string, clear []byte) (string, error)
	Open(ctx context.Context, owner, field, sealed string) ([]byte, error)
}

// Store reads and writes documents. It is safe for concurrent use and holds no state.
type Store struct {
	kinds  resource.Set
	sealer Sealer
}

// New makes a store of these kinds.
func New(kinds resource.Set, sealer Sealer) *Store { return &Store{kinds: kinds, sealer: sealer} }

// Kind returns a declared kind; a name that nobody declared is a programmer's error.
func (s *Store) Kind(name string) (*resource.Kind, error) {
	if k := s.kinds[name]; k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("docstore: no kind %q", name)
}

// Kinds are all kinds the store knows.
func (s *Store) Kinds() resource.Set { return s.kinds }

// Doc is a stored document.
type Doc struct {
	ID      string
	Seq     int64
	Space   ident.SpaceID
	Slug    string
	Version int64 // counts its changes, from 1
	Created time.Time
	Updated time.Time
	By      string // the user name of the last change
	// Body is the document as stored: its secrets are sealed.
	Body json.RawMessage

	// Where it stands in lists; see order.
	sort int64
	name string
}

const docColumns = `d.id, d.seq, d.space_id, d.slug, d.version, d.created, d.updated, d.updated_by, d.body_version, d.body, d.sort, d.name`

// scanDoc reads a row of docColumns. A body that was stored when the wire type had
// other members is completed.
func scanDoc(k *resource.Kind, scan func(...any) error) (*Doc, error) {
	var d Doc
	var created, updated, shape int64
	var body string
	if err := scan(&d.ID, &d.Seq, &d.Space, &d.Slug, &d.Version, &created, &updated, &d.By, &shape, &body, &d.sort, &d.name); err != nil {
		return nil, err
	}
	d.Created, d.Updated = db.Time(created), db.Time(updated)
	var err error
	d.Body, err = fresh(k, d.ID, shape, body)
	return &d, err
}

// fresh is a stored body as the kind's type is now. body_version has the shape of
// the type that it was stored with; to compare the two is all that it costs as
// long as the type stays as it is.
func fresh(k *resource.Kind, id string, shape int64, body string) (json.RawMessage, error) {
	if shape == k.Shape() {
		return json.RawMessage(body), nil
	}
	complete, err := k.Refresh([]byte(body))
	if err != nil {
		return nil, fmt.Errorf("complete %s %s, which another version has stored: %w", k.Noun, id, err)
	}
	return complete, nil
}

// lock reads the document kind/id and keeps it from others until the end of the
// transaction. One that is not there is a NotFound caused by a goneError.
func lock(ctx context.Context, tx *db.Tx, k *resource.Kind, id string) (*Doc, error) {
	doc, err := scanDoc(k, tx.QueryRow(ctx, `SELECT `+docColumns+` FROM documents d WHERE d.kind = ? AND d.id = ? AND d.deleted = 0`+tx.ForUpdate(), k.Name, id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		gone := fault.Missing(k.Noun, id)
		gone.Cause = &goneError{k.Name, id}
		return nil, gone
	}
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", k.Noun, id, err)
	}
	return doc, nil
}

// goneError is the cause of a fault about a document that is not there.
type goneError struct{ kind, id string }

// Error is for the log.
func (e *goneError) Error() string { return "no document " + e.kind + "/" + e.id }

// Get returns the document that ref names in space: by its id, else by its slug,
// else by its exact name (without case). A system kind has space "".
// It answers fault.NotFound for what is missing, deleted or in another space.
func (s *Store) Get(ctx context.Context, tx *db.Tx, k *resource.Kind, space ident.SpaceID, ref string) (*Doc, error) {
	clause, args := spaceFilter(k, space)
	find := func(where string, values ...any) (*Doc, error) {
		all := append(append([]any{k.Name}, args...), values...)
		return scanDoc(k, tx.QueryRow(ctx, `SELECT `+docColumns+` FROM documents d WHERE d.kind = ? AND d.deleted = 0 AND `+clause+
			` AND `+where+` ORDER BY d.seq, d.id LIMIT 1`, all...).Scan)
	}
	doc, err := find(`d.id = ?`, CanonicalID(k, ref))
	// The empty text is the slug and the name of what has none.
	if folded := ident.Fold(ref); folded != "" && len(folded) <= maxSought {
		if errors.Is(err, sql.ErrNoRows) && k.Slugged {
			doc, err = find(`d.slug = ?`, folded)
		}
		if errors.Is(err, sql.ErrNoRows) && !k.Unnamed {
			doc, err = find(named(k), folded)
		}
	}
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, fault.Missing(k.Noun, short(ref))
	case err != nil:
		return nil, fmt.Errorf("read %s %s: %w", k.Noun, short(ref), err)
	}
	return doc, nil
}

// named is the condition that a document has a name. Where the kind's order is
// by name, the index of that order finds it.
func named(k *resource.Kind) string {
	if k.Order == resource.ByName {
		return `d.sort = 0 AND d.name = ?`
	}
	return `d.name = ?`
}

// maxSought is the longest text, in bytes, that names and parts of names are
// looked up by; they are shorter themselves.
const maxSought = 4 * MaxName

// short cuts what a client sent, for a message.
func short(s string) string {
	const most = 100
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}

// spaceFilter is the condition that a document is reachable from space.
func spaceFilter(k *resource.Kind, space ident.SpaceID) (clause string, args []any) {
	switch {
	case k.Scope == resource.InSpace:
		return `d.space_id = ?`, []any{string(space)}
	case k.Scope == resource.InEither && space != "":
		return `d.space_id IN ('', ?)`, []any{string(space)}
	default:
		return `1 = 1`, nil
	}
}

// CanonicalID spells the prefix of a numbered id as the kind does, since ids are
// compared without case. Other ids ("feeds-builtin") and what is none come back
// as they are.
func CanonicalID(k *resource.Kind, ref string) string {
	if !numbered(k, ref) {
		return ref
	}
	return k.Prefix + ref[len(k.Prefix):]
}

// numbered reports whether ref has the form of an id from the kind's counter.
func numbered(k *resource.Kind, ref string) bool {
	n := len(k.Prefix)
	return len(ref) > n+1 && ref[n] == '-' && strings.EqualFold(ref[:n], k.Prefix) && strings.Trim(ref[n+1:], "0123456789") == ""
}

// Load decodes the document kind/id into v, with secrets masked.
func (s *Store) Load(ctx context.Context, tx *db.Tx, kind, id string, v any) error {
	return s.load(ctx, tx, kind, id, v, func(_ context.Context, _ string, tree resource.Tree) error { return mask(tree) })
}

// Reveal decodes the document kind/id into v with its secrets in clear, as new
// values. What it returns must not be logged, stored or served.
func (s *Store) Reveal(ctx context.Context, tx *db.Tx, kind, id string, v any) error {
	return s.load(ctx, tx, kind, id, v, s.unseal)
}

func (s *Store) load(ctx context.Context, tx *db.Tx, kind, id string, v any, open func(context.Context, string, resource.Tree) error) error {
	k, err := s.Kind(kind)
	if err != nil {
		return err
	}
	var shape int64
	var stored string
	err = tx.QueryRow(ctx, `SELECT d.body_version, d.body FROM documents d WHERE d.kind = ? AND d.id = ? AND d.deleted = 0`, kind, id).Scan(&shape, &stored)
	if errors.Is(err, sql.ErrNoRows) {
		return fault.Missing(k.Noun, short(id))
	}
	if err != nil {
		return fmt.Errorf("read %s %s: %w", k.Noun, short(id), err)
	}
	body, err := fresh(k, id, shape, stored)
	if err != nil {
		return err
	}
	if !hasSecrets(body) {
		return json.Unmarshal(body, v)
	}
	tree, err := resource.Parse(body)
	if err != nil {
		return fmt.Errorf("read %s %s: %w", k.Noun, id, err)
	}
	if err := open(ctx, id, tree); err != nil {
		return fmt.Errorf("read %s %s: %w", k.Noun, id, err)
	}
	clean, err := json.Marshal(tree)
	if err != nil {
		return err
	}
	return json.Unmarshal(clean, v)
}

// Tree returns the document's tree with secrets masked, for serving.
func (s *Store) Tree(k *resource.Kind, doc *Doc) (resource.Tree, error) {
	tree, err := resource.Parse(doc.Body)
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", k.Noun, doc.ID, err)
	}
	return tree, mask(tree)
}

// writer makes a Store a resource.Writer within one transaction.
type writer struct {
	s  *Store
	tx *db.Tx
}

var _ resource.Writer = writer{}

// In gives the rules of declarations (and other code that changes documents)
// their view of the store within tx.
func (s *Store) In(tx *db.Tx) resource.Writer { return writer{s, tx} }

func (w writer) Tx() *db.Tx { return w.tx }

func (w writer) Load(ctx context.Context, kind, id string, v any) error {
	return w.s.Load(ctx, w.tx, kind, id, v)
}

func (w writer) Reveal(ctx context.Context, kind, id string, v any) error {
	return w.s.Reveal(ctx, w.tx, kind, id, v)
}

func (w writer) Each(ctx context.Context, kind string, space ident.SpaceID, path, value string, fn func(id string) error) error {
	k, err := w.s.Kind(kind)
	if err != nil {
		return err
	}
	q := Query{Space: space}
	if path != "" {
		q.Where = []Match{{Path: path, Any: []string{value}}}
	}
	// All of them first: what fn changes must neither move nor drop any.
	where, args := w.s.where(k, q)
	rows, err := w.tx.Query(ctx, `SELECT d.id FROM documents d WHERE `+where+order, args...)
	if err != nil {
		return fmt.Errorf("list %s: %w", k.Name, err)
	}
	defer rows.Close()
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return fmt.Errorf("list %s: %w", k.Name, err)
		}
		ids = append(ids, id)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return fmt.Errorf("list %s: %w", k.Name, err)
	}
	for _, id := range ids {
		if err := fn(id); err != nil {
			return err
		}
	}
	return nil
}

func (w writer) Create(ctx context.Context, kind string, space ident.SpaceID, id string, v any) (string, error) {
	k, err := w.s.Kind(kind)
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(v)
	if err != nil {
		return "", fmt.Errorf("encode %s: %w", k.Noun, err)
	}
	doc, err := w.s.Create(ctx, w.tx, k, Input{Space: space, ID: id, Body: body, Server: true})
	if err != nil {
		return "", err
	}
	return doc.ID, nil
}

func (w writer) Replace(ctx context.Context, kind, id string, v any) error {
	k, err := w.s.Kind(kind)
	if err != nil {
		return err
	}
	body, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", k.Noun, err)
	}
	_, err = w.s.replace(ctx, w.tx, k, id, Input{Body: body, Server: true, typed: true})
	return err
}

func (w writer) Delete(ctx context.Context, kind, id string) error {
	k, err := w.s.Kind(kind)
	if err != nil {
		return err
	}
	return w.s.delete(ctx, w.tx, k, id)
}
