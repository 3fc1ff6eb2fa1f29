package docstore

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
)

// Match keeps the documents that have any of the values at path, without case.
// The path must be one of the kind's filters, dimensions or references.
type Match struct {
	Path string
	Any  []string
}

// Query asks for a page of a kind's documents.
type Query struct {
	Space ident.SpaceID // "" for a system kind; every space for a kind in either
	// Spaces cuts a kind in either to these places, when it is not nil; "" is the system.
	Spaces []ident.SpaceID
	// IDs keeps these documents only, when it is not nil. An empty list keeps none.
	IDs         []string
	Name        string // exact, without case
	PartialName string // a part of the name, without case
	Where       []Match
	// Visible keeps what one of the grants covers; nil is everything, empty nothing.
	Visible []resource.Grant
	Page    ident.Page
}

// maxIDs bounds the ids of one query; both databases bound their parameters.
const maxIDs = 5000

// order is that of every list; what sort means is for the kind to say.
const order = ` ORDER BY d.sort, d.name, d.seq, d.id`

// List returns a page of documents in the kind's order, and how many there are in all.
func (s *Store) List(ctx context.Context, tx *db.Tx, k *resource.Kind, q Query) ([]*Doc, int64, error) {
	if err := q.check(k); err != nil {
		return nil, 0, err
	}
	where, args := s.where(k, q)
	var total int64
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM documents d WHERE `+where, args...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count %s: %w", k.Name, err)
	}
	page := q.Page.Clamp()
	if total <= page.Skip {
		return nil, total, nil
	}
	docs, err := read(ctx, tx, k, where+order+` LIMIT ? OFFSET ?`, append(args, page.Take, page.Skip)...)
	return docs, total, err
}

// After returns the first documents of a list behind one that stands in it, at most
// limit of them; nil is the list's beginning. The query's Page is not used. What
// comes and goes while a list is read in this way, piece by piece, neither doubles
// nor hides what stays where it is.
func (s *Store) After(ctx context.Context, tx *db.Tx, k *resource.Kind, q Query, last *Doc, limit int) ([]*Doc, error) {
	if err := q.check(k); err != nil {
		return nil, err
	}
	where, args := s.where(k, q)
	if last != nil {
		where += ` AND (d.sort, d.name, d.seq, d.id) > (?, ?, ?, ?)`
		args = append(args, last.sort, last.name, last.Seq, last.ID)
	}
	return read(ctx, tx, k, where+order+` LIMIT ?`, append(args, limit)...)
}

// check refuses what no statement can hold.
func (q *Query) check(k *resource.Kind) error {
	if len(q.IDs) > maxIDs {
		return fault.InvalidField("ids", "ids names %d %s; ask for at most %d at once.", len(q.IDs), k.Name, maxIDs)
	}
	return nil
}

func read(ctx context.Context, tx *db.Tx, k *resource.Kind, where string, args ...any) ([]*Doc, error) {
	rows, err := tx.Query(ctx, `SELECT `+docColumns+` FROM documents d WHERE `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", k.Name, err)
	}
	defer rows.Close()
	var docs []*Doc
	for rows.Next() {
		doc, err := scanDoc(k, rows.Scan)
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", k.Name, err)
		}
		docs = append(docs, doc)
	}
	return docs, rows.Err()
}

func (s *Store) where(k *resource.Kind, q Query) (string, []any) {
	clause, spaceArgs := spaceFilter(k, q.Space)
	var b strings.Builder
	b.WriteString(`d.kind = ? AND d.deleted = 0 AND ` + clause)
	args := append([]any{k.Name}, spaceArgs...)
	if q.Spaces != nil {
		spaces := make([]string, len(q.Spaces))
		for i, id := range q.Spaces {
			spaces[i] = string(id)
		}
		b.WriteString(` AND ` + in(`d.space_id`, spaces, &args))
	}
	if q.IDs != nil {
		b.WriteString(` AND ` + in(`d.id`, canonicalIDs(k, q.IDs), &args))
	}
	if q.Name != "" {
		b.WriteString(` AND ` + named(k))
		args = append(args, ident.Fold(q.Name))
	}
	switch part := ident.Fold(q.PartialName); {
	case len(part) > maxSought: // SQLite refuses long patterns
		b.WriteString(` AND 1 = 0`)
	case part != "":
		b.WriteString(` AND d.name LIKE ? ESCAPE '\'`)
		args = append(args, db.Containing(part))
	}
	for _, m := range q.Where {
		b.WriteString(` AND ` + ofMany.match(k, m.Path, m.Any, &args))
	}
	if q.Visible != nil {
		b.WriteString(` AND ` + ofMany.visible(k, q.Visible, k.Dimensions.Shared, &args))
	}
	return b.String(), args
}

// Visible reports whether one of the grants lets a document be seen, as lists do.
func (s *Store) Visible(ctx context.Context, tx *db.Tx, k *resource.Kind, id string, grants []resource.Grant) (bool, error) {
	return s.within(ctx, tx, k, id, grants, k.Dimensions.Shared)
}

