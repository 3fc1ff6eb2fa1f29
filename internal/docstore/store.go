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
}

const docColumns = `d.id, d.seq, d.space_id, d.slug, d.version, d.created, d.updated, d.updated_by, d.body`

func scanDoc(scan func(...any) error) (*Doc, error) {
	var d Doc
	var created, updated int64
	var body string
	if err := scan(&d.ID, &d.Seq, &d.Space, &d.Slug, &d.Version, &created, &updated, &d.By, &body); err != nil {
		return nil, err
	}
	d.Created, d.Updated, d.Body = db.Time(created), db.Time(updated), json.RawMessage(body)
	return &d, nil
}

// Get returns the document that ref names in space: by its id, else by its slug,
// else by its exact name (without case). A system kind has space "".
// It answers fault.NotFound for what is missing, deleted or in another space.
func (s *Store) Get(ctx context.Context, tx *db.Tx, k *resource.Kind, space ident.SpaceID, ref string) (*Doc, error) {
	row := tx.QueryRow(ctx, `SELECT `+docColumns+` FROM documents d WHERE d.kind = ? AND d.id = ? AND d.deleted = 0`, k.Name, CanonicalID(k, ref))
	doc, err := scanDoc(row.Scan)
	if errors.Is(err, sql.ErrNoRows) && !k.Unnamed {
		spaceClause, args := spaceFilter(k, space)
		args = append([]any{k.Name}, args...)
		args = append(args, strings.ToLower(ref), ident.Fold(ref), strings.ToLower(ref))
		row = tx.QueryRow(ctx, `SELECT `+docColumns+` FROM documents d WHERE d.kind = ? AND d.deleted = 0 AND `+spaceClause+
			` AND (d.slug = ? OR d.name = ?) ORDER BY CASE WHEN d.slug = ? THEN 0 ELSE 1 END, d.seq LIMIT 1`, args...)
		doc, err = scanDoc(row.Scan)
	}
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return nil, fault.Missing(k.Noun, ref)
	case err != nil:
		return nil, fmt.Errorf("read %s %s: %w", k.Noun, ref, err)
	case !inSpace(k, doc.Space, space):
		return nil, fault.Missing(k.Noun, ref)
	}
	return doc, nil
}

// inSpace reports whether a document of space has is reachable from space from.
func inSpace(k *resource.Kind, has, from ident.SpaceID) bool {
	switch k.Scope {
	case resource.InSpace:
		return has == from
	case resource.InEither:
		return has == "" || from == "" || has == from
	default:
		return true
	}
}

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
	n := len(k.Prefix)
	if len(ref) <= n+1 || ref[n] != '-' || !strings.EqualFold(ref[:n], k.Prefix) || strings.Trim(ref[n+1:], "0123456789") != "" {
		return ref
	}
	return k.Prefix + ref[n:]
}

// Load decodes the document kind/id into v, with secrets masked.
func (s *Store) Load(ctx context.Context, tx *db.Tx, kind, id string, v any) error {
	return s.load(ctx, tx, kind, id, v, func(_ context.Context, k *resource.Kind, _ string, tree resource.Tree) error { return mask(k, tree) })
}

// Reveal decodes the document kind/id into v with its secrets in clear, as new
// values. What it returns must not be logged, stored or served.
func (s *Store) Reveal(ctx context.Context, tx *db.Tx, kind, id string, v any) error {
	return s.load(ctx, tx, kind, id, v, s.unseal)
}

func (s *Store) load(ctx context.Context, tx *db.Tx, kind, id string, v any, open func(context.Context, *resource.Kind, string, resource.Tree) error) error {
	k, err := s.Kind(kind)
	if err != nil {
		return err
	}
	var body string
	err = tx.QueryRow(ctx, `SELECT d.body FROM documents d WHERE d.kind = ? AND d.id = ? AND d.deleted = 0`, kind, id).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return fault.Missing(k.Noun, id)
	}
	if err != nil {
		return fmt.Errorf("read %s %s: %w", k.Noun, id, err)
	}
	if len(k.Secrets) == 0 {
		return json.Unmarshal([]byte(body), v)
	}
	tree, err := resource.Parse([]byte(body))
	if err != nil {
		return fmt.Errorf("read %s %s: %w", k.Noun, id, err)
	}
	if err := open(ctx, k, id, tree); err != nil {
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
	return tree, mask(k, tree)
}

// reader makes a Store a resource.Writer within one transaction.
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

func (w writer) Each(ctx context.Context, kind string, space ident.SpaceID, path, value string, fn func(id string) error) error {
	k, err := w.s.Kind(kind)
	if err != nil {
		return err
	}
	q := Query{Space: space}
	if path != "" {
		q.Where = []Match{{Path: path, Any: []string{value}}}
	}
	for {
		docs, _, err := w.s.List(ctx, w.tx, k, q)
		if err != nil || len(docs) == 0 {
			return err
		}
		for _, doc := range docs {
			if err := fn(doc.ID); err != nil {
				return err
			}
		}
		q.Page.Skip += int64(len(docs))
		q.Page.Take = ident.MaxTake
	}
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
	_, err = w.s.replace(ctx, w.tx, k, id, Input{Body: body, Server: true})
	return err
}

func (w writer) Delete(ctx context.Context, kind, id string) error {
	k, err := w.s.Kind(kind)
	if err != nil {
		return err
	}
	return w.s.delete(ctx, w.tx, k, id)
}
