package verify

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"slices"

	"github.com/takodeploy/tako/internal/db"
)

// sample keeps up to n of the ids that it is shown: those that a seed gives the lowest
// numbers. The same ids are kept whatever their order, and nearly the same ones when some
// come or go.
type sample struct {
	n    int
	seed [8]byte
	kept []lot
	seen int
}

type lot struct {
	number [sha256.Size]byte
	id     string
}

func newSample(seed uint64, n int) *sample {
	s := &sample{n: n}
	binary.BigEndian.PutUint64(s.seed[:], seed)
	return s
}

func (s *sample) add(id string) {
	s.seen++
	s.kept = append(s.kept, lot{sha256.Sum256(append(s.seed[:], id...)), id})
	if len(s.kept) >= 4*s.n+64 {
		s.cut()
	}
}

func (s *sample) cut() {
	slices.SortFunc(s.kept, func(a, b lot) int { return bytes.Compare(a.number[:], b.number[:]) })
	s.kept = s.kept[:min(len(s.kept), s.n)]
}

// ids are those that were kept, in their own order.
func (s *sample) ids() []string {
	s.cut()
	out := make([]string, len(s.kept))
	for i := range s.kept {
		out[i] = s.kept[i].id
	}
	slices.Sort(out)
	return out
}

// choose samples the ids that a query of one column finds.
func (r *run) choose(ctx context.Context, n int, query string, args ...any) (*sample, error) {
	var s *sample
	err := r.DB.Read(ctx, func(tx *db.Tx) error {
		s = newSample(r.Seed, n)
		rows, err := tx.Query(ctx, query, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id string
			if err := rows.Scan(&id); err != nil {
				return err
			}
			s.add(id)
		}
		return rows.Err()
	})
	return s, err
}

// until is the bound for what may be looked at by its time.
func (r *run) until() int64 {
	if r.Until.IsZero() {
		return 1<<63 - 1
	}
	return db.Micros(r.Until)
}
