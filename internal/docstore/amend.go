package docstore

import (
	"context"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/resource"
)

// Amend changes documents of a kind as they are stored, of every space, without the
// kind's rules and without events: it is for databases that nobody uses yet. fn
// changes a document, its secrets sealed, and reports whether it did; it must not
// change the name. Amend returns how many were changed.
func (s *Store) Amend(ctx context.Context, tx *db.Tx, kind string, fn func(tree resource.Tree) bool) (n int, err error) {
	k, err := s.Kind(kind)
	if err != nil {
		return 0, err
	}
	const piece = 200 // bounds what is in memory at a time
	for after := ""; ; {
		docs, err := s.byID(ctx, tx, k, after, piece)
		if err != nil {
			return n, err
		}
		for _, doc := range docs {
			tree, err := resource.Parse(doc.Body)
			if err != nil {
				return n, fmt.Errorf("read %s %s: %w", k.Noun, doc.ID, err)
			}
			if !fn(tree) {
				continue
			}
			c := change{
				s: s, tx: tx, k: k, space: doc.Space, id: doc.ID, seq: doc.Seq, version: doc.Version + 1, by: doc.By,
				created: db.Micros(doc.Created), server: true, name: doc.name, slug: doc.Slug,
			}
			if _, err := c.update(ctx, tree); err != nil {
				return n, err
			}
			n++
		}
		if len(docs) < piece {
			return n, nil
		}
		after = docs[len(docs)-1].ID
	}
}

// byID reads documents of every space in the order of their ids.
func (s *Store) byID(ctx context.Context, tx *db.Tx, k *resource.Kind, after string, limit int) ([]*Doc, error) {
	rows, err := tx.Query(ctx, `SELECT `+docColumns+` FROM documents d WHERE d.kind = ? AND d.deleted = 0 AND d.id > ? ORDER BY d.id LIMIT ?`, k.Name, after, limit)
	if err != nil {
		return nil, fmt.Errorf("read all %s: %w", k.Name, err)
	}
	defer rows.Close()
	var docs []*Doc
	for rows.Next() {
		doc, err := scanDoc(k, rows.Scan)
		if err != nil {
			return nil, err
		}
		docs = append(docs, doc)
	}
	return docs, rows.Err()
}
