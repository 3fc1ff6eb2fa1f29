package docstore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
)

// indexed lists the paths by which documents of a kind can be found.
func indexed(k *resource.Kind) []string {
	var paths []string
	for _, f := range k.Filters {
		paths = append(paths, f.Path)
	}
	for _, r := range k.References {
		paths = append(paths, r.Path)
	}
	d := k.Dimensions
	paths = append(paths, d.Project, d.ProjectGroup, d.Environment, d.Tenant)
	slices.Sort(paths)
	paths = slices.Compact(paths)
	return slices.DeleteFunc(paths, func(p string) bool { return p == "" || p == "Id" })
}

func (c *change) writeIndex(ctx context.Context, tree resource.Tree) error {
	var rows []any
	for _, path := range indexed(c.k) {
		values := fold(resource.Values(tree, path))
		slices.Sort(values)
		for _, v := range slices.Compact(values) {
			rows = append(rows, c.k.Name, path, string(c.space), v, c.id)
		}
	}
	if err := insertRows(ctx, c.tx, `document_index (kind, field, space_id, value, id)`, 5, rows); err != nil {
		return fmt.Errorf("index %s %s: %w", c.k.Noun, c.id, err)
	}
	if err := c.writeUnique(ctx, tree); err != nil {
		return err
	}
	rows = rows[:0]
	for _, ref := range c.k.References {
		if ref.OnDelete == resource.Ignore {
			continue
		}
		values := resource.Values(tree, ref.Path)
		slices.Sort(values)
		for _, v := range slices.Compact(values) {
			rows = append(rows, c.k.Name, c.id, ref.Path, ref.To, v)
		}
	}
	if err := insertRows(ctx, c.tx, `document_refs (from_kind, from_id, field, to_kind, to_id)`, 5, rows); err != nil {
		return fmt.Errorf("refer from %s %s: %w", c.k.Noun, c.id, err)
	}
	return nil
}

func (c *change) writeUnique(ctx context.Context, tree resource.Tree) error {
	claims := slices.Clone(c.k.Unique)
	if c.k.Slugged {
		claims = append(claims, resource.Unique{Field: "Slug", Within: c.k.SlugWithin})
	}
	for _, u := range claims {
		for _, value := range resource.Values(tree, u.Field) {
			scope, folded := c.uniqueScope(tree, u.Within), ident.Fold(value)
			var holder string
			err := c.tx.QueryRow(ctx, `INSERT INTO document_unique (kind, field, scope, value, id) VALUES (?, ?, ?, ?, ?)
				ON CONFLICT (kind, field, scope, value) DO UPDATE SET id = document_unique.id RETURNING id`,
				c.k.Name, u.Field, scope, folded, c.id).Scan(&holder)
			if err != nil {
				return fmt.Errorf("claim %s of %s %s: %w", u.Field, c.k.Noun, c.id, err)
			}
			if holder != c.id {
				return fault.InvalidField(u.Field, "%s '%s' is already used by %s '%s'; choose another one.", u.Field, value, c.k.Noun, holder)
			}
		}
	}
	return nil
}

// maxParameters keeps one statement below what both databases take.
const maxParameters = 10000

func insertRows(ctx context.Context, tx *db.Tx, into string, width int, values []any) error {
	one := "(?" + strings.Repeat(", ?", width-1) + ")"
	for len(values) > 0 {
		n := min(len(values), maxParameters/width*width)
		_, err := tx.Exec(ctx, `INSERT INTO `+into+` VALUES `+one+strings.Repeat(", "+one, n/width-1)+` ON CONFLICT DO NOTHING`, values[:n]...)
		if err != nil {
			return err
		}
		values = values[n:]
	}
	return nil
}

func clearIndex(ctx context.Context, tx *db.Tx, k *resource.Kind, id string) error {
	for _, statement := range []string{
		`DELETE FROM document_index WHERE kind = ? AND id = ?`,
		`DELETE FROM document_unique WHERE kind = ? AND id = ?`,
		`DELETE FROM document_refs WHERE from_kind = ? AND from_id = ?`,
	} {
		if _, err := tx.Exec(ctx, statement, k.Name, id); err != nil {
			return fmt.Errorf("clear index of %s %s: %w", k.Noun, id, err)
		}
	}
	return nil
}

// Delete removes the document that ref names in space, with what cascades from
// it. A document that others refer to is refused, with their names.
func (s *Store) Delete(ctx context.Context, tx *db.Tx, k *resource.Kind, space ident.SpaceID, ref string) error {
	doc, err := s.Get(ctx, tx, k, space, ref)
	if err != nil {
		return err
	}
	return s.delete(ctx, tx, k, doc.ID)
}