// Covered reports whether one of the grants covers a document in all of its
// dimensions: one that is shared is covered by a grant without limits there.
func (s *Store) Covered(ctx context.Context, tx *db.Tx, k *resource.Kind, id string, grants []resource.Grant) (bool, error) {
	return s.within(ctx, tx, k, id, grants, false)
}

func (s *Store) within(ctx context.Context, tx *db.Tx, k *resource.Kind, id string, grants []resource.Grant, shared bool) (bool, error) {
	args := []any{k.Name, id}
	var n int
	err := tx.QueryRow(ctx, `SELECT count(*) FROM documents d WHERE d.kind = ? AND d.id = ? AND `+ofOne.visible(k, grants, shared, &args), args...).Scan(&n)
	return n > 0, err
}

// reach is of how many documents a condition on the index is asked. The databases
// take the one or the other form as it is written: asked of each of many documents,
// a look into the index for each of many values is their product; and to find all
// that have the values is a waste where one document is asked about.
type reach uint8

const (
	ofMany reach = iota // of all of a kind
	ofOne               // of a document that is known already
)

// indexed is the condition that a document has a row x in the index for which
// value holds. The parameters of kind and path come before those of value.
func (r reach) indexed(value string) string {
	if r == ofOne {
		return `EXISTS (SELECT 1 FROM document_index x WHERE x.kind = ? AND x.field = ? AND x.id = d.id AND ` + value + `)`
	}
	return `d.id IN (SELECT x.id FROM document_index x WHERE x.kind = ? AND x.field = ? AND ` + value + `)`
}

// visible compiles grants to a disjunction over the kind's dimensions; shared lets
// every grant through to what is in no environment, or of no tenant.
func (r reach) visible(k *resource.Kind, grants []resource.Grant, shared bool, args *[]any) string {
	var alternatives []string
	before := len(*args)
	for _, g := range grants {
		var all []string
		restrict := func(path string, ids []string) {
			if len(ids) > 0 && path != "" {
				all = append(all, r.match(k, path, ids, args))
			}
		}
		within := func(path string, ids []string) {
			restrict(path, ids)
			if last := len(all) - 1; shared && len(ids) > 0 && path != "" && path != "Id" {
				*args = append(*args, k.Name, path)
				all[last] = `(` + all[last] + ` OR NOT EXISTS (SELECT 1 FROM document_index x WHERE x.kind = ? AND x.field = ? AND x.id = d.id))`
			}
		}
		restrict(k.Dimensions.Project, g.Projects)
		within(k.Dimensions.Environment, g.Environments)
		within(k.Dimensions.Tenant, g.Tenants)
		switch {
		case len(g.ProjectGroups) == 0:
		case k.Dimensions.ProjectGroup != "":
			restrict(k.Dimensions.ProjectGroup, g.ProjectGroups)
		case k.Dimensions.Project != "":
			// The kind names its project; the project names its group.
			const ofGroups = ` FROM document_index p WHERE p.kind = 'projects' AND p.field = 'ProjectGroupId' AND `
			if k.Dimensions.Project == "Id" {
				all = append(all, `d.id IN (SELECT p.id`+ofGroups+in(`p.value`, fold(g.ProjectGroups), args)+`)`)
				break
			}
			*args = append(*args, k.Name, k.Dimensions.Project)
			all = append(all, r.indexed(`x.value IN (SELECT lower(p.id)`+ofGroups+in(`p.value`, fold(g.ProjectGroups), args)+`)`))
		}
		if len(all) == 0 { // nothing that restricts this kind
			*args = (*args)[:before]
			return `1 = 1`
		}
		alternatives = append(alternatives, `(`+strings.Join(all, ` AND `)+`)`)
	}
	if len(alternatives) == 0 {
		return `1 = 0`
	}
	return `(` + strings.Join(alternatives, ` OR `) + `)`
}

// match is the condition that a document has one of the values at path.
func (r reach) match(k *resource.Kind, path string, values []string, args *[]any) string {
	if path == "Id" {
		return in(`d.id`, canonicalIDs(k, values), args)
	}
	*args = append(*args, k.Name, path)
	return r.indexed(in(`x.value`, fold(values), args))
}

func canonicalIDs(k *resource.Kind, ids []string) []string {
	out := make([]string, len(ids))
	for i, id := range ids {
		out[i] = CanonicalID(k, id)
	}
	return out
}

// fold maps values to the form in which they are indexed.
func fold(values []string) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = indexKey(v)
	}
	return out
}

// maxKey is how long an indexed value may be, in bytes: PostgreSQL refuses to
// index rows of more than 2704.
const maxKey = 400

// indexKey is a value as it is indexed: folded, and of a long one its beginning
// with a hash of the whole.
func indexKey(value string) string {
	folded := ident.Fold(value)
	if len(folded) <= maxKey {
		return folded
	}
	return strings.ToValidUTF8(folded[:maxKey], "") + "#" + fmt.Sprintf("%x", sha256.Sum256([]byte(folded)))
}

func in(column string, values []string, args *[]any) string {
	if len(values) == 0 {
		return `1 = 0`
	}
	for _, v := range values {
		*args = append(*args, v)
	}
	return column + ` IN (?` + strings.Repeat(`, ?`, len(values)-1) + `)`
}
