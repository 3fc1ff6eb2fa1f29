package docstore

import (
	"bytes"
	"context"
	"sync"

	"github.com/takodeploy/tako/internal/db"
)

// memoLimit is how many documents a Memo keeps.
const memoLimit = 2048

// Memo keeps what documents were decoded to, for a kind of which there are few and which is
// read all the time: to decode them takes longer than to read them. It is safe for
// concurrent use, and the zero value is empty.
type Memo[T any] struct {
	mu   sync.RWMutex
	seen map[string]memo[T] // by id
}

type memo[T any] struct {
	body  []byte // of which value was made: a version may be given out twice, after a rollback
	value T
}

// All is the function All. What it returns shares slices and maps with what it returned
// before, so nobody may change what is in them.
func (m *Memo[T]) All(ctx context.Context, s *Store, tx *db.Tx, kind string, q Query) ([]T, error) {
	var out []T
	err := s.Each(ctx, tx, kind, q, func(doc *Doc) error {
		m.mu.RLock()
		known, ok := m.seen[doc.ID]
		m.mu.RUnlock()
		if ok && bytes.Equal(known.body, doc.Body) {
			out = append(out, known.value)
			return nil
		}
		v, err := Decode[T](doc)
		if err != nil {
			return err
		}
		m.keep(doc, *v)
		out = append(out, *v)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (m *Memo[T]) keep(doc *Doc, v T) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen == nil || len(m.seen) >= memoLimit {
		m.seen = map[string]memo[T]{} // those that are in use come back
	}
	m.seen[doc.ID] = memo[T]{doc.Body, v}
}