func (s *Store) delete(ctx context.Context, tx *db.Tx, k *resource.Kind, id string) error {
	doc, err := scanDoc(tx.QueryRow(ctx, `SELECT `+docColumns+` FROM documents d WHERE d.kind = ? AND d.id = ? AND d.deleted = 0`+tx.ForUpdate(), k.Name, id).Scan)
	if err != nil {
		return fmt.Errorf("read %s %s: %w", k.Noun, id, err)
	}
	tree, err := s.Tree(k, doc)
	if err != nil {
		return err
	}
	old, err := k.Value(tree)
	if err != nil {
		return err
	}
	if err := s.release(ctx, tx, k, doc.ID); err != nil {
		return err
	}
	if err := k.InTx(ctx, s.In(tx), resource.Deleted, doc.Space, doc.ID, old, nil); err != nil {
		return err
	}
	if err := clearIndex(ctx, tx, k, doc.ID); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM documents WHERE kind = ? AND id = ?`, k.Name, doc.ID); err != nil {
		return fmt.Errorf("delete %s %s: %w", k.Noun, doc.ID, err)
	}
	tx.Changed(k.Name)
	c := change{s: s, tx: tx, k: k, space: doc.Space, id: doc.ID, display: resource.Text(tree, "Name")}
	c.event("Deleted", "was deleted", tree, nil)
	return nil
}

type usage struct{ kind, id, field string }

// release does for every document that refers to kind/id what its declaration
// says: refuse, follow into deletion, or let go.
func (s *Store) release(ctx context.Context, tx *db.Tx, k *resource.Kind, id string) error {
	users, err := usages(ctx, tx, k, id)
	if err != nil {
		return err
	}
	var refusing []usage
	for _, u := range users {
		if s.onDelete(u) == resource.Refuse && (u.kind != k.Name || u.id != id) {
			refusing = append(refusing, u)
		}
	}
	if len(refusing) > 0 {
		return s.inUse(ctx, tx, k, id, refusing)
	}
	for _, u := range users {
		switch s.onDelete(u) {
		case resource.Cascade:
			err = s.delete(ctx, tx, s.kinds[u.kind], u.id)
		case resource.Clear:
			err = s.clearReference(ctx, tx, u, id)
		case resource.Refuse, resource.Ignore:
		}
		if err != nil && !errors.Is(err, errGone) {
			return err
		}
	}
	return nil
}

// errGone marks a referrer that went with an earlier one.
var errGone = errors.New("already deleted")

func (s *Store) onDelete(u usage) resource.OnDelete {
	k := s.kinds[u.kind]
	if k == nil {
		return resource.Ignore
	}
	for _, r := range k.References {
		if r.Path == u.field {
			return r.OnDelete
		}
	}
	return resource.Ignore
}

func usages(ctx context.Context, tx *db.Tx, k *resource.Kind, id string) ([]usage, error) {
	rows, err := tx.Query(ctx, `SELECT r.from_kind, r.from_id, r.field FROM document_refs r WHERE r.to_kind = ? AND r.to_id = ? ORDER BY r.from_kind, r.from_id, r.field`, k.Name, id)
	if err != nil {
		return nil, fmt.Errorf("look up uses of %s %s: %w", k.Noun, id, err)
	}
	defer rows.Close()
	var users []usage
	for rows.Next() {
		var u usage
		if err := rows.Scan(&u.kind, &u.id, &u.field); err != nil {
			return nil, err
		}
		users = append(users, u)
	}
	return users, rows.Err()
}

// inUse names the first users of a document that cannot be deleted.
func (s *Store) inUse(ctx context.Context, tx *db.Tx, k *resource.Kind, id string, users []usage) error {
	const named = 5
	var names []string
	seen := map[string]bool{}
	for _, u := range users {
		if seen[u.kind+u.id] {
			continue
		}
		seen[u.kind+u.id] = true
		if len(names) == named {
			continue
		}
		label := s.kinds[u.kind].Noun + " '" + u.id + "'"
		if doc, err := scanDoc(tx.QueryRow(ctx, `SELECT `+docColumns+` FROM documents d WHERE d.kind = ? AND d.id = ?`, u.kind, u.id).Scan); err == nil {
			if tree, err := resource.Parse(doc.Body); err == nil && resource.Text(tree, "Name") != "" {
				label = s.kinds[u.kind].Noun + " '" + resource.Text(tree, "Name") + "' (" + u.id + ")"
			}
		}
		names = append(names, label)
	}
	if more := len(seen) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return fault.New(fault.Conflict, "The %s '%s' cannot be deleted because it is used by %s; change or delete these first.", k.Noun, id, strings.Join(names, ", "))
}

func (s *Store) clearReference(ctx context.Context, tx *db.Tx, u usage, target string) error {
	k := s.kinds[u.kind]
	doc, err := scanDoc(tx.QueryRow(ctx, `SELECT `+docColumns+` FROM documents d WHERE d.kind = ? AND d.id = ? AND d.deleted = 0`, u.kind, u.id).Scan)
	if err != nil {
		return errGone
	}
	tree, err := s.Tree(k, doc)
	if err != nil {
		return err
	}
	path, keys := strings.CutSuffix(u.field, ".*key")
	resource.Walk(tree, path, func(obj resource.Tree, key, _ string) {
		switch v := obj[key].(type) {
		case []any:
			obj[key] = slices.DeleteFunc(v, func(e any) bool { return e == target })
		case resource.Tree:
			if keys {
				delete(v, target)
			}
		case string:
			if v == target {
				obj[key] = nil
			}
		}
	})
	_, err = s.replace(ctx, tx, k, u.id, Input{Body: mustJSON(tree), Server: true})
	return err
}
