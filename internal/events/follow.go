package events

import (
	"context"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
)

// After returns the numbers of at most n events that follow another one, in order. None
// of them, and none between, is left out by who goes on from the last of them: an event
// that another with a smaller number might still precede is not among them.
func After(ctx context.Context, tx *db.Tx, at int64, n int) ([]int64, error) {
	settled, err := tx.SettledEvents(ctx)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `SELECT e.id FROM events e WHERE e.id > ? AND e.id <= ? ORDER BY e.id LIMIT ?`, at, settled, int64(n))
	if err != nil {
		return nil, fmt.Errorf("follow events: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	var out []int64
	for rows.Next() {
		var id int64
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("follow events: %w", err)
		}
		out = append(out, id)
	}
	return out, rows.Err()
}
