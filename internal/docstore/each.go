package docstore

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
)

// Decode reads the body of a document.
func Decode[T any](doc *Doc) (*T, error) {
	v := new(T)
	if err := json.Unmarshal(doc.Body, v); err != nil {
		return nil, fmt.Errorf("read %s: %w", doc.ID, err)
	}
	return v, nil
}

// Each calls fn for every document of a kind that a query finds, in the kind's order
// and piece by piece; the query's own Page is not used. An error of fn ends it, and is
// returned as it is.
func (s *Store) Each(ctx context.Context, tx *db.Tx, kind string, q Query, fn func(doc *Doc) error) error {
	k, err := s.Kind(kind)
	if err != nil {
		return err
	}
	const piece = 1000 // bounds what is in memory at a time
	var last *Doc
	for {
		docs, err := s.After(ctx, tx, k, q, last, piece)
		if err != nil {
			return err
		}
		for _, doc := range docs {
			if err := fn(doc); err != nil {
				return err
			}
		}
		if len(docs) < piece {
			return nil
		}
		last = docs[len(docs)-1]
	}
}

// All decodes every document of a kind that a query finds, as Each does.
func All[T any](ctx context.Context, s *Store, tx *db.Tx, kind string, q Query) ([]T, error) {
	var out []T
	err := s.Each(ctx, tx, kind, q, func(doc *Doc) error {
		v, err := Decode[T](doc)
		if err == nil {
			out = append(out, *v)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}
