package docstore

import (
	"context"
	"encoding/json"
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
			scope, folded := c.uniqueScope(tree, u.Within), indexKey(value)
			var holder string
			err := c.tx.QueryRow(ctx, `INSERT INTO document_unique (kind, field, scope, value, id) VALUES (?, ?, ?, ?, ?)
				ON CONFLICT (kind, field, scope, value) DO UPDATE SET id = document_unique.id RETURNING id`,
				c.k.Name, u.Field, scope, folded, c.id).Scan(&holder)
			if err != nil {
				return fmt.Errorf("claim %s of %s %s: %w", u.Field, c.k.Noun, c.id, err)
			}
			if holder != c.id {
				return fault.InvalidField(u.Field, "%s '%s' is already used by the %s '%s'; choose another one.", u.Field, short(value), c.k.Noun, holder)
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
		err := tx.Queue(ctx, `INSERT INTO `+into+` VALUES `+one+strings.Repeat(", "+one, n/width-1)+` ON CONFLICT DO NOTHING`, values[:n]...)
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
		if err := tx.Queue(ctx, statement, k.Name, id); err != nil {
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
	doc, err := lock(ctx, tx, k, id)
	if err != nil {
		return err
	}
	tree, err := s.Tree(k, doc)
	if err != nil {
		return err
	}
	old, err := k.Value(tree)
	if err != nil {
		return err
	}
	users, err := s.usages(ctx, tx, k, id)
	if err != nil {
		return err
	}
	// The document goes first, so that the rules of those that go with it see
	// that it is gone.
	if err := clearIndex(ctx, tx, k, doc.ID); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM documents WHERE kind = ? AND id = ?`, k.Name, doc.ID); err != nil {
		return fmt.Errorf("delete %s %s: %w", k.Noun, doc.ID, err)
	}
	if err := s.release(ctx, tx, doc.ID, users); err != nil {
		return err
	}
	if err := k.InTx(ctx, s.In(tx), resource.Deleted, doc.Space, doc.ID, old, nil); err != nil {
		return err
	}
	tx.Changed(k.Name)
	c := change{s: s, tx: tx, k: k, space: doc.Space, id: doc.ID, display: resource.Text(tree, "Name")}
	c.event("Deleted", "was deleted", tree, nil)
	return nil
}

// usage is a reference to a document that is to be deleted.
type usage struct{ kind, id, field string }

// usages lists who refers to a document, and refuses where a declaration does.
func (s *Store) usages(ctx context.Context, tx *db.Tx, k *resource.Kind, id string) ([]usage, error) {
	users, err := referrers(ctx, tx, k, id)
	if err != nil {
		return nil, fmt.Errorf("look up uses of %s %s: %w", k.Noun, id, err)
	}
	users = slices.DeleteFunc(users, func(u usage) bool { return u.kind == k.Name && u.id == id })
	var refusing []usage
	for _, u := range users {
		if s.onDelete(u) == resource.Refuse {
			refusing = append(refusing, u)
		}
	}
	if len(refusing) > 0 {
		return nil, s.inUse(ctx, tx, k, id, refusing)
	}
	return users, nil
}

// release does for every document that referred to id what its declaration says:
// follow into deletion, or let go. One that went with an earlier one is done with.
func (s *Store) release(ctx context.Context, tx *db.Tx, id string, users []usage) error {
	for len(users) > 0 {
		u, n := users[0], 1
		for n < len(users) && users[n].kind == u.kind && users[n].id == u.id {
			n++
		}
		follows := slices.ContainsFunc(users[:n], func(u usage) bool { return s.onDelete(u) == resource.Cascade })
		var err error
		if follows {
			err = s.delete(ctx, tx, s.kinds[u.kind], u.id)
		} else {
			err = s.clearReferences(ctx, tx, users[:n], id)
		}
		if err != nil && !goneIs(err, u) {
			return err
		}
		users = users[n:]
	}
	return nil
}

// goneIs reports whether err says that this very document is not there.
func goneIs(err error, u usage) bool {
	var gone *goneError
	return errors.As(err, &gone) && gone.kind == u.kind && gone.id == u.id
}

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

func referrers(ctx context.Context, tx *db.Tx, k *resource.Kind, id string) ([]usage, error) {
	rows, err := tx.Query(ctx, `SELECT r.from_kind, r.from_id, r.field FROM document_refs r WHERE r.to_kind = ? AND r.to_id = ? ORDER BY r.from_kind, r.from_id, r.field`, k.Name, id)
	if err != nil {
		return nil, err
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

// UsedError refuses to delete a document that others refer to. Its message names the
// first of them, whoever asks; [Store.UsedBy] names those that somebody may know of.
type UsedError struct {
	kind  *resource.Kind
	id    string
	users []usage // one for each document
	said  error
}

// Error names the document and its first users.
func (e *UsedError) Error() string { return e.said.Error() }

// Unwrap is a fault of the kind fault.Conflict.
func (e *UsedError) Unwrap() error { return e.said }

// inUse refuses to delete a document because of its users.
func (s *Store) inUse(ctx context.Context, tx *db.Tx, k *resource.Kind, id string, users []usage) error {
	e := &UsedError{kind: k, id: id}
	seen := map[usage]bool{}
	for _, u := range users {
		u.field = ""
		if !seen[u] {
			seen[u] = true
			e.users = append(e.users, u)
		}
	}
	e.said = s.UsedBy(ctx, tx, e, func(*resource.Kind, string) (bool, error) { return true, nil })
	return e
}

// UsedBy is the refusal in words: it names the first users that sees says yes to, and
// counts the others. It asks about no more than fifty of them.
func (s *Store) UsedBy(ctx context.Context, tx *db.Tx, e *UsedError, sees func(k *resource.Kind, id string) (bool, error)) error {
	const named, asked = 5, 50
	var names []string
	for _, u := range e.users[:min(len(e.users), asked)] {
		if len(names) == named {
			break
		}
		switch ok, err := sees(s.kinds[u.kind], u.id); {
		case err != nil:
			return err
		case !ok:
			continue
		}
		label, err := s.label(ctx, tx, u)
		if err != nil {
			return err
		}
		names = append(names, label)
	}
	switch more := len(e.users) - len(names); {
	case more > 0 && len(names) == 0:
		names = append(names, fmt.Sprintf("%d others that you may not see", more))
	case more > 0:
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return fault.New(fault.Conflict, "The %s '%s' cannot be deleted because it is used by %s; change or delete these first.", e.kind.Noun, e.id, strings.Join(names, ", "))
}

// label names a document for people.
func (s *Store) label(ctx context.Context, tx *db.Tx, u usage) (string, error) {
	k := s.kinds[u.kind]
	doc, err := lock(ctx, tx, k, u.id)
	if err != nil {
		return "", err
	}
	tree, err := resource.Parse(doc.Body)
	if err != nil {
		return "", err
	}
	if name := resource.Text(tree, "Name"); name != "" {
		return k.Noun + " '" + name + "' (" + u.id + ")", nil
	}
	return k.Noun + " '" + u.id + "'", nil
}

// clearReferences takes target out of the members of one document that are to be
// cleared, all of them at once: the document would not be valid in between.
func (s *Store) clearReferences(ctx context.Context, tx *db.Tx, places []usage, target string) error {
	u := places[0]
	k := s.kinds[u.kind]
	doc, err := lock(ctx, tx, k, u.id)
	if err != nil {
		return err
	}
	tree, err := s.Tree(k, doc)
	if err != nil {
		return err
	}
	for _, p := range places {
		if s.onDelete(p) == resource.Clear {
			clearPath(tree, p.field, target)
		}
	}
	body, err := json.Marshal(tree)
	if err != nil {
		return fmt.Errorf("encode %s %s: %w", k.Noun, u.id, err)
	}
	_, err = s.replace(ctx, tx, k, u.id, Input{Body: body, Server: true})
	return err
}

func clearPath(tree resource.Tree, path, target string) {
	path, keys := strings.CutSuffix(path, ".*key")
	resource.Walk(tree, path, func(obj resource.Tree, key string) {
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
}
